//! Programs in jails, for real: busybox in small trees, through `examples/jail.rs`, since a jail is entered from a
//! process with one thread.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "all of this is tests")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use minjail::jail::{Base, Jail, JailError, Network, Program, User, replaces_directories, run};
use minjail::path::JailPath;
use tempfile::TempDir;

/// A program of the host to which a command line is handed, so that it runs as somebody else or in another world.
const NOBODY: &[&str] = &["runuser", "-u", "nobody", "--"];

/// A tree with busybox, and the example that confines to it.
struct Cell {
    directory: TempDir,
}

impl Cell {
    /// `None`, with a word to the reader, where no jail can be tried.
    fn new() -> Option<Self> {
        if !Path::new(BUSYBOX).exists() {
            return skipped("there is no static busybox");
        }
        let directory = TempDir::with_prefix("jail-").unwrap();
        let cell = Self { directory };
        mode(cell.directory.path(), 0o755);
        for name in ["bin", "etc", "srv", "tmp"] {
            fs_err::create_dir_all(cell.tree().join(name)).unwrap();
        }
        mode(&cell.tree().join("tmp"), 0o1777);
        copy(Path::new(BUSYBOX), &cell.tree().join("bin/busybox"));
        for applet in APPLETS {
            symlink("busybox", cell.tree().join("bin").join(applet)).unwrap();
        }
        cell.write("etc/motd", "hello\n");
        copy(example(), &cell.directory.path().join("jail"));
        let trial = cell.run(&[], &["true"]);
        if text(&trial.stderr).contains("failed to create the namespaces") {
            return skipped(&text(&trial.stderr));
        }
        Some(cell)
    }

    fn tree(&self) -> PathBuf {
        self.directory.path().join("tree")
    }

    fn write(&self, path: &str, content: &str) {
        fs_err::write(self.tree().join(path), content).unwrap();
    }

    /// The command line `WRAPPER... jail OPTIONS... TREE COMMAND...`.
    fn command(&self, wrapper: &[&str], options: &[&str], command: &[&str]) -> Command {
        let jail = self.directory.path().join("jail");
        let mut line: Vec<&str> = wrapper.to_vec();
        line.push(jail.to_str().unwrap());
        let tree = self.tree();
        line.extend(options.iter().chain([&tree.to_str().unwrap()]).chain(command));
        let mut command = Command::new(line[0]);
        command.args(&line[1..]).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
        command
    }

    fn run(&self, options: &[&str], command: &[&str]) -> Output {
        self.command(&[], options, command).output().unwrap()
    }

    /// What a script says that must succeed, without a word on standard error.
    fn says(&self, options: &[&str], script: &str) -> String {
        let output = self.run(options, &["sh", "-c", script]);
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        text(&output.stdout)
    }

    /// Every path of the tree with all that could change.
    fn state(&self) -> BTreeMap<PathBuf, (Vec<i64>, Vec<u8>)> {
        let mut state = BTreeMap::new();
        let mut todo = vec![self.tree()];
        while let Some(path) = todo.pop() {
            let facts = fs_err::symlink_metadata(&path).unwrap();
            let content = if facts.is_file() { fs_err::read(&path).unwrap() } else { Vec::new() };
            if facts.is_dir() {
                todo.extend(fs_err::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
            let numbers = [facts.mode(), facts.uid(), facts.gid()].map(i64::from);
            let value = ([&numbers[..], &[facts.mtime(), facts.mtime_nsec()]].concat(), content);
            state.insert(path, value);
        }
        state
    }
}

const BUSYBOX: &str = "/bin/busybox";
const APPLETS: &[&str] = &[
    "cat", "chmod", "chown", "cp", "cut", "env", "grep", "head", "hostname", "id", "ip", "kill", "ln", "ls", "mkdir",
    "mount", "mv", "nc", "ps", "readlink", "rm", "rmdir", "sh", "sleep", "sort", "stat", "test", "touch", "tr", "true",
    "umount", "wc",
];

/// Builds the example once, as this test was built. `cargo test --test jail` alone would leave it as it was.
fn example() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let built = test.ancestors().nth(2).unwrap();
        let profile = if built.ends_with("debug") { "dev" } else { "release" };
        let arguments = ["build", "--quiet", "--profile", profile, "--example", "jail"];
        let status = Command::new(env!("CARGO")).args(arguments).status().unwrap();
        assert!(status.success());
        built.join("examples/jail")
    })
}

