//! How far a path goes by the flags of `openat2(2)`.
//!
//! In: where it leads, and the flags. Out: the same, or where the kernel goes no further, with all that it has gone through by then.

use crate::event::{Found, Link, Walk};
use crate::walk::{Blocked, Walked};

const RESOLVE_NO_MAGICLINKS: u64 = 0x2;
const RESOLVE_NO_SYMLINKS: u64 = 0x4;
const RESOLVE_BENEATH: u64 = 0x8;

impl Walked {
    /// What of this walk `openat2(2)` takes part in with these `RESOLVE_*` flags: it follows no links, or does not leave the
    /// directory `from`. Where it goes no further, it has looked at a link, or at that directory, where `look`
    /// finds what it is.
    pub(crate) fn kept_to(
        mut self,
        resolve: u64,
        from: &[u8],
        spelled: &[u8],
        look: impl FnOnce(&[u8]) -> Found,
    ) -> Self {
        let is_beneath = |path: &[u8]| path.strip_prefix(from).is_some_and(|rest| rest.is_empty() || rest[0] == b'/');
        let links = &self.walk.links;
        // Where it went up from there, by itself or by a link, and may have come back.
        let left = self.walk.passed.iter().position(|passed| passed == from);
        let goes_first = |link: &&Link| left.is_none_or(|left| link.passed <= left);
        if resolve & (RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS) != 0 && self.by_door {
            return self.refused_at(from.to_vec(), look);
        }
        let refused = if resolve & RESOLVE_NO_SYMLINKS != 0 && !links.is_empty() {
            Some(0)
        } else if resolve & RESOLVE_BENEATH == 0 || from == b"/" {
            None
        } else if spelled.starts_with(b"/") {
            return self.refused_at(from.to_vec(), look);
        } else if let Some(absolute) =
            links.iter().take_while(goes_first).position(|link| link.target.starts_with(b"/"))
        {
            Some(absolute)
        } else if let Some(left) = left {
            // What it went through by then is needed to get there.
            self.walk.links.retain(|link| link.passed <= left);
            self.walk.passed.truncate(left);
            self.walk.searched.retain(|searched| is_beneath(&searched.path));
            return self.refused_at(from.to_vec(), look);
        } else if is_beneath(&self.walk.end) {
            None
        } else {
            return self.refused_at(from.to_vec(), look);
        };
        let Some(index) = refused else { return self };
        let link = self.walk.links.swap_remove(index);
        self.walk.links.truncate(index);
        // What it leads to was not gone into, and nobody refused there.
        self.walk.searched.truncate(link.searched);
        self.walk.passed.truncate(link.passed);
        self.refused_at(link.path, look)
    }

