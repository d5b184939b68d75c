//! `minjail cache`: which images are kept unpacked, and removing them; and where `slim` gets an unpacked image from.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::answer;
use super::exit::Exit;
use super::failure::Failure;
use super::reading::bytes;
use crate::cache::{Cache, CacheError, Kept, Listed};
use crate::image::Image;
use crate::manifest::Entry;
use crate::publish::Scratch;
use crate::report::summary::size;
use crate::tree::Notes;

/// What the cache may take where `MINJAIL_CACHE_SIZE` does not say.
const LIMIT: u64 = 8 << 30;

/// Show which images are kept unpacked for `slim`, and how much they take; or remove them
///
/// They lie in `$XDG_CACHE_HOME/minjail/roots`, else `~/.cache/minjail/roots`. `MINJAIL_CACHE_SIZE` bounds them, 8G unless
/// it says otherwise; 0 is no cache. The least recently used go first.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: Option<What>,

    /// Tell it as JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Show what there is, the least recently used first
    Show,
    /// Remove what nobody uses
    Prune {
        /// Leave as much as this: bytes, or with K, M, G or T as powers of 1024
        #[arg(long, value_name = "BYTES", default_value = "0", value_parser = bytes)]
        max_size: u64,
    },
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let directory = directory().ok_or_else(|| {
        Failure::usage("there is no place for a cache").hint("set HOME or XDG_CACHE_HOME to a directory that exists")
    })?;
    let cache = Cache::open(&directory, limit()?)?;
    match &arguments.what {
        None | Some(What::Show) => show("kept", &directory, &cache.list()?, arguments.json)?,
        Some(What::Prune { max_size }) => show("removed", &directory, &cache.prune(*max_size)?, arguments.json)?,
    }
    Ok(Exit::Success)
}

#[expect(clippy::disallowed_methods, reason = "this is where the clock enters")]
fn show(how: &str, directory: &Path, list: &[Listed], json: bool) -> Result<(), Failure> {
    let total: u64 = list.iter().map(|listed| listed.bytes).sum();
    if json {
        let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let entry = |listed: &Listed| {
            serde_json::json!({
                "name": listed.name, "image": listed.image, "bytes": listed.bytes, "used": seconds(listed.used),
            })
        };
        let entries: Vec<_> = list.iter().map(entry).collect();
        return answer(&format!("{}\n", serde_json::json!({ "directory": directory, "bytes": total, how: entries })));
    }
    let now = SystemTime::now();
    let line = |Listed { name, image, bytes, used }: &Listed| {
        let age = now.duration_since(*used).unwrap_or_default();
        format!("{}  {:>9}  used {} ago  {image}\n", &name[..12], size(*bytes), ago(age))
    };
    let lines: String = list.iter().map(line).collect();
    let count = list.len();
    let images = if count == 1 { "image" } else { "images" };
    answer(&format!("{lines}{how}: {count} {images}, {}, in {}\n", size(total), directory.display()))
}

/// A time that has passed, in its largest unit.
fn ago(age: Duration) -> String {
    let seconds = age.as_secs();
    let units = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let (unit, name) = units.into_iter().find(|(unit, _)| seconds >= *unit).unwrap_or((1, "s"));
    format!("{} {name}", seconds / unit)
}

/// Where the cache is; `None` where there is no home.
#[expect(clippy::disallowed_methods, reason = "this is where the environment enters")]
fn directory() -> Option<PathBuf> {
    let place = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    // "All paths set in these environment variables must be absolute. If an implementation encounters a relative path
    // [...] it should consider the path invalid and ignore it." (XDG Base Directory Specification)
    let base = place("XDG_CACHE_HOME").or_else(|| Some(place("HOME").filter(|home| home.is_dir())?.join(".cache")))?;
    Some(base.join("minjail/roots"))
}

#[expect(clippy::disallowed_methods, reason = "this is where the environment enters")]
fn limit() -> Result<u64, Failure> {
    let Some(text) = std::env::var_os("MINJAIL_CACHE_SIZE").filter(|text| !text.is_empty()) else { return Ok(LIMIT) };
    bytes(&text.to_string_lossy()).map_err(|why| {
        Failure::usage(format!("MINJAIL_CACHE_SIZE is `{}`: {why}", text.display()))
            .hint("set it to how much may be kept, or to 0 for nothing")
    })
}

/// An image as a directory.
pub(super) enum Unpacked {
    Kept(Kept),
    /// For this one time.
    Scratch(Scratch, Notes),
}

impl Unpacked {
    /// Unpacks `image`, which the user calls `name`, or finds what was unpacked before.
    pub(super) fn of(image: &Image, name: &str, no_cache: bool, quiet: bool) -> Result<Self, Failure> {
        let limit = limit()?;
        if let Some(directory) = directory().filter(|_| limit > 0 && !no_cache) {
            match Cache::open(&directory, limit).and_then(|cache| cache.unpacked(image, name)) {
                Ok(kept) => return Ok(Self::Kept(kept)),
                // The image is at fault, and not the cache.
                Err(CacheError::Read(error)) => return Err(error.into()),
                Err(error) => {
                    if !quiet {
                        say!("note: {}; the image is unpacked for this one time", Failure::from(error).text());
                    }
                }
            }
        }
        let scratch = Scratch::new(&std::env::temp_dir(), ".minjail-slim-")?;
        let notes = image.unpack(scratch.path())?;
        Ok(Self::Scratch(scratch, notes))
    }

    pub(super) fn tree(&self) -> PathBuf {
        match self {
            Self::Kept(kept) => kept.tree(),
            Self::Scratch(directory, _) => directory.path().to_owned(),
        }
    }

    /// What could not be made as the layers say.
    fn notes(&self) -> Notes {
        match self {
            Self::Kept(kept) => kept.notes(),
            Self::Scratch(_, notes) => *notes,
        }
    }

    /// True if the tree says itself whose its files are, and all else that the layers say.
    pub(super) fn is_owned(&self) -> bool {
        self.notes() == Notes::default()
    }

    /// What the layers say of the files.
    pub(super) fn entries(&self, image: &Image) -> Result<Vec<Entry>, Failure> {
        match self {
            Self::Kept(kept) => Ok(kept.entries(image)?),
            Self::Scratch(..) => Ok(image.entries()?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_have_passed() {
        for (seconds, text) in [(0, "0 s"), (59, "59 s"), (60, "1 min"), (7_300, "2 h"), (200_000, "2 d")] {
            assert_eq!(ago(Duration::from_secs(seconds)), text);
        }
    }
}
