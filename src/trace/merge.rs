//! Traces of several workloads, runs or machines as one.
//!
//! In: traces that were read together. Out: whether they can have been of one and the same root.

use std::collections::BTreeMap;

use minjail_tracer::Access;

use super::model::{Found, Header, Run, Touch, Trace};
use super::record::is_kernels;
use super::style::{Met, agreed};
use crate::path::{FileType, JailPath};

/// Two runs found different things at one path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` was {one} in {first}, and {other} in {second}")]
pub struct Conflict {
    pub path: JailPath,
    /// Which workload, as text.
    pub first: String,
    pub one: String,
    pub second: String,
    pub other: String,
}

/// What a run found at a path before it changed anything there.
struct Seen<'a> {
    run: &'a Run,
    touch: &'a Touch,
    before: Option<&'a str>,
}

impl Trace {
    /// Checks that all runs found the same at each path, as far as the trace can tell: a file's type, its size, and its
    /// content where that was kept, the text of a link, and mode and owner as far as it needs them. What a run has made itself, and what
    /// was missing, contradicts nothing.
    ///
    /// # Errors
    /// The first path, in order, of which two runs tell different things.
    pub fn check(&self) -> Result<(), Conflict> {
        let mut all: BTreeMap<&JailPath, Seen<'_>> = BTreeMap::new();
        let mut conflicts = BTreeMap::new();
        for run in &self.runs {
            for (path, seen) in firsts(run) {
                if let Some(known) = all.get(path) {
                    if let Some(conflict) = known.contradicts(&seen) {
                        conflicts.entry(path).or_insert(conflict);
                    }
                    // The one that knows the content says more to the next.
                    if known.before.is_some() || seen.before.is_none() {
                        continue;
                    }
                }
                all.insert(path, seen);
            }
        }
        for (path, met) in self.links_that_differ() {
            conflicts.entry(path).or_insert_with(|| Conflict::of_links(path, met));
        }
        for (path, kinds) in self.types_that_differ() {
            conflicts.entry(path).or_insert_with(|| Conflict::of_types(path, kinds));
        }
        let met = by_path(self.runs.iter().flat_map(styles));
        for (path, met) in met.iter().filter(|(path, _)| !is_kernels(path)) {
            if let Err(apart) = agreed(&met.iter().collect::<Vec<_>>()) {
                conflicts.entry(path).or_insert_with(|| Conflict::of_styles(path, apart));
            }
        }
        conflicts.into_values().next().map_or(Ok(()), Err)
    }

    /// The links that a run has gone through, and that were not the same when each run met them first: as the first run met them,
    /// and as another did. Who only takes a link away needs none of its texts.
    pub(crate) fn links_that_differ(&self) -> impl Iterator<Item = (&JailPath, [LinkText<'_>; 2])> {
        let links = by_path(self.runs.iter().flat_map(texts));
        let used = links.into_iter().filter(|(_, met)| met.iter().any(|link| link.is_used));
        used.filter_map(|(path, met)| {
            let (&first, others) = met.split_first()?;
            let other = others.iter().find(|other| other.text != first.text)?;
            Some((path, [first, *other]))
        })
    }

    /// The paths at which a run has used one thing, or gone through a link, and another has found something of another type: what
    /// each found first.
    pub(crate) fn types_that_differ(&self) -> impl Iterator<Item = (&JailPath, [Kind<'_>; 2])> {
        let all = by_path(self.runs.iter().filter(|_| self.runs.len() > 1).flat_map(kinds));
        all.into_iter().filter_map(|(path, kinds)| {
            let (&first, others) = kinds.split_first()?;
            // A jail makes directories and files of its own where its root may have links.
            let is_comparable = |kind: &&Kind<'_>| kind.run.header.is_in_jail() == first.run.header.is_in_jail();
            let mut others = others.iter().filter(is_comparable).filter(|kind| kind.file_type != first.file_type);
            let other = others.find(|other| first.is_used || other.is_used)?;
            Some((path, [first, *other]))
        })
    }
}

impl Conflict {
    pub(crate) fn of(path: &JailPath, headers: [&Header; 2], [one, other]: [String; 2]) -> Self {
        let is_same_name = headers[0].workload == headers[1].workload;
        let [first, second] = headers.map(|header| {
            if is_same_name {
                format!("`{}`", header.command.join(" "))
            } else {
                format!("workload `{}`", header.workload)
            }
        });
        Self { path: path.clone(), first, one, second, other }
    }

    /// A link led elsewhere.
    pub(crate) fn of_links(path: &JailPath, met: [LinkText<'_>; 2]) -> Self {
        Self::of(path, met.map(|link| &link.run.header), met.map(|link| format!("a link to `{}`", link.text)))
    }

    /// It was something else.
    pub(crate) fn of_types(path: &JailPath, kinds: [Kind<'_>; 2]) -> Self {
        Self::of(path, kinds.map(|kind| &kind.run.header), kinds.map(|kind| noun(kind.file_type).to_owned()))
    }

    /// No mode and owner are those that both need.
    pub(crate) fn of_styles(path: &JailPath, met: [&Met<'_>; 2]) -> Self {
        let [one, other] = met;
        let said = [format!("{} with {}", noun(one.file_type), one.style), format!("one with {}", other.style)];
        Self::of(path, met.map(|met| met.header), said)
    }
}

/// What each run has found at each path, in the order of the runs.
fn by_path<'a, T>(found: impl Iterator<Item = (&'a JailPath, T)>) -> BTreeMap<&'a JailPath, Vec<T>> {
    let mut all: BTreeMap<_, Vec<T>> = BTreeMap::new();
    for (path, one) in found {
        all.entry(path).or_default().push(one);
    }
    all
}

/// The text of a link as a run met it first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LinkText<'a> {
    run: &'a Run,
    text: &'a str,
    /// The run went on from there, and did not only take it away.
    is_used: bool,
}

/// Each link that a run has gone through, or changed.
fn texts(run: &Run) -> BTreeMap<&JailPath, LinkText<'_>> {
    let mut texts: BTreeMap<&JailPath, LinkText<'_>> = BTreeMap::new();
    for touch in &run.touches {
        let changed = touch.target.as_deref().filter(|_| !touch.made).map(|text| (&touch.path, text, false));
        let used = touch.links.iter().map(|link| (&link.path, link.target.as_str(), true));
        for (path, text, is_used) in used.chain(changed).filter(|(path, ..)| !is_kernels(path)) {
            texts.entry(path).or_insert(LinkText { run, text, is_used: false }).is_used |= is_used;
        }
    }
    texts
}

