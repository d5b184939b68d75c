//! The file by which a server shows that it is ready: one that was not there before the server was, or has been changed since.
//!
//! In: its path, before the program is started. Out: whether it shows that, at any time later.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::path::escape;

use super::wire::Answer;

#[derive(Debug)]
pub(super) struct Awaited {
    path: PathBuf,
    before: Option<State>,
}

/// What tells a file from another one, and from itself before it was written to: device, inode, and the time of its last change.
type State = (u64, u64, i64, i64);

impl Awaited {
    /// Remembers what is at `path` now.
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_path_buf(), before: state(path) }
    }

    /// Yes, if it is there and was not; and why not, if it was there all the time, as what an earlier run has left.
    pub(super) fn shows(&self) -> Answer {
        match state(&self.path) {
            None => Answer::No,
            now if now == self.before => {
                let path = escape(self.path.as_os_str().as_encoded_bytes());
                Answer::Refused(format!("`{path}` was there before it started, and has not been changed"))
            }
            Some(_) => Answer::Yes,
        }
    }
}

fn state(path: &Path) -> Option<State> {
    let of = |data: Metadata| (data.dev(), data.ino(), data.ctime(), data.ctime_nsec());
    fs_err::metadata(path).ok().map(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_shows_nothing_until_it_is_changed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        let awaited = Awaited::new(&path);
        assert_eq!(awaited.shows(), Answer::No);
        fs_err::write(&path, "1").unwrap();
        assert_eq!(awaited.shows(), Answer::Yes);
        let awaited = Awaited::new(&path);
        assert!(matches!(awaited.shows(), Answer::Refused(_)));
        // The clock of file systems goes by ticks.
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs_err::write(&path, "2").unwrap();
        assert_eq!(awaited.shows(), Answer::Yes);
        fs_err::remove_file(&path).unwrap();
        assert_eq!(awaited.shows(), Answer::No);
    }
}
