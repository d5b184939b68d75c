//! Images that strangers have made to do harm: each is refused with a reason, or confined to the place it is unpacked to.
//!
//! Every case is made as an OCI layout and as a docker-archive, with layers plain, in gzip and in zstd.

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use support::crafted::{Compression, MANIFEST, Parts, archive, blob, config, docker, lay_out, oci, oci_of, tar};
use support::{Outcome, TestContext, outcome_of, text};

/// A place to unpack to, and something outside that nobody may touch.
struct Ground {
    context: TestContext,
    outside: BTreeMap<String, (u32, i64, u64, Vec<u8>)>,
}

impl Ground {
    fn new() -> Self {
        let context = TestContext::new();
        let outside = context.path("outside");
        fs_err::create_dir(&outside).expect("the directory can be written");
        fs_err::write(outside.join("secret"), "not yours").expect("the directory can be written");
        let mut ground = Self { context, outside: BTreeMap::new() };
        ground.outside = ground.look();
        ground
    }

    fn secret(&self) -> String {
        self.context.text("outside/secret")
    }

    /// Everything in the directory, but for what was unpacked.
    fn look(&self) -> BTreeMap<String, (u32, i64, u64, Vec<u8>)> {
        let facts = |path: &Path| {
            let metadata = fs_err::symlink_metadata(path).expect("it is there");
            let content = if metadata.is_file() { fs_err::read(path).expect("it is readable") } else { Vec::new() };
            (metadata.mode(), metadata.mtime(), metadata.nlink(), content)
        };
        let paths =
            ["outside", "outside/secret", "work"].map(|name| (name.to_owned(), facts(&self.context.path(name))));
        let names = fs_err::read_dir(self.context.path("outside")).expect("it is readable").map(|entry| {
            let name = entry.expect("it is readable").file_name();
            (format!("outside holds {}", name.display()), (0, 0, 0, Vec::new()))
        });
        paths.into_iter().chain(names).collect()
    }

    /// Unpacks an image of these parts, and sees to it that nothing outside has changed and nothing is left of a failure.
    fn unpack(&self, case: &str, parts: &Parts, is_oci: bool, options: &[&str]) -> Outcome {
        let image = if is_oci {
            lay_out(parts, &self.context.path("image"));
            format!("oci:{}", self.context.text("image"))
        } else {
            fs_err::write(self.context.path("image"), archive(parts)).expect("the directory can be written");
            format!("docker-archive:{}", self.context.text("image"))
        };
        let outcome = self.unpack_image(case, &image, options);
        let image = self.context.path("image");
        let removed = if image.is_dir() { fs_err::remove_dir_all(image) } else { fs_err::remove_file(image) };
        removed.expect("the image can be removed");
        outcome
    }

    fn unpack_image(&self, case: &str, image: &str, options: &[&str]) -> Outcome {
        let output = format!("rootfs:{}", self.context.text("tree"));
        let mut command = self.context.minjail(&["unpack", "-q", image, "-o", &output]);
        let outcome = outcome_of(command.args(options));
        assert_eq!(self.look(), self.outside, "{case}: something outside has changed\n{outcome}");
        assert!(outcome.status == 0 || outcome.status == 125, "{case}: {outcome}");
        assert!(!outcome.stderr.contains("panicked"), "{case}: {outcome}");
        let tree = self.context.path("tree");
        assert_eq!(outcome.status == 0, tree.exists(), "{case}: {outcome}");
        if outcome.status == 0 {
            minjail::publish::remove_all(&tree).expect("the tree can be removed");
            fs_err::remove_file(self.context.path("tree.lock")).expect("the tree has its lock");
        }
        assert_eq!(self.context.listing(), self.before(), "{case}");
        outcome
    }

    /// What is there before and after each case.
    fn before(&self) -> Vec<String> {
        let mut names = vec!["outside".to_owned(), "work".to_owned()];
        if self.context.path("image").symlink_metadata().is_ok() {
            names.insert(0, "image".to_owned());
        }
        names
    }

    /// Every form and compression of an image with these layers.
    fn each(&self, case: &str, layers: &[Vec<u8>], expected: &Expected<'_>) {
        for compression in [Compression::Plain, Compression::Gzip, Compression::Zstd] {
            for is_oci in [true, false] {
                let parts = if is_oci { oci(layers, compression) } else { docker(layers, compression) };
                expected.check(&format!("{case}, {compression:?}"), &self.unpack(case, &parts, is_oci, &[]));
            }
        }
    }
}

