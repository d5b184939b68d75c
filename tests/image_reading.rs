//! What `slim` and `unpack` take of other tools' images, what they refuse, and what they leave alone.

#![expect(clippy::unwrap_used, reason = "these are tests")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use support::crafted::{Compression, Parts, archive, docker, docker_of, lay_out, oci, oci_of, sha256, tar};
use support::{Outcome, TestContext, minjail, outcome_of};

/// The one layer of the images here: a busybox that is all of it.
fn layer() -> Vec<u8> {
    let busybox = fs_err::read("/usr/bin/busybox").expect("busybox is installed");
    tar()
        .directory("bin/")
        .member(b'0', "bin/busybox", "", &busybox)
        .symlink("bin/sh", "busybox")
        .directory("etc/")
        .file("etc/passwd", "root:x:0:0::/:/bin/sh\n")
        .end()
}

/// Its configuration: `more` over what every image has, `config` over how it is run.
fn configuration(more: &Value, config: &Value) -> Vec<u8> {
    let diff_id = format!("sha256:{}", sha256(&layer()));
    let mut all = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "config": {"Cmd": ["/bin/busybox", "true"]}});
    let put = |all: &mut Value, more: &Value| {
        for (key, value) in more.as_object().expect("it is an object") {
            all[key] = value.clone();
        }
    };
    put(&mut all, more);
    put(&mut all["config"], config);
    all.to_string().into_bytes()
}

/// An image at `name`, in the form that is asked for, and how minjail is told of it.
fn image(context: &TestContext, form: &str, name: &str, configuration: Vec<u8>) -> String {
    let (layers, plain) = ([layer()], Compression::Plain);
    let place = context.path(name);
    match form {
        "oci" => lay_out(&oci_of(configuration, &layers, plain), &place),
        "oci-archive" => fs_err::write(place, archive(&oci_of(configuration, &layers, plain))).unwrap(),
        _ => fs_err::write(place, archive(&docker_of(configuration, &layers, plain))).unwrap(),
    }
    format!("{form}:{}", context.text(name))
}

/// The configuration of the image in a layout.
fn config_of(context: &TestContext, layout: &str) -> Value {
    let read = |name: &str| -> Value {
        serde_json::from_slice(&fs_err::read(context.path(layout).join(name)).unwrap()).unwrap()
    };
    let blob = |digest: &Value| read(&format!("blobs/{}", digest.as_str().unwrap().replace(':', "/")));
    blob(&blob(&read("index.json")["manifests"][0]["digest"])["config"]["digest"])
}

#[test]
fn the_input_is_never_the_output() {
    let context = TestContext::new();
    let plain = configuration(&json!({}), &json!({}));
    for form in ["oci", "oci-archive", "docker-archive"] {
        let image = image(&context, form, form, plain.clone());
        let at = context.text(form);
        fs_err::os::unix::fs::symlink(context.path(""), context.path("work").join(form)).unwrap();
        let linked = format!("{form}:{form}/{form}");
        for output in [&image, &linked, &format!("rootfs:{at}"), &format!("oci:{at}")] {
            for command in ["slim", "unpack"] {
                // A directory that is no layout is refused before that.
                let outcome = context.outcome(&[command, &image, "-q", "-o", output, "--force"]);
                outcome.assert_refused(125, &["hint: "]);
                if *output == image || *output == linked {
                    outcome.assert_refused(125, &["is the input itself", "a place of its own"]);
                }
            }
        }
        context
            .outcome(&["unpack", &image, "-q", "-o", &format!("layer:{}", context.text("whole")), "--force"])
            .success();
    }
    let image = format!("oci:{}", context.text("oci"));
    let inside = format!("oci-archive:{}", context.text("oci/small.tar"));
    let file = format!("oci-archive:{}", context.text("oci-archive"));
    context.outcome(&["unpack", &image, "-o", &inside]).assert_refused(125, &["lies in the input"]);
    let (out, lock) = (format!("layer:{}", context.text("out")), context.text("oci-archive"));
    context
        .outcome(&["slim", &file, "--force", "-o", &out, "--lock", &lock])
        .assert_refused(125, &["is the input itself"]);

    // A tree with its lock is minjail's own to replace, but not while it is read.
    let tree = format!("rootfs:{}", context.text("tree"));
    context.outcome(&["unpack", &image, "-q", "-o", &tree]).success();
    for output in [tree.clone(), format!("oci:{}", context.text("tree/out"))] {
        let arguments = ["slim", &tree, "--force", "-o", &output, "--", "/bin/busybox", "true"];
        context.outcome(&arguments).assert_refused(125, &["the input", "a place of its own"]);
    }
    assert!(context.path("tree/bin/busybox").exists() && !context.path("tree/out").exists());
}

