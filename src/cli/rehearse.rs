//! From a profile's workload to a run of it: on the host with a trace, or in a jail.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use minjail_tracer::Credentials;
use nix::unistd::Uid;

use super::exit::Exit;
use super::failure::Failure;
use super::inside::account_in;
use super::locate::{LocateError, locate};
use super::platform::machine;
use super::status::may_leave_network;
use super::trace::{credentials, lexical, own_credentials};
use crate::jail::{self, Base, Jail};
use crate::path::{JailPath, escape};
use crate::profile::{Moment, Network, Ready, Workload};
use crate::publish::Scratch;
use crate::root::Root;
use crate::trace::Header;
use crate::workload::{self, Engine, Observation, Order, Outset, Place};

/// The subcommand that a runner is called by.
pub(super) const RUNNER: &str = "__workload";

/// Where a program without a `PATH` of its own looks: what docker sets.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A runner's whole life. Its failure is told by the director.
pub(super) fn runner(order: &Path) -> Exit {
    workload::run(order).map_or_else(|_told| Exit::Failure, |()| Exit::Success)
}

/// A workload that can be run: what its profile leaves to the machine is settled.
#[derive(Clone)]
pub(super) struct Rehearsal<'a> {
    pub(super) workload: &'a Workload,
    pub(super) header: Header,
    environment: BTreeMap<String, String>,
}

impl<'a> Rehearsal<'a> {
    /// Settles a workload; its program is looked for in `tree`, or on the host. The one in `tree` need not be there. `who` runs
    /// it, or whom it names, by the accounts of the host.
    pub(super) fn new(
        name: &str,
        workload: &'a Workload,
        tree: Option<&Path>,
        who: Option<Credentials>,
    ) -> Result<Self, Failure> {
        let mut environment = workload.env.clone();
        let path = environment.entry("PATH".to_owned()).or_insert_with(|| PATH.to_owned()).clone();
        let typed = &workload.run.0[0];
        let cwd = workload.cwd.as_deref().unwrap_or("/");
        let named = || workload.user.as_deref().map_or_else(|| Ok(own_credentials()), credentials);
        let who = who.map_or_else(named, Ok)?;
        let program = match tree {
            Some(tree) => locate_in(tree, OsStr::new(typed), OsStr::new(&path), Path::new(cwd)),
            None if typed.contains('/') => {
                let path = Path::new(cwd).join(typed);
                match locate(path.as_os_str(), None, Some(&who)) {
                    // What is run before may make it.
                    Err(LocateError::NotFound { .. }) if !workload.setup.is_empty() => path,
                    located => located?,
                }
            }
            None => locate(OsStr::new(typed), Some(OsStr::new(&path)), Some(&who))?,
        };
        let Credentials { uid, gid, groups } = who;
        let program = lexical(&program)?;
        let header = Header {
            command: workload.run.0.iter().map(|argument| escape(argument.as_bytes())).collect(),
            env: environment.clone(),
            directory: JailPath::parse(cwd.as_bytes()).map_err(|error| {
                Failure::new(error)
                    .hint("it is where the workload runs: give `cwd`, or the image's `WorkingDir`, from the root on")
            })?,
            uid,
            gid,
            groups,
            machine: machine(),
            root: tree.unwrap_or(Path::new("/")).to_path_buf(),
            ..Header::new(name, program)
        };
        Ok(Self { workload, header, environment })
    }

    /// The same in an image that is run as `user` and unpacked in `tree`: if that is its own user, with the groups that engines give him.
    pub(super) fn in_image(&self, user: &str, tree: &Path) -> Result<Self, Failure> {
        let mut inside = self.clone();
        // An image need not have the accounts: its user may have switched off the rule by which it gets them.
        if let Ok(account) = account_in(&Root::open(tree)?, user)
            && (account.uid, account.gid) == (self.header.uid, self.header.gid)
        {
            inside.header.groups = account.groups;
        }
        Ok(inside)
    }

    /// True if commands of the host run before or after it.
    pub(super) fn has_commands(&self) -> bool {
        !self.workload.setup.is_empty() || !self.workload.teardown.is_empty()
    }

