//! How the user spells where an image goes and comes from.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::reference::{Reference, ReferenceError, Tag};
use crate::layer::Compression;
use crate::path::escape;

/// Where an image goes: spelled as skopeo and podman spell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// `rootfs:DIR`: a chroot directory.
    Rootfs(PathBuf),
    /// `layer:FILE`: a bare layer; compressed if the name ends in `.gz`, `.tgz` or `.zst`.
    Layer(Target),
    /// `oci:DIR[:TAG]`: an OCI layout.
    Oci { directory: PathBuf, tag: Option<Tag> },
    /// `oci-archive:FILE[:TAG]`: an OCI layout in a tar archive.
    OciArchive { file: Target, tag: Option<Tag> },
    /// `docker-archive:FILE[:REF]`: what `docker save` writes and `docker load` reads.
    DockerArchive { file: Target, reference: Option<Reference> },
}

/// A file, or `-`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    File(PathBuf),
    Standard,
}

/// Where an image comes from: the same forms, or `-`, whatever archive comes in on standard input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// `None` for `-`.
    pub(super) named: Option<Output>,
    /// Of the images in a docker archive, by `docker-archive:FILE:@N`, as skopeo has it; the first is 0.
    pub(super) number: Option<usize>,
}

/// A text names no output or input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutputError {
    #[error("`{0}` does not say what it is")]
    NoForm(String),
    #[error("`{form}` is no known form of an image, in `{text}`")]
    UnknownForm { form: String, text: String },
    #[error("`{0}` is no form of an image, and minjail takes none from engines and registries")]
    Elsewhere(String),
    #[error("`{0}` names no {1}")]
    NoPath(String, &'static str),
    #[error("`{0}` would put a directory on standard output")]
    StandardDirectory(String),
    #[error("`{text}` ends in a bad name")]
    BadName {
        text: String,
        #[source]
        source: ReferenceError,
    },
}

/// The known forms, for messages.
pub const FORMS: &str =
    "the forms are rootfs:DIR, layer:FILE, oci:DIR[:TAG], oci-archive:FILE[:TAG] and docker-archive:FILE[:REF]";

impl OutputError {
    /// What the user can do about it.
    pub fn hint(&self) -> String {
        let hint = match self {
            Self::NoForm(_) | Self::UnknownForm { .. } | Self::NoPath(..) => FORMS,
            Self::Elsewhere(text) => {
                let name = engine_name(text).unwrap_or("NAME");
                return format!("`docker save {name} | minjail slim - -o …` reads it from an engine; {FORMS}");
            }
            Self::StandardDirectory(_) => "layer, oci-archive and docker-archive can go to standard output",
            Self::BadName { .. } => "what follows the second colon is the name: a path cannot contain colons",
        };
        hint.to_owned()
    }
}

impl Output {
    /// Reads `FORM:PATH[:NAME]`.
    ///
    /// # Errors
    /// See [`OutputError`].
    pub fn parse(text: &OsStr) -> Result<Self, OutputError> {
        let shown = || escape(text.as_bytes());
        let (form, rest) = split(text.as_bytes()).ok_or_else(|| OutputError::NoForm(shown()))?;
        let directory = |path: &[u8]| match path {
            b"" => Err(OutputError::NoPath(shown(), "directory")),
            b"-" => Err(OutputError::StandardDirectory(shown())),
            _ => Ok(PathBuf::from(OsString::from_vec(path.to_vec()))),
        };
        let file = |path: &[u8]| match path {
            b"" | [.., b'/'] => Err(OutputError::NoPath(shown(), "file")),
            b"-" => Ok(Target::Standard),
            _ => Ok(Target::File(PathBuf::from(OsString::from_vec(path.to_vec())))),
        };
        let (path, name) = split(rest).map_or((rest, None), |(path, name)| (path, Some(escape(name))));
        let bad = |source| OutputError::BadName { text: shown(), source };
        let tag = || name.as_deref().map(|name| name.parse::<Tag>().map_err(bad)).transpose();
        match form {
            b"rootfs" => directory(rest).map(Self::Rootfs),
            b"layer" => file(rest).map(Self::Layer),
            b"oci" => Ok(Self::Oci { directory: directory(path)?, tag: tag()? }),
            b"oci-archive" => Ok(Self::OciArchive { file: file(path)?, tag: tag()? }),
            b"docker-archive" => {
                let reference = name.as_deref().map(|name| name.parse().map_err(bad)).transpose()?;
                Ok(Self::DockerArchive { file: file(path)?, reference })
            }
            _ => Err(OutputError::UnknownForm { form: escape(form), text: shown() }),
        }
    }

