//! Applying layers: from tar streams that anybody may have written to a directory.
//!
//! Links in the directory part of a name are followed inside the directory, as container engines do, and the last
//! component never is. Where that leads is known from what was made ([`Shape`]); all is made through [`Chroot`], which
//! follows no link.

use std::path::Path;
use std::sync::Arc;

use super::error::ReadError;
use super::names::{check_target, hidden, parse, refused};
use super::read::Image;
use super::reading::{Budget, Limits};
use super::shape::{Shape, Spot, Standing};
use super::stream::Members;
use crate::layer::untar::{Member, MemberKind};
use crate::path::JailPath;
use crate::root::{access_list, is_carried};
use crate::tree::{Chroot, Metadata, Node, Notes};

pub(super) fn unpack(image: &Image, directory: &Path, look: Look<'_>) -> Result<(Notes, Limits), ReadError> {
    let budget = Arc::new(Budget::new(image.limits));
    let shape = Shape::new(Made::Directory, budget.clone());
    let mut ground = Ground { chroot: Chroot::open(directory)?.readable(), shape };
    ground.chroot.make(&JailPath::root(), usual(), Node::Directory)?;
    for layer in &image.layers {
        ground.shape.start_layer();
        let mut members = Members::open(layer, &budget)?;
        while let Some(member) = members.next()? {
            look();
            ground.apply(&member, &mut members, look).map_err(|error| error.of_layer(&layer.part))?;
            budget.check()?;
        }
        members.finish()?;
    }
    Ok((ground.chroot.finish()?, budget.used()))
}

/// Called now and then, so that the work can be stopped.
pub(super) type Look<'a> = &'a mut dyn FnMut();

/// Where layers are applied.
struct Ground {
    chroot: Chroot,
    /// What is there.
    shape: Shape<Made>,
}

/// What was made at a path, as far as it matters for what comes next.
#[derive(Clone)]
enum Made {
    Directory,
    Link(Vec<u8>),
    Other,
}

impl Standing for Made {
    fn is_directory(&self) -> bool {
        matches!(self, Self::Directory)
    }

    fn target(&self) -> Option<&[u8]> {
        if let Self::Link(target) = self { Some(target) } else { None }
    }
}

/// Of a directory that no layer describes.
fn usual() -> Metadata {
    Metadata { mode: 0o755, ..Metadata::default() }
}

impl Ground {
    fn apply(&mut self, member: &Member, content: &mut Members<'_>, look: Look<'_>) -> Result<(), ReadError> {
        let refused = |why| refused(&member.name, why);
        let spelled = parse(&member.name).map_err(refused)?;
        if let Some(hidden) = hidden(&spelled).map_err(refused)? {
            let Self { chroot, shape } = self;
            return shape.white_out(&spelled, hidden, refused, |path| Ok(chroot.remove(path)?));
        }
        let spot = self.shape.locate(&spelled).map_err(refused)?;
        let metadata = metadata(member).map_err(refused)?;
        let (made, node) = match &member.kind {
            MemberKind::Directory => (Made::Directory, Some(Node::Directory)),
            MemberKind::File => (Made::Other, None),
            MemberKind::Symlink(target) => {
                check_target(target).map_err(refused)?;
                (Made::Link(target.clone()), Some(Node::Symlink { target }))
            }
            MemberKind::HardLink(target) => return self.hard_link(&spot, target, member),
            MemberKind::Fifo => (Made::Other, Some(Node::Fifo)),
            &MemberKind::CharDevice { major, minor } => {
                (Made::Other, Some(Node::CharDevice { major: major.into(), minor: minor.into() }))
            }
            &MemberKind::BlockDevice { major, minor } => {
                (Made::Other, Some(Node::BlockDevice { major: major.into(), minor: minor.into() }))
            }
        };
        let path = self.make_room(&spot, made, member)?;
        match node {
            Some(node) => Ok(self.chroot.make(&path, metadata, node)?),
            None => self.chroot.make_file(&path, &metadata, |buffer| {
                look();
                content.read_some(buffer)
            }),
        }
    }

    fn hard_link(&mut self, spot: &Spot, target: &[u8], member: &Member) -> Result<(), ReadError> {
        let (to, made) = self.shape.link_target(spot, target).map_err(|why| refused(&member.name, why))?;
        // Another name for a symbolic link is one, too.
        let (to, made) = (self.shape.path(&to), made.clone());
        let path = self.make_room(spot, made, member)?;
        Ok(self.chroot.make(&path, Metadata::default(), Node::HardLink { to: &to })?)
    }

    /// Makes the directories for what `member` makes, and removes what that replaces: anything but a directory by a
    /// directory. The path at which it is to be made.
    fn make_room(&mut self, spot: &Spot, made: Made, member: &Member) -> Result<JailPath, ReadError> {
        let path = self.shape.path(spot);
        let replaces = self.shape.get(spot).is_some_and(|there| !(there.is_directory() && made.is_directory()));
        let missing = spot.missing_directories();
        self.shape.put(spot, made, || Made::Directory).map_err(|why| refused(&member.name, why))?;
        if replaces {
            self.chroot.remove(&path)?;
        }
        let above: Vec<JailPath> = path.ancestors().take(missing).collect();
        for directory in above.iter().rev() {
            self.chroot.make(directory, usual(), Node::Directory)?;
        }
        Ok(path)
    }
}

pub(super) fn metadata(member: &Member) -> Result<Metadata, &'static str> {
    let id = |id: u64| u32::try_from(id).ok().filter(|&id| id != u32::MAX).ok_or("its owner has an impossible number");
    let carried = member.xattrs.iter().filter(|(name, _)| is_carried(name));
    let list = member.xattrs.get(access_list::NAME);
    Ok(Metadata {
        mode: list.map_or(member.mode, |list| access_list::mode_without(list, member.mode)),
        uid: id(member.uid)?,
        gid: id(member.gid)?,
        mtime: member.mtime,
        xattrs: carried.map(|(name, value)| (name.clone(), value.clone())).collect(),
    })
}
