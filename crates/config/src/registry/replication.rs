//! Which images are pushed to other registries.

use model::{ImageName, ImagePattern, TagPattern};
use serde::{Deserialize, Serialize};

use crate::listener::AbsoluteFile;
use crate::registry::upstreams::{UpstreamCredentials, check_url};
use crate::{RetentionRule, Span};

/// A rule of replication: what is pushed here and chosen by it is pushed on to another registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReplicationRule {
    /// Its name, unique in the file; what is on its way and what was pushed is known by this.
    pub name: String,
    /// The registry, `https://host[:port]`.
    pub url: String,
    /// What names there begin with; nothing without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<ImageName>,
    /// What is taken off the beginning of names before; nothing without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strip: Option<ImageName>,
    /// Which images; all by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<ImagePattern>,
    /// Which tags; all by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<TagPattern>,
    /// Whom this registry is there; nobody without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<UpstreamCredentials>,
    /// A file of certificates (PEM) that are trusted besides the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<AbsoluteFile>,
    /// Allows a `url` that begins with `http://`.
    #[serde(default)]
    pub insecure_plain_http: bool,
    /// Allows its token server to be at a private or loopback address even if it is not there itself.
    #[serde(default)]
    pub allow_private: bool,
    /// Whether a tag that is deleted here is taken away there, if this rule has pushed it.
    #[serde(default)]
    pub deletes: bool,
    /// Which of the tags that this rule has pushed are kept there; all by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retention: Vec<KeptThere>,
}

/// Which tags are kept at a destination. Of several, the first that is about a tag counts for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeptThere {
    /// The tags; all by default.
    #[serde(default = "TagPattern::all")]
    pub tags: TagPattern,
    /// Keeps the newest so many of each image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_newest: Option<usize>,
    /// Keeps what was set here within this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_younger: Option<Span>,
}

impl From<KeptThere> for RetentionRule {
    fn from(kept: KeptThere) -> Self {
        Self {
            images: ImagePattern::all(),
            tags: kept.tags,
            keep_newest: kept.keep_newest,
            keep_younger: kept.keep_younger,
            keep_pulled_within: None,
            untagged: None,
        }
    }
}

impl ReplicationRule {
    /// Host and port that are pushed to.
    pub fn host(&self) -> &str {
        let url = self.url.trim_end_matches('/');
        url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).unwrap_or(url)
    }

    fn check(&self) -> Result<(), String> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if self.name.is_empty() || self.name.len() > 64 || !self.name.bytes().all(plain) {
            let name = &self.name;
            return Err(format!("name: {name:?} is not a name: expected up to 64 letters, digits, - _ ."));
        }
        check_url(&self.url, self.insecure_plain_http)?;
        for (index, kept) in self.retention.iter().enumerate() {
            if kept.keep_newest.is_none() && kept.keep_younger.is_none() {
                return Err(format!("retention[{index}]: says nothing: write keepNewest or keepYounger"));
            }
        }
        Ok(())
    }
}

pub(super) fn check(rules: &[ReplicationRule]) -> Result<(), String> {
    for (index, rule) in rules.iter().enumerate() {
        let place = |why: String| format!("spec.registry.replication[{index}].{why}");
        rule.check().map_err(place)?;
        if rules[..index].iter().any(|other| other.name == rule.name) {
            return Err(place(format!("name: {:?} is listed twice", rule.name)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::parse_server;

    fn parse(rules: &str) -> Result<Vec<super::ReplicationRule>, String> {
        let text = format!(
            "apiVersion: towpath.dev/v1alpha1\nkind: Towpath\nspec: {{registry: {{replication: [{rules}]}}}}\n"
        );
        let spec = parse_server("towpath.yaml", &text).map_err(|error| error.to_string())?;
        Ok(spec.registry.unwrap().replication)
    }

    #[test]
    fn rules_are_read() {
        let rules = parse(
            "{name: offsite, url: 'https://r.example:5000', prefix: mirror/acme, strip: acme, images: ['acme/**'],
              tags: ['v*', main], credentials: {user: u, password: 'env:P'}, deletes: true,
              retention: [{tags: 'pr-*', keepNewest: 5, keepYounger: 30d}]}",
        )
        .unwrap();
        assert_eq!(rules[0].host(), "r.example:5000");
        assert_eq!(rules[0].tags[0].as_str(), "v*");
        assert_eq!(rules[0].retention[0].keep_newest, Some(5));
    }

    #[test]
    fn refuses_what_cannot_work() {
        for (bad, said) in [
            ("{name: '', url: 'https://a'}", "replication[0].name"),
            ("{name: a, url: a}", "replication[0].url: expected https://"),
            ("{name: a, url: 'http://a'}", "insecurePlainHttp"),
            ("{name: a, url: 'https://a/b'}", "without a path"),
            ("{name: a, url: 'https://a'}, {name: a, url: 'https://b'}", "listed twice"),
            ("{name: a, url: 'https://a', retention: [{tags: 'v*'}]}", "retention[0]: says nothing"),
            ("{name: a, url: 'https://a', tags: ['[']}", "tag pattern"),
            ("{name: a, url: 'https://a', credentials: {user: u, password: hunter2}}", "secret reference"),
        ] {
            let error = parse(bad).unwrap_err();
            assert!(error.contains(said) && !error.contains("hunter2"), "{bad}: {error}");
        }
    }
}
