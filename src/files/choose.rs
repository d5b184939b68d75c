//! What the user names: files to pack besides, and files to leave out.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt;

use super::closure::is_named_as_library;
use super::policy::{Pattern, PatternKind, StatOnly};
use super::{FileSet, FilesError, Note, Reason, What};
use crate::path::{FileType, JailPath};
use crate::root::dpkg::{self, Diversions, MAX_DATABASE};
use crate::root::{Root, RootError};
use crate::trace::{is_kernels, is_made_up, is_made_up_below};

/// Adds what `patterns` name; returns the executables and libraries among it.
pub(super) fn include(files: &mut FileSet, patterns: &[Pattern], root: &Root) -> Result<Vec<JailPath>, FilesError> {
    let mut objects = Vec::new();
    for pattern in patterns {
        let mut found = named(pattern, root)?;
        let first = found.first().cloned();
        found.retain(|path| !is_kernels(path) && !is_made_up_below(path, root));
        if found.is_empty() {
            if let Some(path) = first.filter(is_kernels) {
                return Err(FilesError::Runtimes { path });
            }
            return Err(FilesError::Nothing { pattern: pattern.text.clone() });
        }
        let reason = Reason::Included { pattern: pattern.text.clone() };
        objects.extend(add_found(files, found, &reason, root)?);
    }
    Ok(objects)
}

/// Adds what was `found` below the root; returns the executables and libraries among it.
pub(super) fn add_found(
    files: &mut FileSet,
    found: BTreeSet<JailPath>,
    reason: &Reason,
    root: &Root,
) -> Result<Vec<JailPath>, RootError> {
    let mut objects = Vec::new();
    for path in found {
        // The way to it, and what it leads to if it is a link; one that leads nowhere is what is there.
        let walk = root.resolve(&JailPath::root(), path.as_bytes(), true)?;
        for link in walk.links {
            files.add(link.path, What::AsIs, reason.clone());
        }
        let Some(facts) = walk.facts else { continue };
        if facts.file_type == FileType::Socket || is_kernels(&walk.end) || is_made_up_below(&walk.end, root) {
            continue;
        }
        let looks_like_one = facts.mode & 0o111 != 0 || is_named_as_library(&walk.end);
        if facts.is_file() && (looks_like_one || is_elf(&walk.end, root)) {
            objects.push(walk.end.clone());
        }
        files.add(walk.end, What::AsIs, reason.clone());
    }
    Ok(objects)
}

/// True for what a program loads under any name, as Node does `.node`. What cannot be read is told of when it is to be packed.
fn is_elf(path: &JailPath, root: &Root) -> bool {
    let mut start = [0; 4];
    root.open_file(path).is_ok_and(|mut file| file.read_exact(&mut start).is_ok()) && start == *b"\x7fELF"
}

/// What one of the user's patterns leaves out.
pub(super) struct Exclusion<'a> {
    pattern: &'a Pattern,
    is_named: Box<dyn Fn(&JailPath) -> bool + 'a>,
}

impl<'a> Exclusion<'a> {
    pub(super) fn of(pattern: &'a Pattern, root: &Root) -> Result<Self, FilesError> {
        let is_named: Box<dyn Fn(&JailPath) -> bool + 'a> = match &pattern.kind {
            PatternKind::Path(top) => {
                // Files stand where links on the way lead; a link that is itself named is what it is. Where that leads may be what
                // minjail may not see, and why it is left out.
                let end = match root.resolve(&JailPath::root(), top.as_bytes(), false) {
                    Err(error) if error.is_refusal() => top.clone(),
                    walk => walk?.end,
                };
                Box::new(move |path| path.starts_with(top) || path.starts_with(&end))
            }
            PatternKind::Glob(glob, start) => {
                let end = root.resolve(&JailPath::root(), start.as_bytes(), true)?.end;
                let matches = move |path: &JailPath| {
                    let mut above = path.upwards();
                    above.any(|path| glob.is_match(OsStr::from_bytes(path.as_bytes())))
                };
                Box::new(move |path| {
                    matches(path) || respelled(path, &end, start).is_some_and(|spelled| matches(&spelled))
                })
            }
            PatternKind::Package(_) => {
                let named: BTreeSet<JailPath> = named(pattern, root)?;
                Box::new(move |path| named.contains(path))
            }
        };
        Ok(Self { pattern, is_named })
    }

    /// True if it leaves out `path`: a package shares its directories with others.
    pub(super) fn names(&self, path: &JailPath, root: &Root) -> bool {
        let is_package = matches!(self.pattern.kind, PatternKind::Package(_));
        (self.is_named)(path) && !(is_package && leads_to_directory(path, root))
    }
}

