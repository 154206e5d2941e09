//! Paths below `/v2`, parsed once.

use http::Method;
use model::{Digest, ImageName};
use percent_encoding::percent_decode_str;

use crate::Reference;
use crate::http::failure::Failure;

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// `/v2/`
    Base,
    /// `/v2/_catalog`
    Catalog,
    /// `/v2/NAME/tags/list`
    Tags { image: ImageName },
    /// `/v2/NAME/referrers/DIGEST`
    Referrers { image: ImageName, digest: Digest },
    /// `/v2/NAME/manifests/REFERENCE`
    Manifest { image: ImageName, reference: Reference },
    /// `/v2/NAME/blobs/DIGEST`
    Blob { image: ImageName, digest: Digest },
    /// `/v2/NAME/blobs/uploads/`
    NewUpload { image: ImageName },
    /// `/v2/NAME/blobs/uploads/ID`
    Upload { image: ImageName, id: String },
}

impl Route {
    /// Reads a path. Names hold slashes, so it is read from its end: what stands before the last known word is the name.
    ///
    /// What cannot be a tag is an error only to who writes it: to anybody else there is no such manifest.
    pub fn parse(method: &Method, path: &str) -> Result<Self, Failure> {
        let rest = path.strip_prefix("/v2").ok_or_else(Failure::no_such_path)?;
        let rest = rest.strip_prefix('/').unwrap_or(rest);
        if rest.is_empty() {
            return Ok(Self::Base);
        }
        if rest == "_catalog" {
            return Ok(Self::Catalog);
        }
        let parts = rest.split('/').map(decoded).collect::<Result<Vec<String>, Failure>>()?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match parts.as_slice() {
            [name @ .., "tags", "list"] => Ok(Self::Tags { image: image(name)? }),
            [name @ .., "blobs", "uploads"] | [name @ .., "blobs", "uploads", ""] => {
                Ok(Self::NewUpload { image: image(name)? })
            }
            [name @ .., "blobs", "uploads", id] => Ok(Self::Upload { image: image(name)?, id: (*id).to_owned() }),
            [name @ .., "blobs", digest] => Ok(Self::Blob { image: image(name)?, digest: digest_of(digest)? }),
            [name @ .., "referrers", digest] => Ok(Self::Referrers { image: image(name)?, digest: digest_of(digest)? }),
            [name @ .., "manifests", reference] => {
                let image = image(name)?;
                let reference = reference.parse().map_err(|error| match reference.contains(':') {
                    true => Failure::digest(error),
                    false if method == Method::PUT => Failure::manifest(error),
                    false => Failure::no_such_tag(error),
                })?;
                Ok(Self::Manifest { image, reference })
            }
            _ => Err(Failure::no_such_path()),
        }
    }

    /// The image that it is about.
    pub const fn image(&self) -> Option<&ImageName> {
        match self {
            Self::Base | Self::Catalog => None,
            Self::Tags { image }
            | Self::Referrers { image, .. }
            | Self::Manifest { image, .. }
            | Self::Blob { image, .. }
            | Self::NewUpload { image }
            | Self::Upload { image, .. } => Some(image),
        }
    }

    /// The same about the image that `name` makes of its own.
    pub fn try_map_image<E>(mut self, name: impl FnOnce(ImageName) -> Result<ImageName, E>) -> Result<Self, E> {
        match &mut self {
            Self::Base | Self::Catalog => {}
            Self::Tags { image }
            | Self::Referrers { image, .. }
            | Self::Manifest { image, .. }
            | Self::Blob { image, .. }
            | Self::NewUpload { image }
            | Self::Upload { image, .. } => *image = name(image.clone())?,
        }
        Ok(self)
    }

    /// The methods that it knows, for the `Allow` header.
    pub const fn methods(&self) -> &'static str {
        match self {
            Self::Base | Self::Catalog | Self::Tags { .. } | Self::Referrers { .. } => "GET, HEAD",
            Self::Manifest { .. } => "GET, HEAD, PUT, DELETE",
            Self::Blob { .. } => "GET, HEAD, DELETE",
            Self::NewUpload { .. } => "POST",
            Self::Upload { .. } => "GET, HEAD, PATCH, PUT, DELETE",
        }
    }
}

/// One component. What decodes to a slash was never one.
fn decoded(part: &str) -> Result<String, Failure> {
    let text = percent_decode_str(part).decode_utf8().map_err(|_| Failure::no_such_path())?;
    if text.contains('/') { Err(Failure::no_such_path()) } else { Ok(text.into_owned()) }
}

fn image(parts: &[&str]) -> Result<ImageName, Failure> {
    parts.join("/").parse().map_err(Failure::name)
}

fn digest_of(text: &str) -> Result<Digest, Failure> {
    text.parse().map_err(Failure::digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn name(text: &str) -> ImageName {
        text.parse().unwrap()
    }

    #[test]
    fn names_with_slashes_and_words_of_the_protocol() {
        let digest: Digest = format!("sha256:{HEX}").parse().unwrap();
        let tag = |text: &str| Reference::Tag(text.parse().unwrap());
        for (path, wanted) in [
            ("/v2", Route::Base),
            ("/v2/", Route::Base),
            ("/v2/_catalog", Route::Catalog),
            ("/v2/a/b/c/tags/list", Route::Tags { image: name("a/b/c") }),
            ("/v2/a/blobs/uploads", Route::NewUpload { image: name("a") }),
            ("/v2/a/blobs/uploads/", Route::NewUpload { image: name("a") }),
            ("/v2/a/blobs/uploads/x", Route::Upload { image: name("a"), id: "x".into() }),
            ("/v2/a/manifests/latest", Route::Manifest { image: name("a"), reference: tag("latest") }),
            (
                "/v2/a/blobs/uploads/manifests/v1",
                Route::Manifest { image: name("a/blobs/uploads"), reference: tag("v1") },
            ),
            ("/v2/tags/list/tags/list", Route::Tags { image: name("tags/list") }),
        ] {
            assert_eq!(Route::parse(&Method::GET, path).ok(), Some(wanted), "{path}");
        }
        let path = format!("/v2/a/blobs/sha256%3A{HEX}");
        assert_eq!(Route::parse(&Method::GET, &path).ok(), Some(Route::Blob { image: name("a"), digest }));
    }

    #[test]
    fn hostile_paths() {
        for path in [
            "/v2/../etc/passwd",
            "/v2/../../manifests/latest",
            "/v2/a/..%2f..%2fb/manifests/latest",
            "/v2/%2e%2e/manifests/latest",
            "/v2/A/manifests/latest",
            "/v2//manifests/latest",
            "/v2/manifests/latest",
            "/v2/a/manifests/..",
            "/v2/a/manifests/-x",
            "/v2/a/manifests/sha256:../../x",
            "/v2/a/manifests/%00",
            "/v2/a/blobs/latest",
            "/v2/a/blobs/sha256:ABC",
            "/v2/a/blobs/md5:d41d8cd98f00b204e9800998ecf8427e",
            "/v2/a/referrers/latest",
            "/v2/a/tags/list/",
            "/v2/a",
            "/v2x",
            "/v2/%ff/manifests/x",
        ] {
            assert!(Route::parse(&Method::GET, path).is_err(), "{path}");
        }
        let long = format!("/v2/{}/manifests/x", "a/".repeat(200));
        assert!(Route::parse(&Method::GET, &long).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(path in ".*") {
            let _ = Route::parse(&Method::PUT, &format!("/v2/{path}"));
        }
    }
}
