//! A small tree for the tests of walks: links in the middle and at the end, and one of a loop.

use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::place::Place;

pub(crate) fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().to_owned().into_vec()
}

pub(crate) struct Fixture {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) place: Place,
}

pub(crate) fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs_err::create_dir_all(at("usr/bin")).unwrap();
    fs_err::create_dir_all(at("opt/lib")).unwrap();
    fs_err::write(at("usr/bin/tool"), "x").unwrap();
    symlink("usr/bin", at("bin")).unwrap();
    symlink("../../bin/tool", at("opt/lib/tool")).unwrap();
    symlink("loop", at("loop")).unwrap();
    let top = bytes(directory.path());
    let place = Place { root: top.clone(), directory: top, ..Place::default() };
    Fixture { directory, place }
}
