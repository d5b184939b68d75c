//! From the text of a Dockerfile to its instructions: continued lines joined, comments and here-documents left out.

use super::words::words;

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Instruction {
    /// Where it begins, from 1 on.
    pub(super) line: usize,
    /// In capitals.
    pub(super) keyword: String,
    /// All that follows the keyword, without the space around it.
    pub(super) rest: String,
}

/// The instructions of a text, and the character that escapes in it.
pub(super) fn instructions(text: &str) -> (Vec<Instruction>, char) {
    // Some editors put a mark in front of UTF-8, which docker takes away, too.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let escape = directive(text, "escape").and_then(|value| value.chars().next()).unwrap_or('\\');
    let mut instructions = Vec::new();
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    while let Some((number, line)) = lines.next() {
        if is_passed_over(line) {
            continue;
        }
        let mut whole = String::new();
        let mut part = line;
        loop {
            // One that is itself escaped continues nothing.
            let continued = part.trim_end_matches([' ', '\t']).strip_suffix(escape);
            let continued = continued.filter(|part| !part.ends_with(escape));
            whole.push_str(continued.unwrap_or(part));
            // Comments and empty lines between the parts do not end it.
            let next = continued.and_then(|_| lines.by_ref().find(|(_, line)| !is_passed_over(line)));
            let Some((_, next)) = next else { break };
            part = next;
        }
        let whole = whole.trim();
        let (keyword, rest) = whole.split_once([' ', '\t']).unwrap_or((whole, ""));
        let keyword = keyword.to_ascii_uppercase();
        if matches!(keyword.as_str(), "RUN" | "COPY" | "ADD") {
            for (word, is_indented) in here_documents(rest, escape) {
                let ends = |line: &str| (if is_indented { line.trim_start_matches('\t') } else { line }) == word;
                // Without an end it is none, as in `$((1<<n))`.
                let mut behind = lines.clone();
                if behind.any(|(_, line)| ends(line)) {
                    lines = behind;
                }
            }
        }
        instructions.push(Instruction { line: number, keyword, rest: rest.trim().to_owned() });
    }
    (instructions, escape)
}

fn is_passed_over(line: &str) -> bool {
    let line = line.trim_start();
    line.is_empty() || line.starts_with('#')
}

/// The value of a parser directive, which stands in a comment at the very top.
fn directive<'a>(text: &'a str, wanted: &str) -> Option<&'a str> {
    let pairs = text.lines().map_while(|line| line.trim().strip_prefix('#')?.split_once('='));
    let mut pairs = pairs.map(|(name, value)| (name.trim(), value.trim()));
    pairs.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value)
}

/// The words that end the here-documents of an instruction, in their order, and whether tabs may stand before them.
fn here_documents(rest: &str, escape: char) -> Vec<(String, bool)> {
    let document = |word: String| {
        // A number of a descriptor may stand in front; `<<<` is something else.
        let after = word.trim_start_matches(|one: char| one.is_ascii_digit()).strip_prefix("<<")?;
        let (after, is_indented) = after.strip_prefix('-').map_or((after, false), |after| (after, true));
        let bare = after.trim_start_matches(['"', '\'']);
        let word: String =
            bare.chars().take_while(|one| one.is_alphanumeric() || matches!(one, '_' | '.' | '-')).collect();
        word.starts_with(|first: char| first.is_alphabetic() || first == '_').then_some((word, is_indented))
    };
    words(rest, escape).into_iter().filter_map(document).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(usize, String, String)> {
        let (instructions, _) = instructions(text);
        instructions.into_iter().map(|one| (one.line, one.keyword, one.rest)).collect()
    }

    fn said(line: usize, keyword: &str, rest: &str) -> (usize, String, String) {
        (line, keyword.to_owned(), rest.to_owned())
    }

    #[test]
    fn lines_are_continued() {
        let text = "# comment\n\nfrom debian\nENV A=1 \\\n  # about B\n\n    B=2 \\  \n  C=3\nCMD x # no comment\n";
        let env = "A=1     B=2   C=3";
        assert_eq!(read(text), [said(3, "FROM", "debian"), said(4, "ENV", env), said(9, "CMD", "x # no comment")]);
    }

    #[test]
    fn the_escape_can_be_chosen() {
        let text = "# syntax=docker/dockerfile:1\n# Escape=`\nFROM x\nENV A=C:\\\nCMD a `\n b\n";
        assert_eq!(read(text)[1..], [said(4, "ENV", "A=C:\\"), said(5, "CMD", "a  b")]);
        let late = "FROM x\n# escape=`\nCMD a `\nUSER b\n";
        assert_eq!(read(late)[1..], [said(3, "CMD", "a `"), said(4, "USER", "b")]);
    }

    #[test]
    fn here_documents_are_no_instructions() {
        let text = "RUN <<EOF cat && <<-'END' cat\nUSER no\nEOF\nCMD no\n\tEND\nRUN cat <<< x\nCOPY <<\"a.b\" /x\nFROM no\na.b\nUSER yes\n";
        let keywords: Vec<String> =
            read(text).into_iter().map(|(_, keyword, rest)| format!("{keyword} {rest}")).collect();
        assert_eq!(keywords[1..], ["RUN cat <<< x", "COPY <<\"a.b\" /x", "USER yes"]);
    }

    #[test]
    fn what_only_looks_like_a_here_document_hides_nothing() {
        let text = "FROM x\nRUN echo $((1<<SHIFT))\nRUN n=<<EOF\nUSER a\nEOF\nRUN 3<<END cat\nCMD no\nEND\nRUN cat <<NO\nCMD b\n";
        let keywords: Vec<String> = read(text).into_iter().map(|(_, keyword, _)| keyword).collect();
        assert_eq!(keywords, ["FROM", "RUN", "RUN", "USER", "EOF", "RUN", "RUN", "CMD"]);
    }

    #[test]
    fn marks_of_editors_and_escaped_escapes() {
        let text = "\u{feff}FROM x\nRUN echo \\\\\nUSER a\n";
        assert_eq!(read(text), [said(1, "FROM", "x"), said(2, "RUN", "echo \\\\"), said(3, "USER", "a")]);
    }
}
