//! From an image's configuration to the workload that it stands for.

use std::collections::BTreeMap;

use crate::image::oci::RunConfig;
use crate::profile::{Command, Ready, Stop, StopSignal, Workload};

/// What is executed: the image's own, or what the user wants in its place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
}

/// An image cannot be run as it says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlimError {
    #[error("the image does not say what to run")]
    NoCommand,
    #[error("the image is to be stopped by `{0}`, which is none of the signals that minjail sends")]
    Signal(String),
}

impl Asked {
    /// `command`, if there is one, stands for the image's `Cmd`, and `entrypoint` for both its `Entrypoint` and its `Cmd`,
    /// as with `docker run`.
    pub fn of(config: &RunConfig, entrypoint: Option<&str>, command: &[String]) -> Self {
        let cmd = config.cmd.clone().filter(|_| entrypoint.is_none() && command.is_empty());
        let cmd = cmd.unwrap_or_else(|| command.to_vec());
        let own = config.entrypoint.clone().unwrap_or_default();
        Self { entrypoint: entrypoint.map_or(own, |program| vec![program.to_owned()]), cmd }
    }
}

/// The workload that an image stands for. One that exposes a port is a server, ready when it listens there; what is run in
/// place of the image's command (`is_other`) is taken for a program that ends by itself.
///
/// # Errors
/// The image says nothing that could be run.
pub fn workload(config: &RunConfig, asked: &Asked, is_other: bool) -> Result<Workload, SlimError> {
    let run: Vec<String> = asked.entrypoint.iter().chain(&asked.cmd).cloned().collect();
    if run.is_empty() {
        return Err(SlimError::NoCommand);
    }
    let ports = config.exposed_ports.iter().flatten().filter_map(|(port, _)| tcp(port));
    let port = ports.min().filter(|_| !is_other);
    let mut workload = Workload::new(Command(run));
    workload.ready = port.map(|port| Ready { port: Some(port), ..Ready::default() });
    let named = config.stop_signal.as_deref().filter(|signal| !signal.is_empty());
    if let Some(name) = named {
        let signal = StopSignal::parse(name).ok_or_else(|| SlimError::Signal(name.to_owned()))?;
        workload.stop = Stop { signal, command: None };
    }
    Ok(workload)
}

/// A workload as it is run in an image: with the image's variables and in its directory, where it names no others.
pub fn inside(config: &RunConfig, mut workload: Workload) -> Workload {
    let variables = config.env.iter().flatten().filter_map(|variable| variable.split_once('='));
    let mut env: BTreeMap<String, String> =
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    env.append(&mut workload.env);
    workload.env = env;
    workload.cwd = workload.cwd.or_else(|| config.working_dir.clone().filter(|directory| !directory.is_empty()));
    workload
}

/// The port of `80/tcp` or `80`; nothing connects to the ports of other protocols.
fn tcp(port: &str) -> Option<u16> {
    match port.split_once('/') {
        None => port.parse().ok(),
        Some((port, "tcp")) => port.parse().ok(),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> RunConfig {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_server_is_ready_at_its_lowest_port() {
        let config = config(
            r#"{"Entrypoint": ["/start"], "Cmd": ["-f"], "Env": ["A=b=c"], "WorkingDir": "/srv", "StopSignal": "SIGQUIT",
                "ExposedPorts": {"443/tcp": {}, "80/tcp": {}, "53/udp": {}}}"#,
        );
        let server = inside(&config, workload(&config, &Asked::of(&config, None, &[]), false).unwrap());
        assert_eq!(server.run.0, ["/start", "-f"]);
        assert_eq!(server.env.get("A").map(String::as_str), Some("b=c"));
        assert_eq!(server.cwd.as_deref(), Some("/srv"));
        assert_eq!(server.ready.and_then(|ready| ready.port), Some(80));
        assert_eq!(server.stop.signal, StopSignal::Quit);
        let other = workload(&config, &Asked::of(&config, None, &["-h".to_owned()]), true).unwrap();
        assert_eq!((other.run.0, other.ready), (vec!["/start".to_owned(), "-h".to_owned()], None));
        let alone = Asked::of(&config, Some("/other"), &[]);
        assert_eq!((alone.entrypoint, alone.cmd), (vec!["/other".to_owned()], vec![]));
    }

    #[test]
    fn what_cannot_be_run() {
        let empty = RunConfig::default();
        assert_eq!(workload(&empty, &Asked::of(&empty, None, &[]), false), Err(SlimError::NoCommand));
        let odd = config(r#"{"Cmd": ["/bin/true"], "StopSignal": "SIGODD"}"#);
        assert_eq!(workload(&odd, &Asked::of(&odd, None, &[]), false), Err(SlimError::Signal("SIGODD".to_owned())));
    }
}
