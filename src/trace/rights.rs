//! What a task may do with a path (`path_resolution(7)`, "Permissions").
//!
//! A tracer with root's rights sees more than the program that it traces: what the program was refused must not be
//! read, nor packed as if it had been. The kernel itself is asked; where it cannot be, owners, modes and capabilities say it.

use std::ops::Range;
use std::os::fd::AsFd;

use minjail_tracer::{Access, Credentials, effective_capabilities, may_reach, may_use};
use nix::libc::{R_OK, W_OK, X_OK};

use super::model::Header;
use crate::path::{Facts, JailPath};
use crate::root::Root;

/// Whom the kernel takes a task for when it looks at files (`credentials(7)`).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rights {
    user: Credentials,
    capabilities: u64,
    /// In a user namespace other than this process's capabilities count for the files of these users and groups
    /// (`user_namespaces(7)`, "Interaction of user namespaces and other types of namespaces").
    only: Option<[Vec<Range<u64>>; 2]>,
}

// `capabilities(7)`, as bits of the mask.
const CAP_DAC_OVERRIDE: u64 = 1 << 1;
const CAP_DAC_READ_SEARCH: u64 = 1 << 2;

/// Answers what a workload's processes are refused.
#[derive(Debug)]
pub(super) struct Refusals {
    /// `None` if the workload is root's: each task has its own rights, since it may have given up those.
    workload: Option<Rights>,
}

/// A call that is asked about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) task: i32,
    /// It goes by the real user, not by that of the file system.
    pub(super) by_real: bool,
    pub(super) access: Access,
    pub(super) path: &'a JailPath,
    /// `None` if there is nothing, or nobody can tell what.
    pub(super) facts: Option<&'a Facts>,
}

/// What comes of it.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// Where it is refused: at one of the directories that are searched on the way, or at the path itself.
    pub(super) stop: Option<JailPath>,
    /// A task with other rights may be refused, and nothing else shows an image where.
    pub(super) varies: bool,
}

impl Refusals {
    pub(super) fn of(header: &Header) -> Self {
        let user = Credentials { uid: header.uid, gid: header.gid, groups: header.groups.clone() };
        Self { workload: (header.uid != 0).then_some(Rights { user, capabilities: 0, only: None }) }
    }

    /// True if no more is to be asked: a task of a workload of root's has found something, and may do with it what it likes. For which
    /// files its capability counts is not looked at, which costs more; nor is the real user: what an image has that was refused for one
    /// of these reasons is refused there as well.
    pub(super) fn are_none(&self, question: &Question<'_>) -> bool {
        self.workload.is_none() && question.facts.is_some() && overrides_all(question.task)
    }

    /// True if only directories count that are not open to everybody.
    pub(super) fn are_of_closed(&self) -> bool {
        self.workload.is_none()
    }

    /// True if the workload's user, or `task` of root's workload, may write to the file at `path`, which has these `facts`.
    pub(super) fn may_write(&self, task: i32, path: &JailPath, facts: &Facts, root: &Root) -> bool {
        let may = |rights: &Rights| rights.may(path, facts, W_OK, root);
        match &self.workload {
            Some(workload) => may(workload),
            None => Rights::of_task(task, false).as_ref().is_none_or(may),
        }
    }

    /// What is refused to a task that searches the directories `searched` on its way to a path, or would use its content. Where the way
    /// starts from was reached before, whatever is above that.
    pub(super) fn answer(&self, question: &Question<'_>, searched: &[JailPath], root: &Root) -> Answer {
        let &Question { task, by_real, access, path, facts } = question;
        let wanted = facts.map_or(0, |facts| wanted(facts, access));
        let is_open = match &self.workload {
            Some(workload) => workload.gets_to(path, wanted, searched, root),
            None => searched.is_empty() && facts.is_none_or(|facts| lets_everybody(facts, wanted)),
        };
        if is_open {
            return Answer::default();
        }
        let varies = facts.is_none();
        // As root still does: a program may ask for what is missing a thousand times. Of what is there that was asked before.
        if self.workload.is_none() && varies && !by_real && overrides_all(task) && is_in_our_user_namespace(task) {
            return Answer { stop: None, varies };
        }
        // A setuid program, or one with capabilities, may do what its user may not.
        let actual = Rights::of_task(task, by_real);
        let Some(rights) = actual.as_ref().or(self.workload.as_ref()) else { return Answer::default() };
        let at_end = || rights.stop_at(path, facts?, wanted, root);
        Answer { stop: rights.stop_on_the_way(searched, root).or_else(at_end), varies }
    }
}

impl Header {
    /// True if a mode lets the workload's user do what is `wanted`, or root.
    pub(crate) fn is_let(&self, facts: &Facts, wanted: u32) -> bool {
        Refusals::of(self).workload.is_none_or(|workload| workload.is_let(facts, wanted.cast_signed()))
    }
}

/// True if everybody may do what is `wanted`: an image has modes, and no access control lists.
pub(super) fn lets_everybody(facts: &Facts, wanted: i32) -> bool {
    let wanted = wanted.cast_unsigned() * 0o111;
    facts.mode & wanted == wanted
}

