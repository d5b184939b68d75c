//! Where a path leads that a call uses, walked and told.
//!
//! In: the path as its task has spelled it, and what the call is about to do with it. Out: where it leads, told unless it is known to have
//! been. What else a call asks for is in [`inspect`](crate::inspect).

use std::cell::Cell;
use std::hash::Hash;
use std::sync::Arc;

use nix::errno::Errno;

use crate::TraceError;
use crate::calls::Kind;
use crate::changed::Stands;
use crate::decode::{self, Entry, From};
use crate::engine::Engine;
use crate::event::{Access, Event, Found, Gap, Touch, Walk};
use crate::foresight::is_unasked;
use crate::inspect::{Asking, Use};
use crate::known::Change;
use crate::place::Place;
use crate::proc;
use crate::race::Led;
use crate::served::Lies;
use crate::start::Start;
use crate::walk::{Asker, Blocked, Onward, Walked};
use crate::{filesystem, look, memory};

/// So many times a path may go on in another place: to one and back there is a link on the way at least, and the kernel does not follow
/// the 41st (`path_resolution(7)`).
const MOST_PLACES: usize = 82;

/// A path that a call uses, or what is left of one, and from where it goes.
#[derive(Clone, Copy)]
struct Way<'a> {
    asking: Asking,
    used: Use,
    place: &'a Arc<Place>,
    from: &'a Start,
    spelled: &'a [u8],
    /// Through so many further places it may go.
    turns: usize,
}

impl<'a> Way<'a> {
    /// As what it is remembered: where the same has led, it leads again.
    fn question(self) -> impl Hash + Copy + use<'a> {
        let Use { access, follow, .. } = self.used;
        let names = (self.place.names(), self.from.of(self.place), self.spelled);
        (access, self.asking.entry.call.sets_times(), follow, names)
    }

    /// True for all of the path that the call was given.
    fn is_whole(self) -> bool {
        self.turns == MOST_PLACES
    }
}

/// What is known of a way from earlier calls.
#[derive(Clone, Copy)]
struct Memory {
    is_new: bool,
    /// It has led to nothing.
    was_missing: bool,
    is_to_be_walked: bool,
}

/// How far a path has come.
enum Reached {
    /// Its end, and which, if that is to be opened or verified; or as far as it can be gone.
    End(Option<Led>),
    /// The task stands elsewhere by now, where the path leads elsewhere.
    Start,
}

