//! From touches to what is wanted: the table of `docs/design.md`, section 4.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::special;
use super::state::{Finding, linked, names_agree, state};
use super::{FileSet, FilesError, Listing, Note, Policy, Reason, Reasons, Trouble, Was, What};
use crate::path::{Facts, FileType, JailPath, escape, unescape};
use crate::root::Root;
use crate::trace::{Access, Conflict, Found, Header, Link, MADE_UP, NAMESPACE, Run, Style, Touch, Trace};
use crate::trace::{is_kernels, is_made_up, is_shared, is_temporary, mount_point};

/// In place of a system call's name: what was missed in the jail and is to be added.
pub const REPAIR: &str = "repair";

/// What the runs did with one path that was there before them.
#[derive(Debug)]
pub(super) struct Touched<'a> {
    /// The first touch of the first run: how things were.
    pub(super) first: &'a Touch,
    pub(super) header: &'a Header,
    /// Of each run, in their order.
    pub(super) findings: Vec<Finding<'a>>,
    /// The first run that has kept another content than a run before it.
    pub(super) contradiction: Option<&'a Header>,
    accesses: BTreeSet<Access>,
    /// The content may have been read.
    pub(super) granted: bool,
    /// A call may have changed the content, its time or its name.
    pub(super) is_altered: bool,
    pub(super) before: Option<&'a str>,
    pub(super) xattrs: Option<&'a BTreeMap<String, String>>,
    /// The mode and owner with which all runs do, where more than one tells of them, or another name of the file.
    pub(super) style: Option<Style>,
    names: BTreeMap<&'a str, Shown<'a>>,
    reasons: Reasons,
    removal: Removal,
    /// Somebody used a path of its own, and not only a descriptor.
    is_named: bool,
}

/// What a listing has shown at a name.
#[derive(Debug)]
struct Shown<'a> {
    /// The directory that was listed.
    directory: &'a Facts,
    /// `None` in a trace that does not tell it.
    file_type: Option<FileType>,
}

/// Every path that was there before the run, with all that was done to it; and the directories of what was made.
#[derive(Debug, Default)]
pub(super) struct Gathered<'a> {
    pub(super) paths: BTreeMap<JailPath, Touched<'a>>,
    /// Where the runs made something, or may have, or were stopped.
    makings: BTreeMap<JailPath, Reasons>,
    /// What a run has found missing, or has made.
    absent: BTreeSet<JailPath>,
    links: BTreeMap<JailPath, OnTheWay<'a>>,
    passed: BTreeMap<JailPath, Reasons>,
}

/// A link that runs have gone through.
#[derive(Debug)]
struct OnTheWay<'a> {
    header: &'a Header,
    /// As the first run met it.
    link: &'a Link,
    reasons: Reasons,
}

/// How a directory may have been taken away.
#[derive(Debug, Default)]
struct Removal {
    /// A rename may have put another in its place, and it is not told to be back.
    is_renamed: bool,
    /// A call could only take it away if it was empty.
    is_tried: bool,
}

/// Sorts the touches by path.
pub(super) fn gather(trace: &Trace) -> Gathered<'_> {
    let mut gathered = Gathered::default();
    for run in &trace.runs {
        let mut names = Names::of(run);
        for touch in &run.touches {
            gathered.take(run, touch, &mut names);
        }
    }
    gathered
}

/// What a run's reasons say, each name once.
struct Names<'a> {
    workload: Arc<str>,
    /// The paths of the programs, by their ids.
    programs: HashMap<u32, Arc<str>>,
    calls: HashMap<&'a str, Arc<str>>,
    unknown: Arc<str>,
}

impl<'a> Names<'a> {
    fn of(run: &'a Run) -> Self {
        let programs = run.programs.iter().map(|program| (program.id, program.path.as_str().into())).collect();
        let workload = run.header.workload.as_str().into();
        Self { workload, programs, calls: HashMap::new(), unknown: "".into() }
    }

