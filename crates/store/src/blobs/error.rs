//! What can go wrong with blobs.

use std::io;
use std::path::{Path, PathBuf};

use model::Digest;

/// Why a blob could not be written or read. A blob that could not be finished left nothing behind.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The disk is full.
    #[error("no space left on the disk that holds the blobs ({})", path.display())]
    NoSpace {
        /// What was being written.
        path: PathBuf,
    },
    /// The content is not what its digest says.
    #[error("the content has digest {found}, expected {expected}")]
    Mismatch {
        /// The digest that was announced.
        expected: Digest,
        /// The digest of what came. Boxed to keep every `Result` small.
        found: Box<Digest>,
    },
    /// The disk gives something else than was written.
    #[error("blob {digest} is damaged on disk: its content has another digest")]
    Corrupt {
        /// The blob.
        digest: Digest,
    },
    /// A blob is larger than its reader takes.
    #[error("blob {digest} has {size} bytes, at most {limit} are taken")]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// Its length.
        size: u64,
        /// What its reader takes.
        limit: u64,
    },
    /// There is no such upload: it was finished, abandoned or never begun.
    #[error("there is no upload {0}")]
    NoUpload(String),
    /// A part of an upload does not begin where the one before it ended.
    #[error("upload {id} is at byte {at}, not {given}")]
    Offset {
        /// The upload.
        id: String,
        /// How many bytes it has.
        at: u64,
        /// Where the part says that it begins.
        given: u64,
    },
    /// Another request is writing to the upload.
    #[error("upload {0} is being written to by another request")]
    UploadBusy(String),
    /// An earlier write was given up halfway.
    #[error("an earlier write of this blob was interrupted")]
    Interrupted,
    /// The bucket failed.
    #[error("bucket {bucket}: {message}")]
    Bucket {
        /// The bucket.
        bucket: String,
        /// What it said.
        message: String,
    },
    /// The records of uploads failed.
    #[error(transparent)]
    Records(#[from] crate::records::RecordsError),
    /// The file system failed.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl BlobError {
    /// Whether the disk is full.
    pub const fn is_no_space(&self) -> bool {
        match self {
            Self::NoSpace { .. } => true,
            Self::Records(error) => error.is_no_space(),
            _ => false,
        }
    }

    pub(super) fn io(path: &Path, error: io::Error) -> Self {
        let path = path.to_owned();
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { path },
            _ => Self::Io { path, error },
        }
    }
}
