//! The standard streams of a program that may be another user than whoever has made them.
//!
//! Who opens `/dev/stdout` opens what is behind the descriptor anew, and must be allowed to. A pipe without a name is for those who
//! have it open, whatever its mode says: nobody else gets at it but by `/proc/PID/fd`, which whoever may trace such a process sees
//! alone (`ptrace(2)`, `PTRACE_MODE_READ_FSCREDS`). Files, terminals and FIFOs stay as they are.

use std::os::fd::AsFd;

use nix::sys::stat::{Mode, fchmod};
use nix::sys::statfs::{FsType, fstatfs};

/// Where pipes without names lie (`PIPEFS_MAGIC` of `include/uapi/linux/magic.h`).
const PIPES: FsType = FsType(0x5049_5045);

/// Lets every user of a jail open this process's standard streams anew, where these are pipes. Somebody else's stay closed, as they
/// are outside.
pub fn share_pipes() {
    let everybody = Mode::from_bits_truncate(0o666);
    let streams = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    for stream in [streams.0.as_fd(), streams.1.as_fd(), streams.2.as_fd()] {
        if fstatfs(stream).is_ok_and(|lies| lies.filesystem_type() == PIPES) {
            // It fails for somebody else's.
            let _ = fchmod(stream, everybody);
        }
    }
}
