//! The headers and the dynamic section of an ELF file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use aho_corasick::AhoCorasick;
use goblin::container::Ctx;
use goblin::elf::dynamic::{self, Dyn, Dynamic};
use goblin::elf::header::{self, Header};
use goblin::elf::program_header::{self, ProgramHeader};

/// What an ELF file says of itself, as far as a loader cares. Names are bytes, as they stand in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "they are flags of the file, each on its own")]
pub struct Elf {
    pub class: Class,
    /// `e_machine`, as numbered in `elf.h`.
    pub machine: u16,
    pub little_endian: bool,
    pub kind: Kind,
    /// The loader that the kernel is to start (`PT_INTERP`).
    pub interpreter: Option<Vec<u8>>,
    /// Has a dynamic section.
    pub dynamic: bool,
    /// `DT_NEEDED`, in order.
    pub needed: Vec<Vec<u8>>,
    pub rpath: Option<Vec<u8>>,
    pub runpath: Option<Vec<u8>>,
    pub soname: Option<Vec<u8>>,
    /// `DT_AUDIT` and `DT_DEPAUDIT`: colon-separated lists.
    pub audit: Vec<Vec<u8>>,
    /// `DT_FILTER`: must be found.
    pub filter: Vec<Vec<u8>>,
    /// `DT_AUXILIARY`: used if found.
    pub auxiliary: Vec<Vec<u8>>,
    /// `DF_1_NODEFLIB`: default directories are not searched.
    pub no_default_libraries: bool,
    /// `DF_1_PIE`: a program, though [`Kind::Shared`].
    pub pie: bool,
}

/// The size of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    Bits32,
    Bits64,
}

/// `e_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// At a fixed address (`ET_EXEC`).
    Executable,
    /// A library, or a program that can stand anywhere (`ET_DYN`).
    Shared,
    /// Not linked yet (`ET_REL`): a `.o` or a kernel module.
    Relocatable,
    /// A core dump or something stranger.
    Other,
}

/// Why some bytes are not a usable ELF file.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    #[error("not an ELF file")]
    NotElf,
    #[error("broken ELF file: {0}")]
    Bad(&'static str),
    #[error("unreadable ELF header")]
    Header(#[from] goblin::error::Error),
    #[error("failed to read")]
    Read(#[from] io::Error),
}

impl Elf {
    /// True if the kernel starts it without a loader, and nothing needs to be found for it.
    pub fn is_static(&self) -> bool {
        self.interpreter.is_none() && (!self.dynamic || (self.needed.is_empty() && self.pie))
    }
}

/// Reads an ELF file that is in memory.
///
/// # Errors
/// The bytes do not begin as an ELF file does, or what a loader needs of it lies outside the file or is absurdly large.
pub fn read(bytes: &[u8]) -> Result<Elf, ElfError> {
    read_from(bytes)
}

/// Reads an ELF file, of which only the few kilobytes that matter.
///
/// # Errors
/// As [`read`], or the file cannot be read.
pub fn read_file(file: &File) -> Result<Elf, ElfError> {
    read_from(file)
}

/// True if one of `names` is in the dynamic string table: the file defines or uses a symbol of that name, or has it as
/// another name that a loader reads.
///
/// # Errors
/// As [`read_file`].
pub fn mentions(file: &File, names: &[&str]) -> Result<bool, ElfError> {
    let start = file.at(0, 64)?;
    if !start.starts_with(header::ELFMAG) {
        return Err(ElfError::NotElf);
    }
    let header = goblin::elf::Elf::parse_header(&start)?;
    let ctx = Ctx::new(header.container()?, header.endianness()?);
    let segments = program_headers(file, &header, ctx)?;
    let Some(dynamic) = segments.iter().find(|segment| segment.p_type == program_header::PT_DYNAMIC) else {
        return Ok(false);
    };
    let (_, names_of) = dynamic_section(file, &segments, dynamic, ctx)?;
    let Some(table) = names_of.table else { return Ok(false) };
    let names = names.iter().map(|name| format!("\0{name}\0"));
    let names = AhoCorasick::new(names).expect("a few short patterns");
    let table = Table { file, at: table, left: names_of.size };
    names.stream_find_iter(table).next().transpose().map(|found| found.is_some()).map_err(ElfError::from)
}

/// A part of a file, as a stream.
struct Table<'file> {
    file: &'file File,
    at: u64,
    left: u64,
}

impl io::Read for Table<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let found = self.file.at(self.at, length)?;
        buffer[..found.len()].copy_from_slice(&found);
        self.at += found.len() as u64;
        self.left -= found.len() as u64;
        Ok(found.len())
    }
}

