//! Drafted profiles: each loads, and one that was drafted from a run builds, on the machine that it was drafted on.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;

use support::daemon::Daemon;
use support::{Outcome, TestContext, minjail, needs_root, outcome_of, text};

fn read(context: &TestContext, name: &str) -> String {
    fs_err::read_to_string(context.path(name)).expect("it was drafted")
}

/// Drafts `app.yaml` from a run of `command`.
fn init(context: &TestContext, command: &[&str]) -> Outcome {
    let file = context.text("app.yaml");
    context.outcome(&[&["init", "-o", &file, "--"], command].concat())
}

#[track_caller]
fn build(context: &TestContext) -> Outcome {
    let (file, output) = (context.text("app.yaml"), format!("rootfs:{}", context.text("out")));
    context.outcome(&["build", &file, "-o", &output]).success()
}

/// Drafts from a server that is ended as by Ctrl-C once `is_ready`.
fn init_server(context: &TestContext, command: &[&str], is_ready: impl Fn() -> bool) {
    let log = context.path("log");
    let mut drafted = Command::new(minjail());
    drafted.current_dir(context.work()).args(["init", "-o", &context.text("app.yaml"), "--"]).args(command);
    let mut server = Daemon::start(&drafted, &log);
    server.wait_until(is_ready, &log);
    let ended = server.end(Signal::SIGINT);
    assert!(ended.success(), "{ended}: {}", fs_err::read_to_string(&log).unwrap_or_default());
}

#[test]
fn a_program_that_ends_by_itself() {
    let context = TestContext::new();
    context.lay_out(&[("data/input", "7\n")]);
    let script = "cat data/input; test -z \"$(cat)\" && exit 3";
    let outcome = init(&context, &["/bin/sh", "-c", script]);
    assert_eq!((outcome.status, outcome.text().as_str()), (0, "7\n"), "{outcome}");
    let profile = read(&context, "app.yaml");
    assert!(profile.contains("\n  main:\n    run: \"cat data/input; "), "{profile}");
    assert!(profile.contains(&format!("\n    cwd: {}\n", text(&context.work()))), "{profile}");
    assert!(profile.contains("\n    expect: {status: 3}\n"), "{profile}");
    assert!(!profile.contains("\n    ready:"), "{profile}");
    build(&context);
    assert!(context.path("out").join(&text(&context.work())[1..]).join("data/input").exists());
}

#[test]
fn an_old_profile_is_not_lost() {
    let context = TestContext::new();
    fs_err::write(context.path("app.yaml"), "mine").unwrap();
    let outcome = init(&context, &["/usr/bin/touch", "ran"]);
    outcome.assert_refused(125, &["app.yaml` exists already"]);
    assert!(!context.work().join("ran").exists(), "nothing is run for a profile that cannot be written");
    assert_eq!(read(&context, "app.yaml"), "mine");
    let outcome = context.outcome(&["init", "--", "/usr/bin/true"]);
    outcome.success();
    assert!(context.work().join("true.yaml").exists(), "it is named after the program");
}

#[test]
fn what_no_profile_can_say_is_refused() {
    let context = TestContext::new();
    let killed = init(&context, &["/bin/sh", "-c", "kill -SEGV $$"]);
    killed.assert_refused(125, &["was killed by signal 11", "Ctrl-C"]);
    init(&context, &["/no/such/program"]).assert_refused(127, &["not found"]);
    assert!(!context.path("app.yaml").exists());
}

/// The program's own words go to standard error, so that standard output has the profile alone.
#[test]
fn a_profile_on_standard_output() {
    let context = TestContext::new();
    let outcome = context.outcome(&["init", "-o", "-", "--", "/usr/bin/echo", "word"]).success();
    assert!(outcome.text().starts_with("# Drafted by `minjail init -- /usr/bin/echo word`"), "{outcome}");
    assert!(outcome.stderr.contains("word\n"), "{outcome}");
    fs_err::write(context.path("app.yaml"), &outcome.stdout).unwrap();
    build(&context);
}

#[test]
fn files_that_it_makes_are_its_state() {
    if !needs_root("an empty directory in place of a full one") {
        return;
    }
    let context = TestContext::new();
    context.lay_out(&[("etc/conf", "conf"), ("state/.keep", ""), ("mixed/old", "old")]);
    fs_err::remove_file(context.work().join("state/.keep")).unwrap();
    let script = "set -e; cat etc/conf mixed/old; test ! -e state/sub; mkdir state/sub; echo x > state/sub/x; echo y > mixed/new";
    init(&context, &["/bin/sh", "-c", script]).success();
    let profile = read(&context, "app.yaml");
    let work = text(&context.work());
    assert!(profile.contains(&format!("\n    state: [{work}/state]\n")), "{profile}");
    assert!(profile.contains(&format!("# state: [{work}/mixed]  (it found {work}/mixed/old there)")), "{profile}");
    // The second run finds what the first made, unless it starts with an empty directory.
    build(&context);
}

