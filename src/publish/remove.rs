//! Removing a tree, without following links and without being stopped by the modes of directories.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmod, fchmodat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::PublishError;

/// Removes `path` and, if it is a directory, everything below; it is no error if there is nothing.
///
/// # Errors
/// The first thing that could not be removed.
pub fn remove_all(path: &Path) -> Result<(), PublishError> {
    let bytes = path.as_os_str().as_encoded_bytes();
    let name = CString::new(bytes).map_err(|_| failed(path, Errno::EINVAL))?;
    remove_below(AT_FDCWD, &name).map_err(|errno| failed(path, errno))
}

/// Removes what has the name `name` in `directory`.
pub(crate) fn remove_below(directory: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
        // Linux says EISDIR for a directory, where POSIX has EPERM (`unlink(2)`, ERRORS).
        Err(Errno::EISDIR) => {}
        Err(Errno::ENOENT) => return Ok(()),
        result => return result,
    }
    let mut listing = open_to_empty(directory, name)?;
    let names: Vec<CString> =
        listing.iter().map(|entry| entry.map(|entry| entry.file_name().to_owned())).collect::<Result<_, _>>()?;
    for child in names.iter().filter(|child| !matches!(child.as_bytes(), b"." | b"..")) {
        remove_below(listing.as_fd(), child)?;
    }
    unlinkat(directory, name, UnlinkatFlags::RemoveDir)
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
