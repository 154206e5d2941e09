//! Lists of an upstream: tags and referrers. They are passed on; without the upstream, what is here is all there is.

use model::{Digest, Tag};
use oci::Descriptor;

use crate::upstream::health::Purpose;
use crate::upstream::{Answer, Freshness, Place};
use crate::{Page, Registry};

/// The most referrers that are listed from the cache.
const MOST_REFERRERS: usize = 500;

impl Place {
    /// At most `limit` tags after `after`.
    ///
    /// # Errors
    /// When the upstream does not say, and nothing of the image is here.
    pub(crate) async fn tags(&self, registry: &Registry, after: Option<&str>, limit: usize) -> Answer<Page<Tag>> {
        let remote = self.upstream.remote(&self.remote);
        let what = format!("image {}", self.remote);
        // Some registries take no page of nothing.
        let asked = self.upstream.ask(Purpose::Fetch, &what, remote.tags(after, Some(limit.max(1)))).await;
        let answer = match asked {
            Ok(page) => {
                let more = page.more || page.tags.len() > limit;
                let entries = page.tags.into_iter().take(limit).collect();
                Ok((Page { entries, more }, Freshness::Miss))
            }
            Err(error) if error.is_outage() => match registry.tags(&self.name, after, limit).await? {
                Some(page) => {
                    let entries = page.entries.into_iter().map(|(tag, _)| tag).collect();
                    Ok((Page { entries, more: page.more }, Freshness::Stale))
                }
                None => Err(error),
            },
            Err(error) => Err(error),
        };
        self.upstream.counted(answer)
    }

    /// What refers to a manifest of the image.
    ///
    /// # Errors
    /// When this registry fails.
    pub(crate) async fn referrers(
        &self,
        registry: &Registry,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Answer<Vec<Descriptor>> {
        let remote = self.upstream.remote(&self.remote);
        let what = format!("referrers of {subject} in {}", self.remote);
        let asked = self.upstream.ask(Purpose::Fetch, &what, remote.referrers(subject, artifact_type)).await;
        let answer = match asked {
            Ok(found) => Ok((found, Freshness::Miss)),
            Err(error) if error.is_outage() => {
                let page = registry.referrers(&self.name, subject, artifact_type, None, MOST_REFERRERS).await?;
                Ok((page.entries.into_iter().map(Descriptor::from).collect(), Freshness::Stale))
            }
            Err(error) => Err(error),
        };
        self.upstream.counted(answer)
    }
}
