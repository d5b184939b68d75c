//! Small trees for tests.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;

use super::Tree;
use crate::manifest::{Config, Digest, Entry, Kind, Manifest, Seal, Source, Sources};
use crate::path::{FileType, JailPath};
pub(crate) use crate::publish::remove_all;
use crate::root::Root;

#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) manifest: Manifest,
    pub(crate) sources: Sources,
    root: Root,
}

impl Sample {
    /// A tree with a root directory and nothing in it.
    pub(crate) fn new() -> Self {
        let config = Config {
            architecture: "amd64".to_owned(),
            entrypoint: vec!["/bin/app".to_owned()],
            working_dir: "/".to_owned(),
            user: "0:0".to_owned(),
            env: BTreeMap::from([("PATH".to_owned(), "/bin".to_owned())]),
            ..Config::default()
        };
        let manifest = Manifest { epoch: 1_700_000_000, ..Manifest::new(config, Vec::new()) };
        let root = Root::open(Path::new("/")).unwrap();
        Self { manifest, sources: Sources::new(), root }.with("/", Kind::Directory)
    }

    /// A tree with one of each kind of node, and values that ustar has no room for.
    pub(crate) fn varied() -> Self {
        let long = |byte: u8, length: usize| String::from_utf8(vec![byte; length]).unwrap();
        let target = |text: &[u8]| Kind::Symlink { target: text.to_vec() };
        let mut sample = Self::new()
            .file("/bin/app", b"#!/bin/sh\n")
            .file("/empty", b"")
            .file("/holes", &[vec![0; 70_000], vec![b'x'], vec![0; 9_000]].concat())
            .file(&format!("/{}/{}", long(b'd', 120), long(b'f', 120)), b"long name")
            .file("/a\n b\u{e4}", b"odd name")
            .with("/bin/other", Kind::HardLink { to: path("/bin/app") })
            .with("/lib", target(b"usr/lib"))
            .with("/far", target(long(b't', 300).as_bytes()))
            .with("/none/here", Kind::Directory)
            .with("/pipe", Kind::Fifo);
        let raw = [b"/raw\xff".as_slice(), &[b'r'; 120]].concat();
        sample = sample.with_path(&JailPath::parse(&raw).unwrap(), target(b"\xff"));
        let app = sample.entry("/bin/app");
        app.mode = 0o4755;
        app.mtime = -5;
        (app.uid, app.gid) = (3_000_000, 4_000_000);
        app.xattrs.insert("user.note".to_owned(), b"a\nb\0c=".to_vec());
        let shut = sample.entry("/none");
        (shut.mode, shut.mtime) = (0o555, 1 << 33);
        sample
    }

    /// The same in three layers, whose directories meet.
    pub(crate) fn in_layers(mut self) -> Self {
        self.manifest.assign_layers(|entry| entry.path.as_bytes().iter().map(|&byte| u32::from(byte)).sum::<u32>() % 3);
        self
    }

    pub(crate) fn file(self, at: &str, content: &[u8]) -> Self {
        self.file_at(&path(at), content)
    }

    fn file_at(mut self, at: &JailPath, content: &[u8]) -> Self {
        let kind = Kind::File { size: content.len() as u64, sha256: Seal::of(Digest::of(content)) };
        self.sources.insert(at.clone(), Source::Made(content.to_vec()));
        self.with_path(at, kind)
    }

    pub(crate) fn with(self, path: &str, kind: Kind) -> Self {
        self.with_path(&JailPath::parse(path.as_bytes()).unwrap(), kind)
    }

    /// Adds an entry, and the directories that it is in.
    pub(crate) fn with_path(mut self, path: &JailPath, kind: Kind) -> Self {
        for (path, kind) in path.ancestors().map(|path| (path, Kind::Directory)).chain([(path.clone(), kind)]) {
            if let Err(at) = self.manifest.entries.binary_search_by(|entry| entry.path.cmp(&path)) {
                let mode = if kind == Kind::Directory { 0o755 } else { 0o644 };
                let mode = if matches!(kind, Kind::Symlink { .. }) { 0o777 } else { mode };
                let entry = Entry { mode, mtime: self.manifest.epoch, ..Entry::new(path, kind) };
                self.manifest.entries.insert(at, entry);
            }
        }
        self
    }

    pub(crate) fn entry(&mut self, at: &str) -> &mut Entry {
        self.manifest.entries.iter_mut().find(|entry| entry.path == path(at)).unwrap()
    }

