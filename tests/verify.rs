//! What `minjail verify` finds in an image that is not whole: what is missing, what the kernel itself misses, and what is
//! there and differs; and what `--repair` makes of it.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use support::{TestContext, has, outcome_of, text};

/// A profile that runs `command`, in the file `NAME.yaml`.
fn profile(context: &TestContext, name: &str, command: &[&str], expect: &str) -> String {
    let file = context.text(&format!("{name}.yaml"));
    let command = serde_json::to_string(command).expect("it is plain text");
    fs_err::write(&file, format!("workloads:\n  {name}:\n    run: {command}\n    expect: {expect}\n"))
        .expect("the directory is ours");
    file
}

/// An executable script in the working directory.
fn script(context: &TestContext, name: &str, content: &str) -> String {
    let path = context.work().join(name);
    fs_err::write(&path, content).expect("the directory is ours");
    fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("the directory is ours");
    text(&path)
}

/// Where a path of the machine stands in the tree `tree`.
fn in_tree(context: &TestContext, path: &str) -> PathBuf {
    context.path("tree").join(&path[1..])
}

#[test]
fn what_is_missing_is_added() {
    let context = TestContext::new();
    context.lay_out(&[("one", "1\n"), ("two", "2\n"), ("three", "3\n")]);
    let [one, two, three] = ["one", "two", "three"].map(|name| text(&context.work().join(name)));
    let small = profile(&context, "small", &["/bin/cat", &one], "{}");
    // It ends at the first file that is missing, so that it takes two rounds; and another program, with its libraries.
    let steps = format!("set -e; read x < {two}; read y < {three}; ls {one}; echo $x $y");
    let large = profile(&context, "large", &["/bin/sh", "-c", &steps], "{stdout: {contains: \"2 3\"}}");
    for (built, mended) in [("oci:image", "oci:whole"), ("rootfs:tree", "docker-archive:whole.tar")] {
        let place = |output: &str| {
            let (form, name) = output.split_once(':').expect("it has a form");
            format!("{form}:{}", context.text(name))
        };
        let (built, mended) = (place(built), place(mended));
        context.outcome(&["build", &small, "-q", "-o", &built]).success();
        if built.starts_with("oci:") {
            fs_err::remove_file(context.path("image.lock")).expect("without a lock an image says itself what it has");
        }
        let outcome = context.outcome(&["verify", &built, "-p", &large]);
        assert_eq!(outcome.status, 3, "{outcome}");
        assert!(outcome.stderr.contains("`--repair -o OUT` adds"), "{outcome}");
        let few = context.outcome(&["verify", &built, "-p", &large, "--repair", "--rounds", "1", "-o", &mended]);
        assert_eq!(few.status, 3, "{few}");
        let file = mended.split_once(':').expect("it has a form").1;
        assert!(!Path::new(file).exists(), "what does not work is not written");
        context.outcome(&["verify", &built, "-p", &large, "--repair", "-o", &mended]).success();
        context.outcome(&["verify", &mended, "-p", &large]).success();
        context.outcome(&["verify", &mended, "-p", &small]).success();
        let why = context.outcome(&["why", &format!("{file}.lock"), &three]).success();
        assert!(why.text().contains("--repair"), "{why}");
        context.outcome(&["check", &mended, "--lock", &format!("{file}.lock")]).success();
        let ran = context.outcome(&["run", "-q", &mended]).success();
        assert_eq!(ran.text(), "1\n", "the image is still run as it was");
        assert_eq!(context.outcome(&["verify", &built, "-p", &large]).status, 3, "the image itself stays as it is");
    }
}

#[test]
fn what_cannot_be_added_is_told() {
    let context = TestContext::new();
    context.lay_out(&[("one", "1\n"), (".netrc", "machine x password y\n")]);
    let [one, key] = ["one", ".netrc"].map(|name| text(&context.work().join(name)));
    let small = profile(&context, "small", &["/bin/cat", &one], "{}");
    let (tree, mended) = (format!("rootfs:{}", context.text("tree")), format!("rootfs:{}", context.text("mended")));
    context.outcome(&["build", &small, "-q", "-o", &tree]).success();
    let large = profile(&context, "large", &["/bin/cat", &one, &key], "{}");
    let outcome = context.outcome(&["verify", &tree, "-p", &large, "--repair", "-o", &mended]);
    assert_eq!(outcome.status, 3, "{outcome}");
    assert!(outcome.stderr.contains(&format!("missing: `{key}`")) && !context.path("mended").exists(), "{outcome}");
    // What the user allows is added; how the image is made, its lock says.
    let allowed = ["verify", &tree, "-p", &large, "--repair", "-o", &mended, "--allow-secret", &key];
    let other = [&allowed[..], &["--compression", "zstd"]].concat();
    context.outcome(&other).assert_refused(125, &["tree.lock` says already how the image is made"]);
    context.outcome(&allowed).success();
    assert_eq!(context.outcome(&["verify", &mended, "-p", &large]).success().status, 0);
    fs_err::remove_dir_all(context.path("mended")).expect("it was written");
    fs_err::remove_file(context.path("mended.lock")).expect("it was written");
    context.outcome(&["verify", &tree, "-p", &small, "-o", &mended]).assert_refused(125, &["unless it repairs"]);
    // Who goes on with what is written finds it, also if nothing was to be done.
    let whole = context.outcome(&["verify", &tree, "-p", &small, "--repair", "-o", &mended]).success();
    assert!(whole.stderr.contains("nothing to repair: what is written is the image as it is"), "{whole}");
    context.outcome(&["diff", &tree, &mended]).success();
    context.outcome(&["check", &mended, "--lock", &context.text("mended.lock")]).success();
    // What is added to it is not what was tried out.
    let more = format!("rootfs:{}", context.text("more"));
    context.lay_out(&[("two", "2\n")]);
    let two = text(&context.work().join("two"));
    let added = ["verify", &tree, "-p", &small, "--repair", "-o", &more, "--include", &two];
    let added = context.outcome(&added).success();
    assert!(!added.stderr.contains("as it is"), "{added}");
    let proofs = added.stderr.matches("does in the jail what the profile says").count();
    assert_eq!(proofs, 2, "{added}");
    assert_eq!(context.outcome(&["diff", &tree, &more]).status, 1);
}

