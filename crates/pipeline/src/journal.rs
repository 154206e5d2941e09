//! The event log as the pipeline writes it, and the projections that are kept in the same transaction.

use model::{
    Delivery, DeliveryId, Event, JobId, JobPlanned, Outcome, RecordedEvent, RefName, RepoId, RunId, TargetId, Timestamp,
};
use serde::Serialize;
use store::log::NewEvent;
use store::{Records, RecordsError, Tx};

use crate::artifacts;
use crate::live;

/// The tables of this room, oldest step first.
const MIGRATIONS: &[&str] = &[
    "CREATE TABLE deliveries (id BIGINT PRIMARY KEY, repository BIGINT NOT NULL, ref_name TEXT NOT NULL,
        commit_id TEXT NOT NULL, created BIGINT NOT NULL, finished BIGINT)",
    "CREATE INDEX deliveries_open ON deliveries (finished)",
    "CREATE TABLE runs (id BIGINT PRIMARY KEY, delivery BIGINT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL,
        number BIGINT NOT NULL, target BIGINT, repository BIGINT NOT NULL, ref_name TEXT NOT NULL,
        commit_id TEXT NOT NULL, outcome TEXT, cause TEXT, created BIGINT NOT NULL, ended BIGINT)",
    "CREATE INDEX runs_of_target ON runs (target, id)",
    "CREATE TABLE jobs (id BIGINT PRIMARY KEY, run BIGINT NOT NULL, delivery BIGINT NOT NULL, name TEXT NOT NULL)",
    "CREATE TABLE heads (repository BIGINT NOT NULL, ref_name TEXT NOT NULL, commit_id TEXT NOT NULL,
        PRIMARY KEY (repository, ref_name))",
    live::TABLE,
    artifacts::TABLE,
    crate::targets::TABLE,
    crate::secrets::TABLE,
    "CREATE INDEX artifacts_by_identity ON artifacts (identity)",
];

/// Writes events and reads them back.
#[derive(Clone)]
pub struct Journal {
    records: Records,
}

/// Whether a run is of a workflow or of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RunKind {
    /// Jobs and steps.
    Workflow,
    /// Stages.
    Target,
}

/// A line of a listing of runs.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunSummary {
    /// The run.
    pub run: RunId,
    /// What it is a run of.
    pub kind: RunKind,
    /// The target, if it is one's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetId>,
    /// The target's name or the workflow's.
    pub name: String,
    /// Its number among the runs of that.
    pub number: i64,
    /// The delivery it belongs to.
    pub delivery: DeliveryId,
    /// The ref.
    pub ref_name: String,
    /// The commit.
    pub commit: String,
    /// How it ended.
    pub outcome: Option<String>,
    /// Why it did not succeed, in one line.
    pub cause: Option<String>,
    /// When it began.
    pub created: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
}

const RUN_COLUMNS: &str =
    "id, kind, name, number, delivery, ref_name, commit_id, outcome, cause, created, ended, target";

impl Journal {
    /// Makes the tables that are missing.
    ///
    /// # Errors
    /// When the records cannot be written, or are of a later version.
    pub async fn open(records: Records) -> Result<Self, RecordsError> {
        store::log::install(&records).await?;
        records.migrate("pipeline", MIGRATIONS).await?;
        Ok(Self { records })
    }

    /// The records it writes to.
    pub const fn records(&self) -> &Records {
        &self.records
    }

    /// Writes `events` in one transaction with their projections. They are on disk when this returns.
    ///
    /// # Errors
    /// When they could not be written; then none of them was.
    pub async fn append(
        &self,
        at: Timestamp,
        events: Vec<(DeliveryId, Event)>,
    ) -> Result<Vec<RecordedEvent>, RecordsError> {
        self.records
            .write(move |tx| {
                let new: Vec<_> = events.iter().map(encode).collect::<Result<_, _>>()?;
                let seqs = store::log::append(tx, at, &new)?;
                let mut recorded = Vec::with_capacity(events.len());
                for (seq, (delivery, event)) in seqs.into_iter().zip(events) {
                    let event = RecordedEvent { seq, at, delivery, event };
                    project(tx, &event)?;
                    recorded.push(event);
                }
                Ok(recorded)
            })
            .await
    }

