//! A dockerd of the test's own.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::daemon::Daemon;
use super::{Outcome, limited, outcome_of, text};

/// A running dockerd without network, with its images in a temporary directory.
pub(crate) struct Docker {
    // Stopped before its directory is removed: fields are dropped in the order of their declaration.
    _daemon: Daemon,
    directory: TempDir,
}

impl Docker {
    pub(crate) fn start() -> Self {
        // Not in the test's own directory: a socket's path has at most 107 bytes (unix(7)).
        let directory = tempfile::Builder::new().prefix("minjail-").tempdir_in("/tmp").expect("/tmp can be written");
        let path = |name: &str| text(&directory.path().join(name));
        // What it mounts is seen by nobody else, and goes when it does: it leaves the network namespace of its containers mounted.
        let mut command = Command::new("unshare");
        command.args(["--mount", "dockerd"]);
        command.args(["--iptables=false", "--bridge=none", "--storage-driver=vfs"]);
        // dockerd's own default would raise the limit, which needs CAP_SYS_RESOURCE.
        command.args(["--default-ulimit", "nofile=1024:1024"]);
        command.args(["--data-root", &path("data"), "--exec-root", &path("exec"), "--pidfile", &path("pid")]);
        command.args(["--host", &format!("unix://{}", path("socket"))]);
        let log = directory.path().join("log");
        let mut daemon = Daemon::start(&command, &log);
        let socket = directory.path().join("socket");
        daemon.wait_until(|| outcome_of(&mut docker(&socket, &["version"])).status == 0, &log);
        Self { _daemon: daemon, directory }
    }

    /// Where clients find it, as `DOCKER_HOST` says it.
    pub(crate) fn address(&self) -> String {
        format!("unix://{}", text(&self.directory.path().join("socket")))
    }

    /// `docker load`; returns the name under which docker then knows the image.
    pub(crate) fn load(&self, archive: &Path) -> String {
        let loaded = outcome_of(&mut self.docker(&["load", "--input", &text(archive)])).success();
        let text = loaded.text();
        let name = text.lines().find_map(|line| line.strip_prefix("Loaded image: "));
        name.unwrap_or_else(|| panic!("docker named no image\n{loaded}")).trim().to_owned()
    }

    /// What comes of the image's own command.
    pub(crate) fn run(&self, image: &str) -> Outcome {
        outcome_of(&mut self.docker(&["run", "--rm", "--network=none", image]))
    }

    fn docker(&self, arguments: &[&str]) -> Command {
        docker(&self.socket(), arguments)
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }
}

fn docker(socket: &Path, arguments: &[&str]) -> Command {
    let mut command = limited("docker");
    command.args(["--host", &format!("unix://{}", text(socket))]).args(arguments);
    command
}
