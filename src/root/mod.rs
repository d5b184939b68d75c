//! The directory that plays `/`: the host's own, a rootfs directory, or an unpacked image.
//!
//! In: a directory. Out: facts, link texts, listings, contents and extended attributes of what is below it, and where
//! a path leads through its links. Everything goes through one held directory descriptor and `openat2(2)`, so that a
//! link, or somebody who swaps a directory for a link, leads nowhere outside. This room only reads.

pub mod access_list;
pub mod dpkg;
mod held;
mod walk;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2, readlinkat};
use nix::sys::stat::{FileStat, Mode, fstat};

use crate::path::{Facts, FileType, JailPath};

pub use held::Held;
pub use walk::{Link, Walk};

/// A held directory that plays `/`.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
    path: PathBuf,
}

/// Something below the root could not be read.
#[derive(Debug, thiserror::Error)]
#[error("failed to {step} `{path}`")]
pub struct RootError {
    /// What was being done: a verb that fits after "failed to".
    pub step: &'static str,
    /// The path, as a person would type it: the root's own path and the path below it.
    pub path: String,
    #[source]
    pub source: io::Error,
}

impl RootError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match (self.step, self.source.raw_os_error()?) {
            (OPEN_ROOT, libc::ENOENT | libc::ENOTDIR) => Some("name a directory that is there"),
            _ if self.is_refusal() => Some("the image needs this file: run minjail as a user who may read it"),
            // What is held open is read by its name there.
            (_, libc::ENOENT) if !Path::new("/proc/self/fd").exists() => {
                Some("`/proc` is not there: mount it, `mount -t proc proc /proc`")
            }
            // A path is read by name again and again, and was there, of that kind, a moment ago.
            (_, libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::EINVAL | libc::ESTALE) => {
                Some("it has changed while minjail was at it: let nothing else change the files, and try again")
            }
            _ => None,
        }
    }

    /// True if minjail may not do it.
    pub(crate) fn is_refusal(&self) -> bool {
        self.source.kind() == io::ErrorKind::PermissionDenied
    }
}

const OPEN_ROOT: &str = "open the root directory";

