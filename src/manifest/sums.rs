//! Which files of packages are not what their packages brought any more.
//!
//! dpkg notes the MD5 sum of each content that it installs. All are read: times say when a file came here, and not whether it is what came.
//! apk's own sums are not looked at, nor is anything but contents: owners and modes are the administrator's to change
//! (`dpkg-statoverride(1)`).

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use md5::{Digest as _, Md5};

use super::packages::Packages;
use super::readers::by_threads;
use crate::files::{FileSet, What};
use crate::path::{Facts, JailPath};
use crate::root::dpkg::Sum;
use crate::root::{Root, RootError};

impl Packages {
    /// Of `files`, those of packages that have another content by now, or had one before the run, which is in `store`. What cannot be read is
    /// told of elsewhere.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(super) fn changed(
        &self,
        files: &FileSet,
        store: &BTreeMap<String, PathBuf>,
        root: &Root,
    ) -> Result<BTreeSet<JailPath>, RootError> {
        let brought = self.brought(files, root)?;
        let (next, threads) = (AtomicUsize::new(0), std::thread::available_parallelism().map_or(1, usize::from));
        let work = || {
            let mut changed = Vec::new();
            while let Some(file) = brought.get(next.fetch_add(1, Ordering::Relaxed)) {
                if file.sum(store, root).is_some_and(|sum| sum != file.brought) {
                    changed.push(file.path.clone());
                }
            }
            changed
        };
        Ok(by_threads(threads.min(brought.len()), work).into_iter().flatten().collect())
    }

    /// The files of packages whose contents go into the image, and what they were when they were installed.
    fn brought<'a>(&self, files: &'a FileSet, root: &Root) -> Result<Vec<Installed<'a>>, RootError> {
        let mut known: BTreeMap<usize, BTreeMap<JailPath, Sum>> = BTreeMap::new();
        let mut all = Vec::new();
        for (path, wanted) in &files.wanted {
            let Some(owner) = self.owner_index(path) else { continue };
            let stored = match &wanted.what {
                What::AsIs => None,
                What::Was(was) => was.content.as_ref(),
                _ => continue,
            };
            let sums = match known.entry(owner) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(self.sums(owner, root)?),
            };
            all.extend(sums.get(path).map(|&brought| Installed { path, stored, brought }));
        }
        Ok(all)
    }
}

/// A file that a package brought.
struct Installed<'a> {
    path: &'a JailPath,
    /// The content from before the run, by its SHA-256 in the store; `None`: the root has it.
    stored: Option<&'a String>,
    brought: Sum,
}

impl Installed<'_> {
    /// Of its content; `None` if that cannot be read.
    fn sum(&self, store: &BTreeMap<String, PathBuf>, root: &Root) -> Option<Sum> {
        if let Some(sha256) = self.stored {
            return sum(fs_err::File::open(store.get(sha256)?).ok()?);
        }
        root.facts(self.path).ok()?.filter(Facts::is_file)?;
        sum(root.open_file(self.path).ok()?)
    }
}

fn sum(mut content: impl Read) -> Option<Sum> {
    const PIECE: u64 = 1 << 17;
    let mut hasher = Md5::new();
    let mut piece = Vec::new();
    while content.by_ref().take(PIECE).read_to_end(&mut piece).ok()? > 0 {
        hasher.update(&piece);
        piece.clear();
    }
    Some(hasher.finalize().into())
}
