//! What a run makes, moves and removes by one of two mounts of the same directory.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use support::laid_out::{everything, files, image_of, lay_out};
use support::{Outcome, TestContext, has, needs_root, outcome_of};

/// A script that is run where `mounts` has mounted something in the working directory; and what the image has of that.
#[track_caller]
fn built_behind(mounts: &str, script: &str, before: &[&str]) -> (TestContext, Outcome, PathBuf) {
    let context = TestContext::new();
    lay_out(&context.work(), before);
    let (trace, tree) = (context.text("app.trace"), format!("rootfs:{}", context.text("tree")));
    // What is mounted is gone with the namespace, and an image is made of what is there.
    let steps = format!("{mounts}; $0 trace -q -t {trace} -- sh -c \"$1\"; $0 build -q -t {trace} -o {tree}");
    let mut command = context.command("unshare");
    let outcome = outcome_of(command.args(["-m", "sh", "-ec", &steps, support::minjail(), script])).success();
    let built = context.path("tree").join(&support::text(&context.work())[1..]);
    (context, outcome, built)
}

#[track_caller]
fn image_behind(mounts: &str, script: &str, before: &[&str]) -> Vec<String> {
    let (_context, _, built) = built_behind(mounts, script, before);
    everything(&built, Path::new(""))
}

/// What the image has of `a` and of `b`, at which it is mounted as well.
#[track_caller]
fn image_of_both(script: &str) -> Vec<String> {
    let before = ["a/f=old", "a/d/g=deep", "a/l -> f", "b/", "c/e/h=other"];
    image_behind("mount --bind a b", script, &before)
}

#[test]
fn what_was_made_by_the_other_of_two_mounts() {
    if !needs_root("a mount") || !has(&["unshare"]) {
        return;
    }
    for script in
        ["echo new > a/x; cat b/x", "mkdir a/x; echo new > a/x/y; cat b/x/y", "echo new > b/x; mv b/x b/y; cat a/y"]
    {
        assert_eq!(image_of_both(script), ["a/", "b/"], "{script}");
    }
    assert_eq!(image_of_both("rm a/f; echo new > a/f; cat b/f"), ["a/", "a/f=old", "b/"]);
    assert_eq!(image_of_both("echo new > a/x; mv a/x a/f; cat b/f"), ["a/", "a/f=old", "b/"]);
    assert_eq!(image_of_both("rm -r a/d; mkdir a/d; echo new > a/d/g; cat b/d/g"), ["a/", "a/d/", "a/d/g=deep", "b/"]);
    let listed = image_of_both("echo new > a/x; ls b");
    assert_eq!(listed, ["a/", "b/", "b/d/", "b/f -> /.minjail-omitted", "b/l -> f"]);
}

#[test]
fn what_was_moved_by_the_other_of_two_mounts() {
    if !needs_root("a mount") || !has(&["unshare"]) {
        return;
    }
    for script in ["mv a/d a/e; cat b/e/g", "cat b/d/g; mv a/d a/e", "mv a/d a/e; mv a/e a/d; cat b/d/g"] {
        assert_eq!(image_of_both(script), ["a/", "a/d/", "b/", "b/d/", "b/d/g=deep"], "{script}");
    }
    for script in ["mv a/f a/n; cat b/n", "ln a/f a/n; cat b/n", "cat b/f; mv a/f a/n"] {
        assert_eq!(image_of_both(script), ["a/", "a/f=old", "b/", "b/f=old"], "{script}");
    }
    // Only one of the two names is to be seen by two paths.
    assert_eq!(image_of_both("mv c/e a/n; cat b/n/h"), ["a/", "c/", "c/e/", "c/e/h=other"]);
    assert_eq!(
        image_of_both("mv a/d c/n; mkdir a/d; echo new > a/d/g; cat b/d/g c/n/g"),
        ["a/", "a/d/", "a/d/g=deep", "b/", "c/"]
    );
}

#[test]
fn what_was_there_before_the_other_of_two_mounts_changed_it() {
    if !needs_root("a mount") || !has(&["unshare"]) {
        return;
    }
    for script in [
        "echo new > a/f; cat b/f",
        "cat b/f; echo new > a/f",
        "cat b/f; rm a/f",
        "cat b/f; echo new > a/f; rm a/f",
        "cat b/f; echo new > a/x; mv a/x a/f",
        "echo new > a/f; echo newer > b/f; cat b/f",
    ] {
        assert_eq!(image_of_both(script), ["a/", "a/f=old", "b/", "b/f=old"], "{script}");
    }
    // A call that removes nothing, since it fails.
    let failing = image_of_both("cat b/f; mv a/f c/n; mv -T a/f c/n; true");
    assert_eq!(failing, ["a/", "a/f=old", "b/", "b/f=old", "c/"]);
    // Another gets its number, and is in danger.
    let another = "cat b/f; rm a/f; i=0; while [ $i -lt 20 ]; do mkdir c/$i; mv -T a/f c/$i; i=$((i + 1)); done; true";
    assert_eq!(image_of_both(another), ["a/", "a/f=old", "b/", "b/f=old", "c/"]);
    for script in ["cat b/d/g; rm -r a/d", "echo new > b/d/g; rm -r a/d"] {
        assert_eq!(image_of_both(script), ["a/", "a/d/", "a/d/g=deep", "b/", "b/d/", "b/d/g=deep"], "{script}");
    }
    // A file system that does not say when files were made.
    let mounts = "mount -t ramfs none a; printf old > a/f; mount --bind a b";
    let image = image_behind(mounts, "echo new > a/f; echo newer > b/f; cat b/f", &["a/", "b/"]);
    assert_eq!(image, ["a/", "a/f=old", "b/", "b/f=old"]);
}

