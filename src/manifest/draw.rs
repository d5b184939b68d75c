//! From the file set to the manifest: facts, link texts and attributes of every path that is wanted. Contents are looked
//! at and not read: their digests come when the image is written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use nix::sys::stat::{major, minor};

use super::digest::{Digest, Seal};
use super::model::{Config, Entry, Kind, Manifest, Seen, Source, Sources};
use super::packages::{Package, Packages};
use super::packing::{Made, Packing, Times};
use super::times;
use crate::files::{FileSet, OMITTED, Reason, Reasons, Wanted, Was, What};
use crate::path::{Facts, FileType, JailPath};
use crate::root::{Root, RootError, access_list};

/// What a manifest is drawn up from.
pub struct Given<'a> {
    pub files: FileSet,
    pub root: &'a Root,
    /// Where the contents from before the run are, by SHA-256.
    pub store: &'a BTreeMap<String, PathBuf>,
    /// The packages of the root; empty if nobody wants to know.
    pub packages: &'a Packages,
    /// Seconds since 1970: the time of every entry that does not keep its own.
    pub epoch: i64,
    pub packing: Packing,
    pub config: Config,
}

/// A manifest, and what goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrawnUp {
    /// Its contents are not sealed yet, but for those that the trace has kept.
    pub manifest: Manifest,
    pub sources: Sources,
    /// Files whose package brought another content.
    pub changed: BTreeSet<JailPath>,
}

/// Which package a file is from, if it still is what that brought.
struct Origins<'a> {
    packages: &'a Packages,
    changed: BTreeSet<JailPath>,
}

impl Origins<'_> {
    fn package(&self, path: &JailPath) -> Option<&Package> {
        self.packages.owner(path).filter(|_| !self.changed.contains(path))
    }
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
    #[error("the trace has lost `{sha256}`, the earlier content of `{path}`")]
    Lost { path: JailPath, sha256: String },
}

/// Draws up the manifest of `given.files`.
///
/// Of several names of one file the first is the file, the others are hard links to it.
///
/// # Errors
/// Something wanted is not there, or cannot be looked at; a wanted path is below what is no directory.
pub fn draw_up(given: Given<'_>) -> Result<DrawnUp, DrawError> {
    let Given { files, root, store, packages, epoch, packing, config } = given;
    let origins = Origins { packages, changed: packages.changed(&files, store, root)? };
    let timed = match packing.mtime {
        Times::Packaged => timed(&files, &origins, root)?,
        Times::Fixed | Times::Clamp | Times::Files | Times::Keep => BTreeSet::new(),
    };
    let mut drawing = Drawing {
        root,
        store,
        origins,
        epoch,
        times: packing.mtime,
        timed,
        entries: Vec::with_capacity(files.wanted.len()),
        sources: Sources::new(),
        made: BTreeMap::new(),
        inodes: BTreeMap::new(),
        unpackaged: Vec::new(),
    };
    // What is drawn up leaves the file set: of a large image there need not be two lists.
    for (path, wanted) in files.wanted {
        drawing.add(path, wanted)?;
    }
    let Drawing { mut entries, sources, made, unpackaged, origins, .. } = drawing;
    times::follow(&mut entries, &unpackaged);
    // With the epoch 0 they have none anyway.
    if epoch != 0 && !matches!(packing.mtime, Times::Fixed | Times::Keep) {
        times::undate_fonts(&mut entries, root);
    }
    entries.shrink_to_fit();
    check_parents(&entries)?;
    let manifest = Manifest { epoch, packing, made, ..Manifest::new(config, entries) };
    Ok(DrawnUp { manifest, sources, changed: origins.changed })
}

fn was_only_listed(reasons: &Reasons) -> bool {
    !reasons.is_empty() && reasons.iter().all(|reason| matches!(reason, Reason::Listed { .. }))
}

/// The files that keep their time though no package brought them.
fn timed(files: &FileSet, origins: &Origins<'_>, root: &Root) -> Result<BTreeSet<JailPath>, RootError> {
    let paths = files.wanted.keys();
    let mut timed = times::compiled(paths.clone(), root)?;
    timed.extend(times::mirrors(paths, |path| origins.package(path).is_some(), root)?);
    Ok(timed)
}