impl Root {
    /// Holds `path`, which must be a directory.
    ///
    /// # Errors
    /// What `open(2)` says.
    pub fn open(path: &Path) -> Result<Self, RootError> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        match nix::fcntl::open(path, flags, Mode::empty()) {
            Ok(directory) => Ok(Self { directory, path: path.to_path_buf() }),
            Err(errno) => Err(RootError { step: OPEN_ROOT, path: path.display().to_string(), source: errno.into() }),
        }
    }

    /// The path by which the root was opened: for messages, not for opening files.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What `lstat(2)` says of `path`; `None` if there is nothing.
    ///
    /// Links above the last component are followed, inside the root.
    ///
    /// # Errors
    /// Anything but `ENOENT`, `ENOTDIR` and `ENAMETOOLONG`.
    pub fn lstat(&self, path: &JailPath) -> Result<Option<Facts>, RootError> {
        Ok(self.stat(path)?.and_then(|stat| Facts::from_stat(&stat)))
    }

    /// What `lstat(2)` says of `path`, which was free of links when it was told; `None` if there is nothing, or what is there is
    /// only reached by a link by now: that is another.
    ///
    /// # Errors
    /// Anything but `ENOENT`, `ENOTDIR`, `ENAMETOOLONG` and `ELOOP`.
    pub fn facts(&self, path: &JailPath) -> Result<Option<Facts>, RootError> {
        let failed = |errno| self.error("look at", path, errno);
        match self.open_without_links(path, OFlag::O_PATH) {
            Ok(node) => Ok(Facts::from_stat(&fstat(&node).map_err(failed)?)),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG | Errno::ELOOP) => Ok(None),
            Err(errno) => Err(failed(errno)),
        }
    }

    /// As [`lstat`](Self::lstat), with all that the kernel says.
    ///
    /// # Errors
    /// Anything but `ENOENT`, `ENOTDIR` and `ENAMETOOLONG`.
    pub fn stat(&self, path: &JailPath) -> Result<Option<FileStat>, RootError> {
        let Some(node) = self.node_to(path, "look at")? else { return Ok(None) };
        fstat(&node).map(Some).map_err(|errno| self.error("look at", path, errno))
    }

    /// The text of the link at `path`.
    ///
    /// # Errors
    /// There is no link at `path`, or it cannot be read.
    pub fn read_link(&self, path: &JailPath) -> Result<Vec<u8>, RootError> {
        let step = "read the link";
        let node = self.node_to(path, step)?.ok_or_else(|| self.error(step, path, Errno::ENOENT))?;
        let text = readlinkat(&node, "").map_err(|errno| self.error(step, path, errno))?;
        Ok(text.as_bytes().to_vec())
    }

    /// Opens the file at `path` for reading. A link as the last component is not followed, and a FIFO does not block; the
    /// time of access stays as it is, where this process may have it so. A file under a lease is waited for, as any program
    /// would.
    ///
    /// # Errors
    /// What `openat2(2)` says; `ELOOP` for a link.
    pub fn open_file(&self, path: &JailPath) -> Result<File, RootError> {
        let flags = READ | OFlag::O_NOFOLLOW;
        let opened = match self.open_inside(path, flags | OFlag::O_NOATIME) {
            // open(2): it is for the owner alone.
            Err(Errno::EPERM) => self.open_inside(path, flags),
            opened => opened,
        };
        let opened = match opened {
            Err(Errno::EAGAIN) => self.open_leased(path),
            opened => opened,
        };
        opened.map(File::from).map_err(|errno| self.error("open", path, errno))
    }

    /// The content of the file at `path`, but no more than `most` bytes of it.
    ///
    /// # Errors
    /// As [`open_file`](Self::open_file), and what `read(2)` says.
    pub fn read(&self, path: &JailPath, most: u64) -> Result<Vec<u8>, RootError> {
        let mut content = Vec::new();
        match self.open_file(path)?.take(most).read_to_end(&mut content) {
            Ok(_) => Ok(content),
            Err(source) => Err(RootError { step: "read", path: path.to_string(), source }),
        }
    }

    /// As [`read`](Self::read), of the file that `spelled` leads to through any links; `None` if it leads to no file.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve) and [`read`](Self::read).
    pub fn read_through_links(&self, spelled: &[u8], most: u64) -> Result<Option<Vec<u8>>, RootError> {
        let walk = self.resolve(&JailPath::root(), spelled, true)?;
        let is_file = walk.facts.is_some_and(|facts| facts.is_file());
        is_file.then(|| self.read(&walk.end, most)).transpose()
    }

    /// `EAGAIN` tells of a lease (`fcntl(2)`, "Leases"), which the holder gives up or loses, or of renames elsewhere.
    fn open_leased(&self, path: &JailPath) -> Result<OwnedFd, Errno> {
        let node = self.open_inside(path, OFlag::O_PATH | OFlag::O_NOFOLLOW)?;
        if fstat(&node)?.st_mode & libc::S_IFMT != libc::S_IFREG {
            return Err(Errno::EAGAIN);
        }
        held::reopen(&node, READ.difference(OFlag::O_NONBLOCK))
    }

    /// The names in the directory at `path`, sorted bytewise, without `.` and `..`.
    ///
    /// # Errors
    /// What `openat2(2)` or `getdents(2)` says.
    pub fn list(&self, path: &JailPath) -> Result<Vec<Vec<u8>>, RootError> {
        let step = "list";
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
        let directory = self.open_inside(path, flags).map_err(|errno| self.error(step, path, errno))?;
        let entries = entries(directory).map_err(|errno| self.error(step, path, errno))?;
        Ok(entries.into_iter().map(|(name, _)| name).collect())
    }

    /// The extended attributes of what is at `path`, not following a link: those that images carry (`security.*`,
    /// `user.*`, `trusted.*`), without SELinux labels and access control lists of the machine at hand.
    ///
    /// # Errors
    /// What `listxattr(2)` or `getxattr(2)` says, but for file systems that have none.
    pub fn xattrs(&self, path: &JailPath) -> Result<BTreeMap<String, Vec<u8>>, RootError> {
        let step = "read the extended attributes of";
        let node = self.node_to(path, step)?.ok_or_else(|| self.error(step, path, Errno::ENOENT))?;
        self.attributes(&node, path, step)
    }

    fn attributes(
        &self,
        node: &OwnedFd,
        path: &JailPath,
        step: &'static str,
    ) -> Result<BTreeMap<String, Vec<u8>>, RootError> {
        let magic = magic(node);
        let failed = |source| RootError { step, path: self.show(path), source };
        let names = match xattr::list_deref(&magic) {
            Ok(names) => names,
            Err(error) if has_none(&error) => return Ok(BTreeMap::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut attributes = BTreeMap::new();
        for name in names {
            let Some(text) = name.to_str().filter(|name| is_carried(name)) else { continue };
            if let Some(value) = xattr::get_deref(&magic, &name).map_err(failed)? {
                attributes.insert(text.to_owned(), value);
            }
        }
        Ok(attributes)
    }

    /// The access control list (`acl(5)`) that what is at `path`, which is free of links, has beside its mode; `None` if it has none, or
    /// nothing is there.
    ///
    /// # Errors
    /// What `getxattr(2)` says, but for file systems that have none.
    pub fn access_list(&self, path: &JailPath) -> Result<Option<Vec<u8>>, RootError> {
        self.list_named(access_list::NAME, path)
    }

    /// The list that the directory at `path` gives to what is made in it, as [`access_list`](Self::access_list).
    ///
    /// # Errors
    /// The same.
    pub fn default_list(&self, path: &JailPath) -> Result<Option<Vec<u8>>, RootError> {
        self.list_named(access_list::DEFAULT, path)
    }

    fn list_named(&self, name: &str, path: &JailPath) -> Result<Option<Vec<u8>>, RootError> {
        let step = "read the access control list of";
        let node = match self.open_without_links(path, OFlag::O_PATH) {
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG | Errno::ELOOP) => return Ok(None),
            node => node.map_err(|errno| self.error(step, path, errno))?,
        };
        match xattr::get_deref(magic(&node), name) {
            Ok(list) => Ok(list),
            Err(error) if has_none(&error) => Ok(None),
            Err(source) => Err(RootError { step, path: self.show(path), source }),
        }
    }

    /// A descriptor (`O_PATH`) of what is at `path`, links above it followed, itself not; `None` if there is nothing.
    ///
    /// # Errors
    /// Anything but `ENOENT`, `ENOTDIR` and `ENAMETOOLONG`.
    pub fn node(&self, path: &JailPath) -> Result<Option<OwnedFd>, RootError> {
        self.node_to(path, "open")
    }

    fn node_to(&self, path: &JailPath, step: &'static str) -> Result<Option<OwnedFd>, RootError> {
        match self.open_inside(path, OFlag::O_PATH | OFlag::O_NOFOLLOW) {
            Ok(node) => Ok(Some(node)),
            // A link may say a name that no file can have.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG) => Ok(None),
            Err(errno) => Err(self.error(step, path, errno)),
        }
    }

    fn open_inside(&self, path: &JailPath, flags: OFlag) -> Result<OwnedFd, Errno> {
        self.open_at(path, flags, ResolveFlag::RESOLVE_IN_ROOT)
    }

    fn open_at(&self, path: &JailPath, flags: OFlag, confine: ResolveFlag) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlag::O_CLOEXEC;
        // openat2 takes PATH_MAX bytes at a time; a longer path is walked in pieces of whole components.
        let mut held: Option<OwnedFd> = None;
        let mut rest = path.relative().as_os_str().as_bytes();
        while rest.len() >= PIECE {
            let cut = rest[..PIECE].iter().rposition(|&byte| byte == b'/').ok_or(Errno::ENAMETOOLONG)?;
            let way = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            held = Some(self.open_piece(held.as_ref(), &rest[..cut], way, confine)?);
            rest = &rest[cut + 1..];
        }
        self.open_piece(held.as_ref(), rest, flags, confine)
    }

    /// `confine` is how the way from the root is.
    fn open_piece(
        &self,
        from: Option<&OwnedFd>,
        piece: &[u8],
        flags: OFlag,
        confine: ResolveFlag,
    ) -> Result<OwnedFd, Errno> {
        // A later piece starts below the root, where RESOLVE_IN_ROOT would take that directory for the root: there,
        // links are refused instead. Nobody but a test makes links behind 4,000 bytes of path.
        let confine = if from.is_none() { confine } else { ResolveFlag::RESOLVE_NO_SYMLINKS };
        let how = OpenHow::new().flags(flags).resolve(confine | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let directory = from.unwrap_or(&self.directory).as_fd();
        // EAGAIN: a rename elsewhere raced with the walk (`openat2(2)`, ERRORS); it is safe to try again. But if a file is to be
        // read, there may be a lease on it, for as long as its holder likes.
        let mut tries = if flags.intersects(OFlag::O_PATH | OFlag::O_DIRECTORY) { TRIES } else { 0 };
        loop {
            match openat2(directory, OsStr::from_bytes(piece), how) {
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) if tries > 0 => tries -= 1,
                result => return result,
            }
        }
    }

    fn error(&self, step: &'static str, path: &JailPath, errno: Errno) -> RootError {
        RootError { step, path: self.show(path), source: errno.into() }
    }

    fn show(&self, path: &JailPath) -> String {
        crate::path::escape(path.below(&self.path).as_os_str().as_bytes())
    }
}

