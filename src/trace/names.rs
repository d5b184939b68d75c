//! Which names are from before the run, and what was there under them.
//!
//! In: what calls are about to do with names. Out: where what stands at a path now stood before the run, or that the run
//! has made it. A call is seen before it runs: whether it has moved something (`rename(2)`, `link(2)`) is told later, or shows, when the
//! file is found under its new name. Until then everything is where it was.

use std::collections::HashMap;

use minjail_tracer::Access;

use super::model::Found;
use super::now::{Now, Origin, moved_below};
use crate::path::{Facts, JailPath};
use crate::root::Root;

/// What the run has made and moved so far.
#[derive(Debug, Default)]
pub(super) struct Names {
    now: Now,
    /// Calls that were seen, and of which it does not show yet that they have run; oldest first.
    pending: Vec<Move>,
    /// What the call of a task that takes two paths has for its first one, by each path by which it is to be seen.
    firsts: Option<(i32, Vec<Standing>)>,
    /// Its second one was told.
    is_second_told: bool,
    making: Making,
}

/// What tasks are about to make, as far as they have not been heard of since, and nobody has found it there: until then another may look
/// there first.
#[derive(Debug, Default)]
struct Making {
    paths: HashMap<JailPath, i32>,
    tasks: HashMap<i32, Vec<JailPath>>,
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Standing {
    path: JailPath,
    /// Device and inode.
    file: (u64, u64),
}

/// What is known of a path, and by itself of those below.
#[derive(Debug)]
struct Lifted {
    path: JailPath,
    origin: Origin,
    below: Now,
}

/// A call that gives something another name; where a name is to be seen by several paths, by each of them, and where another thread is
/// about to lead the task's working directory elsewhere, by those that it may have then.
#[derive(Debug)]
struct Move {
    task: i32,
    /// Empty: it had no name that could be seen.
    from: Vec<Standing>,
    /// Never empty.
    to: Vec<JailPath>,
    /// What stands at these before: device and inode.
    over: Vec<(u64, u64)>,
    /// The old name stays (`link(2)`).
    is_link: bool,
}

/// What became of a call.
enum Came {
    Moved,
    /// `RENAME_EXCHANGE` of `rename(2)`.
    Exchanged,
    Nothing,
}

impl Names {
    /// What shows already of what calls move that are not over yet is known from now on.
    pub(super) fn look(&mut self, root: &Root) {
        if !self.pending.is_empty() {
            self.settle_where(|_| false, root);
        }
    }

    /// The call of `task` is over, and `has` moved something or not; `None` if nobody knows. False if it has given a name to something
    /// that was not to be seen by its old one.
    pub(super) fn returned(&mut self, task: i32, has: Option<bool>, root: &Root) -> bool {
        self.firsts = None;
        let Some(has) = has else {
            self.settle_where(|call| call.task == task, root);
            return true;
        };
        let calls = std::mem::take(&mut self.pending);
        let (calls, others): (Vec<Move>, Vec<Move>) = calls.into_iter().partition(|call| call.task == task);
        self.pending = others;
        for call in calls.iter().filter(|_| has) {
            self.apply(call, matches!(call.came(root), Came::Exchanged), root);
        }
        !has || calls.iter().all(|call| call.is_link || !call.from.is_empty())
    }

    fn settle_where(&mut self, is_over: impl Fn(&Move) -> bool, root: &Root) {
        let mut calls = std::mem::take(&mut self.pending);
        while !calls.is_empty() {
            let call = calls.remove(0);
            match call.came(root) {
                Came::Nothing if is_over(&call) => {}
                Came::Nothing => self.pending.push(call),
                came => {
                    self.apply(&call, matches!(came, Came::Exchanged), root);
                    // Of several that would have done the same, one has.
                    calls.retain(|other| other.from != call.from || other.to != call.to);
                }
            }
        }
    }

    /// Notes what a call of `task` is about to do with a name, at which it has `found` this. `paths` are all by which the name is to be
    /// seen, sorted.
    pub(super) fn note(&mut self, task: i32, call: &str, access: Access, paths: &[JailPath], found: &Found) {
        self.making.is_over(task);
        if call.starts_with("link") || call.starts_with("rename") {
            self.note_move(task, call, access, paths, found);
            return;
        }
        for path in paths {
            if *found == Found::Missing {
                self.note_missing(task, access, path);
            } else {
                self.making.paths.remove(path);
            }
        }
    }

