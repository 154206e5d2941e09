//! The server's file: listeners, engines and policies. Everything has a default, so no file is needed.

use serde::{Deserialize, Serialize};

use crate::document::documents;
use crate::edge::{self, Metrics, RateLimits, Traces};
use crate::listener::{self, Listener};
use crate::{AccessSpec, BlobsLocation, ConfigError, RegistrySpec, SecretRef, Upstream};

/// A `kind: Towpath` document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Server {
    /// [`crate::API_VERSION`].
    pub api_version: String,
    /// `Towpath`.
    pub kind: String,
    /// What the server does.
    #[serde(default)]
    pub spec: ServerSpec,
}

/// What the server does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ServerSpec {
    /// Where it answers.
    pub listeners: Vec<Listener>,
    /// How much a client may ask.
    pub rate_limits: RateLimits,
    /// Where the metrics are shown; nowhere without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Metrics>,
    /// Where spans of requests are sent; nowhere without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traces: Option<Traces>,
    /// Where records are kept.
    pub records: RecordsLocation,
    /// Where blobs are kept.
    pub blobs: BlobsLocation,
    /// Who else may say who somebody is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<AccessSpec>,
    /// The registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry: Option<RegistrySpec>,
    /// How workflow jobs run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actions: Option<Actions>,
}

impl Default for ServerSpec {
    fn default() -> Self {
        Self {
            listeners: vec![Listener::default()],
            rate_limits: RateLimits::default(),
            metrics: None,
            traces: None,
            records: RecordsLocation::default(),
            blobs: BlobsLocation::default(),
            access: None,
            registry: None,
            actions: None,
        }
    }
}

impl ServerSpec {
    /// Whether the registry is all that is served: the file names it, and nothing that needs the pipeline.
    pub const fn is_registry_only(&self) -> bool {
        self.registry.is_some() && self.actions.is_none()
    }
}

/// Where records are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RecordsLocation {
    /// A PostgreSQL connection string (`host=… user=… dbname=…` or a URL, with `sslmode` and `sslrootcert` for TLS), by
    /// reference; SQLite in the data directory without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postgres: Option<SecretRef>,
}

/// How workflow jobs run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Actions {
    /// Jobs that run at the same time.
    pub parallel_jobs: u32,
    /// Labels besides the built-in ones under which the embedded runner takes jobs.
    pub labels: Vec<String>,
    /// Minutes after which a job is ended, whatever it asks for itself.
    pub timeout_minutes: u32,
}

impl Default for Actions {
    fn default() -> Self {
        Self { parallel_jobs: 2, labels: Vec::new(), timeout_minutes: 360 }
    }
}

/// Reads and checks the server's file.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn parse_server(file: &str, text: &str) -> Result<ServerSpec, ConfigError> {
    let documents = documents(file, text)?;
    let [document] = documents.as_slice() else {
        return Err(ConfigError::in_file(
            file,
            format!("holds {} documents; expected one of kind Towpath", documents.len()),
        ));
    };
    if document.kind != "Towpath" {
        let error = document.error(format!("kind {:?} is not the server's file", document.kind));
        return Err(error.hint("records such as repositories and targets are applied with `towpath apply -f FILE`"));
    }
    let server: Server = document.read()?;
    check(&server.spec).map_err(|message| document.error(message))?;
    Ok(server.spec)
}

fn check(spec: &ServerSpec) -> Result<(), String> {
    listener::check(&spec.listeners)?;
    edge::check(&spec.rate_limits, spec.traces.as_ref())?;
    if spec.actions.as_ref().is_some_and(|actions| actions.parallel_jobs == 0) {
        return Err("spec.actions.parallelJobs: must be at least 1".into());
    }
    spec.access.as_ref().map_or(Ok(()), AccessSpec::check)?;
    spec.registry.as_ref().map_or(Ok(()), RegistrySpec::check)?;
    let upstreams: &[Upstream] = spec.registry.as_ref().map_or(&[], |registry| &registry.upstreams);
    listener::check_upstreams(&spec.listeners, upstreams)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(spec: &str) -> Result<ServerSpec, ConfigError> {
        parse_server("towpath.yaml", &format!("apiVersion: towpath.dev/v1alpha1\nkind: Towpath\nspec:\n{spec}"))
    }

    #[test]
    fn an_empty_spec_is_the_default() {
        let text = "apiVersion: towpath.dev/v1alpha1\nkind: Towpath\n";
        assert_eq!(parse_server("t", text).unwrap(), ServerSpec::default());
    }

    #[test]
    fn refuses_with_a_place() {
        let error = parse("  listners: []\n").unwrap_err();
        assert_eq!((error.line, error.column), (4, 3));
        assert_eq!(error.hint.as_deref(), Some("did you mean `listeners`?"));
        let error = parse("  listeners: [{address: nowhere}]\n").unwrap_err();
        assert_eq!(error.line, 4);
        assert!(parse("  listeners: [{trustedProxies: [10.0.0.0/64]}]\n").unwrap_err().message.contains("10.0.0.0/64"));
    }

    #[test]
    fn a_bucket_is_named_with_its_keys_by_reference() {
        let spec = parse(
            "  blobs:\n    s3: {bucket: images, endpoint: 'https://s3.lan', accessKey: 'env:A', secretKey: 'file:/b'}\n",
        );
        let bucket = spec.unwrap().blobs.s3.unwrap();
        assert_eq!((bucket.region.as_str(), bucket.prefix.as_str(), bucket.path_style), ("us-east-1", "", false));
        let error = parse("  blobs: {s3: {bucket: a, accessKey: 'env:A', secretKey: hunter2}}\n").unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn a_file_that_names_only_the_registry_serves_nothing_else() {
        assert!(!ServerSpec::default().is_registry_only());
        assert!(parse("  registry: {}\n").unwrap().is_registry_only());
        let both = parse("  registry: {anonymous: [pull]}\n  actions: {}\n").unwrap();
        assert!(!both.is_registry_only());
        assert_eq!(both.actions, Some(Actions::default()));
        assert!(!parse("  actions: {parallelJobs: 1}\n").unwrap().is_registry_only());
    }

    #[test]
    fn a_secret_in_place_of_its_reference_is_not_printed() {
        let error = parse("  records: {postgres: 'postgresql://u:hunter2@h/db'}\n").unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
