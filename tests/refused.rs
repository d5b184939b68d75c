//! What an ordinary user's run was refused, or could only write to, and has used later all the same.

mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use support::laid_out::{everything, files, lay_out};
use support::traced::Traced;
use support::{TestContext, has, needs_root, outcome_of};

/// The files of `work` in the image of what a user did that is not root.
#[track_caller]
fn of_a_user(script: &str, prepare: impl FnOnce(&Path)) -> Vec<String> {
    let traced = Traced::with(&["--user", "65534:65534"], script, |work| {
        prepare(work);
        outcome_of(support::limited("chown").args(["65534:65534", &support::text(work)])).success();
    });
    let built = traced.into_built();
    files(&built.at(""), Path::new(""))
}

/// For root alone.
fn close(path: &Path) {
    outcome_of(support::limited("chmod").args(["go=", &support::text(path)])).success();
}

#[test]
fn what_a_user_was_refused_may_be_read_later() {
    if !needs_root("to become another user") {
        return;
    }
    let found = of_a_user("cat d/f || chmod 755 d; cat d/f d/g", |work| {
        lay_out(work, &["d/f=one", "d/g=two"]);
        let (d, files) = (work.join("d"), ["d", "d/f", "d/g"].map(|name| support::text(&work.join(name))));
        outcome_of(support::limited("chown").arg("65534:65534").args(files)).success();
        outcome_of(support::limited("chmod").args(["000", &support::text(&d)])).success();
    });
    assert_eq!(found, ["d/f=one", "d/g=two"]);
}

/// The shell itself asks, so that it is one program that is refused.
#[test]
fn what_a_user_is_refused_twice() {
    if !needs_root("to become another user") {
        return;
    }
    let script = "read x < d/f; read x < l/f; read x < d/e/../f; read x < o/f; chmod 755 o; read x < o/f; true";
    let traced = Traced::with(&["--user", "65534:65534"], script, |work| {
        lay_out(work, &["d/f=secret", "d/e/", "l -> d", "o/f=secret"]);
        let at = |name: &str| support::text(&work.join(name));
        outcome_of(support::limited("chmod").args(["600", &at("d/f"), &at("o/f")])).success();
        outcome_of(support::limited("chown").args(["65534:65534", &at("o")])).success();
        outcome_of(support::limited("chmod").args(["000", &at("o")])).success();
    });
    let built = traced.into_built();
    assert_eq!(everything(&built.at(""), Path::new("")), ["d/", "d/e/", "d/f=", "l -> d", "o/", "o/f="]);
    let modes = ["d/f", "o/f"].map(|name| fs_err::metadata(built.at(name)).unwrap().permissions().mode() & 0o777);
    assert_eq!(modes, [0o600; 2]);
}

/// Names of one file are that in the image, whatever the run did to it by one of them.
#[test]
fn two_names_stay_those_of_one_file() {
    let scripts = [
        "chmod 600 a; stat b",
        "chmod 600 b; cat a",
        "chmod 600 a; cat b; chmod 644 b",
        "echo more >> a; cat b",
        "cat b; mv a c",
        "rm a; cat b",
        "chmod 600 b; mv a c",
    ];
    for script in scripts {
        let traced = Traced::new(&format!("{script} > /dev/null"), |work| {
            lay_out(work, &["a=one"]);
            fs_err::hard_link(work.join("a"), work.join("b")).unwrap();
        });
        let built = traced.build("tree", &[]);
        let [a, b] = ["a", "b"].map(|name| fs_err::metadata(built.at(name)).unwrap());
        assert_eq!((a.ino(), a.permissions().mode() & 0o777), (b.ino(), 0o644), "{script}");
        assert_eq!(built.text("b"), "one");
    }
}

/// By whatever name the directory has by then.
#[test]
fn what_a_user_is_refused_in_a_directory_that_it_has_renamed() {
    if !needs_root("to become another user") {
        return;
    }
    let found = |script: &str| {
        of_a_user(&format!("{script}; true"), |work| {
            lay_out(work, &["d/secret=one", "d/closed/f=two", "n/secret=three"]);
            let files = ["d", "n", "n/secret"].map(|name| support::text(&work.join(name)));
            outcome_of(support::limited("chown").arg("65534:65534").args(files)).success();
            let files = ["d/secret", "d/closed"].map(|name| support::text(&work.join(name)));
            outcome_of(support::limited("chmod").arg("700").args(files)).success();
        })
    };
    let expected = found("cat d/secret d/closed/f");
    assert!(expected.iter().any(|entry| entry.starts_with("d/secret")), "{expected:?}");
    for script in [
        "mv d e; cat e/secret e/closed/f; mv e d",
        "mv d e; cat e/secret e/closed/f",
        "mv d e; rm -f e/secret; cat e/closed/f",
        "mv n t; mv d n; cat n/secret n/closed/f; mv n d; mv t n",
    ] {
        let mut image = found(script);
        image.retain(|entry| entry != "n/");
        assert_eq!(image, expected, "{script}");
    }
}

/// The owner of a file may write to it first, and make it readable afterwards.
#[test]
fn what_a_user_may_only_write_to_may_be_read_later() {
    if !needs_root("to become another user") {
        return;
    }
    for back in ["", "touch -d @0 f;"] {
        let found = of_a_user(&format!("printf new > f; {back} chmod 644 f; cat f; cd g || cat g"), |work| {
            lay_out(work, &["f=old", "g=read"]);
            let f = work.join("f");
            let file = std::fs::File::options().write(true).open(&f).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
            outcome_of(support::limited("chown").args(["65534:65534", &support::text(&f)])).success();
            outcome_of(support::limited("chmod").args(["200", &support::text(&f)])).success();
        });
        assert_eq!(found, ["f=old", "g=read"], "{back}");
    }
}

