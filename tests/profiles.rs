//! Profiles: what a workload does on the host, it does in the jail; what it does not, is told, and there is no image.

mod support;

use std::os::unix::fs::PermissionsExt;

use support::podman::Podman;
use support::{Outcome, TestContext, has, needs_root, outcome_of, text};

/// What `minjail build PROFILE -o rootfs:out` says, with a profile of this text.
fn build(context: &TestContext, profile: &str, more: &[&str]) -> Outcome {
    let file = context.text("app.yaml");
    fs_err::write(&file, profile).expect("the directory is ours");
    let output = format!("rootfs:{}", context.text("out"));
    let arguments = [&["build", &file, "-o", &output][..], more].concat();
    context.outcome(&arguments)
}

fn said(outcome: &Outcome) -> String {
    outcome.stderr.clone()
}

#[track_caller]
fn succeed(outcome: Outcome) {
    outcome.success();
}

/// The shipped profile, built as an image and verified again from there, in the jail and by podman.
fn shipped(name: &str) {
    if !needs_root("a network of its own for the traced run") {
        return;
    }
    let context = TestContext::new();
    let image = format!("oci:{}", context.text("image"));
    succeed(context.outcome(&["build", name, "-o", &image]));
    succeed(context.outcome(&["verify", &image, "-p", name]));
    if has(&["podman"]) {
        let podman = Podman::new();
        let verify = ["verify", &image, "-p", name, "--verify-with", "podman"];
        succeed(outcome_of(context.minjail(&verify).envs(podman.environment())));
    }
}

#[test]
fn nginx() {
    shipped("nginx");
}

#[test]
fn redis() {
    shipped("redis");
}

#[test]
fn python3_http() {
    shipped("python3-http");
}

#[test]
fn busybox_httpd() {
    shipped("busybox-httpd");
}

#[test]
fn git() {
    shipped("git");
}

#[test]
fn git_ssh() {
    shipped("git-ssh");
}

#[test]
fn apache2_php() {
    shipped("apache2-php");
}

#[test]
fn bind9() {
    shipped("bind9");
}

#[test]
fn ffmpeg() {
    shipped("ffmpeg");
}

#[test]
fn gunicorn() {
    shipped("gunicorn");
}

#[test]
fn java_http() {
    shipped("java-http");
}

#[test]
fn mariadb() {
    shipped("mariadb");
}

#[test]
fn nginx_php_fpm() {
    shipped("nginx-php-fpm");
}

#[test]
fn node_express() {
    shipped("node-express");
}

#[test]
fn openssh_server() {
    shipped("openssh-server");
}

#[test]
fn postgresql() {
    shipped("postgresql");
}

#[test]
fn an_image_that_lacks_a_file_does_not_pass() {
    if !needs_root("a network of its own for the traced run") {
        return;
    }
    let context = TestContext::new();
    let tree = format!("rootfs:{}", context.text("tree"));
    succeed(context.outcome(&["build", "nginx", "-o", &tree]));
    for (file, fault) in [("etc/nginx/mime.types", "before it was ready"), ("var/www/html", "probe 1")] {
        let (path, aside) = (context.path("tree").join(file), context.path("aside"));
        fs_err::rename(&path, &aside).unwrap();
        let outcome = context.outcome(&["verify", &tree, "-p", "nginx"]);
        fs_err::rename(&aside, &path).unwrap();
        assert_eq!(outcome.status, 3, "{file}: {}", said(&outcome));
        assert!(said(&outcome).contains(fault), "{file}: {}", said(&outcome));
        assert!(said(&outcome).contains(&format!("missing: `/{file}")), "{file}: {}", said(&outcome));
    }
}

/// A workload that needs another file in the jail than on the host.
fn treacherous(extra: &str) -> String {
    format!(
        "workloads:\n  main:\n    run: |\n      if [ \"$(/usr/bin/uname -n)\" = minjail ]; then exec /usr/bin/cat {extra}; fi\n\
         \x20     /usr/bin/cat /etc/hostname\n"
    )
}