enum Expected<'a> {
    /// It does no harm where it is.
    Confined,
    /// The message has these words.
    Refused(&'a str),
}

impl Expected<'_> {
    #[track_caller]
    fn check(&self, case: &str, outcome: &Outcome) {
        match self {
            Self::Confined => assert_eq!(outcome.status, 0, "{case}: {outcome}"),
            Self::Refused(words) => {
                assert!(outcome.status == 125 && outcome.stderr.contains(words), "{case}: {outcome}");
            }
        }
    }
}

use Expected::{Confined, Refused};

#[test]
fn names_that_lead_out() {
    let ground = Ground::new();
    let secret = ground.secret();
    let outside = ground.context.text("outside");
    let up = format!("{}{outside}", "../".repeat(40).trim_end_matches('/'));
    for (case, layer, expected) in [
        ("..", tar().file("../outside/new", "x"), Refused("it contains `..`")),
        (".. within", tar().directory("d").file("d/../../outside/new", "x"), Refused("it contains `..`")),
        ("absolute", tar().file("/outside/new", "x"), Confined),
        ("the root as a file", tar().file(".", "x"), Refused("it would replace the root directory")),
        ("no name", tar().file("", "x"), Refused("it would replace the root directory")),
        ("the root as a link", tar().symlink("/", &outside), Refused("it would replace the root directory")),
        ("below an absolute link", tar().symlink("l", &outside).file("l/new", "x"), Confined),
        ("below a link up", tar().symlink("l", &up).file("l/new", "x"), Confined),
        ("through two links", tar().symlink("a", "b").symlink("b", &up).file("a/new", "x"), Confined),
        ("a circle", tar().symlink("a", "b").symlink("b", "a").file("a/new", "x"), Refused("a/new")),
        (
            "a parent replaced",
            tar().directory("d").file("d/x", "1").symlink("d", &outside).file("d/new", "x"),
            Confined,
        ),
        ("below a file", tar().file("f", "x").file("f/new", "x"), Refused("no directory")),
        ("a hard link up", tar().hard_link("h", "../outside/secret"), Refused("it contains `..`")),
        ("a hard link out", tar().hard_link("h", &secret), Refused("a hard link to what is not there")),
        (
            "a hard link through a link",
            tar().symlink("l", &outside).hard_link("h", "l/secret"),
            Refused("a hard link to what is not there"),
        ),
        ("a hard link to itself", tar().hard_link("h", "h"), Refused("it is a hard link to itself")),
        ("a hard link to a directory", tar().directory("d").hard_link("h", "d"), Refused("a hard link to a directory")),
        ("written through a link", tar().symlink("l", &secret).file("l", "x"), Confined),
        ("written through a hard link", tar().file("f", "1").hard_link("h", "f").file("h", "2"), Confined),
        ("a link to nothing", tar().symlink("l", ""), Refused("it is a link to nothing")),
    ] {
        ground.each(case, &[layer.end()], &expected);
    }
}

#[test]
fn whiteouts_of_every_kind() {
    let ground = Ground::new();
    let lower = tar().directory("d").file("d/a", "a").file("d/b", "b").file("f", "f").end();
    for (case, layer, expected) in [
        ("up", tar().file(".wh...", ""), Refused("it hides no name")),
        ("itself", tar().file(".wh..", ""), Refused("it hides no name")),
        ("nothing", tar().file(".wh.", ""), Refused("it hides no name")),
        ("in a directory", tar().file("d/.wh...", ""), Refused("it hides no name")),
        ("below ..", tar().file("../.wh.outside", ""), Refused("it contains `..`")),
        ("through a link", tar().symlink("l", &ground.context.text("outside")).file("l/.wh.secret", ""), Confined),
        (
            "opaque through a link",
            tar().symlink("l", &ground.context.text("outside")).file("l/.wh..wh..opq", ""),
            Confined,
        ),
        ("opaque root", tar().file(".wh..wh..opq", ""), Confined),
        ("of what is not there", tar().file(".wh.nothing", ""), Confined),
        ("below a file", tar().file("f/.wh.x", ""), Confined),
        ("of AUFS", tar().directory(".wh..wh.plnk").file(".wh..wh.aufs", ""), Confined),
        (
            "a hard link to what is hidden",
            tar().file(".wh.f", "").hard_link("h", "f"),
            Refused("a hard link to what is not there"),
        ),
    ] {
        ground.each(case, &[lower.clone(), layer.end()], &expected);
    }
}

