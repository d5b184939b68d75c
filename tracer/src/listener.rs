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
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{pipe2, read, write};

use crate::engine::{Engine, Heard};
use crate::foresight::{Foreseen, Looks};
use crate::sys::WaitingCall;
use crate::{TraceError, sys};

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
    calls: OwnedFd,
    looking: Looking,
}

impl Listener {
    /// Takes the listener that is open at `descriptor` of `process`, which stands still.
    pub(crate) fn take(process: i32, descriptor: i32) -> Result<Self, Errno> {
        let calls = sys::copy_descriptor(process, process, descriptor)?;
        sys::wake_nearby(calls.as_fd());
        Ok(Self { calls, looking: Looking::new()? })
    }

    /// By which whoever serves it is told that all is over.
    pub(crate) fn rope(&self) -> Rope {
        self.looking.rope.clone()
    }

    /// Tells `engine` of each call and lets it run, until nobody is left who could make one.
    pub(crate) fn serve(&self, engine: &Mutex<Engine<'_>>) {
        let _keeper = Keeper::start(self.calls.as_fd());
        if let Err(failure) = self.listen(engine) {
            lock(engine).fail(failure);
        }
    }

    fn listen(&self, engine: &Mutex<Engine<'_>>) -> Result<(), TraceError> {
        loop {
            let for_input = |descriptor| PollFd::new(descriptor, PollFlags::POLLIN);
            let mut waits = [for_input(self.calls.as_fd()), for_input(self.looking.bell.as_fd())];
            match poll(&mut waits, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(TraceError::Wait(errno)),
            }
            let [calls, foreseen] = waits.map(|wait| wait.revents().unwrap_or(PollFlags::empty()));
            if foreseen.contains(PollFlags::POLLIN) {
                match self.looking.next()? {
                    Some((call, foreseen)) => self.hear(engine, &call, Some(foreseen))?,
                    None => return Ok(()),
                }
            }
            if !calls.contains(PollFlags::POLLIN) {
                // The last task is gone.
                if calls.intersects(PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL) {
                    return Ok(());
                }
                continue;
            }
            match sys::receive_call(self.calls.as_fd()) {
                Ok(call) => self.hear(engine, &call, None)?,
                Err(Errno::ENOENT | Errno::EINTR) => {}
                Err(errno) => return Err(TraceError::Wait(errno)),
            }
        }
    }

    fn hear(
        &self,
        engine: &Mutex<Engine<'_>>,
        call: &WaitingCall,
        foreseen: Option<Foreseen>,
    ) -> Result<(), TraceError> {
        let heard = lock(engine).hear(call, foreseen);
        let refusal = match heard {
            Heard::Run => None,
            Heard::Refuse(errno) => Some(errno),
            Heard::Wait(looks) => return self.looking.start(looks, *call),
        };
        // It may be gone by now.
        let _ = sys::answer_call(self.calls.as_fd(), call.id, refusal);
        Ok(())
    }
}

/// A process that has the listener open until this one is gone.
///
/// The kernel closes what a process has open before it ends whom the process traces (`do_exit` in `kernel/exit.c`), and
/// who waits for a listener that is closed is told that there is no such call (`seccomp_unotify(2)`). So whenever
/// this process was killed, tasks ran on for a moment with a wrong answer.
struct Keeper(i32);

impl Keeper {
    /// A child of the calling thread, which the thread that waits for the tasks does not hear of. `None` if there is none to be
    /// had: nothing else depends on it.
    fn start(listener: BorrowedFd<'_>) -> Option<Self> {
        sys::keep_open(listener).ok().map(Self)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        sys::kill(self.0, libc::SIGKILL);
        sys::reap(self.0);
    }
}

/// Calls for which looks are taken, and a bell that wakes whoever waits for calls as well.
#[derive(Debug)]
struct Looking {
    answers: Sender<(WaitingCall, Foreseen)>,
    foreseen: Receiver<(WaitingCall, Foreseen)>,
    bell: OwnedFd,
    rope: Rope,
}

/// Rings a listener's bell.
#[derive(Debug, Clone)]
pub(crate) struct Rope(Arc<OwnedFd>);

impl Rope {
    pub(crate) fn pull(&self) {
        // Nobody may be there any more to hear it.
        let _ = write(&self.0, b"!");
    }
}

impl Looking {
    fn new() -> Result<Self, Errno> {
        let (answers, foreseen) = channel();
        let (bell, rope) = pipe2(OFlag::O_CLOEXEC)?;
        Ok(Self { answers, foreseen, bell, rope: Rope(Arc::new(rope)) })
    }

    fn start(&self, looks: Looks, call: WaitingCall) -> Result<(), TraceError> {
        let rope = self.rope.clone();
        looks.start(call, self.answers.clone(), move || rope.pull())
    }

    /// What was foreseen next, once the bell has rung; `None` if it has rung since all is over.
    fn next(&self) -> Result<Option<(WaitingCall, Foreseen)>, TraceError> {
        read(&self.bell, &mut [0; 1]).map_err(TraceError::Wait)?;
        Ok(self.foreseen.try_recv().ok())
    }
}

/// What threads share. One that panics takes the others with it when they are joined.
pub(crate) fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
