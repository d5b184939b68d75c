//! Layers that pass from one image into another as they are, byte for byte, so that both share them.
//!
//! In: an image, and the manifest of what is made of it, whose layers are numbered. Out: which of these are layers of the
//! image ([`Image::keep_layers`]). One is if every member is an entry of the manifest, and says of it what that says; if no
//! reader takes anything in it another way; and if all layers, those that are kept and those that are written, amount to the
//! manifest. Whatever is in doubt is written anew. See `docs/format.md`, "Layers that are kept".

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::sync::Arc;

use super::contents::{Hashed, Stack, hashed};
use super::error::ReadError;
use super::names::{hidden, parse};
use super::read::{Image, ImageLayer};
use super::reading::Budget;
use super::stream::{self, Members};
use super::unpack::metadata;
use crate::layer::untar::{Member, MemberKind};
use crate::layer::{Compression, Layer};
use crate::manifest::{Digest, Entry, Hasher, Kind, Manifest, Original, Times};
use crate::path::JailPath;
use crate::root::is_carried;
use crate::tree::Metadata;

/// Layers that are taken as they are, by their numbers.
pub type KeptLayers = BTreeMap<u32, KeptLayer>;

/// A layer that is taken as it is.
#[derive(Debug, Clone)]
pub struct KeptLayer {
    layer: ImageLayer,
    diff_id: Digest,
    /// Of the tar stream.
    pub(super) size: u64,
    /// As it lies there, where an OCI image can have it so.
    pub(super) blob: Option<Layer>,
}

impl Image {
    /// Which layers of `manifest` are layers of this image, as they are: the manifest then lists them. `from` says for each number of
    /// a layer of which layer of the image it is what is left, if of any.
    ///
    /// The contents of the manifest need not be sealed; those in layers that are kept are, afterwards.
    ///
    /// # Errors
    /// A layer cannot be read.
    pub fn keep_layers(&self, manifest: &mut Manifest, from: &[Option<usize>]) -> Result<KeptLayers, ReadError> {
        manifest.originals.clear();
        let budget = Arc::new(Budget::new(self.limits));
        let whole = self.whole_layers(manifest, from, &budget)?;
        if whole.is_empty() || !are_sealed(manifest, &whole) {
            return Ok(KeptLayers::new());
        }
        let Some(times) = amounts_to(manifest, &whole, &Arc::new(Budget::new(self.limits))) else {
            return Ok(KeptLayers::new());
        };
        for (entry, mtime) in manifest.entries.iter_mut().zip(times) {
            entry.mtime = mtime;
        }
        let mut kept = KeptLayers::new();
        for (number, whole) in whole {
            let layer = KeptLayer::new(whole.layer, whole.size)?;
            manifest.originals.push(layer.original(number));
            kept.insert(number, layer);
        }
        Ok(kept)
    }

    /// All layers, as they are; `None` of a bare layer, of which nobody has said which stream it is.
    ///
    /// # Errors
    /// A layer cannot be read.
    pub fn all_layers(&self) -> Result<Option<KeptLayers>, ReadError> {
        if self.config.is_none() {
            return Ok(None);
        }
        let budget = Arc::new(Budget::new(self.limits));
        let mut all = KeptLayers::new();
        for (number, layer) in (0..).zip(&self.layers) {
            let mut members = Members::open(layer, &budget)?;
            while members.next()?.is_some() {}
            let (size, _) = members.finish()?;
            all.insert(number, KeptLayer::new(layer, size)?);
        }
        Ok(Some(all))
    }

    /// The layers of which the manifest has every member, each for itself.
    fn whole_layers(
        &self,
        manifest: &Manifest,
        from: &[Option<usize>],
        budget: &Arc<Budget>,
    ) -> Result<BTreeMap<u32, Whole<'_>>, ReadError> {
        let entries: BTreeMap<&JailPath, &Entry> = manifest.entries.iter().map(|entry| (&entry.path, entry)).collect();
        let mut whole = BTreeMap::new();
        let mut above = BTreeSet::new();
        // From the uppermost down: of a directory that several layers have, what the uppermost says counts.
        for (index, from) in from.iter().enumerate().rev() {
            let number = u32::try_from(index).expect("layers are few");
            let original = from.and_then(|at| self.layers.get(at)).filter(|layer| layer.diff_id.is_some());
            let wanted = Wanted { entries: &entries, number, above: &above, times: manifest.packing.mtime };
            let found = original.map(|layer| wanted.read(layer, budget)).transpose()?.flatten();
            let own = manifest.entries.iter().filter(|entry| entry.layer == number);
            let directories: Vec<JailPath> = match &found {
                Some(found) => found.members.iter().map(|(path, _)| path.clone()).collect(),
                None => own.flat_map(|entry| entry.path.upwards()).collect(),
            };
            above.extend(directories);
            whole.extend(found.map(|found| (number, found)));
        }
        Ok(whole)
    }
}

