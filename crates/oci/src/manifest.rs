//! Manifests and indexes, OCI's and docker's.

use std::collections::BTreeMap;

use model::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::media_type::{self, DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use crate::{Descriptor, Platform};

/// The longest manifest that is accepted, in bytes: 4 MiB, what the distribution specification asks registries to take.
pub const MAX_MANIFEST: usize = 4 << 20;

/// The most descriptors a manifest may hold.
const MAX_DESCRIPTORS: usize = 10_000;

/// An image manifest. Fields that are not known here are kept when it is written again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Its own media type; OCI allows to leave it out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub media_type: Option<String>,
    /// What kind of artifact it is, if it is not an image.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub artifact_type: Option<String>,
    /// The image configuration.
    pub config: Descriptor,
    /// The layers, the lowest first.
    pub layers: Vec<Descriptor>,
    /// The manifest that this one is about (a signature, an attestation).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub subject: Option<Descriptor>,
    /// Free text by key.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub annotations: Option<BTreeMap<String, String>>,
    /// Every other field, as it came.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl Manifest {
    /// An OCI image manifest of `config` and `layers` (the lowest first).
    pub fn image(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(OCI_MANIFEST.to_owned()),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: None,
            other: BTreeMap::new(),
        }
    }
}

/// An image index or docker manifest list. Fields that are not known here are kept when it is written again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Its own media type; OCI allows to leave it out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub media_type: Option<String>,
    /// What kind of artifact it is, if it is not an image.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub artifact_type: Option<String>,
    /// The manifests, one for each platform.
    pub manifests: Vec<Descriptor>,
    /// The manifest that this one is about.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub subject: Option<Descriptor>,
    /// Free text by key.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub annotations: Option<BTreeMap<String, String>>,
    /// Every other field, as it came.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl Index {
    /// An OCI index of `manifests`.
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(OCI_INDEX.to_owned()),
            artifact_type: None,
            manifests,
            subject: None,
            annotations: None,
            other: BTreeMap::new(),
        }
    }

    /// The first entry that runs on `wanted`; attestations (`unknown/unknown`) never do.
    pub fn select(&self, wanted: &Platform) -> Option<&Descriptor> {
        self.manifests.iter().find(|entry| entry.platform.as_ref().is_some_and(|platform| platform.serves(wanted)))
    }
}

/// A manifest of either kind.
#[derive(Clone, Debug, PartialEq)]
pub enum ManifestKind {
    /// One image or artifact.
    Image(Box<Manifest>),
    /// A choice of manifests.
    Index(Box<Index>),
}

impl ManifestKind {
    /// The blobs it stands on (configuration and layers) that must be in the same registry; foreign layers need not be.
    pub fn blobs(&self) -> Vec<&Descriptor> {
        match self {
            Self::Image(manifest) => {
                let layers = manifest.layers.iter().filter(|layer| !media_type::is_foreign(&layer.media_type));
                std::iter::once(&manifest.config).chain(layers).collect()
            }
            Self::Index(_) => Vec::new(),
        }
    }

    /// The manifests it chooses from.
    pub fn children(&self) -> &[Descriptor] {
        match self {
            Self::Image(_) => &[],
            Self::Index(index) => &index.manifests,
        }
    }

    /// The manifest that it is about.
    pub fn subject(&self) -> Option<&Descriptor> {
        match self {
            Self::Image(manifest) => manifest.subject.as_ref(),
            Self::Index(index) => index.subject.as_ref(),
        }
    }

    /// What the referrers list calls its artifact type: its own, or else its configuration's media type.
    pub fn artifact_type(&self) -> Option<&str> {
        match self {
            Self::Image(manifest) => {
                Some(manifest.artifact_type.as_deref().unwrap_or(manifest.config.media_type.as_str()))
            }
            Self::Index(index) => index.artifact_type.as_deref(),
        }
    }

    /// Its annotations.
    pub fn annotations(&self) -> Option<&BTreeMap<String, String>> {
        match self {
            Self::Image(manifest) => manifest.annotations.as_ref(),
            Self::Index(index) => index.annotations.as_ref(),
        }
    }
}

