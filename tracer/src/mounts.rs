//! The kernel's tables of mounts (`proc_pid_mountinfo(5)`).
//!
//! In: the text of a table. Out: its mounts, and through which of them a path leads. It asks no file system.

use crate::names::{below, join};
use crate::proc::fs_read;
use crate::sys;

/// Of the calling thread: it has the mount namespace of the tracer, whatever its process has.
pub(crate) const OWN_TABLE: &str = "/proc/thread-self/mountinfo";

/// A device, as the tables name it.
pub(crate) type Device = (u32, u32);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) id: u32,
    pub(crate) parent: u32,
    pub(crate) device: Device,
    /// The directory, or the file, of its file system that is mounted.
    pub(crate) root: Vec<u8>,
    /// Where it is mounted, from the root of whoever's table this is.
    pub(crate) point: Vec<u8>,
    pub(crate) kind: Vec<u8>,
}

impl Mount {
    /// `proc_pid_mountinfo(5)`: id, parent, major:minor, root, mount point, options, optional fields, `-`, type, ...
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|&byte| byte == b' ');
        let mut text = || std::str::from_utf8(fields.next()?).ok();
        let (id, parent) = (text()?.parse().ok()?, text()?.parse().ok()?);
        let (major, minor) = text()?.split_once(':')?;
        let device = (major.parse().ok()?, minor.parse().ok()?);
        let (root, point) = (unescape(fields.next()?), unescape(fields.next()?));
        let kind = fields.skip_while(|field| *field != b"-").nth(1)?.to_vec();
        Some(Self { id, parent, device, root, point, kind })
    }

    /// What it shows at `path`: of which file system, and where on that.
    pub(crate) fn shows(&self, path: &[u8]) -> Option<(Device, Vec<u8>)> {
        Some((self.device, join(&self.root, below(path, &self.point)?)))
    }

    /// True if some process serves it (`fuse(4)`).
    pub(crate) fn is_fuse(&self) -> bool {
        let kind = self.kind.as_slice();
        matches!(kind, b"fuse" | b"fuseblk") || kind.starts_with(b"fuse.") || kind.starts_with(b"fuseblk.")
    }
}

/// True if the tracer sees something else where `/proc` tells of a task, since something is mounted over that.
pub(crate) fn hide_tasks() -> bool {
    let is_over = |mount: &Mount| {
        let name = mount.point.strip_prefix(b"/proc/");
        name.and_then(|name| name.first()).is_some_and(u8::is_ascii_digit)
    };
    fs_read(OWN_TABLE).is_none_or(|table| Mounts::parse(&table).iter().any(is_over))
}

/// A table of mounts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Mounts {
    all: Vec<Mount>,
    /// The one that the root of whoever's table this is lies on, if it tells of that.
    top: Option<u32>,
}

impl Mounts {
    /// Lines that are none are passed over.
    pub(crate) fn parse(text: &[u8]) -> Self {
        let all: Vec<Mount> = text.split(|&byte| byte == b'\n').filter_map(Mount::parse).collect();
        let is_top = |mount: &&Mount| !all.iter().any(|other| other.id == mount.parent && other.id != mount.id);
        let top = all.iter().filter(|mount| mount.point == b"/").find(is_top).map(|mount| mount.id);
        Self { all, top }
    }

    /// The same of one whose root, behind `door`, is on a mount that this shows. What is mounted over a root that is no mount
    /// point looks as if it were that.
    fn seen_from(mut self, door: &str) -> Self {
        // Before Linux 5.8 there is no telling (`STATX_MNT_ID`).
        if let Some(mount) = sys::known_inode(door).ok().map(|root| root.mount).filter(|&mount| mount != 0) {
            let is_it = |top: &&Mount| u64::from(top.id) == mount && top.point == b"/";
            self.top = self.all.iter().find(is_it).map(|top| top.id);
        }
        self
    }

    /// What the calling thread sees; nothing if it is not told.
    pub(crate) fn own() -> Self {
        Self::parse(&fs_read(OWN_TABLE).unwrap_or_default()).seen_from("/")
    }

    /// What `task` sees; `None` if it is gone.
    pub(crate) fn of(task: i32) -> Option<Self> {
        let text = fs_read(&format!("/proc/{task}/mountinfo"))?;
        Some(Self::parse(&text).seen_from(&format!("/proc/{task}/root")))
    }

    /// Of one that is in no namespace any more, and nothing on it: paths begin there.
    pub(crate) fn alone(mount: Mount) -> Self {
        let point = b"/".to_vec();
        let mut alone = Self::default();
        alone.complete(Mount { parent: mount.id, point, ..mount });
        alone
    }

