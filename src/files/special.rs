//! Files that the image gets in another form than the root has them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use minjail_tracer::Account;

use super::accounts::{self, Kept, Names};
use super::{Accounts, FileSet, FilesError, Note, Policy, What};
use crate::elf::LdCache;
use crate::path::{Facts, JailPath};
use crate::root::{Root, RootError};
use crate::trace::Trace;

/// What the runtime supplies: a container must not carry another machine's.
const PLACEHOLDERS: [(&[u8], &[u8]); 4] = [
    (b"/etc/hostname", b"localhost\n"),
    // Both addresses, whatever the machine's own file has, as docker and the jail write it (podman starts from the machine's file).
    // Runtimes put theirs in its place: only who enters the tree without one, as by `chroot`, sees this. Where there is no IPv6,
    // resolvers put its address last (RFC 6724, rule 1).
    (b"/etc/hosts", b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"),
    (b"/etc/resolv.conf", b""),
    (b"/etc/mtab", b""),
];

/// Where a machine has the number by which it is known: "confidential", and of one machine alone (`machine-id(5)`).
const MACHINE_IDS: [&[u8]; 2] = [b"/etc/machine-id", b"/var/lib/dbus/machine-id"];

/// What images have in its place, all the same one: clients of D-Bus fail where there is none. As text it says `minjail`.
const NO_MACHINE: &[u8] = b"6d696e6a61694c0080006d696e6a6169\n";

const LD_CACHE: &[u8] = b"/etc/ld.so.cache";

/// True for a file that images get in a form of minjail's own: what a runtime supplies, accounts, the loader's cache.
pub fn is_minjails(path: &JailPath) -> bool {
    let bytes = path.as_bytes();
    PLACEHOLDERS.iter().any(|(known, _)| *known == bytes)
        || accounts::FILES.iter().any(|(known, _)| *known == bytes)
        || MACHINE_IDS.contains(&bytes)
        || is_ld_cache(path)
}

/// True for what tells of names and addresses: in a jail those are others than on the host, and a program may have needed these.
pub fn is_of_network(path: &JailPath) -> bool {
    matches!(path.as_bytes(), b"/etc/hosts" | b"/etc/resolv.conf")
}

/// True for the loader's cache: images have one that is made anew for their libraries, of whatever the root has by then.
pub(super) fn is_ld_cache(path: &JailPath) -> bool {
    path.as_bytes() == LD_CACHE
}

/// What a runtime supplies, under its own name and where a link of that name leads.
pub(super) fn supplied(root: &Root) -> Result<BTreeSet<JailPath>, RootError> {
    let mut paths = BTreeSet::new();
    for (path, _) in PLACEHOLDERS {
        paths.insert(JailPath::literal(path));
        paths.insert(root.resolve(&JailPath::root(), path, true)?.end);
    }
    Ok(paths)
}

/// What a jail makes where its root has nothing: what it supplies, the image's working directory and its volumes, with what
/// they are in.
pub(super) fn made_by_jails(
    supplied: &BTreeSet<JailPath>,
    trace: &Trace,
    policy: &Policy,
    root: &Root,
) -> Result<BTreeSet<JailPath>, RootError> {
    let mut made = BTreeSet::new();
    let directories = trace.runs.iter().map(|run| &run.header.directory).chain(&policy.volumes);
    for path in supplied.iter().chain(directories) {
        let end = root.resolve(&JailPath::root(), path.as_bytes(), true)?.end;
        made.extend(end.upwards());
    }
    Ok(made)
}

/// Puts minjail's own in the place of files that are the machine's.
pub(super) fn replace(
    files: &mut FileSet,
    trace: &Trace,
    root: &Root,
    policy: &Policy,
    notes: &mut Vec<Note>,
) -> Result<(), FilesError> {
    for (path, content) in PLACEHOLDERS {
        // Some of them are links to where a service of the machine keeps them.
        let end = root.resolve(&JailPath::root(), path, true)?.end;
        let is_kernels = end.starts_with(&JailPath::literal(b"/proc"));
        if !is_kernels && is_file(&end, files, root)? {
            make(files, &end, content.to_vec());
        }
    }
    // An image's accounts are the image's: nobody of the machine at hand is among them.
    let from_host = trace.runs.iter().any(|run| !run.header.is_in_jail());
    if from_host {
        replace_machine_ids(files, policy, &trace.store, root)?;
    }
    let choice = if from_host { policy.accounts } else { Accounts::Full };
    let kept = Kept { choice, are_machines: from_host, ..kept(files, trace, root)? };
    replace_accounts(files, &kept, policy, &trace.store, root, notes)?;
    let cache = JailPath::literal(LD_CACHE);
    if is_file(&cache, files, root)? || was_file(&cache, files, root)? {
        let bytes = ld_cache(&cache, files, &trace.store, root)?;
        make(files, &cache, bytes);
    }
    Ok(())
}

/// An empty one, or one that says that there is none yet, is no machine's.
fn replace_machine_ids(
    files: &mut FileSet,
    policy: &Policy,
    store: &BTreeMap<String, PathBuf>,
    root: &Root,
) -> Result<(), FilesError> {
    for name in MACHINE_IDS.map(JailPath::literal) {
        let path = end(&name, files, root)?;
        let is_allowed = [&name, &path].into_iter().any(|path| policy.allowed_secrets.contains(path));
        if !is_allowed && was_file(&path, files, root)? {
            let id = content(&path, files, store, root)?;
            if id.trim_ascii().len() == 32 && id.trim_ascii().iter().all(u8::is_ascii_hexdigit) {
                make(files, &path, NO_MACHINE.to_vec());
            }
        }
    }
    Ok(())
}

fn make(files: &mut FileSet, path: &JailPath, content: Vec<u8>) {
    if let Some(wanted) = files.wanted.get_mut(path) {
        let was = match &wanted.what {
            What::Was(was) => Some(Box::new(was.facts.clone())),
            _ => None,
        };
        wanted.what = What::Made(content, was);
    }
}

fn is_file(path: &JailPath, files: &FileSet, root: &Root) -> Result<bool, RootError> {
    Ok(files.contains(path) && root.facts(path)?.is_some_and(|facts| facts.is_file()))
}

/// True if the image gets the file that is at `path`, or that was there before the runs, if they have changed it.
fn was_file(path: &JailPath, files: &FileSet, root: &Root) -> Result<bool, RootError> {
    match files.wanted.get(path).map(|wanted| &wanted.what) {
        Some(What::AsIs) => is_file(path, files, root),
        Some(What::Was(was)) => Ok(was.facts.is_file()),
        _ => Ok(false),
    }
}

/// The content that an image gets of `path`: that from before the runs, if they or others have changed it since.
fn content(
    path: &JailPath,
    files: &FileSet,
    store: &BTreeMap<String, PathBuf>,
    root: &Root,
) -> Result<Vec<u8>, RootError> {
    let kept = match files.wanted.get(path).map(|wanted| &wanted.what) {
        Some(What::Was(was)) => was.kept(store),
        _ => None,
    };
    let failed = |source| RootError { step: "read", path: path.to_string(), source };
    kept.map_or_else(|| root.read(path, u64::MAX), |kept| fs_err::read(kept).map_err(failed))
}

/// The root's cache, with the libraries that are in the image; an unreadable one is as good as none.
fn ld_cache(
    path: &JailPath,
    files: &FileSet,
    store: &BTreeMap<String, PathBuf>,
    root: &Root,
) -> Result<Vec<u8>, FilesError> {
    let cache = LdCache::parse(&content(path, files, store, root)?).unwrap_or_else(|_| LdCache::new(Vec::new()));
    let packed = cache.restricted_to(|library| {
        let walk = root.resolve(&JailPath::root(), library, true);
        walk.is_ok_and(|walk| files.contains(&walk.end) && walk.links.iter().all(|link| files.contains(&link.path)))
    });
    packed.to_bytes().map_err(|source| FilesError::LdCache { path: path.clone(), source })
}

/// Where `path` leads in the image, whose links are those from before the runs.
fn end(path: &JailPath, files: &FileSet, root: &Root) -> Result<JailPath, RootError> {
    match files.wanted.get(path).map(|wanted| &wanted.what) {
        Some(What::Was(was)) => match (&was.target, path.parent()) {
            (Some(target), Some(directory)) => Ok(root.resolve(&directory, target, true)?.end),
            _ => Ok(path.clone()),
        },
        _ => Ok(root.resolve(&JailPath::root(), path.as_bytes(), true)?.end),
    }
}

fn replace_accounts(
    files: &mut FileSet,
    kept: &Kept,
    policy: &Policy,
    store: &BTreeMap<String, PathBuf>,
    root: &Root,
    notes: &mut Vec<Note>,
) -> Result<(), FilesError> {
    let mut wanted = Vec::new();
    for (name, file) in accounts::FILES {
        let name = JailPath::literal(name);
        let end = end(&name, files, root)?;
        if was_file(&end, files, root)? {
            wanted.push((name, end, file));
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let known = |name| content(&end(&JailPath::literal(name), files, root)?, files, store, root);
    let [passwd, group] = [&b"/etc/passwd"[..], b"/etc/group"].map(|name| known(name).unwrap_or_default());
    let names = Names::new(&passwd, &group, kept);
    for (name, path, file) in wanted {
        let whole = content(&path, files, store, root)?;
        let is_allowed = [&name, &path].into_iter().any(|path| policy.allowed_secrets.contains(path));
        let (content, left_out) = names.filter(file, &whole, is_allowed);
        // A machine's are made anew also where nothing is left out, so that an image says nothing of whether there is somebody to
        // leave out. An image's stay what they are.
        if content == whole && !kept.are_machines {
            continue;
        }
        if left_out > 0 {
            notes.push(Note::Accounts { path: path.clone(), left_out });
        } else if !kept.are_machines {
            // Nobody is left out, so that it is their passwords.
            notes.push(Note::Hashes { path: path.clone() });
        }
        make(files, &path, content);
    }
    Ok(())
}

/// The owners of what is packed, who the runs ran as, and whom they became or gave something to.
fn kept(files: &FileSet, trace: &Trace, root: &Root) -> Result<Kept, RootError> {
    let mut kept = Kept::default();
    for run in &trace.runs {
        kept.uids.insert(run.header.uid);
        kept.gids.insert(run.header.gid);
        kept.gids.extend(&run.header.groups);
        for account in &run.accounts {
            match account {
                Account::User(uid) => kept.uids.insert(*uid),
                Account::Group(gid) => kept.gids.insert(*gid),
            };
        }
    }
    for (path, wanted) in &files.wanted {
        let ids = |facts: &Facts| (facts.uid, facts.gid);
        let owner = match &wanted.what {
            What::Was(was) => Some(ids(&was.facts)),
            What::Sealed(facts) => Some(ids(facts)),
            _ => root.facts(path)?.as_ref().map(ids),
        };
        if let Some((uid, gid)) = owner {
            kept.uids.insert(uid);
            kept.gids.insert(gid);
        }
    }
    Ok(kept)
}
