//! What shows only when a run is over: that a name is gone under which it has found something.
//!
//! In: a run that is over. Out: copies of what it found and left as it was in directories that it has renamed; and of a file with
//! several names, of which one was changed, what was kept of it, told of the others too.

use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};

use minjail_tracer::Access;

use super::format::Record;
use super::model::{Found, Touch};
use super::names::moved_below;
use super::record::{RecordError, Recorder};
use crate::path::{Facts, JailPath};

/// Where the content is of what the run has found.
enum Late {
    /// It was kept, by another name of the file.
    Kept(String),
    At(JailPath),
}

impl Recorder {
    /// Keeps what was found in directories that have another name now, and tells what was kept of a file of all its names.
    pub(super) fn keep_late(&mut self) -> Result<(), RecordError> {
        self.names.settle_all(&self.root);
        let is_directory = |at| matches!(self.root.lstat(at), Ok(Some(facts)) if facts.is_directory());
        let moved = self.names.moved().filter(|(_, at)| is_directory(at));
        let directories: Vec<(JailPath, JailPath)> = moved.map(|(from, at)| (from.clone(), at.clone())).collect();
        if directories.is_empty() && !self.store.has_linked() {
            return Ok(());
        }
        let place = self.place.clone();
        let all = self.all_late(&directories).map_err(|source| RecordError::Temporary { path: place, source })?;
        for (mut touch, late) in all {
            let Found::There(facts) = &touch.found else { continue };
            if !self.kept.insert(touch.path.clone()) {
                continue;
            }
            match late {
                Late::Kept(name) => touch.before = Some(name),
                Late::At(at) => {
                    touch.before = self.keep(&at, facts)?;
                    self.keep_way(&touch, &at)?;
                }
            }
            self.write(&Record::Touch(touch))?;
        }
        Ok(())
    }

    /// Records the directories that what is `at` another name now was in before: whoever goes through them does not touch them, and
    /// nothing is to be seen of them afterwards.
    pub(super) fn keep_way(&mut self, touch: &Touch, at: &JailPath) -> Result<(), RecordError> {
        for (was, is) in touch.path.ancestors().zip(at.ancestors()) {
            if was == is || self.names.origin(&is).as_ref() != Some(&was) {
                break;
            }
            let Some(facts) = self.root.lstat(&is)? else { break };
            if self.kept.insert(was.clone()) {
                let found = Found::There(facts);
                self.write(&Record::Touch(Touch {
                    access: Access::Look,
                    path: was,
                    found,
                    spelled: None,
                    links: Vec::new(),
                    passed: Vec::new(),
                    target: None,
                    before: None,
                    xattrs: None,
                    names: None,
                    ..touch.clone()
                }))?;
            }
        }
        Ok(())
    }

    /// The files that the run found whose content is to be told now. Of moved `directories` the old name and the new one are given.
    fn all_late(&mut self, directories: &[(JailPath, JailPath)]) -> io::Result<Vec<(Touch, Late)>> {
        self.records.flush()?;
        let mut file = self.records.get_ref().try_clone()?;
        file.rewind()?;
        let mut found = Vec::new();
        for line in BufReader::new(&file).lines() {
            if let Record::Touch(touch) = serde_json::from_str(&line?)? {
                found.extend(self.late(&touch, directories).map(|late| (touch, late)));
            }
        }
        file.seek(SeekFrom::End(0))?;
        Ok(found)
    }

    fn late(&self, touch: &Touch, directories: &[(JailPath, JailPath)]) -> Option<Late> {
        let Found::There(facts) = &touch.found else { return None };
        if touch.made || touch.refused.is_some() || !facts.is_file() || self.kept.contains(&touch.path) {
            return None;
        }
        if facts.nlink > 1
            && let Some(name) = self.store.of_same(facts)
        {
            return Some(Late::Kept(name.to_owned()));
        }
        self.whereabouts(&touch.path, facts, directories).map(Late::At)
    }

    /// Where the file is now that was at `path`, if its content is still what it was.
    fn whereabouts(&self, path: &JailPath, facts: &Facts, directories: &[(JailPath, JailPath)]) -> Option<JailPath> {
        let taken = directories.iter().filter(|(from, _)| path.starts_with(from));
        let mut places = taken.map(|(from, at)| moved_below(path, from, at));
        places.find(|at| {
            let now = self.root.lstat(at).ok().flatten();
            let is_same = |now| facts.same_content(now) && (facts.dev, facts.ino) == (now.dev, now.ino);
            now.as_ref().is_some_and(is_same) && self.names.origin(at).as_ref() == Some(path)
        })
    }
}
