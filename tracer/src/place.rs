//! Where a task stands: its root, its working directory, its descriptors, as `/proc` shows them.

use std::collections::HashMap;
use std::os::unix::ffi::OsStringExt;

use nix::fcntl::readlink;

/// A task's root and working directory, absolute, as the tracer sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) root: Vec<u8>,
    pub(crate) directory: Vec<u8>,
}

/// The places of the tasks, remembered until somebody moves.
#[derive(Debug, Default)]
pub(crate) struct Places {
    places: HashMap<i32, Place>,
}

impl Places {
    /// Where `task` stands; `None` if it is gone.
    pub(crate) fn of(&mut self, task: i32, may_remember: bool) -> Option<Place> {
        if let Some(place) = self.places.get(&task) {
            return Some(place.clone());
        }
        let place = Place { root: link(task, "root")?, directory: link(task, "cwd")? };
        if may_remember {
            self.places.insert(task, place.clone());
        }
        Some(place)
    }

    /// Somebody has moved, and threads and `CLONE_FS` relatives with it.
    pub(crate) fn forget(&mut self) {
        self.places.clear();
    }

    /// `task` is gone, and its id may be given to another.
    pub(crate) fn remove(&mut self, task: i32) {
        self.places.remove(&task);
    }
}

/// What is open at `descriptor`: a path, or a text like `pipe:[1]`; `None` if nothing is.
pub(crate) fn descriptor(task: i32, descriptor: i32) -> Option<Vec<u8>> {
    link(task, &format!("fd/{descriptor}"))
}

fn link(task: i32, name: &str) -> Option<Vec<u8>> {
    let path = format!("/proc/{task}/{name}");
    let mut text = readlink(path.as_str()).ok()?.into_vec();
    // proc(5), /proc/pid/cwd: a directory that was removed since has this appended.
    if text.ends_with(b" (deleted)") && nix::sys::stat::lstat(text.as_slice()).is_err() {
        text.truncate(text.len() - b" (deleted)".len());
    }
    Some(text)
}

/// The process of `task` and the process that made it (`proc(5)`, `/proc/pid/status`); `None` if the task is gone.
pub(crate) fn family(task: i32) -> Option<(i32, i32)> {
    let status = fs_read(&format!("/proc/{task}/status"))?;
    let field = |name: &str| {
        let line = status.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(name.as_bytes()))?;
        std::str::from_utf8(line).ok()?.trim().parse().ok()
    };
    Some((field("Tgid:")?, field("PPid:")?))
}

/// The arguments of the program that `process` runs.
pub(crate) fn arguments(process: i32) -> Vec<Vec<u8>> {
    let text = fs_read(&format!("/proc/{process}/cmdline")).unwrap_or_default();
    let text = text.strip_suffix(b"\0").unwrap_or(&text);
    text.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect()
}

/// The files that are mapped into `process`: right after an exec, those that the kernel loaded.
pub(crate) fn mapped(process: i32) -> Vec<Vec<u8>> {
    let maps = fs_read(&format!("/proc/{process}/maps")).unwrap_or_default();
    let mut files: Vec<Vec<u8>> = Vec::new();
    for line in maps.split(|&byte| byte == b'\n') {
        // address perms offset dev inode pathname: the path is the rest, and only files have a slash in it.
        let Some(start) = line.iter().position(|&byte| byte == b'/') else { continue };
        let path = unescape(&line[start..]);
        if !files.contains(&path) {
            files.push(path);
        }
    }
    files
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

fn fs_read(path: &str) -> Option<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let file = nix::fcntl::open(
        path,
        nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_CLOEXEC,
        nix::sys::stat::Mode::empty(),
    );
    std::fs::File::from(file.ok()?).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_place() {
        let own = nix::unistd::getpid().as_raw();
        let place = Places::default().of(own, true).unwrap();
        assert_eq!(place.root, b"/");
        assert_eq!(place.directory, nix::unistd::getcwd().unwrap().into_os_string().into_vec());
        assert_eq!(family(own).unwrap().0, own);
        assert!(mapped(own).iter().any(|path| path.starts_with(b"/")));
    }

    #[test]
    fn newlines_in_mapped_paths() {
        assert_eq!(unescape(b"/a\\012b\\013"), b"/a\nb\\013");
    }
}
