//! Servers in images: when one is ready by its health check, its idling or its time, and what is said of those that are not.

#![expect(clippy::unwrap_used, reason = "these are tests")]

mod support;

use std::time::Instant;

use serde_json::{Value, json};
use support::crafted::{Compression, lay_out, oci_of, sha256, tar};
use support::{Outcome, TestContext, has, needs_root};

/// An image of busybox and two pages, run as `config` says.
fn image(context: &TestContext, config: &Value) -> String {
    let busybox = fs_err::read("/bin/busybox").unwrap();
    let mut layer = tar().directory("bin/").member(b'0', "bin/busybox", "", &busybox);
    for name in ["sh", "httpd", "wget", "grep", "sleep", "cat", "ls", "chmod"] {
        layer = layer.symlink(&format!("bin/{name}"), "busybox");
    }
    layer = layer.directory("www/").file("www/asked", "hello\n").file("www/other", "unasked\n");
    let layer = layer.directory("dev/").directory("tmp/").end();
    let document = json!({
        "architecture": "amd64", "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))]},
    });
    let place = context.path("image");
    let _ = fs_err::remove_dir_all(&place);
    lay_out(&oci_of(document.to_string().into_bytes(), &[layer], Compression::Plain), &place);
    format!("oci:{}", context.text("image"))
}

fn slim(context: &TestContext, image: &str, arguments: &[&str]) -> Outcome {
    let out = format!("oci:{}", context.text("out"));
    context.outcome(&[&["slim", image, "--force", "-o", &out], arguments].concat())
}

fn lock(context: &TestContext) -> Value {
    context.json("out.lock")
}

/// True if the slimmed image has the path, and not only its name.
fn has_whole(lock: &Value, path: &str) -> bool {
    lock["entries"]
        .as_array()
        .unwrap()
        .iter()
        .any(|entry| entry["path"] == path && entry["target"] != "/.minjail-omitted")
}

const HTTPD: &str = "/bin/httpd -f -p 8080 -h /www";

#[test]
fn a_health_check_is_run_inside_and_stays_with_the_image() {
    if !has(&["/bin/busybox"]) {
        return;
    }
    let context = TestContext::new();
    let check = json!({"Test": ["CMD-SHELL", "/bin/wget -q -O - http://127.0.0.1:8080/asked | /bin/grep -q hello"], "Interval": 5_000_000_000_i64});
    let config = json!({"Cmd": ["/bin/sh", "-c", format!("exec {HTTPD}")], "Healthcheck": check, "User": "33:33", "ExposedPorts": {"8080/tcp": {}}});
    let image = image(&context, &config);
    let told = slim(&context, &image, &[]);
    assert!(told.stderr.contains("its health check and its end are tried"), "{told}");
    told.success();
    let lock = lock(&context);
    assert_eq!(lock["config"]["healthcheck"], check);
    assert_eq!(lock["verified"], true);
    for path in ["/bin/wget", "/bin/grep", "/www/asked"] {
        assert!(has_whole(&lock, path), "the health check needs {path}");
    }
    assert!(!has_whole(&lock, "/www/other") && !has_whole(&lock, "/bin/cat"), "nobody needs these");
    // With something else in its place it is not run, and so not promised.
    let other = slim(&context, &image, &["--for", "1s", "--", "/bin/sh", "-c", HTTPD]);
    assert!(other.stderr.contains("it is left out"), "{other}");
    other.success();
    assert_eq!(self::lock(&context)["config"]["healthcheck"], Value::Null);
}

