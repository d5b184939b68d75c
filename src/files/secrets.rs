//! What looks like a secret, by its name or by its first bytes.
//!
//! A guard, and no more: it knows the forms in which keys and tokens commonly lie about.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::PathBuf;
use std::sync::LazyLock;

use aho_corasick::AhoCorasick;

use super::{FileSet, Note, What};
use crate::path::JailPath;
use crate::root::Root;

/// Keys and tokens are small; a larger file is data.
const LARGEST: usize = 64 * 1024;

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
        let Some(content) = content else { return true };
        let Some(kind) = by_name(path).or_else(|| by_content(&content)).or_else(|| in_bytes(&content)) else {
            return true;
        };
        if allowed.iter().any(|allowed| path.starts_with(allowed)) {
            return true;
        }
        notes.push(Note::Secret { path: path.clone(), kind: kind.to_owned() });
        false
    });
}

/// The start of the file at `path`, if it is a file that can be read: what cannot be read is told of elsewhere.
fn from_root(path: &JailPath, root: &Root) -> Option<Vec<u8>> {
    root.facts(path).ok()?.filter(crate::path::Facts::is_file)?;
    head(root.open_file(path).ok()?)
}

fn head(file: impl Read) -> Option<Vec<u8>> {
    let mut content = Vec::with_capacity(LARGEST + 2);
    file.take(LARGEST as u64 + 1).read_to_end(&mut content).ok()?;
    Some(content)
}

/// What files of this name hold, if that is a secret.
fn by_name(path: &JailPath) -> Option<&'static str> {
    let name = path.file_name();
    let directory = path.parent().map(|parent| parent.file_name().to_vec()).unwrap_or_default();
    match (directory.as_slice(), name) {
        (
            _,
            b".netrc" | b".git-credentials" | b".pgpass" | b".my.cnf" | b".mylogin.cnf" | b".pypirc" | b".dockercfg"
            | b".vault-token" | b".erlang.cookie" | b".Xauthority" | b".msmtprc" | b".fetchmailrc"
            // Of Postfix, and of Samba: the passwords of its users, and its own in a domain.
            | b"sasl_passwd" | b"sasl_passwd.db" | b"passdb.tdb" | b"secrets.tdb",
        )
        | (b".aws" | b".gem", b"credentials")
        | (b".cargo", b"credentials" | b"credentials.toml")
        | (b".kube", b"config")
        | (b".docker", b"config.json")
        | (b"containers" | b".composer", b"auth.json")
        | (b".terraform.d", b"credentials.tfrc.json")
        | (b"gcloud", b"application_default_credentials.json" | b"credentials.db" | b"access_tokens.db")
        // Of apt's repositories, of Debian's Exim, and of dialling in.
        | (b"apt", b"auth.conf")
        | (b"auth.conf.d", _)
        | (b"exim4", b"passwd.client")
        | (b"ppp", b"chap-secrets" | b"pap-secrets") => Some("credentials"),
        // Of Kerberos (MIT and Heimdal), and of desktops.
        (_, name) if name.ends_with(b".keytab") => Some("credentials"),
        (b"keyrings", name) if name.ends_with(b".keyring") && is_of_a_user(path) => Some("credentials"),
        // Of GnuPG: what its agent keeps, since 2.1, and what came before that.
        (b"private-keys-v1.d", name) if name.ends_with(b".key") => Some("a private key"),
        (_, b"secring.gpg") => Some("a private key"),
        // vim's has what was typed, sought and copied.
        (_, b".viminfo" | b".lesshst" | b".histfile") => Some("a history of commands"),
        (_, name) if name.starts_with(b".") && name.ends_with(b"history") => Some("a history of commands"),
        (b"bin", _) => None,
        (_, name) if (name == b"history" || name.ends_with(b"_history")) && is_of_a_user(path) => {
            Some("a history of commands")
        }
        // Of Firefox and of Chromium, whose files of such names lie in a profile of `.mozilla` or `.config`.
        (_, b"cookies.sqlite" | b"logins.json" | b"key4.db" | b"Cookies" | b"Login Data") if is_of_a_user(path) => {
            Some("credentials")
        }
        (_, b"places.sqlite" | b"History") if is_of_a_user(path) => Some("a history of a browser"),
        _ => None,
    }
}

