//! The interpreters of what is executed, which the kernel opens by itself.
//!
//! In: where the path led that is executed. Out: the interpreter that a script or an ELF file names, the interpreter's own, and
//! so on, told as if the task had executed them. What a file names is remembered as long as the file stays as it is: a shell runs
//! the same few over and over. What the kernel itself does with a name is in [`script`](crate::script).

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, SystemTime};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{FileStat, Mode};

use crate::TraceError;
use crate::engine::Engine;
use crate::event::{Access, Found, Walk};
use crate::inspect::Asking;
use crate::place::Place;
use crate::script;
use crate::served::Lies;
use crate::walk::Asker;

/// A file in one state: its device, inode, size and time of last change.
type State = (u64, u64, i64, (i64, i64));

/// So many files are remembered.
const LIMIT: usize = 1 << 12;

/// A change of a file shows in its times only when the clock of these has ticked since the last one: some milliseconds
/// (`current_time` in `fs/inode.c`), or on some file systems two seconds.
const TICK: Duration = Duration::from_secs(3);

/// What files name as their interpreters.
#[derive(Debug, Default)]
pub(crate) struct Named {
    by_state: HashMap<State, Option<Vec<u8>>>,
}

impl Named {
    /// The interpreter that the file names which `walk` leads to.
    fn by(&mut self, walk: &Walk) -> Option<Vec<u8>> {
        let state = settled(walk);
        if let Some(named) = state.and_then(|state| self.by_state.get(&state)) {
            return named.clone();
        }
        let file = image(walk)?;
        let named = interpreter(&file);
        if let Some(state) = state {
            if self.by_state.len() >= LIMIT {
                self.by_state.clear();
            }
            self.by_state.insert(state, named.clone());
        }
        named
    }
}

/// The state of a regular file, if any change since would have made it another one.
#[expect(clippy::disallowed_methods, reason = "the clock decides only whether a file is read again")]
fn settled(walk: &Walk) -> Option<State> {
    let Found::There(stat) = &walk.found else { return None };
    let changed = Duration::new(u64::try_from(stat.st_ctime).ok()?, u32::try_from(stat.st_ctime_nsec).ok()?);
    let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + changed).ok()?;
    let is_file = stat.st_mode & libc::S_IFMT == libc::S_IFREG;
    (is_file && age > TICK).then(|| state(stat))
}

fn state(stat: &FileStat) -> State {
    (stat.st_dev, stat.st_ino, stat.st_size, (stat.st_ctime, stat.st_ctime_nsec))
}

impl Engine<'_> {
    /// The interpreter that a file names, if that is what `walk` leads to.
    pub(crate) fn interpreter_of(&mut self, place: &Place, walk: &Walk) -> Option<Vec<u8>> {
        match place.lies(&walk.end) {
            Lies::Elsewhere => self.named.by(walk),
            _ => self.walker.foreseen.interpreter(&walk.end),
        }
    }

    /// The interpreter of what is executed, and the interpreter's own: the kernel opens them by itself.
    pub(crate) fn interpreters(&mut self, asking: Asking, first: Option<Vec<u8>>) -> Result<(), TraceError> {
        let mut named = first;
        for _ in 0..=script::LEVELS {
            let Some(interpreter) = named else { return Ok(()) };
            // A relative one is relative to the working directory of whoever executes (`fs/binfmt_script.c`).
            let settled = self.known.is_settled();
            let place = match self.places.of(asking.task, settled) {
                Ok(place) => place,
                Err(errno) => return self.hidden(asking.process, errno),
            };
            let asker = Asker { process: asking.process, task: asking.task, place: &place };
            let walk = self.walker.walk(asker, &place.directory, &interpreter, true, settled).walk;
            let interpreter = interpreter.as_slice();
            if self.known.is_new(("interpreter", place.root.as_slice(), interpreter, walk.end.as_slice())) {
                self.tell_touch(asking, &place, Access::Execute, interpreter, &walk)?;
            }
            named = self.interpreter_of(&place, &walk);
        }
        Ok(())
    }
}

/// A file that is there and can be read, or what is behind a door of `/proc`.
pub(crate) fn image(walk: &Walk) -> Option<File> {
    let Found::There(stat) = &walk.found else { return None };
    let flags = match stat.st_mode & libc::S_IFMT {
        libc::S_IFREG => OFlag::O_NOFOLLOW,
        libc::S_IFLNK if walk.end.starts_with(b"/proc/") => OFlag::empty(),
        _ => return None,
    };
    let flags = flags | OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    // open(2): O_NOATIME is for the owner alone.
    let file = open(walk.end.as_slice(), flags | OFlag::O_NOATIME, Mode::empty());
    file.or_else(|_| open(walk.end.as_slice(), flags, Mode::empty())).ok().map(File::from)
}

/// The interpreter that a script or an ELF file names.
pub(crate) fn interpreter(file: &File) -> Option<Vec<u8>> {
    let mut head = [0; script::HEAD];
    let length = file.read_at(&mut head, 0).ok()?;
    let head = &head[..length];
    if head.starts_with(b"#!") {
        return script::interpreter(head).map(<[u8]>::to_vec);
    }
    script::elf_interpreter(&|offset, buffer| match head.get(usize::try_from(offset).ok()?..) {
        Some(rest) if rest.len() >= buffer.len() => {
            buffer.copy_from_slice(&rest[..buffer.len()]);
            Some(())
        }
        _ => file.read_exact_at(buffer, offset).ok(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    fn walk(path: &std::path::Path) -> Walk {
        let found = Found::There(Box::new(nix::sys::stat::lstat(path).unwrap()));
        Walk { links: Vec::new(), passed: Vec::new(), end: path.as_os_str().as_bytes().to_vec(), found }
    }

    #[test]
    fn what_was_written_just_now_may_change_without_a_sign() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("script");
        let mut named = Named::default();
        for interpreter in ["/bin/one", "/bin/two"] {
            fs_err::write(&script, format!("#!{interpreter}\n")).unwrap();
            assert_eq!(named.by(&walk(&script)), Some(interpreter.as_bytes().to_vec()));
        }
        assert!(named.by_state.is_empty());
    }

    #[test]
    fn what_stays_as_it_is_is_read_once() {
        let walk = walk(&fs_err::canonicalize("/bin/sh").unwrap());
        let mut named = Named::default();
        let first = named.by(&walk);
        assert!(first.is_some());
        // As if the file were another one: what is known of this state is told.
        named.by_state.values_mut().for_each(|known| *known = Some(b"/known".to_vec()));
        assert_eq!(named.by(&walk), Some(b"/known".to_vec()));
    }
}
