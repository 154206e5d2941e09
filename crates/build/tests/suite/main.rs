//! Builds with the real parts: git, the blob store, unpacked layers and the sandbox.

#![allow(clippy::unwrap_used, missing_docs)]

use testkit as _;

mod bench;
mod building;
mod caching;
mod copying;
mod errors;
mod fixture;
mod inputs;
mod running;
