//! `minjail run`: a program in a jail made of an image.

use std::ffi::OsString;

use super::base::Ready;
use super::exit::Exit;
use super::failure::Failure;
use super::inside::account_in;
use super::reading::Reading;
use super::unpacked::Unpacked;
use crate::image::Input;
use crate::jail::{self, Jail, Network, Program, User};
use crate::manifest::Config;
use crate::path::{JailPath, escape};
use crate::root::Root;
use crate::slim::Account;

/// Run an image's command, or another one, in a jail: no root, no daemon
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The image, or a rootfs
    #[arg(value_name = "IMAGE")]
    image: OsString,

    #[command(flatten)]
    reading: Reading,

    /// The network that the program sees: its own loopback, or the host's
    #[arg(long, value_name = "NET", default_value = "private")]
    net: Net,

    /// Unpack the image for this one time: see `minjail cache`
    #[arg(long)]
    no_cache: bool,

    /// Say nothing but errors
    #[arg(long, short)]
    quiet: bool,

    /// The command to run in place of the image's
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Net {
    Private,
    Host,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let input = Input::parse(&arguments.image)?;
    let name = escape(arguments.image.as_encoded_bytes());
    // The image itself is let go: one from standard input is a file that takes room.
    let reading = arguments.reading.get(input.rootfs().is_none())?;
    let Ready { base, config, unpacked, .. } = Ready::of(&input, &reading, &name, arguments.no_cache, arguments.quiet)?;
    let config = config.unwrap_or_else(|| Config { working_dir: "/".to_owned(), ..Config::default() });
    let argv = command(arguments, &config)?;
    let Account { uid, gid, groups, home } = account_in(&Root::open(&base.tree)?, &config.user)?;
    let jail = Jail {
        base,
        cwd: JailPath::clean(config.working_dir.as_bytes()).map_err(|error| {
            Failure::new(error).hint("it is the image's `WorkingDir`: make the image anew with one from the root on")
        })?,
        user: User { uid, gid, groups },
        network: match arguments.net {
            Net::Private => Network::Private,
            Net::Host => Network::Host,
        },
        hostname: "minjail".to_owned(),
    };
    let mut env = config.env;
    // As engines do.
    env.entry("HOME".to_owned()).or_insert_with(|| home.unwrap_or_else(|| "/".to_owned()));
    let env = env.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
    if !arguments.quiet {
        for note in jail::notes(&jail)? {
            say!("note: {note}");
        }
    }
    let program = Program { argv, env };
    let mask = unpacked.as_ref().map(Unpacked::mask).transpose()?.flatten();
    Ok(jail::run(&jail, &program, mask)?.into())
}

/// The command from the command line, else the image's.
fn command(arguments: &Arguments, config: &Config) -> Result<Vec<OsString>, Failure> {
    if !arguments.command.is_empty() {
        return Ok(arguments.command.clone());
    }
    let command: Vec<OsString> = config.entrypoint.iter().chain(&config.cmd).map(OsString::from).collect();
    if command.is_empty() {
        return Err(Failure::usage("the image does not say what to run").hint("name a command after `--`"));
    }
    Ok(command)
}
