//! A walk under way: component by component, link by link.
//!
//! In: where it starts, and the names that are left to do. Out: the walk, as far as it goes. What was walked before, and who waits
//! for whom, is the [`Walker`](super::Walker)'s.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::stat::{FileStat, SFlag};

use super::{Asker, Blocked, Directory, Onward, Walked, is, there};
use crate::behind::LEFT;
use crate::event::{Found, Link, Searched, Walk};
use crate::names::{below, parent, push, reversed};
use crate::place::Place;
use crate::served::{Lies, UNASKED};
use crate::{door, look, proc};

/// The kernel gives up after this many links (`path_resolution(7)`).
const MAX_LINKS: usize = 40;

/// File systems of files that no path leads to: message queues, which have names of their own (`mq_overview(7)`), and
/// `memfd_secret(2)` (`include/uapi/linux/magic.h`).
const NAMELESS: [i64; 2] = [0x1980_0202, 0x5345_434d];

/// Where a link leads.
enum Followed {
    Path,
    /// It is a door of `/proc`, and what is behind it has no path, nor ever had.
    Nowhere,
    /// It is a door of `/proc` to what no path of the tracer's leads to.
    Elsewhere,
    /// Out of what is behind a link of `/proc/TASK`: to a path from a directory of the task's own.
    Out {
        from: Vec<u8>,
        spelled: Vec<u8>,
    },
}

/// A walk under way.
#[expect(clippy::struct_excessive_bools, reason = "who may be asked, and three things that a way may be")]
pub(super) struct Steps<'a> {
    asker: Asker<'a>,
    /// Servers that are not traced are asked, too.
    asks: bool,
    end: Vec<u8>,
    links: Vec<Link>,
    passed: Vec<Vec<u8>>,
    searched: Vec<Searched>,
    /// The length of `end` where the names since the start, or the last link or `..`, began.
    since: usize,
    is_personal: bool,
    by_door: bool,
    by_descriptor: bool,
    /// A directory that was walked to, in the view of all who have none of their own.
    latest: &'a [u8],
    processes: &'a mut HashMap<u64, bool>,
}

impl<'a> Steps<'a> {
    pub(super) fn new(
        asker: Asker<'a>,
        start: Vec<u8>,
        asks: bool,
        latest: &'a [u8],
        processes: &'a mut HashMap<u64, bool>,
    ) -> Self {
        Self {
            asker,
            asks,
            since: start.len(),
            end: start,
            links: Vec::new(),
            passed: Vec::new(),
            searched: Vec::new(),
            is_personal: false,
            by_door: false,
            by_descriptor: false,
            latest,
            processes,
        }
    }

    /// From `directory` on, and by the way that has led there.
    pub(super) fn beyond(self, directory: &Directory) -> Self {
        let &Directory { ref links, ref passed, ref searched, is_personal, by_door, .. } = directory;
        let (links, passed, searched) = (links.clone(), passed.clone(), searched.clone());
        Self { links, passed, searched, is_personal, by_door, ..self }
    }

