//! The runner: traces the program in its place, tells what it sees, and asks in the workload's stead.

use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use minjail_tracer::{Command, Credentials, Event, Options};
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::stat::{Mode, umask};

use super::awaited::Awaited;
use super::desk::Desk;
use super::engine::in_engine;
use super::outset::Outset;
use super::wire::{GREETING, Order, Place, Word, send};
use crate::jail::{self, Base, Ended, Inside, Jail, JailError, Namespaces, Network, User};
use crate::path::unescape;
use crate::trace::{Ending, Header, RecordError, Recorder};

/// The runner could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("failed to read the order")]
    Order(#[source] std::io::Error),
    #[error("failed to speak with the director")]
    Speak(#[source] std::io::Error),
    #[error(transparent)]
    Jail(#[from] JailError),
    #[error(transparent)]
    Trace(#[from] minjail_tracer::TraceError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("{0}")]
    Inside(String),
    #[error("the argument `{0}` cannot be read back")]
    Argument(String),
    #[error("failed to set up {what}")]
    SetUp { what: String, source: std::io::Error },
}

/// The name of the socket in the scratch directory.
const SOCKET: &str = "words";

/// The socket's path by way of its open directory, whose own path may be too long for it: 107 bytes (`unix(7)`).
pub(super) fn socket(scratch: &impl AsRawFd) -> PathBuf {
    opened(scratch).join(SOCKET)
}

/// `proc(5)`, `/proc/pid/fd`: the link leads to what is open itself, outside of this process's root too.
pub(super) fn opened(directory: &impl AsRawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

/// Carries out the order in `file`. What fails is also told to the director.
///
/// # Errors
/// The director cannot be reached, or the program cannot be run.
pub fn run(file: &Path) -> Result<(), RunError> {
    // That of engines: what modes a workload's files get is nothing of the caller's.
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    let bytes = fs_err::read(file).map_err(RunError::Order)?;
    let order: Order = serde_json::from_slice(&bytes).map_err(|error| RunError::Order(error.into()))?;
    let scratch = fs_err::File::open(&order.scratch).map_err(RunError::Speak)?;
    let stream = UnixStream::connect(socket(&scratch)).map_err(RunError::Speak)?;
    drop(scratch);
    let ending = match &order.place {
        Place::Host { trace, since } => on_host(&order, &stream, trace, since.as_ref()).map(Some),
        Place::Engine(engine) => in_engine(&order, &stream, engine).map(Some),
        Place::Jail { base, trace } => in_jail(&order, &stream, base, trace.as_deref()),
    };
    let last = match &ending {
        Ok(Some(ending)) => Word::Ended(*ending),
        // It was told from inside.
        Ok(None) => return Ok(()),
        Err(error) => Word::Failed(chain(error)),
    };
    send(&mut &stream, &last).map_err(RunError::Speak)?;
    ending.map(drop)
}

/// An error with its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn on_host(order: &Order, stream: &UnixStream, target: &Path, since: Option<&Outset>) -> Result<Ending, RunError> {
    // Before this process has mounts of its own.
    let mounted = since.map_or_else(|| Ok(Vec::new()), Outset::mounted_since);
    let mounted = mounted
        .map_err(|source| RunError::SetUp { what: "a trace: what is mounted is not to be seen".to_owned(), source })?;
    if order.private_network {
        jail::leave_network().map_err(|source| RunError::SetUp { what: "a network".to_owned(), source })?;
    }
    if !order.state.is_empty() {
        let fresh = order.scratch.join("state");
        jail::empty_directories(&order.state, &fresh).map_err(|(path, source)| RunError::SetUp {
            what: format!("the empty directory `{}`", path.display()),
            source,
        })?;
    }
    // It holds the root as the program will see it.
    let mut recorder = Recorder::start(order.header.clone(), &order.header.root, &order.scratch)?;
    if let Some(since) = since {
        recorder.keep_since(since.seconds, mounted, &order.header.directory)?;
    }
    let private = if order.private_network { Namespaces::network() } else { Ok(Namespaces::default()) };
    hello(stream, &private.map_err(RunError::Speak)?)?;
    let header = &order.header;
    let credentials = Credentials { uid: header.uid, gid: header.gid, groups: header.groups.clone() };
    let is_own = nix::unistd::geteuid().as_raw() == header.uid && !nix::unistd::geteuid().is_root();
    give_streams(header.uid);
    let command = command(order, (!is_own).then_some(credentials))?;
    let (ending, recorder) = follow(order, &command, stream, Some(recorder), &mut |_| ControlFlow::Continue(()))?;
    recorder.map_or(Ok(()), |recorder| recorder.finish(ending, target).map(drop))?;
    Ok(ending)
}

/// `None`: the ending was told by the jail's first process.
fn in_jail(order: &Order, stream: &UnixStream, base: &Base, trace: Option<&Path>) -> Result<Option<Ending>, RunError> {
    let header = &order.header;
    let jail = Jail {
        base: base.clone(),
        cwd: header.directory.clone(),
        user: User { uid: header.uid, gid: header.gid, groups: header.groups.clone() },
        network: if order.private_network { Network::Private } else { Network::Host },
        hostname: "minjail".to_owned(),
    };
    let door = trace.map(Door::open).transpose()?;
    let ended = jail::enter(&jail, |inside| match confined(order, inside, stream, door.as_ref()) {
        Ok(ending) => i32::from(send(&mut &*stream, &Word::Ended(ending)).is_err()),
        Err(error) => i32::from(send(&mut &*stream, &Word::Failed(chain(&error))).is_ok()),
    })?;
    match ended {
        Ended::Exited(_) => Ok(None),
        Ended::Killed(signal) => Ok(Some(Ending::Killed(signal))),
    }
}

/// Where a trace goes, held open so that it can be reached from a jail, which does not have its path.
pub(super) struct Door {
    directory: std::fs::File,
    name: std::ffi::OsString,
}

impl Door {
    pub(super) fn open(trace: &Path) -> Result<Self, RunError> {
        let failed = |source| RunError::SetUp { what: "the trace".to_owned(), source };
        let parent = trace.parent().unwrap_or(Path::new("/"));
        let name = trace.file_name().unwrap_or_default().to_owned();
        Ok(Self { directory: fs_err::File::open(parent).map_err(failed)?.into_parts().0, name })
    }

    pub(super) fn path(&self) -> PathBuf {
        opened(&self.directory)
    }

    /// The trace in it.
    pub(super) fn target(&self) -> PathBuf {
        self.path().join(&self.name)
    }
}

/// The first process of the jail.
fn confined(order: &Order, inside: &Inside<'_>, stream: &UnixStream, door: Option<&Door>) -> Result<Ending, RunError> {
    // What the program was refused is told by the groups that it has, and not by those that it was to have.
    let header = Header { groups: inside.groups(), ..order.header.clone() };
    let recorder = door.map(|door| Recorder::start(header, Path::new("/"), &door.path())).transpose()?;
    hello(stream, &Namespaces::own(order.private_network).map_err(RunError::Speak)?)?;
    give_streams(order.header.uid);
    let credentials = inside.user().map(|User { uid, gid, groups }| Credentials { uid, gid, groups });
    let command = Command { directory: None, ..command(order, credentials)? };
    // A copy of a process that hides from the jail hides from its tracer too (`ptrace(2)`, "Ptrace access mode
    // checking"). Until the program's exec no process of the jail is there to look; then it hides again.
    show_first_process(true)?;
    let mut is_hidden = false;
    let (ending, recorder) = follow(order, &command, stream, recorder, &mut |event| {
        if !is_hidden && matches!(event, Event::Exec { .. }) {
            is_hidden = true;
            if show_first_process(false).is_err() {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    if let (Some(recorder), Some(door)) = (recorder, door) {
        recorder.finish(ending, &door.target())?;
    }
    Ok(ending)
}

pub(super) fn show_first_process(shown: bool) -> Result<(), RunError> {
    let set = nix::sys::prctl::set_dumpable(shown);
    set.map_err(|errno| RunError::SetUp { what: "the jail's first process".to_owned(), source: errno.into() })
}

/// Makes the streams the program's own, as container runtimes do: who opens `/dev/stdout` opens the pipe anew, and may
/// only if it is theirs. They are the director's, and nobody else's. Where it cannot be done, the program does without.
fn give_streams(uid: u32) {
    let streams = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    for stream in [streams.0.as_fd(), streams.1.as_fd(), streams.2.as_fd()] {
        let _ = nix::unistd::fchown(stream, Some(uid.into()), None);
    }
}

/// The first message: the namespaces that commands of the host are to join.
pub(super) fn hello(stream: &UnixStream, namespaces: &Namespaces) -> Result<(), RunError> {
    namespaces.send(stream, GREETING).map_err(RunError::Speak)
}

fn command(order: &Order, credentials: Option<Credentials>) -> Result<Command, RunError> {
    let text = |argument: &String| {
        unescape(argument)
            .map(std::os::unix::ffi::OsStringExt::from_vec)
            .ok_or_else(|| RunError::Argument(argument.clone()))
    };
    let environment = order.environment.iter().map(|(name, value)| format!("{name}={value}").into());
    Ok(Command {
        program: order.header.program.below(Path::new("/")),
        arguments: order.header.command.iter().map(text).collect::<Result<_, _>>()?,
        environment: environment.collect(),
        directory: Some(order.header.directory.below(Path::new("/"))),
        credentials,
        leads_group: true,
        parent_death_signal: 0,
    })
}

/// Traces the program, tells what is worth telling, and lets an attendant answer the director meanwhile. How it ended, and
/// the record; `watch` sees each event first.
fn follow(
    order: &Order,
    command: &Command,
    stream: &UnixStream,
    recorder: Option<Recorder>,
    watch: &mut (dyn FnMut(&Event<'_>) -> ControlFlow<()> + Send),
) -> Result<(Ending, Option<Recorder>), RunError> {
    let confined = matches!(order.place, Place::Jail { .. });
    let awaited = order.awaited.as_deref().map(Awaited::new);
    let desk = Arc::new(Desk::new(command, confined, stream, recorder, awaited).map_err(RunError::Speak)?);
    let (attendant, reader) = (Arc::clone(&desk), stream.try_clone().map_err(RunError::Speak)?);
    // It ends with this process, and must not take the signals that the tracer waits for.
    let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK).map_err(|errno| RunError::Speak(errno.into()))?;
    std::thread::spawn(move || attendant.attend(reader));
    mask.thread_set_mask().map_err(|errno| RunError::Speak(errno.into()))?;
    let options = Options { grace: Some(Duration::from_secs(order.grace)), confined, ..Options::default() };
    let outcome = minjail_tracer::trace(command, &options, &mut |event| {
        if watch(&event).is_break() { ControlFlow::Break(()) } else { desk.take(&event) }
    });
    let (mut recorder, broken) = desk.close();
    let failure = recorder.as_mut().and_then(Recorder::failure);
    match (outcome, broken, failure) {
        (_, Some(error), _) => Err(RunError::Speak(error)),
        (_, None, Some(failure)) => Err(RunError::Record(failure)),
        (Err(error), None, None) => Err(error.into()),
        (Ok(outcome), None, None) => Ok((outcome.into(), recorder)),
    }
}