/// Why bytes are not a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// It is longer than [`MAX_MANIFEST`].
    #[error("the manifest is {0} bytes long; at most {MAX_MANIFEST} are accepted")]
    TooLong(usize),
    /// It is not JSON of the shape its media type has.
    #[error("the manifest is not a valid {media_type}: {message}")]
    Malformed {
        /// What it was said to be.
        media_type: String,
        /// What the reader stumbled over.
        message: String,
    },
    /// It is of a kind that is not supported.
    #[error(
        "manifests of type {0:?} are not supported: expected an OCI manifest or index, or docker's version 2, schema 2"
    )]
    Unsupported(String),
    /// It is said to be one thing and says itself to be another.
    #[error("the manifest was sent as {sent:?} and calls itself {own:?}")]
    Mismatch {
        /// What it was said to be.
        sent: String,
        /// What its `mediaType` says.
        own: String,
    },
    /// It has fields of both an image and an index (CVE-2021-41190).
    #[error("the manifest has both the fields of an image and those of an index")]
    Ambiguous,
    /// Its schema version is not 2.
    #[error("schemaVersion is {0}; only 2 is supported")]
    SchemaVersion(u32),
    /// It lists more than is sensible.
    #[error("the manifest lists {0} descriptors; at most {MAX_DESCRIPTORS} are accepted")]
    TooMany(usize),
    /// It names one blob with two lengths.
    #[error("the manifest names {0} with two different sizes")]
    TwoSizes(Digest),
}

/// Reads a manifest that was sent as `media_type`; parameters after a `;` are ignored.
///
/// # Errors
/// When it is too long, of an unsupported kind, malformed or contradicts itself. It is never trusted further than its
/// shape: whether what it names exists is for the reader to find out.
pub fn parse_manifest(bytes: &[u8], media_type: &str) -> Result<ManifestKind, ManifestError> {
    if bytes.len() > MAX_MANIFEST {
        return Err(ManifestError::TooLong(bytes.len()));
    }
    let sent = media_type::essence(media_type);
    let kind = if media_type::is_index(sent) {
        ManifestKind::Index(Box::new(read(bytes, sent)?))
    } else if media_type::is_image(sent) {
        ManifestKind::Image(Box::new(read(bytes, sent)?))
    } else {
        return Err(ManifestError::Unsupported(sent.chars().take(120).collect()));
    };
    check(&kind, sent)?;
    Ok(kind)
}

/// The media type that a manifest gives itself, or that follows from its fields, when nobody said what it is.
pub fn guess_media_type(bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape {
        media_type: Option<String>,
        manifests: Option<Vec<serde::de::IgnoredAny>>,
        layers: Option<Vec<serde::de::IgnoredAny>>,
    }
    let shape: Shape = serde_json::from_slice(bytes).ok()?;
    match shape {
        Shape { media_type: Some(media_type), .. } => Some(media_type),
        Shape { manifests: Some(_), layers: None, .. } => Some(OCI_INDEX.to_owned()),
        Shape { layers: Some(_), manifests: None, .. } => Some(OCI_MANIFEST.to_owned()),
        Shape { .. } => None,
    }
}

fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8], sent: &str) -> Result<T, ManifestError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ManifestError::Malformed { media_type: sent.to_owned(), message: error.to_string() })
}

fn check(kind: &ManifestKind, sent: &str) -> Result<(), ManifestError> {
    let (version, own, stray) = match kind {
        ManifestKind::Image(image) => (image.schema_version, &image.media_type, image.other.contains_key("manifests")),
        ManifestKind::Index(index) => {
            let stray = index.other.contains_key("layers") || index.other.contains_key("config");
            (index.schema_version, &index.media_type, stray)
        }
    };
    if stray {
        return Err(ManifestError::Ambiguous);
    }
    if version != 2 {
        return Err(ManifestError::SchemaVersion(version));
    }
    match own {
        Some(own) if own != sent => {
            return Err(ManifestError::Mismatch { sent: sent.to_owned(), own: own.chars().take(120).collect() });
        }
        None if matches!(sent, DOCKER_LIST | DOCKER_MANIFEST) => {
            let message = "docker's manifests must name their mediaType".to_owned();
            return Err(ManifestError::Malformed { media_type: sent.to_owned(), message });
        }
        _ => {}
    }
    check_descriptors(kind)
}

