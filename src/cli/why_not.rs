//! `minjail why-not`: why a path is not in the image.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::answer;
use super::exit::Exit;
use super::failure::Failure;
use super::lock::read_lock;
use super::original::Original;
use super::why::warn;
use crate::files::{self, FileSet, Purpose, Rule, Switch, What};
use crate::manifest::Packages;
use crate::path::{Facts, JailPath};
use crate::report::summary::size;
use crate::root::Root;
use crate::trace::{Found, MADE_UP, NAMESPACE, Run, Touch, Trace, is_kernels};

/// Say why a path is not in the image: whether anything looked it up, what the root has there, and of which package
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A trace, or a lock, which knows only what is in the image
    #[arg(value_name = "TRACE-OR-LOCK")]
    source: PathBuf,

    /// Paths
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// The directory that plays `/`, or the image that was slimmed, as `oci:DIR` [default: what was traced; for the lock of
    /// what was no image, `/`]
    #[arg(long, value_name = "DIR-OR-IMAGE")]
    root: Option<OsString>,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    // Held to the end: the cache may not remove what is looked at.
    let original = arguments.root.as_deref().map(|named| Original::open(named, true)).transpose()?;
    let known = Known::read(&arguments.source, original.as_ref())?;
    let packages = known.root.as_ref().map(Packages::read).transpose()?.unwrap_or_default();
    let mut exit = Exit::Success;
    // Each trait is a file set of its own: made only when it is asked for.
    let mut traits = None;
    for path in &arguments.paths {
        let path = JailPath::parse(path.as_os_str().as_encoded_bytes())
            .map_err(|error| Failure::new(error).hint("give the path as it is in the image, from its root on"))?;
        if known.is_in(&path) {
            // Of what was chosen when an image was built from it, a trace knows nothing.
            let unless =
                if known.trace.is_some() { ", unless `--exclude` or another choice has left it out" } else { "" };
            say!("`{path}` is in the image{unless}: `minjail why` says why");
            exit = Exit::No;
            continue;
        }
        if traits.is_none() {
            traits = Some(known.traits()?);
        }
        let mut lines = vec![path.to_string()];
        lines.extend(known.lookups(&path));
        lines.extend(known.ground(&path, &packages)?);
        let adds = |files: &FileSet| files.wanted.get(&path).is_some_and(|wanted| !is_name(&wanted.what));
        let adding = traits.iter().flatten().filter(|(_, files)| adds(files));
        lines.extend(adding.map(|(rule, _)| format!("rule {0} would add it: `--rule {0}=on`", rule.name())));
        answer(&format!("{}\n", lines.join("\n  ")))?;
    }
    Ok(exit)
}

/// What is known of an image and of the run that it was made from.
struct Known {
    /// Every path, and whether it is only a name.
    paths: Vec<(JailPath, bool)>,
    /// `None`: a lock does not tell.
    trace: Option<Trace>,
    /// `None`: an image, and nobody has said which.
    root: Option<Root>,
}

impl Known {
    fn read(source: &Path, original: Option<&Original>) -> Result<Self, Failure> {
        if !source.is_dir() {
            let lock = read_lock(source)?;
            if let Some(original) = original {
                original.check(&lock)?;
            }
            let root = match original {
                None if lock.from.is_empty() => Some(Root::open(Path::new("/"))?),
                original => original.map(Original::root).transpose()?,
            };
            let entries = lock.entries.into_iter();
            let paths = entries.map(|entry| (entry.path, entry.kind.is_name_only())).collect();
            return Ok(Self { paths, trace: None, root });
        }
        let trace = Trace::read(&[source.to_path_buf()])?;
        let root = Original::root_or(original, &trace.lead().root)?;
        let (files, troubles) = files::needed_by_now(&trace, &root, &files::Policy::default())?;
        warn(&troubles);
        let paths = files.wanted.into_iter().map(|(path, wanted)| (path, is_name(&wanted.what))).collect();
        Ok(Self { paths, trace: Some(trace), root: Some(root) })
    }

    /// What the image would have with each rule that is off.
    fn traits(&self) -> Result<Vec<(Rule, FileSet)>, Failure> {
        let (Some(trace), Some(root)) = (&self.trace, &self.root) else { return Ok(Vec::new()) };
        let off = Rule::ALL.into_iter().filter(|rule| rule.purpose() == Purpose::Trait);
        let with = off.map(|rule| {
            let rules = [(rule, Switch::On)].into_iter().collect();
            let policy = files::Policy { rules, ..files::Policy::default() };
            let (files, _) = files::needed_by_now(trace, root, &policy)?;
            Ok((rule, files))
        });
        with.collect()
    }

