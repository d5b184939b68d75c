//! Reading layers: what tar archives of any tool say, entry by entry.
//!
//! In: a tar stream. Out: [`Member`]s with their names as bytes, and their contents. This room judges no name: `..`,
//! links and whiteouts are the business of whoever unpacks. The headers are parsed by the `tar` crate; extended
//! headers here, since that crate cuts their records at newlines, which paths and attributes may contain.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek};

use tar::{EntryType, Header};

use super::tar::padding;

/// More than any name or set of attributes that Linux allows: names have 4 KiB, an attribute 64 KiB. It bounds what one
/// member's headers say together, and what all global ones do.
const MAX_EXTENSION: u64 = 4 << 20;

/// What starts the keys of extended attributes, and of what GNU tar says of sparse files.
const XATTR: &[u8] = b"SCHILY.xattr.";
const SPARSE: &[u8] = b"GNU.sparse.";

/// What extended headers say, by key.
type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// Why a stream is no tar archive, or none that minjail reads.
#[derive(Debug, thiserror::Error)]
pub enum UntarError {
    #[error("failed to read the archive")]
    Read(#[source] io::Error),
    #[error("the archive is damaged: {0}")]
    Damaged(&'static str),
    #[error("the archive contains {0}, which minjail does not read")]
    Unsupported(&'static str),
}

/// What an archive says of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// As the archive has it.
    pub name: Vec<u8>,
    pub kind: MemberKind,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    /// Seconds since 1970; fractions are cut off.
    pub mtime: i64,
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// Of the content.
    pub size: u64,
    /// Where the content starts in the stream.
    pub offset: u64,
}

/// What kind of node a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberKind {
    Directory,
    File,
    /// The name of another member.
    HardLink(Vec<u8>),
    Symlink(Vec<u8>),
    Fifo,
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
}

/// Reads a tar stream member by member.
#[derive(Debug)]
pub struct Untar<R> {
    reader: R,
    /// How many bytes were read.
    at: u64,
    /// What is left of the present member's content.
    content: u64,
    /// The zeros behind it.
    padding: u64,
    /// How many bytes of records were there that are for all that follows.
    extended: u64,
    /// Nothing so far that readers take in more than one way.
    is_plain: bool,
}

impl<R: Read> Untar<R> {
    pub fn new(reader: R) -> Self {
        Self { reader, at: 0, content: 0, padding: 0, extended: 0, is_plain: true }
    }

    /// The next member; `None` at the end of the archive. What was not read of the present one's content is skipped.
    ///
    /// # Errors
    /// The stream cannot be read, is damaged, or has a member of a kind that no layer has.
    pub fn next_member(&mut self) -> Result<Option<Member>, UntarError> {
        let mut records = Records::new();
        let (mut long_name, mut long_link) = (None, None);
        let mut extended = 0;
        // Of what stands before a member, each kind once: which of two counts is not every reader's same answer.
        let mut before = Vec::new();
        loop {
            self.skip(self.content)?;
            self.content = 0;
            if !self.skip_padding()? {
                return Ok(None);
            }
            let Some(header) = self.header()? else { return Ok(None) };
            let size = numeric(&header.as_old().size).ok_or(UntarError::Damaged("a size is no number"))?;
            let kind = header.entry_type();
            if before.contains(&kind) {
                self.is_plain = false;
            } else {
                before.push(kind);
            }
            match header.entry_type() {
                EntryType::XHeader => {
                    extended = bounded(extended, size)?;
                    // Of two, the later counts alone, as for Go's `archive/tar`, which nearly every engine reads layers with.
                    records = parse_records(&self.extension(size)?)?;
                }
                EntryType::XGlobalHeader => {
                    self.extended = bounded(self.extended, size)?;
                    let parsed = parse_records(&self.extension(size)?)?;
                    // Go's `archive/tar` heeds no global record, and an image is what engines make of it.
                    self.is_plain &= parsed.keys().all(|key| key == b"comment");
                }
                EntryType::GNULongName => long_name = Some(until_nul(self.extension(size)?)),
                EntryType::GNULongLink => long_link = Some(until_nul(self.extension(size)?)),
                _ => return self.member(&header, &records, long_name, long_link).map(Some),
            }
        }
    }

