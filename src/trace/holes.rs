//! A file read with its holes: what is not there is not fetched, and a hole of terabytes costs no more than its zeros.
//!
//! In: an open file. Out: its bytes, by [`Read`], as a plain reading would give them.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

/// Reads a file from an offset on.
#[derive(Debug)]
pub(super) struct Holes {
    file: File,
    at: u64,
    /// What stands here or behind is not read.
    end: u64,
    /// Where the hole, or the data, ends that `at` is in.
    until: u64,
    is_hole: bool,
}

impl Holes {
    pub(super) fn new(file: File, start: u64) -> Self {
        Self { file, at: start, end: u64::MAX, until: start, is_hole: false }
    }

    /// The same, but not beyond `end`: who writes to the file meanwhile does not make it longer.
    pub(super) fn up_to(self, end: u64) -> Self {
        Self { end, ..self }
    }

    /// Goes to the end of the hole that it is in, if it is in one; how long the rest of it was.
    pub(super) fn skip_hole(&mut self) -> io::Result<u64> {
        self.look()?;
        let length = if self.is_hole { self.until - self.at } else { 0 };
        self.at += length;
        Ok(length)
    }

    /// Finds out what stands at `at` (`lseek(2)`, "Seeking file data and holes"), unless that is known.
    fn look(&mut self) -> io::Result<()> {
        if self.at < self.until || self.at >= self.end {
            return Ok(());
        }
        let offset = |at: u64| i64::try_from(at).map_err(|_| Errno::EOVERFLOW);
        let found = |whence| lseek(&self.file, offset(self.at)?, whence).map(|found| found as u64);
        let length = || self.file.metadata().map(|metadata| metadata.len());
        let (is_hole, until) = match found(Whence::SeekData) {
            Ok(start) if start > self.at => (true, start),
            Ok(_) => (false, found(Whence::SeekHole).unwrap_or(u64::MAX)),
            // No data up to the end. Files of /proc say that they are empty, and are not.
            Err(Errno::ENXIO) if length()? > self.at => (true, length()?),
            Err(_) => (false, u64::MAX),
        };
        (self.is_hole, self.until) = (is_hole, until.min(self.end));
        Ok(())
    }
}

impl Read for Holes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.look()?;
        let left = usize::try_from(self.until - self.at).unwrap_or(usize::MAX);
        let piece = buffer.len().min(left);
        let read = if self.is_hole {
            buffer[..piece].fill(0);
            piece
        } else {
            self.file.read_at(&mut buffer[..piece], self.at)?
        };
        self.at += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, SeekFrom, Write};

    #[test]
    fn as_a_plain_reading_gives_it() {
        for pieces in [&[][..], &[(0, 5)], &[(1 << 20, 3)], &[(0, 70_000), (1 << 21, 10)], &[(4096, 4096)]] {
            for rest in [0, 1, 1 << 20] {
                let mut file = tempfile::tempfile().unwrap();
                for &(start, length) in pieces {
                    file.seek(SeekFrom::Start(start)).unwrap();
                    file.write_all(&vec![b'x'; length]).unwrap();
                }
                let end = file.metadata().unwrap().len();
                file.set_len(end + rest).unwrap();
                let mut plain = Vec::new();
                file.rewind().unwrap();
                file.read_to_end(&mut plain).unwrap();
                for start in [0, 1, 4096, end] {
                    let mut read = Vec::new();
                    Holes::new(file.try_clone().unwrap(), start).read_to_end(&mut read).unwrap();
                    let expected = plain.get(start as usize..).unwrap_or_default();
                    assert!(read == expected, "{pieces:?} and {rest} from {start}");
                    let (mut skipped, end) = (Vec::new(), start + 50_000);
                    let mut holes = Holes::new(file.try_clone().unwrap(), start).up_to(end);
                    loop {
                        let hole = holes.skip_hole().unwrap() as usize;
                        skipped.resize(skipped.len() + hole, 0);
                        let mut piece = vec![b'?'; 1000];
                        let read = holes.read(&mut piece).unwrap();
                        skipped.extend(&piece[..read]);
                        if hole + read == 0 {
                            break;
                        }
                    }
                    assert!(skipped == expected[..expected.len().min(50_000)], "{pieces:?} and {rest} from {start}");
                }
            }
        }
    }

    #[test]
    fn what_says_that_it_is_empty() {
        let mut read = Vec::new();
        let file = fs_err::File::open("/proc/self/status").unwrap().into_parts().0;
        Holes::new(file, 0).read_to_end(&mut read).unwrap();
        assert!(read.starts_with(b"Name:"));
    }
}
