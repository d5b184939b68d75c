//! `minjail slim`: an existing image, with only the files that its program needs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::apart::{keep_apart, keep_apart_from_profile};
use super::base::{base, is_owned, of_directory};
use super::duration;
use super::exit::Exit;
use super::failure::{ELSEWHERE, Failure};
use super::gather::Ground;
use super::inside::{Inside, tell_notes};
use super::pack::Draft;
use super::packing::{Packing, Prepared, check_count};
use super::platform::{Kind, architecture, is_own, machine, may_run, started_by};
use super::profile;
use super::proven::{self, Proving};
use super::reading::Reading;
use super::unpacked::Unpacked;
use crate::image::oci::{ImageConfig, RunConfig};
use crate::image::{Image, Input, Reference};
use crate::jail::Base;
use crate::manifest::{Digest, Entry, Healthcheck, Layers};
use crate::path::{JailPath, escape};
use crate::profile::{Moment, Profile, Ready, Seconds, Workload};
use crate::root::Root;
use crate::slim::{self, Asked};

/// Make an existing image small: run it in a jail, keep what it needs, and prove the result
///
/// The image's own command is run, as the image's user, in a jail made of the image; no root, no daemon, no network. A
/// server is ready when the image's health check says so, else when it listens at the one port that the image exposes,
/// else when it listens somewhere; and when it has touched nothing for 3 seconds then, it is stopped. What else it is to be
/// asked, a profile says.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own on the command line")]
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The image, or a directory as `rootfs:DIR`, or `-`: an archive on standard input
    #[arg(value_name = "IMAGE")]
    image: OsString,

    #[command(flatten)]
    reading: Reading,

    /// Run the workloads of this profile in place of the image's command
    #[arg(short, long, value_name = "PROFILE", conflicts_with = "command")]
    profile: Option<String>,

    /// Unpack the image for this one time: see `minjail cache`
    #[arg(long)]
    no_cache: bool,

    #[command(flatten)]
    packing: Packing,

    /// Repeat what is run until so many repetitions in a row use no new file; at most 50 times
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    until_stable: u32,

    /// Do not run the program again in a jail of the result; the lock says so
    #[arg(long, conflicts_with_all = ["repair", "keep_failed"])]
    no_verify: bool,

    /// If it fails in the jail, add what it missed and try again
    #[arg(long)]
    repair: bool,

    /// How often to try, at most
    #[arg(long, value_name = "N", default_value_t = 10, requires = "repair", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Keep the trace of what was run, for `minjail why-not` and `minjail why`; an older trace there is replaced
    #[arg(long, value_name = "DIR")]
    keep_trace: Option<PathBuf>,

    /// If it fails in the jail, leave the tree beside each output, with `.failed` at the end
    #[arg(long)]
    keep_failed: bool,

    /// Let it run so long, as `30s` or `5m`, and then stop it: for a server that nothing tells to be ready
    #[arg(long = "for", value_name = "DURATION", value_parser = duration::longer_than_nothing, conflicts_with = "profile")]
    span: Option<Seconds>,

    /// Run this program in place of the image's entrypoint, with no arguments but those after `--`
    #[arg(long, value_name = "PROGRAM", conflicts_with = "profile")]
    entrypoint: Option<String>,

    /// The arguments for the image's entrypoint, or the command where it has none, as a directory; else the image's own
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let profile = arguments.profile.as_deref().map(profile::load).transpose()?;
    let files = profile.as_ref().map(|profile| profile.files.clone()).unwrap_or_default();
    let prepared = arguments.packing.prepare_for(&files, None)?;
    prepared.outputs.require_image()?;
    if let Some(name) = &arguments.profile {
        keep_apart_from_profile(name, prepared.outputs.places().chain(arguments.keep_trace.as_deref()))?;
    }
    let input = Input::parse(&arguments.image)?;
    keep_apart(&input, prepared.outputs.places().chain(arguments.keep_trace.as_deref()))?;
    let reading = arguments.reading.get(input.rootfs().is_none())?;
    let (image, unpacked);
    let whole = if let Some(directory) = input.rootfs() {
        arguments.packing.refuse_kept_layers()?;
        Whole::of_directory(directory)?
    } else {
        image = Image::open(&input, &reading)?;
        check_machine(image.config.as_ref())?;
        let name = escape(arguments.image.as_encoded_bytes());
        unpacked = Unpacked::of(&image, &name, arguments.no_cache, prepared.quiet)?;
        Whole::of_image(&image, &unpacked, prepared.packing.layers == Layers::Keep)?
    };
    whole.slim(arguments, profile, &prepared)?;
    Ok(Exit::Success)
}

/// The whole image, unpacked.
struct Whole<'a> {
    base: Base,
    /// What the image is called, if it says so.
    name: Option<Reference>,
    /// `None` for a directory.
    image: Option<&'a Image>,
    /// What is said of it: by itself, or by the lock beside a directory.
    config: Option<ImageConfig>,
    /// How it is run.
    run: RunConfig,
    /// The diff IDs of its layers.
    from: Vec<Digest>,
    /// What is said of its files, if the tree does not, or if their layers are asked for.
    entries: Vec<Entry>,
    /// The tree says of the files what the image says.
    is_owned: bool,
}

