//! What targets and runs need of the registry: nothing of it is ever collected.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Mutex, PoisonError};

use evidence::Live;
use model::{DeliveryId, Digest, PinnedImage, ReuseDecision, RunId};
use registry::{BoxFuture, Root, Roots};
use store::RecordsError;

use crate::journal::Journal;
use crate::state::State;
use crate::targets::{self, ConfiguredTarget};

/// Runs before the live one that a target can be brought back to without its images having to be kept by a rule.
const ROLLBACKS: i64 = 5;

/// Runs whose images are remembered: they ended, so nothing changes about them.
const REMEMBERED: usize = 10_000;

/// What the log says is needed.
pub(crate) struct Needed {
    journal: Journal,
    /// The images of runs that succeeded.
    images: Mutex<HashMap<RunId, Vec<PinnedImage>>>,
}

impl fmt::Debug for Needed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Needed").finish_non_exhaustive()
    }
}

impl Needed {
    pub(crate) fn new(journal: Journal) -> Self {
        Self { journal, images: Mutex::default() }
    }

    async fn roots(&self) -> Result<Vec<Root>, String> {
        let told = |error: RecordsError| error.to_string();
        let mut roots = Vec::new();
        // What is under way first: a run that ends in between is live by the time the targets are read.
        for delivery in self.journal.unfinished().await.map_err(told)? {
            self.under_way(delivery, &mut roots).await?;
        }
        for target in targets::list(self.journal.records()).await.map_err(told)? {
            let Some(live) = crate::live::of(self.journal.records(), target.id).await.map_err(told)? else { continue };
            let why = format!("deployed at target {}", target.name);
            roots.extend(live.images.values().map(|image| Root { image: image.clone(), why: why.clone() }));
            self.rollbacks(&target, &live, &mut roots).await?;
        }
        Ok(roots)
    }

    /// The images that the runs of a delivery have built, found or are about to bring.
    async fn under_way(&self, delivery: DeliveryId, roots: &mut Vec<Root>) -> Result<(), String> {
        let events = self.journal.delivery(delivery).await.map_err(|error| error.to_string())?;
        let state = State::fold(events.iter().map(|recorded| &recorded.event)).map_err(|error| error.to_string())?;
        for run in state.targets.values() {
            let why = format!("run {} is under way", run.run);
            let found = run.decisions.iter().flatten().filter_map(|decision| match &decision.decision {
                ReuseDecision::Hit { image, .. } => Some(image),
                ReuseDecision::Miss { .. } => None,
            });
            let images = found.chain(run.images.values());
            roots.extend(images.map(|image| Root { image: image.clone(), why: why.clone() }));
        }
        Ok(())
    }

    async fn rollbacks(&self, target: &ConfiguredTarget, live: &Live, roots: &mut Vec<Root>) -> Result<(), String> {
        let (id, before) = (target.id.0, live.run.0);
        let read = self.journal.records().read(move |tx| {
            let sql = "SELECT id, delivery FROM runs WHERE target = $1 AND id < $2 AND outcome = 'succeeded'
                       ORDER BY id DESC LIMIT $3";
            let rows = tx.query(sql, &[id.into(), before.into(), ROLLBACKS.into()])?;
            rows.iter().map(|row| Ok((RunId(row.get(0)?), DeliveryId(row.get(1)?)))).collect::<Result<Vec<_>, _>>()
        });
        for (run, delivery) in read.await.map_err(|error: RecordsError| error.to_string())? {
            let why = format!("target {} can go back to run {run}", target.name);
            let images = self.images_of(run, delivery).await?;
            roots.extend(images.into_iter().map(|image| Root { image, why: why.clone() }));
        }
        Ok(())
    }

    async fn images_of(&self, run: RunId, delivery: DeliveryId) -> Result<Vec<PinnedImage>, String> {
        if let Some(images) = self.images.lock().unwrap_or_else(PoisonError::into_inner).get(&run) {
            return Ok(images.clone());
        }
        let events = self.journal.delivery(delivery).await.map_err(|error| error.to_string())?;
        let facts = evidence::target_facts(&events, run);
        let images: Vec<_> = facts.map(|facts| facts.images().into_values().cloned().collect()).unwrap_or_default();
        let mut known = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(run, images.clone());
        Ok(images)
    }

