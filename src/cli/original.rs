//! What a traced image was made from: a directory that plays `/`, or another image, which is unpacked for that.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::cache::Unpacked;
use super::failure::Failure;
use crate::image::{Image, Input, Reading};
use crate::manifest::{Digest, Manifest};
use crate::path::escape;
use crate::root::Root;
use crate::slim;
use crate::tree::Notes;

pub(super) struct Original {
    tree: PathBuf,
    /// With what holds the tree in its place.
    image: Option<(Image, Unpacked)>,
}

impl Original {
    /// `named` is a directory, by its path alone or as `rootfs:DIR`, or an image as `slim` takes it.
    pub(super) fn open(named: &OsStr, quiet: bool) -> Result<Self, Failure> {
        let path = Path::new(named);
        let input = if path.is_dir() { None } else { Input::parse(named).ok() };
        let Some(input) = input else { return Ok(Self { tree: path.to_path_buf(), image: None }) };
        if let Some(directory) = input.rootfs() {
            return Ok(Self { tree: directory.to_path_buf(), image: None });
        }
        let image = Image::open(&input, &Reading::default())?;
        let unpacked = Unpacked::of(&image, &escape(named.as_encoded_bytes()), false, quiet)?;
        Ok(Self { tree: unpacked.tree(), image: Some((image, unpacked)) })
    }

    pub(super) fn root(&self) -> Result<Root, Failure> {
        Root::open(&self.tree).map_err(|error| {
            Failure::new(error).hint("name a directory that is there, or an image, as `--root oci:DIR`")
        })
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
        if let Some((image, unpacked)) =
            self.image.as_ref().filter(|(_, unpacked)| unpacked.notes() != Notes::default())
        {
            slim::adopt(manifest, &unpacked.entries(image)?);
        }
        Ok(())
    }
}
