//! `minjail check`: every file of an image, or of a running system, against the lock.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::diff::answer;
use super::exit::Exit;
use super::failure::Failure;
use super::lock::read_lock;
use super::reading::Reading;
use super::side::{Side, draw_directory, is_image};
use crate::image::{Output, lock_beside};
use crate::manifest::{Aspect, Aspects, Change, Difference, Digest, Manifest, Packages, diff};
use crate::root::Root;

/// Check every file of an image, a rootfs or a running system against the lock: exit 1 if anything differs
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// An image as `-o` spells it; or a directory that plays `/`, of which only what the lock lists is checked
    #[arg(value_name = "OUT")]
    checked: OsString,

    /// The lock [default: the one beside the image]
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,

    #[command(flatten)]
    reading: Reading,

    /// Tell it as JSON
    #[arg(long)]
    json: bool,

    /// Tell only what differs
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let lock_path = lock_path(arguments)?;
    let lock = read_lock(&lock_path)?;
    let system = Path::new(&arguments.checked);
    let reading = arguments.reading.get(is_image(&arguments.checked))?;
    let listed = lock.entries.len();
    let (differences, unchecked) = if system.is_dir() {
        check_system(lock, system)?
    } else {
        let lock = Side { manifest: lock, knows: Aspects::ALL, layers: Vec::new(), image: None };
        let side = Side::read(&arguments.checked, None, &reading)?;
        let mut differences = originals(&lock.manifest, &side.layers);
        differences.extend(diff(&lock.manifest, &side.manifest, lock.common(&side)));
        if differences.is_empty() {
            differences.extend(departures(&lock.manifest, &side)?);
        }
        (differences, 0)
    };
    answer(&differences, arguments.json)?;
    if !arguments.quiet && !arguments.json {
        let count = listed - unchecked;
        let made = match unchecked {
            0 => String::new(),
            count => format!("; {count} are minjail's own, and no system has them so"),
        };
        let result = if differences.is_empty() { "all is as the lock says" } else { "not all is as the lock says" };
        say!("minjail: checked {count} paths against {}: {result}{made}", lock_path.display());
    }
    Ok(if differences.is_empty() { Exit::Success } else { Exit::No })
}

/// Which layers of an image are not those of another image that the lock says they are.
fn originals(lock: &Manifest, layers: &[(Option<Digest>, Option<Digest>)]) -> Vec<Difference> {
    let text = |number: u32, digest: Option<Digest>| {
        format!("{number} {}", digest.map_or_else(|| "none".to_owned(), |digest| digest.to_string()))
    };
    let mut aspects = Vec::new();
    // A tree and a bare layer have no layers of which anybody speaks.
    for original in lock.originals.iter().filter(|_| layers.iter().any(|(_, diff_id)| diff_id.is_some())) {
        let number = original.layer;
        let (blob, diff_id) = layers.get(number as usize).copied().unwrap_or_default();
        let mut note = |what, from: Digest, to: Option<Digest>| {
            if to != Some(from) {
                aspects.push(Aspect { what, from: text(number, Some(from)), to: text(number, to) });
            }
        };
        note("original layer", original.diff_id, diff_id);
        // In a docker archive no layer is compressed.
        if let (Some(said), Some(found)) = (original.blob, blob) {
            note("blob of original layer", said, Some(found));
        }
    }
    let has_any = !aspects.is_empty();
    has_any.then_some(Difference { path: None, change: Change::Changed { aspects } }).into_iter().collect()
}

/// In what an image of the same files is not made of the bytes that the lock describes. A tree is not.
fn departures(lock: &Manifest, side: &Side) -> Result<Option<Difference>, Failure> {
    let aspects = side.image.as_ref().map_or(Ok(Vec::new()), |image| image.departures(lock))?;
    Ok((!aspects.is_empty()).then_some(Difference { path: None, change: Change::Changed { aspects } }))
}

fn lock_path(arguments: &Arguments) -> Result<PathBuf, Failure> {
    if let Some(lock) = &arguments.lock {
        return Ok(lock.clone());
    }
    if Path::new(&arguments.checked).is_dir() {
        return Err(Failure::usage("no lock is named").hint("name it with `--lock FILE`"));
    }
    let output = Output::parse(&arguments.checked)?;
    let path = output
        .path()
        .ok_or_else(|| Failure::usage("standard input cannot be checked").hint("write the image to a file first"))?;
    Ok(lock_beside(path))
}

/// What differs in a system that has the lock's files among others, and how many paths cannot be compared.
fn check_system(mut lock: Manifest, directory: &Path) -> Result<(Vec<Difference>, usize), Failure> {
    let root = Root::open(directory)?;
    let made: BTreeSet<_> = lock.made_paths().cloned().collect();
    let mut files = lock.files(&root, &BTreeMap::new())?;
    files.wanted.retain(|path, _| !made.contains(path));
    let packages = Packages::read(&root)?;
    let present = draw_directory(files, &root, &packages, lock.packing.mtime)?;
    lock.entries.retain(|entry| !made.contains(&entry.path));
    // A small tree has no database that would say whose its files are.
    let aspects =
        Aspects { packing: false, config: false, times: false, packages: !packages.is_empty(), ..Aspects::ALL };
    Ok((diff(&lock, &present, aspects), made.len()))
}
