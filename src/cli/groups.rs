//! Whether an image's user needs more groups than his own.
//!
//! In: as whom a program ran, and what its image gets. Out: the image's user, if two numbers would not do: an engine gives him
//! no other group then, and what only another one may read is closed to him.

use std::collections::BTreeSet;

use super::failure::Failure;
use super::inside::account_in;
use crate::files::{FileSet, What};
use crate::root::Root;
use crate::trace::Header;

/// The user by his number alone, by which engines look up his groups in the image's accounts, if something of `files` is open to
/// him for such a group, and the accounts of `root` know him with it; `None` if he may go without.
pub(super) fn user_with_groups(lead: &Header, files: &FileSet, root: &Root) -> Result<Option<String>, Failure> {
    let more: BTreeSet<u32> = lead.groups.iter().copied().filter(|group| *group != lead.gid).collect();
    if lead.uid == 0 || more.is_empty() {
        return Ok(None);
    }
    let opening = files.wanted.iter().filter_map(|(path, wanted)| {
        let facts = match &wanted.what {
            What::AsIs | What::Hollow | What::Made(_, None) => root.facts(path).ok().flatten()?,
            What::Made(_, Some(facts)) => (**facts).clone(),
            What::Was(was) => was.facts.clone(),
            What::Sealed(_) | What::EmptyDirectory | What::Placeholder => return None,
        };
        let is_open = !facts.is_symlink() && facts.uid != lead.uid && (facts.mode >> 3) & !facts.mode & 0o7 != 0;
        (is_open && more.contains(&facts.gid)).then_some(facts.gid)
    });
    let needed: BTreeSet<u32> = opening.collect();
    if needed.is_empty() {
        return Ok(None);
    }
    let user = lead.uid.to_string();
    let account = account_in(root, &user)?;
    let is_known = account.gid == lead.gid && needed.iter().all(|group| account.groups.contains(group));
    Ok(is_known.then_some(user))
}
