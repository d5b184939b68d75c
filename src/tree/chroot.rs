//! Making files, directories and the rest below one held directory.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, makedev, mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat, linkat, symlinkat};
use serde::{Deserialize, Serialize};

use super::TreeError;
use crate::manifest::Entry;
use crate::path::{JailPath, escape};
use crate::publish::remove_below;
use crate::root::{Root, magic};

/// A directory that becomes a root: everything is made below one held descriptor, and no link is ever followed.
///
/// Directories can be written by their owner until [`finish`](Self::finish) gives them their own modes and times, so
/// that an ordinary user can fill one of mode 0555.
#[derive(Debug)]
pub struct Chroot {
    held: OwnedFd,
    path: PathBuf,
    directories: BTreeMap<JailPath, Metadata>,
    /// Nodes that could not be made, so that their other names are left out too.
    missing: BTreeSet<JailPath>,
    /// The directory that the last node was made in: the next one is mostly made there too.
    last: Option<(JailPath, OwnedFd)>,
    /// Whoever makes it reads it afterwards, and may not read all that is his.
    is_to_be_read: bool,
    notes: Notes,
}

/// Who owns a node, and what else is known of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: i64,
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

impl Metadata {
    /// What the manifest says of `entry`.
    pub fn of(entry: &Entry) -> Self {
        let Entry { mode, uid, gid, mtime, xattrs, .. } = entry;
        Self { mode: *mode, uid: *uid, gid: *gid, mtime: *mtime, xattrs: xattrs.clone() }
    }
}

/// What to make, but for a file with content.
#[derive(Debug, Clone, Copy)]
pub enum Node<'a> {
    Directory,
    Symlink { target: &'a [u8] },
    HardLink { to: &'a JailPath },
    Fifo,
    CharDevice { major: u64, minor: u64 },
    BlockDevice { major: u64, minor: u64 },
}

/// How many nodes are not as they should be, for want of privilege.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notes {
    /// Nodes that belong to who made them instead of to their owner, or that he may read as their owner may not.
    pub owners: u64,
    /// Of these, programs whose set-user-ID or set-group-ID bit was left off: they would run as the wrong user.
    pub set_id: u64,
    /// Device nodes that were not made.
    pub devices: u64,
    /// Extended attributes that could not be set.
    pub xattrs: u64,
}

