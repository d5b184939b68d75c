//! `/etc/ld.so.cache`: read, cut down, and written, in the format `glibc-ld.so.cache1.1`.
//!
//! The format is that of glibc 2.36, `sysdeps/generic/dl-cache.h`: a header of 48 bytes, entries of 24 bytes, strings,
//! and an extension directory with, among others, the names of `glibc-hwcaps` subdirectories. A file that begins with
//! the older `ld.so-1.7.0` table mostly has the same behind it; one without is read, too. Big-endian caches are refused: no machine that minjail makes
//! images for has them.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// The contents of an `ld.so.cache`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LdCache {
    /// In the order in which the loader's binary search expects them.
    entries: Vec<CacheEntry>,
}

/// One library in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheEntry {
    /// What programs need it as.
    pub soname: Vec<u8>,
    /// Where it is.
    pub path: Vec<u8>,
    /// For which machine and C library, in `ldconfig`'s numbers.
    pub flags: u32,
    /// The oldest kernel that it runs on, as older versions of `ldconfig` recorded it.
    pub os_version: u32,
    /// Which processors it is for: 0 for all.
    pub hwcap: u64,
    /// The `glibc-hwcaps` subdirectory that it is from.
    pub subdirectory: Option<Vec<u8>>,
}

/// Why some bytes are not an `ld.so.cache`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CacheError {
    #[error("no cache of the formats `glibc-ld.so.cache1.1` and `ld.so-1.7.0`")]
    Format,
    #[error("a big-endian cache")]
    BigEndian,
    #[error("cut short")]
    Short,
    #[error("a string outside the file")]
    String,
    #[error("larger than four gigabytes")]
    Large,
}

const MAGIC: &[u8; 20] = b"glibc-ld.so.cache1.1";
const OLD_MAGIC: &[u8; 11] = b"ld.so-1.7.0";
const HEADER: usize = 48;
const ENTRY: usize = 24;
/// `CACHE_FILE_NEW_FLAGS_ENDIAN_*`.
const LITTLE: u8 = 2;
const BIG: u8 = 3;
/// `cache_extension_magic`.
const EXTENSION_MAGIC: u32 = 0xEAA4_2174;
const TAG_HWCAPS: u32 = 1;
/// `DL_CACHE_HWCAP_EXTENSION`: the lower half of `hwcap` is an index into the names of subdirectories.
const HWCAP_EXTENSION: u64 = 1 << 62;
/// `DL_CACHE_HWCAP_ISA_LEVEL_MASK`, which newer versions keep beside that bit, and the lower half.
const HWCAP_ISA_AND_INDEX: u64 = (0x3ff << 32) | 0xffff_ffff;

impl LdCache {
    /// A cache of `entries`, brought into order. Of entries that the loader cannot tell apart, the earlier goes first.
    pub fn new(mut entries: Vec<CacheEntry>) -> Self {
        entries.sort_by(as_ldconfig_sorts);
        Self { entries }
    }

    /// Reads a cache.
    ///
    /// # Errors
    /// Another format, or something points outside the file.
    pub fn parse(file: &[u8]) -> Result<Self, CacheError> {
        let whole = file;
        let file = match new_part(whole) {
            Err(CacheError::Format | CacheError::Short) if whole.starts_with(OLD_MAGIC) => return old_part(whole),
            new => new?,
        };
        match file[28] & 3 {
            BIG => return Err(CacheError::BigEndian),
            // Before glibc 2.33 the byte was 0.
            0 | LITTLE => {}
            _ => return Err(CacheError::Format),
        }
        let count = word(file, 20)? as usize;
        let table =
            HEADER..count.checked_mul(ENTRY).and_then(|size| size.checked_add(HEADER)).ok_or(CacheError::Short)?;
        let subdirectories = subdirectories(whole, file)?;
        let entry = |bytes: &[u8]| -> Result<CacheEntry, CacheError> {
            let hwcap = u64::from(word(bytes, 16)?) | u64::from(word(bytes, 20)?) << 32;
            let is_extension = hwcap & !HWCAP_ISA_AND_INDEX == HWCAP_EXTENSION;
            let index = (hwcap & 0xffff_ffff) as usize;
            Ok(CacheEntry {
                soname: string(file, word(bytes, 4)?)?,
                path: string(file, word(bytes, 8)?)?,
                flags: word(bytes, 0)?,
                os_version: word(bytes, 12)?,
                hwcap,
                subdirectory: if is_extension {
                    Some(subdirectories.get(index).ok_or(CacheError::String)?.clone())
                } else {
                    None
                },
            })
        };
        let table = file.get(table).ok_or(CacheError::Short)?;
        bounded(file, table.chunks_exact(ENTRY).map(entry))
    }

