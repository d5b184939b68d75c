//! Drawing up manifests of small trees, and reading them back.

#![expect(clippy::unwrap_used, reason = "these are tests")]

use std::collections::BTreeSet;
use std::error::Error as _;
use std::ffi::OsStr;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use minjail::files::{FileSet, Reason, Wanted, Was, What};
use minjail::manifest::{
    Config, Digest, DrawError, DrawnUp, Entry, Given, Kind, Manifest, Packages, Packing, ParseError, Seal, Source,
    draw_up,
};
use minjail::path::{Facts, FileType, JailPath};
use minjail::root::Root;
use minjail::tree::{Tree, TreeError};
use proptest::prelude::*;

const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn jail(path: impl AsRef<[u8]>) -> JailPath {
    JailPath::parse(path.as_ref()).unwrap()
}

/// A root and a store, to be filled and drawn up.
struct Ground {
    directory: tempfile::TempDir,
    files: FileSet,
}

impl Ground {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs_err::create_dir(directory.path().join("root")).unwrap();
        fs_err::create_dir(directory.path().join("store")).unwrap();
        Self { directory, files: FileSet::default() }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.directory.path().join("root").join(path)
    }

    fn file(&self, path: &str, content: &str) {
        fs_err::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs_err::write(self.at(path), content).unwrap();
        fs_err::set_permissions(self.at(path), PermissionsExt::from_mode(0o644)).unwrap();
    }

    fn want(&mut self, path: impl AsRef<[u8]>, what: What) {
        let reasons = [Reason::Rule { rule: "test".into(), of: JailPath::root() }].into();
        self.files.wanted.insert(jail(path), Wanted { what, reasons });
    }

    /// Draws the manifest up, and reads every content.
    fn draw(&self) -> Result<DrawnUp, DrawError> {
        let drawn = self.look()?;
        self.read(&drawn, 2, &|_, _| {}).unwrap();
        Ok(drawn)
    }

    fn root(&self) -> Root {
        Root::open(&self.directory.path().join("root")).unwrap()
    }

    fn read(&self, drawn: &DrawnUp, threads: usize, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<(), TreeError> {
        let tree = Tree { manifest: &drawn.manifest, sources: &drawn.sources, root: &self.root() };
        tree.seal(NonZeroUsize::new(threads).unwrap(), progress)
    }

    /// Draws the manifest up, and reads nothing.
    fn look(&self) -> Result<DrawnUp, DrawError> {
        let root = self.root();
        let packages = Packages::read(&root).unwrap();
        let mut files = self.files.clone();
        files.hold();
        let stored = fs_err::read_dir(self.directory.path().join("store")).unwrap().map(|entry| entry.unwrap().path());
        let store = stored.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), path)).collect();
        draw_up(Given {
            files,
            root: &root,
            store: &store,
            packages: &packages,
            epoch: 1_700_000_000,
            packing: Packing::default(),
            config: Config { architecture: "amd64".into(), working_dir: "/".into(), ..Config::default() },
        })
    }
}

/// A file of three bytes from before the run, whose content the store has.
fn was(content: &str) -> What {
    let facts = Facts {
        file_type: FileType::File,
        mode: 0o604,
        uid: 7,
        gid: 8,
        size: 3,
        mtime: 0,
        mtime_nsec: 0,
        dev: 0,
        ino: 0,
        nlink: 1,
        rdev: 0,
    };
    What::Was(Box::new(Was { facts, content: Some(content.to_owned()), target: None, xattrs: None }))
}

/// The digest of `abc`.
fn abc() -> Seal {
    Seal::of(Digest::from_hex(ABC).unwrap())
}

fn entry<'a>(drawn: &'a DrawnUp, path: &str) -> &'a Entry {
    drawn.manifest.entries.iter().find(|entry| entry.path == jail(path)).unwrap()
}

fn paths(drawn: &DrawnUp) -> Vec<String> {
    drawn.manifest.entries.iter().map(|entry| entry.path.to_string()).collect()
}

