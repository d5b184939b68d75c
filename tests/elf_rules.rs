//! The loader's rules, one by one: small libraries made with `cc`, and the real loader as the judge.

#![expect(clippy::unwrap_used, reason = "these are tests")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use minjail::elf::{CacheEntry, Closure, Environment, LdCache, Note, Search, SearchError};
use minjail::path::JailPath;
use minjail::root::Root;

#[path = "support/skip.rs"]
mod skip;

const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// A directory in which things are compiled.
struct Workshop {
    directory: tempfile::TempDir,
}

impl Workshop {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn at(&self, name: &str) -> PathBuf {
        fs_err::canonicalize(self.directory.path()).unwrap().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs_err::create_dir_all(self.at(name).parent().unwrap()).unwrap();
        fs_err::write(self.at(name), text).unwrap();
    }

    fn compile(&self, compiler: &str, output: &str, arguments: &[&str], needs: &[&str]) {
        let output = self.at(output);
        fs_err::create_dir_all(output.parent().unwrap()).unwrap();
        let source = self.at("source.c");
        fs_err::write(&source, "int main(void) { return 0; }\n").unwrap();
        let status = Command::new(compiler)
            .args(["-Wl,--no-as-needed", "-Wl,--allow-shlib-undefined", "-o"])
            .arg(output)
            .arg(source)
            .args(arguments)
            .args(needs.iter().map(|need| self.at(need)))
            .current_dir(self.at(""))
            .status();
        assert!(status.unwrap().success());
    }

    /// A library whose soname is its file name.
    fn library(&self, path: &str, arguments: &[&str], needs: &[&str]) {
        let soname = format!("-Wl,-soname,{}", Path::new(path).file_name().unwrap().display());
        self.compile("cc", path, &[&["-shared", &soname], arguments].concat(), needs);
    }

    fn program(&self, path: &str, arguments: &[&str], needs: &[&str]) {
        self.compile("cc", path, arguments, needs);
    }

    fn environment(&self, library_path: &str, preload: &str) -> Environment {
        Environment {
            library_path: library_path.into(),
            preload: preload.into(),
            directory: JailPath::parse(self.at("").as_os_str().as_encoded_bytes()).unwrap(),
            is_secure: false,
        }
    }

    fn closure(&self, program: &str, environment: &Environment) -> Closure {
        let root = Root::open(Path::new("/")).unwrap();
        let mut search = Search::new(&root).unwrap();
        let path = JailPath::parse(self.at(program).as_os_str().as_encoded_bytes()).unwrap();
        search.closure(&path, environment).unwrap()
    }

    /// What the loader finds below the workshop, and what it misses.
    fn asked(&self, program: &str, environment: &Environment) -> BTreeSet<String> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let mut command = Command::new(LOADER);
        command.arg(self.at(program)).env_clear().env("LD_TRACE_LOADED_OBJECTS", "1").current_dir(self.at(""));
        if !environment.library_path.is_empty() {
            command.env("LD_LIBRARY_PATH", text(&environment.library_path));
        }
        if !environment.preload.is_empty() {
            command.env("LD_PRELOAD", text(&environment.preload));
        }
        let mut found = BTreeSet::new();
        for line in text(&command.output().unwrap().stdout).lines() {
            let (name, target) = line.trim().split_once(" => ").unwrap_or(("", line.trim()));
            let target = target.split(" (0x").next().unwrap();
            if target == "not found" {
                found.insert(format!("no {name}"));
            } else if let Ok(path) = fs_err::canonicalize(self.at(target)) {
                found.extend(path.strip_prefix(self.at("")).map(|path| path.display().to_string()));
            }
        }
        found
    }

    /// What we find below the workshop, and what we miss.
    fn ours(&self, closure: &Closure) -> BTreeSet<String> {
        let missing = closure.missing.iter().map(|missing| format!("no {}", String::from_utf8_lossy(&missing.name)));
        let paths = closure.objects.keys().map(|path| path.below(Path::new("/")));
        let base = self.at("");
        let names = paths.filter_map(|path| path.strip_prefix(&base).map(|path| path.display().to_string()).ok());
        names.chain(missing).collect()
    }

    /// Asserts that we find `expected`, and that the loader finds the same.
    fn check_with(&self, program: &str, environment: &Environment, expected: &[&str]) {
        let ours = self.ours(&self.closure(program, environment));
        assert_eq!(ours, expected.iter().map(ToString::to_string).collect::<BTreeSet<_>>(), "what we find");
        assert_eq!(ours, self.asked(program, environment), "what the loader finds");
    }

    fn check(&self, program: &str, expected: &[&str]) {
        self.check_with(program, &self.environment("", ""), expected);
    }
}

