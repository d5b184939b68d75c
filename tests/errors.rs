//! What goes wrong, and how minjail says so: the exit status, what and where in the message, a hint, and nothing left
//! behind.

mod support;

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use support::crafted::{UNHEARD_OF, program_for};
use support::{Outcome, TestContext, limited, minjail, needs_root, outcome_of, text};

/// minjail's own failures, cannot execute, not found: what docker, env and timeout users know.
const FAILED: i32 = 125;
const CANNOT_EXECUTE: i32 = 126;
const NOT_FOUND: i32 = 127;

/// Runs minjail, which must refuse and leave the directory as it was.
fn refused(context: &TestContext, arguments: &[&str], status: i32, words: &[&str]) -> Outcome {
    let before = context.listing();
    let outcome = context.outcome(arguments);
    outcome.assert_refused(status, words);
    assert_eq!(context.listing(), before, "something was left behind\n{outcome}");
    outcome
}

fn docker_archive(context: &TestContext) -> String {
    format!("docker-archive:{}:localhost/minjail/test:1", context.text("image.tar"))
}

#[test]
fn a_program_that_is_not_there() {
    let context = TestContext::new();
    let out = docker_archive(&context);
    refused(&context, &["trace", "-o", &out, "--", "no-such-program"], NOT_FOUND, &["`no-such-program`"]);
    refused(&context, &["trace", "-o", &out, "--", "./no-such-program"], NOT_FOUND, &["`./no-such-program`"]);
    refused(&context, &["trace", "-o", &out, "--", "/no/such/program"], NOT_FOUND, &["`/no/such/program`"]);
}

#[test]
fn a_standard_output_that_is_closed() {
    let context = TestContext::new();
    for output in ["layer:-", "oci-archive:-", "docker-archive:-"] {
        let line = format!("{} trace -o {output} -- true >&-", minjail());
        outcome_of(context.command("sh").args(["-c", &line])).assert_refused(FAILED, &["standard output is closed"]);
    }
}

#[test]
fn a_program_that_may_not_be_executed() {
    let context = TestContext::new();
    context.lay_out(&[("script.sh", "#!/bin/sh\necho ran\n")]);
    let out = docker_archive(&context);
    refused(&context, &["trace", "-o", &out, "--", "./script.sh"], CANNOT_EXECUTE, &["script.sh", "chmod"]);
    refused(&context, &["trace", "-o", &out, "--", "/etc"], CANNOT_EXECUTE, &["`/etc`"]);
}

/// As `execvp(3)` passes over what it may not execute.
#[test]
fn a_program_that_another_user_may_not_execute() {
    if !needs_root("another user") {
        return;
    }
    let context = TestContext::new();
    context.lay_out(&[("closed/what", "#!/bin/sh\necho closed\n"), ("open/what", "#!/bin/sh\necho open\n")]);
    let [closed, open] = ["closed", "open"].map(|name| context.work().join(name));
    for directory in [&closed, &open] {
        make_executable(&directory.join("what"));
    }
    fs_err::set_permissions(&closed, PermissionsExt::from_mode(0o700)).expect("it is ours");
    let trace = |directories: &str| {
        let mut command = context.minjail(&["trace", "-q", "-t", &context.text("what.trace")]);
        command.args(["--user", "65534:65534", "--workdir", "/", "--", "what"]);
        outcome_of(command.env("PATH", format!("{directories}:/usr/bin:/bin")))
    };
    let both = format!("{}:{}", text(&closed), text(&open));
    assert_eq!(trace(&both).success().text(), "open\n");
    let words = ["user 65534 may not execute", "closed/what", "hint: let that user get there"];
    trace(&text(&closed)).assert_refused(CANNOT_EXECUTE, &words);
}

#[test]
fn a_script_whose_interpreter_is_not_there() {
    let context = TestContext::new();
    context.lay_out(&[("script.sh", "#!/no/such/interpreter\n")]);
    make_executable(&context.work().join("script.sh"));
    refused(&context, &["trace", "--", "./script.sh"], NOT_FOUND, &["script.sh", "/no/such/interpreter"]);
}

#[test]
fn a_script_that_names_no_interpreter() {
    let context = TestContext::new();
    context.lay_out(&[("nosh", "echo ran\n"), ("bytes", "\0\0\0\0")]);
    for name in ["nosh", "bytes"] {
        make_executable(&context.work().join(name));
    }
    let words = ["failed to execute `./nosh`", "hint: it has no `#!` line", "`sh ./nosh`"];
    refused(&context, &["trace", "--", "./nosh"], CANNOT_EXECUTE, &words);
    refused(&context, &["trace", "--", "./bytes"], CANNOT_EXECUTE, &["hint: it is neither a program for this machine"]);
}

#[test]
fn a_program_for_another_architecture() {
    let context = TestContext::new();
    let path = context.work().join("program");
    fs_err::write(&path, program_for(UNHEARD_OF)).expect("the directory is ours");
    make_executable(&path);
    let out = docker_archive(&context);
    refused(
        &context,
        &["trace", "-o", &out, "--", "./program"],
        CANNOT_EXECUTE,
        &["`./program`", "another architecture"],
    );
}

#[test]
fn an_empty_command() {
    let context = TestContext::new();
    let out = docker_archive(&context);
    let before = context.listing();
    for arguments in [vec!["trace", "-o", &out], vec!["trace", "-o", &out, "--"]] {
        let outcome = context.outcome(&arguments);
        assert_eq!(outcome.status, FAILED, "{outcome}");
        assert!(outcome.stderr.contains("error: ") && outcome.stderr.contains("CMD"), "{outcome}");
    }
    assert_eq!(context.listing(), before);
    refused(&context, &["trace", "-o", &out, "--", ""], NOT_FOUND, &[]);
}

