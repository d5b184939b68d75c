//! Private keys among bytes that are no text: in DER, and in the stores of programs.

use super::START;

/// What it is that has a private key among bytes that are no text: a store of keys that only says whom to trust has none.
pub(super) fn in_bytes(content: &[u8]) -> Option<&'static str> {
    // RFC 7292, 4.2.2: the type of a bag with an encrypted private key, in DER.
    let bag = b"\x06\x0b\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x0a\x01\x02";
    let pkcs12 = content.starts_with(b"\x30") && content.windows(bag.len()).any(|part| part == bag);
    // Of Tor: who a relay or a hidden service is.
    let tor = content.starts_with(b"== ed25519v1-secret:");
    (pkcs12 || has_java_key(content) || tor || is_der_key(content)).then_some("a private key")
}

/// True of what may be a store of Java's.
pub(super) fn is_java_store(content: &[u8]) -> bool {
    content.starts_with(b"\xfe\xed\xfe\xed") || content.starts_with(b"\xce\xce\xce\xce")
}

/// True if a store of Java's, JKS or JCEKS, has a key. As `OpenJDK`'s `JavaKeyStore.engineLoad` and `JceKeyStore.engineLoad` read it: a
/// number, a version, how many there are; then of each what it is, a name, a date, and the certificate or the key.
fn has_java_key(content: &[u8]) -> bool {
    if !is_java_store(content) {
        return false;
    }
    let (has_kinds, count) = (number::<4>(content, 4) == Some(2), number::<4>(content, 8));
    let mut at = 12;
    for _ in 0..count.unwrap_or(0) {
        match number::<4>(content, at) {
            // A private key, and in JCEKS a secret one.
            Some(1 | 3) => return true,
            Some(2) => {}
            _ => return false,
        }
        let Some(next) = behind_certificate(content, at + 4, has_kinds) else { return false };
        at = next;
    }
    false
}

/// Where the next one of a store begins. A certificate has a name, a date, since version 2 a kind, and how long it is.
fn behind_certificate(content: &[u8], at: usize, has_kinds: bool) -> Option<usize> {
    let at = at + 2 + number::<2>(content, at)? + 8;
    let at = if has_kinds { at + 2 + number::<2>(content, at)? } else { at };
    (at + 4).checked_add(number::<4>(content, at)?)
}

/// The number in `N` bytes from `at` on, the highest first.
fn number<const N: usize>(content: &[u8], at: usize) -> Option<usize> {
    let bytes = content.get(at..at.checked_add(N)?)?;
    Some(bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
}

const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const OBJECT: u8 = 0x06;
const SEQUENCE: u8 = 0x30;

/// One value of DER: what it is, and its content.
type Value<'a> = (u8, &'a [u8]);

/// True if this is a private key in DER, and nothing else.
fn is_der_key(content: &[u8]) -> bool {
    if content.len() > START || content.first() != Some(&SEQUENCE) {
        return false;
    }
    let outermost = values(content).unwrap_or_default();
    let [(SEQUENCE, inside)] = outermost.as_slice() else { return false };
    match values(inside).unwrap_or_default().as_slice() {
        // RFC 5958, 2 (PKCS#8): a version, how the key is used, the key, and attributes or the public key, which have tags of their own.
        [(INTEGER, [0 | 1]), (SEQUENCE, algorithm), (OCTET_STRING, key), rest @ ..] => {
            !key.is_empty() && is_of_keys(algorithm) && rest.iter().all(|(tag, _)| tag & 0xc0 == 0x80)
        }
        // RFC 5958, 3: how it is encrypted, and the key.
        [(SEQUENCE, algorithm), (OCTET_STRING, key)] => !key.is_empty() && encrypts(algorithm),
        // RFC 5915, 3: an elliptic curve's; the curve and the public key have tags of their own.
        [(INTEGER, [1]), (OCTET_STRING, key), rest @ ..] => {
            (16..=72).contains(&key.len()) && !rest.is_empty() && rest.iter().all(|(tag, _)| matches!(tag, 0xa0 | 0xa1))
        }
        // RFC 8017, A.1.2 (PKCS#1): the modulus and seven more. OpenSSL's form of DSA has four behind the prime.
        [(INTEGER, [0]), (INTEGER, modulus), rest @ ..] => {
            modulus.len() >= 64 && matches!(rest.len(), 4 | 7) && rest.iter().all(|(tag, _)| *tag == INTEGER)
        }
        _ => false,
    }
}

/// All of the values that `content` consists of; none if it does not.
fn values(mut content: &[u8]) -> Option<Vec<Value<'_>>> {
    let mut values = Vec::new();
    while let [tag, length, rest @ ..] = content {
        // X.690, 8.1.3: up to 127 is the length itself; else so many bytes follow that say it.
        let (length, rest) = match usize::from(*length) {
            short @ 0..=127 => (short, rest),
            0x81 => (number::<1>(rest, 0)?, &rest[1..]),
            0x82 => (number::<2>(rest, 0)?, &rest[2..]),
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        values.push((*tag, value));
        content = rest;
    }
    content.is_empty().then_some(values)
}

/// The name of an algorithm, if there is one, and what is behind it.
fn named(algorithm: &[u8]) -> Option<&[u8]> {
    match values(algorithm)?.as_slice() {
        [(OBJECT, name)] | [(OBJECT, name), _] => Some(name),
        _ => None,
    }
}

