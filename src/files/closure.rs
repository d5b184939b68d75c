//! What the files themselves need: interpreters, libraries, the directories above.
//!
//! The kernel opens the interpreters of scripts and ELF files, and a loader the libraries, by rules that the files
//! state; the same rules give the same answer in the jail.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::PathBuf;

use super::rules::{add_baselines, add_unwinder};
use super::state::has_content;
use super::{FileSet, FilesError, Policy, Reason, Rule, Rules, What};
use crate::elf::{Environment, Missing, Role, Search, SearchError};
use crate::path::{Facts, JailPath, escape};
use crate::root::{Root, RootError};
use crate::trace::{Header, Trace};

/// Files that are to find what they need, and with which environments a loader starts them.
#[derive(Debug, Clone)]
pub(super) struct Started<'a> {
    pub(super) paths: Vec<JailPath>,
    pub(super) environments: &'a [Environment],
    /// Where `env` looks for the programs that scripts name by it (`PATH`); of a script that was executed, the run has found it.
    pub(super) search: &'a [JailPath],
    /// What they lack is told: no run has shown that they work.
    pub(super) is_told: bool,
}

/// What a file needs that is nowhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lacking {
    pub(super) of: JailPath,
    /// The name of a library, or the path of an interpreter.
    pub(super) name: Vec<u8>,
    /// It is for a program to load, which may have this by then.
    is_library: bool,
}

impl Lacking {
    /// True if it may be found after all.
    pub(super) fn may_be_had(&self, files: &FileSet) -> bool {
        self.is_library && files.wanted.keys().any(|path| path.file_name() == self.name)
    }
}

/// What the runs' variables, and those that the image has besides, tell a loader.
pub(super) fn environments(trace: &Trace, policy: &Policy) -> Vec<Environment> {
    let environment = |header: &Header| {
        let value = |name| policy.variables.get(name).or_else(|| header.env.get(name)).cloned().unwrap_or_default();
        let [library_path, preload] = ["LD_LIBRARY_PATH", "LD_PRELOAD"].map(|name| value(name).into_bytes());
        Environment { library_path, preload, directory: header.directory.clone(), is_secure: false }
    };
    let environments: BTreeSet<Environment> = trace.runs.iter().map(|run| environment(&run.header)).collect();
    environments.into_iter().collect()
}

/// Adds what files need that are executed, or that are for a program to load; what of it is to be told. The plain form of a library
/// for some processors is looked for by `environments` too, those of the runs.
pub(super) fn close(
    files: &mut FileSet,
    started: &Started<'_>,
    environments: &[Environment],
    store: &BTreeMap<String, PathBuf>,
    root: &Root,
    rules: &Rules,
) -> Result<BTreeSet<Lacking>, FilesError> {
    let mut search = Search::new(root)?;
    let environments: BTreeSet<&Environment> = started.environments.iter().chain(environments).collect();
    let mut todo: Vec<JailPath> = started.paths.iter().rev().cloned().collect();
    let (mut done, mut lacking) = (BTreeSet::new(), BTreeSet::new());
    while let Some(path) = todo.pop() {
        if !done.insert(path.clone()) {
            continue;
        }
        let (kept, is_there) = match files.wanted.get(&path).map(|wanted| &wanted.what) {
            Some(What::AsIs) => (None, true),
            Some(What::Was(was)) => {
                (was.kept(store), was.content.as_ref().is_none_or(|digest| has_content(&path, digest, root)))
            }
            _ => continue,
        };
        let head = head(&path, kept, root)?;
        if let Some(interpreter) = interpreter(&head) {
            let mut needed = vec![(interpreter, Some(interpreter.to_vec()))];
            if let Some(name) = started_by_env(&head).filter(|_| !started.search.is_empty()) {
                needed.push((name, found_by_env(name, started.search, root)?));
            }
            let reason = Reason::Interpreter { of: path.clone() };
            for (name, spelled) in needed {
                let end = spelled.map(|spelled| add_spelled(files, root, &spelled, &reason)).transpose()?.flatten();
                if end.is_none() && started.is_told {
                    lacking.insert(Lacking { of: path.clone(), name: name.to_vec(), is_library: false });
                }
                todo.extend(end);
            }
            continue;
        }
        // What the one needed that was there before, the run has opened.
        if !is_there {
            continue;
        }
        let missing = add_all_libraries(files, &mut search, &path, started.environments, root)?;
        if started.is_told {
            let is_library = search.elf(&path).is_ok_and(|elf| elf.interpreter.is_none());
            lacking.extend(missing.into_iter().map(|Missing { of, name }| Lacking { of, name, is_library }));
        }
    }
    if rules.is_on(Rule::HwcapsBaseline) {
        add_baselines(files, &mut search, &environments, root)?;
    }
    if rules.is_on(Rule::ThreadUnwinder) {
        add_unwinder(files, &mut search, &done, root)?;
    }
    Ok(lacking)
}

