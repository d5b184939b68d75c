//! What the tracer tells.

use std::cell::Cell;

use nix::errno::Errno;
use nix::sys::stat::FileStat;
use serde::{Deserialize, Serialize};

/// One thing that the tracer saw.
#[derive(Debug)]
pub enum Event<'a> {
    /// A task hands a path to the kernel; its call has not run yet.
    Touch(Touch<'a>),
    /// The last call of `task` was one that gives something another name (`rename(2)`, `link(2)`), both of whose paths were told, and it is
    /// over: it has done so or not; `None` if the task is gone, and may have. Until then nobody else has asked for a path, or it took
    /// longer than such a call does.
    Moved { task: i32, process: i32, has: Option<bool> },
    /// `child` is a new process, made by `parent`.
    Fork { parent: i32, child: i32 },
    /// The process runs a new program now. The kernel opened `loaded` for it: the executable (after `#!` and
    /// `binfmt_misc`) and its ELF interpreter, as absolute paths. Of these, `apart` are not to be
    /// looked at: what is served (see [`Touch::is_served`]) or was given open, and a handler that the kernel holds open.
    Exec { process: i32, arguments: Vec<Vec<u8>>, loaded: Vec<Vec<u8>>, apart: Vec<Vec<u8>> },
    /// The process is gone.
    Exit { process: i32 },
    /// A socket of the process takes connections, or datagrams, at `port`. If that is not `is_lasting`, it may be another one the next
    /// time: the kernel has chosen it, or the program has, to ask a server from there. Of datagrams that shows later, so they are told of
    /// twice: at once, as if it did not last, and when the process ends, if it does.
    Listen { process: i32, port: u16, protocol: Protocol, is_lasting: bool },
    /// `task` is about to run as `account` (`setuid(2)` and its kin), or to make something theirs (`chown(2)`), whether or not it may: a
    /// number as it names it, in its own user namespace.
    Account { task: i32, account: Account },
    /// Something that the trace cannot see.
    Gap { process: i32, gap: Gap },
}

/// Somebody whom a program knows by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Account {
    User(u32),
    Group(u32),
}

/// A path on its way into the kernel.
#[derive(Debug)]
pub struct Touch<'a> {
    pub process: i32,
    /// Of its tasks, the one that makes the call; its last one is over.
    pub task: i32,
    /// The system call's name.
    pub call: &'static str,
    pub access: Access,
    /// The path as the program spelled it; empty for a call on a descriptor.
    pub spelled: &'a [u8],
    pub walk: &'a Walk,
    /// It lies on a file system that the program has mounted and serves itself (FUSE): nobody may look at it who holds the
    /// program up, since its server is held up as well. Links that lie there are not in the walk.
    pub is_served: bool,
    /// It was told before, and is again since the call may make what is missing.
    pub is_repeated: bool,
    /// It is asked for the real user, as setuid programs do to learn what their caller may (`access(2)`).
    pub is_by_real_user: bool,
    /// What a program asks for again is not told again. Whoever is told sets this to be told all the same, as of what the
    /// program may be refused now, and not the next time.
    pub again: &'a Cell<bool>,
}

/// What a call is about to do with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Asks what is there: stat, access, readlink, `O_PATH`.
    Look,
    /// Opens for reading.
    Read,
    /// Executes.
    Execute,
    /// Lists the directory.
    List,
    /// Makes it the working directory, or the root.
    Enter,
    /// Opens for writing, without making a new file.
    Write,
    /// Makes something new there; what is there already may be opened for writing.
    Create,
    /// Changes mode, owner, times or extended attributes.
    Attributes,
    /// Takes the name away: unlink, rmdir, the source of a rename.
    Remove,
    /// Puts something else in its place: the target of a rename.
    Replace,
    /// Connects or sends to a unix socket.
    Connect,
    /// Binds a unix socket.
    Bind,
    /// Mounts on it, or unmounts it.
    Mount,
}

impl Access {
    /// True if the call may make something that was missing.
    pub fn makes(self) -> bool {
        matches!(self, Self::Create | Self::Bind | Self::Replace)
    }

    /// True if what was there before may be lost after it.
    pub fn loses(self) -> bool {
        matches!(self, Self::Write | Self::Create | Self::Remove | Self::Replace)
    }
}