impl Engine<'_> {
    /// A path that is known by other means than the task's spelling; it has no links.
    pub(crate) fn at(&mut self, asking: Asking, path: Vec<u8>, access: Access) -> Result<(), TraceError> {
        let place = match self.place(asking.task) {
            Ok(place) => place,
            Err(errno) => return self.hidden(asking.process, errno),
        };
        self.at_in(asking, &place, path, access)
    }

    pub(crate) fn at_in(
        &mut self,
        asking: Asking,
        place: &Place,
        path: Vec<u8>,
        access: Access,
    ) -> Result<(), TraceError> {
        let question = (access, asking.entry.call.sets_times(), place.namespace);
        if self.known.is_new((question, path.as_slice())) || asking.entry.call.moves() {
            let found = self.found_in(asking.task, place, &path);
            let by_descriptor = access == Access::Attributes;
            let walk = Walk::bare(path, found, by_descriptor);
            self.tell_touch(asking, place, access, &[], &walk)?;
            if std::mem::take(&mut self.telling.again) {
                self.known.forget((question, walk.end.as_slice()));
            }
        }
        Ok(())
    }

    /// Walks `self.spelled` and tells where it leads, unless that is known. Gives it back if that is to be opened or verified.
    pub(crate) fn touch(&mut self, asking: Asking, used: Use) -> Result<Option<Led>, TraceError> {
        loop {
            let (place, from) = match self.start(asking.task, used.from) {
                Ok(start) => start,
                Err(errno) => return self.hidden(asking.process, errno).map(|()| None),
            };
            let spelled = std::mem::take(&mut self.spelled);
            let way = Way { asking, used, place: &place, from: &from, spelled: &spelled, turns: MOST_PLACES };
            let reached = self.go(way);
            self.spelled = spelled;
            match reached? {
                Reached::Start => {}
                Reached::End(led) => return Ok(led),
            }
        }
    }

    /// Goes a way to its end, and keeps in mind what the call may change there.
    fn go(&mut self, way: Way<'_>) -> Result<Reached, TraceError> {
        let Way { asking, used, place, from, spelled, .. } = way;
        let (mut change, mut is_remote) = (Change::of(&asking.entry, used.access), false);
        let mut reached = Reached::End(None);
        let memory = self.remembered(way);
        if memory.is_to_be_walked {
            let (mut walked, has_moved) = self.walk(way);
            if self.walker.is_waiting() {
                if memory.is_new {
                    self.known.forget(way.question());
                }
                return Ok(reached);
            }
            if way.is_whole() && self.sees_others(asking.task, place) {
                return Ok(Reached::Start);
            }
            if let Some((next, onward)) = self.next(asking, place, &walked.walk, walked.stop, walked.onward.take()) {
                return self.cross(way, walked.walk, &next, onward);
            }
            if used.access == Access::Remove && is_link(&walked.walk.found) {
                change = Some(Change::Names);
            }
            is_remote = place.is_remote(&walked.walk.end);
            let led = self.arrive(way, memory, &walked)?;
            reached = if has_moved { Reached::Start } else { Reached::End(led) };
        }
        if matches!(from, Start::WorkingDirectory) && !spelled.starts_with(b"/") {
            self.relative(asking, used, place, spelled)?;
        }
        self.uses(asking, used, place, from.of(place), spelled);
        if is_remote && change == Some(Change::Names) {
            self.races.uses.change_remote();
        }
        if let Some(change) = change {
            self.unsettle(asking.task, change);
        }
        Ok(reached)
    }

    /// What is known of a way that was gone before.
    fn remembered(&mut self, way: Way<'_>) -> Memory {
        let (entry, access) = (&way.asking.entry, way.used.access);
        // Both paths of a call that moves something belong together.
        let is_new = self.known.is_new(way.question()) || entry.call.moves();
        let was_missing = !is_new && self.known.was_missing(way.question());
        // What is executed has an interpreter, which may be another one by now, and what was there may be made anew.
        let is_asked = way.used.verify
            || matches!(access, Access::Enter | Access::Execute)
            || access.makes()
            // Others may be about to do the same, and are to know of it.
            || (access == Access::Remove && !self.machine.is_single());
        Memory { is_new, was_missing, is_to_be_walked: is_new || was_missing || is_asked }
    }

    /// Walks it; true if the task has moved meanwhile, so that it leads somewhere else.
    fn walk(&mut self, way: Way<'_>) -> (Walked, bool) {
        let Way { asking, used, place, from, spelled, .. } = way;
        let Asking { task, process, entry, .. } = asking;
        let (asker, settled) = (Asker { process, task, place }, self.known.is_settled());
        let mut has_moved = false;
        let mut walked = self.walker.walk(asker, from.of(place), spelled, used.follow, settled);
        let is_remembered =
            settled && way.is_whole() && !matches!(used.from, From::Root(_)) && from.is_in(place, spelled);
        if is_remembered && matches!(walked.walk.found, Found::Missing) {
            has_moved = self.has_moved(task, place);
            // That took its time, and what is missing may be made at any moment: the last look is the nearest to the call.
            walked = self.walker.walk(asker, from.of(place), spelled, used.follow, settled);
        }
        if let (Kind::OpenHow, None, None) = (&entry.call.kind, place.namespace, &place.behind) {
            let resolve = decode::resolve(&entry, &|address, buffer| memory::read(task, address, buffer));
            walked = walked.kept_to(resolve, from.of(place), spelled, |end| self.found_in(task, place, end));
        }
        (walked, has_moved)
    }

    /// True if something was mounted or unmounted since `place` was looked at: what a walk has found may be on one mount, and be told
    /// as what is below it.
    fn sees_others(&mut self, task: i32, place: &Arc<Place>) -> bool {
        let is_looked_at = place.view.is_some() && !place.strays && self.known.do_others_change_names(task);
        is_looked_at && self.place(task).is_ok_and(|now| now.namespace == place.namespace && now.view != place.view)
    }

    /// The same way from where it has left its place, at the end of `walk`.
    fn cross(&mut self, way: Way<'_>, walk: Walk, next: &Arc<Place>, onward: Onward) -> Result<Reached, TraceError> {
        self.known.forget(way.question());
        let Some(turns) = way.turns.checked_sub(1) else { return Ok(Reached::End(None)) };
        let Onward { at, from, spelled } = onward;
        let walk = Walk { found: Found::There(Box::new(at)), ..walk };
        self.tell_touch(way.asking, way.place, Access::Look, way.spelled, &walk)?;
        self.go(Way { place: next, from: &Start::Directory(from), spelled: &spelled, turns, ..way })
    }

    /// Tells of what stands at the end of a way, and prepares for what the call does there.
    fn arrive(&mut self, way: Way<'_>, memory: Memory, walked: &Walked) -> Result<Option<Led>, TraceError> {
        let Way { asking, used, place, .. } = way;
        let Walked { walk, stop, .. } = walked;
        // Another call may go further by the same path than one that was refused.
        let is_personal = walked.is_personal || *stop == Some(Blocked::Refused);
        if goes_elsewhere(&asking.entry, used.access, *stop) {
            self.elsewhere(way, walk, *stop)?;
        }
        let is_missing = matches!(walk.found, Found::Missing);
        if is_missing || memory.was_missing {
            self.known.note_missing(way.question(), is_missing);
        }
        let access = if is_look(used.access, walk, *stop) { Access::Look } else { used.access };
        let is_shared = names(access) && !self.machine.is_single();
        let contended = is_shared.then(|| self.contend(asking, &walk.end)).flatten();
        let led = (used.verify || asking.entry.call.opens()).then(|| Led { contended, ..led(way, walk, is_personal) });
        let waits = led.as_ref().is_some_and(|led| led.waits);
        // What waits for others is asked about each time.
        if is_personal || waits {
            self.known.forget(way.question());
        }
        // Nobody gets to where no directory is, and by another root nobody gets anywhere.
        if asking.entry.call.name == "chdir" && (!is_nowhere(&walk.found, *stop) || self.known.are_names_changing()) {
            self.entering(asking, &walk.end)?;
        }
        let is_told = if is_personal {
            let (sets_times, task) = (asking.entry.call.sets_times(), asking.task);
            !self.known.is_new((access, sets_times, used.follow, way.spelled, task, walk.end.as_slice()))
        } else if waits {
            !self.known.is_new(("waits", way.question()))
        } else {
            !memory.is_new && (!memory.was_missing || is_missing)
        };
        // What was made and removed may be made anew.
        self.telling.is_repeated = is_told && is_missing && access.makes();
        if !is_told || self.telling.is_repeated {
            self.tell_touch(asking, place, access, way.spelled, walk)?;
            self.telling.is_repeated = false;
            if std::mem::take(&mut self.telling.again) {
                self.known.forget(way.question());
            }
        }
        if access == Access::Execute {
            self.executing(asking, place, walk)?;
        } else if used.access == Access::Execute && used.follow && is_link(&walk.found) && stop.is_none() {
            self.executing_door(asking, place, walk)?;
        }
        Ok(led)
    }

    /// A path goes on behind a door that leads to what no path of the tracer's leads to.
    fn elsewhere(&mut self, way: Way<'_>, walk: &Walk, stop: Option<Blocked>) -> Result<(), TraceError> {
        let Way { asking, used, place, .. } = way;
        // From there on, its places may be such as no path leads to.
        self.places.distrust();
        match self.behind_door(asking, place, &walk.end) {
            Some((behind, _)) if stop == Some(Blocked::Elsewhere { goes_on: false }) => {
                self.at_door(asking, &behind, used.access)
            }
            _ => self.gap(asking.process, Gap::MountNamespace),
        }
    }

    pub(crate) fn tell_touch(
        &mut self,
        asking: Asking,
        place: &Place,
        access: Access,
        spelled: &[u8],
        walk: &Walk,
    ) -> Result<(), TraceError> {
        if access == Access::Mount {
            self.places.served.mounts(asking.task, &walk.end);
        }
        // proc(5), /proc/pid/mem.
        if matches!(access, Access::Write | Access::Create) && walk.end.ends_with(b"/mem") {
            self.races.expect_written();
        }
        if let (Found::There(stat), Access::Read | Access::Write | Access::Create) = (&walk.found, access) {
            self.places.served.opens(stat);
            // userfaultfd(2), "/dev/userfaultfd": it gives descriptors as the call does.
            if proc::may_be_device(stat, "userfaultfd") {
                self.places.maps.expect_filled();
            }
        }
        let lies = place.lies(&walk.end);
        let is_served = lies == Lies::Served;
        let is_asked = !is_unasked(&walk.found) && lies == Lies::Elsewhere;
        if place.namespace.is_some() && !is_asked {
            return self.gap(asking.process, Gap::MountNamespace);
        }
        // mount.fuse(8), `allow_other`: another user is refused, whatever he may do elsewhere, and the task need not be.
        let is_refused = matches!(walk.found, Found::Unknown(Errno::EACCES))
            && (is_served
                || (filesystem::answers_by_user(&place.reach(asking.task, &walk.end))
                    && proc::is_other_user(asking.task)));
        if is_unasked(&walk.found) || lies == Lies::Beyond || is_refused {
            return self.gap(asking.process, Gap::Served);
        }
        if place.served.is_none() {
            return self.tell_given(asking, place, access, spelled, walk);
        }
        let mut walk = walk.clone();
        walk.links.retain(|link| place.lies(&link.path) == Lies::Elsewhere);
        walk.passed.retain(|path| place.lies(path) == Lies::Elsewhere);
        walk.searched.retain(|searched| place.lies(&searched.path) == Lies::Elsewhere);
        if is_served {
            return self.tell_walk(asking, access, spelled, &walk, true);
        }
        self.tell_given(asking, place, access, spelled, &walk)
    }

    pub(crate) fn tell_walk(
        &mut self,
        asking: Asking,
        access: Access,
        spelled: &[u8],
        walk: &Walk,
        is_served: bool,
    ) -> Result<(), TraceError> {
        let Asking { task, process, entry, .. } = asking;
        let (call, again) = (entry.call.name, Cell::new(false));
        let is_repeated = self.telling.is_repeated;
        let is_by_real_user = decode::is_by_real_user(&entry);
        let touch = Touch {
            process,
            task,
            call,
            access,
            spelled,
            walk,
            is_served,
            is_repeated,
            is_by_real_user,
            again: &again,
        };
        let told = self.tell(Event::Touch(touch));
        self.telling.again = again.get();
        told
    }

    /// What stands at `path`, which has no links on its way.
    pub(crate) fn found(&mut self, task: i32, path: &[u8]) -> Found {
        match self.place(task) {
            Ok(place) => self.found_in(task, &place, path),
            Err(errno) => Found::Unknown(errno),
        }
    }

    fn found_in(&self, task: i32, place: &Place, path: &[u8]) -> Found {
        if place.lies(path) != Lies::Elsewhere {
            return self.walker.foreseen.found(path);
        }
        match look::lstat(&place.reach(task, path)) {
            Ok(stat) => Found::There(Box::new(stat)),
            Err(Errno::ENOENT) => Found::Missing,
            Err(errno) => Found::Unknown(errno),
        }
    }

    /// The tracer could not see what the task sees.
    pub(crate) fn hidden(&mut self, process: i32, errno: Errno) -> Result<(), TraceError> {
        match errno {
            // The task is gone, or nothing is open at its descriptor (or no directory): its call comes to nothing.
            Errno::ENOENT | Errno::ESRCH | Errno::ENOTDIR => Ok(()),
            Errno::ENAMETOOLONG => self.gap(process, Gap::LongPath),
            // Of our own: a place of a mount namespace that is not to be found in ours.
            Errno::EXDEV => self.gap(process, Gap::MountNamespace),
            _ => self.gap(process, Gap::Memory),
        }
    }
}

