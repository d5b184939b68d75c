//! Images that strangers have made to keep minjail busy, or to fill the machine's memory: small ones, within all limits that
//! count. Each is refused with a reason, or read in a time and memory that its size accounts for.
//!
//! What bounds a case is the kernel (`setrlimit(2)`): memory by the address space, and time by what minjail computes, which
//! is the same on a machine that does other things at once.

mod support;

use std::path::Path;

use support::crafted::{Compression, MANIFEST, Parts, Tar, archive, blob, docker, lay_out, oci, sha256, tar};
use support::{Outcome, TestContext, outcome_of};

/// Some hundred threads' stacks, and a few times what the largest of these images needs.
const MEMORY: &str = "--as=1073741824";

/// In seconds, far above what any of these needs: creating thousands of files costs the kernel some, too.
const COMPUTING: &str = "--cpu=30";

struct Ground(TestContext);

impl Ground {
    fn new() -> Self {
        Self(TestContext::new())
    }

    /// Every form and compression of an image of these layers, unpacked and compared with itself.
    #[track_caller]
    fn each(&self, case: &str, layers: &[Vec<u8>], refused: Option<&str>) {
        for compression in [Compression::Plain, Compression::Gzip, Compression::Zstd] {
            self.check(case, &oci(layers, compression), true, refused);
            self.check(case, &docker(layers, compression), false, refused);
        }
    }

    /// One form, where there are very many members.
    #[track_caller]
    fn one(&self, case: &str, layers: &[Vec<u8>], refused: Option<&str>) {
        self.check(case, &docker(layers, Compression::Gzip), false, refused);
    }

    #[track_caller]
    fn check(&self, case: &str, parts: &Parts, is_oci: bool, refused: Option<&str>) {
        let [image, tree] = ["image", "tree"].map(|name| self.0.path(name));
        let name = if is_oci {
            lay_out(parts, &image);
            format!("oci:{}", image.display())
        } else {
            fs_err::write(&image, archive(parts)).expect("the directory can be written");
            format!("docker-archive:{}", image.display())
        };
        let unpacked = self.bounded(&["unpack", "-q", &name, "-o", &format!("rootfs:{}", tree.display())]);
        assert_eq!(unpacked.status == 0, tree.exists(), "{case}: {unpacked}");
        let compared = self.bounded(&["diff", &name, &name]);
        for outcome in [unpacked, compared] {
            let message = outcome.stderr.as_str();
            match refused {
                None => assert_eq!(outcome.status, 0, "{case}: {outcome}"),
                Some(words) => {
                    assert!(outcome.status == 125 && message.contains(words), "{case}: {outcome}");
                }
            }
            assert!(message.len() < 1000 && !message.contains("panicked"), "{case}: {outcome}");
        }
        for made in [&tree, &tree.with_extension("lock"), &image] {
            remove(made);
        }
        assert_eq!(self.0.listing(), ["work"], "{case}");
    }

    fn bounded(&self, arguments: &[&str]) -> Outcome {
        let mut command = self.0.command("prlimit");
        // Each thread may reserve a heap of 64 MiB, which counts as address space (`mallopt(3)`, M_ARENA_MAX).
        command.args([MEMORY, COMPUTING, "--core=0", "--", support::minjail()]).env("MALLOC_ARENA_MAX", "2");
        outcome_of(command.args(arguments))
    }
}

fn remove(path: &Path) {
    minjail::publish::remove_all(path).expect("what was made can be removed");
}

/// A member of another kind, with a name and a link's text of any length.
fn long(tar: Tar, kind: u8, name: &str, link: &str) -> Tar {
    tar.pax(&[("path", name.as_bytes()), ("linkpath", link.as_bytes())]).member(kind, "x", "y", b"")
}

const DEEP: Option<&str> = Some("its path has more than 2,500 components");
const LONG: Option<&str> = Some("its path is longer than 16 KiB");
const TEXT: Option<&str> = Some("a link with a text of more than 4,095 bytes");
const MANY: Option<&str> = Some("the image has more than 1000000 entries");

