//! Blobs of an upstream.

use model::Digest;
use store::{BlobReader, Following};

use crate::Registry;
use crate::upstream::fetch::Reader;
use crate::upstream::health::Purpose;
use crate::upstream::{Answer, Freshness, Place, UpstreamError};

/// A blob that can be read.
pub(crate) enum CachedBlob {
    /// It is here.
    Stored(BlobReader),
    /// It is on its way.
    Coming(Following, Reader),
}

impl CachedBlob {
    /// Its length in bytes.
    pub const fn size(&self) -> u64 {
        match self {
            Self::Stored(reader) => reader.size(),
            Self::Coming(following, _) => following.total(),
        }
    }
}

impl Place {
    /// A blob of the image.
    ///
    /// # Errors
    /// When it is not here, and the upstream does not give it.
    pub(crate) async fn blob(&self, registry: &Registry, digest: &Digest) -> Answer<CachedBlob> {
        let answer = self.open_blob(registry, digest).await;
        self.upstream.counted(answer)
    }

    async fn open_blob(&self, registry: &Registry, digest: &Digest) -> Answer<CachedBlob> {
        if let Some(reader) = self.stored(registry, digest).await? {
            return Ok((CachedBlob::Stored(reader), Freshness::Hit));
        }
        let upstream = &self.upstream;
        if upstream.is_absent(&self.name, &digest.to_string()) {
            return Err(self.no_blob(digest));
        }
        let followed = upstream.follow(registry, self, digest).await;
        let (following, reader) = upstream.remember(&self.name, &digest.to_string(), followed)?;
        Ok((CachedBlob::Coming(following, reader), Freshness::Miss))
    }

    /// The length of a blob of the image, without fetching it.
    ///
    /// # Errors
    /// When it is not here, and the upstream does not say.
    pub(crate) async fn blob_size(&self, registry: &Registry, digest: &Digest) -> Answer<u64> {
        let answer = self.find_blob_size(registry, digest).await;
        self.upstream.counted(answer)
    }

    async fn find_blob_size(&self, registry: &Registry, digest: &Digest) -> Answer<u64> {
        if let Some(reader) = self.stored(registry, digest).await? {
            return Ok((reader.size(), Freshness::Hit));
        }
        if self.upstream.is_absent(&self.name, &digest.to_string()) {
            return Err(self.no_blob(digest));
        }
        let (place, digest) = (self.clone(), *digest);
        let work = Box::pin(async move {
            let upstream = &place.upstream;
            let remote = upstream.remote(&place.remote);
            let what = format!("blob {digest} in {}", place.remote);
            let asked = upstream.ask(Purpose::Fetch, &what, remote.blob_exists(&digest)).await;
            let size = asked.and_then(|size| size.ok_or_else(|| place.no_blob(&digest)));
            upstream.remember(&place.name, &digest.to_string(), size)
        });
        let joined = self.upstream.sizes.join((self.name.clone(), digest), work).await;
        let size = joined.unwrap_or_else(|| Err(self.upstream.bad("the question was given up")))?;
        Ok((size, Freshness::Miss))
    }

    /// A blob that is here and the image's, or can be made the image's.
    async fn stored(&self, registry: &Registry, digest: &Digest) -> Result<Option<BlobReader>, UpstreamError> {
        if let Some(reader) = registry.blob(&self.name, digest).await? {
            return Ok(Some(reader));
        }
        if registry.adopt_blob(&self.name, &self.upstream.name, digest).await? {
            return Ok(registry.blob(&self.name, digest).await?);
        }
        Ok(None)
    }

    fn no_blob(&self, digest: &Digest) -> UpstreamError {
        self.upstream.absence(format!("blob {digest} in {}", self.remote))
    }
}
