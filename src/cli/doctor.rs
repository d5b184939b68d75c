//! `minjail doctor`: what this machine allows, found out by trying, and what would allow the rest.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::Path;

use anstyle::{AnsiColor, Style};
use nix::sys::prctl::get_no_new_privs;
use nix::unistd::Uid;

use super::answer;
use super::exit::Exit;
use super::failure::Failure;
use super::lost_rights::may_keep_rights;
use super::status::{CAP_SETUID, has_capability};
use crate::jail::{self, Base, Jail, Network, User};
use crate::path::JailPath;

/// Say what this machine allows, and what would allow the rest
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

/// One thing that was tried.
struct Finding {
    what: &'static str,
    state: State,
    /// What was seen.
    seen: String,
    /// What would mend it.
    hint: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Works,
    /// Works, but not for everything.
    Limited,
    Fails,
}

pub(super) fn run(_: &Arguments) -> Result<Exit, Failure> {
    // The jail first: it wants a process without threads, and tracing starts one.
    let jail = jail();
    let findings = [kernel(), container(), tracing(), yama(), jail, ids()];
    let mut text = String::new();
    for finding in &findings {
        finding.tell(&mut text);
    }
    answer(&text)?;
    let fails = findings.iter().any(|finding| finding.state == State::Fails);
    Ok(if fails { Exit::No } else { Exit::Success })
}

impl Finding {
    fn works(what: &'static str, seen: impl Into<String>) -> Self {
        Self { what, state: State::Works, seen: seen.into(), hint: None }
    }

    fn tell(&self, text: &mut String) {
        let (word, style): (_, Style) = match self.state {
            State::Works => ("ok", AnsiColor::Green.on_default()),
            State::Limited => ("limited", AnsiColor::Yellow.on_default()),
            State::Fails => ("fails", AnsiColor::Red.on_default().bold()),
        };
        writeln!(text, "{style}{word:>8}{style:#}  {:<16} {}", self.what, self.seen).expect("a String takes all");
        if let Some(hint) = &self.hint {
            writeln!(text, "{:>27}{hint}", "hint: ").expect("a String takes all");
        }
    }
}

