//! The registry's part of the server's file.

mod anonymous;

use serde::{Deserialize, Serialize};

pub use anonymous::Anonymous;

/// How the registry works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RegistrySpec {
    /// What may be done without credentials, with every image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub anonymous: Vec<Anonymous>,
}

impl RegistrySpec {
    /// What is wrong with it, with its place.
    pub(crate) fn check(&self) -> Result<(), String> {
        anonymous::check(&self.anonymous)
    }
}
