//! Calls that only ask, heard of without a stop.
//!
//! Most of what a program hands to the kernel are questions: stat, access, readlink, getdents. To make each a stop
//! of ptrace costs two wake-ups, on a quiet machine of another processor each. A call that waits for the answer of a
//! listener (`seccomp_unotify(2)`) costs less, and the kernel wakes both where they are. So a second thread hears of
//! these calls, through the same engine and in turns with the first one, and lets them run. All else stops: what opens,
//! executes, changes or makes tasks, and everything where the kernel is older than 5.19 or a container forbids it.
//!
//! A call that waits ends with EINTR if a signal comes before the listener has heard of it, which these calls never do
//! otherwise; so that is mended where the signal stops the task.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::engine::Engine;
use crate::{TraceError, sys};

/// On aarch64 an interrupted call cannot be mended from outside (`arch/arm64/kernel/signal.c`, `do_signal`, decides
/// before the tracer hears of the signal).
pub(crate) const CAN_LISTEN: bool = cfg!(target_arch = "x86_64");

/// True if a listener could be taken from the process that installs the filter: containers may forbid it
/// (`pidfd_getfd`, without `CAP_SYS_PTRACE`), and Linux before 5.6 does not have it.
pub(crate) fn may_take(any: BorrowedFd<'_>) -> bool {
    sys::copy_descriptor(nix::unistd::getpid().as_raw(), any.as_raw_fd()).is_ok()
}

/// Where calls wait.
#[derive(Debug)]
pub(crate) struct Listener(OwnedFd);

impl Listener {
    /// Takes the listener that is open at `descriptor` of `process`, which stands still.
    pub(crate) fn take(process: i32, descriptor: i32) -> Result<Self, Errno> {
        let listener = sys::copy_descriptor(process, descriptor)?;
        sys::wake_nearby(listener.as_fd());
        Ok(Self(listener))
    }

    /// Tells `engine` of each call and lets it run, until nobody is left who could make one.
    pub(crate) fn serve(&self, engine: &Mutex<Engine<'_>>) {
        loop {
            let mut waits = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            match poll(&mut waits, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return lock(engine).fail(TraceError::Wait(errno)),
            }
            let events = waits[0].revents().unwrap_or(PollFlags::empty());
            if !events.contains(PollFlags::POLLIN) {
                // The last task is gone.
                if events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL) {
                    return;
                }
                continue;
            }
            match sys::receive_call(self.0.as_fd()) {
                Ok(call) => {
                    let refusal = lock(engine).hear(&call);
                    // It may be gone by now.
                    let _ = sys::answer_call(self.0.as_fd(), call.id, refusal);
                }
                Err(Errno::ENOENT | Errno::EINTR) => {}
                Err(errno) => return lock(engine).fail(TraceError::Wait(errno)),
            }
        }
    }
}

/// The engine, for one of the two threads. One that panics takes the other with it when they are joined.
pub(crate) fn lock<'a, 'b>(engine: &'a Mutex<Engine<'b>>) -> MutexGuard<'a, Engine<'b>> {
    engine.lock().unwrap_or_else(PoisonError::into_inner)
}
