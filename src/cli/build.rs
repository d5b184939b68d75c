//! `minjail build`: images from saved traces.

use std::path::PathBuf;

use super::exit::Exit;
use super::failure::Failure;
use super::pack::{self, Packing};
use crate::trace::Trace;

/// Build images from traces; several are merged, and the first one says how the image is run
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A trace that `minjail trace` has written
    #[arg(short, long = "trace", value_name = "DIR", required = true)]
    traces: Vec<PathBuf>,

    #[command(flatten)]
    packing: Packing,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let prepared = arguments.packing.prepare()?;
    if prepared.outputs.is_empty() {
        return Err(Failure::usage("nothing to build: no output is named").hint("name one with `-o`, as `-o oci:DIR`"));
    }
    let lead = Trace::read(&arguments.traces[..1])?;
    let trace = Trace::read(&arguments.traces)?;
    let lead = lead.runs.first().expect("a trace that was read has a run");
    pack::pack(&trace, &lead.header, &prepared)?;
    Ok(Exit::Success)
}
