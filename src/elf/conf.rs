//! `/etc/ld.so.conf`: the directories that `ldconfig` looks into.

use std::collections::BTreeSet;

use crate::path::JailPath;
use crate::root::{Root, RootError};

/// Larger than any loader, cache or configuration; what is behind is not read.
const MAX_FILE: u64 = 16 << 20;

/// The directories that `/etc/ld.so.conf` names, in order, its `include` lines followed; none if there is no such file.
///
/// The rules are those of `ldconfig` (glibc 2.36, `elf/ldconfig.c`, `parse_conf`): `#` starts a comment, `include` takes
/// patterns, relative ones from the file's own directory, and what they match is sorted; `hwcap` lines are history.
///
/// # Errors
/// The root cannot be read.
pub fn ld_so_conf(root: &Root) -> Result<Vec<Vec<u8>>, RootError> {
    let mut reading = Reading { root, seen: BTreeSet::new(), directories: Vec::new() };
    reading.file(b"/etc/ld.so.conf")?;
    Ok(reading.directories)
}

/// A whole file of the root, links followed; `None` if there is none.
pub(super) fn contents(root: &Root, path: &[u8]) -> Result<Option<Vec<u8>>, RootError> {
    root.read_through_links(path, MAX_FILE)
}

struct Reading<'root> {
    root: &'root Root,
    /// Files read so far: one that includes itself would never end.
    seen: BTreeSet<Vec<u8>>,
    directories: Vec<Vec<u8>>,
}

impl Reading<'_> {
    fn file(&mut self, path: &[u8]) -> Result<(), RootError> {
        if !self.seen.insert(path.to_vec()) {
            return Ok(());
        }
        let Some(text) = contents(self.root, path)? else { return Ok(()) };
        for line in text.split(|&byte| byte == b'\n') {
            let line = line.split(|&byte| byte == b'#').next().unwrap_or_default().trim_ascii();
            let word = line.split(u8::is_ascii_whitespace).next().unwrap_or_default();
            match word {
                b"" | b"hwcap" => {}
                b"include" => {
                    let patterns = line[word.len()..].split(u8::is_ascii_whitespace);
                    for pattern in patterns.filter(|pattern| !pattern.is_empty()) {
                        self.include(path, pattern)?;
                    }
                }
                _ => self.directory(line),
            }
        }
        Ok(())
    }

    /// `DIRECTORY` or, for libraries of another age, `DIRECTORY=TYPE`.
    fn directory(&mut self, line: &[u8]) {
        let directory = line.split(|&byte| byte == b'=').next().unwrap_or_default().trim_ascii_end();
        let end = directory.iter().rposition(|&byte| byte != b'/').map_or(1, |last| last + 1);
        let directory = &directory[..end.min(directory.len())];
        if directory.starts_with(b"/") && !self.directories.iter().any(|known| known == directory) {
            self.directories.push(directory.to_vec());
        }
    }

    fn include(&mut self, from: &[u8], pattern: &[u8]) -> Result<(), RootError> {
        let mut whole = Vec::new();
        if !pattern.starts_with(b"/") {
            let slash = from.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
            whole.extend_from_slice(&from[..=slash]);
        }
        whole.extend_from_slice(pattern);
        for path in glob(self.root, &whole)? {
            self.file(path.as_bytes())?;
        }
        Ok(())
    }
}

/// What an absolute pattern matches, sorted (`glob(3)`).
fn glob(root: &Root, pattern: &[u8]) -> Result<Vec<JailPath>, RootError> {
    let mut found = vec![JailPath::root()];
    for part in pattern.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".") {
        let mut next = Vec::new();
        for directory in found {
            if part == b".." {
                next.extend(directory.parent());
                continue;
            }
            let walk = root.resolve(&JailPath::root(), directory.as_bytes(), true)?;
            if !walk.facts.is_some_and(|facts| facts.is_directory()) {
                continue;
            }
            if !part.iter().any(|byte| b"*?[".contains(byte)) {
                next.push(directory.join(part));
                continue;
            }
            let names = root.list(&walk.end)?.into_iter();
            let names = names.filter(|name| !name.starts_with(b".") || part.starts_with(b"."));
            next.extend(names.filter(|name| matches(part, name)).map(|name| directory.join(&name)));
        }
        found = next;
    }
    Ok(found)
}

