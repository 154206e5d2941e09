//! Where the output of runs lies.

use std::path::PathBuf;

use model::{RunId, Stage};

use crate::{Pipeline, PipelineError, RunKind};

/// The output of a job or stage.
#[derive(Clone, Debug)]
pub struct LogFile {
    /// The job's name or the stage's.
    pub part: String,
    /// The file; it may not be there yet, and grows while the part is under way.
    pub path: PathBuf,
}

impl Pipeline {
    /// The logs of a run; of one part if it is named: a stage, or a job by name, key or id. A target run's are those of
    /// the workflow jobs of its delivery and of its build.
    ///
    /// # Errors
    /// When there is no such run or part.
    pub async fn log_files(&self, run: RunId, part: Option<&str>) -> Result<Vec<LogFile>, PipelineError> {
        let unknown = || PipelineError::Unknown(format!("there is no run {run}"));
        let (summary, _) = self.journal.run(run).await?.ok_or_else(unknown)?;
        let events = self.journal.delivery(summary.delivery).await?;
        let mut files = Vec::new();
        for recorded in &events {
            let model::Event::WorkflowsPlanned { runs } = &recorded.event else { continue };
            for workflow in runs.iter().filter(|it| summary.kind == RunKind::Target || it.run == run) {
                let Some(facts) = evidence::workflow_facts(&events, workflow.run) else { continue };
                for job in &facts.planned.jobs {
                    let named = |part: &str| part == job.name || part == job.key || part == job.job.to_string();
                    if part.is_none_or(|part| named(part) || part == Stage::Workflow.name()) {
                        let path = self.rooms.jobs.log_path(job.job);
                        files.push(LogFile { part: job.name.clone(), path });
                    }
                }
            }
        }
        let build = Stage::Build.name();
        if summary.kind == RunKind::Target && part.is_none_or(|part| part == build) {
            files.push(LogFile { part: build.to_owned(), path: self.rooms.stage_log(run, Stage::Build) });
        }
        match part {
            Some(part) if files.is_empty() => {
                Err(PipelineError::Unknown(format!("run {run} has no stage with a log and no job named {part:?}")))
            }
            _ => Ok(files),
        }
    }
}
