//! The interpreters of what is executed, which the kernel opens by itself.
//!
//! In: where the path led that is executed. Out: the interpreter that a script or an ELF file names, the interpreter's own, and
//! so on, told as if the task had executed them. Each file that names one is read each time: its times and its size do not
//! tell that its content is as it was (a mapping that is written to leaves them alone), and its numbers are another file's
//! on another mount. A loader names none, so its path is known once it was walked, as that of an open is. What the kernel
//! itself does with a name is in [`script`](crate::script).

use std::borrow::Cow;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::{FileStat, Mode, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use crate::TraceError;
use crate::decode;
use crate::engine::Engine;
use crate::event::{Access, Found, Walk};
use crate::handlers::Handler;
use crate::inspect::Asking;
use crate::look;
use crate::names::parent;
use crate::place::Place;
use crate::script;
use crate::served::Lies;
use crate::walk::{Asker, Walked};

/// What a file names as its interpreter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interpreter {
    pub(crate) path: Vec<u8>,
    /// It is an ELF file's loader, of which the kernel asks for no interpreter (`fs/binfmt_elf.c`, `load_elf_interp`).
    pub(crate) is_loader: bool,
}

/// What a process is about to run, as far as it could be read beforehand.
#[derive(Debug)]
pub(crate) struct Program {
    asking: Asking,
    /// The file that the kernel will load, without what is behind it (an ELF file's loader).
    end: Vec<u8>,
    /// False where the tracer could not read what the kernel will.
    is_read: bool,
}

impl Engine<'_> {
    /// What `walk` leads to is about to be executed: the kernel opens the interpreter that it names, and the interpreter's own.
    pub(crate) fn executing(&mut self, asking: Asking, place: &Place, walk: &Walk) -> Result<(), TraceError> {
        let named = self.interpreter_of(asking, place, walk);
        self.interpreters(asking, named)
    }

    /// What is about to be executed lies behind a door of a `/proc` and has no path, as a memfd, or a file that was removed: it names an
    /// interpreter all the same. What is no such door is a link that somebody has just put there.
    pub(crate) fn executing_door(&mut self, asking: Asking, place: &Place, walk: &Walk) -> Result<(), TraceError> {
        let Ok(Some(file)) = image(place, asking.task, walk) else { return Ok(()) };
        self.programs.insert(asking.process, Program { asking, end: walk.end.clone(), is_read: true });
        self.interpreters(asking, interpreter(&file))
    }

    /// What is open at `descriptor` is about to be executed; `end` is its path, if it has one.
    pub(crate) fn executing_open(&mut self, asking: Asking, descriptor: i32, end: Vec<u8>) -> Result<(), TraceError> {
        let (is_read, named) = if self.is_mount_served(asking.task, descriptor) {
            (true, self.walker.foreseen.interpreter(&end))
        } else {
            let door = format!("/proc/{}/fd/{descriptor}", asking.task);
            let file = open(door.as_str(), HOLD, Mode::empty()).and_then(|node| content(&node));
            (is_read(&file), file.ok().flatten().and_then(|file| interpreter(&file)))
        };
        self.programs.insert(asking.process, Program { asking, end, is_read });
        self.interpreters(asking, named)
    }

    /// The interpreter that a file names, if that is what `walk` leads to.
    pub(crate) fn interpreter_of(&mut self, asking: Asking, place: &Place, walk: &Walk) -> Option<Interpreter> {
        let (is_read, named) = match place.lies(&walk.end) {
            Lies::Elsewhere => match image(place, asking.task, walk) {
                Ok(file) => (true, file.and_then(|file| interpreter(&file))),
                failed => (is_read(&failed), None),
            },
            _ => (true, self.walker.foreseen.interpreter(&walk.end)),
        };
        self.programs.insert(asking.process, Program { asking, end: walk.end.clone(), is_read });
        named
    }

    fn interpreters(&mut self, asking: Asking, first: Option<Interpreter>) -> Result<(), TraceError> {
        let mut named = first;
        for _ in 0..=script::LEVELS {
            let Some(Interpreter { path: interpreter, is_loader }) = named else { return Ok(()) };
            // A relative one is relative to the working directory of whoever executes (`fs/binfmt_script.c`).
            let settled = self.known.is_settled();
            self.spelled.clone_from(&interpreter);
            let (place, start) = match self.start(asking.task, decode::From::WorkingDirectory) {
                Ok(start) => start,
                Err(errno) => return self.hidden(asking.process, errno),
            };
            let from = if interpreter.starts_with(b"/") { &place.root } else { start.of(&place) };
            let loader = ("loader", place.names(), from, &*interpreter);
            if is_loader && !self.known.is_new(loader) {
                return Ok(());
            }
            let asker = Asker { process: asking.process, task: asking.task, place: &place };
            let Walked { walk, is_personal, .. } = self.walker.walk(asker, from, &interpreter, true, settled);
            if self.walker.is_waiting() {
                self.known.forget(loader);
                return Ok(());
            }
            let question = ("interpreter", place.names(), &*interpreter, walk.end.as_slice());
            if self.known.is_new(question) {
                self.tell_touch(asking, &place, Access::Execute, &interpreter, &walk)?;
            }
            let is_missing = matches!(walk.found, Found::Missing);
            if is_missing {
                self.known.forget(question);
            }
            if is_missing || is_personal {
                self.known.forget(loader);
            }
            named = if is_loader { None } else { self.interpreter_of(asking, &place, &walk) };
        }
        Ok(())
    }

    /// `process` runs what is `loaded` now, under these arguments: what could not be read beforehand is told, and the
    /// interpreters that the kernel has put before it. The one of these that it holds open, if there is one.
    pub(crate) fn has_executed(
        &mut self,
        process: i32,
        arguments: &[Vec<u8>],
        loaded: &[Vec<u8>],
    ) -> Result<Option<Vec<u8>>, TraceError> {
        let Some(program) = self.programs.remove(&process) else { return Ok(None) };
        let is_expected = |program: &Program| program.is_read && loaded.contains(&program.end);
        if is_expected(&program) {
            return Ok(None);
        }
        // It may have been another thread that called.
        let asking = Asking { task: process, process, ..program.asking };
        let Ok(place) = self.places.of(process, false) else { return Ok(None) };
        if !program.is_read {
            let found = self.found(process, &program.end);
            let walk = Walk::bare(program.end, found, false);
            self.executing(asking, &place, &walk)?;
            match self.programs.remove(&process) {
                Some(program) if is_expected(&program) => return Ok(None),
                Some(program) if program.is_read => {}
                _ => return self.hidden(process, Errno::EWOULDBLOCK).map(|()| None),
            }
        }
        let held = self.handlers(asking, &place, arguments, loaded)?;
        self.programs.remove(&process);
        Ok(held)
    }

    /// The interpreters that stand in `arguments`: the kernel puts each before the file that it interprets, also one that is
    /// registered for a kind of files (`fs/binfmt_misc.c`, `load_misc_binary`), which may be a script. One that the kernel holds open is
    /// looked for nowhere, but its own interpreter is; its path, if it is what runs.
    fn handlers(
        &mut self,
        asking: Asking,
        place: &Place,
        arguments: &[Vec<u8>],
        loaded: &[Vec<u8>],
    ) -> Result<Option<Vec<u8>>, TraceError> {
        let asker = Asker { process: asking.process, task: asking.task, place };
        let handlers = Handler::all().unwrap_or_default();
        let is_held = |spelled: &[u8]| handlers.iter().any(|one| one.is_held && one.interpreter == spelled);
        let (mut held, mut script_for) = (None, None::<&[u8]>);
        let mut rest = arguments;
        for _ in 0..=script::LEVELS {
            // What runs comes first; then the script that it runs, behind an argument or none, and so on.
            let mut candidates = rest.iter().take(if script_for.is_some() { 2 } else { 1 }).enumerate();
            let found = candidates.find_map(|(index, spelled)| {
                let walk = self.walker.walk(asker, &place.directory, spelled, true, false).walk;
                let is_it = match script_for {
                    None => loaded.contains(&walk.end),
                    Some(interpreter) => {
                        named(asker, &walk).is_some_and(|named| named.path == interpreter && !named.is_loader)
                    }
                };
                is_it.then_some((index, spelled, walk))
            });
            let Some((index, spelled, walk)) = found else { break };
            if !is_held(spelled) {
                self.tell_touch(asking, place, Access::Execute, spelled, &walk)?;
            } else if script_for.is_none() {
                held = Some(walk.end.clone());
            }
            self.executing(asking, place, &walk)?;
            script_for = Some(spelled);
            rest = &rest[index + 1..];
        }
        Ok(held)
    }
}