/// True if one of the four directories above `path` has a dot before its name, as those have in which programs keep what is their
/// user's: `.local/share/fish`, `.ghc`. What lies deeper there is mostly an installed program.
fn is_of_a_user(path: &JailPath) -> bool {
    std::iter::successors(path.parent(), JailPath::parent).take(4).any(|above| above.file_name().starts_with(b"."))
}

/// What every secret that is known by its content has somewhere: most files have none of it, and are done with.
static TELLING: LazyLock<AhoCorasick> = LazyLock::new(|| {
    let parts = [
        "PRIVATE KEY",
        "PrivateKey",
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
        "xoxb-",
        "xoxp-",
        "npm_",
        ":_authToken=",
    ];
    AhoCorasick::new(parts).expect("so few and short patterns are an automaton")
});

/// What a file with this content is, if that is a secret.
fn by_content(content: &[u8]) -> Option<&'static str> {
    if content.len() > LARGEST || content.contains(&0) || !TELLING.is_match(content) {
        return None;
    }
    let is_json = content.trim_ascii_start().starts_with(b"{");
    let mut lines = content.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii_end).peekable();
    while let Some(line) = lines.next() {
        // RFC 7468; "OPENSSH PRIVATE KEY" is of the same form. A header without a key behind it is only text.
        let is_header = line.starts_with(b"-----BEGIN ") && line.ends_with(b"PRIVATE KEY-----");
        if is_header && lines.peek().is_some_and(|next| is_base64(next) || next.contains(&b':')) {
            return Some("a private key");
        }
        // RFC 9580, 6.2: headers may follow, then there is an empty line, and the key behind that.
        if line == b"-----BEGIN PGP PRIVATE KEY BLOCK-----"
            && lines
                .clone()
                .skip_while(|next| next.contains(&b':'))
                .find(|next| !next.is_empty())
                .is_some_and(is_base64)
        {
            return Some("a private key");
        }
        if is_key_in_a_line(line) || (is_json && is_key_in_a_string(line)) {
            return Some("a private key");
        }
        if is_for_npm(line)
            || line.split(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'_' || *byte == b'-')).any(is_token)
        {
            return Some("a token");
        }
    }
    None
}

/// True of a key of `PuTTY`, of age and of `WireGuard`.
fn is_key_in_a_line(line: &[u8]) -> bool {
    let putty = [&b"PuTTY-User-Key-File-2:"[..], b"PuTTY-User-Key-File-3:"].iter().any(|start| line.starts_with(start));
    let age = line.strip_prefix(b"AGE-SECRET-KEY-1").is_some_and(|rest| rest.len() == 58);
    let value = line.strip_prefix(b"PrivateKey").and_then(|rest| rest.trim_ascii_start().strip_prefix(b"="));
    let wireguard = value.map(<[u8]>::trim_ascii).is_some_and(|key| key.len() == 44 && is_base64(key));
    putty || age || wireguard
}

/// True of a key in a string of JSON, in which clouds hand theirs out; `\n` stands there for the end of a line.
fn is_key_in_a_string(line: &[u8]) -> bool {
    behind(line, b"PRIVATE KEY-----\\n").and_then(|rest| rest.get(..32)).is_some_and(is_base64)
}

/// What stands behind the first `mark` of a line.
fn behind<'a>(line: &'a [u8], mark: &[u8]) -> Option<&'a [u8]> {
    let at = line.windows(mark.len()).position(|part| part == mark)?;
    line.get(at + mark.len()..)
}

