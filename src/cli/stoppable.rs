//! Work that a signal stops, and that takes back what it has begun.
//!
//! Without this a signal that asks for an end would leave what is half written where it lies, until the next minjail that
//! writes the same output. The work looks now and then whether it was told to end; then it is unwound, so that everything
//! under way is dropped. A second signal ends minjail at once.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use minjail_tracer::Forwarding;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};

use super::failure::{Failure, stopped};

/// What has come so far.
pub(super) struct Told(Arc<AtomicI32>);

/// What unwinds the work.
struct Stopped;

impl Told {
    /// Ends the work if a signal has come.
    pub(super) fn look(&self) {
        if self.0.load(Ordering::Relaxed) != 0 {
            resume_unwind(Box::new(Stopped));
        }
    }
}

/// Does `work`, which calls [`Told::look`] wherever it may end.
pub(super) fn stoppable<T>(work: impl FnOnce(&Told) -> Result<T, Failure>) -> Result<T, Failure> {
    match attempt(work)? {
        (Some(result), 0) => result,
        (_, signal) => Err(stopped(signal)),
    }
}

/// The same of work with which all is done: a signal that comes after the last look has come too late.
pub(super) fn stoppable_to_the_end<T>(work: impl FnOnce(&Told) -> Result<T, Failure>) -> Result<T, Failure> {
    match attempt(work)? {
        (Some(Ok(done)), _) => Ok(done),
        (Some(failed), 0) => failed,
        (_, signal) => Err(stopped(signal)),
    }
}

/// What `work` gives, unless it was ended, and the signal that has come meanwhile, or 0.
fn attempt<T>(work: impl FnOnce(&Told) -> Result<T, Failure>) -> Result<(Option<Result<T, Failure>>, i32), Failure> {
    let told = Told(Arc::default());
    let signals = Forwarding::while_waiting(Arc::clone(&told.0)).map_err(Failure::new)?;
    // What is unwound is dropped, and nobody sees it again.
    let result = match catch_unwind(AssertUnwindSafe(|| work(&told))) {
        Err(payload) if !payload.is::<Stopped>() => resume_unwind(payload),
        result => result.ok(),
    };
    // What comes from here on is nothing of this work's any more.
    drop(signals);
    Ok((result, told.0.load(Ordering::Relaxed)))
}

/// While this is there, a signal that asks for an end waits for the next work that hears of it: between two of them it would end
/// minjail at once, and leave what is there only for their time. What is dropped after this is such.
pub(super) struct Held {
    /// What was in force before.
    before: SigSet,
}

impl Held {
    pub(super) fn start() -> Result<Self, Failure> {
        const ENDING: [Signal; 4] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT];
        let before = ENDING.into_iter().collect::<SigSet>().thread_swap_mask(SigmaskHow::SIG_BLOCK);
        Ok(Self { before: before.map_err(Failure::new)? })
    }

    /// The mask from before, for what hears of signals in a way of its own and takes those that wait; unless one has come already.
    pub(super) fn mask(&self) -> Result<SigSet, Failure> {
        stoppable(|_| Ok(self.before))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.before.thread_set_mask().expect("what was in force can be set again");
    }
}
