//! From touches, run by run, to all that was done at each path.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::state::Finding;
use super::{Reason, Reasons};
use crate::path::{Facts, FileType, JailPath, unescape};
use crate::trace::{Access, Found, Header, Link, Run, Style, Touch, Trace, is_kernels};

/// In place of a system call's name: what was missed in the jail and is to be added.
pub const REPAIR: &str = "repair";

/// True for what is told of a link that leads back to itself.
pub(super) fn is_loop(found: &Found) -> bool {
    matches!(found, Found::Unknown(errno) if errno == "ELOOP")
}

/// Where `touch` led, by a name that it has in every run: below `/proc/self`, and not the number that the process had in this one.
fn everybodys_name(touch: &Touch) -> JailPath {
    let is_own = |link: &&Link| matches!(link.path.as_bytes(), b"/proc/self" | b"/proc/thread-self");
    let own = touch.links.iter().rev().find(is_own).and_then(|link| {
        let number = JailPath::parse(format!("/proc/{}", link.target).as_bytes()).ok()?;
        let rest = touch.path.starts_with(&number).then(|| &touch.path.as_bytes()[number.as_bytes().len()..])?;
        JailPath::parse(&[link.path.as_bytes(), rest].concat()).ok()
    });
    own.unwrap_or_else(|| touch.path.clone())
}

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
    pub(super) accesses: BTreeSet<Access>,
    /// The content may have been read.
    pub(super) granted: bool,
    /// A call may have changed the content, its time or its name.
    pub(super) is_altered: bool,
    pub(super) before: Option<&'a str>,
    pub(super) xattrs: Option<&'a BTreeMap<String, String>>,
    /// The mode and owner with which all runs do, where more than one tells of them, or another name of the file.
    pub(super) style: Option<Style>,
    pub(super) names: BTreeMap<&'a str, Shown<'a>>,
    pub(super) reasons: Reasons,
    pub(super) removal: Removal,
    /// Somebody used a path of its own, and not only a descriptor.
    pub(super) is_named: bool,
}

/// What a listing has shown at a name.
#[derive(Debug)]
pub(super) struct Shown<'a> {
    /// The directory that was listed.
    pub(super) directory: &'a Facts,
    /// `None` in a trace that does not tell it.
    pub(super) file_type: Option<FileType>,
}

/// Every path that was there before the run, with all that was done to it; and the directories of what was made.
#[derive(Debug, Default)]
pub(super) struct Gathered<'a> {
    pub(super) paths: BTreeMap<JailPath, Touched<'a>>,
    /// Where the runs made something, or may have, or were stopped.
    pub(super) makings: BTreeMap<JailPath, Reasons>,
    /// What a run has found missing, or has made.
    pub(super) absent: BTreeSet<JailPath>,
    /// Of these, what the runs have made, or tried to.
    made: BTreeSet<JailPath>,
    pub(super) links: BTreeMap<JailPath, OnTheWay<'a>>,
    pub(super) passed: BTreeMap<JailPath, Reasons>,
}

/// A link that runs have gone through.
#[derive(Debug)]
pub(super) struct OnTheWay<'a> {
    pub(super) header: &'a Header,
    /// As the first run met it.
    pub(super) link: &'a Link,
    pub(super) reasons: Reasons,
}

/// How a directory may have been taken away.
#[derive(Debug, Default)]
pub(super) struct Removal {
    /// A rename may have put another in its place, and it is not told to be back.
    pub(super) is_renamed: bool,
    /// A call could only take it away if it was empty.
    pub(super) is_tried: bool,
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
    gathered.lead_to_what_lasts();
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

    /// True if a rename may have brought what is at `path` there: what was there before, if anything, is told by itself then.
    pub(super) fn is_displaced(&self, path: &JailPath) -> bool {
        !self.paths.contains_key(path) && self.is_below_renamed(path)
    }

