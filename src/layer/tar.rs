//! The bytes of a tar stream: headers, padding, end. Pure.
//!
//! Every entry has one ustar header (POSIX.1-2017, `pax`, "ustar Interchange Format"). Where a value does not fit into
//! it, and only there, a pax extended header with that value stands before it:
//!
//! | value | fits if |
//! |---|---|
//! | path | at most 100 bytes, or cut at a slash into at most 155 and 100 |
//! | link | at most 100 bytes |
//! | owner, group | below 2^21 |
//! | size, time | below 2^33, the time not negative |
//! | extended attributes | never: each is a record `SCHILY.xattr.NAME` |
//!
//! Names are written as the bytes they are. A pax value is UTF-8 by the standard; if a path or link in one is not, the
//! record `hdrcharset=BINARY` says so. The names of owner and group are empty, so that no reader looks them up.
//! Sparse files are written plainly, zeros and all: the several sparse formats are not understood by every runtime.

use std::collections::BTreeMap;

use super::LayerError;
use crate::manifest::{Entry, Kind};
use crate::path::JailPath;

/// Headers and contents start at multiples of this.
pub const BLOCK: usize = 512;

/// What ends an archive: two blocks of zeros.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// How many zeros follow a content of `size` bytes.
pub fn padding(size: u64) -> usize {
    let over = usize::try_from(size % BLOCK as u64).expect("a remainder of 512 is small");
    if over == 0 { 0 } else { BLOCK - over }
}

/// All that stands before the content of `entry`: its header, and an extended header before that if it needs one.
///
/// # Errors
/// A device number or the name of an extended attribute has no form in a tar archive, or the path none in a layer.
pub fn header(entry: &Entry) -> Result<Vec<u8>, LayerError> {
    let unfit = |why: String| LayerError::Unfit { path: entry.path.to_string(), why };
    // OCI image specification, `layer.md`, "Whiteouts": such a name is no file's, and whoever applies the layer makes none.
    if entry.path.file_name().starts_with(b".wh.") {
        return Err(unfit("by a name that begins with `.wh.` a layer says what is not there".to_owned()));
    }
    let mut ustar = Header::new();
    let mut pax = Pax::default();

    let name = name(&entry.path, &entry.kind);
    if !ustar.set_name(&name) {
        pax.set_name("path", &name);
    }
    ustar.octal(MODE, u64::from(entry.mode));
    ustar.number(UID, u64::from(entry.uid), "uid", &mut pax);
    ustar.number(GID, u64::from(entry.gid), "gid", &mut pax);
    match u64::try_from(entry.mtime) {
        Ok(mtime) => ustar.number(MTIME, mtime, "mtime", &mut pax),
        Err(_) => pax.set("mtime", entry.mtime.to_string().as_bytes()),
    }
    ustar.0[TYPE] = match &entry.kind {
        Kind::File { size, .. } => {
            ustar.number(SIZE, *size, "size", &mut pax);
            b'0'
        }
        Kind::HardLink { to } => {
            ustar.link(to.relative().as_os_str().as_encoded_bytes(), &mut pax);
            b'1'
        }
        Kind::Symlink { target } => {
            ustar.link(target, &mut pax);
            b'2'
        }
        Kind::CharDevice { .. } => b'3',
        Kind::BlockDevice { .. } => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    };
    if let Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } = entry.kind {
        if !fits(DEVICE_MAJOR, major) || !fits(DEVICE_MINOR, minor) {
            return Err(unfit(format!("its device number {major}:{minor} is too large")));
        }
        ustar.octal(DEVICE_MAJOR, major);
        ustar.octal(DEVICE_MINOR, minor);
    }
    for (name, value) in &entry.xattrs {
        if name.contains('=') {
            return Err(unfit(format!("the name of its extended attribute `{name}` contains `=`")));
        }
        pax.set(&format!("SCHILY.xattr.{name}"), value);
    }

    let mut bytes = pax.bytes();
    bytes.extend_from_slice(&ustar.sealed());
    Ok(bytes)
}

