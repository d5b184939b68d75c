//! What is in an image: its layers applied one over the other, in memory, with every content hashed as it passes.
//!
//! In: an [`Image`]. Out: the entries that a manifest of it would list. Nothing is written to disk, so owners, devices
//! and attributes are told as the layers say them, whoever asks.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::read::{Image, ImageLayer, ReadError};
use super::reading::Budget;
use super::stream::Members;
use super::unpack::{has, metadata, parse};
use crate::layer::untar::{Member, MemberKind};
use crate::manifest::{Digest, Entry, Hasher, Kind, Reasons, Seal};
use crate::path::{JailPath, escape};
use crate::tree::Metadata;

/// As many links as the kernel follows on the way of one path (`path_resolution(7)`).
const MAX_LINKS: usize = 40;

pub(super) fn entries(image: &Image) -> Result<Vec<Entry>, ReadError> {
    let mut stack = Stack::default();
    // No layer need name it, and no image is without it.
    stack.place(JailPath::root(), directory(JailPath::root(), 0)).expect("nothing is there yet");
    let budget = Arc::new(Budget::new(image.limits));
    for (layer, members) in (0..).zip(all_members(&image.layers, &budget)) {
        stack.fresh.clear();
        stack.layer = layer;
        for hashed in members? {
            stack.apply(hashed)?;
        }
    }
    Ok(stack.into_entries())
}

/// A member of a layer, and the SHA-256 of its content if it is a file.
struct Hashed {
    member: Member,
    sha256: Option<Digest>,
}

/// What each layer has; the layers are read on all cores.
fn all_members(layers: &[ImageLayer], budget: &Arc<Budget>) -> Vec<Result<Vec<Hashed>, ReadError>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut results = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(layer) = layers.get(at) else { return results };
            results.push((at, members(layer, budget)));
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

fn members(layer: &ImageLayer, budget: &Arc<Budget>) -> Result<Vec<Hashed>, ReadError> {
    let mut members = Members::open(layer, budget)?;
    let mut all = Vec::new();
    while let Some(member) = members.next()? {
        let is_file = member.kind == MemberKind::File;
        let sha256 = is_file.then(|| hash(&mut members)).transpose()?;
        all.push(Hashed { member, sha256 });
    }
    members.finish()?;
    Ok(all)
}

