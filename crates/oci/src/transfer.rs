//! Copying images between registries, layouts and archives.
//!
//! Blobs go first and only where they are missing, then the manifests that stand on them, so that whatever is interrupted
//! leaves nothing that refers to nothing. Every byte is checked against its digest on the way.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::{BoxFuture, try_join_all};
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use model::{Digest, ImageName, Tag};
use tokio::sync::{OnceCell, Semaphore};

use crate::client::{BlobPush, BlobSource, ClientError, FetchedManifest, Pushed, Remote};
use crate::local::{LayoutWriter, LocalError, LocalImages};
use crate::{Descriptor, ManifestError, ManifestKind, Platform, Reference};

/// How deep indexes and referrers may be nested.
const MAX_DEPTH: usize = 8;

/// Where images come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A repository of a registry.
    Remote(Remote),
    /// A layout or an archive.
    Local(Arc<LocalImages>),
}

/// A source, or what a caller gives in its place.
#[derive(Clone, Debug)]
enum Origin {
    Remote(Remote),
    Local(Arc<LocalImages>),
    Given(Arc<dyn Images>),
}

impl From<Source> for Origin {
    fn from(source: Source) -> Self {
        match source {
            Source::Remote(remote) => Self::Remote(remote),
            Source::Local(images) => Self::Local(images),
        }
    }
}

/// One repository's images, wherever they are.
pub trait Images: std::fmt::Debug + Send + Sync {
    /// The manifest that a tag or digest names.
    fn manifest<'a>(&'a self, reference: &'a Reference) -> BoxFuture<'a, Result<FetchedManifest, ClientError>>;
    /// The bytes of a blob.
    fn blob(&self, blob: &Descriptor) -> BlobSource;
    /// What is about a manifest.
    fn referrers<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Vec<Descriptor>, ClientError>>;
    /// Another repository of the destination that has a blob, if that is known: it is mounted from there.
    fn elsewhere<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Option<ImageName>>;
}

/// Where images go.
#[derive(Clone, Debug)]
pub enum Sink {
    /// A repository of a registry.
    Remote(Remote),
    /// A layout.
    Layout(Arc<LayoutWriter>),
}

/// What is copied of an image.
#[derive(Clone, Debug)]
pub struct What {
    /// Of an index, the image of this platform alone; everything without one.
    pub platform: Option<Platform>,
    /// With what refers to it: signatures, attestations, bills of material.
    pub referrers: bool,
}

/// Why an image was not copied.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// A registry, or a blob on its way.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A layout or archive.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// A manifest is not one.
    #[error("manifest {digest}: {error}")]
    Manifest {
        /// Which.
        digest: Box<Digest>,
        /// What is wrong with it.
        error: ManifestError,
    },
    /// The index has nothing for the platform.
    #[error("{digest} has no image for {wanted}; it has: {known}")]
    NoPlatform {
        /// The index.
        digest: Box<Digest>,
        /// What was asked for.
        wanted: String,
        /// What there is.
        known: String,
    },
    /// The manifest is there, and the tag is not: it would point to another digest.
    #[error(
        "{host} has taken {digest} and not its tag {tag}: it gives tags to SHA-256 digests only (no OCI-Tag in its answer)"
    )]
    Untagged {
        /// The registry.
        host: String,
        /// The manifest.
        digest: Box<Digest>,
        /// The tag.
        tag: Box<Tag>,
    },
    /// It is nested too deeply.
    #[error("{0} is nested more than {MAX_DEPTH} manifests deep")]
    TooDeep(Box<Digest>),
}

/// What has been done so far. Read it at any time.
#[derive(Debug, Default)]
pub struct Progress {
    /// Manifests written.
    pub manifests: AtomicU64,
    /// Blobs that were sent.
    pub sent: AtomicU64,
    /// Blobs that the registry took from another of its repositories.
    pub mounted: AtomicU64,
    /// Blobs that were there.
    pub there: AtomicU64,
    /// Bytes of blobs sent.
    pub bytes: AtomicU64,
    /// Bytes of blobs that are to be sent, as far as is known.
    pub wanted: AtomicU64,
}

