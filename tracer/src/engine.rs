//! The loop: wait, decode, tell, resume.
//!
//! In: a command and a sink. Out: the events, to the sink, in the order in which they happened; then the outcome.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::Pid;
use pete::{Ptracer, Restart, Tracee};

use crate::TraceError;
use crate::calls::{Abi, Table};
use crate::decode::{self, Asked, Entry, From};
use crate::event::{Access, Event, Found, Gap, Protocol, Touch};
use crate::filter::{ABIS, MARK, X32_BIT};
use crate::known::Known;
use crate::machine::{End, Machine, Step};
use crate::memory::{self, Unread};
use crate::place::{self, Place, Places};
use crate::signals::Forwarding;
use crate::spawn::{Command, spawn};
use crate::status;
use crate::sys;
use crate::walk::{Asker, Walker};

/// How a program is traced.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How long processes that outlive the program's first one are followed before they are ended, by SIGTERM and, two
    /// seconds later, by SIGKILL. `None`: until they end by themselves.
    pub grace: Option<Duration>,
}

/// How the program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Exited(i32),
    Killed(i32),
}

/// Runs `command` and everything that it starts, and tells `sink` what they hand to the kernel.
///
/// The sink is called on this thread while the task in question stands still, before its call runs: files are still as
/// the program will find them. If it breaks, everything that is traced is killed.
///
/// # Errors
/// The program cannot be started or traced, or uses ptrace itself.
pub fn trace(
    command: &Command,
    options: &Options,
    sink: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> Result<Outcome, TraceError> {
    let forwarding = Forwarding::start().map_err(TraceError::Thread)?;
    let started = spawn(command, SEIZE_OPTIONS, forwarding.mask())?;
    forwarding.to(started.process);
    let mut engine = Engine::new(started.process, sink);
    let outcome = engine.run(options);
    if outcome.is_err() {
        engine.kill_all();
    }
    let outcome = outcome?;
    match started.failure(command) {
        Some(failure) if !engine.executed => Err(failure.into()),
        _ => Ok(outcome),
    }
}

/// No `PTRACE_O_TRACEEXIT`: it would cost a stop a task. `EXITKILL`: without a tracer no task may run on.
const SEIZE_OPTIONS: i32 = libc::PTRACE_O_TRACESECCOMP
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEEXEC
    | libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_EXITKILL;

/// How long a process has to obey SIGTERM once its grace is over.
const TERM: Duration = Duration::from_secs(2);

struct Engine<'a> {
    machine: Machine,
    ptracer: Ptracer,
    tables: BTreeMap<u32, (Abi, Table)>,
    places: Places,
    walker: Walker,
    known: Known,
    spelled: Vec<u8>,
    executed: bool,
    sink: &'a mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
}

/// The task that stands at the entry of a call.
#[derive(Clone, Copy)]
struct Asking {
    task: i32,
    process: i32,
    entry: Entry,
}

/// How a task goes on after its call was looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Run,
    /// Not at all: the call is answered with ENOSYS.
    Refuse,
}

