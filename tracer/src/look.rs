//! `lstat` and `readlink` for paths of any length.
//!
//! The kernel takes no path of `PATH_MAX` bytes or more, but a program that goes from directory to directory gets
//! further than that, and the tracer after it in the same way.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, open, openat, readlink, readlinkat};
use nix::sys::stat::{FileStat, Mode, fstatat};

use crate::memory::PATH_MAX;
use crate::sys::{self, Inode};

pub(crate) fn lstat(path: &[u8]) -> Result<FileStat, Errno> {
    if path.len() < PATH_MAX {
        return nix::sys::stat::lstat(path);
    }
    let (directory, rest) = near(path)?;
    fstatat(&directory, rest, AtFlags::AT_SYMLINK_NOFOLLOW)
}

/// What is known of what stands at `path` without asking anybody.
pub(crate) fn known(path: &[u8]) -> Result<Inode, Errno> {
    if path.len() < PATH_MAX {
        return sys::known_at(AT_FDCWD, path);
    }
    let (directory, rest) = near(path)?;
    sys::known_at(directory.as_fd(), rest)
}

pub(crate) fn target(path: &[u8]) -> Result<Vec<u8>, Errno> {
    if path.len() < PATH_MAX {
        return readlink(path).map(OsStringExt::into_vec);
    }
    let (directory, rest) = near(path)?;
    readlinkat(&directory, rest).map(OsStringExt::into_vec)
}

/// By what its file system knows the file that stands at `path`, of all that ever had its number. Not all file systems have such.
pub(crate) fn handle(path: &[u8]) -> Result<Vec<u8>, Errno> {
    if path.len() < PATH_MAX {
        return sys::handle_at(AT_FDCWD, path);
    }
    let (directory, rest) = near(path)?;
    sys::handle_at(directory.as_fd(), rest)
}

/// True if both are the same file.
pub(crate) fn is_same(one: &FileStat, other: &FileStat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

/// A directory on the way, and the rest of the path from there.
fn near(path: &[u8]) -> Result<(OwnedFd, &[u8]), Errno> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut directory = open("/", flags, Mode::empty())?;
    let mut rest = &path[1..];
    while rest.len() >= PATH_MAX {
        // Names have at most 255 bytes, so there is a slash; without one, the kernel says what is wrong.
        let slash = rest[..PATH_MAX - 1].iter().rposition(|&byte| byte == b'/').ok_or(Errno::ENAMETOOLONG)?;
        directory = openat(&directory, &rest[..slash], flags, Mode::empty())?;
        rest = &rest[slash + 1..];
    }
    Ok((directory, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn a_number_is_given_again_and_a_handle_is_not() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("file");
        let of = |path: &std::path::Path| handle(path.as_os_str().as_bytes());
        match of(&path) {
            Err(Errno::EOPNOTSUPP) => return println!("skipped: the temporary directory's file system has no handles"),
            none => assert_eq!(none, Err(Errno::ENOENT)),
        }
        let mut handles = std::collections::BTreeSet::new();
        for _ in 0..100 {
            fs_err::write(&path, "").unwrap();
            let link = top.path().join("link");
            fs_err::hard_link(&path, &link).unwrap();
            let handle = of(&path).unwrap();
            assert_eq!(of(&link).unwrap(), handle);
            assert!(handles.insert(handle));
            fs_err::remove_file(&path).unwrap();
            fs_err::remove_file(&link).unwrap();
        }
    }

    #[test]
    fn longer_than_the_kernel_takes() {
        let top = tempfile::tempdir().unwrap();
        let name = "d".repeat(250);
        let mut directory = open(top.path(), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
        let mut path = top.path().as_os_str().as_bytes().to_vec();
        for _ in 0..40 {
            nix::sys::stat::mkdirat(&directory, name.as_str(), Mode::S_IRWXU).unwrap();
            directory = openat(&directory, name.as_str(), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
            path.push(b'/');
            path.extend_from_slice(name.as_bytes());
        }
        nix::unistd::symlinkat("there", &directory, "link").unwrap();
        path.extend_from_slice(b"/link");
        assert!(path.len() > 10_000);
        assert_eq!(target(&path), Ok(b"there".to_vec()));
        assert_eq!(lstat(&path).unwrap().st_mode & libc::S_IFMT, libc::S_IFLNK);
        path.extend_from_slice(b"-not");
        assert_eq!(lstat(&path).unwrap_err(), Errno::ENOENT);
    }
}