    /// Runs it on the host; its trace is kept at `trace`, with what is needed of what was changed `since`.
    pub(super) fn on_host(&self, trace: &Path, since: Option<Outset>) -> Result<Observation, Failure> {
        let private = self.workload.network == Network::Private && may_leave_network();
        if !self.workload.state.is_empty() && !Uid::effective().is_root() {
            let text = format!("the workload `{}` has state directories", self.header.workload);
            return Err(
                Failure::usage(text).hint("run minjail as root: only root can put empty directories in their place")
            );
        }
        self.run(Place::Host { trace: trace.to_path_buf(), since }, private)
    }

    /// Runs it in a jail made of `base`; its trace, if one is wanted, is kept at `trace`.
    pub(super) fn in_jail(&self, base: &Base, trace: Option<&Path>) -> Result<Observation, Failure> {
        let private = self.workload.network == Network::Private;
        self.run(Place::Jail { base: base.clone(), trace: trace.map(Path::to_path_buf) }, private)
    }

    /// Runs it by a container engine.
    pub(super) fn in_engine(&self, engine: Engine, private_network: bool) -> Result<Observation, Failure> {
        self.run(Place::Engine(engine), private_network)
    }

    /// The whole environment.
    pub(super) fn environment(&self) -> impl Iterator<Item = (&String, &String)> {
        self.environment.iter()
    }

    /// What would not be quite as asked for in a jail made of `base`.
    pub(super) fn notes(&self, base: &Base) -> Result<Vec<jail::Note>, Failure> {
        let header = &self.header;
        let private = self.workload.network == Network::Private;
        Ok(jail::notes(&Jail {
            base: base.clone(),
            cwd: header.directory.clone(),
            user: jail::User { uid: header.uid, gid: header.gid, groups: header.groups.clone() },
            network: if private { jail::Network::Private } else { jail::Network::Host },
            hostname: "minjail".to_owned(),
        })?)
    }

    fn run(&self, place: Place, private_network: bool) -> Result<Observation, Failure> {
        let scratch = scratch(&self.workload.state)?;
        let order = Order {
            header: self.header.clone(),
            environment: self.environment.clone().into_iter().collect(),
            place,
            private_network,
            state: self.workload.state.iter().map(PathBuf::from).collect(),
            awaited: match self.workload.ready.as_ref().map(Ready::moment) {
                Some(Moment::File(path)) => Some(PathBuf::from(path)),
                _ => None,
            },
            grace: self.workload.grace.0,
            scratch: scratch.path().to_path_buf(),
        };
        let minjail = std::env::current_exe().map_err(Failure::new)?;
        Ok(workload::direct(&order, self.workload, &minjail, &[RUNNER])?)
    }
}

/// A directory that no state directory hides.
pub(super) fn scratch(state: &[String]) -> Result<Scratch, Failure> {
    let bases = [std::env::temp_dir(), PathBuf::from("/var/tmp")];
    let is_hidden = |base: &Path| state.iter().any(|hidden| base.starts_with(hidden));
    let base = bases.iter().find(|base| !is_hidden(base)).ok_or_else(|| {
        Failure::usage("the state directories hide every directory for temporary files")
            .hint("set TMPDIR to a directory that is none of them")
    })?;
    Ok(Scratch::new(base, ".minjail-jail-")?)
}

/// The program's path in the tree, as `execvp(3)` would find it; a program that is not there is told of by the run.
pub(super) fn locate_in(tree: &Path, typed: &OsStr, path: &OsStr, cwd: &Path) -> PathBuf {
    if typed.as_bytes().contains(&b'/') {
        return cwd.join(typed);
    }
    let root = Root::open(tree).ok();
    let at = |path: &Path, follow: bool| {
        root.as_ref()?.resolve(&JailPath::root(), path.as_os_str().as_bytes(), follow).ok()?.facts
    };
    let is_program = |path: &&PathBuf| at(path, true).is_some_and(|facts| facts.is_file() && facts.mode & 0o111 != 0);
    let is_anything = |path: &&PathBuf| at(path, false).is_some();
    let places: Vec<PathBuf> = std::env::split_paths(path).map(|place| cwd.join(place).join(typed)).collect();
    let found = places.iter().find(is_program).or_else(|| places.iter().find(is_anything));
    found.cloned().unwrap_or_else(|| Path::new("/usr/bin").join(typed))
}
