//! Whose the files of an image are in the jail of an ordinary user: their owners' where he has ids for them, as they are in
//! root's jail and in an engine.

#![expect(clippy::unwrap_used, reason = "these are tests")]

mod support;

use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use serde_json::{Value, json};
use support::crafted::{Compression, lay_out, oci_of, sha256};
use support::{Outcome, TestContext, has, limited, minjail, needs_root, outcome_of, text};

/// A place that belongs to `nobody`, who has ranges of ids there, or has none.
struct Place {
    context: TestContext,
}

impl Place {
    /// `None` where nobody can have ranges.
    fn new() -> Option<Self> {
        if !needs_root("owners, and another user") || !has(&["/bin/busybox", "newuidmap", "setcap", "runuser"]) {
            return None;
        }
        let context = TestContext::new();
        fs_err::set_permissions(context.path(""), PermissionsExt::from_mode(0o755)).unwrap();
        fs_err::create_dir(context.path("own")).unwrap();
        fs_err::copy(minjail(), context.path("minjail")).unwrap();
        fs_err::write(context.path("ranges"), "nobody:200000:65536\n").unwrap();
        run("chown", &["-R", "65534:65534", &context.text("own")]);
        Some(Self { context })
    }

    /// minjail, called by `nobody` with ranges.
    fn ranged(&self, arguments: &[&str]) -> Outcome {
        // In a mount namespace of the test's own: the machine's files stay as they are.
        let setup = "touch /etc/subuid /etc/subgid; mount --bind \"$0\" /etc/subuid; mount --bind \"$0\" /etc/subgid
                     exec runuser -u nobody -- \"$@\"";
        let (ranges, minjail) = (self.context.text("ranges"), self.context.text("minjail"));
        let mut command = self.command("unshare");
        outcome_of(command.args(["-m", "sh", "-c", setup, &ranges, &minjail]).args(arguments))
    }

    /// minjail, called by `nobody` without ranges.
    fn alone(&self, arguments: &[&str]) -> Outcome {
        let no_ranges = "for name in subuid subgid; do touch /etc/$name; mount --bind /dev/null /etc/$name; done
                         exec runuser -u nobody -- \"$@\"";
        let mut command = self.command("unshare");
        outcome_of(command.args(["-m", "sh", "-c", no_ranges, "sh", &self.context.text("minjail")]).args(arguments))
    }

    fn root(&self, arguments: &[&str]) -> Outcome {
        self.context.outcome(arguments)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = self.context.command(program);
        command.current_dir(self.context.path("own")).env("HOME", self.context.path("own"));
        command
    }

    /// An image of the directory `root`, with owners and attributes as they are there.
    fn image(&self, name: &str, config: &Value) -> String {
        let layer = self.context.text("layer.tar");
        let root = self.context.text("root");
        let exact = ["--format=pax", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--sort=name"];
        run("tar", &[&exact[..], &["-C", &root, "-cf", &layer, "."]].concat());
        let layer = fs_err::read(layer).unwrap();
        let document = json!({
            "architecture": "amd64", "os": "linux", "config": config,
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))]},
        });
        let place = self.context.path(name);
        lay_out(&oci_of(document.to_string().into_bytes(), &[layer], Compression::Plain), &place);
        format!("oci:{}", text(&place))
    }

    /// `root` with busybox, and an account `app` with the group `staff`.
    fn lay_out_root(&self) {
        let root = self.context.path("root");
        for name in ["bin", "etc", "data", "srv"] {
            fs_err::create_dir_all(root.join(name)).unwrap();
        }
        fs_err::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        for name in ["sh", "cat", "id", "stat", "touch", "echo", "rm", "grep", "ls"] {
            symlink("busybox", root.join("bin").join(name)).unwrap();
        }
        fs_err::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\napp:x:1000:1000::/data:/bin/sh\n").unwrap();
        fs_err::write(root.join("etc/group"), "root:x:0:\napp:x:1000:\nstaff:x:70050:app\n").unwrap();
    }

    fn file(&self, path: &str, content: &str, owner: &str, mode: u32) {
        let path = self.context.path("root").join(path);
        fs_err::write(&path, content).unwrap();
        run("chown", &["-h", owner, &text(&path)]);
        fs_err::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }
}

