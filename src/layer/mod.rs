//! Layers: a tree as a tar stream, compressed, with its digests.
//!
//! In: a [`Tree`](crate::tree::Tree), and the entries of it that a layer has; or a tar stream as it is. Out: bytes into the caller's sinks, and for each a [`Layer`] that names them.
//! [`tar`] holds the bytes of the format, [`untar`] reads any layer, also other tools', and [`departure`] says whether one is what it is
//! said to be. This room makes no files and knows nothing of images.
//!
//! The bytes are a function of the entries, their contents and the [`Compression`] alone: not of the number of cores, the timing of
//! threads or the size of writes.

mod compare;
mod compress;
mod pack;
mod produce;
pub mod tar;
pub mod untar;

use std::fmt;
use std::io;
use std::str::FromStr;

use crate::manifest::Digest;
use crate::tree::TreeError;

pub use compare::{Departure, departure};
pub use pack::{Sink, pack, repack};
pub use produce::size;

/// The release of zlib-rs that is built in: it does not say so itself, so a test holds this against `Cargo.lock`.
const ZLIB_RS: &str = "0.6.8";

/// The uncompressed stream is cut into blocks of this size, and each is compressed by itself: part of the format.
pub const BLOCK_SIZE: usize = produce::BLOCK;

/// One layer, as an image manifest describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Of the uncompressed tar stream: the stable identity.
    pub diff_id: Digest,
    /// Of the bytes as written.
    pub digest: Digest,
    /// Of the bytes as written.
    pub size: u64,
    pub media_type: &'static str,
}

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    None,
    /// At a level from 1 to 9.
    Gzip(u32),
    /// At a level from 1 to 19.
    Zstd(i32),
}

impl Compression {
    /// gzip at the level that gzip itself takes without options.
    pub const GZIP: Self = Self::Gzip(6);
    /// zstd at the level which, with a window of 2 MiB, takes the time of `zstd -3` with two digests made beside it.
    pub const ZSTD: Self = Self::Zstd(2);

    /// Who compresses, with the version; empty for [`Compression::None`]. The bytes that come out are this one's, and
    /// another release may make others of the same layer.
    pub fn compressor(self) -> String {
        match self {
            Self::None => String::new(),
            Self::Gzip(_) => format!("zlib-rs {ZLIB_RS}"),
            Self::Zstd(_) => format!("libzstd {}", zstd::zstd_safe::version_string()),
        }
    }

    /// The media type of a layer so compressed (OCI image specification, `layer.md`).
    pub fn media_type(self) -> &'static str {
        match self {
            Self::None => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip(_) => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd(_) => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

impl Default for Compression {
    fn default() -> Self {
        Self::GZIP
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => formatter.write_str("none"),
            Self::Gzip(level) => write!(formatter, "gzip:{level}"),
            Self::Zstd(level) => write!(formatter, "zstd:{level}"),
        }
    }
}

/// A text names no compression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no compression: give `none`, `gzip`, `gzip:1` to `gzip:9`, `zstd`, or `zstd:1` to `zstd:19`")]
pub struct UnknownCompression(String);

impl FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || UnknownCompression(text.to_owned());
        match text.split_once(':') {
            None if text == "none" => Ok(Self::None),
            None if text == "gzip" => Ok(Self::GZIP),
            None if text == "zstd" => Ok(Self::ZSTD),
            Some(("gzip", level)) => match level.parse() {
                Ok(level @ 1..=9) => Ok(Self::Gzip(level)),
                _ => Err(unknown()),
            },
            Some(("zstd", level)) => match level.parse() {
                Ok(level @ 1..=19) => Ok(Self::Zstd(level)),
                _ => Err(unknown()),
            },
            _ => Err(unknown()),
        }
    }
}

/// A layer could not be written.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    #[error("failed to read what goes into the layer")]
    Content(#[from] TreeError),
    #[error("`{path}` does not fit into a layer: {why}")]
    Unfit { path: String, why: String },
    #[error("failed to read the layer that is taken as it is")]
    Read(#[source] io::Error),
    #[error("failed to write the layer")]
    Write(#[source] io::Error),
    #[error("failed to start a thread for the layer")]
    Thread(#[source] io::Error),
    #[error("failed to compress the layer")]
    Compress(#[source] io::Error),
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
