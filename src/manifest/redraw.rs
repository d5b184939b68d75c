//! From a manifest back to the file set that it was drawn up from: what rebuilding from a lock starts with, and what
//! checking a directory against one does.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::model::{Entry, Kind, Manifest};
use super::packing::Made;
use crate::files::{FileSet, Wanted, Was, What};
use crate::path::{Facts, FileType, JailPath};
use crate::root::{Root, RootError};

impl Manifest {
    /// What [`draw_up`](super::draw_up) makes this manifest of again, if the root still has all that it lists. What the
    /// root has no more is left out, and what is below it, so that comparing both manifests tells of it.
    ///
    /// A content that `store` has is taken from there: the run has changed the file, and this is from before.
    ///
    /// # Errors
    /// The root cannot be read.
    pub fn files(&self, root: &Root, store: &BTreeMap<String, PathBuf>) -> Result<FileSet, RootError> {
        let mut files = FileSet::default();
        for entry in &self.entries {
            let is_held = entry.path.parent().is_none_or(|parent| files.contains(&parent));
            let what = self.what(entry, store);
            let there = match &what {
                What::AsIs => root.facts(&entry.path)?.filter(|facts| facts.file_type != FileType::Socket),
                _ => None,
            };
            // A file where the manifest has a directory holds nothing.
            let in_the_way = |facts: &Facts| entry.kind == Kind::Directory && !facts.is_directory();
            let is_there = what != What::AsIs || there.as_ref().is_some_and(|facts| !in_the_way(facts));
            if is_held && is_there {
                files.wanted.insert(entry.path.clone(), Wanted { what, reasons: entry.reasons.clone() });
            }
        }
        Ok(files)
    }

    fn what(&self, entry: &Entry, store: &BTreeMap<String, PathBuf>) -> What {
        match (&entry.kind, self.made.get(&entry.path)) {
            // What minjail makes itself has the epoch; what was only looked at, and has its size alone, may have its own time.
            (Kind::File { .. }, Some(Made::File(_))) if entry.mtime != self.epoch => What::Hollow,
            (Kind::File { .. }, Some(Made::File(bytes))) => What::Made(bytes.clone(), None),
            (Kind::Directory, Some(Made::Directory)) => What::EmptyDirectory,
            (kind, _) if kind.is_name_only() => What::Placeholder,
            (Kind::File { size, sha256 }, _) => match sha256.get().map(|digest| digest.hex()) {
                Some(hex) if store.contains_key(&hex) => What::Was(Box::new(Was {
                    facts: facts(entry, *size),
                    content: Some(hex),
                    target: None,
                    xattrs: Some(entry.xattrs.clone()),
                })),
                _ => What::AsIs,
            },
            _ => What::AsIs,
        }
    }

    /// The files and links that minjail made itself: no root need have them so.
    pub fn made_paths(&self) -> impl Iterator<Item = &JailPath> {
        let placeholders = self.entries.iter().filter(|entry| entry.kind.is_name_only());
        let files = self.made.iter().filter(|(_, made)| matches!(made, Made::File(_))).map(|(path, _)| path);
        files.chain(placeholders.map(|entry| &entry.path))
    }
}

/// The facts of a file of which only its entry is left.
fn facts(entry: &Entry, size: u64) -> Facts {
    Facts {
        file_type: FileType::File,
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        size,
        mtime: entry.mtime,
        mtime_nsec: 0,
        dev: 0,
        ino: 0,
        nlink: 1,
        rdev: 0,
    }
}
