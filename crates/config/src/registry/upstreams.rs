//! Other registries whose images are pulled through this one.

use model::{ImageName, ImagePattern};
use serde::{Deserialize, Serialize};

use crate::listener::AbsoluteFile;
use crate::{SecretRef, Span};

/// A registry whose images are pulled through this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Upstream {
    /// What clients call it, such as `docker.io`, `ghcr.io`, `quay.io` or `registry.k8s.io`.
    pub name: String,
    /// Where it answers, `https://host[:port]`; `https://` and its name without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// What names of its images begin with here; its name without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<ImageName>,
    /// Whether everybody may pull through it, or only who is known here.
    #[serde(default)]
    pub anonymous: bool,
    /// The images that may be pulled, by their names there (`library/*`); all without it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<ImagePattern>,
    /// Images that may not be pulled, whatever `allow` says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<ImagePattern>,
    /// Whom this registry is there; nobody without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<UpstreamCredentials>,
    /// A file of certificates (PEM) that are trusted besides the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<AbsoluteFile>,
    /// Allows a `url` that begins with `http://`.
    #[serde(default)]
    pub insecure_plain_http: bool,
    /// Allows its token server and its blobs to be at private and loopback addresses even if it is not there itself.
    #[serde(default)]
    pub allow_private: bool,
    /// How long a tag is good without asking again.
    #[serde(default = "five_minutes")]
    pub revalidate_after: Span,
    /// How long after it was last confirmed a tag is still served when the upstream gives no answer.
    #[serde(default = "thirty_days")]
    pub stale_for: Span,
    /// How long it is remembered that the upstream does not have something.
    #[serde(default = "half_a_minute")]
    pub negative_for: Span,
    /// How long the upstream may be silent before that counts as no answer.
    #[serde(default = "ten_seconds")]
    pub timeout: Span,
    /// The longest blob that is passed on, in bytes.
    #[serde(default = "a_hundred_gibibytes")]
    pub max_blob_bytes: u64,
    /// How many of the pulls that the upstream says it still allows are kept for what is not here yet.
    #[serde(default = "ten")]
    pub reserve_pulls: u64,
}

/// Whom this registry is at an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpstreamCredentials {
    /// The user.
    pub user: String,
    /// Where the password, or a token in its place, is.
    pub password: SecretRef,
}

const fn five_minutes() -> Span {
    Span::seconds(300)
}

const fn thirty_days() -> Span {
    Span::seconds(30 * 86_400)
}

const fn half_a_minute() -> Span {
    Span::seconds(30)
}

const fn ten_seconds() -> Span {
    Span::seconds(10)
}

const fn a_hundred_gibibytes() -> u64 {
    100 << 30
}

const fn ten() -> u64 {
    10
}

impl Upstream {
    /// Host and port that are asked, and whether without TLS.
    pub fn endpoint(&self) -> (&str, bool) {
        let text = match &self.url {
            Some(url) => url.trim_end_matches('/'),
            None if self.name == "docker.io" => "registry-1.docker.io",
            None => &self.name,
        };
        match text.strip_prefix("http://") {
            Some(host) => (host, true),
            None => (text.strip_prefix("https://").unwrap_or(text), false),
        }
    }

    /// What names of its images begin with here. Nothing if it has none and its name cannot be one.
    pub fn prefix(&self) -> Option<ImageName> {
        self.prefix.clone().or_else(|| self.name.parse().ok())
    }

    fn check(&self) -> Result<(), String> {
        if self.name.is_empty() || self.name.len() > 253 || self.name.contains('/') {
            return Err(format!("name: {:?} is not a registry, such as ghcr.io", self.name));
        }
        if self.prefix().is_none() {
            return Err(format!("prefix: is needed, because no image name can begin with {:?}", self.name));
        }
        let (host, _) = self.endpoint();
        let url = self.url.clone().unwrap_or_else(|| format!("https://{host}"));
        check_url(&url, self.insecure_plain_http)?;
        if self.timeout < Span::seconds(1) || self.timeout > Span::seconds(120) {
            return Err(format!("timeout: {} is not between 1s and 2m", self.timeout));
        }
        if self.max_blob_bytes == 0 {
            return Err("maxBlobBytes: must be at least 1".into());
        }
        Ok(())
    }
}

