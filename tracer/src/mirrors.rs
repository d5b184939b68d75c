//! Directories that are to be seen at two places, because both show the same part of one file system.
//!
//! In: the kernel's table of mounts, as a run starts. Out: of a path, by which others its name may be reached. Whether it is
//! needs a look: what is mounted below one of the two is not below the other, and a rename may have led them apart since.
//!
//! Not covered: what is mounted later, and where one of the two asks a server and the other does not (see
//! [`remote`](crate::remote)): a program that uses the other one need not wait for that.

use std::collections::HashMap;

use crate::mounts::{Device, Mount, Mounts};
use crate::names::{below, join};
use crate::remote::Remote;

/// The directories, and files, of one mount namespace that are to be seen at two places.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mirrors {
    pairs: Vec<[Vec<u8>; 2]>,
}

impl Mirrors {
    /// Those that the calling thread sees; none if it is not told of its mounts.
    pub fn now() -> Self {
        Self::of(&Mounts::own())
    }

    fn of(mounts: &Mounts) -> Self {
        let remote = Remote::of(mounts);
        let is_remote = |path: &[u8]| remote.as_ref().is_some_and(|remote| remote.holds(path));
        let is_seen = |mount: &Mount, path: &[u8]| mounts.way(path).last().is_some_and(|last| last.id == mount.id);
        let mut by_device: HashMap<Device, Vec<&Mount>> = HashMap::new();
        // What keeps a namespace is no directory: its root is `net:[4026531833]` or the like (`proc_pid_mountinfo(5)`).
        for mount in mounts.iter().filter(|mount| mount.root.starts_with(b"/")) {
            by_device.entry(mount.device).or_default().push(mount);
        }
        let mut pairs = Vec::new();
        for mut several in by_device.into_values().filter(|several| several.len() > 1) {
            several.retain(|mount| is_seen(mount, &mount.point));
            for (number, upper) in several.iter().enumerate() {
                // Of two that show the same, each shows the root of the other one.
                let lower =
                    several.iter().enumerate().filter(|&(other, lower)| other > number || lower.root != upper.root);
                for (_, lower) in lower {
                    let Some(path) = below(&lower.root, &upper.root).map(|rest| join(&upper.point, rest)) else {
                        continue;
                    };
                    if path != lower.point && is_seen(upper, &path) && is_remote(&path) == is_remote(&lower.point) {
                        pairs.push([path, lower.point.clone()]);
                    }
                }
            }
        }
        pairs.sort();
        Self { pairs }
    }

    /// True if no path has another one.
    pub fn are_none(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The paths by which the name at `path`, which has no links on its way, may be reached as well.
    pub fn others(&self, path: &[u8]) -> Vec<Vec<u8>> {
        let swapped = |one: &[u8], other: &[u8]| {
            let rest = below(path, one).filter(|rest| !rest.is_empty())?;
            Some(join(other, rest))
        };
        let both = self.pairs.iter().flat_map(|[one, other]| [swapped(one, other), swapped(other, one)]);
        both.flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sorted.
    fn others(mirrors: &Mirrors, path: &str) -> Vec<String> {
        let others = mirrors.others(path.as_bytes()).into_iter();
        let mut others: Vec<String> = others.map(|path| String::from_utf8(path).unwrap()).collect();
        others.sort();
        others
    }

    #[test]
    fn what_two_mounts_show() {
        let mirrors = Mirrors::of(&Mounts::parse(
            b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            31 22 8:1 /srv/data /var/lib/data rw - ext4 /dev/sda1 rw\n\
            32 22 8:1 /srv/data/deep /deep rw - ext4 /dev/sda1 rw\n\
            33 22 8:2 /x /one rw - ext4 /dev/sda2 rw\n\
            34 22 8:2 /x /other rw - ext4 /dev/sda2 rw\n\
            35 22 8:2 /y /third rw - ext4 /dev/sda2 rw\n",
        ));
        assert_eq!(others(&mirrors, "/srv/data/f"), ["/var/lib/data/f"]);
        assert_eq!(others(&mirrors, "/srv/data/deep/f"), ["/deep/f", "/var/lib/data/deep/f"]);
        assert_eq!(others(&mirrors, "/deep/f"), ["/srv/data/deep/f", "/var/lib/data/deep/f"]);
        assert_eq!(
            (others(&mirrors, "/one/f"), others(&mirrors, "/other/f")),
            (vec!["/other/f".into()], vec!["/one/f".into()])
        );
        for alone in ["/srv/database/f", "/srv/f", "/third/f", "/one", "/srv/data", "/usr/f"] {
            assert_eq!(others(&mirrors, alone), [""; 0], "{alone}");
        }
    }

    #[test]
    fn the_whole_of_a_file_system_at_a_second_place() {
        let mounts = b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n23 22 8:1 / /mnt/all rw - ext4 /dev/sda1 rw\n";
        let mirrors = Mirrors::of(&Mounts::parse(mounts));
        assert_eq!(others(&mirrors, "/etc/x"), ["/mnt/all/etc/x"]);
        assert!(others(&mirrors, "/mnt/all/etc/x").contains(&"/etc/x".to_owned()));
    }

    #[test]
    fn what_is_hidden_mirrors_nothing_nor_does_a_directory_itself() {
        let mirrors = Mirrors::of(&Mounts::parse(
            b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            23 22 8:1 /run/own /run/own rw - ext4 /dev/sda1 rw\n\
            24 22 8:1 /srv /covered rw - ext4 /dev/sda1 rw\n\
            25 24 0:41 / /covered rw - tmpfs none rw\n\
            26 22 0:42 / /opt rw - tmpfs none rw\n\
            27 22 8:1 /opt/x /shown rw - ext4 /dev/sda1 rw\n",
        ));
        assert_eq!(mirrors, Mirrors::default());
    }

    #[test]
    fn what_keeps_a_namespace_is_no_directory() {
        let mirrors = Mirrors::of(&Mounts::parse(
            b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            23 22 0:4 net:[4026531833] /run/netns/one rw - nsfs nsfs rw\n\
            24 22 0:4 net:[4026531833] /run/netns/other rw - nsfs nsfs rw\n",
        ));
        assert!(mirrors.are_none());
    }

    #[test]
    fn nobody_waits_for_the_server_of_another_path() {
        let mirrors = Mirrors::of(&Mounts::parse(
            b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            23 22 0:41 / /home rw - nfs4 host:/home rw\n\
            24 23 8:1 /scratch /home/scratch rw - ext4 /dev/sda1 rw\n\
            25 22 0:41 /a /a rw - nfs4 host:/home rw\n",
        ));
        assert_eq!(others(&mirrors, "/scratch/f"), [""; 0]);
        assert_eq!(others(&mirrors, "/a/f"), ["/home/a/f"]);
    }
}