    /// Whatever stood there is gone, or is not there yet.
    fn note_missing(&mut self, task: i32, access: Access, path: &JailPath) {
        let stood = self.now.get(path);
        let (was_made, is_gone) = (stood == Some(&Origin::Made), stood == Some(&Origin::Gone));
        if !self.now.is_empty() {
            self.now.take(path);
        }
        if is_gone {
            self.now.insert(path.clone(), Origin::Gone);
        }
        if access.makes() {
            self.making.begins(task, path);
        }
        if access.makes() || was_made && self.making.paths.contains_key(path) {
            self.now.insert(path.clone(), Origin::Made);
        }
    }

    /// `process` is gone.
    pub(super) fn ended(&mut self, process: i32) {
        self.making.is_over(process);
    }

    fn note_move(&mut self, task: i32, call: &str, access: Access, paths: &[JailPath], found: &Found) {
        let there = found.facts().map(Facts::inode);
        if !matches!(access, Access::Create | Access::Replace) {
            // A file without a name has a door in /proc at most (`open(2)`, `O_TMPFILE`).
            let named = there.filter(|_| !paths.iter().any(|path| path.as_bytes().starts_with(b"/proc/")));
            let standing = paths.iter().filter_map(|path| Some(Standing { path: path.clone(), file: named? }));
            match &mut self.firsts {
                // What the path leads to was given by several.
                Some((first, firsts)) if *first == task && !self.is_second_told => add_new(firsts, standing),
                _ => (self.firsts, self.is_second_told) = (Some((task, standing.collect())), false),
            }
            return;
        }
        self.is_second_told = true;
        let firsts = self.firsts.as_ref().filter(|(first, _)| *first == task);
        let from = firsts.map_or_else(Vec::new, |(_, firsts)| firsts.clone());
        let to = paths.iter().cloned();
        if let Some(call) = self.pending.iter_mut().find(|call| call.task == task && call.from == from) {
            add_new(&mut call.to, to);
            add_new(&mut call.over, there.into_iter());
        } else if there.is_none() || from.is_empty() || from.iter().any(|from| Some(from.file) != there) {
            // Two names of one file stay as they are.
            let (to, is_link) = (to.collect(), call.starts_with("link"));
            self.pending.push(Move { task, from, to, over: there.into_iter().collect(), is_link });
        }
    }

    /// Where what is now at `path` was before the run; `None` if the run has made it.
    pub(super) fn origin(&self, path: &JailPath) -> Option<JailPath> {
        match self.standing(path) {
            Origin::Made | Origin::Gone => None,
            Origin::At(origin) => Some(origin),
        }
    }

    /// What was there before the run and has another name now: its old name and the new one.
    pub(super) fn moved(&self) -> impl Iterator<Item = (&JailPath, &JailPath)> {
        self.now.moved()
    }

    /// Every call that was seen is over.
    pub(super) fn settle_all(&mut self, root: &Root) {
        self.settle_where(|_| true, root);
    }

    fn standing(&self, path: &JailPath) -> Origin {
        if self.now.is_empty() {
            return Origin::At(path.clone());
        }
        for at in path.upwards() {
            match self.now.get(&at) {
                Some(Origin::Made | Origin::Gone) => return Origin::Made,
                Some(Origin::At(origin)) => return Origin::At(moved_below(path, &at, origin)),
                None => {}
            }
        }
        Origin::At(path.clone())
    }

    /// A call has moved something, or exchanged the two.
    fn apply(&mut self, call: &Move, is_exchange: bool, root: &Root) {
        let (from, to) = call.names(root);
        let stands =
            |path: &JailPath| Lifted { path: path.clone(), origin: self.standing(path), below: Now::default() };
        let mut moved: Vec<Lifted> = from.into_iter().map(|from| stands(&from.path)).collect();
        let mut replaced: Vec<Lifted> = to.iter().copied().map(stands).collect();
        // Not before all are told where they stand: where one does may follow from another.
        for lifted in moved.iter_mut().filter(|_| !call.is_link).chain(&mut replaced) {
            lifted.below = self.now.take(&lifted.path);
        }
        for (number, to) in to.into_iter().enumerate() {
            match moved.get(number).or(moved.last()) {
                Some(moved) => self.put(to, moved),
                None => self.now.insert(to.clone(), Origin::Made),
            }
        }
        for (number, Lifted { path: from, origin, .. }) in moved.iter().enumerate().filter(|_| !call.is_link) {
            if let (true, Some(replaced)) = (is_exchange, replaced.get(number).or(replaced.last())) {
                self.put(from, replaced);
            } else if matches!(root.facts(from), Ok(Some(_))) {
                // What it leaves there is its own (rename(2), `RENAME_WHITEOUT`).
                self.now.insert(from.clone(), Origin::Made);
            } else if *origin == Origin::At(from.clone()) {
                self.now.insert(from.clone(), Origin::Gone);
            }
        }
    }

