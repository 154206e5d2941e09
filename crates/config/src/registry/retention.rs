//! What goes by itself, how much may be held, which tags stay, and when the registry is collected.

use std::str::FromStr;

use model::{ImagePattern, TagPattern};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Span;
use crate::registry::ByteCount;

/// Which tags and manifests of some images are kept. Of several rules, the first that is about a tag counts for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetentionRule {
    /// The images; all by default.
    #[serde(default = "ImagePattern::all")]
    pub images: ImagePattern,
    /// The tags; all by default.
    #[serde(default = "TagPattern::all")]
    pub tags: TagPattern,
    /// Keeps the newest so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_newest: Option<usize>,
    /// Keeps what is younger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_younger: Option<Span>,
    /// Keeps what was pulled within this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_pulled_within: Option<Span>,
    /// Removes manifests without a tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untagged: Option<Untagged>,
}

/// Which manifests without a tag go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Untagged {
    /// Those that were pushed longer ago.
    pub older_than: Span,
}

/// How much some images may hold together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QuotaRule {
    /// The images.
    pub images: ImagePattern,
    /// Bytes.
    pub bytes: ByteCount,
}

/// Tags that are set once: `TAGS`, or `IMAGES:TAGS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImmutableTag {
    /// The images; all if none are written.
    pub images: ImagePattern,
    /// The tags.
    pub tags: TagPattern,
}

/// When the registry is collected, and what is spared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Collection {
    /// How often; 0s for never by itself.
    pub every: Span,
    /// How long nothing goes after it was pushed.
    pub grace: Span,
    /// How long what was deleted can be brought back.
    pub undo_window: Span,
    /// How long an upload that is not finished stays after its last byte.
    pub uploads: Span,
}

impl Default for Collection {
    fn default() -> Self {
        let day = Span::seconds(86_400);
        Self { every: Span::seconds(3600), grace: day, undo_window: day, uploads: day }
    }
}

impl FromStr for ImmutableTag {
    type Err = model::NameError;

    fn from_str(text: &str) -> Result<Self, model::NameError> {
        match text.split_once(':') {
            Some((images, tags)) => Ok(Self { images: images.parse()?, tags: tags.parse()? }),
            None => Ok(Self { images: ImagePattern::all(), tags: text.parse()? }),
        }
    }
}

impl Serialize for ImmutableTag {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.images == ImagePattern::all() {
            serializer.collect_str(&self.tags)
        } else {
            serializer.collect_str(&format_args!("{}:{}", self.images, self.tags))
        }
    }
}

impl<'de> Deserialize<'de> for ImmutableTag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

pub(super) fn check(rules: &[RetentionRule], quotas: &[QuotaRule]) -> Result<(), String> {
    for (index, rule) in rules.iter().enumerate() {
        let keeps = rule.keep_newest.is_some() || rule.keep_younger.is_some() || rule.keep_pulled_within.is_some();
        if !keeps && rule.untagged.is_none() {
            return Err(format!(
                "spec.registry.retention[{index}]: says nothing: write keepNewest, keepYounger, keepPulledWithin or untagged"
            ));
        }
    }
    for (index, quota) in quotas.iter().enumerate() {
        if quotas[..index].iter().any(|other| other.images == quota.images) {
            return Err(format!("spec.registry.quotas[{index}].images: {} is listed twice", quota.images));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::{ConfigError, RegistrySpec, parse_server};

    fn parse(spec: &str) -> Result<RegistrySpec, ConfigError> {
        let text = format!("apiVersion: towpath.dev/v1alpha1\nkind: Towpath\nspec:\n  registry:\n{spec}");
        parse_server("towpath.yaml", &text).map(|spec| spec.registry.unwrap_or_default())
    }

    #[test]
    fn rules_are_read_and_written_again() {
        let spec = parse(
            "    retention:
    - {images: demo/*, tags: 'v*', keepNewest: 10, keepYounger: 30d, keepPulledWithin: 2w}
    - {untagged: {olderThan: 7d}}
    quotas: [{images: 'demo/**', bytes: 50GiB}, {images: '**', bytes: 1000}]
    immutableTags: ['v*', 'demo/*:release-*']
    collection: {every: 15m, undoWindow: 3d}
",
        )
        .unwrap();
        assert_eq!(spec.retention[0].keep_newest, Some(10));
        assert_eq!(spec.quotas[0].bytes.0, 50 << 30);
        assert_eq!(spec.immutable_tags[1].images.as_str(), "demo/*");
        let collection = spec.collection;
        assert_eq!((collection.every.to_string(), collection.grace.to_string()), ("15m".into(), "1d".into()));
        let again = serde_json::to_value(&spec).unwrap();
        assert_eq!(serde_json::from_value::<RegistrySpec>(again).unwrap(), spec);
    }

    #[test]
    fn refuses_what_makes_no_sense() {
        for (spec, said) in [
            ("    retention: [{images: demo/*}]\n", "spec.registry.retention[0]"),
            ("    retention: [{keepYounger: 30}]\n", "30"),
            ("    retention: [{tags: '[', keepNewest: 1}]\n", "tag pattern"),
            ("    quotas: [{images: '**', bytes: 1}, {images: '**', bytes: 2}]\n", "listed twice"),
            ("    quotas: [{images: '**', bytes: many}]\n", "many"),
        ] {
            let error = parse(spec).unwrap_err().to_string();
            assert!(error.contains(said), "{spec}: {error}");
        }
    }
}
