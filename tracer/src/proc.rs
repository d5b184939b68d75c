//! What the kernel says of tasks and of itself in files that it writes as they are read (`proc(5)`, `sysfs(5)`).
//!
//! In: a task, or a path of such a file, or what is open there. Out: what is said, or nothing if it cannot be read. Where a link of
//! `/proc` leads is for [`door`](crate::door) to say.

use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, readlink};
use nix::sys::stat::{FileStat, Mode, major, minor, stat};
use nix::sys::uio::pread;

use crate::look;

/// All of a file of /proc or /sys.
pub(crate) fn fs_read(path: &str) -> Option<Vec<u8>> {
    read_whole(open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()?)
}

/// All of a file of /proc or /sys, from its beginning.
pub(crate) fn read_whole(file: impl AsFd) -> Option<Vec<u8>> {
    // Not `read_to_end`: it asks for a size, which these files do not have, and feels its way in small pieces.
    let mut bytes = vec![0; PIECE];
    let mut length = 0;
    loop {
        match pread(&file, &mut bytes[length..], length as libc::off_t) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
        if bytes.len() - length < PIECE / 2 {
            bytes.resize(bytes.len() + PIECE, 0);
        }
    }
    bytes.truncate(length);
    Some(bytes)
}

/// What the files of /proc that are read here rarely exceed.
const PIECE: usize = 8192;

/// Where the path by which `process` was executed stands in its memory: behind the environment, whose end is field 51 of
/// `/proc/pid/stat` (`proc(5)`; `fs/exec.c`, `do_execveat_common`, has it copied before everything else).
pub(crate) fn executed_path(process: i32) -> Option<u64> {
    field_of_stat(process, 51)
}

/// True if `task` has ended, and its end is not told yet: of a process's first thread it is once all others have ended, too
/// (`kernel/exit.c`, `delay_group_leader`).
pub(crate) fn is_zombie(task: i32) -> bool {
    field_of_stat(task, 3) == Some('Z')
}

/// A field of `/proc/pid/stat` from the third on, by its number in `proc(5)`.
fn field_of_stat<T: std::str::FromStr>(task: i32, number: usize) -> Option<T> {
    let stat = fs_read(&format!("/proc/{task}/stat"))?;
    // The second field is a name in parentheses, which may have any byte in it.
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    std::str::from_utf8(&stat[end + 1..]).ok()?.split_ascii_whitespace().nth(number - 3)?.parse().ok()
}

/// The flags with which a descriptor of `task` is open (`proc(5)`, `/proc/pid/fdinfo`).
pub(crate) fn open_flags(task: i32, descriptor: i32) -> Option<u64> {
    let text = fs_read(&format!("/proc/{task}/fdinfo/{descriptor}"))?;
    u64::from_str_radix(field(&text, "flags:")?, 8).ok()
}

/// The process of which `task` has a pidfd open at `descriptor`; `None` if that is something else (`pidfd_open(2)`, `/proc/pid/fdinfo`).
pub(crate) fn process_at(task: i32, descriptor: i32) -> Option<i32> {
    number(&fs_read(&format!("/proc/{task}/fdinfo/{descriptor}"))?, "Pid:")
}

/// True if `/proc` is there and numbers tasks as this process does. Without one nothing is to be seen of any task, and in another pid
/// namespace's its numbers are those of strangers.
pub(crate) fn shows_tasks() -> bool {
    let own = nix::unistd::getpid().to_string();
    readlink("/proc/self").is_ok_and(|number| number.as_bytes() == own.as_bytes())
}

/// What leads to the mount namespace of `task`, and stands for it (`namespaces(7)`).
pub(crate) fn namespace_door(task: i32) -> String {
    format!("/proc/{task}/ns/mnt")
}

/// The number of the mount namespace of `task` (`mount_namespaces(7)`).
pub(crate) fn namespace(task: i32) -> Result<u64, Errno> {
    Ok(stat(namespace_door(task).as_str())?.st_ino)
}

