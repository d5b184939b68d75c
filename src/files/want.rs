//! From what the runs did at each path to what an image needs of it: the table of `docs/design.md`, section 4.

use std::collections::{BTreeMap, BTreeSet};

use super::gather::{Gathered, OnTheWay, Shown, Touched, is_loop};
use super::special;
use super::state::{linked, names_agree, state};
use super::{FileSet, FilesError, Listing, Note, Policy, Reason, Trouble, Was, What};
use crate::path::{Facts, FileType, JailPath, escape, unescape};
use crate::root::Root;
use crate::trace::{Access, Conflict, Found, MADE_UP, NAMESPACE, Trace};
use crate::trace::{is_kernels, is_made_up, is_shared, is_temporary, mount_point};

/// What of all that the jail needs, what a person should know, and what is not there as the runs found it.
pub(super) fn wanted(
    gathered: &Gathered<'_>,
    trace: &Trace,
    root: &Root,
    policy: &Policy,
    supplied: &BTreeSet<JailPath>,
) -> Result<(FileSet, Vec<Note>, Vec<Trouble>), FilesError> {
    let mut troubles = names_agree(&gathered.paths, root)?;
    for (path, [one, other]) in trace.links_that_differ().filter(|(path, _)| !is_made_up(path, root)) {
        let error = Conflict::of_links(path, [one, other]).into();
        troubles.push(Trouble { path: path.clone(), other: None, error });
    }
    let mut wants = Wants {
        gathered,
        root,
        listing: policy.listing,
        supplied,
        jails: special::made_by_jails(supplied, trace, policy, root)?,
        files: FileSet::default(),
        notes: Vec::new(),
        troubles,
    };
    wants.add_touched()?;
    wants.add_listed()?;
    wants.add_links()?;
    wants.add_directories()?;
    Ok((wants.files, wants.notes, wants.troubles))
}

/// What one run has found to be something else than another: an image has one of them. What a runtime supplies is a placeholder.
pub(super) fn types_agree(trace: &Trace, root: &Root, supplied: &BTreeSet<JailPath>) -> Vec<Trouble> {
    let differ = trace.types_that_differ().filter(|(path, _)| !supplied.contains(path) && !is_made_up(path, root));
    let trouble = |(path, kinds): (&JailPath, _)| {
        let error = Conflict::of_types(path, kinds).into();
        Trouble { path: path.clone(), other: None, error }
    };
    differ.map(trouble).collect()
}

/// What is wanted so far, and what it is made out from.
struct Wants<'a> {
    gathered: &'a Gathered<'a>,
    root: &'a Root,
    listing: Listing,
    /// The files that every runtime supplies.
    supplied: &'a BTreeSet<JailPath>,
    /// What a jail makes where its root has nothing.
    jails: BTreeSet<JailPath>,
    files: FileSet,
    notes: Vec<Note>,
    troubles: Vec<Trouble>,
}

