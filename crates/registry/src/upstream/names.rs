//! Which image of which upstream a name stands for.

use std::sync::Arc;

use model::ImageName;

use crate::upstream::{Upstream, UpstreamError, UpstreamOptions, UpstreamState};

/// Marks the requests of a listener on which every name is one of this upstream, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerUpstream(pub Arc<str>);

/// What docker calls its registry, and where official images have no owner.
const DOCKER: &str = "docker.io";

/// Other names of docker's registry.
const DOCKER_ALIASES: &[&str] = &["index.docker.io", "registry-1.docker.io"];

/// Whose images official ones of docker are.
const LIBRARY: &str = "library";

/// All upstreams of a registry. Clones share everything.
#[derive(Clone, Debug, Default)]
pub struct Upstreams(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    all: Vec<Arc<Upstream>>,
    /// Names that this registry has itself, `host` or `host:port`.
    own: Vec<String>,
}

/// Why the upstreams cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the upstream {name}: {why}")]
pub struct UpstreamsError {
    name: String,
    why: String,
}

/// How a client says which registry it means, besides the path.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Meant<'a> {
    /// `?ns=`: the registry whose mirror the client takes us for.
    pub namespace: Option<&'a str>,
    /// The `Host` of the request.
    pub host: Option<&'a str>,
    /// The upstream that the listener stands for.
    pub listener: Option<&'a str>,
}

/// An image of an upstream.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(super) upstream: Arc<Upstream>,
    /// Its name here, with the prefix.
    pub(super) name: ImageName,
    /// Its name there.
    pub(super) remote: ImageName,
}

impl Place {
    /// Where it comes from.
    pub const fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// Whether the configuration lets this image pass.
    pub fn permitted(&self) -> Result<(), UpstreamError> {
        let options = &self.upstream.options;
        let allowed = options.allow.is_empty() || options.allow.iter().any(|pattern| pattern.matches(&self.remote));
        if allowed && !options.deny.iter().any(|pattern| pattern.matches(&self.remote)) {
            return Ok(());
        }
        Err(UpstreamError::NotAllowed { upstream: self.upstream.name(), image: self.remote.to_string() })
    }
}

impl Upstreams {
    /// Upstreams that connect when they are first asked. `own` are the names (`host` or `host:port`) that this registry
    /// answers to itself.
    ///
    /// # Errors
    /// When one cannot be used as it is configured, such as when its certificates cannot be read.
    pub fn open(all: Vec<UpstreamOptions>, own: Vec<String>) -> Result<Self, UpstreamsError> {
        let open = |options: UpstreamOptions| {
            let name = options.name.clone();
            Upstream::new(options).map(Arc::new).map_err(|error| UpstreamsError { name, why: error.to_string() })
        };
        let all = all.into_iter().map(open).collect::<Result<_, _>>()?;
        Ok(Self(Arc::new(Inner { all, own })))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.all.is_empty()
    }

    /// How each of them is.
    pub fn states(&self) -> Vec<UpstreamState> {
        self.0.all.iter().map(|upstream| upstream.state()).collect()
    }

    fn named(&self, name: &str) -> Option<&Arc<Upstream>> {
        let name = if DOCKER_ALIASES.contains(&name) { DOCKER } else { name };
        self.0.all.iter().find(|upstream| &*upstream.name == name)
    }

    /// The name that an image has here. Nothing if the client means a registry that is not passed on.
    pub(crate) fn local_name(&self, image: ImageName, meant: &Meant<'_>) -> Option<ImageName> {
        if self.is_empty() {
            return Some(image);
        }
        let is_own = |name: &&str| Some(*name) == meant.host || self.0.own.iter().any(|own| own == name);
        let named = meant.namespace.filter(|name| !is_own(name)).or(meant.listener);
        let Some(named) = named else {
            return match self.under_prefix(&image) {
                Some((upstream, remote)) => upstream.local(remote),
                None => Some(image),
            };
        };
        self.named(named)?.local(image.as_str())
    }

    /// The image of an upstream that a name stands for here.
    pub(crate) fn place(&self, image: &ImageName) -> Option<Place> {
        let (upstream, remote) = self.under_prefix(image)?;
        let remote = remote.parse().ok()?;
        Some(Place { upstream: Arc::clone(upstream), name: image.clone(), remote })
    }

