//! The system calls that matter, for each architecture, as data.
//!
//! Numbers are from the kernel's tables (`arch/x86/entry/syscalls/syscall_64.tbl`, `syscall_32.tbl`,
//! `include/uapi/asm-generic/unistd.h` for aarch64); what each argument means, from section 2 of the manual.

use crate::event::Access::{self, Attributes, Create, Enter, Look, Mount, Remove, Replace};

/// A system call interface; its position in [`Call::numbers`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Abi {
    X86_64 = 0,
    I386 = 1,
    #[cfg_attr(
        not(any(test, target_arch = "aarch64")),
        expect(dead_code, reason = "its column is part of the table everywhere")
    )]
    Aarch64 = 2,
}

impl Abi {
    /// The arguments as the kernel takes them: `int 0x80` of a 64-bit program uses the lower halves of the registers, and
    /// aarch64 takes the tags off addresses of programs (`arch/arm64/include/asm/memory.h`, `__untagged_addr`), which lists
    /// of mappings do not know.
    pub(crate) fn arguments(self, registers: [u64; 6]) -> [u64; 6] {
        match self {
            Self::X86_64 => registers,
            Self::I386 => registers.map(|register| register & 0xffff_ffff),
            Self::Aarch64 => registers.map(|register| self.untagged(register)),
        }
    }

    /// An address that stands in memory, as the kernel takes it: the same, but for its tag.
    pub(crate) fn untagged(self, address: u64) -> u64 {
        match self {
            Self::X86_64 | Self::I386 => address,
            Self::Aarch64 => address & ((address << 8).cast_signed() >> 8).cast_unsigned(),
        }
    }
}

/// Stands in [`Call::numbers`] for a call that the interface does not have.
pub(crate) const NONE: u32 = u32::MAX;

/// `WNOHANG` of `waitpid(2)`.
pub(crate) const NO_HANG: u32 = libc::WNOHANG.cast_unsigned();

/// The highest number that was looked at, here or in `without_path.txt`, of any interface: since Linux 5.0 they number new calls
/// alike. What is above is a call of a newer kernel, and may take paths.
pub(crate) const YOUNGEST: u32 = 471;

/// True if the call of this name sets a file's times (`utime(2)`, `utimensat(2)` and their kin), by which it is known whether the
/// content has changed since: others that change attributes leave the content and the mtime alone.
pub fn sets_times(call: &str) -> bool {
    call.starts_with("utime") || call == "futimesat"
}

#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) name: &'static str,
    pub(crate) numbers: [u32; 3],
    pub(crate) kind: Kind,
}

impl Call {
    /// True if the call asks what is there, and neither changes nor opens anything, nor ever waits for anything: whoever
    /// makes it cannot tell if it ran twice.
    pub(crate) fn only_asks(&self) -> bool {
        match self.kind {
            Kind::Listing => true,
            Kind::Paths(paths) => {
                paths.iter().all(|path| path.access == Look) && !matches!(self.name, "swapon" | "swapoff")
            }
            _ => false,
        }
    }

    /// True if a listener may hear of the call in the place of a stop. What executes, changes or makes tasks is followed by
    /// stops anyway, or has to be.
    pub(crate) fn may_wait(&self) -> bool {
        self.only_asks() || self.opens() || matches!(self.kind, Kind::Reap { .. })
    }

    /// True if the call, with these arguments, asks whether children have ended, and does not wait for them.
    pub(crate) fn asks_for_ended(&self, arguments: &[u64; 6]) -> bool {
        matches!(self.kind, Kind::Reap { options } if arguments[options] as u32 & NO_HANG != 0)
    }

    /// True if a listener, where there is one, hears of the call when it is made with these arguments. (On aarch64 there
    /// is none.)
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn waits_with(&self, arguments: &[u64; 6]) -> bool {
        match self.kind {
            // Without a word to the contrary it waits for a child.
            Kind::Reap { .. } => self.asks_for_ended(arguments),
            _ => self.may_wait(),
        }
    }

    /// True if the call changes what its paths lead to.
    pub(crate) fn changes(&self) -> bool {
        matches!(self.kind, Kind::Paths(_)) && !self.opens() && !self.only_asks()
    }

    /// True if the call gives what its first path leads to the name that its second path is.
    pub(crate) fn moves(&self) -> bool {
        self.name.starts_with("rename") || matches!(self.name, "link" | "linkat")
    }

