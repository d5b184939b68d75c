//! The exit statuses of minjail: those that docker, env and timeout users know.

use crate::jail::Ended;
use crate::trace::Ending;

/// How minjail ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// minjail did what it was asked for, and ran no program.
    Success,
    /// A question was answered with no: `why` of a path that is not in the image.
    No,
    /// An image does not do in the jail what its profile says.
    Unproved,
    /// minjail itself failed, or was not used rightly.
    Failure,
    /// The program is there, but cannot be executed.
    CannotExecute,
    /// The program is not there.
    NotFound,
    /// The program's own status.
    Program(u8),
    /// A signal killed the program.
    Signal(u8),
}

impl Exit {
    /// The status for the shell.
    ///
    /// | status | meaning |
    /// |---|---|
    /// | 0, 1 | yes, no |
    /// | 3 | the image does not do what its profile says |
    /// | 125 | minjail's own failure |
    /// | 126 | the program cannot be executed |
    /// | 127 | the program was not found |
    /// | 128 + n | the program was killed by signal n |
    /// | else | the program's own |
    pub fn status(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::No => 1,
            Self::Unproved => 3,
            Self::Failure => 125,
            Self::CannotExecute => 126,
            Self::NotFound => 127,
            Self::Program(status) => status,
            Self::Signal(signal) => 128u8.saturating_add(signal),
        }
    }
}

impl From<Ending> for Exit {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Exited(status) => Self::Program(status as u8),
            Ending::Killed(signal) => Self::Signal(signal as u8),
        }
    }
}

impl From<Ended> for Exit {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Exited(status) => Self::Program(status),
            Ended::Killed(signal) => Self::Signal(signal as u8),
        }
    }
}