const RPATH: &str = "-Wl,--disable-new-dtags,-rpath,$ORIGIN/lib";
const RUNPATH: &str = "-Wl,--enable-new-dtags,-rpath,$ORIGIN/lib";

#[test]
fn rpath_is_inherited_and_runpath_is_not() {
    let shop = Workshop::new();
    shop.library("lib/libb.so", &[], &[]);
    shop.library("lib/liba.so", &[], &["lib/libb.so"]);
    shop.program("by-rpath", &[RPATH], &["lib/liba.so"]);
    shop.program("by-runpath", &[RUNPATH], &["lib/liba.so"]);
    shop.check("by-rpath", &["lib/liba.so", "lib/libb.so"]);
    shop.check("by-runpath", &["lib/liba.so", "no libb.so"]);
}

#[test]
fn a_runpath_puts_the_rpath_of_the_program_out_of_force() {
    let shop = Workshop::new();
    shop.library("lib/libb.so", &[], &[]);
    shop.library("lib/liba.so", &["-Wl,--enable-new-dtags,-rpath,/nowhere"], &["lib/libb.so"]);
    shop.program("program", &[RPATH], &["lib/liba.so"]);
    shop.check("program", &["lib/liba.so", "no libb.so"]);
}

#[test]
fn the_environment_stands_between_rpath_and_runpath() {
    let shop = Workshop::new();
    shop.library("lib/liba.so", &[], &[]);
    shop.library("other/liba.so", &[], &[]);
    shop.program("by-rpath", &[RPATH], &["lib/liba.so"]);
    shop.program("by-runpath", &[RUNPATH], &["lib/liba.so"]);
    for library_path in ["other", "/nowhere;other/", "$ORIGIN/other", "${ORIGIN}/lib/../other"] {
        let environment = shop.environment(library_path, "");
        shop.check_with("by-rpath", &environment, &["lib/liba.so"]);
        shop.check_with("by-runpath", &environment, &["other/liba.so"]);
    }
}

/// With more rights than whoever starts it, it is not looked for what it needs where these may put something.
#[test]
fn a_program_with_more_rights_is_not_served_from_beside_it() {
    let shop = Workshop::new();
    for place in ["lib", "other", "opt/lib"] {
        shop.library(&format!("{place}/liba.so"), &[], &[]);
    }
    let of = |program: &str| {
        let environment = Environment { is_secure: true, ..shop.environment("other", "lib/liba.so") };
        shop.ours(&shop.closure(program, &environment))
    };
    shop.program("program", &[RUNPATH], &["lib/liba.so"]);
    assert_eq!(of("program"), ["no liba.so".to_owned()].into());
    let absolute = format!("-Wl,-rpath,{}", shop.at("opt/lib").display());
    shop.program("program", &[&absolute], &["lib/liba.so"]);
    assert_eq!(of("program"), ["opt/lib/liba.so".to_owned()].into());
}

#[test]
fn an_empty_part_is_the_working_directory() {
    let shop = Workshop::new();
    shop.library("liba.so", &[], &[]);
    shop.program("bin/plain", &[], &["liba.so"]);
    shop.program("bin/by-rpath", &["-Wl,--disable-new-dtags,-rpath,/nowhere::/none"], &["liba.so"]);
    shop.check("bin/plain", &["no liba.so"]);
    shop.check_with("bin/plain", &shop.environment(":/nowhere", ""), &["liba.so"]);
    shop.check("bin/by-rpath", &["liba.so"]);
}

#[test]
fn tokens_in_paths() {
    let shop = Workshop::new();
    shop.library("p/lib/x86_64-linux-gnu/liba.so", &[], &[]);
    shop.program("program", &["-Wl,-rpath,$ORIGIN/p/${LIB}"], &["p/lib/x86_64-linux-gnu/liba.so"]);
    shop.check("program", &["p/lib/x86_64-linux-gnu/liba.so"]);
}

