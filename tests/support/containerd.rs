//! A containerd of the test's own.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::daemon::Daemon;
use super::{Outcome, limited, outcome_of, text};

/// A running containerd with its images in a temporary directory.
pub(crate) struct Containerd {
    // Stopped before its directory is removed: fields are dropped in the order of their declaration.
    _daemon: Daemon,
    directory: TempDir,
}

impl Containerd {
    pub(crate) fn start() -> Self {
        // Not in the test's own directory: a socket's path has at most 107 bytes (unix(7)).
        let directory = tempfile::Builder::new().prefix("minjail-").tempdir_in("/tmp").expect("/tmp can be written");
        let path = |name: &str| text(&directory.path().join(name));
        // The Kubernetes plugin wants a network, and the `opt` plugin would make /opt/containerd.
        let config = format!(
            "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\n  path = \"{}\"\n",
            path("opt")
        );
        fs_err::write(directory.path().join("config.toml"), config).expect("the directory is ours");
        let mut command = Command::new("containerd");
        command.args(["--config", &path("config.toml"), "--root", &path("root")]);
        command.args(["--state", &path("state"), "--address", &path("socket")]);
        let log = directory.path().join("log");
        let mut daemon = Daemon::start(&command, &log);
        let socket = directory.path().join("socket");
        daemon.wait_until(|| outcome_of(&mut ctr(&socket, &["version"])).status == 0, &log);
        Self { _daemon: daemon, directory }
    }

    /// `ctr images import`; returns the names under which containerd then knows images.
    pub(crate) fn import(&self, archive: &Path) -> Vec<String> {
        outcome_of(&mut self.ctr(&["images", "import", "--snapshotter", "native", &text(archive)])).success();
        let listed = outcome_of(&mut self.ctr(&["images", "list", "--quiet"])).success();
        listed.text().lines().map(str::to_owned).collect()
    }

    /// What comes of the image's own command.
    pub(crate) fn run(&self, image: &str) -> Outcome {
        // runc keeps the containers of all containerds in one place: the id must be this one's own.
        let id = self.directory.path().file_name().expect("it has a name").to_string_lossy();
        outcome_of(&mut self.ctr(&["run", "--rm", "--snapshotter", "native", image, &id]))
    }

    fn ctr(&self, arguments: &[&str]) -> Command {
        ctr(&self.socket(), arguments)
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }
}

fn ctr(socket: &Path, arguments: &[&str]) -> Command {
    let mut command = limited("ctr");
    command.args(["--address", &text(socket)]).args(arguments);
    command
}