/// The process of `task` and the process that made it (`proc(5)`, `/proc/pid/status`); `None` if the task is gone.
pub(crate) fn family(task: i32) -> Option<(i32, i32)> {
    let status = fs_read(&format!("/proc/{task}/status"))?;
    Some((number(&status, "Tgid:")?, number(&status, "PPid:")?))
}

/// The number that `task` has in the `/proc` at `root`, which may be another pid namespace's than the tracer's; `None` if it is not to
/// be seen there, or the tracer is not told.
pub(crate) fn number_in(root: &str, task: i32) -> Option<i32> {
    let numbers = |directory: String| {
        let status = fs_read(&format!("{directory}/status"))?;
        let numbers = field(&status, "NSpid:")?.split_ascii_whitespace();
        Some(numbers.filter_map(|number| number.parse().ok()).collect::<Vec<i32>>())
    };
    // proc(5), `NSpid` of /proc/pid/status: from the pid namespace of that /proc down to the task's own.
    let own = format!("/proc/{task}");
    let all = numbers(own.clone())?;
    // Of two tasks with the same numbers from somewhere down, the last is that of two namespaces.
    let space = |directory: &str| stat(format!("{directory}/ns/pid").as_str()).map(|space| space.st_ino);
    let is_it = |&index: &usize| {
        let there = format!("{root}/{}", all[index]);
        space(&there) == space(&own) && numbers(there).is_some_and(|numbers| numbers == all[index..])
    };
    (0..all.len()).find(is_it).map(|index| all[index])
}

/// True if `task` looks at files as another user than this process does (`proc(5)`, the last of `Uid` of `/proc/pid/status`).
pub(crate) fn is_other_user(task: i32) -> bool {
    let status = fs_read(&format!("/proc/{task}/status")).unwrap_or_default();
    last(&status, "Uid:") != Some(nix::unistd::geteuid().as_raw())
}

/// True if `task` waits in another call than that of this number (`proc(5)`, `/proc/pid/syscall`). One that runs may be in any.
pub(crate) fn is_elsewhere(task: i32, number: u64) -> bool {
    let text = fs_read(&format!("/proc/{task}/syscall")).unwrap_or_default();
    let first = text.split(u8::is_ascii_whitespace).next();
    let waits_in = first.and_then(|first| std::str::from_utf8(first).ok()?.parse::<i64>().ok());
    waits_in.is_some_and(|other| u64::try_from(other) != Ok(number))
}

/// The task that traces `process`, 0 if none does; `None` if the process is gone.
pub(crate) fn tracer_of(process: i32) -> Option<i32> {
    number(&fs_read(&format!("/proc/{process}/status"))?, "TracerPid:")
}

/// True if `process` ignores `signal` (`proc(5)`, `SigIgn` of `/proc/pid/status`).
pub(crate) fn ignores(process: i32, signal: i32) -> bool {
    has_signal(&fs_read(&format!("/proc/{process}/status")).unwrap_or_default(), "SigIgn:", signal)
}

/// What a signal is to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hearing {
    /// It has a handler.
    Caught,
    /// It is ignored, or is so unless somebody wants it (`signal(7)`).
    None,
    /// It ends the task, or stops it.
    Suffered,
}

/// What `signal` is to `task` (`proc(5)`, `SigCgt` and `SigIgn` of `/proc/pid/status`).
pub(crate) fn hearing(task: i32, signal: i32) -> Hearing {
    let status = fs_read(&format!("/proc/{task}/status")).unwrap_or_default();
    let is_harmless = matches!(signal, libc::SIGCHLD | libc::SIGURG | libc::SIGWINCH | libc::SIGCONT);
    if has_signal(&status, "SigCgt:", signal) {
        Hearing::Caught
    } else if is_harmless || has_signal(&status, "SigIgn:", signal) {
        Hearing::None
    } else {
        Hearing::Suffered
    }
}

