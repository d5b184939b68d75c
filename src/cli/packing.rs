//! The flags by which an image is made, and what they come to: all that can be said before anything runs.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::choices::{Choices, Chosen};
use super::failure::Failure;
use super::outputs::{Outputs, parse_all};
use crate::files::Rules;
use crate::image::{Output, lock_beside};
use crate::layer::{BLOCK_SIZE, Compression};
use crate::manifest::{self, Layers, MOST_LAYERS, Manifest, Times};
use crate::profile::{Division, Files, Mtime};

/// What is built, and how it is told.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own on the command line")]
#[derive(Debug, clap::Args)]
pub(super) struct Packing {
    /// Where an image goes; may be given several times
    #[arg(short, long = "output", value_name = "OUT")]
    outputs: Vec<OsString>,

    /// Where the lock goes [default: beside each output, with `.lock` at the end]
    #[arg(long, value_name = "FILE", requires = "outputs")]
    lock: Option<PathBuf>,

    /// Replace outputs that exist
    #[arg(long)]
    force: bool,

    /// How layers are compressed: none, gzip[:LEVEL] or zstd[:LEVEL] [default: gzip]
    #[arg(long, value_name = "HOW", requires = "outputs")]
    compression: Option<Compression>,

    /// Into which layers files go: `one` for all; `packages`, one for each large package of the distribution, so that
    /// images share them; or `keep`, of an image, those that they were in, as they are where nothing is missing
    /// [default: one]
    #[arg(long, value_name = "HOW", requires = "outputs")]
    layers: Option<Layers>,

    /// Which times files get: fixed, clamp, packaged, files or keep [default: packaged; with `--layers keep`: files]
    #[arg(long, value_name = "HOW", requires = "outputs")]
    mtime: Option<Times>,

    /// Build even if the trace has gaps
    #[arg(long)]
    allow_gaps: bool,

    #[command(flatten)]
    choices: Choices,

    /// Say nothing but errors
    #[arg(long, short)]
    quiet: bool,

    /// Tell the summary as JSON
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
}

/// A [`Packing`] that was checked, with all that the machine has to say.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own on the command line")]
pub(super) struct Prepared {
    pub(super) outputs: Outputs,
    pub(super) force: bool,
    pub(super) packing: manifest::Packing,
    pub(super) compression: Compression,
    pub(super) allow_gaps: bool,
    pub(super) quiet: bool,
    pub(super) json: bool,
    pub(super) epoch: i64,
    /// `SOURCE_DATE_EPOCH` says so.
    is_dated: bool,
    pub(super) chosen: Chosen,
    /// Where `-` goes.
    pub(super) standard_output: OwnedFd,
}

impl Packing {
    /// Refuses what cannot come to anything, before a program runs.
    pub(super) fn prepare(&self) -> Result<Prepared, Failure> {
        self.refuse_kept_layers()?;
        self.prepare_for(&Files::default(), None)
    }

    /// Only an image has layers.
    pub(super) fn refuse_kept_layers(&self) -> Result<(), Failure> {
        if self.layers == Some(Layers::Keep) {
            return Err(Failure::usage("there are no layers to keep: what is packed is not from an image")
                .hint("give `--layers one` or `--layers packages`"));
        }
        Ok(())
    }

    /// Refuses to make an image otherwise than the lock beside it says that it is made.
    pub(super) fn refuse_other_form(&self, lock: &Path) -> Result<(), Failure> {
        if self.compression.is_none() && self.layers.is_none() && self.mtime.is_none() && !self.choices.switch_rules() {
            return Ok(());
        }
        Err(Failure::usage(format!("`{}` says already how the image is made", lock.display())).hint(
            "leave `--compression`, `--layers`, `--mtime` and `--rule` out; `minjail unpack` writes the result in another form",
        ))
    }

    /// Refuses to choose among files where all is said already.
    pub(super) fn refuse_choices(&self) -> Result<(), Failure> {
        if self.choices.are_given() {
            return Err(Failure::usage("there is nothing to choose: the lock says already which files the image gets")
                .hint("leave `--include`, `--exclude` and the like out, or build from the trace without `--locked`"));
        }
        Ok(())
    }

