//! Which layer of the image each entry is in.
//!
//! In: a [`Manifest`], and a key of each entry. Out: the same manifest, its entries numbered; and from the numbers the
//! entries of each layer. An assignment is nothing but a key: entries of equal keys share a layer, and a layer of a
//! lesser key lies below. The numbers stand in the manifest, so that no one needs the keys again.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::model::{Entry, Kind, Manifest};
use super::packing::Times;
use crate::path::JailPath;

/// A package of which the image has less than this shares a layer with others: a layer has its price too, and engines
/// take no more than about a hundred of them.
const LARGE_PACKAGE: u64 = 1 << 20;

/// How many packages get a layer of their own at most.
const MOST_PACKAGES: usize = 100;

/// How many layers an image has at most: as many as docker makes (its `layer.MaxLayerDepth` is 125) and some more that
/// others make.
pub const MOST_LAYERS: u32 = 127;

/// Into which layers the entries go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layers {
    /// All into one.
    #[default]
    One,
    /// Each large package of the distribution into its own, the small ones into one, what is of no package on top: see
    /// [`Manifest::layer_by_packages`].
    Packages,
    /// As they were in the image that the entries come from.
    Keep,
}

/// A text names no layers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no way to make layers: give `one`, `packages` or `keep`")]
pub struct UnknownLayers(String);

impl FromStr for Layers {
    type Err = UnknownLayers;

    fn from_str(text: &str) -> Result<Self, UnknownLayers> {
        match text {
            "one" => Ok(Self::One),
            "packages" => Ok(Self::Packages),
            "keep" => Ok(Self::Keep),
            _ => Err(UnknownLayers(text.to_owned())),
        }
    }
}

impl fmt::Display for Layers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::One => "one",
            Self::Packages => "packages",
            Self::Keep => "keep",
        })
    }
}

/// The layer of an entry under [`Layers::Packages`], the lowest first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Share {
    Package(String),
    SmallPackages,
    Rest,
}

impl Manifest {
    /// Puts each entry into the layer of its key; the layers lie in the order of the keys.
    ///
    /// A hard link is always in the layer of the file that it is another name of: not every engine finds a link's target
    /// in a lower layer. A directory that holds something is in the lowest layer that has any of it, and is repeated in
    /// the others.
    ///
    /// The keys of the layers, the lowest first.
    pub fn assign_layers<K: Ord + Clone>(&mut self, key: impl Fn(&Entry) -> K) -> Vec<K> {
        let mut keys: BTreeMap<JailPath, K> = BTreeMap::new();
        for entry in &self.entries {
            let own = match &entry.kind {
                Kind::HardLink { to } => keys.get(to).cloned(),
                _ => None,
            };
            keys.insert(entry.path.clone(), own.unwrap_or_else(|| key(entry)));
        }
        // From the last to the first, so that a directory comes after all that it holds.
        let mut lowest: BTreeMap<JailPath, K> = BTreeMap::new();
        for entry in self.entries.iter().rev() {
            let held = lowest.remove(&entry.path).filter(|_| entry.kind == Kind::Directory);
            if let Some(held) = held {
                keys.insert(entry.path.clone(), held);
            }
            let (Some(parent), Some(own)) = (entry.path.parent(), keys.get(&entry.path)) else { continue };
            match lowest.get_mut(&parent) {
                Some(known) if *known <= *own => {}
                Some(known) => known.clone_from(own),
                None => drop(lowest.insert(parent, own.clone())),
            }
        }
        let layers: BTreeSet<&K> = keys.values().collect();
        let numbers: BTreeMap<&K, u32> = layers.iter().copied().zip(0..).collect();
        for entry in &mut self.entries {
            entry.layer = numbers[&keys[&entry.path]];
        }
        layers.into_iter().cloned().collect()
    }