/// What is asked of the content of something with these `facts`, as for `access(2)`; 0 is nothing.
fn wanted(facts: &Facts, access: Access) -> i32 {
    match access {
        _ if !(facts.is_file() || facts.is_directory()) => 0,
        Access::Execute => X_OK,
        Access::Enter if facts.is_directory() => X_OK,
        // Whoever may not read what it writes has no use for the earlier content, and gets none of it, until it may.
        Access::Write | Access::Create if facts.is_file() => W_OK | R_OK,
        Access::Read | Access::List => R_OK,
        // The call itself asks for less; but whoever may not read the file has no use for its content.
        _ if facts.is_file() => R_OK,
        _ => 0,
    }
}

impl Rights {
    /// `proc(5)`, `/proc/pid/status`: the first of the ids is the real one, the fourth the file system's. `access(2)` goes by the real
    /// ones, and who is not root then has no capabilities (`access_override_creds` in `fs/open.c`).
    fn of_task(task: i32, by_real: bool) -> Option<Self> {
        let status = fs_err::read_to_string(format!("/proc/{task}/status")).ok()?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        let id = |name: &str| field(name)?.split_whitespace().nth(if by_real { 0 } else { 3 })?.parse().ok();
        let mask = |name: &str| u64::from_str_radix(field(name)?.trim(), 16).ok();
        let groups = field("Groups:")?.split_whitespace().filter_map(|group| group.parse().ok()).collect();
        let map = |name| fs_err::read_to_string(format!("/proc/{task}/{name}")).ok().map(|text| outside(&text));
        let user = Credentials { uid: id("Uid:")?, gid: id("Gid:")?, groups };
        let only = if is_in_our_user_namespace(task) { None } else { Some([map("uid_map")?, map("gid_map")?]) };
        let capabilities = match (by_real, &only) {
            (false, _) => mask("CapEff:")?,
            (true, None) if user.uid != 0 => 0,
            (true, _) => mask("CapPrm:")?,
        };
        Some(Self { user, capabilities, only })
    }

    /// True if it may do with `path` what is `wanted`, and search the directories on the way.
    fn gets_to(&self, path: &JailPath, wanted: i32, searched: &[JailPath], root: &Root) -> bool {
        // Who gets to a path from the root may search all above it.
        let mut reached = path.parent().filter(|_| wanted != 0);
        let is_searched = |directory: &JailPath| {
            if reached.as_ref().is_some_and(|reached| reached.starts_with(directory)) {
                return true;
            }
            reached = Some(directory.clone());
            self.reaches(directory, X_OK, root)
        };
        (wanted == 0 || self.reaches(path, wanted, root)) && searched.iter().rev().all(is_searched)
    }

    /// True if it may get to `path` from the root, and do with it what is `wanted`.
    fn reaches(&self, path: &JailPath, wanted: i32, root: &Root) -> bool {
        may_reach(&self.user, &path.below(root.path()), wanted) == Ok(true)
    }

    /// The first of these directories that may not be searched.
    fn stop_on_the_way(&self, searched: &[JailPath], root: &Root) -> Option<JailPath> {
        let stops = |directory: &&JailPath| match root.lstat(directory) {
            Ok(Some(facts)) => !facts.is_directory() || !self.may(directory, &facts, X_OK, root),
            _ => false,
        };
        searched.iter().find(stops).cloned()
    }

    fn stop_at(&self, path: &JailPath, facts: &Facts, wanted: i32, root: &Root) -> Option<JailPath> {
        (wanted != 0 && !self.may(path, facts, wanted, root)).then(|| path.clone())
    }

    /// True if it may do that with what is at `path`, however it gets there.
    fn may(&self, path: &JailPath, facts: &Facts, wanted: i32, root: &Root) -> bool {
        if self.overrides(facts, wanted) {
            return true;
        }
        // Asked as root, the kernel would count this process's capabilities.
        let node = if self.user.uid == 0 { None } else { root.node(path).ok().flatten() };
        let said = node.and_then(|node| may_use(&self.user, node.as_fd(), wanted).ok());
        said.unwrap_or_else(|| self.is_let(facts, wanted))
    }

    /// True if capabilities are enough.
    fn overrides(&self, facts: &Facts, wanted: i32) -> bool {
        let counts = self.only.as_ref().is_none_or(|[users, groups]| {
            let is_in = |ranges: &[Range<u64>], id: u32| ranges.iter().any(|range| range.contains(&id.into()));
            is_in(users, facts.uid) && is_in(groups, facts.gid)
        });
        let reads = wanted == R_OK || facts.is_directory() && wanted == X_OK;
        counts && (self.capabilities & CAP_DAC_OVERRIDE != 0 || self.capabilities & CAP_DAC_READ_SEARCH != 0 && reads)
    }

    /// What the mode says to the first class that fits.
    fn is_let(&self, facts: &Facts, wanted: i32) -> bool {
        let shift = if self.user.uid == facts.uid {
            6
        } else if self.user.gid == facts.gid || self.user.groups.contains(&facts.gid) {
            3
        } else {
            0
        };
        let wanted = wanted.cast_unsigned();
        facts.mode >> shift & wanted == wanted
    }
}

