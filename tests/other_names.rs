//! What a run changes of a file by one of its names, or of one that has got the name or the number of another.

mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use support::has;
use support::laid_out::{Case, files, lay_out};
use support::traced::Traced;

/// Files of one package often have the same time, and may have the same size.
#[test]
fn another_file_of_the_same_size_and_time() {
    let traced = Traced::new("mv two one; cat one", |work| {
        lay_out(work, &["one=first", "two=other"]);
        for name in ["one", "two"] {
            let file = std::fs::File::options().write(true).open(work.join(name)).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
        }
    });
    let built = traced.into_built();
    assert_eq!(files(&built.at(""), Path::new("")), ["one=first", "two=other"]);
}

/// Somebody whom nobody traces changes a file that the run has read and is to change itself.
#[test]
fn what_others_change_between_a_look_and_a_change() {
    let outsider = |work: &Path, change: &str| {
        let script = format!("until [ -e ready ]; do sleep 0.01; done; {change}; : > go");
        let mut command = support::limited("sh");
        command.args(["-c", &script]).current_dir(work).spawn().unwrap()
    };
    for (first, change, expected) in [
        ("cat f", "echo new > f", Err(())),
        ("cat f", "echo longer > f", Err(())),
        ("cat f", "echo new > other; mv other f", Err(())),
        // Nobody has seen what there was before.
        ("test -e f", "echo longer > f", Ok("longer\n")),
        ("chmod 600 f; test -e f", "cat longer > f", Ok("longer\n")),
        ("stat f", "echo longer > f", Ok("longer\n")),
    ] {
        let script = format!("{first}; : > ready; until [ -e go ]; do sleep 0.01; done; cat f > other; echo more >> f");
        let mut child = None;
        let traced = Traced::new(&script, |work| {
            fs_err::write(work.join("f"), "old\n").unwrap();
            fs_err::write(work.join("longer"), "longer\n").unwrap();
            child = Some(outsider(work, change));
        });
        assert!(child.unwrap().wait().unwrap().success());
        if let Ok(content) = expected {
            let built = traced.build("tree", &[]);
            assert_eq!(built.text("f"), content);
            assert_eq!(fs_err::metadata(built.at("f")).unwrap().permissions().mode() & 0o777, 0o644);
        } else {
            let words = ["f` was changed by somebody else while it was traced", "hint: trace again"];
            traced.try_build("tree", &[]).assert_refused(125, &words);
            let path = traced.context.work().join("f");
            assert!(!traced.build("tree", &["--exclude", &support::text(&path)]).has("f"));
        }
    }
}

/// Where a file has two names, a run that changes it by one has changed it by the other.
#[test]
fn another_name_of_a_changed_file() {
    for script in [
        "echo new > one; cat two",
        "cat two; echo new > one",
        "cat two; rm one; echo new > two",
        "echo new > one; mv two d/",
        "echo new > one; rm one; cat two",
        "echo new > other; chmod 600 one; echo new > one; mv other one; cat two",
        "cat two; touch -d @0 one; echo new > one; rm one; cat two",
    ] {
        let traced = Traced::new(script, |work| {
            lay_out(work, &["one=old", "d/"]);
            fs_err::hard_link(work.join("one"), work.join("two")).unwrap();
        });
        let built = traced.into_built();
        assert_eq!(files(&built.at(""), Path::new("")), ["one=old", "two=old"], "{script}");
    }
}

/// A name that was only listed is of the same file, and has its content and its mode where an image gets that.
#[test]
fn another_name_that_was_listed() {
    for script in ["ls d; echo new > d/one", "ls d; echo new > d/one; rm d/one", "ls d; chmod 600 d/one"] {
        let traced = Traced::new(script, |work| {
            lay_out(work, &["d/one=old"]);
            fs_err::hard_link(work.join("d/one"), work.join("d/two")).unwrap();
        });
        let full = traced.build("full", &["--listing", "full"]);
        let [one, two] = ["d/one", "d/two"].map(|path| fs_err::metadata(full.at(path)).unwrap());
        assert_eq!(files(&full.at(""), Path::new("")), ["d/one=old", "d/two=old"], "{script}");
        assert_eq!((one.ino(), one.mode()), (two.ino(), two.mode()), "{script}");
    }
}

/// What a Python program has read, removed and renamed; none of it by a shell.
#[track_caller]
fn of_python(program: &str, before: &[&str]) -> Vec<String> {
    let script = format!(
        "python3 -c '
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def read(name): return open(name).read()
{program}'"
    );
    let traced = Traced::new(&script, |work| lay_out(work, before));
    let built = traced.into_built();
    files(&built.at(""), Path::new(""))
}