/// What it is that has a private key among bytes that are no text: a store of keys that only says whom to trust has none.
fn in_bytes(content: &[u8]) -> Option<&'static str> {
    // RFC 7292, 4.2.2: the type of a bag with an encrypted private key, in DER.
    let bag = b"\x06\x0b\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x0a\x01\x02";
    let pkcs12 = content.starts_with(b"\x30") && content.windows(bag.len()).any(|part| part == bag);
    // Java's own form: a number, a version, how many there are, and what the first one is.
    let java = content.starts_with(b"\xfe\xed\xfe\xed") && content.get(12..16) == Some(&[0, 0, 0, 1]);
    // Of Tor: who a relay or a hidden service is.
    let tor = content.starts_with(b"== ed25519v1-secret:");
    (pkcs12 || java || tor).then_some("a private key")
}

fn is_base64(line: &[u8]) -> bool {
    line.len() >= 32 && line.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(byte))
}

/// True of the line of an `.npmrc` by which npm is known to a registry, but for one that names a variable.
fn is_for_npm(line: &[u8]) -> bool {
    let token = behind(line, b":_authToken=").unwrap_or_default();
    line.starts_with(b"//") && token.len() >= 20 && token.iter().any(u8::is_ascii_digit) && !token.contains(&b'$')
}

/// True for the access tokens that say by their form what they are.
fn is_token(word: &[u8]) -> bool {
    let rest = |prefix: &[u8], least: usize| {
        word.strip_prefix(prefix).is_some_and(|rest| rest.len() >= least && rest.iter().any(u8::is_ascii_digit))
    };
    let github = [&b"ghp_"[..], b"gho_", b"ghs_", b"ghu_", b"ghr_"].iter().any(|prefix| rest(prefix, 36));
    let amazon = word.len() == 20
        && word.starts_with(b"AKIA")
        && !word.ends_with(b"EXAMPLE")
        && word.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    github
        || amazon
        || (rest(b"npm_", 36) && word[4..].iter().all(u8::is_ascii_alphanumeric))
        || rest(b"github_pat_", 22)
        || rest(b"glpat-", 20)
        || rest(b"xoxb-", 24)
        || rest(b"xoxp-", 24)
}

