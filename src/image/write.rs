//! Writing images: every output is begun, each layer is made once for all of them, then each is ended and published.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use super::error::{ImageError, failed};
use super::extra::document;
use super::form::Form;
use super::kept::{CopyError, KeptLayer, KeptLayers};
use super::output::Output;
use super::reference::Reference;
use super::replace::is_rootfs_or_empty;
use crate::layer::{self, Compression, Layer, Sink};
use crate::manifest::{Digest, Entry, Kind};
use crate::publish::{Stage, Turn, own_place, publish_all};
use crate::tree::{Notes, Tree};

/// How images are written.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// Of the layers in OCI layouts and archives. A docker archive has its layer uncompressed.
    pub compression: Compression,
    /// Replace what is there.
    pub force: bool,
    /// What the image is called where the output does not say.
    pub name: &'a Reference,
    /// All that it is called, where a form has room for several names; `name` alone if nothing is said here.
    pub names: &'a [Reference],
    /// How many threads compress.
    pub threads: NonZeroUsize,
    /// The layers that are not made but taken as they are; of an image that has more layers than the manifest, all.
    pub originals: &'a KeptLayers,
    /// Where a layer may wait whose digest must stand before it, when it goes to standard output.
    pub scratch: &'a Path,
    /// What `-` means.
    pub standard_output: BorrowedFd<'a>,
}

/// How far the writing is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub done: u64,
    pub total: u64,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub output: Output,
    /// The size of the file, or of all files in the layout; of a rootfs, that of its contents.
    pub bytes: u64,
    /// Of all forms but rootfs, the lowest first.
    pub layers: Vec<Layer>,
    /// Of the image configuration: what docker and podman call the image's ID.
    pub config: Option<Digest>,
    /// Of the image manifest, of the OCI forms: what registries call the image's digest.
    pub manifest: Option<Digest>,
    /// What is not as it should be in a rootfs.
    pub notes: Notes,
}

/// Writes all outputs, and the manifest as a lock to each of `locks`. All are on the disk before the first gets its name; then
/// the locks get theirs, and the images last, so that who sees an image sees its lock. Whatever fails, all is as it was before. Standard output, which cannot be taken back, is written to only after all outputs were begun.
///
/// # Errors
/// See [`ImageError`].
pub fn write_all(
    tree: &Tree<'_>,
    outputs: &[Output],
    locks: &[PathBuf],
    options: &Options<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Written>, ImageError> {
    // Everything that can fail early fails here: the date, the outputs that exist, the directories that do not.
    check_distinct(outputs, locks)?;
    let has_tar = outputs.iter().any(|output| !matches!(output, Output::Rootfs(_)));
    let parts = Parts::of(tree, options.originals, has_tar)?;
    config(tree, Vec::new(), options.originals)?;
    let lock = |path: &PathBuf| Stage::file(path, options.force);
    let locks = locks.iter().map(lock).collect::<Result<Vec<_>, _>>()?;
    let begun =
        outputs.iter().map(|output| Begun::new(output, parts.layers.len(), options)).collect::<Result<Vec<_>, _>>()?;

    let mut done = 0;
    let total = parts.total(&begun);
    let ended = make(tree, begun, &parts, options, &mut |bytes| {
        done += bytes;
        progress(Progress { done, total });
    })?;

    if outputs.is_empty() {
        tree.seal(options.threads, &|_, _| ())?;
    }
    // The contents have given the manifest their digests on the way.
    let fill = |(stage, file): (Stage, fs_err::File)| {
        stage.fill(file, |writer| tree.manifest.write_json(writer)).map(|()| stage)
    };
    let locks = locks.into_iter().map(fill).collect::<Result<Vec<_>, _>>()?;

    let stages = locks.iter().chain(ended.iter().filter_map(|ended| ended.stage.as_ref()));
    let _turn = Turn::take(stages.map(Stage::target))?;
    let (mut stages, mut all) = (locks, Vec::with_capacity(ended.len()));
    for (output, Ended { stage, bytes, layers, config, manifest, notes }) in outputs.iter().zip(ended) {
        stages.extend(stage);
        all.push(Written { output: output.clone(), bytes, layers, config, manifest, notes });
    }
    publish_all(stages)?;
    Ok(all)
}

/// What is to be made of an output, at a place where nobody sees it yet.
enum Begun {
    Rootfs(Stage),
    /// All of the tree is one layer.
    Bare(Packed),
    /// The layers are as the manifest says.
    Image(Packed),
}

/// A form, and the layers that it has so far.
struct Packed {
    compression: Compression,
    form: Form,
    layers: Vec<Layer>,
}

/// What was made, and only lacks its name.
#[derive(Default)]
pub(super) struct Ended {
    /// `None` for standard output.
    pub(super) stage: Option<Stage>,
    pub(super) bytes: u64,
    pub(super) layers: Vec<Layer>,
    pub(super) config: Option<Digest>,
    pub(super) manifest: Option<Digest>,
    pub(super) notes: Notes,
}

impl Begun {
    fn new(output: &Output, layers: usize, options: &Options<'_>) -> Result<Self, ImageError> {
        let packed = |compression| {
            let form = Form::begin(output, layers, options)?;
            Ok(Packed { compression, form, layers: Vec::new() })
        };
        match output {
            Output::Rootfs(directory) => {
                Ok(Self::Rootfs(Stage::directory(directory, options.force, 0o700, is_rootfs_or_empty)?))
            }
            Output::Layer(file) => packed(file.compression()).map(Self::Bare),
            Output::Oci { .. } | Output::OciArchive { .. } => packed(options.compression).map(Self::Image),
            Output::DockerArchive { .. } => packed(Compression::None).map(Self::Image),
        }
    }
}

/// A layer that is to be made, or taken as it is.
struct Part<'a> {
    body: Body<'a>,
    /// Before compression.
    size: u64,
}

