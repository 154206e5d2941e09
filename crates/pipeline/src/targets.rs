//! The configured targets: records, changed without a restart.

use config::TargetSpec;
use model::{RepoName, TargetId};
use store::{Records, RecordsError, Row};

pub(crate) const TABLE: &str = "CREATE TABLE targets (id BIGINT PRIMARY KEY, name TEXT NOT NULL UNIQUE,
    repository TEXT NOT NULL, spec TEXT NOT NULL)";

/// A configured target.
#[derive(Clone, Debug)]
pub struct ConfiguredTarget {
    /// Its id.
    pub id: TargetId,
    /// Its name.
    pub name: String,
    /// What it is.
    pub spec: TargetSpec,
}

/// Creates or changes a target; says whether anything changed.
///
/// # Errors
/// When the records cannot be written.
pub async fn put(records: &Records, name: &str, spec: &TargetSpec) -> Result<(TargetId, bool), RecordsError> {
    let (name, repository) = (name.to_owned(), spec.repository.to_string());
    let spec = serde_json::to_string(spec).map_err(|error| RecordsError::Refused(error.to_string()))?;
    records
        .write(move |tx| {
            let found = tx.query("SELECT id, spec FROM targets WHERE name = $1", &[name.as_str().into()])?;
            if let Some(row) = found.first() {
                let id: i64 = row.get(0)?;
                let changed = row.get::<String>(1)? != spec;
                let sql = "UPDATE targets SET repository = $2, spec = $3 WHERE id = $1";
                tx.execute(sql, &[id.into(), repository.into(), spec.into()])?;
                return Ok((TargetId(id), changed));
            }
            let id = tx.next_id("targets")?;
            let sql = "INSERT INTO targets (id, name, repository, spec) VALUES ($1, $2, $3, $4)";
            tx.execute(sql, &[id.into(), name.into(), repository.into(), spec.into()])?;
            Ok((TargetId(id), true))
        })
        .await
}

/// Removes a target; says whether there was one. What it runs is not touched by this.
///
/// # Errors
/// When the records cannot be written.
pub async fn remove(records: &Records, name: &str) -> Result<bool, RecordsError> {
    let name = name.to_owned();
    records.write(move |tx| Ok(tx.execute("DELETE FROM targets WHERE name = $1", &[name.into()])? > 0)).await
}

/// All targets, by name.
///
/// # Errors
/// When they cannot be read.
pub async fn list(records: &Records) -> Result<Vec<ConfiguredTarget>, RecordsError> {
    let sql = "SELECT id, name, spec FROM targets ORDER BY name";
    records.read(move |tx| tx.query(sql, &[])?.iter().map(target).collect()).await
}

/// The targets that deliver a repository, or keep their desired state in it.
///
/// # Errors
/// When they cannot be read.
pub async fn of_repository(records: &Records, repository: &RepoName) -> Result<Vec<ConfiguredTarget>, RecordsError> {
    let mut targets = list(records).await?;
    targets.retain(|it| it.spec.repository == *repository || it.spec.gitops_repository() == repository);
    Ok(targets)
}

fn target(row: &Row) -> Result<ConfiguredTarget, RecordsError> {
    let spec: String = row.get(2)?;
    let spec = serde_json::from_str(&spec).map_err(|error| RecordsError::Refused(error.to_string()))?;
    Ok(ConfiguredTarget { id: TargetId(row.get(0)?), name: row.get(1)?, spec })
}
