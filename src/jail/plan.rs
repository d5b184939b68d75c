//! Decides how a jail is built: facts in, an ordered list of steps as data out. Pure.
//!
//! The order is dictated by the kernel: ids before anything that creates a file; the overlay before what is mounted on
//! it, and files to their owners before a mount hides them; what comes from the host, and the fresh `/proc` and `/sys`
//! (which the kernel gives only to those who see one already, `mount_too_revealing` in fs/namespace.c), before the root
//! is changed; the loss of privileges last.

use std::collections::BTreeSet;
use std::fmt;

use nix::mount::MsFlags;
use nix::sched::CloneFlags;

use super::error::{JailError, Kind};
use super::facts::{Facts, Place};
use super::ids::{self, Extent};
use super::{Jail, Network, Note, Owned};
use crate::path::JailPath;

/// How a jail is built.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) namespaces: CloneFlags,
    pub(super) ids: IdMaps,
    pub(super) steps: Vec<Step>,
    pub(super) notes: Vec<Note>,
}

/// Which ids exist inside, and who writes the maps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IdMaps {
    pub(super) uids: Vec<Extent>,
    pub(super) gids: Vec<Extent>,
    pub(super) writer: Writer,
    /// May the program's supplementary groups be set?
    pub(super) setgroups: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writer {
    /// The caller, who has the capabilities.
    Caller,
    /// The caller, who has none: one id each, and setgroups must be denied first (`user_namespaces(7)`).
    CallerDenyingGroups,
    /// `newuidmap` and `newgidmap`.
    Programs,
}

/// One thing that PID 1 does before it is the jail's. Paths are those of the jail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Become user and group 0 of the jail.
    BecomeRoot,
    /// Ask to be killed when the caller dies.
    DieWithCaller,
    /// No mount made here shows outside, nor the other way round.
    PrivateMounts,
    /// Overlay the tree with a tmpfs.
    Overlay,
    /// Give a file of the tree to its owner.
    Own(Owned),
    /// Make a directory, unless it is there.
    Directory {
        path: JailPath,
        mode: u32,
    },
    /// Make an empty file to mount on, unless it is there.
    MountPoint(JailPath),
    Link {
        path: JailPath,
        text: &'static str,
    },
    Mount {
        what: FileSystem,
        path: JailPath,
    },
    /// Show a file of the host, by its path there, at `path`.
    Bind {
        host: String,
        path: JailPath,
    },
    /// Show a file at `path`, as runtimes do whatever the tree has there. `missing` is made first, the directories before what
    /// is mounted on; where the tree is not the caller's to change, the jail does without.
    Supply {
        file: Supplied,
        path: JailPath,
        missing: Vec<JailPath>,
    },
    /// Make what is at `path`, if anything, read-only.
    Freeze(JailPath),
    LoopbackUp,
    HostName(String),
    /// The overlay becomes `/`, and the host's root is gone.
    ChangeRoot,
    /// What is executed here can have no other capabilities than those that container runtimes leave.
    LimitCapabilities,
    /// No process of the jail may look into PID 1, which is a copy of the caller.
    HideFirstProcess,
    NoNewPrivileges,
    /// Make a directory with all that is missing above it, through the links of the jail.
    Directories(JailPath),
    WorkingDirectory(JailPath),
}

/// A file that the runtime gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Supplied {
    /// The host's, by its path there.
    Host(String),
    /// One with this content; its name tells it from other ones.
    Made { name: &'static str, content: String },
}

/// What is mounted fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileSystem {
    pub(super) name: &'static str,
    pub(super) flags: MsFlags,
    pub(super) options: &'static str,
    /// The jail does without it if the kernel refuses.
    pub(super) optional: bool,
}

const HARMLESS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);
const PROC: FileSystem = FileSystem { name: "proc", flags: HARMLESS, options: "", optional: false };
const DEV: FileSystem = FileSystem { name: "tmpfs", flags: MsFlags::MS_NOSUID, options: "mode=0755", optional: false };
const TERMINALS: FileSystem = FileSystem {
    name: "devpts",
    flags: MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC),
    options: "newinstance,ptmxmode=0666,mode=0620",
    optional: false,
};
/// Group 5 is `tty` in every distribution, and what runtimes give.
const TTY_GROUP: u32 = 5;
const TERMINALS_OF_TTY: FileSystem = FileSystem { options: "newinstance,ptmxmode=0666,mode=0620,gid=5", ..TERMINALS };
const SHARED_MEMORY: FileSystem = FileSystem { name: "tmpfs", flags: HARMLESS, options: "mode=1777", optional: false };
const QUEUES: FileSystem = FileSystem { name: "mqueue", flags: HARMLESS, options: "", optional: true };
const SYS: FileSystem =
    FileSystem { name: "sysfs", flags: HARMLESS.union(MsFlags::MS_RDONLY), options: "", optional: true };
