//! When a call fails that never fails, or minjail is killed: an error or the right result, never half an output, never
//! a success without one.

mod support;

use std::process::{Command, Stdio};
use std::time::Duration;

use support::{Outcome, TestContext, limited, minjail, names_in, outcome_of, text};

/// The calls that fail, and with what.
const FAULTS: [(&str, &str); 24] = [
    ("openat", "EIO"),
    ("openat", "EMFILE"),
    ("openat2", "ENOMEM"),
    ("read", "EIO"),
    ("write", "ENOSPC"),
    ("fsync", "EIO"),
    ("fdatasync", "EIO"),
    ("renameat2", "EIO"),
    ("rename", "EIO"),
    ("renameat", "EIO"),
    ("mkdir", "ENOSPC"),
    ("mmap", "ENOMEM"),
    ("clone3", "EAGAIN"),
    ("getdents64", "EIO"),
    ("openat", "ENFILE"),
    ("pread64", "EIO"),
    ("write", "EIO"),
    ("ftruncate", "ENOSPC"),
    ("lseek", "EIO"),
    ("statx", "EIO"),
    ("readlinkat", "EIO"),
    ("flock", "ENOLCK"),
    ("syncfs", "EIO"),
    ("clone", "EAGAIN"),
];

/// Whether everything is tried that can be, which takes more than an hour.
#[expect(clippy::disallowed_methods, reason = "the test command speaks to the tests by this variable")]
fn all() -> bool {
    std::env::var_os("MINJAIL_TESTS_ALL").is_some()
}

/// How many calls of a kind fail, one in each run: all but of the commonest, the reading of the package database.
fn at_most() -> usize {
    if all() { 1_000 } else { 3 }
}

/// How often minjail is killed.
fn rounds() -> u64 {
    if all() { 200 } else { 25 }
}

/// A root with a program, its lock, and what is built from them when nothing fails.
struct Ground {
    context: TestContext,
    expected: (Vec<u8>, Vec<u8>),
}

impl Ground {
    fn new() -> Self {
        let context = TestContext::new();
        context.lay_out(&[("one", "1\n"), ("two", "2\n")]);
        let (trace, lock) = (context.text("app.trace"), context.text("app.lock"));
        let tree = format!("rootfs:{}", context.text("tree"));
        fs_err::copy("/bin/busybox", context.work().join("busybox")).expect("busybox-static is installed");
        let mut command = context.minjail(&["trace", "-q", "-t", &trace, "--lock", &lock, "-o", &tree, "--"]);
        command.args([&context.text("work/busybox"), "cat", "one", "two"]);
        outcome_of(&mut command).success();
        fs_err::create_dir(context.path("out")).expect("it is ours");
        fs_err::create_dir(context.path("tmp")).expect("it is ours");
        let mut ground = Self { context, expected: (Vec::new(), Vec::new()) };
        outcome_of(&mut ground.build(limited(minjail()))).success();
        ground.expected = ground.outputs().expect("both were built");
        ground.clear();
        ground
    }

    /// `build` of two forms from the lock.
    fn build(&self, mut command: Command) -> Command {
        let at = |name: &str| self.context.text(name);
        command.args(["build", "-q", "--force", "--locked", &at("app.lock"), "--root", &at("tree")]);
        command.args(["-o", &format!("oci:{}:1", at("out/layout"))]);
        command.args(["-o", &format!("docker-archive:{}:x", at("out/archive.tar"))]);
        command
    }

    /// What identifies the outputs; `None` for those of which one is not there.
    fn outputs(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let layout = fs_err::read(self.context.path("out/layout/index.json")).ok()?;
        Some((layout, fs_err::read(self.context.path("out/archive.tar")).ok()?))
    }

    /// Every output that is there is whole.
    #[track_caller]
    fn assert_whole(&self, what: &str) {
        if self.context.path("out/layout").exists() {
            let layout = format!("oci:{}:1", self.context.text("out/layout"));
            self.context.outcome(&["check", "-q", &layout, "--lock", &self.context.text("app.lock")]).success();
        }
        if let Ok(archive) = fs_err::read(self.context.path("out/archive.tar")) {
            assert!(archive == self.expected.1, "{what}: the archive is not whole");
        }
    }

    fn clear(&self) {
        fs_err::remove_dir_all(self.context.path("out")).expect("it is ours");
        fs_err::create_dir(self.context.path("out")).expect("it was just removed");
    }

    fn leftovers(&self) -> Vec<String> {
        names_in(&self.context.path("out")).into_iter().filter(|name| name.starts_with('.')).collect()
    }
}

