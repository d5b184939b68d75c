//! What was told already.
//!
//! A task asks for the same few paths over and over. What it asked for before, in the same place, needs no second walk
//! and no second event, as long as no name has changed since.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};

use crate::decode::Entry;
use crate::event::Access;

/// At most so many questions are remembered; then the set starts anew. Telling twice is harmless. Fewer than a table of 2^20 places
/// takes before it is made anew, twice as large.
const LIMIT: usize = (1 << 20) / 4 * 3;

/// What a call under way may change for the paths of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    /// Where tasks stand.
    Places,
    /// Where paths lead, and so, where tasks stand.
    Names,
}

impl Change {
    /// What a call changes for others: where they stand, or whether that is still there; or where a path leads that led
    /// somewhere before, by a new link, a rename or a mount. A new file or directory changes only what was missing, and a
    /// missing path stays missing for the image.
    pub(crate) fn of(entry: &Entry, access: Access) -> Option<Self> {
        let call = entry.call.name;
        let removes_directory = || match call {
            "rmdir" => true,
            "unlinkat" => entry.arguments[2] & u64::from(libc::AT_REMOVEDIR.cast_unsigned()) != 0,
            _ => false,
        };
        match access {
            Access::Remove if removes_directory() => Some(Self::Places),
            // Others may have the same root.
            Access::Enter if matches!(call, "pivot_root" | "chroot") => Some(Self::Names),
            Access::Enter => Some(Self::Places),
            Access::Replace | Access::Mount => Some(Self::Names),
            // What is linked may be a link.
            Access::Create if call.starts_with("symlink") || call.starts_with("link") => Some(Self::Names),
            // Who opens a FIFO in the place of a file may wait.
            Access::Create if call.starts_with("mknod") => Some(Self::Names),
            Access::Remove if call.starts_with("rename") => Some(Self::Names),
            _ => None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Known {
    seen: HashSet<Question, BuildHasherDefault<Hashed>>,
    keys: [RandomState; 2],
    /// Tasks that were let into a call which changes something, and have not been heard of since.
    unsettled: HashMap<i32, Change>,
}

/// Two independent keyed 64-bit hashes: 127 bits, which nobody can make collide without the keys. The last bit tells what came of it,
/// and is 1 for what led to nothing: somebody whom nobody traces may make what was missing.
#[derive(Debug, Clone, Copy)]
struct Question(u64, u64);

impl Question {
    fn is_missing(self) -> bool {
        self.1 & 1 == 1
    }
}

impl PartialEq for Question {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1 | 1) == (other.0, other.1 | 1)
    }
}

impl Eq for Question {}

impl Hash for Question {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.0);
    }
}

/// The hash of what is made of keyed hashes: nobody without the keys can choose it, so it needs no further one.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(byte.into());
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = self.0.rotate_left(8) ^ hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Known {
    pub(crate) fn new() -> Self {
        Self { seen: HashSet::default(), keys: [RandomState::new(), RandomState::new()], unsettled: HashMap::new() }
    }

    /// True if `question` is new, or may have another answer by now.
    pub(crate) fn is_new(&mut self, question: impl Hash + Copy) -> bool {
        if self.are_names_changing() {
            return true;
        }
        if self.seen.len() >= LIMIT {
            self.seen.clear();
        }
        self.seen.insert(self.asked(question, false))
    }

    /// Remembers of a question that is no longer new whether it led to nothing.
    pub(crate) fn note_missing(&mut self, question: impl Hash + Copy, is_missing: bool) {
        let now = self.asked(question, is_missing);
        if self.seen.contains(&now) {
            self.seen.replace(now);
        }
    }

    /// True if `question` led to nothing when it was asked last.
    pub(crate) fn was_missing(&self, question: impl Hash + Copy) -> bool {
        self.seen.get(&self.asked(question, true)).is_some_and(|known| known.is_missing())
    }

    fn asked(&self, question: impl Hash + Copy, is_missing: bool) -> Question {
        let (one, other) = (self.keys[0].hash_one(question), self.keys[1].hash_one(question));
        Question(one, other & !1 | u64::from(is_missing))
    }

    /// Forgets that `question` was asked: its answer is another one the next time.
    pub(crate) fn forget(&mut self, question: impl Hash + Copy) {
        self.seen.remove(&self.asked(question, false));
    }

    /// `task` enters a call that changes something.
    pub(crate) fn unsettle(&mut self, task: i32, change: Change) {
        if change == Change::Names {
            self.seen.clear();
        }
        let known = self.unsettled.entry(task).or_insert(change);
        *known = change.max(*known);
    }

    /// `task` has stopped again or is gone, so its last call is over. What that call changed: whatever was learned of
    /// it in between may be out of date.
    pub(crate) fn settle(&mut self, task: i32) -> Option<Change> {
        if self.unsettled.is_empty() { None } else { self.unsettled.remove(&task) }
    }

    /// True if `task` is in a call that changes something.
    pub(crate) fn is_unsettled_by(&self, task: i32) -> bool {
        self.unsettled.contains_key(&task)
    }

    /// True if a call that changes names is under way.
    pub(crate) fn are_names_changing(&self) -> bool {
        self.unsettled.values().any(|&change| change == Change::Names)
    }

    /// True if a call of another task than `task` that changes names is under way.
    pub(crate) fn do_others_change_names(&self, task: i32) -> bool {
        self.unsettled.iter().any(|(&other, &change)| other != task && change == Change::Names)
    }

    /// True while no call that changes places or names is under way.
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
        known.unsettle(1, Change::Names);
        assert!(known.do_others_change_names(2) && !known.do_others_change_names(1));
        assert!(known.is_new("a"));
        assert!(known.is_new("a"));
        assert_eq!(known.settle(2), None);
        assert_eq!(known.settle(1), Some(Change::Names));
        assert!(known.is_new("a"));
        assert!(!known.is_new("a"));
        known.forget("a");
        assert!(known.is_new("a"));
        known.note_missing("a", true);
        assert!(known.was_missing("a") && !known.was_missing("b"));
        known.note_missing("a", false);
        assert!(!known.was_missing("a"));
    }

    #[test]
    fn names_stay_known_while_places_change() {
        let mut known = Known::new();
        assert!(known.is_new("a"));
        known.unsettle(1, Change::Places);
        assert!(!known.is_new("a"));
        assert!(!known.is_settled());
        assert_eq!(known.settle(1), Some(Change::Places));
        assert!(known.is_settled());
    }
}
