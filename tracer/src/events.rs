//! What happens next: a task stops, a call waits, or something was foreseen.
//!
//! In: what the kernel has to tell of the tasks. Out: one thing at a time. What a status means is found out in
//! [`status`](crate::status).
//!
//! Nothing in the kernel waits for both a task's stop and a call that waits for its [listener](crate::listener), but `ppoll(2)`
//! waits for calls, and ends when a signal comes, as SIGCHLD does with each stop. So one thread hears of everything, in
//! turns, and nobody else may come between.
//!
//! Wait reports the first task of the kernel's list that has something to tell (`do_wait_thread` in `kernel/exit.c`).
//! Whoever takes one report at a time and resumes that task at once soon hears of it again, before those behind it: the
//! others stand still, and each stop costs two wake-ups, often across processors. So all that is there is taken before
//! the first task is resumed: none is passed over, and while the tracer looks at one task, others run.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags};
use nix::unistd::{pipe2, read, write};

use crate::TraceError;
use crate::foresight::{Foreseen, Looks};
use crate::listener::Listener;
use crate::lookers::Lookers;
use crate::status::{self, Stop};
use crate::sys::{self, Answer, Ears, WaitingCall};

/// What comes next.
#[derive(Debug)]
pub(crate) enum Next {
    /// A task and its raw status.
    Stop(i32, i32),
    /// A call that waits for an answer.
    Call(WaitingCall),
    /// What was foreseen, for whoever waits for that.
    Foreseen(Waiting, Foreseen),
    /// Nothing, in the time that was given.
    Nothing,
}

/// Who waits for looks.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Waiting {
    /// A task that stands at the entry of a call, by which looks.
    Stop(i32, u64),
    /// A call that waits for an answer.
    Call(WaitingCall),
}

/// After so many calls the tasks are asked for their stops, and all calls that wait are received, whatever else there is.
const CALLS_AT_ONCE: u32 = 8;

/// While more stops than so many are handed out, all calls that wait are received now and then.
const STOPS_AT_ONCE: usize = 8;

/// Where everything is heard of.
#[derive(Debug)]
pub(crate) struct Events {
    ears: Ears,
    /// Reports that were taken and not handed out yet, oldest first.
    taken: VecDeque<(i32, i32)>,
    listener: Option<Listener>,
    /// Calls that were received and not handed out yet, oldest first.
    received: VecDeque<WaitingCall>,
    /// For which calls looks are taken, each with its task.
    looked_for: Vec<(u64, i32)>,
    /// So many were handed out since the tasks were asked.
    calls: u32,
    answers: Sender<(Waiting, Foreseen)>,
    foreseen: Receiver<(Waiting, Foreseen)>,
    lookers: Lookers,
    /// Wakes who waits when something was foreseen.
    bell: OwnedFd,
    rope: Arc<OwnedFd>,
}

impl Events {
    /// For the calling thread, before it traces anybody.
    pub(crate) fn new() -> Result<Self, Errno> {
        let (answers, foreseen) = channel();
        let (bell, rope) = pipe2(OFlag::O_CLOEXEC)?;
        Ok(Self {
            ears: Ears::open()?,
            taken: VecDeque::new(),
            listener: None,
            received: VecDeque::new(),
            looked_for: Vec::new(),
            calls: 0,
            answers,
            foreseen,
            lookers: Lookers::new(),
            bell,
            rope: Arc::new(rope),
        })
    }

    /// Hears of the calls that wait for `listener` from now on.
    pub(crate) fn listen(&mut self, listener: Listener) {
        self.listener = Some(listener);
    }

    /// What comes next; blocks until there is something, or `at_most` so long.
    ///
    /// # Errors
    /// `ECHILD` if no task is left. What `waitpid(2)`, `ppoll(2)` and `seccomp_unotify(2)` say.
    pub(crate) fn next(&mut self, at_most: Option<Duration>) -> Result<Next, Errno> {
        loop {
            if let Some((task, status)) = self.taken.pop_front() {
                if status::decode(status) == Some(Stop::Exec) {
                    self.forget(task);
                }
                if self.taken.len() % STOPS_AT_ONCE == STOPS_AT_ONCE - 1 {
                    self.receive_all()?;
                }
                return Ok(Next::Stop(task, status));
            }
            if self.calls >= CALLS_AT_ONCE {
                self.ask_tasks()?;
                self.receive_all()?;
                // The bell rings for it as well, in vain then.
                if let Some(next) = self.foreseen() {
                    return Ok(next);
                }
            } else if let Some(call) = self.received.pop_front() {
                self.calls += 1;
                return Ok(Next::Call(call));
            } else if let Some(next) = self.wait(at_most)? {
                return Ok(next);
            }
        }
    }

