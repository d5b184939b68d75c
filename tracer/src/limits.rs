//! What bounds the program is not to bound its tracer (`getrlimit(2)`): how large a file is that it writes, how long it
//! computes, how many descriptors it has.

use std::sync::OnceLock;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, rlim_t, setrlimit};

use crate::sys;

/// What is enough for a tracer.
const ENOUGH: [(Resource, rlim_t); 3] =
    [(Resource::RLIMIT_FSIZE, RLIM_INFINITY), (Resource::RLIMIT_CPU, RLIM_INFINITY), (Resource::RLIMIT_NOFILE, 1024)];

/// So many of what the tracer may have open are for one kind of files that are [held](crate::held) open: a sixteenth.
pub(crate) fn most_held() -> usize {
    static MOST: OnceLock<usize> = OnceLock::new();
    *MOST.get_or_init(|| {
        let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or_default();
        usize::try_from(soft / 16).unwrap_or(usize::MAX).clamp(1, 64)
    })
}

/// The limits, soft and hard, that this process was given, and that are the programs'.
static GIVEN: OnceLock<[Option<(rlim_t, rlim_t)>; ENOUGH.len()]> = OnceLock::new();

/// Lifts the limits of this process, as far as it may, for good: it has more to do once the program has ended, and what it
/// has computed until then counts. [`trace`](crate::trace) does it itself.
pub fn lift() {
    let given = GIVEN.get_or_init(|| ENOUGH.map(|(resource, _)| getrlimit(resource).ok()));
    for ((resource, enough), given) in ENOUGH.into_iter().zip(given) {
        let Some((soft, hard)) = *given else { continue };
        let wanted = soft.max(enough);
        // Beyond the hard limit only root gets; then it stays as it is.
        if setrlimit(resource, wanted, hard.max(wanted)).is_err() {
            let _ = setrlimit(resource, wanted.min(hard), hard);
        }
    }
}

/// From now on this process is told when it writes more than a file may have (EFBIG of `write(2)`), and not ended by SIGXFSZ.
pub fn fail_beyond() {
    sys::bear_file_limit();
}

/// Gives the calling process, a child of one that traces, the limits that its parent was given. Async-signal-safe: bare
/// system calls and memory that was made before.
pub fn restore() {
    for ((resource, _), given) in ENOUGH.into_iter().zip(GIVEN.get().into_iter().flatten()) {
        if let Some((soft, hard)) = *given {
            // Lower than they are, which is never refused.
            let _ = setrlimit(resource, soft, hard);
        }
    }
}
