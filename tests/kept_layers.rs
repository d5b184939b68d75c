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
    let diff_ids: Vec<String> = layers.iter().map(|layer| diff_id(layer)).collect();
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

/// An image of three layers, of which the middle one is needed by nobody, and all of the last, which has `said`.
fn layers(said: &str) -> Vec<Vec<u8>> {
    // The directory has the time of the build, which is another one for each image.
    let time = format!("17000000{:02}", said.len());
    let dated = |tar: Tar| tar.pax(&[("mtime", time.as_bytes())]);
    let app = dated(dated(tar()).directory("srv/")).file("srv/app", said).file("srv/.wh.base", "").end();
    vec![base(), tar().directory("opt/").file("opt/unused", "nobody needs it").end(), app]
}

fn diff_id(layer: &[u8]) -> String {
    format!("sha256:{}", sha256(layer))
}

fn blob(layout: &Path, descriptor: &Value) -> Vec<u8> {
    let digest = descriptor["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    fs_err::read(layout.join("blobs/sha256").join(digest)).unwrap()
}

fn manifest_of(layout: &Path) -> Value {
    let index: Value = serde_json::from_slice(&fs_err::read(layout.join("index.json")).unwrap()).unwrap();
    serde_json::from_slice(&blob(layout, &index["manifests"][0])).unwrap()
}

fn config_of(layout: &Path) -> Value {
    serde_json::from_slice(&blob(layout, &manifest_of(layout)["config"])).unwrap()
}

fn lock_of(context: &TestContext, out: &str) -> Value {
    context.json(&format!("{out}.lock"))
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
        let whole = diff_id(&layers[2]);
        let config = configuration(&layers, "amd64").to_string().into_bytes();
        if form == "oci" {
            lay_out(&oci_of(config, &layers, Compression::Zstd), &image);
        } else {
            fs_err::write(&image, archive(&docker_of(config, &layers, Compression::Plain))).unwrap();
        }
        let (image_path, out) = (image.clone(), format!("thin-{form}"));
        let image = format!("{form}:{}", text(&image));
        let output = format!("oci:{}", context.text(&out));
        let told = context.outcome(&["slim", &image, "--layers", "keep", "-o", &output]).success();
        assert!(told.stderr.contains("  3 layers, 1 of the whole image as it was\n"), "{told}");
        assert_eq!(context.outcome(&["run", "-q", &output]).success().text(), said);
        assert_eq!(podman.run(&podman.pull(&context, &output)).success().text(), said);

        let config = config_of(&context.path(&out));
        let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
        // What is left of two layers, and the mount points, which the image does not have.
        assert_eq!(diff_ids.len(), 3, "{config}");
        bases.push(diff_ids[0].clone());
        // What is needed whole is the image's own layer, byte for byte, and the lock says which.
        assert_eq!(diff_ids[1], json!(whole));
        let (kept, lock) = (manifest_of(&context.path(&out))["layers"][1].clone(), lock_of(&context, &out));
        if form == "oci" {
            assert_eq!(kept, manifest_of(&image_path)["layers"][2]);
            assert_eq!(blob(&context.path(&out), &kept), blob(&image_path, &kept));
            assert_eq!(lock["originals"], json!([{"layer": 1, "diff-id": whole, "blob": kept["digest"]}]));
        } else {
            assert_eq!(kept["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
            assert_eq!(lock["originals"], json!([{"layer": 1, "diff-id": whole}]));
        }
        context.outcome(&["check", "-q", &output]).success();
        let cut = "cut by minjail (format 1)";
        let history = json!([
            {"created": "2024-01-01T00:00:00Z", "created_by": "ADD base", "comment": format!("first; {cut}")},
            {"created": "2024-01-02T00:00:00Z", "created_by": "ENV COLOUR=red", "empty_layer": true},
            {"created": "2024-01-03T00:00:00Z", "created_by": "COPY unused", "empty_layer": true},
            {"created": "2024-01-04T00:00:00Z", "created_by": "COPY app", "author": "somebody"},
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
    context.outcome(&["unpack", "-q", "--force", image, "-o", &format!("rootfs:{tree}")]).success();
    let output = format!("oci:{}", context.text("again"));
    let locked = ["build", "-q", "--force", "--locked", &lock, "--root"];
    let build = |root: &str, out: &str| context.outcome(&[&locked[..], &[root, "-o", out]].concat());
    // The layer that is not made must come from somewhere; a tree has no layers.
    build(&tree, &output).assert_refused(125, &["layer 1 of the lock is sha256:", "`--root oci:DIR`"]);
    build(&tree, &format!("rootfs:{}", context.text("again-tree"))).success();
    build(image, &output).success();
    assert_eq!(config_of(&context.path("again")), *config);
    assert_eq!(manifest_of(&context.path("again")), manifest_of(&context.path(out)));
    // Other archives of the same have the same layers.
    let archived = format!("docker-archive:{}", context.text("again.tar"));
    build(image, &archived).success();
    context.outcome(&["check", "-q", &archived, "--lock", &lock]).success();
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
    context.outcome(&slim).success();
    let config = config_of(&context.path("thin"));
    assert_eq!(config["architecture"], "386", "{config}");
    let history = config["history"].as_array().unwrap();
    assert!(history.len() == 5 && history[..4].iter().all(|step| step["empty_layer"] == true), "{config}");
    assert_eq!(history[4]["created_by"], "minjail (format 1)", "{config}");
    // Another program in place of the entrypoint, as with `docker run --entrypoint`: the image's `Cmd` is not its.
    let other = ["--entrypoint", "/bin/busybox", "--", "echo", "else"];
    context.outcome(&[&slim[..], &other[..]].concat()).success();
    assert_eq!(context.outcome(&["run", "-q", &out]).success().text(), "else\n");
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
        context.outcome(&["unpack", "-q", &image, "--force", "--layers", how, "-o", &out]).success();
        assert_eq!(count(), expected);
        assert_eq!(context.outcome(&["diff", &image, &out]).status, 0);
    }
    let refused = |arguments: &[&str], words: &str| {
        context.outcome(arguments).assert_refused(125, &[words]);
    };
    let packages = ["unpack", &image, "--force", "--layers", "packages", "-o", &out];
    refused(&packages, "`unpack` does not look which package a file is of");
    let none = "there are no layers to keep";
    let elsewhere = format!("oci:{}", context.text("elsewhere"));
    refused(&["trace", "--layers", "keep", "-o", &elsewhere, "--", "/bin/true"], none);
    refused(&["slim", "rootfs:/", "--layers", "keep", "-o", &elsewhere, "--", "/bin/true"], none);
}

/// What a layer must be to be kept as it is. Whatever is in doubt is written anew, and is the same to whoever reads it.
#[test]
fn a_layer_is_kept_only_if_it_says_what_would_be_written() {
    if !has(&["/bin/busybox"]) {
        return;
    }
    let context = TestContext::new();
    let busybox = fs_err::read("/bin/busybox").unwrap();
    let below = tar().directory("bin/").member(b'0', "bin/busybox", "", &busybox).symlink("bin/sh", "busybox");
    let below = below.directory("srv/").file("srv/below", "below\n").end();
    let (srv, app) = (|| tar().directory("srv/"), "app\n");
    let set_user = |mut layer: Vec<u8>| {
        // The mode of the second member; the checksum is seven digits.
        layer[512 + 100..][..8].copy_from_slice(b"0004755\0");
        let sum: u32 = (0..512).map(|at| if (148..156).contains(&at) { 32 } else { u32::from(layer[512 + at]) }).sum();
        layer[512 + 148..][..8].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        layer
    };
    let cases = [
        ("all is needed", true, srv().file("srv/app", app).end()),
        ("other spellings", true, tar().directory("./").directory("./srv").file("/srv//app", app).end()),
        ("its own times", true, srv().pax(&[("mtime", b"1700000000.0")]).file("srv/app", app).end()),
        ("set-user-ID", true, set_user(srv().file("srv/app", app).end())),
        ("a hard link in it", true, srv().file("srv/b", app).hard_link("srv/a", "srv/b").end()),
        ("attributes", true, srv().pax(&[("SCHILY.xattr.user.a", b"b")]).file("srv/app", app).end()),
        (
            "a comment",
            true,
            tar().member(b'g', "g", "", b"13 comment=x\n").directory("srv/").file("srv/app", app).end(),
        ),
        ("no end", true, srv().file("srv/app", app).end()[..2048].to_vec()),
        ("hides what was below", true, srv().file("srv/.wh.below", "").file("srv/app", app).end()),
        ("hides all below", true, srv().file("srv/.wh..wh..opq", "").file("srv/app", app).end()),
        ("hides nothing", true, srv().file("srv/.wh.nothing", "").file("srv/app", app).end()),
        ("more than is needed", false, srv().file("srv/app", app).directory("opt/").file("opt/x", "x").end()),
        ("an empty directory more", false, srv().file("srv/app", app).directory("opt/").end()),
        ("twice", false, srv().file("srv/app", "old\n").file("srv/app", app).end()),
        ("a directory twice", false, srv().file("srv/app", app).directory("srv").end()),
        ("data behind the end", false, [srv().file("srv/app", app).end(), b"hidden".to_vec()].concat()),
        ("a hard link to a layer below", false, srv().file("srv/app", app).hard_link("srv/too", "srv/below").end()),
        ("parts of seconds", false, srv().pax(&[("mtime", b"1700000000.5")]).file("srv/app", app).end()),
        ("an unknown record", false, srv().pax(&[("LIBARCHIVE.xattr.user.a", b"eA")]).file("srv/app", app).end()),
        (
            "an attribute of the machine",
            false,
            srv().pax(&[("SCHILY.xattr.security.selinux", b"x")]).file("srv/app", app).end(),
        ),
        (
            "a global record",
            false,
            tar().member(b'g', "g", "", b"11 uname=x\n").directory("srv/").file("srv/app", app).end(),
        ),
        (
            "two names",
            false,
            srv().member(b'L', "L", "", b"srv/app\0").pax(&[("path", b"srv/app")]).file("x", app).end(),
        ),
        ("two extended headers", false, srv().pax(&[("uid", b"1")]).pax(&[("uid", b"0")]).file("srv/app", app).end()),
        ("type 7", false, srv().member(b'7', "srv/app", "", app.as_bytes()).end()),
        ("no directory", false, tar().file("srv/app", app).end()),
        ("hides what it has", false, srv().file("srv/.wh.app", "").file("srv/app", app).end()),
        ("AUFS's own", false, srv().file("srv/.wh..wh.plnk", "").file("srv/app", app).end()),
        ("below a whiteout", false, srv().file("srv/app", app).file(".wh.x/y", "").end()),
        ("hides below nothing", false, srv().file("srv/app", app).file("opt/.wh.x", "").end()),
        ("through a link", false, tar().symlink("link", "srv").file("link/app", app).directory("srv/").end()),
    ];
    for (case, is_kept, layer) in cases {
        let (layers, out) = (vec![below.clone(), layer], format!("oci:{}", context.text("out")));
        let image = context.path("image");
        let mut config = configuration(&layers, "amd64");
        config["history"] = json!([]);
        lay_out(&oci_of(config.to_string().into_bytes(), &layers, Compression::Gzip), &image);
        let image_name = format!("oci:{}", text(&image));
        let expected = context.outcome(&["run", "-q", "--no-cache", &image_name]).success();
        let slim = ["slim", "-q", "--no-cache", "--no-verify", &image_name, "--layers", "keep", "-o", &out];
        context.outcome(&slim).success();
        let kept = diff_id(&layers[1]);
        let diff_ids = config_of(&context.path("out"))["rootfs"]["diff_ids"].clone();
        let has_it = diff_ids.as_array().unwrap().contains(&json!(kept));
        let lock = lock_of(&context, "out");
        let is_listed =
            lock["originals"].as_array().is_some_and(|list| list.iter().any(|one| one["diff-id"] == json!(kept)));
        assert_eq!((has_it, is_listed), (is_kept, is_kept), "{case}: {diff_ids}");
        context.outcome(&["check", "-q", &out]).success();
        context.outcome(&["run", "-q", "--no-cache", &out]).assert_same_as(&expected);
        for made in ["image", "out"] {
            fs_err::remove_dir_all(context.path(made)).unwrap();
        }
        fs_err::remove_file(context.path("out.lock")).unwrap();
    }
}

/// A lock that says a layer is another image's is held against that layer, when it is built from and when it is checked.
#[test]
fn a_lock_cannot_say_of_an_original_what_that_is_not() {
    if !has(&["/bin/busybox"]) {
        return;
    }
    let context = TestContext::new();
    let lay = |name: &str, said: &str| {
        let layers = layers(said);
        let config = configuration(&layers, "amd64").to_string().into_bytes();
        lay_out(&oci_of(config, &layers, Compression::Gzip), &context.path(name));
        format!("oci:{}", context.text(name))
    };
    let (image, other) = (lay("image", "one\n"), lay("other", "two\n"));
    let (out, thin) = (|name: &str| format!("oci:{}", context.text(name)), context.text("thin"));
    for (image, name) in [(&image, "thin"), (&other, "other-thin")] {
        let slim = ["slim", "-q", "--no-verify", image, "--layers", "keep", "-o", &out(name)];
        context.outcome(&slim).success();
    }
    let lock = format!("{thin}.lock");
    let build = |root: &str| {
        let locked = ["build", "-q", "--force", "--locked", &lock, "--root", root, "-o", &out("again")];
        context.outcome(&locked)
    };
    build(&other).assert_refused(125, &["the lock is of another image"]);
    let plain = lay_out_plain(&context, &layers("one\n"));
    build(&plain).assert_refused(125, &["are not what the lock says", "originals"]);
    build(&image).success();

    // An image with a layer that is the same to look at, and another blob.
    let locks =
        [fs_err::read_to_string(&lock).unwrap(), fs_err::read_to_string(context.path("other-thin.lock")).unwrap()];
    let [own, others] = locks.each_ref().map(|lock| {
        let lock: Value = serde_json::from_str(lock).unwrap();
        lock["originals"][0]["diff-id"].as_str().unwrap().to_owned()
    });
    fs_err::write(&lock, locks[0].replace(&own, &others)).unwrap();
    let checked = context.outcome(&["check", &out("thin")]);
    assert!(
        checked.status == 1 && checked.text().contains(&format!("original layer 1 {others} -> 1 {own}")),
        "{checked}"
    );
    build(&other).assert_refused(125, &["are not what the lock says"]);
}

fn lay_out_plain(context: &TestContext, layers: &[Vec<u8>]) -> String {
    let config = configuration(layers, "amd64").to_string().into_bytes();
    lay_out(&oci_of(config, layers, Compression::Plain), &context.path("plain"));
    format!("oci:{}", context.text("plain"))
}

/// What a user has typed counts: with other times a layer is another one.
#[test]
fn a_time_that_is_asked_for_counts_before_a_whole_layer() {
    if !has(&["/bin/busybox"]) {
        return;
    }
    let context = TestContext::new();
    let layers = layers("one\n");
    let image = lay_out_plain(&context, &layers);
    let out = format!("oci:{}", context.text("out"));
    for (times, is_kept) in [("files", true), ("keep", true), ("fixed", false), ("packaged", false)] {
        let slim = ["slim", "-q", "--force", "--no-verify", &image, "--layers", "keep", "--mtime", times, "-o", &out];
        context.outcome(&slim).success();
        let diff_ids = config_of(&context.path("out"))["rootfs"]["diff_ids"].clone();
        assert_eq!(diff_ids.as_array().unwrap().contains(&json!(diff_id(&layers[2]))), is_kept, "{times}");
        context.outcome(&["check", "-q", &out]).success();
    }
}

/// `unpack --layers keep` only changes the form: layers stay as they are, with what those above hide, and so does a history
/// that there is, or is not.
#[test]
fn unpack_leaves_layers_as_they_are() {
    let context = TestContext::new();
    // The last two are the same blob, as are all empty layers of docker's.
    let hidden = tar().directory("srv/").file("srv/app", "older\n").end();
    let layers = [hidden, layers("kept\n").remove(2), tar().end(), tar().end()];
    for (compression, history) in [(Compression::Zstd, Value::Null), (Compression::Plain, json!([{"created_by": "x"}]))]
    {
        let mut config = configuration(&layers, "amd64");
        config["history"] = history.clone();
        lay_out(&oci_of(config.to_string().into_bytes(), &layers, compression), &context.path("image"));
        let form = |form: &str, name: &str| format!("{form}:{}", context.text(name));
        let unpack = |from: &str, to: &str| {
            context.outcome(&["unpack", "-q", from, "--layers", "keep", "-o", to]).success();
        };
        let image = form("oci", "image");
        // Through every form and back, standard output too.
        unpack(&image, &form("oci-archive", "archive.tar"));
        unpack(&form("oci-archive", "archive.tar"), &form("oci", "again"));
        let stream = context.outcome(&["unpack", "-q", &image, "--layers", "keep", "-o", "oci-archive:-"]);
        fs_err::write(context.path("stream.tar"), &stream.success().stdout).unwrap();
        unpack(&form("oci-archive", "stream.tar"), &form("oci", "streamed"));
        unpack(&image, &form("docker-archive", "docker.tar"));
        unpack(&form("docker-archive", "docker.tar"), &form("oci", "from-docker"));
        let expected = manifest_of(&context.path("image"))["layers"].clone();
        for again in ["again", "streamed"] {
            assert_eq!(manifest_of(&context.path(again))["layers"], expected, "{again}");
            assert_eq!(fs_err::read_dir(context.path(&format!("{again}/blobs/sha256"))).unwrap().count(), 5);
        }
        let told = config_of(&context.path("from-docker"));
        assert_eq!(told["rootfs"], config["rootfs"]);
        let said = told.get("history").cloned().unwrap_or_default();
        if history.is_null() {
            assert_eq!(said, Value::Null, "nobody has said how it came to be");
        } else {
            let kept = json!({"comment": "kept by minjail (format 1)"});
            assert_eq!(said, json!([{"created_by": "x", "empty_layer": true}, kept, kept, kept, kept]));
        }
        for made in ["image", "again", "streamed", "from-docker"] {
            fs_err::remove_dir_all(context.path(made)).unwrap();
        }
        for made in ["archive.tar", "stream.tar", "docker.tar"] {
            fs_err::remove_file(context.path(made)).unwrap();
        }
    }
}

/// What people do: a base, a COPY of a program and its configuration. The copied layer is buildah's own afterwards, too, and
/// podman runs it from there.
#[test]
fn a_layer_that_buildah_made_is_kept() {
    if !has(&["buildah", "podman", "/bin/busybox"]) || !needs_root("buildah's store") {
        return;
    }
    let context = TestContext::new();
    let work = context.work();
    for directory in ["root/bin", "root/srv", "app/etc"] {
        fs_err::create_dir_all(work.join(directory)).unwrap();
    }
    fs_err::copy("/bin/busybox", work.join("root/bin/busybox")).unwrap();
    std::os::unix::fs::symlink("busybox", work.join("root/bin/sh")).unwrap();
    fs_err::write(work.join("root/srv/unneeded"), "x".repeat(10_000)).unwrap();
    fs_err::write(work.join("app/etc/app.conf"), "from the image\n").unwrap();
    fs_err::write(work.join("app/run.sh"), "read line < /srv/app/etc/app.conf; echo $line\n").unwrap();
    let containerfile = "FROM scratch\nCOPY root /\nCOPY app /srv/app\nENTRYPOINT [\"/bin/sh\", \"/srv/app/run.sh\"]\n";
    fs_err::write(work.join("Containerfile"), containerfile).unwrap();
    let podman = Podman::new();
    for arguments in [&["bud", "-q", "--layers", "-t", "app", "."][..], &["push", "-q", "app", "oci:image:1"]] {
        let mut command = context.command("buildah");
        command.args(["--storage-driver", "vfs"]).args(arguments).current_dir(&work).envs(podman.environment());
        outcome_of(&mut command).success();
    }
    let (image, thin) = (format!("oci:{}", text(&work.join("image"))), format!("oci:{}", context.text("thin")));
    context.outcome(&["slim", "-q", &image, "--layers", "keep", "-o", &thin]).success();
    let [whole, small] =
        [work.join("image"), context.path("thin")].map(|layout| manifest_of(&layout)["layers"].clone());
    assert_eq!((whole.as_array().unwrap().len(), &small[1]), (2, &whole[1]), "{small}");
    assert_ne!(small[0], whole[0]);
    assert_eq!(podman.run(&podman.pull(&context, &thin)).success().text(), "from the image\n");
    let archived = format!("docker-archive:{}", context.text("thin.tar"));
    context.outcome(&["unpack", "-q", &thin, "--layers", "keep", "-o", &archived]).success();
    assert_eq!(podman.run(&podman.load(&context.path("thin.tar"))).success().text(), "from the image\n");
}

/// What the history of an image and docker's record of its last step say of a variable is said of it as well.
#[test]
fn a_secret_variable_is_nowhere_in_the_smaller_image() {
    if !has(&["/bin/busybox"]) {
        return;
    }
    let context = TestContext::new();
    let layers = layers("from the image\n");
    let mut config = configuration(&layers, "amd64");
    config["config"]["Env"] = json!(["DB_PASSWORD=hunter22", "COLOUR=red"]);
    config["history"][1]["created_by"] = json!("ENV DB_PASSWORD=hunter22");
    config["container_config"] = json!({"Env": ["DB_PASSWORD=hunter22"], "Healthcheck": {"Test": ["CMD", "gone"]}});
    fs_err::write(
        context.path("image.tar"),
        archive(&docker_of(config.to_string().into_bytes(), &layers, Compression::Plain)),
    )
    .unwrap();
    let image = format!("docker-archive:{}", context.text("image.tar"));
    let slim = |out: &str, more: &[&str]| {
        let output = format!("oci:{}", context.text(out));
        let told = context.outcome(&[&["slim", &image, "-o", &output], more].concat()).success();
        let (config, lock) = (config_of(&context.path(out)).to_string(), lock_of(&context, out).to_string());
        (told.stderr, config, lock)
    };
    for (out, how) in [("one", "one"), ("kept", "keep")] {
        let (told, config, lock) = slim(out, &["--layers", how]);
        assert!(told.contains("DB_PASSWORD looks like a secret; the image does not have it"), "{told}");
        assert!(!config.contains("hunter22") && config.contains("ENV DB_PASSWORD=…"), "{config}");
        assert!(!config.contains("container_config"), "{config}");
        assert!(!lock.contains("hunter22"), "{lock}");
    }
    let (_, config, _) = slim("allowed", &["--allow-secret", "env:DB_PASSWORD"]);
    assert!(config.contains("ENV DB_PASSWORD=hunter22"), "{config}");
}

/// A lock of more layers than an image has would be one that nobody can read.
#[test]
fn too_many_layers_are_not_kept() {
    if !has(&["/bin/busybox"]) {
        return;
    }
    let context = TestContext::new();
    let mut layers = vec![base()];
    layers.extend((0..127).map(|number| tar().directory("srv/").file(&format!("srv/{number}"), "x\n").end()));
    let mut config = configuration(&layers, "amd64");
    config["history"] = json!([]);
    lay_out(&oci_of(config.to_string().into_bytes(), &layers, Compression::Plain), &context.path("image"));
    let (image, out) = (format!("oci:{}", context.text("image")), format!("oci:{}", context.text("out")));
    let tree = format!("rootfs:{}", context.text("tree"));
    let slim = |how: &str| context.outcome(&["slim", "-q", "--no-verify", &image, "--layers", how, "-o", &out]);
    slim("keep").assert_refused(125, &["an image has at most 127", "--layers one"]);
    slim("one").success();
    let unpack = |out: &str| context.outcome(&["unpack", "-q", "--force", &image, "--layers", "keep", "-o", out]);
    unpack(&tree).assert_refused(125, &["an image has at most 127", "--layers one"]);
    unpack(&out).success();
    assert_eq!(config_of(&context.path("out"))["rootfs"], config["rootfs"]);
}
