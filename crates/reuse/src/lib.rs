//! Decides by content identity whether an image must be built again, and says why. Pure.
//!
//! A [`Recipe`] lists everything an image is made of. Two recipes with one [`identity`] make the same image, so the
//! earlier one can stand for the later; [`decide`] says so, or names the first input that differs. Any doubt builds.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod decide;
mod recipe;

pub use decide::{LastArtifact, decide};
pub use recipe::{BaseImage, InputFile, Recipe, RecipeError, SCHEMA, env_identity, identity};