/// True if `task` is of the first process of a pid namespace other than the first of all (`proc(5)`, `NStgid` of `/proc/pid/status`).
pub(crate) fn is_first(task: i32) -> bool {
    let status = fs_read(&format!("/proc/{task}/status")).unwrap_or_default();
    let numbers = field(&status, "NStgid:").unwrap_or_default();
    numbers.split_ascii_whitespace().count() > 1 && numbers.split_ascii_whitespace().last() == Some("1")
}

fn has_signal(status: &[u8], name: &str, signal: i32) -> bool {
    let mask = field(status, name).and_then(|mask| u64::from_str_radix(mask, 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// A number in `/proc/pid/status`.
fn number(status: &[u8], name: &str) -> Option<i32> {
    field(status, name)?.parse().ok()
}

/// The last of the numbers that stand behind a name in `/proc/pid/status`.
fn last<T: std::str::FromStr>(status: &[u8], name: &str) -> Option<T> {
    field(status, name)?.split_ascii_whitespace().last()?.parse().ok()
}

/// What stands behind a name in a file of `/proc` that has one on each line.
fn field<'a>(text: &'a [u8], name: &str) -> Option<&'a str> {
    let line = text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(name.as_bytes()))?;
    Some(std::str::from_utf8(line).ok()?.trim())
}

/// True if `stat` is of the "misc" device of this name (`Documentation/admin-guide/devices.txt`, major 10), or of another one where
/// `/proc/misc` does not tell.
pub(crate) fn may_be_device(stat: &FileStat, name: &str) -> bool {
    const MISC: u64 = 10;
    if stat.st_mode & libc::S_IFMT != libc::S_IFCHR || major(stat.st_rdev) != MISC {
        return false;
    }
    let Some(text) = fs_read("/proc/misc") else { return true };
    let text = String::from_utf8_lossy(&text);
    let mut devices = text.lines().filter_map(|line| line.trim().split_once(' '));
    devices.any(|(number, other)| other == name && number.parse() == Ok(minor(stat.st_rdev)))
}

/// The number of perf events that probe a program, if this kernel has them (`perf_event_open(2)`).
///
/// # Errors
/// The tracer may not know.
pub(crate) fn probe_kind() -> Result<Option<u32>, Errno> {
    let directory = "/sys/bus/event_source/devices";
    let text = fs_read(&format!("{directory}/uprobe/type"));
    match text.and_then(|text| std::str::from_utf8(&text).ok()?.trim().parse().ok()) {
        Some(kind) => Ok(Some(kind)),
        None => look::lstat(directory.as_bytes()).map(|_| None),
    }
}

/// True if the kernel may give `port` to who asks for any (`ip(7)`, `ip_local_port_range`), or if it does not say.
pub(crate) fn may_be_given(port: u16) -> bool {
    let text = fs_read("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let bounds: Vec<u16> = text.split_ascii_whitespace().filter_map(|bound| bound.parse().ok()).collect();
    !matches!(bounds[..], [first, last] if !(first..=last).contains(&port))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn what_was_executed_stands_behind_the_environment() {
        let own = nix::unistd::getpid().as_raw();
        let mut path = Vec::new();
        crate::memory::read_string(own, executed_path(own).unwrap(), &mut path).unwrap();
        assert_eq!(stat(path.as_slice()).unwrap().st_ino, stat("/proc/self/exe").unwrap().st_ino);
    }

    #[test]
    fn flags_of_what_is_open() {
        let file = open("/dev/null", OFlag::O_WRONLY, Mode::empty()).unwrap();
        let flags = open_flags(nix::unistd::getpid().as_raw(), file.as_raw_fd()).unwrap();
        assert_eq!(flags & libc::O_ACCMODE as u64, libc::O_WRONLY as u64);
        assert_eq!(open_flags(nix::unistd::getpid().as_raw(), -1), None);
    }
}
