//! The main promise without root: an ordinary user traces programs, builds images of them and runs these in the jail; and
//! what only root can do with a tree is told.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use support::crafted::{Compression, lay_out, oci_of, sha256, tar};
use support::{Outcome, TestContext, has, limited, minjail, needs_root, outcome_of, text};

/// A place that belongs to `nobody`, with a minjail in it.
struct Place {
    context: TestContext,
}

impl Place {
    fn new() -> Self {
        let context = TestContext::new();
        fs_err::set_permissions(context.path(""), PermissionsExt::from_mode(0o755)).expect("the directory is ours");
        fs_err::create_dir_all(context.path("own")).expect("the directory can be written");
        // The one under test may lie where other users get nowhere.
        fs_err::copy(minjail(), context.path("minjail")).expect("the binary can be copied");
        let place = Self { context };
        place.give_away("own");
        place
    }

    fn give_away(&self, name: &str) {
        outcome_of(limited("chown").args(["-R", "65534:65534", &self.context.text(name)])).success();
    }

    fn lay_out(&self, inputs: &[(&str, &str)]) {
        self.context.lay_out(inputs);
        self.give_away("work");
    }

    /// `program`, run by `nobody` in the working directory.
    fn command(&self, program: &str) -> Command {
        let mut command = self.context.command("runuser");
        command.args(["-u", "nobody", "--", program]);
        command
    }

    fn minjail(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&self.context.text("minjail"));
        command.args(arguments);
        command
    }

    /// A path among what the user makes.
    fn own(&self, name: &str) -> String {
        text(&self.context.path("own").join(name))
    }
}

/// Natively, traced, and in the jail: all by an ordinary user.
#[track_caller]
fn prove(needs: &[&str], argv: &[&str], inputs: &[(&str, &str)], says: &str) {
    if !needs_root("to become another user") || !has(needs) {
        return;
    }
    let place = Place::new();
    place.lay_out(inputs);
    let native = outcome_of(place.command(argv[0]).args(&argv[1..])).success();
    assert!(native.text().contains(says), "it does not say {says:?} natively\n{native}");
    place.lay_out(inputs);
    let image = format!("oci:{}", place.own("image"));
    let traced = outcome_of(place.minjail(&["trace", "-t", &place.own("app.trace"), "-o", &image, "--"]).args(argv));
    traced.assert_same_as(&native);
    place.lay_out(&[]);
    outcome_of(&mut place.minjail(&["run", &image])).assert_same_as(&native);
}

#[test]
fn python_with_a_database() {
    let script = "import json, os, sqlite3, ssl\nd = sqlite3.connect('n.db'); d.execute('create table n (n)')\n\
                  d.execute('insert into n values (42)'); d.commit()\n\
                  print(json.dumps(d.execute('select n from n').fetchall()), os.getuid())\n";
    prove(&["python3"], &["/usr/bin/python3", "a.py"], &[("a.py", script)], "[[42]] 65534");
}

#[test]
fn perl_ruby_and_php() {
    let perl = "use JSON::PP; use Digest::SHA qw(sha1_hex); print encode_json([$<]), sha1_hex('x'), qq{\\n};";
    prove(&["perl"], &["perl", "a.pl"], &[("a.pl", perl)], "[65534]");
    let ruby = "require 'json'; require 'yaml'; require 'openssl'; puts JSON.generate([Process.uid]), YAML.dump([1])";
    prove(&["ruby"], &["ruby", "a.rb"], &[("a.rb", ruby)], "[65534]");
    let php =
        "<?php echo json_encode([1]), date_create('@0')->setTimezone(new DateTimeZone('Asia/Tokyo'))->format('c');";
    prove(&["php"], &["php", "a.php"], &[("a.php", php)], "1970-01-01T09:00:00+09:00");
}

#[test]
fn node_and_java() {
    let node = "console.log(process.getuid(), require('crypto').createHash('sha256').update('x').digest('hex'));";
    prove(&["node"], &["node", "a.js"], &[("a.js", node)], "65534 2d711642");
    prove(&["java"], &["java", "-Xshare:on", "-XshowSettings:properties", "-version"], &[], "");
}

