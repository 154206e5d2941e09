//! The only room that knows the order: from a trigger to the end of all that follows from it.
//!
//! [`state`] and [`decide`] are pure: events make a state, a state says what follows. The engine writes the events and
//! runs the effects. What is on disk is enough to go on from at any point.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod apply;
mod artifacts;
mod base_images;
mod context;
pub mod decide;
mod effect;
mod engine;
#[cfg(test)]
mod fixtures;
mod housekeeping;
mod identities;
mod images;
mod jobs;
mod journal;
mod live;
mod logs;
pub mod memory;
mod needed;
mod open;
mod outside;
mod policy;
mod presence;
mod replication;
mod rooms;
pub mod secrets;
mod start;
pub mod state;
pub mod targets;
mod trigger;
mod upstreams;
mod view;

use std::sync::Arc;

use model::{DeliveryId, RecordedEvent, RunId};
use tokio::sync::{broadcast, mpsc, oneshot};

pub use apply::Applied;
pub use images::RegistryImages;
pub use journal::{Journal, RunKind, RunSummary};
pub use logs::LogFile;
pub use open::{Basis, OpenError, open};
pub use presence::{Presence, PresenceError};
pub use rooms::Rooms;
pub use start::StartError;
pub use view::RunStatus;

use crate::engine::Message;

/// How long the engine may take to stop.
const STOPPING: std::time::Duration = std::time::Duration::from_secs(5);

/// The pipeline of a server.
#[derive(Clone)]
pub struct Pipeline {
    rooms: Arc<Rooms>,
    journal: Journal,
    engine: mpsc::Sender<Message>,
    recorded: broadcast::Sender<RecordedEvent>,
}

/// Why something asked of the pipeline cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// There is no such run, target or delivery.
    #[error("{0}")]
    Unknown(String),
    /// It is there, but this cannot be done with it.
    #[error("{0}")]
    Refused(String),
    /// Records.
    #[error(transparent)]
    Records(#[from] store::RecordsError),
    /// Hosting.
    #[error(transparent)]
    Hosting(#[from] source::HostingError),
    /// Rights.
    #[error(transparent)]
    Access(#[from] access::AccessError),
    /// Git.
    #[error(transparent)]
    Git(#[from] git::GitError),
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
}

impl Pipeline {
    /// The rooms it works in.
    pub const fn rooms(&self) -> &Arc<Rooms> {
        &self.rooms
    }

    /// The log.
    pub const fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Every event from here on, as soon as it is on disk.
    pub fn subscribe(&self) -> broadcast::Receiver<RecordedEvent> {
        self.recorded.subscribe()
    }

    /// Cancels a run on behalf of `by`; says whether there was anything left to cancel. A target run that has begun its
    /// GitOps commit goes on to its end.
    ///
    /// # Errors
    /// When the server is stopping.
    pub async fn cancel(&self, run: RunId, by: &str) -> Result<bool, PipelineError> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Cancel { run, by: by.to_owned(), reply }).await?;
        answer.await.map_err(|_| PipelineError::Stopping)
    }

    /// The runs of a delivery, oldest first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn runs_of(&self, delivery: DeliveryId) -> Result<Vec<RunSummary>, PipelineError> {
        Ok(self.journal.runs_of(delivery).await?)
    }

    /// Stops taking and starting anything. Jobs, services and sites go on under their supervisors.
    pub async fn stop(&self) {
        let (reply, answer) = oneshot::channel();
        let stop = async {
            if self.send(Message::Stop { reply }).await.is_ok() {
                let _ = answer.await;
            }
        };
        // An engine that cannot write its log waits for room on the disk; what is on disk is enough to go on from.
        let _ = tokio::time::timeout(STOPPING, stop).await;
    }

    async fn send(&self, message: Message) -> Result<(), PipelineError> {
        self.engine.send(message).await.map_err(|_| PipelineError::Stopping)
    }
}