/// No run brings what was never looked for.
#[test]
fn what_a_listing_did_not_show_is_named_with_the_way_out() {
    let context = TestContext::new();
    context.lay_out(&[("d/one", ""), ("d/two", ""), ("d/three", ""), ("d/four", ""), ("d/five", "")]);
    let directory = text(&context.work().join("d"));
    let count = format!("ls {directory} | wc -l");
    let listed = profile(&context, "listed", &["/bin/sh", "-c", &count], "{stdout: {contains: \"5\"}}");
    let all = format!("{directory}/*");
    let (tree, mended) = (format!("rootfs:{}", context.text("tree")), format!("rootfs:{}", context.text("mended")));
    let named = format!("a listing did not show `{directory}/five`, `{directory}/four`, `{directory}/one`, 2 more");
    let include = format!("`--include {directory}/five` packs that");
    for repair in [&[][..], &["--repair"]] {
        let opened = ["build", &listed, "-o", &tree, "--listing", "opened"];
        let outcome = context.outcome(&[&opened[..], repair].concat());
        outcome.assert_refused(3, &[&named, &include, "`--listing names` keeps all names"]);
        context.outcome(&[&opened[..], repair, &["-q", "--force", "--include", &all]].concat()).success();
        fs_err::remove_dir_all(context.path("tree")).expect("it was written");
        fs_err::remove_file(context.path("tree.lock")).expect("it was written");
    }
    context.outcome(&["build", &listed, "-q", "-o", &tree, "--listing", "opened", "--no-verify"]).success();
    context.outcome(&["verify", &tree, "-p", &listed]).assert_refused(3, &[&named, &include]);
    let repair = ["verify", &tree, "-p", &listed, "--repair", "-o", &mended];
    context.outcome(&repair).assert_refused(3, &[&named, &include]);
    assert!(!context.path("mended").exists());
    context.outcome(&[&repair[..], &["--include", &all]].concat()).success();
    context.outcome(&["verify", &mended, "-p", &listed]).success();
}

/// `execve` says only that the program is not there: the kernel looks for what it names by itself.
#[test]
fn what_the_kernel_opens_is_missed_too() {
    if !has(&["perl"]) {
        return;
    }
    let context = TestContext::new();
    let inner = script(&context, "inner", "#!/usr/bin/perl\nprint \"inner\\n\";\n");
    let outer = script(&context, "outer", &format!("#!{inner}\n"));
    let tree = format!("rootfs:{}", context.text("tree"));
    let file = profile(&context, "scripts", &["/bin/sh", "-c", &format!("{outer}; {outer} && echo done")], "{}");
    context.outcome(&["build", &file, "-q", "-o", &tree]).success();
    let without = |path: &str, told: &str| {
        let aside = context.path("aside");
        fs_err::rename(in_tree(&context, path), &aside).unwrap();
        let outcome = context.outcome(&["verify", &tree, "-p", &file]);
        fs_err::rename(&aside, in_tree(&context, path)).unwrap();
        assert_eq!(outcome.status, 3, "{path}: {outcome}");
        assert!(outcome.stderr.contains(told), "{told:?} is not in {outcome}");
    };
    without(
        "/usr/bin/perl",
        "missing: `/usr/bin/perl`, looked for by `/usr/bin/dash`, the last thing that was missing",
    );
    without(&inner, &format!("missing: `{inner}`, looked for by `/usr/bin/dash`"));
    let loader = fs_err::canonicalize("/lib64/ld-linux-x86-64.so.2").unwrap();
    without(&text(&loader), "missing: `/lib64/ld-linux-x86-64.so.2`, looked for by `/usr/bin/dash`");
    without(
        "/usr/bin/dash",
        "missing: `/usr/bin/dash`, looked for to start the workload, the last thing that was missing",
    );
}