    /// The events of a delivery.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn delivery(&self, delivery: DeliveryId) -> Result<Vec<RecordedEvent>, RecordsError> {
        self.records.read(move |tx| store::log::stream(tx, delivery.0)?.into_iter().map(decode).collect()).await
    }

    /// At most `limit` events after `seq`, in the order of the log.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn after(&self, seq: i64, limit: usize) -> Result<Vec<RecordedEvent>, RecordsError> {
        self.records.read(move |tx| store::log::after(tx, seq, limit)?.into_iter().map(decode).collect()).await
    }

    /// The deliveries that have not finished, oldest first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn unfinished(&self) -> Result<Vec<DeliveryId>, RecordsError> {
        let sql = "SELECT id FROM deliveries WHERE finished IS NULL ORDER BY id";
        self.records
            .read(move |tx| tx.query(sql, &[])?.iter().map(|row| row.get::<i64>(0).map(DeliveryId)).collect())
            .await
    }

    /// The newest runs, newest first, at most `limit`; of one repository if it is named.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn runs(&self, repository: Option<RepoId>, limit: i64) -> Result<Vec<RunSummary>, RecordsError> {
        let sql = format!("SELECT {RUN_COLUMNS} FROM runs WHERE ($1 = 0 OR repository = $1) ORDER BY id DESC LIMIT $2");
        let repository = repository.map_or(0, |id| id.0);
        self.records
            .read(move |tx| tx.query(&sql, &[repository.into(), limit.into()])?.iter().map(summary).collect())
            .await
    }

    /// The newest run of a target.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn last_run(&self, target: TargetId) -> Result<Option<RunSummary>, RecordsError> {
        let sql = format!("SELECT {RUN_COLUMNS} FROM runs WHERE target = $1 ORDER BY id DESC LIMIT 1");
        self.records.read(move |tx| tx.query(&sql, &[target.0.into()])?.first().map(summary).transpose()).await
    }

    /// One run, with the repository it belongs to.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn run(&self, run: RunId) -> Result<Option<(RunSummary, RepoId)>, RecordsError> {
        let sql = format!("SELECT {RUN_COLUMNS}, repository FROM runs WHERE id = $1");
        self.records
            .read(move |tx| {
                let rows = tx.query(&sql, &[run.0.into()])?;
                rows.first().map(|row| Ok((summary(row)?, RepoId(row.get(12)?)))).transpose()
            })
            .await
    }

    /// The runs of a delivery, oldest first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn runs_of(&self, delivery: DeliveryId) -> Result<Vec<RunSummary>, RecordsError> {
        let sql = format!("SELECT {RUN_COLUMNS} FROM runs WHERE delivery = $1 ORDER BY id");
        self.records.read(move |tx| tx.query(&sql, &[delivery.0.into()])?.iter().map(summary).collect()).await
    }

    /// The last run of a target that succeeded and is older than `run`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn last_success_before(&self, target: TargetId, run: RunId) -> Result<Option<RunId>, RecordsError> {
        let sql =
            "SELECT id FROM runs WHERE target = $1 AND id < $2 AND outcome = 'succeeded' ORDER BY id DESC LIMIT 1";
        self.records
            .read(move |tx| {
                let rows = tx.query(sql, &[target.0.into(), run.0.into()])?;
                rows.first().map(|row| row.get(0).map(RunId)).transpose()
            })
            .await
    }

    /// The number of the next run of a workflow file in a repository, from 1.
    ///
    /// # Errors
    /// When the records cannot be written.
    pub async fn next_number(&self, repository: RepoId, path: &str) -> Result<i64, RecordsError> {
        let name = format!("workflow-runs/{repository}/{path}");
        self.records.write(move |tx| tx.next_id(&name)).await
    }

    /// Which attempt the next retry of a workflow run with that number is, from 2.
    ///
    /// # Errors
    /// When the records cannot be written.
    pub async fn next_attempt(&self, repository: RepoId, path: &str, number: i64) -> Result<i64, RecordsError> {
        let name = format!("workflow-attempts/{repository}/{path}/{number}");
        self.records.write(move |tx| Ok(tx.next_id(&name)? + 1)).await
    }

    /// The number of the next run of a target, from 1.
    ///
    /// # Errors
    /// When the records cannot be written.
    pub async fn next_target_number(&self, target: TargetId) -> Result<i64, RecordsError> {
        let name = format!("target-runs/{target}");
        self.records.write(move |tx| tx.next_id(&name)).await
    }

    /// The run and delivery of a job.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn job(&self, job: JobId) -> Result<Option<(RunId, DeliveryId)>, RecordsError> {
        let sql = "SELECT run, delivery FROM jobs WHERE id = $1";
        self.records
            .read(move |tx| {
                let rows = tx.query(sql, &[job.0.into()])?;
                rows.first().map(|row| Ok((RunId(row.get(0)?), DeliveryId(row.get(1)?)))).transpose()
            })
            .await
    }

    /// The commit for which the last delivery of a ref was made.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn head(&self, repository: RepoId, name: &RefName) -> Result<Option<String>, RecordsError> {
        let sql = "SELECT commit_id FROM heads WHERE repository = $1 AND ref_name = $2";
        let name = name.to_string();
        self.records
            .read(move |tx| {
                let rows = tx.query(sql, &[repository.0.into(), name.into()])?;
                rows.first().map(|row| row.get(0)).transpose()
            })
            .await
    }

    /// Ids from the sequence `name`.
    ///
    /// # Errors
    /// When the records cannot be written.
    pub async fn ids(&self, name: &'static str, count: usize) -> Result<Vec<i64>, RecordsError> {
        if count == 0 {
            return Ok(Vec::new());
        }
        self.records.write(move |tx| (0..count).map(|_| tx.next_id(name)).collect()).await
    }
}

