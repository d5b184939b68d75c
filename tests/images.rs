//! What `minjail` writes, as other tools see it: the output forms, the engines that take them, an image's size and the
//! reasons for everything in it, and the same image again from a saved trace.

mod support;

use std::path::Path;

use support::containerd::Containerd;
use support::docker::Docker;
use support::podman::Podman;
use support::program::Program;
use support::{TestContext, limited, minjail, needs_root, outcome_of, text};

const NOTE: &[(&str, &str)] = &[("note.txt", "a note\n")];

/// The smallest program with a library: everything in its image can be looked through.
const CAT: Program<'_> =
    Program { argv: &["cat", "note.txt"], inputs: NOTE, environment: &[], status: 0, says: "a note", form: "oci" };

const PYTHON: Program<'_> = Program {
    argv: &["/usr/bin/python3", "-c", "import ssl, sqlite3, json; print(json.dumps({'hello': sqlite3.version}))"],
    inputs: &[],
    environment: &[],
    status: 0,
    says: "hello",
    form: "docker-archive",
};

#[test]
fn the_image_of_cat_is_small_and_everything_in_it_has_a_reason() {
    let context = TestContext::new();
    let native = CAT.native(&context);
    CAT.trace(&context, &native);
    let size = bytes_below(&context.path("image"));
    assert!(size < 3_000_000, "the image of `cat` has {size} bytes");

    let lock = fs_err::read(context.path("app.lock")).expect("the lock is where --lock says");
    let lock: serde_json::Value = serde_json::from_slice(&lock).expect("the lock is JSON");
    let entries = lock["entries"].as_array().expect("the lock has entries");
    let paths: Vec<&str> = entries.iter().map(|entry| entry["path"].as_str().expect("a path is text")).collect();
    let note = text(&context.work().join("note.txt"));
    assert!(paths.contains(&note.as_str()), "the lock lacks {note}: {paths:?}");
    for path in paths {
        for source in ["app.lock", "app.trace"] {
            let why = context.outcome(&["why", &context.text(source), path]);
            // A trace knows only what was touched; what the rules add stands in the lock.
            if source == "app.lock" || path == note {
                assert!(why.status == 0 && why.text().contains(path), "{path} has no reason in {source}\n{why}");
            }
        }
    }
    for (path, link) in [("/lib64/ld-linux-x86-64.so.2", "/lib64"), ("/lib/x86_64-linux-gnu/libc.so.6", "/lib")] {
        for source in ["app.lock", "app.trace"] {
            let why = context.outcome(&["why", &context.text(source), path]).success();
            let way = format!("{path} is /usr{path}, by the link {link}\n/usr{path}\n  ");
            assert!(why.text().starts_with(&way), "{source}: {why}");
        }
    }
    let absent = context.outcome(&["why", &context.text("app.lock"), "/no/such/path"]);
    assert!(absent.status != 0 && absent.stderr.contains("/no/such/path"), "{absent}");
}

/// As the lock lists a path, one can ask for it; and as it is.
#[test]
fn a_name_that_is_spelled_out_has_its_reason_either_way() {
    let context = TestContext::new();
    context.lay_out(&[("line\nbreak", "1"), ("back\\x41slash", "2")]);
    let lock = context.text("app.lock");
    let image = format!("rootfs:{}", context.text("image"));
    let run = ["trace", "-q", "-t", &context.text("app.trace"), "-o", &image, "--lock", &lock];
    context.outcome(&[&run[..], &["--", "cat", "line\nbreak", "back\\x41slash"]].concat()).success();
    for name in ["line\nbreak", "line\\x0abreak", "back\\x41slash", "back\\\\x41slash"] {
        let path = format!("{}/{name}", context.work().display());
        context.outcome(&["why", &lock, &path]).success();
    }
    let other = format!("{}/backAslash", context.work().display());
    assert_eq!(context.outcome(&["why", &lock, &other]).status, 1);
}