/// False where somebody has a lease on the file, so that to read it would wait for that one (`fcntl(2)`, "Leases"), where
/// another is there by now, or where this process has no descriptor left, or no memory: none of that keeps the kernel from reading it.
fn is_read<T>(opened: &Result<T, Errno>) -> bool {
    let is_stale = matches!(opened, Err(Errno::ENOENT | Errno::ESTALE | Errno::ELOOP));
    !is_stale && !matches!(opened, Err(Errno::EWOULDBLOCK | Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM))
}

/// Whatever it is, to hold it is not to open it (`open(2)`, `O_PATH`): no device hears of that, and no FIFO.
const HOLD: OFlag = OFlag::O_PATH.union(OFlag::O_CLOEXEC);

/// The file that `walk` leads to, if there is one, or what is behind a door of a `/proc`. The program can put another in its
/// place, to which it may have no right: `ESTALE` then, or `ELOOP` where a link leads there.
fn image(place: &Place, task: i32, walk: &Walk) -> Result<Option<File>, Errno> {
    let Found::There(stat) = &walk.found else { return Ok(None) };
    match stat.st_mode & libc::S_IFMT {
        // Which the kernel refuses before it looks into it, also for root (`execve(2)`, EACCES).
        libc::S_IFREG if stat.st_mode & 0o111 == 0 => Ok(None),
        libc::S_IFREG => file(place, task, &walk.end, stat),
        // What is executed follows links: only a door that leads to no path is still one.
        libc::S_IFLNK => {
            let (directory, name) = walk.end.split_at(parent(&walk.end).len());
            let directory = hold(place, task, directory)?;
            if fstatfs(&directory)?.filesystem_type() != PROC_SUPER_MAGIC {
                return Err(Errno::ESTALE);
            }
            content(&openat(&directory, name.strip_prefix(b"/").unwrap_or(name), HOLD, Mode::empty())?)
        }
        _ => Ok(None),
    }
}

