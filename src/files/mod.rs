//! From what a run touched to what the jail needs: the file set.
//!
//! In: a trace, a [`Root`] and a [`Policy`]. Out: a [`FileSet`], every path with all its [`Reason`]s. This room reads the
//! root only to follow links, to look into ELF files and scripts, and to compare a file with the copy that was kept of it; it
//! writes nothing.

mod accounts;
mod choose;
mod closure;
mod gather;
mod homes;
mod lists;
mod note;
mod policy;
mod reason;
mod rules;
mod secrets;
mod special;
mod state;
mod style;
mod traits;
mod want;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::elf::{CacheError, Environment, SearchError};
use crate::path::{Facts, JailPath, escape};
use crate::root::{Root, RootError};
use crate::trace::{Conflict, Trace, is_temporary};

pub use closure::interpreter;
use closure::{Lacking, Started};
pub use gather::REPAIR;
pub use note::{Configured, Note};
pub use policy::{Accounts, Listing, Pattern, PatternError, Policy, Purpose, Rule, Rules, StatOnly, Switch};
pub use reason::{Reason, Reasons};
pub use secrets::{has_secret, is_secret_variable};
pub use special::{is_minjails, is_of_network};

/// The file set could not be made.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    #[error(transparent)]
    Root(#[from] RootError),
    #[error(transparent)]
    Search(#[from] SearchError),
    #[error("`{path}` has changed since the trace was made")]
    Changed { path: JailPath },
    #[error(
        "`{path}` was changed by somebody else while it was traced, between the first look at it and the first change"
    )]
    Torn { path: JailPath },
    #[error("`{path}` is gone since the trace was made")]
    Gone { path: JailPath },
    #[error("what `{path}` was before the run has changed or removed it could not be kept: its user may not read it")]
    Unread { path: JailPath },
    #[error("failed to write a library cache for `{path}`")]
    LdCache { path: JailPath, source: CacheError },
    #[error("`{path}` cannot be packed: what runs an image has a /dev, a /proc and a /sys of its own")]
    Runtimes { path: JailPath },
    #[error("`{pattern}`, which is to be included, matches nothing")]
    Nothing { pattern: String },
    #[error(transparent)]
    Conflict(#[from] Conflict),
}

impl FilesError {
    /// True if a file is not there as the runs found it, or cannot be in an image, or if not all runs found the same there: an image can be built without it.
    pub fn is_trouble(&self) -> bool {
        matches!(
            self,
            Self::Changed { .. }
                | Self::Torn { .. }
                | Self::Gone { .. }
                | Self::Unread { .. }
                | Self::Runtimes { .. }
                | Self::Conflict(_)
        )
    }

    /// True if something may not be looked at: nobody has to, either, who leaves it out.
    fn is_refusal(&self) -> bool {
        matches!(self, Self::Root(error) if error.is_refusal())
    }
}

/// What cannot be packed as the runs found it.
struct Trouble {
    path: JailPath,
    /// Of two names of one file that two runs found different, the other one: without either of them it is no trouble.
    other: Option<JailPath>,
    error: FilesError,
}

/// What the jail needs for everything that the trace's runs did, and what a person should know about it.
///
/// # Errors
/// The root cannot be read, or something in it that is not left out is not as the trace found it, or two runs found it different.
pub fn needed(trace: &Trace, root: &Root, policy: &Policy) -> Result<(FileSet, Vec<Note>), FilesError> {
    gathered(trace, root, policy, Err)
}

/// As [`needed`], for who asks for paths and reasons and not for contents: what is not there as the trace found it is taken as it is
/// now, and comes back among the errors.
///
/// # Errors
/// The root cannot be read.
pub fn needed_by_now(trace: &Trace, root: &Root, policy: &Policy) -> Result<(FileSet, Vec<FilesError>), FilesError> {
    let mut troubles = Vec::new();
    let (files, _) = gathered(trace, root, policy, |trouble| {
        troubles.push(trouble);
        Ok(())
    })?;
    Ok((files, troubles))
}