/// Copies a program by another process. A descriptor that this one had open for writing could be in a child that
/// another test has just forked, and the program then be "busy" (`ETXTBSY` in `execve(2)`).
fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").args([from, to]).status().unwrap().success());
}

#[expect(clippy::disallowed_methods, reason = "the test command says what may be missing")]
fn skipped<T>(why: &str) -> Option<T> {
    assert!(std::env::var_os("MINJAIL_TESTS_NO_SKIP").is_none(), "nothing may be skipped here, but: {why}");
    println!("skipped: {why}");
    None
}

/// For a test that needs the real root.
fn root() -> Option<()> {
    let map = fs_err::read_to_string("/proc/self/uid_map").unwrap();
    let all = map.split_ascii_whitespace().eq(["0", "0", "4294967295"]);
    if all && nix::unistd::geteuid().is_root() { Some(()) } else { skipped("this needs root") }
}

fn mode(path: &Path, mode: u32) {
    fs_err::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The processes of this machine that have `mark` in their command line.
fn processes(mark: &str) -> usize {
    let entries = fs_err::read_dir("/proc").unwrap().flatten();
    entries.filter(|entry| fs_err::read(entry.path().join("cmdline")).is_ok_and(|line| contains(&line, mark))).count()
}

fn contains(line: &[u8], mark: &str) -> bool {
    line.windows(mark.len()).any(|part| part == mark.as_bytes())
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "still not: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A child whose first line has been read.
fn ready(command: &mut Command) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    (child, lines)
}

fn send(child: &Child, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, signal).unwrap();
}

#[test]
fn status_and_streams_are_the_programs() {
    let Some(cell) = Cell::new() else { return };
    let mut command = cell.command(&[], &[], &["sh", "-c", "cat; echo two >&2; exit 7"]);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"one\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &*text(&output.stdout), &*text(&output.stderr)), (Some(7), "one\n", "two\n"));
}

#[test]
fn death_by_a_signal_is_told() {
    let Some(cell) = Cell::new() else { return };
    // 40 is a real-time signal; 1 is what PID 1 itself would ignore.
    for signal in [1, 9, 11, 40] {
        let output = cell.run(&[], &["sh", "-c", &format!("kill -{signal} $$")]);
        assert_eq!(output.status.code(), Some(128 + signal));
    }
}

#[test]
fn arguments_and_environment_are_exact() {
    let Some(cell) = Cell::new() else { return };
    let output = cell.run(&[], &["env"]);
    assert_eq!(text(&output.stdout), "PATH=/usr/sbin:/usr/bin:/sbin:/bin\n");
    let output = cell.run(&[], &["sh", "-c", "tr '\\0' '|' < /proc/$$/cmdline; true", "", "a b", "-x"]);
    assert_eq!(text(&output.stdout), "sh|-c|tr '\\0' '|' < /proc/$$/cmdline; true||a b|-x|");
}

#[test]
fn failures_have_the_exit_codes_of_env_and_name_the_culprit() {
    let Some(cell) = Cell::new() else { return };
    cell.write("srv/plain", "text");
    cell.write("srv/garbage", "\u{7f}garbage");
    cell.write("srv/script", "#!/no/such/interpreter\n");
    for name in ["garbage", "script"] {
        mode(&cell.tree().join("srv").join(name), 0o755);
    }
    for (options, command, code, said) in [
        (&[][..], "nope", 127, "error: failed to execute `nope`: it is not in the jail\nhint: give the path that"),
        (&[], "/srv/plain/x", 127, "error: failed to execute `/srv/plain/x`: it is not in the jail\n"),
        (&[], "/srv/script", 127, "`/srv/script`: it is in the jail, but its interpreter is not\n"),
        (&[], "/srv/plain", 126, "`/srv/plain`\n  caused by: Permission denied (os error 13)\n"),
        (&[], "/srv/garbage", 126, "hint: it is neither a program for this machine nor a script"),
        (&[], "/etc", 126, "error: failed to execute `/etc`\n"),
        (&["--cwd", "/gone"], "true", 125, "error: failed to enter the working directory `/gone`\n"),
    ] {
        let output = cell.run(options, &[command]);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{command}: {stderr}");
        assert!(stderr.contains(said), "{stderr}");
    }
    assert_eq!(text(&cell.run(&[], &[]).stderr), "error: the command is empty\n");
}

