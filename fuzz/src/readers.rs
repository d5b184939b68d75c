//! What minjail reads that strangers may have written. Whatever it is: an answer or an error, no panic, nothing absurd of
//! memory or time; and what was read and written again is the same when it is read once more.
//!
//! The fuzzer calls these with bytes of its own, `tests/seeds.rs` with those in `seeds/`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use minjail::elf::LdCache;
use minjail::image::{Image, Input, Limits, Reading};
use minjail::layer::untar::Untar;
use minjail::manifest::Manifest;
use minjail::trace::{Trace, write_run};

/// A whole image with one empty layer, each document by its digest: the manifest, the configuration, the layer.
const BLOBS: [(&str, &str); 3] = [
    (
        "0316acb8a214d9c9c1874eda5feba148a152580b7bb17c709b25bf19703fcae5",
        r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:6a16a99ca6e7204de0f63a89476932d1997d29a2e5ea69c4b88dfe20455934de","size":175},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef","size":1024}]}"#,
    ),
    (
        "6a16a99ca6e7204de0f63a89476932d1997d29a2e5ea69c4b88dfe20455934de",
        r#"{"architecture":"amd64","os":"linux","config":{"Cmd":["/x"]},"rootfs":{"type":"layers","diff_ids":["sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"]}}"#,
    ),
    ("5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef", EMPTY),
];
const EMPTY: &str = match std::str::from_utf8(&[0; 1024]) {
    Ok(text) => text,
    Err(_) => panic!("zeros are UTF-8"),
};
const DOCKER: &str = r#"[{"Config":"config.json","RepoTags":["x:1"],"Layers":["layer.tar"]}]"#;

/// A layer, as a stream.
pub(crate) fn tar(bytes: &[u8]) {
    let mut archive = Untar::new(bytes);
    let mut piece = [0; 100];
    let mut odd = false;
    while let Ok(Some(member)) = archive.next_member() {
        assert!(member.offset as usize <= bytes.len(), "contents are in the stream");
        odd = !odd;
        // Some are read, some are skipped.
        if odd {
            let mut size = 0;
            while let Ok(count @ 1..) = archive.read_some(&mut piece) {
                size += count as u64;
            }
            assert!(size <= member.size);
        }
    }
    let _ = archive.drain();
}

/// The documents of an image: `index.json`, or docker's `manifest.json`, or a configuration. What they name is there.
pub(crate) fn image(bytes: &[u8]) {
    let Some((kind, document)) = bytes.split_first() else { return };
    let directory = scratch();
    let write = |name: &str, content: &[u8]| {
        let path = directory.path().join(name);
        fs_err::create_dir_all(path.parent().expect("it is in the directory")).expect("it can be written");
        fs_err::write(path, content).expect("it can be written");
    };
    let form = match kind % 3 {
        0 => {
            write("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
            write("index.json", document);
            for (digest, content) in BLOBS {
                write(&format!("blobs/sha256/{digest}"), content.as_bytes());
            }
            "oci"
        }
        kind => {
            let (manifest, config) =
                if kind == 1 { (document, BLOBS[1].1.as_bytes()) } else { (DOCKER.as_bytes(), document) };
            let names: [(&str, &[u8]); 3] =
                [("manifest.json", manifest), ("config.json", config), ("layer.tar", &[0; 1024])];
            let archive: Vec<u8> = names.into_iter().flat_map(|(name, content)| member(name, content)).collect();
            write("archive.tar", &[archive, vec![0; 1024]].concat());
            "docker-archive"
        }
    };
    let path = if form == "oci" { directory.path().to_owned() } else { directory.path().join("archive.tar") };
    open(form, &path, directory.path());
}

/// Reads an image, and unpacks it.
fn open(form: &str, path: &Path, scratch: &Path) {
    let mut text = OsString::from(format!("{form}:"));
    text.push(path);
    let reading = Reading { platform: None, limits: Limits { size: 1 << 20, entries: 1000 } };
    let input = Input::parse(&text).expect("a plain path");
    let Ok(image) = Image::open(&input, &reading) else { return };
    let _ = image.entries();
    let out = scratch.join("out");
    fs_err::create_dir(&out).expect("it is new");
    let _ = image.unpack(&out, &mut || ());
}

pub(crate) fn elf(bytes: &[u8]) {
    if let Ok(elf) = minjail::elf::read(bytes) {
        let _ = elf.is_static();
    }
}

pub(crate) fn ld_cache(bytes: &[u8]) {
    let Ok(cache) = LdCache::parse(bytes) else { return };
    for entry in cache.entries() {
        // What is found may be spelled otherwise (the loader takes `1` for `01`), or hidden by a cache out of order.
        let _ = cache.lookup(&entry.soname);
    }
    if let Ok(written) = cache.to_bytes() {
        let again = LdCache::parse(&written).expect("our own can be read");
        assert_eq!(again.to_bytes().expect("it was written before"), written);
    }
}

pub(crate) fn trace(bytes: &[u8]) {
    let directory = scratch();
    let read = |bytes: &[u8]| {
        fs_err::write(directory.path().join("trace.jsonl"), bytes).expect("it can be written");
        Trace::read(&[PathBuf::from(directory.path())])
    };
    let Ok(trace) = read(bytes) else { return };
    let mut written = Vec::new();
    for run in &trace.runs {
        write_run(&mut written, run).expect("memory can be written");
    }
    assert_eq!(read(&written).expect("our own can be read").runs, trace.runs);
}

pub(crate) fn profile(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let read = |name: &str, _: Option<&str>| match name {
        "own" => Ok(("own.yaml".to_owned(), text.to_owned())),
        _ => Err(std::io::ErrorKind::NotFound.into()),
    };
    if let Err(error) = minjail::profile::load("own", &read) {
        assert!(!error.to_string().is_empty());
    }
}

pub(crate) fn lock(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(manifest) = Manifest::parse(text) else { return };
    let written = manifest.to_json();
    let again = Manifest::parse(&written).expect("our own can be read");
    assert_eq!(again.to_json(), written);
}

/// In memory, where there is such a place: the fuzzer makes thousands a second.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("temporary files can be made")
}

/// One file of a tar archive.
fn member(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000644\0");
    header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    header[148..156].copy_from_slice(b"        ");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let padding = vec![0; content.len().next_multiple_of(512) - content.len()];
    [header, content.to_vec(), padding].concat()
}
