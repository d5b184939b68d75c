//! How far it is, for a person who waits: only on a terminal.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar on standard error, gone when dropped.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// `what` is being done; nothing is drawn if `quiet`, or where nobody looks.
    pub(super) fn new(what: &'static str, quiet: bool) -> Self {
        let bar = ProgressBar::new(0);
        if quiet || !std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let style =
            ProgressStyle::with_template("{msg:>10} [{bar:30}] {bytes}/{total_bytes}").expect("a valid template");
        bar.set_style(style.progress_chars("=> "));
        bar.set_message(what);
        Self(bar)
    }

    /// `done` of `total` bytes.
    pub(super) fn show(&self, done: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
