//! The runner's desk: what the tracers of a workload and the attendant, who answers the director, share.
//!
//! The program is traced on the runner's first thread. A check that runs beside it, in its place, is traced on the
//! attendant's: what it touches is in the same record.

use std::collections::BTreeSet;
use std::io::{self, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream};
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use fs_err::File;
use minjail_tracer::{Command, Event, Options, SpawnError, TraceError};
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr};
use nix::unistd::Pid;

use super::answer::is_whole;
use super::awaited::Awaited;
use super::runner::opened;
use super::stream::{MOST, too_much};
use super::tell::Teller;
use super::wire::{Answer, Ask, Until, Word, receive, send};
use crate::jail::send_signal;
use crate::trace::{Ending, Recorder};

/// No process has this number.
const GONE: i32 = -1;

/// What is shared.
pub(super) struct Desk {
    /// What a check is run as: the program's own command.
    command: Command,
    /// The program is in a jail.
    is_confined: bool,
    /// The program's process; 0 until it has executed something, and [`GONE`] once it has ended: its number may be another's.
    program: AtomicI32,
    /// A signal that the program gets as soon as it has; 0 if there is none.
    owed: AtomicI32,
    /// The file by which the program shows that it is ready, if there is one.
    awaited: Option<Awaited>,
    writer: Mutex<UnixStream>,
    seen: Mutex<Seen>,
}

/// What the tracers have told.
struct Seen {
    recorder: Option<Recorder>,
    teller: Teller,
    last_event: Instant,
    broken: Option<io::Error>,
}

impl Desk {
    /// # Errors
    /// The stream cannot be shared.
    pub(super) fn new(
        command: &Command,
        is_confined: bool,
        stream: &UnixStream,
        recorder: Option<Recorder>,
        awaited: Option<Awaited>,
    ) -> io::Result<Self> {
        let (teller, last_event) = (Teller::new(is_confined), Instant::now());
        Ok(Self {
            command: command.clone(),
            is_confined,
            program: AtomicI32::new(0),
            owed: AtomicI32::new(0),
            awaited,
            writer: Mutex::new(stream.try_clone()?),
            seen: Mutex::new(Seen { recorder, teller, last_event, broken: None }),
        })
    }

    /// Takes an event of the program.
    pub(super) fn take(&self, event: &Event<'_>) -> ControlFlow<()> {
        if let Event::Exec { process, .. } = event {
            if self.program.compare_exchange(0, *process, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                self.pay();
            }
        }
        if let Event::Exit { process } = event
            && self.program.compare_exchange(*process, GONE, Ordering::SeqCst, Ordering::SeqCst).is_ok()
            && let Err(error) = self.tell(&Word::Gone)
        {
            self.seen.lock().expect("nobody panics while recording").broken = Some(error);
            return ControlFlow::Break(());
        }
        self.record(event)
    }

    /// Takes an event of whatever is traced.
    fn record(&self, event: &Event<'_>) -> ControlFlow<()> {
        let mut seen = self.seen.lock().expect("nobody panics while recording");
        seen.last_event = Instant::now();
        if let Err(error) = seen.teller.words(event).iter().try_for_each(|word| self.tell(word)) {
            seen.broken = Some(error);
            return ControlFlow::Break(());
        }
        seen.recorder.as_mut().map_or(ControlFlow::Continue(()), |recorder| recorder.take(event))
    }

    /// The record, and why the director could not be told, if that was so; nothing is recorded any more.
    pub(super) fn close(&self) -> (Option<Recorder>, Option<io::Error>) {
        let mut seen = self.seen.lock().expect("nobody panics while recording");
        (seen.recorder.take(), seen.broken.take())
    }

    fn tell(&self, word: &Word) -> io::Result<()> {
        send(&mut *self.writer.lock().expect("nobody panics while writing"), word)
    }

    /// Answers the director, until there is none.
    pub(super) fn attend(&self, stream: UnixStream) {
        attend(stream, |ask| self.respond(ask));
    }

    /// Answers one question. That a program has ended is told after the answer to what has ended it: else it would be taken for one that
    /// has ended by itself.
    fn respond(&self, ask: Ask) -> io::Result<()> {
        let writer = ask.is_signal().then(|| self.writer.lock().expect("nobody panics while writing"));
        let answer = Word::Answer(self.answer(ask));
        match writer {
            Some(mut writer) => send(&mut *writer, &answer),
            None => self.tell(&answer),
        }
    }

