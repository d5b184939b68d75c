//! What a user may choose about the files of an image: flags of `trace` and `build`.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use support::traced::Traced;
use support::{TestContext, needs_root, outcome_of};

/// What [`omitted names`](minjail::files::OMITTED) lead to.
const OMITTED: &str = "/.minjail-omitted";

fn write(directory: &Path, files: &[(&str, &str)]) {
    for (name, content) in files {
        let path = directory.join(name);
        fs_err::create_dir_all(path.parent().expect("it is below a directory")).expect("the directory can be written");
        fs_err::write(path, content).expect("the directory can be written");
    }
}

#[test]
fn files_that_were_only_looked_at() {
    let traced = Traced::new("test -f looked && test -f both && cat both && test -d d; ls l >&2", |work| {
        write(work, &[("looked", "content"), ("both", "both"), ("d/x", ""), ("l/seen", "seen")]);
    });
    let full = traced.build("full", &[]);
    assert_eq!(full.text("looked"), "content");
    let hollow = traced.build("hollow", &["--stat-only", "hollow"]);
    assert_eq!(hollow.text("looked"), "\0\0\0\0\0\0\0", "as long as before, and empty of meaning");
    assert_eq!(hollow.text("both"), "both", "what was opened too is whole");
    assert!(hollow.has("d"));
    // A file of a package keeps its own time.
    let context = &traced.context;
    let (trace, first, again) = (context.text("of.trace"), context.text("first.tar"), context.text("again.tar"));
    let stat = ["--", "stat", "-c", "%n", "/etc/debian_version"];
    let traced_hollow = ["trace", "-q", "--stat-only", "hollow", "-t", &trace, "-o"];
    let first_layer = format!("layer:{first}");
    context.outcome(&[&traced_hollow[..], &[&first_layer], &stat].concat()).success();
    let lock = format!("{first}.lock");
    context.outcome(&["build", "-q", "--locked", &lock, "-o", &format!("layer:{again}")]).success();
    assert_eq!(fs_err::read(first).unwrap(), fs_err::read(again).unwrap());
    let omit = traced.build("omit", &["--stat-only", "omit"]);
    assert!(!omit.has("looked") && omit.has("both") && omit.has("d"));
    let refused = traced.try_build("x", &["--stat-only", "some"]);
    assert_eq!(refused.status, 125, "{refused}");
    assert!(refused.stderr.contains("[possible values: full, hollow, omit]"), "{refused}");
}

/// What an image has nothing of need not be as the run found it, nor be there for who builds.
#[test]
fn what_was_only_looked_at_and_cannot_be_packed() {
    let traced = Traced::new("test -f gone; test -f changed; test -f closed/x; test -f read; ls l; cat read", |work| {
        write(work, &[("gone", ""), ("changed", "c"), ("closed/x", ""), ("read", "r"), ("l/gone", "")]);
    });
    let work = traced.context.work();
    fs_err::remove_file(work.join("gone")).expect("it is ours");
    fs_err::remove_file(work.join("l/gone")).expect("it is ours");
    write(&work, &[("changed", "longer")]);
    for how in ["full", "hollow"] {
        traced.try_build(how, &["--stat-only", how]).assert_refused(125, &["`--exclude`", "since the trace was made"]);
    }
    let omit = traced.build("omit", &["--stat-only", "omit"]);
    assert!(!omit.has("gone") && !omit.has("changed") && omit.has("read"));
    assert_eq!(omit.link("l/gone"), OMITTED);
    // For another reason it has it all the same.
    let words = ["changed` has changed since the trace was made"];
    let changed = support::text(&work.join("changed"));
    traced.try_build("more", &["--stat-only", "omit", "--include", &changed]).assert_refused(125, &words);
    write(&work, &[("read", "other")]);
    let words = ["read` has changed since the trace was made"];
    traced.try_build("read", &["--stat-only", "omit"]).assert_refused(125, &words);
}

/// Something else must provide it.
#[test]
fn a_socket_in_a_directory_that_was_listed() {
    let traced = Traced::new("ls d", |work| {
        write(work, &[("d/file", "")]);
        drop(std::os::unix::net::UnixListener::bind(work.join("d/socket")).expect("the directory can be written"));
    });
    for listing in ["names", "full"] {
        let built = traced.build(listing, &["--listing", listing]);
        assert_eq!(built.link("d/socket"), OMITTED, "{listing}");
    }
}

/// As a server leaves its own behind that was killed: nobody else must provide what the next one makes.
#[test]
fn a_socket_that_the_run_makes_anew() {
    if !support::has(&["python3"]) {
        return;
    }
    let anew = "import os, socket; os.unlink('d/anew'); socket.socket(socket.AF_UNIX).bind('d/anew')";
    let script = format!("python3 -c \"{anew}\"; rm d/gone; test -e d/kept");
    let traced = Traced::new(&script, |work| {
        write(work, &[("d/file", "")]);
        for name in ["anew", "gone", "kept"] {
            drop(std::os::unix::net::UnixListener::bind(work.join("d").join(name)).expect("it can be made"));
        }
    });
    let built = traced.build("tree", &[]);
    assert!(built.said.contains("d/kept is not packed; something must provide it"), "{}", built.said);
    for name in ["anew", "gone"] {
        assert!(!built.said.contains(&format!("d/{name} is not packed")), "{}", built.said);
    }
    assert!(built.at("d").is_dir() && !built.has("d/anew"));
}

