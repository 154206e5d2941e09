//! The room against the real git program.

#![allow(clippy::unwrap_used)]

mod batch;
mod commit;
mod durable;
mod fixture;
mod history;
mod materialise;
mod refs;
mod tree;
