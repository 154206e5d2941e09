//! Retention: which tags and manifests go by themselves.
//!
//! [`plan()`](plan::plan) decides, and is pure; `facts` reads what it decides on, `apply` carries it out.

mod apply;
mod facts;
pub mod plan;

pub use apply::{Planned, Retained};
pub(crate) use facts::text;
