//! Somebody swaps directories for links that lead outside, all the time that minjail packs from a root, writes a tree, or
//! keeps what a traced program is about to change: nothing from outside gets in, and nothing outside is written, changed
//! or removed.

mod support;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, RenameFlags, ResolveFlag, open, openat2, renameat2};
use nix::sys::stat::Mode;
use support::{Outcome, TestContext, has, needs_root, outcome_of};

/// How many directories there are to swap.
const DIRECTORIES: usize = 8;

/// How many files each of them has.
const FILES: usize = 30;

/// How often each race is run.
const RUNS: usize = 30;

/// As long as what is outside, so that only the content tells them apart.
const INSIDE: &str = "this is inside, and may be packed\n";
const OUTSIDE: &str = "this is outside, and may not be!!\n";

/// A root with directories to swap, a place outside that has the same names, and links that lead there.
struct Ground {
    context: TestContext,
    before: BTreeMap<PathBuf, Facts>,
}

/// What somebody may have done to a file.
type Facts = (u32, u32, i64, i64, u64, Vec<u8>);

impl Ground {
    fn new() -> Self {
        let context = TestContext::new();
        for (place, content) in [("root/data", INSIDE), ("outside", OUTSIDE)] {
            for number in 0..DIRECTORIES {
                let directory = context.path(place).join(format!("{number:02}"));
                fs_err::create_dir_all(directory.join("below")).expect("the directory can be written");
                for name in (0..FILES).flat_map(|file| [format!("{file:02}"), format!("below/{file:02}")]) {
                    let path = directory.join(name);
                    fs_err::write(&path, content).expect("the directory can be written");
                    // All of one time, too.
                    let file = std::fs::File::options().write(true).open(path).expect("it is ours");
                    file.set_modified(std::time::UNIX_EPOCH).expect("it is ours");
                }
            }
        }
        fs_err::create_dir_all(context.path("root/bin")).expect("the directory can be written");
        fs_err::copy("/bin/busybox", context.path("root/bin/busybox")).expect("it can be copied");
        // One is absolute, and one climbs out of the root.
        symlink(context.path("outside/01"), context.path("root/absolute")).expect("the directory can be written");
        symlink("../../outside/01", context.path("root/relative")).expect("the directory can be written");
        symlink(context.path("outside/01"), context.path("bait")).expect("the directory can be written");
        let mut ground = Self { context, before: BTreeMap::new() };
        ground.before = ground.outside();
        ground
    }

    fn outside(&self) -> BTreeMap<PathBuf, Facts> {
        let mut all = BTreeMap::new();
        walk(&self.context.path("outside"), &mut |path| {
            let metadata = fs_err::symlink_metadata(path).expect("nobody takes it away");
            let content = if metadata.is_file() { fs_err::read(path).expect("it is readable") } else { Vec::new() };
            let times = (metadata.mtime(), metadata.ctime());
            all.insert(path.to_owned(), (metadata.mode(), metadata.uid(), times.0, times.1, metadata.nlink(), content));
        });
        all
    }

    /// Packs all of the root. One output: of several, what was read for one is held against what is read for the other.
    fn slim(&self, output: &str) -> Outcome {
        let root = format!("rootfs:{}", self.context.text("root"));
        let arguments = ["slim", "-q", "--force", "--no-verify", "--compression", "none", "--include", "/data", &root];
        let mut command = self.context.minjail(&arguments);
        command.args(["-o", output, "--", "/bin/busybox", "true"]);
        let outcome = outcome_of(&mut command);
        assert!(self.outside() == self.before, "something outside has changed\n{outcome}");
        assert!(!outcome.stderr.contains("panicked"), "{outcome}");
        outcome
    }

