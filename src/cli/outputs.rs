//! Where images and their locks go, and what can be said of that before anything runs.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::failure::Failure;
use crate::image::{Output, check_distinct, check_replaceable};
use crate::publish::{directory_of, may_make_in};

/// All that a command is to write.
pub(super) struct Outputs {
    pub(super) images: Vec<Output>,
    pub(super) locks: Vec<PathBuf>,
}

impl Outputs {
    /// Refuses what cannot be written.
    pub(super) fn check(&self, force: bool) -> Result<(), Failure> {
        const WAY_OUT: &str = "give another name, or `--force` to replace it";
        for path in self.images.iter().filter_map(Output::path) {
            check_target(path, force, WAY_OUT)?;
        }
        for lock in &self.locks {
            check_file(lock, force, WAY_OUT)?;
        }
        check_distinct(&self.images, &self.locks)?;
        check_replaceable(&self.images, &self.locks)?;
        match self.to_standard_output() {
            // Nobody would get the image, and no write would fail.
            Some(output) if !minjail_tracer::has_standard_output() => {
                Err(Failure::usage(format!("`{output}` cannot be written: standard output is closed"))
                    .hint("redirect it to a file or a pipe, or name a file"))
            }
            _ => Ok(()),
        }
    }

    /// Refuses to build what goes nowhere.
    pub(super) fn require_image(&self) -> Result<(), Failure> {
        if self.images.is_empty() {
            return Err(
                Failure::usage("nothing to build: no output is named").hint("name one with `-o`, as `-o oci:DIR`")
            );
        }
        Ok(())
    }

    /// Every file and directory that will be written.
    pub(super) fn places(&self) -> impl Iterator<Item = &Path> {
        self.images.iter().filter_map(Output::path).chain(self.locks.iter().map(PathBuf::as_path))
    }

    fn to_standard_output(&self) -> Option<&Output> {
        self.images.iter().find(|output| output.path().is_none())
    }

    /// Keeps standard output for the image, if one goes there: what the program prints goes to standard error instead.
    pub(super) fn reserve_standard_output(&self) -> Result<(), Failure> {
        if self.to_standard_output().is_some() {
            nix::unistd::dup2_stdout(std::io::stderr()).map_err(Failure::new)?;
        }
        Ok(())
    }
}

/// Reads what was given with `-o`.
pub(super) fn parse_all(texts: &[OsString]) -> Result<Vec<Output>, Failure> {
    Ok(texts.iter().map(|text| Output::parse(text)).collect::<Result<_, _>>()?)
}

/// Sees early whether a file can be made at `path`; `way_out` says what to do if something is there already.
pub(super) fn check_file(path: &Path, force: bool, way_out: &str) -> Result<(), Failure> {
    if path.as_os_str().as_bytes().ends_with(b"/") {
        let text = path.display();
        return Err(
            Failure::usage(format!("`{text}` is the name of a directory")).hint("name a file, as without the `/`")
        );
    }
    check_target(path, force, way_out)
}

/// Sees early whether an output can be made at `path`; `way_out` says what to do if something is there already.
pub(super) fn check_target(path: &Path, force: bool, way_out: &str) -> Result<(), Failure> {
    let text = path.display();
    match path.symlink_metadata() {
        Ok(_) if !force => return Err(Failure::usage(format!("`{text}` exists already")).hint(way_out)),
        Err(error) if error.kind() == ErrorKind::InvalidFilename => {
            return Err(Failure::usage(format!("`{text}` cannot be written: {error}")).hint("give a shorter name"));
        }
        _ => {}
    }
    let parent = directory_of(path);
    if !parent.is_dir() {
        return Err(Failure::usage(format!(
            "`{text}` cannot be written: there is no directory `{}`",
            parent.display()
        ))
        .hint("make the directory first"));
    }
    may_make_in(&parent).map_err(|error| {
        Failure::usage(format!("`{text}` cannot be written: {error}")).hint("write to a directory that you may change")
    })
}
