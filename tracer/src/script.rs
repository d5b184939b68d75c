//! What the kernel opens by itself for what is executed: the interpreter that a script's first line names, or an ELF
//! file's program headers. Pure, but for the reader that it is given.

use crate::memory::PATH_MAX;

/// The kernel looks at so many bytes (`include/uapi/linux/binfmts.h`, `BINPRM_BUF_SIZE`).
pub(crate) const HEAD: usize = 256;

/// How often an interpreter may be a script itself (`fs/exec.c`, `exec_binprm`: "This allows 4 levels of binfmt
/// rewrites before failing hard").
pub(crate) const LEVELS: usize = 5;

/// The interpreter that a file's first bytes name, as `fs/binfmt_script.c` finds it.
pub(crate) fn interpreter(head: &[u8]) -> Option<&[u8]> {
    let line = head.strip_prefix(b"#!")?;
    let end = line.iter().position(|&byte| byte == b'\n');
    let line = &line[..end.unwrap_or(line.len())];
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = line.iter().position(|byte| !is_blank(byte))?;
    let line = &line[start..];
    match line.iter().position(|byte| is_blank(byte) || *byte == 0) {
        Some(0) => None,
        Some(length) => Some(&line[..length]),
        // A name that does not end within the head may be cut off: the kernel then refuses the file.
        None if end.is_none() && head.len() == HEAD => None,
        None => Some(line),
    }
}

// `e_machine` of `elf(5)`.
const EM_386: u16 = 3;
const EM_486: u16 = 6;
const EM_ARM: u16 = 40;
const EM_X86_64: u16 = 62;
const EM_AARCH64: u16 = 183;

/// Reads at an offset into a buffer; `None` if that is not all there.
pub(crate) type Reader<'a> = dyn Fn(u64, &mut [u8]) -> Option<()> + 'a;

/// The interpreter that an ELF file names (`elf(5)`, `PT_INTERP`), as `fs/binfmt_elf.c` reads it: of at most `PATH_MAX`
/// bytes, with a NUL at its end. `None` for any other file, one without an interpreter, and a damaged one.
pub(crate) fn elf_interpreter(read: &Reader<'_>) -> Option<Vec<u8>> {
    const PT_INTERP: u64 = 3;
    // The kernel asks for the magic and for e_machine, and not what e_ident says of width and byte order: it has the machine's.
    let mut head = [0; 20];
    read(0, &mut head)?;
    if !head.starts_with(b"\x7fELF") {
        return None;
    }
    let is_64 = match u16::from_ne_bytes([head[18], head[19]]) {
        EM_X86_64 | EM_AARCH64 => true,
        EM_386 | EM_486 | EM_ARM => false,
        // Another machine's is refused, or a handler runs it.
        _ => return None,
    };
    let number = |bytes: &[u8]| {
        let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        if cfg!(target_endian = "little") { bytes.iter().rev().fold(0, add) } else { bytes.iter().fold(0, add) }
    };
    let at = |offset: u64, length: usize| {
        let mut bytes = [0; 8];
        read(offset, &mut bytes[..length])?;
        Some(number(&bytes[..length]))
    };
    // e_phoff, e_phentsize and e_phnum; then of each header its p_type, p_offset and p_filesz.
    let (table, size, count) =
        if is_64 { (at(32, 8)?, at(54, 2)?, at(56, 2)?) } else { (at(28, 4)?, at(42, 2)?, at(44, 2)?) };
    let (offset, length, width) = if is_64 { (8, 32, 8) } else { (4, 16, 4) };
    for index in 0..count {
        let header = table.checked_add(index * size)?;
        if at(header, 4)? != PT_INTERP {
            continue;
        }
        let (start, length) = (at(header.checked_add(offset)?, width)?, at(header.checked_add(length)?, width)?);
        let length = usize::try_from(length).ok().filter(|length| (2..=PATH_MAX).contains(length))?;
        let mut name = vec![0; length];
        read(start, &mut name)?;
        return (name.pop() == Some(0)).then(|| name.split(|&byte| byte == 0).next().map(<[u8]>::to_vec)).flatten();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elf_files() {
        let interpreter = |bytes: &[u8]| {
            elf_interpreter(&|offset, buffer| {
                let start = usize::try_from(offset).ok()?;
                buffer.copy_from_slice(bytes.get(start..start.checked_add(buffer.len())?)?);
                Some(())
            })
        };
        let shell = fs_err::read("/bin/sh").unwrap();
        let named = interpreter(&shell).expect("it is linked dynamically");
        assert!(named.starts_with(b"/lib") && std::path::Path::new(std::str::from_utf8(&named).unwrap()).exists());
        // What the kernel does not look at.
        let mut odd = shell.clone();
        odd[4..6].copy_from_slice(&[0, 7]);
        assert_eq!(interpreter(&odd), interpreter(&shell));
        for length in (0..400).chain([shell.len() / 2]) {
            let _ = interpreter(&shell[..length]);
        }
        for at in 0..400 {
            let mut damaged = shell.clone();
            damaged[at] ^= 0xff;
            let _ = interpreter(&damaged);
        }
        assert_eq!(interpreter(b"#!/bin/sh\n"), None);
        assert_eq!(interpreter(b"\x7fELF\x02\x01"), None);
    }

    #[test]
    fn lines() {
        assert_eq!(interpreter(b"#!/bin/sh\n"), Some(&b"/bin/sh"[..]));
        assert_eq!(interpreter(b"#! \t/usr/bin/env python3\nx"), Some(&b"/usr/bin/env"[..]));
        assert_eq!(interpreter(b"#!/bin/sh"), Some(&b"/bin/sh"[..]));
        assert_eq!(interpreter(b"#!/bin/sh\r\n"), Some(&b"/bin/sh\r"[..]));
        assert_eq!(interpreter(b"#!relative x"), Some(&b"relative"[..]));
        assert_eq!(interpreter(b"#!\n"), None);
        assert_eq!(interpreter(b"#!  "), None);
        assert_eq!(interpreter(b"#! \0x\n"), None);
        assert_eq!(interpreter(b"\x7fELF"), None);
        assert_eq!(interpreter(b""), None);
        let long = [b"#!/", &[b'x'; HEAD][..]].concat();
        assert_eq!(interpreter(&long[..HEAD]), None);
    }
}
