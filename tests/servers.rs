//! A server: traced while it is asked for a page, ended by a signal, and serving the same page from the jail and from
//! a container.

mod support;

use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;

use support::daemon::Daemon;
use support::podman::Podman;
use support::{Outcome, TestContext, limited, minjail, needs_root, outcome_of};

/// nginx with a configuration of its own, serving the page that Debian's package brings.
struct Nginx {
    context: TestContext,
    port: u16,
    rounds: u32,
}

impl Nginx {
    fn new() -> Self {
        // The port is free again once the listener is dropped, and the kernel hands it out to nobody else soon.
        let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback interface has a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let context = TestContext::new();
        let work = support::text(&context.work());
        let conf = format!(
            "user www-data;\nworker_processes 1;\npid {work}/nginx.pid;\nevents {{}}\nhttp {{\n\
             include /etc/nginx/mime.types;\naccess_log off;\nserver {{\n\
             listen 127.0.0.1:{port};\nroot /usr/share/nginx/html;\n}}\n}}\n"
        );
        context.lay_out(&[("nginx.conf", &conf)]);
        Self { context, port, rounds: 0 }
    }

    /// nginx's own arguments.
    fn argv(&self) -> Vec<String> {
        let conf = support::text(&self.context.work().join("nginx.conf"));
        ["nginx", "-e", "stderr", "-c", &conf, "-g", "daemon off;"].map(str::to_owned).to_vec()
    }

    /// Starts the server as `command` says, asks it for the page, ends it with `signal`, and returns the page and the
    /// status with which the command ended.
    fn serve(&mut self, command: &Command, signal: Signal) -> (Outcome, i32) {
        self.rounds += 1;
        let log = self.context.path(&format!("log{}", self.rounds));
        let mut server = Daemon::start(command, &log);
        server.wait_until(|| self.page().status == 0, &log);
        let page = self.page().success();
        let missing = self.get("/no-such-page");
        assert_eq!(missing.status, 22, "curl's status for a page that is not found\n{missing}");
        let ended = server.end(signal);
        let status = ended.code().or(ended.signal().map(|number| 128 + number));
        (page, status.expect("a process that ended has a code or a signal"))
    }

    fn page(&self) -> Outcome {
        self.get("/")
    }

    fn get(&self, path: &str) -> Outcome {
        let address = format!("http://127.0.0.1:{}{path}", self.port);
        outcome_of(limited("curl").args(["--silent", "--fail", "--noproxy", "*", "--max-time", "20", &address]))
    }
}

/// A command that is stopped by the test itself, hence without the time limit around it.
fn untimed(context: &TestContext, program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(context.work()).env("HOME", context.work()).env("LANG", "C.UTF-8");
    command
}

/// The same, but that `timeout` hands a signal on to its child alone: it would tell the whole group as well, and podman that
/// hears of SIGTERM twice may find nobody to tell the second time.
fn told_once(command: &Command) -> Command {
    let mut once = Command::new(command.get_program());
    once.arg("--foreground").args(command.get_args()).env_clear();
    once.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    once
}

#[test]
fn nginx_serves_a_page() {
    if !needs_root("podman") {
        return;
    }
    let mut nginx = Nginx::new();
    let argv = nginx.argv();

    let mut natively = untimed(&nginx.context, &argv[0]);
    natively.args(&argv[1..]);
    let (page, status) = nginx.serve(&natively, Signal::SIGTERM);
    assert!(page.text().contains("nginx"), "{page}");
    assert_eq!(status, 0);

    let image = format!("docker-archive:{}:localhost/minjail/nginx:1", nginx.context.text("image"));
    let mut traced = untimed(&nginx.context, minjail());
    traced.args(["trace", "-t", &nginx.context.text("nginx.trace"), "-o", &image, "--"]).args(&argv);
    let (traced_page, status) = nginx.serve(&traced, Signal::SIGTERM);
    traced_page.assert_same_as(&page);
    assert_eq!(status, 0, "{}", log_of(&nginx));

    let mut jailed = untimed(&nginx.context, minjail());
    jailed.args(["run", "--net", "host", &image]);
    let (jailed_page, status) = nginx.serve(&jailed, Signal::SIGTERM);
    jailed_page.assert_same_as(&page);
    assert_eq!(status, 0, "{}", log_of(&nginx));

    let podman = Podman::new();
    let id = podman.pull(&nginx.context, &image);
    let port = format!("{}/tcp", nginx.port);
    let config = podman.inspect(&id)["Config"].clone();
    assert!(config["ExposedPorts"].get(&port).is_some(), "the image does not expose {port}: {config}");
    let contained = told_once(&podman.run_command(&["--network=host"], &id));
    let (contained_page, status) = nginx.serve(&contained, Signal::SIGTERM);
    contained_page.assert_same_as(&page);
    assert_eq!(status, 0, "{}", log_of(&nginx));
}

/// Ctrl-C reaches a whole foreground process group; here only minjail, which has to hand it on.
#[test]
fn ctrl_c_ends_a_server_and_its_image_is_built() {
    if !needs_root("nginx") {
        return;
    }
    let mut nginx = Nginx::new();
    let argv = nginx.argv();
    let image: PathBuf = nginx.context.path("image.tar");
    let out = format!("oci-archive:{}:1", support::text(&image));
    let mut traced = untimed(&nginx.context, minjail());
    traced.args(["trace", "-t", &nginx.context.text("nginx.trace"), "-o", &out, "--"]).args(&argv);
    let (_, status) = nginx.serve(&traced, Signal::SIGINT);
    assert_eq!(status, 0, "{}", log_of(&nginx));
    assert!(image.exists(), "{}", log_of(&nginx));
}

/// What the last server said.
fn log_of(nginx: &Nginx) -> String {
    let log = nginx.context.path(&format!("log{}", nginx.rounds));
    fs_err::read_to_string(log).unwrap_or_default()
}