    /// Packs a layer, and looks that it has what is inside and nothing of what is outside; false if minjail saw that
    /// something changed, and made none.
    fn pack(&self) -> bool {
        let outcome = self.slim(&format!("layer:{}", self.context.text("layer")));
        if outcome.status != 0 {
            outcome.assert_refused(125, &[]);
            return false;
        }
        let layer = fs_err::read(self.context.path("layer")).expect("there is a layer");
        let blocks = || layer.chunks(512);
        assert!(
            !blocks().any(|block| block.starts_with(OUTSIDE.as_bytes())),
            "the layer has what is outside\n{outcome}"
        );
        let inside = blocks().filter(|block| block.starts_with(INSIDE.as_bytes())).count();
        // A directory that was a link whenever it was listed is packed as that link.
        assert!(inside > FILES, "the layer has {inside} files\n{outcome}");
        true
    }
}

/// Everything below `directory`, links not followed.
fn walk(directory: &Path, visit: &mut dyn FnMut(&Path)) {
    for entry in fs_err::read_dir(directory).expect("the directory can be listed") {
        let entry = entry.expect("the directory can be listed");
        visit(&entry.path());
        if entry.file_type().expect("it is there").is_dir() {
            walk(&entry.path(), visit);
        }
    }
}

fn exchange(one: &Path, other: &Path) -> bool {
    exchange_in(AT_FDCWD, one, other)
}

/// The same of what `one` is in `directory`.
fn exchange_in(directory: impl AsFd, one: &Path, other: &Path) -> bool {
    renameat2(directory, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE).is_ok()
}

/// The directory `below` that `tree` has, if no link is on the way: one that was left there would lead outside.
fn hold(tree: &Path, below: &Path) -> Option<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let tree = open(tree, flags, Mode::empty()).ok()?;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(&tree, &Path::new(".").join(below), how).ok()
}

/// Runs `race` while another thread does `step` with one number after the other.
fn against<T>(step: impl Fn(usize) + Sync, race: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in (0..DIRECTORIES).cycle() {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                step(number);
            }
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(race));
        over.store(true, Ordering::Relaxed);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[test]
fn a_root_whose_directories_are_swapped_for_links() {
    if !has(&["/bin/busybox"]) {
        return;
    }
    let ground = Ground::new();
    assert!(ground.pack(), "nobody swaps anything yet");
    let swaps = AtomicU64::new(0);
    let swap = |number: usize| {
        let directory = ground.context.path("root/data").join(format!("{number:02}"));
        let link = ground.context.path(if number.is_multiple_of(2) { "root/absolute" } else { "root/relative" });
        if exchange(&directory, &link) {
            // Long enough for a file or two, and seldom enough that most of the way to them is as it was.
            thread::sleep(Duration::from_micros(400));
            assert!(exchange(&directory, &link), "what was swapped can be swapped back");
            swaps.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(number as u64));
        }
    };
    let refused = against(swap, || {
        let mut refused = 0;
        // On a fast machine it may take a while until a run meets a link.
        for run in 1..=10 * RUNS {
            refused += usize::from(!ground.pack());
            if run >= RUNS && refused > 0 {
                break;
            }
        }
        refused
    });
    let swaps = swaps.into_inner();
    assert!(swaps > 20 && refused > 0, "{swaps} swaps, and {refused} runs met one: that is no race");
}

