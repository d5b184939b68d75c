//! Reading images: any of the forms, by any tool, with every digest checked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::de::DeserializeOwned;

use super::error::ReadError;
use super::oci::{self, Descriptor, DockerImage, ImageConfig, ImageManifest, Index, Platform};
use super::output::{Input, Output, Target};
use super::reading::{Limits, Reading};
use super::reference::{Reference, Tag};
use super::store::{Part, Store};
use super::{contents, unpack};
use crate::manifest::{Digest, Entry};
use crate::path::escape;
use crate::tree::Notes;

/// An image that was opened: its documents are read, and its blobs are there and have the right digests.
#[derive(Debug)]
pub struct Image {
    /// `None` for a bare layer.
    pub config: Option<ImageConfig>,
    /// Of the image manifest; of the OCI forms alone.
    pub manifest: Option<Digest>,
    /// What the image says that it is called, beside a mere tag.
    pub name: Option<Reference>,
    /// All that it is called, in the order of the archive; of a docker archive alone.
    pub names: Vec<Reference>,
    /// What it is called in its layout, or the tag of its name.
    pub tag: Option<Tag>,
    /// The lowest first.
    pub layers: Vec<ImageLayer>,
    pub(super) limits: Limits,
}

/// One layer of an image.
#[derive(Debug, Clone)]
pub struct ImageLayer {
    /// Of the bytes as they lie there, if a manifest names it.
    pub digest: Option<Digest>,
    /// As they lie there, in bytes.
    pub size: u64,
    /// Of the uncompressed tar stream, if a configuration names it. It is checked when the layer is unpacked.
    pub diff_id: Option<Digest>,
    /// What a manifest says of its form.
    pub(super) media_type: Option<String>,
    pub(super) part: Part,
}

impl Image {
    /// Reads the documents of an image, and checks size and digest of every blob.
    ///
    /// A rootfs is no image but a directory, to be used as it is: see [`Input::rootfs`].
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn open(input: &Input, reading: &Reading) -> Result<Self, ReadError> {
        let part = |target: &Target| Part::of(target, reading.limits);
        let archive = |target: &Target| Store::archive(part(target)?, reading.limits);
        let platform = reading.platform.as_ref();
        let Some(named) = &input.named else { return Self::from_standard_input(reading) };
        let image = match named {
            Output::Rootfs(path) => Err(ReadError::IsRootfs { path: path.display().to_string() }),
            Output::Layer(target) => Ok(bare_layer(part(target)?)),
            Output::Oci { directory, tag } => {
                refuse_file(directory)?;
                oci_image(&Store::directory(directory)?, tag.as_ref(), reading)
            }
            Output::OciArchive { file, tag } => {
                let store = archive(file)?;
                check_form(&store, file, "index.json")?;
                oci_image(&store, tag.as_ref(), reading)
            }
            Output::DockerArchive { file, reference } => {
                let store = archive(file)?;
                check_form(&store, file, "manifest.json")?;
                docker_image(&store, (reference.as_ref(), input.number), platform)
            }
        };
        Self { limits: reading.limits, ..image? }.checked()
    }

    /// Reads the image archive, of either kind, that comes in on standard input.
    fn from_standard_input(reading: &Reading) -> Result<Self, ReadError> {
        let store = Store::archive(Part::of(&Target::Standard, reading.limits)?, reading.limits)?;
        let image = if store.part("manifest.json")?.is_some() {
            docker_image(&store, (None, None), reading.platform.as_ref())
        } else if store.part("index.json")?.is_some() {
            oci_image(&store, None, reading)
        } else {
            Err(ReadError::NoArchive { path: "standard input".to_owned() })
        };
        Self { limits: reading.limits, ..image? }.checked()
    }

    /// An image whose layers were not looked at yet may have some that nobody should read to the end.
    fn checked(self) -> Result<Self, ReadError> {
        let unread = self.layers.iter().filter(|layer| layer.digest.is_none());
        check_sizes(unread.map(|layer| (layer.part.place(), layer.size)), self.limits)?;
        Ok(self)
    }

    /// What the layers, one over the other, amount to, sorted by path, each with the layer that it is from; every content
    /// is read and hashed.
    ///
    /// # Errors
    /// A layer is damaged, has other content than the configuration says, or has a name that is refused.
    pub fn entries(&self) -> Result<Vec<Entry>, ReadError> {
        contents::entries(self)
    }

