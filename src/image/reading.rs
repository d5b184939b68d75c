//! Which of several images is read, and how much of it at most: images come from strangers.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::error::ReadError;
use super::oci::{Platform, host_architecture};
use crate::layer::untar::{Member, MemberKind};

/// How an image is read.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// Of an image for several platforms; `None`: this machine's.
    pub platform: Option<Platform>,
    pub limits: Limits,
}

/// What an image may have at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Of all layers together, uncompressed, in bytes.
    pub size: u64,
    /// Of all layers together, with the directories that none of them names. One with a long name, link text or
    /// attributes counts as one for each KiB of them, and once more for each 32 components on the way to it.
    pub entries: u64,
}

impl Limits {
    /// Above what images have that are meant to be used, and below what fills a machine's memory.
    pub const USUAL: Self = Self { size: 64 << 30, entries: 1_000_000 };

    /// # Errors
    /// `used` is more than this.
    pub(super) fn check(self, used: Self) -> Result<(), ReadError> {
        if used.size > self.size {
            return Err(ReadError::TooMuch { limit: self.size });
        }
        if used.entries > self.entries {
            return Err(ReadError::TooMany { limit: self.entries });
        }
        Ok(())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::USUAL
    }
}

/// What of the limits was used up; several threads may draw on it.
#[derive(Debug, Default)]
pub(super) struct Budget {
    limits: Limits,
    size: AtomicU64,
    entries: AtomicU64,
}

impl Budget {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Takes bytes of a tar stream.
    pub(super) fn take_bytes(&self, count: usize) {
        self.size.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(super) fn take(&self, member: &Member) {
        let link = match &member.kind {
            MemberKind::HardLink(target) | MemberKind::Symlink(target) => target.len(),
            _ => 0,
        };
        let count = 1 + (member.name.len() + link + weight(&member.xattrs)) as u64 / 1024;
        self.take_entries(count);
    }

    /// Takes what another copy of these attributes costs.
    pub(super) fn take_attributes(&self, xattrs: &Xattrs) {
        self.take_entries(weight(xattrs) as u64 / 1024);
    }

    /// Takes what a layer has not named itself, and what it costs to get there.
    pub(super) fn take_entries(&self, count: u64) {
        self.entries.fetch_add(count, Ordering::Relaxed);
    }

    /// # Errors
    /// More was taken than there is.
    pub(super) fn check(&self) -> Result<(), ReadError> {
        self.limits.check(self.used())
    }

    /// What was taken so far.
    pub(super) fn used(&self) -> Limits {
        Limits { size: self.size.load(Ordering::Relaxed), entries: self.entries.load(Ordering::Relaxed) }
    }
}

type Xattrs = BTreeMap<String, Vec<u8>>;

/// How many bytes attributes take in memory, about: the smallest has a place in a map, and two allocations.
fn weight(xattrs: &Xattrs) -> usize {
    xattrs.iter().map(|(name, value)| 100 + name.len() + value.len()).sum()
}

/// A text is no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no platform; one is spelled `linux/arm64` or `linux/arm/v7`")]
pub struct NoPlatform(String);

impl FromStr for Platform {
    type Err = NoPlatform;

    fn from_str(text: &str) -> Result<Self, NoPlatform> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts.as_slice() {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => return Err(NoPlatform(text.to_owned())),
        };
        if parts.iter().any(|part| part.is_empty()) {
            return Err(NoPlatform(text.to_owned()));
        }
        let own = |text: &&str| (*text).to_owned();
        Ok(Self { architecture: own(architecture), os: own(os), variant: variant.map(own) })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(formatter, "/{variant}"))
    }
}

impl Platform {
    /// What this machine runs.
    pub(super) fn host() -> Self {
        Self { architecture: host_architecture().to_owned(), os: "linux".to_owned(), variant: None }
    }

    /// True if both are of one system and architecture, whatever their variants.
    pub(super) fn is_for_machine_of(&self, other: &Self) -> bool {
        self.os == other.os && self.architecture == other.architecture
    }

    /// True if what is for `self` is what was asked for; a variant matters only if one was asked for.
    pub(super) fn is(&self, wanted: &Self) -> bool {
        self.is_for_machine_of(wanted) && (wanted.variant.is_none() || self.variant == wanted.variant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_and_what_is_none() {
        for text in ["linux/amd64", "linux/arm/v7"] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), text);
        }
        for text in ["", "linux", "linux/", "/arm64", "linux/arm/v7/x", "linux//v7"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
        let [arm, v7, v6] = ["linux/arm", "linux/arm/v7", "linux/arm/v6"].map(|text| text.parse::<Platform>().unwrap());
        assert!(v7.is(&arm) && v7.is(&v7) && !v7.is(&v6) && !arm.is(&v7));
    }
}
