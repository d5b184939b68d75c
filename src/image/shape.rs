//! What stands where while layers are applied one over the other, in memory: names, links and the layer that made each.
//!
//! In: names as layers spell them. Out: where they lead, what is there, and what a whiteout hides. Both who tells what
//! an image amounts to and who unpacks it go by this, so that they agree. Every step costs no more than what stands at
//! its place and what is taken away from there, and is counted: the layers are by strangers.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::names::{check_name, check_size, parse};
use super::reading::Budget;
use crate::path::JailPath;

/// As many links as the kernel follows on the way of one path (`path_resolution(7)`).
const MAX_LINKS: usize = 40;

/// So many components on the way to an entry cost as much as another entry.
const STEPS: usize = 32;

/// What can stand at a path.
pub(super) trait Standing {
    fn is_directory(&self) -> bool;

    /// The text of a symbolic link.
    fn target(&self) -> Option<&[u8]>;
}

/// The number of a node.
type Id = usize;

const ROOT: Id = 0;

/// What the layers so far amount to.
pub(super) struct Shape<T> {
    /// A node stays here without its value when it is gone: what was made was counted, so that they are not too many.
    nodes: Vec<Node<T>>,
    /// The present layer's number, from 1 on.
    layer: u32,
    budget: Arc<Budget>,
}

struct Node<T> {
    /// `None` once it is gone.
    value: Option<T>,
    parent: Id,
    name: Arc<[u8]>,
    /// Of its path: the number of components, and the bytes.
    depth: usize,
    length: usize,
    children: BTreeMap<Arc<[u8]>, Id>,
    /// The latest layer that made this or something below: what the present layer made, its own whiteouts do not concern.
    newest: u32,
    /// The latest layer for which all that is below was seen to be from that layer, so that nothing more can be hidden.
    cleared: u32,
}

/// A place: what is there, or the last thing on the way that is, and the names behind it that are not.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Spot {
    at: Id,
    missing: Vec<Vec<u8>>,
}

impl Spot {
    const fn root() -> Self {
        Self { at: ROOT, missing: Vec::new() }
    }

    /// How many directories there must be made for something to stand here.
    pub(super) fn missing_directories(&self) -> usize {
        self.missing.len().saturating_sub(1)
    }
}

impl<T: Standing> Shape<T> {
    /// Nothing but a root directory.
    pub(super) fn new(root: T, budget: Arc<Budget>) -> Self {
        let node = Node {
            value: Some(root),
            parent: ROOT,
            name: Arc::default(),
            depth: 0,
            length: 0,
            children: BTreeMap::new(),
            newest: 0,
            cleared: 0,
        };
        Self { nodes: vec![node], layer: 0, budget }
    }

    pub(super) fn start_layer(&mut self) {
        self.layer += 1;
    }

    /// What is at a place.
    pub(super) fn get(&self, spot: &Spot) -> Option<&T> {
        if spot.missing.is_empty() { self.nodes[spot.at].value.as_ref() } else { None }
    }

    pub(super) fn path(&self, spot: &Spot) -> JailPath {
        let mut names: Vec<&[u8]> = spot.missing.iter().rev().map(Vec::as_slice).collect();
        let mut at = spot.at;
        while at != ROOT {
            names.push(&self.nodes[at].name);
            at = self.nodes[at].parent;
        }
        JailPath::of(names.into_iter().rev())
    }