#[test]
fn what_fails_in_the_jail_leaves_no_image() {
    let context = TestContext::new();
    let extra = text(&context.work().join("extra"));
    fs_err::write(&extra, "extra\n").unwrap();
    let outcome = build(&context, &treacherous(&extra), &["--keep-failed"]);
    assert_eq!(outcome.status, 3, "{}", said(&outcome));
    let told = said(&outcome);
    assert!(told.contains("ended with status 1, and status 0 was expected"), "{told}");
    let first = told.lines().find(|line| line.contains("missing: ")).unwrap_or_else(|| panic!("{told}"));
    assert!(first.contains(&format!("`{extra}`, looked for by `/usr/bin/cat`")), "{told}");
    assert!(!context.path("out").exists() && !context.path("out.lock").exists());
    assert!(context.path("out.failed").join("usr/bin/cat").exists());
}

/// Each runs in a jail of its own there.
#[test]
fn what_one_workload_makes_executable_for_another() {
    let context = TestContext::new();
    let tool = context.work().join("tool");
    let name = text(&tool);
    for (first, is_agreed) in [(format!("chmod +x {name}"), true), (format!("cat {name}; chmod +x {name}"), false)] {
        fs_err::remove_file(&tool).ok();
        fs_err::write(&tool, "#!/bin/sh\necho hello\n").unwrap();
        fs_err::set_permissions(&tool, PermissionsExt::from_mode(0o644)).unwrap();
        let workloads = format!("workloads:\n  first:\n    run: {first}\n  second:\n    run: {name}\n");
        let outcome = build(&context, &workloads, &["--force"]);
        if is_agreed {
            succeed(outcome);
        } else {
            let words =
                ["tool` was a file with mode 0644", "in workload `first`, and one with mode 0755", "as one workload"];
            outcome.assert_refused(125, &words);
        }
    }
}

/// A server that was told to stop has any status, as the reference says, unless the profile names one; but it does not crash.
#[test]
fn a_server_that_stops_in_another_way_than_on_the_host() {
    let server = |how: &str| {
        format!(
            "workloads:\n  main:\n    run: |\n      case $(/usr/bin/uname -n) in minjail) trap '{how}' TERM;; *) trap 'exit 0' TERM;; esac\n\
             \x20     echo up; while :; do sleep 0.1; done\n    ready: {{log: up}}\n"
        )
    };
    let context = TestContext::new();
    succeed(build(&context, &server("exit 3"), &[]));
    let context = TestContext::new();
    let outcome = build(&context, &server("kill -SEGV $$"), &[]);
    assert_eq!(outcome.status, 3, "{outcome}");
    assert!(said(&outcome).contains("was killed by signal 11, and on the host it ended with status 0"), "{outcome}");
    // Nor does it end before it is told to.
    let early = "workloads:\n  main:\n    run: |\n      case $(/usr/bin/uname -n) in minjail) echo up; exit 3;; esac\n\
                 \x20     echo up; while :; do sleep 0.1; done\n    ready: {log: up}\n    probes: [{command: sleep 1}]\n";
    let context = TestContext::new();
    let outcome = build(&context, early, &[]);
    assert_eq!(outcome.status, 3, "{outcome}");
    let context = TestContext::new();
    let outcome = build(&context, &(server("exit 3") + "    expect: {status: 0}\n"), &[]);
    assert_eq!(outcome.status, 3, "{outcome}");
}

#[test]
fn repair_adds_what_was_missing() {
    let context = TestContext::new();
    let extra = text(&context.work().join("extra"));
    fs_err::write(&extra, "extra\n").unwrap();
    succeed(build(&context, &treacherous(&extra), &["--repair"]));
    assert!(context.path("out").join(&extra[1..]).exists());
    let why = context.outcome(&["why", &context.text("out.lock"), &extra]);
    assert!(String::from_utf8_lossy(&why.stdout).contains("--repair"), "{why}");
}

