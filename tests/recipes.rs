//! What `README.md`, `docs/recipes.md`, `docs/ci.md` and `docs/profile.md` say, done as it stands there.

#![expect(clippy::unwrap_used, reason = "these are tests")]

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::podman::Podman;
use support::{Outcome, TestContext, has, limited, minjail, needs_root, outcome_of, text};

const HOME: &str = env!("CARGO_MANIFEST_DIR");

/// The commands of a recipe.
fn recipe(name: &str) -> String {
    let page = fs_err::read_to_string(Path::new(HOME).join("docs/recipes.md")).unwrap();
    let block =
        page.split_once(&format!("<!-- recipe: {name} -->\n```sh\n")).unwrap_or_else(|| panic!("no recipe {name}"));
    block.1.split_once("```\n").unwrap().0.to_owned()
}

/// The blocks of a page that are in `language`.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let page = fs_err::read_to_string(Path::new(HOME).join(page)).unwrap();
    let fence = format!("```{language}\n");
    page.split(&fence).skip(1).map(|block| block.split_once("```\n").unwrap().0.to_owned()).collect()
}

/// A shell that does `commands` in the test's own directory, where `minjail` is found by its name.
fn shell(context: &TestContext, commands: &str) -> Command {
    let bin = context.path("bin");
    if !bin.exists() {
        fs_err::create_dir(&bin).unwrap();
        symlink(minjail(), bin.join("minjail")).unwrap();
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n",
            context.text("graph"),
            context.text("run")
        );
        fs_err::write(context.path("storage.conf"), storage).unwrap();
    }
    let mut command = limited("sh");
    command.args(["-euc", commands]).current_dir(context.work());
    command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", text(&bin)));
    command.env("HOME", context.work()).env("CONTAINERS_STORAGE_CONF", context.path("storage.conf"));
    command
}

fn done(context: &TestContext, commands: &str) -> Outcome {
    outcome_of(&mut shell(context, commands)).success()
}

