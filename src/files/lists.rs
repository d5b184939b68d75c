//! What access control lists allow (`acl(5)`): an image has modes, and no such lists.

use std::collections::BTreeSet;

use super::gather::Gathered;
use super::{FileSet, Note};
use crate::path::{Facts, JailPath};
use crate::root::{Root, RootError, access_list};

/// Tells of what the runs used or went through that has such a list and is not open to everybody, as it may have been open to them by that
/// list alone, and would be closed in the image; and of what it closes to some, to whom the image has it open.
pub(super) fn tell(
    gathered: &Gathered<'_>,
    files: &FileSet,
    root: &Root,
    notes: &mut Vec<Note>,
) -> Result<(), RootError> {
    let used = gathered.paths.iter().filter(|(path, touched)| touched.granted && files.has_more_than_name(path));
    let used: BTreeSet<JailPath> = used.flat_map(|(path, _)| path.upwards()).collect();
    for path in used {
        match counts(&path, root) {
            Ok(true) => notes.push(Note::AccessList { path }),
            Ok(false) => {}
            // Closed to who builds, too, by now: what the image has of it is what was kept.
            Err(error) if error.is_refusal() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// True if without its list some would be refused what they may, or may what they are refused; or what is made in it would be.
fn counts(path: &JailPath, root: &Root) -> Result<bool, RootError> {
    let Some(facts) = root.facts(path)? else { return Ok(false) };
    if facts.is_directory() && root.default_list(path)?.is_some() {
        return Ok(true);
    }
    let Some(list) = root.access_list(path)? else { return Ok(false) };
    Ok(!is_open(&facts) || access_list::denies(&list, facts.mode))
}

/// True if everybody may read it, or search it.
fn is_open(facts: &Facts) -> bool {
    let needed = if facts.is_directory() { 0o001 } else { 0o004 };
    facts.mode & needed == needed
}
