//! Contents from before a change.
//!
//! In: files, each while the task that is about to change it stands still. Out: a copy of each content, under its SHA-256.
//! A large one is only copied at first, and its holes are not: a hash has no shortcut for them, and can wait until the
//! program has ended.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::holes::Holes;
use crate::path::{Facts, hex};
use crate::root::Held;

/// Keeps a copy of each file's content once, under its SHA-256: one behind the other in a file without a name.
#[derive(Debug)]
pub(super) struct Store {
    file: File,
    /// Where the last copy ends.
    end: u64,
    /// What was kept of each file, by device and inode: a call that changes it by one of its names changes it by all.
    kept: HashMap<(u64, u64), Kept>,
    /// Where each content stands, and how long it is.
    stored: BTreeMap<String, (u64, u64)>,
    /// The same of those whose digests are not known yet, in the order of their numbers ([`pending`]).
    pending: Vec<(u64, u64)>,
    /// Names of those that nothing was told of so far.
    untold: BTreeSet<String>,
}

/// What was kept of a file when it was about to be changed for the first time.
#[derive(Debug)]
pub(super) struct Kept {
    /// Its content's, if that was about to be changed as well.
    pub(super) name: Option<String>,
    /// It could not be kept then.
    is_missed: bool,
    /// What was to be seen of it then.
    pub(super) facts: Facts,
    /// Escaped as a trace has them; `None` if they could not be seen.
    pub(super) xattrs: Option<BTreeMap<String, String>>,
    /// When it was made: another file may get its number.
    born: Option<SystemTime>,
}

impl Kept {
    /// True if the file with its number that was `born` then is the one. `is_mirrored`: one name of it is to be seen by several paths.
    fn is_of(&self, born: Option<SystemTime>, is_mirrored: impl FnOnce() -> bool) -> bool {
        match (self.born, born) {
            (Some(one), Some(other)) => one == other,
            // Nobody can tell. Who has a number is gone when its last name is, which a run of which all is seen takes away
            // itself (`Store::forget`); a file with one path is known by that.
            (None, None) => self.facts.nlink > 1 || is_mirrored(),
            _ => false,
        }
    }
}

/// Copies start at multiples of this, so that a hole stays one.
const BLOCK: u64 = 4096;

/// A file below this size, in bytes, is hashed before it is written: many are empty, or alike.
const SMALL: u64 = 64 * 1024;

/// A file from this size on is hashed when the program has ended.
pub(super) const LARGE: u64 = 64 << 20;

/// What is read at a time.
const PIECE: usize = 64 * 1024;

static ZEROS: [u8; PIECE] = [0; PIECE];

/// Starts the name of a content whose digest is not known yet: no digest does.
pub(super) const PENDING: &str = "pending ";

fn pending(number: usize) -> String {
    format!("{PENDING}{number}")
}

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub(super) enum CopyError {
    /// Of this file alone there is none.
    #[error(transparent)]
    Read(io::Error),
    /// There can be none of any file.
    #[error(transparent)]
    Write(io::Error),
}

impl From<CopyError> for io::Error {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Read(error) | CopyError::Write(error) => error,
        }
    }
}

impl Store {
    /// Keeps them in `file`, which is empty.
    pub(super) fn new(file: File) -> Self {
        let (kept, stored, pending) = (HashMap::new(), BTreeMap::new(), Vec::new());
        Self { file, end: 0, kept, stored, untold: BTreeSet::new(), pending }
    }

