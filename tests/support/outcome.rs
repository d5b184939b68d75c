//! What came of a command: its status as a shell would say it, and its two streams.

use std::fmt;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};

/// What came of a command.
#[derive(Clone)]
pub(crate) struct Outcome {
    /// The command line, for messages.
    pub(crate) command: String,
    /// 128 + n for a command that signal n ended.
    pub(crate) status: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Outcome {
    /// Standard output as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Itself, if the command succeeded.
    #[track_caller]
    pub(crate) fn success(self) -> Self {
        assert_eq!(self.status, 0, "the command failed\n{self}");
        self
    }

    /// Fails unless standard output and the status are those of `native`.
    #[track_caller]
    pub(crate) fn assert_same_as(&self, native: &Self) {
        let same = self.status == native.status && self.stdout == native.stdout;
        assert!(same, "this differs from the native run\n{self}\nnatively:\n{native}");
    }

    /// Fails unless this is how minjail reports its own failures: the status, `error:` with each of `words`, a hint,
    /// and not a word on standard output.
    #[track_caller]
    pub(crate) fn assert_refused(&self, status: i32, words: &[&str]) {
        assert_eq!(self.status, status, "{self}");
        assert_eq!(self.text(), "", "{self}");
        for word in ["error: ", "hint: "].iter().chain(words) {
            assert!(self.stderr.contains(word), "the message lacks {word:?}\n{self}");
        }
        assert!(!self.stderr.contains("panicked at"), "{self}");
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command, status, stderr, .. } = self;
        write!(out, "$ {command}\nstatus {status}\nstdout:\n{}\nstderr:\n{stderr}", self.text())
    }
}

/// Runs a command to its end, without input.
pub(crate) fn outcome_of(command: &mut Command) -> Outcome {
    let output = command.stdin(Stdio::null()).output();
    outcome(command, output)
}

/// Runs a command to its end, with `input` on its standard input.
pub(crate) fn outcome_with_input(command: &mut Command, input: &[u8]) -> Outcome {
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let output = spawned.and_then(|mut child| {
        let mut stdin = child.stdin.take().expect("it was asked for");
        // Written from another thread: a command that answers before it has read everything would block both.
        std::thread::scope(|scope| {
            // A command that does not want all of its input is free to close it.
            scope.spawn(move || stdin.write_all(input).ok());
            child.wait_with_output()
        })
    });
    outcome(command, output)
}

fn outcome(command: &Command, output: std::io::Result<Output>) -> Outcome {
    let output = output.unwrap_or_else(|error| panic!("failed to start {command:?}: {error}"));
    let status = output.status.code().or(output.status.signal().map(|signal| 128 + signal));
    Outcome {
        command: format!("{command:?}"),
        status: status.expect("a process that ended has a code or a signal"),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
