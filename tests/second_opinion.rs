//! What strace saw of a program is in minjail's trace: two tracers that share no line of code.
//!
//! strace runs the program twice, so that what differs from run to run, as the names of temporary files, counts for nothing.
//! Relative paths count where strace says from which directory they lead: not in old calls, as `chdir(2)` and `access(2)`. Nor do
//! `/proc` and `/sys`, which no image has.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Deserializer, Value};
use support::{TestContext, has, outcome_of};

/// A path that was handed to the kernel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Lookup {
    call: String,
    path: PathBuf,
    /// A link at its end was followed.
    follows: bool,
    /// What the call was for is the content.
    opens: bool,
    is_missing: bool,
}

/// Calls that take a link at the end for itself, besides those whose names begin with `l` for that, as `lstat`, or for `link`.
const OF_LINKS: &[&str] =
    &["readlink", "readlinkat", "unlink", "unlinkat", "rename", "renameat", "renameat2", "mkdir", "mkdirat", "rmdir"];

impl Lookup {
    /// From a line of strace without the number of its task, as `openat(AT_FDCWD</etc>, "passwd", O_RDONLY) = 3</etc/passwd>`; nothing
    /// if that is another call, or failed for something else than that nothing is there.
    fn parse(line: &str) -> Option<Self> {
        let (call, arguments) = line.split_once('(')?;
        let (before, rest) = arguments.split_once('"')?;
        let (spelled, flags) = rest.split_once('"')?;
        // What the kernel hands out, the text of a link, names with escapes, and what was cut.
        if matches!(call, "getcwd" | "symlink" | "symlinkat")
            || spelled.is_empty()
            || spelled.contains('\\')
            || flags.starts_with("...")
        {
            return None;
        }
        let path = match before.strip_suffix(">, ").and_then(|before| before.split_once('<')) {
            Some((_, directory)) => Path::new(directory).join(spelled),
            None if before.is_empty() && spelled.starts_with('/') => PathBuf::from(spelled),
            None => return None,
        };
        let result = &line[line.rfind(" = ")? + 3..];
        let is_missing = result.starts_with("-1 ENOENT");
        if result.starts_with("-1") && !is_missing || result.starts_with('?') {
            return None;
        }
        let leaves_links = ["AT_SYMLINK_NOFOLLOW", "O_NOFOLLOW", "O_EXCL"].iter().any(|flag| flags.contains(flag));
        let opens = matches!(call, "open" | "openat" | "openat2" | "execve") && !flags.contains("O_PATH");
        let is_of_links = OF_LINKS.contains(&call) || call.starts_with('l') && call != "listxattr";
        let follows = !leaves_links && !is_of_links;
        Some(Self { call: call.to_owned(), path, follows, opens, is_missing })
    }

    /// Where it led, if nothing has been moved since; and of what is missing the first name that is.
    fn ends(&self) -> Vec<PathBuf> {
        let name = self.path.file_name().filter(|_| !self.follows);
        let (end, missing) = match (name, self.path.parent()) {
            (Some(name), Some(parent)) => {
                let (parent, missing) = resolved(parent);
                (parent.join(name), missing)
            }
            _ => resolved(&self.path),
        };
        if self.is_missing { [Some(end), missing].into_iter().flatten().collect() } else { vec![end] }
    }
}

/// `path` without links, as far as it is there; and its first name that is not.
fn resolved(path: &Path) -> (PathBuf, Option<PathBuf>) {
    let (mut end, mut missing) = (PathBuf::from("/"), None);
    for name in path.components() {
        let next = end.join(name);
        match (next.canonicalize(), fs_err::read_link(&next)) {
            _ if missing.is_some() => end = next,
            (Ok(there), _) => end = there,
            // A link that leads nowhere is followed, too.
            (Err(_), Ok(target)) => (end, missing) = resolved(&end.join(target)),
            (Err(_), Err(_)) => {
                missing = Some(next.clone());
                end = next;
            }
        }
    }
    (end, missing)
}

/// The calls in what strace wrote, each whole, whatever other tasks did meanwhile.
fn calls(text: &str) -> Vec<String> {
    let (mut begun, mut whole) = (BTreeMap::new(), Vec::new());
    for (task, call) in text.lines().filter_map(|line| line.split_once(' ')) {
        let call = call.trim_start();
        if let Some(first) = call.strip_suffix("<unfinished ...>") {
            begun.insert(task, first.to_owned());
        } else if let Some((_, last)) = call.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>")) {
            whole.push(begun.remove(task).unwrap_or_default() + last);
        } else {
            whole.push(call.to_owned());
        }
    }
    whole
}

fn strace(context: &TestContext, script: &str) -> BTreeSet<Lookup> {
    context.lay_out(&[]);
    let log = context.text("strace");
    let mut command = context.command("strace");
    command.args(["-f", "-y", "-s", "4096", "-e", "trace=%file", "-o", &log, "--", "/bin/bash", "-ec", script]);
    outcome_of(&mut command).success();
    let text = String::from_utf8_lossy(&fs_err::read(&log).expect("strace wrote it")).into_owned();
    calls(&text).iter().filter_map(|call| Lookup::parse(call)).collect()
}