#[test]
fn deep_and_long_paths() {
    let ground = Ground::new();
    let wide = format!("{}/", "n".repeat(250));
    let nested = |depth: usize| (1..=depth).fold(tar(), |tar, depth| long(tar, b'5', &"d/".repeat(depth), "")).end();
    // Every link adds 4,000 bytes to the path, or 2,000 components.
    let (text, steps) = (wide.repeat(15), "d/".repeat(2000));
    let behind = |text: &str| {
        let links = tar().symlink("l0", ".");
        (1..9).fold(links, |tar, number| long(tar, b'2', &format!("l{number}"), &format!("l{}/{text}", number - 1)))
    };
    ground.each("100,000 components", &[long(tar(), b'0', &("a/".repeat(100_000) + "x"), "").end()], DEEP);
    ground.each("a hard link to 100,000", &[long(tar(), b'1', "h", &"a/".repeat(100_000)).end()], DEEP);
    ground.each("10,000 components", &[long(tar(), b'5', &"d/".repeat(10_000), "").end()], DEEP);
    ground.each("20,000 bytes", &[long(tar(), b'0', &(wide.repeat(80) + "x"), "").end()], LONG);
    ground.each("20,000 bytes behind links", &[behind(&text).file("l8/x", "").end()], LONG);
    ground.each("16,000 components behind links", &[behind(&steps).file("l8/x", "").end()], DEEP);
    ground.one("2,500 directories", &[long(tar(), b'0', &("d/".repeat(2499) + "x"), "").end()], None);
    ground.one("5,000 directories, each named", &[nested(5000)], DEEP);
    ground.one("500 directories, each named", &[nested(500)], None);
    // A few kilobytes each, and the directories that are not named take megabytes.
    let trees = |count: usize| {
        (0..count).fold(tar(), |tar, number| long(tar, b'5', &format!("{number}/{}", "d/".repeat(2400)), "")).end()
    };
    ground.one("20 times 2,400 directories", &[trees(20)], MANY);
    let far = |count: usize| {
        (0..count).fold(tar(), |tar, at| long(tar, b'0', &format!("{}{at}", "d/".repeat(2400)), "")).end()
    };
    ground.one("20,000 files far down", &[far(20_000)], MANY);
    ground.one("100 files far down", &[far(100)], None);
}

#[test]
fn links_that_are_long_or_many() {
    let ground = Ground::new();
    let linked = |text: &str| long(tar(), b'2', "l", text).file("l/f", "").end();
    ground.each("a text of 100,000 components", &[linked(&"a/".repeat(100_000))], TEXT);
    ground.each("a text of 4,000,000 bytes", &[linked(&"a/".repeat(2_000_000))], TEXT);
    ground.each("a text of 4,096 bytes", &[linked(&"x".repeat(4096))], TEXT);
    ground.one("a text of 4,095 bytes", &[linked(&("a/".repeat(2047) + "b"))], None);
    let files = |tar: Tar, count: usize| (0..count).fold(tar, |tar, at| tar.file(&format!("l39/{at}"), "")).end();
    let dots = long(tar(), b'2', "l39", &"./".repeat(1_900_000));
    ground.one("2,000 files behind dots", &[files(dots, 2000)], TEXT);
    let chain = |text: &str| {
        (1..40).fold(tar().directory("l0"), |tar, at| long(tar, b'2', &format!("l{at}"), &format!("{text}l{}", at - 1)))
    };
    ground.one("3,000 files behind a chain", &[files(chain(""), 3000)], None);
    ground.one("2,000 files behind a chain of dots", &[files(chain(&"./".repeat(2000)), 2000)], MANY);
}

