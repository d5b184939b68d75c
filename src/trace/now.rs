//! What stands where, as far as it is not what stood there before the run.
//!
//! In: what the run makes and moves, path by path. Out: where what is at a path now was before. Of what the run has made no name is
//! kept, only 96 bits of its SHA-256, by directory: a run may make very many files.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

use crate::path::JailPath;

/// Where something stood before the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// Nowhere: the run has made it, or is about to.
    Made,
    /// What stood here before stands elsewhere: whatever is here from now on was not.
    Gone,
    At(JailPath),
}

/// What is known of paths, unless their directories say it: what is in a directory went with that.
#[derive(Debug, Clone, Default)]
pub(super) struct Now {
    /// Names of what the run has made, by directory.
    made: BTreeMap<JailPath, BTreeSet<Name>>,
    /// Everything else.
    others: BTreeMap<JailPath, Origin>,
}

type Name = [u8; 12];

fn name(path: &JailPath) -> Name {
    *Sha256::digest(path.file_name()).first_chunk().expect("it has 32 bytes")
}

impl Now {
    pub(super) fn is_empty(&self) -> bool {
        self.made.is_empty() && self.others.is_empty()
    }

    /// What is known of `path` itself.
    pub(super) fn get(&self, path: &JailPath) -> Option<&Origin> {
        if self.is_made(path) { Some(&Origin::Made) } else { self.others.get(path) }
    }

    fn is_made(&self, path: &JailPath) -> bool {
        let names = if self.made.is_empty() { None } else { path.parent().and_then(|parent| self.made.get(&parent)) };
        names.is_some_and(|names| names.contains(&name(path)))
    }

    pub(super) fn insert(&mut self, path: JailPath, origin: Origin) {
        if let Some(directory) = path.parent().filter(|_| origin == Origin::Made) {
            self.others.remove(&path);
            self.made.entry(directory).or_default().insert(name(&path));
        } else {
            self.remove(&path);
            self.others.insert(path, origin);
        }
    }

    fn remove(&mut self, path: &JailPath) {
        self.others.remove(path);
        let Some(directory) = path.parent() else { return };
        let Some(names) = self.made.get_mut(&directory) else { return };
        names.remove(&name(path));
        if names.is_empty() {
            self.made.remove(&directory);
        }
    }

    /// Takes out what is known of `path`, and gives what is known of all below.
    pub(super) fn take(&mut self, path: &JailPath) -> Self {
        self.remove(path);
        let own = self.made.remove_entry(path);
        let made = take_below(&mut self.made, path).chain(own).collect();
        Self { made, others: take_below(&mut self.others, path).collect() }
    }

    /// What was known of all below `from` is so of what is below `to` now, of which nothing else is known.
    pub(super) fn put(&mut self, below: &Self, from: &JailPath, to: &JailPath) {
        for (directory, names) in &below.made {
            self.made.entry(moved_below(directory, from, to)).or_default().extend(names);
        }
        for (path, origin) in &below.others {
            self.others.insert(moved_below(path, from, to), origin.clone());
        }
    }

    /// What was somewhere before the run and is elsewhere now: there, and here.
    pub(super) fn moved(&self) -> impl Iterator<Item = (&JailPath, &JailPath)> {
        self.others.iter().filter_map(|(at, origin)| match origin {
            Origin::At(origin) => Some((origin, at)),
            Origin::Made | Origin::Gone => None,
        })
    }
}

/// Takes out what `all` has of paths below `path`.
fn take_below<T>(all: &mut BTreeMap<JailPath, T>, path: &JailPath) -> impl Iterator<Item = (JailPath, T)> {
    // No name starts with a lesser byte than 1.
    let below = all.range(path.join(&[1])..).map(|(at, _)| at).take_while(|at| at.starts_with(path));
    let below: Vec<JailPath> = below.cloned().collect();
    below.into_iter().filter_map(|at| all.remove_entry(&at))
}

/// `path`, which is `from` or below it, when that stands at `to`.
pub(super) fn moved_below(path: &JailPath, from: &JailPath, to: &JailPath) -> JailPath {
    let depth = from.components().count();
    JailPath::of(to.components().chain(path.components().skip(depth)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> JailPath {
        JailPath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_is_made_is_known_by_directory() {
        let mut now = Now::default();
        for made in ["/d/a", "/d/b", "/d", "/d-too"] {
            now.insert(path(made), Origin::Made);
        }
        now.insert(path("/d/a"), Origin::At(path("/old")));
        assert_eq!(now.moved().collect::<Vec<_>>(), [(&path("/old"), &path("/d/a"))]);
        let below = now.take(&path("/d"));
        assert_eq!(["/d", "/d/a", "/d/b"].map(|text| now.get(&path(text))), [None; 3]);
        assert_eq!(now.get(&path("/d-too")), Some(&Origin::Made));
        now.put(&below, &path("/d"), &path("/e/f"));
        assert_eq!(now.get(&path("/e/f/a")), Some(&Origin::At(path("/old"))));
        assert_eq!((now.get(&path("/e/f/b")), now.get(&path("/e/f"))), (Some(&Origin::Made), None));
        now.take(&path("/"));
        assert!(now.is_empty());
    }

    fn any_path() -> impl Strategy<Value = JailPath> {
        proptest::collection::vec(prop_oneof![Just("a"), Just("a-"), Just("b"), Just("\u{1}")], 0..4)
            .prop_map(|names| JailPath::of(names.iter().map(|name| name.as_bytes())))
    }

    fn any_origin() -> impl Strategy<Value = Origin> {
        prop_oneof![Just(Origin::Made), Just(Origin::Gone), any_path().prop_map(Origin::At)]
    }

    proptest! {
        /// It is as a map from paths would be.
        #[test]
        fn as_a_map(steps in proptest::collection::vec((any_path(), any_origin(), any::<bool>(), any_path()), 0..40)) {
            let (mut now, mut map, mut paths) = (Now::default(), HashMap::new(), BTreeSet::new());
            for (at, origin, is_taken, to) in steps {
                paths.extend([at.clone(), to.clone()]);
                if is_taken {
                    let below = now.take(&at);
                    let taken: Vec<JailPath> = map.keys().filter(|path: &&JailPath| path.starts_with(&at)).cloned().collect();
                    let taken: Vec<_> = taken.into_iter().filter_map(|path| map.remove_entry(&path)).collect();
                    now.take(&to);
                    map.retain(|path, _| !path.starts_with(&to));
                    now.put(&below, &at, &to);
                    for (path, origin) in taken.into_iter().filter(|(path, _)| *path != at) {
                        let path = moved_below(&path, &at, &to);
                        paths.insert(path.clone());
                        map.insert(path, origin);
                    }
                } else {
                    now.insert(at.clone(), origin.clone());
                    map.insert(at, origin);
                }
                for path in &paths {
                    prop_assert_eq!(now.get(path), map.get(path), "{}", path);
                }
                prop_assert_eq!(now.is_empty(), map.is_empty());
            }
        }
    }
}
