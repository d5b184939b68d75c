//! What is in an image: its layers applied one over the other, in memory, with every content hashed as it passes.
//!
//! In: an [`Image`]. Out: the entries that a manifest of it would list. Nothing is written to disk, so owners, devices
//! and attributes are told as the layers say them, whoever asks.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::error::ReadError;
use super::names::{check_target, hidden, parse, refused};
use super::read::{Image, ImageLayer};
use super::reading::Budget;
use super::shape::{Shape, Spot, Standing};
use super::stream::Members;
use super::unpack::metadata;
use crate::layer::untar::{Member, MemberKind};
use crate::manifest::{Digest, Entry, Hasher, Kind, Seal};
use crate::path::JailPath;
use crate::tree::Metadata;

pub(super) fn entries(image: &Image) -> Result<Vec<Entry>, ReadError> {
    let budget = Arc::new(Budget::new(image.limits));
    let mut stack = Stack::new(&budget);
    for (layer, members) in (0..).zip(all_members(&image.layers, &budget)) {
        stack.start_layer(layer);
        for hashed in members? {
            stack.apply(&hashed).map_err(|error| error.of_layer(&image.layers[layer as usize].part))?;
            budget.check()?;
        }
    }
    budget.check()?;
    Ok(stack.into_entries())
}

/// A member of a layer, and the SHA-256 of its content if it is a file.
pub(super) struct Hashed {
    pub(super) member: Member,
    pub(super) sha256: Option<Digest>,
}

/// What each layer has; the layers are read on all cores.
fn all_members(layers: &[ImageLayer], budget: &Arc<Budget>) -> Vec<Result<Vec<Hashed>, ReadError>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut results = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            // What is over the limit need not be read any further: whoever came over it has said so.
            let Some(layer) = layers.get(at).filter(|_| budget.check().is_ok()) else { return results };
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
        all.push(hashed(member, &mut members)?);
    }
    members.finish()?;
    Ok(all)
}