/// What the Containerfile of the examples wants: a root, a program, and something that it does not need.
fn project(context: &TestContext) {
    let root = context.work().join("root");
    for directory in ["bin", "srv", "usr/share"] {
        fs_err::create_dir_all(root.join(directory)).unwrap();
    }
    fs_err::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for name in ["sh", "cat"] {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    fs_err::write(root.join("usr/share/unneeded"), "x".repeat(1_000_000)).unwrap();
    fs_err::write(context.work().join("app.sh"), "echo from the image\n").unwrap();
}

/// A page's code in the text, as `minjail trace`, and the lines of its blocks.
fn code(page: &str) -> Vec<String> {
    let mut all = Vec::new();
    for (index, part) in page.split("```").enumerate() {
        if index % 2 == 0 {
            all.extend(part.split('`').skip(1).step_by(2).map(|span| span.replace('\n', " ")));
        } else {
            all.extend(part.lines().map(str::to_owned));
        }
    }
    all
}

fn flags(words: &str) -> impl Iterator<Item = &str> {
    let ends = |c: char| !(c.is_ascii_lowercase() || c == '-');
    words.split(ends).filter(|word| word.len() > 2 && word.starts_with("--"))
}

#[test]
fn pages_name_only_flags_that_there_are() {
    let context = TestContext::new();
    let help = |words: &[&str]| outcome_of(&mut context.minjail(words)).success().text();
    let main = help(&["--help"]);
    let commands =
        main.lines().filter_map(|line| line.strip_prefix("  ").filter(|name| name.starts_with(char::is_lowercase)));
    let helps: BTreeMap<&str, String> = commands
        .filter_map(|line| line.split_whitespace().next().filter(|command| *command != "help"))
        .map(|command| (command, help(&[command, "--help"])))
        .collect();
    let any: String = helps.values().map(String::as_str).collect();
    let mut count = 0;
    for page in ["README.md", "CONTRIBUTING.md", "profiles/README.md"].map(PathBuf::from).into_iter().chain(docs()) {
        let text = fs_err::read_to_string(Path::new(HOME).join(&page)).unwrap();
        for code in code(&text) {
            let commands = code
                .split("minjail ")
                .skip(1)
                .filter_map(|rest| Some((helps.get(rest.split_whitespace().next()?)?, rest)));
            let alone = code.starts_with("--").then_some((&any, code.as_str()));
            for (help, words) in commands.chain(alone) {
                // What follows `--` is the program's, and what follows a bar another's.
                let ours = words.split(" -- ").next().unwrap().split(" | ").next().unwrap();
                for flag in flags(ours) {
                    assert!(flags(help).any(|known| known == flag), "{}: `{flag}` in `{code}`", page.display());
                    count += 1;
                }
            }
        }
    }
    assert!(count > 50, "{count}");
}

/// The pages below `docs`.
fn docs() -> Vec<PathBuf> {
    let pages = fs_err::read_dir(Path::new(HOME).join("docs")).unwrap().map(|page| page.unwrap().path());
    pages.filter(|page| page.extension().is_some_and(|kind| kind == "md")).collect()
}

/// Its first commands, and those by which an image is built again and checked. minjail is built already, and of the engines
/// podman stands for both.
#[test]
fn readme() {
    if !has(&["podman", "/usr/bin/python3"]) || !needs_root("podman") {
        return;
    }
    let (context, podman) = (TestContext::new(), Podman::new());
    let blocks = blocks("README.md", "sh");
    let is_here = |line: &&str| !["cargo ", "docker "].iter().any(|other| line.starts_with(other));
    let first: Vec<&str> = blocks[0].lines().filter(is_here).collect();
    let again = blocks.iter().find(|block| block.contains("--locked")).expect("the lock has its block");
    let again = again.lines().filter(|line| line.contains("hello.tar.lock") && !line.contains("minjail diff"));
    let commands: Vec<&str> = first.into_iter().chain(again).collect();
    let done = outcome_of(shell(&context, &commands.join("\n")).envs(podman.environment())).success();
    let printed = |expected: &str| done.text().lines().filter(|line| *line == expected).count();
    // Traced, in podman, and in a jail.
    assert_eq!((printed("hello"), printed("Asia/Tokyo")), (3, 1), "{done}");
    let bytes = |name: &str| fs_err::read(context.work().join(name)).unwrap();
    assert!(bytes("hello.tar") == bytes("again.tar"), "the same bytes");
}

#[test]
fn buildah() {
    if !has(&["buildah", "/bin/busybox"]) || !needs_root("buildah's store") {
        return;
    }
    let context = TestContext::new();
    project(&context);
    let told = done(&context, &recipe("buildah")).text();
    assert!(
        told.ends_with("from the image\n") && told.contains("1.0 MB       (1) ->       0 B       (0)  /usr/share"),
        "{told}"
    );
    let lock = context.json("work/small.tar.lock");
    assert_eq!(lock["config"]["user"], "1000:1000");
    assert_eq!(lock["config"]["labels"]["org.example.name"], "app");
}

/// Without a mirror of Debian's at hand, the root is one of this machine's packages.
#[test]
#[expect(clippy::disallowed_methods, reason = "the tests that take long are asked for by this variable")]
fn mmdebstrap() {
    if !has(&["mmdebstrap"]) || !needs_root("a root with all its owners") {
        return;
    }
    let context = TestContext::new();
    let recipe = recipe("mmdebstrap");
    let (first, rest) = recipe.split_once('\n').unwrap();
    assert!(first.starts_with("mmdebstrap "));
    if std::env::var_os("MINJAIL_TESTS_ALL").is_some() {
        done(&context, first);
    } else {
        let script = format!("{HOME}/fixtures/roots/from-packages.py");
        outcome_of(context.command(&script).args(["root", "perl-base"])).success();
    }
    assert_eq!(done(&context, rest).text(), "1970\n");
    let lock = context.json("work/small.lock");
    let entries = lock["entries"].as_array().unwrap();
    let package = |path: &str| entries.iter().find(|entry| entry["path"] == path).map(|entry| entry["package"].clone());
    assert!(package("/usr/bin/perl").unwrap().as_str().unwrap().starts_with("deb:perl-base="));
    assert_eq!(package("/usr/bin/apt"), None);
}

/// In a mount namespace of its own, since the store is `/nix` for all.
#[test]
fn nix() {
    if !has(&["nix-build", "/bin/busybox"]) || !needs_root("a store of one's own") {
        return;
    }
    let context = TestContext::new();
    let (made, store) = (!Path::new("/nix").exists(), "mkdir -p /nix; mount -t tmpfs none /nix");
    let built = format!("{store}; export NIX_CONFIG='build-users-group ='\n{}", recipe("nix"));
    let mut command = limited("unshare");
    let shell = shell(&context, &built);
    command.args(["-m", "sh"]).args(shell.get_args().skip(3)).current_dir(context.work());
    command.envs(shell.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let told = outcome_of(&mut command);
    if made {
        let _ = fs_err::remove_dir("/nix");
    }
    // The store path comes first.
    assert!(told.success().text().ends_with("-hello\nhello\nhello\n"));
    let lock = context.json("work/small.lock");
    let cat =
        |entry: &&Value| entry["path"].as_str().unwrap().starts_with("/nix/store/") && entry["target"] == "busybox";
    assert_eq!(lock["entries"].as_array().unwrap().iter().filter(cat).count(), 1, "the link of the store path");
}

#[test]
fn virtual_environment() {
    if !has(&["python3"]) {
        return;
    }
    let context = TestContext::new();
    assert_eq!(done(&context, &recipe("venv")).text(), "\"hello, venv\"\n".repeat(2));
    let lock = fs_err::read_to_string(context.work().join("small.tar.lock")).unwrap();
    assert!(lock.contains("greeting.py") && !lock.contains("site-packages/pip/__init__.py"));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "cargo finds its toolchain by these variables")]
fn cargo() {
    let context = TestContext::new();
    let cargo = Path::new(env!("CARGO")).parent().unwrap();
    // Below this workspace the project would be taken for one of its members.
    let elsewhere = tempfile::Builder::new().prefix("minjail-test-").tempdir_in("/var/tmp").unwrap();
    let mut command = shell(&context, &recipe("cargo"));
    command.current_dir(elsewhere.path());
    command.env("PATH", format!("{}:{}:/usr/bin:/bin", text(cargo), context.text("bin")));
    command.envs(std::env::var_os("RUSTUP_HOME").map(|value| ("RUSTUP_HOME", value)));
    assert_eq!(outcome_of(&mut command).success().text(), "Hello, world!\n".repeat(2));
}

#[test]
fn profile() {
    if !has(&["/usr/bin/python3", "/usr/share/doc/python3/copyright"]) || !needs_root("a network of its own") {
        return;
    }
    let [example] = blocks("docs/profile.md", "yaml").try_into().expect("one example");
    let context = TestContext::new();
    fs_err::write(context.work().join("app.yaml"), example).unwrap();
    done(&context, "minjail build app.yaml -o oci:app");
    let lock = fs_err::read_to_string(context.work().join("app.lock")).unwrap();
    assert!(lock.contains("\"verified\": true") && lock.contains("/usr/share/doc/python3/copyright"), "{lock}");
}

#[test]
fn continuous_integration() {
    if !has(&["buildah", "/bin/busybox"]) || !needs_root("buildah's store") {
        return;
    }
    let examples: Vec<Value> =
        blocks("docs/ci.md", "yaml").iter().map(|block| serde_yaml::from_str(block).unwrap()).collect();
    let [github, gitlab] = examples.as_slice() else { panic!("two examples") };
    let steps = github["jobs"]["image"]["steps"].as_array().unwrap();
    // What a test's machine has done already, or may not.
    let is_ours =
        |step: &&Value| !["Install", "Allow user namespaces"].contains(&step["name"].as_str().unwrap_or_default());
    let ours: Vec<&str> = steps.iter().filter(is_ours).filter_map(|step| step["run"].as_str()).collect();
    let lines = |job: &str| gitlab[job]["script"].as_array().unwrap().iter().map(|line| line.as_str().unwrap());
    let jobs: Vec<&str> = lines("build").chain(lines("slim")).collect();
    for (steps, least) in [(ours, 4), (jobs, 5)] {
        let context = TestContext::new();
        project(&context);
        let recipe = recipe("buildah");
        let containerfile = format!("{}END\n", recipe.split_once("END\nbuildah").unwrap().0);
        done(&context, &containerfile);
        assert!(steps.len() >= least, "{steps:?}");
        for step in steps {
            done(&context, step);
        }
        let before = fs_err::metadata(context.work().join("app.tar")).unwrap().len();
        let lock = fs_err::read_to_string(context.work().join("small.tar.lock")).unwrap();
        assert!(before > 0 && lock.contains("\"verified\": true") && !lock.contains("unneeded"));
    }
}
