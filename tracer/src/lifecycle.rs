//! Tasks as they come, execute something else, and go.
//!
//! In: what the kernel tells of a task's beginning, of a program that it runs now, and of its end. Out: events; and everything
//! that is known by the task's number is taken over from its maker, begun anew or forgotten. What a task asks for on its way is
//! found out in [`inspect`](crate::inspect).

use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::engine::{Engine, alive};
use crate::event::{Event, Gap};
use crate::served::Lies;
use crate::{TraceError, arguments, door, look, proc, sys};

impl Engine<'_> {
    /// Takes in a task that nobody has heard of before; true if this is one.
    pub(crate) fn meet(&mut self, task: i32) -> Result<bool, TraceError> {
        if self.machine.knows(task) {
            return Ok(false);
        }
        // A task that is gone already has done nothing.
        let Some((process, parent)) = proc::family(task) else { return Ok(false) };
        self.adopt(task, process);
        let kin = if process == task { parent } else { process };
        self.own_filters.take_after(task, self.machine.tasks_of(kin));
        if process == task {
            self.races.born(task, parent, parent);
            self.tell(Event::Fork { parent, child: process })?;
        }
        Ok(true)
    }

    /// Looks at what `task` has open as it is about to run the program.
    pub(crate) fn begin(&mut self, task: i32) -> Result<(), TraceError> {
        let given: Vec<String> = door::given(task).collect();
        self.places.start(task, &given);
        for text in given.iter().filter_map(|door| look::target(door.as_bytes()).ok()) {
            match text.as_slice() {
                b"anon_inode:[io_uring]" => self.gap(task, Gap::IoUring)?,
                b"/dev/fuse" => self.places.served.expect(),
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes in the task that `maker` has just made, and that nobody has heard of before. Neither needs a look into /proc: a new
    /// process is its maker's child, and a new thread is in its maker's process.
    fn welcome(&mut self, task: i32, maker: i32) -> Result<(), TraceError> {
        let Some(parent) = self.machine.process_of(maker) else { return self.meet(task).map(drop) };
        // Another thread may have asked for a view of its own, in the memory that `clone3` reads.
        if self.machine.is_threaded(parent) && self.places.compare_namespaces(maker, task).is_err() {
            self.gap(parent, Gap::MountNamespace)?;
        }
        if self.known.is_settled() {
            self.places.inherit(maker, task);
        }
        if !sys::is_process(task) {
            self.adopt(task, parent);
            return Ok(());
        }
        self.adopt(task, task);
        if self.races.born(task, maker, parent) {
            self.places.maps.lend(maker, task);
        }
        self.tell(Event::Fork { parent, child: task })
    }

    fn adopt(&mut self, task: i32, process: i32) {
        // One that had the number and was gone when another thread executed something was gone without a word.
        self.races.remove(task);
        self.own_filters.remove(task);
        self.machine.adopt(task, process);
    }

    /// `process` runs a new program, alone, whether it `was_threaded` before or not.
    pub(crate) fn runs_anew(&mut self, process: i32, was_threaded: bool) -> Result<(), TraceError> {
        self.executed = true;
        self.moved_before(process)?;
        self.free_orphans()?;
        let raced = self.raced_before(process, was_threaded)?;
        self.places.executed(process, was_threaded);
        let table = self.places.served.table().cloned();
        let loaded = self.places.maps.files(process, table.as_deref());
        let is_served = |path: &&Vec<u8>| table.as_ref().is_some_and(|table| table.lies(path) != Lies::Elsewhere);
        let mut apart: Vec<Vec<u8>> = loaded.iter().filter(is_served).cloned().collect();
        let arguments = arguments::of(process);
        raced.map_or(Ok(()), |raced| self.verify_executed(process, raced))?;
        apart.extend(self.has_executed(process, &arguments, &loaded)?);
        let (loaded, given) = self.given_files(process, loaded);
        apart.extend(given);
        self.tell(Event::Exec { process, arguments, loaded, apart })
    }

    /// `task` has only just begun, or SIGCONT has woken it.
    pub(crate) fn starts_to_run(&mut self, task: i32) -> Result<(), TraceError> {
        // Before or after its maker's stop: it is still with its maker's, or already under its own name.
        let own = self.retraced.remove(&task);
        if self.machine.is_first(task) {
            self.signals.goes_on();
        }
        if self.machine.process_of(task).is_some_and(|process| process != task) {
            self.races.stacks.start(task);
        }
        for retraced in own.iter().chain(self.retraced.values()) {
            alive("restore the clone flags of", task, retraced.undo(task))?;
        }
        Ok(())
    }

    /// `maker` has made `child`, for which it `waits`, or not.
    pub(crate) fn born(&mut self, child: i32, maker: i32, waits: bool) -> Result<(), TraceError> {
        if self.machine.knows(child) {
            // It was taken for made by its parent, which need not be its maker (`CLONE_PARENT`).
            let is_process = self.machine.process_of(child) == Some(child);
            if let Some(process) = self.machine.process_of(maker).filter(|_| is_process) {
                self.races.born(child, maker, process);
            }
        } else if sys::is_awaited(child) {
            self.welcome(child, maker)?;
            if let Some(&retraced) = self.retraced.get(&maker) {
                self.retraced.insert(child, retraced);
            }
        } else {
            // A maker that is kept from its processor may be heard of after the end of what it has made.
            return Ok(());
        }
        self.own_filters.inherit(child, maker);
        self.made(child, maker);
        if waits {
            self.lent(child, maker);
        }
        if self.own_filters.claim(child) { self.go_on(child) } else { Ok(()) }
    }

    /// Lets those go on that wait for their maker to be heard of: it may have been killed.
    fn free_orphans(&mut self) -> Result<(), TraceError> {
        self.own_filters.orphans().into_iter().try_for_each(|task| self.go_on(task))
    }

    /// `task` is gone; so is its process, if `process` names one.
    pub(crate) fn gone(&mut self, task: i32, process: Option<i32>) -> Result<(), TraceError> {
        self.moved(task, |_| None)?;
        self.turns.leave(task);
        self.places.remove(task);
        self.races.remove(task);
        self.own_filters.remove(task);
        self.retraced.remove(&task);
        self.never_returns(task)?;
        self.heard.remove(&task);
        self.free_orphans()?;
        match process {
            Some(process) => {
                self.tell_datagrams(Some(process))?;
                self.programs.remove(&process);
                self.tell(Event::Exit { process })
            }
            None => Ok(()),
        }
    }

    /// If the call of `task` was one that gives something another name, that is over, and `has` done so, or not; or nobody can tell.
    pub(crate) fn moved(&mut self, task: i32, has: impl FnOnce(i32) -> Option<bool>) -> Result<(), TraceError> {
        if !self.moving.remove(&task) {
            return Ok(());
        }
        self.turns.end(task);
        let has = has(task);
        let process = self.machine.process_of(task).unwrap_or(task);
        self.tell(Event::Moved { task, process, has })
    }

    /// The same for who was gone without a word when what is now `task` executed something: other threads, and the one that had
    /// this number.
    fn moved_before(&mut self, task: i32) -> Result<(), TraceError> {
        let is_gone = |other: &i32| *other == task || !self.machine.knows(*other);
        let gone: Vec<i32> = self.moving.iter().copied().filter(is_gone).collect();
        gone.into_iter().try_for_each(|gone| self.moved(gone, |_| None))
    }

    /// Ends everything that is traced; `failure`, with what is still there if anything is.
    pub(crate) fn give_up(&mut self, failure: TraceError) -> TraceError {
        match self.kill_all() {
            Some(process) => TraceError::Left { process, source: Box::new(failure) },
            None => failure,
        }
    }

    /// Ends everything that is traced, and waits until it is gone; a process that is not, after [`PATIENCE`].
    fn kill_all(&mut self) -> Option<i32> {
        let mut left = self.machine.processes();
        for &process in &left {
            kill(process);
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            match sys::poll_any() {
                Ok(Some((task, status))) if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) => {
                    left.remove(&task);
                }
                // A task born in the meantime, or one that has only just stopped.
                Ok(Some((task, _))) => kill(task),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
                Ok(None) => return left.pop_first(),
                Err(Errno::EINTR) => {}
                Err(_) => return None,
            }
        }
    }
}

/// So long is waited for tasks that were killed: one may be in a call that nothing ends, as on a network's file system. It
/// ends when it returns, and no later than this process by `PTRACE_O_EXITKILL`.
const PATIENCE: Duration = Duration::from_secs(5);

/// Kills a task of ours, also one of another user, whom `kill(2)` may refuse.
fn kill(task: i32) {
    sys::kill(task, libc::SIGKILL);
    sys::kill_traced(task);
}
