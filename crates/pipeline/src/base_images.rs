//! Base images for `build`: this registry's own, and those of upstreams, through the pull-through cache.

use access::{Access, Action, Principal, Resource};
use build::{BaseImageError, BaseImages, BoxFuture, ResolvedImage};
use model::{ImageName, ImageRef, RepoName, Tag};
use oci::{Descriptor, Platform};
use registry::Reference;
use registry::upstream::Upstreams;
use store::BlobLease;

use crate::images::{RegistryImages, Shelf};

/// Whose images a name of one component may be.
const DOCKER: &str = "docker.io";

/// Base images for the builds of one repository: those of its owner, what everybody may read, and what the upstreams let
/// pass.
pub(crate) struct BaseImagesOf {
    pub(crate) images: RegistryImages,
    pub(crate) upstreams: Upstreams,
    pub(crate) access: Access,
    pub(crate) repository: RepoName,
    /// Host and port of this registry: what stands there in a FROM is here, and nothing else.
    pub(crate) hosts: Vec<String>,
}

impl BaseImagesOf {
    async fn may_read(&self, name: &ImageName) -> bool {
        name.owner() == self.repository.owner() || {
            let image = Resource::Image(name.clone());
            self.access.authorize(&Principal::Anonymous, Action::Read, image).await.is_ok()
        }
    }

    fn upstream(&self, host: Option<&str>, image: &ImageRef) -> Result<Option<Shelf>, BaseImageError> {
        let found = self.upstreams.image(host, &image.name).map_err(|error| unreadable(image, error.to_string()))?;
        Ok(found.map(Shelf::Upstream))
    }

    /// Where an image is. A name without a registry is an image of this one, or below an upstream's prefix; if it has one
    /// component and nobody has such an image here, it is docker's.
    async fn shelf(&self, image: &ImageRef, reference: &Reference) -> Result<Shelf, BaseImageError> {
        if let Some(host) = image.registry.as_deref().filter(|host| !self.hosts.iter().any(|own| own == host)) {
            let elsewhere = || {
                let message = format!(
                    "only images of this server's registry, or of one that it passes on, can be built on; name {host} in \
                     spec.registry.upstreams, or push the image here"
                );
                unreadable(image, message)
            };
            return self.upstream(Some(host), image)?.ok_or_else(elsewhere);
        }
        if let Some(found) = self.upstream(None, image)? {
            return Ok(found);
        }
        let own = Shelf::Own(image.name.clone());
        let here = self.may_read(&image.name).await
            && self.images.record(&own, reference).await.map_err(|error| unreadable(image, error))?.is_some();
        if here {
            return Ok(own);
        }
        let short = image.registry.is_none() && !image.name.as_str().contains('/');
        let docker = if short { self.upstream(Some(DOCKER), image)? } else { None };
        docker.ok_or_else(|| BaseImageError::NotFound(image.to_string()))
    }

    async fn resolved(&self, image: &ImageRef, platform: &Platform) -> Result<ResolvedImage, BaseImageError> {
        let reference = match (&image.digest, &image.tag) {
            (Some(digest), _) => Reference::Digest(*digest),
            (None, Some(tag)) => Reference::Tag(tag.clone()),
            (None, None) => Reference::Tag(latest()?),
        };
        let shelf = self.shelf(image, &reference).await?;
        let fail = |message| unreadable(image, message);
        let record = self.images.record(&shelf, &reference).await.map_err(fail)?;
        let record = record.ok_or_else(|| BaseImageError::NotFound(image.to_string()))?;
        let digest = record.digest;
        let found = self.images.runnable(&shelf, record, platform).await.map_err(fail)?;
        let none = || BaseImageError::NoPlatform { image: image.to_string(), platform: platform.to_string() };
        let (manifest, config) = found.ok_or_else(none)?;
        Ok(ResolvedImage { reference: image.clone(), digest, manifest, config })
    }

    async fn fetched(&self, image: &ResolvedImage, layer: &Descriptor) -> Result<(), BaseImageError> {
        let shelf = self.shelf(&image.reference, &Reference::Digest(image.digest)).await?;
        let fail = |message| unreadable(&image.reference, format!("its layer {} {message}", layer.digest));
        self.images.bring(&shelf, &layer.digest).await.map_err(fail)
    }
}

impl BaseImages for BaseImagesOf {
    fn resolve<'a>(
        &'a self,
        image: &'a ImageRef,
        platform: &'a Platform,
    ) -> BoxFuture<'a, Result<ResolvedImage, BaseImageError>> {
        Box::pin(self.resolved(image, platform))
    }

    fn fetch<'a>(
        &'a self,
        image: &'a ResolvedImage,
        layer: &'a Descriptor,
        lease: &'a BlobLease,
    ) -> BoxFuture<'a, Result<(), BaseImageError>> {
        // Held first, looked for then: what is found stays.
        lease.hold(&layer.digest);
        Box::pin(self.fetched(image, layer))
    }
}

fn unreadable(image: &ImageRef, message: String) -> BaseImageError {
    BaseImageError::Unreadable { image: image.to_string(), message }
}

fn latest() -> Result<Tag, BaseImageError> {
    "latest".parse().map_err(|_| BaseImageError::NotFound("latest".into()))
}
