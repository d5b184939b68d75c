//! From a trace to images, as `trace -o` and `build` do it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

use super::choices::Chosen;
use super::configure::config;
use super::failure::Failure;
use super::groups::user_with_groups;
use super::outputs::Outputs;
use super::packing::Prepared;
use super::progress::Progress;
use super::stoppable::{Told, stoppable, stoppable_to_the_end};
use crate::files::{self, Configured, FileSet, Note, Policy, Rule, has_secret, is_secret_variable};
use crate::image::{self, KeptLayers, Output, Reference};
use crate::manifest::{self, Config, DrawnUp, Given, Layers, Manifest, Packages, Source, Sources};
use crate::path::JailPath;
use crate::profile::Image;
use crate::report::coverage::Estimate;
use crate::report::summary::{self, Lacks, LeftOut, Summary, gap_sentence, times};
use crate::root::Root;
use crate::trace::{Found, Gap, Header, Run, Tally, Touch, Trace};
use crate::tree::{Notes, Tree};

/// An image of which something may be missing is none, unless the user knows better.
pub(super) fn refuse_gaps(trace: &Trace, prepared: &Prepared) -> Result<(), Failure> {
    if prepared.allow_gaps {
        return Ok(());
    }
    if let Some(run) = trace.runs.iter().find(|run| run.ending.is_none()) {
        let text = format!("the trace of `{}` was cut off: what came after is not known", run.header.workload);
        return Err(Failure::usage(text).hint("trace it again; `--allow-gaps` builds the image all the same"));
    }
    let gaps = gaps(trace);
    if gaps.is_empty() {
        return Ok(());
    }
    let failure = Failure::usage(told(trace, &gaps));
    // proc_pid_mem(5), prctl(2): a process that makes itself undumpable is shown to those with CAP_SYS_PTRACE alone.
    let hint = if Uid::effective().is_root() {
        "a program that changes its user hides its memory from who has no CAP_SYS_PTRACE: in a container, add it with `--cap-add=SYS_PTRACE`"
    } else {
        "a program that hides its memory is shown to root: trace it as root"
    };
    let failure = if gaps.contains_key(&Gap::Memory) { failure.hint(hint) } else { failure };
    let failure = if gaps.contains_key(&Gap::IoUring) {
        failure.hint("most programs go on without io_uring, and what they do then is in the trace")
    } else {
        failure
    };
    Err(failure
        .hint("the trace was kept; `--allow-gaps` builds the image all the same, if you know that nothing is missing"))
}

fn told(trace: &Trace, gaps: &BTreeMap<Gap, u64>) -> String {
    let one =
        |(gap, &count): (&Gap, &u64)| format!("{} ({}, by {})", gap_sentence(*gap), times(count), met_by(trace, *gap));
    format!("the trace has gaps: {}", gaps.iter().map(one).collect::<Vec<_>>().join("; "))
}

/// The failure, and what would refuse the trace otherwise.
fn beside_gaps(failure: Failure, trace: &Trace, prepared: &Prepared) -> Failure {
    let gaps = gaps(trace);
    if gaps.is_empty() || prepared.allow_gaps {
        return failure;
    }
    failure.hint(format!("besides, {}", told(trace, &gaps)))
}

/// The programs that met a gap: the first two, by name.
fn met_by(trace: &Trace, gap: Gap) -> String {
    let has_met = |run: &Run, id: u32| run.gaps.get(&gap).is_some_and(|counts| counts.contains_key(&id));
    let mut names = BTreeSet::new();
    for run in &trace.runs {
        let met = run.programs.iter().filter(|program| has_met(run, program.id));
        names.extend(met.map(|program| program.path.as_str()));
    }
    let first: Vec<&str> = names.iter().take(2).copied().collect();
    match names.len() {
        0 => "the program before it began".to_owned(),
        1 | 2 => first.join(" and "),
        count => format!("{} and {} others", first.join(", "), count - 2),
    }
}

fn gaps(trace: &Trace) -> BTreeMap<Gap, u64> {
    let mut gaps = BTreeMap::new();
    for run in &trace.runs {
        for (gap, count) in run.gap_counts() {
            *gaps.entry(gap).or_default() += count;
        }
    }
    gaps
}