    fn find(&self, path: &JailPath) -> Option<bool> {
        let at = self.paths.binary_search_by(|(known, _)| known.cmp(path)).ok()?;
        Some(self.paths[at].1)
    }

    fn is_in(&self, path: &JailPath) -> bool {
        self.find(path) == Some(false)
    }

    /// What the runs did with the path.
    fn lookups(&self, path: &JailPath) -> Vec<String> {
        let name =
            (self.find(path) == Some(true)).then(|| "only its name is in the image: a listing showed it".to_owned());
        let Some(Trace { runs, .. }) = &self.trace else {
            return name.into_iter().chain(["whether anything looked for it, a trace would tell".to_owned()]).collect();
        };
        let mut lines: Vec<String> = name.into_iter().collect();
        for run in runs {
            let touches = run.touches.iter().filter(|touch| touch.path == *path);
            let mut said: Vec<String> = touches.map(|touch| lookup(run, touch)).collect();
            said.dedup();
            let count = said.len();
            lines.extend(said.into_iter().take(3));
            if count > 3 {
                lines.push(format!("and {} more times in workload {}", count - 3, run.header.workload));
            }
        }
        if lines.is_empty() {
            lines.push("nothing that ran looked for it".to_owned());
        }
        lines
    }

    /// What the root has there, and how much of its package the image has.
    fn ground(&self, path: &JailPath, packages: &Packages) -> Result<Vec<String>, Failure> {
        let Some(root) = &self.root else {
            return Ok(vec![
                "what was there, the image that this one was made from would tell: name it with `--root`".to_owned(),
            ]);
        };
        let walk = root.resolve(&JailPath::root(), path.as_bytes(), false)?;
        let Some(facts) = walk.facts else { return Ok(vec!["the root has nothing there".to_owned()]) };
        let mut lines = vec![format!("the root has {} there", noun(&facts))];
        if walk.end != *path {
            lines.push(format!("a link on the way leads to {}: ask for that", walk.end));
        }
        if let Some(package) = packages.owner(&walk.end).filter(|_| !facts.is_directory()) {
            let others =
                self.paths.iter().filter(|(other, is_name)| !is_name && packages.owner(other) == Some(package));
            lines.push(match others.count() {
                0 => format!("it is from {package}, of which the image has nothing"),
                count => format!("it is from {package}, of which the image has {count} other paths"),
            });
        }
        Ok(lines)
    }
}

/// True for what is in an image only by its name.
fn is_name(what: &What) -> bool {
    *what == What::Placeholder
}

fn lookup(run: &Run, touch: &Touch) -> String {
    let program =
        run.programs.iter().find(|program| program.id == touch.program).map_or("minjail", |program| &program.path);
    let what = match &touch.found {
        Found::Missing => "looked for it in vain",
        Found::Unknown(errno) if errno == NAMESPACE => "found a namespace there, which is no file",
        Found::Unknown(errno) if errno == MADE_UP => "found there what the kernel makes up, which no image can have",
        Found::Unknown(errno) if matches!(errno.as_str(), "EACCES" | "EPERM") => "was not allowed to look at it",
        Found::Unknown(errno) => &format!("could not look at it ({errno})"),
        Found::There(_) if touch.made => "used it, and the run itself had made it",
        Found::There(_) if touch.by_descriptor => "used it at a descriptor that it may have been given",
        Found::There(_) if touch.refused.is_some() => "was refused",
        Found::There(_) if is_kernels(&touch.path) => "used it, where what runs an image has a file system of its own",
        Found::There(_) => "used it: an `--exclude`, a policy or its being a secret keeps it out",
    };
    format!("{program} ({}) in workload {} {what}", touch.call, run.header.workload)
}

fn noun(facts: &Facts) -> String {
    if facts.is_file() {
        format!("a file of {}", size(facts.size))
    } else if facts.is_directory() {
        "a directory".to_owned()
    } else if facts.is_symlink() {
        "a symbolic link".to_owned()
    } else {
        "neither a file nor a directory".to_owned()
    }
}
