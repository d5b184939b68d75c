//! Which time an entry gets.
//!
//! Programs compare times: Python takes the compiled form of a module only if the time and size that it names are the
//! source's. So the default keeps the times that programs look at, and those alone; see `docs/format.md`, "Times".

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use super::model::{Entry, Kind};
use super::packing::Times;
use crate::path::{Facts, JailPath};
use crate::root::{Root, RootError};

/// The time of a file, link, directory or other node of the root.
pub(super) fn of(times: Times, facts: &Facts, epoch: i64, packaged: bool) -> i64 {
    match times {
        Times::Fixed => epoch,
        Times::Clamp => facts.mtime.min(epoch),
        // A directory's time tells of the latest layer that put something there.
        Times::Files if facts.is_directory() => epoch,
        Times::Files => facts.mtime,
        Times::Keep => facts.mtime,
        // Directories change whenever a name in them does, and links are made anew by whoever installs: neither has a
        // time that a second machine would have too.
        Times::Packaged if packaged && facts.is_file() => facts.mtime,
        Times::Packaged => epoch,
    }
}

/// Gives the entries at `unpackaged`, files that have the epoch since no package brought them, the newest time of a packaged
/// file if that is later.
///
/// They are what was installed or made on the machine, often from packaged files. With the epoch all of them would be
/// older than these, and who compares would make them anew: make, ninja, emacs. Their own times depend on the machine.
pub(super) fn follow(entries: &mut [Entry], unpackaged: &[usize]) {
    let packaged = entries.iter().filter(|entry| entry.package.is_some() && matches!(entry.kind, Kind::File { .. }));
    let Some(newest) = packaged.map(|entry| entry.mtime).max() else { return };
    for &index in unpackaged {
        let entry = &mut entries[index];
        entry.mtime = entry.mtime.max(newest);
    }
}

/// The source that a compiled Python module at `path` is of: `d/__pycache__/m.cpython-311.pyc` of `d/m.py` (PEP 3147).
pub(super) fn source_of(path: &JailPath) -> Option<JailPath> {
    let name = path.file_name().strip_suffix(b".pyc")?;
    let directory = path.parent().filter(|directory| directory.file_name() == b"__pycache__")?.parent()?;
    // `m.cpython-311`, or `m.cpython-311.opt-1`; a module's name has no dot.
    let module = name.split(|&byte| byte == b'.').next().filter(|module| module.len() < name.len())?;
    Some(directory.join(&[module, b".py"].concat()))
}

/// Of the compiled modules among `paths` in the root, the sources whose present time and size they name. A compiled
/// module that names other ones is stale: Python passes it over, and so it may in the jail.
pub(super) fn compiled<'a>(
    paths: impl Iterator<Item = &'a JailPath>,
    root: &Root,
) -> Result<BTreeSet<JailPath>, RootError> {
    let mut sources = BTreeSet::new();
    for path in paths {
        let Some(source) = source_of(path) else { continue };
        let Some(facts) = root.facts(&source)?.filter(Facts::is_file) else { continue };
        if root.facts(path)?.is_some_and(|facts| facts.is_file()) && names(path, &facts, root)? {
            sources.insert(source);
        }
    }
    Ok(sources)
}

/// Of the files among `paths` that no package brought, those that have the name and the time of one that a package did.
///
/// That is how a cache marks what it is the processed form of: man takes `/var/cache/man/cat1/ls.1.gz` only while its
/// time is that of `/usr/share/man/man1/ls.1.gz`.
pub(super) fn mirrors<'a>(
    paths: impl Iterator<Item = &'a JailPath> + Clone,
    is_packaged: impl Fn(&JailPath) -> bool,
    root: &Root,
) -> Result<BTreeSet<JailPath>, RootError> {
    let (packaged, own): (Vec<_>, Vec<_>) = paths.partition(|path| is_packaged(path));
    let mut originals: BTreeMap<&[u8], Vec<&JailPath>> = BTreeMap::new();
    for path in packaged {
        originals.entry(path.file_name()).or_default().push(path);
    }
    let time = |path: &JailPath| Ok(root.facts(path)?.filter(Facts::is_file).map(|facts| facts.mtime));
    let mut mirrors = BTreeSet::new();
    for path in own {
        let Some(originals) = originals.get(path.file_name()) else { continue };
        let Some(own) = time(path)? else { continue };
        for original in originals {
            if time(original)? == Some(own) {
                mirrors.insert(path.clone());
            }
        }
    }
    Ok(mirrors)
}

