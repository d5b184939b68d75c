//! The directories that an overlay is mounted of, which stand in the options of the mount (`mount(8)`, "Mount options for
//! overlay"; `Documentation/filesystems/overlayfs.rst`).
//!
//! In: the name of a kind of file systems and the options for `mount(2)`, or one option of `fsconfig(2)`. Out: the paths,
//! told as looked at. Not told: the devices that options of other kinds of file systems name, as `journal_path` of ext4.

use crate::TraceError;
use crate::decode::From;
use crate::engine::Engine;
use crate::event::{Access, Gap};
use crate::inspect::{Asking, Use};
use crate::memory::{self, Unread};

impl Engine<'_> {
    /// What is named by the `options` of a mount, if it is an overlay.
    pub(crate) fn mount_options(&mut self, asking: Asking, kind: u64, options: u64) -> Result<(), TraceError> {
        if self.text(asking, kind)?.as_deref() != Some(b"overlay") {
            return Ok(());
        }
        let options = self.text(asking, options)?.unwrap_or_default();
        self.look_at(asking, all_directories(&options))
    }

    /// What is named by the option `name`, which a mount gets by itself.
    pub(crate) fn mount_option(&mut self, asking: Asking, name: u64, value: u64) -> Result<(), TraceError> {
        let Some(name) = self.text(asking, name)? else { return Ok(()) };
        let value = self.text(asking, value)?.unwrap_or_default();
        // As mount(2) has it as an argument.
        let named = if name == b"source" { vec![value] } else { directories(&name, &value) };
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

/// The directories that all options of an overlay name.
fn all_directories(options: &[u8]) -> Vec<Vec<u8>> {
    split(options, b',').map(halves).flat_map(|(name, value)| directories(name, value)).collect()
}

/// The directories that an option of an overlay names.
fn directories(name: &[u8], value: &[u8]) -> Vec<Vec<u8>> {
    match name {
        // Two colons stand before a layer that is for data alone.
        b"lowerdir" => split(value, b':').map(unescape).filter(|path| !path.is_empty()).collect(),
        b"upperdir" | b"workdir" => vec![unescape(value)],
        b"lowerdir+" | b"datadir+" => vec![value.to_vec()],
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
    fn options_of_overlays() {
        let options = br"ro,lowerdir=/a\:b:/c::/d\\,upperdir=/u\,p,workdir=w,lowerdir,userxattr";
        assert_eq!(all_directories(options), [&b"/a:b"[..], b"/c", br"/d\", b"/u,p", b"w"]);
        assert_eq!(directories(b"lowerdir+", br"/a\:b:c"), [br"/a\:b:c"]);
        assert_eq!(split(b"", b',').count(), 1);
        assert_eq!(unescape(br"\"), b"");
    }
}