/// The present member, with its content read.
pub(super) fn hashed(member: Member, members: &mut Members<'_>) -> Result<Hashed, ReadError> {
    let sha256 = (member.kind == MemberKind::File).then(|| hash(members)).transpose()?;
    Ok(Hashed { member, sha256 })
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
pub(super) struct Stack {
    shape: Shape<Node>,
    budget: Arc<Budget>,
    /// How many files there were.
    inodes: usize,
    /// The present layer's number.
    layer: u32,
    /// What every entry has for its path until all layers are applied.
    root: JailPath,
}

/// What stands at a path. Names of one file share its number; a hard link becomes one only when all layers are
/// applied, since the name that it was made from may be hidden or replaced by then.
struct Node {
    entry: Entry,
    inode: Option<usize>,
}

impl Standing for Node {
    fn is_directory(&self) -> bool {
        self.entry.kind == Kind::Directory
    }

    fn target(&self) -> Option<&[u8]> {
        if let Kind::Symlink { target } = &self.entry.kind { Some(target) } else { None }
    }
}

/// A directory that no layer describes.
fn directory(path: JailPath, layer: u32) -> Node {
    Node { entry: Entry { layer, ..Entry::new(path, Kind::Directory) }, inode: None }
}

impl Stack {
    pub(super) fn new(budget: &Arc<Budget>) -> Self {
        let root = JailPath::root();
        // No layer need name it, and no image is without it.
        let shape = Shape::new(directory(root.clone(), 0), budget.clone());
        Self { shape, budget: budget.clone(), inodes: 0, layer: 0, root }
    }

    pub(super) fn start_layer(&mut self, number: u32) {
        self.shape.start_layer();
        self.layer = number;
    }

    /// Of several names of a file the first is the file, the others are hard links to it.
    pub(super) fn into_entries(self) -> Vec<Entry> {
        let mut nodes = self.shape.into_values();
        nodes.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let mut firsts: BTreeMap<usize, (JailPath, i64)> = BTreeMap::new();
        let mut entries = Vec::with_capacity(nodes.len());
        for (path, Node { mut entry, inode }) in nodes {
            entry.path = path;
            if let Some(inode) = inode {
                if let Some((first, mtime)) = firsts.get(&inode) {
                    (entry.kind, entry.mtime) = (Kind::HardLink { to: first.clone() }, *mtime);
                    entry.xattrs.clear();
                } else {
                    firsts.insert(inode, (entry.path.clone(), entry.mtime));
                }
            }
            entries.push(entry);
        }
        entries
    }

    /// Applies an entry as minjail writes it into a layer.
    pub(super) fn add(&mut self, entry: &Entry) -> Result<(), ReadError> {
        let refused = |why| refused(entry.path.as_bytes(), why);
        let spot = self.shape.locate(&entry.path).map_err(refused)?;
        if let Kind::HardLink { to } = &entry.kind {
            let node = self.linked(&spot, to.as_bytes()).map_err(refused)?;
            return self.place(&spot, node).map_err(refused);
        }
        let &Entry { mode, uid, gid, mtime, ref xattrs, .. } = entry;
        let node = self.node(entry.kind.clone(), Metadata { mode, uid, gid, mtime, xattrs: xattrs.clone() });
        self.place(&spot, node).map_err(refused)
    }

    pub(super) fn apply(&mut self, Hashed { member, sha256 }: &Hashed) -> Result<(), ReadError> {
        let refused = |why| refused(&member.name, why);
        let spelled = parse(&member.name).map_err(refused)?;
        if let Some(hidden) = hidden(&spelled).map_err(refused)? {
            return self.shape.white_out(&spelled, hidden, refused, |_| Ok(()));
        }
        let spot = self.shape.locate(&spelled).map_err(refused)?;
        let mut metadata = metadata(member).map_err(refused)?;
        let kind = match &member.kind {
            MemberKind::Directory => Kind::Directory,
            MemberKind::File => Kind::File { size: member.size, sha256: Seal::of(sha256.expect("files are hashed")) },
            MemberKind::Symlink(target) => {
                check_target(target).map_err(refused)?;
                // A symbolic link has no other (symlink(7)), whatever the layer says.
                metadata.mode = 0o777;
                Kind::Symlink { target: target.clone() }
            }
            MemberKind::HardLink(target) => {
                let node = self.linked(&spot, target).map_err(refused)?;
                return self.place(&spot, node).map_err(refused);
            }
            MemberKind::Fifo => Kind::Fifo,
            &MemberKind::CharDevice { major, minor } => Kind::CharDevice { major: major.into(), minor: minor.into() },
            &MemberKind::BlockDevice { major, minor } => Kind::BlockDevice { major: major.into(), minor: minor.into() },
        };
        let node = self.node(kind, metadata);
        self.place(&spot, node).map_err(refused)
    }

    /// A node that is not another name of what is there already.
    fn node(&mut self, kind: Kind, metadata: Metadata) -> Node {
        let inode = matches!(kind, Kind::File { .. }).then(|| {
            self.inodes += 1;
            self.inodes
        });
        let Metadata { mode, uid, gid, mtime, xattrs } = metadata;
        let new = Entry::new(self.root.clone(), kind);
        Node { entry: Entry { mode, uid, gid, mtime, xattrs, layer: self.layer, ..new }, inode }
    }

    /// Another name for what `target` names, which must be there and no directory.
    fn linked(&self, spot: &Spot, target: &[u8]) -> Result<Node, &'static str> {
        let (_, Node { entry, inode }) = self.shape.link_target(spot, target)?;
        // A few bytes in a layer, and all that is known of the file is remembered once more.
        self.budget.take_attributes(&entry.xattrs);
        Ok(Node { entry: entry.clone(), inode: *inode })
    }

    /// Puts a node at a place, instead of what is there; a directory keeps what is in it.
    fn place(&mut self, spot: &Spot, mut node: Node) -> Result<(), &'static str> {
        if let Some(there) = self.shape.get(spot).filter(|there| there.is_directory() && node.is_directory()) {
            // A layer repeats the directories that it puts something in: one that stays as it was is from below.
            let present = std::mem::replace(&mut node.entry.layer, there.entry.layer);
            if node.entry != there.entry {
                node.entry.layer = present;
            }
        }
        let (root, layer) = (&self.root, self.layer);
        self.shape.put(spot, node, || directory(root.clone(), layer))
    }
}