    /// Passes over what is left of the present member's content, without reading it.
    ///
    /// # Errors
    /// The stream cannot be read, or ends.
    pub fn pass_over(&mut self) -> Result<(), UntarError>
    where
        R: Seek,
    {
        // The last byte is read, to see that the stream goes as far.
        let count = (self.content + self.padding).saturating_sub(1);
        let by = i64::try_from(count).map_err(|_| UntarError::Damaged("it ends within a member"))?;
        self.reader.seek_relative(by).map_err(UntarError::Read)?;
        self.at += count;
        let rest = (self.content + self.padding) - count;
        (self.content, self.padding) = (0, 0);
        self.skip(rest)
    }

    /// Reads some of the present member's content; nothing at its end.
    ///
    /// # Errors
    /// The stream cannot be read, or ends.
    pub fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, UntarError> {
        let want = buffer.len().min(usize::try_from(self.content).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let count = self.read(&mut buffer[..want])?;
        self.content -= count as u64;
        Ok(count)
    }

    /// Reads what follows the end of the archive, so that whoever hashes the stream has all of it. The reader, and whether
    /// the whole stream was plain: every reader takes it alike, and nothing but zeros follows its end.
    ///
    /// # Errors
    /// The stream cannot be read.
    pub fn drain(mut self) -> Result<(R, bool), UntarError> {
        let mut buffer = [0; 8192];
        loop {
            match self.reader.read(&mut buffer) {
                Ok(0) => return Ok((self.reader, self.is_plain)),
                Ok(count) => self.is_plain &= buffer[..count].iter().all(|&byte| byte == 0),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(UntarError::Read(error)),
            }
        }
    }

    fn header(&mut self) -> Result<Option<Header>, UntarError> {
        let mut header = Header::new_old();
        let bytes = header.as_mut_bytes();
        let filled = filled(&mut self.reader, bytes).map_err(UntarError::Read)?;
        if filled == 0 {
            // Some writers leave the two blocks of zeros out.
            return Ok(None);
        }
        if filled < bytes.len() {
            return Err(UntarError::Damaged("it ends within a header"));
        }
        self.at += filled as u64;
        if bytes.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let said = header.cksum().ok();
        if !checksums(header.as_bytes()).iter().any(|sum| said.map(i64::from) == Some(*sum)) {
            return Err(UntarError::Damaged("the checksum of a header is wrong"));
        }
        Ok(Some(header))
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, UntarError> {
        bounded(0, size)?;
        let mut bytes = vec![0; usize::try_from(size).expect("it is at most 4 MiB")];
        let mut filled = 0;
        while filled < bytes.len() {
            filled += self.read(&mut bytes[filled..])?;
        }
        self.padding = padding(size) as u64;
        Ok(bytes)
    }

    fn member(
        &mut self,
        header: &Header,
        own: &Records,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Member, UntarError> {
        if starting(own, SPARSE).next().is_some() {
            return Err(UntarError::Unsupported("a sparse file"));
        }
        let has_long = long_name.is_some() || long_link.is_some();
        self.is_plain &= own.iter().all(|(key, value)| is_plain_record(key, value, has_long));
        // An empty value leaves what the header says (POSIX.1-2017, `pax`, "pax Extended Header").
        let found = |key: &[u8]| own.get(key).filter(|value| !value.is_empty());
        // What GNU's members say comes before pax records, again as for Go's `archive/tar`.
        let said = long_name.or_else(|| found(b"path").cloned());
        let name = said.unwrap_or_else(|| {
            let (name, is_plain) = header_name(header.as_bytes());
            self.is_plain &= is_plain;
            name
        });
        let link = || {
            let target = long_link.or_else(|| found(b"linkpath").cloned());
            target.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned)).unwrap_or_default()
        };
        let fields = header.as_old();
        let number = |key: &[u8], field: &[u8]| match found(key) {
            Some(value) => parse(value).ok_or(UntarError::Damaged("a number in an extended header is none")),
            None => numeric(field).ok_or(UntarError::Damaged("a number in a header is none")),
        };
        let kind = kind(header, &name, link)?;
        let size = number(b"size", &fields.size)?;
        let mtime = match found(b"mtime") {
            Some(value) => value.split(|&byte| byte == b'.').next().and_then(parse),
            None => numeric(&fields.mtime),
        };
        // A file whose name ends as a directory's is one to some readers, and files of type 7 are nothing to docker.
        self.is_plain &= header.entry_type() != EntryType::Continuous;
        self.is_plain &= kind != MemberKind::File || !name.ends_with(b"/");
        // Only a file has content, whatever the header of another kind says of its size: as Go's `archive/tar` reads it.
        let size = if kind == MemberKind::File { size } else { 0 };
        (self.content, self.padding) = (size, padding(size) as u64);
        Ok(Member {
            name,
            kind,
            mode: numeric::<u32>(&fields.mode).ok_or(UntarError::Damaged("a mode is no number"))? & 0o7777,
            uid: number(b"uid", &fields.uid)?,
            gid: number(b"gid", &fields.gid)?,
            mtime: mtime.ok_or(UntarError::Damaged("a time is no number"))?,
            xattrs: xattrs(own).collect(),
            size,
            offset: self.at,
        })
    }

    fn skip(&mut self, mut count: u64) -> Result<(), UntarError> {
        let mut buffer = [0; 8192];
        while count > 0 {
            let want = usize::try_from(count).unwrap_or(usize::MAX).min(buffer.len());
            count -= self.read(&mut buffer[..want])? as u64;
        }
        Ok(())
    }

    /// False if the stream ends there: some writers leave out the zeros behind the last content as well as the blocks at the end
    /// (`umoci insert`), and the content is whole.
    fn skip_padding(&mut self) -> Result<bool, UntarError> {
        let mut zeros = [0; 512];
        let zeros = &mut zeros[..std::mem::take(&mut self.padding) as usize];
        let count = filled(&mut self.reader, zeros).map_err(UntarError::Read)?;
        self.at += count as u64;
        self.is_plain &= count == zeros.len();
        Ok(count == zeros.len())
    }

    /// Reads at least one byte into a buffer that is not empty.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, UntarError> {
        loop {
            match self.reader.read(buffer) {
                Ok(0) => return Err(UntarError::Damaged("it ends within a member")),
                Ok(count) => {
                    self.at += count as u64;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(UntarError::Read(error)),
            }
        }
    }
}

/// How much of `buffer` the reader can fill.
pub(super) fn filled(reader: &mut (impl Read + ?Sized), buffer: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < buffer.len() {
        match reader.read(&mut buffer[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// What a header says that its member is; `link` gives the text of a link.
fn kind(header: &Header, name: &[u8], link: impl FnOnce() -> Vec<u8>) -> Result<MemberKind, UntarError> {
    let device = || {
        // The fields stand at the same place in GNU's headers (`tar(5)`).
        let number = |at: usize| numeric(&header.as_bytes()[at..at + 8]);
        number(329).zip(number(337)).ok_or(UntarError::Damaged("a device has no number"))
    };
    Ok(match header.entry_type() {
        // Archives from before ustar: a type of NUL, and a slash at the end of the name.
        EntryType::Regular if name.ends_with(b"/") && header.as_old().linkflag == [0] => MemberKind::Directory,
        EntryType::Regular | EntryType::Continuous => MemberKind::File,
        EntryType::Directory => MemberKind::Directory,
        EntryType::Link => MemberKind::HardLink(link()),
        EntryType::Symlink => MemberKind::Symlink(link()),
        EntryType::Fifo => MemberKind::Fifo,
        EntryType::Char => device().map(|(major, minor)| MemberKind::CharDevice { major, minor })?,
        EntryType::Block => device().map(|(major, minor)| MemberKind::BlockDevice { major, minor })?,
        EntryType::GNUSparse => return Err(UntarError::Unsupported("a sparse file")),
        _ => return Err(UntarError::Unsupported("a member of an unknown kind")),
    })
}

/// The sum of a header's bytes, where those of the checksum itself count as blanks; and the same with bytes as Sun's tar took
/// them, from -128 on (`tar(5)`).
fn checksums(header: &[u8; 512]) -> [i64; 2] {
    let byte = |at: usize| if (148..156).contains(&at) { b' ' } else { header[at] };
    [(0..512).map(|at| i64::from(byte(at))).sum(), (0..512).map(|at| i64::from(byte(at).cast_signed())).sum()]
}

/// The name in a header, with what stands in the field for its beginning, if that is what the field is for; and whether every
/// reader takes it so.
fn header_name(header: &[u8; 512]) -> (Vec<u8>, bool) {
    let field = |at: usize, length: usize| until_nul(header[at..at + length].to_vec());
    let is_gnu = header[257..265] == *b"ustar  \0";
    let prefix = match &header[257..265] {
        // star has two times behind a shorter one.
        [b'u', b's', b't', b'a', b'r', 0, ..] if header[508..] == *b"tar\0" => field(345, 131),
        // There are writers that leave the version out.
        [b'u', b's', b't', b'a', b'r', 0, ..] => field(345, 155),
        // GNU has two times there. Before 1.8, Go's `archive/tar` put a prefix there all the same, and so did engines of then.
        _ if is_gnu && [345, 357].iter().any(|&at| numeric::<i64>(&header[at..at + 12]).is_none()) => {
            Some(field(345, 155)).filter(|prefix| prefix.is_ascii()).unwrap_or_default()
        }
        _ => Vec::new(),
    };
    if prefix.is_empty() {
        return (field(0, 100), true);
    }
    ([&prefix[..], b"/", &field(0, 100)].concat(), !is_gnu)
}

/// A number in a header: octal digits between blanks and NULs, none of which is zero, whatever stands behind a NUL; or, if
/// the first bit is set, the bits that follow it as one big-endian number (GNU tar's "base-256").
fn numeric<T: TryFrom<i64>>(field: &[u8]) -> Option<T> {
    let value = match field {
        [first, rest @ ..] if first & 0x80 != 0 => {
            let sign = if first & 0x40 != 0 { -0x80 } else { 0 };
            rest.iter().try_fold(i64::from(first & 0x7f) + sign, |value, &byte| {
                value.checked_mul(0x100)?.checked_add(i64::from(byte))
            })?
        }
        _ => {
            let start = field.iter().position(|byte| !matches!(byte, b' ' | 0)).unwrap_or(field.len());
            let digits = field[start..].split(|&byte| byte == 0).next().unwrap_or_default();
            let text = std::str::from_utf8(digits).ok()?.trim_end_matches(' ');
            if text.is_empty() { 0 } else { i64::from_str_radix(text, 8).ok()? }
        }
    };
    T::try_from(value).ok()
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|&byte| byte == 0) {
        bytes.truncate(end);
    }
    bytes
}

fn parse<T: std::str::FromStr>(bytes: &[u8]) -> Option<T> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// True for a record of which every reader knows what it says, or that it says nothing of what a lock lists. `has_long`: a
/// name or link's text is said by GNU's means too.
fn is_plain_record(key: &[u8], value: &[u8], has_long: bool) -> bool {
    match key {
        _ if value.is_empty() => false,
        b"path" | b"linkpath" => !has_long,
        // A fraction of a second is more than a lock says.
        b"mtime" => value.split(|&byte| byte == b'.').skip(1).flatten().all(|&digit| digit == b'0'),
        b"size" | b"uid" | b"gid" | b"uname" | b"gname" | b"atime" | b"ctime" | b"hdrcharset" | b"comment" => true,
        _ => key.strip_prefix(XATTR).is_some_and(|name| std::str::from_utf8(name).is_ok()),
    }
}

/// The attributes in records, by their names.
fn xattrs(records: &Records) -> impl Iterator<Item = (String, Vec<u8>)> {
    starting(records, XATTR)
        .filter_map(|(key, value)| Some((std::str::from_utf8(&key[XATTR.len()..]).ok()?.to_owned(), value.clone())))
}

/// The records whose keys start so.
fn starting<'a>(records: &'a Records, start: &'static [u8]) -> impl Iterator<Item = (&'a Vec<u8>, &'a Vec<u8>)> {
    records.range(start.to_vec()..).take_while(move |(key, _)| key.starts_with(start))
}

/// How much extended headers say together, if that is not too much to remember.
fn bounded(so_far: u64, size: u64) -> Result<u64, UntarError> {
    let sum = so_far.saturating_add(size);
    if sum > MAX_EXTENSION { Err(UntarError::Unsupported("an extended header of more than 4 MiB")) } else { Ok(sum) }
}

/// Takes `LENGTH KEY=VALUE` and a newline, again and again, where the length counts itself and the newline.
fn parse_records(mut bytes: &[u8]) -> Result<Records, UntarError> {
    const DAMAGED: UntarError = UntarError::Damaged("an extended header has a wrong record");
    let mut records = Records::new();
    while !bytes.is_empty() {
        let blank = bytes.iter().position(|&byte| byte == b' ').ok_or(DAMAGED)?;
        let length: usize = parse(&bytes[..blank]).ok_or(DAMAGED)?;
        if length <= blank + 1 || length > bytes.len() || bytes[length - 1] != b'\n' {
            return Err(DAMAGED);
        }
        let record = &bytes[blank + 1..length - 1];
        let equals = record.iter().position(|&byte| byte == b'=').ok_or(DAMAGED)?;
        records.insert(record[..equals].to_vec(), record[equals + 1..].to_vec());
        bytes = &bytes[length..];
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_every_spelling() {
        for (field, value) in [
            (&b"0000755\0"[..], 0o755),
            (b"   755 \0", 0o755),
            (b"        ", 0),
            (b"644\0 99\xff", 0o644),
            (b"\0\0\0\0\0\0\0\0", 0),
            (b"\x80\0\0\0\0\0\x01\x02", 0x102),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfb", -5),
        ] {
            assert_eq!(numeric::<i64>(field), Some(value));
        }
        assert_eq!(numeric::<u32>(b"\xff\xff\xff\xff\xff\xff\xff\xfb"), None);
        assert_eq!(numeric::<i64>(b"00008\0"), None);
        assert_eq!(numeric::<i64>(&[0xbf; 12]), None);
    }

    /// A header of an empty file; `put` changes it before it is summed up, of bytes as `signed` ones or not.
    fn header(put: impl FnOnce(&mut [u8; 512]), signed: bool) -> Vec<u8> {
        let mut header = Header::new_old();
        let bytes = header.as_mut_bytes();
        bytes[..4].copy_from_slice(b"name");
        bytes[156] = b'0';
        put(bytes);
        let sum = checksums(bytes)[usize::from(signed)];
        bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        bytes.to_vec()
    }

    fn member(stream: &[u8]) -> (Member, bool) {
        let mut untar = Untar::new(stream);
        let member = untar.next_member().unwrap().unwrap();
        (member, untar.drain().unwrap().1)
    }

    #[test]
    fn names_as_other_writers_put_them() {
        for (name, is_plain, magic, prefix) in [
            ("dir/name", true, &b"ustar\x0000"[..], &b"dir"[..]),
            ("dir/name", true, b"ustar\0\0\0", b"dir"),
            ("name", true, b"ustar  \0", b""),
            ("name", true, b"ustar  \0", b"00000000007\x0000000000010\0"),
            ("dir/sub/name", false, b"ustar  \0", b"dir/sub"),
            ("name", true, b"ustar  \0", b"dir\xff"),
            ("name", true, b"", b"dir"),
        ] {
            let put = |header: &mut [u8; 512]| {
                header[257..257 + magic.len()].copy_from_slice(magic);
                header[345..345 + prefix.len()].copy_from_slice(prefix);
            };
            let (member, plain) = member(&header(put, false));
            assert_eq!((member.name.as_slice(), plain), (name.as_bytes(), is_plain), "{magic:?} {prefix:?}");
        }
        let long = [b'd'; 131];
        let star = |header: &mut [u8; 512]| {
            header[257..263].copy_from_slice(b"ustar\0");
            header[345..476].copy_from_slice(&long);
            header[476..484].copy_from_slice(b"00000001");
            header[508..].copy_from_slice(b"tar\0");
        };
        assert_eq!(member(&header(star, false)).0.name, [&long[..], b"/name"].concat());
    }

    #[test]
    fn what_engines_make_of_odd_headers() {
        let records = |kind: u8, records: &[u8]| {
            let size = format!("{:011o}", records.len());
            let put = |header: &mut [u8; 512]| {
                header[124..135].copy_from_slice(size.as_bytes());
                header[156] = kind;
            };
            let mut member = [&header(put, false)[..], records].concat();
            member.resize(member.len().next_multiple_of(512), 0);
            member
        };
        let uid = |header: &mut [u8; 512]| header[108..115].copy_from_slice(b"0000003");
        let read = |before: &[Vec<u8>]| {
            let (member, plain) = member(&[before.concat(), header(uid, false)].concat());
            assert!(!plain, "readers differ");
            (String::from_utf8(member.name).unwrap(), member.uid)
        };
        let said = |name: &str, uid| (name.to_owned(), uid);
        assert_eq!(read(&[records(b'g', b"8 uid=5\n"), records(b'g', b"9 path=x\n")]), said("name", 3));
        assert_eq!(read(&[records(b'x', b"8 path=\n7 uid=\n")]), said("name", 3));
        assert_eq!(read(&[records(b'x', b"8 uid=5\n"), records(b'x', b"9 path=x\n")]), said("x", 3));
        assert_eq!(read(&[records(b'L', b"gnu\0"), records(b'x', b"12 path=pax\n")]), said("gnu", 3));
        assert_eq!(read(&[records(b'x', b"12 path=pax\n"), records(b'L', b"gnu\0")]), said("gnu", 3));
    }

    #[test]
    fn a_checksum_may_be_of_signed_bytes() {
        let latin = |header: &mut [u8; 512]| header[..4].copy_from_slice(b"n\xe4me");
        for signed in [false, true] {
            assert_eq!(member(&header(latin, signed)).0.name, b"n\xe4me");
        }
    }

    #[test]
    fn records_may_contain_newlines() {
        let records = parse_records(b"16 path=a\n9 b=c\n6 k=v\n").unwrap();
        assert_eq!(records[b"path".as_slice()], b"a\n9 b=c");
        assert_eq!(records[b"k".as_slice()], b"v");
        for damaged in [&b"5 k=v\n"[..], b"99 k=v\n", b"x k=v\n", b"5 kv\n", b"0 \n", b"-1 k=v\n"] {
            assert!(parse_records(damaged).is_err(), "{damaged:?}");
        }
    }

    #[test]
    fn an_archive_that_ends_early_is_damaged() {
        let whole = super::super::tar::plain_header("name", 1000, true);
        for end in [1, 511, 512, 513, whole.len(), whole.len() + 999] {
            let mut bytes = whole.clone();
            bytes.resize(end.max(whole.len()), 7);
            bytes.truncate(end);
            let mut untar = Untar::new(bytes.as_slice());
            let result = untar.next_member().and_then(|_| untar.next_member());
            assert!(matches!(result, Err(UntarError::Damaged(_))), "{end}");
        }
    }
}
