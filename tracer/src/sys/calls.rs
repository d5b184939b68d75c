//! Calls that wait for the answer of a listener (`seccomp_unotify(2)`).
//!
//! In: a listener. Out: calls, one at a time; and their answers, to the kernel.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

use super::ERESTARTNOINTR;

/// A call that waits for an answer (`seccomp_unotify(2)`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct WaitingCall {
    pub(crate) id: u64,
    /// As this process sees it; 0 if it does not.
    pub(crate) task: i32,
    /// `AUDIT_ARCH_*`.
    pub(crate) arch: u32,
    pub(crate) number: u64,
    pub(crate) arguments: [u64; 6],
    /// Where the program goes on.
    pub(crate) instruction: u64,
}

/// Has the kernel run whoever waits where its waker runs (`SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP`, since Linux 6.6), or wherever it
/// likes; without, it works as well.
pub(crate) fn wake_nearby(listener: BorrowedFd<'_>, nearby: bool) {
    // SAFETY: the third argument is a number.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, u64::from(nearby)) };
}

/// The next call that waits; blocks until there is one. ENOENT: there was one, and it is gone.
pub(crate) fn receive_call(listener: BorrowedFd<'_>) -> Result<WaitingCall, Errno> {
    let mut call = MaybeUninit::<libc::seccomp_notif>::zeroed();
    // SAFETY: `call` is a zeroed struct, as the kernel wants it, and of the size that the request's number says.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, call.as_mut_ptr()) };
    Errno::result(result)?;
    // SAFETY: all bytes were zeroed, which is a value of this struct of integers, and the kernel wrote all of them.
    let call = unsafe { call.assume_init() };
    Ok(WaitingCall {
        id: call.id,
        task: call.pid.cast_signed(),
        arch: call.data.arch,
        // As PTRACE_GET_SYSCALL_INFO shows it.
        number: u64::from(call.data.nr.cast_unsigned()),
        arguments: call.data.args,
        instruction: call.data.instruction_pointer,
    })
}

/// True if the call of this number still waits: what was read of its task until now was read of who has made it (`seccomp_unotify(2)`,
/// "Checking that the notification ID is still valid").
pub(crate) fn still_waits(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the kernel reads one number, of the size that the request's number says.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const id) };
    result == 0
}

/// The answer to a call that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It runs.
    Run,
    /// It fails.
    Refuse(Errno),
    /// It has not begun, and begins anew once its task has stopped; for one that is to stop before it leaves the kernel.
    SendBack,
}

/// Answers a call that waits. An error means that it is gone.
pub(crate) fn answer_call(listener: BorrowedFd<'_>, id: u64, answer: Answer) -> Result<(), Errno> {
    let (error, flags) = match answer {
        Answer::Run => (0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
        Answer::Refuse(errno) => (-(errno as i32), 0),
        Answer::SendBack => (-ERESTARTNOINTR, 0),
    };
    let mut answer = libc::seccomp_notif_resp { id, val: 0, error, flags };
    loop {
        // SAFETY: `answer` is the struct that the request's number says.
        let result = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer) };
        match Errno::result(result) {
            Err(Errno::EINTR) => {}
            result => return result.map(drop),
        }
    }
}