    fn answer(&self, ask: Ask) -> Answer {
        match ask {
            Ask::Signal(number) => self.signal(number),
            Ask::Kill => self.signal(libc::SIGKILL),
            Ask::Exchange { port, send, until, milliseconds } => {
                exchange(port, send.as_bytes(), &until, Duration::from_millis(milliseconds))
            }
            Ask::Port(port) => yes(is_open(port)),
            Ask::Socket(path) => yes(is_taken(Path::new(&path))),
            Ask::File => self.awaited.as_ref().map_or(Answer::No, Awaited::shows),
            Ask::Check { command, seconds } => self.check(&command, Duration::from_secs(seconds)),
            Ask::Idle { seconds } => {
                let seen = self.seen.lock().expect("nobody panics while recording");
                yes(seen.last_event.elapsed() >= Duration::from_secs(seconds))
            }
            Ask::Ready => self.note(Recorder::is_ready),
            Ask::Answered => {
                listening_ports().map_or(Answer::No, |open| self.note(|recorder| recorder.has_answered(&open)))
            }
        }
    }

    /// Has the recorder, if there is one, note something.
    fn note(&self, note: impl FnOnce(&mut Recorder)) -> Answer {
        let mut seen = self.seen.lock().expect("nobody panics while recording");
        yes(seen.recorder.as_mut().map(note).is_some())
    }

    /// Sends the program a signal, at once or when it has executed something; no, if it has ended.
    fn signal(&self, number: i32) -> Answer {
        self.owed.store(number, Ordering::SeqCst);
        yes(self.pay())
    }

    /// Sends the signal that is owed, if the program can have it: whichever comes last, the signal or the program, sends it. False if
    /// the program can have none any more.
    fn pay(&self) -> bool {
        let program = self.program.load(Ordering::SeqCst);
        let number = if program == 0 { 0 } else { self.owed.swap(0, Ordering::SeqCst) };
        if number != 0 && program != GONE {
            send_signal(program, number);
        }
        program != GONE
    }

    /// Runs a command beside the program, in its place, traced as it is; what it writes is not kept.
    fn check(&self, command: &[String], patience: Duration) -> Answer {
        let Some(program) = command.first() else { return Answer::Refused("the check is empty".to_owned()) };
        if self.program.load(Ordering::SeqCst) == 0 {
            return Answer::Refused("the program has not started yet".to_owned());
        }
        let command = Command {
            program: self.locate(program),
            arguments: command.iter().map(Into::into).collect(),
            leads_group: true,
            ..self.command.clone()
        };
        let options =
            Options { grace: Some(Duration::ZERO), beside: true, confined: self.is_confined, ..Options::default() };
        let process = AtomicI32::new(0);
        let (is_over, wait) = channel::<()>();
        let outcome = std::thread::scope(|scope| {
            let process = &process;
            scope.spawn(move || {
                // The sender is dropped when it is over.
                if wait.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                    let process = process.load(Ordering::SeqCst);
                    let _ = (process != 0).then(|| killpg(Pid::from_raw(process), Signal::SIGKILL));
                }
            });
            let outcome = minjail_tracer::trace(&command, &options, &mut |event| {
                if let Event::Exec { process: executing, .. } = &event {
                    let _ = process.compare_exchange(0, *executing, Ordering::SeqCst, Ordering::SeqCst);
                }
                self.record(&event)
            });
            drop(is_over);
            outcome
        });
        match outcome.map(Ending::from) {
            Ok(Ending::Exited(0)) => Answer::Yes,
            Ok(ending) => Answer::Refused(ending.to_string()),
            Err(error) if is_never_executed(&error) => Answer::NotExecuted(super::runner::chain(&error)),
            Err(error) => Answer::Refused(super::runner::chain(&error)),
        }
    }

    /// The program's path, as `execvp(3)` would find it.
    fn locate(&self, program: &str) -> PathBuf {
        if program.contains('/') {
            return PathBuf::from(program);
        }
        let path = self.command.environment.iter().find_map(|entry| entry.as_bytes().strip_prefix(b"PATH="));
        let path = path.map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default();
        let found = path.split(':').map(|directory| Path::new(directory).join(program)).find(|path| path.exists());
        found.unwrap_or_else(|| PathBuf::from(program))
    }
}