#[test]
fn what_two_libraries_need_beside_them_is_two_files() {
    let shop = Workshop::new();
    for place in ["one", "other"] {
        shop.compile("cc", &format!("{place}/libbeside.so"), &["-shared", "-Wl,-soname,$ORIGIN/libbeside.so"], &[]);
        shop.library(&format!("{place}/lib{place}.so"), &[], &[&format!("{place}/libbeside.so")]);
    }
    shop.program("program", &["-Wl,-rpath,$ORIGIN/one:$ORIGIN/other"], &["one/libone.so", "other/libother.so"]);
    shop.check("program", &["one/libbeside.so", "one/libone.so", "other/libbeside.so", "other/libother.so"]);
}

#[test]
fn what_is_loaded_answers_to_its_soname() {
    let shop = Workshop::new();
    // Without a soname, what the program needs is the path as it was given to the linker.
    shop.compile("cc", "far/libq.so", &["-shared"], &[]);
    shop.library("lib/libb.so", &[], &[]);
    shop.library("lib/liba.so", &[], &["lib/libb.so"]);
    shop.program("program", &[RUNPATH], &["far/libq.so", "lib/libb.so", "lib/liba.so"]);
    shop.check("program", &["far/libq.so", "lib/liba.so", "lib/libb.so"]);
}

#[test]
fn libraries_of_another_class_are_passed_over() {
    let theirs = "/usr/lib32/libc.so.6";
    if !Path::new(theirs).exists() {
        return skip::skip(&format!("there is no {theirs}"));
    }
    let shop = Workshop::new();
    fs_err::create_dir(shop.at("thirty-two")).unwrap();
    fs_err::copy(theirs, shop.at("thirty-two/liba.so")).unwrap();
    shop.library("lib/liba.so", &[], &[]);
    shop.program("program", &[], &["lib/liba.so"]);
    shop.check_with("program", &shop.environment("thirty-two:lib", ""), &["lib/liba.so"]);
}

#[test]
fn preloaded_libraries() {
    let shop = Workshop::new();
    shop.library("lib/libb.so", &[], &[]);
    shop.library("lib/liba.so", &[], &["lib/libb.so"]);
    shop.program("program", &[RPATH], &[]);
    let environment = shop.environment("", "liba.so lib/none.so");
    shop.check_with("program", &environment, &["lib/liba.so", "lib/libb.so"]);
    let notes = shop.closure("program", &environment).notes;
    assert!(matches!(notes.first(), Some(Note::DoneWithout { name, .. }) if name == b"lib/none.so"), "{notes:?}");
}

/// No judge here: the real loader reads the machine's own file.
#[test]
fn libraries_that_a_root_preloads() {
    let shop = Workshop::new();
    for name in ["one", "two", "three", "four", "asked"] {
        shop.library(&format!("opt/{name}.so"), &[], &[]);
    }
    shop.program("program", &[], &[]);
    let preloaded = "# /opt/four.so\n/opt/one.so:/opt/two.so\n\t/opt/three.so # /opt/four.so\n";
    shop.write("etc/ld.so.preload", preloaded);
    let root = Root::open(&shop.at("")).unwrap();
    let found = |path: &[u8], is_secure: bool| {
        let environment = Environment { preload: "/opt/asked.so".into(), is_secure, ..Environment::default() };
        let closure = Search::new(&root).unwrap().closure(&JailPath::parse(path).unwrap(), &environment).unwrap();
        let mut all: Vec<String> = closure.objects.keys().map(ToString::to_string).collect();
        all.extend(closure.guides.iter().map(|guide| String::from_utf8(guide.clone()).unwrap()));
        all
    };
    let expected = ["/opt/asked.so", "/opt/one.so", "/opt/three.so", "/opt/two.so", "/etc/ld.so.preload"];
    assert_eq!(found(b"/program", false), expected);
    assert_eq!(found(b"/program", true), expected[1..], "what a user says counts for no program with more rights");
    assert_eq!(found(b"/opt/one.so", false), [""; 0], "a library alone is not started");
}