    fn refused_at(self, end: Vec<u8>, look: impl FnOnce(&[u8]) -> Found) -> Self {
        let found = look(&end);
        Self { walk: Walk { end, found, ..self.walk }, stop: Some(Blocked::Refused), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Searched;
    use crate::look;
    use crate::place::Place;
    use crate::sample::{Fixture, bytes, fixture};
    use crate::walk::{Asker, Walker, there};
    use nix::errno::Errno;
    use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
    use std::os::unix::fs::symlink;

    fn found(path: &[u8]) -> Found {
        look::lstat(path).map_or_else(Found::Unknown, there)
    }

    #[test]
    fn what_a_link_leads_to_that_is_not_followed_was_not_gone_into() {
        let Fixture { directory, place } = &fixture();
        let asker = Asker { process: 1, task: 1, place };
        let spelled = b"usr/../opt/lib/tool";
        let walked = Walker::default().walk(asker, &place.directory, spelled, true, true);
        let Walk { searched, passed, end, .. } =
            walked.kept_to(RESOLVE_NO_SYMLINKS, &place.directory, spelled, found).walk;
        let searched: Vec<&[u8]> = searched.iter().flat_map(Searched::directories).collect();
        let at = |name: &str| bytes(&directory.path().join(name));
        let top = place.directory.clone();
        assert_eq!(end, at("opt/lib/tool"));
        assert_eq!(passed, [at("usr")]);
        assert_eq!(searched, [top.clone(), at("usr"), top, at("opt"), at("opt/lib")]);
    }

    /// As the kernel keeps to them; and what it has gone through until then is told.
    #[test]
    fn paths_that_a_call_does_not_go() {
        let Fixture { directory, place } = &fixture();
        let at = |name: &str| bytes(&directory.path().join(name));
        for (link, target) in [("out", "../opt"), ("in", "bin"), ("bin/up", "../../opt"), ("bin/back", "../../usr/bin")]
        {
            symlink(target, directory.path().join("usr").join(link)).unwrap();
        }
        for (link, target) in [("away", "opt"), ("home", "usr/bin")] {
            symlink(directory.path().join(target), directory.path().join("usr").join(link)).unwrap();
        }
        let asker = Asker { process: 1, task: 1, place };
        let usr = fs_err::File::open(directory.path().join("usr")).unwrap();
        let (beneath, plain) = (ResolveFlag::RESOLVE_BENEATH, ResolveFlag::RESOLVE_NO_SYMLINKS);
        // Where it stops, and the links and directories that it went through before that.
        for (spelled, resolve, stop) in [
            ("bin/tool", beneath, None),
            ("bin/../bin/tool", beneath, None),
            ("in/tool", beneath, None),
            ("bin/tool", plain, None),
            ("../usr/bin/tool", plain, None),
            ("in/tool", plain, Some(("usr/in", &[][..], &[][..]))),
            ("bin/back/tool", plain, Some(("usr/bin/back", &[], &[]))),
            ("../opt/lib", beneath, Some(("usr", &[], &[]))),
            ("/usr/bin/tool", beneath, Some(("usr", &[], &[]))),
            ("out/lib", beneath, Some(("usr", &["usr/out"], &[]))),
            ("away/lib", beneath, Some(("usr/away", &[], &[]))),
            ("home/tool", beneath, Some(("usr/home", &[], &[]))),
            ("in/../../opt", beneath, Some(("usr", &["usr/in"], &["usr/bin"]))),
            ("in/up/lib/tool", beneath, Some(("usr", &["usr/in", "usr/bin/up"], &["usr/bin"]))),
            ("bin/back/tool", beneath, Some(("usr", &["usr/bin/back"], &["usr/bin"]))),
            ("home/../../out", beneath, Some(("usr/home", &[], &[]))),
            ("../usr/home/tool", beneath, Some(("usr", &[], &[]))),
        ] {
            let how = OpenHow::new().flags(OFlag::O_PATH).resolve(resolve);
            let is_refused = matches!(openat2(&usr, spelled, how), Err(Errno::EXDEV | Errno::ELOOP));
            let walked = Walker::default().walk(asker, &at("usr"), spelled.as_bytes(), true, true);
            let kept = walked.kept_to(resolve.bits(), &at("usr"), spelled.as_bytes(), found);
            assert_eq!(
                (is_refused, kept.stop == Some(Blocked::Refused)),
                (stop.is_some(), stop.is_some()),
                "{spelled}"
            );
            let Some((end, links, passed)) = stop else { continue };
            let all = |names: &[&str]| names.iter().map(|name| at(name)).collect::<Vec<_>>();
            let told: Vec<Vec<u8>> = kept.walk.links.into_iter().map(|link| link.path).collect();
            assert_eq!((kept.walk.end, told, kept.walk.passed), (at(end), all(links), all(passed)), "{spelled}");
        }
    }

    /// Who only passes what leads each task somewhere else has gone through no door.
    #[test]
    fn doors_of_proc_that_a_call_does_not_take() {
        let own = std::process::id().cast_signed();
        let place = Place { root: b"/".to_vec(), directory: b"/".to_vec(), ..Place::default() };
        let asker = Asker { process: own, task: own, place: &place };
        let top = fs_err::File::open("/").unwrap();
        for path in ["/proc/self/../../etc/passwd", "/proc/self/exe", "/proc/self/root/etc/passwd", "/proc/self/status"]
        {
            let how = OpenHow::new().flags(OFlag::O_PATH).resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
            let is_refused = openat2(&top, path, how).is_err_and(|errno| errno == Errno::ELOOP);
            let walked = Walker::default().walk(asker, b"/", path.as_bytes(), true, true);
            let kept = walked.kept_to(RESOLVE_NO_MAGICLINKS, b"/", path.as_bytes(), found);
            assert_eq!(kept.stop == Some(Blocked::Refused), is_refused, "{path}");
        }
    }
}
