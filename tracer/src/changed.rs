//! What a call has changed whose paths others may have led elsewhere meanwhile.
//!
//! In: where each path led when it was read, and, once the call has returned, whether it did what it was asked. Out: where else it may
//! have done that, told as far as it is still to be seen; where it is not, a gap.
//!
//! A path, or a descriptor, that is another one by now tells by itself. One that was put back before the call returned shows where
//! something was to be made, removed or replaced, and all is as it was. What was cut off (`truncate(2)`), linked, or had its
//! attributes changed in that way is not found; nor is what was made or removed where another task was about to do so as well.

use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};

use crate::TraceError;
use crate::decode::{self, Entry, From};
use crate::engine::Engine;
use crate::event::{Access, Found, Gap};
use crate::inspect::{Asking, Use};
use crate::race::{Led, Raced, Spelled};
use crate::{look, memory, retrace};

/// A path of a call that changes something.
#[derive(Debug)]
pub(crate) struct Changing {
    pub(crate) path: Spelled,
    /// Where it led then.
    pub(crate) led: Led,
    /// What stood there, if its file system tells files of one number apart; empty for nothing.
    pub(crate) handle: Option<Vec<u8>>,
}

impl Changing {
    /// `may_ask`: whoever looks at where it led waits for none of the program's own tasks.
    pub(crate) fn new(path: Spelled, led: Led, may_ask: bool) -> Self {
        let handle = if may_ask && shows(path.used.access) { handle(&led) } else { None };
        Self { path, led, handle }
    }
}

/// What stands at a path; unknown by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Stands {
    #[default]
    Unknown,
    Nothing,
    File(libc::dev_t, libc::ino_t),
}

impl Stands {
    pub(crate) fn of(found: &Found) -> Self {
        match found {
            Found::There(stat) => Self::File(stat.st_dev, stat.st_ino),
            Found::Missing => Self::Nothing,
            Found::Unknown(_) => Self::Unknown,
        }
    }
}

/// What is open by now at a descriptor from which a path starts.
enum Now {
    Same,
    Another,
    Nothing,
}

