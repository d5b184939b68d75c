//! The rules by which an image gets what no run touched: each shown by a program that fails without it.
//!
//! A *need* is what the traced run itself misses in the jail, a *trait* what the next run misses.

mod support;

use support::traced::Traced;
use support::{TestContext, has, limited, needs_root, outcome_of};

/// Another run of the traced program, which `switch` makes work.
struct Unseen<'a> {
    traced: &'a str,
    then: &'a str,
    /// What `then` says if it works.
    says: &'a str,
    rule: &'a str,
    /// Something that the rule adds.
    adds: &'a str,
}

impl Unseen<'_> {
    #[track_caller]
    fn prove(&self) {
        self.prove_from(&Traced::new(self.traced, |_| {}), &[]);
    }

    #[track_caller]
    fn prove_from(&self, traced: &Traced, arguments: &[&str]) {
        let run = |name: &str| {
            let tree = format!("rootfs:{}", traced.context.text(name));
            traced.context.outcome(&["run", &tree, "--", "sh", "-c", self.then])
        };
        traced.build("without", arguments);
        let without = run("without");
        assert!(!without.text().contains(self.says), "it works without the rule\n{without}");
        traced.build("with", &[arguments, &["--rule", &format!("{}=on", self.rule)]].concat());
        let with = run("with");
        assert!(with.text().contains(self.says), "it does not work with the rule\n{with}");
        let lock = traced.context.text("with.lock");
        let why = traced.context.outcome(&["why", &lock, self.adds]).success();
        assert!(why.text().contains(&format!("rule {}, for /", self.rule)), "{why}");
    }
}

#[test]
fn another_time_zone() {
    Unseen {
        traced: "TZ=Asia/Tokyo date -d @0 +%T",
        then: "TZ=Europe/Berlin date -d @0 +%T",
        says: "01:00:00",
        rule: "tz-all",
        adds: "/usr/share/zoneinfo/Europe/Berlin",
    }
    .prove();
}

#[test]
fn another_character_set() {
    Unseen {
        traced: "echo note | iconv -f UTF-8 -t EUC-JP",
        then: "echo note | iconv -f UTF-8 -t SHIFT_JIS",
        says: "note",
        rule: "gconv-all",
        adds: "/usr/lib/x86_64-linux-gnu/gconv/SJIS.so",
    }
    .prove();
}

#[test]
fn another_terminal() {
    if !has(&["tput"]) {
        return;
    }
    Unseen {
        traced: "tput -T xterm-256color colors",
        then: "tput -T vt100 cols",
        says: "80",
        rule: "terminfo-all",
        adds: "/usr/lib/terminfo/v/vt100",
    }
    .prove();
}

#[test]
fn another_certificate() {
    let directory = "/usr/share/ca-certificates/mozilla";
    let (one, other) = (format!("{directory}/ISRG_Root_X1.crt"), format!("{directory}/ISRG_Root_X2.crt"));
    if !has(&["openssl", &one, &other]) {
        return;
    }
    let verify = |path: &str| format!("openssl verify -no-CAfile -no-CAstore -CApath /etc/ssl/certs {path}");
    let unseen = Unseen {
        traced: "",
        then: &verify("two.crt"),
        says: "two.crt: OK",
        rule: "ca-all",
        adds: "/etc/ssl/certs/ISRG_Root_X2.pem",
    };
    let script = format!("cat two.crt > seen; {}", verify("one.crt"));
    let traced = Traced::new(&script, |work| {
        fs_err::copy(&one, work.join("one.crt")).expect("the directory can be written");
        fs_err::copy(&other, work.join("two.crt")).expect("the directory can be written");
    });
    unseen.prove_from(&traced, &[]);
}

#[test]
fn other_modules_of_python() {
    Unseen {
        traced: "/usr/bin/python3 -I -c 'import json'",
        then: "/usr/bin/python3 -I -c 'import csv, decimal, sqlite3; print(csv.QUOTE_ALL + 41)'",
        says: "42",
        rule: "python-modules",
        adds: "/usr/lib/python3.11/csv.py",
    }
    .prove();
}

