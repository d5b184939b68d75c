//! Sequences of calls that look random, in trees that do: made natively, traced, and in a jail of what the trace asks for,
//! each call finds the same.

#![expect(clippy::unwrap_used, reason = "these are tests")]

mod support;

use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::Path;

use nix::libc::{
    AT_REMOVEDIR, AT_SYMLINK_FOLLOW, AT_SYMLINK_NOFOLLOW, O_APPEND, O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_PATH,
    O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY, RENAME_EXCHANGE, RENAME_NOREPLACE, RESOLVE_BENEATH, RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, c_int,
};
use support::numbers::Numbers;
use support::{Outcome, TestContext, outcome_of, outcome_with_input};

/// So many sequences of each kind; 1,000 with `MINJAIL_TESTS_ALL` set.
fn count() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "this is how a user asks for all")]
    if std::env::var_os("MINJAIL_TESTS_ALL").is_some() { 1000 } else { 20 }
}

/// Where the program starts, and what is beside that.
const DIRECTORIES: [&str; 8] = ["w", "o", "w/d", "w/d/e", "w/d/e/g", "w/x", "w/x/e", "o/p"];

const NAMES: [&str; 21] = [
    "f1", "f2", "f3", "l1", "l2", "l3", "h", "s", "d", "x", "e", "g", "p", "o", "w", "n1", "n2", "n3", ".", "..", "f1/",
];

/// One that is rarely there yet.
fn fresh(numbers: &mut Numbers) -> String {
    let directory = numbers.one_of(&[".", "d", "x/e", "../o", "l1", "l2", "n1"]).unwrap();
    format!("{directory}/{}", numbers.one_of(&["n1", "n2", "n3"]).unwrap())
}

/// What the calls are made on, and by whom.
struct Ground<'a> {
    context: &'a TestContext,
    /// The user and group, if minjail may choose them.
    user: Option<u32>,
}

