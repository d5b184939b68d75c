//! A task's memory, read without stopping at what is not mapped.

use std::io::IoSliceMut;

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

use crate::place;

/// The longest path that the kernel takes, with its NUL (`include/uapi/linux/limits.h`).
pub(crate) const PATH_MAX: usize = 4096;

/// Every page size is a multiple of this, so a piece that ends at a multiple of it never reaches into a page that the
/// string does not touch.
pub(crate) const PAGE: u64 = 4096;

/// Most paths are shorter.
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
    buffer.clear();
    let mut at = address;
    while buffer.len() < PATH_MAX {
        let to_page_end = usize::try_from(PAGE - at % PAGE).expect("at most a page");
        let start = buffer.len();
        let piece = if start == 0 { FIRST } else { PATH_MAX - start };
        let length = to_page_end.min(piece);
        buffer.resize(start + length, 0);
        read(task, at, &mut buffer[start..])?;
        if let Some(end) = buffer[start..].iter().position(|&byte| byte == 0) {
            buffer.truncate(start + end);
            return Ok(());
        }
        at = at.wrapping_add(length as u64);
    }
    Err(Unread::Refused)
}

/// Fills `buffer` from `address` on.
pub(crate) fn read(task: i32, address: u64, buffer: &mut [u8]) -> Result<(), Unread> {
    let length = buffer.len();
    let Ok(base) = usize::try_from(address) else { return Err(Unread::Refused) };
    let remote = [RemoteIoVec { base, len: length }];
    match process_vm_readv(Pid::from_raw(task), &mut [IoSliceMut::new(buffer)], &remote) {
        Ok(read) if read == length => Ok(()),
        Ok(_) | Err(Errno::EFAULT) if is_secret(task, address, length) => Err(Unread::Hidden),
        Ok(_) | Err(Errno::EFAULT | Errno::ESRCH) => Err(Unread::Refused),
        Err(_) => Err(Unread::Hidden),
    }
}

/// True if some of these bytes are in memory that the kernel reads and no other process can (`memfd_secret(2)`).
fn is_secret(task: i32, address: u64, length: usize) -> bool {
    let Some(maps) = place::fs_read(&format!("/proc/{task}/maps")) else { return false };
    let end = address.saturating_add(length as u64);
    let is_there = |line: &str| {
        let (start, rest) = line.split_once('-')?;
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        let (start, stop) = (number(start)?, number(rest.split(' ').next()?)?);
        Some(start < end && address < stop && line.contains(" /secretmem"))
    };
    // A path may be no text; such a line is none of memory's.
    let mut lines = maps.split(|&byte| byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    lines.any(|line| is_there(line) == Some(true))
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
    fn what_the_kernel_refuses_is_refused() {
        let text = vec![b'x'; 2 * PATH_MAX];
        let mut buffer = Vec::new();
        assert_eq!(read_string(own(), text.as_ptr() as u64, &mut buffer), Err(Unread::Refused));
        assert_eq!(read_string(own(), 8, &mut buffer), Err(Unread::Refused));
        assert_eq!(read_string(own(), u64::MAX - 2, &mut buffer), Err(Unread::Refused));
    }
}
