//! From a call and its arguments to what it asks for. Pure, but for the memory that it is given.

use crate::bpf;
use crate::calls::{Abi, At, Call, Kind, Links, Purpose};
use crate::event::{Access, Account, Gap};
use crate::filter::{BPF_LINK_CREATE, BPF_OBJ_PIN, CLONE_NEWNS, CLONE_UNTRACED, FSCONFIG_SET_STRING};
use crate::memory::Unread;

/// A call as it stands at its entry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    /// Of the call, in its interface.
    pub(crate) number: u64,
    pub(crate) abi: Abi,
    pub(crate) call: &'static Call,
    pub(crate) arguments: [u64; 6],
}

/// Something that a call asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A path in memory.
    Path { from: From, address: u64, access: Access, follow: bool },
    /// A path that was read with the call's arguments: a socket's.
    Inline { path: Vec<u8>, access: Access, follow: bool },
    /// What is open at a descriptor.
    Descriptor { descriptor: i32, access: Access },
    /// A user or a group whom the task becomes, or gives something to.
    Account(Account),
    /// A socket that takes connections.
    Listen { descriptor: i32 },
    /// A socket that is bound to an internet port.
    BindPort { descriptor: i32, port: u16 },
    /// A socket whose only peer is to be at an internet port from now on.
    ConnectPort { descriptor: i32, port: u16 },
    /// `clone` and `clone3` must lose `CLONE_UNTRACED`: `flags` are in memory, or in the first argument.
    Retrace { address: Option<u64>, flags: u64 },
    /// The call is to be answered with ENOSYS, and counted.
    Refuse(Gap),
    /// The task gets a descriptor from another process, which may be in another mount namespace.
    TakenDescriptor,
    /// The task, or the child that it makes, may see other files from now on.
    MountNamespace,
    /// The task may have a descriptor of a mount that is in no namespace.
    DetachedMount,
    /// A file by handle: the descriptor of something on its filesystem, and where the handle is.
    Handle { mount: i32, address: u64, access: Access },
    /// A perf event of a kind that the machine has a name for: if that is `uprobe`, this is a path in memory.
    Probe { kind: u32, address: u64 },
    /// What is mounted: a path in memory, unless these flags, or a kind of this name, which is in memory, make it a mere word.
    MountSource { address: u64, kind: u64, flags: u64 },
    /// The options of a mount of some kind: both are strings in memory.
    MountOptions { kind: u64, options: u64 },
    /// One option of a mount, and its value: both are strings in memory.
    MountOption { name: u64, value: u64 },
    /// The program may fill memory itself when it is read.
    FilledMemory,
    /// The program may write into the memory of other processes.
    WrittenMemory,
    /// The call is to be counted, and made: it lets things happen that nobody sees.
    Unseen(Gap),
    /// The same, unless the kernel refuses it.
    UnseenIfMade(Gap),
    /// A seccomp filter of the program's own, as it stands in memory, with these flags (`SECCOMP_FILTER_FLAG_*`).
    Filter { text: Vec<u8>, flags: u64 },
    /// ptrace by the program itself.
    Nested,
}

impl Asked {
    /// A look at the path at `address`, from the working directory.
    pub(crate) fn look(address: u64) -> Self {
        Self::Path { from: From::WorkingDirectory, address, access: Access::Look, follow: true }
    }
}

/// What a relative path is relative to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum From {
    WorkingDirectory,
    Descriptor(i32),
    /// `RESOLVE_IN_ROOT`: the descriptor, or the working directory for `AT_FDCWD`, is the root as well.
    Root(i32),
}

/// Reads a task's memory at an address into a buffer.
pub(crate) type Memory<'a> = dyn Fn(u64, &mut [u8]) -> Result<(), Unread> + 'a;

const AT_EMPTY_PATH: u64 = 0x1000;
const OPEN_TREE_CLONE: u64 = 1;
const RESOLVE_IN_ROOT: u64 = 0x10;
/// `AT_EXECVE_CHECK` of `execveat(2)`, since Linux 6.14.
const AT_EXECVE_CHECK: u64 = 0x10000;
/// `FAN_CLASS_CONTENT` and `FAN_CLASS_PRE_CONTENT` of `fanotify_init(2)`.
const FAN_CLASSES: u64 = 0x4 | 0x8;
/// `FAN_REPORT_FID` and `FAN_REPORT_DIR_FID` of `fanotify_init(2)`, without which there is none of the others.
const FAN_REPORTS: u64 = 0x200 | 0x400;
const BPF_F_PATH_FD: u64 = 1 << 14;
/// `BPF_TRACE_UPROBE_MULTI` and `BPF_TRACE_UPROBE_SESSION` of `include/uapi/linux/bpf.h`.
const UPROBES: [u64; 2] = [48, 57];
/// `include/uapi/linux/quota.h`; the lower eight bits of a command are the quota's type.
const Q_QUOTAON: u32 = 0x0080_0002;
/// `include/uapi/linux/perf_event.h`: from here on, kinds are numbered as the kernel starts.
const PERF_TYPE_MAX: u32 = 6;
const SECCOMP_FILTER_FLAG_NEW_LISTENER: u64 = 1 << 3;
/// glibc, like the kernel's `UIO_MAXIOV`: no call takes more messages.
const MESSAGES: u64 = 1024;

