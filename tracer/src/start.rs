//! Where a path starts from.
//!
//! In: a task, and what its call says that the path is relative to. Out: the directory, and the place in whose view it is that;
//! or why none is to be found, as an error of our own (EXDEV) where it is in no view that the tracer has.

use std::sync::Arc;

use nix::errno::Errno;

use crate::decode::From;
use crate::door::Open;
use crate::engine::Engine;
use crate::look;
use crate::names::parent;
use crate::place::Place;
use crate::sys::{self, Inode};

/// What a path is relative to.
pub(crate) enum Start {
    WorkingDirectory,
    Directory(Vec<u8>),
}

impl Start {
    pub(crate) fn of<'a>(&'a self, place: &'a Place) -> &'a [u8] {
        match self {
            Self::WorkingDirectory => &place.directory,
            Self::Directory(path) => path,
        }
    }

    /// The directory, if it is no working directory.
    pub(crate) fn opened(&self) -> &[u8] {
        match self {
            Self::WorkingDirectory => b"",
            Self::Directory(path) => path,
        }
    }

    /// True if where `spelled` leads from here depends on where `place` is.
    pub(crate) fn is_in(&self, place: &Place, spelled: &[u8]) -> bool {
        if spelled.starts_with(b"/") { place.root != b"/" } else { matches!(self, Self::WorkingDirectory) }
    }
}

impl Engine<'_> {
    /// Where `task` stands.
    pub(crate) fn place(&mut self, task: i32) -> Result<Arc<Place>, Errno> {
        self.places.of(task, self.known.is_settled())
    }

    /// True if `task` no longer stands in `place`, which was remembered of it: somebody whom nobody traces may have renamed a
    /// directory.
    pub(crate) fn has_moved(&mut self, task: i32, place: &Place) -> bool {
        self.places.forget_one(task);
        self.place(task).is_ok_and(|now| *now != *place)
    }

    /// Where `self.spelled` starts from, and the place that it is seen in.
    pub(crate) fn start(&mut self, task: i32, from: From) -> Result<(Arc<Place>, Start), Errno> {
        let place = self.place(task)?;
        if !place.shows(task, || "root".to_owned(), &place.root) {
            return Err(Errno::EXDEV);
        }
        let is_absolute = self.spelled.starts_with(b"/");
        match from {
            From::Root(directory) => {
                let (place, root) = match directory {
                    libc::AT_FDCWD => self.working_directory(task, &place)?,
                    descriptor => self.directory(task, descriptor, &place)?,
                };
                let directory = root.clone();
                let place = Place { root, directory, is_gone: false, strays: false, ..Place::clone(&place) };
                Ok((Arc::new(place), Start::WorkingDirectory))
            }
            // The kernel looks at the descriptor only for a relative path.
            From::Descriptor(descriptor) if !is_absolute => {
                let (place, directory) = self.directory(task, descriptor, &place)?;
                Ok((place, Start::Directory(directory)))
            }
            _ => {
                if is_absolute {
                    return Ok((place, Start::WorkingDirectory));
                }
                let (shown, directory) = self.working_directory(task, &place)?;
                let is_own = Arc::ptr_eq(&shown, &place);
                Ok((shown, if is_own { Start::WorkingDirectory } else { Start::Directory(directory) }))
            }
        }
    }

    /// The directory that is open at `descriptor`, and the place in whose view it is that.
    fn directory(&mut self, task: i32, descriptor: i32, place: &Arc<Place>) -> Result<(Arc<Place>, Vec<u8>), Errno> {
        let open = self.places.descriptor(task, descriptor)?;
        let settled = self.known.is_settled();
        if !open.path.starts_with(b"/") || self.places.is_no_directory(task, descriptor, &open, settled) {
            return Err(Errno::ENOTDIR);
        }
        let Open { path, is_deleted } = open;
        self.stands(task, place, || format!("fd/{descriptor}"), path, is_deleted)
    }

    fn working_directory(&mut self, task: i32, place: &Arc<Place>) -> Result<(Arc<Place>, Vec<u8>), Errno> {
        self.stands(task, place, || "cwd".to_owned(), place.directory.clone(), place.is_gone)
    }

    /// `directory`, and the place in whose view `door` leads there, if `self.spelled` may lead anywhere from there.
    fn stands(
        &mut self,
        task: i32,
        place: &Arc<Place>,
        door: impl Fn() -> String,
        directory: Vec<u8>,
        is_gone: bool,
    ) -> Result<(Arc<Place>, Vec<u8>), Errno> {
        let is_shown = if is_gone {
            // Only `..` leads out of a directory that was removed (`fs/namei.c`, `follow_dotdot`), and nothing is in it.
            let mut names = self.spelled.split(|&byte| byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
            if names.next() != Some(b"..") {
                return Err(Errno::ENOENT);
            }
            place.shows(task, || format!("{}/..", door()), parent(&directory))
        } else {
            place.shows(task, &door, &directory)
        };
        if is_shown {
            return Ok((Arc::clone(place), directory));
        }
        if has_ended(task, &door(), &directory) {
            return Err(Errno::ENOENT);
        }
        if is_gone {
            return Err(Errno::EXDEV);
        }
        let shown = self.shown_elsewhere(task, place, &door(), &directory).ok_or(Errno::EXDEV)?;
        Ok((shown, directory))
    }

    /// The place in whose view `door`, a link of `/proc/TASK` whose text is `path`, leads there, if that is not the task's own:
    /// the tracer's, or one behind the link.
    pub(crate) fn shown_elsewhere(
        &mut self,
        task: i32,
        place: &Arc<Place>,
        door: &str,
        path: &[u8],
    ) -> Option<Arc<Place>> {
        if let Some(outside) = self.places.shown_outside(task, place, door, path) {
            return Some(outside);
        }
        self.places.behind(task, place, (format!("/proc/{task}/{door}"), path), || self.machine.processes())
    }
}

/// True if `path`, the text of `door`, a link of `/proc/TASK`, was a process's below the tracer's `/proc`, and went with it.
pub(crate) fn has_ended(task: i32, door: &str, path: &[u8]) -> bool {
    let device = |known: Result<Inode, Errno>| known.ok().map(|known| known.device);
    let is_ours = || {
        let proc = device(look::known(b"/proc"));
        proc.is_some() && proc == device(sys::known_inode(&format!("/proc/{task}/{door}")))
    };
    path.starts_with(b"/proc/") && look::known(path) == Err(Errno::ENOENT) && is_ours()
}
