//! The flags that choose what an image gets where a trace leaves a choice.

use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::failure::Failure;
use crate::files::{Accounts, Listing, Pattern, Policy, Rule, Rules, StatOnly, Switch, is_secret_variable};
use crate::path::JailPath;
use crate::profile::{Files, UnknownWord};

/// What of the files a user may choose.
#[derive(Debug, clap::Args)]
pub(super) struct Choices {
    /// What becomes of files that were only looked at: packed with their content, with zeros, or not at all [default:
    /// full]
    #[arg(long, value_name = "HOW", requires = "outputs",
        value_parser = PossibleValuesParser::new(StatOnly::WORDS).try_map(|word| word.parse::<StatOnly>()))]
    stat_only: Option<StatOnly>,

    /// What becomes of a listed directory: its names, every file in it, or only what was opened [default: names]
    #[arg(long, value_name = "HOW", requires = "outputs",
        value_parser = PossibleValuesParser::new(Listing::WORDS).try_map(|word| word.parse::<Listing>()))]
    listing: Option<Listing>,

    /// Which accounts of the host the image knows: the system's and those used, only those used, or all [default:
    /// system]
    #[arg(long, value_name = "WHICH", requires = "outputs",
        value_parser = PossibleValuesParser::new(Accounts::WORDS).try_map(|word| word.parse::<Accounts>()))]
    accounts: Option<Accounts>,

    /// Pack this too, with what it needs: a path with all below it, a glob, or `deb:PACKAGE`
    #[arg(long, value_name = "WHAT", requires = "outputs", value_parser = Pattern::parse)]
    include: Vec<Pattern>,

    /// Do not pack this, whatever the program did with it; spelled as for `--include`
    #[arg(long, value_name = "WHAT", requires = "outputs", value_parser = Pattern::parse)]
    exclude: Vec<Pattern>,

    /// Switch a rule that adds what no run touched; `minjail rules` lists them; may be given several times
    #[arg(long = "rule", value_name = "NAME=on|off", requires = "outputs", value_parser = switched)]
    rules: Vec<(Rule, Switch)>,

    /// Pack this although it looks like a secret: a path, or `env:NAME` for a variable
    #[arg(long, value_name = "PATH", requires = "outputs")]
    allow_secret: Vec<String>,
}

/// `NAME=on` or `NAME=off`.
fn switched(text: &str) -> Result<(Rule, Switch), String> {
    let (name, switch) = text.split_once('=').ok_or("give `NAME=on` or `NAME=off`")?;
    let rule = name.parse().map_err(|error: UnknownWord| error.to_string())?;
    Ok((rule, switch.parse().map_err(|error: UnknownWord| error.to_string())?))
}

/// [`Choices`] that were checked.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    pub(super) policy: Policy,
    allowed_variables: Vec<String>,
}

impl Choices {
    /// True if one of these flags was given.
    pub(super) fn are_given(&self) -> bool {
        let Self { stat_only, listing, accounts, include, exclude, rules, allow_secret } = self;
        let are_words = stat_only.is_some() || listing.is_some() || accounts.is_some();
        are_words || !(include.is_empty() && exclude.is_empty() && rules.is_empty() && allow_secret.is_empty())
    }

    /// True if a rule is switched.
    pub(super) fn switch_rules(&self) -> bool {
        !self.rules.is_empty()
    }

    /// The flags, on top of what a profile says.
    pub(super) fn check(&self, profile: &Files) -> Result<Chosen, Failure> {
        let patterns = |texts: &[String], flags: &[Pattern]| -> Result<Vec<Pattern>, Failure> {
            let said = texts.iter().map(|text| Pattern::parse(text));
            let all = said.chain(flags.iter().cloned().map(Ok)).collect::<Result<_, _>>();
            all.map_err(|error| Failure::new(error).hint("correct the profile's `files`"))
        };
        let mut policy = Policy {
            stat_only: self.stat_only.or(profile.stat_only).unwrap_or_default(),
            listing: self.listing.or(profile.listing).unwrap_or_default(),
            accounts: self.accounts.or(profile.accounts).unwrap_or_default(),
            rules: self.rules.iter().copied().collect::<Rules>().on(profile.rules.clone()),
            include: patterns(&profile.include, &self.include)?,
            exclude: patterns(&profile.exclude, &self.exclude)?,
            ..Policy::default()
        };
        let mut allowed_variables = Vec::new();
        for allowed in profile.allow_secrets.iter().chain(&self.allow_secret) {
            if let Some(name) = allowed.strip_prefix("env:") {
                allowed_variables.push(name.to_owned());
                continue;
            }
            let path = JailPath::parse(allowed.as_bytes()).map_err(|error| {
                Failure::new(error).hint("a secret is allowed by an absolute path, or by `env:NAME` for a variable")
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
