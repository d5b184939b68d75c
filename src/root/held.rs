//! The very file that was told of, whatever stands at its path by now.
//!
//! A program that is traced can put something else at a path while minjail looks at it, and minjail may have rights that the
//! program has not. So no link is followed on the way, and what is there is held first, and opened only when it turns out to
//! be what the facts were told of: no file of somebody else's is read, no device and no FIFO opened. Nor is a lease taken
//! away.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::SystemTime;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2, readlink, readlinkat};
use nix::sys::stat::{Mode, fstat};

use super::{Entry, READ, Root, RootError, entries, magic};
use crate::path::{Facts, JailPath};

/// What facts were told of, held (`O_PATH`).
#[derive(Debug)]
pub struct Held<'a> {
    root: &'a Root,
    path: &'a JailPath,
    facts: &'a Facts,
    node: OwnedFd,
    may_be_leased: bool,
}

impl Root {
    /// Holds what is at `path`, which is free of links, if that is what `facts` were told of.
    ///
    /// # Errors
    /// `ENOENT` if something else is there by now, or nothing; else what `openat2(2)` says.
    pub fn hold<'a>(&'a self, path: &'a JailPath, facts: &'a Facts) -> Result<Held<'a>, RootError> {
        let failed = |errno| self.error("find again", path, errno);
        let node = self.open_without_links(path, OFlag::O_PATH).map_err(|errno| match errno {
            Errno::ELOOP | Errno::ENOTDIR => failed(Errno::ENOENT),
            errno => failed(errno),
        })?;
        is_of(&node, facts).map_err(failed)?;
        Ok(Held { root: self, path, facts, node, may_be_leased: true })
    }

    /// As [`hold`](Self::hold), also where this process gets nowhere from the root, but does from the directory in which `task`
    /// stands.
    ///
    /// # Errors
    /// The same.
    pub fn hold_for<'a>(&'a self, task: i32, path: &'a JailPath, facts: &'a Facts) -> Result<Held<'a>, RootError> {
        match self.hold(path, facts) {
            Err(error) if error.source.kind() == std::io::ErrorKind::PermissionDenied => {
                let node = self.behind(task, path).filter(|node| is_of(node, facts).is_ok()).ok_or(error)?;
                Ok(Held { root: self, path, facts, node, may_be_leased: true })
            }
            held => held,
        }
    }

    fn behind(&self, task: i32, path: &JailPath) -> Option<OwnedFd> {
        // proc(5): a door to the directory itself, whose text is the path that it has now.
        let door = format!("/proc/{task}/cwd");
        let directory =
            open(door.as_str(), OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
        let at = readlink(magic(&directory).as_str()).ok()?;
        let path = path.below(self.path());
        let rest = path.strip_prefix(&at).ok()?;
        let rest = if rest.as_os_str().is_empty() { Path::new(".") } else { rest };
        let confine = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat2(&directory, rest, OpenHow::new().flags(flags).resolve(confine)).ok()
    }

    pub(super) fn open_without_links(&self, path: &JailPath, flags: OFlag) -> Result<OwnedFd, Errno> {
        let confine = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_SYMLINKS;
        self.open_at(path, flags | OFlag::O_NOFOLLOW, confine)
    }
}

impl Held<'_> {
    /// The same, under no lease but such as are in no reader's way: none is looked for. To ask the kernel for all of them waits until each
    /// processor has been elsewhere (`fs/locks.c`, `locks_start`), which takes 5 to 20 ms if nobody has asked in the last 50.
    #[must_use]
    pub fn unleased(self) -> Self {
        Self { may_be_leased: false, ..self }
    }

    /// Opens the regular file for reading, unless that would take somebody's lease away; its time of access stays as it is,
    /// where this process may have it so.
    ///
    /// # Errors
    /// `EAGAIN` if somebody has a lease on it; else what `open(2)` says.
    pub fn open(&self) -> Result<File, RootError> {
        let failed = |errno| self.root.error("open", self.path, errno);
        if !self.facts.is_file() {
            return Err(failed(Errno::ENOENT));
        }
        if self.may_be_leased && is_leased(&self.node, self.facts) {
            return Err(failed(Errno::EAGAIN));
        }
        let opened = match self.reopen(READ | OFlag::O_NOATIME) {
            // open(2): it is for the owner alone.
            Err(Errno::EPERM) => self.reopen(READ),
            opened => opened,
        };
        opened.map(File::from).map_err(failed)
    }

    /// What is in the directory, sorted bytewise, without `.` and `..`.
    ///
    /// # Errors
    /// What `open(2)` or `getdents(2)` says.
    pub fn list(&self) -> Result<Vec<Entry>, RootError> {
        let failed = |errno| self.root.error("list", self.path, errno);
        entries(self.reopen(OFlag::O_RDONLY | OFlag::O_DIRECTORY).map_err(failed)?).map_err(failed)
    }

    /// The text of the link.
    ///
    /// # Errors
    /// It is none, or cannot be read.
    pub fn link_text(&self) -> Result<Vec<u8>, RootError> {
        let text = readlinkat(&self.node, "").map_err(|errno| self.root.error("read the link", self.path, errno))?;
        Ok(std::os::unix::ffi::OsStringExt::into_vec(text))
    }

    /// The extended attributes that images carry, as [`Root::xattrs`] has them.
    ///
    /// # Errors
    /// The same.
    pub fn xattrs(&self) -> Result<BTreeMap<String, Vec<u8>>, RootError> {
        self.root.attributes(&self.node, self.path, "read the extended attributes of")
    }

    /// When it was made, where its file system tells (`statx(2)`, `STATX_BTIME`).
    pub fn born(&self) -> Option<SystemTime> {
        File::from(self.node.try_clone().ok()?).metadata().ok()?.created().ok()
    }

    fn reopen(&self, flags: OFlag) -> Result<OwnedFd, Errno> {
        let opened = match reopen(&self.node, flags) {
            // Not every jail has a /proc.
            Err(Errno::ENOENT) => self.root.open_without_links(self.path, flags),
            opened => opened,
        }?;
        is_of(&opened, self.facts)?;
        Ok(opened)
    }
}

