//! What a tree on disk does not say of its files, because only root could have made them so.
//!
//! In: entries, and the tree that was made of them. Out: whose each file is that the tree has as its maker's. A jail that has
//! ids of its own can give it to them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::manifest::{Entry, Kind};
use crate::path::{FileType, JailPath};
use crate::root::{Root, RootError};

/// Whose a file is, where the tree has it as its maker's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owned {
    pub path: JailPath,
    pub uid: u32,
    pub gid: u32,
    /// `None` of a symbolic link, whose mode nobody can set.
    pub mode: Option<u32>,
    /// The value of `security.capability`.
    pub capability: Option<Vec<u8>>,
    /// The first name of the same file, which stands before this one and says the rest.
    pub other_name_of: Option<JailPath>,
}

/// The attribute that gives a program capabilities (`capabilities(7)`, "File capabilities").
const CAPABILITY: &str = "security.capability";

const SET_ID: u32 = 0o6000;

/// What `root`, which was made of `entries`, does not say of them. Root's own files are its maker's, and are not among
/// them unless their mode or capabilities are missing.
///
/// # Errors
/// Something in the tree cannot be looked at.
pub fn owned(entries: &[Entry], root: &Root) -> Result<Vec<Owned>, RootError> {
    let maker = root.lstat(&JailPath::root())?.map(|facts| facts.uid);
    let mut owned = Vec::new();
    let mut several: BTreeSet<&JailPath> = BTreeSet::new();
    for entry in entries {
        if let Kind::HardLink { to } = &entry.kind {
            if several.contains(to) && root.lstat(&entry.path)?.is_some() {
                let (path, other_name_of) = (entry.path.clone(), Some(to.clone()));
                let Entry { uid, gid, .. } = *entry;
                owned.push(Owned { path, uid, gid, mode: None, capability: None, other_name_of });
            }
            continue;
        }
        let capability = entry.xattrs.get(CAPABILITY);
        let is_roots = (entry.uid, entry.gid) == (0, 0);
        if is_roots && capability.is_none() && entry.mode & SET_ID == 0 {
            continue;
        }
        let Some(facts) = root.lstat(&entry.path)? else { continue };
        // Of what is not its maker's the tree itself says whose it is.
        if Some(facts.uid) != maker || !is_a(facts.file_type, &entry.kind) {
            continue;
        }
        // The files of a maker who is not root here are root's in his jail, also those that the image gives to his number.
        let is_given = is_roots || (maker == Some(0) && (facts.uid, facts.gid) == (entry.uid, entry.gid));
        let has_mode = facts.is_symlink() || facts.mode == entry.mode;
        let is_capable = capability.is_none() || root.xattrs(&entry.path)?.get(CAPABILITY) == capability;
        if is_given && has_mode && is_capable {
            continue;
        }
        several.insert(&entry.path);
        owned.push(Owned {
            path: entry.path.clone(),
            uid: entry.uid,
            gid: entry.gid,
            mode: (!facts.is_symlink()).then_some(entry.mode),
            capability: capability.cloned(),
            other_name_of: None,
        });
    }
    Ok(owned)
}

/// Device nodes are none: where they can be made, owners can be given.
fn is_a(file_type: FileType, kind: &Kind) -> bool {
    matches!(
        (file_type, kind),
        (FileType::Directory, Kind::Directory)
            | (FileType::File, Kind::File { .. })
            | (FileType::Symlink, Kind::Symlink { .. })
            | (FileType::Fifo, Kind::Fifo)
    )
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Sample, path};
    use super::*;

    /// A tree of whoever runs the test, and entries that give some of it away.
    #[test]
    fn what_only_root_could_have_made() {
        let mut sample = Sample::new().file("/a", b"x").file("/b", b"x").file("/c", b"x").file("/d", b"x");
        sample = sample.with("/e", Kind::HardLink { to: path("/a") });
        let directory = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c", "d", "e"] {
            fs_err::write(directory.path().join(name), "x").unwrap();
        }
        let root = Root::open(directory.path()).unwrap();
        let facts = root.lstat(&path("/a")).unwrap().unwrap();
        for name in ["/a", "/b", "/c", "/d", "/e"] {
            sample.entry(name).mode = facts.mode;
        }
        sample.entry("/d").uid = facts.uid;
        sample.entry("/d").gid = facts.gid;
        let own = owned(&sample.manifest.entries, &root).unwrap();
        let is_root = facts.uid == 0;
        assert_eq!(
            own.iter().map(|owned| owned.uid).collect::<Vec<_>>(),
            if is_root { vec![] } else { vec![facts.uid] }
        );
        sample.entry("/d").uid = 0;
        sample.entry("/d").gid = 0;
        let stranger = facts.uid + 4321;
        sample.entry("/a").uid = stranger;
        sample.entry("/b").mode |= 0o4000;
        sample.entry("/c").xattrs.insert(CAPABILITY.to_owned(), b"all".to_vec());
        let found = owned(&sample.manifest.entries, &root).unwrap();
        let told: Vec<_> = found.iter().map(|owned| (owned.path.to_string(), owned.uid, owned.mode)).collect();
        let [a, b, c, e] = ["/a", "/b", "/c", "/e"].map(str::to_owned);
        let mode = facts.mode;
        assert_eq!(told, [(a, stranger, Some(mode)), (b, 0, Some(mode | 0o4000)), (c, 0, Some(mode)), (e, 0, None)]);
        assert_eq!(found[2].capability.as_deref(), Some(&b"all"[..]));
        assert_eq!(found[3].other_name_of, Some(path("/a")));
    }
}
