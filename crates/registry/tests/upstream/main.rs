//! The pull-through cache, in front of a real registry that is cut, slowed, overloaded and made to lie on the way.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod blobs;
mod front;
mod heads;
mod manifests;
mod names;
mod outages;
#[path = "../protocol/site.rs"]
#[allow(dead_code)]
mod site;
mod skopeo;
