//! The names of images.

use std::fmt;
use std::str::FromStr;

/// A name for an image in a registry or an engine, as docker spells it: `python3:3.12`, `registry.example/team/app:1`.
///
/// Always with a tag; the grammar is that of the `distribution/reference` package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// `registry.example:5000`, or nothing for docker's own.
    domain: Option<String>,
    repository: String,
    tag: String,
}

/// What an image is called within an OCI layout: the annotation `org.opencontainers.image.ref.name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag(String);

/// A text is no name for an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error("`{0}` is no name for an image: it has lower-case letters, digits, `.`, `_`, `-` and `/`, then `:TAG`")]
    Reference(String),
    #[error("`{0}` is no tag: it has letters and digits, and between them `-`, `.`, `_`, `:`, `@`, `+` or `/`")]
    Tag(String),
}

impl Reference {
    /// A name made of a program's file name: what does not fit is replaced.
    ///
    /// ```
    /// use minjail::image::Reference;
    ///
    /// assert_eq!(Reference::of_program(b"python3.12").to_string(), "python3.12:latest");
    /// assert_eq!(Reference::of_program(b"My App++").to_string(), "my-app:latest");
    /// assert_eq!(Reference::of_program(b"\xff").to_string(), "app:latest");
    /// ```
    pub fn of_program(name: &[u8]) -> Self {
        let plain = |&byte: &u8| if byte.is_ascii_alphanumeric() || byte == b'.' { char::from(byte) } else { '-' };
        let text: String = name.iter().map(plain).collect::<String>().to_ascii_lowercase();
        let parts: Vec<&str> = text
            .split('-')
            .map(|part| part.trim_matches('.'))
            .filter(|part| !part.is_empty() && !part.contains(".."))
            .collect();
        let repository = parts.join("-");
        let usable = repository.split('/').all(is_component) && repository.len() <= MAX_REPOSITORY;
        let repository = if usable { repository } else { "app".to_owned() };
        Self { domain: None, repository, tag: "latest".to_owned() }
    }

    /// The same name with another tag; `None` if no engine would take the tag.
    #[must_use]
    pub fn with_tag(&self, tag: &str) -> Option<Self> {
        is_docker_tag(tag).then(|| Self { tag: tag.to_owned(), ..self.clone() })
    }

    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The last part of the name, which the image itself is called: `app` of `registry.example/team/app:1`.
    pub fn short(&self) -> &str {
        self.repository.rsplit('/').next().unwrap_or(&self.repository)
    }

    /// The name as containerd wants it, with nothing left out: `docker.io/library/python3:latest`.
    pub fn full(&self) -> String {
        let Self { domain, repository, tag } = self;
        match domain {
            Some(domain) => format!("{domain}/{repository}:{tag}"),
            None if repository.contains('/') => format!("docker.io/{repository}:{tag}"),
            None => format!("docker.io/library/{repository}:{tag}"),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(domain) = &self.domain {
            write!(formatter, "{domain}/")?;
        }
        write!(formatter, "{}:{}", self.repository, self.tag)
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ReferenceError::Reference(text.to_owned());
        let (domain, rest) = match text.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (Some(first), rest),
            _ => (None, text),
        };
        let (repository, tag) = rest.split_once(':').unwrap_or((rest, "latest"));
        let fits = domain.is_none_or(is_domain)
            && repository.split('/').all(is_component)
            && domain.map_or(0, str::len) + repository.len() <= MAX_REPOSITORY
            && is_docker_tag(tag);
        if !fits {
            return Err(wrong());
        }
        Ok(Self { domain: domain.map(str::to_owned), repository: repository.to_owned(), tag: tag.to_owned() })
    }
}

impl Tag {
    /// The tag of an image that was given none.
    pub fn latest() -> Self {
        Self("latest".to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name for containerd of an image so tagged that is otherwise called `name`: the tag itself if it is a whole
    /// name, as some tools have it. `None` if containerd would not take it.
    pub fn reference(&self, name: &Reference) -> Option<Reference> {
        if self.0.contains(['/', ':']) { self.0.parse().ok() } else { name.with_tag(&self.0) }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for Tag {
    type Err = ReferenceError;

    /// The grammar is that of the OCI image specification, `annotations.md`: components between slashes, of letters and
    /// digits with one of `-._:@+` or `--` between them.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_component =
            |component: &str| component.replace("--", "-").split(['-', '.', '_', ':', '@', '+']).all(is_alphanumeric);
        if text.split('/').all(is_component) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ReferenceError::Tag(text.to_owned()))
        }
    }
}

/// The longest name without tag that `distribution/reference` takes.
const MAX_REPOSITORY: usize = 255;

fn is_alphanumeric(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Lower-case letters and digits, with `.`, `_`, `__` or any number of `-` between them.
fn is_component(component: &str) -> bool {
    let is_word = |word: &str| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let is_separator = |text: &str| matches!(text, "." | "_" | "__") || text.bytes().all(|byte| byte == b'-');
    let is_end = |byte: Option<u8>| byte.is_some_and(|byte| !matches!(byte, b'.' | b'_' | b'-'));
    let separators = component.split(|byte: char| !matches!(byte, '.' | '_' | '-'));
    component.split(['.', '_', '-']).all(is_word)
        && separators.filter(|text| !text.is_empty()).all(is_separator)
        && is_end(component.bytes().next())
        && is_end(component.bytes().last())
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = domain.split_once(':').unwrap_or((domain, "0"));
    let is_label = |label: &str| {
        label.split('-').all(|part| part.bytes().all(|byte| byte.is_ascii_alphanumeric()))
            && !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(is_label) && !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_docker_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn references() {
        for (text, shown, full) in [
            ("python3", "python3:latest", "docker.io/library/python3:latest"),
            ("team/app:1.0", "team/app:1.0", "docker.io/team/app:1.0"),
            ("localhost:5000/a__b/c-d:X", "localhost:5000/a__b/c-d:X", "localhost:5000/a__b/c-d:X"),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!((reference.to_string().as_str(), reference.full().as_str()), (shown, full));
        }
        assert_eq!("localhost:5000/a__b/c-d:X".parse::<Reference>().unwrap().short(), "c-d");
        for wrong in ["", "A", "a:", ":a", "a//b", "a___b", "a..b", "-a", "a:b:c", "a b", "x.y:z/a", "a@sha256:00"] {
            assert!(wrong.parse::<Reference>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn tags() {
        for text in ["latest", "v1.0+x", "a--b", "docker.io/library/a:1"] {
            assert_eq!(text.parse::<Tag>().unwrap().as_str(), text);
        }
        for wrong in ["", "-a", "a-", "a..b", "a---b", "a b", "a/", "ä", "a:b:"] {
            assert!(wrong.parse::<Tag>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_containerd_is_told() {
        let name = Reference::of_program(b"app");
        let told = |tag: &str| tag.parse::<Tag>().unwrap().reference(&name).map(|name| name.full());
        assert_eq!(told("v1").as_deref(), Some("docker.io/library/app:v1"));
        assert_eq!(told("quay.io/x/y:2").as_deref(), Some("quay.io/x/y:2"));
        assert_eq!(told("v1+2"), None);
    }

    proptest! {
        #[test]
        fn every_program_has_a_name(name: Vec<u8>) {
            let reference = Reference::of_program(&name);
            prop_assert_eq!(reference.to_string().parse(), Ok(reference));
        }
    }
}
