//! Programs for another machine, which an emulator runs that is registered with `binfmt_misc`. The emulator is busybox under the
//! name of `cat`: to run a program it writes it out.

#![expect(clippy::unwrap_used, reason = "these are tests")]

mod support;

use std::collections::BTreeSet;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use support::crafted::program_for;
use support::{TestContext, has, needs_root, outcome_of, skip};

/// `LoongArch`, as numbered in `elf.h`: no other test has a program for it.
const MACHINE: u16 = 258;

/// An emulator that is registered while this lives.
struct Emulator {
    mounted: PathBuf,
    entry: PathBuf,
}

impl Emulator {
    /// `None` if that cannot be done here.
    fn register(context: &TestContext, flags: &str) -> Option<Self> {
        let mounted = context.path("binfmt_misc");
        fs_err::create_dir_all(&mounted).unwrap();
        let mount = context.command("mount").args(["-t", "binfmt_misc", "none"]).arg(&mounted).status();
        mount.unwrap().success().then_some(())?;
        let name = format!("minjail-test-{}", std::process::id());
        let emulator = Self { entry: mounted.join(&name), mounted };
        let interpreter = context.path("cat");
        if !interpreter.exists() {
            symlink(fs_err::canonicalize("/bin/busybox").unwrap(), &interpreter).unwrap();
        }
        let byte = |magic: String, byte: &u8| magic + &format!("\\x{byte:02x}");
        let magic = program_for(MACHINE)[..20].iter().fold(String::new(), byte);
        let rule = format!(":{name}:M::{magic}::{}:{flags}", interpreter.display());
        fs_err::write(emulator.mounted.join("register"), rule).unwrap();
        Some(emulator)
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = fs_err::write(&self.entry, "-1");
        let _ = std::process::Command::new("umount").arg(&self.mounted).status();
    }
}

/// The names of the files in `tree`, without the directories that they are in.
fn files(context: &TestContext, tree: &str) -> BTreeSet<String> {
    let listed =
        outcome_of(context.command("find").arg(context.path(tree)).args(["!", "-type", "d", "-printf", "%f\\n"]));
    listed.success().text().lines().map(str::to_owned).collect()
}

#[test]
fn an_image_for_another_machine() {
    if !needs_root("binfmt_misc") || !has(&["/bin/busybox"]) {
        return;
    }
    let context = TestContext::new();
    let program = context.work().join("program");
    fs_err::write(&program, [&program_for(MACHINE)[..], b"emulated\n"].concat()).unwrap();
    fs_err::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let does_run = |arguments: &[&str]| {
        let outcome = context.outcome(arguments).success();
        assert!(outcome.stdout.ends_with(b"emulated\n"), "{outcome}");
        outcome.stderr
    };
    let [image, small, tree] = ["oci:image", "oci:small", "rootfs:tree"].map(|form| {
        let (form, name) = form.split_once(':').unwrap();
        format!("{form}:{}", context.text(name))
    });
    let trace = ["trace", "--force", "-t", &context.text("trace"), "-o", &image, "-o", &tree, "--", "./program"];

    // One that the kernel looks for whenever it is to run something is needed in the image, too.
    let Some(emulator) = Emulator::register(&context, "") else { return skip("binfmt_misc cannot be mounted") };
    assert!(does_run(&trace).contains("for loong64"));
    assert_eq!(files(&context, "tree"), ["busybox", "cat", "program"].map(str::to_owned).into());
    does_run(&["run", &image]);
    drop(emulator);

    // One that it holds open is not.
    let emulator = Emulator::register(&context, "F").unwrap();
    assert!(does_run(&trace).contains("for loong64"));
    assert_eq!(files(&context, "tree"), ["program".to_owned()].into());
    does_run(&["run", &image]);
    let told = context.outcome(&["slim", "--platform", "linux/loong64", &image, "-o", &small]).success();
    assert!(told.stderr.contains("for loong64"), "{told}");
    does_run(&["run", "--platform", "linux/loong64", &small]);
    let of_tree = context.path("of-tree");
    let within = format!("{}/program", context.work().display());
    does_run(&["trace", "-q", "-t", of_tree.to_str().unwrap(), "--root", &context.text("tree"), "--", &within]);
    drop(emulator);

    context
        .outcome(&["run", &image])
        .assert_refused(126, &["failed to execute", "it is neither a program for this machine"]);
}