impl Engine<'_> {
    /// A call has returned, and `has_changed` something, or failed: its paths are told where they may have led meanwhile.
    pub(crate) fn changed(&mut self, asking: Asking, paths: &[Changing], has_changed: bool) -> Result<(), TraceError> {
        let is_one_file = matches!(paths, [one, other]
            if one.led.stands == other.led.stands && matches!(one.led.stands, Stands::File(..)));
        paths.iter().try_for_each(|path| self.changed_at(asking, path, has_changed, is_one_file))
    }

    /// `is_one_file`: both paths of the call led to one file, so that it changed nothing (`rename(2)`).
    fn changed_at(
        &mut self,
        asking: Asking,
        changing: &Changing,
        has_changed: bool,
        is_one_file: bool,
    ) -> Result<(), TraceError> {
        let Changing { path: Spelled { address, used, text: spelled }, led, .. } = changing;
        let access = used.access;
        if memory::read_string(asking.task, *address, &mut self.spelled).is_err()
            || self.is_overtaken(asking.task, asking.process, asking.waits)
        {
            return Ok(());
        }
        let is_same = self.spelled == *spelled;
        let is_of_descriptor = is_same && spelled.is_empty() && decode::allows_empty(&asking.entry);
        if is_of_descriptor && matches!(access, Access::Attributes | Access::Write) {
            // It is told once, if it is the same.
            return self.empty(asking, *used);
        }
        let start = if is_same { self.starts(asking.task, *used, &led.start) } else { Now::Another };
        if let (true, Now::Same | Now::Nothing) = (is_same, &start) {
            let is_nothing = spelled.is_empty() && !is_of_descriptor;
            let is_lost = matches!(start, Now::Nothing) && access.loses();
            let is_another = has_changed
                && (is_nothing || is_lost || (!is_one_file && self.stands_as_before(asking.task, changing)));
            return if is_another { self.gap(asking.process, Gap::Rewritten) } else { Ok(()) };
        }
        if has_changed && access.loses() {
            self.gap(asking.process, Gap::Rewritten)?;
            // What the call itself may have made was not there before it.
            if matches!(access, Access::Create | Access::Replace) {
                return Ok(());
            }
        }
        self.touch(asking, Use { verify: false, ..*used }).map(drop)
    }

    /// A call is about to make the name `end`, or to take it away. If others are, too, the time: then nobody can tell by what stands there
    /// afterwards who has done so; nor, of a call that opens it, where that is if others are about to move it.
    pub(crate) fn contend(&mut self, asking: Asking, end: &[u8]) -> Option<TimeSpec> {
        let Asking { task, entry: Entry { call, .. }, .. } = asking;
        let of_others = |&(&other, _): &(&i32, &mut Raced)| other != task;
        let leads = self.raced.iter_mut().filter(of_others).flat_map(|(_, raced)| match raced {
            Raced::Changing { paths, .. } => paths.iter_mut().map(|path| &mut path.led).collect(),
            Raced::Opening { led, .. } if call.moves() => vec![&mut **led],
            _ => Vec::new(),
        });
        for led in leads.filter(|led| led.end == end) {
            led.contended = led.contended.or_else(now);
        }
        let contends = |(name, moves): &(Vec<u8>, bool)| name == end && (*moves || !call.opens());
        let others = self.races.naming.iter().filter(|&(&other, _)| other != task);
        let is_contended = others.flat_map(|(_, names)| names).any(contends);
        let own = self.races.naming.entry(task).or_default();
        if own.iter().all(|(name, _)| name != end) {
            own.push((end.to_vec(), call.moves()));
        }
        is_contended.then(now).flatten()
    }

    /// What is at the descriptor by now of which `self.spelled` was relative to `before`.
    fn starts(&mut self, task: i32, used: Use, before: &[u8]) -> Now {
        let From::Descriptor(descriptor) = used.from else { return Now::Same };
        if self.spelled.starts_with(b"/") || self.spelled.is_empty() {
            return Now::Same;
        }
        match self.places.descriptor(task, descriptor) {
            Ok(open) if open.path == before => Now::Same,
            // In some views a directory is found by another path than it is open by.
            Ok(_) => match self.start(task, used.from) {
                Ok((place, start)) if start.of(&place) == before => Now::Same,
                _ => Now::Another,
            },
            // Another thread has it closed or moved already, unless the task is being killed.
            Err(Errno::ENOENT) if retrace::result(task).is_ok() => Now::Nothing,
            Err(_) => Now::Same,
        }
    }

    /// True if a call has removed, made or replaced something, and where that was to be all is as it was.
    fn stands_as_before(&mut self, task: i32, changing: &Changing) -> bool {
        let led = &changing.led;
        let is_certain = match led.stands {
            Stands::Unknown => false,
            Stands::File(..) => true,
            // In another view what was found by a descriptor may have no path.
            Stands::Nothing => self.places.of(task, false).is_ok_and(|place| place.namespace.is_none()),
        };
        is_certain
            && led.contended.is_none()
            && shows(changing.path.used.access)
            && Stands::of(&self.found(task, &led.end)) == led.stands
            && !is_another(led, changing.handle.as_deref())
    }
}

/// By the clock from which a new file has its time (`current_time` in the kernel's `fs/inode.c`).
fn now() -> Option<TimeSpec> {
    clock_gettime(ClockId::CLOCK_REALTIME_COARSE).ok()
}

/// True for what shows afterwards, where it was done.
fn shows(access: Access) -> bool {
    matches!(access, Access::Remove | Access::Create | Access::Replace)
}

/// True if what stands there now has the number of what was removed, which is given to the next file, as where threads fight over a lock.
fn is_another(led: &Led, before: Option<&[u8]>) -> bool {
    before.is_some_and(|before| handle(led).is_some_and(|now| now != before))
}

fn handle(led: &Led) -> Option<Vec<u8>> {
    match look::handle(&led.end) {
        Err(Errno::ENOENT) => Some(Vec::new()),
        handle => handle.ok(),
    }
}
