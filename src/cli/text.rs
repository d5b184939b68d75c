//! Reading a text that somebody has written: a profile, a Dockerfile.

use std::io::{Error, ErrorKind, Read as _, Result};
use std::path::Path;

use fs_err::File;

/// No such text is larger. Who has named an image, or a device that never ends, is told so before memory is full.
const MOST: u64 = 16 << 20;

/// The text at `path`, which may be a pipe.
///
/// # Errors
/// It cannot be read, is no UTF-8, or is too large to be one.
pub(super) fn read_text(path: &Path) -> Result<String> {
    let mut text = Vec::new();
    File::open(path)?.take(MOST + 1).read_to_end(&mut text)?;
    let refused = |why: String| Error::new(ErrorKind::InvalidData, format!("`{}` {why}", path.display()));
    if text.len() as u64 > MOST {
        return Err(refused(format!("is larger than {} MiB, and no text that somebody has written", MOST >> 20)));
    }
    String::from_utf8(text).map_err(|_| refused("is no text in UTF-8".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_not_read_to_its_end() {
        let binary = tempfile::NamedTempFile::new().unwrap();
        fs_err::write(binary.path(), b"a\xff").unwrap();
        let [zero, nowhere] = ["/dev/zero", "/no/such"].map(Path::new);
        for (path, why) in
            [(zero, "larger than 16 MiB"), (binary.path(), "no text in UTF-8"), (nowhere, "failed to open")]
        {
            let error = read_text(path).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(path.to_str().unwrap()), "{error}");
        }
        assert_eq!(read_text(Path::new("/dev/null")).unwrap(), "");
    }
}
