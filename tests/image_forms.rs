//! What podman, skopeo and umoci make of the images that minjail writes.
//!
//! Each test needs its tool, a statically linked busybox, and where it runs something, root; it says `skipped` and why
//! if one is missing.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "these are tests, and say what they skip")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::IsTerminal;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output as Finished};

use minjail::image::{Image, Input, Options, Output, Reading, Reference, Written, write_all};
use minjail::layer::Compression;
use minjail::manifest::{Config, Digest, Entry, Kind, Manifest, Seal, Source, Sources};
use minjail::path::JailPath;
use minjail::root::Root;
use minjail::tree::Tree;

const BUSYBOX: &str = "/usr/bin/busybox";

fn path(text: &[u8]) -> JailPath {
    JailPath::parse(text).unwrap()
}

/// A busybox with a shell, and names and metadata that need every part of the layer format.
fn busybox() -> Option<(Manifest, Sources)> {
    let Ok(busybox) = fs_err::read(BUSYBOX) else {
        return skipped(&format!("there is no {BUSYBOX}"));
    };
    let made = |content: &[u8]| Kind::File { size: content.len() as u64, sha256: Seal::of(Digest::of(content)) };
    let long = [b"/data/".as_slice(), &[b'd'; 120], b"/", &[b'f'; 120]].concat();
    let odd = [b"/data/raw\xff ".as_slice(), &[b'r'; 120]].concat();
    let files: [(&[u8], &[u8]); 4] =
        [(b"/bin/busybox", &busybox), (b"/data/msg", b"hello\n"), (&long, b"long\n"), (&odd, b"odd\n")];
    let mut kinds: BTreeMap<JailPath, Kind> = files.iter().map(|(at, content)| (path(at), made(content))).collect();
    let sources = files.iter().map(|(at, content)| (path(at), Source::Made(content.to_vec()))).collect();
    kinds.insert(path(b"/bin/cat"), Kind::HardLink { to: path(b"/bin/busybox") });
    kinds.insert(path(b"/bin/sh"), Kind::Symlink { target: b"busybox".to_vec() });
    kinds.insert(path(b"/bin/stat"), Kind::Symlink { target: b"/bin/busybox".to_vec() });
    kinds.insert(path(b"/data/pipe"), Kind::Fifo);
    for directory in [&b"/"[..], b"/dev", b"/proc", b"/sys", b"/tmp", b"/usr"] {
        kinds.insert(path(directory), Kind::Directory);
    }
    let parents: BTreeSet<JailPath> = kinds.keys().flat_map(JailPath::ancestors).collect();
    kinds.extend(parents.into_iter().map(|parent| (parent, Kind::Directory)));

    let entry = |(path, kind): (JailPath, Kind)| {
        let name = path.as_bytes().to_vec();
        let mode = match name.as_slice() {
            b"/tmp" => 0o1777,
            b"/data" => 0o2555,
            b"/data/msg" => 0o4644,
            _ if kind == Kind::Directory || name.starts_with(b"/bin/") => 0o755,
            _ => 0o644,
        };
        let (uid, gid) = if name == b"/data/msg" { (1234, 5678) } else { (0, 0) };
        let xattrs = if name == b"/data/msg" {
            // CAP_NET_BIND_SERVICE, permitted (`linux/capability.h`, `struct vfs_cap_data`, revision 2).
            let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            BTreeMap::from([("security.capability".to_owned(), capability.to_vec())])
        } else {
            BTreeMap::new()
        };
        Entry { mode, uid, gid, mtime: 1_700_000_000, xattrs, ..Entry::new(path, kind) }
    };
    let config = Config {
        architecture: if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }.to_owned(),
        entrypoint: vec!["/bin/cat".to_owned()],
        cmd: vec!["/data/msg".to_owned()],
        env: BTreeMap::from([("PATH".to_owned(), "/bin".to_owned())]),
        working_dir: "/".to_owned(),
        user: "0:0".to_owned(),
        exposed_ports: BTreeSet::from(["80/tcp".to_owned()]),
        labels: BTreeMap::from([("org.example.made-by".to_owned(), "a test".to_owned())]),
        ..Config::default()
    };
    let entries = kinds.into_iter().map(entry).collect();
    Some((Manifest { epoch: 1_700_000_000, ..Manifest::new(config, entries) }, sources))
}

