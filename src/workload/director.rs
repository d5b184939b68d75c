//! The director: starts the runner, waits for the server, asks the probes, stops it, and judges.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use minjail_tracer::Forwarding;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::neighbour::{self, CommandError, Output, ending};
use super::runner::socket;
use super::stream::{self, keep_beginning};
use super::wire::{Answer, Ask, GREETING, Order, Place, Sought, Word, receive, send};
use crate::jail::{self, Namespaces};
use crate::profile::{Command, Moment, Ready, Seconds, Workload};
use crate::trace::Ending;

/// What came of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observation {
    /// `None` if the program could not be run at all.
    pub ending: Option<Ending>,
    /// It is a server, which ran until it was told to stop.
    pub was_stopped: bool,
    /// The first 128 MiB.
    pub stdout: Vec<u8>,
    /// It has written more than that to standard output.
    pub wrote_more: bool,
    /// The first 128 MiB.
    pub stderr: Vec<u8>,
    /// Paths that were looked for and not found, each as often as it was told, in that order.
    pub missed: Vec<Sought>,
    /// Files that were looked for and found, each once.
    pub met: Vec<Sought>,
    /// Directories that were listed, each once.
    pub listed: Vec<Sought>,
    /// Everything that was not as the profile wants it.
    pub faults: Vec<Fault>,
}

/// Something that was not as the profile wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The runner's own words.
    NotRun(String),
    EndedBeforeReady(Ending),
    NotReady {
        seconds: u64,
        /// What was still wrong, where that is known.
        why: Option<String>,
    },
    /// It may as well have ended: nobody knows whether it is a server.
    NeitherEndedNorReady(u64),
    NotEnded(u64),
    NotStopped(u64),
    Status {
        expected: u8,
        found: Ending,
    },
    Stdout(String),
    NeverReady(String),
    /// The image's health check.
    Check(String),
    Probe {
        number: usize,
        what: String,
    },
    Stop(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRun(why) => write!(formatter, "it could not be run: {why}"),
            Self::EndedBeforeReady(ending @ Ending::Exited(0)) => {
                write!(
                    formatter,
                    "it {ending} before it was ready: what goes on in the background ends with it in a container"
                )
            }
            Self::EndedBeforeReady(ending) => write!(formatter, "it {ending} before it was ready"),
            Self::NotReady { seconds, why: None } => write!(formatter, "it was not ready after {seconds} s"),
            Self::NotReady { seconds, why: Some(why) } => {
                write!(formatter, "it was not ready after {seconds} s: {why}")
            }
            Self::NeitherEndedNorReady(seconds) => {
                write!(formatter, "after {seconds} s it had neither ended nor become an idle server")
            }
            Self::NotEnded(seconds) => write!(formatter, "it had not ended, or answered, after {seconds} s"),
            Self::NotStopped(seconds) => write!(formatter, "it had not stopped {seconds} s after it was told to"),
            Self::Status { expected, found } => {
                write!(formatter, "it {found}, and status {expected} was expected")
            }
            Self::Stdout(fault) => write!(formatter, "its standard output {fault}"),
            Self::NeverReady(why) => write!(formatter, "it cannot become ready: {why}"),
            Self::Check(why) => write!(formatter, "the health check failed: {why}"),
            Self::Probe { number, what } => write!(formatter, "probe {number}: {what}"),
            Self::Stop(why) => write!(formatter, "the command that stops it failed: {why}"),
        }
    }
}

