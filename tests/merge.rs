//! `minjail merge`: several traces as one.

mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use support::{Outcome, TestContext, outcome_of};

fn traced(context: &TestContext, name: &str, script: &str) -> String {
    let trace = context.text(name);
    context.outcome(&["trace", "--quiet", "-t", &trace, "--", "sh", "-c", script]).success();
    trace
}

fn layer(context: &TestContext, name: &str, traces: &[&str]) -> String {
    let output = format!("layer:{}", context.text(name));
    let mut command = context.minjail(&["build", "--json", "-o", &output]);
    for trace in traces {
        command.args(["-t", trace]);
    }
    let said = outcome_of(&mut command).success().stderr;
    let summary: serde_json::Value = serde_json::from_str(&said).expect("the summary is JSON");
    summary["outputs"][0]["diff_ids"][0].as_str().expect("it has a diff_id").to_owned()
}

#[test]
fn what_is_merged_builds_what_the_traces_build_together() {
    let context = TestContext::new();
    fs_err::write(context.work().join("conf"), "old").expect("the directory can be written");
    let one = traced(&context, "one.trace", "cat conf; echo new > conf");
    let two = traced(&context, "two.trace", "ls /etc/hostname; sed s/a/b/ /etc/passwd");
    let joined = context.text("joined.trace");
    let merged = context.outcome(&["merge", &one, &two, "-o", &joined]).success();
    assert!(merged.stderr.contains("2 runs with"), "{merged}");
    assert_eq!(layer(&context, "a", &[&joined]), layer(&context, "b", &[&one, &two]));
    let again = context.text("again.trace");
    context.outcome(&["merge", "-q", "-t", &two, "-t", &joined, &one, "-o", &again]).success();
    let records = |trace: &str| fs_err::read(context.path(trace).join("trace.jsonl")).expect("it is a trace");
    assert_eq!(records("joined.trace"), records("again.trace"));
}

/// `minjail build` of a tree from these traces.
fn build(context: &TestContext, traces: &[&str], arguments: &[&str]) -> Outcome {
    let mut command = context.minjail(&["build", "-q", "--force", "-o", &format!("rootfs:{}", context.text("tree"))]);
    for trace in traces {
        command.args(["-t", trace]);
    }
    outcome_of(command.args(arguments))
}

/// What `minjail build` of these traces has as `conf`, or says.
fn conf_of(context: &TestContext, traces: &[&str]) -> Result<String, String> {
    let tree = context.path("tree");
    let outcome = build(context, traces, &[]);
    let conf = context.work().join("conf");
    let conf = tree.join(conf.strip_prefix("/").expect("it is absolute"));
    if outcome.status == 0 { Ok(fs_err::read_to_string(conf).expect("it is packed")) } else { Err(outcome.stderr) }
}

#[test]
fn what_one_run_wrote_and_another_read() {
    let context = TestContext::new();
    let conf = context.work().join("conf");
    for (number, change) in ["printf BBBB > conf", "printf BBBB > new; mv new conf"].into_iter().enumerate() {
        fs_err::write(&conf, "AAAA").expect("the directory can be written");
        let earlier = traced(&context, "earlier.trace", "cat conf");
        let writes = traced(&context, &format!("{number}.trace"), change);
        let looks = traced(&context, "looks.trace", "test -e conf");
        for (name, script) in [("a.trace", "cat conf"), ("z.trace", "sort conf")] {
            let reads = traced(&context, name, script);
            for traces in [[writes.as_str(), &reads], [reads.as_str(), &writes]] {
                let said = conf_of(&context, &traces).expect_err("one found AAAA, and the other BBBB");
                assert!(
                    said.contains("conf` was a file with one content in `sh -c") && said.contains("hint: "),
                    "{said}"
                );
                build(&context, &traces, &["--exclude", &support::text(&conf)]).success();
            }
        }
        assert_eq!(conf_of(&context, &[&earlier, &writes, &looks]), Ok("AAAA".to_owned()));
    }
}

