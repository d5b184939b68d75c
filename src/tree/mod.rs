//! The tree of an image: what the manifest lists, with the contents at hand.
//!
//! In: a [`Manifest`], the [`Sources`] of its contents and the [`Root`] that they are below. Out: contents that are
//! checked against the manifest, or give it their digest, as they are read ([`Tree::open`], [`Tree::seal`]), and a chroot
//! directory ([`Tree::write_to`]). This
//! room knows nothing of archives or images; [`Chroot`], which makes things below a held directory, also serves those
//! who unpack them, and [`owned()`] says whose the files are that an ordinary user could not give away.

mod chroot;
mod content;
mod owned;
mod seal;

use std::io;
use std::path::Path;

use crate::manifest::{Entry, Kind, Manifest, Sources};
use crate::root::{Root, RootError};

pub use chroot::{Chroot, Metadata, Node, Notes};
pub use content::Content;
pub use owned::{Owned, owned};

/// A manifest with its contents at hand.
#[derive(Debug, Clone, Copy)]
pub struct Tree<'a> {
    pub manifest: &'a Manifest,
    pub sources: &'a Sources,
    pub root: &'a Root,
}

/// A content could not be read as the manifest says, or something could not be made on disk.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    #[error("`{path}` has changed since it was looked at: {how}")]
    Changed { path: String, how: String },
    #[error("the manifest lists the file `{path}`, but not where its content comes from")]
    NoSource { path: String },
    #[error("`{path}` is not empty")]
    NotEmpty { path: String },
    #[error(transparent)]
    Root(#[from] RootError),
    #[error("failed to {step} `{path}`")]
    Failed {
        /// A verb that fits after "failed to".
        step: &'static str,
        path: String,
        #[source]
        source: io::Error,
    },
}

impl TreeError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Changed { .. } => Some("trace and build again, while nothing changes the files"),
            Self::Failed { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("make room on that file system, or write to another")
            }
            Self::Failed { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("the image needs this file: run minjail as a user who may read it")
            }
            Self::Root(error) => error.hint(),
            _ => None,
        }
    }
}

impl<'a> Tree<'a> {
    /// Opens the content of `entry`, which must be a [`Kind::File`] of the manifest.
    ///
    /// # Errors
    /// The content cannot be opened, or its size is no longer the manifest's.
    pub fn open(&self, entry: &'a Entry) -> Result<Content<'a>, TreeError> {
        Content::open(self, entry)
    }

    /// Writes the tree into `directory`, which must exist and be empty, and says what could not be written as it
    /// should be: an ordinary user may not give files away, make device nodes or set every attribute.
    ///
    /// `progress` is told how many bytes of content are written, as they come.
    ///
    /// # Errors
    /// A content cannot be read or has changed, or something cannot be made.
    pub fn write_to(&self, directory: &Path, progress: &mut dyn FnMut(u64)) -> Result<Notes, TreeError> {
        let mut chroot = Chroot::open(directory)?;
        for entry in &self.manifest.entries {
            let metadata = Metadata::of(entry);
            let node = match &entry.kind {
                Kind::File { .. } => {
                    let mut content = self.open(entry)?;
                    chroot.make_file(&entry.path, &metadata, |buffer| {
                        content.read_some(buffer).inspect(|&count| progress(count as u64))
                    })?;
                    continue;
                }
                Kind::Directory => Node::Directory,
                Kind::HardLink { to } => Node::HardLink { to },
                Kind::Symlink { target } => Node::Symlink { target },
                Kind::Fifo => Node::Fifo,
                &Kind::CharDevice { major, minor } => Node::CharDevice { major, minor },
                &Kind::BlockDevice { major, minor } => Node::BlockDevice { major, minor },
            };
            chroot.make(&entry.path, metadata, node)?;
        }
        chroot.finish()
    }
}

#[cfg(test)]
pub(crate) mod sample;

#[cfg(test)]
mod tests {
    use super::sample::{self, Sample, path};
    use super::*;
    use crate::manifest::Source;
    use proptest::prelude::*;
    use std::os::unix::fs::MetadataExt;

    fn write(sample: &Sample) -> (tempfile::TempDir, Notes) {
        let directory = tempfile::tempdir().unwrap();
        let notes = sample.tree().write_to(directory.path(), &mut |_| ()).unwrap();
        (directory, notes)
    }

    #[test]
    fn what_is_written_is_what_the_manifest_says() {
        let sample = Sample::varied();
        let (directory, notes) = write(&sample);
        assert_eq!(sample.differences(directory.path()), [""; 0]);
        assert_eq!(notes.owners == 0, nix::unistd::geteuid().is_root());
        let blocks = fs_err::metadata(directory.path().join("holes")).unwrap().blocks();
        assert!(blocks <= 16, "{blocks} blocks of 512 bytes are not sparse");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn any_tree_can_be_written(sample in sample::any_tree()) {
            let (directory, _) = write(&sample);
            prop_assert_eq!(sample.differences(directory.path()), [""; 0]);
        }
    }

    #[test]
    fn a_file_that_changed_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let mut sample = Sample::new().file("/f", b"one");
        for (now, how) in [
            ("two", "its sha256 was"),
            ("on", "it had 3 bytes and now has 2"),
            ("ones", "it had 3 bytes and now has 4"),
        ] {
            let stored = directory.path().join("f");
            fs_err::write(&stored, now).unwrap();
            sample.sources.insert(path("/f"), Source::Stored(stored.clone()));
            let error = sample.tree().write_to(tempfile::tempdir().unwrap().path(), &mut |_| ()).unwrap_err();
            let TreeError::Changed { path, how: said } = error else { panic!("{error}") };
            assert_eq!(path, stored.to_str().unwrap());
            assert!(said.starts_with(how), "{said}");
        }
    }

    #[test]
    fn bytes_that_come_or_go_while_reading_are_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let stored = directory.path().join("f");
        let big = vec![b'x'; 10_000];
        for change in [10_001, 9_999] {
            fs_err::write(&stored, &big).unwrap();
            let mut sample = Sample::new().file("/f", &big);
            sample.sources.insert(path("/f"), Source::Stored(stored.clone()));
            let entry = sample.entry("/f").clone();
            let mut content = sample.tree().open(&entry).unwrap();
            content.read_some(&mut [0; 100]).unwrap();
            fs_err::OpenOptions::new().write(true).open(&stored).unwrap().set_len(change).unwrap();
            let error = std::iter::repeat_with(|| content.read_some(&mut [0; 4096])).find_map(Result::err);
            assert!(matches!(error, Some(TreeError::Changed { .. })));
        }
    }

    #[test]
    fn only_an_empty_directory_becomes_a_tree() {
        let directory = tempfile::tempdir().unwrap();
        fs_err::write(directory.path().join("x"), "").unwrap();
        let error = Sample::new().tree().write_to(directory.path(), &mut |_| ()).unwrap_err();
        assert!(matches!(error, TreeError::NotEmpty { .. }));
    }
}
