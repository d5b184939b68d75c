//! People's own settings: what stands in a home directory under a name with a dot, as shells, editors and libraries read it unasked.

use std::collections::BTreeSet;

use super::{FileSet, Note, What};
use crate::path::JailPath;
use crate::trace::Trace;

/// Tells of what is packed of the machine's people, of `.config` as of one. Where a run started, or its program lies, it was meant.
pub(super) fn tell(files: &FileSet, trace: &Trace, notes: &mut Vec<Note>) {
    if trace.runs.iter().all(|run| run.header.is_in_jail()) {
        return;
    }
    let meant: BTreeSet<JailPath> =
        trace.runs.iter().flat_map(|run| [&run.header.directory, &run.header.program]).filter_map(setting).collect();
    let has_content = |what: &What| matches!(what, What::AsIs | What::Was(_));
    let packed = files.wanted.iter().filter(|(_, wanted)| has_content(&wanted.what)).map(|(path, _)| path);
    let settings: BTreeSet<JailPath> = packed.filter_map(setting).collect();
    notes.extend(settings.difference(&meant).map(|path| Note::Home { path: path.clone() }));
}

/// `/home/anna/.config` of `/home/anna/.config/git/ignore`.
fn setting(path: &JailPath) -> Option<JailPath> {
    let depth = match path.components().next()? {
        b"root" => 1,
        b"home" => 2,
        _ => return None,
    };
    let name = path.components().nth(depth).filter(|name| name.starts_with(b"."))?;
    let home = path.components().take(depth).fold(JailPath::root(), |at, part| at.join(part));
    Some(home.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{Reason, Wanted};
    use crate::trace::{Header, Run};

    fn path(text: &'static str) -> JailPath {
        JailPath::literal(text.as_bytes())
    }

    #[test]
    fn settings_that_nobody_named() {
        let mut files = FileSet::default();
        let all = ["/root/.bashrc", "/root/.config/a", "/root/.config/b", "/home/anna/.venv/x", "/root/x", "/home/.x"];
        for at in all.map(path) {
            files.add(at.clone(), What::AsIs, Reason::Holds { child: at });
        }
        files.wanted.insert(path("/root/.listed"), Wanted { what: What::Placeholder, reasons: [].into() });
        let mut header = Header::new("a", path("/usr/bin/true"));
        header.directory = path("/home/anna/.venv");
        let mut trace = Trace { runs: vec![Run::new(header)], ..Trace::default() };
        let told = |trace: &Trace| {
            let mut notes = Vec::new();
            tell(&files, trace, &mut notes);
            notes
        };
        let note = |at| Note::Home { path: path(at) };
        assert_eq!(told(&trace), ["/root/.bashrc", "/root/.config"].map(note));
        trace.runs[0].header.root = "/elsewhere".into();
        assert_eq!(told(&trace), []);
    }
}
