//! The proof by other means: the workloads of a profile, run by podman, docker, runc and bubblewrap.

mod support;

use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;
use support::docker::Docker;
use support::podman::Podman;
use support::{Outcome, TestContext, has, minjail, needs_root, outcome_of, text};

/// What `minjail verify` says, with podman's store in a directory of its own.
fn verify(context: &TestContext, podman: &Podman, image: &str, more: &[&str]) -> Outcome {
    let arguments = [&["verify", image][..], more].concat();
    outcome_of(context.minjail(&arguments).envs(podman.environment()))
}

#[test]
fn a_server_in_podman_and_runc() {
    if !needs_root("podman") || !has(&["podman", "runc", "redis-server"]) {
        return;
    }
    let (context, podman) = (TestContext::new(), Podman::new());
    let (image, tree) = (format!("oci:{}", context.text("image")), format!("rootfs:{}", context.text("tree")));
    let arguments =
        ["build", "redis", "-q", "-o", &image, "-o", &tree, "--verify-with", "podman", "--verify-with", "runc"];
    outcome_of(context.minjail(&arguments).envs(podman.environment())).success();
    let whole = verify(&context, &podman, &image, &["-p", "redis", "--verify-with", "podman", "--verify-with", "runc"]);
    let told = whole.success().stderr;
    for tool in ["podman", "runc"] {
        assert!(told.contains(&format!("workload `serve` does in {tool} what the profile says")), "{told}");
    }
    for listed in ["images", "ps"] {
        let mut command = std::process::Command::new("podman");
        let listed = outcome_of(command.args([listed, "--all", "--quiet"]).envs(podman.environment())).success();
        assert_eq!(listed.text(), "", "nothing is left in the store");
    }
    // Where the jail is not asked, the engine finds that something is missing.
    fs_err::remove_file(context.path("tree/usr/lib/x86_64-linux-gnu/libc.so.6")).unwrap();
    let broken = verify(&context, &podman, &tree, &["-p", "redis", "--verify-with", "runc"]);
    assert_eq!(broken.status, 3, "{broken}");
    assert!(
        broken.stderr.contains("in runc, workload `serve`: it ended with status 127 before it was ready"),
        "{broken}"
    );
    let refused = verify(&context, &podman, &tree, &["-p", "redis", "--verify-with", "podman"]);
    refused.assert_refused(125, &["podman pull"]);
}

#[test]
fn a_program_in_all_of_them() {
    if !needs_root("dockerd") || !has(&["podman", "runc", "bwrap", "dockerd"]) {
        return;
    }
    let (context, podman, docker) = (TestContext::new(), Podman::new(), Docker::start());
    context.lay_out(&[("input", "4\n")]);
    let file = context.text("app.yaml");
    let profile = format!(
        "workloads:\n  main:\n    run: [/bin/sh, -c, 'read n < input; cat; echo $n $WORD; pwd; exit 9', name]\n    cwd: {}\n    \
         env: {{WORD: two words}}\n    stdin: given\n    expect: {{status: 9, stdout: {{matches: '^given4 two words\\n/'}}}}\n",
        text(&context.work())
    );
    fs_err::write(&file, &profile).unwrap();
    let image = format!("docker-archive:{}", context.text("image.tar"));
    context.outcome(&["build", &file, "-q", "-o", &image]).success();
    let all = ["podman", "docker", "runc", "bwrap"].map(|tool| ["--verify-with", tool]).concat();
    let with = |arguments: &[&str]| {
        let mut command = context.minjail(&[&["verify", &image, "-p", &file][..], arguments].concat());
        outcome_of(command.envs(podman.environment()).env("DOCKER_HOST", docker.address()))
    };
    with(&all).success();
    fs_err::write(&file, profile.replace("status: 9", "status: 0")).unwrap();
    for tool in ["podman", "docker", "runc", "bwrap"] {
        let outcome = with(&["--verify-with", tool]);
        assert_eq!(outcome.status, 3, "{outcome}");
        let words = format!("in {tool}, workload `main`: it ended with status 9, and status 0 was expected");
        assert!(outcome.stderr.contains(&words), "{outcome}");
    }
}

