//! Contents, checked against the manifest, or sealed in it, as they pass.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;

use super::{Tree, TreeError};
use crate::manifest::{Entry, Hasher, Kind, Seal, Seen, Source};
use crate::path::escape;

/// The content of one file.
///
/// The last bytes are handed out only after size and digest were found to be the manifest's, and the file's time that of
/// when it was looked at: whoever has all bytes has the right bytes. Whoever is the first to have them gives the manifest
/// its digest.
#[derive(Debug)]
pub struct Content<'a> {
    body: Body<'a>,
    /// Where the bytes come from, for messages.
    path: String,
    size: u64,
    left: u64,
    sha256: &'a Seal,
    /// Of a file in the root that was looked at.
    seen: Option<Seen>,
    hasher: Hasher,
}

#[derive(Debug)]
enum Body<'a> {
    File(File),
    Zeros(io::Take<io::Repeat>),
    Made(&'a [u8]),
}

impl<'a> Content<'a> {
    pub(super) fn open(tree: &Tree<'a>, entry: &'a Entry) -> Result<Self, TreeError> {
        let Kind::File { size, sha256 } = &entry.kind else {
            return Err(TreeError::NoSource { path: entry.path.to_string() });
        };
        let mut seen_before = None;
        let (body, path) = match tree.sources.get(&entry.path) {
            None => return Err(TreeError::NoSource { path: entry.path.to_string() }),
            Some(Source::Made(bytes)) => (Body::Made(bytes), entry.path.to_string()),
            Some(Source::Zeros) => (Body::Zeros(io::repeat(0).take(*size)), entry.path.to_string()),
            Some(Source::Root(seen)) => {
                seen_before = *seen;
                let path = escape(entry.path.below(tree.root.path()).as_os_str().as_encoded_bytes());
                (Body::File(tree.root.open_file(&entry.path)?), path)
            }
            Some(Source::Stored(stored)) => {
                let path = escape(stored.as_os_str().as_encoded_bytes());
                let file = fs_err::File::open(stored).map_err(|source| TreeError::Failed {
                    step: "open the kept content",
                    path: path.clone(),
                    source,
                })?;
                (Body::File(file.into_parts().0), path)
            }
        };
        let hasher = Hasher::default();
        let mut content = Self { body, path, size: *size, left: *size, sha256, seen: seen_before, hasher };
        content.check_file()?;
        if *size == 0 {
            content.check_end()?;
        }
        Ok(content)
    }

    /// Reads some of the content; nothing only at its end.
    ///
    /// # Errors
    /// What `read(2)` says, and [`TreeError::Changed`] if this is not the content that the manifest lists.
    pub fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, TreeError> {
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let count = self.read_body(&mut buffer[..want])?;
        if count == 0 {
            return Err(self.changed(format!("{} bytes are missing at its end", self.left)));
        }
        self.hasher.update(&buffer[..count]);
        self.left -= count as u64;
        if self.left == 0 {
            self.check_end()?;
        }
        Ok(count)
    }

    /// Sees early, before anything is written, that the file is no longer one or has another size or time.
    fn check_file(&self) -> Result<(), TreeError> {
        let Body::File(file) = &self.body else { return Ok(()) };
        let metadata = file.metadata().map_err(|source| self.failed("look at", source))?;
        if !metadata.is_file() {
            return Err(self.changed("it is no longer a file".to_owned()));
        }
        if metadata.len() != self.size {
            return Err(self.changed(format!("it had {} bytes and now has {}", self.size, metadata.len())));
        }
        let now = (metadata.mtime(), metadata.mtime_nsec());
        if self.seen.is_some_and(|seen| now != (seen.mtime, i64::from(seen.mtime_nsec))) {
            return Err(self.changed("it was written to".to_owned()));
        }
        Ok(())
    }

    fn check_end(&mut self) -> Result<(), TreeError> {
        if self.read_body(&mut [0])? != 0 {
            return Err(self.changed(format!("it had {} bytes and now has more", self.size)));
        }
        // What was written to while it was read may be a mixture that was never there.
        self.check_file()?;
        let (digest, _) = std::mem::take(&mut self.hasher).finish();
        let sealed = self.sha256.set(digest);
        sealed.map_err(|was| self.changed(format!("its sha256 was {} and now is {}", was.hex(), digest.hex())))
    }

    fn read_body(&mut self, buffer: &mut [u8]) -> Result<usize, TreeError> {
        loop {
            let read = match &mut self.body {
                Body::File(file) => file.read(buffer),
                Body::Zeros(zeros) => zeros.read(buffer),
                Body::Made(bytes) => bytes.read(buffer),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map_err(|source| self.failed("read", source)),
            }
        }
    }

    fn changed(&self, how: String) -> TreeError {
        TreeError::Changed { path: self.path.clone(), how }
    }

    fn failed(&self, step: &'static str, source: io::Error) -> TreeError {
        TreeError::Failed { step, path: self.path.clone(), source }
    }
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_some(buffer).map_err(io::Error::other)
    }
}
