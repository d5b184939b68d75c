//! How something was before the runs, whether all of them found it so, and whether the root still has it.

use std::collections::BTreeMap;
use std::io::{self, Read};

use sha2::{Digest, Sha256};

use super::gather::Touched;
use super::{FilesError, Trouble, Was, What};
use crate::path::{Facts, FileType, JailPath, escape, hex, unescape};
use crate::root::{Root, RootError};
use crate::trace::{Access, Found, Header, Touch, is_temporary};

/// What a run found first at a path.
#[derive(Debug)]
pub(super) struct Finding<'a> {
    header: &'a Header,
    first: &'a Facts,
    /// Those that belong to the content that was kept, if that was.
    facts: &'a Facts,
    before: Option<&'a str>,
    /// What it may have read first.
    read: Option<&'a Facts>,
    /// It has changed the mode or the owner, or was about to.
    is_restyled: bool,
    /// What it had read was something else by the time at which it was kept.
    is_torn: bool,
}

impl<'a> Touched<'a> {
    /// Takes what a run found: those of one run come one after the other.
    pub(super) fn find(&mut self, header: &'a Header, touch: &'a Touch) {
        let Found::There(facts) = &touch.found else { return };
        if self.findings.last().is_none_or(|last| !std::ptr::eq(last.header, header)) {
            self.findings.push(Finding::of(header, facts));
        }
        let Some(finding) = self.findings.last_mut() else { return };
        // The run itself changes nothing that it has not kept.
        if finding.before.is_none() && touch.before.is_some() && !finding.facts.same_content(facts) {
            finding.is_torn = finding.read.is_some_and(|read| !read.same_content(facts));
            finding.facts = facts;
        }
        finding.is_restyled |= touch.access == Access::Attributes;
        finding.before = finding.before.or(touch.before.as_deref());
        let reads = matches!(touch.access, Access::Read | Access::Execute | Access::Write);
        finding.read = finding.read.or(Some(facts).filter(|_| reads && touch.refused.is_none()));
    }

    /// The facts from before the runs: those that belong to the content that was kept, with the mode and owner from before they were
    /// changed.
    pub(super) fn facts(&self, first: &Facts) -> Facts {
        let kept = self.findings.iter().find(|finding| finding.before.is_some());
        let restyled = self.findings.iter().find(|finding| finding.is_restyled).or(kept);
        let (kept, restyled) = (kept.map_or(first, |kept| kept.facts), restyled.map_or(first, |one| one.first));
        let restyled = self.styled.unwrap_or(restyled);
        Facts { mode: restyled.mode, uid: restyled.uid, gid: restyled.gid, ..kept.clone() }
    }

    /// Two runs must have kept the same content, and where one has kept what it changed, another must not have read what that one
    /// wrote. Who has found the file elsewhere tells of another inode and another time, and may have found the same.
    ///
    /// # Errors
    /// It has read something else; or what one has read was changed before it was kept.
    pub(super) fn found_the_same(&self, path: &JailPath, root: &Root) -> Result<(), FilesError> {
        if let Some(other) = self.contradiction {
            return Err(conflict(path, self.header, other));
        }
        if self.findings.iter().any(|finding| finding.is_torn) {
            return Err(FilesError::Torn { path: path.clone() });
        }
        let (kept, others): (Vec<_>, Vec<_>) = self.findings.iter().partition(|finding| finding.before.is_some());
        let Some((first, before)) = kept.first().and_then(|first| Some((first, first.before?))) else { return Ok(()) };
        for other in others.into_iter().filter(|finding| finding.read.is_some() && finding.facts.is_file()) {
            // Of one time and size there may be two files.
            let is_other = |kept: &Facts| kept.dev == other.facts.dev && kept.ino != other.facts.ino;
            if kept.iter().any(|kept| kept.facts.same_content(other.facts) && !is_other(kept.facts)) {
                continue;
            }
            let now = root.facts(path)?;
            let is_now = now.is_some_and(|now| now.is_unchanged(other.facts));
            let differs = if other.facts.size != first.facts.size {
                true
            } else if is_now || kept.iter().any(|kept| kept.facts.inode() == other.facts.inode()) {
                !has_content(path, before, root)
            } else {
                false
            };
            if differs {
                return Err(conflict(path, first.header, other.header));
            }
        }
        Ok(())
    }
}

