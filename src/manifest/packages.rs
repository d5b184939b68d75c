//! Which package of the distribution a path is from.
//!
//! In: the root, with the databases of dpkg (`/var/lib/dpkg`, also in the form of distroless images) and apk
//! (`/lib/apk/db/installed`). Out: the owner of a path, and how much of its packages an image has. Databases are read as
//! data: a line that makes no sense is passed over, since dpkg and apk are the judges of their own files.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::model::{Entry, Kind, Manifest};
use crate::path::{JailPath, escape};
use crate::root::dpkg::{self, Diversions, MAX_DATABASE, Sum};
use crate::root::{Root, RootError};

/// An installed package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    pub system: PackageSystem,
    pub name: String,
    pub version: String,
    pub architecture: String,
    /// As the database says, in bytes.
    pub installed_size: u64,
}

/// Whose package it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PackageSystem {
    Deb,
    Apk,
}

impl fmt::Display for Package {
    /// `deb:tzdata=2024b-0+deb12u1`
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let system = match self.system {
            PackageSystem::Deb => "deb",
            PackageSystem::Apk => "apk",
        };
        write!(formatter, "{system}:{}={}", self.name, self.version)
    }
}

/// The installed packages of a root and their files.
#[derive(Debug, Clone, Default)]
pub struct Packages {
    installed: Vec<Package>,
    owners: BTreeMap<JailPath, usize>,
    /// The list of a package's files, by the package.
    lists: BTreeMap<usize, JailPath>,
    /// Configuration files as they came.
    configuration: BTreeMap<JailPath, (usize, Sum)>,
    aliases: Aliases,
    diversions: Diversions,
}

/// Where links in the root directory lead: packages list `/bin/sh` where `/bin` is a link to `usr/bin`.
#[derive(Debug, Clone, Default)]
struct Aliases(BTreeMap<Vec<u8>, JailPath>);

/// How much of the distribution's packages an image has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PackageShare {
    /// Packages of which the image has a file.
    pub touched: usize,
    /// The size of those packages, in bytes.
    pub touched_size: u64,
    /// The size of their files in the image, in bytes.
    pub taken_size: u64,
}

impl Packages {
    /// Reads the databases of `root`; there may be none.
    ///
    /// # Errors
    /// A database is there and cannot be read.
    pub fn read(root: &Root) -> Result<Self, RootError> {
        let packages = Packages { aliases: Aliases::read(root)?, ..Packages::default() };
        let mut reading = Reading { root, packages };
        reading.dpkg()?;
        reading.distroless()?;
        reading.apk()?;
        Ok(reading.packages)
    }

    /// The package that `path`, which leads through no links, is from; none of what packages list as a directory.
    pub fn owner(&self, path: &JailPath) -> Option<&Package> {
        self.owner_index(path).map(|at| &self.installed[at])
    }

    pub(super) fn owner_index(&self, path: &JailPath) -> Option<usize> {
        self.owners.get(path).copied()
    }

    /// True if no database was there.
    pub fn is_empty(&self) -> bool {
        self.installed.is_empty()
    }

    /// True for a file that its package brought for the administrator to change (`Conffiles`, `deb-conffiles(5)`).
    pub fn is_configuration(&self, path: &JailPath) -> bool {
        self.configuration.contains_key(path)
    }

    /// What the package with this index says of the contents of its files.
    pub(super) fn sums(&self, package: usize, root: &Root) -> Result<BTreeMap<JailPath, Sum>, RootError> {
        let configuration = self.configuration.iter().filter(|(_, (owner, _))| *owner == package);
        let mut sums: BTreeMap<JailPath, Sum> = configuration.map(|(path, (_, sum))| (path.clone(), *sum)).collect();
        let Some(list) = self.lists.get(&package) else { return Ok(sums) };
        let name = list.file_name();
        let name = [name.strip_suffix(b".list").unwrap_or(name), b".md5sums"].concat();
        let beside = list.parent().expect("it is in a directory").join(&name);
        if root.lstat(&beside)?.is_some_and(|facts| facts.is_file()) {
            let owner = self.installed[package].name.as_bytes();
            for (listed, sum) in dpkg::sums(&root.read(&beside, MAX_DATABASE)?) {
                let listed = [b"/", listed].concat();
                if let Some(path) = self.aliases.path(self.diversions.place(&listed, owner)) {
                    sums.insert(path, sum);
                }
            }
        }
        Ok(sums)
    }

