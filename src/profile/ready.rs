//! How one can tell that a server is ready.

use serde::{Deserialize, Serialize};

use super::model::{Command, Http, Seconds};

/// When a server is ready: exactly one of these.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Ready {
    #[serde(default)]
    pub port: Option<u16>,
    #[serde(default)]
    pub socket: Option<String>,
    #[serde(default)]
    pub file: Option<String>,
    #[serde(default)]
    pub log: Option<String>,
    #[serde(default)]
    pub http: Option<Http>,
    #[serde(default)]
    pub command: Option<Command>,
    #[serde(default)]
    pub check: Option<Command>,
    #[serde(default)]
    pub idle: Option<Seconds>,
    #[serde(default)]
    pub after: Option<Seconds>,
    /// It is not asked for anything before so long nothing was touched: what starts beside it, or after it, is given that time. No profile says so.
    #[serde(skip)]
    pub settles: Option<Seconds>,
}

/// A [`Ready`] of which exactly one thing was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment<'a> {
    Port(u16),
    Socket(&'a str),
    File(&'a str),
    Log(&'a str),
    Http(&'a Http),
    Command(&'a Command),
    Check(&'a Command),
    Idle(Seconds),
    After(Seconds),
}

impl Ready {
    /// What was given.
    pub(super) fn given(&self) -> Vec<Moment<'_>> {
        let all = [
            self.port.map(Moment::Port),
            self.socket.as_deref().map(Moment::Socket),
            self.file.as_deref().map(Moment::File),
            self.log.as_deref().map(Moment::Log),
            self.http.as_ref().map(Moment::Http),
            self.command.as_ref().map(Moment::Command),
            self.check.as_ref().map(Moment::Check),
            self.idle.map(Moment::Idle),
            self.after.map(Moment::After),
        ];
        all.into_iter().flatten().collect()
    }

    /// The one thing that was given; loading has checked that it is one.
    pub fn moment(&self) -> Moment<'_> {
        self.given()[0]
    }

    /// True if the program may as well end by itself before that.
    pub fn may_end(&self) -> bool {
        self.idle.is_some() || self.after.is_some()
    }
}
