//! Where blobs are kept.

use serde::{Deserialize, Serialize};

use crate::SecretRef;

/// Where blobs are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BlobsLocation {
    /// A bucket; without it, files in the data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Bucket>,
}

/// A bucket of S3, or of a server that speaks its protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct S3Bucket {
    /// `https://host:port` of the server; that of AWS for the region without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The region; servers without regions take any.
    #[serde(default = "default_region")]
    pub region: String,
    /// The bucket, which exists.
    pub bucket: String,
    /// What the names of all objects begin with.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// The name of the key, by reference.
    pub access_key: SecretRef,
    /// The key, by reference.
    pub secret_key: SecretRef,
    /// Name the bucket in the path and not in the host name, as most servers that are not AWS want it.
    #[serde(default)]
    pub path_style: bool,
}

fn default_region() -> String {
    "us-east-1".to_owned()
}
