//! What happens behind a trace's back: others who make, replace and redirect what the program opens, and what has no path.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use minjail_tracer::{Gap, Outcome};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::CloneFlags;

use crate::hazard::{Hazard, Seen, loader};
use crate::paths::Mount;
use crate::skip::skip;
use crate::tasks::{repeats, until_lost};

/// Every `got-NAME` that was asked for, as a name.
fn got(seen: &Seen) -> Vec<String> {
    assert_eq!((seen.outcome, &seen.gaps), (Outcome::Exited(0), &BTreeMap::new()));
    seen.asked("got-").into_iter().map(str::to_owned).collect()
}

#[test]
fn a_file_that_somebody_else_makes_in_the_end() {
    let hazard = Hazard::new("appearing");
    let (asked, file) = (hazard.path().join("asked"), hazard.path().join("appears"));
    let maker = std::thread::spawn(move || {
        while !asked.exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        fs_err::write(file, "").unwrap();
    });
    let seen = hazard.run();
    maker.join().unwrap();
    seen.is(&["open Read appears missing", "mkdir Create asked missing", "open Read appears there"]);
    assert!(seen.events < 20, "{}", seen.events);
}

#[test]
fn another_proc() {
    let place = tempfile::tempdir().unwrap();
    let Ok(_mounted) = Mount::of("proc", place.path()) else { return skip("proc cannot be mounted") };
    let hazard = Hazard::new("other_proc").file("file").file("inside/other");
    let seen = hazard.arguments(&[place.path().to_str().unwrap()]).run();
    assert_eq!((seen.outcome, &seen.gaps), (Outcome::Exited(0), &BTreeMap::new()));
    for touch in ["open Read file there", "open Read inside/other there"] {
        assert!(seen.touches.iter().any(|seen| seen.starts_with(touch)), "{touch}: {:#?}", seen.touches);
    }
}

#[test]
fn a_proc_of_another_pid_namespace() {
    if !nix::unistd::geteuid().is_root() {
        return skip("only root mounts");
    }
    let run = |how: &str| {
        let hazard = Hazard::new("numbered").file("file").file("other").file("inner/file").file("inner/other");
        hazard.arguments(&[how]).run()
    };
    let seen = run("self");
    assert_eq!((seen.outcome, &seen.gaps), (Outcome::Exited(0), &BTreeMap::new()));
    let files: Vec<_> = seen.touches.iter().filter(|touch| touch.starts_with("open Read ")).collect();
    assert_eq!(files, ["open Read inner/file there", "open Read inner/other there"]);
    let seen = run("ended");
    if seen.outcome == Outcome::Exited(77) {
        return skip("no task can be given that number");
    }
    assert_eq!((seen.outcome, &seen.gaps), (Outcome::Exited(0), &BTreeMap::new()));
    assert!(seen.touches.contains("open Read inner/file there"), "{:#?}", seen.touches);
}

#[test]
fn a_link_that_another_process_replaces() {
    let mut names = BTreeSet::new();
    for round in 0..10 * repeats() {
        // Where both share a processor for long, the link seldom moves.
        if round >= repeats() && names.len() > 10 {
            break;
        }
        let hazard = (0..40).map(|number| format!("file{number}")).fold(Hazard::new("swapped"), Hazard::file);
        let seen = hazard.link("link", "file0").run();
        for name in got(&seen) {
            let told = format!("open Read {name} there");
            assert!(seen.touches.iter().any(|touch| touch.starts_with(&told)), "{name} was opened and not told");
            names.insert(name);
        }
    }
    assert!(names.len() > 10, "the link must have moved for this to say anything");
}

/// The same for a process that asks what it does not open.
#[test]
fn a_link_that_another_process_replaces_while_one_asks() {
    until_lost(repeats(), || {
        let files = (0..300).flat_map(|round| [("a", "1"), ("b", "12")].map(|(name, content)| (name, round, content)));
        let hazard = Hazard::new("swapped").arguments(&["asks"]).link("link", "a");
        let seen = files
            .fold(hazard, |hazard, (name, round, content)| hazard.content(format!("{name}/{round}"), content))
            .run();
        let asked = got(&seen);
        for name in asked.iter().map(|name| name.replace('-', "/")) {
            let is_it = |touch: &&String| touch.starts_with(&format!("stat Look {name} there"));
            assert!(seen.touches.iter().any(|touch| is_it(&touch)), "{name} was looked at and not told");
        }
        let is_told = |touch: &&String| touch.starts_with("stat Look a/") || touch.starts_with("stat Look b/");
        // Where the link has moved meanwhile both are told.
        seen.touches.iter().filter(is_told).count() - asked.len()
    });
}

