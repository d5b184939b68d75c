//! The forms that hold a layer: what stands before it, where it goes, and what stands behind it.

use std::io::{IsTerminal, Read, Seek, Write};
use std::path::{Path, PathBuf};

use fs_err::File;

use super::ImageError;
use super::archive::{Archive, Later};
use super::oci::{self, DockerImage};
use super::output::{Output, Target};
use super::reference::{Reference, Tag};
use super::stage::{Stage, failed, sync};
use super::write::{Ended, Options};
use crate::layer::{Layer, tar};
use crate::tree::Digest;

/// An output that was begun. Standard output has no [`Stage`].
pub(super) enum Form {
    Layer {
        file: File,
        stage: Option<Stage>,
    },
    Oci {
        stage: Stage,
        blob: File,
        tag: Tag,
    },
    /// In a file, the layer goes to its place, and its header, which has its digest, is written when that is known.
    OciArchive {
        archive: Archive,
        stage: Stage,
        /// Whether the header must have room for 8 GiB and more.
        large: bool,
        layer: Option<Later>,
        tag: Tag,
    },
    /// On standard output there is no way back: the layer waits in a file without a name.
    OciStream {
        archive: Archive,
        waiting: File,
        large: bool,
        tag: Tag,
    },
    DockerArchive {
        archive: Archive,
        stage: Option<Stage>,
        layer_size: u64,
        reference: Option<Reference>,
    },
}

/// What the layer in a docker archive is called: its digest is not known when it is written, and `manifest.json`,
/// which comes last, says which file it is.
const DOCKER_LAYER: &str = "layer.tar";

const BLOBS: &str = "blobs/sha256";

impl Form {
    /// Begins `output`, which is not a rootfs, for a layer of this size before compression; nothing is written to
    /// standard output yet.
    pub(super) fn begin(output: &Output, layer_size: u64, options: &Options<'_>) -> Result<Self, ImageError> {
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
                let blob = create(&blobs.join("layer"))?;
                Self::Oci { stage, blob, tag: tagged(tag) }
            }
            Output::OciArchive { file: target, tag } => {
                let (file, stage) = open(target, options)?;
                let (archive, tag) = (Archive::new(file), tagged(tag));
                // What cannot be compressed grows by far less than a sixteenth.
                let large = tar::is_large(layer_size + layer_size / 16);
                match stage {
                    Some(stage) => Self::OciArchive { archive, stage, large, layer: None, tag },
                    None => Self::OciStream { archive, waiting: nameless(options.scratch)?, large, tag },
                }
            }
            Output::DockerArchive { file: target, reference } => {
                let (file, stage) = open(target, options)?;
                Self::DockerArchive { archive: Archive::new(file), stage, layer_size, reference: reference.clone() }
            }
        })
    }

    /// Writes what stands before the layer, and gives the file that takes the layer.
    pub(super) fn sink(&mut self) -> Result<File, ImageError> {
        match self {
            Self::Layer { file, .. } | Self::Oci { blob: file, .. } | Self::OciStream { waiting: file, .. } => {
                file.try_clone().map_err(|source| failed("write", file.path(), source))
            }
            Self::OciArchive { archive, large, layer, .. } => {
                archive.add("oci-layout", oci::LAYOUT.as_bytes())?;
                *layer = Some(archive.begin_later(*large)?);
                archive.sink()
            }
            Self::DockerArchive { archive, layer_size, .. } => {
                archive.begin(DOCKER_LAYER, *layer_size, tar::is_large(*layer_size))?;
                archive.sink()
            }
        }
    }

    /// Writes what stands behind the layer, and everything to the disk. What is left to do is to publish it.
    pub(super) fn end(self, layer: Layer, config: &[u8], name: &Reference) -> Result<Ended, ImageError> {
        let ended = Ended { config: Some(Digest::of(config)), ..Ended::default() };
        let documents = |tag: &Tag| Documents::new(config, &layer, tag, name);
        match self {
            Self::Layer { file, stage } => {
                sync_file(&file, stage.is_some())?;
                Ok(Ended { stage, bytes: layer.size, layer: Some(layer), ..Ended::default() })
            }
            Self::Oci { stage, blob, tag } => {
                let documents = documents(&tag);
                let bytes = end_layout(&stage, &blob, &layer, &documents)?;
                let manifest = Some(documents.manifest_digest());
                Ok(Ended { stage: Some(stage), bytes, layer: Some(layer), manifest, ..ended })
            }
            Self::OciArchive { mut archive, stage, layer: later, tag, .. } => {
                let documents = documents(&tag);
                let later = later.expect("the sink was asked for");
                archive.end_later(&later, &blob_name(&layer.digest), layer.size)?;
                let bytes = end_archive(archive, &documents, true)?;
                let manifest = Some(documents.manifest_digest());
                Ok(Ended { stage: Some(stage), bytes, layer: Some(layer), manifest, ..ended })
            }
            Self::OciStream { mut archive, mut waiting, large, tag } => {
                let documents = documents(&tag);
                archive.add("oci-layout", oci::LAYOUT.as_bytes())?;
                archive.begin(&blob_name(&layer.digest), layer.size, large)?;
                copy(&mut waiting, &mut archive.sink()?)?;
                archive.end(layer.size)?;
                let bytes = end_archive(archive, &documents, false)?;
                let manifest = Some(documents.manifest_digest());
                Ok(Ended { bytes, layer: Some(layer), manifest, ..ended })
            }
            Self::DockerArchive { mut archive, stage, reference, .. } => {
                archive.end(layer.size)?;
                let bytes = end_docker(archive, config, reference.as_ref().unwrap_or(name), stage.is_some())?;
                Ok(Ended { stage, bytes, layer: Some(layer), ..ended })
            }
        }
    }
}

/// The JSON documents of an OCI image.
struct Documents<'a> {
    config: &'a [u8],
    manifest: Vec<u8>,
    index: Vec<u8>,
}

impl<'a> Documents<'a> {
    fn new(config: &'a [u8], layer: &Layer, tag: &Tag, name: &Reference) -> Self {
        let manifest = oci::text(&oci::image_manifest(config, layer));
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

/// Puts the documents into a layout and everything on the disk; gives the size of all files.
fn end_layout(stage: &Stage, blob: &File, layer: &Layer, documents: &Documents<'_>) -> Result<u64, ImageError> {
    let layout = stage.path();
    sync_file(blob, true)?;
    let place = layout.join(blob_name(&layer.digest));
    fs_err::rename(blob.path(), &place).map_err(|source| failed("rename", &place, source))?;
    let mut bytes = layer.size;
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

fn end_docker(mut archive: Archive, config: &[u8], name: &Reference, is_file: bool) -> Result<u64, ImageError> {
    let config_name = format!("{}.json", Digest::of(config).hex());
    archive.add(&config_name, config)?;
    let (repo_tags, layers) = (Some(vec![name.to_string()]), vec![DOCKER_LAYER.to_owned()]);
    archive.add("manifest.json", &oci::text(&[DockerImage { config: config_name, repo_tags, layers }]))?;
    let (file, bytes) = archive.finish()?;
    sync_file(&file, is_file)?;
    Ok(bytes)
}

/// An OCI layout, or nothing yet: what `--force` may replace without taking somebody's home directory away.
fn is_layout_or_empty(directory: &Path) -> bool {
    directory.join("oci-layout").is_file()
        || fs_err::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none())
}

fn open(target: &Target, options: &Options<'_>) -> Result<(File, Option<Stage>), ImageError> {
    match target {
        Target::File(path) => Stage::file(path, options.force).map(|(stage, file)| (file, Some(stage))),
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
