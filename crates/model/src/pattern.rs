//! Patterns over names of images and over tags.

use std::fmt;
use std::str::FromStr;

use crate::digest::clip;
use crate::name::text_serde;
use crate::{ImageName, NameError, Tag};

/// The longest pattern, in bytes.
const LONGEST: usize = 512;

/// Which images a rule is for: a glob over the whole name. `*` and `?` stay within a component, `**` spans components,
/// `[a-z]` and `{a,b}` are sets and alternatives. `acme/*` is every image right below `acme`, `acme/**` every one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImagePattern(String);

/// Which tags a rule is for: a glob over the whole tag, with `*`, `?`, `[0-9]` and `{a,b}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TagPattern(String);

impl ImagePattern {
    /// Every image.
    pub fn all() -> Self {
        Self("**".to_owned())
    }

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the rule is for this image.
    pub fn matches(&self, name: &ImageName) -> bool {
        fast_glob::glob_match(&self.0, name.as_str())
    }
}

impl TagPattern {
    /// Every tag.
    pub fn all() -> Self {
        Self("*".to_owned())
    }

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the rule is for this tag.
    pub fn matches(&self, tag: &Tag) -> bool {
        fast_glob::glob_match(&self.0, tag.as_str())
    }
}

/// Checks what every pattern must be: letters of names and the signs of a glob, with brackets that close.
fn check(text: &str, legal: impl Fn(u8) -> bool) -> bool {
    let mut open = Vec::new();
    for byte in text.bytes() {
        match byte {
            b'[' | b'{' => open.push(byte),
            b']' if open.pop() != Some(b'[') => return false,
            b'}' if open.pop() != Some(b'{') => return false,
            b']' | b'}' | b'*' | b'?' | b'-' | b'!' | b',' => {}
            other if legal(other) => {}
            _ => return false,
        }
    }
    // Nested alternatives multiply the work of a match; a rule has no need of them.
    !text.is_empty() && text.len() <= LONGEST && open.is_empty() && text.matches('{').count() <= 4
}

impl FromStr for ImagePattern {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'/');
        if check(text, legal) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::new("image pattern", clip(text), "an image name with * ** ? [a-z] {a,b}, such as acme/*"))
        }
    }
}

impl FromStr for TagPattern {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_');
        if check(text, legal) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::new("tag pattern", clip(text), "a tag with * ? [0-9] {a,b}, such as v*"))
        }
    }
}

impl fmt::Display for ImagePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for TagPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

text_serde!(ImagePattern, TagPattern);

#[cfg(test)]
mod tests {
    use super::*;

    fn image(pattern: &str, name: &str) -> bool {
        pattern.parse::<ImagePattern>().unwrap().matches(&name.parse().unwrap())
    }

    fn tag(pattern: &str, name: &str) -> bool {
        pattern.parse::<TagPattern>().unwrap().matches(&name.parse().unwrap())
    }

    #[test]
    fn a_star_stays_within_a_component() {
        assert!(image("acme/*", "acme/app"));
        assert!(!image("acme/*", "acme/app/web"));
        assert!(!image("acme/*", "acme"));
        assert!(image("acme/**", "acme/app") && image("acme/**", "acme/app/web"));
        assert!(!image("acme/**", "acmes/app"));
        assert!(image("**", "a/b/c") && image("**", "a"));
        assert!(image("*/app", "acme/app") && !image("*/app", "acme/x/app"));
        assert!(image("acme/{app,web}-?", "acme/web-1") && !image("acme/{app,web}-?", "acme/db-1"));
        assert!(image("acme/app", "acme/app") && !image("acme/app", "acme/app2"));
    }

    #[test]
    fn tags() {
        assert!(tag("v*", "v1.2.3") && !tag("v*", "latest"));
        assert!(tag("[0-9]*", "1.0") && !tag("[0-9]*", "v1"));
        assert!(tag("*", "sha256-abc"));
        assert!(tag("{main,release-*}", "release-7"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for bad in ["", "Acme/*", "acme/[a", "acme/a]", "{a", "a}", "a b", "[{]}", "a\\b", "{{{{{a}}}}}"] {
            let error = bad.parse::<ImagePattern>().unwrap_err().to_string();
            assert!(error.contains("image pattern"), "{bad}: {error}");
        }
        assert!("a/b".parse::<TagPattern>().is_err());
        assert!("*".repeat(513).parse::<TagPattern>().is_err());
    }

    #[test]
    fn a_match_is_bounded() {
        let pattern: ImagePattern = "a*".repeat(120).parse().unwrap();
        assert!(!pattern.matches(&"a".repeat(100).parse().unwrap()));
    }
}