#[test]
fn what_cannot_be_a_tree_is_refused() {
    let Some(cell) = Cell::new() else { return };
    for (tree, said) in [
        ("/", "error: failed to take `/` for the tree of a jail: it is the host's own root\n"),
        ("/no/such", "error: failed to open the root directory `/no/such`\n  caused by: No such file or directory"),
        ("/etc/passwd", "error: failed to open the root directory `/etc/passwd`\n  caused by: Not a directory"),
    ] {
        let output = Command::new(cell.directory.path().join("jail")).args([tree, "/bin/true"]).output().unwrap();
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(125));
        assert!(stderr.starts_with(said), "{stderr}");
    }
    symlink("/etc", cell.tree().join("proc")).unwrap();
    let stderr = text(&cell.run(&[], &["true"]).stderr);
    assert_eq!(stderr, "error: failed to mount at `/proc`, which is in the tree but is not a directory\n");
}

#[test]
fn writes_do_not_reach_the_tree() {
    let Some(cell) = Cell::new() else { return };
    fs_err::create_dir_all(cell.tree().join("srv/old/deep")).unwrap();
    let before = cell.state();
    let script = "echo changed > /etc/motd; rm /bin/wc; echo new > /new; chmod 700 /srv; mv /etc/motd /srv/moved
        rmdir /srv/old/deep; touch /srv/old/file; ln -s x /srv/link; mkdir /srv/dir
        cat /srv/moved /new; ls /srv/old /etc; test -e /bin/wc; echo $?";
    assert_eq!(cell.says(&[], script), "changed\nnew\n/etc:\nhostname\nhosts\nresolv.conf\n\n/srv/old:\nfile\n1\n");
    assert_eq!(cell.state(), before);
}

#[test]
fn a_directory_that_was_removed_is_made_again() {
    let Some(cell) = Cell::new() else { return };
    if !replaces_directories() {
        return skipped("before Linux 6.6 a jail cannot do that").unwrap_or_default();
    }
    fs_err::create_dir_all(cell.tree().join("srv/old")).unwrap();
    cell.write("srv/old/file", "");
    let before = cell.state();
    let script = "rm -r /srv/old; mkdir /srv/old; touch /srv/old/new; ls /srv/old";
    assert_eq!(cell.says(&[], script), "new\n");
    assert_eq!(cell.state(), before);
}

#[test]
fn devices_work() {
    let Some(cell) = Cell::new() else { return };
    let script = "head -c 3 /dev/zero | wc -c; head -c 5 /dev/urandom | wc -c; echo x > /dev/null
        (echo x > /dev/full) 2>/dev/null || echo full; echo out > /dev/stdout; echo in | cat /dev/stdin
        exec 3<>/dev/ptmx; ls /dev/pts; touch /dev/shm/s; stat -c '%a %F' /dev/shm /tmp /dev/tty
        mount | grep -c '^mqueue'";
    let expected = "3\n5\nfull\nout\nin\n0\nptmx\n1777 directory\n1777 directory\n666 character special file\n1\n";
    assert_eq!(cell.says(&[], script), expected);
}

#[test]
fn nothing_of_the_host_is_seen() {
    let Some(cell) = Cell::new() else { return };
    assert_eq!(
        cell.says(&[], "echo /*; echo /etc/*"),
        "/bin /dev /etc /proc /srv /sys /tmp\n/etc/hostname /etc/hosts /etc/motd /etc/resolv.conf\n"
    );
    assert_eq!(cell.says(&[], "echo /proc/[0-9]*; hostname; cd ..; echo $PWD"), "/proc/1 /proc/2\njail\n/\n");
    // PID 1 is a copy of the caller: its root, files and memory are out of reach, even for the jail's root.
    let script = "for at in root/bin cwd/bin fd/0 exe environ mem; do cat /proc/1/$at 2>&1 | grep -c denied; done";
    assert_eq!(cell.says(&[], script), "1\n".repeat(6));
}

