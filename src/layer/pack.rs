//! The machine that reads the tree once and feeds all streams: one thread reads and checks contents, one hashes the
//! `diff_id`, and each compression has threads of its own. Channels of a few blocks bound the memory.

use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use flate2::Crc;

use super::compress::{Deflated, GZIP_HEADER, deflate, gzip_trailer};
use super::produce::{Take, pass, produce};
use super::{Compression, Layer, LayerError};
use crate::manifest::{Digest, Entry, Hasher};
use crate::tree::Tree;

/// How many blocks of 1 MiB wait between two threads.
const QUEUE: usize = 4;

/// Below this level zstd looks back less far than a layer is worth, and gets the window of this level.
const WIDE_WINDOW_LEVEL: i32 = 3;
const WINDOW_LOG: u32 = 21;

/// How many threads one compression gets at most: each holds blocks, and a machine with a hundred cores shall not need
/// more than 256 MiB either.
const MAX_GZIP_THREADS: usize = 24;
const MAX_ZSTD_THREADS: usize = 6;

/// Where the bytes go.
pub type Sink<'a> = Box<dyn Write + Send + 'a>;

/// Writes the layer of these `entries` of `tree` into every sink, in the compression that stands with it, and describes what it wrote, in
/// the order of the sinks. Each content is read once, and each compression is made once, however many sinks there are.
/// `progress` is told the number of bytes of tar stream, as they come.
///
/// # Errors
/// A content cannot be read or has changed, or a sink fails. What was written until then is useless.
pub fn pack(
    tree: &Tree<'_>,
    entries: &[&Entry],
    sinks: Vec<(Compression, Sink<'_>)>,
    threads: NonZeroUsize,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<Layer>, LayerError> {
    pack_stream(&mut |take| produce(tree, entries, take), sinks, threads, progress)
}

/// As [`pack`], of a tar stream that is there already.
///
/// # Errors
/// It cannot be read, or a sink fails.
pub fn repack(
    stream: &mut dyn Read,
    sinks: Vec<(Compression, Sink<'_>)>,
    threads: NonZeroUsize,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<Layer>, LayerError> {
    pack_stream(&mut |take| pass(stream, take), sinks, threads, progress)
}

/// Writes what `produce` gives.
fn pack_stream(
    produce: &mut dyn FnMut(&mut Take<'_>) -> Result<(), LayerError>,
    sinks: Vec<(Compression, Sink<'_>)>,
    threads: NonZeroUsize,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<Layer>, LayerError> {
    let wanted: Vec<Compression> = sinks.iter().map(|(compression, _)| *compression).collect();
    let streams = grouped(sinks);
    std::thread::scope(|scope| {
        let mut consumers: Vec<(Compression, Consumer<'_>)> = Vec::with_capacity(streams.len());
        for (compression, sinks) in streams {
            let out = Hashed { sinks, hasher: Hasher::default() };
            let consumer = match compression {
                Compression::None => Consumer::plain(scope, out),
                Compression::Gzip(level) => Consumer::gzip(scope, out, level, threads),
                Compression::Zstd(level) => Consumer::zstd(scope, out, level, threads),
            }?;
            consumers.push((compression, consumer));
        }
        let mut number = 0;
        let produced = produce(&mut |bytes, last| {
            progress(bytes.len() as u64);
            let block = Block { bytes: Arc::new(bytes), last };
            number += 1;
            // A consumer that is gone has failed, and says why when it is joined.
            consumers.iter().all(|(_, consumer)| consumer.feed(number - 1, &block))
        });
        let written: Vec<_> = consumers.into_iter().map(|(compression, it)| (compression, it.finish())).collect();
        produced?;
        describe(written, &wanted)
    })
}

/// The sinks of each compression; the uncompressed stream is always there, for its digest, and comes first.
fn grouped(sinks: Vec<(Compression, Sink<'_>)>) -> Vec<(Compression, Vec<Sink<'_>>)> {
    let mut streams = vec![(Compression::None, Vec::new())];
    for (compression, sink) in sinks {
        match streams.iter_mut().find(|(known, _)| *known == compression) {
            Some((_, others)) => others.push(sink),
            None => streams.push((compression, vec![sink])),
        }
    }
    streams
}

fn describe(written: Vec<(Compression, Written)>, wanted: &[Compression]) -> Result<Vec<Layer>, LayerError> {
    let mut done = Vec::with_capacity(written.len());
    for (compression, written) in written {
        done.push((compression, written?));
    }
    let find = |compression| {
        let (_, written) = done.iter().find(|(known, _)| *known == compression).expect("every stream was started");
        written.expect("a stream is cut short only if another failed")
    };
    let (diff_id, _) = find(Compression::None);
    let layer = |&compression: &Compression| {
        let (digest, size) = find(compression);
        Layer { diff_id, digest, size, media_type: compression.media_type() }
    };
    Ok(wanted.iter().map(layer).collect())
}

/// A piece of the tar stream.
#[derive(Clone)]
struct Block {
    bytes: Arc<Vec<u8>>,
    last: bool,
}

/// Digest and size of what was written; `None` if the blocks ended before the last one.
type Written = Result<Option<(Digest, u64)>, LayerError>;

/// Threads that turn blocks into one stream.
struct Consumer<'scope> {
    /// Block `n` goes to feed `n` modulo their number.
    feeds: Vec<SyncSender<Block>>,
    writer: ScopedJoinHandle<'scope, Written>,
}

impl<'scope> Consumer<'scope> {
    fn plain(scope: &'scope Scope<'scope, '_>, out: Hashed<'scope>) -> Result<Self, LayerError> {
        let (feed, blocks) = sync_channel(QUEUE);
        let writer = spawn(scope, move || write_plain(&blocks, out))?;
        Ok(Self { feeds: vec![feed], writer })
    }

    fn gzip(
        scope: &'scope Scope<'scope, '_>,
        out: Hashed<'scope>,
        level: u32,
        threads: NonZeroUsize,
    ) -> Result<Self, LayerError> {
        let mut feeds = Vec::new();
        let mut deflated = Vec::new();
        for _ in 0..threads.get().min(MAX_GZIP_THREADS) {
            let (feed, blocks) = sync_channel::<Block>(QUEUE);
            let (done, from_worker) = sync_channel(QUEUE);
            let worker = spawn(scope, move || {
                for block in blocks {
                    // The writer is gone if it has failed.
                    if done.send(deflate(&block.bytes, block.last, level)).is_err() {
                        break;
                    }
                }
            });
            // Fewer threads give the same bytes.
            match worker {
                Err(error) if feeds.is_empty() => return Err(error),
                Err(_) => break,
                Ok(_) => {}
            }
            feeds.push(feed);
            deflated.push(from_worker);
        }
        let writer = spawn(scope, move || write_gzip(&deflated, out))?;
        Ok(Self { feeds, writer })
    }

    fn zstd(
        scope: &'scope Scope<'scope, '_>,
        out: Hashed<'scope>,
        level: i32,
        threads: NonZeroUsize,
    ) -> Result<Self, LayerError> {
        let (feed, blocks) = sync_channel(QUEUE);
        let writer = spawn(scope, move || write_zstd(&blocks, out, level, threads))?;
        Ok(Self { feeds: vec![feed], writer })
    }

    fn feed(&self, number: usize, block: &Block) -> bool {
        self.feeds[number % self.feeds.len()].send(block.clone()).is_ok()
    }

    fn finish(self) -> Written {
        drop(self.feeds);
        match self.writer.join() {
            Ok(written) => written,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// Starts a thread; `Scope::spawn` would panic where there is none to be had.
fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, LayerError> {
    std::thread::Builder::new().spawn_scoped(scope, work).map_err(LayerError::Thread)
}

/// Sinks that all get the same bytes, hashed and counted as they pass.
struct Hashed<'a> {
    sinks: Vec<Sink<'a>>,
    hasher: Hasher,
}

impl Hashed<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), LayerError> {
        self.write_all(bytes).map_err(LayerError::Write)
    }

    fn finish(mut self) -> Written {
        self.flush().map_err(LayerError::Write)?;
        Ok(Some(self.hasher.finish()))
    }
}

impl Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for sink in &mut self.sinks {
            sink.write_all(bytes)?;
        }
        self.hasher.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sinks.iter_mut().try_for_each(Write::flush)
    }
}

fn write_plain(blocks: &Receiver<Block>, mut out: Hashed<'_>) -> Written {
    for block in blocks {
        out.put(&block.bytes)?;
        if block.last {
            return out.finish();
        }
    }
    Ok(None)
}

fn write_gzip(deflated: &[Receiver<io::Result<Deflated>>], mut out: Hashed<'_>) -> Written {
    let mut crc = Crc::new();
    out.put(&GZIP_HEADER)?;
    for from_worker in deflated.iter().cycle() {
        let Ok(block) = from_worker.recv() else { break };
        let block = block.map_err(LayerError::Compress)?;
        out.put(&block.bytes)?;
        crc.combine(&block.crc);
        if block.last {
            out.put(&gzip_trailer(&crc))?;
            return out.finish();
        }
    }
    Ok(None)
}

fn write_zstd(blocks: &Receiver<Block>, out: Hashed<'_>, level: i32, threads: NonZeroUsize) -> Written {
    // Without workers zstd gives other bytes than with any number of them, so there is always one.
    let workers = u32::try_from(threads.get().min(MAX_ZSTD_THREADS)).expect("the limit is small");
    let mut encoder = zstd::Encoder::new(out, level).map_err(LayerError::Compress)?;
    encoder.multithread(workers).map_err(LayerError::Compress)?;
    if level < WIDE_WINDOW_LEVEL {
        encoder.window_log(WINDOW_LOG).map_err(LayerError::Compress)?;
    }
    for block in blocks {
        encoder.write_all(&block.bytes).map_err(LayerError::Write)?;
        if block.last {
            return encoder.finish().map_err(LayerError::Write)?.finish();
        }
    }
    Ok(None)
}
