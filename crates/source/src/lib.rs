//! Git hosting over smart HTTP: turns a push into an immutable snapshot.
//!
//! The packs are served by the git program. There are no hooks and nothing polls: the commands of a push are read on
//! their way in, git's report on its way out, and what git says it moved is handed to the caller before the client gets
//! the end of its answer. No ref below `refs/towpath/` can be written by a client; all of them can be fetched.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod commands;
mod feed;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod hosting;
mod pkt;
mod receive;
mod report;
mod serve;
mod upkeep;

pub use commands::RefUpdate;
pub use hosting::{HostedRepo, Hosting, HostingError};
pub use serve::{Body, ServeError, Service};
