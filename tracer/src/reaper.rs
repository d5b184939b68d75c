//! Ends the processes that outlive the program.

use std::collections::BTreeSet;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use crate::sys;

/// How long a process has to obey SIGTERM once its grace is over.
const TERM: Duration = Duration::from_secs(2);

/// A clock that runs from the end of the program.
#[derive(Debug, Clone)]
pub(crate) struct Reaper {
    news: Sender<News>,
}

enum News {
    /// Which processes there are now.
    Alive(BTreeSet<i32>),
    /// Nobody wants to wait any more.
    Hurry,
}

impl Reaper {
    /// Ends what is left after `grace`: by SIGTERM, then by SIGKILL.
    pub(crate) fn start(grace: Duration) -> std::io::Result<Self> {
        let (news, told) = channel();
        std::thread::Builder::new().spawn(move || {
            let mut left = BTreeSet::new();
            for (wait, signal) in [(grace, libc::SIGTERM), (TERM, libc::SIGKILL)] {
                // Who waits longer than a clock goes waits for ever.
                let deadline = Instant::now().checked_add(wait);
                let left_of = |deadline: Instant| deadline.saturating_duration_since(Instant::now());
                loop {
                    match told.recv_timeout(deadline.map_or(Duration::MAX, left_of)) {
                        Ok(News::Alive(processes)) => left = processes,
                        Ok(News::Hurry) | Err(RecvTimeoutError::Timeout) => break,
                        Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
                for &process in &left {
                    sys::kill(process, signal);
                }
            }
            // Whatever was born since then was born by what SIGKILL had not reached yet.
            while let Ok(news) = told.recv() {
                let News::Alive(left) = news else { continue };
                for process in left {
                    sys::kill(process, libc::SIGKILL);
                }
            }
        })?;
        Ok(Self { news })
    }

    /// Which processes there are now.
    pub(crate) fn alive(&self, processes: BTreeSet<i32>) {
        // The thread ends only when its senders do.
        let _ = self.news.send(News::Alive(processes));
    }

    /// Goes on to the next signal now.
    pub(crate) fn hurry(&self) {
        let _ = self.news.send(News::Hurry);
    }
}
