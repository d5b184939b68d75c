//! Whether a tar stream is the layer that a manifest describes.
//!
//! In: entries with the digests of their contents, and a stream. Out: where the stream is another one, if it is. No content is needed
//! besides, and nothing is made of what the stream holds.

use std::io::Read;

use super::{LayerError, tar, untar};
use crate::manifest::{Entry, Hasher, Kind};
use crate::path::JailPath;

/// What is read at once, in bytes.
const PIECE: usize = 1 << 16;

/// Where a stream begins to be another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Departure {
    /// At what stands there for this path, or in place of it.
    At(JailPath),
    /// Where the layer ends.
    End,
}

/// Where `stream` is not the layer of these `entries`, all of whose contents are sealed; `None` if it is, to the last byte.
///
/// # Errors
/// The stream cannot be read, or an entry fits into no layer.
pub fn departure(entries: &[&Entry], stream: &mut dyn Read) -> Result<Option<Departure>, LayerError> {
    let mut piece = vec![0; PIECE];
    for entry in entries {
        let is_same = has(stream, &tar::header(entry)?, &mut piece)? && has_content(stream, entry, &mut piece)?;
        if !is_same {
            return Ok(Some(Departure::At(entry.path.clone())));
        }
    }
    let is_over = has(stream, &tar::END, &mut piece)? && filled(stream, &mut piece[..1])? == 0;
    Ok((!is_over).then_some(Departure::End))
}

fn has_content(stream: &mut dyn Read, entry: &Entry, piece: &mut [u8]) -> Result<bool, LayerError> {
    let Kind::File { size, sha256 } = &entry.kind else { return Ok(true) };
    let (mut left, mut hasher) = (*size, Hasher::default());
    while left > 0 {
        let wanted = usize::try_from(left).map_or(piece.len(), |left| left.min(piece.len()));
        let count = filled(stream, &mut piece[..wanted])?;
        if count < wanted {
            return Ok(false);
        }
        hasher.update(&piece[..count]);
        left -= count as u64;
    }
    let (found, _) = hasher.finish();
    Ok(sha256.get() == Some(found) && has(stream, &[0; tar::BLOCK][..tar::padding(*size)], piece)?)
}

/// True if these bytes come next.
fn has(stream: &mut dyn Read, bytes: &[u8], piece: &mut [u8]) -> Result<bool, LayerError> {
    for part in bytes.chunks(piece.len()) {
        let found = &mut piece[..part.len()];
        if filled(stream, found)? < part.len() || found != part {
            return Ok(false);
        }
    }
    Ok(true)
}

fn filled(stream: &mut dyn Read, buffer: &mut [u8]) -> Result<usize, LayerError> {
    untar::filled(stream, buffer).map_err(LayerError::Read)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::layer::{Compression, pack};
    use crate::tree::sample::Sample;

    #[test]
    fn every_other_byte_is_seen() {
        let sample = Sample::varied();
        let mut stream = Vec::new();
        let sinks = vec![(Compression::None, Box::new(&mut stream) as crate::layer::Sink<'_>)];
        pack(&sample.tree(), &sample.entries(), sinks, NonZeroUsize::MIN, &mut |_| ()).unwrap();
        let departure = |stream: &[u8]| departure(&sample.entries(), &mut &*stream).unwrap();
        assert_eq!(departure(&stream), None);
        let step = (stream.len() / 500).max(1);
        for at in (0..stream.len()).step_by(step) {
            let mut other = stream.clone();
            other[at] ^= 1;
            assert!(departure(&other).is_some(), "{at}");
            assert!(departure(&stream[..at]).is_some(), "{at}");
        }
        assert_eq!(departure(&[&stream[..], &[0]].concat()), Some(Departure::End));
        assert_eq!(departure(&stream[512..]), Some(Departure::At(sample.entries()[0].path.clone())));
    }
}
