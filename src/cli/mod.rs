//! The command line: arguments in, exit status out.
//!
//! This is where the clock, the environment, the user, the terminal and the standard streams enter; every other room
//! is handed values. One file a subcommand: its arguments, and `run`. All of minjail's words go to standard error.

/// Says a line on standard error. Where nobody can hear it, a full disk or a closed pipe, that is no failure, and no
/// panic as with `eprintln!`.
macro_rules! say {
    ($($argument:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(anstream::stderr(), $($argument)*);
    }};
}

mod apart;
mod base;
mod build;
mod cache;
mod check;
mod choices;
mod configure;
mod diagnose;
mod diff;
mod doctor;
mod duration;
mod engine;
mod exit;
mod failure;
mod gather;
mod groups;
mod init;
mod inside;
mod locate;
mod lock;
mod locked;
mod lost_rights;
mod mend;
mod merge;
mod original;
mod outliving;
mod outputs;
mod pack;
mod packing;
mod platform;
mod profile;
mod progress;
mod prove;
mod proven;
mod reading;
mod rehearse;
mod rooted;
mod rules;
mod run;
mod side;
mod slim;
mod status;
mod stoppable;
mod text;
mod trace;
mod unpack;
mod unpacked;
mod variables;
mod verify;
mod why;
mod why_not;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use clap::builder::styling::{AnsiColor, Styles};
use failure::Failure;

pub use exit::Exit;

/// Runs a program under a tracer and packs exactly the files it touches into a small, deterministic container image.
#[derive(Debug, Parser)]
#[command(
    name = "minjail",
    version,
    max_term_width = 100,
    styles = STYLES,
    arg_required_else_help = true,
    after_help = "Images are spelled rootfs:DIR, layer:FILE, oci:DIR[:TAG], oci-archive:FILE[:TAG] or \
                  docker-archive:FILE[:REF]; FILE may be `-`, standard output.\n\
                  Exit status: the program's own for trace and run; 1 where the answer of why, why-not, diff, check or \
                  doctor is no; 3 if an image does not do what its profile says; 125 for minjail's failures, 126 if a \
                  program cannot be executed, 127 if it was not found; 128 + n if signal n ended it, or minjail's work."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

#[derive(Debug, clap::Subcommand)]
enum Command {
    Trace(trace::Arguments),
    Build(build::Arguments),
    Init(init::Arguments),
    Slim(slim::Arguments),
    Unpack(unpack::Arguments),
    Cache(cache::Arguments),
    Run(run::Arguments),
    Why(why::Arguments),
    WhyNot(why_not::Arguments),
    Merge(merge::Arguments),
    Verify(verify::Arguments),
    Profile(profile::Arguments),
    Rules(rules::Arguments),
    /// Run a workload for another minjail
    #[command(name = rehearse::RUNNER, hide = true)]
    Workload {
        order: std::path::PathBuf,
    },
    Doctor(doctor::Arguments),
    Diff(diff::Arguments),
    Check(check::Arguments),
}

/// Why nobody can hear an answer: standard output is closed. The standard library opens `/dev/null` in its place, and no write fails.
fn unheard() -> Option<std::io::Error> {
    (!minjail_tracer::has_standard_output()).then(|| std::io::Error::from_raw_os_error(libc::EBADF))
}

/// The answer is what was asked for, so it goes to standard output; a closed pipe is no failure.
fn answer(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    if let Some(error) = unheard().filter(|_| !text.is_empty()) {
        return Err(Failure::unanswered(error));
    }
    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::unanswered(error)),
        _ => Ok(()),
    }
}

/// Parses the arguments, does what they say, and tells what failed.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    minjail_tracer::fail_beyond_limits();
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers; everything else is a failure of minjail's, not of a program's.
            let status = if error.use_stderr() { Exit::Failure } else { Exit::Success };
            let unheard = (!error.use_stderr()).then(unheard).flatten();
            let unprinted = unheard.or_else(|| error.print().err());
            let unprinted = unprinted.filter(|error| error.kind() != std::io::ErrorKind::BrokenPipe);
            let status = unprinted.map_or(status, |error| {
                let failure = Failure::unanswered(error);
                failure.tell();
                failure.exit
            });
            return ExitCode::from(status.status());
        }
    };
    let result = match cli.command {
        Command::Trace(arguments) => trace::run(arguments),
        Command::Build(arguments) => build::run(&arguments),
        Command::Init(arguments) => init::run(&arguments),
        Command::Slim(arguments) => slim::run(&arguments),
        Command::Unpack(arguments) => unpack::run(&arguments),
        Command::Cache(arguments) => cache::run(&arguments),
        Command::Run(arguments) => run::run(&arguments),
        Command::Why(arguments) => why::run(&arguments),
        Command::WhyNot(arguments) => why_not::run(&arguments),
        Command::Merge(arguments) => merge::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Workload { order } => Ok(rehearse::runner(&order)),
        Command::Profile(arguments) => profile::run(&arguments),
        Command::Rules(arguments) => rules::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Diff(arguments) => diff::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
    };
    let exit = result.unwrap_or_else(|failure| {
        failure.tell();
        failure.exit
    });
    ExitCode::from(exit.status())
}
