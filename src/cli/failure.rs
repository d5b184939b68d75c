//! What the user reads when something fails: what, why, and what to do.

use std::borrow::Cow;
use std::error::Error;
use std::io;

use anstyle::{AnsiColor, Style};
use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::exit::Exit;
use super::locate::{LocateError, is_bare_script};
use super::platform::foreign;
use crate::cache::CacheError;
use crate::elf::SearchError;
use crate::files::FilesError;
use crate::image::{ImageError, OutputError, ReadError};
use crate::jail::JailError;
use crate::manifest::DrawError;
use crate::path::escape;
use crate::profile::LoadError;
use crate::publish::{NO_TEMPORARY, PublishError, io_hint};
use crate::root::RootError;
use crate::trace::{RecordError, TraceError};
use crate::tree::TreeError;
use crate::workload::{DirectError, RunError};
use minjail_tracer::{SpawnError, TraceError as TracerError};

/// What becomes of programs for another machine.
pub(super) const ELSEWHERE: &str = "run it on a machine of its own kind, or register an emulator with binfmt_misc";

/// What becomes of programs without their interpreter.
const INTERPRETER: &str = "install the interpreter, or correct the program's first line";

/// A failure, ready to be told.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    error: Box<dyn Error>,
    hints: Vec<String>,
}

/// A failure of the command line itself.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Usage(pub(super) String);

impl Failure {
    pub(super) fn new(error: impl Error + 'static) -> Self {
        Self { exit: Exit::Failure, error: Box::new(error), hints: Vec::new() }
    }

    pub(super) fn usage(text: impl Into<String>) -> Self {
        Self::new(Usage(text.into()))
    }

    /// What was asked for could not be written to standard output.
    pub(super) fn unanswered(source: io::Error) -> Self {
        #[derive(Debug, thiserror::Error)]
        #[error("failed to write to standard output")]
        struct Unanswered {
            source: io::Error,
        }
        let is_closed = source.raw_os_error() == Some(libc::EBADF);
        let hint = if is_closed { Some("it is closed: redirect it to a file or a pipe") } else { io_hint(&source) };
        Self::new(Unanswered { source }).maybe_hint(hint)
    }

    pub(super) fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Says also what may have changed a file where a profile has commands beside its runs.
    pub(super) fn in_commands(self, has_commands: bool) -> Self {
        let found = self.error.downcast_ref::<FilesError>();
        let is_changed =
            matches!(found, Some(FilesError::Changed { .. } | FilesError::Torn { .. } | FilesError::Gone { .. }));
        if !has_commands || !is_changed {
            return self;
        }
        self.hint(
            "if it is a workload's setup or its teardown that changes what none of them has made: let them work on a copy, which setup makes",
        )
    }

    /// As [`hint`](Self::hint), where there is one.
    pub(super) fn maybe_hint(self, hint: Option<impl Into<String>>) -> Self {
        match hint {
            Some(hint) => self.hint(hint),
            None => self,
        }
    }

    /// The error and its causes, in one line.
    pub(super) fn text(&self) -> String {
        causes(&*self.error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
    }

    pub(super) fn first_hint(&self) -> Option<String> {
        self.hints().first().map(|&hint| hint.to_owned())
    }

    /// What can be done. A limit of the process may strike at any step: what else would help there is beside the point.
    fn hints(&self) -> Vec<&str> {
        match causes(&*self.error).find_map(limit) {
            Some(hint) => vec![hint],
            None => self.hints.iter().map(String::as_str).collect(),
        }
    }

    /// Tells it on standard error.
    pub(super) fn tell(&self) {
        let red = AnsiColor::Red.on_default().bold();
        let cyan = AnsiColor::Cyan.on_default().bold();
        let plain = Style::new();
        say!("{red}error{red:#}: {}", visible(&self.error.to_string()));
        let mut told = self.error.to_string();
        for cause in causes(&*self.error).skip(1) {
            // `#[error(transparent)]` says the same twice.
            let text = cause.to_string();
            if text != told {
                say!("{plain}  caused by: {}{plain:#}", visible(&text));
            }
            told = text;
        }
        for hint in self.hints() {
            say!("{cyan}hint{cyan:#}: {}", visible(hint));
        }
    }
}

/// An error, and what has caused it, one by the other.
pub(super) fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// How to raise the limit (`getrlimit(2)`) of which `cause` speaks.
fn limit(cause: &(dyn Error + 'static)) -> Option<&'static str> {
    let of_system = cause.downcast_ref::<io::Error>();
    // One that names the path keeps of the system's error the kind and the text alone, and the first process of a jail tells a text.
    let is_too_large = of_system.is_some_and(|error| error.kind() == io::ErrorKind::FileTooLarge);
    let of_table = [io::Error::from(Errno::EMFILE).to_string(), Errno::EMFILE.to_string()];
    let text = cause.to_string();
    if is_too_large {
        Some("allow larger files with `ulimit -f`")
    } else if of_table.iter().any(|words| text.ends_with(words)) {
        Some("allow more open files with `ulimit -n`")
    } else {
        None
    }
}

/// A text as a terminal may get it: names of files can have anything in them, as commands to the terminal.
fn visible(text: &str) -> Cow<'_, str> {
    let is_command = |character: char| character.is_control() && character != '\n' && character != '\t';
    if !text.contains(is_command) {
        return Cow::Borrowed(text);
    }
    let show = |character: char| {
        if is_command(character) { escape(character.to_string().as_bytes()) } else { character.to_string() }
    };
    Cow::Owned(text.chars().map(show).collect())
}

/// For errors that know themselves what can be done about them.
macro_rules! with_own_hint {
    ($($error:ty),+) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                let hint = error.hint();
                Self::new(error).maybe_hint(hint)
            }
        }
    )+};
}

