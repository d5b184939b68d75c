//! What can go wrong, what to do about it, and how PID 1 tells the caller.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::path::JailPath;
use crate::root::RootError;

/// A jail could not be built, or its program not be executed.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    #[error("the command is empty")]
    EmptyCommand,
    #[error("`{0}` contains a NUL byte")]
    Nul(String),
    #[error("a jail must be entered from a process with one thread, but this one has {0}")]
    Threads(usize),
    #[error("`/proc` does not show this process under its number, or is not there")]
    Proc,
    #[error("failed to take `/` for the tree of a jail: it is the host's own root")]
    HostRoot,
    #[error(transparent)]
    Tree(#[from] RootError),
    #[error("failed to mount at `{0}`, which is in the tree but is not a directory")]
    NotADirectory(JailPath),
    /// The error is fs-err's, which names the path.
    #[error(transparent)]
    File(#[from] io::Error),
    #[error("failed to create the namespaces of the jail")]
    Namespaces { obstacle: Option<Obstacle>, source: io::Error },
    #[error("failed to map ids with `{program}`, which says: {said}")]
    MapIds { program: &'static str, said: String },
    #[error("failed to {step}")]
    Step { step: String, obstacle: Option<Obstacle>, source: io::Error },
    #[error("failed to execute `{program}`: it is not in the jail")]
    NotFound { program: String },
    #[error("failed to execute `{program}`: it is in the jail, but its interpreter is not")]
    NoInterpreter { program: String },
    #[error("failed to execute `{program}`")]
    NotExecutable { program: String, source: io::Error },
    #[error("the jail's first process panicked")]
    Panicked,
}

impl JailError {
    /// The exit status that `env(1)`, `timeout(1)` and docker users know for this: 127 if the program was not found,
    /// 126 if it could not be executed, 125 for the rest.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotFound { .. } | Self::NoInterpreter { .. } => 127,
            Self::NotExecutable { .. } => 126,
            _ => 125,
        }
    }

    /// What the user may do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Namespaces { obstacle, .. } | Self::Step { obstacle, .. } => obstacle.map(Obstacle::hint),
            Self::Proc => {
                Some("mount it: `mount -t proc proc /proc`; in a pid namespace of its own, `unshare --mount-proc` does")
            }
            Self::HostRoot => {
                Some("`minjail trace -o OUT -- CMD` runs a program of this machine, and packs what it needs")
            }
            Self::MapIds { .. } => Some(
                "`newuidmap` and `newgidmap` must be setuid root or have file capabilities, and `/etc/subuid` and \
                 `/etc/subgid` must agree with them; without lines for your user there, the jail has one user only",
            ),
            Self::NotFound { .. } => Some("give the path that a program has in the image, or a name in its PATH"),
            Self::NotExecutable { source, .. } if source.raw_os_error() == Some(libc::ENOEXEC) => {
                Some("it is neither a program for this machine nor a script that starts with `#!`")
            }
            _ => None,
        }
    }
}

/// What on this machine is in the way of a jail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// Debian's and Arch's switch is off.
    CloneSwitch,
    /// No (more) user namespaces may be made.
    NamespaceLimit,
    /// Ubuntu's `AppArmor` takes the capabilities from new user namespaces.
    AppArmor,
    /// A container's seccomp filter.
    Container,
    /// In a chroot no user namespace can be made.
    Chroot,
    /// The kernel lacks something.
    Kernel,
    /// A container hides parts of `/proc`; the kernel then allows no fresh one.
    MaskedProc,
    /// The tree cannot be the lower layer of an overlay.
    Overlay,
    /// What is to be given to its owner has no room.
    Memory,
}