/// What copyings have in common: run at the same time, they share turns, and blobs that one brought are mounted by others.
#[derive(Debug)]
pub struct Shared {
    /// What has been done.
    pub progress: Progress,
    /// Blobs that are on their way at the same time.
    turns: Semaphore,
    /// Where at the destination a blob is.
    homes: Mutex<HashMap<Digest, ImageName>>,
}

impl Shared {
    /// With at most `parallel` blobs on their way at the same time. For one destination registry.
    pub fn new(parallel: usize) -> Self {
        Self { progress: Progress::default(), turns: Semaphore::new(parallel.max(1)), homes: Mutex::default() }
    }

    fn home(&self, digest: &Digest) -> Option<ImageName> {
        self.homes.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    fn is_at(&self, digest: Digest, name: &ImageName) {
        self.homes.lock().unwrap_or_else(PoisonError::into_inner).entry(digest).or_insert_with(|| name.clone());
    }
}

type Seen = Arc<Mutex<HashMap<Digest, Arc<OnceCell<()>>>>>;

/// A copying of images from one place to another.
#[derive(Clone)]
pub struct Transfer {
    source: Origin,
    sink: Sink,
    what: What,
    shared: Arc<Shared>,
    blobs: Seen,
    manifests: Seen,
}

impl Transfer {
    /// From `source` to `sink`.
    pub fn new(source: Source, sink: Sink, what: What, shared: Arc<Shared>) -> Self {
        Self::from_origin(source.into(), sink, what, shared)
    }

    /// From a repository that only the caller knows.
    pub fn given(images: Arc<dyn Images>, sink: Sink, what: What, shared: Arc<Shared>) -> Self {
        Self::from_origin(Origin::Given(images), sink, what, shared)
    }

    fn from_origin(source: Origin, sink: Sink, what: What, shared: Arc<Shared>) -> Self {
        Self { source, sink, what, shared, blobs: Seen::default(), manifests: Seen::default() }
    }

    /// Copies the manifest that `wanted` names at the source, under `tag` and `name` at the sink: `tag` for a registry,
    /// `name` for a layout. Returns the digest of what stands there then.
    ///
    /// # Errors
    /// When something cannot be read or written. What was copied stays; the same call goes on from there.
    /// [`TransferError::Untagged`] when all was copied but the tag.
    pub async fn copy(&self, wanted: &Wanted, tag: Option<&Tag>, name: Option<&str>) -> Result<Digest, TransferError> {
        let mut top = self.fetch_wanted(wanted).await?;
        if let Some(platform) = &self.what.platform
            && let ManifestKind::Index(index) = parse(&top)?
        {
            let child = index.select(platform).ok_or_else(|| TransferError::NoPlatform {
                digest: Box::new(top.digest),
                wanted: platform.to_string(),
                known: platforms(&index.manifests),
            })?;
            top = self.fetch(child).await?;
        }
        let digest = top.digest;
        self.fill(&top, 0).await?;
        let tagged = self.write(&top, tag, Some(name)).await?;
        self.refer(digest, 0).await?;
        match (tag, &self.sink) {
            (Some(tag), Sink::Remote(remote)) if !tagged => {
                let (host, digest, tag) = (remote.host().to_string(), Box::new(digest), Box::new(tag.clone()));
                Err(TransferError::Untagged { host, digest, tag })
            }
            _ => Ok(digest),
        }
    }

    /// Everything that was copied below and about what [`Transfer::copy`] was asked for.
    pub fn written(&self) -> Vec<Digest> {
        let manifests = self.manifests.lock().unwrap_or_else(PoisonError::into_inner);
        manifests.iter().filter(|(_, cell)| cell.initialized()).map(|(digest, _)| *digest).collect()
    }

