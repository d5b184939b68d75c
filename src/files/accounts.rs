//! `/etc/passwd` and its relatives, without the people of the machine at hand.
//!
//! Kept are those that own a file in the image or that the run took, and, unless the policy says `used`, system accounts
//! (`login.defs(5)`: below 1000, and 65534, nobody), each user with his group; with `full`, all. Passwords are locked unless they are allowed,
//! and the day on which one was set, which is that of the machine's installation, goes with them.

use std::collections::BTreeSet;

use super::Accounts;

/// Which accounts an image is to know.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Which besides those named here.
    pub(super) choice: Accounts,
    /// They are a machine's, and not an image's.
    pub(super) are_machines: bool,
    pub(super) uids: BTreeSet<u32>,
    pub(super) gids: BTreeSet<u32>,
}

/// A file of accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum File {
    /// `passwd(5)`: name, password, uid, gid, ...
    Users,
    /// `group(5)`: name, password, gid, members.
    Groups,
    /// `shadow(5)`: user's name, password, ...
    UserPasswords,
    /// `gshadow(5)`: group's name, password, administrators, members.
    GroupPasswords,
}

/// The files of accounts, by path, and what they were before their last change (`passwd(1)` and its relatives keep that).
pub(super) const FILES: [(&[u8], File); 8] = [
    (b"/etc/passwd", File::Users),
    (b"/etc/group", File::Groups),
    (b"/etc/shadow", File::UserPasswords),
    (b"/etc/gshadow", File::GroupPasswords),
    (b"/etc/passwd-", File::Users),
    (b"/etc/group-", File::Groups),
    (b"/etc/shadow-", File::UserPasswords),
    (b"/etc/gshadow-", File::GroupPasswords),
];

/// The names that are kept, from `passwd` and `group`.
#[derive(Debug, Default)]
pub(super) struct Names {
    users: BTreeSet<Vec<u8>>,
    groups: BTreeSet<Vec<u8>>,
    everyone: bool,
    are_machines: bool,
}

impl Names {
    /// Reads the contents of `passwd` and `group`.
    pub(super) fn new(passwd: &[u8], group: &[u8], kept: &Kept) -> Self {
        let lines = |text: &'_ [u8], ids: &BTreeSet<u32>| -> Vec<Vec<Vec<u8>>> {
            let lines = text.split(|&byte| byte == b'\n').filter(|line| has_kept_id(line, ids, kept.choice));
            lines.map(|line| fields(line).into_iter().map(<[u8]>::to_vec).collect()).collect()
        };
        let users = lines(passwd, &kept.uids);
        // Whoever becomes a user becomes one of his group, and asks for both by name.
        let of_users = users.iter().filter_map(|fields| number(fields.get(3)?));
        let gids = of_users.chain(kept.gids.iter().copied()).collect();
        let names = |lines: Vec<Vec<Vec<u8>>>| lines.into_iter().map(|mut fields| fields.swap_remove(0)).collect();
        let (everyone, are_machines) = (kept.choice == Accounts::Full, kept.are_machines);
        Self { users: names(users), groups: names(lines(group, &gids)), everyone, are_machines }
    }

    /// `text` with the kept accounts alone, and their passwords if `hashes_stay`; and how many lines were left out.
    pub(super) fn filter(&self, file: File, text: &[u8], hashes_stay: bool) -> (Vec<u8>, usize) {
        let mut kept = Vec::with_capacity(text.len());
        let mut left_out = 0;
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            let (line, end) = line.strip_suffix(b"\n").map_or((line, &b""[..]), |line| (line, &b"\n"[..]));
            let fields = fields(line);
            let names = if matches!(file, File::Users | File::UserPasswords) { &self.users } else { &self.groups };
            // Comments and the `+` lines of NIS say nothing about a person.
            if line.is_empty() || matches!(line[0], b'#' | b'+' | b'-') {
                kept.extend_from_slice(line);
            } else if self.everyone || names.contains(fields[0]) {
                kept.extend_from_slice(&self.line(file, &fields, hashes_stay));
            } else {
                left_out += 1;
                continue;
            }
            kept.extend_from_slice(end);
        }
        (kept, left_out)
    }

    fn line(&self, file: File, fields: &[&[u8]], hashes_stay: bool) -> Vec<u8> {
        let rewritten = fields.iter().enumerate().map(|(index, &field)| match (file, index) {
            (_, 1) if hashes_stay => field.to_vec(),
            (File::Users | File::Groups, 1) if !matches!(field, b"x" | b"" | b"*" | b"!") => b"x".to_vec(),
            (File::UserPasswords | File::GroupPasswords, 1) if !matches!(field, b"" | b"*" | b"!" | b"!*") => {
                b"*".to_vec()
            }
            // shadow(5): without a day, the password has no age.
            (File::UserPasswords, 2) if self.are_machines && !hashes_stay => Vec::new(),
            (File::Groups, 3) | (File::GroupPasswords, 2 | 3) => self.members(field),
            _ => field.to_vec(),
        });
        rewritten.collect::<Vec<_>>().join(&b':')
    }

    fn members(&self, list: &[u8]) -> Vec<u8> {
        if self.everyone {
            return list.to_vec();
        }
        let members = list.split(|&byte| byte == b',').filter(|&member| self.users.contains(member));
        members.collect::<Vec<_>>().join(&b',')
    }
}