/// Tells `ask` everything that the call asks for.
///
/// # Errors
/// The memory that holds a part of the arguments cannot be read.
pub(crate) fn decode(entry: &Entry, memory: &Memory<'_>, ask: &mut dyn FnMut(Asked)) -> Result<(), Unread> {
    let arguments = &entry.arguments;
    match &entry.call.kind {
        Kind::Paths(paths) => {
            if entry.call.name == "mount" {
                let [address, _, kind, flags, ..] = *arguments;
                ask(Asked::MountSource { address, kind, flags });
            }
            for path in *paths {
                let follow = match path.links {
                    Links::Follow => true,
                    Links::Keep => false,
                    Links::KeepIf { flags, bit } => arguments[flags] & bit == 0,
                    Links::FollowIf { flags, bit } => arguments[flags] & bit != 0,
                };
                ask(at(path.at, arguments, path.access, follow));
                if path.access == Access::Attributes {
                    accounts(entry, ask);
                }
            }
            if entry.call.name.starts_with("open_tree") && arguments[2] & OPEN_TREE_CLONE != 0 {
                ask(Asked::DetachedMount);
            }
            if entry.call.name == "mount" {
                ask(Asked::MountOptions { kind: arguments[2], options: arguments[4] });
            }
        }
        Kind::Open { at: place, flags } => {
            let (access, follow) = open(arguments[*flags]);
            ask(at(*place, arguments, access, follow));
        }
        Kind::OpenHow => {
            let how = how(entry, memory)?;
            let (access, follow) = open(word(&how, 0));
            let directory = descriptor(arguments[0]);
            let in_root = word(&how, 16) & RESOLVE_IN_ROOT != 0;
            let from = if in_root { From::Root(directory) } else { from(directory) };
            ask(Asked::Path { from, address: arguments[1], access, follow });
        }
        Kind::Exec { at: place, flags } => {
            let flags = flags.map_or(0, |flags| arguments[flags]);
            let follow = flags & u64::from(libc::AT_SYMLINK_NOFOLLOW.cast_unsigned()) == 0;
            // It is opened, and nothing is run, no interpreter either.
            let access = if flags & AT_EXECVE_CHECK == 0 { Access::Execute } else { Access::Read };
            ask(at(*place, arguments, access, follow));
        }
        Kind::Listing => ask(Asked::Descriptor { descriptor: descriptor(arguments[0]), access: Access::List }),
        Kind::Fchdir => ask(Asked::Descriptor { descriptor: descriptor(arguments[0]), access: Access::Enter }),
        Kind::Attributes => {
            ask(Asked::Descriptor { descriptor: descriptor(arguments[0]), access: Access::Attributes });
            accounts(entry, ask);
        }
        Kind::Identity => accounts(entry, ask),
        Kind::Groups => groups(entry, memory, ask)?,
        Kind::Address { address: index, purpose } => {
            let address = (arguments[*index], arguments[*index + 1]);
            socket_address(descriptor(arguments[0]), address, *purpose, memory, ask)?;
        }
        Kind::Message => message(entry.abi, descriptor(arguments[0]), arguments[1], memory, ask)?,
        Kind::Messages => {
            let stride = if entry.abi == Abi::I386 { 32 } else { 64 };
            for index in 0..arguments[2].min(MESSAGES) {
                message(entry.abi, descriptor(arguments[0]), arguments[1] + index * stride, memory, ask)?;
            }
        }
        Kind::Socketcall => socketcall(arguments, memory, ask)?,
        Kind::Listen => ask(Asked::Listen { descriptor: descriptor(arguments[0]) }),
        Kind::Fsconfig if arguments[1] as u32 == FSCONFIG_SET_STRING => {
            ask(Asked::MountOption { name: arguments[2], value: arguments[3] });
        }
        Kind::Fsconfig => ask(Asked::Path {
            from: from(descriptor(arguments[4])),
            address: arguments[3],
            access: Access::Mount,
            follow: true,
        }),
        Kind::Fsmount => ask(Asked::DetachedMount),
        Kind::FilledMemory => ask(Asked::FilledMemory),
        Kind::WrittenMemory => ask(Asked::WrittenMemory),
        Kind::Quotactl => {
            ask(Asked::look(arguments[1]));
            // quotactl(2), Q_QUOTAON: the address is that of the quota file's path.
            if (arguments[0] as u32) >> 8 == Q_QUOTAON {
                ask(Asked::look(arguments[3]));
            }
        }
        Kind::Clone => clone(arguments[0], None, ask),
        Kind::Clone3 => {
            let mut flags = [0; 8];
            memory(arguments[0], &mut flags)?;
            clone(word(&flags, 0), Some(arguments[0]), ask);
        }
        Kind::IoUring => ask(Asked::Refuse(Gap::IoUring)),
        Kind::Fanotify if arguments[0] & FAN_CLASSES != 0 => ask(Asked::Refuse(Gap::Fanotify)),
        Kind::Fanotify if hands_out_writable(arguments) => ask(Asked::UnseenIfMade(Gap::FanotifyWrite)),
        Kind::Fanotify => {}
        Kind::TakeDescriptor => ask(Asked::TakenDescriptor),
        Kind::OpenByHandle => {
            let (access, _) = open(arguments[2]);
            ask(Asked::Handle { mount: descriptor(arguments[0]), address: arguments[1], access });
        }
        Kind::Ptrace => ask(Asked::Nested),
        // Without a filter it is a question whether the kernel knows the flags.
        Kind::Seccomp if arguments[0] as u32 == libc::SECCOMP_SET_MODE_FILTER && arguments[2] != 0 => {
            if arguments[1] & SECCOMP_FILTER_FLAG_NEW_LISTENER != 0 {
                ask(Asked::Unseen(Gap::Supervisor));
            }
            ask(Asked::Filter { text: filter(entry, memory)?, flags: arguments[1] });
        }
        Kind::Seccomp => {}
        // PR_SET_SECCOMP(2const).
        Kind::Prctl if arguments[1] == u64::from(libc::SECCOMP_MODE_FILTER) => {
            ask(Asked::Filter { text: filter(entry, memory)?, flags: 0 });
        }
        Kind::Prctl | Kind::Reap { .. } => {}
        Kind::Namespace => {
            // unshare(flags), setns(fd, nstype).
            let flags = if entry.call.name == "unshare" { arguments[0] } else { arguments[1] };
            if flags & CLONE_NEWNS != 0 || (entry.call.name == "setns" && flags as u32 == 0) {
                ask(Asked::MountNamespace);
            }
        }
        Kind::PerfEvent => {
            // struct perf_event_attr of the first version: kind, size, ..., and the path in the place of `config1`.
            let mut attributes = [0; 64];
            memory(arguments[0], &mut attributes)?;
            let (kind, address) = (half(&attributes, 0) as u32, pointer(entry.abi, &attributes, 56));
            if kind >= PERF_TYPE_MAX && address != 0 {
                ask(Asked::Probe { kind, address });
            }
        }
        Kind::Bpf => {
            let mut attributes = [0; 24];
            let length = usize::try_from(arguments[2]).unwrap_or(0).min(attributes.len());
            memory(arguments[1], &mut attributes[..length])?;
            if arguments[0] as u32 == BPF_LINK_CREATE {
                // Program, target, what it is attached to, flags, and for probes in a program that one's path.
                if UPROBES.contains(&half(&attributes, 8)) {
                    let (from, address) = (From::WorkingDirectory, pointer(entry.abi, &attributes, 16));
                    ask(Asked::Path { from, address, access: Access::Read, follow: true });
                }
                return Ok(());
            }
            // union bpf_attr for BPF_OBJ_PIN and BPF_OBJ_GET: path, program, flags, directory (bpf(2)).
            let has_directory = half(&attributes, 12) & BPF_F_PATH_FD != 0;
            let directory = if has_directory { half(&attributes, 16) as u32 as i32 } else { libc::AT_FDCWD };
            let access = if arguments[0] as u32 == BPF_OBJ_PIN { Access::Create } else { Access::Read };
            let address = pointer(entry.abi, &attributes, 0);
            ask(Asked::Path { from: from(directory), address, access, follow: true });
        }
    }
    Ok(())
}

