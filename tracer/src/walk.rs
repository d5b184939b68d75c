//! Where a path leads, link by link, in a task's own view.
//!
//! In: the task's place and a path as it spelled it. Out: a [`Walk`]. The kernel's rules are those of
//! `path_resolution(7)`; nothing is opened, so that nothing is noticed (no atime, no FIFO, no automount).

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::stat::{FileStat, SFlag};

use crate::behind::LEFT;
use crate::event::{Found, Link, Searched, Walk};
use crate::foresight::{Foreseen, Way, is_unasked};
use crate::look;
use crate::names::{below, parent, push, reversed, with_room};
use crate::place::{self, Place};
use crate::served::{Lies, UNASKED};

/// The kernel gives up after this many links (`path_resolution(7)`).
const MAX_LINKS: usize = 40;

/// So many directories are remembered.
const LIMIT: usize = 1 << 16;

/// Who asks, and from where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub(crate) process: i32,
    pub(crate) task: i32,
    pub(crate) place: &'a Place,
}

/// A walk, and what it says beyond where it leads.
#[derive(Debug, Clone)]
pub(crate) struct Walked {
    pub(crate) walk: Walk,
    /// It went through a door of `/proc`, which leads each task somewhere else.
    pub(crate) is_personal: bool,
    /// Through one to what it leads to.
    pub(crate) by_door: bool,
    /// It ended before the path did.
    pub(crate) stop: Option<Blocked>,
    /// Where the path goes on, if that is in another place: what is behind a link of `/proc` at which it has stopped, or where the
    /// task stands.
    pub(crate) onward: Option<Onward>,
}

/// A path that goes on in another place.
#[derive(Debug, Clone)]
pub(crate) struct Onward {
    /// What is known of where it has left.
    pub(crate) at: FileStat,
    /// From which directory, if that is where the task stands.
    pub(crate) from: Vec<u8>,
    pub(crate) spelled: Vec<u8>,
}

/// Why a walk ended before its path did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blocked {
    /// By something missing; what is behind it is appended to the walk's end as spelled.
    Missing,
    /// By something missing, and what is behind it has `..` in it: the walk's end is what is missing.
    MissingThenUp,
    /// By something that is no directory: the walk's end.
    NoDirectory,
    /// By a door of `/proc` that leads to what no path of the tracer's leads to; the path goes on from there, or not.
    Elsewhere { goes_on: bool },
    /// By a link that the call does not follow, or because it goes where the call does not go (`openat2(2)`).
    Refused,
    /// By an error.
    Error,
}

/// Walks paths, and remembers directories that were walked.
#[derive(Debug, Default)]
pub(crate) struct Walker {
    directories: HashMap<Vec<u8>, Arc<Directory>>,
    /// Where the last of them is: what leads to it is no link, and need not be looked at again on the way to its neighbours.
    latest: Vec<u8>,
    /// By device: is it a `/proc`, wherever that is mounted?
    processes: HashMap<u64, bool>,
    /// Of the call that is looked into: walks that could have had to wait for others.
    pub(crate) foreseen: Foreseen,
    /// Those that are wanted now, where the call can wait for them.
    pub(crate) wanted: Option<Vec<(Way, Place)>>,
}

/// A directory that a path led to.
#[derive(Debug, Clone)]
struct Directory {
    end: Vec<u8>,
    links: Vec<Link>,
    passed: Vec<Vec<u8>>,
    searched: Vec<Searched>,
    is_personal: bool,
    by_door: bool,
}

impl Walker {
    /// Names have changed: what was remembered may be wrong.
    pub(crate) fn forget(&mut self) {
        self.directories.clear();
        self.latest.clear();
        // What is mounted takes the numbers of what was unmounted.
        self.processes.clear();
    }

    /// Follows `spelled` from `from`, the last component only if `follow`. Where it would have to wait for the program
    /// itself it ends, unless the way was foreseen. Where it may have to wait for somebody else, too, if the call can wait for
    /// that: what was foreseen then is that there is an answer, and it is looked at anew.
    pub(crate) fn walk(
        &mut self,
        asker: Asker<'_>,
        from: &[u8],
        spelled: &[u8],
        follow: bool,
        may_remember: bool,
    ) -> Walked {
        // What is behind a link has paths that are others' as well.
        let is_behind = asker.place.behind.is_some();
        let walked = self.step(asker, from, spelled, follow, may_remember, self.wanted.is_none() || is_behind);
        if is_behind || !is_unasked(&walked.walk.found) {
            return walked;
        }
        let root = asker.place.root.clone();
        let way = Way { root, from: from.to_vec(), spelled: spelled.to_vec(), follow };
        let Some(foreseen) = self.foreseen.walk(&way) else {
            if let Some(wanted) = self.wanted.as_mut().filter(|_| asker.place.remote.is_some()) {
                wanted.push((way, asker.place.clone()));
            }
            return walked;
        };
        let again = self.step(asker, from, spelled, follow, may_remember, true);
        if is_unasked(&again.walk.found) { foreseen } else { again }
    }

