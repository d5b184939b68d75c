//! What bounds the program is not to bound its tracer (`getrlimit(2)`): how large a file is that it writes, how long it
//! computes, how many descriptors it has.

use std::sync::{Mutex, OnceLock};

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, rlim_t, setrlimit};

use crate::listener::lock;

/// What is enough for a tracer.
const ENOUGH: [(Resource, rlim_t); 3] =
    [(Resource::RLIMIT_FSIZE, RLIM_INFINITY), (Resource::RLIMIT_CPU, RLIM_INFINITY), (Resource::RLIMIT_NOFILE, 1024)];

/// The limits, soft and hard, that this process was given, and that are the programs'.
static GIVEN: OnceLock<[Option<(rlim_t, rlim_t)>; ENOUGH.len()]> = OnceLock::new();

/// How many traces go on.
static TRACES: Mutex<usize> = Mutex::new(0);

/// As long as there is one of these, the limits of this process are lifted as far as it may.
#[derive(Debug)]
pub(crate) struct Lifted;

impl Lifted {
    pub(crate) fn new() -> Self {
        let mut traces = lock(&TRACES);
        *traces += 1;
        let given = GIVEN.get_or_init(|| ENOUGH.map(|(resource, _)| getrlimit(resource).ok()));
        for ((resource, enough), given) in ENOUGH.into_iter().zip(given) {
            let Some((soft, hard)) = *given else { continue };
            let wanted = soft.max(enough);
            // Beyond the hard limit only root gets.
            if setrlimit(resource, wanted, hard.max(wanted)).is_err() {
                // Then it stays as it is, which ends no run without a word.
                let _ = setrlimit(resource, wanted.min(hard), hard);
            }
        }
        Self
    }
}

impl Drop for Lifted {
    fn drop(&mut self) {
        let mut traces = lock(&TRACES);
        *traces -= 1;
        if *traces == 0 {
            restore();
        }
    }
}

/// Gives the calling process the limits that its tracer was given. Async-signal-safe: bare system calls and memory that was
/// made before.
pub(crate) fn restore() {
    for ((resource, _), given) in ENOUGH.into_iter().zip(GIVEN.get().into_iter().flatten()) {
        if let Some((soft, hard)) = *given {
            // Lower than they are, which is never refused.
            let _ = setrlimit(resource, soft, hard);
        }
    }
}
