//! Files that the kernel writes as they are read (`proc(5)`, `sysfs(5)`).
//!
//! In: a path, or what is open there. Out: all of it, or nothing if it cannot be read.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::sys::uio::pread;

/// All of a file of /proc or /sys.
pub(crate) fn fs_read(path: &str) -> Option<Vec<u8>> {
    read_whole(open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()?)
}

/// All of a file of /proc or /sys, from its beginning.
pub(crate) fn read_whole(file: impl AsFd) -> Option<Vec<u8>> {
    // Not `read_to_end`: it asks for a size, which these files do not have, and feels its way in small pieces.
    let mut bytes = vec![0; PIECE];
    let mut length = 0;
    loop {
        match pread(&file, &mut bytes[length..], length as libc::off_t) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
        if bytes.len() - length < PIECE / 2 {
            bytes.resize(bytes.len() + PIECE, 0);
        }
    }
    bytes.truncate(length);
    Some(bytes)
}

/// What the files of /proc that are read here rarely exceed.
const PIECE: usize = 8192;
