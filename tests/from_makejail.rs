//! `docs/from-makejail.md`, tried: what stands there for each of makejail's words does what it says, as it is printed.

mod support;

use support::traced::Traced;
use support::{Outcome, TestContext, has, limited, minjail, needs_root, outcome_of};

fn page() -> String {
    fs_err::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/from-makejail.md")).expect("there is a page")
}

/// What the tests below try, as the page's table spells it.
const TRIED: [&str; 14] = [
    "-o rootfs:/var/chroot/apache",
    "-o oci-archive:apache.tar",
    "minjail trace -o OUT -- /usr/sbin/apachectl -X",
    "--accounts system",
    "used",
    "full",
    "--include deb:php8.2-cli",
    "--include '/etc/apache2/*.conf'",
    "**",
    "--exclude /usr/share/doc",
    "podman run -v /var/www:/var/www",
    "--force",
    "minjail run OUT",
    "--net host",
];

#[test]
fn every_line_of_the_table_is_tried() {
    let page = page();
    let rows = page.lines().filter(|line| line.starts_with("| `") || line.starts_with("| running"));
    let ours = rows.filter_map(|row| row.split('|').nth(2));
    let printed: Vec<&str> = ours.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    assert_eq!(printed, TRIED, "try what is new, too");
}

/// Runs a script in a network of its own, with nobody else's servers, and a machine's state laid aside: as root.
fn alone(context: &TestContext, script: &str) -> Outcome {
    let prepare = "set -em\nbusybox ip link set lo up\necho 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start\nmount -t tmpfs run /run; mkdir /run/lock\n\
                   aside() { mkdir -p \"$1\"; mount -t tmpfs -o \"mode=$(stat -c %a \"$1\"),uid=$(id -u \"$2\")\" aside \"$1\"; }\n\
                   minjail() { \"$MINJAIL\" \"$@\"; }\n";
    let mut command = context.command("unshare");
    command.args(["-mn", "bash", "-c", &format!("{prepare}{script}")]).env("MINJAIL", minjail());
    outcome_of(&mut command)
}

/// The table's example is apache: traced, asked meanwhile, ended by Ctrl-C, and run from what came of it.
#[test]
fn apache_with_more_and_with_fewer_files() {
    let needs = ["/usr/sbin/apachectl", "/usr/bin/php8.2", "curl", "busybox", "unshare", "/usr/share/doc/apache2"];
    if !needs_root("a network of its own") || !has(&needs) {
        return;
    }
    let context = TestContext::new();
    let script = r#"
aside /run/apache2 root; aside /var/log/apache2 root
asked() {
    for _ in $(seq 300); do curl -sf http://localhost/ > page && grep -o 'It works' page | head -n 1 && return; sleep 0.1; done
    echo "nobody answers"
}
# Each job has a process group of its own, as in a shell that a person types in.
interrupt() { kill -INT -$!; wait $! || true; }
minjail trace -q -t apache.trace -o rootfs:$PWD/chroot/apache -o oci-archive:apache.tar \
    --include deb:php8.2-cli --include '/etc/apache2/*.conf' --exclude /usr/share/doc -- /usr/sbin/apachectl -X &
asked; interrupt
minjail run --net host oci-archive:apache.tar & asked; interrupt
minjail run --net host rootfs:$PWD/chroot/apache -- /usr/sbin/apachectl -X & asked; interrupt
minjail run oci-archive:apache.tar -- /usr/bin/php8.2 -n -r 'echo 6 * 7, "\n";'
minjail build -q -t apache.trace --force -o rootfs:$PWD/chroot/apache --include '/etc/apache2/**/*.conf'
ls -d chroot/apache/usr/bin/php8.2 chroot/apache/etc/apache2/conf-available/security.conf || true
"#;
    fs_err::create_dir(context.work().join("chroot")).expect("the directory can be written");
    let outcome = alone(&context, script).success();
    let expected = "It works\nIt works\nIt works\n42\n\
                    chroot/apache/etc/apache2/conf-available/security.conf\n";
    assert_eq!(outcome.text(), expected, "{outcome}");
    assert!(!context.work().join("chroot/apache/usr/share/doc").exists());
    assert!(context.work().join("chroot/apache.lock").exists(), "{outcome}");
}

