//! `minjail init`: the draft of a profile, from one run, from an image, or from a Dockerfile.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use minjail_tracer::{Event, Touch};
use nix::unistd::{Uid, User};

use super::answer;
use super::exit::Exit;
use super::failure::Failure;
use super::outputs::check_file;
use super::reading::Reading;
use super::rehearse::PATH;
use super::status::effective_ids;
use super::stoppable::{Held, stoppable};
use super::text::read_text;
use super::trace::{Running, Workload};
use crate::files::is_secret_variable;
use crate::image::oci::RunConfig;
use crate::image::{Image, Input};
use crate::init::{self, Draft};
use crate::path::escape;
use crate::profile;
use crate::publish::{Scratch, Stage};
use crate::trace::Trace;

/// Draft a profile: from one run of a program, from an image, or from a Dockerfile
///
/// A program is run once, under the tracer, with no input and with the environment that the profile will name; a server
/// until Ctrl-C. What it listened to, where it made files and how it ended is in the profile, and what only a person can
/// know stands there as a comment.
#[derive(Debug, clap::Args)]
#[command(mut_args(of_image))]
pub(super) struct Arguments {
    /// Where the profile goes, `-` for standard output [default: <program>.yaml in the working directory]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Take from this image how it is run; nothing is run
    #[arg(long, value_name = "IMAGE", conflicts_with_all = ["dockerfile", "command", "user", "workdir", "env", "grace"])]
    image: Option<OsString>,

    #[command(flatten)]
    reading: Reading,

    /// Take from this Dockerfile how its image is run; nothing is built
    #[arg(long, value_name = "FILE", conflicts_with_all = ["command", "user", "workdir", "env", "grace"])]
    dockerfile: Option<PathBuf>,

    /// The stage of the Dockerfile, by name or number [default: the last]
    #[arg(long, value_name = "STAGE", requires = "dockerfile")]
    target: Option<String>,

    /// What an `ARG` of the Dockerfile is; may be given several times
    #[arg(long, value_name = "NAME=VALUE", requires = "dockerfile", value_parser = pair)]
    build_arg: Vec<(String, String)>,

    #[command(flatten)]
    running: Running,

    /// The program and its arguments
    #[arg(last = true, required_unless_present_any = ["image", "dockerfile"], value_name = "CMD")]
    command: Vec<OsString>,
}

