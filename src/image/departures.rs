//! Whether an image is what a lock describes, to the last byte of its layers and the last word of its configuration.
//!
//! In: an image, and a lock. Out: in what the image departs from it. What its files amount to is seen elsewhere: here it counts that a
//! layer has nothing which no file shows, as what a later one hides, or an attribute that minjail does not keep. How layers
//! are compressed does not count, nor what names the image: its annotations, tags and references.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::error::{ImageError, ReadError};
use super::extra;
use super::oci::ImageConfig;
use super::read::Image;
use super::stream;
use crate::layer::untar::UntarError;
use crate::layer::{Departure, LayerError, departure};
use crate::manifest::{Aspect, Entry, Manifest};

/// What of a configuration the lock's own fields say.
const IN_THE_LOCK: [&str; 3] = ["architecture", "config", "variant"];

impl Image {
    /// Which layers are not the bytes that `lock` describes, and in what else the image departs from it. Layers that the lock says
    /// are another image's are known by their digests, and not read.
    ///
    /// # Errors
    /// A layer cannot be read, or the time of the lock has no date.
    pub fn departures(&self, lock: &Manifest) -> Result<Vec<Aspect>, ImageError> {
        let mut found = self.layer_departures(lock)?;
        if let Some(config) = &self.config {
            found.extend(self.config_departures(config, lock)?);
        }
        Ok(found)
    }

    fn layer_departures(&self, lock: &Manifest) -> Result<Vec<Aspect>, ImageError> {
        let is_bare = self.config.is_none();
        let layers = lock.layers();
        let wanted: Vec<Vec<&Entry>> = if is_bare {
            vec![lock.entries.iter().collect()]
        } else {
            layers.iter().map(|entries| entries.iter().map(AsRef::as_ref).collect()).collect()
        };
        if wanted.len() != self.layers.len() {
            let (from, to) = (wanted.len().to_string(), self.layers.len().to_string());
            return Ok(vec![Aspect { what: "number of layers", from, to }]);
        }
        let originals: BTreeSet<usize> =
            lock.originals.iter().filter(|_| !is_bare).map(|original| original.layer as usize).collect();
        let mut found = Vec::new();
        for (number, (entries, layer)) in wanted.iter().zip(&self.layers).enumerate() {
            if originals.contains(&number) {
                continue;
            }
            let mut bytes = stream::decompressed(layer).map_err(ImageError::Original)?;
            let departure = departure(entries, &mut bytes).map_err(|error| match error {
                LayerError::Read(source) => ImageError::Original(ReadError::Archive {
                    path: layer.part.name.clone(),
                    source: UntarError::Read(source),
                }),
                error => error.into(),
            })?;
            let at = match departure {
                None => continue,
                Some(Departure::At(path)) => format!("at {path}"),
                Some(Departure::End) => "at its end".to_owned(),
            };
            found.push(Aspect { what: "bytes of layer", from: number.to_string(), to: format!("others {at}") });
        }
        Ok(found)
    }

    fn config_departures(&self, config: &ImageConfig, lock: &Manifest) -> Result<Vec<Aspect>, ImageError> {
        let originals = lock.originals.iter().map(|original| original.layer).collect();
        let wanted = extra::fields(&extra::described_with(lock, self.diff_ids(), &originals)?);
        let found = extra::fields(config);
        let text =
            |map: &Map<String, Value>, key: &str| map.get(key).map_or_else(|| "none".to_owned(), Value::to_string);
        let differing =
            extra::differing(&wanted, &found).into_keys().filter(|key| !IN_THE_LOCK.contains(&key.as_str()));
        let aspect = |key: String| {
            let (from, to) = (text(&wanted, &key), text(&found, &key));
            Aspect { what: "configuration", from: format!("{key} {from}"), to: format!("{key} {to}") }
        };
        let unknown = config.history.iter().flatten().flat_map(|step| &step.other).chain(&config.rootfs.other);
        let unknown = unknown.map(|(key, value)| Aspect {
            what: "configuration",
            from: "none".to_owned(),
            to: format!("{key} {value}, in its history or rootfs"),
        });
        Ok(differing.map(aspect).chain(unknown).collect())
    }
}
