//! The map of the house, held against the house: which room may import which, where `unsafe` may stand, and that no
//! file outgrows its subject. The table is the one of `docs/design.md`, section 3.

#![expect(clippy::unwrap_used, reason = "these are tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Who may import whom. `cli` may import all.
const IMPORTS: &[(&str, &[&str])] = &[
    ("path", &[]),
    ("root", &["path"]),
    ("publish", &["path"]),
    ("trace", &["path", "publish", "root"]),
    ("elf", &["path", "root"]),
    ("files", &["elf", "path", "profile", "root", "trace"]),
    ("manifest", &["files", "path", "root"]),
    ("tree", &["manifest", "path", "publish", "root"]),
    ("layer", &["manifest", "path", "root", "tree"]),
    ("image", &["layer", "manifest", "path", "publish", "root", "tree"]),
    ("cache", &["image", "manifest", "path", "publish", "root", "tree"]),
    ("jail", &["path", "profile", "root", "tree"]),
    ("report", &["files", "jail", "manifest", "path", "trace"]),
    ("profile", &["path"]),
    ("workload", &["elf", "files", "jail", "path", "profile", "trace"]),
    ("sbom", &["manifest", "path", "root"]),
    ("sign", &["manifest", "path"]),
    ("init", &["image", "manifest", "path", "profile", "trace"]),
    ("slim", &["image", "manifest", "path", "profile"]),
];

/// Where the compiler's word is not enough.
const UNSAFE: &[&str] = &[
    "src/jail/sys.rs",
    "tracer/src/sys.rs",
    "tracer/src/sys/access.rs",
    "tracer/src/sys/calls.rs",
    "tracer/src/sys/child.rs",
    "tracer/src/sys/files.rs",
    "tracer/src/sys/registers.rs",
    "tracer/src/sys/signals.rs",
];

/// Names that say nothing about what is inside.
const DRAWERS: &[&str] = &["utils", "util", "common", "core", "helpers", "helper", "misc"];

/// A file that is longer asks to be two. Its tests are not counted.
const LINES: usize = 560;

fn sources() -> Vec<(String, String)> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    let mut todo = vec![home.join("src"), home.join("tracer/src")];
    while let Some(directory) = todo.pop() {
        for entry in fs_err::read_dir(directory).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(home).unwrap().to_str().unwrap().to_owned();
                files.push((name, fs_err::read_to_string(&path).unwrap()));
            }
        }
    }
    files.sort();
    assert!(files.len() > 20, "the sources are where they are looked for");
    files
}

/// The room of a file: `src/jail/plan.rs` is in `jail`, `src/jail.rs` too.
fn room(file: &str) -> Option<&str> {
    let inside = file.strip_prefix("src/")?;
    let room = inside.split('/').next()?;
    Some(room.strip_suffix(".rs").unwrap_or(room))
}

/// The code of a file, without its tests and without comments.
fn code(text: &str) -> String {
    let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The rooms that some code names by `crate::`.
fn imported(code: &str) -> BTreeSet<String> {
    let after = code.split("crate::").skip(1);
    after
        .map(|rest| rest.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect())
        .filter(|name: &String| !name.is_empty())
        .collect()
}

#[test]
fn data_flows_one_way() {
    let table: BTreeMap<&str, &[&str]> = IMPORTS.iter().copied().collect();
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let Some(room) = room(&file).filter(|room| !matches!(*room, "cli" | "main" | "lib")) else { continue };
        let Some(allowed) = table.get(room) else {
            wrong.push(format!("{file}: the room `{room}` is not on the map"));
            continue;
        };
        for name in imported(&code(&text)) {
            if name != room && !allowed.contains(&name.as_str()) {
                wrong.push(format!("{file} imports `{name}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_map_has_no_circles() {
    let table: BTreeMap<&str, &[&str]> = IMPORTS.iter().copied().collect();
    let mut placed: BTreeSet<&str> = BTreeSet::new();
    while placed.len() < table.len() {
        let next = table
            .iter()
            .find(|(room, imports)| !placed.contains(*room) && imports.iter().all(|import| placed.contains(import)));
        let (room, _) = next.unwrap_or_else(|| panic!("a circle among the rooms besides {placed:?}"));
        placed.insert(room);
    }
}

#[test]
fn the_tracer_knows_nothing_of_minjail() {
    for (file, text) in sources().iter().filter(|(file, _)| file.starts_with("tracer/")) {
        assert!(!text.contains("minjail::"), "{file} names minjail");
    }
}

#[test]
fn unsafe_stands_where_it_is_looked_for() {
    for (file, text) in sources() {
        let code = code(&text);
        let blocks = code.matches("unsafe {").count() + code.matches("unsafe fn").count();
        if UNSAFE.contains(&file.as_str()) {
            assert!(blocks > 0, "{file} needs no exception any more");
        } else {
            assert_eq!(blocks, 0, "{file} has unsafe code");
        }
    }
}

#[test]
fn every_unsafe_block_says_why_it_is_sound() {
    for (file, text) in sources().into_iter().filter(|(file, _)| UNSAFE.contains(&file.as_str())) {
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.contains("unsafe {")) {
            let above = lines[at.saturating_sub(6)..=at].iter();
            assert!(above.clone().any(|line| line.contains("SAFETY:")), "{file}, line {}: {line}", at + 1);
        }
    }
}

#[test]
fn no_room_is_a_drawer() {
    for (file, _) in sources() {
        let names = file.trim_end_matches(".rs").split('/');
        assert!(!names.clone().any(|name| DRAWERS.contains(&name)), "{file} says nothing about what is inside");
    }
}

#[test]
fn no_file_outgrows_its_subject() {
    let long = sources().into_iter().map(|(file, text)| (file, code(&text).lines().count()));
    let long: Vec<_> = long.filter(|(_, lines)| *lines > LINES).collect();
    assert!(long.is_empty(), "{long:?}");
}