impl Chroot {
    /// Holds `path`, an empty directory.
    ///
    /// # Errors
    /// It is no directory, not empty, or cannot be opened.
    pub fn open(path: &Path) -> Result<Self, TreeError> {
        if !Root::open(path)?.list(&JailPath::root())?.is_empty() {
            return Err(TreeError::NotEmpty { path: escape(path.as_os_str().as_bytes()) });
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let held = nix::fcntl::open(path, flags, Mode::empty()).map_err(|errno| TreeError::Failed {
            step: "open the directory",
            path: escape(path.as_os_str().as_bytes()),
            source: errno.into(),
        })?;
        Ok(Self {
            held,
            path: path.to_owned(),
            directories: BTreeMap::new(),
            missing: BTreeSet::new(),
            last: None,
            is_to_be_read: false,
            notes: Notes::default(),
        })
    }

    /// For a tree from which contents are taken: what an ordinary user makes gets the right for him to read it, whatever
    /// its mode. Distributions have files that nobody but root may read, as Fedora's `/etc/shadow` of mode 0000.
    #[must_use]
    pub fn readable(self) -> Self {
        Self { is_to_be_read: !Uid::effective().is_root(), ..self }
    }

    /// Makes a node where there is none; a directory may be there already, and then only gets new metadata.
    ///
    /// # Errors
    /// Its directory is missing or a link, something else is there, or the kernel refuses.
    pub fn make(&mut self, path: &JailPath, metadata: Metadata, node: Node<'_>) -> Result<(), TreeError> {
        let name = OsStr::from_bytes(path.file_name());
        match node {
            Node::Directory => return self.make_directory(path, metadata),
            Node::Symlink { target } => {
                let directory = self.parent(path)?;
                symlinkat(OsStr::from_bytes(target), directory, name)
                    .map_err(|errno| self.failed("make the link", path, errno))?;
            }
            Node::HardLink { to } => return self.make_hard_link(path, to),
            Node::Fifo => {
                let directory = self.parent(path)?;
                mknodat(directory, name, SFlag::S_IFIFO, Mode::S_IRUSR, 0)
                    .map_err(|errno| self.failed("make the FIFO", path, errno))?;
            }
            Node::CharDevice { major, minor } | Node::BlockDevice { major, minor } => {
                let kind = if matches!(node, Node::CharDevice { .. }) { SFlag::S_IFCHR } else { SFlag::S_IFBLK };
                let directory = self.parent(path)?;
                match mknodat(directory, name, kind, Mode::S_IRUSR, makedev(major, minor)) {
                    Err(Errno::EPERM) => {
                        self.notes.devices += 1;
                        self.missing.insert(path.clone());
                        return Ok(());
                    }
                    result => result.map_err(|errno| self.failed("make the device node", path, errno))?,
                }
            }
        }
        self.settle_node(path, &metadata, !matches!(node, Node::Symlink { .. }))
    }

    /// Makes a file of all the bytes that `next` gives, until it gives none. Blocks of zeros become holes.
    ///
    /// # Errors
    /// What `next` says, and as [`make`](Self::make).
    pub fn make_file<E: From<TreeError>>(
        &mut self,
        path: &JailPath,
        metadata: &Metadata,
        next: impl FnMut(&mut [u8]) -> Result<usize, E>,
    ) -> Result<(), E> {
        let directory = self.parent(path)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(directory, OsStr::from_bytes(path.file_name()), flags, Mode::S_IRUSR | Mode::S_IWUSR)
            .map(File::from)
            .map_err(|errno| self.failed("make the file", path, errno))?;
        fill(&file, next, |source| TreeError::Failed { step: "write", path: self.show(path), source })?;
        Ok(self.settle(&file, path, metadata, false)?)
    }

    /// Removes what is at `path`, with everything below; it is no error if there is nothing.
    ///
    /// # Errors
    /// Its directory is missing or a link, or the kernel refuses.
    pub fn remove(&mut self, path: &JailPath) -> Result<(), TreeError> {
        let name = CString::new(path.file_name()).expect("a jail path has no NUL");
        remove_below(self.parent(path)?.as_fd(), &name).map_err(|errno| self.failed("remove", path, errno))?;
        self.missing.remove(path);
        if self.directories.remove(path).is_some() {
            self.last = None;
            // What is below a path sorts from `path/\x01` on, in one stretch.
            let from = path.join(&[1]);
            let is_below = |other: &&JailPath| other.starts_with(path);
            let directories = self.directories.range(&from..).map(|(other, _)| other).take_while(is_below).cloned();
            for directory in directories.collect::<Vec<_>>() {
                self.directories.remove(&directory);
            }
            for node in self.missing.range(&from..).take_while(is_below).cloned().collect::<Vec<_>>() {
                self.missing.remove(&node);
            }
        }
        Ok(())
    }

    /// Gives every directory its metadata, the deepest first.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn finish(mut self) -> Result<Notes, TreeError> {
        for (path, metadata) in std::mem::take(&mut self.directories).into_iter().rev() {
            let directory = self.open_directory(&path).map_err(|errno| self.failed("open", &path, errno))?;
            self.settle(&File::from(directory), &path, &metadata, true)?;
        }
        Ok(self.notes)
    }

    fn make_directory(&mut self, path: &JailPath, metadata: Metadata) -> Result<(), TreeError> {
        if !path.is_root() {
            let directory = self.parent(path)?;
            match mkdirat(directory, OsStr::from_bytes(path.file_name()), Mode::S_IRWXU) {
                Ok(()) => {}
                Err(Errno::EEXIST) if self.directories.contains_key(path) => {}
                Err(errno) => return Err(self.failed("make the directory", path, errno)),
            }
        }
        self.directories.insert(path.clone(), metadata);
        Ok(())
    }

