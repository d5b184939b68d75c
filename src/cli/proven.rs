//! From workloads to images that are proved: run, build, run again in the jail, add what was missing, once more.
//!
//! In: the workloads, and the ground that they run on: the host, or a tree that has everything. Out: images, published
//! only if every workload did in the jail what it did before.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::apart::keep_trace_apart;
use super::base::base;
use super::engine::Tool;
use super::failure::Failure;
use super::gather::{Gathered, Ground, gather};
use super::merge::write_trace;
use super::outputs::check_target;
use super::pack::{Draft, Needed};
use super::packing::Prepared;
use super::prove::{Model, Verdict, repair, try_out, unlisted, unproved};
use super::rehearse::{Rehearsal, scratch};
use super::stoppable::{Held, stoppable};
use crate::files::{self, Note};
use crate::image::{Output, lock_beside};
use crate::jail::Base;
use crate::path::JailPath;
use crate::profile::Image;
use crate::root::Root;
use crate::trace::{Trace, check_place};

/// How hard an image is proved.
pub(super) struct Proving {
    /// How many turns of all workloads in a row must bring no new file; 0: each workload is run once.
    pub(super) until_stable: u32,
    pub(super) verify: bool,
    /// How often what was missing is added, and everything tried again; 0: never.
    pub(super) rounds: u32,
    /// Leave the tree of an image that failed.
    pub(super) keep_failed: bool,
    /// What is to run the image besides the jail.
    pub(super) tools: Vec<Tool>,
    /// Where the trace goes, if it is to be kept.
    pub(super) keep_trace: Option<PathBuf>,
}

