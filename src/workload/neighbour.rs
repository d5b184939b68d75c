//! Commands of the host that are run for a workload: its setup and teardown, probes, what tells that it is ready, and
//! what stops it.
//!
//! In: a command and how long it may take. Out: what it wrote, as much of it as is kept, and how it ended, or that it took too long. A
//! command that takes too long is killed with all that it has started in its process group, so that it never holds up a build.

use std::io::{self, Read};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use super::stream::keep_beginning;
use crate::jail;
use crate::path::escape;

/// How often it is looked whether a signal has come.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// So much of what a command wrote is told of one that failed.
const TOLD: usize = 2000;

/// What a command came to.
pub(super) struct Output {
    pub(super) status: ExitStatus,
    /// As much as is kept.
    pub(super) stdout: Vec<u8>,
    /// It has written more than that to standard output.
    pub(super) wrote_more: bool,
    /// As much as is kept.
    pub(super) stderr: Vec<u8>,
}

/// What a command has left in its pipes when it ends is read for no longer than this.
const AFTER_END: Duration = Duration::from_secs(1);

/// Why there is no output of a command.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    #[error(transparent)]
    Start(#[from] io::Error),
    #[error("it had not ended after {} s, and was killed", .0.as_secs_f64().ceil())]
    Slow(Duration),
    #[error("it was killed, since signal {0} asked for the end")]
    Interrupted(i32),
}

/// Runs `command` without input, for `patience` at most, or until there is a signal in `told_to_end`.
pub(super) fn finish(
    mut command: Command,
    patience: Duration,
    told_to_end: Option<&AtomicI32>,
) -> Result<Output, CommandError> {
    jail::tie(&mut command, minjail_tracer::restore_limits);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let process = Pid::from_raw(i32::try_from(child.id()).expect("the kernel's ids are ints"));
    let stdout = collect(child.stdout.take().expect("it is piped"));
    let stderr = collect(child.stderr.take().expect("it is piped"));
    let ended = ends(process, patience, told_to_end);
    if ended.is_err() {
        // It was not reaped, so its number, and that of its group, is no other's.
        let _ = killpg(process, Signal::SIGKILL);
    }
    let status = child.wait()?;
    ended?;
    // A daemon that it has left behind may hold the pipes for ever.
    let ((stdout, wrote_more), (stderr, _)) = (all(&stdout, AFTER_END), all(&stderr, AFTER_END));
    Ok(Output { status, stdout, wrote_more, stderr })
}

/// Waits until `process` has ended, without reaping it.
///
/// # Errors
/// The time is up first, or a signal has come.
fn ends(process: Pid, patience: Duration, told_to_end: Option<&AtomicI32>) -> Result<(), CommandError> {
    let (sender, ended) = channel();
    std::thread::spawn(move || {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        while waitid(Id::Pid(process), flags) == Err(Errno::EINTR) {}
        // Nobody listens any more if it took too long.
        let _ = sender.send(());
    });
    let start = Instant::now();
    loop {
        let left = patience.saturating_sub(start.elapsed());
        match ended.recv_timeout(left.min(BETWEEN_LOOKS)) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        match told_to_end.map_or(0, |told| told.load(Ordering::SeqCst)) {
            0 if left <= BETWEEN_LOOKS => return Err(CommandError::Slow(patience)),
            0 => {}
            signal => return Err(CommandError::Interrupted(signal)),
        }
    }
}

/// Reads `pipe`, as [`keep_beginning`] does.
fn collect(pipe: impl Read + Send + 'static) -> Receiver<Option<Vec<u8>>> {
    let (sender, pieces) = channel();
    std::thread::spawn(move || keep_beginning(pipe, |piece| sender.send(piece).is_ok()));
    pieces
}

/// What was read, until the pipe is closed or `patience` is over, and whether there was more.
fn all(pieces: &Receiver<Option<Vec<u8>>>, patience: Duration) -> (Vec<u8>, bool) {
    let deadline = Instant::now() + patience;
    let (mut bytes, mut is_cut) = (Vec::new(), false);
    while let Ok(piece) = pieces.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        is_cut |= piece.is_none();
        bytes.extend(piece.unwrap_or_default());
    }
    (bytes, is_cut)
}

/// How a command ended, and what it said last of why.
pub(super) fn ending(output: &Output) -> String {
    match last_words(&output.stderr) {
        words if words.is_empty() => output.status.to_string(),
        words => format!("{}: {words}", output.status),
    }
}

/// The end of what a command wrote, in one line.
pub(super) fn last_words(text: &[u8]) -> String {
    let text = text.trim_ascii();
    match text.len().checked_sub(TOLD) {
        Some(start @ 1..) => format!("... {}", escape(&text[start..])),
        _ => escape(text),
    }
}

#[cfg(test)]
mod tests {
    use super::super::stream::MOST;
    use super::*;

    fn shell(script: &str, patience: Duration) -> Result<Output, CommandError> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        finish(command, patience, None)
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
        let error = finish(command, Duration::from_millis(300), None).err().unwrap();
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
        let error = finish(Command::new("/no/such/program"), Duration::from_secs(60), None).err().unwrap();
        assert!(matches!(error, CommandError::Start(_)), "{error}");
    }

    #[test]
    fn of_what_writes_without_end_the_beginning_is_kept() {
        let output = shell("head -c 300000000 /dev/zero; echo end >&2", Duration::from_secs(60)).unwrap();
        assert_eq!((output.stdout.len(), output.wrote_more), (MOST, true));
        assert_eq!(output.stderr, b"end\n");
        let output = shell(&format!("head -c {MOST} /dev/zero"), Duration::from_secs(60)).unwrap();
        assert_eq!((output.stdout.len(), output.wrote_more), (MOST, false));
    }

    #[test]
    fn a_signal_ends_what_is_waited_for() {
        let told = AtomicI32::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(200));
                told.store(15, Ordering::SeqCst);
            });
            let mut command = Command::new("sleep");
            command.arg("1000");
            let error = finish(command, Duration::from_secs(60), Some(&told)).err().unwrap();
            assert!(matches!(error, CommandError::Interrupted(15)), "{error}");
        });
    }

    #[test]
    fn of_many_words_the_last_are_told() {
        assert_eq!(last_words(b" a\nb\n"), "a\\x0ab");
        let long = last_words(&[b'x'; 3 * TOLD]);
        assert_eq!(long.len(), TOLD + 4, "{long}");
    }
}
