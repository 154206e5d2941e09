//! Manifests of an upstream: by digest for ever, by tag for a while.

use std::time::{Duration, Instant};

use model::{Digest, Tag, Timestamp};
use oci::Reference;
use oci::client::{ClientError, FetchedManifest, ManifestHead, Remote};

use crate::upstream::health::Purpose;
use crate::upstream::records::CachedTag;
use crate::upstream::{Answer, Freshness, Place, Upstream, UpstreamError, not_kept};
use crate::{ManifestRecord, Registry, RegistryError, now};

impl Place {
    /// A manifest of the image.
    ///
    /// # Errors
    /// When it is not here, and the upstream does not give it.
    pub(crate) async fn manifest(&self, registry: &Registry, reference: &Reference) -> Answer<ManifestRecord> {
        let upstream = &self.upstream;
        let answer = match reference {
            Reference::Digest(digest) => self.manifest_by_digest(registry, digest).await,
            Reference::Tag(tag) => self.manifest_by_tag(registry, tag).await,
        };
        upstream.counted(answer)
    }

    /// What is known of a manifest of the image, without fetching it.
    ///
    /// # Errors
    /// When nothing is known here, and the upstream does not say.
    pub(crate) async fn manifest_head(&self, registry: &Registry, reference: &Reference) -> Answer<ManifestHead> {
        let answer = match reference {
            Reference::Digest(digest) => self.head_by_digest(registry, digest).await,
            Reference::Tag(tag) => self.head_by_tag(registry, tag).await,
        };
        self.upstream.counted(answer)
    }

    async fn here(&self, registry: &Registry, digest: &Digest) -> Result<Option<ManifestRecord>, RegistryError> {
        registry.manifest(&self.name, &Reference::Digest(*digest)).await
    }

    async fn manifest_by_digest(&self, registry: &Registry, digest: &Digest) -> Answer<ManifestRecord> {
        if let Some(record) = self.here(registry, digest).await? {
            return Ok((record, Freshness::Hit));
        }
        self.fetch(registry, Reference::Digest(*digest)).await
    }

    async fn manifest_by_tag(&self, registry: &Registry, tag: &Tag) -> Answer<ManifestRecord> {
        let cached = registry.cached_tag(&self.name, tag).await?;
        if let Some(record) = self.fresh(registry, tag, cached).await? {
            return Ok((record, Freshness::Hit));
        }
        let Some(cached) = cached else {
            // A client looks at the tag and then asks for it: what it saw is what it gets.
            return match self.seen(tag) {
                Some(head) => self.fetch(registry, Reference::Digest(head.digest)).await,
                None => self.fetch(registry, Reference::Tag(tag.clone())).await,
            };
        };
        let renewed = self.renewed(registry, tag, cached).await;
        self.or_stale(registry, cached, renewed).await
    }

    /// What a tag points to, if the upstream said so a short while ago.
    async fn fresh(
        &self,
        registry: &Registry,
        tag: &Tag,
        cached: Option<CachedTag>,
    ) -> Result<Option<ManifestRecord>, UpstreamError> {
        if self.upstream.is_absent(&self.name, tag.as_str()) {
            return Err(self.no_manifest(&Reference::Tag(tag.clone())));
        }
        match cached.filter(|cached| age(cached.checked) < self.upstream.options.revalidate_after) {
            Some(cached) => Ok(self.here(registry, &cached.digest).await?),
            None => Ok(None),
        }
    }

    /// A tag whose time is over: the upstream is asked what it points to now.
    async fn renewed(&self, registry: &Registry, tag: &Tag, cached: CachedTag) -> Answer<ManifestRecord> {
        let head = match self.seen(tag) {
            Some(head) => head,
            None => self.ask_head(registry, tag, Purpose::Revalidate).await?,
        };
        if let Some(record) = self.here(registry, &head.digest).await? {
            return Ok((record, Freshness::Revalidated));
        }
        tracing::debug!(image = %self.name, %tag, from = %cached.digest, to = %head.digest, "a tag has moved");
        self.fetch(registry, Reference::Digest(head.digest)).await
    }