/// Takes from the directories of fonts of which there is a cache the time that is not theirs. fontconfig takes a cache only while its directory
/// has the time that stands in it, or none, which is 0 (`src/fccache.c`, `FcCacheTimeValid`); with another one it would look for
/// fonts among files that the run did not need.
pub(super) fn undate_fonts(entries: &mut [Entry], root: &Root) {
    let mut directories = BTreeSet::new();
    for entry in entries.iter().filter(|entry| matches!(entry.kind, Kind::File { .. }) && is_font_cache(&entry.path)) {
        directories.extend(directory_of_fonts(&entry.path, root));
    }
    for directory in directories {
        if let Ok(at) = entries.binary_search_by(|entry| entry.path.cmp(&directory)) {
            entries[at].mtime = 0;
        }
    }
}

/// `fontconfig/0d83b4deeaa12e01cf49a0e4a38256fa-le64.cache-8`.
fn is_font_cache(path: &JailPath) -> bool {
    let is_there = path.parent().is_some_and(|parent| parent.file_name().ends_with(b"fontconfig"));
    is_there && path.file_name().windows(7).any(|part| part == b".cache-")
}

/// The directory that the cache at `path` is of, where its links lead (`src/fcint.h`, `struct _FcCache`, of 64-bit machines: a magic number,
/// a version, a size, and where in the file the name of the directory stands). What cannot be read is told of elsewhere.
fn directory_of_fonts(path: &JailPath, root: &Root) -> Option<JailPath> {
    const MAGIC: [u8; 4] = 0xFC02_FC04_u32.to_le_bytes();
    const LARGEST: u64 = 64 << 20;
    let content = root.read(path, LARGEST).ok().filter(|content| content.starts_with(&MAGIC))?;
    let at = u64::from_le_bytes(content.get(16..24)?.try_into().ok()?);
    let rest = content.get(usize::try_from(at).ok()?..)?;
    let name = rest.get(..rest.iter().position(|&byte| byte == 0)?)?;
    let walk = root.resolve(&JailPath::root(), name, true).ok()?;
    walk.facts.is_some_and(|facts| facts.is_directory()).then_some(walk.end)
}