/// Not `noexec`: the JVM and others unpack libraries to `/tmp` and map them.
const TMP: FileSystem = FileSystem {
    name: "tmpfs",
    flags: MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV),
    options: "mode=1777",
    optional: false,
};

/// Where a write would reach the whole machine. The jail of a real root has the real user 0, to whom these files
/// belong (what is under `/proc/sys` checks the owner, not a capability). The list is the default of OCI runtimes.
const FROZEN: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

const LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];

pub(super) fn plan(jail: &Jail, facts: &Facts) -> Result<Plan, JailError> {
    let ids = id_maps(jail, facts);
    let mut steps = Vec::new();
    if ids::has(&ids.uids, 0) && ids::has(&ids.gids, 0) {
        steps.push(Step::BecomeRoot);
    }
    steps.extend([Step::DieWithCaller, Step::PrivateMounts, Step::Overlay]);
    steps.extend(owners(jail, &ids).map(|owned| Step::Own(owned.clone())));
    steps.extend(proc(facts)?);
    steps.extend(dev(facts, &ids)?);
    steps.extend(sys_and_tmp(jail, facts));
    steps.extend(etc(jail, facts));
    if jail.network == Network::Private {
        steps.push(Step::LoopbackUp);
    }
    steps.extend([
        Step::HostName(jail.hostname.clone()),
        Step::ChangeRoot,
        Step::LimitCapabilities,
        Step::HideFirstProcess,
    ]);
    // Where the ids are a range of the caller's own, a set-user-ID program becomes one of these, as in an engine.
    if ids.writer != Writer::Programs && (!facts.capable || facts.uid != 0) {
        steps.push(Step::NoNewPrivileges);
    }
    steps.extend(jail.base.directories.iter().cloned().map(Step::Directories));
    steps.push(Step::WorkingDirectory(jail.cwd.clone()));
    Ok(Plan { namespaces: namespaces(jail, facts), notes: notes(jail, &ids), ids, steps })
}

fn namespaces(jail: &Jail, facts: &Facts) -> CloneFlags {
    let mut flags = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    flags.set(CloneFlags::CLONE_NEWCGROUP, facts.cgroup_namespaces);
    flags.set(CloneFlags::CLONE_NEWNET, jail.network == Network::Private);
    flags
}

/// The ids that are to exist inside.
struct Wanted {
    uids: BTreeSet<u32>,
    gids: BTreeSet<u32>,
}

impl Wanted {
    /// Those of the program's user.
    fn of_user(jail: &Jail) -> Self {
        let groups = jail.user.groups.iter().copied();
        Self { uids: BTreeSet::from([jail.user.uid]), gids: groups.chain([jail.user.gid]).collect() }
    }

    /// Those of the files' owners too.
    fn of_all(jail: &Jail) -> Self {
        let mut all = Self::of_user(jail);
        all.uids.extend(jail.base.owned.iter().map(|owned| owned.uid));
        all.gids.extend(jail.base.owned.iter().map(|owned| owned.gid));
        all
    }
}

fn id_maps(jail: &Jail, facts: &Facts) -> IdMaps {
    // Files can go without their owners; the program cannot go without its user.
    let many = [Wanted::of_all(jail), Wanted::of_user(jail)].iter().find_map(|wanted| many_ids(wanted, facts));
    many.unwrap_or_else(|| IdMaps {
        uids: ids::single(facts.uid, jail.user.uid),
        gids: ids::single(facts.gid, jail.user.gid),
        writer: Writer::CallerDenyingGroups,
        setgroups: false,
    })
}

