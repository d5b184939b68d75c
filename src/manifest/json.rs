//! The manifest as text: one form for one manifest, and nothing read that does not hold together.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use serde::Deserialize;

use super::layers::MOST_LAYERS;
use super::model::{Entry, FORMAT, Kind, Manifest};
use crate::path::JailPath;

/// A text is not a manifest.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    #[error("failed to read the manifest")]
    Json(#[from] serde_json::Error),
    #[error("the manifest is of format {found}, and this minjail reads format {FORMAT}")]
    Format { found: u64 },
    #[error("the entry of `{path}` has fields that minjail does not write there")]
    Fields { path: JailPath },
    #[error("the manifest does not begin with the root directory")]
    NoRoot,
    #[error("`{path}` is in the manifest twice")]
    Twice { path: JailPath },
    #[error("`{path}` is out of order in the manifest")]
    Order { path: JailPath },
    #[error("the directory of `{path}` is not in the manifest")]
    NoParent { path: JailPath },
    #[error("`{path}` is a hard link to `{to}`, which is not a file before it")]
    HardLink { path: JailPath, to: JailPath },
    #[error("`{path}` is a link that leads to an impossible path")]
    Target { path: JailPath },
    #[error("`{path}` is a hard link, and not in the layer of `{to}`")]
    LinkAcross { path: JailPath, to: JailPath },
    #[error("the manifest lists the original layers out of order, or one that it has not")]
    Originals,
    #[error("`{path}` is in layer {layer}, but the layers below are not all there, or are more than {MOST_LAYERS}")]
    Layer { path: JailPath, layer: u32 },
}

impl Manifest {
    /// The manifest as JSON: indented, ordered, with one newline at the end. Equal manifests give equal bytes.
    ///
    /// # Panics
    /// A content was not read yet: see [`Seal`](super::Seal).
    pub fn to_json(&self) -> String {
        let mut bytes = Vec::new();
        self.write_json(&mut bytes).expect("all contents were read, and writing to memory cannot fail");
        String::from_utf8(bytes).expect("JSON is UTF-8")
    }

    /// Writes what [`Self::to_json`] gives.
    ///
    /// # Errors
    /// What the writer says; a content was not read yet.
    pub fn write_json(&self, mut writer: impl Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut writer, self)?;
        writer.write_all(b"\n")
    }

    /// Reads a manifest and checks that it holds together.
    ///
    /// # Errors
    /// Not JSON, another format, or entries that no tree can have; see [`ParseError`].
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        // First the format alone: of another one, nothing else need be understood.
        let Format { minjail_format: found } = serde_json::from_str(text)?;
        if found != u64::from(FORMAT) {
            return Err(ParseError::Format { found });
        }
        let manifest: Self = serde_json::from_str(text)?;
        check(&manifest.entries)?;
        check_layers(&manifest.entries)?;
        check_originals(&manifest)?;
        check_fields(&manifest, text)?;
        Ok(manifest)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Format {
    minjail_format: u64,
}

fn check(entries: &[Entry]) -> Result<(), ParseError> {
    match entries.first() {
        Some(Entry { path, kind: Kind::Directory, .. }) if path.is_root() => {}
        _ => return Err(ParseError::NoRoot),
    }
    let mut before: BTreeMap<&JailPath, &Kind> = BTreeMap::new();
    for entry in entries {
        let path = || entry.path.clone();
        match before.last_key_value() {
            Some((last, _)) if **last == entry.path => return Err(ParseError::Twice { path: path() }),
            Some((last, _)) if **last > entry.path => return Err(ParseError::Order { path: path() }),
            _ => {}
        }
        if let Some(parent) = entry.path.parent() {
            if before.get(&parent) != Some(&&Kind::Directory) {
                return Err(ParseError::NoParent { path: path() });
            }
        }
        match &entry.kind {
            Kind::HardLink { to } if !matches!(before.get(to), Some(Kind::File { .. })) => {
                return Err(ParseError::HardLink { path: path(), to: to.clone() });
            }
            Kind::Symlink { target } if target.is_empty() || target.contains(&0) => {
                return Err(ParseError::Target { path: path() });
            }
            _ => {}
        }
        before.insert(&entry.path, &entry.kind);
    }
    Ok(())
}

fn check_layers(entries: &[Entry]) -> Result<(), ParseError> {
    let layers: BTreeMap<&JailPath, u32> = entries.iter().map(|entry| (&entry.path, entry.layer)).collect();
    let numbers: BTreeSet<u32> = layers.values().copied().collect();
    for entry in entries {
        let (path, layer) = (&entry.path, entry.layer);
        if layer >= MOST_LAYERS || numbers.range(..layer).count() as u32 != layer {
            return Err(ParseError::Layer { path: path.clone(), layer });
        }
        if let Kind::HardLink { to } = &entry.kind {
            if layers.get(to) != Some(&layer) {
                return Err(ParseError::LinkAcross { path: path.clone(), to: to.clone() });
            }
        }
    }
    Ok(())
}

fn check_originals(manifest: &Manifest) -> Result<(), ParseError> {
    let last = manifest.entries.iter().map(|entry| entry.layer).max();
    let are_sorted = manifest.originals.is_sorted_by(|one, other| one.layer < other.layer);
    let are_there = manifest.originals.iter().all(|original| Some(original.layer) <= last);
    if are_sorted && are_there { Ok(()) } else { Err(ParseError::Originals) }
}

/// An entry is flattened, and serde cannot refuse unknown fields of such a struct: what comes out is compared with what
/// went in. A path that is not in its one form (`/a//b`) is found by the same.
fn check_fields(manifest: &Manifest, text: &str) -> Result<(), ParseError> {
    let written: Written<'_> = serde_json::from_str(text)?;
    for (entry, written) in manifest.entries.iter().zip(written.entries) {
        if serde_json::to_value(entry)? != serde_json::from_str::<serde_json::Value>(written.get())? {
            return Err(ParseError::Fields { path: entry.path.clone() });
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct Written<'a> {
    /// Each as its text: as values, those of a large manifest would take many times the memory of the manifest.
    #[serde(borrow)]
    entries: Vec<&'a serde_json::value::RawValue>,
}
