//! Programs that ran without the rights that their files give them: whom an ordinary user traces gets none (`prctl(2)`,
//! `PR_SET_NO_NEW_PRIVS`).
//!
//! In: the events of a run. Out: a note for each such program.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use minjail_tracer::{Access, Event, Found};
use nix::unistd::{Gid, Uid};

use crate::path::escape;

/// The programs seen so far, by their paths.
#[derive(Default)]
pub(super) struct LostRights(BTreeSet<Vec<u8>>);

impl LostRights {
    pub(super) fn take(&mut self, event: &Event<'_>) {
        let Event::Touch(touch) = event else { return };
        if touch.access != Access::Execute || touch.is_served || Uid::effective().is_root() {
            return;
        }
        let Found::There(stat) = &touch.walk.found else { return };
        let has = |bits: u32| stat.st_mode & bits == bits;
        let as_user = has(libc::S_ISUID) && stat.st_uid != Uid::effective().as_raw();
        let as_group = has(libc::S_ISGID | libc::S_IXGRP) && stat.st_gid != Gid::effective().as_raw();
        let path = Path::new(std::ffi::OsStr::from_bytes(&touch.walk.end));
        let is_file = has(libc::S_IFREG);
        if is_file && (as_user || as_group || has_capabilities(path)) {
            self.0.insert(touch.walk.end.clone());
        }
    }

    /// Says on standard error which there were.
    pub(super) fn tell(&self) {
        for path in &self.0 {
            say!(
                "note: `{}` ran without the rights that its file gives it, which only root's tracer leaves it; what it would \
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
