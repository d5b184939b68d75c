//! `minjail trace` at a terminal, in a shell with job control, as a person uses it; and signals sent to it.

mod support;

use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use support::{TestContext, limited, needs_root, outcome_of};

/// Nothing here takes a tenth of this.
const AT_MOST: Duration = Duration::from_secs(30);

/// A terminal, a program in a session of its own on it, and what it has shown so far.
struct Terminal {
    keys: OwnedFd,
    hangs_up: Arc<AtomicBool>,
    shown: Receiver<Vec<u8>>,
    screen: String,
    /// How much of the screen was expected already.
    read: usize,
    session: Child,
}

impl Terminal {
    fn of(context: &TestContext, program: &str, arguments: &[&str]) -> Self {
        // Not by openpty, which lets every child of this process inherit both ends.
        let keys = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).expect("there are terminals");
        grantpt(&keys).and_then(|()| unlockpt(&keys)).expect("it is ours");
        let name = ptsname_r(&keys).expect("it has a name");
        let options = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let end = || Stdio::from(open(name.as_str(), options, Mode::empty()).expect("it was just made"));
        let mut session = limited("setsid");
        session.args(["--ctty", "--wait", program]).args(arguments).current_dir(context.work());
        session.env("PS1", "$ ").env("MINJAIL", support::minjail()).env("TERM", "dumb").env("HOME", context.work());
        let session = session.stdin(end()).stdout(end()).stderr(end()).spawn().expect("setsid is there");
        let keys = OwnedFd::from(keys);
        let mut screen = std::fs::File::from(keys.try_clone().expect("there are descriptors"));
        let (sender, shown) = channel();
        let hangs_up = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&hangs_up);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while !over.load(Ordering::SeqCst) {
                let mut waits = [PollFd::new(screen.as_fd(), PollFlags::POLLIN)];
                if !matches!(poll(&mut waits, PollTimeout::from(20u8)), Ok(1)) {
                    continue;
                }
                // EIO when the last program on the terminal is gone.
                let Ok(count @ 1..) = screen.read(&mut bytes) else { return };
                let _ = sender.send(bytes[..count].to_vec());
            }
        });
        Self { keys, hangs_up, shown, screen: String::new(), read: 0, session }
    }

    /// An interactive shell, ready for a command.
    fn shell(context: &TestContext) -> Self {
        let mut terminal = Self::of(context, "bash", &["--norc", "--noprofile", "--noediting", "-i"]);
        terminal.expect("$ ");
        // What is typed is not to be taken for what is said.
        terminal.press("stty -echo; echo si\"\"lent\n");
        terminal.expect("silent");
        terminal.expect("$ ");
        terminal
    }

    fn press(&self, keys: &str) {
        nix::unistd::write(&self.keys, keys.as_bytes()).expect("the terminal takes keys");
    }

    /// Waits until the screen shows `text`, behind what was expected before.
    #[track_caller]
    fn expect(&mut self, text: &str) {
        let start = Instant::now();
        loop {
            if let Some(at) = self.screen[self.read..].find(text) {
                self.read += at + text.len();
                return;
            }
            match self.shown.recv_timeout(AT_MOST.saturating_sub(start.elapsed())) {
                Ok(bytes) => self.screen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(error) => panic!("{error}: no {text:?} on the screen:\n{}", self.screen),
            }
        }
    }

    /// The screen stays as it is for a while.
    #[track_caller]
    fn shows_nothing(&mut self) {
        if let Ok(bytes) = self.shown.recv_timeout(Duration::from_millis(300)) {
            panic!("{:?} on the screen:\n{}", String::from_utf8_lossy(&bytes), self.screen);
        }
    }

    /// The number that stands behind `word` on the screen.
    #[track_caller]
    fn number(&mut self, word: &str) -> i32 {
        self.expect(word);
        let from = self.read;
        self.expect("\n");
        self.screen[from..self.read].trim().parse().expect("a number")
    }

    /// Leaves the shell, and waits until nobody holds the terminal any more: all that was on the screen.
    #[track_caller]
    fn leave(mut self) -> String {
        self.press("exit\n");
        self.rest();
        self.session.wait().expect("it is a child of ours");
        self.screen
    }

    /// Closes the window.
    fn hang_up(mut self) {
        self.hangs_up.store(true, Ordering::SeqCst);
        // The thread's end of the terminal is closed when its end of the channel is.
        self.rest();
        drop(self.keys);
        self.session.wait().expect("it is a child of ours");
    }

    #[track_caller]
    fn rest(&mut self) {
        loop {
            match self.shown.recv_timeout(AT_MOST) {
                Ok(bytes) => self.screen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => panic!("somebody still holds the terminal:\n{}", self.screen),
            }
        }
    }
}

