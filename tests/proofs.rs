//! What a proof may not let pass, and what it may not fail for: the ends of servers, who answers, streams, and what the
//! caller of minjail has, and an engine has not.

mod support;

use std::io::{Read, Write};

use support::{Outcome, TestContext};

/// What `minjail build PROFILE -o rootfs:out` says, with one workload of this text.
fn build(context: &TestContext, workload: &str) -> Outcome {
    context.outcome(&arguments(context, workload).each_ref().map(String::as_str))
}

/// The arguments of that build.
fn arguments(context: &TestContext, workload: &str) -> [String; 4] {
    let file = context.text("app.yaml");
    fs_err::write(&file, format!("workloads: {{it: {workload}}}\n")).expect("the directory is ours");
    ["build".to_owned(), file, "-o".to_owned(), format!("rootfs:{}", context.text("out"))]
}

#[track_caller]
fn fails(outcome: &Outcome, why: &str) {
    assert!(outcome.status != 0 && outcome.stderr.contains(why), "{outcome}");
}

/// Of a server that was stopped any status will do, and of one that ended before nobody has stopped it.
#[test]
fn a_server_that_ends_by_itself() {
    for (end, said) in [("exit 7", "it ended with status 7"), ("kill -SEGV $$", "it was killed by signal 11")] {
        let context = TestContext::new();
        let server = format!("echo up; sleep 0.3; {end}");
        let outcome =
            build(&context, &format!("{{run: '{server}', ready: {{log: up}}, probes: [{{command: 'sleep 1'}}]}}"));
        fails(&outcome, &format!("{said}, and status 0 was expected"));
    }
    let context = TestContext::new();
    build(&context, "{run: 'echo up; sleep 0.3', ready: {log: up}, probes: [{command: 'sleep 1'}]}").success();
}

/// A file that was there before, as one that an earlier run has left, does not say that a server is ready.
#[test]
fn a_file_that_was_there_before() {
    let context = TestContext::new();
    let file = context.text("pid");
    fs_err::write(&file, "1").expect("the directory is ours");
    let server = |run: &str| format!("{{run: '{run}', timeout: 5, ready: {{file: '{file}'}}}}");
    fails(&build(&context, &server("sleep 100")), "was there before it started, and has not been changed");
    build(&context, &server(&format!("sleep 0.3; echo 2 > {file}; exec sleep 100"))).success();
}

/// An engine ends with a container's first process all that it has left, so nothing of that may answer for it.
#[test]
fn a_server_that_goes_on_in_the_background() {
    if !support::has(&["python3"]) {
        return;
    }
    let server = |start: &str| {
        let python =
            "python3 -c \"import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=18475, bind='127.0.0.1')\"";
        let probes = "[{command: 'sleep 1.5'}, {http: {port: 18475}}]";
        let run = format!("setsid {python} & {start}").replace('\'', "''");
        format!("{{run: '{run}', grace: 1, ready: {{port: 18475}}, probes: {probes}}}")
    };
    let context = TestContext::new();
    fails(
        &build(&context, &server("exit 0")),
        "it ended with status 0 before it was ready: what goes on in the background",
    );
    let after_a_while = "while ! grep -q :482B /proc/net/tcp; do sleep 0.1; done; sleep 0.5; exit 4";
    fails(&build(&context, &server(after_a_while)), "probe 2: the workload has ended");
}

/// A workload that may end by itself, and is to be asked something, has to be there to be asked.
#[test]
fn what_ended_before_it_could_be_asked() {
    let context = TestContext::new();
    let unasked = "{run: 'true', ready: {after: 2}, probes: [{command: 'false'}]}";
    fails(&build(&context, unasked), "it ended with status 0 before it was ready");
    build(&context, "{run: 'true', ready: {after: 2}}").success();
}

