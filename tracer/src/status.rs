//! Raw wait statuses, decoded.
//!
//! nix's `WaitStatus` has no place for real-time signals: it fails on them after the status is gone.

/// What a wait status says, after `ptrace(2)` for tasks that were seized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The task is gone.
    Exited { code: i32 },
    /// A signal killed it.
    Killed { signal: i32 },
    /// A filter returned `SECCOMP_RET_TRACE`: the task stands at the entry of a call.
    Seccomp,
    /// At the exit of a call that was resumed with `PTRACE_SYSCALL`.
    Syscall,
    /// A new program was executed; the task has the process's id now.
    Exec,
    /// The task has made another one, and does nothing until that one executes something or ends, if it `waits` (`vfork(2)`).
    NewTask { waits: bool },
    /// `signal` is about to be delivered.
    Signal { signal: i32 },
    /// A stopping signal has stopped the task.
    Group,
    /// A task that is traced from its birth on, or one that SIGCONT woke.
    Started,
    /// A stop that asks for nothing.
    Other,
}

/// Decodes what `waitpid(2)` gave; `None` for a status that no task of ours can have.
pub(crate) fn decode(status: i32) -> Option<Stop> {
    if libc::WIFEXITED(status) {
        return Some(Stop::Exited { code: libc::WEXITSTATUS(status) });
    }
    if libc::WIFSIGNALED(status) {
        return Some(Stop::Killed { signal: libc::WTERMSIG(status) });
    }
    if !libc::WIFSTOPPED(status) {
        return None;
    }
    let signal = libc::WSTOPSIG(status);
    Some(match status >> 16 {
        0 if signal == libc::SIGTRAP | 0x80 => Stop::Syscall,
        0 => Stop::Signal { signal },
        libc::PTRACE_EVENT_SECCOMP => Stop::Seccomp,
        libc::PTRACE_EVENT_EXEC => Stop::Exec,
        libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_CLONE => Stop::NewTask { waits: false },
        libc::PTRACE_EVENT_VFORK => Stop::NewTask { waits: true },
        // ptrace(2), "Group-stop": a seized task reports it as PTRACE_EVENT_STOP with the stopping signal.
        libc::PTRACE_EVENT_STOP if signal != libc::SIGTRAP => Stop::Group,
        libc::PTRACE_EVENT_STOP => Stop::Started,
        _ => Stop::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn stopped(signal: i32, event: i32) -> i32 {
        0x7f | signal << 8 | event << 16
    }

    #[test]
    fn real_time_signals_are_signals() {
        for signal in 1..=64 {
            assert_eq!(decode(stopped(signal, 0)), Some(Stop::Signal { signal }));
        }
        assert_eq!(decode(64), Some(Stop::Killed { signal: 64 }));
    }

    #[test]
    fn group_stops_are_no_signals() {
        assert_eq!(decode(stopped(libc::SIGTSTP, libc::PTRACE_EVENT_STOP)), Some(Stop::Group));
        assert_eq!(decode(stopped(libc::SIGTRAP, libc::PTRACE_EVENT_STOP)), Some(Stop::Started));
    }

    #[test]
    fn ends() {
        assert_eq!(decode(3 << 8), Some(Stop::Exited { code: 3 }));
        assert_eq!(decode(libc::SIGSEGV | 0x80), Some(Stop::Killed { signal: libc::SIGSEGV }));
        assert_eq!(decode(0xffff), None);
    }

    proptest! {
        #[test]
        fn any_status_is_decoded_without_a_panic(status: i32) {
            let _ = decode(status);
        }
    }
}
