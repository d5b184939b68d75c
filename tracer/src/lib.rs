//! ptrace and seccomp: every path that a program hands to the kernel, as events.
//!
//! In: a [`Command`]. Out: [`Event`]s, one call of the sink each, while the task that caused it stands still *before* its
//! call runs; and how the program [ended](Outcome). The crate follows forks, threads and execs, resolves each path in
//! the task's own view, and changes nothing that the program can notice. It knows nothing of images and writes no file.
//!
//! One seccomp filter stops only the calls that take paths, once, at entry (`SECCOMP_RET_TRACE`, then
//! `PTRACE_CONT`); those that ask or open wait for an answer instead, which costs less (see `listener`). One thread hears of
//! everything. The heart is pure: a raw wait status becomes a `status::Stop`, and the `machine` says how the task goes on.
//! `pete` gives the tasks' registers; waiting and resuming are our own, since pete's `wait` polls with a growing delay and loses tasks on
//! real-time signals, on exec from a thread that is not the leader, and on SIGKILL.
#![doc = include_str!("../../docs/limits.md")]

mod anew;
mod arguments;
mod behind;
mod bpf;
mod calls;
mod changed;
mod decode;
mod door;
mod engine;
mod event;
mod events;
mod filesystem;
mod filter;
mod foresight;
mod handlers;
mod held;
mod in_use;
mod inspect;
mod interpreters;
mod known;
mod lifecycle;
mod limits;
mod listener;
mod look;
mod lookers;
mod machine;
mod maps;
mod memory;
mod mirrors;
mod mount_options;
mod mounts;
mod nameless;
mod names;
mod own_filters;
mod place;
mod proc;
mod race;
mod reaper;
mod remote;
mod resolve;
mod retrace;
#[cfg(test)]
mod sample;
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
mod terminal;
mod touch;
mod turns;
mod unheard;
mod view;
mod views;
mod waiting;
mod walk;

pub use calls::sets_times;
pub use engine::{Options, Outcome, Sink, trace};
pub use event::{Access, Account, Event, Found, Gap, Link, Protocol, Searched, Touch, Walk};
pub use handlers::Handler;
pub use limits::{fail_beyond as fail_beyond_limits, lift as lift_limits, restore as restore_limits};
pub use mirrors::Mirrors;
pub use mounts::unescape as unescape_mount;
pub use signals::Forwarding;
pub use spawn::{Command, Credentials, SpawnError};
pub use sys::{effective_capabilities, has_standard_output, may_reach, may_use};

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
    #[error("`{}` uses ptrace itself, and a traced task cannot have a second tracer", program.display())]
    Nested { program: std::path::PathBuf },
    #[error("process {process} of the program cannot be ended before minjail ends")]
    Left { process: i32, source: Box<TraceError> },
    #[error("the receiver of the events asked to stop")]
    Stopped,
}
