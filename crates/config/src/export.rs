//! Records as YAML text, which `towpath apply` takes back.

use crate::{ConfigError, Record};

/// All records as one text of several documents.
///
/// # Errors
/// When a value cannot be written as YAML, which no record holds.
pub fn to_yaml(records: &[Record]) -> Result<String, ConfigError> {
    let mut text = String::new();
    for record in records {
        let document =
            serde_saphyr::to_string(record).map_err(|error| ConfigError::in_file(record.name(), error.to_string()))?;
        text.push_str("---\n");
        text.push_str(&document);
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    Ok(text)
}
