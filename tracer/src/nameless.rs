//! What a call asks for that has no path in it: files by handle, and the ports of sockets.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, readlink};
use nix::sys::stat::{Mode, fstat};

use crate::TraceError;
use crate::engine::Engine;
use crate::event::{Access, Event, Gap, Protocol};
use crate::inspect::Asking;
use crate::race::Led;
use crate::{look, memory, place, sys};

/// So many sockets are remembered.
const LIMIT: usize = 1 << 16;

impl Engine<'_> {
    /// A file by handle: found by opening it, as the task is about to. Its path, if it was told.
    pub(crate) fn handle(
        &mut self,
        asking: Asking,
        mount: i32,
        address: u64,
        access: Access,
    ) -> Result<Option<Led>, TraceError> {
        // struct file_handle: length, type, and at most MAX_HANDLE_SZ (128) bytes.
        let mut header = [0; 8];
        let mut bytes = [0; 128];
        if memory::read(asking.task, address, &mut header).is_err() {
            return Ok(None);
        }
        let word = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let Some(bytes) = bytes.get_mut(..word(0) as usize) else { return Ok(None) };
        if memory::read(asking.task, address.wrapping_add(8), bytes).is_err() {
            return Ok(None);
        }
        if self.places.may_wait() && self.is_mount_served(asking.task, mount) {
            return self.gap(asking.process, Gap::Served).map(|()| None);
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
            Err(Errno::ESTALE | Errno::EINVAL | Errno::EBADF) => return Ok(None),
            Err(_) => return self.gap(asking.process, Gap::Handle).map(|()| None),
        };
        let door = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        let path = readlink(door.as_str()).map(std::os::unix::ffi::OsStringExt::into_vec);
        let stat = fstat(&file).ok();
        let is_there =
            |path: &Vec<u8>| stat.is_some_and(|stat| look::lstat(path).is_ok_and(|there| look::is_same(&there, &stat)));
        // A file whose directory the kernel does not know has no path, and a name that is gone is none.
        let path = path.ok().filter(is_there);
        let is_nameless = path.is_none();
        match &path {
            Some(path) => self.at(asking, path.clone(), access)?,
            None => self.gap(asking.process, Gap::Handle)?,
        }
        Ok(Some(Led::to(path.unwrap_or_default(), stat.as_ref(), is_nameless, &asking.entry)))
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
        let is_chosen = self.chosen.contains(&cookie) || !place::may_be_given(port);
        self.tell(Event::Listen { process, port, protocol: Protocol::Tcp, is_chosen })
    }

    /// A datagram socket takes datagrams as soon as it has a port.
    pub(crate) fn bound(&mut self, asking: Asking, descriptor: i32, port: u16) -> Result<(), TraceError> {
        let Asking { process, task, .. } = asking;
        let Ok(socket) = sys::copy_descriptor(process, task, descriptor) else { return Ok(()) };
        let Ok((kind, _)) = sys::socket_port(socket.as_fd()) else { return Ok(()) };
        if kind == libc::SOCK_DGRAM && port != 0 {
            return self.tell(Event::Listen { process, port, protocol: Protocol::Udp, is_chosen: true });
        }
        let cookie = sys::socket_cookie(socket.as_fd()).unwrap_or_default();
        if port == 0 {
            // What it was bound to before, if it was, has failed.
            self.chosen.remove(&cookie);
            return Ok(());
        }
        if self.chosen.len() >= LIMIT {
            self.chosen.clear();
        }
        self.chosen.insert(cookie);
        Ok(())
    }
}
