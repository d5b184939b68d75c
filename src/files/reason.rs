//! Why a path is in the jail.

use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::path::JailPath;
use crate::profile::Rule;

/// One reason; a path may have several.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "because", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Reason {
    /// The workload handed it to the kernel.
    Touched { workload: Arc<str>, program: Arc<str>, call: Arc<str> },
    /// It was missing when the workload ran in the jail, and `--repair` has added it.
    Repair { workload: Arc<str>, program: Arc<str> },
    /// It is a link, or a directory that `..` leaves again, on the way of a path that was touched or is needed.
    OnTheWay { to: JailPath },
    /// It is the directory of something that the jail needs.
    Holds { child: JailPath },
    /// It runs `of`: an ELF interpreter or the program named after `#!`.
    Interpreter { of: JailPath },
    /// `of` names it as a library.
    Library { of: JailPath, soname: String },
    /// A listing of `directory` showed the name.
    Listed { directory: JailPath },
    /// The user named it.
    Included { pattern: String },
    /// A rule adds it, on account of `of`.
    Rule { rule: String, of: JailPath },
}

impl Reason {
    /// That `rule` adds it, on account of `of`.
    pub(super) fn rule(rule: Rule, of: JailPath) -> Self {
        Self::Rule { rule: rule.name().to_owned(), of }
    }

    /// True if a run would miss the path itself, and not only its name or what is behind it.
    pub fn is_use(&self) -> bool {
        matches!(self, Self::Touched { .. } | Self::OnTheWay { .. } | Self::Interpreter { .. } | Self::Library { .. })
    }
}

/// The reasons for one path, sorted, each once. There is nearly always one, and a tree's node has room for eleven.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Reason>", into = "Vec<Reason>")]
pub struct Reasons(Vec<Reason>);

impl Reasons {
    pub fn insert(&mut self, reason: Reason) {
        if let Err(place) = self.0.binary_search(&reason) {
            if self.0.len() < 4 {
                // Most have one or two, and a vector that grows by itself has room for four at once.
                self.0.reserve_exact(1);
            }
            self.0.insert(place, reason);
        }
    }
}

impl Deref for Reasons {
    type Target = [Reason];

    fn deref(&self) -> &[Reason] {
        &self.0
    }
}

impl<'a> IntoIterator for &'a Reasons {
    type Item = &'a Reason;
    type IntoIter = std::slice::Iter<'a, Reason>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl From<Vec<Reason>> for Reasons {
    fn from(mut reasons: Vec<Reason>) -> Self {
        reasons.sort_unstable();
        reasons.dedup();
        Self(reasons)
    }
}

impl<const N: usize> From<[Reason; N]> for Reasons {
    fn from(reasons: [Reason; N]) -> Self {
        Vec::from(reasons).into()
    }
}

impl From<Reasons> for Vec<Reason> {
    fn from(reasons: Reasons) -> Self {
        reasons.0
    }
}
