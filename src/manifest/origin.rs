//! What a manifest says of the image that its own was made from, where it was made from one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::digest::Digest;

/// What stands in the configuration of the image that this one was made from, and minjail does not know, or would write
/// otherwise. In the new configuration it stands as it is here, in place of what would be there; `null` leaves a key out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Extra {
    /// Of the configuration, but for `config`, `rootfs` and `history`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub image: BTreeMap<String, Value>,
    /// Of its `config`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, Value>,
}

impl Extra {
    pub fn is_empty(&self) -> bool {
        self.image.is_empty() && self.config.is_empty()
    }

    /// What of it is said of the image, whenever that was made.
    pub(super) fn lasting(&self) -> Self {
        let said = |map: &BTreeMap<String, Value>| {
            let said = map.iter().filter(|(key, value)| *key != "created" && !value.is_null());
            said.map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        Self { image: said(&self.image), config: said(&self.config) }
    }
}

/// A layer that is not made of the entries: it is one of the image that this one was made from, byte for byte, and amounts
/// to exactly what the entries say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Original {
    /// Its number.
    pub layer: u32,
    /// Of the tar stream, which every form of the image has.
    pub diff_id: Digest,
    /// Of the stream as that image has it compressed, which the OCI forms have too; `None` if it is compressed anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob: Option<Digest>,
}

/// One step of the history of the image that this one was made from, in its own words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Step {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// The layer that has what is left of what the step made; `None` if it made no layer, or nothing of that is left, or
    /// all is in one layer now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<u32>,
}

/// How an engine learns whether a container is well, as docker spells it; times are in nanoseconds. The OCI
/// specification does not know it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `["CMD", PROGRAM, ARGUMENT...]`, `["CMD-SHELL", LINE]` or `["NONE"]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_period: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_interval: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<i64>,
}

impl Healthcheck {
    /// True if it says that there is none, as `["NONE"]` does.
    pub fn is_off(&self) -> bool {
        self.test.as_deref().is_none_or(|test| test.first().is_none_or(|how| how == "NONE"))
    }
}
