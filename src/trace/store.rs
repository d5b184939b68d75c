//! Contents from before a change.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::holes::Holes;
use crate::path::{Facts, hex};

/// Keeps a copy of each file's content once, under its SHA-256: one behind the other in a file without a name.
#[derive(Debug)]
pub(super) struct Store {
    file: File,
    /// Where the last copy ends.
    end: u64,
    /// What was kept of each file, by device and inode.
    kept: HashMap<(u64, u64), String>,
    /// Where each content stands, and how long it is.
    stored: BTreeMap<String, (u64, u64)>,
}

/// Copies start at multiples of this, so that a hole stays one.
const BLOCK: u64 = 4096;

/// A file up to this size, in bytes, is hashed before it is written: many are empty, or alike.
const SMALL: usize = 64 * 1024;

impl Store {
    /// Keeps them in `file`, which is empty.
    pub(super) fn new(file: File) -> Self {
        Self { file, end: 0, kept: HashMap::new(), stored: BTreeMap::new() }
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
            let digest = hex(&Sha256::digest(&head));
            if !self.stored.contains_key(&digest) {
                self.store(&mut head.as_slice())?;
            }
            digest
        } else {
            self.store(&mut head.as_slice().chain(source))?
        };
        self.kept.insert((facts.dev, facts.ino), digest.clone());
        Ok(digest)
    }

    /// Copies all of `source` behind the last copy, unless it is there already; its digest.
    fn store(&mut self, source: &mut impl Read) -> io::Result<String> {
        // Of a copy that broke off nothing may be left where a hole is expected.
        self.file.set_len(self.end)?;
        let start = self.end.next_multiple_of(BLOCK);
        let mut hash = Sha256::new();
        let length = copy_sparsely(source, &mut self.file, start, |block| hash.update(block))?;
        let digest = hex(&hash.finalize());
        if !self.stored.contains_key(&digest) {
            self.stored.insert(digest.clone(), (start, length));
            self.end = start + length;
        }
        Ok(digest)
    }

    /// Writes each content to a file of its own in `directory`, which is made if there is any.
    pub(super) fn write(&mut self, directory: &Path) -> io::Result<()> {
        if !self.stored.is_empty() {
            fs_err::create_dir(directory)?;
        }
        for (digest, &(start, length)) in &self.stored {
            let mut copy = fs_err::File::create_new(directory.join(digest))?;
            copy_sparsely(&mut Holes::new(self.file.try_clone()?, start).take(length), copy.file_mut(), 0, |_| {})?;
            copy.flush()?;
            copy.sync_all()?;
        }
        Ok(())
    }

    /// Removes what was kept under `inode`'s number: the file is gone, and another may get the number.
    pub(super) fn forget(&mut self, facts: &Facts) {
        if facts.nlink <= 1 {
            self.kept.remove(&(facts.dev, facts.ino));
        }
    }
}

/// Copies all of `source` to `copy` from `start` on, where it must end, leaving out blocks of zeros: what was a hole stays
/// one. `seen` is shown every block. Its length.
pub(super) fn copy_sparsely(
    source: &mut impl Read,
    copy: &mut File,
    start: u64,
    mut seen: impl FnMut(&[u8]),
) -> io::Result<u64> {
    let mut block = vec![0; 64 * 1024];
    let mut length = 0;
    copy.seek(SeekFrom::Start(start))?;
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
    copy.set_len(start + length)?;
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn facts(ino: u64) -> Facts {
        let stat = nix::sys::stat::lstat("/proc/self/status").unwrap();
        Facts { ino, ..Facts::from_stat(&stat).unwrap() }
    }

    #[test]
    fn each_content_comes_back_once_with_its_holes() {
        let sparse = [vec![7; 100_000], vec![0; 1 << 20], vec![8; 10]].concat();
        let contents = [b"one".to_vec(), sparse.clone(), Vec::new(), b"one".to_vec(), sparse, vec![9; 70_000]];
        let mut store = Store::new(tempfile::tempfile().unwrap());
        for (ino, content) in (1..).zip(&contents) {
            let broken = store.keep(|| Ok(content.as_slice().chain(Broken)), &facts(100 + ino));
            assert!(broken.is_err(), "a copy that breaks off leaves nothing");
            assert_eq!(store.keep(|| Ok(content.as_slice()), &facts(ino)).unwrap(), hex(&Sha256::digest(content)));
        }
        let directory = tempfile::tempdir().unwrap();
        store.write(&directory.path().join("before")).unwrap();
        let mut written = 0;
        for entry in fs_err::read_dir(directory.path().join("before")).unwrap() {
            let path = entry.unwrap().path();
            let content = fs_err::read(&path).unwrap();
            assert_eq!(path.file_name().unwrap().to_str(), Some(hex(&Sha256::digest(&content)).as_str()));
            assert!(fs_err::metadata(&path).unwrap().blocks() * 512 < 300_000, "a hole stays one");
            written += 1;
        }
        assert_eq!(written, 4);
    }

    struct Broken;

    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StaleNetworkFileHandle.into())
        }
    }
}