/// All ids that the caller may map, those that are `wanted` among them; `None` if that cannot be.
fn many_ids(wanted: &Wanted, facts: &Facts) -> Option<IdMaps> {
    let Wanted { uids, gids } = wanted;
    let (uids, gids, writer) = if facts.capable {
        (ids::keep(&facts.uids, uids)?, ids::keep(&facts.gids, gids)?, Writer::Caller)
    } else {
        let ours = facts.subordinate.as_ref()?;
        (ids::spread(facts.uid, &ours.uids, uids)?, ids::spread(facts.gid, &ours.gids, gids)?, Writer::Programs)
    };
    Some(IdMaps { uids, gids, writer, setgroups: facts.setgroups })
}

/// What can be given to its owner.
fn owners<'a>(jail: &'a Jail, ids: &IdMaps) -> impl Iterator<Item = &'a Owned> {
    let has_many = ids.writer != Writer::CallerDenyingGroups;
    let exists = move |owned: &&Owned| has_many && ids::has(&ids.uids, owned.uid) && ids::has(&ids.gids, owned.gid);
    jail.base.owned.iter().filter(exists)
}

fn notes(jail: &Jail, ids: &IdMaps) -> Vec<Note> {
    let one = ids.writer == Writer::CallerDenyingGroups;
    let owners = !one && owners(jail, ids).count() < jail.base.owned.len();
    let groups = !ids.setgroups && jail.user.groups.iter().any(|&group| group != jail.user.gid);
    let all = [(one, Note::OneUser), (owners, Note::NoOwners), (groups, Note::NoGroups)];
    all.into_iter().filter_map(|(is, note)| is.then_some(note)).collect()
}

fn proc(facts: &Facts) -> Result<Vec<Step>, JailError> {
    let proc = path("/proc");
    let mut steps = mount_point(facts, &proc)?;
    steps.push(Step::Mount { what: PROC, path: proc });
    steps.extend(FROZEN.map(|name| Step::Freeze(path(name))));
    Ok(steps)
}

fn dev(facts: &Facts, ids: &IdMaps) -> Result<Vec<Step>, JailError> {
    let dev = path("/dev");
    let mut steps = mount_point(facts, &dev)?;
    steps.push(Step::Mount { what: DEV, path: dev.clone() });
    for name in &facts.devices {
        let node = dev.join(name.as_bytes());
        steps.extend([Step::MountPoint(node.clone()), Step::Bind { host: format!("/dev/{name}"), path: node }]);
    }
    let terminals = if ids::has(&ids.gids, TTY_GROUP) { TERMINALS_OF_TTY } else { TERMINALS };
    for (name, what) in [("/dev/pts", terminals), ("/dev/shm", SHARED_MEMORY), ("/dev/mqueue", QUEUES)] {
        let path = path(name);
        steps.extend([Step::Directory { path: path.clone(), mode: 0o755 }, Step::Mount { what, path }]);
    }
    steps.extend(LINKS.map(|(name, text)| Step::Link { path: path(name), text }));
    Ok(steps)
}

fn sys_and_tmp(jail: &Jail, facts: &Facts) -> Vec<Step> {
    let mut steps = Vec::new();
    let sys = path("/sys");
    if let Ok(point) = mount_point(facts, &sys) {
        steps.extend(point);
        // sysfs shows the devices of a network namespace, and only its owner may mount it.
        if jail.network == Network::Private {
            steps.push(Step::Mount { what: SYS, path: sys });
        }
    }
    let tmp = path("/tmp");
    // What the tree has in /tmp stays visible, and so does that it has none, or one that not everybody may use: no engine makes
    // another one. Else it is a mount, as an owner who does not exist in here would keep the overlay from writing to it.
    if place(facts, &tmp) == Place::EmptyForAll {
        steps.push(Step::Mount { what: TMP, path: tmp });
    }
    steps
}

/// The files that a runtime supplies.
fn etc(jail: &Jail, facts: &Facts) -> Vec<Step> {
    let made = |name, content| Some(Supplied::Made { name, content });
    let host = |name| facts.host_files.contains(&name).then(|| Supplied::Host(format!("/etc/{name}")));
    let files = match jail.network {
        // Nobody is asked for names in there.
        Network::Private => [made("hosts", hosts(&jail.hostname)), made("resolv.conf", String::new())],
        Network::Host => [host("hosts"), host("resolv.conf")],
    };
    let files = [made("hostname", format!("{}\n", jail.hostname))].into_iter().chain(files);
    let names = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];
    let supply = |(file, name): (Option<Supplied>, &str)| {
        let (missing, path) = supplied(facts, name)?;
        Some(Step::Supply { file: file?, path, missing })
    };
    files.zip(names).filter_map(supply).collect()
}

