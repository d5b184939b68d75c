//! Whether a user may use a file, as the kernel itself says: with access control lists and whatever else it asks.

use std::ffi::{CString, c_int};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;

use crate::spawn::Credentials;

/// True if `user` may search, write or read (`X_OK`, `W_OK`, `R_OK` of `access(2)`) what `path` leads to, and get there. A process
/// that is not root's asks for itself.
///
/// # Errors
/// The kernel cannot be asked for that user, as where it has no number in the user namespace of this process; or what `access(2)`
/// says, but for `EACCES`; `EINVAL` if a NUL is in the path.
pub fn may_reach(user: &Credentials, path: &Path, wanted: c_int) -> Result<bool, Errno> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    ask(user, |own| {
        // SAFETY: a call with a string that ends in NUL, and numbers.
        unsafe { libc::syscall(libc::SYS_faccessat2, libc::AT_FDCWD, path.as_ptr(), wanted, own) }
    })
}

/// True if `user` may do that with what is open at `file`, whatever is on the way there.
///
/// # Errors
/// The same.
pub fn may_use(user: &Credentials, file: BorrowedFd<'_>, wanted: c_int) -> Result<bool, Errno> {
    ask(user, |own| {
        let flags = own | libc::AT_EMPTY_PATH;
        // SAFETY: the same.
        unsafe { libc::syscall(libc::SYS_faccessat2, file.as_raw_fd(), c"".as_ptr(), wanted, flags) }
    })
}

/// The capabilities that count for what `task` does, as bits: in its own user namespace.
///
/// # Errors
/// What `capget(2)` says: there is no such task.
pub fn effective_capabilities(task: i32) -> Result<u64, Errno> {
    /// `_LINUX_CAPABILITY_VERSION_3` of `include/uapi/linux/capability.h`: two halves of effective, permitted and inheritable ones.
    const VERSION: u32 = 0x2008_0522;
    let mut header = [VERSION, task.cast_unsigned()];
    let mut halves = [[0_u32; 3]; 2];
    // SAFETY: two places that are as large as the kernel takes them for in this version.
    let result = unsafe { libc::syscall(libc::SYS_capget, header.as_mut_ptr(), halves.as_mut_ptr()) };
    Errno::result(result).map(|_| u64::from(halves[0][0]) | u64::from(halves[1][0]) << 32)
}

/// `access` is made with a flag: none if it is to go by the real user, who is `user` then.
fn ask(user: &Credentials, access: impl FnOnce(c_int) -> libc::c_long) -> Result<bool, Errno> {
    let answer = if nix::unistd::geteuid().is_root() {
        let _guise = Guise::put_on(user)?;
        Errno::result(access(0))
    } else {
        Errno::result(access(libc::AT_EACCESS))
    };
    match answer {
        Ok(_) => Ok(true),
        Err(Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// The calling thread has another real user, real group, and other supplementary groups while this lives.
///
/// Only `access(2)` goes by the real user. The effective one stays, and with it every capability; whoever changes that one
/// would lose the signal at its parent's end, and could not be looked at any more (`commit_creds` in `kernel/cred.c`). The C library
/// changes all threads (`nptl(7)`), so the calls are bare.
struct Guise(Credentials);

impl Guise {
    fn put_on(user: &Credentials) -> Result<Self, Errno> {
        let groups = nix::unistd::getgroups()?.into_iter().map(nix::unistd::Gid::as_raw).collect();
        let own =
            Self(Credentials { uid: nix::unistd::getuid().as_raw(), gid: nix::unistd::getgid().as_raw(), groups });
        // What was changed is changed back if the rest fails.
        change(user).map(|()| own)
    }
}

impl Drop for Guise {
    fn drop(&mut self) {
        change(&self.0).expect("a thread can have back what it had");
    }
}

/// Where nobody may change groups (`user_namespaces(7)`, "/proc/pid/setgroups"), the user has those of this process.
fn change(to: &Credentials) -> Result<(), Errno> {
    // SAFETY: numbers, and a list that is as long as is said.
    let (groups, gid, uid) = unsafe {
        (
            libc::syscall(libc::SYS_setgroups, to.groups.len(), to.groups.as_ptr()),
            libc::syscall(libc::SYS_setresgid, to.gid, -1, -1),
            libc::syscall(libc::SYS_setresuid, to.uid, -1, -1),
        )
    };
    match Errno::result(groups) {
        Err(errno) if errno != Errno::EPERM => return Err(errno),
        _ => {}
    }
    Errno::result(gid)?;
    Errno::result(uid).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_those_of_the_task() {
        let own = nix::unistd::gettid().as_raw();
        let status = fs_err::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
        assert_eq!(effective_capabilities(own), Ok(u64::from_str_radix(line.trim(), 16).unwrap()));
        assert_eq!(effective_capabilities(i32::MAX), Err(Errno::ESRCH));
    }
}
