//! What the user chooses about a file set, as one plain value.
//!
//! A trace says what a run asked for; where more than one file set answers that, the policy picks one. The default is
//! the one with which the traced run does the same again.

use std::collections::{BTreeMap, BTreeSet};

use globset::{GlobBuilder, GlobMatcher};

use crate::path::JailPath;
pub use crate::profile::{Accounts, Listing, Purpose, Rule, Rules, StatOnly, Switch};

/// The choices.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    pub stat_only: StatOnly,
    pub listing: Listing,
    pub accounts: Accounts,
    /// The rules that were switched.
    pub rules: Rules,
    /// Packed besides what the runs touched.
    pub include: Vec<Pattern>,
    /// Not packed, whatever the runs did.
    pub exclude: Vec<Pattern>,
    /// As whom the image is run, where an engine has to look him up.
    pub user: Option<String>,
    /// Variables that the image has besides those of the runs, or with other values.
    pub variables: BTreeMap<String, String>,
    /// Directories whose content is the container's.
    pub volumes: Vec<JailPath>,
    /// Secrets that are packed all the same.
    pub allowed_secrets: BTreeSet<JailPath>,
}

/// Files that a user names.
#[derive(Debug, Clone)]
pub struct Pattern {
    /// As it was typed.
    pub text: String,
    pub(super) kind: PatternKind,
}

#[derive(Debug, Clone)]
pub(super) enum PatternKind {
    /// The path, and everything below it.
    Path(JailPath),
    /// The paths that match, and everything below them; and the directory below which all of them are.
    Glob(Box<GlobMatcher>, JailPath),
    /// The files of a Debian package.
    Package(String),
}

/// A pattern names no files.
#[derive(Debug, thiserror::Error)]
pub enum PatternError {
    #[error("`{text}` is not an absolute path, a glob, or `deb:PACKAGE`")]
    Path { text: String, source: crate::path::PathError },
    #[error("`{text}` is not a glob")]
    Glob { text: String, source: globset::Error },
    #[error("`{text}` names no package")]
    Package { text: String },
}

impl Pattern {
    /// Reads `PATH`, a glob, or `deb:PACKAGE`. In a glob `*` and `?` stop at `/`, and `**` does not.
    ///
    /// # Errors
    /// It is none of these; a path or a glob starts with `/`.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let kind = if let Some(name) = text.strip_prefix("deb:") {
            // deb-control(5), "Package": lower-case letters, digits, and + - . ; an architecture may follow a colon.
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.:".contains(&byte);
            if name.is_empty() || !name.bytes().all(plain) {
                return Err(PatternError::Package { text: text.to_owned() });
            }
            PatternKind::Package(name.to_owned())
        } else {
            let literal = text.find(['*', '?', '[', '{']).map_or(text, |at| &text[..at]);
            let is_glob = literal.len() < text.len();
            let start = if is_glob { literal.rfind('/').map_or("", |slash| &literal[..=slash]) } else { text };
            let path = JailPath::parse(start.as_bytes())
                .map_err(|source| PatternError::Path { text: text.to_owned(), source })?;
            if !is_glob {
                PatternKind::Path(path)
            } else {
                let glob = GlobBuilder::new(text).literal_separator(true).build();
                let glob = glob.map_err(|source| PatternError::Glob { text: text.to_owned(), source })?;
                PatternKind::Glob(Box::new(glob.compile_matcher()), path)
            }
        };
        Ok(Self { text: text.to_owned(), kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_told_apart() {
        let kind = |text: &str| Pattern::parse(text).map(|pattern| pattern.kind);
        assert!(matches!(kind("/etc/passwd"), Ok(PatternKind::Path(_))));
        assert!(matches!(kind("deb:libstdc++6"), Ok(PatternKind::Package(name)) if name == "libstdc++6"));
        let Ok(PatternKind::Glob(glob, start)) = kind("/etc/a*/*.conf") else { panic!("a glob") };
        assert_eq!(start, JailPath::parse(b"/etc").unwrap());
        assert!(glob.is_match("/etc/ab/x.conf") && !glob.is_match("/etc/ab/c/x.conf"));
        for wrong in ["etc/passwd", "*.conf", "deb:", "deb:../x", "/etc/[a", ""] {
            assert!(Pattern::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn words() {
        assert_eq!("hollow".parse(), Ok(StatOnly::Hollow));
        assert!("most".parse::<Listing>().is_err());
    }
}
