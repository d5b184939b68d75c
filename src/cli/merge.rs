//! `minjail merge`: several traces as one.

use std::path::{Path, PathBuf};

use super::exit::Exit;
use super::failure::Failure;
use super::stoppable::stoppable;
use crate::trace::{RecordError, Trace};

/// Join traces of several workloads, runs or machines into one
///
/// The order of the traces does not matter, and what is in two of them is in the result once. An image of the result is run as the first
/// workload, by name, was; `minjail build -t A -t B` runs it as A was.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A trace that `minjail trace` or `minjail merge` has written
    #[arg(short = 't', long = "trace", value_name = "DIR")]
    named: Vec<PathBuf>,

    /// Further ones
    #[arg(value_name = "TRACE", required_unless_present = "named")]
    traces: Vec<PathBuf>,

    /// Where the joined trace goes; an older trace there is replaced
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,

    /// Say nothing but failures
    #[arg(long, short)]
    quiet: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let traces: Vec<PathBuf> = arguments.named.iter().chain(&arguments.traces).cloned().collect();
    let trace = Trace::read(&traces)?;
    trace.check().map_err(|conflict| {
        Failure::new(conflict)
            .hint("no image can have both: trace the workloads again on the same root, or build an image of each; `minjail build` of both does without it, with `--exclude`")
    })?;
    write_trace(&trace, &arguments.output)?;
    if !arguments.quiet {
        let touches: usize = trace.runs.iter().map(|run| run.touches.len()).sum();
        let runs = if trace.runs.len() == 1 { "one run".to_owned() } else { format!("{} runs", trace.runs.len()) };
        say!("minjail: {runs} with {touches} touches are in {}", arguments.output.display());
        if trace.runs.len() > 1 {
            say!(
                "minjail: an image of it is run as `{}` was; `minjail build` of the traces themselves runs it as the first of them",
                trace.lead().command.join(" ")
            );
        }
    }
    Ok(Exit::Success)
}

/// Writes a trace, until a signal asks for an end.
pub(super) fn write_trace(trace: &Trace, target: &Path) -> Result<(), Failure> {
    stoppable(|told| {
        let written = trace.write(target)?;
        told.look();
        Ok(written.publish().map_err(RecordError::from)?)
    })
}
