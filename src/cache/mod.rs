//! Unpacked images that are kept, so that an image which is read again need not be unpacked again.
//!
//! In: an [`Image`], of which every blob was checked. Out: a directory with what its layers amount to ([`Kept`]), from an
//! earlier time if there is one. An entry is named after the digests of the layers, as they lie there and uncompressed,
//! after who unpacked them, and after minjail's own version. It gets its name when it is whole and on the disk, is locked
//! by whoever uses it, and holds a digest of what `lstat(2)` says of every file: one that anybody has changed since is
//! made anew. What this room does not do: decide where the cache is, or print.

mod seal;

use std::borrow::Cow;
use std::fs::TryLockError;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

use crate::image::{Image, ReadError};
use crate::manifest::{Digest, Entry, Hasher};
use crate::path::escape;
use crate::publish::{PublishError, Stage, is_at, remove_all};
use crate::tree::Notes;
use seal::Seal;

/// A directory of unpacked images.
#[derive(Debug)]
pub struct Cache {
    directory: PathBuf,
    /// How much all entries may take on the disk, in bytes.
    limit: u64,
}

/// An unpacked image. Nobody removes it while this is held; what the cache has no room for is removed then.
#[derive(Debug)]
pub struct Kept {
    directory: PathBuf,
    notes: Notes,
    /// True if it was there already.
    pub is_old: bool,
    _hold: Hold,
}

#[derive(Debug)]
#[expect(dead_code, reason = "what is held is only dropped")]
enum Hold {
    Entry(std::fs::File),
    /// Not published: it is gone when this is dropped.
    Stage(Stage),
}

/// What `minjail cache` tells of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The entry's name.
    pub name: String,
    /// What the image was called.
    pub image: String,
    /// On the disk, in bytes.
    pub bytes: u64,
    pub used: SystemTime,
}

/// The cache could not be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    #[error("the cache `{path}` is not used: it is another user's, or others may write there")]
    Foreign { path: String },
    #[error("failed to {step} `{path}`")]
    Failed {
        step: &'static str,
        path: String,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Publish(#[from] PublishError),
}

impl CacheError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Read(error) => error.hint(),
            Self::Publish(error) => error.hint().map(Cow::Borrowed),
            Self::Foreign { .. } => Some("set XDG_CACHE_HOME to a directory of your own".into()),
            Self::Failed { .. } => Some("set XDG_CACHE_HOME to another directory".into()),
        }
    }
}

/// What is unpacked; beside it lie the seal and the entries.
const ROOT: &str = "root";

impl Cache {
    /// Opens the cache at `directory`, which is made if it is not there, for `limit` bytes at most.
    ///
    /// # Errors
    /// It cannot be made, or somebody else could put something into it.
    pub fn open(directory: &Path, limit: u64) -> Result<Self, CacheError> {
        let failed = failed("make the cache", directory);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let facts = fs_err::symlink_metadata(directory).map_err(self::failed("look at the cache", directory))?;
        // Set-user-ID files of strangers lie in it, and what is in it is run: nobody else may look or write there.
        if facts.uid() != nix::unistd::geteuid().as_raw() || facts.mode() & 0o077 != 0 {
            return Err(CacheError::Foreign { path: show(directory) });
        }
        Ok(Self { directory: directory.to_owned(), limit })
    }

    /// What the layers of `image` amount to; `name` is what the image is called, for the list. `look` is as for
    /// [`Image::unpack`].
    ///
    /// # Errors
    /// See [`Image::unpack`]; or the entry cannot be written.
    pub fn unpacked(&self, image: &Image, name: &str, look: &mut dyn FnMut()) -> Result<Kept, CacheError> {
        let path = self.directory.join(key(image)?);
        loop {
            if let Some(kept) = find(&path, image)? {
                return Ok(kept);
            }
            // Of two who make the same entry, the later one finds that it is there.
            match self.make(&path, image, name, look) {
                Err(CacheError::Publish(PublishError::Exists { .. })) => {}
                Ok(Some(kept)) => return Ok(kept),
                Ok(None) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Unpacks; `None` if the entry was removed as soon as it was there.
    fn make(&self, path: &Path, image: &Image, name: &str, look: &mut dyn FnMut()) -> Result<Option<Kept>, CacheError> {
        let stage = Stage::directory(path, false, 0o700, |_| false)?;
        let root = stage.path().join(ROOT);
        fs_err::create_dir(&root).map_err(failed("make", &root))?;
        let (notes, used) = image.unpack_counted(&root, look)?;
        let (state, bytes) = Seal::state_of(&root)?;
        if bytes > self.limit {
            let directory = stage.path().to_owned();
            return Ok(Some(Kept { directory, notes, is_old: false, _hold: Hold::Stage(stage) }));
        }
        Seal { image: name.to_owned(), bytes, used, notes, state }.write(stage.path())?;
        stage.sync()?;
        stage.publish()?;
        let Some(held) = hold(path)? else { return Ok(None) };
        let kept = Kept { directory: path.to_owned(), notes, is_old: false, _hold: Hold::Entry(held) };
        self.prune(self.limit)?;
        Ok(Some(kept))
    }

    /// All entries, the least recently used first.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>, CacheError> {
        let mut list = Vec::new();
        for name in self.names()?.into_iter().filter(|name| is_key(name)) {
            let path = self.directory.join(&name);
            // One that is removed meanwhile, or was never whole, is none.
            let (Ok(seal), Ok(facts)) = (Seal::read(&path), fs_err::symlink_metadata(&path)) else { continue };
            let used = facts.modified().map_err(failed("look at", &path))?;
            list.push(Listed { name, image: seal.image, bytes: seal.bytes, used });
        }
        list.sort_by(|one, other| (one.used, &one.name).cmp(&(other.used, &other.name)));
        Ok(list)
    }

    /// Removes what is used least recently until no more than `limit` bytes are left, what killed minjails have left, and
    /// what is no entry; never what is in use. The entries that were removed.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn prune(&self, limit: u64) -> Result<Vec<Listed>, CacheError> {
        let list = self.list()?;
        for name in self.names()?.into_iter().filter(|name| !list.iter().any(|listed| listed.name == *name)) {
            remove_unused(&self.directory.join(name))?;
        }
        let mut left: u64 = list.iter().map(|listed| listed.bytes).sum();
        let mut removed = Vec::new();
        for listed in list {
            if left <= limit {
                break;
            }
            if remove_unused(&self.directory.join(&listed.name))? {
                left -= listed.bytes;
                removed.push(listed);
            }
        }
        Ok(removed)
    }

    fn names(&self) -> Result<Vec<String>, CacheError> {
        let step = failed("list the cache", &self.directory);
        let entries = fs_err::read_dir(&self.directory).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        Ok(entries.map_err(step)?.iter().filter_map(|entry| entry.file_name().into_string().ok()).collect())
    }
}

impl Kept {
    /// The directory that plays `/`.
    pub fn tree(&self) -> PathBuf {
        self.directory.join(ROOT)
    }

