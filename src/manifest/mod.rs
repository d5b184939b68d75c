//! The manifest, also called the lock: the sorted, hashed list of what goes into an image, with its metadata.
//!
//! In: a file set and the root. Out: a [`Manifest`] whose JSON is canonical, and the [`Sources`] of its contents. This
//! room reads and hashes contents; it writes none.

mod model;

pub use model::{Config, Entry, FORMAT, Kind, Manifest, Source, Sources};
