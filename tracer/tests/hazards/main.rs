//! Programs that misbehave, each under the tracer: the exact set of what they touch, and how they end.
//!
//! The programs are in `fixtures/hazards`. They check what they can see themselves, and exit with 0 only if all of it
//! is as without a tracer.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod calls;
mod hazard;
mod paths;
#[path = "../../../tests/support/skip.rs"]
mod skip;
mod tasks;
mod transparent;
mod unseen;