#[test]
fn filters() {
    let shop = Workshop::new();
    shop.library("lib/libreal.so", &[], &[]);
    shop.library("lib/liba.so", &["-Wl,-f,libreal.so", "-Wl,-f,libnone.so", RPATH], &[]);
    shop.program("program", &[RPATH], &["lib/liba.so"]);
    let environment = shop.environment("", "");
    let ours = shop.ours(&shop.closure("program", &environment));
    assert_eq!(ours, ["lib/liba.so", "lib/libreal.so"].map(String::from).into());
    // Only when it is asked to list does the loader complain of an auxiliary library that is not there.
    let mut theirs = shop.asked("program", &environment);
    assert!(theirs.remove("no libnone.so"));
    assert_eq!(ours, theirs);
}

#[test]
fn all_builds_of_a_library_are_taken() {
    let shop = Workshop::new();
    shop.library("lib/liba.so", &[], &[]);
    shop.library("lib/libv3.so", &[], &[]);
    shop.library("lib/glibc-hwcaps/x86-64-v2/liba.so", &[], &[]);
    shop.library("lib/glibc-hwcaps/x86-64-v3/liba.so", &["-Wl,-rpath,$ORIGIN/../.."], &["lib/libv3.so"]);
    shop.library("lib/glibc-hwcaps/x86-64-v9/liba.so", &[], &[]);
    shop.library("lib/tls/haswell/liba.so", &[], &[]);
    shop.program("program", &[RUNPATH], &["lib/liba.so"]);
    let closure = shop.closure("program", &shop.environment("", ""));
    let ours = shop.ours(&closure);
    let expected = [
        "lib/glibc-hwcaps/x86-64-v2/liba.so",
        "lib/glibc-hwcaps/x86-64-v3/liba.so",
        "lib/liba.so",
        "lib/libv3.so",
        "lib/tls/haswell/liba.so",
    ];
    assert_eq!(ours, expected.map(String::from).into());
    assert!(shop.asked("program", &shop.environment("", "")).is_subset(&ours));
    assert!(closure.notes.is_empty());
}

#[test]
fn links_and_directories_on_the_way_are_told() {
    let shop = Workshop::new();
    shop.library("real/liba.so.1.2", &["-Wl,-soname,liba.so.1"], &[]);
    fs_err::create_dir_all(shop.at("empty")).unwrap();
    std::os::unix::fs::symlink("liba.so.1.2", shop.at("real/liba.so.1")).unwrap();
    std::os::unix::fs::symlink("real", shop.at("lib")).unwrap();
    shop.program("program", &["-Wl,-rpath,$ORIGIN/empty/../lib"], &["real/liba.so.1.2"]);
    shop.check("program", &["real/liba.so.1.2"]);
    let closure = shop.closure("program", &shop.environment("", ""));
    let jail = |name: &str| JailPath::parse(shop.at(name).as_os_str().as_encoded_bytes()).unwrap();
    let object = &closure.objects[&jail("real/liba.so.1.2")];
    assert_eq!(object.links, [jail("lib"), jail("real/liba.so.1")].into());
    assert_eq!(object.through, [jail("empty")].into());
    let spelled = shop.at("empty/../lib/liba.so.1").into_os_string().into_encoded_bytes();
    assert_eq!(object.spelled, [spelled].into());
}

#[test]
fn a_text_in_place_of_a_library_is_refused() {
    let shop = Workshop::new();
    shop.library("lib/liba.so", &[], &[]);
    shop.program("program", &[RUNPATH], &["lib/liba.so"]);
    fs_err::write(shop.at("lib/liba.so"), "GROUP ( libc.so.6 )").unwrap();
    let closure = shop.closure("program", &shop.environment("", ""));
    assert_eq!(shop.ours(&closure), ["no liba.so".to_owned()].into());
    assert!(matches!(closure.notes.first(), Some(Note::Refused { .. })));
}

#[test]
fn a_programs_paths_do_not_count_for_a_library_alone() {
    let shop = Workshop::new();
    shop.library("lib/libb.so", &[], &[]);
    shop.library("plugins/plugin.so", &[], &["lib/libb.so"]);
    shop.program("program", &[RPATH], &[]);
    let alone = shop.closure("plugins/plugin.so", &shop.environment("", ""));
    assert_eq!(shop.ours(&alone), ["no libb.so".to_owned()].into());
}

