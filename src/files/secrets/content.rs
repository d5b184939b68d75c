//! Secrets in texts, which say by their form what they are.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, Input, Span, packed};

use super::base64::{decoded, is_base64, is_of_base64};
use super::tokens::{is_for_npm, is_of_google, is_token};
use super::urls::{each_behind, passwords, until};

/// What every secret that is known by its content has in its first line: most files have none of it, and are done with.
static TELLING: LazyLock<Telling> = LazyLock::new(|| {
    let parts = [
        "PRIVATE KEY",
        "PrivateKey",
        "PresharedKey",
        "BEGIN OpenVPN ",
        "LS0tLS1CRUdJ",
        "key = AQ",
        "hmac-",
        "HMAC-",
        "index-url",
        "index_url",
        "PuTTY-User-Key-File-",
        "AGE-SECRET-KEY-1",
        "ghp_",
        "gho_",
        "ghs_",
        "ghu_",
        "ghr_",
        "github_pat_",
        "glpat-",
        "AKIA",
        "ASIA",
        "xoxb-",
        "xoxp-",
        "xoxa-",
        "xoxe-",
        "xapp-",
        "sk_live_",
        "rk_live_",
        "hf_",
        "AIza",
        "pypi-AgE",
        "hvs.",
        // "OpenAI" in base64, which all of its keys have.
        "T3BlbkFJ",
        "sk-proj-",
        "sk-ant-",
        "secret_access_key",
        "SECRET_ACCESS_KEY",
        ".eyJ",
        "npm_",
        ":_authToken=",
    ];
    match packed::Searcher::new(parts) {
        Some(searcher) => Telling::Packed(searcher),
        None => Telling::Automaton(AhoCorasick::new(parts).expect("so few and short patterns are an automaton")),
    }
});

/// What looks for many words at once.
enum Telling {
    /// Where the processor can compare many bytes with one instruction, this takes a fifth of the time.
    Packed(packed::Searcher),
    Automaton(AhoCorasick),
}

impl Telling {
    /// Where the next of the words begins, from `from` on.
    fn next(&self, content: &[u8], from: usize) -> Option<usize> {
        let found = match self {
            Self::Packed(searcher) => searcher.find_in(content, Span::from(from..content.len())),
            Self::Automaton(automaton) => automaton.find(Input::new(content).range(from..)),
        };
        found.map(|found| found.start())
    }
}

/// What a file with this content is, if that is a secret.
pub(super) fn by_content(content: &[u8]) -> Option<&'static str> {
    if content.contains(&0) {
        return None;
    }
    // Of DNSSEC: as `dnssec-keygen(8)` writes it, and ldns.
    if content.starts_with(b"Private-key-format: v1") {
        return Some("a private key");
    }
    let mut from = 0;
    while from < content.len() {
        let at = TELLING.next(content, from)?;
        let start = content[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let end = content[at..].iter().position(|byte| *byte == b'\n').map_or(content.len(), |length| at + length);
        let found = in_line(content, start, end);
        if found.is_some() {
            return found;
        }
        from = end + 1;
    }
    None
}

/// What begins in the line from `start` to `end`, if that is a secret.
fn in_line(content: &[u8], start: usize, end: usize) -> Option<&'static str> {
    let (whole, rest) = (&content[start..end], &content[end..]);
    let line = whole.trim_ascii();
    let is_indented = whole.starts_with(b" ") || whole.starts_with(b"\t");
    let is_json = || [b"{", b"["].iter().any(|start| content.trim_ascii_start().starts_with(*start));
    if starts_key(line, is_indented, lines(rest).skip(1))
        || is_key_in_a_line(line)
        || ((is_assignment(line) || is_json()) && is_key_in_a_string(line))
        || each_encoded(line).any(|text| by_content(&text).is_some())
    {
        return Some("a private key");
    }
    if is_of_ceph(line) || is_shared(content, start, end) || is_in_index(line) {
        return Some("credentials");
    }
    let value = &line[assigned(line).unwrap_or_default().len()..];
    (is_for_npm(line) || is_token(line) || is_of_google(value)).then_some("a token")
}

/// The lines of a text, without the blanks around them.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii)
}