/// What runs an image has a `/dev` of its own, and nothing of the image is seen there.
#[test]
fn files_in_shared_memory() {
    let shared = tempfile::tempdir_in("/dev/shm").expect("it can be written");
    let at = |name: &str| support::text(&shared.path().join(name));
    fs_err::write(shared.path().join("data"), "1").expect("it can be written");
    fs_err::copy("/bin/cat", shared.path().join("cat")).expect("it can be written");
    let own = format!("cat {}; echo 2 > {1}; cat {1}; test -f {2}", at("data"), at("own"), at("cat"));
    let traced = Traced::new(&own, |_| {});
    let built = traced.build("tree", &[]);
    let note = "is not packed: what runs an image has a /dev of its own; something must provide it there";
    assert!(built.said.contains(&format!("{} {note}", at("data"))), "{}", built.said);
    assert_eq!(built.said.matches(note).count(), 1, "{}", built.said);
    let why = traced.context.outcome(&["why-not", &traced.context.text("app.trace"), &at("data")]);
    assert!(why.text().contains("where what runs an image has a file system of its own"), "{why}");
    let include = traced.try_build("more", &["--include", &at("data")]);
    include.assert_refused(125, &[&format!("`{}` cannot be packed", at("data")), "put it elsewhere"]);
    // Without its programs no image works.
    let traced = Traced::new(&format!("{} {}", at("cat"), at("data")), |_| {});
    let cannot = format!("`{}` cannot be packed", at("cat"));
    traced.try_build("tree", &[]).assert_refused(125, &[&cannot, "`--exclude`"]);
    traced.try_build("tree", &["--exclude", &at("cat")]).success();
}

#[test]
fn what_lies_behind_a_closed_directory_of_the_root() {
    if !needs_root("to become another user") {
        return;
    }
    let traced = Traced::new("test -f closed/looked; cat open", |work| {
        write(work, &[("closed/looked", "l"), ("open", "o")]);
    });
    let work = traced.context.work();
    for (path, mode) in [("", 0o777), ("work", 0o755), ("app.trace", 0o755), ("work/closed", 0o700)] {
        let permissions = PermissionsExt::from_mode(mode);
        fs_err::set_permissions(traced.context.path(path), permissions).expect("it is ours");
    }
    let looked = format!("{}/closed/looked", support::text(&work));
    let build = |name: &str, arguments: &[&str]| {
        let (trace, output) = (traced.context.text("app.trace"), format!("layer:{}", traced.context.text(name)));
        let mut command = traced.context.command("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", support::minjail()]);
        outcome_of(command.args(["build", "-q", "-t", &trace, "-o", &output]).args(arguments))
    };
    for how in ["full", "hollow"] {
        let words = [looked.as_str(), "Permission denied", "hint: the image needs this file"];
        build(how, &["--stat-only", how]).assert_refused(125, &words);
    }
    for arguments in [["--stat-only", "omit"], ["--exclude", &looked]] {
        build(arguments[0].trim_start_matches('-'), &arguments).success();
    }
}

#[test]
fn names_in_a_listed_directory() {
    let traced = Traced::new("ls -a d; cat d/opened", |work| {
        write(work, &[("d/opened", "o"), ("d/other", "content"), ("d/below/deep", "deep")]);
        std::os::unix::fs::symlink("nowhere", work.join("d/link")).expect("the directory can be written");
    });
    let names = traced.build("names", &[]);
    assert_eq!(names.link("d/other"), OMITTED);
    assert_eq!((names.text("d/opened"), names.link("d/link")), ("o".to_owned(), "nowhere".to_owned()));
    assert!(names.at("d/below").is_dir() && !names.has("d/below/deep"));
    let full = traced.build("whole", &["--listing", "full"]);
    assert_eq!(full.text("d/other"), "content");
    assert!(full.at("d/below").is_dir() && !full.has("d/below/deep"));
    let opened = traced.build("opened", &["--listing", "opened"]);
    assert!(opened.has("d/opened") && !opened.has("d/other") && !opened.has("d/below") && !opened.has("d/link"));
}

/// What other programs have in a place for temporary files is theirs, and gone when the image is built.
#[test]
fn names_among_temporary_files() {
    let other = tempfile::Builder::new().prefix("minjail-other-").tempdir().expect("/tmp can be written");
    let own = tempfile::Builder::new().prefix("minjail-own-").tempdir().expect("/tmp can be written");
    let (other, own) = (other.path().to_str().expect("it is text"), own.path().to_str().expect("it is text"));
    fs_err::write(Path::new(own).join("f"), "own").expect("it can be written");
    let traced = Traced::new(&format!("ls /tmp > /dev/null; cat {own}/f"), |_| {});
    let built = traced.build("tree", &[]);
    assert!(built.has(&format!("{own}/f")), "what was read is there");
    assert!(!built.has(other), "what was only seen in passing is not");
    let note = "a listing of /tmp showed names that are not packed";
    assert!(built.said.contains(note) && built.said.contains("`--include /tmp/NAME` packs one"), "{}", built.said);
}