/// The TCP ports at which anybody listens in this network.
fn listening_ports() -> io::Result<BTreeSet<u16>> {
    let tables =
        [fs_err::read_to_string("/proc/thread-self/net/tcp"), fs_err::read_to_string("/proc/thread-self/net/tcp6")];
    match tables {
        [Ok(four), Ok(six)] => Ok(four.lines().chain(six.lines()).filter_map(listens_at).collect()),
        // A kernel may lack the newer protocol.
        [Ok(four), Err(_)] => Ok(four.lines().filter_map(listens_at).collect()),
        [Err(error), _] => Err(error),
    }
}

/// The port of a line of `/proc/net/tcp` (`proc(5)`), if it is of a socket that takes connections.
fn listens_at(line: &str) -> Option<u16> {
    // `TCP_LISTEN` of `include/net/tcp_states.h`.
    const LISTEN: &str = "0A";
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, _remote, state) = (fields.next()?, fields.next()?, fields.next()?);
    (state == LISTEN).then(|| u16::from_str_radix(local.rsplit(':').next()?, 16).ok())?
}

/// True if no other try would come to more, unless somebody makes the program meanwhile.
fn is_never_executed(error: &TraceError) -> bool {
    let TraceError::Spawn(SpawnError::Exec { source, .. }) = error else { return false };
    matches!(source, Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES | Errno::ENOEXEC)
}

/// Has `respond` answer what the director asks, until there is none.
pub(super) fn attend(stream: UnixStream, mut respond: impl FnMut(Ask) -> io::Result<()>) {
    let mut reader = BufReader::new(stream);
    while let Ok(Some(ask)) = receive(&mut reader) {
        if respond(ask).is_err() {
            break;
        }
    }
    // Without a director nobody would stop the program, nor hear of it.
    let _ = respond(Ask::Kill);
}

/// True if the TCP port takes connections.
pub(super) fn is_open(port: u16) -> bool {
    connect(port, || Duration::from_millis(100)).is_ok()
}

/// A connection to the port: of 127.0.0.1, or, as with a server that listens there alone, of `::1`.
fn connect(port: u16, patience: impl Fn() -> Duration) -> io::Result<TcpStream> {
    let to = |address: IpAddr| TcpStream::connect_timeout(&(address, port).into(), patience());
    to(Ipv4Addr::LOCALHOST.into()).or_else(|error| to(Ipv6Addr::LOCALHOST.into()).map_err(|_| error))
}

/// True if something takes connections at the unix socket, or datagrams. It is not waited for: one with a full queue does not (`connect(2)`,
/// EAGAIN), and who has never time to take any would be waited for without end.
fn is_taken(path: &Path) -> bool {
    let kinds = [SockType::Stream, SockType::SeqPacket, SockType::Datagram];
    let knock = |kind, path: &Path| {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket::socket(AddressFamily::Unix, kind, flags, None)?;
        socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?)
    };
    let is_it = |path: &Path| kinds.iter().any(|kind| knock(*kind, path).is_ok());
    // By way of its open directory, where its path is too long for an address: 107 bytes (`unix(7)`).
    let by_directory = || {
        let (directory, name) = (File::open(path.parent()?).ok()?, path.file_name()?);
        Some(is_it(&opened(&directory).join(name)))
    };
    if path.as_os_str().len() < 108 { is_it(path) } else { by_directory().unwrap_or(false) }
}

pub(super) fn yes(is: bool) -> Answer {
    if is { Answer::Yes } else { Answer::No }
}

pub(super) fn exchange(port: u16, text: &[u8], until: &Until, patience: Duration) -> Answer {
    match try_exchange(port, text, until, Instant::now() + patience) {
        Ok(received) => Answer::Received(received),
        Err(error) => Answer::Refused(error.to_string()),
    }
}