/// Waits until `process` neither runs nor stands.
#[track_caller]
fn is_gone(process: i32) {
    let start = Instant::now();
    loop {
        let stat = fs_err::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
        if matches!(state, None | Some('Z' | 'X')) {
            return;
        }
        assert!(start.elapsed() < AT_MOST, "{process} is in state {state:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until there is something at `path`.
#[track_caller]
fn is_there(path: &Path) {
    let start = Instant::now();
    while !path.exists() {
        assert!(start.elapsed() < AT_MOST, "{} does not come", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The thread of `minjail` that waits for signals in `sigtimedwait(2)`.
#[track_caller]
fn listener_of(minjail: i32) -> Pid {
    let start = Instant::now();
    loop {
        for thread in support::names_in(Path::new(&format!("/proc/{minjail}/task"))) {
            let call = fs_err::read_to_string(format!("/proc/{minjail}/task/{thread}/syscall")).unwrap_or_default();
            if call.starts_with(&format!("{} ", libc::SYS_rt_sigtimedwait)) {
                return Pid::from_raw(thread.parse().expect("threads have numbers"));
            }
        }
        assert!(start.elapsed() < AT_MOST, "no thread of {minjail} waits for signals");
    }
}

/// A thread that goes on when this one wants it to.
struct Held(Pid);

impl Held {
    #[track_caller]
    fn of(thread: Pid) -> Self {
        ptrace::seize(thread, ptrace::Options::empty()).expect("it can be traced");
        Self(thread)
    }

    /// Lets it go on until it stops with its process, and keeps it there.
    #[track_caller]
    fn runs_until_it_stops(&self) {
        loop {
            match waitpid(self.0, Some(WaitPidFlag::__WALL)).expect("it is traced") {
                WaitStatus::PtraceEvent(..) => return,
                WaitStatus::Stopped(_, signal) => ptrace::cont(self.0, signal).expect("it has stopped"),
                status => panic!("{status:?}"),
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = ptrace::detach(self.0, None);
    }
}

/// What a traced program runs in the working directory; `$MINJAIL` stands in the environment.
fn typed(program: &str) -> String {
    format!("\"$MINJAIL\" trace --quiet --force -t ../t.trace -- {program}\n")
}

#[test]
fn ctrl_z_stops_and_fg_goes_on() {
    let context = TestContext::new();
    let mut terminal = Terminal::shell(&context);
    terminal.press(&typed("sh -c 'echo ready; while read word; do echo got $word; done; exit 3'"));
    terminal.expect("ready");
    for word in ["one", "two", "three"] {
        terminal.press(&format!("{word}\n"));
        terminal.expect(&format!("got {word}"));
        terminal.press("\x1a");
        terminal.expect("Stopped");
        terminal.expect("$ ");
        terminal.press("jobs; fg\n");
        terminal.expect("Stopped");
        terminal.expect("trace");
    }
    terminal.press("last\n");
    terminal.expect("got last");
    terminal.press("\x04");
    terminal.expect("$ ");
    terminal.press("echo status $?\n");
    assert_eq!(terminal.number("status "), 3);
    terminal.leave();
    assert!(context.path("t.trace").is_dir());
}

/// As an editor does, which gives the terminal back before it stops.
#[test]
fn a_program_that_handles_ctrl_z_stops_once() {
    let context = TestContext::new();
    context.lay_out(&[(
        "editor.py",
        // Python's own handlers may run only after the next line is read.
        "import os, signal, sys, threading
def reads():
    for line in sys.stdin:
        print('got', line.strip(), flush=True)
    os._exit(0)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTSTP])
threading.Thread(target=reads).start()
print('ready', flush=True)
while True:
    signal.sigwait([signal.SIGTSTP])
    print('restores the terminal', flush=True)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTSTP])
    os.kill(0, signal.SIGTSTP)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTSTP])
    print('takes the terminal', flush=True)
",
    )]);
    let mut terminal = Terminal::shell(&context);
    // The first process is not the one that handles it.
    for command in ["python3 editor.py", "sh -c 'python3 editor.py; exit 0'"] {
        terminal.press(&typed(command));
        terminal.expect("ready");
        for _ in 0..3 {
            terminal.press("\x1a");
            terminal.expect("restores the terminal");
            terminal.expect("Stopped");
            terminal.expect("$ ");
            terminal.press("fg\n");
            terminal.expect("takes the terminal");
            terminal.press("word\n");
            terminal.expect("got word");
        }
        terminal.press("\x04");
        terminal.expect("$ ");
    }
    let screen = terminal.leave();
    assert_eq!(screen.matches("restores").count(), 6, "{screen}");
    assert_eq!(screen.matches("Stopped").count(), 6, "{screen}");
}

/// A thread of minjail's that hears signals may be slow to go on after `fg`: until it does, the program waits. Else the next Ctrl-Z
/// would stop minjail before the program, which would take the next line from the shell.
#[test]
fn fg_wakes_the_program_when_minjail_is_ready_for_the_next_ctrl_z() {
    if !needs_root("ptrace of another process") {
        return;
    }
    let context = TestContext::new();
    let mut terminal = Terminal::shell(&context);
    terminal.press(&typed("sh -c 'grep TracerPid: /proc/$$/status; while read word; do echo got $word; done'"));
    let minjail = terminal.number("TracerPid:");
    let listener = Held::of(listener_of(minjail));
    terminal.press("\x1a");
    listener.runs_until_it_stops();
    terminal.expect("Stopped");
    terminal.expect("$ ");
    terminal.press("fg\n");
    terminal.expect("trace");
    terminal.press("word\n");
    terminal.shows_nothing();
    drop(listener);
    terminal.expect("got word");
    terminal.press("\x04");
    terminal.expect("$ ");
    terminal.leave();
}

/// It stops its own process group, which minjail is not in, and leaves the terminal to that.
#[test]
fn a_shell_that_suspends_itself_is_a_job_of_the_shell_around() {
    let context = TestContext::new();
    let mut terminal = Terminal::shell(&context);
    terminal.press(&typed("bash --norc --noprofile --noediting -i"));
    terminal.expect("$ ");
    for turn in 0..3 {
        terminal.press("suspend\n");
        terminal.expect("Stopped");
        terminal.expect("$ ");
        terminal.press("echo level $SHLVL; fg\n");
        terminal.expect("level");
        terminal.expect("trace");
        terminal.press(&format!("echo turn $((0 + {turn}))\n"));
        terminal.expect(&format!("turn {turn}"));
        terminal.expect("$ ");
    }
    terminal.press("exit 4\n");
    terminal.expect("$ ");
    terminal.press("echo status $?\n");
    assert_eq!(terminal.number("status "), 4);
    terminal.leave();
}

/// As editors do at a key that they read themselves. The terminal's own keys do nothing meanwhile.
#[test]
fn a_program_that_stops_for_itself_is_a_job_of_the_shell() {
    let context = TestContext::new();
    let mut terminal = Terminal::shell(&context);
    for signal in ["TSTP", "STOP"] {
        terminal.press(&typed(&format!(
            "sh -c 'stty -isig; for turn in 1 2; do kill -{signal} $$; echo woken; read word; echo got $word; done; exit 4'"
        )));
        for word in ["one", "two"] {
            terminal.expect("Stopped");
            terminal.expect("$ ");
            terminal.press("fg\n");
            terminal.expect("woken");
            terminal.press(&format!("{word}\n"));
            terminal.expect(&format!("got {word}"));
        }
        terminal.expect("$ ");
        terminal.press("echo status $?; stty isig\n");
        assert_eq!(terminal.number("status "), 4);
        terminal.expect("$ ");
    }
    terminal.leave();
}

/// As the server of a terminal multiplexer: what has left the group is none of the job.
#[test]
fn a_program_that_stops_for_itself_beside_another_session() {
    let context = TestContext::new();
    let mut terminal = Terminal::shell(&context);
    terminal.press(&typed("sh -c 'setsid sh -c \"echo > away; exec sleep 1000\" & until [ -e away ]; do sleep .01; done; kill -TSTP $$; echo woken; kill $!'"));
    terminal.expect("Stopped");
    terminal.expect("$ ");
    terminal.press("fg\n");
    terminal.expect("woken");
    terminal.expect("$ ");
    terminal.leave();
}

/// Of a terminal that hangs up, the kernel tells the first process of the session, and has it go on.
#[test]
fn what_has_stopped_hears_that_the_terminal_hangs_up() {
    const SCRIPT: &str = "
import os, pty, sys, time
child, terminal = pty.fork()
if child == 0:
    os.execv(sys.argv[1], sys.argv[1:])
shown = b''
while b'stops' not in shown:
    shown += os.read(terminal, 100)
time.sleep(1)
os.close(terminal)
for _ in range(200):
    if os.waitpid(child, os.WNOHANG)[0]:
        sys.exit(0)
    time.sleep(.1)
os.kill(child, 9)
sys.exit(1)
";
    let context = TestContext::new();
    let mut python = context.command("python3");
    python.args(["-c", SCRIPT, support::minjail(), "trace", "-q", "-t", &context.text("x.trace")]);
    outcome_of(python.args(["--", "sh", "-c", "echo stops; kill -STOP $$; echo woken"])).success();
}

#[test]
fn what_a_part_of_the_program_wakes_is_left_to_that() {
    let context = TestContext::new();
    let mut terminal = Terminal::shell(&context);
    terminal.press(&typed("sh -c '(sleep 1; kill -CONT $$) & kill -STOP $$; echo woken'"));
    terminal.expect("woken");
    terminal.expect("$ ");
    assert!(!terminal.leave().contains("Stopped"));
}

#[test]
fn what_has_stopped_in_its_own_group_can_be_woken_in_the_background() {
    let context = TestContext::new();
    context.lay_out(&[(
        "own.py",
        "import os, signal, sys
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
os.setpgid(0, 0)
os.tcsetpgrp(0, os.getpgrp())
print('ready', flush=True)
while line := sys.stdin.readline().strip():
    print('got', line, flush=True)
    if line == 'stop':
        os.kill(0, signal.SIGSTOP)
        print('woken', flush=True)
",
    )]);
    let mut terminal = Terminal::shell(&context);
    terminal.press(&typed("python3 own.py"));
    terminal.expect("ready");
    for _ in 0..2 {
        terminal.press("stop\n");
        terminal.expect("got stop");
        terminal.expect("Stopped");
        terminal.expect("$ ");
        terminal.press("bg\n");
        terminal.expect("woken");
        // It reads, and stops again.
        terminal.press("until jobs | grep Stopped; do sleep 0.1; done\n");
        terminal.expect("Stopped");
        terminal.expect("$ ");
        terminal.press("fg\n");
        terminal.expect("trace");
        terminal.press("word\n");
        terminal.expect("got word");
    }
    terminal.press("\n");
    terminal.expect("$ ");
    terminal.leave();
}

/// As by `pthread_exit` in `main`: nobody is told of its end while other threads run.
#[test]
fn ctrl_z_stops_a_program_whose_first_thread_has_ended() {
    let context = TestContext::new();
    context.lay_out(&[(
        "headless.py",
        "import ctypes, os, sys, threading
def reads():
    state = ''
    while state != 'Z':
        state = open('/proc/self/stat').read().rsplit(')', 1)[1].split()[0]
    print('ready', flush=True)
    for line in sys.stdin:
        print('got', line.strip(), flush=True)
    os._exit(3)
threading.Thread(target=reads).start()
# exit(2): this thread alone.
ctypes.CDLL(None).syscall(93 if os.uname().machine == 'aarch64' else 60, 0)
",
    )]);
    let mut terminal = Terminal::shell(&context);
    terminal.press(&typed("python3 headless.py"));
    terminal.expect("ready");
    for word in ["one", "two"] {
        terminal.press("\x1a");
        terminal.expect("Stopped");
        terminal.expect("$ ");
        terminal.press("fg\n");
        terminal.press(&format!("{word}\n"));
        terminal.expect(&format!("got {word}"));
    }
    terminal.press("\x04");
    terminal.expect("$ ");
    terminal.press("echo status $?\n");
    assert_eq!(terminal.number("status "), 3);
    terminal.leave();
}

#[test]
fn ctrl_c_reaches_the_program_and_the_trace_is_written() {
    let context = TestContext::new();
    let mut terminal = Terminal::shell(&context);
    terminal.press(&typed("sh -c 'trap \"echo caught; exit 5\" INT; echo ready; while :; do sleep 0.1; done'"));
    terminal.expect("ready");
    terminal.press("\x03");
    terminal.expect("caught");
    terminal.expect("$ ");
    terminal.press("echo status $?\n");
    assert_eq!(terminal.number("status "), 5);
    assert!(context.path("t.trace").is_dir());
    let screen = terminal.leave();
    assert_eq!(screen.matches("caught").count(), 1, "once: {screen}");
}

/// A profile's workload leads a process group of its own, which the terminal does not tell.
#[test]
fn ctrl_c_in_a_build_reaches_the_workload() {
    let context = TestContext::new();
    let profile = "workloads:
  waits:
    run: [/bin/sh, -c, \"trap 'echo $$ > caught; exit 7' INT; echo $$ > started; while :; do sleep 0.1; done\"]
    cwd: WORK
";
    fs_err::write(context.path("app.yaml"), profile.replace("WORK", &context.text("work"))).expect("it is ours");
    let mut terminal = Terminal::shell(&context);
    terminal.press("\"$MINJAIL\" build --quiet ../app.yaml -o rootfs:../out\n");
    is_there(&context.path("work/started"));
    terminal.press("\x03");
    terminal.expect("$ ");
    terminal.press("echo status $?\n");
    let status = terminal.number("status ");
    let process = fs_err::read_to_string(context.path("work/caught")).expect("the workload has heard of it");
    is_gone(process.trim().parse().expect("a number"));
    let screen = terminal.leave();
    assert!(status == 130 && screen.contains("stopped by SIGINT"), "{status}, {screen}");
    assert!(!context.path("out").exists(), "what was broken off is not built: {screen}");
    assert_eq!(context.listing().iter().filter(|name| name.contains("minjail")).count(), 0, "{screen}");
}

#[test]
fn a_second_ctrl_c_ends_minjail_at_once() {
    let context = TestContext::new();
    let mut terminal = Terminal::shell(&context);
    terminal.press(&typed("sh -c 'trap \"echo caught\" INT; echo process $$; while :; do sleep 0.1; done'"));
    let program = terminal.number("process ");
    terminal.press("\x03");
    terminal.expect("caught");
    // Two that come before minjail has heard of the first are one (signal(7)).
    while Path::new(&format!("/proc/{program}")).exists() {
        terminal.press("\x03");
        std::thread::sleep(Duration::from_millis(100));
    }
    terminal.expect("$ ");
    terminal.press("echo status $?\n");
    assert_eq!(terminal.number("status "), 128 + 2);
    terminal.leave();
    assert!(!context.path("t.trace").exists(), "half a trace is none");
}

#[test]
fn a_terminal_that_hangs_up() {
    let script = "trap 'echo hung > up; exit 0' HUP; echo ready; while :; do sleep 0.1; done";
    // minjail as the first process of the session, as under `ssh -t`; and under a shell.
    for is_first in [true, false] {
        let context = TestContext::new();
        let mut terminal = if is_first {
            let trace = context.text("t.trace");
            Terminal::of(&context, support::minjail(), &["trace", "-t", &trace, "--", "sh", "-c", script])
        } else {
            let terminal = Terminal::shell(&context);
            terminal.press(&typed(&format!("sh -c \"{script}\"")));
            terminal
        };
        terminal.expect("ready");
        terminal.hang_up();
        is_there(&context.path("work/up"));
        is_there(&context.path("t.trace/trace.jsonl"));
    }
}

/// A jail of a shell, whose minjail is the first process of the session on the terminal.
fn jailed(context: &TestContext, script: &str) -> Terminal {
    let tree = format!("rootfs:{}", context.text("tree"));
    let traced = ["trace", "-q", "-t", &context.text("t.trace"), "-o", &tree, "--", "/bin/sh", "-c", "sleep 0"];
    context.outcome(&traced).success();
    Terminal::of(context, support::minjail(), &["run", "-q", &tree, "--", "/bin/sh", "-c", script])
}

#[test]
fn a_terminal_of_a_jail_that_hangs_up() {
    let context = TestContext::new();
    let mut terminal = jailed(&context, "echo ready; sleep 1000");
    terminal.expect("ready");
    let start = Instant::now();
    terminal.hang_up();
    assert!(start.elapsed() < AT_MOST, "the program has heard nothing of it");
}

/// There is no shell that would wake what stops, so the kernel stops nothing.
#[test]
fn ctrl_z_in_a_jail_without_a_shell_around() {
    let context = TestContext::new();
    let mut terminal = jailed(&context, "echo ready; read line; echo got $line");
    terminal.expect("ready");
    terminal.press("\x1a");
    terminal.press("this\n");
    terminal.expect("got this");
    assert!(terminal.session.wait().expect("it is ours").success());
}

/// `minjail trace` of a shell script, once that has said the number of its process.
fn started(context: &TestContext, script: &str) -> (Child, i32) {
    let mut command = Command::new(support::minjail());
    command.args(["trace", "--quiet", "--force", "-t", "../t.trace", "--", "sh", "-c", script]);
    let mut child =
        command.current_dir(context.work()).stdout(Stdio::piped()).spawn().expect("minjail was built for this test");
    let mut said = Vec::new();
    let mut output = child.stdout.take().expect("it is piped");
    let mut byte = [0];
    while output.read(&mut byte).expect("it is a pipe") == 1 && byte[0] != b'\n' {
        said.push(byte[0]);
    }
    (child, String::from_utf8_lossy(&said).trim().parse().expect("a number"))
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().cast_signed()), signal).expect("it was not waited for");
}

#[test]
fn signals_to_minjail_reach_the_program() {
    for (sent, name) in [(Signal::SIGTERM, "TERM"), (Signal::SIGHUP, "HUP"), (Signal::SIGINT, "INT")] {
        let context = TestContext::new();
        let script = format!("trap 'exit 6' {name}; echo $$; while :; do sleep 0.1; done");
        let (mut child, program) = started(&context, &script);
        signal(&child, sent);
        assert_eq!(child.wait().expect("it is a child of ours").code(), Some(6), "{name}");
        is_gone(program);
        assert!(context.path("t.trace").is_dir(), "{name}");
    }
}

/// It tells minjail, and then minjail's group, which is the same signal twice.
#[test]
fn timeout_ends_the_program_and_keeps_the_trace() {
    for _ in 0..5 {
        let context = TestContext::new();
        let mut command = context.command("timeout");
        command.args(["0.3", support::minjail(), "trace", "--quiet", "-t", "../t.trace", "--", "sleep", "1000"]);
        assert_eq!(outcome_of(&mut command).status, 124);
        // minjail itself may still be at it.
        is_there(&context.path("t.trace/trace.jsonl"));
    }
}

#[test]
fn nothing_outlives_a_killed_minjail() {
    // Running, stopped, a daemon in a session of its own, and one that stands in a call that waits.
    for script in [
        "echo $$; while :; do :; done",
        "echo $$; kill -STOP $$; sleep 1000",
        "setsid sh -c 'echo $$; sleep 1000' & wait",
        "(sleep 0.1; echo $$) & cat fifo",
    ] {
        let context = TestContext::new();
        let fifo = context.path("work/fifo");
        nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).expect("the directory can be written");
        let (mut child, program) = started(&context, script);
        signal(&child, Signal::SIGKILL);
        child.wait().expect("it is a child of ours");
        is_gone(program);
    }
}