#[test]
fn a_server_in_bubblewrap() {
    if !needs_root("a network of its own for the traced run") || !has(&["bwrap"]) {
        return;
    }
    let context = TestContext::new();
    let tree = format!("rootfs:{}", context.text("tree"));
    context.outcome(&["build", "busybox-httpd", "-q", "-o", &tree, "--verify-with", "bwrap"]).success();
    assert!(context.path("tree/bin/busybox").exists() || context.path("tree/usr/bin/busybox").exists());
}

/// A container goes on without its client, and holds what its program writes to: whoever ends minjail ends it too.
#[test]
fn a_container_ends_with_minjail() {
    if !needs_root("runc") || !has(&["runc", "/bin/busybox"]) {
        return;
    }
    for (signal, ending) in [(Signal::SIGTERM, Some(128 + 15)), (Signal::SIGKILL, None)] {
        let context = TestContext::new();
        fs_err::create_dir_all(context.path("tree/bin")).unwrap();
        fs_err::copy("/bin/busybox", context.path("tree/bin/busybox")).unwrap();
        let file = context.text("app.yaml");
        // No other process of the machine has this number among its words.
        let seconds = format!("1{:06}", std::process::id());
        let run = format!("run: [/bin/busybox, sleep, '{seconds}'], ready: {{after: 50}}");
        fs_err::write(&file, format!("workloads: {{main: {{{run}}}}}\n")).unwrap();
        let sleeps = || {
            let processes = fs_err::read_dir("/proc").unwrap().filter_map(Result::ok);
            let line = |process: fs_err::DirEntry| fs_err::read(process.path().join("cmdline")).unwrap_or_default();
            let wanted = format!("/bin/busybox\0sleep\0{seconds}\0");
            processes.map(line).any(|line| line == wanted.as_bytes())
        };
        let until = |is: bool| {
            let end = std::time::Instant::now() + std::time::Duration::from_secs(40);
            while sleeps() != is {
                assert!(std::time::Instant::now() < end, "{signal}: is it there? {}", !is);
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
        };
        let tree = format!("rootfs:{}", context.text("tree"));
        let mut minjail = std::process::Command::new(minjail());
        let arguments = ["verify", &tree, "-p", &file, "--verify-with", "runc"];
        let mut minjail = minjail.args(arguments).env("TMPDIR", context.work()).spawn().unwrap();
        until(true);
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(minjail.id().cast_signed()), signal).unwrap();
        until(false);
        assert_eq!(minjail.wait().unwrap().code(), ending);
    }
}