/// Bytes that can be read anywhere.
trait Bytes {
    /// Up to `length` bytes from `offset`; fewer only where the bytes end.
    fn at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>>;
}

impl Bytes for [u8] {
    fn at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default();
        Ok(rest[..length.min(rest.len())].to_vec())
    }
}

impl Bytes for File {
    fn at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let mut filled = 0;
        while filled < length {
            // Offsets beyond what `pread(2)` takes are beyond every file.
            let Some(offset) = offset.checked_add(filled as u64).filter(|&offset| i64::try_from(offset).is_ok()) else {
                break;
            };
            match self.read_at(&mut bytes[filled..], offset) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }
}

/// `elf.h`; goblin does not name them.
const DT_AUXILIARY: u64 = 0x7fff_fffd;
const DT_FILTER: u64 = 0x7fff_ffff;
/// The kernel takes no more program headers than fit here (`fs/binfmt_elf.c`, `load_elf_phdrs`).
const MAX_PROGRAM_HEADERS: usize = 65_536;
/// The kernel takes no longer interpreter (`fs/binfmt_elf.c`, `load_elf_binary`).
const MAX_INTERPRETER: u64 = 4096;
/// 65,536 entries; the largest seen in a distribution has a few hundred.
const MAX_DYNAMIC: u64 = 1 << 20;
/// Bound on all names of one file taken together.
const MAX_NAMES: usize = 1 << 20;

fn read_from<B: Bytes + ?Sized>(bytes: &B) -> Result<Elf, ElfError> {
    let start = bytes.at(0, 64)?;
    if !start.starts_with(header::ELFMAG) {
        return Err(ElfError::NotElf);
    }
    let header = goblin::elf::Elf::parse_header(&start)?;
    let ctx = Ctx::new(header.container()?, header.endianness()?);
    let segments = program_headers(bytes, &header, ctx)?;
    let mut elf = Elf {
        class: if ctx.is_big() { Class::Bits64 } else { Class::Bits32 },
        machine: header.e_machine,
        little_endian: ctx.is_little_endian(),
        kind: match header.e_type {
            header::ET_EXEC => Kind::Executable,
            header::ET_DYN => Kind::Shared,
            header::ET_REL => Kind::Relocatable,
            _ => Kind::Other,
        },
        interpreter: interpreter(bytes, &segments)?,
        dynamic: false,
        needed: Vec::new(),
        rpath: None,
        runpath: None,
        soname: None,
        audit: Vec::new(),
        filter: Vec::new(),
        auxiliary: Vec::new(),
        no_default_libraries: false,
        pie: false,
    };
    if let Some(segment) = segments.iter().find(|segment| segment.p_type == program_header::PT_DYNAMIC) {
        elf.dynamic = true;
        read_dynamic(&mut elf, bytes, &segments, segment, ctx)?;
    }
    Ok(elf)
}

fn program_headers<B: Bytes + ?Sized>(bytes: &B, header: &Header, ctx: Ctx) -> Result<Vec<ProgramHeader>, ElfError> {
    let count = usize::from(header.e_phnum);
    if count == 0 {
        return Ok(Vec::new());
    }
    if usize::from(header.e_phentsize) != ProgramHeader::size(ctx) {
        return Err(ElfError::Bad("program headers of an unknown size"));
    }
    let length = count * ProgramHeader::size(ctx);
    if length > MAX_PROGRAM_HEADERS {
        return Err(ElfError::Bad("too many program headers"));
    }
    let table = exactly(bytes, header.e_phoff, length, "program headers outside the file")?;
    Ok(ProgramHeader::parse(&table, 0, count, ctx)?)
}

