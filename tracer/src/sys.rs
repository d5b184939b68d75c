//! The calls for which neither nix nor pete has a sound wrapper. All of the crate's `unsafe` is here
//! and below.
#![expect(unsafe_code, reason = "the one place of this crate where the kernel is called by hand")]

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use nix::errno::Errno;
use nix::unistd::Pid;

mod access;
mod calls;
mod child;
mod files;
#[cfg(target_arch = "aarch64")]
mod registers;
mod signals;
pub use access::{effective_capabilities, may_reach, may_use};
pub(crate) use calls::{Answer, WaitingCall, answer_call, receive_call, still_waits, wake_nearby};
pub(crate) use child::{Child, ChildStep, Identity, REPORT, fork, keep_open};
pub(crate) use files::{Inode, born, handle_at, is_no_directory, known_at, known_inode, known_size, namespace_id};
#[cfg(target_arch = "aarch64")]
pub(crate) use registers::{registers, set_call, set_registers, set_result};
pub use signals::has_standard_output;
pub(crate) use signals::{EARS, Ears, Heard, bear_file_limit, block, is_ignored, set_mask, stop_self, wait_signal};

/// A call's interface, number and arguments, at a seccomp stop.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SyscallEntry {
    /// `AUDIT_ARCH_*`.
    pub(crate) arch: u32,
    pub(crate) number: u64,
    pub(crate) arguments: [u64; 6],
    /// Where the program goes on.
    pub(crate) instruction: u64,
    /// `SECCOMP_RET_DATA` of the filter that stopped it.
    pub(crate) data: u32,
    /// Where the task's stack ends, if that is known.
    pub(crate) stack: Option<u64>,
}

/// A child or tracee of this thread that has stopped or ended, and its raw status; `None` if there is nothing to tell now.
///
/// `__WNOTHREAD`: other threads may trace tasks of their own.
pub(crate) fn poll_any() -> Result<Option<(i32, i32)>, Errno> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for an int.
    let task = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD | libc::WNOHANG) };
    Errno::result(task).map(|task| (task != 0).then_some((task, status)))
}

/// True if `task` is a child or tracee of this thread whose end was not yet reported.
pub(crate) fn is_awaited(task: i32) -> bool {
    let mut report = MaybeUninit::<libc::siginfo_t>::uninit();
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL | libc::__WNOTHREAD;
    // SAFETY: `report` is a valid place for one.
    let found = unsafe { libc::waitid(libc::P_PID, task.cast_unsigned(), report.as_mut_ptr(), flags) };
    found == 0
}

/// `PTRACE_SEIZE` with these options.
pub(crate) fn seize(task: i32, options: i32) -> Result<(), Errno> {
    request(libc::PTRACE_SEIZE, task, options)
}

/// A request that takes a number and no pointers.
fn request(request: libc::c_uint, task: i32, number: i32) -> Result<(), Errno> {
    let none = ptr::null_mut::<libc::c_void>();
    // SAFETY: whoever asks names such a request: the kernel reads and writes nothing of ours.
    let result = unsafe { libc::ptrace(request, task, none, libc::c_long::from(number)) };
    Errno::result(result).map(drop)
}

/// `PTRACE_CONT` with any signal, also a real-time one; 0 for none.
pub(crate) fn resume(task: i32, signal: i32) -> Result<(), Errno> {
    request(libc::PTRACE_CONT, task, signal)
}

/// `PTRACE_SYSCALL`: as [`resume`] without a signal, but the task stops again when its call is over.
pub(crate) fn resume_to_return(task: i32) -> Result<(), Errno> {
    request(libc::PTRACE_SYSCALL, task, 0)
}

/// `PTRACE_INTERRUPT`: a task that runs stops as soon as it leaves the kernel.
pub(crate) fn interrupt(task: i32) -> Result<(), Errno> {
    request(libc::PTRACE_INTERRUPT, task, 0)
}