#[test]
fn an_output_form_that_nobody_knows() {
    let context = TestContext::new();
    let forms = ["`rootfs:", "`layer:", "`oci:", "`oci-archive:", "`docker-archive:"];
    for out in ["zip:image.zip", "image.tar", "oci:", ""] {
        let mut words = vec![out];
        words.extend(forms.map(|form| form.trim_start_matches('`')));
        refused(&context, &["trace", "-o", out, "--", "true"], FAILED, &words);
    }
}

#[test]
fn an_output_that_is_already_there() {
    let context = TestContext::new();
    let (file, out) = (context.path("image.tar"), docker_archive(&context));
    fs_err::write(&file, "precious").expect("the directory is ours");
    // Refused before the program has run: nobody wants to hear of it an hour later.
    let command = ["trace", "-t", &context.text("app.trace"), "-o", &out, "--", "touch", "ran"];
    refused(&context, &command, FAILED, &[&text(&file), "--force"]);
    assert_eq!(fs_err::read_to_string(&file).expect("it is still there"), "precious");

    let trace = context.text("app.trace");
    let forced = ["trace", "--force", "-t", &trace, "-o", &out, "--", "cat", "/etc/debian_version"];
    context.outcome(&forced).success();
    assert!(fs_err::metadata(&file).expect("it was replaced").len() > 100_000);

    let tree = context.path("tree");
    fs_err::create_dir(&tree).expect("the directory is ours");
    fs_err::write(tree.join("precious"), "").expect("the directory is ours");
    let out = format!("rootfs:{}", text(&tree));
    refused(&context, &["build", "-t", &trace, "-o", &out], FAILED, &[&text(&tree), "--force"]);
    // A directory is replaced only if it is empty, or minjail's own: beside that lies its lock, and no other tool's.
    let forced = ["build", "--force", "-t", &trace, "-o", &out];
    for lock in [None, Some("[packages]\n")] {
        if let Some(lock) = lock {
            fs_err::write(context.path("tree.lock"), lock).expect("the directory is ours");
        }
        refused(&context, &forced, FAILED, &[&text(&tree), "a directory of something else", "remove it yourself"]);
        let run = ["trace", "--force", "-t", &trace, "-o", &out, "--", "touch", "ran"];
        refused(&context, &run, FAILED, &["a directory of something else"]);
    }
    fs_err::remove_file(tree.join("precious")).expect("it was left alone");
    context.outcome(&forced).success();
    fs_err::write(tree.join("mine"), "").expect("the directory is ours");
    context.outcome(&forced).success();
    assert!(!tree.join("mine").exists() && tree.join("etc/debian_version").exists());
    // A lock of something else proves nothing.
    fs_err::remove_dir_all(&tree).expect("it is ours");
    fs_err::create_dir(&tree).expect("the directory is ours");
    fs_err::write(tree.join("precious"), "").expect("the directory is ours");
    refused(&context, &forced, FAILED, &["a directory of something else"]);
    let lock = [&forced[..], &["--lock", "-"]].concat();
    refused(&context, &lock, FAILED, &["standard output"]);
    let names = support::names_in(&context.path(""));
    let hidden: Vec<&String> = names.iter().filter(|name| name.starts_with('.') || name.contains("tmp")).collect();
    assert!(hidden.is_empty(), "something was left behind: {hidden:?}");
}

#[test]
fn an_output_in_a_directory_that_is_not_there() {
    let context = TestContext::new();
    let out = format!("layer:{}", context.text("nowhere/layer.tar"));
    refused(&context, &["trace", "-o", &out, "--", "true"], FAILED, &[&context.text("nowhere")]);
}

#[test]
fn a_trace_that_is_not_there_or_not_a_trace() {
    let context = TestContext::new();
    let (absent, out) = (context.text("absent.trace"), docker_archive(&context));
    refused(&context, &["build", "-t", &absent, "-o", &out], FAILED, &[&absent]);
    refused(&context, &["why", &absent, "/etc/passwd"], FAILED, &[&absent]);
    let odd = context.path("odd.trace");
    fs_err::create_dir(&odd).expect("the directory is ours");
    fs_err::write(odd.join("trace.jsonl"), "{\"hello\": 1}\n").expect("the directory is ours");
    refused(&context, &["build", "-t", &text(&odd), "-o", &out], FAILED, &[&text(&odd)]);
}

#[test]
fn what_is_no_lock() {
    let context = TestContext::new();
    // As large an image as any, which is not read for that: it has more bytes than there is memory.
    let (image, empty) = (context.path("image.tar"), context.path("empty.lock"));
    let file = fs_err::File::create(&image).expect("the directory is ours");
    file.set_len(1 << 40).expect("it has no blocks");
    fs_err::write(&empty, "").expect("the directory is ours");
    for place in [&image, &empty] {
        let place = text(place);
        let words = [&format!("`{place}` is no lock"), "hint: a lock is the file beside an image"];
        refused(&context, &["why", &place, "/etc/passwd"], FAILED, &words);
    }
    // Whoever has opened a lock in an editor may have left a line above it.
    let lock = context.path("edited.lock");
    context.outcome(&["trace", "-q", "-o", &format!("layer:{}", context.text("app")), "--", "true"]).success();
    let written = fs_err::read_to_string(context.path("app.lock")).expect("it was written");
    fs_err::write(&lock, format!("\n {written}")).expect("the directory is ours");
    context.outcome(&["diff", &context.text("app.lock"), &text(&lock)]).success();
    // A shell hands over what a command writes as a pipe, as in `diff <(git show HEAD:app.lock) app.lock`.
    let script = format!("cat app.lock | {} diff /dev/stdin app.lock", minjail());
    let mut command = context.command("sh");
    outcome_of(command.args(["-c", &script]).current_dir(context.path(""))).success();
}

