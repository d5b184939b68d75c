//! Where the parts of an image lie: in a directory, or in a tar archive, which is read in place.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::error::ReadError;
use super::keys::twin;
use super::names::lexical;
use super::output::Target;
use super::reading::{Budget, Limits};
use crate::layer::untar::{MemberKind, Untar};
use crate::manifest::{Digest, Hasher};
use crate::path::{JailPath, escape};
use crate::root::{Root, RootError};

/// The largest JSON document that is read: far above what images have.
const MAX_DOCUMENT: u64 = 16 << 20;

/// The named parts of an image.
#[derive(Debug)]
pub(super) enum Store {
    Directory(Root),
    Archive {
        file: Arc<File>,
        members: BTreeMap<JailPath, Place>,
        /// What stood under the same names before.
        earlier: Vec<(JailPath, Place)>,
    },
}

/// What stands under a name in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Content {
        offset: u64,
        size: u64,
    },
    /// `docker save` writes a layer that several images have once, and links for the others.
    Link(JailPath),
}

/// One part, open.
#[derive(Debug, Clone)]
pub(super) struct Part {
    file: Arc<File>,
    offset: u64,
    pub(super) size: u64,
    /// For messages.
    pub(super) name: String,
}

impl Store {
    pub(super) fn directory(path: &Path) -> Result<Self, ReadError> {
        let missing = |error: RootError| ReadError::NoLayout {
            path: escape(path.as_os_str().as_encoded_bytes()),
            source: error.source,
        };
        Ok(Self::Directory(Root::open(path).map_err(missing)?))
    }

    pub(super) fn archive(part: Part, limits: Limits) -> Result<Self, ReadError> {
        let name = part.name.clone();
        if part.size == 0 {
            return Err(ReadError::Empty { path: name });
        }
        let mut start = [0; 4];
        let count = part.reader().read(&mut start).map_err(|source| part.failed(source))?;
        if matches!(start[..count], [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd]) {
            return Err(ReadError::Compressed { path: name });
        }
        let (mut members, mut earlier) = (BTreeMap::new(), Vec::new());
        let budget = Budget::new(limits);
        let mut untar = Untar::new(io::BufReader::new(part.reader()));
        while let Some(member) =
            untar.next_member().map_err(|source| ReadError::Archive { path: name.clone(), source })?
        {
            budget.take(&member);
            budget.check()?;
            // Not read, and what of it is a hole costs nothing either.
            untar.pass_over().map_err(|source| ReadError::Archive { path: name.clone(), source })?;
            let Some(at) = lexical(&JailPath::root(), &member.name) else { continue };
            let place = match member.kind {
                MemberKind::File => Place::Content { offset: member.offset, size: member.size },
                MemberKind::HardLink(target) => match lexical(&JailPath::root(), &target) {
                    Some(target) => Place::Link(target),
                    None => continue,
                },
                MemberKind::Symlink(target) => match lexical(&at.parent().unwrap_or_else(JailPath::root), &target) {
                    Some(target) => Place::Link(target),
                    None => continue,
                },
                _ => continue,
            };
            if let Some(place) = members.insert(at.clone(), place) {
                earlier.push((at, place));
            }
        }
        Ok(Self::Archive { file: part.file, members, earlier })
    }

    /// The part of this name; `None` if there is none.
    pub(super) fn part(&self, name: &str) -> Result<Option<Part>, ReadError> {
        let Some(mut at) = lexical(&JailPath::root(), name.as_bytes()) else { return Ok(None) };
        match self {
            Self::Directory(root) => match root.lstat(&at)? {
                Some(facts) if facts.is_file() => {
                    let file = Arc::new(root.open_file(&at)?);
                    let name = escape(at.below(root.path()).as_os_str().as_encoded_bytes());
                    Ok(Some(Part { file, offset: 0, size: facts.size, name }))
                }
                _ => Ok(None),
            },
            Self::Archive { file, members, earlier } => {
                let part = |offset, size| Part { file: file.clone(), offset, size, name: name.to_owned() };
                let digest = |place: &Place| match *place {
                    Place::Content { offset, size } => part(offset, size).digest().map(Some),
                    Place::Link(_) => Ok(None),
                };
                // A link to a link is nobody's way to write an archive: a few steps are plenty, and end a circle.
                for _ in 0..8 {
                    let Some(place) = members.get(&at) else { break };
                    // Some readers take the first one, others the last.
                    for (_, other) in earlier.iter().filter(|(name, other)| *name == at && other != place) {
                        let digests = (digest(place)?, digest(other)?);
                        if digests.0.is_none() || digests.0 != digests.1 {
                            return Err(ReadError::Twice { name: at.relative().display().to_string() });
                        }
                    }
                    match place {
                        &Place::Content { offset, size } => return Ok(Some(part(offset, size))),
                        Place::Link(target) => at = target.clone(),
                    }
                }
                Ok(None)
            }
        }
    }
}