/// True if `line` is the header of a key, which `rest` goes on with: a header without a key behind it is only text. What stands in a
/// text of another form, as in YAML's, is indented.
fn starts_key<'a>(line: &[u8], is_indented: bool, rest: impl Iterator<Item = &'a [u8]>) -> bool {
    let mut rest = rest.peekable();
    let header = line.strip_prefix(assigned(line).unwrap_or_default()).unwrap_or(line);
    let Some(label) = header.strip_prefix(b"-----BEGIN ").and_then(|label| label.strip_suffix(b"-----")) else {
        return false;
    };
    // RFC 9580, 6.2: headers may follow, then there is an empty line, and the key behind that.
    if label == b"PGP PRIVATE KEY BLOCK" {
        return rest.skip_while(|next| next.contains(&b':')).find(|next| !next.is_empty()).is_some_and(is_base64);
    }
    // RFC 7468; "OPENSSH PRIVATE KEY" is of the same form, and has headers as RFC 1421 says. OpenVPN's have a version behind them.
    let is_key = label.ends_with(b"PRIVATE KEY") || label.starts_with(b"OpenVPN ");
    let is_header = |next: &&[u8]| if is_indented { next.starts_with(b"Proc-Type:") } else { next.contains(&b':') };
    is_key && rest.peek().is_some_and(|next| is_base64(next) || is_header(next))
}

/// What stands before the value where a line of an environment's file, as docker, systemd and shells read it, gives one to a variable.
fn assigned(line: &[u8]) -> Option<&[u8]> {
    let name = line.iter().position(|byte| *byte == b'=')?;
    let named = line[..name].strip_prefix(b"export ").unwrap_or(&line[..name]);
    let is_name = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_';
    let quote = usize::from(matches!(line.get(name + 1), Some(b'"' | b'\'')));
    (!named.is_empty() && named.iter().all(is_name)).then(|| &line[..=name + quote])
}

fn is_assignment(line: &[u8]) -> bool {
    assigned(line).is_some_and(|start| line[start.len()..].starts_with(b"-----BEGIN "))
}

/// True of a key of `PuTTY`, of age and of `WireGuard`.
fn is_key_in_a_line(line: &[u8]) -> bool {
    let putty = [&b"PuTTY-User-Key-File-2:"[..], b"PuTTY-User-Key-File-3:"].iter().any(|start| line.starts_with(start));
    let age = line.strip_prefix(b"AGE-SECRET-KEY-1").is_some_and(|rest| rest.len() == 58);
    let wireguard = [&b"PrivateKey"[..], b"PresharedKey"].iter().any(|name| {
        let value = line.strip_prefix(*name).and_then(|rest| rest.trim_ascii_start().strip_prefix(b"="));
        value.map(<[u8]>::trim_ascii).is_some_and(|key| key.len() == 44 && is_base64(key))
    });
    putty || age || wireguard
}

/// True of a key in a string of JSON, in which clouds hand theirs out; `\n` stands there for the end of a line.
fn is_key_in_a_string(line: &[u8]) -> bool {
    each_behind(line, b"PRIVATE KEY-----").any(|rest| {
        let rest = rest.strip_prefix(b"\\r").unwrap_or(rest).strip_prefix(b"\\n");
        rest.and_then(|rest| rest.get(..32)).is_some_and(is_base64)
    })
}

/// What begins with `-----BEGIN` in base64, as keys do where Kubernetes has them: `client-key-data`, `tls.key`.
fn each_encoded(line: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    each_behind(line, b"LS0tLS1CRUdJ").filter_map(|rest| {
        // Nine bytes are twelve letters; what follows is whole bytes again.
        Some([b"-----BEGI", &decoded(until(rest, |byte| !is_of_base64(*byte)))?[..]].concat())
    })
}

/// True of a key by which Ceph knows a client or a server: in a keyring, the base64 of a number, a time, a length and 16 bytes
/// (`ceph-authtool(8)`).
fn is_of_ceph(line: &[u8]) -> bool {
    line.strip_prefix(b"key = ").is_some_and(|key| key.len() == 40 && key.starts_with(b"AQ") && is_base64(key))
}

/// True if a line names an algorithm of TSIG, as all of them begin (RFC 8945, 6), and there is a secret beside it, as BIND, DHCP, NSD
/// and Knot have it: `secret "...";`, `secret: ...`.
fn is_shared(content: &[u8], start: usize, end: usize) -> bool {
    /// How many lines of a key may lie between.
    const NEAR: usize = 4;
    if !content[start..end].windows(5).any(|part| part.eq_ignore_ascii_case(b"hmac-")) {
        return false;
    }
    let before = content[..start].rsplit(|byte| *byte == b'\n').take(NEAR).map(<[u8]>::trim_ascii);
    let is_near = before.chain(lines(&content[start..]).take(NEAR)).any(is_shared_secret);
    // What a program has in its documentation is none.
    is_near && !content.starts_with(b"#!") && each_behind(content, b"\n=head1").next().is_none()
}

