//! The loader's view of a root: what it would find where. Everything that was looked at once is remembered.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::cache::{CacheError, LdCache};
use super::conf::{contents, ld_so_conf};
use super::loader::{Flavour, LD_CACHE, Loader, Machine};
use super::read::{Elf, ElfError, read_file};
use crate::path::{Facts, JailPath};
use crate::root::{Link, Root, RootError};

pub(super) const LD_PRELOAD: &[u8] = b"/etc/ld.so.preload";

/// What the workload tells the loader.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Environment {
    /// `LD_LIBRARY_PATH`; empty if not set.
    pub library_path: Vec<u8>,
    /// `LD_PRELOAD`; empty if not set.
    pub preload: Vec<u8>,
    /// The working directory, for relative paths in all of these.
    pub directory: JailPath,
    /// The program has more rights than whoever starts it (`getauxval(3)`, `AT_SECURE`): the loader trusts neither the first two
    /// nor where the program is.
    pub is_secure: bool,
}

impl Environment {
    /// What of it the loader heeds.
    pub(super) fn heeded(&self) -> Self {
        if self.is_secure {
            Self { library_path: Vec::new(), preload: Vec::new(), ..self.clone() }
        } else {
            self.clone()
        }
    }
}

impl Default for Environment {
    fn default() -> Self {
        Self { library_path: Vec::new(), preload: Vec::new(), directory: JailPath::root(), is_secure: false }
    }
}

/// The libraries of a root cannot be looked for.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    #[error(transparent)]
    Root(#[from] RootError),
    #[error("failed to read the ELF file `{path}`")]
    Elf { path: JailPath, source: Arc<ElfError> },
    #[error("there is no file at `{path}`")]
    NoFile { path: String },
    #[error("what `{path}` needs would be looked for at more places than those of any program")]
    Endless { path: JailPath },
}

/// Answers where the loaders of a root find what ELF files need.
///
/// Holds `/etc/ld.so.cache`, or else `/etc/ld.so.conf`, and `/etc/ld.so.preload` of the root, and all that it has read: use one
/// for all files of a root, and make a new one when the root has changed.
///
/// ```
/// use std::path::Path;
///
/// use minjail::elf::{Environment, Search};
/// use minjail::path::JailPath;
/// use minjail::root::Root;
///
/// let root = Root::open(Path::new("/"))?;
/// let mut search = Search::new(&root)?;
/// let closure = search.closure(&JailPath::parse(b"/bin/sh")?, &Environment::default())?;
/// assert!(closure.missing.is_empty());
/// for (path, object) in &closure.objects {
///     println!("{path}, by way of {:?}", object.links);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Search<'root> {
    pub(super) root: &'root Root,
    /// The caches of the loaders, by their paths.
    caches: BTreeMap<Vec<u8>, Arc<Cache>>,
    /// The directories of `/etc/ld.so.conf`, if there is no cache. Loaders do not read it: it stands in for a cache that is
    /// not there (images without one get it made when they start).
    pub(super) conf: Arc<[Vec<u8>]>,
    /// The names in `/etc/ld.so.preload`.
    pub(super) preload: Vec<Vec<u8>>,
    seen: BTreeMap<Vec<u8>, Option<Arc<Seen>>>,
    elves: BTreeMap<JailPath, Result<Arc<Elf>, Arc<ElfError>>>,
    subdirectories: BTreeMap<Vec<u8>, Arc<[Vec<u8>]>>,
    loaders: BTreeMap<Vec<u8>, Arc<Loader>>,
    /// How much work it was so far, in parts of a look.
    spent: usize,
}

/// What a look at a path costs of [`MOST`], besides what its length costs.
const LOOK: usize = 512;

/// The closures of all files of a large distribution, one after the other, cost a part of this. A file that wants more was made to
/// keep its reader busy: a quarter of a megabyte of directories, say, and 60,000 libraries in none of them.
const MOST: usize = 1 << 28;

/// A loader's cache; `None` if the root has none.
pub(super) type Cache = Result<Option<LdCache>, CacheError>;

/// A file that a path leads to.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) end: JailPath,
    pub(super) links: Vec<Link>,
    /// Directories that the path goes through only to leave them by `..`.
    pub(super) through: Vec<JailPath>,
    /// Device and inode: two names of one file are one library.
    pub(super) identity: (u64, u64),
    pub(super) elf: Result<Arc<Elf>, Arc<ElfError>>,
}

