//! What a run has listed, and has renamed, removed or put something else in the place of since.

mod support;

use std::path::Path;

use support::laid_out::{Case, everything, image_of, lay_out};
use support::traced::Traced;
use support::{has, needs_root, outcome_of};

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