impl<'a> Finding<'a> {
    fn of(header: &'a Header, facts: &'a Facts) -> Self {
        Self { header, first: facts, facts, before: None, read: None, is_restyled: false, is_torn: false }
    }
}

/// What a run found before it changed mode, owner or attributes of a file of several names.
struct Style<'a> {
    path: JailPath,
    header: &'a Header,
    facts: &'a Facts,
    xattrs: Option<&'a BTreeMap<String, String>>,
    is_granted: bool,
}

impl Style<'_> {
    /// True if it is of the file of which something else was told at `path`.
    fn is_of(&self, path: &JailPath, facts: &Facts, root: &Root) -> Result<bool, RootError> {
        // Numbers are given anew, but not with the same size and time.
        let is_known = self.path == *path || self.facts.same_content(facts);
        Ok(is_known || is_still(path, facts, root)? && is_still(&self.path, self.facts, root)?)
    }

    fn differs(&self, other: &Self) -> bool {
        let [one, two] = [self, other].map(|style| (style.facts.mode, style.facts.uid, style.facts.gid));
        one != two || self.xattrs.zip(other.xattrs).is_some_and(|(one, two)| one != two)
    }
}

/// Of a file of several names, the mode, owner and attributes from before a run changed them by one of these are told of the others too,
/// by which another run may have found them changed. Tells of two runs of which both have changed them, by different names, and found
/// them different: nobody knows which was the first.
pub(super) fn share_styles<'a>(
    paths: &mut BTreeMap<JailPath, Touched<'a>>,
    root: &Root,
) -> Result<Vec<Trouble>, RootError> {
    let mut files: BTreeMap<(u64, u64), Vec<Style<'a>>> = BTreeMap::new();
    for (path, touched) in &*paths {
        let Touched { xattrs, granted: is_granted, .. } = *touched;
        let is_one = |finding: &&Finding<'_>| finding.is_restyled && finding.first.is_file() && finding.first.nlink > 1;
        for &Finding { header, first: facts, .. } in touched.findings.iter().filter(is_one) {
            let style = Style { path: path.clone(), header, facts, xattrs, is_granted };
            files.entry(facts.inode()).or_default().push(style);
        }
    }
    let mut troubles = Vec::new();
    for styles in files.values_mut() {
        // The first run counts, as where all use one name.
        styles.sort_by(|one, two| one.header.cmp(two.header));
        let Some((first, others)) = styles.split_first() else { continue };
        for Style { path, header, facts, .. } in others.iter().filter(|other| other.differs(first)) {
            if *path != first.path && *header != first.header && first.is_of(path, facts, root)? {
                let (one, two) = (first.header.workload.clone(), header.workload.clone());
                let error = FilesError::Styles { path: path.clone(), first: one, second: two };
                troubles.push(Trouble { path: path.clone(), other: Some(first.path.clone()), error });
            }
        }
    }
    for (path, touched) in paths.iter_mut() {
        let told = |one: &Finding<'a>| Some((one.facts, files.get(&one.facts.inode())?));
        let Some((facts, styles)) = touched.findings.iter().find_map(told) else { continue };
        for style in styles {
            if style.is_of(path, facts, root)? {
                touched.styled = Some(style.facts);
                touched.xattrs = touched.xattrs.or(style.xattrs);
                touched.granted |= style.is_granted;
                break;
            }
        }
    }
    Ok(troubles)
}

/// True if the root still has at `path` what had these `facts`, by its number.
fn is_still(path: &JailPath, facts: &Facts, root: &Root) -> Result<bool, RootError> {
    Ok(root.facts(path)?.is_some_and(|now| now.inode() == facts.inode()))
}

