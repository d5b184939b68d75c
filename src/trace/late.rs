//! What shows only when a run is over: that a name is gone under which it has found something.
//!
//! In: a run that is over. Out: copies of what it found and left as it was in directories that it has renamed, with extended
//! attributes, and what else there was on its ways there, and in what it has listed; and of a file that was changed by one of its
//! names, what was kept of it, told of the others too.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::iter::once;

use aho_corasick::AhoCorasick;
use minjail_tracer::Access;

use super::format::Record;
use super::model::{Found, Touch};
use super::now::moved_below;
use super::record::{RecordError, Recorder};
use crate::path::{Facts, JailPath, escape, unescape};

/// Holds back the records that are worth parsing, by their text: to parse all takes as long as to have written them, and few are.
struct Sieve {
    /// What a path in one of the directories starts with, as records have it. None if there are none: a search for nothing would
    /// look at each byte.
    prefixes: Option<AhoCorasick>,
    /// What stands before an inode number.
    before_number: AhoCorasick,
    inodes: HashSet<u64>,
}

impl Sieve {
    fn new<'a>(directories: impl Iterator<Item = &'a JailPath>, inodes: impl Iterator<Item = u64>) -> Self {
        let prefix = |from: &JailPath| {
            let quoted = serde_json::to_string(from).expect("a path is a text");
            quoted.trim_end_matches('"').to_owned()
        };
        let searcher = |texts: Vec<String>| AhoCorasick::new(texts).expect("far fewer states than there are numbers");
        let prefixes: Vec<String> = directories.map(prefix).collect();
        Self {
            prefixes: (!prefixes.is_empty()).then(|| searcher(prefixes)),
            before_number: searcher(vec![r#""ino":"#.to_owned()]),
            inodes: inodes.collect(),
        }
    }

    /// True if this record may be of a file of one of the numbers, or of what is at or below one of the paths.
    fn holds(&self, record: &str) -> bool {
        self.numbers(record).any(|number| self.inodes.contains(&number))
            || self.prefixes.as_ref().is_some_and(|prefixes| prefixes.is_match(record))
    }

    fn numbers<'a>(&'a self, record: &'a str) -> impl Iterator<Item = u64> + 'a {
        self.before_number.find_iter(record).filter_map(|found| {
            let number = &record[found.end()..];
            number.split(|after: char| !after.is_ascii_digit()).next()?.parse().ok()
        })
    }
}

/// Directories that have other names now: by that from before, those from now.
#[derive(Debug, Default)]
struct Moved(HashMap<JailPath, Vec<JailPath>>);

impl Moved {
    fn of<'a>(directories: impl Iterator<Item = (&'a JailPath, &'a JailPath)>) -> Self {
        let mut moved = Self::default();
        for (from, at) in directories {
            moved.0.entry(from.clone()).or_default().push(at.clone());
        }
        moved
    }

    /// Where what `path` was, or is below, is now.
    fn places<'a>(&'a self, path: &'a JailPath) -> impl Iterator<Item = JailPath> + 'a {
        let of = move |from: JailPath| {
            let all = self.0.get(&from).into_iter().flatten();
            all.map(move |at| moved_below(path, &from, at))
        };
        path.upwards().flat_map(of)
    }
}

/// What `touch` cannot do without: what it has found, or where it may have made something, what it went through, and all above those.
fn needed(touch: &Touch) -> impl Iterator<Item = JailPath> {
    let place = match touch.found {
        _ if touch.made => None,
        Found::Missing => touch.path.parent().filter(|_| touch.access.makes()),
        _ => Some(touch.path.clone()),
    };
    place.into_iter().chain(touch.passed.iter().chain(&touch.refused).cloned()).flat_map(|path| path.upwards())
}

impl Recorder {
    /// Keeps what was found in directories that have another name now, and tells what was kept of a file of all its names.
    pub(super) fn keep_late(&mut self) -> Result<(), RecordError> {
        self.names.settle_all(&self.root);
        let moved = self.moved();
        if moved.0.is_empty() && self.store.is_empty() && self.gone.is_empty() {
            return Ok(());
        }
        let place = self.place.clone();
        let concerned = self.concerned(&moved).map_err(|source| RecordError::Temporary { path: place, source })?;
        for mut touch in concerned {
            self.tell_gone(&touch)?;
            // What is only gone through is touched by nothing else.
            for way in touch.passed.iter().chain(&touch.refused) {
                for at in moved.places(way) {
                    self.keep_one(&touch, way, &at)?;
                    self.keep_above(&touch, way, &at)?;
                }
            }
            if touch.made {
                continue;
            }
            let places: Vec<JailPath> = moved.places(&touch.path).collect();
            for at in &places {
                self.keep_above(&touch, &touch.path, at)?;
                // Of what a listing has shown an image has directories and links as they were.
                for name in touch.names.iter().flatten().filter_map(|name| unescape(name)) {
                    self.keep_one(&touch, &touch.path.join(&name), &at.join(&name))?;
                }
            }
            if touch.refused.is_some() {
                continue;
            }
            touch.xattrs = self.attributes(&touch, &places);
            touch.before = self.content(&touch, &places)?;
            if touch.before.is_some() {
                self.kept.insert(touch.path.clone());
            }
            if touch.xattrs.is_some() {
                self.noted.insert(touch.path.clone());
            }
            if touch.before.is_some() || touch.xattrs.is_some() {
                self.write(&Record::Touch(touch))?;
            }
        }
        Ok(())
    }