    async fn fetch_wanted(&self, wanted: &Wanted) -> Result<FetchedManifest, TransferError> {
        match (&self.source, wanted) {
            (Origin::Remote(remote), Wanted::Reference(reference)) => {
                Ok(remote.manifest(reference, Remote::ACCEPT).await?)
            }
            (Origin::Remote(remote), Wanted::Entry(entry)) => {
                Ok(remote.manifest(&Reference::Digest(entry.digest), Remote::ACCEPT).await?)
            }
            (Origin::Local(images), Wanted::Entry(entry)) => Ok(images.manifest(&entry.digest, &entry.media_type)?),
            (Origin::Given(images), Wanted::Reference(reference)) => Ok(images.manifest(reference).await?),
            (Origin::Given(images), Wanted::Entry(entry)) => {
                Ok(images.manifest(&Reference::Digest(entry.digest)).await?)
            }
            (Origin::Local(images), Wanted::Reference(reference)) => {
                let entry = images.find(Some(&reference.to_string()))?;
                Ok(images.manifest(&entry.digest, &entry.media_type)?)
            }
        }
    }

    async fn fetch(&self, entry: &Descriptor) -> Result<FetchedManifest, TransferError> {
        self.fetch_wanted(&Wanted::Entry(Box::new(entry.clone()))).await
    }

    /// Brings everything over that a manifest stands on.
    fn fill<'a>(&'a self, manifest: &'a FetchedManifest, depth: usize) -> BoxFuture<'a, Result<(), TransferError>> {
        async move {
            if depth > MAX_DEPTH {
                return Err(TransferError::TooDeep(Box::new(manifest.digest)));
            }
            let kind = parse(manifest)?;
            let blobs: Vec<Descriptor> = kind.blobs().into_iter().cloned().collect();
            try_join_all(blobs.iter().map(|blob| self.once_blob(blob))).await?;
            // Few at a time: each holds a manifest, and its blobs wait for their turns anyway.
            let children = futures_util::stream::iter(kind.children().to_vec().into_iter().map(Ok));
            let each = |child: Descriptor| async move { self.once_manifest(&child, depth + 1).await };
            children.try_for_each_concurrent(4, each).await
        }
        .boxed()
    }

    /// A child or referrer with everything below it, once however often it is named.
    async fn once_manifest(&self, entry: &Descriptor, depth: usize) -> Result<(), TransferError> {
        let cell = slot(&self.manifests, &entry.digest);
        let done = cell.get_or_try_init(|| async {
            let manifest = self.fetch(entry).await?;
            self.fill(&manifest, depth).await?;
            self.write(&manifest, None, None).await?;
            self.refer(manifest.digest, depth).await
        });
        done.await.copied()
    }

    /// What refers to a manifest that is there.
    fn refer(&self, digest: Digest, depth: usize) -> BoxFuture<'_, Result<(), TransferError>> {
        async move {
            if !self.what.referrers {
                return Ok(());
            }
            let found = match &self.source {
                Origin::Remote(remote) => remote.referrers(&digest, None).await?,
                Origin::Local(images) => images.referrers(&digest),
                Origin::Given(images) => images.referrers(&digest).await?,
            };
            for entry in &found {
                self.once_referrer(entry, depth + 1).await?;
            }
            Ok(())
        }
        .boxed()
    }

    async fn once_referrer(&self, entry: &Descriptor, depth: usize) -> Result<(), TransferError> {
        self.once_manifest(entry, depth).await?;
        if let Sink::Layout(layout) = &self.sink {
            layout.enter(Descriptor { annotations: None, ..entry.clone() }, None).await?;
        }
        Ok(())
    }

    async fn once_blob(&self, blob: &Descriptor) -> Result<(), TransferError> {
        let cell = slot(&self.blobs, &blob.digest);
        let done = cell.get_or_try_init(|| async {
            let _turn = self.shared.turns.acquire().await.map_err(|error| ClientError::Options(error.to_string()))?;
            self.blob(blob).await
        });
        done.await.copied()
    }

