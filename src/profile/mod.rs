//! Profiles: what is to be run, how one can tell that it works, and how the image is described.
//!
//! In: the text of a YAML file. Out: a [`Profile`], checked, with what it extends taken in; or an error with file, line,
//! column and the line itself. Also the JSON Schema and the reference page, both made from one table (`FIELDS`).
//! This room runs nothing and reads no file: whoever loads a profile hands over a way to read texts by name.

mod files;
mod image;
mod load;
mod model;
mod ready;
mod reference;
mod rules;
mod shipped;
mod signal;

pub use files::{Accounts, Division, Files, Listing, Mtime, StatOnly, UnknownWord};
pub use image::{HealthCheck, Image, is_port};
pub use load::{LoadError, Mistake, load};
pub use model::{Check, Command, Expect, Http, Network, Probe, Profile, Seconds, Stop, Tcp, Workload};
pub use ready::{Moment, Ready};
pub use reference::{page, schema};
pub use rules::{Purpose, Rule, Rules, Switch};
pub use shipped::{SHIPPED, Shipped, shipped};
pub use signal::StopSignal;
