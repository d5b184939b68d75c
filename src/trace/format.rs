//! `trace.jsonl`: one record a line.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use minjail_tracer::{Account, Gap};
use serde::{Deserialize, Serialize};

use super::model::{Ending, FORMAT, Header, Listening, Program, Run, Touch, Trace};
use crate::path::JailPath;

/// The file of records in a trace directory.
pub(super) const RECORDS: &str = "trace.jsonl";
/// The directory of earlier contents in a trace directory.
pub(super) const STORE: &str = "before";

/// One line. A run starts with its header and ends with its ending.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub(super) enum Record {
    Run(Header),
    Program(Program),
    Touch(Touch),
    Listen(Listening),
    Account(Account),
    Back {
        path: JailPath,
    },
    Gap {
        program: u32,
        gap: Gap,
    },
    End {
        ending: Ending,
        gaps: BTreeMap<Gap, u64>,
        /// How many records the run has, its header and this one among them; `None` in a trace of before this was told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        records: Option<u64>,
    },
}

/// A trace could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    #[error("failed to read the trace `{path}`")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("`{path}`, line {line}, is not a trace record")]
    Record { path: PathBuf, line: usize, source: serde_json::Error },
    #[error("`{path}`, line {line}: a record before the header of its run")]
    Headless { path: PathBuf, line: usize },
    #[error(
        "`{path}` is damaged: up to line {line}, where a run ends, that run has {found} records, and there were {written}"
    )]
    Damaged { path: PathBuf, line: usize, found: u64, written: u64 },
    #[error("`{path}` has trace format {found}, and this minjail reads format {FORMAT}")]
    Format { path: PathBuf, found: u32 },
    #[error("`{path}` holds no run")]
    Empty { path: PathBuf },
    #[error("failed to write the trace `{path}`")]
    Write { path: PathBuf, source: std::io::Error },
}

impl Trace {
    /// Reads trace directories and merges them: the same runs, whatever the order of `directories`.
    ///
    /// # Errors
    /// A directory is no trace, or one of another format.
    pub fn read(directories: &[PathBuf]) -> Result<Self, TraceError> {
        let mut trace = Self::default();
        for directory in directories {
            trace.runs.append(&mut read_runs(&directory.join(RECORDS))?);
            trace.store.append(&mut read_store(&directory.join(STORE))?);
        }
        trace.runs.sort();
        trace.runs.dedup();
        Ok(trace)
    }
}

fn read_runs(path: &Path) -> Result<Vec<Run>, TraceError> {
    let failed = |source| TraceError::Read { path: path.to_path_buf(), source };
    let file = BufReader::new(fs_err::File::open(path).map_err(failed)?);
    let mut runs: Vec<Run> = Vec::new();
    // Of the run that is read: lines that are gone from its middle leave no other trace.
    let mut count = 0;
    // Bytes, as a line may have been cut off in the middle of a character.
    let mut lines = file.split(b'\n').enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        let line = line.map_err(failed)?;
        let record = match serde_json::from_slice(&line) {
            Ok(record) => record,
            // A run that was cut off in the middle of a line: what came before it counts.
            Err(error) if error.is_eof() && lines.peek().is_none() => break,
            Err(source) => return Err(TraceError::Record { path: path.to_path_buf(), line: index + 1, source }),
        };
        if let Record::Run(header) = record {
            if header.trace_format != FORMAT {
                return Err(TraceError::Format { path: path.to_path_buf(), found: header.trace_format });
            }
            runs.push(Run::new(header));
            count = 1;
            continue;
        }
        let headless = || TraceError::Headless { path: path.to_path_buf(), line: index + 1 };
        // What comes after its end is of another run.
        let run = runs.last_mut().filter(|run| run.ending.is_none()).ok_or_else(headless)?;
        count += 1;
        if let Record::End { records: Some(written), .. } = record
            && written != count
        {
            return Err(TraceError::Damaged { path: path.to_path_buf(), line: index + 1, found: count, written });
        }
        add(run, record);
    }
    if runs.is_empty() {
        return Err(TraceError::Empty { path: path.to_path_buf() });
    }
    for run in &mut runs {
        // A list that grew has room for up to as many again.
        run.touches.shrink_to_fit();
    }
    Ok(runs)
}

