//! From the tracer's events to a trace.
//!
//! In: events, each while its task stands still before the call. Out: records, streamed to a file; copies of contents
//! that a call could change; and at the end the trace directory, by one rename. Until then nothing has a name: the program
//! can neither see it nor take it away, wherever it cleans up.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufWriter};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use minjail_tracer::{
    Access, Account, Event, Found as TracerFound, Gap, Mirrors, Protocol, Searched, Touch as TracerTouch,
};
use nix::libc::X_OK;

use super::closed::Closed;
use super::format::{Record, write_record};
use super::fresh::Fresh;
use super::kernels::Origins;
use super::model::{Ending, Found, Header, Link, Listening, Program, Touch};
use super::names::Names;
use super::rights::{Question, Refusals, is_in_our_user_namespace, lets_everybody};
use super::store::Store;
use super::write::stage;
use crate::path::{Facts, JailPath, escape};
use crate::publish::{PublishError, Stage};
use crate::root::{Root, RootError};

/// Takes the events of one run.
#[derive(Debug)]
pub struct Recorder {
    /// The directory for temporary files.
    pub(super) place: PathBuf,
    /// Directories in which minjail has some of its own.
    pub(super) shared: Vec<JailPath>,
    pub(super) records: BufWriter<File>,
    /// How many there are so far.
    written: u64,
    listening: BTreeSet<Listening>,
    accounts: BTreeSet<Account>,
    /// Where a server listened when it was ready.
    lasting: BTreeSet<Listening>,
    /// Directories that a rename may have taken away, with the device and inode that they had.
    renamed: BTreeMap<JailPath, (u64, u64)>,
    /// Where it is on this machine.
    top: PathBuf,
    pub(super) root: Root,
    pub(super) store: Store,
    /// Which program each process runs.
    programs: HashMap<i32, u32>,
    /// The programs that were recorded: a shell loop runs the same one a thousand times. By two independent keyed hashes of path and
    /// arguments, since these may be long.
    recorded: HashMap<[u64; 2], u32>,
    keys: [RandomState; 2],
    tally: Tally,
    pub(super) names: Names,
    mirrors: Mirrors,
    origins: Origins,
    /// Links of which it was recorded what they are.
    met: HashSet<JailPath>,
    /// Directories whose names were recorded.
    pub(super) listed: HashSet<JailPath>,
    /// Directories of which it was recorded whether they are empty.
    pub(super) tried: HashSet<JailPath>,
    pub(super) refusals: Refusals,
    closed: Closed,
    /// What was refused to a program, or may be to another task, and told. By the same hashes; at most so many as [`MOST_REFUSED`].
    refused: HashSet<[u64; 2]>,
    /// Paths whose content from before was kept.
    pub(super) kept: HashSet<JailPath>,
    /// Paths whose content could not be kept when it was about to be changed for the first time, and what it was by then.
    pub(super) missed: HashMap<JailPath, Facts>,
    /// Paths of which the extended attributes from before were told.
    pub(super) noted: HashSet<JailPath>,
    /// Directories that may have been removed by another path, as they are told of if they or what is in them were used by this one.
    pub(super) gone: BTreeMap<JailPath, Touch>,
    pub(super) fresh: Fresh,
    failure: Option<RecordError>,
}

/// Then they are forgotten. To tell twice is harmless.
const MOST_REFUSED: usize = 1 << 18;

/// All that an image has of what was refused: by another way there it may have another link, and where one door is open by now, the next.
#[derive(Debug, Hash)]
struct Refused<'a> {
    program: u32,
    access: Access,
    path: &'a JailPath,
    stop: Option<&'a JailPath>,
    /// Links, and directories that were left again.
    ways: Vec<&'a JailPath>,
    by_descriptor: bool,
}

impl<'a> Refused<'a> {
    fn of(touch: &'a Touch) -> Self {
        Self {
            program: touch.program,
            access: touch.access,
            path: &touch.path,
            stop: touch.refused.as_ref(),
            ways: touch.links.iter().map(|link| &link.path).chain(&touch.passed).collect(),
            by_descriptor: touch.by_descriptor,
        }
    }
}

