//! Directories that are to be seen at two places, because both show the same part of one file system.
//!
//! In: the kernel's table of mounts, as a run starts. Out: of a path, by which others its name may be reached. Whether it is
//! needs a look: what is mounted below one of the two is not below the other, and a rename may have led them apart since.
//!
//! Not covered: what is mounted later, and where one of the two asks a server and the other does not (see
//! [`remote`](crate::remote)): a program that uses the other one need not wait for that.

use std::collections::HashMap;

use crate::mounts::{Device, Mount, Mounts};
use crate::names::{below, join, parent};
use crate::remote::Remote;

/// The directories, and files, of one mount namespace that are to be seen at two places.
#[derive(Debug, Clone, Default)]
pub struct Mirrors {
    /// The mounts that are not hidden, by where they are.
    shown: HashMap<Vec<u8>, Mount>,
    /// Where a file system is mounted of which two show the same part.
    several: HashMap<Device, Vec<Vec<u8>>>,
    remote: Option<Remote>,
}

impl Mirrors {
    /// Those that the calling thread sees; none if it is not told of its mounts.
    pub fn now() -> Self {
        Self::of(&Mounts::own())
    }

    fn of(mounts: &Mounts) -> Self {
        let is_shown = |mount: &&Mount| mounts.way(&mount.point).last().is_some_and(|last| last.id == mount.id);
        let shown: Vec<&Mount> = mounts.iter().filter(is_shown).collect();
        let mut several: HashMap<Device, Vec<Vec<u8>>> = HashMap::new();
        // What keeps a namespace is no directory: its root is `net:[4026531833]` or the like (`proc_pid_mountinfo(5)`).
        for mount in shown.iter().filter(|mount| mount.root.starts_with(b"/")) {
            several.entry(mount.device).or_default().push(mount.point.clone());
        }
        let shown = shown.into_iter().map(|mount| (mount.point.clone(), mount.clone())).collect();
        let mut mirrors = Self { shown, several: HashMap::new(), remote: Remote::of(mounts) };
        several.retain(|_, points| points.iter().any(|point| mirrors.again(point, points).next().is_some()));
        mirrors.several = several;
        mirrors
    }

    /// True if no path has another one.
    pub fn are_none(&self) -> bool {
        self.several.is_empty()
    }

    /// The paths by which the name at `path`, which has no links on its way, may be reached as well.
    pub fn others(&self, path: &[u8]) -> Vec<Vec<u8>> {
        let directory = parent(path);
        let Some(points) = self.on(directory).and_then(|mount| self.several.get(&mount.device)) else {
            return Vec::new();
        };
        let name = below(path, directory).unwrap_or_default();
        self.again(directory, points).filter(|_| !name.is_empty()).map(|other| join(&other, name)).collect()
    }

    /// Where else `path` is to be seen, by mounts of the same file system at `points`.
    fn again(&self, path: &[u8], points: &[Vec<u8>]) -> impl Iterator<Item = Vec<u8>> {
        let inside = self.on(path).and_then(|mount| mount.shows(path)).map(|(_, inside)| inside);
        let is_remote = |path: &[u8]| self.remote.as_ref().is_some_and(|remote| remote.holds(path));
        points.iter().filter_map(move |point| {
            let rest = below(inside.as_deref()?, &self.shown.get(point)?.root)?;
            let other = join(point, rest);
            let is_it = other != path && self.on(&other)?.point == *point && is_remote(&other) == is_remote(path);
            is_it.then_some(other)
        })
    }

    /// The mount that `path` is on.
    fn on(&self, path: &[u8]) -> Option<&Mount> {
        let above = std::iter::successors(Some(path), |path| (*path != b"/").then(|| parent(path)));
        above.into_iter().find_map(|path| self.shown.get(path))
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
    fn one_directory_at_very_many_places() {
        let table = (0..1000).map(|at| format!("{} 1 8:1 /srv /at/{at} rw - ext4 /dev/sda1 rw\n", at + 10));
        let table: String = std::iter::once("1 0 8:1 / / rw - ext4 /dev/sda1 rw\n".to_owned()).chain(table).collect();
        let mirrors = Mirrors::of(&Mounts::parse(table.as_bytes()));
        let (others, all) = (others(&mirrors, "/at/7/f"), (0..1000).filter(|&at| at != 7));
        let mut expected: Vec<String> = all.map(|at| format!("/at/{at}/f")).chain(["/srv/f".to_owned()]).collect();
        expected.sort();
        assert_eq!(others, expected);
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
        assert!(mirrors.are_none());
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