    /// How much `manifest` has of the packages whose files it has: a listed directory shows names and links of many others.
    pub fn share(&self, manifest: &Manifest) -> PackageShare {
        let mut touched = BTreeSet::new();
        let mut share = PackageShare::default();
        let is_file = |entry: &&Entry| matches!(entry.kind, Kind::File { .. } | Kind::HardLink { .. });
        for entry in manifest.entries.iter().filter(is_file) {
            let Some(&owner) = entry.package.as_ref().and(self.owners.get(&entry.path)) else { continue };
            if touched.insert(owner) {
                share.touched_size += self.installed[owner].installed_size;
            }
            if let Kind::File { size, .. } = entry.kind {
                share.taken_size += size;
            }
        }
        share.touched = touched.len();
        share
    }
}

impl Aliases {
    fn read(root: &Root) -> Result<Self, RootError> {
        let mut aliases = BTreeMap::new();
        for name in root.list(&JailPath::root())? {
            let path = JailPath::root().join(&name);
            if root.lstat(&path)?.is_some_and(|facts| facts.is_symlink()) {
                // A link that leads in circles is nobody's directory.
                let Ok(walk) = root.resolve(&JailPath::root(), path.as_bytes(), true) else { continue };
                if walk.facts.is_some_and(|facts| facts.is_directory()) {
                    aliases.insert(name, walk.end);
                }
            }
        }
        Ok(Self(aliases))
    }

    /// Where `listed` stands; `None` if it is no path.
    fn path(&self, listed: &[u8]) -> Option<JailPath> {
        let path = JailPath::parse(listed).ok()?;
        let inside = &path.as_bytes()[1..];
        let slash = inside.iter().position(|&byte| byte == b'/').unwrap_or(inside.len());
        let (first, rest) = (&inside[..slash], inside.get(slash + 1..).unwrap_or_default());
        // The link itself may be listed too, and stays what it is.
        Some(match self.0.get(first) {
            Some(end) if !rest.is_empty() => {
                rest.split(|&byte| byte == b'/').fold(end.clone(), |at, name| at.join(name))
            }
            _ => path,
        })
    }
}

struct Reading<'root> {
    root: &'root Root,
    packages: Packages,
}