fn check_descriptors(kind: &ManifestKind) -> Result<(), ManifestError> {
    let mut sizes = BTreeMap::new();
    let all: Vec<&Descriptor> = kind.blobs().into_iter().chain(kind.children()).chain(kind.subject()).collect();
    if all.len() > MAX_DESCRIPTORS {
        return Err(ManifestError::TooMany(all.len()));
    }
    for descriptor in all {
        if *sizes.entry(descriptor.digest).or_insert(descriptor.size) != descriptor.size {
            return Err(ManifestError::TwoSizes(descriptor.digest));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn descriptor(hex: char, size: u64) -> String {
        format!(r#"{{"mediaType":"application/x","digest":"sha256:{}","size":{size}}}"#, hex.to_string().repeat(64))
    }

    fn image(extra: &str) -> String {
        format!(r#"{{"schemaVersion":2,"config":{},"layers":[{}]{extra}}}"#, descriptor('a', 1), descriptor('b', 2))
    }

    #[test]
    fn reads_an_image() {
        let kind = parse_manifest(image("").as_bytes(), "application/vnd.oci.image.manifest.v1+json; charset=utf-8");
        assert_eq!(kind.unwrap().blobs().len(), 2);
    }

    #[test]
    fn refuses_what_contradicts_itself() {
        let both = image(&format!(r#","manifests":[{}]"#, descriptor('c', 1)));
        assert_eq!(parse_manifest(both.as_bytes(), OCI_MANIFEST), Err(ManifestError::Ambiguous));
        let other = image(&format!(r#","mediaType":"{OCI_INDEX}""#));
        assert!(matches!(parse_manifest(other.as_bytes(), OCI_MANIFEST), Err(ManifestError::Mismatch { .. })));
        let old = image("").replace(r#"Version":2"#, r#"Version":1"#);
        assert_eq!(parse_manifest(old.as_bytes(), OCI_MANIFEST), Err(ManifestError::SchemaVersion(1)));
        let sizes = image("").replace(&"b".repeat(64), &"a".repeat(64));
        assert!(matches!(parse_manifest(sizes.as_bytes(), OCI_MANIFEST), Err(ManifestError::TwoSizes(_))));
        assert!(matches!(parse_manifest(image("").as_bytes(), DOCKER_MANIFEST), Err(ManifestError::Malformed { .. })));
        let first = "application/vnd.docker.distribution.manifest.v1+prettyjws";
        assert!(matches!(parse_manifest(image("").as_bytes(), first), Err(ManifestError::Unsupported(_))));
        let long = vec![b' '; MAX_MANIFEST + 1];
        assert_eq!(parse_manifest(&long, OCI_MANIFEST), Err(ManifestError::TooLong(MAX_MANIFEST + 1)));
        let deep = "[".repeat(100_000);
        assert!(matches!(parse_manifest(deep.as_bytes(), OCI_MANIFEST), Err(ManifestError::Malformed { .. })));
    }

    #[test]
    fn chooses_the_platform() {
        let mut attestation = Descriptor::new("m", Digest::sha256([1; 32]), 1);
        attestation.platform = Some(Platform::new("unknown", "unknown"));
        let mut here = Descriptor::new("m", Digest::sha256([2; 32]), 1);
        here.platform = Some(Platform::here());
        let index = Index::new(vec![attestation, here.clone()]);
        assert_eq!(index.select(&Platform::here()), Some(&here));
        assert_eq!(index.select(&Platform::new("plan9", "mips")), None);
    }

    #[test]
    fn an_image_survives_being_written_again() {
        let text = image(r#","x-unknown":{"a":[1]}"#);
        let ManifestKind::Image(manifest) = parse_manifest(text.as_bytes(), OCI_MANIFEST).unwrap() else {
            panic!("an image");
        };
        assert_eq!(serde_json::to_value(&manifest).unwrap(), serde_json::from_str::<Value>(&text).unwrap());
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_manifest(&bytes, OCI_MANIFEST);
            let _ = parse_manifest(&bytes, OCI_INDEX);
            let _ = guess_media_type(&bytes);
        }
    }
}
