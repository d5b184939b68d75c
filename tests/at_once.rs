//! Whatever calls several tasks make at once: of what was there before the run the image has what they got, where it was and
//! as it was.
//!
//! The program says which inode numbers it got, and the test knows what had them before; it keeps all of that open, so that no number
//! comes to another file.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use proptest::prelude::*;
use support::{TestContext, outcome_of};

/// A file as it was: its path from the working directory, and what it was.
type Was = (String, What);

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Directory,
    File(Vec<u8>),
    Link(PathBuf),
}

impl What {
    /// What is at `path`, if anything is.
    fn at(path: &Path) -> Option<Self> {
        let kind = fs_err::symlink_metadata(path).ok()?.file_type();
        Some(if kind.is_dir() {
            Self::Directory
        } else if kind.is_symlink() {
            Self::Link(fs_err::read_link(path).expect("it is a link"))
        } else {
            Self::File(fs_err::read(path).expect("it is ours"))
        })
    }
}

/// A working directory with a bit of everything, and the program that runs there.
struct Ground {
    context: TestContext,
    /// By inode numbers: a file may have several names.
    before: BTreeMap<u64, Vec<Was>>,
    held: Vec<OwnedFd>,
}

/// Links that are moved lead no further up than to the test's own directory.
const WORK: &str = "deep/down";

const LINKS: [(&str, &str); 6] =
    [("l", "a/d"), ("a/l", "../b"), ("a/d/l", "../../x"), ("b/l", "l"), ("b/m", "nowhere"), ("m", "/proc/self/cwd/b")];

impl Ground {
    fn new(program: &str) -> Self {
        let context = TestContext::new();
        let work = context.work().join(WORK);
        fs_err::create_dir_all(&work).expect("it is new");
        for directory in ["a/d", "b/e"] {
            fs_err::create_dir_all(work.join(directory)).expect("it is new");
        }
        for name in ["x", "y", "a/x", "a/y", "a/d/x", "b/x", "b/e/y"] {
            fs_err::write(work.join(name), format!("was {name}")).expect("it is new");
        }
        for (name, interpreter) in [("s", "r"), ("a/s", "a/l/r"), ("b/s", "/proc/self/cwd/s")] {
            fs_err::write(work.join(name), format!("#!{interpreter}\n")).expect("it is new");
            fs_err::set_permissions(work.join(name), PermissionsExt::from_mode(0o755)).expect("it is ours");
        }
        for name in ["r", "b/r"] {
            fs_err::copy(program, work.join(name)).expect("it is new");
        }
        for (name, target) in LINKS {
            symlink(target, work.join(name)).expect("it is new");
        }
        fs_err::hard_link(work.join("y"), work.join("b/h")).expect("it is new");
        let mut ground = Self { context, before: BTreeMap::new(), held: Vec::new() };
        ground.note("");
        ground
    }

    fn work(&self) -> PathBuf {
        self.context.work().join(WORK)
    }

    fn note(&mut self, name: &str) {
        let path = self.work().join(name);
        let what = What::at(&path).expect("it was made");
        let number = fs_err::symlink_metadata(&path).expect("it was made").ino();
        self.held.push(
            open(&path, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty()).expect("it is there"),
        );
        self.before.entry(number).or_default().push((name.to_owned(), what.clone()));
        if what == What::Directory {
            for below in support::names_in(&path) {
                self.note(&Path::new(name).join(below).to_string_lossy());
            }
        }
    }

    /// What the image lacks of what the program got; `None` if it was told that something may be missing.
    fn missing(&self, program: &str, times: u32, tasks: &[String]) -> Option<Vec<&[Was]>> {
        let (trace, output) = (self.context.text("app.trace"), format!("rootfs:{}", self.context.text("tree")));
        let mut command = self.context.minjail(&["trace", "-q", "-t", &trace, "--"]);
        command.current_dir(self.work()).arg(program).arg(times.to_string());
        let ran = outcome_of(command.args(tasks)).success();
        let built = self.context.outcome(&["build", "-q", "-t", &trace, "-o", &output]);
        if built.stderr.contains("error: the trace has gaps: another thread") {
            return None;
        }
        built.success();
        let tree = self.context.path("tree").join(&support::text(&self.work())[1..]);
        let is_packed = |was: &&[Was]| was.iter().any(|(name, what)| What::at(&tree.join(name)).as_ref() == Some(what));
        let got: BTreeSet<u64> = ran.text().lines().filter_map(|line| line.parse().ok()).collect();
        let was = got.iter().filter_map(|number| self.before.get(number)).map(Vec::as_slice);
        Some(was.filter(|was| !is_packed(was)).collect())
    }
}

const PLACES: [&str; 14] =
    ["", "", "", "a/", "a/", "b/", "a/d/", "b/e/", "l/", "m/", "a/l/", "n/", "/proc/self/cwd/", "/proc/self/fd/100/"];
const NAMES: [&str; 14] = ["x", "x", "y", "d", "e", "l", "m", "s", "r", "h", "n", "a", "b", "."];

/// A path among a few, so that the tasks meet; it leads nowhere up.
fn any_path() -> impl Strategy<Value = String> {
    (prop::sample::select(&PLACES[..]), prop::sample::select(&NAMES[..]))
        .prop_map(|(place, name)| format!("{place}{name}"))
}

/// A path that is asked for: it may lead up, and it may be the one that is rewritten.
fn any_asked() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => any_path(),
        1 => any_path().prop_map(|path| format!("{path}/..")),
        1 => any_path().prop_map(|path| format!("../{path}")),
        2 => Just("@".to_owned()),
    ]
}

/// What a task does in one step. What is written or removed by a path that is rewritten meanwhile would be a gap.
fn any_step() -> impl Strategy<Value = String> {
    let asking = ["see", "look", "read", "read", "read", "list", "execute", "execute"];
    let going = ["enter", "hold", "hold"];
    let changing = ["write", "change", "make", "remove", "move", "move", "exchange", "exchange", "link", "point"];
    let one = |(verb, path)| format!("{verb} {path}");
    let two = |(verb, path, other)| format!("{verb} {path} {other}");
    prop_oneof![
        9 => (prop::sample::select(asking.to_vec()), any_asked()).prop_map(one),
        3 => (prop::sample::select(going.to_vec()), any_path()).prop_map(one),
        10 => (prop::sample::select(changing.to_vec()), any_path(), any_path()).prop_map(two),
        1 => (Just("rewrite"), any_asked(), any_asked()).prop_map(two),
        1 => Just("return".to_owned()),
    ]
}

/// A task, and its steps.
fn any_task() -> impl Strategy<Value = String> {
    let kind = prop::sample::select(vec!["t", "t", "p", "f", "m", "d"]);
    (kind, prop::collection::vec(any_step(), 1..20)).prop_map(|(kind, steps)| format!("{kind}{}", steps.join("\n")))
}

#[test]
fn whatever_is_called_at_once() {
    let shop = TestContext::new();
    let program = shop.hazard("at_once");
    // Each case is a run and a build; change a number here to ask more often.
    let config =
        ProptestConfig { cases: 24, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(times in 1..20_u32, tasks in prop::collection::vec(any_task(), 2..5))| {
        let ground = Ground::new(&program);
        prop_assert_eq!(ground.missing(&program, times, &tasks).unwrap_or_default(), Vec::<&[Was]>::new());
    });
}
