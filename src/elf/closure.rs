//! The loader's work, done over: what it opens for one ELF file, in its order and by its rules.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::answer::{Closure, Missing, Need, Note, Role};
use super::loader::{Flavour, LD_CACHE, Loader, PATH_MAX, is_musl_itself, musl_list};
use super::read::{Elf, Kind};
use super::search::{Environment, LD_PRELOAD, Search, SearchError, Seen};
use crate::path::JailPath;

/// One library in the loader's list.
struct Loaded {
    seen: Arc<Seen>,
    elf: Arc<Elf>,
    /// What `$ORIGIN` stands for.
    origin: Vec<u8>,
    spelled: Vec<u8>,
    /// Who had it loaded, by place in the list.
    by: Option<usize>,
}

/// A place that the loader looks into.
enum Place {
    /// A directory, and whether it holds on some processors only.
    Directory(Vec<u8>, bool),
    /// A directory that the loader has built in, or in its list.
    Default(Vec<u8>),
    Cache,
}

/// What a search found: builds for some processors, then the one for all.
type Found = Vec<(Vec<u8>, Arc<Seen>, Arc<Elf>)>;

/// No program needs a tenth as often something, counting every library that does.
const MOST_NEEDS: usize = 1 << 18;

struct Loading<'search, 'root> {
    search: &'search mut Search<'root>,
    environment: &'search Environment,
    loader: Arc<Loader>,
    /// The program, or the library alone, is the first.
    loaded: Vec<Loaded>,
    /// The first in the list that answers to each name.
    names: BTreeMap<Vec<u8>, usize>,
    /// Where each file is in the list, by device and inode.
    places: BTreeMap<(u64, u64), usize>,
    /// Where the loader itself is in the list, if it was found.
    itself: Option<usize>,
    /// How often something was needed.
    needs: usize,
    closure: Closure,
}

impl Search<'_> {
    /// What the loader opens when the kernel executes `object`, or, for a library, what it opens for it alone.
    ///
    /// A static program needs nothing; nor does a file that is not linked yet.
    ///
    /// # Errors
    /// `object` is not an ELF file or cannot be read, or was made to keep its reader busy. What `object` needs and is not
    /// there is no error here: it is in [`Closure::missing`].
    pub fn closure(&mut self, object: &JailPath, environment: &Environment) -> Result<Closure, SearchError> {
        let (seen, elf) = self.start(object)?;
        let is_loaded = elf.dynamic || elf.interpreter.is_some();
        if !is_loaded || !matches!(elf.kind, Kind::Executable | Kind::Shared) {
            return Ok(Closure::default());
        }
        let interpreter = elf.interpreter.as_ref().map(|path| absolute(&environment.directory, path));
        let (loader_path, loader) = self.loader(&elf, interpreter.as_deref());
        let mut loading = Loading {
            search: self,
            environment: &environment.heeded(),
            loader,
            loaded: Vec::new(),
            names: BTreeMap::new(),
            places: BTreeMap::new(),
            itself: None,
            needs: 0,
            closure: Closure::default(),
        };
        // The kernel runs a program where its links end (`proc_pid_exe(5)`); a library is where it was opened.
        let spelled = if elf.interpreter.is_some() { seen.end.as_bytes() } else { object.as_bytes() }.to_vec();
        loading.push(Arc::clone(&seen), elf, spelled, None);
        loading.push_loader(&loader_path);
        loading.preload();
        loading.follow();
        let mut closure = loading.closure;
        if self.is_spent() {
            return Err(SearchError::Endless { path: object.clone() });
        }
        closure.objects.remove(&seen.end);
        Ok(closure)
    }

    fn start(&mut self, path: &JailPath) -> Result<(Arc<Seen>, Arc<Elf>), SearchError> {
        let Some(seen) = self.look(path.as_bytes()) else {
            // Says why: not readable, a directory.
            let walk = self.root.resolve(&JailPath::root(), path.as_bytes(), true)?;
            if !walk.facts.is_some_and(|facts| facts.is_file()) {
                return Err(SearchError::NoFile { path: path.to_string() });
            }
            self.root.open_file(&walk.end)?;
            return Err(SearchError::NoFile { path: path.to_string() });
        };
        let elf = seen.elf.clone().map_err(|source| SearchError::Elf { path: path.clone(), source })?;
        Ok((seen, elf))
    }
}