/// A directory below a place for temporary files is somebody's, and its names are seen, gone or not.
#[test]
fn names_in_a_directory_below_temporary_files() {
    let own = tempfile::Builder::new().prefix("minjail-own-").tempdir().expect("/tmp can be written");
    write(own.path(), &[("sub/a", "a"), ("sub/gone", ""), ("sub/d/x", ""), ("sub/lost/x", ""), ("away/a", "")]);
    let at = support::text(own.path());
    let traced = Traced::new(&format!("ls {at}/sub > /dev/null; ls {at}/away; rm -r {at}/away"), |_| {});
    fs_err::remove_file(own.path().join("sub/gone")).expect("it is ours");
    fs_err::remove_dir_all(own.path().join("sub/lost")).expect("it is ours");
    for listing in ["names", "full"] {
        let built = traced.build(listing, &["--listing", listing]);
        let seen = support::names_in(&built.at(&format!("{at}/sub")));
        assert_eq!(seen, ["a", "d", "gone", "lost"], "as the run saw them");
        assert_eq!(support::names_in(&built.at(&format!("{at}/away"))), ["a"]);
        assert!(!built.said.contains("names that are not packed"), "{}", built.said);
    }
}

#[test]
fn accounts_of_the_host() {
    let traced = Traced::new("cat /etc/passwd", |_| {});
    let system = traced.build("system", &[]).text("/etc/passwd");
    assert!(system.contains("root:") && system.contains("daemon:"), "{system}");
    let used = traced.build("used", &["--accounts", "used"]).text("/etc/passwd");
    let own = format!(":{}:", nix::unistd::geteuid());
    assert!(used.lines().any(|line| line.contains(&own)) && !used.contains("daemon:"), "{used}");
    let full = traced.build("full", &["--accounts", "full"]).text("/etc/passwd");
    assert_eq!(full, fs_err::read_to_string("/etc/passwd").expect("everybody may read it"));
}

/// Nor of a list that the run has added to: people are none of the image's, whatever else has become of it.
#[test]
fn accounts_that_the_run_has_changed() {
    if !needs_root("a list of accounts of its own") {
        return;
    }
    let context = TestContext::new();
    let passwd = context.path("passwd");
    let people = "root:x:0:0::/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\nsomebody:x:4321:4321::/home/somebody:/bin/sh\nowner:x:4322:4322::/:/bin/sh\n";
    fs_err::write(&passwd, people).expect("the directory is ours");
    fs_err::set_permissions(&passwd, PermissionsExt::from_mode(0o644)).expect("it is ours");
    // Whose file the image has from before the run is known, though the run has removed it.
    let file = context.work().join("file");
    fs_err::write(&file, "").expect("the directory is ours");
    std::os::unix::fs::chown(&file, Some(4322), None).expect("root may");
    let script = "set -e; mount --bind \"$1\" /etc/passwd; \"$0\" trace -q -t \"$2\" -- sh -c 'rm file; cat /etc/passwd; echo x:x:2:2::/: >> /etc/passwd; chmod 600 /etc/passwd'
         exec \"$0\" build -q -t \"$2\" -o \"rootfs:$3\"";
    let mut command = context.command("unshare");
    command.args(["-m", "sh", "-c", script]).arg(support::minjail());
    command.args([support::text(&passwd), context.text("app.trace"), context.text("tree")]);
    outcome_of(&mut command).success();
    let packed = fs_err::read_to_string(context.path("tree/etc/passwd")).expect("it is packed");
    assert_eq!(
        packed.lines().map(|line| line.split(':').next().unwrap_or(line)).collect::<Vec<_>>(),
        ["root", "daemon", "owner"]
    );
    let mode = fs_err::metadata(context.path("tree/etc/passwd")).expect("it is packed").permissions().mode();
    assert_eq!(mode & 0o777, 0o644, "from before the run");
}

/// Whom the program becomes, or gives something to, it asks for by name: in the image as here.
#[test]
fn accounts_that_the_run_becomes() {
    if !needs_root("a list of accounts of its own") {
        return;
    }
    let context = TestContext::new();
    let passwd = context.path("passwd");
    let people = ["anna:x:4321", "bert:x:4322", "carl:x:4323", "dora:x:4324", "eve:x:4325"];
    let lines = people.map(|person| format!("{person}:4321::/:/bin/sh\n"));
    fs_err::write(&passwd, format!("root:x:0:0::/root:/bin/sh\n{}", lines.concat())).expect("the directory is ours");
    fs_err::set_permissions(&passwd, PermissionsExt::from_mode(0o644)).expect("it is ours");
    // What a number means in another user namespace is nobody of the machine's.
    let steps = "set -e; setpriv --reuid anna --clear-groups true; touch made; chown bert made; python3 -c 'import os; os.setresuid(-1, 4323, -1)'
         unshare --user --map-root-user setpriv --reuid dora --clear-groups true || true";
    let script = "set -e; mount --bind \"$1\" /etc/passwd; \"$0\" trace -q -t \"$2\" -- sh -c \"$4\"
         exec \"$0\" build -q -t \"$2\" -o \"rootfs:$3\" --accounts used";
    let mut command = context.command("unshare");
    command.args(["-m", "sh", "-c", script]).arg(support::minjail());
    command.args([support::text(&passwd), context.text("app.trace"), context.text("tree")]).arg(steps);
    outcome_of(&mut command).success();
    let packed = fs_err::read_to_string(context.path("tree/etc/passwd")).expect("it is packed");
    let names: Vec<_> = packed.lines().filter_map(|line| line.split(':').next()).collect();
    assert_eq!(names, ["root", "anna", "bert", "carl"]);
}

