//! What differs between two manifests.
//!
//! In: two manifests, and which aspects of their entries count. Out: every path that one of them alone has or that
//! differs, and in what, sorted by path. Reasons are never compared: they make no byte of an image.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::digest::{Digest, Seal};
use super::model::{Config, Entry, Kind, Manifest};
use crate::path::{JailPath, escape};

/// A path, or a part of the configuration, that is not the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// `None` for the configuration and the packing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<JailPath>,
    #[serde(flatten)]
    pub change: Change,
}

/// How two sides differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Change {
    /// Only the second side has it; the first may have its name, as a listing shows it.
    #[serde(rename_all = "kebab-case")]
    Added {
        bytes: u64,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        had_name: bool,
    },
    /// Only the first side has it, but perhaps for its name.
    #[serde(rename_all = "kebab-case")]
    Removed {
        bytes: u64,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        has_name: bool,
    },
    /// Both have it; each aspect that differs, sorted.
    Changed { aspects: Vec<Aspect> },
}

/// One thing that differs, and what it is on either side.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Aspect {
    pub what: &'static str,
    pub from: String,
    pub to: String,
}

/// Which aspects of an entry count: not every side knows all of them.
#[expect(clippy::struct_excessive_bools, reason = "each is one thing that a side may not know")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aspects {
    /// How the image is made: epoch, compression, times.
    pub packing: bool,
    /// How the image is run.
    pub config: bool,
    pub packages: bool,
    pub owners: bool,
    pub times: bool,
}

impl Aspects {
    pub const ALL: Self = Self { packing: true, config: true, packages: true, owners: true, times: true };
}

/// What differs between `from` and `to`, of which all contents were read: first the packing and the configuration, then the
/// entries by path.
pub fn diff(from: &Manifest, to: &Manifest, aspects: Aspects) -> Vec<Difference> {
    let mut found = Vec::new();
    let general = general(from, to, aspects);
    if !general.is_empty() {
        found.push(Difference { path: None, change: Change::Changed { aspects: general } });
    }
    found.extend(entries(&from.entries, &to.entries, aspects));
    found
}

/// What differs between two sorted lists of entries.
pub(super) fn entries(from: &[Entry], to: &[Entry], aspects: Aspects) -> Vec<Difference> {
    let mut found = Vec::new();
    let (mut from, mut to) = (from.iter().peekable(), to.iter().peekable());
    loop {
        let order = match (from.peek(), to.peek()) {
            (None, None) => return found,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(one), Some(other)) => one.path.cmp(&other.path),
        };
        let one = from.next_if(|_| order.is_le());
        let other = to.next_if(|_| order.is_ge());
        let (path, change) = match (one, other) {
            // A name alone stands for nothing that it is the name of.
            (Some(one), Some(other)) if one.kind.is_name_only() != other.kind.is_name_only() => {
                let change = if other.kind.is_name_only() {
                    Change::Removed { bytes: size(one), has_name: true }
                } else {
                    Change::Added { bytes: size(other), had_name: true }
                };
                (&one.path, change)
            }
            (Some(one), Some(other)) => match compare(one, other, aspects) {
                changed if changed.is_empty() => continue,
                changed => (&one.path, Change::Changed { aspects: changed }),
            },
            (Some(one), None) => (&one.path, Change::Removed { bytes: size(one), has_name: false }),
            (None, Some(other)) => (&other.path, Change::Added { bytes: size(other), had_name: false }),
            (None, None) => unreachable!("one of the two was peeked at"),
        };
        found.push(Difference { path: Some(path.clone()), change });
    }
}

/// Takes down what differs.
#[derive(Default)]
struct Changed(BTreeSet<Aspect>);

impl Changed {
    fn note(&mut self, what: &'static str, from: impl fmt::Display, to: impl fmt::Display) {
        let (from, to) = (from.to_string(), to.to_string());
        if from != to {
            self.0.insert(Aspect { what, from, to });
        }
    }

    fn into_aspects(self) -> Vec<Aspect> {
        self.0.into_iter().collect()
    }
}

fn compare(one: &Entry, other: &Entry, aspects: Aspects) -> Vec<Aspect> {
    let mut changed = Changed::default();
    changed.note("type", type_name(&one.kind), type_name(&other.kind));
    match (&one.kind, &other.kind) {
        (Kind::File { size, sha256 }, Kind::File { size: other_size, sha256: other_sha256 }) => {
            changed.note("size", size, other_size);
            changed.note("content", read(sha256), read(other_sha256));
        }
        (Kind::Symlink { target }, Kind::Symlink { target: other }) => {
            changed.note("target", escape(target), escape(other));
        }
        (Kind::HardLink { to }, Kind::HardLink { to: other }) => changed.note("target", to, other),
        (
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor },
            Kind::CharDevice { major: other_major, minor: other_minor }
            | Kind::BlockDevice { major: other_major, minor: other_minor },
        ) => changed.note("device", format_args!("{major}:{minor}"), format_args!("{other_major}:{other_minor}")),
        _ => {}
    }
    // Another name of a file has the file's metadata, and no tool need say them twice.
    let is_link = matches!(one.kind, Kind::HardLink { .. }) && matches!(other.kind, Kind::HardLink { .. });
    if !is_link {
        metadata(one, other, aspects, &mut changed);
    }
    if aspects.packages {
        let package = |entry: &Entry| entry.package.clone().unwrap_or_else(|| "none".to_owned());
        changed.note("package", package(one), package(other));
    }
    if aspects.packing {
        changed.note("layer", one.layer, other.layer);
    }
    changed.into_aspects()
}