/// The run could not be observed.
#[derive(Debug, thiserror::Error)]
pub enum DirectError {
    #[error("failed to {step}")]
    Step { step: &'static str, source: std::io::Error },
    #[error("interrupted by signal {0}")]
    Interrupted(i32),
    #[error("the command `{command}` of {which} failed: {fault}")]
    Around { which: &'static str, command: String, fault: String },
}

pub(super) fn step(step: &'static str) -> impl FnOnce(std::io::Error) -> DirectError {
    move |source| DirectError::Step { step, source }
}

/// Runs `workload` as `order` says and observes it; `minjail` is the program that becomes the runner, called with
/// `arguments` and the path of the order.
///
/// # Errors
/// Nothing could be observed. What is wrong with the workload itself is a [`Fault`].
pub fn direct(
    order: &Order,
    workload: &Workload,
    minjail: &Path,
    arguments: &[&str],
) -> Result<Observation, DirectError> {
    let patience = workload.timeout.duration();
    let told_to_end = Arc::new(AtomicI32::new(0));
    let signals = Forwarding::while_waiting(Arc::clone(&told_to_end)).map_err(step("start a thread"))?;
    let prepared = workload.setup.iter().try_for_each(|command| around("setup", command, patience, Some(&told_to_end)));
    let observed = prepared.and_then(|()| match told_to_end.load(Ordering::SeqCst) {
        0 => Director::start(order, workload, minjail, arguments, &signals, &told_to_end)?.observe(workload),
        signal => Err(DirectError::Interrupted(signal)),
    });
    // Also of a setup that has failed half-way something may be left; and one that fails leaves the others their work.
    let after = workload.teardown.iter().map(|command| around("teardown", command, patience, None));
    let failed_after: Vec<DirectError> = after.filter_map(Result::err).collect();
    // What comes from here on is nothing of this run's any more.
    drop(signals);
    match told_to_end.load(Ordering::SeqCst) {
        0 => {}
        // Whatever failed by that, as the start of a runner that the signal has ended.
        signal => return Err(DirectError::Interrupted(signal)),
    }
    let observation = observed?;
    failed_after.into_iter().next().map_or(Ok(observation), Err)
}

/// Runs a command before or after a workload; it may take as long as the workload may, or until a signal is in `told_to_end`.
fn around(
    which: &'static str,
    command: &Command,
    patience: Duration,
    told_to_end: Option<&AtomicI32>,
) -> Result<(), DirectError> {
    let failed = |fault: String| DirectError::Around { which, command: command.0.join(" "), fault };
    let mut process = std::process::Command::new(&command.0[0]);
    process.args(&command.0[1..]);
    let output = match neighbour::finish(process, patience, told_to_end) {
        Ok(output) => output,
        Err(CommandError::Interrupted(signal)) => return Err(DirectError::Interrupted(signal)),
        Err(error) => return Err(failed(error.to_string())),
    };
    if output.status.success() {
        return Ok(());
    }
    Err(failed(ending(&output)))
}

/// What arrives while a workload runs.
enum Message {
    Word(Word),
    /// A piece of what was written; `None`: there is more than is kept.
    Stdout(Option<Vec<u8>>),
    Stderr(Option<Vec<u8>>),
    /// The runner has nothing more to say.
    Closed,
}

/// What has arrived so far.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) observation: Observation,
    pub(super) listening: BTreeSet<u16>,
    /// It has bound a unix socket, as one that serves there alone does.
    pub(super) has_bound: bool,
    /// The program's first process has ended.
    is_gone: bool,
    answer: Option<Answer>,
    closed: bool,
}

impl Seen {
    pub(super) fn is_over(&self) -> bool {
        self.closed || self.observation.ending.is_some() || !self.observation.faults.is_empty()
    }

    /// True if the program has ended, whatever it has left behind: an engine ends that with it.
    pub(super) fn has_ended(&self) -> bool {
        self.is_gone || self.is_over()
    }
}

pub(super) struct Director<'a> {
    child: Child,
    /// What asks minjail to end is for the workload.
    signals: &'a Forwarding,
    told_to_end: &'a AtomicI32,
    stream: UnixStream,
    pub(super) namespaces: Namespaces,
    messages: Receiver<Message>,
    readers: Vec<JoinHandle<()>>,
    pub(super) seen: Seen,
    pub(super) deadline: Instant,
    /// How long one run of the image's health check may take, if the image says so.
    pub(super) check_timeout: Option<Seconds>,
    /// A tracer tells where the program listens.
    pub(super) is_traced: bool,
    /// Others may listen in the workload's network.
    pub(super) shares_network: bool,
    /// What was wrong when it was last asked whether the server is ready.
    pub(super) not_ready: Option<String>,
    /// Since when the program of a check is known to be missing.
    pub(super) missing_since: Option<Instant>,
    /// Why it never will be ready.
    pub(super) hopeless: Option<String>,
}

