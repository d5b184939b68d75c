//! From an image's configuration to the workload that it stands for.

use std::collections::{BTreeMap, BTreeSet};

use crate::image::oci::RunConfig;
use crate::manifest::Healthcheck;
use crate::path::JailPath;
use crate::profile::{Command, Ready, Seconds, Stop, StopSignal, Workload};

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
    #[error("the image is to be stopped by `{0}`, which is no signal")]
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

/// For so many seconds a server must have touched nothing, to be taken for ready where nothing else says when it is.
const IDLE: Seconds = Seconds(3);

/// The workload that an image stands for, or what is run in place of the image's command (`is_other`). It is ready when its
/// time (`span`) is up, if it has one; else the image's own server is when its health check says so, or when it listens
/// at the one port that the image exposes, and idles then; and anything else that listens, when it is idle. A program may as well end by itself.
///
/// # Errors
/// The image says nothing that could be run.
pub fn workload(
    config: &RunConfig,
    asked: &Asked,
    is_other: bool,
    span: Option<Seconds>,
) -> Result<Workload, SlimError> {
    let run: Vec<String> = asked.entrypoint.iter().chain(&asked.cmd).cloned().collect();
    if run.is_empty() {
        return Err(SlimError::NoCommand);
    }
    let mut workload = Workload::new(Command(run));
    let ports = config.exposed_ports.iter().flatten().filter_map(|(port, _)| tcp(port));
    let ports: BTreeSet<u16> = ports.collect();
    // Of several, some may be of the image that this one was made from, and nobody listens there.
    let port = ports.first().copied().filter(|_| !is_other && ports.len() == 1);
    let asked = config.healthcheck.as_ref().filter(|_| !is_other);
    let check = asked.and_then(check);
    if let Some(asked) = asked.filter(|_| check.is_some() && span.is_none()) {
        workload.check_timeout = asked.timeout.and_then(seconds);
        workload.timeout = time_to_become_healthy(asked);
    }
    workload.ready = Some(match (span, check, port) {
        (Some(span), ..) => {
            workload.timeout.0 = workload.timeout.0.saturating_add(span.0);
            Ready { after: Some(span), ..Ready::default() }
        }
        (None, Some(check), _) => Ready { check: Some(check), settles: Some(IDLE), ..Ready::default() },
        (None, None, Some(port)) => Ready { port: Some(port), settles: Some(IDLE), ..Ready::default() },
        (None, None, None) => Ready { idle: Some(IDLE), ..Ready::default() },
    });
    let named = config.stop_signal.as_deref().filter(|signal| !signal.is_empty());
    if let Some(name) = named {
        let signal = StopSignal::parse(name).ok_or_else(|| SlimError::Signal(name.to_owned()))?;
        workload.stop = Stop { signal, command: None };
    }
    Ok(workload)
}

/// What a health check runs; `None` for one that is switched off.
fn check(check: &Healthcheck) -> Option<Command> {
    let words = check.test.as_deref()?;
    match words.split_first()? {
        (how, command) if how == "CMD" && !command.is_empty() => Some(Command(command.to_vec())),
        (how, [line]) if how == "CMD-SHELL" => Some(Command(["/bin/sh", "-c", line].map(str::to_owned).to_vec())),
        _ => None,
    }
}

/// When an engine calls a server unhealthy: a time in which nobody holds it against the server that its check fails, and so
/// many failures in a row, one an interval. Never less than half a minute, since traced a server starts more slowly, nor more
/// than an hour, whatever a stranger's image says.
fn time_to_become_healthy(check: &Healthcheck) -> Seconds {
    const USUAL_INTERVAL: u64 = 30;
    const USUAL_RETRIES: u64 = 3;
    const LEAST: u64 = 30;
    const MOST: u64 = 3600;
    let start = check.start_period.and_then(seconds).map_or(0, |period| period.0);
    let interval = check.interval.and_then(seconds).map_or(USUAL_INTERVAL, |interval| interval.0);
    let retries = check.retries.and_then(|retries| u64::try_from(retries).ok()).filter(|retries| *retries > 0);
    let failing = interval.saturating_mul(retries.unwrap_or(USUAL_RETRIES));
    Seconds(start.saturating_add(failing).clamp(LEAST, MOST))
}

/// Nanoseconds, rounded up; `None` for 0, which stands for an engine's own choice.
fn seconds(nanoseconds: i64) -> Option<Seconds> {
    let nanoseconds = u64::try_from(nanoseconds).ok().filter(|&nanoseconds| nanoseconds > 0)?;
    Some(Seconds(nanoseconds.div_ceil(1_000_000_000)))
}

/// A workload as it is run in an image: with the image's variables and in its directory, where it names no others. Engines
/// give the image's own user his home directory as `HOME`, and so does this; `home`: where that is, if he has one.
pub fn inside(config: &RunConfig, home: Option<&str>, mut workload: Workload) -> Workload {
    let variables = config.env.iter().flatten().filter_map(|variable| variable.split_once('='));
    let mut env: BTreeMap<String, String> =
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    env.append(&mut workload.env);
    if workload.user.is_none() {
        env.entry("HOME".to_owned()).or_insert_with(|| home.unwrap_or("/").to_owned());
    }
    workload.env = env;
    workload.cwd = workload.cwd.or_else(|| directory(config));
    workload
}