    /// Waits until there is something, and takes it; what was foreseen is given back at once, and so is nothing.
    fn wait(&mut self, at_most: Option<Duration>) -> Result<Option<Next>, Errno> {
        let for_input = |descriptor| PollFd::new(descriptor, PollFlags::POLLIN);
        let calls = self.listener.as_ref().map_or(self.bell.as_fd(), Listener::calls);
        let mut waits = [for_input(self.bell.as_fd()), for_input(calls)];
        let count = 1 + usize::from(self.listener.is_some());
        match self.ears.wait(&mut waits[..count], at_most) {
            Err(Errno::EINTR) => return self.ask_tasks().map(|()| None),
            Ok(false) => return Ok(Some(Next::Nothing)),
            result => result?,
        };
        let [bell, calls] = waits.map(|wait| wait.revents().unwrap_or(PollFlags::empty()));
        if bell.contains(PollFlags::POLLIN) {
            read(&self.bell, &mut [0; 1])?;
            if let Some(next) = self.foreseen() {
                return Ok(Some(next));
            }
        }
        if count == 1 {
            return Ok(None);
        }
        if calls.contains(PollFlags::POLLIN) {
            self.receive()?;
        } else if calls.contains(PollFlags::POLLHUP) {
            // Nobody is left who could make one.
            self.listener = None;
        } else if calls.contains(PollFlags::POLLERR) {
            // A signal has come as the kernel looked (`seccomp_notify_poll` in `kernel/seccomp.c`).
            self.ask_tasks()?;
        }
        Ok(None)
    }

    /// What was foreseen, for who has not been forgotten.
    fn foreseen(&mut self) -> Option<Next> {
        let (who, foreseen) = self.foreseen.try_recv().ok()?;
        if let Waiting::Call(call) = who {
            let place = self.looked_for.iter().position(|&(id, _)| id == call.id)?;
            self.looked_for.swap_remove(place);
        }
        Some(Next::Foreseen(who, foreseen))
    }

    /// Takes a call that waits.
    fn receive(&mut self) -> Result<(), Errno> {
        let Some(listener) = &self.listener else { return Ok(()) };
        match listener.receive() {
            Ok(call) => self.received.push_back(call),
            // It is gone.
            Err(Errno::ENOENT | Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        Ok(())
    }

    /// `task` has executed something: what has waited was a call of the one that had its number before, which is gone (`ptrace(2)`,
    /// "execve(2) under ptrace").
    fn forget(&mut self, task: i32) {
        self.received.retain(|call| call.task != task);
        self.looked_for.retain(|&(_, who)| who != task);
    }

    /// Takes every call that waits: no signal ends it from then on, however long it waits for its turn.
    fn receive_all(&mut self) -> Result<(), Errno> {
        while self.has_waiting() {
            self.receive()?;
        }
        Ok(())
    }

    fn has_waiting(&self) -> bool {
        self.listener.as_ref().is_some_and(|listener| sys::has_input(listener.calls()))
    }

    /// Takes in the ends of all processes that have ended by now, so that their parents can wait for them.
    pub(crate) fn hear_ended(&mut self) -> Result<(), Errno> {
        match self.ask_tasks() {
            // Told when everything that is there was handed out.
            Err(Errno::ECHILD) => Ok(()),
            result => result,
        }
    }

    /// Takes all reports that are there.
    fn ask_tasks(&mut self) -> Result<(), Errno> {
        self.calls = 0;
        loop {
            match sys::poll_any() {
                Ok(Some(report)) => self.taken.push_back(report),
                Ok(None) => return Ok(()),
                Err(Errno::EINTR) => {}
                // That no task is left is told once the reports of the last ones are handed out.
                Err(Errno::ECHILD) if !self.taken.is_empty() => {
                    self.calls = CALLS_AT_ONCE;
                    return Ok(());
                }
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Answers a call that waits; it may be gone by now. `are_several`: there are others who may make calls.
    ///
    /// If this thread goes to sleep then, the task runs best where it is; if it goes on with another call, elsewhere.
    pub(crate) fn answer(&mut self, call: &WaitingCall, answer: Answer, are_several: bool) -> Result<(), Errno> {
        // One at a time keeps up with who comes back: each look costs as much as to receive one.
        if are_several && self.has_waiting() {
            self.receive()?;
        }
        if let Some(listener) = &mut self.listener {
            listener.answer(call, answer, self.received.is_empty());
        }
        Ok(())
    }

    /// Has looks taken for `who`, while everything else goes on.
    pub(crate) fn look(&mut self, looks: Looks, who: Waiting) -> Result<(), TraceError> {
        if let Waiting::Call(call) = who {
            self.looked_for.push((call.id, call.task));
        }
        let (answers, rope) = (self.answers.clone(), Arc::clone(&self.rope));
        let job = move || {
            // Nobody may be there any more to hear it.
            let _ = answers.send((who, looks.take()));
            let _ = write(&rope, b"!");
        };
        self.lookers.take_up(job).map_err(TraceError::Thread)
    }
}
