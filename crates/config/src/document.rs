//! YAML documents with `apiVersion`, `kind`, `metadata` and `spec`.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::ConfigError;

/// The `apiVersion` of every document.
pub const API_VERSION: &str = "towpath.dev/v1alpha1";

/// What names a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// The name, unique for its kind.
    pub name: String,
}

#[derive(Deserialize)]
struct Header {
    #[serde(rename = "apiVersion", default)]
    api_version: String,
    #[serde(default)]
    kind: String,
}

/// One document of a text, padded with empty lines so that places in errors are those of the whole text.
pub(crate) struct Document<'a> {
    file: &'a str,
    whole: &'a str,
    padded: String,
    pub(crate) kind: String,
}

impl<'a> Document<'a> {
    /// Reads the whole document as `T`.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        serde_saphyr::from_str(&self.padded).map_err(|e| ConfigError::from_yaml(self.file, self.whole, &e))
    }

    /// An error for this document.
    pub(crate) fn error(&self, message: impl Into<String>) -> ConfigError {
        ConfigError::in_file(self.file, message)
    }
}

/// Splits `text` into its documents and reads the head of each. Empty documents are left out.
pub(crate) fn documents<'a>(file: &'a str, text: &'a str) -> Result<Vec<Document<'a>>, ConfigError> {
    let mut found = Vec::new();
    let mut padded = String::new();
    let mut ended = Vec::new();
    for (number, line) in text.lines().enumerate() {
        // A line of three dashes can only be a document marker: no scalar may hold one at the margin.
        if line == "---" || line.starts_with("--- ") {
            ended.push(std::mem::replace(&mut padded, "\n".repeat(number + 1)));
            continue;
        }
        padded.push_str(line);
        padded.push('\n');
    }
    ended.push(padded);
    for padded in ended {
        let blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
        if padded.lines().all(blank) {
            continue;
        }
        let head: Header = serde_saphyr::from_str(&padded).map_err(|e| ConfigError::from_yaml(file, text, &e))?;
        if head.api_version != API_VERSION {
            let message = format!("apiVersion {:?} is not known", head.api_version);
            return Err(ConfigError::in_file(file, message).hint(format!("write `apiVersion: {API_VERSION}`")));
        }
        found.push(Document { file, whole: text, padded, kind: head.kind });
    }
    Ok(found)
}
