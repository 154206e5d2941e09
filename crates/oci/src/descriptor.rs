//! References to content: what it is, its digest and its size.

use std::collections::BTreeMap;

use model::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An OCI content descriptor. Fields that are not known here are kept when it is written again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is.
    pub media_type: String,
    /// The digest of the content as it is stored and sent, which for a layer is the compressed form.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// What kind of artifact a referrer is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub artifact_type: Option<String>,
    /// The platform an entry of an index is for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub platform: Option<Platform>,
    /// Free text by key.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub annotations: Option<BTreeMap<String, String>>,
    /// Every other field, as it came.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl Descriptor {
    /// A descriptor with nothing but what every descriptor has.
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size,
            artifact_type: None,
            platform: None,
            annotations: None,
            other: BTreeMap::new(),
        }
    }
}

/// The platform of an image, in the words of Go's `GOOS` and `GOARCH`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64`, `arm64`, ….
    #[serde(default)]
    pub architecture: String,
    /// `linux`, ….
    #[serde(default)]
    pub os: String,
    /// `v7`, `v8`, …, where the architecture has variants.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub variant: Option<String>,
    /// Every other field, as it came.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl Platform {
    /// `os/architecture` without a variant.
    pub fn new(os: impl Into<String>, architecture: impl Into<String>) -> Self {
        Self { architecture: architecture.into(), os: os.into(), variant: None, other: BTreeMap::new() }
    }

    /// The platform this program was built for.
    pub fn here() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Self::new("linux", architecture)
    }

    /// Whether an image of this platform runs where `wanted` is asked for: the same system and architecture, and the same
    /// variant if both name one (`arm64` is `arm64/v8`).
    pub fn serves(&self, wanted: &Self) -> bool {
        let variant = |platform: &Self| match (&platform.variant, platform.architecture.as_str()) {
            (Some(variant), _) => Some(variant.clone()),
            (None, "arm64") => Some("v8".to_owned()),
            (None, _) => None,
        };
        let same = match (variant(self), variant(wanted)) {
            (Some(mine), Some(theirs)) => mine == theirs,
            _ => true,
        };
        self.os == wanted.os && self.architecture == wanted.architecture && same
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl std::str::FromStr for Platform {
    type Err = model::NameError;

    /// `os/architecture[/variant]`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let word = |part: &str| {
            !part.is_empty()
                && part.len() <= 64
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        let parts: Vec<&str> = text.split('/').collect();
        match parts.as_slice() {
            [os, architecture] if word(os) && word(architecture) => Ok(Self::new(*os, *architecture)),
            [os, architecture, variant] if word(os) && word(architecture) && word(variant) => {
                Ok(Self { variant: Some((*variant).to_owned()), ..Self::new(*os, *architecture) })
            }
            _ => {
                let shown: String = text.chars().take(80).collect();
                Err(model::NameError::new("platform", shown, "os/architecture[/variant], such as linux/amd64"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_it_does_not_know() {
        let text = format!(
            r#"{{"mediaType":"m","digest":"sha256:{}","size":3,"data":"YWJj","urls":["https://x"]}}"#,
            "0".repeat(64)
        );
        let descriptor: Descriptor = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_value(&descriptor).unwrap(), serde_json::from_str::<Value>(&text).unwrap());
    }

    #[test]
    fn refuses_lies_about_size_and_digest() {
        for bad in [
            format!(r#"{{"mediaType":"m","digest":"sha256:{}","size":-1}}"#, "0".repeat(64)),
            r#"{"mediaType":"m","digest":"sha256:../../x","size":1}"#.to_owned(),
            r#"{"mediaType":"m","size":1}"#.to_owned(),
        ] {
            assert!(serde_json::from_str::<Descriptor>(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn platforms() {
        let arm: Platform = "linux/arm64/v8".parse().unwrap();
        assert!(arm.serves(&"linux/arm64".parse().unwrap()));
        assert!(!arm.serves(&"linux/amd64".parse().unwrap()));
        assert_eq!(arm.to_string(), "linux/arm64/v8");
        for bad in ["", "linux", "linux/", "a/b/c/d", "linux/am d"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }
}
