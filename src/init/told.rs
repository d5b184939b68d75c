//! From what an image says of itself, or what its Dockerfile says, to a draft.

use std::collections::BTreeSet;

use super::draft::{Described, Draft, Readiness};
use crate::image::oci::RunConfig;
use crate::manifest::Healthcheck;
use crate::profile::{Command, HealthCheck, Seconds, StopSignal, is_port};

/// There is nothing to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it does not say what to run")]
pub struct NoCommand;

/// The draft of an image that is run as `config` says. Its server is taken for ready at its lowest TCP port.
///
/// # Errors
/// The configuration names no command.
pub fn told(config: &RunConfig, origin: &str) -> Result<Draft, NoCommand> {
    let entrypoint = config.entrypoint.clone().unwrap_or_default();
    let cmd = config.cmd.clone().unwrap_or_default();
    let run: Vec<String> = entrypoint.iter().chain(&cmd).cloned().collect();
    if run.first().is_none_or(String::is_empty) {
        return Err(NoCommand);
    }
    let mut draft = Draft { origin: origin.to_owned(), run, is_of_image: true, ..Draft::default() };
    for variable in config.env.iter().flatten() {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        if !name.is_empty() {
            draft.env.insert(name.to_owned(), value.to_owned());
        }
    }
    let said = |word: &Option<String>| word.clone().filter(|word| !word.is_empty());
    draft.cwd = said(&config.working_dir).filter(|directory| directory.starts_with('/') && directory != "/");
    let spelled = |port: &String| if port.contains('/') { port.clone() } else { format!("{port}/tcp") };
    let ports = config.exposed_ports.iter().flatten().map(|(port, _)| spelled(port));
    let (ports, odd): (BTreeSet<_>, BTreeSet<_>) = ports.partition(|port| is_port(port));
    draft.notes.extend(odd.iter().map(|port| format!("`{port}` is no port, and is left out.")));
    let labels = config.labels.clone().into_iter().flatten();
    draft.image = Described {
        // An empty one too: else the first workload's program would be put before the arguments.
        entrypoint: Some(entrypoint),
        cmd: (!cmd.is_empty()).then_some(cmd),
        user: said(&config.user),
        ports,
        volumes: config.volumes.iter().flatten().map(|(volume, _)| volume.clone()).collect(),
        // minjail gives each image its own.
        labels: labels.filter(|(name, _)| !name.starts_with("org.minjail.")).collect(),
        healthcheck: config.healthcheck.as_ref().and_then(healthcheck),
        ..Described::default()
    };
    let volumes = draft.image.volumes.clone();
    draft.image.volumes.retain(|volume| volume.starts_with('/'));
    draft.notes.extend(
        volumes
            .difference(&draft.image.volumes)
            .map(|volume| format!("The volume `{volume}` is no absolute path, and is left out.")),
    );
    if let Some(user) = draft.image.user.as_ref().filter(|user| !is_root(user)) {
        draft.notes.push(format!(
            "It runs as `{user}`. `minjail slim` runs the workload as that user by itself; for `minjail build`, on this \
             machine's own files, name one of this machine's users as the workload's `user`."
        ));
    }
    draft.tcp = draft.image.ports.iter().filter_map(|port| tcp(port)).collect();
    let check = draft.image.healthcheck.as_ref().map(|check| Readiness::Check(check.run.0.clone()));
    draft.ready = draft.tcp.first().map(|port| Readiness::Port(*port)).or(check);
    stop(config, &mut draft);
    Ok(draft)
}

fn stop(config: &RunConfig, draft: &mut Draft) {
    let Some(name) = config.stop_signal.as_deref().filter(|name| !name.is_empty()) else { return };
    match StopSignal::parse(name) {
        Some(signal) => {
            draft.image.stop_signal = Some(signal);
            draft.stop = Some(signal);
        }
        None => draft.notes.push(format!("It is to be stopped by `{name}`, which is no signal.")),
    }
}

fn is_root(user: &str) -> bool {
    matches!(user.split(':').next(), Some("0" | "root"))
}

/// An image's health check as a profile has it; `None` for one that is switched off. Parts of seconds are rounded up.
fn healthcheck(check: &Healthcheck) -> Option<HealthCheck> {
    let words = check.test.as_deref()?;
    let run = match words.split_first()? {
        (how, command) if how == "CMD" && command.first().is_some_and(|program| !program.is_empty()) => {
            command.to_vec()
        }
        (how, [line]) if how == "CMD-SHELL" && !line.trim().is_empty() => {
            ["/bin/sh", "-c", line].map(str::to_owned).to_vec()
        }
        _ => return None,
    };
    let seconds = |nanoseconds: Option<i64>| {
        let nanoseconds = u64::try_from(nanoseconds?).ok().filter(|nanoseconds| *nanoseconds > 0)?;
        Some(Seconds(nanoseconds.div_ceil(1_000_000_000)))
    };
    Some(HealthCheck {
        run: Command(run),
        interval: seconds(check.interval),
        timeout: seconds(check.timeout),
        start_period: seconds(check.start_period),
        retries: check.retries.and_then(|retries| u32::try_from(retries).ok()).filter(|retries| *retries > 0),
    })
}

/// The port of `80/tcp`.
fn tcp(port: &str) -> Option<u16> {
    port.strip_suffix("/tcp")?.parse().ok()
}