    /// Applies the layers, one over the other, in `directory`, which must exist and be empty.
    ///
    /// Everything is made below that directory, whatever the names and links in the layers say. An ordinary user owns
    /// all that is made, and may read it; the notes count what could not be made as the layers say.
    ///
    /// `look` is called now and then, and may unwind.
    ///
    /// # Errors
    /// A layer is damaged, has other content than the configuration says, or has a name that is refused.
    pub fn unpack(&self, directory: &Path, look: &mut dyn FnMut()) -> Result<Notes, ReadError> {
        self.unpack_counted(directory, look).map(|(notes, _)| notes)
    }

    /// As [`unpack`](Self::unpack), and says what of the limits was used up.
    ///
    /// # Errors
    /// See [`unpack`](Self::unpack).
    pub fn unpack_counted(&self, directory: &Path, look: &mut dyn FnMut()) -> Result<(Notes, Limits), ReadError> {
        unpack::unpack(self, directory, look)
    }

    /// # Errors
    /// The image was opened for less than what was `used` when the same layers were unpacked.
    pub fn allows(&self, used: Limits) -> Result<(), ReadError> {
        self.limits.check(used)
    }

    /// The diff IDs of the layers, the lowest first; none of a bare layer, of which nothing says it.
    pub fn diff_ids(&self) -> Vec<Digest> {
        self.layers.iter().filter_map(|layer| layer.diff_id).collect()
    }

    /// For each layer, the lowest first, the digest of its bytes as they lie there, which were read and checked, and the
    /// one that the configuration names of them uncompressed.
    ///
    /// # Errors
    /// A layer whose digest nobody has named cannot be read.
    pub fn layer_digests(&self) -> Result<Vec<(Digest, Option<Digest>)>, ReadError> {
        let mut known = BTreeMap::new();
        let mut digest = |layer: &ImageLayer| -> Result<Digest, ReadError> {
            if let Some(digest) = layer.digest.or(known.get(&layer.part.place()).copied()) {
                return Ok(digest);
            }
            let digest = layer.part.digest()?;
            known.insert(layer.part.place(), digest);
            Ok(digest)
        };
        self.layers.iter().map(|layer| Ok((digest(layer)?, layer.diff_id))).collect()
    }
}

fn bare_layer(part: Part) -> Image {
    let layer = ImageLayer { digest: None, size: part.size, diff_id: None, media_type: None, part };
    Image {
        config: None,
        manifest: None,
        name: None,
        names: Vec::new(),
        tag: None,
        layers: vec![layer],
        limits: Limits::USUAL,
    }
}

/// Refuses blobs that are larger than what they may unpack to, before anybody reads them: a file of nothing but holes has as
/// many bytes as it likes. What has one key is one blob.
fn check_sizes<K: Ord>(blobs: impl Iterator<Item = (K, u64)>, limits: Limits) -> Result<(), ReadError> {
    let blobs: BTreeMap<K, u64> = blobs.collect();
    let total = blobs.values().fold(0_u64, |sum, &size| sum.saturating_add(size));
    // What cannot be compressed grows by little, and an index of its members (estargz) takes some.
    let most = limits.size.saturating_add(limits.size / 16).saturating_add(1 << 20);
    if total > most { Err(ReadError::TooMuch { limit: limits.size }) } else { Ok(()) }
}