fn interpreter<B: Bytes + ?Sized>(bytes: &B, segments: &[ProgramHeader]) -> Result<Option<Vec<u8>>, ElfError> {
    let Some(segment) = segments.iter().find(|segment| segment.p_type == program_header::PT_INTERP) else {
        return Ok(None);
    };
    if !(2..=MAX_INTERPRETER).contains(&segment.p_filesz) {
        return Err(ElfError::Bad("interpreter of an impossible length"));
    }
    let length = usize::try_from(segment.p_filesz).expect("checked to be at most 4096");
    let mut text = exactly(bytes, segment.p_offset, length, "interpreter outside the file")?;
    match text.iter().position(|&byte| byte == 0) {
        Some(end) if end > 0 => text.truncate(end),
        _ => return Err(ElfError::Bad("interpreter without an end")),
    }
    Ok(Some(text))
}

fn read_dynamic<B: Bytes + ?Sized>(
    elf: &mut Elf,
    bytes: &B,
    segments: &[ProgramHeader],
    segment: &ProgramHeader,
    ctx: Ctx,
) -> Result<(), ElfError> {
    let (entries, mut names) = dynamic_section(bytes, segments, segment, ctx)?;
    for entry in &entries {
        let mut name = || names.get(entry.d_val);
        match entry.d_tag {
            dynamic::DT_NEEDED => elf.needed.push(name()?),
            dynamic::DT_RPATH => elf.rpath = Some(name()?),
            dynamic::DT_RUNPATH => elf.runpath = Some(name()?),
            dynamic::DT_SONAME => elf.soname = Some(name()?),
            dynamic::DT_AUDIT | dynamic::DT_DEPAUDIT => elf.audit.push(name()?),
            DT_FILTER => elf.filter.push(name()?),
            DT_AUXILIARY => elf.auxiliary.push(name()?),
            dynamic::DT_FLAGS_1 => {
                elf.no_default_libraries = entry.d_val & dynamic::DF_1_NODEFLIB != 0;
                elf.pie = entry.d_val & dynamic::DF_1_PIE != 0;
            }
            _ => {}
        }
    }
    Ok(())
}

/// The entries of the dynamic section in `segment`, and the names that they point to.
fn dynamic_section<'bytes, B: Bytes + ?Sized>(
    bytes: &'bytes B,
    segments: &[ProgramHeader],
    segment: &ProgramHeader,
    ctx: Ctx,
) -> Result<(Vec<Dyn>, Names<'bytes, B>), ElfError> {
    if segment.p_filesz > MAX_DYNAMIC {
        return Err(ElfError::Bad("dynamic section too large"));
    }
    let length = usize::try_from(segment.p_filesz).expect("checked to be at most 1 MiB");
    let section = exactly(bytes, segment.p_offset, length, "dynamic section outside the file")?;
    let mut here = segment.clone();
    here.p_offset = 0;
    let entries = Dynamic::parse(&section, &[here], ctx)?.map(|dynamic| dynamic.dyns).unwrap_or_default();
    let value = |tag| entries.iter().find(|entry| entry.d_tag == tag).map(|entry| entry.d_val);
    let table = value(dynamic::DT_STRTAB).and_then(|address| file_offset(segments, address));
    let names = Names { bytes, table, size: value(dynamic::DT_STRSZ).unwrap_or(0), left: MAX_NAMES };
    Ok((entries, names))
}

/// The dynamic string table, read a name at a time: that of a C++ library can be many megabytes.
struct Names<'bytes, B: Bytes + ?Sized> {
    bytes: &'bytes B,
    table: Option<u64>,
    size: u64,
    left: usize,
}

impl<B: Bytes + ?Sized> Names<'_, B> {
    fn get(&mut self, at: u64) -> Result<Vec<u8>, ElfError> {
        let outside = || ElfError::Bad("name outside the string table");
        let table = self.table.filter(|_| at < self.size).ok_or_else(outside)?;
        let start = table.checked_add(at).ok_or_else(outside)?;
        let rest = usize::try_from(self.size - at).unwrap_or(usize::MAX);
        let mut piece = 256;
        loop {
            let mut name = self.bytes.at(start, piece.min(rest))?;
            if let Some(end) = name.iter().position(|&byte| byte == 0) {
                name.truncate(end);
                self.left = self.left.checked_sub(end).ok_or(ElfError::Bad("names too long"))?;
                return Ok(name);
            }
            if name.len() < piece {
                return Err(outside());
            }
            piece *= 4;
            if piece > self.left {
                return Err(ElfError::Bad("names too long"));
            }
        }
    }
}

