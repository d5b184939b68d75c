//! Where the stacks of threads begin, and where they end while a thread waits in a call.
//!
//! In: a thread, as it starts, or an address that it hands to the kernel. Out: whether that is in its first or last frames.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use nix::fcntl::OFlag;
use nix::sys::uio::pread;

use crate::held::Held;
use crate::sys;

/// What is this near to an end of a stack is in the frames there; a runtime's small stacks lie among its other memory.
const NEAR: u64 = 1 << 14;

/// What is this far from where a stack begins is taken to be outside, which is always safe: most stacks are of 8 MiB at most.
const FAR: u64 = 1 << 26;

#[derive(Debug, Default)]
pub(crate) struct Stacks {
    /// What the stack pointers of threads were when they started.
    starts: HashMap<i32, u64>,
    /// The files that tell what they are (`proc(5)`, `/proc/pid/syscall`).
    files: Held,
}

impl Stacks {
    /// The thread `task` has just started, or goes on after it was stopped.
    pub(crate) fn start(&mut self, task: i32) {
        if let Entry::Vacant(entry) = self.starts.entry(task) {
            // Where it fails the thread is gone.
            if let Ok(sys::Stack { pointer, .. }) = sys::stack(task) {
                entry.insert(pointer);
            }
        }
    }

    /// True if each of `addresses` is in the first frames of `task`, which waits in a call, or in its last: its stack ends at
    /// `end`, if that is known.
    pub(crate) fn hold(&mut self, task: i32, addresses: impl Iterator<Item = u64>, end: Option<u64>) -> bool {
        let start = self.starts.get(&task).copied();
        let mut others = addresses.filter(|&address| start.is_none_or(|start| start.wrapping_sub(address) > NEAR));
        // To ask for the end costs more than to read a path.
        let Some(other) = others.next() else { return true };
        if start.is_some_and(|start| start.abs_diff(other) > FAR) {
            return false;
        }
        let Some(end) = end.or_else(|| self.end(task)) else { return false };
        std::iter::once(other).chain(others).all(|address| address.wrapping_sub(end) <= NEAR)
    }

    /// `None` if it is not to be found out.
    fn end(&mut self, task: i32) -> Option<u64> {
        let file = self.files.of(task, "syscall", OFlag::O_RDONLY).ok()?;
        // Nine numbers, each in 18 characters at most.
        let mut text = [0; 256];
        let Ok(length) = pread(file, &mut text, 0) else {
            self.files.remove(task);
            return None;
        };
        pointer(&text[..length])
    }

    /// `task` is gone, or has executed something.
    pub(crate) fn remove(&mut self, task: i32) {
        self.starts.remove(&task);
        self.files.remove(task);
    }

    /// Holds nothing open any more.
    pub(crate) fn close(&mut self) {
        self.files.clear();
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
    fn both_ends_are_frames() {
        let mut stacks = Stacks::default();
        let (start, end) = (0x7f00_0080_0000, Some(0x7f00_0070_0000));
        stacks.starts.insert(7, start);
        let mut hold = |addresses: &[u64]| stacks.hold(7, addresses.iter().copied(), end);
        assert!(hold(&[start - 8, start - NEAR]) && hold(&[0x7f00_0070_0008, 0x7f00_0070_0000 + NEAR]));
        assert!(hold(&[start - 8, 0x7f00_0070_0008]));
        for outside in [start + 8, start - NEAR - 1, 0x7f00_006f_fff8, 0x7f00_0070_0001 + NEAR, 0] {
            assert!(!hold(&[outside]) && !hold(&[start - 8, outside]) && !hold(&[outside, 0x7f00_0070_0008]));
        }
        let far = start - FAR - 1;
        assert!(!stacks.hold(7, [far].into_iter(), Some(far)), "nobody is asked");
        assert!(stacks.hold(7, [far + 1].into_iter(), Some(far)));
        stacks.remove(7);
        assert!(!stacks.hold(7, [start - 8].into_iter(), end));
    }

    #[test]
    fn the_eighth_number_is_the_stack() {
        let text = b"257 0xffffff9c 0x7fdb 0x0 0x0 0x0 0x0 0x7ffe01020304 0x7fdb772ce090\n";
        assert_eq!(pointer(text), Some(0x7ffe_0102_0304));
        assert_eq!(pointer(b"running\n"), None);
        assert_eq!(pointer(b"-1 0x7ffe01020304 0x7fdb772ce090\n"), None);
    }
}