/// Where a workload may end by itself or be stopped, it has to do in the jail the one that it did on the host.
#[test]
fn what_ends_here_and_not_there() {
    for (run, why) in [
        ("test -e FLAG || exec sleep 100", "it went on until it was stopped, and on the host it ended by itself"),
        (
            "trap ''exit 0'' TERM; test -e FLAG || exit 0; sleep 100 & wait",
            "it ended by itself, and on the host it went on until it was stopped",
        ),
    ] {
        let context = TestContext::new();
        let flag = context.text("flag");
        fs_err::write(&flag, "").expect("the directory is ours");
        let run = run.replace("FLAG", &flag);
        let arguments = arguments(&context, &format!("{{run: '{run}', grace: 1, ready: {{after: 2}}}}"));
        let left_out = ["--exclude", &flag, "--include", "/usr/bin/sleep"];
        let arguments = arguments.iter().map(String::as_str).chain(left_out).collect::<Vec<_>>();
        let outcome = context.outcome(&arguments);
        assert!(outcome.status == 3 && outcome.stderr.contains(why), "{outcome}");
    }
}

/// Of the groups that a user has besides his own, an engine knows those that the image's accounts tell, if it looks him up.
#[test]
fn a_user_has_the_groups_that_engines_give_him() {
    if !support::needs_root("a workload of another user") || !support::has(&["unshare"]) {
        return;
    }
    let context = TestContext::new();
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs_err::set_permissions(context.path(""), readable).expect("the directory is ours");
    let (groups, file) = (context.text("group"), context.text("file"));
    let known = fs_err::read_to_string("/etc/group").expect("every machine has groups");
    fs_err::write(&groups, format!("{known}minjail-more:x:54321:nobody\n")).expect("the directory is ours");
    fs_err::write(&file, "hello").expect("the directory is ours");
    std::os::unix::fs::chown(&file, Some(0), Some(54321)).expect("root may");
    let closed = std::os::unix::fs::PermissionsExt::from_mode(0o640);
    fs_err::set_permissions(&file, closed).expect("the file is ours");
    // The machine's own file stays as it is.
    let with_groups = |more: &[&str]| {
        let mut command = context.command("unshare");
        command.args(["-m", "sh", "-c", "mount --bind \"$0\" /etc/group; exec \"$@\"", &groups, support::minjail()]);
        command.args(arguments(&context, &format!("{{run: [cat, '{file}'], user: nobody}}"))).args(more);
        support::outcome_of(&mut command)
    };
    with_groups(&[]).success();
    assert_eq!(context.json("out.lock")["config"]["user"], "65534");
    assert_eq!(context.outcome(&["run", "-q", &format!("rootfs:{}", context.text("out"))]).success().text(), "hello");
    fails(&with_groups(&["--force", "--rule", "image-user=off"]), "Permission denied");
}

/// Where the network is the host's, another server may have the port: its answer says nothing of the workload.
#[test]
fn another_server_answers() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").expect("the machine has a loopback interface");
    let port = server.local_addr().expect("it is bound").port();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = server.accept() {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).and_then(|_| stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhi"));
        }
    });
    for (ready, probe, why) in [
        (
            format!("{{http: {{port: {port}}}}}"),
            "{command: 'true'}".to_owned(),
            "it ended with status 5 before it was ready",
        ),
        ("{after: 1}".to_owned(), format!("{{http: {{port: {port}}}}}"), "the workload does not listen at port"),
        (
            "{after: 1}".to_owned(),
            format!("{{tcp: {{port: {port}, send: x, contains: hi}}}}"),
            "the workload does not listen at port",
        ),
    ] {
        let context = TestContext::new();
        let run = "'sleep 3; exit 5'";
        let workload = format!("{{run: {run}, network: host, ready: {ready}, probes: [{probe}]}}");
        fails(&build(&context, &workload), why);
    }
}

/// What would be true of something else than is meant is refused before anything runs.
#[test]
fn readiness_that_cannot_be_meant() {
    let context = TestContext::new();
    for (ready, why) in [
        ("{after: 5}", "it is to be ready after 5 s, and its `timeout` is over after 2 s"),
        ("{file: app.yaml}", "`app.yaml` is not an absolute path"),
        ("{socket: app.sock}", "`app.sock` is not an absolute path"),
    ] {
        fails(&build(&context, &format!("{{run: 'sleep 9', timeout: 2, ready: {ready}}}")), why);
    }
}

