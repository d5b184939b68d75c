//! The paths that stand in the options of a mount: the directories of an overlay (`mount(8)`, "Mount options for overlay";
//! `Documentation/filesystems/overlayfs.rst`), and the further devices of other kinds of file systems (`ext4(5)`, `btrfs(5)`,
//! `xfs(5)`, `Documentation/filesystems/erofs.rst`).
//!
//! In: the name of a kind of file systems and the options for `mount(2)`, or one option of `fsconfig(2)`. Out: the paths,
//! told as looked at. And whether what is mounted is a path at all.

use crate::TraceError;
use crate::decode::From;
use crate::engine::Engine;
use crate::event::{Access, Gap};
use crate::inspect::{Asking, Use};
use crate::memory::{self, Unread};
use crate::view;

impl Engine<'_> {
    /// True if what a mount with these flags names as mounted is a path (`fs/namespace.c`, `path_mount`).
    pub(crate) fn is_mount_source(&mut self, asking: Asking, kind: u64, flags: u64) -> Result<bool, TraceError> {
        let flags = if flags & MS_MGC_MSK == MS_MGC_VAL { flags & !MS_MGC_MSK } else { flags };
        if flags & libc::MS_REMOUNT != 0 {
            return Ok(false);
        }
        if flags & libc::MS_BIND != 0 {
            return Ok(true);
        }
        if flags & PROPAGATION != 0 {
            return Ok(false);
        }
        if flags & libc::MS_MOVE != 0 {
            return Ok(true);
        }
        if kind == 0 {
            return Ok(false);
        }
        let kind = self.text(asking, kind)?;
        Ok(!kind.is_some_and(|kind| has_no_source(&kind)))
    }

    /// What is named by the `options` of a mount.
    pub(crate) fn mount_options(&mut self, asking: Asking, kind: u64, options: u64) -> Result<(), TraceError> {
        let Some(kind) = self.text(asking, kind)? else { return Ok(()) };
        self.places.makes(&kind);
        let mut text = Vec::new();
        match memory::read_page(asking.task, options, &mut text) {
            Ok(()) => self.look_at(asking, all_paths(&kind, &text)),
            Err(Unread::Refused) => Ok(()),
            Err(Unread::Hidden) => self.gap(asking.process, Gap::Memory),
        }
    }

    /// What is named by the option `name`, which a mount gets by itself.
    pub(crate) fn mount_option(&mut self, asking: Asking, name: u64, value: u64) -> Result<(), TraceError> {
        let Some(name) = self.text(asking, name)? else { return Ok(()) };
        let value = self.text(asking, value)?.unwrap_or_default();
        // As mount(2) has it as an argument.
        let named = if name == b"source" { vec![value] } else { paths(&name, &value) };
        self.look_at(asking, named)
    }

    fn look_at(&mut self, asking: Asking, paths: Vec<Vec<u8>>) -> Result<(), TraceError> {
        for path in paths {
            self.spelled = path;
            let used = Use { from: From::WorkingDirectory, access: Access::Look, follow: true, verify: false };
            self.touch(asking, used)?;
        }
        Ok(())
    }

    /// The string at `address` of the task's; `None` if the kernel refuses it, too.
    fn text(&mut self, asking: Asking, address: u64) -> Result<Option<Vec<u8>>, TraceError> {
        let mut text = Vec::new();
        match memory::read_string(asking.task, address, &mut text) {
            Ok(()) => Ok(Some(text)),
            Err(Unread::Refused) => Ok(None),
            Err(Unread::Hidden) => self.gap(asking.process, Gap::Memory).map(|()| None),
        }
    }
}

/// What older programs have in the upper half of the flags, where it means nothing (`mount(2)`).
const MS_MGC_MSK: u64 = 0xffff_0000;
const MS_MGC_VAL: u64 = 0xc0ed_0000;

/// How what is mounted spreads to others is changed.
const PROPAGATION: u64 = libc::MS_SHARED | libc::MS_PRIVATE | libc::MS_SLAVE | libc::MS_UNBINDABLE;

/// True for a kind of file systems that is mounted from nothing: what stands for it is a word for the tables.
fn has_no_source(kind: &[u8]) -> bool {
    let main = kind.split(|&byte| byte == b'.').next();
    view::begins_empty(kind) || kind == b"overlay" || main == Some(b"fuse")
}

/// The paths that all options of a kind of file systems name.
fn all_paths(kind: &[u8], options: &[u8]) -> Vec<Vec<u8>> {
    // A backslash means something to overlays alone.
    let each: Vec<&[u8]> =
        if kind == b"overlay" { split(options, b',').collect() } else { options.split(|&byte| byte == b',').collect() };
    each.into_iter().map(halves).flat_map(|(name, value)| paths(name, value)).collect()
}

/// The paths that an option names.
fn paths(name: &[u8], value: &[u8]) -> Vec<Vec<u8>> {
    match name {
        // Two colons stand before a layer that is for data alone.
        b"lowerdir" => split(value, b':').map(unescape).filter(|path| !path.is_empty()).collect(),
        b"upperdir" | b"workdir" => vec![unescape(value)],
        b"lowerdir+" | b"datadir+" => vec![value.to_vec()],
        // ext4; btrfs and erofs; xfs.
        b"journal_path" | b"device" | b"logdev" | b"rtdev" => vec![value.to_vec()],
        _ => Vec::new(),
    }
}

/// The parts of `text` between separators before which no backslash stands (`fs/overlayfs/params.c`, `ovl_next_opt`).
fn split(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut is_escaped = false;
    text.split(move |&byte| {
        let is_end = byte == separator && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    })
}

/// An option's name and value.
fn halves(option: &[u8]) -> (&[u8], &[u8]) {
    let equal = option.iter().position(|&byte| byte == b'=').unwrap_or(option.len());
    (&option[..equal], option.get(equal + 1..).unwrap_or_default())
}

/// A backslash says that what follows is meant as it is.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut is_escaped = false;
    let is_plain = |byte: &&u8| {
        is_escaped = **byte == b'\\' && !is_escaped;
        !is_escaped
    };
    text.iter().filter(is_plain).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_that_are_mounted_from_nothing() {
        for kind in [&b"tmpfs"[..], b"proc", b"overlay", b"fuse", b"fuse.sshfs"] {
            assert!(has_no_source(kind));
        }
        // A device, a directory, a socket.
        for kind in [&b"ext4"[..], b"fuseblk", b"fuseblk.ntfs", b"ecryptfs", b"9p"] {
            assert!(!has_no_source(kind));
        }
    }

    #[test]
    fn paths_in_options() {
        let options = br"ro,lowerdir=/a\:b:/c::/d\\,upperdir=/u\,p,workdir=w,lowerdir,userxattr";
        assert_eq!(all_paths(b"overlay", options), [&b"/a:b"[..], b"/c", br"/d\", b"/u,p", b"w"]);
        assert_eq!(paths(b"lowerdir+", br"/a\:b:c"), [br"/a\:b:c"]);
        let devices = br"ro,journal_path=/dev/a\,device=/dev/b,logdev=/dev/c,rtdev=/dev/d,data=ordered";
        assert_eq!(all_paths(b"any", devices), [&br"/dev/a\"[..], b"/dev/b", b"/dev/c", b"/dev/d"]);
        assert_eq!(split(b"", b',').count(), 1);
        assert_eq!(unescape(br"\"), b"");
    }
}