/// An image does not say whether there is somebody on the machine whom it leaves out; and what is made anew for it may be another one by
/// the time at which it is built.
#[test]
fn what_is_made_anew_is_the_same_on_every_machine() {
    if !needs_root("files of its own in /etc") {
        return;
    }
    let context = TestContext::new();
    let system = "root:x:0:0::/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\n";
    let script = "set -e; mount --bind \"$1\" /etc/passwd; cp /etc/ld.so.cache \"$1.cache\"; mount --bind \"$1.cache\" /etc/ld.so.cache
         \"$0\" trace -q -t \"$1.trace\" -- cat /etc/passwd; sleep 0.01; cp /etc/ld.so.cache \"$1.new\"; cat \"$1.new\" > /etc/ld.so.cache
         exec \"$0\" build -q -t \"$1.trace\" -o \"layer:$1.tar\"";
    let layers = [("none", system.to_owned()), ("one", format!("{system}anna:x:1000:1000::/home/anna:/bin/sh\n"))].map(
        |(name, accounts)| {
            let passwd = context.path(name);
            fs_err::write(&passwd, accounts).expect("the directory is ours");
            fs_err::set_permissions(&passwd, PermissionsExt::from_mode(0o644)).expect("it is ours");
            let mut command = context.command("unshare");
            command.args(["-m", "sh", "-c", script]).arg(support::minjail()).arg(passwd);
            outcome_of(&mut command).success();
            fs_err::read(context.path(&format!("{name}.tar"))).expect("it was written")
        },
    );
    assert!(layers[0] == layers[1], "the same bytes");
}

#[test]
fn more_files_by_path_glob_and_package() {
    let traced = Traced::new("cat one", |work| {
        write(work, &[("one", "1"), ("d/a.conf", "a"), ("d/b.txt", "b"), ("d/e/c.conf", "c")]);
        std::os::unix::fs::symlink("d", work.join("way")).expect("the directory can be written");
    });
    let work = support::text(&traced.context.work());
    let built = traced.build("path", &["--include", &format!("{work}/way/e")]);
    assert_eq!((built.link("way"), built.text("d/e/c.conf")), ("d".to_owned(), "c".to_owned()));
    assert!(!built.has("d/a.conf"));
    let built = traced.build("glob", &["--include", &format!("{work}/d/**/*.conf")]);
    assert!(built.has("d/a.conf") && built.has("d/e/c.conf") && !built.has("d/b.txt"));
    let built = traced.build("package", &["--include", "deb:tzdata"]);
    assert!(built.has("/usr/share/zoneinfo/Europe/Berlin"));
    for nothing in ["/no/such/file", "/etc/*.no-such", "deb:no-such-package"] {
        traced.try_build("nothing", &["--include", nothing]).assert_refused(125, &[nothing, "matches nothing"]);
    }
    let refused = traced.try_build("nothing", &["--include", "relative/path"]);
    assert!(refused.status == 125 && refused.stderr.contains("relative/path"), "{refused}");
}

/// That a listing showed a name does not keep away what is needed for another reason.
#[test]
fn more_files_of_a_listed_directory() {
    let libraries = "/usr/lib/x86_64-linux-gnu";
    let traced = Traced::new(&format!("ls d {libraries} > seen; python3 -I -c pass"), |work| {
        write(work, &[("d/a.conf", "a"), ("d/b.txt", "b")]);
    });
    let pattern = format!("{}/d/a.conf", support::text(&traced.context.work()));
    let built = traced.build("tree", &["--include", &pattern]);
    assert_eq!((built.text("d/a.conf"), built.link("d/b.txt")), ("a".to_owned(), OMITTED.to_owned()));
    assert!(built.at(&format!("{libraries}/libgcc_s.so.1")).is_file(), "python3 ends its threads with it");
}

#[test]
fn an_included_program_runs() {
    let context = TestContext::new();
    let image = format!("oci:{}", context.text("image"));
    let lock = context.text("lock");
    let arguments = ["trace", "--lock", &lock, "-o", &image, "--include", "/usr/bin/perl", "--", "true"];
    context.outcome(&arguments).success();
    let ran = context.outcome(&["run", &image, "--", "/usr/bin/perl", "-e", "print 6 * 7"]).success();
    assert_eq!(ran.text(), "42", "its libraries came with it");
    let why = context.outcome(&["why", &lock, "/usr/bin/perl"]).success();
    assert!(why.text().contains("included by /usr/bin/perl"), "{why}");
}