/// Whiteouts and replacements, of which each had gone through all that there is.
#[test]
fn hiding_and_replacing() {
    let ground = Ground::new();
    let many = |tar: Tar, count: usize, name: &dyn Fn(usize) -> String| {
        (0..count).fold(tar, |tar, number| tar.file(&name(number), ""))
    };
    let files = |tar: Tar| many(tar, 4000, &|number| format!("d/{number}"));
    let opaque = |tar: Tar| many(tar, 4000, &|_| "d/.wh..wh..opq".to_owned());
    let hidden = |tar: Tar| many(tar, 4000, &|_| ".wh.d".to_owned());
    ground.one("opaque again and again", &[opaque(files(tar())).end()], None);
    ground.one("opaque above a lower layer", &[files(tar()).end(), opaque(files(tar())).end()], None);
    ground.one("hidden again and again", &[hidden(files(tar())).end()], None);
    let directories = (0..10_000).fold(tar(), |tar, number| tar.directory(&format!("d/{number}")));
    ground.one("directories replaced", &[many(directories, 10_000, &|number| format!("d/{number}")).end()], None);
}

/// Few members, of which each has, or takes over, much that is not its name.
#[test]
fn what_extended_headers_say() {
    let ground = Ground::new();
    let value = vec![b'v'; 3 << 20];
    let comment = |number: usize| [(format!("comment.{number}"), value.clone())];
    let headers = |count: usize| {
        (0..count).fold(tar(), |tar, number| {
            let [(key, value)] = comment(number);
            tar.pax(&[(&key, &value)])
        })
    };
    let too_much = Some("an extended header of more than 4 MiB");
    ground.one("of one member", &[headers(30).file("x", "").end()], too_much);
    let attribute = tar().pax(&[("SCHILY.xattr.user.a", &value)]).file("f", "");
    let links = (0..2000).fold(attribute, |tar, number| tar.hard_link(&format!("h{number}"), "f"));
    ground.one("hard links to a file with much", &[links.end()], MANY);
}

/// The archive around an image has names, too.
#[test]
fn a_stray_member() {
    let ground = Ground::new();
    for name in ["s/".repeat(600_000), "n".repeat(1_200_000), "../".repeat(400_000)] {
        let image = ground.0.path("image");
        let stray = long(tar(), b'0', &name, "").end();
        let whole = archive(&docker(&[tar().file("x", "x").end()], Compression::Gzip));
        fs_err::write(&image, [&stray[..stray.len() - 1024], &whole].concat()).expect("the directory can be written");
        let image = format!("docker-archive:{}", image.display());
        let outcome = ground.bounded(&["diff", &image, &image]);
        assert_eq!(outcome.status, 0, "{outcome}");
    }
}

/// A manifest of a megabyte that has one blob as 20,000 layers: it is checked once, and unpacked no further than the limit.
#[test]
fn one_blob_as_very_many_layers() {
    let ground = Ground::new();
    let layer = tar().member(b'0', "zeros", "", &vec![0; 16 << 20]).end();
    let diff_ids = vec![format!("sha256:{}", sha256(&layer)); 20_000];
    let rootfs = serde_json::json!({"type": "layers", "diff_ids": diff_ids});
    let config = serde_json::json!({"architecture": "amd64", "os": "linux", "rootfs": rootfs});
    let mut parts = Parts::from([("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())]);
    let config = blob(&mut parts, "application/vnd.oci.image.config.v1+json", config.to_string().into_bytes());
    let layers = vec![blob(&mut parts, "application/vnd.oci.image.layer.v1.tar", layer); 20_000];
    let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
    let manifest = blob(&mut parts, MANIFEST, manifest.to_string().into_bytes());
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [manifest]});
    parts.insert("index.json".to_owned(), index.to_string().into_bytes());
    let (image, tree) = (ground.0.path("image"), ground.0.text("tree"));
    lay_out(&parts, &image);
    let image = format!("oci:{}", image.display());
    let (out, kept) = (format!("rootfs:{tree}"), format!("oci:{tree}"));
    for arguments in [
        &["unpack", &image, "-o", &out][..],
        &["unpack", &image, "--layers", "keep", "-o", &kept],
        &["diff", &image, &image],
    ] {
        let outcome = ground.bounded(&[arguments, &["--max-size", "1G"]].concat());
        outcome.assert_refused(125, &["more than 1073741824 bytes", "--max-size"]);
    }
}

#[test]
fn what_is_deeper_than_files_may_be_open_is_removed() {
    let ground = Ground::new();
    let deep = long(tar(), b'5', &"d/".repeat(2000), "").end();
    lay_out(&oci(&[deep], Compression::Plain), &ground.0.path("image"));
    let temporary = ground.0.path("temporary");
    fs_err::create_dir(&temporary).expect("the directory can be written");
    let [image, tree] =
        [("oci", "image"), ("rootfs", "tree")].map(|(form, name)| format!("{form}:{}", ground.0.text(name)));
    // The second replaces what the first has made.
    for _ in 0..2 {
        let mut command = ground.0.command("prlimit");
        command.args(["--nofile=256", "--", support::minjail()]).env("TMPDIR", &temporary);
        let outcome = outcome_of(command.args(["unpack", "-q", "--force", &image, "-o", &tree]));
        assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""), "{outcome}");
        assert_eq!(fs_err::read_dir(&temporary).expect("it is there").count(), 0);
    }
    assert_eq!(ground.0.listing(), ["image", "temporary", "tree", "tree.lock", "work"]);
}

