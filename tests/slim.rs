//! `minjail slim`: an existing image becomes small, runs as before, and says what it is; what cannot be slimmed is said.

#![expect(clippy::unwrap_used, reason = "these are tests")]

mod support;

use std::os::unix::fs::PermissionsExt;

use support::{Outcome, TestContext, limited, minjail, needs_root, outcome_of, text};

/// An image with more in it than its program needs; the program says whose a file is and what the accounts are.
fn fat(context: &TestContext, form: &str) -> String {
    let image = format!("{form}:{}", context.text("fat"));
    // Another form is not put in the place of this one.
    let _ = fs_err::remove_dir_all(context.path("fat")).or_else(|_| fs_err::remove_file(context.path("fat")));
    let note = context.path("note");
    fs_err::write(&note, "a note\n").unwrap();
    let script = "/usr/bin/stat -c '%u:%g %a' \"$0\" /usr/bin/passwd; cat \"$0\"; id -un; read -r line < /etc/passwd; echo $line";
    let mut command = context.minjail(&["trace", "-q", "-t", &context.text("fat.trace"), "-o", &image]);
    command.args([
        "--include",
        "/usr/bin/perl",
        "--include",
        "/usr/bin/find",
        "--include",
        "/usr/bin/passwd",
        "--force",
    ]);
    outcome_of(command.args(["--", "/bin/sh", "-c", script, &text(&note)])).success();
    image
}

/// The same as a directory of which nothing is said.
fn bare(context: &TestContext) -> String {
    let image = fat(context, "rootfs");
    fs_err::remove_file(context.path("fat.lock")).unwrap();
    image
}

fn slim(context: &TestContext, arguments: &[&str]) -> Outcome {
    context.outcome(&[&["slim"], arguments].concat())
}