/// Each compression, and whether the image has several layers.
const WAYS: [(Compression, bool); 4] =
    [(Compression::None, false), (Compression::GZIP, true), (Compression::GZIP, false), (Compression::ZSTD, true)];

fn write(directory: &Path, (compression, layered): (Compression, bool), forms: &[&str]) -> Option<Vec<Written>> {
    let (mut manifest, sources) = busybox()?;
    if layered {
        manifest.assign_layers(|entry| entry.path.components().next().map(<[u8]>::to_vec));
    }
    let root = Root::open(Path::new("/")).unwrap();
    let tree = Tree { manifest: &manifest, sources: &sources, root: &root };
    let outputs: Vec<Output> =
        forms.iter().map(|form| Output::parse(OsStr::new(&place(directory, form))).unwrap()).collect();
    let name: Reference = "minjail-test".parse().unwrap();
    let nowhere = fs_err::File::create(directory.join("standard-output")).unwrap();
    assert!(!nowhere.file().is_terminal());
    let options = Options {
        compression,
        force: false,
        name: &name,
        names: &[],
        originals: &minjail::image::KeptLayers::new(),
        threads: NonZeroUsize::new(2).unwrap(),
        scratch: directory,
        standard_output: nowhere.as_fd(),
    };
    Some(write_all(&tree, &outputs, &[], &options, &mut |_| ()).unwrap())
}

fn diff_ids(written: &Written) -> Vec<Digest> {
    written.layers.iter().map(|layer| layer.diff_id).collect()
}

/// `FORM:NAME` with the name put into `directory`.
fn place(directory: &Path, form: &str) -> String {
    let (form, rest) = form.split_once(':').unwrap();
    format!("{form}:{}/{rest}", directory.display())
}

const FORMS: [&str; 4] = ["oci:layout:v1", "oci-archive:oci.tar:v1", "docker-archive:docker.tar", "rootfs:tree"];

/// Says why a test is not done; where nothing may be missing, that is a failure.
#[expect(clippy::disallowed_methods, reason = "the test command says what may be missing")]
fn skipped<T>(why: &str) -> Option<T> {
    assert!(std::env::var_os("MINJAIL_TESTS_NO_SKIP").is_none(), "nothing may be skipped here, but: {why}");
    println!("skipped: {why}");
    None
}

/// Runs a tool; `None` if it is not there. That it fails is the test's failure.
fn run(command: &mut Command) -> Option<Finished> {
    let name = command.get_program().display().to_string();
    match command.output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => skipped(&format!("{name} is not installed")),
        output => {
            let output = output.unwrap();
            assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
            Some(output)
        }
    }
}

fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        skipped::<()>("this test needs root");
    }
    is_root
}

#[test]
fn skopeo_copies_between_all_forms_and_changes_nothing() {
    for way in WAYS {
        let directory = tempfile::tempdir().unwrap();
        let Some(written) = write(directory.path(), way, &FORMS) else { return };
        let copy = |from: &str, to: &str| {
            let mut command = Command::new("skopeo");
            command.args(["--insecure-policy", "copy", "-q"]);
            if to.starts_with("oci") {
                command.arg("--preserve-digests");
            }
            command.args([place(directory.path(), from), place(directory.path(), to)]);
            run(&mut command).is_some()
        };
        if !copy("oci:layout:v1", "oci-archive:copied.tar:v2") {
            return;
        }
        assert!(copy("oci-archive:oci.tar:v1", "oci:copied:v3"));
        assert!(copy("docker-archive:docker.tar", "dir:plain"));
        for (form, written) in [("oci-archive:copied.tar:v2", &written[0]), ("oci:copied:v3", &written[1])] {
            let image =
                Image::open(&Input::parse(OsStr::new(&place(directory.path(), form))).unwrap(), &Reading::default())
                    .unwrap();
            assert_eq!(image.manifest, written.manifest, "{way:?}");
        }
        // A docker archive by skopeo is read too, and has the same layer inside.
        if way.0 != Compression::ZSTD {
            assert!(copy("oci:layout:v1", "docker-archive:by-skopeo.tar:minjail-test:v4"));
            let form = "docker-archive:by-skopeo.tar:minjail-test:v4";
            let image =
                Image::open(&Input::parse(OsStr::new(&place(directory.path(), form))).unwrap(), &Reading::default())
                    .unwrap();
            assert_eq!(image.config.unwrap().rootfs.diff_ids, diff_ids(&written[0]));
        }
    }
}

