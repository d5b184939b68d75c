//! What is read of an image, and how much: arguments that all share who read images.

use super::failure::Failure;
use crate::image::{self, Limits, Platform};

#[derive(Debug, clap::Args)]
pub(super) struct Reading {
    /// Which one to take of an image for several platforms [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,

    /// How much the layers may be, unpacked: bytes, or with K, M, G or T as powers of 1024 [default: 64G]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    max_size: Option<u64>,

    /// How many entries the layers may have [default: 1000000]
    #[arg(long, value_name = "N")]
    max_entries: Option<u64>,
}

impl Reading {
    /// What was asked for.
    ///
    /// # Errors
    /// Something was, and no image is read.
    pub(super) fn get(&self, is_image: bool) -> Result<image::Reading, Failure> {
        let is_given = self.platform.is_some() || self.max_size.is_some() || self.max_entries.is_some();
        if is_given && !is_image {
            return Err(Failure::usage("no image is read, and nothing else has a platform or layers")
                .hint("leave `--platform`, `--max-size` and `--max-entries` out"));
        }
        let limits = Limits {
            size: self.max_size.unwrap_or(Limits::USUAL.size),
            entries: self.max_entries.unwrap_or(Limits::USUAL.entries),
        };
        Ok(image::Reading { platform: self.platform.clone(), limits })
    }
}

pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.char_indices().next_back() {
        Some((at, 'K')) => (&text[..at], 10),
        Some((at, 'M')) => (&text[..at], 20),
        Some((at, 'G')) => (&text[..at], 30),
        Some((at, 'T')) => (&text[..at], 40),
        _ => (text, 0),
    };
    let count: u64 =
        digits.parse().map_err(|_| "it is no number of bytes; one is spelled `500M` or `2G`".to_owned())?;
    count.checked_mul(1 << shift).ok_or_else(|| "it is too large".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(bytes("0"), Ok(0));
        assert_eq!(bytes("500M"), Ok(500 << 20));
        assert_eq!(bytes("64G"), Ok(Limits::USUAL.size));
        for text in ["", "G", "-1", "1.5G", "1g", "99999999T", "1 G", "9é"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