/// A call that is over found what it found.
#[test]
fn a_link_that_is_replaced_after_one_has_asked() {
    let hazard = Hazard::new("swapped").arguments(&["idles"]).link("link", "a").file("a/0").file("b/0");
    let seen = hazard.run();
    assert_eq!(seen.outcome, Outcome::Exited(0));
    assert!(seen.touches.contains("access Look a/0 there link@"), "{:#?}", seen.touches);
    assert!(!seen.touches.iter().any(|touch| touch.contains("b/0")), "{:#?}", seen.touches);
}

/// What a call has made of its paths itself is not what it found there.
#[test]
fn names_that_processes_change_beside_each_other() {
    for _ in 0..repeats() {
        let names: Vec<String> =
            (0..4).flat_map(|process| (0..50).map(move |round| format!("{process}-{round}"))).collect();
        let hazard = ["one", "other", "last"].into_iter().fold(Hazard::new("renames"), Hazard::file);
        let seen = names.iter().map(|name| format!("from-{name}")).fold(hazard, Hazard::file).run();
        let renames =
            |name: &String| [format!("rename Remove from-{name} there"), format!("rename Replace to-{name} missing")];
        let mut expected: Vec<String> = names.iter().flat_map(renames).collect();
        expected.extend(
            [
                "rename Remove one there",
                "rename Replace other there",
                "rename Remove last there",
                "rename Replace missing missing",
                "symlink Create link missing",
                "link Write other there",
                "link Create second missing",
            ]
            .map(str::to_owned),
        );
        seen.is(&expected.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

/// By a descriptor, and by the program's own argument.
#[test]
fn what_another_thread_redirects() {
    for argument in ["-", "a/0"] {
        for _ in 0..repeats() {
            let files = (0..200).flat_map(|round| ["a", "b"].map(|letter| format!("{letter}/{round}")));
            let seen = files.fold(Hazard::new("redirected").arguments(&[argument]), Hazard::file).run();
            for name in got(&seen).iter().map(|name| name.replace('-', "/")) {
                assert!(seen.touches.contains(&format!("open Read {name} there")), "{name} was opened and not told");
            }
        }
    }
}

#[test]
fn what_the_kernel_makes_up_below_a_mount() {
    let seen = alone(|| {
        mount(None::<&str>, "/sys/class", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        Hazard::new("behind").arguments(&["made_up"]).run()
    });
    let Some(seen) = seen else { return skip("only root mounts") };
    assert_eq!((seen.outcome, &seen.gaps), (Outcome::Exited(0), &BTreeMap::new()), "{:#?}", seen.touches);
}

#[test]
fn mounts_that_are_nowhere() {
    let seen = Hazard::new("detached_mount").file("dir/file").run();
    if seen.outcome == Outcome::Exited(77) {
        return skip("open_tree is not allowed here");
    }
    assert_eq!(seen.outcome, Outcome::Exited(0));
    assert_eq!(seen.gaps, BTreeMap::from([(Gap::MountNamespace, 1)]), "{:?}", seen.touches);
}

/// What a file system is made of that a program serves, and the program.
fn serving(mode: &str) -> Hazard {
    let hazard = Hazard::new("served").content("backing/file", "file").content("outside", "outside");
    let script = format!("#!{}/shell\n", hazard.path().display());
    let hazard = hazard.script("backing/script", &script).file("mnt/below").arguments(&[mode]);
    let program = crate::hazard::build("served", &[]);
    for copy in ["interpreter", "backing/program"] {
        fs_err::copy(&program, hazard.path().join(copy)).unwrap();
    }
    hazard.link("shell", "interpreter")
}

/// Runs it where what is mounted is seen by nobody else, and goes with it; `None` if nothing can be mounted.
fn alone(run: impl FnOnce() -> Seen + Send) -> Option<Seen> {
    let run = || {
        let own = CloneFlags::CLONE_NEWNS;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        nix::sched::unshare(own).and_then(|()| mount(None::<&str>, "/", None::<&str>, private, None::<&str>)).ok()?;
        Some(run()).filter(|seen| seen.outcome != Outcome::Exited(77))
    };
    std::thread::scope(|scope| scope.spawn(run).join().unwrap())
}

/// A path, by which a thread opens files, and which another one has lead elsewhere meanwhile.
fn switched(how: &str) -> Hazard {
    let hazard = Hazard::new("switched").arguments(&[how]);
    let files = (0..200).flat_map(|file| [(format!("d/{file}"), "a"), (format!("other/d/{file}"), "b")]);
    files.fold(hazard, |hazard, (name, content)| hazard.content(name, content))
}

/// Every file that `switched` has got is told where that was: of content `a` in `d`, of `b` in `other/d`.
#[track_caller]
fn is_told_as_got(seen: &Seen) {
    let got = got(seen);
    assert!(!got.is_empty());
    for got in got {
        let (content, file) = got.split_at(1);
        let directory = if content == "a" { "d" } else { "other/d" };
        assert!(seen.touches.contains(&format!("open Read {directory}/{file} there")), "{got}: {:#?}", seen.touches);
    }
}

/// Each file is told that was opened, below the root that its opener had by then.
#[test]
fn a_root_that_another_thread_moves() {
    for _ in 0..repeats() {
        let seen = switched("root").run();
        if seen.outcome == Outcome::Exited(77) {
            return skip("only root has other roots");
        }
        is_told_as_got(&seen);
    }
}

/// Each file is told that was opened, whatever was mounted over it by then.
#[test]
fn what_is_mounted_while_another_thread_opens() {
    for _ in 0..repeats() {
        let hazard = switched("mounts");
        let Some(seen) = alone(|| hazard.run()) else { return skip("nothing can be mounted here") };
        is_told_as_got(&seen);
    }
}

fn served(mode: &str) -> Option<Seen> {
    let hazard = serving(mode);
    alone(|| hazard.run())
}

/// Who serves it is not traced, and refuses everybody but the one user that the program becomes: the tracer, too.
#[test]
fn a_file_system_that_shows_its_files_to_one_user() {
    let hazard = serving("visits");
    fs_err::set_permissions(hazard.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let Some(seen) = served_by_another(&hazard, "alone") else { return skip(NOT_SERVED) };
    assert_eq!(seen.outcome, Outcome::Exited(0));
    assert_eq!(seen.gaps, BTreeMap::from([(Gap::Served, 1)]), "{:?}", seen.touches);
}

/// Nobody but the task that asks waits for a server that is not traced either.
#[test]
fn a_server_that_is_not_traced_and_never_answers() {
    for _ in 0..repeats() {
        let hazard = serving("goes on");
        let Some(mut seen) = served_by_another(&hazard, "silent") else { return skip(NOT_SERVED) };
        // The server may make it at any moment.
        seen.touches.retain(|touch| !touch.starts_with("readlink Look asked "));
        // A request that the server had, or could still have had, when it was killed; one after that is ENOTCONN.
        let aborted = seen.touches.take("access Look mnt ECONNABORTED");
        seen.touches.extend(aborted.map(|_| "access Look mnt ENOTCONN".to_owned()));
        assert_eq!((seen.outcome, &seen.gaps), (Outcome::Exited(0), &BTreeMap::new()));
        seen.is(&[
            "access Look outside there",
            // Nothing is there any more when it is told.
            "access Look mnt ENOTCONN",
        ]);
    }
}

/// The kernel keeps what a server has said for a while, and so looks say nothing of whether it still answers.
#[test]
fn a_server_that_is_not_traced_and_answers_no_more() {
    for _ in 0..repeats() {
        let hazard = serving("renames");
        let Some(seen) = served_by_another(&hazard, "cached") else { return skip(NOT_SERVED) };
        assert_eq!((seen.outcome, &seen.gaps), (Outcome::Exited(0), &BTreeMap::new()));
        for touch in ["stat Look mnt/file there", "rename Remove outside there", "access Look moved there"] {
            assert!(seen.touches.contains(touch), "{touch}: {:#?}", seen.touches);
        }
    }
}

/// Runs it where a process that is not traced serves `mnt`; `None` if it cannot.
fn served_by_another(hazard: &Hazard, mode: &str) -> Option<Seen> {
    let program = crate::hazard::build("served", &[]);
    let mnt = hazard.path().join("mnt");
    alone(|| {
        std::thread::scope(|scope| {
            // Not the thread that traces, which waits for all its children.
            let server = scope.spawn(|| {
                let mut server = std::process::Command::new(program);
                server.arg(mode).current_dir(hazard.path()).spawn().unwrap().wait().unwrap()
            });
            let is_mounted = || fs_err::read_to_string("/proc/thread-self/mountinfo").unwrap().contains("fuse.served");
            while !is_mounted() && !server.is_finished() {
                std::thread::sleep(Duration::from_millis(5));
            }
            let mut seen = hazard.run();
            let _ = umount2(&mnt, MntFlags::MNT_DETACH);
            if server.join().unwrap().code() == Some(77) {
                seen.outcome = Outcome::Exited(77);
            }
            seen
        })
    })
}

const NOT_SERVED: &str = "nothing can be served and mounted here";

/// A tracer that looked for itself would wait for a server that waits for the tracer.
#[test]
fn file_systems_that_the_program_serves_itself() {
    for mode in ["holds", "opens"] {
        for _ in 0..repeats() {
            let Some(seen) = served(mode) else { return skip(NOT_SERVED) };
            seen.is(&[
                "open Read backing/file there",
                "open Read backing/script there",
                "open Read backing/program there",
                "open Write /dev/fuse there",
                "mount Mount mnt there",
                "stat Look mnt/file there served",
                "open Read mnt/file there served",
                "readlink Look mnt/link there served",
                "open Read outside there",
                "access Look mnt/none missing served",
                "bind Bind mnt/link there served",
                "open Read mnt there served",
                "getdents64 List mnt there served",
                "access Look mnt/file there served",
                "fchdir Enter mnt there served",
                "access Look outside there",
                "chdir Enter . there",
                "execve Execute mnt/script there served",
                "execve Execute interpreter there shell@",
                "execve Execute mnt/program there served",
                "access Look within missing",
                "umount2 Mount mnt there served",
                "access Look mnt/below there",
            ]);
        }
    }
}

/// Of one that is not followed nobody has asked beforehand what it is.
#[test]
fn a_link_on_a_file_system_that_the_program_serves_itself() {
    let Some(seen) = served("refuses") else { return skip(NOT_SERVED) };
    assert_eq!((seen.outcome, seen.gaps), (Outcome::Exited(0), BTreeMap::from([(Gap::Served, 1)])));
}

/// Others go on while one waits, and nobody waits longer than without a tracer.
#[test]
fn a_file_system_whose_server_never_answers() {
    for _ in 0..repeats() {
        let Some(seen) = served("stops") else { return skip(NOT_SERVED) };
        assert_eq!((seen.outcome, &seen.gaps), (Outcome::Exited(0), &BTreeMap::new()));
        assert!(seen.touches.contains("access Look outside there"), "{:#?}", seen.touches);
        assert!(seen.touches.iter().any(|touch| touch.starts_with("access Look mnt/file ")), "{:#?}", seen.touches);
    }
}

#[test]
fn paths_in_memory_that_the_program_fills() {
    let open = ["open Read read there"];
    let device = ["open Read read there", "open Write /dev/userfaultfd there"];
    let stat = if cfg!(target_arch = "x86_64") { "newfstatat" } else { "fstatat" };
    let asked = format!("{stat} Look /dev/userfaultfd there");
    let node = [asked.as_str(), "mknodat Create node missing", "open Write node there", "open Read read there"];
    let messages = ["bind Bind socket missing", "sendmmsg Connect socket there"];
    for (way, expected) in [("", &open[..]), ("device", &device), ("node", &node), ("messages", &messages)] {
        let seen = Hazard::new("filled").arguments(&[way]).file("read").run();
        if seen.outcome == Outcome::Exited(77) {
            return skip("userfaultfd is not allowed here");
        }
        seen.is(&[expected, &["access Look while it is filled missing"]].concat());
    }
}

#[test]
fn paths_in_secret_memory() {
    for what in [&[][..], &["handle"]] {
        let seen = Hazard::new("secret").arguments(what).file("file").run();
        if seen.outcome == Outcome::Exited(77) {
            return skip("this kernel has no secret memory, or opens nothing by its handle");
        }
        assert_eq!((seen.outcome, &seen.gaps), (Outcome::Exited(0), &BTreeMap::from([(Gap::Memory, 1)])), "{what:?}");
    }
}

/// On one processor the other thread mostly comes too late for that.
#[test]
fn what_is_put_in_the_place_of_what_was_opened() {
    let hazard = Hazard::new("put_over").file("file");
    let is_told = |_| {
        let seen = hazard.run();
        assert_eq!(seen.outcome, Outcome::Exited(0));
        assert!(seen.gaps.keys().all(|&gap| gap == Gap::Rewritten), "{:?}", seen.gaps);
        !seen.gaps.is_empty()
    };
    assert!((0..50).any(is_told));
}

/// What the kernel does not read either is no path.
#[test]
fn a_path_that_ends_before_a_guard() {
    let seen = Hazard::new("guarded").file("file").run();
    if seen.outcome == Outcome::Exited(77) {
        return skip("this kernel has no guards");
    }
    seen.is(&["open Read file there"]);
}

/// The kernel finds it by itself: where the program stands, for what has no name, and wherever a link leads by then.
#[test]
fn interpreters_of_programs() {
    let Some(loader) = loader() else { return skip("this machine has another loader") };
    let hazard = Hazard::new("interpreted").directory("one").directory("two");
    for directory in ["one", "two"] {
        fs_err::copy(loader, hazard.path().join(directory).join("ld.so")).unwrap();
    }
    let hazard = hazard.link("current", "one");
    let near = hazard.loaded_by("near", "ld.so");
    let linked = hazard.loaded_by("linked", hazard.path().join("current/ld.so"));
    let seen = hazard.arguments(&[&near, &linked]).run();
    assert_eq!((seen.outcome, &seen.gaps), (Outcome::Exited(0), &BTreeMap::new()));
    for touch in [
        "execve Execute one/ld.so there",
        "execve Execute two/ld.so there",
        "execveat Execute one/ld.so there current@",
        "execve Execute two/ld.so there current@",
    ] {
        assert!(seen.touches.contains(touch), "{touch}: {:#?}", seen.touches);
    }
}

/// What is made after something was removed may have its number, and is another; and what one has made another one may have removed before
/// anybody looks.
#[test]
fn a_lock_that_threads_fight_over() {
    let kinds = ["file", "directory", "link", "symlink"];
    for (kind, how) in kinds.iter().flat_map(|&kind| [(kind, vec![kind]), (kind, vec![kind, "breaks"])]) {
        let hazard = (0..4).map(|number| format!("own{number}")).fold(Hazard::new("locks"), Hazard::file);
        let seen = hazard.arguments(&how).run();
        assert_eq!((seen.outcome, &seen.gaps), (Outcome::Exited(0), &BTreeMap::new()), "{how:?}");
        let is_lock = |touch: &&String| touch.contains(" lock ");
        let others: Vec<_> = seen.touches.iter().filter(|touch| !is_lock(touch)).collect();
        assert!(others.iter().all(|touch| touch.starts_with("link Write own")), "{kind}: {others:#?}");
        assert!(seen.touches.iter().any(|touch| touch.contains(" Create lock missing")), "{kind}: {:#?}", seen.touches);
    }
}

/// What is open stands elsewhere by then.
#[test]
fn a_log_that_another_thread_moves() {
    let seen = Hazard::new("rotated").run();
    assert_eq!((seen.outcome, &seen.gaps), (Outcome::Exited(0), &BTreeMap::new()));
    let paths: BTreeSet<&str> = seen.touches.iter().filter_map(|touch| touch.split(' ').nth(2)).collect();
    assert_eq!(paths, BTreeSet::from(["log", "log.1"]));
}
