//! One trace, one digest: whoever builds, wherever, whenever, on how many processors.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use support::{TestContext, limited, minjail, needs_root, outcome_of, text};

const PYTHON: [&str; 3] = ["/usr/bin/python3", "-c", "import json, ssl, pwd; pwd.getpwuid(0)"];

/// What is put before `minjail build` to change the circumstances, and what nothing of the image may depend on.
const CIRCUMSTANCES: [&[&str]; 16] = [
    &["env"],
    // Without the variable it would make the files' times other ones as well.
    &["env", "NO_FAKE_STAT=1", "faketime", "2031-02-03 04:05:06"],
    &["env", "TZ=Asia/Kathmandu"],
    &["env", "LC_ALL=tr_TR.UTF-8", "LANG=de_DE.UTF-8"],
    &["env", "HOME=/nonexistent", "USER=somebody"],
    &["env", "SOURCE_DATE_EPOCH="],
    &["env", "TMPDIR=/var/tmp"],
    &["sh", "-c", "umask 077; exec \"$@\"", "sh"],
    &["sh", "-c", "umask 000; cd /; exec \"$@\"", "sh"],
    &["unshare", "--uts", "sh", "-c", "hostname elsewhere; exec \"$@\"", "sh"],
    &["taskset", "-c", "0"],
    &["taskset", "-c", "0,1"],
    &["setarch", "-R"],
    &["prlimit", "--nofile=64"],
    &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"],
    &["unshare", "--user", "--map-root-user"],
];

/// What is the same for the same image: the index, which has the digest of all, and the docker archive.
fn build(context: &TestContext, circumstance: &[&str], trace: &str, name: &str) -> (String, Vec<u8>) {
    let directory = context.path(name);
    fs_err::create_dir(&directory).expect("each has a name of its own");
    open_to_all(&directory, 0o777);
    let (layout, archive) = (directory.join("layout"), directory.join("archive.tar"));
    let mut command: Command = limited(circumstance[0]);
    command.args(&circumstance[1..]).arg(minjail()).args(["build", "-q", "-t", trace]);
    command.args(["-o", &format!("oci:{}:1", text(&layout)), "-o", &format!("docker-archive:{}", text(&archive))]);
    outcome_of(&mut command).success();
    let index = fs_err::read_to_string(layout.join("index.json")).expect("it was built");
    (index, fs_err::read(archive).expect("it was built"))
}

fn open_to_all(path: &std::path::Path, mode: u32) {
    fs_err::set_permissions(path, PermissionsExt::from_mode(mode)).expect("it is ours");
}

#[test]
fn circumstances_change_nothing() {
    if !needs_root("other users and other host names") {
        return;
    }
    let context = TestContext::new();
    open_to_all(&context.path(""), 0o755);
    let trace = context.text("app.trace");
    outcome_of(context.minjail(&["trace", "-q", "-t", &trace, "--"]).args(PYTHON)).success();
    // Anybody may build from it, as if it had been sent to him.
    outcome_of(limited("chmod").args(["-R", "a+rX", &trace])).success();
    let expected = build(&context, &["env"], &trace, "expected");
    for (number, circumstance) in CIRCUMSTANCES.iter().enumerate() {
        let found = build(&context, circumstance, &trace, &format!("out-{number}"));
        assert!(found == expected, "{circumstance:?} changes the image: {} is not {}", found.0, expected.0);
    }
}

/// Copies `tree` so that inodes and times come in another order, on the file system at `copy`.
const COPY: &str = r#"
set -e
mkdir -p "$copy"
cd "$tree"
find . -print0 | sort -rz | tar -c --null --no-recursion -T - | tar -xp --numeric-owner -C "$copy"
find "$copy" -exec touch -h -d @$RANDOM {} +
"#;