with_own_hint!(CacheError, DrawError, ImageError, PublishError, ReadError, RootError, TreeError);

impl From<LocateError> for Failure {
    fn from(error: LocateError) -> Self {
        let (exit, hint) = match &error {
            LocateError::NotFound { .. } => (Exit::NotFound, "give its path, or add its directory to PATH"),
            LocateError::Interpreter { .. } => (Exit::NotFound, INTERPRETER),
            LocateError::NotExecutable { .. } => {
                (Exit::CannotExecute, "is it the right file? `chmod +x` makes it executable")
            }
            LocateError::Forbidden { .. } => {
                (Exit::CannotExecute, "let that user get there (`chmod`), or name a program that it may execute")
            }
            LocateError::Mounted { .. } => {
                (Exit::CannotExecute, "copy it to another, or let this one run programs: `mount -o remount,exec`")
            }
            LocateError::Directory { .. } => (Exit::CannotExecute, "name a program in it"),
            LocateError::Machine { .. } => (Exit::CannotExecute, ELSEWHERE),
            LocateError::Unseen { source, .. } if source.kind() != io::ErrorKind::PermissionDenied => {
                (Exit::CannotExecute, "nothing was run")
            }
            LocateError::Unseen { .. } | LocateError::Unreadable { .. } => {
                (Exit::CannotExecute, "run minjail as a user who may read it")
            }
        };
        Self::new(error).exit(exit).hint(hint)
    }
}

impl From<TracerError> for Failure {
    fn from(error: TracerError) -> Self {
        if let TracerError::Spawn(SpawnError::Exec { path, source: Errno::ENOEXEC }) = &error {
            let hint = if is_bare_script(path) {
                let path = path.display();
                format!("it has no `#!` line that names its interpreter: write one, or run it as `sh {path}`")
            } else if let Some(machine) = foreign(path) {
                format!("it is built for another architecture, {machine}: {ELSEWHERE}")
            } else {
                "it is neither a program for this machine nor a script that starts with `#!`".to_owned()
            };
            return Self::new(error).exit(Exit::CannotExecute).hint(hint);
        }
        let (exit, hint) = match &error {
            // The file was found, so it is what its first line names, or its loader, that was not.
            TracerError::Spawn(SpawnError::Exec { source: Errno::ENOENT, .. }) => (Exit::NotFound, Some(INTERPRETER)),
            TracerError::Spawn(SpawnError::Exec { .. }) => (Exit::CannotExecute, None),
            TracerError::Spawn(SpawnError::Seize(_)) => (
                Exit::Failure,
                Some(
                    "in a container, allow it with `--cap-add=SYS_PTRACE`; on a host, see /proc/sys/kernel/yama/ptrace_scope \
                     (3 forbids it to everyone); what is traced already, as under `strace -f`, can have no second tracer",
                ),
            ),
            TracerError::Spawn(SpawnError::Filter(_)) => (
                Exit::Failure,
                Some(
                    "the kernel needs CONFIG_SECCOMP_FILTER; in a container, allow it with `--security-opt seccomp=unconfined`",
                ),
            ),
            TracerError::Spawn(SpawnError::Identity { source: Errno::EPERM, .. }) => {
                (Exit::Failure, Some("only root may run a program as another user"))
            }
            // setgroups(2): it has no meaning in the user namespace, as no 4294967295 has.
            TracerError::Spawn(SpawnError::Identity { .. }) => {
                (Exit::Failure, Some("give numbers that this machine, or this container, has: see /proc/self/uid_map"))
            }
            TracerError::Spawn(SpawnError::Directory { .. }) => {
                (Exit::Failure, Some("name a directory that the user may enter, with `--workdir`"))
            }
            TracerError::Spawn(SpawnError::Fork(Errno::EAGAIN)) => {
                (Exit::Failure, Some("allow more processes with `ulimit -u`"))
            }
            TracerError::Blind => (
                Exit::Failure,
                Some(
                    "mount it: `mount -t proc proc /proc`; in a pid namespace of its own, `unshare --mount-proc` does",
                ),
            ),
            TracerError::Nested { .. } => {
                let hint = "run the program without its debugger, or sandbox, around it; what was built with AddressSanitizer looks \
                            for leaks by ptrace, unless ASAN_OPTIONS has `detect_leaks=0`";
                (Exit::Failure, Some(hint))
            }
            _ => (Exit::Failure, None),
        };
        Self::new(error).exit(exit).maybe_hint(hint)
    }
}