/// The regular file at `path`, of which `stat` was told.
pub(crate) fn file(place: &Place, task: i32, path: &[u8], stat: &FileStat) -> Result<Option<File>, Errno> {
    let node = hold(place, task, path)?;
    if look::is_same(&fstat(&node)?, stat) { content(&node) } else { Err(Errno::ESTALE) }
}

/// What `task` has at `path`, which is free of links.
fn hold(place: &Place, task: i32, path: &[u8]) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new().flags(HOLD | OFlag::O_NOFOLLOW).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    match place.reach(task, path) {
        Cow::Borrowed(path) => openat2(AT_FDCWD, path, how),
        // The door to the task's own view is a link itself.
        Cow::Owned(reached) => {
            let (door, below) = place.split(task, &reached);
            openat2(open(door.as_str(), HOLD, Mode::empty())?, &*[b".", below].concat(), how)
        }
    }
}

/// Opens what is held for reading, if it is a regular file.
fn content(node: &OwnedFd) -> Result<Option<File>, Errno> {
    if fstat(node)?.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Ok(None);
    }
    let door = format!("/proc/self/fd/{}", node.as_raw_fd());
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    // open(2): O_NOATIME is for the owner alone.
    let file = open(door.as_str(), flags | OFlag::O_NOATIME, Mode::empty());
    file.or_else(|_| open(door.as_str(), flags, Mode::empty())).map(|file| Some(File::from(file)))
}

/// The interpreter that what `walk` leads to names, if it can be read.
pub(crate) fn named(asker: Asker<'_>, walk: &Walk) -> Option<Interpreter> {
    image(asker.place, asker.task, walk).ok()?.and_then(|file| interpreter(&file))
}

/// The interpreter that a script or an ELF file names.
fn interpreter(file: &File) -> Option<Interpreter> {
    let mut head = [0; script::HEAD];
    let length = file.read_at(&mut head, 0).ok()?;
    let head = &head[..length];
    if head.starts_with(b"#!") {
        return script::interpreter(head).map(|path| Interpreter { path: path.to_vec(), is_loader: false });
    }
    let loader = script::elf_interpreter(&|offset, buffer| match head.get(usize::try_from(offset).ok()?..) {
        Some(rest) if rest.len() >= buffer.len() => {
            buffer.copy_from_slice(&rest[..buffer.len()]);
            Some(())
        }
        _ => file.read_exact_at(buffer, offset).ok(),
    });
    loader.map(|path| Interpreter { path, is_loader: true })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn walk(path: &std::path::Path) -> Walk {
        let end = path.as_os_str().as_bytes().to_vec();
        let found = Found::There(Box::new(look::lstat(&end).unwrap()));
        Walk::bare(end, found, false)
    }

    fn read(walk: &Walk) -> Result<Option<Interpreter>, Errno> {
        image(&Place::default(), 1, walk).map(|file| file.and_then(|file| interpreter(&file)))
    }

    #[test]
    fn only_what_was_walked_to_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for place in ["own", "closed"] {
            fs_err::create_dir(at(place)).unwrap();
            fs_err::write(at(place).join("script"), format!("#!/{place}\n")).unwrap();
            fs_err::set_permissions(at(place).join("script"), PermissionsExt::from_mode(0o755)).unwrap();
        }
        let own = walk(&at("own/script"));
        let named = |path: &[u8]| Some(Interpreter { path: path.to_vec(), is_loader: false });
        assert_eq!(read(&own), Ok(named(b"/own")));

        fs_err::rename(at("own"), at("moved")).unwrap();
        assert_eq!(read(&own), Err(Errno::ENOENT));
        symlink("closed", at("own")).unwrap();
        assert_eq!(read(&own), Err(Errno::ELOOP));
        // Also where the look at it had been led there.
        assert_eq!(read(&walk(&at("own/script"))), Err(Errno::ELOOP));
        fs_err::remove_file(at("own")).unwrap();
        fs_err::rename(at("closed"), at("own")).unwrap();
        assert_eq!(read(&own), Err(Errno::ESTALE));
        fs_err::remove_file(at("own/script")).unwrap();
        nix::unistd::mkfifo(&at("own/script"), Mode::S_IRWXU).unwrap();
        assert_eq!(read(&own), Err(Errno::ESTALE));
        // A link is followed only as a door of a /proc.
        symlink("../moved/script", at("own/link")).unwrap();
        assert_eq!(read(&walk(&at("own/link"))), Err(Errno::ESTALE));
        let script = fs_err::File::open(at("moved/script")).unwrap();
        let door = format!("/proc/{}/fd/{}", std::process::id(), script.as_raw_fd());
        assert_eq!(read(&walk(std::path::Path::new(&door))), Ok(named(b"/own")));
    }
}
