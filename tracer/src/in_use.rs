//! Paths in use while names change.
//!
//! In: what each call under way was handed; that a call is about to change names, or that it has. Out: what was in use meanwhile, told
//! as well as it is after the change. Who replaces a link while others go through it makes two files of one path: both
//! are told, where the path led before, and where it leads then. Not so what a call under way has itself changed: what stands
//! there then is its own doing.
//!
//! What a server that is not traced would have to be asked is not looked at, unless somebody changes names there: else whoever
//! changes names elsewhere would wait for it. Until it is reached, the way is compared.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::TraceError;
use crate::decode::From;
use crate::engine::Engine;
use crate::event::{Access, Found, Gap, Walk};
use crate::foresight::is_unasked;
use crate::inspect::{Asking, Use};
use crate::known::Change;
use crate::look;
use crate::names::parent;
use crate::place::Place;
use crate::proc;
use crate::served::Lies;
use crate::sys::Inode;
use crate::walk::Asker;

/// So many are remembered while names change. More are a gap.
const MOST: usize = 1 << 16;

/// A path that a call is about to use, and where from.
#[derive(Debug, Clone)]
struct InUse {
    /// The call is over, and this is kept for its memory alone.
    is_over: bool,
    asking: Asking,
    used: Use,
    place: Arc<Place>,
    from: Vec<u8>,
    spelled: Vec<u8>,
    /// Where it led before names changed.
    end: Vec<u8>,
    /// The directory there, if the call changes a name in it.
    directory: Option<Inode>,
}

impl InUse {
    fn new(asking: Asking, used: Use, place: Arc<Place>) -> Self {
        let (from, spelled, end) = (Vec::new(), Vec::new(), Vec::new());
        Self { is_over: true, asking, used, place, from, spelled, end, directory: None }
    }

    fn question(&self) -> Question {
        let Use { access, follow, .. } = self.used;
        let Place { namespace, root, behind, .. } = &*self.place;
        let behind = behind.as_ref().map(|behind| behind.inode);
        (access, follow, *namespace, behind, root.clone(), self.from.clone(), self.spelled.clone())
    }

    /// The directory in which the call itself is to change the name `end`; `None` if it is not, or if somebody would have to be
    /// asked.
    fn changed_directory(&self, end: &[u8]) -> Option<Inode> {
        let Self { asking, used: Use { access, .. }, place, .. } = self;
        let is_its_own = *access != Access::Enter && Change::of(&asking.entry, *access) == Some(Change::Names);
        if !is_its_own || place.lies(end) != Lies::Elsewhere || place.is_remote(end) {
            return None;
        }
        look::known(&place.reach(asking.task, parent(end))).ok()
    }

    /// The same task uses another path.
    fn renew(&mut self, asking: Asking, used: Use, place: &Arc<Place>, from: &[u8], spelled: &[u8]) {
        self.is_over = false;
        (self.asking, self.used) = (asking, used);
        self.place.clone_from(place);
        for (own, new) in [(&mut self.from, from), (&mut self.spelled, spelled)] {
            own.clear();
            own.extend_from_slice(new);
        }
    }
}

/// What is the same for the same path in the same place: access, following of links, mount namespace, what that is behind, root,
/// start, spelling.
type Question = (Access, bool, Option<u64>, Option<Inode>, Vec<u8>, Vec<u8>, Vec<u8>);

/// What tasks use.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    /// In the calls that are under way, or in their last ones.
    current: HashMap<i32, InUse>,
    /// While names are changing: before the change, or after it.
    suspects: BTreeMap<Question, InUse>,
    /// A process of which more could not be remembered.
    untold: Option<i32>,
    /// Names are changing on a file system of a server that is not traced.
    is_remote: bool,
}

impl Uses {
    /// The last call of `task` is over.
    pub(crate) fn settle(&mut self, task: i32) {
        if !self.current.is_empty()
            && let Some(used) = self.current.get_mut(&task)
        {
            used.is_over = true;
        }
    }

    /// `task` is gone.
    pub(crate) fn remove(&mut self, task: i32) {
        self.current.remove(&task);
    }

    /// Names are about to change on a file system of a server that is not traced, which answers.
    pub(crate) fn change_remote(&mut self) {
        self.is_remote = true;
    }
}

