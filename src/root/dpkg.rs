//! What dpkg notes of the files of packages, as its tools read it.
//!
//! In: the texts of `/var/lib/dpkg`. Out: their stanzas, where a listed file stands, which listed paths are directories, and which
//! contents the files of packages had.

use std::collections::{BTreeMap, HashSet};

use super::{Root, RootError};
use crate::path::{escape, unhex};

/// Larger than any database of packages, in bytes.
pub const MAX_DATABASE: u64 = 256 << 20;

/// Where files of packages stand elsewhere than their packages list them (`dpkg-divert(1)`).
#[derive(Debug, Clone, Default)]
pub struct Diversions(BTreeMap<Vec<u8>, (Vec<u8>, Vec<u8>)>);

impl Diversions {
    /// Reads `/var/lib/dpkg/diversions`: three lines each, the path, where it goes, and who diverts it.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn read(root: &Root) -> Result<Self, RootError> {
        let text = root.read_through_links(b"/var/lib/dpkg/diversions", MAX_DATABASE)?.unwrap_or_default();
        let lines: Vec<&[u8]> = text.split(|&byte| byte == b'\n').collect();
        let triples = lines.chunks_exact(3);
        Ok(Self(triples.map(|triple| (triple[0].to_vec(), (triple[1].to_vec(), triple[2].to_vec()))).collect()))
    }

    /// Where the file stands that `package` lists: who diverts a path has it, and those of all others stand elsewhere.
    pub fn place<'a>(&'a self, listed: &'a [u8], package: &[u8]) -> &'a [u8] {
        match self.0.get(listed) {
            Some((elsewhere, by)) if by != package => elsewhere,
            _ => listed,
        }
    }
}

/// The paths of a list (`/var/lib/dpkg/info/NAME.list`).
pub fn listed(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|&byte| byte == b'\n').filter(|line| !line.is_empty())
}

/// Those of its paths in which it has others: what stands there may be a link, which is none of the package's, as `/bin` where all is in
/// `/usr`.
pub fn directories(list: &[u8]) -> HashSet<&[u8]> {
    let parent = |path: &'_ [u8]| path.iter().rposition(|&byte| byte == b'/');
    listed(list).filter_map(|path| Some(&path[..parent(path)?])).collect()
}

/// The MD5 sum of a content.
pub type Sum = [u8; 16];

/// The sums of a list of them (`/var/lib/dpkg/info/NAME.md5sums`), by the paths that it has, which have no slash in front: `SUM  PATH`.
pub fn sums(text: &[u8]) -> impl Iterator<Item = (&[u8], Sum)> {
    text.split(|&byte| byte == b'\n').filter_map(|line| {
        let (sum, path) = line.split_at_checked(32)?;
        Some((path.trim_ascii_start(), sum_of(sum)?)).filter(|(path, _)| !path.is_empty())
    })
}

/// The configuration files that a stanza of the status tells of, and what they were as they came with the package (`Conffiles`: lines
/// of ` /PATH SUM`, perhaps with a word more).
pub fn configuration(stanza: &[u8]) -> impl Iterator<Item = (&[u8], Sum)> {
    let lines = stanza.split(|&byte| byte == b'\n').skip_while(|line| *line != b"Conffiles:").skip(1);
    lines.take_while(|line| line.starts_with(b" ")).filter_map(|line| {
        let mut words = line[1..].split(|&byte| byte == b' ');
        Some((words.next()?, sum_of(words.next()?)?))
    })
}

fn sum_of(text: &[u8]) -> Option<Sum> {
    unhex(std::str::from_utf8(text).ok()?)?.try_into().ok()
}

/// True if `package` is installed for this architecture, or for all (`/var/lib/dpkg/status`, `deb-control(5)`).
///
/// # Errors
/// The database is there and cannot be read.
pub fn is_for(package: &str, architecture: &str, root: &Root) -> Result<bool, RootError> {
    let status = root.read_through_links(b"/var/lib/dpkg/status", MAX_DATABASE)?.unwrap_or_default();
    let has = |stanza: &Stanza, name: &str, value: &str| stanza.get(name).is_some_and(|found| found == value);
    Ok(stanzas(&status).any(|stanza| {
        has(&stanza, "Package", package) && [architecture, "all"].iter().any(|of| has(&stanza, "Architecture", of))
    }))
}

/// Fields by name.
pub type Stanza = BTreeMap<String, String>;

/// Pieces of a text that are parted by empty lines, as of apk's database, too.
pub fn text_stanzas(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest.windows(2).position(|pair| pair == b"\n\n");
        let stanza = &rest[..end.unwrap_or(rest.len())];
        rest = end.map_or(&[], |end| &rest[end + 2..]);
        Some(stanza)
    })
}

/// The stanzas of a text.
pub fn stanzas(text: &[u8]) -> impl Iterator<Item = Stanza> {
    text_stanzas(text).map(stanza)
}

/// Fields by name, without the lines that continue one (`deb-control(5)`).
pub fn stanza(text: &[u8]) -> Stanza {
    let lines = text.split(|&byte| byte == b'\n').filter(|line| !line.starts_with(b" "));
    let fields = lines.filter_map(|line| {
        let colon = line.iter().position(|&byte| byte == b':')?;
        Some((escape(&line[..colon]), escape(line[colon + 1..].trim_ascii())))
    });
    fields.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_files() {
        let text = b"d41d8cd98f00b204e9800998ecf8427e  usr/bin/a b\nnonsense\nd41d8cd98f00b204e9800998ecf8427e  \n\n";
        let found: Vec<_> = sums(text).collect();
        let empty = sum_of(b"d41d8cd98f00b204e9800998ecf8427e").unwrap();
        assert_eq!(found, [(&b"usr/bin/a b"[..], empty)]);
        let stanza = b"Package: a\nConffiles:\n /etc/a d41d8cd98f00b204e9800998ecf8427e\n /etc/b newconffile\n /etc/c d41d8cd98f00b204e9800998ecf8427e obsolete\nDescription: a\n /etc/d d41d8cd98f00b204e9800998ecf8427e\n";
        let found: Vec<_> = configuration(stanza).collect();
        assert_eq!(found, [(&b"/etc/a"[..], empty), (b"/etc/c", empty)]);
    }

    #[test]
    fn directories_are_what_has_others_in_it() {
        let list = b"/.\n/bin\n/bin/tool\n/usr\n/usr/share\n/usr/share/empty\n/etc/link\n";
        let directories = directories(list);
        let is_one = |path: &&[u8]| directories.contains(path);
        let found: Vec<&[u8]> = listed(list).filter(is_one).collect();
        assert_eq!(found, [&b"/bin"[..], b"/usr", b"/usr/share"]);
    }
}
