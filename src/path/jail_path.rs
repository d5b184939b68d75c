//! The absolute path of something in the jail.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::text::{escape, plain, unescape};

/// An absolute path in the jail: starts with `/`, has no empty, `.` or `..` component and no NUL, and orders bytewise,
/// so that a directory always comes before what is in it. Copies share their bytes: one path is in many lists.
///
/// ```
/// use minjail::path::JailPath;
///
/// let path = JailPath::parse(b"/usr//lib/./python3/")?;
/// assert_eq!(path.as_bytes(), b"/usr/lib/python3");
/// assert_eq!(path.parent().unwrap().join(b"perl").to_string(), "/usr/lib/perl");
/// # Ok::<(), minjail::path::PathError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JailPath(Arc<[u8]>);

/// Why some bytes are not a [`JailPath`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("path `{0}` is not absolute")]
    Relative(String),
    #[error("path `{0}` contains a NUL byte")]
    Nul(String),
    #[error("path `{0}` contains `..`, whose meaning depends on links")]
    Parent(String),
}

impl JailPath {
    /// The root directory, `/`.
    pub fn root() -> Self {
        Self(b"/".as_slice().into())
    }

    /// Takes an absolute path, folding `//` and `.`.
    ///
    /// # Errors
    /// A relative path, a NUL byte, and `..`: where that leads depends on links, see [`Root::resolve`].
    ///
    /// [`Root::resolve`]: crate::root::Root::resolve
    pub fn parse(bytes: &[u8]) -> Result<Self, PathError> {
        if bytes.first() != Some(&b'/') {
            return Err(PathError::Relative(escape(bytes)));
        }
        if bytes.contains(&0) {
            return Err(PathError::Nul(escape(bytes)));
        }
        let names = || bytes.split(|&byte| byte == b'/');
        if names().any(|name| name == b"..") {
            return Err(PathError::Parent(escape(bytes)));
        }
        let is_folded = |name: &[u8]| matches!(name, b"" | b".");
        // Nearly every path is as it will be.
        if !names().skip(1).any(is_folded) {
            return Ok(Self(bytes.into()));
        }
        Ok(Self::of(names().filter(|name| !is_folded(name))))
    }

    /// A path that stands in the code.
    ///
    /// # Panics
    /// It is none: see [`parse`](Self::parse).
    pub fn literal(bytes: &'static [u8]) -> Self {
        Self::parse(bytes).expect("a path in the code is absolute and has no `..`")
    }

    /// The path of these components, each in the one before it.
    ///
    /// What holds for a name to [`join`](Self::join) holds for each; one by one they would be copied with the square of their number.
    pub fn of<'a>(components: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut path = b"/".to_vec();
        for name in components {
            push(&mut path, name);
        }
        Self(path.into())
    }

    /// Takes an absolute path, folding `//`, `.` and, by the letter, `..`: what engines make of a working directory,
    /// whatever links there are.
    ///
    /// ```
    /// use minjail::path::JailPath;
    ///
    /// assert_eq!(JailPath::clean(b"/etc/../srv//app/./..")?.as_bytes(), b"/srv");
    /// assert_eq!(JailPath::clean(b"/../..")?, JailPath::root());
    /// # Ok::<(), minjail::path::PathError>(())
    /// ```
    ///
    /// # Errors
    /// A relative path, and a NUL byte.
    pub fn clean(bytes: &[u8]) -> Result<Self, PathError> {
        let mut names: Vec<&[u8]> = Vec::new();
        for name in bytes.split(|&byte| byte == b'/') {
            match name {
                b".." => drop(names.pop()),
                b"" | b"." => {}
                _ => names.push(name),
            }
        }
        let start: &[u8] = if bytes.starts_with(b"/") { b"/" } else { b"" };
        Self::parse(&[start, &names.join(&b'/')].concat())
    }

    /// The path as bytes, without a trailing slash except for `/` itself.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// True for `/`.
    pub fn is_root(&self) -> bool {
        self.0.len() == 1
    }

    /// The path of `name` in this directory.
    ///
    /// `name` must be one component; that it is one is the caller's knowledge (a directory listing, a split path).
    #[must_use]
    pub fn join(&self, name: &[u8]) -> Self {
        let mut path = Vec::with_capacity(self.0.len() + 1 + name.len());
        path.extend_from_slice(&self.0);
        push(&mut path, name);
        Self(path.into())
    }

    /// The directory that this is in; `None` for `/`.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let slash = self.last_slash();
        Some(Self(self.0[..slash.max(1)].into()))
    }

    /// The last component; empty for `/`.
    pub fn file_name(&self) -> &[u8] {
        &self.0[self.last_slash() + 1..]
    }

    /// The components in order; none for `/`.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|&byte| byte == b'/').filter(|name| !name.is_empty())
    }

    /// Every directory above, from the parent up to `/`.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> {
        std::iter::successors(self.parent(), Self::parent)
    }

    /// The path itself, and all above it, up to the root.
    pub fn upwards(&self) -> impl Iterator<Item = Self> + use<> {
        std::iter::successors(Some(self.clone()), Self::parent)
    }

    /// True if this is `other` or below it.
    pub fn starts_with(&self, other: &Self) -> bool {
        other.is_root() || self.0.strip_prefix(&*other.0).is_some_and(|rest| matches!(rest, [] | [b'/', ..]))
    }

    /// The path without its leading slash, as archives and `openat` want it; `.` for `/`.
    pub fn relative(&self) -> &Path {
        let bytes = if self.is_root() { b"." } else { &self.0[1..] };
        Path::new(OsStr::from_bytes(bytes))
    }

    /// Where this is when the jail's root stands at `root`.
    pub fn below(&self, root: &Path) -> PathBuf {
        if self.is_root() { root.to_path_buf() } else { root.join(self.relative()) }
    }

    fn last_slash(&self) -> usize {
        self.0.iter().rposition(|&byte| byte == b'/').expect("a jail path starts with a slash")
    }
}

