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
use std::sync::mpsc::Receiver;
use std::time::Duration;

use nix::errno::Errno;

use crate::foresight::Foreseen;
use crate::sys;

/// What comes next.
#[derive(Debug)]
pub(crate) enum Next {
    /// A task and its raw status.
    Stop(i32, i32),
    /// What was foreseen of a task, and by which looks.
    Foreseen((i32, u64), Foreseen),
}

/// While looks are waited for, both they and the tasks are asked in turn: nothing in the kernel waits for both. A server
/// that needs the tracer is quick to say so; one that takes long is asked about less and less often.
const PAUSES: std::ops::RangeInclusive<Duration> = Duration::from_micros(50)..=Duration::from_millis(10);

/// Reports that were taken and not handed out yet, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Stops {
    taken: VecDeque<(i32, i32)>,
}

impl Stops {
    /// The next report; blocks until there is one. `are_several`: more than one task may have something to tell; `looks`:
    /// they are waited for as well.
    ///
    /// # Errors
    /// `ECHILD` if no task is left. What `waitpid(2)` says.
    pub(crate) fn next(
        &mut self,
        are_several: bool,
        looks: Option<&Receiver<((i32, u64), Foreseen)>>,
    ) -> Result<Next, Errno> {
        if let Some((task, status)) = self.taken.pop_front() {
            return Ok(Next::Stop(task, status));
        }
        let first = match looks {
            None => wait()?,
            Some(looks) => match wait_with(looks)? {
                Next::Stop(task, status) => (task, status),
                foreseen @ Next::Foreseen(..) => return Ok(foreseen),
            },
        };
        if are_several {
            // That no task is left is told when it is asked for the next time.
            while let Ok(Some(report)) = sys::poll_any() {
                self.taken.push_back(report);
            }
        }
        Ok(Next::Stop(first.0, first.1))
    }
}

fn wait() -> Result<(i32, i32), Errno> {
    loop {
        match sys::wait_any() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// As [`wait`], or what looks have shown.
fn wait_with(looks: &Receiver<((i32, u64), Foreseen)>) -> Result<Next, Errno> {
    let mut pause = *PAUSES.start();
    loop {
        if let Some((task, status)) = sys::poll_any()? {
            return Ok(Next::Stop(task, status));
        }
        if let Ok((which, foreseen)) = looks.recv_timeout(pause) {
            return Ok(Next::Foreseen(which, foreseen));
        }
        pause = (pause * 2).min(*PAUSES.end());
    }
}
