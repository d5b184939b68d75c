//! Images: what the user gets and gives.
//!
//! Writing: a [`Tree`](crate::tree::Tree) and [`Output`]s in, files and directories out, each whole or not there
//! ([`write_all`]). Reading: an [`Input`] in, its configuration, digests and contents out ([`Image`]). This room does
//! not pull or push and starts no other program.

mod archive;
mod contents;
mod date;
mod extra;
mod form;
mod kept;
mod names;
pub mod oci;
mod output;
mod read;
mod reading;
mod reference;
mod replace;
mod shape;
mod store;
mod stream;
mod unpack;
mod write;

use std::borrow::Cow;
use std::io;
use std::path::Path;

use crate::layer::LayerError;
use crate::publish::{PublishError, io_hint};
use crate::tree::TreeError;

pub use extra::{carried, difference};
pub use kept::{KeptLayer, KeptLayers};
pub use oci::Platform;
pub use output::{FORMS, Input, Output, OutputError, Target};
pub use read::{Image, ImageLayer, ReadError};
pub use reading::{Limits, NoPlatform, Reading};
pub use reference::{Reference, ReferenceError, Tag};
pub use replace::{check_replaceable, lock_beside};
pub use write::{Options, Progress, Written, check_distinct, write_all};

/// An image could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("two outputs go to {path}")]
    Twice { path: String },
    #[error("standard output is a terminal")]
    Terminal,
    #[error("the time {0} has no date with a year of four digits")]
    Epoch(i64),
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
            Self::Layer(_) => None,
        };
        hint.map(Cow::Borrowed)
    }
}

fn failed(step: &'static str, path: &Path, source: io::Error) -> ImageError {
    PublishError::failed(step, path, source).into()
}

#[cfg(test)]
mod tests;