#[test]
fn signals_umask_and_limits_are_the_callers() {
    let Some(cell) = Cell::new() else { return };
    // The last seven digits are signals 1 to 28. Beyond are 32 and 33, with which glibc plays by itself: what it
    // spawns starts with them ignored, and what has called setresuid does not.
    let script = "umask; ulimit -n; grep 'Sig[BI]' /proc/self/status | grep -o '.......$'; (exit 5); exit $?";
    for ignored in ["HUP", "HUP CHLD"] {
        let setup = format!("umask 027; ulimit -n 333; trap '' {ignored}; exec \"$@\"");
        let wrapper = ["bash", "-c", &setup, "bash"];
        let inside = cell.command(&wrapper, &[], &["sh", "-c", script]).output().unwrap();
        let outside = Command::new("bash").args(&wrapper[1..]).args([BUSYBOX, "sh", "-c", script]).output().unwrap();
        assert_eq!(inside, outside);
        assert_eq!((inside.status.code(), text(&inside.stdout).lines().next()), (Some(5), Some("0027")));
    }
    assert_eq!(cell.says(&[], "umask 0; mkdir /d; stat -c %a /d /dev /dev/shm"), "777\n755\n1777\n");
}

#[test]
fn a_signal_to_the_group_comes_by_itself_and_from_the_caller() {
    let Some(cell) = Cell::new() else { return };
    // timeout(1) sends to its child, then to its whole group.
    let script = "trap 'echo term' TERM; i=0; while [ $i -lt 40 ]; do sleep 0.02; i=$((i+1)); done";
    let output = cell.command(&["timeout", "0.4"], &[], &["sh", "-c", script]).output().unwrap();
    let terms = text(&output.stdout).lines().filter(|line| *line == "term").count();
    assert!((1..=3).contains(&terms), "{output:?}");
}

#[test]
fn inherited_descriptors_are_closed() {
    let Some(cell) = Cell::new() else { return };
    let wrapper = ["sh", "-c", "exec 3</etc/passwd 8</; exec \"$@\"", "sh"];
    let script = "for fd in 3 4 5 6 7 8 9; do readlink /proc/self/fd/$fd; done; echo end; ls /proc/1/fd";
    for options in [&[][..], &["--no-init"]] {
        let output = cell.command(&wrapper, options, &["sh", "-c", script]).output().unwrap();
        let stdout = text(&output.stdout);
        assert!(stdout.starts_with("end\n0\n1\n2\n"), "{stdout}");
        assert!(!stdout.lines().any(|line| line == "8"), "{stdout}");
    }
}

#[test]
fn the_machine_cannot_be_changed_through_proc() {
    let Some(cell) = Cell::new() else { return };
    // Opening for writing is enough to tell, and harmless should it succeed.
    let script = "for at in sys/kernel/core_pattern sys/vm/drop_caches sysrq-trigger; do
        test -e /proc/$at && (: >> /proc/$at) 2>/dev/null && echo open; done
        mount -o remount,rw /proc/sys 2>/dev/null || echo refused";
    assert_eq!(cell.says(&[], script), "refused\n");
}

#[test]
fn a_private_network_is_a_loopback_that_is_up() {
    let Some(cell) = Cell::new() else { return };
    let interfaces = cell.says(&[], "ip -o link");
    assert_eq!(interfaces.lines().count(), 1, "{interfaces}");
    assert!(interfaces.contains("lo: <LOOPBACK,UP,LOWER_UP>"), "{interfaces}");
    let script = "(echo over tcp | nc -l -p 80) & sleep 0.3; nc localhost 80 < /dev/null";
    assert_eq!(cell.says(&[], script), "over tcp\n");
}

