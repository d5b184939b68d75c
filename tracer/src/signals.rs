//! Signals for the tracer are signals for the program.
//!
//! While a program is traced, a thread takes the signals that end a tracer and passes them on. What a terminal sends
//! reaches the whole process group anyway and is only kept from ending the tracer. The second one ends it at once; its
//! tasks go with it (`PTRACE_O_EXITKILL`).

use std::os::unix::thread::JoinHandleExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread::JoinHandle;

use crate::sys;

const PASSED: &[i32] = &[libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2];

/// Of these the second one ends the tracer.
const ENDING: &[i32] = &[libc::SIGINT, libc::SIGTERM, libc::SIGQUIT];

/// Passes signals on until dropped.
#[derive(Debug)]
pub(crate) struct Forwarding {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    before: libc::sigset_t,
}

#[derive(Debug, Default)]
struct Shared {
    /// To whom; 0 until the program is started.
    process: AtomicI32,
    over: AtomicBool,
}

impl Forwarding {
    /// Starts to take signals, for this process and all threads that are started from now on.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(crate) fn start() -> std::io::Result<Self> {
        let before = sys::block(PASSED);
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        match std::thread::Builder::new().spawn(move || forward(&theirs)) {
            Ok(thread) => Ok(Self { shared, thread: Some(thread), before }),
            Err(error) => {
                sys::set_mask(&before);
                Err(error)
            }
        }
    }

    /// The mask from before, with which the program is to start.
    pub(crate) fn mask(&self) -> &libc::sigset_t {
        &self.before
    }

    /// Passes signals on to `process` from now on.
    pub(crate) fn to(&self, process: i32) {
        self.shared.process.store(process, Ordering::SeqCst);
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            sys::kill_thread(thread.as_pthread_t(), libc::SIGUSR1);
            // The thread has no way to panic.
            let _ = thread.join();
        }
        sys::set_mask(&self.before);
    }
}

fn forward(shared: &Shared) {
    let mut ending = false;
    loop {
        let Some((signal, by_kernel)) = sys::wait_signal(PASSED) else { continue };
        if shared.over.load(Ordering::SeqCst) {
            return;
        }
        if ENDING.contains(&signal) {
            if ending {
                sys::exit_now(128 + signal);
            }
            ending = true;
        }
        let process = shared.process.load(Ordering::SeqCst);
        if !by_kernel && process != 0 {
            sys::kill(process, signal);
        }
    }
}
