//! The documents of an image: what the OCI image specification 1.1 and docker's archives have in JSON.
//!
//! Written, they are canonical: compact, the keys in the order of the fields here, maps in the order of their keys.
//! Read, they take other tools' documents: unknown keys of a configuration are kept, others passed over, and `null` is what is left out.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::date::rfc3339;
use super::reference::{Reference, Tag};
use crate::layer::Layer;
use crate::manifest::{self, Digest, Healthcheck, Manifest, Step};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// docker's own name for an index.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// The content of the file `oci-layout`.
pub const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// `org.opencontainers.image.ref.name`: what the image is called in its layout.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// What containerd calls the image once it is imported.
pub const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// `index.json`, or an index among the blobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    #[serde(deserialize_with = "or_default")]
    pub manifests: Vec<Descriptor>,
}

/// An image manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageManifest {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    pub config: Descriptor,
    #[serde(deserialize_with = "or_default")]
    pub layers: Vec<Descriptor>,
}

/// What points at a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

/// Which machine an image is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    pub architecture: String,
    pub os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// An image configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    pub architecture: String,
    pub os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<RunConfig>,
    pub rootfs: RootFs,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<Vec<History>>,
    /// What minjail does not know.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// How the image is to be run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[expect(clippy::zero_sized_map_values, reason = "the specification spells sets so")]
pub struct RunConfig {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exposed_ports: Option<BTreeMap<String, Empty>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volumes: Option<BTreeMap<String, Empty>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// What minjail does not know.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// `{}`: how the specification spells a set, as a map to nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Empty {}

/// Engines take `null` for it too, and an object with anything in it.
impl<'de> Deserialize<'de> for Empty {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::<BTreeMap<String, IgnoredAny>>::deserialize(deserializer).map(|_| Self {})
    }
}

/// The layers of an image, by their content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    #[serde(rename = "type")]
    pub kind: String,
    /// docker leaves them out where there are none.
    #[serde(default, deserialize_with = "or_default")]
    pub diff_ids: Vec<Digest>,
    /// What minjail does not know: no image that it makes has any of that.
    #[serde(flatten, skip_serializing)]
    pub other: BTreeMap<String, Value>,
}

/// How a layer came to be, or what else was done to the image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Of a step that made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not", deserialize_with = "or_default")]
    pub empty_layer: bool,
    /// What minjail does not know: no image that it makes has any of that.
    #[serde(flatten, skip_serializing)]
    pub other: BTreeMap<String, Value>,
}

/// `null` is what is left out.
fn or_default<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// One image of the `manifest.json` of a docker archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DockerImage {
    pub config: String,
    #[serde(default)]
    pub repo_tags: Option<Vec<String>>,
    #[serde(deserialize_with = "or_default")]
    pub layers: Vec<String>,
}

impl DockerImage {
    /// What it is called.
    pub fn names(&self) -> &[String] {
        self.repo_tags.as_deref().unwrap_or_default()
    }
}

/// The architecture that minjail was built for, as images spell it.
pub(super) fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

/// The canonical text of a document.
pub(super) fn text(document: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(document).expect("the documents here have text keys and no number that JSON lacks")
}

/// The configuration of an image that has these layers, the lowest first, of which `originals` are another image's; `None` if
/// the manifest's time has no date.
pub(super) fn image_config(
    manifest: &Manifest,
    diff_ids: Vec<Digest>,
    originals: &BTreeSet<u32>,
) -> Option<ImageConfig> {
    let created = rfc3339(manifest.epoch)?;
    let us = format!("minjail (format {})", manifest.minjail_format);
    let own = |layer: usize| {
        if u32::try_from(layer).is_ok_and(|layer| originals.contains(&layer)) {
            // Who made it, and when, nobody has said.
            History { comment: Some(format!("kept by {us}")), ..History::default() }
        } else {
            History { created: Some(created.clone()), created_by: Some(us.clone()), ..History::default() }
        }
    };
    let history = history(&manifest.config.history, own, diff_ids.len());
    // An image need not have a history (`config.md`). One that had none, and keeps all its layers, gets none: minjail made no layer of it.
    let is_unsaid = manifest.config.history.is_empty() && !diff_ids.is_empty() && originals.len() == diff_ids.len();
    Some(ImageConfig {
        created: Some(created),
        architecture: manifest.config.architecture.clone(),
        os: "linux".to_owned(),
        variant: manifest.config.variant.clone(),
        config: Some(RunConfig::of(&manifest.config)),
        history: (!is_unsaid).then_some(history),
        rootfs: RootFs { kind: "layers".to_owned(), diff_ids, other: BTreeMap::new() },
        other: BTreeMap::new(),
    })
}