#[test]
fn git_and_gcc() {
    let git = "set -e\ngit init -q a; cd a; echo x > x; git add x\n\
               git -c user.name=A -c user.email=a@example.org commit -q -m first; cd ..\n\
               git clone -q a b; git -C b log --format=%s\n";
    prove(&["git"], &["sh", "git.sh"], &[("git.sh", git)], "first");
    let code = "#include <stdio.h>\n#include <unistd.h>\nint main(void) { printf(\"%d\\n\", getuid()); return 0; }\n";
    prove(&["gcc"], &["sh", "-c", "gcc -o a a.c && ./a"], &[("a.c", code)], "65534");
}

#[test]
fn small_programs() {
    let script = "iconv -f UTF-8 -t EUC-JP note.txt | od -c | head -n 2; getent passwd nobody; TZ=Asia/Tokyo date -d @0 +%T\n\
                  tr a-z A-Z < note.txt | sort | tee sorted; id -u\n";
    prove(&["iconv"], &["sh", "all.sh"], &[("all.sh", script), ("note.txt", "a note\n日本\n")], "09:00:00");
    let page = ".TH NOTE 1\n.SH NAME\nnote \\- say it\n";
    prove(&["man", "groff"], &["man", "-l", "-P", "cat", "./note.1"], &[("note.1", page)], "say it");
}

#[test]
fn redis_and_imagemagick() {
    let redis = "set -e\nredis-server --port 0 --unixsocket ./s --dir . > log &\nsleep 0.1\n\
                 for _ in $(seq 100); do redis-cli -s ./s ping > pong 2>&1 && break; sleep 0.1; done\n\
                 redis-cli -s ./s set name minjail; redis-cli -s ./s get name; redis-cli -s ./s shutdown nosave; wait\n";
    prove(&["redis-server", "redis-cli"], &["sh", "redis.sh"], &[("redis.sh", redis)], "OK\nminjail\n");
    let draw = "convert -size 40x30 gradient:red-blue a.png && identify -format '%m %wx%h\\n' a.png";
    prove(&["convert"], &["sh", "-c", draw], &[], "PNG 40x30");
}

/// minjail says so where it may not write what it has, and leaves nothing of that; the program ends as it does without.
#[test]
fn a_limit_of_the_size_of_files() {
    if !needs_root("to become another user") {
        return;
    }
    let place = Place::new();
    let within = |blocks: u32, command: &[&str]| {
        let script = format!("ulimit -f {blocks}; exec \"$0\" \"$@\"");
        outcome_of(place.command("sh").args(["-c", &script]).args(command))
    };
    let (program, trace) = (place.context.text("minjail"), place.own("app.trace"));
    let image = format!("docker-archive:{}:a:1", place.own("app.tar"));
    let refused = within(8, &[&program, "trace", "-t", &trace, "-o", &image, "--", "/bin/true"]);
    refused.assert_refused(125, &["`ulimit -f`"]);
    let left = fs_err::read_dir(place.own("")).expect("the directory is there").flatten();
    assert_eq!(left.map(|entry| entry.file_name()).collect::<Vec<_>>(), ["app.trace"], "which is small, and whole");
    let writes = ["sh", "-c", "head -c 1000000 /dev/zero > /dev/shm/$$; status=$?; rm /dev/shm/$$; exit $status"];
    let beyond = within(400, &[&[&*program, "trace", "-q", "-t", &trace, "--"][..], &writes].concat());
    assert_eq!(beyond.status, within(400, &writes).status, "{beyond}");
    assert_eq!(beyond.status, 128 + 25, "{beyond}");
}