/// minjail as an ordinary user, in the directory `theirs`, which is made for that.
fn by_nobody(context: &TestContext) -> std::process::Command {
    let theirs = context.path("theirs");
    fs_err::create_dir_all(&theirs).unwrap();
    fs_err::set_permissions(&theirs, PermissionsExt::from_mode(0o777)).unwrap();
    fs_err::set_permissions(context.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    let binary = context.text("minjail");
    fs_err::copy(minjail(), &binary).unwrap();
    let mut command = limited("runuser");
    command.args(["-u", "nobody", "--", &binary]).current_dir(&theirs);
    command
}

fn entries(context: &TestContext, lock: &str) -> serde_json::Value {
    let lock = fs_err::read(context.path(lock)).unwrap();
    serde_json::from_slice::<serde_json::Value>(&lock).unwrap()["entries"].clone()
}

fn has(entries: &serde_json::Value, path: &str) -> bool {
    entries.as_array().unwrap().iter().any(|entry| entry["path"] == path)
}

#[test]
fn an_image_of_every_form_becomes_small_and_runs_as_before() {
    let context = TestContext::new();
    let out = format!("oci:{}", context.text("thin"));
    let mut results = Vec::new();
    for form in ["oci", "oci-archive", "docker-archive", "rootfs"] {
        let image = fat(&context, form);
        let before = context.outcome(&["run", &image]);
        assert_eq!(before.status, 0, "{before}");
        let lock = context.json("fat.lock");
        slim(&context, &[&image, "-q", "--force", "-o", &out]).success();
        context.outcome(&["run", &out]).assert_same_as(&before);
        let thin = entries(&context, "thin.lock");
        assert!(has(&lock["entries"], "/usr/bin/perl") && !has(&thin, "/usr/bin/perl"));
        assert!(has(&thin, "/usr/bin/passwd"), "what was looked at is there");
        assert!(fs_err::read_to_string(context.path("thin.lock")).unwrap().contains("\"verified\": true"));
        results.push((form, thin));
    }
    for (form, entries) in &results[1..] {
        let differs =
            results[0].1.as_array().unwrap().iter().zip(entries.as_array().unwrap()).find(|(one, other)| one != other);
        assert!(differs.is_none(), "{form} gives another image: {differs:?}");
    }
}

/// Owners, modes and set-user-ID bits are the image's, though an ordinary user can give none of them to a file.
#[test]
fn an_ordinary_user_gets_the_same_image() {
    if !needs_root("runuser") {
        return;
    }
    let context = TestContext::new();
    let image = fat(&context, "oci-archive");
    slim(&context, &[&image, "-q", "-o", &format!("oci:{}", context.text("ours"))]).success();
    let out = format!("oci:{}", context.text("theirs/thin"));
    let by_nobody = |arguments: &[&str]| outcome_of(by_nobody(&context).args(arguments)).success();
    let is_ours = || {
        let diff = context.outcome(&["diff", &format!("oci:{}", context.text("ours")), &out]);
        assert_eq!(diff.status, 0, "{diff}");
    };
    by_nobody(&["slim", &image, "-q", "-o", &out]);
    is_ours();
    // What he has unpacked is all his, and the lock beside it says whose it is.
    let tree = format!("rootfs:{}", context.text("theirs/tree"));
    by_nobody(&["unpack", &image, "-q", "-o", &tree]);
    by_nobody(&["slim", &tree, "-q", "--force", "-o", &out]);
    is_ours();
}

/// What is not in a small image is told by the lock and the image that was slimmed, and by the trace of the run.
#[test]
fn what_is_left_out_can_be_asked_for() {
    let context = TestContext::new();
    let image = fat(&context, "oci");
    let (trace, lock) = (context.text("thin.trace"), context.text("thin.lock"));
    let out = format!("oci:{}", context.text("thin"));
    let script = "read -r line < /no/such || echo no";
    slim(&context, &[&image, "-q", "--keep-trace", &trace, "-o", &out, "--", "-c", script]).success();
    let told = |arguments: &[&str]| context.outcome(&[&["why-not"], arguments].concat()).success().text();
    let there = "the root has a file of 3.";
    let traced = told(&[&trace, "/usr/bin/perl", "/no/such"]);
    assert!(traced.contains("nothing that ran looked for it\n") && traced.contains(there), "{traced}");
    assert!(traced.contains("(openat) in workload sh looked for it in vain"), "{traced}");
    // The machine's own file of that name is another one.
    let alone = told(&[&lock, "/usr/bin/perl"]);
    assert!(alone.contains("name it with `--root`") && !alone.contains("the root has"), "{alone}");
    assert!(told(&[&lock, "--root", &image, "/usr/bin/perl"]).contains(there));
    assert!(told(&[&trace, "--root", &image, "/usr/bin/perl"]).contains(there));
    let other = context.outcome(&["why-not", &lock, "--root", &out, "/usr/bin/perl"]);
    other.assert_refused(125, &["the lock is of another image", "the diff IDs of its layers"]);
    // The unpacked image is in a cache, and is gone one day.
    let records = context.path("thin.trace/trace.jsonl");
    let text = fs_err::read_to_string(&records).unwrap();
    let root = text.split_once(r#""root":""#).and_then(|(_, rest)| rest.split_once('"')).unwrap().0;
    fs_err::write(&records, text.replace(root, &context.text("gone"))).unwrap();
    for command in ["why", "why-not"] {
        let alone = context.outcome(&[command, &trace, "/usr/bin/perl"]);
        alone.assert_refused(125, &["what was traced is gone: name it with `--root`"]);
    }
    let why = context.outcome(&["why", &trace, "--root", &image, "/bin/sh"]).success().text();
    assert!(why.contains("touched by") && why.contains("in workload sh"), "{why}");
    context.outcome(&["why", &lock, "--root", &image, "/bin/sh"]).assert_refused(125, &["`--root` is for traces"]);
}

/// Whoever has the lock and the image that was slimmed makes the small one again, byte for byte, root or not.
#[test]
fn the_lock_and_the_whole_image_give_the_same_bytes() {
    let context = TestContext::new();
    let image = fat(&context, "docker-archive");
    let (lock, thin) = (context.text("thin.lock"), format!("oci:{}", context.text("thin")));
    slim(&context, &[&image, "-q", "--keep-trace", &context.text("thin.trace"), "-o", &thin]).success();
    let index = |layout: &str| fs_err::read(context.path(layout).join("index.json")).unwrap();
    let again = format!("oci:{}", context.text("again"));
    let locked = |program: &mut std::process::Command, arguments: &[&str]| {
        outcome_of(program.args(["build", "-q", "--locked", &lock]).args(arguments))
    };
    let trace = context.text("thin.trace");
    for more in [&[][..], &["--force", "-t", &trace]] {
        locked(&mut context.minjail(&[]), &[&["--root", &image, "-o", &again], more].concat()).success();
        assert_eq!(index("again"), index("thin"));
    }
    let alone = locked(&mut context.minjail(&[]), &["-o", &format!("oci:{}", context.text("alone"))]);
    alone.assert_refused(125, &["is of a slimmed image", "`--root oci:DIR`"]);
    let other = format!("oci:{}", context.text("other"));
    locked(&mut context.minjail(&[]), &["--root", &thin, "-o", &other]).assert_refused(125, &["of another image"]);
    if !needs_root("runuser") {
        return;
    }
    let again = format!("oci:{}", context.text("theirs/again"));
    locked(&mut by_nobody(&context), &["--root", &image, "-o", &again]).success();
    assert_eq!(index("theirs/again"), index("thin"));
}

#[test]
fn a_server_keeps_its_configuration() {
    if !needs_root("a network of its own for the traced run") {
        return;
    }
    let context = TestContext::new();
    let fat = format!("oci:{}", context.text("fat"));
    let thin = format!("oci:{}", context.text("thin"));
    let profile = context.text("server.yaml");
    let text = "extends: busybox-httpd\nimage:\n  ports: [8080/tcp]\n  env: {COLOUR: green}\n  labels: {org.example.name: a server}\n";
    fs_err::write(&profile, text).unwrap();
    context.outcome(&["build", "-q", &profile, "--include", "/usr/bin/perl", "-o", &fat]).success();
    let told = slim(&context, &[&fat, "-o", &thin]);
    assert!(told.stderr.contains("nothing but its start and its end is tried"), "{told}");
    told.success();
    let lock = context.json("thin.lock");
    let config = &lock["config"];
    assert_eq!(config["exposed-ports"][0], "8080/tcp", "{config}");
    assert_eq!(config["env"]["COLOUR"], "green", "{config}");
    assert_eq!(config["labels"]["org.example.name"], "a server", "{config}");
    assert!(
        !has(&lock["entries"], "/usr/bin/perl") && !has(&lock["entries"], "/usr/share/doc/busybox-static/copyright")
    );
    // What it is to be asked, the profile says: then the page is there, and the answer is proved.
    slim(&context, &[&fat, "-q", "--force", "-p", &profile, "-o", &thin]).success();
    assert!(has(&entries(&context, "thin.lock"), "/usr/share/doc/busybox-static/copyright"));
}

#[test]
fn what_cannot_be_slimmed_is_said() {
    let context = TestContext::new();
    let image = bare(&context);
    let out = format!("oci:{}", context.text("out"));
    for (arguments, status, words) in [
        (vec![], 125, "the image does not say what to run"),
        (vec!["--", "/no/such/program"], 127, "the image has no program `/no/such/program`"),
        (vec!["--", "nonesuch"], 127, "the image has no program"),
        (vec!["--", "/bin/sh", "-c", "exit 3"], 125, "failed in a jail of the whole image: it ended with status 3"),
        (vec!["-p", "no-such-profile"], 125, "no-such-profile"),
        (vec!["--keep-trace", &context.text("fat"), "--", "/bin/sh", "-c", ""], 125, "is the input itself"),
        (vec!["--keep-trace", &context.text("out"), "--", "/bin/sh", "-c", ""], 125, "an output, and the trace too"),
        (vec!["--keep-trace", &context.text("work"), "--", "/bin/sh", "-c", ""], 125, "exists and is not a trace"),
    ] {
        let outcome = slim(&context, &[&[image.as_str(), "-o", &out], &arguments[..]].concat());
        assert_eq!(outcome.status, status, "{arguments:?}: {outcome}");
        assert!(outcome.stderr.contains(words), "{arguments:?}: {outcome}");
        assert!(!context.path("out").exists() && !context.path("out.lock").exists(), "{arguments:?}");
    }
    let missing = slim(&context, &[&format!("oci:{}", context.text("nowhere")), "-o", &out]);
    assert!(missing.status == 125 && missing.stderr.contains("nowhere"), "{missing}");
}

/// A program that does something else in the small image than in the whole one leaves no image. This one asks a listing
/// for the types of names and never looks at the files themselves.
#[test]
fn what_fails_in_the_small_image_is_not_published() {
    let context = TestContext::new();
    let image = fat(&context, "rootfs");
    let out = format!("oci:{}", context.text("out"));
    let command = ["-o", &out, "--", "/usr/bin/find", "/usr/bin", "-type", "f", "-name", "perl"];
    let outcome = slim(&context, &[&[image.as_str()], &command[..]].concat());
    assert_eq!(outcome.status, 3, "{outcome}");
    assert!(outcome.stderr.contains("it wrote nothing to standard output"), "{outcome}");
    assert!(!context.path("out").exists() && !context.path("out.lock").exists());
    let whole = [&[image.as_str(), "-q", "--listing", "full"], &command[..]].concat();
    assert_eq!(slim(&context, &whole).success().text(), "");
}

/// What slimming has saved, of each package and in each directory: whoever knows of a file's package has a say.
#[test]
fn what_was_saved_is_told_by_package_and_directory() {
    let context = TestContext::new();
    let image = fat(&context, "oci");
    let thin = format!("oci:{}", context.text("thin"));
    slim(&context, &[&image, "-q", "-o", &thin]).success();
    let diff = |arguments: &[&str]| context.outcome(&[&["diff"], arguments].concat());
    let locks = [context.text("fat.lock"), context.text("thin.lock")];
    let told = diff(&[&locks[0], &thin, "--by", "package,directory", "--json"]);
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    let group = |by: &str, name: &str| {
        let groups = told[by].as_array().unwrap().iter();
        groups.clone().find(|group| group["name"].as_str().unwrap().starts_with(name)).cloned().unwrap()
    };
    let perl = group("by-package", "deb:perl-base=");
    let size = fs_err::metadata("/usr/bin/perl").unwrap().len();
    assert!(perl["from"]["bytes"].as_u64().unwrap() >= size && perl["to"]["bytes"] == 0, "{perl}");
    let coreutils = group("by-package", "deb:coreutils=");
    assert_eq!(coreutils["from"], coreutils["to"], "the program needs all that the image has of it");
    let bin = group("by-directory", "/usr/bin");
    assert!(bin["from"]["bytes"].as_u64().unwrap() >= size + bin["to"]["bytes"].as_u64().unwrap(), "{bin}");
    let text = diff(&[&locks[0], &locks[1], "--by", "directory"]);
    let first = text.text().lines().nth(1).unwrap_or_default().to_owned();
    assert!(text.status == 1 && first.ends_with("  /usr/bin") && first.contains(" MB"), "{text}");

    // An image that has the distribution's database knows its packages by itself.
    let root = context.path("root");
    for (path, content) in [
        ("var/lib/dpkg/status", "Package: note\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n\n"),
        ("var/lib/dpkg/info/note.list", "/.\n/srv\n/srv/note\n"),
        ("srv/note", "a note\n"),
    ] {
        fs_err::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        fs_err::write(root.join(path), content).unwrap();
    }
    let of = |name: &str| format!("rootfs:{}", context.text(name));
    fs_err::create_dir(context.path("empty")).unwrap();
    let told = diff(&[&of("root"), &of("empty"), "--by", "package"]);
    assert!(told.text().contains("      7 B       (1) ->       0 B       (0)  deb:note=1\n"), "{told}");
}

/// A file of which the small image has but the name is gone, by whichever way it is counted.
#[test]
fn a_name_alone_is_no_file_to_diff() {
    let context = TestContext::new();
    let root = context.path("root");
    for directory in ["bin", "srv/many"] {
        fs_err::create_dir_all(root.join(directory)).unwrap();
    }
    fs_err::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for name in ["read", "listed", "listed too"] {
        fs_err::write(root.join("srv/many").join(name), name.repeat(1000)).unwrap();
    }
    let (fat, thin) = (format!("rootfs:{}", text(&root)), format!("oci:{}", context.text("thin")));
    let line = ["--", "/bin/busybox", "sh", "-c", "echo /srv/many/*; /bin/busybox cat /srv/many/read"];
    slim(&context, &[&[fat.as_str(), "-q", "-o", &thin], &line[..]].concat()).success();
    let diff = |arguments: &[&str]| context.outcome(&[&["diff"], arguments].concat());
    for (from, to) in [(&fat, &thin), (&thin, &fat)] {
        let told = |more: &str| -> serde_json::Value {
            serde_json::from_slice(&diff(&[from, to, "--json", more]).stdout).unwrap()
        };
        let groups = told("--by=directory")["by-directory"].clone();
        let sum = |side: &str| {
            groups.as_array().unwrap().iter().map(|group| group[side]["bytes"].as_i64().unwrap()).sum::<i64>()
        };
        let paths: serde_json::Value = serde_json::from_slice(&diff(&[from, to, "--json"]).stdout).unwrap();
        let bytes = |key: &str| paths[key].as_i64().unwrap();
        assert_eq!(sum("to") - sum("from"), bytes("added-bytes") - bytes("removed-bytes"), "{paths}");
    }
    let told = diff(&[&fat, &thin]).text();
    assert!(told.contains("removed /srv/many/listed (6000 bytes, but not its name)\n"), "{told}");
    let told = diff(&[&thin, &fat]).text();
    assert!(told.contains("added /srv/many/listed (6000 bytes, of which there was the name)\n"), "{told}");
}

/// An output that is given no name is called after the image, and not as it: loading it must not take the name away from the
/// whole one.
#[test]
fn what_has_no_name_is_named_after_the_image() {
    let context = TestContext::new();
    let fat = format!("docker-archive:{}:localhost/team/app:1", context.text("fat"));
    let thin = context.text("thin");
    let trace = ["trace", "-q", "-t", &context.text("fat.trace"), "-o", &fat, "--", "/bin/true"];
    context.outcome(&trace).success();
    let names = |out: &str| {
        slim(&context, &[&fat, "-q", "--force", "-o", out]).success();
        let manifest = outcome_of(context.command("tar").args(["-xOf", &thin, "manifest.json"])).success().text();
        let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
        manifest[0]["RepoTags"].clone()
    };
    assert_eq!(names(&format!("docker-archive:{thin}")), serde_json::json!(["app-slim:latest"]));
    assert_eq!(names(&format!("docker-archive:{thin}:other:2")), serde_json::json!(["other:2"]));
}
