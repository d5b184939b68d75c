//! What is seen from where a task has it open alone.
//!
//! A task may have a directory open, or stand in one, over which something is mounted by now, or on a mount that only others see,
//! or nobody any more. No path leads there, but the link of `/proc/TASK` by which the tracer looks at it does, and from there on
//! everything below is reached as the task reaches it. Where the program was given that, the table of a namespace tells that has the
//! mount, or had it.
//!
//! `..` back to the directory leads to what is mounted over it (`fs/namei.c`, `follow_dotdot` and `handle_mounts`), and so out of
//! what is behind the link. An absolute link leads to the task's own root.
//!
//! In: such a link, and views. Out: a place behind it. None where the program may serve file systems: it would have to be asked.
//! What is found there is told only if it proves to be what the table says: by its inode where it was given, by the mount that it is
//! on if it is the program's own.

use std::collections::BTreeSet;
use std::sync::Arc;

use nix::errno::Errno;

use crate::TraceError;
use crate::door::leads_to_file;
use crate::engine::Engine;
use crate::event::{Access, Gap, Searched, Walk};
use crate::inspect::Asking;
use crate::look;
use crate::names::{below, parent};
use crate::place::{Place, Places};
use crate::start::has_ended;
use crate::sys::{self, Inode};
use crate::view::View;
use crate::walk::{Blocked, Onward};

/// Stands for what was not found since the way there leads out of what is behind a link.
pub(crate) const LEFT: Errno = Errno::EXDEV;

/// What is behind a link of `/proc/TASK`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Behind {
    pub(crate) door: String,
    /// Where that is, as its link says.
    path: Vec<u8>,
    pub(crate) inode: Inode,
    /// Where the task stands, which absolute links go back to.
    pub(crate) own: Arc<Place>,
}

impl Behind {
    /// The path under which the tracer reaches `path`, if that is behind the link.
    pub(crate) fn reach(&self, path: &[u8]) -> Option<Vec<u8>> {
        // With a slash it is what the link leads to.
        below(path, &self.path).map(|rest| [self.door.as_bytes(), b"/", rest].concat())
    }

    /// True if `..` at `path` leads out of what is behind the link.
    pub(crate) fn is_left_from(&self, path: &[u8]) -> bool {
        below(parent(path), &self.path).is_none_or(<[u8]>::is_empty)
    }

    /// True if everything on `walk` is on the mounts that `view` says: others may have been mounted since it was seen.
    pub(crate) fn is_as_seen(&self, view: &View, walk: &Walk) -> bool {
        let searched = walk.searched.iter().flat_map(Searched::directories);
        let links = walk.links.iter().map(|link| link.path.as_slice());
        let passed = walk.passed.iter().map(Vec::as_slice);
        let mut all = searched.chain(links).chain(passed).chain([walk.end.as_slice()]);
        all.all(|path| view.mount(path).map(|mount| u64::from(mount.id)) == self.mount(path))
    }

    /// The mount that `path` is on, or where it is missing, the directory in which that is so.
    fn mount(&self, path: &[u8]) -> Option<u64> {
        let mut path = path;
        loop {
            match look::known(&self.reach(path)?) {
                Ok(found) => return Some(found.mount),
                Err(Errno::ENOENT) if path != self.path => path = parent(path),
                Err(_) => return None,
            }
        }
    }
}

impl Place {
    /// Where the program was given what is right behind the link, a file or a directory; nowhere if it is its own. `None` if the
    /// tracer does not see where.
    pub(crate) fn given_at_door(&self) -> Option<Vec<Vec<u8>>> {
        let behind = self.behind.as_ref()?;
        let outside = self.served_outside.as_deref();
        self.view.as_ref()?.seen(&behind.path, |path| leads_to_file(&behind.door, path, outside))
    }
}

