//! What differs from loader to loader: glibc or musl, and the machine that each is built for.

use super::read::{Class, Elf};
use crate::path::JailPath;

/// The C library whose loader it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flavour {
    Glibc,
    Musl,
}

/// What a loader was built with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Loader {
    pub(super) flavour: Flavour,
    /// Where it looks last, in order.
    pub(super) default_directories: Vec<Vec<u8>>,
    /// What `$LIB` stands for.
    pub(super) lib: Vec<u8>,
    /// The file that tells where else it looks: glibc's cache, musl's list of directories.
    pub(super) guide: Vec<u8>,
    pub(super) machine: &'static Machine,
}

/// The facts of a machine that loaders and `ldconfig` have built in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Machine {
    number: u16,
    class: Class,
    /// Debian's directory (<https://wiki.debian.org/Multiarch/Tuples>).
    multiarch: &'static str,
    /// The directory of others.
    lib: &'static str,
    /// Where glibc's loader stands, as programs name it.
    pub(super) glibc_loader: &'static str,
    /// Where musl's stands.
    pub(super) musl_loader: &'static str,
    /// What `$PLATFORM` can stand for (`AT_PLATFORM`, and what glibc makes of it).
    pub(super) platforms: &'static [&'static str],
    /// The `glibc-hwcaps` subdirectories, the best first (glibc, `sysdeps/*/dl-hwcaps-subdirs.c`).
    pub(super) hwcaps: &'static [&'static str],
    /// Names of which glibc before 2.37 makes subdirectories, one in another.
    pub(super) legacy: &'static [&'static str],
    /// What `ldconfig` marks the machine's libraries with (glibc, `sysdeps/generic/ldconfig.h`); none: it is not known.
    pub(super) cache_flags: &'static [u32],
}

/// No longer path is opened (`path_resolution(7)`).
pub(super) const PATH_MAX: usize = 4096;

/// No loader has more directories built in.
const MAX_DIRECTORIES: usize = 64;

/// The cache of a distribution's own loader.
pub(super) const LD_CACHE: &[u8] = b"/etc/ld.so.cache";

const EM_386: u16 = 3;
const EM_PPC64: u16 = 21;
const EM_S390: u16 = 22;
const EM_ARM: u16 = 40;
const EM_X86_64: u16 = 62;
const EM_AARCH64: u16 = 183;
const EM_RISCV: u16 = 243;

/// A machine of which nothing is known but that loaders have default directories.
const UNKNOWN: Machine = Machine {
    number: 0,
    class: Class::Bits64,
    multiarch: "lib",
    lib: "lib64",
    glibc_loader: "",
    musl_loader: "",
    platforms: &[],
    hwcaps: &[],
    legacy: &["tls"],
    cache_flags: &[],
};