/// Appends a component to the bytes of a path.
fn push(path: &mut Vec<u8>, name: &[u8]) {
    debug_assert!(!name.is_empty() && !name.contains(&b'/') && !name.contains(&0));
    if path.len() > 1 {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

impl fmt::Display for JailPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&escape(&self.0))
    }
}

impl fmt::Debug for JailPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "`{self}`")
    }
}

impl Serialize for JailPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match plain(&self.0) {
            Some(text) => serializer.serialize_str(text),
            None => serializer.serialize_str(&escape(&self.0)),
        }
    }
}

impl<'de> Deserialize<'de> for JailPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = unescape(&text).ok_or_else(|| serde::de::Error::custom(format!("bad escape in path `{text}`")))?;
        Self::parse(&bytes).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(text: &str) -> JailPath {
        JailPath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn folds_slashes_and_dots() {
        assert_eq!(path("//a/./b//"), path("/a/b"));
        assert_eq!(path("/./"), JailPath::root());
    }

    #[test]
    fn refuses_what_it_cannot_mean() {
        assert!(matches!(JailPath::parse(b"a/b"), Err(PathError::Relative(_))));
        assert!(matches!(JailPath::parse(b"/a/../b"), Err(PathError::Parent(_))));
        assert!(matches!(JailPath::parse(b"/a\0b"), Err(PathError::Nul(_))));
        assert!(matches!(JailPath::parse(b""), Err(PathError::Relative(_))));
    }

    #[test]
    fn parents_and_names() {
        assert_eq!(path("/a/b").parent(), Some(path("/a")));
        assert_eq!(path("/a").parent(), Some(JailPath::root()));
        assert_eq!(JailPath::root().parent(), None);
        assert_eq!(path("/a/b").file_name(), b"b");
        assert_eq!(JailPath::root().file_name(), b"");
        assert_eq!(path("/a/b/c").ancestors().collect::<Vec<_>>(), [path("/a/b"), path("/a"), JailPath::root()]);
    }

    #[test]
    fn below_means_whole_components() {
        assert!(path("/a/b").starts_with(&path("/a")));
        assert!(path("/a").starts_with(&path("/a")));
        assert!(!path("/ab").starts_with(&path("/a")));
        assert!(path("/ab").starts_with(&JailPath::root()));
    }

    proptest! {
        #[test]
        fn serialising_gives_the_path_back(names in proptest::collection::vec(proptest::collection::vec(1u8..=255, 1..9), 0..5)) {
            let mut path = JailPath::root();
            for name in names {
                let name: Vec<u8> = name.into_iter().filter(|&byte| byte != b'/').collect();
                if !matches!(name.as_slice(), b"" | b"." | b"..") {
                    path = path.join(&name);
                }
            }
            let json = serde_json::to_string(&path).unwrap();
            prop_assert_eq!(serde_json::from_str::<JailPath>(&json).unwrap(), path.clone());
            if let Some(parent) = path.parent() {
                prop_assert!(parent < path);
            }
        }
    }
}
