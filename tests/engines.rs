//! An image of several layers, in everything that runs or carries images: each engine must do what the program does
//! natively, and a registry must give back what it got.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::containerd::Containerd;
use support::daemon::Daemon;
use support::docker::Docker;
use support::podman::Podman;
use support::{Outcome, TestContext, has, limited, needs_root, outcome_of, text};

const PYTHON: [&str; 3] = ["/usr/bin/python3", "-c", "import json, ssl; print(json.dumps({'answer': 42}))"];

/// Python in all forms, with a layer for each of its large packages.
struct Built {
    context: TestContext,
    native: Outcome,
}

impl Built {
    fn new() -> Self {
        let context = TestContext::new();
        let native = outcome_of(context.command(PYTHON[0]).args(&PYTHON[1..])).success();
        let built = Self { context, native };
        let mut command = built.context.minjail(&["trace", "-q", "--layers", "packages"]);
        command.args(["-t", &built.at("app.trace"), "--lock", &built.at("app.lock")]);
        for output in ["oci:layout:1", "oci-archive:oci.tar:1", "docker-archive:docker.tar:app:1", "rootfs:tree"] {
            command.args(["-o", &built.place(output)]);
        }
        outcome_of(command.arg("--").args(PYTHON)).success();
        let layers = built.manifest()["layers"].as_array().map_or(0, Vec::len);
        assert!(layers > 2, "the image has {layers} layers only");
        built
    }

    fn at(&self, name: &str) -> String {
        self.context.text(name)
    }

    /// `FORM:NAME` in the test's directory.
    fn place(&self, output: &str) -> String {
        let (form, rest) = output.split_once(':').expect("it has a form");
        format!("{form}:{}", self.at(rest))
    }

    fn json(&self, path: impl AsRef<Path>) -> serde_json::Value {
        let bytes = fs_err::read(self.context.path("").join(path)).expect("it is there");
        serde_json::from_slice(&bytes).expect("it is JSON")
    }

    /// The file of the layout's one blob that `descriptor` points at.
    fn blob(descriptor: &serde_json::Value) -> PathBuf {
        let digest = descriptor["digest"].as_str().expect("a descriptor has a digest");
        Path::new("layout/blobs/sha256").join(digest.trim_start_matches("sha256:"))
    }

    fn manifest(&self) -> serde_json::Value {
        self.json(Self::blob(&self.json("layout/index.json")["manifests"][0]))
    }

    /// What umoci makes of the image for a runtime: `bundle`, in a form that needs no terminal and raises no limit.
    fn bundle(&self) -> String {
        let (bundle, image) = (self.at("bundle"), format!("{}:1", self.at("layout")));
        outcome_of(limited("umoci").args(["unpack", "--image", &image, &bundle])).success();
        let path = self.context.path("bundle/config.json");
        let mut config = self.json("bundle/config.json");
        let process = config["process"].as_object_mut().expect("it says what to run");
        process.insert("terminal".to_owned(), false.into());
        process.remove("rlimits");
        fs_err::write(path, config.to_string()).expect("it is ours");
        bundle
    }

    /// A container's name that no other test has.
    fn id(&self) -> String {
        let name = self.context.path("");
        name.file_name().expect("it has a name").to_string_lossy().into_owned()
    }
}

/// `command` where the control groups are what crun wants: of version 2 alone.
fn with_cgroup2(command: &Command) -> Command {
    let mut within = limited("unshare");
    within.args(["--mount", "sh", "-c", "mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\"", "sh"]);
    within.arg(command.get_program()).args(command.get_args());
    within.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    within
}

#[test]
fn podman_runs_several_layers_with_both_runtimes() {
    if !needs_root("podman") || !has(&["podman", "runc", "crun"]) {
        return;
    }
    let (built, podman) = (Built::new(), Podman::new());
    for form in ["oci:layout:1", "oci-archive:oci.tar:1", "docker-archive:docker.tar:app:1"] {
        let image = podman.pull(&built.context, &built.place(form));
        podman.run(&image).assert_same_as(&built.native);
        let crun = podman.run_command(&["--runtime", "crun", "--cgroups", "disabled"], &image);
        outcome_of(&mut with_cgroup2(&crun)).assert_same_as(&built.native);
    }
}

