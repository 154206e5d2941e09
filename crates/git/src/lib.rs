//! Reads trees, writes commits and moves refs through the git program, in an environment that nothing outside can change.
//!
//! [`Git`] is the program and its environment, [`Repository`] a bare repository of ours. What a client pushed is hostile:
//! names reach git through standard input or as full object names, never as something it could take for an option;
//! files are written below a directory handle, never through a symbolic link. Nothing here knows forges, runs or users.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod batch;
mod commit;
mod durable;
mod environment;
mod error;
mod history;
mod listing;
mod maintain;
mod materialise;
mod path;
mod process;
mod refs;
mod repository;
mod synced;
mod tree;

pub use batch::{Blob, BlobBatch};
pub use commit::{CommitError, CommitRequest};
pub use environment::{Git, Version};
pub use error::GitError;
pub use history::CommitInfo;
pub use materialise::{Materialise, Summary};
pub use refs::{Expected, RefError};
pub use repository::Repository;
pub use tree::{Mode, TreeEntry};
