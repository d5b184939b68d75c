//! minjail runs a program under a tracer, sees every file it touches, and packs exactly those files into a small,
//! deterministic container image. `docs/design.md` is the map of the house.

pub mod cache;
pub mod cli;
pub mod elf;
pub mod files;
pub mod image;
pub mod init;
pub mod jail;
pub mod layer;
pub mod manifest;
pub mod path;
pub mod profile;
pub mod publish;
pub mod report;
pub mod root;
pub mod slim;
pub mod trace;
pub mod tree;
pub mod workload;
