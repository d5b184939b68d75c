//! Bytes as text: reversible, and harmless on a terminal.

use std::fmt::Write as _;

/// Writes `bytes` as text: UTF-8 stays, a backslash becomes `\\`, and every byte outside UTF-8 and every control
/// character becomes `\xNN`.
///
/// [`unescape`] gives the bytes back. Nothing that comes out can move a cursor or colour a terminal.
///
/// ```
/// use minjail::path::{escape, unescape};
///
/// assert_eq!(escape(b"/caf\xc3\xa9"), "/café");
/// assert_eq!(escape(b"/caf\xe9\n"), r"/caf\xe9\x0a");
/// assert_eq!(unescape(r"/caf\xe9\x0a").as_deref(), Some(&b"/caf\xe9\n"[..]));
/// ```
pub fn escape(bytes: &[u8]) -> String {
    if let Some(text) = plain(bytes) {
        return text.to_owned();
    }
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                _ if character.is_control() => {
                    let mut buffer = [0; 4];
                    for byte in character.encode_utf8(&mut buffer).bytes() {
                        push_hex(&mut text, byte);
                    }
                }
                _ => text.push(character),
            }
        }
        for &byte in chunk.invalid() {
            push_hex(&mut text, byte);
        }
    }
    text
}

/// `bytes`, if they are their own text, as nearly all paths are.
pub(super) fn plain(bytes: &[u8]) -> Option<&str> {
    let is_plain = bytes.iter().all(|byte| matches!(byte, b' '..=b'~') && *byte != b'\\');
    std::str::from_utf8(bytes).ok().filter(|_| is_plain)
}

/// Reads back what [`escape`] wrote; `None` if a backslash is followed by neither a backslash nor `xNN`.
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest {
            [b'\\', tail @ ..] => {
                bytes.push(b'\\');
                rest = tail;
            }
            [b'x', high, low, tail @ ..] => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let value = digit(*high)? * 16 + digit(*low)?;
                bytes.push(u8::try_from(value).ok()?);
                rest = tail;
            }
            _ => return None,
        }
    }
    Some(bytes)
}

/// Writes `bytes` in hexadecimal, as digests are written.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
    }
    text
}

/// Reads back what [`hex`] wrote, in digits of either case; `None` if it is anything else.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|&[high, low]| u8::try_from(digit(high)? * 16 + digit(low)?).ok()).collect()
}

fn push_hex(text: &mut String, byte: u8) {
    write!(text, "\\x{byte:02x}").expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_survive(bytes: Vec<u8>) {
            let text = escape(&bytes);
            prop_assert!(!text.chars().any(char::is_control));
            prop_assert_eq!(unescape(&text), Some(bytes));
        }
    }

    #[test]
    fn a_lone_backslash_is_refused() {
        assert_eq!(unescape("\\"), None);
        assert_eq!(unescape("\\xg0"), None);
        assert_eq!(unescape("\\x+1"), None);
    }
}