fn run(program: &str, arguments: &[&str]) {
    outcome_of(limited(program).args(arguments)).success();
}

fn oci(place: &Place, name: &str) -> (String, String) {
    let path = text(&place.context.path("own").join(name));
    (format!("oci:{path}"), format!("{path}.lock"))
}

#[test]
fn an_images_user_has_what_the_image_gives_him() {
    let Some(place) = Place::new() else { return };
    place.lay_out_root();
    let root = place.context.path("root");
    place.file("data/file", "first\n", "1000:1000", 0o600);
    fs_err::hard_link(root.join("data/file"), root.join("data/other")).unwrap();
    symlink("file", root.join("data/link")).unwrap();
    run("mkfifo", &[&text(&root.join("data/pipe"))]);
    run("chown", &["-h", "1000:1000", &text(&root.join("data/link")), &text(&root.join("data/pipe"))]);
    run("chown", &["1000:1000", &text(&root.join("data"))]);
    fs_err::set_permissions(root.join("data"), PermissionsExt::from_mode(0o700)).unwrap();
    place.file("srv/secret", "secret\n", "0:0", 0o600);
    place.file("srv/shared", "shared\n", "0:70050", 0o640);
    place.file("srv/far", "far\n", "3000000:70050", 0o644);
    place.file("data/own", "own\n", "1000:1000", 0o644);
    // The numbers of whoever runs it, which are root's in his jail.
    place.file("srv/callers", "callers\n", "65534:65534", 0o640);
    // busybox knows by its name what it is to do.
    for (name, how) in [("setid", "u+s"), ("capable", "u-s")] {
        let directory = root.join("srv").join(name);
        fs_err::create_dir(&directory).unwrap();
        let program = text(&directory.join("grep"));
        run("cp", &["/bin/busybox", &program]);
        run("chmod", &[how, &program]);
    }
    run("setcap", &["cap_net_raw+ep", &text(&root.join("srv/capable/grep"))]);
    let script = "id -u; id -g; id -G; echo more >> own; cat own other link; touch new
        stat -c '%u:%g %a %h' . file other link pipe new /srv/secret /srv/shared /srv/far /srv/callers /srv/setid/grep /data/
        cat /srv/secret 2> /dev/null || echo refused; cat /srv/shared
        grep NoNewPrivs /proc/self/status; /srv/capable/grep CapEff /proc/self/status";
    let config = json!({"Cmd": ["/bin/sh", "-c", script], "User": "app", "WorkingDir": "/data"});
    let image = place.image("image", &config);
    let rooted = place.root(&["run", "-q", &image]).success();
    for words in ["1000\n1000\n1000 70050\nown\nmore\nfirst\nfirst\n", "1000:1000 600 2\n1000:1000 600 2\n", "refused"]
    {
        assert!(rooted.text().contains(words), "{words:?}: {rooted}");
    }
    assert!(rooted.text().contains("NoNewPrivs:\t0\nCapEff:\t0000000000002000\n"), "{rooted}");
    let ranged = place.ranged(&["run", &image]);
    ranged.assert_same_as(&rooted);
    assert_eq!(ranged.stderr, "", "nothing is lacking");

    // What it was slimmed to is the same, bit by bit, whoever did it, and does the same for both.
    let ((roots, roots_lock), (theirs, theirs_lock)) = (oci(&place, "roots"), oci(&place, "theirs"));
    place.root(&["slim", "-q", &image, "-o", &roots]).success();
    place.ranged(&["slim", "-q", &image, "-o", &theirs]).success();
    place.context.outcome(&["diff", &roots_lock, &theirs_lock]).success();
    for image in [&roots, &theirs] {
        place.root(&["run", "-q", image]).assert_same_as(&rooted);
        place.ranged(&["run", "-q", image]).assert_same_as(&rooted);
    }
    // A tree that an ordinary user has made is as good, by the lock beside it.
    let tree = format!("rootfs:{}", text(&place.context.path("own/tree")));
    place.ranged(&["unpack", "-q", &image, "-o", &tree]).success();
    place.ranged(&["run", "-q", &tree]).assert_same_as(&rooted);
}

