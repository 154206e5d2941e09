//! Uploads of blobs in parts: who began one, for which image.
//!
//! The bytes are the store's. That an upload exists is remembered in memory when it begins, so that one that is opened
//! only to see whether it is allowed costs nothing, and recorded before its first part, so that it survives a restart.
//! Where several processes share the records it is recorded at once, and nothing of it is in memory: any of them may get
//! the next request.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use model::{Algorithm, Digest, ImageName};
use store::{BlobWriter, RecordsError, StoredBlob, Tx, UploadId, UploadWriter};

use crate::{Registry, RegistryError, now};

/// The longest blob, in bytes: 1 TiB.
pub(crate) const MAX_BLOB: u64 = 1 << 40;

/// The most uploads that are open at a time.
const MAX_OPEN: usize = 10_000;

/// How long an upload without a byte stays open at most.
const EMPTY_FOR: Duration = Duration::from_secs(60 * 60);

/// The uploads this process knows.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<HashMap<UploadId, Session>>);

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

impl Sessions {
    fn table(&self) -> MutexGuard<'_, HashMap<UploadId, Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        let session = Session {
            id: id.clone(),
            image: image.clone(),
            subject: subject.to_owned(),
            recorded: false,
            begun: Instant::now(),
        };
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
        let session = Session {
            id: id.clone(),
            image: image.clone(),
            subject: subject.to_owned(),
            recorded: true,
            begun: Instant::now(),
        };
        let row = session.clone();
        let recorded = self.records.write_later(move |tx| {
            let count = tx.query_first("SELECT COUNT(*) FROM registry_uploads", &[])?;
            let count = count.map_or(Ok(0), |row| row.get::<i64>(0))?;
            if usize::try_from(count).is_ok_and(|count| count >= MAX_OPEN) {
                return Err(RegistryError::TooManyUploads.into());
            }
            record(tx, &row)
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
            row.map(|row| Ok((row.parse(0)?, row.get(1)?))).transpose()
        });
        let Some((image, subject)) = row.await? else { return Ok(None) };
        let session = Session { id: id.clone(), image, subject, recorded: true, begun: Instant::now() };
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
