//! File systems that the program serves itself (FUSE): whoever looks into one waits for one of its own tasks.
//!
//! In: that a task opens `/dev/fuse`, what it mounts, and the kernel's tables of mounts. Out: of a path, whether the way
//! to it leads through such a file system, found out without asking its server. Until a task opens that device nothing is
//! read at all. What was mounted before has a server that is not traced (see `remote`).
//!
//! Not seen: a server whose device was opened by somebody else and handed to it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{FileStat, Mode, makedev};

use crate::mounts::{Device, Mount, Mounts, OWN_TABLE};
use crate::names::below;

/// Stands for what was not asked, since the answer may have to wait for whoever asks: `errno(3)` has it for that.
pub(crate) const UNASKED: Errno = Errno::EDEADLK;

/// Whose files lie at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lies {
    /// Nobody's who is traced.
    Elsewhere,
    /// The program's own: it has mounted the file system there, and serves it.
    Served,
    /// On the way there is a file system that the program may serve; what lies at the path may be somebody else's.
    Beyond,
}

/// The mounts of one mount namespace, of which at least one may be served by the program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Table {
    mounts: Mounts,
    /// Who serves a mount, by its id, if that is not [`Serving::Others`].
    serving: HashMap<u32, Serving>,
    /// Where something is being mounted right now.
    mounting: Vec<Vec<u8>>,
}

/// Who serves a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Serving {
    /// The kernel, or somebody who is not traced.
    Others,
    /// The program, which has mounted it.
    Program,
    /// Perhaps the program: somebody else has mounted it meanwhile.
    Unknown,
}

impl Table {
    /// Whose files lie at `path`, which has no links on its way.
    pub(crate) fn lies(&self, path: &[u8]) -> Lies {
        if self.mounting.iter().any(|point| below(path, point).is_some()) {
            return Lies::Beyond;
        }
        let leads_below = |mount: &Mount| self.serving(mount) != Serving::Others && below(path, &mount.point).is_some();
        if !self.mounts.iter().any(leads_below) {
            return Lies::Elsewhere;
        }
        let mut passes = false;
        let mut end = Serving::Unknown;
        for mount in self.mounts.way(path) {
            end = self.serving(mount);
            passes |= end != Serving::Others;
        }
        match (passes, end) {
            (_, Serving::Program) => Lies::Served,
            (false, Serving::Others) => Lies::Elsewhere,
            _ => Lies::Beyond,
        }
    }

    fn serving(&self, mount: &Mount) -> Serving {
        self.serving.get(&mount.id).copied().unwrap_or(Serving::Others)
    }

    /// True if the program may serve what is on `device`.
    pub(crate) fn serves(&self, device: Device) -> bool {
        self.mounts.iter().any(|mount| mount.device == device && self.serving(mount) != Serving::Others)
    }
}

/// What the program serves, as far as that is to be expected.
#[derive(Debug, Default)]
pub(crate) struct Served {
    /// The tracer's own table of mounts, which says when it changes (`proc_pid_mountinfo(5)`), once a task has opened the device.
    watch: Option<OwnedFd>,
    /// File systems of this kind that others serve.
    foreign: BTreeSet<Device>,
    /// Where tasks have mounted something since.
    targets: HashSet<Vec<u8>>,
    /// Where tasks are mounting something.
    mounting: HashMap<i32, Vec<u8>>,
    is_stale: bool,
    table: Option<Arc<Table>>,
}

impl Served {
    /// A task is about to open the device of which `stat` tells, if that is the one by which file systems are served.
    pub(crate) fn opens(&mut self, stat: &FileStat) {
        // Documentation/admin-guide/devices.txt: 10, 229.
        let is_device = stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == makedev(10, 229);
        if is_device && self.watch.is_none() {
            self.foreign = Mounts::own().iter().filter(|mount| mount.is_fuse()).map(|mount| mount.device).collect();
            self.expect();
        }
    }