/// What somebody wrote into a profile is in the image, and is told of, unless he says that he knows.
#[test]
fn secrets_that_a_profile_gives_are_told_of() {
    let context = TestContext::new();
    let profile = "workloads:\n  main:\n    run: [/usr/bin/true, --password=hunter2]\nimage:\n  env: {API_KEY: hunter3, COLOUR: red}\n  \
                   labels: {about: 'https://me:hunter4@example.org'}\n";
    let outcome = build(&context, profile, &[]).success();
    for what in ["the variable API_KEY of the profile", "the label about", "argument 1 of the command"] {
        let told = format!("{what} looks like a secret; everybody who has the image can read it");
        assert!(outcome.stderr.contains(&told), "{told:?} is not in\n{outcome}");
    }
    assert!(!outcome.stderr.contains("COLOUR") && !outcome.stderr.contains("hunter3"), "{outcome}");
    let lock = fs_err::read_to_string(context.path("out.lock")).unwrap();
    assert!(lock.contains("hunter2") && lock.contains("hunter3") && lock.contains("hunter4"), "{lock}");
    let known = build(&context, profile, &["--force", "--allow-secret", "env:API_KEY"]).success();
    assert!(!known.stderr.contains("API_KEY") && known.stderr.contains("the label about"), "{known}");
}

/// A secret is not packed, however often it is missed.
#[test]
fn repair_ends_where_nothing_new_is_missed() {
    let context = TestContext::new();
    let extra = text(&context.work().join(".netrc"));
    fs_err::write(&extra, "machine x password y\n").unwrap();
    let outcome = build(&context, &treacherous(&extra), &["--repair"]);
    assert_eq!(outcome.status, 3, "{}", said(&outcome));
    let rounds = said(&outcome).matches("in the jail, workload `main`: it ended").count();
    assert_eq!(rounds, 2, "{}", said(&outcome));
}

#[test]
fn what_was_not_verified_is_noted() {
    let context = TestContext::new();
    let extra = text(&context.work().join("extra"));
    let profile = treacherous(&extra);
    succeed(build(&context, &profile, &["--no-verify"]));
    let lock = fs_err::read_to_string(context.path("out.lock")).unwrap();
    assert!(lock.contains("\"verified\": false"));
}

#[test]
fn a_workload_that_fails_on_the_host_is_no_model() {
    let context = TestContext::new();
    let outcome = build(&context, "workloads:\n  main:\n    run: [/usr/bin/false]\n", &[]);
    assert_eq!(outcome.status, 125, "{}", said(&outcome));
    assert!(said(&outcome).contains("failed on the host"), "{}", said(&outcome));
    assert!(!context.path("out").exists());
    let text = "workloads:\n  main:\n    run: [/usr/bin/echo, yes]\n    expect: {stdout: {equals: \"no\\n\"}}\n";
    assert!(said(&build(&context, text, &[])).contains("is not the text that was expected"));
    let outcome = build(&context, "workloads:\n  main:\n    run: [/usr/bin/sleep, '60']\n    timeout: 1\n", &[]);
    assert!(said(&outcome).contains("had not ended"), "{}", said(&outcome));
    succeed(build(&context, "workloads:\n  main:\n    run: [/usr/bin/false]\n    expect: {status: 1}\n", &[]));
}

/// A command beside the workload that never ends does not hold up the build, wherever it stands.
#[test]
fn commands_that_hang_are_ended() {
    const HANGS: &str = "[/usr/bin/sleep, '1000']";
    let server = "    run: echo ready; exec /usr/bin/sleep 1000\n    timeout: 1\n    grace: 1\n";
    for (more, fault) in [
        (format!("    setup: [{HANGS}]\n    ready: {{log: ready}}\n"), "of setup failed: it had not ended after 1 s"),
        (format!("    ready: {{command: {HANGS}}}\n"), "it was not ready after 1 s"),
        (
            format!("    ready: {{log: ready}}\n    probes:\n      - command: {HANGS}\n"),
            "probe 1: `/usr/bin/sleep 1000`: it had not ended after 1 s",
        ),
        (
            format!("    ready: {{log: ready}}\n    stop: {{command: {HANGS}}}\n"),
            "the command that stops it failed: it had not ended after 4 s",
        ),
        (
            format!("    ready: {{log: ready}}\n    teardown: [{HANGS}]\n"),
            "of teardown failed: it had not ended after 1 s",
        ),
    ] {
        let context = TestContext::new();
        let outcome = build(&context, &format!("workloads:\n  main:\n{server}{more}"), &[]);
        assert_eq!(outcome.status, 125, "{}", said(&outcome));
        assert!(said(&outcome).contains(fault), "{fault:?} is not in\n{}", said(&outcome));
        assert!(!context.path("out").exists());
    }
}

