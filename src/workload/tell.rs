//! What the director is told of a program: where it listens, what it looked for in vain, and what it found.
//!
//! In: the tracer's events. Out: words, in the order of the events. What was found is told once a path; what was missing as
//! often as it was looked for.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use minjail_tracer::{Access, Event, Found, Touch};
use nix::sys::stat::SFlag;

use super::wire::{Sought, Word};
use crate::elf;
use crate::files::OMITTED;
use crate::path::{JailPath, escape};

/// What was told so far.
pub(super) struct Teller {
    /// Where everything is there, nobody asks what was found.
    in_jail: bool,
    /// The program that each process runs.
    programs: HashMap<i32, String>,
    found: HashSet<JailPath>,
}

impl Teller {
    pub(super) fn new(in_jail: bool) -> Self {
        Self { in_jail, programs: HashMap::new(), found: HashSet::new() }
    }

    /// What the director wants to know of an event. The tracer has the program's own view of the files.
    pub(super) fn words(&mut self, event: &Event<'_>) -> Vec<Word> {
        match event {
            Event::Exec { process, loaded, .. } => {
                let program = loaded.first().map(|path| escape(path)).unwrap_or_default();
                self.programs.insert(*process, program);
                Vec::new()
            }
            Event::Fork { parent, child } => {
                let same = self.programs.get(parent).cloned().unwrap_or_default();
                self.programs.insert(*child, same);
                Vec::new()
            }
            Event::Listen { port, protocol, .. } => vec![Word::Listening { port: *port, protocol: *protocol }],
            Event::Touch(touch) => {
                let bound = (touch.access == Access::Bind).then_some(Word::Bound);
                bound.into_iter().chain(self.touch(touch)).collect()
            }
            Event::Exit { .. } | Event::Moved { .. } | Event::Account { .. } | Event::Gap { .. } => Vec::new(),
        }
    }

    fn touch(&mut self, touch: &Touch<'_>) -> Vec<Word> {
        let program = || self.programs.get(&touch.process).cloned().unwrap_or_default();
        match &touch.walk.found {
            Found::Missing => {
                // A name that a listing showed stands in a jail as a link to nowhere: what was looked for is then that name, and not where it leads.
                let links = &touch.walk.links;
                let left_out = links.last().filter(|_| touch.walk.end == OMITTED.as_bytes());
                let end = left_out.map_or(&touch.walk.end, |link| &link.path);
                let missed = JailPath::parse(end).map(|path| Word::Missed(Sought { path, program: program() }));
                missed.into_iter().collect()
            }
            Found::There(stat) if self.in_jail => {
                let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
                let make: fn(Sought) -> Word = match (kind, touch.access) {
                    (SFlag::S_IFREG, _) => Word::Met,
                    (SFlag::S_IFDIR, Access::List) => Word::Listed,
                    _ => return Vec::new(),
                };
                let mut words = Vec::new();
                if touch.access == Access::Execute {
                    words.extend(missing_loader(&touch.walk.end).map(Word::Missed));
                }
                let path = JailPath::parse(&touch.walk.end).ok();
                if let Some(path) = path.filter(|path| !self.found.contains(path)) {
                    words.push(make(Sought { path: path.clone(), program: program() }));
                    self.found.insert(path);
                }
                words
            }
            Found::There(_) | Found::Unknown(_) => Vec::new(),
        }
    }
}

/// The loader that the kernel opens to execute the ELF file `program`, if it is not there: no call names it, and all that the
/// caller hears is that the program is not there (`execve(2)`, ENOENT). Of scripts the tracer tells.
fn missing_loader(program: &[u8]) -> Option<Sought> {
    let file = fs_err::File::open(Path::new(OsStr::from_bytes(program))).ok()?;
    let loader = elf::read_file(file.file()).ok()?.interpreter?;
    let is_missing = !Path::new(OsStr::from_bytes(&loader)).exists();
    let path = JailPath::parse(&loader).ok().filter(|_| is_missing)?;
    Some(Sought { path, program: escape(program) })
}