#[test]
fn who_wants_no_default_directories_gets_none() {
    let shop = Workshop::new();
    shop.library("lib/liba.so", &[], &[]);
    shop.program("program", &[RUNPATH, "-Wl,-z,nodefaultlib"], &["lib/liba.so"]);
    // The library itself needs the C library too, and is the second to ask: it finds it.
    let closure = shop.closure("program", &shop.environment("", ""));
    assert_eq!(shop.ours(&closure), shop.asked("program", &shop.environment("", "")));
    assert!(closure.missing.iter().any(|missing| missing.name == b"libc.so.6"));
    assert!(closure.objects.keys().any(|path| path.file_name() == b"libc.so.6"));
}

#[test]
fn audit_libraries_are_taken_if_they_are_there() {
    let shop = Workshop::new();
    shop.library("lib/libaudit.so", &[], &[]);
    let name = format!("-Wl,--audit={}:/none.so", shop.at("lib/libaudit.so").display());
    shop.program("program", &[&name], &[]);
    let closure = shop.closure("program", &shop.environment("", ""));
    assert_eq!(shop.ours(&closure), ["lib/libaudit.so".to_owned()].into());
    assert!(matches!(closure.notes.first(), Some(Note::DoneWithout { name, .. }) if name == b"/none.so"));
}

#[test]
fn without_a_cache_its_directories_serve() {
    let shop = Workshop::new();
    shop.library("opt/libs/liba.so", &[], &[]);
    shop.program("program", &[], &["opt/libs/liba.so"]);
    fs_err::create_dir_all(shop.at("etc")).unwrap();
    fs_err::write(shop.at("etc/ld.so.conf"), "/opt/libs\n").unwrap();
    let root = Root::open(&shop.at("")).unwrap();
    let path = JailPath::parse(b"/program").unwrap();
    let closure = Search::new(&root).unwrap().closure(&path, &Environment::default()).unwrap();
    assert!(closure.objects.contains_key(&JailPath::parse(b"/opt/libs/liba.so").unwrap()));
    let missing: Vec<_> = closure.missing.iter().map(|missing| String::from_utf8_lossy(&missing.name)).collect();
    assert_eq!(missing, ["libc.so.6", "/lib64/ld-linux-x86-64.so.2", "libc.so.6"]);
}

#[test]
fn a_cache_that_is_none_is_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    fs_err::create_dir_all(directory.path().join("etc")).unwrap();
    fs_err::create_dir_all(directory.path().join("lib64")).unwrap();
    fs_err::write(directory.path().join("etc/ld.so.cache"), "").unwrap();
    for (from, to) in [("/usr/bin/true", "true"), (LOADER, "lib64/ld-linux-x86-64.so.2")] {
        fs_err::copy(from, directory.path().join(to)).unwrap();
    }
    let root = Root::open(directory.path()).unwrap();
    let path = JailPath::parse(b"/true").unwrap();
    let closure = Search::new(&root).unwrap().closure(&path, &Environment::default()).unwrap();
    assert!(closure.missing.iter().any(|missing| missing.name == b"libc.so.6"));
    assert!(matches!(closure.notes.first(), Some(Note::UselessCache { .. })));
}

/// A program for this machine that needs `needed` and has an RPATH.
fn crafted(needed: &[String], rpath: &str) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let (mut strings, mut dynamic) = (vec![0], Vec::new());
    for (tag, text) in needed.iter().map(|name| (1, name.as_str())).chain([(15, rpath)]) {
        dynamic.extend(words(&[tag, strings.len() as u64]));
        strings.extend([text.as_bytes(), b"\0"].concat());
    }
    let interpreter = b"/lib64/ld-linux-x86-64.so.2\0\0\0\0\0";
    let (start, size) = (64 + 3 * 56, dynamic.len() as u64 + 48);
    let after = start + interpreter.len() as u64;
    dynamic.extend(words(&[5, BASE + after + size, 10, strings.len() as u64, 0, 0]));
    let whole = after + size + strings.len() as u64;
    // `e_type` 2, `e_machine` 62, `e_version` 1; `e_flags` and the sizes of headers in the last two.
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend(words(&[2 | 62 << 16 | 1 << 32, BASE, 64, 0, 64 << 32 | 56 << 48, 3]));
    for (kind, at, size) in [(3, start, interpreter.len() as u64), (1, 0, whole), (2, after, size)] {
        file.extend(words(&[kind | 7 << 32, at, BASE + at, 0, size, size, 8]));
    }
    [file.as_slice(), interpreter, &dynamic, &strings].concat()
}

