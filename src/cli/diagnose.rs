//! Why a workload that does well elsewhere fails in a jail: what it looked for in vain, and what it found otherwise.
//!
//! In: what a run in the jail asked for, the tree that the jail was made of, and the root where everything is there. Out: the
//! paths that are to blame, the most likely one first.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use super::failure::Failure;
use crate::files::{OMITTED, is_minjails};
use crate::path::{Facts, JailPath};
use crate::root::Root;
use crate::trace::is_shared;
use crate::workload::{Observation, Sought};

/// A file that is in the jail, and is not as the root has it.
pub(super) struct Differing {
    pub(super) sought: Sought,
    pub(super) how: String,
}

/// What may be to blame.
#[derive(Default)]
pub(super) struct Diagnosis {
    /// What was looked for in vain and the root has: the last first, since what a program looked for just before it ended
    /// is most likely what it ended for.
    pub(super) missing: Vec<Sought>,
    /// Names that the root has in a directory that was listed, and the tree has not.
    pub(super) unlisted: Vec<Sought>,
    /// What minjail puts into each image in a form of its own comes last.
    pub(super) differing: Vec<Differing>,
}

/// Holds what was observed in a jail made of `tree` against the root. What is below the `state` directories was made by the
/// run itself.
pub(super) fn diagnose(
    observation: &Observation,
    state: &[String],
    root: &Root,
    tree: &Root,
) -> Result<Diagnosis, Failure> {
    let mut tops = ["/proc", "/sys", "/dev"].to_vec();
    tops.extend(state.iter().map(String::as_str));
    let tops: Vec<JailPath> = tops.iter().filter_map(|top| JailPath::parse(top.as_bytes()).ok()).collect();
    let counts = |sought: &&Sought| !tops.iter().any(|top| sought.path.starts_with(top));
    let mut diagnosis = Diagnosis::default();
    let mut told = BTreeSet::new();
    for missed in observation.missed.iter().rev().filter(counts) {
        if told.insert(&missed.path) && is_lost(&missed.path, root, tree)? {
            diagnosis.missing.push(missed.clone());
        }
    }
    for met in observation.met.iter().rev().filter(counts) {
        if let Some(how) = difference(&met.path, root, tree)? {
            diagnosis.differing.push(Differing { sought: met.clone(), how });
        }
    }
    // What such a directory has on the host is other programs', and left out.
    for listed in observation.listed.iter().rev().filter(counts).filter(|listed| !is_shared(&listed.path)) {
        diagnosis.unlisted.extend(unlisted(listed, root, tree));
    }
    diagnosis.differing.sort_by_key(|differing| is_minjails(&differing.sought.path));
    Ok(diagnosis)
}

/// True if the root has what was looked for, and the tree has not: the thing itself, or what a link of that name leads to.
/// A name that a listing showed stands in the tree as a link to nowhere, and is not the thing.
fn is_lost(path: &JailPath, root: &Root, tree: &Root) -> Result<bool, Failure> {
    let end = |place: &Root, follow: bool| place.resolve(&JailPath::root(), path.as_bytes(), follow);
    if end(root, true)?.facts.is_some() {
        return Ok(end(tree, true)?.facts.is_none());
    }
    let ours = end(tree, false)?;
    let is_name_only = || -> Result<bool, Failure> {
        let is_link = ours.facts.as_ref().is_some_and(Facts::is_symlink);
        Ok(is_link && tree.read_link(&ours.end)? == OMITTED.as_bytes())
    };
    Ok(end(root, false)?.facts.is_some() && (ours.facts.is_none() || is_name_only()?))
}

/// The names that a listing does not show in the jail; none where one of the two cannot be listed.
fn unlisted(listed: &Sought, root: &Root, tree: &Root) -> Vec<Sought> {
    let (Ok(theirs), Ok(ours)) = (root.list(&listed.path), tree.list(&listed.path)) else { return Vec::new() };
    let shown: BTreeSet<Vec<u8>> = ours.into_iter().collect();
    let names = theirs.into_iter().filter(|name| !shown.contains(name));
    names.map(|name| Sought { path: listed.path.join(&name), program: listed.program.clone() }).collect()
}

/// How the file in the tree differs from the root's; `None` if it does not, or one of them is not there.
fn difference(path: &JailPath, root: &Root, tree: &Root) -> Result<Option<String>, Failure> {
    let (Some(ours), Some(theirs)) = (tree.lstat(path)?, root.lstat(path)?) else { return Ok(None) };
    let there = place(root);
    if ours.file_type != theirs.file_type {
        return Ok(Some(format!("is not of the type that it has {there}")));
    }
    if !ours.is_file() {
        return Ok(None);
    }
    if ours.size != theirs.size {
        return Ok(Some(format!("has {} bytes, and {} {there}", ours.size, theirs.size)));
    }
    if !has_same_content(path, root, tree) {
        return Ok(Some(format!("has another content than {there}")));
    }
    let permissions = |facts: &Facts| facts.mode & 0o777;
    let differ = permissions(&ours) != permissions(&theirs);
    Ok(differ.then(|| format!("has the mode {:04o}, and {:04o} {there}", permissions(&ours), permissions(&theirs))))
}

/// Where everything is there, in words.
pub(super) fn place(root: &Root) -> &'static str {
    if root.path() == Path::new("/") { "on the host" } else { "in the whole image" }
}

/// What cannot be read is not told of.
fn has_same_content(path: &JailPath, root: &Root, tree: &Root) -> bool {
    let (Ok(mut ours), Ok(mut theirs)) = (tree.open_file(path), root.open_file(path)) else { return true };
    let (mut one, mut other) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        match (fill(&mut ours, &mut one), fill(&mut theirs, &mut other)) {
            (Some(0), Some(0)) => return true,
            (Some(count), Some(same)) if count == same && one[..count] == other[..same] => {}
            (Some(_), Some(_)) => return false,
            _ => return true,
        }
    }
}

/// Reads until the buffer is full, or the file ends.
fn fill(file: &mut std::fs::File, buffer: &mut [u8]) -> Option<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    Some(filled)
}
