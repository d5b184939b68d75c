//! What a trace says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use minjail_tracer::{Access, Account, Gap, Outcome, Protocol, sets_times};
use serde::{Deserialize, Serialize};

use crate::path::{Facts, FileType, JailPath};

/// Numbers the form of `trace.jsonl`; a trace of another one is refused.
pub const FORMAT: u32 = 1;

/// What the runs of one or more workloads touched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    /// Sorted, each once.
    pub runs: Vec<Run>,
    /// Where the earlier contents of changed files are, by SHA-256.
    pub store: BTreeMap<String, PathBuf>,
}

/// What one run touched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    pub header: Header,
    /// By [`Program::id`]: every program that ran.
    pub programs: Vec<Program>,
    /// In the order in which it happened.
    pub touches: Vec<Touch>,
    pub listening: BTreeSet<Listening>,
    /// As whom the program ran on its way, and to whom it gave something, or tried to.
    pub accounts: BTreeSet<Account>,
    /// Directories that were renamed, or had others put in their place, and are where they were when it ended.
    pub back: BTreeSet<JailPath>,
    /// How often each gap was met, by the program that met it ([`Program::id`]).
    pub gaps: BTreeMap<Gap, BTreeMap<u32, u64>>,
    /// `None` if the record was cut off before the run ended.
    pub ending: Option<Ending>,
}

/// What was run, and how.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Header {
    pub trace_format: u32,
    /// The workload's name.
    pub workload: String,
    /// The file that was executed, as a path in the root.
    pub program: JailPath,
    /// The command as it was typed; bytes outside UTF-8 as `\xNN`.
    pub command: Vec<String>,
    /// What of the environment belongs to the image.
    pub env: BTreeMap<String, String>,
    /// `SHELL` and `TERM`, which belong to it if the run found files by them, and others that name files.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub optional: BTreeMap<String, String>,
    pub directory: JailPath,
    pub uid: u32,
    pub gid: u32,
    /// The supplementary groups.
    pub groups: Vec<u32>,
    /// As `uname -m` says it.
    pub machine: String,
    /// The directory that played `/`.
    pub root: PathBuf,
}

impl Header {
    /// Of this program, run by root in `/` of the host, with no arguments and no environment.
    pub fn new(workload: &str, program: JailPath) -> Self {
        Self {
            trace_format: FORMAT,
            workload: workload.to_owned(),
            program,
            command: Vec::new(),
            env: BTreeMap::new(),
            optional: BTreeMap::new(),
            directory: JailPath::root(),
            uid: 0,
            gid: 0,
            groups: Vec::new(),
            machine: String::new(),
            root: PathBuf::from("/"),
        }
    }

    /// True if the run was in a jail, made of a directory, and not on the host.
    pub fn is_in_jail(&self) -> bool {
        self.root.as_os_str() != "/"
    }
}

/// A program that a process executed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Program {
    pub id: u32,
    /// The program whose process this one ran in, or was forked from.
    pub parent: u32,
    /// The executable's path, as text.
    pub path: String,
    /// As text; bytes outside UTF-8 as `\xNN`.
    pub arguments: Vec<String>,
}

/// One path on its way into the kernel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Touch {
    /// Which program: [`Program::id`].
    pub program: u32,
    /// The system call's name.
    pub call: String,
    pub access: Access,
    /// Where the path led: free of links but for the last component.
    pub path: JailPath,
    /// As the program spelled it, if that differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spelled: Option<String>,
    /// Every link on the way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    /// Directories that the path entered and left by `..`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed: Vec<JailPath>,
    pub found: Found,
    /// Of a link at the end: its text, escaped as paths are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// True if the run itself had made what is there, or the directory that it is looked for in.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub made: bool,
    /// True if it was reached by way of a descriptor (`/dev/stdout`): if by nothing else, the program was given it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_descriptor: bool,
    /// Where the program's user was refused: a directory on the way, or the path itself if it may not be used so, or not
    /// be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<JailPath>,
    /// SHA-256 of the content from before, if the call could change it: it is in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// The extended attributes from before that an image would carry, if the call could change them; values are escaped as paths are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xattrs: Option<BTreeMap<String, String>>,
    /// Of a directory that is listed: the names that it had before the run, sorted; of one that a call can only take away if it is
    /// empty: one of them, if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<Vec<String>>,
    /// What those of `names` are that are no regular files; traces of before this was told have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub types: Option<BTreeMap<String, FileType>>,
}

/// A link and its text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    pub path: JailPath,
    /// Escaped as paths are.
    pub target: String,
    /// What `lstat` said of it, where a run meets it first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<Facts>,
}

impl Touch {
    /// A call of `program` that led to `path` and `found` this there, of which nothing else is told.
    pub fn new(program: u32, call: impl Into<String>, access: Access, path: JailPath, found: Found) -> Self {
        Self {
            program,
            call: call.into(),
            access,
            path,
            spelled: None,
            links: Vec::new(),
            passed: Vec::new(),
            found,
            target: None,
            made: false,
            by_descriptor: false,
            refused: None,
            before: None,
            xattrs: None,
            names: None,
            types: None,
        }
    }

