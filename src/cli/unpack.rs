//! `minjail unpack`: an image, read and written again in any form; nothing is run.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::Path;

use super::apart::keep_apart;
use super::exit::Exit;
use super::failure::Failure;
use super::outputs::{Outputs, parse_all};
use super::pack::{lacks, threads, write_images};
use super::packing::{check_count, packing};
use super::reading::Reading;
use super::side::of_image;
use super::stoppable::{Held, stoppable};
use crate::files::Rules;
use crate::image::{self, Image, Input, KeptLayers, Output, Reference, difference, lock_beside};
use crate::layer::Compression;
use crate::manifest::{Kind, Layers, Manifest, Source, Sources, Times};
use crate::publish::Scratch;
use crate::root::Root;
use crate::slim::whole_history;
use crate::tree::Tree;

/// Read an image and write it in another form: as `rootfs:DIR`, to look inside, or as an image; nothing is run
///
/// The layers become one, with what they amount to, unless they are kept, as they are; owners, modes, times and the configuration are the image's.
/// Beside a directory stands its lock, by which `minjail run` and `minjail slim` know how it is run.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The image, or `-`: an archive on standard input
    #[arg(value_name = "IMAGE")]
    image: OsString,

    #[command(flatten)]
    reading: Reading,

    /// Where it goes; may be given several times
    #[arg(short, long = "output", value_name = "OUT", required = true)]
    outputs: Vec<OsString>,

    /// Replace outputs that exist
    #[arg(long)]
    force: bool,

    /// How layers are compressed: none, gzip[:LEVEL] or zstd[:LEVEL]
    #[arg(long, value_name = "HOW", default_value = "gzip")]
    compression: Compression,

    /// Into which layers files go: `one` for all; or `keep`: the layers stay as they are
    #[arg(long, value_name = "HOW", default_value = "one")]
    layers: Layers,

    /// Say nothing but errors
    #[arg(long, short)]
    quiet: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let images = parse_all(&arguments.outputs)?;
    // An image says itself how it is run; for a directory its lock does.
    let directories = images.iter().filter(|output| matches!(output, Output::Rootfs(_)));
    let locks = directories.filter_map(Output::path).map(lock_beside).collect();
    let mut outputs = Outputs { images, locks };
    outputs.check(arguments.force)?;
    if arguments.layers == Layers::Packages {
        return Err(Failure::usage("`unpack` does not look which package a file is of")
            .hint("give `--layers one` or `--layers keep`"));
    }
    let input = Input::parse(&arguments.image)?;
    if let Some(directory) = input.rootfs() {
        return Err(Failure::usage(format!("`{}` is a directory already, and not an image", directory.display()))
            .hint("`minjail slim` makes an image of what a program in it needs"));
    }
    keep_apart(&input, outputs.places())?;
    let image = Image::open(&input, &arguments.reading.get(true)?)?;
    let mut manifest = of_image(&image)?.manifest;
    let keeps = arguments.layers == Layers::Keep;
    manifest.packing = packing(arguments.compression, arguments.layers, Times::Keep, &Rules::default());
    let originals = if keeps { image.all_layers()? } else { None };
    let left = manifest.assign_layers(|entry| if keeps { entry.layer } else { 0 });
    let count = left.len();
    if let Some(config) = &image.config {
        let left = match &originals {
            Some(originals) => originals.keys().copied().collect(),
            None if image.layers.len() == 1 => left,
            // Of several layers in one, none is left as it was.
            None => Vec::new(),
        };
        manifest.config.history = whole_history(config, &left);
        manifest.config.extra = difference(config, &manifest).expect("the epoch is 0, which has a date");
    }
    if originals.is_none() || !outputs.locks.is_empty() {
        check_count(count)?;
    }
    let wants_contents = originals.is_none() || !outputs.images.iter().all(Output::has_layers);
    let _held = Held::start()?;
    let scratch = stoppable(|told| {
        let scratch = Scratch::new(&std::env::temp_dir(), ".minjail-unpack-")?;
        if wants_contents {
            image.unpack(scratch.path(), &mut || told.look())?;
        }
        Ok(scratch)
    })?;
    let tag = image.tag.as_ref();
    outputs.images = outputs.images.into_iter().map(|output| output.or_tagged(tag)).collect();
    let unnamed = Reference::of_program(b"unpacked");
    let tagged = || tag.and_then(|tag| tag.reference(&unnamed));
    let name = image.name.clone().or_else(tagged).unwrap_or_else(|| unnamed.clone());
    write(&manifest, scratch.path(), &outputs, (&name, &image.names), &originals.unwrap_or_default(), arguments)?;
    Ok(Exit::Success)
}

/// Writes what the manifest lists, with contents from the unpacked `tree`.
fn write(
    manifest: &Manifest,
    tree: &Path,
    outputs: &Outputs,
    (name, names): (&Reference, &[Reference]),
    originals: &KeptLayers,
    arguments: &Arguments,
) -> Result<(), Failure> {
    let root = Root::open(tree)?;
    let files = manifest.entries.iter().filter(|entry| matches!(entry.kind, Kind::File { .. }));
    let sources: Sources = files.map(|entry| (entry.path.clone(), Source::Root(None))).collect();
    let standard_output = std::io::stdout().as_fd().try_clone_to_owned().map_err(Failure::new)?;
    let options = image::Options {
        compression: arguments.compression,
        force: arguments.force,
        name,
        names,
        threads: threads(),
        originals,
        scratch: &std::env::temp_dir(),
        standard_output: standard_output.as_fd(),
    };
    let tree = Tree { manifest, sources: &sources, root: &root };
    let written = write_images(&tree, outputs, &options, arguments.quiet)?;
    if !arguments.quiet {
        for written in written {
            say!("minjail: wrote {}: {} paths", written.output, manifest.entries.len());
            if let Some(lacks) = lacks(&written.notes) {
                say!("minjail: {}", lacks.sentence(&written.output.to_string()));
            }
        }
    }
    Ok(())
}
