//! The terminal of this session: which process group has it.

use std::os::fd::OwnedFd;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, tcgetpgrp, tcsetpgrp};

/// Held as long as somebody asks of it.
#[derive(Debug)]
pub(crate) struct Terminal(OwnedFd);

impl Terminal {
    /// `None`: there is none.
    pub(crate) fn ours() -> Option<Self> {
        open("/dev/tty", OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC, Mode::empty()).ok().map(Self)
    }

    /// True of the group that may read from it, and that its keys send signals to.
    pub(crate) fn is_with(&self, group: Pid) -> bool {
        tcgetpgrp(&self.0) == Ok(group)
    }

    /// From a group in the background only with SIGTTOU blocked (`tcsetpgrp(3)`).
    pub(crate) fn give_to(&self, group: Pid) {
        // It fails for a group that is gone: then nobody needs it.
        let _ = tcsetpgrp(&self.0, group);
    }
}
