//! Where a path leads, link by link, in a task's own view.
//!
//! In: the task's place and a path as it spelled it. Out: a [`Walk`]. The kernel's rules are those of
//! `path_resolution(7)`; nothing is opened, so that nothing is noticed (no atime, no FIFO, no automount).

mod steps;

use std::collections::HashMap;
use std::sync::Arc;

use nix::sys::stat::{FileStat, SFlag};

use crate::event::{Found, Link, Searched, Walk};
use crate::foresight::{Foreseen, Way, is_unasked};
use crate::names::{push, with_room};
use crate::place::Place;
use steps::Steps;

/// So many bytes of directories are remembered: some 50,000 of common length.
const LIMIT: usize = 16 << 20;

/// Who asks, and from where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub(crate) process: i32,
    pub(crate) task: i32,
    pub(crate) place: &'a Place,
}

/// A walk, and what it says beyond where it leads.
#[derive(Debug, Clone)]
pub(crate) struct Walked {
    pub(crate) walk: Walk,
    /// It went through a door of `/proc`, which leads each task somewhere else.
    pub(crate) is_personal: bool,
    /// Through one to what it leads to.
    pub(crate) by_door: bool,
    /// It ended before the path did.
    pub(crate) stop: Option<Blocked>,
    /// Where the path goes on, if that is in another place: what is behind a link of `/proc` at which it has stopped, or where the
    /// task stands.
    pub(crate) onward: Option<Onward>,
}

/// A path that goes on in another place.
#[derive(Debug, Clone)]
pub(crate) struct Onward {
    /// What is known of where it has left.
    pub(crate) at: FileStat,
    /// From which directory, if that is where the task stands.
    pub(crate) from: Vec<u8>,
    pub(crate) spelled: Vec<u8>,
}

/// Why a walk ended before its path did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blocked {
    /// By something missing; what is behind it is appended to the walk's end as spelled.
    Missing,
    /// By something missing, and what is behind it has `..` in it: the walk's end is what is missing.
    MissingThenUp,
    /// By something that is no directory: the walk's end.
    NoDirectory,
    /// By a door of `/proc` that leads to what no path of the tracer's leads to; the path goes on from there, or not.
    Elsewhere { goes_on: bool },
    /// By a link that the call does not follow, or because it goes where the call does not go (`openat2(2)`).
    Refused,
    /// By an error.
    Error,
}

/// Walks paths, and remembers directories that were walked.
#[derive(Debug, Default)]
pub(crate) struct Walker {
    directories: HashMap<Vec<u8>, Arc<Directory>>,
    /// So many bytes these take.
    size: usize,
    /// Where the last of them is: what leads to it is no link, and need not be looked at again on the way to its neighbours.
    latest: Vec<u8>,
    /// By device: is it a `/proc`, wherever that is mounted?
    processes: HashMap<u64, bool>,
    /// Of the call that is looked into: walks that could have had to wait for others.
    pub(crate) foreseen: Foreseen,
    /// Those that are wanted now, where the call can wait for them.
    pub(crate) wanted: Option<Vec<(Way, Place)>>,
}

/// A directory that a path led to.
#[derive(Debug, Clone)]
struct Directory {
    end: Vec<u8>,
    links: Vec<Link>,
    passed: Vec<Vec<u8>>,
    searched: Vec<Searched>,
    is_personal: bool,
    by_door: bool,
}

impl Directory {
    /// So many bytes it takes, and the key by which it is remembered; with what the allocator needs for each, about.
    fn size(&self, key: &[u8]) -> usize {
        let each = |length: usize| length + 48;
        let links = self.links.iter().map(|link| each(link.path.len()) + each(link.target.len()));
        let passed = self.passed.iter().map(|path| each(path.len()));
        let searched = self.searched.iter().map(|searched| each(searched.path.len()));
        each(size_of::<Self>())
            + each(key.len())
            + each(self.end.len())
            + links.chain(passed).chain(searched).sum::<usize>()
    }
}

impl Walker {
    /// Names have changed: what was remembered may be wrong.
    pub(crate) fn forget(&mut self) {
        self.directories.clear();
        self.size = 0;
        self.latest.clear();
        // What is mounted takes the numbers of what was unmounted.
        self.processes.clear();
    }

