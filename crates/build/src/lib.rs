//! Builds an OCI image from a Dockerfile without a daemon and without root.
//!
//! A [`Builder`] reads the Dockerfile from its context, follows the stages that the target needs, and writes layers and
//! configuration as blobs under the caller's lease. It makes no manifest visible: [`BuiltImage`] carries the bytes, and
//! whoever has the registry commits them.
//!
//! Every step has a key, made of the key before it, the expanded instruction and the identity of the files it reads.
//! Keys need nothing to be executed; a step is executed only when its files are needed and neither its directory nor
//! its blob is at hand.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod base;
mod cache;
mod context;
pub mod dockerfile;
mod engine;
mod error;
pub mod expand;
mod files;
mod graph;
pub mod ignore;
mod key;
mod layer;
mod mode;
pub mod pattern;
mod request;
mod run;
mod scope;
mod stage;
mod view;

pub use base::{BaseImageError, BaseImages, BoxFuture, ResolvedImage};
pub use context::Context;
pub use engine::{Builder, BuilderConfig, BuiltImage};
pub use error::BuildError;
pub use request::{BaseInput, BuildInputs, BuildRequest, BuildSecret, FileInput};

/// The version of the embedded builder: part of every identity, so that a builder that would make something else never
/// stands on what this one made.
pub const BUILDER_VERSION: &str = "towpath-embedded/1";
