//! Where one might think that a trace is not enough, and it is: each program here does in the jail what it did, without a
//! rule for its kind. `docs/rules.md` says the same in words.

mod support;

use support::program::{Program, in_the_jail};
use support::{TestContext, has, limited, needs_root, outcome_of, text};

fn prove(needs: &[&str], program: &Program<'_>) {
    if has(needs) {
        program.prove_in_the_jail(&TestContext::new());
    }
}

/// Metadata of packages is listed and read where it is asked for, one's own and all of them.
#[test]
fn python_finds_the_metadata_of_packages() {
    let script = r#"
import sys; sys.path.insert(0, "site")
from importlib import metadata, resources
import plain, spaced.inside
print(metadata.version("plain"), metadata.metadata("plain")["Summary"])
print([point.load()() for point in metadata.entry_points(group="greetings")])
print(sorted(found.metadata["Name"] for found in metadata.distributions(path=["site"])))
print(resources.files("plain").joinpath("data.txt").read_text(), spaced.inside.__name__)
"#;
    let info = "Metadata-Version: 2.1\nName: plain\nVersion: 1.2\nSummary: plainly\n";
    let other = "Metadata-Version: 2.1\nName: other\nVersion: 0.1\n";
    prove(
        &["python3"],
        &Program {
            argv: &["/usr/bin/python3", "-I", "main.py"],
            inputs: &[
                ("main.py", script),
                ("site/plain/__init__.py", "def greet(): return 'hello'\n"),
                ("site/plain/data.txt", "data"),
                ("site/plain-1.2.dist-info/METADATA", info),
                ("site/plain-1.2.dist-info/entry_points.txt", "[greetings]\nfirst = plain:greet\n"),
                ("site/other-0.1.dist-info/METADATA", other),
                ("site/other-0.1.dist-info/RECORD", "never read\n"),
                ("site/spaced/inside.py", ""),
            ],
            says: "1.2 plainly\n['hello']\n['other', 'plain']\ndata spaced.inside\n",
            ..Program::default()
        },
    );
}

/// Modules in an archive, and compiled ones without their source.
#[test]
fn python_imports_from_archives_and_from_compiled_files() {
    let script = "set -e
/usr/bin/python3 -I -c 'import zipfile; zipfile.ZipFile(\"all.zip\", \"w\").writestr(\"zipped.py\", \"word = 41\")'
/usr/bin/python3 -I -c 'import py_compile; py_compile.compile(\"alone.py\", \"lib/alone.pyc\")'
rm alone.py
PYTHONPATH=all.zip:lib /usr/bin/python3 -c 'import zipped, alone; print(zipped.word + alone.one)'
";
    prove(
        &["python3"],
        &Program {
            argv: &["sh", "import.sh"],
            inputs: &[("import.sh", script), ("alone.py", "one = 1\n"), ("lib/note", "")],
            says: "42\n",
            ..Program::default()
        },
    );
}

