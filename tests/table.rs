//! What the image gets: the table of `docs/design.md`, section 4, row by row, each on a small script.

mod support;

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use support::traced::{Built, Traced};
use support::{TestContext, has, limited, needs_root, outcome_of};

const OMITTED: &str = "/.minjail-omitted";

/// Traces a script in a directory filled by `prepare`, and builds the tree.
fn tree(script: &str, prepare: impl FnOnce(&Path)) -> Built {
    Traced::new(script, prepare).into_built()
}

fn write(path: impl AsRef<Path>, content: &str) {
    let path = path.as_ref();
    fs_err::create_dir_all(path.parent().expect("it is below a directory")).expect("the directory can be written");
    fs_err::write(path, content).expect("the directory can be written");
}

/// A file's mode, owner and group.
fn owner(path: &Path) -> (u32, u32, u32) {
    let metadata = fs_err::symlink_metadata(path).expect("it is there");
    (metadata.mode() & 0o7777, metadata.uid(), metadata.gid())
}

fn run(program: &str, arguments: &[&str], directory: &Path) {
    outcome_of(limited(program).args(arguments).current_dir(directory)).success();
}

#[test]
fn a_file_that_was_read_and_then_changed_in_every_way() {
    let script = "cat ./*.txt > /dev/null
echo new > overwritten.txt; echo more >> appended.txt; : > truncated.txt
rm unlinked.txt; mv moved.txt elsewhere
echo other > new; mv new renamed-over.txt
mv away.txt aside; mv aside away.txt
cp away.txt copy; mv copy away.txt";
    let names = ["overwritten", "appended", "truncated", "unlinked", "moved", "renamed-over", "away"];
    let built = tree(script, |work| {
        for name in names {
            write(work.join(format!("{name}.txt")), name);
        }
    });
    for name in names {
        assert_eq!(built.text(&format!("{name}.txt")), name, "as it was before the run");
    }
    for made in ["elsewhere", "new", "aside", "copy"] {
        assert!(!built.has(made), "{made} was made by the run");
    }
}

