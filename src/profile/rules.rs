//! The rules by which an image gets what no run touched: their names, and which of them are on.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::files::UnknownWord;

/// What a rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Without it the traced run itself may fail in the jail. On, unless it is switched off.
    Need,
    /// Another run of the same program is likely to want it. Off, unless it is switched on.
    Trait,
}

macro_rules! rules {
    ($($word:literal => $variant:ident, $purpose:ident, $says:literal;)+) => {
        /// A rule, in the order of its name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Rule {
            $(#[doc = $says] #[serde(rename = $word)] $variant,)+
        }

        impl Rule {
            /// All of them, by name.
            pub const ALL: [Self; [$($word),+].len()] = [$(Self::$variant),+];
            /// Their names.
            pub const WORDS: [&str; [$($word),+].len()] = [$($word),+];

            /// As users, reasons and locks call it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            pub fn purpose(self) -> Purpose {
                match self { $(Self::$variant => Purpose::$purpose,)+ }
            }

            /// What it adds, and for what: a sentence.
            pub fn says(self) -> &'static str {
                match self { $(Self::$variant => $says,)+ }
            }
        }

        impl FromStr for Rule {
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

rules! {
    "ca-all" => CaAll, Trait,
        "Of `/etc/ssl/certs` everything, with what its links lead to: another certificate may be asked for by its hash.";
    "gconv-all" => GconvAll, Trait,
        "Of a directory of glibc's character sets all, with their libraries: another run may convert from another one.";
    "hwcaps-baseline" => HwcapsBaseline, Need,
        "For a library of `glibc-hwcaps` the one beside it that runs on every processor.";
    "image-user" => ImageUser, Need,
        "`/etc/passwd` and `/etc/group` for an image whose user is not two numbers: engines look there for his number, his \
         group and the groups that he is a member of.";
    "mount-point" => MountPoint, Need,
        "`/dev`, `/proc` and `/sys` as empty directories, where the runtime mounts what the kernel makes up.";
    "nss-services" => NssServices, Trait,
        "The modules of the services that `/etc/nsswitch.conf` names: what one service does not know, the next is asked.";
    "python-modules" => PythonModules, Trait,
        "Of the standard library of a Python that ran everything: another run may import other modules.";
    "python-source" => PythonSource, Need,
        "Where files that were only looked at are left out: the source of a compiled Python file that was read, and `os.py`, \
         by which Python knows its library.";
    "terminfo-all" => TerminfoAll, Trait,
        "The descriptions of all terminals, where one was looked for.";
    "thread-unwinder" => ThreadUnwinder, Need,
        "`libgcc_s.so.1` for what can end a thread by `pthread_exit` or `pthread_cancel`: glibc opens it only then.";
    "tz-all" => TzAll, Trait,
        "All time zones, where one was used.";
    "volume" => Volume, Need,
        "The directories of the image's volumes: a new volume gets its owner and its mode from there.";
    "working-directory" => WorkingDirectory, Need,
        "The directory in which the program was started.";
}

/// On or off. YAML's `on` and `off` are words or truth values, as the writer's version has it: both are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Switch {
    On,
    Off,
}

impl Switch {
    pub const WORDS: [&str; 2] = ["on", "off"];
}

impl FromStr for Switch {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        match word {
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            _ => Err(UnknownWord { word: word.to_owned(), known: &Self::WORDS }),
        }
    }
}

impl<'de> Deserialize<'de> for Switch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OnOrOff;
        impl Visitor<'_> for OnOrOff {
            type Value = Switch;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("`on` or `off`")
            }

            fn visit_bool<E: de::Error>(self, on: bool) -> Result<Switch, E> {
                Ok(if on { Switch::On } else { Switch::Off })
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Switch, E> {
                word.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(OnOrOff)
    }
}

/// The rules that were switched, whichever way; every other one is as its purpose has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rules(BTreeMap<Rule, Switch>);

impl Rules {
    pub fn is_on(&self, rule: Rule) -> bool {
        match self.0.get(&rule) {
            Some(switch) => *switch == Switch::On,
            None => rule.purpose() == Purpose::Need,
        }
    }

    /// True if none was switched.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// These, on top of `below`.
    #[must_use]
    pub fn on(self, mut below: Self) -> Self {
        below.0.extend(self.0);
        below
    }
}

impl FromIterator<(Rule, Switch)> for Rules {
    fn from_iter<I: IntoIterator<Item = (Rule, Switch)>>(switched: I) -> Self {
        Self(switched.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_named_once_and_in_order() {
        assert!(Rule::WORDS.is_sorted_by(|one, other| one < other));
        for (rule, word) in Rule::ALL.into_iter().zip(Rule::WORDS) {
            assert_eq!((rule.name(), word.parse()), (word, Ok(rule)));
        }
        assert!("tz".parse::<Rule>().unwrap_err().to_string().contains("`tz-all`"));
    }

    #[test]
    fn needs_are_on_and_traits_are_off_unless_they_are_switched() {
        let rules = Rules::default();
        assert!(rules.is_on(Rule::ThreadUnwinder) && !rules.is_on(Rule::TzAll));
        let below = Rules::from_iter([(Rule::TzAll, Switch::On), (Rule::ThreadUnwinder, Switch::On)]);
        let rules = Rules::from_iter([(Rule::ThreadUnwinder, Switch::Off)]).on(below);
        assert!(!rules.is_on(Rule::ThreadUnwinder) && rules.is_on(Rule::TzAll));
    }

    #[test]
    fn words_and_truth_values() {
        for text in ["{tz-all: on}", "{tz-all: true}", "{tz-all: 'on'}"] {
            assert!(serde_yaml::from_str::<Rules>(text).unwrap().is_on(Rule::TzAll), "{text}");
        }
        assert_eq!(
            serde_json::to_string(&Rules::from_iter([(Rule::TzAll, Switch::Off)])).unwrap(),
            r#"{"tz-all":"off"}"#
        );
        let error = serde_yaml::from_str::<Rules>("{tz-al: on}").unwrap_err().to_string();
        assert!(error.contains("tz-all") && error.contains("thread-unwinder"), "{error}");
        assert!(serde_yaml::from_str::<Rules>("{tz-all: maybe}").is_err());
    }
}
