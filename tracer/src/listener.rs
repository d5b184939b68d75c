//! Calls that ask or open, heard of without a stop.
//!
//! Most of what a program hands to the kernel are questions, stat, access, readlink, getdents, or paths to be opened. To make
//! each a stop of ptrace costs two wake-ups, on a quiet machine of another processor each. A call that waits for the answer of a
//! listener (`seccomp_unotify(2)`) costs less, and the kernel wakes both where they are. So these calls are heard of by a
//! listener, and let run. All else stops: what executes, changes or makes tasks, and everything where the kernel is older
//! than 5.19 or a container forbids it. Where it matters what was opened, the task stops as its call returns (see `anew`).
//!
//! A call that waits ends with EINTR if a signal comes before it was heard of, which most of these calls never do
//! otherwise; so that is mended where the signal stops the task.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use nix::errno::Errno;

use crate::sys::{self, Answer, WaitingCall};

/// On aarch64 an interrupted call cannot be mended from outside (`arch/arm64/kernel/signal.c`, `do_signal`, decides
/// before the tracer hears of the signal).
pub(crate) const CAN_LISTEN: bool = cfg!(target_arch = "x86_64");

/// True if a listener could be taken from the process that installs the filter: containers may forbid it
/// (`pidfd_getfd`, without `CAP_SYS_PTRACE`), and Linux before 5.6 does not have it.
pub(crate) fn may_take(any: BorrowedFd<'_>) -> bool {
    let own = nix::unistd::getpid().as_raw();
    sys::copy_descriptor(own, own, any.as_raw_fd()).is_ok()
}

/// Where calls wait.
#[derive(Debug)]
pub(crate) struct Listener {
    calls: Arc<OwnedFd>,
    /// Who is answered runs where it is answered.
    wakes_nearby: bool,
    keeper: Option<Keeper>,
}

impl Listener {
    /// Takes the listener that is open at `descriptor` of `process`, which stands still.
    pub(crate) fn take(process: i32, descriptor: i32) -> Result<Self, Errno> {
        let calls = Arc::new(sys::copy_descriptor(process, process, descriptor)?);
        sys::wake_nearby(calls.as_fd(), true);
        let keeper = Keeper::start(calls.as_fd());
        Ok(Self { calls, wakes_nearby: true, keeper })
    }

    /// Can be read when a call waits.
    pub(crate) fn calls(&self) -> BorrowedFd<'_> {
        self.calls.as_fd()
    }

    /// The same for whoever asks whether a call still waits.
    pub(crate) fn share(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.calls)
    }

    /// The call that waits longest; blocks if there was none. ENOENT: it is gone.
    pub(crate) fn receive(&self) -> Result<WaitingCall, Errno> {
        sys::receive_call(self.calls.as_fd())
    }

    /// Answers a call that waits; it may be gone by now. `nearby`: its task is to run where it is answered.
    pub(crate) fn answer(&mut self, call: &WaitingCall, answer: Answer, nearby: bool) {
        // Who is answered goes on, and must not without it.
        if let Some(keeper) = &mut self.keeper {
            keeper.wait();
        }
        if self.wakes_nearby != nearby {
            self.wakes_nearby = nearby;
            sys::wake_nearby(self.calls.as_fd(), nearby);
        }
        let _ = sys::answer_call(self.calls.as_fd(), call.id, answer);
    }
}

/// A process that has the listener open until this one is gone.
///
/// The kernel closes what a process has open before it ends whom the process traces (`do_exit` in `kernel/exit.c`), and
/// who waits for a listener that is closed is told that there is no such call (`seccomp_unotify(2)`). So whenever
/// this process was killed, tasks ran on for a moment with a wrong answer.
#[derive(Debug)]
struct Keeper {
    end: Option<Sender<()>>,
    /// Closed as soon as it is there; `None` once that is known.
    is_coming: Option<Receiver<()>>,
    /// Its parent, so that the thread that waits for the tasks does not hear of it.
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// `None` if there is none to be had: nothing else depends on it.
    fn start(listener: BorrowedFd<'_>) -> Option<Self> {
        let listener = listener.try_clone_to_owned().ok()?;
        let (end, is_over) = channel::<()>();
        let (comes, is_coming) = channel::<()>();
        let thread = std::thread::Builder::new().spawn(move || {
            let keeper = sys::keep_open(listener.as_fd());
            drop((listener, comes));
            // Ends when the other side is dropped.
            let _ = is_over.recv();
            if let Ok(keeper) = keeper {
                sys::kill(keeper, libc::SIGKILL);
                sys::reap(keeper);
            }
        });
        Some(Self { end: Some(end), is_coming: Some(is_coming), thread: Some(thread.ok()?) })
    }

    /// Returns once it is there, or cannot be had.
    fn wait(&mut self) {
        if let Some(is_coming) = self.is_coming.take() {
            // Nothing is ever sent.
            let _ = is_coming.recv();
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            // The thread has no way to panic.
            let _ = thread.join();
        }
    }
}