/// True if a path goes on, or is used, behind a door of `/proc` that leads to what no path of the tracer's leads to. Who only looks at
/// such a door, as `lsof` does, learns no more than what another process has open.
fn goes_elsewhere(entry: &Entry, access: Access, stop: Option<Blocked>) -> bool {
    match stop {
        Some(Blocked::Elsewhere { goes_on }) => goes_on || access != Access::Look || entry.call.opens(),
        _ => false,
    }
}

/// Where a way has led.
fn led(way: Way<'_>, walk: &Walk, is_personal: bool) -> Led {
    let stat = if let Found::There(stat) = &walk.found { Some(&**stat) } else { None };
    Led {
        stands: Stands::of(&walk.found),
        start: way.from.opened().to_vec(),
        ..Led::to(walk.end.clone(), stat, is_personal, &way.asking.entry)
    }
}

/// True if a call that is about to do more comes to no more than a look: a path that goes on behind a file is one at that file, and a
/// link that is not followed is no program (execveat(2), ELOOP).
fn is_look(access: Access, walk: &Walk, stop: Option<Blocked>) -> bool {
    matches!(stop, Some(Blocked::NoDirectory | Blocked::Elsewhere { .. } | Blocked::Refused))
        || (access == Access::Execute && is_link(&walk.found))
}

/// True for what makes a name, or takes it away.
fn names(access: Access) -> bool {
    access.makes() || access == Access::Remove
}

/// True if what was `found` is no directory, and leads to none.
fn is_nowhere(found: &Found, stop: Option<Blocked>) -> bool {
    match found {
        Found::Missing => true,
        Found::There(stat) => {
            stop == Some(Blocked::NoDirectory) || !matches!(stat.st_mode & libc::S_IFMT, libc::S_IFDIR | libc::S_IFLNK)
        }
        Found::Unknown(_) => false,
    }
}

fn is_link(found: &Found) -> bool {
    matches!(found, Found::There(stat) if stat.st_mode & libc::S_IFMT == libc::S_IFLNK)
}
