//! Where the stacks of tasks end that wait in a call.
//!
//! In: a task. Out: what its stack pointer was when it made the call (`proc(5)`, `/proc/pid/syscall`).

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::sys::uio::pread;

/// So many files are held open at a time.
const MOST: usize = 64;

/// The files that tell it, which are asked again and again.
#[derive(Debug, Default)]
pub(crate) struct Stacks(HashMap<i32, OwnedFd>);

impl Stacks {
    /// `None` if it is not to be found out.
    pub(crate) fn end(&mut self, task: i32) -> Option<u64> {
        if !self.0.contains_key(&task) {
            if self.0.len() == MOST {
                self.0.clear();
            }
            let path = format!("/proc/{task}/syscall");
            self.0.insert(task, open(path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()?);
        }
        // Nine numbers, each in 18 characters at most.
        let mut text = [0; 256];
        let Ok(length) = pread(&self.0[&task], &mut text, 0) else {
            self.0.remove(&task);
            return None;
        };
        pointer(&text[..length])
    }

    /// `task` is gone, or has executed something.
    pub(crate) fn remove(&mut self, task: i32) {
        self.0.remove(&task);
    }

    /// Holds nothing open any more.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// The number of the call, its arguments, the stack pointer, the instruction; only `running` for a task that runs.
fn pointer(text: &[u8]) -> Option<u64> {
    let pointer = text.split(u8::is_ascii_whitespace).nth(7)?.strip_prefix(b"0x")?;
    u64::from_str_radix(std::str::from_utf8(pointer).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_eighth_number_is_the_stack() {
        let text = b"257 0xffffff9c 0x7fdb 0x0 0x0 0x0 0x0 0x7ffe01020304 0x7fdb772ce090\n";
        assert_eq!(pointer(text), Some(0x7ffe_0102_0304));
        assert_eq!(pointer(b"running\n"), None);
        assert_eq!(pointer(b"-1 0x7ffe01020304 0x7fdb772ce090\n"), None);
    }
}
