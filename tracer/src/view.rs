//! From where a task sees something to where the program was given it.
//!
//! A task may see other mounts than the tracer (`mount_namespaces(7)`), and the program may mount something where both see
//! it. What it finds at a path then stood elsewhere when the program began, as what is bound to another place does, or was
//! not there, as what lies in a `tmpfs` of its own. An image has what the program was given.
//!
//! In: a walk in the task's view, and the tables of mounts. Out: the walks that lead to the same in what was given; where
//! there is none although there should be, that. Two mounts of one directory were given by two paths: both are told.
//!
//! Not covered: the layers of an overlay, which is told as hidden; what is on disks that the program mounts, which is told where it
//! is seen if the tracer sees it there, and else as hidden.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use nix::errno::Errno;

use crate::TraceError;
use crate::behind::LEFT;
use crate::engine::Engine;
use crate::event::{Access, Found, Gap, Link, Searched, Walk};
use crate::inspect::Asking;
use crate::look;
use crate::mounts::{Device, Mount, Mounts};
use crate::names::{below, join};
use crate::place::Place;
use crate::served::Lies;
use crate::sys::Inode;

/// Kinds of file systems that hold nothing but what is put there after they are mounted, or what the kernel makes up.
const BEGIN_EMPTY: [&[u8]; 19] = [
    b"binfmt_misc",
    b"bpf",
    b"cgroup",
    b"cgroup2",
    b"configfs",
    b"debugfs",
    b"devpts",
    b"devtmpfs",
    b"efivarfs",
    b"fusectl",
    b"hugetlbfs",
    b"mqueue",
    b"proc",
    b"pstore",
    b"ramfs",
    b"securityfs",
    b"sysfs",
    b"tmpfs",
    b"tracefs",
];

/// Those that the kernel makes up, of which an image never has anything, whoever has mounted them.
const MADE_UP: [&[u8]; 10] =
    [b"cgroup", b"cgroup2", b"debugfs", b"devpts", b"nsfs", b"pidfs", b"proc", b"securityfs", b"sysfs", b"tracefs"];

/// True for file systems of a kind that hold nothing that was there before.
pub(crate) fn begins_empty(kind: &[u8]) -> bool {
    BEGIN_EMPTY.contains(&kind)
}

/// The mounts that a task sees, and those that the program was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    /// What the task sees, by paths from `top` on.
    pub(crate) theirs: Arc<Mounts>,
    pub(crate) top: Vec<u8>,
    /// What the tracer sees now.
    pub(crate) ours: Arc<Mounts>,
    /// What it saw before the program mounted anything.
    pub(crate) given: Arc<Given>,
    /// The kinds of file systems that the program has mounted, by names that are known.
    pub(crate) made: Arc<Made>,
    /// Both see the same.
    pub(crate) is_ours: bool,
    /// The mount, and the directory on it, where paths begin, if that is not the root.
    pub(crate) begins: Option<(u32, Vec<u8>)>,
}

/// The mounts that there were before the program mounted anything.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Given {
    points: HashMap<u32, Vec<u8>>,
    devices: HashSet<Device>,
}

impl Given {
    pub(crate) fn of(mounts: &Mounts) -> Self {
        Self {
            points: mounts.iter().map(|mount| (mount.id, mount.point.clone())).collect(),
            devices: mounts.iter().map(|mount| mount.device).collect(),
        }
    }

    /// True if `mount` was there, and where it is now, at `point`.
    fn has(&self, mount: &Mount, point: &[u8]) -> bool {
        self.points.get(&mount.id).is_some_and(|given| given == point)
    }

    /// True if something of this device was there.
    pub(crate) fn has_device(&self, device: Device) -> bool {
        self.devices.contains(&device)
    }
}

/// What the program has mounted itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) kinds: HashSet<Vec<u8>>,
    /// It may have mounted any kind (`fsopen(2)`).
    pub(crate) any: bool,
    /// Tasks have entered a mount namespace that somebody else has made, and in which there is what they have not.
    pub(crate) none: bool,
}

