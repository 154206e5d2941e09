//! The rules of the registry, as the server's file has them.

use config::{RegistrySpec, Span};
use registry::retention::plan::Rule;
use registry::{ImmutableTags, Policy, Quota};

/// What the file says, or the defaults.
pub(crate) fn of(spec: Option<&RegistrySpec>) -> Policy {
    let spec = spec.cloned().unwrap_or_default();
    Policy {
        retention: spec.retention.into_iter().map(rule).collect(),
        quotas: spec.quotas.into_iter().map(|it| Quota { images: it.images, bytes: it.bytes.0 }).collect(),
        immutable_tags: spec
            .immutable_tags
            .into_iter()
            .map(|it| ImmutableTags { images: it.images, tags: it.tags })
            .collect(),
        every: Some(spec.collection.every.duration()).filter(|every| !every.is_zero()),
        grace: spec.collection.grace.duration(),
        undo_window: spec.collection.undo_window.duration(),
        uploads: spec.collection.uploads.duration(),
    }
}

/// A rule of retention.
pub(crate) fn rule(rule: config::RetentionRule) -> Rule {
    let millis = |span: Span| i64::try_from(span.duration().as_millis()).unwrap_or(i64::MAX);
    Rule {
        images: rule.images,
        tags: rule.tags,
        keep_newest: rule.keep_newest,
        keep_younger: rule.keep_younger.map(millis),
        keep_pulled_within: rule.keep_pulled_within.map(millis),
        untagged_older_than: rule.untagged.map(|untagged| millis(untagged.older_than)),
    }
}
