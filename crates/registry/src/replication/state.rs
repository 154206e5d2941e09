//! How a rule stands, for people and metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use model::Timestamp;
use store::{RecordsError, Tx};

/// How a rule stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicationState {
    /// Its name.
    pub name: String,
    /// Where it pushes: the registry and what names there begin with.
    pub destination: String,
    /// How much waits.
    pub queued: u64,
    /// Since when the oldest of it waits.
    pub waiting_since: Option<Timestamp>,
    /// When something was last found or made right there.
    pub success: Option<Timestamp>,
    /// What went wrong last, and when.
    pub error: Option<(String, Timestamp)>,
    /// Until when the destination is left alone because it has trouble.
    pub paused_until: Option<Timestamp>,
    /// What this process has done.
    pub done: Done,
}

/// What a process has done for a rule since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Tags and manifests that were pushed.
    pub pushed: u64,
    /// Bytes of blobs that were sent.
    pub bytes: u64,
    /// Tags that were taken away there.
    pub removed: u64,
    /// Attempts that failed.
    pub failed: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub pushed: AtomicU64,
    pub bytes: AtomicU64,
    pub removed: AtomicU64,
    pub failed: AtomicU64,
}

impl Counters {
    pub fn read(&self) -> Done {
        Done {
            pushed: self.pushed.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            removed: self.removed.load(Relaxed),
            failed: self.failed.load(Relaxed),
        }
    }
}

/// What the records say of a rule.
pub(super) fn read(
    tx: &mut Tx<'_>,
    name: String,
    destination: String,
    now: Timestamp,
) -> Result<ReplicationState, RecordsError> {
    let sql = "SELECT COUNT(*), MIN(since) FROM registry_replication_queue WHERE rule = $1";
    let row = tx.query_first(sql, &[(&name).into()])?;
    let (queued, waiting_since) = match row {
        Some(row) => (row.get::<i64>(0)?, row.get(1)?),
        None => (0, None),
    };
    let sql = "SELECT success, error, error_at, paused FROM registry_replication_rules WHERE name = $1";
    let row = tx.query_first(sql, &[(&name).into()])?;
    let mut state = ReplicationState {
        name,
        destination,
        queued: queued.unsigned_abs(),
        waiting_since,
        success: None,
        error: None,
        paused_until: None,
        done: Done::default(),
    };
    if let Some(row) = row {
        state.success = row.get(0)?;
        state.error = row.get::<Option<String>>(1)?.zip(row.get::<Option<Timestamp>>(2)?);
        state.paused_until = Some(row.get::<Timestamp>(3)?).filter(|until| *until > now);
    }
    Ok(state)
}