    /// Follows `spelled` from `from`, the last component only if `follow`. Where it would have to wait for the program
    /// itself it ends, unless the way was foreseen. Where it may have to wait for somebody else, too, if the call can wait for
    /// that: what was foreseen then is that there is an answer, and it is looked at anew.
    pub(crate) fn walk(
        &mut self,
        asker: Asker<'_>,
        from: &[u8],
        spelled: &[u8],
        follow: bool,
        may_remember: bool,
    ) -> Walked {
        // What is behind a link has paths that are others' as well.
        let is_behind = asker.place.behind.is_some();
        let walked = self.step(asker, from, spelled, follow, may_remember, self.wanted.is_none() || is_behind);
        if is_behind || !is_unasked(&walked.walk.found) {
            return walked;
        }
        let root = asker.place.root.clone();
        let way = Way { root, from: from.to_vec(), spelled: spelled.to_vec(), follow };
        let Some(foreseen) = self.foreseen.walk(&way) else {
            if let Some(wanted) = self.wanted.as_mut().filter(|_| asker.place.remote.is_some()) {
                wanted.push((way, asker.place.clone()));
            }
            return walked;
        };
        let again = self.step(asker, from, spelled, follow, may_remember, true);
        if is_unasked(&again.walk.found) { foreseen } else { again }
    }

    /// True if the call that is looked into is to wait for what is wanted.
    pub(crate) fn is_waiting(&self) -> bool {
        self.wanted.as_ref().is_some_and(|wanted| !wanted.is_empty())
    }

    /// `asks`: also servers that are not traced.
    fn step(
        &mut self,
        asker: Asker<'_>,
        from: &[u8],
        spelled: &[u8],
        follow: bool,
        may_remember: bool,
        asks: bool,
    ) -> Walked {
        // Only a plain last name can be split off: behind a slash, `.` and `..` the kernel follows.
        let name_start = spelled.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        let (parent, name) = spelled.split_at(name_start);
        if matches!(name, b"" | b"." | b"..") {
            let steps = Steps::new(asker, start(asker, from, spelled), asks, &self.latest, &mut self.processes);
            return steps.finish(spelled, follow || name.is_empty(), false);
        }
        let directory = match self.directory(asker, from, parent, may_remember, asks) {
            Ok(directory) => directory,
            Err(mut walked) => {
                if matches!(walked.stop, None | Some(Blocked::Missing)) && matches!(walked.walk.found, Found::Missing) {
                    push(&mut walked.walk.end, name);
                }
                if let Some(onward) = &mut walked.onward {
                    push(&mut onward.spelled, name);
                }
                return *walked;
            }
        };
        let steps = Steps::new(asker, with_room(&directory.end, name), asks, &self.latest, &mut self.processes);
        steps.beyond(&directory).finish(name, follow, false)
    }

    /// Where the directory part of a path leads; the walk so far if that is no directory.
    fn directory(
        &mut self,
        asker: Asker<'_>,
        from: &[u8],
        parent: &[u8],
        may_remember: bool,
        asks: bool,
    ) -> Result<Arc<Directory>, Box<Walked>> {
        if parent.is_empty() {
            let (links, passed, searched) = (Vec::new(), Vec::new(), Vec::new());
            let (end, is_personal, by_door) = (from.to_vec(), false, false);
            return Ok(Arc::new(Directory { end, links, passed, searched, is_personal, by_door }));
        }
        let from = if parent.starts_with(b"/") { &asker.place.root } else { from };
        let key = [&asker.place.root, &b"\0"[..], from, b"\0", parent].concat();
        if let Some(directory) = self.directories.get(&key) {
            return Ok(Arc::clone(directory));
        }
        let start = start(asker, from, parent);
        let walked = Steps::new(asker, start, asks, &self.latest, &mut self.processes).finish(parent, true, true);
        match &walked.walk.found {
            Found::There(stat) if is(stat, SFlag::S_IFDIR) => {}
            Found::There(_) => {
                return Err(Box::new(Walked { stop: walked.stop.or(Some(Blocked::NoDirectory)), ..walked }));
            }
            _ => return Err(Box::new(walked)),
        }
        let Walked { walk: Walk { links, passed, searched, end, .. }, is_personal, by_door, .. } = walked;
        let directory = Arc::new(Directory { end, links, passed, searched, is_personal, by_door });
        if may_remember && !is_personal && asker.place.namespace.is_none() && asker.place.behind.is_none() {
            let size = directory.size(&key);
            if self.size + size > LIMIT {
                self.directories.clear();
                self.size = 0;
            }
            self.size += size;
            self.latest.clone_from(&directory.end);
            self.directories.insert(key, Arc::clone(&directory));
        }
        Ok(directory)
    }
}

/// Where `spelled` starts, for somebody who stands at `from`.
fn start(asker: Asker<'_>, from: &[u8], spelled: &[u8]) -> Vec<u8> {
    with_room(if spelled.starts_with(b"/") { &asker.place.root } else { from }, spelled)
}

