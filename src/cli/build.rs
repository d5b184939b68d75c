//! `minjail build`: images from a profile, whose workloads are run, from saved traces, or from a lock.

use std::path::{Path, PathBuf};

use super::exit::Exit;
use super::failure::Failure;
use super::locked;
use super::pack::{self, Draft, Packing, Prepared};
use super::profile;
use super::prove::{Model, Verdict, repair, try_out, unproved};
use super::rehearse::{Rehearsal, scratch};
use crate::profile::{Image, Profile};
use crate::root::Root;
use crate::trace::Trace;

/// Build images from a profile: trace its workloads, build, and run them again in a jail. Or from saved traces
///
/// Several traces are merged, and the first one says how the image is run.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A profile: a file, or one of `minjail profile list`
    #[arg(value_name = "PROFILE", required_unless_present_any = ["traces", "locked"], conflicts_with_all = ["traces", "locked", "root"])]
    profile: Option<String>,

    /// A trace that `minjail trace` has written
    #[arg(short, long = "trace", value_name = "DIR")]
    pub(super) traces: Vec<PathBuf>,

    /// Build what this lock says, byte for byte, from the traces or from the lock alone; if anything differs, say what
    /// and build nothing
    #[arg(long, value_name = "LOCK", conflicts_with_all = ["compression", "layers", "mtime"])]
    locked: Option<PathBuf>,

    /// The directory that plays `/` [default: the one that was traced]
    #[arg(long, value_name = "DIR")]
    pub(super) root: Option<PathBuf>,

    #[command(flatten)]
    packing: Packing,

    /// Do not run the workloads in a jail; the lock says so
    #[arg(long, conflicts_with_all = ["traces", "repair", "keep_failed"])]
    no_verify: bool,

    /// If a workload fails in the jail, add what it missed and try again
    #[arg(long, conflicts_with = "traces")]
    repair: bool,

    /// How often to try, at most
    #[arg(long, value_name = "N", default_value_t = 10, requires = "repair", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// If a workload fails in the jail, leave the tree beside each output, with `.failed` at the end
    #[arg(long, conflicts_with = "traces")]
    keep_failed: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let prepared = arguments.packing.prepare_beside(arguments.locked.as_deref())?;
    if prepared.outputs.is_empty() {
        return Err(Failure::usage("nothing to build: no output is named").hint("name one with `-o`, as `-o oci:DIR`"));
    }
    match (&arguments.locked, &arguments.profile) {
        (Some(lock), _) => locked::build(lock, arguments, prepared)?,
        (None, Some(name)) => from_profile(&profile::load(name)?, arguments, &prepared)?,
        (None, None) => from_traces(arguments, &prepared)?.publish(&prepared)?,
    }
    Ok(Exit::Success)
}

/// Draws up what the traces need.
pub(super) fn from_traces(arguments: &Arguments, prepared: &Prepared) -> Result<Draft, Failure> {
    let trace = Trace::read(&arguments.traces)?;
    let lead = Trace::read(&arguments.traces[..1])?;
    let lead = lead.runs.first().expect("a trace that was read has a run");
    let root = Root::open(arguments.root.as_deref().unwrap_or(&lead.header.root))?;
    Draft::draw(&trace, &lead.header, root, &Image::default(), prepared)
}

fn from_profile(profile: &Profile, arguments: &Arguments, prepared: &Prepared) -> Result<(), Failure> {
    let rehearsals = profile.workloads.iter().map(|(name, workload)| Rehearsal::new(name, workload, None));
    let rehearsals = rehearsals.collect::<Result<Vec<_>, _>>()?;
    let states: Vec<String> = profile.workloads.iter().flat_map(|(_, workload)| workload.state.clone()).collect();
    let scratch = scratch(&states)?;
    let mut models = Vec::new();
    let mut traces = Vec::new();
    for (index, rehearsal) in rehearsals.iter().enumerate() {
        let target = scratch.path().join(format!("{index}.trace"));
        models.push(trace(rehearsal, &target)?);
        traces.push(target);
    }
    let mut trace = Trace::read(&traces)?;
    let lead = &rehearsals[0].header;
    let rounds = if arguments.repair { arguments.rounds } else { 0 };
    for round in 0.. {
        let mut draft = Draft::draw(&trace, lead, Root::open(&lead.root)?, &profile.image, prepared)?;
        draft.manifest.verified = Some(!arguments.no_verify);
        if arguments.no_verify {
            return draft.publish(prepared);
        }
        let tree = scratch.path().join(format!("tree{round}"));
        draft.write_tree(&tree, prepared)?;
        let verdicts = prove(&rehearsals, &models, &tree, &draft)?;
        if verdicts.iter().all(Verdict::is_good) {
            return draft.publish(prepared);
        }
        let runs = if round < rounds { repairs(&rehearsals, &verdicts, &draft)? } else { Vec::new() };
        verdicts.iter().for_each(Verdict::tell);
        if runs.is_empty() {
            if arguments.keep_failed {
                keep(&draft, prepared)?;
            }
            let failure = unproved(&verdicts);
            let missing = verdicts.iter().any(|verdict| !verdict.culprits.is_empty());
            return Err(if missing && rounds == 0 {
                failure.hint("`--repair` adds what was missing, and tries again")
            } else {
                failure
            });
        }
        trace.runs.extend(runs);
        trace.runs.sort();
    }
    unreachable!("the loop returns in its last round")
}

/// Runs a workload on the host, and refuses one that does not even there do what its profile says.
fn trace(rehearsal: &Rehearsal<'_>, target: &Path) -> Result<Model, Failure> {
    let observation = rehearsal.on_host(target)?;
    if observation.faults.is_empty() {
        return Ok(Model::of(&observation));
    }
    for line in String::from_utf8_lossy(&observation.stderr).lines() {
        say!("minjail: it wrote: {}", crate::path::escape(line.as_bytes()));
    }
    let faults: Vec<String> = observation.faults.iter().map(ToString::to_string).collect();
    let text = format!("the workload `{}` failed on the host: {}", rehearsal.header.workload, faults.join("; "));
    Err(Failure::usage(text)
        .hint("see that the program works, and that the profile says what it does; then build again"))
}

fn prove(rehearsals: &[Rehearsal<'_>], models: &[Model], tree: &Path, draft: &Draft) -> Result<Vec<Verdict>, Failure> {
    let pairs = rehearsals.iter().zip(models);
    pairs.map(|(rehearsal, model)| try_out(rehearsal, tree, Some(model), &draft.root)).collect()
}

/// What is to be added, as runs that touch it.
fn repairs(
    rehearsals: &[Rehearsal<'_>],
    verdicts: &[Verdict],
    draft: &Draft,
) -> Result<Vec<crate::trace::Run>, Failure> {
    let pairs = rehearsals.iter().zip(verdicts).filter(|(_, verdict)| !verdict.culprits.is_empty());
    pairs.map(|(rehearsal, verdict)| repair(rehearsal, &verdict.culprits, &draft.root)).collect()
}

fn keep(draft: &Draft, prepared: &Prepared) -> Result<(), Failure> {
    for output in prepared.outputs.iter().filter_map(pack::path_of) {
        let mut name = output.as_os_str().to_owned();
        name.push(".failed");
        draft.write_tree(Path::new(&name), prepared)?;
        say!("minjail: the tree that failed is in {}", Path::new(&name).display());
    }
    Ok(())
}