/// Without ranges the program owns everything, and it is said what that hides; the image is the same as root's all the same.
#[test]
fn without_ranges_the_image_is_the_same() {
    let Some(place) = Place::new() else { return };
    place.lay_out_root();
    let root = place.context.path("root");
    place.file("data/file", "first\n", "1000:1000", 0o600);
    fs_err::hard_link(root.join("data/file"), root.join("data/other")).unwrap();
    run("chown", &["1000:1000", &text(&root.join("data"))]);
    let script = "echo more >> file; cat other; touch new; ls";
    let config = json!({"Cmd": ["/bin/sh", "-c", script], "User": "app", "WorkingDir": "/data"});
    let image = place.image("image", &config);
    let ((roots, roots_lock), (theirs, theirs_lock)) = (oci(&place, "roots"), oci(&place, "theirs"));
    place.root(&["slim", "-q", &image, "-o", &roots]).success();
    let told = place.alone(&["slim", &image, "-o", &theirs]).success();
    for words in ["note: only the program's own user", "goes unseen", "note: the supplementary groups are not set"] {
        assert!(told.stderr.contains(words), "{words:?}: {told}");
    }
    place.context.outcome(&["diff", &roots_lock, &theirs_lock]).success();
}

/// A workload's groups are those that it has, in whatever jail.
#[test]
fn groups_are_set_where_they_can_be() {
    let Some(place) = Place::new() else { return };
    place.lay_out_root();
    place.file("srv/shared", "shared\n", "0:70050", 0o640);
    let image = place.image("image", &json!({"Cmd": ["/bin/cat", "/srv/shared"], "User": "app"}));
    let (out, _) = oci(&place, "out");
    place.ranged(&["slim", "-q", &image, "-o", &out]).success();
    assert_eq!(place.root(&["run", "-q", &out]).success().text(), "shared\n");
    let root = place.context.text("root");
    let traced = |target| ["trace", "-t", target, "--root", &root, "--user", "app", "--", "/bin/id", "-G"];
    let (roots, ranged) = (place.context.text("roots.trace"), text(&place.context.path("own/ranged.trace")));
    assert_eq!(place.root(&traced(&roots)).success().text(), "1000 70050\n");
    assert_eq!(place.ranged(&traced(&ranged)).success().text(), "1000 70050\n");
    let alone = place.alone(&traced(&text(&place.context.path("own/alone.trace")))).success();
    assert!(alone.stderr.contains("note: the supplementary groups are not set"), "{alone}");
}

/// A new volume gets its owner and mode from the image, also where the runs had nothing to do with it.
#[test]
fn volumes_keep_their_owners() {
    let Some(place) = Place::new() else { return };
    place.lay_out_root();
    let root = place.context.path("root");
    run("chown", &["1000:70050", &text(&root.join("data"))]);
    fs_err::set_permissions(root.join("data"), PermissionsExt::from_mode(0o2770)).unwrap();
    symlink("../data", root.join("srv/volume")).unwrap();
    place.file("data/file", "unused\n", "1000:70050", 0o600);
    let config = json!({"Cmd": ["/bin/echo", "done"], "Volumes": {"/srv/volume": {}, "/none": {}}});
    let image = place.image("image", &config);
    let (out, lock) = oci(&place, "out");
    place.ranged(&["slim", "-q", &image, "-o", &out]).success();
    let why = place.root(&["why", &lock, "/data"]).success();
    assert!(why.text().contains("rule volume, for /bin/busybox"), "{why}");
    let lock: Value = serde_json::from_slice(&fs_err::read(lock).unwrap()).unwrap();
    let entries = lock["entries"].as_array().unwrap();
    let entry = |path: &str| entries.iter().find(|entry| entry["path"] == path);
    let data = entry("/data").unwrap();
    assert_eq!((&data["uid"], &data["gid"], &data["mode"]), (&json!(1000), &json!(70050), &json!("2770")));
    assert!(entry("/srv/volume").is_some() && entry("/data/file").is_none() && entry("/none").is_none());
}