/// Not even for the moment between the end of its tracer and its own: who asks then would be told that there is no such call.
#[test]
fn nobody_goes_on_without_a_tracer() {
    let context = TestContext::new();
    let program = context.hazard("unanswered");
    for signals in [&[Signal::SIGKILL][..], &[Signal::SIGTERM, Signal::SIGINT]] {
        for _ in 0..50 {
            context.lay_out(&[]);
            let mut command = Command::new(support::minjail());
            command.args(["trace", "--quiet", "--force", "-t", "../t.trace", "--", &program]);
            let mut child = command.current_dir(context.work()).spawn().expect("minjail was built for this test");
            is_there(&context.path("work/ready"));
            for &sent in signals {
                signal(&child, sent);
            }
            child.wait().expect("it is a child of ours");
            let seen = fs_err::read_to_string(context.path("work/seen")).expect("the program has made it");
            assert_eq!(seen, "", "{signals:?}");
        }
    }
}

/// Who may not kill processes of other users gives up tracing one all the same.
#[test]
fn a_process_of_another_user_is_ended_too() {
    if !needs_root("setpriv") {
        return;
    }
    let context = TestContext::new();
    let program = context.hazard("unkillable");
    let mut command = context.command("setpriv");
    command.args(["--bounding-set=-kill", "--inh-caps=-kill", support::minjail(), "trace", "-t", "../t.trace", "--"]);
    let outcome = outcome_of(command.arg(&program));
    if outcome.status == 77 {
        return support::skip("every process can be killed here");
    }
    assert!(outcome.status == 125 && outcome.stderr.contains("program` uses ptrace itself"), "{outcome}");
    let child = fs_err::read_to_string(context.path("work/child")).expect("the program has made it");
    is_gone(child.trim().parse().expect("a number"));
}