/// Of what nobody ran, the file alone says how long it takes to find what it needs.
#[test]
fn no_file_keeps_us_busy() {
    let many: Vec<String> = (0..60_000).map(|number| format!("{number:x}")).collect();
    let directories: Vec<String> = (0..40_000).map(|number| format!("/{number:x}")).collect();
    let deep = format!("deep/{}", ["d"; 1000].join("/"));
    let origins = format!("/$PLATFORM$PLATFORM$PLATFORM{}", "$ORIGIN".repeat(30_000));
    let parts = "$ORIGIN:".repeat(30_000);
    for (needed, rpath, place, is_endless) in [
        (&many[..], directories.join(":"), "", true),
        (&many[..2], "/links".to_owned(), "", false),
        (&many[..2], origins, "", false),
        (&many[..], parts, deep.as_str(), true),
        (&many[..2], directories.join(":"), "", false),
    ] {
        let shop = Workshop::new();
        for directory in [place, "links"] {
            fs_err::create_dir_all(shop.at(directory)).unwrap();
        }
        for name in ["tls", "haswell", "xeon_phi", "avx512_1", "x86_64"] {
            fs_err::os::unix::fs::symlink(".", shop.at("links").join(name)).unwrap();
        }
        fs_err::write(shop.at(place).join("program"), crafted(needed, &rpath)).unwrap();
        let root = Root::open(&shop.at("")).unwrap();
        let path = JailPath::parse(format!("/{place}/program").as_bytes()).unwrap();
        match Search::new(&root).unwrap().closure(&path, &Environment::default()) {
            Ok(closure) => assert!(!is_endless && closure.missing.len() == 3, "{:?}", closure.missing.len()),
            Err(error) => assert!(is_endless && matches!(error, SearchError::Endless { .. }), "{error}"),
        }
    }
}

/// `ldconfig` marks a library for i386 that needs no C library as of none, and the loader takes it all the same.
#[test]
fn libraries_without_a_c_library_are_found_in_the_cache() {
    if !Path::new("/lib/ld-linux.so.2").exists() {
        return;
    }
    let shop = Workshop::new();
    let alone = ["-m32", "-nostdlib"];
    shop.library("opt/listed/libalone.so", &alone, &[]);
    shop.program("program", &[&alone[..], &["-no-pie", "-Wl,-e,main"]].concat(), &["opt/listed/libalone.so"]);
    fs_err::create_dir(shop.at("etc")).unwrap();
    fs_err::write(shop.at("etc/ld.so.conf"), "/opt/listed\n").unwrap();
    assert!(Command::new("/sbin/ldconfig").arg("-r").arg(shop.at("")).status().unwrap().success());
    let root = Root::open(&shop.at("")).unwrap();
    let mut search = Search::new(&root).unwrap();
    assert_eq!(search.cache().unwrap().entries()[0].flags, 1);
    let closure = search.closure(&JailPath::parse(b"/program").unwrap(), &Environment::default()).unwrap();
    assert!(closure.objects.contains_key(&JailPath::parse(b"/opt/listed/libalone.so").unwrap()));
}