#[test]
fn one_run_writes_every_form() {
    if !needs_root("podman") {
        return;
    }
    let context = TestContext::new();
    let native = CAT.native(&context);
    let reference = "localhost/minjail/cat:1";
    let outputs = [
        format!("rootfs:{}", context.text("tree")),
        format!("layer:{}", context.text("layer.tar")),
        format!("oci:{}:1", context.text("layout")),
        format!("oci-archive:{}:1", context.text("archive.tar")),
        format!("docker-archive:{}:{reference}", context.text("docker.tar")),
    ];
    let mut command = context.minjail(&["trace", "-t", &context.text("cat.trace")]);
    for output in &outputs {
        command.args(["-o", output]);
    }
    outcome_of(command.args(["--", "cat", "note.txt"])).assert_same_as(&native);

    context.lay_out(&[]);
    for output in &outputs {
        context.outcome(&["run", output, "--", "cat", &text(&context.work().join("note.txt"))]).assert_same_as(&native);
    }
    let podman = Podman::new();
    for output in &outputs[2..] {
        podman.run(&podman.pull(&context, output)).assert_same_as(&native);
    }
    assert_eq!(podman.load(&context.path("docker.tar")), reference);
    podman.run(reference).assert_same_as(&native);

    let unpacked = context.text("unpacked");
    fs_err::create_dir(&unpacked).expect("the directory is new");
    outcome_of(limited("tar").args(["-xpf", &context.text("layer.tar"), "-C", &unpacked])).success();
    for tree in [unpacked, context.text("tree")] {
        let note = text(&context.work().join("note.txt"));
        outcome_of(limited("chroot").args([&tree, "cat", &note])).assert_same_as(&native);
    }
}

/// A layer tells by names that begin with `.wh.` what is gone: a file of such a name would be missing in the image, and
/// perhaps another one with it. Also where a listing shows its name alone.
#[test]
fn a_name_that_no_layer_can_have_is_refused() {
    let context = TestContext::new();
    context.lay_out(&[("aufs/.wh.old", "kept\n"), ("aufs/old", "new\n")]);
    for program in [&["cat", "aufs/.wh.old"][..], &["ls", "aufs"]] {
        for form in ["layer", "oci", "oci-archive", "docker-archive"] {
            let out = format!("{form}:{}", context.text("out"));
            let outcome = context.outcome(&[&["trace", "-q", "-o", &out, "--"], program].concat());
            assert!(outcome.status == 125, "{outcome}");
            for words in ["aufs/.wh.old` does not fit into a layer", "rootfs:DIR"] {
                assert!(outcome.stderr.contains(words), "{outcome}");
            }
            let is_left = |name: &str| context.path(name).symlink_metadata().is_ok();
            assert!(!is_left("out") && !is_left("out.lock"), "{outcome}");
        }
    }
    let tree = format!("rootfs:{}", context.text("tree"));
    context.outcome(&["trace", "-q", "-o", &tree, "--", "cat", "aufs/.wh.old"]).success();
    let work = context.work();
    let inside = work.strip_prefix("/").expect("it is absolute");
    assert!(context.path("tree").join(inside).join("aufs/.wh.old").is_file());
}

#[test]
fn standard_output_is_an_archive_for_podman() {
    if !needs_root("podman") {
        return;
    }
    let context = TestContext::new();
    let native = CAT.native(&context);
    context.lay_out(NOTE);
    let out = "docker-archive:-:localhost/minjail/stream:1";
    let trace = context.text("cat.trace");
    context.outcome(&["trace", "--quiet", "-t", &trace, "--", "cat", "note.txt"]).success();
    let built = context.outcome(&["build", "-t", &trace, "-o", out]).success();
    let podman = Podman::new();
    podman.run(&podman.load_stream(&built.stdout)).assert_same_as(&native);
}

#[test]
fn what_the_program_prints_stays_out_of_the_archive() {
    let context = TestContext::new();
    context.lay_out(NOTE);
    let (trace, saved) = (context.text("cat.trace"), context.text("saved.tar"));
    let arguments = ["trace", "-t", &trace, "-o", "docker-archive:-:localhost/minjail/cat:1", "--", "cat", "note.txt"];
    let streamed = context.outcome(&arguments).success();
    assert!(streamed.stderr.contains(NOTE[0].1), "{}", streamed.stderr);
    let out = format!("docker-archive:{saved}:localhost/minjail/cat:1");
    context.outcome(&["build", "-t", &trace, "-o", &out]).success();
    assert!(streamed.stdout == fs_err::read(saved).expect("it was built"), "the streamed archive is another one");
}

