//! A profile that is being drafted, and its text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::yaml;
use crate::profile::{HealthCheck, Seconds, StopSignal};

/// What is known of a profile before a person has looked at it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Draft {
    /// What it was made from, as a user spells it: ``` `minjail init -- nginx` ```.
    pub origin: String,
    pub run: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub cwd: Option<String>,
    pub user: Option<String>,
    /// Whom it became by itself.
    pub other_users: BTreeSet<String>,
    /// A server: how it can be told that it is ready.
    pub ready: Option<Readiness>,
    pub stop: Option<StopSignal>,
    /// The exit status that is expected.
    pub status: Option<u8>,
    /// Seconds until it must have ended, or be ready.
    pub timeout: Option<u64>,
    /// Directories that are to be empty at its start.
    pub state: BTreeSet<String>,
    /// Directories that may be state, with why they were not taken for it.
    pub doubtful: BTreeMap<String, String>,
    /// All TCP ports, for probes.
    pub tcp: BTreeSet<u16>,
    /// What an image said of itself.
    pub image: Described,
    /// It is for what is in that image, and not on this machine.
    pub is_of_image: bool,
    /// What the reader should know besides.
    pub notes: Vec<String>,
}

/// What the `image` of a profile says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Described {
    pub entrypoint: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    pub env: BTreeMap<String, String>,
    pub workdir: Option<String>,
    pub user: Option<String>,
    pub ports: BTreeSet<String>,
    pub volumes: BTreeSet<String>,
    pub stop_signal: Option<StopSignal>,
    pub labels: BTreeMap<String, String>,
    pub healthcheck: Option<HealthCheck>,
}

/// How one can tell that a server is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    Port(u16),
    Socket(String),
    /// Its health check says it.
    Check(Vec<String>),
    /// Nothing tells; after so many seconds it did nothing new.
    After(u64),
}

/// Longer lines of comments are broken.
const WIDTH: usize = 116;