    /// What was `lifted`, and all below that was known by itself, stands at `to` now.
    fn put(&mut self, to: &JailPath, lifted: &Lifted) {
        // Where its directory says the same, nothing is to be remembered.
        if self.standing(to) != lifted.origin {
            self.now.insert(to.clone(), lifted.origin.clone());
        }
        self.now.put(&lifted.below, &lifted.path, to);
    }
}

/// Adds those that are not among them.
fn add_new<T: PartialEq>(all: &mut Vec<T>, new: impl Iterator<Item = T>) {
    for one in new {
        if !all.contains(&one) {
            all.push(one);
        }
    }
}

impl Making {
    fn begins(&mut self, task: i32, path: &JailPath) {
        self.paths.insert(path.clone(), task);
        self.tasks.entry(task).or_default().push(path.clone());
    }

    /// The last call of `task` is over.
    fn is_over(&mut self, task: i32) {
        for path in self.tasks.remove(&task).into_iter().flatten() {
            if self.paths.get(&path) == Some(&task) {
                self.paths.remove(&path);
            }
        }
    }
}

impl Move {
    /// What has become of it, as far as the names show.
    fn came(&self, root: &Root) -> Came {
        let mut new = self.to.iter().filter_map(|to| inode(root, to)).filter(|there| !self.over.contains(there));
        if self.from.is_empty() {
            return if new.next().is_some() { Came::Moved } else { Came::Nothing };
        }
        let Some(moved) = new.find_map(|there| self.from.iter().find(|from| from.file == there)) else {
            return Came::Nothing;
        };
        match inode(root, &moved.path) {
            Some(there) if !self.is_link && self.over.contains(&there) => Came::Exchanged,
            _ => Came::Moved,
        }
    }

