//! Who is told what happens to images.

use model::ImagePattern;
use serde::{Deserialize, Serialize};

use crate::SecretRef;

/// A receiver of events: told by POST, signed as the Standard Webhooks specification says, again and again until it
/// answers 2xx.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Webhook {
    /// Its name, unique in the file; what is on its way to it is known by this.
    pub name: String,
    /// `http://` or `https://`; redirects are not followed.
    pub url: String,
    /// Signs what is sent: a text, or `whsec_` and base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretRef>,
    /// Of what it is told; pushes and deletes by default.
    #[serde(default = "changes")]
    pub events: Vec<WebhookEvent>,
    /// Of which images; all by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<ImagePattern>,
}

/// What a receiver can be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WebhookEvent {
    /// A manifest became visible, or a tag points to it.
    Push,
    /// A manifest was read.
    Pull,
    /// A manifest or a tag was taken away.
    Delete,
}

fn changes() -> Vec<WebhookEvent> {
    vec![WebhookEvent::Push, WebhookEvent::Delete]
}

pub(super) fn check(webhooks: &[Webhook]) -> Result<(), String> {
    for (index, webhook) in webhooks.iter().enumerate() {
        let place = format!("spec.registry.webhooks[{index}]");
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if webhook.name.is_empty() || webhook.name.len() > 64 || !webhook.name.bytes().all(plain) {
            let name = &webhook.name;
            return Err(format!("{place}.name: {name:?} is not a name: expected up to 64 letters, digits, - _ ."));
        }
        if webhooks[..index].iter().any(|other| other.name == webhook.name) {
            return Err(format!("{place}.name: {:?} is listed twice", webhook.name));
        }
        let rest = webhook.url.strip_prefix("https://").or_else(|| webhook.url.strip_prefix("http://"));
        let host = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
        if host.is_empty() || host.contains('@') {
            // The address may hold a secret: it is not shown.
            return Err(format!("{place}.url: expected http:// or https:// with a host, and no user before an @"));
        }
        if webhook.events.is_empty() {
            return Err(format!("{place}.events: is empty; expected some of push, pull, delete"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::parse_server;

    fn parse(webhooks: &str) -> Result<crate::ServerSpec, crate::ConfigError> {
        let spec = format!("spec: {{registry: {{webhooks: [{webhooks}]}}}}");
        parse_server("towpath.yaml", &format!("apiVersion: towpath.dev/v1alpha1\nkind: Towpath\n{spec}\n"))
    }

    #[test]
    fn are_checked() {
        let spec = parse("{name: ci, url: 'https://ci.example/hook', secret: 'env:HOOK', images: ['acme/*']}").unwrap();
        assert_eq!(spec.registry.unwrap().webhooks[0].events.len(), 2, "pushes and deletes by default");
        for (bad, said) in [
            ("{name: '', url: 'http://a'}", "webhooks[0].name"),
            ("{name: a, url: 'ftp://a'}", "webhooks[0].url"),
            ("{name: a, url: 'https://u:p@a/'}", "no user"),
            ("{name: a, url: 'https://'}", "with a host"),
            ("{name: a, url: 'http://a', events: []}", "events"),
            ("{name: a, url: 'http://a'}, {name: a, url: 'http://b'}", "listed twice"),
            ("{name: a, url: 'http://a', images: ['A']}", "image pattern"),
            ("{name: a, url: 'http://a', secret: hunter2}", "secret reference"),
        ] {
            let error = parse(bad).unwrap_err().to_string();
            assert!(error.contains(said) && !error.contains("hunter2"), "{bad}: {error}");
        }
    }
}