/// True if the compiled module at `path` names the time and size of its source (PEP 552: a magic number, flags that are
/// zero for one checked by time, then both, as 32-bit little-endian numbers).
fn names(path: &JailPath, source: &Facts, root: &Root) -> Result<bool, RootError> {
    let mut header = [0; 16];
    if let Err(error) = root.open_file(path)?.read_exact(&mut header) {
        return match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Ok(false),
            _ => Err(RootError { step: "read", path: path.to_string(), source: error }),
        };
    }
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    Ok(word(4) == 0 && word(8) == source.mtime as u32 && word(12) == source.size as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> JailPath {
        JailPath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn compiled_modules_lead_to_their_source() {
        assert_eq!(source_of(&path("/d/__pycache__/m.cpython-311.pyc")), Some(path("/d/m.py")));
        assert_eq!(source_of(&path("/d/__pycache__/m.cpython-311.opt-1.pyc")), Some(path("/d/m.py")));
        assert_eq!(source_of(&path("/d/m.cpython-311.pyc")), None);
        assert_eq!(source_of(&path("/d/__pycache__/m.pyc")), None);
    }

    #[test]
    fn directories_of_fonts_that_are_cached_have_no_time() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(directory.path()).unwrap();
        let caches = directory.path().join("cache/fontconfig");
        fs_err::create_dir_all(&caches).unwrap();
        fs_err::create_dir_all(directory.path().join("fonts/other")).unwrap();
        let header =
            |magic: u32| [&magic.to_le_bytes()[..], &[8, 0, 0, 0], &[0; 8], &32_u64.to_le_bytes(), &[0; 8]].concat();
        fs_err::write(caches.join("a-le64.cache-8"), [header(0xFC02_FC04), b"/fonts\0".to_vec()].concat()).unwrap();
        fs_err::write(caches.join("b-le64.cache-8"), [header(1), b"/fonts/other\0".to_vec()].concat()).unwrap();
        fs_err::write(caches.join("c-le64.cache-8"), "short").unwrap();
        let file = || Kind::File { size: 1, sha256: crate::manifest::Seal::default() };
        let entry = |path: &str, kind: Kind| Entry {
            path: self::path(path),
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: 7,
            xattrs: BTreeMap::new(),
            package: None,
            layer: 0,
            reasons: crate::files::Reasons::default(),
        };
        let mut entries = vec![
            entry("/cache/fontconfig/a-le64.cache-8", file()),
            entry("/cache/fontconfig/b-le64.cache-8", file()),
            entry("/cache/fontconfig/c-le64.cache-8", file()),
            entry("/fonts", Kind::Directory),
            entry("/fonts/other", Kind::Directory),
        ];
        undate_fonts(&mut entries, &root);
        assert_eq!(entries.iter().map(|entry| entry.mtime).collect::<Vec<_>>(), [7, 7, 7, 0, 7]);
    }

    #[test]
    fn only_a_fresh_compiled_module_counts() {
        let directory = tempfile::tempdir().unwrap();
        let cache = directory.path().join("__pycache__");
        fs_err::create_dir(&cache).unwrap();
        fs_err::write(directory.path().join("m.py"), "x = 1\n").unwrap();
        let root = Root::open(directory.path()).unwrap();
        let facts = root.lstat(&path("/m.py")).unwrap().unwrap();
        let compiled_path = path("/__pycache__/m.cpython-311.pyc");
        let found = |flags: u32, mtime: i64, size: u64| {
            let words = [0, flags, mtime as u32, size as u32];
            let header: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            fs_err::write(cache.join("m.cpython-311.pyc"), header).unwrap();
            !compiled([&compiled_path].into_iter(), &root).unwrap().is_empty()
        };
        assert!(found(0, facts.mtime, facts.size));
        assert!(!found(0, facts.mtime - 1, facts.size));
        assert!(!found(0, facts.mtime, facts.size + 1));
        assert!(!found(1, facts.mtime, facts.size));
    }

    #[test]
    fn a_mirror_has_the_name_and_the_time_of_a_packaged_file() {
        let directory = tempfile::tempdir().unwrap();
        for (name, time) in [("usr/ls.1", 5), ("cache/ls.1", 5), ("stale/ls.1", 6), ("cache/cp.1", 5)] {
            let file = directory.path().join(name);
            fs_err::create_dir_all(file.parent().unwrap()).unwrap();
            let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(time);
            fs_err::File::create(file).unwrap().set_modified(time).unwrap();
        }
        let paths = ["/usr/ls.1", "/cache/ls.1", "/stale/ls.1", "/cache/cp.1", "/gone/ls.1"].map(path);
        let root = Root::open(directory.path()).unwrap();
        let mirrors = mirrors(paths.iter(), |at| *at == path("/usr/ls.1"), &root).unwrap();
        assert_eq!(mirrors, BTreeSet::from([path("/cache/ls.1")]));
    }

    #[test]
    fn every_policy() {
        let directory = tempfile::tempdir().unwrap();
        fs_err::write(directory.path().join("f"), "").unwrap();
        let root = Root::open(directory.path()).unwrap();
        let mut file = root.lstat(&path("/f")).unwrap().unwrap();
        file.mtime = 500;
        let mut link = file.clone();
        link.file_type = crate::path::FileType::Symlink;
        for (times, packaged, epoch, expected) in [
            (Times::Fixed, true, 7, 7),
            (Times::Clamp, true, 7, 7),
            (Times::Clamp, true, 700, 500),
            (Times::Keep, false, 7, 500),
            (Times::Files, false, 7, 500),
            (Times::Packaged, true, 7, 500),
            (Times::Packaged, false, 7, 7),
        ] {
            assert_eq!(of(times, &file, epoch, packaged), expected, "{times}");
        }
        assert_eq!(of(Times::Packaged, &link, 7, true), 7);
        assert_eq!(of(Times::Files, &link, 7, true), 500);
        let mut directory = file;
        directory.file_type = crate::path::FileType::Directory;
        assert_eq!(of(Times::Files, &directory, 7, true), 7);
    }
}
