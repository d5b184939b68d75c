//! Outputs that appear at once or not at all: made under a temporary name beside the target, then renamed.
//!
//! Whoever makes one holds a lock on it. One that nobody holds was left by a minjail that was killed; the next one that
//! makes the same output removes it.

use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use fs_err::File;
use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::unistd::syncfs;

use super::held::{LETTERS, make, remove_abandoned};
use super::{PublishError, directory_of, is_mount_point, remove_all, show};

/// What is being made. Dropped before [`publish`](Self::publish) it leaves nothing behind.
#[must_use = "nothing is there before it is published"]
#[derive(Debug)]
pub struct Stage {
    /// Where it is made.
    path: PathBuf,
    target: PathBuf,
    /// The directory of both.
    parent: PathBuf,
    force: bool,
    /// What stands at `path` is to be removed.
    armed: bool,
    /// The lock, where the file system has locks.
    _held: Option<std::fs::File>,
}

impl Stage {
    /// Makes an empty file that is to become `target`.
    pub fn file(target: &Path, force: bool) -> Result<(Self, File), PublishError> {
        check(target, force, |kind| (!kind.is_file() && !kind.is_symlink()).then_some("no file"))?;
        Self::make(target, force, |path| {
            let file = std::fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o666).open(path)?;
            Ok(File::from_parts(file, path))
        })
    }

    /// Makes a file that is to become `target`, with the content that `write` gives it, on the disk but for its name.
    pub fn whole(
        target: &Path,
        force: bool,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<Self, PublishError> {
        let (stage, file) = Self::file(target, force)?;
        stage.fill(file, write)?;
        Ok(stage)
    }

    /// Lets `write` write the content of `file`, which [`Self::file`] has made, and brings it to the disk.
    pub fn fill(&self, file: File, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), PublishError> {
        let mut buffer = BufWriter::new(file);
        let written = write(&mut buffer).and_then(|()| buffer.into_inner().map_err(io::IntoInnerError::into_error));
        let file = written.map_err(|source| PublishError::failed("write", &self.target, source))?;
        file.sync_all().map_err(|source| PublishError::failed("write to disk", &self.target, source))
    }

    /// Makes an empty directory that is to become `target`. What is there already is replaced only if `force` is set, and
    /// if it is a directory that `is_ours`.
    pub fn directory(
        target: &Path,
        force: bool,
        mode: u32,
        is_ours: impl FnOnce(&Path) -> bool,
    ) -> Result<Self, PublishError> {
        check(target, force, |kind| {
            let what = if kind.is_dir() { "a directory of something else" } else { "no directory" };
            (!kind.is_dir() || !is_ours(target)).then_some(what)
        })?;
        let made = Self::make(target, force, |path| std::fs::DirBuilder::new().mode(mode).create(path))?;
        Ok(made.0)
    }

    fn make<T>(
        target: &Path,
        force: bool,
        create: impl FnMut(&Path) -> io::Result<T>,
    ) -> Result<(Self, T), PublishError> {
        let parent = directory_of(target);
        let Some(name) = target.file_name() else {
            return Err(PublishError::InTheWay { path: show(target), what: "a directory that cannot be renamed" });
        };
        let mut prefix = b".".to_vec();
        // A name has 255 bytes at most (`NAME_MAX`), and the random part wants some.
        prefix.extend_from_slice(&name.as_bytes()[..name.len().min(200)]);
        prefix.extend_from_slice(b".minjail-");
        remove_abandoned(&parent, &prefix);
        let (made, held, path) =
            make(&parent, &prefix, create).map_err(|source| PublishError::failed("make", target, source))?;
        Ok((Self { path, target: target.to_owned(), parent, force, armed: true, _held: held }, made))
    }

    /// Where it is made.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a directory with all that is in it to the disk.
    pub fn sync(&self) -> Result<(), PublishError> {
        let opened = File::open(&self.path).map_err(|source| PublishError::failed("open", &self.path, source))?;
        // One call for the whole file system is far faster than one for each of thousands of files.
        syncfs(opened.file()).map_err(|errno| PublishError::failed("write to disk", &self.path, errno.into()))
    }

    /// Where it is to be.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Gives it its name, and returns when that is on the disk. Everything in it must be there already.
    pub fn publish(self) -> Result<(), PublishError> {
        publish_all(vec![self])
    }

    /// Gives it its name, for the time being.
    fn place(mut self) -> Result<Placed, PublishError> {
        let was = rename(&self.path, &self.target, self.force).map_err(|errno| match errno {
            Errno::EEXIST | Errno::ENOTEMPTY => PublishError::Exists { path: show(&self.target) },
            errno => PublishError::failed("rename what was made to", &self.target, errno.into()),
        })?;
        self.armed = false;
        Ok(Placed { stage: self, was, stays: false })
    }
}

