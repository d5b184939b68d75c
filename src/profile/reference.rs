//! The JSON Schema and the reference page, from one table.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::files::{Accounts, Listing, StatOnly};
use super::rules::{Rule, Switch};

/// One key of a profile.
struct Field {
    /// The mapping that it belongs to: a name of [`SECTIONS`].
    section: &'static str,
    key: &'static str,
    form: Form,
    required: bool,
    says: &'static str,
}

/// What a key takes.
#[derive(Clone, Copy)]
enum Form {
    Text,
    Texts,
    TextMap,
    Integer {
        least: u64,
        most: u64,
    },
    Command,
    Commands,
    Signal,
    OneOf(&'static [&'static str]),
    /// Which of these are on, and which are off.
    Switches(&'static [&'static str]),
    Section(&'static str),
    SectionList(&'static str),
    SectionMap(&'static str),
}

/// The mappings of a profile: name, and what it is for.
const SECTIONS: &[(&str, &str)] = &[
    ("profile", "The file itself."),
    ("workload", "One representative run. The first one of the file says how the image is run."),
    ("expect", "How a workload is to end, and what it is to write."),
    ("check", "What a text must be like; all that is given must hold."),
    ("ready", "When a server is ready: exactly one of these. A workload with `ready` runs until it is stopped."),
    ("probe", "A question to a ready server: exactly one of `http`, `tcp` and `command`. Asked outside the trace."),
    ("http", "An HTTP request to 127.0.0.1, or else to ::1, and what is expected of the answer."),
    ("tcp", "Text sent to a TCP port of 127.0.0.1, or else of ::1, and what must come back."),
    ("stop", "How a server is stopped."),
    ("files", "What the image gets where a trace leaves a choice. A flag of the command line counts before it."),
    (
        "healthcheck",
        "How an engine learns whether a container is well; where a time is left out, the engine has its own. Docker's engine heeds it, and podman in an image of docker's form.",
    ),
    ("image", "How the image is described. What is left out is taken from the first workload and from the trace."),
];

const PORT: Form = Form::Integer { least: 1, most: 65535 };
const SECONDS: Form = Form::Integer { least: 1, most: u64::MAX };

const fn may(section: &'static str, key: &'static str, form: Form, says: &'static str) -> Field {
    Field { section, key, form, required: false, says }
}

const fn must(section: &'static str, key: &'static str, form: Form, says: &'static str) -> Field {
    Field { section, key, form, required: true, says }
}

const FIELDS: &[Field] = &[
    may(
        "profile",
        "extends",
        Form::Text,
        "A profile on which this one stands: the name of a shipped one, or a path, seen from this file. A workload replaces the one of the same name; other keys add to, or override, those below.",
    ),
    may("profile", "description", Form::Text, "One line for `minjail profile list`."),
    may("profile", "packages", Form::Texts, "The Debian packages that must be installed; for people."),
    may("profile", "workloads", Form::SectionMap("workload"), "The workloads by name."),
    may("profile", "files", Form::Section("files"), "What the image gets where a trace leaves a choice."),
    may("profile", "image", Form::Section("image"), "How the image is described."),
    must("workload", "run", Form::Command, "What is run."),
    may(
        "workload",
        "env",
        Form::TextMap,
        "Its environment. Only `PATH` has a value by itself: nothing of the caller's environment gets in.",
    ),
    may("workload", "cwd", Form::Text, "Its working directory; else `/`."),
    may(
        "workload",
        "user",
        Form::Text,
        "Its user, `USER[:GROUP]` by name or number; else who runs minjail. Only root may name another one.",
    ),
    may("workload", "stdin", Form::Text, "Its standard input; else empty."),
    may(
        "workload",
        "timeout",
        SECONDS,
        "Seconds until it must have ended, or be ready and have answered every probe; else 60. A command of setup or \
         teardown has as long again.",
    ),
    may(
        "workload",
        "network",
        Form::OneOf(&["private", "host"]),
        "`private`, the default: a loopback interface of its own (while it is traced, only if minjail runs as root with `CAP_SYS_ADMIN` and `CAP_NET_ADMIN`). `host`: the host's network.",
    ),
    may("workload", "expect", Form::Section("expect"), "How it is to end."),
    may("workload", "ready", Form::Section("ready"), "When it is ready, if it is a server."),
    may("workload", "probes", Form::SectionList("probe"), "What it is asked once it is ready."),
    may("workload", "stop", Form::Section("stop"), "How it is stopped once every probe was answered."),
    may(
        "workload",
        "grace",
        SECONDS,
        "Seconds from the stop until it is killed, which counts as a failure; also for processes that outlive the first one; else 10.",
    ),
    may(
        "workload",
        "setup",
        Form::Commands,
        "Commands on the host before each run, outside the trace, also before the one in the jail. One that fails ends the build. What \
         they write and the traced run uses is kept as it finds it: so it is in the image, whatever later commands make of it. Who \
         writes something else each time gets what was written the first time; two workloads must find the same.",
    ),
    may(
        "workload",
        "teardown",
        Form::Commands,
        "Commands on the host after each run, whatever came of it, and after a setup that failed. Each is run, also if another fails.",
    ),
    may(
        "workload",
        "state",
        Form::Texts,
        "Existing directories that are empty at the start of each run, so that the first start is traced and proved; what the host has there is not touched. Tracing such a workload needs root.",
    ),
    may(
        "expect",
        "status",
        Form::Integer { least: 0, most: 255 },
        "The exit status; else 0 for a program that ends by itself, and any for a server that was stopped.",
    ),
    may("expect", "stdout", Form::Section("check"), "What standard output must be like."),
    may("check", "equals", Form::Text, "The text is exactly this."),
    may("check", "contains", Form::Text, "The text has this in it."),
    may(
        "check",
        "matches",
        Form::Text,
        "The text has in it what this [regular expression](https://docs.rs/regex/latest/regex/#syntax) matches; `^` and `$` are its ends, or, after `(?m)`, those of a line.",
    ),
    may("ready", "port", PORT, "It listens at this TCP port. The tracer sees it; nothing is polled."),
    may("ready", "socket", Form::Text, "It has bound and accepts connections at this unix socket."),
    may(
        "ready",
        "file",
        Form::Text,
        "There is a file at this path that was not there before, or has been changed since.",
    ),
    may("ready", "log", Form::Text, "It has written this to standard output or standard error."),
    may("ready", "http", Form::Section("http"), "It answers this request as expected."),
    may(
        "ready",
        "command",
        Form::Command,
        "This command, run on the host in the workload's network, ends with status 0.",
    ),
    may(
        "ready",
        "check",
        Form::Command,
        "This command, run where the workload is and traced with it, ends with status 0: a health check, which the image shall be able to run.",
    ),
    may(
        "ready",
        "idle",
        SECONDS,
        "It listens at a port or a unix socket, and has touched no file for so many seconds. Or it ends by itself, and is no server, if there are no probes.",
    ),
    may(
        "ready",
        "after",
        SECONDS,
        "So many seconds have passed since its start; it may end by itself before, if there are no probes.",
    ),
    may("probe", "http", Form::Section("http"), "An HTTP request."),
    may("probe", "tcp", Form::Section("tcp"), "Text over TCP."),
    may("probe", "command", Form::Command, "A command of the host, run in the workload's network."),
    may("probe", "status", Form::Integer { least: 0, most: 255 }, "The command's exit status; else 0."),
    may("probe", "stdout", Form::Section("check"), "What the command's standard output must be like."),
    must("http", "port", PORT, "The port."),
    may("http", "method", Form::Text, "The method; else `GET`."),
    may("http", "path", Form::Text, "Path and query; else `/`."),
    may("http", "headers", Form::TextMap, "Further headers."),
    may("http", "body", Form::Text, "The request's body."),
    may("http", "status", Form::Integer { least: 100, most: 599 }, "The answer's status; else 200."),
    may("http", "text", Form::Section("check"), "What the answer's body must be like."),
    must("tcp", "port", PORT, "The port."),
    may("tcp", "send", Form::Text, "What is sent."),
    must("tcp", "contains", Form::Text, "What must come back."),
    may("stop", "signal", Form::Signal, "The signal that stops it; else `TERM`."),
    may(
        "stop",
        "command",
        Form::Command,
        "A command of the host, run in the workload's network, that makes it stop; no signal is sent then.",
    ),
    may(
        "files",
        "stat-only",
        Form::OneOf(&StatOnly::WORDS),
        "Files that were looked at and never opened: whole, the default; with zeros for content; or not at all.",
    ),
    may(
        "files",
        "listing",
        Form::OneOf(&Listing::WORDS),
        "A directory that was listed: its names, the default; every file in it; or only what was opened.",
    ),
    may(
        "files",
        "accounts",
        Form::OneOf(&Accounts::WORDS),
        "Which accounts of the host the image knows: those of the system and those used, the default; only those used; or all.",
    ),
    may(
        "files",
        "include",
        Form::Texts,
        "More files, with what they need: a path with all below it, a glob, or `deb:PACKAGE`.",
    ),
    may("files", "exclude", Form::Texts, "Fewer files, spelled as for `include`, whatever the workloads do with them."),
    may("files", "allow-secrets", Form::Texts, "What is packed although it looks like a secret: paths, or `env:NAME`."),
    may(
        "files",
        "rules",
        Form::Switches(&Rule::WORDS),
        "Rules that are switched on or off, each by its name ([rules.md](rules.md)).",
    ),
    may(
        "files",
        "mtime",
        Form::OneOf(&["fixed", "clamp", "packaged", "files", "keep"]),
        "Which times files get; else `packaged`: those of packages keep theirs.",
    ),
    may(
        "files",
        "layers",
        Form::OneOf(&["one", "packages"]),
        "Into which layers files go; else `one`. `packages`: one for each large package of the distribution.",
    ),
    may("image", "entrypoint", Form::Texts, "The entrypoint; else the first workload's program."),
    may("image", "cmd", Form::Texts, "The arguments; else the first workload's, or none if the entrypoint is given."),
    may(
        "image",
        "env",
        Form::TextMap,
        "Variables added to the first workload's. What looks like a secret is told of, unless `allow-secrets` names it: everybody who has the image can read it.",
    ),
    may("image", "workdir", Form::Text, "The working directory; else the first workload's."),
    may("image", "user", Form::Text, "The user, `UID[:GID]` or a name; else the first workload's."),
    may("image", "volumes", Form::Texts, "Directories whose content is the container's, not the image's."),
    may(
        "image",
        "stop-signal",
        Form::Signal,
        "The signal by which engines stop the program; else that by which the first workload is stopped, if it is a server.",
    ),
    may("image", "ports", Form::Texts, "Ports added to those at which the workloads listened, as `80/tcp`."),
    may("image", "labels", Form::TextMap, "Labels. What looks like a secret is told of."),
    may(
        "image",
        "healthcheck",
        Form::Section("healthcheck"),
        "The health check. It is run beside the first workload, once that is ready, traced as that is, and must succeed, in the jail too.",
    ),
    may(
        "image",
        "architecture",
        Form::Text,
        "The architecture, as `amd64`, `arm64` or `386`; else that of the machine that was traced on, or that the program is for if an emulator ran it.",
    ),
    must("healthcheck", "run", Form::Command, "What is run in the container; status 0 says that it is well."),
    may("healthcheck", "interval", SECONDS, "Seconds from one check to the next."),
    may("healthcheck", "timeout", SECONDS, "Seconds that a check may take."),
    may("healthcheck", "start-period", SECONDS, "Seconds from the start in which a failure does not count."),
    may(
        "healthcheck",
        "retries",
        Form::Integer { least: 1, most: u32::MAX as u64 },
        "So many failures in a row make it unwell.",
    ),
];

/// The JSON Schema of profiles, for editors.
pub fn schema() -> Value {
    let mut definitions = Map::new();
    for (section, says) in SECTIONS {
        definitions.insert((*section).to_owned(), section_schema(section, says));
    }
    let mut schema = definitions.remove("profile").expect("the table has the file itself");
    let object = schema.as_object_mut().expect("a section is an object");
    object.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    object.insert("title".to_owned(), json!("minjail profile"));
    object.insert("$defs".to_owned(), Value::Object(definitions));
    schema
}

fn fields(section: &str) -> impl Iterator<Item = &'static Field> {
    FIELDS.iter().filter(move |field| field.section == section)
}

fn section_schema(section: &str, says: &str) -> Value {
    let mut properties = Map::new();
    for field in fields(section) {
        let mut form = form_schema(field.form);
        form["description"] = json!(field.says);
        properties.insert(field.key.to_owned(), form);
    }
    let required: Vec<&str> = fields(section).filter(|field| field.required).map(|field| field.key).collect();
    json!({
        "type": "object", "description": says, "properties": properties, "required": required,
        "additionalProperties": false,
    })
}

fn form_schema(form: Form) -> Value {
    let section = |name: &str| json!({ "$ref": format!("#/$defs/{name}") });
    let texts = json!({ "type": "array", "items": { "type": "string" } });
    let command = json!({ "oneOf": [
        { "type": "string", "minLength": 1 },
        { "type": "array", "items": { "type": "string" }, "minItems": 1 },
    ] });
    match form {
        Form::Text => json!({ "type": "string" }),
        Form::Texts => texts,
        Form::TextMap => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        Form::Integer { least, most: u64::MAX } => json!({ "type": "integer", "minimum": least }),
        Form::Integer { least, most } => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Form::Command => command,
        Form::Commands => json!({ "type": "array", "items": command }),
        Form::Signal => json!({ "type": ["string", "integer"] }),
        Form::OneOf(words) => json!({ "enum": words }),
        Form::Switches(names) => {
            // What `on` is in YAML depends on its version.
            let switch = json!({ "enum": [Switch::WORDS[0], Switch::WORDS[1], true, false] });
            let properties: Map<String, Value> =
                names.iter().map(|name| ((*name).to_owned(), switch.clone())).collect();
            json!({ "type": "object", "properties": properties, "additionalProperties": false })
        }
        Form::Section(name) => section(name),
        Form::SectionList(name) => json!({ "type": "array", "items": section(name) }),
        Form::SectionMap(name) => json!({ "type": "object", "additionalProperties": section(name) }),
    }
}

/// `docs/profile.md`.
pub fn page() -> String {
    let mut page = String::from(INTRODUCTION);
    for (section, says) in SECTIONS {
        let _ = write!(page, "\n## {section}\n\n{says}\n\n| key | takes | |\n|---|---|---|\n");
        for field in fields(section) {
            let required = if field.required { " (required)" } else { "" };
            let _ = writeln!(page, "| `{}`{required} | {} | {} |", field.key, form_words(field.form), field.says);
        }
    }
    page
}

const INTRODUCTION: &str = include_str!("introduction.md");

fn form_words(form: Form) -> String {
    match form {
        Form::Text => "text".to_owned(),
        Form::Texts => "a list of texts".to_owned(),
        Form::TextMap => "texts by name".to_owned(),
        Form::Integer { least, most: u64::MAX } => format!("a number from {least} on"),
        Form::Integer { least, most } => format!("a number from {least} to {most}"),
        Form::Command => "a list of arguments, or a line for `/bin/sh -c`".to_owned(),
        Form::Commands => "a list of commands".to_owned(),
        Form::Signal => "a signal's name or number: `QUIT`, `RTMIN+3`, `37`".to_owned(),
        Form::OneOf(words) => format!("`{}`", words.join("`, `")),
        Form::Switches(names) => format!("`on` or `off` by name: `{}`", names.join("`, `")),
        Form::Section(name) => format!("[{name}](#{name})"),
        Form::SectionList(name) => format!("a list of [{name}](#{name})"),
        Form::SectionMap(name) => format!("[{name}](#{name})s by name"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::profile::model;

    /// The keys that the model takes, as its refusal of another one lists them.
    fn taken<T: for<'de> serde::Deserialize<'de> + std::fmt::Debug>() -> BTreeSet<String> {
        let error = serde_json::from_str::<T>("{\"no-such-key\": 1}").unwrap_err().to_string();
        let list = error.split_once("expected").unwrap().1;
        list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    #[test]
    fn the_table_has_every_key_of_the_model() {
        let model = [
            ("profile", taken::<model::Profile>()),
            ("workload", taken::<model::Workload>()),
            ("expect", taken::<model::Expect>()),
            ("check", taken::<model::Check>()),
            ("ready", taken::<crate::profile::Ready>()),
            ("probe", taken::<model::Probe>()),
            ("http", taken::<model::Http>()),
            ("tcp", taken::<model::Tcp>()),
            ("stop", taken::<model::Stop>()),
            ("files", taken::<crate::profile::Files>()),
            ("image", taken::<crate::profile::Image>()),
            ("healthcheck", taken::<crate::profile::HealthCheck>()),
        ];
        assert_eq!(model.len(), SECTIONS.len());
        for (section, keys) in model {
            let table: BTreeSet<String> = fields(section).map(|field| field.key.to_owned()).collect();
            assert_eq!(table, keys, "{section}");
        }
    }

    #[test]
    fn the_page_is_the_one_in_docs() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/profile.md");
        assert!(
            fs_err::read_to_string(path).unwrap() == page(),
            "write it anew: minjail profile reference > docs/profile.md"
        );
    }

    #[test]
    fn every_section_that_is_named_is_there() {
        let text = schema().to_string();
        for name in text.split("#/$defs/").skip(1).map(|rest| rest.split('"').next().unwrap()) {
            assert!(SECTIONS.iter().any(|(section, _)| *section == name), "{name}");
        }
    }

    #[test]
    fn shipped_profiles_are_profiles() {
        for shipped in crate::profile::SHIPPED {
            let read = |name: &str, _: Option<&str>| Ok((name.to_owned(), shipped.text.to_owned()));
            let profile = crate::profile::load(shipped.name, &read).unwrap_or_else(|error| panic!("{error}"));
            assert!(profile.description.is_some(), "{} says what it is", shipped.name);
        }
    }
}
