//! The proof: every workload again, in a jail made of the image; and what was missing, if it fails.

use std::collections::BTreeSet;

use super::diagnose::{Diagnosis, Differing, diagnose, place};
use super::exit::Exit;
use super::failure::Failure;
use super::rehearse::Rehearsal;
use crate::files::{Listing, Policy, REPAIR};
use crate::jail::{self, Base};
use crate::path::{Facts, JailPath, escape};
use crate::profile::{Ready, StopSignal};
use crate::root::Root;
use crate::trace::{Access, Ending, Found, Link, Program, Run, Touch};
use crate::workload::{Fault, Observation, Sought};

/// How a workload did where everything is there, to hold the jail against.
pub(super) struct Model {
    ending: Option<Ending>,
    was_stopped: bool,
    wrote: bool,
}

impl Model {
    pub(super) fn of(observation: &Observation) -> Self {
        Self { ending: observation.ending, was_stopped: observation.was_stopped, wrote: !observation.stdout.is_empty() }
    }
}

/// What came of one workload in the jail.
pub(super) struct Verdict {
    pub(super) workload: String,
    /// What ran it, if that was not minjail's jail.
    engine: Option<&'static str>,
    faults: Vec<String>,
    pub(super) culprits: Vec<Sought>,
    unlisted: Vec<Sought>,
    pub(super) differing: Vec<Differing>,
    last_words: Vec<String>,
}

impl Verdict {
    /// What came of a workload that an engine has run: there nobody sees what it looked for.
    pub(super) fn of_engine(workload: &str, engine: &'static str, observation: &Observation) -> Self {
        Self {
            workload: workload.to_owned(),
            engine: Some(engine),
            faults: observation.faults.iter().map(Fault::to_string).collect(),
            culprits: Vec::new(),
            unlisted: Vec::new(),
            differing: Vec::new(),
            last_words: last_words(observation),
        }
    }

    /// Where it was run.
    pub(super) fn place(&self) -> &'static str {
        self.engine.unwrap_or("the jail")
    }

    pub(super) fn is_good(&self) -> bool {
        self.faults.is_empty()
    }

    /// True if the last thing that it wrote may be what EIO or EXDEV is called.
    fn may_lack_attributes(&self) -> bool {
        const NAMES: [&str; 4] = ["eio", "input/output error", "exdev", "cross-device link"];
        let says_so = |line: &String| NAMES.iter().any(|name| line.to_lowercase().contains(name));
        !self.is_good() && self.last_words.iter().any(says_so)
    }

    /// Tells what went wrong, and what was missing: the last thing first, since what a program looked for just before it
    /// ended is most likely what it ended for.
    pub(super) fn tell(&self) {
        if self.is_good() {
            return;
        }
        for fault in &self.faults {
            say!("minjail: in {}, workload `{}`: {fault}", self.place(), self.workload);
        }
        tell_last_words(&self.last_words);
        for (index, culprit) in self.culprits.iter().take(SHOWN).enumerate() {
            let likely = if index == 0 { ", the last thing that was missing" } else { "" };
            // The workload's first program has no program that looked for it.
            let seeker = match culprit.program.as_str() {
                "" => "to start the workload".to_owned(),
                program => format!("by `{program}`"),
            };
            say!("minjail: missing: `{}`, looked for {seeker}{likely}", culprit.path);
        }
        if self.culprits.len() > SHOWN {
            say!("minjail: and {} more that were missing", self.culprits.len() - SHOWN);
        }
        for name in self.unlisted.iter().take(SHOWN) {
            say!("minjail: not listed: `{}`, in a directory that `{}` listed", name.path, name.program);
        }
        for Differing { sought, how } in self.differing.iter().take(SHOWN) {
            say!("minjail: differs: `{}`, which `{}` used, {how}", sought.path, sought.program);
        }
    }
}

