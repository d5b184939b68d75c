//! What is seen in mount namespaces, remembered until something is mounted or renamed.
//!
//! In: a task, its root, and the kernel's tables. Out: its view. A table tells of the mounts that are to be reached from the
//! root of whoever it is read of (`fs/proc_namespace.c`, `show_mountinfo`: `SEQ_SKIP`): if that is no mount point, then not of the
//! one that it is on. What that is, the directory itself tells: if the tracer sees the same one anywhere, it is on the same file
//! system, at the same path. Two paths of one are those of two mounts; no directory has two names.
//!
//! Not covered: a root that the tracer sees nowhere, unless it is on a `tmpfs` that the program has made. That is told as hidden.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use nix::sys::statfs::{FsType, PROC_SUPER_MAGIC, TMPFS_MAGIC, statfs};

use crate::look;
use crate::mounts::{Device, Mount, Mounts};
use crate::names::{below, join};
use crate::served::{Lies, Table};
use crate::sys::{self, Inode};
use crate::view::{Given, Made, View, begins_empty};

/// So many views are kept for what they may tell of others.
const MOST_FORMER: usize = 64;

/// Kinds of file systems that have no server, by their names and by what `statfs(2)` calls them.
const SERVERLESS: [(&[u8], FsType); 3] =
    [(b"tmpfs", TMPFS_MAGIC), (b"ramfs", FsType(0x8584_58f6)), (b"proc", PROC_SUPER_MAGIC)];

#[derive(Debug, Default)]
pub(crate) struct Views {
    /// What there was before the program mounted anything, once it may.
    given: Option<Arc<Given>>,
    /// What the program has mounted since.
    made: Arc<Made>,
    /// By the numbers of their namespaces.
    now: HashMap<u64, Arc<View>>,
    /// Somebody is mounting something, or renaming: what is seen now may be seen no more in a moment.
    is_changing: bool,
    /// What was seen last. It may be out of date, and is believed only where it proves true.
    former: HashMap<u64, Arc<View>>,
    /// Mounts as they were seen last, by their ids.
    once: HashMap<u32, Mount>,
}

/// Whose view it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Viewer<'a> {
    pub(crate) task: i32,
    /// Its mount namespace; `None` for the tracer's.
    pub(crate) namespace: Option<u64>,
    pub(crate) is_ours: bool,
    pub(crate) root: &'a [u8],
    /// What the program serves, as the tracer sees it.
    pub(crate) served: Option<&'a Table>,
}

impl Views {
    /// What there is now is what the program was given.
    pub(crate) fn expect(&mut self) {
        if self.given.is_none() {
            self.given = Some(Arc::new(Given::of(&Mounts::own())));
        }
    }

    pub(crate) fn made(&mut self) -> &mut Made {
        Arc::make_mut(&mut self.made)
    }

    /// The program is about to mount a file system of this kind.
    pub(crate) fn makes(&mut self, kind: &[u8]) {
        if !self.made.kinds.contains(kind) {
            self.made().kinds.insert(kind.to_vec());
        }
    }

    /// Whether somebody is about to change what is seen where, and has not been heard of since.
    pub(crate) fn change(&mut self, is_changing: bool) {
        self.is_changing = is_changing;
    }

    /// What is seen where may differ by now.
    pub(crate) fn forget(&mut self) {
        if self.former.len() + self.now.len() > MOST_FORMER {
            self.former.clear();
        }
        for mount in self.now.values().flat_map(|view| view.theirs.iter()) {
            if self.once.get(&mount.id) != Some(mount) {
                self.once.insert(mount.id, mount.clone());
            }
        }
        self.former.extend(self.now.drain());
    }

    /// What somebody sees, once that may differ from what the program was given.
    pub(crate) fn of(&mut self, viewer: Viewer<'_>) -> Option<Arc<View>> {
        let given = self.given.clone()?;
        let Viewer { task, namespace, is_ours, root, .. } = viewer;
        let number = namespace.unwrap_or_default();
        let behind = namespace.and_then(|_| sys::known_inode(&door(task)).ok());
        if let Some(view) = self.now.get(&number).filter(|view| !self.is_changing && view.is_root(root, behind)) {
            return Some(Arc::clone(view));
        }
        let ours = Arc::new(Mounts::own());
        let (theirs, top) = match namespace {
            Some(_) => (Mounts::of(task).unwrap_or_default(), root.to_vec()),
            None => (Mounts::clone(&ours), b"/".to_vec()),
        };
        let made = Arc::clone(&self.made);
        let mut view = View { theirs: Arc::new(theirs), top, ours, given, made, is_ours, begins: None };
        if let Some(behind) = behind.filter(|_| !view.theirs.is_whole())
            && let Some(mount) = self.root_mount(viewer, &view, behind)
        {
            Arc::make_mut(&mut view.theirs).complete(mount);
        }
        let view = Arc::new(view);
        // Also while it changes, for what it may tell of others later.
        if view.theirs.is_whole() {
            self.now.insert(number, Arc::clone(&view));
        }
        Some(view)
    }

