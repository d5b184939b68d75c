//! Applying layers: from tar streams that anybody may have written to a directory.
//!
//! Names are taken apart here and only here: `..` is refused, links in the directory part of a name are followed
//! inside the directory, as container engines do, and the last component never is. All is made through
//! [`Chroot`], which follows no link.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::read::{Image, ReadError};
use super::reading::{Budget, Limits};
use super::stream::Members;
use crate::layer::untar::{Member, MemberKind};
use crate::path::{JailPath, escape};
use crate::root::{Root, is_carried};
use crate::tree::{Chroot, Metadata, Node, Notes};

pub(super) fn unpack(image: &Image, directory: &Path) -> Result<(Notes, Limits), ReadError> {
    let mut ground = Ground { chroot: Chroot::open(directory)?, root: Root::open(directory)?, fresh: BTreeSet::new() };
    let metadata = Metadata { mode: 0o755, ..Metadata::default() };
    ground.chroot.make(&JailPath::root(), metadata, Node::Directory)?;
    let budget = Arc::new(Budget::new(image.limits));
    for layer in &image.layers {
        ground.fresh.clear();
        let mut members = Members::open(layer, &budget)?;
        while let Some(member) = members.next()? {
            ground.apply(&member, &mut members)?;
        }
        members.finish()?;
    }
    Ok((ground.chroot.finish()?, budget.used()))
}

/// Where layers are applied.
struct Ground {
    chroot: Chroot,
    /// The same directory, to look at it.
    root: Root,
    /// What the present layer made: its own whiteouts do not concern that.
    fresh: BTreeSet<JailPath>,
}

impl Ground {
    fn apply(&mut self, member: &Member, content: &mut Members<'_>) -> Result<(), ReadError> {
        let refused = |why| ReadError::Refused { name: escape(&member.name), why };
        let spelled = parse(&member.name).map_err(refused)?;
        if let Some(hidden) = spelled.file_name().strip_prefix(b".wh.") {
            if matches!(hidden, b"" | b"." | b"..") {
                return Err(refused("it hides no name"));
            }
            let parent = spelled.parent().expect("a path with a name has a parent");
            return self.white_out(&parent, hidden);
        }
        let path = self.locate(&spelled, &member.name)?;
        let metadata = metadata(member).map_err(refused)?;
        let node = match &member.kind {
            MemberKind::Directory => Some(Node::Directory),
            MemberKind::File => None,
            MemberKind::Symlink(target) if target.is_empty() || target.contains(&0) => {
                return Err(refused("it is a link to nothing"));
            }
            MemberKind::Symlink(target) => Some(Node::Symlink { target }),
            MemberKind::HardLink(target) => return self.hard_link(&path, target, member),
            MemberKind::Fifo => Some(Node::Fifo),
            &MemberKind::CharDevice { major, minor } => {
                Some(Node::CharDevice { major: major.into(), minor: minor.into() })
            }
            &MemberKind::BlockDevice { major, minor } => {
                Some(Node::BlockDevice { major: major.into(), minor: minor.into() })
            }
        };
        self.make_room(&path, member)?;
        match node {
            Some(node) => self.chroot.make(&path, metadata, node)?,
            None => self.chroot.make_file(&path, &metadata, |buffer| content.read_some(buffer))?,
        }
        self.fresh.insert(path);
        Ok(())
    }

    fn hard_link(&mut self, path: &JailPath, target: &[u8], member: &Member) -> Result<(), ReadError> {
        let refused = |why| ReadError::Refused { name: escape(&member.name), why };
        let to = self.locate(&parse(target).map_err(refused)?, &member.name)?;
        if to == *path {
            return Err(refused("it is a hard link to itself"));
        }
        match self.root.lstat(&to)? {
            None => return Err(refused("it is a hard link to what is not there")),
            Some(facts) if facts.is_directory() => return Err(refused("it is a hard link to a directory")),
            Some(_) => {}
        }
        self.make_room(path, member)?;
        self.chroot.make(path, Metadata::default(), Node::HardLink { to: &to })?;
        self.fresh.insert(path.clone());
        Ok(())
    }

    /// Removes what `member` replaces: anything but a directory by a directory.
    fn make_room(&mut self, path: &JailPath, member: &Member) -> Result<(), ReadError> {
        let Some(facts) = self.root.lstat(path)? else { return Ok(()) };
        if facts.is_directory() && member.kind == MemberKind::Directory {
            return Ok(());
        }
        if path.is_root() {
            let why = "it would replace the root directory";
            return Err(ReadError::Refused { name: escape(&member.name), why });
        }
        if facts.is_directory() {
            for made in below(&self.fresh, path) {
                self.fresh.remove(&made);
            }
        }
        Ok(self.chroot.remove(path)?)
    }

