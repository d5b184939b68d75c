//! ptrace and seccomp: every path that a program hands to the kernel, as events.
//!
//! In: a [`Command`]. Out: [`Event`]s, one call of the sink each, while the task that caused it stands still *before* its
//! call runs; and how the program [ended](Outcome). The crate follows forks, threads and execs, resolves each path in
//! the task's own view, and changes nothing that the program can notice. It knows nothing of images and writes no file.
//!
//! What the program can notice all the same:
//! - `TracerPid` and the `Seccomp` lines of `/proc/self/status`, and a second process of the tracer's;
//! - that `io_uring`, permission events of `fanotify(7)` and x32 are not there;
//! - that it cannot enter seccomp's strict mode, since a process with a filter never can (`seccomp(2)`), nor have a seccomp
//!   listener of its own (EBUSY), and that a filter of its own which hands a call such as stat or open to a tracer, though
//!   there is none for it, does not end with ENOSYS;
//! - that a signal does not end the opening of a plain file that waits for somebody, as for a lease to be given up
//!   (`fcntl(2)`), or of what was one when it was looked at and is a FIFO by then, and that a task to which signals come faster
//!   than one call is answered, in some 100 µs, hardly gets on;
//! - that a task with threads has all signals blocked on its way to the entry of some calls that open something (`SigBlk` in
//!   `/proc/pid/status`);
//! - that all tasks wait where one asks for what lies on a file system of a server that is not traced (FUSE, NFS) and does not
//!   answer, if that was mounted after the program started or in another mount namespace, or falls silent between the first
//!   look, which is not waited for, and what follows;
//! - the tracer's looks, by the server of a file system that it serves itself; and by `inotify(7)` and `fanotify(7)`, that
//!   a file which it executes, or is about to change, is read once more;
//! - that a pidfd of a child may be readable a moment before the child can be waited for (`ptrace(2)`: its tracer hears of
//!   its end first), that the tracer's threads count where processes of a user do (`RLIMIT_NPROC`), and the mode 2 of
//!   `PR_GET_SECCOMP`;
//! - without root's rights, `no_new_privs`.
//!
//! What is not seen, and not counted: interpreters that a program names by writing to `binfmt_misc` with the flag `F` and probes
//! by writing to `tracefs`, which the kernel opens as it takes what is written; files that an untraced process opens and
//! hands over by a socket (`SCM_RIGHTS`), and what is opened below such a directory if the giver has another mount namespace; where a path
//! leads that the program has used before, once an untraced process has redirected it since, by a link, a rename or a mount: a path that led
//! somewhere is taken to lead there until the program itself changes names (see `known`); what a
//! call finds that only asks (stat, access), if another thread rewrites its path, or replaces its descriptor, meanwhile; what a call
//! changes that neither makes, removes nor replaces it (chmod), if another thread does so and puts back what was there before it returns.
//!
//! One seccomp filter stops only the calls that take paths, once, at entry (`SECCOMP_RET_TRACE`, then
//! `PTRACE_CONT`); those that ask or open wait for an answer instead, which costs less (see `listener`). One thread hears of
//! everything. The heart is pure: a raw wait status becomes a `status::Stop`, and the `machine` says how the task goes on.
//! `pete` gives the tasks' registers; waiting and resuming are our own, since pete's `wait` polls with a growing delay and loses tasks on
//! real-time signals, on exec from a thread that is not the leader, and on SIGKILL.

mod anew;
mod calls;
mod changed;
mod decode;
mod engine;
mod event;
mod events;
mod filesystem;
mod filter;
mod foresight;
mod in_use;
mod inspect;
mod interpreters;
mod known;
mod limits;
mod listener;
mod look;
mod lookers;
mod machine;
mod maps;
mod memory;
mod mount_options;
mod mounts;
mod nameless;
mod place;
mod race;
mod reaper;
mod remote;
mod retrace;
mod script;
mod served;
mod signals;
mod spawn;
mod stacks;
mod start;
mod status;
mod sys;
#[cfg(test)]
#[path = "../../fuzz/src/tasks.rs"]
mod tasks;
mod turns;
mod view;
mod waiting;
mod walk;

pub use calls::sets_times;
pub use engine::{Options, Outcome, Sink, trace};
pub use event::{Access, Event, Found, Gap, Link, Protocol, Searched, Touch, Walk};
pub use limits::{fail_beyond as fail_beyond_limits, lift as lift_limits, restore as restore_limits};
pub use signals::Forwarding;
pub use spawn::{Command, Credentials, SpawnError};
pub use sys::{has_standard_output, may_reach, may_use};

/// The tracer could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error("failed to start a thread")]
    Thread(#[source] std::io::Error),
    #[error("`/proc` does not show the tasks of this process: nothing could be seen of the program")]
    Blind,
    #[error("failed to wait for the traced tasks")]
    Wait(#[source] nix::errno::Errno),
    #[error("failed to {step} task {task}")]
    Ptrace { step: &'static str, task: i32, source: nix::errno::Errno },
    #[error("the program uses ptrace itself (task {task}), and a traced task cannot have a second tracer")]
    Nested { task: i32 },
    #[error("process {process} of the program cannot be ended before minjail ends")]
    Left { process: i32, source: Box<TraceError> },
    #[error("the receiver of the events asked to stop")]
    Stopped,
}