    /// Puts each package of the distribution of which the image has a mebibyte or more into a layer of its own, in the
    /// order of their names and versions; the packages of which it has less into one above them; and on top of all what
    /// is of no package. If more than a hundred are large, the first hundred count.
    ///
    /// What a layer holds depends on one package alone, so that two images which take the same of a package share the
    /// layer, whatever else is in them.
    pub fn layer_by_packages(&mut self) {
        let mut sizes: BTreeMap<String, u64> = BTreeMap::new();
        for entry in &self.entries {
            if let (Some(package), &Kind::File { size, .. }) = (&entry.package, &entry.kind) {
                *sizes.entry(package.clone()).or_default() += size;
            }
        }
        let large: BTreeSet<String> =
            sizes.into_iter().filter(|(_, size)| *size >= LARGE_PACKAGE).map(|(package, _)| package).collect();
        let large: BTreeSet<String> = large.into_iter().take(MOST_PACKAGES).collect();
        let shares: BTreeMap<JailPath, Share> = self
            .entries
            .iter()
            .map(|entry| {
                let share = match &entry.package {
                    None => Share::Rest,
                    Some(package) if large.contains(package) => Share::Package(package.clone()),
                    Some(_) => Share::SmallPackages,
                };
                (entry.path.clone(), share)
            })
            .collect();
        self.assign_layers(|entry| &shares[&entry.path]);
    }

    /// Puts each entry into the layer that it has in `other`, and what that has not on top.
    pub fn layer_as(&mut self, other: &Self) {
        let numbers: BTreeMap<&JailPath, u32> = other.entries.iter().map(|entry| (&entry.path, entry.layer)).collect();
        self.assign_layers(|entry| numbers.get(&entry.path).copied().unwrap_or(u32::MAX));
    }

    /// Has all layers made of the entries.
    pub fn forget_originals(&mut self) {
        self.originals.clear();
        let epoch = self.epoch;
        let is_dated = |entry: &&mut Entry| entry.kind == Kind::Directory;
        if self.packing.mtime == Times::Files {
            self.entries.iter_mut().filter(is_dated).for_each(|entry| entry.mtime = epoch);
        }
    }

    /// Gives each directory the time that it has in `other`.
    pub fn date_directories_as(&mut self, other: &Self) {
        let times: BTreeMap<&JailPath, i64> = other.entries.iter().map(|entry| (&entry.path, entry.mtime)).collect();
        for entry in self.entries.iter_mut().filter(|entry| entry.kind == Kind::Directory) {
            entry.mtime = times.get(&entry.path).copied().unwrap_or(entry.mtime);
        }
    }

    /// The entries of each layer, the lowest first, in the manifest's order: those that are numbered so, and all
    /// directories that they are in.
    ///
    /// Under [`Times::Files`] a directory has the epoch here, whichever time it has in the end by a layer that is not made of
    /// the entries: what a layer says does not depend on those above it.
    pub fn layers(&self) -> Vec<Vec<Cow<'_, Entry>>> {
        let count = self.entries.iter().map(|entry| entry.layer).max().map_or(0, |last| last + 1);
        let stated = |entry| match self.packing.mtime {
            Times::Files => dated(entry, self.epoch),
            _ => Cow::Borrowed(entry),
        };
        if count == 1 {
            return vec![self.entries.iter().map(stated).collect()];
        }
        let layer = |number| {
            let own = self.entries.iter().filter(move |entry| entry.layer == number);
            let above: BTreeSet<JailPath> = own.flat_map(|entry| entry.path.ancestors()).collect();
            let is_there = |entry: &&Entry| entry.layer == number || above.contains(&entry.path);
            self.entries.iter().filter(is_there).map(stated).collect()
        };
        (0..count).map(layer).collect()
    }
}