/// What a run found first at a path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind<'a> {
    run: &'a Run,
    file_type: FileType,
    /// The run did not only take it away.
    is_used: bool,
}

/// What a run found first at each path, at the ends of ways and on them.
fn kinds(run: &Run) -> BTreeMap<&JailPath, Kind<'_>> {
    let mut kinds: BTreeMap<&JailPath, Kind<'_>> = BTreeMap::new();
    for touch in &run.touches {
        let is_used = !matches!(touch.access, Access::Remove | Access::Replace);
        let facts = touch.found.facts().filter(|_| !touch.made && touch.is_reached());
        let at_end = facts.map(|facts| (&touch.path, facts.file_type, is_used));
        let on_the_way = touch.links.iter().map(|link| (&link.path, FileType::Symlink, true));
        for (path, file_type, is_used) in on_the_way.chain(at_end).filter(|(path, ..)| !is_kernels(path)) {
            let kind = kinds.entry(path).or_insert(Kind { run, file_type, is_used: false });
            kind.is_used |= is_used && kind.file_type == file_type;
        }
    }
    kinds
}

/// What a run found first at each path that was there before it.
fn firsts(run: &Run) -> BTreeMap<&JailPath, Seen<'_>> {
    let mut firsts: BTreeMap<&JailPath, Seen<'_>> = BTreeMap::new();
    for touch in run.touches.iter().filter(|touch| !touch.made && matches!(touch.found, Found::There(_))) {
        let seen = firsts.entry(&touch.path).or_insert(Seen { run, touch, before: None });
        seen.before = seen.before.or(touch.before.as_deref());
    }
    firsts
}

/// How a run met what is at each path, as far as it got there.
fn styles(run: &Run) -> BTreeMap<&JailPath, Met<'_>> {
    let mut styles = BTreeMap::new();
    for touch in run.touches.iter().filter(|touch| !touch.made && touch.is_reached()) {
        if let Found::There(facts) = &touch.found {
            styles.entry(&touch.path).or_insert_with(|| Met::of(&run.header, facts)).take(touch);
        }
    }
    styles
}

impl Seen<'_> {
    fn contradicts(&self, other: &Self) -> Option<Conflict> {
        let (Found::There(one), Found::There(two)) = (&self.touch.found, &other.touch.found) else { return None };
        let (said, and) = match (self.before, other.before) {
            _ if one.file_type != two.file_type => (noun(one.file_type).to_owned(), noun(two.file_type).to_owned()),
            _ if one.is_file() && one.size != two.size => {
                (format!("a file of {} bytes", one.size), format!("one of {}", two.size))
            }
            (Some(one), Some(two)) if one != two => {
                (format!("a file with the sha256 {one}"), format!("one with {two}"))
            }
            _ => return None,
        };
        Some(Conflict::of(&self.touch.path, [&self.run.header, &other.run.header], [said, and]))
    }
}