    /// `has_more`: another name follows.
    pub(super) fn finish(mut self, spelled: &[u8], follow: bool, has_more: bool) -> Walked {
        let mut todo: Vec<Cow<'_, [u8]>> = reversed(spelled).map(Cow::Borrowed).collect();
        let mut found: Option<FileStat> = None;
        while let Some(name) = todo.pop() {
            if let Some(blocking) = found.take().filter(|stat| !is(stat, SFlag::S_IFDIR)) {
                return self.stopped(there(blocking), Some(Blocked::NoDirectory));
            }
            match &*name {
                // The kernel looks these two up as well (`fs/namei.c`, `link_path_walk`).
                b"." => {
                    self.searched.push(Searched { path: self.end.clone(), from: self.since });
                    self.starts();
                    continue;
                }
                b".." => {
                    if self.asker.place.behind.as_ref().is_some_and(|behind| behind.is_left_from(&self.end)) {
                        return self.climbs_out(&todo);
                    }
                    self.passed.push(self.end.clone());
                    self.searched.push(Searched { path: self.end.clone(), from: self.since });
                    self.up();
                    self.starts();
                    continue;
                }
                name => push(&mut self.end, name),
            }
            if !todo.is_empty() && self.leads_to_latest() {
                continue;
            }
            match self.lstat() {
                Ok(stat) if is(&stat, SFlag::S_IFLNK) && (follow || !todo.is_empty()) => {
                    match self.follow(&stat, &mut todo, has_more) {
                        Ok(Followed::Path) => {}
                        Ok(Followed::Elsewhere) => {
                            let goes_on = has_more || !todo.is_empty();
                            let onward = goes_on.then(|| Onward { at: stat, from: Vec::new(), spelled: rest(&todo) });
                            let stop = Some(Blocked::Elsewhere { goes_on });
                            return Walked { onward, ..self.stopped(there(stat), stop) };
                        }
                        Ok(Followed::Out { from, mut spelled }) => {
                            spelled.extend_from_slice(&rest(&todo)[1..]);
                            return self.leaves(Some(Onward { at: stat, from, spelled }));
                        }
                        Ok(Followed::Nowhere) => found = Some(stat),
                        Err(errno) => return self.stopped(Found::Unknown(errno), Some(Blocked::Error)),
                    }
                }
                Ok(stat) => found = Some(stat),
                Err(Errno::ENOENT) => return self.missing(&todo),
                Err(errno) => return self.stopped(Found::Unknown(errno), Some(Blocked::Error)),
            }
        }
        let found = found.map_or_else(|| self.lstat(), Ok);
        let found = match found {
            Ok(stat) => there(stat),
            Err(Errno::ENOENT) => Found::Missing,
            Err(errno) => Found::Unknown(errno),
        };
        self.stopped(found, None)
    }

    /// True if `end` is on the way to the directory that was walked to last, or is that.
    fn leads_to_latest(&self) -> bool {
        let Place { namespace, behind, .. } = self.asker.place;
        namespace.is_none() && behind.is_none() && below(self.latest, &self.end).is_some()
    }