/// Gives all of them their names, one after the other, or none: where one cannot have it, the others are taken back, the last first.
/// Returns when the names are on the disk.
///
/// # Errors
/// One could not be given its name; or it has it, and that could not be brought to the disk, or what it has replaced not be removed.
pub fn publish_all(stages: impl IntoIterator<Item = Stage>) -> Result<(), PublishError> {
    let mut all: Vec<Placed> = Vec::new();
    for stage in stages {
        match stage.place() {
            Ok(placed) => all.push(placed),
            Err(error) => {
                while all.pop().is_some() {}
                return Err(error);
            }
        }
    }
    for placed in &mut all {
        placed.stays = true;
    }
    // What fails with one keeps nobody from cleaning up after the others.
    let settled: Vec<_> = all.into_iter().map(Placed::settle).collect();
    settled.into_iter().collect()
}

/// What has its name, and is taken back when dropped unless it `stays`.
struct Placed {
    stage: Stage,
    was: Was,
    stays: bool,
}

/// What was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Was {
    Nothing,
    /// It has the name now under which the new one was made.
    Aside,
    /// A file that is gone: this file system exchanges nothing.
    Lost,
}

impl Placed {
    fn settle(self) -> Result<(), PublishError> {
        sync(&self.stage.parent)?;
        if self.was == Was::Aside { remove_all(&self.stage.path) } else { Ok(()) }
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        let Stage { path, target, .. } = &self.stage;
        if self.stays || self.was == Was::Lost {
            return;
        }
        // The error that brought us here is the one to report.
        let taken = if self.was == Was::Aside { rename(path, target, true) } else { rename(target, path, false) };
        let _ = taken.map(|_| remove_all(path));
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.armed {
            // The error that brought us here is the one to report.
            let _ = remove_all(&self.path);
        }
    }
}

/// Writes the names in a directory to the disk.
pub fn sync(directory: &Path) -> Result<(), PublishError> {
    let step = "write to disk";
    let opened = File::open(directory).map_err(|source| PublishError::failed(step, directory, source))?;
    opened.sync_all().map_err(|source| PublishError::failed(step, directory, source))
}

/// Sees early whether `target` can be made; `bars` says what is never replaced.
fn check(
    target: &Path,
    force: bool,
    bars: impl FnOnce(std::fs::FileType) -> Option<&'static str>,
) -> Result<(), PublishError> {
    let metadata = match fs_err::symlink_metadata(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => result.map_err(|source| PublishError::failed("look at", target, source))?,
    };
    if !force {
        return Err(PublishError::Exists { path: show(target) });
    }
    let bar = if is_mount_point(target) { Some("a mount point") } else { bars(metadata.file_type()) };
    bar.map_or(Ok(()), |what| Err(PublishError::InTheWay { path: show(target), what }))
}

/// Renames; with `force` over what is there.
fn rename(from: &Path, to: &Path, force: bool) -> Result<Was, Errno> {
    let is_directory = from.is_dir();
    if !force {
        return match rename_flagged(from, to, Flag::NoReplace) {
            Err(UNKNOWN_FLAG) => rename_to_nothing(from, to, is_directory).map(|()| Was::Nothing),
            result => result.map(|()| Was::Nothing),
        };
    }
    match rename_flagged(from, to, Flag::Exchange) {
        Err(Errno::ENOENT) => match rename(from, to, false) {
            // Somebody else was faster.
            Err(Errno::EEXIST | Errno::ENOTEMPTY) => rename(from, to, true),
            result => result,
        },
        Err(UNKNOWN_FLAG) if is_directory => exchange_in_steps(from, to).map(|()| Was::Aside),
        Err(UNKNOWN_FLAG) => nix::fcntl::renameat(AT_FDCWD, from, AT_FDCWD, to).map(|()| Was::Lost),
        result => result.map(|()| Was::Aside),
    }
}

/// Not every file system knows the flags of `renameat2(2)`: "EINVAL The filesystem does not support one of the flags".
const UNKNOWN_FLAG: Errno = Errno::EINVAL;

/// Without the flag a file gets its second name by a link, which replaces nothing, and a directory by a rename, which
/// replaces nothing but an empty directory.
fn rename_to_nothing(from: &Path, to: &Path, is_directory: bool) -> Result<(), Errno> {
    if is_directory {
        return nix::fcntl::renameat(AT_FDCWD, from, AT_FDCWD, to);
    }
    nix::unistd::linkat(AT_FDCWD, from, AT_FDCWD, to, nix::fcntl::AtFlags::empty())?;
    nix::unistd::unlink(from)
}

