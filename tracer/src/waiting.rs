//! Calls that wait for an answer, looked into and answered.
//!
//! In: such a call, or a stop of a task that has made one. Out: its answer; what it asks for is told as ever (see
//! [`inspect`](crate::inspect)). Which calls these are, and why, says [`listener`](crate::listener).

use std::os::fd::AsFd;

use nix::errno::Errno;

use crate::TraceError;
use crate::anew::{Coming, Meaning};
use crate::engine::{Engine, Verdict, alive};
use crate::event::Gap;
use crate::events::{Events, Waiting};
use crate::foresight::{Foreseen, Looks};
use crate::proc;
use crate::retrace::{self, Returned};
use crate::status::Stop;
use crate::sys::{self, Answer, WaitingCall};

/// How a call that waits for its listener goes on.
#[derive(Debug)]
enum Heard {
    Answer(Answer),
    /// The same, once its task was told to stop as it leaves the kernel.
    Stop(Answer),
    Wait(Looks),
}

impl Engine<'_> {
    /// Takes in a call that waits, of which this much was foreseen.
    pub(crate) fn called(
        &mut self,
        events: &mut Events,
        call: &WaitingCall,
        foreseen: Option<Foreseen>,
    ) -> Result<(), TraceError> {
        let are_several = !self.machine.is_single();
        if self.asks_for_ended(call) {
            // Whoever knows of a child's end, as from a pidfd, before it hears of it by a signal, is to hear of it here: a
            // process whose end is not told to its tracer is none that its parent could wait for (`wait_consider_task` in `kernel/exit.c`).
            events.hear_ended().map_err(TraceError::Wait)?;
        }
        match self.hear(call, foreseen)? {
            Heard::Answer(answer) => events.answer(call, answer, are_several).map_err(TraceError::Wait)?,
            Heard::Stop(answer) => {
                // Pending before it goes on. It fails for a task that is gone, or is about to be.
                let answer = sys::interrupt(call.task).map_or(Answer::Run, |()| answer);
                events.answer(call, answer, are_several).map_err(TraceError::Wait)?;
            }
            Heard::Wait(looks) => events.look(looks, Waiting::Call(*call))?,
        }
        Ok(())
    }

    fn asks_for_ended(&self, call: &WaitingCall) -> bool {
        let called = self.tables.get(&call.arch).and_then(|(_, table)| table.get(call.number));
        called.is_some_and(|known| known.asks_for_ended(&call.arguments))
    }

    fn hear(&mut self, call: &WaitingCall, foreseen: Option<Foreseen>) -> Result<Heard, TraceError> {
        self.settle(call.task)?;
        let Some(process) = self.machine.process_of(call.task) else {
            self.hear_stranger(call)?;
            return Ok(Heard::Answer(Answer::Run));
        };
        let is_foreseen = foreseen.is_some();
        if let Some(foreseen) = foreseen {
            self.walker.foreseen = foreseen;
        }
        let verdict = self.listen(call, process);
        if is_foreseen {
            self.walker.foreseen = Foreseen::default();
        }
        let verdict = match verdict? {
            Verdict::Wait(looks) => return Ok(Heard::Wait(looks)),
            verdict => verdict,
        };
        self.heard.remove(&call.task);
        let coming = self.anew.coming(call.task);
        self.anew.is_heard(call.task);
        if matches!(verdict, Verdict::Verify(_)) && self.is_overtaken(call.task, process, Some(call.id)) {
            return Ok(Heard::Answer(Answer::Run));
        }
        Ok(match verdict {
            Verdict::Verify(raced) if coming == Coming::ToStop => {
                // Whatever the call turns out to open: if a signal ends it from here on, then as it would without a tracer.
                if let Some((abi, _)) = self.tables.get(&call.arch) {
                    self.heard.insert(call.task, (call.number, abi.arguments(call.arguments)));
                }
                self.raced.insert(call.task, raced);
                Heard::Answer(Answer::Run)
            }
            Verdict::Verify(raced) if coming == Coming::Free && self.runs_through(&raced) => {
                self.anew.runs(call.task, raced);
                Heard::Stop(Answer::Run)
            }
            Verdict::Verify(_) => {
                self.anew.is_sent_back(call.task);
                Heard::Stop(Answer::SendBack)
            }
            Verdict::Refuse | Verdict::Retrace(_) => Heard::Answer(Answer::Refuse(Errno::ENOSYS)),
            Verdict::Run | Verdict::Leave | Verdict::Wait(_) => Heard::Answer(Answer::Run),
        })
    }

    /// A call of a task that nobody knows. It is gone, unless another thread has rewritten the flags of the `clone3` that has made it
    /// (`CLONE_UNTRACED`, `clone(2)`): then neither it nor what it makes stops for anything.
    fn hear_stranger(&mut self, call: &WaitingCall) -> Result<(), TraceError> {
        let family = proc::family(call.task);
        // Asked afterwards: of who is there, and cannot be looked at, that is all that is known.
        if !self.calls.as_ref().is_some_and(|calls| sys::still_waits(calls.as_fd(), call.id)) {
            return Ok(());
        }
        let (process, maker) = family.unwrap_or((call.task, call.task));
        if self.known.is_new(("unknown", process)) { self.gap(maker, Gap::Untraced) } else { Ok(()) }
    }

    /// A call at which a signal has stopped `task` begins anew after it: it waited for its listener until then. One that was
    /// heard of, and waited for others, as the opening of a FIFO does, is left to the kernel.
    pub(crate) fn mend(&mut self, task: i32) -> Result<(), TraceError> {
        let call = match retrace::cut_short(task, &self.tables) {
            Ok(Some(call)) => call,
            Ok(None) | Err(Errno::ESRCH) => return Ok(()),
            Err(source) => return Err(TraceError::Ptrace { step: "mend the call of", task, source }),
        };
        if self.heard.get(&task) == Some(&call) {
            return Ok(());
        }
        alive("mend the call of", task, retrace::restart(task))
    }

    /// Keeps signals from `task` until it stops the next time, at the entry of its call.
    fn mask(&mut self, task: i32) -> Result<(), TraceError> {
        let changed = sys::signal_mask(task).and_then(|mask| {
            sys::set_signal_mask(task, u64::MAX)?;
            self.anew.is_masked(task, mask);
            Ok(())
        });
        alive("mask the signals of", task, changed)
    }

    /// Takes in a stop of a task whose call is to be heard of when it returns; true if that is all that the stop is for.
    pub(crate) fn is_on_the_way(&mut self, task: i32, stop: Stop) -> Result<bool, TraceError> {
        match self.anew.stopped(task, stop) {
            Meaning::None => {}
            Meaning::Leaving => {
                self.mask(task)?;
                return alive("resume", task, sys::resume_to_return(task)).map(|()| true);
            }
            Meaning::Entering(mask) => {
                unmask(task, mask)?;
                return alive("resume", task, sys::resume_to_return(task)).map(|()| true);
            }
            Meaning::Barred(mask) => unmask(task, mask)?,
            Meaning::Over(raced) => match retrace::result(task) {
                Ok(Returned::Again) => self.anew.is_cut_short(task),
                Ok(Returned::Value(value)) => self.verify(raced, value)?,
                // It is gone.
                Err(_) => {}
            },
        }
        if !self.heard.is_empty() && !is_still_ended(task, stop) {
            self.heard.remove(&task);
        }
        Ok(false)
    }
}

fn unmask(task: i32, mask: u64) -> Result<(), TraceError> {
    alive("unmask the signals of", task, sys::set_signal_mask(task, mask))
}

/// True if `task` is between the signal that has ended its call and what it does next.
fn is_still_ended(task: i32, stop: Stop) -> bool {
    match stop {
        Stop::Signal { .. } => true,
        // A signal may have stopped it there, and SIGCONT woken it, and the one that is meant is still to come.
        Stop::Syscall | Stop::Group | Stop::Started => retrace::result(task) == Ok(Returned::Again),
        _ => false,
    }
}