fn encode((delivery, event): &(DeliveryId, Event)) -> Result<NewEvent, RecordsError> {
    let body = serde_json::to_value(event).map_err(|error| RecordsError::Refused(error.to_string()))?;
    let kind = body.get("event").and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    Ok(NewEvent { stream: delivery.0, kind, version: Event::VERSION, body: body.to_string() })
}

fn decode(stored: store::log::StoredEvent) -> Result<RecordedEvent, RecordsError> {
    if stored.version > Event::VERSION {
        let message = format!("event {} was written by a later version of Towpath ({})", stored.seq, stored.version);
        return Err(RecordsError::Refused(message));
    }
    let event = serde_json::from_str(&stored.body)
        .map_err(|error| RecordsError::Refused(format!("event {} cannot be read: {error}", stored.seq)))?;
    Ok(RecordedEvent { seq: stored.seq, at: stored.at, delivery: DeliveryId(stored.stream), event })
}

fn summary(row: &store::Row) -> Result<RunSummary, RecordsError> {
    let kind = row.get::<String>(1)?;
    Ok(RunSummary {
        run: RunId(row.get(0)?),
        kind: if kind == "target" { RunKind::Target } else { RunKind::Workflow },
        target: row.get::<Option<i64>>(11)?.map(TargetId),
        name: row.get(2)?,
        number: row.get(3)?,
        delivery: DeliveryId(row.get(4)?),
        ref_name: row.get(5)?,
        commit: row.get(6)?,
        outcome: row.get(7)?,
        cause: row.get(8)?,
        created: Timestamp(row.get(9)?),
        ended: row.get::<Option<i64>>(10)?.map(Timestamp),
    })
}

