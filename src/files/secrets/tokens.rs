//! Tokens, which say by their form whose they are.

use super::base64::{decoded, is_of_base64};
use super::urls::{each_behind, until};

/// True of the line of an `.npmrc` by which npm is known to a registry, but for one that names a variable.
pub(super) fn is_for_npm(line: &[u8]) -> bool {
    let token = each_behind(line, b":_authToken=").next().unwrap_or_default();
    line.starts_with(b"//") && token.len() >= 20 && token.iter().any(u8::is_ascii_digit) && !token.contains(&b'$')
}

/// True for a line with an access token that says by its form what it is.
pub(super) fn is_token(line: &[u8]) -> bool {
    let is_of_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte == b'-';
    let words = |has_dots: bool| line.split(move |byte| !(is_of_word(byte) || (has_dots && *byte == b'.')));
    is_half_of_amazon(line)
        || words(false).any(is_token_without_dots)
        || words(true).any(|word| is_of_vault(word) || is_web_token(word))
}

fn is_token_without_dots(word: &[u8]) -> bool {
    /// What tokens begin with, and the least that is behind it: so much, and a digit, that it is no name.
    const STARTS: [(&[u8], usize); 16] = [
        // GitHub, GitLab.
        (b"ghp_", 36),
        (b"gho_", 36),
        (b"ghs_", 36),
        (b"ghu_", 36),
        (b"ghr_", 36),
        (b"github_pat_", 22),
        (b"glpat-", 20),
        // Slack.
        (b"xoxb-", 24),
        (b"xoxp-", 24),
        (b"xoxa-", 24),
        (b"xoxe-", 24),
        (b"xapp-", 24),
        // Stripe, of what is for money.
        (b"sk_live_", 24),
        (b"rk_live_", 24),
        // PyPI: the base64 of a macaroon of version 2 begins so, which names the place.
        (b"pypi-AgEIcHlwaS5vcmc", 50),
        (b"pypi-AgENdGVzdC5weXBpLm9yZw", 50),
    ];
    let starts = STARTS.iter().any(|(start, least)| {
        word.strip_prefix(*start).is_some_and(|rest| rest.len() >= *least && rest.iter().any(u8::is_ascii_digit))
    });
    starts || is_of_amazon(word) || is_of_npm(word) || is_of_hugging_face(word) || is_of_model(word)
}

