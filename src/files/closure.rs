//! What the files themselves need: interpreters, libraries, the directories above.
//!
//! The kernel opens the interpreters of scripts and ELF files, and a loader the libraries, by rules that the files
//! state; the same rules give the same answer in the jail.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::PathBuf;

use super::rules::{add_baselines, add_unwinder};
use super::{FileSet, FilesError, Reason, Rule, Rules, What};
use crate::elf::{Environment, Role, Search, SearchError};
use crate::path::{JailPath, escape};
use crate::root::{Root, RootError};

/// Adds what executed files need.
pub(super) fn close(
    files: &mut FileSet,
    executed: Vec<JailPath>,
    store: &BTreeMap<String, PathBuf>,
    root: &Root,
    rules: &Rules,
) -> Result<(), FilesError> {
    let mut search = Search::new(root)?;
    let mut todo = executed;
    let mut done = BTreeSet::new();
    while let Some(path) = todo.pop() {
        if !done.insert(path.clone()) {
            continue;
        }
        let kept = match files.wanted.get(&path).map(|wanted| &wanted.what) {
            Some(What::AsIs) => None,
            Some(What::Was(was)) => was.kept(store),
            _ => continue,
        };
        if let Some(interpreter) = script_interpreter(&path, kept, root)? {
            todo.extend(add_spelled(files, root, &interpreter, &Reason::Interpreter { of: path })?);
        } else {
            add_libraries(files, &mut search, &path, root)?;
        }
    }
    if rules.is_on(Rule::HwcapsBaseline) {
        add_baselines(files, root)?;
    }
    if rules.is_on(Rule::ThreadUnwinder) {
        add_unwinder(files, &mut search, &done, root)?;
    }
    Ok(())
}

/// The interpreter of the script at `path`, whose content may be a `kept` one; `None` if it is no script.
fn script_interpreter(path: &JailPath, kept: Option<&PathBuf>, root: &Root) -> Result<Option<Vec<u8>>, RootError> {
    let file = match kept {
        Some(kept) => fs_err::File::open(kept).map(|file| file.into_parts().0),
        None if !root.facts(path)?.is_some_and(|facts| facts.is_file()) => return Ok(None),
        None => Ok(root.open_file(path)?),
    };
    let mut head = Vec::new();
    if let Err(source) = file.and_then(|file| file.take(255).read_to_end(&mut head)) {
        return Err(RootError { step: "read", path: path.to_string(), source });
    }
    Ok(interpreter(&head).map(<[u8]>::to_vec))
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

/// Adds what the loader opens for an ELF file; anything else needs nothing.
pub(super) fn add_libraries(
    files: &mut FileSet,
    search: &mut Search<'_>,
    path: &JailPath,
    root: &Root,
) -> Result<(), FilesError> {
    // What only the run's environment made the loader find was opened in the run, and is known from there.
    let closure = match search.closure(path, &Environment::default()) {
        Ok(closure) => closure,
        Err(SearchError::Elf { .. } | SearchError::NoFile { .. }) => return Ok(()),
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
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_lines() {
        assert_eq!(interpreter(b"#!/bin/sh\necho"), Some(&b"/bin/sh"[..]));
        assert_eq!(interpreter(b"#! \t/usr/bin/env -S python3 -u\n"), Some(&b"/usr/bin/env"[..]));
        assert_eq!(interpreter(b"#!python3\n"), None);
        assert_eq!(interpreter(b"#!"), None);
        assert_eq!(interpreter(b"\x7fELF"), None);
    }
}