/// The groups of a list in memory, as long as the kernel takes one (`setgroups(2)`, `NGROUPS_MAX`).
fn groups(entry: &Entry, memory: &Memory<'_>, ask: &mut dyn FnMut(Asked)) -> Result<(), Unread> {
    const MOST: usize = 1 << 16;
    let [count, address, ..] = entry.arguments;
    let width = if entry.call.has_short_ids(entry.abi) { 2 } else { 4 };
    let count = usize::try_from(count as u32 as i32).unwrap_or(0);
    if count == 0 || count > MOST {
        return Ok(());
    }
    let mut list = vec![0; count * width];
    memory(address, &mut list)?;
    for id in list.chunks_exact(width) {
        let id = id.iter().rev().fold(0, |id, &byte| id << 8 | u32::from(byte));
        ask(Asked::Account(Account::Group(id)));
    }
    Ok(())
}

/// The users and groups that a call names; -1 is nobody (`setreuid(2)`, `chown(2)`).
fn accounts(entry: &Entry, ask: &mut dyn FnMut(Asked)) {
    let nobody = if entry.call.has_short_ids(entry.abi) { u32::from(u16::MAX) } else { u32::MAX };
    let (users, groups) = entry.call.ids();
    let id = |&index: &usize| Some(entry.arguments[index] as u32 & nobody).filter(|&id| id != nobody);
    for account in
        users.iter().filter_map(id).map(Account::User).chain(groups.iter().filter_map(id).map(Account::Group))
    {
        ask(Asked::Account(account));
    }
}

