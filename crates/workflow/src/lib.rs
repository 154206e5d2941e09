//! Turns a workflow file and a trigger into a plan of jobs. Pure: no file, no clock, no socket.
//!
//! [`parse`] reads and checks a file, [`fires`] says whether an event runs it, [`plan()`] makes the jobs, and [`Evaluator`]
//! expands the texts that only a runner can. Everything follows GitHub's workflow syntax; whatever the input, nothing here
//! panics, recurses without bound or makes more than a bounded amount of memory.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cron;
mod error;
mod evaluator;
mod expression;
mod glob;
mod inputs;
mod late;
mod matrix;
mod node;
mod number;
mod object;
mod plan;
mod planner;
mod read;
mod resolve;
mod status;
mod text;
mod trigger;
mod value;
mod workflow;
mod yaml;

pub use error::WorkflowError;
pub use evaluator::{Evaluator, condition, expand};
pub use expression::ExpressionError;
pub use inputs::{Input, InputError, InputKind, call_inputs, dispatch_inputs};
pub use late::Late;
pub use object::{Contexts, Object};
pub use plan::{
    Access, Call, CallSecrets, Concurrency, Container, Credentials, Defaults, Environment, JobPlan, Permissions, Queue,
    RunnerSnapshot, Setting, Step,
};
pub use planner::{RunPlan, call_outputs, expand_matrix, plan, plan_run};
pub use status::Status;
pub use trigger::{CallOutput, CallSecret, CallSpec, Schedule, TriggerEvent, fires, skip_mark};
pub use value::Value;
pub use workflow::{Workflow, parse, workflow_files};
