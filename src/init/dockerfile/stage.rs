//! The stages of a Dockerfile, one instruction after the other.

use std::collections::BTreeMap;

use super::health;
use super::words::{Expanded, Value, expand, words};
use super::{DockerfileError, Stage};
use crate::image::oci::{Empty, RunConfig};

/// Instructions that say how the image is run.
pub(super) const KEYWORDS: [&str; 11] =
    ["HEALTHCHECK", "ENV", "LABEL", "WORKDIR", "USER", "EXPOSE", "VOLUME", "STOPSIGNAL", "SHELL", "ENTRYPOINT", "CMD"];

/// What a build sets by itself once an `ARG` names it, from the machine (Dockerfile reference, "Automatic platform ARGs").
const PLATFORM: [&str; 8] = [
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETARCH",
    "TARGETVARIANT",
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDARCH",
    "BUILDVARIANT",
];

/// What nearly every base image has, and what docker sets where one has none.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A Dockerfile that is read as far as some line.
pub(super) struct Reading<'a> {
    escape: char,
    /// What whoever builds gives.
    given: &'a BTreeMap<String, String>,
    /// The `ARG`s before the first stage.
    global: BTreeMap<String, Value>,
    stages: Vec<Open>,
}

/// A stage, its name, and what only its own instructions know.
#[derive(Debug, Clone, Default)]
struct Open {
    name: Option<String>,
    stage: Stage,
    arguments: BTreeMap<String, Value>,
    shell: Option<Vec<String>>,
    /// A `CMD` of its own came before.
    has_cmd: bool,
}

impl<'a> Reading<'a> {
    pub(super) fn new(escape: char, given: &'a BTreeMap<String, String>) -> Self {
        Self { escape, given, global: BTreeMap::new(), stages: Vec::new() }
    }

    pub(super) fn is_in_stage(&self) -> bool {
        !self.stages.is_empty()
    }

    /// The stage that is `wanted`, or the last.
    pub(super) fn end(mut self, wanted: Option<&str>) -> Result<Stage, DockerfileError> {
        let Some(last) = self.stages.len().checked_sub(1) else { return Err(DockerfileError::Empty) };
        let index = match wanted {
            None => last,
            Some(wanted) => {
                self.find(wanted).or_else(|| wanted.parse().ok().filter(|index| *index <= last)).ok_or_else(|| {
                    let name = |(index, open): (usize, &Open)| open.name.clone().unwrap_or_else(|| index.to_string());
                    let known: Vec<String> = self.stages.iter().enumerate().map(name).collect();
                    DockerfileError::NoStage { wanted: wanted.to_owned(), known: known.join(", ") }
                })?
            }
        };
        Ok(self.stages.swap_remove(index).stage)
    }

    /// The last stage of that name.
    fn find(&self, name: &str) -> Option<usize> {
        self.stages.iter().rposition(|open| open.name.as_deref().is_some_and(|known| known.eq_ignore_ascii_case(name)))
    }

    /// `FROM [--platform=P] IMAGE [AS NAME]`
    pub(super) fn from(&mut self, line: usize, rest: &str) -> Result<(), DockerfileError> {
        let mut plain = words(rest, self.escape).into_iter().filter(|word| !word.starts_with("--"));
        let image = plain.next().unwrap_or_default();
        let name = match (plain.next(), plain.next()) {
            (Some(word), Some(name)) if word.eq_ignore_ascii_case("as") => Some(name),
            (None, _) => None,
            _ => {
                let what = "a stage is spelled `FROM IMAGE` or `FROM IMAGE AS NAME`".to_owned();
                return Err(DockerfileError::Mistake { line, what });
            }
        };
        let global = |name: &str| self.global.get(name).cloned().unwrap_or(Value::Unset);
        let image = expand(&image, self.escape, &global).text;
        let below = self.find(&image).map(|index| &self.stages[index]);
        // An image says with which shell its commands are run, and so does a stage.
        let shell = below.and_then(|below| below.shell.clone());
        let stage = below.map(|below| below.stage.clone());
        let stage = stage.unwrap_or_else(|| Stage { base: (image != "scratch").then_some(image), ..Stage::default() });
        self.stages.push(Open { name, stage, shell, ..Open::default() });
        Ok(())
    }

    /// `ARG NAME[=VALUE]...`
    pub(super) fn argument(&mut self, rest: &str) {
        for word in words(rest, self.escape) {
            let (name, default) = word.split_once('=').map_or((word.as_str(), None), |(name, text)| (name, Some(text)));
            let default = default.map(|text| {
                let Expanded { text, unknown } = expand(text, self.escape, &|name| self.variable(name));
                if unknown.is_empty() { Value::Known(text) } else { Value::Unknown }
            });
            let inherited = || self.global.get(name).filter(|_| self.is_in_stage()).cloned();
            let given = self.given.get(name).map(|text| Value::Known(text.clone()));
            let automatic = PLATFORM.contains(&name).then_some(Value::Unknown);
            let value = given.or(default).or_else(inherited).or(automatic).unwrap_or(Value::Unset);
            let arguments = match self.stages.last_mut() {
                Some(open) => &mut open.arguments,
                None => &mut self.global,
            };
            arguments.insert(name.to_owned(), value);
        }
    }

    /// A variable, as an instruction sees it: an `ENV` hides an `ARG`.
    fn variable(&self, name: &str) -> Value {
        let Some(open) = self.stages.last() else { return self.global.get(name).cloned().unwrap_or(Value::Unset) };
        let is_it = |variable: &&String| variable.split_once('=').is_some_and(|(known, _)| known == name);
        let set = open.stage.config.env.iter().flatten().find(is_it).and_then(|variable| variable.split_once('='));
        match (set, open.arguments.get(name)) {
            (Some((_, value)), _) => Value::Known(value.to_owned()),
            (None, Some(value)) => value.clone(),
            (None, None) if name == "PATH" => Value::Known(PATH.to_owned()),
            (None, None) if open.stage.base.is_some() => Value::Unknown,
            (None, None) => Value::Unset,
        }
    }

