//! A workload that a container engine runs: nothing is traced, and what can be asked is asked from outside.
//!
//! In: an engine's command line. Out: how it ended, told to the director, and answers meanwhile. The engine's client ends with
//! the program's status. Signals go by the engine's own command; bubblewrap has none, and its program is the child of
//! its child.

use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};

use super::desk::{attend, exchange, is_open, yes};
use super::neighbour::{self, ending};
use super::runner::{RunError, hello};
use super::wire::{Answer, Ask, Engine, Order, SIGNAL, Word, send};
use crate::jail::{self, Namespaces, send_signal};
use crate::trace::Ending;

/// Runs the engine until its program has ended.
pub(super) fn in_engine(order: &Order, stream: &UnixStream, engine: &Engine) -> Result<Ending, RunError> {
    if order.private_network {
        jail::leave_network().map_err(|source| RunError::SetUp { what: "a network".to_owned(), source })?;
    }
    let network = if order.private_network { Namespaces::network() } else { Ok(Namespaces::default()) };
    hello(stream, &network.map_err(RunError::Speak)?)?;
    let failed = |source| RunError::SetUp { what: format!("`{}`", engine.command[0]), source };
    let mut client = Command::new(&engine.command[0]);
    client.args(&engine.command[1..]);
    jail::tie(&mut client, || ());
    let mut child = client.spawn().map_err(failed)?;
    let attendant = Arc::new(Attendant {
        client: i32::try_from(child.id()).expect("the kernel's ids are ints"),
        kill: engine.kill.clone(),
        exec: engine.exec.clone(),
    });
    end_in_order(&attendant).map_err(|errno| failed(errno.into()))?;
    let reader = stream.try_clone().map_err(RunError::Speak)?;
    let mut writer = stream.try_clone().map_err(RunError::Speak)?;
    // It ends with this process.
    let answering = Arc::new(Mutex::new(()));
    let turn = Arc::clone(&answering);
    let respond = move |ask: Ask| {
        let _turn = ask.is_signal().then(|| turn.lock());
        send(&mut writer, &Word::Answer(attendant.answer(ask)))
    };
    std::thread::spawn(move || attend(reader, respond));
    let status = child.wait().map_err(failed)?;
    // The end of a container is told after the answer to what has ended it.
    drop(answering.lock());
    Ok(match status.signal() {
        Some(signal) => Ending::Killed(signal),
        None => Ending::Exited(status.code().unwrap_or_default()),
    })
}

/// Sees to it that this process goes after the container, and not before it, which would go on: a signal is the container's end,
/// and so is the end of the director, of which the attendant hears.
fn end_in_order(attendant: &Arc<Attendant>) -> Result<(), Errno> {
    let signals: SigSet = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM].into_iter().collect();
    signals.thread_block()?;
    set_pdeathsig(None)?;
    let attendant = Arc::clone(attendant);
    std::thread::spawn(move || {
        while signals.wait().is_ok() {
            attendant.answer(Ask::Kill);
        }
    });
    Ok(())
}

/// Answers the director.
struct Attendant {
    client: i32,
    kill: Vec<String>,
    /// What runs a command beside it.
    exec: Vec<String>,
}

impl Attendant {
    fn answer(&self, ask: Ask) -> Answer {
        match ask {
            Ask::Signal(number) => self.signal(number),
            Ask::Kill => match self.signal(libc::SIGKILL) {
                // There may be no container yet, and then there is to be none.
                Answer::No => yes(send_signal(self.client, libc::SIGKILL)),
                killed => killed,
            },
            Ask::Exchange { port, send, until, milliseconds } => {
                exchange(port, send.as_bytes(), &until, Duration::from_millis(milliseconds))
            }
            Ask::Port(port) => yes(is_open(port)),
            Ask::Check { command, seconds } if !self.exec.is_empty() => {
                self.check(&command, Duration::from_secs(seconds))
            }
            // An engine's network is not seen.
            Ask::Ready | Ask::Answered => Answer::No,
            Ask::Socket(_) | Ask::File | Ask::Check { .. } | Ask::Idle { .. } => {
                Answer::Refused("nobody sees into the container".to_owned())
            }
        }
    }

    fn check(&self, command: &[String], patience: Duration) -> Answer {
        let mut process = Command::new(&self.exec[0]);
        process.args(&self.exec[1..]).args(command);
        match neighbour::finish(process, patience, None) {
            Ok(output) if output.status.success() => Answer::Yes,
            Ok(output) => Answer::Refused(ending(&output)),
            Err(error) => Answer::Refused(error.to_string()),
        }
    }

    fn signal(&self, number: i32) -> Answer {
        let number_text = number.to_string();
        let words: Vec<&String> =
            self.kill.iter().map(|word| if word == SIGNAL { &number_text } else { word }).collect();
        if let Some((program, arguments)) = words.split_first() {
            let output = Command::new(program).args(arguments).output();
            return yes(output.is_ok_and(|output| output.status.success()));
        }
        yes(send_signal(self.program(), number))
    }

    /// The child of the client's child; the client, while there is none.
    fn program(&self) -> i32 {
        let child_of = |process: i32| -> Option<i32> {
            let children = fs_err::read_to_string(format!("/proc/{process}/task/{process}/children")).ok()?;
            children.split_whitespace().next()?.parse().ok()
        };
        child_of(self.client).and_then(child_of).unwrap_or(self.client)
    }
}
