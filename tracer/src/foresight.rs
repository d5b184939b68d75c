//! Looks that may have to wait for others, taken while tasks go on.
//!
//! What a task asks for may lie on a file system that another task serves (see `served`). A tracer that looked there
//! itself would wait for a task that waits for the tracer. So before such a call is looked into, all that it would ask of the
//! server is asked on a thread of its own; the call waits as long as it would anyway, and everything else goes on. Then it
//! is looked into with these answers at hand.
//!
//! Or it may lie on one that somebody serves who is not traced (see `remote`). There only the tasks that have nothing to do
//! with it would wait in vain. A look that is new is first taken on a thread; once that has an answer, the call is looked into
//! as any other.
//!
//! The same goes for a path in memory that a file is mapped to which the program serves, and, once it may fill memory itself when
//! that is read (`userfaultfd(2)`), for any memory.
//!
//! What was not foreseen, because somebody has changed the path or the mounts meanwhile, is a gap.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use nix::unistd::read;

use crate::decode::{self, Asked, From};
use crate::engine::Engine;
use crate::event::{Access, Found};
use crate::inspect::Asking;
use crate::interpreters::{Interpreter, file, named};
use crate::memory::{self, Unread};
use crate::place::Place;
use crate::script;
use crate::served::{Lies, UNASKED};
use crate::sys;
use crate::walk::{Asker, Walked, Walker};

/// A call is looked into anew after so many looks at most: each can show where another one leads.
const ROUNDS: usize = 8;

/// So many pieces of memory one call may refer to: `sendmmsg(2)` takes 1,024 messages, each with a name.
const MOST_PIECES: usize = 4096;

/// A longest path, and a page more.
const REACH: usize = 2 * memory::PATH_MAX;

/// A look that is wanted.
#[derive(Debug)]
pub(crate) enum Wanted {
    /// Where a path leads; if it is to be executed, with the interpreters that it names. And if it `opens` what is there, whether that
    /// can be read: whoever is told may do that.
    Walk { way: Way, place: Arc<Place>, executes: bool, opens: bool },
    /// A part of the task's memory, which is a file's, or which the program may fill.
    Memory { address: u64 },
}

/// A path, and how it is walked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Way {
    pub(crate) root: Vec<u8>,
    pub(crate) from: Vec<u8>,
    pub(crate) spelled: Vec<u8>,
    pub(crate) follow: bool,
}

/// What is known of a call beforehand.
#[derive(Debug, Default)]
pub(crate) struct Foreseen {
    walks: HashMap<Way, Walked>,
    /// The interpreters that files name, by path.
    interpreters: HashMap<Vec<u8>, Option<Interpreter>>,
    memory: HashSet<u64>,
    rounds: usize,
}

impl Foreseen {
    pub(crate) fn walk(&self, way: &Way) -> Option<Walked> {
        self.walks.get(way).cloned()
    }

    /// What stands at `path`, which has no links on its way.
    pub(crate) fn found(&self, path: &[u8]) -> Found {
        let walked = self.walk(&Way::to(path));
        walked.map_or(Found::Unknown(UNASKED), |walked| walked.walk.found)
    }

    pub(crate) fn interpreter(&self, path: &[u8]) -> Option<Interpreter> {
        self.interpreters.get(path).cloned().flatten()
    }
}

impl Way {
    /// To what is known by its whole path.
    fn to(path: &[u8]) -> Self {
        Self { root: b"/".to_vec(), from: b"/".to_vec(), spelled: path.to_vec(), follow: false }
    }
}

/// Looks for one call.
#[derive(Debug)]
pub(crate) struct Looks {
    pub(crate) task: i32,
    process: i32,
    wanted: Vec<Wanted>,
    foreseen: Foreseen,
}

impl Looks {
    /// Takes them.
    pub(crate) fn take(mut self) -> Foreseen {
        for wanted in std::mem::take(&mut self.wanted) {
            match wanted {
                Wanted::Walk { way, place, executes, opens } => self.walk(way, &place, executes, opens),
                Wanted::Memory { address } => {
                    // What is read here is in the kernel's memory afterwards, and needs no server any more.
                    let mut piece = [0; REACH];
                    let ends = (memory::PAGE - address % memory::PAGE) as usize;
                    for end in [ends, ends + memory::PAGE as usize].into_iter().filter(|&end| end <= REACH) {
                        let _ = memory::read(self.task, address, &mut piece[..end]);
                    }
                    self.foreseen.memory.insert(address);
                }
            }
        }
        self.foreseen
    }