    /// The entries, in the file's order.
    pub fn entries(&self) -> &[CacheEntry] {
        &self.entries
    }

    /// The entries for `soname`, found as the loader finds them, in the order of preference.
    pub fn lookup(&self, soname: &[u8]) -> &[CacheEntry] {
        let start = self.entries.partition_point(|entry| compare(&entry.soname, soname) == Ordering::Greater);
        let rest = &self.entries[start..];
        &rest[..rest.iter().take_while(|entry| compare(&entry.soname, soname) == Ordering::Equal).count()]
    }

    /// The cache without the entries whose path `keep` refuses: what to put into an image that has fewer libraries.
    #[must_use]
    pub fn restricted_to(&self, keep: impl Fn(&[u8]) -> bool) -> Self {
        Self { entries: self.entries.iter().filter(|entry| keep(&entry.path)).cloned().collect() }
    }

    /// Writes the cache: the same entries give the same bytes.
    ///
    /// # Errors
    /// Offsets are 32 bits wide.
    pub fn to_bytes(&self) -> Result<Vec<u8>, CacheError> {
        let subdirectories: BTreeSet<&[u8]> =
            self.entries.iter().filter_map(|entry| entry.subdirectory.as_deref()).collect();
        let mut strings =
            Strings { start: HEADER + ENTRY * self.entries.len(), bytes: Vec::new(), at: BTreeMap::new() };
        let mut table = Vec::with_capacity(ENTRY * self.entries.len());
        for entry in &self.entries {
            let index = entry.subdirectory.as_deref().and_then(|name| subdirectories.iter().position(|&it| it == name));
            let hwcap = match index {
                Some(index) => (entry.hwcap & !0xffff_ffff) | HWCAP_EXTENSION | index as u64,
                None => entry.hwcap,
            };
            for word in [entry.flags, strings.add(&entry.soname)?, strings.add(&entry.path)?, entry.os_version] {
                table.extend(word.to_le_bytes());
            }
            table.extend(hwcap.to_le_bytes());
        }
        let names = subdirectories.iter().map(|name| strings.add(name)).collect::<Result<Vec<u32>, _>>()?;
        let strings_length = offset(strings.bytes.len())?;
        let mut tail = strings.bytes;
        let mut extension = 0;
        if !names.is_empty() {
            let end = strings.start + tail.len();
            tail.resize(tail.len() + end.next_multiple_of(4) - end, 0);
            extension = offset(end.next_multiple_of(4))?;
            // One section, behind the directory (8 bytes) and its only entry (16 bytes).
            let content = offset(end.next_multiple_of(4) + 24)?;
            for word in [EXTENSION_MAGIC, 1, TAG_HWCAPS, 0, content, offset(4 * names.len())?].into_iter().chain(names)
            {
                tail.extend(word.to_le_bytes());
            }
        }
        let mut file = MAGIC.to_vec();
        for word in [offset(self.entries.len())?, strings_length, u32::from(LITTLE), extension, 0, 0, 0] {
            file.extend(word.to_le_bytes());
        }
        file.append(&mut table);
        file.append(&mut tail);
        Ok(file)
    }
}

/// The part that all offsets count from: behind an old table, or the whole file.
fn new_part(file: &[u8]) -> Result<&[u8], CacheError> {
    let mut file = file;
    if file.starts_with(OLD_MAGIC) {
        // Header of 16 bytes with the number of entries of 12 bytes, then the new table, aligned to 8.
        let count = word(file, 12)? as usize;
        let end = count.checked_mul(12).and_then(|size| size.checked_add(16 + 7)).ok_or(CacheError::Short)? & !7;
        file = file.get(end..).ok_or(CacheError::Short)?;
    }
    if !file.starts_with(MAGIC) {
        return Err(CacheError::Format);
    }
    if file.len() < HEADER { Err(CacheError::Short) } else { Ok(file) }
}

