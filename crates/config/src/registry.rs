//! The registry's part of the server's file.

mod anonymous;
mod bytes;
mod replication;
mod retention;
mod upstreams;
mod webhooks;

use serde::{Deserialize, Serialize};

pub use anonymous::Anonymous;
pub use bytes::ByteCount;
pub use replication::{KeptThere, ReplicationRule};
pub use retention::{Collection, ImmutableTag, QuotaRule, RetentionRule, Untagged};
pub use upstreams::{Upstream, UpstreamCredentials};
pub use webhooks::{Webhook, WebhookEvent};

/// How the registry works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RegistrySpec {
    /// What may be done without credentials, with every image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub anonymous: Vec<Anonymous>,
    /// Other registries whose images are pulled through this one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub upstreams: Vec<Upstream>,
    /// Who is told what happens to images.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub webhooks: Vec<Webhook>,
    /// What is pushed on to other registries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replication: Vec<ReplicationRule>,
    /// What goes by itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub retention: Vec<RetentionRule>,
    /// How much may be held.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quotas: Vec<QuotaRule>,
    /// Tags that are set once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub immutable_tags: Vec<ImmutableTag>,
    /// When it is collected.
    pub collection: Collection,
}

impl RegistrySpec {
    /// What is wrong with it, with its place.
    pub(crate) fn check(&self) -> Result<(), String> {
        anonymous::check(&self.anonymous)?;
        retention::check(&self.retention, &self.quotas)?;
        upstreams::check(&self.upstreams)?;
        replication::check(&self.replication)?;
        webhooks::check(&self.webhooks)
    }
}
