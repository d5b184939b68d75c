//! Why an image could not be written or read, and what the user can do about it.

use std::borrow::Cow;
use std::io;
use std::path::Path;

use super::oci::Platform;
use super::store::Part;
use crate::layer::LayerError;
use crate::layer::untar::UntarError;
use crate::manifest::Digest;
use crate::publish::{PublishError, io_hint};
use crate::root::RootError;
use crate::tree::TreeError;

/// An image could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("two outputs go to {path}")]
    Twice { path: String },
    #[error("standard output is a terminal")]
    Terminal,
    #[error("the time {0} has no date with a year of four digits")]
    Epoch(i64),
    #[error("what a lock says of its image is no configuration of one")]
    Described(#[source] serde_json::Error),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// A layer that is taken as it is cannot be read.
    #[error(transparent)]
    Original(#[from] ReadError),
}

impl ImageError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<Cow<'static, str>> {
        let hint = match self {
            Self::Original(error) => return error.hint(),
            Self::Twice { .. } => Some("give each output a place of its own"),
            Self::Terminal => Some("send it to a file or a pipe: `… | docker load`"),
            Self::Epoch(_) => Some("set SOURCE_DATE_EPOCH to a time between the years 0 and 9999"),
            Self::Publish(error) => error.hint(),
            Self::Layer(LayerError::Write(source)) => io_hint(source),
            Self::Tree(error) | Self::Layer(LayerError::Content(error)) => error.hint(),
            Self::Layer(LayerError::Unfit { .. }) => {
                Some("a directory can have it, `-o rootfs:DIR`; where an image is built, `--exclude` leaves it out")
            }
            Self::Described(_) | Self::Layer(_) => None,
        };
        hint.map(Cow::Borrowed)
    }
}

/// A step of writing that failed.
pub(super) fn failed(step: &'static str, path: &Path, source: io::Error) -> ImageError {
    PublishError::failed(step, path, source).into()
}

