//! How paths are spelled, and where they lead.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use minjail_tracer::{Gap, Outcome};

use crate::hazard::{Hazard, WIDTHS, build, loader};
use crate::skip::skip;

#[test]
fn links() {
    let hazard = Hazard::new("links").file("deep/dir/file").file("deep/beside");
    let absolute = hazard.path().join("deep/dir");
    let hazard = hazard
        .link("to-dir", "deep/dir")
        .link("to-file", "to-dir/file")
        .link("absolute", absolute)
        .link("loop", "loop")
        .link("dangling", "nowhere")
        .link("to-new", "deep/new");
    hazard.run().is(&[
        "stat Look deep/dir/file there to-dir@",
        "stat Look to-file there",
        "stat Look deep/dir/file there to-file@ to-dir@",
        "stat Look deep/beside there to-dir@",
        "stat Look deep/dir there to-dir@",
        "stat Look deep/dir/file there absolute@",
        &format!("stat Look loop ELOOP{}", " loop@".repeat(40)),
        "stat Look nowhere missing dangling@",
        // Behind what is no directory: that is as far as the kernel looks.
        "stat Look deep/dir/file there",
        "stat Look none missing",
        "stat Look made missing",
        "symlink Create made missing",
        "stat Look deep/dir/file there made@ to-dir@",
        "unlink Remove made there",
        "stat Look deep/beside there made@",
        "open Create deep/new missing to-new@",
    ]);
}

#[test]
fn doors_of_proc() {
    let hazard = Hazard::new("magic").file("one").file("two").directory("sub");
    hazard.run().is(&[
        "open Read one there",
        "unlink Remove none missing",
        "open Read one there /dev/fd@",
        "open Read PROGRAM there",
        "access Look /etc/passwd there",
        "access Look at-cwd missing",
        "access Look at-thread missing",
        // The second process.
        "chdir Enter sub there",
        "open Read two there",
        "unlink Remove sub/none missing",
        "open Read two there /dev/fd@",
        "access Look sub/at-cwd missing",
        "access Look sub/at-thread missing",
        "open Read /proc/PID/fd/FD there",
    ]);
}

#[test]
fn names_of_any_bytes() {
    let longest = "n".repeat(255);
    let too_long = "n".repeat(256);
    let hazard = Hazard::new("names")
        .file("new\nline")
        .file(OsStr::from_bytes(b"\xff\xfe\x80"))
        .file("tab\tquote\"back\\slash")
        .file("gone (deleted)")
        .file("dir (deleted)/file")
        .file(&longest);
    hazard.run().is(&[
        r"access Look new\nline there",
        r"access Look \xff\xfe\x80 there",
        r#"access Look tab\tquote\"back\\slash there"#,
        "access Look gone (deleted) there",
        &format!("access Look {longest} there"),
        &format!("access Look {too_long} ENAMETOOLONG"),
        "open Read dir (deleted) there",
        "access Look dir (deleted)/file there",
        "fchdir Enter dir (deleted) there",
        "access Look dir (deleted)/file there",
    ]);
}

/// access, fchmod, futimens, fchdir and chdir.
#[test]
fn what_is_to_be_heard_of_again_is_told_each_time() {
    let events = |rounds: &str, told_again: bool| {
        let hazard = Hazard::new("asks_again").file("file").directory("directory").arguments(&[rounds]);
        let hazard = if told_again { hazard.told_again() } else { hazard };
        hazard.run().events
    };
    assert_eq!(events("4", false), events("1", false));
    assert_eq!(events("4", true), events("1", true) + 3 * 5);
}

