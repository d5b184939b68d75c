//! What a call at its entry asks for, found out and told.
//!
//! Where its paths lead is in [`touch`](crate::touch); what others may do to it meanwhile, in [`race`](crate::race).

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::readlink;

use crate::TraceError;
use crate::calls::{Abi, YOUNGEST};
use crate::changed::Changing;
use crate::decode::{self, Asked, Entry, From};
use crate::engine::{Engine, Verdict};
use crate::event::{Access, Event, Gap};
use crate::filter::{MARK, X32_BIT};
use crate::known::Change;
use crate::memory::{self, Unread};
use crate::proc;
use crate::race::{Led, Raced, Spelled};
use crate::retrace::Retraced;
use crate::served::Lies;
use crate::sys::{self, SyscallEntry, WaitingCall};

/// The task that stands at the entry of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asking {
    pub(crate) task: i32,
    pub(crate) process: i32,
    pub(crate) entry: Entry,
    /// Where its stack ends, if that is known.
    pub(crate) stack: Option<u64>,
    /// The number by which the call waits for its answer; `None`: it stops.
    pub(crate) waits: Option<u64>,
}

impl Asking {
    /// The same where its call has returned: it waits for no answer any more.
    pub(crate) fn answered(self) -> Self {
        Self { waits: None, ..self }
    }
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
            Err(Errno::ESRCH) => return Ok(Verdict::Run),
            // Another thread has executed something, has its number, and stands still for that.
            Ok(None) => return Ok(Verdict::Leave),
            Err(source) => return Err(TraceError::Ptrace { step: "read the call of", task, source }),
        };
        if entry.data != u32::from(MARK) {
            // A filter of the program's own asks for a tracer. It has none: seccomp(2) then says ENOSYS.
            return Ok(Verdict::Refuse);
        }
        self.look_up(task, process, entry, None)
    }

    /// Looks at a call that waits.
    pub(crate) fn listen(&mut self, call: &WaitingCall, process: i32) -> Result<Verdict, TraceError> {
        let WaitingCall { id, task, arch, number, arguments, instruction } = *call;
        let entry = SyscallEntry { arch, number, arguments, instruction, data: 0, stack: None };
        self.look_up(task, process, entry, Some(id))
    }

    /// True if the first thread of a process is gone, whose call this is, and another thread that has executed something has its number:
    /// what was read of the task then is nothing that the call asks for (`ptrace(2)`, "execve(2) under ptrace").
    pub(crate) fn is_overtaken(&self, task: i32, process: i32, waits: Option<u64>) -> bool {
        if task != process || !self.machine.is_threaded(process) {
            return false;
        }
        match (waits, &self.calls) {
            (Some(id), Some(calls)) => !sys::still_waits(calls.as_fd(), id),
            _ => !sys::stands_still(task),
        }
    }

    fn look_up(
        &mut self,
        task: i32,
        process: i32,
        entry: SyscallEntry,
        waits: Option<u64>,
    ) -> Result<Verdict, TraceError> {
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
        let asking = Asking { task, process, entry, stack, waits };
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
        if let Err(unread) = read {
            self.unread(asking.process, unread)?;
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
                return self.by_path(asking, address, Use { from, access, follow, verify: false });
            }
            Asked::Inline { path, access, follow } => {
                self.spelled = path;
                self.touch(asking, Use { from: From::WorkingDirectory, access, follow, verify: false })?;
            }
            Asked::Descriptor { descriptor, access } => self.descriptor(asking, descriptor, access)?,
            Asked::Account(account) => self.tell(Event::Account { task, account })?,
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
            Asked::MountNamespace => self.changes_namespaces(asking)?,
            Asked::DetachedMount => {
                if self.places.expect_detached().is_err() {
                    self.gap(process, Gap::MountNamespace)?;
                }
                self.unsettle(task, Change::Places);
            }
            Asked::MountSource { address, kind, flags } => {
                if self.is_mount_source(asking, kind, flags)? {
                    return self.answer(asking, Asked::look(address));
                }
            }
            Asked::MountOptions { kind, options } => self.mount_options(asking, kind, options)?,
            Asked::MountOption { name, value } => self.mount_option(asking, name, value)?,
            Asked::Handle { mount, address, access } => return self.by_handle(asking, mount, address, access),
            Asked::Probe { kind, address } => match proc::probe_kind() {
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

    /// What a call does to what its path leads to; the path is read once more as it returns where others may rewrite it.
    fn by_path(&mut self, asking: Asking, address: u64, used: Use) -> Result<Verdict, TraceError> {
        let Use { from, access, .. } = used;
        let call = asking.entry.call;
        let asks = !(call.opens() || call.changes() || call.executes());
        let verify = !asks
            && address != 0
            && (self.may_be_moved(asking, from, access) || self.may_be_rewritten(asking, from, address));
        let used = Use { verify, ..used };
        let led = self.path(asking, address, used)?.unwrap_or_default();
        if !verify {
            return Ok(unverified(&led));
        }
        let path = Spelled { address, used, text: self.spelled.clone() };
        if call.opens() {
            return Ok(Verdict::Verify(Raced::Opening { asking, access, led: Box::new(led), path: Some(path) }));
        }
        if access == Access::Execute {
            return Ok(Verdict::Verify(self.executing_by_path(asking, path)));
        }
        let may_ask = self.place(asking.task).is_ok_and(|place| place.lies(&led.end) == Lies::Elsewhere);
        self.changing.push(Changing::new(path, led, may_ask));
        Ok(Verdict::Run)
    }

    /// The same for a file handle, which lies where a path may.
    fn by_handle(&mut self, asking: Asking, mount: i32, address: u64, access: Access) -> Result<Verdict, TraceError> {
        let verify = self.may_be_rewritten(asking, From::Descriptor(mount), address);
        let Some(led) = self.handle(asking, mount, address, access)? else {
            return Ok(Verdict::Verify(Raced::Unseen { process: asking.process, gap: Gap::Handle }));
        };
        Ok(if verify {
            Verdict::Verify(Raced::Opening { asking, access, led: Box::new(led), path: None })
        } else {
            unverified(&led)
        })
    }

    /// A task is about to make a mount namespace, or to enter one.
    fn changes_namespaces(&mut self, asking: Asking) -> Result<(), TraceError> {
        if self.places.expect_namespaces().is_err() {
            self.gap(asking.process, Gap::MountNamespace)?;
        }
        if asking.entry.call.name == "setns" {
            let traced = self.machine.processes();
            self.places.enter_namespace(asking.task, asking.entry.arguments[0] as i32, traced);
        }
        // What is known of a namespace that is gone says nothing of a new one, which may get its number.
        self.unsettle(asking.task, Change::Names);
        Ok(())
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
                From::WorkingDirectory if decode::allows_none(&asking.entry) && decode::allows_empty(&asking.entry) => {
                    self.spelled.clear();
                    self.empty(asking, used).map(|()| None)
                }
                _ => Ok(None),
            };
        }
        let read = memory::read_string(asking.task, address, &mut self.spelled);
        if self.is_overtaken(asking.task, asking.process, asking.waits) {
            return Ok(None);
        }
        match read {
            Ok(()) if self.spelled.is_empty() => self.empty(asking, used)?,
            Ok(()) => return self.touch(asking, used),
            Err(unread) => {
                self.spelled.clear();
                self.unread(asking.process, unread)?;
            }
        }
        Ok(None)
    }

    /// Memory could not be read that a call refers to.
    pub(crate) fn unread(&mut self, process: i32, unread: Unread) -> Result<(), TraceError> {
        if unread == Unread::Hidden { self.gap(process, Gap::Memory) } else { Ok(()) }
    }

    /// An empty path: nothing (ENOENT), or the descriptor itself, or the working directory.
    pub(crate) fn empty(&mut self, asking: Asking, used: Use) -> Result<(), TraceError> {
        // What is open was seen when it was opened; only what is more than a look says something new.
        if used.access == Access::Look || !decode::allows_empty(&asking.entry) {
            return Ok(());
        }
        match used.from {
            From::Descriptor(descriptor) => self.descriptor(asking, descriptor, used.access),
            From::WorkingDirectory => {
                self.spelled.push(b'.');
                let told = self.touch(asking, Use { follow: true, verify: false, ..used });
                self.spelled.clear();
                told.map(drop)
            }
            From::Root(_) => Ok(()),
        }
    }

    /// What is open at one of the task's descriptors.
    pub(crate) fn descriptor(&mut self, asking: Asking, descriptor: i32, access: Access) -> Result<(), TraceError> {
        if access == Access::Enter {
            self.unsettle(asking.task, Change::Places);
        }
        let open = self.places.descriptor(asking.task, descriptor);
        if self.is_overtaken(asking.task, asking.process, asking.waits) {
            return Ok(());
        }
        let open = match open {
            Ok(open) => open,
            Err(errno) => return self.hidden(asking.process, errno),
        };
        let has_path = open.path.starts_with(b"/") && !open.is_deleted;
        let settled = self.known.is_settled();
        if has_path && access == Access::Enter && !self.places.is_no_directory(asking.task, descriptor, &open, settled)
        {
            self.entering(asking, &open.path)?;
        }
        if has_path {
            self.open_at(asking, descriptor, open.path.clone(), access)?;
        }
        // A file that has no name, or has none any more, still names an interpreter.
        if access == Access::Execute { self.executing_open(asking, descriptor, open.path) } else { Ok(()) }
    }
}

/// How a call goes on whose path nobody can rewrite.
fn unverified(led: &Led) -> Verdict {
    if led.waits { Verdict::Verify(Raced::Waiting) } else { Verdict::Run }
}
