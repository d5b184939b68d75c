//! The signals of this process: what it blocks, hears and waits for, and how it was started.

use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::time::Duration;

use nix::errno::Errno;

/// Blocks `signals` for this thread; the mask from before.
pub(crate) fn block(signals: &[i32]) -> libc::sigset_t {
    change_mask(libc::SIG_BLOCK, signals)
}

fn change_mask(how: libc::c_int, signals: &[i32]) -> libc::sigset_t {
    let set = set_of(signals);
    let mut before = MaybeUninit::uninit();
    // SAFETY: `set` is an initialised set, and the kernel fills `before`.
    unsafe {
        libc::pthread_sigmask(how, &raw const set, before.as_mut_ptr());
        before.assume_init()
    }
}

fn set_of(signals: &[i32]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises `set`, and sigaddset changes it.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for &signal in signals {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    }
}

/// What a thread hears of the tasks that it traces, while it waits for something else: SIGCHLD comes with each stop. The process
/// gets it, and so perhaps another thread, which passes it on.
#[derive(Debug)]
pub(crate) struct Ears {
    /// Which signals are blocked while it waits.
    mask: libc::sigset_t,
    place: usize,
}

/// The threads that have ears; 0: none.
static THREADS: [AtomicI32; 256] = [const { AtomicI32::new(0) }; 256];
/// So many of them were used at most.
static USED: AtomicUsize = AtomicUsize::new(0);

/// Ignored by whoever has not asked for it (`signal(7)`).
const RING: i32 = libc::SIGURG;

/// The signals that are heard. Where other threads block them, none has to be passed on.
pub(crate) const EARS: [i32; 2] = [libc::SIGCHLD, RING];

impl Ears {
    /// Those of the calling thread, which hears only while it waits. EAGAIN: too many have some.
    pub(crate) fn open() -> Result<Self, Errno> {
        extern "C" fn pass_on(signal: libc::c_int) {
            if signal == RING {
                return;
            }
            let errno = Errno::last_raw();
            // SAFETY: gettid takes nothing.
            let own = unsafe { libc::syscall(libc::SYS_gettid) as i32 };
            let all = THREADS[..USED.load(Ordering::SeqCst)].iter().map(|thread| thread.load(Ordering::SeqCst));
            for thread in all.filter(|&thread| thread != 0 && thread != own) {
                // SAFETY: getpid and tgkill take numbers alone.
                unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, RING) };
            }
            Errno::set_raw(errno);
        }
        let own = nix::unistd::gettid().as_raw();
        let is_free = |thread: &AtomicI32| thread.compare_exchange(0, own, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        let place = THREADS.iter().position(is_free).ok_or(Errno::EAGAIN)?;
        USED.fetch_max(place + 1, Ordering::SeqCst);
        for signal in EARS {
            // SAFETY: the handler calls only async-signal-safe functions.
            unsafe { handle(signal, pass_on) };
        }
        block(&EARS);
        let mut mask = block(&[]);
        // SAFETY: `mask` is an initialised set.
        unsafe {
            libc::sigdelset(&raw mut mask, libc::SIGCHLD);
            libc::sigdelset(&raw mut mask, RING);
        }
        Ok(Self { mask, place })
    }

    /// Waits for input; false if there was none in time. EINTR: a task may have stopped.
    pub(crate) fn wait(&self, inputs: &mut [nix::poll::PollFd<'_>], at_most: Option<Duration>) -> Result<bool, Errno> {
        let count = inputs.len() as libc::nfds_t;
        let timeout = at_most.map(timespec);
        let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
        // SAFETY: nix's PollFd is a transparent pollfd, of which there are `count`; `timeout` is null or one; and a mask.
        let result = unsafe { libc::ppoll(inputs.as_mut_ptr().cast(), count, timeout, &raw const self.mask) };
        Errno::result(result).map(|ready| ready > 0)
    }
}

impl Drop for Ears {
    fn drop(&mut self) {
        THREADS[self.place].store(0, Ordering::SeqCst);
    }
}

/// Sets the signal mask of this thread.
pub(crate) fn set_mask(mask: &libc::sigset_t) {
    // SAFETY: `mask` is an initialised set.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, ptr::null_mut()) };
}

/// A signal, and who sent it: `None` for the kernel itself (a terminal's Ctrl-C, which reaches the whole process group).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) signal: i32,
    pub(crate) sender: Option<i32>,
}

/// Waits for one of `signals`, which must be blocked; `None` if none came in time.
pub(crate) fn wait_signal(signals: &[i32], timeout: Option<Duration>) -> Option<Heard> {
    let set = set_of(signals);
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let timeout = timeout.map(timespec);
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: `set` is an initialised set, `info` a valid place, and `timeout` null or one. The kernel fills `info`
    // with a sender for all signals that a process sends (sigaction(2), "si_code").
    unsafe {
        let signal = libc::sigtimedwait(&raw const set, info.as_mut_ptr(), timeout);
        let info = info.assume_init();
        (signal > 0).then(|| Heard { signal, sender: (info.si_code <= 0).then(|| info.si_pid()) })
    }
}