/// The steps that came before, each with its layer if one is left of it, and `own` for each layer that none of them made:
/// as many as there are layers, in their order, made some.
fn history(steps: &[Step], own: impl Fn(usize) -> History, layers: usize) -> Vec<History> {
    let mut history = Vec::new();
    let mut next = 0;
    for step in steps {
        let Step { created, created_by, author, comment, layer } = step.clone();
        let layer = layer.map(|layer| layer as usize).filter(|layer| (next..layers).contains(layer));
        if let Some(layer) = layer {
            history.extend((next..layer).map(&own));
            next = layer + 1;
        }
        let empty_layer = layer.is_none();
        history.push(History { created, created_by, author, comment, empty_layer, ..History::default() });
    }
    history.extend((next..layers).map(&own));
    history
}

impl RunConfig {
    /// What a manifest says of it: all but what minjail does not know.
    pub fn into_config(self) -> manifest::Config {
        let variables = self.env.unwrap_or_default();
        let env = variables.iter().filter_map(|variable| variable.split_once('='));
        manifest::Config {
            entrypoint: self.entrypoint.unwrap_or_default(),
            cmd: self.cmd.unwrap_or_default(),
            env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            // config.md, "WorkingDir": the default is the root.
            working_dir: self.working_dir.filter(|directory| !directory.is_empty()).unwrap_or_else(|| "/".to_owned()),
            user: self.user.unwrap_or_default(),
            exposed_ports: self.exposed_ports.unwrap_or_default().into_keys().collect(),
            volumes: self.volumes.unwrap_or_default().into_keys().collect(),
            stop_signal: self.stop_signal.filter(|signal| !signal.is_empty()),
            labels: self.labels.unwrap_or_default(),
            healthcheck: self.healthcheck,
            ..manifest::Config::default()
        }
    }

    /// What a manifest says of how its image is run.
    pub fn of(config: &manifest::Config) -> Self {
        let list = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
        let word = |word: &str| (!word.is_empty()).then(|| word.to_owned());
        let set =
            |set: &BTreeSet<String>| (!set.is_empty()).then(|| set.iter().map(|one| (one.clone(), Empty {})).collect());
        let env: Vec<String> = config.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        Self {
            user: word(&config.user),
            exposed_ports: set(&config.exposed_ports),
            volumes: set(&config.volumes),
            stop_signal: config.stop_signal.clone(),
            env: list(&env),
            entrypoint: list(&config.entrypoint),
            cmd: list(&config.cmd),
            working_dir: word(&config.working_dir),
            labels: (!config.labels.is_empty()).then(|| config.labels.clone()),
            healthcheck: config.healthcheck.clone(),
            other: BTreeMap::new(),
        }
    }
}

/// The manifest of an image with this configuration, in its canonical text, and these layers, the lowest first.
pub(super) fn image_manifest(config: &[u8], layers: &[Layer]) -> ImageManifest {
    let layers = layers.iter().map(|layer| Descriptor {
        media_type: layer.media_type.to_owned(),
        digest: layer.digest,
        size: layer.size,
        annotations: None,
        platform: None,
    });
    ImageManifest {
        schema_version: 2,
        media_type: Some(MANIFEST.to_owned()),
        config: descriptor(CONFIG, config),
        layers: layers.collect(),
    }
}

/// The index of a layout that has one image, tagged `tag` and otherwise called `name`.
pub(super) fn index(manifest: &[u8], tag: &Tag, name: &Reference) -> Index {
    let mut annotations = BTreeMap::from([(REF_NAME.to_owned(), tag.to_string())]);
    if let Some(name) = tag.reference(name) {
        annotations.insert(CONTAINERD_NAME.to_owned(), name.full());
    }
    let manifest = Descriptor { annotations: Some(annotations), ..descriptor(MANIFEST, manifest) };
    Index { schema_version: 2, media_type: Some(INDEX.to_owned()), manifests: vec![manifest] }
}

fn descriptor(media_type: &str, blob: &[u8]) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: Digest::of(blob),
        size: blob.len() as u64,
        annotations: None,
        platform: None,
    }
}