    pub(crate) fn sets_times(&self) -> bool {
        sets_times(self.name)
    }

    /// True if the call runs the program that its path leads to.
    pub(crate) fn executes(&self) -> bool {
        matches!(self.kind, Kind::Exec { .. })
    }

    /// The arguments that are users, and those that are groups, of whom the call makes its task, or makes something theirs.
    pub(crate) fn ids(&self) -> (&'static [usize], &'static [usize]) {
        match self.name.strip_suffix("32").unwrap_or(self.name) {
            "setuid" | "setfsuid" => (&[0], &[]),
            "setgid" | "setfsgid" => (&[], &[0]),
            "setreuid" => (&[0, 1], &[]),
            "setregid" => (&[], &[0, 1]),
            "setresuid" => (&[0, 1, 2], &[]),
            "setresgid" => (&[], &[0, 1, 2]),
            "chown" | "lchown" | "fchown" => (&[1], &[2]),
            "fchownat" => (&[2], &[3]),
            _ => (&[], &[]),
        }
    }

    /// True if these are numbers of 16 bits, as those of i386's first calls are (`kernel/uid16.c`).
    pub(crate) fn has_short_ids(&self, abi: Abi) -> bool {
        abi == Abi::I386 && !self.name.ends_with("32") && self.name != "fchownat"
    }

    /// True if the call returns a descriptor of what its path, or its handle, leads to.
    pub(crate) fn opens(&self) -> bool {
        matches!(self.kind, Kind::Open { .. } | Kind::OpenHow | Kind::OpenByHandle) || self.name == "creat"
    }
}

/// What a call does with its arguments, which are named by their index.
#[derive(Debug)]
pub(crate) enum Kind {
    Paths(&'static [PathArgument]),
    /// `open` and `openat`: the access and the following of links are in the flags.
    Open {
        at: At,
        flags: usize,
    },
    /// `openat2`: the flags are in memory.
    OpenHow,
    Exec {
        at: At,
        flags: Option<usize>,
    },
    /// Reads the directory open at a descriptor.
    Listing,
    /// Makes the directory open at a descriptor the working directory.
    Fchdir,
    /// Changes attributes of what is open at a descriptor.
    Attributes,
    /// Changes as whom the task runs.
    Identity,
    /// `setgroups`: the groups stand in memory.
    Groups,
    /// A socket address in memory, its length in the next argument.
    Address {
        address: usize,
        purpose: Purpose,
    },
    /// `sendmsg`: the address stands in a `struct msghdr`.
    Message,
    /// `sendmmsg`: several of them.
    Messages,
    /// i386's multiplexer: call number, then a pointer to the arguments.
    Socketcall,
    Listen,
    /// `fsconfig`, which takes a path for some of its commands, and an option with paths for another.
    Fsconfig,
    /// Gives a descriptor of a mount that is nowhere yet.
    Fsmount,
    /// `quotactl`, which takes a second path for one of its commands.
    Quotactl,
    /// The flags are in the first argument, or in memory for `clone3`.
    Clone,
    Clone3,
    IoUring,
    /// `fanotify_init`, whose flags say whether others are to wait for its answers, and what can be done with the files that it hands out.
    Fanotify,
    /// Gives a descriptor of another process's.
    TakeDescriptor,
    OpenByHandle,
    Ptrace,
    Seccomp,
    /// `prctl`, by which a filter can be installed as well.
    Prctl,
    /// `unshare` and `setns`.
    Namespace,
    /// Asks after children, or waits for them, as the options say.
    Reap {
        options: usize,
    },
    /// `userfaultfd`, after which reading memory may wait for the program.
    FilledMemory,
    /// `process_vm_writev`, by which a process rewrites what another one has in memory.
    WrittenMemory,
    /// `bpf`, which takes a path for some of its commands.
    Bpf,
    /// `perf_event_open`, which takes the path of a program that is to be probed.
    PerfEvent,
}

/// A path argument and the descriptor that it is relative to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At {
    /// `None`: the working directory.
    pub(crate) directory: Option<usize>,
    pub(crate) path: usize,
}

#[derive(Debug)]
pub(crate) struct PathArgument {
    pub(crate) at: At,
    pub(crate) links: Links,
    pub(crate) access: Access,
}

/// What a call names a socket's address for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Bind,
    Connect,
    Send,
}

