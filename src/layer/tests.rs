//! What readers make of the layers, ours and others', and that the bytes are always the same.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::untar::{MemberKind, Untar};
use super::*;
use crate::manifest::Hasher;
use crate::manifest::{Entry, Kind};
use crate::tree::sample::{Sample, any_tree, path};

#[test]
fn the_compressor_is_the_one_that_is_built_in() {
    let lock = include_str!("../../Cargo.lock");
    assert!(lock.contains(&format!("name = \"zlib-rs\"\nversion = \"{ZLIB_RS}\"\n")));
    assert_eq!(Compression::GZIP.compressor(), format!("zlib-rs {ZLIB_RS}"));
    assert!(Compression::ZSTD.compressor().starts_with("libzstd 1."));
}

/// A sink that the test can look into.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn packed_by(sample: &Sample, compression: Compression, threads: usize) -> (Vec<u8>, Layer) {
    let memory = Memory::default();
    let sinks: Vec<(Compression, Sink<'_>)> = vec![(compression, Box::new(memory.clone()))];
    let threads = NonZeroUsize::new(threads).unwrap();
    let layer = pack(&sample.tree(), &sample.entries(), sinks, threads, &mut |_| ()).unwrap().remove(0);
    let bytes = memory.0.lock().unwrap().clone();
    (bytes, layer)
}

fn packed(sample: &Sample) -> Vec<u8> {
    packed_by(sample, Compression::None, 1).0
}

/// Several blocks' worth of content that compresses neither well nor badly.
fn large() -> Sample {
    let mut state = 1_u64;
    let bytes = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        b"abcdefgh"[usize::from(state.to_be_bytes()[0] % 8)]
    });
    Sample::varied().file("/large", &bytes.take(9_500_000).collect::<Vec<_>>())
}

