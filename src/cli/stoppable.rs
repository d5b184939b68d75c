//! Work that a signal stops, and that takes back what it has begun.
//!
//! Without this a signal that asks for an end would leave what is half written where it lies, until the next minjail that
//! writes the same output. The work looks now and then whether it was told to end; then it is unwound, so that everything
//! under way is dropped. A second signal ends minjail at once.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use minjail_tracer::Forwarding;

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
    let told = Told(Arc::default());
    let _signals = Forwarding::while_waiting(Arc::clone(&told.0)).map_err(Failure::new)?;
    // What is unwound is dropped, and nobody sees it again.
    let result = match catch_unwind(AssertUnwindSafe(|| work(&told))) {
        Err(payload) if !payload.is::<Stopped>() => resume_unwind(payload),
        result => result.ok(),
    };
    match (result, told.0.load(Ordering::Relaxed)) {
        (Some(result), 0) => result,
        (_, signal) => Err(stopped(signal)),
    }
}