/// By what it ends with, nobody can tell whether that was its program.
#[test]
fn an_engine_that_starts_nothing_is_told_from_an_image_that_fails() {
    let context = TestContext::new();
    let (file, tree) = (context.text("app.yaml"), format!("rootfs:{}", context.text("tree")));
    fs_err::write(&file, "workloads: {main: {run: [/bin/true]}}\n").unwrap();
    let runc = context.path("bin/runc");
    fs_err::create_dir(context.path("bin")).unwrap();
    let script = "#!/bin/sh\ntest \"$1\" = --version && exit\necho 'runc run failed: no cgroups' >&2\nexit 1\n";
    fs_err::write(&runc, script).unwrap();
    fs_err::set_permissions(&runc, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("PATH={}:/usr/bin:/bin", context.text("bin"));
    let arguments = [&path, minjail(), "build", &file, "-o", &tree, "--verify-with", "runc"];
    let failed = outcome_of(context.command("/usr/bin/env").args(arguments));
    failed.assert_refused(3, &["it wrote: runc run failed: no cgroups", "see that runc works by itself"]);
}

/// docker loads all of an archive, and says nothing of which is meant: another one might be verified.
#[test]
fn one_of_several_images_in_docker() {
    if !needs_root("dockerd") || !has(&["dockerd"]) {
        return;
    }
    let (context, docker) = (TestContext::new(), Docker::start());
    let tell = |arguments: &[&str]| {
        outcome_of(std::process::Command::new("docker").args(arguments).env("DOCKER_HOST", docker.address())).success()
    };
    let file = context.text("app.yaml");
    for word in ["one", "two"] {
        let expect = format!("expect: {{stdout: {{contains: {word}}}}}");
        fs_err::write(&file, format!("workloads: {{main: {{run: [/bin/echo, {word}], {expect}}}}}\n")).unwrap();
        let image = format!("docker-archive:{}:{word}:1", context.text(word));
        context.outcome(&["build", &file, "-q", "-o", &image]).success();
        tell(&["load", "--input", &context.text(word)]);
    }
    let both = context.text("both.tar");
    tell(&["save", "--output", &both, "one:1", "two:1"]);
    tell(&["rmi", "one:1", "two:1"]);
    let arguments = ["verify", &format!("docker-archive:{both}:one:1"), "-p", &file, "--verify-with", "docker"];
    let refused = outcome_of(context.minjail(&arguments).env("DOCKER_HOST", docker.address()));
    refused.assert_refused(125, &["`docker` reads all images of", "`minjail unpack` writes one of them"]);
    assert_eq!(tell(&["images", "--all", "--quiet"]).text(), "", "nothing is left in the store");
}

/// Equal images have one ID, and what minjail builds again is equal.
#[test]
fn an_image_that_an_engine_had_before_stays() {
    if !needs_root("podman") || !has(&["podman"]) {
        return;
    }
    let (context, podman) = (TestContext::new(), Podman::new());
    let file = context.text("app.yaml");
    fs_err::write(&file, "workloads:\n  main: {run: [/bin/echo, hello]}\n").unwrap();
    let image = format!("docker-archive:{}:localhost/minjail/test:1", context.text("image.tar"));
    context.outcome(&["build", &file, "-q", "-o", &image]).success();
    let tell = |arguments: &[&str]| {
        outcome_of(std::process::Command::new("podman").args(arguments).envs(podman.environment())).success().text()
    };
    tell(&["load", "--quiet", "--input", &context.text("image.tar")]);
    tell(&["tag", "localhost/minjail/test:1", "localhost/mine:2"]);
    let list = || tell(&["images", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}"]);
    let before = list();
    assert!(before.contains("localhost/mine:2"), "{before}");
    // Whether containers can be run here does not matter.
    verify(&context, &podman, &image, &["-p", &file, "--verify-with", "podman"]);
    assert_eq!(list(), before);
    let other = format!("oci:{}", context.text("other"));
    outcome_of(
        context.minjail(&["build", &file, "-q", "-o", &other, "--verify-with", "podman"]).envs(podman.environment()),
    );
    assert_eq!(list(), before);
}

#[test]
fn what_no_engine_can_do_is_said_before_anything_runs() {
    let context = TestContext::new();
    let (file, tree) = (context.text("app.yaml"), format!("rootfs:{}", context.text("tree")));
    let build = |profile: &str, more: &[&str]| {
        fs_err::write(&file, profile).expect("the directory is ours");
        let inner = [&[minjail(), "build", &file, "-o", &tree, "--verify-with", "runc"][..], more].concat();
        outcome_of(context.command("/usr/bin/env").args(inner))
    };
    let program = "workloads: {main: {run: [/usr/bin/touch, ran]}}\n";
    if has(&["runc"]) {
        build("workloads: {main: {run: [/bin/sleep, '100'], ready: {file: /ready}}}\n", &[])
            .assert_refused(125, &["its `file` says, which is inside of runc's container"]);
    }
    fs_err::write(&file, program).unwrap();
    let arguments = ["PATH=/none", minjail(), "build", &file, "-o", &tree, "--verify-with", "runc"];
    let missing = outcome_of(context.command("/usr/bin/env").args(arguments));
    missing.assert_refused(127, &["`runc` is not installed"]);
    assert!(!context.work().join("ran").exists() && !context.path("tree").exists());
}