#[test]
fn what_two_runs_found_the_same() {
    let context = TestContext::new();
    let conf = context.work().join("conf");
    fs_err::write(&conf, "AAAA").expect("the directory can be written");
    let [one, two] =
        [1, 2].map(|number| traced(&context, &format!("{number}.trace"), &format!("printf AAAA > conf; : {number}")));
    assert_eq!(conf_of(&context, &[&one, &two]), Ok("AAAA".to_owned()), "both have kept it");
    // Another machine has it as another inode with another time.
    let own = traced(&context, "own.trace", "cat conf");
    let other = traced(&context, "other.trace", "sort conf");
    as_on_another_machine(&context, "other.trace");
    assert_eq!(conf_of(&context, &[&own, &other]), Ok("AAAA".to_owned()));
}

/// Whoever was refused has read nothing of what another run wrote.
#[test]
fn what_one_run_wrote_and_another_was_refused() {
    if !support::needs_root("to run as another user") {
        return;
    }
    let context = TestContext::new();
    let conf = context.work().join("conf");
    fs_err::write(&conf, "AAAA").expect("the directory can be written");
    set_mode(&conf, 0o600);
    let writes = traced(&context, "writes.trace", "printf BBBB > conf");
    let refused = context.text("refused.trace");
    let arguments = ["trace", "-q", "-t", &refused, "--user", "nobody", "--", "sh", "-c", "cat conf || :"];
    context.outcome(&arguments).success();
    assert_eq!(conf_of(&context, &[&writes, &refused]), Ok("AAAA".to_owned()));
}

/// The trace tells of `conf` as of another inode with another time.
fn as_on_another_machine(context: &TestContext, trace: &str) {
    let records = context.path(trace).join("trace.jsonl");
    let told = fs_err::read_to_string(&records).expect("it is a trace");
    let elsewhere = told.lines().map(|line| {
        let is_told = line.contains("/conf\"") && line.contains("\"touch\"");
        let line = if is_told { line.replace("\"mtime\":", "\"mtime\":1") } else { line.to_owned() };
        if is_told { line.replace("\"ino\":", "\"ino\":1") + "\n" } else { line + "\n" }
    });
    fs_err::write(&records, elsewhere.collect::<String>()).expect("it is ours");
}

/// What one run brings to a place is nothing that another one has found there before.
#[test]
fn what_one_run_made_something_in_that_another_had_brought() {
    for (number, (brings, before)) in
        [("mkdir -p new/sub", ["unused/"].as_slice()), ("mv -T was new", &["was/sub/", "new/"])].into_iter().enumerate()
    {
        let context = TestContext::new();
        for directory in before {
            fs_err::create_dir_all(context.work().join(directory)).expect("the directory can be written");
        }
        let one = traced(&context, "one.trace", brings);
        let two = traced(&context, "two.trace", "echo made > new/sub/file");
        build(&context, &[&one, &two], &[]).success();
        let work = context.path("tree").join(context.work().strip_prefix("/").expect("it is absolute"));
        let found = ["new", "new/sub", "was/sub"].map(|name| work.join(name).exists());
        assert_eq!(found, [number == 1, false, false], "{brings}");
    }
}

#[test]
fn what_one_run_gave_another_time_and_another_read() {
    let context = TestContext::new();
    let conf = context.work().join("conf");
    fs_err::write(&conf, "AAAA").expect("the directory can be written");
    let touches = traced(&context, "touches.trace", "touch -d @7 conf; printf AAAA > conf");
    let reads = traced(&context, "reads.trace", "cat conf");
    assert_eq!(conf_of(&context, &[&touches, &reads]), Ok("AAAA".to_owned()));
    // It has been brought back, as from a package or a backup.
    let writes = traced(&context, "writes.trace", "printf BBBB > conf");
    fs_err::write(context.work().join("old"), "AAAA").expect("the directory can be written");
    fs_err::rename(context.work().join("old"), &conf).expect("the directory can be written");
    let reads = traced(&context, "again.trace", "cat conf");
    assert_eq!(conf_of(&context, &[&writes, &reads]), Ok("AAAA".to_owned()));
    // Another machine has it as another inode with another time.
    as_on_another_machine(&context, "again.trace");
    assert_eq!(conf_of(&context, &[&writes, &reads]), Ok("AAAA".to_owned()));
}