#[test]
fn file_systems_times_and_inodes_of_the_source_change_nothing() {
    if !needs_root("mounting") {
        return;
    }
    let context = TestContext::new();
    context.lay_out(&[("one", "1\n"), ("dir/a", "a"), ("dir/c", "c"), ("dir/b", "b")]);
    // A program of no package and without libraries: all of its root can be copied.
    fs_err::copy("/bin/busybox", context.work().join("busybox")).expect("it is installed");
    let busybox = context.text("work/busybox");
    let (lock, tree) = (context.text("app.lock"), context.text("tree"));
    let image = context.text("image");
    let mut command = context.minjail(&["trace", "-q", "-t", &context.text("app.trace"), "--lock", &lock]);
    command.args(["-o", &format!("rootfs:{tree}"), "-o", &format!("oci:{image}"), "--", &busybox]);
    outcome_of(command.args(["sh", "-c", "read x < one; for f in dir/*; do read y < $f; done; true"])).success();
    let expected = fs_err::read_to_string(context.path("image/index.json")).expect("it was built");
    for (name, mount) in [
        ("disk", "copy=$base/disk"),
        ("tmpfs", "mount -t tmpfs none $base/tmpfs; copy=$base/tmpfs/copy"),
        (
            "overlay",
            "mount -t tmpfs none $base/overlay; cd $base/overlay; mkdir upper work merged; \
             mount -t overlay none -o lowerdir=$tree,upperdir=upper,workdir=work merged; \
             find merged -exec touch -h -d @7 {} +; copy=$base/overlay/merged; tree=$base/empty",
        ),
    ] {
        let base = context.text("");
        for directory in [name, "empty"] {
            fs_err::create_dir_all(context.path(directory)).expect("it is ours");
        }
        let output = context.text(&format!("again-{name}"));
        let script = format!(
            "set -e; {mount}\n{COPY}\n\"$minjail\" build -q --locked \"$lock\" --root \"$copy\" -o \"oci:{output}\""
        );
        let mut command = limited("unshare");
        command.args(["--mount", "bash", "-c", &script]).env("base", &base).env("tree", &tree);
        outcome_of(command.env("lock", &lock).env("minjail", minjail())).success();
        let found = fs_err::read_to_string(format!("{output}/index.json")).expect("it was built");
        assert_eq!(found, expected, "{name} changes the image");
    }
}

/// Traces and builds in a directory whose names come in another order with every listing.
const SHUFFLED: &str = r#"
set -e
mkdir "$below"
mount --bind "$work" "$below"
disorderfs --quiet --shuffle-dirents=yes -o nonempty "$below" "$work"
trap 'cd /; umount "$work"' EXIT
cd "$work"
# It does what it is for: some two of so many listings differ.
for i in 1 2 3 4 5 6 7 8; do ls -U dir | tr '
' ' '; echo; done | sort -u | tail -n +2 | grep -q .
"$@"
"#;

#[test]
fn the_order_of_names_changes_nothing() {
    if !needs_root("mounting") || !support::has(&["disorderfs", "/dev/fuse"]) {
        return;
    }
    let context = TestContext::new();
    let names: Vec<String> = (0..40).map(|number| format!("dir/sub{}/name{number}", number % 5)).collect();
    let inputs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "x")).collect();
    context.lay_out(&inputs);
    fs_err::copy("/bin/busybox", context.work().join("busybox")).expect("it is installed");
    let trace = |name: &str| {
        let mut command = context.minjail(&["trace", "-q", "-t", &context.text(&format!("{name}.trace"))]);
        command.args(["--layers", "packages", "-o", &format!("oci:{}:1", context.text(name)), "--"]);
        command.args([&context.text("work/busybox"), "find", "dir", "-type", "f"]);
        command
    };
    outcome_of(&mut trace("plain")).success();
    let plain = trace("shuffled");
    let mut command = limited("unshare");
    command.args(["--mount", "bash", "-c", SHUFFLED, "bash"]).arg(plain.get_program()).args(plain.get_args());
    command.env("HOME", context.work()).env("LANG", "C.UTF-8").env("work", context.work());
    command.env("below", context.path("below"));
    outcome_of(&mut command).success();
    let index = |name: &str| fs_err::read_to_string(context.path(name).join("index.json")).expect("it was built");
    assert_eq!(index("shuffled"), index("plain"));
    let lock = |name: &str| fs_err::read_to_string(context.path(&format!("{name}.lock"))).expect("it was written");
    assert_eq!(lock("shuffled"), lock("plain"));
}

