//! From text to a profile, with errors that show the place.

use std::fmt;

use super::model::Profile;

/// A profile could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("{0}")]
    Mistake(Mistake),
    #[error("the profile `{file}` makes no sense: {fault}")]
    Nonsense { file: String, fault: String },
    #[error("the profile `{0}` extends itself")]
    Circle(String),
    #[error("failed to read the profile `{file}`")]
    Read { file: String, source: std::io::Error },
}

/// A mistake and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    pub file: String,
    /// From 1 on; 0 if the place is not known.
    pub line: usize,
    /// From 1 on.
    pub column: usize,
    pub what: String,
    /// The line itself.
    pub text: String,
}

/// How much of a line is shown: one may be megabytes long, as where something else was taken for a profile.
const SHOWN: usize = 160;

impl fmt::Display for Mistake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            return write!(formatter, "{}: {}", self.file, self.what);
        }
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        let is_long = self.text.chars().nth(SHOWN).is_some();
        let first = if is_long { self.column.saturating_sub(SHOWN / 2) } else { 0 };
        let shown = self.text.chars().skip(first).take(SHOWN);
        // Tabs stay, so that the caret stands below its character however wide a tab is.
        let before = shown.clone().take(self.column.saturating_sub(1 + first));
        let indent: String = before.map(|character| if character == '\t' { '\t' } else { ' ' }).collect();
        let text: String = shown.filter(|character| *character == '\t' || !character.is_control()).collect();
        write!(
            formatter,
            "{}:{}:{}: {}\n{margin} |\n{number} | {text}\n{margin} | {indent}^",
            self.file, self.line, self.column, self.what
        )
    }
}

/// How a profile's text is found: its name for messages, and the text. The second argument is the profile that names
/// it, if it is named by `extends`.
pub(super) type Read<'a> = &'a dyn Fn(&str, Option<&str>) -> Result<(String, String), std::io::Error>;

/// Loads the profile `name` and what it extends.
///
/// # Errors
/// A text cannot be read, or is not a profile.
pub fn load(name: &str, read: Read<'_>) -> Result<Profile, LoadError> {
    let mut chain: Vec<(String, Profile)> = Vec::new();
    let mut next = Some(name.to_owned());
    while let Some(name) = next {
        let from = chain.last().map(|(file, _)| file.as_str());
        let (file, text) = read(&name, from)
            .map_err(|source| LoadError::Read { file: crate::path::escape(name.as_bytes()), source })?;
        if chain.iter().any(|(known, _)| *known == file) {
            return Err(LoadError::Circle(file));
        }
        let profile = parse(&file, &text)?;
        let extends = profile.extends.clone();
        chain.push((file, profile));
        next = extends;
    }
    let file = chain[0].0.clone();
    let whole = chain.into_iter().map(|(_, profile)| profile).rev().reduce(|below, above| above.on(below));
    let mut whole = whole.expect("the chain has at least the profile that was asked for");
    whole.extends = None;
    if whole.workloads.is_empty() {
        return Err(LoadError::Nonsense { file, fault: "it has no workloads".to_owned() });
    }
    if let Some(check) = &whole.image.healthcheck {
        let (name, first) = &mut whole.workloads[0];
        if !first.is_server() {
            let fault = format!(
                "the image has a health check, and its first workload, `{name}`, is no server: it has no `ready`"
            );
            return Err(LoadError::Nonsense { file, fault });
        }
        first.check = Some(check.run.clone());
        first.check_timeout = check.timeout;
    }
    Ok(whole)
}

fn parse(file: &str, text: &str) -> Result<Profile, LoadError> {
    let profile: Profile =
        serde_yaml::from_str(text).map_err(|error| LoadError::Mistake(mistake(file, text, &error)))?;
    match profile.nonsense() {
        Some(fault) => Err(LoadError::Nonsense { file: file.to_owned(), fault }),
        None => Ok(profile),
    }
}

