//! What a profile says of the image, beyond its files: in the image, in the summary, and, of a health check, in the proof.

mod support;

use support::podman::Podman;
use support::{Outcome, TestContext, needs_root, outcome_of, text};

fn build(context: &TestContext, profile: &str, output: &str, more: &[&str]) -> Outcome {
    let file = context.text("app.yaml");
    fs_err::write(&file, profile).expect("the directory is ours");
    context.outcome(&[&["build", &file, "-o", output][..], more].concat())
}

/// A server whose image is checked by `check`.
fn profile(context: &TestContext, check: &str) -> String {
    context.lay_out(&[("page", "hello")]);
    format!(
        "workloads:\n  serve:\n    run: [/usr/bin/python3, -I, -m, http.server, '8000']\n    cwd: {}\n    ready: {{port: 8000}}\n    \
         timeout: 20\n    stop: {{signal: INT}}\nimage:\n  user: '0:0'\n  volumes: [/data]\n  stop-signal: INT\n  labels: {{about: a server}}\n  healthcheck:\n    \
         run: {check}\n    interval: 30\n    start-period: 5\n    retries: 2\n",
        text(&context.work())
    )
}

const CHECK: &str = "[/usr/bin/curl, -sf, -o, /dev/null, 'http://127.0.0.1:8000/page']";

#[test]
fn a_health_check_is_traced_and_proved() {
    if !needs_root("a network of its own for the traced run") {
        return;
    }
    let context = TestContext::new();
    let (tree, profile) = (format!("rootfs:{}", context.text("tree")), profile(&context, CHECK));
    let outcome = build(&context, &profile, &tree, &[]).success();
    for words in [
        "runs  /usr/bin/python3 -I -m http.server 8000\n",
        &format!("as 0:0; in {}; for amd64; ports 8000/tcp; volumes /data; stopped by SIGINT", text(&context.work())),
        "; checked by /usr/bin/curl -sf -o /dev/null http://127.0.0.1:8000/page\n",
    ] {
        assert!(outcome.stderr.contains(words), "{words:?} is not in\n{outcome}");
    }
    let curl = context.path("tree/usr/bin/curl");
    assert!(curl.exists(), "the image has what its check needs");
    fs_err::remove_file(curl).unwrap();
    let verdict = context.outcome(&["verify", &tree, "-p", &context.text("app.yaml")]);
    assert_eq!(verdict.status, 3, "{verdict}");
    assert!(
        verdict.stderr.contains("the health check failed") && verdict.stderr.contains("/usr/bin/curl"),
        "{verdict}"
    );
}

/// A port that the kernel has chosen is another one the next time, and nobody's to know.
#[test]
fn a_port_that_the_kernel_has_chosen_is_not_exposed() {
    let context = TestContext::new();
    let script =
        "import socket\nfor port in (0, 50051):\n    s = socket.socket(); s.bind(('127.0.0.1', port)); s.listen()\n";
    let tree = format!("rootfs:{}", context.text("tree"));
    let run = ["trace", "-t", &context.text("x.trace"), "-o", &tree, "--", "/usr/bin/python3", "-c", script];
    let outcome = context.outcome(&run).success();
    assert!(outcome.stderr.contains("; ports 50051/tcp\n"), "{outcome}");
}

/// Who asks name servers may choose the port itself at random, as browsers do: it connects to the server's port from there.
#[test]
fn a_port_from_which_a_program_asks_servers_is_not_exposed() {
    let context = TestContext::new();
    let script = "import socket, sys\n\
                  def bound(port):\n    s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('127.0.0.1', port)); return s\n\
                  kept = bound(50053)\n\
                  bound(50054).connect(('127.0.0.1', 53))\n\
                  answered = bound(50055); answered.connect(('127.0.0.1', 50056))\n\
                  sent = bound(50057); sent.sendto(b'x', ('127.0.0.1', 53))\n";
    let tree = format!("rootfs:{}", context.text("tree"));
    let run = ["trace", "-t", &context.text("x.trace"), "-o", &tree, "--", "/usr/bin/python3", "-c", script];
    let outcome = context.outcome(&run).success();
    assert!(outcome.stderr.contains("; ports 50053/udp, 50055/udp, 50057/udp\n"), "{outcome}");
}

#[test]
fn a_health_check_that_fails_stops_the_build() {
    if !needs_root("a network of its own for the traced run") {
        return;
    }
    let context = TestContext::new();
    let tree = format!("rootfs:{}", context.text("tree"));
    let profile = profile(&context, "exit 7").replace("timeout: 20", "timeout: 3");
    let outcome = build(&context, &profile, &tree, &[]);
    assert_eq!(outcome.status, 125, "{outcome}");
    assert!(outcome.stderr.contains("failed on the host: the health check failed"), "{outcome}");
    assert!(!context.path("tree").exists());
}

#[test]
fn engines_see_what_a_profile_says() {
    if !needs_root("podman") {
        return;
    }
    let context = TestContext::new();
    let image = format!("docker-archive:{}:localhost/minjail/checked:1", context.text("image.tar"));
    build(&context, &profile(&context, CHECK), &image, &["-q"]).success();
    let podman = Podman::new();
    let verify = |tool: &str| {
        let (file, image) = (context.text("app.yaml"), format!("docker-archive:{}", context.text("image.tar")));
        outcome_of(context.minjail(&["verify", &image, "-p", &file, "--verify-with", tool]).envs(podman.environment()))
    };
    verify("podman").success();
    verify("runc").success();
    verify("bwrap").assert_refused(125, &["health check"]);
    let id = podman.pull(&context, &image);
    let shown = podman.inspect(&id);
    assert_eq!(shown["Architecture"], "amd64");
    let check = if shown["Healthcheck"].is_object() { &shown["Healthcheck"] } else { &shown["HealthCheck"] };
    assert_eq!(check["Test"][0], "CMD", "{shown}");
    assert_eq!((&check["Interval"], &check["Retries"]), (&30_000_000_000_i64.into(), &2.into()), "{check}");
    assert_eq!(shown["Config"]["StopSignal"], "SIGINT");
    assert_eq!(shown["Config"]["Labels"]["about"], "a server");
    // In the containers it is run too.
    let other = profile(&context, "[/usr/bin/curl, -sf, 'http://127.0.0.1:8000/no-such-page']");
    fs_err::write(context.path("app.yaml"), other.replace("timeout: 20", "timeout: 5")).unwrap();
    for tool in ["podman", "runc"] {
        let failed = verify(tool);
        assert_eq!(failed.status, 3, "{failed}");
        assert!(failed.stderr.contains(&format!("in {tool}, workload `serve`: the health check failed")), "{failed}");
    }
}

#[test]
fn an_architecture_can_be_named() {
    let context = TestContext::new();
    let tree = format!("rootfs:{}", context.text("tree"));
    let profile = "workloads: {main: {run: [/usr/bin/id]}}\nimage: {architecture: '386'}\n";
    build(&context, profile, &tree, &["-q"]).success();
    let lock = fs_err::read_to_string(context.path("tree.lock")).unwrap();
    assert!(lock.contains("\"architecture\": \"386\""));
}
