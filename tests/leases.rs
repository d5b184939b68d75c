//! Files on which a program has a lease (`fcntl(2)`): what minjail keeps of a run takes no lease away and waits for none, and
//! whoever packs such a file gets it when its holder gives it up.

mod support;

use std::process::Child;

use support::{Outcome, TestContext, minjail, outcome_of, text};

struct Ground {
    context: TestContext,
    program: String,
}

impl Ground {
    fn new(file: &str) -> Self {
        let context = TestContext::new();
        let program = context.hazard("lease");
        context.lay_out(&[(file, "old")]);
        Self { context, program }
    }

    fn trace(&self, command: &[&str]) -> Outcome {
        let trace = self.context.text("app.trace");
        outcome_of(self.context.minjail(&["trace", "-q", "-t", &trace, "--"]).args(command)).success()
    }

    fn build(&self) -> Outcome {
        let tree = format!("rootfs:{}", self.context.text("tree"));
        let arguments = ["build", "-q", "-t", &self.context.text("app.trace"), "-o", &tree];
        self.context.outcome(&arguments)
    }
}

#[test]
fn a_file_under_a_lease_is_not_waited_for() {
    let ground = Ground::new("written");
    ground.trace(&[&ground.program, "written"]);
    // What it was before nobody could read.
    ground.build().assert_refused(125, &["written", "changed"]);
}

#[test]
fn a_lease_that_the_program_keeps_is_not_taken_away() {
    let ground = Ground::new("renamed");
    ground.trace(&[&ground.program, "renamed"]);
}

#[test]
fn a_lease_on_what_the_program_is_given_stays() {
    let ground = Ground::new("given");
    let trace = ground.context.text("app.trace");
    let traced = ["given", minjail(), "trace", "-q", "-t", &trace, "--", "/bin/true"];
    outcome_of(ground.context.command(&ground.program).args(traced)).success();
}

#[test]
fn what_is_packed_is_waited_for() {
    let ground = Ground::new("read");
    ground.trace(&["/bin/cat", "read"]);
    let pipe = ground.context.work().join("pipe");
    outcome_of(ground.context.command("mkfifo").arg(&pipe)).success();
    let holder: Child = ground.context.command(&ground.program).arg("read").spawn().expect("it can be run");
    assert_eq!(fs_err::read(&pipe).expect("the holder writes to it"), b"x");
    ground.build().success();
    let packed = format!("{}{}", ground.context.text("tree"), text(&ground.context.work().join("read")));
    assert_eq!(fs_err::read_to_string(packed).expect("it is packed"), "old");
    let holder = holder.wait_with_output().expect("it ends");
    assert!(holder.status.success(), "{holder:?}");
}
