//! What a call could change, kept before it runs.
//!
//! In: a path at which a call is about to do something, and what is there. Out: in its record, what an image needs of that and nobody
//! can see later: the content, extended attributes, a link's text, the names in a directory and what they are; each as the run found it
//! first, by whatever name of the file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;

use minjail_tracer::{Access, Gap};

use super::model::{Found, Touch};
use super::record::{RecordError, Recorder, is_temporary};
use super::store::born;
use crate::path::{Facts, FileType, JailPath, escape};
use crate::root::{Entry, Held, RootError};

impl Recorder {
    /// Keeps what the call could change, or what only now can be seen: content, a link's text, a listing.
    /// What `is_fresh` may be something else soon.
    pub(super) fn preserve(
        &mut self,
        task: i32,
        current: &JailPath,
        is_fresh: bool,
        record: &mut Touch,
    ) -> Result<(), RecordError> {
        let Found::There(facts) = &record.found else { return Ok(()) };
        let facts = &facts.clone();
        if record.refused.is_some() {
            return self.keep_unread(task, current, facts, record);
        }
        // A directory has no second name, but may have a second path.
        let is_recalled = facts.is_file() || facts.is_directory() && !self.mirrored(current).is_empty();
        if is_recalled && !record.made {
            self.recall(current, facts, record);
        }
        // What was moved is not there any more when an image is built.
        let is_moved = record.path != *current;
        let hides = is_moved
            || record.alters()
            || match record.access {
                Access::Read => is_fresh || is_temporary(&record.path),
                Access::Execute => is_fresh,
                _ => false,
            };
        if !record.made && (hides || record.access == Access::Attributes) && !facts.is_symlink() {
            self.keep_first(task, current, facts, hides, record)?;
        }
        if matches!(record.access, Access::Remove | Access::Replace) {
            self.expect_removal(current, facts, record);
        }
        if facts.is_symlink() {
            record.target = self
                .root
                .hold_for(task, current, facts)
                .and_then(|held| held.link_text())
                .ok()
                .map(|text| escape(&text));
        }
        // One that the run has made at a path shows nothing of what another had there before.
        if facts.is_directory() && !record.made && !self.listed.contains(&record.path) {
            if record.access == Access::List {
                self.keep_listing(task, current, facts, record)?;
            } else if record.needs_empty() && self.tried.insert(record.path.clone()) {
                self.keep_whether_empty(task, current, facts, record);
            }
        }
        Ok(())
    }

    /// What the run has changed by another path to it is told as it was before that.
    fn recall(&mut self, current: &JailPath, facts: &Facts, record: &mut Touch) {
        if self.store.is_empty() || (self.kept.contains(&record.path) && self.noted.contains(&record.path)) {
            return;
        }
        let born = || self.root.node(current).ok().flatten().map(File::from).as_ref().and_then(born);
        let is_mirrored = || !self.mirrored(current).is_empty();
        let Some(was) = self.store.earlier(facts, born, is_mirrored) else { return };
        let is_new = was.xattrs.is_some() && self.noted.insert(record.path.clone());
        if is_new {
            record.xattrs.clone_from(&was.xattrs);
        }
        if let Some(name) = &was.name
            && self.kept.insert(record.path.clone())
        {
            record.before = Some(name.clone());
        }
        if is_new || record.before.is_some() {
            record.found = Found::There(was.facts.clone());
        }
    }

    /// Keeps what is there when a call is about to change it for the first time: afterwards it may be what the run gave it. Of the
    /// content that only if the call may change it, or `hides` it.
    fn keep_first(
        &mut self,
        task: i32,
        current: &JailPath,
        facts: &Facts,
        hides: bool,
        record: &mut Touch,
    ) -> Result<(), RecordError> {
        let is_missed = self.missed.get(&record.path).is_some_and(|was| !was.is_unchanged(facts));
        let keeps = hides && facts.is_file() && !is_missed && !self.kept.contains(&record.path);
        let notes = !self.noted.contains(&record.path);
        if !keeps && !notes {
            return Ok(());
        }
        let held = self.root.hold_for(task, current, facts).ok();
        if let (true, Some(held)) = (notes, &held) {
            record.xattrs = xattrs(held);
            self.noted.insert(record.path.clone());
            if facts.is_file() || !self.mirrored(current).is_empty() {
                self.store.note(facts, record.xattrs.clone(), held.born());
            }
        }
        if keeps {
            record.before = match held {
                Some(held) => self.store.keep_held(&held, facts).map_err(failed_to_keep(current))?,
                None => None,
            };
            if record.before.is_some() {
                self.kept.insert(record.path.clone());
            } else {
                self.missed.entry(record.path.clone()).or_insert_with(|| facts.clone());
            }
        }
        Ok(())
    }

