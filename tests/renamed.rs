//! What a run renames: an image has it where it was before, with the content that it had, and nothing that the run made itself.

mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use support::traced::Traced;
use support::{Outcome, TestContext, has, needs_root, outcome_of};

/// Files before a run and in the image that comes of it: `path=content`, sorted.
struct Case {
    before: &'static [&'static str],
    script: &'static str,
    image: &'static [&'static str],
}

impl Case {
    #[track_caller]
    fn check(&self) {
        let traced = Traced::new(self.script, |work| lay_out(work, self.before));
        let built = traced.into_built();
        assert_eq!(files(&built.at(""), Path::new("")), self.image, "{}", self.script);
    }
}

/// A path that ends in `/` is an empty directory; `path -> text` is a link.
fn lay_out(work: &Path, files: &[&str]) {
    for file in files {
        if let Some((name, text)) = file.split_once(" -> ") {
            std::os::unix::fs::symlink(text, work.join(name)).expect("the directory can be written");
            continue;
        }
        let (name, content) = file.split_once('=').unwrap_or((file, ""));
        let path = work.join(name);
        let directory = if name.ends_with('/') { Some(path.as_path()) } else { path.parent() };
        fs_err::create_dir_all(directory.expect("it is below the working directory")).expect("that can be written");
        if !name.ends_with('/') {
            fs_err::write(path, content).expect("the directory can be written");
        }
    }
}

fn files(top: &Path, below: &Path) -> Vec<String> {
    let Ok(entries) = fs_err::read_dir(top.join(below)) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries {
        let path = below.join(entry.expect("the directory can be read").file_name());
        match fs_err::read_to_string(top.join(&path)) {
            Ok(content) => found.push(format!("{}={content}", path.display())),
            Err(_) => found.extend(files(top, &path)),
        }
    }
    found.sort();
    found
}

/// Everything below `top` as [`lay_out`] takes it, directories too, sorted.
fn everything(top: &Path, below: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(top.join(below)).expect("it is a directory") {
        let entry = entry.expect("the directory can be read");
        let (path, kind) = (below.join(entry.file_name()), entry.file_type().expect("it is there"));
        let name = path.display();
        if kind.is_dir() {
            found.push(format!("{name}/"));
            found.extend(everything(top, &path));
        } else if kind.is_symlink() {
            found.push(format!("{name} -> {}", fs_err::read_link(entry.path()).expect("it is a link").display()));
        } else {
            found.push(format!("{name}={}", fs_err::read_to_string(entry.path()).expect("it is text")));
        }
    }
    found.sort();
    found
}

/// What the image has of a directory that was laid out like `before`.
#[track_caller]
fn image_of(script: &str, before: &[&str]) -> Vec<String> {
    let built = Traced::new(script, |work| lay_out(work, before)).into_built();
    everything(&built.at(""), Path::new(""))
}

#[test]
fn the_way_through_what_is_renamed_later() {
    let before = ["d/", "tgt/f=old", "d/l -> ../tgt/f", "d2/sub/", "x=one"];
    assert_eq!(
        image_of("cat d/l; cat d2/sub/../../x; mv d e; mv d2 e2", &before),
        ["d/", "d/l -> ../tgt/f", "d2/", "d2/sub/", "tgt/", "tgt/f=old", "x=one"]
    );
    assert_eq!(image_of("mv d e; cat e/l", &before), ["d/", "d/l -> ../tgt/f", "tgt/", "tgt/f=old"]);
    assert_eq!(image_of("cat d/l; mv d e; rm e/l", &before), ["d/", "d/l -> ../tgt/f", "tgt/", "tgt/f=old"]);
    assert_eq!(image_of("mv d2 e2; cat e2/sub/../../x", &before), ["d2/", "d2/sub/", "x=one"]);
    assert_eq!(image_of("echo new > d2/sub/../new; mv d2 e2", &before), ["d2/", "d2/sub/"]);
    assert_eq!(image_of("echo new > d2/sub/new; mv d2 e2", &before), ["d2/", "d2/sub/"]);
}

#[test]
fn a_link_in_the_place_of_what_was_renamed() {
    assert_eq!(
        image_of(
            "cat d/l; mv d e; ln -s other d",
            &["d/", "other/", "f=old", "f2=two", "d/l -> ../f", "other/l -> ../f2"]
        ),
        ["d/", "d/l -> ../f", "f=old"]
    );
    assert_eq!(image_of("cat d/f; mv d e; ln -s d d", &["d/f=old"]), ["d/", "d/f=old"]);
    assert_eq!(image_of("cat d/f; mv d e; ln -s e d", &["d/f=old"]), ["d/", "d/f=old"]);
    assert_eq!(image_of("cat d/f; mv d e; echo new > d", &["d/f=old"]), ["d/", "d/f=old"]);
}

/// Neither size nor time tells them from what was there.
#[test]
fn what_has_the_size_and_the_time_of_what_was_there() {
    let before = ["a=one", "b=two", "l -> a", "f=old"];
    let script = "cat l; : > time; touch -h -r l time; rm l; ln -s b l; touch -h -r time l";
    assert_eq!(image_of(script, &before), ["a=one", "l -> a"]);
    assert_eq!(image_of("touch -r f time; printf new > f; touch -r time f", &before), ["f=old"]);
}

#[test]
fn a_link_that_somebody_else_has_led_elsewhere_since() {
    for then in ["v2", "."] {
        let traced = Traced::new("cat cur/f; test -e cur/none || :", |work| {
            lay_out(work, &["v1/f=one", "v2/f=two", "cur -> v1"]);
        });
        let cur = traced.context.work().join("cur");
        fs_err::remove_file(&cur).expect("it is ours");
        std::os::unix::fs::symlink(then, &cur).expect("it is ours");
        let built = traced.into_built();
        assert_eq!(everything(&built.at(""), Path::new("")), ["cur -> v1", "v1/", "v1/f=one"]);
    }
}