fn oci_image(store: &Store, tag: Option<&Tag>, reading: &Reading) -> Result<Image, ReadError> {
    let platform = reading.platform.as_ref();
    let (mut index, _) = required(store, "index.json")?.document::<Index>()?;
    let mut descriptor = choose(&index, tag, platform)?;
    // containerd's annotation is a whole name; the specification's may be one.
    let annotations = descriptor.annotations.clone().unwrap_or_default();
    let whole = |name: &String| name.contains(['/', ':']).then(|| name.parse().ok()).flatten();
    let name = [oci::CONTAINERD_NAME, oci::REF_NAME].iter().find_map(|key| annotations.get(*key).and_then(whole));
    let tag = annotations.get(oci::REF_NAME).and_then(|tag| tag.parse().ok());
    // An index may point at indexes, for other platforms; nobody nests them deeply.
    for _ in 0..4 {
        if descriptor.media_type != oci::INDEX && descriptor.media_type != oci::DOCKER_LIST {
            break;
        }
        index = document::<Index>(store, &descriptor)?.0;
        descriptor = choose(&index, None, platform)?;
    }
    let (manifest, digest) = document::<ImageManifest>(store, &descriptor)?;
    let (config, _) = document::<ImageConfig>(store, &manifest.config)?;
    if descriptor.platform.is_none() {
        check_platform(&config, platform)?;
    }
    let diff_ids = diff_ids(&config, manifest.layers.len())?;
    check_sizes(manifest.layers.iter().map(|layer| (layer.digest, layer.size)), reading.limits)?;
    let mut layers = Vec::with_capacity(diff_ids.len());
    // One blob may be several layers, and is looked at once.
    let mut checked: BTreeMap<(Digest, u64), Part> = BTreeMap::new();
    for (descriptor, diff_id) in manifest.layers.iter().zip(diff_ids) {
        let part = match checked.get(&(descriptor.digest, descriptor.size)) {
            Some(part) => part.clone(),
            None => blob(store, descriptor)?,
        };
        checked.insert((descriptor.digest, descriptor.size), part.clone());
        layers.push(ImageLayer {
            digest: Some(descriptor.digest),
            size: descriptor.size,
            diff_id: Some(*diff_id),
            media_type: Some(descriptor.media_type.clone()),
            part,
        });
    }
    let (config, manifest, names) = (Some(config), Some(digest), Vec::new());
    Ok(Image { config, manifest, name, names, tag, layers, limits: Limits::USUAL })
}

/// The diff IDs that a configuration lists, one for each of its image's layers.
fn diff_ids(config: &ImageConfig, layers: usize) -> Result<&[Digest], ReadError> {
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() == layers {
        return Ok(diff_ids);
    }
    Err(ReadError::LayerCount { layers, diff_ids: diff_ids.len() })
}

/// Where nothing but the configuration says for whom an image is, that must be what was asked for.
fn check_platform(config: &ImageConfig, wanted: Option<&Platform>) -> Result<(), ReadError> {
    let Some(wanted) = wanted else { return Ok(()) };
    let variant = config.variant.clone().filter(|variant| !variant.is_empty());
    let own = Platform { architecture: config.architecture.clone(), os: config.os.clone(), variant };
    // Many an image does not say its variant.
    let is_other = wanted.variant.is_some() && own.variant.is_some() && own.variant != wanted.variant;
    if is_other || !own.is_for_machine_of(wanted) {
        return Err(ReadError::NoPlatform { wanted: wanted.clone(), known: own.to_string() });
    }
    Ok(())
}

/// The digest that the name of an image's configuration is: `HEX.json` in older archives, `blobs/sha256/HEX` in newer ones.
fn digest_of(image: &DockerImage) -> Option<Digest> {
    Digest::from_hex(image.config.rsplit('/').next().unwrap_or(&image.config).trim_end_matches(".json"))
}

/// An archive of the other kind, or of none, is told by the document that lists its images; newer ones of docker have both.
fn check_form(store: &Store, file: &Target, document: &str) -> Result<(), ReadError> {
    if store.part(document)?.is_some() {
        return Ok(());
    }
    let path = match file {
        Target::File(path) => escape(path.as_os_str().as_encoded_bytes()),
        Target::Standard => "-".to_owned(),
    };
    let others = [
        ("manifest.json", "a docker archive", "docker-archive"),
        ("index.json", "an archive of an OCI layout", "oci-archive"),
    ];
    for (name, form, spelled) in others {
        if store.part(name)?.is_some() {
            return Err(ReadError::OtherForm { path, form, spelled });
        }
    }
    // An OCI layout without its index is damaged.
    let is_layout = store.part("oci-layout")?.is_some();
    Err(if is_layout { ReadError::Missing { name: document.to_owned() } } else { ReadError::NoArchive { path } })
}

/// `oci:` names a directory.
fn refuse_file(path: &Path) -> Result<(), ReadError> {
    if !path.is_file() {
        return Ok(());
    }
    let part = Part::of(&Target::File(path.to_owned()), Limits::USUAL)?;
    let store = Store::archive(part, Limits::USUAL)?;
    let path = escape(path.as_os_str().as_encoded_bytes());
    let is_docker = store.part("index.json")?.is_none() && store.part("manifest.json")?.is_some();
    let spelled = if is_docker { "docker-archive" } else { "oci-archive" };
    Err(ReadError::OtherForm { path, form: "a file, and no directory", spelled })
}