#[test]
fn runtimes_run_what_umoci_unpacks() {
    if !needs_root("runc") || !has(&["umoci", "runc", "crun"]) {
        return;
    }
    let built = Built::new();
    let (bundle, state) = (built.bundle(), built.at("state"));
    let tree = format!("rootfs:{bundle}/rootfs");
    built.context.outcome(&["check", "-q", &tree, "--lock", &built.at("app.lock")]).success();
    let runtime = |name: &str, options: &[&str]| {
        let mut command = limited(name);
        command.args(["--root", &state]).args(options).args(["run", "-b", &bundle, &built.id()]);
        command
    };
    outcome_of(&mut runtime("runc", &[])).assert_same_as(&built.native);
    let crun = runtime("crun", &["--cgroup-manager=disabled"]);
    outcome_of(&mut with_cgroup2(&crun)).assert_same_as(&built.native);
}

#[test]
fn docker_and_containerd_run_several_layers() {
    if !needs_root("dockerd") || !has(&["dockerd", "containerd"]) {
        return;
    }
    let built = Built::new();
    let docker = Docker::start();
    docker.run(&docker.load(&built.context.path("docker.tar"))).assert_same_as(&built.native);
    drop(docker);
    let containerd = Containerd::start();
    for form in ["oci.tar", "docker.tar"] {
        let names = containerd.import(&built.context.path(form));
        containerd.run(&names[0]).assert_same_as(&built.native);
    }
}

#[test]
fn confined_directories_run_it_too() {
    if !needs_root("chroot") || !has(&["bwrap", "systemd-nspawn"]) {
        return;
    }
    let built = Built::new();
    let tree = built.at("tree");
    let nspawn = ["-q", "-D", &tree, "--register=no", "--keep-unit", "--as-pid2", "--pipe"];
    let bwrap = ["--bind", &tree, "/", "--dev", "/dev", "--proc", "/proc", "--unshare-all", "--die-with-parent"];
    for (tool, options) in [("systemd-nspawn", nspawn.as_slice()), ("bwrap", &bwrap), ("chroot", &[&tree])] {
        outcome_of(limited(tool).args(options).args(PYTHON)).assert_same_as(&built.native);
    }
}

/// What a sandbox shows at another place is packed where the sandbox takes it from.
#[test]
fn a_program_that_runs_in_a_sandbox() {
    if !needs_root("bwrap in bwrap") || !has(&["bwrap"]) {
        return;
    }
    let context = TestContext::new();
    context.lay_out(&[("app/data", "one two three\n")]);
    fs_err::copy("/usr/bin/wc", context.path("work/app/count")).expect("the test's directory can be written");
    let application = text(&context.path("work/app"));
    let places = ["--ro-bind", &application, "/app", "--ro-bind", "/usr", "/usr", "--symlink", "usr/lib", "/lib"];
    let rest = ["--symlink", "usr/lib64", "/lib64", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"];
    let sandbox = [&["/usr/bin/bwrap"], &places[..], &rest, &["/app/count", "-w", "/app/data"]].concat();
    let native = outcome_of(context.command(sandbox[0]).args(&sandbox[1..]));
    assert_eq!((native.status, native.stdout.as_slice()), (0, &b"3 /app/data\n"[..]), "{native}");
    let tree = context.text("tree");
    let output = format!("rootfs:{tree}");
    outcome_of(context.minjail(&["trace", "-o", &output, "--"]).args(&sandbox)).success();
    let outer = ["--bind", &tree, "/", "--dev", "/dev", "--proc", "/proc", "--cap-add", "ALL"];
    outcome_of(limited("bwrap").args(outer).args(&sandbox)).assert_same_as(&native);
}

/// What one sandbox has open is from another one's view.
#[test]
fn a_sandbox_in_a_sandbox() {
    if !needs_root("bwrap in bwrap") || !has(&["bwrap"]) {
        return;
    }
    let context = TestContext::new();
    context.lay_out(&[("data", "one two three\n")]);
    let data = text(&context.path("work/data"));
    let inner = ["bwrap", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "/usr/bin/wc", "-w", &data];
    let sandbox = [&["/usr/bin/bwrap", "--dev-bind", "/", "/"], &inner[..]].concat();
    let tree = context.path("tree");
    let output = format!("rootfs:{}", text(&tree));
    let outcome = outcome_of(context.minjail(&["trace", "-o", &output, "--"]).args(&sandbox));
    outcome.success();
    for path in ["/usr/bin/wc", "/usr/bin/bwrap", &data] {
        assert!(tree.join(&path[1..]).is_file(), "{path}");
    }
}

/// A docker-registry of the test's own, which only this machine reaches.
struct Registry {
    _daemon: Daemon,
    directory: tempfile::TempDir,
    address: String,
}

impl Registry {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory can be made");
        // The kernel knows which port is free; nobody else is likely to take it in this moment.
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("the loopback device is there");
        let address = free.local_addr().expect("it is bound").to_string();
        drop(free);
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
            text(&directory.path().join("data"))
        );
        let (file, log) = (directory.path().join("config.yml"), directory.path().join("log"));
        fs_err::write(&file, config).expect("the directory is ours");
        let mut command = Command::new("docker-registry");
        let mut daemon = Daemon::start(command.args(["serve", &text(&file)]), &log);
        daemon.wait_until(|| std::net::TcpStream::connect(&address).is_ok(), &log);
        Self { _daemon: daemon, directory, address }
    }
}