/// Where something led as it was executed, and not where the run has led it since: what that has made is made again.
#[test]
fn what_was_executed_by_a_link_that_leads_elsewhere_since() {
    if !has(&["busybox"]) {
        return;
    }
    let prepare = |work: &Path| {
        lay_out(work, &["v1/", "cur -> v1", "script="]);
        fs_err::copy("/bin/busybox", work.join("v1/sh")).expect("it can be copied");
        fs_err::write(work.join("script"), format!("#!{}/cur/sh\n:\n", work.display())).expect("it is ours");
        fs_err::set_permissions(work.join("script"), PermissionsExt::from_mode(0o755)).expect("it is ours");
    };
    for (made, others) in [
        ("busybox mkdir v2; busybox cp v1/sh v2/sh", [].as_slice()),
        ("busybox mkdir new; busybox cp v1/sh new/sh; busybox mv new v2", &["new"]),
        ("busybox cp -r v1 new; busybox mv v1 v2; busybox mv new v1", &["new"]),
    ] {
        let script = format!("./script; {made}; busybox ln -sfn v2 cur; ./script");
        let built = Traced::new(&script, prepare).into_built();
        let others = others.iter().chain(&["v2"]).filter(|other| built.has(other)).collect::<Vec<_>>();
        assert_eq!((others, built.link("cur")), (Vec::new(), "v1".to_owned()), "{script}");
        assert!(built.has("v1/sh") && built.has("script"), "{script}");
    }
    let moved = |work: &Path| {
        prepare(work);
        fs_err::rename(work.join("v1"), work.join("before")).expect("it is ours");
        fs_err::create_dir(work.join("v1")).expect("it is ours");
    };
    let built = Traced::new("mv -T before v1; ./script", moved).into_built();
    assert!(
        built.has("before/sh") && built.at("v1").is_dir() && !built.has("v1/sh"),
        "it is empty, or nothing goes there"
    );
    let script = "top=$PWD; cd /; busybox mv $top $top.1; busybox ln -s work.1 $top";
    let built = Traced::new(script, prepare).into_built();
    assert!(built.at("").is_dir() && !built.has("../work.1"), "the directory in which it started");
}

/// What a program needs that the run has put in the place of one that it had executed, the run has not needed.
#[test]
fn what_was_executed_and_replaced_needs_what_it_needed() {
    let needs_more = |program: &str| {
        let said = std::process::Command::new("ldd").arg(program).output();
        said.is_ok_and(|said| String::from_utf8_lossy(&said.stdout).contains("libselinux"))
    };
    if !has(&["busybox", "ldd"]) || needs_more("/bin/busybox") || !needs_more("/bin/ls") {
        return;
    }
    let script = "./busybox true; busybox cp /bin/ls new; busybox mv new busybox";
    let prepare = |work: &Path| assert!(fs_err::copy("/bin/busybox", work.join("busybox")).is_ok());
    let traced = Traced::new(script, prepare);
    let built = traced.build("tree", &[]);
    let said = outcome_of(std::process::Command::new("find").arg(built.at("/")).args(["-name", "libselinux*"]));
    assert_eq!(said.success().text(), "");
}

#[test]
fn a_closed_door_of_what_is_renamed_later() {
    if !needs_root("to become another user") {
        return;
    }
    let traced = Traced::with(&["--user", "65534:65534"], "cat d/closed/f d/sub/own; mv d e; true", |work| {
        lay_out(work, &["d/closed/f=secret", "d/sub/own=secret"]);
        close(&work.join("d/closed"));
        close(&work.join("d/sub/own"));
        for owned in [work.to_path_buf(), work.join("d")] {
            outcome_of(support::limited("chown").args(["65534:65534", &support::text(&owned)])).success();
        }
    });
    let built = traced.into_built();
    assert_eq!(everything(&built.at(""), Path::new("")), ["d/", "d/closed/", "d/sub/", "d/sub/own="]);
    let mode = fs_err::metadata(built.at("d/closed")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "it is refused the same way");
}

#[test]
fn what_was_made_stays_out_wherever_it_goes() {
    Case { before: &["a/f=old"], script: "echo new > a/new; mv a b; cat b/new b/f", image: &["a/f=old"] }.check();
    Case { before: &["empty/"], script: "mkdir t; echo new > t/x; mv -T t empty; cat empty/x", image: &[] }.check();
    Case {
        before: &["prev/f=old"],
        script: "mkdir cur; echo new > cur/f; mv cur old; mv prev cur; cat cur/f old/f",
        image: &["prev/f=old"],
    }
    .check();
}

#[test]
fn what_was_made_and_removed_is_made_again() {
    for script in [
        "echo a > f; rm f; test -e f; echo b > f; cat f",
        "echo a >> f; rm f; test -e f; echo b >> f; cat f",
        "mkdir m; rmdir m; test -e m; mkdir m; ls m",
        "echo a > f; echo b > f; rm f; test -e f; echo c > f; cat f",
        "echo a > f; echo b > f; rm f; test -e f; echo c > f; cat f; rm f",
        "mkdir m; mkdir m || :; rmdir m; test -d m || :; mkdir m; echo a > m/x; ls m; rm -r m",
        "ln -s old l; rm l; test -L l; ln -s old l; cat l",
        "echo a > f; rm f; mv old f; mv f old; test -e f; echo b > f; cat f",
        "cd d; echo a > f; rm f; test -e f; echo b > f; cat f; cd ..",
    ] {
        let found = image_of(&format!("{script}; cat old || true"), &["old=old", "d/x=x"]);
        assert!(found.iter().all(|one| ["d/", "d/x=x", "old=old"].contains(&one.as_str())), "{script}: {found:?}");
        assert!(found.contains(&"old=old".to_owned()), "{script}: {found:?}");
    }
}

#[test]
fn what_was_to_be_made_below_what_was_missing() {
    let before = ["old/sub/x=old"];
    assert_eq!(image_of("(echo > new/sub/f); mv old new", &before), ["old/"]);
    assert_eq!(image_of("(echo > new/sub/f); mv old new; echo > new/sub/f", &before), ["old/", "old/sub/"]);
    assert_eq!(image_of("echo > old/sub/f; rm -r old; mkdir old", &before), ["old/", "old/sub/", "old/sub/x=old"]);
    assert_eq!(image_of("echo > old/sub/f; mv old new; mkdir -p old/sub", &before), ["old/", "old/sub/"]);
}