    /// As [`prepare`](Self::prepare), on top of what a profile says, and but for the lock that is built from, which stays
    /// as it is.
    pub(super) fn prepare_for(&self, profile: &Files, locked: Option<&Path>) -> Result<Prepared, Failure> {
        let layers = self.layers.unwrap_or(match profile.layers {
            Some(Division::Packages) => Layers::Packages,
            Some(Division::One) | None => Layers::One,
        });
        let mtime = self.mtime.unwrap_or(match profile.mtime {
            Some(Mtime::Fixed) => Times::Fixed,
            Some(Mtime::Clamp) => Times::Clamp,
            Some(Mtime::Files) => Times::Files,
            Some(Mtime::Keep) => Times::Keep,
            Some(Mtime::Packaged) => Times::Packaged,
            // A layer has the times that it has: with others it is another one.
            None if layers == Layers::Keep => Times::Files,
            None => Times::Packaged,
        });
        let compression = self.compression.unwrap_or_default();
        let images = parse_all(&self.outputs)?;
        if self.lock.as_deref() == Some(Path::new("-")) {
            return Err(Failure::usage("a lock is a file, and cannot go to standard output")
                .hint("name one; `./-` is a file of that name"));
        }
        let mut locks: Vec<PathBuf> = match &self.lock {
            Some(lock) => vec![lock.clone()],
            None => images.iter().filter_map(Output::path).map(lock_beside).collect(),
        };
        locks.dedup();
        locks.retain(|lock| locked.is_none_or(|locked| !is_same_file(lock, locked)));
        let outputs = Outputs { images, locks };
        outputs.check(self.force)?;
        let chosen = self.choices.check(profile)?;
        let epoch = epoch()?;
        Ok(Prepared {
            outputs,
            force: self.force,
            packing: packing(compression, layers, mtime, &chosen.policy.rules),
            compression,
            allow_gaps: self.allow_gaps,
            quiet: self.quiet,
            json: self.json,
            epoch: epoch.unwrap_or_default(),
            is_dated: epoch.is_some(),
            chosen,
            standard_output: std::io::stdout().as_fd().try_clone_to_owned().map_err(Failure::new)?,
        })
    }
}

impl Prepared {
    /// Takes from a lock how the image is made: epoch, times, rules, and compression.
    pub(super) fn follow(&mut self, lock: &Manifest) -> Result<(), Failure> {
        // An environment is made for many commands, and no reason to refuse one, as a flag is.
        if self.is_dated && self.epoch != lock.epoch && !self.quiet && !self.json {
            say!("note: SOURCE_DATE_EPOCH is {}, and the lock says {}, which counts", self.epoch, lock.epoch);
        }
        self.epoch = lock.epoch;
        self.compression = lock.packing.compression.parse().map_err(Failure::new)?;
        self.chosen.policy.rules = lock.packing.rules.clone();
        self.packing = packing(self.compression, lock.packing.layers, lock.packing.mtime, &self.chosen.policy.rules);
        Ok(())
    }
}

/// Refuses to write so many layers: the lock of such an image could not be read.
pub(super) fn check_count(layers: usize) -> Result<(), Failure> {
    if layers <= MOST_LAYERS as usize {
        return Ok(());
    }
    Err(Failure::usage(format!("something is left of {layers} layers, and an image has at most {MOST_LAYERS}"))
        .hint("`--layers one` makes one of them"))
}

pub(super) fn packing(compression: Compression, layers: Layers, mtime: Times, rules: &Rules) -> manifest::Packing {
    manifest::Packing {
        name: String::new(),
        compression: compression.to_string(),
        compressor: compression.compressor(),
        block_size: BLOCK_SIZE as u64,
        layers,
        mtime,
        rules: rules.clone(),
    }
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let canonical = [one, other].map(fs_err::canonicalize);
    matches!(canonical, [Ok(one), Ok(other)] if one == other)
}

/// `SOURCE_DATE_EPOCH` (<https://reproducible-builds.org/specs/source-date-epoch/>), if it is set.
#[expect(clippy::disallowed_methods, reason = "this is where the environment enters")]
fn epoch() -> Result<Option<i64>, Failure> {
    let text = std::env::var_os("SOURCE_DATE_EPOCH").filter(|text| !text.is_empty());
    let Some(text) = text else { return Ok(None) };
    let seconds = text.to_str().and_then(|text| text.parse().ok()).filter(|seconds| *seconds >= 0);
    seconds.map(Some).ok_or_else(|| {
        Failure::usage(format!("SOURCE_DATE_EPOCH is `{}`, which is no number of seconds", text.display()))
            .hint("set it to seconds since 1970, as `date +%s` prints them")
    })
}