    fn reason(&mut self, touch: &'a Touch) -> Reason {
        let workload = self.workload.clone();
        let program = self.programs.get(&touch.program).unwrap_or(&self.unknown).clone();
        if touch.call == REPAIR {
            return Reason::Repair { workload, program };
        }
        let call = self.calls.entry(&touch.call).or_insert_with(|| touch.call.as_str().into()).clone();
        Reason::Touched { workload, program, call }
    }
}

impl<'a> Gathered<'a> {
    /// The files that were executed.
    pub(super) fn executed(&self) -> impl Iterator<Item = &JailPath> {
        let executed = self.paths.iter().filter(|(_, touched)| touched.accesses.contains(&Access::Execute));
        executed.map(|(path, _)| path).filter(|path| !is_kernels(path))
    }

    /// The files that were looked at and never opened.
    pub(super) fn looked_at(&self) -> BTreeSet<JailPath> {
        let looked_at = self.paths.iter().filter(|(_, touched)| {
            let is_file = matches!(&touched.first.found, Found::There(facts) if facts.is_file());
            is_file && touched.accesses.iter().all(|access| *access == Access::Look)
        });
        looked_at.map(|(path, _)| path.clone()).collect()
    }

    /// True if the root still has at `child` what a listing of `path` has shown there, and the image gets it: directories and links,
    /// anything else only by name, unless all is wanted.
    fn has_listed(
        &self,
        path: &JailPath,
        child: &JailPath,
        shown: &Shown<'_>,
        listing: Listing,
        root: &Root,
    ) -> Result<bool, FilesError> {
        let Some(Facts { file_type, .. }) = root.facts(child)? else { return Ok(false) };
        let is_packed = match file_type {
            FileType::Directory | FileType::Symlink => true,
            FileType::Socket => false,
            _ => listing == Listing::Full && !is_made_up(child, root),
        };
        let is_same_type = shown.file_type.is_none_or(|was| was == file_type);
        Ok(is_packed && is_same_type && !self.is_another(path, shown.directory, root)?)
    }

    /// True if the runs have put another directory at `path`, by its own name or one above, since they found it as `was`, and left it there:
    /// what is in that one is not what they have listed.
    fn is_another(&self, path: &JailPath, was: &Facts, root: &Root) -> Result<bool, FilesError> {
        if !self.is_below_renamed(path) {
            return Ok(false);
        }
        // Somebody else may have brought it back. The number alone: on another machine the device has another.
        Ok(root.facts(path)?.is_none_or(|now| now.ino != was.ino))
    }

    /// True if a rename may have brought what is at `path` there: what was there before, if anything, is told by itself then.
    fn is_displaced(&self, path: &JailPath) -> bool {
        !self.paths.contains_key(path) && self.is_below_renamed(path)
    }

    /// True if a rename may have put another directory at `path`, or at one above.
    fn is_below_renamed(&self, path: &JailPath) -> bool {
        let mut upwards = path.upwards();
        upwards.any(|at| self.paths.get(&at).is_some_and(|touched| touched.removal.is_renamed))
    }

    fn take(&mut self, run: &'a Run, touch: &'a Touch, names: &mut Names<'a>) {
        let reason = names.reason(touch);
        for link in &touch.links {
            let new = || OnTheWay { header: &run.header, link, reasons: Reasons::default() };
            let way = self.links.entry(link.path.clone()).or_insert_with(new);
            if way.link.facts.is_none() && way.link.target == link.target {
                way.link = link;
            }
            way.reasons.insert(Reason::OnTheWay { to: touch.path.clone() });
        }
        for passed in &touch.passed {
            self.passed.entry(passed.clone()).or_default().insert(Reason::OnTheWay { to: touch.path.clone() });
        }
        if touch.made || matches!(touch.found, Found::Missing) {
            self.absent.insert(touch.path.clone());
        }
        if touch.made {
            return;
        }
        if let Some(stop) = touch.refused.as_ref().filter(|stop| **stop != touch.path) {
            // What is behind a closed door is not packed; the door is, with its owner and mode.
            self.makings.entry(stop.clone()).or_default().insert(reason);
            return;
        }
        if matches!(touch.found, Found::Missing) {
            if let (true, Some(parent)) = (touch.access.makes(), touch.path.parent()) {
                self.makings.entry(parent).or_default().insert(reason);
            }
            return;
        }
        let touched = self.paths.entry(touch.path.clone()).or_insert_with(|| Touched {
            first: touch,
            header: &run.header,
            findings: Vec::new(),
            contradiction: None,
            accesses: BTreeSet::new(),
            granted: false,
            is_altered: false,
            before: None,
            xattrs: None,
            style: None,
            names: BTreeMap::new(),
            reasons: Reasons::default(),
            removal: Removal::default(),
            is_named: false,
        });
        touched.removal.is_renamed |= touch.renames() && !run.header.is_in_jail() && !run.back.contains(&touch.path);
        touched.removal.is_tried |= touch.needs_empty();
        touched.is_named |= !touch.by_descriptor;
        touched.agree(run, touch);
        touched.find(&run.header, touch);
        touched.accesses.insert(touch.access);
        touched.granted |= touch.refused.is_none();
        touched.is_altered |= touch.is_reached() && touch.alters();
        touched.before = touched.before.or(touch.before.as_deref());
        touched.xattrs = touched.xattrs.or(touch.xattrs.as_ref());
        touched.find_names(touch);
        touched.reasons.insert(reason);
    }
}

