//! The manifest, also called the lock: the sorted, hashed list of what goes into an image, with its metadata.
//!
//! In: a file set and the root. Out: a [`Manifest`] whose JSON is canonical, and the [`Sources`] of its contents. This
//! room looks at files and reads no contents: a digest stands in the manifest when its content was read, once, on the way
//! into the image (see [`Seal`]).

mod diff;
mod digest;
mod draw;
mod json;
mod layers;
mod model;
mod origin;
mod packages;
mod packing;
mod readers;
mod redraw;
mod sums;
mod times;
mod weigh;

pub use crate::files::Reasons;
pub use diff::{Aspect, Aspects, Change, Difference, diff};
pub use digest::{Digest, Hasher, Seal};
pub use draw::{DrawError, DrawnUp, Given, draw_up};
pub use json::ParseError;
pub use layers::{Layers, MOST_LAYERS, UnknownLayers};
pub use model::{Config, Entry, FORMAT, Kind, Manifest, Seen, Source, Sources};
pub use origin::{Extra, Healthcheck, Original, Step};
pub use packages::{Package, PackageShare, PackageSystem, Packages};
pub use packing::{Made, Packing, Times, UnknownTimes};
pub use readers::by_threads;
pub use weigh::{Group, Weight, weigh};
