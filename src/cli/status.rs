//! What the kernel says of a task (`proc(5)`, `/proc/pid/status`; `capget(2)`).
//!
//! In: a task's number. Out: whom it counts for, and what this process itself may do; nothing of what is gone, or not shown.

use minjail_tracer::effective_capabilities;
use nix::unistd::getpid;

/// `include/uapi/linux/capability.h`.
pub(super) const CAP_SETUID: u32 = 7;
const CAP_NET_ADMIN: u32 = 12;
pub(super) const CAP_SYS_ADMIN: u32 = 21;

/// The effective user and group of a task: the second of real, effective, saved, and that of the file system.
pub(super) fn effective_ids(task: i32) -> Option<[u32; 2]> {
    let status = fs_err::read_to_string(format!("/proc/{task}/status")).ok()?;
    let field = |name| status.lines().find_map(|line| line.strip_prefix(name));
    let effective = |name| field(name)?.split_whitespace().nth(1)?.parse().ok();
    Some([effective("Uid:")?, effective("Gid:")?])
}

/// True if this process has the capability of this number in effect.
pub(super) fn has_capability(number: u32) -> bool {
    effective_capabilities(getpid().as_raw()).is_ok_and(|mask| mask & (1 << number) != 0)
}

/// True if this process may have a network of its own without a jail, which a root may not in most containers.
pub(super) fn may_leave_network() -> bool {
    // The second one is for the loopback interface in it.
    has_capability(CAP_SYS_ADMIN) && has_capability(CAP_NET_ADMIN)
}
