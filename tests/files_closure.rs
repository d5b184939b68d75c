//! What the file set must be whatever a run touched: independent of order, monotone, and closed under its own needs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use minjail::files::{FileSet, Policy, Rule, Switch, needed};
use minjail::path::{Facts, JailPath};
use minjail::root::Root;
use minjail::trace::{Access, Found, Header, Run, Touch, Trace};
use proptest::prelude::*;

/// Programs, scripts and data of a Debian machine; those that are not here are left out.
const CANDIDATES: [&str; 20] = [
    "/usr/bin/dash",
    "/usr/bin/bash",
    "/usr/bin/perl",
    "/usr/bin/git",
    "/usr/bin/python3.11",
    "/usr/sbin/nginx",
    "/usr/lib/x86_64-linux-gnu/libgcc_s.so.1",
    "/usr/bin/ldd",
    "/usr/bin/catchsegv",
    "/usr/sbin/adduser",
    "/usr/bin/gunzip",
    "/etc/passwd",
    "/etc/services",
    "/etc/ld.so.cache",
    "/usr/lib/os-release",
    // What traits go by.
    "/etc/nsswitch.conf",
    "/usr/lib/x86_64-linux-gnu/libc.so.6",
    "/usr/lib/x86_64-linux-gnu/gconv/gconv-modules.cache",
    "/usr/share/zoneinfo/Etc/UTC",
    "/usr/lib/terminfo/v/vt100",
];

fn path(text: &str) -> JailPath {
    JailPath::parse(text.as_bytes()).expect("an absolute path")
}

fn touch(path: JailPath, access: Access) -> Touch {
    let stat = nix::sys::stat::lstat(&path.below(Path::new("/"))).expect("it is there");
    Touch::new(0, "test", access, path, Found::There(Facts::from_stat(&stat).expect("a type that Linux knows")))
}

fn trace(touches: Vec<Touch>) -> Trace {
    let mut run = Run::new(Header::new("test", path("/usr/bin/dash")));
    run.touches = touches;
    Trace { runs: vec![run], store: BTreeMap::new() }
}

fn files(touches: Vec<Touch>) -> FileSet {
    let root = Root::open(Path::new("/")).expect("there is a root");
    // Every rule is on, so that what is shown holds for each.
    let rules = Rule::ALL.into_iter().map(|rule| (rule, Switch::On)).collect();
    let policy = Policy { rules, ..Policy::default() };
    needed(&trace(touches), &root, &policy).expect("everything is there and readable").0
}

fn paths(files: &FileSet) -> BTreeSet<&JailPath> {
    files.wanted.keys().collect()
}

fn touches() -> impl Strategy<Value = Vec<Touch>> {
    let there: Vec<&str> = CANDIDATES.into_iter().filter(|path| Path::new(path).is_file()).collect();
    let access = prop_oneof![Just(Access::Execute), Just(Access::Read), Just(Access::Look)];
    let one = (prop::sample::select(there), access).prop_map(|(name, access)| touch(path(name), access));
    prop::collection::vec(one, 0..8)
}

proptest! {
    // Each case reads libraries of the machine.
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_a_run_does_not_matter((touches, shuffled) in
        touches().prop_flat_map(|touches| (Just(touches.clone()), Just(touches).prop_shuffle())))
    {
        prop_assert_eq!(files(touches), files(shuffled));
    }

    #[test]
    fn more_touches_never_need_less(touches in touches(), more in touches()) {
        let few = files(touches.clone());
        let many = files([touches, more].concat());
        prop_assert!(paths(&few).is_subset(&paths(&many)));
        for (path, wanted) in &few.wanted {
            prop_assert!(wanted.reasons.iter().all(|reason| many.wanted[path].reasons.contains(reason)), "{} lost a reason", path);
        }
    }

    #[test]
    fn what_is_needed_needs_nothing_more(touches in touches()) {
        let once = files(touches.clone());
        let executed = touches.iter().filter(|touch| touch.access == Access::Execute).map(|touch| &touch.path);
        let executed: BTreeSet<JailPath> = executed.cloned().collect();
        // Whatever the closure added is executed, or loaded as if it were.
        let again = once.wanted.keys().filter(|path| path.below(Path::new("/")).symlink_metadata().is_ok());
        let again = again.map(|path| {
            let plain = path.below(Path::new("/"));
            let added = touches.iter().all(|touch| touch.path != *path) || executed.contains(path);
            let is_file = plain.symlink_metadata().is_ok_and(|metadata| metadata.is_file());
            touch(path.clone(), if added && is_file { Access::Execute } else { Access::Look })
        });
        let twice = files(touches.iter().cloned().chain(again).collect());
        prop_assert_eq!(paths(&once), paths(&twice));
    }
}

#[test]
fn the_candidates_are_of_use() {
    let shell = files(vec![touch(path("/usr/bin/dash"), Access::Execute)]);
    assert!(shell.wanted.len() > 8, "a shell needs a loader and a C library: {:?}", paths(&shell));
}
