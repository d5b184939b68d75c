//! What a Dockerfile says of how its image is run.
//!
//! In: its text, the stage that is wanted, and arguments for the build. Out: a configuration as an image has it, and notes on
//! what a Dockerfile alone does not tell: what its base image says, and variables that only a build knows. Nothing is
//! built, and no image is looked at. The instructions are those of Docker's reference (Dockerfile reference, 1.10).

mod health;
mod lines;
mod stage;
mod words;

use std::collections::BTreeMap;

use self::lines::Instruction;
use self::stage::Reading;
use crate::image::oci::RunConfig;

/// A stage of a Dockerfile, with all that it has from the stages below.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stage {
    pub config: RunConfig,
    /// What a reader should know.
    pub notes: Vec<String>,
    /// The image that it stands on, in the end; `None` for `scratch`.
    pub base: Option<String>,
}

/// A text is no Dockerfile, or has not the stage that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DockerfileError {
    #[error("line {line}: `{keyword}` is no instruction of a Dockerfile")]
    Keyword { line: usize, keyword: String },
    #[error("line {line}: {what}")]
    Mistake { line: usize, what: String },
    #[error("it has no stage `{wanted}`; there are: {known}")]
    NoStage { wanted: String, known: String },
    #[error("it has no `FROM`")]
    Empty,
}

/// Instructions that say nothing about how the image is run.
const PASSED_OVER: [&str; 5] = ["RUN", "COPY", "ADD", "ONBUILD", "MAINTAINER"];

/// Reads the last stage, or the one that is `wanted` by name or number; `arguments` are what `--build-arg` gives.
///
/// # Errors
/// See [`DockerfileError`].
pub fn read(text: &str, wanted: Option<&str>, arguments: &BTreeMap<String, String>) -> Result<Stage, DockerfileError> {
    let (instructions, escape) = lines::instructions(text);
    let mut reading = Reading::new(escape, arguments);
    for instruction in &instructions {
        step(&mut reading, instruction)?;
    }
    reading.end(wanted)
}