    /// Keeps the content that the regular file that `open` opens has by its `facts`; its digest, in hexadecimal, or a name
    /// in place of it, to which [`write`](Self::write) tells the digest.
    ///
    /// A file that was kept before is not read again: what it had then is what the run found.
    pub(super) fn keep(&mut self, open: impl FnOnce() -> io::Result<File>, facts: &Facts) -> Result<String, CopyError> {
        let file = open().map_err(CopyError::Read)?;
        let born = born(&file);
        match self.earlier(facts, || born, || false) {
            Some(Kept { name: Some(name), .. }) => return Ok(name.clone()),
            // What it has by now may be the run's.
            Some(kept) if kept.is_missed && !kept.facts.same_content(facts) => {
                return Err(CopyError::Read(io::ErrorKind::InvalidData.into()));
            }
            _ => {}
        }
        if facts.size == 0 && pretends_to_be_empty(&file).map_err(CopyError::Read)? {
            return Err(CopyError::Read(io::ErrorKind::InvalidData.into()));
        }
        let source = &mut Holes::new(file, 0).up_to(facts.size);
        let name = match facts.size {
            ..SMALL => {
                let mut content = Vec::new();
                source.read_to_end(&mut content).map_err(CopyError::Read)?;
                self.store_small(&content).map_err(CopyError::Write)?
            }
            SMALL..LARGE => self.store(source)?,
            LARGE.. => self.store_for_later(source)?,
        };
        self.first(facts, None, born).name = Some(name.clone());
        Ok(name)
    }

    /// Keeps the content of what is `held`; `None` of a file that cannot be read: it is not ours, somebody has a lease on it, or its
    /// disk fails, or somebody else has just removed it, or put another in its place. The call may come to nothing, and if it does not,
    /// the change shows when the image is built.
    ///
    /// # Errors
    /// There is no room for it.
    pub(super) fn keep_held(&mut self, held: &Held<'_>, facts: &Facts) -> io::Result<Option<String>> {
        match self.keep(|| held.open().map_err(|error| error.source), facts) {
            Ok(name) => Ok(Some(name)),
            Err(CopyError::Read(_)) => {
                self.miss(facts, held.born());
                Ok(None)
            }
            Err(CopyError::Write(source)) => Err(source),
        }
    }

    fn miss(&mut self, facts: &Facts, born: Option<SystemTime>) {
        self.first(facts, None, born).is_missed = true;
    }

    /// Keeps the content of what is `held` for the case that it is told of.
    ///
    /// # Errors
    /// The same.
    pub(super) fn keep_untold(&mut self, held: &Held<'_>, facts: &Facts) -> io::Result<()> {
        let count = |store: &Self| store.stored.len() + store.pending.len();
        let before = count(self);
        // One that was there already may have been told of, as that of another file.
        if let Some(name) = self.keep_held(held, facts)?.filter(|_| count(self) > before) {
            self.untold.insert(name);
        }
        Ok(())
    }

    /// The content of this name is told of.
    pub(super) fn tell(&mut self, name: &str) {
        self.untold.remove(name);
    }

    /// Keeps what else is to be seen of the file that was `born` then, unless that was done before.
    pub(super) fn note(&mut self, facts: &Facts, xattrs: Option<BTreeMap<String, String>>, born: Option<SystemTime>) {
        self.first(facts, xattrs, born);
    }

    /// What is kept of the file: these, if nothing is so far.
    fn first(
        &mut self,
        facts: &Facts,
        xattrs: Option<BTreeMap<String, String>>,
        born: Option<SystemTime>,
    ) -> &mut Kept {
        let new = Kept { name: None, is_missed: false, facts: facts.clone(), xattrs, born };
        match self.kept.entry(facts.inode()) {
            Entry::Occupied(mut entry) => {
                if !entry.get().is_of(born, || false) {
                    entry.insert(new);
                }
                entry.into_mut()
            }
            Entry::Vacant(entry) => entry.insert(new),
        }
    }

    /// What was kept of the file with these `facts` by whatever path; `born` says when it was made, and `is_mirrored` whether its name
    /// is to be seen by several: they are asked only if something was.
    pub(super) fn earlier(
        &self,
        facts: &Facts,
        born: impl FnOnce() -> Option<SystemTime>,
        is_mirrored: impl FnOnce() -> bool,
    ) -> Option<&Kept> {
        let kept = self.kept.get(&facts.inode())?;
        kept.is_of(born(), is_mirrored).then_some(kept)
    }

    /// True if nothing was kept.
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The inode numbers of the files of which something was kept.
    pub(super) fn inodes(&self) -> impl Iterator<Item = u64> {
        self.kept.keys().map(|&(_, inode)| inode)
    }

