//! File systems that others serve: another machine, or a process that is not traced.
//!
//! In: the kernel's table of mounts, as the program starts. Out: of a path, whether a look at it asks such a server, which may
//! take its time or never answer. Until then only the task that asks is to wait, as it would without a tracer (see
//! [`foresight`](crate::foresight)).
//!
//! Not covered: what is mounted later, or in another mount namespace; and the file system that the root is on, without
//! which nothing works anyway. Only paths are asked for: what is asked of a descriptor was answered when it was opened.

use crate::mounts::{Mount, Mounts};
use crate::names::below;

/// Kinds that ask another machine, or a process (`proc_pid_mountinfo(5)` has the names of `filesystems(5)`). FUSE has more
/// names than one.
const KINDS: [&[u8]; 12] =
    [b"nfs", b"nfs4", b"cifs", b"smb3", b"9p", b"ceph", b"afs", b"autofs", b"gfs2", b"ocfs2", b"lustre", b"virtiofs"];

/// Where such file systems are mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Remote {
    points: Vec<Vec<u8>>,
}

impl Remote {
    /// `None` if nothing of `mounts` is such.
    pub(crate) fn of(mounts: &Mounts) -> Option<Self> {
        let root = mounts.way(b"/").last().map(|mount| mount.device);
        let asks =
            |mount: &&Mount| (mount.is_fuse() || KINDS.contains(&mount.kind.as_slice())) && Some(mount.device) != root;
        let points: Vec<Vec<u8>> = mounts.iter().filter(asks).map(|mount| mount.point.clone()).collect();
        (!points.is_empty()).then_some(Self { points })
    }

    /// True if a look at `path`, which has no links on its way, may ask a server.
    pub(crate) fn holds(&self, path: &[u8]) -> bool {
        self.points.iter().any(|point| below(path, point).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_a_mount_of_others() {
        let mounts = Mounts::parse(
            b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            30 22 0:40 / /home/a rw - fuse.sshfs host: rw\n\
            31 22 0:41 / /srv rw - nfs4 host:/srv rw\n\
            32 22 0:42 / /tmp rw - tmpfs none rw\n",
        );
        let remote = Remote::of(&mounts).unwrap();
        for path in ["/home/a", "/home/a/b", "/srv/x"] {
            assert!(remote.holds(path.as_bytes()), "{path}");
        }
        for path in ["/", "/home", "/home/ab", "/tmp/x"] {
            assert!(!remote.holds(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn a_root_that_is_served_is_none() {
        let mounts =
            Mounts::parse(b"22 1 0:40 / / rw - nfs host:/ rw\n23 22 0:40 /home /home rw - nfs host:/home rw\n");
        assert_eq!(Remote::of(&mounts), None);
    }
}