#[test]
fn what_a_setup_that_failed_has_made_is_taken_away() {
    let context = TestContext::new();
    let (mark, other) = (text(&context.work().join("mark")), text(&context.work().join("other")));
    let teardown = format!("[['false'], [rm, {mark}], [rm, {other}]]");
    let setup = |second: &str| format!("[[touch, {mark}, {other}], {second}]");
    let workload = |second: &str| {
        format!("workloads:\n  main:\n    run: [/bin/true]\n    setup: {}\n    teardown: {teardown}\n", setup(second))
    };
    let outcome = build(&context, &workload("['false']"), &[]);
    assert_eq!(outcome.status, 125, "{}", said(&outcome));
    for words in ["the command `false` of setup failed: exit status: 1\n", "hint: run it by itself"] {
        assert!(said(&outcome).contains(words), "{}", said(&outcome));
    }
    assert_eq!(context.listing().iter().filter(|name| name.starts_with("work/")).count(), 0, "{:?}", context.listing());
    // The same of one that was told to end.
    let file = context.text("slow.yaml");
    fs_err::write(&file, workload("[sleep, '1000']")).unwrap();
    let mut minjail = std::process::Command::new(support::minjail());
    let log = fs_err::File::create(context.path("log")).unwrap().into_parts().0;
    let out = format!("oci:{}", context.text("out"));
    let mut minjail = minjail.args(["build", &file, "-o", &out]).stderr(log).spawn().unwrap();
    while !context.path("work/other").exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(minjail.id().cast_signed()), nix::sys::signal::SIGTERM).unwrap();
    let status = minjail.wait().unwrap();
    let log = fs_err::read_to_string(context.path("log")).unwrap();
    assert_eq!(status.code(), Some(128 + libc::SIGTERM), "{log}");
    assert!(log.contains("stopped by SIGTERM"), "{log}");
    assert_eq!(context.listing().iter().filter(|name| name.starts_with("work/")).count(), 0, "{:?}", context.listing());
    assert!(!context.path("out").exists());
}

#[test]
fn a_build_that_is_to_outlive_its_terminal() {
    let context = TestContext::new();
    let mark = text(&context.work().join("mark"));
    let (file, out) = (context.text("slow.yaml"), format!("oci:{}", context.text("out")));
    let setup = format!("[[touch, {mark}], [sleep, '1']]");
    fs_err::write(&file, format!("workloads:\n  main:\n    run: [/bin/true]\n    setup: {setup}\n")).unwrap();
    // As nohup(1) starts it.
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$@\"", "sh", support::minjail(), "build", "-q", &file, "-o", &out]);
    let mut minjail = command.spawn().unwrap();
    while !context.path("work/mark").exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(minjail.id().cast_signed()), nix::sys::signal::SIGHUP).unwrap();
    assert!(minjail.wait().unwrap().success() && context.path("out").exists());
}

#[test]
fn a_server_at_the_newer_loopback_address_alone() {
    let context = TestContext::new();
    if !has(&["python3"]) || std::net::TcpListener::bind("[::1]:0").is_err() {
        return;
    }
    let server = "import socket; s = socket.socket(socket.AF_INET6); s.bind(('::1', 8099)); s.listen(); \
                  exec('while True:\\n c, _ = s.accept()\\n c.sendall(b\"hello\")\\n c.close()')";
    let profile = format!(
        "workloads:\n  main:\n    run: [/usr/bin/python3, -c, {}]\n    ready: {{port: 8099}}\n    timeout: 20\n    probes:\n      - \
         tcp: {{port: 8099, send: '', contains: hello}}\n",
        serde_json::json!(server)
    );
    succeed(build(&context, &profile, &[]));
}