#[test]
fn a_saved_trace_builds_the_same_bytes() {
    let context = TestContext::new();
    context.lay_out(NOTE);
    let (trace, first, second) = (context.text("cat.trace"), context.text("first.tar"), context.text("second.tar"));
    let out = |file: &str| format!("docker-archive:{file}:localhost/minjail/cat:1");
    context.outcome(&["trace", "-t", &trace, "-o", &out(&first), "--", "cat", "note.txt"]).success();
    context.outcome(&["build", "-t", &trace, "-o", &out(&second)]).success();
    let (first, second) = (fs_err::read(first).expect("it was built"), fs_err::read(second).expect("it was built"));
    assert!(first == second, "the image built from the saved trace differs from the one built at once");
}

#[test]
fn several_traces_make_one_image() {
    let context = TestContext::new();
    context.lay_out(&[("note.txt", "a note\n"), ("other.txt", "another\n")]);
    let (one, two, tree) = (context.text("one.trace"), context.text("two.trace"), context.text("tree"));
    context.outcome(&["trace", "-t", &one, "--", "cat", "note.txt"]).success();
    context.outcome(&["trace", "-t", &two, "--", "sort", "other.txt"]).success();
    let out = format!("rootfs:{tree}");
    context.outcome(&["build", "-t", &one, "-t", &two, "-o", &out]).success();
    context.lay_out(&[]);
    let files = [text(&context.work().join("note.txt")), text(&context.work().join("other.txt"))];
    let sorted = context.outcome(&["run", &out, "--", "sort", &files[1]]).success();
    assert_eq!(sorted.text(), "another\n");
    let both = context.outcome(&["run", &out, "--", "cat", &files[0], &files[1]]).success();
    assert_eq!(both.text(), "a note\nanother\n");
}

#[test]
fn dockerd_runs_two_images() {
    if !needs_root("dockerd") {
        return;
    }
    let docker = Docker::start();
    for program in [Program { form: "docker-archive", ..CAT }, PYTHON] {
        let context = TestContext::new();
        let native = program.native(&context);
        program.trace(&context, &native);
        docker.run(&docker.load(&context.path("image"))).assert_same_as(&native);
    }
}

#[test]
fn containerd_runs_two_images() {
    if !needs_root("containerd") {
        return;
    }
    let containerd = Containerd::start();
    let mut known: Vec<String> = Vec::new();
    for program in [Program { form: "oci-archive", ..CAT }, PYTHON] {
        let context = TestContext::new();
        let native = program.native(&context);
        program.trace(&context, &native);
        let names = containerd.import(&context.path("image"));
        let new: Vec<&String> = names.iter().filter(|name| !known.contains(name)).collect();
        assert_eq!(new.len(), 1, "one image was imported: {names:?}");
        // The name that ctr makes up for an image without `io.containerd.image.name`.
        assert!(!new[0].starts_with("import-"), "{names:?}");
        containerd.run(new[0]).assert_same_as(&native);
        known = names;
    }
}

/// What root can do in this, an ordinary user can: trace, build, and run in the jail.
#[test]
fn an_ordinary_user_traces_and_runs() {
    if !needs_root("to become another user") {
        return;
    }
    let directory = tempfile::Builder::new().prefix("minjail-").tempdir_in("/var/tmp").expect("it can be written");
    let path = |name: &str| text(&directory.path().join(name));
    outcome_of(limited("cp").args([minjail(), &path("minjail")])).success();
    fs_err::write(path("note.txt"), "a note\n").expect("the directory is ours");
    outcome_of(limited("chown").args(["-R", "nobody:nogroup", &path("")])).success();
    let image = format!("oci-archive:{}:1", path("image.tar"));
    for (expected, arguments) in [
        ("a note\n65534\n", vec!["trace", "-o", &image, "--", "sh", "-c", "cat note.txt; id -u"]),
        ("a note\n", vec!["run", &image, "--", "cat", &path("note.txt")]),
    ] {
        let mut command = limited("runuser");
        command.args(["-u", "nobody", "--", &path("minjail")]).args(arguments);
        let outcome = outcome_of(command.current_dir(directory.path()).env("HOME", path(""))).success();
        assert_eq!(outcome.text(), expected, "{outcome}");
    }
    assert!(Path::new(&path("sh.trace")).is_dir(), "the trace's default name is the program's");
}

/// The bytes of all files below a directory, or of one file.
fn bytes_below(path: &Path) -> u64 {
    let facts = fs_err::symlink_metadata(path).expect("it is there");
    if !facts.is_dir() {
        return facts.len();
    }
    support::names_in(path).iter().map(|name| bytes_below(&path.join(name))).sum()
}
