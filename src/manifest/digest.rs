//! SHA-256, as images and manifests spell it.

use std::fmt;
use std::sync::OnceLock;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use sha2::{Digest as _, Sha256};

/// A SHA-256 digest. Its text is the one of the OCI image specification: `sha256:` and 64 lower-case digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(bytes);
        hasher.finish().0
    }

    /// Reads the text form; `None` if it is anything else, such as a digest by another algorithm.
    pub fn parse(text: &str) -> Option<Self> {
        Self::from_hex(text.strip_prefix("sha256:")?)
    }

    /// Reads 64 lower-case hexadecimal digits.
    pub fn from_hex(hex: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        let (pairs, []) = hex.as_bytes().as_chunks::<2>() else { return None };
        if pairs.len() != bytes.len() {
            return None;
        }
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = nibble(*high)? << 4 | nibble(*low)?;
        }
        Some(Self(bytes))
    }

    /// The 64 digits alone.
    pub fn hex(&self) -> String {
        crate::path::hex(&self.0)
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| de::Error::custom(format!("`{text}` is not a sha256 digest, and no other is read")))
    }
}

/// The digest of a content, or the place for it: whoever reads the content to its end first sets it, and whoever reads it
/// later compares. So a content is read once on its way into an image, and is still the same in all that is made of it.
///
/// In JSON the 64 digits alone; a manifest can be written when all its contents were read.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Seal(OnceLock<Digest>);

impl Seal {
    pub fn of(digest: Digest) -> Self {
        Self(OnceLock::from(digest))
    }

    /// The digest, if the content was read.
    pub fn get(&self) -> Option<Digest> {
        self.0.get().copied()
    }

    /// Says what the content is.
    ///
    /// # Errors
    /// It is sealed with another digest, which is returned.
    pub fn set(&self, digest: Digest) -> Result<(), Digest> {
        let sealed = *self.0.get_or_init(|| digest);
        if sealed == digest { Ok(()) } else { Err(sealed) }
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.get() {
            Some(digest) => fmt::Debug::fmt(&digest, formatter),
            None => formatter.write_str("unread"),
        }
    }
}

impl Serialize for Seal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let digest = self.get().ok_or_else(|| ser::Error::custom("a content was not read yet"))?;
        serializer.serialize_str(&digest.hex())
    }
}

impl<'de> Deserialize<'de> for Seal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digest = Digest::from_hex(&text);
        digest
            .map(Self::of)
            .ok_or_else(|| de::Error::custom(format!("`{text}` is not a SHA-256 of 64 lower-case digits")))
    }
}

/// Hashes and counts bytes as they pass.
#[derive(Debug, Clone, Default)]
pub struct Hasher {
    hash: Sha256,
    count: u64,
}

impl Hasher {
    pub fn update(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.count += bytes.len() as u64;
    }

    /// The digest of the bytes, and how many there were.
    pub fn finish(self) -> (Digest, u64) {
        (Digest(self.hash.finalize().into()), self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn text_and_back() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(Digest::parse(EMPTY), Some(Digest::of(b"")));
    }

    #[test]
    fn a_seal_is_set_once() {
        let seal = Seal::default();
        assert!(serde_json::to_string(&seal).is_err(), "what was not read cannot be written down");
        assert_eq!(seal.set(Digest::of(b"one")), Ok(()));
        assert_eq!(seal.set(Digest::of(b"one")), Ok(()));
        assert_eq!(seal.set(Digest::of(b"two")), Err(Digest::of(b"one")));
        assert_eq!(serde_json::from_str::<Seal>(&serde_json::to_string(&seal).unwrap()).unwrap(), seal);
    }

    #[test]
    fn other_texts_are_refused() {
        assert_eq!(Digest::parse(&EMPTY[7..]), None);
        assert_eq!(Digest::parse(&EMPTY.to_uppercase()), None);
        assert_eq!(Digest::parse(&EMPTY[..EMPTY.len() - 1]), None);
        assert_eq!(Digest::parse(&format!("{EMPTY}00")), None);
    }
}
