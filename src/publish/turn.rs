//! Who gives several outputs their names, as an image and its lock, does it alone: else two minjails that make the same
//! outputs at once could leave the image of one beside the lock of the other.

use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::{PublishError, directory_of, is_at};

/// The right to publish; it ends when this is dropped.
///
/// It is a lock on a file beside each output, which is there only so long. A killed holder leaves the file, and the next
/// one takes and removes it.
#[derive(Debug)]
pub struct Turn {
    held: Vec<(PathBuf, File)>,
}

impl Turn {
    /// Waits until nobody else publishes any of `targets`. Where the file system has no locks, or the file is somebody
    /// else's, there is nothing to wait for.
    ///
    /// # Errors
    /// The file beside an output cannot be made.
    pub fn take<'a>(targets: impl Iterator<Item = &'a Path>) -> Result<Self, PublishError> {
        let mut places: Vec<PathBuf> = targets.filter_map(place).collect();
        // All in one order, so that of two who want several nobody waits for the other for ever.
        places.sort();
        places.dedup();
        let mut turn = Self { held: Vec::new() };
        for place in places {
            let held = hold(&place).map_err(|source| PublishError::failed("make", &place, source))?;
            turn.held.extend(held.map(|held| (place, held)));
        }
        Ok(turn)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        for (place, _held) in &self.held {
            // Removed before it is let go, so that whoever waited for it finds that it is gone and makes another.
            let _ = fs_err::remove_file(place);
        }
    }
}

/// The file beside `target`, spelled in the one way that everybody spells it.
fn place(target: &Path) -> Option<PathBuf> {
    let mut name = std::ffi::OsString::from(".");
    let own = target.file_name()?.as_encoded_bytes();
    // A name has 255 bytes at most (`NAME_MAX`); that two long names share one file does no harm.
    let own = &own[..own.len().min(200)];
    name.push(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(own));
    name.push(".minjail-turn");
    Some(fs_err::canonicalize(directory_of(target)).ok()?.join(name))
}

fn hold(place: &Path) -> io::Result<Option<File>> {
    let user = nix::unistd::geteuid().as_raw();
    loop {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits());
        let file = match options.open(place) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
            // A link, which no minjail makes (`open(2)`, O_NOFOLLOW).
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Ok(None),
            opened => opened?,
        };
        // In a directory that others may write into, one of them could hold it for ever.
        if file.metadata()?.uid() != user {
            return Ok(None);
        }
        match file.lock() {
            Ok(()) if is_at(&file, place) => return Ok(Some(file)),
            // The one before has removed it.
            Ok(()) => {}
            Err(_) => {
                let _ = fs_err::remove_file(place);
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    #[test]
    fn one_after_the_other_and_nothing_stays() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let (one, other) = (at("image"), at("./image.lock"));
        let (inside, turns) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for number in 0..8 {
                let mut targets = [one.as_path(), other.as_path()];
                if number % 2 == 0 {
                    targets.reverse();
                }
                let (inside, turns) = (&inside, &turns);
                scope.spawn(move || {
                    for _ in 0..20 {
                        let turn = Turn::take(targets.iter().copied()).unwrap();
                        assert!(!inside.swap(true, Ordering::SeqCst), "two have the turn");
                        turns.fetch_add(1, Ordering::SeqCst);
                        inside.store(false, Ordering::SeqCst);
                        drop(turn);
                    }
                });
            }
        });
        assert_eq!(turns.into_inner(), 160);
        assert_eq!(fs_err::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_somebody_else_put_there_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let (turn, target) = (directory.path().join(".image.minjail-turn"), directory.path().join("image"));
        let take = || drop(Turn::take([target.as_path()].into_iter()).unwrap());
        std::os::unix::fs::symlink("nowhere", &turn).unwrap();
        take();
        assert!(turn.is_symlink());
        fs_err::remove_file(&turn).unwrap();
        // Only root can make a file of somebody else's.
        if nix::unistd::geteuid().is_root() {
            let file = fs_err::File::create(&turn).unwrap().into_parts().0;
            nix::unistd::fchown(&file, Some(65534.into()), None).unwrap();
            file.lock().unwrap();
            take();
            assert!(turn.exists());
        }
    }

    #[test]
    fn what_a_killed_one_left_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        fs_err::write(directory.path().join(".image.minjail-turn"), "").unwrap();
        drop(Turn::take([directory.path().join("image").as_path()].into_iter()).unwrap());
        assert_eq!(fs_err::read_dir(directory.path()).unwrap().count(), 0);
    }
}
