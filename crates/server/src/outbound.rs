//! What leaves the house: the receivers of the configuration, and the sender of the outbox.

use std::collections::BTreeMap;

use config::{SecretError, Webhook, WebhookEvent};
use registry::{ENVELOPE, ImageAction, Subscription};
use webhook::{Receiver, Sender, SenderError, destination, signing_key};

use crate::core::Core;

/// Why nothing can be sent.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// A receiver's secret.
    #[error("spec.registry.webhooks, {name}: {error}")]
    Secret {
        /// The receiver.
        name: String,
        /// What is wrong with it.
        error: SecretError,
    },
    /// The sender.
    #[error(transparent)]
    Sender(#[from] SenderError),
}

/// Subscribes the configured receivers to what happens to images, and gives the sender for them; nothing if there is
/// none.
pub(crate) fn open(core: &Core, webhooks: &[Webhook]) -> Result<Option<Sender>, OutboundError> {
    let mut receivers = BTreeMap::new();
    for webhook in webhooks {
        let resolved = webhook.secret.as_ref().map(config::SecretRef::resolve).transpose();
        let secret = resolved.map_err(|error| OutboundError::Secret { name: webhook.name.clone(), error })?;
        let key = secret.map(|secret| signing_key(&secret));
        let receiver = Receiver { url: webhook.url.clone(), key, content_type: ENVELOPE };
        receivers.insert(destination(&webhook.name), receiver);
    }
    core.registry.subscribe(webhooks.iter().map(subscription).collect());
    if receivers.is_empty() {
        return Ok(None);
    }
    Ok(Some(Sender::new(core.records.clone(), receivers, core.registry.outbox_signal())?))
}

fn subscription(webhook: &Webhook) -> Subscription {
    let action = |event: &WebhookEvent| match event {
        WebhookEvent::Push => ImageAction::Push,
        WebhookEvent::Pull => ImageAction::Pull,
        WebhookEvent::Delete => ImageAction::Delete,
    };
    Subscription {
        destination: destination(&webhook.name),
        actions: webhook.events.iter().map(action).collect(),
        images: webhook.images.clone(),
    }
}

/// Tells the receivers until the server stops; then the pulls of the last moment are put into the outbox.
pub(crate) async fn run(core: Core, sender: Sender) {
    let telling = async {
        tokio::select! {
            () = core.registry.tell_pulls() => {}
            () = core.stopped() => {}
        }
    };
    tokio::join!(sender.run(core.stopped()), telling);
    if let Err(error) = core.registry.flush_pulls().await {
        tracing::warn!(%error, "the last pulls could not be put into the outbox");
    }
}
