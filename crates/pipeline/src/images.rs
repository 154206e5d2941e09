//! The registry as its siblings need it: images that can be run, for `deploy` and as bases for `build`. In process, by
//! digest.

use std::io::{self, Read};

use deploy::{ImagesError, RunnableImage};
use model::{CommitId, Digest, ImageName, PinnedImage};
use oci::{Descriptor, ImageConfig, Manifest, ManifestKind, Platform};
use registry::upstream::UpstreamImage;
use registry::{ManifestRecord, Reference, Registry};
use store::Blobs;

/// Bytes of an image's configuration.
const CONFIG_LIMIT: u64 = 4 << 20;

/// Images of the embedded registry, and of the upstreams that it passes on.
#[derive(Clone)]
pub struct RegistryImages {
    registry: Registry,
    blobs: Blobs,
}

/// An image by where it is kept.
#[derive(Clone, Debug)]
pub(crate) enum Shelf {
    /// An image of this registry.
    Own(ImageName),
    /// One of an upstream, which comes when it is asked for.
    Upstream(UpstreamImage),
}

impl RegistryImages {
    /// The images of `registry`.
    pub const fn new(registry: Registry, blobs: Blobs) -> Self {
        Self { registry, blobs }
    }

    /// A manifest of an image; nothing if it is an own one that is not there.
    pub(crate) async fn record(&self, shelf: &Shelf, reference: &Reference) -> Result<Option<ManifestRecord>, String> {
        match shelf {
            Shelf::Own(name) => self.registry.manifest(name, reference).await.map_err(|error| error.to_string()),
            Shelf::Upstream(image) => {
                let asked = Box::pin(image.manifest(&self.registry, reference)).await;
                asked.map(Some).map_err(|error| error.to_string())
            }
        }
    }

    /// Sees to it that a blob of an image is in the blob store.
    pub(crate) async fn bring(&self, shelf: &Shelf, digest: &Digest) -> Result<(), String> {
        if let Shelf::Upstream(image) = shelf {
            Box::pin(image.bring(&self.registry, digest)).await.map_err(|error| error.to_string())?;
        }
        let stat = self.blobs.stat(digest).await.map_err(|error| error.to_string())?;
        stat.map(drop).ok_or_else(|| "is not there".to_owned())
    }

    /// The commit that an image says it was made of (`org.opencontainers.image.revision`), if it says one.
    pub(crate) async fn revision(&self, image: &PinnedImage) -> Result<Option<CommitId>, String> {
        let shelf = Shelf::Own(image.name.clone());
        let Some(record) = self.record(&shelf, &Reference::Digest(image.digest)).await? else { return Ok(None) };
        let found = self.runnable(&shelf, record, &Platform::here()).await?;
        let labels = found.map(|(_, config)| config.config.labels).unwrap_or_default();
        Ok(labels.get("org.opencontainers.image.revision").and_then(|commit| commit.parse().ok()))
    }

    /// The manifest and configuration for `platform` of what `record` is.
    pub(crate) async fn runnable(
        &self,
        shelf: &Shelf,
        record: ManifestRecord,
        platform: &Platform,
    ) -> Result<Option<(Manifest, ImageConfig)>, String> {
        let manifest = match record.parse().map_err(|error| error.to_string())? {
            ManifestKind::Image(manifest) => manifest,
            ManifestKind::Index(index) => {
                let Some(child) = index.select(platform) else { return Ok(None) };
                let record = self.record(shelf, &Reference::Digest(child.digest)).await?;
                match record
                    .ok_or("a manifest of the index is not there")?
                    .parse()
                    .map_err(|error| error.to_string())?
                {
                    ManifestKind::Image(manifest) => manifest,
                    ManifestKind::Index(_) => return Err("an index inside an index cannot be run".into()),
                }
            }
        };
        let digest = &manifest.config.digest;
        if manifest.config.size > CONFIG_LIMIT {
            return Err(format!("its configuration {digest} is longer than {CONFIG_LIMIT} bytes"));
        }
        self.bring(shelf, digest).await.map_err(|error| format!("its configuration {digest} {error}"))?;
        let bytes = self.blobs.bytes(digest, CONFIG_LIMIT).await.map_err(|error| error.to_string())?;
        let bytes = bytes.ok_or_else(|| format!("its configuration {digest} is not there"))?;
        let config = serde_json::from_slice(&bytes).map_err(|error| format!("its configuration: {error}"))?;
        Ok(Some((*manifest, config)))
    }
}

impl deploy::Images for RegistryImages {
    fn image<'a>(
        &'a self,
        image: &'a PinnedImage,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<RunnableImage, ImagesError>> + Send + 'a>> {
        Box::pin(async move {
            let fail = |message: String| ImagesError(format!("image {image}: {message}"));
            let shelf = Shelf::Own(image.name.clone());
            let record = self.record(&shelf, &Reference::Digest(image.digest)).await.map_err(fail)?;
            let record = record.ok_or_else(|| fail("the registry does not hold it".into()))?;
            if oci::digest_of(image.digest.algorithm(), &record.bytes) != image.digest {
                return Err(fail("what the registry holds under this digest is something else".into()));
            }
            let found = self.runnable(&shelf, record, &Platform::here()).await.map_err(fail)?;
            let (manifest, config) = found.ok_or_else(|| fail("it is not for this machine's platform".into()))?;
            Ok(RunnableImage { manifest, config })
        })
    }

    fn open_layer(&self, _image: &PinnedImage, layer: &Descriptor) -> io::Result<Box<dyn Read + Send>> {
        let path = self.blobs.local_path(&layer.digest);
        let path = path.ok_or_else(|| io::Error::other("the blob store has no files on this machine"))?;
        Ok(Box::new(std::fs::File::open(path)?))
    }
}