pub(crate) fn there(stat: FileStat) -> Found {
    Found::There(Box::new(stat))
}

fn is(stat: &FileStat, file_type: SFlag) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == file_type
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use nix::errno::Errno;

    use super::*;
    use crate::sample::{Fixture, bytes, fixture};

    impl Fixture {
        fn walk(&self, spelled: &str, follow: bool) -> (String, Vec<String>, Found) {
            let mut walker = Walker::default();
            let asker = Asker { process: 1, task: 1, place: &self.place };
            let own = |path: &[u8]| {
                let text = String::from_utf8(path.to_vec()).unwrap();
                text.strip_prefix(self.directory.path().to_str().unwrap()).unwrap().to_owned()
            };
            let first = walker.walk(asker, &self.place.directory, spelled.as_bytes(), follow, true).walk;
            let second = walker.walk(asker, &self.place.directory, spelled.as_bytes(), follow, true).walk;
            assert_eq!((&first.end, &first.links), (&second.end, &second.links), "remembering changes nothing");
            (own(&first.end), first.links.iter().map(|link| own(&link.path)).collect(), first.found)
        }
    }

    #[test]
    fn what_is_remembered_takes_so_much_and_no_more() {
        let fixture = fixture();
        let asker = Asker { process: 1, task: 1, place: &fixture.place };
        let mut walker = Walker::default();
        let most = (0..1000)
            .map(|times| {
                let spelled = ["./".repeat(1000 + times), "usr/bin/tool".to_owned()].concat();
                walker.walk(asker, &fixture.place.directory, spelled.as_bytes(), true, true);
                assert_eq!(walker.size, walker.directories.iter().map(|(key, at)| at.size(key)).sum::<usize>());
                walker.directories.len()
            })
            .max();
        assert!((20..500).contains(&most.unwrap()), "{most:?}");
        assert!(walker.size <= LIMIT);
        walker.forget();
        assert_eq!(walker.size, 0);
    }

    #[test]
    fn links_in_the_middle_and_at_the_end() {
        let fixture = fixture();
        let (end, links, found) = fixture.walk("opt/lib/tool", true);
        assert_eq!((end.as_str(), links), ("/usr/bin/tool", vec!["/opt/lib/tool".to_owned(), "/bin".to_owned()]));
        assert!(matches!(found, Found::There(_)));
        assert_eq!(fixture.walk("/bin/tool", false).0, "/usr/bin/tool");
        assert_eq!(fixture.walk("bin", false).0, "/bin");
        assert_eq!(fixture.walk("bin/", false).0, "/usr/bin");
        assert_eq!(fixture.walk("bin/..", false).0, "/usr");
    }

    /// What one walk has found out of the way there, the next ones may rely on; until names change.
    #[test]
    fn one_walk_after_another_is_as_each_alone() {
        let fixture = fixture();
        let mut one = Walker::default();
        let asker = Asker { process: 1, task: 1, place: &fixture.place };
        let mut compare = |spelled: &str| {
            let walk =
                |walker: &mut Walker| walker.walk(asker, &fixture.place.directory, spelled.as_bytes(), true, true).walk;
            let (remembering, alone) = (walk(&mut one), walk(&mut Walker::default()));
            assert_eq!((&remembering.end, &remembering.links), (&alone.end, &alone.links), "{spelled}");
            assert_eq!(remembering.searched, alone.searched, "{spelled}");
            assert_eq!(format!("{:?}", remembering.found), format!("{:?}", alone.found), "{spelled}");
        };
        let all = [
            "usr/bin/tool",
            "usr/none/x",
            "usr/bin/tool/x/y",
            "usr/bi/x",
            "usr/bin/../bin/tool",
            "bin/tool/..",
            "opt/lib/tool",
        ];
        for spelled in all.iter().chain(all.iter().rev()) {
            compare(spelled);
        }
        fs_err::rename(fixture.directory.path().join("usr"), fixture.directory.path().join("other")).unwrap();
        symlink("other", fixture.directory.path().join("usr")).unwrap();
        one.forget();
        let walk = one.walk(asker, &fixture.place.directory, b"usr/bin/sub/x", true, true).walk;
        assert_eq!(walk.links.len(), 1, "{walk:?}");
    }

    #[test]
    fn what_is_left_again_was_entered() {
        let fixture = fixture();
        let asker = Asker { process: 1, task: 1, place: &fixture.place };
        let walked = Walker::default().walk(asker, &fixture.place.directory, b"opt/lib/../../usr/bin", true, true);
        let passed = ["opt/lib", "opt"].map(|name| bytes(&fixture.directory.path().join(name)));
        assert_eq!(walked.walk.passed, passed);
    }

    /// Where the path starts from is searched, and nothing above it; what a link leads to from where that leads from.
    #[test]
    fn what_is_searched_on_the_way() {
        let fixture = fixture();
        let top = bytes(fixture.directory.path());
        let of = |from: &str, spelled: &str| {
            let asker = Asker { process: 1, task: 1, place: &fixture.place };
            let from = bytes(&fixture.directory.path().join(from));
            let walk = Walker::default().walk(asker, &from, spelled.as_bytes(), true, true).walk;
            let all = walk.searched.iter().flat_map(Searched::directories);
            let mut own: Vec<String> = all.map(|path| String::from_utf8(path[top.len()..].to_vec()).unwrap()).collect();
            own.sort();
            own.dedup();
            own
        };
        assert_eq!(of("usr/bin", "tool"), ["/usr/bin"]);
        assert_eq!(of("usr", "bin/tool"), ["/usr", "/usr/bin"]);
        assert_eq!(of("usr", "bin"), ["/usr"]);
        assert_eq!(of("usr/bin", "./"), ["/usr/bin"]);
        assert_eq!(of("usr/bin", "../../opt/."), ["", "/opt", "/usr", "/usr/bin"]);
        assert_eq!(of("opt/lib", "tool"), ["", "/opt", "/opt/lib", "/usr", "/usr/bin"]);
        assert_eq!(of("opt", "/usr/bin/tool"), ["", "/usr", "/usr/bin"]);
        assert_eq!(of("opt", "/"), [""; 0]);
        assert_eq!(of("usr", "none/x"), ["/usr"]);
        let own = nix::unistd::getpid().as_raw();
        let place = Place { root: b"/".to_vec(), directory: b"/".to_vec(), ..Place::default() };
        let asker = Asker { process: own, task: own, place: &place };
        let held = fs_err::File::open(fixture.directory.path().join("usr")).unwrap();
        let door = format!("/proc/self/fd/{}/bin/tool", std::os::fd::AsRawFd::as_raw_fd(&held));
        let walk = Walker::default().walk(asker, b"/", door.as_bytes(), true, true).walk;
        let behind: Vec<_> = walk.searched.iter().filter(|one| !one.path.starts_with(b"/proc")).collect();
        let usr = bytes(&fixture.directory.path().join("usr"));
        let all: Vec<Vec<u8>> = behind.iter().flat_map(|one| one.directories()).map(<[u8]>::to_vec).collect();
        assert_eq!(all, [usr.clone(), [&usr, &b"/bin"[..]].concat()], "{:?}", walk.searched);
    }

    #[test]
    fn nothing_leads_above_the_root() {
        let fixture = fixture();
        assert_eq!(fixture.walk("../../../usr", true).0, "/usr");
        assert_eq!(fixture.walk("/../usr", true).0, "/usr");
    }

    #[test]
    fn missing_and_impossible() {
        let fixture = fixture();
        let (end, links, found) = fixture.walk("bin/none/x", true);
        assert_eq!((end.as_str(), links.len()), ("/usr/bin/none/x", 1));
        assert!(matches!(found, Found::Missing));
        assert!(matches!(fixture.walk("loop", true).2, Found::Unknown(Errno::ELOOP)));
        // The file is what is in the way.
        for spelled in ["bin/tool/x", "bin/tool/..", "bin/tool/x/y", "bin/tool/"] {
            let (end, _, found) = fixture.walk(spelled, true);
            assert_eq!(end, "/usr/bin/tool", "{spelled}");
            assert!(matches!(found, Found::There(_)));
        }
        // Nobody gets back from where nothing is.
        assert_eq!(fixture.walk("none/../bin", true).0, "/none");
        assert_eq!(fixture.walk("none/../bin/tool", true).0, "/none");
    }

    #[test]
    fn proc_leads_to_the_asker() {
        let place = Place { root: b"/".to_vec(), directory: b"/".to_vec(), ..Place::default() };
        let own = nix::unistd::getpid().as_raw();
        let walk = Walker::default().walk(
            Asker { process: own, task: own, place: &place },
            b"/",
            b"/proc/self/exe",
            true,
            true,
        );
        assert!(walk.is_personal);
        assert_eq!(walk.walk.end, bytes(&std::env::current_exe().unwrap()));
        let walk = Walker::default().walk(
            Asker { process: own, task: own, place: &place },
            b"/",
            b"/proc/self/status",
            true,
            true,
        );
        assert!(walk.is_personal);
        assert_eq!(walk.walk.end, format!("/proc/{own}/status").into_bytes());
    }
}