static MACHINES: [Machine; 9] = [
    UNKNOWN,
    Machine {
        number: EM_X86_64,
        class: Class::Bits64,
        multiarch: "lib/x86_64-linux-gnu",
        lib: "lib64",
        glibc_loader: "/lib64/ld-linux-x86-64.so.2",
        musl_loader: "/lib/ld-musl-x86_64.so.1",
        platforms: &["x86_64", "haswell", "xeon_phi"],
        hwcaps: &["x86-64-v4", "x86-64-v3", "x86-64-v2"],
        legacy: &["tls", "haswell", "xeon_phi", "avx512_1", "x86_64"],
        cache_flags: &[0x303],
    },
    Machine {
        number: EM_X86_64,
        class: Class::Bits32,
        multiarch: "lib/x86_64-linux-gnux32",
        lib: "libx32",
        glibc_loader: "/libx32/ld-linux-x32.so.2",
        musl_loader: "/lib/ld-musl-x32.so.1",
        platforms: &["x86_64", "haswell", "xeon_phi"],
        hwcaps: &["x86-64-v4", "x86-64-v3", "x86-64-v2"],
        legacy: &["tls", "haswell", "xeon_phi", "avx512_1", "x86_64"],
        cache_flags: &[0x803],
    },
    Machine {
        number: EM_386,
        class: Class::Bits32,
        multiarch: "lib/i386-linux-gnu",
        lib: "lib",
        glibc_loader: "/lib/ld-linux.so.2",
        musl_loader: "/lib/ld-musl-i386.so.1",
        platforms: &["i386", "i486", "i586", "i686", "haswell", "xeon_phi"],
        hwcaps: &[],
        legacy: &["tls", "i386", "i486", "i586", "i686", "sse2", "haswell", "xeon_phi"],
        // Those that need no C library are marked as of none (glibc, `sysdeps/generic/dl-cache.h`).
        cache_flags: &[0x003, 0x001],
    },
    Machine {
        number: EM_AARCH64,
        class: Class::Bits64,
        multiarch: "lib/aarch64-linux-gnu",
        lib: "lib64",
        glibc_loader: "/lib/ld-linux-aarch64.so.1",
        musl_loader: "/lib/ld-musl-aarch64.so.1",
        platforms: &["aarch64"],
        hwcaps: &[],
        legacy: &["tls", "atomics", "aarch64"],
        cache_flags: &[0xa03],
    },
    Machine {
        number: EM_ARM,
        class: Class::Bits32,
        multiarch: "lib/arm-linux-gnueabihf",
        lib: "lib",
        glibc_loader: "/lib/ld-linux-armhf.so.3",
        musl_loader: "/lib/ld-musl-armhf.so.1",
        platforms: &["v6l", "v7l", "v8l"],
        hwcaps: &[],
        legacy: &["tls", "v6l", "v7l", "v8l", "vfp", "neon"],
        cache_flags: &[0x903],
    },
    Machine {
        number: EM_RISCV,
        class: Class::Bits64,
        multiarch: "lib/riscv64-linux-gnu",
        lib: "lib64/lp64d",
        glibc_loader: "/lib/ld-linux-riscv64-lp64d.so.1",
        musl_loader: "/lib/ld-musl-riscv64.so.1",
        platforms: &[],
        hwcaps: &[],
        legacy: &["tls"],
        cache_flags: &[],
    },
    Machine {
        number: EM_PPC64,
        class: Class::Bits64,
        multiarch: "lib/powerpc64le-linux-gnu",
        lib: "lib64",
        glibc_loader: "/lib64/ld64.so.2",
        musl_loader: "/lib/ld-musl-powerpc64le.so.1",
        platforms: &["power8", "power9", "power10"],
        hwcaps: &["power10", "power9"],
        legacy: &["tls", "power8", "power9", "power10"],
        cache_flags: &[0x503],
    },
    Machine {
        number: EM_S390,
        class: Class::Bits64,
        multiarch: "lib/s390x-linux-gnu",
        lib: "lib64",
        glibc_loader: "/lib/ld64.so.1",
        musl_loader: "/lib/ld-musl-s390x.so.1",
        platforms: &["z13", "z14", "z15", "z16"],
        hwcaps: &["z16", "z15", "z14", "z13"],
        legacy: &["tls", "z13", "z14", "z15", "z16"],
        cache_flags: &[0x403],
    },
];

impl Machine {
    /// The machine that `elf` is for.
    pub(super) fn of(elf: &Elf) -> &'static Self {
        let fits = |machine: &&Self| machine.number == elf.machine && machine.class == elf.class;
        MACHINES.iter().find(fits).unwrap_or(&MACHINES[0])
    }
}

impl Loader {
    /// The loader of glibc whose file is `bytes`; without the file, what most distributions build.
    pub(super) fn glibc(machine: &'static Machine, bytes: Option<&[u8]>) -> Self {
        let built_in = bytes.and_then(system_directories).unwrap_or_else(|| {
            let [multiarch, lib] = [machine.multiarch, machine.lib];
            let mut directories = Vec::new();
            for directory in [multiarch, lib, "lib"] {
                for whole in [format!("/{directory}"), format!("/usr/{directory}")] {
                    if !directories.contains(&whole.as_bytes().to_vec()) {
                        directories.push(whole.into_bytes());
                    }
                }
            }
            directories
        });
        let first = built_in.first().map(Vec::as_slice).unwrap_or_default();
        let lib = first.strip_prefix(b"/usr/").or_else(|| first.strip_prefix(b"/")).unwrap_or(first).to_vec();
        let guide = bytes.and_then(cache_file).unwrap_or(LD_CACHE).to_vec();
        Self { flavour: Flavour::Glibc, default_directories: built_in, lib, guide, machine }
    }

    /// The loader of musl; `guide` is its `/etc/ld-musl-ARCH.path`, and `list` the content of that.
    pub(super) fn musl(machine: &'static Machine, guide: Vec<u8>, list: Option<&[u8]>) -> Self {
        let list = list.unwrap_or(b"/lib:/usr/local/lib:/usr/lib");
        Self { flavour: Flavour::Musl, default_directories: musl_list(list), lib: Vec::new(), guide, machine }
    }

