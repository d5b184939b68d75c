//! Runs a program confined to a tree, without root, by user namespaces.
//!
//! In: a [`Jail`] (the tree and how the world in it looks) and a [`Program`]. Out: how the program [`Ended`], with
//! its standard streams, signals and terminal passed through. The program may write anywhere that its user may: the
//! tree is the lower layer of an overlay whose upper layer is memory, and is the same afterwards. Files that an ordinary
//! user could not give to their owners are theirs in the overlay, where the jail has such owners. It sees its own
//! processes, its own network (or the host's), fresh `/proc`, `/dev` and `/sys`, a `/tmp` if the tree has one, and
//! nothing of the host's files. What this room does not do: limit memory or time, judge what the program did, or print.
//!
//! `plan` decides, from facts, what is to be done and in which order, as data; `perform` does it; `sys` holds
//! the calls that the compiler cannot check. Three processes take part:
//!
//! ```text
//! the caller ──clone──▶ PID 1 of the jail ──clone──▶ the program
//!   maps ids              mounts, pivots               takes its user, executes
//!   forwards signals      reaps, forwards signals
//! ```
//!
//! The caller must be single-threaded: a copy of a process with threads is a copy of one thread and of all the locks
//! that the others held. [`enter`] checks it.
//!
//! The jail keeps an honest program from the host's files; it is no prison for a hostile one. The program shares the
//! caller's terminal (as job control wants it), the kernel is the host's, and a tree whose program names
//! `/proc/self/exe` as its interpreter may get hold of the caller's own executable, as CVE-2019-5736 did of runc's.
//!
//! What the jail cannot do: a tree with mounts inside is refused (overlayfs shows one file system, and the kernel does
//! not uncover what a mount hides); renaming a directory of the tree fails with `EXDEV`, as overlayfs documents for
//! `redirect_dir=nofollow`; and before Linux 6.6, whose tmpfs learnt user attributes, a directory of the tree cannot
//! be removed with what is in it, nor made again, nor one be renamed that was made there.

mod error;
mod facts;
mod ids;
mod init;
mod neighbour;
mod own;
mod perform;
mod plan;
mod streams;
mod supervise;
mod sys;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::PathBuf;

use nix::sys::signal::SigSet;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use serde::{Deserialize, Serialize};

use crate::path::JailPath;

pub use error::{JailError, Obstacle};
pub use facts::replaces_directories;
pub use neighbour::{Namespaces, empty_directories, leave_network, tie};
pub use streams::share_pipes;
pub use sys::send_signal;

pub use crate::tree::Owned;

/// The tree that a program is to be confined to, and how the world in there looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jail {
    pub base: Base,
    /// Where the program starts; it must be in the base.
    pub cwd: JailPath,
    /// Whom the program runs as.
    pub user: User,
    pub network: Network,
    /// What `hostname` says in there.
    pub hostname: String,
}

/// What a jail is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// The directory that becomes `/`.
    pub tree: PathBuf,
    /// Whose files are not their owners' in the tree. They are given to them where the jail has such users.
    pub owned: Vec<Owned>,
    /// Directories that are made where there is nothing, as engines make an image's working directory and volumes.
    pub directories: Vec<JailPath>,
}

/// Whom a program runs as; the numbers are those inside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// The network that a program sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// A loopback interface of its own, and nothing else.
    Private,
    /// The host's, with the host's `/etc/hosts` and `/etc/resolv.conf`.
    Host,
}

/// What to execute.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Program {
    /// The first is also what is executed; without a slash, it is looked for in the `PATH` of `env`, in the jail.
    pub argv: Vec<OsString>,
    /// The whole environment.
    pub env: Vec<(OsString, OsString)>,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Exited(u8),
    /// The signal's number; it may be a real-time signal, which [`nix::sys::signal::Signal`] cannot name.
    Killed(i32),
}

/// Something in the jail that is not quite as it was asked for, because the caller may not make it so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Note {
    /// Only one user and one group exist in there; files of all others show as those of `nobody`.
    OneUser,
    /// Some owners of files do not exist in there, and their files stay root's.
    NoOwners,
    /// The supplementary groups could not be set.
    NoGroups,
}

