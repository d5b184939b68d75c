//! `minjail trace`: run a program once, record what it touches, and build images from that.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use minjail_tracer::{Credentials, Event, Options};
use nix::sys::prctl::get_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Group, Uid, User, getgroups};

use super::apart::{keep_apart_from, keep_trace_apart};
use super::configure::check_command;
use super::duration;
use super::exit::Exit;
use super::failure::Failure;
use super::locate::locate;
use super::lost_rights::LostRights;
use super::outliving::Outliving;
use super::pack::{self, Needed};
use super::packing::Packing;
use super::platform::machine;
use super::stoppable::stoppable;
use super::variables::{Variables, environment, variables};
use crate::path::{JailPath, escape};
use crate::profile::{Image, Seconds};
use crate::root::Root;
use crate::slim::user_and_group;
use crate::trace::{Ending, Header, Recorder, Tally, Trace, check_place};

/// Run a program once and record every file it touches; with -o, build images from that
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where the trace goes [default: <program>.trace in the working directory]
    #[arg(short, long = "trace", value_name = "DIR")]
    trace: Option<PathBuf>,

    #[command(flatten)]
    packing: Packing,

    #[command(flatten)]
    running: Running,

    /// Run the program in a jail of this directory, which plays `/`: a root that was made by other means
    ///
    /// It runs as the jail's root unless `--user` says otherwise, in `/` unless `--workdir` does.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,

    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// How the program is run.
#[derive(Debug, clap::Args)]
pub(super) struct Running {
    /// Run the program as this user (and group), by name or number
    #[arg(long, value_name = "UID[:GID]")]
    pub(super) user: Option<String>,

    /// Run the program in this directory
    #[arg(long, value_name = "DIR")]
    pub(super) workdir: Option<PathBuf>,

    /// Set a variable for the program and in the image; a name alone takes the value from the environment
    ///
    /// Without it the image gets `PATH`, `HOME`, `TZ`, the locale, and those by which loaders and interpreters find their
    /// files, as `LD_LIBRARY_PATH`, `PYTHONPATH`, `NODE_PATH` or `CLASSPATH`; and `SHELL` and `TERM`, if the program used what
    /// these name. Of others that name files which it used, the summary tells.
    #[arg(long = "env", short, value_name = "NAME[=VALUE]")]
    pub(super) env: Vec<OsString>,

    /// How long processes that outlive the program are followed before they are ended, as `30s` or `5m`
    ///
    /// Ctrl-C (SIGINT, SIGTERM, SIGQUIT) reaches the program; once that has ended, it ends these processes. The trace is
    /// written afterwards. Another one ends minjail at once, and leaves no trace.
    #[arg(long, value_name = "DURATION", value_parser = duration::any, default_value = "10s")]
    grace: Seconds,
}

pub(super) fn run(arguments: Arguments) -> Result<Exit, Failure> {
    let prepared = arguments.packing.prepare()?;
    if let Some(root) = &arguments.root {
        keep_apart_from(root, prepared.outputs.places())?;
    }
    let workload = match &arguments.root {
        Some(root) => Workload::rooted(root, &arguments.running, &arguments.command)?,
        None => Workload::new(&arguments.running, &arguments.command)?,
    };
    if !prepared.outputs.images.is_empty() {
        check_command(&workload.header)?;
    }
    let name = workload.name();
    let target = arguments.trace.unwrap_or_else(|| PathBuf::from(format!("{name}.trace")));
    check_place(&target)?;
    keep_trace_apart(&target, prepared.outputs.places())?;

    prepared.outputs.reserve_standard_output()?;
    let options = arguments.running.options();
    let (ending, tally) = if arguments.root.is_some() {
        workload.trace_rooted(&target, &options, prepared.quiet)?
    } else {
        workload.watched(&target, &options, arguments.running.grace, prepared.quiet)?
    };
    if !prepared.quiet && !prepared.json {
        tell_of_end(ending, options.told_to_end.load(Ordering::SeqCst));
    }
    if prepared.outputs.images.is_empty() {
        pack::tell_of_trace(&tally, &target, &prepared);
    } else {
        let trace = Trace::read(std::slice::from_ref(&target))?;
        refuse_other(&trace, &workload.header, &target)?;
        let root = Root::open(&workload.header.root)?;
        let needed = Needed::of(&trace, &workload.header, root, &Image::default(), &prepared)?;
        drop(trace);
        needed.draw(&prepared)?.publish(&prepared)?;
    }
    Ok(ending.into())
}

/// Refuses a trace that another minjail has put in the place of this one's meanwhile.
fn refuse_other(trace: &Trace, own: &Header, target: &Path) -> Result<(), Failure> {
    // A jail may have given the program other groups.
    let is_own = |header: &Header| Header { groups: own.groups.clone(), ..header.clone() } == *own;
    if let [run] = trace.runs.as_slice()
        && is_own(&run.header)
    {
        return Ok(());
    }
    let text = format!("`{}` is not the trace of this run any more: another minjail has replaced it", target.display());
    Err(Failure::usage(text).hint("give each of several minjails that run at once a trace of its own, with `-t`"))
}