impl Engine<'_> {
    /// The task is about to use a path, and others may be about to change where it leads.
    pub(crate) fn uses(&mut self, asking: Asking, used: Use, place: &Arc<Place>, from: &[u8], spelled: &[u8]) {
        if self.machine.is_single() {
            return;
        }
        let fresh = || InUse::new(asking, used, Arc::clone(place));
        let in_use = self.races.uses.current.entry(asking.task).or_insert_with(fresh);
        in_use.renew(asking, used, place, from, spelled);
        // What its own call has done with one path already says nothing of the other.
        if self.known.do_others_change_names(asking.task) {
            let in_use = in_use.clone();
            self.suspect(in_use);
        }
    }

    /// `task` is about to change names: what others use may lead elsewhere by then.
    pub(crate) fn names_change(&mut self, task: i32) {
        let mut others = Vec::new();
        for (&other, in_use) in self.races.uses.current.iter_mut().filter(|(other, _)| **other != task) {
            in_use.is_over = in_use.is_over || proc::is_elsewhere(other, in_use.asking.entry.number);
            if !in_use.is_over {
                others.push(in_use.clone());
            }
        }
        for in_use in others {
            self.suspect(in_use);
        }
    }

    /// `task` is not about to do that yet, after all.
    pub(crate) fn names_stay(&mut self, task: i32) {
        self.known.settle(task);
        if !self.known.are_names_changing() {
            self.places.views.change(false);
            self.races.uses.suspects.clear();
            self.races.uses.is_remote = false;
        }
    }

    fn suspect(&mut self, mut in_use: InUse) {
        let question = in_use.question();
        let suspects = &self.races.uses.suspects;
        if suspects.contains_key(&question) {
            return;
        }
        if suspects.len() >= MOST {
            self.races.uses.untold = Some(in_use.asking.process);
            return;
        }
        in_use.end = self.walk_of(&in_use, self.races.uses.is_remote).end;
        in_use.directory = in_use.changed_directory(&in_use.end);
        self.races.uses.suspects.insert(question, in_use);
    }

    /// Takes in where the task stands by now, if that was a place of its own: others may have moved its root, or mounted something.
    fn renew_place(&mut self, in_use: &mut InUse) {
        let InUse { asking, used, place, .. } = in_use;
        if place.strays || matches!(used.from, From::Root(_)) {
            return;
        }
        // One that is gone stood where the rest of its process stands.
        let now = self.place(asking.task).or_else(|_| self.place(asking.process));
        if let Some(now) = now.ok().filter(|now| now.namespace == place.namespace) {
            *place = now;
        }
    }

    /// `asks`: also servers that are not traced.
    fn walk_of(&mut self, in_use: &InUse, asks: bool) -> Walk {
        let InUse { asking, used, place, from, spelled, .. } = in_use;
        let asker = Asker { process: asking.process, task: asking.task, place };
        // What the call that is looked into waits for is its own.
        let wanted = std::mem::replace(&mut self.walker.wanted, (!asks).then(Vec::new));
        let walk = self.walker.walk(asker, from, spelled, used.follow, false).walk;
        self.walker.wanted = wanted;
        walk
    }

    /// Names have changed: what was in use meanwhile is told as it is now, too.
    pub(crate) fn names_changed(&mut self) -> Result<(), TraceError> {
        if let Some(process) = self.races.uses.untold.take() {
            self.gap(process, Gap::Rewritten)?;
        }
        let asks = self.races.uses.is_remote;
        let mut suspects = std::mem::take(&mut self.races.uses.suspects);
        for suspect in suspects.values_mut() {
            self.renew_place(suspect);
            let mut walk = self.walk_of(suspect, asks);
            let InUse { asking, used, place, spelled, end, directory, .. } = &*suspect;
            if is_unasked(&walk.found) && walk.end != *end {
                walk = self.walk_of(suspect, true);
            }
            // Others who change a name there are told by themselves.
            if walk.end == *end && directory.is_some() && suspect.changed_directory(end) == *directory {
                continue;
            }
            let is_there = matches!(walk.found, Found::There(_));
            if is_there && self.known.is_new(("reopened", used.access, spelled.as_slice(), walk.end.as_slice())) {
                // What it was before is no longer to be seen, if the call has run.
                if used.access.loses() && walk.end != *end {
                    self.gap(asking.process, Gap::Rewritten)?;
                }
                self.tell_touch(*asking, place, used.access, spelled, &walk)?;
                if used.access == Access::Execute {
                    self.executing(*asking, place, &walk)?;
                }
            }
        }
        if self.known.are_names_changing() {
            self.races.uses.suspects = suspects;
        } else {
            self.races.uses.is_remote = false;
        }
        Ok(())
    }
}