impl<'root> Search<'root> {
    /// Reads what the loaders of `root` go by.
    ///
    /// # Errors
    /// One of the three files is there and cannot be read.
    pub fn new(root: &'root Root) -> Result<Self, SearchError> {
        let cache = contents(root, LD_CACHE)?.map(|file| LdCache::parse(&file)).transpose();
        let preload = contents(root, LD_PRELOAD)?.unwrap_or_default();
        let conf = if matches!(cache, Ok(None)) { ld_so_conf(root)? } else { Vec::new() };
        Ok(Self {
            root,
            caches: BTreeMap::from([(LD_CACHE.to_vec(), Arc::new(cache))]),
            conf: conf.into(),
            preload: preload_file(&preload),
            seen: BTreeMap::new(),
            elves: BTreeMap::new(),
            subdirectories: BTreeMap::new(),
            loaders: BTreeMap::new(),
            spent: 0,
        })
    }

    pub(super) fn spend(&mut self, work: usize) {
        self.spent = self.spent.saturating_add(work);
    }

    /// True once nothing more is looked for.
    pub(super) fn is_spent(&self) -> bool {
        self.spent > MOST
    }

    /// The root's `/etc/ld.so.cache`, if it has one that can be read.
    pub fn cache(&self) -> Option<&LdCache> {
        self.caches.get(LD_CACHE)?.as_ref().as_ref().ok()?.as_ref()
    }

    /// The cache at `path`; one that may not be read is to a loader as none.
    pub(super) fn cache_at(&mut self, path: &[u8]) -> Arc<Cache> {
        if let Some(known) = self.caches.get(path) {
            return known.clone();
        }
        let file = contents(self.root, path).ok().flatten();
        self.spend(file.as_ref().map_or(0, |file| 4 * file.len()));
        let cache = Arc::new(file.map(|file| LdCache::parse(&file)).transpose());
        self.caches.insert(path.to_vec(), cache.clone());
        cache
    }

    /// What the ELF file at `path` says; `path` is one that leads through no link in its last component.
    ///
    /// # Errors
    /// It is no ELF file, or cannot be read.
    pub fn elf(&mut self, path: &JailPath) -> Result<Arc<Elf>, SearchError> {
        if !self.elves.contains_key(path) {
            let file = self.root.open_file(path)?;
            let read = read_file(&file).map(Arc::new).map_err(Arc::new);
            self.spend(LOOK * (1 + read.as_ref().map_or(0, |elf| elf.needed.len()) / 8));
            self.elves.insert(path.clone(), read);
        }
        self.elves[path].clone().map_err(|source| SearchError::Elf { path: path.clone(), source })
    }

    /// The file that the absolute path `spelled` leads to; `None` if none does, or if it may not be read: a loader goes
    /// on in both cases.
    pub(super) fn look(&mut self, spelled: &[u8]) -> Option<Arc<Seen>> {
        if let Some(known) = self.seen.get(spelled) {
            return known.clone();
        }
        self.spend(LOOK + 2 * spelled.len());
        if self.is_spent() {
            return None;
        }
        let seen = self.look_anew(spelled).map(Arc::new);
        self.seen.insert(spelled.to_vec(), seen.clone());
        seen
    }

    fn look_anew(&mut self, spelled: &[u8]) -> Option<Seen> {
        let walk = self.root.resolve(&JailPath::root(), spelled, true).ok()?;
        self.spend(walk.links.iter().map(|link| LOOK + 2 * link.target.len()).sum());
        let facts = walk.facts.filter(Facts::is_file)?;
        let elf = match self.elf(&walk.end) {
            Ok(elf) => Ok(elf),
            Err(SearchError::Elf { source, .. }) => Err(source),
            Err(_) => return None,
        };
        let through = self.through(spelled);
        Some(Seen { end: walk.end, links: walk.links, through, identity: (facts.dev, facts.ino), elf })
    }

    /// Where each piece of `spelled` that ends before a `..` leads.
    fn through(&mut self, spelled: &[u8]) -> Vec<JailPath> {
        let ends = spelled.windows(3).enumerate().filter_map(|(at, part)| (part == b"/..").then_some(at));
        let ends = ends.filter(|&at| at > 0 && matches!(spelled.get(at + 3), None | Some(b'/')));
        let ends: Vec<usize> = ends.collect();
        self.spend(ends.len() * (LOOK + 2 * spelled.len()));
        let walks = ends.into_iter().filter_map(|at| self.root.resolve(&JailPath::root(), &spelled[..at], true).ok());
        walks.filter(|walk| walk.facts.is_some()).map(|walk| walk.end).collect()
    }

