//! Traces on the disk: whole under their names, or not there.
//!
//! In: a trace, in files without names or in memory. Out: the trace directory, by one rename.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

use super::format::{RECORDS, STORE, write_run};
use super::holes::Holes;
use super::model::Trace;
use super::record::RecordError;
use super::store::{Store, copy_sparsely};
use crate::publish::{Stage, directory_of, may_make_in, sync};

impl Trace {
    /// Writes the trace as the directory `target`; an older trace there is replaced, anything else refused.
    ///
    /// Equal traces give equal bytes.
    ///
    /// # Errors
    /// `target` exists and is no trace, or cannot be written; a kept content cannot be read.
    pub fn write(&self, target: &Path) -> Result<(), RecordError> {
        let failed = |source| RecordError::Write { path: target.to_path_buf(), source };
        let stage = fill(target, |stage| {
            let mut records = BufWriter::new(fs_err::File::create_new(stage.join(RECORDS)).map_err(failed)?);
            self.runs.iter().try_for_each(|run| write_run(&mut records, run)).map_err(failed)?;
            let records = records.into_inner().map_err(|error| failed(error.into_error()))?;
            records.sync_all().map_err(failed)?;
            copy_store(&self.store, stage).map_err(failed)
        })?;
        Ok(stage.publish()?)
    }
}

/// Writes a trace of these records and contents beside `target`, which is to be its name.
pub(super) fn stage(records: &mut File, store: &mut Store, target: &Path) -> Result<Stage, RecordError> {
    let failed = |source| RecordError::Write { path: target.to_path_buf(), source };
    fill(target, |stage| {
        let mut copy = fs_err::File::create_new(stage.join(RECORDS)).map_err(failed)?;
        records.rewind().and_then(|()| io::copy(records, &mut copy)).map_err(failed)?;
        copy.sync_all().map_err(failed)?;
        store.write(&stage.join(STORE)).map_err(failed)
    })
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
    if target.symlink_metadata().is_ok() && !target.join(RECORDS).is_file() {
        return Err(RecordError::NoTrace { path: target.to_path_buf() });
    }
    Ok(())
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

/// Copies earlier contents, each to the disk.
fn copy_store(store: &BTreeMap<String, PathBuf>, stage: &Path) -> io::Result<()> {
    if store.is_empty() {
        return Ok(());
    }
    fs_err::create_dir(stage.join(STORE))?;
    for (digest, kept) in store {
        // Not `fs::copy`, which fills holes.
        let mut copy = fs_err::File::create_new(stage.join(STORE).join(digest))?;
        copy_sparsely(&mut Holes::new(fs_err::File::open(kept)?.into_parts().0, 0), copy.file_mut(), 0, |_| {})?;
        copy.flush()?;
        copy.sync_all()?;
    }
    Ok(())
}
