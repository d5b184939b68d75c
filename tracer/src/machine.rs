//! The tasks, and how each goes on after a stop. Pure.

use std::collections::{HashMap, HashSet};

use crate::status::Stop;

/// What is to be done with a task after a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It stands at the entry of a call: look at it, then let it go on.
    Examine { process: i32 },
    /// It runs a new program, alone in its process, which has its number and `was_threaded` before or not: look at that, then let
    /// it go on.
    Executed { was_threaded: bool },
    /// It has only just begun, or SIGCONT has woken it: let it go on.
    Start,
    /// It has made another one, for which it `waits`, or not: let it go on.
    Born { waits: bool },
    /// Its call is over: let it go on.
    Returned,
    /// Let it go on, with the signal if that is not 0.
    Resume { signal: i32 },
    /// Leave it stopped, but hear of SIGCONT (`PTRACE_LISTEN`).
    Listen,
    /// It is gone; so is its process, if `process` names one.
    Gone { process: Option<i32> },
}

/// How the program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Exited { code: i32 },
    Killed { signal: i32 },
}

/// Every task that is traced.
#[derive(Debug)]
pub(crate) struct Machine {
    /// From task to process (thread group).
    tasks: HashMap<i32, i32>,
    /// How many tasks each process has.
    threads: HashMap<i32, usize>,
    /// Tasks of the first process that stand in a group-stop.
    held: HashSet<i32>,
    main: i32,
    end: Option<End>,
}

impl Machine {
    /// Starts with the program's first task.
    pub(crate) fn new(main: i32) -> Self {
        let (tasks, threads) = (HashMap::from([(main, main)]), HashMap::from([(main, 1)]));
        Self { tasks, threads, held: HashSet::new(), main, end: None }
    }

    pub(crate) fn knows(&self, task: i32) -> bool {
        self.tasks.contains_key(&task)
    }

    /// The process that `task` is in.
    pub(crate) fn process_of(&self, task: i32) -> Option<i32> {
        self.tasks.get(&task).copied()
    }

    /// Takes in a task that has just stopped for the first time.
    pub(crate) fn adopt(&mut self, task: i32, process: i32) {
        if self.tasks.insert(task, process).is_none() {
            *self.threads.entry(process).or_default() += 1;
        }
    }

    /// True if `task` is in the program's first process.
    pub(crate) fn is_first(&self, task: i32) -> bool {
        self.process_of(task) == Some(self.main)
    }

    /// True if the program's first process stands in a group-stop, with all its threads: until then one of them may take what is
    /// meant for who goes on instead, as a line of the terminal. Its first thread may have ended long before the others: nobody hears
    /// of that, so `has_ended` is asked for it if it is the last one.
    pub(crate) fn has_stopped(&self, has_ended: impl FnOnce(i32) -> bool) -> bool {
        let count = self.threads.get(&self.main).copied().unwrap_or_default();
        match count.saturating_sub(self.held.len()) {
            _ if self.held.is_empty() => false,
            0 => true,
            1 => self.knows(self.main) && !self.held.contains(&self.main) && has_ended(self.main),
            _ => false,
        }
    }

    /// The processes that are there besides the program's first one, once for each of their tasks.
    pub(crate) fn others(&self) -> impl Iterator<Item = i32> {
        self.tasks.values().copied().filter(|&process| process != self.main)
    }

    /// True if nobody but one task is there.
    pub(crate) fn is_single(&self) -> bool {
        self.tasks.len() == 1
    }

    /// True if `process` has several threads.
    pub(crate) fn is_threaded(&self, process: i32) -> bool {
        self.threads.get(&process).is_some_and(|&count| count > 1)
    }

    /// The tasks of `process`.
    pub(crate) fn tasks_of(&self, process: i32) -> impl Iterator<Item = i32> {
        self.tasks.iter().filter(move |&(_, &of)| of == process).map(|(&task, _)| task)
    }

    /// How the program's first process ended, once it has.
    pub(crate) fn end(&self) -> Option<End> {
        self.end
    }

    /// The processes that are still there.
    pub(crate) fn processes(&self) -> std::collections::BTreeSet<i32> {
        self.tasks.values().copied().collect()
    }

    /// What to do after `task` has stopped.
    pub(crate) fn step(&mut self, task: i32, stop: Stop) -> Step {
        let known = self.tasks.get(&task).copied();
        let process = known.unwrap_or(task);
        if stop == Stop::Group && process == self.main {
            self.held.insert(task);
        } else {
            self.held.remove(&task);
        }
        match stop {
            Stop::Exited { code } => self.gone(task, known, End::Exited { code }),
            Stop::Killed { signal } => self.gone(task, known, End::Killed { signal }),
            Stop::Seccomp => Step::Examine { process },
            Stop::Exec => {
                // ptrace(2), "execve(2) under ptrace": every other thread is gone, and the task has the id of the
                // process, whichever thread called execve.
                self.tasks.retain(|_, &mut of| of != task);
                self.tasks.insert(task, task);
                self.held.retain(|held| self.tasks.contains_key(held));
                let was_threaded = self.threads.insert(task, 1) != Some(1);
                Step::Executed { was_threaded }
            }
            Stop::Signal { signal } => Step::Resume { signal },
            Stop::Group => Step::Listen,
            Stop::Started => Step::Start,
            Stop::NewTask { waits } => Step::Born { waits },
            Stop::Syscall => Step::Returned,
            Stop::Other => Step::Resume { signal: 0 },
        }
    }