/// What is wrong with the address of a registry.
pub(super) fn check_url(url: &str, allows_plain: bool) -> Result<(), String> {
    let (host, plain) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(host), _) => (host, false),
        (None, Some(host)) => (host, true),
        (None, None) => ("", false),
    };
    let host = host.trim_end_matches('/');
    if host.is_empty() || host.contains(['/', '?', '#', '@']) {
        return Err("url: expected https://host or https://host:port, without a path and credentials".into());
    }
    if plain && !allows_plain {
        return Err("url: http:// needs insecurePlainHttp: true".into());
    }
    Ok(())
}

pub(super) fn check(all: &[Upstream]) -> Result<(), String> {
    for (index, upstream) in all.iter().enumerate() {
        let place = |why: String| format!("spec.registry.upstreams[{index}].{why}");
        upstream.check().map_err(place)?;
        for other in &all[..index] {
            if other.name == upstream.name {
                return Err(place(format!("name: {} is listed twice", upstream.name)));
            }
            let (Some(one), Some(two)) = (other.prefix(), upstream.prefix()) else { continue };
            if within(&one, &two) || within(&two, &one) {
                return Err(place(format!("prefix: {two} and {one} of {} are one below the other", other.name)));
            }
        }
    }
    Ok(())
}

fn within(name: &ImageName, prefix: &ImageName) -> bool {
    let rest = name.as_str().strip_prefix(prefix.as_str());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use crate::{ServerSpec, parse_server};

    fn parse(upstreams: &str) -> Result<ServerSpec, String> {
        let text = format!(
            "apiVersion: towpath.dev/v1alpha1\nkind: Towpath\nspec: {{registry: {{upstreams: {upstreams}}}}}\n"
        );
        parse_server("towpath.yaml", &text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_name_is_enough() {
        let spec = parse("[{name: docker.io}, {name: ghcr.io}, {name: quay.io}, {name: registry.k8s.io}]").unwrap();
        let upstreams = spec.registry.unwrap().upstreams;
        let endpoints: Vec<_> = upstreams.iter().map(super::Upstream::endpoint).collect();
        let hosts = ["registry-1.docker.io", "ghcr.io", "quay.io", "registry.k8s.io"];
        assert_eq!(endpoints, hosts.map(|host| (host, false)));
        assert_eq!(upstreams[0].prefix().unwrap().as_str(), "docker.io");
        assert_eq!(upstreams[0].revalidate_after.to_string(), "5m");
        assert!(!upstreams[0].anonymous);
    }

    #[test]
    fn refuses_what_cannot_work() {
        for (bad, why) in [
            ("[{name: docker.io}, {name: docker.io}]", "listed twice"),
            ("[{name: docker.io}, {name: quay.io, prefix: docker.io/quay}]", "one below the other"),
            ("[{name: 'localhost:5000'}]", "prefix: is needed"),
            ("[{name: a, url: 'http://a'}]", "insecurePlainHttp"),
            ("[{name: a, url: 'https://a/path'}]", "without a path"),
            ("[{name: a, url: 'https://u:p@a'}]", "without a path and credentials"),
            ("[{name: a, url: 'ftp://a'}]", "expected https://"),
            ("[{name: a, url: a}]", "expected https://"),
            ("[{name: a, timeout: 3m}]", "between 1s and 2m"),
            ("[{name: a, revalidateAfter: soon}]", "not a length of time"),
            ("[{name: a, allow: ['A B']}]", "image pattern"),
            ("[{name: a, credentials: {user: u, password: hunter2}}]", "secret reference"),
            ("[{name: a, mirror: b}]", "unknown key"),
        ] {
            let error = parse(bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let plain = "[{name: a, url: 'http://localhost:5000', insecurePlainHttp: true}]";
        assert_eq!(parse(plain).unwrap().registry.unwrap().upstreams[0].endpoint(), ("localhost:5000", true));
    }

    #[test]
    fn a_listener_names_an_upstream_that_is_there() {
        let parse = |upstream: &str| {
            let spec =
                format!("{{registry: {{upstreams: [{{name: docker.io}}]}}, listeners: [{{upstream: {upstream}}}]}}");
            parse_server("t", &format!("apiVersion: towpath.dev/v1alpha1\nkind: Towpath\nspec: {spec}\n"))
        };
        assert_eq!(parse("docker.io").unwrap().listeners[0].upstream.as_deref(), Some("docker.io"));
        let error = parse("quay.io").unwrap_err().to_string();
        assert!(error.contains("spec.listeners[0].upstream: \"quay.io\""), "{error}");
    }
}