    /// `text` with `$ORIGIN`, `$LIB` and `$PLATFORM` replaced, once for each platform; nothing if it becomes longer than any path that
    /// the kernel takes. Paths that hold only on some processors are marked `true`.
    ///
    /// `ld.so(8)`, "Dynamic string tokens"; what is no token stays as it is (`elf/dl-load.c`, `is_dst`).
    pub(super) fn expand(&self, text: &[u8], origin: &[u8]) -> Vec<(Vec<u8>, bool)> {
        let mut expanded = vec![(Vec::new(), false)];
        let mut rest = text;
        while let Some((&byte, tail)) = rest.split_first() {
            let token = if byte == b'$' { token(tail) } else { None };
            match token {
                Some((Token::Platform, tail)) => {
                    let platforms = self.machine.platforms;
                    expanded = expanded
                        .iter()
                        .flat_map(|(path, _)| platforms.iter().map(|name| ([path, name.as_bytes()].concat(), true)))
                        .take(64)
                        .collect();
                    rest = tail;
                }
                Some((token, tail)) => {
                    let value = if token == Token::Origin { origin } else { &self.lib };
                    for (path, _) in &mut expanded {
                        path.extend_from_slice(value);
                    }
                    rest = tail;
                }
                None => {
                    for (path, _) in &mut expanded {
                        path.push(byte);
                    }
                    rest = tail;
                }
            }
            expanded.retain(|(path, _)| path.len() < PATH_MAX);
            if expanded.is_empty() {
                break;
            }
        }
        expanded
    }

    /// True if a program with more rights than whoever starts it is looked for what it needs at `path`, which its RPATH or RUNPATH has
    /// as `text`: where the program is counts only in front, and only if that leads into a default directory (`elf/dl-load.c`,
    /// `_dl_dst_substitute`, `is_trusted_path_normalize`).
    pub(super) fn trusts(&self, text: &[u8], path: &[u8]) -> bool {
        let origins: Vec<usize> =
            (0..text.len()).filter(|&at| text[at] == b'$' && is_origin(&text[at + 1..])).collect();
        let is_in_front = || {
            let rest = text.strip_prefix(b"$ORIGIN").or_else(|| text.strip_prefix(b"${ORIGIN}"));
            origins == [0] && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        };
        let clean = || JailPath::clean(path).ok();
        let is_default = |path: JailPath| {
            let directories = self.default_directories.iter().filter_map(|directory| JailPath::clean(directory).ok());
            directories.into_iter().any(|directory| path.starts_with(&directory))
        };
        origins.is_empty() || is_in_front() && clean().is_some_and(is_default)
    }
}

fn is_origin(text: &[u8]) -> bool {
    matches!(token(text), Some((Token::Origin, _)))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Origin,
    Lib,
    Platform,
}

/// The token behind a `$`, and what follows it.
fn token(text: &[u8]) -> Option<(Token, &[u8])> {
    let tokens = [(&b"ORIGIN"[..], Token::Origin), (b"LIB", Token::Lib), (b"PLATFORM", Token::Platform)];
    tokens.into_iter().find_map(|(name, token)| {
        if let Some(inside) = text.strip_prefix(b"{") {
            return Some((token, inside.strip_prefix(name)?.strip_prefix(b"}")?));
        }
        let rest = text.strip_prefix(name)?;
        let goes_on = rest.first().is_some_and(|&byte| byte.is_ascii_alphanumeric() || byte == b'_');
        (!goes_on).then_some((token, rest))
    })
}

/// The default directories that are compiled into glibc's loader: one string behind the other, each ending in a slash
/// (`elf/dl-load.c`, `system_dirs`). Distributions differ, so the file itself is asked.
fn system_directories(file: &[u8]) -> Option<Vec<Vec<u8>>> {
    let is_directory = |text: &[u8]| {
        text.len() < 4096
            && text.len() > 2
            && text.starts_with(b"/")
            && text.ends_with(b"/")
            && text.iter().all(u8::is_ascii_graphic)
    };
    let mut found: Vec<Vec<u8>> = Vec::new();
    for text in file.split(|&byte| byte == 0) {
        // Whatever bytes stand before the first one may run into it.
        let text = if found.is_empty() { text.rsplit(|byte| !byte.is_ascii_graphic()).next()? } else { text };
        if is_directory(text) && (!found.is_empty() || text.windows(4).any(|part| part == b"/lib")) {
            found.push(text[..text.len() - 1].to_vec());
            if found.len() == MAX_DIRECTORIES {
                break;
            }
        } else if !found.is_empty() {
            break;
        }
    }
    (!found.is_empty()).then_some(found)
}