/// Setup runs again before the run in the jail, and teardown takes away what is there no longer when the image is written.
#[test]
fn what_setup_has_made_is_packed_as_the_run_found_it() {
    let context = TestContext::new();
    let made = text(&context.work().join("made"));
    let setup = format!(
        "set -e; mkdir -p {made}/deep; chmod 750 {made}/deep; echo one > {made}/deep/conf; ln -sfn deep {made}/link; echo looked > {made}/looked; \
         printf '#!/bin/sh\\ncat {made}/deep/conf\\n' > {made}/tool; chmod 711 {made}/tool; touch {made}/empty"
    );
    let run = format!("set -e; {made}/tool; cat {made}/link/conf; test -s {made}/looked; test -e {made}/empty");
    let workload = |name: &str, teardown: &str| {
        format!(
            "  {name}:\n    cwd: {made}\n    run: \"{run}\"\n    setup: [\"{}\"]\n    teardown: [\"{teardown}\"]\n    \
             expect: {{stdout: {{equals: \"one\\none\\n\"}}}}\n",
            setup.replace('\\', "\\\\")
        )
    };
    for (teardown, names, more) in [
        ("true", &["main"][..], &[][..]),
        (&format!("rm -r {made}"), &["main"], &["--until-stable", "1"]),
        ("true", &["first", "second"], &[]),
        (&format!("rm -r {made}"), &["first", "second"], &["--no-verify"]),
    ] {
        context.lay_out(&[]);
        // The program is looked for before setup makes anything: a shell runs all.
        fs_err::create_dir(&made).expect("the directory is ours");
        let workloads: String = names.iter().map(|name| workload(name, teardown)).collect();
        succeed(build(&context, &format!("workloads:\n{workloads}"), &[&["--force"], more].concat()));
        let packed = context.path("out").join(&made[1..]);
        let read = |name: &str| fs_err::read_to_string(packed.join(name)).expect("it is packed");
        assert_eq!(["link/conf", "looked", "empty"].map(read), ["one\n", "looked\n", ""]);
        let mode =
            |name: &str| fs_err::metadata(packed.join(name)).expect("it is packed").permissions().mode() & 0o7777;
        assert_eq!([mode("deep"), mode("tool")], [0o750, 0o711]);
    }
}

/// It is the content that was traced, not that of another time; two contents are told of.
#[test]
fn what_setup_makes_anew_each_time_is_packed_as_the_run_found_it() {
    let context = TestContext::new();
    let (log, made) = (context.text("log"), text(&context.work().join("made")));
    let workload = |name: &str, teardown: &str| {
        format!(
            "  {name}:\n    run: cat {made}\n    setup: [\"echo $$ $(date +%N) | tee -a {log} > {made}\"]\n    teardown: [{teardown}]\n"
        )
    };
    for teardown in ["'true'", &format!("\"rm {made}\"")] {
        fs_err::remove_file(&log).ok();
        succeed(build(&context, &format!("workloads:\n{}", workload("main", teardown)), &["--force"]));
        let (log, packed) =
            (fs_err::read_to_string(&log), fs_err::read_to_string(context.path("out").join(&made[1..])));
        let log = log.expect("setup has written it");
        assert_eq!(log.lines().count(), 2, "{log}");
        assert_eq!(log.lines().next(), packed.expect("it is packed").lines().next());
        let both = format!("workloads:\n{}{}", workload("first", teardown), workload("second", teardown));
        build(&context, &both, &["--force"]).assert_refused(125, &["made` was a file", "in workload `second`"]);
    }
}