fn fields(line: &[u8]) -> Vec<&[u8]> {
    line.split(|&byte| byte == b':').collect()
}

fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn has_kept_id(line: &[u8], ids: &BTreeSet<u32>, choice: Accounts) -> bool {
    let id = fields(line).get(2).and_then(|field| number(field));
    let is_system = |id: u32| choice != Accounts::Used && (id < 1000 || id == 65534);
    choice == Accounts::Full || id.is_some_and(|id| is_system(id) || ids.contains(&id))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/:/sbin/nologin\nanna:x:1000:1000:Anna:/home/anna:/bin/sh\nben:x:1001:1001::/home/ben:/bin/sh\n";
    const GROUP: &[u8] = b"root:x:0:\nsudo:x:27:anna,ben\nanna:x:1000:\nben:x:1001:\n";

    fn names() -> Names {
        chosen(Accounts::System)
    }

    fn chosen(choice: Accounts) -> Names {
        Names::new(PASSWD, GROUP, &Kept { choice, uids: BTreeSet::from([1001]), ..Kept::default() })
    }

    #[test]
    fn all_of_them_or_those_that_are_used() {
        assert_eq!(chosen(Accounts::Full).filter(File::Users, PASSWD, false), (PASSWD.to_vec(), 0));
        assert_eq!(chosen(Accounts::Full).filter(File::Groups, GROUP, false), (GROUP.to_vec(), 0));
        let (used, left_out) = chosen(Accounts::Used).filter(File::Users, PASSWD, false);
        assert_eq!((used.as_slice(), left_out), (&b"ben:x:1001:1001::/home/ben:/bin/sh\n"[..], 3));
    }

    #[test]
    fn hashes_stay_where_they_are_allowed() {
        let shadow = b"root:$y$j9T$abc:19000:0:99999:7:::\n";
        let (kept, _) = names().filter(File::UserPasswords, shadow, true);
        assert_eq!(kept, shadow);
    }

    #[test]
    fn people_stay_at_home() {
        let (passwd, left_out) = names().filter(File::Users, PASSWD, false);
        assert_eq!(left_out, 1);
        let text = String::from_utf8(passwd).unwrap();
        assert!(text.contains("root:") && text.contains("nobody:") && text.contains("ben:") && !text.contains("anna"));
    }

    #[test]
    fn groups_forget_them_too() {
        let (group, left_out) = names().filter(File::Groups, GROUP, false);
        assert_eq!((group.as_slice(), left_out), (&b"root:x:0:\nsudo:x:27:ben\nben:x:1001:\n"[..], 1));
        let (group, _) = chosen(Accounts::Used).filter(File::Groups, GROUP, false);
        assert_eq!(group, b"ben:x:1001:\n", "a user keeps his group");
    }

    #[test]
    fn hashes_are_locked() {
        let shadow = b"root:$y$j9T$abc:19000:0:99999:7:::\nnobody:*:19000::::::\nanna:$6$x:1::::::\n";
        let (shadow, _) = names().filter(File::UserPasswords, shadow, false);
        assert_eq!(shadow, b"root:*:19000:0:99999:7:::\nnobody:*:19000::::::\n");
        // Where they stood before there was a shadow, too; what is none says something else: that there is no password, or no login.
        let passwd = b"root:$6$x:0:0:root:/root:/bin/sh\nnobody:*:65534:65534::/:/bin/sh\nben::1001:1001::/:/bin/sh\n";
        let expected = b"root:x:0:0:root:/root:/bin/sh\nnobody:*:65534:65534::/:/bin/sh\nben::1001:1001::/:/bin/sh\n";
        assert_eq!(names().filter(File::Users, passwd, false), (expected.to_vec(), 0));
        let (group, _) = names().filter(File::Groups, b"root:$6$x:0:\nsudo:!:27:anna\n", false);
        assert_eq!(group, b"root:x:0:\nsudo:!:27:\n");
        let (gshadow, _) = names().filter(File::GroupPasswords, b"root:$6$x::\nsudo:!*:anna,ben:ben,anna\n", false);
        assert_eq!(gshadow, b"root:*::\nsudo:!*:ben:ben\n");
    }

    #[test]
    fn days_of_a_machine_are_left_out() {
        let shadow = b"root:$y$j9T$abc:19000:0:99999:7:::\nnobody:*:19000::::::\n";
        let kept = Kept { are_machines: true, ..Kept::default() };
        let names = Names::new(PASSWD, GROUP, &kept);
        assert_eq!(names.filter(File::UserPasswords, shadow, false).0, b"root:*::0:99999:7:::\nnobody:*:::::::\n");
        assert_eq!(names.filter(File::UserPasswords, shadow, true).0, shadow);
    }

    #[test]
    fn odd_lines_do_no_harm() {
        let (kept, left_out) = names().filter(File::Users, b"# comment\n\n+::::::\nbroken\n", false);
        assert_eq!((kept.as_slice(), left_out), (&b"# comment\n\n+::::::\n"[..], 1));
    }
}