impl Draft {
    /// What takes the profile.
    pub fn builder(&self) -> &'static str {
        if self.is_of_image { "minjail slim IMAGE -p" } else { "minjail build" }
    }

    /// The profile's text, as it is to stand in `file`.
    pub fn text(&self, file: &str) -> String {
        let mut text = Text(String::new());
        let builds = self.builder();
        let kind = if self.ready.is_some() { "the server" } else { "the program" };
        text.comment(
            0,
            &format!(
                "Drafted by {}. `{builds} {file} -o oci:DIR` makes an image of it and proves that it works. What no \
                 workload does, the image may lack: see to it that {kind} is asked for all that it must be able to do. \
                 `minjail profile reference` prints what a profile may say.",
                self.origin
            ),
        );
        for note in &self.notes {
            text.comment(0, "");
            text.comment(0, note);
        }
        text.line(0, "workloads:");
        text.line(1, if self.ready.is_some() { "serve:" } else { "main:" });
        text.line(2, &format!("run: {}", command(&self.run)));
        self.surroundings(&mut text);
        self.server(&mut text);
        self.ending(&mut text);
        self.state(&mut text);
        self.image(&mut text);
        text.0
    }

    fn surroundings(&self, text: &mut Text) {
        if self.env.is_empty() {
            text.suggestion(2, "env: {NAME: value}");
        } else {
            text.line(2, "env:");
            for (name, value) in &self.env {
                text.line(3, &format!("{}: {}", yaml::text(name), yaml::text(value)));
            }
        }
        if let Some(cwd) = &self.cwd {
            text.line(2, &format!("cwd: {}", yaml::text(cwd)));
        }
        if !self.other_users.is_empty() {
            let users: Vec<&str> = self.other_users.iter().map(String::as_str).collect();
            text.comment(2, &format!("It became {} by itself.", users.join(", ")));
        }
        match &self.user {
            Some(user) => text.line(2, &format!("user: {}", yaml::text(user))),
            None => text.suggestion(2, "user: USER  (else whoever runs minjail; only root may name another one)"),
        }
    }

    fn server(&self, text: &mut Text) {
        match &self.ready {
            None => {
                text.suggestion(2, "stdin: what it reads");
                return;
            }
            Some(Readiness::Port(port)) => text.line(2, &format!("ready: {{port: {port}}}")),
            Some(Readiness::Check(check)) => text.line(2, &format!("ready: {{check: {}}}", command(check))),
            Some(Readiness::Socket(path)) => text.line(2, &format!("ready: {{socket: {}}}", yaml::text(path))),
            Some(Readiness::After(seconds)) => {
                text.comment(
                    2,
                    "Nothing told that it was ready: it is taken for ready when it has run as long as it did something new. \
                     Better is a log line, `ready: {log: TEXT}`, or a file, `ready: {file: PATH}`.",
                );
                text.line(2, &format!("ready: {{after: {seconds}}}"));
            }
        }
        text.comment(
            2,
            "What it is asked once it is ready; each answer must be as expected, in the image too. For example:",
        );
        text.suggestion(2, "probes:");
        for port in &self.tcp {
            text.suggestion(2, &format!("  - http: {{port: {port}, path: /, text: {{contains: TEXT}}}}"));
        }
        let port = self.tcp.first().map_or("PORT".to_owned(), u16::to_string);
        text.suggestion(2, &format!("  - tcp: {{port: {port}, send: \"PING\\r\\n\", contains: PONG}}"));
        text.suggestion(2, &format!("  - command: [curl, -sSf, \"http://127.0.0.1:{port}/\"]"));
        let stop = self.stop.unwrap_or_default().name();
        text.line(2, &format!("stop: {{signal: {}}}", stop.trim_start_matches("SIG")));
    }

    fn ending(&self, text: &mut Text) {
        if let Some(timeout) = self.timeout {
            text.line(2, &format!("timeout: {timeout}"));
        }
        match self.status {
            Some(status) => text.line(2, &format!("expect: {{status: {status}}}")),
            None if self.ready.is_some() => text.suggestion(2, "expect: {status: 0}"),
            None => text.suggestion(2, "expect: {stdout: {contains: TEXT}}"),
        }
    }

    fn state(&self, text: &mut Text) {
        if !self.state.is_empty() {
            text.comment(
                2,
                "It made files here. Each run starts with these directories empty; the host's are not touched.",
            );
            text.line(2, &format!("state: {}", yaml::list(&self.state)));
        }
        for (directory, why) in &self.doubtful {
            text.suggestion(2, &format!("state: [{}]  ({why})", yaml::text(directory)));
        }
    }

    fn image(&self, text: &mut Text) {
        let image = &self.image;
        let lists = [("entrypoint", image.entrypoint.as_ref()), ("cmd", image.cmd.as_ref())];
        let mut lines: Vec<String> = Vec::new();
        lines.extend(lists.iter().filter_map(|(key, list)| list.map(|list| format!("{key}: {}", yaml::list(list)))));
        let maps = [("env", &image.env), ("labels", &image.labels)];
        let map = |(key, map): &(&str, &BTreeMap<String, String>)| {
            let lines = map.iter().map(|(name, value)| format!("    {}: {}", yaml::text(name), yaml::text(value)));
            (!map.is_empty()).then(|| format!("{key}:\n{}", lines.collect::<Vec<_>>().join("\n")))
        };
        lines.extend(maps.iter().filter_map(map));
        let words = [("workdir", &image.workdir), ("user", &image.user)];
        let word =
            |(key, word): &(&str, &Option<String>)| word.as_ref().map(|word| format!("{key}: {}", yaml::text(word)));
        lines.extend(words.iter().filter_map(word));
        let sets = [("ports", &image.ports), ("volumes", &image.volumes)];
        let set = |(key, set): &(&str, &BTreeSet<String>)| {
            (!set.is_empty()).then(|| format!("{key}: {}", yaml::list(set.iter())))
        };
        lines.extend(sets.iter().filter_map(set));
        let signal = image.stop_signal.map(StopSignal::name);
        lines.extend(signal.map(|name| format!("stop-signal: {}", name.trim_start_matches("SIG"))));
        lines.extend(image.healthcheck.as_ref().map(healthcheck));
        if !lines.is_empty() {
            text.line(0, "image:");
        }
        for line in lines {
            text.line(1, &line);
        }
        let own = self.state.iter().chain(self.doubtful.keys()).collect::<BTreeSet<_>>();
        if !own.is_empty() && image.volumes.is_empty() {
            text.comment(0, "Directories whose content is the container's, not the image's:");
            text.suggestion(0, "image:");
            text.suggestion(0, &format!("  volumes: {}", yaml::list(own)));
        }
    }
}

fn healthcheck(check: &HealthCheck) -> String {
    let seconds = |key: &str, seconds: Option<Seconds>| seconds.map(|seconds| format!("    {key}: {}", seconds.0));
    let lines = [
        Some("healthcheck:".to_owned()),
        Some(format!("    run: {}", command(&check.run.0))),
        seconds("interval", check.interval),
        seconds("timeout", check.timeout),
        seconds("start-period", check.start_period),
        check.retries.map(|retries| format!("    retries: {retries}")),
    ];
    lines.into_iter().flatten().collect::<Vec<_>>().join("\n")
}

/// A line for the shell is written as one.
fn command(run: &[String]) -> String {
    match run {
        [shell, flag, line] if shell == "/bin/sh" && flag == "-c" && !line.trim().is_empty() => yaml::text(line),
        _ => yaml::list(run),
    }
}

/// Lines with their indentation.
struct Text(String);

impl Text {
    fn line(&mut self, depth: usize, line: &str) {
        let _ = writeln!(self.0, "{:1$}{line}", "", depth * 2);
    }

    /// A comment, broken where it is too long.
    fn comment(&mut self, depth: usize, words: &str) {
        let room = WIDTH.saturating_sub(depth * 2 + 2);
        let mut line = String::new();
        for word in words.split(' ') {
            if !line.is_empty() && line.len() + 1 + word.len() > room {
                self.suggestion(depth, &line);
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        self.suggestion(depth, &line);
    }

    /// A comment that stands on one line: what is to be uncommented.
    fn suggestion(&mut self, depth: usize, code: &str) {
        self.line(depth, format!("# {}", code.replace('\n', " ")).trim_end());
    }
}