/// Where a path leads, in the task's own view, just before its call runs.
#[derive(Debug, Clone)]
pub struct Walk {
    /// Every link on the way, in the order in which it was met.
    pub links: Vec<Link>,
    /// Directories that the path enters and leaves by `..`: without them it leads nowhere.
    pub passed: Vec<Vec<u8>>,
    /// The directories in which the kernel looks a name up for it, and which the task must be let search
    /// (`path_resolution(7)`): from where the path starts, and none of those above that. Not those of `/proc` at a door.
    pub searched: Vec<Searched>,
    /// The end, absolute and free of links but for the last component; behind something missing, as spelled.
    pub end: Vec<u8>,
    pub found: Found,
    /// It is what is open at a descriptor, by a door of `/proc` as the last step (`/dev/stdout`), or a call that changes its
    /// attributes: whoever opened that used another path, or gave it to the program, which has it where another gives it another one.
    pub by_descriptor: bool,
}

impl Walk {
    /// To what stands there, by no way.
    pub(crate) fn bare(end: Vec<u8>, found: Found, by_descriptor: bool) -> Self {
        let (links, passed, searched) = (Vec::new(), Vec::new(), Vec::new());
        Self { links, passed, searched, end, found, by_descriptor }
    }
}

/// A link on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub path: Vec<u8>,
    pub target: Vec<u8>,
    /// So many of [`Walk::searched`] and of [`Walk::passed`] the walk had before it went where the link leads.
    pub(crate) searched: usize,
    pub(crate) passed: usize,
}

/// Directories one below the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Searched {
    /// The last one.
    pub path: Vec<u8>,
    /// The length of the first one's path, with which `path` begins.
    pub from: usize,
}

impl Searched {
    /// Each of them, the upper one first.
    pub fn directories(&self) -> impl Iterator<Item = &[u8]> {
        let ends = |&at: &usize| at == self.path.len() || self.path[at] == b'/' || at == 1;
        (self.from.max(1)..=self.path.len()).filter(ends).map(|at| &self.path[..at])
    }
}

/// What stands at the end of a [`Walk`].
#[derive(Debug, Clone)]
pub enum Found {
    Missing,
    /// What `lstat(2)` says of it.
    There(Box<FileStat>),
    /// The tracer itself may not look, or the links form a loop.
    Unknown(Errno),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    Tcp,
    Udp,
}

/// What a trace cannot see; each is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gap {
    /// `io_uring_setup` was answered with ENOSYS, or the program was given a ring: rings open files without a stop.
    IoUring,
    /// `fanotify_init` for permission events was answered with ENOSYS: the tracer's own reads would wait for the program.
    Fanotify,
    /// `fanotify_init` for events with descriptors of files that can be written to: no call opens these.
    FanotifyWrite,
    /// An x32 call was answered with ENOSYS.
    X32,
    /// A program made calls of an interface that minjail does not know, those of 32-bit programs on aarch64, and was answered
    /// with ENOSYS.
    Interface,
    /// A program made a call of a newer kernel that minjail does not know, and was not answered with ENOSYS: it may take paths.
    UnknownCall,
    /// The task's memory could not be read.
    Memory,
    /// A file was opened by handle, and its path could not be found.
    Handle,
    /// The program asked for a seccomp supervisor, which would answer calls before the tracer sees them; while the tracer
    /// listens itself, the kernel refuses it.
    Supervisor,
    /// A path led to what the tracer does not see in what the program was given: it is in a mount namespace that somebody else
    /// has made, or on an overlay or a disk that the program mounts, or something is mounted over it.
    MountNamespace,
    /// What a descriptor refers to has a path that is longer than the kernel tells.
    LongPath,
    /// Another thread rewrote a path, or changed the working directory, while the kernel took it, and what it led to was
    /// changed before it was seen; or it had the new descriptor closed, or made another one, before the call returned. Or it rewrote a
    /// seccomp filter of the program's own while that was installed.
    Rewritten,
    /// Another thread rewrote the flags of a `clone3` while the kernel took them, so that what it made is not traced.
    Untraced,
    /// A path led through a file system that the program may serve itself (FUSE), and it cannot be told whose files lie there; or
    /// through one that shows its files to the program's user and not to the tracer.
    Served,
}
