//! What is mapped into tasks, as `/proc/pid/maps` shows it.
//!
//! In: a task. Out: the files that are mapped, and whose memory stands at an address. The file is opened once a program: it
//! shows the memory that the task had when it was opened, also while a child that has the same memory runs (`vfork(2)`).

use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{SysconfVar, sysconf};

use crate::held::Held;
use crate::mounts::Device;
use crate::proc::{fs_read, read_whole};
use crate::served::{Lies, Table};
use crate::{look, sys};

/// The mappings that were asked for, by task.
#[derive(Debug, Default)]
pub(crate) struct Maps {
    opened: Held,
    are_filled: bool,
}

impl Maps {
    /// Opens those of `task`, if they are not open yet; `None` if it is gone, or not to be looked at.
    pub(crate) fn open(&mut self, task: i32) -> Option<Arc<OwnedFd>> {
        self.opened.of(task, "maps", OFlag::O_RDONLY).ok().cloned()
    }

    /// `child` has the memory of `maker`, which has made it.
    pub(crate) fn lend(&mut self, maker: i32, child: i32) {
        if let Some(maps) = self.open(maker) {
            self.opened.keep(child, maps);
        }
    }

    /// `task` is gone, and its id may be given to another; or it runs another program.
    pub(crate) fn remove(&mut self, task: i32) {
        self.opened.remove(task);
    }

    /// Tasks may be gone of which nobody is told.
    pub(crate) fn forget(&mut self) {
        self.opened.clear();
    }

    /// The program may fill memory itself when it is read (`userfaultfd(2)`), from now on.
    pub(crate) fn expect_filled(&mut self) {
        self.are_filled = true;
    }

    /// True once that is so.
    pub(crate) fn are_filled(&self) -> bool {
        self.are_filled
    }

    /// True if other processes may write to what `task` has at `address`, or in what follows as far as a path may go. False where the
    /// kernel does not tell.
    pub(crate) fn is_shared(&mut self, task: i32, address: u64) -> bool {
        let Some(maps) = self.open(task) else { return false };
        let mapping = |address| sys::mapping(maps.as_fd(), address).ok();
        let Some(first) = mapping(address) else { return false };
        let may_end = first.end.saturating_sub(address) >= libc::PATH_MAX as u64;
        first.is_shared || (!may_end && mapping(first.end).is_some_and(|next| next.is_shared))
    }

    /// True if what `task` has at `address` is a file's that the program serves, as far as `table` says.
    pub(crate) fn is_served(&self, task: i32, address: u64, table: &Table) -> bool {
        match self.opened.get(task).map(|maps| sys::mapping(maps.as_fd(), address)) {
            Some(Ok(mapping)) => return table.serves(mapping.device),
            Some(Err(Errno::ENOENT)) => return false,
            _ => {}
        }
        let Some(maps) = fs_read(&format!("/proc/{task}/maps")) else { return false };
        lines(&maps).any(|line| line.range.contains(&address) && table.serves(line.device))
    }

    /// The files that are mapped into `task`: right after an exec, those that the kernel loaded.
    pub(crate) fn files(&mut self, task: i32, served: Option<&Table>) -> Vec<Vec<u8>> {
        let text = self.open(task).and_then(read_whole).unwrap_or_default();
        let mut names: Vec<&[u8]> = Vec::new();
        for name in text.split(|&byte| byte == b'\n').filter_map(name).filter(|name| name.starts_with(b"/")) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let mut files: Vec<Vec<u8>> = Vec::with_capacity(names.len());
        for name in names {
            let is_served = |path: &[u8]| served.is_some_and(|served| served.lies(path) != Lies::Elsewhere);
            let path = unescape(name);
            let path = if path == name || is_served(&path) || is_served(name) {
                path
            } else {
                lines(&text).find(|line| line.name == name).map_or(path, |line| line.path())
            };
            // proc(5): a file without a name, or that has lost it.
            if path.ends_with(b" (deleted)") && (is_served(&path) || look::lstat(&path).is_err()) {
                continue;
            }
            files.push(path);
        }
        files
    }
}

/// A line of `/proc/pid/maps` (`proc(5)`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    pub(crate) range: Range<u64>,
    /// What may be done there: `r`, `w`, `x` or a dash each, then `p` or `s`.
    pub(crate) rights: &'a [u8],
    /// Where in the file it begins.
    offset: u64,
    device: Device,
    inode: u64,
    /// A file's path, in which a newline is escaped; a name like `[stack]`; or nothing.
    pub(crate) name: &'a [u8],
}