/// Which file a name means, Node reads in the package.json of each directory on the way.
#[test]
fn node_reads_what_packages_export() {
    let main = "import greet from 'greeting'; import { createRequire } from 'node:module';\n\
                import own from '#own'; import data from 'greeting/data';\n\
                console.log(greet(), own, data, createRequire(import.meta.url)('old').name);\n";
    let exports = r#"{ "name": "greeting", "type": "module",
        "exports": { ".": { "import": "./m.js", "require": "./c.cjs" }, "./data": "./lib/data.mjs" } }"#;
    prove(
        &["node"],
        &Program {
            argv: &["node", "app/main.js"],
            inputs: &[
                ("app/package.json", r##"{ "type": "module", "imports": { "#own": "./own.js" } }"##),
                ("app/main.js", main),
                ("app/own.js", "export default 'own';\n"),
                ("node_modules/greeting/package.json", exports),
                ("node_modules/greeting/m.js", "export default () => 'hello';\n"),
                ("node_modules/greeting/c.cjs", "module.exports = () => 'never';\n"),
                ("node_modules/greeting/lib/data.mjs", "export default 7;\n"),
                ("node_modules/old/package.json", r#"{ "name": "old", "main": "./lib" }"#),
                ("node_modules/old/lib/index.js", "exports.name = require('../package.json').name;\n"),
            ],
            says: "hello own 7 old\n",
            ..Program::default()
        },
    );
}

/// Tables of Unicode and functions in files of their own are read when they are first used.
#[test]
fn perl_loads_tables_and_functions_as_it_comes_to_them() {
    let script = r#"
use strict; use warnings; use utf8; use lib "lib"; use charnames (); use Split; use feature "fc";
print "ほ" =~ /\p{Script=Hiragana}/ ? "kana" : "?", " ", charnames::viacode(0xe9), " ", fc("STRASSE") eq fc("straße") ? "same" : "?";
print " ", Split::later(), "\n";
"#;
    let module = "package Split; use AutoLoader 'AUTOLOAD'; 1;\n";
    prove(
        &["perl"],
        &Program {
            argv: &["perl", "main.pl"],
            inputs: &[
                ("main.pl", script),
                ("lib/Split.pm", module),
                ("lib/auto/Split/autosplit.ix", "package Split; sub later; 1;\n"),
                ("lib/auto/Split/later.al", "package Split; sub later { 'later' } 1;\n"),
            ],
            says: "kana LATIN SMALL LETTER E WITH ACUTE same later\n",
            ..Program::default()
        },
    );
}

#[test]
fn ruby_finds_gems_by_their_specifications() {
    let script = r#"
puts Gem::Specification.find_by_name("hello").version, Gem::Specification.map(&:name).include?("other")
gem "hello"; require "hello"
puts Hello::WORD, Gem.loaded_specs.key?("hello")
"#;
    let spec = |name: &str| {
        format!(
            "Gem::Specification.new {{ |s| s.name = '{name}'; s.version = '1.0'; s.summary = 'x'; s.authors = ['x'] }}\n"
        )
    };
    let context = TestContext::new();
    if !has(&["ruby"]) {
        return;
    }
    Program {
        argv: &["ruby", "main.rb"],
        inputs: &[
            ("main.rb", script),
            ("gems/specifications/hello-1.0.gemspec", &spec("hello")),
            ("gems/specifications/other-1.0.gemspec", &spec("other")),
            ("gems/gems/hello-1.0/lib/hello.rb", "module Hello; WORD = 'hello'; end\n"),
        ],
        environment: &[("GEM_PATH", &context.work().join("gems").display().to_string())],
        says: "1.0\ntrue\nhello\ntrue\n",
        ..Program::default()
    }
    .prove_in_the_jail(&context);
}

/// A module may need another one's library, and `//TRANSLIT` the locale's tables.
#[test]
fn iconv_with_character_sets_of_every_make() {
    let script = "set -e
for set in EUC-JP ISO-2022-JP-3 ISO-2022-CN-EXT SHIFT_JISX0213 BIG5-HKSCS GB18030 IBM1390 EUC-KR UTF-7 UTF-16 ISO-8859-15 CP1252; do
    printf 'note 12' | iconv -f UTF-8 -t $set | iconv -f $set -t UTF-8; printf ' %s\\n' $set
done
printf 'grüße €\\n' | iconv -f UTF-8 -t ASCII//TRANSLIT
";
    prove(
        &["iconv"],
        &Program {
            argv: &["sh", "sets.sh"],
            inputs: &[("sets.sh", script)],
            says: "note 12 IBM1390\n",
            ..Program::default()
        },
    );
}

/// An authority is found in the directory by the hash of its name, through two links.
#[test]
fn openssl_finds_an_authority_by_its_hash() {
    let root = "/usr/share/ca-certificates/mozilla/ISRG_Root_X1.crt";
    if !has(&["openssl", root]) {
        return;
    }
    let certificate = fs_err::read_to_string(root).expect("everybody may read it");
    Program {
        argv: &["openssl", "verify", "-no-CAfile", "-no-CAstore", "-CApath", "/etc/ssl/certs", "one.crt"],
        inputs: &[("one.crt", &certificate)],
        says: "one.crt: OK\n",
        ..Program::default()
    }
    .prove_in_the_jail(&TestContext::new());
}

/// A locale from `locale-archive`; one from a directory is in `programs.rs`.
#[test]
fn a_locale_of_the_archive() {
    if !needs_root("a mount over /usr/lib/locale") || !has(&["localedef", "unshare"]) {
        return;
    }
    let context = TestContext::new();
    let made = context.text("made");
    fs_err::create_dir_all(format!("{made}/usr/lib/locale")).expect("the directory can be written");
    let arguments = ["--prefix", &made, "-i", "de_DE", "-f", "UTF-8", "de_DE.UTF-8"];
    outcome_of(limited("localedef").args(arguments)).success();
    let archive = context.path("made/usr/lib/locale/locale-archive");
    assert!(archive.is_file(), "localedef puts it there");
    let image = format!("oci:{}", context.text("image"));
    let script = format!(
        "mount --bind {made}/usr/lib/locale /usr/lib/locale && \
         exec {} trace -q -o {image} --env LC_ALL=de_DE.UTF-8 -- date -u -d @0 '+%A, %-d. %B'",
        support::minjail()
    );
    let traced = outcome_of(context.command("unshare").args(["-m", "sh", "-c", &script])).success();
    assert_eq!(traced.text(), "Donnerstag, 1. Januar\n", "{traced}");
    in_the_jail(&context, &image).assert_same_as(&traced);
}

/// A namespace that a mount keeps, as those of networks below `/run/netns`, is a file by its looks, and of no image.
#[test]
fn a_namespace_that_a_mount_keeps() {
    if !needs_root("a mount") || !has(&["unshare"]) {
        return;
    }
    let context = TestContext::new();
    let (tree, trace) = (context.text("tree"), context.text("x.trace"));
    let script = format!(
        "touch kept && unshare --net=kept true && \
         exec {} trace -q -t {trace} -o rootfs:{tree} -- sh -c 'stat -c %s kept && : < kept && nsenter --net=kept echo entered'",
        support::minjail()
    );
    let mut command = context.command("unshare");
    // A mount keeps it, which must be no other mount's peer.
    let traced = outcome_of(command.args(["-m", "sh", "-c", &script])).success();
    assert_eq!(traced.text(), "0\nentered\n", "{traced}");
    let kept = text(&context.work().join("kept"));
    assert!(!context.path("tree").join(&kept[1..]).exists());
    let why_not = context.outcome(&["why-not", &trace, &kept]);
    assert!(why_not.text().contains("found a namespace there, which is no file"), "{why_not}");
}

/// A chroot has a `/proc` of its own: what lies there has no content from before, and reading it may fail or never end.
#[test]
fn what_the_kernel_makes_up_at_another_place() {
    if !needs_root("a mount") || !has(&["unshare"]) {
        return;
    }
    let program = "cat version sys/kernel/ostype; ls .. . self/task > /dev/null; readlink self > /dev/null
        exec 3< self/mem 4< self/pagemap 5<> self/mem; cat self/attr/fscreate; echo 5 > self/clear_refs
        mkdir ../group/made.$$ && echo 1 > ../group/made.$$/cgroup.kill && rmdir ../group/made.$$; echo survived";
    let context = TestContext::new();
    // Where the content of what is read is kept, and where it is not.
    let cases = [("kept", "/var/tmp/root".to_owned()), ("not", text(&context.work().join("root")))];
    for (name, place) in cases {
        let (tree, trace) = (context.text(name), context.text(&format!("{name}.trace")));
        let script = format!(
            "mount -t tmpfs none /var/tmp && mkdir -p {place}/proc {place}/group && \
             mount -t proc none {place}/proc && mount -t cgroup2 none {place}/group && \
             exec {} trace -t {trace} -o rootfs:{tree} -- sh -c 'cd {place}/proc; {program}'",
            support::minjail()
        );
        let traced = outcome_of(context.command("unshare").args(["-m", "sh", "-c", &script])).success();
        assert!(traced.text().starts_with("Linux version"), "{traced}");
        assert!(traced.text().ends_with("\nsurvived\n"), "{traced}");
        for point in [format!("{place}/proc"), format!("{place}/group")] {
            let told = format!("what the kernel makes up at {point} is not packed; something must mount it there");
            assert_eq!(traced.stderr.matches(&told).count(), 1, "{traced}");
            assert_eq!(support::names_in(&context.path(name).join(&point[1..])), [""; 0], "{traced}");
        }
        let mut why_not = context.minjail(&["why-not", &trace, &format!("{place}/proc/version")]);
        let why_not = outcome_of(&mut why_not);
        assert!(why_not.text().contains("found there what the kernel makes up"), "{why_not}");
        if name == "kept" {
            // Nothing is there any more.
            continue;
        }
        let is_empty = |tree: &str| support::names_in(&context.path(tree).join(&place[1..]).join("proc")).is_empty();
        // It is mounted no longer.
        let built = context.outcome(&["build", "-t", &trace, "-o", &format!("rootfs:{tree}-later")]);
        assert!(built.clone().success().stderr.contains("what the kernel makes up at"), "{built}");
        assert!(is_empty("not-later"), "{built}");
        let include = format!(
            "mount -t proc none {place}/proc && \
             exec {} build -q -t {trace} --include {place} -o rootfs:{tree}-included",
            support::minjail()
        );
        let included = outcome_of(context.command("unshare").args(["-m", "sh", "-c", &include])).success();
        assert!(is_empty("not-included"), "{included}");
    }
}

/// A hole has zeros without end, which say nothing that the program would have to wait for.
#[test]
fn a_large_hole_that_is_removed() {
    let context = TestContext::new();
    let script = "truncate -s 2G hole && printf end >> hole && exec \"$0\" \"$@\"";
    let program = "date +%s%N; rm hole; date +%s%N";
    let trace = context.text("x.trace");
    let mut command = context.command("sh");
    command.args(["-c", script, support::minjail(), "trace", "-q", "-t", &trace, "--", "sh", "-c", program]);
    let traced = outcome_of(&mut command).success();
    let times: Vec<u64> = traced.text().lines().map(|line| line.parse().expect("it is a number")).collect();
    assert!(times[1] - times[0] < 1_500_000_000, "{traced}");
    let records = fs_err::read_to_string(context.path("x.trace/trace.jsonl")).expect("it was written");
    let kept = support::names_in(&context.path("x.trace/before"));
    assert_eq!((kept.len(), kept[0].len()), (1, 64), "{kept:?}");
    assert!(records.contains(&format!(r#""before":"{}""#, kept[0])) && !records.contains("pending"), "{records}");
}

/// Where the caller's output goes is no file of the program's, by whatever name it opens it; what it has open itself is.
#[test]
fn what_is_open_already() {
    let context = TestContext::new();
    context.lay_out(&[("input", "of the caller\n"), ("own", "of the program\n")]);
    let work = context.work();
    let (tree, trace) = (context.text("tree"), context.text("x.trace"));
    let program = "cat /dev/stdin /proc/self/fd/0 > /dev/stdout; exec 3< own; cat /dev/fd/3; cat < own";
    let script = format!(
        "{} trace -t {trace} -o rootfs:{tree} -- sh -c '{program}' < input > output && cat output >&2",
        support::minjail()
    );
    let traced = outcome_of(context.command("sh").args(["-c", &script])).success();
    let packed = |name: &str| context.path("tree").join(&text(&work.join(name))[1..]).exists();
    assert_eq!([packed("own"), packed("input"), packed("output")], [true, false, false], "{traced}");
    let given = format!("{} was given to the program at a descriptor", text(&work.join("output")));
    assert!(traced.stderr.contains(&given), "{traced}");
}
