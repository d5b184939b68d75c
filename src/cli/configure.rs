//! From a trace to the configuration of an image: what is run, how, and as whom.

use std::collections::BTreeMap;

use super::choices::Chosen;
use super::failure::Failure;
use super::platform::architecture_of;
use crate::manifest::{Config, FORMAT, Healthcheck};
use crate::path::{JailPath, unescape};
use crate::profile::{HealthCheck, Image, Seconds, StopSignal};
use crate::root::Root;
use crate::trace::{Header, Protocol, Trace};

/// Refuses a command that no image can have, before it runs.
pub(super) fn check_command(header: &Header) -> Result<(), Failure> {
    header.command.iter().try_for_each(|argument| utf8(argument).map(drop))
}

fn utf8(argument: &String) -> Result<String, Failure> {
    unescape(argument).and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(|| {
        Failure::usage(format!("the argument `{argument}` is not UTF-8, and an image's command must be"))
            .hint("put the command into a script that gives this argument, and trace that")
    })
}

/// How the image is run: as the workload was in `root`, unless `image` says otherwise.
pub(super) fn config(
    trace: &Trace,
    lead: &Header,
    root: &Root,
    image: &Image,
    chosen: &Chosen,
) -> Result<Config, Failure> {
    let mut arguments = lead.command.iter().skip(1);
    let cmd = arguments.by_ref().map(utf8).collect::<Result<_, _>>()?;
    let ports = trace.runs.iter().flat_map(|run| &run.listening);
    let exposed_ports = ports.map(|listening| {
        let protocol = if listening.protocol == Protocol::Tcp { "tcp" } else { "udp" };
        format!("{}/{protocol}", listening.port)
    });
    let variables = lead.env.iter().filter(|(name, value)| !chosen.withholds(name, value));
    let variables = variables.chain(lead.optional.iter().filter(|(name, value)| trace.uses(name, value)));
    let labels = [
        ("org.minjail.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("org.minjail.format".to_owned(), FORMAT.to_string()),
    ];
    let entrypoint = match lead.command.first().map(utf8).transpose()?.filter(|typed| leads_there(typed, lead, image)) {
        Some(typed) => vec![typed],
        None => vec![utf8(&lead.program.to_string())?],
    };
    let (entrypoint, cmd) = match (&image.entrypoint, &image.cmd) {
        (None, None) => (entrypoint, cmd),
        (None, Some(cmd)) => (entrypoint, cmd.clone()),
        (Some(entrypoint), cmd) => (entrypoint.clone(), cmd.clone().unwrap_or_default()),
    };
    let added = |map: &BTreeMap<String, String>| map.clone().into_iter().collect::<Vec<_>>();
    let of_program = || architecture_of(&lead.program, root, &lead.machine);
    Ok(Config {
        architecture: image.architecture.clone().unwrap_or_else(of_program),
        entrypoint,
        cmd,
        env: variables.map(|(name, value)| (name.clone(), value.clone())).chain(added(&image.env)).collect(),
        working_dir: image.workdir.clone().map_or_else(|| utf8(&lead.directory.to_string()), Ok)?,
        user: image.user.clone().unwrap_or_else(|| format!("{}:{}", lead.uid, lead.gid)),
        exposed_ports: exposed_ports.chain(image.ports.iter().cloned()).collect(),
        volumes: image.volumes.clone(),
        stop_signal: image.stop_signal.map(StopSignal::name),
        labels: labels.into_iter().chain(added(&image.labels)).collect(),
        healthcheck: image.healthcheck.as_ref().map(healthcheck),
        ..Config::default()
    })
}

/// True if the image finds the program of `lead` by what was typed too, so that it can have this for its name: a shell
/// says it in its messages, and busybox goes by it.
///
/// A directory of PATH before the program's had no such program, so the image has none there.
fn leads_there(typed: &str, lead: &Header, image: &Image) -> bool {
    let is_program = |path: &str| JailPath::parse(path.as_bytes()).is_ok_and(|path| path == lead.program);
    if typed.starts_with('/') {
        return false;
    }
    if typed.contains('/') {
        return image.workdir.is_none() && is_program(&format!("{}/{typed}", lead.directory));
    }
    let is_kept = |path: &&String| image.env.get("PATH").is_none_or(|other| other == *path);
    let Some(path) = lead.env.get("PATH").filter(is_kept) else { return false };
    // Engines refuse what a relative directory of PATH leads to.
    let mut absolute = path.split(':').take_while(|directory| directory.starts_with('/'));
    absolute.any(|directory| is_program(&format!("{directory}/{typed}")))
}

/// A profile's health check as an image has it: times in nanoseconds.
fn healthcheck(check: &HealthCheck) -> Healthcheck {
    let nanoseconds = |seconds: Option<Seconds>| {
        seconds.map(|seconds| i64::try_from(seconds.duration().as_nanos()).unwrap_or(i64::MAX))
    };
    Healthcheck {
        test: Some(check.test()),
        interval: nanoseconds(check.interval),
        timeout: nanoseconds(check.timeout),
        start_period: nanoseconds(check.start_period),
        retries: check.retries.map(i64::from),
        ..Healthcheck::default()
    }
}
