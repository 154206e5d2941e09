//! Listeners, the origin of every absolute URL, and the routes of git, the registry and the API. No logic.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod api;
mod app;
mod bind;
mod certify;
mod core;
mod direct;
mod edge;
mod exchange;
mod extract;
mod git_http;
mod kind;
mod limits;
mod listen;
mod metrics;
mod origin;
mod outbound;
mod patience;
mod problem;
mod serve;
mod tls;
mod traces;

pub use origin::{ListenerRules, Misdirected, Origin, Scheme};
pub use outbound::OutboundError;
pub use serve::{Running, ServeOptions, StartError, start};
