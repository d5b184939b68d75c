//! How something was before the runs, whether all of them found it so, and whether the root still has it.

use std::collections::BTreeMap;
use std::io::{self, Read};

use sha2::{Digest, Sha256};

use super::gather::Touched;
use super::special::is_ld_cache;
use super::{FilesError, Trouble, Was, What};
use crate::path::{Facts, FileType, JailPath, escape, hex, unescape};
use crate::root::{Root, RootError};
use crate::trace::{Access, Conflict, Found, Header, Met, Style, Touch, is_temporary};

/// What a run found first at a path.
#[derive(Debug)]
pub(super) struct Finding<'a> {
    /// What it found first, and did with that.
    pub(super) met: Met<'a>,
    /// Those that belong to the content that was kept, if that was.
    pub(super) facts: &'a Facts,
    before: Option<&'a str>,
    /// What it may have read first.
    read: Option<&'a Facts>,
    /// What it had read was something else by the time at which it was kept.
    is_torn: bool,
}

impl<'a> Touched<'a> {
    /// Takes what a run found: those of one run come one after the other.
    pub(super) fn find(&mut self, header: &'a Header, touch: &'a Touch) {
        let Found::There(facts) = &touch.found else { return };
        if self.findings.last().is_none_or(|last| !std::ptr::eq(last.met.header, header)) {
            self.findings.push(Finding::of(header, facts));
        }
        let Some(finding) = self.findings.last_mut() else { return };
        // The run itself changes nothing that it has not kept.
        if finding.before.is_none() && touch.before.is_some() && !finding.facts.same_content(facts) {
            finding.is_torn = finding.read.is_some_and(|read| !read.same_content(facts));
            finding.facts = facts;
        }
        finding.met.take(touch);
        finding.before = finding.before.or(touch.before.as_deref());
        let reads = matches!(touch.access, Access::Read | Access::Execute | Access::Write);
        finding.read = finding.read.or(Some(facts).filter(|_| reads && touch.refused.is_none()));
    }

    /// The facts from before the runs: those that belong to the content that was kept, with the mode and owner with which all do.
    pub(super) fn facts(&self, first: &Facts) -> Facts {
        let kept = self.findings.iter().find(|finding| finding.before.is_some());
        let Style { mode, uid, gid } = self.style.unwrap_or_else(|| first.into());
        Facts { mode, uid, gid, ..kept.map_or(first, |kept| kept.facts).clone() }
    }

    /// Checks that the runs found one content. All that kept it must have kept the same; and where one kept the content before it
    /// changed the file, no other may have read what that one wrote. Inodes and times may differ all the same: of runs on two
    /// machines they do.
    ///
    /// # Errors
    /// Two runs found different contents; or somebody else changed the file after a run had read it and before it was kept.
    pub(super) fn found_the_same(&self, path: &JailPath, root: &Root) -> Result<(), FilesError> {
        if let Some(other) = self.contradiction {
            return Err(conflict(path, self.header, other));
        }
        if self.findings.iter().any(|finding| finding.is_torn) {
            return Err(FilesError::Torn { path: path.clone() });
        }
        let (kept, others): (Vec<_>, Vec<_>) = self.findings.iter().partition(|finding| finding.before.is_some());
        let Some((first, before)) = kept.first().and_then(|first| Some((first, first.before?))) else {
            return self.read_the_same(path);
        };
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
                return Err(conflict(path, first.met.header, other.met.header));
            }
        }
        Ok(())
    }

    /// Where no run has kept the content, the image gets the one that the first has found: another must not have read it when somebody
    /// else had changed it.
    fn read_the_same(&self, path: &JailPath) -> Result<(), FilesError> {
        let Some((first, others)) = self.findings.split_first() else { return Ok(()) };
        let is_another = |facts: &Facts| {
            let is_same_file = facts.inode() == first.facts.inode();
            facts.size != first.facts.size || is_same_file && !facts.same_content(first.facts)
        };
        let mut read = others.iter().filter(|finding| finding.read.is_some() && finding.facts.is_file());
        read.find(|finding| is_another(finding.facts))
            .map_or(Ok(()), |other| Err(conflict(path, first.met.header, other.met.header)))
    }
}

impl<'a> Finding<'a> {
    fn of(header: &'a Header, facts: &'a Facts) -> Self {
        Self { met: Met::of(header, facts), facts, before: None, read: None, is_torn: false }
    }

    /// True of a file of several names.
    pub(super) fn is_linked(&self) -> bool {
        self.facts.is_file() && self.facts.nlink > 1
    }
}

