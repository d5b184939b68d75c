//! What others may do while a call is under way.
//!
//! The kernel reads a path after the tracer has, so another thread can change it in between; and who shares a working
//! directory (threads, and what `CLONE_FS` made) can move it. What was used is then told as well as what was read.
//!
//! What becomes of paths in use while others change names is in [`in_use`](crate::in_use); what calls have changed, in
//! [`changed`](crate::changed).
//!
//! Asking at a call's return what became of it costs a stop (see [`anew`](crate::anew)). That is paid only where it can matter: for a call that
//! opens, executes or changes something, in a process with several threads, or whose path is in memory that processes share.
//! It is not paid for a path in the first or last frames of a thread that has made no other thread, where only one to whom it
//! hands a pointer finds it: threads that walk trees keep their paths there. A link on the way of a path that was rewritten,
//! and rewritten back before the call returned, is not found. Nor does this cover what a call that only asks was handed, a
//! path or a descriptor: where that led when it was read is told; a socket's address; a script executed by way of a
//! descriptor that others replace; memory that another process writes to by writing to the
//! file that is mapped there, or, for the first time, by `process_vm_writev(2)`; and, on Linux older than 6.11, a mapping that processes share.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::stat::FileStat;
use nix::sys::time::TimeSpec;

use crate::TraceError;
use crate::calls::Kind;
use crate::changed::{Changing, Stands};
use crate::decode::{self, Entry, From};
use crate::door;
use crate::engine::Engine;
use crate::event::{Access, Found, Gap};
use crate::in_use::Uses;
use crate::inspect::{Asking, Use};
use crate::memory::{self, Unread};
use crate::names::parent;
use crate::place::Place;
use crate::proc;
use crate::retrace;
use crate::stacks::Stacks;
use crate::sys::{self, Common};
use crate::walk::Asker;
use crate::{filesystem, look};

/// A call under way whose path another thread may rewrite.
#[derive(Debug)]
pub(crate) enum Raced {
    /// It opens something.
    Opening { asking: Asking, access: Access, led: Box<Led>, path: Option<Spelled> },
    /// It opens something that nobody can rewrite, but may wait for others, so that a signal can end it.
    Waiting,
    /// It executes something: what its path, as it was read, is relative to if that is a descriptor.
    Executing { asking: Asking, path: Spelled, directory: Option<Vec<u8>> },
    /// It changes something.
    Changing { asking: Asking, paths: Vec<Changing> },
    /// A call of a newer kernel: nobody knows what it does, if this kernel has it.
    Unknown { task: i32, process: i32 },
    /// It lets things happen that nobody sees, if it succeeds.
    Unseen { process: i32, gap: Gap },
    /// It installs a seccomp filter of the program's own, if it succeeds: as that was read, and with these flags.
    Filtering { asking: Asking, text: Vec<u8>, flags: u64 },
}

/// A path as it was read.
#[derive(Debug)]
pub(crate) struct Spelled {
    pub(crate) address: u64,
    pub(crate) used: Use,
    pub(crate) text: Vec<u8>,
}

/// Where a path led when it was read; nowhere by default.
#[derive(Debug, Default)]
pub(crate) struct Led {
    pub(crate) end: Vec<u8>,
    /// What stood there.
    pub(crate) stands: Stands,
    /// The directory from which it started, if that is open at a descriptor.
    pub(crate) start: Vec<u8>,
    /// The device of the plain file or directory that stood there.
    pub(crate) device: Option<libc::dev_t>,
    /// Since when others are known to make the same name, or to take it away; of a call that opens it: to move it.
    pub(crate) contended: Option<TimeSpec>,
    /// Who opens it may wait for others: a FIFO, or a device that is more than memory (`Documentation/admin-guide/devices.txt`).
    pub(crate) waits: bool,
}

impl Led {
    /// `stat`: what stands at `end`. `is_personal`: the way went through a door of `/proc`, behind which may be what has no name.
    pub(crate) fn to(end: Vec<u8>, stat: Option<&FileStat>, is_personal: bool, entry: &Entry) -> Self {
        let mut led = Self { end, ..Self::default() };
        let Some(stat) = stat else {
            led.waits = is_personal && decode::may_wait(entry, true);
            return led;
        };
        match stat.st_mode & libc::S_IFMT {
            libc::S_IFREG | libc::S_IFDIR => led.device = Some(stat.st_dev),
            libc::S_IFIFO => led.waits = decode::may_wait(entry, true),
            libc::S_IFCHR => led.waits = libc::major(stat.st_rdev) != MEMORY && decode::may_wait(entry, false),
            // The door itself.
            libc::S_IFLNK => led.waits = is_personal && decode::may_wait(entry, true),
            _ => {}
        }
        led
    }
}