/// The image's working directory, by the letter, as engines take it. One that is no path at all fails where it is used.
fn directory(config: &RunConfig) -> Option<String> {
    let directory = config.working_dir.as_ref().filter(|directory| !directory.is_empty())?;
    let clean = JailPath::clean(directory.as_bytes()).ok();
    Some(clean.and_then(|path| String::from_utf8(path.as_bytes().to_vec()).ok()).unwrap_or_else(|| directory.clone()))
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
    fn a_server_is_ready_at_its_port() {
        let config = config(
            r#"{"Entrypoint": ["/start"], "Cmd": ["-f"], "Env": ["A=b=c"], "WorkingDir": "/srv", "StopSignal": "SIGQUIT",
                "ExposedPorts": {"80/tcp": {}, "80": {}, "53/udp": {}}}"#,
        );
        let server =
            inside(&config, Some("/home/web"), workload(&config, &Asked::of(&config, None, &[]), false, None).unwrap());
        assert_eq!(server.run.0, ["/start", "-f"]);
        assert_eq!(server.env.get("A").map(String::as_str), Some("b=c"));
        assert_eq!(server.env.get("HOME").map(String::as_str), Some("/home/web"));
        assert_eq!(server.cwd.as_deref(), Some("/srv"));
        assert_eq!(server.ready.and_then(|ready| ready.port), Some(80));
        let several = RunConfig {
            exposed_ports: serde_json::from_str(r#"{"443/tcp": {}, "80/tcp": {}}"#).unwrap(),
            ..config.clone()
        };
        let server = workload(&several, &Asked::of(&several, None, &[]), false, None).unwrap();
        assert_eq!(server.ready.and_then(|ready| ready.idle), Some(IDLE));
        assert_eq!(Some(server.stop.signal), StopSignal::parse("QUIT"));
        let other = workload(&config, &Asked::of(&config, None, &["-h".to_owned()]), true, None).unwrap();
        assert_eq!(other.run.0, ["/start", "-h"]);
        assert_eq!(other.ready.and_then(|ready| ready.idle), Some(IDLE));
        let alone = Asked::of(&config, Some("/other"), &[]);
        assert_eq!((alone.entrypoint, alone.cmd), (vec!["/other".to_owned()], vec![]));
    }

    #[test]
    fn a_health_check_says_more_than_a_port_and_a_span_more_than_both() {
        let ready = |check: &str, span| {
            let text =
                format!(r#"{{"Cmd": ["/x"], "ExposedPorts": {{"80": {{}}}}, "Healthcheck": {{"Test": {check}}}}}"#);
            let config = config(&text);
            workload(&config, &Asked::of(&config, None, &[]), false, span).unwrap().ready.unwrap()
        };
        let check = |check: &str| ready(check, None).check.map(|command| command.0);
        assert_eq!(check(r#"["CMD", "/ask", "me"]"#), Some(vec!["/ask".to_owned(), "me".to_owned()]));
        assert_eq!(
            check(r#"["CMD-SHELL", "ask | grep me"]"#).map(|words| words[2].clone()),
            Some("ask | grep me".to_owned())
        );
        for none in [r#"["NONE"]"#, "[]", "null", r#"["CMD"]"#, r#"["CMD-SHELL"]"#] {
            assert_eq!(ready(none, None).port, Some(80), "{none}");
        }
        assert_eq!(ready(r#"["CMD", "/ask"]"#, Some(Seconds(5))).after, Some(Seconds(5)));
    }

    #[test]
    fn a_health_check_has_the_time_that_the_image_gives_it() {
        let times = |text: &str| {
            let config = config(&format!(r#"{{"Cmd": ["/x"], "Healthcheck": {{"Test": ["CMD", "/ask"]{text}}}}}"#));
            let workload = workload(&config, &Asked::of(&config, None, &[]), false, None).unwrap();
            (workload.check_timeout.map(|seconds| seconds.0), workload.timeout.0)
        };
        assert_eq!(times(""), (None, 90));
        assert_eq!(times(r#", "Timeout": 0, "StartPeriod": 0, "Interval": 0, "Retries": 0"#), (None, 90));
        assert_eq!(times(r#", "Timeout": 2500000000, "StartPeriod": 90000000000"#), (Some(3), 180));
        assert_eq!(times(r#", "Timeout": -1, "Retries": -1"#), (None, 90));
        assert_eq!(times(r#", "StartPeriod": 5000000000, "Interval": 10000000000, "Retries": 4"#), (None, 45));
        assert_eq!(times(r#", "Interval": 1000000000, "Retries": 1"#), (None, 30));
        assert_eq!(times(r#", "Interval": 9223372036854775807, "Retries": 9223372036854775807"#).1, 3600);
    }

    #[test]
    fn what_cannot_be_run() {
        let empty = RunConfig::default();
        assert_eq!(workload(&empty, &Asked::of(&empty, None, &[]), false, None), Err(SlimError::NoCommand));
        let odd = config(r#"{"Cmd": ["/bin/true"], "StopSignal": "SIGODD"}"#);
        assert_eq!(
            workload(&odd, &Asked::of(&odd, None, &[]), false, None),
            Err(SlimError::Signal("SIGODD".to_owned()))
        );
    }
}