/// What the second setup changes of what the run found is not in the image.
#[test]
fn what_setup_changes_only_before_the_proof() {
    let context = TestContext::new();
    context.lay_out(&[("conf", "one\n")]);
    let (conf, mark) = (text(&context.work().join("conf")), context.text("mark"));
    let setup = format!("if test -e {mark}; then echo two > {conf}; fi; touch {mark}");
    let profile = format!("workloads:\n  main:\n    run: [/usr/bin/cat, {conf}]\n    setup: [\"{setup}\"]\n");
    succeed(build(&context, &profile, &[]));
    assert_eq!(fs_err::read_to_string(&conf).expect("it is there"), "two\n");
    assert_eq!(fs_err::read_to_string(context.path("out").join(&conf[1..])).expect("it is packed"), "one\n");
}

/// It need not be there before.
#[test]
fn what_setup_makes_may_be_the_program() {
    let context = TestContext::new();
    let made = text(&context.work().join("made/program"));
    let profile = |run: &str| {
        format!(
            "workloads:\n  main:\n    setup: [\"install -D /bin/true {made}\"]\n    teardown: [\"rm {made}\"]\n    run: [{run}]\n"
        )
    };
    succeed(build(&context, &profile(&made), &[]));
    assert!(context.path("out").join(&made[1..]).exists());
    let other = format!("{made}-not");
    build(&context, &profile(&other), &["--force"]).assert_refused(125, &[&other, "could not be run"]);
}

/// What is mounted was there long before, and is gone when the image is written.
#[test]
fn what_setup_mounts_is_packed_though_teardown_unmounts_it() {
    if !needs_root("mount") {
        return;
    }
    let context = TestContext::new();
    context.lay_out(&[("disk/deep/conf", "one\n"), ("disk/looked", "two\n"), ("a place/deep/conf", "another\n")]);
    // By the clock of files, of which some count in steps of two seconds.
    std::thread::sleep(std::time::Duration::from_secs(4));
    let work = text(&context.work());
    let profile = format!(
        "workloads:\n  main:\n    setup: [[mount, --bind, {work}/disk, '{work}/a place']]\n    teardown: [[umount, '{work}/a place']]\n    \
         run: \"cd '{work}/a place'; test -s looked; cat deep/conf\"\n    expect: {{stdout: {{equals: \"one\\n\"}}}}\n"
    );
    for more in [&[][..], &["--until-stable", "1"]] {
        succeed(build(&context, &profile, &[&["--force"], more].concat()));
        let packed = context.path("out").join(&work[1..]).join("a place");
        let read = |name: &str| fs_err::read_to_string(packed.join(name)).expect("it is packed");
        assert_eq!(["deep/conf", "looked"].map(read), ["one\n", "two\n"]);
    }
}

/// To keep all that was read, for the case that it does so, would take a copy of the image for each run.
#[test]
fn a_teardown_that_changes_what_it_did_not_make_is_named() {
    let context = TestContext::new();
    let conf = text(&context.work().join("conf"));
    for teardown in [format!("echo two > {conf}"), format!("rm {conf}")] {
        context.lay_out(&[("conf", "one\n")]);
        std::thread::sleep(std::time::Duration::from_secs(4));
        let profile = format!("workloads:\n  main:\n    run: [/usr/bin/cat, {conf}]\n    teardown: [\"{teardown}\"]\n");
        build(&context, &profile, &[]).assert_refused(125, &["/conf` ", "since the trace was made", "its teardown"]);
    }
}

#[test]
fn state_is_fresh_in_every_run() {
    if !needs_root("an empty directory in place of a full one") {
        return;
    }
    let context = TestContext::new();
    let state = context.work().join("state");
    fs_err::create_dir(&state).unwrap();
    fs_err::write(state.join("old"), "old").unwrap();
    let state = text(&state);
    let profile = format!(
        "workloads:\n  main:\n    state: [{state}]\n    run: |\n      set -e\n      cd {state}\n      test ! -e old\n      \
         test ! -e new\n      echo new > new\n      /usr/bin/cat new\n    stdin: ''\n    expect: {{stdout: {{equals: \"new\\n\"}}}}\n"
    );
    succeed(build(&context, &profile, &[]));
    assert_eq!(support::names_in(&context.work().join("state")), ["old"], "the host's state is as it was");
    assert_eq!(support::names_in(&context.path("out").join(&state[1..])), [""; 0]);
}