/// What writes without end is ended when its time is over, and takes no memory for ever.
#[test]
fn output_without_end() {
    let context = TestContext::new();
    let minjail = support::minjail();
    let limited = |workload: &str| {
        let script = format!("ulimit -v 4000000; exec {minjail} \"$@\"");
        let mut command = context.command("sh");
        support::outcome_of(command.args(["-c", &script, "sh"]).args(arguments(&context, workload)))
    };
    fails(&limited("{run: [yes], timeout: 2}"), "it had not ended, or answered, after 2 s");
    let much = "{run: 'head -c 150000000 /dev/zero', timeout: 30, expect: {stdout: {equals: ''}}}";
    fails(&limited(much), "its standard output has more than 128 MiB, and no more can be compared");
    limited("{run: 'head -c 150000000 /dev/zero', timeout: 30}").success();
}

/// A program that is not minjail's own user opens its streams by their names, as it can in engines.
#[test]
fn streams_are_the_program_s_own() {
    if !support::needs_root("a workload of another user") {
        return;
    }
    let context = TestContext::new();
    let run = "echo one > /dev/stdout; echo two > /dev/stderr; cat /dev/stdin";
    let expect = "{stdout: {equals: \"one\\nthree\"}}";
    let said =
        build(&context, &format!("{{run: '{run}', user: nobody, stdin: three, expect: {expect}}}")).success().stderr;
    assert!(!said.contains("was given to the program at a descriptor"), "a file of minjail's own: {said}");
}

/// A socket's path has 107 bytes at most, and that of a directory for temporary files may have more.
#[test]
fn a_long_directory_for_temporary_files() {
    let context = TestContext::new();
    let long = context.path(&"long".repeat(40));
    fs_err::create_dir(&long).expect("the directory is ours");
    let arguments = arguments(&context, "{run: 'true'}");
    let mut command = context.minjail(&arguments.each_ref().map(String::as_str));
    support::outcome_of(command.env("TMPDIR", &long)).success();
    assert_eq!(support::names_in(&long), Vec::<String>::new());
}

/// Whether minjail has a terminal, or was started by a script that ignores a signal, is nothing to a workload.
#[test]
fn terminal_and_ignored_signals_stay_outside() {
    let context = TestContext::new();
    let server = "{run: [sleep, '1000'], ready: {after: 1}, stop: {signal: INT}, grace: 2}";
    let mut command = context.command("sh");
    command.args(["-c", "trap '' INT; exec \"$@\"", "sh", support::minjail()]).args(arguments(&context, server));
    support::outcome_of(&mut command).success();
    if !support::has(&["script"]) {
        return;
    }
    let context = TestContext::new();
    let asker = "{run: 'read word < /dev/tty || echo none', timeout: 5, expect: {stdout: {equals: \"none\\n\"}}}";
    let line =
        [support::minjail().to_owned()].into_iter().chain(arguments(&context, asker)).collect::<Vec<_>>().join(" ");
    support::outcome_of(context.command("script").args(["-qec", &line, "/dev/null"])).success();
}

/// In most containers root has no right to a network of its own but in a user namespace, which is the jail's.
#[test]
fn root_without_the_right_to_a_network() {
    if !support::needs_root("a root with fewer rights") || !support::has(&["setpriv"]) {
        return;
    }
    for right in ["-sys_admin", "-net_admin"] {
        let context = TestContext::new();
        let less = ["--bounding-set", right, "--inh-caps", right, support::minjail()];
        let mut command = context.command("setpriv");
        support::outcome_of(command.args(less).args(arguments(&context, "{run: 'true'}"))).success();
    }
}