#[test]
fn compressions_are_what_they_print() {
    for compression in [Compression::None, Compression::Gzip(1), Compression::GZIP, Compression::Zstd(19)] {
        assert_eq!(compression.to_string().parse(), Ok(compression));
    }
    assert_eq!("gzip".parse(), Ok(Compression::GZIP));
    for wrong in ["", "xz", "gzip:0", "gzip:10", "zstd:20", "zstd:", "none:1"] {
        assert_eq!(wrong.parse::<Compression>(), Err(UnknownCompression(wrong.to_owned())));
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let sample = large();
    let (plain, described) = packed_by(&sample, Compression::None, 1);
    assert_eq!(described.diff_id, Digest::of(&plain));
    assert_eq!(size(&sample.entries()).unwrap(), plain.len() as u64);
    for compression in [Compression::None, Compression::GZIP, Compression::ZSTD] {
        let (bytes, layer) = packed_by(&sample, compression, 1);
        assert_eq!((layer.digest, layer.size), (Digest::of(&bytes), bytes.len() as u64));
        assert_eq!(layer.diff_id, described.diff_id);
        for threads in [1, 2, 3, 7] {
            assert!(packed_by(&sample, compression, threads) == (bytes.clone(), layer.clone()), "{compression}");
        }
        let mut back = Vec::new();
        match compression {
            Compression::None => back.clone_from(&bytes),
            Compression::Gzip(_) => {
                // One member: a reader that stops after the first has all.
                flate2::bufread::GzDecoder::new(bytes.as_slice()).read_to_end(&mut back).map(drop).unwrap();
            }
            Compression::Zstd(_) => back = zstd::decode_all(bytes.as_slice()).unwrap(),
        }
        assert!(back == plain, "{compression}");
    }
}

#[test]
fn many_sinks_share_one_reading() {
    let sample = large();
    let memories: [Memory; 4] = Default::default();
    let compressions = [Compression::GZIP, Compression::None, Compression::GZIP, Compression::ZSTD];
    let sinks = compressions.iter().zip(&memories).map(|(compression, memory)| {
        let sink: Sink<'_> = Box::new(memory.clone());
        (*compression, sink)
    });
    let mut told = 0;
    let layers =
        pack(&sample.tree(), &sample.entries(), sinks.collect(), NonZeroUsize::MIN, &mut |bytes| told += bytes)
            .unwrap();
    assert_eq!(told, size(&sample.entries()).unwrap());
    for (layer, memory) in layers.iter().zip(&memories) {
        assert_eq!(layer.digest, Digest::of(&memory.0.lock().unwrap()));
    }
    assert_eq!(layers[0], layers[2]);
}

#[test]
fn a_sink_that_fails_ends_the_packing() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let sample = large();
    for compression in [Compression::None, Compression::GZIP, Compression::ZSTD] {
        let sinks: Vec<(Compression, Sink<'_>)> =
            vec![(Compression::None, Box::new(Memory::default())), (compression, Box::new(Full))];
        let error =
            pack(&sample.tree(), &sample.entries(), sinks, NonZeroUsize::new(2).unwrap(), &mut |_| ()).unwrap_err();
        assert!(matches!(error, LayerError::Write(error) if error.kind() == io::ErrorKind::StorageFull));
    }
}

#[test]
fn content_that_is_not_the_manifests_ends_the_packing() {
    let mut sample = large();
    sample.sources.insert(path("/large"), crate::manifest::Source::Made(vec![0; 9_500_000]));
    let sinks: Vec<(Compression, Sink<'_>)> = vec![(Compression::GZIP, Box::new(Memory::default()))];
    let error = pack(&sample.tree(), &sample.entries(), sinks, NonZeroUsize::MIN, &mut |_| ()).unwrap_err();
    assert!(matches!(error, LayerError::Content(TreeError::Changed { .. })));
}

fn described(entry: &Entry) -> (Vec<u8>, u32, u64, u64, i64, u64) {
    let size = if let Kind::File { size, .. } = entry.kind { size } else { 0 };
    (entry.path.as_bytes().to_vec(), entry.mode, entry.uid.into(), entry.gid.into(), entry.mtime, size)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_written_is_read(sample in any_tree()) {
        let bytes = packed(&sample);
        let mut untar = Untar::new(bytes.as_slice());
        for entry in &sample.manifest.entries {
            let member = untar.next_member().unwrap().unwrap();
            let name = [b"/", member.name.strip_prefix(b"./").unwrap_or(&member.name)].concat();
            let found = (JailPathBytes::of(&name), member.mode, member.uid, member.gid, member.mtime, member.size);
            prop_assert_eq!(found, described(entry));
            if let Kind::Symlink { target } = &entry.kind {
                prop_assert_eq!(&member.kind, &MemberKind::Symlink(target.clone()));
            }
            if let Kind::File { sha256, .. } = &entry.kind {
                let mut hasher = Hasher::default();
                let mut buffer = [0; 777];
                loop {
                    match untar.read_some(&mut buffer).unwrap() {
                        0 => break,
                        count => hasher.update(&buffer[..count]),
                    }
                }
                prop_assert_eq!(Some(hasher.finish().0), sha256.get());
            }
        }
        prop_assert_eq!(untar.next_member().unwrap(), None);
    }
}

struct JailPathBytes;

impl JailPathBytes {
    fn of(name: &[u8]) -> Vec<u8> {
        crate::path::JailPath::parse(name).unwrap().as_bytes().to_vec()
    }
}

/// Says which tool is missing; where nothing may be missing, that is a failure.
#[expect(clippy::disallowed_methods, reason = "the test command says what may be missing")]
fn skipped<T>(tool: &str) -> Option<T> {
    assert!(
        std::env::var_os("MINJAIL_TESTS_NO_SKIP").is_none(),
        "{tool} cannot be run, and nothing may be skipped here"
    );
    println!("skipped: {tool} cannot be run");
    None
}

/// Extracts a layer with another tool; `None` if the tool is not there.
fn extracted(sample: &Sample, tool: &str, options: &[&str]) -> Option<tempfile::TempDir> {
    let directory = tempfile::tempdir().unwrap();
    let archive = tempfile::NamedTempFile::new().unwrap();
    fs_err::write(archive.path(), packed(sample)).unwrap();
    let mut command = Command::new(tool);
    command.args(options).arg("-xpf").arg(archive.path()).arg("-C").arg(directory.path());
    let output = match command.env("LC_ALL", "C.UTF-8").output() {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
            return skipped(tool);
        }
        output => output.unwrap(),
    };
    assert!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
    Some(directory)
}

fn check_extracted(sample: &Sample, tool: &str, options: &[&str]) {
    if let Some(directory) = extracted(sample, tool, options) {
        let mut differences = sample.differences(directory.path());
        // bsdtar sets the time of `./` when it comes, not at the end.
        differences.retain(|difference| tool != BSD_TAR.0 || !difference.starts_with("/: time"));
        assert_eq!(differences, [""; 0], "{tool}");
    }
}

const GNU_TAR: (&str, &[&str]) = ("tar", &["--xattrs", "--xattrs-include=*", "--delay-directory-restore"]);
const BSD_TAR: (&str, &[&str]) = ("bsdtar", &["--numeric-owner"]);

#[test]
fn other_tars_read_everything() {
    check_extracted(&Sample::varied(), GNU_TAR.0, GNU_TAR.1);
    check_extracted(&Sample::varied(), BSD_TAR.0, BSD_TAR.1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn gnu_tar_reads_any_tree(sample in any_tree()) {
        check_extracted(&sample, GNU_TAR.0, GNU_TAR.1);
    }

    #[test]
    fn bsdtar_reads_any_tree(sample in any_tree()) {
        check_extracted(&sample, BSD_TAR.0, BSD_TAR.1);
    }
}

/// One line for each member: what Python's `tarfile` says of it, names in hexadecimal.
const PYTHON: &str = r#"
import hashlib, os, sys, tarfile
hexed = lambda text: os.fsencode(text).hex()
for member in tarfile.open(sys.argv[1], encoding="utf-8", errors="surrogateescape"):
    content = hashlib.sha256(tarfile.open(sys.argv[1]).extractfile(member).read()).hexdigest() if member.isreg() else "-"
    print(member.type.decode(), hexed(member.name), oct(member.mode), member.uid, member.gid, int(member.mtime),
          member.size, hexed(member.linkname) or "-", content)
"#;

fn python_says(archive: &Path) -> Option<String> {
    let output = match Command::new("python3").args(["-X", "utf8", "-c", PYTHON]).arg(archive).output() {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
            return skipped("python3");
        }
        output => output.unwrap(),
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

fn python_should_say(entry: &Entry) -> String {
    let hex = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
    };
    let (kind, link, content) = match &entry.kind {
        Kind::File { sha256, .. } => ("0", String::new(), sha256.get().unwrap().hex()),
        Kind::HardLink { to } => ("1", hex(&to.as_bytes()[1..]), String::new()),
        Kind::Symlink { target } => ("2", hex(target), String::new()),
        Kind::CharDevice { .. } => ("3", String::new(), String::new()),
        Kind::BlockDevice { .. } => ("4", String::new(), String::new()),
        Kind::Directory => ("5", String::new(), String::new()),
        Kind::Fifo => ("6", String::new(), String::new()),
    };
    let (_, mode, uid, gid, mtime, size) = described(entry);
    let dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let name = if entry.path.is_root() { hex(b".") } else { hex(&entry.path.as_bytes()[1..]) };
    format!("{kind} {name} 0o{mode:o} {uid} {gid} {mtime} {size} {} {}\n", dash(link), dash(content))
}

fn check_python(sample: &Sample) {
    let archive = tempfile::NamedTempFile::new().unwrap();
    fs_err::write(archive.path(), packed(sample)).unwrap();
    if let Some(said) = python_says(archive.path()) {
        assert_eq!(said, sample.manifest.entries.iter().map(python_should_say).collect::<String>());
    }
}

#[test]
fn python_reads_everything() {
    let sample = Sample::varied()
        .with("/dev/null", Kind::CharDevice { major: 1, minor: 3 })
        .with("/dev/disk", Kind::BlockDevice { major: 259, minor: 1_000_000 });
    check_python(&sample);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn python_reads_any_tree(sample in any_tree()) {
        check_python(&sample);
    }
}
