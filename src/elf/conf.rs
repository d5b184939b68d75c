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
/// The root cannot be read, or it is absurdly large with all that it includes.
pub fn ld_so_conf(root: &Root) -> Result<Vec<Vec<u8>>, RootError> {
    let mut reading = Reading {
        root,
        seen: BTreeSet::new(),
        open: Vec::new(),
        directories: Vec::new(),
        known: BTreeSet::new(),
        spent: 0,
    };
    reading.all()?;
    Ok(reading.directories)
}

/// A whole file of the root, links followed; `None` if there is none.
pub(super) fn contents(root: &Root, path: &[u8]) -> Result<Option<Vec<u8>>, RootError> {
    root.read_through_links(path, MAX_FILE)
}

/// So much is read, and so many names are looked through, in all: no machine has a hundredth of it.
const MAX_WORK: usize = 4 << 20;

struct Reading<'root> {
    root: &'root Root,
    /// Files read so far: one that includes itself would never end.
    seen: BTreeSet<Vec<u8>>,
    /// The files that are being read, each included by the one before it.
    open: Vec<Open>,
    directories: Vec<Vec<u8>>,
    known: BTreeSet<Vec<u8>>,
    spent: usize,
}

/// A file that is being read.
struct Open {
    path: Vec<u8>,
    text: Vec<u8>,
    at: usize,
    /// What its last `include` line named, the next one last.
    included: Vec<JailPath>,
}

impl Reading<'_> {
    /// Goes through the file and all that it includes, in the order of the lines.
    fn all(&mut self) -> Result<(), RootError> {
        self.file(b"/etc/ld.so.conf")?;
        while let Some(last) = self.open.last_mut() {
            if let Some(path) = last.included.pop() {
                self.file(path.as_bytes())?;
            } else if last.at < last.text.len() {
                let rest = &last.text[last.at..];
                let line = rest.split(|&byte| byte == b'\n').next().unwrap_or_default().to_vec();
                last.at += line.len() + 1;
                self.line(&line)?;
            } else {
                self.open.pop();
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &[u8]) -> Result<(), RootError> {
        if !self.seen.insert(path.to_vec()) {
            return Ok(());
        }
        let Some(text) = contents(self.root, path)? else { return Ok(()) };
        self.spend(text.len())?;
        self.open.push(Open { path: path.to_vec(), text, at: 0, included: Vec::new() });
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> Result<(), RootError> {
        let line = line.split(|&byte| byte == b'#').next().unwrap_or_default().trim_ascii();
        let word = line.split(u8::is_ascii_whitespace).next().unwrap_or_default();
        match word {
            b"" | b"hwcap" => {}
            b"include" => {
                let patterns = line[word.len()..].split(u8::is_ascii_whitespace);
                let mut included = Vec::new();
                for pattern in patterns.filter(|pattern| !pattern.is_empty()) {
                    included.extend(self.include(pattern)?);
                }
                included.reverse();
                if let Some(last) = self.open.last_mut() {
                    last.included = included;
                }
            }
            _ => self.directory(line),
        }
        Ok(())
    }

    fn spend(&mut self, work: usize) -> Result<(), RootError> {
        self.spent = self.spent.saturating_add(work);
        if self.spent <= MAX_WORK {
            return Ok(());
        }
        let source = std::io::Error::other("it, and what it includes, is larger than that of any machine");
        Err(RootError { step: "read", path: "/etc/ld.so.conf".to_owned(), source })
    }

    /// `DIRECTORY` or, for libraries of another age, `DIRECTORY=TYPE`.
    fn directory(&mut self, line: &[u8]) {
        let directory = line.split(|&byte| byte == b'=').next().unwrap_or_default().trim_ascii_end();
        let end = directory.iter().rposition(|&byte| byte != b'/').map_or(1, |last| last + 1);
        let directory = &directory[..end.min(directory.len())];
        if directory.starts_with(b"/") && self.known.insert(directory.to_vec()) {
            self.directories.push(directory.to_vec());
        }
    }

    /// What a pattern names that stands in the file which is being read.
    fn include(&mut self, pattern: &[u8]) -> Result<Vec<JailPath>, RootError> {
        let mut whole = Vec::new();
        if let Some(from) = self.open.last().filter(|_| !pattern.starts_with(b"/")).map(|last| &last.path) {
            let slash = from.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
            whole.extend_from_slice(&from[..=slash]);
        }
        whole.extend_from_slice(pattern);
        self.glob(&whole)
    }

    /// What an absolute pattern matches, sorted (`glob(3)`).
    fn glob(&mut self, pattern: &[u8]) -> Result<Vec<JailPath>, RootError> {
        let mut found = vec![JailPath::root()];
        for part in pattern.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".") {
            let mut next = Vec::new();
            for directory in found {
                // Links make of a few directories as many as there are ways through them.
                self.spend(64 + directory.as_bytes().len())?;
                if part == b".." {
                    next.extend(directory.parent());
                    continue;
                }
                let walk = self.root.resolve(&JailPath::root(), directory.as_bytes(), true)?;
                if !walk.facts.is_some_and(|facts| facts.is_directory()) {
                    continue;
                }
                if !part.iter().any(|byte| b"*?[".contains(byte)) {
                    next.push(directory.join(part));
                    continue;
                }
                for name in self.root.list(&walk.end)? {
                    self.spend(name.len())?;
                    if (!name.starts_with(b".") || part.starts_with(b".")) && matches(part, &name) {
                        self.spend(64 + directory.as_bytes().len())?;
                        next.push(directory.join(&name));
                    }
                }
            }
            found = next;
        }
        Ok(found)
    }
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
    fn includes_in_includes_are_read_where_they_stand() {
        let found = conf_of(&[
            ("etc/ld.so.conf", "/a\ninclude one other\n/z\n"),
            ("etc/one", "/b\ninclude deep\n/d\n"),
            ("etc/deep", "/c"),
            ("etc/other", "/e\ninclude one"),
        ]);
        assert_eq!(found, ["/a", "/b", "/c", "/d", "/e", "/z"]);
    }

    #[test]
    fn no_root_keeps_us_busy() {
        let chain: Vec<(String, String)> =
            (0..5000).map(|number| (format!("etc/{number}"), format!("include /etc/{}\n", number + 1))).collect();
        let mut files: Vec<(&str, &str)> = chain.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        files.extend([("etc/ld.so.conf", "include /etc/0"), ("etc/5000", "/end")]);
        assert_eq!(conf_of(&files), ["/end"]);

        let many = (0..500_000).map(|number| format!("/{number:x}")).collect::<Vec<_>>().join("\n");
        assert_eq!(conf_of(&[("etc/ld.so.conf", &many)]).len(), 500_000);

        let directory = tempfile::tempdir().unwrap();
        fs_err::create_dir_all(directory.path().join("etc")).unwrap();
        fs_err::write(directory.path().join("etc/ld.so.conf"), "include /etc/*/*/*/*/*/x.conf").unwrap();
        for number in 0..100 {
            fs_err::os::unix::fs::symlink(".", directory.path().join(format!("etc/{number}"))).unwrap();
        }
        let root = Root::open(directory.path()).unwrap();
        assert!(ld_so_conf(&root).unwrap_err().to_string().contains("/etc/ld.so.conf"));
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