/// The signals that `task` blocks (`PTRACE_GETSIGMASK`), as bits.
pub(crate) fn signal_mask(task: i32) -> Result<u64, Errno> {
    let mut mask = 0u64;
    // SAFETY: the kernel writes as many bytes to `mask` as the third argument says, its size.
    let result = unsafe { libc::ptrace(libc::PTRACE_GETSIGMASK, task, size_of::<u64>(), &raw mut mask) };
    Errno::result(result).map(|_| mask)
}

/// Sets the signals that `task` blocks (`PTRACE_SETSIGMASK`); SIGKILL and SIGSTOP are never among them.
pub(crate) fn set_signal_mask(task: i32, mask: u64) -> Result<(), Errno> {
    // SAFETY: the kernel reads as many bytes of `mask` as the third argument says, its size.
    let result = unsafe { libc::ptrace(libc::PTRACE_SETSIGMASK, task, size_of::<u64>(), &raw const mask) };
    Errno::result(result).map(drop)
}

/// `PTRACE_POKEDATA`: also into memory that the task may only read.
pub(crate) fn write_word(task: i32, address: u64, word: u64) -> Result<(), Errno> {
    // SAFETY: the kernel takes both as numbers; the address is the task's, where nothing of ours can be hurt.
    let result = unsafe { libc::ptrace(libc::PTRACE_POKEDATA, task, address as usize, word as usize) };
    Errno::result(result).map(drop)
}

/// Why the signal came at which `task` stands (`sigaction(2)`, `si_code`), and the number of who has sent it, if anybody has.
pub(crate) fn signal_source(task: i32) -> Result<(i32, i32), Errno> {
    let mut source = MaybeUninit::<libc::siginfo_t>::zeroed();
    let none = ptr::null_mut::<libc::c_void>();
    // SAFETY: the kernel writes one `siginfo_t` to `source`, which is all zeros until then; any bytes are a number.
    let (result, source) = unsafe {
        let result = libc::ptrace(libc::PTRACE_GETSIGINFO, task, none, source.as_mut_ptr());
        (result, source.assume_init())
    };
    // SAFETY: it is a number, whatever else may stand there for this signal.
    Errno::result(result).map(|_| (source.si_code, unsafe { source.si_pid() }))
}

/// The task that the event at which `task` stands is about (`PTRACE_GETEVENTMSG`): the one that it has just made, or the one
/// that it was before it executed something.
pub(crate) fn event_task(task: i32) -> Result<i32, Errno> {
    let mut message: libc::c_ulong = 0;
    let none = ptr::null_mut::<libc::c_void>();
    // SAFETY: the kernel writes one unsigned long to `message`.
    let result = unsafe { libc::ptrace(libc::PTRACE_GETEVENTMSG, task, none, &raw mut message) };
    Errno::result(result).map(|_| message as i32)
}

/// What is mapped at an address.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mapping {
    /// The first address behind it.
    pub(crate) end: u64,
    /// Other processes may write to it (`MAP_SHARED`).
    pub(crate) is_shared: bool,
    /// The numbers of the device that the file is on.
    pub(crate) device: (u32, u32),
}

/// What is mapped at `address`; `maps` is the file of that name of a task (`PROCMAP_QUERY` of `include/uapi/linux/fs.h`, since
/// Linux 6.11). ENOENT: nothing.
pub(crate) fn mapping(maps: BorrowedFd<'_>, address: u64) -> Result<Mapping, Errno> {
    /// `struct procmap_query`, in words: its size, flags of the question, the address, start and end of the mapping, its
    /// flags, page size, offset, inode, device; the rest is about names.
    const WORDS: usize = 13;
    const PROCMAP_QUERY: libc::Ioctl = libc::_IOWR::<[u64; WORDS]>(b'f' as u32, 17);
    const PROCMAP_QUERY_VMA_SHARED: u64 = 8;
    let mut query = [0u64; WORDS];
    query[0] = size_of_val(&query) as u64;
    query[2] = address;
    // SAFETY: `query` is as long as the request's number and its own first word say, and asks for no names.
    Errno::result(unsafe { libc::ioctl(maps.as_raw_fd(), PROCMAP_QUERY, query.as_mut_ptr()) })?;
    let numbers = query[9].to_ne_bytes();
    let number = |at: usize| u32::from_ne_bytes([numbers[at], numbers[at + 1], numbers[at + 2], numbers[at + 3]]);
    let device = (number(0), number(4));
    Ok(Mapping { end: query[4], is_shared: query[5] & PROCMAP_QUERY_VMA_SHARED != 0, device })
}