/// What stands before a plain file, as the archives have it that hold whole images: one block, or three if `large`,
/// as files of 8 GiB and more must be.
///
/// # Panics
/// If `name` does not fit into a ustar header, or `size` needs to be large and is not.
pub fn plain_header(name: &str, size: u64, large: bool) -> Vec<u8> {
    let mut header = Header::new();
    let mut pax = Pax::default();
    assert!(header.set_name(name.as_bytes()), "`{name}` is too long");
    header.octal(MODE, 0o644);
    header.octal(UID, 0);
    header.octal(GID, 0);
    header.0[TYPE] = b'0';
    if large {
        pax.set("size", size.to_string().as_bytes());
    } else {
        assert!(fits(SIZE, size), "a size of {size} needs a large header");
        header.octal(SIZE, size);
    }
    [pax.bytes().as_slice(), &header.sealed()].concat()
}

/// True if a file of `size` bytes needs a large header.
pub fn is_large(size: u64) -> bool {
    !fits(SIZE, size)
}

/// The name in the archive: relative, without a leading `./`, directories with a slash at the end.
fn name(path: &JailPath, kind: &Kind) -> Vec<u8> {
    let mut name = path.relative().as_os_str().as_encoded_bytes().to_vec();
    if *kind == Kind::Directory {
        name.push(b'/');
    }
    name
}

/// Where a field stands in a header, and how long it is.
type Field = (usize, usize);

const NAME: Field = (0, 100);
const MODE: Field = (100, 8);
const UID: Field = (108, 8);
const GID: Field = (116, 8);
const SIZE: Field = (124, 12);
const MTIME: Field = (136, 12);
const CHECKSUM: Field = (148, 8);
const TYPE: usize = 156;
const LINK: Field = (157, 100);
const MAGIC: Field = (257, 8);
const DEVICE_MAJOR: Field = (329, 8);
const DEVICE_MINOR: Field = (337, 8);
const PREFIX: Field = (345, 155);

/// True if `value` can be written in octal, with a NUL behind it.
fn fits((_, length): Field, value: u64) -> bool {
    value < 1 << (3 * (length - 1))
}

/// A ustar header.
struct Header([u8; BLOCK]);

impl Header {
    fn new() -> Self {
        let mut header = Self([0; BLOCK]);
        header.put(MAGIC, b"ustar\x0000");
        header.octal(SIZE, 0);
        header.octal(MTIME, 0);
        header.octal(DEVICE_MAJOR, 0);
        header.octal(DEVICE_MINOR, 0);
        header
    }

    fn put(&mut self, (start, length): Field, bytes: &[u8]) {
        let count = bytes.len().min(length);
        self.0[start..start + count].copy_from_slice(&bytes[..count]);
    }

    fn octal(&mut self, field: Field, value: u64) {
        let digits = field.1 - 1;
        self.put(field, format!("{value:0digits$o}").as_bytes());
    }

    /// Writes `value` here if it fits, else zero here and `value` into the extended header.
    fn number(&mut self, field: Field, value: u64, key: &str, pax: &mut Pax) {
        if fits(field, value) {
            self.octal(field, value);
        } else {
            self.octal(field, 0);
            pax.set(key, value.to_string().as_bytes());
        }
    }

    fn link(&mut self, target: &[u8], pax: &mut Pax) {
        self.put(LINK, target);
        if target.len() > LINK.1 {
            pax.set_name("linkpath", target);
        }
    }

    /// Writes `name`, cut at a slash if it must be; false if it does not fit, and then only its beginning is here.
    fn set_name(&mut self, name: &[u8]) -> bool {
        if name.len() <= NAME.1 {
            self.put(NAME, name);
            return true;
        }
        // The first slash that leaves few enough bytes behind it; a slash at the very end leaves none, which is no name.
        let first = name.len() - NAME.1 - 1;
        let cut = (first..name.len() - 1).find(|&at| name[at] == b'/');
        match cut {
            Some(cut) if cut <= PREFIX.1 && cut > 0 => {
                self.put(PREFIX, &name[..cut]);
                self.put(NAME, &name[cut + 1..]);
                true
            }
            _ => {
                self.put(NAME, name);
                false
            }
        }
    }

