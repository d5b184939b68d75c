//! A task's memory, read without stopping at what is not mapped.

use std::io::IoSliceMut;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

use crate::{look, maps, proc};

/// The longest path that the kernel takes, with its NUL (`include/uapi/linux/limits.h`).
pub(crate) const PATH_MAX: usize = 4096;

/// Every page size is a multiple of this, so a piece that ends at a multiple of it never reaches into a page that the
/// string does not touch.
pub(crate) const PAGE: u64 = 4096;

/// From here on all addresses are the kernel's own (`Documentation/arch/x86/x86_64/mm.rst`, `Documentation/arch/arm64/memory.rst`).
const KERNELS: u64 = 1 << 63;

/// Most paths are shorter, and so are the arguments of most programs.
const FIRST: usize = 256;

/// Why there is no string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unread {
    /// The kernel refuses the pointer or the length as well (EFAULT, ENAMETOOLONG): the call comes to nothing.
    Refused,
    /// The memory is there, and the tracer may not read it.
    Hidden,
}

/// Reads the NUL-terminated string at `address` into `buffer`, without its NUL.
pub(crate) fn read_string(task: i32, address: u64, buffer: &mut Vec<u8>) -> Result<(), Unread> {
    read_strings(task, address, 1, PATH_MAX, buffer)
}

/// Reads `count` NUL-terminated strings that follow each other from `address` on, at least one, into `buffer`, without the last one's
/// NUL. Refused if they have more than `most` bytes.
pub(crate) fn read_strings(
    task: i32,
    address: u64,
    count: usize,
    most: usize,
    buffer: &mut Vec<u8>,
) -> Result<(), Unread> {
    buffer.clear();
    let (mut at, mut left) = (address, count);
    while buffer.len() < most {
        let to_page_end = usize::try_from(PAGE - at % PAGE).expect("at most a page");
        let start = buffer.len();
        let piece = if start == 0 { FIRST } else { most - start };
        let length = to_page_end.min(piece);
        buffer.resize(start + length, 0);
        read(task, at, &mut buffer[start..])?;
        for (end, _) in buffer[start..].iter().enumerate().filter(|&(_, &byte)| byte == 0) {
            left -= 1;
            if left == 0 {
                buffer.truncate(start + end);
                return Ok(());
            }
        }
        at = at.wrapping_add(length as u64);
    }
    Err(Unread::Refused)
}

/// Reads at most a page of text from `address` on, as `mount(2)` reads its options (`fs/namespace.c`, `copy_mount_options`):
/// it ends at a NUL, or where nothing is mapped any more.
pub(crate) fn read_page(task: i32, address: u64, buffer: &mut Vec<u8>) -> Result<(), Unread> {
    buffer.resize(PATH_MAX - 1, 0);
    let to_page_end = usize::try_from(PAGE - address % PAGE).expect("at most a page").min(buffer.len());
    read(task, address, &mut buffer[..to_page_end])?;
    if let Some(end) = buffer[..to_page_end].iter().position(|&byte| byte == 0) {
        buffer.truncate(end);
        return Ok(());
    }
    match read(task, address.wrapping_add(to_page_end as u64), &mut buffer[to_page_end..]) {
        Err(Unread::Refused) => buffer.truncate(to_page_end),
        result => result?,
    }
    let end = buffer.iter().position(|&byte| byte == 0).unwrap_or(buffer.len());
    buffer.truncate(end);
    Ok(())
}

/// Fills `buffer` from `address` on.
pub(crate) fn read(task: i32, address: u64, buffer: &mut [u8]) -> Result<(), Unread> {
    let length = buffer.len();
    let Ok(base) = usize::try_from(address) else { return Err(Unread::Refused) };
    // The kernel takes no pointer to what is its own, also where `/proc/pid/maps` shows something: x86_64's `[vsyscall]`.
    if address.saturating_add(length as u64) > KERNELS {
        return Err(Unread::Refused);
    }
    let remote = [RemoteIoVec { base, len: length }];
    match process_vm_readv(Pid::from_raw(task), &mut [IoSliceMut::new(buffer)], &remote) {
        Ok(read) if read == length => Ok(()),
        Ok(_) | Err(Errno::EFAULT) => read_unreadable(task, address, buffer),
        Err(Errno::ESRCH) => Err(Unread::Refused),
        Err(_) => Err(Unread::Hidden),
    }
}

