//! `minjail diff`: what differs between two locks, traces, images or directories.

use std::ffi::OsString;
use std::io::Write as _;

use super::exit::Exit;
use super::failure::Failure;
use super::side::{Side, is_lock};
use crate::manifest::{Change, Difference, diff};

/// Say what differs between two locks, traces, images or rootfs: exit 1 if anything does
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A lock, a trace, or an image as `-o` spells it
    #[arg(value_name = "A")]
    from: OsString,

    /// The other one
    #[arg(value_name = "B")]
    to: OsString,

    /// Tell it as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let Arguments { from, to, json } = arguments;
    // A lock first: a trace is drawn up as the lock beside it was.
    let (from, to) = if is_lock(to) {
        let to = Side::read(to, None)?;
        (Side::read(from, Some(&to.manifest))?, to)
    } else {
        let one = Side::read(from, None)?;
        let to = Side::read(to, is_lock(from).then_some(&one.manifest))?;
        (one, to)
    };
    let differences = diff(&from.manifest, &to.manifest, from.common(&to));
    answer(&differences, *json);
    Ok(if differences.is_empty() { Exit::Success } else { Exit::No })
}

/// Tells the differences on standard output: they are what was asked for. A closed pipe is no failure.
pub(super) fn answer(differences: &[Difference], json: bool) {
    let mut out = anstream::stdout().lock();
    if json {
        let totals = Totals::of(differences);
        let Totals { added, removed, changed, added_bytes, removed_bytes } = totals;
        let text = serde_json::json!({
            "added": added, "added-bytes": added_bytes, "removed": removed, "removed-bytes": removed_bytes,
            "changed": changed, "differences": differences,
        });
        let _ = writeln!(out, "{text}");
        return;
    }
    for difference in differences {
        let _ = writeln!(out, "{difference}");
    }
    if !differences.is_empty() {
        let Totals { added, removed, changed, added_bytes, removed_bytes } = Totals::of(differences);
        let _ = writeln!(
            out,
            "{added} added ({added_bytes} bytes), {removed} removed ({removed_bytes} bytes), {changed} changed"
        );
    }
}

#[derive(Default)]
struct Totals {
    added: u64,
    removed: u64,
    changed: u64,
    added_bytes: u64,
    removed_bytes: u64,
}

impl Totals {
    fn of(differences: &[Difference]) -> Self {
        let mut totals = Self::default();
        for difference in differences {
            match difference.change {
                Change::Added { bytes } => {
                    totals.added += 1;
                    totals.added_bytes += bytes;
                }
                Change::Removed { bytes } => {
                    totals.removed += 1;
                    totals.removed_bytes += bytes;
                }
                Change::Changed { .. } => totals.changed += 1,
            }
        }
        totals
    }
}