    /// Of all names that it may have taken and given, those that it has, as far as the names show.
    fn names(&self, root: &Root) -> (Vec<&Standing>, Vec<&JailPath>) {
        let (from, to): (Vec<&Standing>, Vec<&JailPath>) = (self.from.iter().collect(), self.to.iter().collect());
        if from.len() < 2 && to.len() < 2 {
            return (from, to);
        }
        let is_as_before = |to: &JailPath| inode(root, to).is_some_and(|there| self.over.contains(&there));
        let moved = |to: &JailPath| inode(root, to).filter(|there| self.from.iter().any(|from| from.file == *there));
        let there: Vec<(u64, u64)> = to.iter().filter(|to| !is_as_before(to)).filter_map(|to| moved(to)).collect();
        if there.is_empty() {
            // Another call has moved it on.
            let is_left = |from: &&Standing| inode(root, &from.path) != Some(from.file);
            return (those(from, is_left), those(to, |to| !is_as_before(to)));
        }
        (
            those(from, |from| there.contains(&from.file)),
            those(to, |to| inode(root, to).is_none_or(|now| there.contains(&now))),
        )
    }
}

/// What stands at `path`: device and inode.
fn inode(root: &Root, path: &JailPath) -> Option<(u64, u64)> {
    root.lstat(path).ok().flatten().as_ref().map(Facts::inode)
}

/// Those of `all` for which it holds; all of them if there is none.
fn those<T: Copy>(all: Vec<T>, holds: impl Fn(&T) -> bool) -> Vec<T> {
    let some: Vec<T> = all.iter().copied().filter(holds).collect();
    if some.is_empty() { all } else { some }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    use std::path::PathBuf;

    /// A root, and calls in it, each of which is seen before it runs.
    struct Ground {
        directory: tempfile::TempDir,
        root: Root,
        names: Names,
    }

    fn path(text: &str) -> JailPath {
        JailPath::parse(text.as_bytes()).unwrap()
    }

    impl Ground {
        /// Paths that end in `/` are directories.
        fn new(before: &[&str]) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let root = Root::open(directory.path()).unwrap();
            let ground = Self { directory, root, names: Names::default() };
            for path in before {
                ground.put(path);
            }
            ground
        }

        fn at(&self, text: &str) -> PathBuf {
            self.directory.path().join(text.trim_start_matches('/'))
        }

        fn put(&self, text: &str) {
            if text.ends_with('/') {
                fs_err::create_dir(self.at(text)).unwrap();
            } else {
                fs_err::write(self.at(text), text).unwrap();
            }
        }

        fn see(&mut self, task: i32, call: &str, access: Access, text: &str) {
            self.see_all(task, call, access, &[text]);
        }

        /// The same of a name that is to be seen by several paths, of which the first one is here.
        fn see_all(&mut self, task: i32, call: &str, access: Access, texts: &[&str]) {
            let paths: Vec<JailPath> = texts.iter().map(|text| path(text)).collect();
            let found = self.root.lstat(&paths[0]).unwrap().map_or(Found::Missing, Found::There);
            self.names.look(&self.root);
            self.names.note(task, call, access, &paths, &found);
        }

        fn make(&mut self, text: &str) {
            self.see(1, "openat", Access::Create, text);
            self.put(text);
        }

        fn sees_rename(&mut self, task: i32, from: &str, to: &str) {
            self.see(task, "rename", Access::Remove, from);
            self.see(task, "rename", Access::Replace, to);
        }

        fn rename(&mut self, from: &str, to: &str) {
            self.sees_rename(1, from, to);
            fs_err::rename(self.at(from), self.at(to)).unwrap();
            self.returns(1, true);
        }

        #[track_caller]
        fn returns(&mut self, task: i32, has: bool) {
            assert!(self.names.returned(task, Some(has), &self.root));
        }

        fn exchange(&mut self, from: &str, to: &str) {
            self.sees_rename(1, from, to);
            let [from, to] = [from, to].map(|text| self.at(text));
            renameat2(AT_FDCWD, &from, AT_FDCWD, &to, RenameFlags::RENAME_EXCHANGE).unwrap();
            self.returns(1, true);
        }

        fn link(&mut self, from: &str, to: &str) {
            self.see(1, "linkat", Access::Look, from);
            self.see(1, "linkat", Access::Create, to);
            fs_err::hard_link(self.at(from), self.at(to)).unwrap();
            self.returns(1, true);
        }

        /// Where it was before, for a task that is heard of next; "made" for what the run has made.
        fn origin(&mut self, text: &str) -> String {
            self.names.look(&self.root);
            self.names.origin(&path(text)).map_or_else(|| "made".to_owned(), |origin| origin.to_string())
        }
    }

    #[test]
    fn what_was_moved_is_known_by_its_old_name() {
        let mut ground = Ground::new(&["/old/", "/old/file", "/old-too"]);
        ground.sees_rename(1, "/old", "/new");
        assert_eq!(ground.origin("/new/file"), "/new/file", "before the call has run");
        fs_err::rename(ground.at("/old"), ground.at("/new")).unwrap();
        assert_eq!(ground.origin("/new/file"), "/old/file", "it shows");
        ground.returns(1, true);
        assert_eq!(ground.origin("/new/file"), "/old/file");
        assert_eq!(ground.origin("/new"), "/old");
        assert_eq!(ground.origin("/other"), "/other");
        assert_eq!(ground.names.moved().collect::<Vec<_>>(), [(&path("/old"), &path("/new"))]);
        ground.rename("/new", "/old");
        assert_eq!(ground.origin("/old/file"), "/old/file");
        assert_eq!(ground.names.moved().count(), 0, "it is back");
    }

    #[test]
    fn a_call_that_fails_moves_nothing() {
        let mut ground = Ground::new(&["/a", "/b/"]);
        ground.sees_rename(1, "/a", "/b");
        assert_eq!(ground.origin("/b"), "/b");
        ground.returns(1, false);
        fs_err::remove_dir(ground.at("/b")).unwrap();
        fs_err::rename(ground.at("/a"), ground.at("/b")).unwrap();
        assert_eq!(ground.origin("/b"), "/b", "somebody else did that later");
    }

