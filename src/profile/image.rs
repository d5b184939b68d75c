//! How a profile describes the image.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::model::{Command, Seconds, odd_variable};
use super::signal::StopSignal;

/// How the image is described; what is left out is taken from the first workload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Image {
    #[serde(default)]
    pub entrypoint: Option<Vec<String>>,
    #[serde(default)]
    pub cmd: Option<Vec<String>>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    #[serde(default)]
    pub workdir: Option<String>,
    #[serde(default)]
    pub user: Option<String>,
    #[serde(default)]
    pub ports: BTreeSet<String>,
    #[serde(default)]
    pub volumes: BTreeSet<String>,
    #[serde(default)]
    pub stop_signal: Option<StopSignal>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub healthcheck: Option<HealthCheck>,
    /// As GOARCH spells it.
    #[serde(default)]
    pub architecture: Option<String>,
}

/// How an engine learns whether a container is well. Where a time is left out, the engine has its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct HealthCheck {
    pub run: Command,
    #[serde(default)]
    pub interval: Option<Seconds>,
    #[serde(default)]
    pub timeout: Option<Seconds>,
    #[serde(default)]
    pub start_period: Option<Seconds>,
    #[serde(default)]
    pub retries: Option<u32>,
}

impl Image {
    /// This description on top of `below`.
    pub(super) fn on(self, below: Self) -> Self {
        let join = |mut lower: BTreeMap<String, String>, upper: BTreeMap<String, String>| {
            lower.extend(upper);
            lower
        };
        let both = |lower: BTreeSet<String>, upper: BTreeSet<String>| lower.into_iter().chain(upper).collect();
        Self {
            entrypoint: self.entrypoint.or(below.entrypoint),
            cmd: self.cmd.or(below.cmd),
            env: join(below.env, self.env),
            workdir: self.workdir.or(below.workdir),
            user: self.user.or(below.user),
            ports: both(below.ports, self.ports),
            volumes: both(below.volumes, self.volumes),
            stop_signal: self.stop_signal.or(below.stop_signal),
            labels: join(below.labels, self.labels),
            healthcheck: self.healthcheck.or(below.healthcheck),
            architecture: self.architecture.or(below.architecture),
        }
    }

    /// What cannot be meant, though its form is right; for a person.
    pub(super) fn nonsense(&self) -> Option<String> {
        if let Some(volume) = self.volumes.iter().find(|volume| !volume.starts_with('/')) {
            return Some(format!("the volume `{volume}` is not an absolute path"));
        }
        if let Some(directory) = self.workdir.as_ref().filter(|directory| !directory.starts_with('/')) {
            return Some(format!("the working directory `{directory}` is not an absolute path"));
        }
        if let Some(port) = self.ports.iter().find(|port| !is_port(port)) {
            return Some(format!("`{port}` is no port as `80`, `80/tcp` or `53/udp`"));
        }
        if self.entrypoint.as_ref().and_then(|words| words.first()).is_some_and(String::is_empty) {
            return Some("the entrypoint begins with an empty word, which is no program".to_owned());
        }
        if self.healthcheck.as_ref().is_some_and(|check| check.retries == Some(0)) {
            return Some("the health check has 0 `retries`: an engine wants one at least".to_owned());
        }
        if let Some(fault) = odd_variable(&self.env) {
            return Some(fault);
        }
        let is_name = |name: &&String| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let odd = self.architecture.as_ref().filter(|name| name.is_empty() || !is_name(name))?;
        Some(format!("the architecture `{odd}` is no name as `amd64`, `arm64` or `386`"))
    }
}

/// True for a port as images spell it (OCI image-spec, `config.md`, `ExposedPorts`).
pub fn is_port(text: &str) -> bool {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let is_number =
        number.bytes().all(|byte| byte.is_ascii_digit()) && number.parse::<u16>().is_ok_and(|port| port > 0);
    is_number && matches!(protocol, "tcp" | "udp" | "sctp")
}

impl HealthCheck {
    /// The test as docker spells it: a line for a shell is told from arguments.
    pub fn test(&self) -> Vec<String> {
        match self.run.0.as_slice() {
            [shell, flag, line] if shell == "/bin/sh" && flag == "-c" => vec!["CMD-SHELL".to_owned(), line.clone()],
            arguments => std::iter::once("CMD".to_owned()).chain(arguments.iter().cloned()).collect(),
        }
    }
}