/// Of a file of several names, a run must not have read by one what another wrote by another; as far as they still are names of one
/// file, since numbers are given anew. Tells of all of which one has.
pub(super) fn names_agree(paths: &BTreeMap<JailPath, Touched<'_>>, root: &Root) -> Result<Vec<Trouble>, RootError> {
    let mut troubles = Vec::new();
    let linked = |finding: &&Finding<'_>| finding.facts.is_file() && finding.facts.nlink > 1;
    let all =
        || paths.iter().flat_map(|(path, touched)| touched.findings.iter().filter(linked).map(move |one| (path, one)));
    let mut kept: BTreeMap<(u64, u64), Vec<(&JailPath, &Finding<'_>)>> = BTreeMap::new();
    for (path, one) in all().filter(|(_, one)| one.before.is_some()) {
        kept.entry(one.facts.inode()).or_default().push((path, one));
    }
    for (path, other) in all().filter(|(_, other)| other.read.is_some() || other.before.is_some()) {
        let of_others = |(_, one): &&(&JailPath, &Finding<'_>)| !std::ptr::eq(one.header, other.header);
        let kept: Vec<_> = kept.get(&other.facts.inode()).into_iter().flatten().filter(of_others).collect();
        if kept.iter().any(|(_, one)| one.facts.same_content(other.facts)) || !is_still(path, other.facts, root)? {
            continue;
        }
        for (name, one) in kept.into_iter().filter(|(name, _)| *name != path) {
            let differs =
                one.facts.size != other.facts.size || one.before.is_some_and(|before| !has_content(path, before, root));
            if differs && is_still(name, one.facts, root)? {
                let error = conflict(path, one.header, other.header);
                troubles.push(Trouble { path: path.clone(), other: Some((*name).clone()), error });
            }
        }
    }
    Ok(troubles)
}

pub(super) fn conflict(path: &JailPath, first: &Header, second: &Header) -> FilesError {
    FilesError::Conflict { path: path.clone(), first: first.workload.clone(), second: second.workload.clone() }
}

/// As it is, if it still is as the run found it; else as it was.
pub(super) fn state(path: &JailPath, touched: &Touched<'_>, facts: &Facts, root: &Root) -> Result<What, FilesError> {
    let now = root.facts(path)?;
    // Whatever has become of it, nobody has read it.
    if facts.is_file() && !touched.granted {
        return Ok(What::Sealed(Box::new(facts.clone())));
    }
    let is_there = now.as_ref().is_some_and(|now| is_there(path, touched, facts, now, root));
    let same = now.as_ref().is_some_and(|now| {
        is_there && (facts.file_type, facts.mode, facts.uid, facts.gid) == (now.file_type, now.mode, now.uid, now.gid)
    });
    let xattrs = touched.xattrs_before();
    let has_its_own = match &xattrs {
        Some(xattrs) if now.is_some() => root.xattrs(path)? == *xattrs,
        _ => true,
    };
    // Of a temporary file the copy is taken even while it is still there: it may be gone at any moment. Of one of several names, since
    // another of them may be gone by now, and they are to stay names of one file.
    let takes_copy = is_temporary(path) || facts.nlink > 1;
    if same && has_its_own && (touched.before.is_none() || !takes_copy) {
        return Ok(What::AsIs);
    }
    if facts.is_file() && touched.before.is_none() && !is_there {
        let path = path.clone();
        return Err(if now.is_some() { FilesError::Changed { path } } else { FilesError::Gone { path } });
    }
    Ok(What::Was(Box::new(Was {
        facts: facts.clone(),
        content: touched.before.map(str::to_owned).filter(|_| !is_there || takes_copy),
        target: touched.first.target.as_deref().and_then(unescape),
        xattrs,
    })))
}

/// True if what is at `path` `now` is still what had these `facts`, whatever its owner and mode are.
fn is_there(path: &JailPath, touched: &Touched<'_>, facts: &Facts, now: &Facts, root: &Root) -> bool {
    match facts.file_type {
        FileType::Directory => return now.is_directory(),
        // Its size and time tell nothing of its text: `cp -a` and `touch -h -d` set them.
        FileType::Symlink if facts.same_content(now) && touched.first.target.is_some() => {
            return root.read_link(path).is_ok_and(|text| touched.first.target == Some(escape(&text)));
        }
        FileType::CharDevice | FileType::BlockDevice if facts.rdev != now.rdev => return false,
        _ => {}
    }
    let Some(before) = touched.before else { return facts.same_content(now) };
    // Where there is a copy, another file of the same size and time is not taken for the one that was there; nor is the same one,
    // if it was written and then given its time back (`touch -d`, `cp -p`).
    facts.is_unchanged(now) && has_content(path, before, root)
}

/// True if the file at `path` has the content with this digest. Where it cannot be read, the copy is as good.
pub(super) fn has_content(path: &JailPath, digest: &str, root: &Root) -> bool {
    let read = root.open_file(path).map_err(|error| error.source).and_then(sha256);
    read.is_ok_and(|read| read == digest)
}

fn sha256(mut file: impl Read) -> io::Result<String> {
    let (mut hash, mut piece) = (Sha256::new(), vec![0; 64 * 1024]);
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(hex(&hash.finalize())),
            Ok(read) => hash.update(&piece[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
