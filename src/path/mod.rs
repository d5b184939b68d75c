//! Names inside the jail, and what `lstat` says of one.
//!
//! In: bytes as a program or an archive spelled them. Out: [`JailPath`], an absolute, lexically normalised path that
//! sorts bytewise, and [`Facts`]. This room never touches the file system: links are the business of
//! [`root`](crate::root).

mod facts;
mod jail_path;
mod text;

pub use facts::{Facts, FileType};
pub use jail_path::{JailPath, PathError};
pub use text::{escape, hex, unescape, unhex};
