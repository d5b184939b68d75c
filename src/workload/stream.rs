//! What a program writes to a stream, which it may do without end.
//!
//! In: the stream, and what a profile expects of it. Out: its beginning, and what is wrong with that.

use std::io::Read;

use crate::profile::Check;

/// So much is kept of it.
pub(super) const MOST: usize = 128 << 20;

/// Reads all of `from`, and hands on as much of it as is kept, piece by piece; then, once, `None` if there is more. The rest is
/// read all the same, so that nobody waits who writes it, unless `hand_on` says that nobody takes anything any more.
pub(super) fn keep_beginning(mut from: impl Read, mut hand_on: impl FnMut(Option<Vec<u8>>) -> bool) {
    let mut buffer = [0; 8192];
    let (mut room, mut is_more_told) = (MOST, false);
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let kept = count.min(room);
        room -= kept;
        if kept > 0 && !hand_on(Some(buffer[..kept].to_vec())) {
            return;
        }
        let is_more = kept < count;
        if is_more && !is_more_told && !hand_on(None) {
            return;
        }
        is_more_told |= is_more;
    }
}

/// What is wrong with a text of which `kept` is the beginning, and there is more or not; `None` if nothing is.
pub(super) fn fault(check: &Check, kept: &[u8], is_more: bool) -> Option<String> {
    if is_more { Some(too_much()) } else { check.fault(kept) }
}

/// Of a text of which not all is kept.
pub(super) fn too_much() -> String {
    format!("has more than {} MiB, and no more can be compared", MOST >> 20)
}
