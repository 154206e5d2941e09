//! Runs one job in the sandbox: steps, native actions, logs, masking.
//!
//! A job has a directory of its own on the server's disk. [`Jobs`] writes the job's specification there and starts a
//! process that outlives the server; that process calls [`supervisor_main`], which runs the job and leaves its log and
//! its report behind. Every step is a sandbox of its own over the same workspace: what a step leaves running ends with it.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod action;
mod checkout;
mod checkout_git;
mod command;
mod composite;
mod context;
mod durable;
mod encodings;
mod envfile;
mod evaluate;
mod follow;
mod hashfiles;
mod inside;
mod job;
mod jobs;
mod label;
mod log;
mod mask;
mod output;
mod place;
mod process;
mod report;
mod script;
mod shell;
mod sparse;
mod spec;
mod step;
mod supervisor;

pub use follow::LogFollower;
pub use job::run;
pub use jobs::{JobState, Jobs, JobsError, LogPart};
pub use label::{Label, LabelRoot, UnknownLabel, default_labels, select};
pub use mask::Masker;
pub use report::{Annotation, AnnotationLevel, JobReport, StepReport};
pub use spec::{JobLimits, JobSpec, NeedResult};
pub use supervisor::supervisor_main;
