//! `minjail merge`: several traces as one.

mod support;

use support::{TestContext, outcome_of};

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
