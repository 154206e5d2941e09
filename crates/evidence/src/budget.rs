//! Budgets: each stage and the whole are judged alone.

use model::Stage;
use serde::Serialize;

/// Budgets in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget {
    /// One for each of [`Stage::ALL`]; nothing for a stage without one.
    pub stages: [Option<u32>; 8],
    /// From the trigger to the end.
    pub end_to_end: Option<u32>,
}

impl Budget {
    /// The budget of a stage in seconds.
    pub fn of(&self, stage: Stage) -> Option<u32> {
        let index = Stage::ALL.iter().position(|it| *it == stage)?;
        self.stages[index]
    }
}

/// What took longer than its budget.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BudgetVerdict {
    /// A stage id of the specification, or `end-to-end`.
    pub what: String,
    /// What it took, in seconds.
    pub seconds: f64,
    /// What it should have taken at most, in seconds.
    pub budget_seconds: u32,
}
