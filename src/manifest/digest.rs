//! SHA-256 of many files at once.

use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use sha2::{Digest as _, Sha256};

use super::draw::DrawError;
use super::model::Source;
use crate::path::{Facts, JailPath, hex};
use crate::root::Root;

/// A content to be hashed.
pub(super) struct Job<'a> {
    pub(super) path: &'a JailPath,
    pub(super) source: &'a Source,
    pub(super) size: u64,
    /// Of a file in the root: its time when it was looked at.
    pub(super) seen: Option<Mtime>,
}

/// Seconds since 1970, and nanoseconds past them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mtime(i64, u32);

impl Mtime {
    pub(super) fn of(facts: &Facts) -> Self {
        Self(facts.mtime, facts.mtime_nsec)
    }
}

/// The digest of each job, in the jobs' order. Of several errors, that of the first job counts.
pub(super) fn all(
    jobs: &[Job<'_>],
    root: &Root,
    threads: NonZeroUsize,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Vec<(JailPath, String)>, DrawError> {
    let total = jobs.iter().map(|job| job.size).sum();
    let (next, done) = (AtomicUsize::new(0), AtomicU64::new(0));
    let work = || {
        let mut results = Vec::new();
        let advance = |count| progress(done.fetch_add(count, Ordering::Relaxed) + count, total);
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = jobs.get(at) else { return results };
            results.push((at, digest(job, root, &advance)));
        }
    };
    let mut results = std::thread::scope(|scope| {
        // Where there are no threads to be had, those that there are do all; the last of them is this one.
        let spawn = || std::thread::Builder::new().spawn_scoped(scope, work).ok();
        let workers: Vec<_> = (1..threads.get().min(jobs.len())).map_while(|_| spawn()).collect();
        let own = work();
        let results = workers.into_iter().flat_map(|worker| worker.join().expect("a hashing thread does not panic"));
        own.into_iter().chain(results).collect::<Vec<_>>()
    });
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(at, result)| Ok((jobs[at].path.clone(), result?))).collect()
}

fn digest(job: &Job<'_>, root: &Root, advance: &dyn Fn(u64)) -> Result<String, DrawError> {
    let path = || job.path.clone();
    let (hashed, size) = match job.source {
        Source::Made(bytes) => hash(bytes.as_slice(), job.size, advance),
        Source::Zeros => hash(io::repeat(0).take(job.size), job.size, advance),
        Source::Root => {
            let file = root.open_file(job.path)?;
            let result = hash(file, job.size, advance);
            let now = root.lstat(job.path)?.filter(|now| now.is_file() && now.size == job.size);
            if now.as_ref().map(Mtime::of) != job.seen || now.is_none() {
                return Err(DrawError::Changed { path: path() });
            }
            result
        }
        Source::Stored(stored) => {
            let file = fs_err::File::open(stored).map_err(|source| DrawError::Read { path: path(), source })?;
            hash(file, job.size, advance)
        }
    }
    .map_err(|source| DrawError::Read { path: path(), source })?;
    if size == job.size { Ok(hashed) } else { Err(DrawError::Changed { path: path() }) }
}

/// Hashes at most one byte more than `expected`: a file that grows for ever is not followed.
fn hash(reader: impl Read, expected: u64, advance: &dyn Fn(u64)) -> io::Result<(String, u64)> {
    let mut reader = reader.take(expected.saturating_add(1));
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; usize::try_from(expected).unwrap_or(usize::MAX).clamp(1, 256 << 10)];
    let mut size = 0;
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                hasher.update(&buffer[..count]);
                size += count as u64;
                advance(count as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok((hex(&hasher.finalize()), size))
}
