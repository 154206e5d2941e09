//! A client of `/v2`, as far as the demo needs one: pushes one image, and pulls others by digest.

use std::time::Duration;

use model::{Algorithm, Digest};
use oci::media_type::OCI_MANIFEST;
use oci::{Descriptor, ManifestKind};
use reqwest::{Method, Response, StatusCode, header};

use super::base::BaseImage;
use crate::error::Failure;

/// A client that takes no proxy from the environment.
pub(super) fn http() -> Result<reqwest::Client, Failure> {
    let client =
        reqwest::Client::builder().no_proxy().tls_certs_only([]).connect_timeout(Duration::from_secs(10)).build();
    client.map_err(|error| Failure::failed(error.to_string()))
}

/// The registry of a server.
pub(super) struct Registry {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Registry {
    pub(super) fn new(url: &str, token: &str) -> Result<Self, Failure> {
        Ok(Self { http: http()?, url: url.to_owned(), token: token.to_owned() })
    }

    async fn send(&self, method: Method, path: &str, body: Option<(&str, Vec<u8>)>) -> Result<Response, Failure> {
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.url)).bearer_auth(&self.token);
        match body {
            Some((content_type, bytes)) => request = request.header(header::CONTENT_TYPE, content_type).body(bytes),
            None => request = request.header(header::ACCEPT, OCI_MANIFEST),
        }
        let response = request.send().await.map_err(|error| Failure::failed(format!("{method} {path}: {error}")))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let (status, text) = (response.status(), response.text().await.unwrap_or_default());
        Err(Failure::failed(format!("the registry answered {method} {path} with {status}: {text}")))
    }

    /// Pushes an image and gives it a tag.
    ///
    /// # Errors
    /// When the registry does not take it.
    pub(super) async fn push(&self, name: &str, tag: &str, image: BaseImage) -> Result<(), Failure> {
        self.push_blob(name, &image.layer.digest, image.layer.bytes).await?;
        self.push_blob(name, &image.config_digest, image.config).await?;
        let path = format!("/v2/{name}/manifests/{tag}");
        self.send(Method::PUT, &path, Some((OCI_MANIFEST, image.manifest))).await?;
        Ok(())
    }

    async fn push_blob(&self, name: &str, digest: &Digest, bytes: Vec<u8>) -> Result<(), Failure> {
        let path = format!("/v2/{name}/blobs/uploads/");
        let begun = self.send(Method::POST, &path, Some(("application/octet-stream", Vec::new()))).await?;
        let location = begun.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let location =
            location.ok_or_else(|| Failure::failed(format!("the registry began an upload to {name} nowhere")))?;
        let path = location.strip_prefix(&self.url).unwrap_or(location);
        let join = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{join}digest={digest}");
        let done = self.send(Method::PUT, &path, Some(("application/octet-stream", bytes))).await?;
        match done.status() {
            StatusCode::CREATED => Ok(()),
            other => Err(Failure::failed(format!("the registry answered the upload of {digest} with {other}"))),
        }
    }

    /// Pulls an image by the digest of its manifest: every byte must be what its digest says.
    ///
    /// # Errors
    /// When something is missing, or other than it should be.
    pub(super) async fn pull(&self, name: &str, digest: &str) -> Result<(), Failure> {
        let wanted: Digest = digest.parse().map_err(|error| Failure::failed(format!("{digest:?}: {error}")))?;
        let manifest = self.send(Method::GET, &format!("/v2/{name}/manifests/{digest}"), None).await?;
        let bytes = manifest.bytes().await.map_err(|error| Failure::failed(error.to_string()))?;
        same(name, &wanted, &bytes)?;
        let parsed = oci::parse_manifest(&bytes, OCI_MANIFEST);
        let parsed = parsed.map_err(|error| Failure::failed(format!("the manifest {digest} of {name}: {error}")))?;
        let ManifestKind::Image(manifest) = parsed else {
            return Err(Failure::failed(format!("{name}@{digest} is not an image")));
        };
        for Descriptor { digest, .. } in std::iter::once(&manifest.config).chain(&manifest.layers) {
            let blob = self.send(Method::GET, &format!("/v2/{name}/blobs/{digest}"), None).await?;
            let bytes = blob.bytes().await.map_err(|error| Failure::failed(error.to_string()))?;
            same(name, digest, &bytes)?;
        }
        Ok(())
    }
}

fn same(name: &str, wanted: &Digest, bytes: &[u8]) -> Result<(), Failure> {
    let got = oci::digest_of(Algorithm::Sha256, bytes);
    if got == *wanted { Ok(()) } else { Err(Failure::failed(format!("{name}: what should be {wanted} is {got}"))) }
}
