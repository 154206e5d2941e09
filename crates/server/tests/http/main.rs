//! The server as its clients see it: every route and who may use it, what is said to whom, streams, git and stopping.

#![allow(clippy::unwrap_used)]

// The sandbox's helper is this same program.
use testkit as _;

mod answers;
mod blobs;
mod edge;
mod forms;
mod git;
// The gate's own suite uses the rest of it.
#[allow(dead_code)]
#[path = "../../../access/tests/suite/issuer.rs"]
mod issuer;
mod logins;
mod origins;
mod registry_only;
mod routes;
mod stopping;
mod streams;
mod tenants;
mod tls;
mod upkeep;
mod upstreams;
mod webhooks;
mod world;