/// Whether a link as the last component is followed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Links {
    Follow,
    Keep,
    /// Followed unless the argument has the bit.
    KeepIf {
        flags: usize,
        bit: u64,
    },
    /// Followed only if the argument has the bit.
    FollowIf {
        flags: usize,
        bit: u64,
    },
}

const AT_SYMLINK_NOFOLLOW: u64 = 0x100;
const AT_SYMLINK_FOLLOW: u64 = 0x400;
const IN_DONT_FOLLOW: u64 = 0x0200_0000;
const FAN_MARK_DONT_FOLLOW: u64 = 0x4;
const UMOUNT_NOFOLLOW: u64 = 0x8;
const FSPICK_SYMLINK_NOFOLLOW: u64 = 0x2;
const MOVE_MOUNT_F_SYMLINKS: u64 = 0x1;
const MOVE_MOUNT_T_SYMLINKS: u64 = 0x10;

const fn cwd(path: usize) -> At {
    At { directory: None, path }
}

const fn at(directory: usize, path: usize) -> At {
    At { directory: Some(directory), path }
}

const fn follow(at: At, access: Access) -> PathArgument {
    PathArgument { at, links: Links::Follow, access }
}

const fn keep(at: At, access: Access) -> PathArgument {
    PathArgument { at, links: Links::Keep, access }
}

const fn keep_if(at: At, access: Access, flags: usize, bit: u64) -> PathArgument {
    PathArgument { at, links: Links::KeepIf { flags, bit }, access }
}

const fn follow_if(at: At, access: Access, flags: usize, bit: u64) -> PathArgument {
    PathArgument { at, links: Links::FollowIf { flags, bit }, access }
}

const fn call(name: &'static str, numbers: [u32; 3], kind: Kind) -> Call {
    Call { name, numbers, kind }
}

const fn paths(name: &'static str, numbers: [u32; 3], arguments: &'static [PathArgument]) -> Call {
    Call { name, numbers, kind: Kind::Paths(arguments) }
}

