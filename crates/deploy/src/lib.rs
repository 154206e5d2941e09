//! A revision → a running site: the local engine, its proxy and its health checks.
//!
//! Every service runs in the sandbox under a supervisor of its own, and every target has a proxy in a process of its own;
//! both outlive the server. [`Local`] is the server's side: it starts what is new, waits until that says itself that it is
//! what was built, moves the traffic, lets the old finish its requests and stops it.
//!
//! ```text
//! DIR/sites/<target>/state.json        what is live: routes from listeners to instances
//! DIR/sites/<target>/addresses.json    where the proxy listens, kept over its restarts
//! DIR/services/<target>/<instance>/    spec.json, log, upper/, work/ of one process
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod control;
mod failure;
mod files;
mod health;
mod launch;
mod local;
mod request;
mod service;
mod site;
mod workload;

pub use failure::{DeployError, RolloutFailure};
pub use health::{Check, Health, Identity};
pub use local::{ImageFuture, Images, ImagesError, Local, LocalConfig, Recovered, RunnableImage};
pub use request::{LiveService, LiveSite, Rollout, RolloutReport, ServiceRollout};
pub use workload::workload_main;
