//! What a jail needs though a run may not have come to it: the rules that are needs. What another run may want is in
//! `traits`.
//!
//! In: the file set with its closure. Out: the same with what each rule adds, which says so ([`Reason::Rule`]). A rule is
//! here only if a program was seen to fail without it. Each looks at every file alone, so that more files never need
//! less, and the order of a run does not matter.

use std::collections::{BTreeMap, BTreeSet};

use super::closure::{add_libraries, add_spelled, is_named_as_library};
use super::{FileSet, FilesError, Policy, Reason, Rule, StatOnly, What};
use crate::elf::{Environment, Search, mentions};
use crate::path::JailPath;
use crate::root::Root;
use crate::trace::{Header, Trace, is_kernels};

/// Where the runtime mounts what the kernel makes up.
const MOUNT_POINTS: [&[u8]; 3] = [b"/dev", b"/proc", b"/sys"];

/// Where engines look up an image's user (OCI image-spec, config.md, "User").
const ACCOUNTS: [&[u8]; 2] = [b"/etc/passwd", b"/etc/group"];

/// The accounts of an image's user, unless he is given by all the numbers that there are.
pub(super) fn add_accounts(files: &mut FileSet, trace: &Trace, policy: &Policy, root: &Root) -> Result<(), FilesError> {
    let is_looked_up = policy.user.as_deref().is_some_and(is_looked_up) && policy.rules.is_on(Rule::ImageUser);
    for program in trace.runs.iter().map(|run| program(&run.header, root)).filter(|_| is_looked_up) {
        for path in ACCOUNTS {
            add_spelled(files, root, path, &Reason::rule(Rule::ImageUser, program.clone()))?;
        }
    }
    Ok(())
}

fn is_looked_up(user: &str) -> bool {
    let is_number = |text: &str| text.parse::<u32>().is_ok();
    !user.is_empty() && !user.split_once(':').is_some_and(|(user, group)| is_number(user) && is_number(group))
}

/// The directories without which a program is not started, whatever it does.
pub(super) fn add_places(files: &mut FileSet, trace: &Trace, policy: &Policy, root: &Root) -> Result<(), FilesError> {
    let Policy { rules, volumes, .. } = policy;
    for header @ Header { program, directory, .. } in trace.runs.iter().map(|run| &run.header) {
        if rules.is_on(Rule::WorkingDirectory) {
            add_directory(files, directory, Rule::WorkingDirectory, header, root)?;
        }
        for volume in volumes.iter().filter(|_| rules.is_on(Rule::Volume)) {
            if root.resolve(&JailPath::root(), volume.as_bytes(), true)?.facts.is_some() {
                add_directory(files, volume, Rule::Volume, header, root)?;
            }
        }
        if rules.is_on(Rule::MountPoint) {
            for mount_point in MOUNT_POINTS {
                files.add(
                    JailPath::literal(mount_point),
                    What::EmptyDirectory,
                    Reason::rule(Rule::MountPoint, program.clone()),
                );
            }
        }
    }
    Ok(())
}

/// Where `path` leads. What an image does not have there an engine makes, for an owner of its own choice, as the jail does: it
/// stays out.
fn add_directory(
    files: &mut FileSet,
    path: &JailPath,
    rule: Rule,
    header: &Header,
    root: &Root,
) -> Result<(), FilesError> {
    let walk = root.resolve(&JailPath::root(), path.as_bytes(), true)?;
    if is_kernels(&walk.end) || walk.facts.is_none() && header.is_in_jail() {
        return Ok(());
    }
    for link in walk.links {
        files.add(link.path, What::AsIs, Reason::OnTheWay { to: walk.end.clone() });
    }
    files.add(walk.end, What::AsIs, Reason::rule(rule, program(header, root)));
    Ok(())
}

/// The file that was run, by the path at which an image has it.
fn program(header: &Header, root: &Root) -> JailPath {
    let walk = root.resolve(&JailPath::root(), header.program.as_bytes(), true);
    walk.map_or_else(|_| header.program.clone(), |walk| walk.end)
}

/// Python loads a compiled module only if its source is there, with the size and the time that it was compiled from, and
/// takes a directory for its library only if that has `os.py` (`Modules/getpath.py`). It looks at both and opens neither, so
/// that `--stat-only omit` would leave them out, were it not for this reason. Files without content do as well.
pub(super) fn add_sources(files: &mut FileSet, policy: &Policy, root: &Root) -> Result<(), FilesError> {
    if policy.stat_only != StatOnly::Omit || !policy.rules.is_on(Rule::PythonSource) {
        return Ok(());
    }
    let compiled: Vec<JailPath> = files.wanted.keys().filter(|path| source(path).is_some()).cloned().collect();
    for of in compiled {
        let Some(source) = source(&of) else { continue };
        let landmark = source.parent().filter(|package| package.file_name() == b"encodings");
        let landmark = landmark.and_then(|package| Some(package.parent()?.join(b"os.py")));
        for path in [Some(source), landmark].into_iter().flatten() {
            add_spelled(files, root, path.as_bytes(), &Reason::rule(Rule::PythonSource, of.clone()))?;
        }
    }
    Ok(())
}

