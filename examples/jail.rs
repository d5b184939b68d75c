//! Runs a program in a tree: `jail [OPTION]... TREE COMMAND [ARG]...`.
//!
//! The program's environment is this one's. The exit status is the program's, or 128 and the signal that killed it;
//! 125 to 127 are the jail's own failures, as with `env(1)`.
#![expect(clippy::print_stderr, reason = "this is where a person reads them")]

use std::error::Error;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use clap::Parser;
use minjail::jail::{Base, Ended, Inside, Jail, JailError, Network, Program, User, enter, notes, run};
use minjail::path::JailPath;

#[derive(Parser)]
struct Arguments {
    /// UID:GID[,GROUP...] in the jail.
    #[arg(long, default_value = "0:0")]
    user: String,
    #[arg(long)]
    host_network: bool,
    /// Execute the command as PID 1 itself, as docker does, without an init above it.
    #[arg(long)]
    no_init: bool,
    #[arg(long, default_value = "/")]
    cwd: String,
    tree: std::path::PathBuf,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

fn main() -> ExitCode {
    let (code, error) = match confined(Arguments::parse()) {
        Ok(code) => return code,
        Err(error) => (error.downcast_ref().map_or(125, JailError::exit_code), error),
    };
    eprintln!("error: {error}");
    let mut cause = error.source();
    while let Some(because) = cause {
        eprintln!("  caused by: {because}");
        cause = because.source();
    }
    if let Some(hint) = error.downcast_ref().and_then(JailError::hint) {
        eprintln!("hint: {hint}");
    }
    ExitCode::from(code)
}

fn confined(arguments: Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let jail = Jail {
        user: user(&arguments.user)?,
        base: Base { tree: arguments.tree, ..Base::default() },
        cwd: JailPath::parse(arguments.cwd.as_bytes())?,
        network: if arguments.host_network { Network::Host } else { Network::Private },
        hostname: "jail".into(),
    };
    for note in notes(&jail)? {
        eprintln!("note: {note}");
    }
    let ended = if arguments.no_init {
        enter(&jail, |inside| execute(inside, &arguments.command))?
    } else {
        run(&jail, &Program { argv: arguments.command, env: std::env::vars_os().collect() }, None)?
    };
    match ended {
        Ended::Exited(code) => Ok(ExitCode::from(code)),
        Ended::Killed(signal) => Ok(ExitCode::from(u8::try_from(128 + signal)?)),
    }
}

/// The body of a PID 1 that becomes the command; returns only if it cannot.
fn execute(inside: &Inside<'_>, command: &[OsString]) -> i32 {
    let Some((program, arguments)) = command.split_first() else { return 125 };
    let error = inside.settle().err().unwrap_or_else(|| std::process::Command::new(program).args(arguments).exec());
    eprintln!("error: {error}");
    127
}

fn user(text: &str) -> Result<User, Box<dyn Error>> {
    let (uid, groups) = text.split_once(':').ok_or("a user is UID:GID[,GROUP...]")?;
    let mut groups = groups.split(',').map(str::parse);
    let gid = groups.next().ok_or("a user has a group")??;
    Ok(User { uid: uid.parse()?, gid, groups: groups.collect::<Result<_, _>>()? })
}
