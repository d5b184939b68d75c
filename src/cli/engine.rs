//! `--verify-with`: the workloads once more, run by a container engine.
//!
//! In: an image, as a file that engines read or as a directory, and the workloads. Out: verdicts. The image and its containers
//! are taken away again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::Uid;

use super::exit::Exit;
use super::failure::Failure;
use super::prove::Verdict;
use super::rehearse::Rehearsal;
use super::status::may_leave_network;
use super::stoppable::stoppable;
use crate::image::Output;
use crate::jail;
use crate::profile::{Moment, Network};
use crate::workload::{Engine, SIGNAL};

/// Something besides minjail that runs images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(super) enum Tool {
    Podman,
    Docker,
    Runc,
    Bwrap,
}

/// An image that was handed to a tool.
pub(super) struct Loaded {
    tool: Tool,
    /// What the tool calls it; for those that have no images, the directory.
    name: String,
    /// What makes the tool's store again what it was; nothing where there is none.
    forget: Vec<Vec<String>>,
}

impl Tool {
    fn program(self) -> &'static str {
        match self {
            Self::Podman => "podman",
            Self::Docker => "docker",
            Self::Runc => "runc",
            Self::Bwrap => "bwrap",
        }
    }

    /// True if it reads images; the others run directories.
    pub(super) fn has_images(self) -> bool {
        matches!(self, Self::Podman | Self::Docker)
    }

    /// Refuses before anything is run what cannot come to anything.
    pub(super) fn check(self, rehearsals: &[Rehearsal<'_>]) -> Result<(), Failure> {
        let program = self.program();
        match command(program).arg("--version").output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => return Err(failed(&format!("{program} --version"), &output)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Failure::usage(format!("`{program}` is not installed"))
                    .exit(Exit::NotFound)
                    .hint("install it, or leave `--verify-with` out: the jail's proof needs nothing"));
            }
            Err(error) => return Err(Failure::new(error)),
        }
        if self == Self::Bwrap && rehearsals.iter().any(|rehearsal| rehearsal.workload.check.is_some()) {
            return Err(Failure::usage(
                "bubblewrap runs nothing beside a program, and there is a health check to be run",
            )
            .hint("verify with podman, docker or runc"));
        }
        for rehearsal in rehearsals {
            let by = match rehearsal.workload.ready.as_ref().map(crate::profile::Ready::moment) {
                Some(Moment::Socket(_)) => "socket",
                Some(Moment::File(_)) => "file",
                Some(Moment::Check(_)) if self == Self::Bwrap => "check",
                Some(Moment::Idle(_)) => "idle",
                _ => continue,
            };
            let name = &rehearsal.header.workload;
            let text = format!(
                "whether the workload `{name}` is ready, its `{by}` says, which is inside of {program}'s container"
            );
            return Err(
                Failure::usage(text).hint("say when it is ready by `port`, `http`, `log`, `command` or `after`")
            );
        }
        Ok(())
    }

    /// Hands it an image that is spelled `FORM:PLACE`, until a signal asks for an end; `place` is an empty directory.
    pub(super) fn load(self, image: &str, place: &Path) -> Result<Loaded, Failure> {
        stoppable(|_| self.loaded(image, place))
    }

    fn loaded(self, image: &str, place: &Path) -> Result<Loaded, Failure> {
        let program = self.program();
        let file = image.strip_prefix("docker-archive:").map(|rest| rest.split(':').next().unwrap_or(rest));
        let arguments = match (self, file) {
            (Self::Podman, _) => vec!["pull", "--quiet", image],
            (_, Some(file)) => vec!["load", "--quiet", "--input", file],
            (_, None) => {
                return Err(Failure::usage(format!("`{program}` does not read `{image}`"))
                    .hint("it reads `docker-archive:FILE`: `minjail unpack` writes that"));
            }
        };
        let before = self.store()?;
        let mut command = command(program);
        if let (Self::Podman, Ok(Output::Oci { directory, tag })) = (self, Output::parse(image.as_ref())) {
            // podman names an image after its directory, and refuses names with capitals.
            let directory = std::path::absolute(directory).map_err(Failure::new)?;
            fs_err::os::unix::fs::symlink(directory, place.join("image")).map_err(Failure::new)?;
            let tag = tag.map(|tag| format!(":{tag}")).unwrap_or_default();
            command.current_dir(place).args(["pull", "--quiet", &format!("oci:image{tag}")]);
        } else {
            command.args(&arguments);
        }
        let output = command.output().map_err(Failure::new)?;
        if !output.status.success() {
            return Err(failed(&format!("{program} {}", arguments.join(" ")), &output));
        }
        let said = String::from_utf8_lossy(&output.stdout);
        let names: Vec<&str> = said.trim().lines().map(|line| line.rsplit(": ").next().unwrap_or(line)).collect();
        let after = self.store()?;
        let forget = names.iter().flat_map(|name| before.restore(&after, name));
        let forget =
            forget.map(|words| [&[program], &words[..]].concat().into_iter().map(str::to_owned).collect()).collect();
        let loaded = Loaded { tool: self, name: (*names.last().unwrap_or(&"")).to_owned(), forget };
        // docker takes all that there are, and cannot be told which is meant.
        if names.iter().map(|name| after.id(name)).collect::<BTreeSet<_>>().len() > 1 {
            return Err(Failure::usage(format!(
                "`{program}` reads all images of `{image}`, and one is to be verified"
            ))
            .hint("`minjail unpack` writes one of them into an archive of its own"));
        }
        Ok(loaded)
    }

    /// What the tool has.
    fn store(self) -> Result<Store, Failure> {
        let program = self.program();
        let arguments = ["images", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}"];
        let output = command(program).args(arguments).output().map_err(Failure::new)?;
        if output.status.success() {
            Ok(Store::read(&String::from_utf8_lossy(&output.stdout)))
        } else {
            Err(failed(&format!("{program} images"), &output))
        }
    }

    /// A tool that runs the directory `tree`, which it may change.
    pub(super) fn of_tree(self, tree: &Path) -> Loaded {
        Loaded { tool: self, name: tree.display().to_string(), forget: Vec::new() }
    }
}

