//! What `diff` and `check` compare: a lock, a trace, an image of any form, or a directory, each as a manifest.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;

use super::base::is_owned;
use super::choices::Chosen;
use super::failure::Failure;
use super::lock::read_lock;
use super::pack::seal;
use super::unpacked::Unpacked;
use crate::files::{self, FileSet, Reasons, Wanted, What};
use crate::image::oci::ImageConfig;
use crate::image::{Image, Input, Reading, carried};
use crate::manifest::{self, Aspects, Config, Digest, DrawnUp, Given, Manifest, Packages, Packing, Times};
use crate::path::{Facts, JailPath, escape};
use crate::profile;
use crate::root::{Root, access_list};
use crate::trace::{Origins, Trace};
use crate::tree::Tree;

/// One of the things that are compared.
pub(super) struct Side {
    pub(super) manifest: Manifest,
    /// What this side knows. What only one of two sides knows is not compared.
    pub(super) knows: Aspects,
    /// Of an image, of each of its layers the blob, if a manifest names it, and the `diff_id`, if a configuration does.
    pub(super) layers: Vec<(Option<Digest>, Option<Digest>)>,
    /// The image, if it was opened for this: one on standard input is there only once.
    pub(super) image: Option<Image>,
}

impl Side {
    /// Reads what the user named. Where a trace is compared with a lock, it is drawn up as that lock was.
    pub(super) fn read(name: &OsStr, like: Option<&Manifest>, reading: &Reading) -> Result<Self, Failure> {
        let path = Path::new(name);
        if path.is_dir() {
            return of_trace(path, like);
        }
        if is_lock(name) {
            return Ok(Self { manifest: read_lock(path)?, knows: Aspects::ALL, layers: Vec::new(), image: None });
        }
        let input = Input::parse(name)
            .map_err(|error| Failure::from(error).hint("a lock or a trace is named by its path alone"))?;
        if let Some(directory) = input.rootfs() {
            return of_directory(&Root::open(directory)?);
        }
        let image = Image::open(&input, reading)?;
        let side = of_image(&image)?;
        Ok(Self { image: Some(image), ..side })
    }

    /// The aspects that count between two sides.
    pub(super) fn common(&self, other: &Self) -> Aspects {
        let (one, other) = (self.knows, other.knows);
        Aspects {
            packing: one.packing && other.packing,
            config: one.config && other.config,
            packages: one.packages && other.packages,
            owners: one.owners && other.owners,
            times: one.times && other.times,
        }
    }
}

/// True for the name of an image, or of nothing that is known.
pub(super) fn is_image(name: &OsStr) -> bool {
    !Path::new(name).exists() && Input::parse(name).map_or(true, |input| input.rootfs().is_none())
}

/// True for the name of a lock: a file, or a pipe in which some command writes it.
pub(super) fn is_lock(name: &OsStr) -> bool {
    let path = Path::new(name);
    path.exists() && !path.is_dir()
}

/// The packages that the databases of an image or a directory know; `None` for a lock or a trace, whose entries say it.
pub(super) fn packages(name: &OsStr, side: &Side) -> Result<Option<Packages>, Failure> {
    if Path::new(name).exists() {
        return Ok(None);
    }
    if let Some(image) = &side.image {
        let unpacked = Unpacked::of(image, &escape(name.as_encoded_bytes()), false, true)?;
        return Ok(Some(Packages::read(&Root::open(&unpacked.tree())?)?));
    }
    let input = Input::parse(name)?;
    let directory = input.rootfs().map(Root::open).transpose()?;
    Ok(directory.as_ref().map(Packages::read).transpose()?)
}