/// A layer of which the manifest has every member.
struct Whole<'a> {
    layer: &'a ImageLayer,
    /// In their order; whiteouts are elsewhere.
    members: Vec<(JailPath, Hashed)>,
    whiteouts: Vec<Hashed>,
    /// Of the tar stream.
    size: u64,
}

/// What a layer has, as far as it was read.
#[derive(Default)]
struct Found {
    members: Vec<(JailPath, Hashed)>,
    whiteouts: Vec<Hashed>,
    /// Where each path is among the members.
    named: BTreeMap<JailPath, usize>,
    /// The directory of each whiteout, and what is hidden there if it is one name.
    hides: Vec<(JailPath, Option<JailPath>)>,
}

/// What a name in a layer stands for.
enum Named {
    Member,
    Whiteout(Option<JailPath>),
    /// Readers do not agree.
    Odd,
}

/// What a layer must have to be kept.
struct Wanted<'a> {
    entries: &'a BTreeMap<&'a JailPath, &'a Entry>,
    number: u32,
    /// Paths that layers above have.
    above: &'a BTreeSet<JailPath>,
    times: Times,
}

fn named(path: &JailPath, directory: &JailPath) -> Named {
    // Some readers pass over all that is below such a name.
    if directory.components().any(|name| name.starts_with(b".wh.")) {
        return Named::Odd;
    }
    match hidden(path) {
        Ok(None) => Named::Member,
        Ok(Some(b".wh..opq")) => Named::Whiteout(None),
        Ok(Some(name)) if !name.starts_with(b".wh.") => Named::Whiteout(Some(directory.join(name))),
        _ => Named::Odd,
    }
}

impl Found {
    fn is_named(&self, path: &JailPath) -> bool {
        path.is_root() || self.named.contains_key(path)
    }

    /// True if engines that unpack each layer by itself, and in whatever order, make the same of it.
    fn stands_alone(&self) -> bool {
        // A directory that the layer does not name itself gets another owner and mode from them.
        let are_in_place = self.named.keys().all(|path| path.ancestors().all(|above| self.is_named(&above)));
        // Which of the two comes first, the whiteout or what has its name, matters to some.
        let hides_below = |(directory, hidden): &(JailPath, Option<JailPath>)| {
            self.is_named(directory) && hidden.as_ref().is_none_or(|hidden| !self.named.contains_key(hidden))
        };
        are_in_place && self.hides.iter().all(hides_below)
    }
}

