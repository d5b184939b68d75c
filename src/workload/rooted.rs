//! Traces a program in a jail of another root, with this process's own streams and signals, and without a director.
//!
//! In: a jail, a program, and where its trace goes. Out: how it ended. The caller must be single-threaded, as for every jail.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::ops::ControlFlow;
use std::path::Path;

use minjail_tracer::{Command, Credentials, Event, Options, SpawnError, TraceError};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::runner::{Door, RunError, chain, show_first_process};
use crate::jail::{self, Inside, Jail, User};
use crate::trace::{Ending, Header, Recorder, Tally};

/// What the jail's first process tells at its end.
#[derive(Serialize, Deserialize)]
enum Told {
    Ended(Ending, Tally),
    /// The kernel would not execute the program: the number of its error.
    NotExecuted(i32),
    Failed(String),
}

/// Runs `command` in `jail`, and keeps the trace of it at `target`.
///
/// # Errors
/// The jail cannot be made, or the program cannot be run in it.
pub fn trace_rooted(
    jail: &Jail,
    header: &Header,
    command: &Command,
    options: &Options,
    target: &Path,
) -> Result<(Ending, Tally), RunError> {
    let door = Door::open(&std::path::absolute(target).map_err(RunError::Speak)?)?;
    // A file and not a pipe, so that nobody need read while it is written.
    let told = tempfile::tempfile().map_err(RunError::Speak)?;
    jail::share_pipes();
    jail::enter(jail, |inside| {
        let word = match confined(inside, header, command, options, &door) {
            Ok((ending, tally)) => Told::Ended(ending, tally),
            Err(RunError::Trace(TraceError::Spawn(SpawnError::Exec { source, .. }))) => {
                Told::NotExecuted(source as i32)
            }
            Err(error) => Told::Failed(chain(&error)),
        };
        i32::from(serde_json::to_vec(&word).is_ok_and(|text| (&told).write_all(&text).is_err()))
    })?;
    match hear(told).map_err(RunError::Speak)? {
        Told::Ended(ending, tally) => Ok((ending, tally)),
        Told::NotExecuted(number) => {
            let (path, source) = (command.program.clone(), Errno::from_raw(number));
            Err(TraceError::from(SpawnError::Exec { path, source }).into())
        }
        Told::Failed(why) => Err(RunError::Inside(why)),
    }
}

fn hear(mut told: File) -> std::io::Result<Told> {
    let mut text = Vec::new();
    told.rewind()?;
    told.read_to_end(&mut text)?;
    if text.is_empty() {
        return Ok(Told::Failed("the jail's first process was killed".to_owned()));
    }
    Ok(serde_json::from_slice(&text)?)
}

/// The first process of the jail.
fn confined(
    inside: &Inside<'_>,
    header: &Header,
    command: &Command,
    options: &Options,
    door: &Door,
) -> Result<(Ending, Tally), RunError> {
    let header = Header { groups: inside.groups(), ..header.clone() };
    let mut recorder = Recorder::start(header, Path::new("/"), &door.path())?;
    let credentials = inside.user().map(|User { uid, gid, groups }| Credentials { uid, gid, groups });
    let command = Command { credentials, directory: None, ..command.clone() };
    let options = Options { confined: true, ..options.clone() };
    // As in a workload's jail: hidden again before the program could look.
    show_first_process(true)?;
    let mut is_hidden = false;
    let outcome = minjail_tracer::trace(&command, &options, &mut |event| {
        if !is_hidden && matches!(event, Event::Exec { .. }) {
            is_hidden = true;
            if show_first_process(false).is_err() {
                return ControlFlow::Break(());
            }
        }
        recorder.take(&event)
    });
    let ending = match outcome {
        Ok(outcome) => outcome.into(),
        Err(error) => return Err(recorder.failure().map_or_else(|| error.into(), RunError::Record)),
    };
    let tally = recorder.finish(ending, &door.target())?;
    Ok((ending, tally))
}