/// Where a rename has taken away what was there, or has brought something there since.
#[test]
fn what_was_to_be_made_where_a_rename_has_been() {
    let omitted = "s/f -> /.minjail-omitted";
    assert_eq!(image_of("mv s t; (: > s/f/x); ls t", &["s/f=a"]), ["s/", omitted]);
    assert_eq!(image_of("mv s t; test -e s; (: > s/f/x); ls t", &["s/f=a"]), ["s/", omitted]);
    assert_eq!(image_of("(: > app/cache/x); mv app old; mv new app", &["app/", "new/cache/"]), ["app/", "new/"]);
    assert_eq!(
        image_of("echo > app/cache/x; mv app old; mv new app", &["app/cache/", "new/"]),
        ["app/", "app/cache/", "new/"]
    );
    assert_eq!(image_of("mv s t; mv t s; echo > s/d/x", &["s/d/"]), ["s/", "s/d/"]);
}

#[test]
fn what_was_there_is_found_where_it_was() {
    Case { before: &["pre/f=old"], script: "mkdir m; mv pre m/; mv m n; cat n/pre/f", image: &["pre/f=old"] }.check();
    Case { before: &["x=one", "a/f=two"], script: "mv x a/x; mv a c; cat c/x c/f", image: &["a/f=two", "x=one"] }
        .check();
    Case {
        before: &["d/", "pre/x/f=old"],
        script: "mkdir d/x/y || :; mv -T pre d; cat d/x/f",
        image: &["pre/x/f=old"],
    }
    .check();
}

#[test]
fn a_directory_takes_along_what_was_read_before() {
    Case { before: &["d/x/y/f=old"], script: "cat d/x/y/f; mv d e", image: &["d/x/y/f=old"] }.check();
    Case { before: &["d/f=old", "d/g=too"], script: "cat d/f; mv d e; cat e/g", image: &["d/f=old", "d/g=too"] }
        .check();
    Case {
        before: &["d/f=old", "d/g=too"],
        script: "cat d/f d/g; mv d e; echo new > e/f; rm e/g; mv e g",
        image: &["d/f=old", "d/g=too"],
    }
    .check();
}

#[test]
fn names_of_a_directory_are_those_of_before() {
    Case {
        before: &["a/one=1", "c/two=2"],
        script: "ls a; mv a b; mv c a; ls a; cat a/two b/one",
        image: &["a/one=1", "c/two=2"],
    }
    .check();
}

#[test]
fn what_a_listing_has_shown_of_a_directory_that_is_renamed_later() {
    let before = ["d/f=old", "d/g=too", "d/sub/x=deep", "d/l -> f", "d/none -> ../gone"];
    let omitted = "/.minjail-omitted";
    let [f, g, x] = ["d/f", "d/g", "d/sub/x"].map(|path| format!("{path} -> {omitted}"));
    let rest = ["d/l -> f", "d/none -> ../gone"];
    let shown = [&["d/", f.as_str(), g.as_str()][..], &rest, &["d/sub/"]].concat();
    for script in ["ls d; mv d e", "mv d e; ls e", "ls d; mv d e; mv e n", "ls d; mv d e; mkdir d; echo new > d/l"] {
        assert_eq!(image_of(script, &before), shown, "{script}");
    }
    assert_eq!(image_of("ls d d/sub; mv d e", &before), [&shown[..], &[x.as_str()]].concat());
    let read = [&["d/", "d/f=old", g.as_str()][..], &rest, &["d/sub/"]].concat();
    assert_eq!(image_of("ls d; cat d/l; mv d e; rm e/l", &before), read);
}

/// Swaps `p` and `q` (`RENAME_EXCHANGE`).
const EXCHANGE: &str = "assert libc.renameat2(-100, b\"p\", -100, b\"q\", 2) == 0";

/// What images have of `p` after a Python program has listed it; of a directory that was laid out like `before`. By name, and in full.
#[track_caller]
fn listed_and_then(program: &str, before: &[&str]) -> [Vec<String>; 2] {
    let imports = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)";
    let script = format!("python3 -c '\n{imports}\nos.listdir(\"p\"); {program}'");
    let traced = Traced::new(&script, |work| lay_out(work, before));
    ["names", "full"].map(|listing| {
        let mut image = everything(&traced.build(listing, &["--listing", listing]).at(""), Path::new(""));
        image.retain(|entry| entry.starts_with("p/"));
        image
    })
}

/// One that the run has made there shows no names of the one that it has moved away.
#[test]
fn a_listing_of_what_the_run_has_made_in_its_place() {
    for script in [
        "mv d e; mkdir -p d/s; ls d d/s; ls e e/s",
        "mv d e; mkdir -p d/s; ls d d/s; rm -r d; mv e d; ls d d/s",
        "mv d e; ls e e/s; mkdir -p d/s; ls d d/s",
    ] {
        let names = ["d/", "d/f -> /.minjail-omitted", "d/s/", "d/s/g -> /.minjail-omitted"];
        assert_eq!(image_of(script, &["d/f=old", "d/s/g=old"]), names, "{script}");
    }
}

/// What the run itself has put at a name is not what a listing had shown there.
#[test]
fn what_stands_later_at_a_name_that_was_listed() {
    if !has(&["python3"]) {
        return;
    }
    let before = ["p/b=1", "p/c=2", "q/b/", "q/c -> text"];
    let [b, c] = ["p/b -> /.minjail-omitted", "p/c -> /.minjail-omitted"];
    for program in [
        "os.rename(\"p\", \"old\"); os.mkdir(\"p\"); os.mkdir(\"p/b\"); os.symlink(\"x\", \"p/c\")",
        "os.rename(\"p\", \"old\"); os.mkdir(\"p\"); open(\"p/b\", \"w\").write(\"new\")",
        "os.rename(\"p\", \"old\"); os.rename(\"q\", \"p\")",
        EXCHANGE,
    ] {
        for image in listed_and_then(program, &before) {
            assert_eq!(image, ["p/", b, c], "{program}");
        }
    }
    for (program, [names, full]) in [
        ("os.unlink(\"p/c\"); os.symlink(\"x\", \"p/c\")", [["p/", b, "p/c=2"], ["p/", "p/b=1", "p/c=2"]]),
        ("os.unlink(\"p/b\"); os.mkdir(\"p/b\")", [["p/", "p/b=1", c], ["p/", "p/b=1", "p/c=2"]]),
        ("os.rename(\"p/b\", \"away\"); os.rename(\"q\", \"p/b\")", [["p/", "p/b=1", c], ["p/", "p/b=1", "p/c=2"]]),
    ] {
        assert_eq!(listed_and_then(program, &before), [names, full], "{program}");
    }
}

