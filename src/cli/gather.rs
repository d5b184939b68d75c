//! Runs workloads where they have everything, until nothing new comes: what the image is built from.
//!
//! In: the workloads, and the ground that they run on. Out: one trace of all runs that brought something, how each workload did,
//! and what the runs say of the next one.

use std::path::Path;

use super::failure::Failure;
use super::packing::Prepared;
use super::prove::{Model, last_words, tell_last_words};
use super::rehearse::Rehearsal;
use crate::jail::Base;
use crate::report::coverage::{Coverage, Estimate};
use crate::root::Root;
use crate::trace::Trace;
use crate::workload::Outset;

/// Workloads whose runs do not become stable are repeated so often, and no more.
const MOST_TURNS: u32 = 50;

/// Where the workloads have everything that they may need.
pub(super) enum Ground<'a> {
    Host,
    /// An unpacked image, in a jail made of it.
    Tree {
        base: &'a Base,
        /// The unpacked files do not have the owners that the image says, as where an ordinary user has unpacked it.
        is_theirs: bool,
    },
}

/// What the runs came to.
pub(super) struct Gathered {
    pub(super) trace: Trace,
    /// How each workload did in its first run.
    pub(super) models: Vec<Model>,
    pub(super) estimate: Option<Estimate>,
}

/// Runs every workload once, and then, if `until_stable` is not 0, all of them again and again, until so many turns have
/// brought no new file.
pub(super) fn gather(
    rehearsals: &[Rehearsal<'_>],
    ground: &Ground<'_>,
    until_stable: u32,
    scratch: &Path,
    prepared: &Prepared,
) -> Result<Gathered, Failure> {
    // Those of one workload may make what another uses.
    let has_commands = rehearsals.iter().any(Rehearsal::has_commands);
    let since = has_commands.then(|| Outset::of(scratch)).transpose().map_err(Failure::new)?;
    let is_told = !prepared.quiet && !prepared.json;
    let mut gathered = Gathered { trace: Trace::default(), models: Vec::new(), estimate: None };
    let mut coverage = Coverage::default();
    let (mut quiet_turns, mut turn) = (0, 0);
    while turn == 0 || quiet_turns < until_stable {
        if turn > MOST_TURNS {
            say!("minjail: after {MOST_TURNS} repetitions the workloads still use new files now and then");
            break;
        }
        let mut new = 0;
        for (index, rehearsal) in rehearsals.iter().enumerate() {
            let target = scratch.join(format!("{turn}-{index}.trace"));
            let model = trace(rehearsal, ground, since.as_ref(), &target)?;
            let mut read = Trace::read(std::slice::from_ref(&target))?;
            if let Ground::Tree { base, is_theirs: true } = ground {
                read.owned_as_in(&Root::open(&base.tree)?)?;
            }
            let brought = coverage.add(&read.runs[0]);
            new += brought.new;
            if is_told && (turn == 0 || brought.new > 0) {
                say!("minjail: {brought}");
            }
            if turn == 0 {
                gathered.models.push(model);
            }
            // What brings nothing is not kept: it may have found changed what an earlier run has changed.
            if turn == 0 || brought.new > 0 {
                gathered.trace.runs.extend(read.runs);
                gathered.trace.store.extend(read.store);
            } else {
                fs_err::remove_dir_all(&target).map_err(Failure::new)?;
            }
        }
        turn += 1;
        quiet_turns = if new == 0 { quiet_turns + 1 } else { 0 };
    }
    gathered.trace.runs.sort();
    gathered.trace.runs.dedup();
    gathered.estimate = coverage.estimate();
    Ok(gathered)
}

/// Runs a workload where everything is there, and refuses one that does not even there do what its profile says.
fn trace(
    rehearsal: &Rehearsal<'_>,
    ground: &Ground<'_>,
    since: Option<&Outset>,
    target: &Path,
) -> Result<Model, Failure> {
    let observation = match ground {
        Ground::Host => rehearsal.on_host(target, since.cloned())?,
        Ground::Tree { base, .. } => rehearsal.in_jail(base, Some(target))?,
    };
    if observation.faults.is_empty() {
        return Ok(Model::of(&observation));
    }
    tell_last_words(&last_words(&observation));
    let faults: Vec<String> = observation.faults.iter().map(ToString::to_string).collect();
    let (place, hint) = match ground {
        Ground::Host => {
            ("on the host", "see that the program works, and that the profile says what it does; then build again")
        }
        Ground::Tree { .. } => (
            "in a jail of the whole image",
            "see that `minjail run` runs it; `--for 30s` lets a server run so long, and a profile, with `-p`, says when it is \
             ready and what to ask it",
        ),
    };
    let text = format!("the workload `{}` failed {place}: {}", rehearsal.header.workload, faults.join("; "));
    Err(Failure::usage(text).hint(hint))
}
