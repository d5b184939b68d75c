//! The runner: traces the program in its place, tells what it sees, and asks in the workload's stead.

use std::io::{BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use minjail_tracer::{Command, Credentials, Event, Options, Outcome};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::tell::Teller;
use super::wire::{Answer, Ask, GREETING, Order, Place, Word, receive, send};
use crate::jail::{self, Ended, Inside, Jail, JailError, Namespaces, Network, User};
use crate::path::unescape;
use crate::trace::{Ending, RecordError, Recorder};

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
    #[error("the argument `{0}` cannot be read back")]
    Argument(String),
    #[error("failed to set up {what}")]
    SetUp { what: String, source: std::io::Error },
}

/// The name of the socket in the scratch directory.
pub(super) const SOCKET: &str = "words";

/// Carries out the order in `file`. What fails is also told to the director.
///
/// # Errors
/// The director cannot be reached, or the program cannot be run.
pub fn run(file: &Path) -> Result<(), RunError> {
    let bytes = fs_err::read(file).map_err(RunError::Order)?;
    let order: Order = serde_json::from_slice(&bytes).map_err(|error| RunError::Order(error.into()))?;
    let stream = UnixStream::connect(order.scratch.join(SOCKET)).map_err(RunError::Speak)?;
    let ending = match &order.place {
        Place::Host { trace } => on_host(&order, &stream, trace).map(Some),
        Place::Jail { tree, trace } => in_jail(&order, &stream, tree.clone(), trace.as_deref()),
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
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn on_host(order: &Order, stream: &UnixStream, target: &Path) -> Result<Ending, RunError> {
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
    let private = if order.private_network { Namespaces::network() } else { Ok(Namespaces::default()) };
    hello(stream, &private.map_err(RunError::Speak)?)?;
    let header = &order.header;
    let credentials = Credentials { uid: header.uid, gid: header.gid, groups: header.groups.clone() };
    let is_own = nix::unistd::geteuid().as_raw() == header.uid && !nix::unistd::geteuid().is_root();
    let command = command(order, (!is_own).then_some(credentials))?;
    let outcome = follow(order, &command, stream, &mut |event| recorder.take(event));
    let outcome = match outcome {
        Err(error) => return Err(recorder.failure().map_or(error, RunError::Record)),
        Ok(outcome) => outcome,
    };
    recorder.finish(outcome, target)?;
    Ok(outcome)
}

/// `None`: the ending was told by the jail's first process.
fn in_jail(
    order: &Order,
    stream: &UnixStream,
    tree: PathBuf,
    trace: Option<&Path>,
) -> Result<Option<Ending>, RunError> {
    let header = &order.header;
    let jail = Jail {
        tree,
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
struct Door {
    directory: std::fs::File,
    name: std::ffi::OsString,
}

impl Door {
    fn open(trace: &Path) -> Result<Self, RunError> {
        let failed = |source| RunError::SetUp { what: "the trace".to_owned(), source };
        let parent = trace.parent().unwrap_or(Path::new("/"));
        let name = trace.file_name().unwrap_or_default().to_owned();
        Ok(Self { directory: fs_err::File::open(parent).map_err(failed)?.into_parts().0, name })
    }

    /// `proc(5)`, `/proc/pid/fd`: the link leads to the directory itself, outside of this process's root too.
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&self.directory)))
    }
}

/// The first process of the jail.
fn confined(order: &Order, inside: &Inside<'_>, stream: &UnixStream, door: Option<&Door>) -> Result<Ending, RunError> {
    let start = |door: &Door| Recorder::start(order.header.clone(), Path::new("/"), &door.path());
    let mut recorder = door.map(start).transpose()?;
    hello(stream, &Namespaces::own(order.private_network).map_err(RunError::Speak)?)?;
    let credentials = inside.user().map(|User { uid, gid, groups }| Credentials { uid, gid, groups });
    let command = Command { directory: None, ..command(order, credentials)? };
    // A copy of a process that hides from the jail hides from its tracer too (`ptrace(2)`, "Ptrace access mode
    // checking"). Until the program's exec no process of the jail is there to look; then it hides again.
    show_first_process(true)?;
    let mut is_hidden = false;
    let outcome = follow(order, &command, stream, &mut |event| {
        if !is_hidden && matches!(event, Event::Exec { .. }) {
            is_hidden = true;
            if show_first_process(false).is_err() {
                return ControlFlow::Break(());
            }
        }
        recorder.as_mut().map_or(ControlFlow::Continue(()), |recorder| recorder.take(event))
    });
    match (outcome, recorder, door) {
        (Ok(ending), Some(recorder), Some(door)) => {
            recorder.finish(ending, &door.path().join(&door.name))?;
            Ok(ending)
        }
        (Err(error), Some(mut recorder), _) => Err(recorder.failure().map_or(error, RunError::Record)),
        (outcome, ..) => outcome,
    }
}

fn show_first_process(shown: bool) -> Result<(), RunError> {
    let set = nix::sys::prctl::set_dumpable(shown);
    set.map_err(|errno| RunError::SetUp { what: "the jail's first process".to_owned(), source: errno.into() })
}

