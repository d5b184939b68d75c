//! What a profile says.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::files::Files;
use super::image::Image;
use super::ready::Ready;
use super::signal::StopSignal;

/// A profile, as one file says it, or with what it extends taken in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Profile {
    #[serde(default)]
    pub extends: Option<String>,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default)]
    pub packages: Vec<String>,
    /// In the order of the file: the first one says how the image is run.
    #[serde(default, deserialize_with = "in_order")]
    pub workloads: Vec<(String, Workload)>,
    #[serde(default)]
    pub files: Files,
    #[serde(default)]
    pub image: Image,
}

/// One representative run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Workload {
    pub run: Command,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    #[serde(default)]
    pub cwd: Option<String>,
    #[serde(default)]
    pub user: Option<String>,
    #[serde(default)]
    pub stdin: Option<String>,
    #[serde(default = "a_minute")]
    pub timeout: Seconds,
    #[serde(default)]
    pub network: Network,
    #[serde(default)]
    pub expect: Expect,
    #[serde(default)]
    pub ready: Option<Ready>,
    #[serde(default)]
    pub probes: Vec<Probe>,
    #[serde(default)]
    pub stop: Stop,
    #[serde(default = "ten_seconds")]
    pub grace: Seconds,
    #[serde(default)]
    pub setup: Vec<Command>,
    #[serde(default)]
    pub teardown: Vec<Command>,
    #[serde(default)]
    pub state: Vec<String>,
    /// The image's health check, which must succeed once this server is ready. No key of a workload's: it is said of the image,
    /// and its first workload gets it.
    #[serde(skip)]
    pub check: Option<Command>,
    /// How long one run of the image's health check may take, if the image says so.
    #[serde(skip)]
    pub check_timeout: Option<Seconds>,
}

/// A command: a list of arguments, or a string for `/bin/sh -c`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Command(pub Vec<String>);

/// A number of seconds, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Seconds(pub u64);

/// The network in which a workload runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// A loopback interface of its own.
    #[default]
    Private,
    Host,
}

/// How a workload is to end, and what it is to say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Expect {
    /// The exit status; where none is given, 0 for a program that ends by itself, and any for one that is stopped.
    #[serde(default)]
    pub status: Option<u8>,
    #[serde(default)]
    pub stdout: Option<Check>,
}

/// What a text must be like; all that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Check {
    #[serde(default)]
    pub equals: Option<String>,
    #[serde(default)]
    pub contains: Option<String>,
    #[serde(default)]
    pub matches: Option<Regex>,
}

/// A regular expression, in the syntax of the `regex` crate; `.` and classes match characters, not bytes.
#[derive(Debug, Clone)]
pub struct Regex(regex::bytes::Regex);

/// A question to a server: exactly one of these.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Probe {
    #[serde(default)]
    pub http: Option<Http>,
    #[serde(default)]
    pub tcp: Option<Tcp>,
    #[serde(default)]
    pub command: Option<Command>,
    /// Of a command.
    #[serde(default)]
    pub status: Option<u8>,
    /// Of a command.
    #[serde(default)]
    pub stdout: Option<Check>,
}

/// An HTTP request to the loopback interface, and what is expected of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Http {
    pub port: u16,
    #[serde(default = "get")]
    pub method: String,
    #[serde(default = "slash")]
    pub path: String,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    #[serde(default)]
    pub body: Option<String>,
    #[serde(default = "ok")]
    pub status: u16,
    #[serde(default)]
    pub text: Option<Check>,
}

/// Bytes to a TCP port of the loopback interface, and what must come back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Tcp {
    pub port: u16,
    #[serde(default)]
    pub send: String,
    pub contains: String,
}

/// How a server is stopped; a signal, or a command that makes it stop.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Stop {
    #[serde(default)]
    pub signal: StopSignal,
    #[serde(default)]
    pub command: Option<Command>,
}

fn a_minute() -> Seconds {
    Seconds(60)
}

fn ten_seconds() -> Seconds {
    Seconds(10)
}

fn get() -> String {
    "GET".to_owned()
}

fn slash() -> String {
    "/".to_owned()
}

fn ok() -> u16 {
    200
}

impl Profile {
    /// This profile on top of `below`: what is said here counts, what is not said is taken from there. A workload
    /// replaces the one of the same name as a whole.
    pub(super) fn on(self, below: Self) -> Self {
        let mut workloads = below.workloads;
        for (name, workload) in self.workloads {
            match workloads.iter_mut().find(|(known, _)| *known == name) {
                Some((_, old)) => *old = workload,
                None => workloads.push((name, workload)),
            }
        }
        Self {
            extends: None,
            description: self.description.or(below.description),
            packages: below.packages.into_iter().chain(self.packages).collect(),
            workloads,
            files: self.files.on(below.files),
            image: self.image.on(below.image),
        }
    }

