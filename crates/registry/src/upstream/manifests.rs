//! Manifests of an upstream: by digest for ever, by tag for a while.

use std::time::Duration;

use model::{Digest, Tag, Timestamp};
use oci::Reference;
use oci::client::{ClientError, FetchedManifest, ManifestHead, Remote};

use crate::upstream::heads::{Known, Said};
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

    /// A manifest that is here and the image's, or can be made the image's.
    async fn here(&self, registry: &Registry, digest: &Digest) -> Result<Option<ManifestRecord>, RegistryError> {
        let reference = Reference::Digest(*digest);
        if let Some(record) = registry.manifest(&self.name, &reference).await? {
            return Ok(Some(record));
        }
        if registry.adopt_manifest((&self.name, &self.upstream.name), digest, self.said_for()).await? {
            return registry.manifest(&self.name, &reference).await;
        }
        Ok(None)
    }

    async fn manifest_by_digest(&self, registry: &Registry, digest: &Digest) -> Answer<ManifestRecord> {
        if let Some(record) = self.here(registry, digest).await? {
            return Ok((record, Freshness::Hit));
        }
        self.fetch(registry, Reference::Digest(*digest)).await
    }

    async fn manifest_by_tag(&self, registry: &Registry, tag: &Tag) -> Answer<ManifestRecord> {
        let known = registry.known_tag(&self.name, &self.upstream.name, tag).await?;
        if let Some(record) = self.fresh(registry, tag, known.tag).await? {
            return Ok((record, Freshness::Hit));
        }
        let answer = match (self.seen(known.said.as_ref()), known.tag) {
            // A client looks at the tag and then asks for it: what it saw is what it gets.
            (Some(head), _) => self.manifest_by_digest(registry, &head.digest).await,
            (None, Some(cached)) => self.renewed(registry, tag, cached).await,
            (None, None) => self.fetch(registry, Reference::Tag(tag.clone())).await,
        };
        self.or_stale(registry, &known, answer).await
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
        let head = self.ask_head(registry, Reference::Tag(tag.clone()), Purpose::Revalidate).await?;
        if let Some(record) = self.here(registry, &head.digest).await? {
            return Ok((record, Freshness::Revalidated));
        }
        tracing::debug!(image = %self.name, %tag, from = %cached.digest, to = %head.digest, "a tag has moved");
        self.fetch(registry, Reference::Digest(head.digest)).await
    }

    /// The old answer in place of none: the youngest whose manifest is here.
    async fn or_stale(
        &self,
        registry: &Registry,
        known: &Known,
        answer: Answer<ManifestRecord>,
    ) -> Answer<ManifestRecord> {
        let Err(error) = answer else { return answer };
        if !error.is_outage() {
            return Err(error);
        }
        let said = known.said.as_ref().map(|said| (said.head.digest, said.checked));
        let tag = known.tag.map(|cached| (cached.digest, cached.checked));
        for (digest, _) in said.into_iter().chain(tag).filter(|(_, checked)| self.is_servable(*checked)) {
            if let Some(record) = self.here(registry, &digest).await? {
                return Ok((record, Freshness::Stale));
            }
        }
        Err(error)
    }

    /// What the upstream said of a manifest that is not here, in place of no answer. It is all that a client needs that
    /// has the manifest from elsewhere; without its length there is no such answer.
    fn or_said(&self, said: Option<Said>, error: UpstreamError) -> Answer<ManifestHead> {
        let said = said.filter(|said| error.is_outage() && said.head.size.is_some() && self.is_servable(said.checked));
        said.map(|said| (said.head, Freshness::Stale)).ok_or(error)
    }

    /// Whether what was confirmed then may be served while the upstream has no answer.
    fn is_servable(&self, checked: Timestamp) -> bool {
        age(checked) < self.upstream.options.stale_for
    }

    async fn head_by_digest(&self, registry: &Registry, digest: &Digest) -> Answer<ManifestHead> {
        if let Some(record) = self.here(registry, digest).await? {
            return Ok((head_of(&record), Freshness::Hit));
        }
        let reference = Reference::Digest(*digest);
        if self.upstream.is_absent(&self.name, &reference.to_string()) {
            return Err(self.no_manifest(&reference));
        }
        let said = registry.said_of(&self.name, &self.upstream.name, digest).await?;
        if let Some(head) = self.seen(said.as_ref()) {
            return Ok((head, Freshness::Hit));
        }
        match self.ask_head(registry, reference, Purpose::Fetch).await {
            Ok(head) => Ok((head, Freshness::Miss)),
            Err(error) => self.or_said(said, error),
        }
    }

    async fn head_by_tag(&self, registry: &Registry, tag: &Tag) -> Answer<ManifestHead> {
        let known = registry.known_tag(&self.name, &self.upstream.name, tag).await?;
        if let Some(record) = self.fresh(registry, tag, known.tag).await? {
            return Ok((head_of(&record), Freshness::Hit));
        }
        if let Some(head) = self.seen(known.said.as_ref()) {
            return Ok((head, Freshness::Hit));
        }
        let purpose = if known.tag.is_some() { Purpose::Revalidate } else { Purpose::Fetch };
        match self.ask_head(registry, Reference::Tag(tag.clone()), purpose).await {
            Ok(head) if known.tag.is_some_and(|cached| cached.digest == head.digest) => {
                Ok((head, Freshness::Revalidated))
            }
            Ok(head) => Ok((head, Freshness::Miss)),
            // What can be pulled comes first, so that a client is told the same by HEAD and by GET.
            Err(error) => match self.or_stale(registry, &known, Err(error)).await {
                Ok((record, freshness)) => Ok((head_of(&record), freshness)),
                Err(error) => self.or_said(known.said, error),
            },
        }
    }

    /// Asks the upstream what a reference stands for, with everybody who wants to know it now, and takes in what it says.
    async fn ask_head(
        &self,
        registry: &Registry,
        reference: Reference,
        purpose: Purpose,
    ) -> Result<ManifestHead, UpstreamError> {
        let (place, registry, key) = (self.clone(), registry.clone(), (self.name.clone(), reference.clone()));
        let work = Box::pin(async move {
            let what = place.what(&reference);
            let remote = place.remote();
            let question = async { known(remote.head_manifest(&reference, Remote::ACCEPT).await, &what) };
            let head = place.upstream.ask(purpose, &what, question).await;
            let head = place.upstream.remember(&place.name, &reference.to_string(), head);
            place.taken_in(&registry, &reference, &head).await;
            head
        });
        let joined = self.upstream.heads.join(key, work).await;
        joined.unwrap_or_else(|| Err(self.upstream.bad("the question was given up")))
    }

    /// Keeps what the upstream said. A client is told it all the same if that fails.
    async fn taken_in(&self, registry: &Registry, reference: &Reference, head: &Result<ManifestHead, UpstreamError>) {
        let upstream = &self.upstream;
        match head {
            Ok(head) => {
                let image = (&self.name, &*upstream.name);
                if let Err(error) = registry.note_head(image, reference, head, self.said_for()).await {
                    not_kept(&upstream.name, &self.name, &error);
                }
            }
            Err(UpstreamError::Absent { .. }) => self.drop_reference(registry, reference).await,
            Err(_) => {}
        }
    }

    /// Forgets what the upstream does not have any more.
    async fn drop_reference(&self, registry: &Registry, reference: &Reference) {
        if let Err(error) = registry.drop_reference(&self.name, reference).await {
            not_kept(&self.upstream.name, &self.name, &error);
        }
    }

    /// For how long what the upstream said may be of use: stale, or in place of a question.
    fn said_for(&self) -> Duration {
        self.upstream.options.stale_for.max(self.upstream.options.revalidate_after)
    }

    /// What the upstream said, if that was a short while ago.
    fn seen(&self, said: Option<&Said>) -> Option<ManifestHead> {
        let fresh = said.filter(|said| age(said.checked) < self.upstream.options.revalidate_after);
        fresh.map(|said| said.head.clone())
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
            let fetched = place.upstream.remember(&place.name, &reference.to_string(), fetched);
            if matches!(fetched, Err(UpstreamError::Absent { .. })) {
                place.drop_reference(&registry, &reference).await;
            }
            let fetched = fetched?;
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
        let tag = reference.tag().cloned();
        let bytes = fetched.bytes.clone();
        match registry.keep_manifest(&self.name, &upstream.name, bytes, &fetched.media_type, &digest, tag).await {
            Ok(()) => {}
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