#[test]
fn a_registry_gives_back_what_it_got() {
    if !has(&["docker-registry", "skopeo"]) {
        return;
    }
    let (built, registry) = (Built::new(), Registry::start());
    let copy = |from: &str, to: &str| {
        let mut command = limited("skopeo");
        command.args(["--insecure-policy", "copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false"]);
        // What skopeo remembers of blobs and where they are is not for this user's home.
        command.env("HOME", registry.directory.path());
        outcome_of(command.args(["--preserve-digests", from, to])).success();
    };
    let name = format!("docker://{}/team/app:1", registry.address);
    copy(&built.place("oci:layout:1"), &name);
    copy(&name, &built.place("oci:back:1"));
    let digest = |layout: &str| built.json(format!("{layout}/index.json"))["manifests"][0]["digest"].clone();
    assert_eq!(digest("back"), digest("layout"));
    let back = built.place("oci:back:1");
    built.context.outcome(&["check", "-q", &back, "--lock", &built.at("app.lock")]).success();
    built.context.outcome(&["run", &back]).assert_same_as(&built.native);
}

/// Where Debian's `golang-github-opencontainers-image-spec-dev` has the schemas of the OCI image specification.
const SCHEMAS: &str = "/usr/share/gocode/src/github.com/opencontainers/image-spec/schema";

/// Validates documents with Debian's `python3-jsonschema`; the schemas refer to each other by their file names.
const VALIDATE: &str = r#"
import json, os, sys, warnings
warnings.simplefilter("ignore")
import jsonschema
directory, schema, document = sys.argv[1:]
read = lambda path: json.load(open(path))
load = lambda uri: read(os.path.join(directory, os.path.basename(uri)))
schema = read(os.path.join(directory, schema))
resolver = jsonschema.RefResolver.from_schema(schema, handlers={"https": load})
jsonschema.Draft4Validator(schema, resolver=resolver, format_checker=jsonschema.FormatChecker()).validate(read(document))
"#;

#[test]
fn the_documents_are_valid_by_the_oci_schemas() {
    if !has(&["python3", SCHEMAS, "/usr/lib/python3/dist-packages/jsonschema"]) {
        return;
    }
    let built = Built::new();
    let valid = |schema: &str, document: &Path| {
        outcome_of(limited("/usr/bin/python3").args(["-c", VALIDATE, SCHEMAS, schema]).arg(document))
    };
    let (index, manifest) = (built.json("layout/index.json"), built.manifest());
    for (schema, document) in [
        ("image-layout-schema.json", Path::new("layout/oci-layout").to_owned()),
        ("image-index-schema.json", Path::new("layout/index.json").to_owned()),
        ("image-manifest-schema.json", Built::blob(&index["manifests"][0])),
        ("config-schema.json", Built::blob(&manifest["config"])),
    ] {
        valid(schema, &built.context.path("").join(document)).success();
    }
    // A manifest is no index: this would be told.
    let manifest = built.context.path("").join(Built::blob(&index["manifests"][0]));
    assert_ne!(valid("image-index-schema.json", &manifest).status, 0);
}
