//! The local engine, seen from the server.

mod instances;
mod keeper;
mod recover;
mod rollout;
mod sites;
mod view;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::{PinnedImage, TargetId};
use oci::{Descriptor, ImageConfig, LayerStore, Manifest};

use crate::site::SiteState;
use crate::{DeployError, files};

pub use recover::Recovered;

/// Where images come from.
pub trait Images: Send + Sync + 'static {
    /// The image for this machine's platform: pulled by its digest and verified.
    fn image<'a>(&'a self, image: &'a PinnedImage) -> ImageFuture<'a>;

    /// The bytes of one of its layers, as they are stored. Called on a thread that may block. They are verified by the
    /// caller.
    ///
    /// # Errors
    /// When they cannot be had.
    fn open_layer(&self, image: &PinnedImage, layer: &Descriptor) -> io::Result<Box<dyn Read + Send>>;
}

/// What [`Images::image`] gives.
pub type ImageFuture<'a> = Pin<Box<dyn Future<Output = Result<RunnableImage, ImagesError>> + Send + 'a>>;

/// An image, without its layers.
#[derive(Clone, Debug, PartialEq)]
pub struct RunnableImage {
    /// The manifest for this machine's platform.
    pub manifest: Manifest,
    /// Its configuration.
    pub config: ImageConfig,
}

/// Why an image cannot be had, in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ImagesError(pub String);

/// What the local engine works with.
#[derive(Clone)]
pub struct LocalConfig {
    /// The directory below which `sites` and `services` are kept: the server's data directory.
    pub dir: PathBuf,
    /// Unpacked layers.
    pub layers: LayerStore,
    /// Where images come from.
    pub images: Arc<dyn Images>,
    /// How long requests to the old version may take after the traffic has moved; 30 s is usual.
    pub drain: Duration,
}

impl fmt::Debug for LocalConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalConfig").field("dir", &self.dir).field("drain", &self.drain).finish_non_exhaustive()
    }
}

/// The local engine. Clones are the same engine; one process at a time uses a directory.
#[derive(Clone, Debug)]
pub struct Local {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: LocalConfig,
    /// Changes of one target follow each other.
    targets: Mutex<HashMap<TargetId, Arc<tokio::sync::Mutex<()>>>>,
    /// The tasks that start dead supervisors again, by directory.
    keepers: Mutex<HashMap<PathBuf, tokio::task::AbortHandle>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        for (_, keeper) in self.keepers.get_mut().unwrap_or_else(PoisonError::into_inner).drain() {
            keeper.abort();
        }
    }
}

/// While it is held, nobody else changes the target.
type TargetLock = tokio::sync::OwnedMutexGuard<()>;

impl Local {
    /// Opens the engine. What ran before runs on; [`Local::recover`] looks after it.
    ///
    /// # Errors
    /// When its directories cannot be made.
    pub fn open(config: LocalConfig) -> Result<Self, DeployError> {
        for name in ["sites", "services"] {
            let dir = config.dir.join(name);
            std::fs::create_dir_all(&dir).map_err(DeployError::file("make the directory", &dir))?;
        }
        files::sync_dir(&config.dir).map_err(DeployError::file("sync", &config.dir))?;
        let inner = Inner { config, targets: Mutex::default(), keepers: Mutex::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    async fn lock(&self, target: TargetId) -> TargetLock {
        let lock = {
            let mut targets = self.inner.targets.lock().unwrap_or_else(PoisonError::into_inner);
            targets.entry(target).or_default().clone()
        };
        lock.lock_owned().await
    }

    fn site_dir(&self, target: TargetId) -> PathBuf {
        self.inner.config.dir.join("sites").join(target.to_string())
    }

    fn instance_dir(&self, target: TargetId, instance: &str) -> PathBuf {
        SiteState::instance_dir(&self.site_dir(target), target, instance)
    }
}

/// The names in a directory; none if it is not there.
fn names(dir: &Path) -> Result<Vec<String>, DeployError> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(DeployError::file("list", dir)(error)),
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter(|name| !name.starts_with('.')).collect())
}
