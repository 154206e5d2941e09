//! What of a job can only be known when the jobs it needs have ended.

use serde::{Deserialize, Serialize};

use crate::error::Source;
use crate::node::{Key, Node};

/// The parts of a job that name the `needs` context, as written.
///
/// Opaque: [`crate::expand_matrix`] reads it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Late {
    pub(crate) source: Source,
    pub(crate) header: Header,
}

/// The keys of a job that are expanded before a runner gets it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) key: Key,
    pub(crate) name: Option<Node>,
    pub(crate) strategy: Option<Node>,
    pub(crate) runs_on: Option<Node>,
    pub(crate) timeout: Option<Node>,
    pub(crate) continue_on_error: Option<Node>,
    pub(crate) concurrency: Option<Node>,
    pub(crate) environment: Option<Node>,
    pub(crate) container: Option<Node>,
    pub(crate) services: Option<Node>,
}

impl Header {
    /// All that are there.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node> {
        [
            &self.name,
            &self.strategy,
            &self.runs_on,
            &self.timeout,
            &self.continue_on_error,
            &self.concurrency,
            &self.environment,
            &self.container,
            &self.services,
        ]
        .into_iter()
        .flatten()
    }
}
