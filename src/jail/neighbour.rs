//! What a jail has that its neighbours can share, and what a traced run on the host can have of a jail.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use nix::sys::stat::{Mode, stat};
use nix::unistd::{Gid, Uid, chown, mkdir};

use super::sys;

/// Namespaces that a command of the host can join: it sees that network then, and still the host's files.
#[derive(Debug, Default)]
pub struct Namespaces(Vec<OwnedFd>);

impl Namespaces {
    /// Those of this process, the first one of a jail.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn own(with_network: bool) -> io::Result<Self> {
        if !with_network {
            return Ok(Self::default());
        }
        // A network namespace can be joined by whoever has the capabilities of its user namespace (`setns(2)`).
        Ok(Self(vec![open("/proc/self/ns/user")?, open("/proc/self/ns/net")?]))
    }

    /// The network alone, for a process that is no jail's.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn network() -> io::Result<Self> {
        Ok(Self(vec![open("/proc/self/ns/net")?]))
    }

    /// Sends them to another process, with one byte.
    ///
    /// # Errors
    /// What `sendmsg(2)` says.
    pub fn send(&self, stream: &UnixStream, byte: u8) -> io::Result<()> {
        let descriptors: Vec<RawFd> = self.0.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let control = if descriptors.is_empty() { &[][..] } else { &rights[..] };
        sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(&[byte])], control, MsgFlags::empty(), None)?;
        Ok(())
    }

    /// Takes what [`Namespaces::send`] has sent.
    ///
    /// # Errors
    /// What `recvmsg(2)` says.
    pub fn receive(stream: &UnixStream) -> io::Result<(u8, Self)> {
        let mut byte = [0];
        let mut space = nix::cmsg_space!([RawFd; 2]);
        let mut parts = [IoSliceMut::new(&mut byte)];
        let message = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
        let mut descriptors = Vec::new();
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(received) = control {
                descriptors.extend(received.into_iter().map(sys::own));
            }
        }
        Ok((byte[0], Self(descriptors)))
    }

    /// Lets the process that `command` will start join them.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn join(&self, command: &mut Command) -> io::Result<()> {
        let copies = self.0.iter().map(OwnedFd::try_clone).collect::<io::Result<Vec<_>>>()?;
        sys::join_before_exec(command, copies);
        Ok(())
    }
}

/// Lets the process that `command` will start end with this thread, and lead a session and a process group of its own, so
/// that what it starts can be ended with it, and has no terminal, as in an engine. `prepare` runs in that process before
/// anything else, where nothing may allocate.
pub fn tie(command: &mut Command, prepare: fn()) {
    sys::die_with_starter(command, prepare);
}

fn open(path: &str) -> io::Result<OwnedFd> {
    Ok(fs_err::File::open(path)?.into_parts().0.into())
}

/// Gives this process, and what it starts, a network of its own with a loopback interface. For root.
///
/// # Errors
/// What `unshare(2)` or `netdevice(7)` says.
pub fn leave_network() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    Ok(sys::loopback_up()?)
}

/// Lets this process, and what it starts, see empty directories at `paths`, with the same owner and mode; they are made
/// in `fresh`, which is made too. For root.
///
/// # Errors
/// The path that could not be covered, and why.
pub fn empty_directories(paths: &[PathBuf], fresh: &Path) -> Result<(), (PathBuf, io::Error)> {
    let private = || -> Result<(), Errno> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        mkdir(fresh, Mode::S_IRWXU)
    };
    private().map_err(|errno| (fresh.to_path_buf(), errno.into()))?;
    for (index, path) in paths.iter().enumerate() {
        let cover = || -> io::Result<()> {
            let facts = stat(path)?;
            let empty = fresh.join(index.to_string());
            mkdir(&empty, Mode::S_IRWXU)?;
            chown(&empty, Some(Uid::from_raw(facts.st_uid)), Some(Gid::from_raw(facts.st_gid)))?;
            let mode = std::os::unix::fs::PermissionsExt::from_mode(facts.st_mode & 0o7777);
            File::set_permissions(&File::from(open(&empty.to_string_lossy())?), mode)?;
            Ok(mount(Some(&empty), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
        };
        cover().map_err(|error| (path.clone(), error))?;
    }
    Ok(())
}