/// True of an algorithm that has private keys.
fn is_of_keys(algorithm: &[u8]) -> bool {
    let arcs = [
        // 1.2.840: of RSA, DSA, Diffie and Hellman, elliptic curves.
        &b"\x2a\x86\x48"[..],
        // 1.3.101: X25519 and Ed25519, with 448 (RFC 8410).
        b"\x2b\x65",
        // 2.16.840.1.101.3.4: of NIST, as ML-DSA.
        b"\x60\x86\x48\x01\x65\x03\x04",
    ];
    named(algorithm).is_some_and(|name| arcs.iter().any(|arc| name.starts_with(arc)))
}

/// True of encryption by a password.
fn encrypts(algorithm: &[u8]) -> bool {
    // 1.2.840.113549.1.5 (PKCS#5, RFC 8018) and 1.2.840.113549.1.12.1 (PKCS#12, RFC 7292).
    let arcs = [&b"\x2a\x86\x48\x86\xf7\x0d\x01\x05"[..], b"\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x01"];
    named(algorithm).is_some_and(|name| arcs.iter().any(|arc| name.starts_with(arc)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_of_keys() {
        let bag = b"\x30\x82\x0a\x00\x06\x0b\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x0a\x01";
        let store = |last: u8| [&bag[..], &[last, 0xa0]].concat();
        assert_eq!(in_bytes(&store(2)), Some("a private key"));
        assert_eq!(in_bytes(&store(3)), None, "a certificate");
        assert_eq!(in_bytes(b"== ed25519v1-secret: type0 ==\0\0\0\x20\x8b"), Some("a private key"));
        assert_eq!(in_bytes(b"== ed25519v1-public: type0 ==\0\0\0\x20\x8b"), None);
    }

    #[test]
    fn stores_of_java() {
        let entry = |kind: u8| [&[0, 0, 0, kind, 0, 1], &b"a\0\0\0\0\0\0\0\0\0\x05X.509\0\0\0\x02\x30\0"[..]].concat();
        let store = |magic: &[u8], kinds: &[u8]| {
            let entries: Vec<u8> = kinds.iter().flat_map(|kind| entry(*kind)).collect();
            [magic, &[0, 0, 0, 2, 0, 0, 0, kinds.len() as u8], &entries].concat()
        };
        let (jks, jceks) = (b"\xfe\xed\xfe\xed", b"\xce\xce\xce\xce");
        for magic in [jks, jceks] {
            assert_eq!(in_bytes(&store(magic, &[1])), Some("a private key"));
            assert_eq!(in_bytes(&store(magic, &[2, 2, 1])), Some("a private key"), "behind certificates");
            assert_eq!(in_bytes(&store(magic, &[2, 2])), None, "certificates");
            assert_eq!(in_bytes(&store(magic, &[])), None);
            assert_eq!(in_bytes(&[&magic[..], &[0xff; 60]].concat()), None, "no store");
        }
        assert_eq!(in_bytes(&store(jceks, &[2, 3])), Some("a private key"), "a secret one");
    }

    fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let length = (content.len() as u16).to_be_bytes();
        [&[tag, 0x82], &length[..], &content].concat()
    }

    #[test]
    fn keys_in_der() {
        let (version, one) = (der(INTEGER, &[&[0]]), der(INTEGER, &[&[1]]));
        let number = der(INTEGER, &[&[0x5a; 128]]);
        let key = der(OCTET_STRING, &[&[0x5a; 32]]);
        let algorithm = |name: &[u8]| der(SEQUENCE, &[&der(OBJECT, &[name]), &[5, 0]]);
        let rsa = algorithm(b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01");
        let pbes2 = algorithm(b"\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0d");
        let sha256 = algorithm(b"\x60\x86\x48\x01\x65\x03\x04\x02\x01");
        let curve = der(0xa0, &[&der(OBJECT, &[b"\x2a\x86\x48\xce\x3d\x03\x01\x07"])]);
        let numbers = |count: usize| number.repeat(count);
        for (what, key) in [
            ("PKCS#1", der(SEQUENCE, &[&version, &numbers(8)])),
            ("DSA", der(SEQUENCE, &[&version, &numbers(5)])),
            ("PKCS#8", der(SEQUENCE, &[&version, &rsa, &key])),
            ("PKCS#8 with a public key", der(SEQUENCE, &[&one, &rsa, &key, &der(0x81, &[&[0; 33]])])),
            ("encrypted PKCS#8", der(SEQUENCE, &[&pbes2, &key])),
            ("SEC1", der(SEQUENCE, &[&one, &key, &curve])),
        ] {
            assert_eq!(in_bytes(&key), Some("a private key"), "{what}");
            assert_eq!(in_bytes(&[&key[..], b"\n"].concat()), None, "{what}, and more");
            assert_eq!(in_bytes(&key[..key.len() - 1]), None, "{what}, cut off");
        }
        for (what, other) in [
            ("an RSA public key", der(SEQUENCE, &[&numbers(2)])),
            ("parameters of Diffie and Hellman", der(SEQUENCE, &[&number, &one])),
            ("a public key", der(SEQUENCE, &[&rsa, &der(0x03, &[&[0; 33]])])),
            ("a digest", der(SEQUENCE, &[&sha256, &key])),
            ("a certificate", der(SEQUENCE, &[&der(SEQUENCE, &[&version]), &rsa, &der(0x03, &[&[0; 33]])])),
            ("numbers", der(SEQUENCE, &[&version, &one.repeat(8)])),
            ("nothing", der(SEQUENCE, &[])),
        ] {
            assert_eq!(in_bytes(&other), None, "{what}");
        }
    }
}
