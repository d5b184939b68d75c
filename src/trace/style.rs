//! Modes and owners that runs found different: which of these every run does with, if there is one.
//!
//! In: what each run found at a path first, and what it did there before it changed that itself. Out: one of the modes and owners that
//! were found. Who only changes them needs none: in an image it changes what another run has found.

use std::collections::BTreeSet;
use std::fmt;

use super::model::{Header, Touch};
use crate::path::{Facts, FileType};
use minjail_tracer::Access;

/// Mode and owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Style {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// How a run met what is at a path.
#[derive(Debug)]
pub(crate) struct Met<'a> {
    pub(crate) header: &'a Header,
    pub(super) style: Style,
    pub(super) file_type: FileType,
    inode: (u64, u64),
    /// What it did before it changed the mode.
    by_mode: Use,
    /// What it did before it changed the owner.
    by_owner: Use,
    /// It has changed mode, owner, times or attributes, or was about to.
    pub(crate) sets_attributes: bool,
    /// It may have changed anything of it.
    is_changed: bool,
}

/// What a run did with something as it found it.
#[derive(Debug, Default)]
struct Use {
    /// It has changed it by now.
    is_over: bool,
    /// It has read or executed it, and may have judged it by what it found, as ssh does a key.
    is_opened: bool,
    /// What else it was let to do: `r`, `w` and `x`, as in a mode.
    rights: u32,
    /// The programs that have asked what it is.
    askers: BTreeSet<u32>,
}

impl<'a> Met<'a> {
    /// What a run found first.
    pub(crate) fn of(header: &'a Header, facts: &Facts) -> Self {
        Self {
            header,
            style: facts.into(),
            file_type: facts.file_type,
            inode: facts.inode(),
            by_mode: Use::default(),
            by_owner: Use::default(),
            sets_attributes: false,
            is_changed: false,
        }
    }

    /// Takes what the run did there: touch by touch, in their order.
    pub(crate) fn take(&mut self, touch: &Touch) {
        let is_root = self.header.uid == 0;
        // Others may set the mode of what is theirs, and no owner (`chmod(2)`, `chown(2)`).
        let sets_mode = touch.call.contains("chmod") && (is_root || self.header.uid == self.style.uid);
        let sets_owner = touch.call.contains("chown") && is_root;
        self.is_changed |= matches!(
            touch.access,
            Access::Attributes | Access::Write | Access::Create | Access::Remove | Access::Replace
        );
        self.sets_attributes |= touch.access == Access::Attributes;
        // The mode of a link is always the same, and nobody is asked by its owner; a socket is not packed.
        if matches!(self.file_type, FileType::Symlink | FileType::Socket) {
            return;
        }
        for (used, is_set) in [(&mut self.by_mode, sets_mode), (&mut self.by_owner, sets_owner)] {
            if is_set {
                used.end(touch.program);
            } else if !touch.by_descriptor {
                used.take(touch, self.file_type);
            }
        }
        // Only an owner may set mode, times and attributes.
        self.by_owner.is_opened |= touch.access == Access::Attributes && !is_root && !self.by_owner.is_over;
    }

    /// True if the run has changed the mode or the owner, or was about to.
    pub(crate) fn is_restyled(&self) -> bool {
        self.by_mode.is_over || self.by_owner.is_over
    }

    /// Takes that the run used these `rights`.
    pub(crate) fn was_let(&mut self, rights: u32) {
        self.by_mode.was_let(rights);
        self.by_owner.was_let(rights);
    }

