//! The system calls that the compiler cannot check, each behind a safe function.
#![expect(unsafe_code, reason = "clone, waitpid, prctl, ioctl and close_range have no safe wrapper that fits")]

use std::ffi::c_int;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::unistd::Pid;

/// Copies this process into new namespaces: `None` in the copy, its pid in the original.
///
/// With no flags this is `fork`. The caller must be single-threaded; `supervise` checks it before the first copy.
pub(super) fn copy(namespaces: CloneFlags) -> Result<Option<Pid>, Errno> {
    let flags = libc::c_long::from(namespaces.bits() | libc::SIGCHLD);
    // SAFETY: without CLONE_VM the copy has its own memory and with a null stack it goes on with a copy of this one;
    // the process has one thread, so that no lock is held by a thread that the copy lacks.
    let pid = Errno::result(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })?;
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid fits pid_t"));
    Ok((pid.as_raw() != 0).then_some(pid))
}

/// Sends a signal; true if it has reached somebody. nix knows no real-time signals.
pub fn send_signal(process: i32, number: i32) -> bool {
    // SAFETY: kill takes any numbers, and touches no memory of this process.
    unsafe { libc::kill(process, number) == 0 }
}

/// Ends this process at once: no destructors, no exit handlers, which belong to the process that it is a copy of.
pub(super) fn exit(status: i32) -> ! {
    // SAFETY: _exit takes any number and does not return.
    unsafe { libc::_exit(status) }
}

/// The pid and the raw status of a child that has ended; `None` while there is none. `which` is as in `waitpid(2)`.
///
/// nix's `waitpid` loses a child that was killed by a real-time signal: it answers `EINVAL` after the kernel has
/// forgotten the child.
pub(super) fn ended(which: Pid) -> Result<Option<(Pid, c_int)>, Errno> {
    let mut status = 0;
    // SAFETY: `status` outlives the call, which writes one int to it.
    let pid = Errno::result(unsafe { libc::waitpid(which.as_raw(), &raw mut status, libc::WNOHANG | libc::__WALL) })?;
    Ok((pid != 0).then_some((Pid::from_raw(pid), status)))
}

/// True if `which` is ignored.
pub(super) fn is_ignored(which: Signal) -> Result<bool, Errno> {
    // SAFETY: `sigaction` is numbers and an optional function, for which zero is a value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a null new action changes nothing; the old one is written to `action`, which outlives the call.
    Errno::result(unsafe { libc::sigaction(which as c_int, std::ptr::null(), &raw mut action) })?;
    Ok(action.sa_sigaction == libc::SIG_IGN)
}

/// Ignores `which`.
pub(super) fn ignore(which: Signal) -> Result<(), Errno> {
    // SAFETY: an ignored signal runs no handler.
    unsafe { signal(which, SigHandler::SigIgn) }.map(drop)
}

/// Gives `which` its default disposition.
pub(super) fn default_disposition(which: Signal) -> Result<(), Errno> {
    // SAFETY: the default disposition runs no handler.
    unsafe { signal(which, SigHandler::SigDfl) }.map(drop)
}

/// Closes every descriptor but 0, 1, 2 and `kept`.
///
/// For a copy of the caller that uses nothing of the caller's any more and ends by [`exit`], without destructors.
pub(super) fn close_others(kept: RawFd) -> Result<(), Errno> {
    let kept = u32::try_from(kept).expect("an open descriptor is not negative");
    for (first, last) in [(3, kept - 1), (kept + 1, u32::MAX)] {
        if first <= last {
            // SAFETY: the call takes numbers. The values that own these descriptors are the caller's; in this copy
            // nothing uses or drops them.
            Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })?;
        }
    }
    Ok(())
}

/// Marks every descriptor from `first` up to be closed by exec.
pub(super) fn close_on_exec_from(first: u32) -> Result<(), Errno> {
    // SAFETY: the call takes numbers, and closes nothing now, so that no owned descriptor dangles.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    Errno::result(result).map(drop)
}

/// Takes capability `number` out of the bounding set; `false` if the kernel knows no such capability.
pub(super) fn drop_bounding_capability(number: u32) -> Result<bool, Errno> {
    // SAFETY: PR_CAPBSET_DROP takes a number.
    match Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) }) {
        Ok(_) => Ok(true),
        Err(Errno::EINVAL) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Brings the loopback interface of this network namespace up (`netdevice(7)`), and lets everybody have all of its ports, as engines do who
/// have one (`net.ipv4.ip_unprivileged_port_start`): nobody else is there.
pub(super) fn loopback_up() -> Result<(), Errno> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: `ifreq` is numbers and arrays of them, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    // SAFETY: the socket is open, and `request` is the `ifreq` that this call reads and writes.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) })?;
    // SAFETY: SIOCGIFFLAGS has just filled this member of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags
        | libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).expect("the flags of an ifreq fit its member");
    // SAFETY: as above; the call reads `request`.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) })?;
    // In a container that may not be written to.
    let _ = fs_err::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    Ok(())
}

/// Lets the process that `command` will start join namespaces, in this order, just before its exec.
pub(super) fn join_before_exec(command: &mut Command, namespaces: Vec<OwnedFd>) {
    let join = move || {
        for namespace in &namespaces {
            setns(namespace, CloneFlags::empty())?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure only makes setns calls on descriptors that it owns; it neither
    // allocates nor locks (an errno becomes an io::Error without allocating).
    unsafe { command.pre_exec(join) };
}

/// Lets the process that `command` will start be killed when the thread that starts it ends (`PR_SET_PDEATHSIG`,
/// `prctl(2)`). It leads a session of its own, without a terminal, and takes every signal as by default, whatever its starter
/// blocks or ignores. `prepare`, which may neither allocate nor lock, comes first.
pub(super) fn die_with_starter(command: &mut Command, prepare: fn()) {
    let starter = nix::unistd::getpid();
    let alone = move || {
        prepare();
        nix::unistd::setsid()?;
        for number in 1..=libc::SIGRTMAX() {
            // SAFETY: the default disposition runs no handler. Those that cannot be set are as by default already.
            unsafe { libc::signal(number, libc::SIG_DFL) };
        }
        SigSet::empty().thread_set_mask()?;
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        // Who had ended before that sends nothing. A starter in another PID namespace has the number 0 here.
        let parent = nix::unistd::getppid();
        if parent == starter || parent.as_raw() == 0 { Ok(()) } else { Err(Errno::ESRCH.into()) }
    };
    // SAFETY: between fork and exec the closure makes plain calls, which neither allocate nor lock.
    unsafe { command.pre_exec(alone) };
}

/// Takes a descriptor that a message has just brought (`SCM_RIGHTS`, `unix(7)`).
pub(super) fn own(descriptor: RawFd) -> OwnedFd {
    // SAFETY: the kernel has made the descriptor for this process with the message, and the message's reader gives each
    // of them here once.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}