    /// With this tag, if it is of a form that has one and says none.
    #[must_use]
    pub fn or_tagged(self, name: Option<&Tag>) -> Self {
        match self {
            Self::Oci { directory, tag: None } => Self::Oci { directory, tag: name.cloned() },
            Self::OciArchive { file, tag: None } => Self::OciArchive { file, tag: name.cloned() },
            other => other,
        }
    }

    /// True for the forms that have layers of their own: a tree has none, and a bare layer is one.
    pub fn has_layers(&self) -> bool {
        !matches!(self, Self::Rootfs(_) | Self::Layer(_))
    }

    /// The file or directory that it makes; `None` for standard output.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Rootfs(path) | Self::Oci { directory: path, .. } => Some(path),
            Self::Layer(file) | Self::OciArchive { file, .. } | Self::DockerArchive { file, .. } => match file {
                Target::File(path) => Some(path),
                Target::Standard => None,
            },
        }
    }
}

impl Target {
    /// How a bare layer is compressed, by the name of its file.
    pub(super) fn compression(&self) -> Compression {
        let Self::File(path) = self else { return Compression::None };
        match path.extension().map(OsStr::as_bytes) {
            Some(b"gz" | b"tgz") => Compression::GZIP,
            Some(b"zst") => Compression::ZSTD,
            _ => Compression::None,
        }
    }
}

impl Input {
    /// Reads `FORM:PATH[:NAME]`, or `-`.
    ///
    /// # Errors
    /// See [`OutputError`].
    pub fn parse(text: &OsStr) -> Result<Self, OutputError> {
        if text == "-" {
            return Ok(Self { named: None, number: None });
        }
        if let Some((archive, number)) = numbered(text.as_bytes()) {
            let named = Output::parse(OsStr::from_bytes(archive)).map(Some)?;
            return Ok(Self { named, number: Some(number) });
        }
        match Output::parse(text) {
            Ok(output) => Ok(Self { named: Some(output), number: None }),
            Err(error @ (OutputError::NoForm(_) | OutputError::UnknownForm { .. })) => {
                let shown = escape(text.as_bytes());
                let is_elsewhere = engine_name(&shown).is_some();
                Err(if is_elsewhere { OutputError::Elsewhere(shown) } else { error })
            }
            Err(error) => Err(error),
        }
    }

    /// The file or directory that it is in; `None` for standard input.
    pub fn path(&self) -> Option<&Path> {
        self.named.as_ref()?.path()
    }

    /// The directory of a `rootfs:DIR`, to be used as it is.
    pub fn rootfs(&self) -> Option<&Path> {
        if let Some(Output::Rootfs(directory)) = &self.named { Some(directory) } else { None }
    }
}

impl fmt::Display for Output {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path().map_or_else(|| "-".to_owned(), |path| escape(path.as_os_str().as_bytes()));
        let (form, name) = match self {
            Self::Rootfs(_) => ("rootfs", None),
            Self::Layer(_) => ("layer", None),
            Self::Oci { tag, .. } => ("oci", tag.as_ref().map(Tag::to_string)),
            Self::OciArchive { tag, .. } => ("oci-archive", tag.as_ref().map(Tag::to_string)),
            Self::DockerArchive { reference, .. } => ("docker-archive", reference.as_ref().map(Reference::to_string)),
        };
        write!(formatter, "{form}:{path}")?;
        name.map_or(Ok(()), |name| write!(formatter, ":{name}"))
    }
}