/// A table of the old form that no new one follows (`ldconfig -c old`): flags, name and path of each entry; the strings lie behind it.
fn old_part(file: &[u8]) -> Result<LdCache, CacheError> {
    let count = word(file, 12)? as usize;
    let end = count.checked_mul(12).and_then(|size| size.checked_add(16)).ok_or(CacheError::Short)?;
    let (table, strings) = (file.get(16..end).ok_or(CacheError::Short)?, &file[end..]);
    let entry = |bytes: &[u8]| {
        let (soname, path) = (string(strings, word(bytes, 4)?)?, string(strings, word(bytes, 8)?)?);
        Ok(CacheEntry { soname, path, flags: word(bytes, 0)?, os_version: 0, hwcap: 0, subdirectory: None })
    };
    bounded(file, table.chunks_exact(12).map(entry))
}

/// The cache of these entries. Strings share their tails, but not so many that reading takes a larger multiple of the file's size.
fn bounded(file: &[u8], entries: impl Iterator<Item = Result<CacheEntry, CacheError>>) -> Result<LdCache, CacheError> {
    const SHARED: usize = 16;
    let mut spent = 0;
    let within = entries.map(|entry| {
        let entry = entry?;
        spent += entry.soname.len() + entry.path.len();
        if spent > SHARED * file.len() { Err(CacheError::String) } else { Ok(entry) }
    });
    Ok(LdCache { entries: within.collect::<Result<_, _>>()? })
}

/// The names of `glibc-hwcaps` subdirectories, from the extension; none if there is no extension. Where that is, and what it has, counts
/// from the start of the file (`sysdeps/generic/dl-cache.h`, `cache_extension_load`), also behind an old table; the strings
/// lie in the new part.
fn subdirectories(file: &[u8], new: &[u8]) -> Result<Vec<Vec<u8>>, CacheError> {
    let at = word(new, 32)? as usize;
    if at == 0 || word(file, at)? != EXTENSION_MAGIC {
        return Ok(Vec::new());
    }
    let sections = file.get(at..).unwrap_or_default().get(8..).unwrap_or_default().chunks_exact(16);
    for section in sections.take(word(file, at + 4)? as usize) {
        if word(section, 0)? == TAG_HWCAPS {
            let (start, size) = (word(section, 8)? as usize, word(section, 12)? as usize);
            let content = start.checked_add(size).and_then(|end| file.get(start..end)).ok_or(CacheError::Short)?;
            return content.chunks_exact(4).map(|name| string(new, word(name, 0)?)).collect();
        }
    }
    Ok(Vec::new())
}

fn word(bytes: &[u8], at: usize) -> Result<u32, CacheError> {
    let word = at.checked_add(4).and_then(|end| bytes.get(at..end)).ok_or(CacheError::Short)?;
    Ok(u32::from_le_bytes(word.try_into().expect("four bytes")))
}

/// Longer than any path that the kernel takes; bounds what a hostile cache can make of overlapping strings.
const MAX_STRING: usize = 4096;

fn string(file: &[u8], at: u32) -> Result<Vec<u8>, CacheError> {
    let rest = file.get(at as usize..).ok_or(CacheError::String)?;
    let end = rest.iter().take(MAX_STRING).position(|&byte| byte == 0).ok_or(CacheError::String)?;
    Ok(rest[..end].to_vec())
}

fn offset(value: usize) -> Result<u32, CacheError> {
    u32::try_from(value).map_err(|_| CacheError::Large)
}

/// A table in which each string stands once.
struct Strings {
    start: usize,
    bytes: Vec<u8>,
    at: BTreeMap<Vec<u8>, u32>,
}

