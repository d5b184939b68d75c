//! Builds a hazard, runs it under the tracer in a directory of its own, and says what was seen.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use minjail_tracer::{Access, Account, Command, Event, Found, Gap, Options, Outcome, TraceError, trace};

/// A hazard that is about to run.
pub(crate) struct Hazard {
    program: PathBuf,
    directory: tempfile::TempDir,
    arguments: Vec<OsString>,
    grace: Option<Duration>,
    exact_calls: bool,
    renamed: Option<[&'static str; 2]>,
    told_again: bool,
}

/// What was seen of it.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) outcome: Outcome,
    /// `CALL ACCESS PATH STATE`, each once; paths in the hazard's directory are relative to it.
    pub(crate) touches: BTreeSet<String>,
    /// How many events there were, also those that say the same.
    pub(crate) events: usize,
    pub(crate) gaps: BTreeMap<Gap, usize>,
    /// The arguments of every program that was executed, and the file names of what was loaded for it.
    pub(crate) executed: Vec<(Vec<String>, Vec<String>)>,
    /// Processes, from child to parent.
    pub(crate) parents: BTreeMap<i32, i32>,
    pub(crate) exits: BTreeSet<i32>,
    /// How often calls that give something another name have done so, have not, or may have.
    pub(crate) moved: BTreeMap<Option<bool>, usize>,
    /// Whom tasks became, or gave something to.
    pub(crate) accounts: BTreeSet<Account>,
    exact_calls: bool,
}

impl Hazard {
    /// `fixtures/hazards/NAME.c`, linked statically: a loader would touch libraries.
    pub(crate) fn new(name: &str) -> Self {
        Self::with_flags(name, &[])
    }

    pub(crate) fn with_flags(name: &str, flags: &[&str]) -> Self {
        Self::of(build(name, flags))
    }

    /// Any program.
    pub(crate) fn of(program: PathBuf) -> Self {
        Self {
            program,
            directory: tempfile::tempdir().unwrap(),
            arguments: Vec::new(),
            grace: None,
            exact_calls: false,
            renamed: None,
            told_again: false,
        }
    }

