//! Every form: written, read back, replaced, refused.

use std::ffi::OsStr;
use std::io::{Read, Seek, Write};
use std::num::NonZeroUsize;
use std::os::fd::AsFd;

use proptest::prelude::*;

use super::*;
use crate::layer::Compression;
use crate::manifest::Digest;
use crate::manifest::{Entry, Kind};
use crate::publish::PublishError;
use crate::tree::sample::{Sample, any_tree};

fn write_one(sample: &Sample, output: &Output, options: &Options<'_>) -> Result<Written, ImageError> {
    let mut written = write_all(&sample.tree(), std::slice::from_ref(output), &[], options, &mut |_| ())?;
    Ok(written.remove(0))
}

struct Place {
    directory: tempfile::TempDir,
    standard_output: std::fs::File,
    name: Reference,
    originals: KeptLayers,
}

impl Place {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            standard_output: tempfile::tempfile().unwrap(),
            name: "app".parse().unwrap(),
            originals: KeptLayers::new(),
        }
    }

    fn options(&self) -> Options<'_> {
        Options {
            compression: Compression::GZIP,
            force: false,
            name: &self.name,
            names: &[],
            threads: NonZeroUsize::new(2).unwrap(),
            originals: &self.originals,
            scratch: self.directory.path(),
            standard_output: self.standard_output.as_fd(),
        }
    }

    /// `FORM:NAME` with the name put into this place.
    fn text(&self, form: &str) -> String {
        let (form, rest) = form.split_once(':').unwrap();
        if rest.starts_with('-') { format!("{form}:{rest}") } else { format!("{form}:{}/{rest}", self.path()) }
    }

    fn output(&self, form: &str) -> Output {
        Output::parse(OsStr::new(&self.text(form))).unwrap()
    }

    fn input(&self, form: &str) -> Input {
        Input::parse(OsStr::new(&self.text(form))).unwrap()
    }

    fn write(&self, sample: &Sample, form: &str, options: &Options<'_>) -> Result<Written, ImageError> {
        write_one(sample, &self.output(form), options)
    }

    fn path(&self) -> &str {
        self.directory.path().to_str().unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs_err::read_dir(self.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

const IMAGES: [&str; 7] = [
    "layer:x.tar",
    "layer:x.tar.gz",
    "layer:x.tar.zst",
    "oci:layout",
    "oci-archive:oci.tar:v1",
    "docker-archive:docker.tar",
    "docker-archive:named.tar:localhost:5000/team/app:1",
];

fn unpacked(image: &Image, sample: &Sample) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    image.unpack(directory.path(), &mut || ()).unwrap();
    assert_eq!(sample.differences(directory.path()), [""; 0]);
    directory
}

fn round_trip(sample: &Sample) {
    let place = Place::new();
    let outputs: Vec<Output> = IMAGES.iter().map(|form| place.output(form)).collect();
    let mut last = None;
    let written =
        write_all(&sample.tree(), &outputs, &[], &place.options(), &mut |progress| last = Some(progress)).unwrap();
    assert!(last.is_some_and(|Progress { done, total }| done == total));
    // A bare layer is the whole, and every image has the same layers.
    let mut known: [Option<Vec<Digest>>; 2] = [None, None];
    for (form, written) in IMAGES.iter().zip(&written) {
        let image = Image::open(&place.input(form), &Reading::default()).unwrap();
        assert_eq!(image.manifest, written.manifest, "{form}");
        let diff_ids: Vec<Digest> = written.layers.iter().map(|layer| layer.diff_id).collect();
        let is_bare = form.starts_with("layer:");
        assert_eq!(diff_ids.len(), if is_bare { 1 } else { sample.manifest.layers().len() }, "{form}");
        assert_eq!(known[usize::from(is_bare)].get_or_insert(diff_ids.clone()), &diff_ids, "{form}");
        if let Some(config) = &image.config {
            assert_eq!(config.rootfs.diff_ids, diff_ids);
            assert_eq!(Some(Digest::of(&oci::text(config))), written.config);
        }
        unpacked(&image, sample);
    }
}

#[test]
fn every_form_gives_the_tree_back() {
    round_trip(&Sample::varied());
    round_trip(&Sample::varied().in_layers());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn every_form_gives_any_tree_back(sample in any_tree()) {
        round_trip(&sample);
        round_trip(&sample.in_layers());
    }
}

#[test]
fn what_several_layers_amount_to_is_the_manifest() {
    let place = Place::new();
    let sample = Sample::varied().in_layers();
    for form in ["oci:layout", "oci-archive:oci.tar", "docker-archive:docker.tar"] {
        place.write(&sample, form, &place.options()).unwrap();
        let entries = Image::open(&place.input(form), &Reading::default()).unwrap().entries().unwrap();
        let is_link = |entry: &&Entry| matches!(entry.kind, Kind::HardLink { .. });
        let (read, written) = (entries.iter(), sample.manifest.entries.iter());
        assert!(read.filter(|entry| !is_link(entry)).eq(written.filter(|entry| !is_link(entry))), "{form}");
    }
}

#[test]
fn a_rootfs_is_written_and_used_as_it_is() {
    let (place, sample) = (Place::new(), Sample::varied());
    let written = place.write(&sample, "rootfs:tree", &place.options()).unwrap();
    let directory = place.directory.path().join("tree");
    assert_eq!(sample.differences(&directory), [""; 0]);
    assert_eq!((written.layers, written.config), (Vec::new(), None));
    let input = place.input("rootfs:tree");
    assert_eq!(input.rootfs(), Some(directory.as_path()));
    assert!(matches!(Image::open(&input, &Reading::default()), Err(ReadError::IsRootfs { .. })));
}

#[test]
fn two_writings_are_the_same_bytes() {
    let (one, other, sample) = (Place::new(), Place::new(), Sample::varied());
    for form in IMAGES.iter().filter(|form| !form.starts_with("oci:")) {
        let name = form.split(':').nth(1).unwrap();
        let read = |place: &Place, threads: usize| {
            let options = Options { threads: NonZeroUsize::new(threads).unwrap(), ..place.options() };
            place.write(&sample, form, &options).unwrap();
            fs_err::read(place.directory.path().join(name)).unwrap()
        };
        assert!(read(&one, 1) == read(&other, 3), "{form}");
    }
}

#[test]
fn standard_output_gets_what_a_file_gets() {
    let sample = Sample::varied();
    for form in ["layer", "oci-archive", "docker-archive"] {
        let place = Place::new();
        place.write(&sample, &format!("{form}:file"), &place.options()).unwrap();
        place.write(&sample, &format!("{form}:-"), &place.options()).unwrap();
        let mut standard_output = &place.standard_output;
        standard_output.rewind().unwrap();
        let mut bytes = Vec::new();
        standard_output.read_to_end(&mut bytes).unwrap();
        assert!(bytes == fs_err::read(place.directory.path().join("file")).unwrap(), "{form}");
        assert_eq!(place.names(), ["file"]);
    }
}

#[test]
fn what_exists_is_replaced_only_by_force() {
    let sample = Sample::varied();
    let small = Sample::new().file("/small", b"small");
    for form in ["rootfs:out", "layer:out", "oci:out", "oci-archive:out", "docker-archive:out"] {
        let place = Place::new();
        place.write(&small, form, &place.options()).unwrap();
        let error = place.write(&sample, form, &place.options()).unwrap_err();
        assert!(
            matches!(&error, ImageError::Publish(PublishError::Exists { path }) if *path == format!("{}/out", place.path())),
            "{error}"
        );
        assert!(error.hint().unwrap().contains("--force"));
        let options = Options { force: true, ..place.options() };
        if form == "rootfs:out" {
            // By its lock alone a tree is known for minjail's.
            let error = place.write(&sample, form, &options).unwrap_err();
            assert!(matches!(error, ImageError::Publish(PublishError::InTheWay { .. })), "{error}");
            small.tree().seal(NonZeroUsize::MIN, &|_, _| ()).unwrap();
            fs_err::write(place.directory.path().join("out.lock"), small.manifest.to_json()).unwrap();
        }
        place.write(&sample, form, &options).unwrap();
        if form == "rootfs:out" {
            fs_err::remove_file(place.directory.path().join("out.lock")).unwrap();
        }
        assert_eq!(place.names(), ["out"]);
        if form == "rootfs:out" {
            assert_eq!(sample.differences(&place.directory.path().join("out")), [""; 0]);
        } else {
            unpacked(&Image::open(&place.input(form), &Reading::default()).unwrap(), &sample);
        }
        // And where there is nothing, force does not matter.
        fs_err::rename(place.directory.path().join("out"), place.directory.path().join("away")).unwrap();
        place.write(&small, form, &options).unwrap();
        assert_eq!(place.names(), ["away", "out"]);
    }
}

#[test]
fn force_takes_nothing_else_away() {
    let (place, sample) = (Place::new(), Sample::new());
    let options = Options { force: true, ..place.options() };
    fs_err::create_dir(place.directory.path().join("home")).unwrap();
    fs_err::write(place.directory.path().join("home/letter"), "dear").unwrap();
    for form in ["oci:home", "rootfs:home", "layer:home", "oci:home/letter", "rootfs:home/letter"] {
        let error = place.write(&sample, form, &options).unwrap_err();
        assert!(matches!(error, ImageError::Publish(PublishError::InTheWay { .. })), "{form}: {error}");
    }
    nix::unistd::mkfifo(&place.directory.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let error = place.write(&sample, "layer:pipe", &options).unwrap_err();
    assert!(matches!(error, ImageError::Publish(PublishError::InTheWay { .. })));
    let error = write_one(&sample, &Output::Rootfs("/".into()), &options).unwrap_err();
    assert!(matches!(error, ImageError::Publish(PublishError::InTheWay { .. })));
    assert_eq!(place.names(), ["home", "pipe"]);
}

#[test]
fn nothing_is_left_of_what_failed() {
    let place = Place::new();
    let mut sample = Sample::varied().file("/z", b"as it was");
    let changed = crate::manifest::Source::Made(b"as it is.".to_vec());
    sample.sources.insert(crate::tree::sample::path("/z"), changed);
    for form in ["rootfs:out"].iter().chain(&IMAGES) {
        let error = place.write(&sample, form, &place.options()).unwrap_err();
        assert!(error.hint().unwrap().starts_with("trace and build again"), "{form}: {error}");
        assert_eq!(place.names(), [""; 0], "{form}");
    }
    let error = place.write(&Sample::new(), "layer:no/such/place", &place.options()).unwrap_err();
    assert_eq!(error.hint().as_deref(), Some("make the directory first"));
}

#[test]
fn of_two_at_once_one_wins_whole() {
    let (large, small) = (Sample::varied(), Sample::new());
    for form in ["rootfs:out", "layer:out", "oci:out"] {
        for _ in 0..8 {
            let place = Place::new();
            let won = std::thread::scope(|scope| {
                let place = &place;
                let write = |sample| scope.spawn(move || place.write(sample, form, &place.options()));
                [write(&large), write(&small)].map(|writer| match writer.join().unwrap() {
                    Ok(_) => true,
                    Err(ImageError::Publish(PublishError::Exists { .. })) => false,
                    Err(error) => panic!("{error}"),
                })
            });
            assert_eq!(won.iter().filter(|won| **won).count(), 1);
            let winner = if won[0] { &large } else { &small };
            assert_eq!(place.names(), ["out"]);
            if form == "rootfs:out" {
                assert_eq!(winner.differences(&place.directory.path().join("out")), [""; 0]);
            } else {
                unpacked(&Image::open(&place.input(form), &Reading::default()).unwrap(), winner);
            }
        }
    }
}

#[test]
fn a_full_disk_is_told() {
    let place = Place::new();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let options = Options { standard_output: full.as_fd(), ..place.options() };
    for form in ["layer:-", "oci-archive:-", "docker-archive:-"] {
        let error = place.write(&Sample::varied(), form, &options).unwrap_err();
        assert_eq!(
            error.hint().as_deref(),
            Some("make room on that file system, or write to another"),
            "{form}: {error}"
        );
    }
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn outputs_are_distinct_and_have_a_date() {
    let (place, mut sample) = (Place::new(), Sample::new());
    let outputs = [place.output("layer:-"), place.output("docker-archive:-")];
    let error = write_all(&sample.tree(), &outputs, &[], &place.options(), &mut |_| ()).unwrap_err();
    assert_eq!(error.to_string(), "two outputs go to standard output");
    sample.manifest.epoch = i64::MAX;
    let error = place.write(&sample, "layer:x", &place.options()).unwrap_err();
    assert!(matches!(error, ImageError::Epoch(i64::MAX)));
}

#[test]
fn the_documents_byte_for_byte() {
    let (place, sample) = (Place::new(), Sample::new().file("/f", b"x"));
    let options = Options { compression: Compression::None, ..place.options() };
    let written = place.write(&sample, "oci:out:v1", &options).unwrap();
    let read = |name: &str| fs_err::read_to_string(place.directory.path().join("out").join(name)).unwrap();
    let (layer, config) = (written.layers[0].clone(), written.config.unwrap());
    let manifest = written.manifest.unwrap();
    assert_eq!(read("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#);
    assert_eq!(
        read(&format!("blobs/sha256/{}", config.hex())),
        format!(
            r#"{{"created":"2023-11-14T22:13:20Z","architecture":"amd64","os":"linux","config":{{"User":"0:0","Env":["PATH=/bin"],"Entrypoint":["/bin/app"],"WorkingDir":"/"}},"rootfs":{{"type":"layers","diff_ids":["{}"]}},"history":[{{"created":"2023-11-14T22:13:20Z","created_by":"minjail (format 1)"}}]}}"#,
            layer.diff_id
        )
    );
    let config_size = read(&format!("blobs/sha256/{}", config.hex())).len();
    let manifest_text = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":{config_size}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{}","size":{}}}]}}"#,
        layer.digest, layer.size
    );
    assert_eq!(read(&format!("blobs/sha256/{}", manifest.hex())), manifest_text);
    assert_eq!(
        read("index.json"),
        format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{manifest}","size":{},"annotations":{{"io.containerd.image.name":"docker.io/library/app:v1","org.opencontainers.image.ref.name":"v1"}}}}]}}"#,
            manifest_text.len()
        )
    );
}