    /// What cannot be meant, though its form is right; for a person.
    pub(super) fn nonsense(&self) -> Option<String> {
        if let Some(fault) = self.image.nonsense() {
            return Some(fault);
        }
        self.workloads
            .iter()
            .find_map(|(name, workload)| workload.nonsense().map(|text| format!("workload `{name}`: {text}")))
    }
}

impl Workload {
    /// One that runs `run`, and says nothing else.
    pub fn new(run: Command) -> Self {
        Self {
            run,
            env: BTreeMap::new(),
            cwd: None,
            user: None,
            stdin: None,
            timeout: a_minute(),
            network: Network::default(),
            expect: Expect::default(),
            ready: None,
            probes: Vec::new(),
            stop: Stop::default(),
            grace: ten_seconds(),
            setup: Vec::new(),
            teardown: Vec::new(),
            state: Vec::new(),
            check: None,
            check_timeout: None,
        }
    }

    /// True if the workload runs until it is stopped.
    pub fn is_server(&self) -> bool {
        self.ready.is_some()
    }

    fn nonsense(&self) -> Option<String> {
        let ready = self.ready.as_ref();
        if let Some(fault) = odd_variable(&self.env) {
            return Some(fault);
        }
        let waited = ready.into_iter().flat_map(|ready| ready.file.iter().chain(&ready.socket));
        let mut absolute = self.state.iter().chain(&self.cwd).chain(waited);
        if let Some(path) = absolute.find(|path| !path.starts_with('/')) {
            return Some(format!("`{path}` is not an absolute path"));
        }
        if ready.is_some_and(|ready| ready.given().len() != 1) {
            return Some(
                "`ready` wants exactly one of port, socket, file, log, http, command, check, idle and after".to_owned(),
            );
        }
        if let Some(after) = ready.and_then(|ready| ready.after).filter(|after| after.0 > self.timeout.0) {
            let (after, timeout) = (after.0, self.timeout.0);
            return Some(format!("it is to be ready after {after} s, and its `timeout` is over after {timeout} s"));
        }
        if !self.probes.is_empty() && self.ready.is_none() {
            return Some("it has probes, but `ready` does not say when they can be asked".to_owned());
        }
        if self.stop != Stop::default() && self.ready.is_none() {
            return Some(
                "`stop` says how it is stopped, but it has no `ready`: it runs until it ends by itself".to_owned(),
            );
        }
        if let Some(fault) = self.holds_always() {
            return Some(fault);
        }
        for probe in &self.probes {
            let kinds = [probe.http.is_some(), probe.tcp.is_some(), probe.command.is_some()];
            if kinds.iter().filter(|given| **given).count() != 1 {
                return Some("a probe wants exactly one of http, tcp and command".to_owned());
            }
            if probe.command.is_none() && (probe.status.is_some() || probe.stdout.is_some()) {
                return Some("`status` and `stdout` beside a probe belong to a command".to_owned());
            }
        }
        self.out_of_range()
    }

    /// What would be true of every text, so that nothing is checked by it.
    fn holds_always(&self) -> Option<String> {
        let https = self.ready.iter().filter_map(|ready| ready.http.as_ref());
        let https = https.chain(self.probes.iter().filter_map(|probe| probe.http.as_ref()));
        let outputs = self.probes.iter().filter_map(|probe| probe.stdout.as_ref()).chain(&self.expect.stdout);
        if let Some(fault) = https.filter_map(|http| http.text.as_ref()).chain(outputs).find_map(Check::nonsense) {
            return Some(fault);
        }
        let mut answers = self.probes.iter().filter_map(|probe| probe.tcp.as_ref()).map(|tcp| &tcp.contains);
        if answers.any(String::is_empty) {
            return Some("every answer contains an empty text: say what must come back".to_owned());
        }
        let log = self.ready.as_ref().and_then(|ready| ready.log.as_ref());
        log.is_some_and(String::is_empty).then(|| "`log` is empty: say what it writes once it is ready".to_owned())
    }

    /// A number that is none of those that the schema allows.
    fn out_of_range(&self) -> Option<String> {
        let asked = self.probes.iter().filter_map(|probe| probe.http.as_ref());
        let mut https = self.ready.iter().filter_map(|ready| ready.http.as_ref()).chain(asked);
        let tcp = self.probes.iter().filter_map(|probe| probe.tcp.as_ref()).map(|tcp| tcp.port);
        let waited = self.ready.iter().filter_map(|ready| ready.port);
        if https.clone().map(|http| http.port).chain(tcp).chain(waited).any(|port| port == 0) {
            return Some("0 is no port at which anything listens".to_owned());
        }
        let odd = https.find(|http| !(100..=599).contains(&http.status))?;
        Some(format!("{} is no status of an HTTP answer: these are 100 to 599", odd.status))
    }
}