/// Tells of a trace from which nothing was built.
pub(super) fn tell_of_trace(tally: &Tally, target: &Path, prepared: &Prepared) {
    let Tally { touches, programs, gaps } = tally;
    if prepared.json {
        say!("{}", serde_json::json!({ "trace": target, "touches": touches, "programs": programs, "gaps": gaps }));
    } else if !prepared.quiet {
        let by = if *programs == 1 { "one program".to_owned() } else { format!("{programs} programs") };
        say!("minjail: {touches} touches by {by} are in {}", target.display());
        for (gap, count) in gaps {
            say!("minjail: gap: {} ({})", gap_sentence(*gap), times(*count));
        }
        say!("minjail: to build an image: minjail build -t {} -o docker-archive:FILE", target.display());
    }
}

/// What an image needs, and nothing else of the trace: of a large one that need not stay in memory.
pub(super) struct Needed {
    files: FileSet,
    root: Root,
    store: BTreeMap<String, PathBuf>,
    config: Config,
    packing: manifest::Packing,
    notes: Vec<Note>,
    gaps: BTreeMap<Gap, u64>,
    left_out: LeftOut,
}

impl Needed {
    /// What `trace` needs of `root`; `lead` says how the image is run, and `image` what a profile says otherwise.
    pub(super) fn of(
        trace: &Trace,
        lead: &Header,
        root: Root,
        image: &Image,
        prepared: &Prepared,
    ) -> Result<Self, Failure> {
        let volumes = image.volumes.iter().filter_map(|volume| JailPath::clean(volume.as_bytes()).ok()).collect();
        let variables = image.env.clone();
        let policy = Policy { user: image.user.clone(), variables, volumes, ..prepared.chosen.policy.clone() };
        let needed = files::needed(trace, &root, &policy);
        // What has changed since a new trace mends, and gaps it does not.
        let (mut files, mut notes) = needed.map_err(|error| beside_gaps(error.into(), trace, prepared))?;
        let mut image = Cow::Borrowed(image);
        // Where he is not looked up, two numbers are all that an engine knows.
        let may_be_looked_up = image.user.is_none() && policy.rules.is_on(Rule::ImageUser);
        if may_be_looked_up && let Some(user) = user_with_groups(lead, &files, &root)? {
            image.to_mut().user = Some(user);
            (files, notes) = files::needed(trace, &root, &Policy { user: image.user.clone(), ..policy })?;
        }
        let withheld = lead.env.iter().filter(|(name, value)| prepared.chosen.withholds(name, value));
        notes.extend(withheld.map(|(name, _)| Note::Variable { name: name.clone() }));
        notes.extend(unset(trace, lead));
        let config = config(trace, lead, &root, &image, &prepared.chosen)?;
        notes.extend(configured(&config, &image, &prepared.chosen));
        notes.sort();
        let packing = manifest::Packing { name: lead.workload.clone(), ..prepared.packing.clone() };
        refuse_gaps(trace, prepared)?;
        let (gaps, left_out, store) = (gaps(trace), left_out(trace), trace.store.clone());
        Ok(Self { files, root, store, config, packing, notes, gaps, left_out })
    }

    /// Looks at it.
    pub(super) fn draw(self, prepared: &Prepared) -> Result<Draft, Failure> {
        let Self { files, root, store, config, packing, mut notes, gaps, left_out } = self;
        let packages = Packages::read(&root)?;
        let (store, epoch) = (&store, prepared.epoch);
        let given = Given { files, root: &root, store, packages: &packages, epoch, packing, config };
        let DrawnUp { mut manifest, sources, changed } = manifest::draw_up(given)?;
        notes.extend(changed.into_iter().filter_map(|path| departed(path, &packages)));
        notes.sort();
        if prepared.packing.layers == Layers::Packages {
            manifest.layer_by_packages();
        }
        Ok(Draft { notes, gaps, left_out, ..Draft::new(manifest, sources, root, packages) })
    }
}

/// A file that is not what its package brought. Configuration is for changing.
fn departed(path: JailPath, packages: &Packages) -> Option<Note> {
    let package = packages.owner(&path).filter(|_| !packages.is_configuration(&path))?.to_string();
    Some(Note::Departed { path, package })
}