#[test]
fn a_server_with_a_port() {
    if !needs_root("a network of its own for the traced run") {
        return;
    }
    let context = TestContext::new();
    context.lay_out(&[("page", "hello")]);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let get = || {
        let mut stream = TcpStream::connect(format!("127.0.0.1:{free}")).ok()?;
        stream.write_all(b"GET /page HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.ends_with("hello").then_some(())
    };
    let command = ["/usr/bin/python3", "-I", "-m", "http.server", &free];
    init_server(&context, &command, || get().is_some());
    let profile = read(&context, "app.yaml");
    assert!(
        profile
            .contains(&format!("\n  serve:\n    run: [/usr/bin/python3, \"-I\", \"-m\", http.server, \"{free}\"]\n"))
    );
    assert!(profile.contains(&format!("\n    ready: {{port: {free}}}\n")), "{profile}");
    assert!(profile.contains(&format!("\n    #   - http: {{port: {free}, path: /")), "{profile}");
    // A probe that is filled in as the comment shows is asked.
    let asked = profile
        .replace("    # probes:\n    #   - http:", "    probes:\n      - http:")
        .replace("path: /,", "path: /page,");
    fs_err::write(context.path("app.yaml"), asked.replace("TEXT", "hello")).unwrap();
    build(&context);
    assert!(context.path("out").join(&text(&context.work())[1..]).join("page").exists());
}

#[test]
fn a_server_at_a_socket_and_one_at_nothing() {
    if !needs_root("a network of its own for the traced run") {
        return;
    }
    let script = "import socket, signal, sys\nserver = socket.socket(socket.AF_UNIX)\nserver.bind('the.socket')\nserver.listen()\n\
                  open('ready', 'w').close()\nsignal.pause()\n";
    let context = TestContext::new();
    context.lay_out(&[("server.py", script)]);
    let is_ready = |context: &TestContext| Path::exists(&context.work().join("ready"));
    init_server(&context, &["/usr/bin/python3", "-I", "server.py"], || is_ready(&context));
    let profile = read(&context, "app.yaml");
    let socket = text(&context.work().join("the.socket"));
    assert!(profile.contains(&format!("\n    ready: {{socket: {socket}}}\n")), "{profile}");
    fs_err::remove_file(context.work().join("the.socket")).unwrap();
    build(&context);

    let context = TestContext::new();
    let script = "trap 'exit 0' INT TERM; echo > ready; /usr/bin/sleep 1; /usr/bin/id > ready; while :; do /usr/bin/sleep 1; done";
    let second = || fs_err::read(context.work().join("ready")).is_ok_and(|text| text.len() > 3);
    init_server(&context, &["/bin/sh", "-c", script], second);
    let profile = read(&context, "app.yaml");
    assert!(profile.contains("\n    ready: {after: "), "{profile}");
    build(&context);
    assert!(context.path("out/usr/bin/id").exists(), "it had the time that it took");
}

#[test]
fn a_dockerfile() {
    if !needs_root("a network of its own for the traced run") {
        return;
    }
    let context = TestContext::new();
    let work = text(&context.work());
    let dockerfile = format!(
        "# syntax=docker/dockerfile:1\nARG RELEASE=12\nFROM debian:$RELEASE AS base\nARG PORT=8123\nENV PORT=${{PORT}} \\\n    GREETING=\"good day\"\n\
         FROM base AS other\nCMD [\"/usr/bin/false\"]\nFROM base\nRUN <<END\nUSER nobody\nEND\nWORKDIR {work}\nEXPOSE $PORT/tcp\n\
         HEALTHCHECK --interval=30s --retries=2 CMD curl -sf http://127.0.0.1:$PORT/ > /dev/null\n\
         VOLUME /data\nSTOPSIGNAL SIGINT\nLABEL about='a server'\nENV MORE=$UNKNOWN\n\
         CMD /usr/bin/test \"$GREETING\" = 'good day' && exec /usr/bin/python3 -I -m http.server $PORT\n"
    );
    context.lay_out(&[("Dockerfile", &dockerfile)]);
    let file = context.text("app.yaml");
    let init = |more: &[&str]| context.outcome(&[&["init", "-o", &file, "--dockerfile", "Dockerfile"], more].concat());
    init(&[]).success();
    let profile = read(&context, "app.yaml");
    for line in [
        "    ready: {port: 8123}",
        "      GREETING: \"good day\"",
        "    stop: {signal: INT}",
        "  ports: [8123/tcp]",
        "  volumes: [/data]",
        "  stop-signal: INT",
        "  healthcheck:\n    run: \"curl -sf http://127.0.0.1:$PORT/ > /dev/null\"\n    interval: 30\n    retries: 2",
        "  labels:\n    about: \"a server\"",
        &format!("    cwd: {work}"),
    ] {
        assert!(profile.contains(&format!("\n{line}\n")), "{line} is not in:\n{profile}");
    }
    let comment = profile.replace("\n# ", " ");
    assert!(comment.contains("ENV `MORE`, is left out") && comment.contains("base image `debian:12`"), "{profile}");
    build(&context);
    let lock: serde_json::Value = serde_json::from_str(&read(&context, "out.lock")).unwrap();
    let config = &lock["config"];
    assert_eq!(config["env"]["GREETING"], "good day");
    assert!(config.get("entrypoint").is_none() && config["cmd"][0] == "/bin/sh", "{config}");
    assert_eq!(config["stop-signal"], "SIGINT");
    assert_eq!(config["healthcheck"]["Test"][0], "CMD-SHELL");
    assert!(context.path("out/usr/bin/curl").exists(), "the check is traced");

    fs_err::remove_file(context.path("app.yaml")).unwrap();
    init(&["--target", "other", "--build-arg", "PORT=99"]).success();
    let other = read(&context, "app.yaml");
    assert!(other.contains("\n    run: [/usr/bin/false]\n") && other.contains("      PORT: \"99\"\n"), "{other}");
    fs_err::remove_file(context.path("app.yaml")).unwrap();
    init(&["--target", "base"]).assert_refused(125, &["does not say what to run"]);
    init(&["--target", "none"]).assert_refused(125, &["no stage `none`", "base, other, 2"]);
}

#[test]
fn an_image() {
    let context = TestContext::new();
    context.lay_out(&[("page", "hello")]);
    let built = format!("oci:{}", context.text("image"));
    let trace = ["trace", "-q", "-t", &context.text("trace"), "-o", &built, "--env", "WHO=me"];
    outcome_of(context.minjail(&trace).args(["--", "/bin/cat", "page"])).success();
    let file = context.text("app.yaml");
    context.outcome(&["init", "-o", &file, "--image", &built]).success();
    let profile = read(&context, "app.yaml");
    assert!(profile.contains("\n    run: [/bin/cat, page]\n") && profile.contains("      WHO: me\n"), "{profile}");
    let slim = format!("oci:{}", context.text("slim"));
    context.outcome(&["slim", &built, "-p", &file, "-o", &slim]).success();
    let ran = context.outcome(&["run", &slim]).success();
    assert_eq!(ran.text(), "hello");
}

/// A profile is kept with the sources, and shown to others.
#[test]
fn secrets_of_an_image_stay_out_of_its_profile() {
    let context = TestContext::new();
    let built = format!("oci:{}", context.text("image"));
    let trace = ["trace", "-q", "-t", &context.text("trace"), "-o", &built, "--allow-secret", "env:DB_PASSWORD"];
    let variables = ["--env", "WHO=me", "--env", "DB_PASSWORD=hunter2", "--", "/bin/true"];
    outcome_of(context.minjail(&trace).args(variables)).success();
    fs_err::write(context.path("Dockerfile"), "FROM scratch\nENV WHO=me DB_PASSWORD=hunter2\nCMD [\"/bin/true\"]\n")
        .expect("it is ours");
    for from in [["--image", &built], ["--dockerfile", &context.text("Dockerfile")]] {
        let drafted = context.outcome(&[&["init", "-o", "-"][..], &from].concat()).success().text();
        assert!(drafted.contains("      WHO: me\n") && !drafted.contains("hunter2"), "{drafted}");
        let words = drafted.split_whitespace().filter(|word| *word != "#").collect::<Vec<_>>().join(" ");
        assert!(words.contains("variable `DB_PASSWORD` looks like a secret"), "{drafted}");
    }
}

#[test]
fn users_that_it_becomes() {
    if !needs_root("setpriv") {
        return;
    }
    let context = TestContext::new();
    let script = "/usr/bin/setpriv --reuid=65534 --regid=65534 --clear-groups /bin/cat /etc/os-release";
    init(&context, &["/bin/sh", "-c", script]).success();
    let profile = read(&context, "app.yaml");
    assert!(profile.contains("\n    # It became nobody by itself.\n    # user: "), "{profile}");
    let plain = context.outcome(&["init", "-o", "-", "--", "/usr/bin/id"]).success();
    assert!(!plain.text().contains("became"), "{plain}");
    let named = ["init", "-o", "-", "--user", "nobody", "--", "/usr/bin/id"];
    let named = context.outcome(&named).success().text();
    assert!(named.contains("\n    user: nobody\n") && !named.contains("became"), "{named}");
}