#[test]
fn ctrl_c_ends_the_wait_for_what_outlives_the_program() {
    let context = TestContext::new();
    let mut command = Command::new(support::minjail());
    command.args(["trace", "--grace", "2m", "-t", "../t.trace", "--", "sh", "-c", "sleep 1000 & echo $!"]);
    let piped = command.current_dir(context.work()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("minjail was built for this test");
    let mut words = BufReader::new(child.stderr.take().expect("it is piped"));
    let mut said = String::new();
    while !said.contains("waiting up to 120 s for what outlives the program: `sleep` (") {
        assert!(words.read_line(&mut said).expect("it is a pipe") > 0, "{said}");
    }
    signal(&child, Signal::SIGINT);
    assert_eq!(child.wait().expect("it is a child of ours").code(), Some(0));
    let mut output = String::new();
    child.stdout.take().expect("it is piped").read_to_string(&mut output).expect("it is a pipe");
    is_gone(output.trim().parse().expect("a number"));
    assert!(context.path("t.trace").is_dir());
}

/// As a shell does with what it starts in the background.
#[test]
fn a_signal_that_was_ignored_from_the_start() {
    let context = TestContext::new();
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' INT; exec \"$@\"", "sh", support::minjail(), "trace", "--quiet", "-t", "../t.trace"]);
    command.args(["--", "sh", "-c", "echo ready; sleep 2"]);
    let piped = command.current_dir(context.work()).stdout(Stdio::piped());
    let mut child = piped.spawn().expect("minjail was built for this test");
    child.stdout.as_mut().expect("it is piped").read_exact(&mut [0; 6]).expect("it is ready");
    for _ in 0..3 {
        signal(&child, Signal::SIGINT);
        // Within a moment it would be the same signal.
        std::thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(child.wait().expect("it is a child of ours").code(), Some(0));
    assert!(context.path("t.trace").is_dir());
}

/// Whoever stops a build finds his directory as it was.
#[test]
fn ctrl_c_while_packing_leaves_nothing() {
    for (sent, status) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143), (Signal::SIGHUP, 129)] {
        let context = TestContext::new();
        context.lay_out(&[("large", "")]);
        let large = fs_err::OpenOptions::new().write(true).open(context.work().join("large")).expect("it was made");
        large.file().set_len(1 << 40).expect("a file may have a hole");
        // However long one file takes.
        for form in ["oci-archive", "rootfs"] {
            let output = format!("{form}:{}", context.text("image"));
            let arguments = ["trace", "-t", "../t.trace", "-o", &output, "--", "head", "-c", "1", "large"];
            stop_once_there(&context, &arguments, ".image.minjail-", sent, status);
            assert!(!context.listing().iter().any(|name| name.contains("image")), "{:?}", context.listing());
            assert!(context.path("t.trace/trace.jsonl").is_file());
        }
    }
}

