//! Manifests: raw bytes with their digest.

use bytes::Bytes;
use model::{Algorithm, Digest, Tag};
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Response};

use super::exchange::{Ask, Body, whole_body};
use super::{ClientError, Remote};
use crate::media_type::{self, DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use crate::{
    Descriptor, Index, MAX_MANIFEST, ManifestError, ManifestKind, Reference, digest_of, guess_media_type,
    parse_manifest,
};

/// A manifest as a registry sent it, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedManifest {
    /// The digest of the bytes, computed here.
    pub digest: Digest,
    /// What it was sent as.
    pub media_type: String,
    /// The bytes.
    pub bytes: Bytes,
}

impl FetchedManifest {
    /// What the bytes say.
    ///
    /// # Errors
    /// When they are not a manifest of their media type.
    pub fn parse(&self) -> Result<ManifestKind, ManifestError> {
        parse_manifest(&self.bytes, &self.media_type)
    }

    /// A descriptor of it.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(&self.media_type, self.digest, self.bytes.len() as u64)
    }
}

/// What a registry says of a manifest without sending it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestHead {
    /// Its digest, which nobody has checked.
    pub digest: Digest,
    /// What it is, if the registry said.
    pub media_type: String,
    /// Its length in bytes, if the registry said.
    pub size: Option<u64>,
}

impl Remote {
    /// The kinds of manifest that are asked for when the caller does not choose.
    pub const ACCEPT: &[&str] = &[OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];

    /// Pulls a manifest; `accept` lists the media types that the registry may answer, [`Remote::ACCEPT`] for any.
    ///
    /// # Errors
    /// When there is none, it is longer than [`MAX_MANIFEST`], or not what its digest says.
    pub async fn manifest(&self, reference: &Reference, accept: &[&str]) -> Result<FetchedManifest, ClientError> {
        let ask = self.ask_manifest(Method::GET, reference, accept)?;
        let response = self.session.send(&ask).await?;
        if !response.status().is_success() {
            return Err(self.session.failure(&self.named(reference), response).await);
        }
        let headers = response.headers().clone();
        let host = self.session.host.as_str();
        let patience = self.session.client.options().read_timeout;
        let bytes = whole_body(host, patience, response, MAX_MANIFEST).await?;
        let said = header_digest(&headers);
        let expected = match reference {
            Reference::Digest(digest) => Some(*digest),
            Reference::Tag(_) => said,
        };
        let algorithm = expected.map_or(Algorithm::Sha256, |digest| digest.algorithm());
        let digest = digest_of(algorithm, &bytes);
        if let Some(expected) = expected.filter(|expected| *expected != digest) {
            let (expected, found) = (Box::new(expected), Box::new(digest));
            return Err(ClientError::DigestMismatch { host: host.to_owned(), expected, found });
        }
        let media_type = content_type(&headers).or_else(|| guess_media_type(&bytes)).unwrap_or_default();
        Ok(FetchedManifest { digest, media_type, bytes })
    }

    /// Asks whether there is a manifest, and which.
    ///
    /// # Errors
    /// When the registry does not say.
    pub async fn head_manifest(
        &self,
        reference: &Reference,
        accept: &[&str],
    ) -> Result<Option<ManifestHead>, ClientError> {
        let ask = self.ask_manifest(Method::HEAD, reference, accept)?;
        let response = self.session.send(&ask).await?;
        if !response.status().is_success() {
            return match self.session.failure(&self.named(reference), response).await {
                ClientError::NotFound { .. } => Ok(None),
                error => Err(error),
            };
        }
        let headers = response.headers();
        let size = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let said = match reference {
            Reference::Digest(digest) => Some(*digest),
            Reference::Tag(_) => header_digest(headers),
        };
        if let Some(digest) = said {
            return Ok(Some(ManifestHead { digest, media_type: content_type(headers).unwrap_or_default(), size }));
        }
        let whole = self.manifest(reference, accept).await?;
        let size = Some(whole.bytes.len() as u64);
        Ok(Some(ManifestHead { digest: whole.digest, media_type: whole.media_type, size }))
    }

    /// Pushes a manifest, byte for byte. If it is about another and the registry keeps no list of referrers, it is
    /// entered under the fallback tag.
    ///
    /// # Errors
    /// When the registry refuses, or has made something else of it.
    pub async fn push_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Digest, ClientError> {
        self.push_at(reference, None, media_type, bytes).await.map(|(digest, _)| digest)
    }

