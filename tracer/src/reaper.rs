//! Ends the processes that outlive the program.

use std::collections::BTreeSet;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use crate::sys;

/// How long a process has to obey SIGTERM once its grace is over.
const TERM: Duration = Duration::from_secs(2);

/// A clock that runs from the end of the program.
pub(crate) struct Reaper {
    processes: Sender<BTreeSet<i32>>,
}

impl Reaper {
    /// Ends what is left after `grace`: by SIGTERM, then by SIGKILL.
    pub(crate) fn start(grace: Duration) -> std::io::Result<Self> {
        let (processes, alive) = channel::<BTreeSet<i32>>();
        std::thread::Builder::new().spawn(move || {
            let mut left = BTreeSet::new();
            for (wait, signal) in [(grace, libc::SIGTERM), (TERM, libc::SIGKILL)] {
                // Who waits longer than a clock goes waits for ever.
                let deadline = Instant::now().checked_add(wait);
                let left_of = |deadline: Instant| deadline.saturating_duration_since(Instant::now());
                loop {
                    match alive.recv_timeout(deadline.map_or(Duration::MAX, left_of)) {
                        Ok(processes) => left = processes,
                        Err(RecvTimeoutError::Timeout) => break,
                        Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
                for &process in &left {
                    sys::kill(process, signal);
                }
            }
            // Whatever was born since then was born by what SIGKILL had not reached yet.
            while let Ok(left) = alive.recv() {
                for process in left {
                    sys::kill(process, libc::SIGKILL);
                }
            }
        })?;
        Ok(Self { processes })
    }

    /// Which processes there are now.
    pub(crate) fn alive(&self, processes: BTreeSet<i32>) {
        // The thread ends only when this sender does.
        let _ = self.processes.send(processes);
    }
}