/// A link that leads nowhere but back to itself is told of by the ways through it alone.
#[test]
fn a_link_in_a_loop_that_was_listed() {
    for script in ["ls d; cat d/l", "cat d/l; ls d"] {
        let image = ["d/", "d/f -> /.minjail-omitted", "d/l -> l"];
        for then in ["rm d/l; echo new > d/l", "rm d/l; mkdir d/l", "mv d/l m", "mv d e", "mv d e; rmdir e"] {
            let script = format!("{script}; {then}; true");
            assert_eq!(image_of(&script, &["d/f=old", "d/l -> l"]), image, "{script}");
        }
    }
}

/// What cannot be executed since its links lead in a circle is needed as they are.
#[test]
fn a_link_in_a_loop_that_was_executed() {
    for then in ["true", "rm l; echo new > l", "mv l m"] {
        let script = format!("./l; ./s; PATH=l:m true; {then}");
        assert_eq!(image_of(&script, &["l -> m", "m -> l", "s=#! l\n"]), ["l -> m", "m -> l", "s=#! l\n"], "{then}");
    }
}

/// Where nothing can be looked at, since another thread has put a file in the place of a directory, is nothing; what the run has put
/// there since was not there.
#[test]
fn what_was_made_where_nobody_could_look() {
    let script = "cat f/x; rm f; mkdir f; echo new > f/x; true";
    let traced = Traced::new(script, |work| lay_out(work, &["f=old"]));
    // As the tracer tells it if it has taken `f` for a directory.
    let path = traced.context.path("app.trace/trace.jsonl");
    let text = fs_err::read_to_string(&path).expect("there is a trace");
    let lines = text.lines().map(|line| {
        let mut record: serde_json::Value = serde_json::from_str(line).expect("each line is a record");
        if record["spelled"] == "f/x" && record["made"] != true {
            record["path"] = traced.context.text("work/f/x").into();
            record["found"] = serde_json::json!({"unknown": "ENOTDIR"});
        }
        format!("{record}\n")
    });
    fs_err::write(&path, lines.collect::<String>()).expect("it is ours");
    assert_eq!(everything(&traced.into_built().at(""), Path::new("")), ["f=old"]);
}

/// Directories and links that a listing has shown are in the image as they were, whatever stands there later.
#[test]
fn directories_and_links_that_were_listed() {
    if !has(&["python3"]) {
        return;
    }
    let before = ["p/b/", "p/c -> text", "q/b=1", "q/c/"];
    for program in [
        "os.rename(\"p\", \"old\"); os.mkdir(\"p\"); open(\"p/b\", \"w\"); os.symlink(\"x\", \"p/c\")",
        "os.rename(\"p\", \"old\"); os.rename(\"q\", \"p\")",
        EXCHANGE,
        "os.unlink(\"p/c\"); os.symlink(\"x\", \"p/c\")",
    ] {
        for image in listed_and_then(program, &before) {
            assert_eq!(image, ["p/", "p/b/", "p/c -> text"], "{program}");
        }
    }
}

/// Where the root is a copy of the one that was traced, by which no number tells what a directory is.
#[test]
fn a_listed_directory_that_is_back_where_it_was() {
    let there = ["p/d/", "p/d/f=old", "p/d/l -> f", "p/d/sub/"];
    for (script, is_back) in [
        ("ls p/d; mv p/d e; mv e p/d", true),
        ("mv p/d e; ls e; mv e p/d; echo new > p/d/new", true),
        ("ls p/d; mv p q; mv q p", true),
        ("ls p/d; mv p q; mv q/d e; mv e q/d; mv q p", true),
        ("ls p/d; mv p/d /none/d; mv -T d p/d; true", true),
        ("ls p/d; mv p/d e; mkdir p/d; echo new > p/d/f", false),
        ("ls p/d; mv p q; mkdir -p p/d; echo new > p/d/f", false),
    ] {
        let traced = Traced::new(&format!("{script} 2> /dev/null"), |work| {
            lay_out(work, &["p/d/f=old", "p/d/sub/x=deep", "p/d/l -> f", "d/y=1"]);
        });
        let records = traced.context.path("app.trace").join("trace.jsonl");
        let told = fs_err::read_to_string(&records).unwrap();
        fs_err::write(&records, told.replace("\"ino\":", "\"ino\":1")).unwrap();
        let mut image = everything(&traced.build("tree", &["--listing", "full"]).at(""), Path::new(""));
        image.retain(|entry| entry.starts_with("p/d/"));
        let expected = if is_back { there } else { ["p/d/", "p/d/f -> /.minjail-omitted", "p/d/l -> f", "p/d/sub/"] };
        assert_eq!(image, expected, "{script}");
    }
}

/// A rename that fails has put nothing else there.
#[test]
fn a_listed_directory_that_could_not_be_renamed() {
    let before = ["d/f=old", "d/sub/", "e/g=1"];
    let traced = Traced::new("ls d; mv -T e d; mv d /none/d; true", |work| lay_out(work, &before));
    let full = traced.build("tree", &["--listing", "full"]);
    let mut image = everything(&full.at(""), Path::new(""));
    image.retain(|entry| entry.starts_with("d/"));
    assert_eq!(image, ["d/", "d/f=old", "d/sub/"]);
}

/// Whether a directory can be removed, or another can take its place, shows whether it is empty.
#[test]
fn a_directory_that_is_not_empty() {
    let omitted = "d/a -> /.minjail-omitted";
    for script in ["rmdir d", "mv -T e d", "rmdir d; rmdir d", "rmdir d; mv d f", "echo new > d/A; rmdir d"] {
        let mut image = image_of(&format!("{script} 2> /dev/null; true"), &["d/a=1", "d/b=2", "e/"]);
        image.retain(|entry| entry.starts_with("d/"));
        assert_eq!(image, ["d/", omitted], "{script}");
    }
    assert_eq!(image_of("rmdir d", &["d/"]), ["d/"]);
    assert_eq!(image_of("mv -T e d", &["d/", "e/"]), ["d/", "e/"]);
    assert_eq!(image_of("echo new > d/a; rmdir d || true", &["d/"]), ["d/"], "what is there the run has made");
    assert_eq!(image_of("mv a d; rmdir d || true", &["d/", "a=1"]), ["a=1", "d/"], "or brought there");
    assert_eq!(image_of("rm d/a; rmdir d", &["d/a=1"]), ["d/", "d/a=1"]);
    assert_eq!(image_of("rm d/b; rmdir d || true", &["d/a=1", "d/b=2"]), ["d/", omitted, "d/b=2"]);
    assert_eq!(image_of("rm -r d", &["d/a=1", "d/s/b=2"]), ["d/", "d/a=1", "d/s/", "d/s/b=2"]);
    assert_eq!(image_of("rmdir d || ls d; true", &["d/a=1", "d/s/"]), ["d/", omitted, "d/s/"]);
    assert_eq!(image_of("rmdir d || cat d/b", &["d/s/", "d/b=2"]), ["d/", "d/b=2"]);
}

