//! Reading images: any of the forms, by any tool, with every digest checked.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use super::oci::{self, Descriptor, DockerImage, ImageConfig, ImageManifest, Index, Platform};
use super::output::{Input, Output, Target};
use super::reading::{Limits, Reading};
use super::reference::{Reference, Tag};
use super::store::{Part, Store};
use super::{contents, unpack};
use crate::layer::untar::UntarError;
use crate::manifest::Digest;
use crate::manifest::Entry;
use crate::path::escape;
use crate::root::RootError;
use crate::tree::{Notes, TreeError};

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

/// An image could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("`{path}` is a directory, not an image: there is nothing to unpack")]
    IsRootfs { path: String },
    #[error("`{path}` is not a file")]
    NoFile { path: String },
    #[error("failed to open the image layout `{path}`")]
    NoLayout { path: String, source: io::Error },
    #[error("`{path}` is compressed as a whole")]
    Compressed { path: String },
    #[error("the image has no `{name}`")]
    Missing { name: String },
    #[error("`{name}` has {found} bytes instead of {expected}")]
    WrongSize { name: String, expected: u64, found: u64 },
    #[error("`{name}` has the digest {found} instead of {expected}")]
    WrongDigest { name: String, expected: Digest, found: Digest },
    #[error("`{name}` has {size} bytes, too many for a document")]
    TooLarge { name: String, size: u64 },
    #[error("failed to understand `{name}`")]
    Document {
        name: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("no image here is called `{wanted}`; there are: {known}")]
    NoSuchName { wanted: String, known: String },
    #[error("there are several images, and none was named: {known}")]
    SeveralImages { known: String },
    #[error("there are several images for {wanted}: {known}")]
    SeveralVariants { wanted: Platform, known: String, last: Box<Platform> },
    #[error("several images have no name: {known}")]
    SeveralUnnamed { known: String },
    #[error("`{name}` lists no image")]
    NoImage { name: String },
    #[error("`{path}` is empty, and no image")]
    Empty { path: String },
    #[error("`{path}` is {form}")]
    OtherForm { path: String, form: &'static str, spelled: &'static str },
    #[error("there is no image for {wanted}; there are: {known}")]
    NoPlatform { wanted: Platform, known: String },
    #[error("the image has more than {limit} bytes, unpacked")]
    TooMuch { limit: u64 },
    #[error("the image has more than {limit} entries")]
    TooMany { limit: u64 },
    #[error("`{path}` is no image archive: it has neither a `manifest.json` nor an `index.json`")]
    NoArchive { path: String },
    #[error("the image has {layers} layers, but its configuration lists {diff_ids}")]
    LayerCount { layers: usize, diff_ids: usize },
    #[error("failed to read `{path}`")]
    Failed {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("failed to read `{path}` as a tar archive")]
    Archive {
        path: String,
        #[source]
        source: UntarError,
    },
    #[error("refused to unpack `{name}` of the layer `{layer}`: {why}")]
    Refused { name: String, layer: String, why: &'static str },
    #[error("`{path}` is compressed by {how}, as no layer is")]
    OtherCompression { path: String, how: &'static str },
    #[error("failed to start a thread")]
    Thread(#[source] io::Error),
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error(transparent)]
    Root(#[from] RootError),
}

impl ReadError {
    /// The same, of what is in this layer.
    pub(super) fn of_layer(self, part: &Part) -> Self {
        match self {
            Self::Refused { name, why, .. } => Self::Refused { name, why, layer: part.name.clone() },
            other => other,
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<Cow<'static, str>> {
        let hint = match self {
            Self::SeveralVariants { last, .. } => {
                return Some(format!("name one with its variant, as `--platform {last}`").into());
            }
            Self::OtherForm { path, spelled, .. } => return Some(format!("spell it `{spelled}:{path}`").into()),
            Self::Failed { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("see that the path is right; `docker save -o FILE NAME` writes such a file")
            }
            Self::NoLayout { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => None,
            Self::NoLayout { .. } => {
                Some("see that the path is right; `oci:DIR` is a directory with a file `oci-layout` in it")
            }
            Self::NoFile { .. } => Some("a directory that is an image is spelled `oci:DIR`"),
            Self::SeveralUnnamed { .. } => Some("choose one by its number: `docker-archive:FILE:@N`"),
            Self::NoImage { .. } | Self::Empty { .. } => {
                Some("write it again, by `docker save -o FILE NAME` or `skopeo copy`, and see that this succeeds")
            }
            Self::Compressed { .. } => Some("decompress it first: `gunzip` or `unzstd`"),
            Self::NoSuchName { .. } | Self::SeveralImages { .. } => {
                Some("name one behind the path: `oci:DIR:TAG`, `docker-archive:FILE:REF`")
            }
            Self::Missing { .. } | Self::WrongSize { .. } | Self::WrongDigest { .. } => {
                Some("the image is damaged or not complete: copy or pull it again")
            }
            Self::Archive { source: UntarError::Damaged(_), .. } => {
                Some("it is damaged, not complete, or no such image: copy or pull it again")
            }
            // What is no fault of the disk is one of the compressed bytes.
            Self::Archive { source: UntarError::Read(source), .. } if source.raw_os_error().is_none() => {
                Some("it is damaged or not complete: copy or pull it again")
            }
            Self::Archive { source: UntarError::Unsupported(_), .. } | Self::Refused { .. } => {
                Some("docker, podman and buildah write no such thing: build the image again, or ask who made it")
            }
            Self::OtherCompression { .. } => {
                Some("`skopeo copy --dest-compress-format gzip` or `docker load` and `docker save` write it again")
            }
            Self::LayerCount { .. } => {
                Some("its manifest and its configuration are of two images: copy or pull it again")
            }
            Self::NoPlatform { .. } => Some("choose one of these with `--platform OS/ARCH`"),
            Self::TooMuch { .. } => Some("if you trust it, `--max-size BYTES` allows more"),
            Self::TooMany { .. } => Some("if you trust it, `--max-entries N` allows more"),
            Self::Document { .. } => Some("the image is damaged, or of a kind that minjail does not read"),
            Self::NoArchive { .. } => {
                Some("pipe what `docker save`, `podman save` or `skopeo copy … oci-archive:` write")
            }
            Self::Tree(error) => error.hint(),
            Self::Root(error) => error.hint(),
            _ => None,
        };
        hint.map(Cow::Borrowed)
    }
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
                oci_image(&Store::directory(directory)?, tag.as_ref(), platform)
            }
            Output::OciArchive { file, tag } => {
                let store = archive(file)?;
                check_form(&store, file, "index.json")?;
                oci_image(&store, tag.as_ref(), platform)
            }
            Output::DockerArchive { file, reference } => {
                let store = archive(file)?;
                check_form(&store, file, "manifest.json")?;
                docker_image(&store, (reference.as_ref(), input.number), platform)
            }
        };
        Ok(Self { limits: reading.limits, ..image? })
    }

    /// Reads the image archive, of either kind, that comes in on standard input.
    fn from_standard_input(reading: &Reading) -> Result<Self, ReadError> {
        let store = Store::archive(Part::of(&Target::Standard, reading.limits)?, reading.limits)?;
        let image = if store.part("manifest.json")?.is_some() {
            docker_image(&store, (None, None), reading.platform.as_ref())
        } else if store.part("index.json")?.is_some() {
            oci_image(&store, None, reading.platform.as_ref())
        } else {
            Err(ReadError::NoArchive { path: "standard input".to_owned() })
        };
        Ok(Self { limits: reading.limits, ..image? })
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
    /// all that is made; the notes count what could not be made as the layers say.
    ///
    /// # Errors
    /// A layer is damaged, has other content than the configuration says, or has a name that is refused.
    pub fn unpack(&self, directory: &Path) -> Result<Notes, ReadError> {
        self.unpack_counted(directory).map(|(notes, _)| notes)
    }

    /// As [`unpack`](Self::unpack), and says what of the limits was used up.
    ///
    /// # Errors
    /// See [`unpack`](Self::unpack).
    pub fn unpack_counted(&self, directory: &Path) -> Result<(Notes, Limits), ReadError> {
        unpack::unpack(self, directory)
    }

    /// # Errors
    /// The image was opened for less than what was `used` when the same layers were unpacked.
    pub fn allows(&self, used: Limits) -> Result<(), ReadError> {
        self.limits.check(used)
    }

    /// For each layer, the lowest first, the digest of its bytes as they lie there, which were read and checked, and the
    /// one that the configuration names of them uncompressed.
    ///
    /// # Errors
    /// A layer whose digest nobody has named cannot be read.
    /// The diff IDs of the layers, the lowest first; none of a bare layer, of which nothing says it.
    pub fn diff_ids(&self) -> Vec<Digest> {
        self.layers.iter().filter_map(|layer| layer.diff_id).collect()
    }

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

fn oci_image(store: &Store, tag: Option<&Tag>, platform: Option<&Platform>) -> Result<Image, ReadError> {
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
        index = blob(store, &descriptor)?.document::<Index>()?.0;
        descriptor = choose(&index, None, platform)?;
    }
    let (manifest, digest) = blob(store, &descriptor)?.document::<ImageManifest>()?;
    let (config, _) = blob(store, &manifest.config)?.document::<ImageConfig>()?;
    if descriptor.platform.is_none() {
        check_platform(&config, platform)?;
    }
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers.len() {
        return Err(ReadError::LayerCount { layers: manifest.layers.len(), diff_ids: diff_ids.len() });
    }
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

fn docker_image(
    store: &Store,
    (reference, number): (Option<&Reference>, Option<usize>),
    platform: Option<&Platform>,
) -> Result<Image, ReadError> {
    let (images, _) = required(store, "manifest.json")?.document::<Vec<DockerImage>>()?;
    let names = |image: &DockerImage| image.repo_tags.clone().unwrap_or_default();
    // One without a name is told by its number and its digest.
    let told = |(at, image): (usize, &DockerImage)| match names(image) {
        names if names.is_empty() => {
            let digest = digest_of(image).map_or_else(|| image.config.clone(), |digest| digest.to_string());
            format!("@{at} ({digest})")
        }
        names => names.join(", "),
    };
    let known = || images.iter().enumerate().map(told).collect::<Vec<_>>().join(", ");
    if images.is_empty() {
        return Err(ReadError::NoImage { name: "manifest.json".to_owned() });
    }
    let mut chosen = images.iter().enumerate().filter(|(at, image)| {
        // podman writes the full name, docker the short one.
        let is_called = |wanted: &Reference| {
            names(image).iter().any(|name| name.parse().as_ref() == Ok(wanted) || *name == wanted.full())
        };
        reference.is_none_or(is_called) && number.is_none_or(|number| number == *at)
    });
    let wanted = reference.map(Reference::to_string).or(number.map(|number| format!("@{number}")));
    let image = match chosen.next() {
        Some((_, image)) if chosen.next().is_none() => image,
        Some(_) if images.iter().any(|image| names(image).is_empty()) => {
            return Err(ReadError::SeveralUnnamed { known: known() });
        }
        Some(_) => return Err(ReadError::SeveralImages { known: known() }),
        None => return Err(ReadError::NoSuchName { wanted: wanted.unwrap_or_default(), known: known() }),
    };
    let config_part = required(store, &image.config)?;
    let (config, found) = config_part.document::<ImageConfig>()?;
    check_platform(&config, platform)?;
    if let Some(expected) = digest_of(image).filter(|expected| *expected != found) {
        return Err(ReadError::WrongDigest { name: image.config.clone(), expected, found });
    }
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != image.layers.len() {
        return Err(ReadError::LayerCount { layers: image.layers.len(), diff_ids: diff_ids.len() });
    }
    let mut layers = Vec::with_capacity(diff_ids.len());
    for (name, diff_id) in image.layers.iter().zip(diff_ids) {
        let part = required(store, name)?;
        layers.push(ImageLayer { digest: None, size: part.size, diff_id: Some(*diff_id), media_type: None, part });
    }
    let mut names: Vec<Reference> = names(image).iter().filter_map(|name| name.parse().ok()).collect();
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
