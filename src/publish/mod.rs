//! Outputs that are whole or not there: made beside their place under a name of their own, written to the disk, and
//! given their name by one rename.
//!
//! In: where an output is to be, and what it is made of. Out: the output, or nothing. [`Stage`] is one output that is
//! being made, [`Turn`] the right to give several of them their names with nobody else between, [`Scratch`] a directory
//! for what is needed meanwhile, [`remove_all`] takes a tree away. This room knows nothing of what the outputs are.

mod held;
mod remove;
mod scratch;
mod stage;
mod turn;

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::unistd::{AccessFlags, faccessat};

use crate::path::escape;

pub use remove::remove_all;
pub(crate) use remove::remove_below;
pub use scratch::Scratch;
pub use stage::{Stage, publish_all, sync};
pub use turn::Turn;

/// Something could not be given its place.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error("`{path}` exists already")]
    Exists { path: String },
    #[error("`{path}` exists already and is not replaced: it is {what}")]
    InTheWay { path: String, what: &'static str },
    #[error("failed to {step} `{path}`")]
    Failed {
        /// A verb that fits after "failed to".
        step: &'static str,
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("failed to make a temporary directory in `{path}`")]
    Temporary {
        path: String,
        #[source]
        source: io::Error,
    },
}

impl PublishError {
    pub(crate) fn failed(step: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Failed { step, path: show(path), source }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Exists { .. } => Some("give another name, or `--force` to replace it"),
            Self::InTheWay { .. } => Some("give another name, or remove it yourself"),
            Self::Failed { source, .. } => io_hint(source),
            Self::Temporary { .. } => Some(NO_TEMPORARY),
        }
    }
}

/// What the user can do where nothing temporary can be made.
pub const NO_TEMPORARY: &str = "set TMPDIR to a directory that you may write, on a file system with room";

/// What the user can do about a file that cannot be written.
pub fn io_hint(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Some("make room on that file system, or write to another")
        }
        io::ErrorKind::NotFound => Some("make the directory first"),
        io::ErrorKind::ResourceBusy => Some("something is mounted there, or uses it: write to another place"),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            Some("write to a directory that you may change")
        }
        _ => None,
    }
}

/// Whether files can be made in `directory`, with the rights that count for that (`access(2)`, `AT_EACCESS`).
pub(crate) fn may_make_in(directory: &Path) -> io::Result<()> {
    faccessat(AT_FDCWD, directory, AccessFlags::W_OK | AccessFlags::X_OK, AtFlags::AT_EACCESS)?;
    // As a working directory that was removed: it may be looked at, and nothing can be made in it.
    let is_gone = std::fs::metadata(directory)?.nlink() == 0;
    if is_gone { Err(io::ErrorKind::NotFound.into()) } else { Ok(()) }
}

/// Where `target` itself is to be, however its directory is spelled; `None` if that is not there.
pub(crate) fn own_place(target: &Path) -> Option<PathBuf> {
    let directory = fs_err::canonicalize(directory_of(target)).ok()?;
    Some(directory.join(target.file_name()?))
}

/// The directory of `target`, as it is spelled.
pub(crate) fn directory_of(target: &Path) -> PathBuf {
    match target.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// True if the name `path` still leads to this file.
pub(crate) fn is_at(file: &std::fs::File, path: &Path) -> bool {
    let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    let (held, named) = (file.metadata().map(identity), fs_err::symlink_metadata(path).map(identity));
    matches!((held, named), (Ok(held), Ok(named)) if held == named)
}

/// True if something is mounted at `path` itself, so that no name of it can be given to anything else (`rename(2)`, EBUSY).
fn is_mount_point(path: &Path) -> bool {
    // proc_pid_fdinfo(5), `mnt_id`.
    let mount = |path: &Path| {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
        let opened = std::fs::File::options().read(true).custom_flags(flags.bits()).open(path).ok()?;
        let told = fs_err::read_to_string(format!("/proc/self/fdinfo/{}", opened.as_raw_fd())).ok()?;
        told.lines().find_map(|line| line.strip_prefix("mnt_id:")).map(|number| number.trim().to_owned())
    };
    let (own, above) = (mount(path), mount(&directory_of(path).join(".")));
    own.zip(above).is_some_and(|(own, above)| own != above)
}

fn show(path: &Path) -> String {
    escape(path.as_os_str().as_bytes())
}