#[test]
fn what_one_run_wrote_by_another_name() {
    let context = TestContext::new();
    let (conf, other) = (context.work().join("conf"), context.work().join("other"));
    fs_err::write(&conf, "AAAA").expect("the directory can be written");
    fs_err::hard_link(&conf, &other).expect("the directory can be written");
    let writes = traced(&context, "writes.trace", "printf BBBB > conf");
    for (name, script) in [("reads.trace", "cat other"), ("appends.trace", "printf C >> other")] {
        let reads = traced(&context, name, script);
        for traces in [[writes.as_str(), &reads], [reads.as_str(), &writes]] {
            let said = conf_of(&context, &traces).expect_err("one found AAAA, and the other BBBB");
            assert!(said.contains("` was a file with one content in `sh -c"), "{said}");
            for (left_out, left) in [(&conf, &other), (&other, &conf)] {
                build(&context, &traces, &["--exclude", &support::text(left_out)]).success();
                let has =
                    |path: &PathBuf| context.path("tree").join(path.strip_prefix("/").expect("absolute")).exists();
                assert!(has(left) && !has(left_out));
            }
        }
    }
}

/// Each has kept another content.
#[test]
fn excluded_files_that_two_runs_changed() {
    let context = TestContext::new();
    let conf = context.work().join("conf");
    fs_err::write(&conf, "AAAA").expect("the directory can be written");
    let traces = [("one.trace", "printf BBBB > conf"), ("two.trace", "printf CCCC > conf")];
    let [one, two] = traces.map(|(name, script)| traced(&context, name, script));
    build(&context, &[&one, &two], &[]).assert_refused(125, &["conf` was a file with one content", "with `--exclude`"]);
    build(&context, &[&one, &two], &["--exclude", &support::text(&conf)]).success();
    assert!(!context.path("tree").join(conf.strip_prefix("/").expect("it is absolute")).exists());
}

/// Times alone, and numbers that were given anew, are no conflict.
#[test]
fn what_one_run_did_to_another_name_that_changes_nothing() {
    let context = TestContext::new();
    let at = |name: &str| context.work().join(name);
    fs_err::write(at("one"), "AAAA").expect("the directory can be written");
    fs_err::hard_link(at("one"), at("other")).expect("the directory can be written");
    let touches = traced(&context, "touches.trace", "touch -d @7 one");
    let reads = traced(&context, "reads.trace", "cat other");
    layer(&context, "a", &[&touches, &reads]);

    let make = |name: &str, content: &str| {
        for number in 0..5 {
            fs_err::create_dir_all(at(name)).expect("the directory can be written");
            let path = at(name).join(number.to_string());
            fs_err::write(&path, format!("{content}{number}")).expect("the directory can be written");
            fs_err::hard_link(&path, path.with_extension("link")).expect("the directory can be written");
        }
    };
    make("p", "some");
    let removes = traced(&context, "removes.trace", "rm -r p");
    make("q", "others");
    let reads = traced(&context, "finds.trace", "cat q/0 q/1 q/2 q/3 q/4");
    layer(&context, "b", &[&removes, &reads]);
}

/// A backup has brought all back as it was, and what the run read has by now the number that another file had, of which it changed the content.
#[test]
fn what_a_listing_shows_that_has_the_number_of_what_the_run_changed() {
    let context = TestContext::new();
    let at = |name: &str| context.work().join(name);
    let link = || {
        fs_err::write(at("one"), "AAAA").expect("the directory can be written");
        fs_err::hard_link(at("one"), at("other")).expect("the directory can be written");
    };
    let fill = || {
        fs_err::write(at("conf"), "BBBB").expect("the directory can be written");
        let conf = fs_err::File::options().write(true).open(at("conf")).expect("it is ours");
        conf.file().set_modified(std::time::UNIX_EPOCH).expect("it is ours");
    };
    link();
    fill();
    let trace = traced(&context, "changes.trace", "printf C >> one; cat other conf; ls");
    fs_err::remove_file(at("conf")).expect("it is there");
    fs_err::remove_file(at("other")).expect("it is there");
    fs_err::rename(at("one"), at("conf")).expect("it is there");
    fill();
    link();
    assert_eq!(conf_of(&context, &[&trace]), Ok("BBBB".to_owned()));
}