#[test]
fn parents_are_there_as_they_are_in_the_root() {
    let mut ground = Ground::new();
    ground.file("usr/lib/a", "abc");
    fs_err::set_permissions(ground.at("usr"), PermissionsExt::from_mode(0o2751)).unwrap();
    ground.want("/usr/lib/a", What::AsIs);
    let drawn = ground.draw().unwrap();
    assert_eq!(paths(&drawn), ["/", "/usr", "/usr/lib", "/usr/lib/a"]);
    assert_eq!(entry(&drawn, "/usr").mode, 0o2751);
    assert_eq!(entry(&drawn, "/usr").reasons, [Reason::Holds { child: jail("/usr/lib") }].into());
    assert_eq!(entry(&drawn, "/usr/lib/a").kind, Kind::File { size: 3, sha256: abc() });
    assert!(drawn.manifest.entries.iter().all(|entry| entry.mtime == 1_700_000_000));
    assert!(matches!(drawn.sources[&jail("/usr/lib/a")], Source::Root(Some(_))));
    assert_eq!(drawn.sources.len(), 1);
    assert_eq!(Manifest::parse(&drawn.manifest.to_json()).unwrap(), drawn.manifest);
}

#[test]
fn of_hard_links_the_first_is_the_file() {
    let mut ground = Ground::new();
    ground.file("z/one", "abc");
    fs_err::create_dir(ground.at("a")).unwrap();
    fs_err::hard_link(ground.at("z/one"), ground.at("a/two")).unwrap();
    fs_err::hard_link(ground.at("z/one"), ground.at("a/three")).unwrap();
    for path in ["/z/one", "/a/two", "/a/three"] {
        ground.want(path, What::AsIs);
    }
    let drawn = ground.draw().unwrap();
    let link = Kind::HardLink { to: jail("/a/three") };
    assert_eq!(entry(&drawn, "/a/three").kind, Kind::File { size: 3, sha256: abc() });
    assert_eq!((&entry(&drawn, "/a/two").kind, &entry(&drawn, "/z/one").kind), (&link, &link));
    assert_eq!(drawn.sources.len(), 1);
}