impl Loading<'_, '_> {
    fn push(&mut self, seen: Arc<Seen>, elf: Arc<Elf>, spelled: Vec<u8>, by: Option<usize>) {
        let slash = spelled.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
        let origin = spelled[..slash.max(1)].to_vec();
        let at = self.loaded.len();
        self.name(at, spelled.clone());
        // musl does not look at sonames.
        if let Some(soname) = elf.soname.clone().filter(|_| !self.is_musl()) {
            self.name(at, soname);
        }
        self.places.entry(seen.identity).or_insert(at);
        self.loaded.push(Loaded { seen, elf, origin, spelled, by });
    }

    /// What is at `at` in the list answers to `name`, if nothing before it does.
    fn name(&mut self, at: usize, name: Vec<u8>) {
        let first = self.names.entry(name).or_insert(at);
        *first = at.min(*first);
    }

    /// The loader is itself in its list; it is part of the closure once something names it.
    fn push_loader(&mut self, path: &[u8]) {
        let named = self.loaded[0].elf.interpreter.clone();
        let found = self.search.look(path).and_then(|seen| Some((seen.elf.clone().ok()?, seen)));
        match (found, named) {
            (Some((elf, seen)), named) if self.fits(&elf) => {
                let at = self.loaded.len();
                self.itself = Some(at);
                self.push(seen, elf, path.to_vec(), None);
                if let Some(name) = named {
                    self.record(at, 0, &name, Role::Interpreter);
                    self.name(at, name);
                }
            }
            (_, Some(name)) => self.miss(0, &name, Role::Interpreter),
            (_, None) => {}
        }
    }

    fn preload(&mut self) {
        let separators: &[u8] = if self.is_musl() { b": \t\n\x0b\x0c\r" } else { b": " };
        let names = self.environment.preload.split(|byte| separators.contains(byte)).filter(|name| !name.is_empty());
        let mut names: Vec<Vec<u8>> = names.map(<[u8]>::to_vec).collect();
        if self.loaded[0].elf.interpreter.is_none() {
            return;
        }
        if !self.is_musl() && !self.search.preload.is_empty() {
            names.extend(self.search.preload.clone());
            self.closure.guides.insert(LD_PRELOAD.to_vec());
        }
        for name in names {
            self.need(0, &name, Role::Preload);
        }
    }

    /// Goes through the list, which grows meanwhile: breadth first.
    fn follow(&mut self) {
        let mut at = 0;
        while at < self.loaded.len() {
            let elf = self.loaded[at].elf.clone();
            if !self.is_musl() {
                elf.filter.iter().for_each(|name| self.need(at, name, Role::Library));
                elf.auxiliary.iter().for_each(|name| self.need(at, name, Role::Auxiliary));
            }
            elf.needed.iter().for_each(|name| self.need(at, name, Role::Library));
            // Only the program's own count (`elf/rtld.c`, `load_auditors`).
            if at == 0 && !self.is_musl() {
                let names = elf.audit.iter().flat_map(|list| list.split(|&byte| byte == b':'));
                names.for_each(|name| self.need(at, name, Role::Audit));
            }
            at += 1;
        }
    }

    /// `by` needs `name`: finds it in the list, or looks for it and puts it there.
    fn need(&mut self, by: usize, name: &[u8], role: Role) {
        self.needs += 1;
        // As if it had looked for ever.
        self.search.spend(if self.needs > MOST_NEEDS { usize::MAX } else { 8 });
        if name.is_empty() || is_from_the_kernel(name) || self.search.is_spent() {
            return;
        }
        // Names are compared by what their tokens stand for (glibc, `elf/dl-deps.c`, `expand_dst`): `$ORIGIN/liba.so` is one
        // file for a library here and another for one there.
        let spellings = if self.is_musl() {
            vec![name.to_vec()]
        } else {
            let expanded = self.loader.expand(name, &self.loaded[by].origin);
            expanded.into_iter().map(|(spelling, _)| spelling).collect()
        };
        let mut is_there = false;
        for spelling in spellings {
            is_there |= self.need_as(by, &spelling, name, role);
        }
        if !is_there {
            self.miss(by, name, role);
        }
    }

