//! What a manifest is asked for by.

use std::fmt;
use std::str::FromStr;

use model::{Digest, NameError, Tag};

/// A tag or a digest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// Whatever the tag points to at the moment.
    Tag(Tag),
    /// This and no other.
    Digest(Digest),
}

impl Reference {
    /// The tag, if it is one.
    pub const fn tag(&self) -> Option<&Tag> {
        match self {
            Self::Tag(tag) => Some(tag),
            Self::Digest(_) => None,
        }
    }
}

impl FromStr for Reference {
    type Err = NameError;

    /// A text with a colon can only be a digest.
    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.contains(':') {
            let shown: String = text.chars().take(80).collect();
            let bad = |_| NameError::new("digest", shown, "sha256: or sha512: and lower-case hexadecimal digits");
            text.parse().map(Self::Digest).map_err(bad)
        } else {
            text.parse().map(Self::Tag)
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}
