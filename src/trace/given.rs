//! Files that a program is given open for writing.
//!
//! In: the descriptors of this process that the program gets. Out: copies of what is in these files, and what is to be seen of
//! them. A call that writes to a descriptor makes no stop, and whoever reads the file by its path may do so afterwards. None is
//! told of, or part of the trace, unless the run touches it by a path.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::libc::{O_ACCMODE, O_CLOEXEC, O_RDONLY};

use super::is_kernels;
use super::preserve::xattrs;
use super::record::{RecordError, Recorder};
use super::store::LARGE;
use crate::path::Facts;

impl Recorder {
    /// Keeps what is in them. Not of a large one that is standard output or error: it is a log, and hardly read.
    pub(super) fn keep_given(&mut self) -> Result<(), RecordError> {
        // What is not to be seen is not given, or not ours.
        let entries = fs_err::read_dir("/proc/self/fd").into_iter().flatten().flatten();
        let numbers: Vec<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        for number in numbers {
            let about = about(number);
            if !is_given_for_writing(&about) {
                continue;
            }
            let door = format!("/proc/self/fd/{number}");
            let facts = nix::sys::stat::stat(door.as_str()).ok().and_then(|stat| Facts::from_stat(&stat));
            let Some(facts) = facts.filter(Facts::is_file) else { continue };
            if facts.size >= LARGE && matches!(number, 1 | 2) {
                continue;
            }
            let Ok(at) = fs_err::read_link(&door) else { continue };
            let path = self.inside(at.as_os_str().as_bytes()).filter(|path| !is_kernels(path));
            let Some(path) = path else { continue };
            let Ok(held) = self.root.hold(&path, &facts) else { continue };
            let held = if is_leased(&about) { held } else { held.unleased() };
            self.store.note(&facts, xattrs(&held), held.born());
            let kept = self.store.keep_untold(&held, &facts);
            kept.map_err(|source| RecordError::Keep { path: path.to_string(), source })?;
        }
        Ok(())
    }
}

/// What the kernel tells of a descriptor of this process (`proc(5)`, `/proc/pid/fdinfo`).
fn about(number: u32) -> String {
    fs_err::read_to_string(Path::new("/proc/self/fdinfo").join(number.to_string())).unwrap_or_default()
}

/// What is not open when the program is executed is this process's own.
fn is_given_for_writing(about: &str) -> bool {
    let flags = about.lines().find_map(|line| i32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok());
    flags.is_some_and(|flags| flags & O_CLOEXEC == 0 && flags & O_ACCMODE != O_RDONLY)
}

/// True if there may be a lease on what is open for writing here: nobody gets one who has not this very open file
/// (`fs/locks.c`, `check_conflicting_open`), of which its locks are told (`show_fd_locks`).
fn is_leased(about: &str) -> bool {
    about.lines().any(|line| line.starts_with("lock:"))
}