impl OnTheWay<'_> {
    /// As it was, if the run has moved or replaced it since; `None` if there is nothing, and nothing is known of it, or the run's jail
    /// has made it.
    fn what(&self, path: &JailPath, root: &Root) -> Result<Option<What>, FilesError> {
        let now = root.facts(path)?;
        let has_text = || root.read_link(path).is_ok_and(|text| escape(&text) == self.link.target);
        let is_there = now.as_ref().is_some_and(|now| now.is_symlink() && has_text());
        let was = self.link.facts.as_ref().filter(|_| !is_there && !self.header.is_in_jail());
        Ok(match was.zip(unescape(&self.link.target)) {
            Some((facts, target)) => Some(What::Was(Box::new(Was {
                facts: facts.clone(),
                content: None,
                target: Some(target),
                xattrs: None,
            }))),
            None => now.map(|_| What::AsIs),
        })
    }
}

impl<'a> Touched<'a> {
    /// Takes what a listing has shown: the first one that shows a name says what it was of.
    fn find_names(&mut self, touch: &'a Touch) {
        let (Found::There(directory), Some(names)) = (&touch.found, &touch.names) else { return };
        for name in names {
            let file_type = touch.types.as_ref().map(|types| types.get(name).copied().unwrap_or(FileType::File));
            self.names.entry(name).or_insert(Shown { directory, file_type });
        }
    }

    /// Two runs must have found the same content.
    fn agree(&mut self, run: &'a Run, touch: &'a Touch) {
        let both = self.before.zip(touch.before.as_deref());
        if self.contradiction.is_none() && both.is_some_and(|(one, other)| one != other) {
            self.contradiction = Some(&run.header);
        }
    }
}

impl Touched<'_> {
    /// What listings of `path` have shown. Where everybody's files come and go, what nothing touched is other programs' and not there
    /// tomorrow: of that only a note is made.
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

    /// True for what the root never had and the run found all the same: its jail had made it, as engines do, who make it again.
    fn is_the_jails(&self, path: &JailPath, jails: &BTreeSet<JailPath>, root: &Root) -> Result<bool, FilesError> {
        Ok(self.header.is_in_jail() && jails.contains(path) && root.facts(path)?.is_none())
    }

    /// The extended attributes that there were before the run, if it may have changed them.
    pub(super) fn xattrs_before(&self) -> Option<BTreeMap<String, Vec<u8>>> {
        self.xattrs?.iter().map(|(name, value)| Some((name.clone(), unescape(value)?))).collect()
    }

    /// True if the runs may have changed the content, or taken it away.
    fn is_changed(&self) -> bool {
        self.accesses.iter().any(|access| access.loses())
    }
}