/// What the trace says of each path, as accesses.
fn traced(context: &TestContext, script: &str) -> BTreeMap<PathBuf, BTreeSet<String>> {
    context.lay_out(&[]);
    let trace = context.text("app.trace");
    context.outcome(&["trace", "-q", "-t", &trace, "--", "/bin/bash", "-ec", script]).success();
    let records = fs_err::read(context.path("app.trace/trace.jsonl")).expect("it was written");
    let mut touches: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for record in Deserializer::from_slice(&records).into_iter::<Value>() {
        let record = record.expect("each line is JSON");
        if let (Some("touch"), Some(path), Some(access)) =
            (record["record"].as_str(), record["path"].as_str(), record["access"].as_str())
        {
            let accesses = touches.entry(PathBuf::from(path)).or_default();
            accesses.insert(access.to_owned());
            // Where there was no directory first, the call that makes it later is none that is told.
            if record["made"] == true {
                accesses.insert("made".to_owned());
            }
        }
    }
    touches
}

/// Whether the trace has what a lookup found, or did not find, at one of its `ends`.
fn knows(touches: &BTreeMap<PathBuf, BTreeSet<String>>, lookup: &Lookup, ends: &[PathBuf]) -> bool {
    const FOR_CONTENT: [&str; 8] = ["read", "write", "create", "execute", "list", "replace", "remove", "made"];
    let accesses = ends.iter().find_map(|end| touches.get(end));
    let is_enough = |accesses: &BTreeSet<String>| {
        !lookup.opens || lookup.is_missing || FOR_CONTENT.iter().any(|access| accesses.contains(*access))
    };
    accesses.is_some_and(is_enough)
}

/// Runs a script under both, and tells what strace alone has seen.
#[track_caller]
fn check(script: &str, at_least: usize) {
    if !has(&["strace"]) {
        return;
    }
    let context = TestContext::new();
    let first = strace(&context, script);
    let second = strace(&context, script);
    let touches = traced(&context, script);
    let is_of_kernel = |end: &PathBuf| end.starts_with("/proc") || end.starts_with("/sys");
    let both = first.intersection(&second).map(|lookup| (lookup, lookup.ends()));
    let compared: Vec<_> = both.filter(|(_, ends)| !ends.iter().all(is_of_kernel)).collect();
    assert!(compared.len() >= at_least, "strace has seen no more than {} paths", compared.len());
    let missed: Vec<_> = compared.into_iter().filter(|(lookup, ends)| !knows(&touches, lookup, ends)).collect();
    assert!(missed.is_empty(), "strace has seen what minjail has not: {missed:#?}");
}

#[test]
fn shells() {
    check(
        "cd /usr/share/doc; for name in b*; do test -d $name && ls $name | head -2; done; cd bash; cat ../bash/* > /dev/null; \
         type -a python3 git; . /etc/profile; echo < /etc/hosts",
        100,
    );
}

#[test]
fn python() {
    check(
        "python3 -c 'import ssl, json, sqlite3, unittest, os, subprocess, shutil, glob, email.message, http.client; os.makedirs(\"a/b\"); os.chdir(\"a\")
open(\"b/f\", \"w\").write(\"x\"); shutil.copytree(\"b\", \"c\"); os.rename(\"c\", \"d\"); os.remove(\"d/f\")
fd = os.open(\"/etc\", os.O_RDONLY); os.stat(\"passwd\", dir_fd=fd); os.open(\"hosts\", os.O_RDONLY, dir_fd=fd)
glob.glob(\"/usr/lib/python3/*/*\"); subprocess.run([\"ls\", \"-l\", \"..\"])'",
        300,
    );
}

#[test]
fn perl() {
    check(
        "perl -MPOSIX -MFile::Find -e 'find(sub { -f $_ }, \"/usr/share/perl5\"); chdir \"/etc\"; open F, \"passwd\"; print <F>; \
         symlink \"/nowhere\", \"/tmp/..\"; stat \"/usr/bin/awk\"; readlink \"/etc/mtab\"'",
        100,
    );
}

#[test]
fn compilers() {
    check(
        "printf '#include <stdio.h>\\n#include \"own.h\"\\nint main(void) { return VALUE; }\\n' > main.c
mkdir include; echo '#define VALUE 0' > include/own.h; gcc -O1 -pthread -Iinclude -o main main.c -lm; ./main",
        300,
    );
}

#[test]
fn repositories() {
    check(
        "export GIT_AUTHOR_DATE='1700000000 +0000' GIT_COMMITTER_DATE='1700000000 +0000'
git init -q r; cd r; git config user.name n; git config user.email e; mkdir d; echo 1 > d/f; git add .
git commit -qm first; git mv d e; git commit -qm second; git log --stat; cd ..; git clone -q r s; git -C s status",
        200,
    );
}

#[test]
fn archives_and_trees() {
    check(
        "cp -a /etc/alternatives a; tar cf a.tar a; mkdir o; tar xf a.tar -C o; rm -r a; ls -lR o > l; mv o p; du -s p
find p -name 'a*' -exec stat -L {} + > s 2> e || :; find /etc -xdev -maxdepth 2 -type f | xargs ls -l > k 2> e || :; sort -T . k | split -l 90; cat x*",
        300,
    );
}

#[test]
fn threads_that_open_by_directory() {
    check(
        "python3 -c 'import os, threading
root = os.open(os.path.dirname(os.__file__), os.O_RDONLY)
def walk():
    for _, directories, files, at in os.fwalk(\".\", dir_fd=root):
        for name in files[:3]: os.close(os.open(name, os.O_RDONLY, dir_fd=at)); os.access(name, os.R_OK, dir_fd=at)
threads = [threading.Thread(target=walk) for _ in range(4)]
[thread.start() for thread in threads]; [thread.join() for thread in threads]'",
        300,
    );
}
