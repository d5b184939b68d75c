//! Calls that wait for the listener, and of which what became is to be asked when they return.
//!
//! A call that waits stops neither at its entry nor at its return. Only the thread that waits for the tasks can have it stop,
//! by a request that is pending like a signal until the task leaves the kernel (`PTRACE_INTERRUPT`). A call that opens
//! a plain file never looks for signals: it runs with the request pending, and its task stops as it returns. Any other
//! might be ended by it. So that call does not run yet: it is answered as one that a signal has ended before it
//! began and that the kernel begins anew, which nobody notices (ERESTARTNOINTR). As the task leaves the kernel it stops,
//! and from there it can be let go to the entry of the same call, and from there to its return.
//!
//! In: the stops of a task of which that was asked. Out: what they mean for it. Pure.

use std::collections::HashMap;

use crate::race::Raced;
use crate::status::Stop;

/// How far a task has come.
#[derive(Debug)]
enum Stage {
    /// Its call runs, and it stops next as that returns.
    Running(Raced),
    /// Its call was sent back, and it stops next on its way out of the kernel.
    SentBack,
    /// It stops next at the entry of its call, kept from signals until then: its mask from before.
    Entering(u64),
    /// At the entry, from where it goes on to the listener, and then to its return.
    Entered,
    /// It is about to make its call anew, since that did look for signals.
    CutShort,
}

/// How a task has come to the entry of a call of which the listener hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coming {
    /// By itself.
    Free,
    /// So that it stops when the call returns.
    ToStop,
    /// For the second time, since the call does not run through with a request to stop pending.
    CutShort,
}

/// What a stop means for a call that is to be heard of when it returns.
#[derive(Debug)]
pub(crate) enum Meaning {
    /// Nothing.
    None,
    /// The task is to go on to the entry of its call; no signal need come before that.
    Leaving,
    /// It gets its mask back, and is to go on to the return of its call.
    Entering(u64),
    /// It gets its mask back; no more than that.
    Barred(u64),
    /// The call is over, whatever else the stop means.
    Over(Raced),
}

/// The tasks with such calls.
#[derive(Debug, Default)]
pub(crate) struct Anew(HashMap<i32, Stage>);

impl Anew {
    /// The call of `task` is let run, with a request to stop pending.
    pub(crate) fn runs(&mut self, task: i32, raced: Raced) {
        self.0.insert(task, Stage::Running(raced));
    }

    /// The call of `task` is sent back, with a request to stop pending.
    pub(crate) fn is_sent_back(&mut self, task: i32) {
        self.0.insert(task, Stage::SentBack);
    }

    /// `task`, whose call was sent back, is kept from signals on its way to the entry of that, and had this mask.
    pub(crate) fn is_masked(&mut self, task: i32, mask: u64) {
        self.0.insert(task, Stage::Entering(mask));
    }

    /// A call of `task` was ended by the request, and is made anew.
    pub(crate) fn is_cut_short(&mut self, task: i32) {
        self.0.insert(task, Stage::CutShort);
    }

    /// How `task` has come to the entry of the call at which it is heard of.
    pub(crate) fn coming(&self, task: i32) -> Coming {
        match self.0.get(&task) {
            Some(Stage::Entered) => Coming::ToStop,
            Some(Stage::CutShort) => Coming::CutShort,
            _ => Coming::Free,
        }
    }

    /// The call of `task` runs, or fails; it is heard of, and what was expected of it is over.
    pub(crate) fn is_heard(&mut self, task: i32) {
        if !self.0.is_empty() {
            self.0.remove(&task);
        }
    }

