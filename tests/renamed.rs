//! What a run renames: an image has it where it was before, with the content that it had, and nothing that the run made itself.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use proptest::prelude::*;
use support::laid_out::{Case, everything, files, image_of, lay_out};
use support::traced::Traced;
use support::{has, outcome_of};

#[test]
fn the_way_through_what_is_renamed_later() {
    let before = ["d/", "tgt/f=old", "d/l -> ../tgt/f", "d2/sub/", "x=one"];
    assert_eq!(
        image_of("cat d/l; cat d2/sub/../../x; mv d e; mv d2 e2", &before),
        ["d/", "d/l -> ../tgt/f", "d2/", "d2/sub/", "tgt/", "tgt/f=old", "x=one"]
    );
    assert_eq!(image_of("mv d e; cat e/l", &before), ["d/", "d/l -> ../tgt/f", "tgt/", "tgt/f=old"]);
    assert_eq!(image_of("cat d/l; mv d e; rm e/l", &before), ["d/", "d/l -> ../tgt/f", "tgt/", "tgt/f=old"]);
    assert_eq!(image_of("mv d2 e2; cat e2/sub/../../x", &before), ["d2/", "d2/sub/", "x=one"]);
    assert_eq!(image_of("echo new > d2/sub/../new; mv d2 e2", &before), ["d2/", "d2/sub/"]);
    assert_eq!(image_of("echo new > d2/sub/new; mv d2 e2", &before), ["d2/", "d2/sub/"]);
}

/// What is wrong with the new name is told before that there is no old one, if its directory is there.
#[test]
fn a_rename_of_what_is_missing() {
    let script = r#"perl -e 'rename("d/none", "f/x"); exit($!{ENOTDIR} ? 0 : 1)'"#;
    assert_eq!(image_of(script, &["d/", "f=old"]), ["d/", "f=old"]);
    let script = r#"perl -e 'rename("e/none", "f/x"); exit($!{ENOENT} ? 0 : 1)'"#;
    assert_eq!(image_of(script, &["d/", "f=old"]), ["f=old"]);
}

#[test]
fn a_link_in_the_place_of_what_was_renamed() {
    assert_eq!(
        image_of(
            "cat d/l; mv d e; ln -s other d",
            &["d/", "other/", "f=old", "f2=two", "d/l -> ../f", "other/l -> ../f2"]
        ),
        ["d/", "d/l -> ../f", "f=old"]
    );
    assert_eq!(image_of("cat d/f; mv d e; ln -s d d", &["d/f=old"]), ["d/", "d/f=old"]);
    assert_eq!(image_of("cat d/f; mv d e; ln -s e d", &["d/f=old"]), ["d/", "d/f=old"]);
    assert_eq!(image_of("cat d/f; mv d e; echo new > d", &["d/f=old"]), ["d/", "d/f=old"]);
}

/// Neither size nor time tells them from what was there.
#[test]
fn what_has_the_size_and_the_time_of_what_was_there() {
    let before = ["a=one", "b=two", "l -> a", "f=old"];
    let script = "cat l; : > time; touch -h -r l time; rm l; ln -s b l; touch -h -r time l";
    assert_eq!(image_of(script, &before), ["a=one", "l -> a"]);
    assert_eq!(image_of("touch -r f time; printf new > f; touch -r time f", &before), ["f=old"]);
}

#[test]
fn a_link_that_somebody_else_has_led_elsewhere_since() {
    for then in ["v2", "."] {
        let traced = Traced::new("cat cur/f; test -e cur/none || :", |work| {
            lay_out(work, &["v1/f=one", "v2/f=two", "cur -> v1"]);
        });
        let cur = traced.context.work().join("cur");
        fs_err::remove_file(&cur).expect("it is ours");
        std::os::unix::fs::symlink(then, &cur).expect("it is ours");
        let built = traced.into_built();
        assert_eq!(everything(&built.at(""), Path::new("")), ["cur -> v1", "v1/", "v1/f=one"]);
    }
}

