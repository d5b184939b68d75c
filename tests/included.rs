//! What comes with a program that nobody ran: it must find in the image what it finds where it is from.

mod support;

use std::path::Path;
use std::process::Command;

use support::{TestContext, has, minjail, outcome_of, text};

/// A root directory with a static program `/app`, which is run, and others, which are not.
struct Ground {
    context: TestContext,
}

impl Ground {
    /// With `loader`, a file of this machine, and the C library that it loads, where programs look for both.
    fn new(files: &[(&str, &str)]) -> Self {
        let ground = Self { context: TestContext::new() };
        for (from, to) in files {
            let to = ground.path(to);
            fs_err::create_dir_all(to.parent().expect("it is below the root")).expect("it can be made");
            fs_err::copy(from, to).expect("the machine has it");
        }
        ground.compile("cc", "app", &["-static"]);
        ground
    }

    fn glibc() -> Self {
        let of_machine = |path: &'static str| (path, path);
        Self::new(&["/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libc.so.6"].map(of_machine))
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.context.path("root").join(name.trim_start_matches('/'))
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs_err::create_dir_all(path.parent().expect("it is below the root")).expect("it can be made");
        fs_err::write(path, content).expect("it can be written");
    }

    fn compile(&self, compiler: &str, name: &str, arguments: &[&str]) {
        let output = self.path(name);
        fs_err::create_dir_all(output.parent().expect("it is below the root")).expect("it can be made");
        let source = self.context.path("source.c");
        fs_err::write(&source, "int main(void) { return 0; }\n").expect("it can be written");
        let mut command = Command::new(compiler);
        command.args(["-Wl,--no-as-needed", "-o"]).arg(output).arg(source).args(arguments);
        assert!(command.current_dir(self.path("")).status().expect("there is a compiler").success());
    }

    /// A library of that path, and a program `/tool` that needs it.
    fn tool(&self, compiler: &str, library: &str, arguments: &[&str]) {
        let soname = format!("-Wl,-soname,{}", Path::new(library).file_name().expect("it has a name").display());
        self.compile(compiler, library, &["-shared", &soname]);
        self.compile(compiler, "tool", &[&[library], arguments].concat());
    }

    /// Builds with `/tool` included, and runs that; what minjail said of the building.
    #[track_caller]
    fn prove(&self) -> String {
        let said = self.build(&["-o", &self.tree(), "--include", "/tool", "--", "/app"]);
        self.context.outcome(&["run", &self.tree(), "--", "/tool"]).success();
        said
    }

    fn tree(&self) -> String {
        format!("rootfs:{}", self.context.text("tree"))
    }

    #[track_caller]
    fn build(&self, arguments: &[&str]) -> String {
        let root = format!("rootfs:{}", text(&self.path("")));
        let built = self.context.outcome(&[&["slim", &root, "--force"], arguments].concat()).success();
        built.to_string()
    }
}

#[test]
fn the_list_by_which_its_loader_finds_libraries_comes_along() {
    let ground = Ground::glibc();
    ground.tool("cc", "opt/listed/liblisted.so", &[]);
    ground.write("etc/ld.so.conf", "/opt/listed\n");
    let made = Command::new("/sbin/ldconfig").arg("-r").arg(ground.path("")).status();
    assert!(made.expect("glibc has it").success());
    ground.prove();
}

/// Whoever runs it in the image has the variables of the image.
#[test]
fn what_its_loader_finds_by_the_variables_of_the_image_comes_along() {
    let ground = Ground::glibc();
    ground.tool("cc", "opt/found/libfound.so", &[]);
    for (workload, image) in [("/opt/found", ""), ("/none", "/opt/found")] {
        let image = if image.is_empty() { String::new() } else { format!("LD_LIBRARY_PATH: {image}") };
        let profile = format!(
            "workloads: {{app: {{run: [/app], env: {{LD_LIBRARY_PATH: {workload}}}}}}}\nfiles: {{include: [/tool]}}\n\
             image: {{env: {{{image}}}}}\n"
        );
        let file = ground.context.path("app.yaml");
        fs_err::write(&file, profile).expect("it can be written");
        let image = format!("oci:{}", ground.context.text("image"));
        ground.build(&["-p", &text(&file), "-o", &image]);
        ground.context.outcome(&["run", &image, "--", "/tool"]).success();
    }
}