    /// The subdirectories of `directory` in which the loader looks first, on processors that they are for: those of
    /// `glibc-hwcaps`, then those that glibc before 2.37 makes of the names of processor features.
    pub(super) fn subdirectories(&mut self, directory: &[u8], machine: &Machine) -> Arc<[Vec<u8>]> {
        if let Some(known) = self.subdirectories.get(directory) {
            return known.clone();
        }
        let mut found = Vec::new();
        let hwcaps = [directory, b"/glibc-hwcaps"].concat();
        if self.is_directory(&hwcaps) {
            let names = machine.hwcaps.iter().map(|name| [&hwcaps, &b"/"[..], name.as_bytes()].concat());
            for name in names {
                if self.is_directory(&name) {
                    found.push(name);
                }
            }
        }
        self.add_legacy(directory, machine.legacy, &mut found);
        let found: Arc<[Vec<u8>]> = found.into();
        self.subdirectories.insert(directory.to_vec(), found.clone());
        found
    }

    /// Any of `names` may stand in any other; each is used once at most in a path.
    fn add_legacy(&mut self, directory: &[u8], names: &[&'static str], found: &mut Vec<Vec<u8>>) {
        for name in names {
            let inside = [directory, b"/", name.as_bytes()].concat();
            if self.is_directory(&inside) {
                let others: Vec<_> = names.iter().copied().filter(|other| other != name).collect();
                self.add_legacy(&inside, &others, found);
                found.push(inside);
            }
        }
    }

    fn is_directory(&mut self, spelled: &[u8]) -> bool {
        self.spend(LOOK + 2 * spelled.len());
        if self.is_spent() {
            return false;
        }
        let walk = self.root.resolve(&JailPath::root(), spelled, true);
        walk.is_ok_and(|walk| walk.facts.is_some_and(|facts| facts.is_directory()))
    }

    /// The loader that starts `elf`: the one that it names, or the one that `interpreter` is, or the machine's usual
    /// one for a library alone. `interpreter` is an absolute path.
    pub(super) fn loader(&mut self, elf: &Elf, interpreter: Option<&[u8]>) -> (Vec<u8>, Arc<Loader>) {
        let machine = Machine::of(elf);
        let path = interpreter.map_or_else(|| self.usual_loader(elf, machine), <[u8]>::to_vec);
        if let Some(known) = self.loaders.get(&path) {
            if known.machine == machine {
                return (path, known.clone());
            }
        }
        let loader = Arc::new(match flavour(&path) {
            Flavour::Glibc => {
                let bytes = contents(self.root, &path).ok().flatten();
                self.spend(bytes.as_ref().map_or(0, Vec::len) / 16);
                Loader::glibc(machine, bytes.as_deref())
            }
            Flavour::Musl => {
                let guide = musl_path_file(&path).unwrap_or_default();
                let list = contents(self.root, &guide).ok().flatten();
                Loader::musl(machine, guide, list.as_deref())
            }
        });
        self.loaders.insert(path.clone(), loader.clone());
        (path, loader)
    }

    /// A library that needs a C library says by that whose it is; else the root says it.
    fn usual_loader(&mut self, elf: &Elf, machine: &Machine) -> Vec<u8> {
        let needs = |start: &[u8]| elf.needed.iter().any(|name| name.starts_with(start));
        let is_musl = if needs(b"libc.so.6") || needs(b"ld-linux") {
            false
        } else if needs(b"libc.musl-") || elf.needed.iter().any(|name| name == b"libc.so") {
            true
        } else {
            self.look(machine.glibc_loader.as_bytes()).is_none() && self.look(machine.musl_loader.as_bytes()).is_some()
        };
        let path = if is_musl { machine.musl_loader } else { machine.glibc_loader };
        path.as_bytes().to_vec()
    }
}

fn flavour(loader: &[u8]) -> Flavour {
    let name = loader.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    if name.starts_with(b"ld-musl-") { Flavour::Musl } else { Flavour::Glibc }
}

/// `/lib/ld-musl-x86_64.so.1` reads `/etc/ld-musl-x86_64.path`, and one below a prefix reads that below the prefix
/// (musl, `ldso/dynlink.c`, `load_library`).
fn musl_path_file(loader: &[u8]) -> Option<Vec<u8>> {
    let mut parts = loader.rsplitn(3, |&byte| byte == b'/');
    let name = parts.next()?;
    parts.next()?;
    let prefix = parts.next().unwrap_or_default();
    let name = name.split(|&byte| byte == b'.').next()?;
    Some([prefix, b"/etc/", name, b".path"].concat())
}

/// `/etc/ld.so.preload`: names parted by white space or colons, comments from `#` to the end of the line.
fn preload_file(text: &[u8]) -> Vec<Vec<u8>> {
    let lines = text.split(|&byte| byte == b'\n');
    let lines = lines.map(|line| line.split(|&byte| byte == b'#').next().unwrap_or_default());
    let names = lines.flat_map(|line| line.split(|byte| byte.is_ascii_whitespace() || *byte == b':'));
    names.filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect()
}