fn mistake(file: &str, text: &str, error: &serde_yaml::Error) -> Mistake {
    let place = error.location();
    let (line, column) = place.map_or((0, 0), |place| (place.line() as usize, place.column() as usize));
    let said = error.without_snippet().to_string();
    // The place is told in front.
    let what = said.split(" at line ").next().unwrap_or_default();
    let what = what.split(", set DuplicateKeyPolicy").next().unwrap_or_default();
    let what = what.strip_prefix("error: ").unwrap_or(what).trim_end_matches([':', ',', ' ']);
    let what = match what {
        "expected sequence start" => "a list is expected here, as `[one, other]`",
        "expected mapping start" => "names with values are expected here, as `name: value`",
        "invalid u64" | "invalid u32" => "a whole number is expected here",
        "invalid u16" => "a whole number is expected here, at most 65535",
        "invalid u8" => "a whole number is expected here, at most 255",
        "cannot deserialize null into string; use Option<String>" => {
            "a text is expected here; one with nothing in it is `''`"
        }
        what => what,
    };
    let text = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    Mistake { file: file.to_owned(), line, column, what: what.to_owned(), text: text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Command, Moment, Network};

    fn read_from(texts: &[(&str, &str)], name: &str) -> Result<Profile, LoadError> {
        let read = |name: &str, _from: Option<&str>| {
            let known = texts.iter().find(|(known, _)| *known == name);
            let (file, text) = known.ok_or(std::io::ErrorKind::NotFound)?;
            Ok(((*file).to_owned(), (*text).to_owned()))
        };
        load(name, &read)
    }

    fn told(text: &str) -> String {
        read_from(&[("app.yaml", text)], "app.yaml").unwrap_err().to_string()
    }

    #[test]
    fn a_whole_profile() {
        let text = "workloads:\n  serve:\n    run: [/usr/sbin/app, -f]\n    network: host\n    ready: {port: 80}\n  \
                    other:\n    run: echo hello | cat\n";
        let profile = read_from(&[("app.yaml", text)], "app.yaml").unwrap();
        let names: Vec<&str> = profile.workloads.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["serve", "other"], "in the order of the file");
        let serve = &profile.workloads[0].1;
        assert_eq!(serve.run, Command(vec!["/usr/sbin/app".to_owned(), "-f".to_owned()]));
        assert_eq!((serve.network, serve.timeout.0), (Network::Host, 60));
        assert_eq!(serve.ready.as_ref().unwrap().moment(), Moment::Port(80));
        assert_eq!(profile.workloads[1].1.run.0, ["/bin/sh", "-c", "echo hello | cat"]);
    }

    #[test]
    fn mistakes_show_their_place() {
        let cases = [
            ("workloads:\n  a:\n    run: x\n    rnu: y\n", "app.yaml:4:5: ", "rnu", "4 |     rnu: y\n  |     ^"),
            ("workloads:\n  a:\n    run: x\n    run: y\n", "app.yaml:4:5: ", "duplicate", "4 |     run: y\n  |     ^"),
            ("workloads:\n  a: {run: x}\n  a: {run: y}\n", "app.yaml:3:", "duplicate", "3 |   a: {run: y}"),
            ("workloads:\n  a:\n    cwd: /\n", "app.yaml:3:5: ", "run", "3 |     cwd: /\n  |     ^"),
            (
                "workloads:\n  a:\n    run: x\n    timeout: soon\n",
                "app.yaml:4:14: ",
                "",
                "timeout: soon\n  |              ^",
            ),
            ("workloads:\n  a:\n    run: x\n    timeout: 0\n", "app.yaml:4:14: ", "one second", "timeout: 0"),
            ("workloads:\n  a:\n    run: {}\n", "app.yaml:3:10: ", "list of arguments", "run: {}"),
            ("workloads:\n  a:\n    run: yes\n", "app.yaml:3:10: ", "quotes", "run: yes"),
            ("workloads: {a: {run: x, setup: y}}\n", "app.yaml:1:32: ", "a list", "setup: y"),
            ("workloads: {a: {run: x, timeout: -1}}\n", "app.yaml:1:34: ", "a whole number", "timeout: -1"),
            ("workloads: {a: {run: x, ready: {port: 65536}}}\n", "app.yaml:1:39: ", "at most 65535", "port: 65536"),
            ("workloads: {a: {run: x, expect: {status: 256}}}\n", "app.yaml:1:42: ", "at most 255", "status: 256"),
            ("workloads: {a: {run: x, env: {A: }}}\n", "app.yaml:1:", "a text is expected", "env: {A: }"),
            ("workloads: {a: {run: [x, ~]}}\n", "app.yaml:1:26: ", "a text is expected", "run: [x, ~]"),
            ("text\n", "app.yaml:1:1: ", "names with values", "text"),
            ("workloads: [\n", "app.yaml:", "", " | "),
        ];
        for (text, place, word, picture) in cases {
            let told = told(text);
            assert!(told.starts_with(place), "{place} begins:\n{told}");
            assert!(told.contains(word), "{word} is in:\n{told}");
            assert!(told.contains(picture), "{picture} is in:\n{told}");
        }
    }

    #[test]
    fn of_a_long_line_what_is_around_the_mistake_is_shown() {
        let long = "long".repeat(1_000_000);
        for text in
            [long.clone(), format!("description: {long}\n{long}: x"), format!("{{description: {long}, rnu: x}}")]
        {
            let told = told(&text);
            assert!(told.len() < 2000, "{} bytes are told", told.len());
            assert!(told.ends_with('^'), "{told}");
        }
        let far = told(&format!("{{packages: [{}], rnu: x}}", "one, ".repeat(100)));
        let [.., line, caret] = far.lines().collect::<Vec<_>>()[..] else { panic!("{far}") };
        assert!(line[caret.len() - 1..].starts_with("rnu"), "{far}");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (text, fault) in [
            ("workloads: {}\n", "no workloads"),
            ("workloads: {a: {run: x}}\nimage: {healthcheck: {run: check}}\n", "`a`, is no server"),
            ("workloads: {a: {run: x}}\nimage: {architecture: x86-64}\n", "`x86-64` is no name"),
            ("workloads: {a: {run: x, ready: {}}}\n", "exactly one"),
            ("workloads: {a: {run: x, ready: {port: 1, log: y}}}\n", "exactly one"),
            ("workloads: {a: {run: x, state: [var]}}\n", "absolute"),
            ("workloads: {a: {run: x, probes: [{command: z}]}}\n", "ready"),
            ("workloads: {a: {run: x, ready: {port: 1}, probes: [{}]}}\n", "exactly one"),
            ("workloads: {a: {run: x, stop: {signal: QUIT}}}\n", "no `ready`"),
            ("workloads: {a: {run: x, stop: {command: halt}}}\n", "no `ready`"),
            ("workloads: {a: {run: x, ready: {port: 0}}}\n", "0 is no port"),
            ("workloads: {a: {run: x, ready: {port: 1}, probes: [{tcp: {port: 0, contains: y}}]}}\n", "0 is no port"),
            ("workloads: {a: {run: x, ready: {http: {port: 1, status: 99}}}}\n", "99 is no status"),
            ("workloads: {a: {run: x, env: {A=B: c}}}\n", "`A=B` cannot be"),
            ("workloads: {a: {run: x}}\nimage: {env: {'': c}}\n", "`` cannot be"),
            ("workloads: {a: {run: x}}\nimage: {env: {A: \"b\\0\"}}\n", "`A` cannot be"),
            ("workloads: {a: {run: x}}\nimage: {workdir: srv}\n", "`srv` is not an absolute path"),
            ("workloads: {a: {run: x}}\nimage: {ports: [80, http]}\n", "`http` is no port"),
            ("workloads: {a: {run: x}}\nimage: {ports: [65536/tcp]}\n", "`65536/tcp` is no port"),
            ("workloads: {a: {run: x}}\nimage: {entrypoint: ['']}\n", "empty word"),
            (
                "workloads: {a: {run: x, ready: {port: 1}}}\nimage: {healthcheck: {run: check, retries: 0}}\n",
                "0 `retries`",
            ),
        ] {
            let told = told(text);
            assert!(told.contains(fault), "{fault} is in: {told}");
        }
    }

    #[test]
    fn a_profile_stands_on_another() {
        let base = "description: base\nworkloads:\n  a: {run: one}\n  b: {run: two}\nimage:\n  env: {X: '1', Y: '1'}\n";
        let top = "extends: base\nworkloads:\n  b: {run: other}\n  c: {run: three}\nimage:\n  env: {Y: '2'}\n";
        let profile = read_from(&[("base", base), ("top", top)], "top").unwrap();
        let runs: Vec<&str> = profile.workloads.iter().map(|(_, workload)| workload.run.0[2].as_str()).collect();
        assert_eq!(runs, ["one", "other", "three"]);
        assert_eq!(profile.description.as_deref(), Some("base"));
        let env: Vec<(&str, &str)> =
            profile.image.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(env, [("X", "1"), ("Y", "2")]);
    }

    #[test]
    fn a_circle_is_seen() {
        let error = read_from(&[("a", "extends: b\n"), ("b", "extends: a\n")], "a").unwrap_err();
        assert!(matches!(error, LoadError::Circle(_)), "{error}");
        assert!(matches!(read_from(&[], "a"), Err(LoadError::Read { .. })));
    }
}