/// True if the root still has at `path` what had these `facts`, by its number.
pub(super) fn is_still(path: &JailPath, facts: &Facts, root: &Root) -> Result<bool, RootError> {
    Ok(root.facts(path)?.is_some_and(|now| now.inode() == facts.inode()))
}

/// What each run has found of files of several names, by each of these.
pub(super) fn linked<'a, 'b>(
    paths: &'b BTreeMap<JailPath, Touched<'a>>,
) -> impl Iterator<Item = (&'b JailPath, &'b Finding<'a>)> {
    let all = paths.iter().flat_map(|(path, touched)| touched.findings.iter().map(move |finding| (path, finding)));
    all.filter(|(_, finding)| finding.is_linked())
}

/// Where a run kept the content of a file of several names before it changed it by one of them, that content counts for the other
/// names too, if other runs read the same by these, or nothing.
pub(super) fn share_contents(paths: &mut BTreeMap<JailPath, Touched<'_>>, root: &Root) -> Result<(), RootError> {
    let mut kept = BTreeMap::new();
    for (path, finding) in linked(paths) {
        if let Some(before) = finding.before {
            let of_file: &mut Vec<_> = kept.entry(finding.facts.inode()).or_default();
            of_file.push((path.clone(), finding.facts, before));
        }
    }
    for (path, touched) in paths.iter_mut().filter(|(_, touched)| touched.before.is_none()) {
        for finding in touched.findings.iter_mut().filter(|finding| finding.is_linked()) {
            for &(ref name, facts, before) in kept.get(&finding.facts.inode()).into_iter().flatten() {
                let is_same = facts.same_content(finding.facts);
                let is_unread = || finding.read.is_none();
                if is_same || is_unread() && is_still(path, finding.facts, root)? && is_still(name, facts, root)? {
                    (finding.facts, finding.before) = (facts, Some(before));
                    touched.before = touched.before.or(finding.before);
                    break;
                }
            }
        }
    }
    Ok(())
}

/// Finds every file of several names of which one run read, by one name, what another run wrote by another name. Only names that still
/// lead to one file count: the number of an inode that was freed is given to another file.
pub(super) fn names_agree(paths: &BTreeMap<JailPath, Touched<'_>>, root: &Root) -> Result<Vec<Trouble>, RootError> {
    let mut troubles = Vec::new();
    let mut kept: BTreeMap<(u64, u64), Vec<(&JailPath, &Finding<'_>)>> = BTreeMap::new();
    for (path, one) in linked(paths).filter(|(_, one)| one.before.is_some()) {
        kept.entry(one.facts.inode()).or_default().push((path, one));
    }
    for (path, other) in linked(paths).filter(|(_, other)| other.read.is_some() || other.before.is_some()) {
        let of_others = |(_, one): &&(&JailPath, &Finding<'_>)| !std::ptr::eq(one.met.header, other.met.header);
        let kept: Vec<_> = kept.get(&other.facts.inode()).into_iter().flatten().filter(of_others).collect();
        if kept.iter().any(|(_, one)| one.facts.same_content(other.facts)) || !is_still(path, other.facts, root)? {
            continue;
        }
        for (name, one) in kept.into_iter().filter(|(name, _)| *name != path) {
            let differs =
                one.facts.size != other.facts.size || one.before.is_some_and(|before| !has_content(path, before, root));
            if differs && is_still(name, one.facts, root)? {
                let error = conflict(path, one.met.header, other.met.header);
                troubles.push(Trouble { path: path.clone(), other: Some((*name).clone()), error });
            }
        }
    }
    Ok(troubles)
}

fn conflict(path: &JailPath, first: &Header, second: &Header) -> FilesError {
    let said = ["a file with one content", "one with another"].map(str::to_owned);
    Conflict::of(path, [first, second], said).into()
}

/// As it is, if it still is as the run found it; else as it was.
pub(super) fn state(path: &JailPath, touched: &Touched<'_>, facts: &Facts, root: &Root) -> Result<What, FilesError> {
    let now = root.facts(path)?;
    if is_ld_cache(path) && touched.before.is_none() && now.as_ref().is_some_and(Facts::is_file) {
        return Ok(What::AsIs);
    }
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
        return Err(match now {
            // It would have been kept, had it been let.
            _ if touched.is_altered && !touched.header.is_let(facts, 0o4) => FilesError::Unread { path },
            Some(_) => FilesError::Changed { path },
            None => FilesError::Gone { path },
        });
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
