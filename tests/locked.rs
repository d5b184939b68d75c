//! The lock as a promise: the same bytes from it alone, and every drift told; `diff` and `check` besides.

mod support;

use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use support::crafted::{Compression, archive as archive_of, docker_of, sha256, tar};
use support::{Outcome, TestContext, outcome_of};

/// A shell script that reads two files and leaves a third alone, traced and built as `oci:image`.
fn built(context: &TestContext) {
    let inputs = [("app", "#!/bin/sh\ncat one two >/dev/null\n"), ("one", "1\n"), ("two", "2\n")];
    context.lay_out(&inputs);
    let app = context.work().join("app");
    fs_err::set_permissions(&app, PermissionsExt::from_mode(0o755)).expect("it is ours");
    let image = format!("oci:{}", context.text("image"));
    let mut command = context.minjail(&["trace", "-q", "-t", &context.text("app.trace"), "-o", &image]);
    command.args(["--lock", &context.text("app.lock"), "--", &support::text(&app)]);
    outcome_of(&mut command).success();
}

fn locked(context: &TestContext, arguments: &[&str]) -> Outcome {
    let lock = context.text("app.lock");
    let mut command = context.minjail(&["build", "-q", "--locked", &lock]);
    outcome_of(command.args(arguments))
}

fn digest(context: &TestContext, image: &str) -> String {
    fs_err::read_to_string(context.path(image).join("index.json")).expect("it was built")
}

#[test]
fn a_lock_alone_gives_the_same_bytes() {
    let context = TestContext::new();
    built(&context);
    let trace = context.text("app.trace");
    let (alone, traced) = (format!("oci:{}", context.text("alone")), format!("oci:{}", context.text("traced")));
    locked(&context, &["-o", &alone]).success();
    locked(&context, &["-t", &trace, "-o", &traced]).success();
    assert_eq!(digest(&context, "alone"), digest(&context, "image"));
    assert_eq!(digest(&context, "traced"), digest(&context, "image"));
    let lock = |name: &str| fs_err::read(context.path(name)).expect("it was written");
    assert_eq!(lock("alone.lock"), lock("app.lock"));
}

/// What a profile says of that is in no trace.
#[test]
fn how_an_image_is_run_is_the_lock_s_to_say() {
    let context = TestContext::new();
    let profile = "workloads: {once: {run: [/bin/true]}}\nimage: {labels: {role: test}, stop-signal: QUIT}\n";
    context.lay_out(&[("app.yaml", profile)]);
    let trace = context.text("app.trace");
    let (profiled, again) = (format!("oci:{}", context.text("profiled")), format!("oci:{}", context.text("again")));
    context.outcome(&["build", "-q", "app.yaml", "--keep-trace", &trace, "-o", &profiled]).success();
    let lock = context.text("profiled.lock");
    context.outcome(&["build", "-q", "-t", &trace, "--locked", &lock, "-o", &again]).success();
    assert_eq!(digest(&context, "again"), digest(&context, "profiled"));
}

#[test]
fn every_drift_is_told_and_nothing_is_built() {
    let context = TestContext::new();
    built(&context);
    let work = support::text(&context.work());
    fs_err::write(context.work().join("one"), "changed\n").expect("it is ours");
    fs_err::remove_file(context.work().join("two")).expect("it is ours");
    fs_err::set_permissions(context.work().join("app"), PermissionsExt::from_mode(0o700)).expect("it is ours");
    let before = context.listing();
    let output = format!("oci:{}", context.text("out"));
    for traces in [vec![], vec!["-t".to_owned(), context.text("app.trace")]] {
        let mut arguments: Vec<&str> = traces.iter().map(String::as_str).collect();
        arguments.extend(["-o", &output]);
        let outcome = locked(&context, &arguments);
        outcome.assert_refused(125, &["3 paths differ from the lock"]);
        for line in [
            format!("changed {work}/app: mode 0755 -> 0700"),
            format!("changed {work}/one: content sha256:"),
            format!("removed {work}/two (2 bytes)"),
        ] {
            assert!(outcome.stderr.contains(&line), "{line:?} is missing\n{outcome}");
        }
        assert_eq!(context.listing(), before);
    }
}