/// Says if the program has failed: of a run that ended early much is not known. `told` is the signal that asked for its end.
fn tell_of_end(ending: Ending, told: i32) {
    let how = match ending {
        Ending::Exited(0) => return,
        Ending::Killed(libc::SIGINT | libc::SIGTERM | libc::SIGHUP | libc::SIGQUIT) => return,
        Ending::Exited(_) | Ending::Killed(_) if told != 0 => return,
        Ending::Exited(status) => format!("ended with status {status}"),
        Ending::Killed(signal) => {
            let name =
                Signal::try_from(signal).map_or_else(|_| format!("signal {signal}"), |signal| signal.to_string());
            format!("was killed by {name}")
        }
    };
    say!("note: the program {how}: what it would have used later is not in the trace");
}

/// A program about to be traced.
pub(super) struct Workload {
    pub(super) command: minjail_tracer::Command,
    pub(super) header: Header,
}

impl Running {
    pub(super) fn options(&self) -> Options {
        Options { grace: Some(self.grace.duration()), ..Options::default() }
    }
}

impl Workload {
    pub(super) fn new(arguments: &Running, command: &[OsString]) -> Result<Self, Failure> {
        let typed = command.first().filter(|name| !name.is_empty());
        let typed = typed.ok_or_else(|| {
            Failure::usage("the command is empty")
                .exit(Exit::NotFound)
                .hint("name a program after `--`: `minjail trace -- /usr/bin/python3`")
        })?;
        let (entries, environment, named) = environment(&arguments.env)?;
        let directory = directory(arguments.workdir.as_deref())?;
        let credentials = arguments.user.as_deref().map(credentials).transpose()?;
        let path = environment.get(OsStr::new("PATH")).map(OsString::as_os_str);
        let mut program = locate(typed, path, credentials.as_ref())?;
        if let (true, Some(workdir)) = (program.is_relative(), &arguments.workdir) {
            // The path was checked from here, and is executed from there.
            program = std::path::absolute(&program).map_err(|error| io_failure("find", workdir, error))?;
        }
        let Credentials { uid, gid, groups } = credentials.clone().unwrap_or_else(own_credentials);
        let absolute = std::path::absolute(&program).map_err(|error| io_failure("find", &program, error))?;
        let Variables { env, optional } = variables(&environment, &named)?;
        let path = lexical(&absolute)?;
        let header = Header {
            command: command.iter().map(|argument| escape(argument.as_bytes())).collect(),
            env,
            optional,
            directory: JailPath::parse(directory.as_os_str().as_bytes()).map_err(Failure::new)?,
            uid,
            gid,
            groups,
            machine: machine(),
            ..Header::new(&file_name(&program), path)
        };
        let command = minjail_tracer::Command {
            program,
            arguments: command.to_vec(),
            environment: entries,
            directory: arguments.workdir.clone(),
            credentials,
            leads_group: false,
            parent_death_signal: get_pdeathsig().ok().flatten().map_or(0, |signal| signal as i32),
        };
        Ok(Self { command, header })
    }

    pub(super) fn name(&self) -> String {
        self.header.workload.clone()
    }

    /// Traces it, and says what is worth knowing of the run unless `quiet`: for whom it waits, up to `grace`, and who
    /// ran with less rights than usual.
    fn watched(
        &self,
        target: &Path,
        options: &Options,
        grace: Seconds,
        quiet: bool,
    ) -> Result<(Ending, Tally), Failure> {
        if quiet {
            return self.trace(target, options, |_| {});
        }
        let (mut outliving, mut lost) = (Outliving::new(grace), LostRights::start());
        let traced = self.trace(target, options, |event| {
            outliving.take(event);
            lost.take(event);
        })?;
        lost.tell();
        Ok(traced)
    }

