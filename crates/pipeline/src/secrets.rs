//! Secrets of repositories for their jobs: sealed in the records, opened only when a job is handed out.

use std::collections::BTreeMap;

use config::seal::{Sealer, fingerprint};
use model::{RepoId, Timestamp};
use serde::Serialize;
use store::{Records, RecordsError};

pub(crate) const TABLE: &str = "CREATE TABLE secrets (repository BIGINT NOT NULL, name TEXT NOT NULL,
    sealed TEXT NOT NULL, fingerprint TEXT NOT NULL, changed BIGINT NOT NULL, PRIMARY KEY (repository, name))";

/// What is shown of a secret.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretInfo {
    /// Its name.
    pub name: String,
    /// Tells two values apart without showing either.
    pub fingerprint: String,
    /// When it was set.
    pub changed: Timestamp,
}

/// Why a secret cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// The name is not one GitHub would take.
    #[error("secret name {0:?} is not letters, digits and _, not beginning with a digit or GITHUB_")]
    BadName(String),
    /// The value is too long.
    #[error("a secret holds at most 48 KiB; this has {0} bytes")]
    TooLong(usize),
    /// The seal.
    #[error(transparent)]
    Seal(#[from] config::seal::SealError),
    /// The records.
    #[error(transparent)]
    Records(#[from] RecordsError),
}

/// Sets a secret.
///
/// # Errors
/// When the name or size is not allowed, or it cannot be written.
pub async fn set(
    records: &Records,
    sealer: &Sealer,
    repository: RepoId,
    name: &str,
    value: &str,
    now: Timestamp,
) -> Result<SecretInfo, SecretsError> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let first = name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    let name = name.to_ascii_uppercase();
    if !first || name.len() > 255 || !name.bytes().all(legal) || name.starts_with("GITHUB_") {
        return Err(SecretsError::BadName(name));
    }
    if value.len() > 48 * 1024 {
        return Err(SecretsError::TooLong(value.len()));
    }
    let context = context(repository, &name);
    let sealed = sealer.seal(&context, value.as_bytes())?;
    let info = SecretInfo { name: name.clone(), fingerprint: fingerprint(&context, value.as_bytes()), changed: now };
    let print = info.fingerprint.clone();
    records
        .write(move |tx| {
            tx.execute(
                "INSERT INTO secrets (repository, name, sealed, fingerprint, changed) VALUES ($1, $2, $3, $4, $5)
                    ON CONFLICT (repository, name) DO UPDATE SET sealed = $3, fingerprint = $4, changed = $5",
                &[repository.0.into(), name.into(), sealed.into(), print.into(), now.0.into()],
            )
        })
        .await?;
    Ok(info)
}

/// Removes a secret; says whether there was one.
///
/// # Errors
/// When it cannot be written.
pub async fn remove(records: &Records, repository: RepoId, name: &str) -> Result<bool, RecordsError> {
    let name = name.to_ascii_uppercase();
    let sql = "DELETE FROM secrets WHERE repository = $1 AND name = $2";
    records.write(move |tx| Ok(tx.execute(sql, &[repository.0.into(), name.into()])? > 0)).await
}

/// The secrets of a repository, without their values.
///
/// # Errors
/// When they cannot be read.
pub async fn list(records: &Records, repository: RepoId) -> Result<Vec<SecretInfo>, RecordsError> {
    let sql = "SELECT name, fingerprint, changed FROM secrets WHERE repository = $1 ORDER BY name";
    records
        .read(move |tx| {
            let rows = tx.query(sql, &[repository.0.into()])?;
            let info = |row: &store::Row| {
                Ok(SecretInfo { name: row.get(0)?, fingerprint: row.get(1)?, changed: Timestamp(row.get(2)?) })
            };
            rows.iter().map(info).collect()
        })
        .await
}

/// The values, for a job of this repository.
///
/// # Errors
/// When one cannot be read or does not open.
pub async fn open(
    records: &Records,
    sealer: &Sealer,
    repository: RepoId,
) -> Result<BTreeMap<String, String>, SecretsError> {
    let sql = "SELECT name, sealed FROM secrets WHERE repository = $1";
    let rows = records.read(move |tx| tx.query(sql, &[repository.0.into()])).await?;
    let mut values = BTreeMap::new();
    for row in rows {
        let (name, sealed): (String, String) = (row.get(0)?, row.get(1)?);
        let value = sealer.open_sealed(&context(repository, &name), &sealed)?;
        values.insert(name, String::from_utf8_lossy(&value).into_owned());
    }
    Ok(values)
}

fn context(repository: RepoId, name: &str) -> String {
    format!("repository/{repository}/secret/{name}")
}