    /// The program may serve whatever is not foreign: at first all, as where it was given that device open, by which any of them may have
    /// been mounted.
    pub(crate) fn expect(&mut self) {
        self.watch = open(OWN_TABLE, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok();
        self.is_stale = true;
    }

    /// True once a task may serve something.
    pub(crate) fn is_expected(&self) -> bool {
        self.watch.is_some()
    }

    /// `task` is about to mount something at `point`, or to unmount it.
    pub(crate) fn mounts(&mut self, task: i32, point: &[u8]) {
        if self.is_expected() {
            self.targets.insert(point.to_vec());
            self.mounting.insert(task, point.to_vec());
            self.is_stale = true;
        }
    }

    /// The last call of `task` is over.
    pub(crate) fn settle(&mut self, task: i32) {
        if !self.mounting.is_empty() && self.mounting.remove(&task).is_some() {
            self.is_stale = true;
        }
    }

    /// Takes in what was mounted and unmounted since; true if something was.
    pub(crate) fn refresh(&mut self) -> bool {
        let Some(watch) = &self.watch else { return false };
        let mut changes = [PollFd::new(watch.as_fd(), PollFlags::POLLPRI)];
        let is_changed = poll(&mut changes, PollTimeout::ZERO) != Ok(0);
        if !is_changed && !self.is_stale {
            return false;
        }
        self.is_stale = false;
        let mounts = Mounts::own();
        // The kernel gives a number that is free to the next one.
        let present: BTreeSet<Device> = mounts.iter().map(|mount| mount.device).collect();
        self.foreign.retain(|device| present.contains(device));
        self.table = self.table_of(mounts);
        true
    }

    /// What the tracer itself sees.
    pub(crate) fn table(&self) -> Option<&Arc<Table>> {
        self.table.as_ref()
    }

    /// What `task` sees, which has a mount namespace of its own; what its root is on may stand only in a table that is `known`.
    pub(crate) fn table_for(&self, task: i32, known: Option<&Mounts>) -> Option<Arc<Table>> {
        self.watch.as_ref()?;
        let mut mounts = Mounts::of(task)?;
        if let Some(top) = known.and_then(Mounts::top).filter(|_| !mounts.is_whole()) {
            mounts.complete(top.clone());
        }
        self.table_of(mounts)
    }

    /// True if the program may serve something that stands there.
    pub(crate) fn may_be_in(&self, mounts: &Mounts) -> bool {
        self.is_expected() && self.table_of(mounts.clone()).is_some()
    }

    /// `None` if the program serves nothing that stands there.
    fn table_of(&self, mounts: Mounts) -> Option<Arc<Table>> {
        let fuse = || mounts.iter().filter(|mount| mount.is_fuse() && !self.foreign.contains(&mount.device));
        // One that was copied to another place is the same one.
        let own: BTreeSet<Device> =
            fuse().filter(|mount| self.targets.contains(&mount.point)).map(|mount| mount.device).collect();
        let serving = |mount: &Mount| if own.contains(&mount.device) { Serving::Program } else { Serving::Unknown };
        let serving: HashMap<u32, Serving> = fuse().map(|mount| (mount.id, serving(mount))).collect();
        let mounting: Vec<Vec<u8>> = self.mounting.values().cloned().collect();
        let is_serving = !mounting.is_empty() || !serving.is_empty();
        is_serving.then(|| Arc::new(Table { mounts, serving, mounting }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &[u8] = b"\
        22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n\
        30 22 0:40 / /home/a\\040b rw - fuse.sshfs host: rw\n\
        31 22 0:41 / /tmp/own rw master:1 - fuse.squashfuse squashfuse rw\n\
        32 31 8:1 /srv /tmp/own/bound rw - ext4 /dev/sda1 rw\n\
        33 22 0:42 / /mnt/over rw - fuse thing rw\n\
        34 33 0:43 / /mnt/over rw - tmpfs none rw\n\
        35 22 0:44 / /hidden rw - tmpfs none rw\n\
        36 22 0:41 / /copied rw - fuse.squashfuse squashfuse rw\n\
        37 22 0:45 / /sys/fs/fuse/connections rw - fusectl none rw\n";

    fn served(foreign: &[Device], targets: &[&str]) -> Served {
        Served {
            foreign: foreign.iter().copied().collect(),
            targets: targets.iter().map(|target| target.as_bytes().to_vec()).collect(),
            ..Served::default()
        }
    }

    #[test]
    fn whose_files_lie_where() {
        let table = served(&[(0, 40)], &["/tmp/own"]).table_of(Mounts::parse(MOUNTS)).unwrap();
        for (path, expected) in [
            ("/", Lies::Elsewhere),
            ("/tmp", Lies::Elsewhere),
            ("/tmp/owner", Lies::Elsewhere),
            ("/tmp/own", Lies::Served),
            ("/tmp/own/x/y", Lies::Served),
            ("/copied/x", Lies::Served),
            ("/home/a b/x", Lies::Elsewhere),
            ("/sys/fs/fuse/connections/1", Lies::Elsewhere),
            // A mount on the way, and one that another hides.
            ("/tmp/own/bound/x", Lies::Beyond),
            ("/mnt/over/x", Lies::Beyond),
        ] {
            assert_eq!(table.lies(path.as_bytes()), expected, "{path}");
        }
        assert!(table.serves((0, 41)) && table.serves((0, 42)) && !table.serves((0, 40)) && !table.serves((8, 1)));
    }

    #[test]
    fn what_nobody_serves_costs_nothing() {
        assert_eq!(served(&[(0, 40), (0, 41), (0, 42)], &[]).table_of(Mounts::parse(MOUNTS)), None);
    }

    #[test]
    fn what_is_being_mounted_is_not_looked_into() {
        let mut served = served(&[(0, 40), (0, 41), (0, 42)], &[]);
        served.mounting.insert(7, b"/new".to_vec());
        let table = served.table_of(Mounts::parse(MOUNTS)).unwrap();
        assert_eq!(table.lies(b"/new/x"), Lies::Beyond);
        assert_eq!(table.lies(b"/newer"), Lies::Elsewhere);
        served.settle(7);
        assert_eq!(served.table_of(Mounts::parse(MOUNTS)), None);
    }
}
