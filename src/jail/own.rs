//! Gives a file of the tree to its owner, in the overlay.
//!
//! What is given away is copied up, with its content. Of several names of a file overlayfs copies each one up for itself
//! (overlayfs.rst, "Non-standard behavior"), so that the others are made anew as links of the first.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{UtimensatFlags, fstat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, unlinkat};

use super::Owned;
use crate::path::JailPath;
use crate::root::{Root, magic};

/// Makes what is at a path of `top` what `owned` says. The host's `/proc` must be in sight still.
pub(super) fn own(owned: &Owned, top: &Path) -> Result<(), Errno> {
    let root = Root::open(top).map_err(|error| of(&error.source))?;
    if let Some(first) = &owned.other_name_of {
        return link_again(first, &owned.path, &root);
    }
    // Somebody else has removed it since: then it is nobody's.
    let Some(node) = node(&owned.path, &root)? else { return Ok(()) };
    let (uid, gid) = (Some(Uid::from_raw(owned.uid)), Some(Gid::from_raw(owned.gid)));
    fchownat(&node, "", uid, gid, AtFlags::AT_EMPTY_PATH)?;
    // A change of owner takes both of these away (`chown(2)`, `capabilities(7)`).
    if let Some(mode) = owned.mode {
        std::fs::set_permissions(magic(&node), std::fs::Permissions::from_mode(mode)).map_err(|error| of(&error))?;
    }
    if let Some(capability) = &owned.capability {
        xattr::set_deref(magic(&node), "security.capability", capability).map_err(|error| of(&error))?;
    }
    Ok(())
}

/// Makes `path` a link of the file that is at `first` now; the directory keeps its time.
fn link_again(first: &JailPath, path: &JailPath, root: &Root) -> Result<(), Errno> {
    let directory = |path: &JailPath| node(&path.parent().unwrap_or_else(JailPath::root), root);
    let (Some(from), Some(to)) = (directory(first)?, directory(path)?) else { return Ok(()) };
    let before = fstat(&to)?;
    let [old, new] = [first, path].map(|path| OsStr::from_bytes(path.file_name()));
    match unlinkat(&to, new, UnlinkatFlags::NoRemoveDir) {
        Ok(()) => {}
        Err(Errno::ENOENT) => return Ok(()),
        Err(errno) => return Err(errno),
    }
    linkat(&from, old, &to, new, AtFlags::empty())?;
    let accessed = TimeSpec::new(before.st_atime, before.st_atime_nsec);
    let modified = TimeSpec::new(before.st_mtime, before.st_mtime_nsec);
    utimensat(nix::fcntl::AT_FDCWD, magic(&to).as_str(), &accessed, &modified, UtimensatFlags::FollowSymlink)
}

fn node(path: &JailPath, root: &Root) -> Result<Option<OwnedFd>, Errno> {
    root.node(path).map_err(|error| of(&error.source))
}

fn of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
