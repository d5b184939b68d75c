//! What a profile, or a flag, says of the files of an image: the words by which each choice is named.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::rules::Rules;

/// The choices; what is left out has its default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Files {
    #[serde(default)]
    pub stat_only: Option<StatOnly>,
    #[serde(default)]
    pub listing: Option<Listing>,
    #[serde(default)]
    pub accounts: Option<Accounts>,
    #[serde(default)]
    pub include: Vec<String>,
    #[serde(default)]
    pub exclude: Vec<String>,
    #[serde(default)]
    pub allow_secrets: Vec<String>,
    #[serde(default)]
    pub rules: Rules,
    #[serde(default)]
    pub mtime: Option<Mtime>,
    #[serde(default)]
    pub layers: Option<Division>,
}

impl Files {
    /// These choices on top of `below`.
    pub(super) fn on(self, below: Self) -> Self {
        let join = |mut lower: Vec<String>, upper: Vec<String>| {
            lower.extend(upper);
            lower
        };
        Self {
            stat_only: self.stat_only.or(below.stat_only),
            listing: self.listing.or(below.listing),
            accounts: self.accounts.or(below.accounts),
            include: join(below.include, self.include),
            exclude: join(below.exclude, self.exclude),
            allow_secrets: join(below.allow_secrets, self.allow_secrets),
            rules: self.rules.on(below.rules),
            mtime: self.mtime.or(below.mtime),
            layers: self.layers.or(below.layers),
        }
    }
}

/// Which times files get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mtime {
    Fixed,
    Clamp,
    Packaged,
    Files,
    Keep,
}

/// Into which layers files go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Division {
    One,
    Packages,
}

/// What becomes of a file that the runs looked at and never opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StatOnly {
    /// The file with its content.
    #[default]
    Full,
    /// Size, mode and owner; zeros for content.
    Hollow,
    /// Nothing.
    Omit,
}

/// What becomes of the names in a directory that the runs listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Listing {
    /// The names; of files that nobody touched, dangling links.
    #[default]
    Names,
    /// Every file with its content; directories stay empty.
    Full,
    /// Only what was touched.
    Opened,
}

/// Which accounts of the host the image knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accounts {
    /// Those of the system, and those that own a file or that the runs took.
    #[default]
    System,
    /// Those that own a file or that the runs took.
    Used,
    /// All.
    Full,
}

/// A word is none of those that are known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is none of `{}`", known.join("`, `"))]
pub struct UnknownWord {
    pub(super) word: String,
    pub(super) known: &'static [&'static str],
}

macro_rules! words {
    ($type:ident, $($word:literal => $variant:ident),+) => {
        impl $type {
            /// The words by which a user names the choices.
            pub const WORDS: [&str; [$($word),+].len()] = [$($word),+];
        }

        impl FromStr for $type {
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(UnknownWord { word: word.to_owned(), known: &Self::WORDS }),
                }
            }
        }
    };
}

words!(StatOnly, "full" => Full, "hollow" => Hollow, "omit" => Omit);
words!(Listing, "names" => Names, "full" => Full, "opened" => Opened);
words!(Accounts, "system" => System, "used" => Used, "full" => Full);
