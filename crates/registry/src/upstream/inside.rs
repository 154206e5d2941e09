//! Images of upstreams for the program's own parts: builds that stand on them.

use model::{Digest, ImageName};
use oci::Reference;

use crate::upstream::names::Meant;
use crate::upstream::{CachedBlob, Place, UpstreamError, Upstreams};
use crate::{ManifestRecord, Registry};

/// An image of an upstream that the configuration lets pass.
#[derive(Clone, Debug)]
pub struct UpstreamImage(Place);

impl Upstreams {
    /// The image that is called `name` at the registry `host`, or here if that is nothing. Nothing if no upstream has it.
    ///
    /// # Errors
    /// [`UpstreamError::NotAllowed`] when the configuration leaves it out.
    pub fn image(&self, host: Option<&str>, name: &ImageName) -> Result<Option<UpstreamImage>, UpstreamError> {
        if self.is_empty() {
            return Ok(None);
        }
        let meant = Meant { namespace: host, ..Meant::default() };
        let place = self.local_name(name.clone(), &meant).and_then(|local| self.place(&local));
        let Some(place) = place else { return Ok(None) };
        place.permitted()?;
        Ok(Some(UpstreamImage(place)))
    }
}

impl UpstreamImage {
    /// A manifest of the image: from the cache, or from the upstream.
    ///
    /// # Errors
    /// When it is not here, and the upstream does not give it.
    pub async fn manifest(&self, registry: &Registry, reference: &Reference) -> Result<ManifestRecord, UpstreamError> {
        let (record, _) = self.0.manifest(registry, reference).await?;
        Ok(record)
    }

    /// Brings a blob of the image into the store, and waits until it is there whole. Whoever needs it to stay holds it
    /// before.
    ///
    /// # Errors
    /// When it is not here, and the upstream does not give it.
    pub async fn bring(&self, registry: &Registry, digest: &Digest) -> Result<(), UpstreamError> {
        let (blob, _) = self.0.blob(registry, digest).await?;
        let CachedBlob::Coming(following, _reader) = blob else { return Ok(()) };
        let total = following.total();
        // The last byte is there when the whole is found to be right.
        let mut last = following.read(total.saturating_sub(1)..total);
        match last.chunk().await {
            Ok(_) => Ok(()),
            Err(store::BlobError::Interrupted) => Err(self.0.broken_off(registry, digest).await),
            Err(error) => Err(error.into()),
        }
    }
}

impl Place {
    /// Why a blob did not come to its end.
    async fn broken_off(&self, registry: &Registry, digest: &Digest) -> UpstreamError {
        match self.blob_size(registry, digest).await {
            Err(error) => error,
            Ok(_) => self.upstream.bad(format!("blob {digest} did not come whole")),
        }
    }
}
