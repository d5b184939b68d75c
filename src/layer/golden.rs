//! The `diff_id`s of format 1 for fixed trees. None of them may ever change: an image that was built once can be built
//! again, byte for byte. A change of the format is a new format, with digests of its own beside these. A second
//! implementation, written from the specification, must agree.

use std::num::NonZeroUsize;

use super::{Compression, Sink, pack};
use crate::manifest::{Entry, Kind};
use crate::path::JailPath;
use crate::tree::Tree;
use crate::tree::sample::{Sample, path, remove_all};

fn diff_id(sample: &Sample, entries: &[&Entry]) -> String {
    let sinks: Vec<(Compression, Sink<'_>)> = vec![(Compression::None, Box::new(std::io::sink()))];
    pack(&sample.tree(), entries, sinks, NonZeroUsize::MIN, &mut |_| ()).unwrap()[0].diff_id.hex()
}

#[track_caller]
fn assert_golden(sample: &Sample, expected: &str) {
    assert_eq!(diff_id(sample, &sample.entries()), expected);
    assert_written_again(sample, &[expected]);
}

/// What `docs/format.md` alone says: `fixtures/format1.py` shares no code with this room.
#[track_caller]
fn assert_written_again(sample: &Sample, expected: &[&str]) {
    if !nix::unistd::geteuid().is_root() {
        return println!("skipped: only root reads every file of the tree");
    }
    let directory = tempfile::tempdir().unwrap();
    let (lock, tree) = (directory.path().join("lock"), directory.path().join("tree"));
    fs_err::write(&lock, sample.manifest.to_json()).unwrap();
    fs_err::create_dir(&tree).unwrap();
    // The contents are all that is read there; not every file system holds everything else.
    let mut contents = sample.manifest.clone();
    contents.entries.retain(|entry| matches!(entry.kind, Kind::Directory | Kind::File { .. }));
    contents.entries.iter_mut().for_each(|entry| entry.xattrs.clear());
    Tree { manifest: &contents, ..sample.tree() }.write_to(&tree, &mut |_| ()).unwrap();
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/format1.py");
    let output = std::process::Command::new("python3").arg(program).args([&lock, &tree]).output().unwrap();
    remove_all(&tree).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    let diff_ids: Vec<&str> = said.lines().map(|line| line.trim_start_matches("sha256:")).collect();
    assert_eq!(&diff_ids[..diff_ids.len() - 1], expected);
}

fn long(byte: u8, length: usize) -> String {
    String::from_utf8(vec![byte; length]).unwrap()
}

#[test]
fn everything() {
    assert_golden(&Sample::varied(), "90f0e7de1cb47591b4489c9e93101c386b667207819eca3debf9afe5b039147c");
}

#[test]
fn everything_in_three_layers() {
    let sample = Sample::varied().in_layers();
    let found: Vec<String> = sample
        .manifest
        .layers()
        .iter()
        .map(|entries| diff_id(&sample, &entries.iter().map(AsRef::as_ref).collect::<Vec<_>>()))
        .collect();
    let expected = [
        "2449ca2f60a5bee6054e6c62202ee3c0c459e46df5e6409e1d2629ff026c51ba",
        "89c61da7972000e20ee78686fca1f6b306d09192a495cb8eda2f6208a7c0897e",
        "8d0fd984839328848b8c855279650677076e3f6d4ab9e37fde5bfd2016c44c4e",
    ];
    assert_eq!(found, expected);
    assert_written_again(&sample, &expected);
}

#[test]
fn nothing_but_the_root() {
    assert_golden(&Sample::new(), "afe5c1fb31752ba60b4e2a717a24d04f73897e3be98748b1de151cb2c5900b82");
}

#[test]
fn hard_links() {
    let link = || Kind::HardLink { to: path("/a/first") };
    let sample = Sample::new().file("/a/first", b"content").with("/a/second", link()).with("/z/third", link());
    assert_golden(&sample, "49109e07305cdeb290aa14070c8550aa113025ba592c51c24abb1d0078e97643");
}

#[test]
fn links_that_are_long_absolute_or_lead_nowhere() {
    let target = |text: &[u8]| Kind::Symlink { target: text.to_vec() };
    let sample = Sample::new()
        .with("/absolute", target(b"/usr/bin"))
        .with("/dangling", target(b"../../nowhere"))
        .with("/fits", target(long(b't', 100).as_bytes()))
        .with("/long", target(long(b't', 101).as_bytes()))
        .with("/longest", target(long(b't', 4095).as_bytes()))
        .with("/raw", target(b"\xff\xfe"));
    assert_golden(&sample, "f65e63e1a3bd7142c43a42622b716eeffc6337b5f3870c87a948d656d4475af8");
}

#[test]
fn sparse_files() {
    let sample = Sample::new().file("/zeros", &vec![0; 3_000_000]);
    let sample = sample.file("/island", &[vec![0; 1 << 20], b"land".to_vec(), vec![0; 1 << 20]].concat());
    assert_golden(&sample, "bf21ccd49e4e1a85abe08c6158316b7e7bf03735c1b45b83956e63a73788cd1d");
}

#[test]
fn names_of_every_length() {
    let mut sample = Sample::new();
    for length in [1, 99, 100, 101, 155, 156, 200, 255] {
        sample = sample.file(&format!("/{}", long(b'n', length)), b"x");
        sample = sample.with(&format!("/{}/{}", long(b'd', length), long(b'e', length)), Kind::Directory);
    }
    let deep = format!("/{}", [long(b'p', 200).as_str(); 30].join("/"));
    assert_golden(&sample.file(&deep, b"below"), "0dac2cb55a4215a360362559e03cdb4da83af30b5982542cf707b7ee3619214a");
}

#[test]
fn names_of_any_bytes() {
    let mut sample = Sample::new().file("/with blank\nand\tmore", b"").file("/\u{e4}\u{1f600}", b"");
    for (bytes, length) in [(b"/\xff\xfe".as_slice(), 0), (b"/\xc3".as_slice(), 120), (b"/\x01\x7f".as_slice(), 0)] {
        let name = [bytes, &vec![b'l'; length]].concat();
        sample = sample.with_path(&JailPath::parse(&name).unwrap(), Kind::Fifo);
    }
    assert_golden(&sample, "686ee013b7973109740e66d43f125042c1c011d6e2ccb7c667807ec62ecd5e1f");
}

#[test]
fn extended_attributes() {
    let mut sample = Sample::new().file("/ping", b"ping").with("/d", Kind::Directory);
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let ping = sample.entry("/ping");
    ping.xattrs.insert("security.capability".to_owned(), capability.to_vec());
    ping.xattrs.insert("user.empty".to_owned(), Vec::new());
    ping.xattrs.insert("user.long".to_owned(), vec![b'\n'; 5000]);
    sample.entry("/d").xattrs.insert("user.\u{e4}".to_owned(), b"\xff".to_vec());
    assert_golden(&sample, "de35d7837bcd6b097ccd1e278058a65aacdf03d09c696749211b5eb8a77609ff");
}

#[test]
fn devices_and_pipes() {
    let sample = Sample::new()
        .with("/block", Kind::BlockDevice { major: 259, minor: 2_097_151 })
        .with("/null", Kind::CharDevice { major: 1, minor: 3 })
        .with("/pipe", Kind::Fifo);
    assert_golden(&sample, "3eb2d2910d7ac14eb24d0a643a4968f1e75e22ece5be5bfa63be9ced96baac41");
}

#[test]
fn modes_and_owners() {
    let mut sample = Sample::new();
    let kinds =
        [(0o4755, 0, 0), (0o2755, 65_534, 65_534), (0o1777, 2_097_151, 2_097_151), (0, 2_097_152, 4_294_967_294)];
    for (number, (mode, uid, gid)) in kinds.into_iter().enumerate() {
        sample = sample.file(&format!("/f{number}"), b"").with(&format!("/d{number}"), Kind::Directory);
        for at in [format!("/f{number}"), format!("/d{number}")] {
            let entry = sample.entry(&at);
            (entry.mode, entry.uid, entry.gid) = (mode, uid, gid);
        }
    }
    assert_golden(&sample, "9a53686ef6b65a75ab14a21ba994358124751a9ccdec4a4cf75b8ebf38b57f51");
}

#[test]
fn times_before_1970_and_after_2106() {
    let mut sample = Sample::new();
    for mtime in
        [-62_135_596_800, -1, 0, 1, 2_147_483_648, 4_294_967_296, 8_589_934_591, 8_589_934_592, 253_402_300_799]
    {
        let at = format!("/at{mtime}");
        sample = sample.file(&at, b"");
        sample.entry(&at).mtime = mtime;
    }
    assert_golden(&sample, "bca896857f36f475f730b4d091a0dc84ec56696f1aedf8810a1173859362ec4c");
}