    pub(crate) fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments = arguments.iter().map(Into::into).collect();
        self
    }

    pub(crate) fn grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// Calls by their own names. Otherwise `open` stands for all that a C library may use in its place, and so on.
    pub(crate) fn exact_calls(mut self) -> Self {
        self.exact_calls = true;
        self
    }

    /// Renames something, as somebody whom nobody traces, when the program asks for `/please-rename`.
    pub(crate) fn renamed(mut self, from: &'static str, to: &'static str) -> Self {
        self.renamed = Some([from, to]);
        self
    }

    /// Wants to hear of everything as often as it is asked for.
    pub(crate) fn told_again(mut self) -> Self {
        self.told_again = true;
        self
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Makes an empty file, and the directories on the way.
    pub(crate) fn file(self, name: impl AsRef<Path>) -> Self {
        self.content(name, "")
    }

    pub(crate) fn content(self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Self {
        let path = self.path().join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, content).unwrap();
        self
    }

    /// A file that can be executed.
    pub(crate) fn script(self, name: &str, content: &str) -> Self {
        let hazard = self.content(name, content);
        fs_err::set_permissions(hazard.path().join(name), PermissionsExt::from_mode(0o755)).unwrap();
        hazard
    }

    /// Compiles a program that does nothing, and names `loader` as its own; its path.
    pub(crate) fn loaded_by(&self, name: &str, loader: impl AsRef<Path>) -> String {
        let (program, source) = (self.path().join(name), self.path().join("empty.c"));
        fs_err::write(&source, "int main(void) { return 0; }\n").unwrap();
        let flag = format!("-Wl,--dynamic-linker={}", loader.as_ref().display());
        let status = std::process::Command::new("gcc").args([&flag, "-o"]).arg(&program).arg(&source).status();
        assert!(status.unwrap().success());
        program.to_str().unwrap().to_owned()
    }

    pub(crate) fn directory(self, name: impl AsRef<Path>) -> Self {
        fs_err::create_dir_all(self.path().join(name)).unwrap();
        self
    }

    pub(crate) fn link(self, name: &str, target: impl AsRef<Path>) -> Self {
        fs_err::os::unix::fs::symlink(target, self.path().join(name)).unwrap();
        self
    }

    pub(crate) fn run(&self) -> Seen {
        self.try_run().unwrap()
    }

    pub(crate) fn try_run(&self) -> Result<Seen, TraceError> {
        let command = Command {
            program: self.program.clone(),
            arguments: [vec![self.program.clone().into_os_string()], self.arguments.clone()].concat(),
            environment: vec!["PATH=/usr/bin:/bin".into()],
            directory: Some(self.path().to_owned()),
            credentials: None,
            leads_group: false,
            parent_death_signal: 0,
        };
        let mut seen = Seen {
            outcome: Outcome::Exited(-1),
            touches: BTreeSet::new(),
            events: 0,
            gaps: BTreeMap::new(),
            executed: Vec::new(),
            parents: BTreeMap::new(),
            exits: BTreeSet::new(),
            moved: BTreeMap::new(),
            accounts: BTreeSet::new(),
            exact_calls: self.exact_calls,
        };
        let options = Options { grace: self.grace, ..Options::default() };
        seen.outcome = trace(&command, &options, &mut |event| {
            self.note(&mut seen, event);
            ControlFlow::Continue(())
        })?;
        Ok(seen)
    }

    fn note(&self, seen: &mut Seen, event: Event<'_>) {
        seen.events += 1;
        match event {
            Event::Touch(touch) => {
                touch.again.set(self.told_again);
                let path = self.short(&touch.walk.end);
                if let (Some(names), "/please-rename") = (self.renamed, path.as_str()) {
                    let [from, to] = names.map(|name| self.path().join(name));
                    fs_err::rename(from, to).unwrap();
                }
                // As to keep a large content takes its time.
                if path == "/please-wait" {
                    std::thread::sleep(Duration::from_millis(5));
                }
                // The start of the program, and what every static program does.
                let start = touch.access == Access::Execute && touch.walk.end == own_bytes(&self.program);
                if start || (family(touch.call) == "readlink" && path == "/proc/PID/exe") {
                    return;
                }
                let state = match &touch.walk.found {
                    Found::There(_) => "there".to_owned(),
                    Found::Missing => "missing".to_owned(),
                    Found::Unknown(errno) => format!("{errno:?}"),
                };
                let call = if self.exact_calls { touch.call } else { family(touch.call) };
                let links = touch.walk.links.iter().map(|link| self.short(&link.path));
                let links: Vec<String> =
                    links.filter(|path| !path.starts_with("/proc/")).map(|path| format!(" {path}@")).collect();
                let links = links.concat();
                let served = if touch.is_served { " served" } else { "" };
                seen.touches.insert(format!("{call} {:?} {path} {state}{links}{served}", touch.access));
            }
            Event::Fork { parent, child } => {
                assert_eq!(seen.parents.insert(child, parent), None, "each process is born once");
            }
            Event::Exec { arguments, loaded, .. } => {
                let arguments = arguments.iter().map(|argument| String::from_utf8(argument.clone()).unwrap()).collect();
                let name = |path: &Vec<u8>| path.rsplit(|&byte| byte == b'/').next().unwrap().to_vec();
                let loaded = loaded.iter().map(|path| String::from_utf8(name(path)).unwrap()).collect();
                seen.executed.push((arguments, loaded));
            }
            Event::Exit { process } => {
                assert!(seen.exits.insert(process), "each process ends once");
            }
            Event::Gap { gap, .. } => *seen.gaps.entry(gap).or_default() += 1,
            Event::Moved { has, .. } => *seen.moved.entry(has).or_default() += 1,
            Event::Account { account, .. } => {
                seen.accounts.insert(account);
            }
            Event::Listen { .. } => {}
        }
    }

    /// A path as the tests spell it.
    fn short(&self, path: &[u8]) -> String {
        let own = own_bytes(self.path());
        let text = match path.strip_prefix(own.as_slice()) {
            Some(b"") => ".".to_owned(),
            Some(rest) if rest.starts_with(b"/") => rest[1..].escape_ascii().to_string(),
            _ if path == own_bytes(&self.program) => "PROGRAM".to_owned(),
            _ => path.escape_ascii().to_string(),
        };
        match text.strip_prefix("/proc/") {
            Some(rest) => {
                let numbers = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
                let parts: Vec<&str> = rest.split('/').collect();
                let parts = parts.iter().enumerate().map(|(index, part)| match index {
                    0 if numbers(part) => "PID",
                    2 if parts[1] == "task" => "TID",
                    2 if parts[1] == "fd" => "FD",
                    _ => part,
                });
                format!("/proc/{}", parts.collect::<Vec<_>>().join("/"))
            }
            None => text,
        }
    }
}

