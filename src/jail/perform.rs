//! Carries the steps of a [`Plan`](super::plan::Plan) out, in PID 1 of the new namespaces.
//!
//! The tree is held by a descriptor while a tmpfs is mounted over it and becomes the working directory, the *stage*: it has
//! the overlay's `upper` and `work`, and `root`, where the overlay is mounted and everything else on it. So no path of
//! the host appears in a mount option, whatever bytes it is made of, and no directory of the host has to be lent.

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::{set_dumpable, set_no_new_privs, set_pdeathsig};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, fstat, stat, umask};
use nix::unistd::{Gid, Uid, chdir, chown, mkdir, pivot_root, setgroups, sethostname, setresgid, setresuid, symlinkat};

use super::error::Word;
use super::own::own;
use super::plan::{FileSystem, Step, Supplied};
use super::sys;
use crate::path::JailPath;

/// What the steps need of the host.
pub(super) struct Ground<'a> {
    /// The tree's absolute path.
    pub(super) tree: &'a Path,
    /// A pipe whose other end only the caller holds.
    pub(super) caller: BorrowedFd<'a>,
    /// May setgroups be called?
    pub(super) setgroups: bool,
}

const NOTHING: Option<&str> = None;

/// Where the overlay is, seen from the stage, until the root is changed.
const STAGE: &str = "root";

/// Carries `steps` out in order. The umask is the caller's again afterwards.
pub(super) fn perform(steps: &[Step], ground: &Ground<'_>) -> Result<(), Word> {
    let before = umask(Mode::empty());
    let result = steps.iter().try_for_each(|step| {
        carry_out(step, ground).map_err(|errno| Word::Failed {
            step: step.to_string(),
            kind: step.kind(),
            errno: errno as i32,
        })
    });
    umask(before);
    result
}

fn carry_out(step: &Step, ground: &Ground<'_>) -> Result<(), Errno> {
    match step {
        Step::BecomeRoot => become_root(ground.setgroups),
        Step::DieWithCaller => die_with_caller(ground.caller),
        Step::PrivateMounts => mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NOTHING),
        Step::Overlay => overlay(ground),
        Step::Own(owned) => own(owned, Path::new(STAGE)),
        Step::Directory { path, mode } => existing(mkdir(&staged(path), Mode::from_bits_truncate(*mode))),
        Step::MountPoint(path) => touch(&staged(path)),
        Step::Link { path, text } => symlinkat(*text, nix::fcntl::AT_FDCWD, &staged(path)),
        Step::Mount { what, path } => mount_fresh(*what, path),
        Step::Bind { host, path } => bind(Path::new(host), &staged(path)),
        Step::Supply { file, path, missing } => supply(file, path, missing),
        Step::Freeze(path) => freeze(&staged(path)),
        Step::LoopbackUp => sys::loopback_up(),
        Step::HostName(name) => sethostname(name),
        Step::ChangeRoot => change_root(),
        Step::LimitCapabilities => limit_capabilities(),
        Step::HideFirstProcess => set_dumpable(false),
        Step::NoNewPrivileges => set_no_new_privs(),
        Step::Directories(path) => directories(path),
        Step::WorkingDirectory(path) => chdir(path.as_bytes()),
    }
}

fn become_root(may_set_groups: bool) -> Result<(), Errno> {
    if may_set_groups {
        setgroups(&[])?;
    }
    let (gid, uid) = (Gid::from_raw(0), Uid::from_raw(0));
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)
}

/// A change of ids clears the parent-death signal (`PR_SET_PDEATHSIG(2const)`), so this comes after it.
fn die_with_caller(caller: BorrowedFd<'_>) -> Result<(), Errno> {
    set_pdeathsig(Signal::SIGKILL)?;
    // The caller may have died just before; then its end of the pipe is closed.
    let mut pipes = [PollFd::new(caller, PollFlags::empty())];
    poll(&mut pipes, PollTimeout::ZERO)?;
    if pipes[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP)) {
        sys::exit(125);
    }
    Ok(())
}

