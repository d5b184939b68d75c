//! What a call at its entry asks for, found out and told.
//!
//! What others may do to it meanwhile is in [`race`](crate::race).

use std::cell::Cell;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::readlink;

use crate::TraceError;
use crate::calls::{Abi, Kind, YOUNGEST};
use crate::changed::{Changing, Stands};
use crate::decode::{self, Asked, Entry, From};
use crate::engine::{Engine, Verdict};
use crate::event::{Access, Event, Found, Gap, Touch, Walk};
use crate::filter::{MARK, X32_BIT};
use crate::foresight::is_unasked;
use crate::known::Change;
use crate::memory::{self, Unread};
use crate::place::{self, Place};
use crate::race::{Led, Raced, Spelled};
use crate::retrace::Retraced;
use crate::served::Lies;
use crate::start::Start;
use crate::sys::{SyscallEntry, WaitingCall};
use crate::walk::{Asker, Blocked, Onward, Walked};
use crate::{filesystem, look, sys};

/// The task that stands at the entry of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asking {
    pub(crate) task: i32,
    pub(crate) process: i32,
    pub(crate) entry: Entry,
    /// Where its stack ends, if that is known.
    pub(crate) stack: Option<u64>,
}

/// A path as a call uses it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Use {
    pub(crate) from: From,
    pub(crate) access: Access,
    pub(crate) follow: bool,
    /// What became of the call is to be compared with where the path leads.
    pub(crate) verify: bool,
}

