//! Our closure of the ELF files of this machine against what its own loader says, and our reading of every one of them
//! against that of the `object` crate.
//!
//! `LD_TRACE_LOADED_OBJECTS` makes the loader find everything and run nothing (`ld.so(8)`).

#![expect(clippy::unwrap_used, reason = "these are tests")]

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use minjail::elf::{self, Class, Closure, Elf, Environment, Kind, Search};
use minjail::path::JailPath;
use minjail::root::Root;
use object::elf as numbers;
use object::read::elf::{FileHeader, ProgramHeader as _};

/// Every ELF file below the usual directories, sorted; each once, where its links end.
fn elf_files() -> Vec<PathBuf> {
    let tops = ["bin", "sbin", "lib", "lib32", "libx32", "libexec", "games"];
    let mut todo: Vec<PathBuf> = tops.iter().map(|top| Path::new("/usr").join(top)).collect();
    let mut found = BTreeSet::new();
    while let Some(directory) = todo.pop() {
        // Debug information in the shape of ELF files: the headers of a program, without its contents.
        if directory == Path::new("/usr/lib/debug") {
            continue;
        }
        for entry in fs_err::read_dir(&directory).into_iter().flatten() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                todo.push(entry.path());
            } else if kind.is_file() && starts_as_elf(&entry.path()) {
                found.insert(entry.path());
            }
        }
    }
    found.into_iter().collect()
}

fn starts_as_elf(path: &Path) -> bool {
    let mut start = [0; 4];
    let read = fs_err::File::open(path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut start));
    read.is_ok() && start == *b"\x7fELF"
}

fn jail_path(path: &Path) -> JailPath {
    JailPath::parse(path.as_os_str().as_bytes()).unwrap()
}

/// What a loader finds: files where their links end, and names that it does not find.
#[derive(Debug, Default, PartialEq, Eq)]
struct Answer {
    files: BTreeSet<PathBuf>,
    missing: BTreeSet<String>,
}

/// What the loader itself says; `None` if it refuses the file.
fn asked(loader: &str, file: &Path) -> Option<Answer> {
    let output = Command::new(loader)
        .arg(file)
        .env_clear()
        .env("LD_TRACE_LOADED_OBJECTS", "1")
        .current_dir("/")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let mut answer = Answer::default();
    for line in text.lines().map(str::trim) {
        let (name, target) = line.split_once(" => ").unwrap_or(("", line));
        if target == "not found" {
            answer.missing.insert(name.to_owned());
        } else if let Some(path) = target.split_once(" (0x").map(|(path, _)| path).filter(|path| path.starts_with('/'))
        {
            answer.files.insert(fs_err::canonicalize(path).unwrap());
        }
    }
    answer.files.remove(&fs_err::canonicalize(loader).unwrap());
    let is_answer = output.status.success() || !answer.missing.is_empty();
    is_answer.then_some(answer)
}

fn ours(closure: &Closure, loader: &str) -> Answer {
    let mut files: BTreeSet<PathBuf> = closure.objects.keys().map(|path| path.below(Path::new("/"))).collect();
    files.remove(&fs_err::canonicalize(loader).unwrap());
    let missing = closure.missing.iter().map(|missing| String::from_utf8_lossy(&missing.name).into_owned()).collect();
    Answer { files, missing }
}

/// Why a file is not compared.
enum Skipped {
    /// Not linked, or linked for good: no loader is asked.
    NotDynamic,
    /// For musl, whose loader lists in another way, or for a machine that this one is not.
    OtherLoader,
    /// The loader itself: it will not list itself.
    Loader,
}

/// The glibc loader that answers for `elf`.
fn loader_of(path: &Path, elf: &Elf) -> Result<&'static str, Skipped> {
    if !elf.dynamic || !matches!(elf.kind, Kind::Executable | Kind::Shared) || elf.is_static() {
        return Err(Skipped::NotDynamic);
    }
    if path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"ld-linux")) {
        return Err(Skipped::Loader);
    }
    let musl = |name: &[u8]| name.windows(7).any(|part| part == b"ld-musl");
    if elf.interpreter.as_deref().is_some_and(musl) || elf.needed.iter().any(|name| name == b"libc.so") {
        return Err(Skipped::OtherLoader);
    }
    match (elf.machine, elf.class) {
        (62, Class::Bits64) => Ok("/lib64/ld-linux-x86-64.so.2"),
        (3, Class::Bits32) if Path::new("/lib/ld-linux.so.2").exists() => Ok("/lib/ld-linux.so.2"),
        _ => Err(Skipped::OtherLoader),
    }
}

