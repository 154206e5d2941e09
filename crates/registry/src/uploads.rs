//! Uploads of blobs in parts: who began one, for which image.
//!
//! The bytes are the store's. That an upload exists is remembered in memory when it begins, so that one that is opened
//! only to see whether it is allowed costs nothing, and recorded before its first part, so that it survives a restart.
//! Where several processes share the records it is recorded at once, and nothing of it is in memory: any of them may get
//! the next request.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use model::{Algorithm, Digest, ImageName};
use store::{BlobWriter, RecordsError, StoredBlob, Tx, UploadId, UploadWriter};

use crate::{Registry, RegistryError, now};

/// The longest blob, in bytes: 1 TiB.
pub(crate) const MAX_BLOB: u64 = 1 << 40;

/// The most uploads that are open at a time; with several processes up to [`UNCOUNTED`] more for each of them.
const MAX_OPEN: usize = 10_000;

/// How many uploads a process that shares the records begins before it counts again.
const UNCOUNTED: usize = 100;

/// How long an upload without a byte stays open at most.
const EMPTY_FOR: Duration = Duration::from_secs(60 * 60);

/// The uploads this process knows.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    table: Mutex<HashMap<UploadId, Session>>,
    room: Arc<Room>,
}

/// An open upload.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub id: UploadId,
    pub image: ImageName,
    /// Who began it; nobody else goes on with it.
    pub subject: String,
    recorded: bool,
    begun: Instant,
}

impl Session {
    fn new(id: UploadId, image: ImageName, subject: &str, recorded: bool) -> Self {
        Self { id, image, subject: subject.to_owned(), recorded, begun: Instant::now() }
    }
}

impl Sessions {
    fn table(&self) -> MutexGuard<'_, HashMap<UploadId, Session>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many uploads this process may begin before it has to count again those that are open, of all processes.
#[derive(Debug, Default)]
struct Room(AtomicUsize);

impl Room {
    /// Whether there is room for one more. `count` says how many are open and is asked if nothing is left of what the
    /// last count allowed: to count at each would read thousands of rows for one that is written.
    ///
    /// To be called by one thread at a time, as the transactions that write are. What others begin meanwhile is not
    /// counted; but whoever counts [`MAX_OPEN`] begins none, so there are never more over it than were allowed before.
    fn take<E>(&self, count: impl FnOnce() -> Result<usize, E>) -> Result<bool, E> {
        let allowed = match self.0.load(Ordering::Relaxed) {
            0 => MAX_OPEN.saturating_sub(count()?).min(UNCOUNTED),
            allowed => allowed,
        };
        self.0.store(allowed.saturating_sub(1), Ordering::Relaxed);
        Ok(allowed > 0)
    }
}

impl Registry {
    /// Begins an upload to an image, of a blob whose digest is of the kind `algorithm`, as far as the client said.
    pub(crate) async fn begin_upload(
        &self,
        image: &ImageName,
        subject: &str,
        algorithm: Algorithm,
    ) -> Result<Session, RegistryError> {
        if self.records.is_shared() {
            return self.begin_for_all(image, subject, algorithm).await;
        }
        if self.shared.sessions.table().len() >= MAX_OPEN {
            return Err(RegistryError::TooManyUploads);
        }
        self.refuse_full().await?;
        let id = self.blobs.uploads().create(algorithm).await?;
        let session = Session::new(id.clone(), image.clone(), subject, false);
        self.shared.sessions.table().insert(id, session.clone());
        Ok(session)
    }

    /// Begins an upload that another process may go on with.
    async fn begin_for_all(
        &self,
        image: &ImageName,
        subject: &str,
        algorithm: Algorithm,
    ) -> Result<Session, RegistryError> {
        self.refuse_full().await?;
        let id = self.blobs.uploads().create(algorithm).await?;
        let session = Session::new(id.clone(), image.clone(), subject, true);
        let (row, room) = (session.clone(), Arc::clone(&self.shared.sessions.room));
        let recorded = self.records.write_later(move |tx| {
            if room.take(|| count(tx))? { record(tx, &row) } else { Err(RegistryError::TooManyUploads.into()) }
        });
        if let Err(error) = recorded.await {
            self.blobs.uploads().abandon(&id).await?;
            return Err(error.into());
        }
        Ok(session)
    }

    /// An upload to an image that was begun earlier, perhaps before a restart.
    pub(crate) async fn upload(&self, image: &ImageName, id: &str) -> Result<Session, RegistryError> {
        let unknown = || RegistryError::UploadUnknown(id.chars().take(80).collect());
        let id: UploadId = id.parse().map_err(|_| unknown())?;
        let known = self.shared.sessions.table().get(&id).cloned();
        let session = match known {
            Some(session) => session,
            None => self.recorded_upload(&id).await?.ok_or_else(unknown)?,
        };
        if session.image == *image { Ok(session) } else { Err(unknown()) }
    }

