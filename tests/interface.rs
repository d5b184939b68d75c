//! What `minjail trace` lets through and what it writes about a program: the streams, the status, the user, the
//! directory, the variables, and an image's configuration and names.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use support::podman::Podman;
use support::{TestContext, has, minjail, needs_root, outcome_of, outcome_with_input, text};

#[test]
fn the_streams_and_the_status_are_the_programs_own() {
    let context = TestContext::new();
    for (script, status) in [("cat; echo words >&2; exit 7", 7), ("cat; echo words >&2; kill -TERM $$", 143)] {
        let mut command = context.minjail(&["trace", "--quiet", "--force", "--", "sh", "-c", script]);
        let outcome = outcome_with_input(&mut command, b"some\0bytes\xff\n");
        assert_eq!(outcome.status, status, "{outcome}");
        assert_eq!(outcome.stdout, b"some\0bytes\xff\n", "{outcome}");
        // All of minjail's words go to standard error, and with --quiet it has none.
        assert_eq!(outcome.stderr, "words\n", "{outcome}");
    }
}

#[test]
fn the_summary_speaks_to_people_and_to_programs() {
    let context = TestContext::new();
    let out = |name: &str| format!("layer:{}", context.text(name));
    let (trace, first, second) = (context.text("cat.trace"), out("first.tar"), out("second.tar"));
    let command = ["trace", "-t", &trace, "-o", &first, "--", "cat", "/etc/debian_version"];
    let people = context.outcome(&command).success();
    for words in ["files", "libc.so.6", &context.text("first.tar")] {
        assert!(people.stderr.contains(words), "the summary lacks {words:?}\n{people}");
    }
    assert!(!people.stderr.contains('\x1b'), "colours are for terminals\n{people}");

    let command = ["trace", "--json", "--force", "-t", &trace, "-o", &second, "--", "cat", "/etc/debian_version"];
    let programs = context.outcome(&command).success();
    assert_eq!(programs.stdout, people.stdout, "{programs}");
    let summary: Result<serde_json::Value, _> = serde_json::from_str(&programs.stderr);
    assert!(summary.is_ok_and(|summary| summary.is_object()), "the summary is not one JSON object\n{programs}");
}

/// Executes its arguments in an environment such as no shell makes.
const ODD: &str = r#"
import ctypes, sys
array = lambda texts: (ctypes.c_char_p * (len(texts) + 1))(*texts, None)
arguments = [text.encode() for text in sys.argv[1:]]
entries = [b"Z=1", b"A=2", b"A=3", b"none", b"", b"=lead", b"PATH=/usr/bin:/bin", b"B\xff=\xfe", b"C=a=b"]
ctypes.CDLL(None).execve(arguments[0], array(arguments), array(entries))
"#;

#[test]
fn the_environment_is_passed_as_it_is() {
    let context = TestContext::new();
    let run = |arguments: &[&str]| outcome_of(context.command("python3").args(["-c", ODD]).args(arguments)).success();
    let trace = context.text("odd.trace");
    let environment = ["/bin/cat", "/proc/self/environ"];
    let traced =
        |more: &[&str]| run(&[&[minjail(), "trace", "-q", "-t", &trace], more, &["--"], &environment[..]].concat());
    let native = run(&environment);
    assert!(native.stdout.starts_with(b"Z=1\0A=2\0A=3\0none\0\0=lead\0"), "{native}");
    traced(&[]).assert_same_as(&native);
    traced(&["--env", "Z"]).assert_same_as(&native);
    let changed = traced(&["--env", "A=4", "--env", "D=5"]);
    assert!(changed.stdout.starts_with(b"Z=1\0A=4\0none\0\0=lead\0"), "{changed}");
    assert!(changed.stdout.ends_with(b"C=a=b\0D=5\0"), "{changed}");
}

