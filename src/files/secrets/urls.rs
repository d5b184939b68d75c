//! Passwords in URLs and in settings.

/// What stands behind each `mark` of a text.
pub(super) fn each_behind<'a>(text: &'a [u8], mark: &'static [u8]) -> impl Iterator<Item = &'a [u8]> {
    let starts = text.windows(mark.len()).enumerate().filter(move |(_, part)| *part == mark);
    starts.map(move |(at, _)| &text[at + mark.len()..])
}

/// The passwords that the URLs in a text have (RFC 3986, 3.2.1: `user:password@` before the host).
pub(super) fn passwords(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let found = each_behind(text, b"://").filter_map(|rest| {
        let authority = until(rest, |byte| byte.is_ascii_whitespace() || b"/?#\"'`<>\\|".contains(byte));
        let user = authority.get(..authority.iter().rposition(|byte| *byte == b'@')?)?;
        user.get(user.iter().position(|byte| *byte == b':')? + 1..)
    });
    found.filter(|password| is_one(password))
}

/// True if a setting in `text` has a password for its value, as `-Dkey.password=...` and `?token=...`.
pub(super) fn sets_password(text: &[u8]) -> bool {
    // What only ends like these may be a number, as of how many tokens there may be.
    const SHORTEST: usize = 8;
    let text_in_small = text.to_ascii_lowercase();
    let marks: [(&[u8], usize); 4] =
        [(b"password=", 1), (b"passwd=", 1), (b"secret=", SHORTEST), (b"token=", SHORTEST)];
    marks.into_iter().any(|(mark, least)| {
        each_behind(&text_in_small, mark).any(|rest| {
            let rest = rest.strip_prefix(b"\"").or_else(|| rest.strip_prefix(b"'")).unwrap_or(rest);
            let value = until(rest, |byte| byte.is_ascii_whitespace() || b"\"'`&;,)".contains(byte));
            // It is said where the secret is; or it is the one that Java's certificates have everywhere.
            let is_known = value.starts_with(b"/") || value.starts_with(b"file:") || value == b"changeit";
            value.len() >= least && is_one(value) && !is_known
        })
    })
}

/// True if this is a password, and not the place of one that is filled in later.
fn is_one(text: &[u8]) -> bool {
    let is_place = [&b"$"[..], b"{", b"%(", b"<", b"["].iter().any(|start| text.starts_with(start));
    !is_place && text.iter().any(|byte| !b"*.xX".contains(byte))
}

/// What stands before the first byte that is an end; all, if there is none.
pub(super) fn until(text: &[u8], is_end: impl Fn(&u8) -> bool) -> &[u8] {
    text.split(is_end).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_urls() {
        let found = |text: &'static str| passwords(text.as_bytes()).collect::<Vec<_>>();
        assert_eq!(found("postgres://app:s3cret@db:5432/app?x=a@b"), [b"s3cret"]);
        assert_eq!(found("a = 'http://u:p@ss@h', b = \"amqp://:x1@h\""), [&b"p@ss"[..], b"x1"]);
        for text in [
            "https://example.org:8080/@scope/a",
            "ssh://git@example.org/a:b",
            "http://proxy:3128",
            "https://user:$PASSWORD@example.org",
            "https://user:${PASSWORD}@example.org",
            "https://user:<password>@example.org",
            "https://user:****@example.org",
            "https://user:@example.org",
            "http://a/ and b: me@example.org",
        ] {
            assert!(found(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn passwords_in_settings() {
        for text in [
            "-Xmx1g -Djavax.net.ssl.keyStorePassword=hunter2 -Dx=y",
            "Server=db;Password='hunter2';",
            "https://example.org/?token=0123456789",
            "client_secret=abcdefgh",
        ] {
            assert!(sets_password(text.as_bytes()), "{text}");
        }
        for text in [
            "-Dpassword= -Dx=y",
            "-Djavax.net.ssl.trustStorePassword=changeit",
            "--password=$PASSWORD",
            "--password=\"$(cat /run/secrets/db)\"",
            "--password=/run/secrets/db",
            "--max-token=4096",
            "--password-file=/x",
        ] {
            assert!(!sets_password(text.as_bytes()), "{text}");
        }
    }
}
