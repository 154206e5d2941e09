//! Chunks on their way to a thread that may block: gathered into batches, of which one is written and hashed while the
//! next comes together.
//!
//! A batch is a copy in a buffer that is used again: what a chunk came in is free at once for the next one, which then
//! arrives in memory that the processor still has at hand. That saves more than the copy costs.

use bytes::Bytes;
use tokio::task::JoinHandle;

use crate::blobs::{BlobError, blocking_io};

/// How large a batch gets, in bytes. Two of them are what a blob in the making takes of the memory.
const BATCH: usize = 512 * 1024;

/// What is smaller than this does not get a buffer for a whole batch.
const SMALL: usize = 32 * 1024;

/// What batches are written to.
pub(super) trait Append: Send + 'static {
    /// Writes all of `bytes`.
    fn append(&mut self, bytes: &[u8]) -> Result<(), BlobError>;
}

/// Where the one is that writes.
enum Place<W> {
    /// With a buffer that is not in use.
    Here(W, Vec<u8>),
    /// On a thread, with a batch.
    Away(JoinHandle<Result<(W, Vec<u8>), BlobError>>),
    /// A write failed, or was given up.
    Lost,
}

/// Gathers chunks for a writer.
pub(super) struct Gather<W> {
    writer: Place<W>,
    batch: Vec<u8>,
    /// Whether a chunk is only partly in a batch: nothing more may come of a write that was given up.
    halfway: bool,
}

impl<W: Append> Gather<W> {
    pub(super) const fn new(writer: W) -> Self {
        Self { writer: Place::Here(writer, Vec::new()), batch: Vec::new(), halfway: false }
    }

    /// Adds a chunk. That it cannot be written may be said only later, at the latest by [`Gather::end`].
    pub(super) async fn write(&mut self, chunk: Bytes) -> Result<(), BlobError> {
        if std::mem::replace(&mut self.halfway, true) {
            return Err(BlobError::Interrupted);
        }
        let mut rest = &chunk[..];
        loop {
            if self.batch.len() + rest.len() > SMALL {
                self.batch.reserve_exact(BATCH - self.batch.len());
            }
            let (fits, more) = rest.split_at(rest.len().min(BATCH - self.batch.len()));
            self.batch.extend_from_slice(fits);
            if self.batch.len() < BATCH {
                self.halfway = false;
                return Ok(());
            }
            rest = more;
            let (mut writer, mut spare) = self.back().await?;
            spare.clear();
            let batch = std::mem::replace(&mut self.batch, spare);
            self.writer = Place::Away(tokio::task::spawn_blocking(move || {
                writer.append(&batch)?;
                Ok((writer, batch))
            }));
        }
    }

    /// Writes what is left and then does `last`, from a thread that may block.
    pub(super) async fn end<T: Send + 'static>(
        mut self,
        last: impl FnOnce(W) -> Result<T, BlobError> + Send + 'static,
    ) -> Result<T, BlobError> {
        if self.halfway {
            return Err(BlobError::Interrupted);
        }
        let (mut writer, _) = self.back().await?;
        let batch = self.batch;
        blocking_io(move || {
            writer.append(&batch)?;
            last(writer)
        })
        .await
    }

    /// The writer, when it has written what it was given.
    async fn back(&mut self) -> Result<(W, Vec<u8>), BlobError> {
        if let Place::Away(task) = &mut self.writer {
            let back = task.await.unwrap_or(Err(BlobError::Interrupted));
            self.writer = Place::Lost;
            return back;
        }
        match std::mem::replace(&mut self.writer, Place::Lost) {
            Place::Here(writer, spare) => Ok((writer, spare)),
            Place::Away(_) | Place::Lost => Err(BlobError::Interrupted),
        }
    }
}
