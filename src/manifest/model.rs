//! What a manifest says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::digest::{Digest, Seal};
use super::origin::{Extra, Healthcheck, Original, Step};
use super::packing::{Made, Packing};
use crate::files::{OMITTED, Reasons};
use crate::path::JailPath;

/// Numbers everything that affects a digest. A change to the bytes that come out for the same manifest is a new format.
pub const FORMAT: u32 = 1;

/// The list of what goes into an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Manifest {
    /// Always [`FORMAT`]; a manifest of another format is refused.
    pub minjail_format: u32,
    /// Seconds since 1970: the image's creation time, and the time of every entry that has none of its own.
    pub epoch: i64,
    /// How the entries become an image.
    #[serde(default)]
    pub packing: Packing,
    pub config: Config,
    /// True if every workload of a profile was run again in a jail made of this, and did what it should; false if that
    /// was skipped. `None`: built from saved traces, without a profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<bool>,
    /// The image that it was made from, by the diff IDs of its layers, the lowest first; empty where there was none. They
    /// are the same in whichever form that image lies there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Digest>,
    /// The layers that are that image's own, in the order of their numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub originals: Vec<Original>,
    /// What no file of the root has: enough to make the image again from this manifest and the root.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub made: BTreeMap<JailPath, Made>,
    /// Sorted bytewise by path, each path once, the root directory first, every parent present.
    pub entries: Vec<Entry>,
}

impl Manifest {
    /// Of these entries, made of no other image, with the epoch 0 and nothing said of how it is packed.
    pub fn new(config: Config, entries: Vec<Entry>) -> Self {
        Self {
            minjail_format: FORMAT,
            epoch: 0,
            packing: Packing::default(),
            config,
            verified: None,
            from: Vec::new(),
            originals: Vec::new(),
            made: BTreeMap::new(),
            entries,
        }
    }
}

/// How the image is to be run: what becomes the `config` of the OCI image configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// The architecture as GOARCH spells it: `amd64`, `arm64`, `386`.
    pub architecture: String,
    /// Of the architecture, as `v7` of `arm`; of an image that was made from another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Sorted by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    pub working_dir: String,
    /// `uid` or `uid:gid`, in numbers.
    pub user: String,
    /// Spelled `80/tcp`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub exposed_ports: BTreeSet<String>,
    /// Directories whose content is the container's, not the image's.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub volumes: BTreeSet<String>,
    /// The signal that stops the program, by name or number; else SIGTERM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Of the image that this one was made from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Step>,
    /// Of that image too: what is said in no other field.
    #[serde(default, skip_serializing_if = "Extra::is_empty")]
    pub extra: Extra,
}

/// One path of the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Entry {
    pub path: JailPath,
    #[serde(flatten)]
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky. In JSON an octal string: `"0755"`.
    #[serde(with = "octal")]
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970, as written to the layer.
    pub mtime: i64,
    /// Values in hexadecimal.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", with = "hex_values")]
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// The distribution package that the file is from: `deb:tzdata=2024b-0+deb12u1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// The layer that it is in, counted from the lowest, which is 0. Every layer that is counted has an entry, and a hard
    /// link is in the layer of what it links to.
    #[serde(default, skip_serializing_if = "is_lowest")]
    pub layer: u32,
    #[serde(default, skip_serializing_if = "is_empty")]
    pub reasons: Reasons,
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Kind {
    Directory,
    File {
        /// In bytes.
        size: u64,
        /// Of the content.
        sha256: Seal,
    },
    /// Another name of the file at `to`, which sorts before this one and is a [`Kind::File`].
    HardLink {
        to: JailPath,
    },
    Symlink {
        /// The link's text, escaped as paths are.
        #[serde(with = "escaped")]
        target: Vec<u8>,
    },
    Fifo,
    CharDevice {
        major: u64,
        minor: u64,
    },
    BlockDevice {
        major: u64,
        minor: u64,
    },
}

impl Entry {
    /// Of root, with the mode 0755, the time 0, and nothing else.
    pub fn new(path: JailPath, kind: Kind) -> Self {
        let (xattrs, reasons) = (BTreeMap::new(), Reasons::default());
        Self { path, kind, mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs, package: None, layer: 0, reasons }
    }
}

impl Kind {
    /// True for a name that a listing showed and nobody touched: a link to nowhere, in place of what has this name.
    pub fn is_name_only(&self) -> bool {
        matches!(self, Self::Symlink { target } if target == OMITTED.as_bytes())
    }
}

/// The time of a file's content when it was looked at. A content with another time is not the one that was meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Seconds since 1970.
    pub mtime: i64,
    pub mtime_nsec: u32,
}

/// Where the content of each [`Kind::File`] comes from.
pub type Sources = BTreeMap<JailPath, Source>;

/// Where a content comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The file at the same path below the root, as it was when somebody looked at it, if anybody did.
    Root(Option<Seen>),
    /// A file of the trace's store.
    Stored(PathBuf),
    /// Nothing but zeros, as many as the file is long.
    Zeros,
    /// These bytes.
    Made(Vec<u8>),
}

fn is_empty(reasons: &Reasons) -> bool {
    reasons.is_empty()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_lowest(layer: &u32) -> bool {
    *layer == 0
}

mod octal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
    pub(super) fn serialize<S: Serializer>(mode: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{mode:04o}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        let text = String::deserialize(deserializer)?;
        match u32::from_str_radix(&text, 8) {
            Ok(mode) if mode <= 0o7777 => Ok(mode),
            _ => Err(D::Error::custom(format!("`{text}` is not an octal mode"))),
        }
    }
}

mod escaped {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&crate::path::escape(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        crate::path::unescape(&text).ok_or_else(|| D::Error::custom(format!("bad escape in `{text}`")))
    }
}

mod hex_values {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(map: &BTreeMap<String, Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(map.iter().map(|(name, value)| (name, crate::path::hex(value))))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<String, Vec<u8>>, D::Error> {
        let map = BTreeMap::<String, String>::deserialize(deserializer)?;
        let value =
            |hex: &str| crate::path::unhex(hex).ok_or_else(|| D::Error::custom(format!("`{hex}` is not hexadecimal")));
        map.into_iter().map(|(name, hex)| Ok((name, value(&hex)?))).collect()
    }
}