    /// As [`need`](Self::need), of one `spelling` of `name`; true if something is there.
    fn need_as(&mut self, by: usize, spelling: &[u8], name: &[u8], role: Role) -> bool {
        if let Some(known) = self.known(spelling) {
            self.record(known, by, name, role);
            return true;
        }
        let found = if self.is_musl() && is_musl_itself(spelling) {
            Found::new()
        } else if spelling.contains(&b'/') {
            self.by_path(spelling)
        } else {
            self.by_search(by, spelling, role)
        };
        let is_there = !found.is_empty();
        // musl loads what is preloaded on nobody's account (`ldso/dynlink.c`, `load_preload`).
        let on_account_of = if self.is_musl() && role == Role::Preload { None } else { Some(by) };
        // The build for all processors goes first, so that it is the one that later needs are recorded of.
        for (spelled, seen, elf) in found.into_iter().rev() {
            let same = self.places.get(&seen.identity).copied();
            let at = same.unwrap_or(self.loaded.len());
            match same {
                // Another way to the same file: the loader opens it to find out.
                Some(_) => self.record_path(&spelled, &seen),
                None => self.push(seen, elf, spelled, on_account_of),
            }
            self.name(at, spelling.to_vec());
            self.record(at, by, name, role);
        }
        is_there
    }

    /// The library in the list that answers to `name`.
    fn known(&self, name: &[u8]) -> Option<usize> {
        if self.is_musl() && is_musl_itself(name) {
            return self.itself;
        }
        self.names.get(name).copied()
    }

    fn by_path(&mut self, path: &[u8]) -> Found {
        let mut found = Found::new();
        self.try_file(absolute(&self.environment.directory, path), &mut found);
        found
    }

    /// Looks for `name` in one place after the other. What holds on some processors only is taken along; the search
    /// ends with the first file that holds on all.
    fn by_search(&mut self, by: usize, name: &[u8], role: Role) -> Found {
        let mut found = Found::new();
        for place in self.places(by, role) {
            if self.search.is_spent() {
                break;
            }
            let done = match place {
                Place::Directory(directory, some_only) => {
                    self.try_directory(&directory, name, &mut found) && !some_only
                }
                Place::Default(directory) => {
                    let is_over = self.try_directory(&directory, name, &mut found);
                    if is_over && self.is_musl() {
                        self.closure.guides.insert(self.loader.guide.clone());
                    }
                    is_over
                }
                Place::Cache => self.try_cache(by, name, &mut found),
            };
            if done {
                return found;
            }
        }
        if !found.is_empty() {
            self.closure.notes.insert(Note::SomeProcessorsOnly { name: name.to_vec() });
        }
        found
    }

    /// Where the loader looks for what `by` needs, in order.
    ///
    /// glibc 2.36, `elf/dl-load.c`, `_dl_map_object`: unless `by` has a RUNPATH, the RPATH of `by`, of who loaded it, and
    /// so on, and of the program; `LD_LIBRARY_PATH`; the RUNPATH of `by`; the cache; the default directories, unless
    /// `by` wants none. musl 1.2, `ldso/dynlink.c`, `load_library`: `LD_LIBRARY_PATH`; the RUNPATH or RPATH of `by`, of
    /// who loaded it, and so on; the default directories.
    fn places(&mut self, by: usize, role: Role) -> Vec<Place> {
        let environment = self.environment;
        let mut places = Vec::new();
        let mut chain: Vec<usize> = std::iter::successors(Some(by), |&at| self.loaded[at].by).collect();
        self.search.spend(chain.len());
        if self.is_musl() {
            self.add_directories(musl_list(&environment.library_path), &mut places);
            for at in chain.into_iter().filter(|_| role != Role::Preload) {
                let Loaded { elf, origin, .. } = &self.loaded[at];
                let path = elf.runpath.as_ref().or(elf.rpath.as_ref());
                let parts = path.map(|path| musl_list(path)).unwrap_or_default();
                // One part that it does not understand, or does not trust (`fixup_rpath`), and it takes none.
                let is_trusted = |part: &Vec<u8>| !(environment.is_secure && at == 0 && part.contains(&b'$'));
                let parts = parts.iter().map(|part| musl_expand(part, origin).filter(|_| is_trusted(part)));
                let parts: Option<Vec<_>> = parts.collect();
                self.add_directories(parts.into_iter().flatten(), &mut places);
            }
            self.add_default_directories(&mut places);
            return places;
        }
        let elf = self.loaded[by].elf.clone();
        if elf.runpath.is_none() {
            if !chain.contains(&0) {
                chain.push(0);
            }
            for at in chain {
                let elf = self.loaded[at].elf.clone();
                let rpath = elf.rpath.as_deref().filter(|_| elf.runpath.is_none());
                self.add_list(rpath, b":", at, &mut places);
            }
        }
        self.add_list(Some(&environment.library_path), b":;", 0, &mut places);
        self.add_list(elf.runpath.as_deref(), b":", by, &mut places);
        places.push(Place::Cache);
        if !elf.no_default_libraries {
            self.add_default_directories(&mut places);
        }
        places
    }