#[test]
fn an_image_of_another_system_is_not_run() {
    let context = TestContext::new();
    let windows = configuration(&json!({"os": "windows"}), &json!({}));
    for form in ["oci", "docker-archive"] {
        let image = image(&context, form, form, windows.clone());
        let out = format!("oci:{}", context.text("out"));
        let outcome = context.outcome(&["slim", &image, "-o", &out]);
        outcome.assert_refused(125, &["the image is for windows, and this machine runs linux", "minjail unpack"]);
    }
}

#[test]
fn a_platform_counts_in_every_form() {
    let context = TestContext::new();
    let arm = configuration(&json!({"architecture": "arm", "variant": "v7"}), &json!({}));
    for form in ["oci", "oci-archive", "docker-archive"] {
        let image = image(&context, form, form, arm.clone());
        let out = format!("layer:{}", context.text("out"));
        let unpack =
            |platform: &str| context.outcome(&["unpack", "-q", &image, "--force", "-o", &out, "--platform", platform]);
        for right in ["linux/arm", "linux/arm/v7"] {
            unpack(right).success();
        }
        for wrong in ["linux/amd64", "linux/arm/v6", "windows/arm"] {
            let words = format!("there is no image for {wrong}; there are: linux/arm/v7");
            unpack(wrong).assert_refused(125, &[&words, "--platform"]);
        }
    }
}

#[test]
fn sets_are_read_as_engines_read_them() {
    let context = TestContext::new();
    let sets = json!({"Volumes": {"/data": null, "/more": {"a": [1]}}, "ExposedPorts": {"80/tcp": null}});
    let image = image(&context, "oci", "image", configuration(&json!({}), &sets));
    let out = format!("oci:{}", context.text("out"));
    context.outcome(&["slim", "-q", &image, "-o", &out, "--", "/bin/busybox", "true"]).success();
    let config = &config_of(&context, "out")["config"];
    assert_eq!(
        (&config["Volumes"], &config["ExposedPorts"]),
        (&json!({"/data": {}, "/more": {}}), &json!({"80/tcp": {}}))
    );
    context.outcome(&["unpack", "-q", &image, "--force", "-o", &out]).success();
    let odd = configuration(&json!({}), &json!({"Volumes": {"/data": "text"}}));
    let image = self::image(&context, "oci", "odd", odd);
    context
        .outcome(&["unpack", &image, "-o", &format!("layer:{}", context.text("odd.tar"))])
        .assert_refused(125, &["hint"]);
}

#[test]
fn a_working_directory_is_taken_by_the_letter() {
    let context = TestContext::new();
    let config = json!({"WorkingDir": "/etc/../bin//.", "Cmd": ["/bin/busybox", "pwd"]});
    let image = image(&context, "oci", "image", configuration(&json!({}), &config));
    assert_eq!(context.outcome(&["run", &image]).success().text(), "/bin\n");
    let out = format!("oci:{}", context.text("out"));
    context.outcome(&["slim", "-q", &image, "-o", &out]).success();
    assert_eq!(config_of(&context, "out")["config"]["WorkingDir"], "/bin");
    assert_eq!(context.outcome(&["run", &out]).success().text(), "/bin\n");
}