/// What tasks may have in common, as `kcmp(2)` numbers it.
pub(crate) enum Common {
    /// `CLONE_VM`.
    Memory = 1,
    /// `CLONE_FILES`.
    Descriptors = 2,
    /// `CLONE_FS`.
    Directory = 3,
}

/// True if both tasks have this in common, or if the kernel does not tell.
pub(crate) fn share(one: i32, other: i32, what: Common) -> bool {
    // SAFETY: kcmp takes numbers alone.
    !matches!(unsafe { libc::syscall(libc::SYS_kcmp, one, other, what as libc::c_int, 0, 0) }, 1..=3)
}

/// True if `task` is the first of its process: only then is there a thread of this number in a group of the same, to which this
/// process may send signals, or not (EPERM).
pub(crate) fn is_process(task: i32) -> bool {
    // SAFETY: tgkill takes numbers alone; the signal 0 is none.
    let found = Errno::result(unsafe { libc::syscall(libc::SYS_tgkill, task, task, 0) });
    matches!(found, Ok(_) | Err(Errno::EPERM))
}

/// Opens the file that a handle names, as a mere place (`O_PATH`); `mount` is anything on its filesystem.
pub(crate) fn open_handle(mount: BorrowedFd<'_>, kind: i32, bytes: &[u8]) -> Result<OwnedFd, Errno> {
    // struct file_handle: two words, then the bytes, aligned as a word is.
    let length = u32::try_from(bytes.len()).map_err(|_| Errno::EINVAL)?;
    let mut handle = vec![length, kind.cast_unsigned()];
    for word in bytes.chunks(4) {
        let mut padded = [0; 4];
        padded[..word.len()].copy_from_slice(word);
        handle.push(u32::from_ne_bytes(padded));
    }
    // SAFETY: `handle` is laid out as the kernel wants it, and holds at least as many bytes as it says.
    let opened = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            mount.as_raw_fd(),
            handle.as_mut_ptr(),
            libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC,
        )
    };
    let opened = Errno::result(opened)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(opened as i32) })
}

/// `PTRACE_LISTEN`: the task stays stopped, and the next SIGCONT is reported.
pub(crate) fn listen(task: i32) -> Result<(), Errno> {
    request(libc::PTRACE_LISTEN, task, 0)
}

/// Through which interface `task` has entered the kernel, at any stop: `AUDIT_ARCH_*`.
#[cfg(target_arch = "x86_64")]
pub(crate) fn interface(task: i32) -> Result<u32, Errno> {
    syscall_info(task).map(|info| info.arch)
}

/// A task's stack, at a stop.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stack {
    /// Where it ends.
    pub(crate) pointer: u64,
    /// Words are of 64 bits there.
    pub(crate) is_wide: bool,
}

/// The stack of `task`, at any stop.
pub(crate) fn stack(task: i32) -> Result<Stack, Errno> {
    /// `__AUDIT_ARCH_64BIT` of `linux/audit.h`.
    const WIDE: u32 = 0x8000_0000;
    syscall_info(task).map(|info| Stack { pointer: info.stack_pointer, is_wide: info.arch & WIDE != 0 })
}

