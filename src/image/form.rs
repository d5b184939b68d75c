//! The forms that hold layers: what stands before each, where it goes, and what stands behind it.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Read, Seek, Write};
use std::path::{Path, PathBuf};

use fs_err::File;

use super::archive::{Archive, Later};
use super::error::{ImageError, failed};
use super::oci::{self, DockerImage};
use super::output::{Output, Target};
use super::reference::{Reference, Tag};
use super::replace::is_layout_or_empty;
use super::write::{Ended, Options};
use crate::layer::{Layer, tar};
use crate::manifest::Digest;
use crate::publish::{Stage, sync};

/// An output that was begun. Standard output has no [`Stage`].
///
/// Then, for each layer, the lowest first: [`open_layer`](Self::open_layer), the layer's bytes,
/// [`close_layer`](Self::close_layer); and [`end`](Self::end).
pub(super) enum Form {
    Layer {
        file: File,
        stage: Option<Stage>,
    },
    Oci {
        stage: Stage,
        /// What the present layer goes to, under a name that it loses when its digest is known.
        blob: Option<File>,
        tag: Tag,
    },
    /// In a file, a layer goes to its place, and its header, which has its digest, is written when that is known.
    OciArchive {
        archive: Archive,
        stage: Stage,
        layer: Option<Later>,
        tag: Tag,
    },
    /// On standard output there is no way back: the layers wait in files without a name.
    OciStream {
        archive: Archive,
        scratch: PathBuf,
        waiting: Vec<Waiting>,
        tag: Tag,
    },
    DockerArchive {
        archive: Archive,
        stage: Option<Stage>,
        names: Vec<String>,
        is_only: bool,
        reference: Option<Reference>,
    },
}

/// A layer that waits until all are there.
pub(super) struct Waiting {
    file: File,
    /// Its header must have room for 8 GiB and more.
    large: bool,
    /// What it is, once that is known.
    layer: Option<Layer>,
}

const BLOBS: &str = "blobs/sha256";

impl Form {
    /// Begins `output`, which is not a rootfs, for so many layers; nothing is written to standard output yet.
    pub(super) fn begin(output: &Output, layers: usize, options: &Options<'_>) -> Result<Self, ImageError> {
        let tagged = |tag: &Option<Tag>| tag.clone().unwrap_or_else(Tag::latest);
        Ok(match output {
            Output::Rootfs(_) => unreachable!("a rootfs has no layer"),
            Output::Layer(target) => {
                let (file, stage) = open(target, options)?;
                Self::Layer { file, stage }
            }
            Output::Oci { directory, tag } => {
                let stage = Stage::directory(directory, options.force, 0o777, is_layout_or_empty)?;
                let blobs = stage.path().join(BLOBS);
                fs_err::create_dir_all(&blobs).map_err(|source| failed("make", &blobs, source))?;
                Self::Oci { stage, blob: None, tag: tagged(tag) }
            }
            Output::OciArchive { file: target, tag } => {
                let (file, stage) = open(target, options)?;
                let (mut archive, tag) = (Archive::new(file), tagged(tag));
                match stage {
                    Some(stage) => {
                        archive.add("oci-layout", oci::LAYOUT.as_bytes())?;
                        Self::OciArchive { archive, stage, layer: None, tag }
                    }
                    None => Self::OciStream { archive, scratch: options.scratch.to_owned(), waiting: Vec::new(), tag },
                }
            }
            Output::DockerArchive { file: target, reference } => {
                let (file, stage) = open(target, options)?;
                let (archive, reference) = (Archive::new(file), reference.clone());
                Self::DockerArchive { archive, stage, names: Vec::new(), is_only: layers == 1, reference }
            }
        })
    }

    /// True if layers stand in it as blobs, however they are compressed.
    pub(super) fn has_blobs(&self) -> bool {
        matches!(self, Self::Oci { .. } | Self::OciArchive { .. } | Self::OciStream { .. })
    }