#[test]
fn what_cannot_be_executed_is_told_from_what_is_not_there() {
    let context = TestContext::new();
    let image = image(&context, "oci", "image", configuration(&json!({}), &json!({})));
    let tree = format!("rootfs:{}", context.text("tree"));
    context.outcome(&["unpack", "-q", &image, "-o", &tree]).success();
    fs_err::set_permissions(context.path("tree/etc/passwd"), PermissionsExt::from_mode(0o644)).unwrap();
    let out = format!("oci:{}", context.text("out"));
    for (program, status) in [("/etc/passwd", 126), ("/etc", 126), ("/etc/nothing", 127), ("nothing", 127)] {
        for image in [&image, &tree] {
            // The image has every file with all its bits.
            if image.starts_with("oci:") && program == "/etc/passwd" {
                continue;
            }
            let outcome = context.outcome(&["slim", image, "-o", &out, "--", program]);
            outcome.assert_refused(status, &[program, "hint: "]);
            assert!(!context.path("out").exists());
        }
        assert_eq!(context.outcome(&["run", &tree, "--", program]).status, status);
    }
}

#[test]
fn every_signal_may_be_the_one_that_stops() {
    let context = TestContext::new();
    let out = format!("oci:{}", context.text("out"));
    for signal in ["SIGRTMIN+3", "RTMIN+3", "37", "SIGPWR", "sigquit", "RTMAX-1"] {
        let config = json!({"StopSignal": signal});
        let _ = fs_err::remove_dir_all(context.path("image"));
        let image = image(&context, "oci", "image", configuration(&json!({}), &config));
        context.outcome(&["slim", "-q", &image, "--force", "-o", &out]).success();
        assert_eq!(config_of(&context, "out")["config"]["StopSignal"], signal);
    }
    // It is sent, too: else the program would end a long time later, by SIGKILL, and that is a failure.
    let config = json!({"StopSignal": "SIGRTMIN+3", "Cmd": ["/bin/busybox", "sleep", "1000"]});
    let image = image(&context, "oci", "server", configuration(&json!({}), &config));
    context.outcome(&["slim", "-q", &image, "--force", "-o", &out, "--for", "1"]).success();
    let odd = self::image(&context, "oci", "odd", configuration(&json!({}), &json!({"StopSignal": "SIGODD"})));
    context.outcome(&["slim", &odd, "--force", "-o", &out]).assert_refused(125, &["`SIGODD`, which is no signal"]);
}

/// What only some engine knows, or nobody yet.
fn odd() -> (Value, Value) {
    let more = json!({
        "author": "somebody", "created": "2023-05-06T07:08:09.123456789Z", "os.version": "1.2", "os.features": ["a"],
        "docker_version": "27.1", "x-new": {"b": [1, null], "a": 2.5},
        "history": [{"created": "2023-05-06T07:08:09Z", "created_by": "ADD all", "comment": "buildkit"},
            {"created_by": "ENV Z=1", "empty_layer": true}],
    });
    let config = json!({
        "Env": ["Z=1", "PATH=/bin", "BARE", "A=2"], "OnBuild": ["RUN true"], "Shell": ["/bin/sh", "-c"], "ArgsEscaped": true,
        "NetworkDisabled": true, "MacAddress": "02:42:ac:11:00:02", "Domainname": "example.org", "Hostname": "h",
        "Healthcheck": {"Test": ["NONE"]}, "Labels": {"b": "1", "a": "2"}, "StopSignal": "sigquit", "X": 1,
    });
    (more, config)
}