    /// True if no directory on the way was closed to the program's user.
    pub fn is_reached(&self) -> bool {
        self.refused.as_ref().is_none_or(|stop| *stop == self.path)
    }

    /// True for a call that may take away what is there by giving it another name, or put something else in its place so
    /// (`rename(2)`).
    pub fn renames(&self) -> bool {
        matches!(self.access, Access::Remove | Access::Replace) && self.call.starts_with("rename")
    }

    /// True for a call that may change the content of what is there, or take it away; or that gives it another time, by which nobody
    /// can tell any more whether it still has the content that the run found.
    pub fn alters(&self) -> bool {
        self.access.loses() || self.access == Access::Attributes && sets_times(&self.call)
    }

    /// True for a call that takes away a directory if that is empty (`rmdir(2)`; `rename(2)`, onto one): whether it does shows what
    /// is in it.
    pub fn needs_empty(&self) -> bool {
        let takes_away = self.access == Access::Remove && !self.renames();
        !self.made && (takes_away || self.access == Access::Replace)
    }
}

/// What was there just before the call.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Found {
    Missing,
    There(Facts),
    /// It could not be looked at; why, as an errno's name.
    Unknown(String),
}

impl Found {
    /// What is known of what was there.
    pub fn facts(&self) -> Option<&Facts> {
        if let Self::There(facts) = self { Some(facts) } else { None }
    }
}

/// What reading a namespace says that a mount keeps (`namespaces(7)`): it has the looks of a file, and no content.
pub const NAMESPACE: &str = "EINVAL";

/// What is said of anything else that the kernel makes up (procfs, sysfs, cgroup2 and the like), as no device has it.
pub const MADE_UP: &str = "ENODEV";

/// A port at which the workload took connections or datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Listening {
    pub port: u16,
    pub protocol: Protocol,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    Exited(i32),
    Killed(i32),
}

impl From<Outcome> for Ending {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Exited(status) => Self::Exited(status),
            Outcome::Killed(signal) => Self::Killed(signal),
        }
    }
}

impl std::fmt::Display for Ending {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(status) => write!(formatter, "ended with status {status}"),
            Self::Killed(signal) => write!(formatter, "was killed by signal {signal}"),
        }
    }
}

impl Trace {
    /// The header of the first run, which a trace that was read has: it says how an image of it is run.
    pub fn lead(&self) -> &Header {
        &self.runs.first().expect("a trace that was read has a run").header
    }

    /// True if a run found files by this variable, of those that an image gets then ([`Run::uses`]).
    pub fn uses(&self, name: &str, value: &str) -> bool {
        self.runs.iter().any(|run| run.uses(name, value))
    }
}

impl Run {
    pub fn new(header: Header) -> Self {
        Self {
            header,
            programs: Vec::new(),
            touches: Vec::new(),
            listening: BTreeSet::new(),
            accounts: BTreeSet::new(),
            back: BTreeSet::new(),
            gaps: BTreeMap::new(),
            ending: None,
        }
    }

    /// How often each gap was met.
    pub fn gap_counts(&self) -> BTreeMap<Gap, u64> {
        self.gaps.iter().map(|(&gap, counts)| (gap, counts.values().sum())).collect()
    }

    /// True if a program of the run named `path`, so spelled, and found something that had been there before.
    pub fn found(&self, path: &str) -> bool {
        self.touches.iter().any(|touch| {
            let spelled = touch.spelled.as_deref() == Some(path) || touch.path.as_bytes() == path.as_bytes();
            spelled && !touch.made && matches!(touch.found, Found::There(_))
        })
    }

    /// True if the run found files by this variable, of those that an image gets then: `SHELL` names a program, and `TERM` a
    /// terminal that is described in a file (`terminfo(5)`).
    pub fn uses(&self, name: &str, value: &str) -> bool {
        let is_described = |touch: &Touch| {
            let mut names = touch.path.components().rev();
            matches!(touch.found, Found::There(_))
                && names.next() == Some(value.as_bytes())
                && names.nth(1).is_some_and(|name| name == b"terminfo" || name == b".terminfo")
        };
        match name {
            "SHELL" => self.found(value),
            "TERM" => self.touches.iter().any(is_described),
            _ => false,
        }
    }

    /// What the run found, and had not made, at or below one of the paths that `value` lists.
    pub fn found_by(&self, value: &str) -> Option<&JailPath> {
        let listed = value.split(':').filter_map(|part| JailPath::clean(part.as_bytes()).ok());
        let apart = listed.filter(|path| !path.is_root() && !self.header.directory.starts_with(path));
        let places: Vec<JailPath> = apart.collect();
        let is_below = |path: &JailPath| places.iter().any(|place| path.starts_with(place));
        let mut found = self.touches.iter().filter(|touch| !touch.made && matches!(touch.found, Found::There(_)));
        found.find(|touch| is_below(&touch.path)).map(|touch| &touch.path)
    }
}
