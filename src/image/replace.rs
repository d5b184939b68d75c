//! What `--force` may replace: what minjail has written, and nothing of anybody else's.

use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::output::Output;
use crate::path::{JailPath, escape, unescape};
use crate::publish::PublishError;

/// Where the lock of an output stands.
pub fn lock_beside(output: &Path) -> PathBuf {
    let mut name = output.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

/// Sees early whether what stands where `outputs` and `locks` go may be replaced.
///
/// # Errors
/// Something may not.
pub fn check_replaceable(outputs: &[Output], locks: &[PathBuf]) -> Result<(), PublishError> {
    let bar = |output: &Output| match output {
        Output::Rootfs(directory) => foreign(directory, is_rootfs_or_empty),
        Output::Oci { directory, .. } => foreign(directory, is_layout_or_empty),
        file => file.path().and_then(no_file),
    };
    let outputs = outputs.iter().filter_map(|output| Some((output.path()?, bar(output)?)));
    let mut all = outputs.chain(locks.iter().filter_map(|lock| Some((lock.as_path(), no_file(lock)?))));
    all.next().map_or(Ok(()), |(path, what)| {
        let path = escape(path.as_os_str().as_encoded_bytes());
        Err(PublishError::InTheWay { path, what })
    })
}

/// What bars a directory from the place where something stands.
fn foreign(directory: &Path, is_ours: fn(&Path) -> bool) -> Option<&'static str> {
    let found = fs_err::symlink_metadata(directory).ok()?;
    let what = if found.is_dir() { "a directory of something else" } else { "no directory" };
    (!found.is_dir() || !is_ours(directory)).then_some(what)
}

/// What bars a file from it.
fn no_file(path: &Path) -> Option<&'static str> {
    let found = fs_err::symlink_metadata(path).ok()?;
    (!found.is_file() && !found.is_symlink()).then_some("no file")
}

/// An OCI layout, or nothing yet: what may be replaced without taking somebody's home directory away.
pub(super) fn is_layout_or_empty(directory: &Path) -> bool {
    directory.join("oci-layout").is_file() || is_empty(directory)
}

/// A tree says nothing of who made it, but minjail leaves its lock beside each that it makes: one of a tree that this may be.
pub(super) fn is_rootfs_or_empty(directory: &Path) -> bool {
    let lock = lock_beside(directory);
    is_empty(directory) || (is_lock(&lock) && may_be_of(&lock, directory))
}

/// Of a lock, which paths it lists, as text.
#[derive(Deserialize)]
struct Listed {
    entries: Vec<ListedEntry>,
}

#[derive(Deserialize)]
struct ListedEntry {
    path: String,
}

/// True unless `lock` lists something at the top of its tree that `directory` does not have.
fn may_be_of(lock: &Path, directory: &Path) -> bool {
    let Ok(file) = fs_err::File::open(lock) else { return false };
    // One that cannot be read says nothing of what it is of.
    let Ok(Listed { entries }) = serde_json::from_reader(BufReader::new(file)) else { return true };
    let tops = entries.iter().filter_map(|entry| JailPath::parse(&unescape(&entry.path)?).ok());
    let mut tops = tops.filter(|path| path.components().count() == 1);
    tops.all(|path| fs_err::symlink_metadata(path.below(directory)).is_ok())
}

fn is_empty(directory: &Path) -> bool {
    fs_err::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none())
}

/// True for a file that begins as a lock does: other tools too call their files so.
fn is_lock(path: &Path) -> bool {
    if !fs_err::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file()) {
        return false;
    }
    let mut start = Vec::new();
    let read = fs_err::File::open(path).and_then(|file| file.take(64).read_to_end(&mut start));
    read.is_ok() && start.trim_ascii_start().strip_prefix(b"{").map(<[u8]>::trim_ascii_start).is_some_and(begins)
}

fn begins(text: &[u8]) -> bool {
    text.starts_with(b"\"minjail-format\"")
}
