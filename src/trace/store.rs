//! Contents from before a change.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use crate::path::Facts;

/// Keeps a copy of each file's content once, under its SHA-256.
#[derive(Debug)]
pub(super) struct Store {
    directory: PathBuf,
    /// What was kept of each file, by device and inode.
    kept: HashMap<(u64, u64), String>,
    /// What is in the directory.
    stored: HashSet<String>,
}

/// A file up to this size, in bytes, is hashed before it is written: many are empty, or alike.
const SMALL: usize = 64 * 1024;

impl Store {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, kept: HashMap::new(), stored: HashSet::new() }
    }

    /// Keeps the content of the regular file that `open` opens; its digest, in hexadecimal.
    ///
    /// A file that was kept before is not read again: what it had then is what the run found.
    pub(super) fn keep<Source: Read>(
        &mut self,
        open: impl FnOnce() -> io::Result<Source>,
        facts: &Facts,
    ) -> io::Result<String> {
        if let Some(digest) = self.kept.get(&(facts.dev, facts.ino)) {
            return Ok(digest.clone());
        }
        let mut source = open()?;
        let mut head = Vec::new();
        source.by_ref().take(SMALL as u64).read_to_end(&mut head)?;
        let digest = if head.len() < SMALL {
            let digest = crate::path::hex(&Sha256::digest(&head));
            if !self.stored.contains(&digest) {
                self.store(&mut head.as_slice())?;
            }
            digest
        } else {
            self.store(&mut head.as_slice().chain(source))?
        };
        self.kept.insert((facts.dev, facts.ino), digest.clone());
        Ok(digest)
    }

    /// Copies all of `source` to where its digest says.
    fn store(&mut self, source: &mut impl Read) -> io::Result<String> {
        if self.stored.is_empty() {
            fs_err::create_dir_all(&self.directory)?;
        }
        let mut copy = tempfile::NamedTempFile::new_in(&self.directory)?;
        let digest = copy_and_hash(source, copy.as_file_mut())?;
        copy.persist(self.directory.join(&digest)).map_err(|error| error.error)?;
        self.stored.insert(digest.clone());
        Ok(digest)
    }

    /// Removes what was kept under `inode`'s number: the file is gone, and another may get the number.
    pub(super) fn forget(&mut self, facts: &Facts) {
        if facts.nlink <= 1 {
            self.kept.remove(&(facts.dev, facts.ino));
        }
    }
}

fn copy_and_hash(source: &mut impl Read, copy: &mut std::fs::File) -> io::Result<String> {
    let mut hash = Sha256::new();
    copy_sparsely(source, copy, |block| hash.update(block))?;
    Ok(crate::path::hex(&hash.finalize()))
}

/// Copies all of `source`, leaving out blocks of zeros: what was a hole stays one. `seen` is shown every block.
pub(super) fn copy_sparsely(
    source: &mut impl Read,
    copy: &mut std::fs::File,
    mut seen: impl FnMut(&[u8]),
) -> io::Result<()> {
    use std::io::{Seek, SeekFrom};
    let mut block = vec![0; 64 * 1024];
    let mut length = 0;
    loop {
        let read = source.read(&mut block)?;
        if read == 0 {
            break;
        }
        seen(&block[..read]);
        length += read as u64;
        if block[..read].iter().all(|&byte| byte == 0) {
            copy.seek(SeekFrom::Current(read as i64))?;
        } else {
            copy.write_all(&block[..read])?;
        }
    }
    copy.set_len(length)
}
