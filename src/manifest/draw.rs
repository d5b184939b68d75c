//! From the file set to the manifest: facts, link texts, attributes and digests of every path that is wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use super::digest::{self, Job, Mtime};
use super::model::{Config, Entry, FORMAT, Kind, Manifest, Source, Sources};
use super::packages::Packages;
use super::packing::{Made, Packing, Times};
use super::times;
use crate::files::{FileSet, OMITTED, Reason, Wanted, Was, What};
use crate::path::{Facts, FileType, JailPath};
use crate::root::{Root, RootError};

/// What a manifest is drawn up from.
pub struct Given<'a> {
    pub files: &'a FileSet,
    pub root: &'a Root,
    /// Where the contents from before the run are, by SHA-256.
    pub store: &'a BTreeMap<String, PathBuf>,
    /// The packages of the root; empty if nobody wants to know.
    pub packages: &'a Packages,
    /// Seconds since 1970: the time of every entry that does not keep its own.
    pub epoch: i64,
    pub packing: Packing,
    pub config: Config,
    /// How many threads hash. The result does not depend on it.
    pub threads: NonZeroUsize,
    /// Told how many bytes are hashed, of how many, now and then and from any thread.
    pub progress: &'a (dyn Fn(u64, u64) + Sync),
}

/// A manifest, and what goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrawnUp {
    pub manifest: Manifest,
    pub sources: Sources,
    /// Sorted.
    pub notes: Vec<DrawNote>,
}

/// Something that the manifest does not hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum DrawNote {
    /// A socket: only the program that listens can make it.
    Socket { path: JailPath },
}