/// True for a program that may give rights to whoever starts it (`getauxval(3)`, `AT_SECURE`).
fn has_more_rights(path: &JailPath, root: &Root) -> Result<bool, RootError> {
    let Some(facts) = root.facts(path)?.filter(Facts::is_file) else { return Ok(false) };
    Ok(facts.mode & 0o6000 != 0 || root.xattrs(path)?.contains_key("security.capability"))
}

/// The first 255 bytes of the file at `path`, whose content may be a `kept` one; nothing if it is no file.
fn head(path: &JailPath, kept: Option<&PathBuf>, root: &Root) -> Result<Vec<u8>, RootError> {
    let mut head = Vec::new();
    let file = match kept {
        Some(kept) => fs_err::File::open(kept).map(|file| file.into_parts().0),
        None if !root.facts(path)?.is_some_and(|facts| facts.is_file()) => return Ok(head),
        None => Ok(root.open_file(path)?),
    };
    if let Err(source) = file.and_then(|file| file.take(255).read_to_end(&mut head)) {
        return Err(RootError { step: "read", path: path.to_string(), source });
    }
    Ok(head)
}

/// What `env`, if a script names that as its interpreter, is to start: all that follows it, or with `-S` the first word of that which
/// is neither an option nor a variable (`env(1)`).
fn started_by_env(head: &[u8]) -> Option<&[u8]> {
    let interpreter = interpreter(head)?;
    if interpreter.rsplit(|&byte| byte == b'/').next() != Some(b"env") {
        return None;
    }
    let line = head.split(|&byte| byte == b'\n' || byte == 0).next()?;
    let at = line.windows(interpreter.len()).position(|part| part == interpreter)? + interpreter.len();
    let rest = line[at..].trim_ascii();
    let split = rest.strip_prefix(b"-S").or_else(|| rest.strip_prefix(b"--split-string="));
    let mut words = split.map_or_else(|| vec![rest], |rest| rest.split(u8::is_ascii_whitespace).collect()).into_iter();
    loop {
        match words.next()? {
            b"-u" | b"--unset" | b"-C" | b"--chdir" => drop(words.next()),
            word if word.is_empty() || word.starts_with(b"-") || word.contains(&b'=') => {}
            word => return Some(word),
        }
    }
}

/// Where `env` finds what it is to start; a path is what it says.
fn found_by_env(name: &[u8], search: &[JailPath], root: &Root) -> Result<Option<Vec<u8>>, RootError> {
    if name.contains(&b'/') {
        // One that is not absolute is meant from wherever the script will be started.
        return Ok(name.starts_with(b"/").then(|| name.to_vec()));
    }
    for directory in search {
        let spelled = directory.join(name);
        let walk = root.resolve(&JailPath::root(), spelled.as_bytes(), true)?;
        if walk.facts.is_some_and(|facts| facts.is_file() && facts.mode & 0o111 != 0) {
            return Ok(Some(spelled.as_bytes().to_vec()));
        }
    }
    Ok(None)
}

/// Where programs without a `PATH` look for others (`execvp(3)`).
const USUAL_PATH: &str = "/bin:/usr/bin";

/// The directories of `PATH` of the runs, and of the image.
pub(super) fn searched(trace: &Trace, policy: &Policy) -> Vec<JailPath> {
    let mut directories = Vec::new();
    for header in trace.runs.iter().map(|run| &run.header) {
        let path = policy.variables.get("PATH").or_else(|| header.env.get("PATH")).map_or(USUAL_PATH, String::as_str);
        for directory in path.split(':').filter_map(|part| JailPath::clean(part.as_bytes()).ok()) {
            if !directories.contains(&directory) {
                directories.push(directory);
            }
        }
    }
    directories
}

/// True for a name as libraries have it, whatever follows: a version, mostly.
pub(super) fn is_named_as_library(path: &JailPath) -> bool {
    path.file_name().windows(3).any(|part| part == b".so")
}

/// The interpreter that a script names after `#!`, from its first 255 bytes (`execve(2)`, "Interpreter scripts"); `None`
/// if the file is no script.
pub fn interpreter(head: &[u8]) -> Option<&[u8]> {
    let line = head.strip_prefix(b"#!")?.split(|&byte| byte == b'\n' || byte == 0).next()?;
    let line = line.trim_ascii_start();
    line.split(|&byte| byte == b' ' || byte == b'\t').next().filter(|path| path.starts_with(b"/"))
}