fn gathered(
    trace: &Trace,
    root: &Root,
    policy: &Policy,
    mut tell: impl FnMut(FilesError) -> Result<(), FilesError>,
) -> Result<(FileSet, Vec<Note>), FilesError> {
    let exclusions: Vec<choose::Exclusion<'_>> =
        policy.exclude.iter().map(|pattern| choose::Exclusion::of(pattern, root)).collect::<Result<_, _>>()?;
    let is_left_out = |path: &JailPath| exclusions.iter().any(|exclusion| exclusion.names(path, root));
    let mut touched = gather::gather(trace);
    state::share_contents(&mut touched.paths, root)?;
    let supplied = special::supplied(root)?;
    let mut troubles = want::types_agree(trace, root, &supplied);
    troubles.extend(style::settle(&mut touched.paths, trace, root, &supplied)?);
    let (mut files, mut notes, others) = want::wanted(&touched, trace, root, policy, &supplied)?;
    troubles.extend(others);
    let looked_at = touched.looked_at();
    // What is something else by now needs something else.
    let mut strange = BTreeSet::new();
    let mut undecided = Vec::new();
    for Trouble { path, other, error } in troubles {
        if !is_left_out(&path) && !other.as_ref().is_some_and(is_left_out) {
            if policy.stat_only == StatOnly::Omit && looked_at.contains(&path) {
                undecided.push((path.clone(), error));
            } else {
                tell(error)?;
            }
        }
        if other.is_none() {
            strange.insert(path);
        }
    }
    let found: BTreeSet<JailPath> = files.wanted.keys().cloned().collect();
    rules::add_places(&mut files, trace, policy, root)?;
    rules::add_accounts(&mut files, trace, policy, root)?;
    // What only the variables of a run made a loader find, the run has opened. Of what no run has started, nobody knows yet.
    let executed: Vec<JailPath> = touched.executed().filter(|path| !strange.contains(*path)).cloned().collect();
    let mut closed: BTreeSet<JailPath> = executed.iter().cloned().collect();
    let executed = Started { paths: executed, environments: &[Environment::default()], search: &[], is_told: false };
    let (environments, search) = (closure::environments(trace, policy), closure::searched(trace, policy));
    closure::close(&mut files, &executed, &environments, &trace.store, root, &policy.rules)?;
    // By a link that the runs have made since, this leads to what was not there when they started.
    files.wanted.retain(|path, wanted| found.contains(path) || wanted.what != What::AsIs || !touched.is_made(path));
    let included = choose::include(&mut files, &policy.include, root)?;
    let mut lacking = BTreeSet::new();
    if !included.is_empty() {
        closed.extend(included.iter().cloned());
        let included = Started { paths: included, environments: &environments, search: &search, is_told: true };
        lacking.extend(closure::close(&mut files, &included, &environments, &trace.store, root, &policy.rules)?);
    }
    loop {
        let known = files.wanted.len();
        let mut objects = traits::add(&mut files, &policy.rules, root)?;
        objects.retain(|object| !closed.contains(object));
        if objects.is_empty() && files.wanted.len() == known {
            break;
        }
        closed.extend(objects.iter().cloned());
        let objects = Started { paths: objects, environments: &environments, search: &search, is_told: false };
        lacking.extend(closure::close(&mut files, &objects, &environments, &trace.store, root, &policy.rules)?);
    }
    lacking.retain(|lacking| !lacking.may_be_had(&files));
    notes.extend(lacking.into_iter().map(|Lacking { of, name, .. }| Note::Lacks { path: of, needs: escape(&name) }));
    rules::add_sources(&mut files, policy, root)?;
    // From here on less is wanted, never more: what is left out brings nothing with it, and nothing brings it back.
    choose::exclude(&mut files, &exclusions, root, &mut notes);
    if !exclusions.is_empty() {
        choose::tell_contradictions(&files, &policy.include, &mut notes);
    }
    choose::stat_only(&mut files, &looked_at, policy.stat_only);
    // Whether the image has anything of what was only looked at is known by now.
    for (path, error) in undecided {
        if files.has_more_than_name(&path) {
            tell(error)?;
        }
    }
    secrets::withhold(&mut files, &policy.allowed_secrets, &trace.store, root, &mut notes);
    // Of what is not packed after all, nothing is said but why.
    notes.retain(|note| !matches!(note, Note::State { path } | Note::Temporary { path } if !files.contains(path)));
    lists::tell(&touched, &files, root, &mut notes)?;
    homes::tell(&files, trace, &mut notes);
    special::replace(&mut files, trace, root, policy, &mut notes)?;
    files.hold();
    restore_temporary_directories(&mut files, root)?;
    Ok((files, notes))
}

