//! `minjail verify`: a profile's workloads in a jail made of an image; and the image with what they missed.

use std::ffi::OsString;
use std::path::Path;

use super::apart::keep_apart_from_profile;
use super::base::{Ready, base};
use super::engine::Tool;
use super::exit::Exit;
use super::failure::Failure;
use super::inside::{Inside, tell_notes};
use super::mend::Broken;
use super::pack::Draft;
use super::packing::{Packing, Prepared};
use super::profile;
use super::prove::{Verdict, repair, try_out, unlisted, unproved};
use super::reading::Reading;
use super::rehearse::Rehearsal;
use super::stoppable::Held;
use crate::image::Input;
use crate::image::oci::RunConfig;
use crate::jail::Base;
use crate::publish::Scratch;
use crate::root::Root;

/// Run a profile's workloads in a jail made of an image: do they do what the profile says?
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The image, or a rootfs
    #[arg(value_name = "IMAGE")]
    image: OsString,

    #[command(flatten)]
    reading: Reading,

    /// A profile: a file, or one of `minjail profile list`
    #[arg(short, long, value_name = "PROFILE")]
    profile: String,

    /// Let this run the workloads in place of the jail; may be given several times
    #[arg(long, value_name = "ENGINE", conflicts_with = "repair")]
    verify_with: Vec<Tool>,

    /// Unpack the image for this one time: see `minjail cache`
    #[arg(long)]
    no_cache: bool,

    /// If a workload fails, add what it missed, from this machine, and try again; what works is written to `-o`
    #[arg(long, requires = "outputs")]
    repair: bool,

    /// How often to try, at most
    #[arg(long, value_name = "N", default_value_t = 10, requires = "repair", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    #[command(flatten)]
    packing: Packing,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let profile = profile::load(&arguments.profile)?;
    let prepared = arguments.packing.prepare()?;
    if prepared.json && !arguments.repair {
        return Err(Failure::usage("`verify` has no summary unless it repairs")
            .hint("its exit status says whether all is well"));
    }
    if !prepared.outputs.images.is_empty() && !arguments.repair {
        return Err(Failure::usage("`verify` writes nothing unless it repairs")
            .hint("give `--repair` too; `minjail unpack` writes an image in another form"));
    }
    keep_apart_from_profile(&arguments.profile, prepared.outputs.places())?;
    let input = Input::parse(&arguments.image)?;
    let reading = arguments.reading.get(input.rootfs().is_none())?;
    let name = arguments.image.to_string_lossy();
    let ready = Ready::of(&input, &reading, &name, arguments.no_cache, prepared.quiet)?;
    let _held = Held::start()?;
    let scratch = Scratch::new(&std::env::temp_dir(), ".minjail-verify-")?;
    let base = &ready.base;
    let run = ready.config.as_ref().map(RunConfig::of).unwrap_or_default();
    let inside = Inside::of(&run, &base.tree, profile.workloads)?;
    let rehearsals = inside.rehearsals(&base.tree)?;
    if !arguments.verify_with.is_empty() {
        return with_tools(arguments, &rehearsals, &base.tree, scratch.path(), &prepared);
    }
    if !prepared.quiet {
        tell_notes(&rehearsals, base)?;
    }
    let verdicts = verdicts(&rehearsals, base, &prepared)?;
    if !arguments.repair {
        if verdicts.iter().all(Verdict::is_good) {
            return Ok(Exit::Success);
        }
        let failure = unproved(&verdicts);
        let has_culprits = verdicts.iter().any(|verdict| !verdict.culprits.is_empty());
        let hint = "`--repair -o OUT` adds what was missing, from this machine";
        let unlisted = unlisted(&verdicts, &prepared.chosen.policy);
        return Err(if has_culprits { failure.hint(hint) } else { failure.maybe_hint(unlisted) });
    }
    mend(arguments, &inside, &ready, scratch.path(), prepared, verdicts)
}

