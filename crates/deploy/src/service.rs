//! One process of a service, and the supervisor that keeps it.

mod output;
mod ports;
mod root;
mod spec;
mod supervisor;

pub(crate) use output::last_lines;
pub(crate) use spec::InstanceSpec;
pub(crate) use supervisor::{Ended, Reply, Request, run};