/// Reads a file's content to its end.
fn hash(members: &mut Members<'_>) -> Result<Digest, ReadError> {
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 1 << 17];
    loop {
        match members.read_some(&mut buffer)? {
            0 => return Ok(hasher.finish().0),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// What the layers so far amount to.
#[derive(Default)]
struct Stack {
    nodes: BTreeMap<JailPath, Node>,
    /// How many files there were.
    inodes: usize,
    /// The present layer's number.
    layer: u32,
    /// What the present layer made: its own whiteouts do not concern that.
    fresh: BTreeSet<JailPath>,
}

/// What stands at a path. Names of one file share its number; a hard link becomes one only when all layers are
/// applied, since the name that it was made from may be hidden or replaced by then.
#[derive(Clone)]
struct Node {
    entry: Entry,
    inode: Option<usize>,
}

/// A directory that no layer describes.
fn directory(path: JailPath, layer: u32) -> Node {
    let (kind, mode, xattrs) = (Kind::Directory, 0o755, BTreeMap::new());
    let reasons = Reasons::default();
    let entry = Entry { path, kind, mode, uid: 0, gid: 0, mtime: 0, xattrs, package: None, layer, reasons };
    Node { entry, inode: None }
}

impl Stack {
    /// Of several names of a file the first is the file, the others are hard links to it.
    fn into_entries(self) -> Vec<Entry> {
        let mut firsts: BTreeMap<usize, (JailPath, i64)> = BTreeMap::new();
        let mut entries = Vec::with_capacity(self.nodes.len());
        for (path, Node { mut entry, inode }) in self.nodes {
            if let Some(inode) = inode {
                if let Some((first, mtime)) = firsts.get(&inode) {
                    (entry.kind, entry.mtime) = (Kind::HardLink { to: first.clone() }, *mtime);
                    entry.xattrs.clear();
                } else {
                    firsts.insert(inode, (path, entry.mtime));
                }
            }
            entries.push(entry);
        }
        entries
    }

    fn apply(&mut self, Hashed { member, sha256 }: Hashed) -> Result<(), ReadError> {
        let refused = |why| ReadError::Refused { name: escape(&member.name), why };
        let spelled = parse(&member.name).map_err(refused)?;
        if let Some(hidden) = spelled.file_name().strip_prefix(b".wh.") {
            if matches!(hidden, b"" | b"." | b"..") {
                return Err(refused("it hides no name"));
            }
            let parent = spelled.parent().expect("a path with a name has a parent");
            self.white_out(&self.resolve(&parent).map_err(refused)?, hidden);
            return Ok(());
        }
        let path = self.locate(&spelled).map_err(refused)?;
        let Metadata { mode, uid, gid, mtime, xattrs } = metadata(&member).map_err(refused)?;
        let kind = match &member.kind {
            MemberKind::Directory => Kind::Directory,
            MemberKind::File => Kind::File { size: member.size, sha256: Seal::of(sha256.expect("files are hashed")) },
            MemberKind::Symlink(target) if target.is_empty() || target.contains(&0) => {
                return Err(refused("it is a link to nothing"));
            }
            MemberKind::Symlink(target) => Kind::Symlink { target: target.clone() },
            MemberKind::HardLink(target) => {
                let node = self.linked(&path, target).map_err(refused)?;
                return self.place(path, node).map_err(refused);
            }
            MemberKind::Fifo => Kind::Fifo,
            &MemberKind::CharDevice { major, minor } => Kind::CharDevice { major: major.into(), minor: minor.into() },
            &MemberKind::BlockDevice { major, minor } => Kind::BlockDevice { major: major.into(), minor: minor.into() },
        };
        // A symbolic link has no other (symlink(7)), whatever the layer says.
        let mode = if matches!(kind, Kind::Symlink { .. }) { 0o777 } else { mode };
        let (package, reasons) = (None, Reasons::default());
        let inode = (member.kind == MemberKind::File).then(|| {
            self.inodes += 1;
            self.inodes
        });
        let entry =
            Entry { path: path.clone(), kind, mode, uid, gid, mtime, xattrs, package, layer: self.layer, reasons };
        self.place(path, Node { entry, inode }).map_err(refused)
    }

    /// Another name for what `target` names, which must be there and no directory.
    fn linked(&self, path: &JailPath, target: &[u8]) -> Result<Node, &'static str> {
        let to = self.locate(&parse(target)?)?;
        if to == *path {
            return Err("it is a hard link to itself");
        }
        let Some(Node { entry, inode }) = self.nodes.get(&to) else {
            return Err("it is a hard link to what is not there");
        };
        if entry.kind == Kind::Directory {
            return Err("it is a hard link to a directory");
        }
        Ok(Node { entry: Entry { path: path.clone(), ..entry.clone() }, inode: *inode })
    }

    /// Puts a node at a path, in place of what is there; a directory keeps what is in it.
    fn place(&mut self, path: JailPath, mut node: Node) -> Result<(), &'static str> {
        if let Some(there) = self.nodes.get(&path) {
            // A layer repeats the directories that it puts something in: one that stays as it was is from below.
            if (Entry { layer: node.entry.layer, ..there.entry.clone() }) == node.entry
                && node.entry.kind == Kind::Directory
            {
                node.entry.layer = there.entry.layer;
            }
            let are_directories = there.entry.kind == Kind::Directory && node.entry.kind == Kind::Directory;
            if path.is_root() && !are_directories {
                return Err("it would replace the root directory");
            }
            if !are_directories {
                self.remove(&path);
            }
        } else if path.is_root() && node.entry.kind != Kind::Directory {
            return Err("it would replace the root directory");
        }
        self.make_parents(&path)?;
        self.nodes.insert(path.clone(), node);
        self.fresh.insert(path);
        Ok(())
    }

    /// Directories that no layer has are made, as engines do.
    fn make_parents(&mut self, path: &JailPath) -> Result<(), &'static str> {
        for path in path.ancestors() {
            match self.nodes.get(&path) {
                Some(node) if node.entry.kind == Kind::Directory => return Ok(()),
                Some(_) => return Err("it is below something that is no directory"),
                None => {}
            }
            self.fresh.insert(path.clone());
            self.nodes.insert(path.clone(), directory(path, self.layer));
        }
        Ok(())
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
                    let Some(Kind::Symlink { target }) = self.nodes.get(&next).map(|node| &node.entry.kind) else {
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
        let (top, itself) = match hidden {
            b".wh..opq" => (parent.clone(), false),
            _ if hidden.starts_with(b".wh.") => return,
            _ => (parent.join(hidden), true),
        };
        let hidden = self.below(&top).into_iter().chain(itself.then_some(top));
        for path in hidden.filter(|path| !has(&self.fresh, path)).collect::<Vec<_>>() {
            self.nodes.remove(&path);
        }
    }

    fn remove(&mut self, path: &JailPath) {
        for path in self.below(path).into_iter().chain([path.clone()]) {
            self.nodes.remove(&path);
            self.fresh.remove(&path);
        }
    }

    /// What is below a path: that sorts from `path/\x01` on.
    fn below(&self, path: &JailPath) -> Vec<JailPath> {
        let from = self.nodes.range(path.join(&[1])..).map(|(other, _)| other);
        from.take_while(|other| other.starts_with(path)).cloned().collect()
    }
}