impl<'a> Director<'a> {
    fn start(
        order: &Order,
        workload: &Workload,
        minjail: &Path,
        arguments: &[&str],
        signals: &'a Forwarding,
        told_to_end: &'a AtomicI32,
    ) -> Result<Self, DirectError> {
        let scratch = fs_err::File::open(&order.scratch).map_err(step("listen for the runner"))?;
        minjail_tracer::lift_limits();
        let listener = UnixListener::bind(socket(&scratch)).map_err(step("listen for the runner"))?;
        let mut runner = std::process::Command::new(minjail);
        hand_over(&mut runner, order, workload, arguments)?;
        let mut child = runner.spawn().map_err(step("start the runner"))?;
        signals.to(child.id().cast_signed());
        let stdout = child.stdout.take().expect("it is piped");
        let stderr = child.stderr.take().expect("it is piped");
        let (sender, messages) = channel();
        let mut seen = Seen::default();
        let greeted = greet(&listener, &stdout).map_err(step("hear the runner"))?;
        let Some((stream, namespaces, early)) = greeted else {
            let _ = child.wait();
            let mut said = Vec::new();
            let _ = { stderr }.read_to_end(&mut said);
            let said = crate::path::escape(said.trim_ascii());
            return Err(step("start the runner")(std::io::Error::other(said)));
        };
        seen.observation.faults.extend(early.map(Fault::NotRun));
        let reader = stream.try_clone().map_err(step("hear the runner"))?;
        let readers = vec![
            pass_on(stdout, sender.clone(), Message::Stdout),
            pass_on(stderr, sender.clone(), Message::Stderr),
            std::thread::spawn(move || hear(reader, &sender)),
        ];
        let deadline = Instant::now() + workload.timeout.duration();
        let is_traced = !matches!(order.place, Place::Engine(_));
        Ok(Self {
            child,
            signals,
            told_to_end,
            stream,
            namespaces,
            messages,
            readers,
            seen,
            deadline,
            check_timeout: workload.check_timeout,
            is_traced,
            shares_network: !order.private_network,
            not_ready: None,
            missing_since: None,
            hopeless: None,
        })
    }

    fn observe(mut self, workload: &Workload) -> Result<Observation, DirectError> {
        let timeout = workload.timeout.0;
        let mut faults = Vec::new();
        let mut was_stopped = false;
        if let Some(ready) = &workload.ready {
            if self.become_ready(ready.moment())? {
                self.settle(ready.settles);
                self.tell(&Ask::Ready);
                faults.extend(self.health(workload)?);
                for (index, probe) in workload.probes.iter().enumerate() {
                    let what =
                        if self.has_ended() { Some("the workload has ended".to_owned()) } else { self.probe(probe)? };
                    faults.extend(what.map(|what| Fault::Probe { number: index + 1, what }));
                }
                was_stopped = !self.has_ended();
                self.tell(&Ask::Answered);
                let (is_told, fault) = self.stop(workload)?;
                was_stopped &= is_told;
                faults.extend(fault);
            } else {
                faults.extend(self.unready(workload, ready));
            }
        } else if !self.wait_for(self.deadline, Seen::is_over) {
            faults.push(Fault::NotEnded(timeout));
        }
        self.end();
        match self.told_to_end.load(Ordering::SeqCst) {
            0 => {}
            signal => return Err(DirectError::Interrupted(signal)),
        }
        let mut observation = std::mem::take(&mut self.seen.observation);
        observation.was_stopped = was_stopped;
        observation.faults.extend(faults);
        if observation.faults.is_empty() {
            observation.faults = judge(workload, &observation);
        }
        Ok(observation)
    }

    /// What is wrong with a workload that did not become ready; nothing, if it may as well have ended and nobody was to ask it.
    fn unready(&mut self, workload: &Workload, ready: &Ready) -> Option<Fault> {
        if self.seen.has_ended() && self.hopeless.is_none() {
            // What it has left behind has its grace, and two seconds more to obey.
            self.wait_for(Instant::now() + workload.grace.duration() + Duration::from_secs(3), Seen::is_over);
        }
        let may_end = ready.may_end() && workload.probes.is_empty() && workload.check.is_none();
        let seconds = workload.timeout.0;
        if let Some(why) = self.hopeless.take() {
            return Some(Fault::NeverReady(why));
        }
        match self.seen.observation.ending {
            Some(ending) => (!may_end).then_some(Fault::EndedBeforeReady(ending)),
            None if self.seen.is_over() => None,
            None if ready.may_end() => Some(Fault::NeitherEndedNorReady(seconds)),
            None => Some(Fault::NotReady { seconds, why: self.not_ready.take() }),
        }
    }

    /// Runs the image's health check, if it has one, until it succeeds or the time is up, as an engine would.
    fn health(&mut self, workload: &Workload) -> Result<Option<Fault>, DirectError> {
        let Some(check) = &workload.check else { return Ok(None) };
        if self.become_ready(Moment::Check(check))? {
            return Ok(None);
        }
        let why = self.hopeless.take().or_else(|| self.not_ready.take());
        Ok(Some(Fault::Check(why.unwrap_or_else(|| "the server has ended".to_owned()))))
    }

    /// True if it has ended by now, as far as has been told.
    fn has_ended(&mut self) -> bool {
        // One that writes without end is not waited for.
        let until = Instant::now() + Duration::from_millis(100);
        while Instant::now() < until && self.take(Duration::ZERO) {}
        self.seen.has_ended()
    }

