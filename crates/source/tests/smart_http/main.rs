//! The hosting behind a real HTTP server, with the real git client.

#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod fetch;
mod hostile;
mod push;
mod repositories;
