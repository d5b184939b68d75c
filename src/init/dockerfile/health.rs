//! `HEALTHCHECK [--interval=TIME] [--timeout=TIME] [--start-period=TIME] [--start-interval=TIME] [--retries=N] CMD COMMAND`,
//! or `HEALTHCHECK NONE`.

use crate::manifest::Healthcheck;

/// The check that the instruction says; or, for a person, what is wrong with it.
pub(super) fn read(mut rest: &str) -> Result<Healthcheck, String> {
    let mut check = Healthcheck::default();
    while let Some(option) = rest.strip_prefix("--") {
        let (option, behind) = option.split_once([' ', '\t']).unwrap_or((option, ""));
        rest = behind.trim_start();
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let time = || nanoseconds(value).ok_or_else(|| format!("`{value}` is no time, as `30s`"));
        match name {
            "interval" => check.interval = Some(time()?),
            "timeout" => check.timeout = Some(time()?),
            "start-period" => check.start_period = Some(time()?),
            "start-interval" => check.start_interval = Some(time()?),
            "retries" => check.retries = Some(value.parse().map_err(|_| format!("`{value}` is no number of retries"))?),
            _ => return Err(format!("`HEALTHCHECK` has no option `--{name}`")),
        }
    }
    let (kind, command) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
    let (kind, command) = (kind.to_ascii_uppercase(), command.trim());
    let test = match kind.as_str() {
        "NONE" => vec!["NONE".to_owned()],
        "CMD" if !command.is_empty() => match serde_json::from_str::<Vec<String>>(command) {
            Ok(arguments) => std::iter::once("CMD".to_owned()).chain(arguments).collect(),
            Err(_) => vec!["CMD-SHELL".to_owned(), command.to_owned()],
        },
        _ => return Err("`HEALTHCHECK` wants `CMD` and a command, or `NONE`".to_owned()),
    };
    Ok(Healthcheck { test: Some(test), ..check })
}

/// A time as Go spells it: `1m30s`, `1.5h`, `500ms`.
fn nanoseconds(text: &str) -> Option<i64> {
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|character: char| !character.is_ascii_digit() && character != '.')?;
        let (number, behind) = rest.split_at(digits);
        let end = behind.find(|character: char| character.is_ascii_digit()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(end);
        let nanoseconds = match unit {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * nanoseconds;
        rest = behind;
    }
    (!text.is_empty() && total < 9e18).then_some(total as i64)
}
