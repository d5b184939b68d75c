//! Drafts of profiles: from one run, from an image's configuration, or from a Dockerfile, to a YAML text with comments
//! that say what was seen, what was not, and what a person should fill in.
//!
//! In: a trace's run, a [`RunConfig`](crate::image::oci::RunConfig), or the text of a Dockerfile. Out: a [`Draft`], and
//! its text. This room runs nothing and reads no file.

mod dockerfile;
mod draft;
mod seen;
mod told;
mod yaml;

pub use dockerfile::{DockerfileError, Stage, read as read_dockerfile};
pub use draft::{Described, Draft, Readiness};
pub use seen::{Run, SeenError, seen};
pub use told::{NoCommand, told};
