//! Processes that this one starts, between fork and exec.
//!
//! In: what was prepared, since nothing may be allocated in between (`signal-safety(7)`). Out: a process, which reports how far it has
//! come.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use nix::errno::Errno;

use super::signals::{AT_START, disposition};
use crate::limits;

/// What the child does between fork and exec, prepared beforehand: in between nothing may allocate.
pub(crate) struct Child<'a> {
    pub(crate) program: &'a CStr,
    /// Ends with a null pointer, as `execve` wants it.
    pub(crate) arguments: &'a [*const libc::c_char],
    pub(crate) environment: &'a [*const libc::c_char],
    pub(crate) directory: Option<&'a CStr>,
    pub(crate) identity: Option<Identity<'a>>,
    /// The filter with which calls that ask or open wait for an answer; where the kernel does not take it, `filter` is used.
    pub(crate) waiting: Option<&'a [libc::sock_filter]>,
    pub(crate) filter: &'a [libc::sock_filter],
    /// What is sent when the parent ends; 0: nothing.
    pub(crate) parent_death_signal: i32,
    /// The signal mask that the program is to start with.
    pub(crate) mask: &'a libc::sigset_t,
    /// A byte comes from it when the tracer is ready; without one, there is no tracer any more.
    pub(crate) ready: BorrowedFd<'a>,
    /// The tracer's end of that pipe: the child's copy of it would keep the pipe open.
    pub(crate) go: BorrowedFd<'a>,
    /// Where [`Report`]s go.
    pub(crate) report: BorrowedFd<'a>,
    /// It gives up what it has of its parent, shows itself, and reports that before anything else.
    pub(crate) beside: bool,
    /// Its tracer can see it only while it shows itself.
    pub(crate) confined: bool,
}

/// Who the program is to run as.
#[derive(Clone, Copy)]
pub(crate) struct Identity<'a> {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: &'a [libc::gid_t],
}

/// What the child reports: a step, and its errno, or for `Listener` the descriptor (-1: none).
pub(crate) const REPORT: usize = 5;

/// The steps of the child, as it reports them: those that fail, and two that do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ChildStep {
    Directory = 1,
    Filter = 2,
    Identity = 3,
    Exec = 4,
    Listener = 5,
    Shown = 6,
}

/// Forks, and runs `child` in the new process, whose id is returned.
pub(crate) fn fork(child: &Child<'_>) -> Result<i32, Errno> {
    // SAFETY: the child calls only async-signal-safe functions on memory that was prepared, and never returns.
    match Errno::result(unsafe { libc::fork() })? {
        0 => unsafe { run(child) },
        process => Ok(process),
    }
}

/// Starts a process that has `kept` open, and nothing else, until this process is gone: its tasks too have been ended by
/// then (`exit_notify` in `kernel/exit.c`). No signal but SIGKILL reaches it.
pub(crate) fn keep_open(kept: BorrowedFd<'_>) -> Result<i32, Errno> {
    // SAFETY: takes numbers alone.
    let process = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) })? as i32;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else has it.
    let process = unsafe { OwnedFd::from_raw_fd(process) };
    let mut all = MaybeUninit::uninit();
    // SAFETY: sigfillset initialises `all`.
    let all = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        all.assume_init()
    };
    // SAFETY: the child calls only async-signal-safe functions on memory that was prepared, and never returns.
    match Errno::result(unsafe { libc::fork() })? {
        0 => unsafe {
            libc::sigprocmask(libc::SIG_SETMASK, &raw const all, ptr::null_mut());
            libc::setpgid(0, 0);
            for stream in 0..3 {
                libc::close(stream);
            }
            close_all_but(kept.as_raw_fd(), process.as_raw_fd());
            let mut end = libc::pollfd { fd: process.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            while libc::poll(&raw mut end, 1, -1) < 0 && Errno::last() == Errno::EINTR {}
            libc::_exit(0)
        },
        keeper => Ok(keeper),
    }
}