/// `rename(2)`: of two names of one file neither goes by that.
#[test]
fn two_names_of_one_file_that_threads_rename_to_each_other() {
    if !has(&["python3"]) {
        return;
    }
    let script = "python3 -c '
import os, threading
def rename():
    for _ in range(200):
        os.rename(\"one\", \"two\")
        os.rename(\"two\", \"one\")
threads = [threading.Thread(target=rename) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert open(\"one\").read() == open(\"two\").read() == \"old\"
os.unlink(\"one\")'";
    let traced = Traced::new(script, |work| {
        lay_out(work, &["one=old"]);
        fs_err::hard_link(work.join("one"), work.join("two")).expect("the directory can be written");
    });
    let built = traced.into_built();
    let [one, two] = ["one", "two"].map(|name| fs_err::metadata(built.at(name)).expect("it is packed").ino());
    assert_eq!((files(&built.at(""), Path::new("")), one), (vec!["one=old".into(), "two=old".into()], two));
}

#[test]
fn a_directory_that_could_not_be_removed_before() {
    let case = |script| Case { before: &["d/f=old", "d/s/g=deep"], script, image: &["d/f=old", "d/s/g=deep"] };
    case("rmdir d 2> /dev/null; mv d e; cat e/f e/s/g").check();
    case("mv d /none/e 2> /dev/null; mv d e; cat e/f e/s/g").check();
}

/// `open(2)`, `O_TMPFILE`: the file gets its first name by that of its descriptor.
#[test]
fn a_file_that_had_no_name() {
    if !has(&["python3"]) {
        return;
    }
    let found = of_python(
        "file = os.open(\".\", os.O_TMPFILE | os.O_RDWR, 0o644)
os.write(file, b\"new\")
assert libc.linkat(-100, b\"/proc/self/fd/%d\" % file, -100, b\"made\", 0x400) == 0
os.rename(\"made\", \"d/f\")
read(\"d/f\")",
        &["d/f=old"],
    );
    assert_eq!(found, ["d/f=old"]);
}

/// `RENAME_NOREPLACE`, and then somebody else renames the same without that.
#[test]
fn a_rename_that_failed_and_was_done_by_another() {
    if !has(&["python3"]) {
        return;
    }
    let found = of_python(
        "open(\"a\", \"w\").write(\"new\")
assert libc.renameat2(-100, b\"a\", -100, b\"b\", 1) != 0
if os.fork() == 0:
    os.rename(\"a\", \"b\")
    os._exit(0)
os.wait()
read(\"b\")
open(\"a\", \"w\").write(\"newer\")",
        &["b=old"],
    );
    assert_eq!(found, ["b=old"]);
}

/// One process renames a directory, and another one takes it from there as soon as it can.
#[test]
fn directories_that_two_processes_hand_on() {
    if !has(&["python3"]) {
        return;
    }
    let before: Vec<String> = (0..100).map(|round| format!("d{round:02}/x=old")).collect();
    let found = of_python(
        "for round in range(100):
    first, second, third = (f\"{name}{round:02}\" for name in \"dez\")
    if os.fork() == 0:
        os.rename(first, second)
        os._exit(0)
    while True:
        try: os.rename(second, third)
        except OSError: continue
        break
    read(third + \"/x\")
    os.wait()",
        &before.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    assert_eq!(found, before);
}

/// Mode and attributes are a file's, by whatever name they were changed and by whatever it was read, before that or later.
#[test]
fn another_name_of_a_file_whose_attributes_were_changed() {
    for script in [
        "chmod 600 one; setfattr -n user.old -v new one; cat two",
        "setfattr -n user.new -v new one; chmod 600 two; rm one; cat two",
        "cat two; setfattr -x user.old one; cat two",
    ] {
        let traced = Traced::new(script, |work| {
            lay_out(work, &["one=old"]);
            fs_err::set_permissions(work.join("one"), PermissionsExt::from_mode(0o640)).unwrap();
            xattr::set(work.join("one"), "user.old", b"old").unwrap();
            fs_err::hard_link(work.join("one"), work.join("two")).unwrap();
        });
        let built = traced.into_built();
        for name in ["one", "two"] {
            let mode = fs_err::metadata(built.at(name)).unwrap().permissions().mode() & 0o7777;
            let attributes: Vec<_> = xattr::list(built.at(name)).unwrap().collect();
            assert_eq!((mode, attributes), (0o640, vec!["user.old".into()]), "{name}: {script}");
            assert_eq!(
                xattr::get(built.at(name), "user.old").unwrap().as_deref(),
                Some(&b"old"[..]),
                "{name}: {script}"
            );
        }
    }
}

/// What was read in a directory, and that itself, had extended attributes before it was renamed, and has them in the image.
#[test]
fn attributes_of_what_a_directory_takes_along() {
    for script in ["cat d/s/f d/g; mv d e", "ls d/s; cat d/s/f d/g; mv d e; mv e h", "cat d/s/f; mv d e; cat e/g"] {
        let traced = Traced::new(script, |work| {
            lay_out(work, &["d/s/f=F", "d/g=G"]);
            for name in ["d", "d/s", "d/s/f", "d/g"] {
                xattr::set(work.join(name), "user.of", name.as_bytes()).unwrap();
            }
        });
        let built = traced.into_built();
        for name in ["d", "d/s", "d/s/f", "d/g"] {
            let kept = xattr::get(built.at(name), "user.of").unwrap();
            assert_eq!(kept.as_deref(), Some(name.as_bytes()), "{name}: {script}");
        }
    }
}

/// Whoever removes a file and makes another soon after gets the same inode number.
#[test]
fn another_file_that_has_got_the_number_of_one() {
    if !has(&["python3"]) {
        return;
    }
    let directory = tempfile::Builder::new().prefix("minjail-number-").tempdir_in("/var/tmp").unwrap();
    let at = |name: &str| support::text(&directory.path().join(name));
    fs_err::write(at("one"), "content of one").unwrap();
    let script = format!(
        "cat {}; touch {}; while [ ! -e {} ]; do sleep 0.01; done; cat {}",
        at("one"),
        at("go"),
        at("done"),
        at("two")
    );
    let swap = format!(
        "while [ ! -e {go} ]; do sleep 0.01; done; rm {one}; echo content of two > {two}; touch {done}",
        go = at("go"),
        one = at("one"),
        two = at("two"),
        done = at("done")
    );
    let mut other = std::process::Command::new("sh").args(["-c", &swap]).spawn().unwrap();
    let traced = Traced::new(&script, |_| ());
    other.wait().unwrap();
    let built = traced.into_built();
    assert_eq!(built.text(&at("two")), "content of two\n");
    assert_eq!(built.text(&at("one")), "content of one");
}