    /// As [`Remote::push_manifest`] by a digest, with a tag in the same request (`?tag=`, which the distribution
    /// specification has after version 1.1). It is the only way to give a tag to a digest that is not of SHA-256. Whether
    /// the tag points to the digest then: registries that do not know of it take the manifest alone.
    ///
    /// # Errors
    /// When the registry refuses the manifest, or has made something else of it.
    pub async fn push_manifest_with_tag(
        &self,
        digest: &Digest,
        tag: &Tag,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<bool, ClientError> {
        let (_, headers) = self.push_at(&Reference::Digest(*digest), Some(tag), media_type, bytes).await?;
        let listed = headers.get_all("oci-tag").iter().filter_map(|value| value.to_str().ok());
        if listed.flat_map(|list| list.split(',')).any(|listed| listed.trim() == tag.as_str()) {
            return Ok(true);
        }
        let stands = self.head_manifest(&Reference::Tag(tag.clone()), Self::ACCEPT).await?;
        Ok(stands.is_some_and(|head| head.digest == *digest))
    }

    async fn push_at(
        &self,
        reference: &Reference,
        tag: Option<&Tag>,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<(Digest, HeaderMap), ClientError> {
        let algorithm = match reference {
            Reference::Digest(digest) => digest.algorithm(),
            Reference::Tag(_) => Algorithm::Sha256,
        };
        let digest = digest_of(algorithm, &bytes);
        let response = self.put_manifest(reference, tag, media_type, bytes.clone()).await?;
        if let Some(said) = header_digest(response.headers()).filter(|said| said.algorithm() == algorithm)
            && said != digest
        {
            let (expected, found) = (Box::new(digest), Box::new(said));
            return Err(ClientError::DigestMismatch { host: self.host().to_string(), expected, found });
        }
        let listed = response.headers().contains_key("oci-subject");
        if !listed
            && let Ok(kind) = parse_manifest(&bytes, media_type)
            && let Some(subject) = kind.subject()
        {
            let mut entry = Descriptor::new(media_type, digest, bytes.len() as u64);
            entry.artifact_type = kind.artifact_type().map(str::to_owned);
            entry.annotations = kind.annotations().cloned();
            self.enter_referrer(&subject.digest, entry).await?;
        }
        Ok((digest, response.headers().clone()))
    }

    /// Takes a manifest (by digest) or, where the registry can do that, a tag away.
    ///
    /// # Errors
    /// When there is none, or the registry refuses.
    pub async fn delete(&self, reference: &Reference) -> Result<(), ClientError> {
        self.erase_at(&format!("manifests/{reference}"), &self.named(reference)).await
    }

    /// Takes a blob away, where the registry can do that.
    ///
    /// # Errors
    /// When there is none, or the registry refuses.
    pub async fn delete_blob(&self, digest: &Digest) -> Result<(), ClientError> {
        self.erase_at(&format!("blobs/{digest}"), &format!("blob {digest}")).await
    }

    async fn erase_at(&self, path: &str, what: &str) -> Result<(), ClientError> {
        let response = self.session.send(&Ask::new(Method::DELETE, self.url(path)?, self.erase())).await?;
        if response.status().is_success() { Ok(()) } else { Err(self.session.failure(what, response).await) }
    }

    async fn put_manifest(
        &self,
        reference: &Reference,
        tag: Option<&Tag>,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Response, ClientError> {
        let content_type = HeaderValue::from_str(media_type)
            .map_err(|_| ClientError::Options(format!("{media_type:?} is not a media type")))?;
        let mut url = self.url(&format!("manifests/{reference}"))?;
        if let Some(tag) = tag {
            url.query_pairs_mut().append_pair("tag", tag.as_str());
        }
        let ask = Ask::new(Method::PUT, url, self.push()).header(CONTENT_TYPE, content_type).body(Body::Bytes(bytes));
        let response = self.session.send(&ask).await?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(self.session.failure(&self.named(reference), response).await)
        }
    }

    /// Enters a referrer under the tag that stands for its subject, by the specification's fallback. Two clients that do
    /// so at the same moment can lose an entry; the specification has no remedy.
    async fn enter_referrer(&self, subject: &Digest, entry: Descriptor) -> Result<(), ClientError> {
        let _alone = self.session.referrers.lock().await;
        let tag = Self::fallback_tag(subject)?;
        let mut index = match self.manifest(&tag, &[OCI_INDEX]).await {
            Ok(found) => match found.parse() {
                Ok(ManifestKind::Index(index)) => *index,
                _ => Index::new(Vec::new()),
            },
            Err(ClientError::NotFound { .. }) => Index::new(Vec::new()),
            Err(error) => return Err(error),
        };
        if index.manifests.iter().any(|known| known.digest == entry.digest) {
            return Ok(());
        }
        index.manifests.push(entry);
        let bytes = serde_json::to_vec(&index).map_err(|error| ClientError::Options(error.to_string()))?;
        self.put_manifest(&tag, None, OCI_INDEX, bytes.into()).await.map(drop)
    }

    /// The tag that stands for the list of referrers of `subject`: `<algorithm>-<hex>`, at most 128 characters.
    pub(super) fn fallback_tag(subject: &Digest) -> Result<Reference, ClientError> {
        let mut tag = format!("{}-{}", subject.algorithm().name(), subject.hex());
        tag.truncate(128);
        tag.parse().map(Reference::Tag).map_err(|error| ClientError::Options(format!("{error}")))
    }

    fn ask_manifest(&self, method: Method, reference: &Reference, accept: &[&str]) -> Result<Ask, ClientError> {
        let accept = HeaderValue::from_str(&accept.join(", "))
            .map_err(|_| ClientError::Options("a media type cannot be sent".to_owned()))?;
        Ok(Ask::new(method, self.url(&format!("manifests/{reference}"))?, self.pull()).header(ACCEPT, accept))
    }

    fn named(&self, reference: &Reference) -> String {
        let sign = if matches!(reference, Reference::Tag(_)) { ':' } else { '@' };
        format!("image {}{sign}{reference}", self.name())
    }
}

fn header_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get("docker-content-digest")?.to_str().ok()?.parse().ok()
}

/// The media type of an answer, if it says more than that it is JSON or text.
fn content_type(headers: &HeaderMap) -> Option<String> {
    let essence = media_type::essence(headers.get(CONTENT_TYPE)?.to_str().ok()?);
    let says_nothing = matches!(essence, "" | "application/json" | "application/octet-stream" | "text/plain");
    (!says_nothing && essence.len() <= 255).then(|| essence.to_owned())
}
