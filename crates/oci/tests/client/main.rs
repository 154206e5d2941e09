//! The client against scripted servers that misbehave, and against Debian's `docker-registry`.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod cut;
mod lists;
mod peer;
mod pulls;
mod pushes;
mod script;
mod tokens;