fn check_parents(entries: &[Entry]) -> Result<(), DrawError> {
    for entry in entries {
        let Some(parent) = entry.path.parent() else { continue };
        let at = entries.binary_search_by(|other| other.path.cmp(&parent));
        if at.map(|at| &entries[at].kind) != Ok(&Kind::Directory) {
            return Err(DrawError::Parent { path: entry.path.clone(), parent });
        }
    }
    Ok(())
}

struct Drawing<'a> {
    root: &'a Root,
    store: &'a BTreeMap<String, PathBuf>,
    origins: Origins<'a>,
    epoch: i64,
    times: Times,
    /// Files whose time others go by, though no package brought them.
    timed: BTreeSet<JailPath>,
    entries: Vec<Entry>,
    sources: Sources,
    /// What is not as the root has it, as the manifest writes it down.
    made: BTreeMap<JailPath, Made>,
    /// The entry of the first name of each inode that has several.
    inodes: BTreeMap<Identity, usize>,
    /// The entries of files with a content of their own that have the epoch for want of a package. Ascending.
    unpackaged: Vec<usize>,
}

/// What all names of a file have in common.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Identity {
    inode: (u64, u64),
    /// By one of its names it may have been given another mode, or owner.
    owner: Owner,
    /// The digest of what the trace kept of it.
    kept: String,
}

/// Owner and mode.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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

/// What an entry is to become.
struct Draft {
    kind: Kind,
    owner: Owner,
    xattrs: Xattrs,
    mtime: i64,
}

/// The extended attributes of an entry.
enum Xattrs {
    None,
    /// Those of what is in the root.
    Root,
    Were(BTreeMap<String, Vec<u8>>),
}

impl Xattrs {
    fn root_if(is_there: bool) -> Self {
        if is_there { Self::Root } else { Self::None }
    }
}

impl DrawError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Missing { .. } | Self::Parent { .. } => {
                Some("trace again, and let nothing else change the files before the image is built")
            }
            Self::Lost { .. } => Some("trace again: the trace was changed after it was made"),
            Self::Root(error) => error.hint(),
        }
    }
}

