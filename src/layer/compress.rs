//! gzip in blocks: one member, whose bytes do not depend on how many threads made it.
//!
//! Every block of the stream is deflated by itself and ends with a sync flush, so that what comes out ends on a byte
//! and the blocks can stand one behind the other (RFC 1951, 3.2.4: an empty stored block). An empty final block and
//! the trailer of RFC 1952 end the member. The cost against one deflate stream is below one percent.

use std::io;

use flate2::{Compress, Crc, FlushCompress};

/// The header of RFC 1952: deflate, no flags, no time, no extra flags, operating system unknown.
pub(super) const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// A final deflate block with fixed codes and nothing but the end-of-block code in it.
const FINAL_BLOCK: [u8; 2] = [3, 0];

/// A block of the stream, deflated.
pub(super) struct Deflated {
    pub(super) bytes: Vec<u8>,
    pub(super) crc: Crc,
    pub(super) last: bool,
}

/// Deflates one block by itself.
pub(super) fn deflate(block: &[u8], last: bool, level: u32) -> io::Result<Deflated> {
    let mut crc = Crc::new();
    crc.update(block);
    let mut compressor = Compress::new(flate2::Compression::new(level), false);
    let mut bytes = Vec::with_capacity(block.len() / 2 + 1024);
    loop {
        let consumed = usize::try_from(compressor.total_in()).expect("it consumed no more than the block");
        compressor.compress_vec(&block[consumed..], &mut bytes, FlushCompress::Sync)?;
        // "If deflate returns with avail_out == 0, this function must be called again […] until the flush is complete
        // (deflate returns with non-zero avail_out)" (zlib.h).
        if bytes.len() < bytes.capacity() {
            return Ok(Deflated { bytes, crc, last });
        }
        bytes.reserve(block.len() / 4 + 1024);
    }
}

/// What ends a member whose content has this checksum and length.
pub(super) fn gzip_trailer(crc: &Crc) -> Vec<u8> {
    [FINAL_BLOCK.as_slice(), &crc.sum().to_le_bytes(), &crc.amount().to_le_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::GzDecoder;
    use proptest::prelude::*;
    use std::io::Read;

    fn gzip(blocks: &[&[u8]]) -> Vec<u8> {
        let mut bytes = GZIP_HEADER.to_vec();
        let mut crc = Crc::new();
        for block in blocks {
            let deflated = deflate(block, false, 6).unwrap();
            bytes.extend_from_slice(&deflated.bytes);
            crc.combine(&deflated.crc);
        }
        bytes.extend_from_slice(&gzip_trailer(&crc));
        bytes
    }

    proptest! {
        #[test]
        fn blocks_are_one_member(content: Vec<u8>, repeat in 1_usize..3000, cut in 0.0..1.0) {
            let content = content.repeat(repeat);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let cut = (content.len() as f64 * cut) as usize;
            let bytes = gzip(&[&content[..cut], &content[cut..]]);
            let mut back = Vec::new();
            GzDecoder::new(bytes.as_slice()).read_to_end(&mut back).unwrap();
            prop_assert_eq!(back, content);
        }
    }

    #[test]
    fn what_cannot_be_compressed_survives() {
        let mut state = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        })
        .take(1 << 20)
        .collect();
        let mut back = Vec::new();
        GzDecoder::new(gzip(&[&noise, &noise]).as_slice()).read_to_end(&mut back).unwrap();
        assert_eq!(back, noise.repeat(2));
    }
}
