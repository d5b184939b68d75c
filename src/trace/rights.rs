//! What a task may do with a path, as owners, modes and capabilities say (`path_resolution(7)`, "Permissions").
//!
//! A tracer with root's rights sees more than the program that it traces: what the program was refused must not be
//! packed as if it had been read. Access control lists are not looked at.

use std::collections::HashMap;

use minjail_tracer::Access;

use super::model::Header;
use crate::path::{Facts, JailPath};
use crate::root::Root;

/// Whom the kernel takes a task for when it looks at files (`credentials(7)`).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rights {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    capabilities: u64,
}

// `capabilities(7)`, as bits of the mask.
const CAP_DAC_OVERRIDE: u64 = 1 << 1;
const CAP_DAC_READ_SEARCH: u64 = 1 << 2;

const SEARCH: u32 = 1;
const WRITE: u32 = 2;
const READ: u32 = 4;

/// Answers what a workload's processes are refused.
#[derive(Debug)]
pub(super) struct Refusals {
    /// `None` if the workload is root's: nothing is refused.
    workload: Option<Rights>,
    /// Where the workload's user is stopped on the way to a directory, if at all.
    ways: HashMap<JailPath, Option<JailPath>>,
}

impl Refusals {
    pub(super) fn of(header: &Header) -> Self {
        let rights = Rights { uid: header.uid, gid: header.gid, groups: header.groups.clone(), capabilities: 0 };
        Self { workload: (header.uid != 0).then_some(rights), ways: HashMap::new() }
    }

    /// The path at which `process` is refused `access` to `path`, or to its content: a directory on the way, or `path`
    /// itself, which has these `facts`.
    pub(super) fn refusal(
        &mut self,
        process: i32,
        path: &JailPath,
        facts: Option<&Facts>,
        access: Access,
        root: &Root,
    ) -> Option<JailPath> {
        let rights = self.workload.as_ref()?;
        let parent = path.parent()?;
        let way = self.ways.entry(parent.clone()).or_insert_with(|| rights.stop_on_the_way(&parent, root)).clone();
        let refused = way.or_else(|| rights.stop_at(path, facts, access))?;
        // A setuid program, or one with capabilities, may do what its user may not.
        match Rights::of_process(process) {
            Some(actual) if actual != *rights => {
                actual.stop_on_the_way(&parent, root).or_else(|| actual.stop_at(path, facts, access))
            }
            _ => Some(refused),
        }
    }
}

impl Rights {
    /// `proc(5)`, `/proc/pid/status`: the fourth of the ids is the file system's.
    fn of_process(process: i32) -> Option<Self> {
        let status = fs_err::read_to_string(format!("/proc/{process}/status")).ok()?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        let fourth = |name: &str| field(name)?.split_whitespace().nth(3)?.parse().ok();
        Some(Self {
            uid: fourth("Uid:")?,
            gid: fourth("Gid:")?,
            groups: field("Groups:")?.split_whitespace().filter_map(|group| group.parse().ok()).collect(),
            capabilities: u64::from_str_radix(field("CapEff:")?.trim(), 16).ok()?,
        })
    }

    fn may(&self, facts: &Facts, wanted: u32) -> bool {
        let overridden = self.capabilities & CAP_DAC_OVERRIDE != 0
            || self.capabilities & CAP_DAC_READ_SEARCH != 0
                && (wanted == READ || facts.is_directory() && wanted == SEARCH);
        let shift = if self.uid == facts.uid {
            6
        } else if self.gid == facts.gid || self.groups.contains(&facts.gid) {
            3
        } else {
            0
        };
        overridden || facts.mode >> shift & wanted == wanted
    }

    /// The first directory, from the root down to `directory`, that may not be searched.
    fn stop_on_the_way(&self, directory: &JailPath, root: &Root) -> Option<JailPath> {
        let mut way: Vec<JailPath> = std::iter::once(directory.clone()).chain(directory.ancestors()).collect();
        way.reverse();
        way.into_iter().find(|directory| {
            let facts = root.lstat(directory).ok().flatten();
            facts.is_some_and(|facts| facts.is_directory() && !self.may(&facts, SEARCH))
        })
    }

    fn stop_at(&self, path: &JailPath, facts: Option<&Facts>, access: Access) -> Option<JailPath> {
        let facts = facts.filter(|facts| facts.is_file() || facts.is_directory())?;
        let wanted = match access {
            Access::Execute | Access::Enter => SEARCH,
            Access::Write | Access::Create if facts.is_file() => WRITE,
            Access::Read | Access::List => READ,
            // The call itself asks for less; but whoever may not read the file has no use for its content.
            _ if facts.is_file() => READ,
            _ => return None,
        };
        (!self.may(facts, wanted)).then(|| path.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    fn rights(uid: u32, gid: u32, capabilities: u64) -> Rights {
        Rights { uid, gid, groups: vec![50], capabilities }
    }

    fn facts(uid: u32, gid: u32, mode: u32) -> Facts {
        let stat = nix::sys::stat::lstat("/proc/self/status").unwrap();
        Facts { mode, uid, gid, ..Facts::from_stat(&stat).unwrap() }
    }

    #[test]
    fn the_first_class_that_fits_decides() {
        let user = rights(1000, 100, 0);
        assert!(user.may(&facts(1000, 0, 0o400), READ));
        assert!(!user.may(&facts(1000, 100, 0o044), READ), "the owner's bits count, though others may");
        assert!(user.may(&facts(0, 100, 0o640), READ));
        assert!(user.may(&facts(0, 50, 0o640), READ), "a supplementary group");
        assert!(!user.may(&facts(0, 0, 0o640), READ));
        assert!(user.may(&facts(0, 0, 0o604), READ));
    }

    #[test]
    fn capabilities_override() {
        assert!(rights(1000, 100, CAP_DAC_READ_SEARCH).may(&facts(0, 0, 0), READ));
        assert!(!rights(1000, 100, CAP_DAC_READ_SEARCH).may(&facts(0, 0, 0), WRITE));
        assert!(rights(1000, 100, CAP_DAC_OVERRIDE).may(&facts(0, 0, 0), WRITE));
    }

    #[test]
    fn a_closed_directory_stops_what_is_below() {
        let directory = tempfile::tempdir().unwrap();
        let open = |path: &Path, mode| fs_err::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        fs_err::create_dir_all(directory.path().join("closed/deep")).unwrap();
        open(directory.path(), 0o755);
        open(&directory.path().join("closed"), 0o700);
        let path = |text: &str| JailPath::parse(text.as_bytes()).unwrap();
        let stranger = rights(54321, 54321, 0);
        let root = Root::open(directory.path()).unwrap();
        assert_eq!(stranger.stop_on_the_way(&path("/closed/deep"), &root), Some(path("/closed")));
        assert_eq!(stranger.stop_on_the_way(&path("/"), &root), None);
    }
}