/// `PTRACE_GET_SYSCALL_INFO` at a seccomp stop; `None` if the task stands elsewhere.
pub(crate) fn syscall_entry(task: i32) -> Result<Option<SyscallEntry>, Errno> {
    let info = syscall_info(task)?;
    if info.op != libc::PTRACE_SYSCALL_INFO_SECCOMP {
        return Ok(None);
    }
    // SAFETY: ptrace(2): `op` says that the union holds `seccomp`; all of its members are integers anyway.
    let seccomp = unsafe { info.u.seccomp };
    Ok(Some(SyscallEntry {
        arch: info.arch,
        number: seccomp.nr,
        arguments: seccomp.args,
        instruction: info.instruction_pointer,
        data: seccomp.ret_data,
        stack: Some(info.stack_pointer),
    }))
}

/// True if `task` stands where it was heard of last, and not where another thread has executed something and has its number. Since Linux
/// 5.13 the kernel itself tells them apart (`looks_like_a_spurious_pid` in `kernel/ptrace.c`).
pub(crate) fn stands_still(task: i32) -> bool {
    let has_executed = || {
        nix::sys::ptrace::getsiginfo(Pid::from_raw(task))
            .map_or(true, |info| info.si_code >> 8 == libc::PTRACE_EVENT_EXEC)
    };
    syscall_info(task).is_ok_and(|info| info.op != libc::PTRACE_SYSCALL_INFO_NONE || !has_executed())
}

/// What a call returned, at its exit; `None` for an error, or if the task stands elsewhere.
pub(crate) fn syscall_result(task: i32) -> Result<Option<i64>, Errno> {
    let info = syscall_info(task)?;
    if info.op != libc::PTRACE_SYSCALL_INFO_EXIT {
        return Ok(None);
    }
    // SAFETY: ptrace(2): `op` says that the union holds `exit`; all of its members are integers anyway.
    let exit = unsafe { info.u.exit };
    Ok((exit.is_error == 0).then_some(exit.sval))
}

/// True if `task` stands at the exit of a call that the kernel says it does not have.
pub(crate) fn has_no_such_call(task: i32) -> bool {
    let Ok(info) = syscall_info(task) else { return false };
    // SAFETY: ptrace(2): `op` says that the union holds `exit`; all of its members are integers anyway.
    let exit = unsafe { info.u.exit };
    info.op == libc::PTRACE_SYSCALL_INFO_EXIT && exit.is_error != 0 && exit.sval == -i64::from(libc::ENOSYS)
}

/// By hand: nix 0.30.1 passes a size of 0 and returns uninitialised memory (nix issue 2660).
fn syscall_info(task: i32) -> Result<libc::ptrace_syscall_info, Errno> {
    let mut info = MaybeUninit::<libc::ptrace_syscall_info>::zeroed();
    let size = size_of::<libc::ptrace_syscall_info>();
    // SAFETY: the kernel writes at most `size` bytes to `info`, which has that size.
    let result = unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, task, size, info.as_mut_ptr()) };
    Errno::result(result)?;
    // SAFETY: all bytes were zeroed, which is a value of this struct of integers, and the kernel wrote more of them.
    Ok(unsafe { info.assume_init() })
}

/// A copy of `descriptor` of another task (`pidfd_getfd(2)`), which is one of `process`. Before Linux 6.9, of the process: its
/// threads have the same descriptors, unless one has said that it wants its own.
pub(crate) fn copy_descriptor(process: i32, task: i32, descriptor: i32) -> Result<OwnedFd, Errno> {
    // pidfd_open(2), PIDFD_THREAD.
    let (number, flags) = if task == process { (process, 0) } else { (task, libc::O_EXCL) };
    // SAFETY: pidfd_open takes numbers alone.
    let open = |number: i32, flags: i32| Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, number, flags) });
    let pidfd = match open(number, flags) {
        Err(Errno::EINVAL) => open(process, 0)?,
        result => result?,
    };
    // SAFETY: the kernel has just made this descriptor for us, and nobody else has it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd as i32) };
    // SAFETY: pidfd_getfd takes numbers alone.
    let copy = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), descriptor, 0) })?;
    // SAFETY: as above.
    Ok(unsafe { OwnedFd::from_raw_fd(copy as i32) })
}