fn overlay(ground: &Ground<'_>) -> Result<(), Errno> {
    // The tree must be opened here: overlayfs takes no layer from a mount of another mount namespace.
    let tree = open(ground.tree, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let facts = fstat(&tree)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), ground.tree, Some("tmpfs"), flags, Some("mode=0700"))?;
    chdir(ground.tree)?;
    // Whatever the path turned out to lead to: nothing is ever created in the tree itself.
    if stat(".")?.st_dev == facts.st_dev {
        return Err(Errno::EBUSY);
    }
    for name in ["work", "root", "supplied"] {
        mkdir(name, Mode::S_IRWXU)?;
    }
    // The overlay's root shows the metadata of its upper directory. An owner who does not exist here cannot be given.
    mkdir("upper", Mode::from_bits_truncate(facts.st_mode & 0o7777))?;
    match chown("upper", Some(Uid::from_raw(facts.st_uid)), Some(Gid::from_raw(facts.st_gid))) {
        Ok(()) | Err(Errno::EINVAL | Errno::EPERM) => {}
        Err(errno) => return Err(errno),
    }
    // "userxattr": in a user namespace trusted.* attributes cannot be written (overlayfs.rst, "User xattr").
    let options = format!("lowerdir=/proc/self/fd/{},upperdir=upper,workdir=work,userxattr", tree.as_raw_fd());
    mount(Some("overlay"), "root", Some("overlay"), MsFlags::empty(), Some(options.as_str()))
}

fn mount_fresh(what: FileSystem, path: &JailPath) -> Result<(), Errno> {
    let result = mount(Some(what.name), &staged(path), Some(what.name), what.flags, Some(what.options));
    if what.optional { Ok(()) } else { result }
}

fn bind(from: &Path, to: &Path) -> Result<(), Errno> {
    mount(Some(from), to, NOTHING, MsFlags::MS_BIND, NOTHING)
}

fn supply(file: &Supplied, path: &JailPath, missing: &[JailPath]) -> Result<(), Errno> {
    match make_room(missing) {
        Err(Errno::EACCES | Errno::EPERM | Errno::EROFS | Errno::EOVERFLOW) => return Ok(()),
        result => result?,
    }
    match file {
        Supplied::Host(host) => bind(Path::new(host), &staged(path)),
        Supplied::Made { name, content } => bind(&made(name, content)?, &staged(path)),
    }
}

/// Makes the last of the paths as an empty file, and those before it as directories.
fn make_room(missing: &[JailPath]) -> Result<(), Errno> {
    let Some((file, above)) = missing.split_last() else { return Ok(()) };
    above.iter().try_for_each(|path| existing(mkdir(&staged(path), Mode::from_bits_truncate(0o755))))?;
    touch(&staged(file))
}

/// The file is on the stage, so that it does not matter whether the overlay could copy the tree's own file up.
fn made(name: &str, content: &str) -> Result<PathBuf, Errno> {
    let file = Path::new("supplied").join(name);
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let descriptor = open(&file, flags, Mode::from_bits_truncate(0o644))?;
    std::io::Write::write_all(&mut File::from(descriptor), content.as_bytes())
        .map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
    Ok(file)
}

fn freeze(path: &Path) -> Result<(), Errno> {
    match bind(path, path) {
        Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno),
        Ok(()) => {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            let flags = flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
            mount(NOTHING, path, NOTHING, flags, NOTHING)
        }
    }
}

/// "`pivot_root(".", ".")`" of `pivot_root(2)`: the old root lies on the new one, and is unmounted from there.
fn change_root() -> Result<(), Errno> {
    chdir("root")?;
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")
}

/// Leaves what docker and podman leave by default, by the numbers of linux/capability.h.
fn limit_capabilities() -> Result<(), Errno> {
    // chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, net_raw, sys_chroot, mknod,
    // audit_write, setfcap.
    const LEFT: [u32; 14] = [0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31];
    let mut number = 0;
    while LEFT.contains(&number) || sys::drop_bounding_capability(number)? {
        number += 1;
    }
    Ok(())
}

fn touch(path: &Path) -> Result<(), Errno> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    open(path, flags, Mode::from_bits_truncate(0o644)).map(drop)
}

/// As engines do: what is there may be a link to a directory, and what is missing above is made too.
fn directories(path: &JailPath) -> Result<(), Errno> {
    let mut all: Vec<JailPath> = path.ancestors().collect();
    all.reverse();
    all.push(path.clone());
    all.iter()
        .filter(|path| !path.is_root())
        .try_for_each(|path| existing(mkdir(path.as_bytes(), Mode::from_bits_truncate(0o755))))
}

fn existing(result: Result<(), Errno>) -> Result<(), Errno> {
    if result == Err(Errno::EEXIST) { Ok(()) } else { result }
}

/// Where something of the jail stands before the root is changed, seen from the stage.
fn staged(path: &JailPath) -> PathBuf {
    Path::new(STAGE).join(path.relative())
}