/// What a run came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    pub touches: u64,
    pub programs: u32,
    pub gaps: BTreeMap<Gap, u64>,
}

/// The trace could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("failed to keep the earlier content of `{path}`")]
    Keep { path: String, source: io::Error },
    #[error(transparent)]
    Root(#[from] RootError),
    #[error("failed to write a temporary file in `{path}`")]
    Temporary { path: PathBuf, source: io::Error },
    #[error("failed to write the trace `{path}`")]
    Write { path: PathBuf, source: io::Error },
    #[error("`{path}` exists and is not a trace")]
    NoTrace { path: PathBuf },
    #[error("a trace is a directory, and cannot be written to standard output, `-`")]
    StandardOutput,
    #[error("the trace has lost `{sha256}`, the earlier content of `{path}`")]
    Lost { path: JailPath, sha256: String },
    #[error("`{path}` has another content than the one by whose sha256 it is named")]
    Changed { path: PathBuf },
    #[error("failed to keep the trace")]
    Publish(#[from] PublishError),
}

/// A trace that is whole and on the disk, but has no name yet. Dropped before it gets one it leaves nothing behind.
#[derive(Debug)]
pub struct WrittenOut {
    stage: Stage,
    tally: Tally,
}

impl WrittenOut {
    /// Gives it its name; an older trace is there until then.
    ///
    /// # Errors
    /// Something else has taken that name, or it cannot be given.
    pub fn publish(self) -> Result<Tally, RecordError> {
        self.stage.publish()?;
        Ok(self.tally)
    }
}

/// What stands for the workload before it has executed anything.
pub(super) const STARTER: u32 = 0;

impl Recorder {
    /// Starts a record in files without names in `scratch`. `top` is where this process sees the root: in a jail `/`,
    /// whatever directory the header names.
    ///
    /// # Errors
    /// `scratch` cannot be written.
    pub fn start(header: Header, top: &Path, scratch: &Path) -> Result<Self, RecordError> {
        // `O_TMPFILE`, or removed at once where the file system has none (`open(2)`).
        let file = || {
            let failed = |source| RecordError::Temporary { path: scratch.to_path_buf(), source };
            tempfile::tempfile_in(scratch).map_err(failed)
        };
        let records = file()?;
        let store = Store::new(file()?);
        let root = Root::open(top)?;
        let mut recorder = Self {
            refusals: Refusals::of(&header),
            closed: Closed::default(),
            refused: HashSet::new(),
            kept: HashSet::new(),
            missed: HashMap::new(),
            noted: HashSet::new(),
            gone: BTreeMap::new(),
            place: scratch.to_path_buf(),
            shared: Vec::new(),
            records: BufWriter::new(records),
            written: 0,
            listening: BTreeSet::new(),
            accounts: BTreeSet::new(),
            lasting: BTreeSet::new(),
            renamed: BTreeMap::new(),
            top: top.to_path_buf(),
            root,
            store,
            programs: HashMap::new(),
            recorded: HashMap::new(),
            keys: [RandomState::new(), RandomState::new()],
            tally: Tally::default(),
            names: Names::default(),
            mirrors: Mirrors::now(),
            origins: Origins::default(),
            met: HashSet::new(),
            listed: HashSet::new(),
            tried: HashSet::new(),
            fresh: Fresh::default(),
            failure: None,
        };
        // Where it cannot be found out, the program's root does not have it.
        let place = fs_err::canonicalize(scratch).unwrap_or_default();
        recorder.shared = [Some(place.as_path()), place.parent()]
            .into_iter()
            .filter_map(|directory| recorder.inside(directory?.as_os_str().as_bytes()))
            .collect();
        recorder.write(&Record::Run(header))?;
        recorder.keep_given()?;
        Ok(recorder)
    }

    /// Takes an event; breaks when the trace cannot be kept.
    pub fn take(&mut self, event: &Event<'_>) -> ControlFlow<()> {
        match self.record(event) {
            Ok(()) => ControlFlow::Continue(()),
            Err(failure) => {
                self.failure = Some(failure);
                ControlFlow::Break(())
            }
        }
    }

    /// A server is ready: it listens where it always does, and may begin to elsewhere.
    pub fn is_ready(&mut self) {
        self.lasting.clone_from(&self.listening);
    }

    /// Every question to the server was answered, and TCP ports are `open`. Such as it has drawn for one answer, as an FTP server
    /// does for a file, are not any more, and the next time they are others.
    pub fn has_answered(&mut self, open: &BTreeSet<u16>) {
        let lasting = &self.lasting;
        let is_lasting = |known: &Listening| lasting.contains(known) || open.contains(&known.port);
        self.listening.retain(|known| known.protocol != Protocol::Tcp || is_lasting(known));
    }

    /// Why the record broke off, if it did.
    pub fn failure(&mut self) -> Option<RecordError> {
        self.failure.take()
    }

    /// Ends the record and puts the trace at `target`; an older trace there is replaced, anything else refused.
    ///
    /// # Errors
    /// `target` exists and is no trace, or cannot be written.
    pub fn finish(self, ending: Ending, target: &Path) -> Result<Tally, RecordError> {
        self.write_out(ending, target)?.publish()
    }

    /// Ends the record and writes the trace out beside `target`.
    ///
    /// # Errors
    /// The same.
    pub fn write_out(mut self, ending: Ending, target: &Path) -> Result<WrittenOut, RecordError> {
        self.keep_late()?;
        self.keep_found()?;
        self.tell_what_is_back()?;
        for listening in std::mem::take(&mut self.listening) {
            self.write(&Record::Listen(listening))?;
        }
        for account in std::mem::take(&mut self.accounts) {
            self.write(&Record::Account(account))?;
        }
        self.write(&Record::End { ending, gaps: self.tally.gaps.clone(), records: Some(self.written + 1) })?;
        let failed = |source| RecordError::Temporary { path: self.place.clone(), source };
        let mut records = self.records.into_inner().map_err(|error| failed(error.into_error()))?;
        let stage = stage(&mut records, &self.store, target)?;
        Ok(WrittenOut { stage, tally: self.tally })
    }

    /// Tells of the renamed directories that are where they were: what is in there is what the run has found. Later, and elsewhere,
    /// nobody can see that: a copy has other numbers.
    fn tell_what_is_back(&mut self) -> Result<(), RecordError> {
        for (path, was) in std::mem::take(&mut self.renamed) {
            let now = self.root.facts(&path).ok().flatten();
            if now.is_some_and(|now| now.inode() == was) && self.names.origin(&path).as_ref() == Some(&path) {
                self.write(&Record::Back { path })?;
            }
        }
        Ok(())
    }

    fn record(&mut self, event: &Event<'_>) -> Result<(), RecordError> {
        match event {
            Event::Touch(touch) => self.touch(touch),
            Event::Moved { task, process, has } => {
                if self.names.returned(*task, *has, &self.root) {
                    Ok(())
                } else {
                    self.gap(*process, Gap::Rewritten)
                }
            }
            Event::Fork { parent, child } => {
                let program = self.program(*parent);
                self.programs.insert(*child, program);
                Ok(())
            }
            Event::Exec { process, arguments, loaded, apart } => self.exec(*process, arguments, loaded, apart),
            Event::Exit { process } => {
                self.programs.remove(process);
                self.names.ended(*process);
                Ok(())
            }
            // Another run gets another port.
            Event::Listen { is_lasting: false, .. } => Ok(()),
            Event::Listen { port, protocol, .. } => {
                self.listening.insert(Listening { port: *port, protocol: *protocol });
                Ok(())
            }
            Event::Account { task, account } => {
                // In another namespace the numbers stand for others.
                if !self.accounts.contains(account) && is_in_our_user_namespace(*task) {
                    self.accounts.insert(*account);
                }
                Ok(())
            }
            Event::Gap { process, gap } => self.gap(*process, *gap),
        }
    }

    fn gap(&mut self, process: i32, gap: Gap) -> Result<(), RecordError> {
        self.count(self.program(process), gap)
    }

    pub(super) fn count(&mut self, program: u32, gap: Gap) -> Result<(), RecordError> {
        *self.tally.gaps.entry(gap).or_default() += 1;
        self.write(&Record::Gap { program, gap })
    }

    fn exec(
        &mut self,
        process: i32,
        arguments: &[Vec<u8>],
        loaded: &[Vec<u8>],
        apart: &[Vec<u8>],
    ) -> Result<(), RecordError> {
        let parent = self.program(process);
        let program = loaded.first().map(Vec::as_slice).unwrap_or_default();
        let key = self.keys.each_ref().map(|key| key.hash_one((program, arguments)));
        if let Some(&id) = self.recorded.get(&key) {
            self.programs.insert(process, id);
            return Ok(());
        }
        self.tally.programs += 1;
        let id = self.tally.programs;
        self.write(&Record::Program(Program {
            id,
            parent,
            path: escape(program),
            arguments: arguments.iter().map(|argument| escape(argument)).collect(),
        }))?;
        self.recorded.insert(key, id);
        self.programs.insert(process, id);
        for path in loaded.iter().filter(|path| !apart.contains(path)) {
            let Some(path) = self.inside(path) else { continue };
            let stat = match self.root.stat(&path) {
                // Its file system shows it to the program's user alone.
                Err(error) if error.source.kind() == io::ErrorKind::PermissionDenied => {
                    self.gap(process, Gap::Served)?;
                    continue;
                }
                stat => stat?,
            };
            // None: executed from memory.
            let Some((stat, facts)) = stat.and_then(|stat| Some((stat, Facts::from_stat(&stat)?))) else { continue };
            let found = Found::There(facts);
            let (path, made) = match self.names.origin(&path) {
                Some(origin) => (origin, false),
                None => (path, true),
            };
            let mut record = Touch { made, ..Touch::new(id, "execve", Access::Execute, path, found) };
            self.keep_loaded(&mut record, &stat)?;
            self.write(&Record::Touch(record))?;
        }
        Ok(())
    }

    fn touch(&mut self, touch: &TracerTouch<'_>) -> Result<(), RecordError> {
        self.names.look(&self.root);
        let Some(current) = self.inside(&touch.walk.end) else { return Ok(()) };
        let found = self.found(touch, &current);
        if touch.is_repeated {
            self.note(touch, &current, &found);
            return Ok(());
        }
        // Looking there would have to wait for the program, which stands still.
        let origin = if touch.is_served { None } else { self.names.origin(&current) };
        let (program, made) = (self.program(touch.process), origin.is_none());
        let path = origin.unwrap_or_else(|| current.clone());
        let mut record = Touch {
            spelled: (touch.spelled != current.as_bytes() && !touch.spelled.is_empty()).then(|| escape(touch.spelled)),
            links: touch.walk.links.iter().filter_map(|link| self.link(link, touch.is_served)).collect(),
            passed: touch.walk.passed.iter().filter_map(|path| self.before_the_run(path)).collect(),
            made,
            // What is executed is needed where it is, however that was named.
            by_descriptor: touch.walk.by_descriptor && touch.access != Access::Execute,
            ..Touch::new(program, touch.call, touch.access, path, found)
        };
        let mut varies = false;
        let is_found = record.found != Found::Missing || touch.access.makes();
        if record.made && is_found && !touch.is_served && !self.mirrored(&current).is_empty() {
            // Whoever has made it has told of its directory, but maybe by another path.
            record.passed.extend(current.ancestors().find_map(|directory| self.names.origin(&directory)));
        }
        if !is_kernels(&current) && !touch.is_served {
            varies = self.refuse(touch, &current, &mut record);
            let is_fresh = self.fresh.is_found(&current, &touch.walk.found);
            self.preserve(touch.task, &current, is_fresh, &mut record)?;
            if !record.made && record.path != current {
                self.keep_above(&record, &record.path, &current)?;
            } else {
                self.note_fresh(&record, is_fresh)?;
            }
        }
        if record.access.makes() && record.found == Found::Missing && !touch.is_served && self.is_astray(&current) {
            record.access = Access::Look;
        }
        self.note(touch, &current, &record.found);
        if let (Found::There(facts), true, false) = (&record.found, record.renames(), record.made)
            && facts.is_directory()
        {
            self.renamed.entry(record.path.clone()).or_insert(facts.inode());
        }
        if record.refused.is_some() || varies && !record.access.makes() {
            // The next time it may be let, or refused. What may be made somewhere has its directory in the image.
            touch.again.set(true);
            if self.refused.len() >= MOST_REFUSED {
                self.refused.clear();
            }
            let refused = Refused::of(&record);
            if !self.refused.insert(self.keys.each_ref().map(|key| key.hash_one(&refused))) {
                return Ok(());
            }
        }
        self.tally.touches += 1;
        self.write(&Record::Touch(record))
    }

    /// Notes where the call is refused, if it is; true if another task may be, and what is recorded for this one does not show it.
    fn refuse(&mut self, touch: &TracerTouch<'_>, current: &JailPath, record: &mut Touch) -> bool {
        // Whoever lists what is open may do so: it was asked as it was opened.
        let is_granted = touch.access == Access::List && touch.spelled.is_empty();
        let (task, by_real, facts) = (touch.task, touch.is_by_real_user, record.found.facts());
        let question = Question { task, by_real, access: touch.access, path: current, facts };
        if record.made || is_granted || self.refusals.are_none(&question) {
            return false;
        }
        let searched = self.searched(&touch.walk.searched);
        let answer = self.refusals.answer(&question, &searched, &self.root);
        // Where it was before. Of a directory that the run has made itself: what is behind it was let to nobody.
        record.refused = answer.stop.map(|stop| self.names.origin(&stop).unwrap_or_else(|| record.path.clone()));
        answer.varies
    }

    /// True if nothing can be made at `path`, since it has no directory: whoever tries needs none either.
    fn is_astray(&self, path: &JailPath) -> bool {
        let found = path.parent().map(|directory| self.root.facts(&directory));
        found.is_some_and(|found| found.is_ok_and(|facts| facts.is_none_or(|facts| !facts.is_directory())))
    }

    /// Notes what a call is about to do with a name.
    fn note(&mut self, touch: &TracerTouch<'_>, path: &JailPath, found: &Found) {
        if touch.is_served {
            return;
        }
        let mut several = self.mirrored(path);
        if !several.is_empty() {
            several.push(path.clone());
            several.sort();
        }
        let paths = if several.is_empty() { std::slice::from_ref(path) } else { &several };
        self.names.note(touch.task, touch.call, touch.access, paths, found);
    }

    /// The paths by which the name at `path` is to be seen as well: in a directory that is the same.
    pub(super) fn mirrored(&self, path: &JailPath) -> Vec<JailPath> {
        let mut paths = self.mirrored_names(path);
        if !paths.is_empty() {
            // Of two mounts something else may be seen by now, or deeper down.
            let directory = |path: &JailPath| Some(self.root.facts(&path.parent()?).ok()??.inode());
            let its = directory(path);
            paths.retain(|path| its.is_some() && directory(path) == its);
        }
        paths
    }

    /// The same as the mounts were before the run, whatever is seen there by now.
    pub(super) fn mirrored_names(&self, path: &JailPath) -> Vec<JailPath> {
        if self.mirrors.are_none() || is_kernels(path) {
            return Vec::new();
        }
        let others = self.mirrors.others(path.below(&self.top).as_os_str().as_bytes());
        others.iter().filter_map(|other| self.inside(other)).collect()
    }

    /// The directories that a path needs to be let search, of those that can be asked of.
    fn searched(&mut self, searched: &[Searched]) -> Vec<JailPath> {
        let inside = |recorder: &Self, path: &[u8]| recorder.inside(path).filter(|path| !is_kernels(path));
        let mut paths: Vec<JailPath> = if self.refusals.are_of_closed() {
            let mut closed = std::mem::take(&mut self.closed);
            let look = |path: &[u8]| inside(self, path).filter(|path| !self.is_everybodys(path));
            let found = searched.iter().flat_map(|searched| closed.among(searched, look)).collect();
            self.closed = closed;
            found
        } else {
            searched.iter().flat_map(Searched::directories).filter_map(|path| inside(self, path)).collect()
        };
        paths.dedup();
        paths
    }

    /// True for a directory that everybody may search; of what cannot be looked at nobody knows that it is closed to anybody.
    fn is_everybodys(&self, directory: &JailPath) -> bool {
        let found = self.root.lstat(directory).ok().flatten();
        found.is_none_or(|facts| facts.is_directory() && lets_everybody(&facts, X_OK))
    }

    /// What is there, as far as anything can be told of it.
    fn found(&mut self, touch: &TracerTouch<'_>, current: &JailPath) -> Found {
        if touch.access == Access::Mount {
            self.origins.forget();
        }
        let stat = match &touch.walk.found {
            TracerFound::Missing => return Found::Missing,
            TracerFound::Unknown(errno) => return Found::Unknown(format!("{errno:?}")),
            TracerFound::There(stat) => stat,
        };
        // Who serves it himself stands still, and cannot be asked what it is.
        let is_plain = touch.is_served || is_kernels(current);
        match if is_plain { None } else { self.origins.errno(current, stat, &self.root) } {
            Some(errno) => Found::Unknown(errno.to_owned()),
            None => Facts::from_stat(stat).map_or(Found::Missing, Found::There),
        }
    }

    /// The path below the root; `None` for what is no path, or outside.
    pub(super) fn inside(&self, path: &[u8]) -> Option<JailPath> {
        if self.top.as_os_str() == "/" {
            return JailPath::parse(path).ok();
        }
        let path = Path::new(OsStr::from_bytes(path)).strip_prefix(&self.top).ok()?;
        JailPath::parse(&[b"/", path.as_os_str().as_bytes()].concat()).ok()
    }

    /// Where a path was before the run; `None` if the run has made it.
    fn before_the_run(&self, path: &[u8]) -> Option<JailPath> {
        self.names.origin(&self.inside(path)?)
    }

    /// A link on the way, unless the run has made it.
    fn link(&mut self, link: &minjail_tracer::Link, is_served: bool) -> Option<Link> {
        let current = self.inside(&link.path)?;
        let path = self.names.origin(&current)?;
        let is_new = !is_served && !is_kernels(&path) && self.met.insert(path.clone());
        let facts = if is_new { self.link_facts(&current, link.target.len()) } else { None };
        Some(Link { path, target: escape(&link.target), facts })
    }

    /// Of a link that the kernel makes up there are none, nor of one that somebody has just replaced.
    fn link_facts(&mut self, current: &JailPath, length: usize) -> Option<Facts> {
        let stat = self.root.stat(current).ok()??;
        let facts = Facts::from_stat(&stat).filter(|facts| facts.is_symlink() && facts.size == length as u64)?;
        if self.origins.errno(current, &stat, &self.root).is_some() { None } else { Some(facts) }
    }

    fn program(&self, process: i32) -> u32 {
        self.programs.get(&process).copied().unwrap_or(STARTER)
    }

    pub(super) fn write(&mut self, record: &Record) -> Result<(), RecordError> {
        if let Record::Touch(Touch { before: Some(name), .. }) = record {
            self.store.tell(name);
        }
        self.written += 1;
        write_record(&mut self.records, record)
            .map_err(|source| RecordError::Temporary { path: self.place.clone(), source })
    }
}

/// True for a mount point of what the kernel makes up, and for all below: nothing there has a content from before.
pub(crate) fn is_kernels(path: &JailPath) -> bool {
    [&b"/proc"[..], b"/sys", b"/dev"]
        .iter()
        .any(|top| path.as_bytes().strip_prefix(*top).is_some_and(|rest| matches!(rest, [] | [b'/', ..])))
}

/// Where files come and go, those of other programs too: what is read there may be gone when the image is built.
pub(crate) fn is_temporary(path: &JailPath) -> bool {
    [&b"/tmp"[..], b"/var/tmp", b"/run"]
        .iter()
        .any(|top| path.as_bytes().strip_prefix(*top).is_some_and(|rest| rest.starts_with(b"/")))
}

/// True for the directories in which every program puts what it needs for a while. What lies deeper has an owner.
pub(crate) fn is_shared(path: &JailPath) -> bool {
    matches!(path.as_bytes(), b"/tmp" | b"/var/tmp" | b"/run")
}
