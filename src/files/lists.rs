//! What access control lists allow (`acl(5)`): an image has modes, and no such lists.

use std::collections::BTreeSet;

use super::gather::Gathered;
use super::{FileSet, Note};
use crate::path::{Facts, JailPath};
use crate::root::{Root, RootError};

/// Tells of what the runs used or went through that has such a list and is not open to everybody: it may have been open to them by that
/// list alone, and would be closed in the image.
pub(super) fn tell(
    gathered: &Gathered<'_>,
    files: &FileSet,
    root: &Root,
    notes: &mut Vec<Note>,
) -> Result<(), RootError> {
    let used = gathered.paths.iter().filter(|(path, touched)| touched.granted && files.has_more_than_name(path));
    let used: BTreeSet<JailPath> = used.flat_map(|(path, _)| path.upwards()).collect();
    for path in used {
        match is_closed_and_listed(&path, root) {
            Ok(true) => notes.push(Note::AccessList { path }),
            Ok(false) => {}
            // Closed to who builds, too, by now: what the image has of it is what was kept.
            Err(error) if error.is_refusal() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_closed_and_listed(path: &JailPath, root: &Root) -> Result<bool, RootError> {
    let is_closed = root.facts(path)?.is_some_and(|facts| !is_open(&facts));
    Ok(is_closed && root.has_access_list(path)?)
}

/// True if everybody may read it, or search it.
fn is_open(facts: &Facts) -> bool {
    let needed = if facts.is_directory() { 0o001 } else { 0o004 };
    facts.mode & needed == needed
}
