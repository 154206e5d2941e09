//! The proxy in front of a target's services: a process of its own that keeps its listeners while what is behind them
//! is replaced, and while the server is away.

mod answer;
mod forward;
mod headers;
mod listeners;
mod proxy;
mod route;
mod state;

pub(crate) use proxy::{Reply, Request, run};
pub(crate) use state::{Addresses, ServiceState, SiteState};
