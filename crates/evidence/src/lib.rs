//! Folds the event log into the status of a run: fields, stages, budgets and evidence. Pure; holds no state of its own.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod budget;
mod fields;
mod fold;
mod status;

pub use budget::{Budget, BudgetVerdict};
pub use fold::{JobFacts, Live, StageFacts, TargetFacts, WorkflowFacts, target_facts, workflow_facts};
pub use status::{EVIDENCE_FIELDS, JobStatus, REQUIRED_FIELDS, StageState, StageStatus, TargetStatus, WorkflowStatus};