fn hosts(hostname: &str) -> String {
    format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost {hostname} ip6-localhost ip6-loopback\n")
}

/// Where to mount a supplied file, and what is to be made first; `None` if the tree has something else there.
fn supplied(facts: &Facts, name: &str) -> Option<(Vec<JailPath>, JailPath)> {
    let (end, exists) = match place(facts, &path(name)) {
        Place::File => (path(name), true),
        Place::Missing => (path(name), false),
        // The usual case of a link to nothing: what systemd-resolved would have put under /run.
        Place::Link { end, exists } if !is_covered(&end) => (end, exists),
        Place::Link { .. } | Place::EmptyForAll | Place::Directory | Place::Other => return None,
    };
    let mut missing: Vec<_> = end.ancestors().filter(|path| !path.is_root()).collect();
    missing.reverse();
    missing.push(end.clone());
    Some((if exists { Vec::new() } else { missing }, end))
}

/// True for what is out of sight because something else is mounted there.
fn is_covered(end: &JailPath) -> bool {
    ["/proc", "/dev", "/sys"].iter().any(|name| end.starts_with(&path(name)))
}

fn mount_point(facts: &Facts, at: &JailPath) -> Result<Vec<Step>, JailError> {
    match place(facts, at) {
        Place::Missing => Ok(vec![Step::Directory { path: at.clone(), mode: 0o755 }]),
        Place::EmptyForAll | Place::Directory => Ok(Vec::new()),
        Place::File | Place::Link { .. } | Place::Other => Err(JailError::NotADirectory(at.clone())),
    }
}

fn place(facts: &Facts, path: &JailPath) -> Place {
    facts.tree.get(path).cloned().unwrap_or(Place::Missing)
}

fn path(text: &str) -> JailPath {
    JailPath::parse(text.as_bytes()).expect("the plan's own paths are absolute and plain")
}

impl Step {
    /// What matters to the hint if this fails.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Overlay => Kind::Overlay,
            Self::Own(_) => Kind::Own,
            Self::Mount { what, .. } if what.name == "proc" => Kind::Proc,
            Self::PrivateMounts | Self::Mount { .. } | Self::Bind { .. } | Self::Supply { .. } | Self::ChangeRoot => {
                Kind::Mount
            }
            _ => Kind::Other,
        }
    }
}

/// A phrase that fits after "failed to".
impl fmt::Display for Step {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BecomeRoot => write!(to, "become user 0 of the jail"),
            Self::DieWithCaller => write!(to, "tie the jail's life to the caller's"),
            Self::PrivateMounts => write!(to, "make the jail's mounts private"),
            Self::Overlay => write!(to, "mount an overlay on the tree"),
            Self::Own(Owned { path, uid, gid, .. }) => write!(to, "give `{path}` to its owner, {uid}:{gid}"),
            Self::Directory { path, .. } => write!(to, "create the directory `{path}`"),
            Self::MountPoint(path) => write!(to, "create `{path}` to mount on"),
            Self::Link { path, .. } => write!(to, "create the link `{path}`"),
            Self::Mount { what, path } => write!(to, "mount {} at `{path}`", what.name),
            Self::Bind { host, path } => write!(to, "mount the host's `{host}` at `{path}`"),
            Self::Supply { path, .. } => write!(to, "supply `{path}`"),
            Self::Freeze(path) => write!(to, "make `{path}` read-only"),
            Self::LoopbackUp => write!(to, "bring the loopback interface up"),
            Self::HostName(name) => write!(to, "set the host name `{name}`"),
            Self::ChangeRoot => write!(to, "make the tree the root"),
            Self::LimitCapabilities => write!(to, "limit the capabilities"),
            Self::HideFirstProcess => write!(to, "make the jail's first process undumpable"),
            Self::NoNewPrivileges => write!(to, "set no_new_privs"),
            Self::Directories(path) => write!(to, "create the directory `{path}`"),
            Self::WorkingDirectory(path) => write!(to, "enter the working directory `{path}`"),
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