#[test]
fn unpack_leaves_the_configuration_as_it_is() {
    let context = TestContext::new();
    let (mut more, config) = odd();
    more["os"] = json!("plan9");
    let own = configuration(&more, &config);
    let original: Value = serde_json::from_slice(&own).unwrap();
    let image = image(&context, "oci", "image", own);
    let (mut from, tree) = (image.clone(), format!("rootfs:{}", context.text("tree")));
    for (number, form) in ["oci", "docker-archive", "oci-archive", "oci"].into_iter().enumerate() {
        let to = format!("{form}:{}", context.text(&format!("out{number}")));
        context.outcome(&["unpack", "-q", &from, "--platform", "plan9/amd64", "-o", &to]).success();
        assert_eq!(context.outcome(&["diff", &image, &to]).status, 0);
        from = to;
    }
    // The layer is written anew, with what it amounts to.
    let same = |layout: &str| {
        let config = config_of(&context, layout);
        let mut original = original.clone();
        original["rootfs"] = config["rootfs"].clone();
        assert_eq!(config, original, "{layout}");
    };
    for layout in ["out0", "out3"] {
        same(layout);
    }
    let index = |layout: &str| -> Value {
        let index = fs_err::read(context.path(layout).join("index.json")).unwrap();
        serde_json::from_slice::<Value>(&index).unwrap()["manifests"][0]["annotations"].clone()
    };
    for layout in ["out0", "out3"] {
        assert_eq!(index(layout)["org.opencontainers.image.ref.name"], "v1", "the name stays too");
    }
    // The lock has all of it, so that the same image can be made from the tree.
    context.outcome(&["unpack", "-q", &image, "-o", &tree]).success();
    let (lock, again) = (context.text("tree.lock"), format!("oci:{}", context.text("again")));
    context.outcome(&["build", "-q", "--locked", &lock, "--root", &context.text("tree"), "-o", &again]).success();
    same("again");
    let format = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/format1.py");
    let told = outcome_of(context.command("python3").args([format, &lock, &context.text("tree")])).success().text();
    let id = fs_err::read_dir(context.path("again/blobs/sha256")).unwrap();
    let names: Vec<String> = id.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let config = told.lines().last().unwrap().trim_start_matches("sha256:").to_owned();
    assert!(names.contains(&config), "a second implementation of the format agrees: {told}");
}

#[test]
fn a_name_stays_with_the_image() {
    let context = TestContext::new();
    let image = image(&context, "docker-archive", "image.tar", configuration(&json!({}), &json!({})));
    let out = |form: &str| format!("{form}:{}", context.text(&format!("out.{form}")));
    for form in ["docker-archive", "oci-archive"] {
        context.outcome(&["unpack", "-q", &image, "-o", &out(form)]).success();
    }
    let read = |archive: &str, name: &str| -> Value {
        let archive = context.text(&format!("out.{archive}"));
        let bytes = context.command("tar").args(["-xOf", &archive, name]).output().unwrap().stdout;
        serde_json::from_slice(&bytes).unwrap()
    };
    assert_eq!(read("docker-archive", "manifest.json")[0]["RepoTags"], json!(["x:latest"]));
    let annotations = &read("oci-archive", "index.json")["manifests"][0]["annotations"];
    assert_eq!(annotations["io.containerd.image.name"], "docker.io/library/x:latest");
    let other = format!("{}:y:2", out("docker-archive"));
    context.outcome(&["unpack", "-q", &image, "--force", "-o", &other]).success();
    assert_eq!(read("docker-archive", "manifest.json")[0]["RepoTags"], json!(["y:2"]));
}

#[test]
fn slim_keeps_all_that_it_does_not_change() {
    let context = TestContext::new();
    let (more, config) = odd();
    let own = configuration(&more, &config);
    let original: Value = serde_json::from_slice(&own).unwrap();
    let image = image(&context, "oci", "image", own);
    let out = format!("oci:{}", context.text("out"));
    let told = context.outcome(&["slim", &image, "-o", &out]).success();
    assert!(!told.stderr.contains("health check"), "{told}");
    context.outcome(&["check", "-q", &out]).success();
    let small = config_of(&context, "out");
    for (key, value) in original.as_object().unwrap() {
        if !["config", "rootfs", "history", "created"].contains(&key.as_str()) {
            assert_eq!(small[key], *value, "{key}");
        }
    }
    for (key, value) in original["config"].as_object().unwrap() {
        if key != "Labels" {
            assert_eq!(small["config"][key], *value, "{key}");
        }
    }
    assert_eq!(small["config"]["Labels"]["a"], "2");
    assert_eq!(small["created"], "1970-01-01T00:00:00Z");
    // What has nothing odd has nothing more in its lock.
    let plain = self::image(&context, "oci", "plain", configuration(&json!({}), &json!({})));
    context.outcome(&["slim", "-q", "--force", &plain, "-o", &out]).success();
    assert!(!fs_err::read_to_string(context.path("out.lock")).unwrap().contains("\"extra\""));
}

