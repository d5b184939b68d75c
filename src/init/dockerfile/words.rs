//! The words of an instruction: split at spaces outside quotes, and with their variables in place.

use std::collections::BTreeSet;

/// What a variable is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Known(String),
    Unset,
    /// The base image, or whoever builds, says it.
    Unknown,
}

/// A word with its variables in place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Expanded {
    pub(super) text: String,
    /// The variables that are not known; the text has them as they are spelled.
    pub(super) unknown: BTreeSet<String>,
}

/// The words of `text`, with their quotes.
pub(super) fn words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            ' ' | '\t' if quote.is_none() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            '\'' | '"' if quote.is_none() => quote = Some(character),
            _ if quote == Some(character) => quote = None,
            _ => {}
        }
        word.push(character);
        if character == escape && quote != Some('\'') {
            word.extend(characters.next());
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// `word` without its quotes, and with what `variable` says in place of each variable outside single quotes.
pub(super) fn expand(word: &str, escape: char, variable: &dyn Fn(&str) -> Value) -> Expanded {
    let mut expanded = Expanded::default();
    let mut quote = None;
    let mut rest = word.chars();
    while let Some(character) = rest.next() {
        match character {
            '\'' if quote.is_none() => quote = Some('\''),
            '"' if quote.is_none() => quote = Some('"'),
            _ if quote == Some(character) => quote = None,
            _ if quote == Some('\'') => expanded.text.push(character),
            _ if character == escape => {
                let next = rest.next();
                // Within double quotes it escapes only what would mean something there.
                if quote.is_some() && !next.is_some_and(|next| matches!(next, '"' | '$') || next == escape) {
                    expanded.text.push(character);
                }
                expanded.text.extend(next);
            }
            '$' => {
                let (used, value) = reference(rest.as_str(), escape, variable);
                rest = rest.as_str()[used..].chars();
                expanded.text.push_str(&value.text);
                expanded.unknown.extend(value.unknown);
            }
            _ => expanded.text.push(character),
        }
    }
    expanded
}

/// What stands for the variable whose name begins `rest`, just behind its `$`, and how many bytes of `rest` that took.
fn reference(rest: &str, escape: char, variable: &dyn Fn(&str) -> Value) -> (usize, Expanded) {
    let is_name = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let plain = |text: &str| Expanded { text: text.to_owned(), ..Expanded::default() };
    let Some(inside) = rest.strip_prefix('{') else {
        let end = rest.find(|character| !is_name(character)).unwrap_or(rest.len());
        let name = &rest[..end];
        return match variable(name) {
            _ if name.is_empty() => (0, plain("$")),
            Value::Known(value) => (end, plain(&value)),
            Value::Unset => (end, Expanded::default()),
            Value::Unknown => (end, unknown(name, &rest[..end])),
        };
    };
    let Some(close) = closing(inside) else { return (0, plain("$")) };
    let (body, used) = (&inside[..close], close + 2);
    let end = body.find(|character| !is_name(character)).unwrap_or(body.len());
    let (name, operator) = body.split_at(end);
    let value = variable(name);
    let other = |operand: &str| expand(operand, escape, variable);
    let expanded = match (operator, value) {
        ("", Value::Known(value)) => plain(&value),
        ("", Value::Unset) => Expanded::default(),
        (_, Value::Known(value)) if operator.starts_with(":-") && !value.is_empty() => plain(&value),
        (_, Value::Known(value)) if operator.starts_with('-') => plain(&value),
        (_, Value::Known(_) | Value::Unset) if operator.starts_with(":-") => other(&operator[2..]),
        (_, Value::Unset) if operator.starts_with('-') => other(&operator[1..]),
        (_, Value::Known(value)) if operator.starts_with(":+") && !value.is_empty() => other(&operator[2..]),
        (_, Value::Known(_)) if operator.starts_with('+') => other(&operator[1..]),
        (_, Value::Known(_) | Value::Unset) if operator.starts_with([':', '+']) && !operator.starts_with(":?") => {
            Expanded::default()
        }
        (_, Value::Known(value)) if operator.starts_with([':', '?']) => plain(&value),
        // Patterns, as `${NAME#a*}`, are left to docker.
        _ => unknown(name, &rest[..used]),
    };
    (used, expanded)
}

fn unknown(name: &str, spelled: &str) -> Expanded {
    Expanded { text: format!("${spelled}"), unknown: BTreeSet::from([name.to_owned()]) }
}

/// Where the brace closes that was opened just before.
fn closing(inside: &str) -> Option<usize> {
    let mut depth = 1;
    inside.char_indices().find_map(|(at, character)| {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        (depth == 0).then_some(at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(name: &str) -> Value {
        match name {
            "A" => Value::Known("one".to_owned()),
            "EMPTY" => Value::Known(String::new()),
            "BASE" => Value::Unknown,
            _ => Value::Unset,
        }
    }

    fn expanded(word: &str) -> String {
        let Expanded { text, unknown } = expand(word, '\\', &variable);
        assert!(unknown.is_empty(), "{unknown:?}");
        text
    }

    #[test]
    fn words_have_their_quotes() {
        assert_eq!(words(r#"a="b c"  d='e " f' g\ h"#, '\\'), [r#"a="b c""#, r#"d='e " f'"#, r"g\ h"]);
        assert_eq!(words("  ", '\\'), [""; 0]);
    }

    #[test]
    fn variables_are_put_in_place() {
        for (word, text) in [
            ("$A/x", "one/x"),
            ("${A}x$B", "onex"),
            (r"\$A", "$A"),
            ("'$A'", "$A"),
            (r#""$A b""#, "one b"),
            (r#""a\b\"c""#, r#"a\b"c"#),
            ("${B:-x$A}", "xone"),
            ("${A:-x}", "one"),
            ("${EMPTY:-x}${EMPTY-y}", "x"),
            ("${A:+x}${B:+y}${EMPTY:+z}", "x"),
            ("${B:-${C:-deep}}", "deep"),
            ("a$", "a$"),
            ("${A", "${A"),
            ("a\\ b", "a b"),
        ] {
            assert_eq!(expanded(word), text, "{word}");
        }
    }

    #[test]
    fn what_is_not_known_is_named() {
        for word in ["x$BASE", "x${BASE}", "x${BASE:-y}", "x${A#pattern}"] {
            let result = expand(word, '\\', &variable);
            assert_eq!((result.text.as_str(), result.unknown.len()), (word, 1));
        }
    }
}