/// Every call that stops, with its numbers on x86_64, i386 and aarch64.
#[rustfmt::skip]
pub(crate) static CALLS: &[Call] = &[
    // Opening and executing.
    call("open", [2, 5, NONE], Kind::Open { at: cwd(0), flags: 1 }),
    call("openat", [257, 295, 56], Kind::Open { at: at(0, 1), flags: 2 }),
    call("openat2", [437, 437, 437], Kind::OpenHow),
    paths("creat", [85, 8, NONE], &[follow(cwd(0), Create)]),
    call("execve", [59, 11, 221], Kind::Exec { at: cwd(0), flags: None }),
    call("execveat", [322, 358, 281], Kind::Exec { at: at(0, 1), flags: Some(4) }),
    paths("uselib", [134, 86, NONE], &[follow(cwd(0), Access::Execute)]),
    call("open_by_handle_at", [304, 342, 265], Kind::OpenByHandle),

    // Asking.
    paths("stat", [4, 106, NONE], &[follow(cwd(0), Look)]),
    paths("lstat", [6, 107, NONE], &[keep(cwd(0), Look)]),
    paths("newfstatat", [262, NONE, 79], &[keep_if(at(0, 1), Look, 3, AT_SYMLINK_NOFOLLOW)]),
    paths("statx", [332, 383, 291], &[keep_if(at(0, 1), Look, 2, AT_SYMLINK_NOFOLLOW)]),
    paths("oldstat", [NONE, 18, NONE], &[follow(cwd(0), Look)]),
    paths("oldlstat", [NONE, 84, NONE], &[keep(cwd(0), Look)]),
    paths("stat64", [NONE, 195, NONE], &[follow(cwd(0), Look)]),
    paths("lstat64", [NONE, 196, NONE], &[keep(cwd(0), Look)]),
    paths("fstatat64", [NONE, 300, NONE], &[keep_if(at(0, 1), Look, 3, AT_SYMLINK_NOFOLLOW)]),
    paths("access", [21, 33, NONE], &[follow(cwd(0), Look)]),
    paths("faccessat", [269, 307, 48], &[follow(at(0, 1), Look)]),
    paths("faccessat2", [439, 439, 439], &[keep_if(at(0, 1), Look, 3, AT_SYMLINK_NOFOLLOW)]),
    paths("readlink", [89, 85, NONE], &[keep(cwd(0), Look)]),
    paths("readlinkat", [267, 305, 78], &[keep(at(0, 1), Look)]),
    paths("statfs", [137, 99, 43], &[follow(cwd(0), Look)]),
    paths("statfs64", [NONE, 268, NONE], &[follow(cwd(0), Look)]),
    paths("name_to_handle_at", [303, 341, 264], &[follow_if(at(0, 1), Look, 4, AT_SYMLINK_FOLLOW)]),
    paths("inotify_add_watch", [254, 292, 27], &[keep_if(cwd(1), Look, 2, IN_DONT_FOLLOW)]),
    paths("fanotify_mark", [301, NONE, 263], &[keep_if(at(3, 4), Look, 1, FAN_MARK_DONT_FOLLOW)]),
    // The 64-bit mask takes two registers.
    paths("fanotify_mark", [NONE, 339, NONE], &[keep_if(at(4, 5), Look, 1, FAN_MARK_DONT_FOLLOW)]),
    call("getdents", [78, 141, NONE], Kind::Listing),
    call("getdents64", [217, 220, 61], Kind::Listing),
    call("readdir", [NONE, 89, NONE], Kind::Listing),
    paths("getxattr", [191, 229, 8], &[follow(cwd(0), Look)]),
    paths("lgetxattr", [192, 230, 9], &[keep(cwd(0), Look)]),
    paths("getxattrat", [464, 464, 464], &[keep_if(at(0, 1), Look, 2, AT_SYMLINK_NOFOLLOW)]),
    paths("listxattr", [194, 232, 11], &[follow(cwd(0), Look)]),
    paths("llistxattr", [195, 233, 12], &[keep(cwd(0), Look)]),
    paths("listxattrat", [465, 465, 465], &[keep_if(at(0, 1), Look, 2, AT_SYMLINK_NOFOLLOW)]),
    paths("file_getattr", [468, 468, 468], &[keep_if(at(0, 1), Look, 4, AT_SYMLINK_NOFOLLOW)]),

    // Going somewhere.
    paths("chdir", [80, 12, 49], &[follow(cwd(0), Enter)]),
    call("fchdir", [81, 133, 50], Kind::Fchdir),
    paths("chroot", [161, 61, 51], &[follow(cwd(0), Enter)]),
    paths("pivot_root", [155, 217, 41], &[follow(cwd(0), Enter), follow(cwd(1), Enter)]),

    // Making, removing, renaming.
    paths("mkdir", [83, 39, NONE], &[keep(cwd(0), Create)]),
    paths("mkdirat", [258, 296, 34], &[keep(at(0, 1), Create)]),
    paths("mknod", [133, 14, NONE], &[keep(cwd(0), Create)]),
    paths("mknodat", [259, 297, 33], &[keep(at(0, 1), Create)]),
    paths("rmdir", [84, 40, NONE], &[keep(cwd(0), Remove)]),
    paths("unlink", [87, 10, NONE], &[keep(cwd(0), Remove)]),
    paths("unlinkat", [263, 301, 35], &[keep(at(0, 1), Remove)]),
    paths("rename", [82, 38, NONE], &[keep(cwd(0), Remove), keep(cwd(1), Replace)]),
    paths("renameat", [264, 302, 38], &[keep(at(0, 1), Remove), keep(at(2, 3), Replace)]),
    paths("renameat2", [316, 353, 276], &[keep(at(0, 1), Remove), keep(at(2, 3), Replace)]),
    paths("link", [86, 9, NONE], &[keep(cwd(0), Access::Write), keep(cwd(1), Create)]),
    paths("linkat", [265, 303, 37], &[follow_if(at(0, 1), Access::Write, 4, AT_SYMLINK_FOLLOW), keep(at(2, 3), Create)]),
    paths("symlink", [88, 83, NONE], &[keep(cwd(1), Create)]),
    paths("symlinkat", [266, 304, 36], &[keep(at(1, 2), Create)]),

    // Changing.
    paths("truncate", [76, 92, 45], &[follow(cwd(0), Access::Write)]),
    paths("truncate64", [NONE, 193, NONE], &[follow(cwd(0), Access::Write)]),
    paths("chmod", [90, 15, NONE], &[follow(cwd(0), Attributes)]),
    paths("fchmodat", [268, 306, 53], &[follow(at(0, 1), Attributes)]),
    paths("fchmodat2", [452, 452, 452], &[keep_if(at(0, 1), Attributes, 3, AT_SYMLINK_NOFOLLOW)]),
    paths("chown", [92, 182, NONE], &[follow(cwd(0), Attributes)]),
    paths("chown32", [NONE, 212, NONE], &[follow(cwd(0), Attributes)]),
    paths("lchown", [94, 16, NONE], &[keep(cwd(0), Attributes)]),
    paths("lchown32", [NONE, 198, NONE], &[keep(cwd(0), Attributes)]),
    paths("fchownat", [260, 298, 54], &[keep_if(at(0, 1), Attributes, 4, AT_SYMLINK_NOFOLLOW)]),
    paths("utime", [132, 30, NONE], &[follow(cwd(0), Attributes)]),
    paths("utimes", [235, 271, NONE], &[follow(cwd(0), Attributes)]),
    paths("futimesat", [261, 299, NONE], &[follow(at(0, 1), Attributes)]),
    paths("utimensat", [280, 320, 88], &[keep_if(at(0, 1), Attributes, 3, AT_SYMLINK_NOFOLLOW)]),
    paths("utimensat_time64", [NONE, 412, NONE], &[keep_if(at(0, 1), Attributes, 3, AT_SYMLINK_NOFOLLOW)]),
    call("fchmod", [91, 94, 52], Kind::Attributes),
    call("fchown", [93, 95, 55], Kind::Attributes),
    call("fchown32", [NONE, 207, NONE], Kind::Attributes),
    call("fsetxattr", [190, 228, 7], Kind::Attributes),
    call("fremovexattr", [199, 237, 16], Kind::Attributes),
    paths("setxattr", [188, 226, 5], &[follow(cwd(0), Attributes)]),
    paths("lsetxattr", [189, 227, 6], &[keep(cwd(0), Attributes)]),
    paths("setxattrat", [463, 463, 463], &[keep_if(at(0, 1), Attributes, 2, AT_SYMLINK_NOFOLLOW)]),
    paths("removexattr", [197, 235, 14], &[follow(cwd(0), Attributes)]),
    paths("lremovexattr", [198, 236, 15], &[keep(cwd(0), Attributes)]),
    paths("removexattrat", [466, 466, 466], &[keep_if(at(0, 1), Attributes, 2, AT_SYMLINK_NOFOLLOW)]),
    paths("file_setattr", [469, 469, 469], &[keep_if(at(0, 1), Attributes, 4, AT_SYMLINK_NOFOLLOW)]),

    // The system's own.
    paths("swapon", [167, 87, 224], &[follow(cwd(0), Look)]),
    paths("swapoff", [168, 115, 225], &[follow(cwd(0), Look)]),
    paths("acct", [163, 51, 89], &[follow(cwd(0), Access::Write)]),
    call("quotactl", [179, 131, 60], Kind::Quotactl),
    paths("mount", [165, 21, 40], &[follow(cwd(1), Mount)]),
    paths("umount", [NONE, 22, NONE], &[follow(cwd(0), Mount)]),
    paths("umount2", [166, 52, 39], &[keep_if(cwd(0), Mount, 1, UMOUNT_NOFOLLOW)]),
    paths("move_mount", [429, 429, 429], &[
        follow_if(at(0, 1), Mount, 4, MOVE_MOUNT_F_SYMLINKS),
        follow_if(at(2, 3), Mount, 4, MOVE_MOUNT_T_SYMLINKS),
    ]),
    paths("open_tree", [428, 428, 428], &[keep_if(at(0, 1), Look, 2, AT_SYMLINK_NOFOLLOW)]),
    paths("open_tree_attr", [467, 467, 467], &[keep_if(at(0, 1), Look, 2, AT_SYMLINK_NOFOLLOW)]),
    paths("fspick", [433, 433, 433], &[keep_if(at(0, 1), Look, 2, FSPICK_SYMLINK_NOFOLLOW)]),
    paths("mount_setattr", [442, 442, 442], &[keep_if(at(0, 1), Mount, 2, AT_SYMLINK_NOFOLLOW)]),
    call("fsconfig", [431, 431, 431], Kind::Fsconfig),
    call("fsmount", [432, 432, 432], Kind::Fsmount),
    call("userfaultfd", [323, 374, 282], Kind::FilledMemory),
    call("process_vm_writev", [311, 348, 271], Kind::WrittenMemory),
    call("bpf", [321, 357, 280], Kind::Bpf),
    call("perf_event_open", [298, 336, 241], Kind::PerfEvent),

    // Sockets.
    call("connect", [42, 362, 203], Kind::Address { address: 1, purpose: Purpose::Connect }),
    call("bind", [49, 361, 200], Kind::Address { address: 1, purpose: Purpose::Bind }),
    call("sendto", [44, 369, 206], Kind::Address { address: 4, purpose: Purpose::Send }),
    call("sendmsg", [46, 370, 211], Kind::Message),
    call("sendmmsg", [307, 345, 269], Kind::Messages),
    call("socketcall", [NONE, 102, NONE], Kind::Socketcall),
    call("listen", [50, 363, 201], Kind::Listen),

    // Becoming somebody: no path, but a name that the image is to know.
    call("setuid", [105, 23, 146], Kind::Identity),
    call("setuid32", [NONE, 213, NONE], Kind::Identity),
    call("setgid", [106, 46, 144], Kind::Identity),
    call("setgid32", [NONE, 214, NONE], Kind::Identity),
    call("setreuid", [113, 70, 145], Kind::Identity),
    call("setreuid32", [NONE, 203, NONE], Kind::Identity),
    call("setregid", [114, 71, 143], Kind::Identity),
    call("setregid32", [NONE, 204, NONE], Kind::Identity),
    call("setresuid", [117, 164, 147], Kind::Identity),
    call("setresuid32", [NONE, 208, NONE], Kind::Identity),
    call("setresgid", [119, 170, 149], Kind::Identity),
    call("setresgid32", [NONE, 210, NONE], Kind::Identity),
    call("setfsuid", [122, 138, 151], Kind::Identity),
    call("setfsuid32", [NONE, 215, NONE], Kind::Identity),
    call("setfsgid", [123, 139, 152], Kind::Identity),
    call("setfsgid32", [NONE, 216, NONE], Kind::Identity),
    call("setgroups", [116, 81, 159], Kind::Groups),
    call("setgroups32", [NONE, 206, NONE], Kind::Groups),

    // What would make the trace blind.
    call("clone", [56, 120, 220], Kind::Clone),
    call("clone3", [435, 435, 435], Kind::Clone3),
    call("io_uring_setup", [425, 425, 425], Kind::IoUring),
    call("fanotify_init", [300, 338, 262], Kind::Fanotify),
    call("ptrace", [101, 26, 117], Kind::Ptrace),
    call("seccomp", [317, 354, 277], Kind::Seccomp),
    call("prctl", [157, 172, 167], Kind::Prctl),
    call("unshare", [272, 310, 97], Kind::Namespace),
    call("pidfd_getfd", [438, 438, 438], Kind::TakeDescriptor),
    call("setns", [308, 346, 268], Kind::Namespace),

    // What would show that a tracer hears of an end first: whoever has a pidfd of a child knows of it as well.
    call("wait4", [61, 114, 260], Kind::Reap { options: 2 }),
    call("waitid", [247, 284, 95], Kind::Reap { options: 3 }),
    call("waitpid", [NONE, 7, NONE], Kind::Reap { options: 2 }),
];

