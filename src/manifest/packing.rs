//! What a manifest says of how its bytes come to be, besides the entries: the packing, and the contents that no file of
//! the root has.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::layers::Layers;
use crate::files::Rules;

/// How the entries become an image: all that its digests depend on besides the entries and the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Packing {
    /// What the image is called where an output does not say.
    pub name: String,
    /// How layers are compressed, with the level: `gzip:6`.
    pub compression: String,
    /// Who compresses, with the version: `zlib-rs 0.6.8`. Another one may give other bytes for the same layer.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub compressor: String,
    /// The stream is cut into blocks of this size for the compressor.
    pub block_size: u64,
    #[serde(default)]
    pub layers: Layers,
    pub mtime: Times,
    /// The rules that were switched for the entries, to choose them again from the same traces.
    #[serde(default, skip_serializing_if = "Rules::is_empty")]
    pub rules: Rules,
}

/// Which times the entries get.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Times {
    /// The epoch, for everything.
    Fixed,
    /// The file's own, but the epoch if that is earlier.
    Clamp,
    /// Three kinds of files keep their own: those that a distribution package brought, those whose compiled form names their
    /// time, and those that have the name and the time of a package's file. Other files get the newest time of a packaged
    /// one, if that is later than the epoch; everything else gets the epoch.
    #[default]
    Packaged,
    /// The file's or link's own; directories get the epoch, but for what a layer says that is another image's.
    Files,
    /// The file's own.
    Keep,
}

/// A text names no times.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no way to set times: give `fixed`, `clamp`, `packaged`, `files` or `keep`")]
pub struct UnknownTimes(String);

impl FromStr for Times {
    type Err = UnknownTimes;

    fn from_str(text: &str) -> Result<Self, UnknownTimes> {
        match text {
            "fixed" => Ok(Self::Fixed),
            "clamp" => Ok(Self::Clamp),
            "packaged" => Ok(Self::Packaged),
            "files" => Ok(Self::Files),
            "keep" => Ok(Self::Keep),
            _ => Err(UnknownTimes(text.to_owned())),
        }
    }
}

impl fmt::Display for Times {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Fixed => "fixed",
            Self::Clamp => "clamp",
            Self::Packaged => "packaged",
            Self::Files => "files",
            Self::Keep => "keep",
        })
    }
}

/// What minjail put in the place of what the root has. A lock holds it, so that the bytes can be made again from the
/// lock and the root alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Made {
    /// An empty directory: a mount point.
    Directory,
    /// A file with this content.
    File(Vec<u8>),
}

/// The forms in JSON: text as text, so that a change of it can be read; else zeros by their number, else hexadecimal.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Written {
    Directory {},
    Text(String),
    Zeros(u64),
    Hex(String),
}

impl Serialize for Made {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let written = match self {
            Self::Directory => Written::Directory {},
            Self::File(bytes) if !bytes.is_empty() && bytes.iter().all(|&byte| byte == 0) => {
                Written::Zeros(bytes.len() as u64)
            }
            Self::File(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) if !text.contains('\0') => Written::Text(text.to_owned()),
                _ => Written::Hex(crate::path::hex(bytes)),
            },
        };
        written.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Made {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        Ok(match Written::deserialize(deserializer)? {
            Written::Directory {} => Self::Directory,
            Written::Text(text) => Self::File(text.into_bytes()),
            Written::Zeros(count) => {
                // A lock may come from anywhere: it shall not ask for more memory than a machine has.
                let count = usize::try_from(count).ok().filter(|count| *count <= MOST_ZEROS);
                Self::File(vec![0; count.ok_or_else(|| D::Error::custom("too many zeros"))?])
            }
            Written::Hex(hex) => {
                let bytes = crate::path::unhex(&hex);
                Self::File(bytes.ok_or_else(|| D::Error::custom(format!("`{hex}` is not hexadecimal")))?)
            }
        })
    }
}

const MOST_ZEROS: usize = 1 << 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_content_has_one_form() {
        for (made, text) in [
            (Made::Directory, r#"{"directory":{}}"#),
            (Made::File(b"root:x:0:0\n".to_vec()), r#"{"text":"root:x:0:0\n"}"#),
            (Made::File(Vec::new()), r#"{"text":""}"#),
            (Made::File(vec![0; 4]), r#"{"zeros":4}"#),
            (Made::File(b"a\0\xff".to_vec()), r#"{"hex":"6100ff"}"#),
        ] {
            assert_eq!(serde_json::to_string(&made).unwrap(), text);
            assert_eq!(serde_json::from_str::<Made>(text).unwrap(), made);
        }
        assert!(serde_json::from_str::<Made>(r#"{"hex":"6"}"#).is_err());
        assert!(serde_json::from_str::<Made>(r#"{"zeros":18446744073709551615}"#).is_err());
    }
}
