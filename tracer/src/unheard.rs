//! What a signal does to a task only because that is traced, undone.
//!
//! The kernel keeps no signal from a traced task, since its tracer may want to know of it (`kernel/signal.c`, `sig_ignored`). One that the task
//! ignores then wakes it all the same, and calls end that would have waited on; and the first process of a pid namespace, which only its
//! parents can stop, is stopped by its own kind, and survives its own faults (`force_sig_info_to_task`).

use nix::errno::Errno;

use crate::proc::{self, Hearing};
#[cfg(target_arch = "x86_64")]
use crate::retrace;
use crate::sys;

/// Raised by the kernel for what a task does itself.
const FAULTS: [i32; 6] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS];

/// The signal with which `task` is to go on, which `signal` stops now.
pub(crate) fn passed_on(task: i32, signal: i32) -> i32 {
    if !(signal == libc::SIGSTOP || FAULTS.contains(&signal)) || !proc::is_first(task) {
        return signal;
    }
    match sys::signal_source(task) {
        // By the kernel, for whom nobody is too dear: it dies of it, if of another signal.
        Ok((code, _)) if code > 0 && proc::hearing(task, signal) != Hearing::Caught => libc::SIGKILL,
        // Who sends from outside has no number here.
        Ok((code, sender)) if code <= 0 && sender != 0 && signal == libc::SIGSTOP => 0,
        _ => signal,
    }
}

/// Has the call begin anew that `task` has left for `signal`, 0 if for none, if it hears nothing of that. One that handlers hear of as well ends
/// as ever (`arch/x86/kernel/signal.c`, `handle_signal`); so does one after which the task has stopped (`signal(7)`).
#[cfg(target_arch = "x86_64")]
pub(crate) fn wait_on(task: i32, signal: i32) -> Result<(), Errno> {
    // Where SIGCONT comes, nobody tells whether the task had stopped.
    if matches!(signal, 0 | libc::SIGCONT) || !retrace::is_interrupted(task)? {
        return Ok(());
    }
    let is_unheard = match proc::hearing(task, signal) {
        Hearing::None => true,
        Hearing::Caught => false,
        // It hears of no other (`kernel/signal.c`, `sig_task_ignored`).
        Hearing::Suffered if proc::is_first(task) => {
            !matches!((signal, passed_on(task, signal)), (_, libc::SIGKILL) | (libc::SIGSTOP, libc::SIGSTOP))
        }
        Hearing::Suffered => false,
    };
    if is_unheard { retrace::restart_unless_handled(task) } else { Ok(()) }
}

/// Here the kernel has set up what follows before the tracer hears of the signal.
#[cfg(target_arch = "aarch64")]
#[expect(clippy::unnecessary_wraps, reason = "on other machines registers are read, which may fail")]
pub(crate) fn wait_on(_task: i32, _signal: i32) -> Result<(), Errno> {
    Ok(())
}