    #[test]
    fn a_call_whose_task_is_gone_has_moved_what_shows() {
        let mut ground = Ground::new(&["/a", "/c"]);
        ground.sees_rename(1, "/a", "/b");
        ground.sees_rename(2, "/c", "/d");
        fs_err::rename(ground.at("/a"), ground.at("/b")).unwrap();
        assert!(ground.names.returned(1, None, &ground.root) && ground.names.returned(2, None, &ground.root));
        fs_err::rename(ground.at("/c"), ground.at("/d")).unwrap();
        assert_eq!((ground.origin("/b"), ground.origin("/d")), ("/a".to_owned(), "/d".to_owned()));
    }

    #[test]
    fn of_two_calls_that_would_do_the_same_one_has() {
        let mut ground = Ground::new(&["/a"]);
        ground.sees_rename(1, "/a", "/b");
        ground.sees_rename(2, "/a", "/b");
        fs_err::rename(ground.at("/a"), ground.at("/b")).unwrap();
        ground.make("/a");
        ground.returns(2, true);
        ground.returns(1, false);
        assert_eq!((ground.origin("/a"), ground.origin("/b")), ("made".to_owned(), "/a".to_owned()));
    }

    #[test]
    fn what_had_no_name_is_made() {
        let mut ground = Ground::new(&["/d/"]);
        // What is open is no file of /proc.
        ground.put("/proc/");
        ground.put("/proc/door");
        ground.see(1, "linkat", Access::Write, "/proc/door");
        ground.see(1, "linkat", Access::Create, "/d/linked");
        ground.put("/d/linked");
        ground.returns(1, true);
        ground.see(1, "linkat", Access::Create, "/d/by-descriptor");
        ground.put("/d/by-descriptor");
        ground.returns(1, true);
        assert_eq!(["/d/linked", "/d/by-descriptor"].map(|text| ground.origin(text)), ["made", "made"]);
    }

    #[test]
    fn what_a_rename_leaves_behind_is_made() {
        let mut ground = Ground::new(&["/a"]);
        ground.sees_rename(1, "/a", "/b");
        fs_err::rename(ground.at("/a"), ground.at("/b")).unwrap();
        ground.put("/a");
        ground.returns(1, true);
        assert_eq!((ground.origin("/a"), ground.origin("/b")), ("made".to_owned(), "/a".to_owned()));
    }

    #[test]
    fn what_was_renamed_and_not_seen_is_no_secret() {
        let mut ground = Ground::new(&["/d/"]);
        ground.sees_rename(1, "/none", "/d/new");
        assert!(!ground.names.returned(1, Some(true), &ground.root));
        ground.sees_rename(1, "/none", "/d/new");
        ground.returns(1, false);
    }

    #[test]
    fn what_is_seen_by_two_paths_is_moved_by_both() {
        let mut ground = Ground::new(&["/d/", "/d/old", "/m/"]);
        fs_err::hard_link(ground.at("/d/old"), ground.at("/m/old")).unwrap();
        for (access, name) in [(Access::Remove, "old"), (Access::Replace, "new")] {
            for top in ["/d", "/m"] {
                ground.see(1, "rename", access, &format!("{top}/{name}"));
            }
        }
        for top in ["/d", "/m"] {
            fs_err::rename(ground.at(&format!("{top}/old")), ground.at(&format!("{top}/new"))).unwrap();
        }
        ground.returns(1, true);
        assert_eq!((ground.origin("/d/new"), ground.origin("/m/new")), ("/d/old".to_owned(), "/m/old".to_owned()));
    }