/// A key's number, or that of one that is for hours.
fn is_of_amazon(word: &[u8]) -> bool {
    word.len() == 20
        && (word.starts_with(b"AKIA") || (word.starts_with(b"ASIA") && word.iter().any(u8::is_ascii_digit)))
        && !word.ends_with(b"EXAMPLE")
        && word.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

fn is_of_npm(word: &[u8]) -> bool {
    word.strip_prefix(b"npm_").is_some_and(|rest| {
        rest.len() >= 36 && rest.iter().all(u8::is_ascii_alphanumeric) && rest.iter().any(u8::is_ascii_digit)
    })
}

/// Behind its start are 34 letters, seldom a digit among them.
fn is_of_hugging_face(word: &[u8]) -> bool {
    word.strip_prefix(b"hf_")
        .is_some_and(|rest| rest.len() == 34 && rest.iter().all(u8::is_ascii_alphanumeric) && is_mixed(rest))
}

/// True of the key of somebody who asks a model of Anthropic's or `OpenAI`'s.
fn is_of_model(word: &[u8]) -> bool {
    // The number in the start of one is no digit of the key.
    let behind = |start: &[u8]| word.strip_prefix(start).and_then(|rest| rest.get(6..));
    let key = behind(b"sk-ant-").or_else(|| behind(b"sk-proj-")).or_else(|| {
        let is_older = each_behind(word, b"T3BlbkFJ").next().is_some();
        behind(b"sk-").filter(|_| is_older)
    });
    key.is_some_and(|key| key.len() >= 32 && key.iter().any(u8::is_ascii_digit) && is_mixed(key))
}

/// True of a key of Google's, if nothing else is in the setting. Programs have keys of this form in themselves that are no secrets,
/// by which Google tells them apart.
pub(super) fn is_of_google(value: &[u8]) -> bool {
    /// Of Debian's Chromium, in `/etc/chromium.d/apikeys`.
    const KNOWN: &[u8] = b"AIzaSyCkfPOPZXDKNn8hhgu3JrA62wIgC93d44k";
    let key = value.trim_ascii().strip_suffix(b"\"").or_else(|| value.strip_suffix(b"'")).unwrap_or(value);
    let is_of_key = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
    key.len() == 39 && key.starts_with(b"AIza") && key.iter().all(is_of_key) && is_mixed(&key[4..]) && key != KNOWN
}

/// True of the line that gives the secret half of Amazon's keys, in the names that its tools have for it.
fn is_half_of_amazon(line: &[u8]) -> bool {
    let marks = [&b"aws_secret_access_key"[..], b"AWS_SECRET_ACCESS_KEY"];
    let values = marks.into_iter().flat_map(|mark| each_behind(line, mark));
    let mut keys = values.map(|value| {
        let is_between = |byte: &&u8| byte.is_ascii_whitespace() || b"=:\"'".contains(*byte);
        let start = value.iter().take_while(is_between).count();
        (start, until(&value[start..], |byte| !is_of_base64(*byte)))
    });
    keys.any(|(start, key)| {
        let is_known = each_behind(key, b"EXAMPLE").next().is_some();
        start > 0 && key.len() == 40 && !is_known && key.iter().any(u8::is_ascii_digit) && is_mixed(key)
    })
}

/// Of what it has issued since 1.10; one of the root is the shortest.
fn is_of_vault(word: &[u8]) -> bool {
    word.strip_prefix(b"hvs.").is_some_and(|rest| {
        rest.len() >= 24 && !rest.contains(&b'.') && rest.iter().any(u8::is_ascii_digit) && is_mixed(rest)
    })
}

fn is_mixed(word: &[u8]) -> bool {
    word.iter().any(u8::is_ascii_uppercase) && word.iter().any(u8::is_ascii_lowercase)
}

/// True of a JSON Web Token: two objects and a signature (RFC 7519, 3; RFC 7515, 3.1).
fn is_web_token(word: &[u8]) -> bool {
    /// Of 32 bytes, as those by SHA-256 have at the least (RFC 7518, 3.2).
    const SHORTEST: usize = 43;
    let mut parts = word.split(|byte| *byte == b'.').filter(|part| !part.is_empty());
    let [header, claims, signature] = [(); 3].map(|()| parts.next().unwrap_or_default());
    if !header.starts_with(b"eyJ")
        || !claims.starts_with(b"eyJ")
        || signature.len() < SHORTEST
        || parts.next().is_some()
    {
        return false;
    }
    let object = |part: &[u8]| decoded(part).filter(|text| text.starts_with(b"{\"") && text.ends_with(b"}"));
    let has = |text: &[u8], name: &'static [u8]| each_behind(text, name).next().is_some();
    let (Some(header), Some(claims)) = (object(header), object(claims)) else { return false };
    // Who has it is told of in registered claims (RFC 7519, 4.1); the one with this name stands in documentation. What is signed with a
    // certificate beside it is a statement for everybody.
    let is_of_somebody = [&b"\"iss\""[..], b"\"sub\"", b"\"aud\"", b"\"exp\""].iter().any(|name| has(&claims, name));
    has(&header, b"\"alg\"") && !has(&header, b"\"x5c\"") && is_of_somebody && !has(&claims, b"\"1234567890\"")
}

#[cfg(test)]
mod tests {
    use super::super::content::by_content;

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
    fn tokens_of_others() {
        let mixed = "aB3".repeat(40);
        for token in [
            "ASIAIOSFODNN7ABCDEFG".to_owned(),
            format!("hf_{}", "aBcDe".repeat(7).split_at(34).0),
            format!("AIza{}", &mixed[..35]),
            format!("export GOOGLE_API_KEY=\"AIza{}\"", &mixed[..35]),
            format!("sk_live_{}", &mixed[..24]),
            format!("rk_live_{}", &mixed[..24]),
            format!("xapp-1-{}", &mixed[..40]),
            format!("xoxe.xoxp-1-{}", &mixed[..40]),
            format!("password = pypi-AgEIcHlwaS5vcmc{}", &mixed[..60]),
            format!("token: hvs.{}", &mixed[..24]),
            format!("sk-ant-api03-{}", &mixed[..93]),
            format!("'sk-proj-{}'", &mixed[..100]),
            format!("sk-{}T3BlbkFJ{}", &mixed[..20], &mixed[..20]),
            format!("aws_secret_access_key = {}/+{}", &mixed[..19], &mixed[..19]),
            format!("AWS_SECRET_ACCESS_KEY='{}'", &mixed[..40]),
        ] {
            assert_eq!(by_content(token.as_bytes()), Some("a token"), "{token}");
        }
        for word in [
            "AWS_DEFAULT_REGION: ASIAPACIFICSOUTHEAST".to_owned(),
            "hf_hub_download_of_some_file_of_all_x".to_owned(),
            format!("const key = 'AIza{}';", &mixed[..35]),
            "export GOOGLE_API_KEY=\"AIzaSyCkfPOPZXDKNn8hhgu3JrA62wIgC93d44k\"".to_owned(),
            format!("sk_test_{}", &mixed[..24]),
            "sk_live_the_name_of_a_variable_that_is_long".to_owned(),
            "pypi-AgEIcHlwaS5vcmc...".to_owned(),
            "self.hvs.update_all_of_these_values2".to_owned(),
            "sk-ant-api03-your-key-stands-here-and-is-long-enough".to_owned(),
            "sk-proj-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx".to_owned(),
            "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
            format!("aws_secret_access_key = ${{{}}}", &mixed[..40]),
        ] {
            assert_eq!(by_content(word.as_bytes()), None, "{word}");
        }
    }

    #[test]
    fn web_tokens() {
        // {"alg":"HS256"}, {"iss":"a"}, {"sub":"1234567890"}, {"a":"b"}, {"alg":"RS256","x5c":[]}
        let [header, claims, known, other, public] = [
            "eyJhbGciOiJIUzI1NiJ9",
            "eyJpc3MiOiJhIn0",
            "eyJzdWIiOiIxMjM0NTY3ODkwIn0",
            "eyJhIjoiYiJ9",
            "eyJhbGciOiJSUzI1NiIsIng1YyI6W119",
        ];
        let signature = "a-_4".repeat(11);
        let token = |parts: &[&str]| format!("Authorization: Bearer {}.", parts.join("."));
        assert_eq!(by_content(token(&[header, claims, &signature]).as_bytes()), Some("a token"));
        for parts in [
            &[header, claims][..],
            &[header, claims, "eyJhbGci"],
            &[header, known, &signature],
            &[header, other, &signature],
            &[public, claims, &signature],
            &[other, claims, &signature],
            &["eyJhbGci!", claims, &signature],
            &[header, "eyJhbGciOiJIUzI1Ni", &signature],
            &[header, claims, &signature, &signature],
        ] {
            assert_eq!(by_content(token(parts).as_bytes()), None, "{parts:?}");
        }
    }
}
