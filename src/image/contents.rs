//! What is in an image: its layers applied one over the other, in memory, with every content hashed as it passes.
//!
//! In: an [`Image`]. Out: the entries that a manifest of it would list. Nothing is written to disk, so owners, devices
//! and attributes are told as the layers say them, whoever asks.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::read::{Image, ImageLayer, ReadError};
use super::stream::{Plain, damaged};
use super::unpack::{metadata, parse};
use crate::layer::untar::{Member, MemberKind, Untar, UntarError};
use crate::manifest::{Entry, Kind, Reasons};
use crate::path::{JailPath, escape};
use crate::tree::{Hasher, Metadata};

/// As many links as the kernel follows on the way of one path (`path_resolution(7)`).
const MAX_LINKS: usize = 40;

pub(super) fn entries(image: &Image) -> Result<Vec<Entry>, ReadError> {
    let mut stack = Stack::default();
    for members in all_members(&image.layers) {
        stack.fresh.clear();
        for hashed in members? {
            stack.apply(hashed)?;
        }
    }
    Ok(stack.entries.into_values().collect())
}

/// A member of a layer, and the SHA-256 of its content if it is a file.
struct Hashed {
    member: Member,
    sha256: Option<String>,
}

/// What each layer has; the layers are read on all cores.
fn all_members(layers: &[ImageLayer]) -> Vec<Result<Vec<Hashed>, ReadError>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut results = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(layer) = layers.get(at) else { return results };
            results.push((at, members(layer)));
        }
    };
    let mut results = std::thread::scope(|scope| {
        // Where there are no threads to be had, those that there are do all; the last of them is this one.
        let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(layers.len());
        let spawn = || std::thread::Builder::new().spawn_scoped(scope, work).ok();
        let workers: Vec<_> = (1..threads).map_while(|_| spawn()).collect();
        let own = work();
        let others = workers.into_iter().flat_map(|worker| worker.join().expect("reading a layer does not panic"));
        own.into_iter().chain(others).collect::<Vec<_>>()
    });
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, members)| members).collect()
}

fn members(layer: &ImageLayer) -> Result<Vec<Hashed>, ReadError> {
    let mut untar = Plain::open(layer)?;
    let mut members = Vec::new();
    while let Some(member) = untar.next_member().map_err(|source| damaged(layer, source))? {
        let is_file = member.kind == MemberKind::File;
        let sha256 = is_file.then(|| hash(&mut untar)).transpose().map_err(|source| damaged(layer, source))?;
        members.push(Hashed { member, sha256 });
    }
    Plain::check(untar, layer)?;
    Ok(members)
}

/// Reads a file's content to its end.
fn hash(content: &mut Untar<Plain>) -> Result<String, UntarError> {
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 1 << 17];
    loop {
        match content.read_some(&mut buffer)? {
            0 => return Ok(hasher.finish().0.hex()),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// What the layers so far amount to.
#[derive(Default)]
struct Stack {
    entries: BTreeMap<JailPath, Entry>,
    /// What the present layer made: its own whiteouts do not concern that.
    fresh: BTreeSet<JailPath>,
}

impl Stack {
    fn apply(&mut self, Hashed { member, sha256 }: Hashed) -> Result<(), ReadError> {
        let refused = |why| ReadError::Refused { name: escape(&member.name), why };
        let spelled = parse(&member.name).map_err(refused)?;
        if let Some(hidden) = spelled.file_name().strip_prefix(b".wh.") {
            let parent = spelled.parent().expect("a path with a name has a parent");
            self.white_out(&self.resolve(&parent).map_err(refused)?, hidden);
            return Ok(());
        }
        let path = self.locate(&spelled).map_err(refused)?;
        let Metadata { mode, uid, gid, mtime, xattrs } = metadata(&member).map_err(refused)?;
        let kind = match &member.kind {
            MemberKind::Directory => Kind::Directory,
            MemberKind::File => Kind::File { size: member.size, sha256: sha256.expect("files are hashed") },
            MemberKind::Symlink(target) => Kind::Symlink { target: target.clone() },
            MemberKind::HardLink(target) => {
                Kind::HardLink { to: self.locate(&parse(target).map_err(refused)?).map_err(refused)? }
            }
            MemberKind::Fifo => Kind::Fifo,
            &MemberKind::CharDevice { major, minor } => Kind::CharDevice { major: major.into(), minor: minor.into() },
            &MemberKind::BlockDevice { major, minor } => Kind::BlockDevice { major: major.into(), minor: minor.into() },
        };
        let both_directories = |there: &Entry| there.kind == Kind::Directory && kind == Kind::Directory;
        if self.entries.get(&path).is_some_and(|there| !both_directories(there)) {
            self.remove(&path);
        }
        self.make_parents(&path);
        let (package, reasons) = (None, Reasons::default());
        let entry = Entry { path: path.clone(), kind, mode, uid, gid, mtime, xattrs, package, layer: 0, reasons };
        self.entries.insert(path.clone(), entry);
        self.fresh.insert(path);
        Ok(())
    }

    /// Directories that no layer has are made, as engines do.
    fn make_parents(&mut self, path: &JailPath) {
        for path in path.ancestors() {
            let directory = Entry {
                path: path.clone(),
                kind: Kind::Directory,
                mode: 0o755,
                uid: 0,
                gid: 0,
                mtime: 0,
                xattrs: BTreeMap::new(),
                package: None,
                layer: 0,
                reasons: Reasons::default(),
            };
            self.entries.entry(path).or_insert(directory);
        }
    }

    /// The place of a name when the links in its directory part are followed.
    fn locate(&self, spelled: &JailPath) -> Result<JailPath, &'static str> {
        match spelled.parent() {
            Some(parent) => Ok(self.resolve(&parent)?.join(spelled.file_name())),
            None => Ok(JailPath::root()),
        }
    }

    fn resolve(&self, directory: &JailPath) -> Result<JailPath, &'static str> {
        let mut todo: Vec<Vec<u8>> = directory.components().rev().map(<[u8]>::to_vec).collect();
        let (mut at, mut links) = (JailPath::root(), 0);
        while let Some(name) = todo.pop() {
            match name.as_slice() {
                b"" | b"." => {}
                b".." => at = at.parent().unwrap_or(at),
                _ => {
                    let next = at.join(&name);
                    let Some(Kind::Symlink { target }) = self.entries.get(&next).map(|entry| &entry.kind) else {
                        at = next;
                        continue;
                    };
                    links += 1;
                    if links > MAX_LINKS {
                        return Err("it is behind too many links");
                    }
                    if target.starts_with(b"/") {
                        at = JailPath::root();
                    }
                    todo.extend(target.split(|&byte| byte == b'/').rev().map(<[u8]>::to_vec));
                }
            }
        }
        Ok(at)
    }

    fn white_out(&mut self, parent: &JailPath, hidden: &[u8]) {
        let hides = |path: &JailPath| match hidden {
            b".wh..opq" => path.starts_with(parent) && path != parent,
            _ if hidden.starts_with(b".wh.") => false,
            _ => path.starts_with(&parent.join(hidden)),
        };
        let fresh = &self.fresh;
        self.entries.retain(|path, _| !hides(path) || fresh.iter().any(|made| made.starts_with(path)));
    }

    fn remove(&mut self, path: &JailPath) {
        self.entries.retain(|other, _| !other.starts_with(path));
        self.fresh.retain(|other| !other.starts_with(path));
    }
}
