//! The first line of a script. Pure.

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
        Some(length) => Some(&line[..length]),
        // A name that does not end within the head may be cut off: the kernel then refuses the file.
        None if end.is_none() && head.len() == HEAD => None,
        None => Some(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        assert_eq!(interpreter(b"#!/bin/sh\n"), Some(&b"/bin/sh"[..]));
        assert_eq!(interpreter(b"#! \t/usr/bin/env python3\nx"), Some(&b"/usr/bin/env"[..]));
        assert_eq!(interpreter(b"#!/bin/sh"), Some(&b"/bin/sh"[..]));
        assert_eq!(interpreter(b"#!/bin/sh\r\n"), Some(&b"/bin/sh\r"[..]));
        assert_eq!(interpreter(b"#!relative x"), Some(&b"relative"[..]));
        assert_eq!(interpreter(b"#!\n"), None);
        assert_eq!(interpreter(b"#!  "), None);
        assert_eq!(interpreter(b"\x7fELF"), None);
        assert_eq!(interpreter(b""), None);
        let long = [b"#!/", &[b'x'; HEAD][..]].concat();
        assert_eq!(interpreter(&long[..HEAD]), None);
    }
}