    /// The directories that the run has given other names.
    fn moved(&self) -> Moved {
        let is_directory = |at| matches!(self.root.lstat(at), Ok(Some(facts)) if facts.is_directory());
        let mut moved = Moved::of(self.names.moved().filter(|(_, at)| is_directory(at)));
        // It may have been told of by another mount than that by which it was moved away.
        let others =
            moved.0.iter().flat_map(|(from, at)| self.mirrored(from).into_iter().map(|other| (other, at.clone())));
        for (other, at) in others.collect::<Vec<_>>() {
            moved.0.entry(other).or_insert(at);
        }
        moved
    }

    /// What the run has told of before it renamed one of the directories, and of files that it has changed.
    fn concerned(&mut self, moved: &Moved) -> io::Result<Vec<Touch>> {
        self.records.flush()?;
        let mut file = self.records.get_ref().try_clone()?;
        file.rewind()?;
        let sieve = Sieve::new(moved.0.keys().chain(self.gone.keys()), self.store.inodes());
        let mut found = Vec::new();
        let (mut lines, mut line) = (BufReader::new(&file), String::new());
        loop {
            line.clear();
            if lines.read_line(&mut line)? == 0 {
                break;
            }
            if !sieve.holds(&line) {
                continue;
            }
            let Record::Touch(touch) = serde_json::from_str(&line)? else { continue };
            let is_changed = matches!(&touch.found, Found::There(facts) if self.store.of_same(facts).is_some());
            let is_told = self.kept.contains(&touch.path) && self.noted.contains(&touch.path);
            let mut ways = once(&touch.path).chain(&touch.passed).chain(&touch.refused);
            let is_moved = ways.any(|way| moved.places(way).next().is_some());
            let is_gone = || needed(&touch).any(|at| self.gone.contains_key(&at));
            if is_moved || (is_changed && !is_told) || (!self.gone.is_empty() && is_gone()) {
                found.push(touch);
            }
        }
        file.seek(SeekFrom::End(0))?;
        Ok(found)
    }

    /// The content of a file that is not kept by that name: of one that was kept by another, or is still what it was at one of `places`.
    fn content(&mut self, touch: &Touch, places: &[JailPath]) -> Result<Option<String>, RecordError> {
        let Found::There(facts) = &touch.found else { return Ok(None) };
        if !facts.is_file() || self.kept.contains(&touch.path) || self.missed.contains_key(&touch.path) {
            return Ok(None);
        }
        if let Some(name) = self.store.of_same(facts).and_then(|kept| kept.name.clone()) {
            return Ok(Some(name));
        }
        let is_there = |at: &&JailPath| {
            let now = self.root.lstat(at).ok().flatten();
            now.is_some_and(|now| facts.is_unchanged(&now)) && self.stood_at(&touch.path, at)
        };
        match places.iter().find(is_there) {
            Some(at) => self.keep(at, facts),
            None => Ok(None),
        }
    }

    /// The extended attributes of what the run never was about to change by that name: of a file that it was by another, or those at one
    /// of `places`.
    fn attributes(&self, touch: &Touch, places: &[JailPath]) -> Option<BTreeMap<String, String>> {
        let Found::There(facts) = &touch.found else { return None };
        if facts.is_symlink() || self.noted.contains(&touch.path) {
            return None;
        }
        if let Some(xattrs) = self.store.of_same(facts).and_then(|kept| kept.xattrs.clone()) {
            return Some(xattrs);
        }
        // Only what `facts` were told of is looked at.
        let is_own = |at: &&JailPath| self.stood_at(&touch.path, at);
        places.iter().filter(is_own).find_map(|at| self.xattrs(at, facts))
    }

