//! What the program can notice of its tracer: nothing that it could not notice of any other parent.
//!
//! Here the tracer is a process of its own (`examples/paths.rs`), beside a plain run of the same program.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::hazard::{WIDTHS, build};
use crate::skip::skip;

/// The tracer as a program: `cargo test` has built it beside the tests, unless it was asked for these tests alone.
fn tracer() -> PathBuf {
    static TRACER: OnceLock<PathBuf> = OnceLock::new();
    let tracer = TRACER.get_or_init(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--offline", "--example", "paths"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success());
        let tests = std::env::current_exe().unwrap();
        tests.ancestors().nth(2).unwrap().join("examples/paths")
    });
    tracer.clone()
}

fn traced(program: &Path) -> Command {
    let mut command = Command::new(tracer());
    command.arg("--quiet").arg(program);
    command
}

/// The same command line, plain and traced, through a shell that prepares what is to be inherited.
fn both(preparation: &str, program: &Path) -> (Output, Output) {
    let run = |tracer: &str| {
        let script = format!("{preparation}\nexec {tracer} {} argument 'with space'", program.display());
        Command::new("/bin/bash")
            .env_clear()
            .env("LANG", "C")
            .env("ODD", "a\nb")
            .arg("-c")
            .arg(script)
            .output()
            .unwrap()
    };
    (run(""), run(&format!("{} --quiet", tracer().display())))
}

#[track_caller]
fn same(preparation: &str, program: &Path) {
    let (plain, traced) = both(preparation, program);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (seen, expected) = (text(&traced.stdout), text(&plain.stdout));
    let difference: Vec<_> =
        std::iter::zip(expected.lines(), seen.lines()).filter(|(one, other)| one != other).collect();
    assert!(difference.is_empty() && seen == expected, "{preparation}: {difference:#?}");
    assert_eq!(text(&traced.stderr), text(&plain.stderr), "{preparation}");
    assert_eq!(traced.status, plain.status, "{preparation}");
}

#[test]
fn everything_that_is_inherited() {
    let program = build("state", &[]);
    for preparation in [
        "",
        "umask 027; cd /usr/share",
        "trap '' PIPE INT USR1",
        "exec 7</dev/null 9>/dev/null",
        "exec 0<&-",
        "exec 0<&- 2>&-",
        "ulimit -n 77; ulimit -Sc 0; ulimit -s 4096; ulimit -t 1000",
        "export IFS; renice -n 3 $$ >/dev/null",
        // Blocks all signals, also those that the C library keeps for itself: by the number of rt_sigprocmask.
        "number=$([ $(uname -m) = x86_64 ] && echo 14 || echo 135)
        exec() { builtin exec perl -e 'my $all = pack(\"Q\", ~0); syscall shift, 0, $all, 0, 8; exec @ARGV' $number \"$@\"; }",
    ] {
        same(preparation, &program);
    }
    for wrapper in [
        "setarch -R",
        "setpriv --pdeathsig HUP",
        "setpriv --no-new-privs",
        "setpriv --reuid 65534 --regid 65534 --clear-groups",
        "setpriv --inh-caps=+net_raw --ambient-caps=+net_raw",
        "setsid --wait",
        "timeout --foreground 60",
        "taskset 1",
        "env -i A=1",
    ] {
        // What is asked for stands before the tracer in one run, and before the program in the other.
        let run = |command: &Path| {
            let mut words = wrapper.split(' ');
            let mut prepared = Command::new(words.next().unwrap());
            prepared.args(words).arg(command).env_clear().env("PATH", "/usr/bin:/bin");
            if command == tracer() {
                prepared.arg("--quiet").arg(&program);
            }
            prepared.output().unwrap()
        };
        let (plain, traced) = (run(&program), run(&tracer()));
        let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
        // Without root's rights a filter needs no_new_privs (seccomp(2)).
        let but = |text: String| {
            let unavoidable = |line: &&str| !(wrapper.contains("reuid") && line.contains("no_new"));
            let lines: Vec<&str> =
                text.lines().filter(unavoidable).filter(|line| !line.starts_with("NoNewPrivs")).collect();
            lines.join("\n")
        };
        let (leader, seen) = (wrapper.contains("setsid"), but(text(&traced)));
        let expected = but(text(&plain));
        let expected = if leader { expected.replace("leader 1 session 1", "leader 0 session 0") } else { expected };
        assert!(!wrapper.contains("pdeathsig") || expected.contains("death 1 "), "{expected}");
        assert!(expected.lines().count() > 40, "{wrapper}: {}", String::from_utf8_lossy(&plain.stderr));
        let difference: Vec<_> = std::iter::zip(expected.lines(), seen.lines()).filter(|(a, b)| a != b).collect();
        assert!(seen == expected, "{wrapper}: {difference:#?} {}", String::from_utf8_lossy(&traced.stderr));
    }
}

#[test]
fn setuid_and_capabilities_of_files() {
    if !nix::unistd::geteuid().is_root() {
        return skip("only root can make setuid programs of root");
    }
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    fs_err::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let copy = |name: &str| {
        let path = directory.path().join(name);
        fs_err::copy(build("state", &[]), &path).unwrap();
        path
    };
    let setuid = copy("setuid");
    fs_err::set_permissions(&setuid, std::os::unix::fs::PermissionsExt::from_mode(0o4755)).unwrap();
    let capable = copy("capable");
    assert!(Command::new("/sbin/setcap").arg("cap_net_raw+ep").arg(&capable).status().unwrap().success());
    let tracer = tracer();
    for program in [setuid, capable] {
        let drop = ["--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all"];
        let plain = Command::new("setpriv").args(drop).arg(&program).env_clear().output().unwrap();
        // The tracer is root; the program becomes somebody else, and then more again.
        let shell = ["--quiet", "/usr/bin/setpriv"];
        let traced = Command::new(&tracer).args(shell).args(drop).arg(&program).env_clear().output().unwrap();
        let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text(&plain).contains("secure 1"));
        assert_eq!(text(&plain), text(&traced));
    }
}