/// So often; 100 with `MINJAIL_TESTS_ALL` set.
#[expect(clippy::disallowed_methods, reason = "the test command speaks to the tests by this variable")]
fn times() -> usize {
    if std::env::var_os("MINJAIL_TESTS_ALL").is_some() { 100 } else { 5 }
}

#[test]
fn again_and_again() {
    for (name, argv) in [("java", ["/usr/bin/java", "-version"]), ("node", ["/usr/bin/node", "--version"])] {
        if !std::path::Path::new(argv[0]).exists() {
            support::skip(&format!("there is no {name}"));
            continue;
        }
        let context = TestContext::new();
        let trace = context.text("app.trace");
        outcome_of(context.minjail(&["trace", "-q", "-t", &trace, "--"]).args(argv)).success();
        let image = context.path("image");
        let mut expected = None;
        for _ in 0..times() {
            let output = format!("oci:{}", text(&image));
            context.outcome(&["build", "-q", "--force", "-t", &trace, "-o", &output]).success();
            let index = fs_err::read_to_string(image.join("index.json")).expect("it was built");
            assert_eq!(expected.get_or_insert_with(|| index.clone()), &index, "{name}");
        }
    }
}

/// `fixtures/format1.py` was written from the specification and shares no code with minjail.
#[test]
fn a_second_implementation_makes_the_same_bytes() {
    if !needs_root("reading every file of the tree") {
        return;
    }
    for layers in ["one", "packages"] {
        let context = TestContext::new();
        let (lock, tree) = (context.text("app.lock"), context.text("tree"));
        let mut command = context.minjail(&["trace", "-q", "--layers", layers, "-t", &context.text("app.trace")]);
        command.args(["-o", &format!("oci:{}:1", context.text("image")), "-o", &format!("rootfs:{tree}")]);
        outcome_of(command.args(["--lock", &lock, "--"]).args(PYTHON)).success();
        let read = |name: &str| context.json(name);
        let blob = |descriptor: &serde_json::Value| {
            let digest = descriptor["digest"].as_str().expect("a descriptor has a digest");
            read(&format!("image/blobs/sha256/{}", digest.trim_start_matches("sha256:")))
        };
        let manifest = blob(&read("image/index.json")["manifests"][0]);
        let diff_ids = blob(&manifest["config"])["rootfs"]["diff_ids"].clone();
        let mut expected: Vec<String> = serde_json::from_value(diff_ids).expect("it is a list of text");
        expected.push(manifest["config"]["digest"].as_str().expect("it is text").to_owned());

        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/format1.py");
        let said = outcome_of(limited("/usr/bin/python3").args([program, &lock, &tree])).success();
        assert_eq!(said.text().lines().collect::<Vec<_>>(), expected, "{layers}");
    }
}

#[test]
fn names_that_the_run_has_made_up_are_not_in_the_lock() {
    let context = TestContext::new();
    context.lay_out(&[("real/file", "x")]);
    std::os::unix::fs::symlink("real", context.work().join("way")).expect("it is new");
    let script = "for of in way/a.XXXXXX way/../way/b.XXXXXX; do made=$(mktemp $of); cat way/file > $made; mv $made $made.2; rm $made.2; done
        made=$(mktemp -d way/c.XXXXXX); echo > $made/file; rm -r $made
        ln -s /proc/self/mounts own; cat own /etc/mtab > /dev/null; rm own";
    let lock = |name: &str| {
        let (trace, layout) = (context.text(&format!("{name}.trace")), context.text(name));
        let output = format!("oci:{layout}:1");
        context.outcome(&["trace", "-q", "-t", &trace, "-o", &output, "--", "sh", "-c", script]).success();
        fs_err::read_to_string(format!("{layout}.lock")).expect("it was written")
    };
    let first = lock("first");
    assert_eq!(first, lock("second"));
    assert!(first.contains("on-the-way") && first.contains("/proc/self/mounts"), "{first}");
}