#[test]
fn names_and_numbers_at_their_ends() {
    let ground = Ground::new();
    let long = "n".repeat(255);
    let deep = "d/".repeat(2000) + "x";
    let wide = vec![long.as_str(); 23].join("/");
    let path = |path: &str| tar().pax(&[("path", path.as_bytes())]).file("x", "x");
    let base256 = |value: i64| [&[if value < 0 { 0xff } else { 0x80 }, 0, 0, 0][..], &value.to_be_bytes()].concat();
    let sized = |size: &[u8]| tar().raw(b'0', b"f", b"", size, b"x");
    for (case, layer, expected) in [
        ("255 bytes", path(&long), Confined),
        ("256 bytes", path(&"n".repeat(256)), Refused("more than 255 bytes")),
        ("2,000 directories", path(&deep), Confined),
        ("a path of 6,000 bytes", path(&wide), Confined),
        ("a NUL", tar().pax(&[("path", b"a\0b")]).file("x", "x"), Refused("NUL")),
        ("control bytes", path("a\x1b[31m\n\x7fb"), Confined),
        ("no UTF-8", tar().pax(&[("path", b"a\xff\xfe")]).file("x", "x"), Confined),
        ("twice", tar().file("f", "1").directory("f").symlink("f", "g").file("f", "4"), Confined),
        ("a negative size", sized(&base256(-1)), Refused("a size is no number")),
        ("a huge size", sized(&base256(i64::MAX)), Refused("it ends within a member")),
        ("a size of letters", sized(b"0000000zzzz\0"), Refused("is no number")),
        ("a size that is not there", sized(b"00000077777\0"), Refused("it ends within a member")),
        ("a larger size in PAX", tar().pax(&[("size", b"9999999")]).file("f", "x"), Refused("it ends within a")),
        ("a size of letters in PAX", tar().pax(&[("size", b"x")]).file("f", "x"), Refused("a number in an extended")),
        ("a negative size in PAX", tar().pax(&[("size", b"-1")]).file("f", "x"), Refused("a number in an extended")),
        ("an owner too far", tar().pax(&[("uid", b"4294967296")]).file("f", "x"), Refused("impossible number")),
        ("an owner of -1", tar().pax(&[("gid", b"4294967295")]).file("f", "x"), Refused("impossible number")),
        ("the year 1500", tar().pax(&[("mtime", b"-14831769600")]).file("f", "x"), Confined),
        ("a time far off", tar().pax(&[("mtime", b"1099511627776.999")]).file("f", "x"), Confined),
        (
            "a record without an end",
            tar().member(b'x', "h", "", b"99 path=x\n").file("f", "x"),
            Refused("wrong record"),
        ),
        ("a record of length 0", tar().member(b'x', "h", "", b"0 \n").file("f", "x"), Refused("wrong record")),
        ("a global header", tar().member(b'g', "h", "", b"14 uname=root\n").file("f", "x"), Confined),
        ("a global path", tar().member(b'g', "h", "", b"19 path=../outside\n").file("f", "x"), Confined),
        ("a sparse file of GNU", tar().member(b'S', "f", "", b"x"), Refused("a sparse file")),
        ("a sparse file in PAX", tar().pax(&[("GNU.sparse.major", b"1")]).file("f", "x"), Refused("a sparse file")),
        ("an unknown kind", tar().member(b'Z', "f", "", b""), Refused("an unknown kind")),
        ("a huge long name", tar().raw(b'L', b"l", b"", b"77777777777\0", b""), Refused("more than 4 MiB")),
        ("set-user-ID", tar().raw(b'0', b"f", b"", b"00000000001\0", b"x"), Confined),
    ] {
        ground.each(case, &[layer.end()], &expected);
    }
}