/// Opens what is held by an `O_PATH` descriptor, for which its name under `/proc` is the way (`open(2)`, `O_PATH`).
pub(super) fn reopen(node: &OwnedFd, flags: OFlag) -> Result<OwnedFd, Errno> {
    let door = magic(node);
    loop {
        match open(door.as_str(), flags | OFlag::O_CLOEXEC, Mode::empty()) {
            Err(Errno::EINTR) => {}
            opened => return opened,
        }
    }
}

/// `ENOENT` unless `file` is what `facts` were told of.
fn is_of(file: impl AsFd, facts: &Facts) -> Result<(), Errno> {
    let is_same = |now: Facts| (now.dev, now.ino, now.file_type) == (facts.dev, facts.ino, facts.file_type);
    if Facts::from_stat(&fstat(file)?).is_some_and(is_same) { Ok(()) } else { Err(Errno::ENOENT) }
}

/// True if to open the file for reading would take a lease away, also where that does not wait (`fcntl(2)`, "Leases"). A lease
/// of a process that is outside of this one's PID namespace is not seen (`fs/locks.c`, `locks_show`).
fn is_leased(node: &OwnedFd, facts: &Facts) -> bool {
    let Ok(locks) = fs_err::read_to_string("/proc/locks") else { return false };
    let mut leased = leased_inodes(&locks).peekable();
    leased.peek().is_some() && {
        // It is the file system's own number, which `stat` does not tell where one lies on another.
        let about = fs_err::read_to_string(format!("/proc/self/fdinfo/{}", node.as_raw_fd())).unwrap_or_default();
        let number = about.lines().find_map(|line| line.strip_prefix("ino:")?.trim().parse().ok());
        let number = number.unwrap_or(facts.ino);
        leased.any(|inode| inode == number)
    }
}