    async fn recorded_upload(&self, id: &UploadId) -> Result<Option<Session>, RegistryError> {
        let key = id.to_string();
        let row = self.records.read(move |tx| {
            let sql = "SELECT image, subject FROM registry_uploads WHERE id = $1";
            let row = tx.query_first(sql, &[key.into()])?;
            row.map(|row| Ok((row.parse(0)?, row.get::<String>(1)?))).transpose()
        });
        let Some((image, subject)) = row.await? else { return Ok(None) };
        let session = Session::new(id.clone(), image, &subject, true);
        if !self.records.is_shared() {
            self.shared.sessions.table().insert(id.clone(), session.clone());
        }
        Ok(Some(session))
    }

    /// How many bytes an upload has.
    pub(crate) async fn upload_offset(&self, session: &Session) -> Result<u64, RegistryError> {
        Ok(self.blobs.uploads().offset(&session.id).await?)
    }

    /// Opens an upload for its next part. `last` says that the part ends it, which then needs no record.
    pub(crate) async fn append(
        &self,
        session: &Session,
        offset: Option<u64>,
        last: bool,
    ) -> Result<UploadWriter, RegistryError> {
        self.refuse_full().await?;
        let writer = self.blobs.uploads().append(&session.id, offset).await?;
        if !session.recorded && !last {
            let row = session.clone();
            // After a power cut the client begins anew; that costs less than to wait for the disk at each of many uploads.
            self.records.write_later(move |tx| record(tx, &row)).await?;
            if let Some(session) = self.shared.sessions.table().get_mut(&session.id) {
                session.recorded = true;
            }
        }
        Ok(writer)
    }

    /// Makes a blob of the image from an upload. A wrong digest ends the upload as well.
    pub(crate) async fn finish_upload(&self, session: &Session, digest: &Digest) -> Result<StoredBlob, RegistryError> {
        let lease = self.blobs.lease(&format!("upload to {}", session.image));
        let uploads = self.blobs.uploads();
        let finished = self.storing(digest, uploads.finish(&lease, &session.id, digest)).await;
        if let Err(RegistryError::Blobs(error)) = &finished
            && let store::BlobError::Mismatch { .. } = **error
        {
            self.forget_upload(session).await?;
        }
        let (blob, hold) = finished?;
        self.link_stored(&session.image, (&blob, &hold), Some(&session.id)).await?;
        self.shared.sessions.table().remove(&session.id);
        uploads.clear(&session.id).await;
        Ok(blob)
    }

    /// Ends an upload without a blob.
    pub(crate) async fn cancel_upload(&self, session: &Session) -> Result<(), RegistryError> {
        self.give_way();
        self.blobs.uploads().abandon(&session.id).await?;
        self.forget_upload(session).await
    }

    async fn forget_upload(&self, session: &Session) -> Result<(), RegistryError> {
        let known = self.shared.sessions.table().remove(&session.id);
        if known.is_none_or(|known| known.recorded) {
            let id = session.id.to_string();
            self.records.write_later(move |tx| forget(tx, &id)).await?;
        }
        Ok(())
    }

    /// Begins a blob that arrives in one piece.
    pub(crate) async fn blob_writer(
        &self,
        image: &ImageName,
        digest: &Digest,
    ) -> Result<(store::BlobLease, BlobWriter), RegistryError> {
        self.refuse_full().await?;
        let lease = self.blobs.lease(&format!("upload to {image}"));
        let writer = self.blobs.writer(&lease, digest.algorithm()).await?;
        Ok((lease, writer))
    }

    /// Makes a blob that arrived in one piece part of the image.
    pub(crate) async fn finish_blob(
        &self,
        image: &ImageName,
        writer: BlobWriter,
        digest: &Digest,
    ) -> Result<StoredBlob, RegistryError> {
        let (blob, hold) = self.storing(digest, writer.finish_as(digest)).await?;
        self.link_stored(image, (&blob, &hold), None).await?;
        Ok(blob)
    }

