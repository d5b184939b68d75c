//! What an image's configuration says beyond what minjail writes of itself: carried over, word for word, in a manifest's
//! [`Extra`].

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::error::ImageError;
use super::oci::{ImageConfig, image_config, text};
use crate::manifest::{Digest, Extra, Manifest};

/// What each image has of its own: no other image's stands in its place.
const OWN: [&str; 3] = ["config", "history", "rootfs"];

/// What docker wrote of the container in which an image's last step was run. It repeats the configuration of then, and engines read it
/// where that of now says nothing: a smaller image would have a health check for which it has no program, and the values of variables
/// that it was not to have.
const LAST_STEP: [&str; 2] = ["container", "container_config"];

/// The canonical text of the configuration of an image that has these layers, of which `originals` are another's; `None` if the manifest's time has no date.
pub(super) fn document(manifest: &Manifest, diff_ids: Vec<Digest>, originals: &BTreeSet<u32>) -> Option<Vec<u8>> {
    let config = image_config(manifest, diff_ids, originals)?;
    let extra = &manifest.config.extra;
    if extra.is_empty() {
        return Some(text(&config));
    }
    let mut whole = fields(&config);
    let mut run = taken(&mut whole, "config");
    apply(&mut run, &extra.config);
    apply(&mut whole, &without_own(&extra.image));
    whole.insert("config".to_owned(), Value::Object(run));
    Some(text(&whole))
}

/// The configuration of the image that `manifest` describes, as it is read from one, but for the layers.
///
/// # Errors
/// The manifest's time has no date, or its [`Extra`] makes what is no configuration of it.
pub fn described(manifest: &Manifest) -> Result<ImageConfig, ImageError> {
    described_with(manifest, Vec::new(), &BTreeSet::new())
}

/// The same with these layers, of which `originals` are another image's.
pub(super) fn described_with(
    manifest: &Manifest,
    diff_ids: Vec<Digest>,
    originals: &BTreeSet<u32>,
) -> Result<ImageConfig, ImageError> {
    let text = document(manifest, diff_ids, originals).ok_or(ImageError::Epoch(manifest.epoch))?;
    serde_json::from_slice(&text).map_err(ImageError::Described)
}

/// What a smaller image keeps of the words of `from`, if its variables are `env`: what minjail does not know, and the
/// variables in their order, with those that have no value.
pub fn carried(from: &ImageConfig, env: &BTreeMap<String, String>) -> Extra {
    let said = |map: &BTreeMap<String, Value>| -> BTreeMap<String, Value> {
        map.iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    let mut extra = Extra { image: said(&from.other), config: BTreeMap::new() };
    extra.image.retain(|key, _| !LAST_STEP.contains(&key.as_str()));
    if from.os != "linux" {
        extra.image.insert("os".to_owned(), Value::from(from.os.clone()));
    }
    if let Some(run) = &from.config {
        extra.config = said(&run.other);
        let sorted: Vec<String> = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let ordered = ordered(run.env.as_deref().unwrap_or_default(), env);
        if ordered != sorted {
            extra.config.insert("Env".to_owned(), Value::from(ordered));
        }
    }
    extra
}

/// All in which the configuration `from` says something else than what `manifest` would make of it, but for the layers.
/// `None` if the manifest's time has no date.
pub fn difference(from: &ImageConfig, manifest: &Manifest) -> Option<Extra> {
    let (mut made, mut wanted) = (fields(&image_config(manifest, Vec::new(), &BTreeSet::new())?), fields(from));
    let config = differing(&taken(&mut made, "config"), &taken(&mut wanted, "config"));
    Some(Extra { image: without_own(&differing(&made, &wanted)), config })
}

/// The variables that there are, in the order in which an image has them; those that it does not have come last.
fn ordered(image: &[String], env: &BTreeMap<String, String>) -> Vec<String> {
    let mut known = BTreeSet::new();
    let mut list = Vec::new();
    for variable in image {
        let name = variable.split_once('=').map_or(variable.as_str(), |(name, _)| name);
        let said = match env.get(name) {
            Some(value) => Some(format!("{name}={value}")),
            None => (!variable.contains('=')).then(|| variable.clone()),
        };
        if let Some(said) = said.filter(|_| known.insert(name)) {
            list.push(said);
        }
    }
    let rest = env.iter().filter(|(name, _)| !known.contains(name.as_str()));
    list.extend(rest.map(|(name, value)| format!("{name}={value}")));
    list
}

pub(super) fn fields(config: &ImageConfig) -> Map<String, Value> {
    match serde_json::to_value(config) {
        Ok(Value::Object(fields)) => fields,
        _ => unreachable!("a configuration is an object, with text keys"),
    }
}

fn taken(map: &mut Map<String, Value>, key: &str) -> Map<String, Value> {
    match map.remove(key) {
        Some(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// `null` leaves a key out.
fn apply(map: &mut Map<String, Value>, extra: &BTreeMap<String, Value>) {
    for (key, value) in extra {
        if value.is_null() {
            map.remove(key);
        } else {
            map.insert(key.clone(), value.clone());
        }
    }
}

/// The keys whose values are not the same, with those of `wanted`.
pub(super) fn differing(made: &Map<String, Value>, wanted: &Map<String, Value>) -> BTreeMap<String, Value> {
    let keys: BTreeSet<&String> = made.keys().chain(wanted.keys()).collect();
    let value = |map: &Map<String, Value>, key: &String| map.get(key).cloned().unwrap_or_default();
    let differs = keys.into_iter().filter(|key| value(made, key) != value(wanted, key));
    differs.map(|key| (key.clone(), value(wanted, key))).collect()
}

fn without_own(map: &BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    let others = map.iter().filter(|(key, _)| !OWN.contains(&key.as_str()));
    others.map(|(key, value)| (key.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_keep_their_order() {
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let env = [("A", "1"), ("B", "2"), ("Z", "3")].map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        assert_eq!(ordered(&list(&["Z=0", "BARE", "A=0", "Z=3", "GONE=x"]), &env), ["Z=3", "BARE", "A=1", "B=2"]);
        assert_eq!(ordered(&[], &env), ["A=1", "B=2", "Z=3"]);
    }
}
