//! Which servers are on one database.
//!
//! Servers whose blobs are in one bucket, and that serve only the registry, may share records. Any other has them to
//! itself: its blobs, repositories and jobs are in its own directory. Each says in the records, by a lease, that it is
//! there and what it is; whoever does not go with those who are there does not start.

use std::path::Path;
use std::time::Duration;

use model::Timestamp;
use store::{Records, RecordsError, Tx, leases};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the names of these leases begin with.
const SERVER: &str = "server";

/// How long a server that died counts as being there, in milliseconds.
const LASTS: i64 = 60_000;

/// How often a server says that it is there.
const EVERY: Duration = Duration::from_secs(15);

/// Why a server cannot be on the records.
#[derive(Debug, thiserror::Error)]
pub enum PresenceError {
    /// Another is there, and the two do not go together.
    #[error(
        "another server has them: {other}. Only servers that keep blobs in the same bucket (spec.blobs.s3) and serve \
         the registry alone can share records; stop that one, or wait a minute if it died"
    )]
    Taken {
        /// Its directory and machine.
        other: String,
    },
    /// The records.
    #[error(transparent)]
    Records(#[from] RecordsError),
}

/// That this server is there, until it leaves or dies.
#[derive(Debug)]
pub struct Presence {
    lease: Lease,
    lost: watch::Receiver<bool>,
    keeper: JoinHandle<()>,
}

#[derive(Clone, Debug)]
struct Lease {
    records: Records,
    name: String,
    holder: String,
    /// What the names of those begin with that may be there too.
    beside: Option<String>,
}

impl Presence {
    /// Takes a place on records that others may share; nothing on those that nobody can. `bucket` is where the blobs are,
    /// if they are in one.
    ///
    /// # Errors
    /// When a server is there that this one cannot share the records with.
    pub async fn take(records: &Records, dir: &Path, bucket: Option<&str>) -> Result<Option<Self>, PresenceError> {
        if !records.is_shared() {
            return Ok(None);
        }
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
        // The same after a restart, which need not wait until the lease runs out.
        let holder = format!("{} on {machine}", dir.display());
        let beside = bucket.map(|bucket| format!("{SERVER} of {bucket}: "));
        let name = beside.as_ref().map_or_else(|| SERVER.to_owned(), |beside| format!("{beside}{holder}"));
        let lease = Lease { records: records.clone(), name, holder, beside };
        if let Some(other) = lease.acquire().await? {
            return Err(PresenceError::Taken { other });
        }
        let (said, lost) = watch::channel(false);
        let keeper = tokio::spawn(keep(lease.clone(), said));
        Ok(Some(Self { lease, lost, keeper }))
    }

    /// Waits until the place is lost: this server was silent for so long that another took it.
    pub async fn lost(&self) {
        // The keeper does not end before.
        let _ = self.lost.clone().wait_for(|lost| *lost).await;
    }

    /// Gives the place up, so that others need not wait.
    pub async fn leave(self) {
        self.keeper.abort();
        let Lease { records, name, holder, .. } = self.lease;
        if let Err(error) = records.write_later(move |tx| leases::release(tx, &name, &holder)).await {
            tracing::warn!(%error, "the records could not be told that this server stops");
        }
    }
}

impl Lease {
    /// Takes or keeps it. Whoever is in the way, if somebody is.
    async fn acquire(&self) -> Result<Option<String>, RecordsError> {
        let lease = self.clone();
        self.records.write_later(move |tx| lease.acquire_in(tx)).await
    }

    fn acquire_in(&self, tx: &mut Tx<'_>) -> Result<Option<String>, RecordsError> {
        let now = Timestamp::from(std::time::SystemTime::now());
        for (name, lease) in leases::beginning_with(tx, SERVER)? {
            let goes = self.beside.as_ref().is_some_and(|beside| name.starts_with(beside.as_str()));
            if lease.until > now && lease.holder != self.holder && !goes {
                return Ok(Some(lease.holder));
            }
        }
        let taken = leases::acquire(tx, &self.name, &self.holder, now, LASTS)?;
        Ok((!taken).then(|| self.holder.clone()))
    }
}

async fn keep(lease: Lease, lost: watch::Sender<bool>) {
    loop {
        tokio::time::sleep(EVERY).await;
        match lease.acquire().await {
            Ok(None) => {}
            Ok(Some(other)) => {
                tracing::error!(%other, "another server has taken the records");
                lost.send_replace(true);
                return;
            }
            // As long as the records cannot be reached nobody else can take them.
            Err(error) => tracing::warn!(%error, "the records could not be told that this server is there"),
        }
    }
}