/// Wherever it strikes: as the program starts, while it is traced, and as what it used is looked at.
#[test]
fn a_limit_of_open_files_that_is_too_low() {
    if !needs_root("to become another user") {
        return;
    }
    let place = Place::new();
    let (program, trace) = (place.context.text("minjail"), place.own("app.trace"));
    let image = format!("rootfs:{}", place.own("app"));
    for most in [8, 12] {
        let script = format!("ulimit -n {most}; exec \"$0\" \"$@\"");
        let traced = [&program, "trace", "-q", "-t", &trace, "-o", &image, "--", "/usr/bin/env", "true"];
        let refused = outcome_of(place.command("sh").args(["-c", &script]).args(traced));
        refused.assert_refused(125, &["open files", "`ulimit -n`"]);
        assert!(!Path::new(&place.own("app")).exists(), "{refused}");
    }
}

/// Of all that run at once minjail has something open.
#[test]
fn more_processes_than_the_limit_of_open_files() {
    if !needs_root("to become another user") {
        return;
    }
    let place = Place::new();
    let script = "ulimit -n 40; exec \"$0\" \"$@\"";
    let program = "i=0; while [ $i -lt 50 ]; do sleep 0.5 & i=$((i + 1)); done; wait; ulimit -n";
    let trace = [&place.context.text("minjail"), "trace", "-q", "-t", &place.own("app.trace"), "--"].map(str::to_owned);
    let traced = outcome_of(place.command("sh").args(["-c", script]).args(trace).args(["sh", "-c", program])).success();
    assert_eq!(traced.text(), "40\n", "{traced}");
}

/// Owners, set-user-ID bits, devices and attributes of a tree are root's to make; an image has them as data.
#[test]
fn a_tree_is_what_it_may_be_and_an_image_is_complete() {
    if !needs_root("owners and devices") || !has(&["setcap"]) {
        return;
    }
    let place = Place::new();
    place.lay_out(&[("setuid", "s"), ("capable", "c"), ("plain", "p")]);
    let work = place.context.work();
    let run = |program: &str, arguments: &[&str]| {
        outcome_of(limited(program).args(arguments).current_dir(&work)).success();
    };
    run("mknod", &["device", "c", "1", "3"]);
    run("chown", &["4321:8765", "setuid"]);
    run("chmod", &["4755", "setuid"]);
    run("setcap", &["cap_net_raw+ep", "capable"]);
    let (trace, tree) = (place.own("app.trace"), format!("rootfs:{}", place.own("tree")));
    let read = ["--", "sh", "-c", "cat setuid capable plain; test -e device"];
    outcome_of(place.minjail(&["trace", "-q", "-t", &trace]).args(read)).success();
    let build = |arguments: &[&str]| outcome_of(place.minjail(&["build", "-t", &trace]).args(arguments)).success();
    let told = build(&["-o", &tree, "-o", &format!("layer:{}", place.own("nobodys.tar"))]).stderr;
    for words in [
        "own/tree is not all that an image is, as only root can make it: ",
        " paths belong to you and not to their owners, 1 program is without its set-user-ID bit, 1 device is missing, \
         1 extended attribute is missing",
    ] {
        assert!(told.contains(words), "{told}");
    }
    let at =
        |name: &str| place.context.path("own/tree").join(work.join(name).strip_prefix("/").expect("it is absolute"));
    let mode = |path: &Path| fs_err::symlink_metadata(path).map(|metadata| metadata.permissions().mode() & 0o7777).ok();
    assert_eq!((mode(&at("setuid")), mode(&at("plain")), mode(&at("device"))), (Some(0o755), Some(0o644), None));
    let summary = build(&["--json", "--force", "-o", &tree]).stderr;
    let summary: serde_json::Value = serde_json::from_str(summary.lines().last().expect("a summary")).expect("JSON");
    assert_eq!(summary["outputs"][0]["lacks"]["devices"], 1, "{summary}");

    // Root makes the same layer, and a tree of which nothing is to be told.
    let (roots, exact) = (format!("layer:{}", place.own("roots.tar")), format!("rootfs:{}", place.own("exact")));
    let root: Outcome = place.context.outcome(&["build", "-t", &trace, "-o", &roots, "-o", &exact]).success();
    assert!(!root.stderr.contains("only root"), "{root}");
    let bytes = ["nobodys.tar", "roots.tar"].map(|name| fs_err::read(place.own(name)).expect("it was built"));
    assert!(bytes[0] == bytes[1], "an ordinary user's image lacks something");
    // And with `unpack`, of an image.
    let image = format!("oci:{}", place.own("image"));
    build(&["-q", "-o", &image]);
    let unpacked = outcome_of(&mut place.minjail(&["unpack", &image, "-o", &format!("rootfs:{}", place.own("whole"))]));
    assert!(unpacked.success().stderr.contains("1 program is without its set-user-ID bit"));
}

