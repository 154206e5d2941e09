//! Lists: tags, repositories and referrers, page by page.

use model::{Digest, ImageName, Tag};
use reqwest::header::{CONTENT_TYPE, LINK};
use reqwest::{Method, Response, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::exchange::{Ask, whole_body};
use super::session::Session;
use super::{ClientError, Remote, RemoteRegistry};
use crate::media_type::{OCI_INDEX, essence};
use crate::{Descriptor, ManifestKind, parse_manifest};

/// The longest page, in bytes. Some registries send everything on one.
const MAX_PAGE: usize = 32 << 20;
/// The most pages of a list that are followed.
const MAX_PAGES: usize = 20_000;
/// The most referrers of a manifest that are listed.
const MAX_REFERRERS: usize = 10_000;
/// The longest `Link` header that is read, in bytes.
const MAX_LINK: usize = 8 << 10;

/// A page of tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagPage {
    /// The tags; what is no tag by the specification is left out.
    pub tags: Vec<Tag>,
    /// Whether more follow.
    pub more: bool,
}

/// A page of repositories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePage {
    /// The repositories; what is no name by the specification is left out.
    pub names: Vec<ImageName>,
    /// Whether more follow.
    pub more: bool,
}

#[derive(Deserialize)]
struct Tags {
    // Registries send null where there are none.
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Catalog {
    repositories: Option<Vec<String>>,
}

impl Remote {
    /// One page of tags: at most `n`, those after `after`.
    ///
    /// # Errors
    /// When there is no such repository, or the registry does not list it.
    pub async fn tags(&self, after: Option<&str>, n: Option<usize>) -> Result<TagPage, ClientError> {
        let url = page_url(self.url("tags/list")?, after, n);
        let page: (Tags, Option<Url>) = self.session.page(url, self.pull(), &format!("image {}", self.name())).await?;
        Ok(TagPage { tags: readable(page.0.tags), more: page.1.is_some() })
    }

    /// All tags, at most `limit`.
    ///
    /// # Errors
    /// As [`Remote::tags`]; when there are more.
    pub async fn all_tags(&self, limit: usize) -> Result<Vec<Tag>, ClientError> {
        let first = page_url(self.url("tags/list")?, None, Some(1000));
        let what = format!("image {}", self.name());
        self.session.all(first, self.pull(), &what, limit, |page: Tags| readable(page.tags)).await
    }

