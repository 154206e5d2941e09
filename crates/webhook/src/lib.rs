//! The outbox → receivers: what leaves the house over HTTP, signed and repeated until it arrives.
//!
//! A message for `webhook:NAME` goes to the receiver of that name with POST, under the headers of the Standard Webhooks
//! specification: `webhook-id` (the same each time the message is sent), `webhook-timestamp` (seconds since the epoch)
//! and `webhook-signature` (`v1,` and the base64 of the HMAC-SHA256 over `id.timestamp.body`). A receiver has it when it
//! answers 2xx. 410 gives the message up; anything else is tried again as the outbox says.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod sender;
mod sign;

pub use sender::{Receiver, Sender, SenderError};
pub use sign::{SECRET_PREFIX, signature, signing_key};

/// How messages for a receiver are addressed in the outbox.
pub fn destination(receiver: &str) -> String {
    format!("webhook:{receiver}")
}