/// The inodes in `/proc/locks` with a lease that gets in a reader's way. Their devices are left aside: they are those of
/// file systems, where `stat` may tell of a part of one (btrfs, overlayfs).
fn leased_inodes(locks: &str) -> impl Iterator<Item = u64> {
    locks.lines().filter_map(|line| {
        // `fs/locks.c`, `lock_get_status`: "1: LEASE  ACTIVE    WRITE 4242 fe:00:1234 0 EOF".
        let mut words = line.split_ascii_whitespace().skip(1).skip_while(|word| *word == "->");
        let (kind, state, access) = (words.next()?, words.next()?, words.next()?);
        let is_in_the_way = matches!(kind, "LEASE" | "DELEG") && (state, access) != ("ACTIVE", "READ");
        let inode = words.nth(1)?.rsplit(':').next()?.parse().ok()?;
        is_in_the_way.then_some(inode)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn path(text: &str) -> JailPath {
        JailPath::parse(text.as_bytes()).unwrap()
    }

    struct Fixture {
        directory: tempfile::TempDir,
        root: Root,
    }

    impl Fixture {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            for place in ["own", "closed"] {
                fs_err::create_dir_all(directory.path().join(place).join("names")).unwrap();
                fs_err::write(directory.path().join(place).join("file"), place).unwrap();
                fs_err::write(directory.path().join(place).join("names").join(place), "").unwrap();
                symlink(place, directory.path().join(place).join("link")).unwrap();
            }
            let root = Root::open(directory.path()).unwrap();
            Self { directory, root }
        }

        fn at(&self, name: &str) -> std::path::PathBuf {
            self.directory.path().join(name)
        }

        fn facts(&self, of: &str) -> Facts {
            self.root.lstat(&path(of)).unwrap().unwrap()
        }
    }

    fn content(file: Result<File, RootError>) -> String {
        std::io::read_to_string(file.unwrap()).unwrap()
    }

    #[test]
    fn what_was_told_of() {
        let fixture = Fixture::new();
        let (file, names, link) = (path("/own/file"), path("/own/names"), path("/own/link"));
        let facts = ["/own/file", "/own/names", "/own/link"].map(|of| fixture.facts(of));
        let held = fixture.root.hold(&file, &facts[0]).unwrap();
        // Held is held, whatever becomes of its name.
        fs_err::remove_file(fixture.at("own/file")).unwrap();
        symlink("../closed/file", fixture.at("own/file")).unwrap();
        assert_eq!(content(held.open()), "own");
        assert_eq!(
            fixture.root.hold(&names, &facts[1]).unwrap().list().unwrap(),
            [(b"own".to_vec(), Some(crate::path::FileType::File))]
        );
        assert_eq!(fixture.root.hold(&link, &facts[2]).unwrap().link_text().unwrap(), b"own");
        // Only a file is opened as one.
        assert!(fixture.root.hold(&names, &facts[1]).unwrap().open().is_err());
        assert!(fixture.root.hold(&link, &facts[2]).unwrap().open().is_err());
        assert!(fixture.root.hold(&link, &facts[2]).unwrap().list().is_err());
    }

    #[track_caller]
    fn is_gone(fixture: &Fixture, at: &str, facts: &Facts) {
        let (at, error) = (path(at), |error: RootError| error.source.raw_os_error());
        assert_eq!(fixture.root.hold(&at, facts).map_err(error).err(), Some(Some(libc::ENOENT)), "{at}");
    }

    #[test]
    fn nothing_that_was_put_in_its_place() {
        let fixture = Fixture::new();
        let own =
            ["file", "names", "link"].map(|name| (format!("/own/{name}"), fixture.facts(&format!("/own/{name}"))));
        fs_err::rename(fixture.at("own"), fixture.at("moved")).unwrap();
        // Through a link it is not found, wherever that leads.
        for target in ["closed", "moved"] {
            symlink(target, fixture.at("own")).unwrap();
            for (at, facts) in &own {
                is_gone(&fixture, at, facts);
                is_gone(&fixture, at, &fixture.facts(at));
            }
            fs_err::remove_file(fixture.at("own")).unwrap();
        }
        fs_err::write(fixture.at("own"), "").unwrap();
        is_gone(&fixture, "/own/file", &own[0].1);
        fs_err::remove_file(fixture.at("own")).unwrap();
        fs_err::rename(fixture.at("closed"), fixture.at("own")).unwrap();
        for (at, facts) in &own {
            is_gone(&fixture, at, facts);
        }
        fs_err::remove_file(fixture.at("own/file")).unwrap();
        is_gone(&fixture, "/own/file", &own[0].1);
        nix::unistd::mkfifo(&fixture.at("own/file"), Mode::S_IRWXU).unwrap();
        is_gone(&fixture, "/own/file", &own[0].1);
    }

    #[test]
    fn behind_more_than_the_kernel_takes_at_once() {
        let fixture = Fixture::new();
        let name = "n".repeat(200);
        let mut at = open(fixture.directory.path(), OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        let mut long = JailPath::root();
        for _ in 0..30 {
            nix::sys::stat::mkdirat(&at, name.as_str(), Mode::S_IRWXU).unwrap();
            at = nix::fcntl::openat(&at, name.as_str(), OFlag::O_DIRECTORY, Mode::empty()).unwrap();
            long = long.join(name.as_bytes());
        }
        let facts = Facts::from_stat(&fstat(&at).unwrap()).unwrap();
        assert!(fixture.root.hold(&long, &facts).unwrap().list().unwrap().is_empty());
        fs_err::rename(fixture.at(&name), fixture.at("moved")).unwrap();
        symlink("moved", fixture.at(&name)).unwrap();
        assert!(fixture.root.lstat(&long).unwrap().is_some());
        assert!(fixture.root.hold(&long, &facts).is_err());
    }

    #[test]
    fn leases_that_are_in_a_readers_way() {
        let locks = "1: FLOCK  ADVISORY  WRITE 25347 fe:00:11 0 EOF\n\
                     2: LEASE  ACTIVE    WRITE 123 fe:00:12 0 EOF\n\
                     3: LEASE  ACTIVE    READ 123 fe:00:13 0 EOF\n\
                     4: LEASE  BREAKING  READ 123 00:2a:14 0 EOF\n\
                     5: LEASE  BREAKING  UNLCK 123 fe:00:15 0 EOF\n\
                     6: DELEG  ACTIVE    WRITE 123 fe:00:16 0 EOF\n\
                     7: POSIX  ADVISORY  WRITE 1 fe:00:17 0 EOF\n\
                     7: -> POSIX  ADVISORY  WRITE 1 fe:00:17 0 EOF\n\
                     8: LEASE";
        assert_eq!(leased_inodes(locks).collect::<Vec<_>>(), [12, 14, 15, 16]);
        let file = tempfile::tempfile().unwrap();
        let facts = Facts::from_stat(&fstat(&file).unwrap()).unwrap();
        assert!(!is_leased(&OwnedFd::from(file), &facts));
        assert!(Root::open(Path::new("/")).unwrap().hold(&path("/proc/locks"), &facts).is_err());
    }
}