/// The manifest cannot be drawn up.
#[derive(Debug, thiserror::Error)]
pub enum DrawError {
    #[error(transparent)]
    Root(#[from] RootError),
    #[error("`{path}` is not in the root any more")]
    Missing { path: JailPath },
    #[error("`{parent}`, which `{path}` is in, is not a directory")]
    Parent { path: JailPath, parent: JailPath },
    #[error("`{path}` changed while it was read")]
    Changed { path: JailPath },
    #[error("failed to read the content of `{path}`")]
    Read { path: JailPath, source: io::Error },
    #[error("the trace has lost `{sha256}`, the earlier content of `{path}`")]
    Lost { path: JailPath, sha256: String },
    #[error("the trace's copy of the earlier content of `{path}` is damaged: it is not `{sha256}`")]
    Damaged { path: JailPath, sha256: String },
}

/// Draws up the manifest of `given.files`.
///
/// Of several names of one file the first is the file, the others are hard links to it.
///
/// # Errors
/// Something wanted is not there, not readable, or changes while it is read; a wanted path is below what is no directory.
pub fn draw_up(given: Given<'_>) -> Result<DrawnUp, DrawError> {
    let timed = match given.packing.mtime {
        Times::Packaged => timed(&given)?,
        Times::Fixed | Times::Clamp | Times::Keep => BTreeSet::new(),
    };
    let mut drawing =
        Drawing { given: &given, timed, drafts: BTreeMap::new(), inodes: BTreeMap::new(), notes: Vec::new() };
    for (path, wanted) in &given.files.wanted {
        drawing.add(path, wanted)?;
    }
    drawing.check_parents()?;
    let Drawing { mut drafts, mut notes, .. } = drawing;
    let jobs: Vec<Job<'_>> = drafts
        .iter()
        .filter_map(|(path, draft)| {
            let Content { source, size, seen } = draft.content.as_ref()?;
            Some(Job { path, source, size: *size, seen: *seen })
        })
        .collect();
    let digests = digest::all(&jobs, given.root, given.threads, given.progress)?;
    let mut sources = Sources::new();
    for (path, sha256) in digests {
        let draft = drafts.get_mut(&path).expect("digests are of drafts");
        let Content { source, size, .. } = draft.content.take().expect("only contents are hashed");
        if let Some(What::Was(was)) = given.files.wanted.get(&path).map(|wanted| &wanted.what) {
            if let Some(expected) = was.content.as_ref().filter(|expected| **expected != sha256) {
                return Err(DrawError::Damaged { path, sha256: expected.clone() });
            }
        }
        draft.entry.kind = Kind::File { size, sha256 };
        sources.insert(path, source);
    }
    notes.sort();
    let entries: Vec<Entry> = drafts.into_values().map(|draft| draft.entry).collect();
    let made = made(given.files, &sources, &entries);
    let Given { epoch, packing, config, .. } = given;
    let manifest = Manifest { minjail_format: FORMAT, epoch, packing, config, verified: None, made, entries };
    Ok(DrawnUp { manifest, sources, notes })
}

fn was_only_listed(wanted: &Wanted) -> bool {
    !wanted.reasons.is_empty() && wanted.reasons.iter().all(|reason| matches!(reason, Reason::Listed { .. }))
}

/// The files that keep their time though no package brought them.
fn timed(given: &Given<'_>) -> Result<BTreeSet<JailPath>, RootError> {
    let paths = given.files.wanted.keys();
    let mut timed = times::compiled(paths.clone(), given.root)?;
    timed.extend(times::mirrors(paths, |path| given.packages.owner(path).is_some(), given.root)?);
    Ok(timed)
}

/// What is not as the root has it, as the manifest writes it down.
fn made(files: &FileSet, sources: &Sources, entries: &[Entry]) -> BTreeMap<JailPath, Made> {
    let size =
        |path: &JailPath| match entries.binary_search_by(|entry| entry.path.cmp(path)).map(|at| &entries[at].kind) {
            Ok(Kind::File { size, .. }) => usize::try_from(*size).unwrap_or(usize::MAX),
            _ => 0,
        };
    let contents = sources.iter().filter_map(|(path, source)| match source {
        Source::Made(bytes) => Some((path.clone(), Made::File(bytes.clone()))),
        Source::Zeros => Some((path.clone(), Made::File(vec![0; size(path)]))),
        Source::Root | Source::Stored(_) => None,
    });
    let empty = files.wanted.iter().filter(|(_, wanted)| wanted.what == What::EmptyDirectory);
    contents.chain(empty.map(|(path, _)| (path.clone(), Made::Directory))).collect()
}

/// An entry whose content, if it has one, is not hashed yet.
struct Draft {
    entry: Entry,
    content: Option<Content>,
}

struct Content {
    source: Source,
    size: u64,
    /// Of a file in the root: its time when it was looked at.
    seen: Option<Mtime>,
}

struct Drawing<'a> {
    given: &'a Given<'a>,
    /// Files whose time others go by, though no package brought them.
    timed: BTreeSet<JailPath>,
    drafts: BTreeMap<JailPath, Draft>,
    /// The first path of each inode that has several.
    inodes: BTreeMap<(u64, u64, String), JailPath>,
    notes: Vec<DrawNote>,
}

/// Owner and mode.
#[derive(Clone, Copy)]
struct Owner {
    mode: u32,
    uid: u32,
    gid: u32,
}

impl Owner {
    fn of(facts: &Facts) -> Self {
        Self { mode: if facts.is_symlink() { 0o777 } else { facts.mode }, uid: facts.uid, gid: facts.gid }
    }

    fn root(mode: u32) -> Self {
        Self { mode, uid: 0, gid: 0 }
    }
}

impl DrawError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Missing { .. } | Self::Changed { .. } | Self::Parent { .. } => {
                Some("trace again, and let nothing else change the files before the image is built")
            }
            Self::Lost { .. } | Self::Damaged { .. } => Some("trace again: the trace was changed after it was made"),
            Self::Root(RootError { source, .. }) | Self::Read { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Some("the image needs this file: run minjail as a user who may read it")
            }
            Self::Root(_) | Self::Read { .. } => None,
        }
    }
}

