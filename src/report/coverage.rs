//! How much of a program its runs have shown, and how likely another run is to need what none has shown.
//!
//! In: runs, one after the other. Out: how many new files each brought, and an estimate over all. A file counts that was
//! there before the run and that the run opened, executed or looked at.
//!
//! The estimate is Good's and Turing's, with runs for samples: a file that one run alone has used stands for those that
//! none has used yet. For each run it asks whether the others had prepared for it; the share of those for which they had
//! not is the chance that the next run finds itself unprepared. It holds for runs like those that were seen, and says
//! nothing of what no workload does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use crate::path::JailPath;
use crate::trace::{Access, Found, Run, is_kernels};

/// What runs have shown so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    runs: usize,
    /// How many runs have used each file, and the first of them.
    files: BTreeMap<JailPath, (usize, usize)>,
    thin: BTreeSet<String>,
}

/// What one run brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brought {
    pub workload: String,
    pub files: usize,
    pub new: usize,
    /// It used nothing but its programs, the loader and the C library.
    pub is_thin: bool,
}

/// What all runs together say of the next one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Estimate {
    pub runs: usize,
    pub files: usize,
    /// Files that one run alone has used.
    pub once: usize,
    /// In per cent: how likely another run is to need a file that none has used; of one run, nobody can tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unseen_percent: Option<u32>,
    /// Workloads that used nothing but their programs, the loader and the C library.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub thin: BTreeSet<String>,
}

impl Coverage {
    /// What all these runs have shown.
    pub fn of<'a>(runs: impl IntoIterator<Item = &'a Run>) -> Self {
        let mut coverage = Self::default();
        runs.into_iter().for_each(|run| drop(coverage.add(run)));
        coverage
    }

    /// Takes one more run.
    pub fn add(&mut self, run: &Run) -> Brought {
        let was_there = run.touches.iter().filter(|touch| {
            matches!(&touch.found, Found::There(facts) if facts.is_file()) && !touch.made && !is_kernels(&touch.path)
        });
        let used: BTreeMap<&JailPath, bool> = was_there.fold(BTreeMap::new(), |mut used, touch| {
            *used.entry(&touch.path).or_default() |= touch.access == Access::Execute;
            used
        });
        let is_thin = used.iter().all(|(path, is_executed)| *is_executed || is_everybodys(path));
        let mut new = 0;
        for path in used.keys() {
            let (count, _) = self.files.entry((*path).clone()).or_insert_with(|| {
                new += 1;
                (0, self.runs)
            });
            *count += 1;
        }
        self.runs += 1;
        let workload = run.header.workload.clone();
        if is_thin {
            self.thin.insert(workload.clone());
        } else {
            self.thin.remove(&workload);
        }
        Brought { workload, files: used.len(), new, is_thin }
    }

    /// What that says of the next run; `None` before the first.
    pub fn estimate(&self) -> Option<Estimate> {
        let once: Vec<usize> = self.files.values().filter(|(count, _)| *count == 1).map(|(_, run)| *run).collect();
        let unprepared: BTreeSet<&usize> = once.iter().collect();
        let percent = |part: usize| u32::try_from((part * 100 + self.runs / 2) / self.runs).unwrap_or(100);
        (self.runs > 0).then(|| Estimate {
            runs: self.runs,
            files: self.files.len(),
            once: once.len(),
            unseen_percent: (self.runs > 1).then(|| percent(unprepared.len())),
            thin: self.thin.clone(),
        })
    }
}

/// What every dynamically linked program of a system opens before its first own line.
fn is_everybodys(path: &JailPath) -> bool {
    const EXACT: [&[u8]; 3] = [b"/etc/ld.so.cache", b"/etc/ld.so.preload", b"/usr/lib/locale/locale-archive"];
    let name = path.file_name();
    let is_library = |stem: &[u8]| {
        let rest = name.strip_prefix(stem);
        rest.is_some_and(|rest| rest.starts_with(b".so") || rest.starts_with(b"-2."))
    };
    EXACT.contains(&path.as_bytes())
        || name.starts_with(b"ld-linux")
        || name.starts_with(b"ld-musl")
        || is_library(b"ld")
        || is_library(b"libc")
        || path.as_bytes().starts_with(b"/usr/lib/locale/C.utf8/")
}