    /// One of [`KEYWORDS`]; others say nothing here.
    pub(super) fn instruction(&mut self, line: usize, keyword: &str, rest: &str) -> Result<(), DockerfileError> {
        let mistake = |what: String| DockerfileError::Mistake { line, what };
        let list = serde_json::from_str::<Vec<String>>(rest).ok();
        match keyword {
            "ENV" | "LABEL" => self.pairs(line, keyword, rest),
            "SHELL" => {
                let list =
                    list.ok_or_else(|| mistake("`SHELL` wants a list, as [\"/bin/bash\", \"-c\"]".to_owned()))?;
                self.open().shell = Some(list);
            }
            "HEALTHCHECK" => self.config().healthcheck = Some(health::read(rest).map_err(mistake)?),
            "ENTRYPOINT" | "CMD" => self.command(keyword, rest, list),
            "VOLUME" => {
                for word in list.unwrap_or_else(|| words(rest, self.escape)) {
                    if let Some(volume) = self.word(line, keyword, &word) {
                        self.config().volumes.get_or_insert_default().insert(volume, Empty {});
                    }
                }
            }
            "EXPOSE" => {
                for word in words(rest, self.escape) {
                    let Some(text) = self.word(line, keyword, &word) else { continue };
                    for port in
                        ports(&text).ok_or_else(|| mistake(format!("`{text}` is no port, as `80` or `53/udp`")))?
                    {
                        self.config().exposed_ports.get_or_insert_default().insert(port, Empty {});
                    }
                }
            }
            "WORKDIR" => {
                if let Some(directory) = self.word(line, keyword, rest) {
                    let before = self.config().working_dir.take().unwrap_or_else(|| "/".to_owned());
                    let joined = std::path::Path::new(&before).join(directory);
                    self.config().working_dir = Some(joined.to_string_lossy().into_owned());
                }
            }
            "USER" => {
                if let Some(user) = self.word(line, keyword, rest) {
                    self.config().user = Some(user);
                }
            }
            "STOPSIGNAL" => {
                if let Some(signal) = self.word(line, keyword, rest) {
                    self.config().stop_signal = Some(signal);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn command(&mut self, keyword: &str, rest: &str, list: Option<Vec<String>>) {
        let is_shell = list.is_none();
        let open = self.open();
        let argv = list.unwrap_or_else(|| {
            let mut argv = open.shell.clone().unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
            argv.push(rest.to_owned());
            argv
        });
        if keyword == "CMD" {
            open.has_cmd = true;
            open.stage.config.cmd = Some(argv);
            return;
        }
        open.stage.config.entrypoint = Some(argv);
        // "If CMD is defined from the base image, setting ENTRYPOINT will reset CMD"; and a shell's line takes none at all.
        if !open.has_cmd || is_shell {
            open.stage.config.cmd = None;
        }
    }

    /// `ENV A=1 B=2`, or `ENV A 1`; all of one instruction see the variables from before it.
    fn pairs(&mut self, line: usize, keyword: &str, rest: &str) {
        let all = words(rest, self.escape);
        let is_old = all.first().is_some_and(|word| !word.contains('='));
        let pairs: Vec<(String, String)> = if is_old {
            let (name, value) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
            vec![(name.to_owned(), value.trim().to_owned())]
        } else {
            let pairs = all.iter().filter_map(|word| word.split_once('='));
            pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
        };
        let what = |name: &str| format!("{keyword} `{name}`");
        let read = pairs.iter().map(|(name, value)| {
            let name = expand(name, self.escape, &|name| self.variable(name)).text;
            let value = expand(value, self.escape, &|name| self.variable(name));
            (name, value)
        });
        for (name, Expanded { text, unknown }) in read.collect::<Vec<_>>() {
            if let Some(variable) = unknown.first() {
                self.note_unknown(line, &what(&name), &text, variable);
            } else if keyword == "ENV" {
                let env = self.config().env.get_or_insert_default();
                env.retain(|known| known.split_once('=').is_none_or(|(known, _)| known != name));
                env.push(format!("{name}={text}"));
            } else {
                self.config().labels.get_or_insert_default().insert(name, text);
            }
        }
    }

    /// A word with its variables in place; `None`, and a note, if one is not known.
    fn word(&mut self, line: usize, keyword: &str, word: &str) -> Option<String> {
        let Expanded { text, unknown } = expand(word, self.escape, &|name| self.variable(name));
        let Some(variable) = unknown.first() else { return Some(text) };
        self.note_unknown(line, keyword, &text, variable);
        None
    }

    fn note_unknown(&mut self, line: usize, what: &str, text: &str, variable: &str) {
        let stage = &mut self.open().stage;
        let base = stage.base.as_deref().unwrap_or("scratch");
        stage.notes.push(format!(
            "Line {line} of the Dockerfile, {what}, is left out: it is `{text}`, and what `{variable}` is, the base image \
             `{base}` may say, or the build."
        ));
    }

    fn open(&mut self) -> &mut Open {
        self.stages.last_mut().expect("instructions are refused before the first stage")
    }

    fn config(&mut self) -> &mut RunConfig {
        &mut self.open().stage.config
    }
}

/// `80`, `80/udp` or `8000-8010`, as images spell ports.
fn ports(text: &str) -> Option<Vec<String>> {
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then(|| (first..=last).map(|port| format!("{port}/{}", protocol.to_ascii_lowercase())).collect())
}