/// The same while the trace is written, which takes its time if it keeps much.
#[test]
fn ctrl_c_while_the_trace_is_written_leaves_nothing() {
    for (sent, status) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143), (Signal::SIGHUP, 129)] {
        let context = TestContext::new();
        context.lay_out(&[]);
        fs_err::write(context.work().join("large"), vec![b'x'; 64 << 20]).expect("there is room");
        let arguments = ["trace", "-t", "../t.trace", "--", "sh", "-c", ": >> large"];
        stop_once_there(&context, &arguments, ".t.trace.minjail-", sent, status);
        assert!(!context.listing().iter().any(|name| name.contains("t.trace")), "{:?}", context.listing());
    }
}

/// Between two works of a command, and while what it needs for a time is removed, too.
#[test]
fn a_signal_at_any_moment_leaves_nothing() {
    const MOMENTS: u32 = 8;
    let context = TestContext::new();
    let (trace, image) = (context.text("a.trace"), format!("oci:{}", context.text("image")));
    context.outcome(&["trace", "-q", "-t", &trace, "-o", &image, "--", "cat", "/etc/debian_version"]).success();
    let (profile, draft) = (context.text("a.yaml"), context.text("out.yaml"));
    fs_err::write(&profile, "workloads:\n  main: {run: [/usr/bin/cat, /etc/debian_version]}\n").expect("it is ours");
    let (tree, temporary) = (format!("rootfs:{}", context.text("out")), context.path("temporary"));
    fs_err::create_dir(&temporary).expect("the directory is ours");
    let before = context.listing();
    let commands: [&[&str]; 6] = [
        &["build", &profile, "-o", &tree],
        &["slim", "--no-cache", &image, "-o", &tree],
        &["verify", "--no-cache", &image, "-p", &profile],
        &["unpack", &image, "-o", &tree],
        &["run", "--no-cache", &image],
        &["init", "-o", &draft, "--", "/usr/bin/cat", "/etc/debian_version"],
    ];
    for arguments in commands {
        let run = |delay: Option<Duration>| {
            let mut command = Command::new(support::minjail());
            command.args(arguments).env("TMPDIR", &temporary).stdin(Stdio::null());
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it was built");
            if let Some(delay) = delay {
                std::thread::sleep(delay);
                signal(&child, Signal::SIGTERM);
            }
            let status = child.wait().expect("it is a child of ours");
            assert_ne!(status.code(), Some(125), "after {delay:?} of {arguments:?}");
            assert_eq!(support::names_in(&temporary), [""; 0], "after {delay:?} of {arguments:?}");
            for whole in ["out", "out.lock", "out.yaml"].map(|name| context.path(name)) {
                let _ = fs_err::remove_file(&whole).or_else(|_| fs_err::remove_dir_all(&whole));
            }
            assert_eq!(context.listing(), before, "after {delay:?} of {arguments:?}");
        };
        let start = Instant::now();
        run(None);
        let whole = start.elapsed();
        (0..MOMENTS).for_each(|moment| run(Some(whole * moment / MOMENTS)));
    }
}