fn noun(file_type: FileType) -> &'static str {
    match file_type {
        FileType::Directory => "a directory",
        FileType::File => "a file",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharDevice => "a character device",
        FileType::BlockDevice => "a block device",
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::path::Facts;
    use crate::trace::{Ending, Gap, Header, Link};
    use proptest::prelude::*;

    fn touch(path: &str, size: u64, before: Option<&str>) -> Touch {
        let facts = Facts {
            file_type: FileType::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size,
            mtime: 1,
            mtime_nsec: 0,
            dev: 1,
            ino: 1,
            nlink: 1,
            rdev: 0,
        };
        let path = JailPath::parse(path.as_bytes()).unwrap();
        let touch = Touch::new(0, "openat", Access::Write, path, Found::There(facts));
        Touch { before: before.map(str::to_owned), ..touch }
    }

    fn run(workload: &str, touches: Vec<Touch>) -> Run {
        let mut run = Run::new(Header::new(workload, JailPath::literal(b"/bin/true")));
        run.touches = touches;
        run.gaps.insert(Gap::IoUring, BTreeMap::from([(1, 2)]));
        run.ending = Some(Ending::Exited(0));
        run
    }

    fn trace(runs: Vec<Run>) -> Trace {
        Trace { runs, store: BTreeMap::new() }
    }

    #[test]
    fn what_two_runs_found_different_is_told_of_both() {
        let told = |one, other| {
            trace(vec![run("a", vec![touch("/f", 1, None), one]), run("b", vec![other])])
                .check()
                .map_err(|it| it.to_string())
        };
        assert_eq!(told(touch("/g", 1, None), touch("/f", 1, None)), Ok(()));
        assert_eq!(
            told(touch("/g", 1, None), touch("/f", 2, None)),
            Err("`/f` was a file of 1 bytes in workload `a`, and one of 2 in workload `b`".to_owned())
        );
        assert_eq!(
            told(touch("/f", 9, Some("x")), touch("/f", 1, Some("y"))),
            Err("`/f` was a file with the sha256 x in workload `a`, and one with y in workload `b`".to_owned())
        );
        let directory = Touch {
            found: Found::There(Facts { file_type: FileType::Directory, ..facts(&touch("/f", 1, None)) }),
            ..touch("/f", 1, None)
        };
        assert!(told(touch("/g", 1, None), directory).unwrap_err().contains("and a directory in workload `b`"));
        let made = Touch { made: true, ..touch("/f", 7, None) };
        assert_eq!(told(touch("/g", 1, None), made), Ok(()));
    }

    #[test]
    fn two_runs_of_one_name_are_told_apart_by_their_commands() {
        let [mut one, mut other] = [1, 2].map(|size| run("cat", vec![touch("/f", size, None)]));
        one.header.command = vec!["cat".to_owned(), "/f".to_owned()];
        other.header.command = vec!["cat".to_owned(), "-n".to_owned(), "/f".to_owned()];
        let told = trace(vec![one, other]).check().unwrap_err().to_string();
        assert_eq!(told, "`/f` was a file of 1 bytes in `cat /f`, and one of 2 in `cat -n /f`");
    }

    /// Whichever of the runs it was that went through the link.
    #[test]
    fn links_are_told_of_if_one_has_gone_through_them() {
        let link = |text: &str| Link { path: JailPath::parse(b"/cur").unwrap(), target: text.to_owned(), facts: None };
        let used = |text| Touch { links: vec![link(text)], ..touch("/f", 1, None) };
        let taken = |text: &str| {
            let touch = touch("/cur", 1, None);
            let found = Found::There(Facts { file_type: FileType::Symlink, ..facts(&touch) });
            Touch { found, target: Some(text.to_owned()), ..touch }
        };
        let told = |touches: [Touch; 3]| {
            let runs = touches.into_iter().zip(["a", "b", "c"]).map(|(touch, name)| run(name, vec![touch]));
            trace(runs.collect()).check().map_err(|conflict| conflict.to_string())
        };
        let conflict = Err("`/cur` was a link to `v1` in workload `a`, and a link to `v2` in workload `b`".to_owned());
        for touches in [
            [used("v1"), taken("v2"), taken("v1")],
            [taken("v1"), used("v2"), taken("v1")],
            [taken("v1"), taken("v2"), used("v1")],
        ] {
            assert_eq!(told(touches), conflict);
        }
        assert_eq!(told([taken("v1"), taken("v2"), taken("v3")]), Ok(()));
        assert_eq!(told([used("v1"), taken("v1"), used("v1")]), Ok(()));
    }

    /// Those that need two modes, and not who only changes one.
    #[test]
    fn modes_that_two_runs_need_are_told_of_both() {
        let met = |mode, access| {
            let call = if access == Access::Attributes { "chmod" } else { "execve" }.to_owned();
            let touch = touch("/f", 1, None);
            Touch { found: Found::There(Facts { mode, ..facts(&touch) }), call, access, ..touch }
        };
        let told = |touches: [Touch; 3]| {
            let runs = touches.into_iter().zip(["a", "b", "c"]).map(|(touch, name)| run(name, vec![touch]));
            trace(runs.collect()).check().map_err(|conflict| conflict.to_string())
        };
        let (changes, executes) = (met(0o644, Access::Attributes), |mode| met(mode, Access::Execute));
        assert_eq!(told([changes.clone(), executes(0o755), executes(0o755)]), Ok(()));
        assert_eq!(
            told([changes, executes(0o755), executes(0o700)]),
            Err("`/f` was a file with mode 0755 and owner 0:0 in workload `b`, and one with mode 0700 and owner 0:0 in workload `c`".to_owned())
        );
    }

    fn facts(touch: &Touch) -> Facts {
        let Found::There(facts) = &touch.found else { panic!("it was there") };
        facts.clone()
    }

    /// The trace as it lies on the disk, file by file.
    fn written(trace: &Trace, at: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        trace.write(at).unwrap().publish().unwrap();
        let mut files = BTreeMap::from([(PathBuf::new(), fs_err::read(at.join("trace.jsonl")).unwrap())]);
        if let Ok(entries) = fs_err::read_dir(at.join("before")) {
            files.extend(entries.map(|entry| {
                let path = entry.unwrap().path();
                (PathBuf::from(path.file_name().unwrap()), fs_err::read(&path).unwrap())
            }));
        }
        files
    }

    /// Workload by workload: path, size, the byte that was kept of it, mode, and what was done.
    type Sketch = Vec<(String, Vec<(String, u64, Option<u8>, u32, Access)>)>;

    fn any_trace() -> impl Strategy<Value = Sketch> {
        let mode = proptest::sample::select(vec![0o600, 0o644, 0o755]);
        let access = proptest::sample::select(vec![Access::Look, Access::Execute, Access::Write, Access::Attributes]);
        let touch = ("/[a-c]", 0..3_u64, proptest::option::of(0..3_u8), mode, access);
        proptest::collection::vec(("[a-c]", proptest::collection::vec(touch, 0..4)), 1..4)
    }

    /// Writes a trace at `at`.
    fn lay_out(runs: &Sketch, at: &Path) -> PathBuf {
        let mut store = BTreeMap::new();
        let kept = at.with_extension("kept");
        fs_err::create_dir(&kept).unwrap();
        let mut keep = |content: u8| {
            let digest = crate::manifest::Digest::of(&[content]).hex();
            fs_err::write(kept.join(&digest), [content]).unwrap();
            store.insert(digest.clone(), kept.join(&digest));
            digest
        };
        let mut all = Vec::new();
        for (workload, touches) in runs {
            let touches = touches.iter().map(|(path, size, before, mode, access)| {
                let touch = touch(path, *size, before.map(&mut keep).as_deref());
                let found = Found::There(Facts { mode: *mode, ..facts(&touch) });
                let call = if *access == Access::Attributes { "chmod" } else { "openat" }.to_owned();
                Touch { found, call, access: *access, ..touch }
            });
            all.push(run(workload, touches.collect()));
        }
        Trace { runs: all, store }.write(at).unwrap().publish().unwrap();
        at.to_path_buf()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn merging_is_commutative_associative_and_idempotent(a in any_trace(), b in any_trace(), c in any_trace()) {
            let ground = tempfile::tempdir().unwrap();
            let at = |name: &str| ground.path().join(name);
            let (a, b, c) = (lay_out(&a, &at("a")), lay_out(&b, &at("b")), lay_out(&c, &at("c")));
            let merge = |traces: &[&PathBuf], name: &str| {
                let merged = Trace::read(&traces.iter().map(|path| (*path).clone()).collect::<Vec<_>>()).unwrap();
                (written(&merged, &at(name)), at(name))
            };
            let (ab, ab_at) = merge(&[&a, &b], "ab");
            let (ba, _) = merge(&[&b, &a], "ba");
            prop_assert_eq!(&ab, &ba);
            let (_, bc_at) = merge(&[&b, &c], "bc");
            prop_assert_eq!(merge(&[&ab_at, &c], "ab-c").0, merge(&[&a, &bc_at], "a-bc").0);
            prop_assert_eq!(merge(&[&ab_at, &ab_at, &a], "abab").0, ab);
        }

        #[test]
        fn a_conflict_depends_on_no_order(a in any_trace(), b in any_trace()) {
            let ground = tempfile::tempdir().unwrap();
            let (a, b) = (lay_out(&a, &ground.path().join("a")), lay_out(&b, &ground.path().join("b")));
            let one = Trace::read(&[a.clone(), b.clone()]).unwrap().check();
            prop_assert_eq!(one, Trace::read(&[b, a]).unwrap().check());
        }
    }
}