/// The digest of a content that is compared.
fn read(seal: &Seal) -> Digest {
    seal.get().expect("contents are compared when both sides were read")
}

fn metadata(one: &Entry, other: &Entry, aspects: Aspects, changed: &mut Changed) {
    // Without the right to give files away nobody sets these bits: the program would run as the wrong user.
    let bits = if aspects.owners { 0o7777 } else { 0o1777 };
    changed.note("mode", format_args!("{:04o}", one.mode & bits), format_args!("{:04o}", other.mode & bits));
    if aspects.owners {
        changed.note("owner", format_args!("{}:{}", one.uid, one.gid), format_args!("{}:{}", other.uid, other.gid));
    }
    if aspects.times {
        changed.note("mtime", one.mtime, other.mtime);
    }
    let names: BTreeSet<_> = one.xattrs.keys().chain(other.xattrs.keys()).collect();
    for name in names {
        let value = |entry: &Entry| {
            let value = entry.xattrs.get(name).map(|value| crate::path::hex(value));
            format!("{}={}", escape(name.as_bytes()), value.unwrap_or_else(|| "none".to_owned()))
        };
        changed.note("xattr", value(one), value(other));
    }
}

fn general(from: &Manifest, to: &Manifest, aspects: Aspects) -> Vec<Aspect> {
    let mut changed = Changed::default();
    if aspects.packing {
        packing(from, to, &mut changed);
    }
    if aspects.config {
        config(&from.config, &to.config, &mut changed);
    }
    changed.into_aspects()
}

fn packing(from: &Manifest, to: &Manifest, changed: &mut Changed) {
    changed.note("epoch", from.epoch, to.epoch);
    let (one, other) = (&from.packing, &to.packing);
    changed.note("name", &one.name, &other.name);
    changed.note("compression", &one.compression, &other.compression);
    changed.note("compressor", &one.compressor, &other.compressor);
    changed.note("block-size", one.block_size, other.block_size);
    changed.note("layers", one.layers, other.layers);
    changed.note("times", one.mtime, other.mtime);
    changed.note("originals", json(&from.originals), json(&to.originals));
}

fn config(one: &Config, other: &Config, changed: &mut Changed) {
    changed.note("architecture", &one.architecture, &other.architecture);
    changed.note("entrypoint", json(&one.entrypoint), json(&other.entrypoint));
    changed.note("cmd", json(&one.cmd), json(&other.cmd));
    changed.note("env", json(&one.env), json(&other.env));
    changed.note("working-dir", &one.working_dir, &other.working_dir);
    changed.note("user", &one.user, &other.user);
    changed.note("exposed-ports", json(&one.exposed_ports), json(&other.exposed_ports));
    changed.note("volumes", json(&one.volumes), json(&other.volumes));
    changed.note("stop-signal", json(&one.stop_signal), json(&other.stop_signal));
    changed.note("labels", json(&one.labels), json(&other.labels));
    changed.note("variant", json(&one.variant), json(&other.variant));
    changed.note("healthcheck", json(&one.healthcheck), json(&other.healthcheck));
    changed.note("extra", json(&one.extra.lasting()), json(&other.extra.lasting()));
}

/// A list or map, for a person.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("lists and maps of text")
}

fn type_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Directory => "directory",
        Kind::File { .. } => "file",
        Kind::HardLink { .. } => "hard link",
        Kind::Symlink { .. } => "link",
        Kind::Fifo => "fifo",
        Kind::CharDevice { .. } => "character device",
        Kind::BlockDevice { .. } => "block device",
    }
}

fn size(entry: &Entry) -> u64 {
    if let Kind::File { size, .. } = entry.kind { size } else { 0 }
}

impl fmt::Display for Difference {
    /// One line: `changed /bin/sh: mode 0755 -> 0777`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.as_ref().map_or_else(|| "the image".to_owned(), ToString::to_string);
        match &self.change {
            Change::Added { bytes, had_name } => {
                let name = if *had_name { ", of which there was the name" } else { "" };
                write!(formatter, "added {path} ({bytes} bytes{name})")
            }
            Change::Removed { bytes, has_name } => {
                let name = if *has_name { ", but not its name" } else { "" };
                write!(formatter, "removed {path} ({bytes} bytes{name})")
            }
            Change::Changed { aspects } => {
                write!(formatter, "changed {path}: ")?;
                for (number, Aspect { what, from, to }) in aspects.iter().enumerate() {
                    let comma = if number == 0 { "" } else { ", " };
                    write!(formatter, "{comma}{what} {from} -> {to}")?;
                }
                Ok(())
            }
        }
    }
}
