//! The one way to run code that is not ours: namespaces, an overlay, a network mode, limits, and a supervisor that outlives the server.
//!
//! [`spawn`] starts a helper, which is this same program again: single-threaded, with nothing inherited but one
//! socket. The helper makes the namespaces and the first process in them; that one builds the root, starts the command
//! with no rights left, reaps, and answers until the command or the owner is gone. Nothing outlives its owner, except
//! what has a supervisor of its own ([`supervise`]) as owner.
//!
//! Who uses this crate calls [`dispatch`] first thing in `main`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod egress;
mod error;
mod exit;
mod helper;
mod launch;
mod output;
mod probe;
mod running;
mod spec;
pub mod supervise;
mod tree;
mod watched;
mod wire;

pub use error::SandboxError;
pub use exit::{Exit, LimitHit};
pub use helper::dispatch;
pub use output::Output;
pub use probe::{IdMapping, Probe, Tier, id_map, probe};
pub use running::{Running, spawn};
pub use spec::{Limits, Mount, MountSource, Network, Privileges, Root, Secret, Spec, Stdio};
pub use tree::{give, remove_tree};
