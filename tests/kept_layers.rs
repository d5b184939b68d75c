//! `--layers keep`: what is left of an image's layers stays in layers of its own, so that images of one base share it; and
//! what an image says of itself, its machine and its history, goes with it.

#![expect(clippy::unwrap_used, reason = "these are tests")]

mod support;

use std::path::Path;

use serde_json::{Value, json};
use support::crafted::{Compression, Tar, archive, docker_of, lay_out, oci_of, sha256, tar};
use support::podman::Podman;
use support::{TestContext, has, needs_root, outcome_of, text};

/// A base that two images share: a shell, and something that neither needs.
fn base() -> Vec<u8> {
    let busybox = fs_err::read("/bin/busybox").unwrap();
    let base = tar().directory("bin/").member(b'0', "bin/busybox", "", &busybox).symlink("bin/sh", "busybox");
    base.directory("etc/").file("etc/unused", &"x".repeat(100_000)).directory("srv/").file("srv/base", "base\n").end()
}

fn configuration(layers: &[Vec<u8>], architecture: &str) -> Value {
    let diff_ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", sha256(layer))).collect();
    json!({
        "architecture": architecture, "os": "linux", "variant": "v8",
        "config": {
            "Entrypoint": ["/bin/sh", "-c"], "Cmd": ["cat /srv/*"], "Env": ["COLOUR=green", "COLOUR=red"],
            "Labels": {"org.example.name": "an image"}, "Volumes": {"/data": {}},
        },
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [
            {"created": "2024-01-01T00:00:00Z", "created_by": "ADD base", "comment": "first"},
            {"created": "2024-01-02T00:00:00Z", "created_by": "ENV COLOUR=red", "empty_layer": true},
            {"created": "2024-01-03T00:00:00Z", "created_by": "COPY unused"},
            {"created": "2024-01-04T00:00:00Z", "created_by": "COPY app", "author": "somebody"},
        ],
    })
}

/// An image of three layers, of which the middle one is needed by nobody, and the last has `said`.
fn layers(said: &str) -> Vec<Vec<u8>> {
    let app = |tar: Tar| tar.directory("srv/").file("srv/app", said).file("srv/.wh.base", "").end();
    vec![base(), tar().directory("opt/").file("opt/unused", "nobody needs it").end(), app(tar())]
}

