//! Directories that are not open to everybody.
//!
//! In: the directories in which names are looked up. Out: those of them that somebody may not search. Each is looked at once: a run
//! that opens or closes one later touches it by that, and so an image has it anyway.

use std::collections::HashMap;
use std::sync::Arc;

use minjail_tracer::Searched;

use crate::path::JailPath;

/// When so many directories are remembered, all are forgotten, and looked at anew.
const LIMIT: usize = 1 << 16;

/// By its path as the tracer has it: a directory, and all above it, as far as they are closed to somebody.
#[derive(Debug, Default)]
pub(super) struct Closed(HashMap<Vec<u8>, Arc<[One]>>);

#[derive(Debug, Clone)]
struct One {
    /// Of its path as the tracer has it.
    length: usize,
    path: JailPath,
}

impl Closed {
    /// Those of the directories `searched` that `look` says are closed, by their paths below the root; the upper one first.
    pub(super) fn among(&mut self, searched: &Searched, look: impl Fn(&[u8]) -> Option<JailPath>) -> Vec<JailPath> {
        let all = self.of(&searched.path, look);
        all.iter().filter(|one| one.length >= searched.from).map(|one| one.path.clone()).collect()
    }

    fn of(&mut self, directory: &[u8], look: impl Fn(&[u8]) -> Option<JailPath>) -> Arc<[One]> {
        if let Some(known) = self.0.get(directory) {
            return Arc::clone(known);
        }
        if self.0.len() >= LIMIT {
            self.0.clear();
        }
        let mut all: Arc<[One]> = Arc::new([]);
        for above in (Searched { path: directory.to_vec(), from: 0 }).directories() {
            if let Some(known) = self.0.get(above) {
                all = Arc::clone(known);
                continue;
            }
            if let Some(path) = look(above) {
                all = all.iter().cloned().chain([One { length: above.len(), path }]).collect();
            }
            self.0.insert(above.to_vec(), Arc::clone(&all));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn each_is_looked_at_once() {
        let (mut closed, looks) = (Closed::default(), Cell::new(0));
        let mut among = |path: &str, from: usize| {
            let look = |path: &[u8]| {
                looks.set(looks.get() + 1);
                JailPath::parse(path).ok().filter(|path| matches!(path.file_name(), b"" | b"c" | b"d"))
            };
            let searched = Searched { path: path.into(), from };
            closed.among(&searched, look).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(among("/a/c/b", 0), ["/", "/a/c"]);
        assert_eq!(among("/a/c/b/d", 2), ["/a/c", "/a/c/b/d"]);
        assert_eq!(among("/a/c/b/d", 5), ["/a/c/b/d"]);
        assert_eq!(among("/a/c", 4), ["/a/c"]);
        assert_eq!(among("/a/c/b", 6), [""; 0]);
        assert_eq!(among("/", 1), ["/"]);
        assert_eq!(looks.get(), 5);
    }
}
