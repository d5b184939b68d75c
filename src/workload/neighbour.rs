//! Commands of the host that are run for a workload: its setup and teardown, probes, what tells that it is ready, and
//! what stops it.
//!
//! In: a command and how long it may take. Out: what it wrote and how it ended, or that it took too long. A command that
//! takes too long is killed with all that it has started in its process group, so that it never holds up a build.

use std::io::{self, Read};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::jail;

/// What a command has left in its pipes when it ends is read for no longer than this.
const AFTER_END: Duration = Duration::from_secs(1);

/// Why there is no output of a command.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    #[error(transparent)]
    Start(#[from] io::Error),
    #[error("it had not ended after {} s, and was killed", .0.as_secs_f64().ceil())]
    Slow(Duration),
}

/// Runs `command` without input, for `patience` at most.
pub(super) fn finish(mut command: Command, patience: Duration) -> Result<Output, CommandError> {
    jail::tie(&mut command, minjail_tracer::restore_limits);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let process = Pid::from_raw(i32::try_from(child.id()).expect("the kernel's ids are ints"));
    let stdout = collect(child.stdout.take().expect("it is piped"));
    let stderr = collect(child.stderr.take().expect("it is piped"));
    let has_ended = ends(process, patience);
    if !has_ended {
        // It was not reaped, so its number, and that of its group, is no other's.
        let _ = killpg(process, Signal::SIGKILL);
    }
    let status = child.wait()?;
    if !has_ended {
        return Err(CommandError::Slow(patience));
    }
    // A daemon that it has left behind may hold the pipes for ever.
    Ok(Output { status, stdout: all(&stdout, AFTER_END), stderr: all(&stderr, AFTER_END) })
}

/// Waits until `process` has ended, without reaping it; `false` if the time is up first.
fn ends(process: Pid, patience: Duration) -> bool {
    let (sender, ended) = channel();
    std::thread::spawn(move || {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        while waitid(Id::Pid(process), flags) == Err(Errno::EINTR) {}
        // Nobody listens any more if it took too long.
        let _ = sender.send(());
    });
    ended.recv_timeout(patience).is_ok()
}

/// Reads all of `pipe`, piece by piece.
fn collect(mut pipe: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, pieces) = channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            if sender.send(buffer[..count].to_vec()).is_err() {
                break;
            }
        }
    });
    pieces
}

/// What was read, until the pipe is closed or `patience` is over.
fn all(pieces: &Receiver<Vec<u8>>, patience: Duration) -> Vec<u8> {
    let deadline = Instant::now() + patience;
    let mut bytes = Vec::new();
    while let Ok(mut piece) = pieces.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        bytes.append(&mut piece);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, patience: Duration) -> Result<Output, CommandError> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        finish(command, patience)
    }

    #[test]
    fn what_ends_has_told_all() {
        let output = shell("head -c 300000 /dev/zero; echo words >&2; exit 3", Duration::from_secs(60)).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(3), 300_000));
        assert_eq!(output.stderr, b"words\n");
    }

    #[test]
    fn what_does_not_end_is_killed_with_all_that_it_has_started() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "sleep 1000 & sleep 1000"]);
        // Held by both, and by nobody else: its end is theirs.
        let held = writer.try_clone().unwrap();
        nix::fcntl::fcntl(&held, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
        drop(writer);
        let error = finish(command, Duration::from_millis(300)).unwrap_err();
        drop(held);
        assert!(matches!(error, CommandError::Slow(_)), "{error}");
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_daemon_that_holds_the_pipes_does_not_hold_up_the_rest() {
        let output = shell("setsid sleep 3 & echo started", Duration::from_secs(60)).unwrap();
        assert_eq!(output.stdout, b"started\n");
    }

    #[test]
    fn what_cannot_be_started() {
        let error = finish(Command::new("/no/such/program"), Duration::from_secs(60)).unwrap_err();
        assert!(matches!(error, CommandError::Start(_)), "{error}");
    }
}