impl Wants<'_> {
    /// Everything that the runs touched.
    fn add_touched(&mut self) -> Result<(), FilesError> {
        for (path, touched) in &self.gathered.paths {
            if is_kernels(path) {
                self.note_runtimes(path, touched);
                continue;
            }
            if let Err(error) = self.add_what_was_there(path, touched) {
                if !error.is_trouble() && !error.is_refusal() {
                    return Err(error);
                }
                self.add(path, touched, &What::AsIs);
                self.troubles.push(Trouble { path: path.clone(), other: None, error });
            }
        }
        Ok(())
    }

    fn add_what_was_there(&mut self, path: &JailPath, touched: &Touched<'_>) -> Result<(), FilesError> {
        let root = self.root;
        if touched.first.found == Found::Unknown(MADE_UP.to_owned()) {
            let place = self.made_up(path);
            self.add(&place, touched, &What::AsIs);
            return Ok(());
        }
        // What something outside must provide; its directory is there for it.
        let provided = match &touched.first.found {
            Found::Unknown(errno) if errno == NAMESPACE => Some(Note::Namespace { path: path.clone() }),
            Found::There(facts) if facts.file_type == FileType::Socket => Some(Note::Socket { path: path.clone() }),
            _ => None,
        };
        if let Some(note) = provided {
            if !touched.is_made_anew() {
                self.notes.push(note);
            }
            if let Some(parent) = path.parent() {
                self.add(&parent, touched, &What::AsIs);
            }
            return Ok(());
        }
        let Found::There(facts) = &touched.first.found else {
            // What nobody may look at cannot be packed; of the way to it, as much as can be seen is.
            // A link of a loop is told of as one on the way.
            let is_link = is_loop(&touched.first.found);
            let is_seen = |path: &JailPath| matches!(root.facts(path), Ok(Some(_))) && !self.gathered.is_made(path);
            let seen = path.upwards().skip(usize::from(is_link)).find(is_seen);
            if let Some(seen) = seen {
                self.add(&seen, touched, &What::AsIs);
            }
            return Ok(());
        };
        if facts.is_file() && !touched.is_named {
            self.notes.push(Note::Given { path: path.clone() });
            return Ok(());
        }
        if facts.is_file() && self.supplied.contains(path) {
            // The run saw what its runtime gave it; the image gets a placeholder, if it has the name. Where no jail has covered it, a link
            // there is the run's own.
            if root.facts(path)?.is_some_and(|now| now.is_file() || touched.header.is_in_jail()) {
                self.add(path, touched, &What::AsIs);
            }
            return Ok(());
        }
        if facts.is_directory() && self.is_the_jails(path, touched)? {
            return Ok(());
        }
        touched.found_the_same(path, root)?;
        let what = state(path, touched, &touched.facts(facts), root)?;
        match &what {
            What::Was(was) if facts.is_file() && was.content.is_some() && touched.is_changed() => {
                self.notes.push(Note::State { path: path.clone() });
            }
            What::Sealed(_) => self.notes.push(Note::Refused { path: path.clone() }),
            _ => {}
        }
        if facts.is_file() && is_temporary(path) {
            self.notes.push(Note::Temporary { path: path.clone() });
        }
        self.add(path, touched, &what);
        Ok(())
    }

    /// The names that listings showed. They come after everything that was touched: a name that was not is there by name alone.
    fn add_listed(&mut self) -> Result<(), FilesError> {
        let changed = changed_files(self.gathered, &self.files);
        for (path, touched) in &self.gathered.paths {
            let listed = match self.listing {
                Listing::Opened if !touched.removal.is_tried || self.files.has_below(path) => continue,
                // One name says that it is not empty.
                Listing::Opened => touched.listed(path, &self.files, &mut Vec::new()).into_iter().take(1).collect(),
                Listing::Names | Listing::Full => touched.listed(path, &self.files, &mut self.notes),
            };
            for (child, shown) in listed {
                if self.is_the_jails(&child, touched)? {
                    continue;
                }
                let is_there = self.files.contains(&child) || self.has_listed(path, &child, shown)?;
                let what = match is_there {
                    false => What::Placeholder,
                    // What it was, its own records have said; the number of a file that was freed is given to another.
                    true if self.gathered.paths.contains_key(&child) => What::AsIs,
                    true => by_another_name(&child, &changed, self.root)?,
                };
                self.files.add(child, what, Reason::Listed { directory: path.clone() });
            }
        }
        Ok(())
    }

    /// The links on the way of what was touched.
    fn add_links(&mut self) -> Result<(), FilesError> {
        for (path, way) in self.gathered.links.iter().filter(|(path, _)| !is_kernels(path)) {
            if is_made_up(path, self.root) {
                let place = self.made_up(path);
                self.files.add_all(&place, &What::AsIs, &way.reasons);
            } else if self.files.has_more_than_name(path) {
                self.files.add_all(path, &What::AsIs, &way.reasons);
            } else if let Some(what) = way.what(path, self.root)? {
                self.files.add_all(path, &what, &way.reasons);
            }
        }
        Ok(())
    }

    /// The directories that paths left again by `..`, and those in which something was made.
    fn add_directories(&mut self) -> Result<(), FilesError> {
        let makings = self.gathered.makings.iter().filter(|(path, _)| self.gathered.was_there(path));
        let directories = self.gathered.passed.iter().chain(makings);
        for (path, reasons) in directories.filter(|(path, _)| !is_kernels(path)) {
            // What the run or its jail made on its way was not there before. Nor was what is a file by now, be it at a name that a
            // listing showed.
            if self.files.has_more_than_name(path) || self.root.facts(path)?.is_some_and(|now| now.is_directory()) {
                let path = if is_made_up(path, self.root) { self.made_up(path) } else { path.clone() };
                self.files.add_all(&path, &What::AsIs, reasons);
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &JailPath, touched: &Touched<'_>, what: &What) {
        self.files.add_all(path, what, &touched.reasons);
    }

    /// Something at `path`, where every runtime has its own, was used: what it does not provide itself.
    fn note_runtimes(&mut self, path: &JailPath, touched: &Touched<'_>) {
        let mut names = path.components();
        if names.next() != Some(b"dev") {
            return;
        }
        let has = |access| touched.accesses.contains(&access);
        if matches!(&touched.first.found, Found::There(facts) if facts.is_file()) {
            if has(Access::Execute) {
                let error = FilesError::Runtimes { path: path.clone() };
                self.troubles.push(Trouble { path: path.clone(), other: None, error });
            } else if (has(Access::Read) || has(Access::Write)) && !touched.is_made_anew() {
                self.notes.push(Note::Shared { path: path.clone() });
            }
            return;
        }
        let is_device = names.next().is_some_and(|name| {
            !PROVIDED.iter().any(|provided| provided.as_bytes() == name) && name != b"pts" && name != b"mqueue"
        });
        if is_device && touched.accesses.iter().any(|access| *access != Access::Look && *access != Access::List) {
            self.notes.push(Note::Device { path: path.clone() });
        }
    }

    /// The mount point of the file system that the kernel makes up at `path`: that is packed, and a note says that nothing below it is.
    fn made_up(&mut self, path: &JailPath) -> JailPath {
        let place = mount_point(path, self.root);
        let note = Note::MadeUp { path: place.clone() };
        // A list of processes alone has a thousand files.
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
        place
    }

    /// True for what the run found and the root never had: the run's jail had made it, as engines do, who make it again.
    fn is_the_jails(&self, path: &JailPath, touched: &Touched<'_>) -> Result<bool, FilesError> {
        Ok(touched.header.is_in_jail() && self.jails.contains(path) && self.root.facts(path)?.is_none())
    }

    /// True if the root still has at `child` what a listing of `path` has shown there, and the image gets it: directories and links,
    /// anything else only by name, unless all is wanted.
    fn has_listed(&self, path: &JailPath, child: &JailPath, shown: &Shown<'_>) -> Result<bool, FilesError> {
        let Some(Facts { file_type, .. }) = self.root.facts(child)? else { return Ok(false) };
        let is_packed = match file_type {
            FileType::Directory | FileType::Symlink => true,
            FileType::Socket => false,
            _ => self.listing == Listing::Full && !is_made_up(child, self.root),
        };
        let is_same_type = shown.file_type.is_none_or(|was| was == file_type);
        Ok(is_packed && is_same_type && !self.is_another(path, shown.directory)?)
    }

    /// True if the runs have renamed another directory to `path`, or to one above it, after they listed the one that had the facts
    /// `was`, and left it there: what is in that one is not what they have listed.
    fn is_another(&self, path: &JailPath, was: &Facts) -> Result<bool, FilesError> {
        if !self.gathered.is_below_renamed(path) {
            return Ok(false);
        }
        // Somebody else may have brought it back. Of its number, the inode alone counts: on another machine the device has another.
        Ok(self.root.facts(path)?.is_none_or(|now| now.ino != was.ino))
    }
}

impl Gathered<'_> {
    /// True if `path`, in which the runs made something, was there before them. If it was not, they may have made it too, and needed
    /// nothing of it.
    fn was_there(&self, path: &JailPath) -> bool {
        let known = path.upwards().find(|at| self.paths.contains_key(at) || self.absent.contains(at));
        known.is_none_or(|at| self.paths.contains_key(&at)) && !self.is_displaced(path)
    }
}