/// No repair packs what was left out on purpose, and what minjail makes anew for each image is nobody's fault.
#[test]
fn a_secret_that_was_needed_is_named_with_the_way_out() {
    let context = TestContext::new();
    let line = "b3BlbnNz".repeat(8);
    let key = format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{line}\n-----END OPENSSH PRIVATE KEY-----\n");
    context.lay_out(&[("key", &key)]);
    let key = text(&context.work().join("key"));
    let file = profile(&context, "keeper", &["/bin/cat", &key], "{}");
    let out = format!("rootfs:{}", context.text("out"));
    let build = |more: &[&str]| context.outcome(&[&["build", &file, "-o", &out], more].concat());
    for how in [&[][..], &["--repair"]] {
        let failed = build(how);
        failed.assert_refused(
            3,
            &[&format!("`{key}` was left out since it looks like a private key: `--allow-secret {key}`")],
        );
        assert!(!failed.stderr.contains("adds what was missing") && !failed.stderr.contains("differs: "), "{failed}");
    }
    build(&["--allow-secret", &key]).success();
}

#[test]
fn what_is_there_and_differs_is_told() {
    let context = TestContext::new();
    context.lay_out(&[("conf", "good\n"), ("other", "other\n"), ("sealed", "open\n")]);
    let [conf, other, sealed] = ["conf", "other", "sealed"].map(|name| text(&context.work().join(name)));
    let steps = format!("/bin/cat {other} {sealed}; /bin/grep -q good {conf}");
    let file = profile(&context, "checks", &["/bin/sh", "-c", &steps], "{}");
    let tree = format!("rootfs:{}", context.text("tree"));
    context.outcome(&["build", &file, "-q", "-o", &tree]).success();
    let verify = || context.outcome(&["verify", &tree, "-p", &file]);
    verify().success();
    fs_err::write(in_tree(&context, &conf), "evil\n").unwrap();
    fs_err::set_permissions(in_tree(&context, &sealed), std::fs::Permissions::from_mode(0o600)).unwrap();
    let outcome = verify();
    assert_eq!(outcome.status, 3, "{outcome}");
    let grep = format!("differs: `{conf}`, which `/usr/bin/grep` used, has another content than on the host");
    let mode = format!("differs: `{sealed}`, which `/usr/bin/cat` used, has the mode 0600, and 0644 on the host");
    let lines: Vec<&str> = outcome.stderr.lines().filter(|line| line.contains("differs: ")).collect();
    assert!(lines[0].contains(&grep), "the last thing that was used comes first\n{outcome}");
    assert!(lines.iter().any(|line| line.contains(&mode)), "{outcome}");
    assert!(!outcome.stderr.contains(&other), "what is the same is not told\n{outcome}");
    fs_err::write(in_tree(&context, &conf), "longer than it was\n").unwrap();
    assert!(verify().stderr.contains("has 19 bytes, and 5 on the host"));
}

/// Whatever a profile leaves open is as the image has it: variables, directory, and user.
#[test]
fn workloads_are_run_as_the_image_says() {
    let context = TestContext::new();
    context.lay_out(&[("one", "1\n")]);
    let work = text(&context.work());
    let is_root = nix::unistd::geteuid().is_root();
    let (user, uid) = if is_root { ("user: nobody,", 65534) } else { ("", nix::unistd::geteuid().as_raw()) };
    let script = "read -r x < one; while read -r key value rest; do case $key in Uid:) echo $COLOUR $value;; esac; done < /proc/self/status";
    let whole = context.text("whole.yaml");
    let workload = format!("{{run: [/bin/sh, -c, '{script}'], env: {{COLOUR: green}}, {user} cwd: '{work}'}}");
    fs_err::write(&whole, format!("workloads: {{whole: {workload}}}\n")).expect("the directory is ours");
    let expect = format!("{{stdout: {{equals: \"green {uid}\\n\"}}}}");
    let bare = profile(&context, "bare", &["/bin/sh", "-c", script], &expect);
    for image in [format!("oci:{}", context.text("image")), format!("rootfs:{}", context.text("tree"))] {
        context.outcome(&["build", &whole, "-q", "-o", &image]).success();
        context.outcome(&["verify", &image, "-p", &bare]).success();
    }
}

/// They bind neither minjail, whose images are larger than that, nor the jail in which it runs the program again.
#[test]
fn limits_are_the_program_s_alone() {
    let context = TestContext::new();
    let limits = "ulimit -S -n 12; ulimit -S -t 100; ulimit -S -f 64";
    let asked = limits.replace(" 12", "").replace(" 100", "").replace(" 64", "");
    let program = format!("[ \"$(echo $({asked}))\" = '12 100 64' ]");
    let workload = profile(&context, "limited", &["/bin/sh", "-c", &program], "{}");
    let limited = |arguments: &[&str]| {
        let script = format!("{limits}; exec \"$@\"");
        let mut command = context.command("sh");
        outcome_of(command.args(["-c", &script, "sh", support::minjail()]).args(arguments)).success();
    };
    let rootfs = |name: &str| format!("rootfs:{}", context.text(name));
    limited(&["trace", "-t", &context.text("x.trace"), "-o", &rootfs("traced"), "--", "/bin/sh", "-c", &program]);
    limited(&["build", &workload, "-o", &rootfs("built")]);
}