fn step(reading: &mut Reading<'_>, instruction: &Instruction) -> Result<(), DockerfileError> {
    let Instruction { line, keyword, rest } = instruction;
    let mistake = |what: &str| DockerfileError::Mistake { line: *line, what: what.to_owned() };
    if rest.is_empty() {
        return Err(mistake(&format!("`{keyword}` says nothing")));
    }
    match keyword.as_str() {
        "FROM" => return reading.from(*line, rest),
        "ARG" => {
            reading.argument(rest);
            return Ok(());
        }
        _ => {}
    }
    let is_known = PASSED_OVER.contains(&keyword.as_str()) || stage::KEYWORDS.contains(&keyword.as_str());
    if !is_known {
        return Err(DockerfileError::Keyword { line: *line, keyword: keyword.clone() });
    }
    if !reading.is_in_stage() {
        return Err(mistake("only `ARG` may stand before the first `FROM`"));
    }
    reading.instruction(*line, keyword, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(text: &str) -> Stage {
        read(text, None, &BTreeMap::new()).unwrap()
    }

    fn command(text: &str) -> Vec<String> {
        let config = stage(text).config;
        config.entrypoint.into_iter().flatten().chain(config.cmd.into_iter().flatten()).collect()
    }

    #[test]
    fn what_an_image_is_run_with() {
        let text = "FROM debian:12\nARG PORT=8080\nENV HOME=/srv/app PORT=$PORT \\\n  GREETING=\"good day\"\nENV OLD the old form\n\
                    WORKDIR $HOME\nWORKDIR web\nUSER app:app\nEXPOSE $PORT 53/udp 90-91\nVOLUME [\"/data\", \"/logs\"]\nVOLUME /a /b\n\
                    LABEL a=1 \"b c\"='d e'\nSTOPSIGNAL SIGQUIT\nENTRYPOINT [\"/usr/bin/app\", \"$PORT\"]\nCMD [\"-v\"]\n";
        let Stage { config, notes, base } = stage(text);
        assert_eq!(base.as_deref(), Some("debian:12"));
        assert!(notes.is_empty(), "{notes:?}");
        let env = ["HOME=/srv/app", "PORT=8080", "GREETING=good day", "OLD=the old form"];
        assert_eq!(config.env.unwrap(), env);
        assert_eq!(config.working_dir.as_deref(), Some("/srv/app/web"));
        assert_eq!(config.user.as_deref(), Some("app:app"));
        let ports: Vec<String> = config.exposed_ports.unwrap().into_keys().collect();
        assert_eq!(ports, ["53/udp", "8080/tcp", "90/tcp", "91/tcp"]);
        let volumes: Vec<String> = config.volumes.unwrap().into_keys().collect();
        assert_eq!(volumes, ["/a", "/b", "/data", "/logs"]);
        let labels = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b c".to_owned(), "d e".to_owned())]);
        assert_eq!(config.labels, Some(labels));
        assert_eq!(config.stop_signal.as_deref(), Some("SIGQUIT"));
        assert_eq!(config.entrypoint.unwrap(), ["/usr/bin/app", "$PORT"], "left to the program");
        assert_eq!(config.cmd.unwrap(), ["-v"]);
    }

    #[test]
    fn commands_have_two_forms() {
        let shell = |line: &str| ["/bin/sh", "-c", line].map(str::to_owned).to_vec();
        assert_eq!(command("FROM x\nCMD exec app \\\n  $HOME\n"), shell("exec app   $HOME"));
        assert_eq!(command("FROM x\nCMD ['app']\n"), shell("['app']"), "not JSON");
        assert_eq!(command("FROM x\nSHELL [\"/bin/bash\", \"-c\"]\nCMD app\n"), ["/bin/bash", "-c", "app"]);
        assert_eq!(command("FROM x\nCMD [\"a\"]\nENTRYPOINT app -f\n"), shell("app -f"), "a shell takes no CMD");
        assert_eq!(command("FROM x\nCMD [\"a\"]\nCMD [\"b\"]\nENTRYPOINT [\"e\"]\n"), ["e", "b"]);
    }

    #[test]
    fn health_checks() {
        let check = |text: &str| stage(&format!("FROM x\nHEALTHCHECK {text}\n")).config.healthcheck;
        let full = "--interval=1m30s --timeout=500ms --start-period=2h --retries=3 CMD [\"curl\", \"-f\"]";
        let full = check(full).unwrap();
        assert_eq!(full.test.unwrap(), ["CMD", "curl", "-f"]);
        assert_eq!((full.interval, full.timeout), (Some(90_000_000_000), Some(500_000_000)));
        assert_eq!((full.start_period, full.retries), (Some(7_200_000_000_000), Some(3)));
        assert_eq!(check("CMD curl $HOST || exit 1").unwrap().test.unwrap(), ["CMD-SHELL", "curl $HOST || exit 1"]);
        assert_eq!(check("NONE").unwrap().test.unwrap(), ["NONE"]);
    }

    #[test]
    fn stages_stand_on_each_other() {
        let text = "ARG VERSION=12\nFROM debian:$VERSION AS base\nENV A=1\nUSER app\nCMD [\"base\"]\n\
                    FROM golang AS build\nENV B=1\nCMD [\"build\"]\nFROM base\nENV C=$A$B\nENTRYPOINT [\"last\"]\n";
        let last = stage(text);
        assert_eq!(last.base.as_deref(), Some("debian:12"));
        assert_eq!(last.config.env.as_ref().unwrap(), &["A=1"], "B is none of this stage, and C not known");
        assert!(last.notes[0].contains("`C`") && last.notes[0].contains("`B`"), "{:?}", last.notes);
        assert_eq!(last.config.user.as_deref(), Some("app"));
        assert_eq!(command(text), ["last"], "an entrypoint of its own forgets the CMD from below");
        let shell = "FROM x AS base\nSHELL [\"/bin/bash\", \"-c\"]\nFROM base\nCMD app\n";
        assert_eq!(command(shell), ["/bin/bash", "-c", "app"]);
        let build = read(text, Some("build"), &BTreeMap::new()).unwrap();
        assert_eq!(build.config.cmd.unwrap(), ["build"]);
        assert_eq!(read(text, Some("0"), &BTreeMap::new()).unwrap().config.cmd.unwrap(), ["base"]);
        let error = read(text, Some("test"), &BTreeMap::new()).unwrap_err();
        assert_eq!(error, DockerfileError::NoStage { wanted: "test".to_owned(), known: "base, build, 2".to_owned() });
        let given = BTreeMap::from([("VERSION".to_owned(), "13".to_owned())]);
        assert_eq!(read(text, None, &given).unwrap().base.as_deref(), Some("debian:13"));
    }

    #[test]
    fn arguments_reach_the_stage_that_names_them() {
        let text = "ARG A=global\nFROM scratch\nENV BEFORE=x$A\nARG A\nENV AFTER=x$A\nARG B=own\nENV B=$B\n";
        let env = stage(text).config.env.unwrap();
        assert_eq!(env, ["BEFORE=x", "AFTER=xglobal", "B=own"]);
        let machine = stage("FROM x\nARG TARGETARCH\nENV A=$TARGETARCH\n");
        assert!(machine.config.env.is_none() && machine.notes[0].contains("`TARGETARCH`"), "{machine:?}");
        let path = stage("FROM x\nENV PATH=/opt/bin:$PATH\n").config.env.unwrap();
        assert_eq!(path, ["PATH=/opt/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]);
    }

    #[test]
    fn mistakes_have_a_line() {
        for (text, told) in [
            ("FROM x\n\nFRON y\n", "line 3: `FRON` is no instruction"),
            ("USER x\n", "line 1: only `ARG` may stand before"),
            ("FROM x\nUSER\n", "line 2: `USER` says nothing"),
            ("# nothing\n", "it has no `FROM`"),
            ("FROM x\nSHELL bash\n", "line 2: `SHELL` wants a list"),
            ("FROM x\nHEALTHCHECK --interval=soon CMD y\n", "line 2: `soon` is no time, as `30s`"),
            ("FROM x\nHEALTHCHECK curl y\n", "line 2: `HEALTHCHECK` wants `CMD`"),
            ("FROM x\nEXPOSE http\n", "line 2: `http` is no port"),
        ] {
            let error = read(text, None, &BTreeMap::new()).unwrap_err().to_string();
            assert!(error.starts_with(told), "{error}");
        }
    }
}
