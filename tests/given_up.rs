//! Programs that begin as root's and give that up, as servers do: what they are refused then is refused in the image as well.

#![expect(clippy::unwrap_used, reason = "these are tests")]

mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use support::traced::Traced;
use support::{Outcome, TestContext, has, needs_root, outcome_of};

const NOBODY: u32 = 65534;

/// Makes a directory with this owner and mode, in which there is a file.
fn close(directory: &Path, owner: u32, mode: u32) {
    fs_err::create_dir(directory).unwrap();
    fs_err::write(directory.join("file"), "behind a door\n").unwrap();
    set(directory, owner, mode);
}

fn set(path: &Path, owner: u32, mode: u32) {
    chown(path, Some(owner), Some(owner)).unwrap();
    fs_err::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// Mode and owner of what is at `path`; `None` if there is nothing.
fn style(path: &Path) -> Option<(u32, u32)> {
    let found = fs_err::symlink_metadata(path).ok()?;
    Some((found.mode() & 0o7777, found.uid()))
}

/// The program of the hazards that gives up what root may do, in a place of its own.
struct Given {
    context: TestContext,
}

impl Given {
    fn new() -> Self {
        let context = TestContext::new();
        context.hazard("given_up");
        Self { context }
    }

    /// What it says with these arguments natively, traced and in its image, which is the tree `how`.
    #[track_caller]
    fn up(&self, how: &str, paths: &[&str]) -> String {
        let program = self.context.text("program");
        let (tree, trace) = (format!("rootfs:{}", self.context.text(how)), self.context.text("app.trace"));
        let native = outcome_of(self.context.command(&program).arg(how).args(paths)).success();
        let mut command = self.context.minjail(&["trace", "-q", "--force", "-t", &trace, "-o", &tree, "--", &program]);
        outcome_of(command.arg(how).args(paths)).success().assert_same_as(&native);
        let inside = self.context.outcome(&["run", "-q", &tree]);
        assert_eq!(inside.text(), native.text(), "{how}: {inside}");
        native.text()
    }

    /// Where `path` is in the tree `how`.
    fn at(&self, how: &str, path: &str) -> std::path::PathBuf {
        let path = self.context.work().join(path);
        self.context.path(how).join(path.strip_prefix("/").unwrap())
    }

    fn records(&self) -> String {
        fs_err::read_to_string(self.context.path("app.trace/trace.jsonl")).unwrap()
    }
}

#[test]
fn what_is_missing_behind_a_closed_directory() {
    if !needs_root("another user") || !has(&["gcc"]) {
        return;
    }
    let given = Given::new();
    close(&given.context.work().join("closed"), 0, 0o700);
    close(&given.context.work().join("theirs"), NOBODY, 0o700);
    let (closed, theirs) = ("closed/missing/x", "theirs/missing");
    for (how, refused, calls) in [
        ("user", closed, "stat 13, access 13, open 13"),
        ("thread", closed, "stat 13, access 13, open 13"),
        ("filesystem", closed, "stat 13, access 2, open 13"),
        ("effective", closed, "stat 13, access 2, open 13"),
        ("real", closed, "stat 2, access 13, open 2"),
        ("capabilities", theirs, "stat 13, access 13, open 13"),
        ("namespace", theirs, "stat 13, access 13, open 13"),
    ] {
        let said = given.up(how, &[closed, theirs]);
        assert!(said.contains(&format!(": {refused}: {calls}\n")), "{how}: {said}");
        let directory = refused.split('/').next().unwrap();
        let owner = if directory == "theirs" { NOBODY } else { 0 };
        assert_eq!(style(&given.at(how, directory)), Some((0o700, owner)), "{how}");
        assert_eq!(support::names_in(&given.at(how, directory)), [""; 0], "{how}: nothing is behind it");
        let other = if directory == "theirs" { "closed" } else { "theirs" };
        assert_eq!(style(&given.at(how, other)), None, "{how}: it was refused to nobody");
    }
    let said = given.up("nothing", &[closed, theirs]);
    assert!(!said.contains("13"), "{said}");
    for directory in ["closed", "theirs"] {
        assert_eq!(style(&given.at("nothing", directory)), None, "root is refused nothing");
    }
}

#[test]
fn what_is_there_and_refused_has_no_content() {
    if !needs_root("another user") || !has(&["setpriv"]) {
        return;
    }
    let drops = "setpriv --reuid 65534 --regid 65534 --clear-groups";
    let script = format!(
        "{drops} cat secret closed/file open later; {drops} stat secret > /dev/null; {drops} sh -c 'echo more >> kept'; cat later; true"
    );
    let traced = Traced::new(&script, |work| {
        close(&work.join("closed"), 0, 0o711);
        set(&work.join("closed/file"), 0, 0o640);
        for (name, mode) in [("secret", 0o600), ("open", 0o644), ("later", 0o600), ("kept", 0o644)] {
            fs_err::write(work.join(name), name).unwrap();
            set(&work.join(name), 0, mode);
        }
    });
    let refusals = |outcome: &Outcome| outcome.stderr.matches("ermission denied").count();
    assert_eq!(refusals(&traced.outcome), 4, "{}", traced.outcome);
    let built = traced.build("tree", &[]);
    for (name, mode, content) in [
        ("secret", 0o600, ""),
        ("closed/file", 0o640, ""),
        ("open", 0o644, "open"),
        ("later", 0o600, "later"),
        ("kept", 0o644, ""),
    ] {
        assert_eq!(style(&built.at(name)), Some((mode, 0)), "{name}");
        assert_eq!(built.text(name), content, "{name}");
    }
    let inside = traced.context.outcome(&["run", "-q", &format!("rootfs:{}", traced.context.text("tree"))]);
    inside.success().assert_same_as(&traced.outcome);
}

#[test]
fn who_may_more_does_not_hide_what_the_runs_user_is_refused() {
    if !needs_root("another user") {
        return;
    }
    // A setuid program of root's asks first.
    let traced = Traced::with(&["--user", "65534:65534"], "./cat closed/missing; cat closed/missing; true", |work| {
        close(&work.join("closed"), 0, 0o700);
        fs_err::copy("/bin/cat", work.join("cat")).unwrap();
        fs_err::set_permissions(work.join("cat"), PermissionsExt::from_mode(0o4755)).unwrap();
    });
    assert!(traced.outcome.stderr.contains("No such file"), "{}", traced.outcome);
    assert!(traced.outcome.stderr.contains("ermission denied"), "{}", traced.outcome);
    let built = traced.build("tree", &[]);
    assert_eq!(style(&built.at("closed")), Some((0o700, 0)));
    assert!(!built.has("closed/file"));
}

#[test]
fn what_is_asked_again_is_told_once() {
    if !needs_root("another user") || !has(&["gcc"]) {
        return;
    }
    let given = Given::new();
    close(&given.context.work().join("closed"), 0, 0o700);
    given.up("user", &["closed/missing"; 50]);
    let told = given.records().lines().filter(|line| line.contains("/closed/missing\"")).count();
    // Looked at and opened, by root and by who was refused.
    assert_eq!(told, 4, "{}", given.records());
}

#[test]
fn by_programs_that_give_it_up() {
    if !needs_root("another user") || !has(&["setpriv", "su", "/usr/bin/python3"]) {
        return;
    }
    // Each after root has asked for the same.
    let script = r#"cat user/missing su/missing python/missing theirs/missing group/missing
setpriv --reuid 65534 --regid 65534 --clear-groups cat user/missing
su -s /bin/sh nobody -c 'cat su/missing'
/usr/bin/python3 -c 'import os
for give_up in (lambda: os.stat("python"), lambda: os.setresuid(65534, 65534, 0), lambda: os.setresuid(0, 0, 0)):
    give_up()
    try: os.stat("python/missing/x")
    except OSError as error: print(error.strerror)'
setpriv --bounding-set -all cat theirs/missing
setpriv --reuid 65534 --regid 65534 --groups 1234 cat group/missing
setpriv --reuid 65534 --regid 65534 --groups 4321 cat group/missing
true"#;
    let traced = Traced::new(script, |work| {
        for (name, owner, mode) in
            [("user", 0, 0o700), ("su", 0, 0o750), ("python", 0, 0o700), ("theirs", NOBODY, 0o700), ("group", 0, 0o710)]
        {
            close(&work.join(name), owner, mode);
        }
        chown(work.join("group"), None, Some(1234)).unwrap();
    });
    assert_eq!(traced.outcome.text(), "No such file or directory\nPermission denied\nNo such file or directory\n");
    let built = traced.build("tree", &[]);
    for (name, owner, mode) in
        [("user", 0, 0o700), ("su", 0, 0o750), ("python", 0, 0o700), ("theirs", NOBODY, 0o700), ("group", 0, 0o710)]
    {
        assert_eq!(style(&built.at(name)), Some((mode, owner)), "{name}");
        assert_eq!(support::names_in(&built.at(name)), [""; 0], "{name}");
    }
    let image = format!("rootfs:{}", traced.context.text("tree"));
    traced.context.outcome(&["run", "-q", &image]).success().assert_same_as(&traced.outcome);
}