    /// True if what is at `path` by now is there because the runs have made it, or have moved a directory there.
    pub(super) fn is_made(&self, path: &JailPath) -> bool {
        let is_found =
            |at: &JailPath| self.paths.get(at).is_some_and(|touched| matches!(touched.first.found, Found::There(_)));
        let known = path.upwards().find(|at| is_found(at) || self.made.contains(at));
        known.is_some_and(|at| !is_found(&at)) || self.is_displaced(path)
    }

    /// True if a rename may have put another directory at `path`, or at one above.
    pub(super) fn is_below_renamed(&self, path: &JailPath) -> bool {
        let mut upwards = path.upwards();
        upwards.any(|at| self.paths.get(&at).is_some_and(|touched| touched.removal.is_renamed))
    }

    /// What a run has made may have a new name the next time, as a temporary file has: what was on the way to it was on the way to
    /// the directory it was made in.
    fn lead_to_what_lasts(&mut self) {
        let Self { paths, made, links, passed, .. } = self;
        let lasts = |at: &JailPath| paths.contains_key(at) || !made.contains(at);
        for reasons in links.values_mut().map(|way| &mut way.reasons).chain(passed.values_mut()) {
            let lasting = reasons.iter().map(|reason| match reason {
                Reason::OnTheWay { to } => {
                    Reason::OnTheWay { to: to.upwards().find(lasts).unwrap_or_else(JailPath::root) }
                }
                other => other.clone(),
            });
            *reasons = lasting.collect::<Vec<_>>().into();
        }
    }

    fn take(&mut self, run: &'a Run, touch: &'a Touch, names: &mut Names<'a>) {
        let reason = names.reason(touch);
        // The image has nothing at the end that would say who went there.
        let is_absent = touch.made || matches!(touch.found, Found::Missing);
        let tell = |reasons: &mut Reasons| {
            reasons.insert(Reason::OnTheWay { to: everybodys_name(touch) });
            if is_absent {
                reasons.insert(reason.clone());
            }
        };
        for link in &touch.links {
            let new = || OnTheWay { header: &run.header, link, reasons: Reasons::default() };
            let way = self.links.entry(link.path.clone()).or_insert_with(new);
            if way.link.facts.is_none() && way.link.target == link.target {
                way.link = link;
            }
            tell(&mut way.reasons);
        }
        for passed in &touch.passed {
            tell(self.passed.entry(passed.clone()).or_default());
        }
        if is_absent {
            self.absent.insert(touch.path.clone());
        }
        if touch.made || touch.found == Found::Missing && touch.access.makes() {
            self.made.insert(touch.path.clone());
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
            // The kernel goes to the directories of both names of a rename before it looks for the first: what is wrong with the
            // second is told before that there is no first (`fs/namei.c`, `do_renameat2`).
            if let (true, Some(parent)) = (touch.access.makes() || touch.renames(), touch.path.parent()) {
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
        // Whoever goes through a loop of links gets nowhere, and may look at one of them later.
        if is_loop(&touched.first.found) && matches!(touch.found, Found::There(_)) {
            (touched.first, touched.header) = (touch, &run.header);
        }
        touched.removal.is_renamed |= touch.renames() && !run.header.is_in_jail() && !run.back.contains(&touch.path);
        touched.removal.is_tried |= touch.needs_empty();
        touched.is_named |= !touch.by_descriptor;
        touched.agree(run, touch);
        touched.find(&run.header, touch);
        touched.accesses.insert(touch.access);
        touched.granted |= touch.refused.is_none();
        touched.is_altered |= touch.alters();
        touched.before = touched.before.or(touch.before.as_deref());
        touched.xattrs = touched.xattrs.or(touch.xattrs.as_ref());
        touched.find_names(touch);
        touched.reasons.insert(reason);
    }
}

impl<'a> Touched<'a> {
    /// The extended attributes that there were before the run, if it may have changed them.
    pub(super) fn xattrs_before(&self) -> Option<BTreeMap<String, Vec<u8>>> {
        self.xattrs?.iter().map(|(name, value)| Some((name.clone(), unescape(value)?))).collect()
    }

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
