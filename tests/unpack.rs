//! `minjail unpack`: any form in, any form out, and nothing is lost on the way.

mod support;

use std::os::unix::fs::PermissionsExt;

use support::{Outcome, TestContext, limited, minjail, needs_root, outcome_of, outcome_with_input, text};

fn image(context: &TestContext, form: &str) -> String {
    let image = format!("{form}:{}", context.text("image"));
    let mut command = context.minjail(&["trace", "-q", "-t", &context.text("app.trace"), "-o", &image]);
    command.args(["--mtime", "keep", "--include", "/usr/bin/passwd", "--env", "COLOUR=green"]);
    outcome_of(command.args(["--", "/bin/sh", "-c", "echo $COLOUR; stat -c '%u %a' /usr/bin/passwd"])).success();
    image
}

fn unpack(context: &TestContext, from: &str, to: &str) -> Outcome {
    context.outcome(&["unpack", from, "-o", to])
}

fn diff(context: &TestContext, one: &str, other: &str) -> Outcome {
    context.outcome(&["diff", one, other])
}

#[test]
fn every_form_becomes_every_other() {
    for form in ["oci", "oci-archive", "docker-archive"] {
        let context = TestContext::new();
        let image = image(&context, form);
        let expected = context.outcome(&["run", &image]).success();
        for target in ["oci", "oci-archive", "docker-archive"] {
            let again = format!("{target}:{}", context.text(&format!("again-{target}")));
            unpack(&context, &image, &again).success();
            assert_eq!(diff(&context, &image, &again).status, 0, "{}", diff(&context, &image, &again));
            context.outcome(&["run", &again]).assert_same_as(&expected);
        }
        let tree = format!("rootfs:{}", context.text("tree"));
        unpack(&context, &image, &tree).success();
        assert_eq!(diff(&context, &image, &tree).status, 0, "{}", diff(&context, &image, &tree));
        // Its lock says how it is run, and that it is minjail's to replace.
        context.outcome(&["run", &tree]).assert_same_as(&expected);
        context.outcome(&["check", "-q", &tree]).success();
        context.outcome(&["unpack", &image, "-o", &tree, "--force"]).success();
        fs_err::remove_file(context.path("tree.lock")).unwrap();
        let forced = context.outcome(&["unpack", &image, "-o", &tree, "--force"]);
        forced.assert_refused(125, &["a directory of something else", "remove it yourself"]);
    }
}

/// What `docker save` and `skopeo` write into a pipe is read from it, whichever of the two it is.
#[test]
fn standard_input_is_an_archive_of_either_kind() {
    let context = TestContext::new();
    let out = format!("rootfs:{}", context.text("tree"));
    for form in ["oci-archive", "docker-archive"] {
        let image = image(&context, form);
        let bytes = fs_err::read(context.path("image")).unwrap();
        outcome_with_input(&mut context.minjail(&["unpack", "-q", "-", "-o", &out]), &bytes).success();
        assert_eq!(diff(&context, &image, &out).status, 0, "{}", diff(&context, &image, &out));
        outcome_with_input(&mut context.minjail(&["slim", "-q", "-", "--force", "-o", &out]), &bytes).success();
        fs_err::remove_dir_all(context.path("tree")).unwrap();
        fs_err::remove_file(context.path("tree.lock")).unwrap();
        let refused = outcome_with_input(&mut context.minjail(&["unpack", "-", "-o", &out]), &bytes[..5000]);
        refused.assert_refused(125, &["hint: "]);
        fs_err::remove_file(context.path("image")).unwrap();
        fs_err::remove_file(context.path("image.lock")).unwrap();
    }
    for (input, words) in [(&b""[..], "`standard input` is empty"), (b"nonsense", "standard input")] {
        outcome_with_input(&mut context.minjail(&["unpack", "-", "-o", &out]), input).assert_refused(125, &[words]);
    }
}

/// One index, two platforms: the machine's is taken unless another one is asked for.
#[test]
fn a_platform_can_be_chosen() {
    let context = TestContext::new();
    let image = image(&context, "oci");
    let index = context.path("image/index.json");
    let mut document: serde_json::Value = serde_json::from_slice(&fs_err::read(&index).unwrap()).unwrap();
    let mut other = document["manifests"][0].clone();
    other["platform"] = serde_json::json!({"os": "linux", "architecture": "arm", "variant": "v7"});
    document["manifests"].as_array_mut().unwrap().push(other);
    fs_err::write(&index, document.to_string()).unwrap();
    let out = format!("rootfs:{}", context.text("tree"));
    let unpack = |platform: &str| context.outcome(&["unpack", &image, "--force", "-o", &out, "--platform", platform]);
    context.outcome(&["unpack", &image, "-o", &out]).success();
    unpack("linux/arm").success();
    unpack("linux/arm/v7").success();
    unpack("linux/arm/v6")
        .assert_refused(125, &["no image for linux/arm/v6; there are: linux/amd64", "--platform OS/ARCH"]);
    let refused = unpack("arm");
    assert!(refused.status == 125 && refused.stderr.contains("`arm` is no platform"), "{refused}");
}

/// Owners and set-user-ID bits are data: an ordinary user writes the same image.
#[test]
fn nothing_is_lost_without_root() {
    if !needs_root("runuser") {
        return;
    }
    let context = TestContext::new();
    let image = image(&context, "oci-archive");
    let (theirs, binary) = (context.path("theirs"), context.text("minjail"));
    fs_err::create_dir(&theirs).unwrap();
    fs_err::set_permissions(&theirs, PermissionsExt::from_mode(0o777)).unwrap();
    fs_err::set_permissions(context.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    fs_err::copy(minjail(), &binary).unwrap();
    let again = format!("oci:{}", text(&theirs.join("again")));
    let mut command = limited("runuser");
    command.args(["-u", "nobody", "--", &binary, "unpack", &image, "-q", "-o", &again]).current_dir(&theirs);
    outcome_of(&mut command).success();
    assert_eq!(diff(&context, &image, &again).status, 0, "{}", diff(&context, &image, &again));
}

#[test]
fn what_cannot_be_unpacked_is_said() {
    let context = TestContext::new();
    let image = image(&context, "oci-archive");
    let out = format!("rootfs:{}", context.text("out"));
    let nowhere = format!("oci:{}", context.text("nowhere"));
    let directory = format!("rootfs:{}", text(&context.work()));
    for (from, to, words) in [
        (&nowhere, &out, "nowhere"),
        (&directory, &out, "is a directory already"),
        (&image, &image, "exists already"),
        (&image, &format!("rootfs:{}/x", context.text("nowhere")), "there is no directory"),
        (&"image".to_owned(), &out, "image"),
    ] {
        let outcome = unpack(&context, from, to);
        assert!(outcome.status == 125 && outcome.stderr.contains(words), "{from} {to}: {outcome}");
        assert!(!context.path("out").exists());
    }
}
