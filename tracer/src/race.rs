//! What others may do while a call is under way.
//!
//! The kernel reads a path after the tracer has, so another thread can change it in between; and who shares a working
//! directory (threads, and what `CLONE_FS` made) can move it. What was used is then told as well as what was read.
//!
//! Who replaces a link while others open something through it makes two files of one path: both are told, where the path led
//! before the change, and where it leads after it.
//!
//! Asking at a call's return what became of it costs a second stop. That is paid only where it can matter: for a call
//! that opens or changes something, whose path does not stand in the caller's own stack frames, in a process with several
//! threads or in memory that processes share; and for one that opens by a descriptor in a process with threads. What this
//! does not cover: a call that only asks, of which the path that was read is told; memory that processes share on Linux
//! older than 6.11, or because one was made with `CLONE_VM`; and a pointer into another thread's stack frames.

use std::collections::HashMap;
use std::sync::Arc;

use crate::TraceError;
use crate::engine::Engine;
use crate::event::{Access, Found, Gap};
use crate::inspect::{Asking, Use};
use crate::place::Place;
use crate::walk::Asker;
use crate::{memory, sys};

/// A path this near to the end of a task's stack is in a function's own memory, which no other thread knows of.
const OWN_STACK: u64 = 1 << 17;

/// A call under way whose path another thread may rewrite.
#[derive(Debug)]
pub(crate) enum Raced {
    /// It opens something; `end` is where its path led when it was read.
    Opening { asking: Asking, access: Access, end: Vec<u8> },
    /// It changes something.
    Changing { asking: Asking, paths: Vec<Changing> },
}

/// A path of a call that changes something.
#[derive(Debug)]
pub(crate) struct Changing {
    pub(crate) address: u64,
    pub(crate) used: Use,
    /// As it was read.
    pub(crate) spelled: Vec<u8>,
    /// Where it led then.
    pub(crate) end: Vec<u8>,
}

/// Who moves, and who is on a way that starts from where they stand.
#[derive(Debug, Default)]
pub(crate) struct Races {
    /// Processes that are no threads of each other have one working directory.
    processes_share: bool,
    /// Tasks in a call that changes the working directory, and to which.
    entering: HashMap<i32, Vec<u8>>,
    /// Tasks in a call with a path that is relative to it.
    under_way: HashMap<i32, Relative>,
    /// What tasks are about to open.
    opening: HashMap<i32, Opening>,
    /// What may have been opened while names were changing: before the change, or after it.
    suspects: Vec<Opening>,
}

/// A path that is about to be opened, and where from.
#[derive(Debug, Clone)]
struct Opening {
    asking: Asking,
    used: Use,
    place: Arc<Place>,
    from: Vec<u8>,
    spelled: Vec<u8>,
}

/// A relative path as a call uses it.
#[derive(Debug, Clone)]
struct Relative {
    asking: Asking,
    used: Use,
    spelled: Vec<u8>,
}

impl Races {
    /// `maker` has made the process `task`.
    pub(crate) fn born(&mut self, task: i32, maker: i32) {
        self.processes_share |= sys::share_directory(task, maker);
    }

    /// The last call of `task` is over.
    pub(crate) fn settle(&mut self, task: i32) {
        if !self.entering.is_empty() {
            self.entering.remove(&task);
        }
        if !self.under_way.is_empty() {
            self.under_way.remove(&task);
        }
        if !self.opening.is_empty() {
            self.opening.remove(&task);
        }
    }

    /// `task` is about to change names: what others are about to open may lead elsewhere by then.
    pub(crate) fn names_change(&mut self, task: i32) {
        self.suspects.extend(self.opening.iter().filter(|(other, _)| **other != task).map(|(_, open)| open.clone()));
    }
}

