//! What has the kernel run other files than programs for this machine: `binfmt_misc`
//! (Documentation/admin-guide/binfmt-misc.rst).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use crate::mounts::Mounts;
use crate::proc;

/// Where it is mounted as a rule, often only once somebody looks (`systemd.automount(5)`).
const PLACE: &str = "/proc/sys/fs/binfmt_misc";

/// An interpreter for a kind of files, as an emulator is for the programs of another machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handler {
    pub interpreter: Vec<u8>,
    /// The kernel has held it open since it was registered (flag `F`), and looks for it in no root.
    pub is_held: bool,
    /// The first bytes of the files that it is for; empty if they are told by their names, or by later bytes.
    pub magic: Vec<u8>,
}

impl Handler {
    /// Those that are switched on. `None` where that cannot be told, as in most containers: the kernel need not be without
    /// any where `binfmt_misc` is not mounted.
    pub fn all() -> Option<Vec<Self>> {
        let place = mounted()?;
        if read(&place.join("status"))?.trim_ascii() != b"enabled" {
            return Some(Vec::new());
        }
        let entries = std::fs::read_dir(place).ok()?.map_while(Result::ok);
        // `register` cannot be read, and `status` names no interpreter.
        Some(entries.filter_map(|entry| Self::parse(&read(&entry.path())?)).collect())
    }

    /// As `fs/binfmt_misc.c`, `entry_status`, prints it.
    fn parse(text: &[u8]) -> Option<Self> {
        let mut lines = text.split(|&byte| byte == b'\n');
        let is_on = lines.next()? == b"enabled";
        let interpreter = lines.next()?.strip_prefix(b"interpreter ").filter(|_| is_on)?.to_vec();
        let is_held = lines.next()?.strip_prefix(b"flags: ")?.contains(&b'F');
        let is_at_start = lines.next() == Some(b"offset 0");
        let digits = lines.next().filter(|_| is_at_start).and_then(|line| line.strip_prefix(b"magic "));
        let magic = digits.unwrap_or_default().chunks(2).map_while(byte).collect();
        Some(Self { interpreter, is_held, magic })
    }
}

fn read(path: &Path) -> Option<Vec<u8>> {
    proc::read_whole(open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()?)
}

fn byte(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Where it can be looked at.
fn mounted() -> Option<PathBuf> {
    let usual = PathBuf::from(PLACE);
    if usual.join("status").exists() {
        return Some(usual);
    }
    let mounts = Mounts::own();
    let mount = mounts.iter().find(|mount| mount.kind == b"binfmt_misc")?;
    Some(PathBuf::from(OsStr::from_bytes(&mount.point)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_prints_of_a_handler_is_read() {
        let text = |state: &str, flags: &str, rest: &str| {
            format!("{state}\ninterpreter /usr/bin/a b\nflags: {flags}\n{rest}").into_bytes()
        };
        let handler = |is_held, magic: &[u8]| {
            Some(Handler { interpreter: b"/usr/bin/a b".to_vec(), is_held, magic: magic.to_vec() })
        };
        let elf = "offset 0\nmagic 7f454c46\nmask ffffffff\n";
        assert_eq!(Handler::parse(&text("enabled", "POCF", elf)), handler(true, b"\x7fELF"));
        assert_eq!(Handler::parse(&text("enabled", "", "offset 4\nmagic 4a\n")), handler(false, b""));
        assert_eq!(Handler::parse(&text("enabled", "", "extension .jar\n")), handler(false, b""));
        assert_eq!(Handler::parse(&text("disabled", "F", elf)), None);
        assert_eq!(Handler::parse(b"enabled\n"), None);
    }
}
