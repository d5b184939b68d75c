//! Values as YAML spells them on one line, so that what is read back is what was written.

use std::fmt::Write as _;

/// A text: plain where YAML takes it for nothing else, else in double quotes.
pub(super) fn text(text: &str) -> String {
    if is_plain(text) { text.to_owned() } else { quoted(text) }
}

/// `[a, b]`
pub(super) fn list<'a>(texts: impl IntoIterator<Item = &'a String>) -> String {
    let items: Vec<String> = texts.into_iter().map(|item| text(item)).collect();
    format!("[{}]", items.join(", "))
}

/// True if the text is a word that no reader of YAML, of 1.1 or 1.2, takes for a number, a truth value, nothing, a date or
/// syntax: it has only harmless characters, and a letter or a slash in front that starts no such word.
fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 10] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan"];
    let is_harmless =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'_' | b'-' | b'+' | b'@' | b'=');
    let starts_well = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'/' || *byte == b'_';
    // No number and no date has a slash: `80/tcp`.
    let is_digit_before_slash = |byte: &u8| byte.is_ascii_digit() && text.contains('/');
    text.bytes().all(is_harmless)
        && text.as_bytes().first().is_some_and(|first| starts_well(first) || is_digit_before_slash(first))
        && !WORDS.iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// In double quotes, with what is no visible ASCII character, or would end the line, escaped (YAML 1.2.2, 5.7).
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            ' '..='~' => quoted.push(character),
            _ if u32::from(character) <= 0xff => {
                let _ = write!(quoted, "\\x{:02x}", u32::from(character));
            }
            _ if character.is_alphanumeric() => quoted.push(character),
            _ => {
                let _ = write!(quoted, "\\U{:08x}", u32::from(character));
            }
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(texts in prop::collection::vec(any::<String>(), 0..5)) {
            prop_assert_eq!(&serde_yaml::from_str::<Vec<String>>(&list(&texts)).unwrap(), &texts);
            for one in &texts {
                let line = format!("{}: {}\n", text(one), text(one));
                let pair = serde_yaml::from_str::<std::collections::BTreeMap<String, String>>(&line).unwrap();
                prop_assert_eq!(pair.first_key_value(), Some((one, one)));
            }
        }
    }

    #[test]
    fn words_that_are_something_else_are_quoted() {
        for word in ["yes", "No", "null", "1e3", "0x1f", "12:30", "~", "-", "", "a: b", "a#b", "2026-01-01", ".inf"] {
            let written = text(word);
            assert!(written.starts_with('"'), "{written}");
            assert_eq!(serde_yaml::from_str::<String>(&written).unwrap(), word);
        }
        assert_eq!(text("/usr/bin/python3"), "/usr/bin/python3");
        assert_eq!(text("-c"), "\"-c\"");
    }
}