#[test]
fn the_configuration_is_what_the_run_had() {
    if !needs_root("podman") {
        return;
    }
    let context = TestContext::new();
    let image = format!("oci:{}:1", context.text("image"));
    let script = "pwd; id -u; id -g; echo $COLOUR $LC_ALL $TZ";
    let mut command = context.minjail(&["trace", "-t", &context.text("sh.trace"), "-o", &image]);
    command.args(["--user", "1:12", "--workdir", "/usr/share", "--env", "COLOUR=green", "--", "sh", "-c", script]);
    command.env("LC_ALL", "C.UTF-8").env("TZ", "Asia/Tokyo").env("PASSWORD", "hunter2");
    let traced = outcome_of(command.env("SOURCE_DATE_EPOCH", "86400")).success();
    assert_eq!(traced.text(), "/usr/share\n1\n12\ngreen C.UTF-8 Asia/Tokyo\n", "{traced}");

    let podman = Podman::new();
    let id = podman.pull(&context, &image);
    podman.run(&id).assert_same_as(&traced);
    context.outcome(&["run", &image]).assert_same_as(&traced);

    let inspected = podman.inspect(&id);
    assert_eq!(inspected["Created"], "1970-01-02T00:00:00Z", "{inspected}");
    assert_eq!(inspected["Architecture"], if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" });
    assert_eq!(inspected["Os"], "linux");
    let config = &inspected["Config"];
    assert_eq!((&config["User"], &config["WorkingDir"]), (&"1:12".into(), &"/usr/share".into()), "{config}");
    let variables: Vec<&str> =
        config["Env"].as_array().expect("there are variables").iter().filter_map(|one| one.as_str()).collect();
    assert!(variables.contains(&"COLOUR=green") && variables.contains(&"TZ=Asia/Tokyo"), "{variables:?}");
    assert!(!config.to_string().contains("hunter2"), "a variable that nobody named is in the image: {config}");
    let labels = config["Labels"].to_string();
    assert!(labels.contains("minjail") && labels.contains(env!("CARGO_PKG_VERSION")), "{labels}");
}

#[test]
fn the_index_names_the_image_for_podman_and_containerd() {
    let context = TestContext::new();
    let image = format!("oci:{}:first", context.text("image"));
    let trace = context.text("true.trace");
    context.outcome(&["trace", "-t", &trace, "-o", &image, "--", "true"]).success();
    let index = fs_err::read(context.path("image/index.json")).expect("a layout has an index");
    let index: serde_json::Value = serde_json::from_slice(&index).expect("the index is JSON");
    let names = &index["manifests"][0]["annotations"];
    assert_eq!(names["org.opencontainers.image.ref.name"], "first", "{names}");
    assert!(names["io.containerd.image.name"].as_str().is_some_and(|name| name.ends_with(":first")), "{names}");
}

/// What a user, an umask and a working directory of another kind do to the bytes: nothing.
#[test]
fn the_image_does_not_depend_on_who_builds_it() {
    if !needs_root("to become another user") {
        return;
    }
    let context = TestContext::new();
    let trace = context.text("cat.trace");
    context.outcome(&["trace", "-t", &trace, "--", "cat", "/etc/debian_version"]).success();
    let directory = tempfile::Builder::new().prefix("minjail-").tempdir_in("/var/tmp").expect("it can be written");
    let path = |name: &str| text(&directory.path().join(name));
    let copies = "cp \"$1\" \"$0/minjail\" && cp -r \"$2\" \"$0/cat.trace\" && chown -R nobody \"$0\"";
    outcome_of(context.command("sh").args(["-c", copies, &path(""), minjail(), &trace])).success();

    let first = context.text("first.tar");
    context.outcome(&["build", "-t", &trace, "-o", &format!("layer:{first}")]).success();
    let script = "umask 077; cd \"$0\"; exec env LANG=C TZ=Asia/Tokyo ./minjail build -t cat.trace -o layer:second.tar";
    outcome_of(context.command("runuser").args(["-u", "nobody", "--", "sh", "-c", script, &path("")])).success();
    let (first, second) = (fs_err::read(first).expect("it was built"), fs_err::read(path("second.tar")));
    assert!(first == second.expect("it was built"), "another user built other bytes");
}

/// The tracer is root and the program is not: what the program was refused is packed as a closed door, not as a file.
#[test]
fn nothing_is_read_with_more_rights_than_the_users() {
    if !needs_root("to become another user") {
        return;
    }
    let context = TestContext::new();
    let work = context.text("work");
    context.lay_out(&[
        ("open.txt", "for all\n"),
        ("secret.txt", "for root\n"),
        ("closed/inside.txt", "behind a door\n"),
    ]);
    let script = "cat open.txt; cat secret.txt; cat closed/inside.txt; ls -l secret.txt >/dev/null; exit 0";
    for (name, mode) in [("open.txt", 0o644), ("secret.txt", 0o600), ("closed", 0o700), ("closed/inside.txt", 0o644)] {
        let permissions = PermissionsExt::from_mode(mode);
        fs_err::set_permissions(format!("{work}/{name}"), permissions).expect("the files are ours");
    }
    let (tree, trace) = (context.text("tree"), context.text("sh.trace"));
    let out = format!("rootfs:{tree}");
    let arguments = ["trace", "--user", "65534:65534", "-t", &trace, "-o", &out, "--", "sh", "-c", script];
    let traced = context.outcome(&arguments).success();
    assert_eq!(traced.stdout, b"for all\n");
    let read = |name: &str| fs_err::read_to_string(format!("{tree}{work}/{name}"));
    assert_eq!(read("open.txt").expect("it was read"), "for all\n");
    assert_eq!(read("secret.txt").expect("its name is there"), "");
    assert!(read("closed/inside.txt").is_err());
    let inside = context.outcome(&["run", "--quiet", &out]).success();
    assert_eq!(inside.stdout, traced.stdout);
    let refusals = |stderr: &str| stderr.matches("Permission denied").count();
    assert_eq!((refusals(&traced.stderr), refusals(&inside.stderr)), (2, 2), "{}", inside.stderr);
}

/// The variables by which interpreters find their modules go with the image; others stay, and so do secrets.
#[test]
fn where_modules_are_found_goes_with_the_image() {
    let context = TestContext::new();
    let modules = context.path("modules");
    fs_err::create_dir(&modules).unwrap();
    fs_err::write(modules.join("colours.py"), "import os; print('red', os.environ.get('HUE'))\n").unwrap();
    let image = format!("rootfs:{}", context.text("root"));
    let mut command = context.minjail(&["trace", "-q", "-t", &context.text("app.trace"), "-o", &image]);
    command.args(["--", "/usr/bin/python3", "-m", "colours"]).env("PYTHONPATH", &modules).env("HUE", "0");
    assert_eq!(outcome_of(&mut command).success().text(), "red 0\n");
    assert_eq!(context.outcome(&["run", &image]).success().text(), "red None\n");
}

/// A program sees the name by which it was called, and says it.
#[test]
fn a_program_has_the_name_that_was_typed() {
    let context = TestContext::new();
    context.lay_out(&[("tool", "#!/bin/sh\necho $0\n"), ("d/tool", "#!/bin/sh\necho $0\n")]);
    for name in ["tool", "d/tool"] {
        fs_err::set_permissions(context.work().join(name), PermissionsExt::from_mode(0o755)).unwrap();
    }
    let (work, path) = (context.text("work"), format!("d:/usr/bin:{}", context.text("work/d")));
    for (number, (typed, arguments, path, entrypoint)) in [
        ("sh", &["-c", "echo $0; nonesuch; exit 3"][..], "/none:/usr/sbin:/usr/bin", "sh"),
        ("./tool", &[], "/usr/bin", "./tool"),
        ("d/../tool", &[], "/usr/bin", &format!("{work}/tool")),
        ("/bin/sh", &["-c", "echo $0; nonesuch; exit 3"], "/usr/bin", "/bin/sh"),
        // Not by a relative directory of PATH, which engines refuse.
        ("tool", &[], &path, &format!("{work}/d/tool")),
    ]
    .into_iter()
    .enumerate()
    {
        let image = format!("rootfs:{}", context.text(&number.to_string()));
        let mut command = context.minjail(&["trace", "-q", "-t", &context.text("app.trace"), "-o", &image]);
        let traced = outcome_of(command.args(["--", typed]).args(arguments).env("PATH", path));
        let lock = fs_err::read(context.path(&format!("{number}.lock"))).unwrap();
        let lock: serde_json::Value = serde_json::from_slice(&lock).unwrap();
        assert_eq!(lock["config"]["entrypoint"], serde_json::json!([entrypoint]), "{typed}");
        let inside = context.outcome(&["run", "-q", &image]);
        if typed == entrypoint {
            inside.assert_same_as(&traced);
        }
    }
}

/// The description of the terminal is there, and so is the terminal's name.
#[test]
fn the_terminal_that_a_program_looked_up_goes_with_the_image() {
    if !has(&["tput"]) {
        return;
    }
    let context = TestContext::new();
    let image = format!("rootfs:{}", context.text("image"));
    let mut command = context.minjail(&["trace", "-q", "-t", &context.text("app.trace"), "-o", &image]);
    let traced = outcome_of(command.args(["--", "tput", "cols"]).env("TERM", "xterm")).success();
    context.outcome(&["run", "-q", &image]).assert_same_as(&traced);
}

/// A variable of its own by which a program found its data is not in the image unbidden, and it is told which.
#[test]
fn a_variable_that_names_what_the_run_used_is_told() {
    let context = TestContext::new();
    let data = context.path("data");
    fs_err::create_dir(&data).unwrap();
    fs_err::write(data.join("words"), "words\n").unwrap();
    let trace = |name: &str, more: &[&str]| {
        let image = format!("rootfs:{}", context.text(name));
        let mut command = context.minjail(&["trace", "-t", &context.text("app.trace"), "--force", "-o", &image]);
        command.args(more).args(["--", "/bin/sh", "-c", "cat \"$APP_DATA/words\""]);
        command.env("APP_DATA", &data).env("UNUSED", "/srv/none").env("OLDPWD", "/usr/bin");
        (outcome_of(&mut command).success(), context.outcome(&["run", "-q", &image]))
    };
    let (traced, inside) = trace("without", &[]);
    assert_eq!(inside.status, 1, "{inside}");
    let told = format!("the run used {}/words, which the variable APP_DATA names", data.display());
    assert!(traced.stderr.contains(&told) && traced.stderr.contains("`--env APP_DATA`"), "{traced}");
    assert!(!traced.stderr.contains("UNUSED") && !traced.stderr.contains("OLDPWD"), "{traced}");
    let (traced, inside) = trace("with", &["--env", "APP_DATA"]);
    assert!(!traced.stderr.contains("APP_DATA names"), "{traced}");
    assert_eq!(inside.success().text(), "words\n");
}

/// What several variables name is told of once.
#[test]
fn variables_that_name_the_same_are_told_together() {
    let context = TestContext::new();
    let data = context.path("data");
    fs_err::create_dir(&data).unwrap();
    fs_err::write(data.join("words"), "words\n").unwrap();
    let image = format!("rootfs:{}", context.text("image"));
    let mut command =
        context.minjail(&["trace", "-t", &context.text("app.trace"), "-o", &image, "--", "/bin/sh", "-c"]);
    let traced = outcome_of(command.arg("cat \"$APP_DATA/words\"").env("APP_DATA", &data).env("APP_HOME", &data));
    let words = format!("{}/words", data.display());
    let told = format!(
        "the run used {words}, which the variables APP_DATA, APP_HOME name; the image gets them by `--env APP_DATA --env APP_HOME`"
    );
    let traced = traced.success();
    assert!(traced.stderr.contains(&told) && traced.stderr.matches(&words).count() == 1, "{traced}");
}

/// What the run executed by `SHELL` is found by it in the jail too; what no run used is no shell that the image has.
#[test]
fn the_shell_that_a_program_runs_commands_by_goes_with_the_image() {
    let context = TestContext::new();
    for (name, script, there) in [
        ("used", r#"exec "$SHELL" -c 'echo "${BASH:+hi} $SHELL"'"#, "hi /bin/bash\n"),
        ("unused", "echo ${SHELL:-none}", "none\n"),
    ] {
        let image = format!("rootfs:{}", context.text(name));
        let mut command = context.minjail(&["trace", "-q", "-t", &context.text("app.trace"), "-o", &image]);
        command.args(["--", "/bin/sh", "-c", script]).env("SHELL", "/bin/bash");
        assert!(outcome_of(&mut command).success().text().contains("/bin/bash"));
        assert_eq!(context.outcome(&["run", &image]).success().text(), there);
    }
}

/// Paths longer than `PATH_MAX`, which a program reaches one directory at a time: what lies there is read, rewritten and
/// listed, and the image has it as it was.
#[test]
fn files_deeper_than_a_path_can_say() {
    let context = TestContext::new();
    let top = context.path("top");
    fs_err::create_dir(&top).unwrap();
    let dig = "import os, sys\nos.chdir(sys.argv[1])\nfor _ in range(30): os.path.isdir('n' * 200) or os.mkdir('n' * 200); os.chdir('n' * 200)\n";
    let make = format!("{dig}open('file', 'w').write('before')\n");
    outcome_of(Command::new("/usr/bin/python3").args(["-c", &make]).arg(&top)).success();
    let change = format!("{dig}print(open('file').read(), os.listdir('.'))\nopen('file', 'w').write('after')\n");
    let image = format!("layer:{}", context.text("layer.tar"));
    let tree = format!("rootfs:{}", context.text("root"));
    let mut command = context.minjail(&["trace", "-q", "-t", &context.text("app.trace"), "-o", &image, "-o", &tree]);
    let traced = outcome_of(command.args(["--", "/usr/bin/python3", "-c", &change]).arg(&top)).success();
    assert_eq!(traced.text(), "before ['file']\n");
    context.outcome(&["run", &tree]).assert_same_as(&traced);
    // Not by its own destructor, which hands whole paths to the kernel.
    outcome_of(Command::new("rm").arg("-rf").arg(&top).arg(context.path("root"))).success();
}

/// What was asked for is an answer, also where nothing can be written; a pipe that nobody reads is not.
#[test]
fn an_answer_that_cannot_be_written() {
    let context = TestContext::new();
    for command in ["rules", "profile list", "profile show redis", "profile schema", "doctor", "--help", "trace --help"]
    {
        let run = |to: &str| {
            let script = format!("exec {} {command} {to}", minjail());
            outcome_of(context.command("bash").args(["-c", &script]))
        };
        let full = run("> /dev/full");
        full.assert_refused(125, &["failed to write to standard output", "hint: make room"]);
        let closed = run("> >(exec true) 2>&1; wait");
        assert_ne!(closed.status, 125, "{command}: {closed}");
    }
}

/// As where a directory is the root of a machine, or of a container that runs.
#[test]
fn what_the_kernel_makes_up_in_a_directory_is_not_compared() {
    if !needs_root("to mount") {
        return;
    }
    let context = TestContext::new();
    let (tree, named) = (context.text("tree"), format!("rootfs:{}", context.text("tree")));
    context.outcome(&["trace", "-q", "-o", &named, "--", "cat", "/etc/debian_version"]).success();
    let script = "mount -t proc proc \"$1/proc\" && echo > \"$1/net\" && mount --bind /proc/self/ns/net \"$1/net\" && shift && exec \"$@\"";
    let mut command = context.command("unshare");
    command.args(["--mount", "sh", "-c", script, "sh", &tree, minjail(), "diff", &named, &named]);
    outcome_of(&mut command).success();
}

/// A directory for temporary files that is not there is not the output's.
#[test]
fn where_temporary_files_cannot_be_the_variable_is_named() {
    let context = TestContext::new();
    let image = format!("oci:{}", context.text("image"));
    context.outcome(&["trace", "-q", "-o", &image, "--", "cat", "/etc/debian_version"]).success();
    for arguments in [&["run", "--no-cache", &image][..], &["unpack", &image, "-o", "rootfs:tree"]] {
        let mut command = context.minjail(arguments);
        outcome_of(command.env("TMPDIR", "/nope")).assert_refused(125, &["`/nope`", "hint: set TMPDIR"]);
    }
}

/// A summary that looks as ever would hide that half of the run is missing.
#[test]
fn a_program_that_fails_is_told_of() {
    let context = TestContext::new();
    let run = |script: &str| context.outcome(&["trace", "--force", "-t", "x", "--", "sh", "-c", script]);
    assert!(!run("exit 0").stderr.contains("note: the program"));
    assert!(run("exit 3").stderr.contains("note: the program ended with status 3: what it would have used later"));
    assert!(
        run("kill -SEGV $$").stderr.contains("note: the program was killed by SIGSEGV: what it would have used later")
    );
}

#[test]
fn a_file_that_is_no_lock_is_named() {
    let context = TestContext::new();
    context.lay_out(&[("file", "hello")]);
    for arguments in [&["why", "file", "/x"][..], &["diff", "file", "file"]] {
        context.outcome(arguments).assert_refused(125, &["`file` is no lock"]);
    }
}