/// Whatever an image has of listings.
#[test]
fn a_directory_that_is_not_empty_and_listings_that_do_not_matter() {
    let omitted = "d/a -> /.minjail-omitted";
    for (script, expected) in [
        ("rmdir d", &["d/", omitted][..]),
        ("mv -T e d", &["d/", omitted]),
        ("ls d; rmdir d", &["d/", omitted]),
        ("rmdir d; ls d", &["d/", omitted]),
        ("ls d; rmdir d; cat d/s/c", &["d/", "d/s/", "d/s/c=3"]),
        ("cat d/b; rmdir d", &["d/", "d/b=2"]),
        ("ls d", &["d/"]),
        ("ls d; mv d f", &["d/", "d/s/"]),
    ] {
        let traced = Traced::new(&format!("{script} 2> /dev/null; true"), |work| {
            lay_out(work, &["d/a=1", "d/b=2", "d/s/c=3", "e/"]);
        });
        let mut image = everything(&traced.build("tree", &["--listing", "opened"]).at(""), Path::new(""));
        image.retain(|entry| entry.starts_with("d/"));
        assert_eq!(image, expected, "{script}");
    }
}

/// What the program does in the image is what it did before.
#[test]
fn the_image_s_directory_cannot_be_removed_either() {
    let traced = Traced::new("rmdir d 2> /dev/null || echo not empty", |work| lay_out(work, &["d/a=1"]));
    assert_eq!(traced.outcome.text(), "not empty\n");
    let built = traced.into_built();
    let refused = fs_err::remove_dir(built.at("d")).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::DirectoryNotEmpty);
}

/// Nor is the record of a run lost for what its user has closed to himself.
#[test]
fn a_directory_that_is_renamed_and_closed() {
    if !needs_root("to become another user") || !has(&["setpriv"]) {
        return;
    }
    let scratch = tempfile::Builder::new().prefix("minjail-closed-").tempdir_in("/var/tmp").unwrap();
    let at = |name: &str| support::text(&scratch.path().join(name));
    lay_out(scratch.path(), &["d/sub/f=old", "d/other/"]);
    fs_err::copy(support::minjail(), at("minjail")).unwrap();
    outcome_of(support::limited("chown").args(["-R", "65534:65534", &support::text(scratch.path())])).success();
    let script = "ls d; cat d/sub/f; mv d e; chmod 000 e; echo done";
    let mut command = support::limited("setpriv");
    command.args([
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        &at("minjail"),
        "trace",
        "-q",
        "-t",
        &at("t.trace"),
    ]);
    let outcome = outcome_of(command.args(["--", "sh", "-c", script]).current_dir(scratch.path())).success();
    assert!(outcome.text().ends_with("done\n"), "{outcome}");
    assert!(scratch.path().join("t.trace/trace.jsonl").is_file());
}

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

/// The files of `work` in the image of what a user did that is not root.
#[track_caller]
fn of_a_user(script: &str, prepare: impl FnOnce(&Path)) -> Vec<String> {
    let traced = Traced::with(&["--user", "65534:65534"], script, |work| {
        prepare(work);
        outcome_of(support::limited("chown").args(["65534:65534", &support::text(work)])).success();
    });
    let built = traced.into_built();
    files(&built.at(""), Path::new(""))
}

/// For root alone.
fn close(path: &Path) {
    outcome_of(support::limited("chmod").args(["go=", &support::text(path)])).success();
}

#[test]
fn what_a_user_was_refused_may_be_read_later() {
    if !needs_root("to become another user") {
        return;
    }
    let found = of_a_user("cat d/f || chmod 755 d; cat d/f d/g", |work| {
        lay_out(work, &["d/f=one", "d/g=two"]);
        let (d, files) = (work.join("d"), ["d", "d/f", "d/g"].map(|name| support::text(&work.join(name))));
        outcome_of(support::limited("chown").arg("65534:65534").args(files)).success();
        outcome_of(support::limited("chmod").args(["000", &support::text(&d)])).success();
    });
    assert_eq!(found, ["d/f=one", "d/g=two"]);
}

/// The shell itself asks, so that it is one program that is refused.
#[test]
fn what_a_user_is_refused_twice() {
    if !needs_root("to become another user") {
        return;
    }
    let script = "read x < d/f; read x < l/f; read x < d/e/../f; read x < o/f; chmod 755 o; read x < o/f; true";
    let traced = Traced::with(&["--user", "65534:65534"], script, |work| {
        lay_out(work, &["d/f=secret", "d/e/", "l -> d", "o/f=secret"]);
        let at = |name: &str| support::text(&work.join(name));
        outcome_of(support::limited("chmod").args(["600", &at("d/f"), &at("o/f")])).success();
        outcome_of(support::limited("chown").args(["65534:65534", &at("o")])).success();
        outcome_of(support::limited("chmod").args(["000", &at("o")])).success();
    });
    let built = traced.into_built();
    assert_eq!(everything(&built.at(""), Path::new("")), ["d/", "d/e/", "d/f=", "l -> d", "o/", "o/f="]);
    let modes = ["d/f", "o/f"].map(|name| fs_err::metadata(built.at(name)).unwrap().permissions().mode() & 0o777);
    assert_eq!(modes, [0o600; 2]);
}

