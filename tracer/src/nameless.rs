//! What a call asks for that has no path in it: files by handle, and the ports of sockets.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, readlink};
use nix::sys::stat::{Mode, fstat};

use crate::TraceError;
use crate::engine::Engine;
use crate::event::{Access, Event, Gap, Protocol};
use crate::inspect::Asking;
use crate::race::Led;
use crate::{look, memory, proc, sys};

/// So many sockets are remembered.
const LIMIT: usize = 1 << 16;

impl Engine<'_> {
    /// A file by handle: found by opening it, as the task is about to. Where it leads, if that is told; `None`: something is missed
    /// unless the kernel refuses the call.
    pub(crate) fn handle(
        &mut self,
        asking: Asking,
        mount: i32,
        address: u64,
        access: Access,
    ) -> Result<Option<Led>, TraceError> {
        let nowhere = Some(Led::default());
        // struct file_handle: length, type, and at most MAX_HANDLE_SZ (128) bytes.
        let mut header = [0; 8];
        let mut bytes = [0; 128];
        if let Err(unread) = memory::read(asking.task, address, &mut header) {
            return self.unread(asking.process, unread).map(|()| nowhere);
        }
        let word = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let Some(bytes) = bytes.get_mut(..word(0) as usize) else { return Ok(nowhere) };
        if let Err(unread) = memory::read(asking.task, address.wrapping_add(8), bytes) {
            return self.unread(asking.process, unread).map(|()| nowhere);
        }
        if self.places.may_wait() && self.is_mount_served(asking.task, mount) {
            return self.gap(asking.process, Gap::Served).map(|()| nowhere);
        }
        let mount = if mount == libc::AT_FDCWD {
            open(format!("/proc/{}/cwd", asking.task).as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
        } else {
            sys::copy_descriptor(asking.process, asking.task, mount)
        };
        let opened = mount.and_then(|mount| sys::open_handle(mount.as_fd(), word(4).cast_signed(), bytes));
        let file = match opened {
            Ok(file) => file,
            // The program is about to hear the same.
            Err(Errno::ESTALE | Errno::EINVAL | Errno::EBADF) => return Ok(nowhere),
            Err(_) => return Ok(None),
        };
        let door = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        let Ok(path) = readlink(door.as_str()).map(std::os::unix::ffi::OsStringExt::into_vec) else { return Ok(None) };
        let stat = fstat(&file).ok();
        let is_there = || stat.is_some_and(|stat| look::lstat(&path).is_ok_and(|there| look::is_same(&there, &stat)));
        // What the kernel makes up, as a namespace is, has another text there than a path (`fs/nsfs.c`, `ns_dname`).
        if !path.starts_with(b"/") {
            return Ok(Some(Led::to(Vec::new(), stat.as_ref(), true, &asking.entry)));
        }
        // A file whose directory the kernel does not know has no path, and a name that is gone is none.
        if !is_there() {
            return Ok(None);
        }
        self.at(asking, path.clone(), access)?;
        Ok(Some(Led::to(path, stat.as_ref(), false, &asking.entry)))
    }

    /// A socket is about to take connections: at which port?
    pub(crate) fn listening(&mut self, asking: Asking, descriptor: i32, kind: i32) -> Result<(), TraceError> {
        let Asking { process, task, .. } = asking;
        let Ok(socket) = sys::copy_descriptor(process, task, descriptor) else { return Ok(()) };
        let Ok((found, Some(port))) = sys::socket_port(socket.as_fd()) else { return Ok(()) };
        if found != kind {
            return Ok(());
        }
        let cookie = sys::socket_cookie(socket.as_fd()).unwrap_or_default();
        let is_lasting = self.chosen.contains(&cookie) || !proc::may_be_given(port);
        self.tell(Event::Listen { process, port, protocol: Protocol::Tcp, is_lasting })
    }

    /// A datagram socket takes datagrams as soon as it has a port; whether to serve, or to hear the answers of a server, tells what
    /// follows.
    pub(crate) fn bound(&mut self, asking: Asking, descriptor: i32, port: u16) -> Result<(), TraceError> {
        let Asking { process, task, .. } = asking;
        let Ok(socket) = sys::copy_descriptor(process, task, descriptor) else { return Ok(()) };
        let Ok((kind, _)) = sys::socket_port(socket.as_fd()) else { return Ok(()) };
        let cookie = sys::socket_cookie(socket.as_fd()).unwrap_or_default();
        if kind == libc::SOCK_DGRAM && port != 0 {
            if self.datagrams.len() >= LIMIT {
                self.tell_datagrams(None)?;
            }
            self.datagrams.insert(cookie, (process, port));
            return self.tell(Event::Listen { process, port, protocol: Protocol::Udp, is_lasting: false });
        }
        if port == 0 {
            // What it was bound to before, if it was, has failed.
            self.chosen.remove(&cookie);
            self.datagrams.remove(&cookie);
            return Ok(());
        }
        if self.chosen.len() >= LIMIT {
            self.chosen.clear();
        }
        self.chosen.insert(cookie);
        Ok(())
    }

    /// A socket is about to hear nobody but who is at `port`: a server, if only root may be there and the socket is not, as when
    /// a program asks a name server from a port that it has drawn. A server that goes on with one client alone has that at
    /// a port of any other kind.
    pub(crate) fn connected(&mut self, asking: Asking, descriptor: i32, port: u16) {
        // "Well-known" ports, those below, are for who has `CAP_NET_BIND_SERVICE` (`ip(7)`).
        const UNPRIVILEGED: u16 = 1024;
        if self.datagrams.is_empty() || !(1..UNPRIVILEGED).contains(&port) {
            return;
        }
        let Ok(socket) = sys::copy_descriptor(asking.process, asking.task, descriptor) else { return };
        let Ok(cookie) = sys::socket_cookie(socket.as_fd()) else { return };
        if self.datagrams.get(&cookie).is_some_and(|&(_, own)| own >= UNPRIVILEGED) {
            self.datagrams.remove(&cookie);
        }
    }

    /// Tells of the datagram sockets that have stayed open to everybody, and that `process` has bound; `None`: that anybody has.
    pub(crate) fn tell_datagrams(&mut self, process: Option<i32>) -> Result<(), TraceError> {
        let is_told = |binder| process.is_none_or(|process| process == binder);
        let (told, kept): (BTreeMap<_, _>, _) =
            std::mem::take(&mut self.datagrams).into_iter().partition(|&(_, (binder, _))| is_told(binder));
        self.datagrams = kept;
        told.into_values().try_for_each(|(process, port)| {
            self.tell(Event::Listen { process, port, protocol: Protocol::Udp, is_lasting: true })
        })
    }
}
