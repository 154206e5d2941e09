//! How what came before went: what `success()`, `failure()` and `cancelled()` answer.

use model::JobResult;
use serde::{Deserialize, Serialize};

/// The answers of the status functions. `always()` is always true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// In a step: no step before failed and the job is not cancelled. In a job: every job it needs succeeded.
    pub success: bool,
    /// In a step: a step before failed. In a job: a job it needs, or one of theirs, failed.
    pub failure: bool,
    /// The run was cancelled.
    pub cancelled: bool,
}

impl Status {
    /// All went well.
    pub const SUCCESS: Self = Self { success: true, failure: false, cancelled: false };
    /// Something failed.
    pub const FAILURE: Self = Self { success: false, failure: true, cancelled: false };
    /// The run was cancelled.
    pub const CANCELLED: Self = Self { success: false, failure: false, cancelled: true };
    /// Neither: a job it needs was skipped.
    pub const SKIPPED: Self = Self { success: false, failure: false, cancelled: false };

    /// The status for a job from the results of all jobs it needs, and all that those need.
    ///
    /// A job whose `continue-on-error` took its failure back counts as [`JobResult::Success`].
    pub fn of_needs(results: impl IntoIterator<Item = JobResult>, run_cancelled: bool) -> Self {
        let mut status = Self { cancelled: run_cancelled, success: !run_cancelled, failure: false };
        for result in results {
            status.success &= result == JobResult::Success;
            status.failure |= result == JobResult::Failure;
        }
        status
    }
}

impl From<JobResult> for Status {
    /// The status for a step, from how its job stands.
    fn from(result: JobResult) -> Self {
        match result {
            JobResult::Success => Self::SUCCESS,
            JobResult::Failure => Self::FAILURE,
            JobResult::Cancelled => Self::CANCELLED,
            JobResult::Skipped => Self::SKIPPED,
        }
    }
}