    /// Traces it; `look` sees every event too.
    fn trace(
        &self,
        target: &Path,
        options: &Options,
        look: impl FnMut(&Event<'_>) + Send,
    ) -> Result<(Ending, Tally), Failure> {
        self.record(options, look)?.write(target)
    }

    /// Traces it; there is no trace yet.
    pub(super) fn record(
        &self,
        options: &Options,
        mut look: impl FnMut(&Event<'_>) + Send,
    ) -> Result<Recorded, Failure> {
        let mut recorder = Recorder::start(self.header.clone(), &self.header.root, &std::env::temp_dir())?;
        let traced = minjail_tracer::trace(&self.command, options, &mut |event| {
            look(&event);
            recorder.take(&event)
        });
        match traced {
            Ok(outcome) => Ok(Recorded { recorder, ending: outcome.into() }),
            Err(error) => Err(recorder.failure().map_or_else(|| error.into(), Failure::from)),
        }
    }
}

/// What a run has told, in files without names.
pub(super) struct Recorded {
    recorder: Recorder,
    ending: Ending,
}

impl Recorded {
    /// Makes the trace of it.
    pub(super) fn write(self, target: &Path) -> Result<(Ending, Tally), Failure> {
        let Self { recorder, ending } = self;
        let tally = stoppable(|told| {
            let written = recorder.write_out(ending, target)?;
            told.look();
            Ok(written.publish()?)
        })?;
        Ok((ending, tally))
    }
}

/// The directory that the program starts in, free of links.
fn directory(workdir: Option<&Path>) -> Result<PathBuf, Failure> {
    match workdir {
        Some(path) => std::fs::canonicalize(path)
            .map_err(|error| io_failure("enter", path, error).hint("name a directory that is there with `--workdir`")),
        None => std::env::current_dir().map_err(|error| {
            io_failure("find the working directory", Path::new("."), error)
                .hint("it was removed, perhaps: change to another, or name one with `--workdir`")
        }),
    }
}

pub(super) fn io_failure(step: &str, path: &Path, error: std::io::Error) -> Failure {
    #[derive(Debug, thiserror::Error)]
    #[error("failed to {step} `{path}`")]
    struct At {
        step: String,
        path: String,
        source: std::io::Error,
    }
    Failure::new(At { step: step.to_owned(), path: path.display().to_string(), source: error })
}

/// An absolute path with its `..` taken back by name alone: for the image's entrypoint, whose spelling the kernel
/// resolves again.
pub(super) fn lexical(path: &Path) -> Result<JailPath, Failure> {
    if let Ok(path) = JailPath::parse(path.as_os_str().as_bytes()) {
        return Ok(path);
    }
    let canonical = fs_err::canonicalize(path).map_err(Failure::new)?;
    JailPath::parse(canonical.as_os_str().as_bytes()).map_err(Failure::new)
}

pub(super) fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| "program".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// As whom this process runs.
pub(super) fn own_credentials() -> Credentials {
    let mut groups: Vec<u32> = getgroups().unwrap_or_default().into_iter().map(Gid::as_raw).collect();
    groups.sort_unstable();
    Credentials { uid: Uid::effective().as_raw(), gid: Gid::effective().as_raw(), groups }
}

/// `UID[:GID]`, by name or number, with the groups that the user has.
pub(super) fn credentials(text: &str) -> Result<Credentials, Failure> {
    let (user, group) = user_and_group(text);
    let known = match user.parse() {
        Ok(uid) => User::from_uid(Uid::from_raw(uid)).ok().flatten(),
        Err(_) => User::from_name(user).ok().flatten(),
    };
    let uid = match (&known, user.parse()) {
        (Some(known), _) => known.uid.as_raw(),
        (None, Ok(uid)) => uid,
        (None, Err(_)) => {
            return Err(Failure::usage(format!("there is no user `{user}`")).hint("give numbers, `UID:GID`"));
        }
    };
    let gid = match group {
        Some(group) => match (group.parse(), Group::from_name(group).ok().flatten()) {
            (Ok(gid), _) => gid,
            (_, Some(group)) => group.gid.as_raw(),
            _ => {
                return Err(Failure::usage(format!("there is no group `{group}`")).hint("give numbers, `UID:GID`"));
            }
        },
        None => known.as_ref().map_or(uid, |known| known.gid.as_raw()),
    };
    let name = known.and_then(|known| std::ffi::CString::new(known.name).ok());
    let groups = name.and_then(|name| nix::unistd::getgrouplist(&name, Gid::from_raw(gid)).ok());
    let mut groups: Vec<u32> = groups.map_or_else(|| vec![gid], |groups| groups.into_iter().map(Gid::as_raw).collect());
    groups.sort_unstable();
    Ok(Credentials { uid, gid, groups })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Run;

    #[test]
    fn the_trace_of_another_run_is_told_from_ones_own() {
        let header = |program: &'static [u8]| Header::new("a", JailPath::literal(program));
        let own = header(b"/bin/a");
        let of =
            |headers: &[Header]| Trace { runs: headers.iter().cloned().map(Run::new).collect(), ..Trace::default() };
        let is_refused = |headers: &[Header]| refuse_other(&of(headers), &own, Path::new("a.trace")).is_err();
        assert!(!is_refused(std::slice::from_ref(&own)));
        assert!(!is_refused(&[Header { groups: vec![7], ..own.clone() }]));
        assert!(is_refused(&[header(b"/bin/b")]));
        assert!(is_refused(&[Header { command: vec!["a".to_owned(), "b".to_owned()], ..own.clone() }]));
        assert!(is_refused(&[own.clone(), header(b"/bin/b")]) && is_refused(&[]));
    }
}
