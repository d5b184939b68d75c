//! From what a run touched to what the jail needs: the file set.
//!
//! In: a trace and a [`Root`](crate::root::Root). Out: a [`FileSet`], every path with all its [`Reason`]s. This room
//! reads the root only to follow links and to look into ELF files and scripts; it writes nothing and hashes nothing.

mod reason;

use std::collections::{BTreeMap, BTreeSet};

use crate::path::JailPath;

pub use reason::Reason;

/// Every path that the jail needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileSet {
    pub wanted: BTreeMap<JailPath, Wanted>,
}

/// What the jail needs of one path, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub what: What,
    pub reasons: BTreeSet<Reason>,
}

/// What the jail needs of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// What the root has there: a directory, a link, a file with its content, a FIFO, a device node.
    AsIs,
    /// The content that the file had before the run changed it, from the trace's store, by SHA-256 (hexadecimal).
    Before(String),
    /// An empty directory in place of whatever is there: a mount point, `/tmp`.
    EmptyDirectory,
    /// A file that minjail makes: `/etc/ld.so.cache`, accounts, placeholders.
    Made(Vec<u8>),
    /// A link to [`OMITTED`]: a name that a listing showed and nobody touched.
    Placeholder,
}

/// Where the links of [`What::Placeholder`] lead: nowhere, so that opening one fails as a missing file does.
pub const OMITTED: &str = "/.minjail-omitted";
