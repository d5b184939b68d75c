//! What a jail is made of: a tree, the owners of its files, and the directories that engines make.

use std::path::Path;

use super::failure::Failure;
use super::lock::parse_lock;
use super::unpacked::Unpacked;
use crate::image::oci::RunConfig;
use crate::image::{Image, Input, Reading, lock_beside};
use crate::jail::{Base, JailError};
use crate::manifest::{Config, Entry, Manifest};
use crate::path::JailPath;
use crate::root::Root;
use crate::tree::owned;

/// The base of a tree that was made of `entries`, of an image that is run as `config` says.
pub(super) fn base(tree: &Path, entries: &[Entry], config: &Config) -> Result<Base, Failure> {
    let owned = owned(entries, &Root::open(tree)?)?;
    Ok(Base { tree: tree.to_path_buf(), owned, directories: directories(config) })
}

/// An image or a directory, ready to be run.
pub(super) struct Ready {
    pub(super) base: Base,
    /// How it is run, if it says so.
    pub(super) config: Option<Config>,
    /// `None` for a directory, which is used as it is.
    pub(super) image: Option<Image>,
    /// What holds the tree in its place: without it the cache may remove that.
    pub(super) unpacked: Option<Unpacked>,
}

impl Ready {
    /// Opens `input`, which the cache shows as `name`, and unpacks it if it is an image.
    pub(super) fn of(
        input: &Input,
        reading: &Reading,
        name: &str,
        no_cache: bool,
        quiet: bool,
    ) -> Result<Self, Failure> {
        if let Some(directory) = input.rootfs() {
            let (base, lock) = of_directory(directory)?;
            return Ok(Self { base, config: lock.map(|lock| lock.config), image: None, unpacked: None });
        }
        let image = Image::open(input, reading)?;
        let unpacked = Unpacked::of(&image, name, no_cache, quiet)?;
        let (base, config) = of_image(&image, &unpacked)?;
        Ok(Self { base, config, image: Some(image), unpacked: Some(unpacked) })
    }
}

/// The base of an unpacked image, and how it is run, if it says so.
fn of_image(image: &Image, unpacked: &Unpacked) -> Result<(Base, Option<Config>), Failure> {
    let config = image.config.as_ref().and_then(|config| config.config.clone()).map(RunConfig::into_config);
    let entries = if unpacked.is_owned() { Vec::new() } else { unpacked.entries(image)? };
    Ok((base(&unpacked.tree(), &entries, config.as_ref().unwrap_or(&Config::default()))?, config))
}

/// The base of a directory, and the lock beside it, if there is one: what is said of how it is run.
pub(super) fn of_directory(directory: &Path) -> Result<(Base, Option<Manifest>), Failure> {
    Root::open(directory)?;
    if fs_err::canonicalize(directory).is_ok_and(|directory| directory == Path::new("/")) {
        // Before a workload is run, whose failure it would be.
        return Err(JailError::HostRoot.into());
    }
    let beside = lock_beside(directory);
    let lock = match fs_err::read_to_string(&beside) {
        Ok(text) => parse_lock(&beside, &text)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok((Base { tree: directory.to_path_buf(), ..Base::default() }, None));
        }
        Err(error) => return Err(Failure::new(error)),
    };
    Ok((base(directory, &lock.entries, &lock.config)?, Some(lock)))
}

/// False for what an ordinary user has unpacked: that is his, all of it, whatever the image said.
pub(super) fn is_owned(root: &Root) -> Result<bool, Failure> {
    Ok(root.lstat(&JailPath::root())?.is_some_and(|facts| facts.uid == 0))
}

/// The working directory and the volumes. One that is no path fails where it is used.
fn directories(config: &Config) -> Vec<JailPath> {
    let named = config.volumes.iter().chain([&config.working_dir]);
    let paths = named.filter_map(|name| JailPath::clean(name.as_bytes()).ok());
    paths.filter(|path| !path.is_root()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_engines_make() {
        let volumes = ["/data/", "/a/../b", "/", "relative"].map(str::to_owned).into();
        let config = Config { volumes, working_dir: "/srv".to_owned(), ..Config::default() };
        let made: Vec<String> = directories(&config).iter().map(ToString::to_string).collect();
        assert_eq!(made, ["/b", "/data", "/srv"]);
        assert_eq!(directories(&Config::default()), []);
    }
}
