//! Finding the program that the user named, as `execvp(3)` does.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use minjail_tracer::{Credentials, may_reach};
use nix::libc::X_OK;
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{AccessFlags, access};

use super::platform::{Kind, head};
use crate::elf;
use crate::files::interpreter;

/// The program that the user named cannot be run.
#[derive(Debug, thiserror::Error)]
pub(super) enum LocateError {
    #[error("program `{name}` was not found{place}")]
    NotFound { name: String, place: &'static str },
    #[error("`{path}` is not executable")]
    NotExecutable { path: PathBuf },
    #[error("user {uid} may not execute `{path}`, or not get there")]
    Forbidden { path: PathBuf, uid: u32 },
    #[error("`{path}` is on a file system that is mounted with `noexec`")]
    Mounted { path: PathBuf },
    #[error("`{path}` is a directory")]
    Directory { path: PathBuf },
    #[error("`{path}` is built for another architecture: {machine}")]
    Machine { path: PathBuf, machine: &'static str },
    #[error("`{path}` needs the interpreter `{interpreter}`, which is not there")]
    Interpreter { path: PathBuf, interpreter: String },
    #[error("failed to look at `{path}`")]
    Unseen { path: PathBuf, source: io::Error },
    #[error("failed to read `{path}`")]
    Unreadable { path: PathBuf, source: io::Error },
}

/// The path of the file that `name` stands for, for this process or for `user`.
///
/// # Errors
/// There is none, it may not be executed, or it is for another machine.
pub(super) fn locate(
    name: &OsStr,
    path_variable: Option<&OsStr>,
    user: Option<&Credentials>,
) -> Result<PathBuf, LocateError> {
    let check = |path: &Path| check(path).and_then(|()| user.map_or(Ok(()), |user| check_for(user, path)));
    if name.as_bytes().contains(&b'/') {
        return check(Path::new(name)).map(|()| PathBuf::from(name));
    }
    // execvp(3): without PATH, a default; an empty directory is the working directory.
    let directories = path_variable.unwrap_or(OsStr::new("/bin:/usr/bin"));
    let mut refused = None;
    for directory in std::env::split_paths(directories) {
        let candidate = if directory.as_os_str().is_empty() { Path::new(".").join(name) } else { directory.join(name) };
        match check(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(LocateError::NotFound { .. } | LocateError::Directory { .. }) => {}
            // A directory of somebody else's in PATH is passed over, as shells do.
            Err(LocateError::Unseen { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    Err(refused.unwrap_or_else(|| LocateError::NotFound { name: display(Path::new(name)), place: " in PATH" }))
}

fn check_for(user: &Credentials, path: &Path) -> Result<(), LocateError> {
    if may_reach(user, path, X_OK) == Ok(false) {
        Err(LocateError::Forbidden { path: path.to_path_buf(), uid: user.uid })
    } else {
        Ok(())
    }
}

fn check(path: &Path) -> Result<(), LocateError> {
    match fs_err::metadata(path) {
        Err(error) if is_missing(&error) => return Err(LocateError::NotFound { name: display(path), place: "" }),
        Err(source) => return Err(LocateError::Unseen { path: path.to_path_buf(), source }),
        Ok(metadata) if metadata.is_dir() => return Err(LocateError::Directory { path: path.to_path_buf() }),
        Ok(_) => {}
    }
    if access(path, AccessFlags::X_OK).is_err() {
        let is_mounted_so = statvfs(path).is_ok_and(|system| system.flags().contains(FsFlags::ST_NOEXEC));
        let path = path.to_path_buf();
        return Err(if is_mounted_so { LocateError::Mounted { path } } else { LocateError::NotExecutable { path } });
    }
    // A program that may be executed and not read is none for another machine as far as anybody can tell.
    let file = match fs_err::File::open(path) {
        Ok(file) => file.into_parts().0,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
        Err(source) => return Err(LocateError::Unreadable { path: path.to_path_buf(), source }),
    };
    let head = head(&file).unwrap_or_default();
    match Kind::of(&head).filter(|kind| !kind.is_own()) {
        // Where its loader is, its emulator knows.
        Some(kind) if kind.may_be_emulated() => return Ok(()),
        Some(kind) => return Err(LocateError::Machine { path: path.to_path_buf(), machine: kind.name() }),
        None => {}
    }
    let named = elf::read_file(&file).map_or_else(|_| interpreter(&head).map(<[u8]>::to_vec), |elf| elf.interpreter);
    let Some(interpreter) = named else { return Ok(()) };
    match fs_err::metadata(OsStr::from_bytes(&interpreter)) {
        Err(error) if is_missing(&error) => {
            let interpreter = crate::path::escape(&interpreter);
            Err(LocateError::Interpreter { path: path.to_path_buf(), interpreter })
        }
        // What else may be wrong with it, the kernel tells.
        _ => Ok(()),
    }
}

/// True for what begins as text without a line that names its interpreter: a shell runs it, and the kernel does not.
pub(super) fn is_bare_script(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = fs_err::File::open(path).and_then(|file| file.take(255).read_to_end(&mut head));
    read.is_ok() && !head.contains(&0) && interpreter(&head).is_none()
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn display(path: &Path) -> String {
    crate::path::escape(path.as_os_str().as_bytes())
}
