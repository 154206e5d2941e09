//! What others need of the registry, which it cannot know by itself.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use model::{Digest, ImageName, PinnedImage};

use crate::{Registry, RegistryError};

/// A future that can be sent.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An image that somebody needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// The image.
    pub image: PinnedImage,
    /// What for: "deployed at target site".
    pub why: String,
}

/// What the rest of the program needs. Nothing goes while this cannot be told.
pub trait Roots: fmt::Debug + Send + Sync {
    /// The images that run, may be gone back to, or are being made.
    fn images(&self) -> BoxFuture<'_, Result<Vec<Root>, String>>;

    /// Those of these blobs that are needed though no image has them.
    fn blobs(&self, among: Vec<Digest>) -> BoxFuture<'_, Result<HashSet<Digest>, String>>;
}

/// The roots of each image, with their reasons.
pub(crate) type RootsByImage = HashMap<ImageName, HashMap<Digest, String>>;

impl Registry {
    /// Says who knows what is needed. To be called once, before anything is collected.
    pub fn set_roots(&self, roots: Arc<dyn Roots>) {
        if self.shared.roots.set(roots).is_err() {
            tracing::warn!("the registry was told twice what is needed; the first counts");
        }
    }

    pub(crate) async fn roots(&self) -> Result<RootsByImage, RegistryError> {
        let mut found = RootsByImage::new();
        if let Some(roots) = self.shared.roots.get() {
            for root in roots.images().await.map_err(RegistryError::Roots)? {
                found.entry(root.image.name).or_default().entry(root.image.digest).or_insert(root.why);
            }
        }
        Ok(found)
    }

    pub(crate) async fn needed(&self, among: Vec<Digest>) -> Result<HashSet<Digest>, RegistryError> {
        match self.shared.roots.get() {
            Some(roots) => roots.blobs(among).await.map_err(RegistryError::Roots),
            None => Ok(HashSet::new()),
        }
    }
}