impl Made {
    fn has(&self, mount: &Mount) -> bool {
        !self.none && (self.any || self.kinds.contains(&mount.kind)) && begins_empty(&mount.kind)
    }
}

/// Walks in what the program was given.
#[derive(Debug)]
struct Walks {
    all: Vec<Walk>,
    /// False if the program has made what stands at the end itself: then they lead to the last link on the way there, if any.
    are_whole: bool,
}

/// Where what a task sees at a path was given.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    /// At these paths.
    At(Vec<Vec<u8>>),
    /// Nowhere: it is in what the program has mounted itself, or the kernel makes it up.
    Own,
    /// Somewhere else, but the tracer sees it nowhere.
    Hidden,
}

impl View {
    /// True if this tells of a task whose root is at `path`, and is the directory `behind` that: something may be mounted over
    /// that one since.
    pub(crate) fn is_root(&self, path: &[u8], behind: Option<Inode>) -> bool {
        let Some(within) = below(path, &self.top).map(|rest| join(b"/", rest)) else { return false };
        let mount = self.theirs.way(&within).last().map(|mount| u64::from(mount.id));
        // Before Linux 5.8 there is no telling.
        behind.is_none_or(|behind| behind.mount == 0 || mount == Some(behind.mount))
    }

    /// The same for who begins at `path`, which is on the mount `id`.
    pub(crate) fn begun_at(&self, id: u32, path: &[u8]) -> Option<Self> {
        let within = below(path, &self.top).map(|rest| join(b"/", rest))?;
        below(&within, &self.theirs.find(id)?.point)?;
        Some(Self { begins: Some((id, within)), is_ours: false, ..self.clone() })
    }

    /// The mount that `path` is on, which has no links on its way.
    pub(crate) fn mount(&self, path: &[u8]) -> Option<&Mount> {
        let within = below(path, &self.top).map(|rest| join(b"/", rest))?;
        match &self.begins {
            None => self.theirs.way(&within).last(),
            Some((id, from)) => self.theirs.way_from(self.theirs.find(*id), from, &within).last(),
        }
    }

    /// Where the program was given what was seen at `path`.
    pub(crate) fn given_at(&self, path: &[u8]) -> Vec<Vec<u8>> {
        if let Source::At(paths) = self.source(path) { paths } else { Vec::new() }
    }

    /// Where the program was given what the task sees at `path`, which has no links on its way.
    fn source(&self, path: &[u8]) -> Source {
        let within = below(path, &self.top).map(|rest| join(b"/", rest));
        let Some(within) = within else { return Source::Hidden };
        let Some(mount) = self.mount(path) else { return Source::Hidden };
        if self.is_ours && self.is_as_given(mount) {
            return Source::At(vec![path.to_vec()]);
        }
        let paths = self.given_on(mount, &within);
        // A copy of a mount, at the place of the one that it was copied from, has nothing to do with others of the same directory.
        let paths = if paths.iter().any(|given| given == path) { vec![path.to_vec()] } else { paths };
        if !paths.is_empty() {
            Source::At(paths)
        } else if self.has_made(mount) {
            Source::Own
        } else if self.is_ours && !self.given.devices.contains(&mount.device) && mount.kind != b"overlay" {
            // A disk's files, say, are told where they are; an overlay's are in its layers.
            Source::At(vec![path.to_vec()])
        } else if MADE_UP.contains(&mount.kind.as_slice()) {
            Source::Own
        } else {
            Source::Hidden
        }
    }

    fn is_as_given(&self, mount: &Mount) -> bool {
        let point = below(&mount.point, b"/").map(|rest| join(&self.top, rest));
        point.is_some_and(|point| self.given.has(mount, &point))
    }

    fn has_made(&self, mount: &Mount) -> bool {
        !self.given.devices.contains(&mount.device) && self.made.has(mount)
    }

    /// Where the program was given what lies on `mount` of the task's at `within`, as far as the tracer sees it now.
    fn given_on(&self, mount: &Mount, within: &[u8]) -> Vec<Vec<u8>> {
        // Who mounts a directory on itself hides nothing.
        let is_seen = |ours: &Mount, path: &[u8]| {
            let last = self.ours.way(path).last();
            last.is_some_and(|last| last.shows(path) == ours.shows(path))
        };
        self.given_as(mount, within, is_seen)
    }

