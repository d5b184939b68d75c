//! Which files of packages are not what their packages brought any more.
//!
//! dpkg notes the MD5 sum of each content that it installs, and writes its list of a package's files when it has unpacked them. A file
//! that is no younger than that list, neither by its own time nor by that of its last change of state, which nobody sets back
//! (`inode(7)`), is what was unpacked; all others are read. apk's own sums are not looked at, nor is anything but contents: owners and
//! modes are the administrator's to change (`dpkg-statoverride(1)`).

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::PathBuf;

use md5::{Digest as _, Md5};
use nix::sys::stat::FileStat;

use super::packages::Packages;
use crate::files::{FileSet, What};
use crate::path::JailPath;
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
        let mut changed = BTreeSet::new();
        let mut known: BTreeMap<usize, Known> = BTreeMap::new();
        for (path, wanted) in &files.wanted {
            let Some(owner) = self.owner_index(path) else { continue };
            let known = match known.entry(owner) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(Known::of(self, owner, root)?),
            };
            let stored = match &wanted.what {
                What::AsIs => None,
                What::Was(was) => was.content.as_ref(),
                _ => continue,
            };
            if stored.is_none() && !known.may_have_changed(root.stat(path)?.as_ref()) {
                continue;
            }
            let Some(&brought) = known.sums(self, owner, root)?.get(path) else { continue };
            let sum = match stored {
                Some(sha256) => store.get(sha256).and_then(|kept| sum(fs_err::File::open(kept).ok()?)),
                None => root.open_file(path).ok().and_then(sum),
            };
            if sum.is_some_and(|sum| sum != brought) {
                changed.insert(path.clone());
            }
        }
        Ok(changed)
    }
}

/// What is known of a package's installation.
struct Known {
    /// Of the list of its files; `None` if there is none.
    installed: Option<FileStat>,
    sums: Option<BTreeMap<JailPath, Sum>>,
}

impl Known {
    fn of(packages: &Packages, owner: usize, root: &Root) -> Result<Self, RootError> {
        let installed = packages.list(owner).map(|list| root.stat(list)).transpose()?.flatten();
        Ok(Self { installed, sums: None })
    }

    /// True of a file that is younger than the list.
    fn may_have_changed(&self, file: Option<&FileStat>) -> bool {
        let (Some(file), Some(list)) = (file, &self.installed) else { return false };
        let is_file = file.st_mode & libc::S_IFMT == libc::S_IFREG;
        is_file
            && ((file.st_mtime, file.st_mtime_nsec) > (list.st_mtime, list.st_mtime_nsec)
                || (file.st_ctime, file.st_ctime_nsec) > (list.st_ctime, list.st_ctime_nsec))
    }

    fn sums(&mut self, packages: &Packages, owner: usize, root: &Root) -> Result<&BTreeMap<JailPath, Sum>, RootError> {
        let sums = self.sums.take().map_or_else(|| packages.sums(owner, root), Ok)?;
        Ok(self.sums.insert(sums))
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
