//! What the tests that look at minjail from outside share: a directory of their own, a clean environment, and a
//! program's outcome natively, under `minjail trace`, in `minjail run` and in a container made from the image.
//!
//! Nothing here knows minjail's inside: it sees arguments, exit statuses, standard output and files, as a user does.

#![allow(dead_code, reason = "each test binary uses its own part of this module")]

pub(crate) mod containerd;
pub(crate) mod crafted;
pub(crate) mod daemon;
pub(crate) mod docker;
pub(crate) mod laid_out;
pub(crate) mod numbers;
pub(crate) mod outcome;
pub(crate) mod podman;
pub(crate) mod program;
mod skip;
pub(crate) mod traced;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

pub(crate) use outcome::{Outcome, outcome_of, outcome_with_input};
pub(crate) use skip::skip;

/// Where Debian's own programs lie, and nothing that a machine's owner may have put before them.
const SEARCH_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// No program in these tests takes a tenth of this; it only keeps a hanging one from holding up everything.
const SECONDS_AT_MOST: &str = "300";

/// A test's own directory, removed at its end.
///
/// It lies in Cargo's `target/tmp`, not in `/tmp`: what a program finds in `/tmp` is treated in a way of its own, and a
/// person's project rarely lies there.
pub(crate) struct TestContext {
    directory: TempDir,
}

/// Where the directories of tests are made: not among temporary files, of which minjail keeps the content, so that a
/// checkout below `/tmp` would see another behaviour; and not where other users get nowhere, as below `/root`.
fn ground() -> &'static Path {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let is_temporary = ["/tmp", "/var/tmp", "/run"].iter().any(|top| target.starts_with(top));
    let is_open = |path: &Path| fs_err::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o001 != 0);
    let is_closed = !target.ancestors().all(is_open);
    if (is_temporary || is_closed) && nix::unistd::geteuid().is_root() { Path::new("/var/cache") } else { target }
}

impl TestContext {
    pub(crate) fn new() -> Self {
        let directory =
            tempfile::Builder::new().prefix("test-").tempdir_in(ground()).expect("the directory can be written");
        fs_err::create_dir(directory.path().join("work")).expect("the directory is new");
        Self { directory }
    }

    /// A path beside the working directory: for images, locks and traces, which the program must not see.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// [`Self::path`] as an argument.
    pub(crate) fn text(&self, name: &str) -> String {
        text(&self.path(name))
    }

    /// The directory in which the programs run.
    pub(crate) fn work(&self) -> PathBuf {
        self.path("work")
    }

    /// Empties the working directory and lays `inputs` out in it, so that each run starts from the same state.
    pub(crate) fn lay_out(&self, inputs: &[(&str, &str)]) {
        fs_err::remove_dir_all(self.work()).expect("the working directory is ours");
        fs_err::create_dir(self.work()).expect("it was just removed");
        for (name, content) in inputs {
            let path = self.work().join(name);
            let parent = path.parent().expect("it is below the working directory");
            fs_err::create_dir_all(parent).expect("the working directory can be written");
            fs_err::write(&path, content).expect("the working directory can be written");
        }
    }

    /// `program` in the working directory, with a clean environment and a time limit.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = limited(program);
        command.current_dir(self.work()).env("HOME", self.work()).env("LANG", "C.UTF-8");
        command
    }

    /// One of the tracer's hazards, compiled beside the working directory as `program`.
    #[track_caller]
    pub(crate) fn hazard(&self, name: &str) -> String {
        let program = self.text("program");
        let source = format!("{}/fixtures/hazards/{name}.c", env!("CARGO_MANIFEST_DIR"));
        outcome_of(self.command("gcc").args(["-O1", "-static", "-pthread", "-o", &program, &source])).success();
        program
    }

    /// `minjail` in the working directory, likewise.
    pub(crate) fn minjail(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(minjail());
        command.args(arguments);
        command
    }

    /// The JSON in a file that is named as for [`Self::path`].
    pub(crate) fn json(&self, name: &str) -> serde_json::Value {
        let text = fs_err::read(self.path(name)).expect("the file was written");
        serde_json::from_slice(&text).expect("it is JSON")
    }

    /// What [`minjail`](Self::minjail) comes to.
    pub(crate) fn outcome(&self, arguments: &[&str]) -> Outcome {
        outcome_of(&mut self.minjail(arguments))
    }

    /// The names beside and in the working directory: what a failed command must leave as it was.
    pub(crate) fn listing(&self) -> Vec<String> {
        let mut names = names_in(self.directory.path());
        names.extend(names_in(&self.work()).into_iter().map(|name| format!("work/{name}")));
        names
    }
}

/// The binary under test.
pub(crate) fn minjail() -> &'static str {
    env!("CARGO_BIN_EXE_minjail")
}

/// `program` with a clean environment, killed with all its children after [`SECONDS_AT_MOST`].
pub(crate) fn limited(program: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", SECONDS_AT_MOST, program]).env_clear().env("PATH", SEARCH_PATH);
    command
}

/// The sorted names in a directory.
pub(crate) fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs_err::read_dir(directory).expect("the directory can be listed");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("the directory can be listed").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// A path of ours as an argument; all of them are plain text.
pub(crate) fn text(path: &Path) -> String {
    path.to_str().expect("test paths are plain text").to_owned()
}

/// Whether all of `programs` are here; says which one is not.
pub(crate) fn has(programs: &[&str]) -> bool {
    let found = |name: &str| {
        name.starts_with('/') && Path::new(name).exists()
            || SEARCH_PATH.split(':').any(|directory| Path::new(directory).join(name).exists())
    };
    let missing = programs.iter().find(|name| !found(name));
    if let Some(name) = missing {
        skip(&format!("`{name}` is not installed"));
    }
    missing.is_none()
}

/// Whether the test may run as root; says why it is skipped if not. Use as `if !needs_root("podman") { return; }`.
pub(crate) fn needs_root(what: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skip(&format!("{what} needs root"));
    }
    root
}