/// An engine looks a named user up in the image, and gives him his groups: the small image must allow that too.
#[test]
fn a_user_by_name_stays_one_with_his_groups() {
    if !has(&["/bin/busybox"]) || !needs_root("setting groups") {
        return;
    }
    let context = TestContext::new();
    let busybox = fs_err::read("/bin/busybox").unwrap();
    let layer = tar().directory("bin/").member(b'0', "bin/busybox", "", &busybox).symlink("bin/id", "busybox");
    let layer = layer.directory("etc/").file("etc/passwd", "root:x:0:0::/:/bin/sh\nweb:x:33:34::/:/bin/false\n");
    let layer = layer.file("etc/group", "root:x:0:\nweb:x:34:\nadm:x:4:web\nstaff:x:50:\n").end();
    let image = |user: &str| {
        let document = json!({
            "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/id", "-G"], "User": user},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))]},
        });
        let place = context.path("image");
        let _ = fs_err::remove_dir_all(&place);
        lay_out(&oci_of(document.to_string().into_bytes(), std::slice::from_ref(&layer), Compression::Plain), &place);
        format!("oci:{}", context.text("image"))
    };
    let out = format!("oci:{}", context.text("out"));
    for (user, groups, has_accounts) in
        [("web", "34 4\n", true), ("33", "34 4\n", true), ("web:staff", "50\n", true), ("33:34", "34\n", false)]
    {
        let image = image(user);
        let sorted = |text: String| {
            let mut words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            words.sort();
            words
        };
        let groups = sorted(groups.to_owned());
        assert_eq!(sorted(context.outcome(&["run", "-q", &image]).success().text()), groups);
        slim(&context, &image, &["-q"]).success();
        assert_eq!(lock(&context)["config"]["user"], user);
        assert_eq!(sorted(context.outcome(&["run", "-q", &out]).success().text()), groups, "{user}");
        // What `id` itself looked at is there anyway.
        for path in ["/etc/passwd", "/etc/group"] {
            let why = context.outcome(&["why", &context.text("out.lock"), path]);
            assert_eq!(why.text().contains("rule image-user, for /bin/busybox"), has_accounts, "{user}: {why}");
        }
    }
    slim(&context, &image("web"), &["-q", "--rule", "image-user=off", "--exclude", "/etc/passwd"]).success();
    let refused = context.outcome(&["run", "-q", &out]);
    refused.assert_refused(125, &["the user `web`, whom its /etc/passwd does not have", "uid:gid"]);
}

#[test]
fn a_check_that_fails_says_how() {
    if !has(&["/bin/busybox"]) {
        return;
    }
    let context = TestContext::new();
    let image = image(&context, &json!({"Cmd": ["/bin/true"]}));
    let profile = |check: &str| {
        let text = format!(
            "workloads:\n  serve: {{run: [/bin/sh, -c, 'exec {HTTPD}'], timeout: 4, ready: {{check: {check}}}}}\n"
        );
        fs_err::write(context.path("profile.yaml"), text).unwrap();
        slim(&context, &image, &["-p", &context.text("profile.yaml")])
    };
    profile("[/bin/grep, -q, bye, /www/asked]").assert_refused(
        125,
        &["it was not ready after 4 s", "its check `/bin/grep -q bye /www/asked`: ended with status 1"],
    );
    profile("[/bin/none]")
        .assert_refused(125, &["it cannot become ready: its check `/bin/none` cannot be run", "No such file"]);
    profile("[/www/asked]").assert_refused(125, &["its check `/www/asked` cannot be run", "Exec format error"]);
    profile("[sleep, '60']").assert_refused(125, &["its check `sleep 60`: was killed by signal 9"]);
    // The image's own has the time that the image gives it, and is tried again: here the second one is quick.
    let slow = "test -e /tmp/tried || { echo > /tmp/tried; exec sleep 60; }";
    let slow = json!({"Test": ["CMD", "/bin/sh", "-c", slow], "Timeout": 1_000_000_000_i64});
    let config = json!({"Cmd": ["/bin/sh", "-c", format!("exec {HTTPD}")], "Healthcheck": slow});
    let start = Instant::now();
    slim(&context, &self::image(&context, &config), &["-q"]).success();
    assert!(start.elapsed().as_secs() < 25, "{:?}", start.elapsed());
    // It is no nearer to the jail's first process than the program is, and has nothing of it.
    let apart = "/bin/ls -l /proc/1/fd 2>&1 | /bin/grep -q 'Permission denied'";
    let bare = "test $(/bin/ls /proc/self/fd | /bin/busybox wc -l) = 4";
    let alone = format!("\"{apart} && {bare}\"");
    profile(&format!("[/bin/sh, -c, {alone}]")).success();
    profile("[grep, -q, hello, /www/asked]").success();
    assert!(has_whole(&lock(&context), "/bin/grep"));
    assert!(!context.listing().iter().any(|name| name.contains("minjail-")), "{:?}", context.listing());
}

/// What starts a server may write the program of its check, as it comes up.
#[test]
fn a_check_may_be_made_by_the_start() {
    if !has(&["/bin/busybox"]) {
        return;
    }
    let context = TestContext::new();
    let start = format!("{{ sleep 1; echo '#!/bin/sh' > /tmp/check; chmod +x /tmp/check; }} & exec {HTTPD}");
    let config = json!({"Cmd": ["/bin/sh", "-c", start], "Healthcheck": {"Test": ["CMD", "/tmp/check"]}});
    slim(&context, &image(&context, &config), &["-q"]).success();
}