impl Loaded {
    /// Runs the workloads; `scratch` is for what the tool keeps meanwhile.
    pub(super) fn verdicts(&self, rehearsals: &[Rehearsal<'_>], scratch: &Path) -> Result<Vec<Verdict>, Failure> {
        let verdicts = rehearsals.iter().enumerate().map(|(index, rehearsal)| {
            let id = format!("minjail-{}-{index}", std::process::id());
            let place = scratch.join(&id);
            fs_err::create_dir(&place).map_err(Failure::new)?;
            let private =
                rehearsal.workload.network == Network::Private && may_leave_network() && self.tool != Tool::Docker;
            let engine = self.engine(rehearsal, &id, &place)?;
            let observation = rehearsal.in_engine(engine, private);
            self.clear(&id, &place);
            Ok(Verdict::of_engine(&rehearsal.header.workload, self.tool.program(), &observation?))
        });
        verdicts.collect()
    }

    /// Takes away what an interrupted run may have left of a container.
    fn clear(&self, id: &str, place: &Path) {
        let state = place.join("state").display().to_string();
        let arguments = match self.tool {
            Tool::Podman | Tool::Docker => vec!["rm", "--force", id],
            Tool::Runc => vec!["--root", &state, "delete", "--force", id],
            Tool::Bwrap => return,
        };
        // It is gone already if all went well.
        let _ = command(self.tool.program()).args(arguments).output();
    }

    fn engine(&self, rehearsal: &Rehearsal<'_>, id: &str, place: &Path) -> Result<Engine, Failure> {
        let program = self.tool.program();
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<String>>();
        match self.tool {
            Tool::Podman | Tool::Docker => Ok(Engine {
                command: self.run_command(rehearsal, id),
                kill: words(&[program, "kill", "--signal", SIGNAL, id]),
                exec: words(&[program, "exec", id]),
            }),
            Tool::Runc => {
                let bundle = self.bundle(rehearsal, place)?;
                let state = place.join("state").display().to_string();
                let command = words(&[program, "--root", &state, "run", "--bundle", &bundle, id]);
                let kill = words(&[program, "--root", &state, "kill", id, SIGNAL]);
                Ok(Engine { command, kill, exec: words(&[program, "--root", &state, "exec", id]) })
            }
            Tool::Bwrap => {
                let tree = self.copy(place)?;
                Ok(Engine { command: bwrap(rehearsal, &tree)?, kill: Vec::new(), exec: Vec::new() })
            }
        }
    }

    /// `podman run`, and `docker run`, which takes the same.
    fn run_command(&self, rehearsal: &Rehearsal<'_>, id: &str) -> Vec<String> {
        let header = &rehearsal.header;
        let mut words: Vec<String> =
            [self.tool.program(), "run", "--rm", "--interactive", "--pull=never", "--network=host"]
                .map(str::to_owned)
                .to_vec();
        let options = [
            ("--name", id.to_owned()),
            ("--user", format!("{}:{}", header.uid, header.gid)),
            ("--workdir", header.directory.to_string()),
            ("--entrypoint", header.program.to_string()),
        ];
        words.extend(options.into_iter().flat_map(|(option, value)| [option.to_owned(), value]));
        for group in header.groups.iter().filter(|group| **group != header.gid) {
            words.extend(["--group-add".to_owned(), group.to_string()]);
        }
        for (name, value) in rehearsal.environment() {
            words.extend(["--env".to_owned(), format!("{name}={value}")]);
        }
        words.push(self.name.clone());
        words.extend(rehearsal.workload.run.0.iter().skip(1).cloned());
        words
    }

    /// A copy of the tree, so that one workload does not find what another has left.
    fn copy(&self, place: &Path) -> Result<PathBuf, Failure> {
        let copy = place.join("rootfs");
        let output = command("cp").arg("-a").arg(&self.name).arg(&copy).output().map_err(Failure::new)?;
        if output.status.success() { Ok(copy) } else { Err(failed(&format!("cp -a {}", self.name), &output)) }
    }

    /// A runtime bundle: the tree, and how it is run (OCI runtime-spec, config.md).
    fn bundle(&self, rehearsal: &Rehearsal<'_>, place: &Path) -> Result<String, Failure> {
        self.copy(place)?;
        let header = &rehearsal.header;
        let mut args = vec![header.program.to_string()];
        args.extend(rehearsal.workload.run.0.iter().skip(1).cloned());
        let env: Vec<String> = rehearsal.environment().map(|(name, value)| format!("{name}={value}")).collect();
        let capabilities = [
            "CAP_CHOWN",
            "CAP_DAC_OVERRIDE",
            "CAP_FOWNER",
            "CAP_FSETID",
            "CAP_KILL",
            "CAP_SETGID",
            "CAP_SETUID",
            "CAP_SETPCAP",
            "CAP_NET_BIND_SERVICE",
            "CAP_SYS_CHROOT",
            "CAP_SETFCAP",
        ];
        let sets = ["bounding", "effective", "permitted"].map(|set| (set.to_owned(), serde_json::json!(capabilities)));
        let mount = |target: &str, kind: &str, options: &[&str]| serde_json::json!({"destination": target, "type": kind, "source": kind, "options": options});
        let config = serde_json::json!({
            "ociVersion": "1.0.2",
            "root": {"path": "rootfs"},
            "process": {
                "args": args, "env": env, "cwd": header.directory.to_string(), "terminal": false,
                "user": {"uid": header.uid, "gid": header.gid, "additionalGids": header.groups},
                "capabilities": sets.into_iter().collect::<serde_json::Map<_, _>>(),
            },
            "mounts": [
                mount("/proc", "proc", &[]),
                mount("/dev", "tmpfs", &["nosuid", "mode=755", "size=65536k"]),
                mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
                mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777"]),
            ],
            "linux": {"namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}]},
        });
        fs_err::write(place.join("config.json"), config.to_string()).map_err(Failure::new)?;
        Ok(place.display().to_string())
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        for (program, arguments) in self.forget.iter().filter_map(|words| words.split_first()) {
            let _ = command(program).args(arguments).output();
        }
    }
}

/// The images that a tool has in its store, where the user has his own: the very one, perhaps, that minjail puts there, as equal
/// images have one ID.
#[derive(Default)]
struct Store {
    ids: BTreeSet<String>,
    /// The ID of the image that has a name.
    names: BTreeMap<String, String>,
}

impl Store {
    /// Lines with an ID and a name, which is `<none>:<none>` where there is none.
    fn read(list: &str) -> Self {
        let mut store = Self::default();
        for (id, name) in list.lines().filter_map(|line| line.split_once(' ')) {
            let id = bare(id).to_owned();
            if !name.contains("<none>") {
                store.names.insert(name.to_owned(), id.clone());
            }
            store.ids.insert(id);
        }
        store
    }

    /// The ID of an image that the tool calls by it or by a name.
    fn id<'a>(&'a self, called: &'a str) -> &'a str {
        self.names.get(called).map_or(bare(called), String::as_str)
    }

    /// What to tell the tool, so that its store is again as this one, where `after` is what it is with the image that was loaded
    /// as `loaded`, an ID or a name: names lead where they led before, and an image that was there stays.
    fn restore<'a>(&'a self, after: &'a Self, loaded: &'a str) -> Vec<Vec<&'a str>> {
        let id = after.id(loaded);
        let has_name = self.names.values().any(|other| other == id);
        let mut all = Vec::new();
        for name in after.names.iter().filter_map(|(name, other)| (other == id).then_some(name)) {
            match self.names.get(name) {
                Some(other) if other == id => {}
                Some(other) => all.push(vec!["tag", other, name]),
                // Of one without another name it would take the image too.
                None if has_name => all.push(vec!["rmi", name]),
                None => {}
            }
        }
        if !self.ids.contains(id) {
            all.push(vec!["rmi", "--force", id]);
        }
        all
    }
}

