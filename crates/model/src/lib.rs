//! The nouns that three or more rooms speak.
//!
//! Nothing here does I/O, is async or knows a clock. A value of one of these types is valid: `FromStr` is the only door
//! for text, so whoever holds a [`Digest`] or a [`RepoName`] need not check it again.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod digest;
mod event;
mod id;
mod image;
mod name;
mod outcome;
mod pattern;
mod stage;
mod time;

pub use digest::{Algorithm, Digest, DigestError};
pub use event::{
    Delivery, Event, HeadCommit, HealthEvidence, JobPlanned, JobResult, RecordedEvent, ReuseDecision, ServiceDecision,
    Trigger, WorkflowPlanned,
};
pub use id::{DeliveryId, JobId, OrgId, RepoId, RunId, RunnerId, TargetId, TokenId, UserId};
pub use image::{ImageName, ImageRef, PinnedImage, Tag};
pub use name::{CommitId, NameError, RefName, RepoName, SnapshotRef};
pub use outcome::{Cause, Outcome};
pub use pattern::{ImagePattern, TagPattern};
pub use stage::Stage;
pub use time::Timestamp;