    async fn blob(&self, blob: &Descriptor) -> Result<(), TransferError> {
        let there = match &self.sink {
            Sink::Remote(remote) => remote.blob_exists(&blob.digest).await?.is_some(),
            Sink::Layout(layout) => layout.has(blob),
        };
        if let (true, Sink::Remote(remote)) = (there, &self.sink) {
            self.shared.is_at(blob.digest, remote.name());
        }
        if there {
            self.shared.progress.there.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        self.shared.progress.wanted.fetch_add(blob.size, Ordering::Relaxed);
        let source = match &self.source {
            Origin::Remote(remote) => BlobSource::remote(remote.clone(), blob),
            Origin::Local(images) => images.blob(blob)?,
            Origin::Given(images) => images.blob(blob),
        };
        let source = counted(source, self.shared.clone());
        let pushed = match &self.sink {
            Sink::Remote(remote) => {
                let known = self.shared.home(&blob.digest);
                let from = match &self.source {
                    Origin::Remote(other) if other.shares_registry(remote) => Some(other.name().clone()),
                    Origin::Given(images) if known.is_none() => images.elsewhere(&blob.digest).await,
                    _ => known,
                };
                let from = from.filter(|name| name != remote.name());
                let push = BlobPush::new(blob.digest, blob.size, source).or_mount(from);
                let pushed = remote.push_blob(&push).await?;
                self.shared.is_at(blob.digest, remote.name());
                pushed
            }
            Sink::Layout(layout) => {
                layout.write(blob, &source).await?;
                Pushed::Sent
            }
        };
        let counter = match pushed {
            Pushed::Sent => &self.shared.progress.sent,
            Pushed::Mounted => {
                self.shared.progress.wanted.fetch_sub(blob.size, Ordering::Relaxed);
                &self.shared.progress.mounted
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Writes a manifest; `top` holds the name of one that a layout lists. Whether it has the tag then that it should have.
    async fn write(
        &self,
        manifest: &FetchedManifest,
        tag: Option<&Tag>,
        top: Option<Option<&str>>,
    ) -> Result<bool, TransferError> {
        let mut tagged = true;
        match &self.sink {
            Sink::Remote(remote) => {
                let FetchedManifest { digest, media_type, bytes } = manifest.clone();
                match tag {
                    // Pushed by itself, a tag would be given the SHA-256 of what is sent.
                    Some(tag) if digest.algorithm() != model::Algorithm::Sha256 => {
                        tagged = remote.push_manifest_with_tag(&digest, tag, &media_type, bytes).await?;
                    }
                    _ => {
                        let reference = tag.map_or(Reference::Digest(digest), |tag| Reference::Tag(tag.clone()));
                        remote.push_manifest(&reference, &media_type, bytes).await?;
                    }
                }
            }
            Sink::Layout(layout) => {
                let entry = manifest.descriptor();
                layout.write_manifest(&entry, manifest.bytes.clone()).await?;
                if let Some(name) = top {
                    layout.enter(entry, name).await?;
                }
            }
        }
        self.shared.progress.manifests.fetch_add(1, Ordering::Relaxed);
        Ok(tagged)
    }
}

/// Which manifest of the source.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// By tag or digest; in a layout by its name.
    Reference(Reference),
    /// An entry of a layout.
    Entry(Box<Descriptor>),
}

fn parse(manifest: &FetchedManifest) -> Result<ManifestKind, TransferError> {
    manifest.parse().map_err(|error| TransferError::Manifest { digest: Box::new(manifest.digest), error })
}

fn platforms(entries: &[Descriptor]) -> String {
    let all: BTreeSet<String> =
        entries.iter().filter_map(|entry| entry.platform.as_ref()).map(ToString::to_string).collect();
    all.into_iter().take(30).collect::<Vec<_>>().join(", ")
}

fn slot(seen: &Seen, digest: &Digest) -> Arc<OnceCell<()>> {
    seen.lock().unwrap_or_else(PoisonError::into_inner).entry(*digest).or_default().clone()
}

/// The same source; what is read from it is counted.
fn counted(source: BlobSource, shared: Arc<Shared>) -> BlobSource {
    BlobSource::opened(move |from| {
        let (source, shared) = (source.clone(), shared.clone());
        Box::pin(async move {
            let stream = source.open(from).await?;
            let count = move |bytes: &bytes::Bytes| {
                shared.progress.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            };
            Ok(stream.inspect_ok(count).boxed())
        })
    })
}