/// Others than root are served otherwise: their loader does not look beside a program that has more rights than they.
#[test]
fn a_set_user_id_program_has_what_its_users_need() {
    let ground = Ground::glibc();
    ground.tool("cc", "beside/libfound.so", &["-Wl,-rpath,$ORIGIN/beside"]);
    ground.compile("cc", "lib/libfound.so", &["-shared", "-Wl,-soname,libfound.so"]);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o4755);
    fs_err::set_permissions(ground.path("tool"), mode).expect("it is ours");
    ground.prove();
    for library in ["beside/libfound.so", "lib/libfound.so"] {
        assert!(ground.context.path("tree").join(library).exists(), "{library}");
    }
}

#[test]
fn an_addon_of_any_name_has_what_it_needs() {
    let ground = Ground::glibc();
    ground.compile("cc", "addons/libbeside.so", &["-shared", "-Wl,-soname,libbeside.so"]);
    ground.compile("cc", "addons/sharp.node", &["-shared", "addons/libbeside.so", "-Wl,-rpath,$ORIGIN"]);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs_err::set_permissions(ground.path("addons/sharp.node"), mode).expect("it is ours");
    ground.build(&["-o", &ground.tree(), "--include", "/addons/sharp.node", "--", "/app"]);
    assert!(ground.context.path("tree/addons/libbeside.so").exists());
}

#[test]
fn a_script_has_what_env_starts_for_it() {
    let ground = Ground::glibc();
    for (name, content) in [("usr/bin/env", ""), ("usr/bin/way", ""), ("usr/bin/other", "")] {
        ground.write(name, content);
        ground.compile("cc", name, &[]);
    }
    for (name, content) in
        [("one", "#!/usr/bin/env way\n"), ("two", "#!/usr/bin/env -S A=1 other -x\n"), ("three", "#!/usr/bin/env no\n")]
    {
        ground.write(&format!("scripts/{name}"), content);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs_err::set_permissions(ground.path(&format!("scripts/{name}")), mode).expect("it is ours");
    }
    let said = ground.build(&["-o", &ground.tree(), "--include", "/scripts", "--", "/app"]);
    for program in ["usr/bin/way", "usr/bin/other"] {
        assert!(ground.context.path("tree").join(program).exists(), "{program}");
    }
    assert!(said.contains("/scripts/three, which comes with what is included, needs no,"), "{said}");
}

#[test]
fn what_it_lacks_is_told() {
    let ground = Ground::glibc();
    ground.tool("cc", "opt/away/libaway.so", &[]);
    ground.compile("cc", "plugins/libcore.so", &["-shared", "-Wl,-soname,libcore.so"]);
    ground.compile("cc", "plugins/libplug.so", &["-shared", "plugins/libcore.so"]);
    ground.write("plugins/script.so", "#!/bin/awk -f\n");
    fs_err::remove_file(ground.path("opt/away/libaway.so")).expect("it was made");
    let (tree, include) = (ground.tree(), ["--include", "/tool", "--include", "/plugins"]);
    let said = ground.build(&[&["-o", &tree], &include[..], &["--", "/app"]].concat());
    for lack in [
        "/tool, which comes with what is included, needs libaway.so,",
        "/plugins/script.so, which comes with what is included, needs /bin/awk,",
    ] {
        assert!(said.contains(lack), "{lack}\n{said}");
    }
    assert!(!said.contains("needs libcore.so"), "what the program has by then\n{said}");
    let (only, both) = (["--include", "/plugins/libplug.so"], format!("rootfs:{}", ground.context.text("only")));
    let said = ground.build(&[&["-o", &both], &only[..], &["--", "/app"]].concat());
    assert!(said.contains("/plugins/libplug.so, which comes with what is included, needs libcore.so,"), "{said}");
}