/// The proof needs no root either; and a draft is made of what the user may do.
#[test]
fn profiles_are_drafted_built_and_verified() {
    if !needs_root("to become another user") || !has(&["python3", "git", "redis-server"]) {
        return;
    }
    let place = Place::new();
    place.lay_out(&[("page", "hello")]);
    // In the host's network, since only root has another one: at a port that nobody has.
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let port = free.expect("the loopback interface is there").port();
    let profile = format!(
        "workloads:\n  serve:\n    run: [/usr/bin/python3, -I, -m, http.server, '{port}']\n    cwd: {}\n    ready: {{port: {port}}}\n    \
         probes:\n      - http: {{port: {port}, path: /page, text: {{equals: hello}}}}\n",
        text(&place.context.work())
    );
    fs_err::write(place.context.path("app.yaml"), profile).expect("the directory is ours");
    let (file, image) = (place.context.text("app.yaml"), format!("oci:{}", place.own("image")));
    outcome_of(&mut place.minjail(&["build", &file, "-q", "-o", &image])).success();
    outcome_of(&mut place.minjail(&["verify", &image, "-q", "-p", &file])).success();

    // State directories that root has traced empty are as empty in anybody's jail.
    for name in ["git", "redis"] {
        let image = format!("oci:{}", place.own(name));
        place.context.outcome(&["build", name, "-q", "-o", &image]).success();
        outcome_of(&mut place.minjail(&["verify", &image, "-q", "-p", name])).success();
    }

    let draft = place.own("draft.yaml");
    let script = format!("echo made > {}/new; cat page", place.own(""));
    outcome_of(&mut place.minjail(&["init", "-o", &draft, "--", "/bin/sh", "-c", &script])).success();
    let drafted = fs_err::read_to_string(&draft).expect("it was drafted");
    assert!(!drafted.contains("\n    state:") && drafted.contains("# state: "), "{drafted}");
    outcome_of(&mut place.minjail(&["build", &draft, "-q", "-o", &format!("oci:{}", place.own("drafted"))])).success();
}

#[test]
fn programs_that_ran_without_their_rights_are_told() {
    if !needs_root("to become another user") {
        return;
    }
    let place = Place::new();
    for (name, mode) in [("plain", 0o755), ("setuid", 0o4755), ("setgid", 0o2755), ("capable", 0o755)] {
        let program = place.context.path(name);
        fs_err::copy("/bin/true", &program).expect("the directory is ours");
        fs_err::set_permissions(&program, PermissionsExt::from_mode(mode)).expect("the directory is ours");
    }
    outcome_of(limited("/sbin/setcap").args(["cap_net_raw+ep", &place.context.text("capable")])).success();
    place.lay_out(&[]);
    for (name, is_told) in [("plain", false), ("setuid", true), ("setgid", true), ("capable", true)] {
        let program = place.context.text(name);
        let traced = outcome_of(&mut place.minjail(&["trace", "-t", &place.own(name), "--", &program])).success();
        let note = format!("note: `{program}` ran without the rights that its file gives it");
        assert_eq!(traced.stderr.contains(&note), is_told, "{name}: {traced}");
    }
}

