//! What a proof may not let pass, and what it may not fail for: the ends of servers, who answers, streams, and what the
//! caller of minjail has, and an engine has not.

mod support;

use support::{Outcome, TestContext};

/// What `minjail build PROFILE -o rootfs:out` says, with one workload of this text.
fn build(context: &TestContext, workload: &str) -> Outcome {
    context.outcome(&arguments(context, workload).each_ref().map(String::as_str))
}

/// The arguments of that build.
fn arguments(context: &TestContext, workload: &str) -> [String; 4] {
    let file = context.text("app.yaml");
    fs_err::write(&file, format!("workloads: {{it: {workload}}}\n")).expect("the directory is ours");
    ["build".to_owned(), file, "-o".to_owned(), format!("rootfs:{}", context.text("out"))]
}

#[track_caller]
fn fails(outcome: &Outcome, why: &str) {
    assert!(outcome.status != 0 && outcome.stderr.contains(why), "{outcome}");
}

/// Of a server that was stopped any status will do, and of one that ended before nobody has stopped it.
#[test]
fn a_server_that_ends_by_itself() {
    for (end, said) in [("exit 7", "it ended with status 7"), ("kill -SEGV $$", "it was killed by signal 11")] {
        let context = TestContext::new();
        let server = format!("echo up; sleep 0.3; {end}");
        let outcome = build(&context, &format!("{{run: '{server}', ready: {{log: up}}, probes: [{{command: 'sleep 1'}}]}}"));
        fails(&outcome, &format!("{said}, and status 0 was expected"));
    }
    let context = TestContext::new();
    build(&context, "{run: 'echo up; sleep 0.3', ready: {log: up}, probes: [{command: 'sleep 1'}]}").success();
}