/// The cache that is compiled into glibc's loader (`LD_SO_CACHE`): one that was built for a prefix of its own, as Nix and Guix
/// build it, reads none of the machine's.
fn cache_file(file: &[u8]) -> Option<&[u8]> {
    let names = file.split(|&byte| byte == 0).filter(|text| text.ends_with(b"/ld.so.cache"));
    let mut paths = names.filter_map(|text| text.rsplit(|byte| !byte.is_ascii_graphic()).next());
    paths.find(|path| path.starts_with(b"/"))
}

/// A list of directories as musl splits it (`ldso/dynlink.c`, `path_open`).
pub(super) fn musl_list(list: &[u8]) -> Vec<Vec<u8>> {
    list.split(|byte| b":\n".contains(byte)).filter(|part| !part.is_empty()).map(<[u8]>::to_vec).collect()
}

/// True if musl takes a library of this name to be itself (`ldso/dynlink.c`, `load_library`).
pub(super) fn is_musl_itself(name: &[u8]) -> bool {
    let reserved = [&b"c."[..], b"pthread.", b"rt.", b"m.", b"dl.", b"util.", b"xnet."];
    name.strip_prefix(b"lib").is_some_and(|rest| reserved.iter().any(|start| rest.starts_with(start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glibc() -> Loader {
        Loader::glibc(&MACHINES[1], None)
    }

    #[test]
    fn tokens() {
        let one = |text: &str| {
            let expanded = glibc().expand(text.as_bytes(), b"/opt/app");
            assert_eq!(expanded.len(), 1, "{text}");
            String::from_utf8(expanded[0].0.clone()).unwrap()
        };
        assert_eq!(one("$ORIGIN/../lib"), "/opt/app/../lib");
        assert_eq!(one("${ORIGIN}x"), "/opt/appx");
        assert_eq!(one("/usr/$LIB/x"), "/usr/lib/x86_64-linux-gnu/x");
        assert_eq!(one("$ORIGINAL/$/${LIB"), "$ORIGINAL/$/${LIB");
        let platforms = glibc().expand(b"/p/$PLATFORM", b"");
        assert!(platforms.contains(&(b"/p/haswell".to_vec(), true)));
    }

    #[test]
    fn where_a_program_is_counts_little_if_it_has_more_rights() {
        let trusts = |text: &str, origin: &str| {
            let path = glibc().expand(text.as_bytes(), origin.as_bytes()).remove(0).0;
            glibc().trusts(text.as_bytes(), &path)
        };
        assert!(trusts("/opt/lib", "/usr/bin") && trusts("$ORIGIN/../lib/app", "/usr/bin"));
        for (text, origin) in
            [("$ORIGIN/../lib", "/opt/bin"), ("/usr/lib/$ORIGIN", "/usr/bin"), ("${ORIGIN}x", "/usr/lib")]
        {
            assert!(!trusts(text, origin), "{text}");
        }
    }

    #[test]
    fn default_directories_are_in_the_loader() {
        let number = if cfg!(target_arch = "x86_64") { EM_X86_64 } else { EM_AARCH64 };
        let own = MACHINES.iter().find(|machine| machine.number == number).unwrap();
        let file = fs_err::read(own.glibc_loader).unwrap();
        let [first, second] = ["/", "/usr/"].map(|top| format!("{top}{}", own.multiarch).into_bytes());
        assert_eq!(system_directories(&file).unwrap(), [first.as_slice(), &second, b"/lib", b"/usr/lib"]);
        assert_eq!(system_directories(b"\0\x01\0/lib64/\0/usr/lib64/\0x").unwrap(), [&b"/lib64"[..], b"/usr/lib64"]);
        assert_eq!(system_directories(b"\x7fELF"), None);
        assert_eq!(cache_file(&file), Some(LD_CACHE));
        assert_eq!(
            cache_file(b"not /etc/ld.so.cache\n\0\x01/opt/etc/ld.so.cache\0"),
            Some(&b"/opt/etc/ld.so.cache"[..])
        );
    }

    #[test]
    fn musl_takes_the_c_library_to_be_itself() {
        assert!(is_musl_itself(b"libc.so") && is_musl_itself(b"libc.musl-x86_64.so.1") && is_musl_itself(b"libm.so.6"));
        assert!(!is_musl_itself(b"libcrypto.so.3") && !is_musl_itself(b"libmagic.so"));
    }
}