    /// The path under which the tracer reaches `end`.
    fn reach(&self) -> Cow<'_, [u8]> {
        self.asker.place.reach(self.asker.task, &self.end)
    }

    /// True if a look at `path` would ask a server that is not to be asked now.
    fn must_wait(&self, path: &[u8]) -> bool {
        !self.asks && self.asker.place.is_remote(path)
    }

    fn lstat(&self) -> Result<FileStat, Errno> {
        if self.asker.place.lies(&self.end) != Lies::Elsewhere || self.must_wait(&self.end) {
            return Err(UNASKED);
        }
        self.look(look::lstat)
    }

    /// A tracer that is not root's gets nowhere from the root where something above the task's working directory is closed, which
    /// does not concern the task.
    fn look<T>(&self, look: impl Fn(&[u8]) -> Result<T, Errno>) -> Result<T, Errno> {
        let Asker { task, place, .. } = self.asker;
        match look(&self.reach()) {
            Err(Errno::EACCES) => look(&place.by_directory(task, &self.end).ok_or(Errno::EACCES)?),
            found => found,
        }
    }

    /// True if what is at `end` is a `/proc`'s, which leads each task somewhere else.
    fn is_processes(&mut self, stat: &FileStat) -> bool {
        if let Some(known) = self.processes.get(&stat.st_dev) {
            return *known;
        }
        // A link's own filesystem is that of the directory that it is in.
        let directory = self.asker.place.reach(self.asker.task, parent(&self.end));
        let is_proc = nix::sys::statfs::statfs(&*directory)
            .is_ok_and(|filesystem| filesystem.filesystem_type() == nix::sys::statfs::PROC_SUPER_MAGIC);
        self.processes.insert(stat.st_dev, is_proc);
        is_proc
    }

    /// Goes through the link at `end`.
    fn follow(&mut self, stat: &FileStat, todo: &mut Vec<Cow<'_, [u8]>>, has_more: bool) -> Result<Followed, Errno> {
        if self.links.len() == MAX_LINKS {
            return Err(Errno::ELOOP);
        }
        let Asker { process, task, place } = self.asker;
        let is_processes = self.is_processes(stat);
        let name =
            self.end.iter().rposition(|&byte| byte == b'/').map_or(&self.end[..], |slash| &self.end[slash + 1..]);
        // These lead each reader to itself.
        let own = match name {
            b"self" if is_processes => Some(self.number_of(process).map(|number| number.to_string())),
            b"thread-self" if is_processes => {
                let both = self.number_of(process).zip(self.number_of(task));
                Some(both.map(|(process, task)| format!("{process}/task/{task}")))
            }
            _ => None,
        };
        let target = match own {
            Some(Some(own)) => own.into_bytes(),
            Some(None) => return Ok(Followed::Elsewhere),
            None => self.look(look::target)?,
        };
        self.is_personal |= is_processes;
        if is_processes && is_magic(&target) {
            // proc(5): the link is a door to the object itself; its text is a path in the reader's view, or a mere name.
            if self.must_wait(&target) {
                return Err(UNASKED);
            }
            // What the program serves is believed: its own door leads there.
            let is_served = place.lies(&target) != Lies::Elsewhere;
            let outside = place.served_outside.as_deref();
            let there = place.reach(task, &target);
            let leads = |door: &str| is_served || door::leads_to(door, &there, outside);
            let is_path = target.starts_with(b"/")
                && place.behind.as_ref().is_none_or(|behind| behind.reach(&target).is_some())
                && !self.is_in_another_view()
                && std::str::from_utf8(&self.reach()).is_ok_and(leads);
            if is_path {
                self.by_descriptor = todo.is_empty() && is_descriptor(&self.end);
                self.by_door = true;
                self.end = target;
                self.starts();
                return Ok(Followed::Path);
            }
            if let Some(own) = place.behind.as_ref().map(|behind| &behind.own).filter(|_| target.starts_with(b"/")) {
                let there = own.reach(task, &target);
                if std::str::from_utf8(&self.reach()).is_ok_and(|door| door::leads_to(door, &there, outside)) {
                    return Ok(Followed::Out { from: target, spelled: b".".to_vec() });
                }
            }
            // A name like `net:[1]` is no file's.
            let goes_on = has_more || !todo.is_empty();
            let is_elsewhere = target.starts_with(b"/") && self.leads_elsewhere(goes_on);
            return Ok(if is_elsewhere { Followed::Elsewhere } else { Followed::Nowhere });
        }
        if place.strays && place.behind.is_some() && target.starts_with(b"/") {
            return Ok(Followed::Out { from: place.root.clone(), spelled: target });
        }
        self.searches();
        let (searched, passed) = (self.searched.len(), self.passed.len());
        self.links.push(Link { path: self.end.clone(), target: target.clone(), searched, passed });
        if target.starts_with(b"/") {
            self.end.clone_from(&place.root);
        } else {
            self.up();
        }
        self.starts();
        todo.extend(reversed(&target).map(|name| Cow::Owned(name.to_vec())));
        Ok(Followed::Path)
    }

    /// The number that a task has in the `/proc` whose link `end` is.
    fn number_of(&self, task: i32) -> Option<i32> {
        let itself = std::process::id().to_string();
        if look::target(&self.reach())
            .is_ok_and(|own| own.split(|&byte| byte == b'/').next() == Some(itself.as_bytes()))
        {
            return Some(task);
        }
        let root = self.asker.place.reach(self.asker.task, parent(&self.end));
        proc::number_in(std::str::from_utf8(&root).ok()?, task)
    }

    /// The task whose door of `/proc` `end` is, if that is another process than the asker's.
    fn other(&self) -> Option<i32> {
        let other = self.end.strip_prefix(b"/proc/")?.split(|&byte| byte == b'/').next()?;
        std::str::from_utf8(other).ok()?.parse().ok().filter(|&other: &i32| other != self.asker.process)
    }

    /// True if `end`, a door of `/proc`, is one of a task with another mount namespace than the asker's, which nobody may
    /// trace.
    fn is_in_another_view(&self) -> bool {
        let Asker { process, place, .. } = self.asker;
        let differs = |other: i32| proc::namespace(other) != proc::namespace(process);
        place.namespace.is_none() && self.other().is_some_and(differs)
    }

    /// True if `end`, a door of `/proc` that leads to no path of the tracer's, leads to a file or directory that has one.
    /// Where nothing was mounted it is what the program was given, if the door is its own, and only that it goes on from
    /// there is new.
    fn leads_elsewhere(&self, goes_on: bool) -> bool {
        if !goes_on && !self.asker.place.may_be_covered && self.other().is_none() {
            return false;
        }
        let is_kept = |stat: FileStat| stat.st_nlink > 0 && (is(&stat, SFlag::S_IFREG) || is(&stat, SFlag::S_IFDIR));
        let has_names = || {
            let kind = nix::sys::statfs::statfs(&*self.reach()).map(|behind| behind.filesystem_type().0);
            !kind.is_ok_and(|kind| NAMELESS.contains(&kind))
        };
        nix::sys::stat::stat(&*self.reach()).is_ok_and(is_kept) && has_names()
    }

    /// To the parent directory, but never above the task's root.
    fn up(&mut self) {
        if self.end == self.asker.place.root {
            return;
        }
        self.end.truncate(parent(&self.end).len());
    }

    /// The names that led to `end` were looked up: in its directory, and in those from which they started.
    fn searches(&mut self) {
        if self.end.len() > self.since {
            self.searched.push(Searched { path: parent(&self.end).to_vec(), from: self.since });
        }
    }

    /// The next name is looked up at `end`, wherever the path was before.
    fn starts(&mut self) {
        self.since = self.end.len();
    }

    /// By `..`, out of what is behind a link of `/proc/TASK`: to what the task sees there, or nobody knows where.
    fn climbs_out(self, todo: &[Cow<'_, [u8]>]) -> Walked {
        let Asker { task, place, .. } = self.asker;
        let from = parent(&self.end).to_vec();
        let leads = |own: &Arc<Place>| {
            let door = [&*self.reach(), b"/.."].concat();
            let door = std::str::from_utf8(&door);
            door.is_ok_and(|door| door::leads_to(door, &own.reach(task, &from), place.served_outside.as_deref()))
        };
        let own = place.behind.as_ref().map(|behind| &behind.own);
        // Nothing leads above the task's root.
        let is_seen = place.strays && place.root != self.end && own.is_some_and(leads);
        let at = self.lstat().ok().filter(|_| is_seen);
        let onward = at.map(|at| Onward { at, from, spelled: rest(todo) });
        self.leaves(onward)
    }

    fn leaves(self, onward: Option<Onward>) -> Walked {
        Walked { onward, ..self.stopped(Found::Unknown(LEFT), Some(Blocked::Error)) }
    }

    /// What stands at `end` is missing: behind this point nothing can be a link.
    fn missing(self, todo: &[Cow<'_, [u8]>]) -> Walked {
        if todo.iter().any(|name| **name == *b"..") {
            return self.stopped(Found::Missing, Some(Blocked::MissingThenUp));
        }
        let mut walked = self.stopped(Found::Missing, (!todo.is_empty()).then_some(Blocked::Missing));
        for name in todo.iter().rev().filter(|name| ***name != *b".") {
            push(&mut walked.walk.end, name);
        }
        walked
    }

    fn stopped(mut self, found: Found, stop: Option<Blocked>) -> Walked {
        self.searches();
        // What is below /proc/PID differs from task to task as well.
        let is_of = |stat: &FileStat| self.processes.get(&stat.st_dev) == Some(&true);
        let is_processes = self.end.starts_with(b"/proc/") || matches!(&found, Found::There(stat) if is_of(stat));
        let is_personal = self.is_personal || is_processes;
        let Self { links, passed, searched, end, by_door, by_descriptor, .. } = self;
        let walk = Walk { links, passed, searched, end, found, by_descriptor };
        Walked { walk, is_personal, by_door, stop, onward: None }
    }
}

/// True for the text of a door of `/proc/PID/` (`cwd`, `root`, `exe`, and what is in `fd`, `map_files` and `ns`): an
/// absolute path, or a name like `pipe:[1]`. Its plain links, as `mounts` and `net`, are relative.
fn is_magic(target: &[u8]) -> bool {
    target.starts_with(b"/") || !target.contains(&b'/') && target.contains(&b':')
}

/// True for a door of `/proc` that stands in a directory `fd`.
fn is_descriptor(door: &[u8]) -> bool {
    door.rsplit(|&byte| byte == b'/').nth(1) == Some(b"fd")
}

/// A path that goes on by the names that are left to do.
fn rest(todo: &[Cow<'_, [u8]>]) -> Vec<u8> {
    let mut spelled = b".".to_vec();
    todo.iter().rev().for_each(|name| push(&mut spelled, name));
    spelled
}