/// Variables that the image does not get, though they name what a run found.
fn unset(trace: &Trace, lead: &Header) -> impl Iterator<Item = Note> {
    let mut names = BTreeMap::<JailPath, Vec<String>>::new();
    for (name, value) in lead.optional.iter().filter(|(name, value)| !trace.uses(name, value)) {
        if let Some(path) = trace.runs.iter().find_map(|run| run.found_by(value)) {
            names.entry(path.clone()).or_default().push(name.clone());
        }
    }
    names.into_iter().map(|(path, names)| Note::Unset { path, names })
}

/// What looks like a secret among what `image` says of the configuration, and in the command: whoever wrote it there wants it there,
/// and may not know that everybody who has the image can read it.
fn configured(config: &Config, image: &Image, chosen: &Chosen) -> Vec<Note> {
    let note = |what, name: &str| Note::Configured { what, name: name.to_owned() };
    let variables = image.env.iter().filter(|(name, value)| chosen.withholds(name, value));
    let labels = image.labels.iter().filter(|(name, value)| is_secret_variable(name, value));
    let arguments =
        config.entrypoint.iter().chain(&config.cmd).enumerate().filter(|(_, argument)| has_secret(argument));
    let variables = variables.map(|(name, _)| note(Configured::Variable, name));
    let labels = labels.map(|(name, _)| note(Configured::Label, name));
    let arguments = arguments.map(|(place, _)| note(Configured::Argument, &place.to_string()));
    variables.chain(labels).chain(arguments).collect()
}

/// An image that is drawn up, and not written yet, with all that is to be told of it.
pub(super) struct Draft {
    pub(super) manifest: Manifest,
    pub(super) sources: Sources,
    pub(super) root: Root,
    /// The layers that are not made.
    pub(super) originals: KeptLayers,
    pub(super) packages: Packages,
    pub(super) notes: Vec<Note>,
    pub(super) gaps: BTreeMap<Gap, u64>,
    pub(super) left_out: LeftOut,
    /// What several runs say of the next one.
    pub(super) coverage: Option<Estimate>,
}

impl Draft {
    /// One of which there is nothing to be told, and whose layers are all made.
    pub(super) fn new(manifest: Manifest, sources: Sources, root: Root, packages: Packages) -> Self {
        Self {
            manifest,
            sources,
            root,
            originals: KeptLayers::new(),
            packages,
            notes: Vec::new(),
            gaps: BTreeMap::new(),
            left_out: LeftOut::default(),
            coverage: None,
        }
    }

    /// Writes the image as a tree alone, and `locks`.
    pub(super) fn write_tree(&self, directory: &Path, locks: &[PathBuf], prepared: &Prepared) -> Result<(), Failure> {
        let images = vec![Output::Rootfs(directory.to_path_buf())];
        self.write_meanwhile(&Outputs { images, locks: locks.to_vec() }, prepared)
    }

    /// From now on the contents that were the root's come from `tree`, to which they were written: a profile's setup and teardown run
    /// again for the proof, and may change or remove the root's files.
    pub(super) fn take_contents_from(&mut self, tree: &Path) {
        for (path, source) in self.sources.iter_mut().filter(|(_, source)| matches!(source, Source::Root(_))) {
            let written = path.below(tree);
            // What an ordinary user has written, and may not read, stays where it was.
            if fs_err::File::open(&written).is_ok() {
                *source = Source::Stored(written);
            }
        }
    }

    /// Writes the image as an archive that engines read, and gives it as they spell it.
    pub(super) fn write_archive(&self, file: &Path, prepared: &Prepared) -> Result<String, Failure> {
        let spelled = format!("docker-archive:{}", file.display());
        let output = Output::parse(format!("{spelled}:localhost/minjail/verify:{}", std::process::id()).as_ref())?;
        self.write_meanwhile(&Outputs { images: vec![output], locks: Vec::new() }, prepared)?;
        Ok(spelled)
    }

    /// Writes every output and its lock, and tells of it.
    pub(super) fn publish(&self, prepared: &Prepared) -> Result<(), Failure> {
        let (tree, name, scratch) = (self.tree(), self.name(), std::env::temp_dir());
        let options = self.options(&name, &scratch, prepared);
        let written = write_images(&tree, &prepared.outputs, &options, prepared.quiet)?;
        let mut summary = Summary::of(&self.manifest);
        let share = self.packages.share(&self.manifest);
        summary.packages = summary::Packages {
            count: share.touched as u64,
            packed_bytes: share.taken_size,
            installed_bytes: share.touched_size,
        };
        summary.left_out = self.left_out;
        summary.coverage.clone_from(&self.coverage);
        summary.notes.clone_from(&self.notes);
        summary.gaps.clone_from(&self.gaps);
        summary.locks = prepared.outputs.locks.iter().map(|lock| lock.display().to_string()).collect();
        summary.outputs = written.iter().map(told_of).collect();
        tell(&summary, prepared);
        Ok(())
    }