    /// True if the call that is looked into is to wait for what is wanted.
    pub(crate) fn is_waiting(&self) -> bool {
        self.wanted.as_ref().is_some_and(|wanted| !wanted.is_empty())
    }

    /// `asks`: also servers that are not traced.
    fn step(
        &mut self,
        asker: Asker<'_>,
        from: &[u8],
        spelled: &[u8],
        follow: bool,
        may_remember: bool,
        asks: bool,
    ) -> Walked {
        // Only a plain last name can be split off: behind a slash, `.` and `..` the kernel follows.
        let name_start = spelled.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        let (parent, name) = spelled.split_at(name_start);
        if matches!(name, b"" | b"." | b"..") {
            let steps = Steps::new(asker, start(asker, from, spelled), asks, &self.latest, &mut self.processes);
            return steps.finish(spelled, follow || name.is_empty(), false);
        }
        let directory = match self.directory(asker, from, parent, may_remember, asks) {
            Ok(directory) => directory,
            Err(mut walked) => {
                if matches!(walked.stop, None | Some(Blocked::Missing)) && matches!(walked.walk.found, Found::Missing) {
                    push(&mut walked.walk.end, name);
                }
                if let Some(onward) = &mut walked.onward {
                    push(&mut onward.spelled, name);
                }
                return *walked;
            }
        };
        let steps = Steps::new(asker, with_room(&directory.end, name), asks, &self.latest, &mut self.processes);
        let &Directory { ref links, ref passed, ref searched, is_personal, by_door, .. } = &*directory;
        let (links, passed, searched) = (links.clone(), passed.clone(), searched.clone());
        Steps { links, passed, searched, is_personal, by_door, ..steps }.finish(name, follow, false)
    }

    /// Where the directory part of a path leads; the walk so far if that is no directory.
    fn directory(
        &mut self,
        asker: Asker<'_>,
        from: &[u8],
        parent: &[u8],
        may_remember: bool,
        asks: bool,
    ) -> Result<Arc<Directory>, Box<Walked>> {
        if parent.is_empty() {
            let (links, passed, searched) = (Vec::new(), Vec::new(), Vec::new());
            let (end, is_personal, by_door) = (from.to_vec(), false, false);
            return Ok(Arc::new(Directory { end, links, passed, searched, is_personal, by_door }));
        }
        let from = if parent.starts_with(b"/") { &asker.place.root } else { from };
        let key = [&asker.place.root, &b"\0"[..], from, b"\0", parent].concat();
        if let Some(directory) = self.directories.get(&key) {
            return Ok(Arc::clone(directory));
        }
        let start = start(asker, from, parent);
        let walked = Steps::new(asker, start, asks, &self.latest, &mut self.processes).finish(parent, true, true);
        match &walked.walk.found {
            Found::There(stat) if is(stat, SFlag::S_IFDIR) => {}
            Found::There(_) => {
                return Err(Box::new(Walked { stop: walked.stop.or(Some(Blocked::NoDirectory)), ..walked }));
            }
            _ => return Err(Box::new(walked)),
        }
        let Walked { walk: Walk { links, passed, searched, end, .. }, is_personal, by_door, .. } = walked;
        let directory = Arc::new(Directory { end, links, passed, searched, is_personal, by_door });
        if may_remember && !is_personal && asker.place.namespace.is_none() && asker.place.behind.is_none() {
            if self.directories.len() >= LIMIT {
                self.directories.clear();
            }
            self.latest.clone_from(&directory.end);
            self.directories.insert(key, Arc::clone(&directory));
        }
        Ok(directory)
    }
}

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

/// File systems of files that no path leads to: message queues, which have names of their own (`mq_overview(7)`), and
/// `memfd_secret(2)` (`include/uapi/linux/magic.h`).
const NAMELESS: [i64; 2] = [0x1980_0202, 0x5345_434d];