/// True if `name` is of the form `pattern` (`glob(7)`: `*`, `?`, `[...]`, `[!...]`).
fn matches(mut pattern: &[u8], mut name: &[u8]) -> bool {
    // Where to go on when what follows the last `*` did not fit: only that one can need another length.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', rest @ ..] = pattern {
            retry = Some((rest, name));
            pattern = rest;
        } else if let Some(rest) = name.split_first().and_then(|(&byte, _)| one(pattern, byte)) {
            (pattern, name) = (rest, &name[1..]);
        } else if pattern.is_empty() && name.is_empty() {
            return true;
        } else if let Some((rest, [_, tail @ ..])) = retry {
            retry = Some((rest, tail));
            (pattern, name) = (rest, tail);
        } else {
            return false;
        }
    }
}

/// What is left of `pattern` if its first element, not a `*`, fits `byte`.
fn one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    let (&first, rest) = pattern.split_first()?;
    if first == b'[' {
        let negated = matches!(rest, [b'!' | b'^', ..]);
        let set = &rest[usize::from(negated)..];
        // A `]` that comes first stands for itself; a set without an end is a plain `[`.
        if let Some(end) = set.iter().skip(1).position(|&byte| byte == b']') {
            let (set, rest) = (&set[..=end], &set[end + 2..]);
            return (in_set(set, byte) != negated).then_some(rest);
        }
    }
    (first == byte || first == b'?').then_some(rest)
}

fn in_set(mut set: &[u8], byte: u8) -> bool {
    while let Some((&low, rest)) = set.split_first() {
        if let [b'-', high, tail @ ..] = rest {
            if (low..=*high).contains(&byte) {
                return true;
            }
            set = tail;
        } else {
            if low == byte {
                return true;
            }
            set = rest;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn conf_of(files: &[(&str, &str)]) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, text).unwrap();
        }
        let root = Root::open(directory.path()).unwrap();
        let directories = ld_so_conf(&root).unwrap();
        directories.into_iter().map(|directory| String::from_utf8(directory).unwrap()).collect()
    }

    #[test]
    fn includes_are_sorted_and_relative_to_their_file() {
        let found = conf_of(&[
            ("etc/ld.so.conf", "include ld.so.conf.d/*.conf  # all\n/last/\nhwcap 0 nosegneg\nrelative\n"),
            ("etc/ld.so.conf.d/b.conf", "/b1\n\n/b2=libc6\n/a"),
            ("etc/ld.so.conf.d/a.conf", "# nothing\n/a\n"),
            ("etc/ld.so.conf.d/.hidden.conf", "/hidden"),
            ("etc/ld.so.conf.d/a.conf.old", "/old"),
        ]);
        assert_eq!(found, ["/a", "/b1", "/b2", "/last"]);
    }

    #[test]
    fn a_file_that_includes_itself_ends() {
        assert_eq!(conf_of(&[("etc/ld.so.conf", "include /etc/*.conf\n/x")]), ["/x"]);
        assert_eq!(conf_of(&[]), Vec::<String>::new());
    }

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("*.conf", "a.conf", true),
            ("*.conf", "a.config", false),
            ("?[a-c]x", "1bx", true),
            ("[!a]", "a", false),
            ("[!a]", "b", true),
            ("[]]", "]", true),
            ("[", "[", true),
            ("[a", "[a", true),
            ("a*b*c", "axxbyyc", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn the_machines_own() {
        let root = Root::open(Path::new("/")).unwrap();
        assert!(ld_so_conf(&root).unwrap().iter().all(|directory| directory.starts_with(b"/")));
    }
}