    /// Writes what is there only for as long as this runs.
    fn write_meanwhile(&self, outputs: &Outputs, prepared: &Prepared) -> Result<(), Failure> {
        let (tree, name, scratch) = (self.tree(), self.name(), std::env::temp_dir());
        let options = self.options(&name, &scratch, prepared);
        stoppable(|told| write(&tree, outputs, &options, prepared.quiet, told)).map(drop)
    }

    fn name(&self) -> Reference {
        Reference::of_program(self.manifest.packing.name.as_bytes())
    }

    fn options<'a>(&'a self, name: &'a Reference, scratch: &'a Path, prepared: &'a Prepared) -> image::Options<'a> {
        image::Options {
            compression: prepared.compression,
            force: prepared.force,
            name,
            names: &[],
            threads: threads(),
            originals: &self.originals,
            scratch,
            standard_output: prepared.standard_output.as_fd(),
        }
    }

    pub(super) fn tree(&self) -> Tree<'_> {
        Tree { manifest: &self.manifest, sources: &self.sources, root: &self.root }
    }
}

/// What is told of an output.
fn told_of(written: &image::Written) -> summary::Output {
    summary::Output {
        name: written.output.to_string(),
        bytes: written.bytes,
        diff_ids: written.layers.iter().map(|layer| layer.diff_id.to_string()).collect(),
        id: written.config.as_ref().map(ToString::to_string),
        lacks: lacks(&written.notes),
    }
}

/// Reads all contents of a tree, telling how far the hashing is.
pub(super) fn seal(tree: &Tree<'_>, quiet: bool) -> Result<(), Failure> {
    let progress = Progress::new("hashing", quiet);
    tree.seal(threads(), &|done, total| progress.show(done, total))?;
    Ok(())
}

/// Writes images and locks, telling how far it is, until a signal asks for an end; with them all is done.
pub(super) fn write_images(
    tree: &Tree<'_>,
    outputs: &Outputs,
    options: &image::Options<'_>,
    quiet: bool,
) -> Result<Vec<image::Written>, Failure> {
    stoppable_to_the_end(|told| write(tree, outputs, options, quiet, told))
}

fn write(
    tree: &Tree<'_>,
    outputs: &Outputs,
    options: &image::Options<'_>,
    quiet: bool,
    told: &Told,
) -> Result<Vec<image::Written>, Failure> {
    let progress = Progress::new("packing", quiet);
    let mut advance = |at: image::Progress| {
        told.look();
        progress.show(at.done, at.total);
    };
    Ok(image::write_all(tree, &outputs.images, &outputs.locks, options, &mut advance)?)
}

/// What a tree that was written is not; `None` if nothing is missing.
pub(super) fn lacks(notes: &Notes) -> Option<Lacks> {
    let Notes { owners, set_id, devices, xattrs } = *notes;
    (*notes != Notes::default()).then_some(Lacks { owners, set_id, devices, xattrs })
}

pub(super) fn threads() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// What the runs asked for and the image does not have.
fn left_out(trace: &Trace) -> LeftOut {
    let touches = || trace.runs.iter().flat_map(|run| &run.touches);
    let count = |wanted: &dyn Fn(&Touch) -> bool| {
        touches().filter(|touch| wanted(touch)).map(|touch| &touch.path).collect::<BTreeSet<_>>().len() as u64
    };
    let creates = |touch: &Touch| touch.access.makes();
    LeftOut {
        made: count(&|touch| touch.found == Found::Missing && creates(touch)),
        missing: count(&|touch| touch.found == Found::Missing && !creates(touch) && !touch.made),
    }
}

fn tell(summary: &Summary, prepared: &Prepared) {
    if prepared.json {
        say!("{}", serde_json::to_string(summary).expect("a summary is plain data"));
    } else if !prepared.quiet {
        say!("{}", summary.to_text().trim_end_matches('\n'));
    }
}