#[test]
fn of_several_variants_one_must_be_named() {
    let context = TestContext::new();
    let image = image(&context, "oci", "image", configuration(&json!({"architecture": "arm"}), &json!({})));
    let index = context.path("image/index.json");
    let mut document: Value = serde_json::from_slice(&fs_err::read(&index).unwrap()).unwrap();
    let platforms = ["v6", "v7"].map(|variant| {
        let mut one = document["manifests"][0].clone();
        one["platform"] = json!({"os": "linux", "architecture": "arm", "variant": variant});
        one
    });
    document["manifests"] = json!(platforms);
    fs_err::write(&index, document.to_string()).unwrap();
    let out = format!("layer:{}", context.text("out"));
    let unpack = |platform: &str| context.outcome(&["unpack", "-q", &image, "-o", &out, "--platform", platform]);
    let words = ["several images for linux/arm: linux/arm/v6, linux/arm/v7", "`--platform linux/arm/v7`"];
    unpack("linux/arm").assert_refused(125, &words);
    unpack("linux/arm/v7").success();
}

#[test]
fn what_kind_of_file_it_is_is_said() {
    let context = TestContext::new();
    let plain = configuration(&json!({}), &json!({}));
    let [oci, docker] = ["oci-archive", "docker-archive"].map(|form| image(&context, form, form, plain.clone()));
    let layout = image(&context, "oci", "layout", plain.clone());
    let (oci, docker) = (oci.split_once(':').unwrap().1, docker.split_once(':').unwrap().1);
    let layout_path = layout.split_once(':').unwrap().1;
    let out = format!("layer:{}", context.text("out"));
    let refused =
        |image: &str, words: &[&str]| context.outcome(&["unpack", image, "-o", &out]).assert_refused(125, words);
    refused(&format!("oci-archive:{docker}"), &["is a docker archive", &format!("`docker-archive:{docker}`")]);
    refused(&format!("docker-archive:{oci}"), &["is an archive of an OCI layout", &format!("`oci-archive:{oci}`")]);
    refused(&format!("oci:{docker}"), &["is a file", &format!("`docker-archive:{docker}`")]);
    refused(&format!("oci-archive:{layout_path}"), &["is not a file", "`oci:DIR`"]);
    fs_err::write(context.path("empty"), "").unwrap();
    refused(&format!("oci-archive:{}", context.text("empty")), &["is empty", "hint: "]);
    refused(&format!("docker-archive:{}", context.text("nothing")), &["nothing", "`docker save -o FILE NAME`"]);
    let list = archive(&[("manifest.json".to_owned(), b"[]".to_vec())].into());
    fs_err::write(context.path("list"), list).unwrap();
    refused(&format!("docker-archive:{}", context.text("list")), &["`manifest.json` lists no image", "hint: "]);
    for (name, save) in [("docker://alpine", "alpine"), ("alpine:3", "alpine:3"), ("alpine", "alpine")] {
        refused(name, &[name, &format!("`docker save {save} | minjail slim - -o …`")]);
    }
    let index = context.path("layout/index.json");
    let other = fs_err::read_to_string(&index).unwrap().replace("sha256:", "sha512:");
    fs_err::write(&index, other).unwrap();
    refused(&layout, &["sha512:", "is not a sha256 digest, and no other is read", "hint: "]);
}

#[test]
fn images_without_a_name_have_a_number() {
    let context = TestContext::new();
    let configurations = ["1", "2"].map(|name| configuration(&json!({}), &json!({"Labels": {"number": name}})));
    let mut parts = docker_of(configurations[0].clone(), &[layer()], Compression::Plain);
    let names = configurations.clone().map(|configuration| format!("{}.json", sha256(&configuration)));
    parts.insert(names[1].clone(), configurations[1].clone());
    let list = names.clone().map(|name| json!({"Config": name, "RepoTags": null, "Layers": ["0/layer.tar"]}));
    parts.insert("manifest.json".to_owned(), json!(list).to_string().into_bytes());
    fs_err::write(context.path("image.tar"), archive(&parts)).unwrap();
    let image = format!("docker-archive:{}", context.text("image.tar"));
    let out = format!("oci:{}", context.text("out"));
    let unpack = |image: &str| context.outcome(&["unpack", "-q", image, "--force", "-o", &out]);
    let told = format!("@0 (sha256:{}), @1 (sha256:{})", sha256(&configurations[0]), sha256(&configurations[1]));
    unpack(&image).assert_refused(125, &[&told, "`docker-archive:FILE:@N`"]);
    unpack(&format!("{image}:@2")).assert_refused(125, &["no image here is called `@2`", &told]);
    for (number, label) in [(0, "1"), (1, "2")] {
        unpack(&format!("{image}:@{number}")).success();
        assert_eq!(config_of(&context, "out")["config"]["Labels"]["number"], label);
    }
}