    /// The same of what shows there as `is_it` says: of the tracer's mounts, and a path on that.
    fn given_as(&self, mount: &Mount, within: &[u8], is_it: impl Fn(&Mount, &[u8]) -> bool) -> Vec<Vec<u8>> {
        let Some(rest) = below(within, &mount.point) else { return Vec::new() };
        let inside = join(&mount.root, rest);
        let candidate = |ours: &Mount| {
            let rest = below(&inside, &ours.root)
                .filter(|_| ours.device == mount.device && self.given.has(ours, &ours.point))?;
            let path = join(&ours.point, rest);
            is_it(ours, &path).then_some(path)
        };
        let mut paths: Vec<Vec<u8>> = self.ours.iter().filter_map(candidate).collect();
        paths.sort();
        paths.dedup();
        paths
    }

    /// The directories to which `walk` leads, a task that has unmounted what the program was given there and mounts something else: it
    /// has no more of them than that they are there.
    fn points(&self, walk: &Walk) -> Vec<Walk> {
        let within = below(&walk.end, &self.top).map(|rest| join(b"/", rest));
        let Some((mount, within)) = self.mount(&walk.end).zip(within).filter(|_| walk.links.is_empty()) else {
            return Vec::new();
        };
        let is_point = |ours: &Mount, path: &[u8]| {
            let mut on_it = self.ours.iter().filter(|other| other.parent == ours.id && other.point == path);
            on_it.any(|other| self.given.has(other, path))
        };
        let paths = self.given_as(mount, &within, is_point).into_iter();
        let found = paths.filter_map(|path| Some((look::lstat(&path).ok()?, path)));
        let directories = found.filter(|(stat, _)| stat.st_mode & libc::S_IFMT == libc::S_IFDIR);
        directories.map(|(stat, path)| Walk::bare(path, Found::There(Box::new(stat)), false)).collect()
    }

    /// The walks that lead to the same in what the program was given. `None` if the tracer does not see where that is.
    fn walks(&self, walk: &Walk) -> Option<Walks> {
        let (mut links, mut passed) = (Vec::new(), Vec::new());
        for link in &walk.links {
            // Some of the links in a /proc lead each reader to itself.
            let is_same = |path: &[u8]| {
                path.starts_with(b"/proc/") || look::target(path).is_ok_and(|target| target == link.target)
            };
            for path in self.seen(&link.path, is_same)? {
                links.push(Link { path, ..link.clone() });
            }
        }
        for path in &walk.passed {
            passed.append(&mut self.seen(path, |_| true)?);
        }
        // Whose these are that the tracer does not see where they were given, nobody is asked.
        let directories = walk.searched.iter().flat_map(Searched::directories);
        let searched: Vec<Searched> = directories
            .flat_map(|path| self.seen(path, |_| true).unwrap_or_default())
            .map(|path| Searched { from: path.len(), path })
            .collect();
        let mut ends = self.seen(&walk.end, |path| is_found(&walk.found, path))?;
        if let Some(end) = ends.pop() {
            let (found, by_descriptor) = (&walk.found, walk.by_descriptor);
            let bare = |end| Walk { searched: searched.clone(), ..Walk::bare(end, found.clone(), by_descriptor) };
            let mut all: Vec<Walk> = ends.into_iter().map(bare).collect();
            all.push(Walk { links, passed, searched, end, found: found.clone(), by_descriptor });
            return Some(Walks { all, are_whole: true });
        }
        let Some(Link { path: end, .. }) = links.pop() else {
            return Some(Walks { all: Vec::new(), are_whole: false });
        };
        let found = Found::There(Box::new(look::lstat(&end).ok()?));
        Some(Walks { all: vec![Walk { links, passed, searched, end, found, by_descriptor: false }], are_whole: false })
    }

