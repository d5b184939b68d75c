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
use crate::path::JailPath;

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
        let concerned =
            self.concerned(&directories).map_err(|source| RecordError::Temporary { path: place, source })?;
        for mut touch in concerned {
            let is_taken = directories.iter().filter(|(from, _)| touch.path.starts_with(from));
            let places: Vec<JailPath> = is_taken.map(|(from, at)| moved_below(&touch.path, from, at)).collect();
            for at in &places {
                self.keep_way(&touch, at)?;
            }
            touch.before = self.content(&touch, &places)?;
            if touch.before.is_some() {
                self.kept.insert(touch.path.clone());
                self.write(&Record::Touch(touch))?;
            }
        }
        Ok(())
    }

    /// What the run has told of before it renamed one of `directories`, of which the old name and the new one are given, and of files
    /// with several names.
    fn concerned(&mut self, directories: &[(JailPath, JailPath)]) -> io::Result<Vec<Touch>> {
        self.records.flush()?;
        let mut file = self.records.get_ref().try_clone()?;
        file.rewind()?;
        let mut found = Vec::new();
        for line in BufReader::new(&file).lines() {
            let Record::Touch(touch) = serde_json::from_str(&line?)? else { continue };
            let is_linked = matches!(&touch.found, Found::There(facts) if facts.is_file() && facts.nlink > 1);
            let is_concerned = is_linked || directories.iter().any(|(from, _)| touch.path.starts_with(from));
            if is_concerned && !touch.made && touch.refused.is_none() {
                found.push(touch);
            }
        }
        file.seek(SeekFrom::End(0))?;
        Ok(found)
    }

    /// The content of a file that is not kept by that name: of one that was kept by another, or is still what it was at one of `places`.
    fn content(&mut self, touch: &Touch, places: &[JailPath]) -> Result<Option<String>, RecordError> {
        let Found::There(facts) = &touch.found else { return Ok(None) };
        if !facts.is_file() || self.kept.contains(&touch.path) {
            return Ok(None);
        }
        if facts.nlink > 1
            && let Some(name) = self.store.of_same(facts)
        {
            return Ok(Some(name.to_owned()));
        }
        let is_there = |at: &&JailPath| {
            let now = self.root.lstat(at).ok().flatten();
            let is_same = |now| facts.same_content(now) && (facts.dev, facts.ino) == (now.dev, now.ino);
            now.as_ref().is_some_and(is_same) && self.names.origin(at).as_ref() == Some(&touch.path)
        };
        match places.iter().find(is_there) {
            Some(at) => self.keep(at, facts),
            None => Ok(None),
        }
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
}