/// Lets each tool run every workload.
fn with_tools(
    arguments: &Arguments,
    rehearsals: &[Rehearsal<'_>],
    tree: &Path,
    scratch: &Path,
    prepared: &Prepared,
) -> Result<Exit, Failure> {
    let mut verdicts = Vec::new();
    for (index, tool) in arguments.verify_with.iter().enumerate() {
        tool.check(rehearsals)?;
        let place = scratch.join(format!("tool{index}"));
        fs_err::create_dir(&place).map_err(Failure::new)?;
        let loaded =
            if tool.has_images() { tool.load(&arguments.image.to_string_lossy(), &place)? } else { tool.of_tree(tree) };
        for verdict in loaded.verdicts(rehearsals, &place)? {
            tell(&verdict, prepared.quiet);
            verdicts.push(verdict);
        }
    }
    if verdicts.iter().all(Verdict::is_good) { Ok(Exit::Success) } else { Err(unproved(&verdicts)) }
}

/// Runs every workload in a jail made of `base`, and tells what came of it.
fn verdicts(rehearsals: &[Rehearsal<'_>], base: &Base, prepared: &Prepared) -> Result<Vec<Verdict>, Failure> {
    let host = Root::open(Path::new("/"))?;
    let mut verdicts = Vec::new();
    for rehearsal in rehearsals {
        let verdict = try_out(rehearsal, base, None, &host)?;
        tell(&verdict, prepared.quiet);
        verdicts.push(verdict);
    }
    Ok(verdicts)
}

/// Tells what went wrong, and unless `quiet` also that nothing did.
fn tell(verdict: &Verdict, quiet: bool) {
    verdict.tell();
    if verdict.is_good() && !quiet {
        say!("minjail: workload `{}` does in {} what the profile says", verdict.workload, verdict.place());
    }
}

/// Adds what was missing and tries again, until the image is proved, or nothing is left to add.
fn mend(
    arguments: &Arguments,
    inside: &Inside,
    ready: &Ready,
    scratch: &Path,
    mut prepared: Prepared,
    mut failed: Vec<Verdict>,
) -> Result<Exit, Failure> {
    let host = Root::open(Path::new("/"))?;
    let broken = Broken::read(&arguments.image, ready, &arguments.packing, &mut prepared)?;
    let mut runs = Vec::new();
    let mut entries = broken.manifest.entries.clone();
    let mut now = ready.base.tree.clone();
    for round in 1..=arguments.rounds {
        // It lacks nothing: only in the first round.
        let is_good = failed.iter().all(Verdict::is_good);
        let before = runs.len();
        for (rehearsal, verdict) in inside.rehearsals(&now)?.iter().zip(&failed) {
            if !verdict.culprits.is_empty() {
                runs.push(repair(rehearsal, &verdict.culprits, &host)?);
            }
        }
        // What was only not listed no run brings, but `--include` may; what that adds to an image that is good is tried out too.
        if runs.len() == before && !is_good && (round > 1 || prepared.chosen.policy.include.is_empty()) {
            break;
        }
        let draft = broken.mended(&runs, &host, &prepared)?;
        if draft.manifest.entries == entries {
            if !is_good {
                // What looks like a secret is missed and not added: more rounds would not help.
                break;
            }
            if !prepared.quiet && !prepared.json {
                say!("minjail: there is nothing to repair: what is written is the image as it is");
            }
            // Whoever asks for an image that works goes on with it, whether or not the old one did.
            return proved(draft, &prepared);
        }
        entries.clone_from(&draft.manifest.entries);
        now = scratch.join(format!("round{round}"));
        draft.write_tree(&now, &[], &prepared)?;
        let base = base(&now, &draft.manifest.entries, &draft.manifest.config)?;
        failed = verdicts(&inside.rehearsals(&base.tree)?, &base, &prepared)?;
        if failed.iter().all(Verdict::is_good) {
            return proved(draft, &prepared);
        }
    }
    Err(unproved(&failed).maybe_hint(unlisted(&failed, &prepared.chosen.policy)))
}

/// Writes what was proved.
fn proved(mut draft: Draft, prepared: &Prepared) -> Result<Exit, Failure> {
    draft.manifest.verified = Some(true);
    draft.publish(prepared)?;
    Ok(Exit::Success)
}
