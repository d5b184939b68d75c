//! Signals for the tracer are signals for the program.
//!
//! While a program is traced, a thread takes the signals that end or stop a tracer and passes them on. What a terminal
//! sends reaches the whole process group anyway and is only kept from ending the tracer. The second one ends it at once;
//! its tasks go with it (`PTRACE_O_EXITKILL`).
//!
//! A tracer that stops at Ctrl-Z together with its program leaves the program where it heard of the signal: its handler,
//! which would have restored the terminal, would run only after `fg`, and stop it once more. So the tracer goes on, and
//! stops after the program has. A program that stops for itself alone does not stop the tracer: whoever wakes it may not
//! know of the tracer, which it needs to wake.
//! But one that is a job of a shell, and has the terminal, stops as that job, with nothing of it left that could wake it: the shell,
//! which would take the terminal from a job that has stopped, hears of the tracer alone. And one that has the terminal in a process
//! group of its own, as a shell does, stops as a job of the shell around it: nobody else would give the terminal to anybody. So the
//! tracer takes it, stops, and gives it back when it is woken.

use std::os::unix::thread::JoinHandleExt;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::unistd::{Pid, getpgid, getpgrp, getpid, getppid, getsid, gettid};

use crate::proc;
use crate::reaper::Reaper;
use crate::sys::{self, Heard};
use crate::terminal::Terminal;

/// All that the thread takes: what would end or stop this process, or make it go on, if somebody sent it; and what it would ignore and
/// servers take for a word to stop (`SIGWINCH`). Not what a fault of its own raises.
const TAKEN: &[i32] = &{
    let mut all = [0; NAMED.len() + REAL_TIME];
    let mut index = 0;
    while index < all.len() {
        all[index] = if index < NAMED.len() { NAMED[index] } else { FIRST_REAL + (index - NAMED.len()) as i32 };
        index += 1;
    }
    all
};

/// The first of those in real time (`signal(7)`): the C library keeps 32 and 33 for itself.
const FIRST_REAL: i32 = 34;

/// So many there are from that one on.
const REAL_TIME: usize = 31;

const NAMED: [i32; 20] = [
    libc::SIGINT,
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGCONT,
    libc::SIGALRM,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGPWR,
    libc::SIGSTKFLT,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGWINCH,
    libc::SIGXCPU,
];

/// All that it takes for whoever only waits for a program that has a tracer of its own, or for nobody; the first one unless it is
/// ignored.
const TAKEN_WHILE_WAITING: &[i32] = &[libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGQUIT, libc::SIGUSR1];

/// What the kernel itself sends of these comes from a terminal, and to a whole group; of the others, to one process, as by the timer of
/// `alarm(2)`, which stays through `execve(2)`.
const OF_TERMINALS: &[i32] = &[
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGHUP,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGCONT,
    libc::SIGWINCH,
];

/// Of these the second one ends the tracer.
const ENDING: &[i32] = &[libc::SIGINT, libc::SIGTERM, libc::SIGQUIT];

/// These ask for an end of whoever traces nothing itself. What is traced may take SIGHUP for something else, as for a word to read
/// its configuration anew.
const ENDING_WHILE_WAITING: &[i32] = &[libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGQUIT];

/// These stop the tracer once the program has stopped.
const STOPPING: &[i32] = &[libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];

/// A sender that tells both the tracer and its group, as `timeout` does, has told it once: both within this time.
const ONCE: Duration = Duration::from_millis(200);

/// The same of a signal of which the second one is no more than the first: one too many does no harm, and one too few may.
const AT_ONCE: Duration = Duration::from_millis(20);

/// How long the others of the group have for what they do before they stop, as restoring the terminal.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// A program that has not stopped by then does not stop.
const PATIENCE: Duration = Duration::from_secs(2);

/// Passes signals on until dropped.
#[derive(Debug)]
pub struct Forwarding {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    before: libc::sigset_t,
}

