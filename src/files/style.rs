//! Which mode and owner an image gets where more than one run tells of them, or more than one name of a file.
//!
//! In: what was touched. Out: of each path the mode and owner with which all runs do; and of which there are none.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::{once, repeat};

use super::Trouble;
use super::gather::Touched;
use super::state::{Finding, is_still};
use crate::path::{Facts, JailPath};
use crate::root::{Root, RootError};
use crate::trace::{Access, Conflict, Found, Header, Met, Run, Touch, Trace, agreed, is_kernels};

/// Gives each path its mode and owner, and each name of a file those of all its names.
pub(super) fn settle<'a>(
    paths: &mut BTreeMap<JailPath, Touched<'a>>,
    trace: &'a Trace,
    root: &Root,
    supplied: &BTreeSet<JailPath>,
) -> Result<Vec<Trouble>, RootError> {
    let passed = passed(paths, trace, root)?;
    let files = files_of_names(paths, root)?;
    let mut troubles: Vec<Trouble> = files.iter().flat_map(File::troubles).collect();
    let of_files: BTreeSet<&JailPath> = files.iter().flat_map(|file| &file.names).collect();
    // Of what a runtime supplies the image gets a placeholder.
    let is_alone = |path: &&JailPath| !of_files.contains(path) && !supplied.contains(path) && !is_kernels(path);
    let alone = paths.keys().filter(is_alone).map(std::slice::from_ref);
    let mut styles = Vec::new();
    for names in files.iter().map(|file| file.names.as_slice()).chain(alone) {
        let mut met: Vec<(&JailPath, &Met<'_>)> = Vec::new();
        for (name, touched) in names.iter().filter_map(|name| paths.get_key_value(name)) {
            met.extend(touched.findings.iter().map(|finding| (name, &finding.met)));
            met.extend(passed.get(name).into_iter().flatten().map(|met| (name, met)));
        }
        if met.len() < 2 {
            continue;
        }
        // The first run counts, whichever name it used.
        met.sort_by(|(_, one), (_, other)| one.header.cmp(other.header));
        match agreed(&met.iter().map(|(_, met)| *met).collect::<Vec<_>>()) {
            Ok(style) => styles.extend(names.iter().map(|name| (name.clone(), style))),
            Err(apart) => {
                let name =
                    |which: &Met<'_>| met.iter().find(|(_, met)| std::ptr::eq(*met, which)).map(|(name, _)| *name);
                let [one, path] = apart.map(|which| name(which).unwrap_or(&names[0]).clone());
                let error = Conflict::of_styles(&path, apart).into();
                troubles.push(Trouble { other: Some(one).filter(|one| *one != path), path, error });
            }
        }
    }
    for (name, style) in styles {
        paths.entry(name).and_modify(|touched| touched.style = style);
    }
    for File { names, changes } in files {
        for name in names {
            paths.entry(name).and_modify(|touched| {
                touched.xattrs = touched.xattrs.or(changes[0].xattrs);
                touched.granted |= changes[0].is_granted;
            });
        }
    }
    Ok(troubles)
}

/// What runs did with directories whose mode or owner a run has changed, by the names in them: a directory that is searched on a way is
/// not told of. Whoever has told nothing else of it is taken to have found it as it is now; a user that could not have done that then, as
/// a run found it that changed it since.
fn passed<'a>(
    paths: &mut BTreeMap<JailPath, Touched<'a>>,
    trace: &'a Trace,
    root: &Root,
) -> Result<BTreeMap<JailPath, Vec<Met<'a>>>, RootError> {
    let is_restyled = |touched: &Touched<'_>| touched.findings.iter().any(|finding| finding.met.is_restyled());
    let is_directory = |touched: &Touched<'_>| touched.findings.iter().all(|finding| finding.facts.is_directory());
    let restyled = paths.iter().filter(|(_, touched)| is_restyled(touched) && is_directory(touched));
    let restyled: BTreeSet<JailPath> = restyled.map(|(path, _)| path.clone()).collect();
    let mut passed: BTreeMap<JailPath, Vec<Met<'a>>> = BTreeMap::new();
    if restyled.is_empty() {
        return Ok(passed);
    }
    for Run { header, touches, .. } in &trace.runs {
        let mut rights: BTreeMap<JailPath, u32> = BTreeMap::new();
        for touch in touches.iter().filter(|touch| touch.is_reached()) {
            for (directory, is_parent) in touch.path.ancestors().zip(once(true).chain(repeat(false))) {
                if restyled.contains(&directory) {
                    *rights.entry(directory).or_default() |= if is_parent && changes_names(touch) { 0o3 } else { 0o1 };
                }
            }
        }
        for (directory, rights) in rights {
            let Some(touched) = paths.get_mut(&directory) else { continue };
            if let Some(finding) = touched.findings.iter_mut().find(|finding| std::ptr::eq(finding.met.header, header))
            {
                finding.met.was_let(rights);
            } else if let Some(now) = root.facts(&directory)? {
                let before = touched.findings.iter().filter(|finding| finding.met.is_restyled());
                let mut all = once(&now).chain(before.map(|finding| finding.facts));
                let found = all.find(|facts| header.is_let(facts, rights)).unwrap_or(&now);
                let mut met = Met::of(header, found);
                met.was_let(rights);
                passed.entry(directory).or_default().push(met);
            }
        }
    }
    Ok(passed)
}