/// As in a container: what root traces without `CAP_SYS_ADMIN` has none of them either, once it is somebody else.
#[test]
fn programs_that_ran_without_their_rights_are_told_to_a_root_of_little_power() {
    if !needs_root("to give up capabilities") {
        return;
    }
    let place = Place::new();
    let program = place.context.path("setuid");
    fs_err::copy("/bin/true", &program).expect("the directory is ours");
    fs_err::set_permissions(&program, PermissionsExt::from_mode(0o4755)).expect("the directory is ours");
    place.lay_out(&[]);
    let (bound, user) = (["--bounding-set", "-sys_admin"], ["setpriv", "--reuid=65534", "--clear-groups"]);
    let mut weak = limited("setpriv");
    weak.args(bound).args([minjail(), "trace", "-t", &place.context.text("weak.trace"), "--"]);
    let traced = outcome_of(weak.args(user).arg(&program).current_dir(place.context.work())).success();
    let note = format!("note: `{}` ran without the rights that its file gives it", program.display());
    assert!(traced.stderr.contains(&note), "{traced}");
    let doctor = outcome_of(limited("setpriv").args(bound).args([minjail(), "doctor"])).success();
    assert!(doctor.text().contains("root without CAP_SYS_ADMIN: setuid programs run without"), "{doctor}");
}

