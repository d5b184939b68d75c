//! Traces on the disk: whole under their names, or not there.
//!
//! In: a trace, in files without names or in memory. Out: the trace directory, by one rename.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::format::{RECORDS, Record, STORE, write_record, write_run};
use super::holes::Holes;
use super::model::{Touch, Trace};
use super::record::RecordError;
use super::store::{PENDING, Store, copy_sparsely};
use crate::path::hex;
use crate::publish::{Stage, directory_of, may_make_in, sync};

impl Trace {
    /// Writes the trace for the directory `target`, as which it is to be published; an older trace there is replaced, anything else
    /// refused.
    ///
    /// Equal traces give equal bytes.
    ///
    /// # Errors
    /// `target` exists and is no trace, or cannot be written; a kept content cannot be read.
    pub fn write(&self, target: &Path) -> Result<Stage, RecordError> {
        self.has_all_contents()?;
        let failed = |source| RecordError::Write { path: target.to_path_buf(), source };
        fill(target, |stage| {
            let mut records = BufWriter::new(fs_err::File::create_new(stage.join(RECORDS)).map_err(failed)?);
            self.runs.iter().try_for_each(|run| write_run(&mut records, run)).map_err(failed)?;
            let records = records.into_inner().map_err(|error| failed(error.into_error()))?;
            records.sync_all().map_err(failed)?;
            copy_store(&self.store, stage, failed)
        })
    }

    /// Refuses to write records of contents that are lost: who builds from them hears of that when the trace may be gone that had them.
    fn has_all_contents(&self) -> Result<(), RecordError> {
        let touches = self.runs.iter().flat_map(|run| &run.touches);
        let mut named = touches.filter_map(|touch| Some((&touch.path, touch.before.as_ref()?)));
        match named.find(|(_, sha256)| !self.store.contains_key(*sha256)) {
            Some((path, sha256)) => Err(RecordError::Lost { path: path.clone(), sha256: sha256.clone() }),
            None => Ok(()),
        }
    }
}

/// Writes a trace of these records and contents beside `target`, which is to be its name.
pub(super) fn stage(records: &mut File, store: &Store, target: &Path) -> Result<Stage, RecordError> {
    let failed = |source| RecordError::Write { path: target.to_path_buf(), source };
    fill(target, |stage| {
        let mut copy = fs_err::File::create_new(stage.join(RECORDS)).map_err(failed)?;
        let digests = store.write(&stage.join(STORE)).map_err(failed)?;
        records.rewind().and_then(|()| copy_records(records, copy.file_mut(), &digests)).map_err(failed)?;
        copy.sync_all().map_err(failed)
    })
}

/// Copies the records, with what has a digest by now under that.
fn copy_records(records: &mut File, copy: &mut File, digests: &BTreeMap<String, String>) -> io::Result<()> {
    if digests.is_empty() {
        // Between two plain files the kernel copies, or shares what it can.
        return io::copy(records, copy).map(|_| ());
    }
    // In a text there is no quotation mark without a backslash before it.
    let mark = format!(r#""before":"{PENDING}"#);
    let mut copy = BufWriter::new(copy);
    for line in BufReader::new(records).lines() {
        let line = line?;
        if !line.contains(&mark) {
            copy.write_all(line.as_bytes())?;
            copy.write_all(b"\n")?;
            continue;
        }
        let mut record = serde_json::from_str(&line)?;
        if let Record::Touch(Touch { before: Some(before), .. }) = &mut record
            && let Some(digest) = digests.get(before)
        {
            before.clone_from(digest);
        }
        write_record(&mut copy, &record)?;
    }
    copy.flush()
}

/// Checks that a trace can be put at `target`, as far as that can be told before there is one: what runs for hours must
/// not have run in vain.
///
/// # Errors
/// `target` exists and is no trace, or its directory is not there, or may not be written.
pub fn check_place(target: &Path) -> Result<(), RecordError> {
    refuse_other(target)?;
    may_make_in(&directory_of(target)).map_err(|source| RecordError::Write { path: target.to_path_buf(), source })
}

fn refuse_other(target: &Path) -> Result<(), RecordError> {
    if target == Path::new("-") {
        return Err(RecordError::StandardOutput);
    }
    match target.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // As one whose name is too long.
        Err(source) => Err(RecordError::Write { path: target.to_path_buf(), source }),
        Ok(_) if target.join(RECORDS).is_file() => Ok(()),
        Ok(_) => Err(RecordError::NoTrace { path: target.to_path_buf() }),
    }
}

/// Has `write` make a trace in a directory beside `target`, and brings it to the disk.
fn fill(target: &Path, write: impl FnOnce(&Path) -> Result<(), RecordError>) -> Result<Stage, RecordError> {
    refuse_other(target)?;
    let stage = Stage::directory(target, true, 0o700, |older| older.join(RECORDS).is_file())?;
    write(stage.path())?;
    for directory in [stage.path().join(STORE), stage.path().to_path_buf()] {
        if directory.is_dir() {
            sync(&directory)?;
        }
    }
    Ok(stage)
}

/// Copies earlier contents, each to the disk. One that has changed is refused: who builds of the copy would hear of it when the trace may be
/// gone that another one has it from.
fn copy_store(
    store: &BTreeMap<String, PathBuf>,
    stage: &Path,
    failed: impl Fn(io::Error) -> RecordError + Copy,
) -> Result<(), RecordError> {
    if store.is_empty() {
        return Ok(());
    }
    fs_err::create_dir(stage.join(STORE)).map_err(failed)?;
    for (digest, kept) in store {
        // Not `fs::copy`, which fills holes.
        let mut copy = fs_err::File::create_new(stage.join(STORE).join(digest)).map_err(failed)?;
        let mut source = Holes::new(fs_err::File::open(kept).map_err(failed)?.into_parts().0, 0);
        let mut hash = Sha256::new();
        copy_sparsely(&mut source, copy.file(), 0, Some(&mut hash)).map_err(|error| failed(error.into()))?;
        if hex(&hash.finalize()) != *digest {
            return Err(RecordError::Changed { path: kept.clone() });
        }
        copy.flush().and_then(|()| copy.sync_all()).map_err(failed)?;
    }
    Ok(())
}
