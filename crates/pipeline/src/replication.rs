//! The rules of replication, from their configuration.

use config::{ReplicationRule, ServerSpec};
use oci::client::Auth;
use registry::Registry;
use registry::replication::{self, Replication};

use crate::{OpenError, policy};

/// Reads the secrets and certificates of the rules, and lets changes be queued for them. Nothing connects yet.
pub(crate) async fn open(registry: &Registry, spec: &ServerSpec) -> Result<Replication, OpenError> {
    let configured = spec.registry.as_ref().map_or(&[][..], |registry| &registry.replication);
    let rules = configured.iter().map(rule).collect::<Result<_, _>>()?;
    Replication::open(registry, rules).await.map_err(|error| failed(error.to_string()))
}

fn failed(message: String) -> OpenError {
    OpenError::Room { what: "replication", message }
}

fn rule(rule: &ReplicationRule) -> Result<replication::ReplicationRule, OpenError> {
    let name = &rule.name;
    let host = rule.host().parse().map_err(|error| failed(format!("the rule {name}: {error}")))?;
    let auth = match &rule.credentials {
        None => Auth::Anonymous,
        Some(credentials) => {
            let password = credentials.password.resolve();
            let password = password.map_err(|error| failed(format!("the rule {name}: {error}")))?;
            Auth::Basic { user: credentials.user.clone(), password }
        }
    };
    Ok(replication::ReplicationRule {
        name: name.clone(),
        images: rule.images.clone(),
        tags: rule.tags.clone(),
        host,
        plain_http: rule.url.starts_with("http://"),
        strip: rule.strip.clone(),
        prefix: rule.prefix.clone(),
        auth,
        ca: rule.ca.as_ref().map(|ca| ca.path().to_owned()),
        allow_private: rule.allow_private,
        deletes: rule.deletes,
        retention: rule.retention.iter().map(|kept| policy::rule(kept.clone().into())).collect(),
    })
}