/// Fills `buffer` from memory that no other process may read, though the kernel does: where a mapping may be written to or
/// executed alone, most processors let it be read as well.
fn read_unreadable(task: i32, address: u64, buffer: &mut [u8]) -> Result<(), Unread> {
    let Some(maps) = proc::fs_read(&format!("/proc/{task}/maps")) else {
        // It is gone, or the tracer lacks something.
        let is_there = look::known(format!("/proc/{task}").as_bytes()).is_ok();
        return Err(if is_there { Unread::Hidden } else { Unread::Refused });
    };
    let end = address.saturating_add(buffer.len() as u64);
    let (mut covered, mut is_anonymous) = (address, true);
    for line in maps::lines(&maps).filter(|line| line.range.start < end) {
        if line.range.end <= covered {
            continue;
        }
        // memfd_secret(2): the kernel reads it, and no other process can.
        if line.name.starts_with(b"/secretmem") {
            return Err(Unread::Hidden);
        }
        if line.range.start > covered || line.rights.starts_with(b"---") {
            return Err(Unread::Refused);
        }
        covered = line.range.end;
        is_anonymous &= line.is_anonymous();
        if line.is_behind_end(task, end.min(covered) - 1) {
            return Err(Unread::Refused);
        }
    }
    if covered < end {
        return Err(Unread::Refused);
    }
    // proc(5), /proc/pid/mem: a tracer is shown what is mapped, whatever may be done with it.
    let memory = open(format!("/proc/{task}/mem").as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
    let memory = std::fs::File::from(memory.map_err(|_| Unread::Hidden)?);
    // There the kernel finds no more than this: a guard (`madvise(2)`, MADV_GUARD_INSTALL), or what is not to be filled for it
    // (`userfaultfd(2)`, UFFD_USER_MODE_ONLY).
    let unread = if is_anonymous { Unread::Refused } else { Unread::Hidden };
    memory.read_exact_at(buffer, address).map_err(|error| match error.raw_os_error() {
        Some(libc::EIO) => unread,
        _ => Unread::Hidden,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> i32 {
        nix::unistd::getpid().as_raw()
    }

    #[test]
    fn strings_across_page_ends() {
        for length in [0, 1, 255, 256, 257, 4000, 4095] {
            let text = [vec![b'x'; length], vec![0], vec![b'y'; 5000]].concat();
            let mut buffer = Vec::new();
            read_string(own(), text.as_ptr() as u64, &mut buffer).unwrap();
            assert_eq!(buffer.len(), length);
        }
    }

    #[test]
    fn strings_that_follow_each_other() {
        let long = vec![b'x'; 3 * PAGE as usize];
        let text = [b"a\0\0bc\0", &long[..], b"\0d\0e\0"].concat();
        let read = |count| {
            let mut buffer = Vec::new();
            read_strings(own(), text.as_ptr() as u64, count, usize::MAX, &mut buffer).unwrap();
            buffer.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect::<Vec<_>>()
        };
        assert_eq!(read(1), [b"a"]);
        assert_eq!(read(3), [&b"a"[..], b"", b"bc"]);
        assert_eq!(read(5), [&b"a"[..], b"", b"bc", &long, b"d"]);
    }

    #[test]
    fn a_page_of_options() {
        let text = [vec![b'x'; PATH_MAX - 1], vec![b'y'; 5000]].concat();
        let mut buffer = Vec::new();
        read_page(own(), text.as_ptr() as u64, &mut buffer).unwrap();
        assert_eq!(buffer, text[..PATH_MAX - 1]);
        let text = c"name=value".to_bytes_with_nul();
        read_page(own(), text.as_ptr() as u64, &mut buffer).unwrap();
        assert_eq!(buffer, b"name=value");
        assert_eq!(read_page(own(), 8, &mut buffer), Err(Unread::Refused));
    }

    #[test]
    fn what_the_kernel_refuses_is_refused() {
        let text = vec![b'x'; 2 * PATH_MAX];
        let mut buffer = Vec::new();
        assert_eq!(read_string(own(), text.as_ptr() as u64, &mut buffer), Err(Unread::Refused));
        assert_eq!(read_string(own(), 8, &mut buffer), Err(Unread::Refused));
        assert_eq!(read_string(own(), u64::MAX - 2, &mut buffer), Err(Unread::Refused));
    }
}