#[test]
fn damage_is_noticed() {
    let (place, sample) = (Place::new(), Sample::varied());
    let written = place.write(&sample, "oci:out", &place.options()).unwrap();
    let blob = place.directory.path().join("out/blobs/sha256").join(written.layers[0].clone().digest.hex());
    let good = fs_err::read(&blob).unwrap();
    let mut bad = good.clone();
    bad[100] ^= 1;
    fs_err::write(&blob, &bad).unwrap();
    assert!(matches!(Image::open(&place.input("oci:out"), &Reading::default()), Err(ReadError::WrongDigest { .. })));
    fs_err::write(&blob, &good[1..]).unwrap();
    assert!(matches!(Image::open(&place.input("oci:out"), &Reading::default()), Err(ReadError::WrongSize { .. })));
    fs_err::remove_file(&blob).unwrap();
    assert!(matches!(Image::open(&place.input("oci:out"), &Reading::default()), Err(ReadError::Missing { .. })));
    fs_err::write(&blob, &good).unwrap();
    assert!(matches!(Image::open(&place.input("oci:out:v2"), &Reading::default()), Err(ReadError::NoSuchName { .. })));

    // A docker archive names no digest of its layer, but its configuration does.
    place.write(&sample, "docker-archive:docker", &place.options()).unwrap();
    let archive = place.directory.path().join("docker");
    let mut bytes = fs_err::read(&archive).unwrap();
    let at = bytes.windows(9).position(|window| window == b"#!/bin/sh").unwrap();
    bytes[at] ^= 1;
    fs_err::write(&archive, &bytes).unwrap();
    let image = Image::open(&place.input("docker-archive:docker"), &Reading::default()).unwrap();
    let error = image.unpack(tempfile::tempdir().unwrap().path(), &mut || ()).unwrap_err();
    assert!(matches!(error, ReadError::WrongDigest { .. }), "{error}");
}