/// From number to call, for one interface.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Option<&'static Call>>,
}

impl Table {
    pub(crate) fn of(abi: Abi) -> Self {
        let mut rows = Vec::new();
        for call in CALLS {
            let number = call.numbers[abi as usize];
            if number == NONE {
                continue;
            }
            let index = number as usize;
            if rows.len() <= index {
                rows.resize(index + 1, None);
            }
            rows[index] = Some(call);
        }
        Self { rows }
    }

    pub(crate) fn get(&self, number: u64) -> Option<&'static Call> {
        self.rows.get(usize::try_from(number).ok()?).copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_taken_off_addresses() {
        let minus_one = u64::from(u32::MAX);
        let registers = [0x2a00_ffff_1234_5678, 0x0000_ffff_1234_5678, u64::MAX - 99, minus_one, 0, 0x8000];
        let taken = [0x0000_ffff_1234_5678, 0x0000_ffff_1234_5678, u64::MAX - 99, minus_one, 0, 0x8000];
        assert_eq!(Abi::Aarch64.arguments(registers), taken);
    }

    #[test]
    fn numbers_are_unique() {
        for column in 0..3 {
            let mut numbers: Vec<u32> = CALLS.iter().map(|call| call.numbers[column]).filter(|&n| n != NONE).collect();
            let all = numbers.len();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), all, "column {column}");
        }
    }

    /// The kernel's headers, and the column of the table that each stands for.
    const HEADERS: [(usize, &str); 3] = [
        (0, "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
        (1, "/usr/include/x86_64-linux-gnu/asm/unistd_32.h"),
        (2, "/usr/include/asm-generic/unistd.h"),
    ];

    /// `#define __NR_name number` of a header; also a number that is given by another macro.
    fn header(path: &str) -> Option<Vec<(String, u32)>> {
        let text = fs_err::read_to_string(path).ok()?;
        let defines: Vec<(&str, &str)> = text
            .lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                (words.next() == Some("#define")).then(|| Some((words.next()?, words.next()?))).flatten()
            })
            .collect();
        let number = |value: &str| {
            let alias = defines.iter().find(|(name, _)| *name == value).map(|(_, value)| *value);
            value.parse().or_else(|_| alias.unwrap_or_default().parse()).ok()
        };
        let calls = defines.iter().filter_map(|(name, value)| {
            let name = name.strip_prefix("__NR_").filter(|name| !matches!(*name, "syscalls" | "arch_specific_syscall"));
            Some((name?.to_owned(), number(value)?))
        });
        Some(calls.collect())
    }

    /// The kernel's own tables against ours: a call that nobody has looked at fails here.
    #[test]
    fn every_call_of_the_kernel_is_classified() {
        let without_path: std::collections::BTreeSet<&str> = include_str!("without_path.txt")
            .lines()
            .filter(|line| !line.starts_with('#'))
            .flat_map(str::split_whitespace)
            .collect();
        let mut compared = 0;
        for (column, path) in HEADERS {
            let Some(header) = header(path) else { continue };
            for (name, number) in header {
                compared += 1;
                assert!(number <= YOUNGEST, "`{name}` in {path} is younger than all that were looked at");
                if let Some(ours) = CALLS.iter().find(|call| call.name == name && call.numbers[column] != NONE) {
                    assert_eq!(ours.numbers[column], number, "{name} in {path}");
                    continue;
                }
                // The generic table has 32-bit machines' calls: of their own, and under second names.
                let is_narrow = (403..=423).contains(&number) || CALLS.iter().any(|call| call.numbers[2] == number);
                let elsewhere = CALLS.iter().any(|call| call.name == name);
                assert!(
                    (column == 2 && is_narrow) || (without_path.contains(name.as_str()) && !elsewhere),
                    "`{name}` ({number}) in {path} is in no table: has it a path?"
                );
            }
        }
        // aarch64's package has the generic header alone.
        let least = if cfg!(target_arch = "x86_64") { 900 } else { 300 };
        assert!(compared > least, "the kernel's headers (linux-libc-dev) are needed: {compared} calls were compared");
    }

    /// The other way round: a row whose name is misspelled, or whose number belongs to nobody, would never stop a call.
    #[test]
    fn every_row_is_a_call_of_the_kernel() {
        for (column, path) in HEADERS {
            let Some(header) = header(path) else { continue };
            let youngest = header.iter().map(|&(_, number)| number).max().unwrap_or_default();
            // What is younger than the header is not in it.
            for call in CALLS.iter().filter(|call| call.numbers[column] <= youngest) {
                let is_known =
                    header.iter().any(|(name, number)| (name.as_str(), *number) == (call.name, call.numbers[column]));
                assert!(is_known, "`{}` in {path}", call.name);
            }
        }
    }

    #[test]
    fn no_call_of_the_table_is_younger_than_the_youngest() {
        assert!(CALLS.iter().flat_map(|call| call.numbers).all(|number| number <= YOUNGEST || number == NONE));
    }

    #[test]
    fn numbers_agree_with_libc() {
        let (_, own) = crate::filter::ABIS[0];
        let number = |name: &str| CALLS.iter().find(|call| call.name == name).unwrap().numbers[own as usize];
        assert_eq!(libc::c_long::from(number("openat")), libc::SYS_openat);
        assert_eq!(libc::c_long::from(number("statx")), libc::SYS_statx);
        assert_eq!(libc::c_long::from(number("io_uring_setup")), libc::SYS_io_uring_setup);
        assert_eq!(libc::c_long::from(number("unlinkat")), libc::SYS_unlinkat);
    }
}