/// `docker-archive:FILE` and N of `docker-archive:FILE:@N`.
fn numbered(text: &[u8]) -> Option<(&[u8], usize)> {
    let at = text.starts_with(b"docker-archive:").then(|| text.windows(2).rposition(|pair| pair == b":@"))??;
    let digits = std::str::from_utf8(&text[at + 2..]).ok()?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    Some((&text[..at], digits.parse().ok().filter(|_| is_number)?))
}

/// What an engine calls an image that somebody spells as other tools do: `docker://alpine`, or `alpine:3`.
fn engine_name(text: &str) -> Option<&str> {
    let forms = ["docker://", "docker-daemon:", "containers-storage:", "docker:"];
    let name = forms.iter().find_map(|form| text.strip_prefix(form)).unwrap_or(text);
    name.parse::<Reference>().is_ok().then_some(name)
}

/// What stands before and behind the first colon.
fn split(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = text.iter().position(|&byte| byte == b':')?;
    Some((&text[..colon], &text[colon + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Output, OutputError> {
        Output::parse(OsStr::new(text))
    }

    #[test]
    fn every_form() {
        for text in [
            "rootfs:a:b/c",
            "layer:x:y.tar",
            "layer:-",
            "oci:dir",
            "oci:dir:v1.0+2",
            "oci-archive:-:latest",
            "docker-archive:/x/y.tar:localhost:5000/a/b:1",
            "docker-archive:-",
        ] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        let shown = parse("docker-archive:a:python3").unwrap().to_string();
        assert_eq!(shown, "docker-archive:a:python3:latest");
    }

    #[test]
    fn mistakes_are_told_apart() {
        let error = |text: &str| parse(text).unwrap_err();
        assert!(matches!(error("dir"), OutputError::NoForm(_)));
        assert!(matches!(error("docker:x"), OutputError::UnknownForm { .. }));
        assert!(matches!(error("oci:"), OutputError::NoPath(_, "directory")));
        assert!(matches!(error("layer:"), OutputError::NoPath(_, "file")));
        assert!(matches!(error("oci::v1"), OutputError::NoPath(_, "directory")));
        assert!(matches!(error("rootfs:-"), OutputError::StandardDirectory(_)));
        assert!(matches!(error("oci:-:v1"), OutputError::StandardDirectory(_)));
        assert!(matches!(error("oci:dir:-"), OutputError::BadName { .. }));
        assert!(matches!(error("oci:dir:"), OutputError::BadName { .. }));
        assert!(matches!(error("docker-archive:x:UPPER"), OutputError::BadName { .. }));
        assert!(error("dir").hint().contains("oci-archive:FILE[:TAG]"));
    }

    #[test]
    fn images_that_are_elsewhere() {
        let error = |text: &str| Input::parse(OsStr::new(text)).unwrap_err();
        for (text, name) in
            [("docker://alpine", "alpine"), ("alpine:3", "alpine:3"), ("quay.io/a/b:1", "quay.io/a/b:1")]
        {
            assert!(matches!(error(text), OutputError::Elsewhere(_)), "{text}");
            assert!(error(text).hint().starts_with(&format!("`docker save {name} | minjail slim - -o …`")), "{text}");
        }
        assert!(matches!(error("/x/image.tar"), OutputError::NoForm(_)));
        let input = |text: &str| Input::parse(OsStr::new(text)).map(|input| (input.number, input.path().is_some()));
        assert_eq!(input("docker-archive:a.tar:@1"), Ok((Some(1), true)));
        assert!(input("docker-archive:a.tar:@").is_err() && input("docker-archive:a.tar:@x").is_err());
    }

    #[test]
    fn a_layers_name_says_how_it_is_compressed() {
        for (text, compression) in [
            ("layer:x.tar", Compression::None),
            ("layer:-", Compression::None),
            ("layer:x.tar.gz", Compression::GZIP),
            ("layer:x.tgz", Compression::GZIP),
            ("layer:x.tar.zst", Compression::ZSTD),
        ] {
            let Ok(Output::Layer(target)) = parse(text) else { panic!("{text} is a layer") };
            assert_eq!(target.compression(), compression);
        }
    }
}