impl From<JailError> for Failure {
    fn from(error: JailError) -> Self {
        let exit = match error.exit_code() {
            126 => Exit::CannotExecute,
            127 => Exit::NotFound,
            _ => Exit::Failure,
        };
        let hint = error.hint();
        Self::new(error).exit(exit).maybe_hint(hint)
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Jail(error) => error.into(),
            RunError::Record(error) => error.into(),
            RunError::Trace(error) => error.into(),
            error => Self::new(error),
        }
    }
}

impl From<DirectError> for Failure {
    fn from(error: DirectError) -> Self {
        match error {
            DirectError::Interrupted(signal) => stopped(signal),
            error @ DirectError::Around { .. } => {
                Self::new(error).hint("run it by itself: it runs outside the jail, as the user who runs minjail")
            }
            error => Self::new(error),
        }
    }
}

/// A signal has asked for the end.
pub(super) fn stopped(signal: i32) -> Failure {
    let name = Signal::try_from(signal).map_or("a signal", Signal::as_str);
    Failure::usage(format!("stopped by {name}"))
        .exit(Exit::Signal(u8::try_from(signal).unwrap_or_default()))
        .hint("nothing half-written is left; run it again")
}

impl From<OutputError> for Failure {
    fn from(error: OutputError) -> Self {
        let hint = error.hint();
        Self::new(error).hint(hint)
    }
}

impl From<FilesError> for Failure {
    fn from(error: FilesError) -> Self {
        let hint = match &error {
            FilesError::Changed { .. } | FilesError::Torn { .. } => Some(
                "trace again, and let nothing else change the files before the image is built; or build without it, with `--exclude`",
            ),
            FilesError::Gone { .. } => Some(
                "trace again, and let nothing else change the files before the image is built; or build without it, with `--exclude`, as \
                 where the program itself has mounted what it lay on",
            ),
            FilesError::Runtimes { .. } => {
                Some("put it elsewhere, and trace again; or build without it, with `--exclude`")
            }
            FilesError::Unread { .. } => {
                Some("run the program as a user who may read it, as root may; or build without it, with `--exclude`")
            }
            FilesError::Conflict(_) => Some(
                "let both find the same: trace them again, with what one changes changed before, or as one workload; or build an image \
                 of each; or without it, with `--exclude`",
            ),
            FilesError::Nothing { .. } => {
                Some("is it spelled as in the root? a path and a glob start with `/`, a package is `deb:NAME`")
            }
            FilesError::Root(error) | FilesError::Search(SearchError::Root(error)) => error.hint(),
            FilesError::LdCache { .. } | FilesError::Search(_) => None,
        };
        Self::new(error).maybe_hint(hint)
    }
}

impl From<RecordError> for Failure {
    fn from(error: RecordError) -> Self {
        let hint = match &error {
            RecordError::NoTrace { .. } => Some("name another directory for the trace"),
            RecordError::StandardOutput => Some("name a directory; one that is called so is `./-`"),
            RecordError::Lost { .. } | RecordError::Changed { .. } => {
                Some("trace again: the trace was changed after it was made")
            }
            RecordError::Keep { .. } => {
                Some("the program changes this file, so its content must be kept: is there room in TMPDIR?")
            }
            RecordError::Temporary { .. } => Some(NO_TEMPORARY),
            RecordError::Write { .. } => {
                Some("name a directory for the trace that you may write, on a file system with room")
            }
            RecordError::Root(_) => None,
            RecordError::Publish(error) => error.hint(),
        };
        Self::new(error).maybe_hint(hint)
    }
}

impl From<TraceError> for Failure {
    fn from(error: TraceError) -> Self {
        let hint = match &error {
            TraceError::Format { .. } => Some("trace again with this minjail"),
            TraceError::Damaged { .. } => Some("lines of it are lost, or there twice: trace again"),
            TraceError::Write { .. } => None,
            _ => Some("a trace is the directory that `minjail trace` has written"),
        };
        Self::new(error).maybe_hint(hint)
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        let hint = match &error {
            LoadError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("name a file, or one of `minjail profile list`")
            }
            LoadError::Read { source, .. } if source.kind() == io::ErrorKind::IsADirectory => {
                Some("name the YAML file that is the profile")
            }
            LoadError::Read { source, .. } if source.kind() == io::ErrorKind::InvalidData => {
                Some("a profile is a YAML file in UTF-8; `minjail profile reference` prints what it may say")
            }
            LoadError::Mistake(_) | LoadError::Nonsense { .. } => {
                Some("`minjail profile reference` prints what a profile may say")
            }
            LoadError::Circle(_) => Some("take out one `extends` of those that lead back to it"),
            LoadError::Read { .. } => None,
        };
        Self::new(error).maybe_hint(hint)
    }
}
