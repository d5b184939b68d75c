//! The interpreters of what is executed, which the kernel opens by itself.
//!
//! In: where the path led that is executed. Out: the interpreter that a script or an ELF file names, the interpreter's own, and
//! so on, told as if the task had executed them. Each file that names one is read each time: its times and its size do not
//! tell that its content is as it was (a mapping that is written to leaves them alone), and its numbers are another file's
//! on another mount. A loader names none, so its path is known once it was walked, as that of an open is. What the kernel
//! itself does with a name is in [`script`](crate::script).

use std::fs::File;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use crate::TraceError;
use crate::decode;
use crate::engine::Engine;
use crate::event::{Access, Found, Walk};
use crate::inspect::Asking;
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

    /// What is open at `descriptor` is about to be executed; `end` is its path, if it has one.
    pub(crate) fn executing_open(&mut self, asking: Asking, descriptor: i32, end: Vec<u8>) -> Result<(), TraceError> {
        let (is_read, named) = if self.is_mount_served(asking.task, descriptor) {
            (true, self.walker.foreseen.interpreter(&end))
        } else {
            let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
            let file = open(format!("/proc/{}/fd/{descriptor}", asking.task).as_str(), flags, Mode::empty());
            (is_read(&file), file.ok().and_then(|file| interpreter(&File::from(file))))
        };
        self.programs.insert(asking.process, Program { asking, end, is_read });
        self.interpreters(asking, named)
    }

    /// The interpreter that a file names, if that is what `walk` leads to.
    pub(crate) fn interpreter_of(&mut self, asking: Asking, place: &Place, walk: &Walk) -> Option<Interpreter> {
        let (is_read, named) = match place.lies(&walk.end) {
            Lies::Elsewhere => match image(&place.reach(asking.task, &walk.end), &walk.found) {
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
            let place = match self.start(asking.task, decode::From::WorkingDirectory, settled) {
                Ok((place, _)) => place,
                Err(errno) => return self.hidden(asking.process, errno),
            };
            let from = if interpreter.starts_with(b"/") { &place.root } else { &place.directory };
            let loader = ("loader", place.namespace, place.root.as_slice(), from.as_slice(), &*interpreter);
            if is_loader && !self.known.is_new(loader) {
                return Ok(());
            }
            let asker = Asker { process: asking.process, task: asking.task, place: &place };
            let Walked { walk, is_personal, .. } = self.walker.walk(asker, from, &interpreter, true, settled);
            if self.walker.is_waiting() {
                self.known.forget(loader);
                return Ok(());
            }
            let question = ("interpreter", place.namespace, place.root.as_slice(), &*interpreter, walk.end.as_slice());
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
    /// interpreters that the kernel has put before it.
    pub(crate) fn has_executed(
        &mut self,
        process: i32,
        arguments: &[Vec<u8>],
        loaded: &[Vec<u8>],
    ) -> Result<(), TraceError> {
        let Some(program) = self.programs.remove(&process) else { return Ok(()) };
        let is_expected = |program: &Program| program.is_read && loaded.contains(&program.end);
        if is_expected(&program) {
            return Ok(());
        }
        // It may have been another thread that called.
        let asking = Asking { task: process, process, ..program.asking };
        let Ok(place) = self.places.of(process, false) else { return Ok(()) };
        if !program.is_read {
            let found = self.found(process, &program.end);
            let walk = Walk { links: Vec::new(), passed: Vec::new(), end: program.end, found, by_descriptor: false };
            self.executing(asking, &place, &walk)?;
            match self.programs.remove(&process) {
                Some(program) if is_expected(&program) => return Ok(()),
                Some(program) if program.is_read => {}
                _ => return self.hidden(process, Errno::EWOULDBLOCK),
            }
        }
        self.handlers(asking, &place, arguments, loaded)?;
        self.programs.remove(&process);
        Ok(())
    }

    /// The interpreters that stand in `arguments`: the kernel puts each before the file that it interprets, also one that is
    /// registered for a kind of files (`fs/binfmt_misc.c`, `load_misc_binary`), which may be a script.
    fn handlers(
        &mut self,
        asking: Asking,
        place: &Place,
        arguments: &[Vec<u8>],
        loaded: &[Vec<u8>],
    ) -> Result<(), TraceError> {
        let asker = Asker { process: asking.process, task: asking.task, place };
        let mut script_for: Option<&[u8]> = None;
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
            let Some((index, spelled, walk)) = found else { return Ok(()) };
            self.tell_touch(asking, place, Access::Execute, spelled, &walk)?;
            self.executing(asking, place, &walk)?;
            script_for = Some(spelled);
            rest = &rest[index + 1..];
        }
        Ok(())
    }
}

/// False where somebody has a lease on the file, so that to read it would wait for that one (`fcntl(2)`, "Leases"), or where
/// this process has no descriptor left, or no memory: none of that keeps the kernel from reading it.
fn is_read<T>(opened: &Result<T, Errno>) -> bool {
    !matches!(opened, Err(Errno::EWOULDBLOCK | Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM))
}

/// The file at `path`, if there is one, or what is behind a door of a `/proc`.
fn image(path: &[u8], found: &Found) -> Result<Option<File>, Errno> {
    let Found::There(stat) = found else { return Ok(None) };
    // Which the kernel refuses before it looks into it, also for root (`execve(2)`, EACCES).
    if stat.st_mode & libc::S_IFMT == libc::S_IFREG && stat.st_mode & 0o111 == 0 {
        return Ok(None);
    }
    let flags = match stat.st_mode & libc::S_IFMT {
        libc::S_IFREG => OFlag::O_NOFOLLOW,
        // What is executed follows links: only a door that leads to no path is still one.
        libc::S_IFLNK => OFlag::empty(),
        _ => return Ok(None),
    };
    let flags = flags | OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    // open(2): O_NOATIME is for the owner alone.
    let file = open(path, flags | OFlag::O_NOATIME, Mode::empty());
    file.or_else(|_| open(path, flags, Mode::empty())).map(|file| Some(File::from(file)))
}

/// The interpreter that what `walk` leads to names, if it can be read.
pub(crate) fn named(asker: Asker<'_>, walk: &Walk) -> Option<Interpreter> {
    image(&asker.place.reach(asker.task, &walk.end), &walk.found).ok()?.and_then(|file| interpreter(&file))
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
