//! Where a path leads, link by link.

use super::{Root, RootError};
use crate::path::{Facts, JailPath};

/// The kernel gives up after this many links, as it does where they lead in a circle (`path_resolution(7)`, `MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// A link met on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Where the link is; its directory is free of links.
    pub path: JailPath,
    /// Its text.
    pub target: Vec<u8>,
}

/// Where a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walk {
    /// Every link on the way, in the order in which it was met.
    pub links: Vec<Link>,
    /// The end: its directory is free of links. If something is missing on the way, the rest is appended as spelled.
    pub end: JailPath,
    /// What is at the end; nothing is where links lead in a circle.
    pub facts: Option<Facts>,
}

impl Root {
    /// Follows `spelled` from `from` as the kernel would with this root as `/`: every link on the way, `..` through
    /// links, and the last component only if `follow`.
    ///
    /// # Errors
    /// A directory or link on the way cannot be read.
    pub fn resolve(&self, from: &JailPath, spelled: &[u8], follow: bool) -> Result<Walk, RootError> {
        let mut links = Vec::new();
        let mut end = if spelled.starts_with(b"/") { JailPath::root() } else { from.clone() };
        let mut todo = reversed(spelled);
        let mut facts = self.lstat(&end)?;
        while let Some(name) = todo.pop() {
            match name.as_slice() {
                b"." => continue,
                b".." => end = end.parent().unwrap_or_else(JailPath::root),
                _ => end = end.join(&name),
            }
            facts = self.lstat(&end)?;
            match &facts {
                Some(found) if found.is_symlink() && (follow || !todo.is_empty()) => {
                    if links.len() == MAX_LINKS {
                        facts = None;
                        break;
                    }
                    let target = self.read_link(&end)?;
                    links.push(Link { path: end.clone(), target: target.clone() });
                    end = if target.starts_with(b"/") {
                        JailPath::root()
                    } else {
                        end.parent().unwrap_or_else(JailPath::root)
                    };
                    todo.append(&mut reversed(&target));
                    facts = self.lstat(&end)?;
                }
                None => {
                    end = appended(end, &todo);
                    break;
                }
                Some(_) => {}
            }
        }
        Ok(Walk { links, end, facts })
    }
}

/// The components of `path`, the first one last, so that `pop` gives them in order.
fn reversed(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()).rev().map(<[u8]>::to_vec).collect()
}

/// What is left of a path behind a missing component: nothing there can be a link.
fn appended(mut end: JailPath, todo: &[Vec<u8>]) -> JailPath {
    for name in todo.iter().rev() {
        match name.as_slice() {
            b"." => {}
            b".." => end = end.parent().unwrap_or_else(JailPath::root),
            _ => end = end.join(name),
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn path(text: &str) -> JailPath {
        JailPath::parse(text.as_bytes()).unwrap()
    }

    fn fixture() -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs_err::create_dir_all(at("usr/bin")).unwrap();
        fs_err::create_dir_all(at("opt/app/lib")).unwrap();
        fs_err::write(at("usr/bin/tool"), "x").unwrap();
        symlink("usr/bin", at("bin")).unwrap();
        symlink("/opt/app/lib", at("lib")).unwrap();
        symlink("../../../usr/bin/tool", at("opt/app/lib/tool")).unwrap();
        symlink("loop", at("loop")).unwrap();
        symlink("nowhere", at("dangling")).unwrap();
        let root = Root::open(directory.path()).unwrap();
        (directory, root)
    }

    fn resolve(spelled: &str) -> Walk {
        let (_directory, root) = fixture();
        root.resolve(&JailPath::root(), spelled.as_bytes(), true).unwrap()
    }

    #[test]
    fn links_at_any_depth() {
        let walk = resolve("/lib/tool");
        assert_eq!(walk.end, path("/usr/bin/tool"));
        let met: Vec<_> = walk.links.iter().map(|link| link.path.to_string()).collect();
        assert_eq!(met, ["/lib", "/opt/app/lib/tool"]);
    }

    #[test]
    fn parent_of_a_link_is_its_targets_parent() {
        assert_eq!(resolve("/lib/..").end, path("/opt/app"));
        assert_eq!(resolve("/bin/../../../usr").end, path("/usr"));
    }

    #[test]
    fn missing_ends_keep_their_spelling() {
        let walk = resolve("/bin/none/x/../y");
        assert_eq!((walk.end, walk.facts), (path("/usr/bin/none/y"), None));
        let walk = resolve("/dangling");
        assert_eq!((walk.end, walk.links.len()), (path("/nowhere"), 1));
    }

    #[test]
    fn a_name_that_no_file_can_have_is_missing() {
        let (directory, root) = fixture();
        symlink("n".repeat(256), directory.path().join("long")).unwrap();
        let walk = root.resolve(&JailPath::root(), b"/long", true).unwrap();
        assert_eq!((walk.facts, walk.links.len()), (None, 1));
        assert_eq!(root.facts(&walk.end).unwrap(), None);
    }

    #[test]
    fn a_loop_leads_nowhere() {
        let (_directory, root) = fixture();
        let walk = root.resolve(&JailPath::root(), b"/loop", true).unwrap();
        assert_eq!((walk.end, walk.facts), (path("/loop"), None));
        assert!(walk.links.iter().all(|link| link.path == path("/loop")));
        assert!(root.resolve(&JailPath::root(), b"/loop", false).unwrap().facts.unwrap().is_symlink());
    }
}