    /// Where `path` was given, if the tracer finds the same there: nowhere if the program has made it.
    pub(crate) fn seen(&self, path: &[u8], is_same: impl Fn(&[u8]) -> bool) -> Option<Vec<Vec<u8>>> {
        match self.source(path) {
            Source::At(paths) => {
                paths.iter().all(|given| (self.is_ours && given == path) || is_same(given)).then_some(paths)
            }
            Source::Own => Some(Vec::new()),
            Source::Hidden => None,
        }
    }
}

/// True if the tracer finds at `path` what the task does.
fn is_found(found: &Found, path: &[u8]) -> bool {
    match (found, look::lstat(path)) {
        (Found::There(there), Ok(here)) => look::is_same(there, &here),
        (Found::Missing, Err(Errno::ENOENT)) => true,
        (Found::Unknown(theirs), Err(ours)) => *theirs == ours,
        // What is in a /proc comes and goes.
        _ => path.starts_with(b"/proc/"),
    }
}

impl Engine<'_> {
    /// Where the program was given what is loaded into `process` from `files`; and those of which it was given none, or that the
    /// tracer does not see.
    pub(crate) fn given_files(&mut self, process: i32, files: Vec<Vec<u8>>) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let Ok(place) = self.place(process) else { return (files, Vec::new()) };
        let Some(view) = &place.view else { return (files, Vec::new()) };
        let (mut given, mut others) = (Vec::new(), Vec::new());
        for file in files {
            let is_it = |given: &[u8]| {
                let (there, here) = (look::lstat(&place.reach(process, &file)), look::lstat(given));
                there.is_ok_and(|there| here.is_ok_and(|here| look::is_same(&there, &here)))
            };
            if let Some(mut paths) = view.seen(&file, is_it).filter(|paths| !paths.is_empty()) {
                given.append(&mut paths);
            } else {
                given.push(file.clone());
                others.push(file);
            }
        }
        (given, others)
    }

    /// Tells a walk in the view of `place` as what the program was given.
    pub(crate) fn tell_given(
        &mut self,
        asking: Asking,
        place: &Place,
        access: Access,
        spelled: &[u8],
        walk: &Walk,
    ) -> Result<(), TraceError> {
        if place.view.is_none() && place.namespace.is_none() && !place.strays {
            return self.tell_walk(asking, access, spelled, walk, false);
        }
        let goes_astray = place.strays && walk.links.iter().any(|link| link.target.starts_with(b"/"));
        let has_left = place.behind.is_some() && matches!(walk.found, Found::Unknown(LEFT));
        let Some(walks) = self.given(asking, place, walk).filter(|_| !goes_astray && !has_left) else {
            let points = place.view.as_ref().filter(|_| access == Access::Mount).map(|view| view.points(walk));
            let points = points.unwrap_or_default();
            if points.is_empty() {
                return self.gap(asking.process, Gap::MountNamespace);
            }
            return points.iter().try_for_each(|walk| self.tell_walk(asking, access, spelled, walk, false));
        };
        let access = if walks.are_whole { access } else { Access::Look };
        walks.all.iter().try_for_each(|walk| self.tell_walk(asking, access, spelled, walk, false))
    }

    fn given(&mut self, asking: Asking, place: &Place, walk: &Walk) -> Option<Walks> {
        // Of what the program serves in a view of its own, nobody is asked.
        let outside = place.served_outside.as_ref();
        let is_elsewhere = |walks: &Walks| {
            walks.all.iter().all(|walk| outside.is_none_or(|table| table.lies(&walk.end) == Lies::Elsewhere))
        };
        let view = place.view.as_ref();
        let view = view.filter(|view| place.behind.as_ref().is_none_or(|behind| behind.is_as_seen(view, walk)));
        let first = view.and_then(|view| view.walks(walk));
        if first.is_some() {
            return first.filter(is_elsewhere);
        }
        if place.strays {
            return None;
        }
        // Somebody whom nobody traces may have mounted something since the tables were read.
        self.places.forget_views();
        let now = self.place(asking.task).ok()?;
        let view = now.view.as_ref().filter(|_| now.view != place.view)?;
        view.walks(walk).filter(is_elsewhere)
    }
}
