//! Programs that look at times find them right in the jail: Python compiles nothing, Java shares its classes.

mod support;

use std::path::Path;

use support::{TestContext, outcome_of, skip};

/// How many modules Python took from their compiled form, and how many it compiled, when it told in the jail.
fn compiled(context: &TestContext, image: &str, python: &str, code: &str) -> (usize, usize) {
    let told = outcome_of(&mut context.minjail(&["run", "-q", image, "--", python, "-v", "-c", code])).success();
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
        outcome_of(&mut context.minjail(&build)).success();
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
    let told = outcome_of(&mut context.minjail(&["run", "-q", &image])).success();
    assert!(told.stderr.contains("sharing"), "{told}");
}