#[derive(Debug, Default)]
struct Shared {
    /// To whom; 0 until the program is started.
    process: AtomicI32,
    /// It stands in a group-stop. Whoever stops this process for that has this until it goes on and hears signals again: the program
    /// does not go on before, so that no later signal stops this process first, in which its tracer would leave it alone.
    is_stopped: Mutex<bool>,
    /// It has stopped since the thread looked the last time.
    has_stopped: AtomicBool,
    /// It is all that is there of the program in this process's group.
    is_alone: AtomicBool,
    over: AtomicBool,
    /// The first signal that asked for an end; 0 until then.
    told_to_end: Arc<AtomicI32>,
    /// Who waits for what outlives the program, once that has ended.
    reaper: Mutex<Option<Reaper>>,
}

impl Forwarding {
    /// Starts to take signals, for this process and all threads that are started from now on; `told_to_end` gets the first
    /// that asks for an end.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(crate) fn start(told_to_end: Arc<AtomicI32>) -> std::io::Result<Self> {
        Self::of((TAKEN, ENDING), &sys::EARS, told_to_end)
    }

    /// The same for a process that traces nothing itself, and waits for one that does: signals to stop stop it, as ever.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn while_waiting(told_to_end: Arc<AtomicI32>) -> std::io::Result<Self> {
        // Who has started this by nohup(1) wants it to go on.
        let taken = &TAKEN_WHILE_WAITING[usize::from(sys::is_ignored(libc::SIGHUP))..];
        Self::of((taken, ENDING_WHILE_WAITING), &[], told_to_end)
    }

    /// What is taken, and what of it asks for an end; `left`: what is left to the calling thread.
    fn of(
        (taken, ending): (&'static [i32], &'static [i32]),
        left: &[i32],
        told_to_end: Arc<AtomicI32>,
    ) -> std::io::Result<Self> {
        let before = sys::block(taken);
        sys::block(left);
        let shared = Arc::new(Shared { told_to_end, ..Shared::default() });
        let (theirs, tracer) = (Arc::clone(&shared), gettid());
        match std::thread::Builder::new().spawn(move || Listener::new((taken, ending), theirs, tracer).listen()) {
            Ok(thread) => Ok(Self { shared, thread: Some(thread), before }),
            Err(error) => {
                sys::set_mask(&before);
                Err(error)
            }
        }
    }

    /// The mask from before, with which the program is to start.
    pub(crate) fn mask(&self) -> &libc::sigset_t {
        &self.before
    }

    /// Passes signals on to `process` from now on.
    pub fn to(&self, process: i32) {
        self.shared.process.store(process, Ordering::SeqCst);
    }

    /// The program has ended, and `reaper` waits for what outlives it: who wants an end now wants the end of that.
    pub(crate) fn outlived(&self, reaper: &Reaper) {
        self.to(0);
        *lock(&self.shared.reaper) = Some(reaper.clone());
    }

    /// The program's first process has stopped, and these `others` are there.
    pub(crate) fn stopped(&self, mut others: impl Iterator<Item = i32>) {
        // Whoever has left the group, as a server or the shells of a terminal multiplexer, is none of the job.
        self.shared.is_alone.store(!others.any(is_in_our_group), Ordering::SeqCst);
        self.is_stopped(true);
        if let Some(thread) = &self.thread {
            sys::kill_thread(thread.as_pthread_t(), libc::SIGUSR1);
        }
    }

    /// The program goes on.
    pub(crate) fn goes_on(&self) {
        self.is_stopped(false);
    }

    fn is_stopped(&self, is_stopped: bool) {
        *lock(&self.shared.is_stopped) = is_stopped;
        self.shared.has_stopped.store(is_stopped, Ordering::SeqCst);
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        // Its number may be another's by now.
        self.to(0);
        self.shared.over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            sys::kill_thread(thread.as_pthread_t(), libc::SIGUSR1);
            // The thread has no way to panic.
            let _ = thread.join();
        }
        sys::set_mask(&self.before);
    }
}