/// `strace` that makes the `number`th call fail; it writes what it did to `log`.
fn strace(follow: bool, call: &str, error: &str, number: usize, log: &str) -> Command {
    let mut command = limited("strace");
    command.args(if follow { ["-f", "-qq"].as_slice() } else { &["-qq"] });
    command.args(["-o", log, "-e", &format!("trace={call}"), "-e", "signal=none"]);
    command.args(["-e", &format!("inject={call}:error={error}:when={number}"), minjail()]);
    command
}

/// The largest number that strace takes: no run has so many calls.
const NEVER: usize = 65_535;

/// Which of the calls of one kind fail: all, or some of them from first to last.
fn chosen(count: usize) -> Vec<usize> {
    let most = at_most().min(count);
    let mut chosen: Vec<usize> =
        (0..most).map(|at| 1 + at * count.saturating_sub(1) / most.max(2).saturating_sub(1)).collect();
    chosen.dedup();
    chosen
}

fn assert_honest(outcome: &Outcome, what: &str) {
    // Rust's runtime panics by itself when it gets no stack for its signal handler: before `main`, or in a new thread.
    let of_the_runtime = outcome.stderr.contains("failed to allocate an alternative stack");
    assert!(of_the_runtime || !outcome.stderr.contains("panicked"), "{what}: {outcome}");
    // Each thread has its own count, so the message itself may be what cannot be written.
    // 126: the program that is to be traced cannot be executed, or so it seems.
    let told = matches!(outcome.status, 125 | 126) && (outcome.stderr.contains("error: ") || what.starts_with("write"));
    // The loader and the allocator have words of their own for what comes before and below minjail.
    let early = outcome.status == 127 && outcome.stderr.contains("error while loading");
    let memory = matches!(outcome.status, 134 | 139 | 127) && what.contains("mmap");
    assert!(outcome.status == 0 || told || early || memory, "{what}: {outcome}");
}

#[test]
fn a_failing_call_never_gives_a_bad_image() {
    let ground = Ground::new();
    let log = ground.context.text("log");
    let mut faults = 0;
    for (call, error) in FAULTS {
        // A number that is never reached: this run counts.
        outcome_of(&mut ground.build(strace(true, call, error, NEVER, &log))).success();
        let count = fs_err::read_to_string(&log).expect("strace wrote it").lines().count();
        for number in chosen(count) {
            ground.clear();
            let what = format!("{call}:{error}:{number}");
            let outcome = outcome_of(&mut ground.build(strace(true, call, error, number, &log)));
            faults += usize::from(fs_err::read_to_string(&log).expect("it wrote it").contains("(INJECTED)"));
            assert_honest(&outcome, &what);
            ground.assert_whole(&what);
            if outcome.status == 0 {
                assert!(ground.outputs().as_ref() == Some(&ground.expected), "{what}: success without the outputs");
            }
            if outcome.status != 134 {
                assert_eq!(ground.leftovers(), [""; 0], "{what}: {outcome}");
            }
        }
    }
    println_stderr(&format!("{faults} faults in build"));
    assert!(faults >= 20, "only {faults} faults: strace does not inject");
}

#[test]
fn a_failing_call_never_gives_a_bad_image_from_a_trace() {
    let ground = Ground::new();
    let at = |name: &str| ground.context.text(name);
    let log = at("log");
    let command = |number: usize, call: &str, error: &str| {
        // strace sees minjail alone: the program is minjail's to trace.
        let mut command = strace(false, call, error, number, &log);
        command.args(["trace", "-q", "-t", &at("out/app.trace"), "-o", &format!("layer:{}", at("out/layer.tar"))]);
        command.args(["--", &at("work/busybox"), "cat", "one", "two"]).current_dir(ground.context.work());
        command
    };
    let mut expected: Option<Vec<u8>> = None;
    let mut faults = 0;
    for (call, error) in FAULTS {
        ground.clear();
        outcome_of(&mut command(NEVER, call, error)).success();
        let count = fs_err::read_to_string(&log).expect("strace wrote it").lines().count();
        let layer = fs_err::read(at("out/layer.tar")).expect("it was built");
        let expected = expected.get_or_insert(layer);
        for number in chosen(count) {
            ground.clear();
            let what = format!("{call}:{error}:{number}");
            let outcome = outcome_of(&mut command(number, call, error));
            faults += usize::from(fs_err::read_to_string(&log).expect("it wrote it").contains("(INJECTED)"));
            assert_honest(&outcome, &what);
            let layer = fs_err::read(at("out/layer.tar")).ok();
            assert!(layer.is_none() || layer.as_ref() == Some(expected), "{what}: a bad layer\n{outcome}");
            assert!(outcome.status != 0 || layer.is_some(), "{what}: success without a layer\n{outcome}");
            if outcome.status != 134 {
                assert_eq!(ground.leftovers(), [""; 0], "{what}: {outcome}");
            }
        }
    }
    println_stderr(&format!("{faults} faults in trace"));
    assert!(faults >= 20, "only {faults} faults: strace does not inject");
}