#[test]
fn the_loader_finds_what_we_find() {
    let files = elf_files();
    let halves = files.split_at(files.len() / 2);
    let (compared, differences) = std::thread::scope(|scope| {
        let other = scope.spawn(|| compare(halves.0));
        let (compared, mut differences) = compare(halves.1);
        let (more, others) = other.join().unwrap();
        differences.extend(others);
        (compared + more, differences)
    });
    assert!(differences.is_empty(), "{} of {compared}:\n{}", differences.len(), differences.join("\n"));
    assert!(compared > 100, "only {compared} of {} files could be compared", files.len());
}

/// How many files were compared, and how they differ.
fn compare(files: &[PathBuf]) -> (usize, Vec<String>) {
    let root = Root::open(Path::new("/")).unwrap();
    let mut search = Search::new(&root).unwrap();
    let mut compared = 0;
    let mut differences = Vec::new();
    for file in files {
        let path = jail_path(file);
        let elf = search.elf(&path).unwrap();
        let Ok(loader) = loader_of(file, &elf) else { continue };
        let closure = search.closure(&path, &Environment::default()).unwrap();
        let (ours, theirs) = (ours(&closure, loader), asked(loader, file));
        compared += 1;
        if theirs.as_ref() != Some(&ours) {
            differences.push(format!(
                "{}:\n  ours {ours:?}\n  theirs {theirs:?}\n  {:?}",
                file.display(),
                closure.notes
            ));
        }
    }
    (compared, differences)
}

/// What the `object` crate reads, by way of sections where we go by segments.
#[derive(Debug, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are flags of the file, each on its own")]
struct Reading {
    machine: u16,
    little_endian: bool,
    dynamic: bool,
    interpreter: Option<Vec<u8>>,
    needed: Vec<Vec<u8>>,
    rpath: Option<Vec<u8>>,
    runpath: Option<Vec<u8>>,
    soname: Option<Vec<u8>>,
    audit: Vec<Vec<u8>>,
    filter: Vec<Vec<u8>>,
    auxiliary: Vec<Vec<u8>>,
    no_default_libraries: bool,
    pie: bool,
}

fn second_opinion<H: FileHeader<Endian = object::Endianness>>(bytes: &[u8]) -> Reading {
    let header = H::parse(bytes).unwrap();
    let endian = header.endian().unwrap();
    let mut reading =
        Reading { machine: header.e_machine(endian).0, little_endian: header.is_little_endian(), ..Reading::default() };
    for segment in header.program_headers(endian, bytes).unwrap() {
        reading.dynamic |= segment.p_type(endian) == numbers::PT_DYNAMIC;
        if let Some(interpreter) = segment.interpreter(endian, bytes).unwrap() {
            reading.interpreter = Some(interpreter.to_vec());
        }
    }
    let table = header.sections(endian, bytes).unwrap().dynamic_table(endian, bytes).unwrap();
    for entry in &table {
        let text = || Some(table.string(entry).unwrap().to_vec());
        match entry.tag {
            numbers::DT_NEEDED => reading.needed.extend(text()),
            numbers::DT_RPATH => reading.rpath = text(),
            numbers::DT_RUNPATH => reading.runpath = text(),
            numbers::DT_SONAME => reading.soname = text(),
            numbers::DT_AUDIT | numbers::DT_DEPAUDIT => reading.audit.extend(text()),
            numbers::DT_FILTER => reading.filter.extend(text()),
            numbers::DT_AUXILIARY => reading.auxiliary.extend(text()),
            numbers::DT_FLAGS_1 => {
                reading.no_default_libraries = entry.val & numbers::DF_1_NODEFLIB.0 != 0;
                reading.pie = entry.val & numbers::DF_1_PIE.0 != 0;
            }
            _ => {}
        }
    }
    reading
}

#[test]
fn another_reader_reads_the_same() {
    let files = elf_files();
    for file in &files {
        let bytes = fs_err::read(file).unwrap();
        let elf = elf::read(&bytes).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let from_file = elf::read_file(fs_err::File::open(file).unwrap().file()).unwrap();
        assert_eq!(elf, from_file, "{}", file.display());
        let ours = Reading {
            machine: elf.machine,
            little_endian: elf.little_endian,
            dynamic: elf.dynamic,
            interpreter: elf.interpreter,
            needed: elf.needed,
            rpath: elf.rpath,
            runpath: elf.runpath,
            soname: elf.soname,
            audit: elf.audit,
            filter: elf.filter,
            auxiliary: elf.auxiliary,
            no_default_libraries: elf.no_default_libraries,
            pie: elf.pie,
        };
        let theirs = match elf.class {
            Class::Bits32 => second_opinion::<numbers::FileHeader32<object::Endianness>>(&bytes),
            Class::Bits64 => second_opinion::<numbers::FileHeader64<object::Endianness>>(&bytes),
        };
        assert_eq!(ours, theirs, "{}", file.display());
    }
    assert!(files.len() > 300);
}