impl OnTheWay<'_> {
    /// The link as it was, if the run has moved or replaced it since. `None` if nothing is there and nothing is known of it, or the
    /// run's jail had made it.
    fn what(&self, path: &JailPath, root: &Root) -> Result<Option<What>, FilesError> {
        let now = root.facts(path)?;
        let has_text = || root.read_link(path).is_ok_and(|text| escape(&text) == self.link.target);
        let is_there = now.as_ref().is_some_and(|now| now.is_symlink() && has_text());
        let was = self.link.facts.as_ref().filter(|_| !is_there && !self.header.is_in_jail());
        Ok(match was.zip(unescape(&self.link.target)) {
            Some((facts, target)) => {
                let was = Was { facts: facts.clone(), content: None, target: Some(target), xattrs: None };
                Some(What::Was(Box::new(was)))
            }
            None => now.map(|_| What::AsIs),
        })
    }
}

impl Touched<'_> {
    /// What listings of `path` have shown. In a directory for everybody's files, as `/tmp`, names that nothing touched are other
    /// programs', and gone tomorrow: of these only a note is made.
    fn listed(&self, path: &JailPath, files: &FileSet, notes: &mut Vec<Note>) -> Vec<(JailPath, &Shown<'_>)> {
        let names = self.names.iter().filter_map(|(name, shown)| Some((path.join(&unescape(name)?), shown)));
        let children = names.filter(|(child, _)| !is_kernels(child));
        let (children, noise): (Vec<_>, Vec<_>) =
            children.partition(|(child, _)| !is_shared(path) || files.contains(child));
        if noise.iter().any(|(child, _)| !child.file_name().starts_with(b".minjail-")) {
            notes.push(Note::Names { path: path.clone() });
        }
        children
    }

    /// True if the runs may have changed the content, or taken it away.
    fn is_changed(&self) -> bool {
        self.accesses.iter().any(|access| access.loses())
    }

    /// True of a socket that somebody had left there, and the runs have cleared away or made anew, as servers do at their start.
    fn is_made_anew(&self) -> bool {
        let [is_removed, is_replaced, is_bound, is_asked] =
            [Access::Remove, Access::Replace, Access::Bind, Access::Connect]
                .map(|access| self.accesses.contains(&access));
        is_replaced || (is_removed && (is_bound || !is_asked))
    }
}

/// Files of several names that are wanted as they were before the runs, by device and inode.
fn changed_files(gathered: &Gathered<'_>, files: &FileSet) -> BTreeMap<(u64, u64), What> {
    let was = |path| files.wanted.get(path).map(|wanted| &wanted.what).filter(|what| matches!(what, What::Was(_)));
    linked(&gathered.paths).filter_map(|(path, finding)| Some((finding.facts.inode(), was(path)?.clone()))).collect()
}

/// What an image gets at a name that nobody touched: what the root has there; of a file that the runs `changed` by another of its
/// names, what that was.
fn by_another_name(path: &JailPath, changed: &BTreeMap<(u64, u64), What>, root: &Root) -> Result<What, FilesError> {
    // What has the number of a file and is none has it by chance, as on another machine.
    let now = if changed.is_empty() { None } else { root.facts(path)?.filter(Facts::is_file) };
    Ok(now.and_then(|now| changed.get(&now.inode()).cloned()).unwrap_or(What::AsIs))
}

/// Devices that every runtime provides (OCI runtime-spec, "Default Devices"), and what they link to.
const PROVIDED: [&str; 13] =
    ["null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "fd", "stdin", "stdout", "stderr", "shm"];
