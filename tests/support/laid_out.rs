//! Directories that are laid out by a list, and what an image has of one, as a list again.

use std::path::Path;

use super::traced::Traced;

/// Files before a run and in the image that comes of it: `path=content`, sorted.
pub(crate) struct Case {
    pub(crate) before: &'static [&'static str],
    pub(crate) script: &'static str,
    pub(crate) image: &'static [&'static str],
}

impl Case {
    #[track_caller]
    pub(crate) fn check(&self) {
        let traced = Traced::new(self.script, |work| lay_out(work, self.before));
        let built = traced.into_built();
        assert_eq!(files(&built.at(""), Path::new("")), self.image, "{}", self.script);
    }
}

/// A path that ends in `/` is an empty directory; `path -> text` is a link.
pub(crate) fn lay_out(work: &Path, files: &[&str]) {
    for file in files {
        if let Some((name, text)) = file.split_once(" -> ") {
            std::os::unix::fs::symlink(text, work.join(name)).expect("the directory can be written");
            continue;
        }
        let (name, content) = file.split_once('=').unwrap_or((file, ""));
        let path = work.join(name);
        let directory = if name.ends_with('/') { Some(path.as_path()) } else { path.parent() };
        fs_err::create_dir_all(directory.expect("it is below the working directory")).expect("that can be written");
        if !name.ends_with('/') {
            fs_err::write(path, content).expect("the directory can be written");
        }
    }
}

/// The files below `top`, as `path=content`, sorted.
pub(crate) fn files(top: &Path, below: &Path) -> Vec<String> {
    let Ok(entries) = fs_err::read_dir(top.join(below)) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries {
        let path = below.join(entry.expect("the directory can be read").file_name());
        match fs_err::read_to_string(top.join(&path)) {
            Ok(content) => found.push(format!("{}={content}", path.display())),
            Err(_) => found.extend(files(top, &path)),
        }
    }
    found.sort();
    found
}

/// Everything below `top` as [`lay_out`] takes it, directories too, sorted.
pub(crate) fn everything(top: &Path, below: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(top.join(below)).expect("it is a directory") {
        let entry = entry.expect("the directory can be read");
        let (path, kind) = (below.join(entry.file_name()), entry.file_type().expect("it is there"));
        let name = path.display();
        if kind.is_dir() {
            found.push(format!("{name}/"));
            found.extend(everything(top, &path));
        } else if kind.is_symlink() {
            found.push(format!("{name} -> {}", fs_err::read_link(entry.path()).expect("it is a link").display()));
        } else {
            found.push(format!("{name}={}", fs_err::read_to_string(entry.path()).expect("it is text")));
        }
    }
    found.sort();
    found
}

/// What the image has of a directory that was laid out like `before`.
#[track_caller]
pub(crate) fn image_of(script: &str, before: &[&str]) -> Vec<String> {
    let built = Traced::new(script, |work| lay_out(work, before)).into_built();
    everything(&built.at(""), Path::new(""))
}