/// A script brings the interpreter of its interpreter, and what these need; a library what it needs.
#[test]
fn an_included_script_and_an_included_library_work() {
    let traced = Traced::new("true", |work| {
        write(work, &[("tool", "#!./way\n"), ("way", "#!/usr/bin/env -S perl -l\nprint 6 * 7;\n")]);
        let work = support::text(work);
        // The kernel wants an absolute path to be sure of it.
        fs_err::write(format!("{work}/tool"), format!("#!{work}/way\n")).expect("the directory can be written");
        for name in ["tool", "way"] {
            let mode = PermissionsExt::from_mode(0o755);
            fs_err::set_permissions(format!("{work}/{name}"), mode).expect("the files are ours");
        }
    });
    let tool = format!("{}/tool", support::text(&traced.context.work()));
    let library = "/usr/lib/x86_64-linux-gnu/libssl.so.3";
    let arguments = ["--include", &tool, "--include", library, "--include", "/usr/bin/perl"];
    let built = traced.build("tree", &arguments);
    for needed in ["/usr/bin/env", "/usr/lib/x86_64-linux-gnu/libcrypto.so.3"] {
        assert!(built.has(needed), "{needed} is needed by what was included");
    }
    let tree = format!("rootfs:{}", traced.context.text("tree"));
    let ran = traced.context.outcome(&["run", &tree, "--", &tool]).success();
    assert_eq!(ran.text(), "42\n", "{ran}");
}

#[test]
fn fewer_files() {
    let traced = Traced::new("cat used d/*.conf; test -e unused", |work| {
        write(work, &[("used", "u"), ("d/a.conf", "a"), ("d/b.conf", "b"), ("unused", "")]);
    });
    let work = support::text(&traced.context.work());
    let built = traced.build("less", &["--exclude", &format!("{work}/used"), "--exclude", &format!("{work}/d/a*")]);
    assert!(!built.has("used") && !built.has("d/a.conf") && built.has("d/b.conf"));
    for path in ["used", "d/a.conf"] {
        let words = format!("{work}/{path} was used by the run and is not packed");
        assert!(built.said.contains(&words), "{}", built.said);
    }
    let built = traced.build("none", &["--exclude", &format!("{work}/d"), "--exclude", "deb:coreutils"]);
    assert!(!built.has("d") && built.has("used") && !built.has("/usr/bin/cat"));
    // However the way is spelled, and not in silence if it names nothing.
    let link = traced.context.text("link");
    std::os::unix::fs::symlink(&work, &link).expect("the directory is ours");
    let arguments = ["--exclude", &format!("{link}/used"), "--exclude", &format!("{link}/d/a*"), "--exclude", "/none"];
    let built = traced.build("by-links", &arguments);
    assert!(!built.has("used") && !built.has("d/a.conf") && built.has("d/b.conf"));
    assert!(built.said.contains("`/none`, which is to be excluded, names nothing"), "{}", built.said);
    assert!(!built.said.contains("a*`, which"), "{}", built.said);
}

/// What is left out need not be as the run found it.
#[test]
fn a_link_to_a_directory_stands_for_it() {
    let traced = Traced::new("true", |work| {
        write(work, &[("versions/2/a", "a"), ("versions/2/b/c", "c"), ("other/d", "d")]);
        for (to, name) in [("versions/2", "app-2"), ("app-2", "app"), ("../../other", "versions/2/other")] {
            std::os::unix::fs::symlink(to, work.join(name)).expect("the directory can be written");
        }
    });
    let named = format!("{}/app", support::text(&traced.context.work()));
    let built = traced.build("tree", &["--include", &named]);
    for path in ["app", "app-2", "versions/2/a", "versions/2/b/c", "versions/2/other", "other"] {
        assert!(built.has(path), "{path}");
    }
    assert!(!built.has("other/d"), "links below are links");
}

#[test]
fn what_is_to_be_packed_and_left_out_is_told() {
    let traced = Traced::new("true", |work| write(work, &[("d/a", "a"), ("d/b", "b")]));
    let [directory, one] = ["d", "d/a"].map(|name| format!("{}/{name}", support::text(&traced.context.work())));
    let said = |name: &str, include: &str, exclude: &str| {
        traced.build(name, &["--include", include, "--exclude", exclude]).said
    };
    let told = said("whole", &one, &directory);
    assert!(told.contains(&format!("`{one}`, which is to be included, is excluded as a whole")), "{told}");
    let told = said("part", &directory, &one);
    assert!(!told.contains("as a whole"), "{told}");
}