    /// What was kept of the file that still had the content then that it has by these `facts`.
    pub(super) fn of_same(&self, facts: &Facts) -> Option<&Kept> {
        self.kept.get(&facts.inode()).filter(|kept| kept.facts.same_content(facts))
    }

    fn store_small(&mut self, content: &[u8]) -> io::Result<String> {
        let digest = hex(&Sha256::digest(content));
        if !self.stored.contains_key(&digest) {
            let start = self.start()?;
            self.file.write_all_at(content, start)?;
            self.stored.insert(digest.clone(), (start, content.len() as u64));
            self.end = start + content.len() as u64;
        }
        Ok(digest)
    }

    /// Copies all of `source` behind the last copy, unless it is there already; its digest.
    fn store(&mut self, source: &mut Holes) -> Result<String, CopyError> {
        let start = self.start().map_err(CopyError::Write)?;
        let mut hash = Sha256::new();
        let length = copy_sparsely(source, &self.file, start, Some(&mut hash))?;
        let digest = hex(&hash.finalize());
        if !self.stored.contains_key(&digest) {
            self.stored.insert(digest.clone(), (start, length));
            self.end = start + length;
        }
        Ok(digest)
    }

    fn store_for_later(&mut self, source: &mut Holes) -> Result<String, CopyError> {
        let start = self.start().map_err(CopyError::Write)?;
        let length = copy_sparsely(source, &self.file, start, None)?;
        self.pending.push((start, length));
        self.end = start + length;
        Ok(pending(self.pending.len() - 1))
    }

    /// Where the next copy starts. Of one that broke off nothing may be left where a hole is expected.
    fn start(&self) -> io::Result<u64> {
        self.file.set_len(self.end)?;
        Ok(self.end.next_multiple_of(BLOCK))
    }

    /// Writes each content to a file of its own in `directory`, which is made if there is any; the digests of those that
    /// have another name so far, by that name. Not what was never told of.
    pub(super) fn write(&self, directory: &Path) -> io::Result<BTreeMap<String, String>> {
        if self.stored.len() + self.pending.len() > self.untold.len() {
            fs_err::create_dir(directory)?;
        }
        for (digest, &extent) in self.stored.iter().filter(|(digest, _)| !self.untold.contains(*digest)) {
            self.write_one(extent, &directory.join(digest), None)?;
        }
        let mut digests = BTreeMap::new();
        for (number, &extent) in self.pending.iter().enumerate() {
            let (name, mut hash) = (pending(number), Sha256::new());
            if self.untold.contains(&name) {
                continue;
            }
            self.write_one(extent, &directory.join(&name), Some(&mut hash))?;
            let digest = hex(&hash.finalize());
            // One of the same content is as good.
            fs_err::rename(directory.join(&name), directory.join(&digest))?;
            digests.insert(name, digest);
        }
        Ok(digests)
    }

    fn write_one(&self, (start, length): (u64, u64), path: &Path, hash: Option<&mut Sha256>) -> io::Result<()> {
        let mut copy = fs_err::File::create_new(path)?;
        let source = &mut Holes::new(self.file.try_clone()?, start).up_to(start + length);
        copy_sparsely(source, copy.file(), 0, hash)?;
        copy.flush()?;
        copy.sync_all()
    }

    /// Removes what was kept of a file that may be gone with its last name: another may get its number. Not where the two can be told
    /// apart: another path, by which it was used, may still be told of it.
    pub(super) fn forget(&mut self, facts: &Facts) {
        let is_known = self.kept.get(&facts.inode()).is_some_and(|kept| kept.born.is_some());
        if (facts.nlink <= 1 || facts.is_directory()) && !is_known {
            self.kept.remove(&facts.inode());
        }
    }
}

/// True for a file that says it is empty and is not: what the kernel, or a server, makes up as it is read. It may have no end,
/// and is told as empty.
fn pretends_to_be_empty(file: &File) -> io::Result<bool> {
    Ok(file.read_at(&mut [0], 0)? > 0 && file.metadata()?.len() == 0)
}

