//! `minjail diff`: what differs between two locks, traces, images or directories.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use super::exit::Exit;
use super::failure::Failure;
use super::reading::Reading;
use super::side::{Side, is_image, is_lock, packages};
use crate::manifest::{self, Change, Difference, Entry, Group, Weight, diff};
use crate::path::JailPath;
use crate::report::summary::size;

/// Say what differs between two locks, traces, images or rootfs: exit 1 if anything does
///
/// With `--by`, how much each side has: `minjail diff oci:big oci:small --by package --by directory`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A lock, a trace, or an image as `-o` spells it
    #[arg(value_name = "A")]
    from: OsString,

    /// The other one
    #[arg(value_name = "B")]
    to: OsString,

    #[command(flatten)]
    reading: Reading,

    /// Tell how much of each package both have, or in each directory, and not every path
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    by: Vec<By>,

    /// Tell it as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
enum By {
    Package,
    Directory,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let Arguments { from, to, json, by, reading } = arguments;
    let names = [from, to];
    let reading = &reading.get(names.into_iter().any(|name| is_image(name)))?;
    // A lock first: a trace is drawn up as the lock beside it was.
    let (from, to) = if is_lock(to) {
        let to = Side::read(to, None, reading)?;
        (Side::read(from, Some(&to.manifest), reading)?, to)
    } else {
        let one = Side::read(from, None, reading)?;
        let to = Side::read(to, is_lock(from).then_some(&one.manifest), reading)?;
        (one, to)
    };
    let differences = diff(&from.manifest, &to.manifest, from.common(&to));
    if by.is_empty() {
        answer(&differences, *json)?;
    } else {
        weigh([&from, &to], names, by, *json)?;
    }
    Ok(if differences.is_empty() { Exit::Success } else { Exit::No })
}

/// Tells how much both sides have of each package, or in each directory.
fn weigh(sides: [&Side; 2], names: [&OsString; 2], by: &[By], json: bool) -> Result<(), Failure> {
    let [from, to] = sides.map(|side| &side.manifest);
    let mut tables = Vec::new();
    for by in by.iter().copied().collect::<BTreeSet<_>>() {
        let (name, groups) = match by {
            By::Package => ("package", manifest::weigh(from, to, owners(&sides, &names)?)),
            By::Directory => ("directory", manifest::weigh(from, to, |entry| top(&entry.path))),
        };
        tables.push((name, groups));
    }
    if json {
        let tables = tables.iter().map(|(name, groups)| (format!("by-{name}"), serde_json::json!(groups)));
        return super::answer(&format!("{}\n", serde_json::Value::Object(tables.collect())));
    }
    let mut lines = Vec::new();
    for (name, groups) in tables {
        let cell = |weight: &Weight| format!("{:>9} {:>9}", size(weight.bytes), format!("({})", weight.files));
        let total = |side: fn(&Group) -> Weight| {
            groups.iter().map(side).fold(Weight::default(), |sum, weight| Weight {
                files: sum.files + weight.files,
                bytes: sum.bytes + weight.bytes,
            })
        };
        let total = Group { name: "all".to_owned(), from: total(|group| group.from), to: total(|group| group.to) };
        lines.push(format!("{:>19} -> {:>19}  {name}\n", "bytes   (files)", "bytes   (files)"));
        for group in groups.iter().chain([&total]) {
            lines.push(format!("{} -> {}  {}\n", cell(&group.from), cell(&group.to), group.name));
        }
    }
    super::answer(&lines.concat())
}

/// Of which package a file is: a lock and a trace say it, and an image's and a directory's own databases.
fn owners(sides: &[&Side], names: &[&OsString]) -> Result<impl Fn(&Entry) -> String + use<>, Failure> {
    let said = sides.iter().flat_map(|side| &side.manifest.entries);
    let mut said: BTreeMap<JailPath, String> =
        said.filter_map(|entry| Some((entry.path.clone(), entry.package.clone()?))).collect();
    for (name, side) in names.iter().zip(sides) {
        let Some(packages) = packages(name, side)? else { continue };
        for entry in &side.manifest.entries {
            let owner = packages.owner(&entry.path).map(ToString::to_string);
            owner.map(|owner| said.entry(entry.path.clone()).or_insert(owner));
        }
    }
    Ok(move |entry: &Entry| said.get(&entry.path).cloned().unwrap_or_else(|| "of no package".to_owned()))
}

/// The first two names of the directory that a path is in.
fn top(path: &JailPath) -> String {
    let above = path.parent().unwrap_or_else(JailPath::root);
    let mut top = JailPath::root();
    for name in above.components().take(2) {
        top = top.join(name);
    }
    top.to_string()
}

/// Tells the differences: they are what was asked for.
pub(super) fn answer(differences: &[Difference], json: bool) -> Result<(), Failure> {
    let Totals { added, removed, changed, added_bytes, removed_bytes } = Totals::of(differences);
    if json {
        let text = serde_json::json!({
            "added": added, "added-bytes": added_bytes, "removed": removed, "removed-bytes": removed_bytes,
            "changed": changed, "differences": differences,
        });
        return super::answer(&format!("{text}\n"));
    }
    let mut lines: Vec<String> = differences.iter().map(|difference| format!("{difference}\n")).collect();
    if !differences.is_empty() {
        lines.push(format!(
            "{added} added ({added_bytes} bytes), {removed} removed ({removed_bytes} bytes), {changed} changed\n"
        ));
    }
    super::answer(&lines.concat())
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
                Change::Added { bytes, .. } => {
                    totals.added += 1;
                    totals.added_bytes += bytes;
                }
                Change::Removed { bytes, .. } => {
                    totals.removed += 1;
                    totals.removed_bytes += bytes;
                }
                Change::Changed { .. } => totals.changed += 1,
            }
        }
        totals
    }
}