/// The last lines that a program wrote to standard error, or else to standard output, as servers do that log there.
pub(super) fn last_words(observation: &Observation) -> Vec<String> {
    let Observation { stdout, stderr, .. } = observation;
    let words = if stderr.trim_ascii().is_empty() { stdout } else { stderr };
    let lines: Vec<&[u8]> = words.trim_ascii_end().split(|&byte| byte == b'\n').rev().take(LINES).collect();
    let lines = lines.iter().rev().map(|line| line.trim_ascii_end()).filter(|line| !line.is_empty());
    let shown = lines.map(|line| match line.split_at_checked(LONGEST) {
        Some((shown, _)) => format!("{} ...", escape(shown)),
        None => escape(line),
    });
    shown.collect()
}

pub(super) fn tell_last_words(words: &[String]) {
    for line in words {
        say!("minjail: it wrote: {line}");
    }
}

/// So many last lines of what a program wrote are told.
const LINES: usize = 10;

/// So many bytes of a line: what is written may be no text.
const LONGEST: usize = 1000;

/// So many missing paths are told.
const SHOWN: usize = 10;

/// Runs a workload in a jail made of `base`. `model` is how it did in `root`, where missing files may be.
pub(super) fn try_out(
    rehearsal: &Rehearsal<'_>,
    base: &Base,
    model: Option<&Model>,
    root: &Root,
) -> Result<Verdict, Failure> {
    let observation = rehearsal.in_jail(base, None)?;
    let mut faults: Vec<String> = observation.faults.iter().map(Fault::to_string).collect();
    // Where it may do either, what it does in the jail tells whether it does there what it did.
    let may_end = rehearsal.workload.ready.as_ref().is_some_and(Ready::may_end);
    if let (true, Some(model)) = (faults.is_empty(), model) {
        if let (Some(before), Some(ending)) = (model.ending, observation.ending)
            && !is_alike(before, ending, &observation, rehearsal.workload.stop.signal)
        {
            faults.push(format!("it {ending}, and {} it {before}", place(root)));
        } else if may_end && model.was_stopped && !observation.was_stopped {
            faults.push(format!("it ended by itself, and {} it went on until it was stopped", place(root)));
        } else if may_end && !model.was_stopped && observation.was_stopped {
            faults.push(format!("it went on until it was stopped, and {} it ended by itself", place(root)));
        }
        if model.wrote && observation.stdout.is_empty() {
            faults.push(format!("it wrote nothing to standard output, and something {}", place(root)));
        }
    }
    let mut diagnosis = Diagnosis::default();
    if !faults.is_empty() {
        diagnosis = diagnose(&observation, &rehearsal.workload.state, root, &Root::open(&base.tree)?)?;
    }
    let Diagnosis { missing: culprits, unlisted, differing } = diagnosis;
    Ok(Verdict {
        workload: rehearsal.header.workload.clone(),
        engine: None,
        faults,
        culprits,
        unlisted,
        differing,
        last_words: last_words(&observation),
    })
}

/// What can be done about names that only a listing did not show; nothing if something else was missing.
pub(super) fn unlisted(verdicts: &[Verdict], policy: &Policy) -> Option<String> {
    const NAMED: usize = 3;
    if verdicts.iter().any(|verdict| !verdict.culprits.is_empty()) {
        return None;
    }
    let paths: BTreeSet<&JailPath> =
        verdicts.iter().flat_map(|verdict| &verdict.unlisted).map(|name| &name.path).collect();
    let first = paths.first()?;
    let mut named: Vec<String> = paths.iter().take(NAMED).map(|path| format!("`{path}`")).collect();
    named.extend(paths.len().checked_sub(NAMED).filter(|more| *more > 0).map(|more| format!("{more} more")));
    let names = match policy.listing {
        Listing::Opened => "; `--listing names` keeps all names of what is listed",
        Listing::Names | Listing::Full => "",
    };
    Some(format!("a listing did not show {}: `--include {first}` packs that{names}", named.join(", ")))
}