/// Whoever reads an image reads no more of it than the user allows, and for the machine that the user names.
#[test]
fn every_reader_has_limits_and_a_platform() {
    let context = TestContext::new();
    let image = image(&context, "oci", "image", configuration(&json!({}), &json!({})));
    let (out, profile) = (format!("oci:{}", context.text("out")), context.text("profile.yaml"));
    context.outcome(&["slim", "-q", &image, "-o", &out]).success();
    fs_err::write(&profile, "workloads: {one: {run: [/bin/busybox, \"true\"]}}\n").unwrap();
    for arguments in [
        &["run", "-q", "--no-cache", &out][..],
        &["run", "-q", &out],
        &["diff", &out, &out],
        &["check", "-q", &out],
        &["verify", "-q", &out, "-p", &profile],
    ] {
        let with = |more: &[&str]| context.outcome(&[arguments, more].concat());
        with(&["--max-entries", "4000", "--max-size", "32M", "--platform", "linux/amd64"]).success();
        with(&["--max-entries", "2"]).assert_refused(125, &["more than 2 entries", "--max-entries N"]);
        with(&["--max-size", "4K"]).assert_refused(125, &["more than 4096 bytes", "--max-size BYTES"]);
        with(&["--platform", "linux/s390x"]).assert_refused(125, &["no image for linux/s390x", "linux/amd64"]);
    }
}

/// docker's archives have a list of names, and OCI's layouts one for each image.
#[test]
fn all_names_stay_with_the_image() {
    let context = TestContext::new();
    let mut parts = docker_of(configuration(&json!({}), &json!({})), &[layer()], Compression::Plain);
    let mut manifest: Value = serde_json::from_slice(&parts["manifest.json"]).unwrap();
    let names = json!(["x:latest", "registry.example.org/team/x:1.0", "x:1", "x:latest"]);
    manifest[0]["RepoTags"] = names;
    parts.insert("manifest.json".to_owned(), manifest.to_string().into_bytes());
    fs_err::write(context.path("image.tar"), archive(&parts)).unwrap();
    let (image, out) = (format!("docker-archive:{}", context.text("image.tar")), context.text("out"));
    let unpack = |from: &str, to: &str| context.outcome(&["unpack", "-q", "--force", from, "-o", to]).success();
    let read = |name: &str| -> Value {
        let bytes = context.command("tar").args(["-xOf", &out, name]).output().unwrap().stdout;
        serde_json::from_slice(&bytes).unwrap()
    };
    unpack(&image, &format!("docker-archive:{out}"));
    let kept = json!(["x:latest", "registry.example.org/team/x:1.0", "x:1"]);
    assert_eq!(read("manifest.json")[0]["RepoTags"], kept);
    for (name, tag) in [("", "latest"), (":x:1", "1")] {
        unpack(&format!("{image}{name}"), &format!("oci-archive:{out}"));
        let manifests = read("index.json")["manifests"].clone();
        assert_eq!(manifests.as_array().unwrap().len(), 1);
        assert_eq!(manifests[0]["annotations"]["org.opencontainers.image.ref.name"], tag);
    }
}