/// Adds what `spelled` leads to, and the links on the way; the end, if something is there.
pub(super) fn add_spelled(
    files: &mut FileSet,
    root: &Root,
    spelled: &[u8],
    reason: &Reason,
) -> Result<Option<JailPath>, RootError> {
    let walk = root.resolve(&JailPath::root(), spelled, true)?;
    if walk.facts.is_none() {
        return Ok(None);
    }
    for link in walk.links {
        files.add(link.path, What::AsIs, Reason::OnTheWay { to: walk.end.clone() });
    }
    files.add(walk.end.clone(), What::AsIs, reason.clone());
    Ok(Some(walk.end))
}

/// Adds what the loader opens for an ELF file in each of these environments, and returns what it finds in none.
fn add_all_libraries(
    files: &mut FileSet,
    search: &mut Search<'_>,
    path: &JailPath,
    environments: &[Environment],
    root: &Root,
) -> Result<BTreeSet<Missing>, FilesError> {
    // Root, who may have run it, has no less rights than it: others are served otherwise.
    let secure = Environment { is_secure: true, ..Environment::default() };
    let secure = has_more_rights(path, root)?.then_some(&secure);
    let mut missing: Option<BTreeSet<Missing>> = None;
    for environment in environments.iter().chain(secure) {
        let found = add_libraries(files, search, path, environment, root)?;
        // What is there with other variables is no fault of the file's.
        missing = Some(missing.map_or_else(|| found.clone(), |missing| &missing & &found));
    }
    Ok(missing.unwrap_or_default())
}

/// Adds what the loader opens for an ELF file, and returns what it does not find; anything else needs nothing.
pub(super) fn add_libraries(
    files: &mut FileSet,
    search: &mut Search<'_>,
    path: &JailPath,
    environment: &Environment,
    root: &Root,
) -> Result<BTreeSet<Missing>, FilesError> {
    let closure = match search.closure(path, environment) {
        Ok(closure) => closure,
        Err(SearchError::Elf { .. } | SearchError::NoFile { .. }) => return Ok(BTreeSet::new()),
        Err(error) => return Err(error.into()),
    };
    for (end, object) in closure.objects {
        for way in object.links.into_iter().chain(object.through) {
            files.add(way, What::AsIs, Reason::OnTheWay { to: end.clone() });
        }
        for need in object.needed_by {
            let reason = match need.role {
                Role::Interpreter => Reason::Interpreter { of: need.of },
                _ => Reason::Library { of: need.of, soname: escape(&need.name) },
            };
            files.add(end.clone(), What::AsIs, reason);
        }
    }
    // A run that needed no library, as of a static program, has not read them.
    for guide in closure.guides {
        add_spelled(files, root, &guide, &Reason::Library { of: path.clone(), soname: escape(&guide) })?;
    }
    Ok(closure.missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_lines() {
        assert_eq!(interpreter(b"#!/bin/sh\necho"), Some(&b"/bin/sh"[..]));
        assert_eq!(interpreter(b"#! \t/usr/bin/env -S python3 -u\n"), Some(&b"/usr/bin/env"[..]));
        assert_eq!(interpreter(b"#!/bin/sh\t-e\n"), Some(&b"/bin/sh"[..]));
        assert_eq!(interpreter(b"#!/bin/sh\0-e\n"), Some(&b"/bin/sh"[..]));
        assert_eq!(interpreter(b"#!python3\n"), None);
        assert_eq!(interpreter(b"#!"), None);
        assert_eq!(interpreter(b"\x7fELF"), None);
        for (head, program) in [
            (&b"#!/usr/bin/env python3\nenv"[..], Some(&b"python3"[..])),
            (b"#! /bin/env  -S -i -u HOME A=b perl -l\n", Some(b"perl")),
            (b"#!/usr/bin/env -Sbash\n", Some(b"bash")),
            (b"#!/usr/bin/env /opt/x\n", Some(b"/opt/x")),
            (b"#!/usr/bin/env\n", None),
            (b"#!/usr/bin/env -i\n", None),
            (b"#!/bin/sh env\n", None),
        ] {
            assert_eq!(started_by_env(head), program);
        }
    }

    #[test]
    fn where_env_finds_what_it_starts() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["one/tool", "two", "three"] {
            fs_err::create_dir_all(at(name)).unwrap();
        }
        for (name, mode) in [("two/tool", 0o644), ("three/tool", 0o755)] {
            fs_err::write(at(name), "").unwrap();
            fs_err::set_permissions(at(name), std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        }
        let root = Root::open(directory.path()).unwrap();
        let search = [&b"/none"[..], b"/one", b"/two", b"/three"].map(JailPath::literal);
        let found = |name: &[u8]| found_by_env(name, &search, &root).unwrap().map(|path| escape(&path));
        assert_eq!(found(b"tool").as_deref(), Some("/three/tool"), "neither a directory nor what is no program");
        assert_eq!(found(b"/opt/tool").as_deref(), Some("/opt/tool"));
        assert_eq!([&b"three/tool"[..], b"other"].map(found), [None, None]);
    }
}
