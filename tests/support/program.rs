//! A real program, and the proof that it does the same everywhere: natively, traced, in the jail, from the image.

use super::podman::Podman;
use super::{Outcome, TestContext, outcome_of};

/// A program, what it finds in its working directory, and its environment.
pub(crate) struct Program<'a> {
    pub(crate) argv: &'a [&'a str],
    /// Files in the working directory: name and content.
    pub(crate) inputs: &'a [(&'a str, &'a str)],
    pub(crate) environment: &'a [(&'a str, &'a str)],
    /// What it must end with natively: the oracle is looked at, too.
    pub(crate) status: i32,
    /// Something that its native output must hold, likewise.
    pub(crate) says: &'a str,
    /// How the image is spelled: one of `docker-archive`, `oci-archive`, `oci`.
    pub(crate) form: &'a str,
}

impl Default for Program<'_> {
    fn default() -> Self {
        Self { argv: &[], inputs: &[], environment: &[], status: 0, says: "", form: "docker-archive" }
    }
}

impl Program<'_> {
    /// The whole proof.
    pub(crate) fn prove(&self, context: &TestContext) {
        let native = self.native(context);
        let image = self.trace(context, &native);
        in_the_jail(context, &image).assert_same_as(&native);
        let podman = Podman::new();
        podman.run(&podman.pull(context, &image)).assert_same_as(&native);
    }

    /// The proof without containers: natively, traced, in the jail. The image, for what else a test wants of it.
    pub(crate) fn prove_in_the_jail(&self, context: &TestContext) -> String {
        let native = self.native(context);
        let image = self.trace(context, &native);
        in_the_jail(context, &image).assert_same_as(&native);
        image
    }

    /// What the program does natively.
    pub(crate) fn native(&self, context: &TestContext) -> Outcome {
        context.lay_out(self.inputs);
        let mut command = context.command(self.argv[0]);
        let native = outcome_of(command.args(&self.argv[1..]).envs(self.environment.iter().copied()));
        assert_eq!(native.status, self.status, "the program does not work natively\n{native}");
        assert!(native.text().contains(self.says), "the program does not say {:?} natively\n{native}", self.says);
        native
    }

    /// Traces the program, which must behave as `native`, and returns the image that was built from it.
    pub(crate) fn trace(&self, context: &TestContext, native: &Outcome) -> String {
        context.lay_out(self.inputs);
        let image = format!("{}:{}:{}", self.form, context.text("image"), self.reference());
        let (trace, lock) = (context.text("app.trace"), context.text("app.lock"));
        let mut command = context.minjail(&["trace", "-t", &trace, "--lock", &lock, "-o", &image]);
        for (name, value) in self.environment {
            // The image takes these from the environment of itself, and others only when they are named.
            if *name == "TZ" || *name == "LANG" || name.starts_with("LC_") {
                command.env(name, value);
            } else {
                command.args(["--env", &format!("{name}={value}")]);
            }
        }
        outcome_of(command.arg("--").args(self.argv)).assert_same_as(native);
        image
    }

    /// A reference for a docker archive, a tag for an OCI one.
    fn reference(&self) -> &'static str {
        if self.form == "docker-archive" { "localhost/minjail/test:1" } else { "1" }
    }
}

/// What the image's command does in the jail; the environment must come from the image.
pub(crate) fn in_the_jail(context: &TestContext, image: &str) -> Outcome {
    // What the host's working directory holds by now is nothing to the jail.
    context.lay_out(&[]);
    let mut command = context.minjail(&["run", image]);
    outcome_of(command.env_remove("LANG").env("HOME", "/"))
}