/// A directory with the epoch as its time; anything else as it is.
fn dated(entry: &Entry, epoch: i64) -> Cow<'_, Entry> {
    if entry.kind != Kind::Directory || entry.mtime == epoch {
        return Cow::Borrowed(entry);
    }
    Cow::Owned(Entry { mtime: epoch, ..entry.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::OMITTED;
    use crate::manifest::{Config, Digest, Made, Seal};

    fn path(text: &str) -> JailPath {
        JailPath::parse(text.as_bytes()).unwrap()
    }

    fn file(size: u64) -> Kind {
        Kind::File { size, sha256: Seal::of(Digest::of(b"")) }
    }

    /// A manifest of these paths, each of a package or of none.
    fn manifest(paths: &[(&str, Kind, Option<&str>)]) -> Manifest {
        let entry = |(at, kind, package): &(&str, Kind, Option<&str>)| Entry {
            package: package.map(ToOwned::to_owned),
            ..Entry::new(path(at), kind.clone())
        };
        Manifest::new(Config::default(), paths.iter().map(entry).collect())
    }

    fn shown(manifest: &Manifest) -> Vec<String> {
        let layer =
            |entries: Vec<Cow<'_, Entry>>| entries.iter().map(|entry| entry.path.to_string()).collect::<Vec<_>>();
        manifest.layers().into_iter().map(|entries| layer(entries).join(" ")).collect()
    }

    #[test]
    fn one_layer_unless_somebody_says_otherwise() {
        let manifest = manifest(&[("/", Kind::Directory, None), ("/a", file(1), None)]);
        assert_eq!(shown(&manifest), ["/ /a"]);
        assert!(!manifest.to_json().contains("\"layer\""));
    }

    #[test]
    fn packages_lie_below_the_rest() {
        let large = LARGE_PACKAGE;
        let mut manifest = manifest(&[
            ("/", Kind::Directory, None),
            ("/app", Kind::Directory, None),
            ("/app/main", file(large), None),
            ("/etc", Kind::Directory, None),
            ("/etc/passwd", file(9), None),
            ("/lib", Kind::Directory, None),
            ("/lib/b.so", file(large - 1), Some("deb:b=1")),
            ("/lib/c.so", file(large - 1), Some("deb:c=2")),
            ("/lib/c.so.1", Kind::Symlink { target: b"c.so".to_vec() }, Some("deb:c=2")),
            ("/lib/c2.so", file(1), Some("deb:c=2")),
            ("/lib/listed", Kind::Symlink { target: OMITTED.as_bytes().to_vec() }, None),
            ("/lib/z.so", file(1), Some("deb:a=1")),
            ("/tmp", Kind::Directory, None),
        ]);
        manifest.made.insert(path("/etc/passwd"), Made::File(b"root:x:0:".to_vec()));
        manifest.layer_by_packages();
        assert_eq!(
            shown(&manifest),
            [
                "/ /lib /lib/c.so /lib/c.so.1 /lib/c2.so",
                "/ /lib /lib/b.so /lib/z.so",
                "/ /app /app/main /etc /etc/passwd /lib /lib/listed /tmp"
            ]
        );
        assert_eq!(Manifest::parse(&manifest.to_json()).unwrap(), manifest);
    }

    #[test]
    fn a_hard_link_is_with_its_file() {
        let link = Kind::HardLink { to: path("/a/file") };
        let mut manifest = manifest(&[
            ("/", Kind::Directory, None),
            ("/a", Kind::Directory, None),
            ("/a/file", file(1), None),
            ("/b", Kind::Directory, None),
            ("/b/link", link, None),
            ("/c", file(1), None),
        ]);
        manifest.assign_layers(|entry| match entry.path.as_bytes() {
            b"/a/file" => "above",
            b"/b/link" => "below all",
            b"/c" => "also below",
            _ => "zzz",
        });
        assert_eq!(shown(&manifest), ["/ /a /a/file /b /b/link", "/ /c"]);
        let mut other = manifest.clone();
        other.assign_layers(|_| 0);
        other.layer_as(&manifest);
        assert_eq!(other, manifest);
    }

    #[test]
    fn numbers_that_make_no_layers_are_refused() {
        let mut gap = manifest(&[("/", Kind::Directory, None), ("/a", file(1), None)]);
        gap.entries[1].layer = 2;
        assert!(Manifest::parse(&gap.to_json()).unwrap_err().to_string().contains("`/a` is in layer 2"));
        let link = Kind::HardLink { to: path("/a") };
        let mut across = manifest(&[("/", Kind::Directory, None), ("/a", file(1), None), ("/b", link, None)]);
        across.entries[2].layer = 1;
        assert!(Manifest::parse(&across.to_json()).unwrap_err().to_string().contains("not in the layer of `/a`"));
    }
}