/// The first message: the namespaces that commands of the host are to join.
fn hello(stream: &UnixStream, namespaces: &Namespaces) -> Result<(), RunError> {
    namespaces.send(stream, GREETING).map_err(RunError::Speak)
}

fn command(order: &Order, credentials: Option<Credentials>) -> Result<Command, RunError> {
    let text = |argument: &String| {
        unescape(argument)
            .map(std::os::unix::ffi::OsStringExt::from_vec)
            .ok_or_else(|| RunError::Argument(argument.clone()))
    };
    let environment = order.environment.iter().map(|(name, value)| (name.into(), value.into()));
    Ok(Command {
        program: order.header.program.below(Path::new("/")),
        arguments: order.header.command.iter().map(text).collect::<Result<_, _>>()?,
        environment: environment.collect(),
        directory: Some(order.header.directory.below(Path::new("/"))),
        credentials,
        leads_group: true,
    })
}

/// Traces the program, tells what is worth telling, and lets an attendant answer the director meanwhile.
fn follow(
    order: &Order,
    command: &Command,
    stream: &UnixStream,
    sink: &mut (dyn FnMut(&Event<'_>) -> ControlFlow<()> + Send),
) -> Result<Ending, RunError> {
    let writer = Arc::new(Mutex::new(stream.try_clone().map_err(RunError::Speak)?));
    let program = Arc::new(AtomicI32::new(0));
    let attendant = Attendant { writer: Arc::clone(&writer), program: Arc::clone(&program) };
    let reader = stream.try_clone().map_err(RunError::Speak)?;
    // It ends with this process.
    std::thread::spawn(move || attendant.attend(reader));
    let mut teller = Teller::new(matches!(order.place, Place::Jail { .. }));
    let tell = |word: &Word| send(&mut *writer.lock().expect("nobody panics while writing"), word);
    let mut broken = None;
    let outcome = minjail_tracer::trace(
        command,
        &Options { grace: Some(Duration::from_secs(order.grace)), ..Options::default() },
        &mut |event| {
            if let Event::Exec { process, .. } = &event {
                let _ = program.compare_exchange(0, *process, Ordering::SeqCst, Ordering::SeqCst);
            }
            if let Err(error) = teller.words(&event).iter().try_for_each(&tell) {
                broken = Some(error);
                return ControlFlow::Break(());
            }
            sink(&event)
        },
    );
    match (outcome, broken) {
        (_, Some(error)) => Err(RunError::Speak(error)),
        (Err(error), None) => Err(error.into()),
        (Ok(Outcome::Exited(status)), None) => Ok(Ending::Exited(status)),
        (Ok(Outcome::Killed(signal)), None) => Ok(Ending::Killed(signal)),
    }
}

/// Answers the director.
struct Attendant {
    writer: Arc<Mutex<UnixStream>>,
    program: Arc<AtomicI32>,
}

impl Attendant {
    fn attend(&self, stream: UnixStream) {
        let mut reader = BufReader::new(stream);
        while let Ok(Some(ask)) = receive(&mut reader) {
            let answer = match ask {
                Ask::Signal(number) => self.signal(number),
                Ask::Kill => self.signal(libc::SIGKILL),
                Ask::Exchange { port, send, until, milliseconds } => {
                    exchange(port, send.as_bytes(), until.as_deref(), Duration::from_millis(milliseconds))
                }
                Ask::Port(port) => {
                    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                    yes(TcpStream::connect_timeout(&address, Duration::from_millis(100)).is_ok())
                }
                Ask::Socket(path) => yes(UnixStream::connect(path).is_ok()),
                Ask::File(path) => yes(Path::new(&path).exists()),
            };
            let mut writer = self.writer.lock().expect("nobody panics while writing");
            if send(&mut *writer, &Word::Answer(answer)).is_err() {
                break;
            }
        }
        // Without a director nobody would stop the program.
        self.signal(libc::SIGKILL);
    }

    fn signal(&self, number: i32) -> Answer {
        let program = self.program.load(Ordering::SeqCst);
        let signal = Signal::try_from(number).ok().filter(|_| program != 0);
        yes(signal.is_some_and(|signal| kill(Pid::from_raw(program), signal).is_ok()))
    }
}

fn yes(is: bool) -> Answer {
    if is { Answer::Yes } else { Answer::No }
}

fn exchange(port: u16, text: &[u8], until: Option<&str>, patience: Duration) -> Answer {
    match try_exchange(port, text, until, Instant::now() + patience) {
        Ok(received) => Answer::Received(received),
        Err(error) => Answer::Refused(error.to_string()),
    }
}

fn try_exchange(port: u16, text: &[u8], until: Option<&str>, deadline: Instant) -> std::io::Result<Vec<u8>> {
    let left = || deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, left())?;
    stream.set_write_timeout(Some(left()))?;
    stream.write_all(text)?;
    let mut received = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        stream.set_read_timeout(Some(left()))?;
        match stream.read(&mut buffer)? {
            0 => return Ok(received),
            count => received.extend_from_slice(&buffer[..count]),
        }
        let is_there = |until: &str| received.windows(until.len().max(1)).any(|window| window == until.as_bytes());
        if until.is_some_and(is_there) {
            return Ok(received);
        }
    }
}
