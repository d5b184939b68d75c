//! `minjail rules`: the rules by which an image gets what no run touched.

use super::answer;
use super::exit::Exit;
use super::failure::Failure;
use crate::profile::{Purpose, Rule};

/// List the rules that `--rule` switches: by which an image gets what no run touched
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print the table of the page on rules
    #[arg(long, hide = true)]
    table: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    for rule in Rule::ALL {
        let (kind, state) = match rule.purpose() {
            Purpose::Need => ("need", "on"),
            Purpose::Trait => ("trait", "off"),
        };
        let (name, says) = (rule.name(), rule.says());
        if arguments.table {
            answer(&format!("| `{name}` | {kind} | {state} | {says} |\n"))?;
        } else {
            answer(&format!("{name:18} {kind:6} {state:4} {}\n", says.replace('`', "")))?;
        }
    }
    Ok(Exit::Success)
}
