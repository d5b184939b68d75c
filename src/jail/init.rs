//! PID 1 of a jail that runs a program: starts it, reaps orphans, forwards signals, ends as it ends.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::signal::Signal;
use nix::unistd::{AccessFlags, Pid, access, execve, setsid};

use super::error::{JailError, Word};
use super::supervise::{Senders, ended, forward, watch};
use super::sys;
use super::{Ended, Inside, Program};
use crate::path::escape;

/// Where a program without a `PATH` looks: what docker sets.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A [`Program`] as `execve(2)` wants it.
#[derive(Debug)]
pub(super) struct Command {
    argv: Vec<CString>,
    env: Vec<CString>,
    /// What to try to execute, in order.
    candidates: Vec<CString>,
    /// The first argument, for messages.
    name: String,
}

impl Command {
    pub(super) fn new(program: &Program) -> Result<Self, JailError> {
        let name = program.argv.first().ok_or(JailError::EmptyCommand)?.as_bytes();
        let argv = program.argv.iter().map(|argument| c_string(argument.as_bytes())).collect::<Result<_, _>>()?;
        let env = program.env.iter().map(|(name, value)| c_string(&[name.as_bytes(), b"=", value.as_bytes()].concat()));
        let env = env.collect::<Result<_, _>>()?;
        let path = program.env.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.as_bytes());
        let candidates = candidates(name, path.unwrap_or(DEFAULT_PATH)).into_iter().map(|path| c_string(&path));
        Ok(Self { argv, env, candidates: candidates.collect::<Result<_, _>>()?, name: escape(name) })
    }

    /// Tries the candidates as `execvp(3)` does; returns only if none can be executed.
    fn execute(&self) -> Word {
        let program = || self.name.clone();
        let mut refused = None;
        for candidate in &self.candidates {
            match execve(candidate, &self.argv, &self.env).expect_err("execve returns only when it fails") {
                // ENOENT also says that the interpreter of a script or an ELF file is missing (`execve(2)`, ERRORS).
                Errno::ENOENT if access(candidate.as_c_str(), AccessFlags::F_OK).is_ok() => {
                    return Word::NoInterpreter { program: escape(candidate.as_bytes()) };
                }
                Errno::ENOENT | Errno::ENOTDIR => {}
                Errno::EACCES => refused = Some(Errno::EACCES),
                errno => return Word::NotExecutable { program: program(), errno: errno as i32 },
            }
        }
        match refused {
            Some(errno) => Word::NotExecutable { program: program(), errno: errno as i32 },
            None => Word::NotFound { program: program() },
        }
    }
}

/// The body of PID 1. The watched signals are blocked.
pub(super) fn run(inside: &Inside<'_>, command: &Command) -> i32 {
    match serve(inside, command) {
        Ok(Ended::Exited(code)) => i32::from(code),
        Ok(Ended::Killed(signal)) => {
            inside.report.say(&Word::Killed(signal));
            128 + signal
        }
        Err((step, errno)) => {
            inside.report.say(&failed(step, errno));
            125
        }
    }
}

fn serve(inside: &Inside<'_>, command: &Command) -> Result<Ended, (&'static str, Errno)> {
    // PID 1 must hold nothing of the host's: the program may find it under /proc/1/fd.
    sys::close_others(inside.report.as_raw_fd()).map_err(|errno| ("close the caller's descriptors", errno))?;
    let watch = watch().map_err(|errno| ("watch signals", errno))?;
    let Some(program) = sys::copy(CloneFlags::empty()).map_err(|errno| ("start the program", errno))? else {
        inside.report.say(&become_program(inside, command));
        sys::exit(125)
    };
    // The program stays in the terminal's foreground process group. PID 1 leaves it: a signal to the group reaches the
    // program by itself, and need not come by this way too. What the terminal sent before, PID 1 has, and forwards. It leaves the session as
    // well: from another group of the same one, it would seem to be somebody who can wake the program (`kernel/exit.c`,
    // `will_become_orphaned_pgrp`), and Ctrl-Z would stop what nobody is there to wake.
    let _ = setsid();
    loop {
        while let Some((pid, status)) = sys::ended(Pid::from_raw(-1)).map_err(|errno| ("wait", errno))? {
            if pid == program {
                return Ok(ended(status));
            }
        }
        forward(&watch, program, Senders::Any).map_err(|errno| ("forward signals", errno))?;
    }
}

/// Takes the program's user and executes it; returns only if that cannot be done.
fn become_program(inside: &Inside<'_>, command: &Command) -> Word {
    if let Err(error) = inside.settle() {
        return failed("take the program's user", Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)));
    }
    // Rust's runtime ignores SIGPIPE; the program is to start with what programs start with.
    if let Err(errno) = sys::default_disposition(Signal::SIGPIPE) {
        return failed("reset SIGPIPE", errno);
    }
    if let Err(errno) = inside.before.restore() {
        return failed("restore the signals", errno);
    }
    command.execute()
}

fn failed(step: &str, errno: Errno) -> Word {
    Word::Failed { step: step.to_owned(), kind: super::error::Kind::Other, errno: errno as i32 }
}

/// What a name may mean: itself if it has a slash, else an entry in each directory of `path`, where an empty one is
/// the working directory.
fn candidates(name: &[u8], path: &[u8]) -> Vec<Vec<u8>> {
    if name.is_empty() || name.contains(&b'/') {
        return vec![name.to_vec()];
    }
    path.split(|&byte| byte == b':')
        .map(|at| if at.is_empty() { name.to_vec() } else { [at, b"/", name].concat() })
        .collect()
}

fn c_string(bytes: &[u8]) -> Result<CString, JailError> {
    CString::new(bytes).map_err(|_nul| JailError::Nul(escape(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_a_slash_are_looked_for() {
        assert_eq!(candidates(b"a", b"/bin::/x"), [b"/bin/a".to_vec(), b"a".to_vec(), b"/x/a".to_vec()]);
        assert_eq!(candidates(b"./a", b"/bin"), [b"./a".to_vec()]);
        assert_eq!(candidates(b"", b"/bin"), [b"".to_vec()]);
    }

    #[test]
    fn what_execve_cannot_take_is_refused() {
        let program = |argv: &[&str]| Program { argv: argv.iter().map(Into::into).collect(), env: Vec::new() };
        assert!(matches!(Command::new(&program(&[])), Err(JailError::EmptyCommand)));
        assert!(matches!(Command::new(&program(&["a", "b\0"])), Err(JailError::Nul(_))));
    }
}