impl Engine<'_> {
    /// True if other threads, or processes, may rewrite what stands at `address`.
    pub(crate) fn is_shared(&mut self, asking: Asking, address: u64) -> bool {
        if self.machine.is_single() {
            return false;
        }
        let is_threaded = self.machine.is_threaded(asking.process);
        if address.wrapping_sub(asking.stack) <= OWN_STACK {
            // Above the first frames stand the arguments, which all threads know.
            return is_threaded && asking.task == asking.process && self.places.is_argument(asking.process, address);
        }
        is_threaded || self.places.is_memory_shared(asking.task, address)
    }

    /// What became of a call that has returned.
    pub(crate) fn verify(&mut self, raced: Raced) -> Result<(), TraceError> {
        match raced {
            Raced::Opening { asking, access, end } => self.opened(asking, access, &end),
            Raced::Changing { asking, paths } => {
                let has_changed = matches!(sys::syscall_result(asking.task), Ok(Some(_)));
                paths.into_iter().try_for_each(|path| self.changed(asking, path, has_changed))
            }
        }
    }

    /// A call that has opened something tells what it is.
    fn opened(&mut self, asking: Asking, access: Access, end: &[u8]) -> Result<(), TraceError> {
        let Ok(Some(descriptor)) = sys::syscall_result(asking.task) else { return Ok(()) };
        let Ok(descriptor) = i32::try_from(descriptor) else { return Ok(()) };
        let Ok(open) = self.places.descriptor(asking.task, descriptor) else { return Ok(()) };
        if open.path == end || open.is_deleted || !open.path.starts_with(b"/") {
            return Ok(());
        }
        // What it was before is no longer to be seen; devices do not change.
        let is_file =
            matches!(self.found(&open.path), Found::There(stat) if stat.st_mode & libc::S_IFMT == libc::S_IFREG);
        if is_file && loses(access) {
            self.gap(asking.process, Gap::Rewritten)?;
        }
        self.open_at(asking, descriptor, open.path, access)
    }

    /// A path that is another one by now may have been used in the place of the first.
    fn changed(&mut self, asking: Asking, path: Changing, has_changed: bool) -> Result<(), TraceError> {
        let Changing { address, used, spelled, end } = path;
        let access = used.access;
        if memory::read_string(asking.task, address, &mut self.spelled).is_err() {
            return Ok(());
        }
        if self.spelled == spelled {
            // Rewritten, and once more: what was to be removed is still there.
            let is_removal = access == Access::Remove && !asking.entry.call.name.starts_with("rename");
            let is_there = is_removal && has_changed && matches!(self.found(&end), Found::There(_));
            return if is_there { self.gap(asking.process, Gap::Rewritten) } else { Ok(()) };
        }
        if has_changed && loses(access) {
            self.gap(asking.process, Gap::Rewritten)?;
            // What the call itself may have made was not there before it.
            if matches!(access, Access::Create | Access::Replace) {
                return Ok(());
            }
        }
        self.touch(asking, Use { verify: false, ..used }).map(drop)
    }

    /// The task is about to make `directory` its working directory: who shares it may find itself there.
    pub(crate) fn entering(&mut self, asking: Asking, directory: &[u8]) -> Result<(), TraceError> {
        if !self.may_share(asking) {
            return Ok(());
        }
        self.races.entering.insert(asking.task, directory.to_vec());
        let others = self.races.under_way.values().filter(|way| way.asking.task != asking.task);
        let others: Vec<Relative> = others.filter(|way| shares(way.asking, asking)).cloned().collect();
        for Relative { asking, used, spelled } in others {
            let Ok(place) = self.places.of(asking.task, false) else { continue };
            // It runs already.
            if loses(used.access) {
                self.gap(asking.process, Gap::Rewritten)?;
            }
            self.tell_from(asking, used, &place, directory, &spelled)?;
        }
        Ok(())
    }

    /// The task uses a path that is relative to its working directory, which others may be about to change.
    pub(crate) fn relative(
        &mut self,
        asking: Asking,
        used: Use,
        place: &Place,
        spelled: &[u8],
    ) -> Result<(), TraceError> {
        if !self.may_share(asking) {
            return Ok(());
        }
        let movers = self.races.entering.iter().filter(|&(&mover, _)| mover != asking.task);
        let process = |mover: i32| self.machine.process_of(mover);
        let movers = movers
            .filter(|&(&mover, _)| process(mover) == Some(asking.process) || sys::share_directory(mover, asking.task));
        let directories: Vec<Vec<u8>> = movers.map(|(_, directory)| directory.clone()).collect();
        for directory in directories {
            self.tell_from(asking, used, place, &directory, spelled)?;
        }
        self.races.under_way.insert(asking.task, Relative { asking, used, spelled: spelled.to_vec() });
        Ok(())
    }

    /// The task is about to open something, which others may be about to replace.
    pub(crate) fn opening(&mut self, asking: Asking, used: Use, place: &Arc<Place>, from: &[u8], spelled: &[u8]) {
        if self.machine.is_single() {
            return;
        }
        let place = Arc::clone(place);
        let opening = Opening { asking, used, place, from: from.to_vec(), spelled: spelled.to_vec() };
        if self.known.are_names_changing() {
            self.races.suspects.push(opening.clone());
        }
        self.races.opening.insert(asking.task, opening);
    }

    /// Names have changed: what was about to be opened meanwhile is told as it is now, too.
    pub(crate) fn names_changed(&mut self) -> Result<(), TraceError> {
        let suspects = std::mem::take(&mut self.races.suspects);
        for suspect in &suspects {
            let Opening { asking, used, place, from, spelled } = suspect;
            let asker = Asker { process: asking.process, task: asking.task, place };
            let walk = self.walker.walk(asker, from, spelled, used.follow, false).walk;
            let is_there = matches!(walk.found, Found::There(_));
            if is_there && self.known.is_new(("reopened", used.access, spelled.as_slice(), walk.end.as_slice())) {
                self.tell_touch(*asking, place, used.access, spelled, &walk)?;
            }
        }
        if self.known.are_names_changing() {
            self.races.suspects = suspects;
        }
        Ok(())
    }

    fn may_share(&self, asking: Asking) -> bool {
        self.races.processes_share || self.machine.is_threaded(asking.process)
    }

    /// Tells where `spelled` leads from another directory than the one that the task stands in now.
    fn tell_from(
        &mut self,
        asking: Asking,
        used: Use,
        place: &Place,
        directory: &[u8],
        spelled: &[u8],
    ) -> Result<(), TraceError> {
        let question = (used.access, used.follow, place.namespace, place.root.as_slice(), directory, spelled);
        if !self.known.is_new(question) {
            return Ok(());
        }
        let asker = Asker { process: asking.process, task: asking.task, place };
        let walk = self.walker.walk(asker, directory, spelled, used.follow, false).walk;
        self.tell_touch(asking, place, used.access, spelled, &walk)
    }
}

/// True if what was there before such an access may be lost after it.
fn loses(access: Access) -> bool {
    matches!(access, Access::Write | Access::Create | Access::Remove | Access::Replace)
}

fn shares(one: Asking, other: Asking) -> bool {
    one.process == other.process || sys::share_directory(one.task, other.task)
}