/// The `struct open_how` of `openat2(2)`: flags, mode and `RESOLVE_*` flags, a word each.
fn how(entry: &Entry, memory: &Memory<'_>) -> Result<[u8; 24], Unread> {
    let mut how = [0; 24];
    memory(entry.arguments[2], &mut how).map(|()| how)
}

/// The `RESOLVE_*` flags of `openat2(2)`; none where they cannot be read.
pub(crate) fn resolve(entry: &Entry, memory: &Memory<'_>) -> u64 {
    how(entry, memory).map_or(0, |how| word(&how, 16))
}

/// The instructions of the filter that `seccomp` or `prctl` installs: the third argument is the address of a length and of
/// their address (`struct sock_fprog`, and `struct compat_sock_fprog` in `include/linux/filter.h`).
pub(crate) fn filter(entry: &Entry, memory: &Memory<'_>) -> Result<Vec<u8>, Unread> {
    let mut program = [0; 16];
    let address = if entry.abi == Abi::I386 {
        memory(entry.arguments[2], &mut program[..8])?;
        half(&program, 4)
    } else {
        memory(entry.arguments[2], &mut program)?;
        pointer(entry.abi, &program, 8)
    };
    let length = usize::from(u16::from_ne_bytes([program[0], program[1]]));
    if length > bpf::LONGEST {
        return Err(Unread::Refused);
    }
    let mut text = vec![0; length * bpf::INSTRUCTION];
    memory(address, &mut text).map(|()| text)
}

/// True if `fanotify_init(flags, event_f_flags)` makes a group whose events have descriptors of files that can be written to. Events
/// that have handles of them have none (`fanotify(7)`, `FAN_NOFD`).
fn hands_out_writable(arguments: &[u64; 6]) -> bool {
    let mode = arguments[1] as u32 as i32 & libc::O_ACCMODE;
    mode != libc::O_RDONLY && arguments[0] & FAN_REPORTS == 0
}

fn clone(flags: u64, address: Option<u64>, ask: &mut dyn FnMut(Asked)) {
    if flags & CLONE_UNTRACED != 0 {
        ask(Asked::Retrace { address, flags });
    }
    if flags & CLONE_NEWNS != 0 {
        ask(Asked::MountNamespace);
    }
}

fn at(place: At, arguments: &[u64; 6], access: Access, follow: bool) -> Asked {
    let from = place.directory.map_or(From::WorkingDirectory, |index| from(descriptor(arguments[index])));
    Asked::Path { from, address: arguments[place.path], access, follow }
}

fn from(directory: i32) -> From {
    if directory == libc::AT_FDCWD { From::WorkingDirectory } else { From::Descriptor(directory) }
}

/// Descriptors are `int`: the kernel looks at the lower half of the register alone.
fn descriptor(argument: u64) -> i32 {
    argument as u32 as i32
}

/// What `open(2)` does with these flags, and whether it follows a link at the end.
pub(crate) fn open(flags: u64) -> (Access, bool) {
    let flags = flags as u32 as i32;
    let has = |flag: i32| flags & flag == flag;
    // With O_PATH all but three flags are passed over (`fs/open.c`, `build_open_how`).
    let makes = !has(libc::O_PATH) && has(libc::O_CREAT | libc::O_EXCL);
    let follow = !has(libc::O_NOFOLLOW) && !makes;
    let access = if has(libc::O_PATH) || has(libc::O_TMPFILE) {
        Access::Look
    } else if has(libc::O_CREAT) {
        Access::Create
    } else if flags & libc::O_ACCMODE != libc::O_RDONLY || has(libc::O_TRUNC) {
        Access::Write
    } else {
        Access::Read
    };
    (access, follow)
}

/// True if a call that opens a FIFO (`fifo(7)`), or else a device, may wait for whoever is at the other end, as far as its
/// arguments tell.
pub(crate) fn may_wait(entry: &Entry, is_fifo: bool) -> bool {
    let Kind::Open { flags, .. } = entry.call.kind else { return true };
    let flags = entry.arguments[flags] as u32 as i32;
    let has_both_ends = is_fifo && flags & libc::O_ACCMODE == libc::O_RDWR;
    flags & (libc::O_PATH | libc::O_NONBLOCK) == 0 && !has_both_ends
}

