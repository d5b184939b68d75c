//! Which task's stop is next.
//!
//! In: what wait reports. Out: one task and its raw status at a time. What a status means is found out in
//! [`status`](crate::status).
//!
//! Wait reports the first task of the kernel's list that has something to tell (`do_wait_thread` in `kernel/exit.c`).
//! Whoever takes one report at a time and resumes that task at once soon hears of it again, before those behind it: the
//! others stand still, and each stop costs two wake-ups, often across processors. So all that is there is taken before
//! the first task is resumed: none is passed over, and while the tracer looks at one task, others run.

use std::collections::VecDeque;

use nix::errno::Errno;

use crate::sys;

/// Reports that were taken and not handed out yet, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Stops {
    taken: VecDeque<(i32, i32)>,
}

impl Stops {
    /// The next report; blocks until there is one. `are_several`: more than one task may have something to tell.
    ///
    /// # Errors
    /// `ECHILD` if no task is left. What `waitpid(2)` says.
    pub(crate) fn next(&mut self, are_several: bool) -> Result<(i32, i32), Errno> {
        if let Some(report) = self.taken.pop_front() {
            return Ok(report);
        }
        let first = loop {
            match sys::wait_any() {
                Err(Errno::EINTR) => {}
                result => break result?,
            }
        };
        if are_several {
            // That no task is left is told when it is asked for the next time.
            while let Ok(Some(report)) = sys::poll_any() {
                self.taken.push_back(report);
            }
        }
        Ok(first)
    }
}