/// The one image of a docker archive that is called `reference` and has this number, where these are said.
fn choose_docker<'a>(
    images: &'a [DockerImage],
    reference: Option<&Reference>,
    number: Option<usize>,
) -> Result<&'a DockerImage, ReadError> {
    if images.is_empty() {
        return Err(ReadError::NoImage { name: "manifest.json".to_owned() });
    }
    // One without a name is told by its number and its digest.
    let told = |(at, image): (usize, &DockerImage)| match image.names() {
        [] => {
            let digest = digest_of(image).map_or_else(|| image.config.clone(), |digest| digest.to_string());
            format!("@{at} ({digest})")
        }
        names => names.join(", "),
    };
    let known = || images.iter().enumerate().map(told).collect::<Vec<_>>().join(", ");
    // podman writes the full name, docker the short one.
    let is_called = |image: &DockerImage, wanted: &Reference| {
        image.names().iter().any(|name| name.parse().as_ref() == Ok(wanted) || *name == wanted.full())
    };
    let mut chosen = images.iter().enumerate().filter(|(at, image)| {
        reference.is_none_or(|wanted| is_called(image, wanted)) && number.is_none_or(|number| number == *at)
    });
    match chosen.next() {
        Some((_, image)) if chosen.next().is_none() => Ok(image),
        Some(_) if images.iter().any(|image| image.names().is_empty()) => {
            Err(ReadError::SeveralUnnamed { known: known() })
        }
        Some(_) => Err(ReadError::SeveralImages { known: known() }),
        None => {
            let wanted = reference.map(Reference::to_string).or(number.map(|number| format!("@{number}")));
            Err(ReadError::NoSuchName { wanted: wanted.unwrap_or_default(), known: known() })
        }
    }
}

fn docker_image(
    store: &Store,
    (reference, number): (Option<&Reference>, Option<usize>),
    platform: Option<&Platform>,
) -> Result<Image, ReadError> {
    let (images, _) = required(store, "manifest.json")?.document::<Vec<DockerImage>>()?;
    let image = choose_docker(&images, reference, number)?;
    let (config, found) = required(store, &image.config)?.document::<ImageConfig>()?;
    check_platform(&config, platform)?;
    if let Some(expected) = digest_of(image).filter(|expected| *expected != found) {
        return Err(ReadError::WrongDigest { name: image.config.clone(), expected, found });
    }
    let diff_ids = diff_ids(&config, image.layers.len())?;
    let mut layers = Vec::with_capacity(diff_ids.len());
    for (name, diff_id) in image.layers.iter().zip(diff_ids) {
        let part = required(store, name)?;
        layers.push(ImageLayer { digest: None, size: part.size, diff_id: Some(*diff_id), media_type: None, part });
    }
    let mut names: Vec<Reference> = image.names().iter().filter_map(|name| name.parse().ok()).collect();
    let mut known = BTreeSet::new();
    names.retain(|name| known.insert(name.full()));
    // Of several, the one by which it was chosen.
    let asked = reference.and_then(|asked| names.iter().find(|name| name.full() == asked.full()));
    let name = asked.or(names.first()).cloned();
    let tag = name.as_ref().and_then(|name: &Reference| name.tag().parse().ok());
    Ok(Image { config: Some(config), manifest: None, name, names, tag, layers, limits: Limits::USUAL })
}