/// Takes away what is left out, and says what of it the runs used, and which patterns name nothing.
pub(super) fn exclude(files: &mut FileSet, exclusions: &[Exclusion<'_>], root: &Root, notes: &mut Vec<Note>) {
    for exclusion in exclusions {
        let before = files.wanted.len();
        files.wanted.retain(|path, wanted| {
            // Mount points must be.
            if !exclusion.names(path, root) || wanted.what == What::EmptyDirectory {
                return true;
            }
            let used = wanted.reasons.iter().any(Reason::is_use) && !is_directory(path, root);
            if used {
                notes.push(Note::Excluded { path: path.clone() });
            }
            false
        });
        if files.wanted.len() == before {
            notes.push(Note::NothingExcluded { pattern: exclusion.pattern.text.clone() });
        }
    }
}

/// Says which of the patterns to `include` are left out as a whole: nothing was meant by one of the two.
pub(super) fn tell_contradictions(files: &FileSet, include: &[Pattern], notes: &mut Vec<Note>) {
    let is_left = |pattern: &Pattern| {
        let is_its = |reason: &Reason| matches!(reason, Reason::Included { pattern: of } if *of == pattern.text);
        files.wanted.values().any(|wanted| wanted.reasons.iter().any(is_its))
    };
    let gone = include.iter().filter(|pattern| !is_left(pattern));
    notes.extend(gone.map(|pattern| Note::NothingIncluded { pattern: pattern.text.clone() }));
}

/// `path`, which is below the directory `end`, as it is spelled where that is `start`.
fn respelled(path: &JailPath, end: &JailPath, start: &JailPath) -> Option<JailPath> {
    let rest = || path.components().skip(end.components().count());
    path.starts_with(end).then(|| JailPath::of(start.components().chain(rest())))
}

/// What becomes of files that were looked at and never opened, and that nothing else needs.
pub(super) fn stat_only(files: &mut FileSet, looked_at: &BTreeSet<JailPath>, choice: StatOnly) {
    if choice == StatOnly::Full {
        return;
    }
    for path in looked_at {
        let Some(wanted) = files.wanted.get_mut(path).filter(|wanted| wanted.what == What::AsIs) else { continue };
        let listed = |reason: &Reason| matches!(reason, Reason::Listed { .. });
        if !wanted.reasons.iter().all(|reason| listed(reason) || matches!(reason, Reason::Touched { .. })) {
            continue;
        }
        if choice == StatOnly::Hollow {
            wanted.what = What::Hollow;
        } else if wanted.reasons.iter().any(listed) {
            wanted.what = What::Placeholder;
        } else {
            files.wanted.remove(path);
        }
    }
}

/// The paths in the root that a pattern names.
fn named(pattern: &Pattern, root: &Root) -> Result<BTreeSet<JailPath>, FilesError> {
    let mut found = BTreeSet::new();
    match &pattern.kind {
        PatternKind::Path(path) => found = whole(path, root)?,
        PatternKind::Glob(glob, start) => {
            let mut all = BTreeSet::from([start.clone()]);
            below(start, root, &mut all)?;
            for path in all.iter().filter(|path| glob.is_match(OsStr::from_bytes(path.as_bytes()))) {
                found.insert(path.clone());
                below(path, root, &mut found)?;
            }
        }
        PatternKind::Package(name) => found = package(name, root)?,
    }
    Ok(found)
}

/// `path`, if it is there, and everything below it; also where it is a link to a directory, since who names it means what is there.
pub(super) fn whole(path: &JailPath, root: &Root) -> Result<BTreeSet<JailPath>, RootError> {
    let mut found = BTreeSet::new();
    let walk = root.resolve(&JailPath::root(), path.as_bytes(), false)?;
    if walk.facts.is_some() {
        found.insert(path.clone());
        below(&root.resolve(&JailPath::root(), path.as_bytes(), true)?.end, root, &mut found)?;
    }
    Ok(found)
}

/// Everything below the directory `top`, but for what is mounted there by the runtime; links in it are not followed.
fn below(top: &JailPath, root: &Root, found: &mut BTreeSet<JailPath>) -> Result<(), RootError> {
    let mut todo = vec![top.clone()];
    while let Some(directory) = todo.pop() {
        if is_kernels(&directory) || !is_directory(&directory, root) || is_made_up(&directory, root) {
            continue;
        }
        for name in root.list(&directory)? {
            let path = directory.join(&name);
            found.insert(path.clone());
            todo.push(path);
        }
    }
    Ok(())
}

fn is_directory(path: &JailPath, root: &Root) -> bool {
    matches!(root.lstat(path), Ok(Some(facts)) if facts.is_directory())
}

/// True for a directory, and for a link to one, as `/bin` often is.
fn leads_to_directory(path: &JailPath, root: &Root) -> bool {
    let walk = root.resolve(&JailPath::root(), path.as_bytes(), true);
    walk.is_ok_and(|walk| walk.facts.is_some_and(|facts| facts.is_directory()))
}

/// The files of a Debian package that are there, by the list that dpkg keeps (dpkg-query(1), `--listfiles`), and where they stand.
fn package(name: &str, root: &Root) -> Result<BTreeSet<JailPath>, RootError> {
    let info = JailPath::literal(b"/var/lib/dpkg/info");
    if root.lstat(&info)?.is_none() {
        return Ok(BTreeSet::new());
    }
    let (bare, architecture) = name.split_once(':').map_or((name, None), |(bare, arch)| (bare, Some(arch)));
    let is_list = |file: &[u8]| {
        // `NAME.list`, or `NAME:ARCH.list` of what may be installed for several architectures.
        let rest = file.strip_suffix(b".list").and_then(|stem| stem.strip_prefix(bare.as_bytes()));
        match (rest, architecture) {
            (Some(b""), None) => Ok(true),
            (Some(b""), Some(architecture)) => dpkg::is_for(bare, architecture, root),
            (Some([b':', of @ ..]), architecture) => Ok(architecture.is_none_or(|wanted| wanted.as_bytes() == of)),
            _ => Ok(false),
        }
    };
    let diversions = Diversions::read(root)?;
    let mut found = BTreeSet::new();
    for file in root.list(&info)? {
        if !is_list(&file)? {
            continue;
        }
        let list = root.read(&info.join(&file), MAX_DATABASE)?;
        for line in dpkg::listed(&list) {
            let line = diversions.place(line, bare.as_bytes());
            let Ok(path) = JailPath::parse(line) else { continue };
            let walk = root.resolve(&JailPath::root(), line, false)?;
            if !path.is_root() && walk.facts.is_some() {
                // A package may still say `/bin` where the root has a link to `/usr/bin`.
                found.extend([path, walk.end]);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn path(text: &str) -> JailPath {
        JailPath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn files_of_a_package() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(directory.path()).unwrap();
        let at = |name: &str| directory.path().join(name);
        let of = |name: &str| {
            let pattern = Pattern::parse(&format!("deb:{name}")).unwrap();
            named(&pattern, &root).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(of("lib"), [""; 0], "no dpkg");
        fs_err::create_dir_all(at("var/lib/dpkg/info")).unwrap();
        fs_err::create_dir_all(at("usr/bin")).unwrap();
        symlink("usr/bin", at("bin")).unwrap();
        for name in ["usr/bin/tool", "usr/bin/other"] {
            fs_err::write(at(name), "").unwrap();
        }
        for (list, lines) in [
            ("lib:amd64.list", "/.\n/bin\n/bin/tool\n/usr/bin/gone\n"),
            ("lib-dev.list", "/usr/bin/other\n"),
            ("core.list", "/usr/bin/tool\n"),
            ("lib.md5sums", "/usr/bin/other\n"),
        ] {
            fs_err::write(at("var/lib/dpkg/info").join(list), lines).unwrap();
        }
        let all = ["/bin", "/bin/tool", "/usr/bin/tool"];
        assert_eq!(
            (of("lib"), of("lib:amd64"), of("li")),
            (all.map(String::from).into(), all.map(String::from).into(), vec![])
        );
        fs_err::write(at("var/lib/dpkg/status"), "Package: core\nArchitecture: amd64\n\nPackage: x\n").unwrap();
        assert_eq!((of("core:amd64"), of("core:arm64")), (vec!["/usr/bin/tool".to_owned()], vec![]));
        // What another package has diverted stands elsewhere, and what is there is that one's.
        let diverted = "/usr/bin/other\n/usr/bin/other.dev\nelse\n/usr/bin/tool\n/usr/bin/tool.old\ncore\n";
        fs_err::write(at("var/lib/dpkg/diversions"), diverted).unwrap();
        assert_eq!(of("lib-dev"), [""; 0]);
        fs_err::write(at("usr/bin/other.dev"), "").unwrap();
        assert_eq!(
            (of("lib-dev"), of("core")),
            (vec!["/usr/bin/other.dev".to_owned()], vec!["/usr/bin/tool".to_owned()])
        );
        fs_err::remove_file(at("var/lib/dpkg/diversions")).unwrap();
        // A directory, and a link to one, is other packages' as well.
        let pattern = Pattern::parse("deb:lib").unwrap();
        let exclusion = Exclusion::of(&pattern, &root).unwrap();
        let excluded =
            ["/usr/bin/tool", "/bin", "/usr/bin", "/usr/bin/other"].map(|name| exclusion.names(&path(name), &root));
        assert_eq!(excluded, [true, false, false, false]);
    }
}
