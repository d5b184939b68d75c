//! `minjail build --locked`: the image that a lock describes, or every way in which the root has left it.

use std::path::Path;

use super::build::{Arguments, from_traces};
use super::failure::Failure;
use super::lock::read_lock;
use super::original::Original;
use super::pack::{Draft, seal};
use super::packing::Prepared;
use crate::image::{KeptLayers, Output};
use crate::manifest::{self, Aspects, Difference, DrawnUp, Given, Manifest, Packages, diff};
use crate::trace::Trace;

/// Builds what the lock at `path` says, or tells of every difference and builds nothing.
pub(super) fn build(
    path: &Path,
    arguments: &Arguments,
    original: Option<&Original>,
    mut prepared: Prepared,
) -> Result<(), Failure> {
    let lock = read_lock(path)?;
    if let Some(original) = original {
        original.check(&lock)?;
    }
    if original.is_none() && arguments.traces.is_empty() && !lock.from.is_empty() {
        return Err(Failure::usage(format!("the lock `{}` is of a slimmed image", path.display())).hint(
            "name the image that it was made from, as `--root oci:DIR`, or a directory that it was unpacked to",
        ));
    }
    prepared.follow(&lock)?;
    // How a slimmed image is run, the whole one has said, and no trace knows.
    let mut draft = if arguments.traces.is_empty() || !lock.from.is_empty() {
        arguments.packing.refuse_choices()?;
        redraw(&lock, arguments, original, &prepared)?
    } else {
        // What has changed since the trace stops the drawing at the first path; the lock tells of all of them.
        let drawn = from_traces(arguments, original, &prepared).and_then(|draft| sealed(draft, &prepared));
        match drawn {
            Ok(mut draft) => {
                // A profile may have said how the image is run; flags that say it are compared.
                if arguments.packing.refuse_choices().is_ok() {
                    draft.manifest.config.clone_from(&lock.config);
                }
                draft
            }
            Err(failure) => {
                let now = redraw(&lock, arguments, original, &prepared)?;
                if diff(&lock, &now.manifest, Aspects::ALL).is_empty() {
                    return Err(failure);
                }
                now
            }
        }
    };
    // Which layers there are is the lock's to say: it alone knows them if they were those of another image.
    draft.manifest.layer_as(&lock);
    draft.originals = originals(&lock, original, &prepared)?;
    if !lock.originals.is_empty() {
        draft.manifest.originals.clone_from(&lock.originals);
        // By these layers directories have other times than the root's, which were seen to be what the lock says.
        draft.manifest.date_directories_as(&lock);
    }
    let differences = diff(&lock, &draft.manifest, Aspects::ALL);
    if !differences.is_empty() {
        return Err(drift(path, &differences, arguments, &prepared));
    }
    // The same but for the reasons: what is written beside the image is the lock as it was given.
    draft.manifest = lock;
    draft.publish(&prepared)
}

/// The layers that the lock says are the whole image's own, from that. They are read, and must amount to what the lock lists.
fn originals(lock: &Manifest, original: Option<&Original>, prepared: &Prepared) -> Result<KeptLayers, Failure> {
    let Some(first) = lock.originals.first() else { return Ok(KeptLayers::new()) };
    let Some(image) = original.and_then(Original::image) else {
        if !prepared.outputs.images.iter().any(Output::has_layers) {
            return Ok(KeptLayers::new());
        }
        let text = format!("layer {} of the lock is {}, as the whole image has it", first.layer, first.diff_id);
        return Err(Failure::usage(text).hint("name the image that was slimmed, as `--root oci:DIR`"));
    };
    let count = lock.entries.iter().map(|entry| entry.layer).max().map_or(0, |last| last as usize + 1);
    let mut from = vec![None; count];
    for original in &lock.originals {
        let place = image.layers.iter().position(|layer| layer.diff_id == Some(original.diff_id));
        let place = place.ok_or_else(|| {
            let text =
                format!("the image has no layer {}, which is layer {} of the lock", original.diff_id, original.layer);
            Failure::usage(text).hint("name the image that was slimmed")
        })?;
        from[original.layer as usize] = Some(place);
    }
    let mut again = lock.clone();
    let mut kept = image.keep_layers(&mut again, &from)?;
    for (found, original) in again.originals.iter_mut().zip(&lock.originals) {
        // What the lock compresses anew is compressed anew, whatever this image has.
        if let (None, Some(layer)) = (original.blob, kept.get_mut(&original.layer)) {
            layer.forget_blob();
            found.blob = None;
        }
    }
    if again == *lock {
        return Ok(kept);
    }
    let found: Vec<String> = diff(lock, &again, Aspects::ALL).iter().map(ToString::to_string).collect();
    Err(Failure::usage("the layers of the image are not what the lock says")
        .hint(format!("name the image that was slimmed; the lock and these layers differ: {}", found.join("; "))))
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
    let root = Original::root_or(original, traced)?;
    let store = trace.map(|trace| trace.store).unwrap_or_default();
    let files = lock.files(&root, &store)?;
    let packages = Packages::read(&root)?;
    let packing = manifest::Packing { name: lock.packing.name.clone(), ..prepared.packing.clone() };
    let config = lock.config.clone();
    let given = Given { files, root: &root, store: &store, packages: &packages, epoch: lock.epoch, packing, config };
    let DrawnUp { mut manifest, sources, .. } = manifest::draw_up(given)?;
    if let Some(original) = original {
        original.adopt(&mut manifest)?;
    }
    sealed(Draft::new(manifest, sources, root, packages), prepared)
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
        failure.hint(
            "what flags have chosen, as `--include` or `--stat-only`, or a profile's `files`, no trace knows: give the same flags again",
        )
    }
}
