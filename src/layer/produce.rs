//! From the tree to blocks of its tar stream.

use std::io::Read;

use super::{LayerError, tar};
use crate::manifest::{Entry, Kind};
use crate::tree::Tree;

/// The stream is cut into blocks of this size: the unit of compression, so part of the format.
pub(super) const BLOCK: usize = 1 << 20;

/// Takes the blocks: all of [`BLOCK`] bytes but the last, which comes with `true`. False means: enough, stop.
pub(super) type Take<'a> = dyn FnMut(Vec<u8>, bool) -> bool + 'a;

/// The size of the uncompressed tar stream of `entries`.
///
/// # Errors
/// [`LayerError::Unfit`].
pub fn size(entries: &[&Entry]) -> Result<u64, LayerError> {
    let mut size = tar::END.len() as u64;
    for entry in entries {
        size += tar::header(entry)?.len() as u64;
        if let Kind::File { size: content, .. } = entry.kind {
            size += content + tar::padding(content) as u64;
        }
    }
    Ok(size)
}

/// Gives `take` the tar stream of these `entries` of `tree`, block by block.
pub(super) fn produce(tree: &Tree<'_>, entries: &[&Entry], take: &mut Take<'_>) -> Result<(), LayerError> {
    let mut blocks = Blocks { block: vec![0; BLOCK], filled: 0, take, stopped: false };
    for entry in entries {
        blocks.write(&tar::header(entry)?);
        if let Kind::File { size, .. } = entry.kind {
            let mut content = tree.open(entry)?;
            while !blocks.stopped {
                let count = content.read_some(blocks.space())?;
                if count == 0 {
                    break;
                }
                blocks.advance(count);
            }
            blocks.write(&[0; tar::BLOCK][..tar::padding(size)]);
        }
        if blocks.stopped {
            return Ok(());
        }
    }
    blocks.write(&tar::END);
    blocks.finish();
    Ok(())
}

/// Gives `take` a tar stream as it is, block by block.
pub(super) fn pass(stream: &mut dyn Read, take: &mut Take<'_>) -> Result<(), LayerError> {
    let mut blocks = Blocks { block: vec![0; BLOCK], filled: 0, take, stopped: false };
    while !blocks.stopped {
        match stream.read(blocks.space()) {
            Ok(0) => {
                blocks.finish();
                return Ok(());
            }
            Ok(count) => blocks.advance(count),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(LayerError::Read(error)),
        }
    }
    Ok(())
}

struct Blocks<'a, 'b> {
    block: Vec<u8>,
    filled: usize,
    take: &'a mut Take<'b>,
    stopped: bool,
}

impl Blocks<'_, '_> {
    /// Where the next bytes go; never empty, since a full block goes out when more bytes come.
    fn space(&mut self) -> &mut [u8] {
        if self.filled == BLOCK {
            let full = std::mem::replace(&mut self.block, vec![0; BLOCK]);
            self.filled = 0;
            self.stopped |= !(self.take)(full, false);
        }
        &mut self.block[self.filled..]
    }

    fn advance(&mut self, count: usize) {
        self.filled += count;
    }

    fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let space = self.space();
            let (now, later) = bytes.split_at(bytes.len().min(space.len()));
            space[..now.len()].copy_from_slice(now);
            self.advance(now.len());
            bytes = later;
        }
    }

    fn finish(mut self) {
        self.block.truncate(self.filled);
        (self.take)(self.block, true);
    }
}
