//! What the builder needs from whoever has the base images.

use std::future::Future;
use std::pin::Pin;

use model::{Digest, ImageRef};
use oci::{Descriptor, ImageConfig, Manifest, Platform};
use store::BlobLease;

/// A future of a trait's method.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where base images come from.
pub trait BaseImages: Send + Sync {
    /// The image that `image` names now, for `platform`.
    fn resolve<'a>(
        &'a self,
        image: &'a ImageRef,
        platform: &'a Platform,
    ) -> BoxFuture<'a, Result<ResolvedImage, BaseImageError>>;

    /// Brings a layer of `image` into the builder's blob store, held by `lease`, unless it is there.
    fn fetch<'a>(
        &'a self,
        image: &'a ResolvedImage,
        layer: &'a Descriptor,
        lease: &'a BlobLease,
    ) -> BoxFuture<'a, Result<(), BaseImageError>>;
}

/// A base image by content.
#[derive(Clone, Debug)]
pub struct ResolvedImage {
    /// How it was asked for.
    pub reference: ImageRef,
    /// The digest of what the reference resolved to (an index keeps its own): what identities stand on.
    pub digest: Digest,
    /// The manifest for the platform.
    pub manifest: Manifest,
    /// Its configuration; as many `diff_ids` as the manifest has layers.
    pub config: ImageConfig,
}

/// Why there is no base image.
#[derive(Debug, thiserror::Error)]
pub enum BaseImageError {
    /// Nobody knows an image of that name.
    #[error("there is no image {0}")]
    NotFound(String),
    /// There is one, for other platforms.
    #[error("image {image} is not for {platform}")]
    NoPlatform {
        /// The image.
        image: String,
        /// What was asked for.
        platform: String,
    },
    /// It could not be read.
    #[error("image {image} cannot be read: {message}")]
    Unreadable {
        /// The image.
        image: String,
        /// What went wrong, with its causes.
        message: String,
    },
}
