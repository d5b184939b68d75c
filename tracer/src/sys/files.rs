//! What a file system tells of a file without asking anybody.
//!
//! In: a path, or a door of `/proc`. Out: numbers, sizes, times and handles; nothing is remembered.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, open};
use nix::sys::stat::Mode;
use nix::sys::time::TimeSpec;

/// What is known of a file without asking anybody (`AT_STATX_DONT_SYNC` of `statx(2)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Inode {
    /// Major and minor number.
    pub(crate) device: (u32, u32),
    pub(crate) number: u64,
    /// The mount by which it was reached, which belongs to one mount namespace; 0 before Linux 5.8.
    pub(crate) mount: u64,
}

/// What is known of the file behind `door`, a link of `/proc/PID`.
pub(crate) fn known_inode(door: &str) -> Result<Inode, Errno> {
    known(AT_FDCWD, door.as_bytes(), 0)
}

/// What is known of what stands at `path`, which is relative to `directory`; links are not followed.
pub(crate) fn known_at(directory: BorrowedFd<'_>, path: &[u8]) -> Result<Inode, Errno> {
    known(directory, path, libc::AT_SYMLINK_NOFOLLOW)
}

/// True if what stands at `path`, which is relative to `directory`, is known to be something else than a directory; links are followed.
pub(crate) fn is_no_directory(directory: BorrowedFd<'_>, path: &str) -> bool {
    let known = known_facts(directory, path.as_bytes(), 0, libc::STATX_TYPE);
    known.is_ok_and(|known| u32::from(known.stx_mode) & libc::S_IFMT != libc::S_IFDIR)
}

/// The handle of what stands at `path`, which is relative to `directory` (`name_to_handle_at(2)`); links are not followed. On most file
/// systems a number and a generation.
pub(crate) fn handle_at(directory: BorrowedFd<'_>, path: &[u8]) -> Result<Vec<u8>, Errno> {
    #[repr(C)]
    struct Handle {
        bytes: libc::c_uint,
        kind: libc::c_int,
        content: [u8; MAX_HANDLE_SZ],
    }
    /// `MAX_HANDLE_SZ` of `fcntl.h`.
    const MAX_HANDLE_SZ: usize = 128;
    let path = std::ffi::CString::new(path).map_err(|_| Errno::EINVAL)?;
    let mut handle = Handle { bytes: MAX_HANDLE_SZ as libc::c_uint, kind: 0, content: [0; MAX_HANDLE_SZ] };
    let (room, mut mount) = (&raw mut handle, 0_i32);
    let call = libc::SYS_name_to_handle_at;
    // SAFETY: `path` is a C string, the kernel writes as much behind `handle` as this says it has room for, and one number to `mount`.
    let result = unsafe { libc::syscall(call, directory.as_raw_fd(), path.as_ptr(), room, &raw mut mount, 0) };
    Errno::result(result)?;
    Ok(handle.content[..handle.bytes as usize].to_vec())
}

/// When the file was made that is open at `descriptor`, where that is known.
pub(crate) fn born(task: i32, descriptor: i32) -> Option<TimeSpec> {
    let door = format!("/proc/{task}/fd/{descriptor}");
    let known = known_facts(AT_FDCWD, door.as_bytes(), 0, libc::STATX_BTIME).ok()?;
    let libc::statx_timestamp { tv_sec, tv_nsec, .. } = known.stx_btime;
    (known.stx_mask & libc::STATX_BTIME != 0).then(|| TimeSpec::new(tv_sec, tv_nsec.into()))
}

/// The number of the mount namespace behind `door` that no other one ever gets; `None` before Linux 6.11.
pub(crate) fn namespace_id(door: &str) -> Option<u64> {
    /// `include/uapi/linux/nsfs.h`: it reads (2 << 30) a number of 8 bytes, and is the fifth of these.
    const NS_GET_MNTNS_ID: libc::Ioctl = 2 << 30 | 8 << 16 | 0xb7 << 8 | 5;
    let namespace = open(door, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    let mut number = 0_u64;
    // SAFETY: the kernel writes one number of this size.
    let result = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_MNTNS_ID, &raw mut number) };
    (result == 0).then_some(number)
}

/// The size of the plain file behind `door`, as far as it is known; `None` of anything else.
pub(crate) fn known_size(door: &str) -> Result<Option<u64>, Errno> {
    let known = known_facts(AT_FDCWD, door.as_bytes(), 0, libc::STATX_TYPE | libc::STATX_SIZE)?;
    let is_file = u32::from(known.stx_mode) & libc::S_IFMT == libc::S_IFREG;
    Ok((is_file && known.stx_mask & libc::STATX_SIZE != 0).then_some(known.stx_size))
}

fn known(directory: BorrowedFd<'_>, path: &[u8], flags: i32) -> Result<Inode, Errno> {
    let known = known_facts(directory, path, flags, libc::STATX_INO | libc::STATX_MNT_ID)?;
    Ok(Inode { device: (known.stx_dev_major, known.stx_dev_minor), number: known.stx_ino, mount: known.stx_mnt_id })
}

fn known_facts(directory: BorrowedFd<'_>, path: &[u8], flags: i32, mask: u32) -> Result<libc::statx, Errno> {
    let path = std::ffi::CString::new(path).map_err(|_| Errno::EINVAL)?;
    let mut known = MaybeUninit::<libc::statx>::zeroed();
    let flags = flags | libc::AT_STATX_DONT_SYNC | libc::AT_NO_AUTOMOUNT;
    // SAFETY: `path` is a C string, and the kernel writes one struct to `known`.
    let result = unsafe { libc::statx(directory.as_raw_fd(), path.as_ptr(), flags, mask, known.as_mut_ptr()) };
    Errno::result(result)?;
    // SAFETY: all bytes were zeroed, which is a value of this struct of integers, and the kernel wrote more of them.
    Ok(unsafe { known.assume_init() })
}