/// The type of a socket (`SOCK_STREAM`, `SOCK_DGRAM`) and the internet port that it is bound to, if any.
pub(crate) fn socket_port(socket: BorrowedFd<'_>) -> Result<(i32, Option<u16>), Errno> {
    let kind = socket_option(socket, libc::SO_TYPE).map(i32::from_ne_bytes)?;
    let mut address = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: `address` has `length` bytes, more than any address needs.
    Errno::result(unsafe { libc::getsockname(socket.as_raw_fd(), address.as_mut_ptr().cast(), &raw mut length) })?;
    let bytes = address.as_ptr().cast::<[u8; 4]>();
    // SAFETY: the storage was zeroed and is longer than four bytes, of which every value is valid.
    let [a, b, high, low] = unsafe { bytes.read() };
    let family = i32::from(u16::from_ne_bytes([a, b]));
    let port = u16::from_be_bytes([high, low]);
    let internet = family == libc::AF_INET || family == libc::AF_INET6;
    Ok((kind, (internet && port != 0).then_some(port)))
}

/// A number that no other socket ever has (`SO_COOKIE` of `socket(7)`).
pub(crate) fn socket_cookie(socket: BorrowedFd<'_>) -> Result<u64, Errno> {
    socket_option(socket, libc::SO_COOKIE).map(u64::from_ne_bytes)
}

/// The bytes of a socket's option, which has so many.
fn socket_option<const LENGTH: usize>(socket: BorrowedFd<'_>, option: i32) -> Result<[u8; LENGTH], Errno> {
    let mut value = [0u8; LENGTH];
    let mut length = LENGTH as libc::socklen_t;
    let at = value.as_mut_ptr().cast();
    // SAFETY: `value` and `length` are valid places, and `length` is the size of `value`.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, at, &raw mut length) };
    Errno::result(result).map(|_| value)
}

/// True if there is something to read.
pub(crate) fn has_input(descriptor: BorrowedFd<'_>) -> bool {
    let mut wait = libc::pollfd { fd: descriptor.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd; it does not wait.
    unsafe { libc::poll(&raw mut wait, 1, 0) == 1 && wait.revents & libc::POLLIN != 0 }
}

/// What a call returns inside the kernel that is to begin anew, whatever handler runs before it (`include/linux/errno.h`).
pub(crate) const ERESTARTNOINTR: i32 = 513;

/// Waits until `child`, a process that this thread has started, is gone.
pub(crate) fn reap(child: i32) {
    // SAFETY: waitpid may be told nothing about the status.
    while unsafe { libc::waitpid(child, ptr::null_mut(), libc::__WALL | libc::__WNOTHREAD) } < 0
        && Errno::last() == Errno::EINTR
    {}
}

/// Sends `signal` to a process; an error means that it is gone.
pub(crate) fn kill(process: i32, signal: i32) {
    // SAFETY: kill takes numbers alone.
    unsafe { libc::kill(process, signal) };
}

/// `PTRACE_KILL`: asks nobody whether this process may (`ptrace_request` in `kernel/ptrace.c`); before Linux 5.19 it reaches
/// only a task that stands still.
pub(crate) fn kill_traced(task: i32) {
    // It fails if the task is gone.
    let _ = request(libc::PTRACE_KILL, task, 0);
}

/// Sends `signal` to a thread of this process.
pub(crate) fn kill_thread(thread: libc::pthread_t, signal: i32) {
    // SAFETY: the caller holds the thread's join handle, so the thread has not been reaped.
    unsafe { libc::pthread_kill(thread, signal) };
}

/// Ends this process at once.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: _exit takes a number and runs nothing.
    unsafe { libc::_exit(status) }
}