/// A program without a path is looked for in the image, and not where a link of the image leads on this machine.
#[test]
fn a_program_is_looked_for_in_the_image() {
    let context = TestContext::new();
    build(&context, "{run: [/usr/bin/true]}").success();
    let tree = context.path("out");
    fs_err::create_dir_all(tree.join("opt/bin")).expect("the directory is ours");
    fs_err::create_dir_all(tree.join("srv/true")).expect("the directory is ours");
    fs_err::rename(tree.join("usr/bin/true"), tree.join("opt/bin/true")).expect("the directory is ours");
    fs_err::os::unix::fs::symlink("/usr/bin", tree.join("bin")).expect("the directory is ours");
    fs_err::remove_file(context.path("out.lock")).expect("the directory is ours");
    let [_, profile, _, image] = arguments(&context, "{run: ['true'], env: {PATH: '/bin:/srv:/opt/bin'}}");
    context.outcome(&["verify", &image, "-p", &profile]).success();
}

/// Nor is the mask with which minjail was started.
#[test]
fn the_caller_s_umask_stays_outside() {
    let context = TestContext::new();
    let mut command = context.command("sh");
    command.args(["-c", "umask 077; exec \"$@\"", "sh", support::minjail()]);
    command.args(arguments(&context, "{run: umask, expect: {stdout: {equals: \"0022\\n\"}}}"));
    support::outcome_of(&mut command).success();
}

/// An answer is whole by its own length, whatever the server does with the connection afterwards.
#[test]
fn servers_that_do_not_close_the_connection_as_asked() {
    if !support::has(&["python3"]) {
        return;
    }
    for (asked, kept) in [(10, "c.close()"), (4096, "k.append(c)")] {
        let context = TestContext::new();
        let server = format!(
            "import socket\nk = []\ns = socket.socket()\ns.setsockopt(1, 2, 1)\ns.bind(('127.0.0.1', 18473))\ns.listen(9)\n\
             while True:\n    c, _ = s.accept()\n    if c.recv({asked}):\n        \
             c.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nhi')\n    {kept}\n"
        );
        let script = context.text("server.py");
        fs_err::write(&script, server).expect("the directory is ours");
        let probe = "{http: {port: 18473, text: {equals: hi}}}";
        let workload = format!("{{run: [python3, '{script}'], timeout: 9, ready: {{port: 18473}}, probes: [{probe}]}}");
        build(&context, &workload).success();
    }
}

/// Whom a workload names, the image knows by another number than this machine, or alone.
#[test]
fn users_are_the_image_s() {
    if !support::needs_root("a workload of another user") {
        return;
    }
    let context = TestContext::new();
    let script = "while read -r key value rest; do case $key in Uid:) echo $value;; esac; done < /proc/self/status";
    build(&context, &format!("{{run: '{script}'}}")).success();
    let passwd = "root:x:0:0::/:/bin/sh\nnobody:x:4321:4322::/:/bin/sh\nonly-here:x:5432:5433::/:/bin/sh\n";
    fs_err::create_dir_all(context.path("out/etc")).expect("the directory is ours");
    fs_err::write(context.path("out/etc/passwd"), passwd).expect("the directory is ours");
    for (user, uid) in [("nobody", 4321), ("only-here", 5432), ("'1234'", 1234)] {
        let workload = format!("{{run: '{script}', user: {user}, expect: {{stdout: {{equals: \"{uid}\\n\"}}}}}}");
        let [_, profile, _, image] = arguments(&context, &workload);
        context.outcome(&["verify", &image, "-p", &profile]).success();
    }
}

/// It has nothing that takes connections, and is a server all the same.
#[test]
fn a_server_of_datagrams_alone_becomes_idle() {
    if !support::has(&["python3"]) {
        return;
    }
    let context = TestContext::new();
    let script = context.text("server.py");
    let server = "import socket\ns = socket.socket(type=socket.SOCK_DGRAM)\ns.bind(('127.0.0.1', 18474))\ns.recv(9)\n";
    fs_err::write(&script, server).expect("the directory is ours");
    let outcome =
        build(&context, &format!("{{run: [python3, '{script}'], timeout: 20, ready: {{idle: 1}}}}")).success();
    assert!(outcome.stderr.contains("18474/udp"), "{outcome}");
}