/// Closes every descriptor from 3 up but two.
///
/// # Safety
/// Only in a freshly forked child, which uses no other descriptor any more.
unsafe fn close_all_but(one: i32, other: i32) {
    let (low, high) = (one.min(other).cast_unsigned(), one.max(other).cast_unsigned());
    for (first, last) in [(3, low.wrapping_sub(1)), (low + 1, high.wrapping_sub(1)), (high + 1, u32::MAX)] {
        if first <= last {
            // SAFETY: close_range takes numbers alone; what is closed is nobody's, as the caller has promised.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
    }
}

/// # Safety
/// Only in a freshly forked child; async-signal-safe calls alone (`signal-safety(7)`).
unsafe fn run(child: &Child<'_>) -> ! {
    // SAFETY: every pointer comes from a reference or a null-terminated array in `child`, all made before the fork.
    unsafe {
        for (signal, was_ignored) in AT_START.was_ignored() {
            disposition(signal, Some(if was_ignored { libc::SIG_IGN } else { libc::SIG_DFL }));
        }
        // By hand: the C library takes out what it keeps for itself, the signals 32 and 33.
        let none = ptr::null_mut::<libc::sigset_t>();
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, ptr::from_ref(child.mask), none, size_of::<u64>());
        libc::close(child.go.as_raw_fd());
        limits::restore();
        if child.beside {
            let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
            for stream in 0..3 {
                if libc::dup2(null, stream) < 0 {
                    libc::close(stream);
                }
            }
            close_all_but(child.ready.as_raw_fd(), child.report.as_raw_fd());
            libc::prctl(libc::PR_SET_DUMPABLE, 1);
            report(child, ChildStep::Shown, 0);
        }
        let mut byte = 0u8;
        let is_ready = loop {
            match libc::read(child.ready.as_raw_fd(), (&raw mut byte).cast(), 1) {
                -1 if Errno::last() == Errno::EINTR => {}
                read => break read == 1,
            }
        };
        if !is_ready {
            libc::_exit(127);
        }
        for (descriptor, was_closed) in (0..).zip(AT_START.was_closed()) {
            if was_closed {
                libc::close(descriptor);
            }
        }
        if let Some(directory) = child.directory {
            if libc::chdir(directory.as_ptr()) != 0 {
                fail(child, ChildStep::Directory);
            }
        }
        let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
        let listener = match child.waiting.and_then(|filter| install(filter, flags)) {
            Some(listener) => listener,
            None if install(child.filter, 0).is_some() => -1,
            None => fail(child, ChildStep::Filter),
        };
        report(child, ChildStep::Listener, listener);
        if let Some(identity) = child.identity {
            if libc::setgroups(identity.groups.len(), identity.groups.as_ptr()) != 0
                || libc::setresgid(identity.gid, identity.gid, identity.gid) != 0
                || libc::setresuid(identity.uid, identity.uid, identity.uid) != 0
            {
                fail(child, ChildStep::Identity);
            }
            // Whoever changes his user is hidden from then on (`commit_creds` in kernel/cred.c).
            if child.confined {
                libc::prctl(libc::PR_SET_DUMPABLE, 1);
            }
        }
        // After the change of identity, which clears it (PR_SET_PDEATHSIG(2const)).
        libc::prctl(libc::PR_SET_PDEATHSIG, child.parent_death_signal as libc::c_ulong, 0, 0, 0);
        libc::execve(child.program.as_ptr(), child.arguments.as_ptr(), child.environment.as_ptr());
        fail(child, ChildStep::Exec)
    }
}

/// Installs the filter; with no_new_privs only where the kernel insists on it (`seccomp(2)`: EACCES without
/// `CAP_SYS_ADMIN`), so that setuid programs keep working under a privileged tracer. What the kernel returns for these
/// flags, if it does not fail.
///
/// # Safety
/// As for [`run`].
unsafe fn install(filter: &[libc::sock_filter], flags: libc::c_ulong) -> Option<i32> {
    let length = filter.len() as libc::c_ushort;
    let program = libc::sock_fprog { len: length, filter: filter.as_ptr().cast_mut() };
    // SAFETY: `program` points to `length` instructions, which the kernel only reads.
    unsafe {
        // seccomp(2): without SPEC_ALLOW, a filter switches off speculation for the program.
        let flags = flags | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
        let set = || libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) as i32;
        let mut result = set();
        let is_refused = result < 0 && Errno::last() == Errno::EACCES;
        if is_refused && libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 {
            result = set();
        }
        (result >= 0).then_some(result)
    }
}

/// # Safety
/// As for [`run`].
unsafe fn fail(child: &Child<'_>, step: ChildStep) -> ! {
    let errno = Errno::last_raw();
    // SAFETY: as for this function; _exit takes a number and runs nothing.
    unsafe {
        report(child, step, errno);
        libc::_exit(127)
    }
}

/// # Safety
/// As for [`run`].
unsafe fn report(child: &Child<'_>, step: ChildStep, value: i32) {
    let [a, b, c, d] = value.to_ne_bytes();
    let report: [u8; REPORT] = [step as u8, a, b, c, d];
    // SAFETY: `report` is as long as is said.
    unsafe { libc::write(child.report.as_raw_fd(), report.as_ptr().cast(), report.len()) };
}
