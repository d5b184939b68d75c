//! Archives of whole images: tar files with a few plain files in them.

use std::io::{Seek, SeekFrom, Write};

use fs_err::File;

use super::error::{ImageError, failed};
use crate::layer::tar;

/// A tar archive that is being written.
pub(super) struct Archive {
    file: File,
    written: u64,
}

/// A header that is still to be written, of a file whose name and size were not known when its content came.
#[derive(Debug)]
pub(super) struct Later {
    at: u64,
    large: bool,
}

impl Archive {
    pub(super) fn new(file: File) -> Self {
        Self { file, written: 0 }
    }

    /// Writes a whole file.
    pub(super) fn add(&mut self, name: &str, content: &[u8]) -> Result<(), ImageError> {
        self.begin(name, content.len() as u64, false)?;
        self.write(content)?;
        self.pad(content.len() as u64)
    }

    /// Writes the header of a file whose content the caller writes to [`sink`](Self::sink), and then
    /// [`end`](Self::end)s. A file of 8 GiB or more must be `large`.
    pub(super) fn begin(&mut self, name: &str, size: u64, large: bool) -> Result<(), ImageError> {
        self.write(&tar::plain_header(name, size, large))
    }

    /// Leaves room for the header of such a file. Only for archives that can be sought in.
    pub(super) fn begin_later(&mut self, large: bool) -> Result<Later, ImageError> {
        let later = Later { at: self.written, large };
        self.write(&tar::plain_header("later", 0, large))?;
        Ok(later)
    }

    /// The file, for the content of what was begun; it shares the position.
    pub(super) fn sink(&self) -> Result<File, ImageError> {
        self.file.try_clone().map_err(|source| self.failed(source))
    }

    /// Takes note that `size` bytes were written to the sink.
    pub(super) fn end(&mut self, size: u64) -> Result<(), ImageError> {
        self.written += size;
        self.pad(size)
    }

    /// As [`end`](Self::end), and writes the header now.
    pub(super) fn end_later(&mut self, later: &Later, name: &str, size: u64) -> Result<(), ImageError> {
        self.end(size)?;
        let header = tar::plain_header(name, size, later.large);
        let place = |file: &mut File| {
            file.seek(SeekFrom::Start(later.at))?;
            file.write_all(&header)?;
            file.seek(SeekFrom::Start(self.written))
        };
        place(&mut self.file).map(drop).map_err(|source| failed("write", self.file.path(), source))
    }

    /// Ends the archive, and gives back its file and its size.
    pub(super) fn finish(mut self) -> Result<(File, u64), ImageError> {
        self.write(&tar::END)?;
        Ok((self.file, self.written))
    }

    fn pad(&mut self, size: u64) -> Result<(), ImageError> {
        self.write(&[0; tar::BLOCK][..tar::padding(size)])
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        self.file.write_all(bytes).map_err(|source| self.failed(source))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn failed(&self, source: std::io::Error) -> ImageError {
        failed("write", self.file.path(), source)
    }
}
