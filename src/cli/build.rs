//! `minjail build`: images from a profile, whose workloads are run, from saved traces, or from a lock.

use std::ffi::OsString;
use std::path::PathBuf;

use super::apart::{keep_apart_from, keep_apart_from_profile};
use super::engine::Tool;
use super::exit::Exit;
use super::failure::Failure;
use super::gather::Ground;
use super::locked;
use super::original::Original;
use super::pack::{Draft, Needed};
use super::packing::{Packing, Prepared};
use super::profile;
use super::proven::{self, Proving};
use super::rehearse::Rehearsal;
use crate::profile::{Image, Profile, StopSignal};
use crate::report::coverage::Coverage;
use crate::trace::Trace;

/// Build images from a profile: trace its workloads, build, and run them again in a jail. Or from saved traces
///
/// Several traces are merged, and the first one says how the image is run.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A profile: a file, or one of `minjail profile list`
    #[arg(value_name = "PROFILE", conflicts_with_all = ["traces", "locked", "root"])]
    profile: Option<String>,

    /// A trace that `minjail trace` has written
    #[arg(short, long = "trace", value_name = "DIR")]
    pub(super) traces: Vec<PathBuf>,

    /// Build what this lock says, byte for byte, from the traces or from the lock alone; if anything differs, say what
    /// and build nothing
    #[arg(long, value_name = "LOCK", conflicts_with_all = ["compression", "layers", "mtime", "rules"])]
    locked: Option<PathBuf>,

    /// The directory that plays `/`, or the image that was slimmed, as `oci:DIR` [default: what was traced; for a lock
    /// alone, `/`]
    #[arg(long, value_name = "DIR-OR-IMAGE")]
    root: Option<OsString>,

    #[command(flatten)]
    pub(super) packing: Packing,

    /// Repeat all workloads until so many repetitions in a row use no new file; at most 50 times
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, conflicts_with_all = ["traces", "locked"])]
    until_stable: u32,

    /// Do not run the workloads in a jail; the lock says so
    #[arg(long, conflicts_with_all = ["traces", "locked", "repair", "keep_failed"])]
    no_verify: bool,

    /// Let this run the image too, before it is written; may be given several times
    #[arg(long, value_name = "ENGINE", conflicts_with_all = ["traces", "locked", "no_verify"])]
    verify_with: Vec<Tool>,

    /// If a workload fails in the jail, add what it missed and try again
    #[arg(long, conflicts_with_all = ["traces", "locked"])]
    repair: bool,

    /// How often to try, at most
    #[arg(long, value_name = "N", default_value_t = 10, requires = "repair", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Keep the trace of what was run, for `minjail why-not` and `minjail why`; an older trace there is replaced
    #[arg(long, value_name = "DIR", conflicts_with_all = ["traces", "locked"])]
    keep_trace: Option<PathBuf>,

    /// If a workload fails in the jail, leave the tree beside each output, with `.failed` at the end
    #[arg(long, conflicts_with_all = ["traces", "locked"])]
    keep_failed: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    if arguments.profile.is_none() && arguments.locked.is_none() && arguments.traces.is_empty() {
        return Err(Failure::usage("nothing to build from: no profile, trace or lock is named").hint(
            "name a profile, as `minjail build app.yaml`, or a trace with `-t TRACE`, or a lock with `--locked LOCK`",
        ));
    }
    let profile = arguments.profile.as_deref().map(profile::load).transpose()?;
    let files = profile.as_ref().map(|profile| profile.files.clone()).unwrap_or_default();
    arguments.packing.refuse_kept_layers()?;
    let prepared = arguments.packing.prepare_for(&files, arguments.locked.as_deref())?;
    prepared.outputs.require_image()?;
    let original = arguments.root.as_deref().map(|named| Original::open(named, prepared.quiet)).transpose()?;
    if let Some(original) = &original {
        original.keep_apart(prepared.outputs.places())?;
    }
    if let Some(name) = &arguments.profile {
        keep_apart_from_profile(name, prepared.outputs.places())?;
    }
    for read in arguments.traces.iter().chain(&arguments.locked) {
        keep_apart_from(read, prepared.outputs.places())?;
    }
    match (&arguments.locked, &profile) {
        (Some(lock), _) => locked::build(lock, arguments, original.as_ref(), prepared)?,
        (None, Some(profile)) => from_profile(profile, arguments, &prepared)?,
        (None, None) => from_traces(arguments, original.as_ref(), &prepared)?.publish(&prepared)?,
    }
    Ok(Exit::Success)
}

/// Draws up what the traces need.
pub(super) fn from_traces(
    arguments: &Arguments,
    original: Option<&Original>,
    prepared: &Prepared,
) -> Result<Draft, Failure> {
    let trace = Trace::read(&arguments.traces)?;
    let lead = match arguments.traces.as_slice() {
        [_] => trace.lead().clone(),
        several => Trace::read(&several[..1])?.lead().clone(),
    };
    keep_apart_from(&lead.root, prepared.outputs.places())?;
    let root = Original::root_or(original, &lead.root)?;
    let needed = Needed::of(&trace, &lead, root, &Image::default(), prepared)?;
    let estimate = (trace.runs.len() > 1).then(|| Coverage::of(&trace.runs).estimate()).flatten();
    drop(trace);
    let mut draft = Draft { coverage: estimate, ..needed.draw(prepared)? };
    if let Some(original) = original {
        original.adopt(&mut draft.manifest)?;
    }
    Ok(draft)
}

fn from_profile(profile: &Profile, arguments: &Arguments, prepared: &Prepared) -> Result<(), Failure> {
    let rehearsals = profile.workloads.iter().map(|(name, workload)| Rehearsal::new(name, workload, None, None));
    let rehearsals = rehearsals.collect::<Result<Vec<_>, _>>()?;
    let proving = Proving {
        until_stable: arguments.until_stable,
        verify: !arguments.no_verify,
        rounds: if arguments.repair { arguments.rounds } else { 0 },
        keep_failed: arguments.keep_failed,
        tools: arguments.verify_with.clone(),
        keep_trace: arguments.keep_trace.clone(),
    };
    proven::build(&rehearsals, &Ground::Host, &image(profile), &proving, prepared, |_| Ok(()))
}

/// What the profile says of the image; what stops its server stops the image's too.
fn image(profile: &Profile) -> Image {
    let server = profile.workloads.first().map(|(_, workload)| workload).filter(|workload| workload.is_server());
    let stop = server.map(|server| &server.stop).filter(|stop| stop.command.is_none());
    let signal = stop.map(|stop| stop.signal).filter(|signal| *signal != StopSignal::default());
    Image { stop_signal: profile.image.stop_signal.or(signal), ..profile.image.clone() }
}