#[test]
fn umoci_unpacks_what_minjail_writes_to_a_directory() {
    if !is_root() {
        return;
    }
    // umoci 0.4.7 does not know zstd.
    for way in &WAYS[..3] {
        let directory = tempfile::tempdir().unwrap();
        if write(directory.path(), *way, &FORMS).is_none() {
            return;
        }
        let bundle = directory.path().join("bundle");
        let mut command = Command::new("umoci");
        let image = format!("{}:v1", directory.path().join("layout").display());
        command.args(["unpack", "--image", &image]).arg(&bundle);
        if run(&mut command).is_none() {
            return;
        }
        assert_eq!(listing(&bundle.join("rootfs")), listing(&directory.path().join("tree")));
    }
}

/// Everything that `find` can say of a directory, but for the times of links, which umoci does not set.
fn listing(directory: &Path) -> String {
    let mut find = Command::new("find");
    find.current_dir(directory).arg(".").args(["-printf", "%P %y %m %U %G %s %n %l "]);
    find.args(["(", "-type", "l", "-printf", "\\n", "-o", "-printf", "%T@\\n", ")"]);
    let output = run(&mut find).expect("find is everywhere");
    // Listed as bytes, since not every name is text; directories' sizes are the file system's.
    let mut lines: Vec<String> = output.stdout.split(|&byte| byte == b'\n').map(minjail::path::escape).collect();
    lines.sort();
    lines.join("\n")
}

/// podman with a storage of its own, and limits that it may set: it cannot raise them everywhere.
struct Podman {
    directory: tempfile::TempDir,
}

impl Podman {
    fn command(&self, words: &[&str]) -> Command {
        let at = |name: &str| self.directory.path().join(name);
        let mut command = Command::new("podman");
        command.arg("--root").arg(at("storage")).arg("--runroot").arg(at("run"));
        command.args(["--storage-driver", "vfs", "--runtime", "runc", "--cgroup-manager", "cgroupfs"]);
        command.args(words);
        command
    }

    /// What a command in the image prints.
    fn run(&self, options: &[&str], image: &str, words: &[&str]) -> String {
        let mut command = self.command(&["run", "--rm", "--network=none"]);
        command.args(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]);
        command.args(options).arg(image).args(words);
        String::from_utf8(run(&mut command).unwrap().stdout).unwrap()
    }
}

#[test]
fn podman_loads_and_runs_every_form() {
    if !is_root() {
        return;
    }
    let podman = Podman { directory: tempfile::tempdir().unwrap() };
    for way in WAYS {
        let directory = tempfile::tempdir().unwrap();
        if write(directory.path(), way, &FORMS).is_none() {
            return;
        }
        for form in ["oci.tar", "docker.tar"] {
            let file: PathBuf = directory.path().join(form);
            let Some(loaded) = run(podman.command(&["load", "-q", "-i"]).arg(file)) else { return };
            let said = String::from_utf8(loaded.stdout).unwrap();
            let image = said.trim().rsplit(": ").next().unwrap();
            assert_eq!(podman.run(&[], image, &[]), "hello\n", "{form} {way:?}");
            let script = "cat /data/d*/f* /data/raw*; stat -c '%a %u %g %h' /data/msg /data /tmp /bin/cat";
            let said = podman.run(&["--entrypoint", "/bin/sh"], image, &["-c", script]);
            let stats = "4644 1234 5678 1\n2555 0 0 3\n1777 0 0 2\n755 0 0 2\n";
            assert_eq!(said, format!("long\nodd\n{stats}"), "{form} {way:?}");
        }
    }
}
