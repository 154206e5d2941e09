//! The inputs of workflows that a person or another workflow starts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::evaluator::{Evaluator, flag_of};
use crate::object::{Contexts, Object};
use crate::status::Status;
use crate::text::{self, clip, nearest};
use crate::value::Value;
use crate::workflow::Workflow;

/// An input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// Its name.
    pub name: String,
    /// What it takes.
    pub kind: InputKind,
    /// Whether it must be given.
    pub required: bool,
    /// What it is if not given. May hold expressions.
    pub default: Option<Value>,
    /// What it is for.
    pub description: Option<String>,
}

/// What an input takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InputKind {
    /// Any text.
    Text,
    /// `true` or `false`.
    Boolean,
    /// A number.
    Number,
    /// One of these texts.
    Choice(Vec<String>),
    /// The name of an environment.
    Environment,
}

/// Why inputs do not fit a workflow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// The workflow does not take inputs this way.
    #[error("the workflow {0} has no `{1}` trigger")]
    NoTrigger(String, &'static str),
    /// There is no such input.
    #[error("the workflow has no input {0:?}{1}")]
    Unknown(String, String),
    /// A required input is missing.
    #[error("the input {0:?} is required")]
    Missing(String),
    /// A value does not fit.
    #[error("the input {0:?}: {1}")]
    Invalid(String, String),
}

impl Input {
    /// The value as this input has it, or why it does not take it.
    pub(crate) fn accept(&self, value: &Value) -> Result<Value, String> {
        match &self.kind {
            InputKind::Boolean => flag_of(value).map(Value::Bool),
            InputKind::Number => {
                let number = match value {
                    Value::Number(number) => *number,
                    Value::String(text) if !text.trim().is_empty() => value.to_number(),
                    _ => f64::NAN,
                };
                match number.is_nan() {
                    true => Err(format!("expected a number, found `{}`", clip(&value.to_text(), 40))),
                    false => Ok(Value::Number(number)),
                }
            }
            InputKind::Choice(options) => {
                let given = value.to_text();
                match options.contains(&given) {
                    true => Ok(Value::String(given)),
                    false => Err(format!("`{}` is not one of {}", clip(&given, 40), options.join(", "))),
                }
            }
            InputKind::Text | InputKind::Environment if value.is_primitive() => Ok(Value::String(value.to_text())),
            InputKind::Text | InputKind::Environment => Err(format!("expected a text, found {}", value.kind())),
        }
    }

    /// What the input is where nobody gives it a value.
    fn absent(&self) -> Value {
        match &self.kind {
            InputKind::Boolean => Value::Bool(false),
            InputKind::Number => Value::Number(0.0),
            InputKind::Choice(options) => options.first().map_or(Value::from(""), |first| Value::from(first.as_str())),
            InputKind::Text | InputKind::Environment => Value::from(""),
        }
    }
}

/// The `inputs` context of a workflow that a person starts with `given`.
///
/// `github.event.inputs` has the same values as texts.
///
/// # Errors
/// When the workflow cannot be started so, an input is unknown or missing, or a value does not fit.
pub fn dispatch_inputs(workflow: &Workflow, given: &BTreeMap<String, String>) -> Result<Object, InputError> {
    if !workflow.on.has("workflow_dispatch") {
        return Err(InputError::NoTrigger(workflow.path().to_owned(), "workflow_dispatch"));
    }
    let given: Object = given.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    fill(&workflow.on.dispatch, &given, &Contexts::new())
}

/// The `inputs` context of a workflow that another one calls with `given`. `contexts` are the caller's, for defaults.
///
/// # Errors
/// As [`dispatch_inputs`].
pub fn call_inputs(workflow: &Workflow, given: &Object, contexts: &Contexts) -> Result<Object, InputError> {
    match &workflow.on.call {
        Some(spec) => fill(&spec.inputs, given, contexts),
        None => Err(InputError::NoTrigger(workflow.path().to_owned(), "workflow_call")),
    }
}

fn fill(inputs: &[Input], given: &Object, contexts: &Contexts) -> Result<Object, InputError> {
    let known = |name: &str| inputs.iter().any(|input| text::equal(&input.name, name));
    if let Some(unknown) = given.keys().find(|name| !known(name)) {
        let near = nearest(unknown, inputs.iter().map(|input| input.name.as_str()));
        let meant = near.map(|near| format!(": did you mean {near:?}?")).unwrap_or_default();
        return Err(InputError::Unknown(clip(unknown, 80), meant));
    }
    let mut filled = Object::new();
    for input in inputs {
        let invalid = |why: String| InputError::Invalid(input.name.clone(), why);
        let value = match (given.get(&input.name), &input.default) {
            // An empty text is what a form sends for what was not filled in.
            (Some(value), _) if !(value.to_text().is_empty() && input.kind != InputKind::Text) => {
                if input.required && value.is_primitive() && value.to_text().is_empty() {
                    return Err(InputError::Missing(input.name.clone()));
                }
                input.accept(value).map_err(invalid)?
            }
            (_, Some(Value::String(text))) => {
                let value = Evaluator::new(contexts, Status::SUCCESS).value(text);
                input.accept(&value.map_err(|error| invalid(error.to_string()))?).map_err(invalid)?
            }
            (_, Some(default)) => default.clone(),
            (_, None) if input.required => return Err(InputError::Missing(input.name.clone())),
            (_, None) => input.absent(),
        };
        filled.insert(input.name.clone(), value);
    }
    Ok(filled)
}
