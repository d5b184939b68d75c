//! What lies beside an unpacked image: how it was when it was unpacked, and what its layers say of its files.

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{CacheError, failed};
use crate::image::{Limits, ReadError};
use crate::manifest::{Digest, Entry, Hasher};
use crate::path::JailPath;
use crate::publish::Stage;
use crate::root::Root;
use crate::tree::Notes;

const NAME: &str = "seal.json";

/// The entries' file is this, the digest of its content, and `.json`.
const ENTRIES: &str = "entries-";

/// What is known of an entry. One without a seal is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seal {
    pub(super) image: String,
    /// On the disk.
    pub(super) bytes: u64,
    /// What of the limits the layers have used up.
    pub(super) used: Limits,
    pub(super) notes: Notes,
    /// Of what `lstat(2)` says of everything.
    pub(super) state: Digest,
}

impl Seal {
    pub(super) fn read(entry: &Path) -> Result<Self, CacheError> {
        let path = entry.join(NAME);
        let bytes = fs_err::read(&path).map_err(failed("read", &path))?;
        serde_json::from_slice(&bytes).map_err(|error| failed("understand", &path)(error.into()))
    }

    pub(super) fn write(&self, entry: &Path) -> Result<(), CacheError> {
        let path = entry.join(NAME);
        let text = serde_json::to_vec(self).expect("a seal is plain data");
        let mut options = std::fs::OpenOptions::new();
        let options = options.write(true).create_new(true).mode(0o600);
        let written = options.open(&path).and_then(|mut file| std::io::Write::write_all(&mut file, &text));
        written.map_err(failed("write", &path))
    }

    /// The digest of a tree's state, and what it takes on the disk. Contents are not read: nobody changes a file without
    /// changing its `st_ctime`, which cannot be set back (`inode(7)`).
    pub(super) fn state_of(tree: &Path) -> Result<(Digest, u64), CacheError> {
        let root = Root::open(tree).map_err(ReadError::from)?;
        let (mut hasher, mut bytes) = (Hasher::default(), 0);
        let mut todo = vec![JailPath::root()];
        while let Some(path) = todo.pop() {
            let Some(stat) = root.stat(&path).map_err(ReadError::from)? else { continue };
            let is_directory = stat.st_mode & libc::S_IFMT == libc::S_IFDIR;
            // A directory's size is the file system's own affair.
            let size = if is_directory { 0 } else { stat.st_size };
            let facts = [
                i64::from(stat.st_mode),
                i64::from(stat.st_uid),
                i64::from(stat.st_gid),
                size,
                stat.st_ino as i64,
                stat.st_rdev as i64,
                stat.st_mtime,
                stat.st_ctime,
                stat.st_ctime_nsec,
            ];
            hasher.update(path.as_bytes());
            hasher.update(&[0]);
            for fact in facts {
                hasher.update(&fact.to_le_bytes());
            }
            bytes += stat.st_blocks as u64 * 512;
            if is_directory {
                // One that may not be listed is told by its own times alone.
                todo.extend(root.list(&path).unwrap_or_default().iter().map(|name| path.join(name)));
            }
        }
        Ok((hasher.finish().0, bytes))
    }
}

/// The entries that are kept beside a tree, if they are there and whole.
pub(super) fn read_entries(entry: &Path) -> Option<Vec<Entry>> {
    let names = fs_err::read_dir(entry).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let found = names.filter_map(|name| {
        let digest = Digest::from_hex(name.strip_prefix(ENTRIES)?.strip_suffix(".json")?)?;
        let bytes = fs_err::read(entry.join(&name)).ok()?;
        if Digest::of(&bytes) != digest {
            return None;
        }
        serde_json::from_slice(&bytes).ok()
    });
    { found }.next()
}

pub(super) fn write_entries(entry: &Path, entries: &[Entry]) -> Result<(), CacheError> {
    let text = serde_json::to_vec(entries).expect("entries are plain data");
    let path = entry.join(format!("{ENTRIES}{}.json", Digest::of(&text).hex()));
    Stage::whole(&path, true, |writer| writer.write_all(&text))?.publish()?;
    Ok(())
}