/// Somebody has made it since, when the file's number was free, or the image is built on another machine.
#[test]
fn a_link_that_a_listing_shows_and_has_the_number_of_what_the_run_changed() {
    let context = TestContext::new();
    let at = |name: &str| context.work().join(name);
    fs_err::write(at("one"), "AAAA").expect("the directory can be written");
    fs_err::hard_link(at("one"), at("other")).expect("the directory can be written");
    fs_err::create_dir(at("d")).expect("the directory can be written");
    std::os::unix::fs::symlink("there", at("d/link")).expect("the directory can be written");
    let trace = traced(&context, "changes.trace", "ls d; printf C >> one");
    let records = context.path("changes.trace").join("trace.jsonl");
    let [file, link] = ["one", "d/link"].map(|name| {
        let inode = fs_err::symlink_metadata(at(name)).expect("it is there").ino();
        format!("\"ino\":{inode},")
    });
    let told = fs_err::read_to_string(&records).expect("it is a trace");
    fs_err::write(&records, told.replace(&file, &link)).expect("it is ours");
    build(&context, &[&trace], &[]).success();
    let packed = context.path("tree").join(at("d/link").strip_prefix("/").expect("it is absolute"));
    assert_eq!(fs_err::read_link(packed).expect("it is a link"), Path::new("there"));
}

/// What was only looked at has the content from before, as where one name is used, and so has what was read before.
#[test]
fn what_one_run_wrote_by_another_name_and_another_did_not_read() {
    let context = TestContext::new();
    let [one, other] = ["one", "other"].map(|name| context.work().join(name));
    for (before, after) in [(None, Some("test -e other")), (Some("cat other"), None), (Some("chmod 640 other"), None)] {
        fs_err::remove_file(&one).ok();
        fs_err::remove_file(&other).ok();
        fs_err::write(&one, "AAAA").expect("the directory can be written");
        fs_err::hard_link(&one, &other).expect("the directory can be written");
        let before = before.map(|script| traced(&context, "other.trace", script));
        let writes = traced(&context, "writes.trace", "printf BBBBBB > one");
        let after = after.map(|script| traced(&context, "other.trace", script));
        let looks = before.or(after).expect("it is one of both");
        for traces in [[writes.as_str(), &looks], [looks.as_str(), &writes]] {
            build(&context, &traces, &[]).success();
            for path in [&one, &other] {
                let packed = context.path("tree").join(path.strip_prefix("/").expect("it is absolute"));
                assert_eq!(fs_err::read_to_string(packed).expect("it is packed"), "AAAA");
            }
        }
    }
}

/// By somebody else: no run has kept anything.
#[test]
fn what_was_written_between_two_runs() {
    let context = TestContext::new();
    let conf = context.work().join("conf");
    for content in ["BBBBBBB", "BBBB"] {
        fs_err::write(&conf, "AAAA").expect("the directory can be written");
        let traces = ["1.trace", "2.trace"].map(|name| traced(&context, name, &format!(": {name}; cat conf")));
        fs_err::write(&conf, content).expect("the directory can be written");
        let later = ["0.trace", "3.trace"].map(|name| traced(&context, name, &format!(": {name}; cat conf")));
        for earlier in &traces {
            for later in &later {
                let said = conf_of(&context, &[earlier, later]).expect_err("one found AAAA, and the other another");
                assert!(said.contains("conf` was a file with one content in `sh -c"), "{said}");
            }
        }
        assert_eq!(conf_of(&context, &[&later[0], &later[1]]), Ok(content.to_owned()));
        // Of one trace there is no image to compare, and `diff` leaves nothing out.
        let told = context.outcome(&["diff", &traces[0], &later[0]]);
        told.assert_refused(125, &["conf` has changed since the trace was made", "with `minjail build --exclude`"]);
    }
}

#[test]
fn what_one_run_replaced_by_a_file_of_the_same_size_and_time() {
    let context = TestContext::new();
    for (name, content) in [("conf", "AAAA"), ("new", "BBBB")] {
        let path = context.work().join(name);
        fs_err::write(&path, content).expect("the directory can be written");
        let file = std::fs::File::options().write(true).open(path).expect("it is ours");
        file.set_modified(std::time::UNIX_EPOCH).expect("it is ours");
    }
    let replaces = traced(&context, "replaces.trace", "mv new conf");
    let reads = traced(&context, "reads.trace", "cat conf");
    let said = conf_of(&context, &[&replaces, &reads]).expect_err("one found AAAA, and the other BBBB");
    assert!(said.contains("conf` was a file with one content in `sh -c"), "{said}");
}