    /// What is not in `directory` as the manifest says. Owners count only if root made it.
    pub(crate) fn differences(&self, directory: &Path) -> Vec<String> {
        let root = Root::open(directory).unwrap();
        let is_root = nix::unistd::geteuid().is_root();
        let mut found = Vec::new();
        for entry in &self.manifest.entries {
            let Some(facts) = root.lstat(&entry.path).unwrap() else {
                found.push(format!("{} is missing", entry.path));
                continue;
            };
            let mut check = |right: bool, what: &str| {
                if !right {
                    found.push(format!("{}: {what} of {facts:?} is not that of {entry:?}", entry.path));
                }
            };
            if let Kind::HardLink { to } = &entry.kind {
                check(root.lstat(to).unwrap().is_some_and(|other| other.ino == facts.ino), "inode");
                continue;
            }
            // Without root, tools differ in what they do with the bits above the permissions.
            let bits = if is_root { 0o7777 } else { 0o777 };
            check(facts.mode & bits == entry.mode & bits || facts.is_symlink(), "mode");
            check(!is_root || (facts.uid, facts.gid) == (entry.uid, entry.gid), "owner");
            check(facts.mtime == entry.mtime, "time");
            let xattrs = root.xattrs(&entry.path).unwrap();
            check(xattrs == entry.xattrs, "attributes");
            let mut content = Vec::new();
            match &entry.kind {
                Kind::File { .. } => {
                    check(facts.is_file(), "type");
                    std::io::Read::read_to_end(&mut root.open_file(&entry.path).unwrap(), &mut content).unwrap();
                    check(self.sources.get(&entry.path) == Some(&Source::Made(content)), "content");
                }
                Kind::Symlink { target } => check(root.read_link(&entry.path).unwrap() == *target, "target"),
                Kind::Directory => {
                    let names = root.list(&entry.path).unwrap();
                    let listed = |other: &&Entry| other.path.parent().as_ref() == Some(&entry.path);
                    check(names.len() == self.manifest.entries.iter().filter(listed).count(), "listing");
                }
                Kind::Fifo => check(facts.file_type == FileType::Fifo, "type"),
                Kind::CharDevice { .. } | Kind::BlockDevice { .. } | Kind::HardLink { .. } => {}
            }
        }
        found
    }

    pub(crate) fn entries(&self) -> Vec<&Entry> {
        self.manifest.entries.iter().collect()
    }

    pub(crate) fn tree(&self) -> Tree<'_> {
        Tree { manifest: &self.manifest, sources: &self.sources, root: &self.root }
    }
}

pub(crate) fn path(text: &str) -> JailPath {
    JailPath::parse(text.as_bytes()).unwrap()
}

/// Any small tree that any user can make on disk, and any archive can hold.
pub(crate) fn any_tree() -> impl Strategy<Value = Sample> {
    let name = prop_oneof![
        8 => proptest::string::string_regex("[a-z\u{e4} \n]{1,3}|[a-z]{90,130}|[a-z]{250,255}").unwrap().prop_map(String::into_bytes),
        // No text: a Latin-1 letter by itself, alone or in a name for which a header has no room.
        1 => (0_usize..120).prop_map(|more| [b"\xe4".as_slice(), &vec![b'r'; more]].concat()),
    ];
    let path = proptest::collection::vec(name, 1..5);
    let content = prop_oneof![proptest::collection::vec(any::<u8>(), 0..2000), Just(vec![0; 9000])];
    let node = prop_oneof![
        4 => content.prop_map(Ok),
        1 => proptest::collection::vec(1_u8..=255, 1..200).prop_map(|target| Err(Kind::Symlink { target })),
        1 => Just(Err(Kind::Directory)),
        1 => Just(Err(Kind::Fifo)),
        1 => Just(Err(Kind::HardLink { to: JailPath::root() })),
    ];
    let attributes =
        proptest::collection::btree_map("user\\.[a-z]{1,3}", proptest::collection::vec(any::<u8>(), 0..40), 0..3);
    let attributes = prop_oneof![3 => Just(BTreeMap::new()), 1 => attributes];
    let mode = (0_u32..0o10000).prop_map(|mode| mode | 0o400);
    let entry = (path, node, mode, -100_i64..1 << 33, attributes);
    proptest::collection::vec(entry, 0..12).prop_map(|entries| {
        let mut sample = Sample::new();
        for (names, node, mode, mtime, xattrs) in entries {
            let at = names.iter().fold(JailPath::root(), |path, name| path.join(name));
            let known = |path: &JailPath| sample.manifest.entries.iter().find(|entry| entry.path == *path);
            let blocked = at.ancestors().any(|above| known(&above).is_some_and(|entry| entry.kind != Kind::Directory));
            if blocked || known(&at).is_some() {
                continue;
            }
            // A link to the last file that sorts before it, if there is one.
            let mut files = sample.manifest.entries.iter().filter(|entry| matches!(entry.kind, Kind::File { .. }));
            let first = files.rfind(|entry| entry.path < at).map(|entry| entry.path.clone());
            sample = match (node, first) {
                (Ok(content), _) => sample.file_at(&at, &content),
                (Err(Kind::HardLink { .. }), Some(to)) => {
                    sample = sample.with_path(&at, Kind::HardLink { to });
                    continue;
                }
                (Err(Kind::HardLink { .. }), None) => continue,
                (Err(kind), _) => sample.with_path(&at, kind),
            };
            let entry = sample.manifest.entries.iter_mut().find(|entry| entry.path == at).unwrap();
            entry.mtime = mtime;
            // Attributes of the user's own are for files and directories alone (`xattr(7)`).
            if matches!(entry.kind, Kind::File { .. } | Kind::Directory) {
                entry.xattrs = xattrs;
            }
            if !matches!(entry.kind, Kind::Symlink { .. }) {
                entry.mode = if entry.kind == Kind::Directory { mode | 0o500 } else { mode };
            }
        }
        sample
    })
}