/// A terabyte of a file that is nothing but a hole, in place of a blob or beside one, is not read.
#[test]
fn what_is_a_hole_is_not_read() {
    const HOLE: u64 = 1 << 40;
    let ground = Ground::new();
    let hole = |path: &Path, before: &[u8]| {
        fs_err::write(path, before).expect("the directory can be written");
        let file = fs_err::OpenOptions::new().write(true).open(path).expect("it is there");
        file.set_len(HOLE + before.len() as u64).expect("the file system has holes");
    };
    let digest = format!("sha256:{}", "0".repeat(64));
    for (of, words) in [("layers", "more than 68719476736 bytes"), ("config", "too many for a document")] {
        let image = ground.0.path("image");
        let mut parts = oci(&[tar().file("x", "x").end()], Compression::Plain);
        let mut index: serde_json::Value = serde_json::from_slice(&parts["index.json"]).expect("it is JSON");
        let name = index["manifests"][0]["digest"].as_str().expect("it is a text").replace("sha256:", "blobs/sha256/");
        let mut manifest: serde_json::Value = serde_json::from_slice(&parts[&name]).expect("it is JSON");
        let descriptor = if of == "config" { &mut manifest["config"] } else { &mut manifest["layers"][0] };
        (descriptor["digest"], descriptor["size"]) = (digest.clone().into(), HOLE.into());
        index["manifests"] = serde_json::json!([blob(&mut parts, MANIFEST, manifest.to_string().into_bytes())]);
        parts.insert("index.json".to_owned(), index.to_string().into_bytes());
        lay_out(&parts, &image);
        hole(&image.join("blobs/sha256").join(&digest[7..]), b"");
        let name = format!("oci:{}", image.display());
        ground.bounded(&["diff", &name, &name]).assert_refused(125, &[words]);
        fs_err::remove_dir_all(image).expect("it can be removed");
    }
    let image = ground.0.path("image");
    let size = [&[0x80, 0, 0, 0][..], &HOLE.to_be_bytes()].concat();
    let parts = docker(&[tar().file("x", "x").end()], Compression::Plain);
    for (name, refused) in [("0/layer.tar", Some("more than 68719476736 bytes")), ("stray", None), ("../stray", None)] {
        let others = parts.iter().filter(|(part, _)| *part != name);
        let whole = archive(&others.map(|(name, bytes)| (name.clone(), bytes.clone())).collect());
        let header = &tar().raw(b'0', name.as_bytes(), b"", &size, b"").end()[..512];
        hole(&image, &[&whole[..whole.len() - 1024], header].concat());
        let archive = format!("docker-archive:{}", image.display());
        let outcome = ground.bounded(&["diff", &archive, &archive]);
        match refused {
            Some(words) => outcome.assert_refused(125, &[words]),
            None => assert_eq!(outcome.status, 0, "{name}: {outcome}"),
        }
    }
}