impl<'a> Engine<'a> {
    fn new(main: i32, sink: &'a mut dyn FnMut(Event<'_>) -> ControlFlow<()>) -> Self {
        Self {
            machine: Machine::new(main),
            ptracer: Ptracer::new(),
            tables: ABIS.iter().map(|&(arch, abi)| (arch, (abi, Table::of(abi)))).collect(),
            places: Places::default(),
            walker: Walker::default(),
            known: Known::new(),
            spelled: Vec::with_capacity(memory::PATH_MAX),
            executed: false,
            sink,
        }
    }

    fn run(&mut self, options: &Options) -> Result<Outcome, TraceError> {
        let mut reaper = None;
        loop {
            let (task, raw) = match sys::wait_any() {
                Ok(stopped) => stopped,
                Err(Errno::EINTR) => continue,
                Err(Errno::ECHILD) => break,
                Err(errno) => return Err(TraceError::Wait(errno)),
            };
            let Some(stop) = status::decode(raw) else { continue };
            self.meet(task)?;
            let step = self.machine.step(task, stop);
            self.take(task, step)?;
            if let (None, Some(_), Some(grace)) = (&reaper, self.machine.end(), options.grace) {
                reaper = Some(Reaper::start(grace).map_err(TraceError::Thread)?);
            }
            if let Some(reaper) = &reaper {
                reaper.alive(self.machine.processes());
            }
        }
        match self.machine.end() {
            Some(End::Exited { code }) => Ok(Outcome::Exited(code)),
            Some(End::Killed { signal }) => Ok(Outcome::Killed(signal)),
            None => Err(TraceError::Wait(Errno::ECHILD)),
        }
    }

    /// Takes in a task that has not stopped before, and remembers that its last call is over.
    fn meet(&mut self, task: i32) -> Result<(), TraceError> {
        if self.known.settle(task) {
            self.forget();
        }
        if self.machine.knows(task) {
            return Ok(());
        }
        let Some((process, parent)) = place::family(task) else { return Ok(()) };
        self.machine.adopt(task, process);
        if process == task {
            self.tell(Event::Fork { parent, child: process })?;
        }
        Ok(())
    }

    fn take(&mut self, task: i32, step: Step) -> Result<(), TraceError> {
        match step {
            Step::Examine { process } => match self.examine(task, process)? {
                Verdict::Run => self.go_on(task),
                Verdict::Refuse => self.refuse(task),
            },
            Step::Examined { process } => {
                self.executed = true;
                self.places.forget();
                let event =
                    Event::Exec { process, arguments: place::arguments(process), loaded: place::mapped(process) };
                self.tell(event)?;
                self.go_on(task)
            }
            Step::Resume { signal: 0 } => self.go_on(task),
            // Not pete's restart: its signals are nix's, which has none of the real-time ones.
            Step::Resume { signal } => alive("resume", task, sys::resume(task, signal)),
            Step::Listen => alive("hold", task, sys::listen(task)),
            Step::Gone { process } => {
                self.places.remove(task);
                match process {
                    Some(process) => self.tell(Event::Exit { process }),
                    None => Ok(()),
                }
            }
        }
    }

    fn examine(&mut self, task: i32, process: i32) -> Result<Verdict, TraceError> {
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
        let Some((abi, table)) = self.tables.get(&entry.arch) else {
            return Ok(Verdict::Refuse);
        };
        let Some(call) = table.get(entry.number) else {
            if entry.number & u64::from(X32_BIT) != 0 {
                self.tell(Event::Gap { process, gap: Gap::X32 })?;
            }
            return Ok(Verdict::Refuse);
        };
        let asking = Asking { task, process, entry: Entry { abi: *abi, call, arguments: entry.arguments } };
        self.ask(asking)
    }

    /// Looks into everything that a call asks for.
    fn ask(&mut self, asking: Asking) -> Result<Verdict, TraceError> {
        let mut all = Vec::new();
        let memory = |address: u64, buffer: &mut [u8]| memory::read(asking.task, address, buffer);
        let read = decode::decode(&asking.entry, &memory, &mut |asked| all.push(asked));
        if read == Err(Unread::Hidden) {
            self.gap(asking, Gap::Memory)?;
        }
        let mut verdict = Verdict::Run;
        for asked in all {
            if self.answer(asking, asked)? == Verdict::Refuse {
                verdict = Verdict::Refuse;
            }
        }
        Ok(verdict)
    }

    fn answer(&mut self, asking: Asking, asked: Asked) -> Result<Verdict, TraceError> {
        match asked {
            Asked::Path { from, address, access, follow } => self.path(asking, from, address, access, follow)?,
            Asked::Inline { path, access } => {
                self.spelled.clone_from(&path);
                self.touch(asking, From::WorkingDirectory, access, true)?;
            }
            Asked::Descriptor { descriptor, access } => self.descriptor(asking, descriptor, access)?,
            Asked::Listen { descriptor } => self.listening(asking, descriptor, libc::SOCK_STREAM)?,
            Asked::BindPort { descriptor, port } => self.bound(asking, descriptor, port)?,
            Asked::Retrace { address, flags } => {
                let mut tracee = Tracee::new(Pid::from_raw(asking.task), None, pete::Stop::SyscallEnter);
                if tracee.write_memory(address, &flags.to_ne_bytes()).is_err() {
                    return Ok(Verdict::Refuse);
                }
            }
            Asked::RetraceRegister { flags } => Self::set_first_argument(asking.task, flags),
            Asked::Refuse => {
                self.gap(asking, Gap::IoUring)?;
                return Ok(Verdict::Refuse);
            }
            Asked::MountNamespace => self.gap(asking, Gap::MountNamespace)?,
            Asked::Handle => self.gap(asking, Gap::Handle)?,
            Asked::Supervisor => self.gap(asking, Gap::Supervisor)?,
            Asked::Nested => return Err(TraceError::Nested { task: asking.task }),
        }
        Ok(Verdict::Run)
    }

    /// A path in the task's memory.
    fn path(
        &mut self,
        asking: Asking,
        from: From,
        address: u64,
        access: Access,
        follow: bool,
    ) -> Result<(), TraceError> {
        if address == 0 {
            return Ok(());
        }
        let mut spelled = std::mem::take(&mut self.spelled);
        let read = memory::read_string(asking.task, address, &mut spelled);
        self.spelled = spelled;
        match read {
            Ok(()) if self.spelled.is_empty() => self.empty(asking, from, access),
            Ok(()) => self.touch(asking, from, access, follow),
            Err(Unread::Refused) => Ok(()),
            Err(Unread::Hidden) => self.gap(asking, Gap::Memory),
        }
    }

    /// An empty path: nothing (ENOENT), or the descriptor itself.
    fn empty(&mut self, asking: Asking, from: From, access: Access) -> Result<(), TraceError> {
        match from {
            // What is open was seen when it was opened; only what is more than a look says something new.
            From::Descriptor(descriptor) if access != Access::Look && decode::allows_empty(&asking.entry) => {
                self.descriptor(asking, descriptor, access)
            }
            _ => Ok(()),
        }
    }

    /// What is open at one of the task's descriptors.
    fn descriptor(&mut self, asking: Asking, descriptor: i32, access: Access) -> Result<(), TraceError> {
        match place::descriptor(asking.task, descriptor) {
            Some(path) if path.starts_with(b"/") => {
                self.spelled = path;
                self.touch(asking, From::WorkingDirectory, access, false)
            }
            _ => Ok(()),
        }
    }

    /// Walks `self.spelled` and tells where it leads, unless that is known.
    fn touch(&mut self, asking: Asking, from: From, access: Access, follow: bool) -> Result<(), TraceError> {
        let Asking { task, process, entry } = asking;
        let settled = self.known.is_settled();
        let Some(mut place) = self.places.of(task, settled) else { return Ok(()) };
        let Some(from) = start(task, from, &mut place, &self.spelled) else { return Ok(()) };
        let moves = moves(access);
        let question = (access, follow, place.root.as_slice(), from.as_slice(), self.spelled.as_slice());
        let is_new = self.known.is_new(question);
        if is_new || moves {
            let asker = Asker { process, task, place: &place };
            let walk = self.walker.walk(asker, &from, &self.spelled, follow, settled);
            let changes_names = changes_names(entry.call.name, access, &walk.found);
            let spelled = std::mem::take(&mut self.spelled);
            let touch = Touch { process, call: entry.call.name, access, spelled: &spelled, walk: &walk };
            self.tell(Event::Touch(touch))?;
            self.spelled = spelled;
            if moves || changes_names {
                self.known.unsettle(task);
                self.forget();
            }
        }
        Ok(())
    }

    /// A socket is about to take connections: at which port?
    fn listening(&mut self, asking: Asking, descriptor: i32, kind: i32) -> Result<(), TraceError> {
        let socket = sys::copy_descriptor(asking.process, descriptor);
        let Ok((found, Some(port))) = socket.and_then(|socket| sys::socket_port(socket.as_fd())) else { return Ok(()) };
        if found != kind {
            return Ok(());
        }
        self.tell(Event::Listen { process: asking.process, port, protocol: Protocol::Tcp })
    }

    /// A datagram socket takes datagrams as soon as it has a port.
    fn bound(&mut self, asking: Asking, descriptor: i32, port: u16) -> Result<(), TraceError> {
        let socket = sys::copy_descriptor(asking.process, descriptor);
        match socket.and_then(|socket| sys::socket_port(socket.as_fd())) {
            Ok((libc::SOCK_DGRAM, _)) if port != 0 => {
                self.tell(Event::Listen { process: asking.process, port, protocol: Protocol::Udp })
            }
            _ => Ok(()),
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn set_first_argument(task: i32, value: u64) {
        change_registers(task, |registers| registers.rdi = value);
    }

    #[cfg(target_arch = "aarch64")]
    fn set_first_argument(task: i32, value: u64) {
        change_registers(task, |registers| registers.regs[0] = value);
    }

    /// Lets the task go on without its call, as if the kernel did not have it.
    #[cfg(target_arch = "x86_64")]
    fn refuse(&mut self, task: i32) -> Result<(), TraceError> {
        // seccomp(2), SECCOMP_RET_TRACE: the number -1 skips the call, and the tracer gives the result.
        change_registers(task, |registers| {
            registers.orig_rax = u64::MAX;
            registers.rax = (-i64::from(libc::ENOSYS)).cast_unsigned();
        });
        self.go_on(task)
    }

    #[cfg(target_arch = "aarch64")]
    fn refuse(&mut self, task: i32) -> Result<(), TraceError> {
        change_registers(task, |registers| {
            registers.regs[8] = u64::MAX;
            registers.regs[0] = (-i64::from(libc::ENOSYS)).cast_unsigned();
        });
        self.go_on(task)
    }

    fn go_on(&mut self, task: i32) -> Result<(), TraceError> {
        let tracee = Tracee::new(Pid::from_raw(task), None, pete::Stop::SyscallEnter);
        match self.ptracer.restart(tracee, Restart::Continue) {
            Ok(()) | Err(pete::Error::TraceeDied { .. }) => Ok(()),
            Err(pete::Error::OS(source)) => Err(TraceError::Ptrace { step: "resume", task, source }),
            Err(_) => Err(TraceError::Ptrace { step: "resume", task, source: Errno::UnknownErrno }),
        }
    }

    fn gap(&mut self, asking: Asking, gap: Gap) -> Result<(), TraceError> {
        self.tell(Event::Gap { process: asking.process, gap })
    }

    fn tell(&mut self, event: Event<'_>) -> Result<(), TraceError> {
        match (self.sink)(event) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(TraceError::Stopped),
        }
    }

    /// What was learned of names and places may be out of date.
    fn forget(&mut self) {
        self.places.forget();
        self.walker.forget();
    }

    /// Ends everything that is traced, and waits until it is gone.
    fn kill_all(&mut self) {
        for process in self.machine.processes() {
            sys::kill(process, libc::SIGKILL);
        }
        loop {
            match sys::wait_any() {
                // A task born in the meantime, or one that has only just stopped.
                Ok((task, _)) => sys::kill(task, libc::SIGKILL),
                Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }
}

fn change_registers(task: i32, change: impl FnOnce(&mut pete::Registers)) {
    let mut tracee = Tracee::new(Pid::from_raw(task), None, pete::Stop::SyscallEnter);
    // An error means that the task was killed while it stood there; its end is reported by wait.
    let Ok(mut registers) = tracee.registers() else { return };
    change(&mut registers);
    let _ = tracee.set_registers(registers);
}

/// ESRCH from a ptrace request means that the task was killed while it stood there (`ptrace(2)`, "Death under
/// ptrace"); wait reports its end.
fn alive(step: &'static str, task: i32, result: Result<(), Errno>) -> Result<(), TraceError> {
    match result {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(source) => Err(TraceError::Ptrace { step, task, source }),
    }
}

/// Where a path starts from; `None` if its descriptor is not open or is no directory's.
fn start(task: i32, from: From, place: &mut Place, spelled: &[u8]) -> Option<Vec<u8>> {
    match from {
        From::Root(descriptor) => {
            let root = place::descriptor(task, descriptor)?;
            place.root.clone_from(&root);
            Some(root)
        }
        // The kernel looks at the descriptor only for a relative path.
        From::Descriptor(descriptor) if !spelled.starts_with(b"/") => {
            place::descriptor(task, descriptor).filter(|path| path.starts_with(b"/"))
        }
        _ => Some(place.directory.clone()),
    }
}

/// True if the task is somewhere else afterwards.
fn moves(access: Access) -> bool {
    access == Access::Enter
}

/// True if, after the call, a path may lead somewhere that was there before: a new link, a rename, a mount, or the end
/// of a link. A new file or directory changes only what was missing, and a missing path stays missing for the image.
fn changes_names(call: &str, access: Access, found: &Found) -> bool {
    match access {
        Access::Replace | Access::Mount => true,
        Access::Create => call.starts_with("symlink"),
        Access::Remove => {
            call.starts_with("rename")
                || matches!(found, Found::There(stat) if stat.st_mode & libc::S_IFMT == libc::S_IFLNK)
        }
        _ => false,
    }
}

/// Ends the processes that outlive the program.
struct Reaper {
    processes: std::sync::mpsc::Sender<std::collections::BTreeSet<i32>>,
}

impl Reaper {
    fn start(grace: Duration) -> std::io::Result<Self> {
        let (processes, alive) = std::sync::mpsc::channel();
        std::thread::Builder::new().spawn(move || {
            let mut left = std::collections::BTreeSet::new();
            for (wait, signal) in [(grace, libc::SIGTERM), (TERM, libc::SIGKILL)] {
                let deadline = std::time::Instant::now() + wait;
                loop {
                    match alive.recv_timeout(deadline.saturating_duration_since(std::time::Instant::now())) {
                        Ok(processes) => left = processes,
                        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => break,
                        Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return,
                    }
                }
                for &process in &left {
                    sys::kill(process, signal);
                }
            }
        })?;
        Ok(Self { processes })
    }

    fn alive(&self, processes: std::collections::BTreeSet<i32>) {
        // The thread is gone once it has killed everything.
        let _ = self.processes.send(processes);
    }
}