/// A walk under way.
#[expect(clippy::struct_excessive_bools, reason = "who may be asked, and three things that a way may be")]
struct Steps<'a> {
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
    fn new(
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

    /// `has_more`: another name follows.
    fn finish(mut self, spelled: &[u8], follow: bool, has_more: bool) -> Walked {
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
            let leads = |door: &str| is_served || place::leads_to(door, &there, outside);
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
                if std::str::from_utf8(&self.reach()).is_ok_and(|door| place::leads_to(door, &there, outside)) {
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
        place::number_in(std::str::from_utf8(&root).ok()?, task)
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
        let differs = |other: i32| place::namespace(other) != place::namespace(process);
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
            door.is_ok_and(|door| place::leads_to(door, &own.reach(task, &from), place.served_outside.as_deref()))
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

/// Where `spelled` starts, for somebody who stands at `from`.
fn start(asker: Asker<'_>, from: &[u8], spelled: &[u8]) -> Vec<u8> {
    with_room(if spelled.starts_with(b"/") { &asker.place.root } else { from }, spelled)
}

pub(crate) fn there(stat: FileStat) -> Found {
    Found::There(Box::new(stat))
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

fn is(stat: &FileStat, file_type: SFlag) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == file_type
}

/// A path that goes on by the names that are left to do.
fn rest(todo: &[Cow<'_, [u8]>]) -> Vec<u8> {
    let mut spelled = b".".to_vec();
    todo.iter().rev().for_each(|name| push(&mut spelled, name));
    spelled
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{Fixture, bytes, fixture};
    use std::os::unix::fs::symlink;

    impl Fixture {
        fn walk(&self, spelled: &str, follow: bool) -> (String, Vec<String>, Found) {
            let mut walker = Walker::default();
            let asker = Asker { process: 1, task: 1, place: &self.place };
            let own = |path: &[u8]| {
                let text = String::from_utf8(path.to_vec()).unwrap();
                text.strip_prefix(self.directory.path().to_str().unwrap()).unwrap().to_owned()
            };
            let first = walker.walk(asker, &self.place.directory, spelled.as_bytes(), follow, true).walk;
            let second = walker.walk(asker, &self.place.directory, spelled.as_bytes(), follow, true).walk;
            assert_eq!((&first.end, &first.links), (&second.end, &second.links), "remembering changes nothing");
            (own(&first.end), first.links.iter().map(|link| own(&link.path)).collect(), first.found)
        }
    }

    #[test]
    fn links_in_the_middle_and_at_the_end() {
        let fixture = fixture();
        let (end, links, found) = fixture.walk("opt/lib/tool", true);
        assert_eq!((end.as_str(), links), ("/usr/bin/tool", vec!["/opt/lib/tool".to_owned(), "/bin".to_owned()]));
        assert!(matches!(found, Found::There(_)));
        assert_eq!(fixture.walk("/bin/tool", false).0, "/usr/bin/tool");
        assert_eq!(fixture.walk("bin", false).0, "/bin");
        assert_eq!(fixture.walk("bin/", false).0, "/usr/bin");
        assert_eq!(fixture.walk("bin/..", false).0, "/usr");
    }

    /// What one walk has found out of the way there, the next ones may rely on; until names change.
    #[test]
    fn one_walk_after_another_is_as_each_alone() {
        let fixture = fixture();
        let mut one = Walker::default();
        let asker = Asker { process: 1, task: 1, place: &fixture.place };
        let mut compare = |spelled: &str| {
            let walk =
                |walker: &mut Walker| walker.walk(asker, &fixture.place.directory, spelled.as_bytes(), true, true).walk;
            let (remembering, alone) = (walk(&mut one), walk(&mut Walker::default()));
            assert_eq!((&remembering.end, &remembering.links), (&alone.end, &alone.links), "{spelled}");
            assert_eq!(remembering.searched, alone.searched, "{spelled}");
            assert_eq!(format!("{:?}", remembering.found), format!("{:?}", alone.found), "{spelled}");
        };
        let all = [
            "usr/bin/tool",
            "usr/none/x",
            "usr/bin/tool/x/y",
            "usr/bi/x",
            "usr/bin/../bin/tool",
            "bin/tool/..",
            "opt/lib/tool",
        ];
        for spelled in all.iter().chain(all.iter().rev()) {
            compare(spelled);
        }
        fs_err::rename(fixture.directory.path().join("usr"), fixture.directory.path().join("other")).unwrap();
        symlink("other", fixture.directory.path().join("usr")).unwrap();
        one.forget();
        let walk = one.walk(asker, &fixture.place.directory, b"usr/bin/sub/x", true, true).walk;
        assert_eq!(walk.links.len(), 1, "{walk:?}");
    }

    #[test]
    fn what_is_left_again_was_entered() {
        let fixture = fixture();
        let asker = Asker { process: 1, task: 1, place: &fixture.place };
        let walked = Walker::default().walk(asker, &fixture.place.directory, b"opt/lib/../../usr/bin", true, true);
        let passed = ["opt/lib", "opt"].map(|name| bytes(&fixture.directory.path().join(name)));
        assert_eq!(walked.walk.passed, passed);
    }

    /// Where the path starts from is searched, and nothing above it; what a link leads to from where that leads from.
    #[test]
    fn what_is_searched_on_the_way() {
        let fixture = fixture();
        let top = bytes(fixture.directory.path());
        let of = |from: &str, spelled: &str| {
            let asker = Asker { process: 1, task: 1, place: &fixture.place };
            let from = bytes(&fixture.directory.path().join(from));
            let walk = Walker::default().walk(asker, &from, spelled.as_bytes(), true, true).walk;
            let all = walk.searched.iter().flat_map(Searched::directories);
            let mut own: Vec<String> = all.map(|path| String::from_utf8(path[top.len()..].to_vec()).unwrap()).collect();
            own.sort();
            own.dedup();
            own
        };
        assert_eq!(of("usr/bin", "tool"), ["/usr/bin"]);
        assert_eq!(of("usr", "bin/tool"), ["/usr", "/usr/bin"]);
        assert_eq!(of("usr", "bin"), ["/usr"]);
        assert_eq!(of("usr/bin", "./"), ["/usr/bin"]);
        assert_eq!(of("usr/bin", "../../opt/."), ["", "/opt", "/usr", "/usr/bin"]);
        assert_eq!(of("opt/lib", "tool"), ["", "/opt", "/opt/lib", "/usr", "/usr/bin"]);
        assert_eq!(of("opt", "/usr/bin/tool"), ["", "/usr", "/usr/bin"]);
        assert_eq!(of("opt", "/"), [""; 0]);
        assert_eq!(of("usr", "none/x"), ["/usr"]);
        let own = nix::unistd::getpid().as_raw();
        let place = Place { root: b"/".to_vec(), directory: b"/".to_vec(), ..Place::default() };
        let asker = Asker { process: own, task: own, place: &place };
        let held = fs_err::File::open(fixture.directory.path().join("usr")).unwrap();
        let door = format!("/proc/self/fd/{}/bin/tool", std::os::fd::AsRawFd::as_raw_fd(&held));
        let walk = Walker::default().walk(asker, b"/", door.as_bytes(), true, true).walk;
        let behind: Vec<_> = walk.searched.iter().filter(|one| !one.path.starts_with(b"/proc")).collect();
        let usr = bytes(&fixture.directory.path().join("usr"));
        let all: Vec<Vec<u8>> = behind.iter().flat_map(|one| one.directories()).map(<[u8]>::to_vec).collect();
        assert_eq!(all, [usr.clone(), [&usr, &b"/bin"[..]].concat()], "{:?}", walk.searched);
    }

    #[test]
    fn nothing_leads_above_the_root() {
        let fixture = fixture();
        assert_eq!(fixture.walk("../../../usr", true).0, "/usr");
        assert_eq!(fixture.walk("/../usr", true).0, "/usr");
    }

    #[test]
    fn missing_and_impossible() {
        let fixture = fixture();
        let (end, links, found) = fixture.walk("bin/none/x", true);
        assert_eq!((end.as_str(), links.len()), ("/usr/bin/none/x", 1));
        assert!(matches!(found, Found::Missing));
        assert!(matches!(fixture.walk("loop", true).2, Found::Unknown(Errno::ELOOP)));
        // The file is what is in the way.
        for spelled in ["bin/tool/x", "bin/tool/..", "bin/tool/x/y", "bin/tool/"] {
            let (end, _, found) = fixture.walk(spelled, true);
            assert_eq!(end, "/usr/bin/tool", "{spelled}");
            assert!(matches!(found, Found::There(_)));
        }
        // Nobody gets back from where nothing is.
        assert_eq!(fixture.walk("none/../bin", true).0, "/none");
        assert_eq!(fixture.walk("none/../bin/tool", true).0, "/none");
    }

    #[test]
    fn proc_leads_to_the_asker() {
        let place = Place { root: b"/".to_vec(), directory: b"/".to_vec(), ..Place::default() };
        let own = nix::unistd::getpid().as_raw();
        let walk = Walker::default().walk(
            Asker { process: own, task: own, place: &place },
            b"/",
            b"/proc/self/exe",
            true,
            true,
        );
        assert!(walk.is_personal);
        assert_eq!(walk.walk.end, bytes(&std::env::current_exe().unwrap()));
        let walk = Walker::default().walk(
            Asker { process: own, task: own, place: &place },
            b"/",
            b"/proc/self/status",
            true,
            true,
        );
        assert!(walk.is_personal);
        assert_eq!(walk.walk.end, format!("/proc/{own}/status").into_bytes());
    }
}