impl<'a> Whole<'a> {
    /// An image, unpacked. `wants_entries` where the layers of its files are asked for.
    fn of_image(image: &'a Image, unpacked: &Unpacked, wants_entries: bool) -> Result<Self, Failure> {
        let is_owned = unpacked.is_owned();
        let entries = if wants_entries || !is_owned { unpacked.entries(image)? } else { Vec::new() };
        let run = run_config(image.config.as_ref());
        let base = base(&unpacked.tree(), &entries, &run.clone().into_config())?;
        let (name, config, from) = (image.name.clone(), image.config.clone(), image.diff_ids());
        Ok(Self { base, name, image: Some(image), config, run, from, entries, is_owned })
    }

    /// A directory, with what the lock beside it says, if there is one.
    fn of_directory(directory: &Path) -> Result<Self, Failure> {
        let (base, lock) = of_directory(directory)?;
        let config = lock.as_ref().map(crate::image::described).transpose()?;
        check_machine(config.as_ref())?;
        let is_owned = lock.is_none() || is_owned(&Root::open(directory)?)?;
        let entries = lock.map(|lock| lock.entries).filter(|_| !is_owned).unwrap_or_default();
        let run = run_config(config.as_ref());
        Ok(Self { base, name: None, image: None, config, run, from: Vec::new(), entries, is_owned })
    }

    fn slim(&self, arguments: &Arguments, profile: Option<Profile>, prepared: &Prepared) -> Result<(), Failure> {
        let asked = self.asked(arguments);
        let is_own = profile.is_none();
        let (workloads, mut image) = if let Some(profile) = profile {
            (profile.workloads, profile.image)
        } else {
            let workload = self.own(&asked, arguments, prepared)?;
            let program = Path::new(&workload.run.0[0]).file_name().unwrap_or_default();
            (vec![(program.to_string_lossy().into_owned(), workload)], crate::profile::Image::default())
        };
        let inside = Inside::of(&self.run, &self.base.tree, workloads)?;
        // As the image spells him: a name also says which groups he is a member of.
        image.user = image.user.or_else(|| self.run.user.clone().filter(|user| !user.is_empty()));
        image.volumes.extend(self.run.volumes.iter().flatten().map(|(volume, _)| volume.clone()));
        // A profile that runs what the image does says nothing else of how it begins.
        let begins_alike = image.entrypoint.is_none()
            && image.cmd.is_none()
            && inside
                .workloads
                .first()
                .is_some_and(|(_, first)| first.run.0 == [&asked.entrypoint[..], &asked.cmd[..]].concat());
        if is_own || begins_alike {
            (image.entrypoint, image.cmd) = (Some(asked.entrypoint.clone()), Some(asked.cmd.clone()));
        }
        let rehearsals = inside.rehearsals(&self.base.tree)?;
        rehearsals.iter().try_for_each(|rehearsal| self.check_program(&rehearsal.header.program))?;
        if !prepared.quiet {
            tell_notes(&rehearsals, &self.base)?;
        }
        let is_checked = inside
            .workloads
            .iter()
            .any(|(_, workload)| matches!(workload.ready.as_ref().map(Ready::moment), Some(Moment::Check(_))));
        let is_off = self.run.healthcheck.as_ref().is_some_and(Healthcheck::is_off);
        if self.run.healthcheck.is_some() && !is_checked && !is_off && !prepared.quiet {
            say!("note: the image's health check was not run, so that nobody knows what it needs: it is left out");
        }
        let proving = Proving {
            until_stable: arguments.until_stable,
            verify: !arguments.no_verify,
            rounds: if arguments.repair { arguments.rounds } else { 0 },
            keep_failed: arguments.keep_failed,
            tools: Vec::new(),
            keep_trace: arguments.keep_trace.clone(),
        };
        let ground = Ground::Tree { base: &self.base, is_theirs: !self.is_owned };
        proven::build(&rehearsals, &ground, &image, &proving, prepared, |draft| {
            self.finish(draft, prepared, is_checked || is_off)
        })
    }

    /// What is to be run. In a directory a command is all of that, whatever the lock beside it says: nobody need know of one.
    fn asked(&self, arguments: &Arguments) -> Asked {
        if self.image.is_none() && arguments.entrypoint.is_none() && !arguments.command.is_empty() {
            return Asked { entrypoint: Vec::new(), cmd: arguments.command.clone() };
        }
        Asked::of(&self.run, arguments.entrypoint.as_deref(), &arguments.command)
    }