#[test]
fn longer_than_a_path_may_be() {
    let name = "d".repeat(200);
    let deep = |depth: usize| vec![name.as_str(); depth].join("/");
    let mut expected = vec!["open Read . there".to_owned()];
    for depth in 1..=30 {
        expected.push(format!("mkdirat Create {} missing", deep(depth)));
        expected.push(format!("open Read {} there", deep(depth)));
    }
    for rest in [
        "access Look D/missing missing",
        "symlinkat Create D/link missing",
        "open Create D/target missing",
        "access Look D/target there D/link@",
        "fchdir Enter D there",
        "access Look D/from-here missing",
    ] {
        expected.push(rest.replace('D', &deep(30)));
    }
    Hazard::new("deep").run().is(&expected.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn opened_by_threads_where_the_kernel_tells_no_path() {
    let seen = Hazard::new("deep_threads").run();
    assert!(seen.gaps.is_empty() && seen.outcome == Outcome::Exited(0), "{:?}", seen.gaps);
    let file = format!("{}/file", vec!["d".repeat(200); 30].join("/"));
    for touch in ["Create FILE missing", "Read FILE there", "Write FILE there"] {
        assert!(seen.touches.contains(&format!("open {}", touch.replace("FILE", &file))), "{touch}");
    }
}

#[test]
fn strings_at_page_ends() {
    Hazard::new("page_end").run().is(&["access Look at-the-end missing", "access Look across missing"]);
}

#[cfg(target_arch = "aarch64")]
#[test]
fn addresses_with_tags() {
    Hazard::new("tagged").file("file").run().is(&[
        "access Look on-stack missing",
        "access Look on-heap missing",
        "open Read file there",
        "sendmsg Connect socket missing",
        "sendmsg Connect other missing",
        "open Read on-stack missing",
        "unlink Remove on-heap missing",
        "execve Execute program missing",
    ]);
}

#[test]
fn directories_that_move_away() {
    Hazard::new("directory").run().is(&[
        "mkdir Create old missing",
        "chdir Enter old there",
        "access Look old/first missing",
        "rename Remove old there",
        "rename Replace new missing",
        "access Look new/second missing",
        "rmdir Remove new there",
        // Nothing can be in a directory that is gone: only `..` leads anywhere from there.
        "access Look fourth missing",
    ]);
}

#[test]
fn programs_without_a_name() {
    let seen = Hazard::new("memfd").run();
    seen.is(&["open Read PROGRAM there", "access Look from-memory missing", "access Look from-descriptor missing"]);
    let loaded: Vec<_> = seen.executed.iter().map(|(_, loaded)| loaded.as_slice()).collect();
    assert_eq!(loaded, [&["memfd".to_owned()][..], &[], &["memfd".to_owned()]]);
}

/// The kernel opens the interpreter that they name, whether or not anything leads to them.
#[test]
fn scripts_without_a_name() {
    let hazard = Hazard::new("nameless_script").script("script", "#!second\n");
    let hazard = hazard.link("first", "/bin/true").link("second", "/bin/true");
    let seen = hazard.run();
    for link in ["first", "second"] {
        let touch = |touch: &String| touch.starts_with("execve Execute /") && touch.contains(&format!(" {link}@"));
        assert!(seen.touches.iter().any(touch), "{link}: {:#?}", seen.touches);
    }
}

#[test]
fn descriptors_that_are_only_places() {
    let hazard = Hazard::new("reopened").file("file").file("dir/inside").link("link", "dir");
    hazard.run().is(&[
        "open Look file there",
        "open Read file there",
        "fchmodat Attributes file there",
        "open Look link there",
        "open Look dir there",
        "access Look dir/inside there",
        "linkat Write file there",
        "linkat Create linked missing",
    ]);
}

#[test]
fn openat2_with_a_root_of_its_own() {
    let hazard = Hazard::new("resolve")
        .file("cell/file")
        .file("cell/dir/file")
        .file("cell/dir/other")
        .file("cell/at-cwd")
        .file("outside")
        .link("cell/absolute", "/file")
        .link("cell/link", "file")
        .link("cell/linked", "dir")
        .link("cell/leaves", "../outside");
    hazard.run().is(&[
        "open Read cell there",
        "openat2 Read cell/file there",
        "openat2 Read cell/file there cell/absolute@",
        "openat2 Read cell/dir/file there",
        // What the kernel refuses for its flags alone: where it stopped. What it then does not refuse is told.
        "openat2 Look . there",
        "openat2 Look cell there",
        "openat2 Look cell/link there",
        "openat2 Look cell there cell/leaves@",
        "openat2 Read cell/dir/file there cell/linked@",
        "openat2 Read cell/file there cell/link@",
        "chdir Enter cell there",
        "openat2 Read cell/at-cwd there",
    ]);
}

#[test]
fn files_by_handle() {
    let seen = Hazard::new("handle").file("dir/file").run();
    seen.is(&["name_to_handle_at Look dir/file there", "open Read . there", "open_by_handle_at Read dir/file there"]);
}

/// Nothing is missed where the kernel has no path for it, or hands out nothing.
#[test]
fn handles_of_no_file() {
    for what in ["refused", "namespace"] {
        let seen = Hazard::new("handle").arguments(&[what]).file("dir/file").run();
        if seen.outcome == Outcome::Exited(77) {
            return skip("this kernel has no handles of namespaces");
        }
        assert_eq!((seen.outcome, &seen.gaps), (Outcome::Exited(0), &BTreeMap::new()), "{what}");
    }
}

#[test]
fn unix_sockets() {
    Hazard::new("unix_socket").file("dir/inside").run().is(&[
        "bind Bind s missing",
        "sendto Connect s there",
        "sendmsg Connect s there",
        "connect Connect dir/none missing",
        "open Read dir there",
        "open Read dir/inside there",
    ]);
}

#[test]
fn what_is_watched() {
    let hazard = Hazard::new("watched").file("dir/file").link("link", "dir/file");
    let seen = hazard.run();
    if seen.outcome == Outcome::Exited(77) {
        return skip("fanotify needs root, and a kernel that has it");
    }
    seen.is(&[
        "open Read dir there",
        "fanotify_mark Look dir/file there",
        "fanotify_mark Look link there",
        "fanotify_mark Look dir/file there link@",
        "fanotify_mark Look dir/none missing",
        "open Read dir/file there",
    ]);
}

#[test]
fn links_that_are_not_followed() {
    let program = build("undumpable", &[]).display().to_string();
    let hazard =
        Hazard::new("not_followed").script("script", &format!("#!{program}\n")).file("file").link("link", "file");
    hazard.run().is(&[
        "umount2 Mount link there",
        "bind Bind link there",
        "execveat Read script there",
        "execveat Look link there",
    ]);
}

#[test]
fn layers_of_an_overlay() {
    let hazard = Hazard::new("layers").file("one/file").directory("two").directory("merged");
    let seen = hazard.run();
    assert_eq!(seen.outcome, Outcome::Exited(0));
    for layer in ["one", "two"] {
        assert!(seen.touches.contains(&format!("mount Look {layer} there")), "{:#?}", seen.touches);
    }
}

#[test]
fn what_is_probed() {
    let seen = Hazard::new("probed").file("file").run();
    if seen.outcome == Outcome::Exited(77) {
        return skip("the kernel has no uprobes to be had by perf_event_open");
    }
    seen.is(&[
        "open Read /sys/devices/uprobe/type there /sys/bus/event_source/devices/uprobe@",
        "perf_event_open Read file there",
        "perf_event_open Read none missing",
        "perf_event_open Read PROGRAM there",
    ]);
}

#[test]
fn listings() {
    Hazard::new("listing").file("one/a").file("two/b").link("link", "two").run().is(&[
        "open Read one there",
        "getdents64 List one there",
        "open Read two there link@",
        "getdents64 List two there",
        "chdir Enter one there",
        "open Read . there",
        "getdents64 List . there",
    ]);
}

#[test]
fn another_root() {
    let hazard =
        Hazard::new("chrooted").file("outside").file("cell/inside").file("cell/dir/x").link("cell/link", "/dir");
    hazard.run().is(&[
        "open Read . there",
        "chroot Enter cell there",
        "access Look relative missing",
        "access Look cell/absolute missing",
        "access Look cell/dir/x there cell/link@",
        "access Look outside there",
        "fchdir Enter . there",
        "access Look cell/inside there",
        "chdir Enter cell there",
        "open Read cell there",
        "getdents64 List cell there",
    ]);
}

#[test]
fn another_mount_namespace() {
    for way in ["unshare", "clone"] {
        let hazard =
            Hazard::new("mounts").arguments(&[way]).file("none").file("same").file("covered/file").link("link", ".");
        let mut expected = vec![
            "access Look before missing",
            "mount Mount / there",
            "access Look same there",
            "mount Mount covered there",
            // Nothing of what is made, and missing, in what the program mounts there.
            "access Look same there link@",
            "mount Look /proc/PID/ns/net there",
            "mount Mount none there",
        ];
        if way == "clone" {
            expected.push("access Look after missing");
        }
        hazard.run().is(&expected);
    }
}

/// No path below `outer`, and none of the other root: an image needs what was there before anything was mounted.
#[test]
fn a_root_in_another_mount_namespace() {
    if !nix::unistd::geteuid().is_root() {
        return skip("only root may mount");
    }
    Hazard::new("views").file("cell/etc/file").file("outer/etc/other").run().is(&[
        "access Look before missing",
        "mount Mount / there",
        "mount Look cell there",
        "mount Mount outer there",
        "access Look cell/etc/file there",
        "open Read cell there",
        "getdents64 List cell there",
        "faccessat Look cell/etc/file there",
        "faccessat Look cell/etc/none missing",
        "chroot Enter cell there",
        "chdir Enter cell there",
        "access Look cell/none missing",
    ]);
}

/// Of a root that is no mount point, the kernel's table does not tell what is mounted there.
#[test]
fn a_plain_directory_as_the_root_of_a_view_of_its_own() {
    let run = |mode: &str| {
        let hazard = ["file", "from", "dir/x", "dir/sub/a"].into_iter().fold(Hazard::new("celled"), Hazard::file);
        let hazard = ["own", "point", "old/point"].into_iter().fold(hazard, Hazard::directory);
        hazard.renamed("old", "new").arguments(&[mode]).run()
    };
    let mut wrong = Vec::new();
    for (mode, told) in [
        ("after", &["open Read file there", "open Read dir/x there", "access Look none missing"][..]),
        ("before", &["open Read file there", "open Read dir/x there", "access Look none missing"]),
        ("twice", &["rename Remove from there", "open Read dir/x there", "access Look dir/none missing"]),
        ("inside", &["open Read dir/x there", "access Look dir/none missing", "open Read file there"]),
        ("over", &["open Read file there", "open Read dir/x there", "access Look none missing"]),
        ("over another's", &["open Read file there", "open Read dir/x there"]),
        ("bound", &["open Read dir/sub/a there", "access Look dir/sub/none missing"]),
        ("own", &["open Read dir/x there"]),
        ("pivot", &["open Read file there", "open Read dir/x there", "access Look dir/none missing"]),
        ("moved", &["open Read dir/x there"]),
    ] {
        let seen = run(mode);
        let is_own = |touch: &String| touch.contains("own/") || touch.contains("point/");
        let is_told = told.iter().all(|touch| seen.touches.contains(*touch)) && !seen.touches.iter().any(is_own);
        if !is_told || !seen.gaps.is_empty() || seen.outcome != Outcome::Exited(0) {
            wrong.push((mode, seen));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn bound() -> Hazard {
    Hazard::new("bound").file("from/file").file("from/other").link("from/link", "file").directory("to")
}

#[test]
fn what_is_bound_elsewhere() {
    if !nix::unistd::geteuid().is_root() {
        return skip("only root mounts");
    }
    let seen = bound().arguments(&["here"]).run();
    assert_eq!((seen.outcome, &seen.gaps), (Outcome::Exited(0), &BTreeMap::new()));
    for touch in ["mount Look from there", "open Read from/file there from/link@", "access Look from/other there"] {
        assert!(seen.touches.contains(touch), "{touch}: {:#?}", seen.touches);
    }
    assert!(!seen.touches.iter().any(|touch| touch.contains(" to/")), "{:#?}", seen.touches);
    let seen = bound().arguments(&["itself"]).run();
    assert_eq!((seen.outcome, &seen.gaps), (Outcome::Exited(0), &BTreeMap::new()));
    assert!(seen.touches.contains("open Read from/file there from/link@"), "{:#?}", seen.touches);
}

/// As bubblewrap does it.
#[test]
fn a_sandbox() {
    if !nix::unistd::geteuid().is_root() {
        return skip("only root mounts");
    }
    bound().arguments(&["sandbox"]).run().is(&[
        "mount Mount / there",
        "open Look from there",
        "mount Mount . there",
        "access Look . there",
        "access Look from/file there",
        "access Look from/other there",
        "mount Look from there",
        "open Read from/file there",
        "open Read from/file there from/link@",
        "access Look from/none missing",
        "umount2 Mount / there",
        "chdir Enter from there",
        "pivot_root Enter from there",
        "open Read from/other there",
    ]);
}

#[test]
fn a_namespace_of_somebody_else() {
    if !nix::unistd::geteuid().is_root() {
        return skip("only root mounts");
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file").display().to_string();
    // No child of this process, whose tracer waits for them all.
    let inside = "mount -t tmpfs none $1 && : > $1/file && echo $$ && exec sleep 60 > /dev/null 2>&1";
    let mut starter = Command::new("/bin/sh");
    starter.args(["-c", "unshare -m /bin/sh -c \"$2\" sh \"$1\" &", "sh"]).arg(directory.path()).arg(inside);
    let started = starter.output().unwrap();
    let other = String::from_utf8(started.stdout).unwrap().trim().to_owned();
    let run = |how: &str| Hazard::new("bound").arguments(&[how, &other, &file]).try_run();
    let all = ["enter", "copy", "leave", "door"].map(|how| (how, run(how)));
    let killed = Command::new("kill").arg(&other).status().unwrap();
    assert!(killed.success(), "{other}");
    for (how, seen) in all {
        let seen = seen.unwrap();
        assert_eq!(seen.outcome, Outcome::Exited(0), "{how}");
        assert!(seen.gaps.contains_key(&Gap::MountNamespace), "{how}: {:#?}", seen.touches);
        let is_false = |touch: &String| touch.ends_with(&format!("{file} missing"));
        assert!(!seen.touches.iter().any(is_false), "{how}: {:#?}", seen.touches);
    }
}

/// What is known of an interpreter outside says nothing of the one that another view has at its path.
#[test]
fn an_interpreter_in_another_view() {
    let program = build("undumpable", &[]);
    let hazard = Hazard::new("viewed_interpreter").script("script", "#!tools/run\n");
    for directory in ["tools", "other"] {
        fs_err::create_dir(hazard.path().join(directory)).unwrap();
        fs_err::copy(&program, hazard.path().join(directory).join("run")).unwrap();
    }
    let seen = hazard.run();
    assert_eq!((seen.outcome, &seen.gaps), (Outcome::Exited(0), &BTreeMap::new()));
    for interpreter in ["tools/run", "other/run"] {
        assert!(seen.touches.contains(&format!("execve Execute {interpreter} there")), "{:#?}", seen.touches);
    }
}

#[test]
fn scripts_of_scripts() {
    let program = build("undumpable", &[]).display().to_string();
    let hazard = Hazard::of("/bin/sh".into()).arguments(&["-c", "./5 && ! ./6 2>&- && exec ./by-env"]);
    let absolute = hazard.path().join("1").display().to_string();
    let hazard = hazard
        .script("1", &format!("#!{program} ends-here\n"))
        .script("2", &format!("#! \t{absolute}\n"))
        .script("3", "#!./2 x\n")
        .script("4", "#!link\n")
        .script("5", "#!./4\n")
        // The kernel follows five (`fs/exec.c`, `exec_binprm`).
        .script("6", "#!./5\n")
        .script("by-env", &format!("#!/usr/bin/env {program}\n"))
        .link("link", "3");
    let seen = hazard.run();
    assert_eq!(seen.outcome, Outcome::Exited(0));
    let of_script =
        |touch: &&String| touch.starts_with("execve") && !touch.contains("/bin/sh@") && !touch.contains("/ld-linux");
    let seen: Vec<_> = seen.touches.iter().filter(of_script).cloned().collect();
    let mut expected =
        ["1 there", "2 there", "3 there link@", "4 there", "5 there", "6 there", "by-env there", "/usr/bin/env there"]
            .map(|end| format!("execve Execute {end}"))
            .to_vec();
    expected.push(format!("execve Execute {program} there"));
    expected.sort();
    assert_eq!(seen, expected);
}

/// By the machine's `binfmt_misc`: of a program, of a link to it, of a script that it runs, and of one that the kernel holds.
#[test]
fn programs_for_an_interpreter_of_the_machine() {
    let machine = tempfile::tempdir().unwrap();
    let Ok(_mounted) = Mount::of("binfmt_misc", machine.path()) else { return skip("binfmt_misc cannot be mounted") };
    let program = build("undumpable", &[]);
    let hazard = Hazard::of("/bin/sh".into()).link("link", &program);
    let hazard = hazard.script("script", &format!("#!{} x\n", program.display()));
    let held = hazard.path().join("held");
    fs_err::copy(&program, &held).unwrap();
    let interpreters = [program, hazard.path().join("link"), hazard.path().join("script"), held];
    let names = [0, 1, 2, 3].map(|index| format!("minjail-hazard-{}-{index}", std::process::id()));
    let hazard = names.iter().fold(hazard, |hazard, name| hazard.script(&format!("x.{name}"), "no program\n"));
    for ((name, interpreter), flags) in names.iter().zip(&interpreters).zip(["", "", "", "F"]) {
        let rule = format!(":{name}:E::{name}::{}:{flags}", interpreter.display());
        fs_err::write(machine.path().join("register"), rule).unwrap();
    }
    let run = names.each_ref().map(|name| format!("./x.{name}")).join(" && ");
    let seen = hazard.arguments(&["-c", &run]).try_run();
    for name in &names {
        fs_err::write(machine.path().join(name), "-1").unwrap();
    }
    let seen = seen.unwrap();
    assert_eq!((seen.outcome, &seen.gaps), (Outcome::Exited(0), &BTreeMap::new()));
    for name in &names {
        assert!(seen.touches.contains(&format!("execve Execute x.{name} there")), "{:#?}", seen.touches);
    }
    let program = interpreters[0].display();
    for touch in [format!("{program} there"), format!("{program} there link@"), "script there".to_owned()] {
        assert!(seen.touches.contains(&format!("execve Execute {touch}")), "{touch}: {:#?}", seen.touches);
    }
    assert!(!seen.touches.iter().any(|touch| touch.starts_with("execve Execute held ")), "{:#?}", seen.touches);
    for loaded in ["undumpable", "held"] {
        assert!(seen.executed.iter().any(|(_, names)| names == &[loaded]), "{:?}", seen.executed);
    }
}

/// Whoever opens them waits for the one that holds the lease, and is no reader that waits.
#[test]
fn programs_under_a_lease() {
    let Some(loader) = loader() else { return skip("this machine has another loader") };
    let program = build("undumpable", &[]);
    let hazard = Hazard::new("leased").script("script", &format!("#!{}\n", program.display()));
    let hazard = hazard.link("loader", loader);
    hazard.loaded_by("program", hazard.path().join("loader"));
    let seen = hazard.run();
    assert_eq!((seen.outcome, &seen.gaps), (Outcome::Exited(0), &BTreeMap::new()));
    assert!(seen.touches.contains(&format!("execve Execute {} there", program.display())), "{:#?}", seen.touches);
    let has_loader = |touch: &String| touch.starts_with("execve Execute /") && touch.contains(" loader@");
    assert!(seen.touches.iter().any(has_loader), "{:#?}", seen.touches);
}

/// A filesystem that is mounted while this lives.
pub(crate) struct Mount<'a>(&'a std::path::Path);

impl<'a> Mount<'a> {
    pub(crate) fn of(kind: &str, at: &'a std::path::Path) -> Result<Self, ()> {
        let status = Command::new("mount").args(["-t", kind, "none"]).arg(at).output();
        status.is_ok_and(|output| output.status.success()).then_some(Self(at)).ok_or(())
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn a_name_that_becomes_a_links() {
    Hazard::new("linked").file("plain").file("target").link("link", "target").run().is(&[
        "open Read plain there",
        "unlink Remove plain there",
        "link Write link there",
        "link Create plain missing",
        "open Read target there plain@",
    ]);
}

/// What changes a file's times says so, whatever else has changed it before: the content can be kept only then.
#[test]
fn what_is_changed_without_a_path() {
    for &flags in WIDTHS {
        let names = ["timed", "timed long", "timed too", "timed wide", "owned", "attributed", "both"];
        let seen = names.into_iter().fold(Hazard::with_flags("no_path", flags), Hazard::file).run();
        let is_x86 = cfg!(target_arch = "x86_64");
        let chmod = if is_x86 { "chmod" } else { "fchmodat" };
        let chmod = format!("{chmod} Attributes both there");
        let mut expected = vec![
            "open Read timed there",
            "utimensat Attributes timed there",
            "open Read owned there",
            "fchownat Attributes owned there",
            "mkdir Create within missing",
            "chdir Enter within there",
            "fchownat Attributes within there",
            "mkdir Create within/deeper missing",
            "chdir Enter within/deeper there",
            "setxattrat Attributes within/deeper there",
            "open Read timed wide there",
            "utimensat Attributes timed wide there",
            "chdir Enter . there",
            "open Read attributed there",
            "setxattrat Attributes attributed there",
            chmod.as_str(),
            "utimensat Attributes both there",
            "open Read both there",
        ];
        if is_x86 {
            expected.extend(["open Read timed too there", "futimesat Attributes timed too there"]);
        }
        if !flags.is_empty() {
            expected.extend(["open Read timed long there", "utimensat_time64 Attributes timed long there"]);
        }
        seen.is(&expected);
    }
}

/// No call can have used them, and so nothing is missing.
#[test]
fn pointers_that_the_kernel_refuses() {
    for &flags in WIDTHS {
        let hazard = Hazard::with_flags("refused", flags).content("mapped", "x");
        hazard.run().is(&["open Write mapped there", "access Look taken missing"]);
    }
}

#[test]
fn a_path_in_memory_that_may_only_be_written_to() {
    Hazard::new("write_only").file("file").run().is(&["open Read file there"]);
}

/// Where a task stands is not always what is to be seen at the path of that place.
#[test]
fn places_below_mounts() {
    if !nix::unistd::geteuid().is_root() {
        return skip("only root mounts");
    }
    let run = |how: &str| Hazard::new("covered").file("from/file").directory("to").arguments(&[how]).run();
    for how in ["over", "door", "root", "root-here"] {
        let seen = run(how);
        assert_eq!(seen.outcome, Outcome::Exited(0), "{how}");
        assert!(seen.gaps.contains_key(&Gap::MountNamespace), "{how}: {:?} {:?}", seen.gaps, seen.touches);
    }
    let read = "open Read from/file there";
    for (how, told) in [("own", "openat2 Read from/file there"), ("gone", read), ("view", read)] {
        let seen = run(how);
        assert_eq!((seen.outcome, &seen.gaps), (Outcome::Exited(0), &BTreeMap::new()), "{how}");
        assert!(seen.touches.contains(told), "{how}: {:?}", seen.touches);
    }
    let hazard = Hazard::new("covered").script("script", "#!program\n").directory("from").arguments(&["interpreter"]);
    fs_err::copy(build("undumpable", &[]), hazard.path().join("from/program")).unwrap();
    let seen = hazard.run();
    assert_eq!(seen.outcome, Outcome::Exited(0));
    assert!(seen.gaps.contains_key(&Gap::MountNamespace), "{:?} {:?}", seen.gaps, seen.touches);
}

/// What a task has open shows what no path leads to, and everything below.
#[test]
fn what_is_reached_by_descriptors_alone() {
    if !nix::unistd::geteuid().is_root() {
        return skip("only root mounts");
    }
    let run = |how: &str| {
        let files = ["from/file", "from/other", "from/sub/deep", "over/file", "over/other", "over/left", "over/sub/x"];
        let hazard = files.into_iter().fold(Hazard::new("behind"), Hazard::file).directory("own");
        let (file, from) = (hazard.path().join("from/file"), hazard.path().join("from"));
        let hazard = hazard.link("over/link", file).link("over/directory", from).script("over/script", "#!program\n");
        fs_err::copy(build("undumpable", &[]), hazard.path().join("over/program")).unwrap();
        hazard.arguments(&[how]).run()
    };
    let mut wrong = Vec::new();
    for (how, told) in [
        ("nested", &["mount Mount /proc", "open Read from/file", "open Read from/other"][..]),
        ("alone", &["mount Mount /proc", "open Read from/file"]),
        ("below", &["open Read from", "open Read from/file", "open Read from/other", "open Read from/sub/deep"]),
        (
            "climb",
            &[
                "open Read from/file",
                "open Read from/other",
                "open Read over",
                "open Read over/left",
                "open Read over/sub",
            ],
        ),
        ("link", &["open Read from/file", "open Read from/other", "open Read over"]),
        ("door", &["access Look over/left", "open Read over", "open Read over/other"]),
        ("script", &["execve Execute over/program", "execve Execute over/script"]),
        ("file", &["open Read from/file"]),
        ("point", &["mount Mount /proc"]),
        ("detached", &["open Read from/file"]),
    ] {
        let seen = run(how);
        let uses = seen.touches.iter().filter_map(|touch| touch.strip_suffix(" there"));
        let calls = ["open Read ", "execve ", "access Look over/left", "mount Mount /proc"];
        let uses = uses.filter(|touch| calls.iter().any(|call| touch.starts_with(call)) && !touch.contains(" /proc/"));
        if uses.collect::<Vec<_>>() != told || !seen.gaps.is_empty() || seen.outcome != Outcome::Exited(0) {
            wrong.push((how, seen));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn directories_that_were_removed() {
    for arguments in [&[][..], &["mount"]] {
        if !arguments.is_empty() && !nix::unistd::geteuid().is_root() {
            return skip("only root mounts");
        }
        let hazard = Hazard::new("gone").file("heir/file").file("beside").directory("mounted").arguments(arguments);
        let seen = hazard.run();
        assert_eq!((seen.outcome, &seen.gaps), (Outcome::Exited(0), &BTreeMap::new()));
        let files: Vec<_> = seen.touches.iter().filter(|touch| touch.starts_with("open Read ")).collect();
        assert_eq!(files, ["open Read /proc/PID there", "open Read beside there", "open Read dead there"]);
    }
}

#[test]
fn doors_to_what_has_no_path() {
    for arguments in [&[][..], &["mount"]] {
        if !arguments.is_empty() && !nix::unistd::geteuid().is_root() {
            return skip("only root mounts");
        }
        let seen = Hazard::new("doors").directory("mounted").arguments(arguments).run();
        assert_eq!((seen.outcome, &seen.gaps), (Outcome::Exited(0), &BTreeMap::new()), "{:?}", seen.touches);
    }
}

#[test]
fn a_mount_that_is_moved_without_a_path() {
    if !nix::unistd::geteuid().is_root() {
        return skip("only root mounts");
    }
    for how in ["move", "move-none"] {
        let hazard = Hazard::new("covered").file("far").file("near").directory("from").directory("to");
        let seen = hazard.link("from/link", "../far").link("to/link", "../near").arguments(&[how]).run();
        assert_eq!(seen.outcome, Outcome::Exited(0));
        // What is seen at `to` then is what the program was given at `from`.
        let moved = ["move_mount Mount from there", "move_mount Mount to there"];
        for touch in ["open Read near there to/link@", "open Read far there from/link@"].into_iter().chain(moved) {
            assert!(seen.touches.contains(touch), "{how}: {touch}: {:?}", seen.touches);
        }
    }
}

#[test]
fn a_directory_that_somebody_else_renames() {
    let hazard = Hazard::new("moved_outside").file("old/first").file("old/second").renamed("old", "new");
    let seen = hazard.run();
    assert_eq!((seen.outcome, &seen.gaps), (Outcome::Exited(0), &BTreeMap::new()));
    assert!(seen.touches.contains("open Read new/second there"), "{:?}", seen.touches);
}