/// An image could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("`{path}` is a directory, not an image: there is nothing to unpack")]
    IsRootfs { path: String },
    #[error("`{path}` is not a file")]
    NoFile { path: String },
    #[error("failed to open the image layout `{path}`")]
    NoLayout { path: String, source: io::Error },
    #[error("`{path}` is compressed as a whole")]
    Compressed { path: String },
    #[error("the image has no `{name}`")]
    Missing { name: String },
    #[error("`{name}` has {found} bytes instead of {expected}")]
    WrongSize { name: String, expected: u64, found: u64 },
    #[error("`{name}` has the digest {found} instead of {expected}")]
    WrongDigest { name: String, expected: Digest, found: Digest },
    #[error("`{name}` has {size} bytes, too many for a document")]
    TooLarge { name: String, size: u64 },
    #[error("failed to understand `{name}`")]
    Document {
        name: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("`{name}` has two keys `{key}` that differ in case alone, of which tools read one or the other")]
    Twins { name: String, key: String },
    #[error("`{name}` is twice in the archive, with two contents, of which tools read one or the other")]
    Twice { name: String },
    #[error("no image here is called `{wanted}`; there are: {known}")]
    NoSuchName { wanted: String, known: String },
    #[error("there are several images, and none was named: {known}")]
    SeveralImages { known: String },
    #[error("there are several images for {wanted}: {known}")]
    SeveralVariants { wanted: Platform, known: String, last: Box<Platform> },
    #[error("several images have no name: {known}")]
    SeveralUnnamed { known: String },
    #[error("`{name}` lists no image")]
    NoImage { name: String },
    #[error("`{path}` is empty, and no image")]
    Empty { path: String },
    #[error("`{path}` is {form}")]
    OtherForm { path: String, form: &'static str, spelled: &'static str },
    #[error("there is no image for {wanted}; there are: {known}")]
    NoPlatform { wanted: Platform, known: String },
    #[error("the image has more than {limit} bytes, unpacked")]
    TooMuch { limit: u64 },
    #[error("the image has more than {limit} entries")]
    TooMany { limit: u64 },
    #[error("`{path}` is no image archive: it has neither a `manifest.json` nor an `index.json`")]
    NoArchive { path: String },
    #[error("the image has {layers} layers, but its configuration lists {diff_ids}")]
    LayerCount { layers: usize, diff_ids: usize },
    #[error("failed to read `{path}`")]
    Failed {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("failed to read `{path}` as a tar archive")]
    Archive {
        path: String,
        #[source]
        source: UntarError,
    },
    #[error("refused to unpack `{name}` of the layer `{layer}`: {why}")]
    Refused { name: String, layer: String, why: &'static str },
    #[error("`{path}` is compressed by {how}, as no layer is")]
    OtherCompression { path: String, how: &'static str },
    #[error("failed to start a thread")]
    Thread(#[source] io::Error),
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error(transparent)]
    Root(#[from] RootError),
}

impl ReadError {
    /// The same, of what is in this layer.
    pub(super) fn of_layer(self, part: &Part) -> Self {
        match self {
            Self::Refused { name, why, .. } => Self::Refused { name, why, layer: part.name.clone() },
            other => other,
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<Cow<'static, str>> {
        let hint = match self {
            Self::SeveralVariants { last, .. } => {
                return Some(format!("name one with its variant, as `--platform {last}`").into());
            }
            Self::OtherForm { path, spelled, .. } => return Some(format!("spell it `{spelled}:{path}`").into()),
            Self::Failed { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("see that the path is right; `docker save -o FILE NAME` writes such a file")
            }
            Self::NoLayout { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => None,
            Self::NoLayout { .. } => {
                Some("see that the path is right; `oci:DIR` is a directory with a file `oci-layout` in it")
            }
            Self::NoFile { .. } => Some("a directory that is an image is spelled `oci:DIR`"),
            Self::SeveralUnnamed { .. } => Some("choose one by its number: `docker-archive:FILE:@N`"),
            Self::NoImage { .. } | Self::Empty { .. } => {
                Some("write it again, by `docker save -o FILE NAME` or `skopeo copy`, and see that this succeeds")
            }
            Self::Compressed { .. } => Some("decompress it first: `gunzip` or `unzstd`"),
            Self::NoSuchName { .. } | Self::SeveralImages { .. } => {
                Some("name one behind the path: `oci:DIR:TAG`, `docker-archive:FILE:REF`")
            }
            Self::Twins { .. } | Self::Twice { .. } => {
                Some("no builder writes that: get the image anew, from whom you trust")
            }
            Self::Missing { .. } | Self::WrongSize { .. } | Self::WrongDigest { .. } => {
                Some("the image is damaged or not complete: copy or pull it again")
            }
            Self::Archive { source: UntarError::Damaged(_), .. } => {
                Some("it is damaged, not complete, or no such image: copy or pull it again")
            }
            // What is no fault of the disk is one of the compressed bytes.
            Self::Archive { source: UntarError::Read(source), .. } if source.raw_os_error().is_none() => {
                Some("it is damaged or not complete: copy or pull it again")
            }
            Self::Archive { source: UntarError::Unsupported(_), .. } | Self::Refused { .. } => {
                Some("docker, podman and buildah write no such thing: build the image again, or ask who made it")
            }
            Self::OtherCompression { .. } => {
                Some("`skopeo copy --dest-compress-format gzip` or `docker load` and `docker save` write it again")
            }
            Self::LayerCount { .. } => {
                Some("its manifest and its configuration are of two images: copy or pull it again")
            }
            Self::NoPlatform { .. } => Some("choose one of these with `--platform OS/ARCH`"),
            Self::TooMuch { .. } => Some("if you trust it, `--max-size BYTES` allows more"),
            Self::TooMany { .. } => Some("if you trust it, `--max-entries N` allows more"),
            Self::Document { .. } | Self::TooLarge { .. } => {
                Some("the image is damaged, or of a kind that minjail does not read")
            }
            Self::NoArchive { .. } => {
                Some("pipe what `docker save`, `podman save` or `skopeo copy … oci-archive:` write")
            }
            Self::Tree(error) => error.hint(),
            Self::Root(error) => error.hint(),
            _ => None,
        };
        hint.map(Cow::Borrowed)
    }
}