#[test]
fn excluded_files_that_have_changed_since() {
    let script = |interpreter: &str| format!("#!{interpreter}\n:\n");
    let traced = Traced::new("cat changed gone used; ./tool; d/tool", |work| {
        let tool = script("/bin/sh");
        write(work, &[("changed", "c"), ("gone", "g"), ("used", "u"), ("tool", &tool), ("d/tool", &tool)]);
        for tool in ["tool", "d/tool"] {
            fs_err::set_permissions(work.join(tool), PermissionsExt::from_mode(0o755)).expect("it is ours");
        }
    });
    let work = traced.context.work();
    write(&work, &[("changed", "longer"), ("tool", &script("/usr/bin/perl"))]);
    fs_err::remove_file(work.join("gone")).expect("it is ours");
    fs_err::remove_dir_all(work.join("d")).expect("it is ours");
    let work = support::text(&work);
    let mut arguments = Vec::new();
    for (exclusion, first) in [("changed", "changed"), ("d", "d/tool"), ("g*", "gone"), ("tool", "tool")] {
        let hint = "or build without it, with `--exclude`";
        let said = traced.try_build("tree", &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        said.assert_refused(125, &[&format!("`{work}/{first}` "), " since the trace was made", hint]);
        arguments.extend(["--exclude".to_owned(), format!("{work}/{exclusion}")]);
    }
    let built = traced.build("tree", &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(built.has("used") && !built.has("changed") && !built.has("gone") && !built.has("tool") && !built.has("d"));
    assert!(!built.has("/usr/bin/perl"), "it is what the new tool needs");
    for path in ["changed", "gone", "tool", "d/tool"] {
        let words = format!("{work}/{path} was used by the run and is not packed");
        assert!(built.said.contains(&words), "{}", built.said);
    }
    // Why something is there can be said all the same.
    let trace = traced.context.text("app.trace");
    for path in ["changed", "used"] {
        let why = traced.context.outcome(&["why", &trace, &format!("{work}/{path}")]).success();
        assert!(why.text().contains("touched by /usr/bin/cat (openat)"), "{why}");
        assert!(why.stderr.contains("changed` has changed since the trace was made, and so on: 4 in all"), "{why}");
    }
    let why_not = traced.context.outcome(&["why-not", &trace, "/usr/bin/perl"]).success();
    assert!(why_not.text().contains("nothing that ran looked for it"), "{why_not}");
    assert!(why_not.stderr.contains("4 in all"), "{why_not}");
}

fn key() -> String {
    format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----\n", "b3BlbnNz".repeat(8))
}

#[test]
fn secrets_stay_at_home_unless_they_are_allowed() {
    let traced = Traced::new("cat key .netrc .aws/credentials .bash_history note; rm gone", |work| {
        let key = key();
        write(work, &[("key", &key), ("gone", &key), (".netrc", "machine x"), (".aws/credentials", "x")]);
        write(work, &[(".bash_history", "ls"), ("note", "a key is not here")]);
    });
    let work = support::text(&traced.context.work());
    let built = traced.build("guarded", &["--json"]);
    for secret in ["key", "gone", ".netrc", ".aws/credentials", ".bash_history"] {
        assert!(!built.has(secret), "{secret} is packed");
        assert!(built.said.contains(&format!("{work}/{secret}")), "{secret} is not named: {}", built.said);
    }
    assert!(built.has("note"));
    let told = traced.build("told", &[]).said;
    assert!(
        told.contains(&format!("{work}/key looks like a private key and is not packed; `--allow-secret")),
        "{told}"
    );
    let allowed = [format!("{work}/key"), format!("{work}/.aws")];
    let built = traced.build("allowed", &["--allow-secret", &allowed[0], "--allow-secret", &allowed[1]]);
    assert!(built.has("key") && built.has(".aws/credentials") && !built.has(".netrc"));
    let link = traced.context.text("link");
    std::os::unix::fs::symlink(&work, &link).expect("the directory is ours");
    assert!(traced.build("by-links", &["--allow-secret", &format!("{link}/key")]).has("key"));
}

/// As the tools write them that make keys for services.
#[test]
fn keys_of_services_stay_at_home() {
    if !support::has(&["openssl"]) {
        return;
    }
    let traced = Traced::new(
        "cat rndc.key bundle.pem rsa.der pkcs8.der sealed.der ec.der public.der empty/.netrc > /dev/null",
        |work| {
            let rndc = "key \"rndc-key\" {\n\talgorithm hmac-sha256;\n\tsecret \"GU6SnQ1hKmEQpaYzJ3f0Zg==\";\n};\n";
            let bundle = [&"# certificates\n".repeat(5000), key().as_str()].concat();
            write(work, &[("rndc.key", rndc), ("bundle.pem", &bundle), ("empty/.netrc", "")]);
            let make = "set -e; openssl genrsa -out rsa.pem 2048; openssl rsa -in rsa.pem -outform DER -traditional -out rsa.der
            openssl pkcs8 -topk8 -nocrypt -in rsa.pem -outform DER -out pkcs8.der
            openssl pkcs8 -topk8 -passout pass:x -in rsa.pem -outform DER -out sealed.der
            openssl ecparam -name prime256v1 -genkey -noout -outform DER -out ec.der
            openssl rsa -in rsa.pem -pubout -outform DER -out public.der";
            outcome_of(support::limited("sh").args(["-c", make]).current_dir(work)).success();
        },
    );
    let built = traced.build("guarded", &["--json"]);
    for secret in ["rndc.key", "bundle.pem", "rsa.der", "pkcs8.der", "sealed.der", "ec.der"] {
        assert!(!built.has(secret), "{secret} is packed");
        assert!(built.said.contains(&format!("/{secret}")), "{secret} is not named: {}", built.said);
    }
    assert!(built.has("public.der") && built.has("empty/.netrc"), "{}", built.said);
}

/// `gpg` signs by its agent, which keeps keys in a form of its own.
#[test]
fn the_key_of_gpg_stays_at_home() {
    if !support::has(&["gpg", "gpg-agent", "gpgconf"]) {
        return;
    }
    let script =
        "export GNUPGHOME=$PWD/keys; gpg -q --batch --yes --sign -o signed note; gpgconf --kill all; test -s signed";
    let traced = Traced::new(script, |work| {
        write(work, &[("note", "signed")]);
        let make = "mkdir -m 700 keys; export GNUPGHOME=$PWD/keys; \
                    gpg -q --batch --passphrase '' --quick-gen-key me@example.org default default never; gpgconf --kill all";
        let mut command = support::limited("sh");
        outcome_of(command.args(["-c", make]).current_dir(work)).success();
    });
    let built = traced.build("guarded", &["--json"]);
    assert!(built.has("keys/pubring.kbx"), "{}", built.said);
    let kept = fs_err::read_dir(traced.context.work().join("keys/private-keys-v1.d")).expect("there are keys");
    for key in kept.map(|entry| entry.expect("the directory can be read").file_name()) {
        let key = format!("keys/private-keys-v1.d/{}", key.display());
        assert!(!built.has(&key), "{key} is packed");
    }
    assert!(built.said.contains("keys/private-keys-v1.d/"), "{}", built.said);
}

/// Nor is it said of a secret that the image has it as it was before.
#[test]
fn a_history_that_the_run_goes_on_with_stays_at_home() {
    let traced = Traced::new("echo ls >> .local/share/app/history", |work| {
        write(work, &[(".local/share/app/history", "pwd")]);
    });
    let built = traced.build("guarded", &[]);
    assert!(!built.has(".local/share/app/history"));
    assert!(built.said.contains("looks like a history of commands and is not packed"), "{}", built.said);
    assert!(!built.said.contains("was changed by the run"), "{}", built.said);
}

/// What is not named is where it is said to be, and of each kind on its own: a lock does not name what is not packed.
#[test]
fn many_notes_of_two_kinds() {
    let traced = Traced::new("cat */.netrc; for file in note*; do echo x >> $file; done", |work| {
        for number in 1..=7 {
            write(work, &[(&format!("{number}/.netrc"), "machine x"), (&format!("note{number}"), "x")]);
        }
    });
    let said = traced.build("short", &[]).said;
    let (before, after) = said.split_once("looks like credentials").expect("there are secrets");
    for said in [before, after] {
        assert!(said.contains("and 2 more like these: `--json` tells all"), "{said}");
    }
    assert_eq!(traced.build("long", &["--json"]).said.matches(".netrc\"").count(), 7);
}

#[test]
fn secret_variables_stay_at_home() {
    let traced = Traced::with(&["--env", "DB_PASSWORD=hunter2", "--env", "COLOUR=red"], "true", |_| {});
    let lock = |name: &str, arguments: &[&str]| {
        let said = traced.build(name, arguments).said;
        (fs_err::read_to_string(traced.context.path(&format!("{name}.lock"))).expect("there is a lock"), said)
    };
    let (guarded, said) = lock("guarded", &[]);
    assert!(!guarded.contains("hunter2") && guarded.contains("red"));
    assert!(said.contains("DB_PASSWORD") && !said.contains("hunter2"), "{said}");
    let (allowed, _) = lock("allowed", &["--allow-secret", "env:DB_PASSWORD"]);
    assert!(allowed.contains("hunter2"));
}

/// What a runtime supplies, and the library cache: the machine's own are in no image.
#[test]
fn files_of_the_machine_that_the_run_has_removed() {
    if !needs_root("an /etc of its own") {
        return;
    }
    let context = TestContext::new();
    let script = "set -e; cp -a /etc \"$1\"; mount --bind \"$1\" /etc; rm -f /etc/resolv.conf; echo old > /etc/resolv.conf
        \"$0\" trace -q -t \"$2\" -- sh -c 'cat /etc/resolv.conf; rm /etc/resolv.conf /etc/ld.so.cache; ln -s made /etc/resolv.conf'
        exec \"$0\" build -q -t \"$2\" -o \"rootfs:$3\"";
    let mut command = context.command("unshare");
    command.args(["-m", "sh", "-c", script]).arg(support::minjail());
    command.args([context.text("etc"), context.text("app.trace"), context.text("tree")]);
    outcome_of(&mut command).success();
    let cache = fs_err::metadata(context.path("tree/etc/ld.so.cache")).expect("it is packed").len();
    let whole = fs_err::metadata("/etc/ld.so.cache").expect("the machine has one").len();
    assert!(cache < whole / 2, "{cache} of {whole} bytes");
    assert!(fs_err::symlink_metadata(context.path("tree/etc/resolv.conf")).is_err(), "the run has made that");
}

/// By its number a machine is known on the network, and two containers of one image are not one machine of the person who built it.
#[test]
fn the_machine_s_number_stays_at_home() {
    if !needs_root("an /etc of its own") {
        return;
    }
    let context = TestContext::new();
    let number = "0123456789abcdef0123456789abcdef\n";
    fs_err::write(context.path("id"), number).expect("the directory is ours");
    let script =
        "set -e; cp -a /etc \"$1\"; rm -f \"$1/machine-id\"; cp \"$4\" \"$1/machine-id\"; mount --bind \"$1\" /etc
        \"$0\" trace -q -t \"$2\" -- cat /etc/machine-id
        \"$0\" build -q -t \"$2\" --allow-secret /etc/machine-id -o \"rootfs:$3.allowed\"
        exec \"$0\" build -q -t \"$2\" -o \"rootfs:$3\"";
    let mut command = context.command("unshare");
    command.args(["-m", "sh", "-c", script]).arg(support::minjail());
    command.args([context.text("etc"), context.text("app.trace"), context.text("tree"), context.text("id")]);
    outcome_of(&mut command).success();
    let packed = fs_err::read_to_string(context.path("tree/etc/machine-id")).expect("it is packed");
    assert!(packed != number && packed.trim_end().len() == 32, "{packed}");
    let allowed = fs_err::read_to_string(context.path("tree.allowed/etc/machine-id")).expect("it is packed");
    assert_eq!(allowed, number);
}

/// As in an image that no machine was started from (`machine-id(5)`, "First Boot Semantics").
#[test]
fn what_is_no_number_of_a_machine_is_packed_as_it_is() {
    if !needs_root("an /etc/machine-id of its own") {
        return;
    }
    let context = TestContext::new();
    for text in ["uninitialized\n", "", "0123456789abcdef\n"] {
        fs_err::write(context.path("id"), text).expect("the directory is ours");
        let script = "mount --bind \"$1\" /etc/machine-id
            exec \"$0\" trace -q -t \"$2\" --force -o \"rootfs:$3\" -- cat /etc/machine-id";
        let mut command = context.command("unshare");
        command.args(["-m", "sh", "-c", script]).arg(support::minjail());
        command.args([context.text("id"), context.text("app.trace"), context.text("tree")]);
        outcome_of(&mut command).success();
        assert_eq!(fs_err::read_to_string(context.path("tree/etc/machine-id")).expect("it is packed"), text);
    }
}

#[test]
fn password_hashes_stay_at_home() {
    if !needs_root("/etc/shadow") {
        return;
    }
    let traced = Traced::new("cat /etc/shadow", |_| {});
    let shadow = traced.build("shadow", &[]).text("/etc/shadow");
    assert!(shadow.contains("root:") && !shadow.contains('$'), "{shadow}");
    let host = fs_err::read_to_string("/etc/shadow").expect("root may read it");
    let allowed = traced.build("allowed", &["--accounts", "full", "--allow-secret", "/etc/shadow"]);
    assert_eq!(allowed.text("/etc/shadow"), host);
}

/// What the tools keep from before the last change has the same in it.
#[test]
fn password_hashes_of_before_the_last_change_and_behind_a_link_stay_at_home() {
    if !needs_root("to enter another root") {
        return;
    }
    let context = TestContext::new();
    let root = context.path("root");
    for directory in ["etc", "bin"] {
        fs_err::create_dir_all(root.join(directory)).expect("the directory can be written");
    }
    fs_err::copy("/bin/busybox", root.join("bin/busybox")).expect("it can be copied");
    for name in ["shadow", "shadow-", "elsewhere"] {
        fs_err::write(root.join("etc").join(name), "root:$6$abc$hash:1::::::\n").expect("the directory can be written");
    }
    std::os::unix::fs::symlink("elsewhere", root.join("etc/gshadow")).expect("the directory can be written");
    let (root, trace, tree) = (context.text("root"), context.text("app.trace"), context.text("tree"));
    let command = ["--root", &root, "--", "/bin/busybox", "cat", "/etc/shadow", "/etc/shadow-", "/etc/gshadow"];
    outcome_of(context.minjail(&["trace", "-q", "-t", &trace]).args(command)).success();
    let allowed = ["--root", &root, "--allow-secret", "/etc/shadow"];
    outcome_of(context.minjail(&["build", "-q", "-t", &trace, "-o", &format!("rootfs:{tree}")]).args(allowed))
        .success();
    let packed = |name: &str| fs_err::read_to_string(context.path("tree/etc").join(name)).expect("it is packed");
    assert!(packed("shadow").contains("$6$abc$hash"), "it was asked for");
    for name in ["shadow-", "elsewhere"] {
        assert!(packed(name).starts_with("root:*:"), "{name}: {}", packed(name));
    }
}

/// glibc opens `libgcc_s.so.1` when a thread ends by `pthread_exit`: whether a run comes to that is a matter of time.
#[test]
fn what_a_thread_needs_to_end_is_there_though_no_thread_ended() {
    let traced = Traced::new("/usr/bin/python3 -I -c pass", |_| {});
    let built = traced.build("tree", &[]);
    let unwinder = "/usr/lib/x86_64-linux-gnu/libgcc_s.so.1";
    assert!(built.has(unwinder), "python3 ends its threads that way");
    let why = traced.context.outcome(&["why", &traced.context.text("tree.lock"), unwinder]).success();
    assert!(why.text().contains("rule thread-unwinder, for /usr/bin/python3.11"), "{why}");
    // Beside the library that the image has, a daemon thread of another run finds what it needs.
    let script = "import threading, time; threading.Thread(target=time.sleep, args=(0.05,), daemon=True).start(); \
                  import ctypes; ctypes.CDLL(None).pthread_exit(None)";
    let tree = format!("rootfs:{}", traced.context.text("full"));
    let mut trace = traced.context.minjail(&["trace", "-q", "-o", &tree, "--", "/usr/bin/python3", "-I", "-c"]);
    let _ = outcome_of(trace.args(["import ctypes, threading, time"])).success();
    let mut run = traced.context.minjail(&["run", &tree, "--", "/usr/bin/python3", "-I", "-c", script]);
    let ran = outcome_of(&mut run);
    assert!(!ran.stderr.contains("libgcc_s.so.1 must be installed"), "{ran}");
    assert!(!Traced::new("true", |_| {}).into_built().has(unwinder), "a shell has no threads to end");
}