impl Wanted<'_> {
    /// Reads a layer until something is in it that is not wanted so.
    fn read<'l>(&self, layer: &'l ImageLayer, budget: &Arc<Budget>) -> Result<Option<Whole<'l>>, ReadError> {
        let mut reading = Members::open(layer, budget)?;
        let mut found = Found::default();
        while let Some(member) = reading.next()? {
            let Ok(path) = parse(&member.name) else { return Ok(None) };
            let directory = path.parent().unwrap_or_else(JailPath::root);
            match named(&path, &directory) {
                Named::Odd => return Ok(None),
                Named::Whiteout(hidden) => {
                    found.hides.push((directory, hidden));
                    found.whiteouts.push(Hashed { member, sha256: None });
                    continue;
                }
                Named::Member if found.named.contains_key(&path) || !self.is_so(&path, &member, &found) => {
                    return Ok(None);
                }
                Named::Member => {}
            }
            let hashed = hashed(member, &mut reading)?;
            if !self.has_content(&path, hashed.sha256) {
                return Ok(None);
            }
            found.named.insert(path.clone(), found.members.len());
            found.members.push((path, hashed));
        }
        let (size, is_plain) = reading.finish()?;
        let mut own = self.entries.values().filter(|entry| entry.layer == self.number);
        let is_kept = is_plain && found.stands_alone() && own.all(|entry| found.is_named(&entry.path));
        let Found { members, whiteouts, .. } = found;
        Ok(is_kept.then_some(Whole { layer, members, whiteouts, size }))
    }

    /// The file that a name is of.
    fn file(&self, path: &JailPath) -> Option<&Entry> {
        match self.entries.get(path)? {
            Entry { kind: Kind::HardLink { to }, .. } => self.entries.get(to).copied(),
            entry => Some(entry),
        }
    }

    /// True if the manifest says of this path what the member does, but for the content. `found`: what stands before it.
    fn is_so(&self, path: &JailPath, member: &Member, found: &Found) -> bool {
        let (Some(entry), Some(file), Ok(said)) = (self.entries.get(path), self.file(path), metadata(member)) else {
            return false;
        };
        if !member.xattrs.keys().all(|name| is_carried(name)) {
            return false;
        }
        if member.kind == MemberKind::Directory {
            let times = self.times != Times::Files;
            return entry.kind == Kind::Directory && (self.above.contains(path) || is_said(&said, entry, times));
        }
        // Some engines heed what a hard link's own header says, and a header need not repeat the attributes.
        let said = match &member.kind {
            MemberKind::HardLink(_) if said.xattrs.is_empty() => Metadata { xattrs: file.xattrs.clone(), ..said },
            MemberKind::Symlink(_) => Metadata { mode: file.mode, ..said },
            _ => said,
        };
        entry.layer == self.number && self.is_alike(member, file, found) && is_said(&said, file, true)
    }

    /// True if a member that is no directory is of the kind of `file`, and what it leads to is the same.
    fn is_alike(&self, member: &Member, file: &Entry, found: &Found) -> bool {
        match (&member.kind, &file.kind) {
            (MemberKind::File, Kind::File { size, .. }) => *size == member.size,
            (MemberKind::Symlink(text), Kind::Symlink { target }) => text == target,
            (MemberKind::HardLink(target), Kind::File { .. }) => {
                let to = parse(target).ok().and_then(|to| found.named.get(&to)).map(|&at| &found.members[at]);
                to.is_some_and(|(to, Hashed { member, .. })| {
                    member.kind == MemberKind::File && self.file(to).is_some_and(|to| to.path == file.path)
                })
            }
            (MemberKind::Fifo, Kind::Fifo) => true,
            (MemberKind::CharDevice { major, minor }, Kind::CharDevice { major: a, minor: b })
            | (MemberKind::BlockDevice { major, minor }, Kind::BlockDevice { major: a, minor: b }) => {
                (u64::from(*major), u64::from(*minor)) == (*a, *b)
            }
            _ => false,
        }
    }

    /// True if the content of the file at `path` is this, as far as anybody knows it.
    fn has_content(&self, path: &JailPath, sha256: Option<Digest>) -> bool {
        match (self.file(path).map(|file| &file.kind), sha256) {
            (Some(Kind::File { sha256: seal, .. }), Some(found)) => seal.get().is_none_or(|sealed| sealed == found),
            _ => true,
        }
    }
}

fn is_said(said: &Metadata, entry: &Entry, times: bool) -> bool {
    let is_timed = !times || said.mtime == entry.mtime;
    is_timed && (said.mode, said.uid, said.gid, &said.xattrs) == (entry.mode, entry.uid, entry.gid, &entry.xattrs)
}

/// Seals the contents of all files in these layers; false if one is known to be another.
fn are_sealed(manifest: &Manifest, whole: &BTreeMap<u32, Whole<'_>>) -> bool {
    let entries: BTreeMap<&JailPath, &Entry> = manifest.entries.iter().map(|entry| (&entry.path, entry)).collect();
    let seal = |path: &JailPath, found: Digest| {
        let file = match entries.get(path).map(|entry| &entry.kind) {
            Some(Kind::HardLink { to }) => entries.get(to).map(|entry| &entry.kind),
            kind => kind,
        };
        matches!(file, Some(Kind::File { sha256, .. }) if sha256.set(found).is_ok())
    };
    let mut members = whole.values().flat_map(|whole| &whole.members);
    members.all(|(path, hashed)| hashed.sha256.is_none_or(|found| seal(path, found)))
}