/// The major number of `/dev/null` and its like.
const MEMORY: u32 = 1;

/// Who moves, and who is on a way that starts from where they stand.
#[derive(Debug, Default)]
pub(crate) struct Races {
    /// Processes that are no threads of each other have one working directory.
    processes_share: bool,
    /// Processes that are no threads of each other have the same descriptors.
    descriptors_shared: bool,
    /// Processes write into the memory of others.
    memory_written: bool,
    /// Processes that have the memory of the one that made them (`CLONE_VM`).
    borrowed: HashMap<i32, Loan>,
    /// Tasks that have made threads, to which they may have given whatever is theirs.
    makers: HashSet<i32>,
    /// Tasks in a call that changes the working directory, and to which.
    entering: HashMap<i32, Vec<u8>>,
    /// Tasks in a call that makes names, or takes them away: which, and whether it moves what has the name.
    pub(crate) naming: HashMap<i32, Vec<(Vec<u8>, bool)>>,
    /// Tasks in a call with a path that is relative to it.
    under_way: HashMap<i32, Relative>,
    pub(crate) uses: Uses,
    pub(crate) stacks: Stacks,
    /// Of the devices that files were read from, whether they ask nobody when one is opened.
    pub(crate) asking_nobody: HashMap<libc::dev_t, bool>,
}

/// Memory that a process has in common with others.
#[derive(Debug)]
struct Loan {
    /// The process that had it alone before anybody else had it, which may be gone.
    owner: i32,
    /// Who has made the process waits for it, and so rewrites nothing meanwhile (`vfork(2)`).
    is_awaited: bool,
}

/// A relative path as a call uses it.
#[derive(Debug, Clone)]
struct Relative {
    asking: Asking,
    used: Use,
    spelled: Vec<u8>,
}

impl Races {
    /// `maker`, a task of `parent`, has made the process `task`; true if they have the same memory.
    pub(crate) fn born(&mut self, task: i32, maker: i32, parent: i32) -> bool {
        self.processes_share |= sys::share(task, maker, Common::Directory);
        self.descriptors_shared |= sys::share(task, maker, Common::Descriptors);
        let is_borrowed = sys::share(task, maker, Common::Memory);
        if is_borrowed {
            self.borrowed.insert(task, Loan { owner: self.owner_of(parent), is_awaited: false });
        }
        is_borrowed
    }

    /// From now on, processes may write into the memory of others.
    pub(crate) fn expect_written(&mut self) {
        self.memory_written = true;
    }

    /// Whose memory it is that `process` has.
    fn owner_of(&self, process: i32) -> i32 {
        self.borrowed.get(&process).map_or(process, |loan| loan.owner)
    }

    /// True if another process that runs at the same time has the memory of `process`.
    fn share_memory(&self, process: i32) -> bool {
        let owner = self.owner_of(process);
        self.borrowed.values().any(|loan| loan.owner == owner && !loan.is_awaited)
    }

    /// The last call of `task` is over.
    pub(crate) fn settle(&mut self, task: i32) {
        if !self.entering.is_empty() {
            self.entering.remove(&task);
        }
        if !self.under_way.is_empty() {
            self.under_way.remove(&task);
        }
        if !self.naming.is_empty() {
            self.naming.remove(&task);
        }
        self.uses.settle(task);
    }

    /// `task` is gone, and its number may be given to another; or it has executed something, and shares nothing any more.
    pub(crate) fn remove(&mut self, task: i32) {
        self.entering.remove(&task);
        self.under_way.remove(&task);
        self.naming.remove(&task);
        self.makers.remove(&task);
        self.uses.remove(task);
        self.borrowed.remove(&task);
        self.stacks.remove(task);
    }
}

