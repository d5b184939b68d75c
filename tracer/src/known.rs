//! What was told already.
//!
//! A task asks for the same few paths over and over. What it asked for before, in the same place, needs no second walk
//! and no second event, as long as no name has changed since.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, RandomState};

/// At most so many paths are remembered; then the set starts anew. Telling twice is harmless.
const LIMIT: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct Known {
    /// Two independent keyed 64-bit hashes: 128 bits, which nobody can make collide without the keys.
    seen: HashSet<(u64, u64)>,
    keys: [RandomState; 2],
    /// Tasks that were let into a call which changes names, and have not been heard of since.
    unsettled: HashSet<i32>,
}

impl Known {
    pub(crate) fn new() -> Self {
        Self { seen: HashSet::new(), keys: [RandomState::new(), RandomState::new()], unsettled: HashSet::new() }
    }

    /// True if `question` is new, or may have another answer by now.
    pub(crate) fn is_new(&mut self, question: impl Hash + Copy) -> bool {
        if !self.unsettled.is_empty() {
            return true;
        }
        if self.seen.len() >= LIMIT {
            self.seen.clear();
        }
        self.seen.insert((self.keys[0].hash_one(question), self.keys[1].hash_one(question)))
    }

    /// `task` enters a call that changes what a path leads to.
    pub(crate) fn unsettle(&mut self, task: i32) {
        self.seen.clear();
        self.unsettled.insert(task);
    }

    /// `task` has stopped again or is gone, so its last call is over. True if that call changed names: whatever was
    /// learned in between may be out of date.
    pub(crate) fn settle(&mut self, task: i32) -> bool {
        self.unsettled.remove(&task)
    }

    /// True while no call that changes names is under way.
    pub(crate) fn is_settled(&self) -> bool {
        self.unsettled.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_known_while_names_change() {
        let mut known = Known::new();
        assert!(known.is_new("a"));
        assert!(!known.is_new("a"));
        known.unsettle(1);
        assert!(known.is_new("a"));
        assert!(known.is_new("a"));
        assert!(!known.settle(2));
        assert!(known.settle(1));
        assert!(known.is_new("a"));
        assert!(!known.is_new("a"));
    }
}
