//! Lists: tags, images, referrers.

use access::Action;
use axum::Json;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderName, HeaderValue, header};
use model::{Digest, ImageName};
use oci::{Descriptor, Index, media_type};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use crate::http::failure::Failure;
use crate::http::form::Form;
use crate::http::{RegistryHttp, value};
use crate::{Referrer, RegistryError};

/// The most entries of one answer.
const MAX_ENTRIES: usize = 10_000;

/// The most referrers of one answer: their annotations may be long.
const MAX_REFERRERS: usize = 500;

/// Which filters were heeded.
pub(super) const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");

/// How many entries a client wants, and after which.
pub(super) struct Window<'a> {
    pub limit: usize,
    pub after: Option<&'a str>,
}

pub(super) fn window(query: &Form) -> Result<Window<'_>, Failure> {
    let limit = match query.get("n") {
        Some(text) => {
            let number: u64 = text.parse().map_err(|_| Failure::request(format!("?n={text:.20} is not a number")))?;
            usize::try_from(number).unwrap_or(MAX_ENTRIES).min(MAX_ENTRIES)
        }
        None => MAX_ENTRIES,
    };
    Ok(Window { limit, after: query.get("last") })
}

/// Says where a list goes on.
pub(super) fn link(response: &mut Response, path: &str, limit: usize, last: &str, more: &str) {
    let last = utf8_percent_encode(last, NON_ALPHANUMERIC);
    let text = format!("<{path}?n={limit}&last={last}{more}>; rel=\"next\"");
    response.headers_mut().insert(header::LINK, value(text));
}

impl RegistryHttp {
    pub(super) async fn tags(&self, parts: &Parts, image: &ImageName) -> Result<Response, Failure> {
        self.require(parts, Action::Read, image).await?;
        let query = Form::parse(parts.uri.query().unwrap_or_default());
        let Window { limit, after } = window(&query)?;
        let page = self.registry.tags(image, after, limit).await?;
        let page = page.ok_or_else(|| RegistryError::NameUnknown(image.clone()))?;
        let tags: Vec<&str> = page.entries.iter().map(|(tag, _)| tag.as_str()).collect();
        let mut response = Json(json!({ "name": image, "tags": tags })).into_response();
        if let Some(last) = tags.last().filter(|_| page.more) {
            link(&mut response, &format!("/v2/{image}/tags/list"), limit, last, "");
        }
        Ok(response)
    }

    pub(super) async fn catalog(&self, parts: &Parts) -> Result<Response, Failure> {
        self.require_catalog(parts).await?;
        let query = Form::parse(parts.uri.query().unwrap_or_default());
        let Window { limit, after } = window(&query)?;
        let page = self.registry.images(after, limit).await?;
        let mut response = Json(json!({ "repositories": page.entries })).into_response();
        if let Some(last) = page.entries.last().filter(|_| page.more) {
            link(&mut response, "/v2/_catalog", limit, last.as_str(), "");
        }
        Ok(response)
    }

    pub(super) async fn referrers(
        &self,
        parts: &Parts,
        image: &ImageName,
        subject: &Digest,
    ) -> Result<Response, Failure> {
        self.require(parts, Action::Read, image).await?;
        let query = Form::parse(parts.uri.query().unwrap_or_default());
        let Window { limit, after } = window(&query)?;
        let limit = limit.clamp(1, MAX_REFERRERS);
        let wanted = query.get("artifactType").filter(|text| !text.is_empty());
        let page = self.registry.referrers(image, subject, wanted, after, limit).await?;
        let last = page.entries.last().map(|referrer| referrer.digest.to_string());
        let index = Index::new(page.entries.into_iter().map(Descriptor::from).collect());
        let mut response = Json(index).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type::OCI_INDEX));
        let mut more = String::new();
        if let Some(wanted) = wanted {
            response.headers_mut().insert(FILTERS, HeaderValue::from_static("artifactType"));
            more = format!("&artifactType={}", utf8_percent_encode(wanted, NON_ALPHANUMERIC));
        }
        if let Some(last) = last.filter(|_| page.more) {
            link(&mut response, &format!("/v2/{image}/referrers/{subject}"), limit, &last, &more);
        }
        Ok(response)
    }
}

impl From<Referrer> for Descriptor {
    fn from(referrer: Referrer) -> Self {
        Self {
            artifact_type: referrer.artifact_type,
            annotations: referrer.annotations,
            ..Self::new(referrer.media_type, referrer.digest, referrer.size)
        }
    }
}
