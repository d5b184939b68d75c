//! `minjail verify`: a profile's workloads in a jail made of an image.

use std::ffi::OsString;
use std::path::Path;

use super::exit::Exit;
use super::failure::Failure;
use super::profile;
use super::prove::{Verdict, try_out, unproved};
use super::rehearse::Rehearsal;
use crate::image::{Image, Input, Reading};
use crate::root::Root;

/// Run a profile's workloads in a jail made of an image: do they do what the profile says?
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The image, or a rootfs
    #[arg(value_name = "IMAGE")]
    image: OsString,

    /// A profile: a file, or one of `minjail profile list`
    #[arg(short, long, value_name = "PROFILE")]
    profile: String,

    /// Say nothing but errors
    #[arg(long, short)]
    quiet: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let profile = profile::load(&arguments.profile)?;
    let input = Input::parse(&arguments.image)?;
    let scratch = tempfile::Builder::new().prefix("minjail-verify-").tempdir().map_err(Failure::new)?;
    let tree: &Path = if let Some(directory) = input.rootfs() {
        directory
    } else {
        Image::open(&input, &Reading::default())?.unpack(scratch.path())?;
        scratch.path()
    };
    let root = Root::open(Path::new("/"))?;
    let mut verdicts = Vec::new();
    for (name, workload) in &profile.workloads {
        let rehearsal = Rehearsal::new(name, workload, Some(tree))?;
        let verdict = try_out(&rehearsal, tree, None, &root)?;
        verdict.tell();
        if verdict.is_good() && !arguments.quiet {
            say!("minjail: workload `{name}` does in the jail what the profile says");
        }
        verdicts.push(verdict);
    }
    if verdicts.iter().all(Verdict::is_good) { Ok(Exit::Success) } else { Err(unproved(&verdicts)) }
}
