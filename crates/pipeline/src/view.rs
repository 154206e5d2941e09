//! Status of runs, folded from the log.

use evidence::{Budget, TargetStatus, WorkflowStatus};
use model::{Event, RecordedEvent, RepoId, RunId, Stage, Timestamp};
use serde::Serialize;

use crate::{Pipeline, PipelineError, RunKind, RunSummary, live, targets};

/// The bounded status of a run of either kind.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum RunStatus {
    /// Of a target.
    Target(Box<TargetStatus>),
    /// Of a workflow.
    Workflow(Box<WorkflowStatus>),
}

impl RunStatus {
    /// Whether the run has ended.
    pub const fn ended(&self) -> bool {
        match self {
            Self::Target(status) => status.outcome.is_some(),
            Self::Workflow(status) => status.outcome.is_some(),
        }
    }
}

impl Pipeline {
    /// The newest runs, newest first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn runs(&self, repository: Option<RepoId>, limit: i64) -> Result<Vec<RunSummary>, PipelineError> {
        Ok(self.journal.runs(repository, limit).await?)
    }

    /// The repository that a run belongs to.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn run_repository(&self, run: RunId) -> Result<Option<RepoId>, PipelineError> {
        Ok(self.journal.run(run).await?.map(|(_, repository)| repository))
    }

    /// The status of a run; nothing if there is no such run.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn status(&self, run: RunId) -> Result<Option<RunStatus>, PipelineError> {
        let Some((summary, _)) = self.journal.run(run).await? else { return Ok(None) };
        let events = self.journal.delivery(summary.delivery).await?;
        let now = Timestamp::from(std::time::SystemTime::now());
        Ok(match summary.kind {
            RunKind::Workflow => evidence::workflow_facts(&events, run)
                .map(|facts| RunStatus::Workflow(Box::new(WorkflowStatus::of(&facts, now)))),
            RunKind::Target => self.of_target(&events, run, now).await?.map(|it| RunStatus::Target(Box::new(it))),
        })
    }

    async fn of_target(
        &self,
        events: &[RecordedEvent],
        run: RunId,
        now: Timestamp,
    ) -> Result<Option<TargetStatus>, PipelineError> {
        let Some(facts) = evidence::target_facts(events, run) else { return Ok(None) };
        let created = events.iter().find_map(|recorded| match &recorded.event {
            Event::TargetRunCreated { run: this, target, spec, .. } if *this == run => Some((*target, spec)),
            _ => None,
        });
        let Some((target, spec)) = created else { return Ok(None) };
        let live = live::of(&self.rooms.records, target).await?;
        let budgets = config::parse_target_spec(spec).map(|spec| spec.budgets).unwrap_or_default();
        let budget =
            Budget { stages: Stage::ALL.map(|stage| budgets.of(stage)), end_to_end: Some(budgets.end_to_end_seconds) };
        Ok(Some(TargetStatus::of(&facts, live.as_ref(), &budget, now)))
    }

    /// The status of the newest run of a target; nothing if there is no target or run.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn target_status(&self, name: &str) -> Result<Option<TargetStatus>, PipelineError> {
        let all = targets::list(&self.rooms.records).await?;
        let Some(target) = all.into_iter().find(|it| it.name == name) else { return Ok(None) };
        let Some(last) = self.journal.last_run(target.id).await? else { return Ok(None) };
        let events = self.journal.delivery(last.delivery).await?;
        self.of_target(&events, last.run, Timestamp::from(std::time::SystemTime::now())).await
    }
}