    /// Writes what stands before the next layer, and gives the file that takes it; `size` is the layer's before
    /// compression.
    pub(super) fn open_layer(&mut self, size: u64) -> Result<File, ImageError> {
        // What cannot be compressed grows by far less than a sixteenth.
        let large = tar::is_large(size + size / 16);
        let shared = |file: &File| file.try_clone().map_err(|source| failed("write", file.path(), source));
        match self {
            Self::Layer { file, .. } => shared(file),
            Self::Oci { stage, blob, .. } => {
                let file = create(&stage.path().join(BLOBS).join("layer"))?;
                shared(blob.insert(file))
            }
            Self::OciStream { scratch, waiting, .. } => {
                let file = nameless(scratch)?;
                let sink = shared(&file);
                waiting.push(Waiting { file, large, layer: None });
                sink
            }
            Self::OciArchive { archive, layer, .. } => {
                *layer = Some(archive.begin_later(large)?);
                archive.sink()
            }
            Self::DockerArchive { archive, names, is_only, .. } => {
                let name = docker_name(names.len(), *is_only);
                archive.begin(&name, size, tar::is_large(size))?;
                names.push(name);
                archive.sink()
            }
        }
    }

    /// Writes what stands behind a layer, now that it is known.
    pub(super) fn close_layer(&mut self, layer: &Layer) -> Result<(), ImageError> {
        match self {
            Self::Layer { .. } => Ok(()),
            Self::OciStream { waiting, .. } => {
                waiting.last_mut().expect("a layer was opened").layer = Some(layer.clone());
                Ok(())
            }
            Self::Oci { stage, blob, .. } => {
                let blob = blob.take().expect("a layer was opened");
                sync_file(&blob, true)?;
                let place = stage.path().join(blob_name(&layer.digest));
                fs_err::rename(blob.path(), &place).map_err(|source| failed("rename", &place, source))
            }
            Self::OciArchive { archive, layer: later, .. } => {
                let later = later.take().expect("a layer was opened");
                archive.end_later(&later, &blob_name(&layer.digest), layer.size)
            }
            Self::DockerArchive { archive, .. } => archive.end(layer.size),
        }
    }

    /// Writes what stands behind the layers, and everything to the disk. What is left to do is to publish it.
    pub(super) fn end(self, layers: Vec<Layer>, config: &[u8], options: &Options<'_>) -> Result<Ended, ImageError> {
        let ended = Ended { config: Some(Digest::of(config)), ..Ended::default() };
        let documents = |tag: &Tag| Documents::new(config, &layers, tag, options.name);
        match self {
            Self::Layer { file, stage } => {
                sync_file(&file, stage.is_some())?;
                let bytes = layers.iter().map(|layer| layer.size).sum();
                Ok(Ended { stage, bytes, layers, ..Ended::default() })
            }
            Self::Oci { stage, tag, .. } => {
                let documents = documents(&tag);
                let blobs: BTreeMap<Digest, u64> = layers.iter().map(|layer| (layer.digest, layer.size)).collect();
                let bytes = end_layout(&stage, &documents)? + blobs.values().sum::<u64>();
                let manifest = Some(documents.manifest_digest());
                Ok(Ended { stage: Some(stage), bytes, layers, manifest, ..ended })
            }
            Self::OciArchive { archive, stage, tag, .. } => {
                let documents = documents(&tag);
                let bytes = end_archive(archive, &documents, true)?;
                let manifest = Some(documents.manifest_digest());
                Ok(Ended { stage: Some(stage), bytes, layers, manifest, ..ended })
            }
            Self::OciStream { mut archive, waiting, tag, .. } => {
                let documents = documents(&tag);
                archive.add("oci-layout", oci::LAYOUT.as_bytes())?;
                for Waiting { mut file, large, layer } in waiting {
                    let layer = layer.expect("every layer was closed");
                    archive.begin(&blob_name(&layer.digest), layer.size, large)?;
                    copy(&mut file, &mut archive.sink()?)?;
                    archive.end(layer.size)?;
                }
                let bytes = end_archive(archive, &documents, false)?;
                let manifest = Some(documents.manifest_digest());
                Ok(Ended { bytes, layers, manifest, ..ended })
            }
            Self::DockerArchive { archive, stage, names, reference, .. } => {
                let called = match &reference {
                    Some(reference) => std::slice::from_ref(reference),
                    None if options.names.is_empty() => std::slice::from_ref(options.name),
                    None => options.names,
                };
                let bytes = end_docker(archive, config, names, called, stage.is_some())?;
                Ok(Ended { stage, bytes, layers, ..ended })
            }
        }
    }
}