impl Reading<'_> {
    fn add(&mut self, package: Package) -> usize {
        self.packages.installed.push(package);
        self.packages.installed.len() - 1
    }

    /// `listed` belongs to the package `owner`.
    fn own(&mut self, listed: &[u8], owner: usize) {
        if let Some(path) = self.packages.aliases.path(listed) {
            self.packages.owners.entry(path).or_insert(owner);
        }
    }

    fn file(&self, path: &str) -> Result<Option<Vec<u8>>, RootError> {
        self.root.read_through_links(path.as_bytes(), MAX_DATABASE)
    }

    fn content(&self, path: &JailPath) -> Result<Vec<u8>, RootError> {
        self.root.read(path, MAX_DATABASE)
    }

    fn names(&self, directory: &str) -> Result<Vec<(JailPath, Vec<u8>)>, RootError> {
        let walk = self.root.resolve(&JailPath::root(), directory.as_bytes(), true)?;
        if !walk.facts.is_some_and(|facts| facts.is_directory()) {
            return Ok(Vec::new());
        }
        Ok(self.root.list(&walk.end)?.into_iter().map(|name| (walk.end.join(&name), name)).collect())
    }

    /// `/var/lib/dpkg/status` and the lists beside it.
    fn dpkg(&mut self) -> Result<(), RootError> {
        let Some(status) = self.file("/var/lib/dpkg/status")? else { return Ok(()) };
        let diversions = Diversions::read(self.root)?;
        let mut lists = BTreeMap::new();
        for text in dpkg::text_stanzas(&status) {
            let Some(package) = deb(&dpkg::stanza(text)) else { continue };
            let names = [format!("{}:{}", package.name, package.architecture), package.name.clone()];
            let at = self.add(package);
            for (path, sum) in dpkg::configuration(text) {
                if let Some(path) = self.packages.aliases.path(path) {
                    self.packages.configuration.insert(path, (at, sum));
                }
            }
            for name in names {
                lists.entry(name.into_bytes()).or_insert(at);
            }
        }
        for (path, name) in self.names("/var/lib/dpkg/info")? {
            let Some(&owner) = name.strip_suffix(b".list").and_then(|name| lists.get(name)) else { continue };
            let list = self.content(&path)?;
            let package = self.packages.installed[owner].name.clone();
            let directories = dpkg::directories(&list);
            for listed in dpkg::listed(&list).filter(|listed| !directories.contains(listed)) {
                self.own(diversions.place(listed, package.as_bytes()), owner);
            }
            self.packages.lists.insert(owner, path);
        }
        self.packages.diversions = diversions;
        Ok(())
    }

    /// `/var/lib/dpkg/status.d`: a file for each package, and its files' MD5 sums beside it.
    fn distroless(&mut self) -> Result<(), RootError> {
        for (path, name) in self.names("/var/lib/dpkg/status.d")? {
            if name.ends_with(b".md5sums") || !self.root.lstat(&path)?.is_some_and(|facts| facts.is_file()) {
                continue;
            }
            let text = self.content(&path)?;
            let Some(package) = dpkg::stanzas(&text).find_map(|stanza| deb(&stanza)) else { continue };
            let owner = self.add(package);
            let sums = path.parent().expect("it is in a directory").join(&[&name, &b".md5sums"[..]].concat());
            let sums = if self.root.lstat(&sums)?.is_some() { self.content(&sums)? } else { Vec::new() };
            for (listed, _) in dpkg::sums(&sums) {
                self.own(&[b"/", listed].concat(), owner);
            }
            self.packages.lists.insert(owner, path);
        }
        Ok(())
    }

    /// `/lib/apk/db/installed`: stanzas of one-letter fields; `F` is a directory, `R` a file in the last one.
    fn apk(&mut self) -> Result<(), RootError> {
        let Some(text) = self.file("/lib/apk/db/installed")? else { return Ok(()) };
        for stanza in dpkg::text_stanzas(&text) {
            let fields =
                || stanza.split(|&byte| byte == b'\n').filter_map(|line| Some((*line.first()?, line.get(2..)?)));
            let field = |letter| fields().find(|(name, _)| *name == letter).map(|(_, value)| escape(value));
            let (Some(name), Some(version)) = (field(b'P'), field(b'V')) else { continue };
            let owner = self.add(Package {
                system: PackageSystem::Apk,
                name,
                version,
                architecture: field(b'A').unwrap_or_default(),
                installed_size: field(b'I').and_then(|size| size.parse().ok()).unwrap_or(0),
            });
            let mut directory: &[u8] = b"";
            for (letter, value) in fields() {
                match letter {
                    b'F' => directory = value,
                    b'R' => self.own(&[b"/", directory, b"/", value].concat(), owner),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

fn deb(stanza: &dpkg::Stanza) -> Option<Package> {
    let field = |name: &str| stanza.get(name).cloned();
    // `Status: install ok installed`; distroless images have no status. Of one that is not configured yet, or waits for triggers, the
    // files are there all the same (`dpkg(1)`, "Package states").
    let is_gone = |status: String| [" not-installed", " config-files"].iter().any(|end| status.ends_with(end));
    if field("Status").is_some_and(is_gone) {
        return None;
    }
    Some(Package {
        system: PackageSystem::Deb,
        name: field("Package")?,
        version: field("Version")?,
        architecture: field("Architecture").unwrap_or_default(),
        // In kibibytes (`deb-substvars(5)`).
        installed_size: field("Installed-Size")
            .and_then(|size| size.parse::<u64>().ok())
            .unwrap_or(0)
            .saturating_mul(1024),
    })
}