impl fmt::Display for Note {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::OneUser => {
                "only the program's own user and group exist in the jail: what is yours is the program's, so that a \
                 permission which it lacks elsewhere goes unseen, and what is others' is nobody's; to have all users, \
                 install `newuidmap` and give your user ranges in `/etc/subuid` and `/etc/subgid`"
            }
            Self::NoOwners => {
                "some files belong to root in the jail and not to their owners: your ranges in `/etc/subuid` and \
                 `/etc/subgid` have too few ids for these"
            }
            Self::NoGroups => "the supplementary groups are not set in the jail: setgroups is denied here",
        })
    }
}

/// Runs `program` in `jail` and waits for it.
///
/// PID 1 of the jail is a small init: it reaps orphans, forwards signals to the program, and when the program ends, so
/// does the jail with all that is left in it. Its user may open the caller's standard streams anew ([`share_pipes`]).
/// Signals that a process sends to the caller reach the program; those that the terminal sends reach it by themselves,
/// since it stays in the caller's process group. It starts with this signal mask, or with the caller's.
///
/// # Errors
/// The jail cannot be built, or the program cannot be executed: see [`JailError::exit_code`].
pub fn run(jail: &Jail, program: &Program, mask: Option<SigSet>) -> Result<Ended, JailError> {
    let command = init::Command::new(program)?;
    share_pipes();
    supervise::supervise(jail, supervise::Signals::Blocked(mask), |inside| init::run(inside, &command))
}

/// Runs `body` in `jail` as its PID 1 and waits for it; its value is the exit status (the low eight bits).
///
/// `body` has all capabilities of the jail's user namespace and stands in [`Jail::cwd`]; descriptors, signal mask and
/// memory are the caller's, and no process of the jail can look into it. A signal that PID 1 neither blocks nor handles is dropped (`pid_namespaces(7)`). What
/// `body` executes must call [`Inside::settle`] first.
///
/// # Errors
/// The jail cannot be built, or `body` panicked.
pub fn enter(jail: &Jail, body: impl FnOnce(&Inside<'_>) -> i32) -> Result<Ended, JailError> {
    supervise::supervise(jail, supervise::Signals::AsBefore, body)
}

/// What would not be quite as asked for in `jail`; nothing is started.
///
/// # Errors
/// The tree or the facts of the machine cannot be read, or the jail cannot be planned.
pub fn notes(jail: &Jail) -> Result<Vec<Note>, JailError> {
    let facts = facts::gather(jail)?;
    Ok(plan::plan(jail, &facts)?.notes)
}

/// What PID 1 of a finished jail holds.
#[derive(Debug)]
pub struct Inside<'a> {
    uid: Uid,
    gid: Gid,
    /// `None` where setgroups is denied.
    groups: Option<Vec<Gid>>,
    before: supervise::SignalState,
    report: &'a error::Report,
}

impl Inside<'_> {
    /// The supplementary groups that the program has in there.
    pub fn groups(&self) -> Vec<u32> {
        self.groups.iter().flatten().map(|group| group.as_raw()).collect()
    }

    /// The program's user, for a tracer that takes it by itself; `None` if it is PID 1's own.
    pub fn user(&self) -> Option<User> {
        if self.groups.is_none() && self.uid == Uid::effective() {
            return None;
        }
        Some(User { uid: self.uid.as_raw(), gid: self.gid.as_raw(), groups: self.groups() })
    }

    /// Takes the program's user and marks every descriptor but 0, 1 and 2 to be closed by the coming exec.
    ///
    /// For a child of PID 1, between fork and exec: it neither allocates nor locks.
    ///
    /// # Errors
    /// What `setgroups(2)`, `setresgid(2)`, `setresuid(2)` or `close_range(2)` says.
    pub fn settle(&self) -> io::Result<()> {
        if let Some(groups) = &self.groups {
            setgroups(groups)?;
        }
        setresgid(self.gid, self.gid, self.gid)?;
        setresuid(self.uid, self.uid, self.uid)?;
        Ok(sys::close_on_exec_from(3)?)
    }
}