    /// `task` has stopped. Whatever was not expected, as a signal, comes in the place of the call, which then begins anew
    /// as if it had not been heard of.
    pub(crate) fn stopped(&mut self, task: i32, stop: Stop) -> Meaning {
        if self.0.is_empty() {
            return Meaning::None;
        }
        match (self.0.remove(&task), stop) {
            // ptrace(2), "execve(2) under ptrace": the one that had the number is gone without a word, and its mask with it.
            (_, Stop::Exec) => Meaning::None,
            (Some(Stage::Running(raced)), _) => Meaning::Over(raced),
            (Some(Stage::SentBack), Stop::Started) => Meaning::Leaving,
            (Some(Stage::Entering(mask)), Stop::Syscall) => {
                self.0.insert(task, Stage::Entered);
                Meaning::Entering(mask)
            }
            (Some(Stage::Entering(mask)), _) => Meaning::Barred(mask),
            _ => Meaning::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MASK: u64 = 1 << 9;

    fn goes_on(anew: &mut Anew, stop: Stop) -> bool {
        match anew.stopped(7, stop) {
            Meaning::Leaving => anew.is_masked(7, MASK),
            Meaning::Entering(mask) => assert_eq!(mask, MASK),
            _ => return false,
        }
        true
    }

    fn changing() -> Raced {
        let (abi, table) = (crate::calls::Abi::X86_64, crate::calls::Table::of(crate::calls::Abi::X86_64));
        let entry = crate::decode::Entry { number: 257, abi, call: table.get(257).unwrap(), arguments: [0; 6] };
        let asking = crate::inspect::Asking { task: 7, process: 7, entry, stack: None, waits: None };
        Raced::Changing { asking, paths: Vec::new() }
    }

    #[test]
    fn a_call_that_was_sent_back_is_led_to_its_return() {
        let mut anew = Anew::default();
        anew.is_sent_back(7);
        assert!(goes_on(&mut anew, Stop::Started));
        assert_eq!(anew.coming(7), Coming::Free);
        assert!(goes_on(&mut anew, Stop::Syscall));
        assert_eq!((anew.coming(7), anew.coming(8)), (Coming::ToStop, Coming::Free));
        anew.is_heard(7);
        assert!(!goes_on(&mut anew, Stop::Syscall));
    }

    #[test]
    fn a_signal_comes_first() {
        for before in 0..3 {
            let mut anew = Anew::default();
            anew.is_sent_back(7);
            assert!([Stop::Started, Stop::Syscall][..before].iter().all(|&stop| goes_on(&mut anew, stop)));
            let meaning = anew.stopped(7, Stop::Signal { signal: 14 });
            assert_eq!(matches!(meaning, Meaning::Barred(MASK)), before == 1, "{meaning:?}");
            assert!(matches!(meaning, Meaning::None | Meaning::Barred(_)));
            assert_eq!(anew.coming(7), Coming::Free);
            assert!(!goes_on(&mut anew, Stop::Syscall));
        }
    }

    #[test]
    fn a_call_that_runs_is_over_at_whatever_stop() {
        for stop in [Stop::Started, Stop::Group, Stop::Signal { signal: 14 }, Stop::Killed { signal: 9 }] {
            let mut anew = Anew::default();
            anew.runs(7, changing());
            assert!(matches!(anew.stopped(7, stop), Meaning::Over(_)));
            assert!(matches!(anew.stopped(7, stop), Meaning::None));
        }
    }

    #[test]
    fn a_call_that_was_cut_short_is_not_let_run_again() {
        let mut anew = Anew::default();
        anew.is_cut_short(7);
        assert_eq!(anew.coming(7), Coming::CutShort);
        anew.is_heard(7);
        assert_eq!(anew.coming(7), Coming::Free);
    }

    proptest! {
        #[test]
        fn whatever_happens_a_task_that_ends_leaves_nothing(statuses in proptest::collection::vec(any::<i32>(), 0..20)) {
            let mut anew = Anew::default();
            anew.is_sent_back(7);
            for stop in statuses.into_iter().filter_map(crate::status::decode) {
                anew.stopped(7, stop);
            }
            anew.stopped(7, Stop::Exited { code: 0 });
            prop_assert!(anew.0.is_empty());
        }
    }
}