/// What no account file has, the next service of `/etc/nsswitch.conf` may know: systemd's knows `nobody` by heart.
#[test]
fn another_name_service() {
    let module = "/usr/lib/x86_64-linux-gnu/libnss_systemd.so.2";
    if !needs_root("a mount over /etc/nsswitch.conf") || !has(&["unshare", module]) {
        return;
    }
    let context = TestContext::new();
    fs_err::write(context.path("nsswitch.conf"), "passwd: files systemd\n").expect("the directory can be written");
    let run = |name: &str, arguments: &[&str]| {
        let tree = format!("rootfs:{}", context.text(name));
        // The machine's own file stays as it is for everybody else.
        let script = format!(
            "mount --bind {} /etc/nsswitch.conf && exec {} trace -q -t {} -o {tree} --accounts used {} -- sh -c 'getent passwd root'",
            context.text("nsswitch.conf"),
            support::minjail(),
            context.text(&format!("{name}.trace")),
            arguments.join(" "),
        );
        outcome_of(context.command("unshare").args(["-m", "sh", "-c", &script])).success();
        context.outcome(&["run", &tree, "--", "getent", "passwd", "nobody"])
    };
    let without = run("without", &[]);
    assert_eq!((without.status, without.text().as_str()), (2, ""), "{without}");
    let with = run("with", &["--rule", "nss-services=on"]);
    assert!(with.status == 0 && with.text().starts_with("nobody:"), "{with}");
    let why = context.outcome(&["why", &context.text("with.lock"), module]).success();
    assert!(why.text().contains("rule nss-services, for /etc/nsswitch.conf"), "{why}");
}

#[test]
fn python_needs_the_sources_that_it_only_looks_at() {
    let program = "import json, email.message; print(json.dumps([6 * 7]))";
    let context = TestContext::new();
    for choice in ["omit", "hollow"] {
        for switch in ["on", "off"] {
            let image = format!("oci:{}", context.text(&format!("{choice}-{switch}")));
            let switched = format!("python-source={switch}");
            let arguments = ["trace", "-q", "--force", "--stat-only", choice, "--rule", &switched, "-o", &image];
            let mut trace = context.minjail(&arguments);
            let traced = outcome_of(trace.args(["--", "/usr/bin/python3", "-I", "-c", program])).success();
            assert_eq!(traced.text(), "[42]\n", "{traced}");
            let ran = context.outcome(&["run", &image]);
            // Hollow sources have the size and the time that the compiled ones name.
            let works = switch == "on" || choice == "hollow";
            assert_eq!(ran.text() == "[42]\n", works, "{choice}, {switched}\n{ran}");
        }
    }
    let lock = context.text("omit-on.lock");
    let why = context.outcome(&["why", &lock, "/usr/lib/python3.11/json/decoder.py"]).success();
    assert!(why.text().contains("rule python-source, for /usr/lib/python3.11/json/__pycache__/decoder."), "{why}");
}