fn add(run: &mut Run, record: Record) {
    match record {
        Record::Run(_) => {}
        Record::Program(program) => run.programs.push(program),
        Record::Touch(touch) => run.touches.push(touch),
        Record::Listen(listening) => {
            run.listening.insert(listening);
        }
        Record::Account(account) => {
            run.accounts.insert(account);
        }
        Record::Back { path } => {
            run.back.insert(path);
        }
        Record::Gap { program, gap } => *run.gaps.entry(gap).or_default().entry(program).or_default() += 1,
        Record::End { ending, .. } => run.ending = Some(ending),
    }
}

pub(super) fn read_store(directory: &Path) -> Result<BTreeMap<String, PathBuf>, TraceError> {
    let failed = |source| TraceError::Read { path: directory.to_path_buf(), source };
    let mut store = BTreeMap::new();
    let entries = match fs_err::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(store),
        Err(error) => return Err(failed(error)),
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        // No minjail has put anything else there, and whoever opened a FIFO would wait.
        let is_file = entry.file_type().map_err(failed)?.is_file();
        if let (Ok(name), true) = (entry.file_name().into_string(), is_file) {
            store.insert(name, entry.path());
        }
    }
    Ok(store)
}

/// Writes one record and its newline.
///
/// # Errors
/// What the writer says.
pub(super) fn write_record(writer: &mut impl Write, record: &Record) -> std::io::Result<()> {
    serde_json::to_writer(&mut *writer, record)?;
    writer.write_all(b"\n")
}

