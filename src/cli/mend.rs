//! An image that lacked files, with these files: what `minjail verify --repair` writes.
//!
//! In: an image's manifest and its unpacked tree, and runs that touch what was missed in a jail of it. Out: the image with
//! what these runs need of the host besides. What the image has already stays as it is.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;

use super::base::Ready;
use super::failure::Failure;
use super::lock::read_lock;
use super::pack::Draft;
use super::packing::{Packing, Prepared};
use super::side::{Side, of_image};
use crate::files;
use crate::image::{Output, Reading, lock_beside};
use crate::manifest::{self, DrawnUp, Entry, Given, Kind, Layers, Manifest, Packages, Source, Sources};
use crate::path::JailPath;
use crate::root::Root;
use crate::trace::{Run, Trace};

/// What is to be mended.
pub(super) struct Broken<'a> {
    pub(super) manifest: Manifest,
    /// Where it is unpacked.
    tree: &'a Path,
}

impl<'a> Broken<'a> {
    /// What the lock beside the image says of it, or, without one, what it says itself.
    pub(super) fn read(
        name: &OsStr,
        ready: &'a Ready,
        packing: &Packing,
        prepared: &mut Prepared,
    ) -> Result<Self, Failure> {
        let place = Output::parse(name).ok();
        let lock = place.as_ref().and_then(Output::path).map(lock_beside).filter(|lock| lock.is_file());
        let mut manifest = match (lock, &ready.image) {
            (Some(lock), _) => {
                packing.refuse_other_form(&lock)?;
                let lock = read_lock(&lock)?;
                prepared.follow(&lock)?;
                lock
            }
            (None, Some(image)) => of_image(image)?.manifest,
            (None, None) => Side::read(name, None, &Reading::default())?.manifest,
        };
        let name = manifest.packing.name.clone();
        manifest.packing = manifest::Packing { name, ..prepared.packing.clone() };
        Ok(Self { manifest, tree: &ready.base.tree })
    }

    /// The image with all that `runs` need of `host`.
    pub(super) fn mended(&self, runs: &[Run], host: &Root, prepared: &Prepared) -> Result<Draft, Failure> {
        let mut trace = Trace { runs: runs.to_vec(), ..Trace::default() };
        for run in &mut trace.runs {
            // The host's accounts are the host's, wherever the runs were made.
            run.header.root = "/".into();
        }
        trace.runs.sort();
        let (files, notes) = files::needed(&trace, host, &prepared.chosen.policy)?;
        let packages = Packages::read(host)?;
        let Manifest { epoch, packing, config, .. } = self.manifest.clone();
        let store = std::collections::BTreeMap::new();
        let given = Given { files, root: host, store: &store, packages: &packages, epoch, packing, config };
        let DrawnUp { manifest: more, sources, .. } = manifest::draw_up(given)?;
        let (manifest, sources) = joined(&self.manifest, &more, &sources, host);
        Ok(Draft { notes, ..Draft::new(manifest, sources, Root::open(self.tree)?, packages) })
    }
}

/// The image's entries, and those of `more` at paths that the image has not, or as a name alone.
fn joined(image: &Manifest, more: &Manifest, sources: &Sources, host: &Root) -> (Manifest, Sources) {
    let kept: Vec<&Entry> = image.entries.iter().filter(|entry| !entry.kind.is_name_only()).collect();
    let known: BTreeSet<&JailPath> = kept.iter().map(|entry| &entry.path).collect();
    let added: Vec<&Entry> = more.entries.iter().filter(|entry| !known.contains(&entry.path)).collect();
    let new: BTreeSet<&JailPath> = added.iter().map(|entry| &entry.path).collect();
    let mut all = Sources::new();
    for entry in kept.iter().filter(|entry| matches!(entry.kind, Kind::File { .. })) {
        all.insert(entry.path.clone(), Source::Root(None));
    }
    let mut manifest = image.clone();
    manifest.forget_originals();
    manifest.entries = kept.into_iter().cloned().collect();
    let names = image.entries.iter().filter(|entry| entry.kind.is_name_only() && !new.contains(&entry.path));
    manifest.entries.extend(names.cloned());
    for entry in added {
        let mut entry = entry.clone();
        let mut content = entry.path.clone();
        if let Kind::HardLink { to } = &entry.kind {
            // The other name is the image's own: this one gets the content by itself.
            if !new.contains(to) {
                content = to.clone();
                let other = more.entries.iter().find(|other| other.path == content);
                entry.kind = other.expect("a hard link leads to an entry").kind.clone();
            }
        }
        if let Some(source) = sources.get(&content).filter(|_| matches!(entry.kind, Kind::File { .. })) {
            let source = match source {
                // The tree that the others are read from is the image's.
                Source::Root(_) => Source::Stored(content.below(host.path())),
                other => other.clone(),
            };
            all.insert(entry.path.clone(), source);
        }
        if let Some(made) = more.made.get(&entry.path) {
            manifest.made.insert(entry.path.clone(), made.clone());
        }
        manifest.entries.push(entry);
    }
    manifest.entries.sort_by(|one, other| one.path.cmp(&other.path));
    if manifest.packing.layers == Layers::One {
        manifest.assign_layers(|_| 0);
    } else {
        manifest.layer_as(image);
    }
    (manifest, all)
}