    fn make_hard_link(&mut self, path: &JailPath, to: &JailPath) -> Result<(), TreeError> {
        if self.missing.contains(to) {
            self.missing.insert(path.clone());
            return Ok(());
        }
        let parent = to.parent().unwrap_or_else(JailPath::root);
        let from = self.open_directory(&parent).map_err(|errno| self.failed("open", &parent, errno))?;
        let directory = self.parent(path)?;
        let [old, new] = [to, path].map(|path| OsStr::from_bytes(path.file_name()));
        linkat(from, old, directory, new, AtFlags::empty())
            .map_err(|errno| self.failed("make the hard link", path, errno))
    }

    /// The directory that `path` is in.
    fn parent(&mut self, path: &JailPath) -> Result<&OwnedFd, TreeError> {
        let parent = path.parent().unwrap_or_else(JailPath::root);
        if self.last.as_ref().is_none_or(|(last, _)| *last != parent) {
            let opened = self.open_directory(&parent).map_err(|errno| self.failed("open", &parent, errno))?;
            self.last = Some((parent, opened));
        }
        let (_, held) = self.last.as_ref().expect("it was just put there");
        Ok(held)
    }

    fn open_directory(&self, path: &JailPath) -> Result<OwnedFd, Errno> {
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        let open = |directory: &OwnedFd, piece: &[u8]| openat2(directory, OsStr::from_bytes(piece), how);
        // openat2 takes PATH_MAX bytes at a time; a longer path is walked in pieces of whole components.
        let mut rest = path.relative().as_os_str().as_bytes();
        let mut held = None;
        while rest.len() >= PIECE {
            let cut = rest[..PIECE].iter().rposition(|&byte| byte == b'/').ok_or(Errno::ENAMETOOLONG)?;
            held = Some(open(held.as_ref().unwrap_or(&self.held), &rest[..cut])?);
            rest = &rest[cut + 1..];
        }
        open(held.as_ref().unwrap_or(&self.held), rest)
    }

    /// Sets the metadata of an open file or directory.
    fn settle(
        &mut self,
        file: &File,
        path: &JailPath,
        metadata: &Metadata,
        is_directory: bool,
    ) -> Result<(), TreeError> {
        let owned = fchown(file, Some(Uid::from_raw(metadata.uid)), Some(Gid::from_raw(metadata.gid)));
        let mode = self.mode_after(owned, path, metadata, is_directory)?;
        let mode = self.mode_to_read(mode, owned.is_ok(), is_directory);
        // A change of owner takes `security.capability` away (`capabilities(7)`), so attributes come after it.
        self.set_xattrs(&magic(file), path, metadata)?;
        fchmod(file, mode).map_err(|errno| self.failed("set the mode of", path, errno))?;
        let time = TimeSpec::new(metadata.mtime, 0);
        nix::sys::stat::futimens(file, &time, &time).map_err(|errno| self.failed("set the time of", path, errno))
    }

    /// Sets the metadata of a node that cannot be opened. It was just made, in a directory that its owner alone can
    /// write, so that its name still means it.
    fn settle_node(&mut self, path: &JailPath, metadata: &Metadata, has_mode: bool) -> Result<(), TreeError> {
        let name = OsStr::from_bytes(path.file_name());
        let (uid, gid) = (Some(Uid::from_raw(metadata.uid)), Some(Gid::from_raw(metadata.gid)));
        let owned = fchownat(self.parent(path)?, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW);
        let mode = self.mode_after(owned, path, metadata, false)?;
        if !metadata.xattrs.is_empty() {
            let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let node = openat(self.parent(path)?, name, flags, Mode::empty())
                .map_err(|errno| self.failed("open", path, errno))?;
            self.set_xattrs(&magic(&node), path, metadata)?;
        }
        if has_mode {
            fchmodat(self.parent(path)?, name, mode, FchmodatFlags::FollowSymlink)
                .map_err(|errno| self.failed("set the mode of", path, errno))?;
        }
        let time = TimeSpec::new(metadata.mtime, 0);
        utimensat(self.parent(path)?, name, &time, &time, UtimensatFlags::NoFollowSymlink)
            .map_err(|errno| self.failed("set the time of", path, errno))
    }