fn config_of(layout: &Path) -> Value {
    let blob = |descriptor: &Value| -> Value {
        let digest = descriptor["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
        serde_json::from_slice(&fs_err::read(layout.join("blobs/sha256").join(digest)).unwrap()).unwrap()
    };
    let index: Value = serde_json::from_slice(&fs_err::read(layout.join("index.json")).unwrap()).unwrap();
    blob(&blob(&index["manifests"][0])["config"])
}

#[test]
fn images_of_one_base_share_its_layer() {
    if !has(&["/bin/busybox", "podman"]) || !needs_root("podman") {
        return;
    }
    let context = TestContext::new();
    let podman = Podman::new();
    let mut bases = Vec::new();
    for (said, form) in [("one\n", "oci"), ("another\n", "docker-archive")] {
        let (layers, image) = (layers(said), context.path(form));
        let config = configuration(&layers, "amd64").to_string().into_bytes();
        if form == "oci" {
            lay_out(&oci_of(config, &layers, Compression::Zstd), &image);
        } else {
            fs_err::write(&image, archive(&docker_of(config, &layers, Compression::Plain))).unwrap();
        }
        let (image, out) = (format!("{form}:{}", text(&image)), format!("thin-{form}"));
        let output = format!("oci:{}", context.text(&out));
        outcome_of(&mut context.minjail(&["slim", "-q", &image, "--layers", "keep", "-o", &output])).success();
        assert_eq!(outcome_of(&mut context.minjail(&["run", "-q", &output])).success().text(), said);
        assert_eq!(podman.run(&podman.pull(&context, &output)).success().text(), said);

        let config = config_of(&context.path(&out));
        let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
        // What is left of two layers, and the mount points, which the image does not have.
        assert_eq!(diff_ids.len(), 3, "{config}");
        bases.push(diff_ids[0].clone());
        let cut = "cut by minjail (format 1)";
        let history = json!([
            {"created": "2024-01-01T00:00:00Z", "created_by": "ADD base", "comment": format!("first; {cut}")},
            {"created": "2024-01-02T00:00:00Z", "created_by": "ENV COLOUR=red", "empty_layer": true},
            {"created": "2024-01-03T00:00:00Z", "created_by": "COPY unused", "empty_layer": true},
            {"created": "2024-01-04T00:00:00Z", "created_by": "COPY app", "author": "somebody", "comment": cut},
            {"created": "1970-01-01T00:00:00Z", "created_by": "minjail (format 1)"},
        ]);
        assert_eq!(config["history"], history);
        assert_eq!(config["config"]["Labels"]["org.example.name"], "an image", "{config}");
        assert_eq!(config["config"]["Volumes"], json!({"/data": {}}), "{config}");
        assert!(config["config"]["Env"].as_array().unwrap().contains(&json!("COLOUR=red")), "{config}");
        assert_eq!(config["variant"], "v8", "{config}");
        again(&context, &image, &out, &config);
    }
    assert_eq!(bases[0], bases[1], "the base is shared");
}

/// The lock makes the same image again, and a second implementation of the format agrees on it.
fn again(context: &TestContext, image: &str, out: &str, config: &Value) {
    let (tree, lock) = (context.text("tree"), context.text(&format!("{out}.lock")));
    outcome_of(&mut context.minjail(&["unpack", "-q", "--force", image, "-o", &format!("rootfs:{tree}")])).success();
    let output = format!("oci:{}", context.text("again"));
    let mut command = context.minjail(&["build", "-q", "--force", "--locked", &lock, "--root", &tree, "-o", &output]);
    outcome_of(&mut command).success();
    assert_eq!(config_of(&context.path("again")), *config);
    let format = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/format1.py");
    let told = outcome_of(context.command("python3").args([format, &lock, &tree])).success().text();
    let mut told: Vec<&str> = told.lines().collect();
    let id = told.pop().unwrap().trim_start_matches("sha256:");
    assert_eq!(json!(told), config["rootfs"]["diff_ids"]);
    assert!(context.path("again/blobs/sha256").join(id).exists(), "{id}");
}

/// One layer says that it is none of those that the steps made. An image for another machine's programs stays one, though
/// this machine runs them too.
#[test]
fn an_image_says_for_which_machine_it_is_and_what_it_was() {
    if !has(&["/bin/busybox"]) {
        return;
    }
    let context = TestContext::new();
    let layers = layers("for i386\n");
    lay_out(
        &oci_of(configuration(&layers, "386").to_string().into_bytes(), &layers, Compression::Gzip),
        &context.path("image"),
    );
    let (image, out) = (format!("oci:{}", context.text("image")), format!("oci:{}", context.text("thin")));
    let slim = ["slim", "-q", "--platform", "linux/386", &image, "--force", "-o", &out];
    outcome_of(&mut context.minjail(&slim)).success();
    let config = config_of(&context.path("thin"));
    assert_eq!(config["architecture"], "386", "{config}");
    let history = config["history"].as_array().unwrap();
    assert!(history.len() == 5 && history[..4].iter().all(|step| step["empty_layer"] == true), "{config}");
    assert_eq!(history[4]["created_by"], "minjail (format 1)", "{config}");
    // Another program in place of the entrypoint, as with `docker run --entrypoint`: the image's `Cmd` is not its.
    let other = ["--entrypoint", "/bin/busybox", "--", "echo", "else"];
    outcome_of(&mut context.minjail(&[&slim[..], &other[..]].concat())).success();
    assert_eq!(outcome_of(&mut context.minjail(&["run", "-q", &out])).success().text(), "else\n");
    assert_eq!(config_of(&context.path("thin"))["config"]["Entrypoint"], json!(["/bin/busybox"]));
}

#[test]
fn unpack_keeps_layers_too_and_what_has_none_keeps_none() {
    let context = TestContext::new();
    let layers = layers("kept\n");
    lay_out(
        &oci_of(configuration(&layers, "amd64").to_string().into_bytes(), &layers, Compression::Plain),
        &context.path("image"),
    );
    let (image, out) = (format!("oci:{}", context.text("image")), format!("oci:{}", context.text("out")));
    let count = || config_of(&context.path("out"))["rootfs"]["diff_ids"].as_array().unwrap().len();
    for (how, expected) in [("one", 1), ("keep", 3)] {
        outcome_of(&mut context.minjail(&["unpack", "-q", &image, "--force", "--layers", how, "-o", &out])).success();
        assert_eq!(count(), expected);
        assert_eq!(outcome_of(&mut context.minjail(&["diff", &image, &out])).status, 0);
    }
    let refused = |arguments: &[&str], words: &str| {
        outcome_of(&mut context.minjail(arguments)).assert_refused(125, &[words]);
    };
    let packages = ["unpack", &image, "--force", "--layers", "packages", "-o", &out];
    refused(&packages, "`unpack` does not look which package a file is of");
    let none = "there are no layers to keep";
    let elsewhere = format!("oci:{}", context.text("elsewhere"));
    refused(&["trace", "--layers", "keep", "-o", &elsewhere, "--", "/bin/true"], none);
    refused(&["slim", "rootfs:/", "--layers", "keep", "-o", &elsewhere, "--", "/bin/true"], none);
}