    fn walk(&mut self, way: Way, place: &Place, executes: bool, opens: bool) {
        let place = place.unguarded();
        let asker = Asker { process: self.process, task: self.task, place: &place };
        let mut walker = Walker::default();
        let (mut way, mut levels) = (way, if executes { 1 + script::LEVELS } else { 0 });
        loop {
            let walked = walker.walk(asker, &way.from, &way.spelled, way.follow, false);
            let end = walked.walk.end.clone();
            if let Found::There(stat) = &walked.walk.found
                && opens
                && let Ok(Some(file)) = file(&place, self.task, &end, stat)
            {
                let _ = read(&file, &mut [0]);
            }
            let named = if levels == 0 { None } else { named(asker, &walked.walk) };
            self.foreseen.walks.insert(way, walked);
            if levels == 0 {
                return;
            }
            self.foreseen.interpreters.insert(end, named.clone());
            let Some(Interpreter { path: spelled, is_loader }) = named else { return };
            levels = if is_loader { 0 } else { levels - 1 };
            way = Way { root: place.root.clone(), from: place.directory.clone(), spelled, follow: true };
        }
    }
}

impl Engine<'_> {
    /// The looks that a call needs beforehand, if any.
    pub(crate) fn foresee(&mut self, asking: Asking) -> Option<Looks> {
        let is_enough = self.walker.foreseen.rounds >= ROUNDS || self.walker.foreseen.memory.len() >= MOST_PIECES;
        if !(self.places.may_wait() || self.places.maps.are_filled()) || is_enough {
            return None;
        }
        self.walker.wanted = Some(Vec::new());
        self.places.maps.open(asking.task);
        let mut all = Vec::new();
        let mut wanted = Vec::new();
        let waits = std::cell::RefCell::new(Vec::new());
        let read = |address: u64, buffer: &mut [u8]| {
            if self.waits_for_memory(asking.task, address) {
                waits.borrow_mut().push(Wanted::Memory { address });
                return Err(Unread::Refused);
            }
            memory::read(asking.task, address, buffer)
        };
        // What cannot be read is told when the call is looked into.
        let _ = decode::decode(&asking.entry, &read, &mut |asked| all.push(asked));
        wanted.append(&mut waits.into_inner());
        for asked in all {
            self.want(asking, asked, &mut wanted);
        }
        self.walker.wanted = None;
        self.looks(asking, wanted)
    }

    /// From now on, looks may be wanted of those that others serve who are not traced.
    pub(crate) fn may_wait(&mut self) {
        let may_wait = self.places.has_remote() && self.walker.foreseen.rounds < ROUNDS;
        self.walker.wanted = may_wait.then(Vec::new);
    }

    /// The looks that were wanted since, if any.
    pub(crate) fn waits_for(&mut self, asking: Asking) -> Option<Looks> {
        let call = asking.entry.call;
        let (executes, opens) = (call.executes(), call.opens() || call.changes());
        let ways = self.walker.wanted.take()?.into_iter();
        let wanted = ways.map(|(way, place)| Wanted::Walk { way, place: Arc::new(place), executes, opens }).collect();
        self.looks(asking, wanted)
    }

    fn looks(&mut self, asking: Asking, wanted: Vec<Wanted>) -> Option<Looks> {
        if wanted.is_empty() {
            return None;
        }
        let mut foreseen = std::mem::take(&mut self.walker.foreseen);
        foreseen.rounds += usize::from(wanted.iter().any(|wanted| matches!(wanted, Wanted::Walk { .. })));
        Some(Looks { task: asking.task, process: asking.process, wanted, foreseen })
    }

    /// What of the task's memory is a file's that the program serves, or may be filled by it, and has not been read yet.
    fn waits_for_memory(&self, task: i32, address: u64) -> bool {
        let may_wait = || self.places.maps.are_filled() || self.places.is_memory_served(task, address);
        !self.walker.foreseen.memory.contains(&address) && may_wait()
    }

    /// True if what is open at `descriptor` of `task`, or its working directory, is on what the program may serve.
    pub(crate) fn is_mount_served(&self, task: i32, descriptor: i32) -> bool {
        let door = match descriptor {
            libc::AT_FDCWD => format!("/proc/{task}/cwd"),
            descriptor => format!("/proc/{task}/fd/{descriptor}"),
        };
        let served = self.places.served.table();
        served.is_some_and(|served| sys::known_inode(&door).is_ok_and(|inode| served.serves(inode.device)))
    }

    fn want(&mut self, asking: Asking, asked: Asked, wanted: &mut Vec<Wanted>) {
        match asked {
            Asked::Path { from, address, access, follow } if address != 0 => {
                if self.waits_for_memory(asking.task, address) {
                    wanted.push(Wanted::Memory { address });
                    return;
                }
                let mut spelled = Vec::new();
                match memory::read_string(asking.task, address, &mut spelled) {
                    Ok(()) if !spelled.is_empty() => self.want_walk(asking, from, spelled, access, follow, wanted),
                    Ok(()) => {
                        if let From::Descriptor(descriptor) = from {
                            self.want_descriptor(asking, descriptor, access, wanted);
                        }
                    }
                    Err(_) => {}
                }
            }
            Asked::Path { from: From::Descriptor(descriptor), address: 0, access, .. }
                if decode::allows_none(&asking.entry) =>
            {
                self.want_descriptor(asking, descriptor, access, wanted);
            }
            Asked::MountSource { address, kind, .. } => {
                self.want_memory(asking, [kind], wanted);
                self.want(asking, Asked::look(address), wanted);
            }
            Asked::MountOptions { kind, options } => self.want_memory(asking, [kind, options], wanted),
            Asked::MountOption { name, value } => self.want_memory(asking, [name, value], wanted),
            Asked::Handle { address, .. } | Asked::Probe { address, .. } => {
                self.want_memory(asking, [address], wanted);
            }
            Asked::Inline { path, access, follow } => {
                self.want_walk(asking, From::WorkingDirectory, path, access, follow, wanted);
            }
            Asked::Descriptor { descriptor, access } => self.want_descriptor(asking, descriptor, access, wanted),
            _ => {}
        }
    }

    fn want_memory<const COUNT: usize>(&self, asking: Asking, at: [u64; COUNT], wanted: &mut Vec<Wanted>) {
        let waits = at.into_iter().filter(|&address| address != 0 && self.waits_for_memory(asking.task, address));
        wanted.extend(waits.map(|address| Wanted::Memory { address }));
    }

    fn want_descriptor(&mut self, asking: Asking, descriptor: i32, access: Access, wanted: &mut Vec<Wanted>) {
        let Ok(open) = self.places.descriptor(asking.task, descriptor) else { return };
        let place = Place { root: b"/".to_vec(), directory: b"/".to_vec(), ..Place::default() };
        let lies = self.places.served.table().map_or(Lies::Elsewhere, |table| table.lies(&open.path));
        let way = Way::to(&open.path);
        if lies != Lies::Elsewhere && !self.walker.foreseen.walks.contains_key(&way) {
            wanted.push(Wanted::Walk {
                way,
                place: Arc::new(place),
                executes: access == Access::Execute,
                opens: false,
            });
        }
    }

    fn want_walk(
        &mut self,
        asking: Asking,
        from: From,
        spelled: Vec<u8>,
        access: Access,
        follow: bool,
        wanted: &mut Vec<Wanted>,
    ) {
        self.spelled = spelled;
        let Ok((place, from)) = self.start(asking.task, from) else { return };
        // What is in no place of ours is a gap, wherever it leads.
        if place.namespace.is_some() || place.behind.is_some() {
            return;
        }
        let from = from.of(&place).to_vec();
        let mut executes = access == Access::Execute;
        let mut way = Way { root: place.root.clone(), from, spelled: std::mem::take(&mut self.spelled), follow };
        for _ in 0..=script::LEVELS {
            let asker = Asker { process: asking.process, task: asking.task, place: &place };
            let walk = self.walker.walk(asker, &way.from, &way.spelled, way.follow, false).walk;
            if matches!(walk.found, Found::Unknown(UNASKED)) {
                wanted.push(Wanted::Walk { way, place, executes, opens: false });
                return;
            }
            let named = if executes { self.interpreter_of(asking, &place, &walk) } else { None };
            let Some(Interpreter { path: spelled, is_loader }) = named else { return };
            way = Way { root: place.root.clone(), from: place.directory.clone(), spelled, follow: true };
            executes = !is_loader;
        }
    }
}

/// True for what a walk ended at because it would have had to wait.
pub(crate) fn is_unasked(found: &Found) -> bool {
    matches!(found, Found::Unknown(errno) if *errno == UNASKED)
}