impl Strings {
    fn add(&mut self, text: &[u8]) -> Result<u32, CacheError> {
        if let Some(&at) = self.at.get(text) {
            return Ok(at);
        }
        let at = offset(self.start + self.bytes.len())?;
        self.bytes.extend_from_slice(text);
        self.bytes.push(0);
        self.at.insert(text.to_vec(), at);
        Ok(at)
    }
}

/// The order of `ldconfig` (glibc 2.36, `elf/cache.c`, `compare`): names descending, then flags descending, then
/// `glibc-hwcaps` entries by name before the others.
fn as_ldconfig_sorts(one: &CacheEntry, other: &CacheEntry) -> Ordering {
    compare(&other.soname, &one.soname).then_with(|| other.flags.cmp(&one.flags)).then_with(|| {
        match (&one.subdirectory, &other.subdirectory) {
            (Some(one), Some(other)) => one.cmp(other),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => other.hwcap.cmp(&one.hwcap),
        }
    })
}

/// The loader's own order of names (`elf/dl-cache.c`, `_dl_cache_libcmp`): bytewise, runs of digits as numbers, a digit
/// after anything else.
fn compare(one: &[u8], other: &[u8]) -> Ordering {
    let (mut one, mut other) = (one, other);
    loop {
        match (one.first().copied(), other.first().copied()) {
            (None, None) => return Ordering::Equal,
            (Some(left), Some(right)) if left.is_ascii_digit() && right.is_ascii_digit() => {
                let (left, right) = (number(&mut one), number(&mut other));
                if left != right {
                    return left.cmp(&right);
                }
            }
            (Some(left), _) if left.is_ascii_digit() => return Ordering::Greater,
            (_, Some(right)) if right.is_ascii_digit() => return Ordering::Less,
            (left, right) if left == right => (one, other) = (&one[1..], &other[1..]),
            // `char` is signed where such caches are read: on x86.
            (left, right) => return signed(left).cmp(&signed(right)),
        }
    }
}

fn signed(byte: Option<u8>) -> i8 {
    byte.unwrap_or(0).cast_signed()
}

