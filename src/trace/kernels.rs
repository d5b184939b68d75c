//! What the kernel makes up, wherever it is mounted: a chroot may have a `/proc` of its own, and a control group be a
//! directory of somebody's.
//!
//! In: a path and what `lstat` says of it. Out: whether it lies on such a file system, and where that is mounted. Nothing
//! there has a content from before: reading may fail, never end, or do something, and no image can have it. Of what lies
//! at or below `/proc`, `/sys` and `/dev` of the root the path alone says so ([`is_kernels`](super::is_kernels)).

use std::collections::HashSet;

use nix::sys::stat::FileStat;
use nix::sys::statfs::fstatfs;

use super::model::{MADE_UP, NAMESPACE};
use crate::path::JailPath;
use crate::root::Root;

/// `f_type` of a namespace (`include/uapi/linux/magic.h`).
const NAMESPACES: u32 = 0x6e73_6673;

/// `f_type` of the others, as `include/uapi/linux/magic.h` lists it, or their own sources. Not among them is what keeps in
/// memory what was written to it: tmpfs, ramfs and hugetlbfs.
const KINDS: [u32; 26] = [
    0x9fa0,      // proc
    0x9fa1,      // openpromfs
    0x9fa2,      // usbfs
    0x6265_6572, // sysfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x0765_5821, // resctrl
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0xf97c_ff8c, // selinuxfs
    0x4341_5d53, // smackfs
    0x5a3c_69f0, // apparmorfs
    0x6265_6570, // configfs
    0x6165_676c, // pstore
    0xcafe_4a11, // bpf
    0xde5e_81e4, // efivarfs
    0x4249_4e4d, // binfmt_misc
    0x6573_5543, // fusectl
    0x1980_0202, // mqueue
    0x1cd1,      // devpts
    0x6759_6969, // rpc_pipefs
    0x6e66_7364, // nfsd
    0x6c6f_6f70, // binder
    0x0a64_7361, // functionfs
    0xabba_1974, // xenfs
];

/// Tells what the kernel makes up from what was put somewhere.
#[derive(Debug, Default)]
pub(crate) struct Origins {
    /// Devices on which is what was put there.
    others: HashSet<u64>,
}

impl Origins {
    /// Why nothing can be told of what is at `path`, as an errno's name, if the kernel makes it up.
    pub(crate) fn errno(&mut self, path: &JailPath, stat: &FileStat, root: &Root) -> Option<&'static str> {
        if !may_be_made_up(stat) || self.others.contains(&stat.st_dev) {
            return None;
        }
        let errno = match kind(path, root)? {
            NAMESPACES => Some(NAMESPACE),
            kind if KINDS.contains(&kind) => Some(MADE_UP),
            _ => None,
        };
        // The other answer is asked for again: a device's number goes to what is mounted next.
        if errno.is_none() {
            self.others.insert(stat.st_dev);
        }
        errno
    }

    /// Something is about to be mounted, or unmounted.
    pub(super) fn forget(&mut self) {
        self.others.clear();
    }
}

/// True for what has no device and no room on one (`generic_fillattr` in `fs/stat.c`, of an inode that was never given blocks):
/// a file system that a server shows, who would have to be asked, seldom says so.
fn may_be_made_up(stat: &FileStat) -> bool {
    libc::major(stat.st_dev) == 0 && stat.st_blocks == 0
}

/// `f_type` of the file system on which `path` is now; what cannot be looked at has none.
fn kind(path: &JailPath, root: &Root) -> Option<u32> {
    let node = root.node(path).ok()??;
    // On some machines the number is wider, and has a sign.
    fstatfs(&node).ok().map(|found| found.filesystem_type().0 as u32)
}

/// True if what is at `path` now is the kernel's, of a namespace too.
pub(crate) fn is_made_up(path: &JailPath, root: &Root) -> bool {
    let stat = root.stat(path).ok().flatten();
    stat.is_some_and(|stat| Origins::default().errno(path, &stat, root).is_some())
}

/// The directory that must be there for what the kernel makes up at `path`: the one at which it is mounted, or what is
/// there of the way if it no longer is.
pub(crate) fn mount_point(path: &JailPath, root: &Root) -> JailPath {
    let is_directory = |path: &JailPath| matches!(root.lstat(path), Ok(Some(facts)) if facts.is_directory());
    let mut point = None;
    for at in path.upwards().filter(is_directory) {
        if !is_made_up(&at, root) {
            return point.unwrap_or(at);
        }
        point = Some(at);
    }
    point.unwrap_or_else(JailPath::root)
}

/// True for what the kernel makes up at `path`, but for the directory at which it is mounted.
pub(crate) fn is_made_up_below(path: &JailPath, root: &Root) -> bool {
    is_made_up(path, root) && mount_point(path, root) != *path
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn path(text: &str) -> JailPath {
        JailPath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_the_kernel_makes_up_and_what_was_put_there() {
        let root = &Root::open(Path::new("/")).unwrap();
        for text in [
            "/proc",
            "/proc/version",
            "/proc/self",
            "/proc/sys/kernel/ostype",
            "/sys/kernel",
            "/sys/kernel/uevent_seqnum",
        ] {
            assert!(is_made_up(&path(text), root), "{text}");
        }
        let directory = tempfile::tempdir().unwrap();
        fs_err::write(directory.path().join("empty"), "").unwrap();
        for at in [directory.path(), &directory.path().join("empty"), &directory.path().join("none"), Path::new("/usr")]
        {
            assert!(!is_made_up(&path(at.to_str().unwrap()), root), "{at:?}");
        }
    }

    #[test]
    fn where_it_is_mounted() {
        let root = &Root::open(Path::new("/")).unwrap();
        for text in ["/proc", "/proc/version", "/proc/sys/kernel/ostype", "/proc/none/whatever"] {
            assert_eq!(mount_point(&path(text), root), path("/proc"), "{text}");
        }
        assert!(is_made_up_below(&path("/proc/sys"), root) && !is_made_up_below(&path("/proc"), root));
        assert_eq!(mount_point(&path("/usr/none/whatever"), root), path("/usr"));
        assert_eq!(mount_point(&path("/etc/passwd"), root), path("/etc"));
    }
}