    #[test]
    fn a_name_that_is_seen_by_two_paths_is_one() {
        let mut ground = Ground::new(&["/a/", "/a/old", "/x", "/y"]);
        ground.see_all(1, "openat", Access::Create, &["/a/f", "/m/f"]);
        ground.see_all(2, "newfstatat", Access::Look, &["/a/f", "/m/f"]);
        assert_eq!(["/a/f", "/m/f"].map(|text| ground.origin(text)), ["made", "made"]);

        ground.see(1, "rename", Access::Remove, "/x");
        ground.see_all(1, "rename", Access::Replace, &["/a/n", "/m/n"]);
        fs_err::rename(ground.at("/x"), ground.at("/a/n")).unwrap();
        ground.returns(1, true);
        assert_eq!(["/a/n", "/m/n", "/x"].map(|text| ground.origin(text)), ["/x", "/x", "made"]);

        ground.see_all(1, "rename", Access::Remove, &["/a/old", "/m/old"]);
        ground.see_all(1, "rename", Access::Replace, &["/a/new", "/m/new"]);
        fs_err::rename(ground.at("/a/old"), ground.at("/a/new")).unwrap();
        assert_eq!(["/a/new", "/m/new"].map(|text| ground.origin(text)), ["/a/old", "/m/old"], "it shows");
        ground.returns(1, true);
        assert_eq!(["/a/old", "/m/old"].map(|text| ground.origin(text)), ["made", "made"]);

        ground.see_all(1, "renameat2", Access::Remove, &["/a/new", "/m/new"]);
        ground.see(1, "renameat2", Access::Replace, "/y");
        let [from, to] = ["/a/new", "/y"].map(|text| ground.at(text));
        renameat2(AT_FDCWD, &from, AT_FDCWD, &to, RenameFlags::RENAME_EXCHANGE).unwrap();
        ground.returns(1, true);
        assert_eq!(["/a/new", "/m/new", "/y"].map(|text| ground.origin(text)), ["/y", "/y", "/a/old"]);
    }

    /// Another thread is about to lead the task's working directory from `/one` to `/two`, or has just done so.
    #[test]
    fn of_two_names_that_a_call_may_have_for_one_the_one_that_it_has_moved_is_told() {
        for is_second in [false, true] {
            let mut ground = Ground::new(&["/one/", "/one/a/", "/one/a/file", "/two/", "/two/a/", "/two/a/file"]);
            for from in ["/one/a", "/two/a"] {
                ground.see(1, "rename", Access::Remove, from);
            }
            ground.see(1, "rename", Access::Replace, "/new");
            let (moved, other) = if is_second { ("/two/a", "/one/a") } else { ("/one/a", "/two/a") };
            fs_err::rename(ground.at(moved), ground.at("/new")).unwrap();
            ground.returns(1, true);
            assert_eq!(ground.origin("/new/file"), format!("{moved}/file"));
            assert_eq!(ground.origin(&format!("{moved}/file")), "made");
            assert_eq!(ground.origin(&format!("{other}/file")), format!("{other}/file"));
        }
    }

    #[test]
    fn of_two_places_to_which_a_call_may_have_moved_something_it_is_told_where_it_has() {
        for is_second in [false, true] {
            let mut ground = Ground::new(&["/old/", "/old/file", "/one/", "/one/a/", "/two/", "/two/a/"]);
            let (to, other) = if is_second { ("/two/a", "/one/a") } else { ("/one/a", "/two/a") };
            ground.put(&format!("{other}/file"));
            ground.see(1, "rename", Access::Remove, "/old");
            for to in ["/one/a", "/two/a"] {
                ground.see(1, "rename", Access::Replace, to);
            }
            fs_err::rename(ground.at("/old"), ground.at(to)).unwrap();
            assert_eq!(ground.origin(&format!("{to}/file")), "/old/file", "it shows");
            ground.returns(1, true);
            assert_eq!(ground.origin(&format!("{to}/file")), "/old/file");
            assert_eq!(ground.origin("/old"), "made");
            assert_eq!(ground.origin(&format!("{other}/file")), format!("{other}/file"));
        }
    }

    #[test]
    fn what_was_moved_from_one_of_two_names_and_on_by_another_call_is_not_at_that() {
        let mut ground = Ground::new(&["/one/", "/one/a/", "/two/", "/two/a/", "/two/a/file"]);
        for from in ["/one/a", "/two/a"] {
            ground.see(1, "rename", Access::Remove, from);
        }
        ground.see(1, "rename", Access::Replace, "/new");
        fs_err::rename(ground.at("/one/a"), ground.at("/new")).unwrap();
        fs_err::rename(ground.at("/new"), ground.at("/newer")).unwrap();
        ground.returns(1, true);
        assert_eq!(ground.origin("/one/a"), "made");
        assert_eq!(ground.origin("/two/a/file"), "/two/a/file");
    }

    #[test]
    fn what_was_made_has_no_origin_wherever_it_goes() {
        let mut ground = Ground::new(&["/a/", "/empty/"]);
        ground.make("/made/");
        ground.make("/a/new");
        assert_eq!(ground.origin("/made/deep/file"), "made");
        ground.rename("/a", "/b");
        assert_eq!((ground.origin("/b/new"), ground.origin("/b/old")), ("made".to_owned(), "/a/old".to_owned()));
        ground.rename("/made", "/empty");
        assert_eq!(ground.origin("/empty/x"), "made");
    }