/// Names of one file are that in the image, whatever the run did to it by one of them.
#[test]
fn two_names_stay_those_of_one_file() {
    let scripts = [
        "chmod 600 a; stat b",
        "chmod 600 b; cat a",
        "chmod 600 a; cat b; chmod 644 b",
        "echo more >> a; cat b",
        "cat b; mv a c",
        "rm a; cat b",
        "chmod 600 b; mv a c",
    ];
    for script in scripts {
        let traced = Traced::new(&format!("{script} > /dev/null"), |work| {
            lay_out(work, &["a=one"]);
            fs_err::hard_link(work.join("a"), work.join("b")).unwrap();
        });
        let built = traced.build("tree", &[]);
        let [a, b] = ["a", "b"].map(|name| fs_err::metadata(built.at(name)).unwrap());
        assert_eq!((a.ino(), a.permissions().mode() & 0o777), (b.ino(), 0o644), "{script}");
        assert_eq!(built.text("b"), "one");
    }
}

/// By whatever name the directory has by then.
#[test]
fn what_a_user_is_refused_in_a_directory_that_it_has_renamed() {
    if !needs_root("to become another user") {
        return;
    }
    let found = |script: &str| {
        of_a_user(&format!("{script}; true"), |work| {
            lay_out(work, &["d/secret=one", "d/closed/f=two", "n/secret=three"]);
            let files = ["d", "n", "n/secret"].map(|name| support::text(&work.join(name)));
            outcome_of(support::limited("chown").arg("65534:65534").args(files)).success();
            let files = ["d/secret", "d/closed"].map(|name| support::text(&work.join(name)));
            outcome_of(support::limited("chmod").arg("700").args(files)).success();
        })
    };
    let expected = found("cat d/secret d/closed/f");
    assert!(expected.iter().any(|entry| entry.starts_with("d/secret")), "{expected:?}");
    for script in [
        "mv d e; cat e/secret e/closed/f; mv e d",
        "mv d e; cat e/secret e/closed/f",
        "mv d e; rm -f e/secret; cat e/closed/f",
        "mv n t; mv d n; cat n/secret n/closed/f; mv n d; mv t n",
    ] {
        let mut image = found(script);
        image.retain(|entry| entry != "n/");
        assert_eq!(image, expected, "{script}");
    }
}

/// The owner of a file may write to it first, and make it readable afterwards.
#[test]
fn what_a_user_may_only_write_to_may_be_read_later() {
    if !needs_root("to become another user") {
        return;
    }
    for back in ["", "touch -d @0 f;"] {
        let found = of_a_user(&format!("printf new > f; {back} chmod 644 f; cat f; cd g || cat g"), |work| {
            lay_out(work, &["f=old", "g=read"]);
            let f = work.join("f");
            let file = std::fs::File::options().write(true).open(&f).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
            outcome_of(support::limited("chown").args(["65534:65534", &support::text(&f)])).success();
            outcome_of(support::limited("chmod").args(["200", &support::text(&f)])).success();
        });
        assert_eq!(found, ["f=old", "g=read"], "{back}");
    }
}

/// What is kept of it has the content that was kept of another.
#[test]
fn what_a_user_may_only_write_to_is_as_another_file() {
    if !needs_root("to become another user") {
        return;
    }
    let found = of_a_user("printf new > f; printf new > g", |work| {
        lay_out(work, &["f=old", "g=old"]);
        for (name, mode) in [("f", "666"), ("g", "222")] {
            outcome_of(support::limited("chmod").args([mode, &support::text(&work.join(name))])).success();
        }
    });
    assert_eq!(found, ["f=old", "g="]);
}

#[test]
fn a_user_namespace_opens_nobody_elses_files() {
    if !needs_root("to become another user") || !has(&["unshare"]) {
        return;
    }
    let found = of_a_user("unshare -Ur cat closed/f file; unshare -Ur cat own", |work| {
        lay_out(work, &["closed/f=secret", "file=secret", "own=own"]);
        close(&work.join("closed"));
        close(&work.join("file"));
        let own = work.join("own");
        outcome_of(support::limited("chown").args(["65534:65534", &support::text(&own)])).success();
    });
    assert_eq!(found, ["file=", "own=own"]);
}

#[test]
fn an_access_control_list_is_heard() {
    if !needs_root("to become another user") || !has(&["python3"]) {
        return;
    }
    let found = of_a_user("cat denied; cat allowed; echo more >> written", |work| {
        lay_out(work, &["denied=secret", "allowed=open", "written=secret"]);
        let list = "import os, struct, sys\n\
            entry = lambda tag, may, who=0xffffffff: struct.pack('<HHI', tag, may, who)\n\
            def set(name, user, others):\n    \
                entries = [entry(1, 6), entry(2, user, 65534), entry(4, 0), entry(0x10, 7), entry(0x20, others)]\n    \
                os.setxattr(name, 'system.posix_acl_access', struct.pack('<I', 2) + b''.join(entries))\n\
            set('denied', 0, 4); set('allowed', 4, 0); set('written', 2, 0)\n";
        outcome_of(support::limited("python3").args(["-c", list]).current_dir(work)).success();
    });
    assert_eq!(found, ["allowed=open", "denied=", "written="]);
}

#[test]
fn an_access_control_list_is_told_of() {
    if !needs_root("to become another user") || !has(&["python3"]) {
        return;
    }
    let context = TestContext::new();
    let work = context.work();
    lay_out(&work, &["closed/x=x", "listed=l", "open=o", "unused=u", "plain=p"]);
    let list = "import os, struct\n\
        entry = lambda tag, may, who=0xffffffff: struct.pack('<HHI', tag, may, who)\n\
        for name, others in [('closed', 0), ('listed', 0), ('open', 4), ('unused', 0)]:\n    \
            entries = [entry(1, 6), entry(2, 5, 65534), entry(4, 0), entry(0x10, 7), entry(0x20, others)]\n    \
            os.setxattr(name, 'system.posix_acl_access', struct.pack('<I', 2) + b''.join(entries))\n";
    outcome_of(support::limited("python3").args(["-c", list]).current_dir(&work)).success();
    outcome_of(support::limited("chmod").args(["go+x", &context.text("")])).success();
    let (trace, output) = (context.text("app.trace"), format!("rootfs:{}", context.text("tree")));
    let arguments =
        ["trace", "-t", &trace, "-o", &output, "--user", "65534", "--", "cat", "closed/x", "listed", "open", "plain"];
    let outcome = context.outcome(&arguments).success();
    assert_eq!(outcome.stdout, b"xlop");
    let told = |name: &str| {
        outcome.stderr.contains(&format!("{} has an access control list", support::text(&work.join(name))))
    };
    let told: Vec<&str> =
        ["closed", "closed/x", "listed", "open", "unused", "plain"].into_iter().filter(|&name| told(name)).collect();
    assert_eq!(told, ["closed", "listed"], "{outcome}");
}

