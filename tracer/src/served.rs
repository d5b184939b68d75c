//! File systems that the program serves itself (FUSE): whoever looks into one waits for one of its own tasks.
//!
//! In: that a task opens `/dev/fuse`, what it mounts, and the kernel's tables of mounts. Out: of a path, whether the way
//! to it leads through such a file system, found out without asking its server. Until a task opens that device nothing is
//! read at all. What was mounted before has a server that is not traced.
//!
//! Not seen: a server whose device was opened by somebody else and handed to it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{FileStat, Mode, makedev};

use crate::place::fs_read;

/// Stands for what was not asked, since the answer may have to wait for whoever asks: `errno(3)` has it for that.
pub(crate) const UNASKED: Errno = Errno::EDEADLK;

/// Of the calling thread: it has the mount namespace of the tracer, whatever its process has.
const OWN_TABLE: &str = "/proc/thread-self/mountinfo";

/// A device, as the tables of mounts name it.
pub(crate) type Device = (u32, u32);

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
    mounts: Vec<Mount>,
    /// Where something is being mounted right now.
    mounting: Vec<Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    id: u32,
    parent: u32,
    point: Vec<u8>,
    device: Device,
    serving: Serving,
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
        if self.mounting.iter().any(|point| is_below(path, point)) {
            return Lies::Beyond;
        }
        if !self.mounts.iter().any(|mount| mount.serving != Serving::Others && is_below(path, &mount.point)) {
            return Lies::Elsewhere;
        }
        // Down from mount to mount, as the kernel goes: one may lie over another, or hide it.
        let is_top = |mount: &&Mount| !self.mounts.iter().any(|other| other.id == mount.parent && other.id != mount.id);
        let mut at = self.mounts.iter().find(|mount| mount.point == b"/" && is_top(mount));
        let mut passes = false;
        let mut end = Serving::Unknown;
        let mut steps = self.mounts.len();
        while let Some(mount) = at {
            passes |= mount.serving != Serving::Others;
            end = mount.serving;
            steps = steps.saturating_sub(1);
            let above =
                |other: &&Mount| other.parent == mount.id && other.id != mount.id && is_below(path, &other.point);
            let next = self.mounts.iter().filter(above).min_by_key(|other| other.point.len());
            at = next.filter(|_| steps > 0);
        }
        match (passes, end) {
            (_, Serving::Program) => Lies::Served,
            (false, Serving::Others) => Lies::Elsewhere,
            _ => Lies::Beyond,
        }
    }

    /// True if the program may serve what is on `device`.
    pub(crate) fn serves(&self, device: Device) -> bool {
        self.mounts.iter().any(|mount| mount.device == device && mount.serving != Serving::Others)
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
        if !is_device || self.watch.is_some() {
            return;
        }
        self.watch = open(OWN_TABLE, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok();
        self.is_stale = true;
        let mounts = fs_read(OWN_TABLE).unwrap_or_default();
        self.foreign = lines(&mounts).filter(|line| line.is_fuse).map(|line| line.device).collect();
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
        let mounts = fs_read(OWN_TABLE).unwrap_or_default();
        // The kernel gives a number that is free to the next one.
        let present: BTreeSet<Device> = lines(&mounts).map(|line| line.device).collect();
        self.foreign.retain(|device| present.contains(device));
        self.table = self.table_of(&mounts);
        true
    }

    /// What the tracer itself sees.
    pub(crate) fn table(&self) -> Option<&Arc<Table>> {
        self.table.as_ref()
    }

    /// What `task` sees, which has a mount namespace of its own.
    pub(crate) fn table_for(&self, task: i32) -> Option<Arc<Table>> {
        self.watch.as_ref()?;
        self.table_of(&fs_read(&format!("/proc/{task}/mountinfo"))?)
    }

    /// `None` if the program serves nothing that stands there.
    fn table_of(&self, mounts: &[u8]) -> Option<Arc<Table>> {
        let serving = |line: &Line| match line {
            line if !line.is_fuse || self.foreign.contains(&line.device) => Serving::Others,
            line if self.targets.contains(&line.point) => Serving::Program,
            _ => Serving::Unknown,
        };
        let mut mounts: Vec<Mount> = lines(mounts)
            .map(|line| {
                let serving = serving(&line);
                Mount { id: line.id, parent: line.parent, point: line.point, device: line.device, serving }
            })
            .collect();
        // One that was copied to another place is the same one.
        let own: BTreeSet<Device> =
            mounts.iter().filter(|mount| mount.serving == Serving::Program).map(|mount| mount.device).collect();
        for mount in mounts.iter_mut().filter(|mount| own.contains(&mount.device)) {
            mount.serving = Serving::Program;
        }
        let mounting: Vec<Vec<u8>> = self.mounting.values().cloned().collect();
        let is_serving = !mounting.is_empty() || mounts.iter().any(|mount| mount.serving != Serving::Others);
        is_serving.then(|| Arc::new(Table { mounts, mounting }))
    }
}