/// True if it makes a name in the directory, or takes one away.
fn changes_names(touch: &Touch) -> bool {
    let makes = touch.found == Found::Missing && touch.access.makes();
    makes || matches!(touch.access, Access::Remove | Access::Replace)
}

/// A file of several names of which a run has changed mode, owner or attributes by one of these: other runs may have found them
/// changed by another.
struct File<'a> {
    names: Vec<JailPath>,
    /// The first run's first.
    changes: Vec<Change<'a>>,
}

/// What a run found before it changed mode, owner or attributes.
struct Change<'a> {
    path: JailPath,
    header: &'a Header,
    facts: &'a Facts,
    xattrs: Option<&'a BTreeMap<String, String>>,
    is_granted: bool,
}

fn files_of_names<'a>(paths: &BTreeMap<JailPath, Touched<'a>>, root: &Root) -> Result<Vec<File<'a>>, RootError> {
    let mut changes: BTreeMap<(u64, u64), Vec<Change<'a>>> = BTreeMap::new();
    for (path, touched) in paths {
        let Touched { xattrs, granted: is_granted, .. } = *touched;
        let is_changed = |finding: &&Finding<'_>| finding.is_linked() && finding.met.sets_attributes;
        for Finding { met, facts, .. } in touched.findings.iter().filter(is_changed) {
            let change = Change { path: path.clone(), header: met.header, facts, xattrs, is_granted };
            changes.entry(facts.inode()).or_default().push(change);
        }
    }
    let mut files: BTreeMap<(u64, u64), Vec<File<'a>>> = BTreeMap::new();
    for (inode, mut changes) in changes {
        changes.sort_by(|one, two| one.header.cmp(two.header));
        for change in changes {
            let files = files.entry(inode).or_default();
            let known = files.iter().map(|file| file.changes[0].is_of(&change.path, change.facts, root));
            match known.collect::<Result<Vec<_>, _>>()?.iter().position(|is_known| *is_known) {
                Some(at) => files[at].changes.push(change),
                None => files.push(File { names: Vec::new(), changes: vec![change] }),
            }
        }
    }
    for (path, touched) in paths {
        let told =
            touched.findings.iter().map(|finding| finding.facts).find(|facts| files.contains_key(&facts.inode()));
        let Some(facts) = told else { continue };
        for file in files.get_mut(&facts.inode()).into_iter().flatten() {
            if file.changes[0].is_of(path, facts, root)? {
                file.names.push(path.clone());
                break;
            }
        }
    }
    Ok(files.into_values().flatten().collect())
}

impl File<'_> {
    /// Two runs that both changed them, by different names, and found different attributes: nobody knows which was the first.
    fn troubles(&self) -> Vec<Trouble> {
        let Some((first, others)) = self.changes.split_first() else { return Vec::new() };
        let others = others.iter().filter(|other| other.path != first.path && other.header != first.header);
        let differ = others.filter(|other| first.xattrs.zip(other.xattrs).is_some_and(|(one, two)| one != two));
        let trouble = |Change { path, header, .. }: &Change<'_>| {
            let said = ["a file with some extended attributes", "one with others"].map(str::to_owned);
            let error = Conflict::of(path, [first.header, header], said).into();
            Trouble { path: path.clone(), other: Some(first.path.clone()), error }
        };
        differ.map(trouble).collect()
    }
}

impl Change<'_> {
    /// True if it is of the file of which something else was told at `path`.
    fn is_of(&self, path: &JailPath, facts: &Facts, root: &Root) -> Result<bool, RootError> {
        // Numbers are given anew, but not with the same size and time.
        let is_known = self.path == *path || self.facts.same_content(facts);
        Ok(is_known || is_still(path, facts, root)? && is_still(&self.path, self.facts, root)?)
    }
}
