//! Starting the program under the tracer.
//!
//! Not by pete's `spawn`, which traces itself (`PTRACE_TRACEME`): only a seized task tells a group-stop from a signal
//! and stays stopped (`PTRACE_LISTEN`), and only a task that is seized before its filter is installed shows its first
//! `execve`.

use std::ffi::{CString, OsString};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::ptr;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use crate::engine::Options;
use crate::filter::{self, Asks};
use crate::listener;
use crate::sys::{self, Child, ChildStep, Identity, REPORT};

/// A program to run.
#[derive(Debug, Clone)]
pub struct Command {
    /// The file to execute; not searched in PATH.
    pub program: PathBuf,
    /// All arguments, also the one at index 0.
    pub arguments: Vec<OsString>,
    /// The whole environment as the program gets it, in this order: `NAME=VALUE` each, as a rule.
    pub environment: Vec<OsString>,
    /// The working directory; `None`: this process's.
    pub directory: Option<PathBuf>,
    /// Who to run as; `None`: as this process.
    pub credentials: Option<Credentials>,
    /// Whether it leads a process group of its own, as a service does; else it is in this process's. Programs that
    /// signal their group, as Apache does when it stops, then do not reach whoever traces them.
    pub leads_group: bool,
    /// The signal that it gets when its parent, the thread that traces it, ends; 0: none (`PR_SET_PDEATHSIG`). Who stands in
    /// for the program at its own parent's side inherits that one's.
    pub parent_death_signal: i32,
}

/// A user, its group and all its groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// The program did not start.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error("`{0}` contains a NUL byte")]
    Nul(String),
    #[error("failed to start a process")]
    Fork(#[source] Errno),
    #[error("failed to trace a new process: ptrace is not allowed here")]
    Seize(#[source] Errno),
    #[error("failed to enter the working directory `{path}`")]
    Directory { path: PathBuf, source: Errno },
    #[error("failed to install a seccomp filter")]
    Filter(#[source] Errno),
    #[error("failed to become user {uid}, group {gid}")]
    Identity { uid: u32, gid: u32, source: Errno },
    #[error("failed to execute `{path}`")]
    Exec { path: PathBuf, source: Errno },
}

/// A program that was started, and that has not executed anything yet.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) process: i32,
    reports: std::fs::File,
}

/// Starts `command`, seized with `ptrace_options`, about to execute.
pub(crate) fn spawn(
    command: &Command,
    ptrace_options: i32,
    mask: &libc::sigset_t,
    options: &Options,
) -> Result<Started, SpawnError> {
    let text = |bytes: Vec<u8>| {
        CString::new(bytes).map_err(|error| SpawnError::Nul(String::from_utf8_lossy(&error.into_vec()).into_owned()))
    };
    let program = text(command.program.clone().into_os_string().into_vec())?;
    let arguments =
        command.arguments.iter().map(|argument| text(argument.clone().into_vec())).collect::<Result<Vec<_>, _>>()?;
    let environment =
        command.environment.iter().map(|entry| text(entry.clone().into_vec())).collect::<Result<Vec<_>, _>>()?;
    let directory =
        command.directory.as_ref().map(|path| text(path.clone().into_os_string().into_vec())).transpose()?;
    let filter = filter::program(Asks::Stop);

    let (ready, go) = pipe2(OFlag::O_CLOEXEC).map_err(SpawnError::Fork)?;
    let (reports, report) = pipe2(OFlag::O_CLOEXEC).map_err(SpawnError::Fork)?;
    let can_listen = listener::CAN_LISTEN && listener::may_take(ready.as_fd());
    let waiting = can_listen.then(|| filter::program(Asks::Wait));
    let child = Child {
        program: &program,
        arguments: &pointers(&arguments),
        environment: &pointers(&environment),
        directory: directory.as_deref(),
        identity: command.credentials.as_ref().map(|who| Identity { uid: who.uid, gid: who.gid, groups: &who.groups }),
        waiting: waiting.as_deref(),
        filter: &filter,
        parent_death_signal: command.parent_death_signal,
        mask,
        ready: ready.as_fd(),
        go: go.as_fd(),
        report: report.as_fd(),
        beside: options.beside,
        confined: options.confined,
    };
    let process = sys::fork(&child).map_err(SpawnError::Fork)?;
    drop(report);
    let mut reports = std::fs::File::from(reports);
    if options.beside {
        // A copy of a process that hides hides from its tracer too, until it has shown itself. If it has died, seizing says
        // so.
        let _ = reports.read_exact(&mut [0; REPORT]);
    }
    if let Err(errno) = sys::seize(process, ptrace_options) {
        sys::kill(process, libc::SIGKILL);
        sys::reap(process);
        return Err(SpawnError::Seize(errno));
    }
    if command.leads_group {
        let process = nix::unistd::Pid::from_raw(process);
        nix::unistd::setpgid(process, process).map_err(SpawnError::Fork)?;
    }
    nix::unistd::write(&go, b"!").map_err(SpawnError::Fork)?;
    Ok(Started { process, reports })
}

impl Started {
    /// The descriptor of the filter's listener in the process, which stands at its first `execve`; `None`: it has none.
    pub(crate) fn listener(&mut self) -> Option<i32> {
        let (step, descriptor) = self.report()?;
        (step == ChildStep::Listener as u8 && descriptor >= 0).then_some(descriptor)
    }

    fn report(&mut self) -> Option<(u8, i32)> {
        let mut report = [0; REPORT];
        self.reports.read_exact(&mut report).ok()?;
        let [step, a, b, c, d] = report;
        Some((step, i32::from_ne_bytes([a, b, c, d])))
    }

    /// Why the program never ran, once its process is gone.
    pub(crate) fn failure(mut self, command: &Command) -> Option<SpawnError> {
        let (mut step, mut errno) = self.report()?;
        if step == ChildStep::Listener as u8 {
            (step, errno) = self.report()?;
        }
        let source = Errno::from_raw(errno);
        Some(match step {
            step if step == ChildStep::Directory as u8 => {
                SpawnError::Directory { path: command.directory.clone().unwrap_or_default(), source }
            }
            step if step == ChildStep::Filter as u8 => SpawnError::Filter(source),
            step if step == ChildStep::Identity as u8 => {
                let (uid, gid) = command.credentials.as_ref().map_or((0, 0), |who| (who.uid, who.gid));
                SpawnError::Identity { uid, gid, source }
            }
            _ => SpawnError::Exec { path: command.program.clone(), source },
        })
    }
}

/// The array of pointers that `execve` wants.
fn pointers(texts: &[CString]) -> Vec<*const libc::c_char> {
    texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
}