/// Without the flag there is a moment in which `to` is missing; the old content is never lost.
fn exchange_in_steps(from: &Path, to: &Path) -> Result<(), Errno> {
    let rename = |from: &Path, to: &Path| nix::fcntl::renameat(AT_FDCWD, from, AT_FDCWD, to);
    // A name as all that are made here have, so that the next minjail sweeps it up if this one is killed in between.
    let mut aside = from.as_os_str().as_bytes().to_vec();
    aside.truncate(aside.len() - LETTERS);
    aside.extend_from_slice(b"former");
    let aside = PathBuf::from(std::ffi::OsString::from_vec(aside));
    rename(to, &aside)?;
    if let Err(errno) = rename(from, to) {
        rename(&aside, to)?;
        return Err(errno);
    }
    rename(&aside, from)
}

#[derive(Clone, Copy)]
enum Flag {
    NoReplace,
    Exchange,
}

#[cfg(target_env = "gnu")]
fn rename_flagged(from: &Path, to: &Path, flag: Flag) -> Result<(), Errno> {
    use nix::fcntl::{RenameFlags, renameat2};
    let flags = match flag {
        Flag::NoReplace => RenameFlags::RENAME_NOREPLACE,
        Flag::Exchange => RenameFlags::RENAME_EXCHANGE,
    };
    renameat2(AT_FDCWD, from, AT_FDCWD, to, flags)
}

/// nix has `renameat2` for glibc alone.
#[cfg(not(target_env = "gnu"))]
fn rename_flagged(_from: &Path, _to: &Path, _flag: Flag) -> Result<(), Errno> {
    Err(UNKNOWN_FLAG)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(target: &Path, force: bool) -> Stage {
        Stage::whole(target, force, |writer| writer.write_all(b"new")).unwrap()
    }

    #[test]
    fn all_get_their_names_or_none() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let read = |name: &str| fs_err::read_to_string(at(name)).unwrap();
        fs_err::write(at("file"), "old").unwrap();
        fs_err::create_dir(at("tree")).unwrap();
        fs_err::write(at("tree/inside"), "old").unwrap();
        let begun = || {
            let tree = Stage::directory(&at("tree"), true, 0o755, |_| true).unwrap();
            fs_err::write(tree.path().join("inside"), "new").unwrap();
            vec![file(&at("file"), true), tree, file(&at("other"), false), file(&at("last"), false)]
        };
        let stages = begun();
        fs_err::write(at("last"), "a stranger's").unwrap();
        assert!(matches!(publish_all(stages), Err(PublishError::Exists { .. })));
        assert_eq!(
            (read("file"), read("tree/inside"), read("last")),
            ("old".into(), "old".into(), "a stranger's".into())
        );
        assert_eq!(fs_err::read_dir(directory.path()).unwrap().count(), 3);
        fs_err::remove_file(at("last")).unwrap();
        publish_all(begun()).unwrap();
        assert_eq!((read("file"), read("tree/inside"), read("other")), ("new".into(), "new".into(), "new".into()));
        assert_eq!(fs_err::read_dir(directory.path()).unwrap().count(), 4);
    }

    #[test]
    fn who_replaces_what_is_there_never_fails_over_others() {
        let directory = tempfile::tempdir().unwrap();
        let (target, tree) = (directory.path().join("file"), directory.path().join("tree"));
        std::thread::scope(|scope| {
            for number in 0..4 {
                let (target, tree) = (&target, &tree);
                scope.spawn(move || {
                    for _ in 0..50 {
                        publish_all([file(target, true)]).unwrap();
                        Stage::directory(tree, true, 0o755, |_| true).unwrap().publish().unwrap();
                        if number == 0 {
                            remove_all(target).unwrap();
                            remove_all(tree).unwrap();
                        }
                    }
                });
            }
        });
        remove_all(&target).and_then(|()| remove_all(&tree)).unwrap();
        assert_eq!(fs_err::read_dir(directory.path()).unwrap().count(), 0);
    }

    /// As where the file system knows no exchange, and this minjail is killed halfway.
    #[test]
    fn what_stands_aside_is_swept_up() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join(".tree.minjail-aB3dE6"), directory.path().join("tree"));
        for (path, name) in [(&from, "new"), (&to, "old")] {
            fs_err::create_dir(path).unwrap();
            fs_err::write(path.join(name), "").unwrap();
        }
        exchange_in_steps(&from, &to).unwrap();
        assert!(to.join("new").exists() && from.join("old").exists());
        fs_err::rename(&from, directory.path().join(".tree.minjail-former")).unwrap();
        drop(Stage::directory(&to, true, 0o755, |_| true).unwrap());
        assert_eq!(fs_err::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn two_who_remove_the_same_do_not_mind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tree");
        for _ in 0..20 {
            for number in 0..200 {
                fs_err::create_dir_all(path.join(format!("{}/{number}", number % 7))).unwrap();
            }
            std::thread::scope(|scope| {
                let removed: Vec<_> = (0..3).map(|_| scope.spawn(|| remove_all(&path))).collect();
                for one in removed {
                    one.join().unwrap().unwrap();
                }
            });
            assert!(!path.exists());
        }
    }
}
