//! Starting: open deliveries are folded and go on, and refs that moved while nobody looked are delivered.

use std::sync::Arc;

use model::RefName;
use source::RefUpdate;
use tokio::sync::{broadcast, mpsc};

use crate::engine::Engine;
use crate::journal::Journal;
use crate::rooms::Rooms;
use crate::state::State;
use crate::{Pipeline, PipelineError};

/// Why the pipeline cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log does not fit together.
    #[error("delivery {0}: {1}")]
    Log(model::DeliveryId, crate::state::Inconsistent),
    /// Records.
    #[error(transparent)]
    Records(#[from] store::RecordsError),
    /// Jobs of before cannot be looked at.
    #[error("the jobs that were under way cannot be picked up: {0}")]
    Jobs(String),
    /// Anything else.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
}

impl Pipeline {
    /// Starts, going on with whatever was left open.
    ///
    /// # Errors
    /// When the log or the repositories cannot be read.
    pub async fn start(rooms: Rooms, journal: Journal) -> Result<Self, StartError> {
        let rooms = Arc::new(rooms);
        let mut states = Vec::new();
        for id in journal.unfinished().await? {
            let events = journal.delivery(id).await?;
            let state = State::fold(events.iter().map(|recorded| &recorded.event));
            states.push(state.map_err(|error| StartError::Log(id, error))?);
        }
        end_forgotten_jobs(&rooms, &states).await?;
        let (sender, inbox) = mpsc::channel(256);
        let (recorded, _) = broadcast::channel(4096);
        let engine =
            Engine::new(Arc::clone(&rooms), journal.clone(), states, (sender.clone(), inbox), recorded.clone());
        let pipeline = Self { rooms, journal, engine: sender, recorded };
        tokio::spawn(engine.run());
        pipeline.reconcile().await?;
        pipeline.follow_images();
        pipeline.keep_house();
        Ok(pipeline)
    }

    /// Delivers refs that were moved without a delivery: a push whose server died before it could record it.
    async fn reconcile(&self) -> Result<(), PipelineError> {
        for repo in self.rooms.hosting.list().await? {
            // One repository that cannot be read must not keep the others from being served.
            if let Err(error) = self.reconcile_one(&repo).await {
                tracing::error!(repository = %repo.name, %error, "refs that moved unseen could not be delivered");
            }
        }
        Ok(())
    }

    async fn reconcile_one(&self, repo: &source::HostedRepo) -> Result<(), PipelineError> {
        let repository = self.rooms.hosting.repository(repo.id)?;
        let mut refs = repository.refs("refs/heads/").await?;
        refs.extend(repository.refs("refs/tags/").await?);
        let mut updates = Vec::new();
        for (name, commit) in refs {
            let recorded = self.journal.head(repo.id, &name).await?;
            if recorded.as_deref() != Some(commit.as_str()) && !self.ours(repo, &name).await? {
                let old = recorded.and_then(|text| text.parse().ok());
                updates.push(RefUpdate { name, old, new: Some(commit) });
            }
        }
        if !updates.is_empty() {
            tracing::info!(repository = %repo.name, refs = updates.len(), "delivering refs that moved unseen");
            self.pushed(repo, updates, "towpath").await?;
        }
        Ok(())
    }

    /// Branches of manifests move by our own commits.
    async fn ours(&self, repo: &source::HostedRepo, name: &RefName) -> Result<bool, PipelineError> {
        let configured = crate::targets::of_repository(&self.rooms.records, &repo.name).await?;
        Ok(configured
            .iter()
            .any(|it| *it.spec.gitops_repository() == repo.name && name.as_branch() == Some(&it.spec.gitops.branch)))
    }
}

/// Jobs whose run was cancelled or superseded while the server was down.
async fn end_forgotten_jobs(rooms: &Rooms, states: &[State]) -> Result<(), StartError> {
    let wanted = |id: model::JobId| {
        states
            .iter()
            .flat_map(|state| state.workflows.values())
            .any(|run| run.outcome.is_none() && run.jobs.get(&id).is_some_and(|job| job.finished.is_none()))
    };
    // Their tokens first: what they still do is no longer wanted.
    for id in rooms.access.jobs_with_tokens().await.map_err(PipelineError::from)? {
        if !wanted(id) {
            rooms.access.end_job(id).await.map_err(PipelineError::from)?;
        }
    }
    let dir = rooms.data.join("jobs");
    let Ok(entries) = std::fs::read_dir(&dir) else { return Ok(()) };
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    for id in ids.filter(|id| !wanted(*id)) {
        // False where it does not run: nothing to end.
        rooms.jobs.cancel(id).await.map_err(|error| StartError::Jobs(error.to_string()))?;
    }
    Ok(())
}