/// What a compiled file was compiled from: `json/__init__.py` of `json/__pycache__/__init__.cpython-311.pyc` (PEP 3147).
fn source(compiled: &JailPath) -> Option<JailPath> {
    let cache = compiled.parent().filter(|cache| cache.file_name() == b"__pycache__")?;
    let stem = compiled.file_name().strip_suffix(b".pyc")?;
    let name = stem.split(|&byte| byte == b'.').next()?;
    Some(cache.parent()?.join(&[name, b".py"].concat()))
}

/// glibc picks a library from `glibc-hwcaps` by the processor at hand: another one needs the plain copy, and what that
/// needs.
pub(super) fn add_baselines(
    files: &mut FileSet,
    search: &mut Search<'_>,
    environments: &BTreeSet<&Environment>,
    root: &Root,
) -> Result<(), FilesError> {
    let variants: Vec<JailPath> = files.wanted.keys().filter(|path| baseline(path).is_some()).cloned().collect();
    for variant in variants {
        if let Some(plain) = baseline(&variant) {
            let reason = Reason::rule(Rule::HwcapsBaseline, variant);
            let Some(end) = add_spelled(files, root, plain.as_bytes(), &reason)? else { continue };
            for environment in environments {
                add_libraries(files, search, &end, environment, root)?;
            }
        }
    }
    Ok(())
}

/// `/lib/glibc-hwcaps/x86-64-v3/libz.so.1` without the two directories that pick the variant.
fn baseline(path: &JailPath) -> Option<JailPath> {
    let names: Vec<&[u8]> = path.components().collect();
    let at = names.iter().position(|&name| name == b"glibc-hwcaps")?;
    if names.len() < at + 3 {
        return None;
    }
    let plain = names[..at].iter().chain(&names[at + 2..]);
    Some(plain.fold(JailPath::root(), |path, name| path.join(name)))
}

/// glibc opens `libgcc_s.so.1` by name when a thread is cancelled or ends by `pthread_exit(3)` (`__libc_unwind_link_get` in
/// `misc/unwind-link.c`), and aborts if it is not there. Whether a run comes to that is often a matter of time, so what
/// names one of the two functions gets it.
pub(super) fn add_unwinder(
    files: &mut FileSet,
    search: &mut Search<'_>,
    executed: &BTreeSet<JailPath>,
    root: &Root,
) -> Result<(), FilesError> {
    let libcs: Vec<JailPath> = files.wanted.keys().filter(|path| path.file_name() == b"libc.so.6").cloned().collect();
    let unwinders: Vec<JailPath> =
        libcs.iter().filter_map(|libc| Some(libc.parent()?.join(b"libgcc_s.so.1"))).collect();
    if unwinders.is_empty() {
        return Ok(());
    }
    let is_object = |path: &JailPath| executed.contains(path) || is_named_as_library(path);
    let objects = files.wanted.iter().filter(|(path, wanted)| wanted.what == What::AsIs && is_object(path));
    let others = objects.map(|(path, _)| path).filter(|path| !libcs.contains(path) && !unwinders.contains(path));
    // A file is read once, however many names it has.
    let mut known = BTreeMap::new();
    let ending = others.filter(|path| {
        // One that cannot be read is told of when it is to be packed.
        let Ok(Some(facts)) = root.lstat(path) else { return false };
        facts.is_file() && *known.entry(facts.inode()).or_insert_with(|| ends_threads(path, root))
    });
    let ending: Vec<JailPath> = ending.cloned().collect();
    for of in ending {
        let reason = Reason::rule(Rule::ThreadUnwinder, of);
        for unwinder in &unwinders {
            if let Some(end) = add_spelled(files, root, unwinder.as_bytes(), &reason)? {
                add_libraries(files, search, &end, &Environment::default(), root)?;
            }
        }
    }
    Ok(())
}

/// True for an ELF file that has the name of a function which ends a thread among those it shares with other files.
fn ends_threads(path: &JailPath, root: &Root) -> bool {
    let Ok(file) = root.open_file(path) else { return false };
    mentions(&file, &["pthread_exit", "pthread_cancel"]).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiled_files_and_their_source() {
        let path = |text: &str| JailPath::parse(text.as_bytes()).unwrap();
        assert_eq!(source(&path("/lib/json/__pycache__/tool.cpython-311.opt-1.pyc")), Some(path("/lib/json/tool.py")));
        assert_eq!(source(&path("/lib/json/tool.pyc")), None);
        assert_eq!(source(&path("/lib/__pycache__/tool.py")), None);
    }

    #[test]
    fn users_that_are_looked_up() {
        assert_eq!(["web", "33", "web:33", "33:web", "33:"].map(is_looked_up), [true; 5]);
        assert_eq!(["", "33:33", "0:0"].map(is_looked_up), [false; 3]);
    }

    #[test]
    fn variants_and_their_baseline() {
        let path = |text: &str| JailPath::parse(text.as_bytes()).unwrap();
        assert_eq!(baseline(&path("/usr/lib/glibc-hwcaps/x86-64-v3/libz.so.1")), Some(path("/usr/lib/libz.so.1")));
        assert_eq!(baseline(&path("/usr/lib/glibc-hwcaps/x86-64-v3")), None);
        assert_eq!(baseline(&path("/usr/lib/libz.so.1")), None);
    }
}