/// True if it may do what it likes with the files that its user namespace has owners of.
fn overrides_all(task: i32) -> bool {
    effective_capabilities(task).is_ok_and(|capabilities| capabilities & CAP_DAC_OVERRIDE != 0)
}

/// By the texts of the links, which name it (`namespaces(7)`): looked at behind them it costs twice as much. What is not to be seen is not
/// ours.
pub(super) fn is_in_our_user_namespace(task: i32) -> bool {
    let [own, other] =
        ["self".to_owned(), task.to_string()].map(|who| fs_err::read_link(format!("/proc/{who}/ns/user")).ok());
    own.is_some() && own == other
}

/// The ids that a map of a user namespace gives, as this process has them: the second number of each line and so many as the third
/// says (`user_namespaces(7)`).
fn outside(map: &str) -> Vec<Range<u64>> {
    let range = |line: &str| {
        let mut numbers = line.split_whitespace().skip(1).map_while(|number| number.parse::<u64>().ok());
        let (first, count) = (numbers.next()?, numbers.next()?);
        Some(first..first + count)
    };
    map.lines().filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    fn rights(uid: u32, gid: u32, capabilities: u64) -> Rights {
        Rights { user: Credentials { uid, gid, groups: vec![50] }, capabilities, only: None }
    }

    fn facts(uid: u32, gid: u32, mode: u32) -> Facts {
        let stat = nix::sys::stat::lstat("/proc/self/status").unwrap();
        Facts { mode, uid, gid, ..Facts::from_stat(&stat).unwrap() }
    }

    fn path(text: &str) -> JailPath {
        JailPath::parse(text.as_bytes()).unwrap()
    }

    fn open(path: &Path, mode: u32) {
        fs_err::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_first_class_that_fits_decides() {
        let user = rights(1000, 100, 0);
        assert!(user.is_let(&facts(1000, 0, 0o400), R_OK));
        assert!(!user.is_let(&facts(1000, 100, 0o044), R_OK), "the owner's bits count, though others may");
        assert!(user.is_let(&facts(0, 100, 0o640), R_OK));
        assert!(user.is_let(&facts(0, 50, 0o640), R_OK), "a supplementary group");
        assert!(!user.is_let(&facts(0, 0, 0o640), R_OK));
        assert!(user.is_let(&facts(0, 0, 0o604), R_OK));
    }

    #[test]
    fn capabilities_override() {
        assert!(rights(1000, 100, CAP_DAC_READ_SEARCH).overrides(&facts(0, 0, 0), R_OK));
        assert!(!rights(1000, 100, CAP_DAC_READ_SEARCH).overrides(&facts(0, 0, 0), W_OK));
        assert!(rights(1000, 100, CAP_DAC_OVERRIDE).overrides(&facts(0, 0, 0), W_OK));
    }

    #[test]
    fn in_another_user_namespace_they_count_for_its_own_files() {
        let only = Some([outside("         0       1000          1\n"), outside("0 100 1\n5 200 10\n")]);
        let rights = Rights { only, ..rights(1000, 100, CAP_DAC_OVERRIDE) };
        assert!(rights.overrides(&facts(1000, 100, 0), R_OK));
        assert!(rights.overrides(&facts(1000, 209, 0), R_OK));
        assert!(!rights.overrides(&facts(0, 100, 0), R_OK));
        assert!(!rights.overrides(&facts(1000, 0, 0), R_OK));
    }

    #[test]
    fn a_closed_directory_stops_what_is_below() {
        let directory = tempfile::tempdir().unwrap();
        fs_err::create_dir_all(directory.path().join("closed/deep")).unwrap();
        open(directory.path(), 0o755);
        open(&directory.path().join("closed"), 0o700);
        // Root's is closed to the stranger, and its own to whoever runs this.
        let stranger = rights(54321, 54321, 0);
        let root = Root::open(directory.path()).unwrap();
        let asks_itself = !nix::unistd::geteuid().is_root();
        let stop = (!asks_itself).then(|| path("/closed"));
        let way = ["/", "/closed", "/closed/deep"].map(path);
        assert_eq!(stranger.stop_on_the_way(&way, &root), stop);
        assert_eq!(stranger.stop_on_the_way(&way[..1], &root), None);
        assert_eq!(stranger.stop_on_the_way(&way[2..], &root), None, "whoever stands there is there");
        assert_eq!(stranger.reaches(&path("/closed/deep"), X_OK, &root), asks_itself);
        open(&directory.path().join("closed"), 0o755);
        assert!(stranger.reaches(&path("/closed/deep"), X_OK, &root), "it is open now");
    }

    #[test]
    fn a_file_that_may_be_written_and_not_read_is_refused() {
        assert_eq!(wanted(&facts(0, 0, 0), Access::Look), R_OK);
        assert_eq!(wanted(&facts(0, 0, 0), Access::Write), W_OK | R_OK);
    }
}