impl fmt::Display for Brought {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { workload, files, new, is_thin } = self;
        write!(formatter, "workload `{workload}` used {files} {}, {new} of them new", noun(*files))?;
        if *is_thin {
            formatter.write_str("; only its programs, the loader and the C library: is this representative?")?;
        }
        Ok(())
    }
}

impl fmt::Display for Estimate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { runs, files, once, unseen_percent, .. } = self;
        let noun = noun(*files);
        match unseen_percent {
            None => {
                write!(formatter, "{files} {noun} in one run; what another run would need, only more runs can tell")
            }
            Some(percent) => write!(
                formatter,
                "{files} {noun} in {runs} runs, {once} of them in one run only: another such run needs an unseen file with a \
                 chance of about {percent} %"
            ),
        }
    }
}

fn noun(files: usize) -> &'static str {
    if files == 1 { "file" } else { "files" }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::path::{Facts, FileType};
    use crate::trace::{Header, Touch};

    fn run(workload: &str, paths: &[&str]) -> Run {
        let path = |text: &str| JailPath::parse(text.as_bytes()).unwrap();
        let mut run = Run::new(Header::new(workload, path("/bin/app")));
        let facts = Facts {
            file_type: FileType::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 1,
            mtime: 1,
            mtime_nsec: 0,
            dev: 1,
            ino: 1,
            nlink: 1,
            rdev: 0,
        };
        run.touches.extend(paths.iter().map(|text| {
            let access = if text.starts_with("/bin/") { Access::Execute } else { Access::Read };
            let touch = Touch::new(1, "openat", access, path(text), Found::There(facts.clone()));
            Touch { made: text.starts_with("/made/"), ..touch }
        }));
        run
    }

    #[test]
    fn every_run_says_what_it_brought() {
        let mut coverage = Coverage::default();
        assert_eq!(coverage.estimate(), None);
        let first = coverage.add(&run("a", &["/bin/app", "/lib/libc.so.6", "/x", "/x", "/made/y", "/proc/self/maps"]));
        assert_eq!((first.files, first.new, first.is_thin), (3, 3, false));
        let second = coverage.add(&run("b", &["/bin/app", "/x", "/z"]));
        assert_eq!((second.files, second.new), (3, 1));
        assert_eq!(second.to_string(), "workload `b` used 3 files, 1 of them new");
    }

    #[test]
    fn the_chance_of_an_unseen_file_is_the_share_of_runs_that_the_others_had_not_prepared_for() {
        let percent = |runs: &[&[&str]]| {
            let runs: Vec<Run> = runs.iter().map(|paths| run("a", paths)).collect();
            Coverage::of(&runs).estimate().unwrap().unseen_percent
        };
        assert_eq!(percent(&[&["/a"]]), None);
        assert_eq!(percent(&[&["/a"], &["/a"]]), Some(0));
        assert_eq!(percent(&[&["/a"], &["/a", "/b", "/c"]]), Some(50));
        assert_eq!(percent(&[&["/a", "/b"], &["/a", "/b"], &["/a", "/c"]]), Some(33));
        assert_eq!(percent(&[&["/a"], &["/b"]]), Some(100));
        let text = Coverage::of(&[run("a", &["/a"]), run("a", &["/a", "/b"])]).estimate().unwrap().to_string();
        assert_eq!(
            text,
            "2 files in 2 runs, 1 of them in one run only: another such run needs an unseen file with a chance of about 50 %"
        );
    }

    #[test]
    fn a_run_that_shows_next_to_nothing_is_told_of() {
        let thin =
            ["/bin/app", "/etc/ld.so.cache", "/lib64/ld-linux-x86-64.so.2", "/usr/lib/x86_64-linux-gnu/libc.so.6"];
        let mut coverage = Coverage::default();
        assert!(coverage.add(&run("a", &thin)).to_string().ends_with("is this representative?"));
        assert_eq!(coverage.estimate().unwrap().thin, BTreeSet::from(["a".to_owned()]));
        assert!(!coverage.add(&run("b", &[&thin[..], &["/usr/lib/libcap.so.2"]].concat())).is_thin);
        assert!(!coverage.add(&run("c", &["/bin/app", "/usr/lib/libcrypto.so.3"])).is_thin);
    }
}
