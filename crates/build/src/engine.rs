//! The builder from outside: an async door to an engine that blocks.
//!
//! The engine runs on one blocking thread. What it needs from the caller (base images, a place for its log) it asks for
//! over a channel, so that neither side needs to outlive the other. Dropping the future cancels the engine.

mod assemble;
mod placing;
mod session;
mod steps;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock, TryLockError};
use std::time::Duration;

use model::{Digest, ImageRef};
use oci::{Descriptor, LayerStore, Platform};
use store::{BlobLease, Blobs};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::base::{BaseImageError, BaseImages, ResolvedImage};
use crate::cache::Cache;
use crate::context::ContextFiles;
use crate::error::BuildError;
use crate::key::Key;
use crate::request::{BuildInputs, BuildRequest};

pub(crate) use session::{PickRequest, Session};

/// What a [`Builder`] works with.
#[derive(Clone, Debug)]
pub struct BuilderConfig {
    /// The directory of its cache; one process has it.
    pub dir: PathBuf,
    /// Where layers and configurations go.
    pub blobs: Blobs,
    /// Where layers of base images are unpacked.
    pub layers: LayerStore,
    /// What a RUN may use up.
    pub limits: sandbox::Limits,
}

/// Builds images. Cheap to clone; several builds may run at once.
#[derive(Clone, Debug)]
pub struct Builder {
    inner: Arc<Inner>,
}

/// What builds share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub blobs: Blobs,
    pub layers: LayerStore,
    pub limits: sandbox::Limits,
    pub cache: Cache,
    /// One for each step that is being made, so that two builds do not make it twice.
    pub making: Mutex<HashMap<Key, Arc<Mutex<()>>>>,
    /// Held by builds for reading, and for writing by what takes things away.
    pub using: RwLock<()>,
}

/// An image whose blobs are stored and whose manifest nobody can see yet.
#[derive(Clone, Debug, PartialEq)]
pub struct BuiltImage {
    /// The manifest.
    pub manifest: Vec<u8>,
    /// Its media type.
    pub media_type: &'static str,
    /// Its digest.
    pub digest: Digest,
    /// The digest of its configuration.
    pub config_digest: Digest,
    /// Its layers, the lowest first.
    pub layers: Vec<Descriptor>,
    /// How many steps were executed, and how many were taken from the cache.
    pub steps: StepCount,
}

/// How many steps a build had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepCount {
    /// Executed.
    pub executed: usize,
    /// Taken from the cache, as far as they were looked at.
    pub cached: usize,
}

/// What the engine asks of its caller.
pub(crate) enum Ask {
    Log(String),
    Resolve { image: Box<ImageRef>, platform: Platform, answer: oneshot::Sender<Result<ResolvedImage, BaseImageError>> },
    Fetch { image: Arc<ResolvedImage>, layer: Box<Descriptor>, answer: oneshot::Sender<Result<(), BaseImageError>> },
}

/// The engine's end of the door.
pub(crate) struct Caller {
    pub asks: mpsc::Sender<Ask>,
    pub handle: Handle,
    pub cancel: CancellationToken,
}

impl Builder {
    /// A builder with its cache. What an earlier process left unfinished is cleared away.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub fn new(config: BuilderConfig) -> Result<Self, BuildError> {
        let cache = Cache::open(&config.dir, config.layers.ids())?;
        let BuilderConfig { blobs, layers, limits, .. } = config;
        Ok(Self {
            inner: Arc::new(Inner { blobs, layers, limits, cache, making: Mutex::default(), using: RwLock::default() }),
        })
    }

    /// What the image would be made of. Nothing is executed or written, and no file is read that needs not be.
    ///
    /// # Errors
    /// When the Dockerfile or what it names cannot be used.
    pub async fn recipe(&self, request: &BuildRequest, images: &dyn BaseImages) -> Result<BuildInputs, BuildError> {
        let mut quiet = |_: &str| {};
        let cancel = CancellationToken::new();
        self.drive(request, images, None, &mut quiet, &cancel, |session| session.inputs()).await
    }

    /// Builds the image. Its blobs are stored under `lease` when this returns; what was made on the way is kept in the
    /// cache. `log` gets what happens, line by line, with the output of commands.
    ///
    /// # Errors
    /// When the Dockerfile or what it names cannot be used, a command fails, something cannot be written, or `cancel` is
    /// cancelled. Nothing of the image is visible then.
    pub async fn build(
        &self,
        request: &BuildRequest,
        images: &dyn BaseImages,
        lease: &BlobLease,
        log: &mut (dyn FnMut(&str) + Send),
        cancel: &CancellationToken,
    ) -> Result<BuiltImage, BuildError> {
        self.drive(request, images, Some(lease), log, cancel, |session| session.build()).await
    }

    /// Removes what no build has used for `age`. Returns how many things that were. Does nothing while a build is running.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub async fn prune(&self, age: Duration) -> Result<u64, BuildError> {
        let inner = Arc::clone(&self.inner);
        let prune = move || match inner.using.try_write() {
            Err(TryLockError::WouldBlock) => Ok(0),
            Ok(_) | Err(TryLockError::Poisoned(_)) => inner.cache.prune(age),
        };
        finished(tokio::task::spawn_blocking(prune).await)
    }

    async fn drive<T: Send + 'static>(
        &self,
        request: &BuildRequest,
        images: &dyn BaseImages,
        lease: Option<&BlobLease>,
        log: &mut (dyn FnMut(&str) + Send),
        cancel: &CancellationToken,
        work: fn(&mut Session<'_>) -> Result<T, BuildError>,
    ) -> Result<T, BuildError> {
        let (asks, mut asked) = mpsc::channel(64);
        let cancel = cancel.child_token();
        let _cancelled_when_dropped = cancel.clone().drop_guard();
        let caller = Caller { asks, handle: Handle::current(), cancel };
        let (inner, request, held) = (Arc::clone(&self.inner), request.clone(), lease.cloned());
        let engine = tokio::task::spawn_blocking(move || engine(&inner, &request, held, caller, work));
        // Ends when the engine drops its end.
        while let Some(ask) = asked.recv().await {
            match ask {
                Ask::Log(line) => log(&line),
                Ask::Resolve { image, platform, answer } => {
                    let _ = answer.send(images.resolve(&image, &platform).await);
                }
                Ask::Fetch { image, layer, answer } => {
                    let Some(lease) = lease else { continue };
                    let _ = answer.send(images.fetch(&image, &layer, lease).await);
                }
            }
        }
        finished(engine.await)
    }
}

fn engine<T>(
    inner: &Inner,
    request: &BuildRequest,
    lease: Option<BlobLease>,
    caller: Caller,
    work: fn(&mut Session<'_>) -> Result<T, BuildError>,
) -> Result<T, BuildError> {
    let _using = inner.using.read().unwrap_or_else(PoisonError::into_inner);
    let context = ContextFiles::open(&request.context, &request.dockerfile, &caller.handle)?;
    loop {
        let mut session = Session::new(inner, request, &context, lease.as_ref(), &caller)?;
        let result = work(&mut session);
        // A command that makes something else each time was run again: what stands on it is looked at anew.
        if !session.stale {
            return result;
        }
    }
}

fn finished<T>(joined: Result<Result<T, BuildError>, tokio::task::JoinError>) -> Result<T, BuildError> {
    joined.unwrap_or_else(|error| Err(BuildError::Broken(error.to_string())))
}