/// When a file was made, where its file system tells (`statx(2)`, `STATX_BTIME`).
pub(super) fn born(file: &File) -> Option<SystemTime> {
    file.metadata().ok()?.created().ok()
}

/// Copies all of `source` to `copy` from `start` on, where it must end, leaving out blocks of zeros: what was a hole stays
/// one. `hash` is told every byte, and only for it are the zeros of holes gone through. Its length.
pub(super) fn copy_sparsely(
    source: &mut Holes,
    copy: &File,
    start: u64,
    mut hash: Option<&mut Sha256>,
) -> Result<u64, CopyError> {
    let mut piece = vec![0; PIECE];
    let mut end = start;
    loop {
        let hole = if hash.is_none() { source.skip_hole().map_err(CopyError::Read)? } else { 0 };
        end += hole;
        let read = source.read(&mut piece).map_err(CopyError::Read)?;
        if hole == 0 && read == 0 {
            break;
        }
        let read = &piece[..read];
        if let Some(hash) = &mut hash {
            hash.update(read);
        }
        if *read != ZEROS[..read.len()] {
            copy.write_all_at(read, end).map_err(CopyError::Write)?;
        }
        end += read.len() as u64;
    }
    copy.set_len(end).map_err(CopyError::Write)?;
    Ok(end - start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    /// A file of this content, and what `lstat` says of it.
    fn file(content: &[u8]) -> (File, Facts) {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(content, 0).unwrap();
        let facts = Facts::from_stat(&nix::sys::stat::fstat(&file).unwrap()).unwrap();
        (file, facts)
    }

    fn written(store: &Store) -> (tempfile::TempDir, BTreeMap<String, String>) {
        let directory = tempfile::tempdir().unwrap();
        let digests = store.write(&directory.path().join("before")).unwrap();
        (directory, digests)
    }

    #[test]
    fn each_content_comes_back_once_with_its_holes() {
        let sparse = [vec![7; 100_000], vec![0; 1 << 20], vec![8; 10]].concat();
        let contents = [b"one".to_vec(), sparse.clone(), Vec::new(), b"one".to_vec(), sparse, vec![9; 70_000]];
        let mut store = Store::new(tempfile::tempfile().unwrap());
        let mut files = Vec::new();
        for content in &contents {
            // What was kept of others is as it was, though one that broke off has left its beginning behind it.
            store.file.write_all_at(&[1; 10_000], store.end).unwrap();
            let (file, facts) = file(content);
            let kept = store.keep(|| file.try_clone(), &facts).unwrap();
            assert_eq!(kept, hex(&Sha256::digest(content)));
            files.push(file);
        }
        let (directory, digests) = written(&store);
        assert!(digests.is_empty());
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

    #[test]
    fn what_was_first_is_kept_of_a_file_and_not_of_another_with_its_number() {
        let mut store = Store::new(tempfile::tempfile().unwrap());
        let (content, facts) = file(b"one");
        let (linked, early) = (Facts { nlink: 2, ..facts.clone() }, Some(SystemTime::UNIX_EPOCH));
        store.note(&linked, Some(BTreeMap::new()), early);
        store.note(&Facts { mode: 0o7, ..linked.clone() }, None, early);
        let kept = store.earlier(&facts, || early, || false).unwrap();
        assert_eq!((&kept.facts, &kept.xattrs, &kept.name), (&linked, &Some(BTreeMap::new()), &None));
        assert!(store.earlier(&facts, || born(&content), || false).is_none());
        let name = store.keep(|| content.try_clone(), &facts).unwrap();
        assert_eq!(store.earlier(&facts, || born(&content), || false).unwrap().name, Some(name));
        // What could not be kept is kept as long as it is what it was.
        for (size, is_kept) in [(facts.size, true), (facts.size + 1, false)] {
            let mut store = Store::new(tempfile::tempfile().unwrap());
            store.miss(&facts, born(&content));
            let now = Facts { size, ..facts.clone() };
            assert_eq!(store.keep(|| content.try_clone(), &now).is_ok(), is_kept);
        }
        // Where nobody can tell when a file was made, what had one name may be another by now.
        for (nlink, is_known) in [(1, false), (2, true)] {
            let mut store = Store::new(tempfile::tempfile().unwrap());
            store.note(&Facts { nlink, ..facts.clone() }, None, None);
            assert_eq!(store.earlier(&facts, || None, || false).is_some(), is_known);
            assert!(store.earlier(&facts, || None, || true).is_some());
            assert!(store.earlier(&facts, || early, || true).is_none());
        }
    }

    #[test]
    fn a_hole_is_not_gone_through_while_the_task_stands_still() {
        let mut store = Store::new(tempfile::tempfile().unwrap());
        let [(large, facts), (same, same_facts)] = [(); 2].map(|()| {
            let (file, _) = file(b"start");
            file.write_all_at(b"middle", LARGE).unwrap();
            file.set_len(2 * LARGE).unwrap();
            let facts = Facts::from_stat(&nix::sys::stat::fstat(&file).unwrap()).unwrap();
            (file, facts)
        });
        let (endless, _) = file(b"x");
        endless.set_len(1 << 42).unwrap();
        let facts_of_endless = Facts::from_stat(&nix::sys::stat::fstat(&endless).unwrap()).unwrap();
        let names = [store.keep(|| large.try_clone(), &facts), store.keep(|| same.try_clone(), &same_facts)];
        let names = names.map(Result::unwrap);
        let begun = std::time::Instant::now();
        store.keep(|| endless.try_clone(), &facts_of_endless).unwrap();
        assert!(begun.elapsed().as_secs() < 10, "hashing four tebibytes takes half an hour");
        store.pending.pop();

        let (directory, digests) = written(&store);
        assert_eq!(digests[&names[0]], digests[&names[1]]);
        let entries: Vec<_> = fs_err::read_dir(directory.path().join("before")).unwrap().map(Result::unwrap).collect();
        let [entry] = entries.as_slice() else { panic!("{entries:?}") };
        let content = fs_err::read(entry.path()).unwrap();
        assert_eq!(entry.file_name().to_str(), Some(digests[&names[0]].as_str()));
        assert_eq!(digests[&names[0]], hex(&Sha256::digest(&content)));
        assert_eq!((content.len() as u64, &content[..6]), (2 * LARGE, &b"start\0"[..]));
        assert!(entry.metadata().unwrap().blocks() * 512 < 300_000, "a hole stays one");
    }

    #[test]
    fn no_more_is_read_than_there_was() {
        let mut store = Store::new(tempfile::tempfile().unwrap());
        let files = [0, 1000, SMALL, 2 * SMALL].map(|size| (size, file(&vec![5; size as usize])));
        for (size, (file, facts)) in &files {
            let size = *size;
            file.write_all_at(&vec![6; 100_000], size).unwrap();
            let kept = store.keep(|| file.try_clone(), facts).unwrap();
            assert_eq!(kept, hex(&Sha256::digest(vec![5; size as usize])), "{size}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_its_own_fault_and_a_full_store_is_not() {
        let facts = |size| Facts { size, ..file(b"").1 };
        let open = |path: &str| fs_err::File::open(path).map(|file| file.into_parts().0);
        let mut store = Store::new(tempfile::tempfile().unwrap());
        // `mem` is not mapped at its start; a directory is nothing that can be read; `status` says that it is empty.
        for (path, size) in [
            ("/proc/self/mem", 10),
            ("/proc/self/mem", SMALL),
            ("/proc/self/mem", LARGE),
            ("/proc", 10),
            ("/none", 1),
            ("/proc/self/status", 0),
        ] {
            let kept = store.keep(|| open(path), &facts(size));
            assert!(matches!(kept, Err(CopyError::Read(_))), "{path}: {kept:?}");
        }
        let mut full = Store::new(fs_err::File::open("/dev/null").unwrap().into_parts().0);
        for size in [10, SMALL, LARGE] {
            let (content, facts) = file(&vec![1; size as usize]);
            let kept = full.keep(|| content.try_clone(), &facts);
            assert!(matches!(kept, Err(CopyError::Write(_))), "{kept:?}");
        }
    }
}