    /// Tells the server to stop, and waits for its end: whether it could be told, and what went wrong.
    fn stop(&mut self, workload: &Workload) -> Result<(bool, Option<Fault>), DirectError> {
        // What outlives the program has its grace too, and two seconds more to obey.
        let patience = workload.grace.duration() + Duration::from_secs(3);
        let is_told = if let Some(command) = &workload.stop.command {
            match self.neighbour(command, patience)? {
                Ok(output) if output.status.success() => true,
                Ok(output) => return Ok((true, Some(Fault::Stop(output.status.to_string())))),
                Err(why) => return Ok((true, Some(Fault::Stop(why)))),
            }
        } else {
            // Not one that has just ended, nor one that an engine has not started.
            self.ask(&Ask::Signal(workload.stop.signal.number())) == Answer::Yes
        };
        let stopped = self.wait_for(Instant::now() + patience, Seen::is_over);
        if !self.is_traced && workload.expect.status.is_none() {
            // A container's first process hears no signal that it has no handler for: engines kill it in the end.
            return Ok((is_told, None));
        }
        Ok((is_told, (!stopped).then_some(Fault::NotStopped(workload.grace.0))))
    }

    /// Sees to it that nothing of the workload is left, and takes what it still has to say.
    fn end(&mut self) {
        if self.seen.observation.ending.is_none() && !self.seen.closed {
            let _ = send(&mut self.stream, &Ask::Kill);
            self.wait_for(Instant::now() + Duration::from_secs(5), |seen| seen.closed);
            // With the tracer everything goes that it traces.
            let _ = self.child.kill();
        }
        // Its number may be another's afterwards.
        self.signals.to(0);
        let _ = self.child.wait();
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        while self.take(Duration::ZERO) {}
    }

    /// Puts a question to the runner.
    pub(super) fn ask(&mut self, ask: &Ask) -> Answer {
        self.ask_until(self.deadline.max(Instant::now() + Duration::from_secs(1)), ask)
    }

    /// Tells a runner that sees where the program listens, if there still is one.
    fn tell(&mut self, ask: &Ask) {
        if self.is_traced && !self.seen.is_over() {
            self.ask(ask);
        }
    }

    /// Puts a question to the runner, which is answered by then or not at all.
    pub(super) fn ask_until(&mut self, deadline: Instant, ask: &Ask) -> Answer {
        self.seen.answer = None;
        if let Err(error) = send(&mut self.stream, ask) {
            return Answer::Refused(error.to_string());
        }
        self.wait_for(deadline, |seen| seen.answer.is_some() || seen.closed);
        let why = if self.seen.closed { "the workload has ended" } else { "there was no answer in its time" };
        self.seen.answer.take().unwrap_or_else(|| Answer::Refused(why.to_owned()))
    }

    /// Runs a command of the host in the workload's network, for `patience` at most; what it came to, or why to nothing.
    pub(super) fn neighbour(
        &self,
        command: &Command,
        patience: Duration,
    ) -> Result<Result<Output, String>, DirectError> {
        let mut process = std::process::Command::new(&command.0[0]);
        process.args(&command.0[1..]);
        self.namespaces.join(&mut process).map_err(step("join the workload's network"))?;
        match neighbour::finish(process, patience, Some(self.told_to_end)) {
            Ok(output) => Ok(Ok(output)),
            Err(CommandError::Start(error)) => Err(step("run a command beside the workload")(error)),
            Err(CommandError::Interrupted(signal)) => Err(DirectError::Interrupted(signal)),
            Err(slow @ CommandError::Slow(_)) => Ok(Err(slow.to_string())),
        }
    }

    /// How long is left until the workload must have answered.
    pub(super) fn patience(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Takes messages until `is_so` or the deadline; says which.
    pub(super) fn wait_for(&mut self, deadline: Instant, is_so: impl Fn(&Seen) -> bool) -> bool {
        loop {
            if is_so(&self.seen) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if !self.take(left) {
                return is_so(&self.seen);
            }
        }
    }

    /// Takes one message; `false` if none came.
    fn take(&mut self, patience: Duration) -> bool {
        let message = match self.messages.recv_timeout(patience) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return false,
        };
        let observation = &mut self.seen.observation;
        match message {
            Message::Stdout(Some(mut bytes)) => observation.stdout.append(&mut bytes),
            Message::Stderr(Some(mut bytes)) => observation.stderr.append(&mut bytes),
            Message::Stdout(None) => observation.wrote_more = true,
            Message::Stderr(None) => {}
            Message::Closed => self.seen.closed = true,
            Message::Word(Word::Listening { port, .. }) => {
                self.seen.listening.insert(port);
            }
            Message::Word(Word::Bound) => self.seen.has_bound = true,
            Message::Word(Word::Missed(missed)) => observation.missed.push(missed),
            Message::Word(Word::Met(met)) => observation.met.push(met),
            Message::Word(Word::Listed(listed)) => observation.listed.push(listed),
            Message::Word(Word::Answer(answer)) => self.seen.answer = Some(answer),
            Message::Word(Word::Gone) => self.seen.is_gone = true,
            Message::Word(Word::Ended(ending)) => observation.ending = Some(ending),
            Message::Word(Word::Failed(why)) => observation.faults.push(Fault::NotRun(why)),
        }
        true
    }
}