    /// The old answer in place of none.
    async fn or_stale(
        &self,
        registry: &Registry,
        cached: CachedTag,
        answer: Answer<ManifestRecord>,
    ) -> Answer<ManifestRecord> {
        match answer {
            Err(error) if error.is_outage() && age(cached.checked) < self.upstream.options.stale_for => {
                let record = self.here(registry, &cached.digest).await?;
                record.map(|record| (record, Freshness::Stale)).ok_or(error)
            }
            other => other,
        }
    }

    async fn head_by_digest(&self, registry: &Registry, digest: &Digest) -> Answer<ManifestHead> {
        if let Some(record) = self.here(registry, digest).await? {
            return Ok((head_of(&record), Freshness::Hit));
        }
        let (place, reference) = (self.clone(), Reference::Digest(*digest));
        let work = Box::pin(async move {
            let what = place.what(&reference);
            let remote = place.remote();
            let question = async { known(remote.head_manifest(&reference, Remote::ACCEPT).await, &what) };
            let head = place.upstream.ask(Purpose::Fetch, &what, question).await;
            place.upstream.remember(&place.name, &reference.to_string(), head).map(|head| (head, Freshness::Miss))
        });
        self.join_head(Reference::Digest(*digest), work).await
    }

    async fn head_by_tag(&self, registry: &Registry, tag: &Tag) -> Answer<ManifestHead> {
        let cached = registry.cached_tag(&self.name, tag).await?;
        if let Some(record) = self.fresh(registry, tag, cached).await? {
            return Ok((head_of(&record), Freshness::Hit));
        }
        if let Some(head) = self.seen(tag) {
            return Ok((head, Freshness::Hit));
        }
        let purpose = if cached.is_some() { Purpose::Revalidate } else { Purpose::Fetch };
        let asked = self.ask_head(registry, tag, purpose).await;
        let Some(cached) = cached else { return asked.map(|head| (head, Freshness::Miss)) };
        match asked {
            Ok(head) if head.digest == cached.digest => Ok((head, Freshness::Revalidated)),
            Ok(head) => Ok((head, Freshness::Miss)),
            Err(error) => {
                let stale = self.or_stale(registry, cached, Err(error)).await?;
                Ok((head_of(&stale.0), stale.1))
            }
        }
    }

    /// Asks the upstream what a tag points to, with everybody who wants to know it now, and takes in what it says.
    async fn ask_head(&self, registry: &Registry, tag: &Tag, purpose: Purpose) -> Result<ManifestHead, UpstreamError> {
        let (place, registry, tag) = (self.clone(), registry.clone(), tag.clone());
        let reference = Reference::Tag(tag.clone());
        let work = Box::pin(async move {
            let reference = Reference::Tag(tag.clone());
            let what = place.what(&reference);
            let remote = place.remote();
            let question = async { known(remote.head_manifest(&reference, Remote::ACCEPT).await, &what) };
            let head = place.upstream.ask(purpose, &what, question).await;
            let head = place.taken_in(&registry, &tag, head).await?;
            Ok((head, Freshness::Miss))
        });
        self.join_head(reference, work).await.map(|(head, _)| head)
    }

    async fn join_head(
        &self,
        reference: Reference,
        work: impl Future<Output = Answer<ManifestHead>> + Send + 'static,
    ) -> Answer<ManifestHead> {
        let joined = self.upstream.heads.join((self.name.clone(), reference), work).await;
        joined.unwrap_or_else(|| Err(self.upstream.bad("the question was given up")))
    }

