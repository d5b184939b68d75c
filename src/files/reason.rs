//! Why a path is in the jail.

use serde::{Deserialize, Serialize};

use crate::path::JailPath;

/// One reason; a path may have several.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "because", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Reason {
    /// The workload handed it to the kernel.
    Touched { workload: String, program: String, call: String },
    /// It was missing when the workload ran in the jail, and `--repair` has added it.
    Repair { workload: String, program: String },
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
    /// True if a run would miss the path itself, and not only its name or what is behind it.
    pub fn is_use(&self) -> bool {
        matches!(self, Self::Touched { .. } | Self::OnTheWay { .. } | Self::Interpreter { .. } | Self::Library { .. })
    }
}
