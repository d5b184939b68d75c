//! Links of `/proc/PID`, which lead to what their text may not lead to.
//!
//! In: a link, its *door*, or a task and a descriptor. Out: the path that it tells, mended where the kernel tells none, and whether that
//! path leads to the same. What stands where a task is, and is remembered of it, is a [`Place`](crate::place::Place).

use std::ffi::OsString;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlink};
use nix::sys::stat::{FileStat, Mode, fstat, stat};

use crate::look;
use crate::proc;
use crate::served::{Lies, Table};
use crate::sys::{self, Inode};

/// What a descriptor refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Open {
    /// An absolute path, or a text like `pipe:[1]`.
    pub(crate) path: Vec<u8>,
    /// It is no longer there, or never had a name.
    pub(crate) is_deleted: bool,
}

/// From a link of `/proc/TASK` to what it says.
pub(crate) fn link(task: i32, name: &str, served: Option<&Table>) -> Result<Open, Errno> {
    let door = format!("/proc/{task}/{name}");
    described(readlink(door.as_str()), || door, served)
}

/// From the text of a link of `/proc/PID`, its `door`, to what it says.
pub(crate) fn described(
    text: Result<OsString, Errno>,
    door: impl FnOnce() -> String,
    served: Option<&Table>,
) -> Result<Open, Errno> {
    let mut path = match text {
        Ok(text) => text.into_vec(),
        // Who climbs asks in each directory.
        Err(Errno::ENAMETOOLONG) if served.is_none() => return climb(&door()),
        Err(errno) => return Err(errno),
    };
    // proc(5), /proc/pid/cwd: what was removed since has this appended; but it may be a part of the name.
    let is_deleted = path.ends_with(b" (deleted)") && !leads_to_file(&door(), &path, served);
    if is_deleted {
        path.truncate(path.len() - b" (deleted)".len());
    }
    Ok(Open { path, is_deleted })
}

/// True if `door`, a link of `/proc/PID`, leads to what stands at `path`, and from there on to what is below `path`: another
/// mount of the same directory may have other mounts below it. False for what the program itself serves, or may, as far as
/// `served` says: nobody is asked for that.
pub(crate) fn leads_to(door: &str, path: &[u8], served: Option<&Table>) -> bool {
    both(door, path, served).is_some_and(|(behind, there)| behind == there)
}

/// The same of the file alone, whichever mount it was reached by.
pub(crate) fn leads_to_file(door: &str, path: &[u8], served: Option<&Table>) -> bool {
    let file = |inode: Inode| (inode.device, inode.number);
    both(door, path, served).is_some_and(|(behind, there)| file(behind) == file(there))
}

/// What is behind `door`, and what stands at `path`, unless the program serves it.
fn both(door: &str, path: &[u8], served: Option<&Table>) -> Option<(Inode, Inode)> {
    let behind = sys::known_inode(door).ok()?;
    let is_served = |served: &Table| served.serves(behind.device) || served.lies(path) != Lies::Elsewhere;
    if served.is_some_and(is_served) {
        return None;
    }
    Some((behind, look::known(path).ok()?))
}

/// The path of the directory behind `door`, a link whose text is longer than the kernel tells (`fs/proc/base.c`,
/// `do_proc_readlink`: a page): from directory to parent, until the path is short enough.
fn climb(door: &str) -> Result<Open, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    // What is no directory has no way up.
    let mut directory = open(door, flags, Mode::empty()).map_err(|_| Errno::ENAMETOOLONG)?;
    let mut names = Vec::new();
    loop {
        let parent = openat(&directory, "..", flags, Mode::empty())?;
        names.push(name_in(parent.as_raw_fd(), &fstat(&directory)?)?);
        directory = parent;
        match readlink(format!("/proc/self/fd/{}", directory.as_raw_fd()).as_str()) {
            Ok(text) => {
                let mut path = text.into_vec();
                for name in names.iter().rev() {
                    path.push(b'/');
                    path.extend_from_slice(name);
                }
                return Ok(Open { path, is_deleted: false });
            }
            Err(Errno::ENAMETOOLONG) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// The name under which `child` stands in a directory of ours.
fn name_in(directory: i32, child: &FileStat) -> Result<Vec<u8>, Errno> {
    let io = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    for entry in std::fs::read_dir(format!("/proc/self/fd/{directory}")).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        let place = format!("/proc/self/fd/{directory}/");
        let path = [place.as_bytes(), name.as_bytes()].concat();
        if look::lstat(&path).is_ok_and(|found| look::is_same(&found, child)) {
            return Ok(name.into_vec());
        }
    }
    // Renamed or removed since.
    Err(Errno::ENOENT)
}

/// The doors to what `task`, which is about to execute something, will still have open: the rest is its tracer's own.
pub(crate) fn given(task: i32) -> impl Iterator<Item = String> {
    let descriptors = std::fs::read_dir(format!("/proc/{task}/fd")).into_iter().flatten().flatten();
    let numbers = descriptors.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let stays =
        move |&number: &i32| proc::open_flags(task, number).is_some_and(|flags| flags & libc::O_CLOEXEC as u64 == 0);
    numbers.filter(stays).map(move |number| format!("/proc/{task}/fd/{number}"))
}

/// True if `door` leads to a directory that is not where its text says.
pub(crate) fn is_lost(door: &str) -> bool {
    let is_directory = |stat: FileStat| stat.st_mode & libc::S_IFMT == libc::S_IFDIR && stat.st_nlink > 0;
    let leads = |path: OsString| leads_to(door, path.as_bytes(), None);
    stat(door).is_ok_and(is_directory) && !readlink(door).is_ok_and(leads)
}