/// A socket address: a unix socket's path, or a port.
fn socket_address(
    socket: i32,
    (address, length): (u64, u64),
    purpose: Purpose,
    memory: &Memory<'_>,
    ask: &mut dyn FnMut(Asked),
) -> Result<(), Unread> {
    // unix(7): at most 108 bytes of path behind the family.
    let length = usize::try_from(length & 0xffff_ffff).unwrap_or(0).min(110);
    // The shortest path has one byte, and no NUL (unix(7), "pathname sockets").
    if address == 0 || length < 3 {
        return Ok(());
    }
    let mut bytes = [0; 110];
    memory(address, &mut bytes[..length])?;
    match i32::from(u16::from_ne_bytes([bytes[0], bytes[1]])) {
        libc::AF_UNIX => {
            let path = bytes[2..length].split(|&byte| byte == 0).next().unwrap_or_default();
            // An empty one is an abstract name: no file.
            if !path.is_empty() {
                // bind(2) makes the file, as mknod(2) does.
                let (access, follow) =
                    if purpose == Purpose::Bind { (Access::Bind, false) } else { (Access::Connect, true) };
                ask(Asked::Inline { path: path.to_vec(), access, follow });
            }
        }
        libc::AF_INET | libc::AF_INET6 => {
            let port = u16::from_be_bytes([bytes[2], bytes[3]]);
            match purpose {
                Purpose::Bind => ask(Asked::BindPort { descriptor: socket, port }),
                Purpose::Connect => ask(Asked::ConnectPort { descriptor: socket, port }),
                Purpose::Send => {}
            }
        }
        _ => {}
    }
    Ok(())
}

/// `struct msghdr` starts with the address and its length.
fn message(abi: Abi, socket: i32, header: u64, memory: &Memory<'_>, ask: &mut dyn FnMut(Asked)) -> Result<(), Unread> {
    let mut start = [0; 12];
    let address = if abi == Abi::I386 {
        memory(header, &mut start[..8])?;
        (half(&start, 0), half(&start, 4))
    } else {
        memory(header, &mut start)?;
        (pointer(abi, &start, 0), half(&start, 8))
    };
    socket_address(socket, address, Purpose::Send, memory, ask)
}