/// Sends a signal to minjail once something is there with such a name; minjail must end for it with this status.
fn stop_once_there(context: &TestContext, arguments: &[&str], name: &str, sent: Signal, status: i32) {
    let mut command = Command::new(support::minjail());
    let piped = command.args(arguments).current_dir(context.work()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("minjail was built for this test");
    while !context.listing().iter().any(|there| there.contains(name)) {
        assert!(child.try_wait().expect("it is ours").is_none(), "it ended before it wrote anything");
        std::thread::sleep(Duration::from_millis(1));
    }
    signal(&child, sent);
    let mut said = String::new();
    child.stderr.take().expect("it is piped").read_to_string(&mut said).expect("it is a pipe");
    assert_eq!(child.wait().expect("it is a child of ours").code(), Some(status), "{said}");
    assert!(said.contains(&format!("stopped by {sent}")), "{said}");
}

/// One that comes soon after another one is none that both the process and its group were sent.
#[test]
fn each_signal_is_passed_on() {
    let context = TestContext::new();
    let script = "trap 'echo heard' HUP; echo ready; for turn in $(seq 1000); do [ -e over ] && exit; sleep .01; done";
    // Not by way of what limits its time.
    let mut command = Command::new(support::minjail());
    command.args(["trace", "-q", "-t", &context.text("x.trace"), "--", "sh", "-c", script]);
    let mut minjail = command.current_dir(context.work()).stdout(Stdio::piped()).spawn().unwrap();
    let number = Pid::from_raw(i32::try_from(minjail.id()).unwrap());
    let mut lines = BufReader::new(minjail.stdout.take().unwrap()).lines();
    let mut expect = |word: &str| assert_eq!(lines.next().and_then(Result::ok).as_deref(), Some(word));
    expect("ready");
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(50));
        kill(number, Signal::SIGHUP).unwrap();
        expect("heard");
    }
    fs_err::write(context.work().join("over"), "").unwrap();
    assert!(minjail.wait().unwrap().success());
}