/// A script that is run where `mounts` has mounted something in the working directory; and what the image has of that.
#[track_caller]
fn built_behind(mounts: &str, script: &str, before: &[&str]) -> (TestContext, Outcome, PathBuf) {
    let context = TestContext::new();
    lay_out(&context.work(), before);
    let (trace, tree) = (context.text("app.trace"), format!("rootfs:{}", context.text("tree")));
    // What is mounted is gone with the namespace, and an image is made of what is there.
    let steps = format!("{mounts}; $0 trace -q -t {trace} -- sh -c \"$1\"; $0 build -q -t {trace} -o {tree}");
    let mut command = context.command("unshare");
    let outcome = outcome_of(command.args(["-m", "sh", "-ec", &steps, support::minjail(), script])).success();
    let built = context.path("tree").join(&support::text(&context.work())[1..]);
    (context, outcome, built)
}

#[track_caller]
fn image_behind(mounts: &str, script: &str, before: &[&str]) -> Vec<String> {
    let (_context, _, built) = built_behind(mounts, script, before);
    everything(&built, Path::new(""))
}

/// What the image has of `a` and of `b`, at which it is mounted as well.
#[track_caller]
fn image_of_both(script: &str) -> Vec<String> {
    let before = ["a/f=old", "a/d/g=deep", "a/l -> f", "b/", "c/e/h=other"];
    image_behind("mount --bind a b", script, &before)
}

#[test]
fn what_was_made_by_the_other_of_two_mounts() {
    if !needs_root("a mount") || !has(&["unshare"]) {
        return;
    }
    for script in
        ["echo new > a/x; cat b/x", "mkdir a/x; echo new > a/x/y; cat b/x/y", "echo new > b/x; mv b/x b/y; cat a/y"]
    {
        assert_eq!(image_of_both(script), ["a/", "b/"], "{script}");
    }
    assert_eq!(image_of_both("rm a/f; echo new > a/f; cat b/f"), ["a/", "a/f=old", "b/"]);
    assert_eq!(image_of_both("echo new > a/x; mv a/x a/f; cat b/f"), ["a/", "a/f=old", "b/"]);
    assert_eq!(image_of_both("rm -r a/d; mkdir a/d; echo new > a/d/g; cat b/d/g"), ["a/", "a/d/", "a/d/g=deep", "b/"]);
    let listed = image_of_both("echo new > a/x; ls b");
    assert_eq!(listed, ["a/", "b/", "b/d/", "b/f -> /.minjail-omitted", "b/l -> f"]);
}

#[test]
fn what_was_moved_by_the_other_of_two_mounts() {
    if !needs_root("a mount") || !has(&["unshare"]) {
        return;
    }
    for script in ["mv a/d a/e; cat b/e/g", "cat b/d/g; mv a/d a/e", "mv a/d a/e; mv a/e a/d; cat b/d/g"] {
        assert_eq!(image_of_both(script), ["a/", "a/d/", "b/", "b/d/", "b/d/g=deep"], "{script}");
    }
    for script in ["mv a/f a/n; cat b/n", "ln a/f a/n; cat b/n", "cat b/f; mv a/f a/n"] {
        assert_eq!(image_of_both(script), ["a/", "a/f=old", "b/", "b/f=old"], "{script}");
    }
    // Only one of the two names is to be seen by two paths.
    assert_eq!(image_of_both("mv c/e a/n; cat b/n/h"), ["a/", "c/", "c/e/", "c/e/h=other"]);
    assert_eq!(
        image_of_both("mv a/d c/n; mkdir a/d; echo new > a/d/g; cat b/d/g c/n/g"),
        ["a/", "a/d/", "a/d/g=deep", "b/", "c/"]
    );
}

#[test]
fn what_was_there_before_the_other_of_two_mounts_changed_it() {
    if !needs_root("a mount") || !has(&["unshare"]) {
        return;
    }
    for script in [
        "echo new > a/f; cat b/f",
        "cat b/f; echo new > a/f",
        "cat b/f; rm a/f",
        "cat b/f; echo new > a/f; rm a/f",
        "cat b/f; echo new > a/x; mv a/x a/f",
        "echo new > a/f; echo newer > b/f; cat b/f",
    ] {
        assert_eq!(image_of_both(script), ["a/", "a/f=old", "b/", "b/f=old"], "{script}");
    }
    // A call that removes nothing, since it fails.
    let failing = image_of_both("cat b/f; mv a/f c/n; mv -T a/f c/n; true");
    assert_eq!(failing, ["a/", "a/f=old", "b/", "b/f=old", "c/"]);
    // Another gets its number, and is in danger.
    let another = "cat b/f; rm a/f; i=0; while [ $i -lt 20 ]; do mkdir c/$i; mv -T a/f c/$i; i=$((i + 1)); done; true";
    assert_eq!(image_of_both(another), ["a/", "a/f=old", "b/", "b/f=old", "c/"]);
    for script in ["cat b/d/g; rm -r a/d", "echo new > b/d/g; rm -r a/d"] {
        assert_eq!(image_of_both(script), ["a/", "a/d/", "a/d/g=deep", "b/", "b/d/", "b/d/g=deep"], "{script}");
    }
    // A file system that does not say when files were made.
    let mounts = "mount -t ramfs none a; printf old > a/f; mount --bind a b";
    let image = image_behind(mounts, "echo new > a/f; echo newer > b/f; cat b/f", &["a/", "b/"]);
    assert_eq!(image, ["a/", "a/f=old", "b/", "b/f=old"]);
}

#[test]
fn the_mode_that_a_directory_had_before_the_other_of_two_mounts_changed_it() {
    if !needs_root("a mount") || !has(&["unshare"]) {
        return;
    }
    let script = "chmod 711 a/d; ls b/d; mkdir b/d/n; rmdir a/d/n";
    let (_context, _, built) = built_behind("chmod 750 a/d; mount --bind a b", script, &["a/d/", "b/"]);
    let modes = ["a/d", "b/d"].map(|path| fs_err::metadata(built.join(path)).unwrap().permissions().mode() & 0o777);
    assert_eq!(modes, [0o750, 0o750]);
}