fn timespec(duration: Duration) -> libc::timespec {
    libc::timespec { tv_sec: duration.as_secs() as libc::time_t, tv_nsec: duration.subsec_nanos().into() }
}

/// Stops this process by `signal`, which all its threads block, unless it is ignored; goes on when SIGCONT comes.
pub(crate) fn stop_self(signal: i32) {
    // SAFETY: both take numbers alone.
    unsafe { libc::kill(libc::getpid(), signal) };
    // It may have come already: a signal is pending once (signal(7), "Queueing and delivery semantics for standard signals"), and
    // its default action stops the process before this returns (sigprocmask(2)).
    change_mask(libc::SIG_UNBLOCK, &[signal]);
    block(&[signal]);
}

/// A write beyond `RLIMIT_FSIZE` fails from now on, and does not end this process; unless that is so anyway. What this process
/// executes has the default again (`signal(7)`, "Signal dispositions").
pub(crate) fn bear_file_limit() {
    extern "C" fn nothing(_: libc::c_int) {}
    if !is_ignored(libc::SIGXFSZ) {
        // SAFETY: the handler does nothing.
        unsafe { handle(libc::SIGXFSZ, nothing) };
    }
}

/// Has `signal` handled by `handler`. Whoever is interrupted in something else goes on (`SA_RESTART`).
///
/// # Safety
/// `handler` calls only async-signal-safe functions (`signal-safety(7)`).
unsafe fn handle(signal: i32, handler: extern "C" fn(libc::c_int)) {
    // SAFETY: the struct is zeroed, which is an empty mask; the caller answers for the handler.
    unsafe {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(signal, &raw const action, ptr::null_mut());
    }
}

/// How this process was started, in what is changed for it behind its back. Rust's runtime ignores SIGPIPE, and opens
/// `/dev/null` for standard descriptors that are closed (`library/std/src/sys/pal/unix/mod.rs`, `init`); glibc takes
/// the signals 32 and 33 once there is a second thread, and the tracer [`EARS`].
pub(super) struct AtStart {
    ignored: [(i32, AtomicBool); 5],
    closed: [AtomicBool; 3],
}

impl AtStart {
    /// The signals that are taken, and whether each was ignored.
    pub(super) fn was_ignored(&self) -> [(i32, bool); 5] {
        [0, 1, 2, 3, 4].map(|index: usize| {
            let (signal, ignored) = &self.ignored[index];
            (*signal, ignored.load(Ordering::Relaxed))
        })
    }

    /// For the descriptors 0, 1 and 2.
    pub(super) fn was_closed(&self) -> [bool; 3] {
        [0, 1, 2].map(|descriptor: usize| self.closed[descriptor].load(Ordering::Relaxed))
    }
}

/// True if this process was started with something at descriptor 1. Where it was not, what is written there goes nowhere, and
/// no write tells.
pub fn has_standard_output() -> bool {
    !AT_START.was_closed()[1]
}

/// True if this process ignores `signal`.
pub(crate) fn is_ignored(signal: i32) -> bool {
    disposition(signal, None) == libc::SIG_IGN
}

/// What happens on `signal`, and from now on, if `new` is given. By hand: the C library hides signals of its own.
pub(super) fn disposition(signal: i32, new: Option<libc::sighandler_t>) -> libc::sighandler_t {
    // The kernel's `struct sigaction` (`include/linux/signal_types.h`): handler, flags, restorer, mask.
    let new = new.map(|handler| [handler, 0, 0, 0]);
    let mut old = [0; 4];
    let new = new.as_ref().map_or(ptr::null(), |new: &[usize; 4]| new.as_ptr());
    // SAFETY: both are null or as long as the struct; the last argument is the size of its mask. With SIG_IGN and
    // SIG_DFL no code of ours is ever called.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, new, old.as_mut_ptr(), 8) };
    old[0]
}

pub(super) static AT_START: AtStart = AtStart {
    ignored: [
        (libc::SIGPIPE, AtomicBool::new(false)),
        (32, AtomicBool::new(false)),
        (33, AtomicBool::new(false)),
        (libc::SIGCHLD, AtomicBool::new(false)),
        (RING, AtomicBool::new(false)),
    ],
    closed: [AtomicBool::new(false), AtomicBool::new(false), AtomicBool::new(false)],
};

/// Runs before Rust's runtime does (System V ABI, "Initialization and Termination Functions").
#[used]
// SAFETY: the section holds pointers to functions that take what they like to ignore; ours makes harmless calls.
#[unsafe(link_section = ".init_array")]
static NOTE: extern "C" fn() = {
    extern "C" fn note() {
        for (signal, ignored) in &AT_START.ignored {
            ignored.store(is_ignored(*signal), Ordering::Relaxed);
        }
        for (descriptor, closed) in (0..).zip(&AT_START.closed) {
            // SAFETY: F_GETFD takes no third argument, and fails if nothing is open there.
            closed.store(unsafe { libc::fcntl(descriptor, libc::F_GETFD) } == -1, Ordering::Relaxed);
        }
    }
    note
};