/// A server at a unix socket, a port and a file, whose stop is a request.
const SERVER: &str = "import http.server, os, socket, sys, threading\n\
class Handler(http.server.BaseHTTPRequestHandler):\n\
\x20   def do_POST(self):\n\
\x20       body = self.rfile.read(int(self.headers['Content-Length']))\n\
\x20       self.send_response(201)\n\
\x20       self.end_headers()\n\
\x20       self.wfile.write(body[::-1])\n\
\x20   def do_GET(self):\n\
\x20       self.send_response(200)\n\
\x20       self.end_headers()\n\
\x20       threading.Thread(target=self.server.shutdown).start()\n\
server = http.server.HTTPServer(('127.0.0.1', 8123), Handler)\n\
unix = socket.socket(socket.AF_UNIX)\n\
unix.bind('/tmp/minjail-test.socket')\n\
unix.listen()\n\
open('/tmp/minjail-test.ready', 'w').close()\n\
print('I am ready', flush=True)\n\
server.serve_forever()\n\
os.unlink('/tmp/minjail-test.socket')\n\
os.unlink('/tmp/minjail-test.ready')\n";

#[test]
fn every_kind_of_readiness_and_probe() {
    if !needs_root("a network of its own for the traced run") {
        return;
    }
    let context = TestContext::new();
    let script = context.work().join("server.py");
    fs_err::write(&script, SERVER).unwrap();
    for ready in [
        "port: 8123",
        "socket: /tmp/minjail-test.socket",
        "file: /tmp/minjail-test.ready",
        "log: I am ready",
        "http: {port: 8123, method: POST, body: x, status: 201}",
        "command: [/usr/bin/curl, -s, -d, x, 'http://127.0.0.1:8123/']",
    ] {
        let profile = format!(
            "workloads:\n  serve:\n    run: [/usr/bin/python3, -I, {}]\n    ready: {{{ready}}}\n    probes:\n      \
             - http: {{port: 8123, method: POST, body: abc, status: 201, text: {{equals: cba}}}}\n      \
             - command: [/usr/bin/curl, -s, -d, hello, 'http://127.0.0.1:8123/']\n        stdout: {{equals: olleh}}\n    \
             stop: {{command: [/usr/bin/curl, -s, 'http://127.0.0.1:8123/']}}\n    expect: {{status: 0}}\n",
            text(&script)
        );
        succeed(build(&context, &profile, &["--force"]));
        let curl = context.path("out").join("usr/bin/curl");
        assert!(!curl.exists(), "probes are not traced");
    }
}

/// What a flag can choose, a profile can; a flag counts before it.
#[test]
fn a_profile_chooses_files_and_describes_the_image() {
    let context = TestContext::new();
    let work = text(&context.work());
    context.lay_out(&[("d/opened", "con7ent"), ("d/other", ""), ("more/x", ""), ("unwanted", "")]);
    let profile = format!(
        "workloads:\n  main:\n    run: 'ls {work}/d; cat {work}/d/opened {work}/unwanted'\n    expect: {{stdout: {{matches: '(?m)^con\\dent$'}}}}\n\
         files: {{listing: opened, mtime: fixed, include: [{work}/more], exclude: [{work}/un*], layers: packages}}\n\
         image: {{user: '12:34', volumes: [/data], stop-signal: INT}}\n"
    );
    let lock = |more: &[&str]| -> serde_json::Value {
        succeed(build(&context, &profile, &[more, &["--no-verify", "--force"]].concat()));
        context.json("out.lock")
    };
    let (own, flags) = (lock(&[]), lock(&["--listing", "names", "--mtime", "packaged", "--layers", "one"]));
    assert_eq!(own["config"]["user"], "12:34");
    assert_eq!(own["config"]["volumes"], serde_json::json!(["/data"]));
    assert_eq!(own["config"]["stop-signal"], "SIGINT");
    assert_eq!((&own["packing"]["mtime"], &own["packing"]["layers"]), (&"fixed".into(), &"packages".into()));
    assert_eq!((&flags["packing"]["mtime"], &flags["packing"]["layers"]), (&"packaged".into(), &"one".into()));
    let has = |lock: &serde_json::Value, name: &str| {
        let path = format!("{work}/{name}");
        lock["entries"].as_array().expect("it has entries").iter().any(|entry| entry["path"] == path)
    };
    let all = ["d/opened", "d/other", "more/x", "unwanted"];
    assert_eq!(all.map(|name| has(&own, name)), [true, false, true, false]);
    assert_eq!(all.map(|name| has(&flags, name)), [true, true, true, false]);
    // What the profile leaves out, the workload misses: the proof finds that.
    let failed = build(&context, &profile, &["--force"]);
    assert!(failed.status == 3 && said(&failed).contains("unwanted`, looked for by"), "{failed}");
}

