//! Processes and threads: how they come to be, how they stop, and how they end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use minjail_tracer::{Account, Gap, Outcome, TraceError};

use crate::hazard::{Hazard, WIDTHS, build};
use crate::skip::skip;

/// What depends on a race is run so often.
const REPEATS: usize = 50;

/// The same for what takes longer: so often in CI.
#[expect(clippy::disallowed_methods, reason = "the test command speaks to the tests by this variable")]
pub(crate) fn repeats() -> usize {
    if std::env::var_os("MINJAIL_TESTS_NO_SKIP").is_some() { REPEATS } else { REPEATS / 10 }
}

/// Runs `round`, which says how often the tracer lost its race, so many times; and on until it has lost one, without which this
/// says nothing: a busy machine may keep both on one processor for long.
#[track_caller]
pub(crate) fn until_lost(times: usize, mut round: impl FnMut() -> usize) {
    let mut lost = 0;
    for count in 0..times + 200 {
        if count >= times && lost > 0 {
            return;
        }
        lost += round();
    }
    assert!(lost > 0, "the race must have been lost once for this to say anything");
}

#[test]
fn children_of_every_kind() {
    let seen = Hazard::new("children").run();
    let paths = ["fork", "vfork", "clone", "clone-vm", "clone3", "spawn", "clone-parent", "orphan", "thread"];
    let mut expected: Vec<String> = paths.iter().map(|path| format!("access Look {path} missing")).collect();
    expected.sort();
    seen.is(&expected.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(seen.parents.len(), 6 + 3, "children, and their children");
    // All descend from the program: of the processes that ended, it alone was not born under the tracer.
    assert_eq!(seen.exits.len(), 1 + seen.parents.len());
    let main = seen.exits.iter().find(|process| !seen.parents.contains_key(process)).unwrap();
    assert!(seen.parents.values().all(|parent| parent == main || seen.parents.contains_key(parent)));
}

/// Whoever is made, and gone before its maker is heard of, is neither made twice nor there for ever.
#[test]
fn children_that_are_gone_before_their_maker_is_heard_of() {
    if !nix::unistd::geteuid().is_root() {
        return skip("only root gives numbers");
    }
    for _ in 0..3 {
        let seen = Hazard::new("killed_at_birth").run();
        assert_eq!(seen.outcome, Outcome::Exited(0));
        seen.touched(&["access Look beside missing", "access Look of-maker missing"]);
        let born: BTreeSet<i32> = seen.parents.keys().copied().collect();
        assert_eq!(born.difference(&seen.exits).count(), 0, "each process that is born ends");
    }
}

#[test]
fn a_working_directory_for_two() {
    for _ in 0..REPEATS {
        Hazard::new("shared_directory").directory("one").directory("two").run().is(&[
            "access Look before missing",
            "chdir Enter one there",
            "access Look one/moved missing",
            "chdir Enter two there",
            "access Look two/of-child missing",
            "access Look one/unmoved missing",
        ]);
    }
}

/// The same for a thread that makes no call since.
#[test]
fn a_thread_that_computes_while_another_one_moves() {
    let seen = Hazard::new("computing").directory("one").run();
    seen.is(&["open Create out missing", "chdir Enter one there"]);
}

/// Who opened something before another one moved has opened what was there.
#[test]
fn a_root_for_two() {
    for sharing in ["0", "1", "2", "3", "4", "5", "6", "7"] {
        for _ in 0..repeats() {
            let hazard = ["cell/x", "cell/y", "cell/dir/z"].into_iter().fold(Hazard::new("shared_root"), Hazard::file);
            hazard.arguments(&[sharing]).run().is(&[
                "open Write cell/x there",
                "chdir Enter cell there",
                "chroot Enter cell there",
                "unlink Remove cell/y there",
                "chdir Enter cell/dir there",
                "open Write cell/dir/z there",
            ]);
        }
    }
}

/// A child that nobody traces, since another thread has rewritten the flags of the call by which it was made, is a gap.
#[test]
fn a_child_that_nobody_traces() {
    for _ in 0..repeats() {
        let seen = Hazard::new("escaped").run();
        assert_eq!(seen.outcome, Outcome::Exited(0));
        let is_told = |number: &i32| seen.touches.contains(&format!("access Look child-{number} missing"));
        let untold = (0..200).filter(|number| !is_told(number)).count();
        assert!(untold == 0 || seen.gaps.contains_key(&Gap::Untraced), "{untold} of 200, {:?}", seen.gaps);
    }
}

#[test]
fn execve_of_another_thread() {
    for _ in 0..REPEATS {
        for arguments in [&[][..], &["alone"]] {
            let seen = Hazard::new("exec_thread").arguments(arguments).run();
            seen.touched(&["access Look before missing", "access Look after missing"]);
            assert_eq!(seen.outcome, Outcome::Exited(7));
            assert_eq!(seen.executed.len(), 2);
            assert_eq!(seen.exits.len(), 1);
        }
    }
}

/// What has the number of the first thread since then has not made its last call.
#[test]
fn execve_of_another_thread_while_the_first_one_fails_to_rename() {
    let hazard = Hazard::new("exec_thread").arguments(&["renames"]).directory("directory");
    for _ in 0..REPEATS {
        let seen = hazard.run();
        assert_eq!((seen.outcome, &seen.gaps), (Outcome::Exited(7), &BTreeMap::new()));
        assert!(!seen.moved.contains_key(&Some(true)), "{:?}", seen.moved);
    }
}

/// Nobody lets the next program go on for the first thread of the last one, and misses that it was executed.
#[test]
fn execve_of_another_thread_while_the_first_one_is_looked_into() {
    let seen = Hazard::new("outrun").arguments(&["200"]).told_again().run();
    assert_eq!((seen.outcome, &seen.gaps), (Outcome::Exited(0), &BTreeMap::new()));
    assert_eq!(seen.executed.len(), 201);
    // aarch64 has no call of that name: the C library asks `unlinkat` for it.
    let rmdir = if cfg!(target_arch = "aarch64") { "unlink" } else { "rmdir" };
    assert!(seen.touches.contains(&format!("{rmdir} Remove /please-wait missing")), "{:?}", seen.touches);
}

/// What the first thread was about to ask for is not to be read of the next program.
#[test]
fn execve_of_another_thread_while_the_first_one_asks() {
    for how in ["asks", "opens"] {
        let seen = Hazard::new("overtaken").arguments(&[how, "100"]).file("asked").file("other").run();
        assert_eq!((seen.outcome, &seen.gaps), (Outcome::Exited(0), &BTreeMap::new()));
        assert_eq!(seen.executed.len(), 101);
        assert!(seen.touches.iter().all(|touch| !touch.contains("never")), "{:?}", seen.touches);
    }
}

#[test]
fn arguments_of_a_program() {
    let long = "x".repeat(20_000);
    let arguments = ["", "first", &long, "\n", "", ""];
    for &flags in WIDTHS {
        let seen = Hazard::with_flags("no_path", flags).arguments(&arguments).run();
        let program = build("no_path", flags).into_os_string().into_string().unwrap();
        assert_eq!(seen.executed[0].0, [&[program.as_str()], &arguments[..]].concat());
    }
}

/// The link by which the thread has executed something is not in use any more.
#[test]
fn execve_of_another_thread_by_a_link_that_is_replaced_then() {
    let hazard = Hazard::new("exec_thread").arguments(&["link"]).link("link", build("exec_thread", &[]));
    let seen = hazard.file("file").link("other", "file").run();
    seen.touched(&[
        "access Look before missing",
        "access Look after missing",
        "rename Remove other there",
        "rename Replace link there",
    ]);
    assert_eq!((seen.outcome, seen.gaps), (Outcome::Exited(7), BTreeMap::new()));
}

#[test]
fn daemons_are_followed_to_their_end() {
    let seen = Hazard::new("daemon").run();
    seen.touched(&["access Look daemon missing", "access Look late missing"]);
    assert_eq!(seen.outcome, Outcome::Exited(3));
    assert_eq!(seen.exits.len(), 3);
}

#[test]
fn daemons_are_followed_until_the_grace_is_over() {
    let start = Instant::now();
    let seen = Hazard::new("daemon").arguments(&["stubborn"]).grace(Duration::from_millis(500)).run();
    seen.touched(&["access Look daemon missing"]);
    assert_eq!(seen.outcome, Outcome::Exited(3));
    assert_eq!(seen.exits.len(), 3);
    assert!(start.elapsed() > Duration::from_millis(2400) && start.elapsed() < Duration::from_secs(10));
}

#[test]
fn death_in_a_stop() {
    let seen = Hazard::new("killed").run();
    assert_eq!(seen.outcome, Outcome::Exited(0));
    assert_eq!(seen.exits.len(), 51);
    assert!(seen.touches.iter().all(|touch| touch == "access Look busy missing"));
}

#[test]
fn signals_of_every_kind() {
    let seen = Hazard::new("signals").run();
    seen.touched(&["access Look between missing", "access Look held missing"]);
    assert_eq!(seen.outcome, Outcome::Killed(libc::SIGRTMAX()));
}

#[test]
fn questions_are_not_interrupted() {
    for &flags in WIDTHS {
        let statfs = if flags.is_empty() { "statfs" } else { "statfs64" };
        let hazard = Hazard::with_flags("interrupted", flags).file("file").file("tested").file("mounted");
        let hazard = hazard.link("link", "file").link("mere", "file");
        hazard.run().is(&[
            "open Read . there",
            "mknodat Create fifo missing",
            "open Read file there",
            "open Read unopened missing",
            "open Write /dev/null there",
            "open Look mere there",
            "open Write fifo there",
            "open Read fifo there",
            "unlink Remove fifo there",
            "stat Look file there",
            "stat Look none missing",
            "access Look tested there",
            "readlink Look link there",
            &format!("{statfs} Look mounted there"),
            "getdents64 List . there",
        ]);
    }
}

#[test]
fn what_waits_is_interrupted_however_it_is_opened() {
    for &flags in WIDTHS {
        for arguments in [&[][..], &["threads"]] {
            let hazard = Hazard::with_flags("ended", flags).arguments(arguments).file("file");
            assert_eq!(hazard.run().outcome, Outcome::Exited(0), "{flags:?} {arguments:?}");
        }
    }
}

#[test]
fn opens_that_are_compared_when_they_return_are_not_interrupted() {
    for arguments in [&[][..], &["woken"]] {
        for _ in 0..repeats() {
            let names = (0..10).flat_map(|number| ["a", "b"].map(|letter| format!("{letter}{number}")));
            let hazard = Hazard::new("returning").arguments(arguments);
            let hazard = names.clone().fold(hazard, |hazard, name| hazard.content(&name, &name));
            let seen = hazard.run();
            assert_eq!(seen.outcome, Outcome::Exited(0));
            assert_eq!(seen.touches, names.map(|name| format!("open Read {name} there")).collect());
            assert_eq!(seen.gaps, BTreeMap::new());
        }
    }
}

#[test]
fn opens_that_wait_or_change_something_are_compared_when_they_return() {
    for &flags in WIDTHS {
        for _ in 0..repeats() {
            Hazard::with_flags("waiting_threads", flags).content("leased", "").run().is(&[
                "mknodat Create alone missing",
                "mknodat Create met missing",
                "open Read leased there",
                "open Read met there",
                "open Write met there",
                "open Create other missing",
                "open Create other there",
                "open Read alone there",
                "open Create made missing",
                "open Create made there",
                "open Read none missing",
                "stat Look made there",
            ]);
        }
    }
}

#[test]
fn setuid_of_all_threads() {
    for _ in 0..REPEATS {
        let seen = Hazard::new("threaded_setuid").run();
        seen.is(&["access Look busy missing", "access Look after missing"]);
        assert_eq!(seen.accounts, [Account::User(65534), Account::Group(65534)].into());
    }
}

/// Whoever ignores a signal waits on.
#[cfg(target_arch = "x86_64")]
#[test]
fn signals_that_nobody_hears() {
    for &flags in WIDTHS {
        Hazard::with_flags("unheard", flags).run().is(&["access Look after missing"]);
    }
}

#[test]
fn the_first_process_of_a_namespace() {
    if !nix::unistd::geteuid().is_root() {
        return skip("only root makes pid namespaces");
    }
    Hazard::new("first_process").grace(Duration::from_secs(20)).run().is(&["access Look went on missing"]);
}

#[test]
fn who_knows_of_an_end_can_wait_for_it() {
    for &flags in WIDTHS {
        for _ in 0..repeats() {
            Hazard::with_flags("reaped", flags).run().is(&["access Look after missing"]);
        }
    }
}

#[test]
fn stopped_stays_stopped() {
    for _ in 0..repeats() {
        Hazard::new("job_control").run().is(&["access Look child missing"]);
    }
}

#[test]
fn untraced_children_are_seen() {
    for &flags in WIDTHS {
        Hazard::with_flags("untraced", flags).run().is(&[
            "access Look clone missing",
            "access Look clone3 missing",
            "access Look clone3-read-only missing",
        ]);
    }
}

#[test]
fn hidden_processes() {
    Hazard::new("undumpable").run().is(&["access Look hidden missing"]);
}

#[test]
fn filters_of_the_program() {
    let run = |what: &str| Hazard::new("own_filter").arguments(&[what]).run();
    run("deny").is(&["access Look before missing", "stat Look after missing"]);
    run("trace").is(&["access Look before missing", "stat Look after missing"]);
    let seen = run("listen");
    assert_eq!(seen.outcome, Outcome::Exited(0));
    assert_eq!(seen.gaps, BTreeMap::from([(Gap::Supervisor, 1)]));
}

/// What fails for want of a tracer of the program's own is nothing that was used.
#[test]
fn calls_that_a_filter_of_the_program_hands_to_a_tracer() {
    let narrow: &[&[&str]] = if cfg!(target_arch = "x86_64") { &[&["-DINT80"]] } else { &[] };
    for &flags in WIDTHS.iter().chain(narrow) {
        for (what, names) in [
            ("seccomp", &["before", "plain"][..]),
            ("prctl", &["before", "plain"]),
            ("vain", &["after"]),
            ("denied", &["logged", "plain"]),
            ("children", &["elder", "plain"]),
            ("executes", &["plain"]),
            ("threads", &["early", "plain"]),
        ] {
            let both = |name| [format!("open Read {name} missing"), format!("stat Look {name} missing")];
            let calls: Vec<String> = names.iter().flat_map(both).collect();
            let calls: Vec<&str> = calls.iter().map(String::as_str).collect();
            for _ in 0..repeats() {
                Hazard::with_flags("own_traces", flags).arguments(&[what]).run().is(&calls);
            }
        }
        Hazard::with_flags("own_traces", flags).arguments(&["marked"]).run().is(&["unlinkat Remove before missing"]);
        let busy = Hazard::with_flags("own_traces", flags).arguments(&["busy"]).run();
        busy.is(&["open Read plain missing", "stat Look plain missing"]);
    }
}

/// Which of its texts a filter was installed with, nobody can tell.
#[test]
fn a_filter_that_another_thread_rewrites() {
    until_lost(1, || {
        let seen = Hazard::new("own_traces").arguments(&["rewritten"]).run();
        seen.touched(&["open Read after missing", "stat Look after missing"]);
        assert_eq!(seen.outcome, Outcome::Exited(0));
        assert!(seen.gaps.keys().all(|&gap| gap == Gap::Rewritten));
        seen.gaps.len()
    });
}

#[test]
fn a_tracer_in_a_tracer_is_refused() {
    match Hazard::new("nested").try_run() {
        Err(TraceError::Nested { .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_makes_no_stop_is_not_there() {
    let seen = Hazard::new("io_uring").run();
    seen.touched(&[]);
    assert_eq!(seen.outcome, Outcome::Exited(0));
    let x32 = cfg!(target_arch = "x86_64").then_some((Gap::X32, 1));
    assert_eq!(seen.gaps, [(Gap::IoUring, 1)].into_iter().chain(x32).collect());
}

/// A program that asks whether the kernel has a call, and learns that it has not, has used nothing.
#[test]
fn calls_that_the_kernel_does_not_have() {
    let narrow: &[&[&str]] = if cfg!(target_arch = "x86_64") { &[&["-DINT80"]] } else { &[] };
    for &flags in WIDTHS.iter().chain(narrow) {
        Hazard::with_flags("no_such_call", flags)
            .run()
            .is(&["access Look before missing", "access Look after missing"]);
    }
}

#[test]
fn nobody_waits_to_be_permitted() {
    let seen = Hazard::new("permits").file("file").run();
    assert_eq!(seen.gaps.get(&Gap::Fanotify), Some(&2));
    if seen.outcome == Outcome::Exited(77) {
        return skip("fanotify needs root, and a kernel that has it");
    }
    seen.touched(&["fanotify_mark Look file there", "open Read file there"]);
    assert_eq!(
        (seen.outcome, seen.gaps),
        (Outcome::Exited(0), BTreeMap::from([(Gap::Fanotify, 2), (Gap::FanotifyWrite, 2)]))
    );
}

/// A 32-bit program of an aarch64 machine: its calls are not there, and it is told to have made some.
#[cfg(target_arch = "aarch64")]
#[test]
fn a_program_of_an_interface_that_nobody_knows() {
    // access("path"), then an undefined instruction if that gave ENOSYS and left the second argument alone, else a breakpoint.
    #[rustfmt::skip]
    let code: [u32; 11] = [
        0xe28f_001c, // add r0, pc, #28
        0xe3a0_1007, // mov r1, #7
        0xe3a0_7021, // mov r7, #33
        0xef00_0000, // svc #0
        0xe370_0026, // cmn r0, #ENOSYS
        0x0351_0007, // cmpeq r1, #7
        0x0a00_0000, // beq the one after the next
        0xe120_0070, // bkpt
        0xe7f0_00f0, // udf
        u32::from_le_bytes(*b"path"), 0,
    ];
    // Elf32_Ehdr and Elf32_Phdr of elf(5): an executable for ARM (40), its only segment all of it.
    let (start, size) = (0x1_0000, 84 + 4 * code.len() as u32);
    let header =
        [0x464c_457f, 0x0001_0101, 0, 0, 2 | 0x28 << 16, 1, start + 84, 0x34, 0, 0x0500_0000, 0x34 | 0x20 << 16, 1, 0];
    let segment = [1, 0, start, start, size, size, 5, 0x1000];
    let words = header.iter().chain(&segment).chain(&code);
    let bytes: Vec<u8> = words.flat_map(|word| word.to_le_bytes()).collect();
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("narrow");
    fs_err::write(&program, bytes).unwrap();
    fs_err::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    if std::process::Command::new(&program).status().is_err() {
        return skip("this processor runs no 32-bit programs");
    }
    let seen = Hazard::of(program).run();
    assert_eq!(seen.outcome, Outcome::Killed(libc::SIGILL));
    assert_eq!(seen.gaps, BTreeMap::from([(Gap::Interface, 1)]));
}

#[test]
fn a_hundred_thousand_files_and_sixty_four_threads() {
    let expected: Vec<String> = (0..100_000).map(|index| format!("open Read f{index} missing")).collect();
    let seen = Hazard::new("stress").run();
    seen.is(&expected.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(seen.events, 100_000 + 4, "execve, program, readlink, end: each path is told once");
}

#[test]
fn one_who_moved_does_not_make_all_paths_new() {
    let seen = Hazard::new("busy_after_move").directory("sub").run();
    seen.is(&["chdir Enter sub there", "access Look again missing"]);
    assert!(seen.events < 20, "{}", seen.events);
}

/// What is opened is told, though the path that the tracer read was another one by then.
#[track_caller]
fn rewritten(arguments: &[&str], times: usize) {
    let names: Vec<String> = (0..100).flat_map(|round| ["a", "b"].map(|letter| format!("{round}-{letter}"))).collect();
    until_lost(times, || {
        let hazard = names.iter().fold(Hazard::new("rewritten").arguments(arguments), Hazard::file);
        let seen = hazard.run();
        assert_eq!(seen.outcome, Outcome::Exited(0));
        let got = seen.asked("got-");
        let told = seen.touches.iter().filter(|touch| touch.starts_with("open Read")).count();
        let lost = told - got.len();
        assert!(got.len() == 100 || (arguments == ["empty"] && !got.is_empty()), "{} were opened", got.len());
        for name in got {
            assert!(seen.touches.contains(&format!("open Read {name} there")), "{name} was opened and not told");
        }
        lost
    });
}

#[test]
fn a_path_that_another_thread_rewrites() {
    rewritten(&[], repeats());
}

#[test]
fn a_path_in_ones_own_frame_that_another_thread_rewrites() {
    rewritten(&["stack"], repeats());
}

#[test]
fn a_path_that_is_empty_now_and_then() {
    rewritten(&["empty"], repeats());
}

#[test]
fn a_path_that_a_process_of_the_same_memory_rewrites() {
    for how in ["memory", "lent", "beside"] {
        rewritten(&[how], repeats());
    }
}

#[test]
fn a_path_that_another_process_rewrites_from_outside() {
    for how in ["written", "file"] {
        rewritten(&[how], repeats());
    }
}

#[test]
fn a_path_that_another_process_rewrites() {
    let release = fs_err::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    if (numbers.next(), numbers.next()) < (Some(6), Some(11)) {
        return skip("this kernel does not tell what is shared");
    }
    rewritten(&["process"], repeats());
    rewritten(&["ends"], repeats());
}

/// What was opened is told, or that it is not known, and the links on its way.
#[test]
fn a_rewritten_path_whose_descriptor_is_gone_or_that_leads_through_a_link() {
    for arguments in [&[][..], &["links"]] {
        until_lost(repeats(), || {
            let mut hazard = Hazard::new("stolen").arguments(arguments);
            for round in 0..100 {
                let (before, after) = (format!("a{round}"), format!("b{round}"));
                hazard = hazard.content(&before, "a");
                hazard = match arguments {
                    [] => hazard.content(&after, "b"),
                    _ => hazard.content(format!("c{round}"), "b").link(&after, format!("c{round}")),
                };
            }
            let seen = hazard.run();
            assert_eq!(seen.outcome, Outcome::Exited(0));
            let got = seen.asked("got-");
            let is_told = |round: &&str| {
                let touch =
                    if arguments.is_empty() { format!("b{round} there") } else { format!("c{round} there b{round}@") };
                seen.touches.contains(&format!("open Read {touch}"))
            };
            let untold = got.iter().filter(|round| !is_told(round)).count();
            let gaps = seen.gaps.get(&Gap::Rewritten).copied().unwrap_or_default();
            assert!(gaps >= untold, "{untold} were opened and not told, {gaps} gaps");
            got.len()
        });
    }
}

/// What is removed is told, or that it is not known.
#[test]
fn a_path_that_another_thread_rewrites_while_it_is_removed() {
    let names: Vec<String> = (0..100).flat_map(|round| ["a", "b"].map(|letter| format!("{round}-{letter}"))).collect();
    until_lost(repeats(), || {
        let hazard = names.iter().fold(Hazard::new("rewritten").arguments(&["remove"]), Hazard::file);
        let seen = hazard.run();
        assert_eq!(seen.outcome, Outcome::Exited(0));
        let got = seen.asked("got-");
        assert_eq!(got.len(), 100);
        let is_told = |name: &&str| seen.touches.contains(&format!("unlink Remove {name} there"));
        let untold = got.iter().filter(|name| !is_told(name)).count();
        let gaps = seen.gaps.get(&Gap::Rewritten).copied().unwrap_or_default();
        assert!(gaps >= untold, "{untold} were removed and not told, {gaps} gaps");
        // Every one that is not told is a gap.
        untold
    });
}

/// What is removed, renamed, linked, made or changed by way of a descriptor is told, or that it is not known, though something
/// else was in its place when the tracer looked.
#[test]
fn a_descriptor_that_another_thread_replaces_while_names_are_changed() {
    let changes = [
        ("remove", Some("Remove"), None),
        ("rename", Some("Remove"), Some("Replace")),
        ("link", Some("Write"), Some("Create")),
        ("make", None, Some("Create")),
        ("mode", Some("Attributes"), None),
    ];
    for (change, of_names, of_others) in changes {
        let run = |arguments: &[&str]| {
            let mut hazard = Hazard::new("replaced").arguments(arguments).directory("a").directory("b");
            for name in (0..200).flat_map(|round| ["a", "b"].map(|letter| format!("{letter}/{round}"))) {
                hazard = hazard.file(&name);
                if change == "rename" {
                    hazard = hazard.file(name.replace('/', "/other-"));
                }
            }
            let seen = hazard.run();
            assert_eq!(seen.outcome, Outcome::Exited(0));
            seen
        };
        assert_eq!(run(&[change, "never"]).gaps, BTreeMap::new(), "{change}");
        until_lost(repeats(), || {
            let seen = run(&[change]);
            let got = seen.asked("got-");
            assert!(got.len() >= 200, "{change}: {}", got.len());
            let is_told = |name: &&&str| {
                let is_other = name.contains("other");
                let access = if is_other { of_others } else { of_names }.unwrap();
                let state = if is_other && change != "rename" { "missing" } else { "there" };
                let touch = format!(" {access} {} {state}", name.replacen('-', "/", 1));
                seen.touches.iter().any(|told| told.ends_with(&touch))
            };
            let untold = got.iter().filter(|name| !is_told(name)).count();
            let gaps = seen.gaps.get(&Gap::Rewritten).copied().unwrap_or_default();
            assert!(gaps >= untold, "{change}: {untold} were changed and not told, {gaps} gaps");
            let is_of_names = |told: &&String| of_names.is_some_and(|access| told.contains(&format!(" {access} ")));
            untold + seen.touches.iter().filter(is_of_names).count().saturating_sub(200)
        });
    }
}

/// The script that was executed is told, though the path that the tracer read was another one by then.
#[test]
fn a_script_whose_path_another_thread_rewrites() {
    until_lost(repeats(), || {
        let seen = Hazard::new("rewritten_script").run();
        assert_eq!(seen.outcome, Outcome::Exited(0));
        let got = seen.asked("got-");
        assert_eq!(got.len(), 100);
        for name in got {
            assert!(seen.touches.contains(&format!("execve Execute {name} there")), "{name} ran and was not told");
        }
        seen.touches.iter().filter(|touch| touch.starts_with("execve Execute")).count() - 101
    });
}

/// The file that was opened is told, though the handle that the tracer read was another one's by then.
#[test]
fn a_handle_that_another_thread_rewrites() {
    let names: Vec<String> = (0..100).flat_map(|round| ["a", "b"].map(|name| format!("{round}-{name}"))).collect();
    until_lost(repeats(), || {
        let seen = names.iter().fold(Hazard::new("rewritten_handle"), Hazard::file).run();
        assert_eq!(seen.outcome, Outcome::Exited(0));
        let got = seen.asked("got-");
        assert_eq!(got.len(), 100);
        let is_told = |name: &str| seen.touches.contains(&format!("open_by_handle_at Read {name} there"));
        for name in got {
            assert!(is_told(name), "{name} was opened and not told");
        }
        (0..100).filter(|round| ["a", "b"].iter().all(|name| is_told(&format!("{round}-{name}")))).count()
    });
}

/// A file that was opened for writing is told to be, or that it is not known.
#[test]
fn flags_that_another_thread_rewrites() {
    until_lost(repeats(), || {
        let hazard = (0..100).map(|round| round.to_string()).fold(Hazard::new("rewritten_how"), Hazard::file);
        let seen = hazard.run();
        assert_eq!(seen.outcome, Outcome::Exited(0));
        let written = seen.asked("written-");
        let is_told = |name: &&&str| seen.touches.contains(&format!("openat2 Write {name} there"));
        let untold = written.iter().filter(|name| !is_told(name)).count();
        let gaps = seen.gaps.get(&Gap::Rewritten).copied().unwrap_or_default();
        assert!(gaps >= untold, "{untold} were written to and not told, {gaps} gaps");
        gaps
    });
}

/// A relative path is told from where its thread stands, and from where another one is about to go.
#[test]
fn a_thread_that_moves_the_others() {
    until_lost(repeats(), || {
        let files = (0..200).flat_map(|round| ["one", "two"].map(|directory| format!("{directory}/{round}")));
        let seen = files.fold(Hazard::new("moving"), Hazard::file).run();
        assert_eq!((seen.outcome, &seen.gaps), (Outcome::Exited(0), &BTreeMap::new()));
        let got: Vec<String> = seen.asked("got-").iter().map(|name| name.replace('-', "/")).collect();
        assert_eq!(got.len(), 200);
        for name in got {
            assert!(seen.touches.contains(&format!("open Read {name} there")), "{name} was opened and not told");
        }
        seen.touches
            .iter()
            .filter(|touch| touch.starts_with("open Read one/") || touch.starts_with("open Read two/"))
            .count()
            - 200
    });
}

/// Nor does it if it gets nowhere.
#[test]
fn a_thread_that_moves_nobody() {
    let hazard = Hazard::new("unmoved").file("file");
    for _ in 0..repeats() {
        let seen = hazard.run();
        assert_eq!((seen.outcome, &seen.gaps), (Outcome::Exited(0), &BTreeMap::new()));
        seen.touched(&[
            "chdir Enter none missing",
            "chdir Enter file there",
            "fchdir Enter file there",
            "open Read file there",
            "unlink Remove gone missing",
        ]);
    }
}

/// But it does not move those that have parted from it.
#[test]
fn a_thread_that_moves_alone() {
    let files = (0..100).flat_map(|round| [round.to_string(), format!("one/{round}")]);
    let hazard = files.fold(Hazard::new("apart").directory("one").directory("two"), Hazard::file);
    let own = (0..100).map(|round| format!("open Write {round} there"));
    let expected: Vec<String> =
        ["one", "two"].iter().map(|directory| format!("chdir Enter {directory} there")).chain(own).collect();
    hazard.run().is(&expected.iter().map(String::as_str).collect::<Vec<_>>());
}
