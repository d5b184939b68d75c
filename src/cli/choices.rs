//! The flags that choose what an image gets where a trace leaves a choice.

use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::failure::Failure;
use crate::files::{Accounts, Listing, Pattern, Policy, StatOnly, is_secret_variable};
use crate::path::JailPath;

/// What of the files a user may choose.
#[derive(Debug, clap::Args)]
pub(super) struct Choices {
    /// What becomes of files that were only looked at: packed with their content, with zeros, or not at all
    #[arg(long, value_name = "HOW", default_value = "full",
        value_parser = PossibleValuesParser::new(StatOnly::WORDS).try_map(|word| word.parse::<StatOnly>()))]
    stat_only: StatOnly,

    /// What becomes of a listed directory: its names, every file in it, or only what was opened
    #[arg(long, value_name = "HOW", default_value = "names",
        value_parser = PossibleValuesParser::new(Listing::WORDS).try_map(|word| word.parse::<Listing>()))]
    listing: Listing,

    /// Which accounts of the host the image knows: the system's and those used, only those used, or all
    #[arg(long, value_name = "WHICH", default_value = "system",
        value_parser = PossibleValuesParser::new(Accounts::WORDS).try_map(|word| word.parse::<Accounts>()))]
    accounts: Accounts,

    /// Pack this too, with what it needs: a path with all below it, a glob, or `deb:PACKAGE`
    #[arg(long, value_name = "WHAT", value_parser = Pattern::parse)]
    include: Vec<Pattern>,

    /// Do not pack this, whatever the program did with it; spelled as for `--include`
    #[arg(long, value_name = "WHAT", value_parser = Pattern::parse)]
    exclude: Vec<Pattern>,

    /// Pack this although it looks like a secret: a path, or `env:NAME` for a variable
    #[arg(long, value_name = "PATH")]
    allow_secret: Vec<String>,
}

/// [`Choices`] that were checked.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    pub(super) policy: Policy,
    allowed_variables: Vec<String>,
}

impl Choices {
    pub(super) fn check(&self) -> Result<Chosen, Failure> {
        let mut policy = Policy {
            stat_only: self.stat_only,
            listing: self.listing,
            accounts: self.accounts,
            include: self.include.clone(),
            exclude: self.exclude.clone(),
            ..Policy::default()
        };
        let mut allowed_variables = Vec::new();
        for allowed in &self.allow_secret {
            if let Some(name) = allowed.strip_prefix("env:") {
                allowed_variables.push(name.to_owned());
                continue;
            }
            let path = JailPath::parse(allowed.as_bytes()).map_err(|error| {
                Failure::new(error).hint("`--allow-secret` wants an absolute path, or `env:NAME` for a variable")
            })?;
            policy.allowed_secrets.insert(path);
        }
        Ok(Chosen { policy, allowed_variables })
    }
}

impl Chosen {
    /// True if the image may not have this variable.
    pub(super) fn withholds(&self, name: &str, value: &str) -> bool {
        is_secret_variable(name, value) && !self.allowed_variables.iter().any(|allowed| allowed == name)
    }
}