    /// Those of the blobs that are recipes of images: the reuse plan compares with them.
    async fn recipes(&self, among: Vec<Digest>) -> Result<HashSet<Digest>, String> {
        let read = self.journal.records().read(move |tx| {
            let mut recipes = HashSet::new();
            for digest in among {
                let sql = "SELECT run FROM artifacts WHERE identity = $1 LIMIT 1";
                if tx.query_first(sql, &[(&digest).into()])?.is_some() {
                    recipes.insert(digest);
                }
            }
            Ok(recipes)
        });
        read.await.map_err(|error: RecordsError| error.to_string())
    }
}

impl Roots for Needed {
    fn images(&self) -> BoxFuture<'_, Result<Vec<Root>, String>> {
        Box::pin(self.roots())
    }

    fn blobs(&self, among: Vec<Digest>) -> BoxFuture<'_, Result<HashSet<Digest>, String>> {
        Box::pin(self.recipes(among))
    }
}

#[cfg(test)]
mod tests {
    use model::{CommitId, Event, HeadCommit, Outcome, TargetId, Timestamp};
    use store::{Location, Records};

    use super::*;
    use crate::fixtures::{commit, delivery, digest, image, miss, target_run};

    /// A delivery with target run `run`, which built image `run` of the service `web`.
    fn opened(run: i64) -> Vec<Event> {
        vec![
            Event::DeliveryCreated { delivery: delivery(run) },
            target_run(run),
            Event::SnapshotPinned { head: HeadCommit::default() },
            Event::WorkflowsPlanned { runs: Vec::new() },
            Event::ReuseDecided { run: RunId(run), services: vec![miss("web")], live: false },
            built(run),
        ]
    }

    fn number(run: i64) -> u8 {
        u8::try_from(run).unwrap()
    }

    fn built(run: i64) -> Event {
        let (identity, image) = (digest(100 + number(run)), image("web", number(run)));
        Event::ImageBuilt { run: RunId(run), service: "web".into(), identity, image }
    }

    fn delivered(run: i64, revision: CommitId) -> Vec<Event> {
        let run = RunId(run);
        vec![
            Event::GitopsCommitted { run, revision, previous: None, changed: true },
            Event::RolledOut { run, address: None, health: Vec::new() },
            Event::ClosedOut { run, health: Vec::new() },
            Event::TargetRunFinished { run, outcome: Outcome::Succeeded, cause: None },
            Event::DeliveryFinished,
        ]
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_runs_what_may_come_back_and_what_is_being_made_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(Location::Sqlite(dir.path().join("towpath.db"))).await.unwrap();
        let journal = Journal::open(records.clone()).await.unwrap();
        let target = serde_json::json!({
            "repository": "demo/site", "branch": "main",
            "services": [{ "name": "web", "image": "demo/web", "build": {} }],
            "gitops": { "branch": "deploy" },
        });
        targets::put(&records, "site", &config::parse_target_spec(&target).unwrap()).await.unwrap();
        assert_eq!(targets::list(&records).await.unwrap()[0].id, TargetId(1));
        // Eight runs succeeded, the ninth failed, the tenth is under way.
        for run in 1..=10 {
            let mut events = opened(run);
            match run {
                ..=8 => events.extend(delivered(run, commit('e'))),
                9 => {
                    let finished = Event::TargetRunFinished { run: RunId(run), outcome: Outcome::Failed, cause: None };
                    events.extend([finished, Event::DeliveryFinished]);
                }
                _ => {}
            }
            let events = events.into_iter().map(|event| (DeliveryId(run), event)).collect();
            journal.append(Timestamp(run), events).await.unwrap();
        }
        let needed = Needed::new(journal);
        let mut roots: Vec<(u8, String)> =
            needed.images().await.unwrap().into_iter().map(|it| (it.image.digest.as_bytes()[0], it.why)).collect();
        roots.sort();
        let mut expected: Vec<_> = (3..=7).map(|run| (run, format!("target site can go back to run {run}"))).collect();
        expected.push((8, "deployed at target site".to_owned()));
        expected.push((10, "run 10 is under way".to_owned()));
        assert_eq!(roots, expected);
        assert_eq!(needed.images().await.unwrap().len(), 7, "again from memory");
        let recipes = needed.blobs(vec![digest(101), digest(5)]).await.unwrap();
        assert_eq!(recipes, HashSet::from([digest(101)]));
    }
}