#[test]
fn killed_at_any_moment_it_leaves_the_old_or_the_new() {
    let ground = Ground::new();
    for round in 0..rounds() {
        let mut command = ground.build(Command::new(minjail()));
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("it can be started");
        // Spread over all of a run, in an order that has no pattern.
        std::thread::sleep(Duration::from_micros(round * 7_919 % 160_000));
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
        ground.assert_whole(&format!("round {round}"));
    }
    // What the killed ones left is gone after one that is not killed.
    outcome_of(&mut ground.build(limited(minjail()))).success();
    assert!(ground.outputs().as_ref() == Some(&ground.expected));
    assert_eq!(ground.leftovers(), [""; 0], "in {}", text(&ground.context.path("out")));
}

#[test]
fn of_two_that_make_one_output_each_is_whole_or_refused() {
    let ground = Ground::new();
    for _ in 0..5 {
        let children: Vec<_> = (0..4)
            .map(|_| {
                let mut command = ground.build(Command::new(minjail()));
                command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it can be started")
            })
            .collect();
        let won = children.into_iter().map(|child| child.wait_with_output().expect("it is our child").status);
        assert!(won.filter(std::process::ExitStatus::success).count() > 0, "somebody wins");
        ground.assert_whole("at once");
        assert_eq!(ground.leftovers(), [""; 0]);
    }
}

/// `trace` of a program that reads `file`, which writes its trace, an image and the image's lock.
fn traced(ground: &Ground, file: &str) -> Command {
    let at = |name: &str| ground.context.text(name);
    let mut command = Command::new(minjail());
    command.args(["trace", "-q", "--force", "-t", &at("out/app.trace"), "-o", &format!("oci:{}:1", at("out/layout"))]);
    command.args(["--", &at("work/busybox"), "cat", file]).current_dir(ground.context.work());
    command.env("TMPDIR", at("tmp"));
    command
}

#[test]
fn killed_while_it_traces_it_leaves_the_old_or_the_new() {
    let ground = Ground::new();
    let at = |name: &str| ground.context.text(name);
    let index = |name: &str| fs_err::read(ground.context.path(name)).ok();
    let images = ["one", "two"].map(|file| {
        outcome_of(&mut traced(&ground, file)).success();
        index("out/layout/index.json").expect("it was built")
    });
    for round in 0..rounds() {
        let what = format!("round {round}");
        let mut command = traced(&ground, ["one", "two"][round as usize % 2]);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it can");
        std::thread::sleep(Duration::from_micros(round * 7_919 % 160_000));
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
        // One of the two, and there is always one: each came in the place of the other.
        assert!(images.contains(&index("out/layout/index.json").expect("an image is there")), "{what}");
        ground.context.outcome(&["run", "-q", &format!("oci:{}:1", at("out/layout"))]).success();
        let again = ["build", "-q", "--force", "-t", &at("out/app.trace"), "-o", &format!("oci:{}:1", at("out/again"))];
        ground.context.outcome(&again).success();
        assert!(images.contains(&index("out/again/index.json").expect("it was built")), "{what}: the trace is neither");
    }
    outcome_of(&mut traced(&ground, "one")).success();
    assert_eq!(ground.leftovers(), [""; 0], "in {}", at("out"));
    assert_eq!(names_in(&ground.context.path("tmp")), [""; 0], "in {}", at("tmp"));
    ground.context.outcome(&["check", "-q", &format!("oci:{}:1", at("out/layout"))]).success();
}