/// What a call by path does to times, mode, owner and attributes leaves the content alone: the file is there as it was.
#[test]
fn a_file_of_which_only_the_attributes_were_changed() {
    let script = "touch -h -d @86400 touched; perl -e 'utime 7, 7, \"perl\"'
python3 -I -c 'import os; os.utime(\"python\", (7, 7))'
cat read > /dev/null; touch -h -d @86400 read; touch -h -d @86400 big
chmod 600 mode; setfattr -n user.new -v x attribute; if [ $(id -u) = 0 ]; then chown 7:7 owner; fi
touch -h -d @86400 written; echo new > written; touch -h -d @86400 link";
    let names = ["touched", "perl", "python", "read", "mode", "attribute", "owner", "written"];
    let time = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let traced = Traced::new(script, |work| {
        for name in names {
            write(work.join(name), name);
        }
        write(work.join("big"), &"big".repeat(100_000));
        let mut set = limited("setfattr");
        outcome_of(set.args(["-n", "user.old", "-v", "kept", "touched"]).current_dir(work)).success();
        for name in names.iter().chain(&["big"]) {
            fs_err::set_permissions(work.join(name), PermissionsExt::from_mode(0o640)).expect("it is ours");
            let file = fs_err::OpenOptions::new().write(true).open(work.join(name)).expect("it is ours");
            file.into_parts().0.set_modified(time).expect("it is ours");
        }
        symlink("touched", work.join("link")).expect("the directory can be written");
    });
    let built = traced.build("tree", &["--mtime", "keep"]);
    let own = (0o640, nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    for name in names {
        assert_eq!(built.text(name), name, "its content is untouched");
        assert_eq!(owner(&built.at(name)), own, "{name} has the owner and mode from before the run");
        assert_eq!(fs_err::metadata(built.at(name)).expect("it is there").mtime(), 1_000_000, "{name} has its time");
    }
    assert_eq!(built.text("big"), "big".repeat(100_000));
    assert_eq!(built.link("link"), "touched");
    let mut get = limited("getfattr");
    let has = outcome_of(get.args(["--only-values", "-n", "user.old"]).arg(built.at("touched"))).success();
    assert_eq!(has.text(), "kept", "an attribute stays");
}

/// By its size, its time and its inode alone nobody can tell such a file from what it was.
#[test]
fn a_file_that_was_changed_and_given_its_time_back() {
    let script = "cat read; for file in read unread; do echo BBBB > $file; touch -d @1000000 $file; done
: >> opened; touch -d @1000000 opened";
    let traced = Traced::new(script, |work| {
        for name in ["read", "unread", "opened"] {
            write(work.join(name), "AAAA\n");
            let file = fs_err::OpenOptions::new().write(true).open(work.join(name)).expect("it is ours");
            let time = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
            file.into_parts().0.set_modified(time).expect("it is ours");
        }
    });
    let built = traced.build("tree", &[]);
    for name in ["read", "unread", "opened"] {
        assert_eq!(built.text(name), "AAAA\n", "{name}");
    }
    let is_told = |name: &str| built.said.contains(&format!("{name} was changed by the run"));
    assert!(is_told("/unread") && !is_told("/opened"), "{}", built.said);
}

#[test]
fn extended_attributes_are_those_of_before() {
    let script = "setfattr -x user.old changed; setfattr -n user.new -v x changed; setfattr -n user.new -v x bare
rm gone; echo new > more; mv more replaced; echo new > written; setfattr -x user.old directory
if [ $(id -u) = 0 ]; then chown 7:7 capable; fi";
    let is_root = nix::unistd::geteuid().is_root();
    let traced = Traced::new(script, |work| {
        for name in ["changed", "bare", "gone", "replaced", "written", "capable"] {
            write(work.join(name), name);
        }
        fs_err::create_dir(work.join("directory")).expect("the directory can be written");
        for name in ["changed", "gone", "replaced", "written", "directory"] {
            xattr::set(work.join(name), "user.old", b"kept \xff").expect("the file system has extended attributes");
        }
        if is_root {
            outcome_of(limited("setcap").arg("cap_net_raw+ep").arg(work.join("capable"))).success();
        }
    });
    let built = traced.build("tree", &[]);
    let get = |name: &str, attribute: &str| xattr::get(built.at(name), attribute).expect("it is there");
    for name in ["changed", "gone", "replaced", "written", "directory"] {
        assert_eq!(get(name, "user.old").as_deref(), Some(&b"kept \xff"[..]), "{name}");
    }
    assert_eq!((get("changed", "user.new"), get("bare", "user.new")), (None, None));
    assert_eq!(get("capable", "security.capability").is_some(), is_root, "the run's chown takes it away");
}

#[test]
fn extended_attributes_are_those_of_before_a_change_at_a_descriptor() {
    if !has(&["python3"]) {
        return;
    }
    let is_root = nix::unistd::geteuid().is_root();
    let script = "python3 -c '
import os
def opened(name): return os.open(name, os.O_RDONLY)
os.setxattr(opened(\"set\"), \"user.old\", b\"new\")
os.removexattr(opened(\"removed\"), \"user.old\")
os.setxattr(opened(\"directory\"), \"user.new\", b\"new\")
if os.getuid() == 0: os.fchown(opened(\"capable\"), 7, 7)'";
    let traced = Traced::new(script, |work| {
        fs_err::create_dir(work.join("directory")).expect("the directory can be written");
        for name in ["set", "removed", "capable"] {
            write(work.join(name), name);
        }
        for name in ["set", "removed", "directory"] {
            xattr::set(work.join(name), "user.old", b"kept").expect("the file system has extended attributes");
        }
        if is_root {
            outcome_of(limited("setcap").arg("cap_net_raw+ep").arg(work.join("capable"))).success();
        }
    });
    let built = traced.build("tree", &[]);
    let get = |name: &str, attribute: &str| xattr::get(built.at(name), attribute).expect("it is there");
    for name in ["set", "removed", "directory"] {
        assert_eq!(get(name, "user.old").as_deref(), Some(&b"kept"[..]), "{name}");
    }
    assert_eq!(get("directory", "user.new"), None);
    assert_eq!(get("capable", "security.capability").is_some(), is_root);
    assert_eq!(owner(&built.at("capable")).1, nix::unistd::geteuid().as_raw());
}

#[test]
fn a_file_that_was_changed_and_never_read() {
    let script =
        "echo x > truncated; echo x >> appended; rm removed; ln -sfn other link; chmod 600 mode; touch -d @0 time";
    let traced = Traced::new(script, |work| {
        for name in ["truncated", "appended", "removed", "mode", "time"] {
            write(work.join(name), name);
            fs_err::set_permissions(work.join(name), PermissionsExt::from_mode(0o640)).expect("it is ours");
        }
        symlink("before", work.join("link")).expect("the directory can be written");
    });
    let built = traced.build("tree", &[]);
    for name in ["truncated", "appended", "removed", "mode", "time"] {
        assert_eq!(built.text(name), name);
        assert_eq!(owner(&built.at(name)).0, 0o640, "{name}");
    }
    assert_eq!(built.link("link"), "before");
    let work = support::text(&traced.context.work());
    let words = format!("{work}/truncated was changed by the run; the image has it as it was before");
    assert!(built.said.contains(&words), "{}", built.said);
}

/// As a deployment switches from one release to the next.
#[test]
fn a_link_that_was_replaced_by_one_as_long_and_as_old() {
    let built = tree("cat cur/f; mv -T next cur; cat cur/f; mv -T other unread", |work| {
        write(work.join("v1/f"), "one");
        write(work.join("v2/f"), "two");
        for (target, link) in [("v1", "cur"), ("v2", "next"), ("v1", "unread"), ("v2", "other")] {
            symlink(target, work.join(link)).expect("the directory can be written");
            run("touch", &["-h", "-d", "@1000000", link], work);
        }
    });
    for (link, target) in [("cur", "v1"), ("next", "v2"), ("unread", "v1"), ("other", "v2")] {
        assert_eq!(built.link(link), target, "{link}");
    }
    assert_eq!((built.text("v1/f").as_str(), built.text("v2/f").as_str()), ("one", "two"));
}

/// Nobody sees who writes to what was open before, nor that it is another file by then.
#[test]
fn what_a_program_was_given_open_for_writing() {
    let context = TestContext::new();
    let work = context.work();
    for name in ["appended", "written", "other", "unread"] {
        write(work.join(name), "before");
    }
    fs_err::hard_link(work.join("other"), work.join("name")).expect("the directory can be written");
    let script = "exec 3>> appended 4<> written 5>> other 6>> unread
exec \"$0\" trace -q -t \"$1\" -- sh -c 'echo more >&3; echo more >&4; echo more >&5; echo more >&6; cat appended written name'";
    let arguments = ["-c", script, support::minjail(), &context.text("app.trace")];
    let outcome = outcome_of(context.command("sh").args(arguments)).success();
    assert_eq!(outcome.text(), "beforemore\nmore\ne".to_owned() + "beforemore\n");
    let traced = Traced { context, outcome };
    let built = traced.build("tree", &[]);
    for name in ["appended", "written", "name"] {
        assert_eq!(built.text(name), "before", "{name}");
    }
    assert!(!built.has("unread") && !built.has("other"));

    // What nothing was told of is not in the trace.
    let trace = traced.context.path("other.trace");
    let quiet = "exec \"$0\" trace -q -t \"$1\" -- true 6>> unread";
    let arguments = ["-c", quiet, support::minjail(), &support::text(&trace)];
    outcome_of(traced.context.command("sh").args(arguments)).success();
    assert!(!trace.join("before").exists());
}

#[test]
fn what_the_run_makes_is_not_there_but_its_directory_is() {
    let script =
        "echo x > out/new; mkdir out/sub; echo y > out/sub/deep; ln -s new out/link; mkfifo out/fifo; cat out/new";
    let built = tree(script, |work| {
        fs_err::create_dir(work.join("out")).expect("the directory can be written");
        fs_err::set_permissions(work.join("out"), PermissionsExt::from_mode(0o2750)).expect("it is ours");
    });
    assert_eq!(owner(&built.at("out")).0, 0o2750);
    assert_eq!(support::names_in(&built.at("out")), Vec::<String>::new());
}

#[test]
fn links_at_any_depth() {
    let script = "cat a/b/c/file; cat loop 2> /dev/null; cat dangling 2> /dev/null; cat real/../up/../real/file";
    let built = tree(script, |work| {
        write(work.join("real/file"), "content");
        fs_err::create_dir(work.join("up")).expect("the directory can be written");
        for (target, link) in [("one", "a"), ("real", "file-dir"), ("loop", "loop"), ("nowhere/x", "dangling")] {
            symlink(target, work.join(link)).expect("the directory can be written");
        }
        fs_err::create_dir_all(work.join("one/two")).expect("the directory can be written");
        symlink("two", work.join("one/b")).expect("the directory can be written");
        symlink(work.join("file-dir"), work.join("one/two/c")).expect("the directory can be written");
    });
    let links = ["a", "one/b", "file-dir", "loop", "dangling"].map(|link| built.link(link));
    assert_eq!(links, ["one", "two", "real", "loop", "nowhere/x"]);
    assert!(built.at("one/two/c").is_symlink() && built.at("up").is_dir());
    assert_eq!(built.text("real/file"), "content");
}

#[test]
fn a_listing_shows_the_same_names() {
    let script = "ls -A d; cat d/read; rm d/removed; ls -A d; echo x > d/made; ls -A d; ls d/sub";
    let built = tree(script, |work| {
        for name in ["read", "untouched", "removed", "sub/below"] {
            write(work.join("d").join(name), name);
        }
    });
    assert_eq!(support::names_in(&built.at("d")), ["read", "removed", "sub", "untouched"]);
    assert_eq!((built.link("d/untouched").as_str(), built.link("d/sub/below").as_str()), (OMITTED, OMITTED));
    assert_eq!(built.text("d/removed"), "removed");
}

#[test]
fn what_was_looked_for_in_vain_is_not_there() {
    let built =
        tree("cat missing no/way file/below 2> /dev/null; test -e other; true", |work| write(work.join("file"), ""));
    assert!(!built.has("missing") && !built.has("no") && !built.has("other"));
    assert!(built.at("file").is_file(), "in its way");
}

#[test]
fn mount_points_are_empty() {
    let built = tree("cat /proc/version /sys/kernel/mm/transparent_hugepage/enabled > /dev/null 2>&1; true", |_| {});
    for name in ["/proc", "/sys", "/dev"] {
        assert_eq!(support::names_in(&built.at(name)), Vec::<String>::new(), "{name}");
    }
}

/// There, too, the program finds itself where it was.
#[test]
fn a_program_that_starts_where_the_kernel_makes_everything_up() {
    let context = TestContext::new();
    for place in ["/sys", "/dev", "/proc"] {
        let image = format!("rootfs:{}", context.text("tree"));
        let trace = context.text("app.trace");
        let mut command = context.minjail(&["trace", "-q", "-t", &trace, "--force", "-o", &image, "--", "sh", "-c"]);
        let traced = outcome_of(command.arg("pwd; ls > /dev/null").current_dir(place)).success();
        assert_eq!(traced.text(), format!("{place}\n"), "{traced}");
        assert_eq!(support::names_in(&context.path("tree").join(&place[1..])), [""; 0]);
        context.outcome(&["run", "-q", &image]).assert_same_as(&traced);
    }
}

/// `execveat(2)`: its path may be meant from an open directory.
#[test]
fn a_program_that_is_executed_from_an_open_directory() {
    if !has(&["python3"]) {
        return;
    }
    let context = TestContext::new();
    context.lay_out(&[("d/e/script", "#!/bin/sh\nread line < \"${0%/*}/../input\"; echo $line\n"), ("d/input", "7\n")]);
    fs_err::set_permissions(context.work().join("d/e/script"), PermissionsExt::from_mode(0o755)).unwrap();
    fs_err::copy("/usr/bin/true", context.work().join("d/program")).unwrap();
    let program = "
import ctypes, os, sys
directory = os.open(\"d\", os.O_PATH)
os.set_inheritable(directory, True)
path, none = sys.argv[1].encode(), ctypes.c_char_p(None)
arguments = (ctypes.c_char_p * 2)(path, None)
ctypes.CDLL(None).syscall(322, directory, path, arguments, ctypes.byref(none), 0)
sys.exit(9)";
    for (path, says) in [("program", ""), ("e/script", "7\n")] {
        let image = format!("rootfs:{}", context.text("tree"));
        let mut command = context.minjail(&["trace", "-q", "-t", &context.text("app.trace"), "--force", "-o", &image]);
        let traced = outcome_of(command.args(["--", "/usr/bin/python3", "-I", "-c", program, path])).success();
        assert_eq!(traced.text(), says, "{traced}");
        assert!(
            context.path("tree").join(&support::text(&context.work())[1..]).join("d").join(path).exists(),
            "{path}"
        );
        context.outcome(&["run", "-q", &image]).assert_same_as(&traced);
    }
}

#[test]
fn files_of_the_machine_are_placeholders() {
    let built = tree("cat /etc/hostname /etc/hosts /etc/resolv.conf > /dev/null 2>&1; true", |_| {});
    if built.has("/etc/hosts") {
        assert!(built.text("/etc/hosts").starts_with("127.0.0.1\tlocalhost\n"));
    }
    if built.has("/etc/hostname") {
        assert_eq!(built.text("/etc/hostname"), "localhost\n");
    }
}

#[test]
fn temporary_files_that_were_read_are_kept() {
    let directory = tempfile::Builder::new().prefix("minjail-test-").tempdir_in("/tmp").expect("/tmp can be written");
    let path = support::text(&directory.path().join("note"));
    write(&path, "temporary");
    let traced = Traced::new(&format!("cat {path}"), |_| {});
    drop(directory);
    let built = traced.build("tree", &[]);
    assert_eq!(built.text(&path), "temporary", "though it is gone by now");
    assert_eq!(owner(&built.at("/tmp")).0, owner(Path::new("/tmp")).0);
    assert!(built.said.contains("in a place for temporary files"), "{}", built.said);
}

#[test]
fn a_refused_file_is_refused_in_the_same_way() {
    if !needs_root("another user") || !has(&["setpriv"]) {
        return;
    }
    let script = "setpriv --reuid=65534 --regid=65534 --clear-groups sh -c \
                  'cat closed 2> /dev/null; echo x 2> /dev/null >> closed; cat open; test ! -x closed'";
    let built = tree(script, |work| {
        write(work.join("closed"), "secret");
        write(work.join("open"), "open");
        fs_err::set_permissions(work.join("closed"), PermissionsExt::from_mode(0o600)).expect("it is ours");
    });
    assert_eq!(owner(&built.at("closed")), (0o600, 0, 0));
    assert_eq!(built.text("open"), "open");
}

#[test]
fn a_refused_file_that_is_replaced_or_removed() {
    if !needs_root("another user") {
        return;
    }
    let script = "cat moved; mv moved away; echo mine > moved; chmod 640 moved; stat removed > /dev/null; rm -f removed
cat changed; mv changed aside; mkdir changed";
    let traced = Traced::with(&["--user", "65534:65534"], script, |work| {
        for name in ["moved", "removed", "changed"] {
            write(work.join(name), "secret");
            fs_err::set_permissions(work.join(name), PermissionsExt::from_mode(0o600)).expect("it is ours");
        }
        run("chown", &["65534:65534", "."], work);
    });
    let built = traced.build("tree", &[]);
    for name in ["moved", "removed", "changed"] {
        assert_eq!(owner(&built.at(name)), (0o600, 0, 0), "{name}");
        assert_eq!(built.text(name), "", "{name}");
    }
}

#[test]
fn a_write_that_is_refused_does_not_end_the_trace() {
    if !needs_root("another user") || !has(&["setpriv"]) {
        return;
    }
    // minjail itself runs as somebody who may not read what the program tries to write.
    let context = TestContext::new();
    let scratch = tempfile::Builder::new().prefix("minjail-test-").tempdir_in("/var/tmp").expect("it can be written");
    fs_err::set_permissions(scratch.path(), PermissionsExt::from_mode(0o777)).expect("it is ours");
    let trace = support::text(&scratch.path().join("t.trace"));
    let minjail = support::text(&scratch.path().join("minjail"));
    fs_err::copy(support::minjail(), &minjail).expect("it can be written");
    let mut command = context.command("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", &minjail, "trace", "-q", "-t", &trace, "--"]);
    command.args(["sh", "-c", "(echo x >> /etc/shadow) 2> /dev/null; cat /etc/hostname > /dev/null; echo done"]);
    let outcome = outcome_of(command.current_dir(scratch.path())).success();
    assert_eq!(outcome.text(), "done\n");
}

#[test]
fn a_socket_is_told_of_and_its_directory_packed() {
    let script = "python3 -c \"
import socket
s = socket.socket(socket.AF_UNIX); s.connect('run/socket')\"";
    if !has(&["python3"]) {
        return;
    }
    let mut listener = None;
    let traced = Traced::new(&format!("cd .. && cd work && {script}"), |work| {
        fs_err::create_dir(work.join("run")).expect("the directory can be written");
        // The path may be too long for a socket's name (unix(7)); through /proc it is not.
        let held = fs_err::File::open(work.join("run")).expect("it was just made");
        let fd = std::os::fd::AsRawFd::as_raw_fd(&held);
        let name = format!("/proc/self/fd/{fd}/socket");
        listener = Some(std::os::unix::net::UnixListener::bind(name).expect("the directory can be written"));
    });
    let built = traced.build("tree", &[]);
    assert!(built.at("run").is_dir() && !built.has("run/socket"));
    assert!(built.said.contains("run/socket is not packed; something must provide it"), "{}", built.said);
}

#[test]
fn fifos_and_devices() {
    if !needs_root("a device node") {
        return;
    }
    let built = tree(
        "cat fifo & echo x > fifo; wait; head -c 4 zero > /dev/null; head -c 4 /dev/urandom > /dev/null",
        |work| {
            run("mkfifo", &["-m", "620", "fifo"], work);
            run("mknod", &["-m", "644", "zero", "c", "1", "5"], work);
        },
    );
    let type_of = |name: &str| fs_err::symlink_metadata(built.at(name)).expect("it is packed").file_type();
    assert!(type_of("fifo").is_fifo() && type_of("zero").is_char_device());
    assert_eq!(fs_err::symlink_metadata(built.at("zero")).expect("it is packed").rdev(), nix::sys::stat::makedev(1, 5));
    assert_eq!(owner(&built.at("fifo")).0, 0o620);
}

#[test]
fn devices_that_the_run_changes() {
    if !needs_root("a device node") {
        return;
    }
    let script = "chmod 600 mode; chown 7:7 owner; rm removed; mv moved away
rm replaced; mknod -m 644 replaced c 1 5; touch -d @7 replaced; mkfifo -m 600 pipe2; mv pipe2 pipe";
    let built = tree(script, |work| {
        for name in ["mode", "owner", "removed", "moved"] {
            run("mknod", &["-m", "644", name, "c", "1", "3"], work);
        }
        run("mknod", &["-m", "644", "replaced", "b", "7", "3"], work);
        run("touch", &["-d", "@7", "replaced"], work);
        run("mkfifo", &["-m", "640", "pipe"], work);
    });
    for name in ["mode", "owner", "removed", "moved", "replaced"] {
        let metadata = fs_err::symlink_metadata(built.at(name)).expect("it is packed");
        let number = if name == "replaced" { (7, 3) } else { (1, 3) };
        assert_eq!(metadata.rdev(), nix::sys::stat::makedev(number.0, number.1), "{name}");
        assert_eq!(metadata.file_type().is_block_device(), name == "replaced");
        assert_eq!(owner(&built.at(name)), (0o644, 0, 0), "{name}");
    }
    assert_eq!(owner(&built.at("pipe")).0, 0o640);
}

#[test]
fn metadata_is_exact() {
    if !needs_root("owners") || !has(&["setcap"]) {
        return;
    }
    let mut expected = Vec::new();
    let built = tree("cat setuid first second cap > /dev/null; stat setgid sticky attr; test -e third", |work| {
        for name in ["setuid", "first", "cap", "attr"] {
            write(work.join(name), name);
        }
        for name in ["setgid", "sticky"] {
            fs_err::create_dir(work.join(name)).expect("the directory can be written");
        }
        for name in ["second", "third"] {
            fs_err::hard_link(work.join("first"), work.join(name)).expect("the directory can be written");
        }
        run("chown", &["4321:8765", "setuid", "setgid"], work);
        for (mode, name) in [("4751", "setuid"), ("2770", "setgid"), ("1777", "sticky"), ("640", "first")] {
            run("chmod", &[mode, name], work);
        }
        run("setcap", &["cap_net_raw+ep", "cap"], work);
        xattr::set(work.join("attr"), "user.colour", b"red").expect("the file system has extended attributes");
        expected = ["setuid", "setgid", "sticky", "first", "cap", "attr"].map(|name| owner(&work.join(name))).to_vec();
    });
    let packed = ["setuid", "setgid", "sticky", "first", "cap", "attr"].map(|name| owner(&built.at(name)));
    assert_eq!(packed.to_vec(), expected);
    let inode = |name: &str| fs_err::metadata(built.at(name)).expect("it is packed").ino();
    assert!(inode("first") == inode("second") && inode("second") == inode("third"), "hard links are one file");
    assert_eq!(xattr::get(built.at("attr"), "user.colour").expect("it is readable").as_deref(), Some(&b"red"[..]));
    let capability = xattr::get(built.at("cap"), "security.capability").expect("it is readable").expect("it has one");
    assert_eq!(capability[4..8], (1u32 << 13).to_le_bytes(), "cap_net_raw is number 13");
}

#[test]
fn names_of_every_kind() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let names: [&[u8]; 8] =
        [b"with space", b"new\nline", b"\xff\xfe", b"-rf", b"back\\slash", b"\xe6\x97\xa5", b"quo\"te'", b"*"];
    let long = vec![b'n'; 255];
    let all = || names.iter().copied().chain([long.as_slice()]);
    let built = tree("cat -- * > /dev/null; find . -type f | wc -l", |work| {
        for name in all() {
            fs_err::write(work.join(OsStr::from_bytes(name)), name).expect("the directory can be written");
        }
    });
    for name in all() {
        let content = fs_err::read(built.at("").join(OsStr::from_bytes(name))).expect("it is packed");
        assert_eq!(content, name);
    }
}

/// A file of 1 GiB that is a hole but for its ends.
fn sparse(path: &Path) {
    use std::os::unix::fs::FileExt;
    let file = fs_err::OpenOptions::new().write(true).create_new(true).open(path).expect("it can be written");
    let file = file.into_parts().0;
    file.set_len(1 << 30).expect("the file system has sparse files");
    file.write_all_at(b"start", 0).expect("it can be written");
    file.write_all_at(b"end", (1 << 30) - 3).expect("it can be written");
}

#[test]
fn a_sparse_file_costs_nearly_nothing() {
    const LEAST: u64 = 16 << 20;
    let start = Instant::now();
    // Changed too, so that the trace's store keeps a copy.
    let traced = Traced::new("head -c 5 holes; head -c 5 changed; echo x >> changed", |work| {
        sparse(&work.join("holes"));
        sparse(&work.join("changed"));
    });
    let built = traced.build("tree", &[]);
    for name in ["holes", "changed"] {
        let metadata = fs_err::metadata(built.at(name)).expect("it is packed");
        assert_eq!(metadata.len(), 1 << 30, "{name}");
        assert!(metadata.blocks() * 512 < LEAST, "{name} takes {} blocks", metadata.blocks());
    }
    let before = traced.context.path("app.trace").join("before");
    let kept: u64 = fs_err::read_dir(before)
        .expect("the trace kept something")
        .map(|entry| entry.and_then(|entry| entry.metadata()).expect("it is readable").blocks() * 512)
        .sum();
    assert!(kept < LEAST, "the trace keeps {kept} bytes");
    let image = traced.context.path("image.tar");
    let output = format!("oci-archive:{}", support::text(&image));
    let trace = traced.context.text("app.trace");
    traced.context.outcome(&["build", "-q", "-t", &trace, "-o", &output]).success();
    let size = fs_err::metadata(image).expect("it was written").len();
    assert!(size < LEAST, "the image takes {size} bytes");
    assert!(start.elapsed() < Duration::from_secs(240), "it took {:?}", start.elapsed());
}

#[test]
fn ten_thousand_files() {
    let built = tree("cat d/*/* | wc -c", |work| {
        for number in 0..10_000 {
            write(work.join(format!("d/{}/{number}", number % 100)), "x");
        }
    });
    let count: usize = (0..100).map(|part| support::names_in(&built.at(&format!("d/{part}"))).len()).sum();
    assert_eq!(count, 10_000);
}

/// Read by `ldconfig` itself, it names every library of the image that the machine's own cache names, and no other.
#[test]
fn the_library_cache_names_the_libraries_of_the_image() {
    let built = tree("python3 -I -c 'import ssl, sqlite3'; curl --version > /dev/null", |_| {});
    let listed = |cache: &Path| -> Vec<(String, String)> {
        let mut ldconfig = limited("/sbin/ldconfig");
        let text = outcome_of(ldconfig.args(["-p", "-C"]).arg(cache)).success().text();
        let lines = text.lines().filter_map(|line| line.trim().split_once(" => "));
        lines.map(|(name, path)| (name.to_owned(), path.to_owned())).collect()
    };
    let ours = listed(&built.at("/etc/ld.so.cache"));
    let mut expected = listed(Path::new("/etc/ld.so.cache"));
    assert!(expected.len() > ours.len(), "the machine has more");
    expected.retain(|(_, path)| fs_err::metadata(built.at(path)).is_ok());
    assert_eq!(ours, expected);
    assert!(ours.iter().any(|(name, _)| name.starts_with("libssl.so")) && ours.len() > 10, "{ours:?}");
}