    /// The place of a name when the links in its directory part are followed; the last component is not.
    pub(super) fn locate(&self, spelled: &JailPath) -> Result<Spot, &'static str> {
        let (directory, name) = split(spelled);
        let mut spot = self.follow(directory)?;
        if !name.is_empty() {
            self.enter(&mut spot, name);
        }
        let there = &self.nodes[spot.at];
        let length = there.length + spot.missing.iter().map(|name| 1 + name.len()).sum::<usize>();
        check_size(there.depth + spot.missing.len(), length)?;
        spot.missing.iter().try_for_each(|name| check_name(name))?;
        // A short name behind links can be a long path.
        self.budget.take_entries((length.saturating_sub(spelled.as_bytes().len()) / 1024) as u64);
        Ok(spot)
    }

    /// What a hard link at `spot` is another name of: something that is there, and no directory.
    pub(super) fn link_target(&self, spot: &Spot, target: &[u8]) -> Result<(Spot, &T), &'static str> {
        let to = self.locate(&parse(target)?)?;
        if to == *spot {
            return Err("it is a hard link to itself");
        }
        match self.get(&to) {
            None => Err("it is a hard link to what is not there"),
            Some(there) if there.is_directory() => Err("it is a hard link to a directory"),
            Some(there) => Ok((to, there)),
        }
    }

    /// Puts a value at a place, instead of what is there; a directory keeps what is in it. Directories that no layer has
    /// are made, as engines do.
    pub(super) fn put(&mut self, spot: &Spot, value: T, directory: impl Fn() -> T) -> Result<(), &'static str> {
        let Some((name, above)) = spot.missing.split_last() else { return self.replace(spot.at, value) };
        if !self.is_directory(spot.at) {
            return Err("it is below something that is no directory");
        }
        let mut at = spot.at;
        for name in above {
            at = self.add(at, name, directory());
            let Node { depth, length, .. } = self.nodes[at];
            self.budget.take_entries(1 + (depth / STEPS + length / 1024) as u64);
        }
        at = self.add(at, name, value);
        self.freshen(at);
        Ok(())
    }

    /// Hides what a lower layer has (OCI image specification, `layer.md`, "Whiteouts"): `.wh.NAME` hides the name,
    /// `.wh..wh..opq` all that is in the directory. Other names `.wh..wh.…` are AUFS's own and mean nothing here.
    ///
    /// `spelled` is the whiteout's own name, and `removed` is told what goes, without what is below that.
    pub(super) fn white_out<E>(
        &mut self,
        spelled: &JailPath,
        hidden: &[u8],
        refused: impl FnOnce(&'static str) -> E,
        mut removed: impl FnMut(&JailPath) -> Result<(), E>,
    ) -> Result<(), E> {
        let Spot { at: directory, missing } = self.follow(split(spelled).0).map_err(refused)?;
        let top = match hidden {
            _ if !missing.is_empty() => None,
            b".wh..opq" => Some(directory),
            _ if hidden.starts_with(b".wh.") => None,
            _ => self.nodes[directory].children.get(hidden).copied(),
        };
        let Some(top) = top else { return Ok(()) };
        if top != directory && self.nodes[top].newest != self.layer {
            removed(&self.path(&Spot { at: top, missing: Vec::new() }))?;
            self.detach(top);
            return Ok(());
        }
        let mut todo = vec![top];
        while let Some(at) = todo.pop() {
            // Something of a lower layer cannot come back: a second marker finds nothing.
            if std::mem::replace(&mut self.nodes[at].cleared, self.layer) == self.layer {
                continue;
            }
            let is_lower = |&&child: &&Id| self.nodes[child].newest != self.layer;
            let lower: Vec<Id> = self.nodes[at].children.values().filter(is_lower).copied().collect();
            if !lower.is_empty() {
                let path = self.path(&Spot { at, missing: Vec::new() });
                for child in lower {
                    removed(&path.join(&self.nodes[child].name))?;
                    self.detach(child);
                }
            }
            todo.extend(self.nodes[at].children.values());
        }
        Ok(())
    }

    /// All that there is, with its path, in no order.
    pub(super) fn into_values(mut self) -> Vec<(JailPath, T)> {
        let mut values = Vec::new();
        let mut todo = vec![(ROOT, JailPath::root())];
        while let Some((at, path)) = todo.pop() {
            let node = &mut self.nodes[at];
            let value = node.value.take();
            for (name, child) in std::mem::take(&mut node.children) {
                todo.push((child, path.join(&name)));
            }
            values.extend(value.map(|value| (path, value)));
        }
        values
    }

    fn is_directory(&self, at: Id) -> bool {
        self.nodes[at].value.as_ref().is_some_and(Standing::is_directory)
    }

    /// Where a path leads, its last component too, if every link is followed inside the root.
    fn follow(&self, path: &[u8]) -> Result<Spot, &'static str> {
        let mut spot = Spot::root();
        // What is left of the path, and on top of it of each link's text.
        let mut todo = vec![path];
        let (mut links, mut steps) = (0, 0);
        while let Some(text) = todo.pop() {
            let slash = text.iter().position(|&byte| byte == b'/');
            if let Some(slash) = slash {
                todo.push(&text[slash + 1..]);
            }
            steps += 1;
            match &text[..slash.unwrap_or(text.len())] {
                b"" | b"." => {}
                b".." if spot.missing.pop().is_some() => {}
                b".." => spot.at = self.nodes[spot.at].parent,
                name => {
                    self.enter(&mut spot, name);
                    let Some(target) = self.get(&spot).and_then(Standing::target) else { continue };
                    links += 1;
                    if links > MAX_LINKS {
                        return Err("it is behind too many links");
                    }
                    spot.at = if target.starts_with(b"/") { ROOT } else { self.nodes[spot.at].parent };
                    todo.push(target);
                }
            }
        }
        self.budget.take_entries((steps / STEPS) as u64);
        Ok(spot)
    }

    /// Goes to what has this name there.
    fn enter(&self, spot: &mut Spot, name: &[u8]) {
        match self.nodes[spot.at].children.get(name) {
            Some(&child) if spot.missing.is_empty() => spot.at = child,
            _ => spot.missing.push(name.to_vec()),
        }
    }

    fn replace(&mut self, at: Id, value: T) -> Result<(), &'static str> {
        let are_directories = self.is_directory(at) && value.is_directory();
        if at == ROOT && !are_directories {
            return Err("it would replace the root directory");
        }
        if !are_directories {
            self.clear(at);
            self.nodes[at].cleared = self.layer;
        }
        self.nodes[at].value = Some(value);
        self.freshen(at);
        Ok(())
    }

    fn add(&mut self, parent: Id, name: &[u8], value: T) -> Id {
        let id = self.nodes.len();
        let name: Arc<[u8]> = name.into();
        let above = &mut self.nodes[parent];
        above.children.insert(name.clone(), id);
        let (depth, length) = (above.depth + 1, above.length + 1 + name.len());
        let children = BTreeMap::new();
        let (value, newest, cleared) = (Some(value), 0, self.layer);
        self.nodes.push(Node { value, parent, name, depth, length, children, newest, cleared });
        id
    }

    /// Says of a node and of all above it that the present layer made something there.
    fn freshen(&mut self, mut at: Id) {
        while self.nodes[at].newest != self.layer {
            self.nodes[at].newest = self.layer;
            at = self.nodes[at].parent;
        }
    }

    /// Removes a node, with what is below it.
    fn detach(&mut self, at: Id) {
        self.clear(at);
        let Node { parent, name, value, .. } = &mut self.nodes[at];
        *value = None;
        let (parent, name) = (*parent, name.clone());
        self.nodes[parent].children.remove(&name);
    }

    /// Removes what is below a node.
    fn clear(&mut self, at: Id) {
        let mut todo = vec![at];
        while let Some(at) = todo.pop() {
            for child in std::mem::take(&mut self.nodes[at].children).into_values() {
                self.nodes[child].value = None;
                todo.push(child);
            }
        }
    }
}

/// A path's directory, and its name in there.
fn split(path: &JailPath) -> (&[u8], &[u8]) {
    let name = path.file_name();
    (&path.as_bytes()[..path.as_bytes().len() - name.len()], name)
}