/// Mode and owner of what the tree has at `path` of the working directory.
fn style_of(context: &TestContext, path: &str) -> (u32, u32) {
    let path = context.work().join(path);
    let packed = context.path("tree").join(path.strip_prefix("/").expect("it is absolute"));
    let found = fs_err::symlink_metadata(packed).expect("it is packed");
    (found.mode() & 0o7777, found.uid())
}

fn set_mode(path: &Path, mode: u32) {
    fs_err::set_permissions(path, PermissionsExt::from_mode(mode)).expect("it is ours");
}

/// A script in the place of what was there.
fn lay_out_script(path: &Path, mode: u32) {
    fs_err::remove_file(path).ok();
    fs_err::write(path, "#!/bin/sh\n").expect("the directory can be written");
    set_mode(path, mode);
}

/// Who changes a mode needs none: an image has the one with which the other does, as it was before if that is enough.
#[test]
fn what_one_run_gave_another_mode_and_another_used() {
    let context = TestContext::new();
    let file = context.work().join("file");
    for (was, changes, uses, mode) in [
        (0o644, "chmod 600 file", "printf B >> file", 0o644),
        (0o600, "chmod 644 file", "printf B >> file", 0o644),
        (0o644, "chmod +x file", "./file", 0o755),
        (0o644, "chmod 755 file; cat file", "true; chmod 755 file; ./file", 0o644),
        (0o755, "chmod -x file", "if test -x file; then ./file; fi", 0o644),
        // As ssh, which takes no key that others may read.
        (0o644, "chmod 600 file", "cat file", 0o600),
        (0o644, "test -e file; chmod 600 file", "cat file", 0o600),
        (0o644, "test -x file || chmod +x file", "printf B >> file", 0o644),
        (0o644, "cat file; chmod 600 file", "chmod 640 file; cat file", 0o644),
    ] {
        lay_out_script(&file, was);
        let told = format!("{changes} & {uses}");
        let changes = traced(&context, "changes.trace", changes);
        let uses = traced(&context, "uses.trace", uses);
        let merged = context.text("merged.trace");
        context.outcome(&["merge", "-q", "-o", &merged, &changes, &uses]).success();
        for traces in [&[changes.as_str(), &uses][..], &[&uses, &changes], &[&merged]] {
            build(&context, traces, &[]).success();
            assert_eq!(style_of(&context, "file").0, mode, "{told}");
        }
    }
}

/// What a user has done in a directory says whose that was, though it is another's when the image is built.
#[test]
fn what_one_user_used_and_root_gave_another() {
    if !support::needs_root("other users") {
        return;
    }
    let context = TestContext::new();
    let directory = context.work().join("directory");
    for (mode, script) in [(0o755, "> directory/new"), (0o700, "mkdir directory/new"), (0o700, "cat directory/file")] {
        fs_err::remove_dir_all(&directory).ok();
        fs_err::create_dir(&directory).expect("the directory can be written");
        fs_err::write(directory.join("file"), "").expect("it can be written");
        set_mode(&directory, mode);
        std::os::unix::fs::chown(&directory, Some(1234), None).expect("root may");
        let uses = context.text("uses.trace");
        let arguments = ["trace", "-q", "--user", "1234:1234", "-t", &uses, "--", "sh", "-c", script];
        context.outcome(&arguments).success();
        let changes = traced(&context, "changes.trace", "chown 4321 directory");
        for traces in [[uses.as_str(), &changes], [&changes, &uses]] {
            build(&context, &traces, &[]).success();
            assert_eq!(style_of(&context, "directory"), (mode, 1234), "{script}");
        }
    }
}

