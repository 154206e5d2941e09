//! The registries that are pulled through this one, from their configuration.

use config::{ServerSpec, Upstream};
use oci::client::Auth;
use registry::upstream::{UpstreamOptions, Upstreams};

use crate::OpenError;

/// Whose names the upstreams' images begin with: nobody else can have these.
pub(crate) fn owners(spec: &ServerSpec) -> Vec<String> {
    let prefixes = configured(spec).iter().filter_map(Upstream::prefix);
    prefixes.map(|prefix| prefix.owner().to_owned()).collect()
}

/// Reads the secrets and certificates of the upstreams. Nothing connects yet.
pub(crate) fn open(spec: &ServerSpec) -> Result<Upstreams, OpenError> {
    let all = configured(spec).iter().map(options).collect::<Result<_, _>>()?;
    let own = spec.listeners.iter().flat_map(|listener| {
        let address = listener.address.to_string();
        listener.hosts.iter().cloned().chain([address])
    });
    Upstreams::open(all, own.collect()).map_err(|error| failed(error.to_string()))
}

fn configured(spec: &ServerSpec) -> &[Upstream] {
    spec.registry.as_ref().map_or(&[], |registry| &registry.upstreams)
}

fn failed(message: String) -> OpenError {
    OpenError::Room { what: "the pull-through cache", message }
}

fn options(upstream: &Upstream) -> Result<UpstreamOptions, OpenError> {
    let name = &upstream.name;
    let (host, plain_http) = upstream.endpoint();
    let host = host.parse().map_err(|error| failed(format!("the upstream {name}: {error}")))?;
    let prefix = upstream.prefix().ok_or_else(|| failed(format!("the upstream {name} needs a prefix")))?;
    let auth = match &upstream.credentials {
        None => Auth::Anonymous,
        Some(credentials) => Auth::Basic { user: credentials.user.clone(), password: credentials.password.resolve()? },
    };
    Ok(UpstreamOptions {
        name: name.clone(),
        host,
        plain_http,
        prefix,
        anonymous: upstream.anonymous,
        allow: upstream.allow.clone(),
        deny: upstream.deny.clone(),
        auth,
        ca: upstream.ca.as_ref().map(|ca| ca.path().to_owned()),
        allow_private: upstream.allow_private,
        revalidate_after: upstream.revalidate_after.duration(),
        stale_for: upstream.stale_for.duration(),
        negative_for: upstream.negative_for.duration(),
        timeout: upstream.timeout.duration(),
        max_blob: upstream.max_blob_bytes,
        reserve: upstream.reserve_pulls,
    })
}