#[test]
fn streams_that_are_cut_or_go_on() {
    let ground = Ground::new();
    let whole = tar().file("a", &"a".repeat(2000)).file("b", "b").end();
    ground.each("cut in a content", &[whole[..900].to_vec()], &Refused("it ends within a member"));
    ground.each("cut in a header", &[whole[..600 + 512 * 4].to_vec()], &Refused("it ends within a header"));
    ground.each("no end", &[whole[..whole.len() - 1024].to_vec()], &Confined);
    ground.each("nothing", &[Vec::new()], &Confined);
    ground.each("more behind the end", &[[whole.as_slice(), &[7; 5000]].concat()], &Confined);
    ground.each("noise", &[vec![7; 5000]], &Refused("the checksum of a header is wrong"));

    // Two gzip members are one stream (RFC 1952, 2.2).
    let mut parts = docker(std::slice::from_ref(&whole), Compression::Plain);
    let halves = whole.split_at(700);
    let members = [Compression::Gzip.compress(halves.0), Compression::Gzip.compress(halves.1)].concat();
    parts.insert("0/layer.tar".to_owned(), members.clone());
    Confined.check("two members", &ground.unpack("two members", &parts, false, &[]));
    parts.insert("0/layer.tar".to_owned(), members[..members.len() - 9].to_vec());
    Refused("0/layer.tar").check("a cut member", &ground.unpack("a cut member", &parts, false, &[]));
    parts.insert("0/layer.tar".to_owned(), tar().file("other", "x").end());
    Refused("has the digest").check("another layer", &ground.unpack("another layer", &parts, false, &[]));
}

#[test]
fn bombs_are_stopped() {
    let ground = Ground::new();
    let zeros = |megabytes: usize| tar().member(b'0', "zeros", "", &vec![0; megabytes << 20]).end();
    let many = (0..2000).fold(tar(), |tar, number| tar.file(&format!("f{number}"), "")).end();
    for compression in [Compression::Gzip, Compression::Zstd] {
        for is_oci in [true, false] {
            let image =
                |layers: &[Vec<u8>]| if is_oci { oci(layers, compression) } else { docker(layers, compression) };
            let bomb = image(&[zeros(64)]);
            let outcome = ground.unpack("a bomb", &bomb, is_oci, &["--max-size", "16M"]);
            Refused("the image has more than 16777216 bytes, unpacked").check("a bomb", &outcome);
            outcome.assert_refused(125, &["--max-size BYTES"]);
            Confined.check("no bomb", &ground.unpack("no bomb", &bomb, is_oci, &["--max-size", "65M"]));
            let two = image(&[zeros(10), zeros(9)]);
            let outcome = ground.unpack("two halves", &two, is_oci, &["--max-size", "16M"]);
            Refused("the image has more than 16777216 bytes").check("two halves", &outcome);
            let outcome =
                ground.unpack("many", &image(std::slice::from_ref(&many)), is_oci, &["--max-entries", "1999"]);
            Refused("the image has more than 1999 entries").check("many", &outcome);
            outcome.assert_refused(125, &["--max-entries N"]);
        }
    }
    // Few entries, much to remember: a long name counts as many.
    let name = vec!["n".repeat(250); 1000].join("/");
    let long = (0..9).fold(tar(), |tar, _| tar.pax(&[("path", name.as_bytes())]).symlink("x", "y")).end();
    let outcome = ground.unpack("names", &docker(&[long], Compression::Gzip), false, &["--max-entries", "2000"]);
    Refused("the image has more than 2000 entries").check("names", &outcome);
}