#[test]
fn what_listens_and_idles_is_a_server() {
    if !has(&["/bin/busybox"]) {
        return;
    }
    let context = TestContext::new();
    let image =
        image(&context, &json!({"Entrypoint": ["/bin/sh", "-c"], "Cmd": [format!("cat /www/asked; exec {HTTPD}")]}));
    slim(&context, &image, &["-q"]).success();
    assert!(has_whole(&lock(&context), "/bin/httpd"));
    assert_eq!(lock(&context)["config"]["exposed-ports"], json!(["8080/tcp"]));
    // One that ends by itself is none, and its status counts.
    slim(&context, &image, &["-q", "--", "sleep 1; /bin/cat /www/other"]).success();
    assert!(has_whole(&lock(&context), "/www/other") && !has_whole(&lock(&context), "/bin/httpd"));
    slim(&context, &image, &["-q", "--", "exit 4"]).assert_refused(125, &["ended with status 4"]);
}

/// Its port is open while others still start; and of the ports that an image exposes some may be those of the one that it was made from.
#[test]
fn what_starts_after_it_listens_is_waited_for() {
    if !has(&["/bin/busybox"]) {
        return;
    }
    let context = TestContext::new();
    let late = "/bin/httpd -p 8080 -h /www; /bin/sleep 1; /bin/cat /www/other; exec /bin/sleep 100";
    let ports = [json!({"8080/tcp": {}}), json!({"80/tcp": {}, "8080/tcp": {}})];
    for ports in ports {
        // Who listens at a port below 1024 needs no right, as under docker.
        let low = late.replace("8080", if ports.get("80/tcp").is_some() { "81" } else { "8080" });
        let config =
            json!({"Cmd": ["/bin/sh", "-c", low], "User": "33:33", "ExposedPorts": ports, "StopSignal": "SIGKILL"});
        slim(&context, &image(&context, &config), &[]).success();
        assert!(has_whole(&lock(&context), "/www/other"), "{ports}");
    }
}

/// Whoever runs it as somebody else has that one's home, and who begins it as the profile does begins it as the image does.
#[test]
fn an_image_says_of_itself_what_it_did() {
    if !has(&["/bin/busybox"]) {
        return;
    }
    let context = TestContext::new();
    let busybox = fs_err::read("/bin/busybox").unwrap();
    let layer = tar().directory("bin/").member(b'0', "bin/busybox", "", &busybox).symlink("bin/cat", "busybox");
    let layer = layer.directory("etc/").file("etc/passwd", "root:x:0:0::/root:/bin/sh\n");
    let layer = layer.file("etc/shadow", "root:$6$a$b:19000::::::\n").directory("root/").end();
    let document = json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Entrypoint": ["/bin/busybox", "cat"], "Cmd": ["/etc/passwd", "/etc/shadow"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))]},
    });
    lay_out(&oci_of(document.to_string().into_bytes(), &[layer], Compression::Plain), &context.path("image"));
    let (image, profile) = (format!("oci:{}", context.text("image")), context.text("app.yaml"));
    fs_err::write(&profile, "workloads: {a: {run: [/bin/busybox, cat, /etc/passwd, /etc/shadow]}}\n").unwrap();
    for arguments in [&[][..], &["-p", &profile]] {
        let told = slim(&context, &image, arguments);
        let words = "/etc/shadow is packed without its password hashes; `--allow-secret /etc/shadow` packs them";
        assert!(told.stderr.contains(words), "{told}");
        told.success();
        let config = lock(&context)["config"].clone();
        assert_eq!(config["entrypoint"], json!(["/bin/busybox", "cat"]), "{arguments:?}");
        assert_eq!(config["cmd"], json!(["/etc/passwd", "/etc/shadow"]), "{arguments:?}");
        assert_eq!(config["env"]["HOME"], Value::Null);
    }
}

#[test]
fn what_neither_ends_nor_listens_is_given_a_time() {
    if !has(&["/bin/busybox"]) {
        return;
    }
    let context = TestContext::new();
    let config = json!({"Cmd": ["/bin/sh", "-c", "trap 'cat /www/other; exit 0' TERM; while :; do sleep 1; done"]});
    let image = image(&context, &config);
    let start = Instant::now();
    slim(&context, &image, &["-q", "--for", "2s"]).success();
    // It is traced so long, and proved so long.
    assert!(start.elapsed().as_secs() >= 4);
    assert!(has_whole(&lock(&context), "/www/other"), "its end is traced too");
    let text = "workloads:\n  wait: {run: [/bin/sleep, '100'], timeout: 3, grace: 1, ready: {idle: 1}}\n";
    fs_err::write(context.path("profile.yaml"), text).unwrap();
    let told = slim(&context, &image, &["-p", &context.text("profile.yaml")]);
    told.assert_refused(125, &["after 3 s it had neither ended nor become an idle server", "`--for 30s`"]);
}
