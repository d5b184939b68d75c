//! The interpreters of what is executed, which the kernel opens by itself.
//!
//! In: where the path led that is executed. Out: the interpreter that a script or an ELF file names, the interpreter's own, and
//! so on, told as if the task had executed them. Each file that names one is read each time: its times and its size do not
//! tell that its content is as it was (a mapping that is written to leaves them alone), and its numbers are another file's
//! on another mount. A loader names none, so its path is known once it was walked, as that of an open is. What the kernel itself does with a name is in [`script`](crate::script).

use std::fs::File;
use std::os::unix::fs::FileExt;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use crate::TraceError;
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

impl Engine<'_> {
    /// The interpreter that a file names, if that is what `walk` leads to.
    pub(crate) fn interpreter_of(&self, place: &Place, walk: &Walk) -> Option<Interpreter> {
        match place.lies(&walk.end) {
            Lies::Elsewhere => image(walk).and_then(|file| interpreter(&file)),
            _ => self.walker.foreseen.interpreter(&walk.end),
        }
    }

    /// The interpreter of what is executed, and the interpreter's own: the kernel opens them by itself.
    pub(crate) fn interpreters(&mut self, asking: Asking, first: Option<Interpreter>) -> Result<(), TraceError> {
        let mut named = first;
        for _ in 0..=script::LEVELS {
            let Some(Interpreter { path: interpreter, is_loader }) = named else { return Ok(()) };
            // A relative one is relative to the working directory of whoever executes (`fs/binfmt_script.c`).
            let settled = self.known.is_settled();
            let place = match self.places.of(asking.task, settled) {
                Ok(place) => place,
                Err(errno) => return self.hidden(asking.process, errno),
            };
            let from = if interpreter.starts_with(b"/") { &place.root } else { &place.directory };
            let loader = ("loader", place.namespace, place.root.as_slice(), from.as_slice(), &*interpreter);
            if is_loader && !self.known.is_new(loader) {
                return Ok(());
            }
            let asker = Asker { process: asking.process, task: asking.task, place: &place };
            let Walked { walk, is_personal, .. } = self.walker.walk(asker, from, &interpreter, true, settled);
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
            named = if is_loader { None } else { self.interpreter_of(&place, &walk) };
        }
        Ok(())
    }
}

/// A file that is there and can be read, or what is behind a door of a `/proc`.
pub(crate) fn image(walk: &Walk) -> Option<File> {
    let Found::There(stat) = &walk.found else { return None };
    let flags = match stat.st_mode & libc::S_IFMT {
        libc::S_IFREG => OFlag::O_NOFOLLOW,
        // What is executed follows links: only a door that leads to no path is still one.
        libc::S_IFLNK => OFlag::empty(),
        _ => return None,
    };
    let flags = flags | OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    // open(2): O_NOATIME is for the owner alone.
    let file = open(walk.end.as_slice(), flags | OFlag::O_NOATIME, Mode::empty());
    file.or_else(|_| open(walk.end.as_slice(), flags, Mode::empty())).ok().map(File::from)
}

/// The interpreter that a script or an ELF file names.
pub(crate) fn interpreter(file: &File) -> Option<Interpreter> {
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
