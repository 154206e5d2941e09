//! A world for tests and benchmarks of the whole program: the built binary as a server in a directory of its own, the
//! real git as its client, and a base image of busybox pushed through the registry's protocol.
//!
//! What cannot go on panics with what was missing: this is for tests alone.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod asker;
mod base;
mod command;
mod daemon;
mod delivery;
mod git;
mod memory;
mod network;
mod program;
mod site;
mod world;

pub use asker::{Asked, Asker};
pub use base::{Image, busybox, push_base, push_image, push_page};
pub use command::{Finished, finish};
pub use daemon::{Daemon, installed};
pub use delivery::page;
pub use git::Git;
pub use memory::{MemoryWatch, Peak};
pub use network::Machine;
pub use program::{Program, program};
pub use site::Site;
pub use world::{Options, World, free_port};
