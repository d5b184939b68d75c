//! A script that is traced once, and the trees that are built from its trace.

use std::path::{Path, PathBuf};

use super::{Outcome, TestContext, outcome_of};

/// A script's trace, in a directory of the test's own.
pub(crate) struct Traced {
    pub(crate) context: TestContext,
    /// What came of the script under the tracer.
    pub(crate) outcome: Outcome,
}

/// A tree, and what minjail said when it made it.
pub(crate) struct Built {
    root: PathBuf,
    work: PathBuf,
    pub(crate) said: String,
    /// The directory that it is in, if nobody else holds it.
    context: Option<TestContext>,
}

impl Traced {
    /// Traces `sh -c script` in a working directory that `prepare` has filled.
    pub(crate) fn new(script: &str, prepare: impl FnOnce(&Path)) -> Self {
        Self::with(&[], script, prepare)
    }

    /// [`Self::new`] with further arguments for `minjail trace`.
    pub(crate) fn with(arguments: &[&str], script: &str, prepare: impl FnOnce(&Path)) -> Self {
        let context = TestContext::new();
        prepare(&context.work());
        let mut command = context.minjail(&["trace", "--quiet", "-t", &context.text("app.trace")]);
        let outcome = outcome_of(command.args(arguments).args(["--", "sh", "-c", script])).success();
        Self { context, outcome }
    }

    /// `minjail build` of a tree called `name`.
    pub(crate) fn try_build(&self, name: &str, arguments: &[&str]) -> Outcome {
        let output = format!("rootfs:{}", self.context.text(name));
        let mut command = self.context.minjail(&["build", "-t", &self.context.text("app.trace"), "-o", &output]);
        outcome_of(command.args(arguments))
    }

    /// The tree alone.
    #[track_caller]
    pub(crate) fn into_built(self) -> Built {
        let built = self.build("tree", &[]);
        Built { context: Some(self.context), ..built }
    }

    #[track_caller]
    pub(crate) fn build(&self, name: &str, arguments: &[&str]) -> Built {
        let said = self.try_build(name, arguments).success().stderr;
        Built { root: self.context.path(name), work: self.context.work(), said, context: None }
    }
}

impl Built {
    /// Where a path is in the tree; a relative one is meant from the working directory.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        let path = self.work.join(path);
        self.root.join(path.strip_prefix("/").expect("the working directory is absolute"))
    }

    /// True if something is at `path`, even a dangling link.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.at(path).symlink_metadata().is_ok()
    }

    #[track_caller]
    pub(crate) fn text(&self, path: &str) -> String {
        fs_err::read_to_string(self.at(path)).expect("the tree has the file")
    }

    /// The text of a link.
    #[track_caller]
    pub(crate) fn link(&self, path: &str) -> String {
        let target = fs_err::read_link(self.at(path)).expect("the tree has the link");
        target.to_str().expect("it is plain text").to_owned()
    }
}