#[test]
fn a_trace_that_was_cut_off() {
    let context = TestContext::new();
    let trace = context.text("app.trace");
    context.outcome(&["trace", "-q", "-t", &trace, "--", "/bin/true"]).success();
    let records = context.path("app.trace/trace.jsonl");
    let text = fs_err::read_to_string(&records).expect("it was written");
    let output = format!("rootfs:{}", context.text("out"));
    for kept in [text.len() / 2, text.rfind("\n{").expect("it has several records") + 1] {
        fs_err::write(&records, &text[..kept]).expect("it is ours");
        let outcome = refused(&context, &["build", "-t", &trace, "-o", &output], FAILED, &["cut off", "--allow-gaps"]);
        assert!(!context.path("out").exists(), "{outcome}");
    }
}

/// One that is lost in the middle leaves no gap that shows: the rest would be built without what it told of.
#[test]
fn a_trace_that_has_lost_a_line() {
    let context = TestContext::new();
    let (trace, joined) = (context.text("app.trace"), context.text("joined.trace"));
    context.outcome(&["trace", "-q", "-t", &trace, "--", "/bin/true"]).success();
    context.outcome(&["merge", "-q", "-t", &trace, "-o", &joined]).success();
    let output = format!("rootfs:{}", context.text("out"));
    for name in ["app.trace/trace.jsonl", "joined.trace/trace.jsonl"] {
        let records = context.path(name);
        let text = fs_err::read_to_string(&records).expect("it was written");
        let touch = text.lines().rfind(|line| line.contains(r#""record":"touch""#)).expect("it touched something");
        fs_err::write(&records, text.replace(&format!("{touch}\n"), "")).expect("it is ours");
        let (trace, words) = (context.text(name.split('/').next().unwrap_or(name)), ["is damaged", "trace again"]);
        refused(&context, &["build", "-t", &trace, "-o", &output, "--allow-gaps"], FAILED, &words);
        refused(
            &context,
            &["merge", "-t", &trace, "-o", &context.text("more.trace")],
            FAILED,
            &[&records.to_string_lossy()],
        );
        assert!(!context.path("out").exists());
    }
}

#[test]
fn what_a_run_cannot_begin_with() {
    let context = TestContext::new();
    context.lay_out(&[("file", "")]);
    let file = text(&context.work().join("file"));
    let words = [file.as_str(), "Not a directory", "hint: name a directory"];
    refused(&context, &["trace", "--workdir", &file, "--", "true"], FAILED, &words);
    if !needs_root("another user") {
        return;
    }
    // The kernel takes it for no user at all.
    let words = ["user 4294967295", "hint: give numbers"];
    refused(&context, &["trace", "--user", "4294967295", "--", "true"], FAILED, &words);
}

/// A run may take hours: where its trace cannot be put is said before it begins.
#[test]
fn a_trace_that_cannot_be_put_there() {
    let context = TestContext::new();
    let (ran, other) = (context.path("ran"), context.text("nowhere/x.trace"));
    for (place, words) in [(context.text("work"), "exists and is not a trace"), (other, "failed to write the trace")] {
        let arguments = ["trace", "-t", &place, "--", "touch", &text(&ran)];
        refused(&context, &arguments, FAILED, &[&place, words, "hint: name"]);
        assert!(!ran.exists(), "{place}");
    }
}

/// What is mounted there cannot be replaced, and nothing beside it is touched.
#[test]
fn where_something_is_mounted() {
    if !needs_root("mount") {
        return;
    }
    let context = TestContext::new();
    let (trace, taken) = (context.text("app.trace"), context.text("taken"));
    context.outcome(&["trace", "-q", "-t", &trace, "--", "cat", "/etc/debian_version"]).success();
    fs_err::create_dir(&taken).expect("the directory is ours");
    fs_err::write(context.path("taken/kept"), "").expect("the directory is ours");
    let build = |outputs: &[&str], mount: &str| {
        let script = format!("{mount}; exec \"$@\"");
        let mut command = context.command("unshare");
        command.args(["--mount", "sh", "-ec", &script, &taken, minjail(), "build", "-q", "--force", "-t", &trace]);
        for output in outputs {
            command.args(["-o", output]);
        }
        outcome_of(&mut command)
    };
    let (tree, layer) = (format!("rootfs:{taken}"), format!("layer:{}", context.text("layer.tar")));
    let mounted = build(&[&layer, &tree], "mount -t tmpfs none \"$0\"");
    mounted.assert_refused(FAILED, &[&taken, "a mount point"]);
    assert!(!context.path("taken.lock").exists() && !context.path("layer.tar").exists());
    build(&[&tree], "true").assert_refused(FAILED, &["a directory of something else"]);
    assert!(context.path("taken/kept").exists());
}

#[test]
fn no_space_left() {
    if !needs_root("mount") {
        return;
    }
    let context = TestContext::new();
    let small = context.path("small");
    fs_err::create_dir(&small).expect("the directory is ours");
    for form in ["layer", "oci-archive", "docker-archive", "oci", "rootfs"] {
        let out = format!("{form}:{}", text(&small.join("image")));
        // The program's words are not wanted: what is left on standard output is the listing of the small directory.
        let script = "mount -t tmpfs -o size=256k none \"$1\"; shift
                      \"$@\" > /dev/null; status=$?; ls -A \"$0\"; exit $status";
        let trace = context.text(&format!("{form}.trace"));
        let mut command = context.command("unshare");
        command.args(["--mount", "sh", "-c", script, &text(&small), &text(&small), minjail(), "trace", "-t", &trace]);
        let outcome = outcome_of(command.args(["-o", &out, "--", "cat", "/etc/debian_version"]));
        outcome.assert_refused(FAILED, &[&text(&small), "No space left on device"]);
    }
}

#[test]
fn no_space_left_for_a_profile() {
    if !needs_root("mount") {
        return;
    }
    let context = TestContext::new();
    let small = context.text("small");
    fs_err::create_dir(&small).expect("the directory is ours");
    let script = "mount -t tmpfs -o size=8k none \"$0\"; head -c 8192 /dev/zero > \"$0/full\"
                  \"$@\" > /dev/null; status=$?; rm \"$0/full\"; ls -A \"$0\"; exit $status";
    let mut command = context.command("unshare");
    command.args(["--mount", "sh", "-c", script, &small, minjail(), "init"]);
    let outcome = outcome_of(command.args(["-o", &format!("{small}/app.yaml"), "--", "true"]));
    outcome.assert_refused(FAILED, &[&small, "No space left on device"]);
}

/// As in a chroot in which nobody has mounted it.
#[test]
fn a_build_without_proc() {
    if !needs_root("to unmount") {
        return;
    }
    let context = TestContext::new();
    let trace = context.text("app.trace");
    context.outcome(&["trace", "-q", "-t", &trace, "--", "cat", "/etc/debian_version"]).success();
    let mut command = context.command("unshare");
    command.args(["--mount", "sh", "-c", "umount -l /proc; exec \"$@\"", "sh", minjail(), "build", "-t", &trace]);
    let outcome = outcome_of(command.args(["-o", &docker_archive(&context)]));
    outcome.assert_refused(FAILED, &["failed to ", "hint: `/proc` is not there: mount it"]);
}

/// A program that may be executed but not read runs, and cannot be packed.
#[test]
fn a_build_of_nothing() {
    let context = TestContext::new();
    let words = ["nothing to build from", "app.yaml", "`-t TRACE`", "`--locked LOCK`"];
    refused(&context, &["build", "-o", &docker_archive(&context)], FAILED, &words);
}

/// What it had before nobody knows: tracing again as the same user changes nothing.
#[test]
fn a_program_that_may_not_be_read_and_is_changed() {
    if !needs_root("to become another user") {
        return;
    }
    let context = TestContext::new();
    fs_err::set_permissions(context.path(""), PermissionsExt::from_mode(0o755)).expect("the directory is ours");
    for (number, change) in ["rm -f tool", "chmod u+w tool; echo more >> tool"].into_iter().enumerate() {
        context.lay_out(&[]);
        let tool = context.work().join("tool");
        fs_err::copy("/bin/true", &tool).expect("the directory is ours");
        fs_err::set_permissions(&tool, PermissionsExt::from_mode(0o111)).expect("it is ours");
        outcome_of(limited("chown").args(["-R", "65534:65534", &text(&context.work())])).success();
        fs_err::copy(minjail(), context.path("minjail")).expect("the binary can be copied");
        let minjail = |arguments: &[&str]| {
            let mut command = context.command("runuser");
            command.args(["-u", "nobody", "--", &context.text("minjail")]).args(arguments);
            outcome_of(&mut command)
        };
        let (trace, output) = (text(&context.work().join(format!("{number}.trace"))), context.work().join("out"));
        minjail(&["trace", "-q", "-t", &trace, "--", "sh", "-c", &format!("./tool; {change}")]).success();
        let outcome = minjail(&["build", "-t", &trace, "-o", &format!("rootfs:{}", text(&output))]);
        let words = ["tool` was before the run has changed or removed it", "as a user who may read it", "`--exclude`"];
        outcome.assert_refused(FAILED, &words);
    }
}

#[test]
fn a_file_that_may_not_be_read() {
    if !needs_root("to become another user") {
        return;
    }
    let directory = tempfile::Builder::new().prefix("minjail-").tempdir_in("/var/tmp").expect("it can be written");
    let path = |name: &str| text(&directory.path().join(name));
    for (from, to) in [(minjail(), "minjail"), ("/bin/true", "secret")] {
        outcome_of(limited("cp").args([from, &path(to)])).success();
    }
    fs_err::create_dir(path("out")).expect("the directory is ours");
    for (mode, name) in [("755", ""), ("777", "out"), ("711", "secret")] {
        outcome_of(limited("chmod").args([mode, &path(name)])).success();
    }
    let (out, trace) = (format!("layer:{}", path("out/layer.tar")), path("out/app.trace"));
    let mut command = limited("runuser");
    command.args(["-u", "nobody", "--", &path("minjail"), "trace", "-t", &trace, "-o", &out, "--", &path("secret")]);
    let outcome = outcome_of(command.current_dir(path("out")).env("HOME", path("out")));
    outcome.assert_refused(FAILED, &[&path("secret")]);
    let left: Vec<String> = support::names_in(Path::new(&path("out")));
    assert!(left.iter().all(|name| name == "app.trace"), "something was left behind: {left:?}\n{outcome}");
}

/// Where nobody may look, nobody knows whether there is a program: that it is not there is not what is told.
#[test]
fn a_program_behind_a_closed_door() {
    if !needs_root("to become another user") {
        return;
    }
    let directory = tempfile::Builder::new().prefix("minjail-").tempdir_in("/var/tmp").expect("it can be written");
    let path = |name: &str| text(&directory.path().join(name));
    fs_err::create_dir(path("closed")).expect("the directory is ours");
    for (mode, name) in [("755", ""), ("700", "closed")] {
        outcome_of(limited("chmod").args([mode, &path(name)])).success();
    }
    outcome_of(limited("cp").args([minjail(), &path("minjail")])).success();
    let search_path = format!("PATH={}:/usr/bin:/bin", path("closed"));
    let trace = |program: &str| {
        let mut command = limited("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "env", &search_path, &path("minjail")]);
        outcome_of(command.args(["trace", "-q", "-t", &path("app.trace"), "--", program]).current_dir("/"))
    };
    trace(&path("closed/program")).assert_refused(CANNOT_EXECUTE, &["closed/program", "Permission denied"]);
    trace("no-such-program").assert_refused(NOT_FOUND, &["`no-such-program` was not found in PATH"]);
}

#[test]
fn ptrace_is_forbidden() {
    if !needs_root("bwrap") {
        return;
    }
    let context = TestContext::new();
    // What a container engine's seccomp profile does on old kernels, or a strict one on any.
    let filter = context.path("filter");
    fs_err::write(&filter, filter_that_denies(libc::SYS_ptrace)).expect("the directory is ours");
    let script = "exec bwrap --dev-bind / / --seccomp 9 \"$@\" 9< \"$0\"";
    let out = docker_archive(&context);
    let mut command = context.command("sh");
    command.args(["-c", script, &text(&filter), minjail(), "trace", "-o", &out, "--", "true"]);
    let outcome = outcome_of(&mut command);
    outcome.assert_refused(FAILED, &["ptrace", "SYS_PTRACE"]);
    assert!(!context.path("image.tar").exists(), "{outcome}");
}

#[test]
fn a_program_where_none_may_be_executed() {
    if !needs_root("to mount a file system") {
        return;
    }
    let context = TestContext::new();
    let place = context.text("work");
    let script = "mount -t tmpfs -o noexec none \"$0\" && cp -L /bin/true \"$0\" && exec \"$1\" trace -- \"$0/true\"";
    let mut command = context.command("unshare");
    let outcome = outcome_of(command.args(["-m", "sh", "-c", script, &place, minjail()]));
    outcome.assert_refused(CANNOT_EXECUTE, &[&format!("`{place}/true`"), "noexec", "hint: copy it"]);
}

#[test]
fn user_namespaces_are_unavailable() {
    if !needs_root("the limit on user namespaces") {
        return;
    }
    let context = TestContext::new();
    let out = format!("rootfs:{}", context.text("tree"));
    let trace = context.text("true.trace");
    context.outcome(&["trace", "-t", &trace, "-o", &out, "--", "true"]).success();
    // The limit is the new namespace's own, so that nobody else feels it (user_namespaces(7)).
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"";
    let mut command = context.command("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c", script, "sh", minjail(), "run", &out]);
    outcome_of(&mut command).assert_refused(FAILED, &["user namespace", "max_user_namespaces"]);
}

#[test]
fn the_doctor_finds_what_is_forbidden() {
    if !needs_root("the limit on user namespaces") {
        return;
    }
    let context = TestContext::new();
    let healthy = context.outcome(&["doctor"]).success();
    assert!(healthy.stderr.is_empty(), "{}", healthy.stderr);
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"";
    let mut command = context.command("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c", script, "sh", minjail(), "doctor"]);
    let ill = outcome_of(&mut command);
    assert_eq!(ill.status, 1, "{ill}");
    let told = String::from_utf8_lossy(&ill.stdout).into_owned();
    assert!(
        told.contains("ok  ptrace") && told.contains("fails  jail") && told.contains("max_user_namespaces"),
        "{told}"
    );
}

#[test]
fn the_doctor_says_what_is_bound() {
    if !needs_root("namespaces and no_new_privs of root's") {
        return;
    }
    let context = TestContext::new();
    let cases: [(&[&str], &[&str]); 3] = [
        (&["setpriv", "--no-new-privs"], &["under no_new_privs: setuid programs run without their rights"]),
        (&["unshare", "-Ur"], &["limited  users in a jail  one", "outside this user namespace"]),
        // Its `/proc` is another pid namespace's, in which its numbers are those of strangers.
        (&["unshare", "-pf"], &["fails  ptrace", "fails  jail             `/proc` does not show", "mount -t proc"]),
    ];
    for (wrapper, words) in cases {
        let said = outcome_of(context.command(wrapper[0]).args(&wrapper[1..]).args([minjail(), "doctor"])).text();
        for word in words {
            assert!(said.contains(word), "{wrapper:?}: no {word:?} in {said}");
        }
    }
}

/// A seccomp program, as `bwrap --seccomp` reads it, that answers one call with EPERM and allows the others.
fn filter_that_denies(call: libc::c_long) -> Vec<u8> {
    let call = u32::try_from(call).expect("call numbers are small");
    let program: [(u32, u8, u8, u32); 4] = [
        (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call),
        (libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs()),
        (libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let mut bytes = Vec::new();
    for (code, then, otherwise, value) in program {
        bytes.extend(u16::try_from(code).expect("codes have 16 bits").to_ne_bytes());
        bytes.extend([then, otherwise]);
        bytes.extend(value.to_ne_bytes());
    }
    bytes
}

fn make_executable(path: &Path) {
    fs_err::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("the file is ours");
}

/// Names of files come from anywhere, and a terminal obeys what it is told.
#[test]
fn a_name_that_commands_the_terminal() {
    let context = TestContext::new();
    let out = docker_archive(&context);
    let outcome = refused(
        &context,
        &["build", "no\u{1b}[2Jtrace\u{9b}1m", "-o", &out],
        FAILED,
        &["`no\\x1b[2Jtrace\\xc2\\x9b1m"],
    );
    assert!(!outcome.stderr.contains(['\u{1b}', '\u{9b}']), "{outcome}");
}

#[test]
fn a_time_longer_than_any_clock_goes() {
    let context = TestContext::new();
    let long = u64::MAX;
    let profile = format!(
        "workloads:\n  true:\n    run: [/bin/true]\n    timeout: {long}\n    grace: {long}\n    ready: {{after: {long}}}\n"
    );
    context.lay_out(&[("long.yaml", &profile)]);
    let output = format!("rootfs:{}", context.text("rootfs"));
    let built = context.outcome(&["build", "long.yaml", "-o", &output]);
    assert!(!built.stderr.contains("panicked"), "{built}");
    let slim = ["slim", &output, "--for", &format!("{long}s"), "-o", &format!("rootfs:{}", context.text("slim"))];
    let slimmed = context.outcome(&slim);
    assert!(!slimmed.stderr.contains("panicked"), "{slimmed}");
}

/// A run may take hours: what cannot be written is refused before it.
#[test]
fn what_cannot_be_written_is_refused_before_the_run() {
    let context = TestContext::new();
    let at = |form: &str, name: &str| format!("{form}:{}", context.text(name));
    let (tar, lock) = (context.text("app.tar"), context.text("app.lock"));
    let ran = text(&context.work().join("ran"));
    let spelled = format!("oci:{}/../x", text(&context.work()));
    let slashed = context.text("slashed/");
    let cases: [(&[&str], &str); 8] = [
        (&["-o", &at("docker-archive", "app.tar"), "-o", &at("oci-archive", "app.tar")], "two outputs go to"),
        (&["-o", &at("oci", "x:one"), "-o", &at("oci", "x:two")], "two outputs go to"),
        (&["-o", &at("oci", "x"), "-o", &spelled], "two outputs go to"),
        (&["-o", "docker-archive:-", "-o", "layer:-"], "two outputs go to standard output"),
        (&["-o", &at("layer", "app/")], "names no file"),
        (&["-o", &at("layer", "app.tar"), "--lock", &slashed], "is the name of a directory"),
        (&["-o", &at("layer", "app.tar"), "--lock", &tar], "two outputs go to"),
        (&["-o", &at("layer", "app.lock"), "--lock", &lock], "two outputs go to"),
    ];
    for (outputs, words) in cases {
        let arguments = [&["trace", "-t", "x.trace"], outputs, &["--", "touch", &ran]].concat();
        refused(&context, &arguments, FAILED, &[words]);
    }
    let mut not_text = context.minjail(&["trace", "-t", "x.trace", "-o", &at("oci", "x"), "--", "touch", &ran]);
    outcome_of(not_text.arg(std::ffi::OsStr::from_bytes(b"\xff"))).assert_refused(FAILED, &["`\\xff` is not UTF-8"]);
    refused(&context, &["init", "-o", "/no/dir/x.yaml", "--", "touch", &ran], FAILED, &["no directory `/no/dir`"]);
    refused(&context, &["init", "-o", &slashed, "--", "touch", &ran], FAILED, &["is the name of a directory"]);
    assert!(!Path::new(&ran).exists());
}

/// As [`refused`], where the command line itself is at fault.
fn misused(context: &TestContext, arguments: &[&str], words: &[&str]) {
    let before = context.listing();
    let outcome = context.outcome(arguments);
    assert_eq!((outcome.status, outcome.text().as_str()), (FAILED, ""), "{outcome}");
    let told = ["error: ", "--help"].iter().chain(words).all(|word| outcome.stderr.contains(word));
    assert!(told && context.listing() == before, "{words:?}\n{outcome}");
}

/// What is asked of an image where there is none.
#[test]
fn an_option_that_would_come_to_nothing() {
    let context = TestContext::new();
    let (trace, out) = (context.text("app.trace"), format!("oci:{}", context.text("image")));
    let ran = text(&context.work().join("ran"));
    let of_images: &[&[&str]] = &[
        &["--lock", "x.lock"],
        &["--compression", "zstd"],
        &["--layers", "packages"],
        &["--mtime", "fixed"],
        &["--include", "/etc/hosts"],
        &["--exclude", "/etc/hosts"],
        &["--stat-only", "omit"],
        &["--listing", "full"],
        &["--accounts", "full"],
        &["--rule", "tz-all=on"],
        &["--allow-secret", "/etc/shadow"],
    ];
    for option in of_images {
        let arguments = [&["trace", "-t", &trace], *option, &["--", "touch", &ran]].concat();
        misused(&context, &arguments, &["--output <OUT>"]);
    }
    context.outcome(&["trace", "-q", "-t", &trace, "-o", &out, "--", "cat", "/etc/debian_version"]).success();
    let lock = context.text("image.lock");
    let again = format!("layer:{}", context.text("again"));
    let of_proofs: &[&[&str]] =
        &[&["--verify-with", "podman"], &["--no-verify"], &["--until-stable", "2"], &["--repair"], &["--keep-failed"]];
    for option in of_proofs {
        let arguments = [&["build", "--locked", &lock, "-o", &again], *option].concat();
        misused(&context, &arguments, &[option[0], "cannot be used with"]);
    }
    let choices: [&[&str]; 4] =
        [&["--include", "/etc/hosts"], &["--exclude", "/etc"], &["--accounts", "full"], &["--allow-secret", "/x"]];
    for option in choices {
        let arguments = [&["build", "--locked", &lock, "-o", &again], option].concat();
        refused(&context, &arguments, FAILED, &["the lock says already", "hint: leave `--include`"]);
    }
    fs_err::write(context.path("Dockerfile"), "FROM x\nCMD [\"/bin/true\"]\n").expect("the directory is ours");
    let origins = [["--image", &out], ["--dockerfile", &context.text("Dockerfile")]];
    let of_runs: &[&[&str]] = &[&["--env", "A=B"], &["--user", "1"], &["--workdir", "/"], &["--grace", "1s"]];
    for option in of_runs {
        for origin in &origins {
            let arguments = [&["init", "-o", "-"], &origin[..], *option].concat();
            misused(&context, &arguments, &[option[0], "cannot be used with"]);
        }
    }
    misused(&context, &["init", "--platform", "linux/arm64", "--", "touch", &ran], &["cannot be used with"]);
    let tree = format!("rootfs:{}", context.text("tree"));
    context.outcome(&["unpack", "-q", &out, "-o", &tree]).success();
    let directory = context.text("tree");
    let of_directories: [&[&str]; 5] = [
        &["run", &tree],
        &["slim", &tree, "-o", &again, "--entrypoint", "/usr/bin/cat"],
        &["check", &tree],
        &["check", &directory, "--lock", &lock],
        &["diff", &tree, &lock],
    ];
    let of_layers: [&[&str]; 3] = [&["--platform", "linux/amd64"], &["--max-size", "1G"], &["--max-entries", "1000"]];
    for (arguments, option) in of_directories.iter().flat_map(|command| of_layers.map(|option| (*command, option))) {
        let words = ["no image is read", "hint: leave `--platform`"];
        refused(&context, &[arguments, option].concat(), FAILED, &words);
    }
    let profile = context.text("app.yaml");
    fs_err::write(&profile, "workloads:\n  main: {run: [/usr/bin/cat, /etc/debian_version]}\n").expect("it is ours");
    let verify = ["verify", &out, "-p", &profile];
    misused(&context, &[&verify[..], &["--include", "/etc"]].concat(), &["--output <OUT>"]);
    let of_tree = ["verify", &tree, "-p", &profile, "--max-size", "1G"];
    refused(&context, &of_tree, FAILED, &["no image is read", "hint: leave `--platform`"]);
    refused(&context, &[&verify[..], &["--json"]].concat(), FAILED, &["no summary unless it repairs"]);
    assert!(!Path::new(&ran).exists());
}

/// What is read stays as it is.
#[test]
fn an_output_in_the_place_of_what_is_read() {
    let context = TestContext::new();
    let (trace, out) = (context.text("app.trace"), format!("oci:{}", context.text("image")));
    context.outcome(&["trace", "-q", "-t", &trace, "-o", &out, "--", "cat", "/etc/debian_version"]).success();
    let (profile, lock) = (context.text("app.yaml"), context.text("image.lock"));
    fs_err::write(&profile, "workloads:\n  main: {run: [/usr/bin/cat, /etc/debian_version]}\n").expect("it is ours");
    let (other, over) = (format!("oci:{}", context.text("other")), format!("layer:{profile}"));
    let records = context.text("app.trace/trace.jsonl");
    let (in_lock, in_trace) = (format!("layer:{lock}"), format!("oci:{trace}/image"));
    let cases: [(&[&str], &str); 8] = [
        (&["build", &profile, "-o", &over], "is the input itself"),
        (&["build", &profile, "-o", &other, "--lock", &profile], "is the input itself"),
        (&["slim", &out, "-p", &profile, "-o", &other, "--lock", &profile], "is the input itself"),
        (&["verify", &out, "-p", &profile, "--repair", "-o", &over], "is the input itself"),
        (&["build", "-t", &trace, "-o", &other, "--lock", &records], "lies in the input"),
        (&["build", "-t", &trace, "-o", &in_trace], "lies in the input"),
        (&["build", "--locked", &lock, "-o", &in_lock], "is the input itself"),
        (&["trace", "-t", &trace, "-o", &in_trace, "--", "true"], "one would take the other's place"),
    ];
    let read = |path: &str| fs_err::read(path).expect("it is there");
    let before = [&profile, &records, &lock].map(|path| read(path));
    for (arguments, words) in cases {
        let end = arguments.iter().position(|word| *word == "--").unwrap_or(arguments.len());
        let (options, program) = arguments.split_at(end);
        refused(&context, &[options, &["--force"], program].concat(), FAILED, &[words, "hint: give the"]);
        assert_eq!([&profile, &records, &lock].map(|path| read(path)), before, "{arguments:?}");
    }
}

/// The machine itself is none of the directories that are packed or run.
#[test]
fn a_jail_of_the_machine_itself() {
    let context = TestContext::new();
    let (profile, out) = (context.text("app.yaml"), format!("oci:{}", context.text("image")));
    fs_err::write(&profile, "workloads:\n  main: {run: [/usr/bin/true]}\n").expect("it is ours");
    let cases: [&[&str]; 4] = [
        &["run", "rootfs:/", "--", "/usr/bin/true"],
        &["verify", "rootfs:/", "-p", &profile],
        &["slim", "rootfs:/", "-o", &out, "--", "/usr/bin/true"],
        &["trace", "--root", "/", "--", "/usr/bin/true"],
    ];
    for arguments in cases {
        refused(&context, arguments, FAILED, &["it is the host's own root", "hint: `minjail trace -o OUT -- CMD`"]);
    }
    let image = ["init", "--image", "rootfs:/", "-o", "-"];
    refused(&context, &image, FAILED, &["`/` is a directory, and does not say", "hint: name an image"]);
}

/// Wherever it strikes, the limit is named, and how it is raised.
#[test]
fn few_open_files() {
    let context = TestContext::new();
    let (trace, out) = (context.text("app.trace"), format!("oci:{}", context.text("image")));
    context.outcome(&["trace", "-q", "-t", &trace, "-o", &out, "--", "cat", "/etc/debian_version"]).success();
    let (profile, other) = (context.text("app.yaml"), context.text("other"));
    fs_err::write(&profile, "workloads:\n  main: {run: [/usr/bin/cat, /etc/debian_version]}\n").expect("it is ours");
    let output = format!("rootfs:{other}");
    let cases: [&[&str]; 6] = [
        &["build", &profile, "-q", "-o", &output],
        &["build", "-t", &trace, "-q", "-o", &output],
        &["verify", &out, "-q", "-p", &profile],
        &["slim", &out, "-q", "-o", &output],
        &["unpack", &out, "-q", "-o", &output],
        &["trace", "-t", &context.text("again.trace"), "-q", "-o", &output, "--", "cat", "/etc/debian_version"],
    ];
    for arguments in cases {
        let mut refused = 0;
        for most in (6..24).step_by(2) {
            let _ = fs_err::remove_dir_all(&other).and(fs_err::remove_file(format!("{other}.lock")));
            let script = format!("ulimit -n {most}; exec \"$@\"");
            let mut command = context.command("sh");
            let outcome = outcome_of(command.args(["-c", &script, "sh", minjail()]).args(arguments));
            if outcome.status != 0 {
                refused += 1;
                assert_eq!(outcome.text(), "", "{most}: {outcome}");
                for word in ["error: ", "hint: allow more open files with `ulimit -n`"] {
                    assert!(outcome.stderr.contains(word), "{most}: {word}: {outcome}");
                }
                assert!(!Path::new(&other).exists(), "{most}: {outcome}");
            }
        }
        assert!((1..9).contains(&refused), "{refused}: {arguments:?}");
    }
}

/// A run may take hours.
#[test]
fn what_would_stand_in_the_way_is_told_before_the_run() {
    let context = TestContext::new();
    let ran = text(&context.work().join("ran"));
    let (trace, tar) = (context.text("app.trace"), context.text("app.tar"));
    let (out, long) = (format!("docker-archive:{tar}"), "x".repeat(256));
    fs_err::create_dir(context.path("directory")).expect("it is ours");
    let directory = context.text("directory");
    let at = |form: &str, path: &str| format!("{form}:{path}");
    let cases: [(&[&str], &str); 10] = [
        (&["-t", &tar, "-o", &out], "the other's place"),
        (&["-t", &format!("{tar}.lock"), "-o", &out], "the other's place"),
        (&["-t", &trace, "-o", &out, "--lock", &trace], "the other's place"),
        (&["-t", &trace, "-o", &out, "--lock", &directory, "--force"], "it is no file"),
        (&["-t", &trace, "-o", &out, "--lock", "/dev/null", "--force"], "it is no file"),
        (&["-t", &trace, "-o", &at("layer", &directory), "--force"], "it is no file"),
        (&["-t", &trace, "-o", &at("rootfs", "/dev/null"), "--force"], "it is no directory"),
        (&["-t", &long], "too long"),
        (&["-t", "-"], "a trace is a directory"),
        (&["-t", &trace, "-o", &at("oci", &long)], "too long"),
    ];
    for (arguments, words) in cases {
        refused(&context, &[&["trace"], arguments, &["--", "touch", &ran]].concat(), FAILED, &[words, "hint: "]);
        assert!(!Path::new(&ran).exists(), "{arguments:?}");
    }
    // A program's own name may be too long for its trace.
    let program = context.work().join("x".repeat(252));
    fs_err::copy("/usr/bin/touch", &program).expect("it is ours");
    refused(&context, &["trace", "--", &text(&program), &ran], FAILED, &["too long"]);
    let script =
        format!("mkdir gone && cd gone && rmdir ../gone && exec {} trace --workdir / -- touch {ran}", minjail());
    let gone = outcome_of(context.command("sh").args(["-c", &script]));
    gone.assert_refused(FAILED, &["`touch.trace`", "hint: "]);
    assert!(!Path::new(&ran).exists());
}

#[test]
fn an_answer_that_nobody_can_get() {
    let context = TestContext::new();
    for command in ["profile list", "rules", "--help", "--version"] {
        let line = format!("{} {command} >&-", minjail());
        let outcome = outcome_of(context.command("sh").args(["-c", &line]));
        outcome.assert_refused(FAILED, &["failed to write to standard output"]);
    }
}

/// What an earlier build has left is told before the workloads run.
#[test]
fn a_failed_tree_that_is_there_already() {
    let context = TestContext::new();
    let (profile, ran) = (context.text("app.yaml"), text(&context.work().join("ran")));
    fs_err::write(&profile, format!("workloads:\n  main: {{run: [/usr/bin/touch, {ran}]}}\n")).expect("it is ours");
    fs_err::create_dir(context.path("image.failed")).expect("it is ours");
    let out = format!("oci:{}", context.text("image"));
    let words = [&context.text("image.failed"), "exists already", "hint: remove what an earlier build"];
    refused(&context, &["build", &profile, "-o", &out, "--keep-failed"], FAILED, &words);
}