impl Drawing<'_> {
    fn add(&mut self, path: JailPath, wanted: Wanted) -> Result<(), DrawError> {
        let Wanted { what, reasons } = wanted;
        let facts = self.root.facts(&path)?;
        let draft = match (what, facts) {
            (What::AsIs, Some(facts)) => match self.as_is(&path, &facts)? {
                Some(draft) => draft,
                None => return Ok(()),
            },
            // It was seen in a listing and is gone since: nobody had asked for more than its name.
            (What::AsIs, None) if was_only_listed(&reasons) => return Ok(()),
            (What::Was(was), facts) => self.as_was(&path, &was, facts.as_ref())?,
            (What::Hollow, Some(facts)) if facts.is_file() => self.hollow(&path, &facts),
            (What::AsIs | What::Hollow, _) => return Err(self.missing(path)),
            (What::Sealed(was), facts) => self.sealed(&path, &was, facts.as_ref()),
            (What::Made(bytes, was), facts) => {
                self.made.insert(path.clone(), Made::File(bytes.clone()));
                let ours = self.file_of_ours(&path, facts.as_ref(), bytes);
                Draft { owner: was.as_deref().map_or(ours.owner, Owner::of), ..ours }
            }
            (What::EmptyDirectory, facts) => self.mount_point(&path, facts.as_ref()),
            (What::Placeholder, _) => {
                let kind = Kind::Symlink { target: OMITTED.as_bytes().to_vec() };
                Draft { kind, owner: Owner::root(0o777), xattrs: Xattrs::None, mtime: self.epoch }
            }
        };
        self.put(path, draft, reasons)
    }

    /// Why nothing is at `path`.
    fn missing(&self, path: JailPath) -> DrawError {
        let nearest = path.ancestors().find_map(|above| Some((self.root.facts(&above).ok()??, above)));
        match nearest {
            Some((facts, parent)) if !facts.is_directory() => DrawError::Parent { path, parent },
            _ => DrawError::Missing { path },
        }
    }

    /// What the root has there; `None` for a socket, which only the program that listens can make.
    fn as_is(&mut self, path: &JailPath, facts: &Facts) -> Result<Option<Draft>, DrawError> {
        let kind = match facts.file_type {
            FileType::File => {
                if let Some(link) = self.other_name(facts, "") {
                    return Ok(Some(link));
                }
                self.file(path, facts.size, Source::Root(Some(seen(facts))))
            }
            FileType::Socket => return Ok(None),
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink { target: self.root.read_link(path)? },
            FileType::Fifo => Kind::Fifo,
            FileType::CharDevice | FileType::BlockDevice => device(facts),
        };
        let mtime = self.time_of_own(path, facts);
        Ok(Some(Draft { kind, owner: Owner::of(facts), xattrs: Xattrs::Root, mtime }))
    }

    /// What the run changed, by what the trace kept of it.
    fn as_was(&mut self, path: &JailPath, was: &Was, now: Option<&Facts>) -> Result<Draft, DrawError> {
        let facts = &was.facts;
        let is_there = is_still(now, facts);
        let (kind, xattrs) = match (facts.file_type, &was.target, &was.content) {
            (FileType::File, _, Some(sha256)) => {
                if let Some(link) = self.other_name(facts, sha256) {
                    return Ok(link);
                }
                let stored = self.store.get(sha256).zip(Digest::from_hex(sha256));
                let (stored, digest) =
                    stored.ok_or_else(|| DrawError::Lost { path: path.clone(), sha256: sha256.clone() })?;
                self.sources.insert(path.clone(), Source::Stored(stored.clone()));
                (Kind::File { size: facts.size, sha256: Seal::of(digest) }, Xattrs::root_if(is_there))
            }
            (FileType::File, ..) => {
                if is_there && let Some(link) = self.other_name(facts, "") {
                    return Ok(link);
                }
                (self.file(path, facts.size, Source::Root(Some(seen(facts)))), Xattrs::Root)
            }
            (FileType::Directory, ..) => (Kind::Directory, Xattrs::None),
            (FileType::Symlink, Some(target), _) => (Kind::Symlink { target: target.clone() }, Xattrs::None),
            (FileType::Fifo, ..) => (Kind::Fifo, Xattrs::None),
            (FileType::CharDevice | FileType::BlockDevice, ..) => (device(facts), Xattrs::None),
            (FileType::Symlink | FileType::Socket, ..) => return Err(DrawError::Missing { path: path.clone() }),
        };
        let xattrs = was.xattrs.clone().map_or(xattrs, Xattrs::Were);
        Ok(Draft { kind, owner: Owner::of(facts), xattrs, mtime: self.time_of_own(path, facts) })
    }

    /// A file that was never opened: of its content only the size is the root's.
    fn hollow(&mut self, path: &JailPath, facts: &Facts) -> Draft {
        let zeros = vec![0; usize::try_from(facts.size).unwrap_or(usize::MAX)];
        self.made.insert(path.clone(), Made::File(zeros));
        let kind = self.file(path, facts.size, Source::Zeros);
        Draft { kind, owner: Owner::of(facts), xattrs: Xattrs::Root, mtime: self.time(path, facts) }
    }

    /// A file that nobody has read, with the owner and mode that it had.
    fn sealed(&mut self, path: &JailPath, was: &Facts, now: Option<&Facts>) -> Draft {
        let ours = self.file_of_ours(path, now.filter(|_| is_still(now, was)), Vec::new());
        Draft { owner: Owner::of(was), ..ours }
    }

    /// A content of minjail's own; owner, mode and attributes are those of the file in the root, if there is one.
    fn file_of_ours(&mut self, path: &JailPath, facts: Option<&Facts>, bytes: Vec<u8>) -> Draft {
        let facts = facts.filter(|facts| facts.is_file());
        let kind = self.file(path, bytes.len() as u64, Source::Made(bytes));
        let owner = facts.map_or(Owner::root(0o644), Owner::of);
        Draft { kind, owner, xattrs: Xattrs::root_if(facts.is_some()), mtime: self.epoch }
    }

    fn mount_point(&mut self, path: &JailPath, facts: Option<&Facts>) -> Draft {
        self.made.insert(path.clone(), Made::Directory);
        let is_temporary = matches!(path.as_bytes(), b"/tmp" | b"/var/tmp");
        let usual = Owner::root(if is_temporary { 0o1777 } else { 0o755 });
        let facts = facts.filter(|facts| facts.is_directory());
        let owner = facts.map_or(usual, Owner::of);
        Draft { kind: Kind::Directory, owner, xattrs: Xattrs::root_if(facts.is_some()), mtime: self.epoch }
    }

    /// A file whose content is read later.
    fn file(&mut self, path: &JailPath, size: u64, source: Source) -> Kind {
        self.sources.insert(path.clone(), source);
        Kind::File { size, sha256: Seal::default() }
    }

    /// [`Self::time`] of a file whose content is the root's, or was.
    fn time_of_own(&mut self, path: &JailPath, facts: &Facts) -> i64 {
        if self.times == Times::Packaged && facts.is_file() && !self.keeps_time(path) {
            self.unpackaged.push(self.entries.len());
        }
        self.time(path, facts)
    }

    fn keeps_time(&self, path: &JailPath) -> bool {
        self.origins.package(path).is_some() || self.timed.contains(path)
    }

    /// The time of what is not minjail's own.
    fn time(&self, path: &JailPath, facts: &Facts) -> i64 {
        times::of(self.times, facts, self.epoch, self.keeps_time(path))
    }

    /// A hard link to the first name of a file that has several; `None` if this is the first, whose entry comes next.
    /// The first name says the time.
    ///
    /// `kept` is the digest of what the trace kept of it, and empty for a file that the root has: the number of an inode
    /// that was freed since may belong to another file by now.
    fn other_name(&mut self, facts: &Facts, kept: &str) -> Option<Draft> {
        if facts.nlink < 2 {
            return None;
        }
        let identity = Identity { inode: facts.inode(), owner: Owner::of(facts), kept: kept.to_owned() };
        let Some(&first) = self.inodes.get(&identity) else {
            self.inodes.insert(identity, self.entries.len());
            return None;
        };
        if self.unpackaged.binary_search(&first).is_ok() {
            self.unpackaged.push(self.entries.len());
        }
        let Entry { path, mtime, .. } = &self.entries[first];
        let (kind, mode) = (Kind::HardLink { to: path.clone() }, self.entries[first].mode);
        Some(Draft { kind, owner: Owner { mode, ..Owner::of(facts) }, xattrs: Xattrs::None, mtime: *mtime })
    }

    /// The mode that gives nobody more than an access control list does, which no image has. A list counts where its file still has
    /// that mode: something else may be there by now, or be reached there no more.
    fn mode_without_list(&self, path: &JailPath, kind: &Kind, mode: u32) -> u32 {
        if matches!(kind, Kind::Symlink { .. } | Kind::HardLink { .. }) || mode & 0o070 == 0 {
            return mode;
        }
        let list = self.root.access_list(path).ok().flatten();
        let has_mode = || self.root.facts(path).ok().flatten().is_some_and(|now| now.mode == mode);
        list.filter(|_| has_mode()).map_or(mode, |list| access_list::mode_without(&list, mode))
    }

    fn put(&mut self, path: JailPath, draft: Draft, reasons: Reasons) -> Result<(), DrawError> {
        let Draft { kind, owner: Owner { mode, uid, gid }, xattrs, mtime } = draft;
        let is_ours = kind.is_name_only() || self.made.contains_key(&path);
        let package = self.origins.package(&path).filter(|_| kind != Kind::Directory && !is_ours);
        let package = package.map(ToString::to_string);
        let xattrs = match xattrs {
            Xattrs::None => BTreeMap::new(),
            Xattrs::Root => self.root.xattrs(&path)?,
            Xattrs::Were(xattrs) => xattrs,
        };
        let mode = self.mode_without_list(&path, &kind, mode);
        self.entries.push(Entry { path, kind, mode, uid, gid, mtime, xattrs, package, layer: 0, reasons });
        Ok(())
    }
}

fn seen(facts: &Facts) -> Seen {
    Seen { mtime: facts.mtime, mtime_nsec: facts.mtime_nsec }
}

fn device(facts: &Facts) -> Kind {
    let (major, minor) = (major(facts.rdev), minor(facts.rdev));
    match facts.file_type {
        FileType::CharDevice => Kind::CharDevice { major, minor },
        _ => Kind::BlockDevice { major, minor },
    }
}

/// True if what is there `now` is the file that had the facts `was`, and not another that has its name by now.
fn is_still(now: Option<&Facts>, was: &Facts) -> bool {
    now.is_some_and(|now| now.is_file() && now.inode() == was.inode())
}
