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

/// True if `path` is on a file system that keeps its files on this machine, and so waits for nobody when one is opened to be
/// read.
pub(crate) fn asks_nobody(path: &[u8]) -> bool {
    // On some machines the number is wider, and has a sign.
    statfs(path).is_ok_and(|found| KEPT_HERE.contains(&(found.filesystem_type().0 as u32)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_kept_nowhere() {
        assert!(!asks_nobody(b"/proc/self"));
        assert!(!asks_nobody(b"/none"));
    }
}
