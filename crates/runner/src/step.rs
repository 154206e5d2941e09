//! One step: its condition, its environment, what it runs, and what became of it.

use std::collections::BTreeMap;

use model::{Cause, JobResult};
use tokio::time::Instant;
use workflow::Step;

use crate::action;
use crate::context::StepState;
use crate::evaluate::Evaluate;
use crate::job::{Job, Scope, StepEnd, minutes};

/// What a step is run with, expanded.
pub struct Ready<'s> {
    pub step: &'s Step,
    /// `GITHUB_ACTION`: the step's id, or a name made for it.
    pub action: String,
    pub title: String,
    /// The step's environment, without what the runner fixes.
    pub env: BTreeMap<String, String>,
    pub deadline: Instant,
}

impl Job<'_> {
    /// Runs a step, or skips it, and notes its state in `scope`.
    pub async fn run_step(&mut self, scope: &mut Scope, step: &Step) -> StepState {
        let mut outputs = BTreeMap::new();
        let end = match self.ready(scope, step) {
            Ok(None) => StepEnd { result: JobResult::Skipped, cause: None },
            Ok(Some(ready)) => {
                let end = self.perform(scope, &ready, &mut outputs).await;
                self.judge_cancel(end)
            }
            Err(cause) => StepEnd::failure(cause),
        };
        let state = self.conclude(scope, step, end, outputs);
        if let Some(id) = &step.id {
            scope.steps.insert(id.clone(), state.clone());
        }
        state
    }

    /// A step that ended badly because the job was cancelled or ran out of time meanwhile did not fail by itself.
    fn judge_cancel(&mut self, end: StepEnd) -> StepEnd {
        let before = self.cancelled;
        self.watch();
        if self.cancelled && !before && end.result == JobResult::Failure {
            return StepEnd { result: JobResult::Cancelled, cause: None };
        }
        end
    }

    /// Expands what the step needs; nothing if its condition is false.
    fn ready<'s>(&mut self, scope: &Scope, step: &'s Step) -> Result<Option<Ready<'s>>, Cause> {
        let at = |message: String| self.in_workflow(message, step.line);
        let before = self.merged(&scope.env);
        let env = Evaluate::new(self, scope, &before)
            .map(&step.env)
            .map_err(|error| at(format!("step {:?}: env: {error}", step.title())))?;
        let mut all = before;
        all.extend(env);
        let evaluate = Evaluate::new(self, scope, &all);
        let wanted = evaluate
            .condition(step.condition.as_deref())
            .map_err(|error| at(format!("step {:?}: if: {error}", step.title())))?;
        if !wanted {
            return Ok(None);
        }
        // A name that cannot be expanded yet is shown as written, as on GitHub.
        let title = evaluate.text(&step.title()).unwrap_or_else(|_| step.title());
        let limit = step
            .timeout_minutes
            .as_ref()
            .map(|setting| evaluate.minutes(setting))
            .transpose()
            .map_err(|error| at(format!("step {title:?}: timeout-minutes: {error}")))?;
        let deadline = limit.map_or(self.deadline, |limit| self.deadline.min(Instant::now() + minutes(limit)));
        let action = step.id.clone().unwrap_or_else(|| format!("__step_{}", self.started + 1));
        Ok(Some(Ready { step, action, title, env: all, deadline }))
    }

    /// `env` with what earlier steps wrote to `GITHUB_ENV`.
    fn merged(&self, env: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut merged = env.clone();
        merged.extend(self.added.clone());
        merged
    }

    async fn perform(
        &mut self,
        scope: &mut Scope,
        ready: &Ready<'_>,
        outputs: &mut BTreeMap<String, String>,
    ) -> StepEnd {
        self.started += 1;
        if let Some(index) = self.steps.len().checked_sub(1).filter(|_| scope.depth == 0) {
            self.steps[index].name = self.log.masker().hide(&ready.title);
        }
        match (&ready.step.run, &ready.step.uses) {
            (Some(script), _) => self.run_script(scope, ready, script, outputs).await,
            (None, Some(uses)) => action::run(self, scope, ready, uses, outputs).await,
            (None, None) => StepEnd::failure(self.in_workflow("the step has neither run nor uses", ready.step.line)),
        }
    }

    /// Applies `continue-on-error` and notes a failure.
    fn conclude(
        &mut self,
        scope: &mut Scope,
        step: &Step,
        end: StepEnd,
        outputs: BTreeMap<String, String>,
    ) -> StepState {
        let mut conclusion = end.result;
        if end.result == JobResult::Failure {
            let goes_on = Evaluate::new(self, scope, &scope.env).flag(&step.continue_on_error);
            if goes_on == Ok(true) {
                conclusion = JobResult::Success;
            }
        }
        if let Some(cause) = end.cause {
            if conclusion == JobResult::Failure && scope.depth == 0 {
                self.fail(cause);
            } else if conclusion == JobResult::Failure {
                // The step that uses the composite action tells of it.
                scope.cause.get_or_insert(cause);
            } else {
                self.log.say(&format!("##[error]{}", cause.message));
                self.log.say("The job goes on: the step says continue-on-error.");
            }
        }
        scope.failed |= conclusion == JobResult::Failure;
        StepState { outcome: end.result, conclusion, outputs }
    }
}