    fn under_prefix<'a>(&self, image: &'a ImageName) -> Option<(&Arc<Upstream>, &'a str)> {
        self.0.all.iter().find_map(|upstream| {
            let rest = image.as_str().strip_prefix(upstream.options.prefix.as_str())?;
            Some((upstream, rest.strip_prefix('/')?))
        })
    }
}

impl Upstream {
    /// The name here of what is `remote` there. Nothing if that is too long.
    fn local(&self, remote: &str) -> Option<ImageName> {
        let official = &*self.name == DOCKER && !remote.contains('/');
        let library = if official { format!("{LIBRARY}/") } else { String::new() };
        format!("{}/{library}{remote}", self.options.prefix).parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn options(name: &str, prefix: &str) -> UpstreamOptions {
        UpstreamOptions {
            name: name.to_owned(),
            host: name.parse().unwrap(),
            plain_http: false,
            prefix: prefix.parse().unwrap(),
            anonymous: false,
            allow: vec!["library/*".parse().unwrap(), "acme/**".parse().unwrap()],
            deny: vec!["acme/secret*".parse().unwrap()],
            auth: oci::client::Auth::Anonymous,
            ca: None,
            allow_private: false,
            revalidate_after: Duration::from_secs(300),
            stale_for: Duration::MAX,
            negative_for: Duration::from_secs(30),
            timeout: Duration::from_secs(10),
            max_blob: u64::MAX,
            reserve: 0,
        }
    }

    fn upstreams() -> Upstreams {
        let all = vec![options("docker.io", "docker.io"), options("quay.io", "mirrors/quay")];
        Upstreams::open(all, vec!["registry.example".to_owned()]).unwrap()
    }

    fn local(image: &str, meant: Meant<'_>) -> Option<String> {
        upstreams().local_name(image.parse().unwrap(), &meant).map(|name| name.to_string())
    }

    #[test]
    fn a_name_is_what_the_client_means() {
        let none = Meant::default();
        let of = |namespace| Meant { namespace: Some(namespace), host: Some("127.0.0.1:7080"), listener: None };
        let at = |listener| Meant { listener: Some(listener), ..none };
        for (image, meant, wanted) in [
            ("alice/site", none, Some("alice/site")),
            ("docker.io/alpine", none, Some("docker.io/library/alpine")),
            ("docker.io/library/alpine", none, Some("docker.io/library/alpine")),
            ("docker.io/acme/a/b", none, Some("docker.io/acme/a/b")),
            ("docker.iox/alpine", none, Some("docker.iox/alpine")),
            ("mirrors/quay/alpine", none, Some("mirrors/quay/alpine")),
            ("library/alpine", of("docker.io"), Some("docker.io/library/alpine")),
            ("alpine", of("index.docker.io"), Some("docker.io/library/alpine")),
            ("acme/a", of("quay.io"), Some("mirrors/quay/acme/a")),
            ("alice/site", of("127.0.0.1:7080"), Some("alice/site")),
            ("alice/site", of("registry.example"), Some("alice/site")),
            ("alice/site", of("evil.example"), None),
            ("alpine", at("docker.io"), Some("docker.io/library/alpine")),
            ("docker.io/alpine", at("docker.io"), Some("docker.io/docker.io/alpine")),
            ("acme/a", Meant { namespace: Some("quay.io"), ..at("docker.io") }, Some("mirrors/quay/acme/a")),
        ] {
            assert_eq!(local(image, meant).as_deref(), wanted, "{image} {meant:?}");
        }
        let nothing = Upstreams::default();
        assert!(nothing.local_name("a".parse().unwrap(), &of("evil.example")).is_some());
    }

    #[test]
    fn patterns_are_over_the_names_there() {
        let permitted = |name: &str| upstreams().place(&name.parse().unwrap()).map(|place| place.permitted().is_ok());
        assert_eq!(permitted("docker.io/library/alpine"), Some(true));
        assert_eq!(permitted("docker.io/acme/a/b"), Some(true));
        assert_eq!(permitted("docker.io/acme/secrets"), Some(false));
        assert_eq!(permitted("docker.io/other/a"), Some(false));
        assert_eq!(permitted("mirrors/quay/acme/a"), Some(true));
        assert_eq!(permitted("docker.io"), None);
        assert_eq!(permitted("alice/site"), None);
    }
}