#[test]
fn a_host_network_is_the_hosts() {
    let Some(cell) = Cell::new() else { return };
    symlink("../run/resolve/stub.conf", cell.tree().join("etc/resolv.conf")).unwrap();
    let before = cell.state();
    let inside = cell.says(&["--host-network"], "readlink /proc/self/ns/net");
    assert_eq!(Path::new(inside.trim_end()), fs_err::read_link("/proc/self/ns/net").unwrap());
    match fs_err::read_to_string("/etc/resolv.conf") {
        Ok(host) => assert_eq!(cell.says(&["--host-network"], "cat /etc/resolv.conf"), host),
        Err(error) => drop(skipped::<()>(&error.to_string())),
    }
    assert_eq!(cell.state(), before);
}

#[test]
fn the_trees_tmp_stays_if_it_has_files() {
    let Some(cell) = Cell::new() else { return };
    assert_eq!(cell.says(&[], "mount | grep -c ' /tmp '"), "1\n");
    cell.write("tmp/socket-map", "kept");
    assert_eq!(
        cell.says(&[], "cat /tmp/*; touch /tmp/new; ls /tmp; mount | grep -c ' /tmp ' || true"),
        "keptnew\nsocket-map\n0\n"
    );
}

/// No engine makes a `/tmp`, or opens one to everybody: a program that wants one fails there, and so it does in a jail.
#[test]
fn no_other_tmp_is_made_than_the_trees() {
    let Some(cell) = Cell::new() else { return };
    mode(&cell.tree().join("tmp"), 0o750);
    assert_eq!(cell.says(&[], "stat -c '%a %u' /tmp; touch /tmp/new; ls /tmp"), "750 0\nnew\n");
    fs_err::remove_dir(cell.tree().join("tmp")).unwrap();
    assert_eq!(
        cell.says(&[], "touch /tmp/new 2>/dev/null || echo none; ls -d /tmp 2>/dev/null || echo none"),
        "none\nnone\n"
    );
}

#[test]
fn a_tree_may_have_any_name() {
    let Some(cell) = Cell::new() else { return };
    for name in ["comma,colon:back\\slash", "new\nline \"quote\"", "lowerdir=x,upperdir=y", "Ümläut"] {
        let other = cell.directory.path().join(name);
        fs_err::rename(cell.tree(), &other).unwrap();
        let mut command = Command::new(cell.directory.path().join("jail"));
        let output = command.arg(&other).args(["/bin/cat", "/etc/motd"]).output().unwrap();
        assert_eq!(text(&output.stdout), "hello\n", "{output:?}");
        fs_err::rename(other, cell.tree()).unwrap();
    }
}

#[test]
fn orphans_are_reaped_and_die_with_the_program() {
    let Some(cell) = Cell::new() else { return };
    let script = "(sh -c 'sleep 0.1; exit 0' &); sleep 0.5; cut -d ' ' -f 3 /proc/[0-9]*/stat | sort | tr -d '\\n'";
    let states = cell.says(&[], script);
    assert!(!states.contains('Z'), "{states}");
    assert_eq!(cell.says(&[], "(sleep 98765.25 &); echo started"), "started\n");
    assert_eq!(processes("98765.25"), 0);
}

#[test]
fn the_jail_dies_with_its_caller() {
    let Some(cell) = Cell::new() else { return };
    let (mut child, _lines) = ready(&mut cell.command(&[], &[], &["sh", "-c", "echo ready; sleep 98765.5; true"]));
    assert!(processes("98765.5") > 0);
    send(&child, nix::sys::signal::Signal::SIGKILL);
    child.wait().unwrap();
    until("all of the jail is gone", || processes("98765.5") == 0);
}

#[test]
fn signals_reach_the_program() {
    use nix::sys::signal::Signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
    let Some(cell) = Cell::new() else { return };
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH] {
        let name = &signal.as_str()[3..];
        let script = format!("trap 'echo {name}; exit 3' {name}; echo ready; while :; do sleep 0.02; done");
        let (mut child, mut lines) = ready(&mut cell.command(&[], &[], &["sh", "-c", &script]));
        send(&child, signal);
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert_eq!((line.trim_end(), child.wait().unwrap().code()), (name, Some(3)));
    }
    let (mut child, _lines) = ready(&mut cell.command(&[], &[], &["sh", "-c", "echo ready; sleep 100; true"]));
    send(&child, SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
}