impl Line<'_> {
    /// True for memory that is no file's and no device's.
    pub(crate) fn is_anonymous(&self) -> bool {
        let has_such_a_name =
            self.name.is_empty() || matches!(self.name, b"[heap]" | b"[stack]") || self.name.starts_with(b"[anon:");
        self.inode == 0 && self.device == (0, 0) && has_such_a_name
    }

    /// True if what `task` has mapped at `address` lies behind the end of its file, in no page of it: reading there is a bus
    /// error for the task (`mmap(2)`, SIGBUS), and EFAULT for the kernel. False where the kernel does not tell.
    pub(crate) fn is_behind_end(&self, task: i32, address: u64) -> bool {
        let Ok(Some(page)) = sysconf(SysconfVar::PAGE_SIZE) else { return false };
        let at = self.offset.saturating_add(address - self.range.start);
        self.size(task).is_some_and(|size| at >= size.next_multiple_of(page.cast_unsigned()))
    }

    /// The size of the plain file that is mapped.
    fn size(&self, task: i32) -> Option<u64> {
        // proc(5), /proc/pid/map_files: following these links takes capabilities in the first user namespace.
        let door = format!("/proc/{task}/map_files/{:x}-{:x}", self.range.start, self.range.end);
        match sys::known_size(&door) {
            Err(Errno::EPERM) => {}
            size => return size.ok().flatten(),
        }
        let path = self.path();
        if !self.is_at(&path) {
            return None;
        }
        let path = String::from_utf8(path).ok()?;
        sys::known_size(&path).ok().flatten()
    }

    /// The path of the file: a name that has these four characters looks like one with a newline.
    fn path(&self) -> Vec<u8> {
        let path = unescape(self.name);
        if path != self.name && !self.is_at(&path) && self.is_at(self.name) { self.name.to_vec() } else { path }
    }

    /// True if the file stands at `path`.
    fn is_at(&self, path: &[u8]) -> bool {
        look::known(path).is_ok_and(|inode| (inode.device, inode.number) == (self.device, self.inode))
    }
}

/// Every line, in the order of addresses.
pub(crate) fn lines(maps: &[u8]) -> impl Iterator<Item = Line<'_>> {
    maps.split(|&byte| byte == b'\n').filter_map(line)
}

/// Range, rights, offset, device, inode; then blanks, and the rest is the name.
fn line(text: &[u8]) -> Option<Line<'_>> {
    let mut fields = text.splitn(6, |&byte| byte == b' ');
    let mut next = || std::str::from_utf8(fields.next()?).ok();
    let ((start, end), rights) = (next()?.split_once('-')?, next()?.as_bytes());
    let offset = next()?;
    let ((major, minor), inode) = (next()?.split_once(':')?, next()?.parse().ok()?);
    let address = |text: &str| u64::from_str_radix(text, 16).ok();
    let number = |text: &str| u32::from_str_radix(text, 16).ok();
    let name = behind_blanks(fields.next().unwrap_or_default());
    let (range, device) = (address(start)?..address(end)?, (number(major)?, number(minor)?));
    Some(Line { range, rights, offset: address(offset)?, device, inode, name })
}

/// What stands on a line behind its first five fields, if anything does.
fn name(line: &[u8]) -> Option<&[u8]> {
    line.splitn(6, |&byte| byte == b' ').nth(5).map(behind_blanks)
}

fn behind_blanks(text: &[u8]) -> &[u8] {
    &text[text.iter().position(|&byte| byte != b' ').unwrap_or(text.len())..]
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
    use std::io::Read as _;
    use std::process::Stdio;

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
        let code = lines(&list).find(|line| line.rights == b"r-xp").unwrap();
        match sys::mapping(maps.as_fd(), code.range.start) {
            Ok(mapping) => {
                assert_eq!((mapping.end, mapping.device, mapping.is_shared), (code.range.end, code.device, false));
            }
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
    fn lines_of_mappings() {
        let text =
            b"7f01a000-7f01c000 r-xp 00001000 00:2a 12345     /a file\n7f02a000-7f02c000 rw-s 00000000 00:00 0 \n\n";
        let expected = [
            Line {
                range: 0x7f01_a000..0x7f01_c000,
                rights: b"r-xp",
                offset: 0x1000,
                device: (0, 42),
                inode: 12345,
                name: b"/a file",
            },
            Line { range: 0x7f02_a000..0x7f02_c000, rights: b"rw-s", offset: 0, device: (0, 0), inode: 0, name: b"" },
        ];
        assert_eq!(lines(text).collect::<Vec<_>>(), expected);
        assert_eq!(lines(b"7f01a000 r-xp\nx-y z").count(), 0);
    }

    #[test]
    fn newlines_in_mapped_paths() {
        assert_eq!(unescape(b"/a\\012b\\013"), b"/a\nb\\013");
    }

    #[test]
    fn names_that_look_as_if_they_had_newlines() {
        let directory = tempfile::tempdir().unwrap();
        let programs = ["a\nb", "a\\012b"].map(|name| directory.path().join(name));
        for program in &programs {
            fs_err::copy("/bin/echo", program).unwrap();
        }
        for program in &programs {
            // It has more to say than the pipe takes, so that it is there as long as nobody reads that.
            let words = "x ".repeat(50_000);
            let mut command = std::process::Command::new(program);
            let mut child = command.arg(words).stdout(Stdio::piped()).spawn().unwrap();
            child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
            let files = Maps::default().files(child.id() as i32, None);
            child.kill().unwrap();
            child.wait().unwrap();
            let own = files.iter().filter(|file| file.starts_with(directory.path().as_os_str().as_encoded_bytes()));
            assert_eq!(own.collect::<Vec<_>>(), [program.as_os_str().as_encoded_bytes()]);
        }
    }
}
