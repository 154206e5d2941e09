//! The server's file, the records that are applied to a server, and sealed secrets.
//!
//! Everything is parsed and checked before anything starts. An unknown key is an error with file, line, column and the
//! nearest known key. Secrets are references ([`SecretRef`]); the sealed store ([`seal::Sealer`]) keeps values encrypted.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod access;
mod blobs;
mod document;
mod edge;
mod error;
mod export;
mod listener;
mod record;
mod registry;
pub mod seal;
mod secret;
mod server;
mod span;
mod target;

pub use access::{AccessSpec, GroupMapping, ImageAction, OidcProvider, WorkloadIssuer, WorkloadRule};
pub use blobs::{BlobsLocation, S3Bucket};
pub use document::{API_VERSION, Metadata};
pub use edge::{Metrics, RateLimits, Share, Traces};
pub use error::ConfigError;
pub use export::to_yaml;
pub use listener::{AbsoluteFile, Acme, AcmeChallenge, CertificateFiles, Listener, Tls};
pub use record::{Organisation, Record, Repository, RepositorySpec, User, UserSpec, Visibility, parse_records};
pub use registry::{
    Anonymous, ByteCount, Collection, ImmutableTag, KeptThere, QuotaRule, RegistrySpec, ReplicationRule, RetentionRule,
    Untagged, Upstream, UpstreamCredentials, Webhook, WebhookEvent,
};
pub use secret::{SecretError, SecretRef};
pub use server::{Actions, RecordsLocation, Server, ServerSpec, parse_server};
pub use span::{Span, SpanError};
pub use target::{
    Budgets, BuildSpec, Deploy, DeployEngine, ExternalProducer, GitOps, HealthIdentity, HealthSpec, Producer, Service,
    Target, TargetSpec, parse_target_spec,
};