/// True if `ending` is as good as the one `before`. A server that was told to stop may do that in several ways, by when it heard of it:
/// before it had a handler, in the middle of its start, or afterwards. Only that it crashed says something.
fn is_alike(before: Ending, ending: Ending, observation: &Observation, told: StopSignal) -> bool {
    let is_crash =
        |ending| matches!(ending, Ending::Killed(signal) if ![told.number(), libc::SIGKILL].contains(&signal));
    before == ending || (observation.was_stopped && !is_crash(ending))
}

/// A run that touches what was missing, so that the next image has it and what it needs.
pub(super) fn repair(rehearsal: &Rehearsal<'_>, culprits: &[Sought], root: &Root) -> Result<Run, Failure> {
    let mut run = Run::new(rehearsal.header.clone());
    let programs: BTreeSet<&String> = culprits.iter().map(|culprit| &culprit.program).collect();
    for (id, path) in (1..).zip(&programs) {
        run.programs.push(Program { id, parent: 0, path: (*path).clone(), arguments: Vec::new() });
    }
    for culprit in culprits {
        let walk = root.resolve(&JailPath::root(), culprit.path.as_bytes(), true)?;
        let links =
            walk.links.iter().map(|link| Link { path: link.path.clone(), target: escape(&link.target), facts: None });
        let program =
            run.programs.iter().find(|program| program.path == culprit.program).map_or(0, |program| program.id);
        let (links, access) = (links.collect(), access(walk.facts.as_ref()));
        let found = walk.facts.map_or(Found::Missing, Found::There);
        run.touches.push(Touch { links, ..Touch::new(program, REPAIR, access, walk.end, found) });
    }
    run.ending = Some(Ending::Exited(0));
    Ok(run)
}

/// A program needs its interpreter and libraries too.
fn access(facts: Option<&Facts>) -> Access {
    match facts {
        Some(facts) if facts.is_file() && facts.mode & 0o111 != 0 => Access::Execute,
        Some(facts) if facts.is_file() => Access::Read,
        _ => Access::Look,
    }
}

/// The failure that a build or a verification ends with.
pub(super) fn unproved(verdicts: &[Verdict]) -> Failure {
    let names: Vec<String> =
        verdicts.iter().filter(|verdict| !verdict.is_good()).map(|verdict| format!("`{}`", verdict.workload)).collect();
    let failure = Failure::usage(format!("the image does not do what it should: workload {}", names.join(", ")))
        .exit(Exit::Unproved);
    match verdicts.iter().filter(|verdict| !verdict.is_good()).find_map(|verdict| verdict.engine) {
        // Its client ends as the program does, and tells by its words alone that there was no container.
        Some(engine) => failure.hint(format!(
            "if {engine} itself wrote that it could not start a container, that says nothing of the image: see that {engine} works \
             by itself"
        )),
        None if verdicts.iter().any(Verdict::may_lack_attributes) && !jail::replaces_directories() => failure.hint(
            "before Linux 6.6, a program in a jail cannot remove a directory of the image with what is in it, nor make one again, nor \
             rename one that it has made there: if that is what failed, prove the image on a newer kernel",
        ),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kernel_without_attributes_in_memory_is_blamed_for() {
        let blamed = |words: &str, faults: &[&str]| {
            let verdict = Verdict {
                workload: "main".to_owned(),
                engine: None,
                faults: faults.iter().map(|&fault| fault.to_owned()).collect(),
                culprits: Vec::new(),
                unlisted: Vec::new(),
                differing: Vec::new(),
                last_words: vec!["starts".to_owned(), words.to_owned()],
            };
            verdict.may_lack_attributes()
        };
        let fails = &["ended with status 1"];
        assert!(blamed("rm: cannot remove 'old': Input/output error", fails) && blamed("EIO: mkdir", fails));
        assert!(blamed("rename: Invalid cross-device link", fails) && blamed("Error: EXDEV, rename", fails));
        assert!(!blamed("rename: No such file or directory", fails) && !blamed("Invalid cross-device link", &[]));
    }
}
