//! What is mapped into tasks, as `/proc/pid/maps` shows it.
//!
//! In: a task. Out: the files that are mapped, and whose memory stands at an address. The file is opened once a program: it
//! shows the memory that the task had when it was opened, also while a child that has the same memory runs (`vfork(2)`).

use std::collections::HashMap;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use crate::place::{fs_read, read_whole};
use crate::served::{Device, Lies, Table};
use crate::{look, sys};

/// So many are held open at a time.
const MOST: usize = 64;

/// The mappings that were asked for, by task.
#[derive(Debug, Default)]
pub(crate) struct Maps {
    opened: HashMap<i32, Arc<OwnedFd>>,
}

impl Maps {
    /// Opens those of `task`, if they are not open yet; `None` if it is gone, or not to be looked at.
    pub(crate) fn open(&mut self, task: i32) -> Option<Arc<OwnedFd>> {
        if let Some(maps) = self.opened.get(&task) {
            return Some(Arc::clone(maps));
        }
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let maps = Arc::new(open(format!("/proc/{task}/maps").as_str(), flags, Mode::empty()).ok()?);
        self.keep(task, Arc::clone(&maps));
        Some(maps)
    }

    fn keep(&mut self, task: i32, maps: Arc<OwnedFd>) {
        if self.opened.len() == MOST {
            self.opened.clear();
        }
        self.opened.insert(task, maps);
    }

    /// `child` has the memory of `maker`, which has made it.
    pub(crate) fn lend(&mut self, maker: i32, child: i32) {
        if let Some(maps) = self.open(maker) {
            self.keep(child, maps);
        }
    }

    /// `task` is gone, and its id may be given to another; or it runs another program.
    pub(crate) fn remove(&mut self, task: i32) {
        self.opened.remove(&task);
    }

    /// Tasks may be gone of which nobody is told.
    pub(crate) fn forget(&mut self) {
        self.opened.clear();
    }

    /// True if other processes may write to what `task` has at `address`. False where the kernel does not tell.
    pub(crate) fn is_shared(&mut self, task: i32, address: u64) -> bool {
        let mapping = self.open(task).map(|maps| sys::mapping(maps.as_fd(), address));
        matches!(mapping, Some(Ok(mapping)) if mapping.is_shared)
    }

    /// True if what `task` has at `address` is a file's that the program serves, as far as `table` says.
    pub(crate) fn is_served(&self, task: i32, address: u64, table: &Table) -> bool {
        match self.opened.get(&task).map(|maps| sys::mapping(maps.as_fd(), address)) {
            Some(Ok(mapping)) => return table.serves(mapping.device),
            Some(Err(Errno::ENOENT)) => return false,
            _ => {}
        }
        let Some(maps) = fs_read(&format!("/proc/{task}/maps")) else { return false };
        maps.split(|&byte| byte == b'\n')
            .any(|line| mapping(line).is_some_and(|(range, device)| range.contains(&address) && table.serves(device)))
    }

    /// The files that are mapped into `task`: right after an exec, those that the kernel loaded.
    pub(crate) fn files(&mut self, task: i32, served: Option<&Table>) -> Vec<Vec<u8>> {
        let text = self.open(task).and_then(read_whole).unwrap_or_default();
        let mut files: Vec<Vec<u8>> = Vec::new();
        for line in text.split(|&byte| byte == b'\n') {
            // address perms offset dev inode pathname: the path is the rest, and only files have a slash in it.
            let Some(start) = line.iter().position(|&byte| byte == b'/') else { continue };
            let path = unescape(&line[start..]);
            // proc(5): a file without a name, or that has lost it.
            let is_served = || served.is_some_and(|served| served.lies(&path) != Lies::Elsewhere);
            if path.ends_with(b" (deleted)") && (is_served() || look::lstat(&path).is_err()) {
                continue;
            }
            if !files.contains(&path) {
                files.push(path);
            }
        }
        files
    }
}

/// A line of `/proc/pid/maps`: from where to where, and the device of the file.
fn mapping(line: &[u8]) -> Option<(Range<u64>, Device)> {
    let mut fields = line.split(|&byte| byte == b' ').map(|field| std::str::from_utf8(field).ok());
    let hexadecimal = |text: &str| u64::from_str_radix(text, 16).ok();
    let (start, end) = fields.next()??.split_once('-')?;
    let (major, minor) = fields.nth(2)??.split_once(':')?;
    let device = (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
    Some((hexadecimal(start)?..hexadecimal(end)?, device))
}

/// In `/proc/pid/maps` a newline in a path is written `\012` (`fs/seq_file.c`, `mangle_path`).
fn unescape(path: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, tail)) = rest.split_first() {
        if let Some(tail) = rest.strip_prefix(b"\\012") {
            plain.push(b'\n');
            rest = tail;
        } else {
            plain.push(byte);
            rest = tail;
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> i32 {
        nix::unistd::getpid().as_raw()
    }

    #[test]
    fn files_of_a_task() {
        let mut maps = Maps::default();
        let program = std::env::current_exe().unwrap().into_os_string().into_encoded_bytes();
        assert!(maps.files(own(), None).contains(&program));
        // Once more, from what is open already.
        assert!(maps.files(own(), None).contains(&program));
        assert_eq!(maps.files(i32::MAX, None), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn the_kernel_tells_of_a_mapping_as_its_list_does() {
        let maps = Maps::default().open(own()).unwrap();
        let list = read_whole(&maps).unwrap();
        let code =
            list.split(|&byte| byte == b'\n').find(|line| line.windows(6).any(|part| part == b" r-xp ")).unwrap();
        let (range, device) = mapping(code).unwrap();
        match sys::mapping(maps.as_fd(), range.start) {
            Ok(mapping) => assert_eq!((mapping.device, mapping.is_shared), (device, false)),
            // Before Linux 6.11.
            Err(errno) => assert_eq!(errno, Errno::ENOTTY),
        }
    }

    #[test]
    fn a_child_with_the_same_memory_needs_none_of_its_own() {
        let mut maps = Maps::default();
        maps.lend(own(), i32::MAX);
        assert_eq!(maps.files(i32::MAX, None), maps.files(own(), None));
        maps.remove(i32::MAX);
        assert!(maps.open(i32::MAX).is_none());
    }

    #[test]
    fn mappings() {
        let line = b"7f01a000-7f01c000 r-xp 00001000 00:2a 12345     /a file";
        assert_eq!(mapping(line), Some((0x7f01_a000..0x7f01_c000, (0, 42))));
        assert_eq!(mapping(b""), None);
    }

    #[test]
    fn newlines_in_mapped_paths() {
        assert_eq!(unescape(b"/a\\012b\\013"), b"/a\nb\\013");
    }
}
