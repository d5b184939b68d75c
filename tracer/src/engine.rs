//! The loop: wait, decode, tell, resume.
//!
//! In: a command and a sink. Out: the events, to the sink, in the order in which they happened; then the outcome. What a
//! call asks for is found out in [`inspect`](crate::inspect).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicI32;
use std::time::Duration;

use nix::errno::Errno;

use crate::anew::Anew;
use crate::calls::{Abi, Table};
use crate::changed::Changing;
use crate::decode::Asked;
use crate::event::{Event, Gap};
use crate::events::{Events, Next, Waiting};
use crate::filter::ABIS;
use crate::foresight::{Foreseen, Looks};
use crate::interpreters::Program;
use crate::known::{Change, Known};
use crate::listener::Listener;
use crate::machine::{End, Machine, Step};
use crate::own_filters::OwnFilters;
use crate::place::Places;
use crate::proc;
use crate::race::{Raced, Races};
use crate::reaper::Reaper;
use crate::retrace::{self, Retraced};
use crate::signals::Forwarding;
use crate::spawn::{Command, Started, spawn};
use crate::status::Stop;
use crate::turns::Turns;
use crate::walk::Walker;
use crate::{TraceError, limits, memory, mounts, status, sys, unheard};

/// How a program is traced.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How long processes that outlive the program's first one are followed before they are ended, by SIGTERM and, two
    /// seconds later, by SIGKILL. `None`: until they end by themselves.
    pub grace: Option<Duration>,
    /// Takes the number of the first signal, of those that ask for an end, that came for the program; 0 until then.
    pub told_to_end: Arc<AtomicI32>,
    /// It runs beside what this process traces already on another thread, and may look at this process: it starts without
    /// any descriptor of it, without its streams, and this process may be undumpable (`PR_SET_DUMPABLE(2const)`).
    pub beside: bool,
    /// It starts in a user namespace in which this process has no right to look at what hides, as a process does that has
    /// changed its user (`PR_SET_DUMPABLE(2const)`): until it executes something it is kept from hiding.
    pub confined: bool,
}

/// How the program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Exited(i32),
    Killed(i32),
}

/// Who is told of the events.
pub type Sink<'a> = dyn FnMut(Event<'_>) -> ControlFlow<()> + Send + 'a;

/// Runs `command` and everything that it starts, and tells `sink` what they hand to the kernel.
///
/// The sink is called while the task in question stands still, before its call runs: files are
/// still as the program will find them. If it breaks, everything that is traced is killed.
///
/// # Errors
/// The program cannot be started or traced, or uses ptrace itself.
pub fn trace(command: &Command, options: &Options, sink: &mut Sink<'_>) -> Result<Outcome, TraceError> {
    if !proc::shows_tasks() {
        return Err(TraceError::Blind);
    }
    let forwarding = Forwarding::start(Arc::clone(&options.told_to_end)).map_err(TraceError::Thread)?;
    limits::lift();
    let mut events = Events::new().map_err(TraceError::Wait)?;
    let mut started = spawn(command, SEIZE_OPTIONS, forwarding.mask(), options)?;
    forwarding.to(started.process);
    let mut engine = Engine::new(started.process, &forwarding, sink);
    let outcome = run(&mut engine, &mut events, &mut started, options).map_err(|failure| engine.give_up(failure))?;
    match started.failure(command) {
        Some(failure) if !engine.executed => Err(failure.into()),
        _ => Ok(outcome),
    }
}