    fn add_list(&mut self, list: Option<&[u8]>, separators: &[u8], of: usize, places: &mut Vec<Place>) {
        let list = list.filter(|list| !list.is_empty()).into_iter();
        for part in list.flat_map(|list| list.split(|byte| separators.contains(byte))) {
            if self.search.is_spent() {
                return;
            }
            for (path, some_only) in self.loader.expand(part, &self.loaded[of].origin) {
                if of == 0 && self.environment.is_secure && !self.loader.trusts(part, &path) {
                    continue;
                }
                let path = absolute(&self.environment.directory, &path);
                self.search.spend(1 + path.len() / 16);
                places.push(Place::Directory(path, some_only));
            }
        }
    }

    fn add_directories(&mut self, directories: impl IntoIterator<Item = Vec<u8>>, places: &mut Vec<Place>) {
        for path in directories {
            let path = absolute(&self.environment.directory, &path);
            self.search.spend(1 + path.len() / 16);
            if self.search.is_spent() {
                return;
            }
            places.push(Place::Directory(path, false));
        }
    }

    fn add_default_directories(&self, places: &mut Vec<Place>) {
        let directories = self.loader.default_directories.iter();
        places.extend(directories.map(|path| Place::Default(absolute(&self.environment.directory, path))));
    }

    /// True if the search is over.
    fn try_directory(&mut self, directory: &[u8], name: &[u8], found: &mut Found) -> bool {
        if !self.is_musl() {
            for subdirectory in self.search.subdirectories(directory, self.loader.machine).iter() {
                self.try_file([subdirectory, &b"/"[..], name].concat(), found);
            }
        }
        let slash: &[u8] = if directory.ends_with(b"/") { b"" } else { b"/" };
        self.try_file([directory, slash, name].concat(), found)
    }

    /// The cache as the loader uses it; without a cache, the directories that `ldconfig` would have read.
    fn try_cache(&mut self, by: usize, name: &[u8], found: &mut Found) -> bool {
        let no_defaults = self.loaded[by].elf.no_default_libraries;
        let cache = self.search.cache_at(&self.loader.guide);
        let cache = match &*cache {
            Ok(Some(cache)) => cache,
            // What another loader's cache would have had, no file tells.
            Ok(None) if self.loader.guide != LD_CACHE => return false,
            Ok(None) => {
                let directories = self.search.conf.clone();
                return directories.iter().any(|directory| self.try_directory(directory, name, found));
            }
            // A cache that it cannot use is to the loader as one that has nothing.
            Err(error) => {
                self.closure.notes.insert(Note::UselessCache { why: error.to_string() });
                return false;
            }
        };
        let flags = self.loader.machine.cache_flags;
        let mut paths = Vec::new();
        self.search.spend(cache.lookup(name).len());
        for entry in cache.lookup(name).iter().filter(|entry| flags.is_empty() || flags.contains(&entry.flags)) {
            paths.push(entry.path.clone());
            // The first one for all processors decides. Only where the flags are not known may a later one fit better.
            if entry.hwcap == 0 && !flags.is_empty() {
                break;
            }
        }
        let is_default = |path: &[u8]| {
            let directories = self.loader.default_directories.iter();
            directories
                .into_iter()
                .any(|start| path.strip_prefix(start.as_slice()).is_some_and(|rest| rest.starts_with(b"/")))
        };
        paths.retain(|path| path.starts_with(b"/") && !(no_defaults && is_default(path)));
        let Some(last) = paths.pop() else { return false };
        let before = found.len();
        for path in paths {
            self.try_file(path, found);
        }
        let is_over = self.try_file(last, found);
        if found.len() > before {
            self.closure.guides.insert(self.loader.guide.clone());
        }
        is_over
    }