/// A temporary file may be packed when its directory is long gone: it gets one as it is commonly made.
fn restore_temporary_directories(files: &mut FileSet, root: &Root) -> Result<(), RootError> {
    for (path, wanted) in files.wanted.iter_mut().filter(|(path, _)| is_temporary(path)) {
        let holds = wanted.reasons.iter().all(|reason| matches!(reason, Reason::Holds { .. }));
        if holds && wanted.what == What::AsIs && root.facts(path)?.is_none() {
            wanted.what = What::EmptyDirectory;
        }
    }
    Ok(())
}

/// Every path that the jail needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileSet {
    pub wanted: BTreeMap<JailPath, Wanted>,
}

impl FileSet {
    /// Adds a reason for `path`; `what` counts only if the path is new, or wanted as it is so far, or was only a name in a
    /// listing.
    pub fn add(&mut self, path: JailPath, what: What, reason: Reason) {
        let wanted =
            self.wanted.entry(path).or_insert_with(|| Wanted { what: What::AsIs, reasons: Reasons::default() });
        let was_only_a_name = wanted.what == What::Placeholder && !matches!(reason, Reason::Listed { .. });
        if wanted.what == What::AsIs || was_only_a_name {
            wanted.what = what;
        }
        wanted.reasons.insert(reason);
    }

    /// Adds each of `reasons` for `path`, as [`add`](Self::add) does one.
    fn add_all(&mut self, path: &JailPath, what: &What, reasons: &Reasons) {
        for reason in reasons {
            self.add(path.clone(), what.clone(), reason.clone());
        }
    }

    /// Adds every directory above what is wanted.
    pub fn hold(&mut self) {
        self.wanted.entry(JailPath::root()).or_insert_with(|| Wanted { what: What::AsIs, reasons: Reasons::default() });
        let paths: Vec<JailPath> = self.wanted.keys().cloned().collect();
        for path in paths {
            let mut child = path;
            while let Some(parent) = child.parent() {
                let known = self.contains(&parent);
                self.add(parent.clone(), What::AsIs, Reason::Holds { child });
                if known {
                    break;
                }
                child = parent;
            }
        }
    }

    /// True if something below `path` is wanted.
    fn has_below(&self, path: &JailPath) -> bool {
        // What only starts with the same letters may stand between.
        let further = self.wanted.range(path.clone()..).map(|(other, _)| other).skip(usize::from(self.contains(path)));
        let mut further = further.take_while(|other| other.as_bytes().starts_with(path.as_bytes()));
        further.any(|other| other.starts_with(path))
    }

    pub fn contains(&self, path: &JailPath) -> bool {
        self.wanted.contains_key(path)
    }

    /// True if more of `path` is wanted than its name.
    fn has_more_than_name(&self, path: &JailPath) -> bool {
        self.wanted.get(path).is_some_and(|wanted| wanted.what != What::Placeholder)
    }
}

/// What the jail needs of one path, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub what: What,
    pub reasons: Reasons,
}

/// What the jail needs of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// What the root has there: a directory, a link, a file with its content, a FIFO, a device node.
    AsIs,
    /// What was there before the run changed it.
    Was(Box<Was>),
    /// A file with the size, owner and mode of the root's, and zeros for content: it was looked at and never opened.
    Hollow,
    /// A file that the workload itself was not allowed to read: the same owner and mode, no content, so that it is
    /// refused the same way. These are its facts from before the run.
    Sealed(Box<Facts>),
    /// An empty directory in place of whatever is there: a mount point.
    EmptyDirectory,
    /// A file that minjail makes: `/etc/ld.so.cache`, accounts, placeholders. The runs have changed the one whose owner and mode it
    /// gets, if there are facts: these are from before.
    Made(Vec<u8>, Option<Box<Facts>>),
    /// A link to [`OMITTED`]: a name that a listing showed and nobody touched.
    Placeholder,
}

/// How something was before the run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Was {
    pub facts: Facts,
    /// Of a file: the SHA-256 under which the trace's store has its content; `None`: the root still has it.
    pub content: Option<String>,
    /// Of a link: its text.
    pub target: Option<Vec<u8>>,
    /// The extended attributes; `None`: they are those of the root's file, if that is still the same.
    pub xattrs: Option<BTreeMap<String, Vec<u8>>>,
}

impl Was {
    /// The content of a file, where the trace has kept it.
    fn kept<'a>(&self, store: &'a BTreeMap<String, PathBuf>) -> Option<&'a PathBuf> {
        store.get(self.content.as_ref()?)
    }
}

/// Where the links of [`What::Placeholder`] lead: nowhere, so that opening one fails as a missing file does.
pub const OMITTED: &str = "/.minjail-omitted";
