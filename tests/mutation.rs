//! The proof is put to the proof: of the jails of real programs every file is taken away in turn. Where that changes what the
//! program does, as bubblewrap shows it, `minjail verify` must say so; none may pass as verified.

mod support;

use std::path::Path;

use support::{Outcome, TestContext, has, limited, outcome_of, text};

/// The larger programs, with hundreds of files, take minutes.
#[expect(clippy::disallowed_methods, reason = "this is how a user asks for all")]
fn is_long_run() -> bool {
    std::env::var_os("MINJAIL_TESTS_ALL").is_some()
}

/// A program, its arguments and its environment.
struct Subject<'a> {
    argv: &'a [&'a str],
    env: &'a [(&'a str, &'a str)],
}

struct Jail {
    context: TestContext,
    native: Outcome,
}

const FILES: [(&str, &str); 3] =
    [("words", "pear\nApple\nfig\n"), ("numbers", "1 2\n3 4\n"), ("page.html", "<b>x</b>\n")];

impl Subject<'_> {
    /// Runs it natively, and builds a jail of it whose profile expects the same.
    fn build(&self) -> Jail {
        let context = TestContext::new();
        context.lay_out(&FILES);
        let mut command = limited(self.argv[0]);
        let native =
            outcome_of(command.args(&self.argv[1..]).envs(self.env.iter().copied()).current_dir(context.work()));
        let env: std::collections::BTreeMap<&str, &str> = self.env.iter().copied().collect();
        let workload = serde_json::json!({
            "run": self.argv, "env": env, "cwd": text(&context.work()),
            "expect": {"status": native.status, "stdout": {"equals": native.text()}},
        });
        // JSON is YAML.
        let profile = serde_json::json!({"workloads": {"main": workload}}).to_string();
        fs_err::write(context.path("app.yaml"), profile).expect("the directory is ours");
        let output = format!("rootfs:{}", context.text("tree"));
        context.outcome(&["build", "-q", &context.text("app.yaml"), "-o", &output]).success();
        Jail { context, native }
    }

    /// What it does in the tree, without minjail.
    fn in_bubblewrap(&self, jail: &Jail) -> Outcome {
        let mut command = limited("bwrap");
        command.args(["--bind", &jail.context.text("tree"), "/", "--dev", "/dev", "--proc", "/proc", "--unshare-all"]);
        command.args(["--die-with-parent", "--clearenv", "--chdir", &text(&jail.context.work())]);
        command.args(["--setenv", "PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]);
        for (name, value) in self.env {
            command.args(["--setenv", name, value]);
        }
        outcome_of(command.args(self.argv))
    }
}

impl Jail {
    fn verify(&self) -> Outcome {
        let tree = format!("rootfs:{}", self.context.text("tree"));
        self.context.outcome(&["verify", "-q", &tree, "-p", &self.context.text("app.yaml")])
    }

    /// Every path of the tree but for directories.
    fn paths(&self) -> Vec<String> {
        let lock = fs_err::read_to_string(self.context.path("tree.lock")).expect("it lies beside the tree");
        let lock: serde_json::Value = serde_json::from_str(&lock).expect("a lock is JSON");
        let entries = lock["entries"].as_array().expect("a lock has entries");
        let paths = entries.iter().filter(|entry| entry["type"] != "directory");
        paths.map(|entry| entry["path"].as_str().expect("a path is text").to_owned()).collect()
    }

    /// Without `path`: what the program does, and what minjail says of that.
    fn without(&self, path: &str, subject: &Subject<'_>) -> (Outcome, Outcome) {
        let (place, aside) = (self.context.path("tree").join(&path[1..]), self.context.path("aside"));
        fs_err::rename(&place, &aside).expect("the lock lists what is there");
        let outcomes = (subject.in_bubblewrap(self), self.verify());
        fs_err::rename(&aside, &place).expect("it was there before");
        outcomes
    }
}

/// Takes away every file of the subject's jail in turn; so many of them at least must be missed.
fn mutate(argv: &[&str], env: &[(&str, &str)], at_least: usize) {
    if !has(&["bwrap", argv[0]]) {
        return;
    }
    let subject = Subject { argv, env };
    let jail = subject.build();
    jail.verify().success();
    subject.in_bubblewrap(&jail).assert_same_as(&jail.native);
    let (mut missed, paths) = (Vec::new(), jail.paths());
    for path in &paths {
        let (shown, verdict) = jail.without(path, &subject);
        let is_changed = shown.status != jail.native.status || shown.stdout != jail.native.stdout;
        match verdict.status {
            3 => {
                assert!(is_changed, "{path} is reported, and bubblewrap shows no difference\n{verdict}\n{shown}");
                let named = ["missing: `", "not listed: `", "could not be run"];
                assert!(
                    named.iter().any(|words| verdict.stderr.contains(words)),
                    "nothing is named that is missing\n{verdict}"
                );
                missed.push(path);
            }
            0 => assert!(!is_changed, "without {path} it passes as verified\n{shown}\nnatively:\n{}", jail.native),
            _ => panic!("without {path}: {verdict}"),
        }
    }
    assert!(missed.len() >= at_least, "of {paths:?} only {missed:?} were missed");
    jail.verify().success();
}

#[test]
fn busybox() {
    mutate(&["/bin/busybox", "sort", "words"], &[], 2);
}

#[test]
fn cat() {
    mutate(&["/bin/cat", "words", "numbers"], &[], 5);
}

#[test]
fn a_shell_and_what_it_starts() {
    mutate(&["/bin/sh", "-c", "for file in words numbers; do wc -l < $file; done; ls | grep -c ."], &[], 6);
}

#[test]
fn grep() {
    mutate(&["/bin/grep", "-Pc", "^\\w+$", "words"], &[], 4);
}

/// Without its locale a program goes on, and says something else.
#[test]
fn sort_in_a_locale() {
    mutate(&["/usr/bin/sort", "words"], &[("LC_ALL", "C.UTF-8")], 4);
}

/// Without the file of its time zone it goes on in UTC.
#[test]
fn date_in_a_time_zone() {
    mutate(&["/bin/date", "-d", "@0", "+%T %Z"], &[("TZ", "Asia/Tokyo")], 4);
}

#[test]
fn awk() {
    mutate(&["/usr/bin/awk", "{ sum += $1 } END { print sum }", "numbers"], &[], 4);
}

/// The C library loads what its configuration names.
#[test]
fn getent() {
    mutate(&["/usr/bin/getent", "passwd", "root"], &[], 4);
}

#[test]
fn openssl() {
    mutate(&["/usr/bin/openssl", "dgst", "-sha256", "words"], &[], 5);
}

#[test]
fn iconv() {
    mutate(&["/usr/bin/iconv", "-f", "UTF-8", "-t", "UTF-16LE", "words"], &[], 3);
}

#[test]
fn perl() {
    mutate(&["/usr/bin/perl", "-MList::Util=sum", "-e", "print sum(1, 2, 3), qq{\\n}"], &[], 5);
}

#[test]
fn git() {
    mutate(&["/usr/bin/git", "hash-object", "words"], &[], 5);
}

#[test]
fn larger_programs() {
    if !is_long_run() {
        return;
    }
    assert!(Path::new("/usr/bin/python3").exists(), "see tests/packages.txt");
    mutate(&["/usr/bin/python3", "-I", "-c", "import json, ssl; print(json.dumps([6 * 7]))"], &[], 20);
    mutate(&["/usr/bin/ruby", "-rjson", "-e", "puts JSON.generate([6 * 7])"], &[], 20);
    mutate(&["/usr/bin/php", "-r", "echo json_encode([6 * 7]);"], &[], 5);
}