    /// Records the directories in which what is at `is` now `was` before, by what `touch` has done: whoever goes through them does not
    /// touch them, and nothing is to be seen of them afterwards.
    pub(super) fn keep_above(&mut self, touch: &Touch, was: &JailPath, is: &JailPath) -> Result<(), RecordError> {
        let mut upwards = was.ancestors().zip(is.ancestors());
        upwards.try_for_each(|(was, is)| self.keep_one(touch, &was, &is))
    }

    /// Records the directories, of those that `touch` needs, that the run may have removed by another path.
    fn tell_gone(&mut self, touch: &Touch) -> Result<(), RecordError> {
        if self.gone.is_empty() {
            return Ok(());
        }
        for at in needed(touch) {
            if let Some(directory) = self.gone.remove(&at).filter(|_| self.kept.insert(at)) {
                self.write(&Record::Touch(directory))?;
            }
        }
        Ok(())
    }

    /// True if what `is` here now stood at `was` before, by whichever mount that shows it.
    fn stood_at(&self, was: &JailPath, is: &JailPath) -> bool {
        let is_same = |origin: JailPath| origin == *was || self.mirrored_names(&origin).contains(was);
        self.names.origin(is).is_some_and(is_same)
    }

    /// Records a directory or a link that `was` there before and `is` here now, by what `touch` has done.
    fn keep_one(&mut self, touch: &Touch, was: &JailPath, is: &JailPath) -> Result<(), RecordError> {
        if was == is || self.kept.contains(was) || !self.stood_at(was, is) {
            return Ok(());
        }
        let is_one = |facts: &Facts| facts.is_directory() || facts.is_symlink();
        // What cannot be looked at, as in a directory that the run has closed, is missed when the image is built.
        let Some(facts) = self.root.facts(is).ok().flatten().filter(is_one) else { return Ok(()) };
        self.tell_one(touch, was, is, facts)
    }

    /// Records a directory or a link with these `facts` that `was` there and `is` here now, by what `touch` has done.
    pub(super) fn tell_one(
        &mut self,
        touch: &Touch,
        was: &JailPath,
        is: &JailPath,
        facts: Facts,
    ) -> Result<(), RecordError> {
        self.kept.insert(was.clone());
        let (target, xattrs) = if facts.is_symlink() {
            (self.root.hold(is, &facts).and_then(|held| held.link_text()).ok(), None)
        } else {
            (None, if self.noted.insert(was.clone()) { self.xattrs(is, &facts) } else { None })
        };
        self.write(&Record::Touch(Touch {
            target: target.map(|text| escape(&text)),
            by_descriptor: touch.by_descriptor,
            xattrs,
            ..Touch::new(touch.program, touch.call.as_str(), Access::Look, was.clone(), Found::There(facts))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::lstat;
    use proptest::prelude::*;
    use std::iter::empty;

    /// A record of a file of this inode number, which was reached by way of another directory.
    fn record(path: &JailPath, passed: &JailPath, inode: u64) -> String {
        let facts = Facts { ino: inode, ..Facts::from_stat(&lstat("/").unwrap()).unwrap() };
        let touch = Touch::new(1, "openat", Access::Read, path.clone(), Found::There(facts));
        serde_json::to_string(&Record::Touch(Touch { passed: vec![passed.clone()], ..touch })).unwrap()
    }

    fn any_path() -> impl Strategy<Value = JailPath> {
        // Names that JSON or the trace's own spelling has other bytes for.
        let name = proptest::sample::select(vec![&b"a"[..], b"ab", b"\"", b"\\", b"\n", b"\xff", "\u{e4}".as_bytes()]);
        proptest::collection::vec(name, 1..4).prop_map(JailPath::of)
    }

    proptest! {
        #[test]
        fn what_concerns_the_late_look_is_let_through(
            from in any_path(),
            path in any_path(),
            passed in any_path(),
            (inode, kept) in (98..102_u64, proptest::collection::vec(98..102_u64, 0..2)),
        ) {
            let concerns = kept.contains(&inode) || path.starts_with(&from) || passed.starts_with(&from);
            let sieve = Sieve::new(once(&from), kept.into_iter());
            prop_assert!(sieve.holds(&record(&path, &passed, inode)) || !concerns);
        }
    }

    #[test]
    fn what_does_not_is_held_back() {
        let [path, from] = [&b"/usr/bin/true"[..], b"/usr/lib"].map(|path| JailPath::parse(path).unwrap());
        let record = record(&path, &path, 1234);
        assert!(!Sieve::new(once(&from), [123, 12345].into_iter()).holds(&record));
        assert!(Sieve::new(empty(), [1234].into_iter()).holds(&record));
    }
}
