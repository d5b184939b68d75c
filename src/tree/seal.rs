//! Reading all contents at once, for those who want the digests and nothing else.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::{Tree, TreeError};
use crate::manifest::{Entry, Kind, by_threads};

/// How much is read at once.
const BUFFER: usize = 256 << 10;

impl Tree<'_> {
    /// Reads every content to its end, so that the manifest has all its digests. The result does not depend on how many
    /// `threads` read. `progress` is told how many bytes are read, of how many, now and then and from any thread.
    ///
    /// # Errors
    /// A content cannot be read, or is not what the manifest lists; of several, the first in the manifest's order.
    pub fn seal(&self, threads: NonZeroUsize, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<(), TreeError> {
        let files: Vec<(&Entry, u64)> = self.manifest.entries.iter().filter_map(with_size).collect();
        let total = files.iter().map(|(_, size)| size).sum();
        let (next, done) = (AtomicUsize::new(0), AtomicU64::new(0));
        let advance = |count| progress(done.fetch_add(count, Ordering::Relaxed) + count, total);
        // Files are handed out in order, so the first that fails is always reached.
        let work = || {
            let mut buffer = vec![0; BUFFER];
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some((entry, _)) = files.get(at) else { return Ok(()) };
                self.read(entry, &mut buffer, &advance).map_err(|error| (at, error))?;
            }
        };
        let results = by_threads(threads.get().min(files.len()), work);
        let first = results.into_iter().filter_map(Result::err).min_by_key(|(at, _)| *at);
        first.map_or(Ok(()), |(_, error)| Err(error))
    }

    fn read(&self, entry: &Entry, buffer: &mut [u8], advance: &dyn Fn(u64)) -> Result<(), TreeError> {
        let mut content = self.open(entry)?;
        loop {
            match content.read_some(buffer)? {
                0 => return Ok(()),
                count => advance(count as u64),
            }
        }
    }
}

fn with_size(entry: &Entry) -> Option<(&Entry, u64)> {
    if let Kind::File { size, .. } = entry.kind { Some((entry, size)) } else { None }
}
