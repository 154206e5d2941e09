//! What runs at each target: a projection of the log, written in the same transaction.

use std::collections::BTreeMap;

use evidence::Live;
use model::{Event, RecordedEvent, ReuseDecision, RunId, TargetId};
use store::{Records, RecordsError, Tx};

pub(crate) const TABLE: &str = "CREATE TABLE live (target BIGINT PRIMARY KEY, body TEXT NOT NULL)";

/// A run succeeded: what it brought is live from here on.
pub(crate) fn arrived(tx: &mut Tx<'_>, recorded: &RecordedEvent, run: RunId) -> Result<(), RecordsError> {
    let mut events = Vec::new();
    for stored in store::log::stream(tx, recorded.delivery.0)? {
        let event = serde_json::from_str(&stored.body)
            .map_err(|error| RecordsError::Refused(format!("event {} cannot be read: {error}", stored.seq)))?;
        events.push(RecordedEvent { seq: stored.seq, at: stored.at, delivery: recorded.delivery, event });
    }
    let Some(facts) = evidence::target_facts(&events, run) else { return Ok(()) };
    let target = events.iter().find_map(|recorded| match &recorded.event {
        Event::TargetRunCreated { run: this, target, .. } if *this == run => Some(*target),
        _ => None,
    });
    let (Some(target), Some(revision)) = (target, facts.revision.clone()) else { return Ok(()) };
    let images = facts.images().into_iter().map(|(service, image)| (service.to_owned(), image.clone()));
    let live = Live {
        run,
        revision,
        source_commits: facts.source_commits(),
        source_commit: source_commit(&facts),
        images: images.collect::<BTreeMap<_, _>>(),
        health: facts.health.clone(),
        address: facts.address.clone(),
    };
    let body = serde_json::to_string(&live).map_err(|error| RecordsError::Refused(error.to_string()))?;
    tx.execute(
        "INSERT INTO live (target, body) VALUES ($1, $2) ON CONFLICT (target) DO UPDATE SET body = $2",
        &[target.0.into(), body.into()],
    )?;
    Ok(())
}

/// The commit the images were built from: of this delivery if one was built here, else that of the image reused.
fn source_commit(facts: &evidence::TargetFacts) -> model::CommitId {
    let reused = facts.decisions.iter().flatten().find_map(|decision| match &decision.decision {
        ReuseDecision::Hit { source_commit, .. } => Some(source_commit.clone()),
        ReuseDecision::Miss { .. } => None,
    });
    match reused {
        Some(commit) if facts.built.is_empty() => commit,
        _ => facts.delivery.commit.clone(),
    }
}

/// What runs at a target.
///
/// # Errors
/// When it cannot be read.
pub async fn of(records: &Records, target: TargetId) -> Result<Option<Live>, RecordsError> {
    records
        .read(move |tx| {
            let rows = tx.query("SELECT body FROM live WHERE target = $1", &[target.0.into()])?;
            let Some(row) = rows.first() else { return Ok(None) };
            let body: String = row.get(0)?;
            serde_json::from_str(&body).map(Some).map_err(|error| RecordsError::Refused(error.to_string()))
        })
        .await
}
