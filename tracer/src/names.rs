//! Paths as the kernel takes them: bytes, with a slash between names.
//!
//! In: paths. Out: what is above and below them. Nothing is looked up, and no `.` and no `..` is taken for what it means.

/// What of `path` lies below the directory `point`: nothing if that is where it leads, else a slash and the rest.
pub(crate) fn below<'a>(path: &'a [u8], point: &[u8]) -> Option<&'a [u8]> {
    if point == b"/" {
        return Some(if path == b"/" { b"" } else { path });
    }
    path.strip_prefix(point).filter(|rest| matches!(rest, [] | [b'/', ..]))
}

/// The path of what is `below` the directory `point`.
pub(crate) fn join(point: &[u8], below: &[u8]) -> Vec<u8> {
    match (point, below) {
        (b"/", b"") => b"/".to_vec(),
        (b"/", below) => below.to_vec(),
        (point, below) => [point, below].concat(),
    }
}

/// The directory that `path`, which is absolute, stands in.
pub(crate) fn parent(path: &[u8]) -> &[u8] {
    let slash = path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
    &path[..slash.max(1).min(path.len())]
}

/// Goes on from `path` by a name, or by several.
pub(crate) fn push(path: &mut Vec<u8>, name: &[u8]) {
    if path.last() != Some(&b'/') {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

/// A copy of `path`, to which a name of this length can be added.
pub(crate) fn with_room(path: &[u8], name: &[u8]) -> Vec<u8> {
    let mut copy = Vec::with_capacity(path.len() + 1 + name.len());
    copy.extend_from_slice(path);
    copy
}

/// The components of `path`, the first one last, so that `pop` gives them in order.
pub(crate) fn reversed(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()).rev()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_below_directories() {
        assert_eq!(below(b"/a/b", b"/"), Some(&b"/a/b"[..]));
        assert_eq!(below(b"/", b"/"), Some(&b""[..]));
        assert_eq!(below(b"/a/b", b"/a"), Some(&b"/b"[..]));
        assert_eq!(below(b"/ab", b"/a"), None);
        for (path, point) in [(b"/a/b", &b"/"[..]), (b"/a/b", b"/a"), (b"/a/b", b"/a/b")] {
            assert_eq!(join(point, below(path, point).unwrap()), path);
        }
        assert_eq!(join(b"/", b""), b"/");
        assert_eq!((parent(b"/a/b"), parent(b"/a"), parent(b"/")), (&b"/a"[..], &b"/"[..], &b"/"[..]));
    }

    #[test]
    fn names_are_added() {
        for (path, name, expected) in
            [(&b"/"[..], &b"a"[..], &b"/a"[..]), (b"/a", b"b/c", b"/a/b/c"), (b".", b"a", b"./a")]
        {
            let mut longer = with_room(path, name);
            let room = longer.capacity();
            push(&mut longer, name);
            assert_eq!((longer.as_slice(), longer.capacity()), (expected, room));
        }
        assert_eq!(reversed(b"/a//b/").collect::<Vec<_>>(), [b"b", b"a"]);
    }
}
