//! What the names and link texts in an archive mean, and which of them no file system has.
//!
//! In: bytes as anybody may have written them. Out: a [`JailPath`], or why it is refused. Names are taken apart here and
//! only here; where a path leads through links is the business of [`shape`](super::shape).

use super::error::ReadError;
use crate::path::{JailPath, escape};

/// The longest path, in bytes: four times what a program can name at once (`PATH_MAX`).
const MAX_PATH: usize = 16 << 10;

/// The deepest path. Work and memory grow with the square of a path's depth, since every directory on it has a path of its own.
const MAX_DEPTH: usize = 2500;

/// The longest component, `NAME_MAX`.
const MAX_NAME: usize = 255;

/// The longest text of a link: `PATH_MAX` counts its NUL (`symlink(2)`, ENAMETOOLONG).
const MAX_TARGET: usize = 4095;

/// The path that a name in an archive means: from the root on, however it begins.
pub(super) fn parse(name: &[u8]) -> Result<JailPath, &'static str> {
    let (mut components, mut length) = (Vec::new(), 0);
    for component in name.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => return Err("it contains `..`"),
            _ if component.contains(&0) => return Err("it contains a NUL byte"),
            _ => {
                components.push(component);
                length += 1 + component.len();
                check_name(component)?;
                check_size(components.len(), length)?;
            }
        }
    }
    Ok(JailPath::of(components))
}

/// The name that a whiteout hides, if `spelled` is one.
pub(super) fn hidden(spelled: &JailPath) -> Result<Option<&[u8]>, &'static str> {
    match spelled.file_name().strip_prefix(b".wh.") {
        Some(b"" | b"." | b"..") => Err("it hides no name"),
        hidden => Ok(hidden),
    }
}

/// Refuses the text of a symbolic link that no link can have.
pub(super) fn check_target(target: &[u8]) -> Result<(), &'static str> {
    if target.is_empty() || target.contains(&0) {
        return Err("it is a link to nothing");
    }
    if target.len() > MAX_TARGET {
        return Err("it is a link with a text of more than 4,095 bytes");
    }
    Ok(())
}

pub(super) fn check_name(component: &[u8]) -> Result<(), &'static str> {
    if component.len() > MAX_NAME { Err("it has a component of more than 255 bytes") } else { Ok(()) }
}

/// Refuses a path of so many components and bytes if these are too many.
pub(super) fn check_size(depth: usize, length: usize) -> Result<(), &'static str> {
    if depth > MAX_DEPTH {
        return Err("its path has more than 2,500 components");
    }
    if length > MAX_PATH {
        return Err("its path is longer than 16 KiB");
    }
    Ok(())
}

/// Where `name` leads from `directory` if nothing on the way is a link; `None` if that is outside, or no name.
pub(super) fn lexical(directory: &JailPath, name: &[u8]) -> Option<JailPath> {
    let mut components: Vec<&[u8]> = Vec::new();
    if !name.starts_with(b"/") {
        components.extend(directory.components());
    }
    for component in name.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => drop(components.pop()?),
            _ if component.contains(&0) => return None,
            _ => components.push(component),
        }
    }
    check_size(components.len(), components.iter().map(|name| 1 + name.len()).sum()).ok()?;
    Some(JailPath::of(components))
}

/// That what has this name is refused; whoever reads the layer says which it is.
pub(super) fn refused(name: &[u8], why: &'static str) -> ReadError {
    ReadError::Refused { name: shown(name), layer: String::new(), why }
}

/// A name in a message: of a very long one, the beginning and the end.
fn shown(name: &[u8]) -> String {
    const ENDS: usize = 150;
    if name.len() <= 4 * ENDS {
        return escape(name);
    }
    format!("{}…{}", escape(&name[..ENDS]), escape(&name[name.len() - ENDS..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_at_their_ends() {
        let why = |name: &str| parse(name.as_bytes()).err();
        assert_eq!(why(&"d/".repeat(2500)), None);
        assert_eq!(why(&"d/".repeat(2501)), Some("its path has more than 2,500 components"));
        let wide = format!("{}/", "n".repeat(255));
        assert_eq!(why(&wide.repeat(64)), None);
        assert_eq!(why(&format!("{}x", wide.repeat(64))), Some("its path is longer than 16 KiB"));
        assert_eq!(why(&"./".repeat(100_000)), None);
        assert_eq!(parse(b"//a/./b/").unwrap().to_string(), "/a/b");
    }

    #[test]
    fn lexical_paths() {
        let directory = parse(b"a/b").unwrap();
        let leads = |name: &str| lexical(&directory, name.as_bytes()).map(|path| path.to_string());
        assert_eq!(leads("../c/./d").as_deref(), Some("/a/c/d"));
        assert_eq!(leads("/c").as_deref(), Some("/c"));
        assert_eq!(leads("../../..").as_deref(), None);
        assert_eq!(leads(&"x/".repeat(200_000)), None);
    }

    #[test]
    fn long_names_are_shown_by_their_ends() {
        assert_eq!(shown(b"a\n"), r"a\x0a");
        let text = shown(&[b"begin".as_slice(), &vec![b'/'; 1 << 20], b"end"].concat());
        assert!(text.len() < 400 && text.starts_with("begin/") && text.ends_with("/end"), "{text}");
    }
}