/// What threads share, none of which panics while it has it.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the thread knows.
struct Listener {
    taken: &'static [i32],
    /// What of it asks for an end.
    ending: &'static [i32],
    shared: Arc<Shared>,
    /// The thread that traces.
    tracer: Pid,
    /// The last signal that somebody sent, and when.
    last: Option<(Heard, Instant)>,
    is_ending: bool,
    /// A signal to stop, since when.
    stop: Option<(i32, Instant)>,
    /// Somebody has sent SIGCONT.
    wake: bool,
    /// This process has stopped as the program did in a group of its own, and has not given the terminal back to that.
    owes_terminal: bool,
}

impl Listener {
    fn new((taken, ending): (&'static [i32], &'static [i32]), shared: Arc<Shared>, tracer: Pid) -> Self {
        Self {
            taken,
            ending,
            shared,
            tracer,
            last: None,
            is_ending: false,
            stop: None,
            wake: false,
            owes_terminal: false,
        }
    }

    fn listen(mut self) {
        loop {
            let is_over = self.shared.over.load(Ordering::SeqCst);
            // What came for the program, and the echo of it, must not end what follows.
            let echo = || self.last.map_or(Duration::ZERO, |(_, when)| ONCE.saturating_sub(when.elapsed()));
            let has_stopped = self.shared.has_stopped.load(Ordering::SeqCst);
            let is_waiting = self.stop.is_some() || self.wake || has_stopped;
            let timeout = if is_over { Some(echo()) } else { is_waiting.then_some(LAST_WORDS) };
            match sys::wait_signal(self.taken, timeout) {
                Some(heard) => self.take(heard),
                None if is_over => return,
                None => self.follow_the_program(),
            }
        }
    }

    fn take(&mut self, heard: Heard) {
        let Heard { signal, sender } = heard;
        // What wakes this thread at the end.
        if sender == Some(getpid().as_raw()) {
            return;
        }
        if STOPPING.contains(&signal) {
            self.stop.get_or_insert((signal, Instant::now()));
            self.wake = false;
        }
        // This process's own time is none of the program's, which hears of its own. More than the hard limit is more than anybody gets.
        if signal == libc::SIGXCPU && sender.is_none() {
            return;
        }
        if signal == libc::SIGCONT {
            (self.stop, self.wake) = (None, sender.is_some() || leads_session());
            // What has stopped before is to go on.
            self.shared.has_stopped.store(false, Ordering::SeqCst);
            return;
        }
        if let Some(sender) = sender {
            // What the program sends to its group is not for whoever traces it.
            if proc::tracer_of(sender) == Some(self.tracer.as_raw()) {
                return;
            }
            let within = if self.ending.contains(&signal) { ONCE } else { AT_ONCE };
            // Those in real time are queued, each by itself (`signal(7)`).
            let is_echo =
                |(last, when): (Heard, Instant)| last == heard && signal < FIRST_REAL && when.elapsed() < within;
            if self.last.is_some_and(is_echo) {
                return;
            }
            self.last = Some((heard, Instant::now()));
        }
        let process = self.shared.process.load(Ordering::SeqCst);
        // Whoever starts minjail with a signal ignored, as a shell does in the background, asks nothing by it of a program that
        // ignores it, too.
        let is_meant = process == 0 || !sys::is_ignored(signal) || !proc::ignores(process, signal);
        if self.ending.contains(&signal) && is_meant {
            let reaper = lock(&self.shared.reaper).take();
            // Of a terminal that hangs up its shell tells, and the kernel as that ends.
            if self.is_ending && reaper.is_none() && signal != libc::SIGHUP {
                sys::exit_now(128 + signal);
            }
            self.is_ending = true;
            self.shared.told_to_end.store(signal, Ordering::SeqCst);
            if let Some(reaper) = reaper {
                reaper.hurry();
                return;
            }
        }
        if process != 0 && !(sender.is_none() && has_heard(process, signal)) {
            sys::kill(process, signal);
        }
    }