/// No mode is both.
#[test]
fn what_two_runs_used_with_another_mode_each() {
    let context = TestContext::new();
    let file = context.work().join("file");
    for (was, changes, uses) in [
        (0o644, "cat file; chmod +x file", "./file"),
        (0o644, "if test -x file; then ./file; fi; chmod +x file", "./file"),
        (0o755, "./file; chmod -x file", "test -x file || cat file"),
        (0o644, "cat file; chmod 600 file", "cat file"),
    ] {
        lay_out_script(&file, was);
        let [one, two] =
            [("one.trace", changes), ("two.trace", uses)].map(|(name, script)| traced(&context, name, script));
        let words = ["file` was a file with mode 0", "and one with mode 0", "hint: ", "as one workload", "`--exclude`"];
        for traces in [[one.as_str(), &two], [two.as_str(), &one]] {
            build(&context, &traces, &[]).assert_refused(125, &words);
            build(&context, &traces, &["--exclude", &support::text(&file)]).success();
            let merged = context.text("merged.trace");
            context
                .outcome(&["merge", "-q", "-o", &merged, traces[0], traces[1]])
                .assert_refused(125, &["file` was a file with mode 0", "hint: "]);
        }
        for trace in [one, two] {
            build(&context, &[&trace], &[]).success();
        }
    }
}

/// By somebody else, between two runs of which neither changes anything.
#[test]
fn what_was_changed_between_two_runs() {
    let context = TestContext::new();
    let (file, other) = (context.work().join("file"), context.work().join("other"));
    for path in [&file, &other] {
        fs_err::write(path, "AAAA").expect("the directory can be written");
        set_mode(path, 0o644);
    }
    let one = traced(&context, "one.trace", "cat file; test -e other");
    set_mode(&file, 0o600);
    set_mode(&other, 0o640);
    let two = traced(&context, "two.trace", "sort file");
    let three = traced(&context, "three.trace", "cat other");
    build(&context, &[&one, &two], &[]).assert_refused(125, &["file` was a file with mode 0"]);
    build(&context, &[&one, &three], &[]).success();
    assert_eq!(style_of(&context, "other").0, 0o640);
}

/// A directory that is only searched on a way is not told of.
#[test]
fn directories_that_one_run_opened_and_another_went_through() {
    let context = TestContext::new();
    let place = context.work().join("place");
    for (was, changes, uses, mode) in [
        (0o700, "chmod 755 place", "cat place/file", 0o755),
        (0o755, "chmod 700 place", "cat place/file", 0o755),
        (0o700, "mkdir -p place; chmod 755 place", "mkdir -p place; cat place/file", 0o755),
        (0o755, "chmod 777 place", "echo > place/new", 0o777),
        (0o755, "chmod 777 place", "cat file; ls", 0o755),
    ] {
        context.lay_out(&[("place/file", "AAAA"), ("file", "AAAA")]);
        set_mode(&place, was);
        let changes = traced(&context, "changes.trace", changes);
        let uses_trace = traced(&context, "uses.trace", uses);
        for traces in [[changes.as_str(), &uses_trace], [uses_trace.as_str(), &changes]] {
            build(&context, &traces, &[]).success();
            assert_eq!(style_of(&context, "place").0, mode, "{uses}");
        }
    }
}

#[test]
fn what_one_run_gave_to_another_user() {
    if !support::needs_root("to give files away") {
        return;
    }
    let context = TestContext::new();
    for (changes, uses, owners) in [
        ("chown 33 data data/file", "cat data/file; echo > data/new", [33, 33]),
        ("chown 33 data data/file", "test -e data/file", [0, 33]),
        ("chown 33 data data/file", "echo >> data/file", [0, 33]),
        ("chown -R 33 data", "chown -R 33 data; cat data/file; echo > data/new", [0, 0]),
    ] {
        context.lay_out(&[("data/file", "AAAA")]);
        set_mode(&context.work().join("data"), 0o755);
        let changes = traced(&context, "changes.trace", changes);
        let uses_trace = traced(&context, "uses.trace", uses);
        for traces in [[changes.as_str(), &uses_trace], [uses_trace.as_str(), &changes]] {
            build(&context, &traces, &[]).success();
            assert_eq!(["data", "data/file"].map(|path| style_of(&context, path).1), owners, "{uses}");
        }
    }
}

