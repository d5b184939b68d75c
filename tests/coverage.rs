//! What several runs say of the next one, and repeating them until they have no more to say.

mod support;

use support::{Outcome, TestContext, text};

fn build(context: &TestContext, profile: &str, more: &[&str]) -> Outcome {
    let file = context.text("app.yaml");
    fs_err::write(&file, profile).expect("the directory is ours");
    let output = format!("rootfs:{}", context.text("out"));
    let arguments = [&["build", &file, "-o", &output, "--force"][..], more].concat();
    context.outcome(&arguments).success()
}

#[test]
fn each_workload_says_what_it_brought() {
    let context = TestContext::new();
    context.lay_out(&[("a", ""), ("b", ""), ("c", "")]);
    let work = text(&context.work());
    let profile = format!(
        "workloads:\n  one: {{run: [/usr/bin/cat, {work}/a]}}\n  two: {{run: [/usr/bin/cat, {work}/a, {work}/b, {work}/c]}}\n  \
         same: {{run: [/usr/bin/cat, {work}/a]}}\n  thin: {{run: [/usr/bin/true]}}\n"
    );
    let told = build(&context, &profile, &[]).stderr;
    let line =
        |start: &str| told.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}: {told}"));
    assert!(line("minjail: workload `two` used ").ends_with(", 2 of them new"), "{told}");
    assert!(line("minjail: workload `same` used ").ends_with(", 0 of them new"), "{told}");
    let thin = line("minjail: workload `thin` used ");
    assert!(thin.ends_with("1 of them new; only its programs, the loader and the C library: is this representative?"));
    // Of four runs, two used what no other did: `two` its files, and `thin` its program.
    assert!(
        told.contains("3 of them in one run only: another such run needs an unseen file with a chance of about 50 %")
    );
    let json = build(&context, &profile, &["--json"]).stderr;
    let summary: serde_json::Value = serde_json::from_str(&json).expect("the summary alone is told");
    let coverage = &summary["coverage"];
    assert_eq!((&coverage["runs"], &coverage["once"]), (&4.into(), &3.into()), "{coverage}");
    assert_eq!(coverage["unseen-percent"], 50);
    assert_eq!(coverage["thin"], serde_json::json!(["thin"]));
}

#[test]
fn one_run_says_nothing_of_the_next() {
    let context = TestContext::new();
    let told = build(&context, "workloads:\n  main: {run: [/usr/bin/id]}\n", &[]).stderr;
    assert!(told.contains("files in one run; what another run would need, only more runs can tell"), "{told}");
}

/// Each run reads the next file, until the third: a run more or less is another image.
#[test]
fn workloads_are_repeated_until_nothing_new_comes() {
    let context = TestContext::new();
    let profile = format!(
        "workloads:\n  main:\n    cwd: {}\n    run: |\n      cd marks\n      set -- m*\n      n=$(($# < 3 ? $# : 3))\n      \
         cat ../data/$n\n      : > m$$\n",
        text(&context.work())
    );
    let packed = |more: &[&str]| -> Vec<String> {
        let files = ["data/1", "data/2", "data/3", "marks/m", "unused"];
        context.lay_out(&files.map(|name| (name, "")));
        let outcome = build(&context, &profile, &[more, &["--no-verify"]].concat());
        let told = outcome.stderr.lines().filter(|line| line.contains("workload `main` used")).count();
        assert_eq!(told, if more.is_empty() { 1 } else { 3 }, "{outcome}");
        support::names_in(&context.path("out").join(&text(&context.work())[1..]).join("data"))
    };
    assert_eq!(packed(&[]), ["1"]);
    assert_eq!(packed(&["--until-stable", "2"]), ["1", "2", "3"]);
    let runs = support::names_in(&context.work().join("marks")).len() - 1;
    assert_eq!(runs, 5, "three that brought something, and two that did not");
}
