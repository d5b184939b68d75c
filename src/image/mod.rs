//! Images: what the user gets and gives.
//!
//! Writing: a [`Tree`](crate::tree::Tree) and [`Output`]s in, files and directories out, each whole or not there
//! ([`write_all`]). Reading: an [`Input`] in, its configuration, digests and contents out ([`Image`]). This room does
//! not pull or push and starts no other program.

mod archive;
mod contents;
mod date;
mod form;
pub mod oci;
mod output;
mod read;
mod reference;
mod stage;
mod store;
mod unpack;
mod write;

use std::io;

use crate::layer::LayerError;
use crate::tree::TreeError;

pub use output::{FORMS, Input, Output, OutputError, Target};
pub use read::{Image, ImageLayer, ReadError};
pub use reference::{Reference, ReferenceError, Tag};
pub use write::{Options, Progress, Written, write, write_all, write_file};

/// An image could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("`{path}` exists already")]
    Exists { path: String },
    #[error("`{path}` exists already and is not replaced: it is {what}")]
    InTheWay { path: String, what: &'static str },
    #[error("two outputs go to {path}")]
    Twice { path: String },
    #[error("standard output is a terminal")]
    Terminal,
    #[error("the time {0} has no date with a year of four digits")]
    Epoch(i64),
    #[error("failed to {step} `{path}`")]
    Failed {
        /// A verb that fits after "failed to".
        step: &'static str,
        path: String,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error(transparent)]
    Layer(#[from] LayerError),
}

impl ImageError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Exists { .. } => Some("give another name, or `--force` to replace it"),
            Self::InTheWay { .. } => Some("give another name, or remove it yourself"),
            Self::Twice { .. } => Some("give each output a place of its own"),
            Self::Terminal => Some("send it to a file or a pipe: `… | docker load`"),
            Self::Epoch(_) => Some("set SOURCE_DATE_EPOCH to a time between the years 0 and 9999"),
            Self::Failed { source, .. } | Self::Layer(LayerError::Write(source)) => io_hint(source),
            Self::Tree(error) | Self::Layer(LayerError::Content(error)) => error.hint(),
            Self::Layer(_) => None,
        }
    }
}

fn io_hint(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Some("make room on that file system, or write to another")
        }
        io::ErrorKind::NotFound => Some("make the directory first"),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            Some("write to a directory that you may change")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
