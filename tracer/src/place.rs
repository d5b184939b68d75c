//! Where a task stands: its root, its working directory, its descriptors, as `/proc` shows them.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::fd::AsFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, readlinkat};
use nix::sys::stat::stat;

use crate::behind::Behind;
use crate::door::{self, Open, described, leads_to, link};
use crate::held::Held;
use crate::maps::Maps;
use crate::mounts::Mounts;
use crate::names::below;
use crate::proc::{namespace, namespace_door, process_at};
use crate::remote::Remote;
use crate::served::{Lies, Served, Table};
use crate::sys::{self, Inode};
use crate::view::View;
use crate::views::{Viewer, Views};

/// A task's root and working directory, absolute, as the tracer sees them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) root: Vec<u8>,
    /// The root of the task, also where a call has another one for itself (`RESOLVE_IN_ROOT` of `openat2(2)`).
    pub(crate) top: Vec<u8>,
    pub(crate) directory: Vec<u8>,
    /// The directory was removed: nothing can be in it, and what has its name now is another.
    pub(crate) is_gone: bool,
    /// The task's mount namespace, if that is not the tracer's, or if paths may lead to what is in none.
    pub(crate) namespace: Option<u64>,
    /// The program has mounted or unmounted something: where `/proc` says that a task stands, or that something is open,
    /// something else may stand by now.
    pub(crate) may_be_covered: bool,
    /// The root is not the task's, which nothing that was found from here on has led through.
    pub(crate) strays: bool,
    /// What the task sees, if that may differ from what the program was given.
    pub(crate) view: Option<Arc<View>>,
    /// Everything here is reached from what the task has open.
    pub(crate) behind: Option<Arc<Behind>>,
    /// What the program serves itself, as the task sees it, and as the tracer does.
    pub(crate) served: Option<Arc<Table>>,
    pub(crate) served_outside: Option<Arc<Table>>,
    /// What others serve who are not traced.
    pub(crate) remote: Option<Arc<Remote>>,
}

impl Place {
    /// Whose files lie at `path` in the task's view.
    pub(crate) fn lies(&self, path: &[u8]) -> Lies {
        let Some(table) = &self.served else { return Lies::Elsewhere };
        // Another namespace's table tells of paths from the task's root on.
        match below(path, &self.top) {
            Some(below) if self.namespace.is_some() && self.top != b"/" => table.lies(below),
            _ => table.lies(path),
        }
    }

    /// What is the same for tasks for whom the same path leads to the same: mount namespace, root, and what all of that is behind.
    pub(crate) fn names(&self) -> (Option<u64>, &[u8], Option<Inode>) {
        (self.namespace, &self.root, self.behind.as_ref().map(|behind| behind.inode))
    }

    /// True if a look at `path` may have to wait for a server that is not traced.
    pub(crate) fn is_remote(&self, path: &[u8]) -> bool {
        self.remote.as_ref().is_some_and(|remote| self.namespace.is_none() && remote.holds(path))
    }

    /// The same for whoever may wait for the program's own tasks.
    pub(crate) fn unguarded(&self) -> Self {
        Self { served: None, served_outside: None, ..self.clone() }
    }

    /// The path under which the tracer reaches what `task`, which stands here, has at `path`.
    pub(crate) fn reach<'a>(&self, task: i32, path: &'a [u8]) -> Cow<'a, [u8]> {
        if let Some(reached) = self.behind.as_ref().and_then(|behind| behind.reach(path)) {
            return Cow::Owned(reached);
        }
        if self.namespace.is_none() {
            return Cow::Borrowed(path);
        }
        // proc(5), /proc/pid/root: the door to the task's own view, with its mounts.
        let door = format!("/proc/{task}/root/");
        below(path, &self.top).map_or(Cow::Borrowed(path), |below| [door.as_bytes(), below].concat().into())
    }

    /// A path under which the tracer reaches something of `task`, as the link on the way that it is to follow, and the rest.
    pub(crate) fn split<'a>(&self, task: i32, reached: &'a [u8]) -> (String, &'a [u8]) {
        let door = self.behind.as_ref().map_or_else(|| format!("/proc/{task}/root"), |behind| behind.door.clone());
        let below = reached.strip_prefix(door.as_bytes()).unwrap_or(reached);
        (door, below)
    }

    /// The path under which the tracer reaches `path` from where `task` stands, if it lies there.
    pub(crate) fn by_directory(&self, task: i32, path: &[u8]) -> Option<Vec<u8>> {
        let is_here = self.namespace.is_none() && !self.is_gone && !self.strays;
        let rest = below(path, &self.directory).filter(|_| is_here)?;
        Some([format!("/proc/{task}/cwd/").as_bytes(), rest].concat())
    }

    /// True if `door`, a link of `/proc/TASK`, leads to what stands at `path` in the task's view: below what was mounted
    /// since, or in another mount namespace than the task's, a path may tell of something that is nowhere else.
    pub(crate) fn shows(&self, task: i32, door: impl FnOnce() -> String, path: &[u8]) -> bool {
        let outside = self.served_outside.as_deref();
        let door = || format!("/proc/{task}/{}", door());
        if self.namespace.is_some() {
            return leads_to(&door(), &self.reach(task, path), outside);
        }
        !self.may_be_covered || self.lies(path) != Lies::Elsewhere || leads_to(&door(), path, outside)
    }
}

