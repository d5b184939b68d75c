//! An image as a directory: from the cache, or unpacked for this one time.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::path::PathBuf;

use nix::sys::signal::SigSet;

use super::failure::{Failure, causes};
use super::reading::bytes;
use super::stoppable::{Held, stoppable};
use crate::cache::{Cache, CacheError, Kept};
use crate::image::Image;
use crate::manifest::Entry;
use crate::publish::Scratch;
use crate::tree::Notes;

/// What the cache may take where `MINJAIL_CACHE_SIZE` does not say.
const LIMIT: u64 = 8 << 30;

/// Where the cache is; `None` where there is no home.
#[expect(clippy::disallowed_methods, reason = "this is where the environment enters")]
pub(super) fn directory() -> Option<PathBuf> {
    let place = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    // "All paths set in these environment variables must be absolute. If an implementation encounters a relative path
    // [...] it should consider the path invalid and ignore it." (XDG Base Directory Specification)
    let base = place("XDG_CACHE_HOME").or_else(|| Some(place("HOME").filter(|home| home.is_dir())?.join(".cache")))?;
    Some(base.join("minjail/roots"))
}

/// How much the cache may take; 0: there is none.
#[expect(clippy::disallowed_methods, reason = "this is where the environment enters")]
pub(super) fn limit() -> Result<u64, Failure> {
    let Some(text) = std::env::var_os("MINJAIL_CACHE_SIZE").filter(|text| !text.is_empty()) else { return Ok(LIMIT) };
    bytes(&text.to_string_lossy()).map_err(|why| {
        Failure::usage(format!("MINJAIL_CACHE_SIZE is `{}`: {why}", text.display()))
            .hint("set it to how much may be kept, or to 0 for nothing")
    })
}

/// An image as a directory.
pub(super) struct Unpacked {
    place: Place,
    /// Until the directory is gone, if it is there for this one time.
    held: Option<Held>,
}

enum Place {
    Kept(Kept),
    /// For this one time.
    Scratch(Scratch, Notes),
}

impl Unpacked {
    /// Unpacks `image`, which the user calls `name`, until a signal asks for an end; or finds what was unpacked before.
    pub(super) fn of(image: &Image, name: &str, no_cache: bool, quiet: bool) -> Result<Self, Failure> {
        let held = Held::start()?;
        let place = stoppable(|told| Place::found_or_made(image, name, (no_cache, quiet), &mut || told.look()))?;
        let held = matches!(place, Place::Scratch(..)).then_some(held);
        Ok(Self { place, held })
    }

    /// The signal mask for what is started in it, where that is not in force; an end, if a signal has asked for one.
    pub(super) fn mask(&self) -> Result<Option<SigSet>, Failure> {
        self.held.as_ref().map(Held::mask).transpose()
    }

    pub(super) fn tree(&self) -> PathBuf {
        match &self.place {
            Place::Kept(kept) => kept.tree(),
            Place::Scratch(directory, _) => directory.path().to_owned(),
        }
    }

    /// What could not be made as the layers say.
    fn notes(&self) -> Notes {
        match &self.place {
            Place::Kept(kept) => kept.notes(),
            Place::Scratch(_, notes) => *notes,
        }
    }

    /// True if the tree says itself whose its files are, and all else that the layers say.
    pub(super) fn is_owned(&self) -> bool {
        self.notes() == Notes::default()
    }

    /// What the layers say of the files.
    pub(super) fn entries(&self, image: &Image) -> Result<Vec<Entry>, Failure> {
        match &self.place {
            Place::Kept(kept) => Ok(kept.entries(image)?),
            Place::Scratch(..) => Ok(image.entries()?),
        }
    }
}

impl Place {
    fn found_or_made(
        image: &Image,
        name: &str,
        (no_cache, quiet): (bool, bool),
        look: &mut dyn FnMut(),
    ) -> Result<Self, Failure> {
        let limit = limit()?;
        if let Some(directory) = directory().filter(|_| limit > 0 && !no_cache) {
            match Cache::open(&directory, limit).and_then(|cache| cache.unpacked(image, name, look)) {
                Ok(kept) => return Ok(Self::Kept(kept)),
                // The image is at fault, and not the cache.
                Err(CacheError::Read(error)) if !is_for_want_of_room(&error) => return Err(error.into()),
                Err(error) => {
                    if !quiet {
                        say!("note: {}; the image is unpacked for this one time", Failure::from(error).text());
                    }
                }
            }
        }
        let scratch = Scratch::new(&std::env::temp_dir(), ".minjail-slim-")?;
        let notes = image.unpack(scratch.path(), look)?;
        Ok(Self::Scratch(scratch, notes))
    }
}

/// True if what failed is that a file system is full, or the user's share of it.
fn is_for_want_of_room(error: &(dyn Error + 'static)) -> bool {
    let is_it = |error: &io::Error| matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
    causes(error).any(|cause| cause.downcast_ref().is_some_and(is_it))
}