    /// Where a name leads when the links in its directory part are followed inside the root. Directories that no layer
    /// has are made, as engines do.
    fn locate(&mut self, spelled: &JailPath, name: &[u8]) -> Result<JailPath, ReadError> {
        let Some(parent) = spelled.parent() else { return Ok(JailPath::root()) };
        let walk = self.root.resolve(&JailPath::root(), parent.as_bytes(), true)?;
        match walk.facts {
            Some(facts) if facts.is_directory() => {}
            Some(_) => {
                return Err(ReadError::Refused {
                    name: escape(name),
                    why: "it is below something that is no directory",
                });
            }
            None => self.make_parents(&walk.end, name)?,
        }
        Ok(walk.end.join(spelled.file_name()))
    }

    fn make_parents(&mut self, directory: &JailPath, name: &[u8]) -> Result<(), ReadError> {
        let mut missing = vec![directory.clone()];
        for above in directory.ancestors() {
            match self.root.lstat(&above)? {
                None => missing.push(above),
                Some(facts) if facts.is_directory() => break,
                Some(_) => {
                    let why = "it is below something that is no directory";
                    return Err(ReadError::Refused { name: escape(name), why });
                }
            }
        }
        for path in missing.into_iter().rev() {
            let metadata = Metadata { mode: 0o755, ..Metadata::default() };
            self.chroot.make(&path, metadata, Node::Directory)?;
            self.fresh.insert(path);
        }
        Ok(())
    }

    /// Removes what a lower layer has (OCI image specification, `layer.md`, "Whiteouts"): `.wh.NAME` hides the name,
    /// `.wh..wh..opq` all that is in the directory. Other names `.wh..wh.…` are AUFS's own and mean nothing here.
    fn white_out(&mut self, parent: &JailPath, hidden: &[u8]) -> Result<(), ReadError> {
        let walk = self.root.resolve(&JailPath::root(), parent.as_bytes(), true)?;
        if !walk.facts.is_some_and(|facts| facts.is_directory()) {
            return Ok(());
        }
        let names = match hidden {
            b".wh..opq" => self.root.list(&walk.end)?,
            _ if hidden.starts_with(b".wh.") => return Ok(()),
            _ => vec![hidden.to_vec()],
        };
        names.iter().try_for_each(|name| self.remove_lower(&walk.end.join(name)))
    }

    /// Removes `path` but for what the present layer made.
    fn remove_lower(&mut self, path: &JailPath) -> Result<(), ReadError> {
        if !has(&self.fresh, path) {
            return Ok(self.chroot.remove(path)?);
        }
        if self.root.lstat(path)?.is_some_and(|facts| facts.is_directory()) {
            for name in self.root.list(path)? {
                self.remove_lower(&path.join(&name))?;
            }
        }
        Ok(())
    }
}

/// What of a set is below `path`: that sorts from `path/\x01` on.
pub(super) fn below(set: &BTreeSet<JailPath>, path: &JailPath) -> Vec<JailPath> {
    set.range(path.join(&[1])..).take_while(|other| other.starts_with(path)).cloned().collect()
}

/// True if `path` or something below it is in a set.
pub(super) fn has(set: &BTreeSet<JailPath>, path: &JailPath) -> bool {
    set.contains(path) || set.range(path.join(&[1])..).next().is_some_and(|other| other.starts_with(path))
}

/// The path that a name in an archive means: from the root on, however it begins.
pub(super) fn parse(name: &[u8]) -> Result<JailPath, &'static str> {
    let mut path = JailPath::root();
    for component in name.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => return Err("it contains `..`"),
            _ if component.contains(&0) => return Err("it contains a NUL byte"),
            _ if component.len() > 255 => return Err("it has a component of more than 255 bytes"),
            _ => path = path.join(component),
        }
    }
    Ok(path)
}

pub(super) fn metadata(member: &Member) -> Result<Metadata, &'static str> {
    let id = |id: u64| u32::try_from(id).ok().filter(|&id| id != u32::MAX).ok_or("its owner has an impossible number");
    let carried = member.xattrs.iter().filter(|(name, _)| is_carried(name));
    Ok(Metadata {
        mode: member.mode,
        uid: id(member.uid)?,
        gid: id(member.gid)?,
        mtime: member.mtime,
        xattrs: carried.map(|(name, value)| (name.clone(), value.clone())).collect(),
    })
}