/// A glibc that was built for a prefix of its own, as Nix builds it, looks into no cache but that of its prefix.
#[test]
fn every_loader_has_the_cache_that_is_built_into_it() {
    let shop = Workshop::new();
    for name in ["etc", "opt", "lib64", "lib/x86_64-linux-gnu", "machine", "own"] {
        fs_err::create_dir_all(shop.at(name)).unwrap();
    }
    for name in ["lib/x86_64-linux-gnu", "machine", "own"] {
        fs_err::copy("/lib/x86_64-linux-gnu/libc.so.6", shop.at(name).join("libc.so.6")).unwrap();
    }
    fs_err::copy("/usr/bin/true", shop.at("true")).unwrap();
    let machine = LdCache::parse(&fs_err::read("/etc/ld.so.cache").unwrap()).unwrap();
    let known = machine.lookup(b"libc.so.6").iter().find(|entry| entry.flags == 0x303).unwrap();
    let cache = |place: &str, path: &str| {
        let entry = CacheEntry { path: path.into(), ..known.clone() };
        fs_err::write(shop.at(place), LdCache::new(vec![entry]).to_bytes().unwrap()).unwrap();
    };
    cache("etc/ld.so.cache", "/machine/libc.so.6");
    let (usual, loader) = (b"/etc/ld.so.cache\0", fs_err::read(LOADER).unwrap());
    let at = loader.windows(usual.len()).position(|part| part == usual).unwrap();
    let prefixed = [&loader[..at], b"/opt/ld.so.cache\0", &loader[at + usual.len()..]].concat();
    let found = |loader: &[u8]| {
        fs_err::write(shop.at("lib64/ld-linux-x86-64.so.2"), loader).unwrap();
        let root = Root::open(&shop.at("")).unwrap();
        let path = JailPath::parse(b"/true").unwrap();
        let closure = Search::new(&root).unwrap().closure(&path, &Environment::default()).unwrap();
        closure.objects.into_keys().find(|path| path.file_name() == b"libc.so.6").unwrap().to_string()
    };
    assert_eq!(found(&loader), "/machine/libc.so.6");
    assert_eq!(found(&prefixed), "/lib/x86_64-linux-gnu/libc.so.6");
    cache("opt/ld.so.cache", "/own/libc.so.6");
    assert_eq!(found(&prefixed), "/own/libc.so.6");
}

/// musl inherits RUNPATH too, and prefers the environment to both.
#[test]
fn the_rules_of_musl() {
    if !Path::new("/usr/bin/musl-gcc").exists() {
        return;
    }
    let shop = Workshop::new();
    let library = |path: &str, needs: &[&str]| {
        let soname = format!("-Wl,-soname,{}", Path::new(path).file_name().unwrap().display());
        shop.compile("musl-gcc", path, &["-shared", &soname], needs);
    };
    library("lib/libb.so", &[]);
    library("lib/liba.so", &["lib/libb.so"]);
    library("other/liba.so", &["lib/libb.so"]);
    shop.compile("musl-gcc", "program", &[RUNPATH], &["lib/liba.so"]);
    for (library_path, expected) in [("", "lib/liba.so"), ("other", "other/liba.so")] {
        let closure = shop.closure("program", &shop.environment(library_path, ""));
        assert_eq!(shop.ours(&closure), [expected, "lib/libb.so"].map(String::from).into());
        let output = Command::new("/lib/ld-musl-x86_64.so.1")
            .args([Path::new("--list"), &shop.at("program")])
            .env_clear()
            .env("LD_LIBRARY_PATH", library_path)
            .current_dir(shop.at(""))
            .output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        for (name, expected) in [("liba.so", expected), ("libb.so", "lib/libb.so")] {
            let line = text.lines().find(|line| line.contains(&format!("{name} =>"))).unwrap();
            let found = line.split("=> ").nth(1).unwrap().split(" (0x").next().unwrap();
            assert_eq!(fs_err::canonicalize(shop.at(found)).unwrap(), shop.at(expected));
        }
        let loader = fs_err::canonicalize("/lib/ld-musl-x86_64.so.1").unwrap();
        assert!(closure.objects.keys().any(|path| path.below(Path::new("/")) == loader));
    }
}