    fn gone(&mut self, task: i32, process: Option<i32>, end: End) -> Step {
        if let Some(process) = self.tasks.remove(&task) {
            if let Some(count) = self.threads.get_mut(&process) {
                *count -= 1;
                if *count == 0 {
                    self.threads.remove(&process);
                }
            }
        }
        if task == self.main {
            self.end.get_or_insert(end);
        }
        // The status of a process's first task comes last, after all its other threads are gone. A task that nobody
        // knows was killed before it could be looked at: a thread, or a process that has done nothing.
        Step::Gone { process: process.filter(|&process| task == process) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The fuzzer goes on from these (`docs/fuzzing.md`).
    #[test]
    fn seeds_of_the_fuzzer() {
        let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/tasks");
        for seed in fs_err::read_dir(seeds).unwrap() {
            crate::tasks::tasks(&fs_err::read(seed.unwrap().path()).unwrap());
        }
    }

    /// The first process, 10, has the threads 11 and 12; 20 is another.
    fn three_threads_and_another() -> Machine {
        let mut machine = Machine::new(10);
        machine.adopt(11, 10);
        machine.adopt(12, 10);
        machine.adopt(20, 20);
        machine
    }

    #[test]
    fn stopped_stays_stopped_and_signals_pass() {
        let mut machine = Machine::new(10);
        assert_eq!(machine.step(10, Stop::Group), Step::Listen);
        assert_eq!(machine.step(10, Stop::Signal { signal: 34 }), Step::Resume { signal: 34 });
    }

    #[test]
    fn a_process_has_stopped_when_all_its_threads_have() {
        let mut machine = three_threads_and_another();
        let has_stopped = |machine: &Machine| machine.has_stopped(|_| false);
        assert!(!has_stopped(&machine));
        for (task, expected) in [(20, false), (10, false), (11, false), (12, true)] {
            machine.step(task, Stop::Group);
            assert_eq!(has_stopped(&machine), expected, "{task}");
        }
        machine.step(11, Stop::Started);
        assert!(!has_stopped(&machine));
        machine.step(11, Stop::Killed { signal: 9 });
        assert!(has_stopped(&machine), "nobody is left who has not");
    }

    #[test]
    fn a_process_has_stopped_without_its_first_thread_if_that_has_ended() {
        let mut machine = three_threads_and_another();
        let unasked = |_| panic!("others still run");
        assert!(!machine.has_stopped(unasked));
        machine.step(11, Stop::Group);
        assert!(!machine.has_stopped(unasked));
        machine.step(12, Stop::Group);
        assert!(!machine.has_stopped(|_| false) && machine.has_stopped(|task| task == 10));
        machine.step(12, Stop::Started);
        machine.step(10, Stop::Group);
        assert!(!machine.has_stopped(unasked), "the last one is not the first thread");
        machine.step(12, Stop::Group);
        assert!(machine.has_stopped(unasked));
    }

    #[test]
    fn exec_of_a_thread_leaves_one_task() {
        let mut machine = three_threads_and_another();
        assert!(machine.is_threaded(10) && !machine.is_threaded(20));
        assert_eq!(machine.step(10, Stop::Exec), Step::Executed { was_threaded: true });
        assert!(!machine.is_threaded(10));
        assert_eq!(machine.step(10, Stop::Exec), Step::Executed { was_threaded: false });
        assert!(machine.knows(10) && !machine.knows(11) && !machine.knows(12) && machine.knows(20));
    }

    #[test]
    fn the_first_process_gives_the_end() {
        let mut machine = Machine::new(10);
        machine.adopt(11, 10);
        machine.adopt(20, 20);
        assert_eq!(machine.step(11, Stop::Exited { code: 9 }), Step::Gone { process: None });
        assert_eq!(machine.end(), None);
        assert_eq!(machine.step(20, Stop::Killed { signal: 9 }), Step::Gone { process: Some(20) });
        assert_eq!(machine.step(10, Stop::Exited { code: 3 }), Step::Gone { process: Some(10) });
        assert_eq!(machine.end(), Some(End::Exited { code: 3 }));
        assert!(machine.processes().is_empty());
    }

    proptest! {
        #[test]
        fn any_sequence_of_statuses_resumes_every_living_task(stops in proptest::collection::vec((1..6i32, any::<i32>()), 0..200)) {
            let mut machine = Machine::new(1);
            for (task, status) in stops {
                let Some(stop) = crate::status::decode(status) else { continue };
                if !machine.knows(task) {
                    machine.adopt(task, 1 + (task - 1) / 2);
                }
                let step = machine.step(task, stop);
                let gone = matches!(stop, Stop::Exited { .. } | Stop::Killed { .. });
                prop_assert_eq!(matches!(step, Step::Gone { .. }), gone);
                prop_assert_eq!(machine.knows(task), !gone);
            }
        }
    }
}