impl Engine<'_> {
    /// Looks at the call at whose entry `task` stands.
    pub(crate) fn examine(&mut self, task: i32, process: i32) -> Result<Verdict, TraceError> {
        let entry = match sys::syscall_entry(task) {
            Ok(Some(entry)) => entry,
            // Not at a call's entry, or killed while it stood there.
            Ok(None) | Err(Errno::ESRCH) => return Ok(Verdict::Run),
            Err(source) => return Err(TraceError::Ptrace { step: "read the call of", task, source }),
        };
        if entry.data != u32::from(MARK) {
            // A filter of the program's own asks for a tracer. It has none: seccomp(2) then says ENOSYS.
            return Ok(Verdict::Refuse);
        }
        self.look_up(task, process, entry)
    }

    /// Looks at a call that waits.
    pub(crate) fn listen(&mut self, call: &WaitingCall, process: i32) -> Result<Verdict, TraceError> {
        let WaitingCall { task, arch, number, arguments, instruction, .. } = *call;
        self.look_up(task, process, SyscallEntry { arch, number, arguments, instruction, data: 0, stack: None })
    }

    fn look_up(&mut self, task: i32, process: i32, entry: SyscallEntry) -> Result<Verdict, TraceError> {
        if self.own_filters.want_tracer(task, &entry) {
            return Ok(Verdict::Refuse);
        }
        let Some((abi, table)) = self.tables.get(&entry.arch) else {
            if self.known.is_new(("interface", process)) {
                self.gap(process, Gap::Interface)?;
            }
            return Ok(Verdict::Refuse);
        };
        let Some(call) = table.get(entry.number) else {
            let is_x32 = *abi == Abi::X86_64 && entry.number & u64::from(X32_BIT) != 0;
            // x32 calls have this bit and no other of the upper ones: -1 is no call at all.
            if is_x32 && entry.number & !0x3ff == u64::from(X32_BIT) {
                self.gap(process, Gap::X32)?;
            }
            // Numbers are `int`.
            let is_younger = (u64::from(YOUNGEST) + 1..1 << 31).contains(&entry.number);
            // Most who make such a call find out whether this kernel has it.
            return Ok(if is_younger && !is_x32 {
                Verdict::Verify(Raced::Unknown { task, process })
            } else {
                Verdict::Refuse
            });
        };
        let stack = entry.stack;
        let entry = Entry { number: entry.number, abi: *abi, call, arguments: abi.arguments(entry.arguments) };
        let asking = Asking { task, process, entry, stack };
        match self.foresee(asking) {
            Some(looks) => Ok(Verdict::Wait(looks)),
            None => self.ask(asking),
        }
    }

    /// Looks into everything that a call asks for; as far as it gets without waiting for others than the program.
    fn ask(&mut self, asking: Asking) -> Result<Verdict, TraceError> {
        self.may_wait();
        let mut all = std::mem::take(&mut self.asked);
        let memory = |address: u64, buffer: &mut [u8]| memory::read(asking.task, address, buffer);
        let read = decode::decode(&asking.entry, &memory, &mut |asked| all.push(asked));
        let mounts = |asked: &Asked| matches!(asked, Asked::Path { access: Access::Mount, .. });
        let is_mounting = asking.entry.call.name == "pivot_root" || all.iter().any(mounts);
        let mut verdict = Verdict::Run;
        for asked in all.drain(..) {
            match self.answer(asking, asked)? {
                Verdict::Run => {}
                other => verdict = other,
            }
            if self.walker.is_waiting() {
                break;
            }
        }
        self.asked = all;
        if let Some(looks) = self.waits_for(asking) {
            self.changing.clear();
            self.names_stay(asking.task);
            return Ok(Verdict::Wait(looks));
        }
        if read == Err(Unread::Hidden) {
            self.gap(asking.process, Gap::Memory)?;
        }
        // Last: what was looked at for this call is not to be kept open.
        if is_mounting {
            self.mounting(asking.task);
        }
        if asking.entry.call.moves() {
            self.moving.insert(asking.task);
        }
        let paths = std::mem::take(&mut self.changing);
        Ok(if paths.is_empty() { verdict } else { Verdict::Verify(Raced::Changing { asking, paths }) })
    }

    fn answer(&mut self, asking: Asking, asked: Asked) -> Result<Verdict, TraceError> {
        let Asking { task, process, .. } = asking;
        match asked {
            Asked::Path { from, address, access, follow } => {
                let call = asking.entry.call;
                let asks = !(call.opens() || call.changes() || call.executes());
                let verify = !asks
                    && address != 0
                    && (self.may_be_moved(asking, from, access) || self.may_be_rewritten(asking, from, address));
                let used = Use { from, access, follow, verify };
                let led = self.path(asking, address, used)?.unwrap_or_default();
                if !verify {
                    return Ok(unverified(&led));
                }
                let path = Spelled { address, used, text: self.spelled.clone() };
                if call.opens() {
                    return Ok(Verdict::Verify(Raced::Opening {
                        asking,
                        access,
                        led: Box::new(led),
                        path: Some(path),
                    }));
                }
                if access == Access::Execute {
                    return Ok(Verdict::Verify(self.executing_by_path(asking, path)));
                }
                self.changing.push(Changing::new(path, led));
            }
            Asked::Inline { path, access } => {
                self.spelled = path;
                // bind(2) makes the file, as mknod(2) does.
                let follow = access != Access::Bind;
                self.touch(asking, Use { from: From::WorkingDirectory, access, follow, verify: false })?;
            }
            Asked::Descriptor { descriptor, access } => self.descriptor(asking, descriptor, access)?,
            Asked::Listen { descriptor } => self.listening(asking, descriptor, libc::SOCK_STREAM)?,
            Asked::BindPort { descriptor, port } => self.bound(asking, descriptor, port)?,
            Asked::ConnectPort { descriptor, port } => self.connected(asking, descriptor, port),
            Asked::Retrace { address, flags } => {
                return Ok(match Retraced::start(task, asking.entry.abi, address, flags) {
                    Ok(retraced) => Verdict::Retrace(retraced),
                    Err(_) => Verdict::Refuse,
                });
            }
            Asked::TakenDescriptor => self.places.distrust(),
            Asked::Refuse(gap) => {
                self.gap(process, gap)?;
                return Ok(Verdict::Refuse);
            }
            Asked::MountNamespace | Asked::DetachedMount => {
                let is_detached = asked == Asked::DetachedMount;
                let expected =
                    if is_detached { self.places.expect_detached() } else { self.places.expect_namespaces() };
                if expected.is_err() {
                    self.gap(process, Gap::MountNamespace)?;
                }
                if asking.entry.call.name == "setns" {
                    let traced = self.machine.processes();
                    self.places.enter_namespace(task, asking.entry.arguments[0] as i32, traced);
                }
                // What is known of a namespace that is gone says nothing of a new one, which may get its number.
                self.unsettle(task, if is_detached { Change::Places } else { Change::Names });
            }
            Asked::MountSource { address, kind, flags } => {
                if self.is_mount_source(asking, kind, flags)? {
                    return self.answer(asking, Asked::look(address));
                }
            }
            Asked::MountOptions { kind, options } => self.mount_options(asking, kind, options)?,
            Asked::MountOption { name, value } => self.mount_option(asking, name, value)?,
            Asked::Handle { mount, address, access } => {
                let verify = self.may_be_rewritten(asking, From::Descriptor(mount), address);
                let led = self.handle(asking, mount, address, access)?.unwrap_or_default();
                return Ok(if verify {
                    Verdict::Verify(Raced::Opening { asking, access, led: Box::new(led), path: None })
                } else {
                    unverified(&led)
                });
            }
            Asked::Probe { kind, address } => match place::probe_kind() {
                Ok(probe) if probe == Some(kind) => {
                    let used = Use { from: From::WorkingDirectory, access: Access::Read, follow: true, verify: false };
                    self.path(asking, address, used)?;
                }
                Ok(_) => {}
                Err(_) => self.gap(process, Gap::Memory)?,
            },
            Asked::FilledMemory => self.places.maps.expect_filled(),
            Asked::WrittenMemory => self.races.expect_written(),
            Asked::Unseen(gap) => self.gap(process, gap)?,
            Asked::UnseenIfMade(gap) => return Ok(Verdict::Verify(Raced::Unseen { process, gap })),
            Asked::Filter { text, flags } => return Ok(Verdict::Verify(Raced::Filtering { asking, text, flags })),
            Asked::Nested => {
                let link = format!("/proc/{task}/exe");
                let program = readlink(link.as_str()).unwrap_or_else(|_| link.into());
                return Err(TraceError::Nested { program: program.into() });
            }
        }
        Ok(Verdict::Run)
    }

    /// `task` is about to mount or unmount something, by whatever path.
    fn mounting(&mut self, task: i32) {
        self.places.mounting();
        self.races.stacks.close();
        self.races.asking_nobody.clear();
        self.unsettle(task, Change::Names);
    }

    /// A path in the task's memory; where it leads, if that was found out.
    fn path(&mut self, asking: Asking, address: u64, used: Use) -> Result<Option<Led>, TraceError> {
        if address == 0 {
            return match used.from {
                From::Descriptor(descriptor) if decode::allows_none(&asking.entry) => {
                    self.descriptor(asking, descriptor, used.access).map(|()| None)
                }
                _ => Ok(None),
            };
        }
        match memory::read_string(asking.task, address, &mut self.spelled) {
            Ok(()) if self.spelled.is_empty() => self.empty(asking, used)?,
            Ok(()) => return self.touch(asking, used),
            Err(unread) => {
                self.spelled.clear();
                if unread == Unread::Hidden {
                    self.gap(asking.process, Gap::Memory)?;
                }
            }
        }
        Ok(None)
    }

    /// An empty path: nothing (ENOENT), or the descriptor itself.
    fn empty(&mut self, asking: Asking, used: Use) -> Result<(), TraceError> {
        match used.from {
            // What is open was seen when it was opened; only what is more than a look says something new.
            From::Descriptor(descriptor) if used.access != Access::Look && decode::allows_empty(&asking.entry) => {
                self.descriptor(asking, descriptor, used.access)
            }
            _ => Ok(()),
        }
    }

    /// What is open at one of the task's descriptors.
    pub(crate) fn descriptor(&mut self, asking: Asking, descriptor: i32, access: Access) -> Result<(), TraceError> {
        if access == Access::Enter {
            self.unsettle(asking.task, Change::Places);
        }
        let open = match self.places.descriptor(asking.task, descriptor) {
            Ok(open) => open,
            Err(errno) => return self.hidden(asking.process, errno),
        };
        let has_path = open.path.starts_with(b"/") && !open.is_deleted;
        if has_path && access == Access::Enter {
            self.entering(asking, &open.path)?;
        }
        if has_path {
            self.open_at(asking, descriptor, open.path.clone(), access)?;
        }
        // A file that has no name, or has none any more, still names an interpreter.
        if access == Access::Execute { self.executing_open(asking, descriptor, open.path) } else { Ok(()) }
    }

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
        match self.start(asking.task, used.from) {
            Ok((place, from)) => self.touch_from(asking, used, &place, &from, MOST_PLACES),
            Err(errno) => self.hidden(asking.process, errno).map(|()| None),
        }
    }

    /// The same from where that starts, through so many further places.
    fn touch_from(
        &mut self,
        asking: Asking,
        used: Use,
        place: &Arc<Place>,
        from: &Start,
        turns: usize,
    ) -> Result<Option<Led>, TraceError> {
        let Asking { task, process, entry, .. } = asking;
        let spelled = std::mem::take(&mut self.spelled);
        let Use { access, follow, verify, .. } = used;
        let (mut led, mut has_moved) = (None, false);
        let sets_times = entry.call.sets_times();
        let way = (place.names(), from.of(place), spelled.as_slice());
        let question = (access, sets_times, follow, way);
        let (mut change, mut is_remote) = (Change::of(&entry, access), false);
        // Both paths of a call that moves something belong together.
        let is_new = self.known.is_new(question) || entry.call.moves();
        let was_missing = !is_new && self.known.was_missing(question);
        // What is executed has an interpreter, which may be another one by now, and what was there may be made anew.
        let is_asked = verify || access.makes() || matches!(access, Access::Enter | Access::Execute);
        if is_new || was_missing || is_asked {
            let walked;
            (walked, has_moved) = self.walk(asking, used, place, from, &spelled);
            if self.walker.is_waiting() {
                if is_new {
                    self.known.forget(question);
                }
                self.spelled = spelled;
                return Ok(None);
            }
            let Walked { walk, is_personal, stop, onward } = walked;
            if let Some((next, Onward { at, from, spelled: rest })) = self.next(asking, place, &walk, stop, onward) {
                self.known.forget(question);
                let Some(turns) = turns.checked_sub(1) else {
                    self.spelled = spelled;
                    return Ok(None);
                };
                let walk = Walk { found: Found::There(Box::new(at)), ..walk };
                self.tell_touch(asking, place, Access::Look, &spelled, &walk)?;
                self.spelled = rest;
                let led = self.touch_from(asking, used, &next, &Start::Directory(from), turns);
                self.spelled = spelled;
                return led;
            }
            // Another call may go further by the same path.
            let is_personal = is_personal || stop == Some(Blocked::Refused);
            if goes_elsewhere(&entry, access, stop) {
                // From there on, its places may be such as no path leads to.
                self.places.distrust();
                match self.behind_door(asking, place, &walk.end) {
                    Some((behind, _)) if stop == Some(Blocked::Elsewhere { goes_on: false }) => {
                        self.at_door(asking, &behind, access)?;
                    }
                    _ => self.gap(process, Gap::MountNamespace)?,
                }
            }
            let is_missing = matches!(walk.found, Found::Missing);
            if is_missing || was_missing {
                self.known.note_missing(question, is_missing);
            }
            is_remote = place.is_remote(&walk.end);
            if access == Access::Remove && is_link(&walk.found) {
                change = Some(Change::Names);
            }
            // A path that goes on behind a file is no more than a look at that file, and a link that is not followed is no program
            // (execveat(2), ELOOP).
            let is_look = matches!(stop, Some(Blocked::NoDirectory | Blocked::Elsewhere { .. } | Blocked::Refused))
                || (access == Access::Execute && is_link(&walk.found));
            let access = if is_look { Access::Look } else { access };
            let stat = if let Found::There(stat) = &walk.found { Some(&**stat) } else { None };
            led = (verify || entry.call.opens()).then(|| Led {
                stands: Stands::of(&walk.found),
                start: from.opened().to_vec(),
                ..Led::to(walk.end.clone(), stat, is_personal, &entry)
            });
            // What waits for others is asked about each time.
            let waits = led.as_ref().is_some_and(|led| led.waits);
            if is_personal || waits {
                self.known.forget(question);
            }
            if access == Access::Enter {
                self.entering(asking, &walk.end)?;
            }
            let tell = if is_personal {
                self.known.is_new((access, sets_times, follow, spelled.as_slice(), task, walk.end.as_slice()))
            } else if waits {
                self.known.is_new(("waits", question))
            } else {
                is_new || (was_missing && !is_missing)
            };
            // What was made and removed may be made anew.
            self.telling.is_repeated = !tell && is_missing && access.makes();
            if tell || self.telling.is_repeated {
                self.tell_touch(asking, place, access, &spelled, &walk)?;
                self.telling.is_repeated = false;
                if std::mem::take(&mut self.telling.again) {
                    self.known.forget(question);
                }
            }
            if access == Access::Execute {
                self.executing(asking, place, &walk)?;
            }
        }
        if matches!(from, Start::WorkingDirectory) && !spelled.starts_with(b"/") {
            self.relative(asking, used, place, &spelled)?;
        }
        self.uses(asking, used, place, from.of(place), &spelled);
        self.spelled = spelled;
        if is_remote && change == Some(Change::Names) {
            self.races.uses.change_remote();
        }
        if let Some(change) = change {
            self.unsettle(task, change);
        }
        if has_moved { self.touch(asking, used) } else { Ok(led) }
    }

    /// Walks `spelled`; true if the task has moved meanwhile, so that it leads somewhere else.
    fn walk(&mut self, asking: Asking, used: Use, place: &Place, from: &Start, spelled: &[u8]) -> (Walked, bool) {
        let Asking { task, process, entry, .. } = asking;
        let (asker, settled) = (Asker { process, task, place }, self.known.is_settled());
        let mut has_moved = false;
        let mut walked = self.walker.walk(asker, from.of(place), spelled, used.follow, settled);
        let is_remembered = settled && !matches!(used.from, From::Root(_)) && from.is_in(place, spelled);
        if is_remembered && matches!(walked.walk.found, Found::Missing) {
            has_moved = self.has_moved(task, place);
            // That took its time, and what is missing may be made at any moment: the last look is the nearest to the call.
            walked = self.walker.walk(asker, from.of(place), spelled, used.follow, settled);
        }
        if let (Kind::OpenHow, None, None) = (&entry.call.kind, place.namespace, &place.behind) {
            let resolve = decode::resolve(&entry, &|address, buffer| memory::read(task, address, buffer));
            walked = walked.kept_to(resolve, from.of(place), spelled);
        }
        (walked, has_moved)
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
            if walk.end == b"/dev/userfaultfd" {
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
                    && place::is_other_user(asking.task)));
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

/// So many times a path may go on in another place: to one and back there is a link on the way at least, and the kernel does not follow
/// the 41st (`path_resolution(7)`).
const MOST_PLACES: usize = 82;

/// How a call goes on whose path nobody can rewrite.
fn unverified(led: &Led) -> Verdict {
    if led.waits { Verdict::Verify(Raced::Waiting) } else { Verdict::Run }
}

/// True if a path goes on, or is used, behind a door of `/proc` that leads to what no path of the tracer's leads to. Who only looks at
/// such a door, as `lsof` does, learns no more than what another process has open.
fn goes_elsewhere(entry: &Entry, access: Access, stop: Option<Blocked>) -> bool {
    match stop {
        Some(Blocked::Elsewhere { goes_on }) => goes_on || access != Access::Look || entry.call.opens(),
        _ => false,
    }
}

fn is_link(found: &Found) -> bool {
    matches!(found, Found::There(stat) if stat.st_mode & libc::S_IFMT == libc::S_IFLNK)
}