#[test]
fn a_thousand_runs_leave_nothing() {
    let Some(cell) = Cell::new() else { return };
    for number in 0..1000 {
        let output = cell.run(&[], &["sh", "-c", "exit 3"]);
        assert_eq!(output.status.code(), Some(3), "run {number}: {output:?}");
    }
    let tree = cell.tree();
    assert_eq!(processes(tree.to_str().unwrap()), 0);
    // Those of other tests come and go meanwhile.
    let mounts = fs_err::read_to_string("/proc/self/mountinfo").unwrap();
    assert_eq!(mounts.lines().filter(|line| line.contains(tree.to_str().unwrap())).count(), 0, "{mounts}");
    // The tree is not in use: a mount left on it in some namespace would not hinder this, one left here would.
    fs_err::rename(&tree, cell.directory.path().join("moved")).unwrap();
}

#[test]
fn as_root_every_user_exists() {
    let (Some(()), Some(cell)) = (root(), Cell::new()) else { return };
    cell.write("srv/theirs", "secret");
    std::os::unix::fs::chown(cell.tree().join("srv/theirs"), Some(1234), Some(5678)).unwrap();
    mode(&cell.tree().join("srv/theirs"), 0o600);
    assert_eq!(
        cell.says(&["--user", "33:34,44,100"], "id -u; id -g; id -G; stat -c %u:%g /srv/theirs"),
        "33\n34\n34 44 100\n1234:5678\n"
    );
    let output = cell.run(&["--user", "33:34"], &["cat", "/srv/theirs"]);
    assert!(text(&output.stderr).contains("Permission denied"));
    assert_eq!(cell.says(&["--user", "1234:0"], "cat /srv/theirs; chmod 644 /srv/theirs"), "secret");
    // The capabilities of a container, not all.
    assert_eq!(cell.says(&[], "grep CapEff /proc/self/status"), "CapEff:\t00000000a80425fb\n");
    assert_eq!(cell.says(&[], "chown 7:8 /etc/motd; stat -c %u:%g /etc/motd"), "7:8\n");
}

#[test]
fn an_ordinary_user_without_ranges_is_one_user() {
    let (Some(()), Some(cell)) = (root(), Cell::new()) else { return };
    if fs_err::read_to_string("/etc/subuid").is_ok_and(|text| text.contains("nobody")) {
        return skipped("nobody has subordinate ids here").unwrap_or(());
    }
    let before = cell.state();
    let script = "id -u; id -g; echo x > /new; stat -c %u:%g /new /srv /tmp/; cat /etc/motd; ip -o link | wc -l";
    for (user, ids) in [("0:0", "0\n0\n0:0"), ("33:34,44", "33\n34\n33:34")] {
        let output = cell.command(NOBODY, &["--user", user], &["sh", "-c", script]).output().unwrap();
        let owner = ids.rsplit('\n').next().unwrap();
        assert_eq!(text(&output.stdout), format!("{ids}\n65534:65534\n{owner}\nhello\n1\n"), "{output:?}");
        assert!(text(&output.stderr).starts_with("note: only the program's own user and group exist"));
        assert_eq!(text(&output.stderr).contains("note: the supplementary groups are not set"), user.contains(','));
    }
    assert_eq!(cell.state(), before);
}