impl Obstacle {
    fn hint(self) -> &'static str {
        match self {
            Self::CloneSwitch => {
                "user namespaces are switched off for ordinary users; as root: `sysctl kernel.unprivileged_userns_clone=1`"
            }
            Self::NamespaceLimit => {
                "no more user namespaces may be created; as root raise `sysctl user.max_user_namespaces` (and see \
                 `max_mnt_namespaces`, `max_pid_namespaces` and `max_net_namespaces` beside it)"
            }
            Self::AppArmor => {
                "AppArmor restricts user namespaces; as root: `sysctl kernel.apparmor_restrict_unprivileged_userns=0`, \
                 or give minjail an AppArmor profile with `userns,`"
            }
            Self::Container => {
                "this container may not create namespaces; start it with `--security-opt seccomp=unconfined` (docker: \
                 also `--security-opt systempaths=unconfined --security-opt apparmor=unconfined`) or `--privileged`"
            }
            Self::Chroot => "a process in a chroot may not create user namespaces; leave the chroot",
            Self::Kernel => "this kernel lacks user, mount, pid or network namespaces",
            Self::MaskedProc => {
                "this container hides parts of `/proc`, so that no fresh one can be mounted; start it with `--security-opt \
                 systempaths=unconfined` (docker), `--security-opt unmask=ALL` (podman) or `--privileged`"
            }
            Self::Overlay => {
                "the jail needs an overlayfs in a user namespace (Linux 5.11), and a tree on a file system that can be \
                 its lower layer, without mounts inside the tree; copy the tree to a local disk or a tmpfs"
            }
            Self::Memory => {
                "files that are not root's are copied into the jail's memory, which may be half of the machine's; as root \
                 none is copied"
            }
        }
    }

    /// What is the reason that namespaces could not be made, as far as one can tell, where `present` is what
    /// restricts them on this machine.
    pub(super) fn of_namespaces(errno: Errno, present: &[Self]) -> Option<Self> {
        match errno {
            // user_namespaces(7): ENOSPC since Linux 4.9, EUSERS before, for a limit or more than 32 levels.
            Errno::ENOSPC | Errno::EUSERS => Some(Self::NamespaceLimit),
            Errno::ENOSYS | Errno::EINVAL => Some(Self::Kernel),
            Errno::EPERM | Errno::EACCES => present.first().copied(),
            _ => None,
        }
    }

    /// The same for a step inside the new namespaces.
    pub(super) fn of_step(kind: Kind, errno: Errno, present: &[Self]) -> Option<Self> {
        let refused = matches!(errno, Errno::EPERM | Errno::EACCES);
        let present = |obstacle: Self| (refused && present.contains(&obstacle)).then_some(obstacle);
        match kind {
            Kind::Other => None,
            Kind::Own => (errno == Errno::ENOSPC).then_some(Self::Memory),
            Kind::Overlay => present(Self::AppArmor).or(Some(Self::Overlay)),
            Kind::Proc => present(Self::AppArmor).or(refused.then_some(Self::MaskedProc)),
            Kind::Mount => present(Self::AppArmor).or(present(Self::Container)),
        }
    }
}

/// What a failed step was about, as far as it matters to the hint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    Overlay,
    Own,
    Proc,
    Mount,
    Other,
}

/// What the processes inside tell the caller: one JSON value over a pipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Word {
    Failed {
        step: String,
        kind: Kind,
        errno: i32,
    },
    NotFound {
        program: String,
    },
    NoInterpreter {
        program: String,
    },
    NotExecutable {
        program: String,
        errno: i32,
    },
    Panicked,
    /// The program was killed by a signal; PID 1 cannot end itself by one (`pid_namespaces(7)`).
    Killed(i32),
}

/// The inner end of the pipe; closed by exec.
#[derive(Debug)]
pub(super) struct Report(File);

impl Report {
    pub(super) fn new(pipe: OwnedFd) -> Self {
        Self(File::from(pipe))
    }

    pub(super) fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Says `word`. If the caller is gone there is nobody to tell, and the jail dies with it.
    pub(super) fn say(&self, word: &Word) {
        let json = serde_json::to_vec(word).expect("strings and numbers always serialise");
        let _ = (&self.0).write_all(&json);
    }
}

/// The word that was said, if any; to be called when everyone who could speak has ended.
pub(super) fn hear(pipe: OwnedFd) -> io::Result<Option<Word>> {
    let mut json = Vec::new();
    File::from(pipe).read_to_end(&mut json)?;
    if json.is_empty() { Ok(None) } else { Ok(Some(serde_json::from_slice(&json)?)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart() {
        let container = [Obstacle::Container];
        assert_eq!(Obstacle::of_namespaces(Errno::EPERM, &[]), None);
        assert_eq!(Obstacle::of_namespaces(Errno::EPERM, &container), Some(Obstacle::Container));
        assert_eq!(Obstacle::of_namespaces(Errno::ENOSPC, &container), Some(Obstacle::NamespaceLimit));
        assert_eq!(Obstacle::of_step(Kind::Proc, Errno::EPERM, &container), Some(Obstacle::MaskedProc));
        assert_eq!(Obstacle::of_step(Kind::Mount, Errno::EPERM, &container), Some(Obstacle::Container));
        assert_eq!(Obstacle::of_step(Kind::Mount, Errno::ENOENT, &container), None);
        assert_eq!(Obstacle::of_step(Kind::Other, Errno::EPERM, &container), None);
        assert_eq!(Obstacle::of_step(Kind::Overlay, Errno::EACCES, &[Obstacle::AppArmor]), Some(Obstacle::AppArmor));
        assert_eq!(Obstacle::of_step(Kind::Own, Errno::ENOSPC, &[]), Some(Obstacle::Memory));
        assert_eq!(Obstacle::of_step(Kind::Own, Errno::EPERM, &container), None);
    }

    #[test]
    fn exit_codes_are_those_of_env() {
        let program = String::from("x");
        assert_eq!(JailError::NotFound { program: program.clone() }.exit_code(), 127);
        let source = io::Error::from_raw_os_error(libc::EACCES);
        assert_eq!(JailError::NotExecutable { program, source }.exit_code(), 126);
        assert_eq!(JailError::EmptyCommand.exit_code(), 125);
    }
}