/// Those of [`Reading`] count only where an image is read.
fn of_image(argument: clap::Arg) -> clap::Arg {
    match argument.get_id().as_str() {
        "platform" | "max_size" | "max_entries" => argument.conflicts_with_all(["command", "dockerfile"]),
        _ => argument,
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or_else(|| "it has no `=`".to_owned())?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    if let Some(file) = arguments.output.as_deref() {
        check_place(file)?;
    }
    if let Some(image) = &arguments.image {
        let input = Input::parse(image)?;
        if let Some(directory) = input.rootfs() {
            let text = format!("`{}` is a directory, and does not say how it is run", directory.display());
            return Err(Failure::usage(text).hint("name an image, or draft from a run: `minjail init -- CMD`"));
        }
        let opened = Image::open(&input, &arguments.reading.get(true)?)?;
        let config = opened.config.and_then(|config| config.config).unwrap_or_default();
        let origin = format!("`minjail init --image {}`", escape(image.as_encoded_bytes()));
        return write(&from_config(&config, &origin)?, arguments);
    }
    if let Some(file) = &arguments.dockerfile {
        return write(&from_dockerfile(file, arguments)?, arguments);
    }
    let workload = Workload::new(&arguments.running, &arguments.command)?;
    if arguments.output.is_none() {
        check_place(&default_file(&workload.name()))?;
    }
    // The program's own words must not get into a profile that goes to standard output.
    let standard_output = std::io::stdout().as_fd().try_clone_to_owned().map_err(Failure::new)?;
    let draft = from_run(workload, arguments)?;
    nix::unistd::dup2_stdout(standard_output).map_err(Failure::new)?;
    write(&draft, arguments)
}

fn from_config(config: &RunConfig, origin: &str) -> Result<Draft, Failure> {
    let draft = init::told(config, origin);
    let mut draft = draft.map_err(|error| {
        Failure::usage(format!("no profile can be made of {origin}: {error}"))
            .hint("draft one from a run: `minjail init -- CMD`")
    })?;
    if draft.env.get("PATH").is_some_and(|path| path == PATH) {
        draft.env.remove("PATH");
    }
    // A profile is kept with the sources, and shown to others.
    let env = std::mem::take(&mut draft.env);
    let (secret, env): (BTreeMap<_, _>, _) = env.into_iter().partition(|(name, value)| is_secret_variable(name, value));
    draft.env = env;
    draft.notes.extend(secret.keys().map(|name| {
        format!(
            "The variable `{}` looks like a secret, and its value is not here. If a workload needs it, name it under `env`, with \
             a value that is good for no more than trying out; images do not get it.",
            escape(name.as_bytes())
        )
    }));
    Ok(draft)
}

fn from_dockerfile(file: &Path, arguments: &Arguments) -> Result<Draft, Failure> {
    let text = read_text(file)
        .map_err(|error| Failure::new(error).hint("name a Dockerfile that you may read with `--dockerfile`"))?;
    let given: BTreeMap<String, String> = arguments.build_arg.iter().cloned().collect();
    let stage = init::read_dockerfile(&text, arguments.target.as_deref(), &given).map_err(|error| {
        let text = format!("`{}` cannot be read as a Dockerfile: {error}", file.display());
        Failure::usage(text).hint("correct it there, or draft from the built image: `minjail init --image`")
    })?;
    let mut draft = from_config(&stage.config, &format!("`minjail init --dockerfile {}`", file.display()))?;
    draft.notes.extend(stage.notes);
    if let Some(base) = stage.base {
        draft.notes.push(format!(
            "What the base image `{base}` says of itself (an entrypoint, variables, a user) is not in the Dockerfile, and \
             not here: `minjail init --image` reads it from a built image."
        ));
    }
    Ok(draft)
}

/// Runs the program as a build will run it, and drafts from what it did.
fn from_run(mut workload: Workload, arguments: &Arguments) -> Result<Draft, Failure> {
    // As a workload without `PATH` of its own finds its programs.
    let path = workload.header.env.entry("PATH".to_owned()).or_insert_with(|| PATH.to_owned()).clone();
    let environment = workload.header.env.iter().map(|(name, value)| format!("{name}={value}").into());
    workload.command.environment = environment.collect();
    let nothing = fs_err::File::open("/dev/null").map_err(Failure::new)?;
    nix::unistd::dup2_stdin(nothing.file()).map_err(Failure::new)?;
    if arguments.output.as_deref() == Some(Path::new("-")) {
        nix::unistd::dup2_stdout(std::io::stderr()).map_err(Failure::new)?;
    }
    let options = arguments.running.options();
    let start = Instant::now();
    let mut busy = Duration::ZERO;
    let mut users = Users::default();
    let recorded = workload.record(&options, |event| {
        if matches!(event, Event::Touch(_) | Event::Exec { .. } | Event::Listen { .. }) {
            busy = start.elapsed();
        }
        users.take(event);
    })?;
    let seconds = start.elapsed().as_secs();
    let _held = Held::start()?;
    let scratch = Scratch::new(&std::env::temp_dir(), ".minjail-init-")?;
    let target = scratch.path().join("run.trace");
    recorded.write(&target)?;
    let trace = Trace::read(std::slice::from_ref(&target))?;
    let stopped_by = Some(options.told_to_end.load(Ordering::SeqCst)).filter(|signal| *signal != 0);
    let run = init::Run {
        trace: &trace.runs[0],
        stopped_by,
        busy_seconds: busy.as_secs(),
        seconds,
        is_root: Uid::effective().is_root(),
    };
    let words: Vec<String> = arguments.command.iter().map(|argument| shell_word(argument)).collect();
    let mut draft = init::seen(&run, &format!("`minjail init -- {}`", words.join(" "))).map_err(|error| {
        Failure::new(error).hint("see that the program works by itself; a server is to be ended by Ctrl-C")
    })?;
    if path == PATH {
        draft.env.remove("PATH");
    }
    draft.user.clone_from(&arguments.running.user);
    draft.other_users = users.besides(workload.header.uid);
    Ok(draft)
}

/// Who the processes ran as.
#[derive(Default)]
struct Users {
    looks: usize,
    running: BTreeSet<i32>,
    uids: BTreeSet<u32>,
}

impl Users {
    /// Looks at whom every process is now, for a while: a server's workers take their user near their start, and may do nothing
    /// afterwards that makes an event.
    fn take(&mut self, event: &Event<'_>) {
        const MOST_LOOKS: usize = 5000;
        match event {
            Event::Touch(Touch { process, .. }) | Event::Exec { process, .. } | Event::Listen { process, .. } => {
                self.running.insert(*process);
            }
            Event::Fork { child, .. } => {
                self.running.insert(*child);
            }
            Event::Exit { process } => {
                self.running.remove(process);
            }
            Event::Moved { .. } | Event::Account { .. } | Event::Gap { .. } => {}
        }
        if self.looks < MOST_LOOKS {
            self.looks += self.running.len();
            self.uids.extend(self.running.iter().filter_map(|process| effective_ids(*process)).map(|[user, _]| user));
        }
    }

    /// Their names, but for that of `own`.
    fn besides(&self, own: u32) -> BTreeSet<String> {
        let name = |uid: &u32| {
            let known = User::from_uid(Uid::from_raw(*uid)).ok().flatten();
            known.map_or_else(|| uid.to_string(), |user| user.name)
        };
        self.uids.iter().filter(|uid| **uid != own).map(name).collect()
    }
}

/// As it is typed in a shell.
fn shell_word(argument: &OsStr) -> String {
    let text = escape(argument.as_encoded_bytes()).replace('\n', " ");
    let is_plain = |character: char| character.is_alphanumeric() || "/._-+=:,@%".contains(character);
    if !text.is_empty() && text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

fn default_file(program: &str) -> PathBuf {
    PathBuf::from(format!("{program}.yaml"))
}

/// Sees before anything runs whether the profile can be written.
fn check_place(file: &Path) -> Result<(), Failure> {
    if file == Path::new("-") {
        Ok(())
    } else {
        check_file(file, false, "name another file with `-o`, or remove this one")
    }
}

/// Writes the profile, if it is one.
fn write(draft: &Draft, arguments: &Arguments) -> Result<Exit, Failure> {
    let program = Path::new(&draft.run[0]).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let file = arguments.output.clone().unwrap_or_else(|| default_file(&program));
    let to_standard_output = file == Path::new("-");
    let name = if to_standard_output { default_file(&program) } else { file.clone() };
    let text = draft.text(&name.display().to_string());
    profile::load(&name.display().to_string(), &|name, _| Ok((name.to_owned(), text.clone())))?;
    if to_standard_output {
        answer(&text)?;
        return Ok(Exit::Success);
    }
    stoppable(|told| {
        let written = Stage::whole(&file, false, |writer| writer.write_all(text.as_bytes()))?;
        told.look();
        Ok(written.publish()?)
    })?;
    let (file, builder) = (file.display(), draft.builder());
    say!("minjail: wrote {file}: complete it, then `{builder} {file} -o oci:DIR`");
    Ok(Exit::Success)
}
