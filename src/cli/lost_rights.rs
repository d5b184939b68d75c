//! Programs that ran without the rights that their files give them: whom somebody traces without `CAP_SYS_ADMIN` gets none, as an
//! ordinary user, or root in most containers (`seccomp(2)`, EACCES; `prctl(2)`, `PR_SET_NO_NEW_PRIVS`).
//!
//! In: the events of a run. Out: a note for each such program.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use minjail_tracer::{Access, Event, Found};

use super::status::{CAP_SYS_ADMIN, effective_ids, has_capability};
use crate::path::escape;

/// The programs seen so far, by their paths.
#[derive(Default)]
pub(super) struct LostRights {
    are_lost: bool,
    programs: BTreeSet<Vec<u8>>,
}

impl LostRights {
    /// Of what this process is about to trace.
    pub(super) fn start() -> Self {
        Self { are_lost: !may_keep_rights(), ..Self::default() }
    }

    pub(super) fn take(&mut self, event: &Event<'_>) {
        let Event::Touch(touch) = event else { return };
        if !self.are_lost || touch.access != Access::Execute || touch.is_served {
            return;
        }
        let Found::There(stat) = &touch.walk.found else { return };
        let has = |bits: u32| stat.st_mode & bits == bits;
        let ids = effective_ids(touch.task);
        let as_user = has(libc::S_ISUID) && ids.is_none_or(|[user, _]| stat.st_uid != user);
        let as_group = has(libc::S_ISGID | libc::S_IXGRP) && ids.is_none_or(|[_, group]| stat.st_gid != group);
        let path = Path::new(std::ffi::OsStr::from_bytes(&touch.walk.end));
        let is_file = has(libc::S_IFREG);
        if is_file && (as_user || as_group || has_capabilities(path)) {
            self.programs.insert(touch.walk.end.clone());
        }
    }

    /// Says on standard error which there were.
    pub(super) fn tell(&self) {
        for path in &self.programs {
            say!(
                "note: `{}` ran without the rights that its file gives it, which only a tracer with CAP_SYS_ADMIN leaves it; what it would \
                 have used with them is not in the trace",
                escape(path)
            );
        }
    }
}

/// `capabilities(7)`, "File capabilities".
fn has_capabilities(path: &Path) -> bool {
    matches!(xattr::get(path, "security.capability"), Ok(Some(_)))
}

/// True if what this process traces keeps the rights that files give it.
pub(super) fn may_keep_rights() -> bool {
    has_capability(CAP_SYS_ADMIN)
}
