//! Images: what the user gets and gives.
//!
//! Writing: a [`Tree`](crate::tree::Tree) and [`Output`]s in, files and directories out, each whole or not there
//! ([`write_all`]). Reading: an [`Input`] in, its configuration, digests and contents out ([`Image`]). This room does
//! not pull or push and starts no other program.

mod archive;
mod contents;
mod date;
mod departures;
mod error;
mod extra;
mod form;
mod kept;
mod keys;
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

pub use error::{ImageError, ReadError};
pub use extra::{carried, described, difference};
pub use kept::{KeptLayer, KeptLayers};
pub use oci::Platform;
pub use output::{FORMS, Input, Output, OutputError, Target};
pub use read::{Image, ImageLayer};
pub use reading::{Limits, NoPlatform, Reading};
pub use reference::{Reference, ReferenceError, Tag};
pub use replace::{check_replaceable, lock_beside};
pub use write::{Options, Progress, Written, check_distinct, write_all};

#[cfg(test)]
mod tests;