/// Where something led as it was executed, and not where the run has led it since: what that has made is made again.
#[test]
fn what_was_executed_by_a_link_that_leads_elsewhere_since() {
    if !has(&["busybox"]) {
        return;
    }
    let prepare = |work: &Path| {
        lay_out(work, &["v1/", "cur -> v1", "script="]);
        fs_err::copy("/bin/busybox", work.join("v1/sh")).expect("it can be copied");
        fs_err::write(work.join("script"), format!("#!{}/cur/sh\n:\n", work.display())).expect("it is ours");
        fs_err::set_permissions(work.join("script"), PermissionsExt::from_mode(0o755)).expect("it is ours");
    };
    for (made, others) in [
        ("busybox mkdir v2; busybox cp v1/sh v2/sh", [].as_slice()),
        ("busybox mkdir new; busybox cp v1/sh new/sh; busybox mv new v2", &["new"]),
        ("busybox cp -r v1 new; busybox mv v1 v2; busybox mv new v1", &["new"]),
    ] {
        let script = format!("./script; {made}; busybox ln -sfn v2 cur; ./script");
        let built = Traced::new(&script, prepare).into_built();
        let others = others.iter().chain(&["v2"]).filter(|other| built.has(other)).collect::<Vec<_>>();
        assert_eq!((others, built.link("cur")), (Vec::new(), "v1".to_owned()), "{script}");
        assert!(built.has("v1/sh") && built.has("script"), "{script}");
    }
    let moved = |work: &Path| {
        prepare(work);
        fs_err::rename(work.join("v1"), work.join("before")).expect("it is ours");
        fs_err::create_dir(work.join("v1")).expect("it is ours");
    };
    let built = Traced::new("mv -T before v1; ./script", moved).into_built();
    assert!(
        built.has("before/sh") && built.at("v1").is_dir() && !built.has("v1/sh"),
        "it is empty, or nothing goes there"
    );
    let script = "top=$PWD; cd /; busybox mv $top $top.1; busybox ln -s work.1 $top";
    let built = Traced::new(script, prepare).into_built();
    assert!(built.at("").is_dir() && !built.has("../work.1"), "the directory in which it started");
}

/// What a program needs that the run has put in the place of one that it had executed, the run has not needed.
#[test]
fn what_was_executed_and_replaced_needs_what_it_needed() {
    let needs_more = |program: &str| {
        let said = std::process::Command::new("ldd").arg(program).output();
        said.is_ok_and(|said| String::from_utf8_lossy(&said.stdout).contains("libselinux"))
    };
    if !has(&["busybox", "ldd"]) || needs_more("/bin/busybox") || !needs_more("/bin/ls") {
        return;
    }
    let script = "./busybox true; busybox cp /bin/ls new; busybox mv new busybox";
    let prepare = |work: &Path| assert!(fs_err::copy("/bin/busybox", work.join("busybox")).is_ok());
    let traced = Traced::new(script, prepare);
    let built = traced.build("tree", &[]);
    let said = outcome_of(std::process::Command::new("find").arg(built.at("/")).args(["-name", "libselinux*"]));
    assert_eq!(said.success().text(), "");
}

#[test]
fn what_was_made_stays_out_wherever_it_goes() {
    Case { before: &["a/f=old"], script: "echo new > a/new; mv a b; cat b/new b/f", image: &["a/f=old"] }.check();
    Case { before: &["empty/"], script: "mkdir t; echo new > t/x; mv -T t empty; cat empty/x", image: &[] }.check();
    Case {
        before: &["prev/f=old"],
        script: "mkdir cur; echo new > cur/f; mv cur old; mv prev cur; cat cur/f old/f",
        image: &["prev/f=old"],
    }
    .check();
}

#[test]
fn what_was_made_and_removed_is_made_again() {
    for script in [
        "echo a > f; rm f; test -e f; echo b > f; cat f",
        "echo a >> f; rm f; test -e f; echo b >> f; cat f",
        "mkdir m; rmdir m; test -e m; mkdir m; ls m",
        "echo a > f; echo b > f; rm f; test -e f; echo c > f; cat f",
        "echo a > f; echo b > f; rm f; test -e f; echo c > f; cat f; rm f",
        "mkdir m; mkdir m || :; rmdir m; test -d m || :; mkdir m; echo a > m/x; ls m; rm -r m",
        "ln -s old l; rm l; test -L l; ln -s old l; cat l",
        "echo a > f; rm f; mv old f; mv f old; test -e f; echo b > f; cat f",
        "cd d; echo a > f; rm f; test -e f; echo b > f; cat f; cd ..",
    ] {
        let found = image_of(&format!("{script}; cat old || true"), &["old=old", "d/x=x"]);
        assert!(found.iter().all(|one| ["d/", "d/x=x", "old=old"].contains(&one.as_str())), "{script}: {found:?}");
        assert!(found.contains(&"old=old".to_owned()), "{script}: {found:?}");
    }
}

