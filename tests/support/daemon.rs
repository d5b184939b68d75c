//! A server that a test starts: stopped at the test's end, whatever that end is.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::SEARCH_PATH;

/// How long a server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server. Dropping it stops it.
pub(crate) struct Daemon {
    child: Child,
    name: String,
}

impl Daemon {
    /// Starts `command` with a clean environment and the variables it names itself, its words going to the file `log`.
    /// It also gets `SIGTERM` when the test process dies.
    pub(crate) fn start(command: &Command, log: &Path) -> Self {
        let output = fs_err::File::create(log).expect("the log's directory is the test's own").into_file();
        let errors = output.try_clone().expect("a descriptor can be copied");
        let mut kept = Command::new("setpriv");
        kept.args(["--pdeathsig", "TERM"]).arg(command.get_program()).args(command.get_args());
        let named = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
        kept.env_clear().env("PATH", SEARCH_PATH).envs(named);
        if let Some(directory) = command.get_current_dir() {
            kept.current_dir(directory);
        }
        let name = command.get_program().to_string_lossy().into_owned();
        match kept.stdin(Stdio::null()).stdout(output).stderr(errors).spawn() {
            Ok(child) => Self { child, name },
            Err(error) => panic!("failed to start `{name}`: {error}"),
        }
    }

    /// Waits until `ready` says so; fails when the server ends before, or after [`PATIENCE`].
    #[track_caller]
    pub(crate) fn wait_until(&mut self, ready: impl Fn() -> bool, log: &Path) {
        let start = Instant::now();
        while !ready() {
            let ended = self.child.try_wait().expect("it is our child");
            let words = || fs_err::read_to_string(log).unwrap_or_default();
            assert!(ended.is_none(), "`{}` ended ({ended:?}) before it was ready\n{}", self.name, words());
            assert!(start.elapsed() < PATIENCE, "`{}` is not ready after {PATIENCE:?}\n{}", self.name, words());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Sends a signal and waits for the end.
    pub(crate) fn end(&mut self, signal: Signal) -> ExitStatus {
        let pid = i32::try_from(self.child.id()).expect("process ids are positive i32");
        kill(Pid::from_raw(pid), signal).expect("it is our child and was not waited for");
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "`{}` does not end on {signal}", self.name);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A test that fails is already unwinding: nothing here may panic, and every step is only as good as it can be.
        if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
            return;
        }
        if let Ok(pid) = i32::try_from(self.child.id()) {
            kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
        }
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(10) {
            if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