    /// The mode to set after an attempt to give the node to its owner.
    fn mode_after(
        &mut self,
        owned: nix::Result<()>,
        path: &JailPath,
        metadata: &Metadata,
        is_directory: bool,
    ) -> Result<Mode, TreeError> {
        let mode = Mode::from_bits_truncate(metadata.mode);
        let set_id = Mode::S_ISUID | Mode::S_ISGID;
        match owned {
            Ok(()) => Ok(mode),
            // EINVAL: the owner has no place in this user namespace (`user_namespaces(7)`).
            Err(Errno::EPERM | Errno::EINVAL) => {
                self.notes.owners += 1;
                // Of a directory the bits say who owns what is made in it, and no program runs by them.
                if is_directory || !mode.intersects(set_id) {
                    return Ok(mode);
                }
                self.notes.set_id += 1;
                Ok(mode - set_id)
            }
            Err(errno) => Err(self.failed("set the owner of", path, errno)),
        }
    }

    fn mode_to_read(&mut self, mode: Mode, is_given: bool, is_directory: bool) -> Mode {
        let needed = if is_directory { Mode::S_IRUSR | Mode::S_IXUSR } else { Mode::S_IRUSR };
        if !self.is_to_be_read || mode.contains(needed) {
            return mode;
        }
        // Of what is not given to its owner it is known already that the tree does not say all.
        self.notes.owners += u64::from(is_given);
        mode | needed
    }

    fn set_xattrs(&mut self, magic: &str, path: &JailPath, metadata: &Metadata) -> Result<(), TreeError> {
        for (name, value) in &metadata.xattrs {
            match xattr::set_deref(magic, name, value) {
                Ok(()) => {}
                Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOTSUP)) => {
                    self.notes.xattrs += 1;
                }
                Err(source) => {
                    let step = "set the extended attributes of";
                    return Err(TreeError::Failed { step, path: self.show(path), source });
                }
            }
        }
        Ok(())
    }

    fn failed(&self, step: &'static str, path: &JailPath, errno: Errno) -> TreeError {
        TreeError::Failed { step, path: self.show(path), source: errno.into() }
    }

    fn show(&self, path: &JailPath) -> String {
        escape(path.below(&self.path).as_os_str().as_bytes())
    }
}

/// Longest piece of a path that is handed to the kernel at once: below `PATH_MAX` (4,096 with its NUL).
const PIECE: usize = 4000;

/// The size of a block that can be a hole on any file system of today.
const HOLE: usize = 4096;

fn fill<E: From<TreeError>>(
    file: &File,
    mut next: impl FnMut(&mut [u8]) -> Result<usize, E>,
    failed: impl Fn(io::Error) -> TreeError,
) -> Result<(), E> {
    let mut buffer = vec![0; 64 * HOLE];
    let mut at = 0;
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match next(&mut buffer[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        let blocks: Vec<&[u8]> = buffer[..filled].chunks(HOLE).collect();
        let mut start = 0;
        for run in blocks.chunk_by(|one, other| is_hole(one) == is_hole(other)) {
            let end = start + run.iter().map(|block| block.len()).sum::<usize>();
            if !is_hole(run[0]) {
                file.write_all_at(&buffer[start..end], at + start as u64).map_err(&failed)?;
            }
            start = end;
        }
        at += filled as u64;
        if filled < buffer.len() {
            break;
        }
    }
    Ok(file.set_len(at).map_err(failed)?)
}

fn is_hole(block: &[u8]) -> bool {
    block.iter().all(|&byte| byte == 0)
}