fn is_shared_secret(line: &[u8]) -> bool {
    let is_comment = [&b"#"[..], b"//", b"/*", b"*", b";"].iter().any(|start| line.starts_with(start));
    let mut words =
        line.split(|byte| byte.is_ascii_whitespace() || b"{\"".contains(byte)).filter(|word| !word.is_empty());
    let is_named = words.any(|word| matches!(word, b"secret" | b"secret:"));
    let key = words.next().map(|word| word.strip_suffix(b";").unwrap_or(word)).unwrap_or_default();
    !is_comment
        && is_named
        && key.len() >= 16
        && key.len().is_multiple_of(4)
        && key.iter().copied().all(is_of_base64)
        && !key.iter().all(u8::is_ascii_alphabetic)
}

/// True of a setting by which pip is known to an index.
fn is_in_index(line: &[u8]) -> bool {
    // What stands for one in documentation.
    let is_word = |password: &[u8]| {
        let words = [&b"password"[..], b"passwd", b"pass", b"pw", b"secret", b"token", b"my_token"];
        words.iter().any(|word| password.eq_ignore_ascii_case(word))
    };
    let is_named = [&b"index-url"[..], b"index_url"].iter().any(|name| each_behind(line, name).next().is_some());
    is_named && !line.starts_with(b"#") && passwords(line).any(|password| !is_word(password))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_by_their_content() {
        let line = "A".repeat(64);
        let key = |name: &str| format!("text\n-----BEGIN {name}-----\n{line}\n-----END {name}-----\n");
        for name in ["PRIVATE KEY", "RSA PRIVATE KEY", "OPENSSH PRIVATE KEY", "ENCRYPTED PRIVATE KEY"] {
            assert_eq!(by_content(key(name).as_bytes()), Some("a private key"), "{name}");
        }
        assert_eq!(by_content(key("CERTIFICATE").as_bytes()), None);
        assert_eq!(by_content(key("PUBLIC KEY").as_bytes()), None);
        assert_eq!(by_content(b"match '-----BEGIN PRIVATE KEY-----'\n"), None);
        assert_eq!(by_content(b"-----BEGIN PRIVATE KEY-----\n...\n"), None, "documentation");
        let words = b"-----BEGIN PRIVATE KEY-----\nthis line is long enough to be one of a key\n";
        assert_eq!(by_content(words), None, "documentation");
        assert_eq!(by_content(b"-----BEGIN PRIVATE KEY----- and more\nA: b\n"), None);
        // RFC 1421, as OpenSSL encrypted keys before 1.0.
        let encrypted = format!("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: X,1\n\n{line}\n");
        assert_eq!(by_content(encrypted.as_bytes()), Some("a private key"));
    }

    #[test]
    fn keys_of_other_forms() {
        let line = "lQOYBGdLAAEBCADCvrhtCXaEQIMcW+jxSJ2hxeY0xRly";
        let pgp = |headers: &str| format!("-----BEGIN PGP PRIVATE KEY BLOCK-----\n{headers}\n{line}\n=9X0a\n");
        let account = format!("{{\n \"private_key\": \"-----BEGIN PRIVATE KEY-----\\n{line}\\n-----END\"\n}}");
        let wireguard = format!("[Interface]\nPrivateKey = {}=\n", &line[..43]);
        let age = format!("# created: 2026\nAGE-SECRET-KEY-1{}\n", "Q".repeat(58));
        let putty = "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n";
        for key in [&pgp(""), &pgp("Version: 1\nComment: x\n"), &account, &wireguard, &age, putty] {
            assert_eq!(by_content(key.as_bytes()), Some("a private key"), "{key}");
        }
        for text in [
            "-----BEGIN PGP PRIVATE KEY BLOCK-----\n",
            "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n...\n",
            "grep '-----BEGIN PGP PRIVATE KEY BLOCK-----'\n",
            "\"private_key\": \"-----BEGIN PRIVATE KEY-----\\n...\\n\"",
            "key = \"-----BEGIN PRIVATE KEY-----\\nlQOYBGdLAAEBCADCvrhtCXaEQIMcW+jxSJ2h\"",
            "PrivateKey = <the key of this machine>",
            "PrivateKey = KeyFactory.getInstance(algorithm).generate();",
            "if line.startswith('PuTTY-User-Key-File-3:'):",
            "AGE-SECRET-KEY-1...",
        ] {
            assert_eq!(by_content(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn keys_in_other_texts() {
        let line = "A".repeat(64);
        let pem = |start: &str, end: &str| format!("{start}-----BEGIN RSA PRIVATE KEY-----{end}{start}{line}{end}");
        let encoded = "LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0tCk1DNENBUUF3QlFZREsyVndCQ0lFSU9zVzBIYVJGUUtMeHNSL0pNWDk0c1p3\
                       V01ScEhEVy9DQjFyVmpxdlRaT1UKLS0tLS1FTkQgUFJJVkFURSBLRVktLS0tLQo=";
        for text in [
            format!("tls:\n  key: |\n{}", pem("    ", "\n")),
            format!("key: |\r\n{}", pem("\t", "\r\n")),
            format!("  -----BEGIN RSA PRIVATE KEY-----\n  Proc-Type: 4,ENCRYPTED\n  DEK-Info: X,1\n\n  {line}\n"),
            format!("{{\"key\": \"{}\"}}", pem("", "\\r\\n")),
            format!("[{{\"a\": \"PRIVATE KEY-----\", \"key\": \"{}\"}}]", pem("", "\\n")),
            format!("COLOUR=red\nexport TLS_KEY=\"{}\"\n", pem("", "\n")),
            format!("TLS_KEY={}\n", pem("", "\\n")),
            format!("users:\n- user:\n    client-key-data: {encoded}\n"),
            format!("{{\"tls.key\":\"{encoded}\"}}"),
            format!("#\n-----BEGIN OpenVPN Static key V1-----\n{}\n", "0123456789abcdef".repeat(2)),
            "Private-key-format: v1.3\nAlgorithm: 13 (ECDSAP256SHA256)\nPrivateKey: GU6SnQ==\n".to_owned(),
            format!("[Peer]\nPresharedKey = {}=\n", &line[..43]),
        ] {
            assert_eq!(by_content(text.as_bytes()), Some("a private key"), "{text}");
        }
        let certificate =
            "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1JSUJkRENDQVJtZ0F3SUJBZ0lVUkNRdVpIZHFHR0c4d0RoTWZ0Z1JCaz0K";
        for text in [
            "key: |\n  -----BEGIN RSA PRIVATE KEY-----\n  ...\n  -----END RSA PRIVATE KEY-----\n".to_owned(),
            "  -----BEGIN RSA PRIVATE KEY-----\n  as in: openssl genrsa\n".to_owned(),
            format!("const key = `{}`", pem("", "\n")),
            format!("certificate-authority-data: {certificate}\n"),
            "client-key-data: LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBLRVktLS0tLQo...\n".to_owned(),
            "-----BEGIN OpenVPN Static key V1-----\n[...]\n".to_owned(),
            "A key begins with Private-key-format: v1.3\n".to_owned(),
        ] {
            assert_eq!(by_content(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn what_services_share() {
        let key = "GU6SnQ1hKmEQpaYzJ3f0Zg==";
        for text in [
            format!("key \"rndc-key\" {{\n\talgorithm hmac-sha256;\n\tsecret \"{key}\";\n}};\n"),
            format!("key k {{ algorithm hmac-md5; secret {key}; }};\n"),
            format!("key k {{\n secret \"{key}\";\n algorithm HMAC-SHA512;\n}};\n"),
            format!("key:\n  name: k\n  algorithm: hmac-sha256\n  secret: \"{key}\"\n"),
            format!("[client.admin]\n\tkey = AQ{}==\n\tcaps mon = \"allow *\"\n", "Ab1".repeat(12)),
        ] {
            assert_eq!(by_content(text.as_bytes()), Some("credentials"), "{text}");
        }
        for text in [
            format!("#!/bin/sh\ncat << end\nkey k {{ algorithm hmac-md5; secret {key}; }};\n"),
            format!("package X;\n\n=head1 KEYS\n\n key k {{\n  algorithm hmac-md5;\n  secret \"{key}\";\n }};\n"),
            format!("// algorithm hmac-sha256;\n// secret \"{key}\";\n"),
            "key k { algorithm hmac-sha256; secret \"put your secret here\"; };\n".to_owned(),
            "algorithm hmac-sha256;\nsecret \"<base64>\";\n".to_owned(),
            format!("hmac-sha256\n1\n2\n3\n4\nsecret {key}\n"),
            "key = AQ...==\n".to_owned(),
        ] {
            assert_eq!(by_content(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn passwords_of_indices() {
        for text in ["index-url = https://me:hunter2@pypi.example.org/simple", "--extra-index-url https://a:b1@x/"] {
            assert_eq!(by_content(text.as_bytes()), Some("credentials"), "{text}");
        }
        for text in [
            "index-url = https://pypi.example.org/simple",
            "index-url = https://${NAME}:${PASSWORD}@pypi.example.org/simple",
            "--index-url https://user:password@pypi.example.org/simple",
            "# index-url = https://me:hunter2@pypi.example.org/simple",
        ] {
            assert_eq!(by_content(text.as_bytes()), None, "{text}");
        }
    }
}