fn try_exchange(port: u16, text: &[u8], until: &Until, deadline: Instant) -> io::Result<Vec<u8>> {
    let left = || deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let mut stream = connect(port, left)?;
    stream.set_write_timeout(Some(left()))?;
    stream.write_all(text)?;
    let mut received = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        stream.set_read_timeout(Some(left()))?;
        match stream.read(&mut buffer)? {
            0 => return Ok(received),
            count if received.len() + count > MOST => {
                return Err(io::Error::other(format!("it {}", too_much())));
            }
            count => received.extend_from_slice(&buffer[..count]),
        }
        let is_there = match until {
            Until::Text(text) => received.windows(text.len().max(1)).any(|window| window == text.as_bytes()),
            Until::Reply { method } => is_whole(&received, method),
        };
        if is_there {
            return Ok(received);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn desk() -> (Desk, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        let command = Command {
            program: "/bin/sleep".into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            directory: None,
            credentials: None,
            leads_group: false,
            parent_death_signal: 0,
        };
        (Desk::new(&command, false, &near, None, None).unwrap(), far)
    }

    /// A program may be gone, and heard of, before the one that has sent it a signal comes to say so.
    #[test]
    fn an_end_is_told_after_the_answer_to_what_has_brought_it() {
        let (desk, far) = desk();
        let mut reader = BufReader::new(far);
        for _ in 0..100 {
            let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
            let process = i32::try_from(child.id()).unwrap();
            desk.program.store(process, Ordering::SeqCst);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    child.wait().unwrap();
                    let _ = desk.take(&Event::Exit { process });
                });
                desk.respond(Ask::Signal(libc::SIGKILL)).unwrap();
            });
            assert_eq!(receive(&mut reader).unwrap(), Some(Word::Answer(Answer::Yes)));
            assert_eq!(receive(&mut reader).unwrap(), Some(Word::Gone));
        }
    }

    /// A server that was ready before it was seen to start is stopped all the same.
    #[test]
    fn a_signal_waits_for_the_program() {
        let (desk, _far) = desk();
        let check = Ask::Check { command: vec!["/bin/true".to_owned()], seconds: 1 };
        assert!(matches!(desk.answer(check), Answer::Refused(_)), "there is nothing to check yet");
        desk.answer(Ask::Signal(libc::SIGUSR1));
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let process = i32::try_from(child.id()).unwrap();
        let _ = desk.take(&Event::Exec { process, arguments: Vec::new(), loaded: Vec::new(), apart: Vec::new() });
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGUSR1));
        // One that has ended is sent no more: its number may be another's by now, as here.
        let mut other = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        desk.program.store(i32::try_from(other.id()).unwrap(), Ordering::SeqCst);
        let _ = desk.take(&Event::Exit { process: i32::try_from(other.id()).unwrap() });
        assert_eq!(desk.answer(Ask::Signal(libc::SIGUSR1)), Answer::No);
        std::thread::sleep(Duration::from_millis(100));
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn a_server_at_the_newer_loopback_address_alone() {
        let Ok(listener) = std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) else { return };
        let port = listener.local_addr().unwrap().port();
        assert!(is_open(port));
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().and_then(|_| listener.accept()).unwrap();
            stream.write_all(b"hello").unwrap();
        });
        let until = Until::Text("hello".to_owned());
        assert_eq!(exchange(port, b"", &until, Duration::from_secs(20)), Answer::Received(b"hello".to_vec()));
        assert!(!is_open(1), "nothing listens there");
    }

    #[test]
    fn a_socket_that_takes_no_more_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("d".repeat(120));
        fs_err::create_dir(&deep).unwrap();
        std::os::unix::fs::symlink(&deep, directory.path().join("short")).unwrap();
        // By a path that is short enough for an address, and by one that is not.
        let spelled = [("socket", directory.path().join("socket")), ("short/socket", deep.join("socket"))];
        for (bound, path) in spelled {
            assert!(!is_taken(&path));
            let listener = socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
            let address = UnixAddr::new(&directory.path().join(bound)).unwrap();
            socket::bind(listener.as_raw_fd(), &address).unwrap();
            assert!(!is_taken(&path), "nobody listens yet");
            socket::listen(&listener, socket::Backlog::new(0).unwrap()).unwrap();
            assert!(is_taken(&path));
            assert!(!is_taken(&path), "its queue is full");
        }
        let datagrams = directory.path().join("datagrams");
        let _bound = std::os::unix::net::UnixDatagram::bind(&datagrams).unwrap();
        assert!(is_taken(&datagrams));
    }
}