#[test]
fn how_it_ends() {
    let program = build("crash", &[]);
    for signal in [libc::SIGSEGV, libc::SIGABRT, libc::SIGTERM, libc::SIGKILL, libc::SIGPIPE, 40] {
        let status = traced(&program).arg(signal.to_string()).status().unwrap();
        assert_eq!(status.code(), Some(128 + signal));
    }
    // A core is written where a plain run writes one.
    let cores = |traced: bool| {
        let directory = tempfile::tempdir().unwrap();
        let tracer = if traced { format!("{} --quiet", tracer().display()) } else { String::new() };
        let script = format!("ulimit -c unlimited 2>/dev/null; {tracer} {} 11; true", program.display());
        Command::new("/bin/bash").arg("-c").arg(script).current_dir(directory.path()).output().unwrap();
        fs_err::read_dir(directory.path()).unwrap().count()
    };
    assert_eq!(cores(true), cores(false));
    let missing = Command::new(tracer()).args(["--quiet", "/no/such/program"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(125));
}

/// A traced program that waits for signals, in a process group of its own, once it is ready.
struct Patient {
    tracer: Child,
    output: BufReader<std::process::ChildStdout>,
    program: Pid,
}

impl Patient {
    fn start(signals: &str) -> Self {
        let mut command = traced(&build("patient", &[]));
        let mut tracer = command.arg(signals).stdout(Stdio::piped()).process_group(0).spawn().unwrap();
        let mut output = BufReader::new(tracer.stdout.take().unwrap());
        let program = ready(&mut output);
        Self { tracer, output, program }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.tracer.id().cast_signed()), signal).unwrap();
    }
}

fn ready(output: &mut impl BufRead) -> Pid {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    Pid::from_raw(line.trim().strip_prefix("ready ").unwrap().parse().unwrap())
}

fn line(output: &mut impl BufRead) -> String {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    line.trim().to_owned()
}