/// A link that one run replaces, and another goes through afterwards. Who only replaces it needs none of its texts.
#[test]
fn links_that_one_run_replaced_and_another_went_through() {
    let context = TestContext::new();
    context.lay_out(&[("v1/f", "one"), ("v2/f", "two"), ("v3/f", "three")]);
    let link = context.work().join("cur");
    let shown = || {
        let path = context.path("tree").join(link.strip_prefix("/").expect("it is absolute"));
        fs_err::read_link(path).expect("it is packed")
    };
    let replaces = |target: &str| format!("rm cur; ln -s {target} cur");
    for first in [replaces("v2"), format!("cat cur/f; {}", replaces("v2")), "ln -s v2 t; mv -T t cur".to_owned()] {
        fs_err::remove_file(&link).ok();
        std::os::unix::fs::symlink("v1", &link).expect("the directory can be written");
        let one = traced(&context, "one.trace", &first);
        let two = traced(&context, "two.trace", "cat cur/f");
        for traces in [[one.as_str(), &two], [two.as_str(), &one]] {
            build(&context, &traces, &[]).assert_refused(125, &["cur` was a link to `v", "with `--exclude`"]);
            build(&context, &traces, &["--exclude", &support::text(&link)]).success();
            let merged = context.text("merged.trace");
            context
                .outcome(&["merge", "-q", "-o", &merged, traces[0], traces[1]])
                .assert_refused(125, &["cur` was a link to `v", "hint: "]);
        }
        build(&context, &[&one], &[]).success();
        assert_eq!(shown(), Path::new("v1"), "{first}");
    }
    fs_err::remove_file(&link).expect("it is there");
    std::os::unix::fs::symlink("v1", &link).expect("the directory can be written");
    let [one, two] =
        [("one.trace", "v2"), ("two.trace", "v3")].map(|(name, target)| traced(&context, name, &replaces(target)));
    build(&context, &[&one, &two], &[]).success();
}

/// By whatever name of the file.
#[test]
fn what_one_run_gave_another_mode_by_another_name() {
    let context = TestContext::new();
    let at = |name: &str| context.work().join(name);
    let shown = |name: &str| {
        let path = context.path("tree").join(at(name).strip_prefix("/").expect("it is absolute"));
        let mode = fs_err::metadata(&path).expect("it is packed").permissions().mode() & 0o7777;
        (mode, xattr::get(&path, "user.word").expect("it can be asked"))
    };
    let changes =
        ["chmod 600 one", "chmod 600 one; rm one", "chmod 600 one; mv one three", "setfattr -n user.word -v new one"];
    for (number, change) in changes.into_iter().enumerate() {
        for name in ["one", "other", "three"] {
            fs_err::remove_file(at(name)).ok();
        }
        fs_err::write(at("one"), "AAAA").expect("the directory can be written");
        fs_err::set_permissions(at("one"), PermissionsExt::from_mode(0o644)).expect("it is ours");
        fs_err::hard_link(at("one"), at("other")).expect("the directory can be written");
        let earlier = traced(&context, "earlier.trace", "cat other");
        let changes = traced(&context, &format!("{number}.trace"), change);
        let is_closed = change.starts_with("chmod");
        for script in ["cat other", "test -e other"] {
            let uses = traced(&context, "uses.trace", script);
            let mode = if is_closed { 0o600 } else { 0o644 };
            for traces in [[changes.as_str(), &uses], [uses.as_str(), &changes]] {
                build(&context, &traces, &[]).success();
                assert_eq!(["one", "other"].map(shown), [(mode, None), (mode, None)], "{change}; {script}");
            }
            if is_closed && script == "cat other" {
                build(&context, &[&changes, &earlier, &uses], &[])
                    .assert_refused(125, &["other` was a file with mode 0"]);
            }
        }
        build(&context, &[&changes, &earlier], &[]).success();
        assert_eq!(["one", "other"].map(shown), [(0o644, None), (0o644, None)], "{change}");
        let changes_too = traced(&context, "too.trace", "chmod 640 other");
        for traces in [[changes.as_str(), &changes_too], [changes_too.as_str(), &changes]] {
            let told = build(&context, &traces, &[]);
            if is_closed {
                told.success();
            } else {
                told.assert_refused(125, &["` was a file with some extended attributes in", "`--exclude`"]);
                build(&context, &traces, &["--exclude", &support::text(&at("other"))]).success();
                assert_eq!(shown("one"), (0o644, None), "{change}");
            }
        }
    }
}

