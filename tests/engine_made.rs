//! What engines make where an image has nothing: its working directory, its volumes, and the files that they supply. A jail
//! makes them too, and the small image lacks them as the whole one does.

#![expect(clippy::unwrap_used, reason = "these are tests")]

mod support;

use serde_json::{Value, json};
use support::crafted::{Compression, lay_out, oci_of, sha256, tar};
use support::podman::Podman;
use support::{TestContext, has, needs_root, outcome_of};

/// An image of busybox and nothing else, run as `config` says.
fn bare(context: &TestContext, config: &Value) -> String {
    let busybox = fs_err::read("/bin/busybox").unwrap();
    let mut layer = tar().directory("bin/").member(b'0', "bin/busybox", "", &busybox);
    for name in ["sh", "stat", "ls", "grep", "touch", "cat"] {
        layer = layer.symlink(&format!("bin/{name}"), "busybox");
    }
    let layer = layer.end();
    let document = json!({
        "architecture": "amd64", "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))]},
    });
    lay_out(&oci_of(document.to_string().into_bytes(), &[layer], Compression::Plain), &context.path("bare"));
    format!("oci:{}", context.text("bare"))
}

fn paths(context: &TestContext) -> Vec<String> {
    let lock = context.json("out.lock");
    let entries = lock["entries"].as_array().unwrap();
    entries.iter().map(|entry| entry["path"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn directories_and_files_are_there_and_stay_out() {
    if !has(&["/bin/busybox"]) {
        return;
    }
    let context = TestContext::new();
    let script = "pwd; stat -c '%u:%g %a' . .. /vol/x; ls / /etc; grep -c localhost /etc/hosts; cat /etc/hostname /etc/resolv.conf
        touch new /vol/x/new; ls . /vol/x; ls /vol";
    let config = json!({"Cmd": ["/bin/sh", "-c", script], "WorkingDir": "/work/deep", "Volumes": {"/vol/x/": {}}});
    let image = bare(&context, &config);
    let whole = context.outcome(&["run", "-q", &image]).success();
    assert!(whole.text().starts_with("/work/deep\n0:0 755\n0:0 755\n0:0 755\n"), "{whole}");
    assert!(whole.text().contains("/etc:\nhostname\nhosts\nresolv.conf\n2\nminjail\n"), "{whole}");
    let out = format!("oci:{}", context.text("out"));
    context.outcome(&["slim", "-q", &image, "-o", &out]).success();
    let paths = paths(&context);
    assert!(paths.iter().any(|path| path == "/bin/sh"), "{paths:?}");
    for made in ["/etc", "/work", "/vol"] {
        assert!(!paths.iter().any(|path| path.starts_with(made)), "{made}: {paths:?}");
    }
    context.outcome(&["run", "-q", &out]).assert_same_as(&whole);
}

/// A directory that is not there and no engine makes is still the user's mistake.
#[test]
fn another_working_directory_is_not_made() {
    if !has(&["/bin/busybox"]) {
        return;
    }
    let context = TestContext::new();
    let image = bare(&context, &json!({"Cmd": ["/bin/ls"], "WorkingDir": "/work"}));
    let profile = "workloads:\n  list: {run: [/bin/ls, /], cwd: /gone}\n";
    fs_err::write(context.path("list.yaml"), profile).unwrap();
    let out = format!("oci:{}", context.text("out"));
    let refused = context.outcome(&["slim", &image, "-p", &context.text("list.yaml"), "-o", &out]);
    refused.assert_refused(125, &["failed to enter the working directory `/gone`"]);
}

#[test]
fn podman_makes_the_same_of_both_images() {
    if !has(&["/bin/busybox", "podman", "runc"]) || !needs_root("podman") {
        return;
    }
    let context = TestContext::new();
    let script = "pwd; stat -c '%u:%g %a %n' . .. /vol/x /etc/hosts; grep -q localhost /etc/hosts && ls -d /etc/host*";
    let config = json!({
        "Cmd": ["/bin/sh", "-c", script], "WorkingDir": "/work/deep", "Volumes": {"/vol/x": {}}, "User": "1000:1000",
    });
    let image = bare(&context, &config);
    let out = format!("oci:{}", context.text("out"));
    context.outcome(&["slim", "-q", &image, "-o", &out]).success();
    let podman = Podman::new();
    let (whole, small) = (podman.pull(&context, &image), podman.pull(&context, &out));
    for options in [&[][..], &["--read-only"]] {
        let before = outcome_of(&mut podman.run_command(options, &whole)).success();
        assert!(before.text().starts_with("/work/deep\n"), "{before}");
        outcome_of(&mut podman.run_command(options, &small)).assert_same_as(&before);
    }
}
