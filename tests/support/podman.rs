//! podman with a store of its own, so that tests run beside each other and leave the machine's images alone.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::{Outcome, TestContext, limited, outcome_of, outcome_with_input, text};

/// What makes `podman run` work in a bare machine, a container or a CI runner alike: no limit is raised, which would
/// need `CAP_SYS_RESOURCE`; no bridge; runc, which takes every cgroup layout; locks in the store, not in the shared
/// `/dev/shm`; and no journal.
const CONTAINERS_CONF: &str = r#"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
netns = "none"
log_driver = "none"

[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
"#;

/// A store of images and containers, removed at the end.
pub(crate) struct Podman {
    directory: TempDir,
}

impl Podman {
    pub(crate) fn new() -> Self {
        // podman refuses a run root of more than 50 bytes, so this one cannot lie in the test's own directory.
        let directory = tempfile::Builder::new().prefix("minjail-").tempdir_in("/tmp").expect("/tmp can be written");
        let podman = Self { directory };
        fs_err::write(podman.path("containers.conf"), CONTAINERS_CONF).expect("the directory is ours");
        fs_err::create_dir(podman.path("networks")).expect("the directory is ours");
        podman
    }

    /// Reads an image of the test from any spelling that podman knows and returns its id.
    pub(crate) fn pull(&self, context: &TestContext, image: &str) -> String {
        // podman names what it reads from `oci:DIR` after DIR, and refuses names with capitals, which a temporary
        // directory has: so it is called from there.
        let directory = context.path("");
        let relative = image.replace(&text(&directory), "");
        let mut command = self.command(&["pull", "--quiet", &relative]);
        outcome_of(command.current_dir(directory)).success().text().trim().to_owned()
    }

    /// `podman load -i FILE`; returns the name under which podman then knows the image.
    pub(crate) fn load(&self, archive: &Path) -> String {
        let loaded = outcome_of(&mut self.command(&["load", "--quiet", "-i", &text(archive)]));
        loaded_name(&loaded.success())
    }

    /// `podman load` of an archive on standard input.
    pub(crate) fn load_stream(&self, archive: &[u8]) -> String {
        let loaded = outcome_with_input(&mut self.command(&["load", "--quiet"]), archive);
        loaded_name(&loaded.success())
    }

    /// What comes of the image's own command.
    pub(crate) fn run(&self, image: &str) -> Outcome {
        outcome_of(&mut self.run_command(&[], image))
    }

    /// `podman run --rm [OPTION]... IMAGE`, not started yet.
    pub(crate) fn run_command(&self, options: &[&str], image: &str) -> Command {
        let mut command = self.command(&["run", "--rm", "--pull=never"]);
        command.args(options).arg(image);
        command
    }

    /// What `podman image inspect` shows; the image's configuration is its `Config`.
    pub(crate) fn inspect(&self, image: &str) -> serde_json::Value {
        let inspected = outcome_of(&mut self.command(&["image", "inspect", image])).success();
        let images: serde_json::Value = serde_json::from_slice(&inspected.stdout).expect("podman writes JSON");
        images[0].clone()
    }

    /// The variables by which a podman that somebody else calls uses this store.
    pub(crate) fn environment(&self) -> [(&'static str, PathBuf); 3] {
        let (store, run) = (text(&self.path("s")), text(&self.path("r")));
        let conf = format!("[storage]\ndriver = \"vfs\"\ngraphroot = \"{store}\"\nrunroot = \"{run}\"\n");
        fs_err::write(self.path("storage.conf"), conf).expect("the directory is ours");
        [
            ("CONTAINERS_CONF", self.path("containers.conf")),
            ("CONTAINERS_STORAGE_CONF", self.path("storage.conf")),
            ("HOME", PathBuf::from("/root")),
        ]
    }

    /// `podman ARGUMENT...` on this store.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = limited("podman");
        command.args(["--storage-driver", "vfs", "--log-level", "error"]);
        for (flag, name) in
            [("--root", "s"), ("--runroot", "r"), ("--tmpdir", "t"), ("--network-config-dir", "networks")]
        {
            command.arg(flag).arg(self.path(name));
        }
        command.args(arguments).env("HOME", "/root").env("CONTAINERS_CONF", self.path("containers.conf"));
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// The name in `Loaded image: NAME`.
fn loaded_name(loaded: &Outcome) -> String {
    let text = loaded.text();
    let name = text.lines().find_map(|line| line.strip_prefix("Loaded image: "));
    name.unwrap_or_else(|| panic!("podman named no image\n{loaded}")).trim().to_owned()
}