#[test]
fn links_and_special_files() {
    let mut ground = Ground::new();
    symlink("../x\u{1}", ground.at("link")).unwrap();
    nix::unistd::mkfifo(&ground.at("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(ground.at("socket")).unwrap();
    for path in ["/link", "/fifo", "/socket"] {
        ground.want(path, What::AsIs);
    }
    ground.want("/dangling", What::Placeholder);
    let drawn = ground.draw().unwrap();
    assert_eq!(paths(&drawn), ["/", "/dangling", "/fifo", "/link"]);
    assert_eq!(entry(&drawn, "/link").kind, Kind::Symlink { target: b"../x\x01".to_vec() });
    assert_eq!(entry(&drawn, "/dangling").kind, Kind::Symlink { target: b"/.minjail-omitted".to_vec() });
    assert_eq!((entry(&drawn, "/link").mode, entry(&drawn, "/dangling").mode), (0o777, 0o777));
    assert_eq!((&entry(&drawn, "/fifo").kind, entry(&drawn, "/fifo").mode), (&Kind::Fifo, 0o600));
}

#[test]
fn what_is_not_as_it_is_in_the_root() {
    let mut ground = Ground::new();
    ground.file("etc/passwd", "everybody");
    fs_err::set_permissions(ground.at("etc/passwd"), PermissionsExt::from_mode(0o640)).unwrap();
    ground.file("var/now", "later");
    fs_err::create_dir(ground.at("var/run")).unwrap();
    fs_err::set_permissions(ground.at("var/run"), PermissionsExt::from_mode(0o711)).unwrap();
    ground.file("var/run/pid", "1");
    fs_err::write(ground.directory.path().join("store").join(ABC), "abc").unwrap();
    ground.want("/etc/passwd", What::Made(b"root".to_vec(), None));
    fs_err::create_dir(ground.at("new")).unwrap();
    fs_err::set_permissions(ground.at("new"), PermissionsExt::from_mode(0o755)).unwrap();
    ground.want("/new/made", What::Made(Vec::new(), None));
    ground.want("/var/now", was(ABC));
    ground.want("/var/gone", was(ABC));
    ground.want("/var/run", What::EmptyDirectory);
    ground.want("/tmp", What::EmptyDirectory);
    ground.want("/proc", What::EmptyDirectory);
    let drawn = ground.draw().unwrap();
    assert_eq!(
        paths(&drawn),
        ["/", "/etc", "/etc/passwd", "/new", "/new/made", "/proc", "/tmp", "/var", "/var/gone", "/var/now", "/var/run"]
    );
    let mode = |path| entry(&drawn, path).mode;
    assert_eq!((mode("/etc/passwd"), mode("/new/made"), mode("/new")), (0o640, 0o644, 0o755));
    assert_eq!((mode("/var/run"), mode("/tmp"), mode("/proc")), (0o711, 0o1777, 0o755));
    assert_eq!(entry(&drawn, "/var/now").kind, Kind::File { size: 3, sha256: abc() });
    assert_eq!(drawn.sources[&jail("/etc/passwd")], Source::Made(b"root".to_vec()));
    let stored = ground.directory.path().join("store").join(ABC);
    assert_eq!(drawn.sources[&jail("/var/gone")], Source::Stored(stored));
    let gone = entry(&drawn, "/var/gone");
    assert_eq!((gone.mode, gone.uid, gone.gid), (0o604, 7, 8));
}

#[test]
fn errors_name_the_path() {
    let mut ground = Ground::new();
    ground.want("/no-such", What::AsIs);
    assert_eq!(ground.draw().unwrap_err().to_string(), "`/no-such` is not in the root any more");

    let mut ground = Ground::new();
    ground.file("real/file", "abc");
    symlink("real", ground.at("link")).unwrap();
    ground.want("/link/file", What::AsIs);
    assert_eq!(ground.draw().unwrap_err().to_string(), "`/link`, which `/link/file` is in, is not a directory");

    let mut ground = Ground::new();
    ground.want("/lost", was(ABC));
    assert!(matches!(ground.draw(), Err(DrawError::Lost { path, .. }) if path == jail("/lost")));
    fs_err::write(ground.directory.path().join("store").join(ABC), "abd").unwrap();
    let drawn = ground.look().unwrap();
    let error = ground.read(&drawn, 1, &|_, _| {}).unwrap_err();
    assert!(matches!(&error, TreeError::Changed { path, how } if path.ends_with(ABC) && how.contains(ABC)), "{error}");
}

#[test]
fn a_file_that_changes_meanwhile_is_an_error() {
    let mut ground = Ground::new();
    ground.file("first", "abc");
    ground.file("second", "abc");
    ground.want("/first", What::AsIs);
    ground.want("/second", What::AsIs);
    // All files are looked at before the first byte is hashed, and one thread takes them in order.
    let changed = |content: &'static str| {
        ground.file("second", "abc");
        let drawn = ground.look().unwrap();
        let change = |_, _| fs_err::write(ground.at("second"), content).unwrap();
        let TreeError::Changed { path, how } = ground.read(&drawn, 1, &change).unwrap_err() else { panic!() };
        assert!(path.ends_with("/second"), "{path}");
        how
    };
    assert_eq!(changed("abcd"), "it had 3 bytes and now has 4");
    assert_eq!(changed("ABC"), "it was written to");
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let mut ground = Ground::new();
    for number in 0..200_usize {
        let path = format!("d{}/f{number}", number % 7);
        ground.file(&path, &"x".repeat(number * number));
        ground.want(format!("/{path}"), What::AsIs);
    }
    let last = AtomicU64::new(0);
    let progress = |done, total| {
        assert!(done <= total);
        last.fetch_max(done, Ordering::Relaxed);
    };
    let one = ground.look().unwrap();
    ground.read(&one, 1, &progress).unwrap();
    assert_eq!(last.load(Ordering::Relaxed), (0..200).map(|number| number * number).sum::<u64>());
    for threads in [2, 8] {
        let other = ground.look().unwrap();
        ground.read(&other, threads, &|_, _| {}).unwrap();
        assert_eq!(other, one);
    }
}

#[test]
fn attributes_of_files() {
    let mut ground = Ground::new();
    ground.file("file", "abc");
    if xattr::set(ground.at("file"), "user.test", b"\0\xff").is_err() {
        return;
    }
    ground.want("/file", What::AsIs);
    let drawn = ground.draw().unwrap();
    assert_eq!(entry(&drawn, "/file").xattrs, [("user.test".to_owned(), b"\0\xff".to_vec())].into());
    assert!(drawn.manifest.to_json().contains(r#""user.test": "00ff""#));
}

#[test]
fn packages_of_dpkg() {
    let mut ground = Ground::new();
    ground.file("usr/bin/tool", "abc");
    ground.file("usr/bin/tool.distrib", "abc");
    ground.file("usr/bin/other", "abc");
    symlink("usr/bin", ground.at("bin")).unwrap();
    ground.file(
        "var/lib/dpkg/status",
        "Package: tool\nStatus: install ok installed\nArchitecture: amd64\nMulti-Arch: same\nInstalled-Size: 10\n\
         Version: 1:2.0-1\nDescription: a tool\n Version: 9\n\nPackage: gone\nStatus: deinstall ok config-files\n\
         Version: 1\n\nPackage: better\nStatus: install ok triggers-pending\nArchitecture: all\nVersion: 3\nSource: best\n",
    );
    ground.file("var/lib/dpkg/info/tool:amd64.list", "/.\n/bin\n/bin/tool\n");
    ground.file("var/lib/dpkg/info/better.list", "/.\n/usr\n/usr/bin\n/usr/bin/tool\n");
    ground.file("var/lib/dpkg/info/gone.list", "/usr/bin/other\n");
    ground.file("var/lib/dpkg/diversions", "/bin/tool\n/bin/tool.distrib\nbetter\n");
    for path in ["/usr/bin/tool", "/usr/bin/tool.distrib", "/usr/bin/other", "/bin"] {
        ground.want(path, What::AsIs);
    }
    let drawn = ground.draw().unwrap();
    let package = |path| entry(&drawn, path).package.as_deref();
    assert_eq!(package("/usr/bin/tool"), Some("deb:better=3"));
    assert_eq!(package("/usr/bin/tool.distrib"), Some("deb:tool=1:2.0-1"));
    assert_eq!((package("/usr/bin/other"), package("/usr")), (None, None));
    // Every package that is installed later may list it as a directory, too.
    assert_eq!(package("/bin"), None);
    let packages = Packages::read(&Root::open(&ground.at("")).unwrap()).unwrap();
    let share = packages.share(&drawn.manifest);
    assert_eq!((share.touched, share.touched_size, share.taken_size), (2, 10_240, 6));
}

#[test]
fn packages_of_apk_and_of_distroless_images() {
    let mut ground = Ground::new();
    ground.file("lib/libc.so", "abc");
    ground.file("etc/zone", "abc");
    ground.file(
        "lib/apk/db/installed",
        "C:Q1x\nP:musl\nV:1.2.4-r2\nA:x86_64\nI:600\no:musl\nF:lib\nR:libc.so\na:0:0:755\n\n",
    );
    ground.file("var/lib/dpkg/status.d/tzdata", "Package: tzdata\nVersion: 2024b\nInstalled-Size: 3\n");
    ground.file("var/lib/dpkg/status.d/tzdata.md5sums", "900150983cd24fb0d6963f7d28e17f72  etc/zone\n");
    ground.want("/lib/libc.so", What::AsIs);
    ground.want("/etc/zone", What::AsIs);
    let drawn = ground.draw().unwrap();
    assert_eq!(entry(&drawn, "/lib/libc.so").package.as_deref(), Some("apk:musl=1.2.4-r2"));
    assert_eq!(entry(&drawn, "/etc/zone").package.as_deref(), Some("deb:tzdata=2024b"));
}

/// Whoever has the lock, and the packages, can see that the files are what they brought.
#[test]
fn what_a_package_has_not_brought_is_none_of_its() {
    const SUM: &str = "900150983cd24fb0d6963f7d28e17f72";
    let mut ground = Ground::new();
    symlink("usr/bin", ground.at("bin")).unwrap();
    ground.file(
        "var/lib/dpkg/status",
        &format!(
            "Package: tool\nStatus: install ok installed\nVersion: 1\nConffiles:\n /etc/same {SUM}\n /etc/other {SUM}\n"
        ),
    );
    let listed = ["/bin/same", "/bin/other", "/bin/was", "/bin/unknown", "/bin/hollow", "/etc/same", "/etc/other"];
    ground.file("var/lib/dpkg/info/tool.list", &listed.map(|path| format!("{path}\n")).concat());
    ground.file(
        "var/lib/dpkg/info/tool.md5sums",
        &["same", "other", "was", "hollow"].map(|name| format!("{SUM}  bin/{name}\n")).concat(),
    );
    for path in listed {
        let path = path.replace("/bin/", "/usr/bin/");
        ground.file(&path[1..], if path.ends_with("/same") { "abc" } else { "abd" });
        ground.want(&path, if path.ends_with("hollow") { What::Hollow } else { What::AsIs });
    }
    let stored = "a52d159f262b2c6ddb724a61840befc36eb30c88877a4030b65cbe86298449c9";
    fs_err::write(ground.directory.path().join("store").join(stored), "abd").unwrap();
    ground.want("/usr/bin/was", was(stored));
    let drawn = ground.draw().unwrap();
    let package = |path| entry(&drawn, path).package.as_deref();
    for path in ["/usr/bin/same", "/usr/bin/unknown", "/etc/same"] {
        assert_eq!(package(path), Some("deb:tool=1"), "{path}");
    }
    let changed: BTreeSet<JailPath> = ["/usr/bin/other", "/usr/bin/was", "/etc/other"].map(jail).into();
    assert!(changed.iter().all(|path| entry(&drawn, &path.to_string()).package.is_none()));
    assert_eq!(drawn.changed, changed);
    assert_eq!(package("/usr/bin/hollow"), None, "nobody has read it, and its content is none");
    // Nor has it the time of a packaged file.
    assert_eq!(entry(&drawn, "/usr/bin/was").mtime, entry(&drawn, "/usr/bin/same").mtime);
    let packages = Packages::read(&ground.root()).unwrap();
    assert_eq!(changed.iter().filter(|path| packages.is_configuration(path)).count(), 1);
}

/// On a Debian machine, `dpkg -S` says the same.
#[test]
fn packages_of_this_machine() {
    let root = Root::open(Path::new("/")).unwrap();
    let packages = Packages::read(&root).unwrap();
    for path in ["/usr/bin/bash", "/usr/lib/x86_64-linux-gnu/libc.so.6", "/usr/share/zoneinfo/UTC", "/usr/bin/perl"] {
        // Debian 12 lists by the names from before the merge of /usr.
        let spellings = [path, path.strip_prefix("/usr").unwrap()];
        let outputs =
            spellings.map(|path| std::process::Command::new("dpkg").args(["-S", path]).output().unwrap().stdout);
        let theirs = outputs.iter().find(|output| !output.is_empty());
        let theirs = theirs.map(|output| String::from_utf8_lossy(output).split(':').next().unwrap().to_owned());
        assert_eq!(packages.owner(&jail(path)).map(|package| package.name.clone()), theirs, "{path}");
    }
}

fn manifest_of(entries: Vec<(&str, Kind)>) -> Manifest {
    let entry = |(path, kind)| Entry::new(jail(path), kind);
    Manifest::new(Config::default(), entries.into_iter().map(entry).collect())
}

#[test]
fn what_does_not_hold_together_is_refused() {
    let file = || Kind::File { size: 3, sha256: abc() };
    let refused = |entries| Manifest::parse(&manifest_of(entries).to_json()).unwrap_err();
    let root = ("/", Kind::Directory);
    assert!(matches!(refused(vec![]), ParseError::NoRoot));
    assert!(matches!(refused(vec![("/a", file())]), ParseError::NoRoot));
    assert!(matches!(refused(vec![("/", file())]), ParseError::NoRoot));
    for (entries, message) in [
        (vec![root.clone(), ("/a", file()), ("/a", file())], "`/a` is in the manifest twice"),
        (vec![root.clone(), ("/b", file()), ("/a", file())], "`/a` is out of order in the manifest"),
        (vec![root.clone(), ("/a/b", file())], "the directory of `/a/b` is not in the manifest"),
        (vec![root.clone(), ("/a", file()), ("/a/b", file())], "the directory of `/a/b` is not in the manifest"),
        (
            vec![root.clone(), ("/a", Kind::HardLink { to: jail("/b") }), ("/b", file())],
            "`/a` is a hard link to `/b`, which is not a file before it",
        ),
        (
            vec![root.clone(), ("/a", Kind::Directory), ("/b", Kind::HardLink { to: jail("/a") })],
            "`/b` is a hard link to `/a`, which is not a file before it",
        ),
        (
            vec![root.clone(), ("/a", Kind::Symlink { target: Vec::new() })],
            "`/a` is a link that leads to an impossible path",
        ),
    ] {
        assert_eq!(refused(entries).to_string(), message);
    }
    let text = manifest_of(vec![root.clone(), ("/a", Kind::Directory)]).to_json();
    for (good, bad) in [(r#""uid": 0"#, r#""uid": 0, "gids": []"#), (r#""path": "/a""#, r#""path": "//a""#)] {
        assert!(matches!(Manifest::parse(&text.replace(good, bad)), Err(ParseError::Fields { .. })), "{bad}");
    }
    let text = manifest_of(vec![root.clone(), ("/a", file())]).to_json();
    let error = Manifest::parse(&text.replace(ABC, "ABC")).unwrap_err();
    assert!(error.source().unwrap().to_string().starts_with("`ABC` is not a SHA-256"), "{error:?}");
    let other =
        manifest_of(vec![root]).to_json().replace(r#""minjail-format": 1"#, r#""minjail-format": 99, "new": 1"#);
    assert!(matches!(Manifest::parse(&other), Err(ParseError::Format { found: 99 })));
    assert!(matches!(Manifest::parse("{}"), Err(ParseError::Json(_))));
}

#[test]
fn the_form_of_the_text() {
    let text = manifest_of(vec![("/", Kind::Directory), ("/a", Kind::File { size: 3, sha256: abc() })]).to_json();
    let expected = format!(
        r#"{{
  "minjail-format": 1,
  "epoch": 0,
  "packing": {{
    "name": "",
    "compression": "",
    "block-size": 0,
    "layers": "one",
    "mtime": "packaged"
  }},
  "config": {{
    "architecture": "",
    "working-dir": "",
    "user": ""
  }},
  "entries": [
    {{
      "path": "/",
      "type": "directory",
      "mode": "0755",
      "uid": 0,
      "gid": 0,
      "mtime": 0
    }},
    {{
      "path": "/a",
      "type": "file",
      "size": 3,
      "sha256": "{ABC}",
      "mode": "0755",
      "uid": 0,
      "gid": 0,
      "mtime": 0
    }}
  ]
}}
"#
    );
    assert_eq!(text, expected);
}

/// Names of any bytes, in a directory tree two deep.
fn odd_names() -> impl Strategy<Value = BTreeSet<Vec<u8>>> {
    let byte = any::<u8>().prop_filter("no separator", |byte| !matches!(byte, 0 | b'/'));
    let name = proptest::collection::vec(byte, 1..12).prop_filter("a name", |name| name != b"." && name != b"..");
    proptest::collection::btree_set(name, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn odd_names_survive(names in odd_names(), xattr: Vec<u8>) {
        let mut ground = Ground::new();
        fs_err::create_dir(ground.at("d")).unwrap();
        for name in &names {
            fs_err::write(ground.at("d").join(OsStr::from_bytes(name)), "abc").unwrap();
            ground.want([b"/d/", name.as_slice()].concat(), What::AsIs);
        }
        let mut manifest = ground.draw().unwrap().manifest;
        prop_assert_eq!(manifest.entries.len(), names.len() + 2);
        manifest.entries[2].xattrs.insert("user.x".into(), xattr);
        let text = manifest.to_json();
        let read = Manifest::parse(&text).unwrap();
        prop_assert_eq!(read.to_json(), text);
        prop_assert_eq!(read, manifest);
    }

    #[test]
    fn broken_texts_are_refused_or_read(at in any::<prop::sample::Index>(), byte in 32_u8..127) {
        let mut text = manifest_of(vec![("/", Kind::Directory), ("/a", Kind::File { size: 3, sha256: abc() })]).to_json().into_bytes();
        let at = at.index(text.len());
        text[at] = byte;
        if let Ok(manifest) = Manifest::parse(std::str::from_utf8(&text).unwrap()) {
            prop_assert_eq!(Manifest::parse(&manifest.to_json()).unwrap(), manifest);
        }
    }
}
