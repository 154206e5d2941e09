//! Which image was built under which identity: a projection of the log.

use model::{CommitId, DeliveryId, Digest, PinnedImage, RunId, TargetId};
use store::{Records, RecordsError, Row, Tx};

pub(crate) const TABLE: &str = "CREATE TABLE artifacts (run BIGINT NOT NULL, target BIGINT NOT NULL,
    service TEXT NOT NULL, identity TEXT NOT NULL, image TEXT NOT NULL, digest TEXT NOT NULL,
    source_commit TEXT NOT NULL, PRIMARY KEY (target, service, run))";

/// An image that was built.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// The identity of what it was built from; also the digest of the recipe in the blob store.
    pub identity: Digest,
    /// The image.
    pub image: PinnedImage,
    /// The commit it was built from.
    pub source_commit: CommitId,
    /// The run that built it.
    pub run: RunId,
}

pub(crate) fn built(
    tx: &mut Tx<'_>,
    delivery: DeliveryId,
    run: RunId,
    service: &str,
    identity: &Digest,
    image: &PinnedImage,
) -> Result<(), RecordsError> {
    tx.execute(
        "INSERT INTO artifacts (run, target, service, identity, image, digest, source_commit)
            SELECT runs.id, runs.target, $3, $4, $5, $6, runs.commit_id FROM runs WHERE runs.id = $1 AND runs.delivery = $2
            ON CONFLICT (target, service, run) DO NOTHING",
        &[
            run.0.into(),
            delivery.0.into(),
            service.into(),
            identity.to_string().into(),
            image.name.as_str().into(),
            image.digest.to_string().into(),
        ],
    )?;
    Ok(())
}

/// The artifacts of a service, the one with `identity` first if there is one, then the newest; at most two.
///
/// # Errors
/// When they cannot be read.
pub async fn candidates(
    records: &Records,
    target: TargetId,
    service: &str,
    identity: Digest,
) -> Result<Vec<Artifact>, RecordsError> {
    let service = service.to_owned();
    records
        .read(move |tx| {
            let sql = "SELECT identity, image, digest, source_commit, run FROM artifacts
                WHERE target = $1 AND service = $2
                ORDER BY CASE WHEN identity = $3 THEN 0 ELSE 1 END, run DESC LIMIT 2";
            let rows = tx.query(sql, &[target.0.into(), service.into(), identity.to_string().into()])?;
            rows.iter().map(artifact).collect()
        })
        .await
}

fn artifact(row: &Row) -> Result<Artifact, RecordsError> {
    fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: String) -> Result<T, RecordsError> {
        text.parse().map_err(|error: T::Err| RecordsError::Refused(error.to_string()))
    }
    Ok(Artifact {
        identity: parse(row.get(0)?)?,
        image: PinnedImage { name: parse(row.get(1)?)?, digest: parse(row.get(2)?)? },
        source_commit: parse(row.get(3)?)?,
        run: RunId(row.get(4)?),
    })
}
