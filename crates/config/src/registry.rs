//! The registry's part of the server's file.

mod anonymous;
mod upstreams;
mod webhooks;

use serde::{Deserialize, Serialize};

pub use anonymous::Anonymous;
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
}

impl RegistrySpec {
    /// What is wrong with it, with its place.
    pub(crate) fn check(&self) -> Result<(), String> {
        anonymous::check(&self.anonymous)?;
        upstreams::check(&self.upstreams)?;
        webhooks::check(&self.webhooks)
    }
}