/// What of all that the jail needs, what a person should know, and what is not there as the runs found it.
pub(super) fn wanted(
    gathered: &Gathered<'_>,
    trace: &Trace,
    root: &Root,
    policy: &Policy,
    supplied: &BTreeSet<JailPath>,
) -> Result<(FileSet, Vec<Note>, Vec<Trouble>), FilesError> {
    let mut files = FileSet::default();
    let mut notes = Vec::new();
    let mut troubles = names_agree(&gathered.paths, root)?;
    for (path, [one, other]) in trace.links_that_differ().filter(|(path, _)| !is_made_up(path, root)) {
        let error = Conflict::of_links(path, [one, other]).into();
        troubles.push(Trouble { path: path.clone(), other: None, error });
    }
    let jails = special::made_by_jails(supplied, trace, policy, root)?;
    for (path, touched) in &gathered.paths {
        if is_kernels(path) {
            note_device(path, touched, &mut notes);
            continue;
        }
        if let Err(error) = want(path, touched, root, supplied, &jails, &mut files, &mut notes) {
            if !error.is_trouble() {
                return Err(error);
            }
            add(path, touched, &What::AsIs, &mut files);
            troubles.push(Trouble { path: path.clone(), other: None, error });
        }
    }
    let changed = changed_files(gathered, &files);
    // After everything that was touched: a name that was only seen is there by name alone.
    for (path, touched) in &gathered.paths {
        let listed = match policy.listing {
            Listing::Opened if !touched.removal.is_tried || files.has_below(path) => continue,
            // One name says that it is not empty.
            Listing::Opened => touched.listed(path, &files, &mut Vec::new()).into_iter().take(1).collect(),
            Listing::Names | Listing::Full => touched.listed(path, &files, &mut notes),
        };
        for (child, shown) in listed {
            if touched.is_the_jails(&child, &jails, root)? {
                continue;
            }
            let is_there = files.contains(&child) || gathered.has_listed(path, &child, shown, policy.listing, root)?;
            let what = if is_there { by_another_name(&child, &changed, root)? } else { What::Placeholder };
            files.add(child, what, Reason::Listed { directory: path.clone() });
        }
    }
    // Of a directory that was not there either, and that the run may have made since, nothing was needed.
    let was_there = |path: &JailPath| {
        let mut upwards = path.upwards();
        let known = upwards.find(|at| gathered.paths.contains_key(at) || gathered.absent.contains(at));
        known.is_none_or(|at| gathered.paths.contains_key(&at)) && !gathered.is_displaced(path)
    };
    let makings = gathered.makings.iter().filter(|(path, _)| was_there(path));
    for (path, way) in gathered.links.iter().filter(|(path, _)| !is_kernels(path)) {
        let (path, what) = if is_made_up(path, root) {
            (made_up(path, root, &mut notes), Some(What::AsIs))
        } else {
            (path.clone(), if files.contains(path) { Some(What::AsIs) } else { way.what(path, root)? })
        };
        let Some(what) = what else { continue };
        for reason in &way.reasons {
            files.add(path.clone(), what.clone(), reason.clone());
        }
    }
    let ways = gathered.passed.iter().chain(makings);
    for (path, reasons) in ways.filter(|(path, _)| !is_kernels(path)) {
        // What the run or its jail made on its way was not there before. Nor was a file that is there by now.
        if files.contains(path) || root.facts(path)?.is_some_and(|now| now.is_directory()) {
            let path = if is_made_up(path, root) { made_up(path, root, &mut notes) } else { path.clone() };
            for reason in reasons {
                files.add(path.clone(), What::AsIs, reason.clone());
            }
        }
    }
    Ok((files, notes, troubles))
}

/// Files of several names that are wanted as they were before the runs, by device and inode.
fn changed_files(gathered: &Gathered<'_>, files: &FileSet) -> BTreeMap<(u64, u64), What> {
    let was = |path| files.wanted.get(path).map(|wanted| &wanted.what).filter(|what| matches!(what, What::Was(_)));
    linked(&gathered.paths).filter_map(|(path, finding)| Some((finding.facts.inode(), was(path)?.clone()))).collect()
}

