//! What an ELF file needs, and where a loader finds it.
//!
//! In: the bytes of an ELF file, a [`Root`](crate::root::Root), and what the workload's environment tells the loader.
//! Out: [`Elf`], what the file's headers say, and [`Closure`], every file that the loader would open for it, as the
//! loader spells it and as it is found through links. This room reads; it never runs anything, least of all `ldd`.
//!
//! Two loaders are known: glibc's `ld.so` (`ld.so(8)`; rules quoted from glibc 2.36, `elf/dl-load.c`) and musl's
//! (`ldso/dynlink.c`, musl 1.2). What the processor at hand can do is not asked: of a library that comes in several
//! builds (`glibc-hwcaps`), all are taken, so that the image is the same wherever it is made.

mod answer;
mod cache;
mod closure;
mod conf;
mod loader;
mod read;
mod search;

pub use answer::{Closure, Missing, Need, Note, Object, Role};
pub use cache::{CacheEntry, CacheError, LdCache};
pub use conf::ld_so_conf;
pub use read::{Class, Elf, ElfError, Kind, mentions, read, read_file};
pub use search::{Environment, Search, SearchError};