/// Whatever is wrong, the message names what it is in, and what one can do.
#[test]
fn what_is_refused_is_told_with_a_way_out() {
    let context = TestContext::new();
    let up = tar().file("a/../../b", "x").end();
    let odd = tar().member(b'V', "x", "", b"").end();
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", sha256(bytes));
    let gzip = Compression::Gzip.compress(&layer());
    let (cut, longer) = (gzip[..gzip.len() - 3000].to_vec(), [&gzip, &b"more"[..]].concat());
    let (xz, bzip2) = (b"\xfd7zXZ\0".repeat(200), b"BZh91AY&SY".repeat(200));
    for (blob_of_layer, words) in [
        (up, "refused to unpack `a/../../b` of the layer `"),
        (odd, "a member of an unknown kind"),
        (cut, "failed to read the archive"),
        (longer, "failed to read the archive"),
        (xz, "is compressed by xz"),
        (bzip2, "is compressed by bzip2"),
    ] {
        let layers = [blob_of_layer];
        let config = json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layers[0]))]}});
        lay_out(&oci_of(config.to_string().into_bytes(), &layers, Compression::Plain), &context.path("image"));
        let image = format!("oci:{}", context.text("image"));
        for command in
            [&["unpack", &image, "-o", "oci:out"][..], &["slim", &image, "-o", "oci:out"], &["diff", &image, &image]]
        {
            context.outcome(command).assert_refused(125, &[words, &blob(&layers[0])]);
        }
        fs_err::remove_dir_all(context.path("image")).unwrap();
    }
    let ids = vec![format!("sha256:{}", sha256(&layer())); 2];
    let two = json!({"rootfs": {"type": "layers", "diff_ids": ids}});
    let image = image(&context, "oci", "image", configuration(&two, &json!({})));
    context.outcome(&["diff", &image, &image]).assert_refused(125, &["its configuration lists 2", "pull it again"]);
}