/// Whichever of both is the first by its command, and has the image's name.
#[test]
fn what_one_run_put_something_else_in_the_place_of() {
    let context = TestContext::new();
    let (at, conf) = (|name: &str| context.work().join(name), context.work().join("conf"));
    let (file, link, directory) = ("a file", "a symbolic link", "a directory");
    for (before, change, uses, [one, other]) in [
        (file, "rm conf; ln -s other conf", "cat conf", [file, link]),
        (link, "rm conf; printf '12345' > conf", "cat conf", [link, file]),
        (link, "cat conf; rm conf; printf '12345' > conf", "cat conf", [link, file]),
        (directory, "rmdir conf; ln -s . conf", "cat conf/other", [directory, link]),
        (directory, "rmdir conf; ln -s . conf", "ls conf/", [directory, link]),
        (link, "rm conf; mkdir conf", "ls conf", [link, directory]),
    ] {
        fs_err::remove_file(&conf).or_else(|_| fs_err::remove_dir(&conf)).ok();
        fs_err::write(at("other"), "AAAA").expect("the directory can be written");
        match before {
            _ if before == file => fs_err::write(&conf, "AAAA"),
            _ if before == link => std::os::unix::fs::symlink("other", &conf),
            _ => fs_err::create_dir(&conf),
        }
        .expect("the directory can be written");
        let changes = traced(&context, "changes.trace", change);
        for (name, script) in [("a.trace", uses.to_owned()), ("z.trace", format!("true; {uses}"))] {
            let uses = traced(&context, name, &script);
            for traces in [[changes.as_str(), &uses], [uses.as_str(), &changes]] {
                let joined = context.text("joined.trace");
                let merged = context.outcome(&["merge", "-q", traces[0], traces[1], "-o", &joined]);
                for refused in [build(&context, &traces, &[]), merged] {
                    let said = &refused.stderr;
                    assert!(refused.status != 0 && said.contains(one) && said.contains(other), "{change}: {refused}");
                }
            }
        }
    }
}

#[test]
fn what_cannot_be_merged_is_said() {
    let context = TestContext::new();
    let conf = context.work().join("conf");
    fs_err::write(&conf, "short").expect("the directory can be written");
    let one = traced(&context, "one.trace", "cat conf");
    fs_err::write(&conf, "no longer so short").expect("the directory can be written");
    let two = traced(&context, "two.trace", "head -c1 conf");
    let changed = traced(&context, "changed.trace", "echo new > conf");
    for kept in fs_err::read_dir(context.path("changed.trace/before")).expect("it has a content") {
        fs_err::write(kept.expect("it can be listed").path(), "another").expect("it is ours");
    }
    let lost = traced(&context, "lost.trace", "echo new > conf");
    fs_err::remove_dir_all(context.path("lost.trace/before")).expect("it has a content");
    let fifo = traced(&context, "fifo.trace", "echo newer > conf");
    for kept in fs_err::read_dir(context.path("fifo.trace/before")).expect("it has a content") {
        let kept = kept.expect("it can be listed").path();
        fs_err::remove_file(&kept).expect("it is ours");
        outcome_of(context.command("mkfifo").arg(&kept)).success();
    }
    let file = context.text("file");
    fs_err::write(&file, "").expect("the directory can be written");
    let before = context.listing();
    let output = context.text("out.trace");
    for (arguments, words) in [
        (
            &["merge", &one, &two, "-o", &output][..],
            &["conf` was a file of 5 bytes", "one of 18", "hint: no image can have both"][..],
        ),
        (&["merge", &one, &context.text("none.trace"), "-o", &output], &["none.trace"]),
        (&["merge", &lost, "-o", &output], &["the trace has lost", "/conf`", "hint: trace again"]),
        // Nobody waits for who would write into it.
        (&["merge", &fifo, "-o", &output], &["the trace has lost", "/conf`"]),
        (&["merge", &changed, "-o", &output], &["has another content than the one", "hint: trace again"]),
        (&["merge", &one, "-o", &file], &["file` exists and is not a trace"]),
        (&["merge", &one, "-o", &context.text("no/such/out.trace")], &["no/such"]),
        (
            &["merge", &one, "-o", "-"],
            &["a trace is a directory", "hint: name a directory; one that is called so is `./-`"],
        ),
    ] {
        context.outcome(arguments).assert_refused(125, words);
    }
    assert_eq!(context.listing(), before);
}