fn of_trace(directory: &Path, like: Option<&Manifest>) -> Result<Side, Failure> {
    let trace = Trace::read(&[directory.to_path_buf()])
        .map_err(|error| Failure::from(error).hint("a chroot directory is spelled `rootfs:DIR`"))?;
    let lead = trace.lead();
    let root = Root::open(&lead.root)?;
    let chosen = Chosen::default();
    let (files, _) = files::needed(&trace, &root, &chosen.policy).map_err(|error| match error {
        error if error.is_trouble() => Failure::new(error).hint(
            "trace again, or build an image of the trace without it, with `minjail build --exclude`, and compare the image's lock",
        ),
        error => error.into(),
    })?;
    let packages = Packages::read(&root)?;
    let (epoch, packing) = like.map_or((0, Packing::default()), |lock| (lock.epoch, lock.packing.clone()));
    let config = super::configure::config(&trace, lead, &root, &profile::Image::default(), &chosen)?;
    let given = Given { files, root: &root, store: &trace.store, packages: &packages, epoch, packing, config };
    let manifest = draw_and_read(given)?;
    // Which times an image gets is not the trace's to say.
    let knows = Aspects { packing: false, times: like.is_some(), ..Aspects::ALL };
    Ok(Side { manifest, knows, layers: Vec::new(), image: None })
}

pub(super) fn of_image(image: &Image) -> Result<Side, Failure> {
    let said = |config: &ImageConfig| {
        let run = config.config.clone().unwrap_or_default().into_config();
        let (architecture, variant, extra) =
            (config.architecture.clone(), config.variant.clone(), carried(config, &run.env));
        Config { architecture, variant, extra, ..run }
    };
    let config = image.config.as_ref().map(said).unwrap_or_default();
    let layers = image.layers.iter().map(|layer| (layer.digest, layer.diff_id)).collect();
    let knows = Aspects { packing: false, packages: false, config: image.config.is_some(), ..Aspects::ALL };
    Ok(Side { manifest: Manifest::new(config, image.entries()?), knows, layers, image: None })
}

/// All that is in a directory, hashed on all cores, but for what the kernel makes up in it: of that the directory at which it is
/// mounted.
fn of_directory(root: &Root) -> Result<Side, Failure> {
    let mut files = FileSet::default();
    let mut todo = vec![JailPath::root()];
    let mut origins = Origins::default();
    while let Some(path) = todo.pop() {
        let stat = root.stat(&path)?;
        let is_directory = stat.and_then(|stat| Facts::from_stat(&stat)).is_some_and(|facts| facts.is_directory());
        let is_made_up = stat.is_some_and(|stat| origins.errno(&path, &stat, root).is_some());
        match (is_directory, is_made_up) {
            (true, false) => todo.extend(root.list(&path)?.iter().map(|name| path.join(name))),
            // As a namespace that a mount keeps.
            (false, true) => continue,
            _ => {}
        }
        files.wanted.insert(path, Wanted { what: What::AsIs, reasons: Reasons::default() });
    }
    let manifest = draw_directory(files, root, &Packages::default(), Times::Keep)?;
    let knows = Aspects { packing: false, config: false, packages: false, owners: is_owned(root)?, times: true };
    Ok(Side { manifest, knows, layers: Vec::new(), image: None })
}

/// Draws up `files` of `root` as they lie there.
pub(super) fn draw_directory(
    files: FileSet,
    root: &Root,
    packages: &Packages,
    times: Times,
) -> Result<Manifest, Failure> {
    let (store, config) = (&BTreeMap::new(), Config::default());
    let packing = Packing { mtime: times, ..Packing::default() };
    let mut manifest = draw_and_read(Given { files, root, store, packages, epoch: 0, packing, config })?;
    // No image has one: it was put there, and lets somebody use the file, or what is made in the directory.
    for entry in &mut manifest.entries {
        let lists = [
            (access_list::NAME, root.access_list(&entry.path)?),
            (access_list::DEFAULT, root.default_list(&entry.path)?),
        ];
        let there = lists.into_iter().filter_map(|(name, list)| Some((name.to_owned(), list?)));
        entry.xattrs.extend(there);
    }
    Ok(manifest)
}

/// Draws up a manifest and reads every content that it lists, as it must be to be compared.
fn draw_and_read(given: Given<'_>) -> Result<Manifest, Failure> {
    let root = given.root;
    let DrawnUp { manifest, sources, .. } = manifest::draw_up(given)?;
    seal(&Tree { manifest: &manifest, sources: &sources, root }, false)?;
    Ok(manifest)
}