#[test]
fn what_a_trace_needs_besides_the_lock_is_drift() {
    let context = TestContext::new();
    built(&context);
    let other = context.text("other.trace");
    let file = context.text("work/three");
    fs_err::write(context.work().join("three"), "3\n").expect("it is ours");
    context.outcome(&["trace", "-q", "-t", &other, "--", "/bin/cat", &file]).success();
    let output = format!("oci:{}", context.text("out"));
    let outcome = locked(&context, &["-t", &context.text("app.trace"), "-t", &other, "-o", &output]);
    outcome.assert_refused(125, &["from the lock", &format!("added {file} (2 bytes)")]);
    assert!(!context.path("out").exists());
}

#[test]
fn another_package_version_is_drift() {
    let context = TestContext::new();
    built(&context);
    let path = context.path("app.lock");
    let lock = fs_err::read_to_string(&path).expect("it was written");
    let at = lock.find("deb:dash=").expect("the shell is from a package") + "deb:dash=".len();
    fs_err::write(&path, [&lock[..at], "0~", &lock[at..]].concat()).expect("it is ours");
    let outcome = locked(&context, &["-o", &format!("oci:{}", context.text("out"))]);
    outcome.assert_refused(125, &["package deb:dash=0~", "from the lock"]);
}

#[test]
fn every_form_is_as_its_lock_says_and_a_changed_one_is_not() {
    let context = TestContext::new();
    built(&context);
    let lock = context.text("app.lock");
    let forms = ["oci-archive:a.tar", "docker-archive:d.tar", "layer:l.tar.gz", "rootfs:tree"];
    let place = |form: &str| {
        let (form, name) = form.split_once(':').expect("a form");
        format!("{form}:{}", context.text(name))
    };
    for form in forms {
        let output = place(form);
        locked(&context, &["-o", &output]).success();
        context.outcome(&["check", &output]).success();
        let same = context.outcome(&["diff", &lock, &output]).success();
        assert_eq!(same.text(), "", "{same}");
    }
    context.outcome(&["check", "/", "--lock", &lock]).success();
    // The tree as a system: it has no database of packages.
    let tree = context.path("tree");
    context.outcome(&["check", &support::text(&tree), "--lock", &lock]).success();
    // user::rw-, user:1777:rw-, group::r--, mask::rw-, other::r-- (acl(5)): the mode of the group is the mask's.
    let entries = [(1, 6, u32::MAX), (2, 6, 1777), (4, 4, u32::MAX), (0x10, 6, u32::MAX), (0x20, 4, u32::MAX)];
    let entry = |(tag, allowed, id): (u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &allowed.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let list = [vec![2, 0, 0, 0], entries.map(entry).concat()].concat();
    let listed = tree.join("usr/bin/cat");
    xattr::set(&listed, "system.posix_acl_access", &list).expect("the file system has access control lists");
    for (checked, name) in [(place("rootfs:tree"), "rootfs"), (support::text(&tree), "system")] {
        let outcome = context.outcome(&["check", &checked, "--lock", &lock]);
        assert!(outcome.status == 1 && outcome.text().contains("usr/bin/cat"), "{name}: {outcome}");
    }
    xattr::remove(&listed, "system.posix_acl_access").expect("it was set");
    fs_err::set_permissions(&listed, PermissionsExt::from_mode(0o755)).expect("it is ours");

    let inside = tree.join(support::text(&context.work()).trim_start_matches('/'));
    fs_err::write(inside.join("one"), "9\n").expect("it is ours");
    fs_err::write(inside.join("extra"), "extra").expect("it is ours");
    fs_err::remove_file(inside.join("two")).expect("it is ours");
    let outcome = context.outcome(&["check", "--json", &place("rootfs:tree")]);
    assert_eq!(outcome.status, 1, "{outcome}");
    let told: Value = serde_json::from_slice(&outcome.stdout).expect("it is JSON");
    assert_eq!((&told["added"], &told["removed"]), (&1.into(), &1.into()), "{told}");
    assert_eq!((&told["added-bytes"], &told["removed-bytes"]), (&5.into(), &2.into()), "{told}");
    let differences = told["differences"].as_array().expect("a list");
    let one = differences.iter().find(|one| one["path"].as_str().is_some_and(|path| path.ends_with("/one")));
    assert_eq!(one.expect("it is told")["aspects"][0]["what"], "content", "{told}");

    fs_err::write(context.work().join("one"), "changed\n").expect("it is ours");
    let outcome = context.outcome(&["check", "/", "--lock", &lock]);
    assert_eq!(outcome.status, 1, "{outcome}");
    assert!(outcome.text().contains("work/one: content sha256:"), "{outcome}");
}

/// What an engine may make something of, though its files are those of the lock: bytes that minjail reads past, or what a later layer
/// hides.
#[test]
fn what_no_file_shows_is_told() {
    let context = TestContext::new();
    built(&context);
    let (lock, archive) = (context.text("app.lock"), context.text("d.tar"));
    locked(&context, &["-o", &format!("docker-archive:{archive}")]).success();
    let parts = context.path("parts");
    fs_err::create_dir(&parts).expect("it can be made");
    outcome_of(context.command("tar").args(["-C", &support::text(&parts), "-xf", &archive])).success();
    let manifest: Value = serde_json::from_slice(&fs_err::read(parts.join("manifest.json")).unwrap()).unwrap();
    let part = |name: &Value| fs_err::read(parts.join(name.as_str().unwrap())).unwrap();
    let config: Value = serde_json::from_slice(&part(&manifest[0]["Config"])).unwrap();
    let layer = part(&manifest[0]["Layers"][0]);

    let open = |tar: Vec<u8>| tar[..tar.len() - 1024].to_vec();
    let list = [2_u8, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255];
    let listed = open(tar().pax(&[("SCHILY.xattr.system.posix_acl_access", &list)]).end());
    let hidden = tar().file("usr/bin/key", "hidden").end();
    let whiteout = open(tar().file("usr/bin/.wh.key", "").end());
    let changed = |key: &str, value: Value| {
        let mut config = config.clone();
        config[key] = value;
        config
    };
    let others = [
        ("", vec![layer.clone()], config.clone()),
        ("bytes of layer 0 -> others at its end", vec![[&layer[..], &[0; 512]].concat()], config.clone()),
        ("bytes of layer 0 -> others at /", vec![[listed, layer.clone()].concat()], config.clone()),
        ("number of layers 1 -> 2", vec![hidden, [whiteout, layer.clone()].concat()], config.clone()),
        ("number of layers 1 -> 2", vec![layer.clone(), layer.clone()], config.clone()),
        ("created", vec![layer.clone()], changed("created", "2001-01-01T00:00:00Z".into())),
        ("history", vec![layer.clone()], changed("history", serde_json::json!([{"comment": "by somebody else"}]))),
        // As some readers take it for `empty_layer`.
        ("EMPTY_LAYER true", vec![layer.clone()], {
            let mut config = config.clone();
            config["history"][0]["EMPTY_LAYER"] = true.into();
            config
        }),
        ("anything \"x\"", vec![layer.clone()], {
            let mut config = config.clone();
            config["rootfs"]["anything"] = "x".into();
            config
        }),
    ];
    for (told, layers, mut config) in others {
        let diff_ids = layers.iter().map(|layer| format!("sha256:{}", sha256(layer)));
        config["rootfs"]["diff_ids"] = diff_ids.collect::<Vec<_>>().into();
        let parts = docker_of(config.to_string().into_bytes(), &layers, Compression::Plain);
        fs_err::write(context.path("other.tar"), archive_of(&parts)).unwrap();
        let other = format!("docker-archive:{}", context.text("other.tar"));
        let outcome = context.outcome(&["check", &other, "--lock", &lock]);
        assert_eq!(outcome.status, i32::from(!told.is_empty()), "{told}: {outcome}");
        assert!(outcome.text().contains(told), "{told}: {outcome}");
    }
    // The bare layer says nothing of itself.
    fs_err::write(context.path("bare.tar"), [&layer[..], &[0; 512]].concat()).unwrap();
    let outcome = context.outcome(&["check", &format!("layer:{}", context.text("bare.tar")), "--lock", &lock]);
    assert_eq!((outcome.status, outcome.text().contains("others at its end")), (1, true), "{outcome}");
}

#[test]
fn what_the_run_changed_is_rebuilt_from_the_trace() {
    let context = TestContext::new();
    context.lay_out(&[("state", "before\n")]);
    let trace = context.text("app.trace");
    let image = format!("oci:{}", context.text("image"));
    let script = "read line < state; echo $line after > state";
    let mut command = context.minjail(&["trace", "-q", "-t", &trace, "-o", &image]);
    outcome_of(command.args(["--lock", &context.text("app.lock"), "--", "/bin/sh", "-c", script])).success();
    let again = format!("oci:{}", context.text("again"));
    let alone = locked(&context, &["-o", &again]);
    alone.assert_refused(125, &["work/state: content", "name that with `-t`"]);
    locked(&context, &["-t", &trace, "-o", &again]).success();
    assert_eq!(digest(&context, "again"), digest(&context, "image"));
}

/// What the trace has kept of a file says nothing of its attributes: these are the file's, whenever it is built.
/// A trace without a file that has changed since gives the image that was made without it, by its lock too.
#[test]
fn excluded_files_that_have_changed_since() {
    let context = TestContext::new();
    built(&context);
    let (trace, lock, one) = (context.text("app.trace"), context.text("app.lock"), context.work().join("one"));
    let (image, again) = (format!("oci:{}", context.text("image")), format!("oci:{}", context.text("again")));
    let without = ["-t", &trace, "--exclude", &support::text(&one)];
    let build = ["build", "-q", "--force", "--lock", &lock, "-o", &image];
    outcome_of(context.minjail(&build).args(without)).success();
    fs_err::write(&one, "changed\n").expect("it is ours");
    locked(&context, &[&without[..], &["-o", &again]].concat()).success();
    assert_eq!(digest(&context, "again"), digest(&context, "image"));
}

#[test]
fn what_the_run_gave_another_time_is_rebuilt_with_its_attributes() {
    let context = TestContext::new();
    context.lay_out(&[("state", "before\n")]);
    outcome_of(context.command("setfattr").args(["-n", "user.word", "-v", "kept", "state"])).success();
    let trace = context.text("app.trace");
    let image = format!("oci:{}", context.text("image"));
    let mut command = context.minjail(&["trace", "-q", "-t", &trace, "-o", &image]);
    let touch = ["--lock", &context.text("app.lock"), "--", "/bin/touch", "-h", "state"];
    outcome_of(command.args(touch)).success();
    let again = format!("oci:{}", context.text("again"));
    locked(&context, &["-t", &trace, "-o", &again]).success();
    assert_eq!(digest(&context, "again"), digest(&context, "image"));
}

#[test]
fn a_lock_says_which_layer_an_entry_is_in() {
    let context = TestContext::new();
    context.lay_out(&[("note.txt", "a note\n")]);
    let out = |form: &str, name: &str| format!("{form}:{}", context.text(name));
    let (image, again) = (out("oci", "image"), out("oci", "again"));
    let trace = context.text("app.trace");
    let mut command = context.minjail(&["trace", "-q", "-t", &trace, "--layers", "packages", "-o", &image]);
    outcome_of(command.args(["--lock", &context.text("app.lock"), "--", "/bin/cat", "note.txt"])).success();

    let lock = context.json("app.lock");
    let note = support::text(&context.work().join("note.txt"));
    let entries = lock["entries"].as_array().expect("a lock has entries");
    let layer = |wanted: &dyn Fn(&Value) -> bool| {
        entries.iter().find(|entry| wanted(entry)).expect("it is there")["layer"].as_u64().unwrap_or(0)
    };
    let library = layer(&|entry| entry["path"].as_str().is_some_and(|path| path.ends_with("/libc.so.6")));
    let (program, note) = (layer(&|entry| entry["path"] == "/usr/bin/cat"), layer(&|entry| entry["path"] == *note));
    assert_eq!((library, program, note), (0, 1, 2));

    locked(&context, &["-o", &again]).success();
    assert_eq!(digest(&context, "again"), digest(&context, "image"));
    let traced = out("oci", "traced");
    locked(&context, &["-t", &trace, "-o", &traced]).success();
    assert_eq!(digest(&context, "traced"), digest(&context, "image"));
    context.outcome(&["check", "-q", &image, "--lock", &context.text("app.lock")]).success();
    let keep = context.outcome(&["build", "-t", &trace, "--layers", "keep", "-o", &out("oci", "no")]);
    keep.assert_refused(125, &["no layers to keep", "--layers packages"]);
}

#[test]
fn any_two_sides_can_be_compared() {
    let context = TestContext::new();
    let app = context.work().join("busybox");
    let build = |name: &str, content: &str| {
        context.lay_out(&[("note.txt", content)]);
        fs_err::copy("/bin/busybox", &app).expect("busybox-static is installed");
        let at = |what: &str| context.text(&format!("{name}{what}"));
        let mut command = context.minjail(&["trace", "-q", "-t", &at(".trace"), "--lock", &at(".lock")]);
        command.args(["-o", &format!("oci:{}:1", at(".image")), "-o", &format!("rootfs:{}", at(".tree"))]);
        outcome_of(command.args(["--", &support::text(&app), "cat", "note.txt"])).success();
        [at(".lock"), at(".trace"), format!("oci:{}:1", at(".image")), format!("rootfs:{}", at(".tree"))]
    };
    let old = build("old", "an old note\n");
    // A trace has no contents but of what the run changed: the old one can be compared as long as its root is as it was.
    for one in &old {
        for other in &old {
            let same = context.outcome(&["diff", one, other]);
            assert_eq!((same.status, same.text().as_str()), (0, ""), "{same}");
        }
    }
    let new = build("new", "a new note\n");
    for one in [&old[0], &old[2], &old[3]] {
        for other in &new {
            for (from, to) in [(one, other), (other, one)] {
                let differ = context.outcome(&["diff", "--json", from, to]);
                assert_eq!(differ.status, 1, "{differ}");
                let told: Value = serde_json::from_slice(&differ.stdout).expect("it is JSON");
                let differences = told["differences"].as_array().expect("it lists them");
                let of_note =
                    |difference: &&Value| difference["path"] == *support::text(&context.work().join("note.txt"));
                let note = differences.iter().find(of_note).unwrap_or_else(|| panic!("{differ}"));
                let aspects = note["aspects"].as_array().expect("it says in what");
                assert!(aspects.iter().any(|aspect| aspect["what"] == "content"), "{differ}");
            }
        }
    }
}

/// It is there only once.
#[test]
fn an_image_on_standard_input_is_compared_by_package() {
    let context = TestContext::new();
    let (file, trace) = (context.text("image.tar"), context.text("app.trace"));
    let out = format!("docker-archive:{file}");
    context.outcome(&["trace", "-q", "-t", &trace, "-o", &out, "--", "cat", "/etc/debian_version"]).success();
    let by = ["--by", "package,directory"];
    let named = context.outcome(&[&["diff", &out, &out], &by[..]].concat()).success();
    let archive = fs_err::read(&file).expect("it was written");
    let mut command = context.minjail(&[&["diff", &out, "-"], &by[..]].concat());
    let piped = support::outcome_with_input(&mut command, &archive).success();
    assert_eq!(piped.text(), named.text());
}

#[track_caller]
fn assert_told(context: &TestContext, arguments: &[&str], word: &str) {
    let outcome = context.outcome(arguments);
    assert_eq!((outcome.status, outcome.text().as_str()), (125, ""), "{outcome}");
    let told = outcome.stderr.starts_with("error: ") && outcome.stderr.contains(word);
    assert!(told && !outcome.stderr.contains("panicked"), "{word:?} is not told\n{outcome}");
}

#[test]
fn bad_input_is_told_and_nothing_else() {
    let context = TestContext::new();
    built(&context);
    let (lock, image) = (context.text("app.lock"), format!("oci:{}", context.text("image")));
    let text = fs_err::read_to_string(context.path("app.lock")).expect("it was written");
    let bad = |name: &str, content: String| {
        fs_err::write(context.path(name), content).expect("it is ours");
        context.text(name)
    };
    let locks = [
        (bad("empty", String::new()), "failed to read the manifest"),
        (bad("cut", text[..text.len() / 2].to_owned()), "failed to read the manifest"),
        (bad("later", text.replacen("\"minjail-format\": 1", "\"minjail-format\": 9", 1)), "format 9"),
        (bad("other", "{\"entries\": []}".to_owned()), "failed to read the manifest"),
        (context.text("no-such-lock"), "no-such-lock"),
    ];
    let output = format!("oci:{}", context.text("out"));
    let before = context.listing();
    for (path, word) in &locks {
        let build = ["build", "--locked", path, "-o", &output];
        let check = ["check", &image, "--lock", path];
        let diff = ["diff", path, &lock];
        for arguments in [build.as_slice(), &check, &diff] {
            let about_form = path.ends_with("no-such-lock") && arguments[0] == "diff";
            assert_told(&context, arguments, if about_form { "does not say what it is" } else { word });
        }
    }
    let nothing = format!("oci:{}", context.text("nothing"));
    for (arguments, word) in [
        (["check", &nothing, "--lock", &lock].as_slice(), "nothing"),
        (&["check", "nonsense", "--lock", &lock], "nonsense"),
        (&["check", "oci:-", "--lock", &lock], "oci:-"),
        (&["check", &image], ".lock"),
        (&["check", &context.text("work")], "no lock is named"),
        (&["diff", &lock, &nothing], "nothing"),
        (&["diff", &lock, "nonsense"], "nonsense"),
        (&["diff", &context.text("work"), &lock], "work"),
        (&["diff", &format!("rootfs:{}", context.text("nothing")), &lock], "nothing"),
        (&["diff", &format!("layer:{lock}"), &lock], "damaged"),
    ] {
        assert_told(&context, arguments, word);
    }
    assert_eq!(context.listing(), before);
}

/// An environment is made for many commands: what it says and does not count is told, and no reason to build nothing.
#[test]
fn the_date_of_the_environment_yields_to_the_lock_s() {
    let context = TestContext::new();
    let out = format!("layer:{}", context.text("image.tar"));
    let mut command = context.minjail(&["trace", "-q", "-t", &context.text("app.trace"), "-o", &out, "--", "true"]);
    outcome_of(command.env("SOURCE_DATE_EPOCH", "86400")).success();
    let again = format!("layer:{}", context.text("again.tar"));
    let built = |date: Option<&str>| {
        let mut command =
            context.minjail(&["build", "--force", "--locked", &context.text("image.tar.lock"), "-o", &again]);
        let outcome = outcome_of(command.envs(date.map(|date| ("SOURCE_DATE_EPOCH", date)))).success();
        let [one, other] = ["image.tar", "again.tar"].map(|name| fs_err::read(context.path(name)).unwrap());
        assert!(one == other, "{outcome}");
        outcome.stderr
    };
    let told = "note: SOURCE_DATE_EPOCH is 7, and the lock says 86400, which counts";
    assert!(built(Some("7")).contains(told));
    for date in [None, Some("86400")] {
        assert!(!built(date).contains("SOURCE_DATE_EPOCH"));
    }
}
