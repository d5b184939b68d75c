//! The chain of reasons for a path.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::mem::discriminant;

use crate::files::{Reason, Reasons};
use crate::path::JailPath;

/// Every path of an image, with its reasons.
pub type AllReasons = BTreeMap<JailPath, Reasons>;

/// Every link of an image, with its text.
pub type Links = BTreeMap<JailPath, Vec<u8>>;

/// So many reasons of one kind a reader takes in.
pub const SHOWN: usize = 3;

/// So many reasons are told one below the other: no reader follows more, and a stranger's lock may have a chain of a million.
const DEEPEST: usize = 60;

/// Why `path` is there, down to what the workload did; `None` if it is not there. Of one kind only `shown` reasons are told, as [`SHOWN`],
/// and how many more there are.
///
/// ```
/// use std::collections::BTreeMap;
/// use minjail::files::{Reason, Reasons};
/// use minjail::path::JailPath;
/// use minjail::report::why::{SHOWN, explain};
///
/// let path = |text: &str| JailPath::parse(text.as_bytes()).unwrap();
/// let touched = Reason::Touched { workload: "app".into(), program: "/bin/app".into(), call: "openat".into() };
/// let reasons = BTreeMap::from([
///     (path("/etc"), Reasons::from([Reason::Holds { child: path("/etc/app.conf") }])),
///     (path("/etc/app.conf"), Reasons::from([touched])),
/// ]);
/// assert_eq!(
///     explain(&reasons, &path("/etc"), SHOWN).unwrap(),
///     "/etc\n  holds /etc/app.conf\n    touched by /bin/app (openat) in workload app\n"
/// );
/// ```
pub fn explain(reasons: &AllReasons, path: &JailPath, shown: usize) -> Option<String> {
    let own = reasons.get(path)?;
    let told = BTreeSet::from([path.clone()]);
    let mut telling = Telling { all: reasons, shown, told, text: format!("{path}\n") };
    telling.tell(own, 1);
    Some(telling.text)
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

/// What is told of all reasons, and where one is by now.
struct Telling<'a> {
    all: &'a AllReasons,
    /// So many of one kind are told one by one.
    shown: usize,
    /// The paths whose reasons were told.
    told: BTreeSet<JailPath>,
    text: String,
}

impl<'a> Telling<'a> {
    fn tell(&mut self, own: &'a Reasons, depth: usize) {
        // The reasons are sorted, so those of one kind stand together.
        let is_one_kind = |one: &Reason, other: &Reason| discriminant(one) == discriminant(other);
        let mut left_out = 0;
        for kind in own.chunk_by(is_one_kind) {
            let chosen = self.chosen(kind);
            left_out += kind.len() - chosen.len();
            for reason in chosen {
                let (line, further) = sentence(reason);
                line_of(depth, &line, &mut self.text);
                if let Some(further) = further
                    && self.told.insert(further.clone())
                    && let Some(reasons) = self.all.get(further)
                {
                    if depth < DEEPEST {
                        self.tell(reasons, depth + 1);
                    } else {
                        line_of(depth + 1, &format!("and so on: ask for {further}"), &mut self.text);
                    }
                }
            }
        }
        if left_out > 0 {
            let reasons = if left_out == 1 { "reason" } else { "reasons" };
            line_of(depth, &format!("and {left_out} more such {reasons}: `--all` tells them"), &mut self.text);
        }
    }

