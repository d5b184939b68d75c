//! How an image runs a profile's workloads: with its variables, in its directory, as its user, where they name no others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use minjail_tracer::Credentials;

use super::failure::Failure;
use super::rehearse::Rehearsal;
use crate::image::oci::RunConfig;
use crate::jail::Base;
use crate::profile::Workload;
use crate::root::Root;
use crate::slim::{self, Account};

/// Workloads as they are run in an image.
pub(super) struct Inside {
    /// With all that the image gives them.
    pub(super) workloads: Vec<(String, Workload)>,
    /// The image's own user.
    own: Credentials,
    /// Those whom workloads name, if the image knows them by that name.
    named: BTreeMap<String, Credentials>,
}

impl Inside {
    /// In an image that is run as `run` says, and unpacked in `tree`.
    pub(super) fn of(run: &RunConfig, tree: &Path, workloads: Vec<(String, Workload)>) -> Result<Self, Failure> {
        let root = Root::open(tree)?;
        let account = account_in(&root, run.user.as_deref().unwrap_or_default())?;
        let users = workloads.iter().filter_map(|(_, workload)| workload.user.as_ref());
        let names = users.filter(|user| !user.starts_with(|first: char| first.is_ascii_digit()));
        let named = names.filter_map(|user| Some((user.clone(), credentials(account_in(&root, user).ok()?)))).collect();
        let home = account.home.as_deref();
        let workloads =
            workloads.into_iter().map(|(name, workload)| (name, slim::inside(run, home, workload))).collect();
        Ok(Self { workloads, own: credentials(account), named })
    }

    /// Each as it is run in `tree`: by the image's user, unless it names another.
    pub(super) fn rehearsals(&self, tree: &Path) -> Result<Vec<Rehearsal<'_>>, Failure> {
        self.workloads.iter().map(|(name, workload)| self.rehearsal(name, workload, tree)).collect()
    }

    fn rehearsal<'a>(&self, name: &str, workload: &'a Workload, tree: &Path) -> Result<Rehearsal<'a>, Failure> {
        let who = match &workload.user {
            None => Some(&self.own),
            // An image need not have the accounts: then the name is the host's, as it was when the image was built.
            Some(user) => self.named.get(user),
        };
        Rehearsal::new(name, workload, Some(tree), who.cloned())
    }
}

fn credentials(Account { uid, gid, groups, .. }: Account) -> Credentials {
    Credentials { uid, gid, groups }
}

/// Says what would not be quite as asked for in a jail made of `base`.
pub(super) fn tell_notes(rehearsals: &[Rehearsal<'_>], base: &Base) -> Result<(), Failure> {
    let mut notes = BTreeSet::new();
    for rehearsal in rehearsals {
        notes.extend(rehearsal.notes(base)?);
    }
    for note in notes {
        say!("note: {note}");
    }
    Ok(())
}

/// Whom `user` means by the accounts of a root.
pub(super) fn account_in(root: &Root, user: &str) -> Result<Account, Failure> {
    let read = |path| root.read_through_links(path, u64::MAX).map(Option::unwrap_or_default);
    slim::account(user, &read(b"/etc/passwd")?, &read(b"/etc/group")?)
        .map_err(|error| Failure::new(error).hint("give the user as numbers, `uid:gid`"))
}