    #[test]
    fn what_takes_the_place_of_something_made_keeps_its_origin() {
        let mut ground = Ground::new(&["/prev/", "/prev/f"]);
        ground.make("/cur/");
        ground.make("/cur/f");
        ground.rename("/cur", "/old");
        ground.rename("/prev", "/cur");
        assert_eq!((ground.origin("/cur/f"), ground.origin("/old/f")), ("/prev/f".to_owned(), "made".to_owned()));
    }

    #[test]
    fn two_that_change_places() {
        let mut ground = Ground::new(&["/app/", "/app/f"]);
        ground.make("/new/");
        ground.make("/new/f");
        ground.make("/new/g");
        ground.exchange("/new", "/app");
        assert_eq!((ground.origin("/app/f"), ground.origin("/app/g")), ("made".to_owned(), "made".to_owned()));
        assert_eq!(ground.origin("/new/f"), "/app/f");
        ground.exchange("/new", "/app");
        assert_eq!((ground.origin("/app/f"), ground.origin("/new/f")), ("/app/f".to_owned(), "made".to_owned()));
    }

    #[test]
    fn what_was_moved_goes_with_its_directory() {
        let mut ground = Ground::new(&["/pre/", "/pre/f", "/x", "/a/"]);
        ground.make("/m/");
        ground.rename("/pre", "/m/pre");
        ground.rename("/m", "/n");
        assert_eq!((ground.origin("/n/pre/f"), ground.origin("/n")), ("/pre/f".to_owned(), "made".to_owned()));
        ground.rename("/x", "/a/x");
        ground.rename("/a", "/c");
        assert_eq!((ground.origin("/c/x"), ground.origin("/c/y")), ("/x".to_owned(), "/a/y".to_owned()));
    }

    #[test]
    fn what_another_has_looked_for_just_before_it_is_made() {
        let mut ground = Ground::new(&["/d/"]);
        ground.see(1, "openat", Access::Create, "/d/f");
        ground.see(2, "newfstatat", Access::Look, "/d/f");
        ground.put("/d/f");
        assert_eq!(ground.names.origin(&path("/d/f")), None);

        // Once the first is heard of again its call is over: what is there later is somebody else's.
        ground.see(1, "openat", Access::Create, "/d/g");
        ground.see(1, "newfstatat", Access::Look, "/d");
        ground.see(2, "newfstatat", Access::Look, "/d/g");
        ground.put("/d/g");
        assert_eq!(ground.names.origin(&path("/d/g")), Some(path("/d/g")));

        // So it is once it was there.
        ground.make("/d/h");
        ground.see(2, "unlink", Access::Remove, "/d/h");
        fs_err::remove_file(ground.at("/d/h")).unwrap();
        ground.see(2, "newfstatat", Access::Look, "/d/h");
        ground.put("/d/h");
        assert_eq!(ground.names.origin(&path("/d/h")), Some(path("/d/h")));
    }

    #[test]
    fn what_could_not_be_made_is_forgotten() {
        let mut ground = Ground::new(&["/d/", "/pre/", "/pre/x/"]);
        ground.see(1, "mkdir", Access::Create, "/d/x");
        ground.rename("/pre", "/d");
        assert_eq!(ground.origin("/d/x/f"), "/pre/x/f");
    }

    #[test]
    fn another_name_of_a_file_is_that_file() {
        let mut ground = Ground::new(&["/one"]);
        ground.link("/one", "/other");
        ground.make("/own");
        ground.link("/own", "/too");
        let origins = ["/one", "/other", "/own", "/too"].map(|text| ground.origin(text));
        assert_eq!(origins, ["/one", "/one", "made", "made"]);
    }

    #[test]
    fn what_is_made_where_something_was_moved_away_is_new() {
        let mut ground = Ground::new(&["/conf"]);
        ground.rename("/conf", "/conf.bak");
        ground.make("/conf");
        assert_eq!((ground.origin("/conf"), ground.origin("/conf.bak")), ("made".to_owned(), "/conf".to_owned()));
        ground.see(1, "unlink", Access::Remove, "/conf");
        fs_err::remove_file(ground.at("/conf")).unwrap();
        ground.rename("/conf.bak", "/conf");
        assert_eq!(ground.origin("/conf"), "/conf");
    }
}