impl Proving {
    /// Refuses before anything runs what cannot come to anything.
    fn check(&self, rehearsals: &[Rehearsal<'_>], prepared: &Prepared) -> Result<(), Failure> {
        self.tools.iter().try_for_each(|tool| tool.check(rehearsals))?;
        if self.keep_failed {
            let way_out = "remove what an earlier build has left, or `--force` to replace it";
            failed_trees(prepared).try_for_each(|tree| check_target(&tree, prepared.force, way_out))?;
        }
        let Some(target) = &self.keep_trace else { return Ok(()) };
        keep_trace_apart(target, prepared.outputs.places())?;
        Ok(check_place(target)?)
    }

    /// Writes the trace, if it is to be kept.
    fn save(&self, trace: &Trace) -> Result<(), Failure> {
        if let Some(target) = &self.keep_trace {
            write_trace(trace, target)?;
        }
        Ok(())
    }
}

/// Runs the workloads on `ground`, builds, proves and publishes; `finish` sees each draft before it becomes a tree.
///
/// # Errors
/// A workload fails on the ground; or in the jail: then the exit status is 3, and nothing is published.
pub(super) fn build(
    rehearsals: &[Rehearsal<'_>],
    ground: &Ground<'_>,
    image: &Image,
    proving: &Proving,
    prepared: &Prepared,
    finish: impl Fn(&mut Draft) -> Result<(), Failure>,
) -> Result<(), Failure> {
    proving.check(rehearsals, prepared)?;
    let states: Vec<String> = rehearsals.iter().flat_map(|rehearsal| rehearsal.workload.state.clone()).collect();
    let _held = Held::start()?;
    let scratch = scratch(&states)?;
    let Gathered { mut trace, models, estimate } =
        gather(rehearsals, ground, proving.until_stable, scratch.path(), prepared)?;
    proving.save(&trace)?;
    let lead = &rehearsals[0].header;
    let mut tried = BTreeSet::new();
    for round in 0.. {
        let root = Root::open(&lead.root)?;
        let draft = stoppable(|_| Needed::of(&trace, lead, root, image, prepared)?.draw(prepared));
        let mut draft = draft.map_err(|failure| failure.in_commands(rehearsals.iter().any(Rehearsal::has_commands)))?;
        draft.coverage.clone_from(&estimate);
        finish(&mut draft)?;
        draft.manifest.verified = Some(proving.verify);
        if !proving.verify {
            return draft.publish(prepared);
        }
        let tree = scratch.path().join(format!("tree{round}"));
        draft.write_tree(&tree, &[], prepared)?;
        draft.take_contents_from(&tree);
        let base = base(&tree, &draft.manifest.entries, &draft.manifest.config)?;
        let user = &draft.manifest.config.user;
        let inside =
            rehearsals.iter().map(|rehearsal| rehearsal.in_image(user, &tree)).collect::<Result<Vec<_>, _>>()?;
        let verdicts = prove(&inside, &models, &base, &draft)?;
        if verdicts.iter().all(Verdict::is_good) {
            by_other_means(&inside, &proving.tools, &draft, &tree, scratch.path(), prepared)?;
            return draft.publish(prepared);
        }
        // What was added before and is still missed, as a secret is, no further round will add.
        let culprits = verdicts.iter().flat_map(|verdict| &verdict.culprits);
        let new = culprits.filter(|culprit| tried.insert(culprit.path.clone())).count();
        let goes_on = round < proving.rounds && new > 0;
        let runs = if goes_on { repairs(rehearsals, &verdicts, &draft)? } else { Vec::new() };
        verdicts.iter().for_each(Verdict::tell);
        if runs.is_empty() {
            if proving.keep_failed {
                keep(&draft, prepared)?;
            }
            let hint = unlisted(&verdicts, &prepared.chosen.policy);
            return Err(way_out(&verdicts, &draft, proving.rounds > 0).maybe_hint(hint));
        }
        trace.runs.extend(runs);
        trace.runs.sort();
        proving.save(&trace)?;
    }
    unreachable!("the loop returns in its last round")
}

fn prove(rehearsals: &[Rehearsal<'_>], models: &[Model], base: &Base, draft: &Draft) -> Result<Vec<Verdict>, Failure> {
    let pairs = rehearsals.iter().zip(models);
    let proved = |(rehearsal, model): (&_, &_)| {
        let mut verdict = try_out(rehearsal, base, Some(model), &draft.root)?;
        // What minjail makes anew for every image, as `/etc/ld.so.cache`, is never what it was.
        let is_expected = |path: &JailPath| draft.manifest.made.contains_key(path) && !files::is_of_network(path);
        verdict.differing.retain(|differing| !is_expected(&differing.sought.path));
        Ok(verdict)
    };
    pairs.map(proved).collect()
}

/// The failure, with what can be done about it.
fn way_out(verdicts: &[Verdict], draft: &Draft, is_repaired: bool) -> Failure {
    let failure = unproved(verdicts);
    let missing: BTreeSet<&JailPath> =
        verdicts.iter().flat_map(|verdict| &verdict.culprits).map(|culprit| &culprit.path).collect();
    let secret = draft.notes.iter().find_map(|note| match note {
        Note::Secret { path, kind } if missing.contains(path) => Some((path, kind)),
        _ => None,
    });
    let failure = match secret {
        // No repair packs it.
        Some((path, kind)) => failure.hint(format!(
            "`{path}` was left out since it looks like {kind}: `--allow-secret {path}` packs it; or have it given when the image is run"
        )),
        None if !missing.is_empty() && !is_repaired => failure.hint("`--repair` adds what was missing, and tries again"),
        None => failure,
    };
    let differing = verdicts.iter().flat_map(|verdict| &verdict.differing);
    let has_other_names = differing.map(|differing| &differing.sought.path).any(files::is_of_network);
    failure.maybe_hint(has_other_names.then_some(
        "in a container names of hosts are others than here, and `localhost` may be `::1` first: where that matters, have an address named, as 127.0.0.1",
    ))
}

/// Lets each tool run the image.
fn by_other_means(
    rehearsals: &[Rehearsal<'_>],
    tools: &[Tool],
    draft: &Draft,
    tree: &Path,
    scratch: &Path,
    prepared: &Prepared,
) -> Result<(), Failure> {
    for (index, tool) in tools.iter().enumerate() {
        let place = scratch.join(format!("tool{index}"));
        fs_err::create_dir(&place).map_err(Failure::new)?;
        let loaded = if tool.has_images() {
            tool.load(&draft.write_archive(&place.join("image.tar"), prepared)?, &place)?
        } else {
            tool.of_tree(tree)
        };
        let verdicts = loaded.verdicts(rehearsals, &place)?;
        verdicts.iter().for_each(Verdict::tell);
        if !verdicts.iter().all(Verdict::is_good) {
            return Err(unproved(&verdicts));
        }
    }
    Ok(())
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
    for tree in failed_trees(prepared) {
        // With its lock, by which `--force` knows it for minjail's the next time.
        draft.write_tree(&tree, &[lock_beside(&tree)], prepared)?;
        say!("minjail: the tree that failed is in {}", tree.display());
    }
    Ok(())
}

/// Where the tree goes that failed: beside each output.
fn failed_trees(prepared: &Prepared) -> impl Iterator<Item = PathBuf> {
    prepared.outputs.images.iter().filter_map(Output::path).map(|output| {
        let mut name = output.as_os_str().to_owned();
        name.push(".failed");
        PathBuf::from(name)
    })
}
