//! What a trace cannot see is counted in it, told, and keeps an image from being made unless the user says otherwise.

mod support;

use std::os::unix::fs::PermissionsExt;

use support::{TestContext, needs_root, outcome_of};

/// Traces a hazard: its gap is in the trace and keeps the image away, but not with `--allow-gaps`.
#[track_caller]
fn is_counted(hazard: &str, arguments: &[&str], gap: &str, sentence: &str) {
    let context = TestContext::new();
    let program = context.hazard(hazard);
    let output = format!("docker-archive:{}", context.text("image.tar"));
    let run = |more: &[&str]| {
        // Each run starts from an empty directory.
        context.lay_out(&[]);
        let mut command = context.minjail(&["trace", "--force", "-t", &context.text("app.trace"), "-o", &output]);
        outcome_of(command.args(more).args(["--", &program]).args(arguments))
    };
    let mut refused = run(&[]);
    // A race that the program does not win on a busy machine is no gap: then it tries again.
    for _ in 0..20 {
        if refused.status != 0 {
            break;
        }
        fs_err::remove_file(context.path("image.tar")).expect("it was built");
        refused = run(&[]);
    }
    assert_eq!(refused.status, 125, "{refused}");
    assert!(refused.stderr.contains(sentence) && refused.stderr.contains("--allow-gaps"), "{refused}");
    assert!(refused.stderr.contains(&format!(", by {program})")), "it is said who met it: {refused}");
    assert!(!context.path("image.tar").exists(), "no image is made of it");
    let records = fs_err::read_to_string(context.path("app.trace/trace.jsonl")).expect("the trace is kept");
    let end = records.lines().last().unwrap_or_default();
    assert!(end.contains(&format!(r#""gaps":{{"{gap}":"#)), "{end}");
    let counted = records.lines().filter(|line| line.contains(&format!(r#""gap":"{gap}""#))).count();
    assert!(end.contains(&format!(r#""{gap}":{counted}}}"#)), "{counted} times, and at the end: {end}");

    let allowed = run(&["--allow-gaps"]);
    assert_eq!(allowed.status, 0, "{allowed}");
    assert!(context.path("image.tar").exists());
}

#[test]
fn a_handle_of_a_file_without_a_name() {
    if needs_root("open_by_handle_at") {
        is_counted("unnamed", &[], "handle", "opened by handle");
    }
}

/// What the program serves itself is its own making; what the server needed for that is packed, and what a link there leads
/// to. Whose files lie where something else is mounted over it, nobody can tell.
#[test]
fn a_file_system_that_the_program_serves_itself() {
    if !needs_root("mount") {
        return;
    }
    let context = TestContext::new();
    let inherited = context.text("inherited");
    fs_err::rename(context.hazard("inherited"), &inherited).expect("both are ours");
    let program = context.hazard("served");
    let run = |mode: &str| {
        let output = format!("rootfs:{}", context.text(mode));
        // What is mounted is seen by nobody else, and goes with the program.
        let mut command = context.command("unshare");
        command.args(["-m", support::minjail(), "trace", "--force", "-t", &context.text("app.trace"), "-o", &output]);
        outcome_of(command.args(["--", &program, mode]))
    };
    let at = |path: &str| context.work().join(path);
    let script = format!("#!{}\n", at("shell").display());
    let files =
        [("backing/file", "file"), ("backing/script", script.as_str()), ("outside", "outside"), ("mnt/below", "")];
    context.lay_out(&files);
    fs_err::set_permissions(at("backing/script"), PermissionsExt::from_mode(0o755)).expect("it is ours");
    for copy in ["interpreter", "backing/program"] {
        fs_err::copy(&program, at(copy)).expect("the directory can be written");
    }
    std::os::unix::fs::symlink("interpreter", at("shell")).expect("the directory can be written");
    let built = run("opens");
    if built.status == 77 {
        return support::skip("nothing can be served and mounted here");
    }
    assert_eq!(built.status, 0, "{built}");
    let has = |path: &str| {
        let path = at(path);
        context.path("opens").join(path.strip_prefix("/").expect("it is absolute")).symlink_metadata().is_ok()
    };
    for path in ["backing/file", "backing/script", "backing/program", "outside", "shell", "interpreter", "mnt/below"] {
        assert!(has(path), "{path}");
    }
    assert!(!has("mnt/file") && !has("mnt/link"), "it is served");
    // What it was given open may be that of any file system that is served.
    let (minjail, trace) = (support::minjail(), context.text("app.trace"));
    let given = [&inherited, "fuse", minjail, "trace", "--force", "-t", &trace, "--", &program, "given"];
    outcome_of(context.command("unshare").arg("-m").args(given)).success();
    let gap = run("covered");
    assert_eq!(gap.status, 125, "{gap}");
    assert!(gap.stderr.contains("serve itself (FUSE)") && gap.stderr.contains("--allow-gaps"), "{gap}");
}

#[test]
fn a_ring_that_the_program_is_given() {
    let context = TestContext::new();
    let (inherited, trace) = (context.hazard("inherited"), context.text("app.trace"));
    let mut command = context.command(&inherited);
    let outcome = outcome_of(command.args(["ring", support::minjail(), "trace", "-t", &trace, "--", "/bin/true"]));
    if outcome.status == 77 {
        return support::skip("there is no io_uring here");
    }
    assert!(outcome.status == 0 && outcome.stderr.contains("io_uring, which opens files unseen"), "{outcome}");
}

#[test]
fn a_path_that_is_longer_than_the_kernel_tells() {
    is_counted("far", &[], "long-path", "longer than the kernel tells");
}

#[test]
fn a_path_that_is_rewritten_while_a_file_is_opened_for_writing() {
    is_counted("rewritten", &["write"], "rewritten", "rewrote a path");
}

/// Somebody whom nobody traces has mounted something in a view of his own, or over what the program was given.
#[test]
fn what_no_path_of_the_program_s_own_view_leads_to() {
    if !needs_root("mount") {
        return;
    }
    let context = TestContext::new();
    let output = format!("rootfs:{}", context.text("rootfs"));
    // `lies` in the working directory is a directory, which has a file below what is mounted over it, or in it.
    let other_view = "unshare -m sh -c 'mount -t tmpfs none lies && echo content > lies/file && cp /bin/sleep \
                      lies && cd lies && exec 9> file2 && exec ./sleep 100' & other=$!\n\
                      until [ -e /proc/$other/cwd/file2 ]; do sleep 0.01; done\n";
    let end = "|| status=$?; kill $other; exit $status";
    let cases = [
        ("the root of another view", format!("{other_view} trace cat /proc/$other/root/$PWD/lies/file {end}")),
        ("a program of another view", format!("{other_view} trace cp /proc/$other/exe copy {end}")),
        ("a directory of another view", format!("{other_view} trace ls /proc/$other/cwd {end}")),
        ("a descriptor of another view", format!("{other_view} exec 5< /proc/$other/cwd; trace open file {end}")),
        ("a descriptor that was covered", "exec 5< lies; mount -t tmpfs none lies; trace open file".to_owned()),
        ("a working directory that was covered", "cd lies; mount -t tmpfs none ../lies; trace cat file".to_owned()),
    ];
    for (what, script) in cases {
        context.lay_out(&[("lies/file", "content")]);
        let trace = format!(
            "trace() {{ [ $1 = open ] && set -- python3 -c \"import os; print(os.read(os.open('$2', 0, dir_fd=5), 9))\"; \
             {} trace --force -t {} -o {output} -- \"$@\"; }}\n",
            support::minjail(),
            context.text("app.trace")
        );
        let refused = outcome_of(context.command("unshare").args(["-m", "sh", "-ec", &(trace + &script)]));
        assert_eq!(refused.status, 125, "{what}: {refused}");
        assert!(refused.stderr.contains("mount namespace") && !refused.stderr.contains("No such"), "{what}: {refused}");
        assert!(!context.path("rootfs").exists(), "{what}: no image is made of it");
    }
}

/// What has changed since a new trace mends, and a gap it does not.
#[test]
fn a_gap_is_told_beside_what_has_changed() {
    let context = TestContext::new();
    let program = context.hazard("io_uring");
    context.lay_out(&[("file", "old")]);
    let (trace, output) = (context.text("app.trace"), format!("rootfs:{}", context.text("rootfs")));
    let file = context.work().join("file").display().to_string();
    let run = ["trace", "-q", "-t", &trace, "--", "sh", "-c", "cat $1; $0", &program, &file];
    assert_eq!(context.outcome(&run).status, 0);
    fs_err::write(&file, "of another length").expect("it is ours");
    let refused = context.outcome(&["build", "-t", &trace, "-o", &output]);
    refused.assert_refused(125, &[&file, "changed", "besides, the trace has gaps: the program asked for io_uring"]);
    let refused = context.outcome(&["build", "--allow-gaps", "-t", &trace, "-o", &output]);
    refused.assert_refused(125, &[&file, "changed"]);
    assert!(!refused.stderr.contains("gaps"), "{refused}");
}
