//! `minjail cache`: which images are kept unpacked, and removing them.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::answer;
use super::exit::Exit;
use super::failure::Failure;
use super::reading::bytes;
use super::unpacked::{directory, limit};
use crate::cache::{Cache, Listed};
use crate::report::summary::size;

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