impl Drop for Director<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is wrong with how a run ended, of a server that was stopped or of what ended by itself, and what it wrote.
fn judge(workload: &Workload, observation: &Observation) -> Vec<Fault> {
    let mut faults = Vec::new();
    let Some(found) = observation.ending else { return vec![Fault::NotRun("nobody saw its end".to_owned())] };
    let expected = workload.expect.status.or((!observation.was_stopped).then_some(0));
    if let Some(expected) = expected.filter(|expected| found != Ending::Exited(i32::from(*expected))) {
        faults.push(Fault::Status { expected, found });
    }
    let check = workload.expect.stdout.as_ref();
    let fault = check.and_then(|check| stream::fault(check, &observation.stdout, observation.wrote_more));
    faults.extend(fault.map(Fault::Stdout));
    faults
}

/// Tells the runner by files in its scratch directory what it is to run, and makes `runner` start it.
fn hand_over(
    runner: &mut std::process::Command,
    order: &Order,
    workload: &Workload,
    arguments: &[&str],
) -> Result<(), DirectError> {
    let file = order.scratch.join("order.json");
    let text = serde_json::to_vec(order).expect("an order is plain data");
    fs_err::write(&file, text).map_err(step("write the order"))?;
    let input = in_memory(workload.stdin.as_deref().unwrap_or_default()).map_err(step("write the input"))?;
    runner.args(arguments).arg(&file).stdin(Stdio::from(input));
    runner.stdout(Stdio::piped()).stderr(Stdio::piped());
    // In a group of its own: a server that ends its group when it stops, as Apache does, would end minjail with it.
    jail::tie(runner, minjail_tracer::restore_limits);
    Ok(())
}

/// What a program is given to read: a file, so that it may read it twice, and with no name, so that none is told of that is minjail's own where
/// it opens `/dev/stdin`.
fn in_memory(text: &str) -> std::io::Result<std::fs::File> {
    let mut file = std::fs::File::from(memfd_create(c"stdin", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    // Anew, from its start and to be read only.
    Ok(fs_err::File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?.into_parts().0)
}

/// Waits for the runner's first message: its stream, the namespaces to join, and, in place of these, why it failed.
/// `None` if it ended without one.
fn greet(
    listener: &UnixListener,
    stdout: &impl AsFd,
) -> std::io::Result<Option<(UnixStream, Namespaces, Option<String>)>> {
    // Nothing writes to standard output before the runner has said something: an event there means that it has ended.
    let mut waiting =
        [PollFd::new(listener.as_fd(), PollFlags::POLLIN), PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
    while poll(&mut waiting, PollTimeout::NONE) == Err(nix::errno::Errno::EINTR) {}
    if !waiting[0].any().unwrap_or_default() {
        return Ok(None);
    }
    let (stream, _) = listener.accept()?;
    let (byte, namespaces) = Namespaces::receive(&stream)?;
    if byte == GREETING {
        return Ok(Some((stream, namespaces, None)));
    }
    // It failed before it could run anything; its first byte is that of the word.
    let mut line = vec![byte];
    BufReader::new(&stream).read_until(b'\n', &mut line)?;
    let why = match serde_json::from_slice(&line) {
        Ok(Word::Failed(why)) => why,
        _ => "the runner has died".to_owned(),
    };
    Ok(Some((stream, Namespaces::default(), Some(why))))
}

/// Passes on what is kept of what is read.
fn pass_on(
    from: impl Read + Send + 'static,
    to: Sender<Message>,
    of: fn(Option<Vec<u8>>) -> Message,
) -> JoinHandle<()> {
    std::thread::spawn(move || keep_beginning(from, |piece| to.send(of(piece)).is_ok()))
}

fn hear(stream: UnixStream, to: &Sender<Message>) {
    let mut reader = BufReader::new(stream);
    while let Ok(Some(word)) = receive(&mut reader) {
        if to.send(Message::Word(word)).is_err() {
            return;
        }
    }
    let _ = to.send(Message::Closed);
}
