//! What people read: the closing summary, and the reasons for a path.
//!
//! In: manifests, notes, runs. Out: text and JSON. This room reads no file and knows no terminal; colours are put
//! in as escape codes, which the printer takes out where they do not belong.

pub mod coverage;
pub mod summary;
pub mod why;