/// How a file is opened to be read: a FIFO does not block.
const READ: OFlag = OFlag::O_RDONLY.union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY);

/// So often a walk is tried again when renames got in its way; each one takes a few microseconds.
const TRIES: u32 = 100;

/// A name in a directory, and what it is of; `None` where its file system does not say that in a listing (`readdir(3)`, `DT_UNKNOWN`).
pub type Entry = (Vec<u8>, Option<FileType>);

/// What is in a directory, sorted bytewise, without `.` and `..`.
fn entries(directory: OwnedFd) -> Result<Vec<Entry>, Errno> {
    let mut entries = Vec::new();
    for entry in Dir::from_fd(directory)?.iter() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            entries.push((name.to_vec(), entry.file_type().map(file_type)));
        }
    }
    entries.sort();
    Ok(entries)
}

fn file_type(told: Type) -> FileType {
    match told {
        Type::Directory => FileType::Directory,
        Type::File => FileType::File,
        Type::Symlink => FileType::Symlink,
        Type::Fifo => FileType::Fifo,
        Type::Socket => FileType::Socket,
        Type::CharacterDevice => FileType::CharDevice,
        Type::BlockDevice => FileType::BlockDevice,
    }
}

/// Longest piece of a path that is handed to the kernel at once: below `PATH_MAX` (4,096 with its NUL).
const PIECE: usize = 4000;

