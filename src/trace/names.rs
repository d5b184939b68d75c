//! Which names are from before the run, and what was there under them.
//!
//! A call is seen before it runs, so whether it worked shows only later: what a rename moved is believed when the inode
//! is found under the new name.

use std::collections::{HashMap, HashSet};

use minjail_tracer::Access;

use super::model::Found;
use crate::path::JailPath;
use crate::root::Root;

/// What the run has made and moved so far.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Made by the run, or meant to be: nothing was there before.
    made: HashSet<JailPath>,
    /// From a new name to what was moved there.
    moved: HashMap<JailPath, Moved>,
    /// The source of a rename whose target has not been told yet.
    leaving: Option<Moved>,
}

#[derive(Debug, Clone)]
struct Moved {
    /// Where it was before the run.
    origin: JailPath,
    /// Where it was just before the rename.
    from: JailPath,
    dev: u64,
    ino: u64,
}

impl Names {
    /// Notes what a call is about to do with `path`, at which it has `found` this.
    pub(super) fn note(&mut self, call: &str, access: Access, path: &JailPath, found: &Found, root: &Root) {
        if *found == Found::Missing {
            self.moved.remove(path);
            if matches!(access, Access::Create | Access::Bind | Access::Replace) {
                self.made.insert(path.clone());
            }
        }
        if !call.starts_with("rename") {
            return;
        }
        let here = self.here(path, found, root);
        match access {
            Access::Remove => self.leaving = here,
            Access::Replace => {
                if let Some(leaving) = self.leaving.take() {
                    // RENAME_EXCHANGE: what was at the target may be at the source from now on.
                    if let Some(here) = here {
                        self.moved.insert(leaving.from.clone(), here);
                    }
                    self.moved.insert(path.clone(), leaving);
                }
            }
            _ => {}
        }
    }

    /// Where what is now at `path` was before the run; `None` if the run has made it.
    pub(super) fn origin(&self, path: &JailPath, root: &Root) -> Option<JailPath> {
        if self.made.is_empty() && self.moved.is_empty() {
            return Some(path.clone());
        }
        let mut below: Vec<&[u8]> = Vec::new();
        for at in std::iter::once(path.clone()).chain(path.ancestors()) {
            if let Some(moved) = self.moved.get(&at).filter(|moved| moved.is_at(&at, root)) {
                return Some(below.iter().rev().fold(moved.origin.clone(), |origin, name| origin.join(name)));
            }
            if self.made.contains(&at) {
                return None;
            }
            let depth = below.len();
            below.extend(path.components().rev().nth(depth));
        }
        Some(path.clone())
    }

    /// True if the run itself made this very name.
    pub(super) fn is_made(&self, path: &JailPath) -> bool {
        self.made.contains(path)
    }

    fn here(&self, path: &JailPath, found: &Found, root: &Root) -> Option<Moved> {
        let Found::There(facts) = found else { return None };
        Some(Moved { origin: self.origin(path, root)?, from: path.clone(), dev: facts.dev, ino: facts.ino })
    }
}

impl Moved {
    fn is_at(&self, path: &JailPath, root: &Root) -> bool {
        matches!(root.lstat(path), Ok(Some(facts)) if (facts.dev, facts.ino) == (self.dev, self.ino))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> JailPath {
        JailPath::parse(text.as_bytes()).unwrap()
    }

    fn found(root: &Root, at: &str) -> Found {
        root.lstat(&path(at)).unwrap().map_or(Found::Missing, Found::There)
    }

    #[test]
    fn what_was_moved_is_known_by_its_old_name() {
        let directory = tempfile::tempdir().unwrap();
        fs_err::create_dir(directory.path().join("old")).unwrap();
        fs_err::write(directory.path().join("old/file"), "x").unwrap();
        let root = &Root::open(directory.path()).unwrap();
        let mut names = Names::default();
        names.note("rename", Access::Remove, &path("/old"), &found(root, "/old"), root);
        names.note("rename", Access::Replace, &path("/new"), &found(root, "/new"), root);
        assert_eq!(names.origin(&path("/new/file"), root), None, "before the call has run");
        fs_err::rename(directory.path().join("old"), directory.path().join("new")).unwrap();
        assert_eq!(names.origin(&path("/new/file"), root), Some(path("/old/file")));
        assert_eq!(names.origin(&path("/new"), root), Some(path("/old")));
        assert_eq!(names.origin(&path("/other"), root), Some(path("/other")));
    }

    #[test]
    fn what_was_made_has_no_origin() {
        let directory = tempfile::tempdir().unwrap();
        let root = &Root::open(directory.path()).unwrap();
        let mut names = Names::default();
        names.note("mkdir", Access::Create, &path("/made"), &Found::Missing, root);
        assert_eq!(names.origin(&path("/made/deep/file"), root), None);
        assert!(names.is_made(&path("/made")));
    }
}