    /// True if the run does the same where it finds this `style`: it judged by none, or what it found is the same, and all that it was
    /// let to do it is let to do. `exactly`: what only asked finds what it found, too; else it is executable or not, as it found it.
    ///
    /// Whoever runs the program: a trace does not tell as whom a process of root's looks at a file.
    fn does_with(&self, style: Style, exactly: bool) -> bool {
        let (found, mode, owner) = (self.style, &self.by_mode, &self.by_owner);
        // Whether it is a program. Who asks for another right uses it next, and that is told.
        let is_asked_alike =
            mode.askers.is_empty() || self.file_type == FileType::Directory || (found.mode ^ style.mode) & 0o111 == 0;
        let mode_does = !mode.judges(exactly) && anybody(found.mode & !style.mode) & mode.rights == 0 && is_asked_alike;
        let owner_does = !owner.judges(exactly) && anybody(found.mode) & owner.rights & !everybody(style.mode) == 0;
        (found.mode == style.mode || mode_does) && ((found.uid, found.gid) == (style.uid, style.gid) || owner_does)
    }
}

impl Use {
    fn take(&mut self, touch: &Touch, file_type: FileType) {
        let is_directory = file_type == FileType::Directory;
        match touch.access {
            _ if self.is_over => {}
            Access::Look => {
                self.askers.insert(touch.program);
            }
            Access::Read | Access::List if is_directory => self.was_let(0o5),
            Access::Enter => self.was_let(0o1),
            Access::Read | Access::Execute => self.is_opened = true,
            Access::Write | Access::Create if !is_directory => self.was_let(0o6),
            _ => {}
        }
    }

    fn was_let(&mut self, rights: u32) {
        if !self.is_over {
            self.rights |= rights;
        }
    }

    /// From here on it is as the run has made it. `program` only asked to see what it had to change.
    fn end(&mut self, program: u32) {
        self.askers.remove(&program);
        self.is_over = true;
    }

    fn judges(&self, exactly: bool) -> bool {
        self.is_opened || exactly && !self.askers.is_empty()
    }
}

/// What one class at least is let to do by a mode: owner, group or others.
fn anybody(mode: u32) -> u32 {
    (mode | mode >> 3 | mode >> 6) & 0o7
}

/// What all classes are let to do.
fn everybody(mode: u32) -> u32 {
    mode & mode >> 3 & mode >> 6 & 0o7
}

/// The mode and owner with which all runs do, of those that they found: if that is enough, those from before one changed them.
///
/// Where no run has changed anything only those count that found the same file: elsewhere it may have other owners, and no run says more.
///
/// # Errors
/// Two that do with no common one.
pub(crate) fn agreed<'m, 'a>(met: &[&'m Met<'a>]) -> Result<Option<Style>, [&'m Met<'a>; 2]> {
    // The first of those that say most.
    let before = met.iter().copied().min_by_key(|met| (!met.is_restyled(), !met.is_changed));
    let Some(before) = before else { return Ok(None) };
    let is_changed = met.iter().any(|met| met.is_changed);
    let met: Vec<_> = met.iter().copied().filter(|met| is_changed || met.inode == before.inode).collect();
    let styles = || std::iter::once(before).chain(met.iter().copied()).map(|met| met.style);
    let common =
        |all: &[&Met<'_>], exactly: bool| styles().find(|style| all.iter().all(|met| met.does_with(*style, exactly)));
    if let Some(style) = common(&met, true).or_else(|| common(&met, false)) {
        return Ok(Some(style));
    }
    let apart = |one: &Met<'_>, other: &Met<'_>| common(&[one, other], false).is_none();
    let pairs = met.iter().enumerate().flat_map(|(at, one)| met[at + 1..].iter().map(move |other| [*one, *other]));
    let other = met.iter().copied().find(|met| !met.does_with(before.style, false)).unwrap_or(before);
    Err(pairs.into_iter().find(|[one, other]| apart(one, other)).unwrap_or([before, other]))
}

impl From<&Facts> for Style {
    fn from(facts: &Facts) -> Self {
        Self { mode: facts.mode, uid: facts.uid, gid: facts.gid }
    }
}

impl fmt::Display for Style {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "mode {:04o} and owner {}:{}", self.mode, self.uid, self.gid)
    }
}
