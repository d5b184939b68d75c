//! `minjail why-not`: why a path is not in an image; and what `minjail why` leaves out.

mod support;

use support::{TestContext, outcome_of, text};

/// Of what is there because it was listed, the call that listed it is told.
#[test]
fn the_reasons_that_say_most_are_shown() {
    let context = TestContext::new();
    context.lay_out(&[("d/other", "other")]);
    let trace = context.text("app.trace");
    let script = "cd d; chmod 755 .; test -r .; test -d .; stat . > stat; rm stat; cat < . ; ls";
    context.outcome(&["trace", "-q", "-t", &trace, "--", "sh", "-c", script]).success();
    let other = format!("{}/d/other", text(&context.work()));
    let why =
        |arguments: &[&str]| outcome_of(context.minjail(&["why", &trace, &other]).args(arguments)).success().text();
    let (some, all) = (why(&[]), why(&["--all"]));
    let listed = "    touched by /usr/bin/ls (getdents64) in workload sh\n";
    assert!(some.contains(listed) && some.contains(" more such reasons: `--all` tells them\n"), "{some}");
    assert!(all.contains(listed) && !all.contains("more such") && all.contains("/usr/bin/chmod"), "{all}");
    assert!(some.lines().count() < all.lines().count(), "{some}{all}");
}

/// The image has nothing at the end of the way that would say it.
#[test]
fn who_went_by_a_link_to_what_is_absent_is_told() {
    let context = TestContext::new();
    context.lay_out(&[("d/other", "other")]);
    std::os::unix::fs::symlink("d", context.work().join("link")).expect("the directory is ours");
    let trace = context.text("app.trace");
    context.outcome(&["trace", "-q", "-t", &trace, "--", "sh", "-c", "test -e link/none; true"]).success();
    let link = format!("{}/link", text(&context.work()));
    let why = context.outcome(&["why", &trace, &link]).success().text();
    assert!(why.contains(" (newfstatat) in workload sh") || why.contains(" (faccessat2) in workload sh"), "{why}");
    assert!(why.contains(&format!("on the way to {}/d/none", text(&context.work()))), "{why}");
}

#[test]
fn what_is_missing_is_explained() {
    let context = TestContext::new();
    let work = text(&context.work());
    context.lay_out(&[("listed/seen", "seen"), ("listed/other", "other"), ("untouched", "four")]);
    let script = "cat listed/seen /no/such; ls listed; echo x > made; cat made";
    let (trace, lock) = (context.text("app.trace"), context.text("app.tar.lock"));
    let image = format!("layer:{}", context.text("app.tar"));
    let arguments = ["trace", "-q", "-t", &trace, "-o", &image, "--", "sh", "-c", script];
    context.outcome(&arguments).success();
    let told = |source: &str, path: &str| context.outcome(&["why-not", source, path]).success().text();
    let own = |name: &str| format!("{work}/{name}");
    assert_eq!(
        told(&trace, "/no/such"),
        "/no/such\n  /usr/bin/cat (openat) in workload sh looked for it in vain\n  the root has nothing there\n"
    );
    let untouched =
        format!("{}\n  nothing that ran looked for it\n  the root has a file of 4 B there\n", own("untouched"));
    assert_eq!(told(&trace, &own("untouched")), untouched);
    assert!(told(&trace, &own("listed/other")).contains("only its name is in the image: a listing showed it"));
    assert!(told(&trace, &own("made")).contains("used it, and the run itself had made it"));
    let perl = told(&trace, "/usr/bin/perl");
    assert!(perl.contains("it is from deb:perl-base=") && perl.contains("of which the image has nothing"), "{perl}");
    assert!(told(&lock, "/usr/bin/perl").contains("whether anything looked for it, a trace would tell"));
    // A rule that is off may be what one looks for.
    let zone = told(&trace, "/usr/share/zoneinfo/Europe/Berlin");
    assert!(!zone.contains("rule"), "no zone was used: {zone}");
    let (zones, date) = (context.text("zones.trace"), "TZ=Asia/Tokyo date > /dev/null");
    context.outcome(&["trace", "-q", "-t", &zones, "--", "sh", "-c", date]).success();
    let zone = told(&zones, "/usr/share/zoneinfo/Europe/Berlin");
    assert!(zone.contains("  rule tz-all would add it: `--rule tz-all=on`\n"), "{zone}");
    // A trace does not know what was chosen of it.
    let unless = ", unless `--exclude` or another choice has left it out";
    for (source, unless) in [(&trace, unless), (&lock, "")] {
        let there = context.outcome(&["why-not", source, &own("listed/seen")]);
        let words = format!("is in the image{unless}: `minjail why` says why");
        assert!(there.status == 1 && there.stderr.contains(&words), "{there}");
    }
    let image = format!("layer:{}", context.text("less.tar"));
    context.outcome(&["build", "-q", "-t", &trace, "-o", &image, "--exclude", &own("listed/seen")]).success();
    let gone = context.outcome(&["why", &context.text("less.tar.lock"), &own("listed/seen")]);
    let words =
        "it was left out, as by `--exclude`; which of both, `minjail why` and `minjail why-not` of the trace say";
    assert!(gone.status == 1 && gone.stderr.contains(words), "{gone}");
    for (source, path, words) in [
        (trace.as_str(), "relative", "path `relative` is not absolute"),
        ("no-such-trace", "/x", "no-such-trace"),
        (&text(&context.work()), "/x", "trace.jsonl"),
    ] {
        context.outcome(&["why-not", source, path]).assert_refused(125, &[words]);
    }
}