/// As in a container: who may send signals to nobody else is told of another user's processes all the same.
#[test]
fn processes_of_another_user_are_told_to_a_root_of_little_power() {
    if !needs_root("to give up capabilities") {
        return;
    }
    let place = Place::new();
    place.lay_out(&[]);
    let mut weak = limited("setpriv");
    weak.args(["--bounding-set", "-kill", minjail(), "trace", "-q", "-t", &place.context.text("weak.trace"), "--"]);
    weak.args(["setpriv", "--reuid=65534", "--clear-groups", "sh", "-c", "/bin/true; :"]);
    outcome_of(weak.current_dir(place.context.work())).success();
    let records = fs_err::read_to_string(place.context.path("weak.trace/trace.jsonl")).expect("it was written");
    let programs: Vec<&str> = records.lines().filter(|line| line.contains(r#""record":"program""#)).collect();
    assert!(programs.len() == 3 && programs[2].contains(r#""id":3,"parent":2"#), "{programs:#?}");
}

#[test]
fn where_a_user_may_not_write_nothing_is_run() {
    if !needs_root("to become another user") {
        return;
    }
    let place = Place::new();
    place.lay_out(&[]);
    for arguments in [&["trace", "-t", "x.trace", "-o", "oci:/etc/x"][..], &["init", "-o", "/etc/x.yaml"]] {
        let refused = outcome_of(place.minjail(arguments).args(["--", "touch", "ran"]));
        refused.assert_refused(125, &["cannot be written: Permission denied", "a directory that you may change"]);
        assert!(!place.context.work().join("ran").exists());
    }
}

/// The files of the working directory in the image of a run that starts in `directory`: traced by root for `nobody`, or by `nobody`.
#[track_caller]
fn of_a_run(place: &Place, by_root: bool, directory: &str, script: &str) -> Vec<String> {
    // What root has left is not for others to replace.
    let (trace, tree) = (place.own(&format!("{by_root}.trace")), place.own(&format!("{by_root}.tree")));
    let (whole, output) = (["trace", "-q", "-t", &trace, "--", "sh", "-c", script], format!("rootfs:{tree}"));
    let mut command = if by_root {
        place.context.minjail(&[&["trace", "--user", "65534:65534"], &whole[1..]].concat())
    } else {
        place.minjail(&whole)
    };
    outcome_of(command.current_dir(place.context.work().join(directory))).success();
    let build = ["build", "-q", "-t", &trace, "-o", &output];
    outcome_of(&mut if by_root { place.context.minjail(&build) } else { place.minjail(&build) }).success();
    let top = Path::new(&tree).join(place.context.work().strip_prefix("/").expect("it is absolute"));
    let find =
        limited("find").args([".", "-type", "f", "-exec", "grep", "-H", "", "{}", "+"]).current_dir(top).output();
    let said = String::from_utf8(find.expect("the tree can be read").stdout).expect("it is text");
    let mut files: Vec<String> = said.lines().map(str::to_owned).collect();
    files.sort();
    files
}

/// Permissions count from where a path starts (`path_resolution(7)`): who stands in a directory reads there, whatever closed above it.
#[test]
fn what_is_closed_above_a_working_directory() {
    if !needs_root("to become another user") {
        return;
    }
    let place = Place::new();
    let script = "chmod 000 ..; cat f; cat ./g; echo new > h; cat ../d/not && exit 1; chmod 755 ..";
    for by_root in [true, false] {
        place.lay_out(&[("p/d/f", "F"), ("p/d/g", "G"), ("p/d/h", "H"), ("p/d/not", "N")]);
        assert_eq!(of_a_run(&place, by_root, "p/d", script), ["./p/d/f:F", "./p/d/g:G", "./p/d/h:H"], "{by_root}");
    }
}

/// The same of a directory that a program was given open, or into which it was put; by its whole path it stays closed.
#[test]
fn what_lies_in_a_closed_directory_of_somebody_else() {
    if !needs_root("to become another user") {
        return;
    }
    let place = Place::new();
    place.lay_out(&[("closed/open/f", "F"), ("closed/open/g", "G"), ("closed/open/h", "H"), ("file", "x")]);
    let work = text(&place.context.work());
    let closed = place.context.work().join("closed");
    outcome_of(limited("chown").args(["0:0", &text(&closed)])).success();
    fs_err::set_permissions(&closed, PermissionsExt::from_mode(0o700)).expect("it is root's");
    let script = format!("cat f; ls .. || cat {work}/closed/open/h || cat ../open/h || true");
    assert_eq!(of_a_run(&place, true, "closed/open", &script), ["./closed/open/f:F"]);
    let given = format!(
        "exec 5< closed/open; exec {} trace -q -t {} --user 65534:65534 -- sh -c 'cat /proc/self/fd/5/g file; cat {work}/closed/open/h || true'",
        place.context.text("minjail"),
        place.own("given.trace")
    );
    outcome_of(place.context.command("sh").args(["-c", &given])).success();
    let tree = place.own("given");
    let build = ["build", "-q", "-t", &place.own("given.trace"), "-o", &format!("rootfs:{tree}")];
    place.context.outcome(&build).success();
    let top = Path::new(&tree).join(work.trim_start_matches('/'));
    let has = |name: &str| top.join(name).exists();
    assert_eq!((has("closed/open/g"), has("file"), has("closed/open/h")), (true, true, false));
}

/// As Fedora's `/etc/shadow`, and whatever else has no mode bit at all.
#[test]
fn files_that_nobody_may_read() {
    if !needs_root("to become another user") || !has(&["busybox"]) {
        return;
    }
    let place = Place::new();
    let busybox = fs_err::read("/usr/bin/busybox").expect("busybox is installed");
    let layer = tar()
        .directory("bin/")
        .member(b'0', "bin/busybox", "", &busybox)
        .owned(0, 0, |tar| tar.file("shadow", "root:*\n"))
        .owned(0, 65534, |tar| tar.file("own", "own\n"))
        .owned(0, 0, |tar| tar.directory("shut/"))
        .file("shut/in", "in\n")
        .end();
    let diff_id = format!("sha256:{}", sha256(&layer));
    let command = ["/bin/busybox", "cat", "/shadow", "/own", "/shut/in"];
    let config = serde_json::json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": command},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]}});
    lay_out(&oci_of(config.to_string().into_bytes(), &[layer], Compression::Plain), &place.context.path("own/image"));
    place.give_away("own");
    let [image, out, small] = ["image", "out", "small"].map(|name| format!("oci:{}", place.own(name)));
    outcome_of(&mut place.minjail(&["unpack", "-q", &image, "-o", &out])).success();
    outcome_of(&mut place.minjail(&["diff", &image, &out])).success();
    outcome_of(&mut place.minjail(&["slim", "-q", &image, "-o", &small])).success();
    let differences = outcome_of(&mut place.minjail(&["diff", &image, &small])).text();
    for path in ["/shadow", "/own", "/shut", "/shut/in"] {
        assert!(!differences.contains(&format!(" {path}")), "{differences}");
    }
}