/// Where in the file the byte is that a loader maps at `address`.
fn file_offset(segments: &[ProgramHeader], address: u64) -> Option<u64> {
    let loaded = segments.iter().filter(|segment| segment.p_type == program_header::PT_LOAD);
    loaded.filter_map(|segment| Some((segment, address.checked_sub(segment.p_vaddr)?))).find_map(
        |(segment, distance)| {
            if distance < segment.p_filesz { segment.p_offset.checked_add(distance) } else { None }
        },
    )
}

fn exactly<B: Bytes + ?Sized>(
    bytes: &B,
    offset: u64,
    length: usize,
    outside: &'static str,
) -> Result<Vec<u8>, ElfError> {
    let found = bytes.at(offset, length)?;
    if found.len() == length { Ok(found) } else { Err(ElfError::Bad(outside)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn own_bytes() -> Vec<u8> {
        let mut bytes = fs_err::read("/proc/self/exe").unwrap();
        bytes.truncate(1 << 20);
        bytes
    }

    #[test]
    fn reads_this_program() {
        let file = fs_err::File::open("/proc/self/exe").unwrap();
        let elf = read_file(file.file()).unwrap();
        assert_eq!(elf.kind, Kind::Shared);
        assert!(elf.pie && elf.dynamic && !elf.is_static());
        assert!(elf.interpreter.unwrap().starts_with(b"/lib"));
        assert!(elf.needed.contains(&b"libc.so.6".to_vec()));
        assert_eq!(elf.soname, None);
    }

    #[test]
    fn names_that_a_file_shares() {
        let file = fs_err::File::open("/proc/self/exe").unwrap();
        assert!(mentions(file.file(), &["no_such_function", "abort"]).unwrap());
        // A part of a name is none, and what is only in the text is none either.
        assert!(!mentions(file.file(), &["abor", "names_that_a_file_shares"]).unwrap());
        let script = fs_err::File::open("/etc/passwd").unwrap();
        assert!(matches!(mentions(script.file(), &["abort"]), Err(ElfError::NotElf)));
    }

    #[test]
    fn what_is_no_elf_file() {
        assert!(matches!(read(b"#!/bin/sh\n"), Err(ElfError::NotElf)));
        assert!(matches!(read(b""), Err(ElfError::NotElf)));
        assert!(matches!(read(b"\x7fELF"), Err(ElfError::Header(_))));
    }

    #[test]
    fn a_cut_file_is_refused() {
        let bytes = own_bytes();
        assert!(matches!(read(&bytes[..100]), Err(ElfError::Bad("program headers outside the file"))));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Bytes are changed where it hurts: in the headers, and in the dynamic section.
        #[test]
        fn broken_files_never_panic(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
                                    length in any::<prop::sample::Index>(), cut: bool) {
            thread_local!(static BYTES: Vec<u8> = own_bytes());
            let mut bytes = BYTES.with(Clone::clone);
            bytes.truncate(65_536);
            for (index, byte) in changes {
                let at = index.index(1200);
                bytes[at] = byte;
            }
            if cut {
                bytes.truncate(length.index(65_536));
            }
            let _ = read(&bytes);
        }

        #[test]
        fn broken_dynamic_sections_never_panic(changes in proptest::collection::vec((0usize..1024, any::<u8>()), 1..24)) {
            thread_local!(static SMALL: Vec<u8> = fs_err::read("/bin/true").unwrap());
            let mut bytes = SMALL.with(Clone::clone);
            let header = goblin::elf::Elf::parse_header(&bytes).unwrap();
            let ctx = Ctx::new(header.container().unwrap(), header.endianness().unwrap());
            let segments = program_headers(bytes.as_slice(), &header, ctx).unwrap();
            let dynamic = segments.iter().find(|segment| segment.p_type == program_header::PT_DYNAMIC).unwrap();
            let (start, size) = (usize::try_from(dynamic.p_offset).unwrap(), usize::try_from(dynamic.p_filesz).unwrap());
            for (index, byte) in changes {
                bytes[start + index % size] = byte;
            }
            let _ = read(&bytes);
        }
    }
}