    /// What is about to be removed may have been used by another path, by which nothing is told of it now.
    fn expect_removal(&mut self, current: &JailPath, facts: &Facts, record: &Touch) {
        let mirrored = self.mirrored(current);
        self.store.forget(facts);
        if !facts.is_directory() || record.made {
            return;
        }
        for was in mirrored.iter().filter_map(|path| self.names.origin(path)).filter(|was| *was != record.path) {
            if !self.gone.contains_key(&was) {
                let look = Touch::new(record.program, &*record.call, Access::Look, was.clone(), record.found.clone());
                self.gone.insert(was, Touch { xattrs: self.xattrs(current, facts), ..look });
            }
        }
    }

    /// Keeps what its user may write to and not read: its owner may open it up later, and then the run reads what it has
    /// written itself.
    fn keep_unread(&mut self, task: i32, current: &JailPath, facts: &Facts, record: &Touch) -> Result<(), RecordError> {
        let may_write = matches!(record.access, Access::Write | Access::Create | Access::Attributes)
            && record.refused.as_ref() == Some(&record.path)
            && self.refusals.may_write(task, current, facts, &self.root);
        if !may_write || record.made || !facts.is_file() {
            return Ok(());
        }
        let Ok(held) = self.root.hold_for(task, current, facts) else { return Ok(()) };
        self.store.note(facts, xattrs(&held), held.born());
        self.store.keep_untold(&held, facts).map_err(failed_to_keep(current))
    }

    /// Keeps the content that `path` has now, as [`Store::keep_held`] does.
    pub(super) fn keep(&mut self, path: &JailPath, facts: &Facts) -> Result<Option<String>, RecordError> {
        let Ok(held) = self.root.hold(path, facts) else { return Ok(None) };
        self.store.keep_held(&held, facts).map_err(failed_to_keep(path))
    }

    /// The extended attributes of what is at `path`, as [`xattrs`] has them.
    pub(super) fn xattrs(&self, path: &JailPath, facts: &Facts) -> Option<BTreeMap<String, String>> {
        self.root.hold(path, facts).ok().as_ref().and_then(xattrs)
    }

    /// Keeps what the directory at `path` shows, unless somebody else has just removed it, or put another in its place. One that the
    /// program alone may list is a gap.
    fn keep_listing(
        &mut self,
        task: i32,
        path: &JailPath,
        facts: &Facts,
        record: &mut Touch,
    ) -> Result<(), RecordError> {
        match self.listing(task, path, facts, record) {
            Ok(entries) => {
                self.listed.insert(record.path.clone());
                self.tell(path, &entries, record);
            }
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => {}
            Err(_) => self.count(record.program, Gap::Served)?,
        }
        Ok(())
    }

    /// Keeps one name of what is in the directory at `path`, by which it is not empty. Of one that the program alone may list nothing is
    /// known: that is no gap, as the program has not listed it.
    fn keep_whether_empty(&self, task: i32, path: &JailPath, facts: &Facts, record: &mut Touch) {
        let entries = self.listing(task, path, facts, record).unwrap_or_default();
        if let Some(first) = entries.first() {
            self.tell(path, std::slice::from_ref(first), record);
        }
    }

    /// What is in the directory at `path`, without what the run has made or brought there, and minjail for it.
    fn listing(&self, task: i32, path: &JailPath, facts: &Facts, record: &Touch) -> Result<Vec<Entry>, RootError> {
        let is_own = |name: &[u8]| name.starts_with(b".minjail-") && self.shared.contains(path);
        let was_there = |name: &[u8]| self.names.origin(&path.join(name)) == Some(record.path.join(name));
        let mut entries = self.root.hold_for(task, path, facts)?.list()?;
        entries.retain(|(name, _)| !is_own(name) && was_there(name));
        Ok(entries)
    }

    /// Tells of the names in the directory at `path`, and of what they are: the run may put something else at each of them.
    fn tell(&self, path: &JailPath, entries: &[Entry], record: &mut Touch) {
        let told = |name: &[u8]| self.root.facts(&path.join(name)).ok().flatten().map(|facts| facts.file_type);
        let types = entries.iter().filter_map(|(name, told_type)| {
            let file_type = told_type.or_else(|| told(name)).filter(|file_type| *file_type != FileType::File);
            Some((escape(name), file_type?))
        });
        let mut names: Vec<String> = entries.iter().map(|(name, _)| escape(name)).collect();
        names.sort();
        record.types = Some(types.collect());
        record.names = Some(names);
    }
}

/// What of extended attributes an image would carry; `None` if that cannot be seen.
pub(super) fn xattrs(held: &Held<'_>) -> Option<BTreeMap<String, String>> {
    let xattrs = held.xattrs().ok()?;
    Some(xattrs.into_iter().map(|(name, value)| (name, escape(&value))).collect())
}

fn failed_to_keep(path: &JailPath) -> impl FnOnce(io::Error) -> RecordError {
    |source| RecordError::Keep { path: path.to_string(), source }
}