fn kernel() -> Finding {
    let Ok(name) = nix::sys::utsname::uname() else { return Finding::works("kernel", "unknown") };
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers =
        release.split(|character: char| !character.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let seen = format!("Linux {release} on {}", name.machine().to_string_lossy());
    // The newest that is needed: openat2 and pidfd_getfd (5.6), overlayfs in a user namespace (5.11).
    if version < (5, 11) {
        let hint = Some("minjail needs Linux 5.11 or newer".to_owned());
        return Finding { what: "kernel", state: State::Fails, seen, hint };
    }
    Finding::works("kernel", seen)
}

fn container() -> Finding {
    let marks =
        [("/.dockerenv", "docker"), ("/run/.containerenv", "podman"), ("/run/systemd/container", "systemd-nspawn")];
    let inside = marks.iter().find(|(mark, _)| Path::new(mark).exists());
    Finding::works("container", inside.map_or_else(|| "none".to_owned(), |(_, name)| format!("inside {name}")))
}

/// Traces a program that does nothing.
fn tracing() -> Finding {
    let command = minjail_tracer::Command {
        program: "/proc/self/exe".into(),
        arguments: ["minjail", "--version"].map(OsString::from).to_vec(),
        environment: Vec::new(),
        directory: None,
        credentials: None,
        leads_group: false,
        parent_death_signal: 0,
    };
    let mut touches = 0;
    let quiet = QuietOutput::start();
    let outcome = minjail_tracer::trace(&command, &minjail_tracer::Options::default(), &mut |_| {
        touches += 1;
        ControlFlow::Continue(())
    });
    drop(quiet);
    match outcome {
        Ok(_) => {
            let (rights, hint) = match (
                get_no_new_privs().unwrap_or(false),
                may_keep_rights(),
                Uid::effective().is_root(),
            ) {
                (true, ..) => {
                    ("under no_new_privs: setuid programs run without their rights, as they do without minjail", None)
                }
                (_, true, _) => ("setuid programs keep their rights", None),
                (_, false, true) => (
                    "root without CAP_SYS_ADMIN: setuid programs run without their rights",
                    Some(
                        "in a container, `--cap-add=SYS_ADMIN --cap-add=SYS_PTRACE` lets programs that change their user run as ever",
                    ),
                ),
                (_, false, false) => ("as an ordinary user: setuid programs run without their rights", None),
            };
            Finding {
                what: "ptrace, seccomp",
                state: if hint.is_none() { State::Works } else { State::Limited },
                seen: format!("{touches} events of one short run; {rights}"),
                hint: hint.map(str::to_owned),
            }
        }
        Err(error) => {
            let failure = Failure::from(error);
            Finding { what: "ptrace, seccomp", state: State::Fails, seen: failure.text(), hint: failure.first_hint() }
        }
    }
}

/// Standard output goes nowhere while this lives.
struct QuietOutput(Option<std::os::fd::OwnedFd>);

impl QuietOutput {
    fn start() -> Self {
        use std::os::fd::AsFd;
        let saved = std::io::stdout().as_fd().try_clone_to_owned().ok();
        if let Ok(nothing) = fs_err::OpenOptions::new().write(true).open("/dev/null") {
            // Without it the version is printed: no harm.
            let _ = nix::unistd::dup2_stdout(&nothing);
        }
        Self(saved)
    }
}

impl Drop for QuietOutput {
    fn drop(&mut self) {
        if let Some(saved) = &self.0 {
            let _ = nix::unistd::dup2_stdout(saved);
        }
    }
}

/// `Documentation/admin-guide/LSM/Yama.rst`.
fn yama() -> Finding {
    let scope = fs_err::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    match scope.trim() {
        "" => Finding::works("yama", "not in this kernel"),
        "3" => Finding {
            what: "yama",
            state: State::Fails,
            seen: "ptrace_scope is 3: nobody may trace, until the next boot".to_owned(),
            hint: Some("boot with kernel.yama.ptrace_scope at 0, 1 or 2".to_owned()),
        },
        "2" if !Uid::effective().is_root() => Finding {
            what: "yama",
            state: State::Fails,
            seen: "ptrace_scope is 2: only root may trace".to_owned(),
            hint: Some("`sysctl kernel.yama.ptrace_scope=1`, or run minjail as root".to_owned()),
        },
        scope => Finding::works("yama", format!("ptrace_scope is {scope}: one's own children may be traced")),
    }
}

/// What to do where the kernel does not say which right is lacking.
const CONFINED: &str = "a jail needs /proc, namespaces, their maps of ids and mounts: in a container, `--privileged`; `minjail trace`, \
                        and `minjail build` from saved traces, do without";

/// Builds a jail and leaves it at once.
fn jail() -> Finding {
    let what = "jail";
    let tree = match tempfile::tempdir() {
        Ok(tree) => tree,
        Err(error) => {
            let hint = Some("see to it that the temporary directory, or TMPDIR, can be written".to_owned());
            return Finding { what, state: State::Fails, seen: error.to_string(), hint };
        }
    };
    let jail = Jail {
        base: Base { tree: tree.path().to_path_buf(), ..Base::default() },
        cwd: JailPath::root(),
        user: User::default(),
        network: Network::Private,
        hostname: "minjail".to_owned(),
    };
    match jail::enter(&jail, |_| 0) {
        Ok(_) if !jail::replaces_directories() => Finding {
            what,
            state: State::Limited,
            seen: "works, but a program cannot remove a directory of the image with what is in it, nor make one again, nor rename one that it \
                   has made there"
                .to_owned(),
            hint: Some("Linux 6.6 or newer has that; before, such a program gets EIO, or EXDEV".to_owned()),
        },
        Ok(_) => Finding::works(what, "namespaces, overlay, mounts and pivot_root work"),
        Err(error) => {
            let failure = Failure::from(error);
            Finding {
                what,
                state: State::Fails,
                seen: failure.text(),
                hint: failure.first_hint().or(Some(CONFINED.to_owned())),
            }
        }
    }
}

/// Whether a jail can have more than one user.
fn ids() -> Finding {
    let what = "users in a jail";
    let own = mapped_ids();
    if Uid::effective().is_root() && own > 1 && has_capability(CAP_SETUID) {
        let seen = if own == u64::from(u32::MAX) {
            "all: minjail runs as root".to_owned()
        } else {
            format!("{own}: minjail runs as root of a user namespace that has so many")
        };
        return Finding::works(what, seen);
    }
    let found = ["newuidmap", "newgidmap"].iter().all(|name| super::locate::locate(name.as_ref(), None, None).is_ok());
    let user = nix::unistd::User::from_uid(Uid::effective()).ok().flatten();
    let has_range = |file: &str| {
        let text = fs_err::read_to_string(file).unwrap_or_default();
        let names = [user.as_ref().map(|user| user.name.clone()), Some(Uid::effective().to_string())];
        text.lines().any(|line| names.iter().flatten().any(|name| line.split(':').next() == Some(name)))
    };
    let is_bound = get_no_new_privs().unwrap_or(false);
    if found && !is_bound && own == u64::from(u32::MAX) && has_range("/etc/subuid") && has_range("/etc/subgid") {
        return Finding::works(what, "a range of them, by newuidmap");
    }
    let hint = if own == 0 {
        "see to it that /proc is mounted, and that this user namespace has ids"
    } else if Uid::effective().is_root() && !has_capability(CAP_SETUID) {
        "minjail runs as root without CAP_SETUID: in a container, `--cap-add=SETUID --cap-add=SETGID`"
    } else if is_bound {
        "newuidmap gives users only to who runs without no_new_privs"
    } else if own < u64::from(u32::MAX) {
        "run minjail outside this user namespace, or give it more ids"
    } else {
        "install newuidmap (Debian: uidmap), and have a range in /etc/subuid and /etc/subgid"
    };
    Finding { what, state: State::Limited, seen: "one: the program's own".to_owned(), hint: Some(hint.to_owned()) }
}

/// How many user ids there are here (`user_namespaces(7)`, `/proc/self/uid_map`): outside of any namespace all but the last.
fn mapped_ids() -> u64 {
    let map = fs_err::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.lines().filter_map(|line| line.split_ascii_whitespace().nth(2)?.parse::<u64>().ok()).sum()
}
