//! The trace: what the runs of a workload touched.
//!
//! In: the tracer's events. Out: a directory `NAME.trace/` with `trace.jsonl` (one record a line, see
//! `docs/trace-format.md`) and, if the run changed files, or read some that may not stay, `before/` with their earlier contents by
//! SHA-256. A trace is self-contained, and several are merged by reading them together. This room decides nothing about the image: it
//! keeps what was asked for, and what was there before.

mod closed;
mod format;
mod fresh;
mod given;
mod holes;
mod kernels;
mod late;
mod merge;
mod model;
mod names;
mod now;
mod owners;
mod preserve;
mod record;
mod rights;
mod store;
mod style;
mod write;

pub use format::{TraceError, write_run};
pub(crate) use kernels::{Origins, is_made_up, is_made_up_below, mount_point};
pub use merge::Conflict;
pub use minjail_tracer::{Access, Gap, Protocol};
pub use model::{Ending, FORMAT, Found, Header, Link, Listening, MADE_UP, NAMESPACE, Program, Run, Touch, Trace};
pub use record::{RecordError, Recorder, Tally, WrittenOut};
pub(crate) use record::{is_kernels, is_shared, is_temporary};
pub(crate) use style::{Met, Style, agreed};
pub use write::check_place;