#[test]
fn the_loader_goes_by_a_cache_of_ours() {
    let shop = Workshop::new();
    let names: Vec<String> =
        (1..40).map(|number| format!("cached/lib{}.so.{number}", "ab".repeat(number % 5))).collect();
    for name in &names {
        shop.library(name, &[], &[]);
    }
    shop.program("program", &[], &names.iter().map(String::as_str).collect::<Vec<_>>());
    let machine = LdCache::parse(&fs_err::read("/etc/ld.so.cache").unwrap()).unwrap();
    let c_library = machine.lookup(b"libc.so.6").iter().find(|entry| entry.flags == 0x303).unwrap();
    let mut entries = machine.entries().to_vec();
    entries.extend(names.iter().map(|name| CacheEntry {
        soname: name.strip_prefix("cached/").unwrap().into(),
        path: shop.at(name).into_os_string().into_encoded_bytes(),
        ..c_library.clone()
    }));
    fs_err::write(shop.at("cache"), LdCache::new(entries).to_bytes().unwrap()).unwrap();
    // A mount namespace of its own, in which the cache stands in the machine's place.
    let script = r#"mount --bind "$1" /etc/ld.so.cache && LD_TRACE_LOADED_OBJECTS=1 exec "$2" "$3""#;
    let output = Command::new("unshare")
        .args(["-rm", "sh", "-c", script, "sh"])
        .args([shop.at("cache"), LOADER.into(), shop.at("program")])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for name in &names {
        assert!(text.contains(&format!("=> {} (0x", shop.at(name).display())), "{name}: {text}");
    }
}

/// The proof of a closure: with nothing else around, the program runs.
#[test]
fn programs_run_with_nothing_but_their_closure() {
    let root = Root::open(Path::new("/")).unwrap();
    let mut search = Search::new(&root).unwrap();
    for (program, argument) in [("/usr/bin/ls", "/"), ("/usr/bin/git", "--version"), ("/usr/bin/curl", "--version")] {
        let Ok(closure) = search.closure(&JailPath::parse(program.as_bytes()).unwrap(), &Environment::default()) else {
            continue;
        };
        assert!(closure.missing.is_empty());
        let jail = tempfile::tempdir().unwrap();
        let place = |path: &JailPath| {
            let inside = path.below(jail.path());
            fs_err::create_dir_all(inside.parent().unwrap()).unwrap();
            inside
        };
        let mut files: Vec<JailPath> = closure.objects.keys().cloned().collect();
        files.push(root.resolve(&JailPath::root(), program.as_bytes(), true).unwrap().end);
        for file in files {
            fs_err::copy(file.below(Path::new("/")), place(&file)).unwrap();
        }
        for link in closure.objects.values().flat_map(|object| &object.links).collect::<BTreeSet<_>>() {
            let target = root.read_link(link).unwrap();
            std::os::unix::fs::symlink(String::from_utf8(target).unwrap(), place(link)).unwrap();
        }
        let spelled: BTreeSet<&Vec<u8>> = closure.objects.values().flat_map(|object| &object.spelled).collect();
        let cache = search.cache().unwrap().restricted_to(|path| spelled.contains(&path.to_vec()));
        let cache_path = JailPath::parse(b"/etc/ld.so.cache").unwrap();
        fs_err::write(place(&cache_path), cache.to_bytes().unwrap()).unwrap();
        // git wants one, of whatever kind.
        fs_err::write(place(&JailPath::parse(b"/dev/null").unwrap()), "").unwrap();
        let mut command = Command::new("unshare");
        command
            .args(["-r", "chroot"])
            .arg(jail.path())
            .args([program, argument])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]

    /// A program and its library, both broken anywhere in the first pages, where headers and names are.
    #[test]
    fn broken_programs_never_panic(changes in proptest::collection::vec((0_usize..2, 0_usize..4096, proptest::num::u8::ANY), 1..20)) {
        thread_local!(static FILES: [Vec<u8>; 2] = {
            let shop = Workshop::new();
            shop.library("lib/liba.so", &[RPATH], &[]);
            shop.program("program", &[RPATH], &["lib/liba.so"]);
            ["program", "lib/liba.so"].map(|name| fs_err::read(shop.at(name)).unwrap())
        });
        let mut files = FILES.with(Clone::clone);
        for (file, at, byte) in changes {
            files[file][at] = byte;
        }
        let directory = tempfile::tempdir().unwrap();
        fs_err::create_dir(directory.path().join("lib")).unwrap();
        for (name, bytes) in ["program", "lib/liba.so"].iter().zip(&files) {
            fs_err::write(directory.path().join(name), bytes).unwrap();
        }
        let root = Root::open(directory.path()).unwrap();
        let path = JailPath::parse(b"/program").unwrap();
        if let Ok(closure) = Search::new(&root).unwrap().closure(&path, &Environment::default()) {
            assert!(closure.objects.len() <= 1);
        }
    }
}