/// A line of a table of mounts.
#[derive(Debug)]
struct Line {
    id: u32,
    parent: u32,
    device: Device,
    point: Vec<u8>,
    is_fuse: bool,
}

/// `proc_pid_mountinfo(5)`: id, parent, major:minor, root, mount point, options, optional fields, `-`, type, ...
fn lines(mounts: &[u8]) -> impl Iterator<Item = Line> {
    mounts.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ');
        let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse().ok();
        let (id, parent) = (number()?, number()?);
        let (major, minor) = std::str::from_utf8(fields.next()?).ok()?.split_once(':')?;
        let device = (major.parse().ok()?, minor.parse().ok()?);
        let point = unescape(fields.nth(1)?);
        let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
        let is_fuse =
            matches!(kind, b"fuse" | b"fuseblk") || kind.starts_with(b"fuse.") || kind.starts_with(b"fuseblk.");
        Some(Line { id, parent, device, point, is_fuse })
    })
}

/// Blanks and the like are written as three octal digits (`fs/proc_namespace.c`, `mangle`).
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        let digits =
            tail.get(..3).filter(|digits| byte == b'\\' && digits.iter().all(|digit| (b'0'..=b'7').contains(digit)));
        rest = if let Some(digits) = digits {
            plain.push(digits.iter().fold(0u8, |sum, digit| sum.wrapping_mul(8).wrapping_add(digit - b'0')));
            &tail[3..]
        } else {
            plain.push(byte);
            tail
        };
    }
    plain
}

fn is_below(path: &[u8], point: &[u8]) -> bool {
    point == b"/" || path.strip_prefix(point).is_some_and(|rest| matches!(rest, [] | [b'/', ..]))
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
        let table = served(&[(0, 40)], &["/tmp/own"]).table_of(MOUNTS).unwrap();
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
        assert_eq!(served(&[(0, 40), (0, 41), (0, 42)], &[]).table_of(MOUNTS), None);
    }

    #[test]
    fn what_is_being_mounted_is_not_looked_into() {
        let mut served = served(&[(0, 40), (0, 41), (0, 42)], &[]);
        served.mounting.insert(7, b"/new".to_vec());
        let table = served.table_of(MOUNTS).unwrap();
        assert_eq!(table.lies(b"/new/x"), Lies::Beyond);
        assert_eq!(table.lies(b"/newer"), Lies::Elsewhere);
        served.settle(7);
        assert_eq!(served.table_of(MOUNTS), None);
    }

    #[test]
    fn other_mounts_and_damaged_lines_are_passed_over() {
        let read: Vec<Line> = lines(b"\n1 2\nx y z\n5 4 0:1 / /a rw\n5 4 0:1 / /a\\134b rw - fuse x rw\n").collect();
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].point, b"/a\\b");
    }
}