/// A processor that knows less takes the plain library, which this one did not touch.
#[test]
fn the_library_for_every_processor() {
    if !has(&["gcc"]) {
        return;
    }
    let traced = Traced::with(&["--env", "LD_LIBRARY_PATH=libs"], "./main", |work| {
        let variant = work.join("libs/glibc-hwcaps/x86-64-v2");
        fs_err::create_dir_all(&variant).expect("the directory can be written");
        fs_err::write(work.join("main.c"), "int answer(void); int main(void) { return answer() - 42; }\n")
            .expect("the directory can be written");
        fs_err::write(work.join("answer.c"), "int answer(void) { return 42; }\n").expect("it can be written");
        // The plain one needs what the other does without.
        let script = "gcc -shared -fPIC -o libs/glibc-hwcaps/x86-64-v2/libanswer.so answer.c \
                      && gcc -shared -fPIC -o libs/libplain.so answer.c \
                      && gcc -shared -fPIC -o libs/libanswer.so -Wl,--no-as-needed answer.c -Llibs -lplain \
                      && gcc -o main main.c -Llibs -lanswer -Wl,-rpath-link,libs";
        outcome_of(limited("sh").args(["-c", script]).current_dir(work)).success();
    });
    let run = |name: &str| {
        let tree = format!("rootfs:{}", traced.context.text(name));
        let mut run = traced.context.minjail(&["run", &tree, "--", "/lib64/ld-linux-x86-64.so.2"]);
        outcome_of(run.args(["--glibc-hwcaps-mask", "none", "--library-path", "libs", "./main"]))
    };
    let variant = "libs/glibc-hwcaps/x86-64-v2/libanswer.so";
    if !traced.build("with", &[]).has(variant) {
        return support::skip("this processor is older than x86-64-v2");
    }
    run("with").success();
    traced.build("without", &["--rule", "hwcaps-baseline=off"]);
    let without = run("without");
    assert!(without.status == 127 && without.stderr.contains("libanswer.so"), "{without}");
}

#[test]
fn needs_can_be_switched_off_too() {
    let traced = Traced::new("/usr/bin/python3 -I -c pass", |_| {});
    let all = ["mount-point", "thread-unwinder", "working-directory"];
    let off: Vec<String> = all.iter().map(|rule| format!("{rule}=off")).collect();
    let arguments: Vec<&str> = off.iter().flat_map(|rule| ["--rule", rule]).collect();
    let (with, without) = (traced.build("with", &[]), traced.build("without", &arguments));
    let work = support::text(&traced.context.work());
    for (rule, path) in all.iter().zip(["/sys", "/usr/lib/x86_64-linux-gnu/libgcc_s.so.1", &work]) {
        assert!(with.has(path), "{path} is there by {rule}");
        let why = traced.context.outcome(&["why", &traced.context.text("with.lock"), path]).success();
        assert!(why.text().contains(&format!("rule {rule}, for /")), "{why}");
    }
    assert!(!without.has("/sys") && !without.has("/usr/lib/x86_64-linux-gnu/libgcc_s.so.1"));
}

/// Those that only what a profile says of the image brings.
#[test]
fn needs_of_a_profile_can_be_switched_off_too() {
    if !needs_root("another user") {
        return;
    }
    let context = TestContext::new();
    let profile = context.text("app.yaml");
    let volume = support::text(&context.work());
    let workload = "main: {run: [/bin/cat, /etc/debian_version], cwd: /, user: nobody}";
    let text = format!("workloads: {{{workload}}}\nimage: {{user: nobody, volumes: [{volume}]}}\n");
    fs_err::write(&profile, text).expect("it can be written");
    for (rule, path) in [("image-user", "/etc/passwd"), ("volume", &*volume)] {
        for (switch, is_there) in [("on", true), ("off", false)] {
            let (tree, rule) = (format!("rootfs:{}", context.text("tree")), format!("{rule}={switch}"));
            context.outcome(&["build", "-q", "--force", &profile, "-o", &tree, "--rule", &rule]).success();
            assert_eq!(context.path("tree").join(&path[1..]).exists(), is_there, "{path} by {rule}");
        }
        let why = context.outcome(&["why", &context.text("tree.lock"), path]);
        assert_eq!(why.status, 1, "{why}");
    }
}

#[test]
fn the_lock_says_what_was_switched_and_is_followed() {
    let traced = Traced::new("TZ=Asia/Tokyo date", |_| {});
    let lock = traced.context.path("tree.lock");
    assert!(!traced.build("plain", &[]).has("/usr/share/zoneinfo/Europe"), "traits are off");
    let switches = ["--rule", "tz-all=off", "--rule", "tz-all=on", "--rule", "thread-unwinder=off"];
    traced.build("tree", &switches);
    let text = fs_err::read_to_string(&lock).expect("there is a lock");
    let said = "\"rules\": {\n      \"thread-unwinder\": \"off\",\n      \"tz-all\": \"on\"\n    }";
    assert!(text.contains(said), "the last one counts: {}", &text[..2000.min(text.len())]);
    let again = traced.try_build("again", &["--locked", &support::text(&lock)]).success();
    assert!(traced.context.path("again/usr/share/zoneinfo/Europe/Berlin").exists(), "{again}");
    let refused = traced.try_build("refused", &["--locked", &support::text(&lock), "--rule", "tz-all=off"]);
    assert!(refused.status == 125 && refused.stderr.contains("cannot be used with"), "{refused}");
}

