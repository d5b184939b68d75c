//! What looks like a secret, by its name or by what is in it.
//!
//! A guard, and no more: it knows the forms in which keys and tokens commonly lie about.

mod base64;
mod content;
mod names;
mod stores;
mod tokens;
mod urls;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::PathBuf;

use super::{FileSet, Note, What};
use crate::path::{Facts, JailPath};
use crate::root::Root;
use content::by_content;

/// What is read of every file: keys and tokens are small.
const START: usize = 64 * 1024;

/// What is read of a text, where a key may stand behind a bundle of certificates: beyond that it is data.
const LONGEST: usize = 1024 * 1024;

/// Takes secrets out of `files`, but for those below the `allowed` paths, and says so.
pub(super) fn withhold(
    files: &mut FileSet,
    allowed: &BTreeSet<JailPath>,
    store: &BTreeMap<String, PathBuf>,
    root: &Root,
    notes: &mut Vec<Note>,
) {
    // However the way there is spelled.
    let ends = allowed.iter().filter_map(|path| root.resolve(&JailPath::root(), path.as_bytes(), true).ok());
    let allowed: BTreeSet<JailPath> = allowed.iter().cloned().chain(ends.map(|walk| walk.end)).collect();
    files.wanted.retain(|path, wanted| {
        let content = match &wanted.what {
            What::AsIs => from_root(path, root),
            What::Was(was) if was.facts.is_file() => match was.kept(store) {
                Some(kept) => fs_err::File::open(kept).ok().and_then(head),
                None => from_root(path, root),
            },
            _ => None,
        };
        let Some(kind) = content.and_then(|content| kind_of(path, &content)) else { return true };
        if allowed.iter().any(|allowed| path.starts_with(allowed)) {
            return true;
        }
        notes.push(Note::Secret { path: path.clone(), kind: kind.to_owned() });
        false
    });
}

/// What the file at `path` with this content is, if that is a secret.
fn kind_of(path: &JailPath, content: &[u8]) -> Option<&'static str> {
    // Some are there from the start, for what is to come.
    if content.is_empty() {
        return None;
    }
    names::by_name(path)
        .or_else(|| names::by_name_and_content(path, content))
        .or_else(|| by_content(content))
        .or_else(|| stores::in_bytes(content))
}

/// The start of the file at `path`, if it is a file that can be read: what cannot be read is told of elsewhere.
fn from_root(path: &JailPath, root: &Root) -> Option<Vec<u8>> {
    root.facts(path).ok()?.filter(Facts::is_file)?;
    head(root.open_file(path).ok()?)
}

fn head(mut file: impl Read) -> Option<Vec<u8>> {
    let mut content = Vec::with_capacity(START + 2);
    file.by_ref().take(START as u64 + 1).read_to_end(&mut content).ok()?;
    if content.len() > START && (!content.contains(&0) || stores::is_java_store(&content)) {
        file.take((LONGEST - content.len()) as u64).read_to_end(&mut content).ok()?;
    }
    Some(content)
}

/// True if an environment variable looks as if its value were a secret.
pub fn is_secret_variable(name: &str, value: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let telling =
        ["PASSWORD", "PASSWD", "SECRET", "TOKEN", "API_KEY", "APIKEY", "ACCESS_KEY", "PRIVATE_KEY", "CREDENTIALS"];
    // `..._FILE` names where a secret is, by custom of many images.
    let named = telling.iter().any(|word| name.contains(word)) && !name.ends_with("_FILE") && !name.ends_with("_PATH");
    (named && !value.is_empty()) || has_secret(value)
}

/// True if a secret stands in an argument, or in the value of a variable: a key, a token, a password in a URL or in a setting.
pub fn has_secret(text: &str) -> bool {
    let text = text.as_bytes();
    by_content(text).is_some() || urls::passwords(text).next().is_some() || urls::sets_password(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables() {
        assert!(is_secret_variable("DB_PASSWORD", "x") && is_secret_variable("GITHUB_TOKEN", "x"));
        assert!(!is_secret_variable("DB_PASSWORD_FILE", "/run/secrets/db") && !is_secret_variable("LANG", "C"));
        assert!(!is_secret_variable("CREDENTIALS_PATH", "/x") && !is_secret_variable("DB_PASSWORD", ""));
        assert!(is_secret_variable("CI", &format!("ghp_{}", "a1".repeat(18))));
        assert!(is_secret_variable("JAVA_TOOL_OPTIONS", "-Ddb.password=hunter2"));
        assert!(!is_secret_variable("JAVA_TOOL_OPTIONS", "-Xmx1g -Ddb.password= -Dx=y"));
        assert!(is_secret_variable("DATABASE_URL", "postgres://app:hunter2@db/app"));
        assert!(!is_secret_variable("DATABASE_URL", "postgres://app@db/app"));
        assert!(!is_secret_variable("http_proxy", "http://proxy:3128"));
    }

    #[test]
    fn what_is_empty_tells_nothing() {
        let path = JailPath::parse(b"/root/.netrc").unwrap();
        assert_eq!(kind_of(&path, b""), None);
        assert_eq!(kind_of(&path, b"machine x"), Some("credentials"));
    }

    /// Most files are programs and libraries, and cost no more than their start.
    #[test]
    fn texts_and_stores_are_read_further() {
        let key = format!("-----BEGIN PRIVATE KEY-----\n{}\n", "A".repeat(64));
        let text = |size: usize| [&b"text\n".repeat(size / 5), key.as_bytes()].concat();
        let found = |content: &[u8]| head(content).and_then(|head| by_content(&head));
        assert_eq!(found(&text(START + 5)), Some("a private key"));
        assert_eq!(found(&text(LONGEST - 1000)), Some("a private key"));
        assert_eq!(found(&text(LONGEST)), None);
        let read = |start: &[u8]| head(&[start, &text(LONGEST)].concat()[..]).unwrap().len();
        assert_eq!([read(b"text"), read(b"\x7fELF\0"), read(b"\xfe\xed\xfe\xed\0")], [LONGEST, START + 1, LONGEST]);
    }
}
