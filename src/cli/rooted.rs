//! `minjail trace --root`: a program that is traced in another root.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use minjail_tracer::{Options, SpawnError, TraceError};

use super::exit::Exit;
use super::failure::Failure;
use super::platform::machine;
use super::rehearse::{PATH, locate_in};
use super::trace::{Running, Workload, file_name, io_failure};
use super::variables::{Variables, environment, variables};
use crate::jail::{self, Base, Jail, Network, User};
use crate::path::{JailPath, escape};
use crate::root::Root;
use crate::slim;
use crate::trace::{Ending, Header, Tally};
use crate::workload::{RunError, trace_rooted};

impl Workload {
    /// A program in the directory `root`.
    pub(super) fn rooted(root: &Path, arguments: &Running, command: &[OsString]) -> Result<Self, Failure> {
        // First, as it says what the user can do about one that is not there.
        let held = Root::open(root)?;
        let top = std::fs::canonicalize(root).map_err(|error| io_failure("find the way to", root, error))?;
        let (mut entries, mut environment, named) = environment(&arguments.env)?;
        let path = environment.entry("PATH".into()).or_insert_with(|| {
            entries.push(format!("PATH={PATH}").into());
            PATH.into()
        });
        let path = path.clone();
        let directory = arguments.workdir.as_deref().unwrap_or(Path::new("/"));
        let directory = JailPath::parse(directory.as_os_str().as_bytes())
            .map_err(|error| Failure::new(error).hint("give the directory as it is in the root, from `/` on"))?;
        let typed = command.first().cloned().unwrap_or_default();
        let program = locate_in(&top, &typed, &path, &directory.below(Path::new("/")));
        let facts = held.resolve(&JailPath::root(), program.as_os_str().as_bytes(), true)?.facts;
        let Some(facts) = facts.filter(|_| !typed.is_empty()) else {
            let text = format!("`{}` has no program `{}`", root.display(), escape(typed.as_bytes()));
            return Err(Failure::usage(text).exit(Exit::NotFound).hint("give its path as it is in the root"));
        };
        if !facts.is_file() || facts.mode & 0o111 == 0 {
            let text = format!("`{}` of `{}` cannot be executed", escape(typed.as_bytes()), root.display());
            return Err(Failure::usage(text).exit(Exit::CannotExecute).hint("is it the right file?"));
        }
        let account = super::inside::account_in(&held, arguments.user.as_deref().unwrap_or_default())?;
        let slim::Account { uid, gid, groups, .. } = account;
        let Variables { env, optional } = variables(&environment, &named)?;
        let path = JailPath::parse(program.as_os_str().as_bytes()).map_err(Failure::new)?;
        let header = Header {
            command: command.iter().map(|argument| escape(argument.as_bytes())).collect(),
            env,
            optional,
            directory,
            uid,
            gid,
            groups,
            machine: machine(),
            root: top,
            ..Header::new(&file_name(&program), path)
        };
        let command = minjail_tracer::Command {
            program,
            arguments: command.to_vec(),
            environment: entries,
            directory: None,
            credentials: None,
            leads_group: false,
            parent_death_signal: 0,
        };
        Ok(Self { command, header })
    }

    /// Traces it in a jail of its root.
    pub(super) fn trace_rooted(
        &self,
        target: &Path,
        options: &Options,
        quiet: bool,
    ) -> Result<(Ending, Tally), Failure> {
        let header = &self.header;
        let jail = Jail {
            base: Base { tree: header.root.clone(), ..Base::default() },
            cwd: header.directory.clone(),
            user: User { uid: header.uid, gid: header.gid, groups: header.groups.clone() },
            network: Network::Host,
            hostname: "minjail".to_owned(),
        };
        if !quiet {
            for note in jail::notes(&jail)? {
                say!("note: {note}");
            }
        }
        trace_rooted(&jail, header, &self.command, options, target).map_err(|error| match error {
            RunError::Trace(TraceError::Spawn(SpawnError::Exec { path, source })) => {
                let path = on_host(&header.root, &path);
                TraceError::from(SpawnError::Exec { path, source }).into()
            }
            error => error.into(),
        })
    }
}

/// Where a program of `root` is for this process, or its path in there if there is none.
fn on_host(root: &Path, program: &Path) -> PathBuf {
    let walk = Root::open(root).and_then(|held| held.resolve(&JailPath::root(), program.as_os_str().as_bytes(), true));
    walk.map_or_else(|_| program.to_path_buf(), |walk| walk.end.below(root))
}