#[test]
fn where_something_was_made_before_the_other_of_two_mounts_changed_it() {
    if !needs_root("a mount") || !has(&["unshare"]) {
        return;
    }
    assert_eq!(image_of_both("echo new > b/d/n; rm -r a/d"), ["a/", "a/d/", "a/d/g=deep", "b/", "b/d/"]);
    let made_over = "rm a/d/g; echo new > b/d/g; mv a/d a/e; echo new > a/d";
    assert_eq!(image_of_both(made_over), ["a/", "a/d/", "a/d/g=deep", "b/", "b/d/"]);
}

/// Nothing of what has no directory to be made in is needed, nor the directory that is there by the end.
#[test]
fn what_could_not_be_made_anywhere() {
    assert_eq!(image_of("mv a/f n/f; mkdir n; (echo new > n/f/x); :", &["a/f=old"]), ["a/", "a/f=old"]);
    if !needs_root("a mount") || !has(&["unshare"]) {
        return;
    }
    assert_eq!(image_of_both("mv a/f a/n/f; mv b/d b/n; :"), ["a/", "a/f=old", "b/", "b/d/"]);
}

#[test]
fn mounts_that_show_the_same_no_longer() {
    if !needs_root("a mount") || !has(&["unshare"]) {
        return;
    }
    let before = ["top/a/f=old", "b/", "one=old", "two="];
    let image = |script| image_behind("mount --bind top/a b; mount --bind one two", script, &before);
    assert_eq!(image("echo new > top/a/x; cat b/x"), ["b/", "top/", "top/a/"]);
    let displaced = "mv top moved; mkdir -p top/a; echo new > top/a/f; cat b/f";
    assert_eq!(image(displaced), ["b/", "b/f=old", "top/"]);
    assert_eq!(image("rm one; echo new > one; cat two"), ["one=old", "two=old"]);
    assert_eq!(image("umount b; echo new > top/a/x; echo new > b/x"), ["b/", "top/", "top/a/"]);
}

/// A path among a few, so that what is made, moved and read meets.
fn any_path() -> impl Strategy<Value = String> {
    let directory = prop::sample::select(vec!["a", "b", "a/d", "b/e", "a/d/g", ".", "n", "n/m", "b/n"]);
    (directory, prop::option::weighted(0.65, prop::sample::select(vec!["x", "y", "z", "w"])))
        .prop_map(|(directory, file)| file.map_or_else(|| directory.to_owned(), |file| format!("{directory}/{file}")))
}

/// A line of a script, which may fail.
fn any_line() -> impl Strategy<Value = String> {
    let verb =
        prop::sample::select(vec!["mv", "mv", "mv -T", "mkdir", "echo new >", "ln", "rm -rf", "cat", "cat", "cat"]);
    (verb, any_path(), any_path()).prop_map(|(verb, one, other)| match verb {
        "mv" | "mv -T" | "ln" => format!("{verb} {one} {other} || :"),
        _ => format!("({verb} {one}) || :"),
    })
}

/// A line of a script, of which the paths may lead into `a` by `m` as well.
fn any_mounted_line() -> impl Strategy<Value = String> {
    let place = || prop::sample::select(vec!["a", "a", "m", "m", "b"]);
    let name = || prop::sample::select(vec!["x", "x", "y", "d", "d/x", "d/g", "d/g/y", "n", "n/x", "d/n"]);
    let path = move || (place(), name()).prop_map(|(place, name)| format!("{place}/{name}"));
    let verb = prop::sample::select(vec!["mv -T", "mv -T", "mkdir", "echo new >", "ln", "rm -rf", "cat", "cat", "cat"]);
    (verb, path(), path()).prop_map(|(verb, one, other)| match verb {
        "mv -T" | "ln" => format!("{verb} {one} {other} || :"),
        _ => format!("({verb} {one}) || :"),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a run makes, moves, links, removes and reads: of what was there the image has what it read, where it was and as it
    /// was; and nothing else.
    #[test]
    fn whatever_is_renamed(lines in prop::collection::vec(any_line(), 10..40)) {
        let before: Vec<String> = ["x", "a/x", "a/y", "b/x", "b/z", "a/d/x", "a/d/g/y", "b/e/x", "b/e/w"]
            .iter()
            .map(|path| format!("{path}=was {path}\n"))
            .collect();
        let before: Vec<&str> = before.iter().map(String::as_str).collect();
        let traced = Traced::new(&lines.join("\n"), |work| lay_out(work, &before));
        let read = traced.outcome.text().lines().filter(|line| line.starts_with("was ")).map(str::to_owned).collect::<Vec<_>>();
        let built = traced.into_built();
        let image = files(&built.at(""), Path::new(""));
        for file in &image {
            prop_assert!(before.contains(&file.as_str()), "{file:?} was not there before");
        }
        for line in read {
            let path = line.trim_start_matches("was ");
            prop_assert!(image.contains(&format!("{path}={line}\n")), "{path} was read");
        }
    }
}

proptest! {
    // Each case is a run with mounts of its own; change a number here to ask more often.
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    /// So it is where a run does that by two mounts of one directory, by either of which it may have read a file.
    #[test]
    fn whatever_is_renamed_by_two_mounts(lines in prop::collection::vec(any_mounted_line(), 10..40)) {
        if !needs_root("a mount") || !has(&["unshare"]) {
            return Ok(());
        }
        let before: Vec<String> =
            ["a/x", "a/y", "a/d/x", "a/d/g/y", "b/x", "b/d/x"].iter().map(|path| format!("{path}=was {path}\n")).collect();
        let before: Vec<&str> = before.iter().map(String::as_str).chain(["m/"]).collect();
        let (_context, outcome, built) = built_behind("mount --bind a m", &lines.join("\n"), &before);
        let image = files(&built, Path::new(""));
        for file in &image {
            let by_a = file.strip_prefix("m/").map_or_else(|| file.clone(), |rest| format!("a/{rest}"));
            prop_assert!(before.contains(&by_a.as_str()), "{file:?} was not there before");
        }
        for line in outcome.text().lines().filter(|line| line.starts_with("was ")) {
            let path = line.trim_start_matches("was ");
            let by_m = path.strip_prefix("a/").map_or_else(|| path.to_owned(), |rest| format!("m/{rest}"));
            let is_there = |path: &str| image.contains(&format!("{path}={line}\n"));
            prop_assert!(is_there(path) || is_there(&by_m), "{path} was read");
        }
    }
}
