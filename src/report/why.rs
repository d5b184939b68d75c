//! The chain of reasons for a path.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::files::{Reason, Reasons};
use crate::path::JailPath;

/// Every path of an image, with its reasons.
pub type AllReasons = BTreeMap<JailPath, Reasons>;

/// Every link of an image, with its text.
pub type Links = BTreeMap<JailPath, Vec<u8>>;

/// So many reasons of one kind are told one by one.
const SHOWN: usize = 3;

/// Why `path` is there, down to what the workload did; `None` if it is not there.
///
/// ```
/// use std::collections::BTreeMap;
/// use minjail::files::{Reason, Reasons};
/// use minjail::path::JailPath;
/// use minjail::report::why::explain;
///
/// let path = |text: &str| JailPath::parse(text.as_bytes()).unwrap();
/// let touched = Reason::Touched { workload: "app".into(), program: "/bin/app".into(), call: "openat".into() };
/// let reasons = BTreeMap::from([
///     (path("/etc"), Reasons::from([Reason::Holds { child: path("/etc/app.conf") }])),
///     (path("/etc/app.conf"), Reasons::from([touched])),
/// ]);
/// assert_eq!(
///     explain(&reasons, &path("/etc")).unwrap(),
///     "/etc\n  holds /etc/app.conf\n    touched by /bin/app (openat) in workload app\n"
/// );
/// ```
pub fn explain(reasons: &AllReasons, path: &JailPath) -> Option<String> {
    let own = reasons.get(path)?;
    let mut text = format!("{path}\n");
    tell(reasons, own, 1, &mut BTreeSet::from([path.clone()]), &mut text);
    Some(text)
}

/// So many links the kernel follows in one path (`path_resolution(7)`).
const LINKS_AT_MOST: usize = 40;

/// Where `path` is by the links above its last component, and these links; `None` if they go round in a circle.
///
/// ```
/// use std::collections::BTreeMap;
/// use minjail::path::JailPath;
/// use minjail::report::why::follow;
///
/// let path = |text: &str| JailPath::parse(text.as_bytes()).unwrap();
/// let links = BTreeMap::from([(path("/bin"), b"usr/bin".to_vec())]);
/// assert_eq!(follow(&links, &path("/bin/sh")), Some((path("/usr/bin/sh"), vec![path("/bin")])));
/// assert_eq!(follow(&links, &path("/bin")), Some((path("/bin"), vec![])));
/// ```
pub fn follow(links: &Links, path: &JailPath) -> Option<(JailPath, Vec<JailPath>)> {
    let reversed = |text: &[u8]| text.split(|&byte| byte == b'/').rev().map(<[u8]>::to_vec).collect::<Vec<_>>();
    let (mut at, mut passed) = (JailPath::root(), Vec::new());
    let mut todo = reversed(path.as_bytes());
    while let Some(name) = todo.pop() {
        let next = match name.as_slice() {
            b"" | b"." => continue,
            b".." => at.parent().unwrap_or(at),
            name => at.join(name),
        };
        let Some(text) = links.get(&next).filter(|_| !todo.is_empty()) else {
            at = next;
            continue;
        };
        if passed.len() == LINKS_AT_MOST {
            return None;
        }
        at = if text.starts_with(b"/") { JailPath::root() } else { next.parent()? };
        todo.extend(reversed(text));
        passed.push(next);
    }
    Some((at, passed))
}

fn tell(all: &AllReasons, own: &Reasons, depth: usize, told: &mut BTreeSet<JailPath>, text: &mut String) {
    // One line says as much as a hundred of its kind: a library is needed by many, a directory holds much.
    let (mut kind, mut count, mut left_out) = (None, 0, 0);
    for reason in own {
        // The reasons are sorted, so those of one kind stand together.
        let this_kind = Some(std::mem::discriminant(reason));
        count = if kind == this_kind { count + 1 } else { 1 };
        kind = this_kind;
        if count > SHOWN {
            left_out += 1;
            continue;
        }
        let (line, further) = sentence(reason);
        line_of(depth, &line, text);
        if let Some(further) = further {
            if told.insert(further.clone()) {
                if let Some(reasons) = all.get(further) {
                    tell(all, reasons, depth + 1, told, text);
                }
            }
        }
    }
    if left_out > 0 {
        line_of(depth, &format!("and {left_out} more such reasons"), text);
    }
}

fn line_of(depth: usize, line: &str, text: &mut String) {
    writeln!(text, "{:indent$}{line}", "", indent = 2 * depth).expect("writing to a String cannot fail");
}

/// One reason in words, and the path whose reasons explain it further.
fn sentence(reason: &Reason) -> (String, Option<&JailPath>) {
    match reason {
        Reason::Touched { workload, program, call } => {
            let program = if program.is_empty() { "minjail, to start it" } else { &**program };
            (format!("touched by {program} ({call}) in workload {workload}"), None)
        }
        Reason::Repair { workload, program } => {
            (format!("missed in the jail by {program} in workload {workload}, and added by --repair"), None)
        }
        Reason::OnTheWay { to } => (format!("on the way to {to}"), Some(to)),
        Reason::Holds { child } => (format!("holds {child}"), Some(child)),
        Reason::Interpreter { of } => (format!("runs {of}"), Some(of)),
        Reason::Library { of, soname } => (format!("needed by {of} as {soname}"), Some(of)),
        Reason::Listed { directory } => (format!("its name was seen in a listing of {directory}"), Some(directory)),
        Reason::Included { pattern } => (format!("included by {pattern}"), None),
        Reason::Rule { rule, of } => (format!("rule {rule}, for {of}"), Some(of)),
    }
}