/// An ID as some of the tools spell it.
fn bare(id: &str) -> &str {
    id.strip_prefix("sha256:").unwrap_or(id)
}

/// bubblewrap has no user but its caller, or, in a user namespace, any one.
fn bwrap(rehearsal: &Rehearsal<'_>, tree: &Path) -> Result<Vec<String>, Failure> {
    let header = &rehearsal.header;
    if header.uid != 0 && Uid::effective().is_root() {
        let text = format!("bubblewrap cannot run the workload `{}` as user {}", header.workload, header.uid);
        return Err(Failure::usage(text).hint("verify with podman, docker or runc"));
    }
    let tree = tree.display().to_string();
    let mut words =
        vec!["bwrap", "--bind", &tree, "/", "--dev", "/dev", "--proc", "/proc", "--unshare-pid", "--unshare-ipc"];
    words.extend(["--unshare-uts", "--die-with-parent", "--clearenv", "--chdir"]);
    let mut words: Vec<String> = words.into_iter().map(str::to_owned).collect();
    words.push(header.directory.to_string());
    for (name, value) in rehearsal.environment() {
        words.extend(["--setenv".to_owned(), name.clone(), value.clone()]);
    }
    words.push(header.program.to_string());
    words.extend(rehearsal.workload.run.0.iter().skip(1).cloned());
    Ok(words)
}