    /// Ends uploads that nobody goes on with: those without a byte after an hour, others when the time of the rules has
    /// passed since the last one. To be called now and then. Returns how many were ended.
    ///
    /// # Errors
    /// When records or blobs fail.
    pub async fn expire_uploads(&self) -> Result<usize, RegistryError> {
        self.give_way();
        let idle = self.policy().uploads;
        let stale: Vec<Session> = {
            let sessions = self.shared.sessions.table();
            let stale = |session: &&Session| !session.recorded && session.begun.elapsed() > idle.min(EMPTY_FOR);
            sessions.values().filter(stale).cloned().collect()
        };
        let mut ended = 0;
        for session in stale {
            match self.cancel_upload(&session).await {
                Ok(()) => ended += 1,
                Err(RegistryError::UploadUnknown(_)) => self.forget_upload(&session).await?,
                // One that is being written to is not stale.
                Err(RegistryError::Blobs(_)) => {}
                Err(error) => return Err(error),
            }
        }
        ended += self.blobs.uploads().expire(idle).await?;
        self.forget_ended().await?;
        Ok(ended)
    }

    /// Takes records of uploads whose bytes are gone away.
    async fn forget_ended(&self) -> Result<(), RegistryError> {
        let ids: Vec<String> = self
            .records
            .read(|tx| tx.query("SELECT id FROM registry_uploads", &[])?.iter().map(|row| row.get(0)).collect())
            .await?;
        for id in ids {
            let Ok(id) = id.parse::<UploadId>() else { continue };
            if let Err(store::BlobError::NoUpload(_)) = self.blobs.uploads().offset(&id).await {
                self.shared.sessions.table().remove(&id);
                let id = id.to_string();
                self.records.write_later(move |tx| forget(tx, &id)).await?;
            }
        }
        Ok(())
    }
}

/// How many uploads are open.
fn count(tx: &mut Tx<'_>) -> Result<usize, RecordsError> {
    let row = tx.query_first("SELECT COUNT(*) FROM registry_uploads", &[])?;
    let open = row.map_or(Ok(0), |row| row.get::<i64>(0))?;
    Ok(usize::try_from(open).unwrap_or_default())
}

/// Records an upload.
fn record(tx: &mut Tx<'_>, session: &Session) -> Result<(), RecordsError> {
    let sql = "INSERT INTO registry_uploads (id, image, subject, begun) VALUES ($1, $2, $3, $4)
               ON CONFLICT (id) DO NOTHING";
    let (id, image) = (session.id.as_str(), session.image.to_string());
    tx.execute(sql, &[id.into(), image.into(), session.subject.as_str().into(), now().into()]).map(drop)
}

/// Takes the record of an upload away.
pub(crate) fn forget(tx: &mut Tx<'_>, id: &str) -> Result<(), RecordsError> {
    tx.execute("DELETE FROM registry_uploads WHERE id = $1", &[id.into()]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Processes over the same records: what is open, and how often each of them counted.
    struct Processes {
        rooms: Vec<Room>,
        open: usize,
        counted: usize,
    }

    impl Processes {
        fn new(number: usize) -> Self {
            Self { rooms: (0..number).map(|_| Room::default()).collect(), open: 0, counted: 0 }
        }

        fn begin(&mut self, process: usize) -> bool {
            let (open, counted) = (self.open, &mut self.counted);
            let taken = self.rooms[process].take(|| {
                *counted += 1;
                Ok::<_, RecordsError>(open)
            });
            let taken = taken.unwrap();
            self.open += usize::from(taken);
            taken
        }
    }

    #[test]
    fn one_that_is_alone_holds_the_limit_and_counts_seldom() {
        let mut alone = Processes::new(1);
        while alone.begin(0) {}
        assert_eq!(alone.open, MAX_OPEN);
        assert_eq!(alone.counted, MAX_OPEN / UNCOUNTED + 1);
        assert!(!alone.begin(0));
        alone.open -= 3;
        assert_eq!((0..9).filter(|_| alone.begin(0)).count(), 3, "as many as ended");
    }

    #[test]
    fn several_are_over_the_limit_by_no_more_than_each_may_begin_uncounted() {
        let mut three = Processes::new(3);
        // Two that counted long ago, when next to nothing was open.
        assert!(three.begin(0) && three.begin(1));
        while three.begin(2) {}
        assert_eq!(three.open, MAX_OPEN);
        while three.begin(0) || three.begin(1) || three.begin(2) {}
        assert_eq!(three.open, MAX_OPEN + 2 * (UNCOUNTED - 1));
    }

    #[test]
    fn records_that_cannot_be_read_are_no_room() {
        let room = Room::default();
        let failed = room.take(|| Err::<usize, _>("no connection"));
        assert_eq!(failed, Err("no connection"));
        assert_eq!(room.take(|| Ok::<_, ()>(MAX_OPEN)), Ok(false));
        assert_eq!(room.take(|| Ok::<_, ()>(0)), Ok(true));
    }
}