enum Body<'a> {
    Entries(Vec<Cow<'a, Entry>>),
    Original(&'a KeptLayer),
}

impl<'a> Part<'a> {
    fn of(entries: Vec<Cow<'a, Entry>>) -> Result<Self, ImageError> {
        let size = layer::size(&references(&entries))?;
        Ok(Self { body: Body::Entries(entries), size })
    }

    fn original(layer: &'a KeptLayer) -> Self {
        Self { body: Body::Original(layer), size: layer.size }
    }
}

fn references<'a>(entries: &'a [Cow<'_, Entry>]) -> Vec<&'a Entry> {
    entries.iter().map(AsRef::as_ref).collect()
}

/// What is to be made of a tree.
struct Parts<'a> {
    /// The layers of an image.
    layers: Vec<Part<'a>>,
    /// The layer of all; the same as that of an image which has one.
    bare: Part<'a>,
    /// The size of the contents.
    content: u64,
}

impl<'a> Parts<'a> {
    /// Not every tree has a form in layers, so that where nobody wants any (`has_tar`) there are none.
    fn of(tree: &Tree<'a>, originals: &'a KeptLayers, has_tar: bool) -> Result<Self, ImageError> {
        let mut layers = Vec::new();
        if !has_tar {
            return Ok(Self { layers, bare: Part::of(Vec::new())?, content: content_size(tree) });
        }
        let mut made = tree.manifest.layers().into_iter();
        for number in 0.. {
            layers.push(match (originals.get(&number), made.next()) {
                (Some(original), _) => Part::original(original),
                (None, Some(entries)) => Part::of(entries)?,
                (None, None) => break,
            });
        }
        let bare = Part::of(tree.manifest.entries.iter().map(Cow::Borrowed).collect())?;
        Ok(Self { layers, bare, content: content_size(tree) })
    }

    /// What is packed: entries, and whether it is a layer of the images and whether it is the bare layer.
    fn passes(&self) -> Vec<(&Part<'a>, bool, bool)> {
        if matches!(self.layers.as_slice(), [Part { body: Body::Entries(_), .. }]) {
            return vec![(&self.bare, true, true)];
        }
        self.layers.iter().map(|part| (part, true, false)).chain([(&self.bare, false, true)]).collect()
    }

    /// How many bytes will pass.
    fn total(&self, begun: &[Begun]) -> u64 {
        let trees = begun.iter().filter(|begun| matches!(begun, Begun::Rootfs(_))).count();
        let images = begun.iter().any(|begun| matches!(begun, Begun::Image(_)));
        let bare = begun.iter().any(|begun| matches!(begun, Begun::Bare(_)));
        let passes =
            self.passes().into_iter().filter(|(_, of_images, of_bare)| images && *of_images || bare && *of_bare);
        trees as u64 * self.content + passes.map(|(part, ..)| part.size).sum::<u64>()
    }
}

fn make(
    tree: &Tree<'_>,
    mut begun: Vec<Begun>,
    parts: &Parts<'_>,
    options: &Options<'_>,
    advance: &mut dyn FnMut(u64),
) -> Result<Vec<Ended>, ImageError> {
    let mut notes = Vec::new();
    for one in &begun {
        if let Begun::Rootfs(stage) = one {
            notes.push(tree.write_to(stage.path(), advance)?);
        }
    }
    for (part, of_images, of_bare) in parts.passes() {
        let wanted = begun.iter_mut().filter_map(|one| match one {
            Begun::Image(packed) if of_images => Some(packed),
            Begun::Bare(packed) if of_bare => Some(packed),
            _ => None,
        });
        pack(tree, part, wanted.collect(), options, advance)?;
    }
    let mut notes = notes.into_iter();
    let end = |one| match one {
        Begun::Rootfs(stage) => {
            stage.sync()?;
            let notes = notes.next().expect("every rootfs has its notes");
            Ok(Ended { stage: Some(stage), bytes: parts.content, notes, ..Ended::default() })
        }
        Begun::Bare(Packed { form, layers, .. }) | Begun::Image(Packed { form, layers, .. }) => {
            let config = config(tree, layers.iter().map(|layer| layer.diff_id).collect(), options.originals)?;
            form.end(layers, &config, options)
        }
    };
    begun.into_iter().map(end).collect()
}

/// Makes one layer for all who want it.
fn pack(
    tree: &Tree<'_>,
    part: &Part<'_>,
    mut wanted: Vec<&mut Packed>,
    options: &Options<'_>,
    advance: &mut dyn FnMut(u64),
) -> Result<(), ImageError> {
    if let Body::Original(KeptLayer { blob: Some(blob), .. }) = &part.body {
        // What has layers as others compressed them has this one so too.
        for packed in wanted.extract_if(.., |packed| packed.form.has_blobs()) {
            take(part, blob, packed)?;
            advance(part.size);
        }
    }
    let mut sinks: Vec<(Compression, Sink<'_>)> = Vec::with_capacity(wanted.len());
    for packed in &mut wanted {
        sinks.push((packed.compression, Box::new(packed.form.open_layer(part.size)?)));
    }
    if sinks.is_empty() {
        return Ok(());
    }
    let layers = match &part.body {
        Body::Entries(entries) => layer::pack(tree, &references(entries), sinks, options.threads, advance)?,
        Body::Original(original) => {
            let layers = layer::repack(&mut original.stream()?, sinks, options.threads, advance)?;
            layers.iter().try_for_each(|layer| original.check(layer.diff_id))?;
            layers
        }
    };
    for (packed, layer) in wanted.into_iter().zip(layers) {
        packed.form.close_layer(&layer)?;
        packed.layers.push(layer);
    }
    Ok(())
}

/// Takes a blob as it lies there.
fn take(part: &Part<'_>, blob: &Layer, packed: &mut Packed) -> Result<(), ImageError> {
    let Body::Original(original) = &part.body else { unreachable!("only an original has a blob") };
    // An image may have one blob as several layers.
    if !packed.layers.iter().any(|known| known.digest == blob.digest) {
        let mut sink = packed.form.open_layer(part.size.max(blob.size))?;
        original.copy(blob, &mut sink).map_err(|error| match error {
            CopyError::Read(error) => ImageError::Original(error),
            CopyError::Write(source) => failed("write", sink.path(), source),
        })?;
        packed.form.close_layer(blob)?;
    }
    packed.layers.push(blob.clone());
    Ok(())
}

/// The canonical image configuration.
fn config(tree: &Tree<'_>, diff_ids: Vec<Digest>, originals: &KeptLayers) -> Result<Vec<u8>, ImageError> {
    let originals = originals.keys().copied().collect();
    document(tree.manifest, diff_ids, &originals).ok_or(ImageError::Epoch(tree.manifest.epoch))
}

/// Refuses outputs and locks of which two would be written to one place, however it is spelled.
///
/// # Errors
/// [`ImageError::Twice`].
pub fn check_distinct(outputs: &[Output], locks: &[PathBuf]) -> Result<(), ImageError> {
    let mut known = BTreeSet::new();
    for place in outputs.iter().map(Output::path).chain(locks.iter().map(|lock| Some(lock.as_path()))) {
        let canonical = |path: &Path| own_place(path).unwrap_or_else(|| path.to_owned());
        if !known.insert(place.map(canonical)) {
            let path = place.map_or("standard output".to_owned(), |path| format!("`{}`", path.display()));
            return Err(ImageError::Twice { path });
        }
    }
    Ok(())
}

fn content_size(tree: &Tree<'_>) -> u64 {
    let sizes = tree.manifest.entries.iter().map(|entry| match entry.kind {
        Kind::File { size, .. } => size,
        _ => 0,
    });
    sizes.sum()
}
