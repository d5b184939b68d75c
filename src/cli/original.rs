//! What a traced image was made from: a directory that plays `/`, or another image, which is unpacked for that.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::apart::keep_apart_from;
use super::failure::Failure;
use super::unpacked::Unpacked;
use crate::image::{Image, Input, Reading};
use crate::manifest::{Digest, Manifest};
use crate::path::escape;
use crate::root::Root;
use crate::slim;

pub(super) struct Original {
    tree: PathBuf,
    /// The file or directory that it is read from; `None` for standard input.
    place: Option<PathBuf>,
    /// With what holds the tree in its place.
    image: Option<(Image, Unpacked)>,
}

impl Original {
    /// `named` is a directory, by its path alone or as `rootfs:DIR`, or an image as `slim` takes it.
    pub(super) fn open(named: &OsStr, quiet: bool) -> Result<Self, Failure> {
        let path = Path::new(named);
        let input = if path.is_dir() { None } else { Input::parse(named).ok() };
        let directory = |path: &Path| Self { tree: path.to_path_buf(), place: Some(path.to_path_buf()), image: None };
        let Some(input) = input else { return Ok(directory(path)) };
        if let Some(rootfs) = input.rootfs() {
            return Ok(directory(rootfs));
        }
        let image = Image::open(&input, &Reading::default())?;
        let unpacked = Unpacked::of(&image, &escape(named.as_encoded_bytes()), false, quiet)?;
        let place = input.path().map(Path::to_path_buf);
        Ok(Self { tree: unpacked.tree(), place, image: Some((image, unpacked)) })
    }

    pub(super) fn root(&self) -> Result<Root, Failure> {
        Root::open(&self.tree).map_err(|error| {
            Failure::new(error).hint("name a directory that is there, or an image, as `--root oci:DIR`")
        })
    }

    /// The root that was named, or else what was traced.
    pub(super) fn root_or(named: Option<&Self>, traced: &Path) -> Result<Root, Failure> {
        let gone = "what was traced is gone: name it with `--root`, a directory or an image";
        let traced = || Root::open(traced).map_err(|error| Failure::new(error).hint(gone));
        named.map_or_else(traced, Self::root)
    }

    /// Refuses outputs and locks that would stand where it stands, in it, or around it.
    pub(super) fn keep_apart<'a>(&self, places: impl Iterator<Item = &'a Path>) -> Result<(), Failure> {
        self.place.as_deref().map_or(Ok(()), |place| keep_apart_from(place, places))
    }

    /// The image, if it is one.
    pub(super) fn image(&self) -> Option<&Image> {
        self.image.as_ref().map(|(image, _)| image)
    }

    /// Refuses an image that is not the one which `lock` says it was made from.
    pub(super) fn check(&self, lock: &Manifest) -> Result<(), Failure> {
        let Some((image, _)) = &self.image else { return Ok(()) };
        let found = image.diff_ids();
        if lock.from.is_empty() || found == lock.from {
            return Ok(());
        }
        let list = |ids: &[Digest]| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let text = format!("the lock is of another image: its layers are {}, not {}", list(&lock.from), list(&found));
        Err(Failure::usage(text).hint("name the image that was slimmed: the lock has the diff IDs of its layers"))
    }

    /// Gives a manifest that was drawn up from an image the owners that the image says: see [`slim::adopt`].
    pub(super) fn adopt(&self, manifest: &mut Manifest) -> Result<(), Failure> {
        if let Some((image, unpacked)) = self.image.as_ref().filter(|(_, unpacked)| !unpacked.is_owned()) {
            slim::adopt(manifest, &unpacked.entries(image)?);
        }
        Ok(())
    }
}
