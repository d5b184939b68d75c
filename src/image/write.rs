//! Writing images: every output is begun, the layer is made once for all of them, then each is ended and published.

use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::path::Path;

use super::ImageError;
use super::form::Form;
use super::oci;
use super::output::Output;
use super::reference::Reference;
use super::stage::Stage;
use crate::layer::{self, Compression, Layer, Sink};
use crate::manifest::Kind;
use crate::tree::{Digest, Notes, Tree};

/// How images are written.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// Of the layers in OCI layouts and archives. A docker archive has its layer uncompressed.
    pub compression: Compression,
    /// Replace what is there.
    pub force: bool,
    /// What the image is called where the output does not say.
    pub name: &'a Reference,
    /// How many threads compress.
    pub threads: NonZeroUsize,
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
    /// Of all forms but rootfs.
    pub layer: Option<Layer>,
    /// Of the image configuration: what docker and podman call the image's ID.
    pub config: Option<Digest>,
    /// Of the image manifest, of the OCI forms: what registries call the image's digest.
    pub manifest: Option<Digest>,
    /// What is not as it should be in a rootfs.
    pub notes: Notes,
}

/// Writes one output. See [`write_all`].
///
/// # Errors
/// See [`ImageError`].
pub fn write(
    tree: &Tree<'_>,
    output: &Output,
    options: &Options<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Written, ImageError> {
    let mut written = write_all(tree, std::slice::from_ref(output), options, progress)?;
    Ok(written.pop().expect("one output gives one result"))
}

/// Writes all outputs. Whatever fails, nothing is left of those that were not complete; standard output, which cannot
/// be taken back, is written to only after all outputs were begun.
///
/// # Errors
/// See [`ImageError`].
pub fn write_all(
    tree: &Tree<'_>,
    outputs: &[Output],
    options: &Options<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Written>, ImageError> {
    // Everything that can fail early fails here: the date, the outputs that exist, the directories that do not.
    check_distinct(outputs)?;
    let sizes = Sizes { layer: layer::size(tree)?, content: content_size(tree) };
    config(tree, Digest::of(b""))?;
    let begun = outputs.iter().map(|output| Begun::new(output, sizes.layer, options)).collect::<Result<Vec<_>, _>>()?;

    let mut done = 0;
    let total = sizes.total(&begun);
    let ended = make(tree, begun, &sizes, options, &mut |bytes| {
        done += bytes;
        progress(Progress { done, total });
    })?;

    let mut all = Vec::with_capacity(ended.len());
    for (output, Ended { stage, bytes, layer, config, manifest, notes }) in outputs.iter().zip(ended) {
        stage.map_or(Ok(()), Stage::publish)?;
        all.push(Written { output: output.clone(), bytes, layer, config, manifest, notes });
    }
    Ok(all)
}

/// Writes a file beside an image, as its lock: whole or not at all.
///
/// # Errors
/// See [`ImageError`].
pub fn write_file(target: &Path, force: bool, content: &[u8]) -> Result<(), ImageError> {
    Stage::whole(target, force, content)?.publish()
}

/// What is to be made of an output, at a place where nobody sees it yet.
enum Begun {
    Rootfs(Stage),
    Packed(Compression, Form),
}

/// What was made, and only lacks its name.
#[derive(Default)]
pub(super) struct Ended {
    /// `None` for standard output.
    pub(super) stage: Option<Stage>,
    pub(super) bytes: u64,
    pub(super) layer: Option<Layer>,
    pub(super) config: Option<Digest>,
    pub(super) manifest: Option<Digest>,
    pub(super) notes: Notes,
}

impl Begun {
    fn new(output: &Output, layer_size: u64, options: &Options<'_>) -> Result<Self, ImageError> {
        let compression = match output {
            Output::Rootfs(directory) => {
                return Stage::directory(directory, options.force, 0o700, |_| true).map(Self::Rootfs);
            }
            Output::Layer(file) => file.compression(),
            Output::Oci { .. } | Output::OciArchive { .. } => options.compression,
            Output::DockerArchive { .. } => Compression::None,
        };
        Form::begin(output, layer_size, options).map(|form| Self::Packed(compression, form))
    }
}

struct Sizes {
    layer: u64,
    content: u64,
}

impl Sizes {
    /// How many bytes will pass.
    fn total(&self, begun: &[Begun]) -> u64 {
        let trees = begun.iter().filter(|begun| matches!(begun, Begun::Rootfs(_))).count();
        let layer = if trees < begun.len() { self.layer } else { 0 };
        trees as u64 * self.content + layer
    }
}

fn make(
    tree: &Tree<'_>,
    mut begun: Vec<Begun>,
    sizes: &Sizes,
    options: &Options<'_>,
    advance: &mut dyn FnMut(u64),
) -> Result<Vec<Ended>, ImageError> {
    let mut notes = Vec::new();
    let mut sinks: Vec<(Compression, Sink<'_>)> = Vec::new();
    for one in &mut begun {
        match one {
            Begun::Rootfs(stage) => notes.push(tree.write_to(stage.path(), advance)?),
            Begun::Packed(compression, form) => sinks.push((*compression, Box::new(form.sink()?))),
        }
    }
    let layers = if sinks.is_empty() { Vec::new() } else { layer::pack(tree, sinks, options.threads, advance)? };

    let (mut notes, mut layers) = (notes.into_iter(), layers.into_iter());
    let mut ended = Vec::with_capacity(begun.len());
    for one in begun {
        ended.push(match one {
            Begun::Rootfs(stage) => {
                stage.sync()?;
                let notes = notes.next().expect("every rootfs has its notes");
                Ended { stage: Some(stage), bytes: sizes.content, notes, ..Ended::default() }
            }
            Begun::Packed(_, form) => {
                let layer = layers.next().expect("every sink has its layer");
                let config = config(tree, layer.diff_id)?;
                form.end(layer, &config, options.name)?
            }
        });
    }
    Ok(ended)
}

/// The canonical image configuration.
fn config(tree: &Tree<'_>, diff_id: Digest) -> Result<Vec<u8>, ImageError> {
    let config = oci::image_config(tree.manifest, diff_id).ok_or(ImageError::Epoch(tree.manifest.epoch))?;
    Ok(oci::text(&config))
}

fn check_distinct(outputs: &[Output]) -> Result<(), ImageError> {
    for (number, output) in outputs.iter().enumerate() {
        if outputs[..number].iter().any(|other| other.path() == output.path()) {
            let path = output.path().map_or("standard output".to_owned(), |path| format!("`{}`", path.display()));
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
