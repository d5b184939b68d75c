//! The tar stream of a layer: decompressed on one thread and hashed on another, while a third one takes it apart.
//!
//! In: a layer. Out: its [`Members`], and whether the stream is what the configuration says of it. What the members mean
//! is the business of whoever reads them.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use flate2::read::MultiGzDecoder;

use super::error::ReadError;
use super::read::ImageLayer;
use super::reading::Budget;
use crate::layer::Compression;
use crate::layer::untar::{Member, Untar, UntarError};
use crate::manifest::{Digest, Hasher};

/// What passes from thread to thread at once, in bytes.
const BLOCK: usize = 1 << 20;

/// How many blocks wait between two threads: what bounds the memory.
const QUEUE: usize = 4;

type Block = Arc<Vec<u8>>;

/// The members of a layer, as many as the budget allows.
pub(super) struct Members<'a> {
    layer: &'a ImageLayer,
    budget: Arc<Budget>,
    untar: Untar<Plain>,
}

impl<'a> Members<'a> {
    /// Starts to read a layer.
    ///
    /// # Errors
    /// The layer cannot be read, or no thread can be started.
    pub(super) fn open(layer: &'a ImageLayer, budget: &Arc<Budget>) -> Result<Self, ReadError> {
        let plain = Plain::open(layer, budget.clone())?;
        Ok(Self { layer, budget: budget.clone(), untar: Untar::new(plain) })
    }

    /// The next member; `None` at the end.
    ///
    /// # Errors
    /// The layer is damaged, or has more than the budget allows.
    pub(super) fn next(&mut self) -> Result<Option<Member>, ReadError> {
        let member = self.untar.next_member().map_err(|source| self.failed(source))?;
        if let Some(member) = &member {
            self.budget.take(member);
            self.budget.check()?;
        }
        Ok(member)
    }

    /// Some of the present member's content; nothing at its end.
    ///
    /// # Errors
    /// See [`Self::next`].
    pub(super) fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, ReadError> {
        self.untar.read_some(buffer).map_err(|source| self.failed(source))
    }

    /// Reads what follows the end of the archive, and compares the whole with what the configuration says of the layer.
    /// The size of the stream, and whether every reader takes it alike.
    ///
    /// # Errors
    /// The rest cannot be read, or is more than the budget allows; [`ReadError::WrongDigest`].
    pub(super) fn finish(self) -> Result<(u64, bool), ReadError> {
        let Self { layer, budget, untar } = self;
        let (Plain { pumping, hashing, size, .. }, is_plain) =
            untar.drain().map_err(|source| failed(layer, &budget, source))?;
        pumping.join().expect("pumping does not panic");
        let found = hashing.join().expect("hashing does not panic");
        match layer.diff_id {
            Some(expected) if expected != found => {
                Err(ReadError::WrongDigest { name: layer.part.name.clone(), expected, found })
            }
            _ => Ok((size, is_plain)),
        }
    }

    fn failed(&self, source: UntarError) -> ReadError {
        failed(self.layer, &self.budget, source)
    }
}

/// That the budget is used up ends the stream, and is the better reason.
fn failed(layer: &ImageLayer, budget: &Budget, source: UntarError) -> ReadError {
    let damaged = ReadError::Archive { path: layer.part.name.clone(), source };
    budget.check().err().unwrap_or(damaged)
}

/// The tar stream of a layer.
struct Plain {
    blocks: Receiver<io::Result<Block>>,
    block: Block,
    /// How much of the block was read.
    at: usize,
    /// Of all blocks so far.
    size: u64,
    pumping: JoinHandle<()>,
    hashing: JoinHandle<Digest>,
    budget: Arc<Budget>,
}

impl Plain {
    fn open(layer: &ImageLayer, budget: Arc<Budget>) -> Result<Self, ReadError> {
        let reader = decompressed(layer)?;
        let (send, blocks) = sync_channel(QUEUE);
        let (send_hash, to_hash) = sync_channel::<Block>(QUEUE);
        let pumping = spawn(move || pump(reader, &send, &send_hash))?;
        let hashing = spawn(move || {
            let mut hasher = Hasher::default();
            for block in to_hash {
                hasher.update(&block);
            }
            hasher.finish().0
        })?;
        Ok(Self { blocks, block: Block::default(), at: 0, size: 0, pumping, hashing, budget })
    }
}

impl Read for Plain {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.block.len() {
            let Ok(block) = self.blocks.recv() else { return Ok(0) };
            (self.block, self.at) = (block?, 0);
            self.size += self.block.len() as u64;
            self.budget.take_bytes(self.block.len());
            // Told in better words by whoever reads the members.
            self.budget.check().map_err(io::Error::other)?;
        }
        let count = buffer.len().min(self.block.len() - self.at);
        buffer[..count].copy_from_slice(&self.block[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// How a layer is compressed, by its first bytes and not by what a document says of it; the level is no one's to know.
pub(super) fn compression(layer: &ImageLayer) -> Result<Compression, ReadError> {
    let mut start = [0; 6];
    let count = layer.part.reader().read(&mut start).map_err(|source| layer.part.failed(source))?;
    // A tar stream begins with a name: one that begins as bzip2's magic (`BZh91A`) is nobody's.
    let other = |how| Err(ReadError::OtherCompression { path: layer.part.name.clone(), how });
    match start[..count] {
        [0x1f, 0x8b, ..] => Ok(Compression::GZIP),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Compression::ZSTD),
        // RFC 8878, 3.1.2: a frame to be skipped, with which pzstd begins.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Compression::ZSTD),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => other("xz"),
        [b'B', b'Z', b'h', b'1'..=b'9', b'1', b'A'] => other("bzip2"),
        _ => Ok(Compression::None),
    }
}

/// The tar stream of a layer.
pub(super) fn decompressed(layer: &ImageLayer) -> Result<Box<dyn Read + Send>, ReadError> {
    let reader = io::BufReader::with_capacity(1 << 17, layer.part.reader());
    Ok(match compression(layer)? {
        Compression::Gzip(_) => Box::new(MultiGzDecoder::new(reader)),
        Compression::Zstd(_) => {
            Box::new(zstd::Decoder::with_buffer(reader).map_err(|source| layer.part.failed(source))?)
        }
        Compression::None => Box::new(reader),
    })
}

fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>, ReadError> {
    std::thread::Builder::new().spawn(work).map_err(ReadError::Thread)
}

/// Sends the stream on, block by block, until it ends, fails, or nobody reads it any more.
fn pump(mut reader: impl Read, send: &SyncSender<io::Result<Block>>, send_hash: &SyncSender<Block>) {
    loop {
        let mut block = Vec::with_capacity(BLOCK);
        let read = (&mut reader).take(BLOCK as u64).read_to_end(&mut block);
        let block = Arc::new(block);
        let sent = block.is_empty() || (send_hash.send(block.clone()).is_ok() && send.send(Ok(block.clone())).is_ok());
        match read {
            Ok(count) if sent && count > 0 => {}
            Ok(_) => return,
            Err(error) => {
                // Whoever is gone wants no more.
                let _ = send.send(Err(error));
                return;
            }
        }
    }
}
