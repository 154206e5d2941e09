//! Names of images.

use std::fmt;
use std::str::FromStr;

use crate::digest::clip;
use crate::name::text_serde;
use crate::{Digest, NameError};

/// The name of an image repository inside a registry, by the distribution specification:
/// lower-case components of letters and digits, joined by `.`, `_`, `__` or dashes, separated by `/`; at most 255 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageName(String);

impl ImageName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first component, which is the owner of the image here.
    pub fn owner(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }
}

fn valid_component(component: &str) -> bool {
    let bytes = component.as_bytes();
    let alnum = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if !bytes.first().is_some_and(alnum) || !bytes.last().is_some_and(alnum) {
        return false;
    }
    component
        .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-'))
}

impl FromStr for ImageName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() <= 255 && text.split('/').all(valid_component) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::new("image name", clip(text), "lower-case letters, digits and single . _ - between them"))
        }
    }
}

/// A tag: a letter, digit or `_`, then up to 127 of those, `.` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(String);

impl Tag {
    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let valid = text.len() <= 128
            && text.bytes().next().is_some_and(word)
            && text.bytes().all(|b| word(b) || b == b'.' || b == b'-');
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::new("tag", clip(text), "at most 128 letters, digits, _ . -, not beginning with . or -"))
        }
    }
}

/// An image as a person writes it: `[registry/]name[:tag][@digest]`.
///
/// The first component is a registry if it holds a `.` or a `:` or is `localhost`, as docker decides it. Nothing is
/// filled in: what an absent registry or tag means is the reader's rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImageRef {
    /// Host and port of the registry, if written.
    pub registry: Option<String>,
    /// The repository inside the registry.
    pub name: ImageName,
    /// The tag, if written.
    pub tag: Option<Tag>,
    /// The digest, if written; it wins over the tag.
    pub digest: Option<Digest>,
}

impl FromStr for ImageRef {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let bad = |why| NameError::new("image reference", clip(text), why);
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(|_| bad("name@sha256:… after the @"))?)),
            None => (text, None),
        };
        let (registry, rest) = match rest.split_once('/') {
            Some((host, path)) if host == "localhost" || host.contains(['.', ':']) => (Some(host), path),
            _ => (None, rest),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) => (name, Some(tag.parse()?)),
            None => (rest, None),
        };
        if let Some(host) = registry {
            let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']');
            if host.is_empty() || !host.bytes().all(legal) {
                return Err(bad("host[:port] before the first /"));
            }
        }
        Ok(Self { registry: registry.map(str::to_owned), name: name.parse()?, tag, digest })
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(registry) = &self.registry {
            write!(f, "{registry}/")?;
        }
        write!(f, "{}", self.name)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// An image by content: what `deploy` accepts. The registry's name is added for each audience.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct PinnedImage {
    /// The repository inside the registry.
    pub name: ImageName,
    /// The digest of the manifest or index.
    pub digest: Digest,
}

impl PinnedImage {
    /// `registry/name@digest`, for whoever reaches the registry at `registry` (host and port).
    pub fn at(&self, registry: &str) -> String {
        format!("{registry}/{}@{}", self.name, self.digest)
    }
}

impl fmt::Display for PinnedImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.digest)
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

text_serde!(ImageName, Tag, ImageRef);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_references_as_docker_does() {
        let plain: ImageRef = "demo/site:v1".parse().expect("valid");
        assert_eq!((plain.registry, plain.name.as_str()), (None, "demo/site"));
        let full: ImageRef = "localhost:5000/a/b-c__d:1.0".parse().expect("valid");
        assert_eq!(full.registry.as_deref(), Some("localhost:5000"));
        assert_eq!(full.to_string(), "localhost:5000/a/b-c__d:1.0");
        let pinned = format!("registry.example/x@sha256:{}", "0".repeat(64));
        assert_eq!(pinned.parse::<ImageRef>().expect("valid").to_string(), pinned);
    }

    #[test]
    fn refuses_what_the_specification_refuses() {
        for bad in ["", "/", "a//b", "A/b", "a_/b", "a/../b", "a___b", "a..b", ".a", "a:", "a@b", "host.x/"] {
            assert!(bad.parse::<ImageRef>().is_err(), "{bad}");
        }
    }
}
