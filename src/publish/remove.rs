//! Removing a tree, without following links and without being stopped by the modes of directories.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmod, fchmodat, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::PublishError;

/// Removes `path` and, if it is a directory, everything below; it is no error if there is nothing.
///
/// # Errors
/// The first thing that could not be removed.
pub fn remove_all(path: &Path) -> Result<(), PublishError> {
    let bytes = path.as_os_str().as_encoded_bytes();
    let name = CString::new(bytes).map_err(|_| failed(path, Errno::EINVAL))?;
    loop {
        match remove_below(AT_FDCWD, &name) {
            // Another minjail removes it, too: what nobody holds was left there.
            Err(Errno::ENOENT) if fs_err::symlink_metadata(path).is_ok() => {}
            Ok(()) | Err(Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(failed(path, errno)),
        }
    }
}

/// Removes what has the name `name` in `directory`.
///
/// However deep it is, no more than two directories are open at a time: a stranger's image may go down further than a
/// process may have files open.
pub(crate) fn remove_below(directory: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    if is_removed(directory, name)? {
        return Ok(());
    }
    let mut here = open_to_empty(directory, name)?;
    let mut down = vec![Level::of(&mut here, name)?];
    while let Some(level) = down.last_mut() {
        if let Some(child) = level.left.pop() {
            if !is_removed(here.as_fd(), &child)? {
                here = open_to_empty(here.as_fd(), &child)?;
                down.push(Level::of(&mut here, &child)?);
            }
            continue;
        }
        let Some(Level { name, .. }) = down.pop() else { break };
        match down.last() {
            Some(above) => {
                here = above.open_from(&here)?;
                unlinkat(&here, name.as_c_str(), UnlinkatFlags::RemoveDir)?;
            }
            None => unlinkat(directory, name.as_c_str(), UnlinkatFlags::RemoveDir)?,
        }
    }
    Ok(())
}

/// A directory that is being emptied.
struct Level {
    name: CString,
    /// Which directory it is.
    identity: (u64, u64),
    /// What is still to be removed in it.
    left: Vec<CString>,
}

impl Level {
    fn of(directory: &mut Dir, name: &CStr) -> Result<Self, Errno> {
        let identity = identity(&*directory)?;
        let names = directory.iter().map(|entry| entry.map(|entry| entry.file_name().to_owned()));
        let mut left: Vec<CString> = names.collect::<Result<_, _>>()?;
        left.retain(|name| !matches!(name.as_bytes(), b"." | b".."));
        Ok(Self { name: name.to_owned(), identity, left })
    }

    /// Opens it from a directory that is in it. `ESTALE` if somebody has moved that elsewhere meanwhile.
    fn open_from(&self, below: &Dir) -> Result<Dir, Errno> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let above = openat(below.as_fd(), c"..", flags, Mode::empty())?;
        if identity(&above)? != self.identity {
            return Err(Errno::ESTALE);
        }
        Dir::from_fd(above)
    }
}

/// Device and inode.
fn identity(directory: impl AsFd) -> Result<(u64, u64), Errno> {
    fstat(directory).map(|stat| (stat.st_dev, stat.st_ino))
}

/// Removes what is no directory; false if it is one. What is not there is removed.
fn is_removed(directory: BorrowedFd<'_>, name: &CStr) -> Result<bool, Errno> {
    match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
        // Linux says EISDIR for a directory, where POSIX has EPERM (`unlink(2)`, ERRORS).
        Err(Errno::EISDIR) => Ok(false),
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(errno) => Err(errno),
    }
}

/// Opens a directory whose owner may have taken the right to list or change it from himself.
fn open_to_empty(directory: BorrowedFd<'_>, name: &CStr) -> Result<Dir, Errno> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let open = |how| openat(directory, name, flags | how, Mode::empty());
    let opened = match open(OFlag::O_RDONLY) {
        Err(Errno::EACCES) => {
            let held = open(OFlag::O_PATH)?;
            let magic = format!("/proc/self/fd/{}", held.as_raw_fd());
            fchmodat(AT_FDCWD, magic.as_str(), Mode::S_IRWXU, FchmodatFlags::FollowSymlink)?;
            open(OFlag::O_RDONLY)?
        }
        result => result?,
    };
    // Where this is refused, the removal of what is inside says why.
    let _ = fchmod(&opened, Mode::S_IRWXU);
    Dir::from_fd(opened)
}

fn failed(path: &Path, errno: Errno) -> PublishError {
    PublishError::failed("remove", path, errno.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn shut_directories_can_be_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("shut");
        fs_err::create_dir_all(path.join("shut as well")).unwrap();
        fs_err::write(path.join("shut as well/file"), "").unwrap();
        for shut in ["shut as well", ""] {
            fs_err::set_permissions(path.join(shut), PermissionsExt::from_mode(0o000)).unwrap();
        }
        remove_all(&path).unwrap();
        assert!(!path.exists());
        remove_all(&path).unwrap();
    }
}