#[test]
fn the_mode_that_a_directory_had_before_the_other_of_two_mounts_changed_it() {
    if !needs_root("a mount") || !has(&["unshare"]) {
        return;
    }
    let script = "chmod 711 a/d; ls b/d; mkdir b/d/n; rmdir a/d/n";
    let (_context, _, built) = built_behind("chmod 750 a/d; mount --bind a b", script, &["a/d/", "b/"]);
    let modes = ["a/d", "b/d"].map(|path| fs_err::metadata(built.join(path)).unwrap().permissions().mode() & 0o777);
    assert_eq!(modes, [0o750, 0o750]);
}

#[test]
fn where_something_was_made_before_the_other_of_two_mounts_changed_it() {
    if !needs_root("a mount") || !has(&["unshare"]) {
        return;
    }
    assert_eq!(image_of_both("echo new > b/d/n; rm -r a/d"), ["a/", "a/d/", "a/d/g=deep", "b/", "b/d/"]);
    let made_over = "rm a/d/g; echo new > b/d/g; mv a/d a/e; echo new > a/d";
    assert_eq!(image_of_both(made_over), ["a/", "a/d/", "a/d/g=deep", "b/", "b/d/"]);
}

/// Nothing of what has no directory to be made in is needed, nor the directory that is there by the end.
#[test]
fn what_could_not_be_made_anywhere() {
    assert_eq!(image_of("mv a/f n/f; mkdir n; (echo new > n/f/x); :", &["a/f=old"]), ["a/", "a/f=old"]);
    if !needs_root("a mount") || !has(&["unshare"]) {
        return;
    }
    assert_eq!(image_of_both("mv a/f a/n/f; mv b/d b/n; :"), ["a/", "a/f=old", "b/", "b/d/"]);
}

#[test]
fn mounts_that_show_the_same_no_longer() {
    if !needs_root("a mount") || !has(&["unshare"]) {
        return;
    }
    let before = ["top/a/f=old", "b/", "one=old", "two="];
    let image = |script| image_behind("mount --bind top/a b; mount --bind one two", script, &before);
    assert_eq!(image("echo new > top/a/x; cat b/x"), ["b/", "top/", "top/a/"]);
    let displaced = "mv top moved; mkdir -p top/a; echo new > top/a/f; cat b/f";
    assert_eq!(image(displaced), ["b/", "b/f=old", "top/"]);
    assert_eq!(image("rm one; echo new > one; cat two"), ["one=old", "two=old"]);
    assert_eq!(image("umount b; echo new > top/a/x; echo new > b/x"), ["b/", "top/", "top/a/"]);
}

/// A line of a script, of which the paths may lead into `a` by `m` as well.
fn any_mounted_line() -> impl Strategy<Value = String> {
    let place = || prop::sample::select(vec!["a", "a", "m", "m", "b"]);
    let name = || prop::sample::select(vec!["x", "x", "y", "d", "d/x", "d/g", "d/g/y", "n", "n/x", "d/n"]);
    let path = move || (place(), name()).prop_map(|(place, name)| format!("{place}/{name}"));
    let verb = prop::sample::select(vec!["mv -T", "mv -T", "mkdir", "echo new >", "ln", "rm -rf", "cat", "cat", "cat"]);
    (verb, path(), path()).prop_map(|(verb, one, other)| match verb {
        "mv -T" | "ln" => format!("{verb} {one} {other} || :"),
        _ => format!("({verb} {one}) || :"),
    })
}

proptest! {
    // Each case is a run with mounts of its own; change a number here to ask more often.
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    /// So it is where a run does that by two mounts of one directory, by either of which it may have read a file.
    #[test]
    fn whatever_is_renamed_by_two_mounts(lines in prop::collection::vec(any_mounted_line(), 10..40)) {
        if !needs_root("a mount") || !has(&["unshare"]) {
            return Ok(());
        }
        let before: Vec<String> =
            ["a/x", "a/y", "a/d/x", "a/d/g/y", "b/x", "b/d/x"].iter().map(|path| format!("{path}=was {path}\n")).collect();
        let before: Vec<&str> = before.iter().map(String::as_str).chain(["m/"]).collect();
        let (_context, outcome, built) = built_behind("mount --bind a m", &lines.join("\n"), &before);
        let image = files(&built, Path::new(""));
        for file in &image {
            let by_a = file.strip_prefix("m/").map_or_else(|| file.clone(), |rest| format!("a/{rest}"));
            prop_assert!(before.contains(&by_a.as_str()), "{file:?} was not there before");
        }
        for line in outcome.text().lines().filter(|line| line.starts_with("was ")) {
            let path = line.trim_start_matches("was ");
            let by_m = path.strip_prefix("a/").map_or_else(|| path.to_owned(), |rest| format!("m/{rest}"));
            let is_there = |path: &str| image.contains(&format!("{path}={line}\n"));
            prop_assert!(is_there(path) || is_there(&by_m), "{path} was read");
        }
    }
}