    /// The reasons of one kind that are told, in their order. A hundred programs may need one library, and a few of these reasons say as
    /// much as all. One of each program is taken before a second one of any; among these, first what leads to something that was not
    /// told yet, then what says most ([`weight`]).
    fn chosen(&self, kind: &'a [Reason]) -> Vec<&'a Reason> {
        if kind.len() <= self.shown {
            return kind.iter().collect();
        }
        let mut ranked: Vec<_> = kind.iter().enumerate().map(|(place, reason)| (self.rank(reason), place)).collect();
        ranked.sort_unstable();
        let mut programs = BTreeSet::new();
        let (firsts, others): (Vec<_>, Vec<_>) =
            ranked.into_iter().partition(|((_, _, program), _)| programs.insert(*program));
        let mut places: Vec<usize> =
            firsts.into_iter().chain(others).map(|(_, place)| place).take(self.shown).collect();
        places.sort_unstable();
        places.into_iter().map(|place| &kind[place]).collect()
    }

    /// Whether a reason tells nothing new, how little it says, and of which program.
    fn rank(&self, reason: &'a Reason) -> (bool, u8, &'a str) {
        let Some(further) = sentence(reason).1 else { return (false, weight(reason), program(reason)) };
        let reasons = self.all.get(further).into_iter().flatten();
        let best = reasons.map(|reason| (weight(reason), program(reason))).min();
        let (weight, program) = best.unwrap_or((u8::MAX, ""));
        (self.told.contains(further), weight, program)
    }
}

/// How little a reason says by itself. What was executed is needed as a whole, and only the call that listed a directory explains why
/// a name in it is there; whoever only looks at something may well do without it.
fn weight(reason: &Reason) -> u8 {
    match reason {
        Reason::Touched { call, .. } => match &**call {
            "execve" | "execveat" => 0,
            "getdents" | "getdents64" | "readdir" => 1,
            call if call.starts_with("open") => 2,
            call if call.contains("stat") || call.contains("access") || call.starts_with("readlink") => 4,
            _ => 3,
        },
        Reason::Included { .. } | Reason::Repair { .. } => 0,
        _ => 5,
    }
}

fn program(reason: &Reason) -> &str {
    match reason {
        Reason::Touched { program, .. } | Reason::Repair { program, .. } => program,
        _ => "",
    }
}

fn line_of(depth: usize, line: &str, text: &mut String) {
    writeln!(text, "{:indent$}{line}", "", indent = 2 * depth).expect("writing to a String cannot fail");
}

/// Before there is a program, it is minjail that does something for it.
fn named(program: &str) -> &str {
    if program.is_empty() { "minjail, to start it" } else { program }
}

/// One reason in words, and the path whose reasons explain it further.
fn sentence(reason: &Reason) -> (String, Option<&JailPath>) {
    match reason {
        Reason::Touched { workload, program, call } => {
            (format!("touched by {} ({call}) in workload {workload}", named(program)), None)
        }
        Reason::Repair { workload, program } => {
            (format!("missed in the jail by {} in workload {workload}, and added by --repair", named(program)), None)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> JailPath {
        JailPath::parse(text.as_bytes()).unwrap()
    }

    fn touched(program: &str, call: &str) -> Reason {
        Reason::Touched { workload: "app".into(), program: program.into(), call: call.into() }
    }

    fn told(reasons: &[(&str, Vec<Reason>)], of: &str, shown: usize) -> String {
        let reasons = reasons.iter().map(|(at, reasons)| (path(at), Reasons::from(reasons.clone()))).collect();
        explain(&reasons, &path(of), shown).unwrap()
    }

    #[test]
    fn a_listing_is_among_the_reasons_of_what_it_has_shown() {
        let mut calls: Vec<Reason> =
            ["access", "chdir", "chmod", "fchdir", "openat"].map(|call| touched("/bin/a", call)).into();
        calls.extend(["access", "chdir"].map(|call| touched("/bin/b", call)));
        calls.push(touched("/bin/z", "getdents64"));
        let reasons = [("/d", calls), ("/d/f", vec![Reason::Listed { directory: path("/d") }])];
        let touched = |program: &str| format!("    touched by /bin/{program} in workload app\n");
        let [a, b, z] = ["a (openat)", "b (chdir)", "z (getdents64)"].map(touched);
        let more = "    and 5 more such reasons: `--all` tells them\n";
        let listed = "/d/f\n  its name was seen in a listing of /d\n";
        assert_eq!(told(&reasons, "/d/f", SHOWN), format!("{listed}{a}{b}{z}{more}"));
        let all = told(&reasons, "/d/f", usize::MAX);
        assert!(all.lines().count() == 10 && !all.contains("more"), "{all}");
    }

    #[test]
    fn a_chain_without_end_is_cut() {
        let name = |number: u32| format!("/{number}");
        let link =
            |number: u32| (path(&name(number)), Reasons::from([Reason::OnTheWay { to: path(&name(number + 1)) }]));
        let reasons: AllReasons = (0..200_000).map(link).collect();
        let told = explain(&reasons, &path("/0"), SHOWN).unwrap();
        assert_eq!(told.lines().count(), DEEPEST + 2);
        assert!(told.ends_with(&format!("and so on: ask for /{DEEPEST}\n")), "{told}");
    }

    #[test]
    fn what_explains_most_is_told() {
        let holds = |child: &str| Reason::Holds { child: path(child) };
        let reasons = [
            ("/d", ["/d/a", "/d/b", "/d/c", "/d/d", "/d/e"].map(holds).into()),
            ("/d/a", vec![touched("/bin/a", "stat")]),
            ("/d/b", vec![touched("/bin/a", "openat")]),
            ("/d/c", vec![touched("/bin/b", "stat")]),
            ("/d/d", vec![touched("/bin/a", "execve")]),
            ("/d/e", vec![Reason::Rule { rule: "volume".to_owned(), of: path("/x") }]),
        ];
        let all = told(&reasons, "/d", SHOWN);
        let shown: Vec<&str> = all.lines().filter_map(|line| line.strip_prefix("  holds ")).collect();
        assert_eq!(shown, ["/d/c", "/d/d", "/d/e"], "{all}");
        assert!(all.ends_with("  and 2 more such reasons: `--all` tells them\n"), "{all}");
    }
}
