//! How the machine was before a profile's commands ran: what they make, change or mount may be gone when an image is written.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use minjail_tracer::unescape_mount;
use serde::{Deserialize, Serialize};

use crate::path::{JailPath, escape, unescape};

/// The moment before the first of those commands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outset {
    /// In seconds since 1970, by the clock by which files are changed.
    pub(super) seconds: i64,
    /// What was mounted.
    mounts: BTreeSet<String>,
}

impl Outset {
    /// Now, when `directory` was just made.
    ///
    /// # Errors
    /// It cannot be looked at, or the table of mounts cannot be read.
    pub fn of(directory: &Path) -> io::Result<Self> {
        // Somewhat earlier, as there are file systems that count in steps of two.
        let seconds = fs_err::metadata(directory)?.ctime() - 2;
        Ok(Self { seconds, mounts: mounts()? })
    }

    /// Where something is mounted that was not.
    pub(super) fn mounted_since(&self) -> io::Result<Vec<JailPath>> {
        Ok(mounts()?.difference(&self.mounts).filter_map(|mount| place(mount)).collect())
    }
}

/// Of each mount its number and its parent's, the device, which part of it, and where: what follows, as options, may change with
/// nothing mounted anew (`proc_pid_mountinfo(5)`).
fn mounts() -> io::Result<BTreeSet<String>> {
    let table = fs_err::read("/proc/self/mountinfo")?;
    let fields = |line: &[u8]| line.split(|byte| *byte == b' ').take(5).collect::<Vec<_>>().join(&b' ');
    Ok(table.split(|byte| *byte == b'\n').map(|line| escape(&fields(line))).collect())
}

/// `None` if it is out of sight.
fn place(mount: &str) -> Option<JailPath> {
    let fields = unescape(mount)?;
    JailPath::parse(&unescape_mount(fields.split(|byte| *byte == b' ').nth(4)?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_mounted_is_not_new() {
        let directory = tempfile::tempdir().unwrap();
        let mut outset = Outset::of(directory.path()).unwrap();
        assert_eq!(outset.mounted_since().unwrap(), []);
        outset.mounts.clear();
        assert!(outset.mounted_since().unwrap().contains(&JailPath::parse(b"/proc").unwrap()));
    }
}