/// True if an environment variable looks as if its value were a secret.
pub fn is_secret_variable(name: &str, value: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let telling =
        ["PASSWORD", "PASSWD", "SECRET", "TOKEN", "API_KEY", "APIKEY", "ACCESS_KEY", "PRIVATE_KEY", "CREDENTIALS"];
    // `..._FILE` names where a secret is, by custom of many images.
    let named = telling.iter().any(|word| name.contains(word)) && !name.ends_with("_FILE") && !name.ends_with("_PATH");
    (named && !value.is_empty()) || by_content(value.as_bytes()).is_some()
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
    fn stores_of_keys() {
        let bag = b"\x30\x82\x0a\x00\x06\x0b\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x0a\x01";
        let store = |last: u8| [&bag[..], &[last, 0xa0]].concat();
        assert_eq!(in_bytes(&store(2)), Some("a private key"));
        assert_eq!(in_bytes(&store(3)), None, "a certificate");
        assert_eq!(in_bytes(b"== ed25519v1-secret: type0 ==\0\0\0\x20\x8b"), Some("a private key"));
        assert_eq!(in_bytes(b"== ed25519v1-public: type0 ==\0\0\0\x20\x8b"), None);
        let java = |kind: u8| [&b"\xfe\xed\xfe\xed\0\0\0\x02\0\0\0\x01\0\0\0"[..], &[kind, 0]].concat();
        assert_eq!(in_bytes(&java(1)), Some("a private key"));
        assert_eq!(in_bytes(&java(2)), None, "a certificate");
    }

    #[test]
    fn tokens_by_their_form() {
        let github = format!("url = https://ghp_{}@example.org", "a1".repeat(18));
        assert_eq!(by_content(github.as_bytes()), Some("a token"));
        assert_eq!(by_content(b"AKIAIOSFODNN7EXAMPLE"), None, "the one of Amazon's documentation");
        assert_eq!(by_content(b"AKIAIOSFODNN7ABCDEFG"), Some("a token"));
        assert_eq!(by_content(b"ghp_short"), None);
        for prefix in ["ghp_", "gho_", "ghs_", "ghu_", "ghr_", "github_pat_", "glpat-", "xoxb-", "xoxp-"] {
            let [token, word] = ["a1", "ab"].map(|part| format!("key = '{prefix}{}'", part.repeat(20)));
            assert_eq!(by_content(token.as_bytes()), Some("a token"), "{token}");
            assert_eq!(by_content(word.as_bytes()), None, "{word}: a name, by custom without a digit");
        }
        let npm = format!("//registry.npmjs.org/:_authToken=npm_{}", "a1".repeat(18));
        let other = "//npm.example.org/:_authToken=0b1c7c6c-52a4-4a0f-9c0e-1f6a3f6c8f11";
        assert_eq!([npm.as_str(), other].map(|line| by_content(line.as_bytes())), [Some("a token"); 2]);
        for line in
            ["//registry.npmjs.org/:_authToken=${NPM_TOKEN_OF_STAGE_2}", "//registry.npmjs.org/:_authToken=myToken"]
        {
            assert_eq!(by_content(line.as_bytes()), None, "{line}");
        }
        let others = ["AKIAiosfodnn7abcdefg", "AKIAIOSFODNN7ABCDEFGH", "XAKIAIOSFODNN7ABCDEF"];
        assert_eq!(others.map(|word| by_content(word.as_bytes())), [None; 3]);
    }

    #[test]
    fn files_by_their_name() {
        let kind = |text: &str| by_name(&JailPath::parse(text.as_bytes()).unwrap());
        for path in [
            "/root/.netrc",
            "/h/.aws/credentials",
            "/h/.kube/config",
            "/h/.git-credentials",
            "/var/lib/rabbitmq/.erlang.cookie",
            "/h/.config/gcloud/application_default_credentials.json",
            "/h/.terraform.d/credentials.tfrc.json",
            "/h/.local/share/keyrings/login.keyring",
            "/etc/postfix/sasl_passwd.db",
            "/etc/apt/auth.conf.d/private.conf",
            "/var/lib/samba/private/secrets.tdb",
            "/etc/krb5.keytab",
        ] {
            assert_eq!(kind(path), Some("credentials"), "{path}");
        }
        assert_eq!(kind("/h/.config/chromium/Default/Network/Cookies"), Some("credentials"));
        for path in ["/h/.gnupg/private-keys-v1.d/5319D09075B15E71.key", "/h/.gnupg/secring.gpg"] {
            assert_eq!(kind(path), Some("a private key"), "{path}");
        }
        assert_eq!(kind("/h/.mozilla/firefox/a1.default/places.sqlite"), Some("a history of a browser"));
        let histories = [".bash_history", ".history", ".Rhistory", ".viminfo", ".local/share/octave/history"];
        for path in histories.iter().chain(&[".local/share/fish/fish_history", ".ghc/ghci_history"]) {
            assert_eq!(kind(&format!("/h/{path}")), Some("a history of commands"), "{path}");
        }
        for path in [
            "/etc/config",
            "/usr/share/aws/credentials",
            "/usr/share/doc/bash_history",
            "/usr/share/firefox/key4.db",
            "/h/.config/x.conf",
            "/usr/share/keyrings/debian-archive.keyring",
            "/h/.gnupg/private-keys-v1.d",
            "/h/.gnupg/pubring.gpg",
            "/srv/history",
            "/srv/www/places.sqlite",
            "/.h/history.js",
            "/h/.local/bin/x_history",
            "/h/.pyenv/versions/3/lib/x/history",
        ] {
            assert_eq!(kind(path), None, "{path}");
        }
    }

    #[test]
    fn variables() {
        assert!(is_secret_variable("DB_PASSWORD", "x") && is_secret_variable("GITHUB_TOKEN", "x"));
        assert!(!is_secret_variable("DB_PASSWORD_FILE", "/run/secrets/db") && !is_secret_variable("LANG", "C"));
        assert!(!is_secret_variable("CREDENTIALS_PATH", "/x") && !is_secret_variable("DB_PASSWORD", ""));
        assert!(is_secret_variable("CI", &format!("ghp_{}", "a1".repeat(18))));
    }
}