    /// What is known of the mount `id`, which is in no namespace, and on which somebody has `behind` open at `door`: it was in one
    /// before, or the program has made it so, and it holds nothing that was not put there since.
    pub(crate) fn detached(&self, id: u32, door: &str, behind: Inode) -> Option<View> {
        let device = behind.device;
        let now = self.now.values().filter_map(|view| view.theirs.find(id));
        let once = now.chain(self.once.get(&id)).find(|mount| mount.device == device);
        // The kernel gives numbers that are free to others, and what is the program's own is not compared with anything.
        let kind = || {
            let magic = statfs(door).ok()?.filesystem_type();
            SERVERLESS.iter().find(|&&(_, other)| other == magic).map(|&(kind, _)| kind)
        };
        let mount = match once {
            Some(mount) if !begins_empty(&mount.kind) || kind() == Some(&mount.kind) => mount.clone(),
            None if self.made.any && !self.given.as_ref()?.has_device(device) => {
                let whole = || b"/".to_vec();
                Mount { id, parent: id, device, root: whole(), point: whole(), kind: kind()?.to_vec() }
            }
            _ => return None,
        };
        Some(View {
            theirs: Arc::new(Mounts::alone(mount)),
            top: b"/".to_vec(),
            ours: Arc::new(Mounts::own()),
            given: self.given.clone()?,
            made: Arc::clone(&self.made),
            is_ours: false,
            begins: None,
        })
    }

    /// The mount that the root of somebody, the directory `behind`, is on, as if it began there.
    fn root_mount(&self, viewer: Viewer<'_>, view: &View, behind: Inode) -> Option<Mount> {
        // Before Linux 5.8 there is no telling what is mounted below it.
        let id = u32::try_from(behind.mount).ok().filter(|&id| id != 0)?;
        if viewer.served.is_some_and(|table| table.serves(behind.device)) {
            return None;
        }
        let once = self.former.values().flat_map(|former| former.given_at(viewer.root));
        let mut paths = std::iter::once(viewer.root.to_vec()).chain(once);
        let spot = paths.find_map(|path| within_ours(&view.ours, &path, behind, viewer.served));
        let Spot { device, root, kind } = spot.or_else(|| self.in_memory(viewer.task, &view.given, behind))?;
        Some(Mount { id, parent: id, device, root, point: b"/".to_vec(), kind })
    }

    /// The same of a file system that holds nothing but what was put there since, and that the program was not given. Only one
    /// that was such a one before is asked: others may have a server that does not answer.
    fn in_memory(&self, task: i32, given: &Given, behind: Inode) -> Option<Spot> {
        let device = behind.device;
        let was_empty = |mount: &Mount| mount.device == device && begins_empty(&mount.kind);
        let mut once = self.former.values().flat_map(|former| former.theirs.iter());
        if given.has_device(device) || !once.any(was_empty) {
            return None;
        }
        let magic = statfs(door(task).as_str()).ok()?.filesystem_type();
        let (kind, _) = SERVERLESS.iter().find(|&&(_, other)| other == magic)?;
        Some(Spot { device, root: b"/".to_vec(), kind: kind.to_vec() })
    }
}

/// Where a directory lies: on which file system, and where on that.
struct Spot {
    device: Device,
    root: Vec<u8>,
    kind: Vec<u8>,
}

/// The door to the root of `task`.
fn door(task: i32) -> String {
    format!("/proc/{task}/root")
}

/// Where the directory `behind` lies, if it is the one that the tracer sees at `path`.
fn within_ours(ours: &Mounts, path: &[u8], behind: Inode, served: Option<&Table>) -> Option<Spot> {
    if served.is_some_and(|table| table.lies(path) != Lies::Elsewhere) {
        return None;
    }
    let (there, mount) = (look::known(path).ok()?, ours.way(path).last()?);
    let is_it = (there.device, there.number) == (behind.device, behind.number) && there.mount == u64::from(mount.id);
    // By a link on the way, the mount would be another one.
    let plain = Path::new(OsStr::from_bytes(path)).canonicalize().ok().filter(|_| is_it)?;
    let rest = below(path, &mount.point).filter(|_| plain.as_os_str().as_bytes() == path)?;
    Some(Spot { device: mount.device, root: join(&mount.root, rest), kind: mount.kind.clone() })
}
