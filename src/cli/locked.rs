//! `minjail build --locked`: the image that a lock describes, or every way in which the root has left it.

use std::path::Path;

use super::build::{Arguments, from_traces};
use super::failure::Failure;
use super::original::Original;
use super::pack::{Draft, Prepared, seal};
use crate::manifest::{self, Aspects, Difference, DrawnUp, Given, Manifest, Packages, diff};
use crate::report::summary::LeftOut;
use crate::root::Root;
use crate::trace::Trace;

/// Builds what the lock at `path` says, or tells of every difference and builds nothing.
pub(super) fn build(
    path: &Path,
    arguments: &Arguments,
    original: Option<&Original>,
    mut prepared: Prepared,
) -> Result<(), Failure> {
    let lock = read_lock(path)?;
    original.map_or(Ok(()), |original| original.check(&lock))?;
    if original.is_none() && arguments.traces.is_empty() && !lock.from.is_empty() {
        return Err(Failure::usage(format!("the lock `{}` is of a slimmed image", path.display())).hint(
            "name the image that it was made from, as `--root oci:DIR`, or a directory that it was unpacked to",
        ));
    }
    prepared.follow(&lock)?;
    let mut draft = if arguments.traces.is_empty() {
        redraw(&lock, arguments, original, &prepared)?
    } else {
        // What has changed since the trace stops the drawing at the first path; the lock tells of all of them.
        let drawn = from_traces(arguments, original, &prepared).and_then(|draft| sealed(draft, &prepared));
        drawn.or_else(|failure| {
            let now = redraw(&lock, arguments, original, &prepared)?;
            if diff(&lock, &now.manifest, Aspects::ALL).is_empty() { Err(failure) } else { Ok(now) }
        })?
    };
    // Which layers there are is the lock's to say: it alone knows them if they were those of another image.
    draft.manifest.layer_as(&lock);
    let differences = diff(&lock, &draft.manifest, Aspects::ALL);
    if !differences.is_empty() {
        return Err(drift(path, &differences, arguments, &prepared));
    }
    // The same but for the reasons: what is written beside the image is the lock as it was given.
    draft.manifest = lock;
    draft.publish(&prepared)
}

/// The same with every content read, as it must be to be compared.
fn sealed(draft: Draft, prepared: &Prepared) -> Result<Draft, Failure> {
    seal(&draft.tree(), prepared.quiet)?;
    Ok(draft)
}

/// What the lock's paths are now.
fn redraw(
    lock: &Manifest,
    arguments: &Arguments,
    original: Option<&Original>,
    prepared: &Prepared,
) -> Result<Draft, Failure> {
    let trace = match arguments.traces.as_slice() {
        [] => None,
        traces => Some(Trace::read(traces)?),
    };
    let traced = trace.as_ref().map_or(Path::new("/"), |trace| &trace.lead().root);
    let root = original.map_or_else(|| Ok(Root::open(traced)?), Original::root)?;
    let store = trace.map(|trace| trace.store).unwrap_or_default();
    let files = lock.files(&root, &store)?;
    let packages = Packages::read(&root)?;
    let packing = manifest::Packing { name: lock.packing.name.clone(), ..prepared.packing.clone() };
    let config = lock.config.clone();
    let given = Given { files, root: &root, store: &store, packages: &packages, epoch: lock.epoch, packing, config };
    let DrawnUp { mut manifest, sources, .. } = manifest::draw_up(given)?;
    original.map_or(Ok(()), |original| original.adopt(&mut manifest))?;
    let draft = Draft {
        manifest,
        sources,
        root,
        packages,
        notes: Vec::new(),
        gaps: std::collections::BTreeMap::new(),
        left_out: LeftOut::default(),
        coverage: None,
    };
    sealed(draft, prepared)
}

/// Tells of every difference.
fn drift(path: &Path, differences: &[Difference], arguments: &Arguments, prepared: &Prepared) -> Failure {
    if prepared.json {
        say!("{}", serde_json::json!({ "differences": differences }));
    } else {
        for difference in differences {
            say!("{difference}");
        }
    }
    let count = differences.len();
    let (places, differ) = if count == 1 { ("path", "differs") } else { ("paths", "differ") };
    let failure = Failure::usage(format!("{count} {places} {differ} from the lock `{}`", path.display()));
    let failure =
        failure.hint("nothing was built; without `--locked` the image gets what is there now, and a new lock");
    if arguments.traces.is_empty() {
        failure.hint("a file that the run itself has changed is in the trace as it was before: name that with `-t`")
    } else {
        failure
    }
}

/// Reads a lock.
pub(super) fn read_lock(path: &Path) -> Result<Manifest, Failure> {
    let text = fs_err::read_to_string(path).map_err(|error| {
        Failure::new(error).hint("a lock is the file beside an image, named after it with `.lock` at the end")
    })?;
    Ok(Manifest::parse(&text)?)
}