    /// What refers to the manifest `digest`; only artifacts of `artifact_type` if one is given. Registries without such
    /// lists are asked for the fallback tag.
    ///
    /// # Errors
    /// When the registry does not say.
    pub async fn referrers(
        &self,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>, ClientError> {
        let mut found = match self.listed_referrers(digest, artifact_type).await? {
            Some(found) => found,
            None => self.tagged_referrers(digest).await?,
        };
        found.truncate(MAX_REFERRERS);
        if let Some(wanted) = artifact_type {
            found.retain(|entry| entry.artifact_type.as_deref() == Some(wanted));
        }
        Ok(found)
    }

    /// By the registry's own list; nothing if it keeps none.
    async fn listed_referrers(
        &self,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Option<Vec<Descriptor>>, ClientError> {
        let mut url = self.url(&format!("referrers/{digest}"))?;
        if let Some(artifact_type) = artifact_type {
            url.query_pairs_mut().append_pair("artifactType", artifact_type);
        }
        let mut found = Vec::new();
        for _ in 0..MAX_PAGES {
            let response = self.session.send(&Ask::new(Method::GET, url.clone(), self.pull())).await?;
            let status = response.status().as_u16();
            let sent_as =
                response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
            // Registries that do not know the route answer as they answer any such route, some with a page for people.
            if matches!(status, 400 | 404 | 405 | 501) || (status == 200 && essence(sent_as) != OCI_INDEX) {
                return Ok(None);
            }
            if status != 200 {
                return Err(self.session.failure(&format!("referrers of {digest}"), response).await);
            }
            let next = self.session.next_page(&url, &response)?;
            let bytes = self.session.body(response).await?;
            let index: ManifestPage = serde_json::from_slice(&bytes)
                .map_err(|error| ClientError::protocol(self.host(), format!("a list of referrers: {error}")))?;
            found.extend(index.manifests);
            match next {
                Some(next) if found.len() < MAX_REFERRERS => url = next,
                _ => return Ok(Some(found)),
            }
        }
        Err(ClientError::protocol(self.host(), format!("more than {MAX_PAGES} pages")))
    }

    async fn tagged_referrers(&self, digest: &Digest) -> Result<Vec<Descriptor>, ClientError> {
        let found = match self.manifest(&Self::fallback_tag(digest)?, &[OCI_INDEX]).await {
            Ok(found) => found,
            Err(ClientError::NotFound { .. }) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        // Anybody may have pushed anything under that tag.
        match parse_manifest(&found.bytes, &found.media_type) {
            Ok(ManifestKind::Index(index)) => Ok(index.manifests),
            _ => Ok(Vec::new()),
        }
    }
}

/// A page of referrers has the shape of an index, but may be longer than a manifest.
#[derive(Deserialize, Serialize)]
struct ManifestPage {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

impl RemoteRegistry {
    /// One page of repositories: at most `n`, those after `after`.
    ///
    /// # Errors
    /// When the registry keeps no catalog, or does not show it to us.
    pub async fn catalog(&self, after: Option<&str>, n: Option<usize>) -> Result<NamePage, ClientError> {
        let url = page_url(self.session.url("_catalog")?, after, n);
        let page: (Catalog, Option<Url>) = self.session.page(url, catalog_scope(), "catalog").await?;
        Ok(NamePage { names: readable(page.0.repositories), more: page.1.is_some() })
    }

    /// All repositories, at most `limit`.
    ///
    /// # Errors
    /// As [`RemoteRegistry::catalog`]; when there are more.
    pub async fn all_repositories(&self, limit: usize) -> Result<Vec<ImageName>, ClientError> {
        let first = page_url(self.session.url("_catalog")?, None, Some(1000));
        let read = |page: Catalog| readable(page.repositories);
        self.session.all(first, catalog_scope(), "catalog", limit, read).await
    }
}

impl Session {
    async fn page<T: DeserializeOwned>(
        &self,
        url: Url,
        scopes: Vec<String>,
        what: &str,
    ) -> Result<(T, Option<Url>), ClientError> {
        let response = self.send(&Ask::new(Method::GET, url.clone(), scopes)).await?;
        if !response.status().is_success() {
            return Err(self.failure(what, response).await);
        }
        let next = self.next_page(&url, &response)?;
        let bytes = self.body(response).await?;
        let page = serde_json::from_slice(&bytes)
            .map_err(|error| ClientError::protocol(&self.host, format!("the list of {what}: {error}")))?;
        Ok((page, next))
    }

    async fn all<P: DeserializeOwned, T: Ord>(
        &self,
        first: Url,
        scopes: Vec<String>,
        what: &str,
        limit: usize,
        read: impl Fn(P) -> Vec<T>,
    ) -> Result<Vec<T>, ClientError> {
        let mut all: Vec<T> = Vec::new();
        let mut url = first;
        for _ in 0..MAX_PAGES {
            let (page, next) = self.page(url.clone(), scopes.clone(), what).await?;
            all.extend(read(page));
            if all.len() > limit {
                return Err(ClientError::protocol(
                    &self.host,
                    format!("more than {limit} entries in the list of {what}"),
                ));
            }
            match next {
                // A page that leads to itself would never end.
                Some(next) if next != url => url = next,
                _ => {
                    all.sort();
                    all.dedup();
                    return Ok(all);
                }
            }
        }
        Err(ClientError::protocol(&self.host, format!("more than {MAX_PAGES} pages in the list of {what}")))
    }

    async fn body(&self, response: Response) -> Result<bytes::Bytes, ClientError> {
        whole_body(self.host.as_str(), self.client.options().read_timeout, response, MAX_PAGE).await
    }

    /// The next page, by `Link: <…>; rel="next"`. It must be of the same list.
    fn next_page(&self, url: &Url, response: &Response) -> Result<Option<Url>, ClientError> {
        let Some(value) = response.headers().get(LINK) else { return Ok(None) };
        let text = value.to_str().unwrap_or_default();
        let Some(target) = next_link(text) else { return Ok(None) };
        let bad = |why: &str| ClientError::protocol(&self.host, format!("a Link to the next page {why}"));
        let target = url.join(target).map_err(|_| bad("is not a URL"))?;
        // Front proxies that end TLS are not always known to the registry, which then writes its own idea of its name.
        // Only the query says where the page begins.
        if target.path() != url.path() {
            return Err(bad("leads elsewhere"));
        }
        let mut next = url.clone();
        next.set_query(target.query());
        Ok(Some(next))
    }
}

pub(super) fn next_link(text: &str) -> Option<&str> {
    if text.len() > MAX_LINK {
        return None;
    }
    text.split(',').find_map(|link| {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = |parameter: &str| {
            let (key, value) = parameter.split_once('=').unwrap_or_default();
            key.trim().eq_ignore_ascii_case("rel") && value.trim().trim_matches('"').eq_ignore_ascii_case("next")
        };
        parameters.split(';').any(is_next).then_some(target)
    })
}

fn page_url(mut url: Url, after: Option<&str>, n: Option<usize>) -> Url {
    if let Some(n) = n {
        url.query_pairs_mut().append_pair("n", &n.to_string());
    }
    if let Some(after) = after {
        url.query_pairs_mut().append_pair("last", after);
    }
    url
}

fn readable<T: std::str::FromStr>(texts: Option<Vec<String>>) -> Vec<T> {
    texts.unwrap_or_default().iter().filter_map(|text| text.parse().ok()).collect()
}

fn catalog_scope() -> Vec<String> {
    vec!["registry:catalog:*".to_owned()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links() {
        assert_eq!(next_link(r#"</v2/a/tags/list?last=x&n=5>; rel="next""#), Some("/v2/a/tags/list?last=x&n=5"));
        assert_eq!(next_link(r#"</p>; rel="prev", </n?last=b>;rel=next"#), Some("/n?last=b"));
        for none in ["", "<", "</x>", "</x>; rel=prev", &format!("<{}>; rel=next", "a".repeat(MAX_LINK))] {
            assert_eq!(next_link(none), None, "{none}");
        }
    }
}