    /// Gives a manifest what the image itself says; its health check only if that was run too, or says that there is none.
    fn finish(&self, draft: &mut Draft, prepared: &Prepared, keeps_check: bool) -> Result<(), Failure> {
        let config = &mut draft.manifest.config;
        // Engines take it from the image's accounts, for whomever it is run as, and give this value to who has none there.
        let has_accounts = draft.manifest.entries.iter().any(|entry| entry.path.as_bytes() == b"/etc/passwd");
        let is_usual = has_accounts || config.env.get("HOME").is_some_and(|home| home == "/");
        if is_usual && !self.run.env.iter().flatten().any(|variable| variable.starts_with("HOME=")) {
            config.env.remove("HOME");
        }
        if !self.is_owned {
            slim::adopt(&mut draft.manifest, &self.entries);
        }
        draft.manifest.from.clone_from(&self.from);
        if let Some(name) = &self.name {
            // Another name than the image's own, which loading the small one would take away from it.
            draft.manifest.packing.name = format!("{}-slim", name.short());
        }
        let keeps = prepared.packing.layers == Layers::Keep;
        let left = if keeps { slim::keep_layers(&mut draft.manifest, &self.entries) } else { Vec::new() };
        check_count(left.len())?;
        if let Some(image) = self.image {
            draft.originals = image.keep_layers(&mut draft.manifest, &slim::from_which(&left))?;
        }
        if let Some(said) = &self.config {
            slim::carry_over(&mut draft.manifest.config, said, &self.run);
            let mut history = slim::history(said, &left, &draft.manifest.originals);
            let env = self.run.env.as_deref().unwrap_or_default();
            slim::hide_secrets(&mut history, env, |name, value| prepared.chosen.withholds(name, value));
            draft.manifest.config.history = history;
        }
        let config = &mut draft.manifest.config;
        config.healthcheck = config.healthcheck.take().or(self.run.healthcheck.clone().filter(|_| keeps_check));
        Ok(())
    }

    /// The workload that the image itself stands for.
    fn own(&self, asked: &Asked, arguments: &Arguments, prepared: &Prepared) -> Result<Workload, Failure> {
        let is_other = !arguments.command.is_empty() || arguments.entrypoint.is_some();
        let workload = slim::workload(&self.run, asked, is_other, arguments.span);
        let workload = workload.map_err(|error| {
            Failure::new(error).hint("name a command after `--`, or say with `-p PROFILE` how it is run")
        })?;
        let tried = match workload.ready.as_ref().map(Ready::moment) {
            Some(Moment::Check(_)) => "its start, its health check and its end are",
            _ => "its start and its end is",
        };
        if !prepared.quiet && !workload.ready.as_ref().is_some_and(Ready::may_end) {
            say!(
                "minjail: the image is a server, and nothing but {tried} tried; a profile, with `-p`, says what to ask it"
            );
        }
        Ok(workload)
    }

    /// Refuses what is not there, and what cannot be executed.
    fn check_program(&self, program: &JailPath) -> Result<(), Failure> {
        let root = Root::open(&self.base.tree)?;
        let Some(facts) = root.resolve(&JailPath::root(), program.as_bytes(), true)?.facts else {
            return Err(Failure::usage(format!("the image has no program `{program}`"))
                .exit(Exit::NotFound)
                .hint("name another command after `--`; `minjail run IMAGE -- ls` shows what there is"));
        };
        if !facts.is_file() || facts.mode & 0o111 == 0 {
            return Err(Failure::usage(format!("`{program}` of the image cannot be executed"))
                .exit(Exit::CannotExecute)
                .hint("is it the right file? name another command after `--`"));
        }
        started_by(program, &root).map_or(Ok(()), |kind| self.check_kind(program, kind))
    }

    /// Refuses what is started by a program that this machine cannot run, or that is for another one than the image says.
    fn check_kind(&self, program: &JailPath, kind: Kind) -> Result<(), Failure> {
        if !kind.is_own() && !kind.may_be_emulated() {
            let machine = kind.name();
            let text = format!("`{program}` of the image is built for another architecture: {machine}");
            return Err(Failure::usage(text).exit(Exit::CannotExecute).hint(ELSEWHERE));
        }
        match &self.config {
            Some(said) if kind.is_own() && !is_own(&said.architecture) => {
                let (said, machine) = (&said.architecture, kind.name());
                let text = format!("the image is for {said}, but its program `{program}` is built for {machine}");
                Err(Failure::usage(text).hint("whoever made the image gave it the wrong architecture"))
            }
            _ => Ok(()),
        }
    }
}

fn run_config(config: Option<&ImageConfig>) -> RunConfig {
    config.and_then(|config| config.config.clone()).unwrap_or_default()
}

/// Programs for another system or machine cannot be run here.
fn check_machine(config: Option<&ImageConfig>) -> Result<(), Failure> {
    let own = machine();
    let own = architecture(&own);
    match config {
        Some(config) if config.os != "linux" => {
            Err(Failure::usage(format!("the image is for {}, and this machine runs linux", config.os))
                .hint("`minjail unpack` writes it in another form; nothing is run for that"))
        }
        Some(config) if !may_run(&config.architecture) => {
            let text = format!("the image is for {}, and this machine runs {own}", config.architecture);
            let hint = format!(
                "slim it on a machine that runs {0}, or register an emulator for {0} here",
                config.architecture
            );
            Err(Failure::usage(text).hint(hint))
        }
        _ => Ok(()),
    }
}
