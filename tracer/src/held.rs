//! Files of `/proc/TASK` that are asked for again and again, held open.
//!
//! In: a task, and the name of such a file. Out: the file, opened if it is not yet. They are open for speed alone, and so many at a
//! time that there is room for others among what the tracer may have open.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use crate::limits;

/// Files of one name.
#[derive(Debug, Default)]
pub(crate) struct Held(HashMap<i32, Arc<OwnedFd>>);

impl Held {
    /// The file `name` of `task`, which is opened with these flags if it is not open yet.
    pub(crate) fn of(&mut self, task: i32, name: &str, flags: OFlag) -> Result<&Arc<OwnedFd>, Errno> {
        if !self.0.contains_key(&task) {
            let path = format!("/proc/{task}/{name}");
            let open = || open(path.as_str(), flags | OFlag::O_CLOEXEC, Mode::empty());
            let file = match open() {
                Err(Errno::EMFILE) => {
                    self.clear();
                    open()?
                }
                opened => opened?,
            };
            self.keep(task, Arc::new(file));
        }
        Ok(&self.0[&task])
    }

    /// That of `task`, if it is open.
    pub(crate) fn get(&self, task: i32) -> Option<&Arc<OwnedFd>> {
        self.0.get(&task)
    }

    /// Takes `file` for that of `task`.
    pub(crate) fn keep(&mut self, task: i32, file: Arc<OwnedFd>) {
        if self.0.len() >= limits::most_held() {
            self.clear();
        }
        self.0.insert(task, file);
    }

    /// `task` is gone, and its number may be given to another; or the file says nothing of it any more.
    pub(crate) fn remove(&mut self, task: i32) {
        self.0.remove(&task);
    }

    /// Holds nothing open any more.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_are_open() {
        let own = nix::unistd::getpid().as_raw();
        let mut held = Held::default();
        let file = Arc::clone(held.of(own, "maps", OFlag::O_RDONLY).unwrap());
        assert!(Arc::ptr_eq(&file, held.of(own, "maps", OFlag::O_RDONLY).unwrap()));
        for task in 1..=limits::most_held() as i32 {
            held.keep(-task, Arc::clone(&file));
        }
        assert!(held.get(own).is_none() && held.0.len() <= limits::most_held());
        assert_eq!(held.of(i32::MAX, "maps", OFlag::O_RDONLY).unwrap_err(), Errno::ENOENT);
    }
}
