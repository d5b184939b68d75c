//! Reads what the plan is made from: who the caller is, what it may map, and what the tree and the host have.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::prctl::get_no_new_privs;
use nix::unistd::{User, getegid, geteuid, getpid};
use xattr::FileExt;

use super::Jail;
use super::error::{JailError, Obstacle};
use super::ids::{Range, parse_map, parse_subordinate};
use crate::path::JailPath;
use crate::root::{Root, Walk};

/// Everything that decides how a jail is built.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// May the caller map any id that it sees? `CAP_SETUID` and `CAP_SETGID`.
    pub(super) capable: bool,
    pub(super) uids: Vec<Range>,
    pub(super) gids: Vec<Range>,
    /// False if some user namespace above has denied it (`user_namespaces(7)`).
    pub(super) setgroups: bool,
    /// The ranges of `/etc/subuid` and `/etc/subgid`, and the programs that map them; empty if they cannot be used.
    pub(super) subordinate: Option<Subordinate>,
    pub(super) cgroup_namespaces: bool,
    /// Which of [`DEVICES`] the host has.
    pub(super) devices: Vec<&'static str>,
    /// Which of [`HOST_FILES`] the host has.
    pub(super) host_files: Vec<&'static str>,
    /// Where some names of the tree lead.
    pub(super) tree: BTreeMap<JailPath, Place>,
}

#[derive(Debug)]
pub(super) struct Subordinate {
    pub(super) newuidmap: PathBuf,
    pub(super) newgidmap: PathBuf,
    pub(super) uids: Vec<Range>,
    pub(super) gids: Vec<Range>,
}

/// What a name in the tree is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Missing,
    /// A directory with nothing in it where anybody may make files, and nobody remove another's: 1777.
    EmptyForAll,
    Directory,
    File,
    /// A link; where it leads, and whether something is there.
    Link {
        end: JailPath,
        exists: bool,
    },
    Other,
}