/// The name under which an open descriptor can be named where only a path will do: with `O_PATH` it has no f*xattr calls, nor others
/// (`open(2)`).
pub(crate) fn magic(descriptor: &impl AsRawFd) -> String {
    format!("/proc/self/fd/{}", descriptor.as_raw_fd())
}

/// True where there are no extended attributes.
fn has_none(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTSUP | libc::EPERM | libc::ELOOP))
}

/// True for the extended attributes that images carry: what a file means, not what the machine at hand made of it.
pub fn is_carried(name: &str) -> bool {
    (name.starts_with("security.") && name != "security.selinux" && name != "security.evm" && name != "security.ima")
        || name.starts_with("user.")
        || (name.starts_with("trusted.") && !name.starts_with("trusted.overlay.") && !name.starts_with(XFS_LISTS))
}

/// By these names XFS shows root the access control lists once more (the kernel's `fs/xfs/xfs_xattr.c`).
const XFS_LISTS: &str = "trusted.SGI_ACL_";

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn path(text: &str) -> JailPath {
        JailPath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn links_stay_inside() {
        let directory = tempfile::tempdir().unwrap();
        symlink("/etc", directory.path().join("out")).unwrap();
        symlink("../../../../../etc", directory.path().join("up")).unwrap();
        let root = Root::open(directory.path()).unwrap();
        assert_eq!(root.lstat(&path("/out/passwd")).unwrap(), None);
        assert_eq!(root.lstat(&path("/up/passwd")).unwrap(), None);
        assert_eq!(root.read_link(&path("/out")).unwrap(), b"/etc");
        assert!(root.open_file(&path("/out")).is_err());
    }

    #[test]
    fn what_is_only_reached_by_a_link_is_another() {
        let directory = tempfile::tempdir().unwrap();
        fs_err::create_dir(directory.path().join("e")).unwrap();
        fs_err::write(directory.path().join("e/f"), "").unwrap();
        for (target, link) in [("e", "d"), ("loop", "loop")] {
            symlink(target, directory.path().join(link)).unwrap();
        }
        let root = Root::open(directory.path()).unwrap();
        let is_there = |text| root.facts(&path(text)).unwrap().is_some();
        assert!(is_there("/") && is_there("/e/f") && is_there("/d") && is_there("/loop"));
        assert!(!is_there("/d/f") && !is_there("/loop/f") && !is_there("/e/f/f") && !is_there("/none/f"));
    }

    #[test]
    fn lists_of_access_are_the_machines() {
        assert!(is_carried("security.capability") && is_carried("trusted.t") && is_carried("user.u"));
        for name in ["system.posix_acl_access", "trusted.SGI_ACL_FILE", "trusted.SGI_ACL_DEFAULT"] {
            assert!(!is_carried(name), "{name}");
        }
    }

    #[test]
    fn lists_in_order() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["b", "a", "c"] {
            fs_err::write(directory.path().join(name), name).unwrap();
        }
        let root = Root::open(directory.path()).unwrap();
        assert_eq!(root.list(&JailPath::root()).unwrap(), [b"a", b"b", b"c"]);
    }

    #[test]
    fn errors_name_the_path_and_the_step() {
        let root = Root::open(Path::new("/")).unwrap();
        let error = root.open_file(&path("/no/such")).unwrap_err();
        assert_eq!(error.to_string(), "failed to open `/no/such`");
    }

    #[test]
    fn paths_longer_than_path_max() {
        let directory = tempfile::tempdir().unwrap();
        let name = [b'n'; 200];
        let mut long = JailPath::root();
        let mut at = nix::fcntl::open(directory.path(), OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..30 {
            nix::sys::stat::mkdirat(&at, OsStr::from_bytes(&name), Mode::S_IRWXU).unwrap();
            at = nix::fcntl::openat(&at, OsStr::from_bytes(&name), OFlag::O_DIRECTORY, Mode::empty()).unwrap();
            long = long.join(&name);
        }
        let root = Root::open(directory.path()).unwrap();
        assert!(root.lstat(&long).unwrap().is_some_and(|facts| facts.is_directory()));
        assert_eq!(root.lstat(&long.join(b"x")).unwrap(), None);
    }
}
