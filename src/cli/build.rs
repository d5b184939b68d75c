//! `minjail build`: images from saved traces, or from a lock.

use std::path::{Path, PathBuf};

use super::exit::Exit;
use super::failure::Failure;
use super::pack::{self, Drawn, Packing, Prepared, draw_up};
use crate::manifest::{Aspects, Difference, DrawnUp, Manifest, Packages, diff};
use crate::report::summary::LeftOut;
use crate::root::Root;
use crate::trace::Trace;

/// Build images from traces; several are merged, and the first one says how the image is run
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A trace that `minjail trace` has written
    #[arg(short, long = "trace", value_name = "DIR", required_unless_present = "locked")]
    traces: Vec<PathBuf>,

    /// Build what this lock says, byte for byte, from the traces or from the lock alone; if anything differs, say what
    /// and build nothing
    #[arg(long, value_name = "LOCK", conflicts_with_all = ["compression", "mtime"])]
    locked: Option<PathBuf>,

    /// The directory that plays `/` [default: the one that was traced]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,

    #[command(flatten)]
    packing: Packing,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let prepared = arguments.packing.prepare_beside(arguments.locked.as_deref())?;
    if prepared.outputs.is_empty() {
        return Err(Failure::usage("nothing to build: no output is named").hint("name one with `-o`, as `-o oci:DIR`"));
    }
    match &arguments.locked {
        Some(lock) => build_locked(lock, arguments, prepared)?,
        None => draw(arguments, &prepared)?.write(&prepared)?,
    }
    Ok(Exit::Success)
}

/// What the traces need.
fn draw(arguments: &Arguments, prepared: &Prepared) -> Result<Drawn, Failure> {
    let trace = Trace::read(&arguments.traces)?;
    let lead = Trace::read(&arguments.traces[..1])?;
    let lead = lead.runs.first().expect("a trace that was read has a run");
    let root = Root::open(arguments.root.as_deref().unwrap_or(&lead.header.root))?;
    let drawn = pack::draw(&trace, &lead.header, root, prepared)?;
    pack::refuse_gaps(&trace, prepared)?;
    Ok(drawn)
}

fn build_locked(path: &Path, arguments: &Arguments, mut prepared: Prepared) -> Result<(), Failure> {
    let lock = read_lock(path)?;
    prepared.follow(&lock)?;
    let mut drawn = if arguments.traces.is_empty() {
        redraw(&lock, arguments, &prepared)?
    } else {
        // What has changed since the trace stops the drawing at the first path; the lock tells of all of them.
        draw(arguments, &prepared).or_else(|failure| {
            let now = redraw(&lock, arguments, &prepared)?;
            if diff(&lock, &now.manifest, Aspects::ALL).is_empty() { Err(failure) } else { Ok(now) }
        })?
    };
    let differences = diff(&lock, &drawn.manifest, Aspects::ALL);
    if !differences.is_empty() {
        return Err(drift(path, &differences, arguments, &prepared));
    }
    // The same but for the reasons: what is written beside the image is the lock as it was given.
    drawn.manifest = lock;
    drawn.write(&prepared)
}

/// What the lock's paths are now.
fn redraw(lock: &Manifest, arguments: &Arguments, prepared: &Prepared) -> Result<Drawn, Failure> {
    let root = Root::open(arguments.root.as_deref().unwrap_or(Path::new("/")))?;
    let store = match arguments.traces.as_slice() {
        [] => std::collections::BTreeMap::new(),
        traces => Trace::read(traces)?.store,
    };
    let files = lock.files(&root, &store)?;
    let packages = Packages::read(&root)?;
    let packing = crate::manifest::Packing { name: lock.packing.name.clone(), ..prepared.packing.clone() };
    let config = lock.config.clone();
    let DrawnUp { manifest, sources, .. } =
        draw_up(&files, &root, &packages, &store, lock.epoch, packing, config, prepared.quiet)?;
    Ok(Drawn {
        manifest,
        sources,
        root,
        packages,
        notes: Vec::new(),
        gaps: std::collections::BTreeMap::new(),
        left_out: LeftOut::default(),
    })
}

/// Tells of every difference.
fn drift(path: &Path, differences: &[Difference], arguments: &Arguments, prepared: &Prepared) -> Failure {
    if prepared.json {
        say!("{}", serde_json::json!({ "differences": differences }));
    } else {
        for difference in differences {
            say!("{difference}");
        }
    }
    let count = differences.len();
    let (places, differ) = if count == 1 { ("path", "differs") } else { ("paths", "differ") };
    let failure = Failure::usage(format!("{count} {places} {differ} from the lock `{}`", path.display()));
    let failure =
        failure.hint("nothing was built; without `--locked` the image gets what is there now, and a new lock");
    if arguments.traces.is_empty() {
        failure.hint("a file that the run itself has changed is in the trace as it was before: name that with `-t`")
    } else {
        failure
    }
}

/// Reads a lock.
pub(super) fn read_lock(path: &Path) -> Result<Manifest, Failure> {
    let text = fs_err::read_to_string(path).map_err(|error| {
        Failure::new(error).hint("a lock is the file beside an image, named after it with `.lock` at the end")
    })?;
    Ok(Manifest::parse(&text)?)
}