/// The device nodes that a runtime must give (OCI runtime specification, "Default Devices"), from the host.
pub(super) const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
pub(super) const HOST_FILES: [&str; 2] = ["hosts", "resolv.conf"];
/// What the plan wants to know of the tree.
pub(super) const NAMES: [&str; 7] =
    ["/dev", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/proc", "/sys", "/tmp"];

/// Where `newuidmap` and `newgidmap` are looked for: a setuid program is not taken from a `PATH`.
const PROGRAM_DIRECTORIES: [&str; 3] = ["/usr/bin", "/bin", "/usr/local/bin"];

pub(super) fn gather(jail: &Jail) -> Result<Facts, JailError> {
    // In another pid namespace's, the number of a process of ours is a stranger's.
    if fs_err::read_link("/proc/self").ok().as_deref() != Some(Path::new(&getpid().to_string())) {
        return Err(JailError::Proc);
    }
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let read = |path: &str| fs_err::read_to_string(path);
    Ok(Facts {
        uid,
        gid,
        capable: has_capabilities(&read("/proc/self/status")?),
        uids: parse_map(&read("/proc/self/uid_map")?),
        gids: parse_map(&read("/proc/self/gid_map")?),
        setgroups: read("/proc/self/setgroups").map_or(true, |text| text.trim_end() == "allow"),
        subordinate: subordinate(uid)?,
        cgroup_namespaces: Path::new("/proc/self/ns/cgroup").exists(),
        devices: DEVICES.into_iter().filter(|name| Path::new("/dev").join(name).exists()).collect(),
        host_files: HOST_FILES.into_iter().filter(|name| Path::new("/etc").join(name).exists()).collect(),
        tree: places(&Root::open(&jail.base.tree)?)?,
    })
}

/// What may be the reason of a refusal here, the likeliest first. It is read after the fact, and what cannot be read
/// restricts nothing.
pub(super) fn restrictions() -> Vec<Obstacle> {
    let read = |path: &str| fs_err::read_to_string(path).unwrap_or_default();
    let switch = |name: &str| read(&format!("/proc/sys/kernel/{name}")).trim().to_owned();
    let status = read("/proc/self/status");
    let seccomp = status.lines().find_map(|line| line.strip_prefix("Seccomp:")).map_or("0", str::trim);
    // In a chroot, the root of this process is not the root of its mount namespace, so that none of the mounts that it
    // sees is at `/`.
    let chrooted = !read("/proc/self/mountinfo").lines().any(|line| line.split(' ').nth(4) == Some("/"));
    let all = [
        (switch("unprivileged_userns_clone") == "0", Obstacle::CloneSwitch),
        (seccomp != "0", Obstacle::Container),
        (chrooted, Obstacle::Chroot),
        (switch("apparmor_restrict_unprivileged_userns") == "1", Obstacle::AppArmor),
    ];
    all.into_iter().filter_map(|(present, obstacle)| present.then_some(obstacle)).collect()
}

/// Whether a directory of the tree can be removed with what is in it, and made again; and whether one that was made in a directory of
/// the tree can be renamed. overlayfs marks it, in the memory that is written to, by a user attribute (`ovl_set_opaque` and
/// `ovl_rename` in `fs/overlayfs/dir.c`), which a tmpfs takes since Linux 6.6; without one the program gets EIO, or EXDEV.
pub fn replaces_directories() -> bool {
    // A file in memory is one of a tmpfs (`memfd_create(2)`).
    memfd_create(c"attributes", MFdFlags::MFD_CLOEXEC)
        .is_ok_and(|memory| File::from(memory).set_xattr("user.minjail", b"").is_ok())
}

fn has_capabilities(status: &str) -> bool {
    const CAP_SETGID: u64 = 1 << 6;
    const CAP_SETUID: u64 = 1 << 7;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or(0);
    effective & CAP_SETUID != 0 && effective & CAP_SETGID != 0
}

/// The caller's subordinate ranges, if it has both and both programs, and these can gain privileges.
fn subordinate(uid: u32) -> Result<Option<Subordinate>, JailError> {
    let program = |name: &str| PROGRAM_DIRECTORIES.iter().map(|at| Path::new(at).join(name)).find(|path| path.exists());
    let (Some(newuidmap), Some(newgidmap)) = (program("newuidmap"), program("newgidmap")) else { return Ok(None) };
    if get_no_new_privs().unwrap_or(false) {
        return Ok(None);
    }
    let user = User::from_uid(uid.into()).map_err(io::Error::from)?;
    let name = user.map(|user| user.name).unwrap_or_default();
    let ranges = |path: &str| match fs_err::read_to_string(path) {
        Ok(text) => Ok(parse_subordinate(&text, &name, uid)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    let (uids, gids) = (ranges("/etc/subuid")?, ranges("/etc/subgid")?);
    Ok((!uids.is_empty() && !gids.is_empty()).then_some(Subordinate { newuidmap, newgidmap, uids, gids }))
}

fn places(root: &Root) -> Result<BTreeMap<JailPath, Place>, JailError> {
    let place = |name: &str| {
        let path = JailPath::parse(name.as_bytes()).expect("the names are absolute and plain");
        let Walk { end, facts, .. } = root.resolve(&JailPath::root(), name.as_bytes(), true)?;
        let place = match &facts {
            _ if end != path => Place::Link { end, exists: facts.is_some_and(|facts| facts.is_file()) },
            None => Place::Missing,
            Some(facts) if facts.is_file() => Place::File,
            Some(facts) if !facts.is_directory() => Place::Other,
            // Only /tmp is asked for its emptiness; a directory that may not be listed is not taken for empty.
            Some(facts) if facts.mode & 0o7777 == 0o1777 && root.list(&path).is_ok_and(|names| names.is_empty()) => {
                Place::EmptyForAll
            }
            Some(_) => Place::Directory,
        };
        Ok((path, place))
    };
    NAMES.into_iter().map(place).collect()
}
