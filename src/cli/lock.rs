//! Reading the lock that the user has named.

use std::path::Path;

use super::failure::Failure;
use crate::manifest::{Manifest, ParseError};
use crate::path::escape;

/// The hint for who has named something else.
const WHICH: &str = "a lock is the file beside an image, named after it with `.lock` at the end";

/// Reads a lock.
pub(super) fn read_lock(path: &Path) -> Result<Manifest, Failure> {
    let text = fs_err::read_to_string(path).map_err(|error| Failure::new(error).hint(WHICH))?;
    parse_lock(path, &text)
}

/// Reads the text of the lock at `path`.
pub(super) fn parse_lock(path: &Path, text: &str) -> Result<Manifest, Failure> {
    Manifest::parse(text).map_err(|source| {
        let path = escape(path.as_os_str().as_encoded_bytes());
        Failure::new(NoLock { path, source }).hint(WHICH)
    })
}

/// A file that was named as a lock and is none.
#[derive(Debug, thiserror::Error)]
#[error("`{path}` is no lock that this minjail can read")]
struct NoLock {
    path: String,
    source: ParseError,
}
