//! Whose turn it is to ask for a path: while a call gives something another name, nobody else's.
//!
//! In: what comes next, and which call moves something. Out: the same, later if it has to wait. Whoever asks while a call is under way
//! that renames what the path leads through may find it under the one name or the other, and nobody can tell which; and what an exec
//! has loaded may have a name that nobody has been told of. A call that renames takes no longer than the kernel needs for it, and does
//! not depend on other tasks. Where it does all the same, as on a file system that somebody has frozen, the others wait no longer than
//! [`PATIENCE`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::events::{Next, Waiting};
use crate::status::{self, Stop};

/// So long others wait for a call that moves something.
const PATIENCE: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// The task whose call moves something, and since when.
    moving: Option<(i32, Instant)>,
    /// What waits for it, oldest first.
    waiting: VecDeque<Next>,
}

impl Turns {
    /// `task` is let into a call that moves something.
    pub(crate) fn begin(&mut self, task: i32) {
        self.moving = Some((task, Instant::now()));
    }

    /// The call of `task` is over.
    pub(crate) fn end(&mut self, task: i32) {
        self.moving = self.moving.filter(|&(moving, _)| moving != task);
    }

    /// `task` is gone: nothing of it waits any more.
    pub(crate) fn leave(&mut self, task: i32) {
        self.end(task);
        self.forget(task);
    }

    fn forget(&mut self, task: i32) {
        self.waiting.retain(|next| asking(next) != Some(task));
    }

    /// What has waited for its turn and has it now.
    pub(crate) fn due(&mut self) -> Option<Next> {
        if self.left() == Some(Duration::ZERO) {
            self.moving = None;
        }
        if self.moving.is_some() { None } else { self.waiting.pop_front() }
    }

    /// How long it may take until something has its turn, however little happens.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.moving.map(|(_, since)| PATIENCE.saturating_sub(since.elapsed()))
    }

    /// Gives back what has its turn; keeps what has not.
    pub(crate) fn take(&mut self, next: Next) -> Option<Next> {
        if let Next::Stop(task, raw) = next
            && status::decode(raw) == Some(Stop::Exec)
        {
            // ptrace(2), "execve(2) under ptrace": the one that had the number may be gone without a word.
            self.forget(task);
        }
        match (self.moving, asking(&next)) {
            (Some((moving, _)), Some(task)) if task != moving => {
                self.waiting.push_back(next);
                None
            }
            _ => Some(next),
        }
    }
}

/// Who asks for a path, or is asked for those of what it has loaded.
fn asking(next: &Next) -> Option<i32> {
    match next {
        Next::Call(call) | Next::Foreseen(Waiting::Call(call), _) => Some(call.task),
        Next::Foreseen(Waiting::Stop(task, _), _) => Some(*task),
        Next::Stop(task, raw) => matches!(status::decode(*raw), Some(Stop::Seccomp | Stop::Exec)).then_some(*task),
        Next::Nothing => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The entry of a call (`PTRACE_EVENT_SECCOMP`), an exec (`PTRACE_EVENT_EXEC`), and a plain stop by SIGUSR1.
    const ENTRY: i32 = 0x7057f;
    const EXEC: i32 = 0x4057f;
    const SIGNAL: i32 = 0xa7f;

    fn tasks(turns: &mut Turns) -> Vec<i32> {
        let next = |next| if let Next::Stop(task, _) = next { task } else { panic!("{next:?}") };
        std::iter::from_fn(|| turns.due()).map(next).collect()
    }

    #[test]
    fn who_asks_while_something_is_moved_waits_for_its_end() {
        let mut turns = Turns::default();
        assert!(turns.take(Next::Stop(1, ENTRY)).is_some() && turns.left().is_none());
        turns.begin(1);
        assert!(turns.left() > Some(Duration::ZERO));
        for task in [2, 3] {
            assert!(turns.take(Next::Stop(task, ENTRY)).is_none());
        }
        assert!(turns.take(Next::Stop(2, SIGNAL)).is_some() && turns.take(Next::Stop(1, ENTRY)).is_some());
        turns.end(4);
        assert_eq!(tasks(&mut turns), [0; 0]);
        turns.end(1);
        assert_eq!(tasks(&mut turns), [2, 3]);
    }

    #[test]
    fn what_an_exec_has_loaded_is_asked_for_when_nothing_is_moved() {
        let mut turns = Turns::default();
        turns.begin(1);
        assert!(turns.take(Next::Stop(2, EXEC)).is_none() && turns.take(Next::Stop(3, EXEC)).is_none());
        // Who moves something by a thread of its own that is gone now.
        assert!(turns.take(Next::Stop(1, EXEC)).is_some());
        // Another thread of a process whose first one waits.
        assert!(turns.take(Next::Stop(4, ENTRY)).is_none() && turns.take(Next::Stop(4, EXEC)).is_none());
        turns.leave(3);
        turns.leave(1);
        assert_eq!(tasks(&mut turns), [2, 4], "one was killed meanwhile, and another has ended by the exec");
    }

    #[test]
    fn nobody_waits_for_long() {
        let mut turns = Turns::default();
        turns.begin(1);
        turns.take(Next::Stop(2, ENTRY));
        turns.moving = Some((1, Instant::now().checked_sub(PATIENCE).unwrap()));
        assert_eq!(tasks(&mut turns), [2]);
    }
}