    pub(crate) fn find(&self, id: u32) -> Option<&Mount> {
        self.all.iter().find(|mount| mount.id == id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Mount> {
        self.all.iter()
    }

    /// True if this tells what the root is on.
    pub(crate) fn is_whole(&self) -> bool {
        self.top.is_some()
    }

    /// Takes in what the root is on.
    pub(crate) fn complete(&mut self, top: Mount) {
        self.top = Some(top.id);
        self.all.push(top);
    }

    /// What the root is on, if this tells.
    pub(crate) fn top(&self) -> Option<&Mount> {
        self.all.iter().find(|mount| Some(mount.id) == self.top && mount.point == b"/")
    }

    /// The mounts through which `path` leads, from the root on, if it has no links on its way: one may lie over another, or
    /// hide it. Empty if the table does not tell what is mounted at the root.
    pub(crate) fn way<'a, 'p>(&'a self, path: &'p [u8]) -> impl Iterator<Item = &'a Mount> + use<'a, 'p> {
        self.way_from(self.top(), b"/", path)
    }

    /// The same from the directory `from` on, which is on the mount `first`.
    pub(crate) fn way_from<'a, 'p>(
        &'a self,
        first: Option<&'a Mount>,
        from: &'p [u8],
        path: &'p [u8],
    ) -> impl Iterator<Item = &'a Mount> + use<'a, 'p> {
        let next = move |mount: &&Mount| {
            // Who begins there does not meet what is mounted over it (`fs/namei.c`, `path_init`).
            let is_below = |point: &[u8]| point != from && below(point, from).is_some();
            let above = |other: &&Mount| {
                other.parent == mount.id && is_below(&other.point) && below(path, &other.point).is_some()
            };
            self.all.iter().filter(above).min_by_key(|other| other.point.len())
        };
        // A table that was read while mounts changed may lead in a circle.
        std::iter::successors(first, next).take(self.all.len())
    }
}

/// Blanks and the like are written as three octal digits (`fs/proc_namespace.c`, `mangle`): gives `text` of a table of mounts
/// as it is.
#[must_use]
pub fn unescape(text: &[u8]) -> Vec<u8> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_goes_from_mount_to_mount() {
        let mounts = Mounts::parse(
            b"22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n\
            31 22 0:41 / /tmp/own rw master:1 - tmpfs none rw\n\
            32 31 8:1 /srv /tmp/own/bound rw - ext4 /dev/sda1 rw\n\
            33 22 0:42 / /mnt/over rw - tmpfs none rw\n\
            34 33 0:43 / /mnt/over rw - tmpfs none rw\n\
            35 40 0:44 / /hidden rw - tmpfs none rw\n\
            36 22 0:45 / / rw - tmpfs none rw\n",
        );
        let way = |path: &[u8]| mounts.way(path).map(|mount| mount.id).collect::<Vec<_>>();
        assert_eq!(way(b"/"), [22]);
        assert_eq!(way(b"/tmp/owner"), [22]);
        assert_eq!(way(b"/tmp/own"), [22, 31]);
        assert_eq!(way(b"/tmp/own/bound/x"), [22, 31, 32]);
        assert_eq!(way(b"/mnt/over/x"), [22, 33, 34]);
        assert_eq!(way(b"/hidden"), [22]);
        assert_eq!(Mounts::parse(b"31 22 0:41 / /tmp rw - tmpfs none rw\n").way(b"/tmp").count(), 0);
    }

    #[test]
    fn a_table_in_a_circle_comes_to_an_end() {
        let mounts = Mounts::parse(
            b"1 1 8:1 / / rw - ext4 x rw\n\
            2 1 8:1 / /a rw - ext4 x rw\n\
            3 2 8:1 / /a rw - ext4 x rw\n\
            2 3 8:1 / /a rw - ext4 x rw\n",
        );
        assert!(mounts.way(b"/a").count() <= 4);
    }

    #[test]
    fn damaged_lines_are_passed_over() {
        let mounts = Mounts::parse(b"\n1 2\nx y z\n5 4 0:1 / /a rw\n5 4 0:1 /b\\040c /a\\134b rw - fuse.x x rw\n");
        let [mount] = mounts.all.as_slice() else { panic!("{mounts:?}") };
        assert_eq!(
            (mount.root.as_slice(), mount.point.as_slice(), mount.is_fuse()),
            (&b"/b c"[..], &b"/a\\b"[..], true)
        );
    }
}