/// The places of the tasks, remembered until somebody moves.
#[derive(Debug, Default)]
pub(crate) struct Places {
    remembered: HashMap<i32, Arc<Place>>,
    /// The tracer's own mount namespace, once a task may have another one.
    own_namespace: Option<u64>,
    /// The program has mounted or unmounted something.
    has_mounted: bool,
    /// There may be mounts that are in no namespace: their paths tell nothing (`open_tree(2)`, `fsmount(2)`).
    has_detached: bool,
    pub(crate) views: Views,
    /// The mount namespaces that tasks of ours were met in, by the numbers that others get after them: those that no other gets.
    met: HashMap<u64, Option<u64>>,
    /// The directories of descriptors of tasks that were asked for.
    descriptors: Held,
    /// The last one of which it was found that a directory is open there, until names change: who walks a tree starts from it for
    /// each name in it.
    directory: Vec<u8>,
    pub(crate) maps: Maps,
    pub(crate) served: Served,
    remote: Option<Arc<Remote>>,
}

impl Places {
    /// Where `task` stands.
    ///
    /// # Errors
    /// `ENOENT` or `ESRCH` if the task is gone, else the tracer may not know.
    pub(crate) fn of(&mut self, task: i32, may_remember: bool) -> Result<Arc<Place>, Errno> {
        if let Some(place) = self.remembered.get(&task) {
            return Ok(Arc::clone(place));
        }
        let namespace = match self.own_namespace {
            Some(own) => Some(namespace(task)?).filter(|&namespace| namespace != own || self.has_detached),
            None => None,
        };
        if let Some(number) = namespace {
            self.met.entry(number).or_insert_with(|| sys::namespace_id(&namespace_door(task)));
        }
        let served_outside = self.served.table().cloned();
        let root = link(task, "root", served_outside.as_deref())?.path;
        let Open { path: directory, is_deleted: is_gone } = link(task, "cwd", served_outside.as_deref())?;
        let view = self.view(task, namespace, &root);
        let served = if namespace.is_some() {
            self.served.table_for(task, view.as_deref().map(|view| &*view.theirs))
        } else {
            served_outside.clone()
        };
        let may_be_covered = self.has_mounted;
        let top = root.clone();
        let place =
            Place { root, top, directory, is_gone, namespace, may_be_covered, view, served, ..Place::default() };
        let place = Arc::new(Place { served_outside, remote: self.remote.clone(), ..place });
        if may_remember {
            self.remembered.insert(task, Arc::clone(&place));
        }
        Ok(place)
    }

    /// What `task`, whose root is at `root`, sees, if that may differ from what the program was given.
    fn view(&mut self, task: i32, namespace: Option<u64>, root: &[u8]) -> Option<Arc<View>> {
        if namespace.is_none() && !self.has_mounted {
            return None;
        }
        let is_ours = namespace.is_none() || namespace == self.own_namespace;
        let served = self.served.table().map(Arc::as_ref);
        self.views.of(Viewer { task, namespace, is_ours, root, served })
    }

    /// Where the tracer itself stands.
    pub(crate) fn own(&mut self) -> Place {
        let view = self.view(nix::unistd::gettid().as_raw(), None, b"/");
        let served = self.served.table().cloned();
        Place {
            root: b"/".to_vec(),
            top: b"/".to_vec(),
            directory: b"/".to_vec(),
            may_be_covered: self.has_mounted,
            strays: true,
            view,
            served_outside: served.clone(),
            served,
            ..Place::default()
        }
    }