    /// Stops this process as the program was stopped, and goes on from here; or wakes the program as this process was
    /// woken, if it was not woken by the same, or has stopped anew since. A SIGCONT too many would take back a later signal to stop.
    fn follow_the_program(&mut self) {
        let shared = Arc::clone(&self.shared);
        let is_stopped = lock(&shared.is_stopped);
        let has_stopped = shared.has_stopped.swap(false, Ordering::SeqCst);
        if let Some((signal, since)) = self.stop {
            if *is_stopped {
                self.stop = None;
                sys::stop_self(signal);
            } else if since.elapsed() > PATIENCE {
                self.stop = None;
            }
        } else if std::mem::take(&mut self.wake) && *is_stopped && !has_stopped {
            sys::kill(self.shared.process.load(Ordering::SeqCst), libc::SIGCONT);
        } else if has_stopped && *is_stopped {
            self.stop_as_a_job();
        }
    }

    /// Stops this process if the program has stopped alone in this one's group, which is a shell's job and has the terminal; or in a
    /// group of its own that has the terminal, or would have it, had it not been woken in the background the last time.
    fn stop_as_a_job(&mut self) {
        let program = Pid::from_raw(self.shared.process.load(Ordering::SeqCst));
        let (Ok(group), Some(terminal)) = (getpgid(Some(program)), Terminal::ours()) else { return };
        let is_in_our_session = getsid(Some(program)) == getsid(None);
        if group == getpgrp() {
            if terminal.is_with(group) && is_a_shells_job() && self.shared.is_alone.load(Ordering::SeqCst) {
                sys::stop_self(libc::SIGTSTP);
                // Before the program goes on: it may stop again at once.
                self.wake = sys::wait_signal(&[libc::SIGCONT], Some(Duration::ZERO)).is_some();
            }
            return;
        }
        if !is_in_our_session || !(terminal.is_with(group) || self.owes_terminal) {
            return;
        }
        // Not from a shell that has woken this process in the background.
        if terminal.is_with(group) {
            terminal.give_to(getpgrp());
        }
        sys::stop_self(libc::SIGTSTP);
        let is_woken = sys::wait_signal(&[libc::SIGCONT], Some(Duration::ZERO)).is_some();
        self.owes_terminal = !terminal.is_with(getpgrp());
        if !self.owes_terminal {
            terminal.give_to(group);
        }
        // Else there is nobody who would wake this process, and it has not stopped (`kernel/signal.c`, `is_current_pgrp_orphaned`).
        if is_woken {
            sys::kill(-group.as_raw(), libc::SIGCONT);
        }
    }
}

/// True if a signal that the kernel sent us has reached `process` as well: what a terminal sends goes to a group; but
/// of a terminal that hangs up, only the first process of the session hears (`drivers/tty/tty_jobctrl.c`,
/// `tty_signal_session_leader`).
fn has_heard(process: i32, signal: i32) -> bool {
    if !OF_TERMINALS.contains(&signal) {
        return false;
    }
    is_in_our_group(process) && !(signal == libc::SIGHUP && leads_session())
}

fn is_in_our_group(process: i32) -> bool {
    getpgid(Some(Pid::from_raw(process))) == Ok(getpgrp())
}

/// True if this process is the first one of its session: that one the kernel tells when the terminal hangs up, and has it go on.
fn leads_session() -> bool {
    getsid(None).is_ok_and(|session| session == getpid())
}

/// True if whoever started this process has given it a group, as a shell with job control does.
fn is_a_shells_job() -> bool {
    getsid(Some(getppid())) == getsid(None) && getpgid(Some(getppid())).is_ok_and(|group| group != getpgrp())
}