/// The same rules on an image: what it has and its program did not use.
#[test]
fn an_image_made_small_keeps_what_a_rule_keeps() {
    let traced = Traced::new("TZ=Asia/Tokyo date", |_| {});
    traced.build("whole", &["--rule", "tz-all=on"]);
    let whole = format!("rootfs:{}", traced.context.text("whole"));
    for (name, switch, kept) in [("few", "off", false), ("all", "on", true)] {
        let (tree, rule) = (format!("rootfs:{}", traced.context.text(name)), format!("tz-all={switch}"));
        let mut slim = traced.context.minjail(&["slim", "-q", &whole, "-o", &tree, "--rule", &rule, "--"]);
        outcome_of(slim.args(["/usr/bin/sh", "-c", "TZ=Asia/Tokyo date"])).success();
        assert!(traced.context.path(name).join("usr/share/zoneinfo/Asia/Tokyo").exists());
        assert_eq!(traced.context.path(name).join("usr/share/zoneinfo/Europe/Berlin").exists(), kept, "{rule}");
    }
}

#[test]
fn a_profile_switches_and_a_flag_counts_before_it() {
    let context = TestContext::new();
    let profile = context.text("zones.yaml");
    let write = |rules: &str| {
        let workloads = "workloads: {zone: {run: 'TZ=Asia/Tokyo date'}}";
        fs_err::write(&profile, format!("{workloads}\nfiles:\n  rules:\n    {rules}\n")).expect("it can be written");
    };
    let build = |name: &str, arguments: &[&str]| {
        let tree = format!("rootfs:{}", context.text(name));
        let built = outcome_of(context.minjail(&["build", "--quiet", &profile, "-o", &tree]).args(arguments));
        (built, context.path(name).join("usr/share/zoneinfo/Europe/Berlin").exists())
    };
    write("tz-all: on");
    assert_eq!((build("on", &[]).1, build("off", &["--rule", "tz-all=off"]).1), (true, false));
    write("tz-al: on");
    let (unknown, _) = build("unknown", &[]);
    assert_eq!(unknown.status, 125, "{unknown}");
    for word in ["tz-al", "tz-all", "thread-unwinder", "zones.yaml:4:"] {
        assert!(unknown.stderr.contains(word), "the message lacks {word}\n{unknown}");
    }
    let (unknown, _) = build("unknown", &["--rule", "tz=on"]);
    let list = "`tz` is none of `ca-all`, `gconv-all`, ";
    assert!(unknown.status == 125 && unknown.stderr.contains(list), "{unknown}");
    assert!(unknown.stderr.contains(", `working-directory`\n"), "the list does not end with its last word\n{unknown}");
    let (unknown, _) = build("unknown", &["--rule", "tz-all"]);
    assert!(unknown.status == 125 && unknown.stderr.contains("NAME=on"), "{unknown}");
}

#[test]
fn the_page_on_rules_has_every_rule() {
    let context = TestContext::new();
    let table = context.outcome(&["rules", "--table"]).success().text();
    let list = context.outcome(&["rules"]).success().text();
    assert_eq!(table.lines().count(), list.lines().count());
    assert!(list.contains("tz-all             trait  off  All time zones"), "{list}");
    let page = fs_err::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/rules.md")).expect("there is a page");
    assert!(page.contains(&table), "put what `minjail rules --table` prints into docs/rules.md:\n{table}");
}