    /// The tracer's own place, if `door`, a link of `/proc/TASK`, leads to what stands at `path` there: what is open may be from before
    /// the task had another view.
    pub(crate) fn shown_outside(&mut self, task: i32, place: &Place, door: &str, path: &[u8]) -> Option<Arc<Place>> {
        place.namespace?;
        let own = self.own();
        leads_to(&format!("/proc/{task}/{door}"), path, own.served.as_deref()).then(|| Arc::new(own))
    }

    /// What those of `others` see who have another mount namespace than whoever stands at `place`: a descriptor may be from there.
    pub(crate) fn seen_by(&mut self, place: &Place, others: BTreeSet<i32>) -> Vec<Arc<View>> {
        let mut met = HashSet::from([place.namespace, self.own_namespace]);
        let mut views = Vec::new();
        for other in others {
            let Some(number) = namespace(other).ok().filter(|&number| met.insert(Some(number))) else { continue };
            let root = link(other, "root", self.served.table().map(Arc::as_ref));
            views.extend(root.ok().and_then(|root| self.view(other, Some(number), &root.path)));
        }
        views
    }

    /// What is open at `descriptor` of `task`.
    ///
    /// # Errors
    /// `ENOENT` if nothing is, `ENAMETOOLONG` if its path cannot be found out, else the tracer may not know.
    pub(crate) fn descriptor(&mut self, task: i32, descriptor: i32) -> Result<Open, Errno> {
        let directory = self.descriptors.of(task, "fd", OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        let text = readlinkat(directory, descriptor.to_string().as_str());
        if let Err(Errno::ENOENT | Errno::ESRCH) = text {
            // Also when the task is gone, and its number another's.
            self.descriptors.remove(task);
        }
        described(text, || format!("/proc/{task}/fd/{descriptor}"), self.served.table().map(Arc::as_ref))
    }

    /// True if `open`, which was just found to be at `descriptor` of `task`, is no directory: no path leads on from there (ENOTDIR),
    /// not even from a link (`open(2)`, `O_PATH` with `O_NOFOLLOW`).
    pub(crate) fn is_no_directory(&mut self, task: i32, descriptor: i32, open: &Open, may_remember: bool) -> bool {
        let may_remember = may_remember && !open.is_deleted;
        if may_remember && open.path == self.directory {
            return false;
        }
        let descriptors = self.descriptors.get(task);
        let is_none = descriptors.is_some_and(|all| sys::is_no_directory(all.as_fd(), &descriptor.to_string()));
        if !is_none && may_remember {
            self.directory.clone_from(&open.path);
        }
        is_none
    }

    /// True if a look may have to wait for the program's own tasks.
    pub(crate) fn may_wait(&self) -> bool {
        self.served.table().is_some()
    }

    /// True if a look may have to wait for somebody who is not traced.
    pub(crate) fn has_remote(&self) -> bool {
        self.remote.is_some()
    }

    /// Takes in what was mounted since; true if something was.
    pub(crate) fn refresh(&mut self) -> bool {
        let has_changed = self.served.refresh();
        if has_changed {
            self.forget_views();
        }
        has_changed
    }

    /// True if what `task` has at `address` is a file's that the program serves.
    pub(crate) fn is_memory_served(&self, task: i32, address: u64) -> bool {
        self.served.table().is_some_and(|table| self.maps.is_served(task, address, table))
    }

    /// Somebody is about to mount or unmount something. What is open in a `/proc` would keep that one from being unmounted.
    pub(crate) fn mounting(&mut self) {
        self.views.expect();
        self.distrust();
        self.descriptors.clear();
        self.maps.forget();
    }

    /// True once the program has mounted or unmounted something where the tracer sees it.
    pub(crate) fn has_mounted(&self) -> bool {
        self.has_mounted
    }

    /// `task` is about to run the program: directories that it was given may be such as no path leads to, because something
    /// was mounted over them, or because they are in another mount namespace. `given`: the doors to what it has open.
    pub(crate) fn start(&mut self, task: i32, given: &[String]) {
        let doors = ["root", "cwd"].map(|name| format!("/proc/{task}/{name}"));
        if doors.iter().chain(given).any(|door| door::is_lost(door)) {
            self.distrust();
        }
        self.remote = Remote::of(&Mounts::own()).map(Arc::new);
        self.forget();
    }

    /// Where `/proc` says that a task stands, or that something is open, something else may stand.
    pub(crate) fn distrust(&mut self) {
        self.has_mounted = true;
        self.forget();
    }

    /// `child` is there since `maker`'s last call, and has not run yet: it stands where its maker stands.
    pub(crate) fn inherit(&mut self, maker: i32, child: i32) {
        // clone(2), CLONE_NEWNS: it may have a view of its own.
        if self.own_namespace.is_none()
            && let Some(place) = self.remembered.get(&maker).cloned()
        {
            self.remembered.insert(child, place);
        }
    }

    /// `task` runs another program, and stands where it stood before. If its process `was_threaded`, it may have been
    /// another thread, whose id is gone without a word (`ptrace(2)`, "execve(2) under ptrace").
    pub(crate) fn executed(&mut self, task: i32, was_threaded: bool) {
        if was_threaded {
            self.remembered.clear();
            self.descriptors.clear();
            self.maps.forget();
        } else {
            self.descriptors.remove(task);
            self.maps.remove(task);
        }
    }

    /// A task is about to get a mount namespace that is not the tracer's.
    pub(crate) fn expect_namespaces(&mut self) -> Result<(), Errno> {
        self.views.expect();
        // A descriptor of what is there may come to those who are not.
        self.distrust();
        self.own_namespace = Some(namespace(nix::unistd::gettid().as_raw())?);
        Ok(())
    }

    /// `task` is about to enter the mount namespace at `descriptor`, or of the process there (`setns(2)`). If that is not one of
    /// those that tasks of ours have, which are `traced`, nor had, somebody else has made it.
    pub(crate) fn enter_namespace(&mut self, task: i32, descriptor: i32, traced: impl IntoIterator<Item = i32>) {
        let door = match process_at(task, descriptor) {
            Some(process) => namespace_door(process),
            None => format!("/proc/{task}/fd/{descriptor}"),
        };
        let Ok(entered) = stat(door.as_str()).map(|behind| behind.st_ino) else { return };
        let was_met =
            || self.met.get(&entered).copied().flatten().is_some_and(|id| sys::namespace_id(&door) == Some(id));
        let is_own = Some(entered) == self.own_namespace;
        if !is_own && !was_met() && traced.into_iter().all(|task| namespace(task) != Ok(entered)) {
            self.views.made().none = true;
        }
    }

    /// The program is about to mount a file system of this kind.
    pub(crate) fn makes(&mut self, kind: &[u8]) {
        self.views.makes(kind);
    }

    /// `child` may have another mount namespace than its `maker`, though nothing was said of it.
    ///
    /// # Errors
    /// The tracer's own cannot be seen.
    pub(crate) fn compare_namespaces(&mut self, maker: i32, child: i32) -> Result<(), Errno> {
        if self.own_namespace.is_some() || namespace(maker) == namespace(child) {
            return Ok(());
        }
        self.forget();
        self.expect_namespaces()
    }

    /// A task is about to get a descriptor of a mount that is in no namespace.
    pub(crate) fn expect_detached(&mut self) -> Result<(), Errno> {
        self.has_detached = true;
        self.views.made().any = true;
        self.expect_namespaces()
    }

    /// What is seen where may differ by now.
    pub(crate) fn forget_views(&mut self) {
        self.views.forget();
        self.forget();
    }

    /// `task` may stand elsewhere by now.
    pub(crate) fn forget_one(&mut self, task: i32) {
        self.remembered.remove(&task);
    }

    /// Somebody has moved, and threads and `CLONE_FS` relatives with it.
    pub(crate) fn forget(&mut self) {
        self.remembered.clear();
        self.directory.clear();
    }

    /// `task` is gone, and its id may be given to another.
    pub(crate) fn remove(&mut self, task: i32) {
        self.remembered.remove(&task);
        self.descriptors.remove(task);
        self.maps.remove(task);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn own_place() {
        let own = nix::unistd::getpid().as_raw();
        let place = Places::default().of(own, true).unwrap();
        assert_eq!(place.root, b"/");
        assert_eq!(place.directory, nix::unistd::getcwd().unwrap().into_os_string().into_vec());
        assert_eq!(crate::proc::family(own).unwrap().0, own);
    }
}
