//! What another run of the same program is likely to want: the rules that are traits, and off unless they are switched on.
//!
//! In: the file set of what the runs touched. Out: the same with what each rule adds, which says so ([`Reason::Rule`]),
//! and the executables and libraries among that. A rule is here only if a program is known, and tested, whose next run
//! fails without it. What a rule adds depends on whether something is in the set, never on how it came there or on what
//! else is, so that more files never need less.

use std::collections::BTreeSet;

use super::choose::{add_found, whole};
use super::{FileSet, FilesError, Reason, Rule, Rules};
use crate::path::JailPath;
use crate::root::{Root, RootError};

const ZONES: &[&[u8]] = &[b"/usr/share/zoneinfo"];
const CERTIFICATES: &[&[u8]] = &[b"/etc/ssl/certs"];
/// Where ncurses looks for terminals on Debian and elsewhere (`terminfo(5)`, "Fetching Compiled Descriptions").
const TERMINALS: &[&[u8]] = &[b"/etc/terminfo", b"/lib/terminfo", b"/usr/lib/terminfo", b"/usr/share/terminfo"];

/// Adds what the traits that are on add; returns the executables and libraries among it.
pub(super) fn add(files: &mut FileSet, rules: &Rules, root: &Root) -> Result<Vec<JailPath>, FilesError> {
    let mut objects = Vec::new();
    for rule in Rule::ALL.into_iter().filter(|rule| rules.is_on(*rule)) {
        let tops = match rule {
            Rule::TzAll => any_of(files, ZONES),
            Rule::CaAll => any_of(files, CERTIFICATES),
            Rule::TerminfoAll => any_of(files, TERMINALS),
            Rule::GconvAll => directories(files, is_character_set),
            Rule::PythonModules => directories(files, is_python_landmark),
            Rule::NssServices => {
                objects.extend(add_services(files, root)?);
                continue;
            }
            Rule::HwcapsBaseline
            | Rule::ImageUser
            | Rule::MountPoint
            | Rule::PythonSource
            | Rule::ThreadUnwinder
            | Rule::Volume
            | Rule::WorkingDirectory => continue,
        };
        for top in tops {
            let found = whole(&top, root)?;
            objects.extend(add_found(files, found, &Reason::rule(rule, top), root)?);
        }
    }
    Ok(objects)
}

/// All of `tops`, if something of one of them is wanted.
fn any_of(files: &FileSet, tops: &[&'static [u8]]) -> BTreeSet<JailPath> {
    let tops: BTreeSet<JailPath> = tops.iter().map(|top| JailPath::literal(top)).collect();
    let used = files.wanted.keys().any(|path| tops.iter().any(|top| path.starts_with(top)));
    if used { tops } else { BTreeSet::new() }
}

/// The directories of the files that `is_telling`.
fn directories(files: &FileSet, is_telling: fn(&JailPath) -> bool) -> BTreeSet<JailPath> {
    files.wanted.keys().filter(|path| is_telling(path)).filter_map(JailPath::parent).collect()
}

/// One of glibc's modules that convert between character sets, or the list of them (`iconvconfig(8)`).
fn is_character_set(path: &JailPath) -> bool {
    let is_of_glibc = path.parent().is_some_and(|directory| directory.file_name() == b"gconv");
    is_of_glibc && (path.file_name().starts_with(b"gconv-modules") || path.file_name().ends_with(b".so"))
}

/// `os.py`, by which Python knows its library.
fn is_python_landmark(path: &JailPath) -> bool {
    let is_of_python = path.parent().is_some_and(|directory| directory.file_name().starts_with(b"python3."));
    is_of_python && path.file_name() == b"os.py"
}

/// For each service that `/etc/nsswitch.conf` names, glibc opens a module of its name (`nsswitch.conf(5)`, FILES); those
/// of a distribution lie beside the C library. One that is not there is as one that knows nothing.
fn add_services(files: &mut FileSet, root: &Root) -> Result<Vec<JailPath>, RootError> {
    let path = JailPath::literal(b"/etc/nsswitch.conf");
    // Some distributions have a link there, to what a tool of theirs has written (authselect(8)).
    let text = if files.contains(&path) { root.read_through_links(path.as_bytes(), u64::MAX)? } else { None };
    let Some(text) = text else { return Ok(Vec::new()) };
    let libcs = files.wanted.keys().filter(|path| path.file_name() == b"libc.so.6");
    let directories: BTreeSet<JailPath> = libcs.filter_map(JailPath::parent).collect();
    let modules = services(&text).into_iter().map(|service| [b"libnss_", service, b".so.2"].concat());
    let mut found = BTreeSet::new();
    for module in modules {
        for module in directories.iter().map(|directory| directory.join(&module)) {
            found.extend(whole(&module, root)?);
        }
    }
    add_found(files, found, &Reason::rule(Rule::NssServices, path), root)
}

/// The services that the text of `nsswitch.conf(5)` names.
fn services(text: &[u8]) -> BTreeSet<&[u8]> {
    let mut services = BTreeSet::new();
    for line in text.split(|&byte| byte == b'\n') {
        let line = line.split(|&byte| byte == b'#').next().unwrap_or_default();
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        // `[NOTFOUND=return]` says what is done with an answer.
        let mut is_action = false;
        for word in line[colon + 1..].split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
            is_action |= word.starts_with(b"[");
            if !is_action && !word.contains(&b'/') {
                services.insert(word);
            }
            is_action &= !word.ends_with(b"]");
        }
    }
    services
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_that_are_named() {
        let text = b"# a comment: files\npasswd: files systemd\nhosts:\tfiles mdns4 [NOTFOUND=return ! UNAVAIL=continue] dns # x\nbad line\n";
        let expected: [&[u8]; 4] = [b"dns", b"files", b"mdns4", b"systemd"];
        assert_eq!(services(text), BTreeSet::from(expected));
    }

    #[test]
    fn telling_files() {
        let path = |text: &str| JailPath::parse(text.as_bytes()).unwrap();
        assert!(is_character_set(&path("/usr/lib/x86_64-linux-gnu/gconv/gconv-modules.cache")));
        assert!(!is_character_set(&path("/home/me/gconv/notes.txt")));
        assert!(is_python_landmark(&path("/usr/lib/python3.11/os.py")) && !is_python_landmark(&path("/home/me/os.py")));
    }
}