/// `socketcall(2)`: the call's number, then where its arguments are.
fn socketcall(arguments: &[u64; 6], memory: &Memory<'_>, ask: &mut dyn FnMut(Asked)) -> Result<(), Unread> {
    let read = |count: usize| {
        let mut bytes = [0; 24];
        memory(arguments[1], &mut bytes[..4 * count])?;
        Ok::<_, Unread>([0, 4, 8, 12, 16, 20].map(|offset| half(&bytes, offset)))
    };
    // include/uapi/linux/net.h
    match arguments[0] {
        2 | 3 => {
            let call = read(3)?;
            let purpose = if arguments[0] == 2 { Purpose::Bind } else { Purpose::Connect };
            socket_address(descriptor(call[0]), (call[1], call[2]), purpose, memory, ask)
        }
        4 => {
            ask(Asked::Listen { descriptor: descriptor(read(2)?[0]) });
            Ok(())
        }
        11 => {
            let call = read(6)?;
            socket_address(descriptor(call[0]), (call[4], call[5]), Purpose::Send, memory, ask)
        }
        16 => {
            let call = read(3)?;
            message(Abi::I386, descriptor(call[0]), call[1], memory, ask)
        }
        20 => {
            let call = read(4)?;
            for index in 0..call[2].min(MESSAGES) {
                message(Abi::I386, descriptor(call[0]), call[1] + index * 32, memory, ask)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// True if an empty path stands for the descriptor itself.
pub(crate) fn allows_empty(entry: &Entry) -> bool {
    let flags = match entry.call.name {
        "newfstatat" | "fstatat64" | "faccessat2" | "fchmodat2" | "utimensat" | "utimensat_time64" => {
            entry.arguments[3]
        }
        "statx" | "open_tree" | "open_tree_attr" | "mount_setattr" | "setxattrat" | "getxattrat" | "listxattrat"
        | "removexattrat" => entry.arguments[2],
        "fchownat" | "linkat" | "execveat" | "name_to_handle_at" | "file_getattr" | "file_setattr" => {
            entry.arguments[4]
        }
        // MOVE_MOUNT_F_EMPTY_PATH and MOVE_MOUNT_T_EMPTY_PATH of move_mount(2).
        "move_mount" if entry.arguments[4] & 0x44 != 0 => AT_EMPTY_PATH,
        // readlinkat(2): an empty path is the link that the descriptor refers to.
        "readlinkat" => AT_EMPTY_PATH,
        _ => 0,
    };
    flags & AT_EMPTY_PATH != 0
}

/// True for a call that asks what the real user may do: `access(2)`, which is `faccessat2` with no flag to the contrary.
pub(crate) fn is_by_real_user(entry: &Entry) -> bool {
    match entry.call.name {
        "access" | "faccessat" => true,
        "faccessat2" => entry.arguments[3] & u64::from(libc::AT_EACCESS.cast_unsigned()) == 0,
        _ => false,
    }
}

/// True if no path at all, NULL, stands for the descriptor itself, in a call that changes what is open there.
pub(crate) fn allows_none(entry: &Entry) -> bool {
    match entry.call.name {
        // utimensat(2), "C library/ kernel ABI differences", is futimens(3). It takes no flags then (`fs/utimes.c`, `do_utimes_fd`).
        "utimensat" | "utimensat_time64" => entry.arguments[3] as i32 == 0,
        "futimesat" => true,
        "move_mount" => allows_empty(entry),
        // The younger of them take NULL for an empty path (`fs/namei.c`, `getname_maybe_null`): which, depends on the kernel.
        _ => matches!(entry.call.kind, Kind::Paths([path]) if path.access == Access::Attributes) && allows_empty(entry),
    }
}

fn word(bytes: &[u8], offset: usize) -> u64 {
    u64::from_ne_bytes(bytes[offset..offset + 8].try_into().expect("eight bytes"))
}

/// An address that takes eight bytes.
fn pointer(abi: Abi, bytes: &[u8], offset: usize) -> u64 {
    abi.untagged(word(bytes, offset))
}

fn half(bytes: &[u8], offset: usize) -> u64 {
    u64::from(u32::from_ne_bytes(bytes[offset..offset + 4].try_into().expect("four bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::CALLS;
    use crate::filter::ABIS;

    /// Memory with `bytes` at 0x1000.
    fn ask(name: &str, abi: Abi, arguments: [u64; 6], bytes: &[u8]) -> Vec<Asked> {
        let call = CALLS.iter().find(|call| call.name == name).unwrap();
        let memory = |address: u64, buffer: &mut [u8]| {
            let start = usize::try_from(address.checked_sub(0x1000).ok_or(Unread::Refused)?).unwrap();
            buffer.copy_from_slice(bytes.get(start..start + buffer.len()).ok_or(Unread::Refused)?);
            Ok(())
        };
        let mut asked = Vec::new();
        decode(&Entry { number: 0, abi, call, arguments }, &memory, &mut |one| asked.push(one)).unwrap();
        asked
    }

    fn opened(flags: i32) -> (Access, bool) {
        open(u64::from(flags.cast_unsigned()))
    }

    #[test]
    fn for_whom_a_call_asks() {
        let asks = |name: &str, flags: i32| {
            let call = CALLS.iter().find(|call| call.name == name).unwrap();
            let arguments = [0, 0x1000, 0, u64::from(flags.cast_unsigned()), 0, 0];
            is_by_real_user(&Entry { number: 0, abi: ABIS[0].1, call, arguments })
        };
        // What stands where the older calls have no flags is not asked.
        assert!(asks("access", libc::AT_EACCESS) && asks("faccessat", libc::AT_EACCESS) && asks("faccessat2", 0));
        assert!(asks("faccessat2", libc::AT_SYMLINK_NOFOLLOW) && !asks("faccessat2", libc::AT_EACCESS));
        assert!(!asks("newfstatat", 0) && !asks("openat", 0));
    }

    #[test]
    fn open_flags() {
        assert_eq!(opened(libc::O_RDONLY | libc::O_CLOEXEC), (Access::Read, true));
        assert_eq!(opened(libc::O_RDWR), (Access::Write, true));
        assert_eq!(opened(libc::O_RDONLY | libc::O_TRUNC), (Access::Write, true));
        assert_eq!(opened(libc::O_WRONLY | libc::O_CREAT), (Access::Create, true));
        assert_eq!(opened(libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL), (Access::Create, false));
        assert_eq!(opened(libc::O_PATH | libc::O_NOFOLLOW), (Access::Look, false));
        assert_eq!(opened(libc::O_PATH | libc::O_CREAT | libc::O_EXCL), (Access::Look, true));
        assert_eq!(opened(libc::O_TMPFILE | libc::O_RDWR), (Access::Look, true));
        assert_eq!(opened(libc::O_DIRECTORY), (Access::Read, true));
    }

    #[test]
    fn a_negative_descriptor_in_a_wide_register() {
        let asked = ask("openat", Abi::X86_64, [0xffff_ff9c, 0x1000, 0, 0, 0, 0], b"");
        assert!(matches!(asked[..], [Asked::Path { from: From::WorkingDirectory, .. }]));
    }

    #[test]
    fn unix_addresses() {
        let address = [&[1, 0][..], b"/run/x.sock\0junk"].concat();
        let asked = ask("connect", Abi::X86_64, [3, 0x1000, address.len() as u64, 0, 0, 0], &address);
        assert_eq!(asked, [Asked::Inline { path: b"/run/x.sock".to_vec(), access: Access::Connect, follow: true }]);
        let hidden = [&[1, 0, 0][..], b"abstract"].concat();
        assert_eq!(ask("connect", Abi::X86_64, [3, 0x1000, hidden.len() as u64, 0, 0, 0], &hidden), []);
    }

    #[test]
    fn ports() {
        let address = [2, 0, 0x1f, 0x90, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(
            ask("bind", Abi::X86_64, [3, 0x1000, 16, 0, 0, 0], &address),
            [Asked::BindPort { descriptor: 3, port: 8080 }]
        );
        assert_eq!(
            ask("connect", Abi::X86_64, [3, 0x1000, 16, 0, 0, 0], &address),
            [Asked::ConnectPort { descriptor: 3, port: 8080 }]
        );
        assert_eq!(ask("sendto", Abi::X86_64, [3, 0, 0, 0, 0x1000, 16], &address), []);
    }

    #[test]
    fn an_int_in_a_wide_register() {
        assert_eq!(ask("setns", Abi::X86_64, [3, 1 << 32, 0, 0, 0, 0], b""), [Asked::MountNamespace]);
        let flags = SECCOMP_FILTER_FLAG_NEW_LISTENER;
        let empty = [0, 0x1000].map(u64::to_ne_bytes).concat();
        let asked = ask("seccomp", Abi::X86_64, [1 << 32 | 1, flags, 0x1000, 0, 0, 0], &empty);
        assert_eq!(asked, [Asked::Unseen(Gap::Supervisor), Asked::Filter { text: vec![], flags }]);
        // Whether the kernel knows the flag.
        assert_eq!(ask("seccomp", Abi::X86_64, [1, flags, 0, 0, 0, 0], b""), []);
    }

    #[test]
    fn filters_of_both_widths() {
        let filter = [6, 0, 0, 0, 7, 0, 0xf0, 0x7f];
        let own = [&[1, 0, 0, 0, 0, 0, 0, 0][..], &0x1010u64.to_ne_bytes(), &filter].concat();
        let narrow = [&[1, 0, 0xff, 0xff][..], &0x1008u32.to_ne_bytes(), &filter].concat();
        for (abi, memory) in [(Abi::X86_64, own), (Abi::I386, narrow)] {
            let expected = |flags| [Asked::Filter { text: filter.to_vec(), flags }];
            assert_eq!(ask("seccomp", abi, [1, 1, 0x1000, 0, 0, 0], &memory), expected(1));
            assert_eq!(ask("prctl", abi, [22, 2, 0x1000, 0, 0, 0], &memory), expected(0));
            assert_eq!(ask("prctl", abi, [22, 1, 0x1000, 0, 0, 0], &memory), []);
            assert_eq!(ask("seccomp", abi, [0, 0, 0, 0, 0, 0], &memory), []);
        }
    }

    #[test]
    fn files_that_are_handed_out_by_fanotify() {
        const UNSEEN: [Asked; 1] = [Asked::UnseenIfMade(Gap::FanotifyWrite)];
        const REFUSED: [Asked; 1] = [Asked::Refuse(Gap::Fanotify)];
        let init = |class: u64, mode: i32| {
            ask("fanotify_init", Abi::X86_64, [class, u64::from(mode.cast_unsigned()), 0, 0, 0, 0], b"")
        };
        assert_eq!(init(0, libc::O_RDONLY | libc::O_CLOEXEC), []);
        assert_eq!(init(0, libc::O_RDWR), UNSEEN);
        assert_eq!(init(0x3, libc::O_WRONLY | libc::O_APPEND), UNSEEN);
        assert_eq!(init(0x4, libc::O_RDWR), REFUSED);
        assert_eq!(init(0x8, libc::O_RDONLY), REFUSED);
        // FAN_REPORT_DFID_NAME: handles and names.
        assert_eq!(init(0xc00, libc::O_RDWR), []);
    }

    #[test]
    fn users_and_groups_whom_a_call_names() {
        use Account::{Group, User};
        let named = |call: &str, abi, arguments: [u64; 6]| -> Vec<Account> {
            let asked = ask(call, abi, arguments, b"/x\0");
            asked
                .iter()
                .filter_map(|asked| if let Asked::Account(account) = asked { Some(*account) } else { None })
                .collect()
        };
        let nobody = u64::from(u32::MAX);
        assert_eq!(named("setuid", Abi::X86_64, [1000, 7, 7, 7, 7, 7]), [User(1000)]);
        assert_eq!(named("setresuid", Abi::X86_64, [nobody, 1000, u64::MAX, 7, 7, 7]), [User(1000)]);
        assert_eq!(named("setregid", Abi::Aarch64, [1000, 27, 7, 7, 7, 7]), [Group(1000), Group(27)]);
        assert_eq!(named("setuid", Abi::I386, [0xffff, 7, 7, 7, 7, 7]), []);
        assert_eq!(named("setuid32", Abi::I386, [0xffff, 7, 7, 7, 7, 7]), [User(0xffff)]);
        assert_eq!(named("chown", Abi::I386, [0x1000, 1000, 0xffff, 7, 7, 7]), [User(1000)]);
        assert_eq!(named("fchown", Abi::X86_64, [3, nobody, 27, 7, 7, 7]), [Group(27)]);
        assert_eq!(named("fchownat", Abi::X86_64, [3, 0x1000, 1000, 27, 0, 7]), [User(1000), Group(27)]);
        let groups = |abi, count| {
            let asked = ask("setgroups", abi, [count, 0x1000, 7, 7, 7, 7], &[27, 0, 0, 0, 0xe8, 3, 0, 0]);
            asked.into_iter().map(|asked| format!("{asked:?}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(groups(Abi::X86_64, 2), "Account(Group(27)) Account(Group(1000))");
        assert_eq!(groups(Abi::I386, 1), "Account(Group(27))");
        assert_eq!(groups(Abi::X86_64, u64::MAX), "");
        assert_eq!(named("chmod", Abi::X86_64, [0x1000, 0o600, 27, 7, 7, 7]), []);
    }

    #[test]
    fn untraced_clones_are_traced() {
        let flags = CLONE_UNTRACED | 0x11;
        assert_eq!(ask("clone", Abi::X86_64, [flags, 0, 0, 0, 0, 0], b""), [Asked::Retrace { address: None, flags }]);
        let asked = ask("clone3", Abi::X86_64, [0x1000, 88, 0, 0, 0, 0], &flags.to_ne_bytes());
        assert_eq!(asked, [Asked::Retrace { address: Some(0x1000), flags }]);
    }

    #[test]
    fn addresses_in_memory_have_tags() {
        const TAG: u64 = 0xaa << 56;
        let mut memory = vec![0; 128];
        memory[..8].copy_from_slice(&(TAG | 0x1040).to_ne_bytes());
        memory[8..12].copy_from_slice(&4u32.to_ne_bytes());
        memory[0x40..0x44].copy_from_slice(b"\x01\0/x");
        let connected = [Asked::Inline { path: b"/x".to_vec(), access: Access::Connect, follow: true }];
        assert_eq!(ask("sendmsg", Abi::Aarch64, [3, 0x1000, 0, 0, 0, 0], &memory), connected);
        let asked = ask("bpf", Abi::Aarch64, [u64::from(BPF_OBJ_PIN), 0x1000, 16, 0, 0, 0], &memory);
        assert!(matches!(asked[..], [Asked::Path { address: 0x1040, .. }]));
        let mut attributes = vec![0; 64];
        attributes[0] = 8;
        attributes[56..].copy_from_slice(&(TAG | 0x1040).to_ne_bytes());
        let asked = ask("perf_event_open", Abi::Aarch64, [0x1000, 0, 0, 0, 0, 0], &attributes);
        assert_eq!(asked, [Asked::Probe { kind: 8, address: 0x1040 }]);
        let program = [&[1, 0, 0, 0, 0, 0, 0, 0][..], &(TAG | 0x1010).to_ne_bytes(), &[6; 8]].concat();
        let asked = ask("seccomp", Abi::Aarch64, [1, 0, 0x1000, 0, 0, 0], &program);
        assert_eq!(asked, [Asked::Filter { text: vec![6; 8], flags: 0 }]);
    }

    #[test]
    fn messages_of_both_widths() {
        let mut memory = vec![0; 256];
        memory[..8].copy_from_slice(&0x1080u64.to_ne_bytes());
        memory[8..12].copy_from_slice(&10u32.to_ne_bytes());
        memory[0x80..0x8a].copy_from_slice(b"\x01\0/dev/log");
        let expected = [Asked::Inline { path: b"/dev/log".to_vec(), access: Access::Connect, follow: true }];
        assert_eq!(ask("sendmsg", Abi::X86_64, [3, 0x1000, 0, 0, 0, 0], &memory), expected);
        memory[..4].copy_from_slice(&0x1080u32.to_ne_bytes());
        memory[4..8].copy_from_slice(&10u32.to_ne_bytes());
        assert_eq!(ask("sendmsg", Abi::I386, [3, 0x1000, 0, 0, 0, 0], &memory), expected);
    }

    /// What a program of 32 bits asks for by way of `socketcall(2)`: as by the calls of these names.
    #[test]
    fn calls_with_sockets_that_are_one_call() {
        let address = b"\x01\0/run/x\0";
        let length = address.len() as u32;
        let inline = |access, follow| vec![Asked::Inline { path: b"/run/x".to_vec(), access, follow }];
        for (number, arguments, expected) in [
            (2, [3, 0x1080, length, 0, 0, 0], inline(Access::Bind, false)),
            (3, [3, 0x1080, length, 0, 0, 0], inline(Access::Connect, true)),
            (4, [3, 5, 0, 0, 0, 0], vec![Asked::Listen { descriptor: 3 }]),
            (11, [3, 0, 0, 0, 0x1080, length], inline(Access::Connect, true)),
            (16, [3, 0x1040, 0, 0, 0, 0], inline(Access::Connect, true)),
            (20, [3, 0x1020, 2, 0, 0, 0], inline(Access::Connect, true)),
            (5, [3, 0x1080, length, 0, 0, 0], vec![]),
        ] {
            let mut memory = vec![0; 256];
            let header = [0x1080, length].map(u32::to_ne_bytes).concat();
            memory[..24].copy_from_slice(&arguments.map(u32::to_ne_bytes).concat());
            // A message, and the second of two: the first has no address.
            memory[0x40..0x48].copy_from_slice(&header);
            memory[0x80..0x80 + address.len()].copy_from_slice(address);
            assert_eq!(ask("socketcall", Abi::I386, [number, 0x1000, 0, 0, 0, 0], &memory), expected, "{number}");
        }
    }
}