#[test]
fn a_warning_names_what_the_run_had_used() {
    let file = "/usr/share/doc/base-files/copyright";
    if !has(&[file]) {
        return;
    }
    let traced = Traced::new(&format!("cat {file}"), |_| {});
    let built = traced.build("tree", &["--exclude", "/usr/share/doc"]);
    assert!(!built.has("/usr/share/doc"));
    assert!(built.said.contains(&format!("{file} was used by the run and is not packed")), "{}", built.said);
    for (accounts, others) in [("system", true), ("used", false), ("full", true)] {
        let traced = Traced::new("cat /etc/passwd", |_| {});
        let built = traced.build("tree", &["--accounts", accounts]);
        assert_eq!(built.text("/etc/passwd").contains("daemon:"), others, "{accounts}");
    }
}

/// What is to stay from one tree to the next is no part of it, but a volume.
#[test]
fn preserved_files_are_a_volume() {
    if !needs_root("podman") || !has(&["podman"]) {
        return;
    }
    let context = TestContext::new();
    context.lay_out(&[("www/page", "first\n")]);
    let page = support::text(&context.work().join("www"));
    let script = format!("cat {page}/page");
    let image = format!("oci:{}:1", context.text("image"));
    context.outcome(&["trace", "-q", "-o", &image, "--", "sh", "-c", &script]).success();
    fs_err::write(context.work().join("www/page"), "second\n").expect("the directory can be written");
    let podman = support::podman::Podman::new();
    let id = podman.pull(&context, &image);
    assert_eq!(podman.run(&id).text(), "first\n");
    assert_eq!(outcome_of(&mut podman.run_command(&["-v", &format!("{page}:{page}")], &id)).text(), "second\n");
}

/// The block of the page, word for word but for where the tree goes.
#[test]
fn the_whole_example() {
    if !needs_root("another user") || !has(&["redis-server", "redis-cli", "busybox", "/etc/redis/redis.conf"]) {
        return;
    }
    let context = TestContext::new();
    let (page, chroot) = (page(), context.text("work/chroot"));
    fs_err::create_dir(&chroot).expect("the directory can be written");
    let block = page.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block of commands");
    let why = page.split("(`minjail why ").nth(1).and_then(|rest| rest.split('`').next()).expect("a question");
    let [block, why] = [block, why].map(|text| text.replace("/var/chroot", &chroot));
    assert!(block.contains("minjail trace --user redis"), "{block}");
    let script = format!(
        "for state in /var/lib/redis /var/log/redis /run/redis; do aside $state redis; done\n\
         (for _ in $(seq 300); do redis-cli ping > answer 2>&1 && grep -qx PONG answer && break; sleep 0.1; done\n\
          redis-cli set name minjail; redis-cli shutdown nosave) &\n\
         {block}\nwait\nminjail why {why}\n"
    );
    let outcome = alone(&context, &script).success();
    assert!(outcome.text().starts_with("OK\n") && outcome.text().contains("touched by /usr/bin/redis-"), "{outcome}");
    let tree = context.path("work/chroot/redis");
    for there in ["usr/bin/redis-server", "etc/redis/redis.conf", "usr/share/zoneinfo/Europe/Berlin"] {
        assert!(fs_err::symlink_metadata(tree.join(there)).is_ok(), "{there}\n{outcome}");
    }
    assert!(!tree.join("usr/share/doc").exists() && !tree.join("usr/share/zoneinfo/America").exists());
    let passwd = fs_err::read_to_string(tree.join("etc/passwd")).unwrap_or_default();
    assert!(passwd.is_empty() || passwd.contains("redis:"), "{passwd}");
    // It is a tree to work in: redis answers from it.
    let command = ["run", "-q", &format!("rootfs:{}", tree.display()), "--", "/usr/bin/redis-server", "--version"];
    let version = outcome_of(limited(minjail()).args(command)).success();
    assert!(version.text().starts_with("Redis server v="), "{version}");
}