/// A layer as anybody might write it.
struct Hostile(tar::Builder<Vec<u8>>);

impl Hostile {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn add(mut self, kind: tar::EntryType, name: &str, link: &str, content: &[u8]) -> Self {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        let ustar = header.as_ustar_mut().unwrap();
        ustar.name[..name.len()].copy_from_slice(name.as_bytes());
        ustar.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn file(self, name: &str) -> Self {
        self.add(tar::EntryType::Regular, name, "", name.as_bytes())
    }

    fn directory(self, name: &str) -> Self {
        self.add(tar::EntryType::Directory, name, "", b"")
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.add(tar::EntryType::Symlink, name, target, b"")
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// Unpacks layers, the lowest first, into `tree` below a directory that also has the file `outside`.
fn unpack_layers(layers: Vec<Hostile>) -> (tempfile::TempDir, Result<(), ReadError>) {
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree");
    fs_err::create_dir(&tree).unwrap();
    fs_err::write(directory.path().join("outside"), "safe").unwrap();
    let mut image = Image {
        config: None,
        manifest: None,
        name: None,
        names: Vec::new(),
        tag: None,
        layers: Vec::new(),
        limits: Limits::USUAL,
    };
    for layer in layers {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&layer.bytes()).unwrap();
        let input = Input::parse(OsStr::new(&format!("layer:{}", file.path().display()))).unwrap();
        image.layers.append(&mut Image::open(&input, &Reading::default()).unwrap().layers);
    }
    let result = image.unpack(&tree, &mut || ()).map(drop);
    assert_eq!(fs_err::read_to_string(directory.path().join("outside")).unwrap(), "safe");
    assert_eq!(fs_err::read_dir(directory.path()).unwrap().count(), 2);
    (directory, result)
}

#[test]
fn names_that_lead_out_are_refused() {
    use tar::EntryType::Link;
    for (what, layer) in [
        ("..", Hostile::new().file("../outside")),
        (".. inside", Hostile::new().directory("a").file("a/../../outside")),
        ("below a file", Hostile::new().file("f").file("f/g")),
        ("hard link out", Hostile::new().add(Link, "l", "../outside", b"")),
        ("hard link to nothing", Hostile::new().add(Link, "l", "none", b"")),
        ("hard link to itself", Hostile::new().file("l").add(Link, "l", "l", b"")),
        ("whiteout of nothing", Hostile::new().file(".wh.")),
        ("whiteout of the parent", Hostile::new().directory("a").file("a/.wh...")),
        ("a root of content", Hostile::new().file("./")),
        ("a file as root", Hostile::new().symlink("/", "outside")),
    ] {
        let (_directory, result) = unpack_layers(vec![layer]);
        assert!(result.is_err(), "{what}");
    }
}

#[test]
fn links_lead_nowhere_outside() {
    let layer = Hostile::new()
        .symlink("up", "..")
        .symlink("far", "/etc")
        .file("up/outside")
        .file("far/passwd")
        .file("/absolute")
        .symlink("over", "/outside")
        .file("over");
    let (directory, result) = unpack_layers(vec![layer]);
    result.unwrap();
    let read = |name: &str| fs_err::read_to_string(directory.path().join("tree").join(name)).unwrap();
    // `..` of the root is the root, `/etc` is the tree's, and a link is replaced, not written through.
    assert_eq!(read("outside"), "up/outside");
    assert_eq!(read("etc/passwd"), "far/passwd");
    assert_eq!(read("absolute"), "/absolute");
    assert_eq!(read("over"), "over");
}

#[test]
fn upper_layers_hide_and_replace() {
    let lower = Hostile::new()
        .directory("etc")
        .file("etc/old")
        .file("etc/kept")
        .directory("opaque")
        .file("opaque/a")
        .directory("opaque/deep")
        .file("opaque/deep/b")
        .directory("becomes-file")
        .file("becomes-file/x")
        .file("becomes-directory")
        .directory("usr/lib")
        .symlink("lib", "usr/lib");
    let upper = Hostile::new()
        .file("etc/.wh.old")
        .file("etc/.wh.never-there")
        .file("opaque/deep/new")
        .file("opaque/.wh..wh..opq")
        .file("becomes-file")
        .directory("becomes-directory")
        .file("becomes-directory/y")
        .file("lib/through")
        .file(".wh..wh.plnk");
    let (directory, result) = unpack_layers(vec![lower, upper]);
    result.unwrap();
    let there = |name: &str| fs_err::symlink_metadata(directory.path().join("tree").join(name)).is_ok();
    let all = ["etc/kept", "opaque/deep/new", "becomes-file", "becomes-directory/y", "usr/lib/through", "lib"];
    assert_eq!(all.map(there), [true; 6]);
    let gone = ["etc/old", "opaque/a", "opaque/deep/b", "becomes-file/x", "etc/.wh.old", ".wh..wh.plnk"];
    assert_eq!(gone.map(there), [false; 6]);
}

#[test]
fn a_link_may_not_be_the_whole_archive() {
    let place = Place::new();
    let archive = Hostile::new().symlink("manifest.json", "manifest.json").bytes();
    fs_err::write(place.directory.path().join("x"), archive).unwrap();
    let error = Image::open(&place.input("docker-archive:x"), &Reading::default()).unwrap_err();
    assert!(matches!(error, ReadError::NoArchive { .. }));
}
