//! What a request is for, as far as its path tells: the word under which it is counted and logged.

/// A kind of route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `/v2/`
    Base,
    /// `/v2/_catalog`
    Catalog,
    /// `/v2/NAME/tags/list`
    Tags,
    /// `/v2/NAME/referrers/DIGEST`
    Referrers,
    /// `/v2/NAME/manifests/REFERENCE`
    Manifest,
    /// `/v2/NAME/blobs/DIGEST`
    Blob,
    /// `/v2/NAME/blobs/uploads/…`
    Upload,
    /// The registry's token endpoint.
    Token,
    /// Git over HTTP.
    Git,
    /// Our own API.
    Api,
    /// `/livez` and `/readyz`
    Health,
    /// Anything else; mostly answered with 404.
    Other,
}

impl Kind {
    /// All of them, in the order of their numbers.
    pub(crate) const ALL: [Self; 12] = [
        Self::Base,
        Self::Catalog,
        Self::Tags,
        Self::Referrers,
        Self::Manifest,
        Self::Blob,
        Self::Upload,
        Self::Token,
        Self::Git,
        Self::Api,
        Self::Health,
        Self::Other,
    ];

    /// The kind of a path.
    pub(crate) fn of(path: &str) -> Self {
        if let Some(rest) = path.strip_prefix("/v2") {
            return Self::of_registry(rest);
        }
        match path {
            "/livez" | "/readyz" => Self::Health,
            registry::http::TOKEN_PATH => Self::Token,
            _ if path.starts_with("/towpath/v1/") => Self::Api,
            _ if ["/info/refs", "/git-upload-pack", "/git-receive-pack"].iter().any(|end| path.ends_with(end)) => {
                Self::Git
            }
            _ => Self::Other,
        }
    }

    /// Names hold slashes, so it is read from its end.
    fn of_registry(rest: &str) -> Self {
        let mut parts = rest.rsplit('/');
        let (last, second, third) = (parts.next(), parts.next(), parts.next());
        match (third, second, last) {
            (None, None, Some("")) | (None, Some(""), Some("")) => Self::Base,
            (None, Some(""), Some("_catalog")) => Self::Catalog,
            (Some(_), Some("tags"), Some("list")) => Self::Tags,
            (_, Some("blobs"), Some("uploads")) | (Some("blobs"), Some("uploads"), _) => Self::Upload,
            (Some(_), Some("blobs"), _) => Self::Blob,
            (Some(_), Some("manifests"), _) => Self::Manifest,
            (Some(_), Some("referrers"), _) => Self::Referrers,
            _ => Self::Other,
        }
    }

    /// The word for it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Catalog => "catalog",
            Self::Tags => "tags",
            Self::Referrers => "referrers",
            Self::Manifest => "manifest",
            Self::Blob => "blob",
            Self::Upload => "upload",
            Self::Token => "token",
            Self::Git => "git",
            Self::Api => "api",
            Self::Health => "health",
            Self::Other => "other",
        }
    }

    /// Whether errors are answered in the form of the distribution specification.
    pub(crate) const fn is_registry(self) -> bool {
        (self as usize) < (Self::Git as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_what_it_is_for() {
        for (path, kind) in [
            ("/v2", Kind::Base),
            ("/v2/", Kind::Base),
            ("/v2/_catalog", Kind::Catalog),
            ("/v2/a/tags/list", Kind::Tags),
            ("/v2/a/b/c/referrers/sha256:0", Kind::Referrers),
            ("/v2/a/b/manifests/latest", Kind::Manifest),
            ("/v2/a/b/blobs/sha256:0", Kind::Blob),
            ("/v2/a/b/blobs/uploads", Kind::Upload),
            ("/v2/a/b/blobs/uploads/", Kind::Upload),
            ("/v2/a/b/blobs/uploads/12", Kind::Upload),
            ("/towpath/v1/registry/token", Kind::Token),
            ("/towpath/v1/runs/1", Kind::Api),
            ("/o/r.git/info/refs", Kind::Git),
            ("/o/r.git/git-receive-pack", Kind::Git),
            ("/readyz", Kind::Health),
            ("/v2/nothing", Kind::Other),
            ("/", Kind::Other),
            ("*", Kind::Other),
        ] {
            assert_eq!(Kind::of(path), kind, "{path}");
        }
        assert!(Kind::ALL.iter().enumerate().all(|(number, kind)| *kind as usize == number));
    }
}