#[test]
fn documents_and_what_they_name() {
    let ground = Ground::new();
    let layers = [tar().file("x", "x").end()];
    let good = oci(&layers, Compression::Gzip);
    let index = |manifests: serde_json::Value| {
        let mut parts = good.clone();
        let index = serde_json::json!({"schemaVersion": 2, "manifests": manifests});
        parts.insert("index.json".to_owned(), index.to_string().into_bytes());
        parts
    };
    let replaced = |name: &str, bytes: &[u8]| {
        let mut parts = good.clone();
        parts.insert(name.to_owned(), bytes.to_vec());
        parts
    };
    let parsed: serde_json::Value = serde_json::from_slice(&good["index.json"]).expect("it was just written");
    let manifest = parsed["manifests"][0].clone();
    let with = |key: &str, value: serde_json::Value| {
        let mut manifest = manifest.clone();
        manifest[key] = value;
        index(serde_json::json!([manifest]))
    };
    let without_blobs =
        good.iter().filter(|(name, _)| !name.starts_with("blobs")).map(|(name, bytes)| (name.clone(), bytes.clone()));
    // An index that names itself cannot be made, short of breaking SHA-256; one that says it does can.
    let mut itself = good.clone();
    let circle = blob(
        &mut itself,
        "application/vnd.oci.image.index.v1+json",
        b"{\"schemaVersion\":2,\"manifests\":[]}".to_vec(),
    );
    itself.insert(
        "index.json".to_owned(),
        serde_json::json!({"schemaVersion": 2, "manifests": [circle]}).to_string().into_bytes(),
    );
    let nested = [vec![b'['; 10_000], vec![b']'; 10_000]].concat();
    for (case, parts, words) in [
        ("nested JSON", replaced("index.json", &nested), "index.json"),
        ("no JSON", replaced("index.json", b"\xff\xfe"), "index.json"),
        ("a huge document", replaced("index.json", &vec![b' '; 17 << 20]), "too many for a document"),
        ("a thousand manifests", index(serde_json::json!(vec![manifest.clone(); 1000])), "several images"),
        ("no manifests", index(serde_json::json!([])), "`index.json` lists no image"),
        ("an index of none", itself, "lists no image"),
        (
            "another platform",
            with("platform", serde_json::json!({"os": "plan9", "architecture": "mips"})),
            "plan9/mips",
        ),
        ("a wrong size", with("size", serde_json::json!(7)), "bytes instead of 7"),
        ("a negative size", with("size", serde_json::json!(-7)), "index.json"),
        ("a digest that climbs", with("digest", serde_json::json!("sha256:../../../outside/secret")), "index.json"),
        ("another algorithm", with("digest", serde_json::json!("md5:d41d8cd98f00b204e9800998ecf8427e")), "index.json"),
        ("missing blobs", without_blobs.collect(), "the image has no `blobs/sha256/"),
        ("an unknown media type", with("mediaType", serde_json::json!("application/x-unknown")), ""),
    ] {
        let outcome = ground.unpack(case, &parts, true, &[]);
        if words.is_empty() {
            Confined.check(case, &outcome);
        } else {
            Refused(words).check(case, &outcome);
        }
    }

    // Not a file where a blob should be: nothing is waited for, and no link is followed out.
    for make in ["mkfifo", "mkdir", "ln -s /dev/zero"] {
        lay_out(&good, &ground.context.path("image"));
        let index = ground.context.text("image/index.json");
        fs_err::remove_file(&index).expect("it is there");
        outcome_of(ground.context.command("sh").args(["-c", &format!("{make} {index}")])).success();
        let outcome = ground.unpack_image(make, &format!("oci:{}", ground.context.text("image")), &[]);
        Refused("index.json").check(make, &outcome);
        fs_err::remove_dir_all(ground.context.path("image")).expect("it can be removed");
    }
    let fifo = ground.context.text("image");
    outcome_of(ground.context.command("mkfifo").arg(&fifo)).success();
    let outcome = ground.unpack_image("a FIFO", &format!("oci-archive:{fifo}"), &[]);
    Refused("is not a file").check("a FIFO", &outcome);
}

