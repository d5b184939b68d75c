//! `minjail profile`: the profiles that come with minjail, and what a profile may say.

use std::path::{Path, PathBuf};

use super::answer;
use super::exit::Exit;
use super::failure::Failure;
use super::text::read_text;
use crate::profile::{self, Profile, SHIPPED, shipped};

/// The profiles that come with minjail, and what a profile may say
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    question: Question,
}

#[derive(Debug, clap::Subcommand)]
enum Question {
    /// List the profiles that come with minjail
    List,
    /// Print one of them
    Show {
        /// Its name
        name: String,
    },
    /// Print the JSON Schema of profiles, for editors
    Schema,
    /// Print the reference page of profiles
    Reference,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    match &arguments.question {
        Question::List => {
            for profile in SHIPPED {
                let description = load(profile.name)?.description.unwrap_or_default();
                answer(&format!("{:16} {description}\n", profile.name))?;
            }
        }
        Question::Show { name } => match shipped(name) {
            Some(profile) => answer(profile.text)?,
            None => {
                return Err(Failure::usage(format!("no profile `{name}` comes with minjail"))
                    .hint("`minjail profile list` prints their names"));
            }
        },
        Question::Schema => answer(&format!("{:#}\n", profile::schema()))?,
        Question::Reference => answer(&profile::page())?,
    }
    Ok(Exit::Success)
}

/// Loads a profile: the name of a shipped one, or a path.
pub(super) fn load(name: &str) -> Result<Profile, Failure> {
    Ok(profile::load(name, &read)?)
}

/// A path has a slash or ends in `.yaml` or `.yml`; anything else is the name of a shipped profile, or a file that is there.
fn read(name: &str, from: Option<&str>) -> Result<(String, String), std::io::Error> {
    let beside = from.and_then(|from| Path::new(from).parent()).unwrap_or(Path::new(""));
    let path: PathBuf = beside.join(name);
    match shipped(name) {
        Some(profile) if !path.is_file() => Ok((name.to_owned(), profile.text.to_owned())),
        _ => Ok((path.display().to_string(), read_text(&path)?)),
    }
}
