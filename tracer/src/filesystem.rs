//! What kind of file system a path is on.

use nix::sys::statfs::statfs;

/// `f_type` of `statfs(2)`, as `include/uapi/linux/magic.h` lists it; XFS and F2FS as their own headers do.
const KEPT_HERE: [u32; 8] = [
    0xef53,      // ext2, ext3 and ext4
    0x5846_5342, // XFS
    0x9123_683e, // btrfs
    0x0102_1994, // tmpfs
    0x794c_7630, // overlay
    0x7371_7368, // squashfs
    0xe0f5_e1e2, // EROFS
    0xf2f5_2010, // F2FS
];

/// File systems on which who may do anything elsewhere may see less than a file's owner: mounts of FUSE without `allow_other`,
/// and servers that trust no root.
const BY_USER: [u32; 8] = [
    0x6573_5546, // FUSE
    0x6969,      // NFS
    0xff53_4d42, // CIFS
    0xfe53_4d42, // SMB 2 and later
    0x0102_1997, // 9p
    0x00c3_6400, // Ceph
    0x5346_414f, // OpenAFS
    0x6b41_4653, // AFS
];

/// True if `path`, which may be hidden from the tracer, is on a file system that asks who looks.
pub(crate) fn answers_by_user(path: &[u8]) -> bool {
    is_one_of(path, &BY_USER)
}

/// True if `path` is on a file system that keeps its files on this machine, and so waits for nobody when one is opened to be
/// read.
pub(crate) fn asks_nobody(path: &[u8]) -> bool {
    is_one_of(path, &KEPT_HERE)
}

fn is_one_of(path: &[u8], kinds: &[u32]) -> bool {
    // On some machines the number is wider, and has a sign.
    statfs(path).is_ok_and(|found| kinds.contains(&(found.filesystem_type().0 as u32)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_kept_nowhere() {
        assert!(!asks_nobody(b"/proc/self"));
        assert!(!asks_nobody(b"/none"));
        assert!(!answers_by_user(b"/proc/self"));
    }
}
