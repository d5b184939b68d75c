//! Access control lists, of which an image has none: what is left of one is the mode.
//!
//! In: a list as its extended attribute has it (`include/uapi/linux/posix_acl_xattr.h`), and a mode. Out: the mode that gives nobody more than
//! the list does, and whether it gives somebody more all the same.

/// The name of the attribute.
pub const NAME: &str = "system.posix_acl_access";

/// That of the list which a directory gives to what is made in it.
pub const DEFAULT: &str = "system.posix_acl_default";

const VERSION: [u8; 4] = 2_u32.to_le_bytes();

/// `include/uapi/linux/posix_acl.h`.
const USER: u16 = 0x02;
const GROUP_OBJECT: u16 = 0x04;
const GROUP: u16 = 0x08;

const GROUP_BITS: u32 = 0o070;

/// The mode without the list: where there is one, the bits of the group are the most that anybody on it may have, and not what the group
/// may (`acl(5)`, "Correspondence between ACL entries and file permission bits").
pub fn mode_without(list: &[u8], mode: u32) -> u32 {
    let group = entries(list).find(|(tag, _)| *tag == GROUP_OBJECT).map_or(7, |(_, allowed)| allowed);
    mode & !GROUP_BITS | (mode & group << 3 & GROUP_BITS)
}

/// True if the list refuses somebody what the `mode` without it allows everybody.
pub fn denies(list: &[u8], mode: u32) -> bool {
    let most = mode >> 3 & 7;
    entries(list).any(|(tag, allowed)| matches!(tag, USER | GROUP) && mode & 7 & !(allowed & most) != 0)
}

/// The tag of each entry, and what it allows: read 4, write 2, execute 1.
fn entries(list: &[u8]) -> impl Iterator<Item = (u16, u32)> {
    let entries = list.strip_prefix(&VERSION).unwrap_or_default().chunks_exact(8);
    entries.map(|entry| (u16::from_le_bytes([entry[0], entry[1]]), u32::from(u16::from_le_bytes([entry[2], entry[3]]))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[(u16, u16)]) -> Vec<u8> {
        let entry = |&(tag, allowed): &(u16, u16)| {
            [&tag.to_le_bytes()[..], &allowed.to_le_bytes(), &u32::MAX.to_le_bytes()].concat()
        };
        [VERSION.to_vec(), entries.iter().flat_map(entry).collect()].concat()
    }

    #[test]
    fn the_group_has_what_the_list_gives_it() {
        // user::rw-, user:1000:rw-, group::---, mask::rw-, other::---
        let one = list(&[(0x01, 6), (USER, 6), (GROUP_OBJECT, 0), (0x10, 6), (0x20, 0)]);
        assert_eq!(mode_without(&one, 0o2660), 0o2600);
        let other = list(&[(0x01, 7), (GROUP_OBJECT, 7), (GROUP, 5), (0x10, 5), (0x20, 0)]);
        assert_eq!(mode_without(&other, 0o750), 0o750, "no more than the mask");
        assert_eq!(mode_without(b"", 0o664), 0o664);
    }

    #[test]
    fn who_is_refused_what_all_others_may() {
        let of_user = |allowed| list(&[(0x01, 6), (USER, allowed), (GROUP_OBJECT, 4), (0x10, 4), (0x20, 4)]);
        assert!(denies(&of_user(0), 0o644) && !denies(&of_user(4), 0o644) && !denies(&of_user(0), 0o640));
    }
}