impl Part {
    /// A whole file, or all that comes in on standard input.
    pub(super) fn of(target: &Target, limits: Limits) -> Result<Self, ReadError> {
        match target {
            Target::File(path) => Self::file(path),
            Target::Standard => Self::standard_input(limits),
        }
    }

    fn file(path: &Path) -> Result<Self, ReadError> {
        let name = escape(path.as_os_str().as_encoded_bytes());
        let failed = |source| ReadError::Failed { path: name.clone(), source };
        // Without the flag, a FIFO would hold minjail up until somebody writes to it.
        let file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(ReadError::NoFile { path: name });
        }
        Ok(Self { file: Arc::new(file), offset: 0, size: metadata.len(), name })
    }

    /// An image is read in places, not in one go: what comes in is kept in a file without a name.
    fn standard_input(limits: Limits) -> Result<Self, ReadError> {
        let name = "standard input".to_owned();
        let failed = |source| ReadError::Failed { path: name.clone(), source };
        let mut file = tempfile::tempfile().map_err(failed)?;
        let mut input = io::stdin().lock().take(limits.size.saturating_add(1));
        let size = io::copy(&mut input, &mut file).map_err(failed)?;
        if size > limits.size {
            return Err(ReadError::TooMuch { limit: limits.size });
        }
        Ok(Self { file: Arc::new(file), offset: 0, size, name })
    }

    /// Where it lies in its file, and how long it is. Of the parts of an archive, those at one place are the same.
    pub(super) fn place(&self) -> (u64, u64) {
        (self.offset, self.size)
    }

    pub(super) fn reader(&self) -> Section {
        Section { file: self.file.clone(), at: self.offset, left: self.size }
    }

    /// Checks that the part has this digest and size.
    pub(super) fn check(&self, digest: &Digest, size: u64) -> Result<(), ReadError> {
        if self.size != size {
            return Err(ReadError::WrongSize { name: self.name.clone(), expected: size, found: self.size });
        }
        let found = self.digest()?;
        if found != *digest {
            return Err(ReadError::WrongDigest { name: self.name.clone(), expected: *digest, found });
        }
        Ok(())
    }

    /// Of the bytes as they lie there.
    pub(super) fn digest(&self) -> Result<Digest, ReadError> {
        let mut reader = self.reader();
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; 1 << 18];
        loop {
            match reader.read(&mut buffer).map_err(|source| self.failed(source))? {
                0 => return Ok(hasher.finish().0),
                count => hasher.update(&buffer[..count]),
            }
        }
    }

    /// Refuses what is too large for a document.
    pub(super) fn check_document(&self) -> Result<(), ReadError> {
        if self.size > MAX_DOCUMENT {
            return Err(ReadError::TooLarge { name: self.name.clone(), size: self.size });
        }
        Ok(())
    }

    /// The JSON document that the part is, and its digest.
    pub(super) fn document<T: DeserializeOwned>(&self) -> Result<(T, Digest), ReadError> {
        self.check_document()?;
        let mut bytes = Vec::new();
        self.reader().read_to_end(&mut bytes).map_err(|source| self.failed(source))?;
        let failed = |source| ReadError::Document { name: self.name.clone(), source };
        let document = serde_json::from_slice(&bytes).map_err(failed)?;
        if let Some(key) = twin(&serde_json::from_slice(&bytes).map_err(failed)?) {
            return Err(ReadError::Twins { name: self.name.clone(), key: key.to_owned() });
        }
        Ok((document, Digest::of(&bytes)))
    }

    pub(super) fn failed(&self, source: io::Error) -> ReadError {
        ReadError::Failed { path: self.name.clone(), source }
    }
}

/// Reads one stretch of a file, whoever else reads the file.
#[derive(Debug)]
pub(super) struct Section {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let count = self.file.read_at(&mut buffer[..want], self.at)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

impl Seek for Section {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let outside = || io::Error::from(io::ErrorKind::InvalidInput);
        let SeekFrom::Current(by) = to else { return Err(outside()) };
        let left = i128::from(self.left) - i128::from(by);
        let at = self.at.checked_add_signed(by).ok_or_else(outside)?;
        // Behind its end there is nothing, and whoever reads on is told so.
        (self.at, self.left) = (at, u64::try_from(left.max(0)).map_err(|_| outside())?);
        Ok(at)
    }
}
