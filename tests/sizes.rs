//! An image is no larger than it must: our layers beside what a plain copy after strace takes (`benches/sizes.sh`).

mod support;

use support::{has, limited, minjail, needs_root, outcome_of};

/// What a line of the table says of one program.
#[derive(Debug)]
struct Line {
    program: String,
    /// Our layer's size to the plain copy's.
    ratio: f64,
    /// To that of a copy that has what was only looked at, too.
    looked: f64,
    copy_runs: bool,
}

fn measured(programs: &[&str]) -> Vec<Line> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/sizes.sh");
    let table = outcome_of(limited(script).args(["-m", minjail()]).args(programs)).success().text();
    let lines = table.lines().skip(2).map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let ratio = |cell: &str| cell.parse().expect("a ratio is a number");
        let [program, _, _, opened, looked, runs] = cells[..] else { panic!("a line of the table: {line}") };
        Line { program: program.to_owned(), ratio: ratio(opened), looked: ratio(looked), copy_runs: runs == "yes" }
    });
    lines.collect()
}

#[test]
fn no_image_is_larger_than_what_a_plain_copy_takes() {
    if !needs_root("reading what programs may not") || !has(&["strace", "git", "perl", "openssl", "curl", "gcc"]) {
        return;
    }
    let plain = ["date", "git", "perl", "openssl", "curl"];
    let lines = measured(&[&plain[..], &["gcc", "python"]].concat());
    assert_eq!(lines.len(), 7, "{lines:?}");
    for line in &lines {
        // gcc and Python look at files that they do not open; Python does not run without them.
        let ratio = if plain.contains(&line.program.as_str()) { line.ratio } else { line.looked };
        assert!((0.9..=1.02).contains(&ratio), "{line:?}");
        assert!(line.copy_runs || line.program == "python", "a plain copy that does not run says little: {line:?}");
    }
}
