//! What is made under a name of its own, and locked by whoever makes it: what nobody holds was left by a minjail that was
//! killed, and may be removed.

use std::fs::TryLockError;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use fs_err::File;

use super::{is_at, remove_all};

/// So many letters and digits `tempfile` puts behind the prefix of a name.
pub(super) const LETTERS: usize = 6;

/// Makes something in `parent` by `create`, under a name that begins with `prefix` and that nothing had: what `create` gave,
/// the lock, and where it is.
pub(super) fn make<T>(
    parent: &Path,
    prefix: &[u8],
    mut create: impl FnMut(&Path) -> io::Result<T>,
) -> io::Result<(T, Option<std::fs::File>, PathBuf)> {
    let made =
        tempfile::Builder::new().prefix(&std::ffi::OsString::from_vec(prefix.to_vec())).make_in(parent, |path| {
            let made = create(path)?;
            match hold(path) {
                Ok(held) => Ok((made, held)),
                Err(error) => {
                    // What is lost to somebody else is his to remove; removing it twice does no harm.
                    let _ = remove_all(path);
                    Err(error)
                }
            }
        })?;
    let ((made, held), path) = made.keep().map_err(|error| error.error)?;
    Ok((made, held, path))
}

/// Locks what was just made at `path`. `None` where the file system has no locks.
///
/// Between making and locking, somebody who removes what nobody holds may have come first: then this is an error for
/// which `tempfile` takes another name.
fn hold(path: &Path) -> io::Result<Option<std::fs::File>> {
    let lost = || io::Error::from(io::ErrorKind::AlreadyExists);
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(lost()),
        // Some umasks take the right to read one's own files away.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
        opened => opened?,
    };
    let (file, _) = file.into_parts();
    match file.try_lock() {
        Ok(()) if is_at(&file, path) => Ok(Some(file)),
        Ok(()) | Err(TryLockError::WouldBlock) => Err(lost()),
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

/// Removes what killed minjails of the same user have left in `parent` under names that begin with `prefix`. That something
/// cannot be removed stops nobody.
pub(super) fn remove_abandoned(parent: &Path, prefix: &[u8]) {
    let user = nix::unistd::geteuid().as_raw();
    let Ok(entries) = fs_err::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let random = name.as_bytes().strip_prefix(prefix);
        if !random.is_some_and(|random| random.len() == LETTERS && random.iter().all(u8::is_ascii_alphanumeric)) {
            continue;
        }
        let path = entry.path();
        let flags = nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK;
        let opened = std::fs::OpenOptions::new().read(true).custom_flags(flags.bits()).open(&path);
        // In a directory that others may write into, a name says nothing of who has made it.
        let own = opened.ok().filter(|file| file.metadata().is_ok_and(|metadata| metadata.uid() == user));
        let held = own.filter(|file| file.try_lock().is_ok());
        // Held until it is gone: whoever has made it just now, and not locked it yet, learns by the lock that it is lost.
        if let Some(held) = held.filter(|held| is_at(held, &path)) {
            let _ = remove_all(&path);
            drop(held);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn what_is_being_made_is_never_abandoned() {
        let parent = tempfile::tempdir().unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    remove_abandoned(parent.path(), b".out.");
                }
            });
            let lost = (0..5000).filter(|_| {
                let ((), held, path) = make(parent.path(), b".out.", |path| fs_err::create_dir(path)).unwrap();
                let is_lost = fs_err::remove_dir(path).is_err();
                drop(held);
                is_lost
            });
            let lost = lost.count();
            over.store(true, Ordering::Relaxed);
            assert_eq!(lost, 0);
        });
    }
}
