//! The registry as its siblings need it: base images for `build`, runnable images for `deploy`. In process, by digest.

use std::io::{self, Read};

use access::{Access, Action, Principal, Resource};
use build::{BaseImageError, BaseImages, BoxFuture, ResolvedImage};
use deploy::{ImagesError, RunnableImage};
use model::{CommitId, ImageName, ImageRef, PinnedImage, RepoName, Tag};
use oci::{Descriptor, ImageConfig, Manifest, ManifestKind, Platform};
use registry::{ManifestRecord, Reference, Registry};
use store::{BlobLease, Blobs};

/// Bytes of an image's configuration.
const CONFIG_LIMIT: u64 = 4 << 20;

/// Images of the embedded registry.
#[derive(Clone)]
pub struct RegistryImages {
    registry: Registry,
    blobs: Blobs,
}

/// Base images for the builds of one repository: those of its owner, and what everybody may read.
pub(crate) struct BaseImagesOf {
    pub(crate) images: RegistryImages,
    pub(crate) access: Access,
    pub(crate) repository: RepoName,
    /// Host and port of this registry: what stands there in a FROM is here, and nothing else.
    pub(crate) hosts: Vec<String>,
}

impl RegistryImages {
    /// The images of `registry`.
    pub const fn new(registry: Registry, blobs: Blobs) -> Self {
        Self { registry, blobs }
    }

    async fn record(&self, name: &ImageName, reference: &Reference) -> Result<Option<ManifestRecord>, String> {
        self.registry.manifest(name, reference).await.map_err(|error| error.to_string())
    }

    /// The commit that an image says it was made of (`org.opencontainers.image.revision`), if it says one.
    pub(crate) async fn revision(&self, image: &PinnedImage) -> Result<Option<CommitId>, String> {
        let Some(record) = self.record(&image.name, &Reference::Digest(image.digest)).await? else { return Ok(None) };
        let found = self.runnable(&image.name, record, &Platform::here()).await?;
        let labels = found.map(|(_, config)| config.config.labels).unwrap_or_default();
        Ok(labels.get("org.opencontainers.image.revision").and_then(|commit| commit.parse().ok()))
    }

    /// The manifest and configuration for `platform` of what `record` is.
    async fn runnable(
        &self,
        name: &ImageName,
        record: ManifestRecord,
        platform: &Platform,
    ) -> Result<Option<(Manifest, ImageConfig)>, String> {
        let manifest = match record.parse().map_err(|error| error.to_string())? {
            ManifestKind::Image(manifest) => manifest,
            ManifestKind::Index(index) => {
                let Some(child) = index.select(platform) else { return Ok(None) };
                let record = self.record(name, &Reference::Digest(child.digest)).await?;
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
        let bytes = self.blobs.bytes(&manifest.config.digest, CONFIG_LIMIT).await.map_err(|error| error.to_string())?;
        let bytes = bytes.ok_or_else(|| format!("its configuration {} is not there", manifest.config.digest))?;
        let config = serde_json::from_slice(&bytes).map_err(|error| format!("its configuration: {error}"))?;
        Ok(Some((*manifest, config)))
    }
}

impl BaseImagesOf {
    async fn may_read(&self, name: &ImageName) -> bool {
        name.owner() == self.repository.owner() || {
            let image = Resource::Image(name.clone());
            self.access.authorize(&Principal::Anonymous, Action::Read, image).await.is_ok()
        }
    }
}

impl BaseImages for BaseImagesOf {
    fn resolve<'a>(
        &'a self,
        image: &'a ImageRef,
        platform: &'a Platform,
    ) -> BoxFuture<'a, Result<ResolvedImage, BaseImageError>> {
        Box::pin(async move {
            let shown = image.to_string();
            let here = image.registry.as_ref().is_none_or(|host| self.hosts.contains(host));
            if !here {
                let message = "only images of this server's registry can be built on; push it there first".to_owned();
                return Err(BaseImageError::Unreadable { image: shown, message });
            }
            if !self.may_read(&image.name).await {
                return Err(BaseImageError::NotFound(shown));
            }
            let reference = match (&image.digest, &image.tag) {
                (Some(digest), _) => Reference::Digest(*digest),
                (None, Some(tag)) => Reference::Tag(tag.clone()),
                (None, None) => Reference::Tag(latest()?),
            };
            let unreadable = |message| BaseImageError::Unreadable { image: shown.clone(), message };
            let record = self.images.record(&image.name, &reference).await.map_err(unreadable)?;
            let record = record.ok_or_else(|| BaseImageError::NotFound(shown.clone()))?;
            let digest = record.digest;
            let found = self.images.runnable(&image.name, record, platform).await.map_err(unreadable)?;
            let none = || BaseImageError::NoPlatform { image: shown.clone(), platform: platform.to_string() };
            let (manifest, config) = found.ok_or_else(none)?;
            Ok(ResolvedImage { reference: image.clone(), digest, manifest, config })
        })
    }

    fn fetch<'a>(
        &'a self,
        image: &'a ResolvedImage,
        layer: &'a Descriptor,
        lease: &'a BlobLease,
    ) -> BoxFuture<'a, Result<(), BaseImageError>> {
        Box::pin(async move {
            let unreadable = |message| BaseImageError::Unreadable { image: image.reference.to_string(), message };
            // Held first, looked for then: what is found stays.
            lease.hold(&layer.digest);
            match self.images.blobs.stat(&layer.digest).await {
                Ok(Some(_)) => Ok(()),
                Ok(None) => Err(unreadable(format!("its layer {} is not there", layer.digest))),
                Err(error) => Err(unreadable(error.to_string())),
            }
        })
    }
}

fn latest() -> Result<Tag, BaseImageError> {
    "latest".parse().map_err(|_| BaseImageError::NotFound("latest".into()))
}

impl deploy::Images for RegistryImages {
    fn image<'a>(
        &'a self,
        image: &'a PinnedImage,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<RunnableImage, ImagesError>> + Send + 'a>> {
        Box::pin(async move {
            let fail = |message: String| ImagesError(format!("image {image}: {message}"));
            let record = self.record(&image.name, &Reference::Digest(image.digest)).await.map_err(fail)?;
            let record = record.ok_or_else(|| fail("the registry does not hold it".into()))?;
            if oci::digest_of(image.digest.algorithm(), &record.bytes) != image.digest {
                return Err(fail("what the registry holds under this digest is something else".into()));
            }
            let found = self.runnable(&image.name, record, &Platform::here()).await.map_err(fail)?;
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