    /// What could not be made as the layers say.
    pub fn notes(&self) -> Notes {
        self.notes
    }

    /// What the layers of `image`, of which this was unpacked, amount to: see [`Image::entries`]. They are kept too.
    ///
    /// # Errors
    /// See [`Image::entries`].
    pub fn entries(&self, image: &Image) -> Result<Vec<Entry>, CacheError> {
        if let Some(entries) = seal::read_entries(&self.directory) {
            return Ok(entries);
        }
        let entries = image.entries()?;
        // The next one reads the layers again if these cannot be kept.
        let _ = seal::write_entries(&self.directory, &entries);
        Ok(entries)
    }
}

/// The name of the entry for `image`.
fn key(image: &Image) -> Result<String, CacheError> {
    let mut hasher = Hasher::default();
    let user = nix::unistd::geteuid();
    hasher.update(format!("minjail {} {user}\n", env!("CARGO_PKG_VERSION")).as_bytes());
    for (blob, diff_id) in image.layer_digests()? {
        let diff_id = diff_id.map_or_else(String::new, |digest| digest.to_string());
        hasher.update(format!("{blob} {diff_id}\n").as_bytes());
    }
    Ok(hasher.finish().0.hex())
}

fn is_key(name: &str) -> bool {
    Digest::from_hex(name).is_some()
}

/// The entry at `path` if it is there and as it was; one that is not is removed.
fn find(path: &Path, image: &Image) -> Result<Option<Kept>, CacheError> {
    let Some(held) = hold(path)? else { return Ok(None) };
    match Seal::read(path) {
        Ok(seal) if seal.state == Seal::state_of(&path.join(ROOT))?.0 => {
            image.allows(seal.used)?;
            // By this, the least recently used is known. That it cannot be written down stops nobody.
            let now = TimeSpec::UTIME_NOW;
            let _ = utimensat(AT_FDCWD, path, &now, &now, UtimensatFlags::NoFollowSymlink);
            let directory = path.to_owned();
            Ok(Some(Kept { directory, notes: seal.notes, is_old: true, _hold: Hold::Entry(held) }))
        }
        _ => {
            drop(held);
            // Somebody may be using it all the same, who has looked at it before it was changed.
            if !remove_unused(path)? {
                return Err(CacheError::Failed {
                    step: "replace what was changed, and is in use:",
                    path: show(path),
                    source: io::ErrorKind::ResourceBusy.into(),
                });
            }
            Ok(None)
        }
    }
}

/// Locks an entry for use; `None` if there is none.
fn hold(path: &Path) -> Result<Option<std::fs::File>, CacheError> {
    let Some(file) = open(path)? else { return Ok(None) };
    file.lock_shared().map_err(failed("lock", path))?;
    Ok(is_at(&file, path).then_some(file))
}

/// Removes an entry that nobody uses; false if somebody does.
fn remove_unused(path: &Path) -> Result<bool, CacheError> {
    let Some(file) = open(path)? else { return Ok(true) };
    match file.try_lock() {
        Ok(()) if is_at(&file, path) => {}
        Ok(()) => return Ok(true),
        Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(source)) => return Err(failed("lock", path)(source)),
    }
    remove_all(path)?;
    Ok(true)
}

fn open(path: &Path) -> Result<Option<std::fs::File>, CacheError> {
    match fs_err::File::open(path) {
        Ok(file) => Ok(Some(file.into_parts().0)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("open", path)(error)),
    }
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CacheError + use<> {
    let path = show(path);
    move |source| CacheError::Failed { step, path, source }
}

fn show(path: &Path) -> String {
    escape(path.as_os_str().as_encoded_bytes())
}