/// Nor has one that listens at a unix socket a port.
#[test]
fn a_server_at_a_unix_socket_alone_becomes_idle() {
    if !support::has(&["python3"]) {
        return;
    }
    let context = TestContext::new();
    let (script, at) = (context.text("server.py"), context.text("socket"));
    let server = format!("import socket\ns = socket.socket(socket.AF_UNIX)\ns.bind('{at}')\ns.listen()\ns.accept()\n");
    fs_err::write(&script, server).expect("the directory is ours");
    let workload = format!("{{run: [sh, -c, 'rm -f {at}; exec python3 {script}'], timeout: 20, ready: {{idle: 1}}}}");
    build(&context, &workload).success();
}

/// What a jail has in its place is no more what the host has than what a run has needed of it.
#[test]
fn other_names_of_hosts_are_told() {
    let context = TestContext::new();
    let copy = context.text("copy");
    fs_err::copy("/etc/hosts", &copy).expect("a machine has it");
    let failed = build(&context, &format!("{{run: [cmp, /etc/hosts, '{copy}']}}"));
    failed.assert_refused(3, &["differs: `/etc/hosts`, which `/usr/bin/cmp` used"]);
    assert!(!failed.stderr.contains("/etc/ld.so.cache"), "{failed}");
}

/// Of a script that fails as a probe the first line is told, and why.
#[test]
fn a_long_probe_is_told_by_its_first_line() {
    if !support::has(&["python3"]) {
        return;
    }
    let context = TestContext::new();
    let server = "{run: [python3, -m, http.server, '18475'], ready: {port: 18475}, stop: {signal: TERM}, \
                  probes: [{command: [sh, -c, \"echo first\\necho second\\nexit 3\"]}]}";
    let failed = build(&context, server);
    failed.assert_refused(125, &["`sh -c echo first ...`: exit status: 3"]);
}

/// Many servers log to standard output: why one has failed stands there, where standard error has nothing.
#[test]
fn what_a_workload_that_fails_wrote_last_is_told() {
    let context = TestContext::new();
    let told = |run: &str| build(&context, &format!("{{run: \"{run}\"}}")).stderr;
    let out = told("seq 100; echo the port is taken; exit 1");
    assert!(out.contains("it wrote: the port is taken\n") && out.contains("it wrote: 100\n"), "{out}");
    assert!(!out.contains("it wrote: 50\n"), "{out}");
    let error = told("echo data; seq 100 >&2; echo the port is taken >&2; exit 1");
    assert!(error.contains("it wrote: the port is taken\n") && !error.contains("data\n"), "{error}");
    assert!(!error.contains("it wrote: 50\n"), "{error}");
    let no_text = told("head -c 5000 /dev/zero | tr '\\\\0' x; exit 1");
    assert!(no_text.contains("xxx ...\n") && no_text.len() < 2000, "{no_text}");
}

/// As an FTP server does, which draws a port for each listing and file: with it no image would be the same twice.
#[test]
fn a_port_that_is_for_one_answer_is_not_exposed() {
    if !support::has(&["python3"]) {
        return;
    }
    let context = TestContext::new();
    let script = context.text("server.py");
    let exposes = |server: &str, ports: &str| {
        let start = "import socket, time\nat = lambda port: socket.create_server(('127.0.0.1', port))\nmain = at(18480)\nprint('up', flush=True)\n";
        fs_err::write(&script, format!("{start}{server}")).expect("the directory is ours");
        let probe = "{tcp: {port: 18480, send: list, contains: yes}}";
        let workload = format!("{{run: [python3, '{script}'], ready: {{log: up}}, probes: [{probe}]}}");
        let outcome = context
            .outcome(&[&arguments(&context, &workload).each_ref().map(String::as_str)[..], &["--force"]].concat());
        assert!(outcome.success().stderr.contains(&format!("; ports {ports}\n")), "{ports}");
    };
    let answer = "one, _ = main.accept()\none.recv(4)\n";
    // What it opens later, and keeps, is not for one answer.
    exposes(
        &format!("{answer}at(18481).close()\ncontrol = at(18482)\none.send(b'yes')\ntime.sleep(60)\n"),
        "18480/tcp, 18482/tcp",
    );
    // Nor is the one that was there when it was ready, also where it is for one client alone.
    exposes(&format!("{answer}main.close()\none.send(b'yes')\ntime.sleep(60)\n"), "18480/tcp");
}
