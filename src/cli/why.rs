//! `minjail why`: the reasons for a path, down to the call that started it.

use std::ffi::OsString;
use std::path::PathBuf;

use super::answer;
use super::exit::Exit;
use super::failure::Failure;
use super::lock::read_lock;
use super::original::Original;
use crate::files::{self, FilesError, What};
use crate::manifest::Kind;
use crate::path::{JailPath, unescape};
use crate::report::why::{AllReasons, Links, SHOWN, explain, follow};
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

    /// Tell all reasons, and not three of a kind
    #[arg(long)]
    all: bool,

    /// Of a trace: the directory that plays `/`, or the image that was slimmed, as `oci:DIR` [default: what was traced]
    #[arg(long, value_name = "DIR-OR-IMAGE")]
    root: Option<OsString>,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let (reasons, links) = read(arguments)?;
    let shown = if arguments.all { usize::MAX } else { SHOWN };
    let mut exit = Exit::Success;
    for path in &arguments.paths {
        let path = JailPath::parse(path.as_os_str().as_encoded_bytes())
            .map_err(|error| Failure::new(error).hint("give the path as it is in the image, from its root on"))?;
        let told = spellings(&path).iter().find_map(|path| {
            let (end, passed) = follow(&links, path).unwrap_or_else(|| (path.clone(), Vec::new()));
            Some(format!("{}{}", way(path, &end, &passed), explain(&reasons, &end, shown)?))
        });
        if let Some(text) = told {
            answer(&text)?;
        } else {
            say!(
                "`{path}` is not in the image: nothing that ran needed it, or it was left out, as by `--exclude`; which of both, \
                 `minjail why` and `minjail why-not` of the trace say"
            );
            exit = Exit::No;
        }
    }
    Ok(exit)
}

/// `path`, and what it is as minjail itself spells paths: one pastes what a list of them says.
fn spellings(path: &JailPath) -> Vec<JailPath> {
    let text = std::str::from_utf8(path.as_bytes()).ok();
    let other = text.and_then(unescape).and_then(|bytes| JailPath::parse(&bytes).ok());
    std::iter::once(path.clone()).chain(other.filter(|other| other != path)).collect()
}

/// By which links `path` is another one; nothing if it is none.
fn way(path: &JailPath, end: &JailPath, passed: &[JailPath]) -> String {
    let names: Vec<String> = passed.iter().map(ToString::to_string).collect();
    match names.len() {
        0 => String::new(),
        1 => format!("{path} is {end}, by the link {}\n", names[0]),
        _ => format!("{path} is {end}, by the links {}\n", names.join(", ")),
    }
}

fn read(arguments: &Arguments) -> Result<(AllReasons, Links), Failure> {
    let source = &arguments.source;
    let (mut all, mut links) = (AllReasons::new(), Links::new());
    if !source.is_dir() {
        if arguments.root.is_some() {
            return Err(Failure::usage("`--root` is for traces: a lock says by itself why each path is in its image")
                .hint("leave `--root` out"));
        }
        for entry in read_lock(source)?.entries {
            if let Kind::Symlink { target } = entry.kind {
                links.insert(entry.path.clone(), target);
            }
            all.insert(entry.path, entry.reasons);
        }
        return Ok((all, links));
    }
    let trace = Trace::read(std::slice::from_ref(source))?;
    // Held to the end: the cache may not remove what is looked at.
    let original = arguments.root.as_deref().map(|named| Original::open(named, true)).transpose()?;
    let root = Original::root_or(original.as_ref(), &trace.lead().root)?;
    let (files, troubles) = files::needed_by_now(&trace, &root, &files::Policy::default())?;
    warn(&troubles);
    for (path, wanted) in files.wanted {
        links.extend(target(&path, &wanted.what, &root).map(|target| (path.clone(), target)));
        all.insert(path, wanted.reasons);
    }
    Ok((all, links))
}

/// Says what no image can be built of, where it does not matter: which paths are in it, and why, can be said all the same.
pub(super) fn warn(troubles: &[FilesError]) {
    let more = match troubles.len() {
        0 | 1 => String::new(),
        count => format!(", and so on: {count} in all"),
    };
    if let Some(first) = troubles.first() {
        say!("minjail: {first}{more}. An image is built only without what is so, with `--exclude`");
    }
}

/// The text of the link that the image would have at `path`; `None` if that is no link.
fn target(path: &JailPath, what: &What, root: &Root) -> Option<Vec<u8>> {
    match what {
        What::Was(was) => was.target.clone(),
        // What cannot be looked at any more leads nowhere.
        What::AsIs if root.lstat(path).ok()??.is_symlink() => root.read_link(path).ok(),
        _ => None,
    }
}