/// Configurations that are large or odd, layers that are elsewhere, and a socket where a blob should be.
#[test]
fn configurations_and_layers_of_other_kinds() {
    let ground = Ground::new();
    let layers = [tar().file("x", "x").end()];
    let plain: serde_json::Value = serde_json::from_slice(&config(&layers)).expect("it was just written");
    let with = |key: &str, value: serde_json::Value| {
        let mut config = plain.clone();
        config[key] = value;
        oci_of(config.to_string().into_bytes(), &layers, Compression::Gzip)
    };
    let labels: BTreeMap<String, String> = (0..20_000).map(|at| (format!("label-{at}"), "x".repeat(100))).collect();
    let steps = vec![serde_json::json!({"created_by": "\u{1b}[31m", "empty_layer": true}); 5_000];
    for (case, parts, expected) in [
        ("megabytes of labels", with("config", serde_json::json!({"Cmd": ["/x"], "Labels": labels})), Confined),
        ("thousands of steps", with("history", serde_json::json!(steps)), Confined),
        ("a step that is none", with("history", serde_json::json!(["x"])), Refused("failed to understand")),
        (
            "a check that is none",
            with("config", serde_json::json!({"Healthcheck": {"Test": 7}})),
            Refused("failed to understand"),
        ),
        (
            "fewer layers than are named",
            with("rootfs", serde_json::json!({"type": "layers", "diff_ids": []})),
            Refused("its configuration lists 0"),
        ),
    ] {
        expected.check(case, &ground.unpack(case, &parts, true, &[]));
    }

    // A layer that is to be fetched from elsewhere, and that is not there.
    let mut parts = oci(&layers, Compression::Gzip);
    let index: serde_json::Value = serde_json::from_slice(&parts["index.json"]).expect("it was just written");
    let name = |digest: &serde_json::Value| format!("blobs/sha256/{}", &digest.as_str().expect("a digest")[7..]);
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&parts[&name(&index["manifests"][0]["digest"])]).expect("it was just written");
    let layer = manifest["layers"][0].clone();
    parts.remove(&name(&layer["digest"]));
    manifest["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip".into();
    manifest["layers"][0]["urls"] = serde_json::json!(["https://elsewhere.example/layer", "file:///etc/passwd"]);
    let manifest = blob(&mut parts, MANIFEST, manifest.to_string().into_bytes());
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [manifest]});
    parts.insert("index.json".to_owned(), index.to_string().into_bytes());
    Refused("the image has no `blobs/sha256/")
        .check("a foreign layer", &ground.unpack("a foreign layer", &parts, true, &[]));

    // Nothing of another machine's image is run as if it were for this one.
    let own = fs_err::read("/proc/self/exe").expect("it is this program");
    let layers = [tar().member(b'0', "x", "", &own[..64]).end()];
    let mut config: serde_json::Value = serde_json::from_slice(&config(&layers)).expect("it was just written");
    config["architecture"] = "s390x".into();
    config["config"] = serde_json::json!({"Entrypoint": ["/x"]});
    let parts = oci_of(config.to_string().into_bytes(), &layers, Compression::Gzip);
    lay_out(&parts, &ground.context.path("image"));
    let image = format!("oci:{}", ground.context.text("image"));
    let slim = [
        "slim",
        "--platform",
        "linux/s390x",
        "--no-cache",
        &image,
        "-o",
        &format!("oci:{}", ground.context.text("tree")),
    ];
    ground.context.outcome(&slim).assert_refused(125, &["the image is for s390x"]);
    assert!(!ground.context.path("tree").exists());

    let blobs = ground.context.path("image/blobs/sha256");
    for name in support::names_in(&blobs) {
        fs_err::remove_file(blobs.join(&name)).expect("it is there");
        // The path of a socket has 108 bytes: it is made where it is short, and moved.
        let short = tempfile::tempdir().expect("a directory for the socket");
        let socket = std::os::unix::net::UnixListener::bind(short.path().join("s")).expect("a socket");
        outcome_of(ground.context.command("mv").arg(short.path().join("s")).arg(blobs.join(&name))).success();
        drop(socket);
    }
    Refused("the image has no `blobs/sha256/").check("sockets", &ground.unpack_image("sockets", &image, &[]));
}

/// Names in the archive around the parts are names, and nothing is unpacked by them.
#[test]
fn the_archive_around_an_image() {
    let ground = Ground::new();
    let parts = docker(&[tar().file("x", "x").end()], Compression::Gzip);
    let inner = archive(&parts);
    let inner = &inner[..inner.len() - 1024];
    let image = ground.context.path("image");
    let spelled = format!("docker-archive:{}", text(&image));
    for (case, more, expected) in [
        ("climbing", tar().file("../outside/new", "x"), Confined),
        ("absolute", tar().file(&ground.context.text("outside/new"), "x"), Confined),
        (
            "a link out",
            tar().symlink("0/layer.tar", &ground.secret()),
            Refused("`0/layer.tar` is twice in the archive"),
        ),
        ("a circle", tar().symlink("0/layer.tar", "../a").symlink("a", "0/layer.tar"), Refused("is twice in the")),
        ("a directory", tar().directory("0/layer.tar"), Confined),
        ("another one of the same name", tar().file("0/layer.tar", "x"), Refused("is twice in the archive")),
    ] {
        fs_err::write(&image, [inner, &more.end()].concat()).expect("the directory can be written");
        expected.check(case, &ground.unpack_image(case, &spelled, &[]));
    }
    fs_err::write(&image, Compression::Gzip.compress(inner)).expect("the directory can be written");
    Refused("is compressed as a whole").check("compressed", &ground.unpack_image("compressed", &spelled, &[]));
}
