//! What the director and the runner say to each other: lines of JSON over a unix socket.

use std::io::{self, BufRead, Write};
use std::path::PathBuf;

use minjail_tracer::Protocol;
use serde::{Deserialize, Serialize};

use super::outset::Outset;
use crate::jail::Base;
use crate::path::JailPath;
use crate::trace::{Ending, Header};

/// What a runner is to do; it reads this from a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    /// How the run stands in a trace: also program, arguments, directory and user.
    pub header: Header,
    /// The whole environment.
    pub environment: Vec<(String, String)>,
    pub place: Place,
    /// True if the network is to be the workload's own.
    pub private_network: bool,
    /// Directories that are to be empty.
    pub state: Vec<PathBuf>,
    /// The file by which the program shows that it is ready, if there is one.
    pub awaited: Option<PathBuf>,
    /// Seconds for processes that outlive the program.
    pub grace: u64,
    /// A directory for passing things; out of the workload's sight.
    pub scratch: PathBuf,
}

/// Where a workload runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// On the host; the trace is kept at this path. What was changed or mounted `since` may be the work of commands beside the runs.
    Host { trace: PathBuf, since: Option<Outset> },
    /// In a container.
    Engine(Engine),
    /// In a jail made of this; the trace, if one is wanted, is kept at that path of the host.
    Jail { base: Base, trace: Option<PathBuf> },
}

/// How a container engine runs a workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Engine {
    pub command: Vec<String>,
    /// What sends the program a signal, but for the signal's number, which comes in place of [`SIGNAL`]; empty if the program
    /// is the child of the command's child, and hears signals itself.
    pub kill: Vec<String>,
    /// What runs a command in the container, but for that; empty if nothing does.
    pub exec: Vec<String>,
}

/// Stands for a signal's number.
pub const SIGNAL: &str = "{signal}";

/// The runner's first byte, with the namespaces to join; no message begins so.
pub(super) const GREETING: u8 = b'!';

/// From the runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Word {
    Listening {
        port: u16,
        protocol: Protocol,
    },
    /// It is about to bind a unix socket.
    Bound,
    /// It could not find something.
    Missed(Sought),
    /// It found a file.
    Met(Sought),
    /// It listed a directory.
    Listed(Sought),
    Answer(Answer),
    /// The program's first process has ended; what it has left behind may go on for a while.
    Gone,
    Ended(Ending),
    /// The runner itself failed.
    Failed(String),
}

/// A path that was looked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Sought {
    pub path: JailPath,
    /// The program that looked for it, as text.
    pub program: String,
}

/// From the director.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ask {
    /// Send this signal to the program.
    Signal(i32),
    /// Kill everything.
    Kill,
    /// Send the text to the port and read until the end, or until this has come.
    Exchange { port: u16, send: String, until: Until, milliseconds: u64 },
    /// Does the TCP port take connections?
    Port(u16),
    /// Does the unix socket take connections?
    Socket(String),
    /// Is the file there by which the program shows that it is ready?
    File,
    /// Run this beside the program, in its place, traced: does it end with status 0 within this time?
    Check { command: Vec<String>, seconds: u64 },
    /// Has nothing been touched for so long?
    Idle { seconds: u64 },
    /// The program is ready: where it listens by now is no matter of what it is asked.
    Ready,
    /// Every question was asked: where it listens since it was ready, and does not any more, was for one answer.
    Answered,
}

impl Ask {
    /// True for a signal to the program, by which it may end.
    pub(super) fn is_signal(&self) -> bool {
        matches!(self, Self::Signal(_) | Self::Kill)
    }
}

/// What has come when nothing more is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Until {
    Text(String),
    /// An HTTP answer to a request by this method.
    Reply {
        method: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    Yes,
    No,
    Received(Vec<u8>),
    Refused(String),
    /// There is no such program, or it may not be executed.
    NotExecuted(String),
}

pub(super) fn send(writer: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    writer.write_all(&line)
}

/// The next message; `None` at the end.
pub(super) fn receive<T: for<'de> Deserialize<'de>>(reader: &mut impl BufRead) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    if reader.read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&line)?))
}