/// The time of each entry if all layers together, with these as they are and the others as they are written, amount to the
/// manifest. Under [`Times::Files`] the time of a directory is whatever they say.
fn amounts_to(manifest: &Manifest, whole: &BTreeMap<u32, Whole<'_>>, budget: &Arc<Budget>) -> Option<Vec<i64>> {
    let mut stack = Stack::new(budget);
    for (number, entries) in (0..).zip(manifest.layers()) {
        stack.start_layer(number);
        match whole.get(&number) {
            Some(whole) => {
                let members = whole.members.iter().map(|(_, hashed)| hashed);
                members.chain(&whole.whiteouts).try_for_each(|hashed| stack.apply(hashed)).ok()?;
            }
            None => entries.iter().try_for_each(|entry| stack.add(entry)).ok()?,
        }
    }
    let found = stack.into_entries();
    let times = manifest.packing.mtime;
    let is_same = |(found, entry): (&Entry, &Entry)| {
        let is_free = times == Times::Files && entry.kind == Kind::Directory;
        let is_link = matches!(entry.kind, Kind::HardLink { .. });
        let metadata = |entry: &Entry| (entry.mode, entry.uid, entry.gid, entry.xattrs.clone());
        let is_timed = is_free || found.mtime == entry.mtime;
        found.path == entry.path
            && found.kind == entry.kind
            && (is_link || is_timed && metadata(found) == metadata(entry))
    };
    let are_same = found.len() == manifest.entries.len() && found.iter().zip(&manifest.entries).all(is_same);
    let time = |(found, entry): (&Entry, &Entry)| if entry.kind == Kind::Directory { found.mtime } else { entry.mtime };
    are_same.then(|| found.iter().zip(&manifest.entries).map(time).collect())
}

impl KeptLayer {
    fn new(layer: &ImageLayer, size: u64) -> Result<Self, ReadError> {
        let diff_id = layer.diff_id.expect("only a layer of which the configuration speaks is kept");
        let compression = stream::compression(layer)?;
        let media_type = compression.media_type();
        // docker's name for the same (OCI image specification, `media-types.md`, "Compatibility Matrix"). A layer by another
        // name, one that is encrypted or must not be passed on, is not taken for one.
        let docker = media_type.replace("vnd.oci.image.layer.v1", "vnd.docker.image.rootfs.diff");
        let docker = docker.replace("+gzip", ".gzip").replace("+zstd", ".zstd");
        let is_known = |said: &String| *said == media_type || *said == docker;
        let digest = match (&layer.media_type, layer.digest) {
            (Some(said), Some(digest)) => is_known(said).then_some(digest),
            // docker's archives name no blobs, and have most of them as nobody sends them.
            _ if compression == Compression::None => None,
            _ => Some(layer.part.digest()?),
        };
        let blob = digest.map(|digest| Layer { diff_id, digest, size: layer.size, media_type });
        Ok(Self { layer: layer.clone(), diff_id, size, blob })
    }

    /// Takes the stream alone, to be compressed as the other layers are.
    pub fn forget_blob(&mut self) {
        self.blob = None;
    }

    /// What a lock says of it.
    pub fn original(&self, layer: u32) -> Original {
        Original { layer, diff_id: self.diff_id, blob: self.blob.as_ref().map(|blob| blob.digest) }
    }

    /// The tar stream.
    pub(super) fn stream(&self) -> Result<Box<dyn Read + Send>, ReadError> {
        stream::decompressed(&self.layer)
    }

    /// Refuses a stream that is not the one that was meant.
    pub(super) fn check(&self, found: Digest) -> Result<(), ReadError> {
        self.same(self.diff_id, found)
    }

    /// Copies the blob as it lies there.
    pub(super) fn copy(&self, blob: &Layer, to: &mut impl Write) -> Result<(), CopyError> {
        let mut from = self.layer.part.reader();
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; 1 << 18];
        loop {
            match from.read(&mut buffer).map_err(|source| CopyError::Read(self.layer.part.failed(source)))? {
                0 => return self.same(blob.digest, hasher.finish().0).map_err(CopyError::Read),
                count => {
                    hasher.update(&buffer[..count]);
                    to.write_all(&buffer[..count]).map_err(CopyError::Write)?;
                }
            }
        }
    }

    fn same(&self, expected: Digest, found: Digest) -> Result<(), ReadError> {
        if expected == found {
            return Ok(());
        }
        Err(ReadError::WrongDigest { name: self.layer.part.name.clone(), expected, found })
    }
}

/// A blob could not be copied.
pub(super) enum CopyError {
    Read(ReadError),
    Write(io::Error),
}