/// What an image gets at a name that nobody touched: what the root has there, but for a file that the runs have `changed` by another one.
fn by_another_name(path: &JailPath, changed: &BTreeMap<(u64, u64), What>, root: &Root) -> Result<What, FilesError> {
    let now = if changed.is_empty() { None } else { root.facts(path)? };
    Ok(now.and_then(|now| changed.get(&now.inode()).cloned()).unwrap_or(What::AsIs))
}

/// Devices that every runtime provides (OCI runtime-spec, "Default Devices"), and what they link to.
const PROVIDED: [&str; 13] =
    ["null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "fd", "stdin", "stdout", "stderr", "shm"];

fn note_device(path: &JailPath, touched: &Touched<'_>, notes: &mut Vec<Note>) {
    let mut names = path.components();
    let device = names.next() == Some(b"dev")
        && names.next().is_some_and(|name| {
            !PROVIDED.iter().any(|provided| provided.as_bytes() == name) && name != b"pts" && name != b"mqueue"
        });
    let opened = touched.accesses.iter().any(|access| *access != Access::Look && *access != Access::List);
    if device && opened {
        notes.push(Note::Device { path: path.clone() });
    }
}

fn want(
    path: &JailPath,
    touched: &Touched<'_>,
    root: &Root,
    supplied: &BTreeSet<JailPath>,
    jails: &BTreeSet<JailPath>,
    files: &mut FileSet,
    notes: &mut Vec<Note>,
) -> Result<(), FilesError> {
    if touched.first.found == Found::Unknown(MADE_UP.to_owned()) {
        add(&made_up(path, root, notes), touched, &What::AsIs, files);
        return Ok(());
    }
    // What something outside must provide; its directory is there for it.
    let provided = match &touched.first.found {
        Found::Unknown(errno) if errno == NAMESPACE => Some(Note::Namespace { path: path.clone() }),
        Found::There(facts) if facts.file_type == FileType::Socket => Some(Note::Socket { path: path.clone() }),
        _ => None,
    };
    if let Some(note) = provided {
        notes.push(note);
        if let Some(parent) = path.parent() {
            add(&parent, touched, &What::AsIs, files);
        }
        return Ok(());
    }
    let Found::There(facts) = &touched.first.found else {
        // What nobody may look at cannot be packed; what can be seen of the way there is.
        let seen = path.upwards();
        if let Some(seen) = seen.into_iter().find(|path| matches!(root.facts(path), Ok(Some(_)))) {
            add(&seen, touched, &What::AsIs, files);
        }
        return Ok(());
    };
    if facts.is_file() && !touched.is_named {
        notes.push(Note::Given { path: path.clone() });
        return Ok(());
    }
    if facts.is_file() && supplied.contains(path) {
        // The run saw what its runtime gave it; the image gets a placeholder, if it has the name.
        if root.facts(path)?.is_some() {
            add(path, touched, &What::AsIs, files);
        }
        return Ok(());
    }
    // What every program uses no engine makes: an image without it gets it.
    if facts.is_directory() && !is_shared(path) && touched.is_the_jails(path, jails, root)? {
        return Ok(());
    }
    touched.found_the_same(path, root)?;
    let what = state(path, touched, &touched.facts(facts), root)?;
    match &what {
        What::Was(was) if facts.is_file() && was.content.is_some() && touched.is_changed() => {
            notes.push(Note::State { path: path.clone() });
        }
        What::Sealed(_) => notes.push(Note::Refused { path: path.clone() }),
        _ => {}
    }
    if facts.is_file() && is_temporary(path) {
        notes.push(Note::Temporary { path: path.clone() });
    }
    add(path, touched, &what, files);
    Ok(())
}

/// What there must be for what the kernel makes up at `path`; it is said that the rest is not packed.
fn made_up(path: &JailPath, root: &Root, notes: &mut Vec<Note>) -> JailPath {
    let place = mount_point(path, root);
    let note = Note::MadeUp { path: place.clone() };
    // A list of processes alone has a thousand files.
    if !notes.contains(&note) {
        notes.push(note);
    }
    place
}

fn add(path: &JailPath, touched: &Touched<'_>, what: &What, files: &mut FileSet) {
    for reason in &touched.reasons {
        files.add(path.clone(), what.clone(), reason.clone());
    }
}
