//! What the kernel says of a task (`proc(5)`, `/proc/pid/status`).
//!
//! In: a task's number. Out: whom it counts for, and what this process itself may do; nothing of what is gone, or not shown.

/// `include/uapi/linux/capability.h`.
pub(super) const CAP_SETUID: u32 = 7;
pub(super) const CAP_SYS_ADMIN: u32 = 21;

/// The effective user and group of a task: the second of real, effective, saved, and that of the file system.
pub(super) fn effective_ids(task: i32) -> Option<[u32; 2]> {
    let status = status(&task.to_string())?;
    let effective = |name| field(&status, name)?.split_whitespace().nth(1)?.parse().ok();
    Some([effective("Uid:")?, effective("Gid:")?])
}

/// True if this process has the capability of this number in effect.
pub(super) fn has_capability(number: u32) -> bool {
    let status = status("self").unwrap_or_default();
    let mask = field(&status, "CapEff:").and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << number) != 0)
}

fn status(task: &str) -> Option<String> {
    fs_err::read_to_string(format!("/proc/{task}/status")).ok()
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name))
}
