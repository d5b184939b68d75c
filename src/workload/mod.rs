//! Runs a workload as its profile says, traced, on the host or in a jail, or by an engine, and observes it.
//!
//! In: an [`Order`] (what is executed, where, as whom) and the profile's words on readiness, probes and expectations.
//! Out: an [`Observation`]: how it ended, what it wrote, what it looked for in vain, and every [`Fault`]. On the host a
//! trace is kept too. This room builds nothing and prints nothing.
//!
//! Two processes take part, since a jail's maker must be single-threaded and a traced program inherits its tracer's
//! streams:
//!
//! ```text
//! the director (this process)  ◀──words── the runner (minjail again) ──traces──▶ the program
//!   ready? probes, stop, verdict ──asks──▶   in the jail and its network
//! ```
//!
//! The runner tells of listening sockets as the tracer sees them, and asks questions where only it can: in the
//! workload's network and among its files. Commands of the host (probes by curl or psql) are started by the director
//! and join the workload's network, not its files: so nothing of them ends in the image.

mod answer;
mod awaited;
mod desk;
mod director;
mod engine;
mod neighbour;
mod outset;
mod probes;
mod rooted;
mod runner;
mod stream;
mod tell;
mod wire;

pub use director::{DirectError, Fault, Observation, direct};
pub use outset::Outset;
pub use rooted::trace_rooted;
pub use runner::{RunError, run};
pub use wire::{Engine, Order, Place, SIGNAL, Sought};
