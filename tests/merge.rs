//! `minjail merge`: several traces as one.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use support::{Outcome, TestContext, outcome_of};

fn traced(context: &TestContext, name: &str, script: &str) -> String {
    let trace = context.text(name);
    outcome_of(&mut context.minjail(&["trace", "--quiet", "-t", &trace, "--", "sh", "-c", script])).success();
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
    let merged = outcome_of(&mut context.minjail(&["merge", &one, &two, "-o", &joined])).success();
    assert!(merged.stderr.contains("2 runs with"), "{merged}");
    assert_eq!(layer(&context, "a", &[&joined]), layer(&context, "b", &[&one, &two]));
    let again = context.text("again.trace");
    outcome_of(&mut context.minjail(&["merge", "-q", "-t", &two, "-t", &joined, &one, "-o", &again])).success();
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
                assert!(said.contains("conf` had one content in workload") && said.contains("hint: "), "{said}");
                build(&context, &traces, &["--exclude", &support::text(&conf)]).success();
            }
        }
        assert_eq!(conf_of(&context, &[&earlier, &writes, &looks]), Ok("AAAA".to_owned()));
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
    let records = context.path("again.trace").join("trace.jsonl");
    let told = fs_err::read_to_string(&records).expect("it is a trace");
    let elsewhere = told.lines().map(|line| {
        let is_told = line.contains("/conf\"") && line.contains("\"touch\"");
        let line = if is_told { line.replace("\"mtime\":", "\"mtime\":1") } else { line.to_owned() };
        if is_told { line.replace("\"ino\":", "\"ino\":1") + "\n" } else { line + "\n" }
    });
    fs_err::write(&records, elsewhere.collect::<String>()).expect("it is ours");
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
            assert!(said.contains("` had one content in workload"), "{said}");
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
    build(&context, &[&one, &two], &[]).assert_refused(125, &["conf` had one content", "with `--exclude`"]);
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
    assert!(said.contains("conf` had one content in workload"), "{said}");
}

/// Whoever has changed a mode has found the one from before.
#[test]
fn what_one_run_gave_another_mode_and_another_wrote() {
    let context = TestContext::new();
    let conf = context.work().join("conf");
    fs_err::write(&conf, "AAAA").expect("the directory can be written");
    fs_err::set_permissions(&conf, PermissionsExt::from_mode(0o644)).expect("it is ours");
    let closes = traced(&context, "closes.trace", "chmod 600 conf");
    let writes = traced(&context, "writes.trace", "printf B >> conf");
    for traces in [[closes.as_str(), &writes], [writes.as_str(), &closes]] {
        assert_eq!(conf_of(&context, &traces), Ok("AAAA".to_owned()));
        let built = context.path("tree").join(conf.strip_prefix("/").expect("it is absolute"));
        assert_eq!(fs_err::metadata(built).expect("it is packed").permissions().mode() & 0o7777, 0o644);
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
            build(&context, &traces, &[]).assert_refused(125, &["cur` had one content", "with `--exclude`"]);
            build(&context, &traces, &["--exclude", &support::text(&link)]).success();
            let merged = context.text("merged.trace");
            outcome_of(&mut context.minjail(&["merge", "-q", "-o", &merged, traces[0], traces[1]]))
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
        for script in ["cat other", "test -e other"] {
            let reads = traced(&context, "reads.trace", script);
            for traces in [&[changes.as_str(), &reads][..], &[&reads, &changes], &[&changes, &earlier]] {
                build(&context, traces, &[]).success();
                assert_eq!(shown("other"), (0o644, None), "{change}; {script}");
                assert_eq!(shown("one"), (0o644, None), "{change}; {script}");
            }
        }
        let changes_too = traced(&context, "too.trace", "chmod 640 other");
        for traces in [[changes.as_str(), &changes_too], [changes_too.as_str(), &changes]] {
            let words = ["which has another name too, had one mode, owner or attribute in workload", "`--exclude`"];
            if at("one").exists() || at("three").exists() {
                build(&context, &traces, &[]).assert_refused(125, &words);
                build(&context, &traces, &["--exclude", &support::text(&at("other"))]).success();
            } else {
                // Who has found it with one name came later.
                build(&context, &traces, &[]).success();
                assert_eq!(shown("other"), (0o644, None), "{change}");
            }
            assert_eq!(shown("one"), (0o644, None), "{change}");
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
        (&["merge", &one, "-o", &file], &["file` exists and is not a trace"]),
        (&["merge", &one, "-o", &context.text("no/such/out.trace")], &["no/such"]),
    ] {
        outcome_of(&mut context.minjail(arguments)).assert_refused(125, words);
    }
    assert_eq!(context.listing(), before);
}
