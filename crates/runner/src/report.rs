//! How a job ended.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use model::{Cause, JobResult, Timestamp};
use serde::{Deserialize, Serialize};

use crate::durable;

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepReport {
    /// Its name for people, with secrets hidden.
    pub name: String,
    /// How it ended, with `continue-on-error` taken into account: `steps.<id>.conclusion`.
    pub result: JobResult,
    /// How it ended by itself: `steps.<id>.outcome`.
    pub outcome: JobResult,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// Its first line in the log, from 0.
    pub log_from: u64,
    /// The line after its last one.
    pub log_to: u64,
}

/// How grave an annotation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnnotationLevel {
    /// `::error::`
    Error,
    /// `::warning::`
    Warning,
    /// `::notice::`
    Notice,
}

/// A remark of a step on a place in the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Annotation {
    /// How grave it is.
    pub level: AnnotationLevel,
    /// What is said, with secrets hidden.
    pub message: String,
    /// Its headline.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub title: Option<String>,
    /// The file.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub file: Option<String>,
    /// The line, from 1.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub line: Option<u32>,
    /// The column, from 1.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub column: Option<u32>,
    /// The index of the step in [`JobReport::steps`].
    pub step: u32,
}

/// How a job ended. Written to `report.json` in the job's directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobReport {
    /// How.
    pub result: JobResult,
    /// Its outputs; one that holds a secret is left out.
    #[serde(default)]
    pub outputs: BTreeMap<String, String>,
    /// Why it did not succeed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cause: Option<Cause>,
    /// Its steps in order.
    #[serde(default)]
    pub steps: Vec<StepReport>,
    /// What its steps remarked; at most [`JobReport::MAX_ANNOTATIONS`].
    #[serde(default)]
    pub annotations: Vec<Annotation>,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
}

impl JobReport {
    /// How many annotations are kept.
    pub const MAX_ANNOTATIONS: usize = 100;

    /// The report of a job that failed before its first step.
    pub fn failed(cause: Cause, at: Timestamp) -> Self {
        Self {
            result: JobResult::Failure,
            outputs: BTreeMap::new(),
            cause: Some(cause),
            steps: Vec::new(),
            annotations: Vec::new(),
            started: at,
            finished: at,
        }
    }

    /// Reads `report.json` of the job directory `dir`; nothing if it is not there.
    ///
    /// # Errors
    /// When it cannot be read or is not a report.
    pub fn read(dir: &Path) -> io::Result<Option<Self>> {
        durable::read_json(&dir.join("report.json"))
    }

    /// Writes it to `report.json` of `dir`, durably.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        durable::write_json(dir, "report.json", self)
    }
}