#[test]
fn an_ordinary_user_with_ranges_has_many_users() {
    let (Some(()), Some(cell)) = (root(), Cell::new()) else { return };
    if !Path::new("/usr/bin/newuidmap").exists() {
        return skipped("newuidmap is not installed").unwrap_or(());
    }
    std::os::unix::fs::chown(cell.tree().join("srv"), Some(65534), Some(65534)).unwrap();
    // The ranges are given in a mount namespace of the test's own: the machine's files stay as they are.
    let ranges = cell.directory.path().join("ranges");
    fs_err::write(&ranges, "nobody:200000:65536\n").unwrap();
    let setup =
        "touch /etc/subuid /etc/subgid; mount --bind \"$0\" /etc/subuid; mount --bind \"$0\" /etc/subgid; exec \"$@\"";
    let wrapper = [&["unshare", "-m", "sh", "-c", setup, ranges.to_str().unwrap()], NOBODY].concat();
    let script = "id -u; id -g; id -G; touch /tmp/x; stat -c %u:%g /tmp/x /srv";
    let output = cell.command(&wrapper, &["--user", "33:34,44,70000"], &["sh", "-c", script]).output().unwrap();
    assert_eq!((&*text(&output.stdout), &*text(&output.stderr)), ("33\n34\n34 44 70000\n33:34\n0:0\n", ""));
    let script = "touch /srv/x; chown 12:13 /srv/x; stat -c %u:%g /srv/x; id -u";
    let output = cell.command(&wrapper, &[], &["sh", "-c", script]).output().unwrap();
    assert_eq!((&*text(&output.stdout), &*text(&output.stderr)), ("12:13\n0\n", ""));
    assert!(!cell.tree().join("srv/x").exists());
}

/// `/dev/stdout` is opened anew, by whoever the program is.
#[test]
fn every_user_opens_the_streams_that_are_pipes() {
    let (Some(()), Some(cell)) = (root(), Cell::new()) else { return };
    let script = "cat /dev/stdin > /dev/stdout; echo error > /dev/stderr; stat -L -c %F /dev/stdin";
    let mut command = cell.command(&[], &["--user", "33:34"], &["sh", "-c", script]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"in\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((&*text(&output.stdout), &*text(&output.stderr)), ("in\nfifo\n", "error\n"));
    // What has a name is its owner's.
    let file = cell.directory.path().join("out");
    let mut command = cell.command(&[], &["--user", "33:34"], &["sh", "-c", "echo out > /dev/stdout"]);
    let output = command.stdout(fs_err::File::create(&file).unwrap().into_file()).output().unwrap();
    assert!(text(&output.stderr).contains("Permission denied"), "{output:?}");
    assert_eq!((fs_err::metadata(&file).unwrap().mode() & 0o777, fs_err::read(&file).unwrap()), (0o644, Vec::new()));
}

#[test]
fn a_jail_can_be_made_in_a_user_namespace() {
    let Some(cell) = Cell::new() else { return };
    let output = cell.command(&["unshare", "-Ur"], &[], &["id", "-u"]).output().unwrap();
    assert_eq!((&*text(&output.stdout), &*text(&output.stderr)), ("0\n", ""));
    let output = cell.command(&["unshare", "-Ur"], &["--user", "33:5"], &["id", "-u"]).output().unwrap();
    assert_eq!(text(&output.stdout), "33\n", "{output:?}");
}

#[test]
fn a_limit_on_namespaces_is_named() {
    let Some(cell) = Cell::new() else { return };
    let wrapper = ["unshare", "-Ur", "sh", "-c", "echo 0 > /proc/sys/user/max_user_namespaces; exec \"$@\"", "sh"];
    let output = cell.command(&wrapper, &[], &["true"]).output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125));
    assert!(stderr.starts_with("error: failed to create the namespaces of the jail\n"), "{stderr}");
    assert!(
        stderr.contains("hint: no more user namespaces may be created; as root raise `sysctl user.max"),
        "{stderr}"
    );
}

#[test]
fn without_an_init_the_program_is_pid_1() {
    let Some(cell) = Cell::new() else { return };
    assert_eq!(cell.says(&["--no-init", "--cwd", "/srv"], "echo $$ $PWD"), "1 /srv\n");
    assert_eq!(cell.run(&["--no-init"], &["sh", "-c", "exit 9"]).status.code(), Some(9));
}

#[test]
fn a_process_with_threads_is_refused() {
    let jail = Jail {
        base: Base { tree: "/".into(), ..Base::default() },
        cwd: JailPath::root(),
        user: User::default(),
        network: Network::Private,
        hostname: String::new(),
    };
    let program = Program { argv: vec!["true".into()], env: Vec::new() };
    let thread = std::thread::spawn(move || run(&jail, &program, None));
    assert!(matches!(thread.join().unwrap(), Err(JailError::Threads(2..))));
}