/// Takes in what the tasks do, until none is left.
fn run(
    engine: &mut Engine<'_>,
    events: &mut Events,
    started: &mut Started,
    options: &Options,
) -> Result<Outcome, TraceError> {
    let mut reaper = None;
    let mut has_begun = false;
    loop {
        let next = engine.turns.due().map_or_else(|| events.next(engine.turns.left()), Ok);
        let Some(next) = next.map(|next| engine.turns.take(next)).transpose() else { continue };
        let (task, raw) = match next {
            Ok(Next::Nothing) => continue,
            Ok(Next::Stop(task, raw)) => (task, raw),
            Ok(Next::Call(call)) => {
                engine.called(events, &call, None)?;
                continue;
            }
            Ok(Next::Foreseen(Waiting::Call(call), foreseen)) => {
                engine.called(events, &call, Some(foreseen))?;
                continue;
            }
            Ok(Next::Foreseen(Waiting::Stop(task, looks), foreseen)) => {
                engine.foreseen(task, looks, foreseen)?;
                engine.look(events)?;
                continue;
            }
            Err(Errno::ECHILD) => break,
            Err(errno) => return Err(TraceError::Wait(errno)),
        };
        let Some(stop) = status::decode(raw) else { continue };
        if stop == Stop::Seccomp && !has_begun {
            has_begun = true;
            engine.begin(task)?;
            if let Some(descriptor) = started.listener() {
                let listener = Listener::take(task, descriptor).map_err(|source| TraceError::Ptrace {
                    step: "take the listener of",
                    task,
                    source,
                })?;
                engine.calls = Some(listener.share());
                events.listen(listener);
            }
        }
        let has_changed = engine.stopped(task, stop)?;
        engine.look(events)?;
        if let (None, Some(_), Some(grace)) = (&reaper, engine.machine.end(), options.grace) {
            let started = Reaper::start(grace).map_err(TraceError::Thread)?;
            engine.signals.outlived(&started);
            reaper = Some(started);
        } else if !has_changed {
            continue;
        }
        if let Some(reaper) = &reaper {
            reaper.alive(engine.machine.processes());
        }
    }
    engine.tell_datagrams(None)?;
    match engine.machine.end() {
        Some(End::Exited { code }) => Ok(Outcome::Exited(code)),
        Some(End::Killed { signal }) => Ok(Outcome::Killed(signal)),
        None => Err(TraceError::Wait(Errno::ECHILD)),
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

pub(crate) struct Engine<'a> {
    pub(crate) machine: Machine,
    pub(crate) tables: BTreeMap<u32, (Abi, Table)>,
    pub(crate) places: Places,
    pub(crate) walker: Walker,
    pub(crate) known: Known,
    /// What the call under examination asks for, and the path that it spells: kept for their memory.
    pub(crate) asked: Vec<Asked>,
    pub(crate) spelled: Vec<u8>,
    /// Tasks whose calls lost `CLONE_UNTRACED`, until they return, and their children, until they start.
    pub(crate) retraced: HashMap<i32, Retraced>,
    /// Tasks whose calls take a path that another thread may rewrite, until they return.
    pub(crate) raced: HashMap<i32, Raced>,
    /// Tasks that stop when a call returns of which the listener has heard.
    pub(crate) anew: Anew,
    /// Calls of which the listener has heard and whose return is waited for, by number and arguments, until something else is
    /// heard of their task: a signal may end these.
    pub(crate) heard: HashMap<i32, (u64, [u64; 6])>,
    /// The paths of the call under examination that are such.
    pub(crate) changing: Vec<Changing>,
    pub(crate) races: Races,
    /// Tasks that stand at the entry of a call for which looks are taken, each with their number.
    waiting: HashMap<i32, u64>,
    /// Looks that are to be taken.
    looks: Vec<Looks>,
    looked: u64,
    pub(crate) executed: bool,
    pub(crate) telling: Telling,
    /// Tasks in a call that gives something another name.
    pub(crate) moving: HashSet<i32>,
    pub(crate) turns: Turns,
    /// What processes are about to run.
    pub(crate) programs: HashMap<i32, Program>,
    pub(crate) own_filters: OwnFilters,
    /// Sockets that were bound to a port of the program's choice, by their cookies (`SO_COOKIE` of `socket(7)`).
    pub(crate) chosen: HashSet<u64>,
    /// Datagram sockets that were bound to a port of the program's choice, by their cookies: by which process, and to which.
    pub(crate) datagrams: BTreeMap<u64, (i32, u16)>,
    /// Where calls that ask or open wait, in the place of a stop; `None`: they stop.
    pub(crate) calls: Option<Arc<OwnedFd>>,
    pub(crate) signals: &'a Forwarding,
    sink: &'a mut Sink<'a>,
}

/// How a task goes on after its call was looked at.
#[derive(Debug)]
pub(crate) enum Verdict {
    Run,
    /// It does not stand there any more; what it does is heard of.
    Leave,
    /// Not yet: looks that may have to wait for other tasks come first.
    Wait(Looks),
    /// Not at all: the call is answered with ENOSYS.
    Refuse,
    /// Without `CLONE_UNTRACED`.
    Retrace(Retraced),
    /// Until it returns.
    Verify(Raced),
}

/// How touches are told.
#[derive(Debug, Default)]
pub(crate) struct Telling {
    /// The last one is to be told again when it is asked for again.
    pub(crate) again: bool,
    /// The next one was told before.
    pub(crate) is_repeated: bool,
}

impl<'a> Engine<'a> {
    fn new(main: i32, signals: &'a Forwarding, sink: &'a mut Sink<'a>) -> Self {
        Self {
            machine: Machine::new(main),
            tables: ABIS.iter().map(|&(arch, abi)| (arch, (abi, Table::of(abi)))).collect(),
            places: Places::default(),
            walker: Walker::default(),
            known: Known::new(),
            asked: Vec::new(),
            spelled: Vec::with_capacity(memory::PATH_MAX),
            retraced: HashMap::new(),
            raced: HashMap::new(),
            anew: Anew::default(),
            heard: HashMap::new(),
            changing: Vec::new(),
            races: Races::default(),
            waiting: HashMap::new(),
            looks: Vec::new(),
            looked: 0,
            executed: false,
            telling: Telling::default(),
            moving: HashSet::new(),
            turns: Turns::default(),
            programs: HashMap::new(),
            own_filters: OwnFilters::default(),
            chosen: HashSet::new(),
            datagrams: BTreeMap::new(),
            calls: None,
            signals,
            sink,
        }
    }

    /// Takes in one stop, or end; true if there may be other processes now.
    fn stopped(&mut self, task: i32, stop: Stop) -> Result<bool, TraceError> {
        if !self.waiting.is_empty() {
            self.waiting.remove(&task);
        }
        self.settle(task)?;
        if self.is_on_the_way(task, stop)? {
            return Ok(false);
        }
        let is_new = self.meet(task)?;
        let step = self.machine.step(task, stop);
        self.take(task, step)?;
        Ok(is_new || matches!(step, Step::Gone { .. } | Step::Born { .. }))
    }

    /// What `task` is about to ask for has been foreseen, by the looks of this number.
    fn foreseen(&mut self, task: i32, looks: u64, foreseen: Foreseen) -> Result<(), TraceError> {
        if self.waiting.get(&task) != Some(&looks) {
            return Ok(());
        }
        self.waiting.remove(&task);
        let Some(process) = self.machine.process_of(task) else { return Ok(()) };
        if self.places.refresh() {
            self.walker.forget();
        }
        self.walker.foreseen = foreseen;
        let taken = self.take(task, Step::Examine { process });
        self.walker.foreseen = Foreseen::default();
        taken
    }

    /// Has the looks taken that have come up.
    fn look(&mut self, events: &mut Events) -> Result<(), TraceError> {
        for looks in self.looks.drain(..) {
            self.looked += 1;
            self.waiting.insert(looks.task, self.looked);
            let who = Waiting::Stop(looks.task, self.looked);
            events.look(looks, who)?;
        }
        Ok(())
    }

    /// `task` is heard of again: its last call is over.
    pub(crate) fn settle(&mut self, task: i32) -> Result<(), TraceError> {
        self.races.settle(task);
        self.places.served.settle(task);
        if self.places.refresh() {
            self.walker.forget();
        }
        match self.known.settle(task) {
            Some(Change::Names) => {
                self.forget_names();
                if self.places.has_mounted() && (!proc::shows_tasks() || mounts::hide_tasks()) {
                    let process = self.machine.process_of(task).unwrap_or(task);
                    self.gap(process, Gap::MountNamespace)?;
                }
                self.names_changed()
            }
            Some(Change::Places) => {
                self.places.forget();
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn take(&mut self, task: i32, step: Step) -> Result<(), TraceError> {
        match step {
            Step::Examine { process } => match self.examine(task, process)? {
                Verdict::Run => self.go_on(task),
                Verdict::Leave => Ok(()),
                Verdict::Wait(looks) => {
                    self.looks.push(looks);
                    Ok(())
                }
                Verdict::Refuse => {
                    alive("skip a call of", task, retrace::skip(task))?;
                    self.go_on(task)
                }
                Verdict::Verify(raced) => {
                    self.raced.insert(task, raced);
                    self.go_on(task)
                }
                Verdict::Retrace(retraced) => {
                    self.retraced.insert(task, retraced);
                    self.go_on(task)
                }
            },
            Step::Executed { was_threaded } => {
                self.runs_anew(task, was_threaded)?;
                self.go_on(task)
            }
            Step::Start => {
                self.starts_to_run(task)?;
                if self.own_filters.keep_waiting(task) { Ok(()) } else { self.go_on(task) }
            }
            Step::Born { waits } => {
                // While its maker stands here, so that the kernel still tells who that is.
                if let Ok(child) = sys::event_task(task) {
                    self.born(child, task, waits)?;
                }
                self.go_on(task)
            }
            Step::Returned => {
                self.moved(task, |task| sys::syscall_result(task).ok().map(|result| result.is_some()))?;
                if let Some(raced) = self.raced.remove(&task) {
                    self.verify(raced, sys::syscall_result(task).ok().flatten())?;
                }
                if let Some(retraced) = self.retraced.remove(&task) {
                    alive("restore the clone flags of", task, retraced.undo(task))?;
                }
                self.go_on(task)
            }
            Step::Resume { signal } => {
                if self.calls.is_some() {
                    self.mend(task)?;
                }
                alive("mend the call of", task, unheard::wait_on(task, signal))?;
                alive("resume", task, sys::resume(task, unheard::passed_on(task, signal)))
            }
            Step::Listen => {
                alive("hold", task, sys::listen(task))?;
                self.tell_if_stopped();
                Ok(())
            }
            Step::Gone { process } => {
                self.tell_if_stopped();
                self.gone(task, process)
            }
        }
    }

    /// Lets whoever waits for that know if the program stands in a group-stop by now.
    fn tell_if_stopped(&self) {
        if self.machine.has_stopped(proc::is_zombie) {
            self.signals.stopped(self.machine.others());
        }
    }

    /// Lets a task go on; to the return of its call if that is to be heard of.
    pub(crate) fn go_on(&mut self, task: i32) -> Result<(), TraceError> {
        // While places or names change, nothing is remembered. Alone, a task is heard of before it matters; among others
        // it might not be heard of again for long.
        let changes = self.known.is_unsettled_by(task) && !self.machine.is_single();
        let moves = self.moving.contains(&task);
        if moves && !self.machine.is_single() && self.places.served.table().is_none() {
            self.turns.begin(task);
        }
        let returns = changes || moves || self.retraced.contains_key(&task) || self.raced.contains_key(&task);
        let result = if returns { sys::resume_to_return(task) } else { sys::resume(task, 0) };
        alive("resume", task, result)
    }

    pub(crate) fn gap(&mut self, process: i32, gap: Gap) -> Result<(), TraceError> {
        self.tell(Event::Gap { process, gap })
    }

    pub(crate) fn tell(&mut self, event: Event<'_>) -> Result<(), TraceError> {
        match (self.sink)(event) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(TraceError::Stopped),
        }
    }

    /// A call that changes places or names is about to run.
    pub(crate) fn unsettle(&mut self, task: i32, change: Change) {
        self.known.unsettle(task, change);
        self.places.forget();
        if change == Change::Names {
            self.forget_names();
            self.names_change(task);
        }
    }

    /// What was learned of names and places may be out of date.
    fn forget_names(&mut self) {
        self.places.forget_views();
        self.places.views.change(self.known.are_names_changing());
        self.walker.forget();
    }
}

/// ESRCH from a ptrace request means that the task was killed while it stood there (`ptrace(2)`, "Death under
/// ptrace"); wait reports its end.
pub(crate) fn alive(step: &'static str, task: i32, result: Result<(), Errno>) -> Result<(), TraceError> {
    match result {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(source) => Err(TraceError::Ptrace { step, task, source }),
    }
}
