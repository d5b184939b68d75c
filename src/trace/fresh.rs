//! What commands beside the runs have just made or changed, as a profile's setup does: they run again before the next run, and other commands
//! clean up, so that it is another file, or gone, when the image is built.
//!
//! In: since when they may have; what a run uses. Out: in its record, what an image needs of that and finds nowhere later: contents,
//! those too of files that were only looked at, and the directories on a way. What the run itself changes is kept in any case.

use std::collections::{BTreeMap, HashSet};

use minjail_tracer::{Access, Found as TracerFound};
use nix::sys::stat::FileStat;

use super::format::Record;
use super::model::{Found, Touch};
use super::record::{RecordError, Recorder, STARTER, is_kernels};
use crate::path::{Facts, JailPath};

/// What those commands may have made or changed, as far as a run has used it.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    /// In seconds since 1970; `None`: there are no such commands.
    since: Option<i64>,
    /// Where they have mounted something, however old that is.
    mounted: Vec<JailPath>,
    /// Directories on a way that were looked at already, whoever has made them.
    ways: HashSet<JailPath>,
    /// Files that were found and are not kept so far, as they were found.
    found: BTreeMap<JailPath, Touch>,
}

impl Fresh {
    /// True of what may have been made, changed or mounted by those commands at `path`. By its `ctime`: `inode(7)`, no call sets it to another time than now.
    fn is_fresh(&self, path: &JailPath, stat: &FileStat) -> bool {
        let is_mounted = || self.mounted.iter().any(|mount| path.starts_with(mount));
        self.since.is_some_and(|since| stat.st_ctime >= since || is_mounted())
    }

    /// The same of what the tracer has found at `path`.
    pub(super) fn is_found(&self, path: &JailPath, found: &TracerFound) -> bool {
        matches!(found, TracerFound::There(stat) if self.is_fresh(path, stat))
    }
}

impl Recorder {
    /// Also keeps what an image needs of all that was made or changed since this time, in seconds since 1970, or lies where something was
    /// `mounted` since; of `directory` too, in which the program starts.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn keep_since(
        &mut self,
        seconds: i64,
        mounted: Vec<JailPath>,
        directory: &JailPath,
    ) -> Result<(), RecordError> {
        (self.fresh.since, self.fresh.mounted) = (Some(seconds), mounted);
        let start = Touch::new(STARTER, "execve", Access::Execute, directory.clone(), Found::Missing);
        self.keep_ways(&start, directory)
    }

    /// Records the fresh directories on the ways of `record`, which are touched by nothing else, and notes a file that `is_fresh` and may
    /// be kept later.
    pub(super) fn note_fresh(&mut self, record: &Touch, is_fresh: bool) -> Result<(), RecordError> {
        if self.fresh.since.is_none() || record.made {
            return Ok(());
        }
        let above = std::iter::once(&record.path).chain(record.links.iter().map(|link| &link.path));
        let above: Vec<JailPath> = above.filter_map(JailPath::parent).chain(record.passed.iter().cloned()).collect();
        above.iter().try_for_each(|at| self.keep_ways(record, at))?;
        let is_file = record.found.facts().is_some_and(Facts::is_file);
        if is_fresh && is_file && record.before.is_none() && record.refused.is_none() {
            self.fresh.found.entry(record.path.clone()).or_insert_with(|| record.clone());
        }
        Ok(())
    }

    /// Keeps what the kernel itself has opened, if it is fresh: no call shows that.
    pub(super) fn keep_loaded(&mut self, record: &mut Touch, stat: &FileStat) -> Result<(), RecordError> {
        let is_fresh = self.fresh.is_fresh(&record.path, stat);
        if is_fresh && !record.made && !self.kept.contains(&record.path) {
            record.before = self.kept_now(record)?;
        }
        self.note_fresh(record, is_fresh)
    }

    /// Keeps what the run has found and not opened. Not before it is over: what it only looked at may be written to until it is read.
    pub(super) fn keep_found(&mut self) -> Result<(), RecordError> {
        for (path, touch) in std::mem::take(&mut self.fresh.found) {
            if self.kept.contains(&path) {
                continue;
            }
            if let Some(before) = self.kept_now(&touch)? {
                let look = Touch::new(touch.program, touch.call, Access::Look, path, touch.found);
                self.write(&Record::Touch(Touch { before: Some(before), ..look }))?;
            }
        }
        Ok(())
    }

    /// The name under which the content is kept that is still where `touch` has found it.
    fn kept_now(&mut self, touch: &Touch) -> Result<Option<String>, RecordError> {
        let Found::There(facts) = &touch.found else { return Ok(None) };
        let now = self.root.lstat(&touch.path).ok().flatten();
        let is_there = facts.is_file() && now.is_some_and(|now| facts.is_unchanged(&now));
        if !is_there || self.names.origin(&touch.path).as_ref() != Some(&touch.path) {
            return Ok(None);
        }
        let before = self.keep(&touch.path, facts)?;
        if before.is_some() {
            self.kept.insert(touch.path.clone());
        }
        Ok(before)
    }

    /// Records the fresh directories from `at` upwards, by what `touch` has done.
    fn keep_ways(&mut self, touch: &Touch, at: &JailPath) -> Result<(), RecordError> {
        for at in at.upwards() {
            // Whoever was here before was above as well.
            if !self.fresh.ways.insert(at.clone()) {
                break;
            }
            let Some(stat) = self.root.stat(&at).ok().flatten().filter(|stat| self.fresh.is_fresh(&at, stat)) else {
                continue;
            };
            let Some(facts) = Facts::from_stat(&stat).filter(Facts::is_directory) else { continue };
            if is_kernels(&at) || self.names.origin(&at).as_ref() != Some(&at) || self.kept.contains(&at) {
                continue;
            }
            self.tell_one(touch, &at, &at, facts)?;
        }
        Ok(())
    }
}