    async fn taken_in(
        &self,
        registry: &Registry,
        tag: &Tag,
        head: Result<ManifestHead, UpstreamError>,
    ) -> Result<ManifestHead, UpstreamError> {
        let head = self.upstream.remember(&self.name, tag.as_str(), head);
        match &head {
            Ok(head) if !registry.confirm_tag(&self.name, tag, &head.digest).await? => {
                self.upstream.seen.put((self.name.clone(), tag.clone()), head.clone(), Instant::now());
            }
            Err(UpstreamError::Absent { .. }) => registry.drop_tag(&self.name, tag).await?,
            Ok(_) | Err(_) => {}
        }
        head
    }

    fn seen(&self, tag: &Tag) -> Option<ManifestHead> {
        self.upstream.seen.get(&(self.name.clone(), tag.clone()), Instant::now())
    }

    /// Fetches a manifest, with everybody who wants it now, and keeps it.
    async fn fetch(&self, registry: &Registry, reference: Reference) -> Answer<ManifestRecord> {
        if self.upstream.is_absent(&self.name, &reference.to_string()) {
            return Err(self.no_manifest(&reference));
        }
        let key = (self.name.clone(), reference.clone());
        let (place, registry) = (self.clone(), registry.clone());
        let work = Box::pin(async move {
            let what = place.what(&reference);
            let remote = place.remote();
            let question = remote.manifest(&reference, Remote::ACCEPT);
            let fetched = place.upstream.ask(Purpose::Fetch, &what, question).await;
            let fetched = place.upstream.remember(&place.name, &reference.to_string(), fetched)?;
            place.keep(&registry, &reference, &fetched).await?;
            let FetchedManifest { digest, media_type, bytes } = fetched;
            Ok((ManifestRecord { digest, media_type, bytes }, Freshness::Miss))
        });
        let joined = self.upstream.manifests.join(key, work).await;
        joined.unwrap_or_else(|| Err(self.upstream.bad("the question was given up")))
    }

    async fn keep(
        &self,
        registry: &Registry,
        reference: &Reference,
        fetched: &FetchedManifest,
    ) -> Result<(), UpstreamError> {
        let (upstream, digest) = (&self.upstream, fetched.digest);
        // Tags that were looked at, and whose manifest this is.
        let mut tags: Vec<Tag> = match reference {
            Reference::Tag(tag) => vec![tag.clone()],
            Reference::Digest(_) => Vec::new(),
        };
        let keys = upstream.seen.keys(Instant::now(), |(name, _), head| *name == self.name && head.digest == digest);
        tags.extend(keys.iter().map(|(_, tag)| tag.clone()));
        let bytes = fetched.bytes.clone();
        match registry.keep_manifest(&self.name, &upstream.name, bytes, &fetched.media_type, &digest, tags).await {
            Ok(()) => keys.iter().for_each(|key| upstream.seen.forget(key)),
            Err(RegistryError::Manifest(error)) => return Err(upstream.bad(error)),
            // The client has its manifest all the same.
            Err(error) => not_kept(&upstream.name, &self.name, &error),
        }
        Ok(())
    }

    fn remote(&self) -> Remote {
        self.upstream.remote(&self.remote)
    }

    fn what(&self, reference: &Reference) -> String {
        let sign = if matches!(reference, Reference::Tag(_)) { ':' } else { '@' };
        format!("image {}{sign}{reference}", self.remote)
    }

    fn no_manifest(&self, reference: &Reference) -> UpstreamError {
        Upstream::absence(&self.upstream, self.what(reference))
    }
}

fn known<T>(found: Result<Option<T>, ClientError>, what: &str) -> Result<T, ClientError> {
    found?.ok_or_else(|| ClientError::NotFound { host: String::new(), what: what.to_owned() })
}

fn head_of(record: &ManifestRecord) -> ManifestHead {
    let size = Some(record.bytes.len() as u64);
    ManifestHead { digest: record.digest, media_type: record.media_type.clone(), size }
}

/// How long ago something was; a clock that went backwards does not make it younger than nothing.
fn age(at: Timestamp) -> Duration {
    Duration::from_millis(now().millis_since(at).unsigned_abs())
}
