//! From a run to a draft: whether it is a server, when it is ready, and which directories are its state.

use std::collections::{BTreeMap, BTreeSet};

use minjail_tracer::{Access, Protocol};

use super::draft::{Draft, Readiness};
use crate::path::{JailPath, unescape};
use crate::profile::StopSignal;
use crate::trace::{self, Ending, Found, Touch};

/// A run, and what its trace does not say.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    pub trace: &'a trace::Run,
    /// The signal with which the user ended it, if it did not end by itself.
    pub stopped_by: Option<i32>,
    /// After so many seconds it did nothing new.
    pub busy_seconds: u64,
    /// How long it took.
    pub seconds: u64,
    /// True if its profile will be built by root, who alone can give a run empty directories.
    pub is_root: bool,
}

/// No profile can be made of a run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeenError {
    #[error("the argument `{0}` is not UTF-8, and a profile must be")]
    Argument(String),
    #[error("the program {0}, and nobody had told it to: a workload ends by itself, with a status")]
    Killed(Ending),
    #[error("it is not known how the run ended")]
    NoEnding,
}

/// Where files come and go, and what the kernel makes up: nothing there is a program's state.
const NO_STATE: [&str; 6] = ["/tmp", "/var/tmp", "/run", "/proc", "/sys", "/dev"];

/// From here on the kernel hands out ports by itself (`ip(7)`, `ip_local_port_range`).
const EPHEMERAL: u16 = 32768;

/// What a profile takes a workload's time to be, if it does not say: a run of half of that is told of.
const USUAL_SECONDS: u64 = 60;

/// The draft that a run gives.
///
/// # Errors
/// See [`SeenError`].
pub fn seen(run: &Run<'_>, origin: &str) -> Result<Draft, SeenError> {
    let header = &run.trace.header;
    let text = |argument: &String| {
        let bytes = unescape(argument).and_then(|bytes| String::from_utf8(bytes).ok());
        bytes.ok_or_else(|| SeenError::Argument(argument.clone()))
    };
    let command = header.command.iter().map(text).collect::<Result<Vec<_>, _>>()?;
    let mut draft = Draft { origin: origin.to_owned(), env: header.env.clone(), ..Draft::default() };
    let used = header.optional.iter().filter(|(name, value)| run.trace.uses(name, value));
    draft.env.extend(used.map(|(name, value)| (name.clone(), value.clone())));
    let is_relative = command.first().is_some_and(|name| name.contains('/') && !name.starts_with('/'));
    if !header.directory.is_root() && (is_relative || is_used(&header.directory, &run.trace.touches)) {
        draft.cwd = Some(text(&header.directory.to_string())?);
    }
    ports(run, &command, &mut draft);
    end(run, &mut draft)?;
    state(run, &mut draft);
    draft.run = command;
    if run.seconds * 2 > USUAL_SECONDS {
        draft.timeout = Some(run.seconds.saturating_mul(3));
    }
    Ok(draft)
}

/// True if the run asked for the directory, or for something in it.
fn is_used(directory: &JailPath, touches: &[Touch]) -> bool {
    touches.iter().any(|touch| touch.path.starts_with(directory))
}

/// The ports at which it listened, but for those that the kernel chose.
fn ports(run: &Run<'_>, command: &[String], draft: &mut Draft) {
    for listening in &run.trace.listening {
        let port = listening.port;
        let is_named = || command.iter().any(|argument| argument.contains(&port.to_string()));
        if port >= EPHEMERAL && !is_named() {
            draft.notes.push(format!(
                "It also listened at port {port}, which is likely to be another one in each run, and is passed over here."
            ));
            continue;
        }
        match listening.protocol {
            Protocol::Tcp => {
                draft.tcp.insert(port);
            }
            Protocol::Udp => draft
                .notes
                .push(format!("It took datagrams at port {port}: a probe by a command can ask there, as `dig` does.")),
        }
    }
}

/// How it ended, and, for what was ended, by what one can tell that it is ready.
fn end(run: &Run<'_>, draft: &mut Draft) -> Result<(), SeenError> {
    let ending = run.trace.ending.ok_or(SeenError::NoEnding)?;
    if run.stopped_by.is_none() {
        draft.status = match ending {
            Ending::Exited(0) => None,
            Ending::Exited(status) => u8::try_from(status).ok(),
            Ending::Killed(_) => return Err(SeenError::Killed(ending)),
        };
        if let Some(port) = draft.tcp.first() {
            draft.notes.push(format!(
                "It listened at port {port} and ended by itself. If it is a server that goes on in the background, run it \
                 in the foreground, until Ctrl-C, and draft the profile again."
            ));
        }
        return Ok(());
    }
    let socket =
        run.trace.touches.iter().find(|touch| touch.access == Access::Bind).map(|touch| touch.path.to_string());
    draft.ready = Some(match (draft.tcp.first(), socket) {
        (Some(port), _) => Readiness::Port(*port),
        (None, Some(socket)) => Readiness::Socket(socket),
        (None, None) => Readiness::After(run.busy_seconds + 1),
    });
    draft.stop = Some(StopSignal::TERM);
    Ok(())
}

/// The directories in which it made files. What it also found files in may not be empty at its start.
fn state(run: &Run<'_>, draft: &mut Draft) {
    let touches = &run.trace.touches;
    let made: BTreeSet<&JailPath> = touches
        .iter()
        .filter(|touch| is_change(touch) && touch.found == Found::Missing)
        .map(|touch| &touch.path)
        .collect();
    let changed = touches.iter().filter(|touch| is_change(touch) && touch.refused.is_none());
    let homes: BTreeSet<JailPath> = changed
        .filter_map(|touch| touch.path.ancestors().find(|above| !made.contains(above)))
        .filter(|home| !home.is_root() && !NO_STATE.iter().any(|top| is_in(home, top)))
        .collect();
    let mut doubtful = BTreeMap::new();
    for home in &homes {
        let inside = |path: &JailPath| path.starts_with(home) && path != home;
        let found = touches.iter().find(|touch| {
            let was_there = touch.found != Found::Missing && !touch.made && !made.contains(&touch.path);
            was_there && inside(&touch.path)
        });
        let listed =
            touches.iter().find(|touch| touch.path == *home && touch.names.as_ref().is_some_and(|n| !n.is_empty()));
        let why = if inside(&run.trace.header.directory) {
            Some("it ran in a directory of that".to_owned())
        } else if let Some(found) = found {
            Some(format!("it found {} there", found.path))
        } else if listed.is_some() {
            Some("it saw what is in it".to_owned())
        } else if !run.is_root {
            Some("for each run an empty one, if root builds".to_owned())
        } else {
            None
        };
        match why {
            Some(why) => drop(doubtful.insert(home.to_string(), why)),
            None => drop(draft.state.insert(home.to_string())),
        }
    }
    draft.doubtful = doubtful;
}

fn is_change(touch: &Touch) -> bool {
    matches!(touch.access, Access::Write | Access::Create | Access::Remove | Access::Replace | Access::Bind)
}

fn is_in(path: &JailPath, top: &str) -> bool {
    path.as_bytes().strip_prefix(top.as_bytes()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}