/// A command that ends with minjail, and for which no signal is held back.
fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    jail::tie(&mut command, || ());
    command
}

fn failed(command: &str, output: &std::process::Output) -> Failure {
    let said = crate::path::escape(output.stderr.trim_ascii());
    Failure::usage(format!("`{command}` failed: {} {said}", output.status))
        .hint("see that it works by itself; `--verify-with` uses it with its own settings")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_made_again_what_it_was() {
        let before = Store::read("sha256:a one:1\nb two:1\nc <none>:<none>\n");
        let told = |after: &str, loaded: &str| -> Vec<String> {
            before.restore(&Store::read(after), loaded).iter().map(|words| words.join(" ")).collect()
        };
        let new = "a one:1\nb two:1\nc <none>:<none>\nd four:1\n";
        assert_eq!(told(new, "d"), ["rmi --force d"]);
        assert_eq!(told(new, "four:1"), ["rmi --force d"]);
        assert_eq!(told("a <none>:<none>\nb two:1\nc <none>:<none>\nd one:1\n", "d"), ["tag a one:1", "rmi --force d"]);
        // The image was there before, by the same name, by another one, or without any.
        assert!(told("a one:1\nb two:1\nc <none>:<none>\n", "sha256:a").is_empty());
        assert_eq!(told("a one:1\na four:1\nb two:1\nc <none>:<none>\n", "a"), ["rmi four:1"]);
        assert_eq!(told("a one:1\na two:1\nb <none>:<none>\nc <none>:<none>\n", "a"), ["tag b two:1"]);
        assert!(told("a one:1\nb two:1\nc four:1\n", "c").is_empty());
    }
}