    /// Takes the file at `path` if the loader does. True if the search is over, be it that the loader gives up.
    fn try_file(&mut self, path: Vec<u8>, found: &mut Found) -> bool {
        let Some(seen) = self.search.look(&path) else { return false };
        match &seen.elf {
            // Libraries of another machine or class are passed over, but musl takes what is first.
            Ok(elf) if self.fits(elf) && elf.kind == Kind::Shared => {
                let elf = elf.clone();
                found.push((path, seen, elf));
                true
            }
            Ok(elf) if !self.fits(elf) && !self.is_musl() => false,
            Ok(_) => {
                self.closure.notes.insert(Note::Refused { path, why: "not a library for this program".into() });
                true
            }
            Err(error) => {
                self.closure.notes.insert(Note::Refused { path, why: error.to_string() });
                true
            }
        }
    }

    fn fits(&self, elf: &Elf) -> bool {
        let program = &self.loaded[0].elf;
        (elf.class, elf.machine, elf.little_endian) == (program.class, program.machine, program.little_endian)
    }

    fn is_musl(&self) -> bool {
        self.loader.flavour == Flavour::Musl
    }

    fn record(&mut self, at: usize, by: usize, name: &[u8], role: Role) {
        let (seen, spelled) = (self.loaded[at].seen.clone(), self.loaded[at].spelled.clone());
        self.record_path(&spelled, &seen);
        let need = Need { of: self.loaded[by].seen.end.clone(), name: name.to_vec(), role };
        self.closure.objects.entry(seen.end.clone()).or_default().needed_by.insert(need);
    }

    fn record_path(&mut self, spelled: &[u8], seen: &Seen) {
        let object = self.closure.objects.entry(seen.end.clone()).or_default();
        if object.spelled.insert(spelled.to_vec()) {
            object.links.extend(seen.links.iter().map(|link| link.path.clone()));
            object.through.extend(seen.through.iter().cloned());
        }
    }

    fn miss(&mut self, by: usize, name: &[u8], role: Role) {
        let (of, name) = (self.loaded[by].seen.end.clone(), name.to_vec());
        match role {
            Role::Interpreter | Role::Library => {
                self.closure.missing.insert(Missing { of, name });
            }
            Role::Auxiliary | Role::Audit | Role::Preload => {
                self.closure.notes.insert(Note::DoneWithout { of, name, role });
            }
        }
    }
}

/// The kernel maps these itself (`vdso(7)`).
fn is_from_the_kernel(name: &[u8]) -> bool {
    matches!(name, b"linux-vdso.so.1" | b"linux-gate.so.1" | b"linux-vdso32.so.1" | b"linux-vdso64.so.1")
}

/// `path` from `directory`, as spelled: `..` stays, since its meaning depends on links.
fn absolute(directory: &JailPath, path: &[u8]) -> Vec<u8> {
    let joined = if path.starts_with(b"/") { path.to_vec() } else { [directory.as_bytes(), b"/", path].concat() };
    let end = joined.iter().rposition(|&byte| byte != b'/').map_or(1, |last| last + 1);
    joined[..end].to_vec()
}

/// musl knows `$ORIGIN` alone, and passes over a path with any other token (`ldso/dynlink.c`, `fixup_rpath`). What becomes longer than
/// any path that the kernel takes is cut there, and leads nowhere.
fn musl_expand(path: &[u8], origin: &[u8]) -> Option<Vec<u8>> {
    let mut expanded = Vec::new();
    let mut rest = path;
    while let Some((&byte, tail)) = rest.split_first() {
        if byte != b'$' {
            if expanded.len() < PATH_MAX {
                expanded.push(byte);
            }
            rest = tail;
            continue;
        }
        rest = tail.strip_prefix(b"ORIGIN").or_else(|| tail.strip_prefix(b"{ORIGIN}"))?;
        if expanded.len() < PATH_MAX {
            expanded.extend_from_slice(origin);
        }
    }
    Some(expanded)
}
