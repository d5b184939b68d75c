//! `minjail trace --root`: a program traced in a directory that was made by other means, and built from it.

#![expect(clippy::unwrap_used, reason = "these are tests")]

mod support;

use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, symlink};

use support::crafted::{UNHEARD_OF, program_for};
use support::{Outcome, TestContext, has, limited, minjail, needs_root, outcome_of, outcome_with_input, text};

/// A root of busybox, where every program, account and page is another one than the host's.
fn root(context: &TestContext) -> String {
    let root = context.path("root");
    for directory in ["bin", "etc", "srv"] {
        fs_err::create_dir_all(root.join(directory)).unwrap();
    }
    fs_err::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for name in ["sh", "cat", "id"] {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    fs_err::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nweb:x:33:34::/:/bin/sh\n").unwrap();
    fs_err::write(root.join("etc/group"), "root:x:0:\nweb:x:34:\n").unwrap();
    fs_err::write(root.join("srv/page"), "a page\n").unwrap();
    text(&root)
}

fn trace(context: &TestContext, root: &str, arguments: &[&str]) -> Outcome {
    let trace = context.text("app.trace");
    context.outcome(&[&["trace", "-q", "-t", &trace, "--root", root], arguments].concat())
}

#[test]
fn a_program_whose_path_is_no_text() {
    if !has(&["/bin/busybox"]) {
        return;
    }
    let context = TestContext::new();
    let root = root(&context);
    let name = |name: &[u8]| std::ffi::OsString::from_vec(name.to_vec());
    for directory in [&b"d\xff"[..], b"back\\slash"] {
        let there = std::path::Path::new(&root).join(name(directory));
        fs_err::create_dir(&there).unwrap();
        fs_err::hard_link(std::path::Path::new(&root).join("bin/busybox"), there.join("busybox")).unwrap();
        let command = || context.minjail(&["trace", "-q", "-t", &context.text("app.trace"), "--root", &root]);
        let program = name(&[b"/", directory, b"/busybox"].concat());
        let traced = outcome_of(command().arg("--").arg(program).args(["cat", "/srv/page"]));
        assert_eq!(traced.success().text(), "a page\n");
        let there = name(&[b"/", directory].concat());
        let traced = outcome_of(command().arg("--workdir").arg(there).args(["--", "./busybox", "cat", "/srv/page"]));
        assert_eq!(traced.success().text(), "a page\n");
    }
}

/// In a jail nothing comes of it: the root is as it was.
#[test]
fn a_directory_that_was_renamed_is_still_there() {
    if !has(&["/bin/busybox"]) {
        return;
    }
    let context = TestContext::new();
    let root = root(&context);
    symlink("busybox", context.path("root/bin/mv")).unwrap();
    symlink("busybox", context.path("root/bin/ls")).unwrap();
    fs_err::create_dir_all(context.path("root/d/sub")).unwrap();
    let out = format!("rootfs:{}", context.text("out"));
    let script = "mv /d /e; ls /e";
    trace(&context, &root, &["-o", &out, "--", "sh", "-c", script]).success();
    assert!(context.path("out/d/sub").is_dir() && !context.path("out/e").exists());
}

#[test]
fn a_program_of_another_root_is_traced_and_built() {
    if !has(&["/bin/busybox"]) {
        return;
    }
    let context = TestContext::new();
    let root = root(&context);
    let out = format!("oci:{}", context.text("out"));
    let script = "cat /srv/page; id -u; exit 3";
    let traced = trace(&context, &root, &["-o", &out, "--", "sh", "-c", script]);
    assert!(traced.status == 3 && traced.text() == "a page\n0\n", "{traced}");
    context.outcome(&["run", "-q", &out]).assert_same_as(&traced);
    // From the trace alone: it knows its root.
    let again = format!("oci:{}", context.text("again"));
    context.outcome(&["build", "-q", "-t", &context.text("app.trace"), "-o", &again]).success();
    assert_eq!(context.outcome(&["diff", &out, &again]).status, 0);
    // What the program writes is nowhere afterwards, and its input is the caller's.
    let mut command = context.minjail(&["trace", "-q", "-t", &context.text("app.trace"), "--root", &root]);
    let fed = outcome_with_input(command.args(["--", "/bin/sh", "-c", "cat > /srv/new; cat /srv/new"]), b"fed");
    assert!(fed.success().text() == "fed" && !context.path("root/srv/new").exists());
    assert_eq!(trace(&context, &root, &["--", "sh", "-c", "kill -9 $$"]).status, 137);
    if needs_root("another user in the jail") {
        let web =
            trace(&context, &root, &["--user", "web", "--workdir", "/srv", "--", "sh", "-c", "id -u; id -g; cat page"]);
        assert_eq!(web.success().text(), "33\n34\na page\n");
    }
}

#[test]
fn what_cannot_be_traced_there_is_said() {
    let context = TestContext::new();
    let root = root(&context);
    for (arguments, status, words) in [
        (vec!["--", "/bin/none"], 127, "has no program `/bin/none`"),
        (vec!["--", "python3"], 127, "has no program `python3`"),
        (vec!["--user", "nobody", "--", "sh"], 125, "`nobody`"),
        (vec!["--workdir", "srv", "--", "sh"], 125, "srv"),
        (vec!["--", "/srv/page"], 126, "`/srv/page` of"),
    ] {
        trace(&context, &root, &arguments).assert_refused(status, &[words]);
        assert!(!context.path("app.trace").exists(), "{arguments:?}");
    }
    for (place, why) in [("nowhere", "No such file or directory"), ("root/srv/page", "Not a directory")] {
        let place = context.text(place);
        let words =
            [&format!("failed to open the root directory `{place}`"), why, "hint: name a directory that is there"];
        trace(&context, &place, &["--", "sh"]).assert_refused(125, &words);
    }
}

/// The kernel's own word on what was found there.
#[test]
fn what_cannot_be_executed_there_is_said() {
    let context = TestContext::new();
    let root = root(&context);
    let put = |name: &str, content: &[u8]| {
        let path = context.path("root/bin").join(name);
        fs_err::write(&path, content).unwrap();
        fs_err::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    };
    put("foreign", &program_for(UNHEARD_OF));
    put("nosh", b"echo ran\n");
    put("astray", b"#!/bin/none\n");
    symlink("/bin/nosh", context.path("root/bin/link")).unwrap();
    for (program, status, words) in [
        ("/bin/foreign", 126, ["failed to execute", "another kind of machine", "register an emulator"]),
        ("/bin/link", 126, ["failed to execute", "root/bin/nosh`", "it has no `#!` line"]),
        ("/bin/astray", 127, ["failed to execute", "root/bin/astray`", "hint: install the interpreter"]),
    ] {
        trace(&context, &root, &["--", program]).assert_refused(status, &words);
        assert!(!context.path("app.trace").exists(), "{program}");
    }
}

/// What is read stays as it is, by whatever way it is named.
#[test]
fn an_output_in_place_of_its_root_is_refused() {
    if !has(&["/bin/busybox"]) {
        return;
    }
    let context = TestContext::new();
    let made = format!("rootfs:{}", context.text("made"));
    trace(&context, &root(&context), &["-o", &made, "--", "cat", "/srv/page"]).success();
    let (made_root, saved) = (context.text("made"), context.text("saved.trace"));
    let again = ["trace", "-q", "-t", &saved, "--root", &made_root];
    outcome_of(context.minjail(&again).args(["--", "cat", "/srv/page"])).success();
    let traced = outcome_of(context.minjail(&again).args(["-o", &made, "--force", "--", "cat", "/srv/page"]));
    traced.assert_refused(125, &["is the input itself"]);
    for arguments in [&[][..], &["--root", &made_root], &["--lock", &context.text("made/bin/lock")]] {
        let out = if arguments.contains(&"--lock") { format!("oci:{}", context.text("out")) } else { made.clone() };
        let build = ["build", "-q", "-t", &saved, "-o", &out, "--force"];
        outcome_of(context.minjail(&build).args(arguments)).assert_refused(125, &["input"]);
    }
    assert_eq!(fs_err::read(context.path("made/srv/page")).unwrap(), b"a page\n");
}

#[test]
fn an_ordinary_user_traces_there_too() {
    if !has(&["/bin/busybox", "runuser"]) || !needs_root("runuser") {
        return;
    }
    let context = TestContext::new();
    let root = root(&context);
    let (theirs, binary) = (context.path("theirs"), context.text("minjail"));
    fs_err::create_dir(&theirs).unwrap();
    fs_err::set_permissions(&theirs, PermissionsExt::from_mode(0o777)).unwrap();
    fs_err::set_permissions(context.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    fs_err::copy(minjail(), &binary).unwrap();
    let mut command = limited("runuser");
    command.args(["-u", "nobody", "--", &binary, "trace", "-q", "-t", "app.trace", "--root", &root, "-o", "oci:out"]);
    command.args(["--", "/bin/cat", "/srv/page"]).current_dir(&theirs);
    assert_eq!(outcome_of(&mut command).success().text(), "a page\n");
    let out = format!("oci:{}", text(&theirs.join("out")));
    assert_eq!(context.outcome(&["run", "-q", &out]).success().text(), "a page\n");
}