#[test]
fn what_was_to_be_made_below_what_was_missing() {
    let before = ["old/sub/x=old"];
    assert_eq!(image_of("(echo > new/sub/f); mv old new", &before), ["old/"]);
    assert_eq!(image_of("(echo > new/sub/f); mv old new; echo > new/sub/f", &before), ["old/", "old/sub/"]);
    assert_eq!(image_of("echo > old/sub/f; rm -r old; mkdir old", &before), ["old/", "old/sub/", "old/sub/x=old"]);
    assert_eq!(image_of("echo > old/sub/f; mv old new; mkdir -p old/sub", &before), ["old/", "old/sub/"]);
}

/// Where a rename has taken away what was there, or has brought something there since.
#[test]
fn what_was_to_be_made_where_a_rename_has_been() {
    let omitted = "s/f -> /.minjail-omitted";
    assert_eq!(image_of("mv s t; (: > s/f/x); ls t", &["s/f=a"]), ["s/", omitted]);
    assert_eq!(image_of("mv s t; test -e s; (: > s/f/x); ls t", &["s/f=a"]), ["s/", omitted]);
    assert_eq!(image_of("(: > app/cache/x); mv app old; mv new app", &["app/", "new/cache/"]), ["app/", "new/"]);
    assert_eq!(
        image_of("echo > app/cache/x; mv app old; mv new app", &["app/cache/", "new/"]),
        ["app/", "app/cache/", "new/"]
    );
    assert_eq!(image_of("mv s t; mv t s; echo > s/d/x", &["s/d/"]), ["s/", "s/d/"]);
}

#[test]
fn what_was_there_is_found_where_it_was() {
    Case { before: &["pre/f=old"], script: "mkdir m; mv pre m/; mv m n; cat n/pre/f", image: &["pre/f=old"] }.check();
    Case { before: &["x=one", "a/f=two"], script: "mv x a/x; mv a c; cat c/x c/f", image: &["a/f=two", "x=one"] }
        .check();
    Case {
        before: &["d/", "pre/x/f=old"],
        script: "mkdir d/x/y || :; mv -T pre d; cat d/x/f",
        image: &["pre/x/f=old"],
    }
    .check();
}

#[test]
fn a_directory_takes_along_what_was_read_before() {
    Case { before: &["d/x/y/f=old"], script: "cat d/x/y/f; mv d e", image: &["d/x/y/f=old"] }.check();
    Case { before: &["d/f=old", "d/g=too"], script: "cat d/f; mv d e; cat e/g", image: &["d/f=old", "d/g=too"] }
        .check();
    Case {
        before: &["d/f=old", "d/g=too"],
        script: "cat d/f d/g; mv d e; echo new > e/f; rm e/g; mv e g",
        image: &["d/f=old", "d/g=too"],
    }
    .check();
}

/// A path among a few, so that what is made, moved and read meets.
fn any_path() -> impl Strategy<Value = String> {
    let directory = prop::sample::select(vec!["a", "b", "a/d", "b/e", "a/d/g", ".", "n", "n/m", "b/n"]);
    (directory, prop::option::weighted(0.65, prop::sample::select(vec!["x", "y", "z", "w"])))
        .prop_map(|(directory, file)| file.map_or_else(|| directory.to_owned(), |file| format!("{directory}/{file}")))
}

/// A line of a script, which may fail.
fn any_line() -> impl Strategy<Value = String> {
    let verb =
        prop::sample::select(vec!["mv", "mv", "mv -T", "mkdir", "echo new >", "ln", "rm -rf", "cat", "cat", "cat"]);
    (verb, any_path(), any_path()).prop_map(|(verb, one, other)| match verb {
        "mv" | "mv -T" | "ln" => format!("{verb} {one} {other} || :"),
        _ => format!("({verb} {one}) || :"),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a run makes, moves, links, removes and reads: of what was there the image has what it read, where it was and as it
    /// was; and nothing else.
    #[test]
    fn whatever_is_renamed(lines in prop::collection::vec(any_line(), 10..40)) {
        let before: Vec<String> = ["x", "a/x", "a/y", "b/x", "b/z", "a/d/x", "a/d/g/y", "b/e/x", "b/e/w"]
            .iter()
            .map(|path| format!("{path}=was {path}\n"))
            .collect();
        let before: Vec<&str> = before.iter().map(String::as_str).collect();
        let traced = Traced::new(&lines.join("\n"), |work| lay_out(work, &before));
        let read = traced.outcome.text().lines().filter(|line| line.starts_with("was ")).map(str::to_owned).collect::<Vec<_>>();
        let built = traced.into_built();
        let image = files(&built.at(""), Path::new(""));
        for file in &image {
            prop_assert!(before.contains(&file.as_str()), "{file:?} was not there before");
        }
        for line in read {
            let path = line.trim_start_matches("was ");
            prop_assert!(image.contains(&format!("{path}={line}\n")), "{path} was read");
        }
    }
}