/// What a layer in a docker archive is called: its digest is not known when it is written, and `manifest.json`, which
/// comes last, says which files are the layers.
fn docker_name(number: usize, is_only: bool) -> String {
    if is_only { "layer.tar".to_owned() } else { format!("layer-{number}.tar") }
}

/// The JSON documents of an OCI image.
struct Documents<'a> {
    config: &'a [u8],
    manifest: Vec<u8>,
    index: Vec<u8>,
}

impl<'a> Documents<'a> {
    fn new(config: &'a [u8], layers: &[Layer], tag: &Tag, name: &Reference) -> Self {
        let manifest = oci::text(&oci::image_manifest(config, layers));
        let index = oci::text(&oci::index(&manifest, tag, name));
        Self { config, manifest, index }
    }

    fn manifest_digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("{BLOBS}/{}", digest.hex())
}

/// Puts the documents into a layout and everything on the disk; gives the size of the documents.
fn end_layout(stage: &Stage, documents: &Documents<'_>) -> Result<u64, ImageError> {
    let layout = stage.path();
    let mut bytes = 0;
    for (name, content) in [
        (blob_name(&Digest::of(documents.config)), documents.config),
        (blob_name(&documents.manifest_digest()), &documents.manifest),
        ("index.json".to_owned(), &documents.index),
        ("oci-layout".to_owned(), oci::LAYOUT.as_bytes()),
    ] {
        let path = layout.join(name);
        let mut file = create(&path)?;
        file.write_all(content).map_err(|source| failed("write", &path, source))?;
        sync_file(&file, true)?;
        bytes += content.len() as u64;
    }
    for directory in [BLOBS, "blobs", ""] {
        sync(&layout.join(directory))?;
    }
    Ok(bytes)
}

fn end_archive(mut archive: Archive, documents: &Documents<'_>, is_file: bool) -> Result<u64, ImageError> {
    archive.add(&blob_name(&Digest::of(documents.config)), documents.config)?;
    archive.add(&blob_name(&documents.manifest_digest()), &documents.manifest)?;
    archive.add("index.json", &documents.index)?;
    let (file, bytes) = archive.finish()?;
    sync_file(&file, is_file)?;
    Ok(bytes)
}

fn end_docker(
    mut archive: Archive,
    config: &[u8],
    layers: Vec<String>,
    called: &[Reference],
    is_file: bool,
) -> Result<u64, ImageError> {
    let config_name = format!("{}.json", Digest::of(config).hex());
    archive.add(&config_name, config)?;
    let repo_tags = Some(called.iter().map(Reference::to_string).collect());
    archive.add("manifest.json", &oci::text(&[DockerImage { config: config_name, repo_tags, layers }]))?;
    let (file, bytes) = archive.finish()?;
    sync_file(&file, is_file)?;
    Ok(bytes)
}

fn open(target: &Target, options: &Options<'_>) -> Result<(File, Option<Stage>), ImageError> {
    match target {
        Target::File(path) => {
            let (stage, file) = Stage::file(path, options.force)?;
            Ok((file, Some(stage)))
        }
        Target::Standard => {
            let name = PathBuf::from("standard output");
            if options.standard_output.is_terminal() {
                return Err(ImageError::Terminal);
            }
            let descriptor =
                options.standard_output.try_clone_to_owned().map_err(|source| failed("open", &name, source))?;
            Ok((File::from_parts(descriptor.into(), name), None))
        }
    }
}

/// A file that is gone when it is closed.
fn nameless(directory: &Path) -> Result<File, ImageError> {
    let file = tempfile::tempfile_in(directory).map_err(|source| failed("make a file in", directory, source))?;
    Ok(File::from_parts(file, directory.join("the layer")))
}

fn create(path: &Path) -> Result<File, ImageError> {
    File::create_new(path).map_err(|source| failed("make", path, source))
}

fn copy(from: &mut File, to: &mut File) -> Result<(), ImageError> {
    from.rewind().map_err(|source| failed("read", from.path(), source))?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match from.read(&mut buffer).map_err(|source| failed("read", from.path(), source))? {
            0 => return Ok(()),
            count => to.write_all(&buffer[..count]).map_err(|source| failed("write", to.path(), source))?,
        }
    }
}

/// A pipe has nothing to sync.
fn sync_file(file: &File, is_file: bool) -> Result<(), ImageError> {
    if !is_file {
        return Ok(());
    }
    file.sync_all().map_err(|source| failed("write to disk", file.path(), source))
}