#[test]
fn a_tree_whose_directories_are_swapped_for_links_while_it_is_written() {
    if !has(&["/bin/busybox"]) {
        return;
    }
    let ground = Ground::new();
    let swaps = AtomicU64::new(0);
    let bait = ground.context.path("bait");
    // The tree grows beside its place, under a name that anybody can see.
    let swap = |number: usize| {
        let beside = fs_err::read_dir(bait.parent().expect("it is in a directory")).expect("it can be listed");
        let trees =
            beside.filter_map(Result::ok).filter(|entry| entry.file_name().to_string_lossy().starts_with(".tree"));
        for tree in trees {
            for name in ["data".to_owned(), format!("data/{number:02}"), format!("data/{number:02}/below")] {
                let directory = Path::new(&name);
                let (above, name) = (directory.parent(), directory.file_name().expect("they have names"));
                let Some(above) = hold(&tree.path(), above.expect("it is relative")) else { continue };
                if exchange_in(&above, name.as_ref(), &bait) {
                    swaps.fetch_add(1, Ordering::Relaxed);
                    // What is gone since cannot be swapped back; then the link is gone with it.
                    if !exchange_in(&above, name.as_ref(), &bait) && fs_err::read_link(&bait).is_err() {
                        let _ = minjail::publish::remove_all(&bait);
                        symlink(ground.context.path("outside/01"), &bait).expect("the directory can be written");
                    }
                }
            }
        }
    };
    against(swap, || {
        for _ in 0..RUNS {
            ground.slim(&format!("rootfs:{}", ground.context.text("tree")));
        }
    });
    assert!(swaps.into_inner() > 0, "nothing was swapped: that is no race");
}

/// Directories of `nobody`'s, each with a link beside it that leads where only root gets, to files that everybody might read.
struct Closed {
    context: TestContext,
    program: String,
}

impl Closed {
    fn new(directories: usize) -> Self {
        let context = TestContext::new();
        let program = context.hazard("exchanged");
        let lay_out = |place: &Path, word: &str| {
            fs_err::create_dir_all(place.join("names")).expect("the directory can be written");
            fs_err::write(place.join("file"), format!("{word} content")).expect("it can be written");
            fs_err::set_permissions(place.join("file"), PermissionsExt::from_mode(0o666)).expect("it is ours");
            fs_err::write(place.join(format!("names/{word}-name")), "").expect("it can be written");
            symlink(format!("{word}-target"), place.join("link")).expect("the directory can be written");
        };
        lay_out(&context.path("closed"), "closed");
        for number in 0..directories {
            lay_out(&context.work().join(format!("d{number}")), "own");
            symlink("../closed", context.work().join(format!("l{number}"))).expect("the directory can be written");
        }
        outcome_of(context.command("mkfifo").arg("pipe")).success();
        for (place, mode) in [("", 0o755), ("closed", 0o700)] {
            fs_err::set_permissions(context.path(place), PermissionsExt::from_mode(mode)).expect("it is ours");
        }
        outcome_of(context.command("chown").args(["-hR", "65534:65534", "."])).success();
        Self { context, program }
    }

    /// Traces the program, and says how many contents were kept; none may be of what is closed.
    fn trace(&self, how: &str) -> usize {
        let trace = self.context.text("app.trace");
        let arguments = ["trace", "-q", "-t", &trace, "--user", "65534:65534", "--", &self.program, how];
        self.context.outcome(&arguments).success();
        let records = fs_err::read_to_string(self.context.path("app.trace/trace.jsonl")).expect("there is a trace");
        for word in ["closed-name", "closed-target"] {
            assert!(!records.contains(word), "{how}: the trace has a {word}");
        }
        let before = self.context.path("app.trace/before");
        let kept = if before.exists() { support::names_in(&before) } else { Vec::new() };
        for name in &kept {
            assert_eq!(fs_err::read_to_string(before.join(name)).expect("it was kept"), "own content", "{how}");
        }
        records.matches(r#""before":""#).count()
    }
}

#[test]
fn what_a_program_may_not_enter_is_not_kept_for_it() {
    if !needs_root("to run as another user") {
        return;
    }
    // By the time of the call what is at the path is another file than the one that was walked to.
    let closed = Closed::new(1);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut pipe =
                fs_err::OpenOptions::new().write(true).open(closed.context.work().join("pipe")).expect("a reader");
            assert!(exchange(&closed.context.work().join("d0"), &closed.context.work().join("l0")), "they are there");
            std::io::Write::write_all(&mut pipe, b"x").expect("it is read");
        });
        closed.trace("other");
    });
    let kept = Closed::new(1500).trace("own");
    assert!(kept > 100, "{kept} of 1500 contents were kept: that is no race");
}