impl Check {
    /// Why it could not fail.
    fn nonsense(&self) -> Option<String> {
        if self.equals.is_none() && self.contains.is_none() && self.matches.is_none() {
            return Some("a text is to be checked, and not said for what: give equals, contains or matches".to_owned());
        }
        let is_empty = self.contains.as_ref().is_some_and(String::is_empty)
            || self.matches.as_ref().is_some_and(|Regex(wanted)| wanted.as_str().is_empty());
        is_empty.then(|| {
            "every text contains an empty one: give `contains` or `matches` a text, or `equals: \"\"` for no text at all".to_owned()
        })
    }

    /// What is wrong with `text`; `None` if nothing is.
    pub fn fault(&self, text: &[u8]) -> Option<String> {
        if self.equals.as_ref().is_some_and(|wanted| wanted.as_bytes() != text) {
            return Some("is not the text that was expected".to_owned());
        }
        if let Some(wanted) = self.contains.as_ref().filter(|wanted| !contains(text, wanted.as_bytes())) {
            return Some(format!("does not contain `{}`", crate::path::escape(wanted.as_bytes())));
        }
        let Regex(wanted) = self.matches.as_ref().filter(|Regex(wanted)| !wanted.is_match(text))?;
        Some(format!("does not match `{wanted}`"))
    }
}

impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Regex {}

impl Serialize for Regex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

impl<'de> Deserialize<'de> for Regex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        regex::bytes::Regex::new(&text).map(Self).map_err(|error| {
            // The crate draws a picture over several lines; its last line says what is wrong.
            let said = error.to_string();
            let why = said.lines().last().unwrap_or_default().trim_start_matches("error: ");
            de::Error::custom(format!("`{text}` is no regular expression: {why}"))
        })
    }
}

impl Tcp {
    /// True once the answer has all that is waited for.
    pub fn is_answered(&self, text: &[u8]) -> bool {
        contains(text, self.contains.as_bytes())
    }
}

/// What is wrong with the names or values of variables (`environ(7)`).
pub(super) fn odd_variable(env: &BTreeMap<String, String>) -> Option<String> {
    let (name, _) =
        env.iter().find(|(name, value)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0'))?;
    let name = crate::path::escape(name.as_bytes());
    Some(format!(
        "the variable `{name}` cannot be: a name has no `=` and is not empty, and neither it nor its value has NUL"
    ))
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    wanted.is_empty() || text.windows(wanted.len()).any(|window| window == wanted)
}

/// No clock goes on for longer than this.
const CENTURY: u64 = 100 * 365 * 24 * 3600;

impl Seconds {
    /// A century at most, which is for ever, and can be added to any clock's time.
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0.min(CENTURY))
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            0 => Err(de::Error::custom("a time must be at least one second")),
            seconds => Ok(Self(seconds)),
        }
    }
}

/// Not `untagged`: that would lose the place of a mistake.
impl<'de> Deserialize<'de> for Command {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = Command;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list of arguments, or a line for the shell")
            }

            fn visit_str<E: de::Error>(self, line: &str) -> Result<Command, E> {
                if line.trim().is_empty() {
                    return Err(E::custom("a command must not be empty"));
                }
                Ok(Command(["/bin/sh", "-c", line].map(str::to_owned).to_vec()))
            }

            /// YAML 1.1 takes a plain `yes` or `true`, which are programs, for a truth value.
            fn visit_bool<E: de::Error>(self, _value: bool) -> Result<Command, E> {
                Err(E::custom("a word that YAML takes for a truth value: put it in quotes"))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Command, A::Error> {
                let mut arguments = Vec::new();
                while let Some(argument) = items.next_element()? {
                    arguments.push(argument);
                }
                if arguments.first().is_none_or(String::is_empty) {
                    return Err(de::Error::custom("a command must not be empty"));
                }
                Ok(Command(arguments))
            }
        }
        deserializer.deserialize_any(Form)
    }
}

/// A mapping with its order kept.
fn in_order<'de, D: Deserializer<'de>, V: Deserialize<'de>>(deserializer: D) -> Result<Vec<(String, V)>, D::Error> {
    struct Form<V>(PhantomData<V>);
    impl<'de, V: Deserialize<'de>> Visitor<'de> for Form<V> {
        type Value = Vec<(String, V)>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("workloads by name")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries: Self::Value = Vec::new();
            while let Some(name) = map.next_key::<String>()? {
                if entries.iter().any(|(known, _)| *known == name) {
                    return Err(de::Error::custom(format!("the workload `{name}` is there twice")));
                }
                entries.push((name, map.next_value()?));
            }
            Ok(entries)
        }
    }
    deserializer.deserialize_map(Form(PhantomData))
}
