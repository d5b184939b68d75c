//! Whose the files are that runs have found, where a jail has shown them otherwise.

use std::collections::HashMap;

use super::model::{Found, Touch, Trace};
use crate::path::{Facts, JailPath};
use crate::root::{Root, RootError};

impl Trace {
    /// Says of everything that was there before the runs what `root`, of which their jails were made, says of its owner
    /// and mode: in a jail one's own files are root's or the program's, and others may have been given to their owners.
    ///
    /// # Errors
    /// Something in the root cannot be looked at.
    pub fn owned_as_in(&mut self, root: &Root) -> Result<(), RootError> {
        let mut known: HashMap<JailPath, Option<Facts>> = HashMap::new();
        let touches = self.runs.iter_mut().flat_map(|run| &mut run.touches);
        for Touch { path, found, .. } in touches.filter(|touch| !touch.made) {
            let Found::There(facts) = found else { continue };
            if !known.contains_key(path) {
                known.insert(path.clone(), root.lstat(path)?);
            }
            let there = known[path].as_ref().filter(|there| there.file_type == facts.file_type);
            if let Some(there) = there {
                (facts.mode, facts.uid, facts.gid) = (there.mode, there.uid, there.gid);
            }
        }
        Ok(())
    }
}
