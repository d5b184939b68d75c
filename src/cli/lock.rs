//! Reading the lock that the user has named.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use super::failure::Failure;
use crate::manifest::{Manifest, ParseError};
use crate::path::escape;

/// The hint for who has named something else.
const WHICH: &str = "a lock is the file beside an image, named after it with `.lock` at the end";

/// Reads a lock.
pub(super) fn read_lock(path: &Path) -> Result<Manifest, Failure> {
    let failed = |error: io::Error| Failure::new(error).hint(WHICH);
    let mut file = BufReader::new(fs_err::File::open(path).map_err(failed)?);
    let start = file.fill_buf().map_err(failed)?;
    // An image that is named in place of its lock is not read to its end: there may be less memory.
    if start.trim_ascii_start().first().is_some_and(|&byte| byte != b'{') {
        return parse_lock(path, &String::from_utf8_lossy(start));
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed)?;
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
