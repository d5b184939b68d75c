//! Says for whom minjail still waits once the program has ended.
//!
//! In: the events of a run. Out: a line on standard error, if any process is left after a moment.

use std::collections::BTreeSet;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use minjail_tracer::Event;

use crate::path::escape;
use crate::profile::Seconds;

/// Most processes that outlive their parent end at once.
const MOMENT: Duration = Duration::from_secs(1);

/// So many are named.
const NAMED: usize = 3;

/// The processes of a run.
pub(super) struct Outliving {
    grace: Seconds,
    first: Option<i32>,
    alive: Arc<Mutex<BTreeSet<i32>>>,
    /// While it is there, the thread that will say who is left waits.
    wait: Option<Sender<()>>,
}

impl Outliving {
    pub(super) fn new(grace: Seconds) -> Self {
        Self { grace, first: None, alive: Arc::default(), wait: None }
    }

    pub(super) fn take(&mut self, event: &Event<'_>) {
        let mut alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        match *event {
            Event::Exec { process, .. } => {
                self.first.get_or_insert(process);
                alive.insert(process);
            }
            Event::Fork { child, .. } => {
                alive.insert(child);
            }
            Event::Exit { process } => {
                alive.remove(&process);
                if self.first == Some(process) && !alive.is_empty() {
                    drop(alive);
                    self.wait = Some(self.start());
                }
            }
            _ => {}
        }
    }

    fn start(&self) -> Sender<()> {
        let (wait, over) = channel();
        let (alive, Seconds(grace)) = (Arc::clone(&self.alive), self.grace);
        std::thread::spawn(move || {
            if over.recv_timeout(MOMENT) == Err(RecvTimeoutError::Timeout) {
                let left = alive.lock().unwrap_or_else(PoisonError::into_inner).clone();
                if !left.is_empty() {
                    say!("minjail: waiting up to {grace} s for {}, then ending it; Ctrl-C ends it now", names(&left));
                }
            }
        });
        wait
    }
}

/// What these processes are called (`proc(5)`, `/proc/pid/comm`).
fn names(processes: &BTreeSet<i32>) -> String {
    let name = |process: &i32| {
        let name = fs_err::read(format!("/proc/{process}/comm")).unwrap_or_default();
        format!("`{}` ({process})", escape(name.trim_ascii_end()))
    };
    let named: Vec<String> = processes.iter().take(NAMED).map(name).collect();
    let more = match processes.len().saturating_sub(NAMED) {
        0 => String::new(),
        count => format!(" and {count} more"),
    };
    format!("what outlives the program: {}{more}", named.join(", "))
}
