//! The arguments of what a process runs.
//!
//! In: a process at its exec stop. Out: its arguments, as the kernel has just laid them down in its memory; where that is not to be
//! read, as `/proc/pid/cmdline` shows them, which takes four times as long. Not: what the program makes of them later.

use crate::proc::fs_read;
use crate::{memory, sys};

/// The arguments of the program that `process` has begun to run; none if it is gone.
pub(crate) fn of(process: i32) -> Vec<Vec<u8>> {
    on_stack(process).unwrap_or_else(|| {
        let text = fs_read(&format!("/proc/{process}/cmdline")).unwrap_or_default();
        split(text.strip_suffix(b"\0").unwrap_or(&text))
    })
}

/// They stand one behind the other where the first of the pointers points, of which the stack begins with the number
/// (`fs/binfmt_elf.c`, `create_elf_tables`).
fn on_stack(process: i32) -> Option<Vec<Vec<u8>>> {
    let stack = sys::stack(process).ok()?;
    let (count, first) = if stack.is_wide {
        let [count, first] = words::<8, 2>(process, stack.pointer)?.map(u64::from_ne_bytes);
        (count, first)
    } else {
        let [count, first] = words::<4, 2>(process, stack.pointer)?.map(u32::from_ne_bytes);
        (count.into(), first.into())
    };
    let is_sound = (1..=i32::MAX as u64).contains(&count) && first > stack.pointer;
    if !is_sound {
        return None;
    }
    let mut text = Vec::new();
    memory::read_strings(process, first, usize::try_from(count).ok()?, usize::MAX, &mut text).ok()?;
    Some(split(&text))
}

fn words<const SIZE: usize, const COUNT: usize>(process: i32, address: u64) -> Option<[[u8; SIZE]; COUNT]> {
    let mut words = [[0; SIZE]; COUNT];
    memory::read(process, address, words.as_flattened_mut()).ok()?;
    Some(words)
}

fn split(text: &[u8]) -> Vec<Vec<u8>> {
    text.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_stopped_is_asked_by_its_file() {
        let own: Vec<Vec<u8>> = std::env::args_os().map(std::ffi::OsString::into_encoded_bytes).collect();
        assert_eq!(of(nix::unistd::getpid().as_raw()), own);
        assert_eq!(of(i32::MAX), [b""]);
    }
}