#[test]
fn mistakes_in_a_profile_are_shown() {
    let context = TestContext::new();
    let outcome = build(&context, "workloads:\n  main:\n    run: x\n    rnu: y\n", &[]);
    assert_eq!(outcome.status, 125);
    let told = said(&outcome);
    assert!(told.contains("app.yaml:4:5: ") && told.contains("4 |     rnu: y\n  |     ^"), "{told}");
    let run = "workloads:\n  main:\n    run: x\n";
    for (text, words) in [
        (
            format!("{run}    expect: {{stdout: {{matches: (}}}}\n"),
            ["app.yaml:4:32: ", "is no regular expression: unclosed group"],
        ),
        (format!("{run}files: {{listing: some}}\n"), ["app.yaml:4:18: ", "expected one of names, full, opened"]),
        (
            format!("{run}files: {{include: [relative]}}\n"),
            ["`relative` is not an absolute path", "the profile's `files`"],
        ),
        (format!("{run}image: {{volumes: [data]}}\n"), ["the volume `data`", "not an absolute path"]),
        (format!("{run}image: {{stop-signal: SIGNONE}}\n"), ["app.yaml:4:22: ", "`SIGNONE` is no signal"]),
        (format!("{run}{run}"), ["app.yaml:4:1: ", "workloads"]),
        // What holds for every text is no check.
        (format!("{run}    expect: {{stdout: {{}}}}\n"), ["workload `main`", "give equals, contains or matches"]),
        (
            format!("{run}    expect: {{stdout: {{contains: ''}}}}\n"),
            ["workload `main`", "every text contains an empty one"],
        ),
        (
            format!("{run}    ready: {{http: {{port: 1, text: {{matches: ''}}}}}}\n"),
            ["workload `main`", "every text contains an empty one"],
        ),
        (
            format!("{run}    ready: {{port: 1}}\n    probes: [{{tcp: {{port: 1, contains: ''}}}}]\n"),
            ["workload `main`", "every answer contains an empty text"],
        ),
        (format!("{run}    ready: {{log: ''}}\n"), ["workload `main`", "`log` is empty"]),
    ] {
        let outcome = build(&context, &text, &[]);
        assert!(
            outcome.status == 125 && words.iter().all(|word| said(&outcome).contains(word)),
            "{words:?}: {outcome}"
        );
    }
    let outcome = context.outcome(&["build", "no-such-profile", "-o", "oci:x"]);
    assert!(said(&outcome).contains("minjail profile list"), "{}", said(&outcome));
}

#[test]
fn profiles_are_listed_and_shown() {
    let context = TestContext::new();
    let list = context.outcome(&["profile", "list"]);
    assert!(String::from_utf8_lossy(&list.stdout).lines().any(|line| line.starts_with("nginx ")), "{list}");
    let shown = context.outcome(&["profile", "show", "nginx"]);
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/profiles/nginx.yaml");
    assert_eq!(shown.stdout, fs_err::read(file).unwrap());
    let schema = context.outcome(&["profile", "schema"]);
    let schema: serde_json::Value = serde_json::from_slice(&schema.stdout).unwrap();
    assert_eq!(schema["additionalProperties"], false);
}
