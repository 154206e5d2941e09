//! Desired images + observed files → changed files. Pure: no file, no clock, no socket.
//!
//! [`pin`] writes image references into manifests and touches nothing but the scalars that hold them; [`workloads`]
//! reads from the same manifests what an engine has to run.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod error;
mod expand;
mod marker;
mod pin;
mod quantity;
mod read;
mod workload;
mod yaml;

pub use error::{GitopsError, Place};
pub use expand::expand_references;
pub use pin::{Changes, ImagePin, Pinned, pin};
pub use workload::{Container, EnvVar, Port, Readiness, Resources, Workload, WorkloadKind, workloads};
