//! Which machine a program is for, and whether this one may run it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use minjail_tracer::Handler;

use crate::files::interpreter;
use crate::path::{Facts, JailPath};
use crate::root::Root;

/// How many interpreters may stand in a row (`fs/exec.c`, `exec_binprm`).
const LEVELS: usize = 5;

/// The kernel's name for this machine (`uname(2)`).
pub(super) fn machine() -> String {
    nix::sys::utsname::uname().map_or_else(|_| String::new(), |name| name.machine().to_string_lossy().into_owned())
}

/// `uname -m` as GOARCH spells it (OCI image-spec, config.md, "architecture").
pub(super) fn architecture(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "i386" | "i486" | "i586" | "i686" => "386",
        "loongarch64" => "loong64",
        "mipsel" => "mipsle",
        "mips64el" => "mips64le",
        arm if arm.starts_with("armv") => "arm",
        other => other,
    }
}

/// The architecture of an image that starts `program`, which ran on `machine`: that of the machine, unless an emulator ran it.
pub(super) fn architecture_of(program: &JailPath, root: &Root, machine: &str) -> String {
    let own = architecture(machine);
    let other = started_by(program, root).and_then(Kind::machine).map(architecture);
    other.filter(|other| !runs(own, other)).unwrap_or(own).to_owned()
}

/// True if machines of the first architecture run programs for the second, too.
fn runs(own: &str, other: &str) -> bool {
    own == other || matches!((own, other), ("amd64", "386") | ("arm64", "arm"))
}

/// What starts `program` in the end; `None` if that cannot be told.
pub(super) fn started_by(program: &JailPath, root: &Root) -> Option<Kind> {
    let mut spelled = program.as_bytes().to_vec();
    for _ in 0..=LEVELS {
        let walk = root.resolve(&JailPath::root(), &spelled, true).ok()?;
        walk.facts.filter(Facts::is_file)?;
        let head = head(&root.open_file(&walk.end).ok()?)?;
        match Kind::of(&head) {
            Some(kind) => return Some(kind),
            None => spelled = interpreter(&head)?.to_vec(),
        }
    }
    None
}

/// What the kernel looks at first (`execve(2)`).
pub(super) fn head(file: &File) -> Option<Vec<u8>> {
    let mut head = vec![0; 255];
    let read = file.read_at(&mut head, 0).ok()?;
    head.truncate(read);
    Some(head)
}

/// For which machine an ELF file is, as its header says (`elf(5)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    is_wide: bool,
    is_little_endian: bool,
    /// `e_machine`, as numbered in `elf.h`.
    number: u16,
}

impl Kind {
    /// By its first bytes. `None` for what is no ELF file.
    pub(super) fn of(head: &[u8]) -> Option<Self> {
        let [b'\x7f', b'E', b'L', b'F', class, data, _rest @ ..] = head else { return None };
        let number = head.get(18..20)?.try_into().ok()?;
        let is_little_endian = *data == 1;
        let number = if is_little_endian { u16::from_le_bytes(number) } else { u16::from_be_bytes(number) };
        Some(Self { is_wide: *class == 2, is_little_endian, number })
    }

    /// True if this machine's own kernel may run it without help.
    pub(super) fn is_own(self) -> bool {
        self.machine().map(architecture).is_some_and(is_own)
    }

    /// The machine for messages.
    pub(super) fn name(self) -> &'static str {
        self.machine().unwrap_or("another kind of machine")
    }

    /// As `uname -m` says it there.
    fn machine(self) -> Option<&'static str> {
        let name = match (self.number, self.is_wide, self.is_little_endian) {
            (3, ..) => "i686",
            (8, false, false) => "mips",
            (8, false, true) => "mipsel",
            (8, true, false) => "mips64",
            (8, true, true) => "mips64el",
            (20, ..) => "ppc",
            (21, _, false) => "ppc64",
            (21, _, true) => "ppc64le",
            (22, false, _) => "s390",
            (22, true, _) => "s390x",
            (40, ..) => "armv7l",
            (62, ..) => "x86_64",
            (183, ..) => "aarch64",
            (243, false, _) => "riscv32",
            (243, true, _) => "riscv64",
            (258, ..) => "loongarch64",
            _ => return None,
        };
        Some(name)
    }

    /// False if it is known that no emulator is registered for it.
    pub(super) fn may_be_emulated(self) -> bool {
        emulators().is_none_or(|mut kinds| kinds.any(|kind| kind == self))
    }
}

