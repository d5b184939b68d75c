//! Directories for as long as they are needed.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::held::{make, remove_abandoned};
use super::{PublishError, remove_all, show};

/// A directory that nobody else may look into, gone when this is dropped. Of a minjail that was killed it stays; the next
/// one that makes one of the same prefix in the same place removes it.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    /// The lock, where the file system has locks.
    _held: Option<std::fs::File>,
}

impl Scratch {
    /// Makes a directory in `parent` whose name begins with `prefix`. Nothing else should have such a name: what has one,
    /// belongs to the user and is not locked, is taken for what a killed minjail has left, and removed.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(parent: &Path, prefix: &str) -> Result<Self, PublishError> {
        remove_abandoned(parent, prefix.as_bytes());
        let create = |path: &Path| std::fs::DirBuilder::new().mode(0o700).create(path);
        let ((), held, path) = make(parent, prefix.as_bytes(), create)
            .map_err(|source| PublishError::Temporary { path: show(parent), source })?;
        Ok(Self { path, _held: held })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Whoever needs it gone has no more use of an error than the next one, who tries again.
        let _ = remove_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_with_all_that_is_in_it() {
        let parent = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(parent.path(), "scratch-").unwrap();
        let shut = scratch.path().join("shut");
        fs_err::create_dir(&shut).unwrap();
        fs_err::write(shut.join("file"), "").unwrap();
        fs_err::set_permissions(&shut, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
        drop(scratch);
        assert_eq!(fs_err::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_nobody_holds_goes_when_the_next_comes() {
        let parent = tempfile::tempdir().unwrap();
        let abandoned = parent.path().join("scratch-AbC123");
        fs_err::create_dir(&abandoned).unwrap();
        fs_err::create_dir(parent.path().join("scratch-of-another")).unwrap();
        let held = Scratch::new(parent.path(), "scratch-").unwrap();
        let next = Scratch::new(parent.path(), "scratch-").unwrap();
        assert!(!abandoned.exists());
        assert!(held.path().exists() && next.path().exists());
        assert!(parent.path().join("scratch-of-another").exists());
    }
}
