//! The caller's side: makes the namespaces, maps the ids, forwards signals, and takes the end.

use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use nix::unistd::{Gid, Pid, Uid, getpid, getsid, pipe2, read, write};

use super::error::{JailError, Obstacle, Report, Word, hear};
use super::facts::{self, Facts};
use super::ids::{self, Extent};
use super::perform::{Ground, perform};
use super::plan::{IdMaps, Plan, Writer, plan};
use super::sys;
use super::{Ended, Inside, Jail};

/// The signals that a process may send to the caller when it means the program.
const FORWARDED: [Signal; 9] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGWINCH,
    Signal::SIGCONT,
];

/// The signal mask with which PID 1's body starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signals {
    /// Those that are forwarded, and `SIGCHLD`, are blocked, so that none is lost. What it starts has this mask, or that of the caller.
    Blocked(Option<SigSet>),
    /// The mask is that of the caller.
    AsBefore,
}

/// The forwarded signals and `SIGCHLD`.
pub(super) fn watched() -> SigSet {
    FORWARDED.into_iter().chain([Signal::SIGCHLD]).collect()
}

/// Waits until threads that were joined are gone, and fails if others are there.
///
/// A thread that was joined may be on the kernel's list for a moment longer: its id, which `pthread_join(3)` waits for, is
/// cleared in `mm_release`, and it leaves the list in `exit_notify` (`do_exit` in `kernel/exit.c`).
fn become_single_threaded() -> Result<(), JailError> {
    let start = Instant::now();
    loop {
        let threads = fs_err::read_dir("/proc/self/task")?.count();
        if threads == 1 {
            return Ok(());
        }
        if start.elapsed() > Duration::from_secs(1) {
            return Err(JailError::Threads(threads));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Builds `jail`, runs `body` as its PID 1, and waits for its end.
pub(super) fn supervise(
    jail: &Jail,
    signals: Signals,
    body: impl FnOnce(&Inside<'_>) -> i32,
) -> Result<Ended, JailError> {
    become_single_threaded()?;
    let blocked = Blocked(SignalState::block().map_err(|errno| step("block signals", errno))?);
    let facts = facts::gather(jail)?;
    let plan = plan(jail, &facts)?;
    let tree = fs_err::canonicalize(&jail.base.tree)?;
    if tree == Path::new("/") {
        return Err(JailError::HostRoot);
    }
    let (report_out, report_in) = pipe2(OFlag::O_CLOEXEC).map_err(|errno| step("create a pipe", errno))?;
    let (go_out, go_in) = pipe2(OFlag::O_CLOEXEC).map_err(|errno| step("create a pipe", errno))?;
    // What is still buffered would be written twice.
    let _ = (io::stdout().flush(), io::stderr().flush());
    let before = match signals {
        Signals::Blocked(Some(mask)) => SignalState { mask, ..blocked.0 },
        _ => blocked.0,
    };
    let early = pending().map_err(|errno| step("look for signals", errno))?;

    match sys::copy(plan.namespaces) {
        Err(errno) => {
            let obstacle = Obstacle::of_namespaces(errno, &facts::restrictions());
            Err(JailError::Namespaces { obstacle, source: errno.into() })
        }
        Ok(None) => {
            drop((report_out, go_in));
            let ground = Ground { tree: &tree, caller: go_out.as_fd(), setgroups: plan.ids.setgroups };
            let report = Report::new(report_in);
            let first = FirstProcess { jail, plan: &plan, report: &report, before, signals };
            // A panic must not unwind into what is above on the stack: that is the caller's.
            let status = catch_unwind(AssertUnwindSafe(|| first.live(&ground, body))).unwrap_or_else(|_panic| {
                report.say(&Word::Panicked);
                125
            });
            let _ = (io::stdout().flush(), io::stderr().flush());
            sys::exit(status)
        }
        Ok(Some(first)) => {
            drop((report_in, go_out));
            let started = write_maps(&plan.ids, &facts, first)
                .and_then(|()| write(&go_in, &[1]).map(drop).map_err(|errno| step("start the jail", errno)));
            // Open until the end, it tells PID 1 that the caller lives; closed without a word, that there is no jail.
            let go_in = started.is_ok().then_some(go_in);
            let status = wait(first, early).map_err(|errno| step("wait for the jail", errno));
            drop(go_in);
            started?;
            outcome(status?, hear(report_out)?)
        }
    }
}

/// What PID 1 has from its caller.
struct FirstProcess<'a> {
    jail: &'a Jail,
    plan: &'a Plan,
    report: &'a Report,
    before: SignalState,
    signals: Signals,
}

impl FirstProcess<'_> {
    /// PID 1, from its first moment to the body's last; the value is the exit status.
    fn live(&self, ground: &Ground<'_>, body: impl FnOnce(&Inside<'_>) -> i32) -> i32 {
        // Until the ids are mapped; an end of file means that they could not be, or that the caller has died.
        if !matches!(retried(|| read(ground.caller, &mut [0])), Ok(1)) {
            return 125;
        }
        if let Err(word) = perform(&self.plan.steps, ground) {
            self.report.say(&word);
            return 125;
        }
        if self.signals == Signals::AsBefore {
            self.before.restore().expect("what was in force can be set again");
        }
        let user = &self.jail.user;
        let groups = user.groups.iter().copied().map(Gid::from_raw).collect();
        body(&Inside {
            uid: Uid::from_raw(user.uid),
            gid: Gid::from_raw(user.gid),
            groups: self.plan.ids.setgroups.then_some(groups),
            before: self.before,
            report: self.report,
        })
    }
}

/// Writes the id maps of the new user namespace of `first`.
fn write_maps(ids: &IdMaps, facts: &Facts, first: Pid) -> Result<(), JailError> {
    let file = |name: &str| format!("/proc/{first}/{name}");
    if ids.writer == Writer::Programs {
        let ours = facts.subordinate.as_ref().expect("the plan names the programs only where they are");
        run_mapper("newuidmap", &ours.newuidmap, first, &ids.uids)?;
        return run_mapper("newgidmap", &ours.newgidmap, first, &ids.gids);
    }
    if ids.writer == Writer::CallerDenyingGroups {
        fs_err::write(file("setgroups"), "deny")?;
    }
    fs_err::write(file("uid_map"), ids::text(&ids.uids))?;
    Ok(fs_err::write(file("gid_map"), ids::text(&ids.gids))?)
}

fn run_mapper(name: &'static str, program: &Path, first: Pid, extents: &[Extent]) -> Result<(), JailError> {
    let failed = |said: String| JailError::MapIds { program: name, said };
    let map = ids::text(extents);
    let output = Command::new(program).arg(first.to_string()).args(map.split_ascii_whitespace()).output();
    let output = output.map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = crate::path::escape(output.stderr.trim_ascii());
    Err(failed(if said.is_empty() { output.status.to_string() } else { said }))
}

fn outcome(status: i32, word: Option<Word>) -> Result<Ended, JailError> {
    let source = io::Error::from_raw_os_error;
    match word {
        None => Ok(ended(status)),
        Some(Word::Killed(signal)) => Ok(Ended::Killed(signal)),
        Some(Word::Failed { step, kind, errno }) => {
            let obstacle = Obstacle::of_step(kind, Errno::from_raw(errno), &facts::restrictions());
            Err(JailError::Step { step, obstacle, source: source(errno) })
        }
        Some(Word::NotFound { program }) => Err(JailError::NotFound { program }),
        Some(Word::NoInterpreter { program }) => Err(JailError::NoInterpreter { program }),
        Some(Word::NotExecutable { program, errno }) => {
            Err(JailError::NotExecutable { program, source: source(errno) })
        }
        Some(Word::Panicked) => Err(JailError::Panicked),
    }
}

/// A raw wait status of something that has ended.
pub(super) fn ended(status: i32) -> Ended {
    if libc::WIFSIGNALED(status) {
        Ended::Killed(libc::WTERMSIG(status))
    } else {
        Ended::Exited(u8::try_from(libc::WEXITSTATUS(status)).expect("WEXITSTATUS is eight bits"))
    }
}

fn step(step: &str, errno: Errno) -> JailError {
    JailError::Step { step: step.to_owned(), obstacle: None, source: errno.into() }
}

fn retried<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// How the caller took its signals before the watched ones were blocked.
#[derive(Debug, Clone, Copy)]
pub(super) struct SignalState {
    mask: SigSet,
    children_ignored: bool,
}

impl SignalState {
    fn block() -> Result<Self, Errno> {
        let children_ignored = sys::is_ignored(Signal::SIGCHLD)?;
        if children_ignored {
            // The kernel itself would reap the children, and nobody would learn how they ended (`waitpid(2)`, NOTES).
            sys::default_disposition(Signal::SIGCHLD)?;
        }
        Ok(Self { mask: watched().thread_swap_mask(SigmaskHow::SIG_BLOCK)?, children_ignored })
    }

    pub(super) fn restore(&self) -> Result<(), Errno> {
        if self.children_ignored {
            sys::ignore(Signal::SIGCHLD)?;
        }
        self.mask.thread_set_mask()
    }
}

/// While this lives, the watched signals are blocked in the caller.
struct Blocked(SignalState);

impl Drop for Blocked {
    fn drop(&mut self) {
        self.0.restore().expect("what was in force can be set again");
    }
}

/// What has come by now. Who is not there yet does not have it from the terminal either.
fn pending() -> Result<Vec<Signal>, Errno> {
    let watch = SignalFd::with_flags(&FORWARDED.into_iter().collect(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let mut come = Vec::new();
    while let Some(signal) = retried(|| watch.read_signal())? {
        come.extend(named(&signal));
    }
    Ok(come)
}

/// Waits for the end of `child`, and forwards to it what came `early`, and what processes send here meanwhile.
fn wait(child: Pid, early: Vec<Signal>) -> Result<i32, Errno> {
    let watch = watch()?;
    early.into_iter().try_for_each(|which| send(child, which))?;
    loop {
        if let Some((_, status)) = sys::ended(child)? {
            return Ok(status);
        }
        forward(&watch, child, Senders::Processes)?;
    }
}

/// A descriptor that gives the watched signals of whoever reads it.
pub(super) fn watch() -> Result<SignalFd, Errno> {
    SignalFd::with_flags(&watched(), SfdFlags::SFD_CLOEXEC)
}

/// Whose signals are forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Senders {
    Any,
    /// Not the terminal's (`SI_KERNEL`): they go to the whole foreground process group, and so to the program, but for what is
    /// [for the leader](is_for_leader) of the session.
    Processes,
}

/// Waits for one signal, and if it is of such a sender, sends it on to `child`.
pub(super) fn forward(watch: &SignalFd, child: Pid, senders: Senders) -> Result<(), Errno> {
    let Some(signal) = retried(|| watch.read_signal())? else { return Ok(()) };
    // `SI_FROMUSER` of the kernel's siginfo.h.
    let meant = |which| senders == Senders::Any || signal.ssi_code <= 0 || is_for_leader(which);
    match named(&signal).filter(|&which| which != Signal::SIGCHLD && meant(which)) {
        Some(which) => send(child, which),
        None => Ok(()),
    }
}

fn named(signal: &siginfo) -> Option<Signal> {
    i32::try_from(signal.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok())
}

fn send(child: Pid, which: Signal) -> Result<(), Errno> {
    match kill(child, which) {
        // It ended in between; the wait will tell.
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// True for what the kernel sends the leader of a session alone, which this process then is, when its terminal is gone
/// (`drivers/tty/tty_jobctrl.c`, `tty_signal_session_leader`): the foreground hears of that only as the leader ends.
fn is_for_leader(which: Signal) -> bool {
    matches!(which, Signal::SIGHUP | Signal::SIGCONT) && getsid(None) == Ok(getpid())
}