/// What is kept of it has the content that was kept of another.
#[test]
fn what_a_user_may_only_write_to_is_as_another_file() {
    if !needs_root("to become another user") {
        return;
    }
    let found = of_a_user("printf new > f; printf new > g", |work| {
        lay_out(work, &["f=old", "g=old"]);
        for (name, mode) in [("f", "666"), ("g", "222")] {
            outcome_of(support::limited("chmod").args([mode, &support::text(&work.join(name))])).success();
        }
    });
    assert_eq!(found, ["f=old", "g="]);
}

#[test]
fn a_user_namespace_opens_nobody_elses_files() {
    if !needs_root("to become another user") || !has(&["unshare"]) {
        return;
    }
    let found = of_a_user("unshare -Ur cat closed/f file; unshare -Ur cat own", |work| {
        lay_out(work, &["closed/f=secret", "file=secret", "own=own"]);
        close(&work.join("closed"));
        close(&work.join("file"));
        let own = work.join("own");
        outcome_of(support::limited("chown").args(["65534:65534", &support::text(&own)])).success();
    });
    assert_eq!(found, ["file=", "own=own"]);
}

#[test]
fn an_access_control_list_is_heard() {
    if !needs_root("to become another user") || !has(&["python3"]) {
        return;
    }
    let found = of_a_user("cat denied; cat allowed; echo more >> written", |work| {
        lay_out(work, &["denied=secret", "allowed=open", "written=secret"]);
        let list = "import os, struct, sys\n\
            entry = lambda tag, may, who=0xffffffff: struct.pack('<HHI', tag, may, who)\n\
            def set(name, user, others):\n    \
                entries = [entry(1, 6), entry(2, user, 65534), entry(4, 0), entry(0x10, 7), entry(0x20, others)]\n    \
                os.setxattr(name, 'system.posix_acl_access', struct.pack('<I', 2) + b''.join(entries))\n\
            set('denied', 0, 4); set('allowed', 4, 0); set('written', 2, 0)\n";
        outcome_of(support::limited("python3").args(["-c", list]).current_dir(work)).success();
    });
    assert_eq!(found, ["allowed=open", "denied=", "written="]);
}

#[test]
fn an_access_control_list_is_told_of() {
    if !needs_root("to become another user") || !has(&["python3"]) {
        return;
    }
    let context = TestContext::new();
    let work = context.work();
    lay_out(&work, &["closed/x=x", "listed=l", "open=o", "unused=u", "plain=p"]);
    let list = "import os, struct\n\
        entry = lambda tag, may, who=0xffffffff: struct.pack('<HHI', tag, may, who)\n\
        for name, others in [('closed', 0), ('listed', 0), ('open', 4), ('unused', 0)]:\n    \
            entries = [entry(1, 6), entry(2, 5, 65534), entry(4, 0), entry(0x10, 7), entry(0x20, others)]\n    \
            os.setxattr(name, 'system.posix_acl_access', struct.pack('<I', 2) + b''.join(entries))\n";
    outcome_of(support::limited("python3").args(["-c", list]).current_dir(&work)).success();
    outcome_of(support::limited("chmod").args(["go+x", &context.text("")])).success();
    let (trace, output) = (context.text("app.trace"), format!("rootfs:{}", context.text("tree")));
    let arguments =
        ["trace", "-t", &trace, "-o", &output, "--user", "65534", "--", "cat", "closed/x", "listed", "open", "plain"];
    let outcome = context.outcome(&arguments).success();
    assert_eq!(outcome.stdout, b"xlop");
    let told = |name: &str| {
        outcome.stderr.contains(&format!("{} has an access control list", support::text(&work.join(name))))
    };
    let told: Vec<&str> =
        ["closed", "closed/x", "listed", "open", "unused", "plain"].into_iter().filter(|&name| told(name)).collect();
    assert_eq!(told, ["closed", "listed"], "{outcome}");
    // The bits of the group are those of the mask where there is a list, and the group itself may do nothing.
    let mode = |name: &str| {
        let packed = format!("{}{}", context.text("tree"), support::text(&work.join(name)));
        fs_err::metadata(packed).expect("it is packed").permissions().mode() & 0o777
    };
    assert_eq!(["closed", "listed", "open", "plain"].map(mode), [0o600, 0o600, 0o604, 0o644]);
}

#[test]
fn a_closed_door_of_what_is_renamed_later() {
    if !needs_root("to become another user") {
        return;
    }
    let traced = Traced::with(&["--user", "65534:65534"], "cat d/closed/f d/sub/own; mv d e; true", |work| {
        lay_out(work, &["d/closed/f=secret", "d/sub/own=secret"]);
        close(&work.join("d/closed"));
        close(&work.join("d/sub/own"));
        for owned in [work.to_path_buf(), work.join("d")] {
            outcome_of(support::limited("chown").args(["65534:65534", &support::text(&owned)])).success();
        }
    });
    let built = traced.into_built();
    assert_eq!(everything(&built.at(""), Path::new("")), ["d/", "d/closed/", "d/sub/", "d/sub/own="]);
    let mode = fs_err::metadata(built.at("d/closed")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "it is refused the same way");
}