/// Tools differ in which of two they read: nobody could say what is in such an image.
#[test]
fn what_tools_read_in_two_ways_is_no_image() {
    let context = TestContext::new();
    let parts = docker_of(configuration(&json!({}), &json!({})), &[layer()], Compression::Plain);
    let manifest = String::from_utf8(parts["manifest.json"].clone()).unwrap();
    let unpack = |name: &str, bytes: Vec<u8>| {
        fs_err::write(context.path(name), bytes).unwrap();
        let (image, out) = (format!("docker-archive:{}", context.text(name)), context.text(&format!("{name}.out")));
        context.outcome(&["unpack", "-q", &image, "-o", &format!("oci:{out}")])
    };
    let with = |more: &[(&str, &str)]| {
        let whole = archive(&parts);
        let twice = more.iter().fold(tar(), |tar, (name, content)| tar.file(name, content)).end();
        [&whole[..whole.len() - 1024], &twice].concat()
    };
    unpack("same", with(&[("manifest.json", &manifest)])).success();
    for name in ["manifest.json", "./manifest.json", "x/../manifest.json"] {
        let other = manifest.replace("[{", "[ {");
        unpack("other", with(&[(name, &other)])).assert_refused(125, &["`manifest.json` is twice in the archive"]);
    }
    let mut twins = parts.clone();
    twins.insert("manifest.json".to_owned(), manifest.replacen("[{", r#"[{"layers":[],"#, 1).into_bytes());
    unpack("twins", archive(&twins)).assert_refused(125, &["two keys `layers` that differ in case alone"]);
}

/// What `unpack` makes of an OCI layout of these parts, as a directory.
fn unpacked(context: &TestContext, parts: &Parts) -> Outcome {
    lay_out(parts, &context.path("image"));
    let [image, tree] =
        [("oci", "image"), ("rootfs", "tree")].map(|(form, name)| format!("{form}:{}", context.text(name)));
    context.outcome(&["unpack", "-q", &image, "-o", &tree])
}

/// pzstd, and others who write frames that are read side by side, tell in one to be skipped how long the next is.
#[test]
fn zstd_may_begin_with_a_frame_to_be_skipped() {
    let context = TestContext::new();
    let mut parts = oci(&[tar().file("f", "x").end()], Compression::Zstd);
    let is_zstd = |(_, bytes): &(&String, &Vec<u8>)| bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
    let (old, frame) = parts.iter().find(is_zstd).map(|(name, bytes)| (name.clone(), bytes.clone())).unwrap();
    let layer = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0][..], &(frame.len() as u32).to_le_bytes(), &frame].concat();
    parts.remove(&old);
    let [old, new] = [old, blob_name(&layer)];
    let size = |bytes: &[u8]| format!(r#""size":{}"#, bytes.len());
    replace_in_manifest(&mut parts, &[(&hex(&old), &hex(&new)), (&size(&frame), &size(&layer))]);
    parts.insert(new, layer);
    unpacked(&context, &parts).success();
    assert_eq!(fs_err::read_to_string(context.path("tree/f")).unwrap(), "x");
}

fn blob_name(bytes: &[u8]) -> String {
    format!("blobs/sha256/{}", sha256(bytes))
}

fn hex(name: &str) -> String {
    name.rsplit('/').next().unwrap().to_owned()
}

/// Replaces texts in the image manifest, which the index then names anew.
fn replace_in_manifest(parts: &mut Parts, texts: &[(&str, &str)]) {
    let is_manifest = |(_, bytes): &(&String, &Vec<u8>)| bytes.windows(9).any(|text| text == b"\"layers\":");
    let name = parts.iter().find(is_manifest).map(|(name, _)| name.clone()).unwrap();
    let text = String::from_utf8(parts.remove(&name).unwrap()).unwrap();
    let manifest = texts.iter().fold(text, |text, (old, new)| text.replace(old, new)).into_bytes();
    let mut index: Value = serde_json::from_slice(&parts["index.json"]).unwrap();
    index["manifests"][0]["digest"] = format!("sha256:{}", sha256(&manifest)).into();
    index["manifests"][0]["size"] = manifest.len().into();
    parts.insert("index.json".to_owned(), index.to_string().into_bytes());
    parts.insert(blob_name(&manifest), manifest);
}

/// docker leaves the list of layers out where there are none, and Go writes an empty list as `null`.
#[test]
fn an_image_may_have_no_layers() {
    for rootfs in [json!({"type": "layers"}), json!({"type": "layers", "diff_ids": null})] {
        let context = TestContext::new();
        let config = json!({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).to_string().into_bytes();
        let mut parts = oci_of(config.clone(), &[], Compression::Plain);
        unpacked(&context, &parts).success();
        replace_in_manifest(&mut parts, &[("\"layers\":[]", "\"layers\":null")]);
        fs_err::remove_dir_all(context.path("image")).unwrap();
        lay_out(&parts, &context.path("image"));
        let mut docker = docker_of(config, &[], Compression::Plain);
        let list =
            String::from_utf8(docker["manifest.json"].clone()).unwrap().replace("\"Layers\":[]", "\"Layers\":null");
        docker.insert("manifest.json".to_owned(), list.into_bytes());
        fs_err::write(context.path("archive"), archive(&docker)).unwrap();
        let [image, archive] = [("oci", "image"), ("docker-archive", "archive")]
            .map(|(form, name)| format!("{form}:{}", context.text(name)));
        context.outcome(&["diff", &image, &archive]).success();
    }
    let context = TestContext::new();
    let none = Parts::from([("index.json".to_owned(), br#"{"schemaVersion":2,"manifests":null}"#.to_vec())]);
    unpacked(&context, &none).assert_refused(125, &["`index.json` lists no image"]);
}

/// Ctrl-C while a large image is unpacked leaves nothing of it.
#[test]
fn unpacking_can_be_stopped() {
    let context = TestContext::new();
    let many = (0..100_000).fold(tar(), |tar, number| tar.file(&format!("f{number}"), ""));
    fs_err::write(context.path("image"), archive(&docker(&[many.end()], Compression::Gzip))).unwrap();
    let (temporary, cache) = (context.path("temporary"), context.path("cache/minjail/roots"));
    fs_err::create_dir(&temporary).unwrap();
    let image = format!("docker-archive:{}", context.text("image"));
    let tree = format!("rootfs:{}", context.text("tree"));
    let small = format!("oci:{}", context.text("small"));
    for (arguments, place) in
        [(["unpack", "-q", &image, "-o", &tree], &temporary), (["slim", "-q", &image, "-o", &small], &cache)]
    {
        let mut command = Command::new(minjail());
        command
            .args(arguments)
            .env("TMPDIR", &temporary)
            .env("XDG_CACHE_HOME", context.path("cache"))
            .stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let is_there = || fs_err::read_dir(place).is_ok_and(|mut entries| entries.next().is_some());
        while !is_there() {
            std::thread::sleep(Duration::from_millis(1));
        }
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(130) && said.contains("stopped by SIGINT"), "{:?} {said}", output.status);
        assert!(!is_there(), "something is left in {}", place.display());
        assert_eq!(fs_err::read_dir(&temporary).unwrap().count(), 0);
    }
}