impl Engine<'_> {
    /// True if other threads, or processes, may rewrite the path at `address`, or what else the call has in memory, or put
    /// something else in the place of the descriptor `from` by which it opens or changes something.
    pub(crate) fn may_be_rewritten(&mut self, asking: Asking, from: From, address: u64) -> bool {
        if self.machine.is_single() {
            return false;
        }
        let Asking { task, process, entry, stack, .. } = asking;
        let how = matches!(entry.call.kind, Kind::OpenHow).then_some(entry.arguments[2]);
        let mut addresses = std::iter::once(address).chain(how);
        let is_threaded = self.machine.is_threaded(process);
        let is_by_descriptor = (entry.call.opens() || entry.call.changes()) && from != From::WorkingDirectory;
        if self.races.memory_written
            || self.races.share_memory(process)
            || (is_by_descriptor && (is_threaded || self.races.descriptors_shared))
        {
            return true;
        }
        if is_threaded {
            if self.races.makers.contains(&task) {
                return true;
            }
            return !self.races.stacks.hold(task, addresses, stack);
        }
        addresses.any(|address| self.places.maps.is_shared(task, address))
    }

    /// True if others may move the directory from which a call takes a path whose end it may destroy: it is heard of
    /// when it is over, so that who moves later is not taken for one who moved meanwhile.
    pub(crate) fn may_be_moved(&self, asking: Asking, from: From, access: Access) -> bool {
        from == From::WorkingDirectory && access.loses() && !self.machine.is_single() && self.may_share(asking)
    }

    /// `maker` has made `child`: if that is a thread, it may know of everything that is its maker's.
    pub(crate) fn made(&mut self, child: i32, maker: i32) {
        if self.machine.process_of(child) == self.machine.process_of(maker) {
            self.races.makers.insert(maker);
        }
    }

    /// `maker` waits for `child`, which has its memory.
    pub(crate) fn lent(&mut self, child: i32, maker: i32) {
        let is_threaded = self.machine.process_of(maker).is_some_and(|process| self.machine.is_threaded(process));
        if let Some(loan) = self.races.borrowed.get_mut(&child) {
            loan.is_awaited = !is_threaded;
        }
    }

    /// A call that is about to execute what `path` leads to.
    pub(crate) fn executing_by_path(&mut self, asking: Asking, path: Spelled) -> Raced {
        let directory = match path.used.from {
            From::Descriptor(descriptor) => {
                let open = self.places.descriptor(asking.task, descriptor).ok();
                open.map(|open| open.path).filter(|path| path.starts_with(b"/"))
            }
            _ => None,
        };
        Raced::Executing { asking, path, directory }
    }

    /// The call by which what is now `task` has executed something; the process has memory of its own since. Of one that
    /// `was_threaded`, it may have been any thread.
    pub(crate) fn raced_before(&mut self, task: i32, was_threaded: bool) -> Result<Option<Raced>, TraceError> {
        // ptrace(2), "execve(2) under ptrace": the one that had this number before is gone without a word, and so is the number
        // that this one had.
        let former = if was_threaded { sys::event_task(task).unwrap_or(task) } else { task };
        self.races.remove(former);
        self.races.remove(task);
        self.own_filters.executed(former, task);
        let raced = self.raced.remove(&former);
        self.never_returns(task)?;
        Ok(raced)
    }

    /// `task` is gone, or about to be, and with it its call.
    pub(crate) fn never_returns(&mut self, task: i32) -> Result<(), TraceError> {
        match self.raced.remove(&task) {
            Some(Raced::Unknown { process, .. }) => self.gap(process, Gap::UnknownCall),
            _ => Ok(()),
        }
    }

    /// What became of a call that has returned.
    ///
    /// `result`: what it returned; `None` for an error.
    pub(crate) fn verify(&mut self, raced: Raced, result: Option<i64>) -> Result<(), TraceError> {
        match raced {
            Raced::Opening { asking, access, led, path } => {
                let asking = asking.answered();
                let again = path.map_or(Ok(Led::default()), |path| self.read_again(asking, &path))?;
                match result.map(i32::try_from) {
                    Some(Ok(descriptor)) => self.opened(asking, access, [&led, &again], descriptor),
                    _ => Ok(()),
                }
            }
            // It has failed, or there is nothing to compare.
            Raced::Executing { .. } | Raced::Waiting => Ok(()),
            Raced::Unknown { task, .. } if sys::has_no_such_call(task) => Ok(()),
            Raced::Unknown { process, .. } => self.gap(process, Gap::UnknownCall),
            Raced::Unseen { process, gap } if result.is_some() => self.gap(process, gap),
            Raced::Unseen { .. } => Ok(()),
            Raced::Filtering { asking, text, flags } => self.filtered(asking, &text, flags, result),
            Raced::Changing { asking, paths } => self.changed(asking.answered(), &paths, result.is_some()),
        }
    }

    /// True if a call that opens something does so without a look at signals: it reads a plain file or a directory, or finds
    /// nothing, on a file system that asks nobody.
    pub(crate) fn runs_through(&mut self, raced: &Raced) -> bool {
        let Raced::Opening { asking, access: Access::Read, led, .. } = raced else { return false };
        // The flags of `openat2` stand in memory, which others may rewrite, and an empty path may become any.
        if matches!(asking.entry.call.kind, Kind::OpenHow) || led.end.is_empty() || self.places.may_wait() {
            return false;
        }
        // In another view something else stands there.
        if self.place(asking.task).is_ok_and(|place| place.namespace.is_some()) {
            return false;
        }
        match led.device {
            Some(device) => {
                *self.races.asking_nobody.entry(device).or_insert_with(|| filesystem::asks_nobody(&led.end))
            }
            None if look::lstat(&led.end).err() == Some(Errno::ENOENT) => filesystem::asks_nobody(parent(&led.end)),
            None => false,
        }
    }

    /// The path of a call that has returned, if it is another one by now: where that leads is told, with its links.
    fn read_again(&mut self, asking: Asking, path: &Spelled) -> Result<Led, TraceError> {
        // What the call itself may have made or changed was not there so before it.
        if path.used.access.loses() {
            return Ok(Led::default());
        }
        let read = memory::read_string(asking.task, path.address, &mut self.spelled);
        let is_the_same = read.is_err() || self.spelled == path.text || self.spelled.is_empty();
        if is_the_same || self.is_overtaken(asking.task, asking.process, asking.waits) {
            return Ok(Led::default());
        }
        self.touch(asking, Use { verify: false, ..path.used }).map(Option::unwrap_or_default)
    }

    /// A call that has opened something, at `descriptor`, tells what it is; the paths that were read `led` there.
    fn opened(&mut self, asking: Asking, access: Access, led: [&Led; 2], descriptor: i32) -> Result<(), TraceError> {
        let ends = led.map(|led| &led.end);
        let opened = opened_for(asking, descriptor, access);
        let open = self.places.descriptor(asking.task, descriptor);
        if self.is_overtaken(asking.task, asking.process, asking.waits) {
            return Ok(());
        }
        let open = match open {
            Ok(open) => open,
            // Its path is longer than the kernel tells.
            Err(Errno::ENAMETOOLONG) if opened == access && self.leads_to_one(asking.task, descriptor, ends) => {
                return Ok(());
            }
            // Another thread has it closed or moved already, unless the task is being killed.
            Err(Errno::ENOENT) if retrace::result(asking.task).is_ok() => {
                return self.gap(asking.process, Gap::Rewritten);
            }
            Err(errno) => return self.hidden(asking.process, errno),
        };
        let is_as_told = opened == access && ends.contains(&&open.path);
        if is_as_told || open.is_deleted {
            return Ok(());
        }
        if !open.path.starts_with(b"/") {
            let [led, again] = led;
            let has_path = led.device.is_some() && (again.end.is_empty() || again.device.is_some());
            // A pipe, say: another thread has put it in the place of what was opened.
            return if has_path { self.gap(asking.process, Gap::Rewritten) } else { Ok(()) };
        }
        let is_for_the_same = opened == access;
        let access = opened;
        // What it was before is no longer to be seen; devices do not change.
        let found = self.found(asking.task, &open.path);
        let is_file = matches!(&found, Found::There(stat) if stat.st_mode & libc::S_IFMT == libc::S_IFREG);
        // Or it was told, or made there, if need be in the place of what was moved before it, and somebody has moved it since.
        let is_new =
            |since| access == Access::Create && sys::born(asking.task, descriptor).is_some_and(|born| born >= since);
        let has_moved = |led: &Led| {
            led.contended
                .is_some_and(|since| led.stands == Stands::Nothing || led.stands == Stands::of(&found) || is_new(since))
        };
        if is_file && access.loses() && !(is_for_the_same && led.into_iter().any(has_moved)) {
            self.gap(asking.process, Gap::Rewritten)?;
        }
        self.open_at(asking, descriptor, open.path, access)
    }

    /// True if what is open at `descriptor` stands at one of `paths`.
    fn leads_to_one(&mut self, task: i32, descriptor: i32, paths: [&Vec<u8>; 2]) -> bool {
        let Ok(place) = self.place(task) else { return false };
        let door = format!("/proc/{task}/fd/{descriptor}");
        let served = self.places.served.table();
        paths.iter().any(|path| door::leads_to_file(&door, &place.reach(task, path), served.map(Arc::as_ref)))
    }

    /// What `process` runs now, which may be another program than the one whose path was read.
    pub(crate) fn verify_executed(&mut self, process: i32, raced: Raced) -> Result<(), TraceError> {
        let (asking, used, spelled, directory) = match raced {
            Raced::Executing { asking, path, directory } => (asking, path.used, path.text, directory),
            Raced::Unknown { .. } => return self.gap(process, Gap::UnknownCall),
            _ => return Ok(()),
        };
        let Some(address) = proc::executed_path(process) else { return Ok(()) };
        match memory::read_string(process, address, &mut self.spelled) {
            Ok(()) => {}
            Err(Unread::Refused) => return Ok(()),
            Err(Unread::Hidden) => return self.gap(process, Gap::Memory),
        }
        let executed = below_descriptor(used.from, &self.spelled).to_vec();
        let Ok(place) = self.places.of(process, false) else { return Ok(()) };
        if executed == spelled || (executed.is_empty() && directory.is_some()) {
            return Ok(());
        }
        let from = directory.as_ref().unwrap_or(&place.directory);
        let asker = Asker { process, task: process, place: &place };
        let walk = self.walker.walk(asker, from, &executed, used.follow, false).walk;
        let asking = Asking { task: process, process, ..asking };
        self.tell_touch(asking, &place, used.access, &executed, &walk)?;
        self.executing(asking, &place, &walk)
    }

    /// The task is about to make `directory` its working directory: who shares it may find itself there.
    pub(crate) fn entering(&mut self, asking: Asking, directory: &[u8]) -> Result<(), TraceError> {
        if !self.may_share(asking) {
            return Ok(());
        }
        self.races.entering.insert(asking.task, directory.to_vec());
        let others = self.races.under_way.values().filter(|way| way.asking.task != asking.task);
        let others: Vec<Relative> = others.filter(|way| shares(way.asking.task, asking.task)).cloned().collect();
        for Relative { asking, used, spelled } in others {
            let Ok(place) = self.places.of(asking.task, false) else { continue };
            // It runs already, unless it is over and was not heard of since.
            if used.access.loses() {
                if proc::is_elsewhere(asking.task, asking.entry.number) {
                    continue;
                }
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
        let movers = movers.filter(|&(&mover, _)| shares(mover, asking.task));
        let directories: Vec<Vec<u8>> = movers.map(|(_, directory)| directory.clone()).collect();
        for directory in directories {
            self.tell_from(asking, used, place, &directory, spelled)?;
        }
        self.races.under_way.insert(asking.task, Relative { asking, used, spelled: spelled.to_vec() });
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
        let sets_times = asking.entry.call.sets_times();
        let way = (place.names(), directory, spelled);
        let question = (used.access, sets_times, used.follow, way);
        if !self.known.is_new(question) {
            return Ok(());
        }
        let asker = Asker { process: asking.process, task: asking.task, place };
        let walk = self.walker.walk(asker, directory, spelled, used.follow, false).walk;
        self.tell_touch(asking, place, used.access, spelled, &walk)
    }
}

/// What a call that has opened a descriptor has opened it for: no less than what was read when it began. The flags of
/// `openat2` stand in memory, which others may rewrite.
fn opened_for(asking: Asking, descriptor: i32, read: Access) -> Access {
    if !matches!(asking.entry.call.kind, Kind::OpenHow) || read == Access::Create {
        return read;
    }
    let opened = proc::open_flags(asking.task, descriptor).map_or(read, |flags| decode::open(flags).0);
    match (read, opened) {
        (Access::Look, _) | (_, Access::Write) => opened,
        _ => read,
    }
}

/// The path that was handed to the kernel, from the one that it gives a program (`fs/exec.c`, `alloc_bprm`): what is
/// relative to a descriptor stands below `/dev/fd`.
fn below_descriptor(from: From, executed: &[u8]) -> &[u8] {
    let From::Descriptor(descriptor) = from else { return executed };
    match executed.strip_prefix(format!("/dev/fd/{descriptor}").as_bytes()) {
        Some(rest) => rest.strip_prefix(b"/").unwrap_or(rest),
        None => executed,
    }
}

/// True if one of two tasks takes the other one along when it moves: a thread may have a working directory of its own (`unshare(2)`,
/// `CLONE_FS`).
fn shares(one: i32, other: i32) -> bool {
    sys::share(one, other, Common::Directory)
}
