//! Programs that look at times find them right in the jail: Python compiles nothing, Java shares its classes.

mod support;

use std::path::Path;

use support::{TestContext, outcome_of, skip};

/// How many modules Python took from their compiled form, and how many it compiled, when it told in the jail.
fn compiled(context: &TestContext, image: &str, python: &str, code: &str) -> (usize, usize) {
    let told = context.outcome(&["run", "-q", image, "--", python, "-v", "-c", code]).success();
    let taken = told.stderr.lines().filter(|line| line.contains(".pyc matches ")).count();
    // A compiled one is in quotation marks there.
    let made = told.stderr.lines().filter(|line| line.starts_with("# code object from /"));
    (taken, made.count())
}

#[test]
fn python_compiles_nothing() {
    if !Path::new("/usr/bin/python3").exists() {
        return skip("there is no python3");
    }
    let context = TestContext::new();
    // A virtual environment: what is in it is from no package.
    let environment = context.text("work/env");
    let make = ["-m", "venv", "--without-pip", &environment];
    outcome_of(context.command("/usr/bin/python3").args(make)).success();
    let modules = context.work().join("env/modules");
    fs_err::create_dir(&modules).expect("it is ours");
    fs_err::write(modules.join("mine.py"), "answer = 42\n").expect("it is ours");
    let environment_python = format!("{environment}/bin/python3");
    let code = format!("import sys; sys.path.append('{}'); import json, mine; print(mine.answer)", modules.display());
    for (python, code) in [("/usr/bin/python3", "import json, ssl; print(42)"), (&environment_python, &code)] {
        // The first run compiles what is not compiled yet.
        outcome_of(context.command(python).args(["-c", code])).success();
        let image = format!("docker-archive:{}", context.text("image.tar"));
        let trace = context.text("app.trace");
        let mut command = context.minjail(&["trace", "-q", "--force", "-t", &trace, "-o", &image]);
        outcome_of(command.args(["--", python, "-c", code])).success();
        let (taken, made) = compiled(&context, &image, python, code);
        assert!(taken > 5 && made == 0, "{python}: {taken} taken, {made} compiled");

        let fixed = format!("docker-archive:{}", context.text("fixed.tar"));
        let build = ["build", "-q", "--force", "-t", &trace, "--mtime", "fixed", "-o", &fixed];
        context.outcome(&build).success();
        let (_, made) = compiled(&context, &fixed, python, code);
        assert!(made > 5, "{python}: with other times it compiles, else this test shows nothing");
    }
}

#[test]
fn java_shares_its_classes() {
    if !Path::new("/usr/bin/java").exists() {
        return skip("there is no java");
    }
    let context = TestContext::new();
    let image = format!("docker-archive:{}", context.text("image.tar"));
    let mut command = context.minjail(&["trace", "-q", "-t", &context.text("app.trace"), "-o", &image]);
    outcome_of(command.args(["--", "/usr/bin/java", "-Xshare:on", "-version"])).success();
    // `-Xshare:on` fails where the archive cannot be used.
    let told = context.outcome(&["run", "-q", &image]).success();
    assert!(told.stderr.contains("sharing"), "{told}");
}

/// What was made from a packaged file is up to date in the jail too, whenever and wherever the image is built.
#[test]
fn what_was_made_from_packaged_files_is_not_older_than_they_are() {
    let context = TestContext::new();
    let source = "/usr/share/common-licenses/GPL-3";
    context.lay_out(&[("made", "made"), ("one", "1")]);
    fs_err::hard_link(context.work().join("made"), context.work().join("name")).expect("it is ours");
    let script =
        format!("cat made name one > /dev/null; head -n 0 {source}; test {source} -nt made || echo up to date");
    let build = |name: &str| {
        let image = format!("rootfs:{}", context.text(name));
        let mut command = context.minjail(&["trace", "-q", "-t", &context.text("app.trace"), "-o", &image]);
        let traced = outcome_of(command.args(["--", "/bin/sh", "-c", &script])).success();
        context.outcome(&["run", "-q", &image]).assert_same_as(&traced);
    };
    build("one");
    let lock = |name: &str| fs_err::read_to_string(context.path(&format!("{name}.lock"))).expect("there is a lock");
    let time = |name: &str| {
        let file = context.path("one").join(context.work().join(name).strip_prefix("/").expect("it is absolute"));
        fs_err::metadata(file).expect("it is there").modified().expect("it has a time")
    };
    let packaged = fs_err::metadata(source).and_then(|found| found.modified()).expect("it is there");
    assert!(time("made") >= packaged && time("made") == time("one") && time("made") == time("name"));
    // Its own time has no part in it.
    let file = fs_err::OpenOptions::new().write(true).open(context.work().join("made")).expect("it is ours");
    file.into_parts().0.set_modified(packaged + std::time::Duration::from_secs(3600)).expect("it is ours");
    build("two");
    assert_eq!(lock("one"), lock("two"));
}
