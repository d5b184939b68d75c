//! What a loader opens for an ELF file, as a value.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::path::{JailPath, escape};

/// What a loader opens for an ELF file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Closure {
    /// The files, without the ELF file itself, by where their paths end.
    pub objects: BTreeMap<JailPath, Object>,
    /// Files that told the loader where some of these are, or that it is to open them, as it spells their paths: its cache,
    /// musl's list of directories if there is one, `/etc/ld.so.preload`.
    pub guides: BTreeSet<Vec<u8>>,
    /// What is needed and not there: without it, the loader gives up.
    pub missing: BTreeSet<Missing>,
    /// What is odd, but not an error.
    pub notes: BTreeSet<Note>,
}

/// One file of a [`Closure`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Object {
    /// The absolute paths by which the loader opens it, as it spells them.
    pub spelled: BTreeSet<Vec<u8>>,
    /// The links on the way of these paths.
    pub links: BTreeSet<JailPath>,
    /// Directories that these paths go through only to leave them by `..`: they must be there too.
    pub through: BTreeSet<JailPath>,
    pub needed_by: BTreeSet<Need>,
}

/// Who needs an object, and as what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    pub of: JailPath,
    /// As it stands in the file that needs it.
    pub name: Vec<u8>,
    pub role: Role,
}

/// What an object is needed as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// `PT_INTERP`.
    Interpreter,
    /// `DT_NEEDED`, `DT_FILTER`.
    Library,
    /// `DT_AUXILIARY`: used if found.
    Auxiliary,
    /// `DT_AUDIT`, `DT_DEPAUDIT`.
    Audit,
    /// `LD_PRELOAD`, `/etc/ld.so.preload`.
    Preload,
}

/// Something that is needed and was not found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Missing {
    pub of: JailPath,
    pub name: Vec<u8>,
}

/// Something worth saying.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Note {
    /// Not there, and the loader goes on without: an auxiliary, audit or preload library.
    DoneWithout { of: JailPath, name: Vec<u8>, role: Role },
    /// The loader finds this file and gives up on it: it is no ELF file, or a broken one.
    Refused { path: Vec<u8>, why: String },
    /// The loader's cache is there, and the loader cannot read it.
    UselessCache { why: String },
    /// There are builds for some processors and none for all.
    SomeProcessorsOnly { name: Vec<u8> },
}

impl fmt::Display for Missing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "`{}` needs `{}`, which is nowhere to be found", self.of, escape(&self.name))
    }
}

impl fmt::Display for Note {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DoneWithout { of, name, role } => {
                let role = match role {
                    Role::Auxiliary => "auxiliary",
                    Role::Audit => "audit",
                    Role::Preload => "preloaded",
                    Role::Interpreter | Role::Library => "needed",
                };
                write!(formatter, "the {role} library `{}` of `{of}` is not there", escape(name))
            }
            Self::Refused { path, why } => write!(formatter, "a loader cannot use `{}`: {why}", escape(path)),
            Self::UselessCache { why } => write!(formatter, "the loader's cache cannot be read: {why}"),
            Self::SomeProcessorsOnly { name } => {
                write!(formatter, "there are builds of `{}` for some processors, and none for all", escape(name))
            }
        }
    }
}