/// Waits until a process is gone.
fn gone(process: Pid) -> bool {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(10) {
        if kill(process, None).is_err() {
            return true;
        }
        let status = fs_err::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        if status.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

#[test]
fn signals_to_the_tracer_reach_the_program() {
    use Signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
    for signal in [SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGQUIT, SIGWINCH] {
        let mut patient = Patient::start("1");
        patient.signal(signal);
        assert_eq!(line(&mut patient.output), format!("got {}", signal as i32));
        assert_eq!(patient.tracer.wait().unwrap().code(), Some(9));
    }
}

/// What a program sends to its group reaches itself alone, whatever it is, though its tracer is of the group.
#[test]
fn signals_to_the_group() {
    let named =
        ["ALRM", "VTALRM", "PROF", "IO", "PWR", "STKFLT", "TRAP", "ABRT", "WINCH", "USR1", "TERM"].map(str::to_owned);
    for signal in named.into_iter().chain((34..=64).map(|number| number.to_string())) {
        let script = format!("trap 'echo got' {signal}; kill -{signal} 0; exit 4");
        let output = traced(Path::new("/bin/bash")).args(["-c", &script]).process_group(0).output().unwrap();
        assert_eq!((output.status.code(), &*output.stdout), (Some(4), &b"got\n"[..]), "{signal}");
    }
}

/// The timer of `alarm(2)` stays through `execve(2)`, and so is the tracer's then, which is not meant.
#[test]
fn a_timer_from_before() {
    let alarm = |tracer: &[&str]| {
        let after = |seconds: u32| {
            let mut command = Command::new("perl");
            command.arg("-e").arg(format!("alarm {seconds}; exec @ARGV")).args(tracer).args([
                "/bin/sh",
                "-c",
                "trap 'exit 5' ALRM; while :; do sleep 0.1; done",
            ]);
            command.status().unwrap().code()
        };
        // A slow machine may not have come to the trap by then.
        [1, 4, 16].into_iter().find_map(after)
    };
    assert_eq!(alarm(&[]), Some(5));
    assert_eq!(alarm(&[tracer().to_str().unwrap(), "--quiet"]), Some(5));
}

/// What the kernel sends to a process whose parent ends reaches the program, with the tracer between the two.
#[test]
fn the_end_of_the_parent() {
    let program = build("patient", &[]);
    for tracer in [String::new(), format!("{} --quiet", tracer().display())] {
        // The shell ends when it has read a line; whoever it started must hear of that.
        let script = format!("setpriv --pdeathsig USR1 {tracer} {} 1 & read line", program.display());
        let mut shell = Command::new("/bin/bash");
        let mut shell = shell.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(shell.stdout.take().unwrap());
        let program = ready(&mut output);
        drop(shell.stdin.take());
        shell.wait().unwrap();
        assert_eq!(line(&mut output), format!("got {}", libc::SIGUSR1), "`{tracer}`");
        assert_eq!(output.read_to_string(&mut String::new()).unwrap(), 0, "once");
        assert!(gone(program));
    }
}

#[test]
fn a_second_one_ends_the_tracer_at_once() {
    let mut patient = Patient::start("9");
    patient.signal(Signal::SIGTERM);
    assert_eq!(line(&mut patient.output), "got 15");
    // The same again from the same sender within a moment is the same signal, as `timeout` sends it.
    while patient.tracer.try_wait().unwrap().is_none() {
        patient.signal(Signal::SIGTERM);
        std::thread::sleep(Duration::from_millis(250));
    }
    assert_eq!(patient.tracer.wait().unwrap().code(), Some(128 + 15));
    assert!(gone(patient.program));
}

#[test]
fn nothing_outlives_a_killed_tracer() {
    for _ in 0..20 {
        let mut patient = Patient::start("9");
        patient.signal(Signal::SIGKILL);
        assert_eq!(patient.tracer.wait().unwrap().signal(), Some(9));
        assert!(gone(patient.program));
    }
    // At any moment, also before the program runs: what has the tracer's output open is what the tracer started.
    for delay in 0..40 {
        let mut tracer = traced(&build("patient", &[])).stdout(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(delay * 100));
        tracer.kill().unwrap();
        tracer.wait().unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let mut output = tracer.stdout.take().unwrap();
        std::thread::spawn(move || sender.send(output.read_to_end(&mut Vec::new()).unwrap()));
        receiver.recv_timeout(Duration::from_secs(10)).expect("the end of everything that was started");
    }
}

#[test]
fn a_terminal() {
    let terminal = nix::pty::openpty(None, None).unwrap();
    let input = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
    // The terminal is to be the session's: setsid(1) with --ctty does that.
    let mut session = Command::new("setsid");
    session.args(["--ctty", "--wait"]).arg(tracer()).arg("--quiet").arg(build("patient", &[])).arg("9");
    session.stdin(input(&terminal.slave)).stdout(input(&terminal.slave)).stderr(input(&terminal.slave));
    let mut tracer = session.spawn().unwrap();
    drop((session, terminal.slave));
    let mut screen = BufReader::new(std::fs::File::from(terminal.master.try_clone().unwrap()));
    let program = ready(&mut screen);
    let press = |key: &[u8]| nix::unistd::write(&terminal.master, key).unwrap();
    // A window's new size comes once, as Ctrl-C does, though the tracer hears of both.
    assert!(Command::new("stty").args(["rows", "33"]).stdin(input(&terminal.master)).status().unwrap().success());
    assert_eq!(line(&mut screen), "got 28");
    press(b"\x03");
    assert!(line(&mut screen).ends_with("got 2"));
    std::thread::sleep(Duration::from_millis(100));
    assert!(tracer.try_wait().unwrap().is_none(), "one Ctrl-C is one signal");
    press(b"\x03");
    assert_eq!(tracer.wait().unwrap().code(), Some(128 + 2), "the second one ends the tracer");
    assert!(gone(program));
}

/// What the program mounts where the tracer looks for tasks is not held by it.
#[test]
fn a_proc_of_its_own() {
    if !nix::unistd::geteuid().is_root() {
        return skip("only root mounts");
    }
    let program = build("own_proc", &[]);
    let plain = Command::new("unshare").arg("-m").arg(&program).output().unwrap();
    let traced = Command::new("unshare").arg("-m").arg(tracer()).arg("--quiet").arg(&program).output().unwrap();
    assert!(plain.status.success(), "{plain:?}");
    assert_eq!((traced.status, String::from_utf8_lossy(&traced.stderr)), (plain.status, "".into()));
}

/// Nothing is told of what cannot be seen, so that is told.
#[test]
fn without_a_proc() {
    if !nix::unistd::geteuid().is_root() {
        return skip("only root mounts");
    }
    let run = |arguments: &[&str], script: &str| {
        let output = Command::new("unshare").args(arguments).args(["/bin/sh", "-c", script]).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let tracer = tracer().display().to_string();
    let hidden = format!("exec {tracer} /bin/sh -c 'mount -t tmpfs none /proc; cat /etc/hostname'");
    let (status, seen) = run(&["-m"], &hidden);
    assert!(status == Some(0) && seen.contains("gap: MountNamespace"), "{seen}");
    let absent = format!("umount -l /proc; exec {tracer} --quiet /bin/true");
    let (status, seen) = run(&["-m"], &absent);
    assert!(status != Some(0) && seen.contains("/proc"), "{seen}");
    let strange = format!("exec {tracer} --quiet /bin/true");
    let (status, seen) = run(&["-p", "-f"], &strange);
    assert!(status != Some(0) && seen.contains("/proc"), "{seen}");
}

/// Nothing is told of a task of which `/proc` tells nothing any more, so that is told.
#[test]
fn tasks_that_hide_from_proc() {
    if !nix::unistd::geteuid().is_root() {
        return skip("only root mounts");
    }
    let program = build("hidden", &[]);
    for name in ["", "/fd", "/task"] {
        let hidden = Command::new("unshare").arg("-m").arg(tracer()).arg(&program).arg(name).output().unwrap();
        let told = String::from_utf8_lossy(&hidden.stderr).into_owned();
        assert!(hidden.status.success() && told.contains("gap: MountNamespace"), "{name}: {told}");
    }
}

/// Where nobody may listen, every call is a stop, and the program sees no difference.
#[test]
fn where_a_container_forbids_to_listen() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(build("barred", &[]));
    command.arg(tracer()).arg(build("own_filter", &[])).arg("listen").current_dir(directory.path());
    let output = command.output().unwrap();
    let seen = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{seen}");
    let own = directory.path().display();
    let access = if cfg!(target_arch = "x86_64") { "access" } else { "faccessat" };
    for told in
        [format!("{access} Look missing {own}/before"), format!("Look missing {own}/after"), "gap: Supervisor".into()]
    {
        assert!(seen.contains(&told), "{told}: {seen}");
    }
}

/// A copy that whoever may not get to the original can execute.
fn copy_to(directory: &Path, from: &Path, name: &str) -> PathBuf {
    let path = directory.join(name);
    fs_err::copy(from, &path).unwrap();
    path
}

/// What calls come to under filters of the program's own, whatever these compute, is what the kernel makes of them; for an ordinary
/// user too.
#[test]
fn filters_that_ask_for_a_tracer() {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    fs_err::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let copy = |from: PathBuf, name: &str| copy_to(directory.path(), &from, name);
    let tracer = copy(tracer(), "tracer");
    let nobody = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
    for (name, &flags) in ["wide", "narrow"].iter().zip(WIDTHS) {
        let program = copy(build("own_traces", flags), name);
        let run = |user: &[&str], tracer: &[&Path], what: &str| {
            let mut command = Command::new("setpriv");
            command.args(user).args(tracer).arg(&program).arg(what).current_dir(directory.path());
            let output = command.output().unwrap();
            assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        let quietly = [tracer.as_path(), Path::new("--quiet")];
        let users: &[&[&str]] =
            if nix::unistd::geteuid().is_root() { &[&["--no-new-privs"], &nobody] } else { &[&["--no-new-privs"]] };
        for user in users {
            let expected = run(user, &[], "any");
            let mixed = |line: &&str| line.contains("T.") || line.contains(".T");
            assert!(expected.lines().filter(mixed).count() > 20 && !expected.contains('?'), "{expected}");
            assert_eq!(run(user, &quietly, "any"), expected, "{user:?}");
            for what in ["seccomp", "prctl", "vain", "denied", "children", "threads", "executes", "marked"] {
                run(user, &[], what);
                run(user, &quietly, what);
            }
        }
    }
}

#[test]
fn without_root_what_is_hidden_is_a_gap() {
    if !nix::unistd::geteuid().is_root() {
        return skip("only root can become somebody else");
    }
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    fs_err::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let copy = |from: PathBuf, name: &str| copy_to(directory.path(), &from, name);
    let (tracer, program) = (copy(tracer(), "tracer"), copy(build("undumpable", &[]), "undumpable"));
    let output = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(tracer)
        .arg(program)
        .output()
        .unwrap();
    assert!(output.status.success());
    let seen = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(seen.contains("gap: Memory"), "{seen}");
}