    /// The header with its checksum: the sum of all bytes, those of the checksum taken as blanks.
    fn sealed(mut self) -> [u8; BLOCK] {
        self.put(CHECKSUM, b"        ");
        let sum: u64 = self.0.iter().map(|&byte| u64::from(byte)).sum();
        self.put(CHECKSUM, format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

/// The records of an extended header, in the order of their keys.
#[derive(Default)]
struct Pax(BTreeMap<String, Vec<u8>>);

impl Pax {
    fn set(&mut self, key: &str, value: &[u8]) {
        self.0.insert(key.to_owned(), value.to_vec());
    }

    fn set_name(&mut self, key: &str, name: &[u8]) {
        self.set(key, name);
        if std::str::from_utf8(name).is_err() {
            self.set("hdrcharset", b"BINARY");
        }
    }

    /// The extended header with its records; nothing if there are none.
    fn bytes(&self) -> Vec<u8> {
        let mut records = Vec::new();
        for (key, value) in &self.0 {
            records.extend_from_slice(&record(key, value));
        }
        if records.is_empty() {
            return records;
        }
        let mut header = Header::new();
        header.put(NAME, b"PaxHeader");
        header.octal(MODE, 0o644);
        header.octal(UID, 0);
        header.octal(GID, 0);
        header.octal(SIZE, records.len() as u64);
        header.0[TYPE] = b'x';
        let mut bytes = header.sealed().to_vec();
        bytes.extend_from_slice(&records);
        bytes.resize(bytes.len() + padding(records.len() as u64), 0);
        bytes
    }
}

/// One record: `LENGTH KEY=VALUE` and a newline, where the length counts itself.
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    let mut record = format!("{length} {key}=").into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(path: &[u8], kind: Kind) -> Entry {
        Entry::new(JailPath::parse(path).unwrap(), kind)
    }

    #[test]
    fn the_root_directory_byte_for_byte() {
        let bytes = header(&entry(b"/", Kind::Directory)).unwrap();
        let mut expected = vec![0; BLOCK];
        for (at, text) in [
            (0, &b"./"[..]),
            (100, b"0000755\x000000000\x000000000\x0000000000000\x0000000000000\x00007342\x00 5"),
            (257, b"ustar\x0000"),
            (329, b"0000000\x000000000"),
        ] {
            expected[at..at + text.len()].copy_from_slice(text);
        }
        assert_eq!(bytes[..], expected[..]);
    }

    #[test]
    fn short_things_need_one_block_and_long_ones_three() {
        let long = [b"/".as_slice(), &[b'n'; 100]].concat();
        assert_eq!(header(&entry(&long, Kind::Fifo)).unwrap().len(), BLOCK);
        let longer = [b"/".as_slice(), &[b'n'; 101]].concat();
        assert_eq!(header(&entry(&longer, Kind::Fifo)).unwrap().len(), 3 * BLOCK);
        // Cut at the slash into prefix and name.
        let cut = [b"/".as_slice(), &[b'd'; 155], b"/", &[b'n'; 100]].concat();
        assert_eq!(header(&entry(&cut, Kind::Fifo)).unwrap().len(), BLOCK);
        assert_eq!(header(&entry(&cut, Kind::Directory)).unwrap().len(), 3 * BLOCK);
    }

    #[test]
    fn a_record_counts_its_own_length() {
        assert_eq!(record("path", b"x"), b"9 path=x\n");
        assert_eq!(record("path", b""), b"8 path=\n");
        assert_eq!(record("k", &[b'v'; 93]).len(), 99);
        assert!(record("k", &[b'v'; 94]).starts_with(b"101 k="));
    }

    #[test]
    fn what_has_no_form_is_refused() {
        let device = entry(b"/dev", Kind::CharDevice { major: 0, minor: 1 << 21 });
        assert!(matches!(header(&device), Err(LayerError::Unfit { .. })));
        let mut file = entry(b"/f", Kind::Fifo);
        file.xattrs.insert("user.a=b".to_owned(), vec![]);
        assert!(matches!(header(&file), Err(LayerError::Unfit { .. })));
        for name in [&b"/d/.wh.f"[..], b"/.wh..wh..opq"] {
            assert!(matches!(header(&entry(name, Kind::Directory)), Err(LayerError::Unfit { .. })));
        }
        assert!(header(&entry(b"/d/.wh", Kind::Fifo)).is_ok());
    }

    proptest! {
        #[test]
        fn a_record_is_as_long_as_it_says(key in "[a-z]{1,8}", length in 0_usize..1200) {
            let record = record(&key, &vec![b'v'; length]);
            let said = record.split(|&byte| byte == b' ').next().unwrap();
            prop_assert_eq!(std::str::from_utf8(said).unwrap().parse::<usize>().unwrap(), record.len());
        }
    }
}
