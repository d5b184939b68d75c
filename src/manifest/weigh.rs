//! How much two manifests have of each package, or in each directory.
//!
//! In: two manifests, and which group an entry is of. Out: the groups, those first of which the two sides have the most
//! different amounts. A file that has several names counts once.

use std::collections::BTreeMap;

use serde::Serialize;

use super::model::{Entry, Kind, Manifest};

/// Files of which something is the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Group {
    pub name: String,
    pub from: Weight,
    pub to: Weight,
}

/// So much content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Weight {
    pub files: u64,
    pub bytes: u64,
}

/// What `from` and `to` have of each group; `name` tells an entry's.
pub fn weigh(from: &Manifest, to: &Manifest, name: impl Fn(&Entry) -> String) -> Vec<Group> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for (manifest, is_to) in [(from, false), (to, true)] {
        for entry in &manifest.entries {
            let Kind::File { size, .. } = entry.kind else { continue };
            let name = name(entry);
            let group = groups.entry(name.clone()).or_insert_with(|| Group { name, ..Group::default() });
            let weight = if is_to { &mut group.to } else { &mut group.from };
            weight.files += 1;
            weight.bytes += size;
        }
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    // Stable: equal ones stay in the order of their names.
    groups.sort_by_key(|group| std::cmp::Reverse(group.from.bytes.abs_diff(group.to.bytes)));
    groups
}