/// The machine that the file at `path` is for, if this one does not run it.
pub(super) fn foreign(path: &Path) -> Option<&'static str> {
    let file = fs_err::File::open(path).ok()?.into_parts().0;
    Kind::of(&head(&file)?).filter(|kind| !kind.is_own()).map(Kind::name)
}

/// True if this machine's own kernel runs programs for this architecture without help.
pub(super) fn is_own(other: &str) -> bool {
    runs(architecture(&machine()), other)
}

/// False if it is known that nothing here runs programs for this architecture.
pub(super) fn may_run(other: &str) -> bool {
    let is_it = |kind: Kind| kind.machine().map(architecture) == Some(other);
    is_own(other) || emulators().is_none_or(|mut kinds| kinds.any(is_it))
}

/// What emulators are registered for; `None` where that cannot be told.
fn emulators() -> Option<impl Iterator<Item = Kind>> {
    Some(Handler::all()?.into_iter().filter_map(|handler| Kind::of(&handler.magic)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn elf(class: u8, data: u8, number: u16) -> Vec<u8> {
        let number = if data == 1 { number.to_le_bytes() } else { number.to_be_bytes() };
        [&b"\x7fELF"[..], &[class, data, 1], &[0; 9], &[2, 0], &number, &[0; 44]].concat()
    }

    #[test]
    fn a_header_names_its_machine() {
        for (head, name, architecture_) in [
            (elf(2, 1, 62), "x86_64", "amd64"),
            (elf(1, 1, 3), "i686", "386"),
            (elf(2, 1, 183), "aarch64", "arm64"),
            (elf(1, 1, 40), "armv7l", "arm"),
            (elf(2, 2, 22), "s390x", "s390x"),
            (elf(2, 1, 21), "ppc64le", "ppc64le"),
            (elf(2, 2, 21), "ppc64", "ppc64"),
            (elf(2, 1, 243), "riscv64", "riscv64"),
            (elf(2, 1, 258), "loongarch64", "loong64"),
            (elf(2, 1, 8), "mips64el", "mips64le"),
        ] {
            let kind = Kind::of(&head).unwrap();
            assert_eq!((kind.name(), architecture(kind.name())), (name, architecture_));
        }
        assert_eq!(Kind::of(&elf(2, 1, 9999)).unwrap().name(), "another kind of machine");
        for none in [&b"#!/bin/sh\n"[..], b"\x7fELF", b"", &elf(2, 1, 62)[..19]] {
            assert_eq!(Kind::of(none), None);
        }
    }

    #[test]
    fn an_image_is_for_the_machine_that_its_program_is_for() {
        let directory = tempfile::tempdir().unwrap();
        let put = |name: &str, content: &[u8]| fs_err::write(directory.path().join(name), content).unwrap();
        put("arm64", &elf(2, 1, 183));
        put("i386", &elf(1, 1, 3));
        put("script", b"#!/link\n");
        put("circle", b"#! /circle\n");
        put("text", b"text");
        symlink("/arm64", directory.path().join("link")).unwrap();
        let root = Root::open(directory.path()).unwrap();
        for (program, on_amd64, on_arm64) in [
            (&b"/arm64"[..], "arm64", "arm64"),
            (b"/script", "arm64", "arm64"),
            (b"/i386", "amd64", "386"),
            (b"/circle", "amd64", "arm64"),
            (b"/text", "amd64", "arm64"),
            (b"/none", "amd64", "arm64"),
        ] {
            let of = |machine| architecture_of(&JailPath::literal(program), &root, machine);
            assert_eq!([of("x86_64"), of("aarch64")], [on_amd64, on_arm64], "{program:?}");
        }
    }
}
