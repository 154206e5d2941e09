//! What the registry refuses, and why.

use model::{Digest, ImageName, Tag};
use oci::ManifestError;
use store::{BlobError, RecordsError};

use crate::{Freeze, Reference};

/// Why something was not done. Nothing became visible.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// There is no such image.
    #[error("there is no image {0}")]
    NameUnknown(ImageName),
    /// The image has no such manifest.
    #[error("image {image} has no manifest {reference}")]
    ManifestUnknown {
        /// The image.
        image: ImageName,
        /// What was asked for.
        reference: Box<Reference>,
    },
    /// The image has no such blob.
    #[error("image {image} has no blob {digest}")]
    BlobUnknown {
        /// The image.
        image: ImageName,
        /// What was asked for.
        digest: Box<Digest>,
    },
    /// A manifest refers to a blob that the image does not have.
    #[error("the manifest refers to blob {0}, which is not in this image: push it first")]
    MissingBlob(Digest),
    /// An index refers to a manifest that the image does not have.
    #[error("the index refers to manifest {0}, which is not in this image: push it first")]
    MissingManifest(Digest),
    /// A manifest lies about a length.
    #[error("the manifest says that {digest} has {said} bytes; it has {found}")]
    WrongSize {
        /// The blob or manifest.
        digest: Digest,
        /// What the manifest says.
        said: u64,
        /// The truth.
        found: u64,
    },
    /// A manifest is not what it is pushed as.
    #[error("the manifest has digest {found}, and was pushed as {expected}")]
    WrongDigest {
        /// What it was pushed as.
        expected: Box<Digest>,
        /// The truth.
        found: Box<Digest>,
    },
    /// A rule of replication cannot work.
    #[error("replication rule {rule} to {to}: {why}")]
    Replication {
        /// The rule.
        rule: String,
        /// Where it pushes.
        to: String,
        /// Why.
        why: String,
    },
    /// The bytes are no manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Something else stands on it.
    #[error("{digest} cannot be deleted: manifest {by} of {image} refers to it")]
    InUse {
        /// The image.
        image: ImageName,
        /// What was to be deleted.
        digest: Box<Digest>,
        /// What refers to it.
        by: Box<Digest>,
    },
    /// Nothing of the image may change.
    #[error("image {image} is {freeze}")]
    Frozen {
        /// The image.
        image: ImageName,
        /// By whom, since when and why.
        freeze: Box<Freeze>,
    },
    /// Nothing at all may change.
    #[error("the registry is {0}")]
    FrozenWhole(Box<Freeze>),
    /// The images of a pattern hold as much as they may.
    #[error("{wanted} bytes more are too many: images {images} hold {used} of {limit} bytes")]
    QuotaExceeded {
        /// The pattern.
        images: String,
        /// Bytes that they may hold.
        limit: u64,
        /// Bytes that they hold.
        used: u64,
        /// Bytes that were to be added.
        wanted: u64,
    },
    /// A tag was set once and stays.
    #[error("tag {tag} of {image} is immutable by {rule}: it points to {digest}")]
    Immutable {
        /// The image.
        image: ImageName,
        /// The tag.
        tag: Box<Tag>,
        /// What makes it so.
        rule: String,
        /// What it points to.
        digest: Box<Digest>,
    },
    /// The bytes of a blob are being removed at this moment.
    #[error("blob {0} is just being removed; try again")]
    BeingRemoved(Digest),
    /// Somebody collects already.
    #[error("a collection is under way already")]
    Collecting,
    /// It cannot be found out what is needed.
    #[error("it cannot be found out which images are needed: {0}")]
    Roots(String),
    /// Whoever asked is gone.
    #[error("nobody listens any more")]
    NobodyListens,
    /// There is no such upload in this image.
    #[error("there is no upload {0}")]
    UploadUnknown(String),
    /// Too many uploads are open.
    #[error("too many uploads are open; try again later")]
    TooManyUploads,
    /// A blob is longer than is accepted.
    #[error("the blob is longer than {limit} bytes")]
    BlobTooLong {
        /// What is accepted.
        limit: u64,
    },
    /// The blobs failed.
    #[error(transparent)]
    Blobs(Box<BlobError>),
    /// The records failed.
    #[error(transparent)]
    Records(RecordsError),
}

impl From<BlobError> for RegistryError {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::NoUpload(id) => Self::UploadUnknown(id),
            other => Self::Blobs(Box::new(other)),
        }
    }
}

impl From<RecordsError> for RegistryError {
    /// A transaction that was left with an error of this room gives that error back.
    fn from(error: RecordsError) -> Self {
        error.into_room::<Self>().unwrap_or_else(Self::Records)
    }
}

impl From<RegistryError> for RecordsError {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Records(error) => error,
            other => Self::room(other),
        }
    }
}