impl Seen {
    /// Every NAME of which the program asked for `PREFIXNAME`, which is not there: so it tells what it has done.
    pub(crate) fn asked(&self, prefix: &str) -> Vec<&str> {
        let asked = self.touches.iter().filter_map(|touch| touch.strip_prefix("access Look ")?.strip_prefix(prefix));
        asked.map(|rest| rest.strip_suffix(" missing").unwrap()).collect()
    }

    /// Exactly these touches, no gap, and exit status 0.
    #[track_caller]
    pub(crate) fn is(&self, touches: &[&str]) {
        self.touched(touches);
        assert_eq!(self.gaps, BTreeMap::new());
        assert_eq!(self.outcome, Outcome::Exited(0));
    }

    #[track_caller]
    pub(crate) fn touched(&self, touches: &[&str]) {
        let named = |touch: &&str| {
            let (call, rest) = touch.split_once(' ').unwrap();
            format!("{} {rest}", if self.exact_calls { call } else { family(call) })
        };
        let expected: BTreeSet<String> = touches.iter().map(named).collect();
        let missing: Vec<_> = expected.difference(&self.touches).collect();
        let surplus: Vec<_> = self.touches.difference(&expected).collect();
        assert!(missing.is_empty() && surplus.is_empty(), "not seen: {missing:#?}\nnot expected: {surplus:#?}");
    }
}

fn family(call: &str) -> &str {
    match call {
        "openat" => "open",
        "lstat" | "stat64" | "lstat64" | "newfstatat" | "fstatat64" | "statx" => "stat",
        "faccessat" | "faccessat2" => "access",
        call if cfg!(target_arch = "x86_64") => call,
        // aarch64 has the calls of the second kind alone.
        "readlinkat" => "readlink",
        "mkdirat" => "mkdir",
        "rmdir" | "unlinkat" => "unlink",
        "renameat" => "rename",
        "linkat" => "link",
        "symlinkat" => "symlink",
        call => call,
    }
}

fn own_bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().to_owned().into_vec()
}

/// Where the hazards' sources are.
pub(crate) fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/hazards")
}

/// The flags that build a program of each width that this machine runs.
pub(crate) const WIDTHS: &[&[&str]] = if cfg!(target_arch = "x86_64") { &[&[], &["-m32"]] } else { &[&[]] };

/// The loader of this machine's programs, where it is known.
pub(crate) fn loader() -> Option<&'static Path> {
    let is_x86 = cfg!(target_arch = "x86_64");
    let loader = Path::new(if is_x86 { "/lib64/ld-linux-x86-64.so.2" } else { "/lib/ld-linux-aarch64.so.1" });
    loader.exists().then_some(loader)
}

/// Compiles a hazard, once for each set of flags, beside what cargo builds.
pub(crate) fn build(name: &str, flags: &[&str]) -> PathBuf {
    static BUILT: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let key = [&[name], flags].concat().concat();
    if let Some(program) = built.get(&key) {
        return program.clone();
    }
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hazards");
    fs_err::create_dir_all(&directory).unwrap();
    // Another run of the tests may be executing what stands there.
    let fresh = tempfile::tempdir_in(&directory).unwrap();
    let status = std::process::Command::new("gcc")
        .args(["-O1", "-static", "-pthread", "-Wall", "-Wno-nonnull"])
        .args(flags)
        .arg("-o")
        .arg(fresh.path().join(&key))
        .arg(sources().join(name).with_extension("c"))
        .status()
        .unwrap();
    assert!(status.success(), "gcc {name}");
    let program = directory.join(&key);
    fs_err::rename(fresh.path().join(&key), &program).unwrap();
    built.insert(key, program.clone());
    program
}