#[test]
fn so_does_that_of_musl() {
    if !has(&["musl-gcc"]) {
        return;
    }
    let ground = Ground::new(&[("/lib/ld-musl-x86_64.so.1", "lib/ld-musl-x86_64.so.1")]);
    ground.tool("musl-gcc", "opt/listed/liblisted.so", &[]);
    ground.write("etc/ld-musl-x86_64.path", "/opt/listed\n");
    ground.prove();
}

/// A link is what authselect(8) leaves there.
#[test]
fn name_services_are_read_through_a_link() {
    let ground = Ground::glibc();
    ground.compile("cc", "lib/x86_64-linux-gnu/libnss_odd.so.2", &["-shared"]);
    ground.write("etc/authselect/nsswitch.conf", "passwd: files odd\n");
    std::os::unix::fs::symlink("authselect/nsswitch.conf", ground.path("etc/nsswitch.conf")).expect("it is not there");
    let (tree, rule) = (ground.tree(), ["--rule", "nss-services=on"]);
    let include = ["--include", "/etc/nsswitch.conf", "--include", "/lib/x86_64-linux-gnu/libc.so.6"];
    ground.build(&[&["-o", &tree], &rule[..], &include, &["--", "/app"]].concat());
    assert!(ground.context.path("tree/lib/x86_64-linux-gnu/libnss_odd.so.2").exists());
}

#[test]
fn a_link_that_leads_nowhere_is_packed_as_it_is() {
    let ground = Ground::new(&[]);
    let long = "n".repeat(256);
    let links =
        [("odd/loop", "loop"), ("odd/there", "back"), ("odd/back", "there"), ("odd/none", "/no"), ("odd/long", &long)];
    fs_err::create_dir(ground.path("odd")).expect("it is new");
    for (name, target) in links {
        std::os::unix::fs::symlink(target, ground.path(name)).expect("it is new");
    }
    ground.build(&["-o", &ground.tree(), "--include", "/odd", "--include", "/odd/loop", "--", "/app"]);
    for (name, target) in links {
        let packed = fs_err::read_link(ground.context.path("tree").join(name)).expect("it is packed");
        assert_eq!(packed, Path::new(target));
    }
}

/// What is asked of a file's names takes no longer for every other name of the file.
#[test]
fn a_large_file_of_many_names_is_looked_into_once() {
    const SIZE: u64 = 256 << 20;
    let ground = Ground::glibc();
    ground.compile("cc", "names/0.so", &["-shared", "-nostdlib"]);
    let file = ground.path("names/0.so");
    let mut content = fs_err::read(&file).expect("it was made");
    // `DT_STRSZ`, behind `DT_STRTAB` and `DT_SYMTAB`.
    let (words, _) = content.as_chunks_mut::<8>();
    let tags = |at: usize| [words[at - 2], words[at]].map(u64::from_le_bytes);
    let at = (2..words.len()).find(|&at| tags(at) == [6, 10]).expect("it has a dynamic section");
    words[at + 1] = SIZE.to_le_bytes();
    fs_err::write(&file, &content).expect("it is ours");
    let opened = fs_err::OpenOptions::new().write(true).open(&file).expect("it is ours");
    opened.set_len(SIZE + content.len() as u64).expect("it takes no space");
    for number in 1..400 {
        fs_err::hard_link(&file, ground.path(&format!("names/{number}.so"))).expect("the name is new");
    }
    let (root, tree) = (format!("rootfs:{}", text(&ground.path(""))), ground.tree());
    let include = ["--include", "/names", "--include", "/lib/x86_64-linux-gnu/libc.so.6"];
    let mut command = ground.context.command("prlimit");
    command.args(["--cpu=10", minjail(), "slim", &root, "-o", &tree, "--no-verify"]).args(include).args(["--", "/app"]);
    outcome_of(&mut command).success();
}