fn project(tx: &mut Tx<'_>, recorded: &RecordedEvent) -> Result<(), RecordsError> {
    let at = recorded.at;
    match &recorded.event {
        Event::DeliveryCreated { delivery } => created(tx, delivery, at),
        Event::TargetRunCreated { run, number, target, name, .. } => {
            insert_run(tx, recorded, *run, ("target", name.as_str(), *number), Some(*target))
        }
        Event::WorkflowsPlanned { runs } => {
            for workflow in runs {
                let named = ("workflow", workflow.name.as_str(), workflow.number);
                insert_run(tx, recorded, workflow.run, named, None)?;
                insert_jobs(tx, recorded, workflow.run, &workflow.jobs)?;
            }
            Ok(())
        }
        Event::JobExpanded { run, jobs, .. } => insert_jobs(tx, recorded, *run, jobs),
        Event::WorkflowRunFinished { run, outcome, cause } => {
            ended(tx, *run, *outcome, cause.as_ref().map(ToString::to_string), at)
        }
        Event::TargetRunFinished { run, outcome, cause } => {
            if *outcome == Outcome::Succeeded {
                live::arrived(tx, recorded, *run)?;
            }
            ended(tx, *run, *outcome, cause.as_ref().map(ToString::to_string), at)
        }
        Event::ImageBuilt { run, service, identity, image } => {
            artifacts::built(tx, recorded.delivery, *run, service, identity, image)
        }
        Event::DeliveryFinished => {
            let sql = "UPDATE deliveries SET finished = $2 WHERE id = $1";
            tx.execute(sql, &[recorded.delivery.0.into(), at.0.into()]).map(|_| ())
        }
        _ => Ok(()),
    }
}

fn created(tx: &mut Tx<'_>, delivery: &Delivery, at: Timestamp) -> Result<(), RecordsError> {
    let (id, repository) = (delivery.id.0, delivery.repository.0);
    let (name, commit) = (delivery.ref_name.as_str(), delivery.commit.as_str());
    tx.execute(
        "INSERT INTO deliveries (id, repository, ref_name, commit_id, created) VALUES ($1, $2, $3, $4, $5)",
        &[id.into(), repository.into(), name.into(), commit.into(), at.0.into()],
    )?;
    if delivery.trigger != model::Trigger::Push {
        return Ok(());
    }
    tx.execute(
        "INSERT INTO heads (repository, ref_name, commit_id) VALUES ($1, $2, $3)
            ON CONFLICT (repository, ref_name) DO UPDATE SET commit_id = $3",
        &[repository.into(), name.into(), commit.into()],
    )?;
    Ok(())
}

fn insert_run(
    tx: &mut Tx<'_>,
    recorded: &RecordedEvent,
    run: RunId,
    (kind, name, number): (&str, &str, i64),
    target: Option<TargetId>,
) -> Result<(), RecordsError> {
    let target = target.map(|target| target.0);
    tx.execute(
        "INSERT INTO runs (id, delivery, kind, name, number, target, repository, ref_name, commit_id, created)
            SELECT $1, id, $3, $4, $5, $6, repository, ref_name, commit_id, $7 FROM deliveries WHERE id = $2",
        &[
            run.0.into(),
            recorded.delivery.0.into(),
            kind.into(),
            name.into(),
            number.into(),
            target.into(),
            recorded.at.0.into(),
        ],
    )?;
    Ok(())
}

fn insert_jobs(tx: &mut Tx<'_>, recorded: &RecordedEvent, run: RunId, jobs: &[JobPlanned]) -> Result<(), RecordsError> {
    for job in jobs {
        let sql = "INSERT INTO jobs (id, run, delivery, name) VALUES ($1, $2, $3, $4)";
        let delivery = recorded.delivery.0;
        tx.execute(sql, &[job.job.0.into(), run.0.into(), delivery.into(), job.name.as_str().into()])?;
    }
    Ok(())
}

fn ended(
    tx: &mut Tx<'_>,
    run: RunId,
    outcome: Outcome,
    cause: Option<String>,
    at: Timestamp,
) -> Result<(), RecordsError> {
    let sql = "UPDATE runs SET outcome = $2, cause = $3, ended = $4 WHERE id = $1";
    tx.execute(sql, &[run.0.into(), outcome.name().into(), cause.into(), at.0.into()])?;
    Ok(())
}

#[cfg(test)]
mod tests;