/// Takes a run of digits. The loader's `int` wraps around.
fn number(text: &mut &[u8]) -> i32 {
    let mut value = 0_i32;
    while let [digit @ b'0'..=b'9', rest @ ..] = text {
        value = value.wrapping_mul(10).wrapping_add(i32::from(digit - b'0'));
        *text = rest;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    fn entry(soname: &str, path: &str, subdirectory: Option<&str>) -> CacheEntry {
        CacheEntry {
            soname: soname.into(),
            path: path.into(),
            flags: 0x303,
            os_version: 0,
            hwcap: if subdirectory.is_some() { HWCAP_EXTENSION } else { 0 },
            subdirectory: subdirectory.map(Into::into),
        }
    }

    fn printed(file: &[u8]) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache");
        fs_err::write(&path, file).unwrap();
        let output = Command::new("/sbin/ldconfig").arg("-p").arg("-C").arg(&path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_inclusive('\n').filter(|line| line.starts_with('\t')).collect()
    }

    #[test]
    fn order_of_names() {
        let mut names = [&b"libz.so.1"[..], b"libb.so.10", b"libb.so.9", b"libb.so", b"lib2.so", b"liba.so"];
        names.sort_by(|one, other| compare(one, other));
        assert_eq!(names, [&b"liba.so"[..], b"libb.so", b"libb.so.9", b"libb.so.10", b"libz.so.1", b"lib2.so"]);
        assert_eq!(compare(b"libx.so.01", b"libx.so.1"), Ordering::Equal);
    }

    #[test]
    fn the_machines_own_cache_survives() {
        let file = fs_err::read("/etc/ld.so.cache").unwrap();
        let cache = LdCache::parse(&file).unwrap();
        assert!(!cache.lookup(b"libc.so.6").is_empty());
        assert_eq!(LdCache::new(cache.entries.clone()), cache, "our order is that of ldconfig");
        let ours = cache.to_bytes().unwrap();
        assert_eq!(LdCache::parse(&ours).unwrap(), cache);
        assert_eq!(printed(&ours), printed(&file));
    }

    #[test]
    fn ldconfig_reads_subdirectories() {
        let cache = LdCache::new(vec![
            entry("liba.so.1", "/lib/liba.so.1", None),
            entry("liba.so.1", "/lib/glibc-hwcaps/x86-64-v3/liba.so.1", Some("x86-64-v3")),
            entry("libb.so.2", "/lib/libb.so.2", None),
        ]);
        let file = cache.to_bytes().unwrap();
        assert_eq!(
            printed(&file),
            "\tlibb.so.2 (libc6,x86-64) => /lib/libb.so.2\n\
             \tliba.so.1 (libc6,x86-64, hwcap: \"x86-64-v3\") => /lib/glibc-hwcaps/x86-64-v3/liba.so.1\n\
             \tliba.so.1 (libc6,x86-64) => /lib/liba.so.1\n"
        );
        assert_eq!(LdCache::parse(&file).unwrap(), cache);
        let fewer = cache.restricted_to(|path| path == b"/lib/libb.so.2");
        assert_eq!(printed(&fewer.to_bytes().unwrap()), "\tlibb.so.2 (libc6,x86-64) => /lib/libb.so.2\n");
    }

    #[test]
    fn what_is_no_cache() {
        assert_eq!(LdCache::parse(b"ELF"), Err(CacheError::Format));
        assert_eq!(LdCache::parse(MAGIC), Err(CacheError::Short));
        let empty = LdCache::default().to_bytes().unwrap();
        assert_eq!(LdCache::parse(&empty), Ok(LdCache::default()));
        assert_eq!(printed(&empty), "");
    }

    #[test]
    fn a_cache_behind_an_old_table() {
        let new = LdCache::new(vec![entry("liba.so.1", "/lib/liba.so.1", None)]);
        let mut file = OLD_MAGIC.to_vec();
        file.resize(12, 0);
        file.extend(1_u32.to_le_bytes());
        file.resize(32, 0);
        file.extend(new.to_bytes().unwrap());
        assert_eq!(LdCache::parse(&file), Ok(new));
    }

    #[test]
    fn every_form_that_ldconfig_writes() {
        let directory = tempfile::tempdir().unwrap();
        let read = |form: &str| {
            let file = directory.path().join(form);
            let status = Command::new("/sbin/ldconfig").args(["-X", "-c", form, "-C"]).arg(&file).status().unwrap();
            assert!(status.success());
            LdCache::parse(&fs_err::read(file).unwrap()).unwrap()
        };
        let new = read("new");
        assert!(!new.lookup(b"libc.so.6").is_empty());
        assert_eq!(read("compat"), new);
        // It knows no names of subdirectories, nor what kernel a library needs.
        let paths = |cache: &LdCache| -> Vec<Vec<u8>> {
            let plain = cache.entries.iter().filter(|entry| entry.hwcap == 0);
            plain.map(|entry| entry.path.clone()).collect()
        };
        assert_eq!(paths(&read("old")), paths(&new));
    }

    proptest! {
        #[test]
        fn broken_caches_never_panic(changes in proptest::collection::vec((0usize..300, any::<u8>()), 0..12), length in 0usize..400) {
            let mut file = LdCache::new(vec![
                entry("liba.so.1", "/lib/liba.so.1", Some("x86-64-v2")),
                entry("libb.so.1", "/lib/libb.so.1", None),
            ]).to_bytes().unwrap();
            for (at, byte) in changes {
                if let Some(place) = file.get_mut(at) {
                    *place = byte;
                }
            }
            file.truncate(length);
            if let Ok(cache) = LdCache::parse(&file) {
                cache.lookup(b"liba.so.1");
            }
        }

        #[test]
        fn what_is_in_is_found(names in proptest::collection::btree_set("lib[a-c0-9.]{0,6}", 1..20)) {
            let entries = names.iter().map(|name| entry(name, &format!("/lib/{name}"), None)).collect();
            let cache = LdCache::parse(&LdCache::new(entries).to_bytes().unwrap()).unwrap();
            for name in &names {
                let path = format!("/lib/{name}").into_bytes();
                prop_assert!(cache.lookup(name.as_bytes()).iter().any(|entry| entry.path == path));
            }
        }
    }
}