impl Places {
    /// The place behind `door`, a link of `/proc` whose text is `path`, of the task that stands at `own`; `None` if nobody whose
    /// table is known sees, or saw, the mount there. `others`: those that may.
    pub(crate) fn behind(
        &mut self,
        task: i32,
        own: &Arc<Place>,
        (door, path): (String, &[u8]),
        others: impl FnOnce() -> BTreeSet<i32>,
    ) -> Option<Arc<Place>> {
        let inode = sys::known_inode(&door).ok()?;
        // Before Linux 5.8 there is no telling.
        let mount = u32::try_from(inode.mount).ok().filter(|&mount| mount != 0)?;
        let from = |view: &View| view.begun_at(mount, path);
        let view = own.view.as_deref().and_then(from);
        let view = view.or_else(|| self.own().view.as_deref().and_then(from));
        let view = view.or_else(|| self.seen_by(own, others()).iter().find_map(|view| from(view)));
        let view = view.filter(|view| !self.served.may_be_in(&view.theirs));
        // A number that is free is given to the next mount, which another process may have from somebody who is not traced.
        let own_door = door.strip_prefix(&format!("/proc/{task}/"));
        let is_own = own_door.is_some_and(|name| !name.strip_prefix("fd/").unwrap_or(name).contains('/'));
        let knows = is_own && !self.served.is_expected();
        let detached = || self.views.detached(mount, &door, inode)?.begun_at(mount, path);
        let view = view.or_else(|| if knows { detached() } else { None })?;
        let behind = Behind { door, path: path.to_vec(), inode, own: Arc::clone(own) };
        Some(Arc::new(Place {
            directory: path.to_vec(),
            strays: true,
            view: Some(Arc::new(view)),
            behind: Some(Arc::new(behind)),
            ..Place::clone(own)
        }))
    }
}

impl Engine<'_> {
    /// What is open at `descriptor`, which has this path as `/proc` tells it.
    pub(crate) fn open_at(
        &mut self,
        asking: Asking,
        descriptor: i32,
        path: Vec<u8>,
        access: Access,
    ) -> Result<(), TraceError> {
        let place = match self.place(asking.task) {
            Ok(place) => place,
            Err(errno) => return self.hidden(asking.process, errno),
        };
        let door = format!("fd/{descriptor}");
        if place.shows(asking.task, || door.clone(), &path) {
            return self.at_in(asking, &place, path, access);
        }
        if has_ended(asking.task, &door, &path) {
            return Ok(());
        }
        match self.shown_elsewhere(asking.task, &place, &door, &path) {
            Some(shown) if shown.behind.is_some() => self.at_door(asking, &shown, access),
            Some(shown) => self.at_in(asking, &shown, path, access),
            None => self.gap(asking.process, Gap::MountNamespace),
        }
    }

    /// What is right behind a link of `/proc`.
    pub(crate) fn at_door(&mut self, asking: Asking, behind: &Place, access: Access) -> Result<(), TraceError> {
        let Some(given) = behind.given_at_door() else { return self.gap(asking.process, Gap::MountNamespace) };
        let own = self.places.own();
        given.into_iter().try_for_each(|path| self.at_in(asking, &own, path, access))
    }

    /// The place behind the link of `/proc` at which a walk in `place` has ended, and its text.
    pub(crate) fn behind_door(
        &mut self,
        asking: Asking,
        place: &Arc<Place>,
        end: &[u8],
    ) -> Option<(Arc<Place>, Vec<u8>)> {
        let door = String::from_utf8(place.reach(asking.task, end).into_owned()).ok()?;
        let path = look::target(door.as_bytes()).ok()?;
        let door = own_door(asking.task, door);
        let own = place.behind.as_ref().map_or(place, |behind| &behind.own);
        let behind = self.places.behind(asking.task, own, (door, &path), || self.machine.processes())?;
        Some((behind, path))
    }

    /// The place in which a path goes on, and from where, if that is another one than that in which its walk has stopped.
    pub(crate) fn next(
        &mut self,
        asking: Asking,
        place: &Arc<Place>,
        walk: &Walk,
        stop: Option<Blocked>,
        onward: Option<Onward>,
    ) -> Option<(Arc<Place>, Onward)> {
        let onward = onward?;
        if matches!(stop, Some(Blocked::Elsewhere { .. })) {
            let (behind, from) = self.behind_door(asking, place, &walk.end)?;
            return Some((behind, Onward { from, ..onward }));
        }
        Some((Arc::clone(&place.behind.as_ref()?.own), onward))
    }
}

/// The link of `task` itself that leads to the same as `door`, any link of a `/proc`, if that has the same name; else that.
fn own_door(task: i32, door: String) -> String {
    let mut names = door.rsplit('/');
    let own = match (names.next(), names.next()) {
        (Some(name), Some("fd")) => format!("/proc/{task}/fd/{name}"),
        (name, _) => format!("/proc/{task}/{}", name.unwrap_or_default()),
    };
    if sys::known_inode(&own).is_ok_and(|behind| sys::known_inode(&door) == Ok(behind)) { own } else { door }
}