impl Drawing<'_> {
    fn add(&mut self, path: &JailPath, wanted: &Wanted) -> Result<(), DrawError> {
        let facts = self.given.root.lstat(path)?;
        match &wanted.what {
            What::AsIs => match facts {
                Some(facts) => {
                    self.add_as_is(path, wanted, &facts)?;
                    self.set_time(path, &facts);
                }
                // It was seen in a listing and is gone since: nobody had asked for more than its name.
                None if was_only_listed(wanted) => {}
                None => return Err(DrawError::Missing { path: path.clone() }),
            },
            What::Was(was) => {
                self.add_as_was(path, wanted, was)?;
                self.set_time(path, &was.facts);
            }
            What::Hollow => match facts {
                Some(facts) if facts.is_file() => {
                    let owner = Owner::of(&facts);
                    self.add_file(path, wanted, owner, Some(&facts), Source::Zeros, facts.size)?;
                    self.set_time(path, &facts);
                }
                _ => return Err(DrawError::Missing { path: path.clone() }),
            },
            What::Sealed => {
                let facts = facts.filter(Facts::is_file);
                self.add_made(path, wanted, facts.as_ref(), &[])?;
            }
            What::EmptyDirectory => {
                let is_temporary = matches!(path.as_bytes(), b"/tmp" | b"/var/tmp");
                let usual = Owner::root(if is_temporary { 0o1777 } else { 0o755 });
                let facts = facts.filter(Facts::is_directory);
                self.draft(path, wanted, Kind::Directory, facts.as_ref().map_or(usual, Owner::of), facts.as_ref())?;
            }
            What::Made(bytes) => {
                let facts = facts.filter(Facts::is_file);
                self.add_made(path, wanted, facts.as_ref(), bytes)?;
            }
            What::Placeholder => {
                let kind = Kind::Symlink { target: OMITTED.as_bytes().to_vec() };
                self.draft(path, wanted, kind, Owner::root(0o777), None)?;
            }
        }
        Ok(())
    }

    /// Gives an entry its time; of several names of one file the first says it.
    fn set_time(&mut self, path: &JailPath, facts: &Facts) {
        let packaged = self.given.packages.owner(path).is_some() || self.timed.contains(path);
        let mut time = times::of(self.given.packing.mtime, facts, self.given.epoch, packaged);
        if let Some(Draft { entry: Entry { kind: Kind::HardLink { to }, .. }, .. }) = self.drafts.get(path) {
            time = self.drafts.get(to).map_or(time, |first| first.entry.mtime);
        }
        // A socket has no entry.
        if let Some(draft) = self.drafts.get_mut(path) {
            draft.entry.mtime = time;
        }
    }

    fn add_as_is(&mut self, path: &JailPath, wanted: &Wanted, facts: &Facts) -> Result<(), DrawError> {
        let kind = match facts.file_type {
            FileType::File => {
                if let Some(first) = self.other_name(path, facts, "") {
                    return self.draft(path, wanted, Kind::HardLink { to: first }, Owner::of(facts), None);
                }
                return self.add_file(path, wanted, Owner::of(facts), Some(facts), Source::Root, facts.size);
            }
            FileType::Socket => {
                self.notes.push(DrawNote::Socket { path: path.clone() });
                return Ok(());
            }
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink { target: self.given.root.read_link(path)? },
            FileType::Fifo => Kind::Fifo,
            FileType::CharDevice => Kind::CharDevice { major: major(facts), minor: minor(facts) },
            FileType::BlockDevice => Kind::BlockDevice { major: major(facts), minor: minor(facts) },
        };
        self.draft(path, wanted, kind, Owner::of(facts), Some(facts))
    }

    /// The first name of a file that has several, if that is another one.
    ///
    /// `kept` is the digest of what the trace kept of it, and empty for a file that the root has: the number of an inode
    /// that was freed since may belong to another file by now.
    fn other_name(&mut self, path: &JailPath, facts: &Facts, kept: &str) -> Option<JailPath> {
        if facts.nlink < 2 {
            return None;
        }
        let identity = (facts.dev, facts.ino, kept.to_owned());
        if let Some(first) = self.inodes.get(&identity) {
            return Some(first.clone());
        }
        self.inodes.entry(identity).or_insert_with(|| path.clone());
        None
    }

    /// What the run changed, by what the trace kept of it.
    fn add_as_was(&mut self, path: &JailPath, wanted: &Wanted, was: &Was) -> Result<(), DrawError> {
        let facts = &was.facts;
        let kind = match (facts.file_type, &was.target, &was.content) {
            (FileType::File, _, Some(sha256)) => {
                if let Some(first) = self.other_name(path, facts, sha256) {
                    return self.draft(path, wanted, Kind::HardLink { to: first }, Owner::of(facts), None);
                }
                let stored = self.given.store.get(sha256);
                let stored = stored.ok_or_else(|| DrawError::Lost { path: path.clone(), sha256: sha256.clone() })?;
                let source = Source::Stored(stored.clone());
                return self.add_file(path, wanted, Owner::of(facts), None, source, facts.size);
            }
            (FileType::File, ..) => {
                let source = Source::Root;
                return self.add_file(path, wanted, Owner::of(facts), Some(facts), source, facts.size);
            }
            (FileType::Directory, ..) => Kind::Directory,
            (FileType::Symlink, Some(target), _) => Kind::Symlink { target: target.clone() },
            (FileType::Fifo, ..) => Kind::Fifo,
            _ => return Err(DrawError::Missing { path: path.clone() }),
        };
        self.draft(path, wanted, kind, Owner::of(facts), None)
    }

    /// A content of minjail's own; owner and mode are those of the file in the root, if there is one.
    fn add_made(
        &mut self,
        path: &JailPath,
        wanted: &Wanted,
        facts: Option<&Facts>,
        bytes: &[u8],
    ) -> Result<(), DrawError> {
        let owner = facts.map_or(Owner::root(0o644), Owner::of);
        self.add_file(path, wanted, owner, facts, Source::Made(bytes.to_vec()), bytes.len() as u64)
    }

    fn add_file(
        &mut self,
        path: &JailPath,
        wanted: &Wanted,
        owner: Owner,
        facts: Option<&Facts>,
        source: Source,
        size: u64,
    ) -> Result<(), DrawError> {
        self.draft(path, wanted, Kind::File { size, sha256: String::new() }, owner, facts)?;
        self.drafts.get_mut(path).expect("it was just put there").content =
            Some(Content { source, size, seen: facts.map(Mtime::of) });
        Ok(())
    }

    /// Takes an entry; `facts` only if the attributes of what is in the root are its own.
    fn draft(
        &mut self,
        path: &JailPath,
        wanted: &Wanted,
        kind: Kind,
        owner: Owner,
        facts: Option<&Facts>,
    ) -> Result<(), DrawError> {
        let package = if kind == Kind::Directory { None } else { self.given.packages.owner(path) };
        let entry = Entry {
            path: path.clone(),
            kind,
            mode: owner.mode,
            uid: owner.uid,
            gid: owner.gid,
            mtime: self.given.epoch,
            xattrs: if facts.is_some() { self.given.root.xattrs(path)? } else { BTreeMap::new() },
            package: package.map(ToString::to_string),
            layer: 0,
            reasons: wanted.reasons.clone(),
        };
        self.drafts.insert(path.clone(), Draft { entry, content: None });
        Ok(())
    }

    fn check_parents(&self) -> Result<(), DrawError> {
        for path in self.drafts.keys() {
            let Some(parent) = path.parent() else { continue };
            let holds = self.drafts.get(&parent).is_some_and(|draft| draft.entry.kind == Kind::Directory);
            if !holds {
                return Err(DrawError::Parent { path: path.clone(), parent });
            }
        }
        Ok(())
    }
}

fn major(facts: &Facts) -> u64 {
    nix::sys::stat::major(facts.rdev)
}

fn minor(facts: &Facts) -> u64 {
    nix::sys::stat::minor(facts.rdev)
}
