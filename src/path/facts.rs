//! What `lstat` says of a path.

use nix::sys::stat::{FileStat, SFlag};
use serde::{Deserialize, Serialize};

/// The kind of thing that a path names (`inode(7)`, "The file type and mode").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileType {
    Directory,
    File,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

/// The facts of `lstat(2)` that tell one state of a file from another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Facts {
    #[serde(rename = "type")]
    pub file_type: FileType,
    /// Permission bits with setuid, setgid and sticky: `0o7777` at most.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// In bytes.
    pub size: u64,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Nanoseconds past `mtime`.
    pub mtime_nsec: u32,
    pub dev: u64,
    pub ino: u64,
    pub nlink: u64,
    /// Of a device node: what it stands for, as `st_rdev`.
    pub rdev: u64,
}

impl Facts {
    /// Takes the facts from a `struct stat`; `None` for a file type that Linux does not have.
    pub fn from_stat(stat: &FileStat) -> Option<Self> {
        let file_type = match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFDIR => FileType::Directory,
            SFlag::S_IFREG => FileType::File,
            SFlag::S_IFLNK => FileType::Symlink,
            SFlag::S_IFIFO => FileType::Fifo,
            SFlag::S_IFSOCK => FileType::Socket,
            SFlag::S_IFCHR => FileType::CharDevice,
            SFlag::S_IFBLK => FileType::BlockDevice,
            _ => return None,
        };
        Some(Self {
            file_type,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime: stat.st_mtime,
            mtime_nsec: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
            dev: stat.st_dev,
            ino: stat.st_ino,
            #[cfg_attr(
                target_arch = "x86_64",
                expect(clippy::useless_conversion, reason = "aarch64 counts in 32 bits")
            )]
            nlink: stat.st_nlink.into(),
            rdev: stat.st_rdev,
        })
    }

    pub fn is_directory(&self) -> bool {
        self.file_type == FileType::Directory
    }

    pub fn is_file(&self) -> bool {
        self.file_type == FileType::File
    }

    pub fn is_symlink(&self) -> bool {
        self.file_type == FileType::Symlink
    }

    /// Which file it is, as long as that is there: device and inode.
    pub fn inode(&self) -> (u64, u64) {
        (self.dev, self.ino)
    }

    /// True if the content, as far as `lstat` can tell, is the one that `self` describes.
    pub fn same_content(&self, other: &Self) -> bool {
        self.file_type == other.file_type
            && self.size == other.size
            && (self.mtime, self.mtime_nsec) == (other.mtime, other.mtime_nsec)
    }

    /// True if it is the same file, with the same content as far as `lstat` can tell.
    pub fn is_unchanged(&self, other: &Self) -> bool {
        self.inode() == other.inode() && self.same_content(other)
    }
}