impl Ground<'_> {
    fn top(&self) -> String {
        self.context.text("ground")
    }

    /// The tree of this seed, as new.
    fn lay_out(&self, seed: u64) {
        let (numbers, top) = (&mut Numbers::new(seed), self.context.path("ground"));
        let _ = fs_err::remove_dir_all(&top);
        for directory in DIRECTORIES {
            fs_err::create_dir_all(top.join(directory)).unwrap();
            for name in ["f1", "f2", "f3"].iter().filter(|_| numbers.below(2) == 0).collect::<Vec<_>>() {
                let file = top.join(directory).join(name);
                fs_err::write(&file, format!("{directory}/{name} ").repeat(numbers.below(400))).unwrap();
                let mode = numbers.one_of(&[0o644, 0o644, 0o755, 0o600]).unwrap();
                fs_err::set_permissions(&file, PermissionsExt::from_mode(*mode)).unwrap();
            }
            let path = top.join(directory);
            if numbers.below(3) == 0 {
                let interpreter = numbers.one_of(&["/bin/echo", "/usr/bin/env", "f1"]).unwrap();
                fs_err::write(path.join("s"), format!("#!{interpreter}\n")).unwrap();
                fs_err::set_permissions(path.join("s"), PermissionsExt::from_mode(0o755)).unwrap();
            }
            for name in ["l1", "l2", "l3"].iter().filter(|_| numbers.below(3) == 0).collect::<Vec<_>>() {
                symlink(self.target(numbers), path.join(name)).unwrap();
            }
        }
        for _ in 0..2 {
            let [one, other] = [(); 2].map(|()| top.join(numbers.one_of(&DIRECTORIES).unwrap()));
            let _ = fs_err::hard_link(one.join("f1"), other.join("h"));
        }
        if let Some(user) = self.user {
            give(&top, user);
        }
    }

    /// Where a link leads.
    fn target(&self, numbers: &mut Numbers) -> String {
        let targets = [
            "f1",
            "d/f1",
            "x",
            "e",
            "../o",
            "../x/e",
            "l1",
            "l2",
            "l3",
            ".",
            "..",
            "d/e/../f2",
            "nowhere",
            "s",
            "/proc/self/cwd",
            "/o",
            "/w/d/e",
            "/w/l2",
            "/w/d/e/g/../../f1",
        ];
        let target = numbers.one_of(&targets).unwrap();
        if target.starts_with("/proc") || !target.starts_with('/') {
            return (*target).to_owned();
        }
        format!("{}{target}", self.top())
    }

    fn path(&self, numbers: &mut Numbers) -> String {
        let depth = [1, 1, 2, 2, 3, 4][numbers.below(6)];
        let names: Vec<&str> = (0..depth).map(|_| *numbers.one_of(&NAMES).unwrap()).collect();
        let below = names.join("/");
        let top = self.top();
        match numbers.below(20) {
            0..=5 => below,
            // More often than not there is something.
            6..=8 => format!("{top}/{}/{}", numbers.one_of(&DIRECTORIES).unwrap(), names[0]),
            9..=10 => format!("../{}/{}", numbers.one_of(&DIRECTORIES).unwrap(), names[0]),
            11..=13 => format!("{top}/w/{below}"),
            14 => format!("{top}/o/{below}"),
            15 => format!("../{below}"),
            16 => format!("/proc/self/cwd/{below}"),
            17 => format!("/proc/self/root{top}/w/{below}"),
            18 => format!("{below}/"),
            _ => below.replace('/', "//"),
        }
    }

    /// A line of the fixture's input.
    fn call(&self, numbers: &mut Numbers, changes: bool) -> String {
        let [path, other, made] = [self.path(numbers), self.path(numbers), fresh(numbers)];
        let slot = [-1, -1, -1, -1, 0, 1, 2, 3][numbers.below(8)];
        let mut pick = |numbers_of: &[c_int]| *numbers.one_of(numbers_of).unwrap();
        let resolve = [RESOLVE_BENEATH, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV];
        let resolve = pick(&resolve.map(|flag| c_int::try_from(flag).unwrap()));
        let read = pick(&[O_RDONLY, O_RDONLY, O_RDONLY, O_NOFOLLOW, O_DIRECTORY, O_PATH, O_PATH | O_NOFOLLOW]);
        let write = pick(&[O_WRONLY, O_RDWR, O_WRONLY | O_APPEND, O_WRONLY | O_TRUNC]);
        let make = pick(&[O_WRONLY | O_CREAT, O_WRONLY | O_CREAT | O_EXCL, O_RDWR | O_CREAT | O_TRUNC]);
        let follow = pick(&[0, AT_SYMLINK_FOLLOW]);
        let rename = pick(&[0, 0, RENAME_EXCHANGE as c_int, RENAME_NOREPLACE as c_int]);
        let looks = [
            ("open", &*path, "-", read),
            ("open", &path, "-", O_RDONLY),
            ("openat2", &path, "-", resolve),
            ("hold", &path, "-", read),
            ("held", "-", "-", 0),
            ("stat", &path, "-", 0),
            ("stat", &path, "-", AT_SYMLINK_NOFOLLOW),
            ("fstat", "-", "-", 0),
            ("readlink", &path, "-", 0),
            ("list", &path, "-", 0),
            ("access", &path, "-", pick(&[0, 1, 2, 4, 5])),
            ("map", &path, "-", 0),
            ("getxattr", &path, "-", 0),
            ("getcwd", "-", "-", 0),
            ("chdir", &path, "-", 0),
            ("fchdir", "-", "-", 0),
            ("connect", &path, "-", 0),
            ("exec", &path, "-", 0),
            ("thread", &path, "open", 0),
            ("thread", &path, "chdir", 0),
            ("fork", &path, "list", 0),
            ("fork", &path, "map", 0),
            ("chroot", &path, "/f1", 0),
        ];
        let makes = [
            ("open", &*path, "-", write),
            ("open", &made, "-", make),
            ("mkdir", &made, "-", 0),
            ("unlink", &path, "-", 0),
            ("unlink", &made, "-", pick(&[0, AT_REMOVEDIR])),
            ("rename", &path, &made, rename),
            ("rename", &made, &other, rename),
            ("link", &path, &made, follow),
            ("symlink", &path, &made, 0),
            ("chmod", &path, "-", pick(&[0o600, 0o644, 0o755])),
            ("truncate", &path, "-", pick(&[0, 5, 100])),
            ("utimes", &path, "-", 0),
            ("setxattr", &path, "-", 0),
            ("bind", &made, "-", 0),
            ("thread", &made, "mkdir", 0),
            ("fork", &path, "unlink", 0),
        ];
        let does_change = changes && numbers.below(2) == 0;
        let all: &[_] = if does_change { &makes } else { &looks };
        let (name, path, other, number) = numbers.one_of(all).unwrap();
        format!("{name}\t{slot}\t{path}\t{other}\t{number}\n")
    }

    /// The sequence, in the tree as it is.
    fn natively(&self, program: &str, calls: &str) -> Outcome {
        let mut command = match self.user {
            None => self.context.command(program),
            Some(user) => {
                let mut command = self.context.command("setpriv");
                command.args([format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".to_owned()]);
                command.arg(program);
                command
            }
        };
        outcome_with_input(command.current_dir(self.context.path("ground/w")), calls.as_bytes())
    }

    fn traced(&self, program: &str, calls: &str) -> Outcome {
        let mut command = self.context.minjail(&["trace", "-q", "--force", "-t", &self.context.text("trace")]);
        if let Some(user) = self.user {
            command.args(["--user", &user.to_string()]);
        }
        command.args(["--", program]).current_dir(self.context.path("ground/w"));
        outcome_with_input(&mut command, calls.as_bytes())
    }

    /// In a jail of what the trace asks for of the tree as the sequence has left it.
    fn jailed(&self, calls: &str) -> Outcome {
        let tree = format!("rootfs:{}", self.context.text("tree"));
        let build = ["build", "-q", "--force", "-t", &self.context.text("trace"), "-o", &tree];
        outcome_of(&mut self.context.minjail(&build)).success();
        outcome_with_input(&mut self.context.minjail(&["run", &tree]), calls.as_bytes())
    }
}

/// Gives all of a tree to `user`.
fn give(path: &Path, user: u32) {
    lchown(path, Some(user), Some(user)).unwrap();
    if fs_err::symlink_metadata(path).unwrap().is_dir() {
        for entry in fs_err::read_dir(path).unwrap() {
            give(&entry.unwrap().path(), user);
        }
    }
}

/// What was found, up to where an overlay does not rename a directory (docs/limits.md).
fn comparable<'a>(native: &'a str, other: &'a str) -> (Vec<&'a str>, Vec<&'a str>) {
    let both = native.lines().zip(other.lines());
    let until = both.take_while(|(one, two)| one == two || !two.ends_with(": EXDEV")).count();
    let limited = until < native.lines().count();
    let cut = |text: &'a str| if limited { text.lines().take(until).collect() } else { text.lines().collect() };
    (cut(native), cut(other))
}

fn find_the_same(user: Option<u32>, changes: bool) {
    let context = TestContext::new();
    let program = context.hazard("sequence");
    let ground = Ground { context: &context, user };
    for seed in 0..count() {
        let numbers = &mut Numbers::new(seed);
        let calls: String = (0..[10, 30, 60][numbers.below(3)]).map(|_| ground.call(numbers, changes)).collect();
        ground.lay_out(seed);
        let native = ground.natively(&program, &calls);
        ground.lay_out(seed);
        ground.traced(&program, &calls).assert_same_as(&native);
        let jailed = ground.jailed(&calls);
        let (native, jailed) = (native.text(), jailed.text());
        let (native, jailed) = comparable(&native, &jailed);
        assert_eq!(jailed, native, "seed {seed}, user {user:?}, changes {changes}");
    }
}

#[test]
fn that_only_look() {
    find_the_same(None, false);
}

#[test]
fn that_change_what_they_find() {
    find_the_same(None, true);
}

/// An ordinary user's, under a minjail of root's.
#[test]
fn of_another_user() {
    if support::needs_root("another user") {
        find_the_same(Some(65534), true);
    }
}