#[test]
fn of_two_different_ones_no_image_is_beside_the_others_lock() {
    let ground = Ground::new();
    let at = |name: &str| ground.context.text(name);
    let traces = ["one", "two"].map(|file| {
        outcome_of(&mut traced(&ground, file)).success();
        let trace = at(&format!("{file}.trace"));
        fs_err::rename(at("out/app.trace"), &trace).expect("it is ours");
        trace
    });
    ground.clear();
    let layout = format!("oci:{}:1", at("out/layout"));
    for round in 0..10 {
        let children: Vec<_> = (0..4)
            .map(|number| {
                let mut command = Command::new(minjail());
                command.args(["build", "-q", "--force", "-t", &traces[number % 2], "-o", &layout]);
                command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("it can be started")
            })
            .collect();
        let won = children.into_iter().map(|mut child| child.wait().expect("it is our child"));
        assert!(won.filter(std::process::ExitStatus::success).count() > 0, "somebody wins");
        let checked = ground.context.outcome(&["check", &layout]);
        assert_eq!(checked.status, 0, "round {round}: {checked}");
        assert_eq!(ground.leftovers(), [""; 0]);
    }
}

/// What minjail keeps meanwhile is not there for a program that looks at the directory for temporary files, or clears it.
#[test]
fn a_program_that_clears_the_directory_for_temporary_files() {
    let context = TestContext::new();
    context.lay_out(&[("changed", "before\n"), ("temporary/file", "")]);
    let script = "ls -A temporary; find temporary -mindepth 1 -delete; echo after > changed";
    let mut command = context.minjail(&["trace", "-q", "-t", &context.text("app.trace")]);
    command.args(["--", "sh", "-c", script]).env("TMPDIR", context.work().join("temporary"));
    assert_eq!(outcome_of(&mut command).success().text(), "file\n");
    let records = fs_err::read_to_string(context.path("app.trace/trace.jsonl")).expect("it was written");
    assert!(!records.contains(".minjail"), "{records}");
    let output = context.text("out");
    let build = ["build", "-q", "-t", &context.text("app.trace"), "-o", &format!("rootfs:{output}")];
    context.outcome(&build).success();
    let changed = format!("{output}{}/changed", text(&context.work()));
    assert_eq!(fs_err::read_to_string(changed).expect("it is packed"), "before\n");
}

/// What a run needs beside the trace is not the program's: its name, another one each time, is in no image.
#[test]
fn a_build_whose_program_lists_the_directory_for_temporary_files() {
    let context = TestContext::new();
    context.lay_out(&[("temporary/file", "")]);
    let temporary = context.work().join("temporary");
    let profile = format!("workloads: {{list: {{run: [/bin/ls, -A, {}]}}}}\n", temporary.display());
    fs_err::write(context.path("app.yaml"), profile).expect("the directory can be written");
    let output = format!("rootfs:{}", context.text("out"));
    let mut command = context.minjail(&["build", "-q", &context.text("app.yaml"), "-o", &output]);
    outcome_of(command.env("TMPDIR", &temporary)).success();
    let listed = context.path("out").join(temporary.strip_prefix("/").expect("it is absolute"));
    assert_eq!(names_in(&listed), ["file"]);
}

/// Builds every form, and then a trace, where there is room for none of them; says what each left.
const FULL: &str = r#"
mount -t tmpfs -o size=900k none "$small" || exit 9
for form in oci: oci-archive: docker-archive: layer: rootfs:; do
    "$minjail" build -q --force --locked "$lock" --root "$tree" --lock "$small/lock" -o "$form$small/out" 2> "$words"
    echo "$form $? $(grep -c 'No space left on device' "$words") $(ls -A "$small")"
done
head -c 900k /dev/zero > "$small/fill" 2> /dev/null
"$minjail" trace -q -t "$small/app.trace" -- /bin/true 2> "$words"
echo "trace $? $(grep -c 'No space left on device' "$words") $(ls -A "$small")"
"#;

#[test]
fn a_full_disk_is_told_and_nothing_is_left_on_it() {
    if !support::needs_root("mounting") {
        return;
    }
    let ground = Ground::new();
    let at = |name: &str| ground.context.text(name);
    fs_err::create_dir(ground.context.path("small")).expect("it is ours");
    let mut command = limited("unshare");
    command.args(["--mount", "sh", "-c", FULL]);
    for (name, value) in [("small", "small"), ("lock", "app.lock"), ("tree", "tree"), ("words", "words")] {
        command.env(name, at(value));
    }
    let told = outcome_of(command.env("minjail", minjail())).success();
    let expected = "oci: 125 1 \noci-archive: 125 1 \ndocker-archive: 125 1 \nlayer: 125 1 \nrootfs: 125 1 \n\
                    trace 125 1 fill\n";
    assert_eq!(told.text(), expected, "{told}");
}

/// Not by `eprintln!`, which the test harness keeps back from a test that passes.
fn println_stderr(line: &str) {
    use std::io::Write;
    writeln!(std::io::stderr(), "{line}").ok();
}