/// The one image of an index that is meant.
fn choose(index: &Index, tag: Option<&Tag>, platform: Option<&Platform>) -> Result<Descriptor, ReadError> {
    let name = |descriptor: &Descriptor| descriptor.annotations.as_ref()?.get(oci::REF_NAME).cloned();
    let known = || {
        let names: Vec<String> = index.manifests.iter().filter_map(name).collect();
        if names.is_empty() { "none with a name".to_owned() } else { names.join(", ") }
    };
    let is_meant = |descriptor: &&Descriptor| tag.is_none_or(|tag| name(descriptor).as_deref() == Some(tag.as_str()));
    let meant: Vec<&Descriptor> = index.manifests.iter().filter(is_meant).collect();
    if let (true, Some(tag)) = (meant.is_empty(), tag) {
        return Err(ReadError::NoSuchName { wanted: tag.to_string(), known: known() });
    }
    if index.manifests.is_empty() {
        return Err(ReadError::NoImage { name: "index.json".to_owned() });
    }
    let wanted = platform.cloned().unwrap_or_else(Platform::host);
    let is_for = |descriptor: &&&Descriptor| descriptor.platform.as_ref().is_some_and(|platform| platform.is(&wanted));
    let mut fit: Vec<&&Descriptor> = meant.iter().filter(is_for).collect();
    if fit.is_empty() {
        // Whoever makes images for one platform need not say which.
        fit.extend(meant.iter().filter(|descriptor| descriptor.platform.is_none()));
    }
    match fit.as_slice() {
        [one] => Ok((**one).clone()),
        [] => {
            let known = meant.iter().filter_map(|descriptor| Some(descriptor.platform.as_ref()?.to_string()));
            Err(ReadError::NoPlatform { wanted, known: known.collect::<Vec<_>>().join(", ") })
        }
        several => {
            let platforms: BTreeSet<String> =
                several.iter().filter_map(|one| Some(one.platform.as_ref()?.to_string())).collect();
            match several.iter().rev().find_map(|one| one.platform.clone()) {
                Some(last) if platforms.len() == several.len() => {
                    let known = platforms.into_iter().collect::<Vec<_>>().join(", ");
                    Err(ReadError::SeveralVariants { wanted, known, last: Box::new(last) })
                }
                _ => Err(ReadError::SeveralImages { known: known() }),
            }
        }
    }
}

/// A blob, with the size and the digest that its descriptor says.
fn blob(store: &Store, descriptor: &Descriptor) -> Result<Part, ReadError> {
    let part = required(store, &format!("blobs/sha256/{}", descriptor.digest.hex()))?;
    part.check(&descriptor.digest, descriptor.size)?;
    Ok(part)
}

/// A document among the blobs, and its digest. It is seen to be none too large before it is read.
fn document<T: DeserializeOwned>(store: &Store, descriptor: &Descriptor) -> Result<(T, Digest), ReadError> {
    let part = required(store, &format!("blobs/sha256/{}", descriptor.digest.hex()))?;
    part.check_document()?;
    part.check(&descriptor.digest, descriptor.size)?;
    part.document()
}

fn required(store: &Store, name: &str) -> Result<Part, ReadError> {
    store.part(name)?.ok_or_else(|| ReadError::Missing { name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An index as build tools write it: two platforms and a note on how one was built, under tags of their own.
    fn index(names: [Option<&str>; 3]) -> Index {
        let host = oci::host_architecture();
        let platforms = [("linux", host), ("linux", "s390x"), ("unknown", "unknown")];
        let descriptor = |(number, ((os, architecture), name)): (usize, ((&str, &str), Option<&str>))| {
            let annotations = name.map(|name| format!(r#","annotations":{{"{}":"{name}"}}"#, oci::REF_NAME));
            format!(
                r#"{{"mediaType":"{}","digest":"{}","size":{number},"platform":{{"os":"{os}","architecture":"{architecture}","variant":"v8"}}{}}}"#,
                oci::MANIFEST,
                Digest::of(&[]),
                annotations.unwrap_or_default()
            )
        };
        let manifests: Vec<String> = platforms.into_iter().zip(names).enumerate().map(descriptor).collect();
        serde_json::from_str(&format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, manifests.join(","))).unwrap()
    }

    fn tag(text: &str) -> Tag {
        text.parse().unwrap()
    }

    #[test]
    fn the_image_for_this_machine_is_chosen() {
        assert_eq!(choose(&index([None; 3]), None, None).unwrap().size, 0);
        let all = Some("v1");
        assert_eq!(choose(&index([all; 3]), Some(&tag("v1")), None).unwrap().size, 0);
    }

    #[test]
    fn what_cannot_be_chosen_is_told_apart() {
        let named = index([Some("v1"), Some("v2"), None]);
        assert!(matches!(choose(&named, Some(&tag("v2")), None), Err(ReadError::NoPlatform { .. })));
        let error = choose(&named, Some(&tag("v3")), None).unwrap_err();
        assert_eq!(error.to_string(), "no image here is called `v3`; there are: v1, v2");
        let mut several = index([Some("v1"), Some("v2"), None]);
        several.manifests.iter_mut().for_each(|descriptor| descriptor.platform = None);
        assert!(matches!(choose(&several, None, None), Err(ReadError::SeveralImages { .. })));
    }
}
