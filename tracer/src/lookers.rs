//! Threads for what may have to wait.
//!
//! In: jobs. Each is taken up at once, by a thread that is free or by a new one: none waits for another, however long that
//! takes. A thread whose job never ends goes with the process; the others end when the [`Lookers`] are dropped.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

type Job = Box<dyn FnOnce() + Send>;

#[derive(Debug)]
pub(crate) struct Lookers {
    jobs: Sender<Job>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    jobs: Mutex<Receiver<Job>>,
    /// So many threads are done with what they were given.
    free: AtomicUsize,
}

impl Lookers {
    pub(crate) fn new() -> Self {
        let (jobs, theirs) = channel();
        Self { jobs, shared: Arc::new(Shared { jobs: Mutex::new(theirs), free: AtomicUsize::new(0) }) }
    }

    /// Has `job` done.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(crate) fn take_up(&self, job: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let one_less = |free: usize| free.checked_sub(1);
        if self.shared.free.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_err() {
            let shared = Arc::clone(&self.shared);
            std::thread::Builder::new().spawn(move || shared.work())?;
        }
        // The other end is here as well.
        let _ = self.jobs.send(Box::new(job));
        Ok(())
    }
}

impl Shared {
    fn work(&self) {
        loop {
            // Whoever holds the lock waits for a job, and the others for the lock: a job wakes one of them.
            let job = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(job) = job else { return };
            job();
            self.free.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_waits_for_another() {
        let lookers = Lookers::new();
        let (end, is_over) = channel::<()>();
        lookers.take_up(move || is_over.recv().unwrap()).unwrap();
        for round in 0..100 {
            let (tell, told) = channel();
            lookers.take_up(move || tell.send(round).unwrap()).unwrap();
            assert_eq!(told.recv(), Ok(round));
        }
        end.send(()).unwrap();
    }

    #[test]
    fn threads_are_used_again_and_end() {
        let lookers = Lookers::new();
        let (tell, told) = channel();
        for _ in 0..100 {
            let tell = tell.clone();
            lookers.take_up(move || tell.send(std::thread::current().id()).unwrap()).unwrap();
            told.recv().unwrap();
            while lookers.shared.free.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
        }
        assert_eq!(lookers.shared.free.load(Ordering::SeqCst), 1);
        let shared = Arc::downgrade(&lookers.shared);
        drop(lookers);
        while shared.upgrade().is_some() {
            std::thread::yield_now();
        }
    }
}