/// Writes a whole run, record by record.
///
/// # Errors
/// What the writer says.
pub fn write_run(writer: &mut impl Write, run: &Run) -> std::io::Result<()> {
    let mut count = 0;
    let mut write = |record: &Record| {
        count += 1;
        write_record(writer, record)
    };
    write(&Record::Run(run.header.clone()))?;
    for program in &run.programs {
        write(&Record::Program(program.clone()))?;
    }
    for touch in &run.touches {
        write(&Record::Touch(touch.clone()))?;
    }
    for &listening in &run.listening {
        write(&Record::Listen(listening))?;
    }
    for &account in &run.accounts {
        write(&Record::Account(account))?;
    }
    for path in &run.back {
        write(&Record::Back { path: path.clone() })?;
    }
    for (&gap, counts) in &run.gaps {
        for (&program, &count) in counts {
            for _ in 0..count {
                write(&Record::Gap { program, gap })?;
            }
        }
    }
    let Some(ending) = run.ending else { return Ok(()) };
    let end = Record::End { ending, gaps: run.gap_counts(), records: Some(count + 1) };
    write_record(writer, &end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::JailPath;
    use crate::trace::Found;
    use minjail_tracer::Access;

    fn run(workload: &str) -> Run {
        let mut run = Run::new(Header::new(workload, JailPath::literal(b"/bin/true")));
        let odd = JailPath::parse(b"/odd\xff\n\xc3\xa4").unwrap();
        run.touches.push(Touch::new(1, "openat", Access::Read, odd, Found::Missing));
        run.accounts = [Account::User(1000), Account::Group(27)].into();
        run.gaps.insert(Gap::IoUring, BTreeMap::from([(1, 2)]));
        run.ending = Some(Ending::Exited(3));
        run
    }

    fn write(directory: &Path, runs: &[Run]) -> PathBuf {
        let mut bytes = Vec::new();
        for run in runs {
            write_run(&mut bytes, run).unwrap();
        }
        fs_err::create_dir_all(directory).unwrap();
        fs_err::write(directory.join(RECORDS), bytes).unwrap();
        directory.to_path_buf()
    }

    #[test]
    fn what_was_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = write(directory.path(), &[run("a")]);
        assert_eq!(Trace::read(&[path]).unwrap().runs, [run("a")]);
    }

    #[test]
    fn merging_knows_no_order() {
        let directory = tempfile::tempdir().unwrap();
        let a = write(&directory.path().join("a"), &[run("a")]);
        let b = write(&directory.path().join("b"), &[run("b"), run("a")]);
        let merged = Trace::read(&[a.clone(), b.clone()]).unwrap();
        assert_eq!(merged.runs.len(), 2);
        assert_eq!(merged, Trace::read(&[b.clone(), a.clone(), b]).unwrap());
    }

    #[test]
    fn a_cut_line_ends_the_trace_and_a_wrong_one_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = write(directory.path(), &[run("a")]);
        let file = path.join(RECORDS);
        let text = fs_err::read_to_string(&file).unwrap();
        let character = text.find('\u{e4}').unwrap();
        for length in [text.len() - 9, character, character + 1] {
            fs_err::write(&file, &text.as_bytes()[..length]).unwrap();
            let cut = Trace::read(std::slice::from_ref(&path)).unwrap();
            assert_eq!(cut.runs[0].ending, None);
        }
        fs_err::write(&file, format!("{text}nonsense\n")).unwrap();
        assert!(matches!(Trace::read(&[path]), Err(TraceError::Record { .. })));
    }

    /// Of two runs, whichever line it is, but for an end, without which the run was cut off.
    #[test]
    fn a_line_that_is_lost_or_there_twice_is_missed() {
        let directory = tempfile::tempdir().unwrap();
        let path = write(directory.path(), &[run("a"), run("b")]);
        let file = path.join(RECORDS);
        let text = fs_err::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let read = |lines: &[&str]| {
            fs_err::write(&file, lines.join("\n") + "\n").unwrap();
            Trace::read(std::slice::from_ref(&path))
        };
        assert_eq!(read(&lines).unwrap().runs, [run("a"), run("b")]);
        for at in 0..lines.len() {
            let (mut without, mut doubled) = (lines.clone(), lines.clone());
            without.remove(at);
            doubled.insert(at, lines[at]);
            if lines[at].contains(r#""record":"end""#) {
                assert!(read(&without).unwrap().runs.iter().any(|run| run.ending.is_none()), "{at}");
                assert!(read(&doubled).is_err(), "{at}");
                continue;
            }
            assert!(matches!(read(&without), Err(TraceError::Damaged { .. } | TraceError::Headless { .. })), "{at}");
            let is_header = lines[at].contains(r#""record":"run""#);
            assert!(is_header || matches!(read(&doubled), Err(TraceError::Damaged { .. })), "{at}");
        }
    }

    #[test]
    fn a_trace_that_counts_nothing_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = write(directory.path(), &[run("a")]);
        let file = path.join(RECORDS);
        let text = fs_err::read_to_string(&file).unwrap();
        let uncounted = text.replace(r#","records":7"#, "");
        assert_ne!(uncounted, text);
        fs_err::write(&file, uncounted).unwrap();
        assert_eq!(Trace::read(&[path]).unwrap().runs, [run("a")]);
    }

    #[test]
    fn what_is_no_trace_of_this_format() {
        let directory = tempfile::tempdir().unwrap();
        let path = write(directory.path(), &[run("a")]);
        let file = path.join(RECORDS);
        let text = fs_err::read_to_string(&file).unwrap();
        let read = |text: &str| {
            fs_err::write(&file, text).unwrap();
            Trace::read(std::slice::from_ref(&path))
        };
        let later = text.replace(&format!(r#""trace-format":{FORMAT}"#), r#""trace-format":7"#);
        assert!(matches!(read(&later), Err(TraceError::Format { found: 7, .. })));
        assert!(matches!(read(""), Err(TraceError::Empty { .. })));
    }
}
