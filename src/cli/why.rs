//! `minjail why`: the reasons for a path, down to the call that started it.

use std::path::{Path, PathBuf};

use super::answer;
use super::exit::Exit;
use super::failure::Failure;
use super::locked::read_lock;
use crate::files;
use crate::path::JailPath;
use crate::report::why::{AllReasons, explain};
use crate::root::Root;
use crate::trace::Trace;

/// Say why a path is in the image: the chain of reasons, down to the call that started it
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A lock, or a trace
    #[arg(value_name = "LOCK-OR-TRACE")]
    source: PathBuf,

    /// Paths in the image
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let reasons = reasons(&arguments.source)?;
    let mut exit = Exit::Success;
    for path in &arguments.paths {
        let path = JailPath::parse(path.as_os_str().as_encoded_bytes())
            .map_err(|error| Failure::new(error).hint("give the path as it is in the image, from its root on"))?;
        if let Some(text) = explain(&reasons, &path) {
            answer(&text);
        } else {
            say!("`{path}` is not in the image: nothing that ran needed it");
            exit = Exit::No;
        }
    }
    Ok(exit)
}

fn reasons(source: &Path) -> Result<AllReasons, Failure> {
    if source.is_dir() {
        let trace = Trace::read(&[source.to_path_buf()])?;
        let root = trace.runs.first().map_or_else(|| PathBuf::from("/"), |run| run.header.root.clone());
        let (files, _) = files::needed(&trace, &Root::open(&root)?, &files::Policy::default())?;
        return Ok(files.wanted.into_iter().map(|(path, wanted)| (path, wanted.reasons)).collect());
    }
    Ok(read_lock(source)?.entries.into_iter().map(|entry| (entry.path, entry.reasons)).collect())
}
